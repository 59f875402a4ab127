"""All tenants of a gateway, each planned again only when something of its own changed.

A round among 4,000 tenants mostly concerns one. So what a tenant's plan rests on is gathered first, as values that
were carried over from the last round where nothing happened, and such values compare by identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from outgate.model.intent import EgressGateway, EgressTenant, Pod
from outgate.model.ledger import Allocation
from outgate.model.net import Address, LinkName, Mac, Prefix
from outgate.model.state import Facts, Probe, Resource, Snapshot
from outgate.model.why import Because, Finding, Origin, Severity
from outgate.plan.adopt import adopted_by
from outgate.plan.claims import Claim, Claims, connected, own_of
from outgate.plan.memo import Memo
from outgate.plan.selection import Selection
from outgate.plan.tenant_path import TenantFacts, plan_tenant

Pending = Mapping[Address, bool]  # claimed addresses that are not held: whether they are to be probed


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


class Given(NamedTuple):
    """What one tenant's plan rests on. A tuple, because 4,000 of these are compared in every round."""

    tenant: EgressTenant
    origin: Origin
    allocation: Allocation
    hops: tuple[Claim, ...]
    egress: tuple[Claim, ...]
    pending: tuple[tuple[Address, bool], ...]
    conflicts: tuple[tuple[Address, Mac], ...]
    retiring: tuple[tuple[Address, LinkName], ...]
    adopted: tuple[LinkName, ...]
    pods: tuple[Pod, ...]
    around: Around


@dataclass(slots=True)
class TenantMemory:
    """What an earlier round decided about tenants, and what it gathered for that."""

    around: Memo[None, tuple[EgressGateway, Facts], Around] = field(default_factory=Memo)
    pending: Memo[None, tuple[object, ...], Pending] = field(default_factory=Memo)
    planned: Memo[str, Given, Planned] = field(default_factory=Memo)


def plan_tenants(snapshot: Snapshot, decided: Claims, selection: Selection, memory: TenantMemory) -> list[Planned]:
    """Return the plan of each accepted tenant, in their order."""
    facts, ledger = snapshot.facts, snapshot.ledger
    around = memory.around.get(None, (decided.gateway, Facts(addresses=facts.addresses)), _around)
    grounds = (decided.by_address, ledger.holdings, facts.unproven, facts.conflicts, facts.links)
    pending = memory.pending.get(None, grounds, lambda _: _pending(snapshot, decided))
    troubled = _by_tenant(decided, {**pending, **dict.fromkeys(facts.conflicts, False)})
    retiring: dict[str, tuple[tuple[Address, LinkName], ...]] = {}
    for address, old in ledger.retiring.items():
        retiring[old.tenant] = (*retiring.get(old.tenant, ()), (address, old.link))
    found = []
    for name, tenant in decided.tenants.items():
        mine = troubled.get(name, ())
        given = Given(
            tenant=tenant,
            origin=tenant.origin,
            allocation=ledger.tenants[name],
            hops=decided.next_hops[name],
            egress=decided.egress[name],
            pending=tuple((address, pending[address]) for address in mine if address in pending),
            conflicts=tuple((address, facts.conflicts[address]) for address in mine if address in facts.conflicts),
            retiring=retiring.get(name, ()),
            adopted=adopted_by(name, facts, ledger) if ledger.adopting else (),
            pods=selection.pods.get(name, ()),
            around=around,
        )
        found.append(memory.planned.get(name, given, _planned))
    memory.planned.sweep()
    return found


def _around(given: tuple[EgressGateway, Facts]) -> Around:
    gateway, facts = given
    links = sorted({have.link for have in facts.addresses})
    here = frozenset(have.address for have in facts.addresses)
    return Around(gateway=gateway, here=here, prefixes={link: connected(link, facts) for link in links})


def _pending(snapshot: Snapshot, decided: Claims) -> Pending:
    """Return the claimed addresses that can not be used yet. Nobody is asked about one that somebody has answered for,
    or on a link that is not there.
    """
    facts, holdings = snapshot.facts, snapshot.ledger.holdings
    found: dict[Address, bool] = {}
    for address, claim in decided.by_address.items():
        held, proven = holdings.get(address), address not in facts.unproven
        if held is None or held.tenant != claim.tenant or not proven or claim.link not in facts.links:
            asked = (held is None or not proven) and claim.link in facts.links
            found[address] = asked and address not in facts.conflicts
    return found


def _by_tenant(decided: Claims, addresses: Mapping[Address, bool]) -> dict[str, tuple[Address, ...]]:
    """Return those of the addresses that somebody claims, by tenant, in the order of its claims."""
    names = dict.fromkeys(claim.tenant for address in addresses if (claim := decided.by_address.get(address)))
    return {
        name: tuple(c.address for c in (*decided.next_hops[name], *decided.egress[name]) if c.address in addresses)
        for name in names
    }


def _planned(given: Given) -> Planned:
    waits = dict(given.pending)
    own = own_of(given.tenant, given.allocation)
    kept = _kept(given, own, waits)
    egress = (*(claim for claim in given.egress if claim.address not in waits), *kept)
    path = TenantFacts(
        tenant=given.tenant,
        allocation=given.allocation,
        hops=tuple(claim for claim in given.hops if claim.address not in waits),
        egress=egress,
        own=(*own, *(claim.address for claim in kept)),
        foreign=frozenset(claim.address for claim in egress if claim.address in given.around.here),
        retiring=tuple(old for old in given.retiring if old[0] not in {claim.address for claim in kept}),
        pods=given.pods,
        adopted=given.adopted,
    )
    return Planned(
        wants=plan_tenant(path, given.around.gateway),
        probes=dict(_probes(given, waits)),
        findings=(*_conflicts(given, waits), *_unserved(given, own)),
    )


def _kept(given: Given, own: tuple[Address, ...], waits: Mapping[Address, bool]) -> tuple[Claim, ...]:
    """Return the egress IPs that were taken away and serve on: of a family of which no new one is proven yet."""
    proven = {address.version for address in own if address not in waits}
    lacking = {address.version for address in own} - proven
    return tuple(
        Claim(address=address, tenant=given.tenant.name, link=link, egress=True)
        for address, link in given.retiring
        if address.version in lacking
    )


def _probes(given: Given, waits: Mapping[Address, bool]) -> Iterator[tuple[Probe, Because]]:
    """Yield the addresses that must be probed before they are used."""
    name = given.tenant.name
    for claim in (*given.hops, *given.egress):
        if waits.get(claim.address):
            text = f"{claim.address} is claimed for the first time, or after an absence: somebody else may use it"
            probe = Probe(address=claim.address, link=claim.link, tenant=name, egress=claim.egress)
            yield probe, Because("probe", text, (f"EgressTenant/{name}",))


def _conflicts(given: Given, waits: Mapping[Address, bool]) -> Iterator[Finding]:
    answered = dict(given.conflicts)
    for claim in (*given.hops, *given.egress):
        mac = answered.get(claim.address)
        if mac is not None:
            held = claim.address not in waits
            state = "claimed by both; outgate keeps it and does not fight" if held else "it is not claimed"
            text = f"{claim.address} is answered by {mac} on {claim.link}: {state}"
            fix = "remove the other owner, or choose another address"
            yield _finding("AddressConflict", given.tenant, text, Severity.REFUSAL, fix)


def _unserved(given: Given, own: tuple[Address, ...]) -> Iterator[Finding]:
    """Say why a tenant does not work (fully) although its object is sound."""
    tenant = given.tenant
    families = {ip.version for ip in own}
    for claim in given.hops:
        prefixes = given.around.prefixes.get(claim.link, ())
        if claim.address.version not in families:
            text = f"next hop {claim.address} has no egress IP of its family: it is not served"
            fix = f"add an IPv{claim.address.version} egress IP"
            yield _finding("FamilyWithoutEgressIP", tenant, text, Severity.WARNING, fix)
        elif prefixes and not any(claim.address in prefix for prefix in prefixes):
            text = f"next hop {claim.address} is outside the connected prefixes of {claim.link}: nodes may not find it"
            fix = "choose an address of the nodes' subnet"
            yield _finding("NextHopOffLink", tenant, text, Severity.WARNING, fix)
    if tenant.namespace_selector is not None and not given.pods:
        yield _finding("SelectsNothing", tenant, "selects no pod that has an address", Severity.NOTE, "")


def _finding(reason: str, tenant: EgressTenant, text: str, severity: Severity, fix: str) -> Finding:
    return Finding(reason, f"EgressTenant/{tenant.name}", text, severity, fix, tenant.origin)
