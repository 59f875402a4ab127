"""The way back: every node's pod subnets by the node's address, on the inner NIC that reaches it.

Tenants' packets arrive with their pod's source, so the gateway must know where each pod subnet lives. Source of the
subnets: the annotation `k8s.ovn.org/node-subnets` (OVN-Kubernetes allocates there), else `spec.podCIDRs`. A node that
is not ready keeps its routes, because its pods may live; a route that somebody else has put there is a conflict and is
never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from outgate.model.intent import EgressGateway, Node, NodeSubnet
from outgate.model.net import MAIN, OWN_METRIC, Address, LinkName, Prefix, Route, Via
from outgate.model.state import Facts, Resource, Snapshot
from outgate.model.why import Because, Finding, Severity
from outgate.plan.claims import Nics, nic_for


@dataclass(frozen=True, slots=True)
class _Place:
    node: Node
    subnet: NodeSubnet


def plan_return_routes(
    snapshot: Snapshot, gateway: EgressGateway
) -> tuple[dict[Resource, Because], tuple[Finding, ...]]:
    """Want one route per node subnet; contradictory subnets get none and are named on both nodes."""
    places = [_Place(node, subnet) for node in snapshot.intent.nodes for subnet in node.subnets]
    overlapping, findings = _overlaps(places)
    foreign = _foreign(snapshot.facts)
    inner = Nics.of(gateway, snapshot.facts).inner
    wants: dict[Resource, Because] = {}
    for place in places:
        if id(place) in overlapping:
            continue
        hop = _hop(place, inner)
        if hop is None:
            findings.append(_unreachable(place))
            continue
        route = Route(dst=place.subnet.prefix, hop=hop, metric=OWN_METRIC)
        rival = foreign.get(route.dst)
        if rival is not None and rival.metric <= OWN_METRIC:
            findings.append(_conflict(place.node, route, rival))
            if rival.metric == OWN_METRIC:
                continue
        wants[route] = Because("return-route", _text(place), (f"Node/{place.node.name} {place.subnet.source}",))
    findings += _node_findings(snapshot.intent.nodes)
    return wants, tuple(findings)


def _text(place: _Place) -> str:
    network = "" if place.subnet.network == "default" else f" (network {place.subnet.network})"
    state = "" if place.node.ready else "; the node is not ready, its pods may still live"
    return f"pods of node {place.node.name}{network} are behind it{state}"


def _hop(place: _Place, inner: Mapping[LinkName, tuple[Prefix, ...]]) -> Via | None:
    version = place.subnet.prefix.version
    address: Address | None = next((ip for ip in place.node.internal_ips if ip.version == version), None)
    if address is None:
        return None
    return Via(address=address, link=nic_for(address, inner))


def _overlaps(places: list[_Place]) -> tuple[set[int], list[Finding]]:
    """Return the places whose subnet overlaps another node's, by identity, and a finding for each of them.

    Sorted by first address, a subnet overlaps only what follows it directly while they nest, so one pass is enough.
    Subnets of different networks may overlap by intention (user-defined networks); one route table can not serve both,
    so they are findings too.
    """
    bad: set[int] = set()
    findings: list[Finding] = []
    for kind in (IPv4Network, IPv6Network):
        family = sorted(
            (p for p in places if isinstance(p.subnet.prefix, kind)),
            key=lambda p: (int(p.subnet.prefix.network_address), p.subnet.prefix.prefixlen),
        )
        open_: list[_Place] = []
        for place in family:
            start = int(place.subnet.prefix.network_address)
            open_ = [other for other in open_ if int(other.subnet.prefix.broadcast_address) >= start]
            for other in open_:
                if other.node is place.node and other.subnet.prefix == place.subnet.prefix:
                    continue
                bad |= {id(place), id(other)}
                findings += [_overlap(place, other), _overlap(other, place)]
            open_.append(place)
    return bad, findings


def _foreign(facts: Facts) -> dict[object, Route]:
    """Return the best foreign main-table route of each destination."""
    best: dict[object, Route] = {}
    for route in facts.routes:
        if route.table == MAIN and (route.dst not in best or route.metric < best[route.dst].metric):
            best[route.dst] = route
    return best


def _overlap(place: _Place, other: _Place) -> Finding:
    mine, theirs = place.subnet.prefix, other.subnet.prefix
    text = f"its subnet {mine} overlaps {theirs} of Node/{other.node.name}: neither gets a route"
    fix = "one of the two is stale or contradicts the cluster; correct the node object"
    return Finding("SubnetOverlap", f"Node/{place.node.name}", text, Severity.REFUSAL, fix, place.node.origin)


def _unreachable(place: _Place) -> Finding:
    text = f"no InternalIP of family IPv{place.subnet.prefix.version}, so there is no way to {place.subnet.prefix}"
    return Finding(
        "NodeAddressMissing",
        f"Node/{place.node.name}",
        text,
        Severity.REFUSAL,
        "check status.addresses of the node",
        place.node.origin,
    )


def _conflict(node: Node, route: Route, rival: Route) -> Finding:
    text = f"somebody else's route {rival} decides for {route.dst}; outgate wants {route} and overwrites nothing"
    return Finding(
        "ForeignRoute",
        f"Node/{node.name}",
        text,
        Severity.WARNING,
        f"remove it: ip route del {rival.dst} metric {rival.metric}",
        node.origin,
    )


def _node_findings(nodes: tuple[Node, ...]) -> Iterator[Finding]:
    for node in nodes:
        if not node.subnets:
            text = "has no pod subnet yet (neither k8s.ovn.org/node-subnets nor spec.podCIDRs)"
            yield Finding(
                "SubnetMissing",
                f"Node/{node.name}",
                text,
                Severity.WARNING,
                "wait for OVN-Kubernetes to allocate one",
                node.origin,
            )
        elif not node.ready:
            text = "is not ready; its routes stay, because its pods may live"
            yield Finding("NodeNotReady", f"Node/{node.name}", text, Severity.NOTE, "", node.origin)
