"""What OVN-Kubernetes writes into a zone's northbound database, as arguments of ovn-nbctl: routers, switches, routes.

Only what carries egress traffic: no load balancers, no ACLs, no port groups. Names, priorities and matches are those of
OVN-Kubernetes (go-controller/pkg/ovn, 2026); the gateway mode shows in one route, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product

from outgate.lab.ovn.addresses import (
    CLUSTER,
    CLUSTER_ROUTER,
    JOIN,
    OTHER_ROUTER,
    ROUTER,
    NodeAddresses,
    Pair,
    mac_of,
)

MTU = 1400  # of pods: what geneve leaves of 1500
SERVED4, SERVED6, NODES4, NODES6 = "served_v4", "served_v6", "nodes_v4", "nodes_v6"  # address sets
_JOIN_ROUTER = (JOIN[0][1], JOIN[1][1])
_TRANSIT_KEY = 16711683
_FIRST_KEY = 2


def zone(
    me: NodeAddresses, nodes: Sequence[NodeAddresses], pods: Iterable[tuple[str, Pair]], *, egress_ip: bool = True
) -> list[str]:
    """Return the arguments that fill the empty database of a node's zone, all in one transaction.

    `pods` are the ports and addresses of the pods that run on the node; `egress_ip` says whether OVN-Kubernetes'
    feature of that name is on.
    """
    commands = chain(
        _cluster_router(me),
        _node_switch(me),
        _gateway_router(me),
        _transit(me, nodes),
        _egress_ip(me, nodes) if egress_ip else (),
        *(_pod(me, port, pair) for port, pair in pods),
    )
    return [word for command in commands for word in ("--", *command)][1:]


def subnet_routes(me: NodeAddresses, *, local: bool, old: bool = False) -> list[str]:
    """Return the arguments that send the node's own pods into the host (local gateway mode) or to its gateway router.

    `old` takes the route away instead: ovn-nbctl refuses to replace one in the same transaction.
    """
    hops = me.management if local else me.join
    commands = [
        ("--policy=src-ip", "lr-route-del", CLUSTER_ROUTER, str(subnet))
        if old
        else ("--policy=src-ip", "lr-route-add", CLUSTER_ROUTER, str(subnet), str(hop))
        for subnet, hop in zip(me.subnets, hops, strict=True)
    ]
    return [word for command in commands for word in ("--", *command)][1:]


def _router_port(router: str, port: str, addresses: Sequence[str], mac: str) -> tuple[str, ...]:
    return ("lrp-add", router, port, mac, *addresses)


def _switch_to_router(switch: str, port: str, router_port: str, addresses: str = "router") -> Iterator[tuple[str, ...]]:
    yield ("lsp-add", switch, port)
    yield ("lsp-set-type", port, "router")
    yield ("lsp-set-addresses", port, addresses)
    yield ("lsp-set-options", port, f"router-port={router_port}")


def _cluster_router(me: NodeAddresses) -> Iterator[tuple[str, ...]]:
    yield ("set", "NB_Global", ".", f"name={me.name}", "options:use_logical_dp_groups=true")
    yield ("lr-add", CLUSTER_ROUTER)
    yield ("ls-add", "join")
    yield _router_port(
        CLUSTER_ROUTER,
        "rtoj-" + CLUSTER_ROUTER,
        [f"{_JOIN_ROUTER[0]}/16", f"{_JOIN_ROUTER[1]}/64"],
        mac_of(_JOIN_ROUTER[0]),
    )
    yield from _switch_to_router("join", "jtor-" + CLUSTER_ROUTER, "rtoj-" + CLUSTER_ROUTER)


def _node_switch(me: NodeAddresses) -> Iterator[tuple[str, ...]]:
    port, (subnet4, subnet6) = f"rtos-{me.name}", me.subnets
    yield ("ls-add", me.name)
    yield ("set", "logical_switch", me.name, f"other-config:subnet={subnet4}", f"other-config:ipv6_prefix={subnet6[0]}")
    yield _router_port(CLUSTER_ROUTER, port, [f"{me.gateway[0]}/24", f"{me.gateway[1]}/64"], mac_of(me.gateway[0]))
    yield ("set", "logical_router_port", port, f"options:gateway_mtu={MTU}")
    yield from _switch_to_router(me.name, f"stor-{me.name}", port)
    yield ("lsp-add", me.name, f"k8s-{me.name}")
    yield ("lsp-set-addresses", f"k8s-{me.name}", f"{mac_of(me.management[0])} {me.management[0]} {me.management[1]}")


def _gateway_router(me: NodeAddresses) -> Iterator[tuple[str, ...]]:
    router, external = me.router, f"rtoe-{me.router}"
    mac = mac_of(me.primary[0])
    yield ("lr-add", router)
    yield (
        *("set", "logical_router", router, f"options:chassis={me.name}", "options:snat-ct-zone=0"),
        *("options:dynamic_neigh_routers=true", "options:always_learn_from_arp_request=false"),
    )
    yield _router_port(router, f"rtoj-{router}", [f"{me.join[0]}/16", f"{me.join[1]}/64"], mac_of(me.join[0]))
    yield from _switch_to_router("join", f"jtor-{router}", f"rtoj-{router}")
    yield ("ls-add", f"ext_{me.name}")
    yield _router_port(router, external, [f"{me.primary[0]}/24", f"{me.primary[1]}/64"], mac)
    yield from _switch_to_router(f"ext_{me.name}", f"etor-{router}", external, mac)
    yield ("lsp-add", f"ext_{me.name}", f"br-ex_{me.name}")
    yield ("lsp-set-type", f"br-ex_{me.name}", "localnet")
    yield ("lsp-set-addresses", f"br-ex_{me.name}", "unknown")
    yield ("lsp-set-options", f"br-ex_{me.name}", "network_name=physnet")
    for cluster, subnet, join, mine, primary, default, hop in zip(
        CLUSTER, me.subnets, _JOIN_ROUTER, me.join, me.primary, ("0.0.0.0/0", "::/0"), ROUTER, strict=True
    ):
        yield ("--policy=src-ip", "lr-route-add", CLUSTER_ROUTER, str(subnet), str(mine))
        yield ("lr-route-add", CLUSTER_ROUTER, str(mine), str(mine))
        yield ("lr-route-add", router, str(cluster), str(join))
        yield ("lr-route-add", router, default, str(hop), external)
        yield ("lr-nat-add", router, "snat", str(primary), str(subnet))
    for hop, owner in zip((*ROUTER, *OTHER_ROUTER), (ROUTER, ROUTER, OTHER_ROUTER, OTHER_ROUTER), strict=True):
        # OVN loses the packets of the first 20 ms after it has learned a neighbour; tests are about other losses
        yield ("static-mac-binding-add", external, str(hop), mac_of(owner[0]))


def _transit(me: NodeAddresses, nodes: Sequence[NodeAddresses]) -> Iterator[tuple[str, ...]]:
    yield ("ls-add", "transit_switch")
    yield (
        *("set", "logical_switch", "transit_switch", "other_config:interconn-ts=transit_switch"),
        f"other_config:requested-tnl-key={_TRANSIT_KEY}",
    )
    for key, node in enumerate(nodes, _FIRST_KEY):
        port = f"tstor-{node.name}"
        if node == me:
            mine = f"rtots-{node.name}"
            addresses = [f"{node.transit[0]}/16", f"{node.transit[1]}/64"]
            yield _router_port(CLUSTER_ROUTER, mine, addresses, mac_of(node.transit[0]))
            yield from _switch_to_router("transit_switch", port, mine)
            yield ("lsp-set-options", port, f"router-port={mine}", f"requested-tnl-key={key}")
            continue
        yield ("lsp-add", "transit_switch", port)
        yield ("lsp-set-type", port, "remote")
        yield ("lsp-set-addresses", port, f"{mac_of(node.transit[0])} {node.transit[0]} {node.transit[1]}")
        yield ("lsp-set-options", port, f"requested-tnl-key={key}", f"requested-chassis={node.name}")
        for subnet, join, hop in zip(node.subnets, node.join, node.transit, strict=True):
            yield ("lr-route-add", CLUSTER_ROUTER, str(subnet), str(hop))
            yield ("lr-route-add", CLUSTER_ROUTER, str(join), str(hop))


def _egress_ip(me: NodeAddresses, nodes: Sequence[NodeAddresses]) -> Iterator[tuple[str, ...]]:
    """Yield what the feature makes for every node: the way out for pods of other nodes, the policies of priority 102,
    which keep it away from the cluster's own traffic, and their sets.
    """
    for cluster, mine in zip(CLUSTER, me.join, strict=True):
        yield ("--policy=src-ip", "lr-route-add", CLUSTER_ROUTER, str(cluster), str(mine))
    yield ("create", "address_set", f"name={SERVED4}")
    yield ("create", "address_set", f"name={SERVED6}")
    for name, pick in ((NODES4, 0), (NODES6, 1)):
        every = [str(pair[pick]) for node in nodes for pair in (node.primary, node.secondary)]
        yield ("create", "address_set", f"name={name}", "addresses=" + ",".join(f'"{one}"' for one in every))
    for ip, cluster, join, served, machines in zip(
        ("ip4", "ip6"), CLUSTER, JOIN, (SERVED4, SERVED6), (NODES4, NODES6), strict=True
    ):
        for inside in (cluster, join):
            yield _allow(f"{ip}.src == {cluster} && {ip}.dst == {inside}")
        yield (*_allow(f"{ip}.src == ${served} && {ip}.dst == ${machines}"), "pkt_mark=1008")
    yield _allow("pkt.mark == 42")


def _allow(match: str) -> tuple[str, ...]:
    return ("lr-policy-add", CLUSTER_ROUTER, "102", match, "allow")


def _pod(me: NodeAddresses, port: str, pair: Pair) -> Iterator[tuple[str, ...]]:
    addresses = f"{mac_of(pair[0])} {pair[0]} {pair[1]}"
    yield ("lsp-add", me.name, port)
    yield ("lsp-set-addresses", port, addresses)
    yield ("lsp-set-port-security", port, addresses)


def chassis_of(node: NodeAddresses) -> list[str]:
    """Return the arguments of ovn-sbctl that make another zone's node known in this zone."""
    return [
        *("--id=@e", "create", "encap", f"chassis_name={node.name}", "type=geneve"),
        *(f"ip={node.primary[0]}", "options:csum=true"),
        *("--", "create", "chassis", f"name={node.name}", f"hostname={node.name}"),
        *("encaps=@e", "other_config:is-remote=true"),
    ]


def remote_ports(me: NodeAddresses, nodes: Sequence[NodeAddresses]) -> Iterator[tuple[str, str]]:
    """Yield each transit port of another zone and the chassis that it is on."""
    for node, other in product(nodes, nodes):
        if node == me and other != me:
            yield f"tstor-{other.name}", other.name
