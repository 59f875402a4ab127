"""The gateway's daemon process: what `outgate gateway run` does until it is told to stop.

Stopping leaves the data path as it is. The socket answers `status` to whoever may look, and `apply`, `confirm`,
`rollback` to whoever may change; answers to `apply` come when the machine has converged.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from outgate.control import logs, notify
from outgate.control.daemon import Report
from outgate.control.exposition import Exposition
from outgate.control.leaks import BlockedLeaks
from outgate.control.metrics import Meter
from outgate.control.peer import Right
from outgate.control.socket import LATER, Later, Question, Server, Verb
from outgate.control.status import Observed, status_of
from outgate.model.errors import IntentError, OutgateError, Refused
from outgate.model.net import Address
from outgate.model.status import Confirmation, SourceStatus, Status
from outgate.model.why import Severity
from outgate.report.layout import Style
from outgate.report.status import status_document, status_text
from outgate.roles.gateway import Gateway, opened
from outgate.roles.options import GatewayOptions
from outgate.sources.exact import plain_of
from outgate.sources.redact import redact_status
from outgate.systems.conntrack import read as conntrack
from outgate.systems.nft.parse import Counts

if TYPE_CHECKING:  # it brings asyncio along
    from outgate.roles.cluster_source import StatusWriters

TIDY_S = 60.0  # what a round leaves for the collector is little; it is collected this often
SAMPLE_S = 30.0  # ports in use are counted this often; status says how old the sample is
_M_MMAP_THRESHOLD = -3  # malloc.h
MOST_FLOWS = 200_000  # with more live flows than this the sample would cost more than it tells

log = logging.getLogger("outgate.gateway")


@dataclass(slots=True)
class Service:
    """The daemon with its socket: answers questions about the gateway and takes orders."""

    gateway: Gateway | None = None
    exposition: Exposition | None = None
    writer: StatusWriters | None = None
    meter: Meter = field(default_factory=Meter)
    leaks: BlockedLeaks = field(default_factory=BlockedLeaks)
    waiting: list[tuple[Question, int]] = field(default_factory=list)
    told_ready: bool = False
    ports: dict[Address, int] = field(default_factory=dict)
    ports_at_s: float | None = None

    def told(self, report: Report) -> None:
        """After each round: count it, tell the service manager, and answer those who wait for it."""
        gateway = self._gateway()
        if report.error:
            self.meter.fail()
        elif report.decided is not None:
            wall_s = gateway.daemon.parts.wall_s()
            self.meter.count(report.outcome, report.seconds, wall_s=wall_s, drift=report.drift)
        self.say(report)
        if not self.told_ready:  # the guards stand, or nothing can be done yet: a boot must not wait for a NIC
            self.told_ready = notify.ready(report.error or f"round {report.rounds}") or True
        if report.decided is None or report.error or not report.outcome.converged or report.decided.desired.probes:
            return
        questions, self.waiting = self.waiting, []
        findings = sum(1 for finding in report.findings if finding.severity is not Severity.NOTE)
        for question, before in questions:
            question.answer({"changes": report.changes - before, "findings": findings})

    def tidy(self) -> None:
        """Collect cycles now, and never look at what is left again.

        A round makes 50,000 values that live on and hold no cycles. The collector would walk over them amid the round
        that a user waits for, and find nothing; so it runs here alone, and what it has seen once is frozen.
        """
        gateway = self._gateway()
        gateway.loop.at("tidy", gateway.loop.now_s() + TIDY_S, self.tidy)
        gc.collect()
        gc.freeze()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc: gives back what rounds have left free
        if trim is not None:
            trim(0)

    def feed_watchdog(self) -> None:
        """Tell the service manager that the loop turns, as often as it wants to hear."""
        every_s = notify.watchdog_s()
        if every_s is not None:
            gateway = self._gateway()
            notify.alive()
            gateway.loop.at("watchdog", gateway.loop.now_s() + every_s, self.feed_watchdog)

    def expose(self, address: str, *, remote: bool) -> None:
        """Serve metrics at an address, if there is one; a port that is taken does not stop the gateway."""
        if not address:
            return
        try:
            self.exposition = Exposition(address, remote=remote)
        except Refused as refused:
            log.warning("no metrics", extra={"fields": {"error": str(refused)}})
            return
        self._gateway().loop.watch(self.exposition, self._show_metrics)

    def _show_metrics(self) -> None:
        """Make the page that a scrape waits for."""
        assert self.exposition is not None  # it is what woke us
        now_s = self._gateway().loop.now_s()
        self.exposition.show(self.meter.view(self.status(), now_s=now_s, flows=self._occupancy()))

    def _occupancy(self) -> tuple[int, int] | None:
        try:
            occupancy = conntrack.count()
        except OutgateError:
            return None
        return occupancy.entries, occupancy.limit

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
        report = gateway.daemon.report
        until = gateway.waits_until_s
        observed = Observed(
            now_s=now_s,
            started_s=gateway.started_s,
            version=version("outgate"),
            source=gateway.options.source,
            sources=self._sources(),
            source_read_s=gateway.daemon.source_read_s,
            source_error=gateway.daemon.source_error,
            counts=counts,
            ports=self.ports,
            ports_at_s=self.ports_at_s,
            confirmation=Confirmation(left_s=gateway.left_s()) if until is not None else None,
        )
        more = (*gateway.state_findings, *(self.writer.findings if self.writer else ()))
        return status_of(replace(report, findings=(*report.findings, *more)), observed)

    def _sources(self) -> tuple[SourceStatus, ...]:
        """Return what an API server's kinds say of themselves; a directory says nothing of itself."""
        statuses = getattr(self._gateway().source, "statuses", tuple)
        return tuple(statuses())

    def say(self, report: Report) -> None:
        """Tell the API server, if the intent comes from one, what became of its objects."""
        options, decided = self._gateway().options, report.decided
        if options.kubeconfig is None or decided is None or decided.claims is None:
            return
        from outgate.roles.cluster_source import StatusWriters, news_of, words_of

        if self.writer is None:
            self.writer = StatusWriters(options, decided.claims.gateway.name)
        self.writer.offer(words_of(report))
        self.writer.tell(news_of(report))

    def look_for_leaks(self) -> None:
        """Tell of packets that were stopped: in the log, and as an event where the intent comes from an API server."""
        gateway = self._gateway()
        gateway.loop.at("leaks", gateway.loop.now_s() + SAMPLE_S, self.look_for_leaks)
        try:
            counts = gateway.machine.counts()
        except OutgateError:
            return  # the rounds tell of an nft that does not answer
        note = self.leaks.look({name: one.packets for name, one in counts.named.items()}, gateway.loop.now_s())
        if not note:
            return
        log.warning("leak blocked", extra={"fields": {"what": note}})
        if self.writer is not None:
            from outgate.roles.cluster_source import news_of_leaks

            self.writer.tell(news_of_leaks(gateway.daemon.report, note))

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
        """Answer with the document; with text when the client says how wide and whether in colour.

        For a bundle: with all of it by its types, without words that a user may have written.
        """
        status = self.status()
        if question.argument("redacted", bool, False):
            return {"redacted": plain_of(Status, redact_status(status))}
        width, colour = question.argument("width", int, 0), question.argument("colour", bool, False)
        health = {"health": status.health.value}
        if width:  # of 4,000 tenants the text shows the ten worst; a document has all, and takes a tenth of a second
            return health | {"text": status_text(status, Style(colour=colour, width=width))}
        return health | {"document": status_document(status)}

    def _apply(self, question: Question) -> Later:
        manifests = question.arguments.get("manifests")
        if not isinstance(manifests, dict) or not all(isinstance(text, str) for text in manifests.values()):
            raise IntentError("`apply` needs manifests: a text per file name")
        within_s = question.argument("within_s", float, 0.0)
        sure = question.argument("yes", bool, False)
        self._gateway().apply(manifests, within_s=within_s or None, sure=sure)
        self._answer_later(question)
        return LATER

    def _confirm(self, question: Question) -> Later:
        self._gateway().confirm()
        self._answer_later(question)
        return LATER

    def _rollback(self, question: Question) -> Later:
        self._gateway().rollback()
        self._answer_later(question)
        return LATER

    def close(self) -> None:
        """End what runs beside the loop."""
        if self.writer is not None:
            self.writer.close()

    def _answer_later(self, question: Question) -> None:
        """Answer when the machine has converged, with the changes that were made since now."""
        self.waiting.append((question, self._gateway().daemon.report.changes))

    def _gateway(self) -> Gateway:
        assert self.gateway is not None  # set before the loop runs
        return self.gateway


def serve(options: GatewayOptions) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Raises:
        AlreadyRunning: another outgate writes to this network namespace.
    """
    logs.configure()
    _map_large_blocks()
    faulthandler.enable()  # the watchdog's SIGABRT shows where the loop stood
    service = Service()
    with ExitStack() as stack:
        gateway = stack.enter_context(opened(options, service.told))
        service.gateway = gateway
        service.expose(options.metrics, remote=options.metrics_remote)
        service.feed_watchdog()
        server = Server(gateway.place.socket, service.verbs(), gateway.loop)
        stack.callback(server.close)
        stack.callback(service.close)
        gateway.loop.stop_on_signals()
        gateway.loop.at("sample", gateway.loop.now_s() + SAMPLE_S, service.sample_ports)
        gateway.loop.at("leaks", gateway.loop.now_s() + SAMPLE_S, service.look_for_leaks)
        gc.disable()
        stack.callback(gc.enable)
        gateway.loop.at("tidy", gateway.loop.now_s(), service.tidy)
        log.info("started", extra={"fields": {"gateway": options.name, "source": options.source}})
        gateway.daemon.run()
        notify.stopping()
        log.info("stopped", extra={"fields": {"data path": "left as it is"}})


def _map_large_blocks() -> None:
    """Let the C library map every block from 128 KiB on by itself, and give it back when it is freed.

    Else glibc raises that limit with each large block that it frees, and the sets of a round, 4 MB each for 4,000
    tenants, end in the heap, which never shrinks again: 10 MB after a few dozen changes. Other C libraries know no
    mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
