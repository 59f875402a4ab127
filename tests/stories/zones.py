"""Two zones of OVN as OVN-Kubernetes fills them, as values: nodes n1 and n2, a pod on each, no EgressIP yet.

Pods 10.128.0.5 on n1 and 10.128.1.5 on n2; management ports .2, gateway routers 100.64.0.2 and .3, transit 100.88.0.2
and .3; nodes 192.168.99.21 and .22 on br-ex, whose router is .1 and another one .2.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from types import MappingProxyType

from outgate.model.nics import HostCidr
from outgate.model.ovn import Action, LogicalRoute, Policy, Snat
from outgate.model.zone import RouterPort, SwitchPort, Zone

CLUSTER_ROUTER = "ovn_cluster_router"
POD = {"n1": ip_address("10.128.0.5"), "n2": ip_address("10.128.1.5")}
MANAGEMENT = {"n1": ip_address("10.128.0.2"), "n2": ip_address("10.128.1.2")}
JOIN = {"n1": ip_address("100.64.0.2"), "n2": ip_address("100.64.0.3")}
TRANSIT = {"n1": ip_address("100.88.0.2"), "n2": ip_address("100.88.0.3")}
OUTSIDE, PARTNER = ip_address("203.0.113.10"), ip_address("203.0.113.20")
EGRESS_IP = ip_address("192.168.99.150")
_NUMBER = {"n1": 0, "n2": 1}


def policy(
    priority: int, match: str, *hops: object, router: str = CLUSTER_ROUTER, mark: int = 0, drop: bool = False
) -> Policy:
    """A policy: a reroute where there are next hops, else it allows or drops."""
    action = Action.REROUTE if hops else Action.DROP if drop else Action.ALLOW
    next_hops = tuple(ip_address(str(one)) for one in hops)
    return Policy(router=router, priority=priority, match=match, action=action, next_hops=next_hops, packet_mark=mark)


EXCEPTIONS = (
    policy(102, "ip4.src == 10.128.0.0/14 && ip4.dst == 10.128.0.0/14"),
    policy(102, "ip4.src == 10.128.0.0/14 && ip4.dst == 100.64.0.0/16"),
    policy(102, "(ip4.src == $served || ip4.src == $services) && ip4.dst == $nodes", mark=1008),
    policy(102, "pkt.mark == 42"),
)
SETS = MappingProxyType(
    {
        "served": frozenset(map(str, POD.values())),
        "services": frozenset[str](),
        "nodes": frozenset({"192.168.99.21", "192.168.99.22"}),
    }
)


def with_policies(zone: Zone, *policies: Policy) -> Zone:
    """The zone, and more policies in it."""
    return replace(zone, policies=zone.policies | {*policies})


def with_snats(zone: Zone, *pairs: tuple[str, str]) -> Zone:
    """The zone, and more translations in its gateway router."""
    router = f"GR_{zone.name}"
    more = {Snat(router=router, inside=ip_network(inside), outside=ip_address(outside)) for inside, outside in pairs}
    return replace(zone, snats=zone.snats | more)


def zone(node: str, *, local: bool = True) -> Zone:
    """The zone of a node before any EgressIP."""
    number = _NUMBER[node]
    subnet, primary = f"10.128.{number}.0/24", f"192.168.99.{21 + number}"
    own = MANAGEMENT[node] if local else JOIN[node]
    routes = [
        _route(CLUSTER_ROUTER, subnet, str(own), by_source=True),
        _route(CLUSTER_ROUTER, "10.128.0.0/14", str(JOIN[node]), by_source=True),
        _route(f"GR_{node}", "10.128.0.0/14", "100.64.0.1"),
        _route(f"GR_{node}", "0.0.0.0/0", "192.168.99.1", port=f"rtoe-GR_{node}"),
    ]
    other = "n2" if node == "n1" else "n1"
    routes.append(_route(CLUSTER_ROUTER, f"10.128.{1 - number}.0/24", str(TRANSIT[other])))
    empty = Zone(
        name=node,
        policies=frozenset(EXCEPTIONS),
        routes=frozenset(routes),
        sets=SETS,
        router_ports=tuple(_router_ports(node)),
        switch_ports=tuple(_switch_ports(node, other)),
        gateways=MappingProxyType({f"GR_{node}": node}),
    )
    return with_snats(empty, (subnet, primary))


def _route(router: str, prefix: str, hop: str, *, by_source: bool = False, port: str = "") -> LogicalRoute:
    return LogicalRoute(router=router, prefix=ip_network(prefix), next_hop=hop, by_source=by_source, port=port)


def _router_ports(node: str) -> list[RouterPort]:
    number = _NUMBER[node]
    at = (
        (CLUSTER_ROUTER, f"rtos-{node}", f"10.128.{number}.1/24"),
        (CLUSTER_ROUTER, "rtoj-ovn_cluster_router", "100.64.0.1/16"),
        (CLUSTER_ROUTER, f"rtots-{node}", f"{TRANSIT[node]}/16"),
        (f"GR_{node}", f"rtoj-GR_{node}", f"{JOIN[node]}/16"),
        (f"GR_{node}", f"rtoe-GR_{node}", f"192.168.99.{21 + number}/24"),
    )
    return [
        RouterPort(
            router=router,
            name=name,
            mac=_mac(text),
            interfaces=(HostCidr(ip_interface(text).ip, ip_interface(text).network),),
        )
        for router, name, text in at
    ]


def _switch_ports(node: str, other: str) -> list[SwitchPort]:
    def leads(switch: str, name: str, router_port: str) -> SwitchPort:
        return SwitchPort(switch=switch, name=name, kind="router", router_port=router_port)

    remote = f"{TRANSIT[other]}/16"
    return [
        leads(node, f"stor-{node}", f"rtos-{node}"),
        SwitchPort(switch=node, name=f"shop_{node}", mac=_mac(str(POD[node])), addresses=(POD[node],)),
        SwitchPort(switch=node, name=f"k8s-{node}", mac=_mac(str(MANAGEMENT[node])), addresses=(MANAGEMENT[node],)),
        leads("join", "jtor-ovn_cluster_router", "rtoj-ovn_cluster_router"),
        leads("join", f"jtor-GR_{node}", f"rtoj-GR_{node}"),
        leads(f"ext_{node}", f"etor-GR_{node}", f"rtoe-GR_{node}"),
        SwitchPort(switch=f"ext_{node}", name=f"br-ex_{node}", kind="localnet"),
        leads("transit_switch", f"tstor-{node}", f"rtots-{node}"),
        SwitchPort(
            switch="transit_switch",
            name=f"tstor-{other}",
            kind="remote",
            mac=_mac(remote),
            addresses=(TRANSIT[other],),
        ),
    ]


def _mac(text: str) -> str:
    return "0a:58:" + ":".join(f"{one:02x}" for one in ip_interface(text).ip.packed)
