"""The node role: it looks at its node, says what it found, and adds what its stance allows.

What the node has to do for egress IPs comes from the cluster role, in the node's EgressNode; what it found goes into
conditions of the same object. Once in half a minute, and whenever assignments, the host's routes or the zone change.
Observing, it changes nothing; assisting, it writes what `roles.node_assist` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from outgate.apiserver.access import accesses_of
from outgate.apiserver.open import opened
from outgate.apiserver.server import OpenServer, Server
from outgate.control import logs
from outgate.control.lasting import Lasting
from outgate.control.probes import Probes
from outgate.control.role_metrics import RoleView, Tallies, page_of
from outgate.model.errors import OutgateError
from outgate.model.host_table import EgressTable
from outgate.model.intent import EgressNode, Node
from outgate.model.net import Address
from outgate.model.routing import Stance
from outgate.model.state import Outcome
from outgate.model.status import Health
from outgate.model.why import Finding, Severity
from outgate.plan.egress_nodes import digest
from outgate.plan.host_table import ROUTES_FOLLOWED, ROWS_AGREE, condition_of, examine, unserved
from outgate.roles.node_assist import Amiss, Assisting
from outgate.roles.node_claims import Claims, NodeClaims
from outgate.sources.host_snapshot import told
from outgate.sources.kube.kinds import of_node
from outgate.sources.kube.source import KubeSource
from outgate.systems.kernel.tables import read_tables
from outgate.systems.kubeapi import judged

_EVERY_S, _AGAIN_S = 30.0, 5.0  # when all is well, and after something did not answer
_SETTLES_S = 20.0  # OVN-Kubernetes writes its rows, and the cluster role tells of pods, each in its own time
_GATHER_S = 0.2  # what arrives together is looked at together

log = logging.getLogger("outgate.node")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """The settings of the role on one node. Without a kubeconfig it runs in a pod, in the node's network namespace."""

    name: str
    kubeconfig: Path | None = None
    contexts: tuple[str, ...] = ()
    probes: str = ""  # ADDRESS:PORT of /livez, /readyz and /metrics; empty is off
    every_node: bool = False  # whether it reads all nodes, as stance `own` needs
    northbound: str = ""  # the zone's database (unix:PATH): with it, the stance is `assist`; empty observes


def egress_tables(destination: Address | None = None) -> tuple[EgressTable, ...]:
    """Return the tables that EgressIP uses in this thread's network namespace, beside the main table.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    return examine(read_tables(), destination)


def flush(northbound: str) -> Outcome:
    """Take back what assisting wrote, in a zone and in this thread's network namespace.

    Raises:
        NotReady, Refused, Unreachable: the host or the zone can not be read or written.
    """
    assisting = Assisting(northbound)
    with contextlib.closing(assisting):
        return assisting.flush()


def serve(options: NodeOptions) -> None:
    """Look and tell until SIGTERM or SIGINT.

    Raises:
        IntentError: the kubeconfig does not say where the API server is, or this is no pod.
    """
    logs.configure()
    accesses = accesses_of(options.kubeconfig, options.contexts)
    asyncio.run(_serve(options, lambda: opened(accesses)))


async def _serve(options: NodeOptions, open_server: OpenServer) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    source = KubeSource(open_server, kinds=of_node(options.name, every_node=options.every_node))
    with contextlib.closing(source):
        async with open_server() as server:
            assisting = Assisting(options.northbound) if options.northbound else None
            observing = Observing(options.name, server, source, assisting)
            with Probes(
                options.probes,
                is_alive=lambda: not ended.is_set(),
                is_ready=lambda: observing.is_ready,
                metrics=page_of(observing.view),
            ):
                looking = asyncio.create_task(observing.run())
                log.info("started", extra={"fields": {"node": options.name}})
                stopped = asyncio.create_task(ended.wait())
                await asyncio.wait((looking, stopped), return_when=asyncio.FIRST_COMPLETED)
                for task in (looking, stopped):
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await looking  # what ended it otherwise is told
    log.info("stopped", extra={"fields": {"node": "left as it is"}})


class Observing:
    """The loop on one node: read what it has to do and what it holds, and write the condition that follows."""

    def __init__(self, name: str, server: Server, source: KubeSource, assisting: Assisting | None = None) -> None:
        self._name, self._server, self._source, self._assisting = name, server, source, assisting
        self._listened: set[int] = set()
        self._woken = asyncio.Event()
        self._tallies = Tallies()
        self.is_ready = False  # whether the objects and the tables could be read
        self._answered = True  # whether the zone and the host took what was written
        self._lasting = Lasting(_SETTLES_S)
        self._claims: NodeClaims | None = None

    def view(self) -> RoleView:
        """Return how the role is doing now."""
        return RoleView(
            role="node", leads=None, is_ready=self.is_ready, tallies=self._tallies, sources=self._source.statuses()
        )

    async def run(self) -> None:
        """Look for ever; cancel it."""
        loop = asyncio.get_running_loop()
        self._claims = NodeClaims(self._woken.set) if self._assisting is not None else None
        loop.add_reader(self._source.fileno(), self._source_changed)
        try:
            while True:
                await self._look()
                self._listen(loop)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), _EVERY_S if self._answered else _AGAIN_S)
                await asyncio.sleep(_GATHER_S)
                self._woken.clear()
        finally:
            loop.remove_reader(self._source.fileno())
            if self._claims is not None:
                self._claims.close()

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake up when the host or the zone changes; a connection that was lost is no longer listened to."""
        wanted = {one.fileno() for one in self._assisting.watched()} if self._assisting is not None else set()
        for number in self._listened - wanted:
            loop.remove_reader(number)
        for number in wanted - self._listened:
            loop.add_reader(number, self._node_changed)
        self._listened = wanted

    def _node_changed(self) -> None:
        if self._assisting is not None and self._assisting.changed():
            self._woken.set()
        self._listen(asyncio.get_running_loop())

    def _source_changed(self) -> None:
        if self._source.changed():
            self._woken.set()

    async def _look(self) -> None:
        try:
            intent, host = self._source.read(), read_tables()
        except OutgateError as error:
            self.is_ready = False
            log.info("waiting", extra={"fields": {"error": str(error)}})
            return
        self.is_ready = True
        node = next((one for one in intent.egress_nodes if one.name == self._name), None)
        if node is None:
            self._tallies.judged(())  # nothing was ever assigned here, and there is no object to say it in
            return
        own = next((one for one in intent.nodes if one.name == self._name), Node(name=self._name))
        findings: tuple[Finding, ...] = ()
        if node.stance is not Stance.OWN:  # else nobody but us puts rules and tables there
            findings = (
                *unserved(host, node, own.primary),
                *(finding for table in examine(host) for finding in table.findings),
            )
        conditions, done = [condition_of(findings, node)], node.programmed
        claims = Claims(work=node)
        if self._claims is not None and node.stance is Stance.OWN:
            claims = self._claims.look(node, own, host, is_cut_off=self._is_cut_off())
        if self._assisting is not None:
            amiss = self._assist(own, claims.work, intent.nodes)
            rows = self._lasting.of(amiss.rows, time.monotonic())
            conditions += [condition_of(amiss.routes, node, ROUTES_FOLLOWED), condition_of(rows, node, ROWS_AGREE)]
            findings += (*amiss.routes, *rows)
            if amiss.is_done and self._claims is not None and node.stance is Stance.OWN:
                self._claims.stands(claims.work, own, host)
            done = digest(node) if amiss.is_done and claims.work is node else done
        self._tallies.judged(findings)
        said = judged.Said(
            conditions=tuple(conditions),
            cut=tuple(map(str, claims.cut)),
            taken=tuple((str(address), mac) for address, mac in claims.taken),
            programmed=done,
            host=told(host),
        )
        there = (node.programmed, node.host, node.cut, node.taken)
        if (done, said.host, claims.cut, claims.taken) != there or not set(conditions) <= set(node.conditions):
            await self._tell(said)

    def _is_cut_off(self) -> bool:
        return any(one.health is not Health.OK for one in self._source.statuses())

    def _assist(self, own: Node, node: EgressNode, nodes: tuple[Node, ...]) -> Amiss:
        assert self._assisting is not None
        try:
            amiss = self._assisting.round(own, node, nodes)
        except OutgateError as error:
            self._answered = False
            self._tallies.failed += 1
            log.warning("not assisted", extra={"fields": {"error": str(error)}})
            fix = "it is tried again every 5 s; what was written before stays in force"
            return Amiss(routes=(Finding("NotAssisted", f"Node/{self._name}", str(error), Severity.WARNING, fix),))
        self._answered = True
        return amiss

    async def _tell(self, said: judged.Said) -> None:
        try:
            await judged.observe(self._server, self._name, said, time.time())
        except OutgateError as error:
            self._tallies.failed += 1
            log.warning("not written", extra={"fields": {"error": str(error)}})
        else:
            self._tallies.written += 1
            log.info("looked", extra={"fields": {one.type: f"{one.reason}: {one.message}" for one in said.conditions}})
