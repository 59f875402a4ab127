"""A host with two NICs whose routes by eth1 are mirrored, and how the kernel's answers are read.

br-ex 192.168.99.21 and eth1 192.168.55.21 (fd99::21, fd55::21); pod 10.128.0.5 (fd01:0:0:1::5) comes by ovn-k8s-mp0,
and its egress IP is on eth1.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from outgate.compare.changes import changes
from outgate.lab.batch import configure
from outgate.lab.namespace import Namespace
from outgate.model.egress_ip import NodeSnapshot
from outgate.model.intent import AssignedPod, Assignment, Node
from outgate.model.net import Address, LinkName, Prefix, Route, Rule
from outgate.model.routing import Routing, Semantics
from outgate.model.state import Changes, Failure, Resource
from outgate.model.why import Finding
from outgate.plan.assist_nic import plan_nics
from outgate.plan.serving import Served
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.outbox import Boundary, no_boundary
from outgate.systems.kernel.read import read
from outgate.systems.kernel.tables import read_tables
from outgate.systems.kernel.uapi import NETLINK_ROUTE
from outgate.systems.kernel.write import write
from outgate.systems.netlink import NetlinkSocket

PODS: dict[int, Address] = {4: ip_address("10.128.0.5"), 6: ip_address("fd01:0:0:1::5")}
EGRESS: dict[int, Address] = {4: ip_address("192.168.55.150"), 6: ip_address("fd55::150")}
NEAR: dict[int, Sequence[str]] = {
    4: ("192.168.55.1", "192.168.55.2", "192.168.55.3"),
    6: ("fd55::1", "fd55::2", "fd55::3"),
}
FAR: dict[int, Sequence[str]] = {4: ("192.168.99.1", "192.168.99.2"), 6: ("fd99::1", "fd99::2")}
REMOTE: dict[int, str] = {4: "198.51.100.7", 6: "fd98::7"}  # a router in no network of the host
ROUTED: dict[int, Prefix] = {4: IPv4Network("203.0.0.0/12"), 6: IPv6Network("2001:db8::/32")}
ANY: dict[int, Prefix] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
PARTNER: dict[int, str] = {4: "203.0.113.0/24", 6: "2001:db8:113::/48"}
AUTO = Routing(semantics=Semantics.AUTO)
ETH1, MANAGEMENT = LinkName("eth1"), LinkName("ovn-k8s-mp0")
DISCARDS = ("blackhole", "unreachable", "prohibit", "throw")
WORDS = {  # of errno(3), as the kernel answers for routes that discard, and for none
    "Invalid argument": "blackhole",
    "No route to host": "unreachable",
    "Network is unreachable": "unreachable",
    "Permission denied": "prohibit",
}
LINES = (
    "link set lo up",
    *(
        line
        for link, v4, v6 in (
            ("br-ex", "192.168.99.21/24", "fd99::21/64"),
            ("eth1", "192.168.55.21/24", "fd55::21/64"),
            ("ovn-k8s-mp0", "10.128.0.2/24", "fd01:0:0:1::2/64"),
        )
        for line in (
            f"link add {link} type veth peer name {link}-far",
            f"link set {link}-far up",
            f"addr add {v4} dev {link}",
            f"addr add {v6} dev {link} nodad",
            f"link set {link} up",
        )
    ),
    "route add default via 192.168.99.1 dev br-ex",
    "route add default via fd99::1 dev br-ex",
)
OBJECTS: dict[
    int, tuple[str, ...]
] = {  # 1 and 2 by eth1, 3 by br-ex, 4 on the link of eth1, 5 discards; 7 to 10 are groups
    version: (
        *(f"nexthop add id {number} via {hop} dev eth1" for number, hop in enumerate(NEAR[version][:2], 1)),
        f"nexthop add id 3 via {FAR[version][0]} dev br-ex",
        f"{family}nexthop add id 4 dev eth1",
        f"{family}nexthop add id 5 blackhole",
        "nexthop add id 7 group 1,2/2,9",
        "nexthop add id 8 group 1/4,3",
        "nexthop add id 9 group 2,7",
        "nexthop add id 10 group 1/3,4",
    )
    for version, family in ((4, ""), (6, "-6 "))
}


@contextlib.contextmanager
def host(name: str, lines: Sequence[str] = ()) -> Iterator[Namespace]:
    with Namespace(name) as net:
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            net.sysctl(f"net/{path}", 1)
        for link in ("all", "default"):
            net.sysctl(f"net/ipv4/conf/{link}/rp_filter", 0)
        configure({net: LINES})
        load(net, lines)
        yield net


def load(net: Namespace, lines: Sequence[str]) -> None:
    """Load lines in order, those for `ip -6` first: of two that are one to the kernel it refuses the later, everywhere
    alike.
    """
    of_six = [line.removeprefix("-6 ") for line in lines if line.startswith("-6 ")]
    others = [line for line in lines if not line.startswith("-6 ")]
    for argv, script in ((("ip", "-6"), of_six), (("ip",), others)):
        net.run((*argv, "-force", "-batch", "-"), input="\n".join(script), check=False)


@dataclass(slots=True)
class Mirror:
    """What the node role does for egress IPs on eth1, a round at a time."""

    net: Namespace
    socket: NetlinkSocket
    cache: Cache = field(default_factory=Cache)
    boundary: Boundary = no_boundary

    def actual(self) -> frozenset[Resource]:
        with self.net.inside():
            return read(self.socket, self.cache).actual

    def plan(self, versions: Sequence[int] = (4, 6)) -> tuple[list[Resource], tuple[Finding, ...]]:
        pod = AssignedPod(namespace="shop", name="web", addresses=tuple(PODS.values()))
        serving = [
            Served(PODS[one], Assignment(egress_ip="far", address=EGRESS[one], pods=(pod,), routing=AUTO), pod, ETH1)
            for one in versions
        ]
        with self.net.inside():
            snapshot = NodeSnapshot(
                node=Node(name="n1", subnets=()),
                host=read_tables(),
                assignments=(),
            )
        wants, findings = plan_nics(snapshot, serving, ())
        return [one for one in wants if isinstance(one, Route | Rule)], findings

    def round(self, versions: Sequence[int] = (4, 6)) -> tuple[Changes, tuple[Failure, ...]]:
        wants, _ = self.plan(versions)
        planned = changes(wants, self.actual())
        make = sorted(planned.make, key=lambda one: isinstance(one, Rule))
        drop = sorted(planned.drop, key=lambda one: isinstance(one, Route))
        with self.net.inside():
            failures = write(self.socket, self.cache, make, drop, self.boundary)
        return planned, failures

    def settled(self) -> None:
        """Nothing is left to be done, whoever looks."""
        assert not changes(self.plan()[0], self.actual())
        self.cache = Cache()
        assert not changes(self.plan()[0], self.actual())


@contextlib.contextmanager
def mirroring(net: Namespace) -> Iterator[Mirror]:
    with net.inside():
        socket = NetlinkSocket(NETLINK_ROUTE)
    with socket:
        yield Mirror(net, socket)


@dataclass(frozen=True, slots=True)
class Way:
    """The route that the kernel goes by: prefix, metric, and legs that are alive, each with router and weight; or what
    becomes of a packet that it discards.

    `by_object`: an IPv6 route of a next hop object, for which the kernel may name another route of that object. It
    keeps what it answers with the object's next hop, for each CPU, and not with the route.
    """

    dst: str = ""
    metric: int = 0
    legs: frozenset[tuple[str, str, int]] = frozenset()
    discarded: str = ""
    by_object: bool = field(default=False, compare=False)

    def agrees(self, other: Way) -> bool:
        """Whether packets go the same way, by the same route as far as the kernel can tell."""
        if self.by_object or other.by_object:
            return (self.legs, self.discarded) == (other.legs, other.discarded)
        return self == other


def matched(net: Namespace, destination: Address) -> Way:
    """The way of the pod's packet."""
    source = PODS[destination.version]
    argv = ("ip", "-j", "route", "get", "fibmatch", str(destination), "from", str(source), "iif", MANAGEMENT)
    done = net.run(argv, check=False)
    if done.returncode:
        return Way(discarded=WORDS.get(done.stderr.strip().rpartition(": ")[2], done.stderr))
    (found,) = json.loads(done.stdout)
    if found.get("type") in DISCARDS:
        return Way(discarded=str(found["type"]))
    weights: Counter[tuple[str, str]] = Counter()
    for leg in found.get("nexthops", [{**found, "flags": []}]):
        if "dead" not in leg["flags"]:
            weights[leg["dev"], leg.get("gateway", "on link")] += leg.get("weight", 1)
    alone = len(weights) == 1
    legs = frozenset((*hop, 0 if alone else weight) for hop, weight in weights.items())
    by_object = destination.version == 6 and "nhid" in found
    return Way(str(found["dst"]), int(found.get("metric", 0)), legs, by_object=by_object)


def way(mirror: Mirror, version: int) -> Way:
    """The one way of packets to all partners."""
    (found,) = {matched(mirror.net, one) for one in partners(version)}
    return found


def partners(version: int) -> list[Address]:
    around: Prefix = ip_network(PARTNER[version])
    return [around[number] for number in range(1, 33)]
