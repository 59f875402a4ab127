"""A gateway that lives on an API server: where its intent comes from, and how it says what became of it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, closing

import msgspec

from outgate.apiserver.access import from_contexts
from outgate.apiserver.open import opened
from outgate.apiserver.server import Server
from outgate.control.daemon import Report
from outgate.control.status import standings
from outgate.model.errors import NotReady
from outgate.model.intent import EgressGateway, Intent, Served, Told
from outgate.model.status import TenantState
from outgate.model.why import Finding
from outgate.roles.options import GatewayOptions
from outgate.sources.kube.kinds import LOOKER, Kinds
from outgate.sources.kube.lastgood import LastGood
from outgate.sources.kube.several import SeveralSources
from outgate.sources.kube.source import KubeSource, Remembered
from outgate.sources.kube.timings import Timings
from outgate.sources.kube.together import cluster_of
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


def open_server(
    options: GatewayOptions, contexts: tuple[str, ...]
) -> Callable[[], AbstractAsyncContextManager[Server]]:
    """Return what opens the API server that these contexts lead to.

    Raises:
        IntentError: the kubeconfig can not be read or does not say what is needed.
    """
    assert options.kubeconfig is not None  # else nobody asks
    accesses = from_contexts(options.kubeconfig, contexts)
    return lambda: opened(accesses)


def kube_source(
    options: GatewayOptions, documents: Documents, timings: Timings = TIMINGS
) -> KubeSource | SeveralSources:
    """Return the source of a daemon: bound to the clusters that its state is about, with the last good intents.

    Raises:
        IntentError: as `open_server`.
    """

    def source(name: str, contexts: tuple[str, ...]) -> KubeSource:
        cluster = Document(documents, _document(CLUSTER, name))
        remembered = Remembered(
            cluster=_uid(cluster.read()),
            record=lambda uid: cluster.write(msgspec.json.encode(_Cluster(uid))),
            last_good=LastGood(Document(documents, _document(INTENT, name))),
        )
        return KubeSource(open_server(options, contexts), gateway=options.name, remembered=remembered, timings=timings)

    if options.clusters:
        return SeveralSources({name: source(name, contexts) for name, contexts in options.clusters})
    return source("", options.contexts)


def _document(document: str, cluster: str) -> str:
    """Return the name of a document about a cluster."""
    stem, _, kind = document.partition(".")
    return f"{stem}-{cluster}.{kind}" if cluster else document


def read_once(options: GatewayOptions, documents: Documents, kinds: Kinds = LOOKER) -> Intent:
    """Return what the API server says now of these kinds, for a command that only looks.

    Raises:
        IntentError: as `open_server`.
        NotReady: it did not say all of it in time, or is another cluster's.
    """

    def looking(name: str, contexts: tuple[str, ...]) -> KubeSource:
        remembered = Remembered(cluster=_uid(documents.read(_document(CLUSTER, name))))
        opener = open_server(options, contexts)
        return KubeSource(opener, gateway=options.name, kinds=kinds, remembered=remembered, timings=TIMINGS)

    several = SeveralSources({name: looking(name, contexts) for name, contexts in options.clusters})
    source = several if options.clusters else looking("", options.contexts)
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


class StatusWriters:
    """Writes the statuses in the name of a gateway, in each of its clusters. For one thread."""

    def __init__(self, options: GatewayOptions, gateway: str) -> None:
        """Describe it; nothing is opened before the first offer."""
        clusters = options.clusters or (("", options.contexts),)
        self._writers = {name: StatusWriter(open_server(options, contexts), gateway) for name, contexts in clusters}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What could not be written."""
        return tuple(finding for writer in self._writers.values() for finding in writer.findings)

    def offer(self, words: Mapping[Subject, Told]) -> None:
        """Say this from now on, and nothing else."""
        for name, writer in self._writers.items():
            writer.offer({subject: told for subject, told in words.items() if subject.cluster == name})

    def tell(self, news: Iterable[News]) -> None:
        """Write events, if the servers can be reached now."""
        for one in news:
            self._writers[one.subject.cluster].tell(one)

    def close(self) -> None:
        """End all of them; what was not said stays unsaid."""
        for writer in self._writers.values():
            writer.close()


def words_of(report: Report) -> Mapping[Subject, Told]:
    """Return what a gateway says of its objects after a round: of itself, and of each of its tenants."""
    decided = report.decided
    if decided is None or decided.claims is None:
        return {}
    words: dict[Subject, Told] = {}
    gateway = decided.claims.gateway
    left = len(report.outcome.left.make) + len(report.outcome.left.drop)
    undone = report.error or (f"{left} changes could not be made yet" if left else "")
    worst = next((one for one in report.findings if one.about == f"EgressGateway/{gateway.name}"), None)
    for subject, served in _gateway_subjects(gateway):
        words[subject] = _told(gateway.name, served, _reason(worst, undone, is_in_force=True))
    mine = {tenant.name for tenant in decided.snapshot.intent.tenants_of(gateway)}
    for tenant, state, worst in standings(decided, report):
        if tenant.served is not None and tenant.name in mine:
            reason = _reason(worst, undone, is_in_force=state is not TenantState.REFUSED)
            cluster, name = cluster_of(tenant.name) if gateway.served_by else ("", tenant.name)
            subject = Subject(kind="EgressTenant", name=name, uid=tenant.served.uid, cluster=cluster)
            words[subject] = _told(gateway.name, tenant.served, reason)
    return words


def news_of(report: Report) -> list[News]:
    """Return what should be told as an event after a round: drift that it has repaired."""
    if not report.drift:
        return []
    return _news_of_gateway(report, "DriftRepaired", f"somebody else changed {report.last_repair}; it is back")


def news_of_leaks(report: Report, note: str) -> list[News]:
    """Return what should be told as an event when packets were stopped that nothing lets out."""
    return _news_of_gateway(report, "LeakBlocked", note)


def _news_of_gateway(report: Report, reason: str, note: str) -> list[News]:
    if report.decided is None or report.decided.claims is None:
        return []
    subjects = _gateway_subjects(report.decided.claims.gateway)
    return [News(subject=subject, reason=reason, note=note) for subject, _ in subjects]


def _gateway_subjects(gateway: EgressGateway) -> list[tuple[Subject, Served]]:
    """Return the gateway's object in each cluster that has one."""
    alone = (("", gateway.served),) if gateway.served is not None else ()
    return [
        (Subject(kind="EgressGateway", name=gateway.name, uid=served.uid, cluster=cluster), served)
        for cluster, served in gateway.served_by or alone
    ]


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
