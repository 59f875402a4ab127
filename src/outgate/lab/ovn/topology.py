"""A small OVN-Kubernetes cluster: nodes with two NICs and pods, each its own OVN zone, and the world outside.

    with OvnLaboratory() as lab:
        pod = lab.node("n1").pods[0]
        pod.agent.fetch(addresses.OUTSIDE[0])    # seen there as n1's own address, as without an EgressIP

It is up in about a second. What OVN-Kubernetes programs for an EgressIP is in `outgate.lab.ovn.today`. The switches
run in user space, which any kernel can carry; packet marks do not survive the way from there into the kernel. Where
the kernel has Open vSwitch's datapath (`Datapath.KERNEL`), they do, as on the nodes of a real cluster.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from outgate.lab.agent import Agent
from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace
from outgate.lab.node import ENDPOINT
from outgate.lab.outside import Server, SourceCounter
from outgate.lab.ovn import addresses, bridge, host, northbound
from outgate.lab.ovn.addresses import BRIDGE, MANAGEMENT_PORT, SECONDARY_NIC, NodeAddresses, Pair, mac_of
from outgate.lab.ovn.programs import LIMIT_S, Programs
from outgate.lab.waiting import eventually

_UPLINK = "eth0"
_SWITCHES = ("primary", "secondary")
_LAN = {
    "net/ipv6/conf/default/disable_ipv6": 1,
    **{f"net/bridge/bridge-nf-call-{table}tables": 0 for table in ("ip", "ip6", "arp")},
}
_MACHINE = ENDPOINT | {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
_OUTSIDE = _MACHINE | {"net/ipv4/conf/all/arp_ignore": 1}  # an address is answered for only on the LAN where it is
_COPY_GUARD = """
table netdev lab_copies {
  chain arrived {
    type filter hook ingress device "eth0" priority 0; policy drop;
  }
}
"""  # a switch in user space gets copies: without this the kernel would answer to every frame a second time


class Datapath(Enum):
    """What forwards a switch's packets, in Open vSwitch's own words."""

    USER = "netdev"  # ovs-vswitchd itself
    KERNEL = "system"  # the kernel's modules openvswitch and vport-geneve, which have to be loaded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OvnPod:
    """A pod: its name, its node, its addresses, its network namespace, and the agent that acts inside it."""

    name: str
    node: str
    addresses: Pair
    net: Namespace
    agent: Agent

    @property
    def port(self) -> str:
        """Its logical switch port, named as OVN-Kubernetes does."""
        return f"{NAMESPACE}_{self.name}"


NAMESPACE = "shop"  # of all pods


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OvnNode:
    """A node: its addresses, its network namespace, the programs of its switch and zone, and its pods."""

    name: str
    at: NodeAddresses
    net: Namespace
    programs: Programs
    pods: tuple[OvnPod, ...]

    def ip(self, *lines: str) -> None:
        """Carry out lines of `ip -batch` on the node."""
        configure({self.net: lines})


class OvnLaboratory:
    """The cluster, live. It ends with the process that made it."""

    def __init__(
        self,
        *,
        nodes: int = 2,
        pods: int = 2,
        local: bool = False,
        egress_ip: bool = True,
        datapath: Datapath = Datapath.USER,
    ) -> None:
        """Build it with so many nodes and pods on each; `local` is the gateway mode of all nodes, and `egress_ip` says
        whether OVN-Kubernetes' feature of that name is on.

        Raises:
            PermissionError: the process is not root.
        """
        self._open, self._egress_ip, self._datapath = contextlib.ExitStack(), egress_ip, datapath
        self._marking: set[str] = set()  # nodes whose packets to nodes go by a mark
        try:
            self._place = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="outgate-ovn-")))
            plans = [NodeAddresses(name=f"n{number + 1}", number=number) for number in range(nodes)]
            self.switches = {name: self._net(f"{name}-lan", _LAN) for name in _SWITCHES}
            self.ext = self._net("ext", _OUTSIDE)
            self.nodes = {plan.name: self._make(plan, pods) for plan in plans}
            self._cable()
            self._start(plans)
            self.set_mode(local=local)
        except BaseException:
            self.close()
            raise

    @property
    def pods(self) -> tuple[OvnPod, ...]:
        """All pods, by node."""
        return tuple(pod for node in self.nodes.values() for pod in node.pods)

    def node(self, name: str) -> OvnNode:
        """Return a node by its name."""
        return self.nodes[name]

    @functools.cached_property
    def by_default(self) -> SourceCounter:
        """What arrives outside by the router of the default routes."""
        return SourceCounter(self.ext, "eth0")

    @functools.cached_property
    def by_secondary(self) -> SourceCounter:
        """What arrives outside from the secondary LAN."""
        return SourceCounter(self.ext, "eth1")

    @functools.cached_property
    def by_other(self) -> SourceCounter:
        """What arrives outside by the other router of the primary LAN."""
        return SourceCounter(self.ext, "eth2")

    @functools.cached_property
    def server(self) -> Server:
        """The server outside, listening."""
        server = self._open.enter_context(Server(self.ext))
        server.wait_until_ready()
        return server

    @functools.cached_property
    def outsider(self) -> Agent:
        """An agent outside."""
        return self._open.enter_context(Agent(self.ext))

    def set_mode(self, *, local: bool, of: str | None = None) -> None:
        """Bring all nodes, or one, into local or shared gateway mode."""
        for node in self.nodes.values():
            if of in (None, node.name):
                node.programs.nbctl(*northbound.subnet_routes(node.at, local=local, old=True))
                node.programs.nbctl(*northbound.subnet_routes(node.at, local=local))
                node.net.run(("nft", "-f", "-"), input=host.table(node.at, local=local, egress_ip=self._egress_ip))
                self._set_marks(node, marking=local and self._egress_ip)
        self.settle()

    def settle(self) -> None:
        """Return once every switch holds what the northbound databases say."""
        for node in self.nodes.values():
            node.programs.settle()

    def close(self) -> None:
        """End all programs and let go of all namespaces."""
        self._open.close()

    def __enter__(self) -> OvnLaboratory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _set_marks(self, node: OvnNode, *, marking: bool) -> None:
        """Let packets of pods with an egress IP to nodes, which bear a mark, go by the main table, or no more."""
        if marking is not (node.name in self._marking):
            verb = "add" if marking else "del"
            rule = f"rule {verb} priority {host.MARKED_PRIORITY} fwmark {host.TO_NODES_MARK:#x} lookup main"
            node.ip(rule, f"-6 {rule}")
            node.net.sysctl("net/ipv4/conf/all/src_valid_mark", int(marking))
            self._marking ^= {node.name}

    def _net(self, name: str, settings: Mapping[str, int]) -> Namespace:
        net = self._open.enter_context(Namespace(name))
        for path, value in settings.items():
            net.sysctl(path, value)
        return net

    def _make(self, plan: NodeAddresses, pods: int) -> OvnNode:
        net = self._net(plan.name, _MACHINE)
        place = self._place / plan.name
        place.mkdir()
        made = []
        for number in range(pods):
            pod = self._net(f"{plan.name}-pod{number}", ENDPOINT)
            agent = self._open.enter_context(Agent(pod))
            name = f"p{plan.number + 1}{number + 1}"
            made.append(OvnPod(name=name, node=plan.name, addresses=plan.pod(number), net=pod, agent=agent))
        return OvnNode(name=plan.name, at=plan, net=net, programs=Programs(net, place), pods=tuple(made))

    def _cable(self) -> None:
        """Plug in all cables, and give every end its addresses and what it needs to be honest about checksums."""
        lines: dict[Namespace, list[str]] = {net: _switch_lines() for net in self.switches.values()}
        for number, (lan, link) in enumerate((("primary", "eth0"), ("secondary", "eth1"), ("primary", "eth2"))):
            own = {"eth0": mac_of(addresses.ROUTER[0]), "eth2": mac_of(addresses.OTHER_ROUTER[0])}.get(link, "")
            lines[self.switches[lan]] += [cable(f"ext{link}", number, to=self.ext, link=link, mac=own)]
            lines[self.switches[lan]] += _plug(f"ext{link}")
        for node in self.nodes.values():
            for lan, link in zip(_SWITCHES, (_UPLINK, SECONDARY_NIC), strict=True):
                port = f"{node.name}-{link}"
                lines[self.switches[lan]] += [cable(port, 10 + node.at.number, to=node.net, link=link), *_plug(port)]
            lines[node.net] = [
                line
                for number, pod in enumerate(node.pods)
                for line in (
                    cable(pod.name, 10 + number, to=pod.net, link="eth0", mac=mac_of(pod.addresses[0])),
                    f"link set {pod.name} mtu {northbound.MTU} up addrgenmode none",
                )
            ]
        configure(lines)
        configure({self.ext: _ext_lines(), **{pod.net: _pod_lines(pod, self.nodes[pod.node].at) for pod in self.pods}})
        configure({node.net: _nic_lines(node.at) for node in self.nodes.values()})
        if self._datapath is Datapath.USER:
            self._plain_checksums()

    def _plain_checksums(self) -> None:
        """Turn off what a kernel leaves to its NICs: a switch in user space sends frames as it gets them."""
        ends = [(self.ext, "eth0"), (self.ext, "eth1"), (self.ext, "eth2")]
        ends += [(net, f"ext{link}") for net, link in zip(self._lans(), ("eth0", "eth1", "eth2"), strict=True)]
        for node in self.nodes.values():
            ends += [(node.net, _UPLINK), (node.net, SECONDARY_NIC)]
            ends += [(self.switches["primary"], f"{node.name}-{_UPLINK}")]
            ends += [(self.switches["secondary"], f"{node.name}-{SECONDARY_NIC}")]
            ends += [end for pod in node.pods for end in ((node.net, pod.name), (pod.net, "eth0"))]
        off = [word for feature in ("tx", "tso", "gso", "gro") for word in (feature, "off")]
        quiet = subprocess.DEVNULL  # it tells what it has turned off
        started = [net.popen(("ethtool", "-K", link, *off), stdout=quiet) for net, link in ends]
        for child in started:
            assert child.wait() == 0, child.args

    def _lans(self) -> tuple[Namespace, Namespace, Namespace]:
        return self.switches["primary"], self.switches["secondary"], self.switches["primary"]

    def _start(self, plans: Sequence[NodeAddresses]) -> None:
        for node in self.nodes.values():
            node.programs.start_databases()
            node.programs.start_northd()
            self._start_switch(node)
        for node in self.nodes.values():
            pods = [(pod.port, pod.addresses) for pod in node.pods]
            node.programs.nbctl(*northbound.zone(node.at, plans, pods, egress_ip=self._egress_ip))
            for other in self.nodes.values():
                if other is not node:
                    node.programs.sbctl(*northbound.chassis_of(other.at))
            node.programs.start_controller()
        for node in self.nodes.values():
            self._join_zones(node, plans)
        for node in self.nodes.values():
            what = f"{node.name} has the patch port of br-ex"
            patch = eventually(functools.partial(_patch_of, node), what, within_s=LIMIT_S)
            node.programs.replace_flows(BRIDGE, bridge.flows(node.at, patch, egress_ip=self._egress_ip))

    def _start_switch(self, node: OvnNode) -> None:
        node.programs.vsctl("--no-wait", *_switch_words(node, self._datapath.value))
        node.programs.start_switch()
        ports = [word for pod in node.pods for word in _port_words(pod)]
        node.programs.vsctl(f"--timeout={LIMIT_S}", *_management_words(node), *ports)
        at = node.at
        node.ip(
            f"link set {BRIDGE} up",  # with a link-local address: from it a forwarder asks for neighbours
            f"addr add {at.primary[0]}/24 dev {BRIDGE}",
            f"addr add {at.primary[1]}/64 dev {BRIDGE} nodad",
            f"route add default via {addresses.ROUTER[0]} dev {BRIDGE}",
            f"route add default via {addresses.ROUTER[1]} dev {BRIDGE}",
            f"link set {MANAGEMENT_PORT} up",
            f"addr add {at.management[0]}/24 dev {MANAGEMENT_PORT}",
            f"addr add {at.management[1]}/64 dev {MANAGEMENT_PORT} nodad",
            *(
                f"route add {cluster} via {hop} dev {MANAGEMENT_PORT}"
                for cluster, hop in zip(addresses.CLUSTER, at.gateway, strict=True)
            ),
        )
        for link in (BRIDGE, MANAGEMENT_PORT, SECONDARY_NIC):
            node.net.sysctl(f"net/ipv4/conf/{link}/rp_filter", 0)
        if self._datapath is Datapath.USER:
            node.net.run(("nft", "-f", "-"), input=_COPY_GUARD)

    def _join_zones(self, node: OvnNode, plans: Sequence[NodeAddresses]) -> None:
        """Bind the transit ports of other zones to their chassis, which nobody but OVN-Kubernetes does."""
        programs = node.programs
        programs.nbctl(f"--timeout={LIMIT_S}", "--wait=sb", "sync")
        for port, chassis in northbound.remote_ports(node.at, plans):
            uuid = programs.sbctl("--bare", "--columns=_uuid", "find", "chassis", f"name={chassis}").strip()
            programs.sbctl("set", "port_binding", port, f"chassis={uuid}")


def _switch_lines() -> list[str]:
    return [
        "link set lo up",
        "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
        "link set br0 up",
    ]


def _plug(port: str) -> list[str]:
    return [f"link set {port} master br0", f"link set {port} up"]


def _ext_lines() -> list[str]:
    links = zip(
        ("eth0", "eth2", "eth1"),
        (addresses.ROUTER, addresses.OTHER_ROUTER, addresses.SECONDARY_ROUTER),
        strict=True,
    )
    own = [
        line
        for link, pair in links
        for line in (
            f"addr add {pair[0]}/24 dev {link}",
            f"addr add {pair[1]}/64 dev {link} nodad",
            f"link set {link} up",
        )
    ]
    far = ["link add far0 type veth peer name far1", "link set far1 up", "link set far0 up"]
    beyond = [f"addr add {one}/32 dev far0" for one, _ in (addresses.OUTSIDE, addresses.PARTNER)]
    beyond += [f"addr add {one}/128 dev far0 nodad" for _, one in (addresses.OUTSIDE, addresses.PARTNER)]
    return ["link set lo up", *own, *far, *beyond]


def _pod_lines(pod: OvnPod, at: NodeAddresses) -> list[str]:
    v4, v6 = pod.addresses
    return [
        "link set lo up",
        f"link set eth0 mtu {northbound.MTU} addrgenmode none",
        f"addr add {v4}/24 dev eth0",
        f"addr add {v6}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {at.gateway[0]} dev eth0",
        f"route add default via {at.gateway[1]} dev eth0",
    ]


def _nic_lines(at: NodeAddresses) -> list[str]:
    return [
        "link set lo up",
        f"link set {_UPLINK} up addrgenmode none",
        f"link set {SECONDARY_NIC} up",
        f"addr add {at.secondary[0]}/24 dev {SECONDARY_NIC}",
        f"addr add {at.secondary[1]}/64 dev {SECONDARY_NIC} nodad",
    ]


def _switch_words(node: OvnNode, datapath: str) -> Iterator[str]:
    """Yield the arguments of ovs-vsctl that make the two bridges and tell ovn-controller what it is."""
    at, kind = node.at, f"datapath_type={datapath}"
    yield from ("init", "--", "set", "Open_vSwitch", ".", f"external_ids:system-id={node.name}")
    yield f"external_ids:ovn-remote=unix:{node.programs.southbound}"
    yield from ("external_ids:ovn-encap-type=geneve", f"external_ids:ovn-encap-ip={at.primary[0]}")
    yield f"external_ids:ovn-bridge-datapath-type={datapath}"
    yield f"external_ids:ovn-bridge-mappings=physnet:{BRIDGE}"
    yield from ("external_ids:ovn-monitor-all=true", "external_ids:ovn-is-interconn=true")
    yield from ("--", "add-br", "br-int", "--", "set", "bridge", "br-int", kind, "fail_mode=secure")
    yield from ("--", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, kind)
    yield f"other-config:hwaddr={mac_of(at.primary[0])}"
    yield from ("--", "add-port", BRIDGE, _UPLINK, "--", "set", "interface", _UPLINK)
    yield f"ofport_request={bridge.UPLINK_PORT}"


def _management_words(node: OvnNode) -> Iterator[str]:
    yield from ("add-port", "br-int", MANAGEMENT_PORT, "--", "set", "interface", MANAGEMENT_PORT, "type=internal")
    yield from (f"external_ids:iface-id=k8s-{node.name}", f'mac="{mac_of(node.at.management[0])}"')
    yield f"mtu_request={northbound.MTU}"


def _port_words(pod: OvnPod) -> Iterator[str]:
    yield from ("--", "add-port", "br-int", pod.name, "--", "set", "interface", pod.name)
    yield f"external_ids:iface-id={pod.port}"


def _patch_of(node: OvnNode) -> str:
    """Return the OpenFlow number of the port that leads from br-ex to br-int; empty while there is none."""
    words = ("--format=csv", "--no-headings", "--columns=name,ofport", "find", "interface", "type=patch")
    for line in node.programs.vsctl(*words).splitlines():
        name, _, number = line.partition(",")  # a port that is not open yet has no number
        if name.startswith(f"patch-{BRIDGE}_") and number.isdigit():
            return number
    return ""
