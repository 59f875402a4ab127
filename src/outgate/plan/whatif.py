"""What would change if EgressIPs were routed another way: by other semantics, or in the other gateway mode.

An egress node's routes divide the destinations into ranges within which every decision is the same; one address of each
is asked about, for one pod on the egress node and one elsewhere. So 10,000 pods cost no more than two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from outgate.model.egress_ip import ClusterView, Decision, Shift
from outgate.model.host_table import FIRST_TABLE, HostTables
from outgate.model.intent import EgressIP, Node, Pod
from outgate.model.net import MAIN, Address, Prefix
from outgate.model.nics import GatewayMode
from outgate.model.routing import Routing
from outgate.plan.egress_ip import Asked, EgressNodeFacts, decide_alone, hosting_nic
from outgate.plan.routing import Routings
from outgate.plan.selection import NamespaceIndex, PodIndex
from outgate.plan.source_ranges import lies_in

_ANYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_FIRST = {4: int(ip_address("1.0.0.1")), 6: int(ip_address("2000::1"))}  # of anywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What is tried: another routing of all EgressIPs, and another gateway mode of all nodes. None: as they are."""

    routing: Routing | None = None
    mode: GatewayMode | None = None


def shifts(view: ClusterView, other: Other, before: Other | None = None) -> tuple[Shift, ...]:
    """Return what changes, by EgressIP, address and range; nothing where all stays. Without `before`, compared is with
    the view's own routing and each node's own mode.

    Nodes without a snapshot are left out: `unread` names them.
    """
    was = before or Other(routing=view.routing)
    settings = Routings.of(view.intent)
    nodes = {
        one.name: _Node.of(one, view, settings, (was, other)) for one in view.intent.nodes if one.name in view.hosts
    }
    found: list[Shift] = []
    for egress_ip, pods in _served(view):
        for name, address in egress_ip.assigned:
            if name in nodes:
                found += _together(nodes[name].shifts(egress_ip, address, pods))
    return tuple(found)


def _served(view: ClusterView) -> Iterator[tuple[EgressIP, tuple[Pod, ...]]]:
    """Yield the EgressIPs by name with the pods that each serves: of two that select a pod, the first."""
    index, pods_in = NamespaceIndex(view.intent.namespaces), PodIndex(view.intent.pods)
    taken: set[tuple[str, str]] = set()
    for egress_ip in sorted(view.intent.egress_ips, key=lambda one: one.name):
        pods = pods_in.of(index.select(egress_ip.namespace_selector), egress_ip.pod_selector)
        mine = tuple(pod for pod in pods if (pod.namespace, pod.name) not in taken)
        taken |= {(pod.namespace, pod.name) for pod in mine}
        yield egress_ip, mine


def _together(groups: Iterable[Iterable[Shift]]) -> Iterable[Shift]:
    """Return the shifts of groups of pods, with those joined that fare alike."""
    joined: dict[object, Shift] = {}
    for group in groups:
        for one in group:
            key = (_ways(one), one.destinations)
            joined[key] = one if key not in joined else replace(joined[key], pods=joined[key].pods + one.pods)
    return joined.values()


def _ways(shift: Shift) -> object:
    return (shift.changes, _way(shift.before), _way(shift.after))


def _way(decision: Decision) -> object:
    return (decision.path, decision.hops, decision.source, decision.place, decision.offload.possible)


def unread(view: ClusterView) -> tuple[str, ...]:
    """Return the nodes that have an egress IP and whose routes are not known."""
    names = {name for one in view.intent.egress_ips for name, _ in one.assigned}
    return tuple(sorted(names - set(view.hosts)))


def ranges(host: HostTables, version: int, inside: Sequence[Prefix]) -> Iterator[tuple[Prefix, Address]]:
    """Yield the prefixes that a host's main table and its NICs' own tables tell apart, each with an address that is in
    no longer one of them. Those that lie in the cluster's own networks are left out.
    """
    told = {_ANYWHERE[version]}
    for route in host.routes:
        if route.dst.version == version and (route.table == MAIN or route.table >= FIRST_TABLE):
            told.add(route.dst)
    every = sorted(told, key=lambda one: (int(one.network_address), one.prefixlen))
    for number, prefix in enumerate(every):
        own = prefix.is_multicast or prefix.is_link_local or any(lies_in(prefix, one) for one in inside)
        address = None if own else _alone_in(prefix, every[number + 1 :])
        if address is not None:
            yield prefix, address


def _alone_in(prefix: Prefix, later: Sequence[Prefix]) -> Address | None:
    """Return an address of a prefix that none of the following ones holds; None when they fill it."""
    last = int(prefix.broadcast_address)
    first = (
        _FIRST[prefix.version] if prefix.prefixlen == 0 else int(prefix.network_address) + (prefix.num_addresses > 1)
    )
    for inner in later:
        if int(inner.network_address) > first:
            break
        first = max(first, int(inner.broadcast_address) + 1)
    kind = type(prefix.network_address)
    return kind(first) if first <= last else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """One egress node, as it is and as it would be."""

    before: EgressNodeFacts
    after: EgressNodeFacts
    inside: tuple[Prefix, ...]
    settings: Routings
    routing: Routing | None
    other: Routing | None
    groups: dict[object, list[list[tuple[Prefix, Address]]]] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node, view: ClusterView, settings: Routings, tried: tuple[Other, Other]) -> _Node:
        was, other = tried
        facts = EgressNodeFacts.of(node, view.hosts[node.name])
        network = view.intent.network
        inside = (*network.cluster_networks, *network.service_networks) if network is not None else ()
        return cls(
            before=replace(facts, node=replace(node, mode=was.mode or node.mode)),
            after=replace(facts, node=replace(node, mode=other.mode or node.mode)),
            inside=(*inside, *(subnet.prefix for each in view.intent.nodes for subnet in each.subnets)),
            settings=settings,
            routing=was.routing,
            other=other.routing,
        )

    def shifts(self, egress_ip: EgressIP, address: Address, pods: tuple[Pod, ...]) -> Iterator[Iterator[Shift]]:
        """Yield what changes for an address on this node: for pods here, and for those elsewhere."""
        of_family = [(pod.node, one) for pod in pods for one in pod.addresses if one.version == address.version]
        for is_here in (True, False):
            alike = [one for node, one in of_family if (node == self.before.node.name) is is_here]
            if alike:
                yield self._of_pods(egress_ip, address, alike, is_here=is_here)

    def _of_pods(self, egress_ip: EgressIP, address: Address, pods: list[Address], *, is_here: bool) -> Iterator[Shift]:
        """Yield a shift for each group of ranges that fare alike. Which do is the same for all addresses on one NIC."""
        routings = (self.routing or self.settings[egress_ip.name], self.other or self.settings[egress_ip.name])
        key = (hosting_nic(address, self.before.networks), is_here, address.version, routings)
        asked = Asked(egress_ip=address, pod=pods[0], pod_is_here=is_here, destination=address)
        if key not in self.groups:
            by_way: dict[object, list[tuple[Prefix, Address]]] = {}
            for prefix, at in ranges(self.before.host, address.version, self.inside):
                before, after = self._decisions(replace(asked, destination=at), routings)
                by_way.setdefault((_way(before), _way(after), before.arrives, after.arrives), []).append((prefix, at))
            self.groups[key] = list(by_way.values())
        for some in self.groups[key]:
            before, after = self._decisions(replace(asked, destination=some[0][1]), routings)
            shift = Shift(
                egress_ip=egress_ip.name,
                address=address,
                destinations=tuple(prefix for prefix, _ in some),
                pods=len(pods),
                before=before,
                after=after,
            )
            if shift.changes:
                yield shift

    def _decisions(self, asked: Asked, routings: tuple[Routing, Routing]) -> tuple[Decision, Decision]:
        return decide_alone(asked, self.before, routings[0]), decide_alone(asked, self.after, routings[1])
