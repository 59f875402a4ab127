"""How a tenant's pods are sent to its gateway: an AdminPolicyBasedExternalRoute for each that selects namespaces.

A tenant told by next hop has its own next hops; one told by source shares those of its gateway. The route is made also
for a tenant that is refused: its packets are stopped at the gateway then, and do not leave by their node. Where a user
has written a route for a namespace, or one of that name, nothing is made, and the two are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from outgate.model.intent import EgressTenant, ExternalRoute, Intent, NextHopIdentity
from outgate.model.net import Address
from outgate.model.why import Finding, Severity
from outgate.plan.selection import NamespaceIndex

PREFIX = "outgate-"
_LONGEST_NAME = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """The routes that tenants want, by name; those of ours that nobody wants now; and what users' own get wrong."""

    wants: Mapping[str, ExternalRoute]
    gone: tuple[ExternalRoute, ...]
    findings: tuple[Finding, ...] = ()


def routes_to_gateways(intent: Intent) -> Routed:
    """Decide for all tenants of a cluster."""
    namespaces = NamespaceIndex(intent.namespaces)
    theirs = [
        (route, frozenset(namespaces.select(route.namespace_selector)))
        for route in intent.external_routes
        if not route.is_ours
    ]
    wants: dict[str, ExternalRoute] = {}
    findings = []
    for tenant in intent.tenants:
        hops = _hops(tenant, intent)
        if tenant.namespace_selector is None or not hops or len(PREFIX + tenant.name) > _LONGEST_NAME:
            continue
        mine = frozenset(namespaces.select(tenant.namespace_selector))
        name = PREFIX + tenant.name
        written = [route for route, selected in theirs if selected & mine or route.name == name]
        if not written:
            wants[name] = ExternalRoute(
                name=name, namespace_selector=tenant.namespace_selector, next_hops=hops, is_ours=True
            )
        elsewhere = next((route for route in written if not set(route.next_hops) & set(hops)), None)
        if elsewhere is not None:
            findings.append(_elsewhere(tenant, elsewhere, hops))
    gone = tuple(route for route in intent.external_routes if route.is_ours and route.name not in wants)
    return Routed(wants=MappingProxyType(wants), gone=gone, findings=tuple(findings))


def _hops(tenant: EgressTenant, intent: Intent) -> tuple[Address, ...]:
    if isinstance(tenant.identity, NextHopIdentity):
        return tenant.identity.addresses
    gateway = intent.gateway_of(tenant)
    return tuple(hop for inner in gateway.inner for hop in inner.shared_next_hops) if gateway is not None else ()


def _elsewhere(tenant: EgressTenant, route: ExternalRoute, hops: tuple[Address, ...]) -> Finding:
    goes, wanted = (", ".join(map(str, some)) or "nowhere" for some in (route.next_hops, hops))
    text = f"AdminPolicyBasedExternalRoute/{route.name} sends its namespaces to {goes}, and its next hop is {wanted}"
    fix = f"let the route lead to {wanted}, or delete it: then one is made for the tenant"
    return Finding("RoutedElsewhere", f"EgressTenant/{tenant.name}", text, Severity.WARNING, fix, tenant.origin)
