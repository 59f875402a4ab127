"""Three machines in a row, without a daemon: a node with pods, the gateway with our table, the outside. Both families.

    pods of blue, red and nobody -- node .21 == 192.168.99.0/24 == .11 gateway .12 == 192.168.55.0/24 == .1 outside

The node steers each tenant's pods to the tenant's own link on the gateway (.13, .14), nobody's pod to the NIC (.11).
Sockets are opened inside the namespaces by the test itself, so that each step of an exchange is one line of a test.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace
from outgate.lab.outside import SourceCounter
from outgate.lab.waiting import eventually
from outgate.model.net import Address, Mark, Span
from outgate.model.ruleset import Element
from outgate.systems.nft import read, write
from outgate.systems.nft.parse import Counts

INNER, UPLINK, LAN = "enp1s0", "enp7s0", "eth0"
BLUE, RED = Mark(0x00010000), Mark(0x00020000)
BLUE_LINK, RED_LINK = "og-0000b10e", "og-000000ed"
PORT = 9000
LIMIT_S = 20  # for what must happen; a machine under load may need a good part of it
REFUSED = (errno.EHOSTUNREACH, errno.EACCES, errno.ECONNREFUSED, errno.ECONNRESET)  # what a refused client is told
FORWARDING = ("net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The addresses of one family."""

    blue: Address
    red: Address
    nobody: Address
    node: Address
    lan: Address  # a server on the node's side that is no pod
    server: Address
    other: Address  # a second server
    router: Address  # outside's address on the uplink
    gateway: Address  # of the gateway on the uplink
    blue_ip: Address
    blue_second: Address
    red_ip: Address
    cluster: Span
    subnet: Span  # of the node's pods
    lan_net: Span

    @property
    def version(self) -> int:
        return self.blue.version

    def __str__(self) -> str:
        return f"IPv{self.version}"


def span(prefix: str) -> Span:
    net = ip_network(prefix)
    return Span(first=net.network_address, last=net.broadcast_address)


def only(address: Address) -> Span:
    return Span(first=address, last=address)


V4 = Plan(
    blue=IPv4Address("10.128.1.5"),
    red=IPv4Address("10.128.1.6"),
    nobody=IPv4Address("10.128.1.9"),
    node=IPv4Address("192.168.99.21"),
    lan=IPv4Address("192.168.99.5"),
    server=IPv4Address("203.0.113.9"),
    other=IPv4Address("198.51.100.9"),
    router=IPv4Address("192.168.55.1"),
    gateway=IPv4Address("192.168.55.12"),
    blue_ip=IPv4Address("192.168.55.113"),
    blue_second=IPv4Address("192.168.55.114"),
    red_ip=IPv4Address("192.168.55.115"),
    cluster=span("10.128.0.0/14"),
    subnet=span("10.128.1.0/24"),
    lan_net=span("192.168.99.0/24"),
)
V6 = Plan(
    blue=IPv6Address("fd01:0:0:1::5"),
    red=IPv6Address("fd01:0:0:1::6"),
    nobody=IPv6Address("fd01:0:0:1::9"),
    node=IPv6Address("fd99::21"),
    lan=IPv6Address("fd99::5"),
    server=IPv6Address("2001:db8:113::9"),
    other=IPv6Address("2001:db8:100::9"),
    router=IPv6Address("fd55::1"),
    gateway=IPv6Address("fd55::12"),
    blue_ip=IPv6Address("fd55::113"),
    blue_second=IPv6Address("fd55::114"),
    red_ip=IPv6Address("fd55::115"),
    cluster=span("fd01::/48"),
    subnet=span("fd01:0:0:1::/64"),
    lan_net=span("fd99::/64"),
)
NEXT_HOPS = {BLUE_LINK: ("192.168.99.13", "fd99::13"), RED_LINK: ("192.168.99.14", "fd99::14")}


def ruleset() -> set[Element]:
    """What a planner would want: tenants blue and red by link, their egress IPs, both families."""
    found = {Element(name, (INNER,)) for name in ("inner", "nics")} | {Element("uplinks", (UPLINK,))}
    for mark, link in ((BLUE, BLUE_LINK), (RED, RED_LINK)):
        found |= {Element("inner", (link,)), Element("id_link", (link,), mark), Element("tenant_of", (mark,), mark)}
        found |= {Element("check_nodes", (mark,)), *(Element(name, (mark,)) for name in ("sent", "received", "opened"))}
    for plan in (V4, V6):
        found |= {Element(f"{name}{plan.version}", (plan.cluster,)) for name in ("protected",)}
        found.add(Element(f"nodes{plan.version}", (plan.subnet,)))
        for mark, address in ((BLUE, plan.blue_ip), (RED, plan.red_ip)):
            found |= {snat(mark, address), own(mark, address), Element(f"egress{plan.version}", (address,))}
    return found


def snat(mark: int, address: Address) -> Element:
    return Element(f"snat{address.version}", (mark,), address)


def own(mark: int, address: Address) -> Element:
    return Element(f"own{address.version}", (mark, address))


def passing(prefix: Span) -> Element:
    return Element(f"passing{prefix.first.version}", (INNER, prefix))


class Passage:
    """The three machines. The table is what `load` last put there; at first there is none, and everything passes."""

    def __init__(self) -> None:
        self.node, self.gateway, self.outside = (Namespace(name) for name in ("node", "gateway", "outside"))
        self._open = contextlib.ExitStack()
        for namespace in (self.outside, self.gateway, self.node):
            self._open.enter_context(namespace)
        self._build()
        self.leaks = SourceCounter(self.outside, LAN)

    def close(self) -> None:
        self._open.close()

    def load(self, *changes: Element, without: Collection[Element] = ()) -> None:
        """Load the usual table with some elements more, or other values, and some less."""
        slots = {element.slot for element in changes}
        kept = {element for element in ruleset() if element.slot not in slots and element not in without}
        with self.gateway.inside():
            assert write.load(kept | set(changes)).failures == ()

    def change(self, make: Collection[Element], drop: Collection[Element] = ()) -> None:
        """Change the table that is there."""
        with self.gateway.inside():
            assert write.write(make, drop, actual=read.read().elements) == ()

    def counts(self) -> Counts:
        with self.gateway.inside():
            return read.counts()

    def stopped(self, counter: str) -> int:
        """How many packets one of the table's counters has counted."""
        return self.counts().named[counter].packets

    def add(self, namespace: Namespace, link: str, *addresses: Address) -> None:
        options = {4: "", 6: " nodad preferred_lft 0"}  # as ours are: never chosen as the machine's own source
        configure({namespace: [f"addr add {a}/{a.max_prefixlen} dev {link}{options[a.version]}" for a in addresses]})

    def steer(self, address: Address, next_hop: str) -> None:
        """Let a pod's packets leave the node by a next hop."""
        table, six = 1000 + int(address) % 997, "-6 " if address.version == 6 else ""
        lines = (
            f"rule add from {address} lookup {table}",
            f"route replace default via {next_hop} dev {LAN} table {table}",
        )
        configure({self.node: [six + line for line in lines]})

    def _build(self) -> None:
        for namespace in (self.node, self.gateway, self.outside):
            for key in ("all", "default"):
                namespace.sysctl(f"net/ipv4/conf/{key}/rp_filter", 0)
                namespace.sysctl(f"net/ipv6/conf/{key}/accept_dad", 0)
            namespace.sysctl("net/ipv4/icmp_ratelimit", 0)  # an error that was paced away would look like none
            namespace.sysctl("net/ipv4/icmp_msgs_per_sec", 100000)
            namespace.sysctl("net/ipv6/icmp/ratelimit", 0)
            configure({namespace: ["link set lo up"]})
        self.gateway.sysctl("net/ipv4/conf/all/arp_ignore", 1)
        for path in FORWARDING:
            self.gateway.sysctl(path, 1)
            self.outside.sysctl(path, 1)
        cables = cable(INNER, 1, to=self.node, link=LAN), cable(UPLINK, 2, to=self.outside, link=LAN)
        configure({self.gateway: cables})
        configure({self.node: _NODE, self.gateway: _GATEWAY, self.outside: _OUTSIDE})
        for plan in (V4, V6):
            self.add(self.node, "lo", plan.blue, plan.red, plan.nobody)
            self.add(self.outside, "lo", plan.server, plan.other)
            self.add(self.gateway, UPLINK, plan.blue_ip, plan.blue_second, plan.red_ip)
        for index, mine in enumerate(("blue", "red")):
            for hop, plan in zip(NEXT_HOPS[(BLUE_LINK, RED_LINK)[index]], (V4, V6), strict=True):
                self.steer(getattr(plan, mine), hop)


_NODE = (
    f"link set {LAN} up",
    *(f"addr add {address}/24 dev {LAN}" for address in (V4.node, V4.lan)),
    *(f"addr add {address}/64 dev {LAN} nodad" for address in (V6.node, V6.lan)),
    f"route add default via 192.168.99.11 dev {LAN}",
    f"route add default via fd99::11 dev {LAN}",
)
_GATEWAY = (
    f"addr add 192.168.99.11/24 dev {INNER}",
    f"addr add fd99::11/64 dev {INNER} nodad",
    f"addr add {V4.gateway}/24 dev {UPLINK}",
    f"addr add {V6.gateway}/64 dev {UPLINK} nodad",
    f"link set {INNER} up",
    f"link set {UPLINK} up",
    *(
        line
        for link, (four, six) in NEXT_HOPS.items()
        for line in (
            f"link add link {INNER} name {link} type macvlan mode bridge",
            f"addr add {four}/32 dev {link}",
            f"addr add {six}/128 dev {link} nodad",
            f"link set {link} up",
        )
    ),
    f"route add default via {V4.router} dev {UPLINK}",
    f"route add default via {V6.router} dev {UPLINK}",
    f"route add 10.128.1.0/24 via {V4.node} dev {INNER}",
    f"route add fd01:0:0:1::/64 via {V6.node} dev {INNER}",
)
_OUTSIDE = (
    f"addr add {V4.router}/24 dev {LAN}",
    f"addr add {V6.router}/64 dev {LAN} nodad",
    f"link set {LAN} up",
)


@contextlib.contextmanager
def udp(namespace: Namespace, address: Address, port: int = 0) -> Iterator[socket.socket]:
    """Open a UDP socket with a limit on waiting."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with namespace.inside():
        opened = socket.socket(family, socket.SOCK_DGRAM)
    with opened:
        opened.settimeout(LIMIT_S)
        opened.bind((str(address), port))
        yield opened


def send(sender: socket.socket, to: Address, port: int = PORT, content: bytes = b"x") -> None:
    sender.sendto(content, (str(to), port))


def receive(receiver: socket.socket) -> Address:
    """Wait for a packet and return whom it shows as its source; `answer` replies to it."""
    _, (source, *_) = receiver.recvfrom(65536)
    return ip_address(source)


def seen_as(passage: Passage, source: Address, server: Address, port: int = PORT) -> Address:
    """Send a UDP packet from a pod to a server, answer it, and return the source that the server saw."""
    with udp(passage.node, source) as pod, udp(passage.outside, server, port) as there:
        send(pod, server, port)
        content, seen = there.recvfrom(65536)
        there.sendto(content, seen)
        assert pod.recv(65536) == content, "no answer came back"
    return ip_address(seen[0])


def told(passage: Passage, source: Address, server: Address, port: int = PORT) -> int:
    """Open a TCP connection from a pod and return the error that the pod is told, 0 for none.

    Raises:
        TimeoutError: it was told nothing.
    """
    with tcp(passage.node, source) as client:
        try:
            client.connect((str(server), port))
        except TimeoutError:
            raise
        except OSError as error:
            return error.errno or 0
    return 0


@contextlib.contextmanager
def tcp(namespace: Namespace, address: Address, port: int = 0) -> Iterator[socket.socket]:
    """Open a bound TCP socket with a limit on waiting; it closes with a reset, so that nothing lingers."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with namespace.inside():
        opened = socket.socket(family, socket.SOCK_STREAM)
    with opened:
        opened.settimeout(LIMIT_S)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((str(address), port))
        yield opened


@contextlib.contextmanager
def listening(namespace: Namespace, address: Address, port: int = PORT) -> Iterator[socket.socket]:
    with tcp(namespace, address, port) as server:
        server.listen()
        yield server


def dropped(passage: Passage, counter: str, at_least: int = 1) -> None:
    """Wait until a counter of the table has counted so many packets."""
    eventually(lambda: passage.stopped(counter) >= at_least, f"{counter} counts {at_least}")
