"""Several clusters as one intent: every name begins with its cluster's, and selectors see their own cluster alone.

`ns-blue` of the cluster `east` is `east.ns-blue`. An EgressGateway is one machine for all of them: its NICs stand in
the first cluster's object, and what it protects is what any of them says. A pod range that two clusters share is a
conflict: the cluster that was named first keeps it, and the other one's nodes there get no route, so that their pods
are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any, TypeVar

from outgate.model.intent import (
    ClusterNetwork,
    EgressGateway,
    EgressPool,
    EgressTenant,
    Intent,
    Namespace,
    Node,
    NodeSubnet,
    Pod,
)
from outgate.model.net import Prefix
from outgate.model.selector import LabelSelector
from outgate.model.why import Finding, Severity

LABEL = "outgate.io/cluster"  # of namespaces here, and in selectors; no object in a cluster bears it
_Named = TypeVar("_Named")


@dataclass(slots=True)
class Together:
    """Joins the intents of clusters, and remembers what it made: an object that did not change keeps its very value."""

    _made: dict[tuple[str, int], tuple[object, Any]] = field(default_factory=dict)
    _joined: tuple[Mapping[str, Intent], Intent] | None = None

    def join(self, intents: Mapping[str, Intent]) -> Intent:
        """Return all that is asked, by clusters in their order; the very same value while each of them is."""
        if self._joined is not None and all(intents[name] is one for name, one in self._joined[0].items()):
            return self._joined[1]
        before, self._made = self._made, {}

        def named(cluster: str, given: _Named, change: Callable[[str, _Named], _Named]) -> _Named:
            key = cluster, id(given)
            held = before.get(key)
            made = held if held is not None and held[0] is given else (given, change(cluster, given))
            self._made[key] = made
            found: _Named = made[1]
            return found

        def every(attribute: str, change: Callable[[str, Any], Any]) -> tuple[Any, ...]:
            return tuple(
                named(cluster, one, change) for cluster, intent in intents.items() for one in getattr(intent, attribute)
            )

        nodes, conflicts = _apart(every("nodes", _node), intents)
        joined = Intent(
            gateways=tuple(_gateways(intents)),
            tenants=every("tenants", _tenant),
            pools=every("pools", _pool),
            nodes=nodes,
            namespaces=every("namespaces", _namespace),
            pods=every("pods", _pod),
            pods_known=all(one.pods_known for one in intents.values()),
            network=_network(intents.values()),
            external_routes=every("external_routes", _selecting),
            egress_ips=every("egress_ips", _selecting),
            refusals=(
                *conflicts,
                *(_refusal(cluster, one) for cluster, intent in intents.items() for one in intent.refusals),
            ),
        )
        self._joined = dict(intents), joined
        return joined


def cluster_of(name: str) -> tuple[str, str]:
    """Return the cluster and the name there of an object's name; a cluster's name has no dot."""
    cluster, _, own = name.partition(".")
    return cluster, own


def _full(cluster: str, name: str) -> str:
    return f"{cluster}.{name}"


def _only(cluster: str, selector: LabelSelector) -> LabelSelector:
    if selector.empty:
        return selector  # it selects nothing, and shall go on doing so
    return replace(selector, match_labels=tuple(sorted((*selector.match_labels, (LABEL, cluster)))))


def _tenant(cluster: str, one: EgressTenant) -> EgressTenant:
    return replace(
        one,
        name=_full(cluster, one.name),
        namespace_selector=_only(cluster, one.namespace_selector) if one.namespace_selector is not None else None,
        claim=replace(one.claim, pool=_full(cluster, one.claim.pool)) if one.claim is not None else None,
    )


def _pool(cluster: str, one: EgressPool) -> EgressPool:
    allowed = one.allowed_namespaces
    return replace(
        one, name=_full(cluster, one.name), allowed_namespaces=_only(cluster, allowed) if allowed is not None else None
    )


def _node(cluster: str, one: Node) -> Node:
    return replace(one, name=_full(cluster, one.name))


def _namespace(cluster: str, one: Namespace) -> Namespace:
    return replace(one, name=_full(cluster, one.name), labels=tuple(sorted((*one.labels, (LABEL, cluster)))))


def _pod(cluster: str, one: Pod) -> Pod:
    node = _full(cluster, one.node) if one.node else ""
    return replace(one, namespace=_full(cluster, one.namespace), node=node)


def _selecting(cluster: str, one: Any) -> Any:
    return replace(one, name=_full(cluster, one.name), namespace_selector=_only(cluster, one.namespace_selector))


def _refusal(cluster: str, one: Finding) -> Finding:
    kind, slash, rest = one.about.partition("/")
    return replace(one, about=f"{kind}/{_full(cluster, rest)}" if slash else _full(cluster, kind))


def _gateways(intents: Mapping[str, Intent]) -> Iterator[EgressGateway]:
    found: dict[str, EgressGateway] = {}
    served: dict[str, list[Any]] = {}
    for cluster, intent in intents.items():
        for one in intent.gateways:
            if one.served is not None:
                served.setdefault(one.name, []).append((cluster, one.served))
            first = found.setdefault(one.name, one)
            found[one.name] = replace(
                first,
                cluster_networks=_union(first.cluster_networks, one.cluster_networks),
                bypass=_union(first.bypass, one.bypass),
            )
    return (replace(one, served_by=tuple(served.get(name, ()))) for name, one in found.items())


def _network(intents: Iterable[Intent]) -> ClusterNetwork | None:
    networks = [one.network for one in intents if one.network is not None]
    if not networks:
        return None
    return replace(
        networks[0],
        cluster_networks=_union(*(one.cluster_networks for one in networks)),
        service_networks=_union(*(one.service_networks for one in networks)),
    )


def _union(*ranges: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    return tuple(dict.fromkeys(prefix for some in ranges for prefix in some))


def _apart(nodes: tuple[Node, ...], intents: Mapping[str, Intent]) -> tuple[tuple[Node, ...], list[Finding]]:
    """Return the nodes without subnets that lie in another, earlier cluster's, and a conflict for each of these."""
    rank = {cluster: number for number, cluster in enumerate(intents)}
    places = [(subnet.prefix, node, subnet) for node in nodes for subnet in node.subnets]
    places.sort(key=lambda one: (one[0].version, int(one[0].network_address), one[0].prefixlen))
    lost: dict[str, set[NodeSubnet]] = {}
    conflicts = []
    open_: list[tuple[Prefix, Node]] = []  # subnets that hold the place where the sweep is, widest first
    for prefix, node, subnet in places:
        while open_ and not _covers(open_[-1][0], prefix):
            open_.pop()
        mine = cluster_of(node.name)[0]
        for wide, other in open_:
            theirs = cluster_of(other.name)[0]
            if theirs == mine:
                continue
            loser, winner = (node, other) if rank[mine] > rank[theirs] else (other, node)
            gone = subnet if loser is node else next(one for one in other.subnets if one.prefix == wide)
            if gone not in lost.setdefault(loser.name, set()):
                lost[loser.name].add(gone)
                conflicts.append(_conflict(loser, gone, winner))
        open_.append((prefix, node))
    if not lost:
        return nodes, conflicts
    kept = (
        replace(one, subnets=tuple(s for s in one.subnets if s not in lost[one.name])) if one.name in lost else one
        for one in nodes
    )
    return tuple(kept), conflicts


def _covers(wide: Prefix, prefix: Prefix) -> bool:
    return wide.version == prefix.version and ip_network(prefix).network_address in wide


def _conflict(loser: Node, subnet: NodeSubnet, winner: Node) -> Finding:
    text = f"its pods' range {subnet.prefix} is also that of Node/{winner.name}, whose cluster was named first"
    fix = "a gateway can serve both clusters only when their pod ranges differ; give one of them a gateway of its own"
    return Finding("ClustersOverlap", f"Node/{loser.name}", text, Severity.REFUSAL, fix, loser.origin)
