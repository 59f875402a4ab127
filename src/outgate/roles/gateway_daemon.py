"""The gateway's daemon process: what `outgate gateway run` does until it is told to stop.

Stopping leaves the data path as it is. The socket answers `status` to whoever may look, and `apply`, `confirm`,
`rollback` to whoever may change; answers to `apply` come when the machine has converged.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version

from outgate.control.daemon import Report
from outgate.control.peer import Right
from outgate.control.socket import LATER, Later, Question, Server, Verb
from outgate.control.status import Observed, status_of
from outgate.model.errors import IntentError, OutgateError
from outgate.model.net import Address
from outgate.model.status import Confirmation, Status
from outgate.report.layout import Style
from outgate.report.status import status_document, status_text
from outgate.roles.gateway import Gateway, opened
from outgate.roles.options import GatewayOptions
from outgate.systems.conntrack import read as conntrack
from outgate.systems.nft.parse import Counts

SAMPLE_S = 30.0  # ports in use are counted this often; status says how old the sample is
MOST_FLOWS = 200_000  # with more live flows than this the sample would cost more than it tells

log = logging.getLogger("outgate.gateway")


@dataclass(slots=True)
class Service:
    """The daemon with its socket: answers questions about the gateway and takes orders."""

    gateway: Gateway | None = None
    waiting: list[Question] = field(default_factory=list)
    ports: dict[Address, int] = field(default_factory=dict)
    ports_at_s: float | None = None

    def told(self, report: Report) -> None:
        """After each round: answer those who wait for it, once nothing is left to do."""
        finding_less = report.decided is not None and report.outcome.converged and not report.error
        if finding_less and report.decided is not None and not report.decided.desired.probes:
            questions, self.waiting = self.waiting, []
            for question in questions:
                question.answer({"changes": report.changes, "findings": len(report.findings)})

    def verbs(self) -> dict[str, Verb]:
        """Return what can be asked."""
        return {
            "status": Verb(needs=Right.LOOK, run=self._status),
            "apply": Verb(needs=Right.CHANGE, run=self._apply),
            "confirm": Verb(needs=Right.CHANGE, run=self._confirm),
            "rollback": Verb(needs=Right.CHANGE, run=self._rollback),
        }

    def status(self) -> Status:
        """Return how the gateway is doing now."""
        gateway = self._gateway()
        now_s = gateway.loop.now_s()
        try:
            counts = gateway.machine.counts()
        except OutgateError:
            counts = Counts()  # status answers also where nft does not
        until = gateway.waits_until_s
        observed = Observed(
            now_s=now_s,
            started_s=gateway.started_s,
            version=version("outgate"),
            source=str(gateway.options.manifests),
            source_read_s=gateway.daemon.source_read_s,
            counts=counts,
            ports=self.ports,
            ports_at_s=self.ports_at_s,
            confirmation=Confirmation(left_s=gateway.left_s()) if until is not None else None,
        )
        return status_of(gateway.daemon.report, observed)

    def sample_ports(self) -> None:
        """Count live flows by the address that the outside sees."""
        gateway = self._gateway()
        gateway.loop.at("sample", gateway.loop.now_s() + SAMPLE_S, self.sample_ports)
        if conntrack.count().entries > MOST_FLOWS:
            self.ports, self.ports_at_s = {}, None
            return
        found: dict[Address, int] = {}
        for (address, _), flows in conntrack.tally().items():
            found[address] = found.get(address, 0) + flows
        self.ports, self.ports_at_s = found, gateway.loop.now_s()

    def _status(self, question: Question) -> object:
        """Answer with the document, and with text when the client says how wide and whether in colour."""
        status = self.status()
        width = question.argument("width", int, 0)
        colour = question.argument("colour", bool, False)
        text = status_text(status, Style(colour=colour, width=width)) if width else ""
        return {"document": status_document(status), "text": text}

    def _apply(self, question: Question) -> Later:
        manifests = question.arguments.get("manifests")
        if not isinstance(manifests, dict) or not all(isinstance(text, str) for text in manifests.values()):
            raise IntentError("`apply` needs manifests: a text per file name")
        within_s = question.argument("within_s", float, 0.0)
        sure = question.argument("yes", bool, False)
        self._gateway().apply(manifests, within_s=within_s or None, sure=sure)
        self.waiting.append(question)
        return LATER

    def _confirm(self, question: Question) -> Later:
        self._gateway().confirm()
        self.waiting.append(question)
        return LATER

    def _rollback(self, question: Question) -> Later:
        self._gateway().rollback()
        self.waiting.append(question)
        return LATER

    def _gateway(self) -> Gateway:
        assert self.gateway is not None  # set before the loop runs
        return self.gateway


def serve(options: GatewayOptions) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Raises:
        AlreadyRunning: another outgate writes to this network namespace.
    """
    service = Service()
    with ExitStack() as stack:
        gateway = stack.enter_context(opened(options, service.told))
        service.gateway = gateway
        server = Server(gateway.place.socket, service.verbs(), gateway.loop)
        stack.callback(server.close)
        gateway.loop.stop_on_signals()
        gateway.loop.at("sample", gateway.loop.now_s() + SAMPLE_S, service.sample_ports)
        log.info("started", extra={"fields": {"gateway": options.name, "manifests": str(options.manifests)}})
        gateway.daemon.run()
        log.info("stopped", extra={"fields": {"data path": "left as it is"}})
