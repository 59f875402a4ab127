"""The egress gateway's plan: from a snapshot to all that this machine should hold, each resource with its reason.

The order of this file is the way of a packet: guards, tenants, return routes, then the findings that no resource shows.
Source of the situation: an external machine gives each tenant its own egress IP, next hop or source identity in, SNAT
out, fail closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from outgate.model.intent import EgressClaim, EgressGateway, EgressTenant, Intent, NextHopIdentity
from outgate.model.ledger import Ledger
from outgate.model.net import Address, LinkAddress, OnLink, Route, Via
from outgate.model.state import Desired, Resource, Snapshot
from outgate.model.why import Because, Finding, Severity
from outgate.plan.claims import Claim, Claims, claims
from outgate.plan.guard import guard_findings, plan_guard, plan_settings
from outgate.plan.memo import Memo
from outgate.plan.return_routes import plan_return_routes
from outgate.plan.selection import Selection, select, subject
from outgate.plan.tenants import TenantMemory, plan_tenants

Wants = dict[Resource, Because]
Parts = dict[str, Mapping[Resource, Because]]


@dataclass(slots=True)
class PlanMemory:
    """What an earlier plan decided about the same values. It saves time, and decides nothing."""

    tenants: TenantMemory = field(default_factory=TenantMemory)
    selections: Memo[None, tuple[object, ...], Selection] = field(default_factory=Memo)
    frames: Memo[None, tuple[object, ...], Frame] = field(default_factory=Memo)
    families: Memo[None, Mapping[Address, Claim], Families] = field(default_factory=Memo)
    joined: tuple[Parts, Wants] | None = None


@dataclass(frozen=True, slots=True)
class Families:
    """The IP versions of all claimed addresses, and of the egress IPs among them, in order."""

    claimed: tuple[int, ...]
    egress: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The part of a plan that does not hang on single tenants."""

    guards: Mapping[Resource, Because]
    rest: Mapping[Resource, Because]
    findings: tuple[Finding, ...]


def plan(snapshot: Snapshot, digest: str) -> Desired:
    """Return what this gateway should hold. `digest` names the table that `systems.nft` renders.

    Without an EgressGateway nothing is wanted, and a finding says so. The ledger must come from `allocate` over the
    same intent.
    """
    gateway = snapshot.intent.find_gateway(snapshot.gateway)
    if gateway is None:
        return Desired(findings=(*snapshot.intent.refusals, _no_gateway(snapshot)))
    decided = claims(snapshot.intent, snapshot.facts, snapshot.ledger, gateway)
    return plan_claims(snapshot, decided, digest, PlanMemory())


def plan_claims(snapshot: Snapshot, decided: Claims, digest: str, memory: PlanMemory) -> Desired:
    """Return the plan for claims that are decided already (`allocate` returns them)."""
    intent, tenants = snapshot.intent, tuple(decided.tenants.values())
    chosen = memory.selections.get(
        None,
        (tuple(map(subject, tenants)), intent.namespaces, intent.pods, intent.pods_known),
        lambda _: _selected(intent, tenants),
    )
    planned = plan_tenants(snapshot, decided, chosen, memory.tenants)
    frame = _frame(snapshot, decided, digest, memory)
    parts: Parts = {"": frame.guards, **{name: each.wants for name, each in planned.items()}, "/": frame.rest}
    findings = (
        *intent.refusals,
        *decided.findings,
        *chosen.findings,
        *(finding for each in planned.values() for finding in each.findings),
        *frame.findings,
        *_route_findings(intent, tenants),
        *map(_unserved_claim, intent.claims),
    )
    return Desired(
        wants=_joined(parts, memory),  # a plain dict: its keys become a set without hashing them again
        probes=MappingProxyType(
            {probe: because for each in planned.values() for probe, because in each.probes.items()}
        ),
        findings=findings,
        pods=MappingProxyType({name: len(pods) for name, pods in chosen.pods.items()}),
    )


def _unserved_claim(claim: EgressClaim) -> Finding:
    text = "is a claim, of which the cluster role makes a tenant; a gateway itself serves none"
    fix = "write an EgressTenant, or let `outgate cluster run` judge the cluster"
    about = f"EgressClaim/{claim.namespace}/{claim.name}"
    return Finding("ClaimNeedsCluster", about, text, Severity.WARNING, fix, claim.origin)


def _selected(intent: Intent, tenants: tuple[EgressTenant, ...]) -> Selection:
    """Return who selects what; where not all pods are known, none does not mean none, and nothing is said."""
    found = select(tenants, intent.namespaces, intent.pods)
    return (
        found
        if intent.pods_known
        else replace(found, pods=MappingProxyType({name: pods for name, pods in found.pods.items() if pods}))
    )


def _joined(parts: Parts, memory: PlanMemory) -> Wants:
    """Return what all parts want; only the parts that changed are exchanged where no two want the same."""
    if memory.joined is None:
        memory.joined = (parts, _together(parts))
        return memory.joined[1]
    before, wants = memory.joined
    changed = [name for name, part in parts.items() if part is not before.get(name)]
    gone = before.keys() - parts.keys()
    if not changed and not gone:
        return wants
    apart = len(wants) == sum(map(len, before.values()))
    exchanged = _exchanged(wants, before, parts, (*changed, *gone)) if apart else {}
    memory.joined = (parts, exchanged if len(exchanged) == sum(map(len, parts.values())) else _together(parts))
    return memory.joined[1]


def _exchanged(wants: Wants, before: Parts, parts: Parts, names: Iterable[str]) -> Wants:
    found = wants.copy()
    for name in names:
        for resource in before.get(name, ()):
            found.pop(resource, None)
    for name in names:
        found.update(parts.get(name, {}))
    return found


def _together(parts: Parts) -> Wants:
    wants: Wants = {}
    for part in parts.values():
        wants.update(part)
    return wants


def _frame(snapshot: Snapshot, decided: Claims, digest: str, memory: PlanMemory) -> Frame:
    """Return guards, return routes and settings, from a snapshot without the rest, so that they can not hang on it."""
    intent, facts = snapshot.intent, snapshot.facts
    quiet = Snapshot(
        intent=Intent(gateways=intent.gateways, nodes=intent.nodes, network=intent.network),
        facts=replace(facts, conflicts=MappingProxyType({}), unproven=frozenset()),
        ledger=Ledger(subnets_seen=snapshot.ledger.subnets_seen),
        gateway=snapshot.gateway,
    )
    families = memory.families.get(None, decided.by_address, _families)
    told_by = (decided.gateway.origin, intent.network and intent.network.origin, *(n.origin for n in intent.nodes))
    return memory.frames.get(
        None,
        (quiet, decided.gateway, families, digest, told_by),
        lambda _: _framed(quiet, decided.gateway, families, digest),
    )


def _families(by_address: Mapping[Address, Claim]) -> Families:
    claimed = {claim.address.version for claim in by_address.values()}
    egress = {claim.address.version for claim in by_address.values() if claim.egress}
    return Families(tuple(sorted(claimed)), tuple(sorted(egress)))


def _framed(snapshot: Snapshot, gateway: EgressGateway, families: Families, digest: str) -> Frame:
    routes, route_findings = plan_return_routes(snapshot, gateway)
    settings = plan_settings(snapshot, gateway, ipv6=6 in families.claimed)
    uplinks = _uplink_findings(snapshot, gateway, families.egress)
    return Frame(
        guards=plan_guard(snapshot, gateway, digest),
        rest={**_shared_next_hops(gateway), **routes, **settings},
        findings=(*route_findings, *guard_findings(snapshot, gateway), *uplinks),
    )


def _shared_next_hops(gateway: EgressGateway) -> Wants:
    return {
        LinkAddress(link=inner.interface, address=address): Because(
            "shared-next-hop", f"source-identity tenants send to {address}", (f"EgressGateway/{gateway.name}",)
        )
        for inner in gateway.inner
        for address in inner.shared_next_hops
    }


def _route_findings(intent: Intent, tenants: Iterable[EgressTenant]) -> Iterator[Finding]:
    """Say when the cluster does not send a next-hop tenant's traffic here."""
    if not intent.external_routes:
        return
    used: set[Address] = {hop for route in intent.external_routes for hop in route.next_hops}
    for tenant in tenants:
        if isinstance(tenant.identity, NextHopIdentity) and used.isdisjoint(tenant.identity.addresses):
            hops = ", ".join(map(str, tenant.identity.addresses))
            text = f"no AdminPolicyBasedExternalRoute has one of its next hops {hops}"
            fix = "create one for its namespaces with that next hop"
            yield Finding("NoExternalRoute", f"EgressTenant/{tenant.name}", text, Severity.WARNING, fix, tenant.origin)


def _uplink_findings(snapshot: Snapshot, gateway: EgressGateway, versions: tuple[int, ...]) -> Iterator[Finding]:
    """Say when the default route does not leave by an uplink: tenants' packets are refused then, not leaked."""
    for version in versions:
        defaults = [r for r in snapshot.facts.routes if r.dst.version == version and r.dst.prefixlen == 0]
        best: Route | None = min(defaults, key=lambda route: route.metric, default=None)
        hop = best.hop if best is not None else None
        about = f"EgressGateway/{gateway.name}"
        if best is None:
            text = f"there is no IPv{version} default route: tenants reach connected destinations only"
            yield Finding(
                "NoDefaultRoute",
                about,
                text,
                Severity.WARNING,
                f"add one by an uplink ({', '.join(gateway.uplinks)})",
                gateway.origin,
            )
        elif isinstance(hop, Via | OnLink) and hop.link not in gateway.uplinks:
            text = (
                f"the IPv{version} default route leaves by {hop.link}, which is no uplink: tenants' packets are refused"
            )
            fix = f"ip{' -6' if version == 6 else ''} route replace default via ROUTER dev {gateway.uplinks[0]}"
            yield Finding("DefaultRouteNotOnUplink", about, text, Severity.REFUSAL, fix, gateway.origin)


def _no_gateway(snapshot: Snapshot) -> Finding:
    names = ", ".join(gateway.name for gateway in snapshot.intent.gateways)
    if snapshot.gateway:
        text, fix = (
            f"there is no EgressGateway/{snapshot.gateway}",
            f"name one of: {names}" if names else "add an EgressGateway",
        )
    elif names:
        text, fix = f"there are several EgressGateways: {names}", "say which one this machine is (--name)"
    else:
        text, fix = "there is no EgressGateway", "add one that names this machine's inner NICs and uplinks"
    return Finding("GatewayUnknown", f"EgressGateway/{snapshot.gateway}".rstrip("/"), text, Severity.REFUSAL, fix)
