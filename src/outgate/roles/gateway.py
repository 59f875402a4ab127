"""The gateway role: which source, plan and systems make up one egress gateway, and what can be asked of it.

`look` reads and plans and writes nothing; `serve` is the daemon; `apply_once` is one convergence without a daemon;
`flush` removes what is ours. All of them run in the network namespace of the calling thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from outgate.control import pending as pending_file
from outgate.control.daemon import Daemon, Parts, Report
from outgate.control.lock import acquire
from outgate.control.loop import Loop
from outgate.control.neighbours import LinkNeighbours
from outgate.control.place import Place
from outgate.control.round import Asked, Decided, decide, settle
from outgate.model.errors import IntentError, NotReady, Refused
from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.net import Address, Mac
from outgate.model.state import Moment, Outcome
from outgate.model.why import Finding
from outgate.roles.machine import GatewayMachine
from outgate.roles.options import GatewayOptions, place_of
from outgate.sources.manifests import ManifestSource
from outgate.systems.conntrack import read as conntrack
from outgate.systems.conntrack import write as conntrack_write
from outgate.systems.kernel.outbox import Boundary, no_boundary
from outgate.systems.statefile.documents import Documents
from outgate.systems.statefile.state import StateFile, not_written

if TYPE_CHECKING:  # it brings asyncio along
    from outgate.sources.kube.several import SeveralSources
    from outgate.sources.kube.source import KubeSource

LISTINGS = "listings.json"


class LiveFlows:
    """Connection tracking of this machine, as the daemon needs it."""

    flows = staticmethod(conntrack.flows)
    delete = staticmethod(conntrack_write.delete)


def state_of(place: Place) -> StateFile:
    """Return the ledger's file."""
    return StateFile(place.state, place=str(place), written_by=version("outgate"))


@contextmanager
def machine_of(place: Place) -> Iterator[GatewayMachine]:
    """Yield the machine, with what was learned about listings of its table."""
    documents = Documents(place.state)

    def learned(listings: object) -> None:
        documents.write(LISTINGS, json.dumps(listings).encode())

    try:
        trusted = json.loads(documents.read(LISTINGS) or b"{}")
    except ValueError:
        trusted = {}
    machine = GatewayMachine(trusted, learned)
    try:
        yield machine
    finally:
        machine.close()


def read_intent(options: GatewayOptions) -> Intent:
    """Return the intent of the manifests or the API server, read once."""
    if options.kubeconfig is not None:
        from outgate.roles.cluster_source import read_once

        return read_once(options, Documents(place_of(options).state))
    source = ManifestSource(options.manifests)
    try:
        return source.read()
    finally:
        source.close()


def look(options: GatewayOptions, intent: Intent | None = None) -> Decided:
    """Read the manifests, the state and the machine, and decide; write nothing.

    Raises:
        NotReady: the manifests or the machine can not be read completely.
    """
    place = place_of(options)
    ledger = state_of(place).load().ledger
    with machine_of(place) as machine:
        asked = Asked(
            intent=read_intent(options) if intent is None else intent,
            ledger=ledger,
            moment=Moment(now_s=time.time()),
            gateway=options.name,
        )
        return decide(machine, asked)


def flush(options: GatewayOptions, boundary: Boundary = no_boundary) -> Outcome:
    """Remove exactly what is ours, and set back what was set; the numbers stay in the state file.

    `boundary` is called at each point where a crash would leave a part removed.

    Raises:
        AlreadyRunning: a daemon would make it all again.
    """
    place = place_of(options)
    with acquire(place), machine_of(place) as machine:
        machine.boundary = boundary
        state = state_of(place)
        ledger = state.load().ledger
        asked = Asked(intent=Intent(), ledger=ledger, moment=Moment(now_s=time.time()), gateway=options.name)
        outcome = settle(machine, decide(machine, asked), lambda _: None)
        if outcome.converged:
            state.save(
                replace(
                    ledger,
                    settings_before=MappingProxyType({}),
                    addresses_made=frozenset(),
                    tenants_known=0,
                    nodes_known=0,
                )
            )
        return outcome


def source_of(options: GatewayOptions, documents: Documents) -> ManifestSource | KubeSource | SeveralSources:
    """Return the daemon's source: an API server if one is named, else the manifests.

    Raises:
        IntentError: the kubeconfig can not be read or does not say what is needed.
    """
    if options.kubeconfig is None:
        return ManifestSource(options.manifests)
    from outgate.roles.cluster_source import kube_source

    return kube_source(options, documents)


@dataclass(slots=True)
class Gateway:
    """A gateway that runs: the daemon with its loop, state, source and pending intent."""

    options: GatewayOptions
    place: Place
    loop: Loop
    daemon: Daemon
    state: StateFile
    documents: Documents
    source: ManifestSource | KubeSource | SeveralSources
    machine: GatewayMachine
    started_s: float
    state_findings: tuple[Finding, ...] = ()
    waits_until_s: float | None = None  # wall clock; an applied intent is in force until then

    def apply(self, manifests: dict[str, str], *, within_s: float | None, sure: bool) -> None:
        """Put manifests in force: until they are confirmed, if a time is given, else for good."""
        self._directory()
        wait = pending_file.Pending(manifests=manifests, until_s=time.time() + (within_s or 0.0))
        if self.daemon.confirming:
            raise IntentError("another applied intent waits for `confirm` or `rollback`")
        if within_s is None:
            pending_file.confirm(wait, self._directory())
            if sure:
                self.daemon.be_sure()
            self.daemon.want("applied")
            return
        pending_file.write(self.documents, wait)
        self.hold(wait, sure=sure)

    def hold(self, wait: pending_file.Pending, *, sure: bool) -> None:
        """Put a pending intent in force and set its deadline."""
        folder = pending_file.unfold(wait, self.place.state / "pending")
        source = ManifestSource(folder)
        try:
            intent = source.read()
        finally:
            source.close()
        self.waits_until_s = wait.until_s
        self.loop.at("confirm", self.loop.now_s() + max(0.0, wait.until_s - time.time()), self.rollback)
        self.daemon.override(intent, sure=sure)

    def confirm(self) -> None:
        """Make the pending intent the directory's."""
        wait = pending_file.read(self.documents)
        if wait is None or not self.daemon.confirming:
            raise pending_file.NothingPending("there is nothing to confirm: no applied intent waits")
        pending_file.confirm(wait, self._directory())
        self._forget()

    def rollback(self) -> None:
        """Go back to what the directory says."""
        if not self.daemon.confirming:
            raise pending_file.NothingPending("there is nothing to roll back: no applied intent waits")
        self._forget()

    def left_s(self) -> float:
        """Return how long the applied intent still waits for confirmation, in seconds."""
        return max(0.0, (self.waits_until_s or 0.0) - time.time())

    def resume(self) -> None:
        """After a start: a pending intent is in force again, or rolled back if its time is over."""
        wait = pending_file.read(self.documents)
        if wait is None:
            return
        if wait.until_s <= time.time():
            self.documents.remove(pending_file.DOCUMENT)
        else:
            self.hold(wait, sure=True)

    def _directory(self) -> Path:
        if self.options.kubeconfig is not None:
            raise IntentError(
                "the daemon keeps this machine as its API server says; change the objects there, with kubectl"
            )
        if not self.options.manifests.is_dir():
            raise IntentError(f"{self.options.manifests} is a file: applying needs the daemon to read a directory")
        return self.options.manifests

    def _forget(self) -> None:
        self.documents.remove(pending_file.DOCUMENT)
        self.waits_until_s = None
        self.loop.at("confirm", None, self.rollback)
        self.daemon.override(None, sure=True)


@contextmanager
def opened(options: GatewayOptions, told: Callable[[Report], None]) -> Iterator[Gateway]:
    """Yield a gateway under the lock of this network namespace, ready to run.

    Raises:
        AlreadyRunning: another outgate writes to this network namespace.
    """
    place = place_of(options)
    with ExitStack() as stack:
        stack.enter_context(acquire(place))
        state = state_of(place)
        loaded = state.load()
        machine = stack.enter_context(machine_of(place))
        loop = Loop()
        stack.callback(loop.close)
        documents = Documents(place.state)
        source = stack.enter_context(closing(source_of(options, documents)))

        def claimed(address: Address, mac: Mac) -> None:
            daemon.claimed(address, mac)

        neighbours = LinkNeighbours(loop, claimed)
        stack.callback(neighbours.close)

        def save(ledger: Ledger) -> None:
            try:
                state.save(ledger)
                gateway.state_findings = ()
            except Refused as refused:  # the data path is served from memory; the user is told
                gateway.state_findings = (not_written(refused),)

        parts = Parts(
            source=source,
            machine=machine,
            flows=LiveFlows(),
            neighbours=neighbours,
            save=save,
            wall_s=time.time,
            told=lambda report: told(replace(report, findings=(*report.findings, *gateway.state_findings))),
        )
        away = frozenset[Address]() if loaded.same_place else frozenset(loaded.ledger.holdings)
        daemon = Daemon(parts, loop, gateway=options.name, ledger=loaded.ledger, unproven=away)
        gateway = Gateway(
            options=options,
            place=place,
            loop=loop,
            daemon=daemon,
            state=state,
            documents=documents,
            source=source,
            machine=machine,
            started_s=loop.now_s(),
            state_findings=loaded.findings,
        )
        if options.sure:
            daemon.be_sure()
        gateway.resume()
        yield gateway


def apply_once(options: GatewayOptions, progress: Callable[[str], None], limit_s: float = 60.0) -> Report:
    """Converge without a daemon: run rounds until nothing is left to do or to ask, and return the last report.

    Raises:
        AlreadyRunning: a daemon runs here; ask it instead.
        NotReady: it did not converge in time; the message says what is left.
    """
    last = Report()

    def told(report: Report) -> None:
        nonlocal last
        last = report
        if report.decided is not None and report.outcome.converged and not report.decided.desired.probes:
            gateway.loop.stop()
        elif report.decided is not None:
            asked = len(report.decided.desired.probes)
            left = f"{asked} addresses to ask about" if asked else "not everything could be written yet"
            progress(f"round {report.rounds}: {left}")

    with opened(options, told) as gateway:
        gateway.loop.at("limit", gateway.loop.now_s() + limit_s, gateway.loop.stop)
        gateway.daemon.run()
    if last.decided is None or not last.outcome.converged:
        raise NotReady(last.error or f"not converged after {limit_s:.0f} s")
    return last
