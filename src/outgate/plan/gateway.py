"""The egress gateway's plan: from a snapshot to all that this machine should hold, each resource with its reason.

The order of this file is the way of a packet: guards, tenants, return routes, then the findings that no resource shows.
Source of the situation: an external machine gives each tenant its own egress IP, next hop or source identity in, SNAT
out, fail closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.intent import EgressGateway, EgressTenant, Intent, NextHopIdentity
from outgate.model.ledger import Ledger
from outgate.model.net import Address, LinkAddress, OnLink, Route, Via
from outgate.model.state import Desired, Probe, Resource, Snapshot
from outgate.model.why import Because, Finding, Severity
from outgate.plan.adopt import adopted_by
from outgate.plan.claims import Claim, Claims, claims, connected, egress_of
from outgate.plan.guard import guard_findings, plan_guard, plan_settings
from outgate.plan.memo import Memo
from outgate.plan.return_routes import plan_return_routes
from outgate.plan.selection import Selection, select
from outgate.plan.tenant_path import TenantFacts, plan_tenant

Wants = dict[Resource, Because]


@dataclass(slots=True)
class Memory:
    """What an earlier round decided about the same values."""

    allocated: tuple[Ledger, Claims] | None = None
    tenants: Memo[str, tuple[TenantFacts, EgressGateway], Wants] = field(default_factory=Memo)
    selections: Memo[str, tuple[object, ...], Selection] = field(default_factory=Memo)


def find_gateway(intent: Intent, name: str) -> EgressGateway | None:
    """Return the named EgressGateway; an empty name means the only one there is."""
    if name:
        return next((gateway for gateway in intent.gateways if gateway.name == name), None)
    return intent.gateways[0] if len(intent.gateways) == 1 else None


def plan(snapshot: Snapshot, digest: str, memory: Memory | None = None) -> Desired:
    """Return what this gateway should hold. `digest` names the table that `systems.nft` renders.

    Without an EgressGateway nothing is wanted, and a finding says so. The ledger must come from `allocate` over the
    same intent.
    """
    gateway = find_gateway(snapshot.intent, snapshot.gateway)
    if gateway is None:
        return Desired(findings=(*snapshot.intent.refusals, _no_gateway(snapshot)))
    decided = claims(snapshot.intent, snapshot.facts, snapshot.ledger, gateway)
    return plan_claims(snapshot, decided, digest, memory or Memory())


def plan_claims(snapshot: Snapshot, decided: Claims, digest: str, memory: Memory) -> Desired:
    """Return the plan for claims that are decided already (`allocate` returns them)."""
    gateway, intent = decided.gateway, snapshot.intent
    tenants = tuple(decided.tenants.values())
    selection = memory.selections.get(
        "all", (tenants, intent.namespaces, intent.pods), lambda given: select(tenants, intent.namespaces, intent.pods)
    )
    wants: Wants = plan_guard(snapshot, gateway, digest)
    probes: dict[Probe, Because] = {}
    findings: list[Finding] = [*intent.refusals, *decided.findings, *selection.findings]
    for tenant in tenants:
        given = _tenant_facts(snapshot, tenant, decided, selection)
        wants.update(memory.tenants.get(tenant.name, (given, gateway), lambda both: plan_tenant(*both)))
        probes.update(_probes(snapshot, tenant, decided))
        findings.extend(_tenant_findings(snapshot, given, decided))
    memory.tenants.sweep()
    wants.update(_shared_next_hops(gateway))
    routes, route_findings = plan_return_routes(snapshot, gateway)
    wants.update(routes)
    wants.update(
        plan_settings(snapshot, gateway, ipv6=any(c.address.version == 6 for c in decided.by_address.values()))
    )
    findings += [
        *route_findings,
        *_route_findings(intent, tenants),
        *guard_findings(snapshot, gateway),
        *_uplink_findings(snapshot, gateway),
    ]
    return Desired(
        wants=MappingProxyType(wants),
        probes=MappingProxyType(probes),
        findings=tuple(findings),
        pods=MappingProxyType({name: len(pods) for name, pods in selection.pods.items()}),
    )


def _tenant_facts(snapshot: Snapshot, tenant: EgressTenant, decided: Claims, selection: Selection) -> TenantFacts:
    ledger = snapshot.ledger
    egress = tuple(claim for claim in decided.egress[tenant.name] if _held(snapshot, claim))
    here = snapshot.facts.addresses
    return TenantFacts(
        tenant=tenant,
        allocation=ledger.tenants[tenant.name],
        hops=tuple(claim for claim in decided.next_hops[tenant.name] if _held(snapshot, claim)),
        egress=egress,
        own=egress_of(tenant, ledger),
        foreign=frozenset(have.address for have in here if any(have.address == c.address for c in egress))
        if egress
        else frozenset(),
        retiring=tuple((a, old.link) for a, old in ledger.retiring.items() if old.tenant == tenant.name),
        pods=selection.pods.get(tenant.name, ()),
        adopted=adopted_by(tenant.name, snapshot.facts, ledger),
    )


def _held(snapshot: Snapshot, claim: Claim) -> bool:
    held = snapshot.ledger.holdings.get(claim.address)
    proven = held is not None and held.tenant == claim.tenant and claim.address not in snapshot.facts.unproven
    return proven and claim.link in snapshot.facts.links


def _probes(snapshot: Snapshot, tenant: EgressTenant, decided: Claims) -> Iterator[tuple[Probe, Because]]:
    """Yield the addresses that must be probed before they are used: claimed, not held, and not in conflict."""
    for claim in (*decided.next_hops[tenant.name], *decided.egress[tenant.name]):
        held = snapshot.ledger.holdings.get(claim.address)
        asked = held is None or claim.address in snapshot.facts.unproven
        if asked and claim.address not in snapshot.facts.conflicts and claim.link in snapshot.facts.links:
            text = f"{claim.address} is claimed for the first time, or after an absence: somebody else may use it"
            yield (
                Probe(address=claim.address, link=claim.link, tenant=tenant.name, egress=claim.egress),
                Because("probe", text, (f"EgressTenant/{tenant.name}",)),
            )


def _shared_next_hops(gateway: EgressGateway) -> Wants:
    return {
        LinkAddress(link=inner.interface, address=address): Because(
            "shared-next-hop", f"source-identity tenants send to {address}", (f"EgressGateway/{gateway.name}",)
        )
        for inner in gateway.inner
        for address in inner.shared_next_hops
    }


def _tenant_findings(snapshot: Snapshot, given: TenantFacts, decided: Claims) -> Iterator[Finding]:
    """Say why a tenant does not work (fully) although its object is sound."""
    tenant, about = given.tenant, f"EgressTenant/{given.tenant.name}"
    claimed = (*decided.next_hops[tenant.name], *decided.egress[tenant.name])
    for claim in claimed:
        mac = snapshot.facts.conflicts.get(claim.address)
        if mac is not None:
            state = (
                "claimed by both; outgate keeps it and does not fight"
                if _held(snapshot, claim)
                else "it is not claimed"
            )
            text = f"{claim.address} is answered by {mac} on {claim.link}: {state}"
            yield Finding(
                "AddressConflict",
                about,
                text,
                Severity.REFUSAL,
                "remove the other owner, or choose another address",
                tenant.origin,
            )
    families = {ip.version for ip in given.own}
    for claim in decided.next_hops[tenant.name]:
        if claim.address.version not in families:
            text = f"next hop {claim.address} has no egress IP of its family: it is not served"
            yield Finding(
                "FamilyWithoutEgressIP",
                about,
                text,
                Severity.WARNING,
                f"add an IPv{claim.address.version} egress IP",
                tenant.origin,
            )
        elif connected(claim.link, snapshot.facts) and not any(
            claim.address in p for p in connected(claim.link, snapshot.facts)
        ):
            text = f"next hop {claim.address} is outside the connected prefixes of {claim.link}: nodes may not find it"
            yield Finding(
                "NextHopOffLink", about, text, Severity.WARNING, "choose an address of the nodes' subnet", tenant.origin
            )
    if tenant.namespace_selector is not None and not given.pods:
        yield Finding("SelectsNothing", about, "selects no pod that has an address", Severity.NOTE, "", tenant.origin)


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


def _uplink_findings(snapshot: Snapshot, gateway: EgressGateway) -> Iterator[Finding]:
    """Say when the default route does not leave by an uplink: tenants' packets are refused then, not leaked."""
    for version in sorted(
        {ip.version for tenant in snapshot.intent.tenants for ip in egress_of(tenant, snapshot.ledger)}
    ):
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
