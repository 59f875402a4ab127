"""Which tenant may hold which address on this gateway, decided once for everybody: planner, allocator, explain.

A standing holder wins, then the first by name; the loser is refused with the winner's name and stays fail closed. An
address that the machine, a node, the cluster or the LAN needs is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from itertools import chain
from types import MappingProxyType

from outgate.model.intent import EgressGateway, EgressTenant, Intent, NextHopIdentity
from outgate.model.ledger import Allocation, Ledger, Resting, Retiring
from outgate.model.net import Address, LinkName, Prefix, Via
from outgate.model.state import Facts
from outgate.model.why import Finding, Severity
from outgate.plan.memo import copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One address that a tenant holds or waits for. `link` is the NIC on which neighbours find it."""

    address: Address
    tenant: str
    link: LinkName
    egress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The accepted tenants of this gateway with their addresses, and what was refused.

    `grounds` is what the decision rests on beside the tenants and the ledger. `moved` names the tenants whose claims
    are others than in the decision from which this one was carried over; None: perhaps all.
    """

    gateway: EgressGateway
    tenants: Mapping[str, EgressTenant]
    next_hops: Mapping[str, tuple[Claim, ...]] = field(default_factory=lambda: MappingProxyType({}))
    egress: Mapping[str, tuple[Claim, ...]] = field(default_factory=lambda: MappingProxyType({}))
    by_address: Mapping[Address, Claim] = field(default_factory=lambda: MappingProxyType({}))
    findings: tuple[Finding, ...] = ()
    grounds: tuple[object, ...] = field(default=(), compare=False, repr=False)
    moved: frozenset[str] | None = field(default=None, compare=False, repr=False)


def unreadable(intent: Intent) -> set[str]:
    """Return the tenants whose object is there and can not be read: stopped, but keeping numbers and addresses."""
    kind = "EgressTenant/"
    return {finding.about.removeprefix(kind) for finding in intent.refusals if finding.about.startswith(kind)}


def egress_of(tenant: EgressTenant, ledger: Ledger) -> tuple[Address, ...]:
    """Return a tenant's own egress IPs: its list, or what it was given from its pool."""
    return own_of(tenant, ledger.tenants.get(tenant.name))


def own_of(tenant: EgressTenant, allocation: Allocation | None) -> tuple[Address, ...]:
    """Return a tenant's own egress IPs, given what was allocated to it."""
    if tenant.claim is None:
        return tenant.egress_ips
    return allocation.pool_addresses if allocation else ()


def claims(
    intent: Intent, facts: Facts, ledger: Ledger, gateway: EgressGateway, before: Claims | None = None
) -> Claims:
    """Decide all claims of one gateway. A tenant with a refused address is refused whole.

    `before` is an earlier decision; what holds of it is taken over, and the result is the same as without it.
    """
    asked = intent.tenants_of(gateway)
    findings = list(without_gateway(intent))
    grounds = (gateway, intent.nodes, intent.network, unreadable(intent), facts.addresses, facts.routes)
    if before is not None and before.grounds == grounds and not (findings or before.findings):
        carried = _carried_over(asked, intent, facts, ledger, before)
        if carried is not None:
            return carried
    nics, forbidden = Nics.of(gateway, facts), Forbidden(intent, facts, gateway)
    accepted: dict[str, EgressTenant] = {}
    taken: dict[Address, Claim] = {}
    hops: dict[str, tuple[Claim, ...]] = {}
    egress: dict[str, tuple[Claim, ...]] = {}
    for tenant in sorted(asked, key=lambda t: (not _stands(t, ledger), *seniority(t))):
        wanted = tuple(_wanted(tenant, ledger, nics))
        refusal = next((r for claim in wanted if (r := _refusal(tenant, claim, taken, ledger, forbidden))), None)
        if refusal is not None:
            findings.append(refusal)
            continue
        accepted[tenant.name] = tenant
        taken.update((claim.address, claim) for claim in wanted)
        hops[tenant.name] = tuple(claim for claim in wanted if not claim.egress)
        egress[tenant.name] = tuple(claim for claim in wanted if claim.egress)
    return Claims(
        gateway=gateway,
        tenants=MappingProxyType(dict(sorted(accepted.items()))),
        next_hops=MappingProxyType(hops),
        egress=MappingProxyType(egress),
        by_address=MappingProxyType(taken),
        findings=tuple(findings),
        grounds=grounds,
    )


def _carried_over(
    asked: tuple[EgressTenant, ...], intent: Intent, facts: Facts, ledger: Ledger, before: Claims
) -> Claims | None:
    """Return an earlier decision that refused nobody, with the claims of changed tenants exchanged; None when it
    refuses one of those, because who comes first matters then.
    """
    changed = [tenant for tenant in asked if not _is_as_before(tenant, ledger, before)]
    gone = before.tenants.keys() - {tenant.name for tenant in asked}
    given_up: Iterator[tuple[Address, Resting | Retiring]] = chain(ledger.resting.items(), ledger.retiring.items())
    if any((claim := before.by_address.get(ip)) and claim.tenant != old.tenant for ip, old in given_up):
        return None
    if not changed and not gone:
        return before
    nics, forbidden = Nics.of(before.gateway, facts), Forbidden(intent, facts, before.gateway)
    fresh = {tenant.name: tuple(_wanted(tenant, ledger, nics)) for tenant in changed}
    moved = [t for t in changed if t.name not in before.tenants or fresh[t.name] != _of(before, t.name)]
    tenants = MappingProxyType(dict(sorted((tenant.name, tenant) for tenant in asked)))
    if not moved and not gone:
        return replace(before, tenants=tenants)
    hops, egress, taken = copied(before.next_hops), copied(before.egress), copied(before.by_address)
    names = frozenset((*gone, *(tenant.name for tenant in moved)))
    for name in names:
        for claim in (*hops.pop(name, ()), *egress.pop(name, ())):
            taken.pop(claim.address, None)
    for tenant in moved:
        mine = fresh[tenant.name]
        if any(_refusal(tenant, claim, taken, ledger, forbidden) for claim in mine):
            return None
        taken.update((claim.address, claim) for claim in mine)
        hops[tenant.name] = tuple(claim for claim in mine if not claim.egress)
        egress[tenant.name] = tuple(claim for claim in mine if claim.egress)
    return replace(
        before,
        tenants=tenants,
        next_hops=MappingProxyType(hops),
        egress=MappingProxyType(egress),
        by_address=MappingProxyType(taken),
        moved=names,
    )


def _of(decided: Claims, tenant: str) -> tuple[Claim, ...]:
    """Return all claims of a tenant, next hops first."""
    return (*decided.next_hops.get(tenant, ()), *decided.egress.get(tenant, ()))


def _is_as_before(tenant: EgressTenant, ledger: Ledger, before: Claims) -> bool:
    """Whether a tenant asks for exactly what it was granted in an earlier decision."""
    if before.tenants.get(tenant.name) is not tenant:
        return False
    return tenant.claim is None or _egress_wanted(tenant, ledger) == tuple(
        c.address for c in before.egress[tenant.name]
    )


@dataclass(frozen=True, slots=True)
class Nics:
    """The connected prefixes of a gateway's NICs, by role and name, in the order of the intent."""

    inner: Mapping[LinkName, tuple[Prefix, ...]]
    uplinks: Mapping[LinkName, tuple[Prefix, ...]]

    @classmethod
    def of(cls, gateway: EgressGateway, facts: Facts) -> Nics:
        """Return them as the machine shows them."""
        return cls(
            inner={inner.interface: connected(inner.interface, facts) for inner in gateway.inner},
            uplinks={uplink: connected(uplink, facts) for uplink in gateway.uplinks},
        )


def nic_for(address: Address, nics: Mapping[LinkName, tuple[Prefix, ...]]) -> LinkName:
    """Return the NIC whose connected prefix holds the address, else the first."""
    holders = (nic for nic, prefixes in nics.items() if any(address in prefix for prefix in prefixes))
    return next(holders, next(iter(nics)))


def connected(nic: LinkName, facts: Facts) -> tuple[Prefix, ...]:
    """Return the connected prefixes of a NIC, host addresses and link-local ones aside, sorted."""
    return tuple(
        sorted(
            {
                ip_network((have.address, have.prefix_len), strict=False)
                for have in facts.addresses
                if have.link == nic and have.prefix_len < have.address.max_prefixlen and not have.address.is_link_local
            },
            key=str,
        )
    )


class Forbidden:
    """Addresses that no tenant may have, with the reason."""

    def __init__(self, intent: Intent, facts: Facts, gateway: EgressGateway) -> None:
        self._intent, self._gateway = intent, gateway
        self._single: dict[Address, tuple[str, str]] = {}
        for node in intent.nodes:
            self._single.update(
                (ip, ("NodeAddress", f"it is the address of Node/{node.name}")) for ip in node.internal_ips
            )
        for have in facts.addresses:
            if have.prefix_len < have.address.max_prefixlen:
                self._single[have.address] = ("HostAddress", f"it is this machine's own address on {have.link}")
        for route in facts.routes:
            if isinstance(route.hop, Via):
                self._single[route.hop.address] = (
                    "RouterAddress",
                    f"it is the router of {route.dst} on {route.hop.link}",
                )
        for nic in (*(i.interface for i in gateway.inner), *gateway.uplinks):
            for prefix in connected(nic, facts):
                if prefix.version == 4 and prefix.prefixlen < 31:
                    self._single[prefix.network_address] = (
                        "NetworkAddress",
                        f"it is the network address of {prefix} on {nic}",
                    )
                    self._single[prefix.broadcast_address] = (
                        "BroadcastAddress",
                        f"it is the broadcast address of {prefix} on {nic}",
                    )
        network = intent.network
        inside = [*gateway.cluster_networks, *(network.cluster_networks if network else ())]
        self._ranges = [(prefix, "ClusterAddress", f"it is inside the cluster network {prefix}") for prefix in inside]
        self._ranges += [
            (p, "ServiceAddress", f"it is inside the service network {p}")
            for p in (network.service_networks if network else ())
        ]

    def reason(self, address: Address) -> tuple[str, str] | None:
        """Return the finding's reason and sentence if nobody may claim the address."""
        single = self._single.get(address)
        if single:
            return single
        return next(((reason, text) for prefix, reason, text in self._ranges if address in prefix), None)

    def strange(self, claim: Claim) -> tuple[str, str] | None:
        """Return the sentence and what to do when a tenant names a link that the gateway does not declare for that."""
        gateway = self._gateway
        inner = tuple(one.interface for one in gateway.inner)
        declared, place, role = (
            (gateway.uplinks, "spec.uplink", "uplink")
            if claim.egress
            else (inner, "spec.identity.nextHop.interface", "inner NIC")
        )
        if claim.link in declared:
            return None
        text = f"{place} is {claim.link}, which is no {role} of EgressGateway/{gateway.name}"
        return text, f"use one of: {', '.join(declared)}, or declare it there"

    def keeps_next_hop(self, holder: str, address: Address) -> bool:
        """Return whether the holder of a next hop still asks for it, or can not be read."""
        identities = (tenant.identity for tenant in self._intent.tenants if tenant.name == holder)
        asked = any(isinstance(one, NextHopIdentity) and address in one.addresses for one in identities)
        return asked or holder in unreadable(self._intent)


def seniority(tenant: EgressTenant) -> tuple[str, str, str]:
    """Return what new claims are ordered by: the oldest object first; where nobody knows its age, the name."""
    served = tenant.served
    return (served.created, served.uid, tenant.name) if served is not None else ("", "", tenant.name)


def _stands(tenant: EgressTenant, ledger: Ledger) -> bool:
    """Whether the tenant holds all its egress IPs already: a standing claim is decided before new ones."""
    mine = egress_of(tenant, ledger)
    return bool(mine) and all((h := ledger.holdings.get(ip)) is not None and h.tenant == tenant.name for ip in mine)


def _wanted(tenant: EgressTenant, ledger: Ledger, nics: Nics) -> Iterator[Claim]:
    if isinstance(tenant.identity, NextHopIdentity):
        for address in tenant.identity.addresses:
            nic = tenant.identity.interface or nic_for(address, nics.inner)
            yield Claim(address=address, tenant=tenant.name, link=nic, egress=False)
    for address in _egress_wanted(tenant, ledger):
        nic = tenant.uplink or nic_for(address, nics.uplinks)
        yield Claim(address=address, tenant=tenant.name, link=nic, egress=True)


def _egress_wanted(tenant: EgressTenant, ledger: Ledger) -> tuple[Address, ...]:
    """Return the egress IPs that a tenant needs, those for special destinations last, each once."""
    special = [ip for rule in tenant.destinations for ip in rule.egress_ips]
    own = egress_of(tenant, ledger)
    return tuple(dict.fromkeys((*own, *special))) if special else own


def _refusal(
    tenant: EgressTenant, claim: Claim, taken: Mapping[Address, Claim], ledger: Ledger, forbidden: Forbidden
) -> Finding | None:
    """Return why a tenant may not have an address, or None."""
    strange = forbidden.strange(claim)
    if strange is not None:
        return refused("LinkNotDeclared", tenant, *strange)
    what = "egress IP" if claim.egress else "next hop"
    named = f"{what} {claim.address}"
    holder = _holder(tenant, claim, taken, ledger, forbidden)
    if holder is not None:
        text = f"{named} is already held by EgressTenant/{holder}"
        return refused("AddressTaken", tenant, text, "give one of them another address")
    why = forbidden.reason(claim.address)
    if why is not None:
        return refused(why[0], tenant, f"{named} can not be used: {why[1]}", "choose an address that nobody else needs")
    rest = ledger.resting.get(claim.address)
    if rest is not None and rest.tenant != tenant.name:
        text = f"{named} was released by EgressTenant/{rest.tenant} and rests, so that nobody inherits its flows"
        return refused(
            "AddressResting", tenant, text, "wait until the quarantine is over; it is taken then without further action"
        )
    retiring = ledger.retiring.get(claim.address)
    if retiring is not None and retiring.tenant != tenant.name:
        text = f"{named} still carries live flows of EgressTenant/{retiring.tenant}, which drain"
        return refused(
            "AddressDraining", tenant, text, "wait for the drain, or set onChange: flush on the other tenant"
        )
    return None


def _holder(
    tenant: EgressTenant, claim: Claim, taken: Mapping[Address, Claim], ledger: Ledger, forbidden: Forbidden
) -> str | None:
    """Return the other tenant that was granted an address, or that keeps it.

    A holder keeps its address also while its object is changing or can not be read. An egress IP that it gives up just
    now is not free before it has rested or drained; a next hop is, since nobody outside knows it.
    """
    granted, held = taken.get(claim.address), ledger.holdings.get(claim.address)
    if granted is not None:
        return granted.tenant
    if held is None or held.tenant == tenant.name:
        return None
    return held.tenant if held.egress or forbidden.keeps_next_hop(held.tenant, claim.address) else None


def refused(reason: str, tenant: EgressTenant, text: str, fix: str) -> Finding:
    """Return the finding that a tenant is refused."""
    return Finding(reason, f"EgressTenant/{tenant.name}", text, Severity.REFUSAL, fix, tenant.origin)


def without_gateway(intent: Intent) -> Iterator[Finding]:
    """Yield the tenants that no gateway serves, with the reason."""
    known = {gateway.name for gateway in intent.gateways}
    names = ", ".join(sorted(known))
    for tenant in intent.tenants:
        if tenant.gateway is None and len(known) != 1:
            others = f"there are several: {names}" if known else "there is none"
            fix = "set spec.gateway" if known else "create an EgressGateway"
            yield refused("GatewayUnnamed", tenant, f"names no gateway, and {others}", fix)
        elif tenant.gateway is not None and tenant.gateway not in known:
            text = f"names the gateway {tenant.gateway}, which does not exist"
            fix = f"create EgressGateway/{tenant.gateway}" + (
                f" or set spec.gateway to one of: {names}" if known else ""
            )
            yield refused("GatewayUnknown", tenant, text, fix)
