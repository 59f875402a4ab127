"""How a pod's packets come to the gateway: by which next hop, on whose word.

OVN-Kubernetes hands a namespace's packets to the next hops of the AdminPolicyBasedExternalRoute that selects it. Where
the intent holds none at all, nobody told us, and the tenant that selects the pod says where its packets would come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from outgate.model.intent import EgressGateway, EgressTenant, Intent, NextHopIdentity, SourceIdentity
from outgate.model.net import Address, LinkName
from outgate.model.state import Snapshot
from outgate.trace.subject import Subject, routes_of, selecting


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """One way to the gateway: a next hop, or (None) just the link. `supposed`: nobody sends the packets here.

    `tenant` is the one that claims the next hop, or that selects the pod; empty for nobody's. `cites` are the objects
    that say so.
    """

    text: str
    link: LinkName
    next_hop: Address | None = None
    tenant: str = ""
    supposed: bool = False
    cites: tuple[str, ...] = ()


def approaches(
    snapshot: Snapshot, gateway: EgressGateway, subject: Subject, source: Address, by: Address | None
) -> Iterator[Approach]:
    """Yield the ways by which packets with this source come, in the order of the objects' names."""
    intent, inner = snapshot.intent, gateway.inner[0].interface
    tenants = snapshot.intent.tenants_of(gateway)
    if by is not None:
        yield _by_next_hop(by, "taken for granted", tenants, gateway)
        return
    routes = routes_of(intent, subject)
    found = False
    for route in routes:
        for hop in route.next_hops:
            if hop.version == source.version:
                found = True
                word = f"AdminPolicyBasedExternalRoute/{route.name}"
                yield _by_next_hop(hop, f"by {word}", tenants, gateway, cites=(word,))
    if found:
        return
    if routes:
        word = f"AdminPolicyBasedExternalRoute/{routes[0].name}"
        text = f"{word} has no IPv{source.version} next hop: the node sends these packets out itself"
        yield Approach(text=text, link=inner, supposed=True, cites=(word,))
        return
    yield from _without_route(intent, tenants, gateway, subject, source)


def claimants(tenants: tuple[EgressTenant, ...], address: Address) -> tuple[str, ...]:
    """Return the tenants that claim an address as their next hop, refused ones included."""
    return tuple(
        tenant.name
        for tenant in tenants
        if isinstance(tenant.identity, NextHopIdentity) and address in tenant.identity.addresses
    )


def _by_next_hop(
    hop: Address,
    word: str,
    tenants: tuple[EgressTenant, ...],
    gateway: EgressGateway,
    cites: tuple[str, ...] = (),
) -> Approach:
    inner = gateway.inner[0].interface
    mine = claimants(tenants, hop)
    shared = next((i.interface for i in gateway.inner if hop in i.shared_next_hops), None)
    if mine:
        whose = f"the next hop of EgressTenant/{mine[0]}"
    elif shared is not None:
        whose = f"shared by source-identity tenants on {shared}"
    else:
        whose = f"nobody's on {gateway.name}"
    tenant = mine[0] if mine else ""
    return Approach(
        text=f"{word}: next hop {hop}, {whose}", link=shared or inner, next_hop=hop, tenant=tenant, cites=cites
    )


def _without_route(
    intent: Intent, tenants: tuple[EgressTenant, ...], gateway: EgressGateway, subject: Subject, source: Address
) -> Iterator[Approach]:
    """Yield the ways that remain when no external route selects the namespace."""
    inner = gateway.inner[0].interface
    told = bool(intent.external_routes) and subject.pod is not None
    nobody = (
        "no AdminPolicyBasedExternalRoute selects its namespace"
        if told
        else "no AdminPolicyBasedExternalRoute is known"
    )
    mine = selecting(tenants, subject) if subject.pod is not None else ()
    for tenant in mine:
        cites = (f"EgressTenant/{tenant.name}",)
        if isinstance(tenant.identity, NextHopIdentity):
            for hop in tenant.identity.addresses:
                if hop.version == source.version:
                    text = f"{nobody}; EgressTenant/{tenant.name} selects it, with the next hop {hop}"
                    yield Approach(text=text, link=inner, next_hop=hop, tenant=tenant.name, supposed=told, cites=cites)
        else:
            text = f"{nobody}; EgressTenant/{tenant.name} selects it by its source"
            yield Approach(text=text, link=inner, tenant=tenant.name, supposed=told, cites=cites)
    if mine:
        return
    listed = [
        t.name for t in tenants if isinstance(t.identity, SourceIdentity) and any(source in c for c in t.identity.cidrs)
    ]
    text = f"{nobody}" if subject.pod is not None else f"supposed to come by {inner}"
    yield Approach(
        text=text + (f"; EgressTenant/{listed[0]} lists its source" if listed else ""),
        link=inner,
        tenant=listed[0] if listed else "",
        supposed=told,
    )
