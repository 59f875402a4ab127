"""How the gateway is doing: from the last round, the table's counters, and the age of what was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outgate.control.daemon import Report
from outgate.control.round import Decided
from outgate.model.intent import EgressTenant, NextHopIdentity, Node
from outgate.model.net import Address, Prefix, Route, Rule, Via
from outgate.model.ruleset import Table
from outgate.model.status import (
    Blocked,
    Confirmation,
    GuardStatus,
    Health,
    Layer,
    NodeStatus,
    PortUse,
    RoundStatus,
    SourceStatus,
    Status,
    TenantState,
    TenantStatus,
)
from outgate.model.why import Finding, Severity
from outgate.plan.guard import covers, protected
from outgate.systems.nft.parse import Counts

_LAYERS = {
    "no_identity": Layer.ENTER,
    "source_refused": Layer.FORWARD,
    "internal_refused": Layer.FORWARD,
    "wrong_exit": Layer.FORWARD,
    "invalid": Layer.FORWARD,
    "connections_refused": Layer.FORWARD,
    "rate_dropped": Layer.FORWARD,
    "quota_dropped": Layer.FORWARD,
    "guard_dropped": Layer.GUARD,
    "inbound_refused": Layer.INBOUND,
    "inbound_dropped": Layer.INBOUND,
    "through_dropped": Layer.INBOUND,
}
_STALE_S = 90.0  # a source that was not read for three audits is old


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known beside the round, at one moment (monotonic seconds)."""

    now_s: float
    started_s: float
    version: str
    source: str
    source_read_s: float | None
    source_error: str
    counts: Counts
    ports: Mapping[Address, int]
    ports_at_s: float | None = None
    confirmation: Confirmation | None = None
    sources: tuple[SourceStatus, ...] = ()  # what the source says of itself, if it does


def status_of(report: Report, observed: Observed) -> Status:
    """Return the whole status. Without a finished round the gateway has FAILED to do its job so far."""
    decided = report.decided
    sources = observed.sources or (_source(report, observed),)
    rounds = _rounds(report, observed)
    guard = _guard(report, observed.counts)
    tenants = tuple(_tenants(decided, report, observed)) if decided else ()
    nodes = tuple(_nodes(decided)) if decided else ()
    return Status(
        gateway=decided.snapshot.gateway if decided else "",
        version=observed.version,
        health=_health(report, guard, tenants, sources),
        uptime_s=observed.now_s - observed.started_s,
        sources=sources,
        rounds=rounds,
        guard=guard,
        tenants=tenants,
        nodes=nodes,
        findings=report.findings,
        confirmation=observed.confirmation,
    )


def _health(
    report: Report, guard: GuardStatus, tenants: tuple[TenantStatus, ...], sources: tuple[SourceStatus, ...]
) -> Health:
    if report.decided is None or not guard.table or not guard.rules:
        return Health.FAILED
    troubled = any(tenant.state is not TenantState.OK for tenant in tenants)
    warned = any(finding.severity is not Severity.NOTE for finding in report.findings)
    stale = any(source.health is not Health.OK for source in sources)
    undone = report.error or not report.outcome.converged or report.decided.desired.probes
    return Health.DEGRADED if troubled or warned or stale or undone else Health.OK


def _source(report: Report, observed: Observed) -> SourceStatus:
    intent = report.decided.snapshot.intent if report.decided else None
    age_s = None if observed.source_read_s is None else observed.now_s - observed.source_read_s
    sound = age_s is not None and age_s < _STALE_S and not observed.source_error
    objects = {"tenant": len(intent.tenants), "node": len(intent.nodes), "pod": len(intent.pods)} if intent else {}
    health = Health.OK if sound else Health.DEGRADED
    return SourceStatus(name=observed.source, health=health, age_s=age_s, objects=objects, error=observed.source_error)


def _rounds(report: Report, observed: Observed) -> RoundStatus:
    decided = report.decided
    return RoundStatus(
        rounds=report.rounds,
        changes=report.changes,
        repaired=report.repaired,
        failed=report.failed,
        last_age_s=observed.now_s - report.at_s if report.rounds else None,
        last_duration_s=report.seconds,
        last_repair=report.last_repair,
        last_repair_age_s=observed.now_s - report.repaired_at_s if report.last_repair else None,
        owned=len(decided.desired.wants) - len(report.outcome.left.make) if decided else 0,
        left=len(report.outcome.left.make) + len(report.outcome.left.drop),
        error=report.error,
    )


def _failed(report: Report, kind: type[Table] | type[Rule]) -> bool:
    return any(isinstance(resource, kind) for resource in report.outcome.left.make)


def _guard(report: Report, counts: Counts) -> GuardStatus:
    decided = report.decided
    if decided is None:
        return GuardStatus(table=False, rules=False)
    wants, claims = decided.desired.wants, decided.claims
    ranges = protected(decided.snapshot.intent, claims.gateway, decided.ledger) if claims else {}
    subnets = {subnet.prefix for node in decided.snapshot.intent.nodes for subnet in node.subnets}
    blocked = tuple(
        Blocked(layer=layer, counter=name, packets=counts.named[name].packets)
        for name, layer in _LAYERS.items()
        if name in counts.named
    )
    return GuardStatus(
        table=any(isinstance(r, Table) for r in wants) and not _failed(report, Table),
        rules=any(isinstance(r, Rule) for r in wants) and not _failed(report, Rule),
        covered=sum(1 for subnet in subnets if any(covers(wide, subnet) for wide in ranges)),
        subnets=len(subnets),
        blocked=blocked,
    )


def standings(decided: Decided, report: Report) -> Iterable[tuple[EgressTenant, TenantState, Finding | None]]:
    """Return how each tenant stands, and the worst finding about it. A tenant with no egress IP is refused."""
    by_tenant: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if finding.about.startswith("EgressTenant/") and finding.severity is not Severity.NOTE:
            by_tenant.setdefault(finding.about.removeprefix("EgressTenant/"), []).append(finding)
    probing = {probe.tenant for probe in decided.desired.probes}
    for tenant in decided.snapshot.intent.tenants:
        name, findings = tenant.name, by_tenant.get(tenant.name, [])
        worst = next((f for f in findings if f.severity is Severity.REFUSAL), findings[0] if findings else None)
        if decided.claims is None or not decided.claims.egress.get(name):
            yield tenant, TenantState.REFUSED, worst
        elif worst is None and name in probing:
            yield tenant, TenantState.DEGRADED, _probing(tenant)
        else:
            yield tenant, TenantState.DEGRADED if worst else TenantState.OK, worst


def _probing(tenant: EgressTenant) -> Finding:
    text = "asking whether somebody else has its addresses"
    return Finding("Probing", f"EgressTenant/{tenant.name}", text, Severity.NOTE, origin=tenant.origin)


def _tenants(decided: Decided, report: Report, observed: Observed) -> Iterable[TenantStatus]:
    for tenant, state, worst in standings(decided, report):
        yield _tenant(tenant, decided, observed, (state, f"{worst.reason}: {worst.text}" if worst else ""))


def _tenant(
    tenant: EgressTenant, decided: Decided, observed: Observed, standing: tuple[TenantState, str]
) -> TenantStatus:
    allocation = decided.ledger.tenants.get(tenant.name)
    claims = decided.claims
    own = tuple(c.address for c in claims.egress.get(tenant.name, ())) if claims else ()
    hops = tuple(c.address for c in claims.next_hops.get(tenant.name, ())) if claims else ()
    counted = observed.counts.accounts
    tally = (
        {name: counted.get((name, allocation.mark)) for name in ("sent", "received", "opened")} if allocation else {}
    )
    sent, received, opened = tally.get("sent"), tally.get("received"), tally.get("opened")
    age_s = None if observed.ports_at_s is None else observed.now_s - observed.ports_at_s
    return TenantStatus(
        name=tenant.name,
        state=standing[0],
        reason=standing[1],
        egress_ips=own or tenant.egress_ips,
        next_hops=hops,
        link=allocation.link if allocation and isinstance(tenant.identity, NextHopIdentity) else None,
        pods=decided.desired.pods.get(tenant.name) if tenant.namespace_selector else None,
        packets=sent.packets if sent else None,
        sent_bytes=sent.bytes if sent else None,
        received_bytes=received.bytes if received else None,
        opened=opened.packets if opened else None,
        ports=tuple(
            PortUse(address=ip, used=observed.ports.get(ip, 0), available=64512, age_s=age_s)
            for ip in own
            if age_s is not None
        ),
    )


def _nodes(decided: Decided) -> Iterable[NodeStatus]:
    routes = {route.dst: route for route in decided.desired.wants if isinstance(route, Route)}
    reasons: dict[str, str] = {}
    for finding in decided.desired.findings:
        if finding.about.startswith("Node/"):
            reasons.setdefault(finding.about.removeprefix("Node/"), f"{finding.reason}: {finding.text}")
    for node in decided.snapshot.intent.nodes:
        yield _node(node, routes, reasons.get(node.name, ""))


def _node(node: Node, routes: Mapping[Prefix, Route], reason: str) -> NodeStatus:
    subnets = tuple(subnet.prefix for subnet in node.subnets)
    mine = [routes[prefix] for prefix in subnets if prefix in routes]
    via = {route.hop.address for route in mine if isinstance(route.hop, Via)}
    return NodeStatus(
        name=node.name,
        ready=node.ready,
        subnets=subnets,
        routed=len(mine),
        via=tuple(sorted(via, key=str)),
        reason=reason,
    )
