"""The cluster role: judges all objects of a cluster, gives addresses from pools, and writes both into their statuses.

Several replicas run, one leads; the others watch, so that the next leader decides at once. Whatever it decides with
stands in the objects, so it keeps no state of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from outgate.apiserver.access import Access, accesses_of
from outgate.apiserver.open import opened
from outgate.apiserver.server import Server
from outgate.control import logs
from outgate.control.probes import Probes
from outgate.control.role_metrics import RoleView, Tallies, page_of
from outgate.model.errors import NotReady, OutgateError, Unreachable
from outgate.model.intent import CLAIM_NAME, CLAIM_NAMESPACE, MADE_BY, EgressTenant, ExternalRoute, Intent
from outgate.model.placement import Move, Placed
from outgate.model.routing import Stance
from outgate.model.verdict import Verdict
from outgate.model.why import Finding
from outgate.plan.egress_claims import Claimed, tenants_of_claims
from outgate.plan.egress_nodes import egress_nodes
from outgate.plan.external_routes import Routed, routes_to_gateways
from outgate.plan.history import recorded, seen_moves
from outgate.plan.pools import give
from outgate.plan.routing import DEFAULT, Routings, first_default
from outgate.plan.verdicts import judge
from outgate.roles.placing import Placing, as_placed, differing, told
from outgate.roles.rights import LEASE, NAMESPACE
from outgate.sources.dump import dump, dump_selector, dump_work
from outgate.sources.kube.kinds import CLUSTER
from outgate.sources.kube.source import KubeSource
from outgate.sources.kube.timings import Timings
from outgate.systems.kubeapi import events, judged
from outgate.systems.kubeapi.lease import Lease, LeaseTimings
from outgate.systems.kubeapi.render import News, Subject

NODE_PORT = 9097
ROUTE = "AdminPolicyBasedExternalRoute"
_TIMINGS = Timings(start_jitter_s=0.0)
_GATHER_S = 0.05  # what arrives together is judged together
_AT_ONCE = 8
_SHOWN = 10  # failures of one kind of deed in the log
_PAUSE_S = 2.0  # after a write that failed

log = logging.getLogger("outgate.cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """The settings of a replica. Without a kubeconfig it runs in a pod."""

    kubeconfig: Path | None = None
    contexts: tuple[str, ...] = ()
    namespace: str = NAMESPACE
    lease: str = LEASE
    timings: LeaseTimings = field(default_factory=LeaseTimings)
    node_port: int = NODE_PORT  # where the role on each node answers
    probes: str = ""  # ADDRESS:PORT of /livez, /readyz and /metrics; empty is off


def serve(options: ClusterOptions) -> None:
    """Run one replica until SIGTERM or SIGINT.

    Raises:
        IntentError: as `accesses_of`.
    """
    logs.configure()
    accesses = accesses_of(options.kubeconfig, options.contexts)
    asyncio.run(_serve(options, accesses))


async def _serve(options: ClusterOptions, accesses: list[Access]) -> None:
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    source = KubeSource(lambda: opened(accesses), kinds=CLUSTER, timings=_TIMINGS)
    with contextlib.closing(source):
        async with opened(accesses) as server:
            lease = Lease(server, (options.namespace, options.lease), identity, options.timings)
            judging = Judging(server, source, lease, identity, options.node_port)
            with Probes(
                options.probes,
                is_alive=lambda: lease.is_alive,
                is_ready=lambda: judging.is_ready,
                metrics=page_of(judging.view),
            ):
                async with _running(lease.run(judging.wake), judging.run()):
                    log.info("started", extra={"fields": {"identity": identity}})
                    await ended.wait()
            await lease.release()
    log.info("stopped", extra={"fields": {"data path": "left as it is"}})


@asynccontextmanager
async def _running(*programs: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run programs beside what is inside; one that fails ends everything."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in programs]
        yield
        for task in tasks:
            task.cancel()


class Judging:
    """The loop of a replica: read, judge, write what differs, while it leads."""

    def __init__(self, server: Server, source: KubeSource, lease: Lease, identity: str, node_port: int) -> None:
        self._server, self._source, self._lease, self._identity = server, source, lease, identity
        self._woken = asyncio.Event()
        self._told: set[News] = set()  # of which an event was written
        self.is_ready = False  # whether the objects were read
        self._tallies = Tallies()
        self._placing = Placing(node_port, self.wake)

    def view(self) -> RoleView:
        """Return how the replica is doing now."""
        return RoleView(
            role="cluster",
            leads=self._lease.leads,
            is_ready=self.is_ready,
            tallies=self._tallies,
            sources=self._source.statuses(),
        )

    def wake(self) -> None:
        """Judge soon: something changed, or who leads."""
        self._woken.set()

    async def run(self) -> None:
        """Judge for ever; cancel it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._source.fileno(), self._source_changed)
        again_s: float | None = None
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), again_s)
                await asyncio.sleep(_GATHER_S)
                self._woken.clear()
                again_s = await self._judge()
        finally:
            loop.remove_reader(self._source.fileno())
            self._placing.close()

    def _source_changed(self) -> None:
        if self._source.changed():
            self.wake()

    async def _judge(self) -> float | None:
        """Judge once; return the seconds until time itself changes something."""
        try:
            intent = self._source.read()
        except NotReady as error:
            self.is_ready = False
            log.info("waiting", extra={"fields": {"error": str(error)}})
            return None
        self.is_ready = True
        if not self._lease.leads:
            return None
        now_s = time.time()
        gifts, claimed = give(intent, now_s), tenants_of_claims(intent)
        routed = routes_to_gateways(intent)
        verdicts, refusals = judge(intent, gifts, claimed, routed)
        placed = self._placing.place(intent, time.monotonic()) if _is_own(intent) else None
        moves = placed.moves if placed is not None else tuple(seen_moves(intent))
        verdicts = tuple(_with_moves(one, moves, now_s) for one in verdicts)
        refusals = (*refusals, *(placed.findings if placed is not None else ()))
        self._tallies.judged(refusals)
        fresh = [one for one in verdicts if not one.stands]
        settled = await self._settle(intent, claimed, routed)
        settled &= await self._place(intent, placed) if placed is not None else True
        settled &= await self._assign(as_placed(intent, placed) if placed is not None else intent)
        written = await self._write(fresh, now_s)
        await self._tell(verdicts, refusals)
        if not (settled and written):
            return _PAUSE_S
        return max(0.0, gifts.next_end_s - now_s) + 1.0 if gifts.next_end_s is not None else None

    async def _settle(self, intent: Intent, claimed: Claimed, routed: Routed) -> bool:
        """Make and drop the tenants of claims and the routes of tenants; say whether all could be done."""
        tenants = {one.name: one for one in intent.tenants}
        routes = {one.name: one for one in intent.external_routes}
        fresh = [
            _tenant_manifest(tenant, claim)
            for claim, tenant in claimed.wants.items()
            if not _same(tenants.get(tenant.name), tenant)
        ]
        if (default := first_default(intent)) is not None:
            fresh.append(dump(default))
        fresh += [_route_manifest(route) for name, route in routed.wants.items() if routes.get(name) != route]
        old = [("EgressTenant", one.name) for one in claimed.gone] + [(ROUTE, one.name) for one in routed.gone]
        made = await self._all([partial(judged.make, self._server, manifest) for manifest in fresh])
        return await self._all([partial(judged.drop, self._server, kind, name) for kind, name in old]) and made

    async def _place(self, intent: Intent, placed: Placed) -> bool:
        """Write where egress IPs are; say whether all could be written."""
        for move in placed.moves:
            log.info("egress IP moves", extra={"fields": told(move)})
        deeds: list[Callable[[], Awaitable[None]]] = [
            partial(
                judged.place,
                self._server,
                one.name,
                [(node, str(address)) for node, address in items],
                one.origin.resource_version,
            )
            for one, items in differing(intent, placed)
        ]
        return await self._all(deeds)

    async def _assign(self, intent: Intent) -> bool:
        """Tell each node what it has to do for egress IPs; say whether all could be told."""
        there, wanted = {one.name: one for one in intent.egress_nodes}, egress_nodes(intent)
        fresh = [_node_manifest(name) for name in wanted if name not in there]
        told = [
            (name, dump_work(one), there[name].origin.resource_version)
            for name, one in wanted.items()
            if name in there and dump_work(there[name]) != dump_work(one)
        ]
        gone = [name for name in there if name not in wanted]
        made = await self._all([partial(judged.make, self._server, manifest) for manifest in fresh])
        made &= await self._all([partial(judged.assign, self._server, *one) for one in told])
        return await self._all([partial(judged.drop, self._server, "EgressNode", name) for name in gone]) and made

    async def _write(self, verdicts: list[Verdict], now_s: float) -> bool:
        """Write verdicts; say whether all could be. Pools go first: what they have given is their book."""
        pools = [one for one in verdicts if one.kind == "EgressPool"]
        others = [one for one in verdicts if one.kind != "EgressPool"]
        done = True
        for batch in (pools, others):
            done &= await self._all([partial(judged.write, self._server, verdict, now_s) for verdict in batch])
        if verdicts and done:
            log.info("judged", extra={"fields": {"written": len(verdicts)}})
        return done

    async def _all(self, deeds: list[Callable[[], Awaitable[None]]]) -> bool:
        """Do these while we lead, some at once, and say whether all could be done. What the server refuses stops only
        itself; a server that does not answer stops the rest.
        """
        in_flight = asyncio.Semaphore(_AT_ONCE)
        failures: list[OutgateError] = []

        async def do(deed: Callable[[], Awaitable[None]]) -> None:
            async with in_flight:
                if not self._lease.leads or any(isinstance(one, Unreachable) for one in failures):
                    return
                try:
                    await deed()
                except OutgateError as error:
                    failures.append(error)
                    self._tallies.failed += 1
                else:
                    self._tallies.written += 1

        await asyncio.gather(*map(do, deeds))
        for error in failures[:_SHOWN]:
            log.warning("not written", extra={"fields": {"error": str(error), "failures": len(failures)}})
        return not failures

    async def _tell(self, verdicts: Iterable[Verdict], findings: Iterable[Finding]) -> None:
        """Write an event for each finding that is new; one that can not be written is tried again with the next."""
        subjects = {
            one.about: Subject(kind=one.kind, name=one.name, namespace=one.namespace, uid=one.served.uid)
            for one in verdicts
        }
        said = [
            News(subject=subjects[one.about], reason=one.reason, note=one.sentence)
            for one in findings
            if one.about in subjects
        ]
        told = self._told.intersection(said)

        async def tell(news: News) -> None:
            await events.tell(self._server, news, ("outgate-cluster", self._identity))
            told.add(news)

        await self._all([partial(tell, news) for news in said if news not in told])
        self._told = told


def _is_own(intent: Intent) -> bool:
    return Routings.of(intent).default.stance is Stance.OWN


def _with_moves(verdict: Verdict, moves: Iterable[Move], now_s: float) -> Verdict:
    """Return a verdict; that on the default of EgressRoutings has the history of egress IPs."""
    if (verdict.kind, verdict.name) != ("EgressRouting", DEFAULT):
        return verdict
    standing = verdict.served.standing.moves if verdict.served.standing is not None else ()
    return replace(verdict, moves=recorded(standing, moves, judged.time_text(now_s)))


def _same(there: EgressTenant | None, wanted: EgressTenant) -> bool:
    """Whether a tenant stands as a claim wants it; what it was given is not the claim's to say."""
    return there is not None and replace(there, allocated=None) == wanted


def _tenant_manifest(tenant: EgressTenant, claim: tuple[str, str]) -> dict[str, Any]:
    manifest = dump(tenant)
    manifest["metadata"]["labels"] = {CLAIM_NAMESPACE: claim[0], CLAIM_NAME: claim[1]}
    return manifest


def _node_manifest(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict([MADE_BY])}
    return {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressNode", "metadata": metadata}


def _route_manifest(route: ExternalRoute) -> dict[str, Any]:
    return {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": ROUTE,
        "metadata": {"name": route.name, "labels": dict([MADE_BY])},
        "spec": {
            "from": {"namespaceSelector": dump_selector(route.namespace_selector)},
            "nextHops": {"static": [{"ip": str(hop)} for hop in route.next_hops]},
        },
    }
