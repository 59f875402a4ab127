"""The laboratory: two LANs, worker nodes with pods, the gateway machine, and the world outside, up in 0.15 s.

The gateway machine is as its installer left it: two NICs, default routes by the uplink, forwarding off. Nothing outside
knows the pod subnets, so a packet that leaves with a pod's address is counted (`outgate.lab.outside`), never answered.

    with Laboratory() as lab:
        pod = lab.pod("ns-blue", "n1")
        pod.agent.fetch(addresses.OUTSIDE4)
        assert lab.outside.leaked() == 0

Everything belongs to the process that made it and goes with it, also when that process is killed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

from outgate.lab import addresses
from outgate.lab.addresses import CLUSTER, INNER_LINK, INNER_MAC, UPLINK, UPLINK_MAC
from outgate.lab.agent import Agent
from outgate.lab.batch import Lines, cable, configure
from outgate.lab.namespace import Namespace
from outgate.lab.node import ENDPOINT, LINK, Hops, Node, Pod, PodPlan
from outgate.lab.outside import Server, SourceCounter

BRIDGE = "br0"  # of either LAN
GATEWAY_PORT = "gw"  # of either LAN: the port that the gateway machine is plugged into

_LAN = {
    "net/ipv6/conf/default/disable_ipv6": 1,  # ports of a switch speak no IPv6 of their own
    **{f"net/bridge/bridge-nf-call-{table}tables": 0 for table in ("ip", "ip6", "arp")},
}
_OUTSIDE = ENDPOINT | {"net/ipv4/conf/all/arp_ignore": 1}  # 203.0.113.9 is not answered for on the uplink LAN
_GATEWAY = {
    "net/ipv4/ip_forward": 0,
    "net/ipv6/conf/all/forwarding": 0,
    **{f"net/ipv4/conf/{scope}/{key}": 0 for scope in ("all", "default") for key in ("rp_filter", "arp_ignore")},
}
_NOTHING: Lines = MappingProxyType({})
_SWITCH_LINES = (
    "link set lo up",
    f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
    f"link set {BRIDGE} up",
)
_LAN_LINES = (  # hosts of the inner LAN that are no worker: its router, and a server that pods may be allowed to reach
    f"addr add {addresses.LAN_ROUTER4}/24 dev {BRIDGE}",
    f"addr add {addresses.LAN_ROUTER6}/64 dev {BRIDGE} nodad",
    f"addr add {addresses.LAN_SERVER4}/24 dev {BRIDGE}",
    f"addr add {addresses.LAN_SERVER6}/64 dev {BRIDGE} nodad",
)
_GATEWAY_LINES = (
    "link set lo up",
    f"addr add {addresses.INNER4}/24 dev {INNER_LINK}",
    f"addr add {addresses.INNER6}/64 dev {INNER_LINK}",
    f"addr add {addresses.UPLINK4}/24 dev {UPLINK}",
    f"addr add {addresses.UPLINK6}/64 dev {UPLINK}",
    f"link set {INNER_LINK} up",
    f"link set {UPLINK} up",
    f"route add default via {addresses.ROUTER4} dev {UPLINK}",
    f"route add default via {addresses.ROUTER6} dev {UPLINK}",
)
_OUTSIDE_LINES = (
    "link set lo up",
    f"addr add {addresses.ROUTER4}/24 dev {LINK}",
    f"addr add {addresses.ROUTER6}/64 dev {LINK}",
    f"addr add {addresses.SERVER4}/24 dev {LINK}",
    f"addr add {addresses.SERVER6}/64 dev {LINK}",
    f"link set {LINK} up",
    "link add far0 type veth peer name far1",  # a link of its own for the addresses beyond the router
    "link set far1 up",
    f"addr add {addresses.OUTSIDE4}/24 dev far0",
    f"addr add {addresses.OUTSIDE6}/64 dev far0",
    "link set far0 up",
)


class Laboratory:
    """The picture, live. `bare` leaves out steering, the server outside and the counters: links and addresses only."""

    def __init__(
        self,
        *,
        nodes: int = 2,
        pods_per_namespace: int = 1,
        namespaces: Sequence[str] = ("ns-blue", "ns-red"),
        bare: bool = False,
    ) -> None:
        """Build it. Workers are called n1, n2, ...; every worker runs `pods_per_namespace` pods of each namespace.

        Raises:
            PermissionError: the process is not root.
            ValueError: more namespaces or workers than the addresses allow.
        """
        self.tenants = tuple(addresses.tenant(number, name) for number, name in enumerate(namespaces))
        self.nodes: dict[str, Node] = {}
        self._hops: dict[str, Hops] = {}  # by Kubernetes namespace, for workers of today and later
        if not bare:
            self.steer_all()
        self._pods_per_namespace = pods_per_namespace
        self._pods_made = dict.fromkeys(namespaces, 0)
        self._open = contextlib.ExitStack()
        self._server: Server | None = None
        try:
            self._build(nodes, watched=not bare)
        except BaseException:
            self.close()
            raise

    @functools.cached_property
    def outside(self) -> SourceCounter:
        """What arrives at the machine outside."""
        return SourceCounter(self.ext, LINK)

    @functools.cached_property
    def uplink(self) -> SourceCounter:
        """What the gateway machine sends on the uplink LAN, whoever it is meant for, arriving or not."""
        return SourceCounter(self.wan, GATEWAY_PORT)

    @functools.cached_property
    def inner(self) -> SourceCounter:
        """What the gateway machine sends on the inner LAN: a pod's packet seen here went back where it came from."""
        return SourceCounter(self.lan, GATEWAY_PORT)

    @property
    def server(self) -> Server:
        """The server outside, listening."""
        server = self._server = self._server or self._open.enter_context(Server(self.ext))
        server.wait_until_ready()
        return server

    @functools.cached_property
    def outsider(self) -> Agent:
        """An agent outside, to knock at the gateway's door."""
        return self._open.enter_context(Agent(self.ext))

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods, by worker."""
        return tuple(pod for node in self.nodes.values() for pod in node.pods)

    @property
    def nets(self) -> tuple[Namespace, ...]:
        """All network namespaces: the two LANs, the gateway machine, the world outside, workers, pods."""
        machines = tuple(node.net for node in self.nodes.values())
        return (self.lan, self.wan, self.gw, self.ext, *machines, *(pod.net for pod in self.pods))

    def pod(self, namespace: str, node: str | None = None) -> Pod:
        """Return the first pod of a namespace, on that worker if one is named.

        Raises:
            LookupError: there is none.
        """
        for pod in self.pods:
            if pod.namespace == namespace and node in (None, pod.node):
                return pod
        raise LookupError(f"no pod of {namespace} on {node or 'any worker'}")

    def add_node(self, name: str, *, index: int | None = None, pods_per_namespace: int | None = None) -> Node:
        """Let a worker join, with its pods. Without an index, which decides its addresses, it gets the lowest free.

        Raises:
            ValueError: the name is taken, or the LAN is full.
        """
        if name in self.nodes:
            raise ValueError(f"there is a worker {name} already")
        taken = {node.index for node in self.nodes.values()}
        free = next(number for number in itertools.count() if number not in taken)
        node = self._make_node(name, free if index is None else index, pods_per_namespace)
        configure({self.lan: _port_lines(node)})
        self._configure((node,))
        return node

    def remove_node(self, name: str) -> Node:
        """Let a worker leave at once, its cable pulled, its pods gone, and return what it was."""
        node = self.nodes.pop(name)
        configure({self.lan: [f"link del {_port(node)}"]})
        node.close()
        return node

    def steer(self, namespace: str, v4: IPv4Address | None = None, v6: IPv6Address | None = None) -> None:
        """Send the traffic of a namespace's pods to next hops, on workers of today and later; none means nowhere."""
        self._hops[namespace] = (v4, v6)
        for node in self.nodes.values():
            node.steer(namespace, v4, v6)

    def steer_all(self) -> None:
        """Send each namespace's traffic to its tenant's next hops, as the picture has it."""
        for one in self.tenants:
            self.steer(one.namespace, one.next_hop4, one.next_hop6)

    def forward_plainly(self) -> None:
        """Make the gateway machine a mere router: forwarding on, routes to the workers of today, no translation."""
        self.gw.sysctl("net/ipv4/ip_forward", 1)
        self.gw.sysctl("net/ipv6/conf/all/forwarding", 1)
        routes = []
        for node in self.nodes.values():
            routes += [f"route replace {node.addresses.pods4} via {node.v4} dev {INNER_LINK}"]
            routes += [f"route replace {node.addresses.pods6} via {node.v6} dev {INNER_LINK}"]
        configure({self.gw: routes})

    def open_inbound(self) -> None:
        """Give the machine outside routes to the cluster network by the gateway machine: for attempts to get in."""
        hops = (addresses.UPLINK4, addresses.UPLINK6)
        configure({self.ext: [f"route replace {net} via {hop}" for net, hop in zip(CLUSTER, hops, strict=True)]})

    def release(self) -> None:
        """Let go of all namespaces without ending anything: published ones live on."""
        for net in self.nets:
            net.release()

    def close(self) -> None:
        """End all processes by their ids and let go of all namespaces."""
        self._open.close()
        for node in self.nodes.values():
            node.close()

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self, nodes: int, *, watched: bool) -> None:
        self.lan, self.wan = self._net("lan", _LAN), self._net("wan", _LAN)
        self.gw, self.ext = self._net("gw", _GATEWAY), self._net("ext", _OUTSIDE)
        if watched:  # it needs no addresses to listen, but 0.1 s to start: meanwhile the rest is built
            self._server = self._open.enter_context(Server(self.ext))
        workers = [self._make_node(f"n{index + 1}", index, None) for index in range(nodes)]
        configure(
            {
                self.lan: [
                    *_SWITCH_LINES,
                    cable(GATEWAY_PORT, 0, to=self.gw, link=INNER_LINK, mac=INNER_MAC),
                    *_plug(GATEWAY_PORT),
                    *(line for node in workers for line in _port_lines(node)),
                ],
                self.wan: [
                    *_SWITCH_LINES,
                    cable(GATEWAY_PORT, 0, to=self.gw, link=UPLINK, mac=UPLINK_MAC),
                    *_plug(GATEWAY_PORT),
                    cable("ext", 1, to=self.ext, link=LINK),
                    *_plug("ext"),
                ],
            }
        )
        self.lan.sysctl(f"net/ipv6/conf/{BRIDGE}/disable_ipv6", 0)
        for link in (INNER_LINK, UPLINK):
            self.gw.sysctl(f"net/ipv6/conf/{link}/accept_dad", 0)
        self._configure(workers, {self.lan: _LAN_LINES, self.gw: _GATEWAY_LINES, self.ext: _OUTSIDE_LINES})
        if watched:
            _ = (self.outside, self.uplink, self.inner, self.server)

    def _configure(self, nodes: Sequence[Node], others: Lines = _NOTHING) -> None:
        """Configure workers that are cabled, other machines beside them, then the workers' pods."""
        configure({**others, **{node.net: [*node.lines(), *node.pod_lines(node.pods)] for node in nodes}})
        configure({pod.net: node.inner_lines(pod) for node in nodes for pod in node.pods})

    def _make_node(self, name: str, index: int, pods_per_namespace: int | None) -> Node:
        """Make a worker and its pods in namespaces without links."""
        node = self.nodes[name] = Node(name, index)
        for namespace, hops in self._hops.items():
            node.steer(namespace, *hops)
        each = self._pods_per_namespace if pods_per_namespace is None else pods_per_namespace
        node.make(self._next_pod(namespace) for namespace in self._pods_made for _ in range(each))
        return node

    def _next_pod(self, namespace: str) -> PodPlan:
        self._pods_made[namespace] += 1
        return PodPlan(namespace=namespace, name=f"app-{self._pods_made[namespace]}")

    def _net(self, name: str, settings: Mapping[str, int]) -> Namespace:
        net = self._open.enter_context(Namespace(name))
        for path, value in settings.items():
            net.sysctl(path, value)
        return net


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """Yield two hosts joined by a cable: `eth0` of each, 192.168.99.21 and .22, fd99::21 and ::22."""
    with Namespace("left") as left, Namespace("right") as right:
        for net in (left, right):
            for path, value in ENDPOINT.items():
                net.sysctl(path, value)
        configure({left: [cable(LINK, 0, to=right, link=LINK)]})
        ends = {left: addresses.worker(0), right: addresses.worker(1)}
        configure(
            {
                net: [
                    "link set lo up",
                    f"addr add {end.v4}/24 dev {LINK}",
                    f"addr add {end.v6}/64 dev {LINK}",
                    f"link set {LINK} up",
                ]
                for net, end in ends.items()
            }
        )
        yield left, right


def _port(node: Node) -> str:
    """Return the name of a worker's port on the inner LAN."""
    return f"node{node.index}"


def _port_lines(node: Node) -> list[str]:
    """Return the settings of the inner LAN that plug in a worker."""
    mac = f"52:54:00:99:00:{node.index:02x}"
    return [cable(_port(node), 1 + node.index, to=node.net, link=LINK, mac=mac), *_plug(_port(node))]


def _plug(port: str) -> tuple[str, ...]:
    return (f"link set {port} master {BRIDGE}", f"link set {port} up")
