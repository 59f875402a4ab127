"""Checks of what the cluster sends here, and of who else has our addresses."""

from __future__ import annotations

from collections import defaultdict

from outgate.model.intent import ExternalRoute, NextHopIdentity, SourceIdentity
from outgate.model.net import Address
from outgate.plan.claims import connected
from outgate.plan.doctor.seen import Seen, Troubles, fail, listed, warn
from outgate.plan.selection import NamespaceIndex


def strange_next_hops(seen: Seen) -> Troubles:
    """Name external routes whose next hop is on our LAN, and nobody's."""
    known = _next_hops(seen)
    prefixes = [prefix for nic in seen.inner for prefix in connected(nic, seen.snapshot.facts)]
    own = {have.address: have.link for have in seen.snapshot.facts.addresses}
    index = NamespaceIndex(seen.snapshot.intent.namespaces)
    for route in seen.snapshot.intent.external_routes:
        for hop in route.next_hops:
            if hop in known or not any(hop in prefix for prefix in prefixes):
                continue
            about, who = _about(route), listed(index.select(route.namespace_selector)) or "no namespace yet"
            if hop in own and hop not in _adopted(seen):
                text = f"its next hop {hop} is this machine's own address on {own[hop]}: pods of {who} are refused"
                yield fail(about, text, "name a tenant's next hop, or list it in spec.inner[].sharedNextHops")
            else:
                text = f"its next hop {hop} is no tenant's: pods of {who} are not served here"
                yield warn(about, text, f"create an EgressTenant with nextHop {hop}, if no other machine has it")


def unused_tenants(seen: Seen) -> Troubles:
    """Name source-identity tenants whose traffic the cluster does not send here."""
    intent = seen.snapshot.intent
    shared = {hop for nic in seen.gateway.inner for hop in nic.shared_next_hops}
    index = NamespaceIndex(intent.namespaces)
    sent = {
        name
        for route in intent.external_routes
        if shared & set(route.next_hops)
        for name in index.select(route.namespace_selector)
    }
    for tenant in intent.tenants if intent.external_routes else ():
        if not isinstance(tenant.identity, SourceIdentity) or tenant.namespace_selector is None:
            continue
        missing = [name for name in index.select(tenant.namespace_selector) if name not in sent]
        if missing:
            text = (
                f"no external route sends {listed(missing)} to a shared next hop ({listed(shared) or 'there is none'})"
            )
            fix = "add them to an AdminPolicyBasedExternalRoute with that next hop"
            yield warn(f"EgressTenant/{tenant.name}", text, fix)


def routed_and_egress_ip(seen: Seen) -> Troubles:
    """Name namespaces that an external route and an EgressIP both select: OVN-Kubernetes obeys the route, and deletes
    the translations of such pods; in shared gateway mode that is so on the pod's own node alone. Who wins for which pod
    `outgate egressip list` says, which knows pods and modes (`plan.rivals`).
    """
    intent = seen.snapshot.intent
    index = NamespaceIndex(intent.namespaces)
    routes: dict[str, list[ExternalRoute]] = defaultdict(list)
    for route in intent.external_routes if intent.egress_ips else ():
        for name in index.select(route.namespace_selector):
            routes[name].append(route)
    for egress_ip in intent.egress_ips:
        both: dict[str, list[str]] = defaultdict(list)
        for name in index.select(egress_ip.namespace_selector):
            for route in routes.get(name, ()):
                both[_about(route)].append(name)
        for route_name, names in both.items():
            text = (
                f"{listed(names)} have it and {route_name}: the route wins (in shared gateway mode on the egress node)"
            )
            yield warn(f"EgressIP/{egress_ip.name}", text, "take the namespaces out of one of the two")


def _next_hops(seen: Seen) -> set[Address]:
    """Return every next hop that some gateway of this intent serves."""
    intent = seen.snapshot.intent
    shared = {hop for gateway in intent.gateways for nic in gateway.inner for hop in nic.shared_next_hops}
    identities = [tenant.identity for tenant in intent.tenants]
    return shared | {hop for one in identities if isinstance(one, NextHopIdentity) for hop in one.addresses}


def _adopted(seen: Seen) -> set[Address]:
    """Return the addresses of links under adoption."""
    return {have.address for have in seen.snapshot.facts.addresses if have.link in seen.snapshot.ledger.adopting}


def _about(route: ExternalRoute) -> str:
    return f"AdminPolicyBasedExternalRoute/{route.name}"
