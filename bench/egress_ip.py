"""EgressIP: rows in a northbound database, an assisting node from nothing and one pod more, look-ups, and what-if.

The database is a real ovsdb-server on the same cores, with the zone of a node in it as OVN-Kubernetes fills it.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import MappingProxyType

from bench.figure import Figure, at_most, median, seconds
from outgate.lab.batch import configure
from outgate.lab.namespace import Namespace
from outgate.lab.ovn import northbound as lab
from outgate.lab.ovn.addresses import CLUSTER_ROUTER, PRIMARY, ROUTER, NodeAddresses
from outgate.lab.ovn.programs import Programs
from outgate.model.egress_ip import ClusterView, NodeSnapshot
from outgate.model.host_table import HostTables
from outgate.model.intent import AssignedPod, Assignment, EgressIP, Intent, Node, NodeSubnet, Pod
from outgate.model.intent import Namespace as Space
from outgate.model.net import MAIN, Link, LinkName, Route, Rule, Via
from outgate.model.nics import GatewayMode
from outgate.model.ovn import Action, Policy
from outgate.model.routing import Routing, Semantics
from outgate.model.selector import LabelSelector
from outgate.plan.assist import plan_node
from outgate.plan.egress_ip import BRIDGE
from outgate.plan.fib import Fib
from outgate.plan.whatif import Other, shifts
from outgate.roles.node_machine import NodeMachine
from outgate.systems.ovn.northbound import Northbound

ROWS, MANY_ROWS = 10_000, 100_000
PODS = 1_000
ROUTES, QUESTIONS = 100_000, 1_000_000
N1 = NodeAddresses(name="n1", number=0)
AUTO = Routing(semantics=Semantics.AUTO)
EGRESS = IPv4Address("192.168.99.150")
ETH1 = LinkName("eth1")


@contextlib.contextmanager
def _zone() -> Iterator[Programs]:
    with tempfile.TemporaryDirectory(prefix="outgate-ovn-") as place, Namespace("zone") as net:
        programs = Programs(net, Path(place))
        programs.start_databases()
        programs.nbctl(*lab.zone(N1, [N1], []))
        yield programs


def northbound_rows() -> Iterator[Figure]:
    """10,000 policies in one transaction; one more among them, median of 15; a fresh view of 100,000, with all of them
    read as values. Rivals: ovn-nbctl with all of 1,000 commands in one call, scaled; ovn-nbctl for one; `ovsdb-client
    dump`.
    """
    with _zone() as zone, contextlib.closing(Northbound(f"unix:{zone.northbound}")) as ovn:
        took = seconds(partial(ovn.write, _policies(0, ROWS), ()))
        one_more = sorted(seconds(partial(ovn.write, _policies(ROWS + n, 1), ())) for n in range(15))[7]
        by_nbctl = sorted(seconds(partial(zone.nbctl, *_words(10 * ROWS + n, 1))) for n in range(5))[2]
        for number in range(1, MANY_ROWS // ROWS):
            ovn.write(_policies(number * 2 * ROWS, ROWS), ())
        view = median(3, partial(_view, zone))
        dump = ("ovsdb-client", "dump", f"unix:{zone.northbound}", "OVN_Northbound")
        dumped = median(3, lambda: seconds(partial(zone.net.run, dump)))
    with _zone() as zone:
        words = _words(0, 1_000)
        thousand = seconds(partial(zone.nbctl, *words))
    yield at_most("egressip.10000-rows", took, 0.5, "s", ("ovn-nbctl, 1,000 in one call, ten times", thousand * 10))
    yield at_most("egressip.one-row-of-10000", one_more * 1000, 5, "ms", ("ovn-nbctl", by_nbctl * 1000))
    yield at_most("egressip.view-of-100000-rows", view, 2, "s", ("ovsdb-client dump", dumped))


def _view(zone: Programs) -> float:
    began = time.perf_counter()
    with contextlib.closing(Northbound(f"unix:{zone.northbound}")) as ovn:
        assert len(ovn.read().actual) >= MANY_ROWS
        return time.perf_counter() - began


def _policies(first: int, count: int) -> list[Policy]:
    return [
        Policy(
            router=CLUSTER_ROUTER,
            priority=103,
            match=f"ip4.src == {IPv4Address(0x0A000000 + number)}",
            action=Action.REROUTE,
            next_hops=(N1.management[0],),
            owner=f"node:bench:{number}",
        )
        for number in range(first, first + count)
    ]


def _words(first: int, count: int) -> list[str]:
    commands = [
        ("--", "lr-policy-add", CLUSTER_ROUTER, "104", one.match, "reroute", str(one.next_hops[0]))
        for one in _policies(first, count)
    ]
    return [word for command in commands for word in command][1:]


def assisting() -> Iterator[Figure]:
    """1,000 pods under one EgressIP of the primary NIC, local gateway mode, one host route: from nothing to the commit
    of the zone's database and the kernel; and one pod more, median of 15.
    """
    with _zone() as zone, contextlib.closing(Northbound(f"unix:{zone.northbound}")) as ovn:
        zone.start_northd()
        zone.net.sysctl("net/ipv4/ip_forward", 1)
        configure({zone.net: _host_lines()})
        with zone.net.inside(), contextlib.closing(NodeMachine(ovn)) as machine:
            nothing = seconds(partial(_round, machine, PODS))
            more = sorted(seconds(partial(_round, machine, PODS + number)) for number in range(1, 16))[7]
    yield at_most("egressip.1000-pods", nothing, 1, "s")
    yield at_most("egressip.one-pod-more", more * 1000, 20, "ms")


def _host_lines() -> Sequence[str]:
    return (
        "link set lo up",
        f"link add {BRIDGE} type veth peer name far",
        "link set far up",
        f"addr add 192.168.99.21/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
        f"route add default via {ROUTER[0]} dev {BRIDGE}",
        f"route add 203.0.113.0/24 via 192.168.99.2 dev {BRIDGE}",
    )


def _node() -> Node:
    return Node(
        name="n1",
        subnets=tuple(NodeSubnet("default", one, "k8s.ovn.org/node-subnets") for one in N1.subnets),
        primary=PRIMARY,
        mode=GatewayMode.LOCAL,
        next_hops=ROUTER,
        assignable=True,
    )


def _round(machine: NodeMachine, pods: int) -> None:
    reading = machine.read()
    served = tuple(
        AssignedPod(namespace="shop", name=f"p{number}", addresses=(IPv4Address(0x0A800100 + number),))
        for number in range(pods)
    )
    snapshot = NodeSnapshot(
        node=_node(),
        host=reading.host,
        assignments=(Assignment(egress_ip="prod", address=EGRESS, pods=served, routing=AUTO),),
        policies=reading.northbound.policies,
        sets=reading.northbound.sets,
    )
    outcome = machine.settle(plan_node(snapshot, machine.digest), reading)
    assert outcome.converged
    assert outcome.changes


def look_ups() -> Iterator[Figure]:
    """1,000,000 look-ups of random destinations, as numbers, over a main table of 100,000 routes. Rival: a dictionary
    for each length of prefix, longest first, for 10,000 of them, a hundred times.
    """
    dice = random.Random(7)
    routes = _routes(dice, ROUTES)
    table = Fib(HostTables(links={}, routes=frozenset(routes), rules=frozenset())).table(MAIN, 4)
    assert table is not None
    asked = [dice.getrandbits(32) for _ in range(QUESTIONS)]
    find = table.at

    def all_of_them() -> None:
        for one in asked:
            find(one)

    plain = _by_length(routes)
    slow = seconds(lambda: [_longest(plain, one) for one in asked[: QUESTIONS // 100]]) * 100
    yield at_most("egressip.1000000-look-ups", seconds(all_of_them), 1, "s", ("a dictionary for each length", slow))


def _routes(dice: random.Random, count: int) -> list[Route]:
    hop = Via(address=ROUTER[0], link=BRIDGE)
    found = {Route(dst=IPv4Network("0.0.0.0/0"), hop=hop)}
    while len(found) < count:
        length = dice.choice((16, 20, 22, 24, 24, 24, 28, 32))
        found.add(Route(dst=IPv4Network((dice.getrandbits(32) >> (32 - length) << (32 - length), length)), hop=hop))
    return list(found)


def _by_length(routes: Sequence[Route]) -> dict[int, dict[int, Route]]:
    found: dict[int, dict[int, Route]] = {}
    for route in routes:
        found.setdefault(route.dst.prefixlen, {})[int(route.dst.network_address)] = route
    return dict(sorted(found.items(), reverse=True))


def _longest(by_length: dict[int, dict[int, Route]], destination: int) -> Route | None:
    for length, prefixes in by_length.items():
        found = prefixes.get(destination >> (32 - length) << (32 - length) if length else 0)
        if found is not None:
            return found
    return None


def what_if() -> Iterator[Figure]:
    """10,000 pods of 100 EgressIPs on one node with 1,000 host routes: what changes under semantics auto."""
    dice = random.Random(11)
    second = Via(address=IPv4Address("192.168.55.1"), link=ETH1)
    routes = {replace_hop(one, second) for one in _routes(dice, 1_000) if one.dst.prefixlen}
    routes.add(Route(dst=IPv4Network("0.0.0.0/0"), hop=Via(address=ROUTER[0], link=BRIDGE)))
    host = HostTables(
        links={name: Link(name=name, index=index) for name, index in ((BRIDGE, 3), (ETH1, 4))},
        routes=frozenset(routes),
        rules=frozenset({Rule(priority=32766, version=4, action=MAIN)}),
    )
    view = ClusterView(intent=_many_pods(), hosts=MappingProxyType({"n1": host}))
    yield at_most("egressip.what-if", seconds(partial(shifts, view, Other(routing=AUTO))), 3, "s")


def replace_hop(route: Route, hop: Via) -> Route:
    """Return a route by another next hop."""
    return replace(route, hop=hop)


def _many_pods() -> Intent:
    spaces = [Space(name=f"ns{number:03}", labels=(("team", f"t{number:03}"),)) for number in range(100)]
    pods = [
        Pod(
            namespace=f"ns{number % 100:03}",
            name=f"p{number}",
            node="n1" if number % 3 else "n2",
            addresses=(IPv4Address(0x0A800100 + number),),
        )
        for number in range(10_000)
    ]
    egress_ips = [
        EgressIP(
            name=f"e{number:03}",
            egress_ips=(IPv4Address(0xC0A86301 + number),),
            namespace_selector=LabelSelector((("team", f"t{number:03}"),)),
            assigned=(("n1", IPv4Address(0xC0A86301 + number)),),
        )
        for number in range(100)
    ]
    return Intent(nodes=(_node(),), namespaces=tuple(spaces), pods=tuple(pods), egress_ips=tuple(egress_ips))
