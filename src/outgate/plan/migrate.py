"""From openshift-sdn's egress IPs to EgressIPs, and what becomes of them under which setting.

openshift-sdn translated by a mark, whatever link a packet left by: the host's routes decided. In outgate's words that
is local gateway mode with semantics `auto`, all of it by the host. Its nodes bear no notes of OVN-Kubernetes; what
those would be is read off their routes: the NIC of the default route becomes br-ex.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from outgate.model.egress_ip import ClusterView, Shift
from outgate.model.host_table import HostTables
from outgate.model.intent import EgressIP, Intent, Node
from outgate.model.net import MAIN, Address, Discard, LinkName, OnLink, Route, Via
from outgate.model.nics import GatewayMode
from outgate.model.routing import Routing, Semantics, Stance
from outgate.model.sdn import Sdn
from outgate.model.selector import LabelSelector
from outgate.model.why import Finding, Severity
from outgate.plan.egress_ip import BRIDGE
from outgate.plan.ground import network_for
from outgate.plan.whatif import Other, shifts

_NAME = "kubernetes.io/metadata.name"
_AUTO = Routing(semantics=Semantics.AUTO)
AS_SDN = Other(routing=replace(_AUTO, stance=Stance.OWN), mode=GatewayMode.LOCAL)
SETTINGS = {
    "local gateway mode, OVN-Kubernetes alone": Other(routing=Routing(), mode=GatewayMode.LOCAL),
    "shared gateway mode, OVN-Kubernetes alone": Other(routing=Routing(), mode=GatewayMode.SHARED),
    "local gateway mode, semantics auto": Other(routing=_AUTO, mode=GatewayMode.LOCAL),
    "shared gateway mode, semantics auto, honorHostRoutes": Other(
        routing=replace(_AUTO, honor_host_routes=True), mode=GatewayMode.SHARED
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """The EgressIPs that say what openshift-sdn's objects said, the nodes that need the label, and what is lost."""

    egress_ips: tuple[EgressIP, ...]
    nodes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def migrate(sdn: Sdn, intent: Intent) -> Migrated:
    """Return the EgressIPs: one for each namespace that has addresses, on the nodes that have them now. An address that
    two namespaces share stays with the first by name.
    """
    holders = {address: host.host for host in sdn.hosts for address in host.egress_ips}
    made: list[EgressIP] = []
    taken: set[Address] = set()
    for one in sorted(sdn.namespaces, key=lambda one: one.name):
        mine = tuple(address for address in one.egress_ips if address not in taken)
        taken |= set(mine)
        if mine:
            made.append(
                EgressIP(
                    name=one.name,
                    egress_ips=mine,
                    namespace_selector=LabelSelector(((_NAME, one.name),)),
                    assigned=tuple((holders[address], address) for address in mine if address in holders),
                    origin=one.origin,
                )
            )
    return Migrated(
        egress_ips=tuple(made),
        nodes=tuple(sorted({host.host for host in sdn.hosts if host.egress_ips or host.egress_cidrs})),
        findings=tuple(_findings(sdn, intent, holders)),
    )


def as_with_ovn(view: ClusterView) -> ClusterView:
    """Return a view of openshift-sdn's nodes as OVN-Kubernetes would have them: the NIC of the default route is br-ex,
    its networks are the primary ones, and its routers the gateway router's.
    """
    nodes, hosts = [], dict(view.hosts)
    for node in view.intent.nodes:
        host = view.hosts.get(node.name)
        default = _default_of(host) if host is not None and not node.primary else None
        if host is None or default is None:
            nodes.append(node)
            continue
        routes = frozenset(_moved(route, default.link) for route in host.routes)
        near = [one for one in routes if one.hop == OnLink(link=BRIDGE) and one.table == MAIN and one.dst.prefixlen]
        hops = [one.hop.address for one in routes if one.dst.prefixlen == 0 and isinstance(one.hop, Via)]
        links = {BRIDGE if name == default.link else name: link for name, link in host.links.items()}
        hosts[node.name] = replace(host, routes=routes, links=MappingProxyType(links))
        primary = tuple(sorted((one.dst for one in near if not one.dst.is_link_local), key=str))
        nodes.append(replace(node, primary=primary, next_hops=tuple(sorted(hops, key=str)), assignable=True))
    return replace(view, intent=replace(view.intent, nodes=tuple(nodes)), hosts=MappingProxyType(hosts))


def _default_of(host: HostTables) -> Via | None:
    """Return the next hop of the main table's best default route."""
    found = [one for one in host.routes if one.table == MAIN and one.dst.prefixlen == 0 and isinstance(one.hop, Via)]
    best = min(found, key=lambda one: (one.metric, str(one)), default=None)
    return best.hop if best is not None and isinstance(best.hop, Via) else None


def _moved(route: Route, link: LinkName) -> Route:
    """Return a route by br-ex in the place of a NIC."""
    if isinstance(route.hop, Discard) or route.hop.link != link:
        return route
    return replace(route, hop=replace(route.hop, link=BRIDGE))


def report(view: ClusterView, before: Other) -> dict[str, tuple[Shift, ...]]:
    """Return what goes another way, or as somebody else, under each setting. By which stack it goes is not counted:
    the world outside does not see that.
    """
    return {
        name: tuple(one for one in shifts(view, setting, before) if _is_seen_outside(one))
        for name, setting in SETTINGS.items()
    }


def _is_seen_outside(shift: Shift) -> bool:
    before, after = shift.before, shift.after
    return (before.hops, before.source, before.arrives) != (after.hops, after.source, after.arrives)


def _findings(sdn: Sdn, intent: Intent, holders: dict[Address, str]) -> Iterator[Finding]:
    nodes = {node.name: node for node in intent.nodes}
    owner: dict[Address, str] = {}
    for one in sorted(sdn.namespaces, key=lambda each: each.name):
        about = f"NetNamespace/{one.name}"
        for address in one.egress_ips:
            first = owner.setdefault(address, one.name)
            if first != one.name:
                text = f"{address} is shared with namespace {first}; an address belongs to one EgressIP"
                fix = "let one EgressIP select both namespaces"
                yield Finding("AddressShared", about, text, Severity.REFUSAL, fix, one.origin)
            host = holders.get(address)
            if host is None:
                text = f"no HostSubnet has {address}: its pods do not leave today"
                yield Finding("NoHostHasIt", about, text, Severity.WARNING, "give it a node", one.origin)
            elif host in nodes and _is_known(nodes[host]) and network_for(address, nodes[host]) is None:
                text = (
                    f"{address} is in no network of {host}; openshift-sdn did not ask, OVN-Kubernetes takes none such"
                )
                fix = "use an address of a network that the node is in"
                yield Finding("NoNetworkHoldsIt", about, text, Severity.REFUSAL, fix, one.origin)


def _is_known(node: Node) -> bool:
    """Whether anything is known of a node's networks."""
    return bool(node.primary or node.host_cidrs)
