"""Which tenant may hold which address on this gateway, decided once for everybody: planner, allocator, explain.

A standing holder wins, then the first by name; the loser is refused with the winner's name and stays fail closed. An
address that the machine, a node, the cluster or the LAN needs is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from types import MappingProxyType

from outgate.model.intent import EgressGateway, EgressTenant, Intent, NextHopIdentity
from outgate.model.ledger import Ledger
from outgate.model.net import Address, LinkName, Prefix, Via
from outgate.model.state import Facts
from outgate.model.why import Finding, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One address that a tenant holds or waits for. `link` is the NIC on which neighbours find it."""

    address: Address
    tenant: str
    link: LinkName
    egress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The accepted tenants of this gateway with their addresses, in the order the user wrote them, and what was
    refused.
    """

    gateway: EgressGateway
    tenants: Mapping[str, EgressTenant]
    next_hops: Mapping[str, tuple[Claim, ...]] = field(default_factory=lambda: MappingProxyType({}))
    egress: Mapping[str, tuple[Claim, ...]] = field(default_factory=lambda: MappingProxyType({}))
    by_address: Mapping[Address, Claim] = field(default_factory=lambda: MappingProxyType({}))
    findings: tuple[Finding, ...] = ()


def tenants_of(intent: Intent, gateway: EgressGateway) -> tuple[EgressTenant, ...]:
    """Return the tenants of one gateway: those that name it, or name none while there is only one."""
    only = len(intent.gateways) == 1
    return tuple(t for t in intent.tenants if t.gateway == gateway.name or (t.gateway is None and only))


def egress_of(tenant: EgressTenant, ledger: Ledger) -> tuple[Address, ...]:
    """Return a tenant's own egress IPs: its list, or what it was given from its pool."""
    if tenant.claim is None:
        return tenant.egress_ips
    allocation = ledger.tenants.get(tenant.name)
    return allocation.pool_addresses if allocation else ()


def claims(intent: Intent, facts: Facts, ledger: Ledger, gateway: EgressGateway) -> Claims:
    """Decide all claims of one gateway. A tenant with a refused address is refused whole."""
    forbidden = Forbidden(intent, facts, gateway)
    accepted: dict[str, EgressTenant] = {}
    taken: dict[Address, Claim] = {}
    hops: dict[str, tuple[Claim, ...]] = {}
    egress: dict[str, tuple[Claim, ...]] = {}
    findings = list(_without_gateway(intent))
    for tenant in sorted(tenants_of(intent, gateway), key=lambda t: (not _stands(t, ledger), t.name)):
        wanted = tuple(_wanted(tenant, facts, ledger, gateway))
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
    )


def nic_for(address: Address, nics: tuple[LinkName, ...], facts: Facts) -> LinkName:
    """Return the NIC whose connected prefix holds the address, else the first."""
    holders = (nic for nic in nics if any(address in prefix for prefix in connected(nic, facts)))
    return next(holders, nics[0])


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


def _stands(tenant: EgressTenant, ledger: Ledger) -> bool:
    """Whether the tenant holds all its egress IPs already: a standing claim is decided before new ones."""
    mine = egress_of(tenant, ledger)
    return bool(mine) and all((h := ledger.holdings.get(ip)) is not None and h.tenant == tenant.name for ip in mine)


def _wanted(tenant: EgressTenant, facts: Facts, ledger: Ledger, gateway: EgressGateway) -> Iterator[Claim]:
    inner = tuple(i.interface for i in gateway.inner)
    if isinstance(tenant.identity, NextHopIdentity):
        for address in tenant.identity.addresses:
            nic = tenant.identity.interface or nic_for(address, inner, facts)
            yield Claim(address=address, tenant=tenant.name, link=nic, egress=False)
    special = (ip for rule in tenant.destinations for ip in rule.egress_ips)
    for address in dict.fromkeys((*egress_of(tenant, ledger), *special)):
        nic = tenant.uplink or nic_for(address, gateway.uplinks, facts)
        yield Claim(address=address, tenant=tenant.name, link=nic, egress=True)


def _refusal(
    tenant: EgressTenant, claim: Claim, taken: Mapping[Address, Claim], ledger: Ledger, forbidden: Forbidden
) -> Finding | None:
    """Return why a tenant may not have an address, or None."""
    what = "egress IP" if claim.egress else "next hop"
    named = f"{what} {claim.address}"
    holder = taken.get(claim.address)
    if holder is not None:
        text = f"{named} is already held by EgressTenant/{holder.tenant}"
        return _refused("AddressTaken", tenant, text, "give one of them another address")
    why = forbidden.reason(claim.address)
    if why is not None:
        return _refused(
            why[0], tenant, f"{named} can not be used: {why[1]}", "choose an address that nobody else needs"
        )
    rest = ledger.resting.get(claim.address)
    if rest is not None and rest.tenant != tenant.name:
        text = f"{named} was released by EgressTenant/{rest.tenant} and rests, so that nobody inherits its flows"
        return _refused(
            "AddressResting", tenant, text, "wait until the quarantine is over; it is taken then without further action"
        )
    retiring = ledger.retiring.get(claim.address)
    if retiring is not None and retiring.tenant != tenant.name:
        text = f"{named} still carries live flows of EgressTenant/{retiring.tenant}, which drain"
        return _refused(
            "AddressDraining", tenant, text, "wait for the drain, or set onChange: flush on the other tenant"
        )
    return None


def _refused(reason: str, tenant: EgressTenant, text: str, fix: str) -> Finding:
    return Finding(reason, f"EgressTenant/{tenant.name}", text, Severity.REFUSAL, fix, tenant.origin)


def _without_gateway(intent: Intent) -> Iterator[Finding]:
    known = {gateway.name for gateway in intent.gateways}
    for tenant in intent.tenants:
        if tenant.gateway is None and len(known) > 1:
            text = f"names no gateway, and there are several: {', '.join(sorted(known))}"
            yield _refused("GatewayUnnamed", tenant, text, "set spec.gateway")
        elif tenant.gateway is not None and tenant.gateway not in known:
            text = f"names the gateway {tenant.gateway}, which does not exist"
            yield _refused(
                "GatewayUnknown",
                tenant,
                text,
                f"create EgressGateway/{tenant.gateway} or set spec.gateway to one of: {', '.join(sorted(known))}",
            )
