"""A gateway that lives on an API server: where its intent comes from, and how it says what became of it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, closing

import msgspec

from outgate.apiserver.access import from_contexts
from outgate.apiserver.open import opened
from outgate.apiserver.server import Server
from outgate.control.daemon import Report
from outgate.control.status import standings
from outgate.model.errors import NotReady
from outgate.model.intent import Intent, Served, Told
from outgate.model.status import TenantState
from outgate.model.why import Finding
from outgate.roles.options import GatewayOptions
from outgate.sources.kube.kinds import LOOKER
from outgate.sources.kube.lastgood import LastGood
from outgate.sources.kube.source import KubeSource, Remembered
from outgate.sources.kube.timings import Timings
from outgate.systems.kubeapi.render import News, Subject, shortened
from outgate.systems.kubeapi.write import StatusWriter
from outgate.systems.statefile.documents import Documents

CLUSTER, INTENT = "cluster.json", "intent.json"
TIMINGS = Timings(start_jitter_s=0.0)  # gateways are few; the agents of thousands of nodes would begin apart
ONCE_S = 30.0  # how long a command that only looks waits for the API server


class _Cluster(msgspec.Struct, frozen=True):
    """The document that binds a gateway's state to its cluster."""

    uid: str


class Document:
    """One of a gateway's documents."""

    def __init__(self, documents: Documents, name: str) -> None:
        self._documents, self._name = documents, name

    def read(self) -> bytes | None:
        """Return the document; None when there is none."""
        return self._documents.read(self._name)

    def write(self, content: bytes) -> None:
        """Replace it atomically, and return when it is on the disk."""
        self._documents.write(self._name, content)


def open_server(options: GatewayOptions) -> Callable[[], AbstractAsyncContextManager[Server]]:
    """Return what opens the API server that the options name.

    Raises:
        IntentError: the kubeconfig can not be read or does not say what is needed.
    """
    assert options.kubeconfig is not None  # else nobody asks
    accesses = from_contexts(options.kubeconfig, options.contexts)
    return lambda: opened(accesses)


def kube_source(options: GatewayOptions, documents: Documents, timings: Timings = TIMINGS) -> KubeSource:
    """Return the source of a daemon: bound to the cluster that its state is about, with the last good intent.

    Raises:
        IntentError: as `open_server`.
    """
    cluster = Document(documents, CLUSTER)
    remembered = Remembered(
        cluster=_uid(cluster.read()),
        record=lambda uid: cluster.write(msgspec.json.encode(_Cluster(uid))),
        last_good=LastGood(Document(documents, INTENT)),
    )
    return KubeSource(open_server(options), gateway=options.name, remembered=remembered, timings=timings)


def read_once(options: GatewayOptions, documents: Documents) -> Intent:
    """Return what the API server says now, for a command that only looks.

    Raises:
        IntentError: as `open_server`.
        NotReady: it did not say all of it in time, or is another cluster's.
    """
    remembered = Remembered(cluster=_uid(documents.read(CLUSTER)))
    source = KubeSource(
        open_server(options), gateway=options.name, kinds=LOOKER, remembered=remembered, timings=TIMINGS
    )
    deadline_s = time.monotonic() + ONCE_S
    with closing(source):
        while True:
            try:
                return source.read()
            except NotReady:
                if time.monotonic() >= deadline_s or source.is_refused:
                    raise
            select.select([source], [], [], 1.0)
            source.changed()


def status_writer(options: GatewayOptions, gateway: str) -> StatusWriter:
    """Return what writes the statuses in the name of a gateway."""
    return StatusWriter(open_server(options), gateway)


def words_of(report: Report) -> Mapping[Subject, Told]:
    """Return what a gateway says of its objects after a round: of itself, and of each of its tenants."""
    decided = report.decided
    if decided is None or decided.claims is None:
        return {}
    words: dict[Subject, Told] = {}
    gateway = decided.claims.gateway
    left = len(report.outcome.left.make) + len(report.outcome.left.drop)
    undone = report.error or (f"{left} changes could not be made yet" if left else "")
    if gateway.served is not None:
        worst = next((one for one in report.findings if one.about == f"EgressGateway/{gateway.name}"), None)
        subject = _subject("EgressGateway", gateway.name, gateway.served)
        words[subject] = _told(gateway.name, gateway.served, _reason(worst, undone, is_in_force=True))
    mine = {tenant.name for tenant in decided.snapshot.intent.tenants_of(gateway)}
    for tenant, state, worst in standings(decided, report):
        if tenant.served is not None and tenant.name in mine:
            reason = _reason(worst, undone, is_in_force=state is not TenantState.REFUSED)
            subject = _subject("EgressTenant", tenant.name, tenant.served)
            words[subject] = _told(gateway.name, tenant.served, reason)
    return words


def news_of(report: Report) -> News | None:
    """Return what should be told as an event after a round: drift that it has repaired."""
    if not report.drift:
        return None
    return _news_of_gateway(report, "DriftRepaired", f"somebody else changed {report.last_repair}; it is back")


def news_of_leaks(report: Report, note: str) -> News | None:
    """Return what should be told as an event when packets were stopped that nothing lets out."""
    return _news_of_gateway(report, "LeakBlocked", note)


def _news_of_gateway(report: Report, reason: str, note: str) -> News | None:
    gateway = (
        report.decided.claims.gateway if report.decided is not None and report.decided.claims is not None else None
    )
    if gateway is None or gateway.served is None:
        return None
    return News(subject=_subject("EgressGateway", gateway.name, gateway.served), reason=reason, note=note)


def _subject(kind: str, name: str, served: Served) -> Subject:
    return Subject(kind=kind, name=name, uid=served.uid)


def _reason(worst: Finding | None, undone: str, *, is_in_force: bool) -> tuple[bool, str, str]:
    """Return whether the machine holds all of it, the reason in a word, and a sentence."""
    holds = is_in_force and not undone
    if worst is not None:
        return holds, worst.reason, worst.sentence
    if not is_in_force:
        return False, "Refused", "none of it is in force"
    return (False, "Pending", undone) if undone else (True, "Programmed", "the machine holds all of it")


def _told(gateway: str, served: Served, reason: tuple[bool, str, str]) -> Told:
    holds, word, message = reason
    return Told(
        gateway=gateway,
        generation=served.generation,
        programmed=holds,
        reason=word,
        message=shortened(message),
    )


def _uid(document: bytes | None) -> str:
    """Return the recorded cluster; a document that can not be read binds to nothing."""
    try:
        return msgspec.json.decode(document or b"", type=_Cluster).uid
    except msgspec.DecodeError:
        return ""
