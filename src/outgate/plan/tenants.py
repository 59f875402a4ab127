"""All tenants of a gateway, each planned again only when something of its own changed.

A round among 4,000 tenants mostly concerns one. So what tenants' plans rest on is gathered first, and compared with
what the last round gathered: values that were carried over are the very same objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from outgate.model.intent import EgressGateway, EgressTenant, Pod
from outgate.model.ledger import Allocation
from outgate.model.net import Address, LinkName, Mac, Prefix
from outgate.model.state import Facts, Probe, Resource, Snapshot
from outgate.model.why import Because, Finding, Severity
from outgate.plan.adopt import adopted_by
from outgate.plan.claims import Claim, Claims, connected, own_of
from outgate.plan.memo import Memo
from outgate.plan.selection import Selection
from outgate.plan.tenant_path import TenantFacts, plan_tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One tenant's part of the plan."""

    wants: Mapping[Resource, Because]
    probes: Mapping[Probe, Because]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Around:
    """What the plans of all tenants rest on: the gateway, the machine's own addresses, each link's prefixes."""

    gateway: EgressGateway
    here: frozenset[Address]
    prefixes: Mapping[LinkName, tuple[Prefix, ...]]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a claimed address can not be used yet, or is used by somebody else too."""

    address: Address
    held: bool
    asked: bool  # whether it is to be probed
    answered: Mac | None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What tenants' plans are made from, each by the tenant's name; absent is empty."""

    tenants: Mapping[str, EgressTenant]
    allocations: Mapping[str, Allocation]
    hops: Mapping[str, tuple[Claim, ...]]
    egress: Mapping[str, tuple[Claim, ...]]
    troubles: Mapping[str, tuple[Trouble, ...]]
    retiring: Mapping[str, tuple[tuple[Address, LinkName], ...]]
    adopted: Mapping[str, tuple[LinkName, ...]]
    pods: Mapping[str, tuple[Pod, ...]]
    ranges: Mapping[str, tuple[Prefix, ...]]


@dataclass(slots=True)
class TenantMemory:
    """What was decided about tenants in the last round, and from what."""

    around: Memo[None, tuple[EgressGateway, Facts], Around] = field(default_factory=Memo)
    troubles: Memo[None, tuple[object, ...], dict[str, tuple[Trouble, ...]]] = field(default_factory=Memo)
    last: tuple[Around, Gathered, dict[str, Planned]] | None = None


def plan_tenants(
    snapshot: Snapshot, decided: Claims, selection: Selection, memory: TenantMemory
) -> Mapping[str, Planned]:
    """Return the plan of each accepted tenant, by name in their order."""
    around = memory.around.get(None, (decided.gateway, Facts(addresses=snapshot.facts.addresses)), _around)
    given = _gathered(snapshot, decided, selection, memory)
    if memory.last is not None and memory.last[0] == around:
        known = memory.last[2]
        changed = _changed(given, memory.last[1])
        planned = {name: _planned(name, given, around) if name in changed else known[name] for name in given.tenants}
    else:
        planned = {name: _planned(name, given, around) for name in given.tenants}
    memory.last = (around, given, planned)
    return planned


def _gathered(snapshot: Snapshot, decided: Claims, selection: Selection, memory: TenantMemory) -> Gathered:
    facts, ledger = snapshot.facts, snapshot.ledger
    grounds = (decided.by_address, ledger.holdings, facts.unproven, facts.conflicts, facts.links)
    retiring: dict[str, tuple[tuple[Address, LinkName], ...]] = {}
    for address, old in ledger.retiring.items():
        retiring[old.tenant] = (*retiring.get(old.tenant, ()), (address, old.link))
    adopting = sorted({adoption.tenant for adoption in ledger.adopting.values()})
    return Gathered(
        tenants=decided.tenants,
        allocations=ledger.tenants,
        hops=decided.next_hops,
        egress=decided.egress,
        troubles=memory.troubles.get(None, grounds, lambda _: _troubles(snapshot, decided)),
        retiring=retiring,
        adopted={name: adopted_by(name, facts, ledger) for name in adopting},
        pods=selection.pods,
        ranges=selection.ranges,
    )


def _changed(now: Gathered, then: Gathered) -> set[str]:
    """Return the tenants of which anything is not as it was. Values that were carried over are told by identity."""
    differ = _differ(now.tenants, then.tenants) | _differ(now.allocations, then.allocations)
    differ |= _differ(now.hops, then.hops) | _differ(now.egress, then.egress)
    differ |= _differ(now.troubles, then.troubles) | _differ(now.retiring, then.retiring)
    differ |= _differ(now.adopted, then.adopted) | _differ(now.ranges, then.ranges)
    return differ | _differ(now.pods, then.pods)


def _differ(now: Mapping[str, object], then: Mapping[str, object]) -> set[str]:
    """Return the names whose values are other objects, unless these are equal tuples: what compares equal may still
    have another origin.
    """
    if now is then:
        return set()
    fresh = [name for name, value in now.items() if then.get(name) is not value]
    return {n for n in fresh if not (isinstance(now[n], tuple) and now[n] == then.get(n))} | (then.keys() - now.keys())


def _around(given: tuple[EgressGateway, Facts]) -> Around:
    gateway, facts = given
    links = sorted({have.link for have in facts.addresses})
    here = frozenset(have.address for have in facts.addresses)
    return Around(gateway=gateway, here=here, prefixes={link: connected(link, facts) for link in links})


def _troubles(snapshot: Snapshot, decided: Claims) -> dict[str, tuple[Trouble, ...]]:
    """Return the claimed addresses that can not be used yet, or are answered for by somebody else, by tenant.

    Nobody is asked about an address that somebody has answered for, or on a link that is not there.
    """
    facts, holdings = snapshot.facts, snapshot.ledger.holdings
    absent = {claim.link for claim in decided.by_address.values()} - facts.links.keys()
    found: dict[str, tuple[Trouble, ...]] = {}
    for address, claim in decided.by_address.items():
        held = holdings.get(address)
        doubtful = facts.unproven or facts.conflicts or absent
        if held is not None and held.tenant == claim.tenant and not doubtful:
            continue
        proven, there = address not in facts.unproven, claim.link not in absent
        answered = facts.conflicts.get(address)
        usable = held is not None and held.tenant == claim.tenant and proven and there
        if not usable or answered is not None:
            asked = (held is None or not proven) and there and answered is None
            found[claim.tenant] = (*found.get(claim.tenant, ()), Trouble(address, usable, asked, answered))
    return found


def _planned(name: str, given: Gathered, around: Around) -> Planned:
    tenant, allocation = given.tenants[name], given.allocations[name]
    hops, claimed, retiring = given.hops[name], given.egress[name], given.retiring.get(name, ())
    troubles = {trouble.address: trouble for trouble in given.troubles.get(name, ())}
    waits = {trouble.address for trouble in troubles.values() if not trouble.held}
    own, pods = own_of(tenant, allocation), given.pods.get(name)
    kept = _kept(name, own, waits, retiring)
    egress = (*(claim for claim in claimed if claim.address not in waits), *kept)
    path = TenantFacts(
        tenant=tenant,
        allocation=allocation,
        claimed=hops,
        hops=tuple(claim for claim in hops if claim.address not in waits),
        egress=egress,
        own=(*own, *(claim.address for claim in kept)),
        foreign=frozenset(claim.address for claim in egress if claim.address in around.here),
        retiring=tuple(old for old in retiring if old[0] not in {claim.address for claim in kept}),
        pods=pods or (),
        ranges=given.ranges.get(name, ()),
        adopted=given.adopted.get(name, ()),
    )
    claims = (*hops, *claimed)
    return Planned(
        wants=plan_tenant(path, around.gateway),
        probes=dict(_probes(claims, troubles)),
        findings=(*_conflicts(tenant, claims, troubles), *_unserved(tenant, hops, own, around), *_alone(tenant, pods)),
    )


def _kept(
    name: str, own: tuple[Address, ...], waits: AbstractSet[Address], retiring: tuple[tuple[Address, LinkName], ...]
) -> tuple[Claim, ...]:
    """Return the egress IPs that were taken away and serve on: of a family of which no new one is proven yet."""
    proven = {address.version for address in own if address not in waits}
    lacking = {address.version for address in own} - proven
    return tuple(
        Claim(address=address, tenant=name, link=link, egress=True)
        for address, link in retiring
        if address.version in lacking
    )


def _probes(claims: tuple[Claim, ...], troubles: Mapping[Address, Trouble]) -> Iterator[tuple[Probe, Because]]:
    """Yield the addresses that must be probed before they are used."""
    for claim in claims:
        trouble = troubles.get(claim.address)
        if trouble is not None and trouble.asked:
            text = f"{claim.address} is claimed for the first time, or after an absence: somebody else may use it"
            probe = Probe(address=claim.address, link=claim.link, tenant=claim.tenant, egress=claim.egress)
            yield probe, Because("probe", text, (f"EgressTenant/{claim.tenant}",))


def _conflicts(
    tenant: EgressTenant, claims: tuple[Claim, ...], troubles: Mapping[Address, Trouble]
) -> Iterator[Finding]:
    for claim in claims:
        trouble = troubles.get(claim.address)
        if trouble is not None and trouble.answered is not None:
            state = "claimed by both; outgate keeps it and does not fight" if trouble.held else "it is not claimed"
            text = f"{claim.address} is answered by {trouble.answered} on {claim.link}: {state}"
            fix = "remove the other owner, or choose another address"
            yield _finding("AddressConflict", tenant, text, Severity.REFUSAL, fix)


def _unserved(
    tenant: EgressTenant, hops: tuple[Claim, ...], own: tuple[Address, ...], around: Around
) -> Iterator[Finding]:
    """Say which next hops do not work although the object is sound."""
    families = {ip.version for ip in own}
    for claim in hops:
        prefixes = around.prefixes.get(claim.link, ())
        if claim.address.version not in families:
            text = f"next hop {claim.address} has no egress IP of its family: it is not served"
            fix = f"add an IPv{claim.address.version} egress IP"
            yield _finding("FamilyWithoutEgressIP", tenant, text, Severity.WARNING, fix)
        elif prefixes and not any(claim.address in prefix for prefix in prefixes):
            text = f"next hop {claim.address} is outside the connected prefixes of {claim.link}: nodes may not find it"
            fix = "choose an address of the nodes' subnet"
            yield _finding("NextHopOffLink", tenant, text, Severity.WARNING, fix)


def _alone(tenant: EgressTenant, pods: tuple[Pod, ...] | None) -> Iterator[Finding]:
    """Tell of a tenant without pods; None: nobody knows."""
    if tenant.namespace_selector is not None and pods == ():
        yield _finding("SelectsNothing", tenant, "selects no pod that has an address", Severity.NOTE, "")


def _finding(reason: str, tenant: EgressTenant, text: str, severity: Severity, fix: str) -> Finding:
    return Finding(reason, f"EgressTenant/{tenant.name}", text, severity, fix, tenant.origin)
