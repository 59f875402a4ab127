"""Which live flows leave as which egress IP, how near its ports are to their end, and which leave as somebody else.

Connection tracking keeps the translation of a flow for its life. So a flow that was opened before an egress IP came,
moved or went leaves as it did then, and a new pod's first flows may leave as the node. The kernel needs a source port
of its own for each flow to one address and port: there are 64,512, and as they come to their end it gives up looking
for a free one and drops the first packet. Source: nf_nat_l4proto_unique_tuple of Linux. OVN's zones are in the same
table: a flow that no zone translates is in its pod's zone, and says nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from outgate.model.egress_flows import AddressUse, Astray, EgressFlows, PodUse, PortUse, Remote
from outgate.model.errors import IntentError
from outgate.model.flow import Flow, TcpState
from outgate.model.intent import Intent, Pod
from outgate.model.net import Address, Prefix
from outgate.model.rivals import EgressService
from outgate.model.why import Finding
from outgate.plan.selection import NamespaceIndex, PodIndex

PORTS = 64_512  # 1024 to 65535: what the kernel chooses from for a flow whose own port is one of these
_NEARLY = 0.8  # from here on people should know
_TOP = 5
_ENDING = {TcpState.FIN_WAIT, TcpState.LAST_ACK, TcpState.TIME_WAIT, TcpState.CLOSE}
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmpv6"}
_MASQUERADE: tuple[Prefix, ...] = (ip_network("169.254.0.0/16"), ip_network("fd69::/112"))  # between OVN and its host


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What connection tracking holds: its entries one by one, how many there are, and how many it takes."""

    flows: Iterable[Flow]
    entries: int
    limit: int


def egress_flows(
    intent: Intent, node: str, held: Held, only: str = "", *, services: Collection[EgressService] = ()
) -> EgressFlows:
    """Return what the flows of a node say; `only` names one EgressIP, empty: all. Pods may leave with the addresses of
    `services` as well.

    Raises:
        IntentError: there is no such Node.
    """
    if node not in (one.name for one in intent.nodes):
        names = ", ".join(one.name for one in intent.nodes[:5]) or "none"
        raise IntentError(f"there is no Node {node!r}; there are {names}: name it with --node")
    known = _Known.of(intent, node)
    known.others = frozenset(address for one in services for address in one.addresses)
    taken: dict[Address, dict[Remote, dict[int, _Port]]] = defaultdict(lambda: defaultdict(dict))
    by_pod: dict[tuple[str, Address], Counter[Remote]] = defaultdict(Counter)
    astray: list[Astray] = []
    for flow in held.flows:
        source, seen_as = flow.original.src, flow.reply.dst
        if seen_as == source or not known.is_pods(source) or (only and not known.is_about(source, seen_as, only)):
            continue
        pod, remote = known.pods.get(source), _remote(flow)
        name = f"{pod.namespace}/{pod.name}" if pod is not None else f"nobody ({source})"
        text = known.amiss(flow)
        if text and flow.tcp_state not in _ENDING:
            astray.append(Astray(pod=name, flow=flow, text=text))
        if seen_as in known.owners:
            taken[seen_as][remote][flow.reply.dst_port] = _Port(name, flow.tcp_state in _ENDING)
            by_pod[name, seen_as][remote] += 1
    addresses = tuple(_use(one, known, taken[one]) for one in sorted(taken, key=str))
    return EgressFlows(
        node=node,
        entries=held.entries,
        limit=held.limit,
        addresses=addresses,
        pods=tuple(_pod_uses(by_pod)),
        astray=tuple(astray),
        findings=(*_exhaustion(addresses), *_strays(astray), *_full(node, held)),
    )


@dataclass(frozen=True, slots=True)
class _Port:
    pod: str
    ending: bool


@dataclass(slots=True)
class _Known:
    """Whose address is whose: pods that live, egress IPs, and what nodes have themselves."""

    here: str
    pods: dict[Address, Pod] = field(default_factory=dict)
    may_have: dict[Address, dict[Address, str]] = field(default_factory=lambda: defaultdict(dict))  # to its node
    served_by: dict[Address, set[str]] = field(default_factory=lambda: defaultdict(set))
    owners: dict[Address, str] = field(default_factory=dict)
    nodes: dict[Address, str] = field(default_factory=dict)
    others: frozenset[Address] = frozenset()  # of EgressServices
    inside: tuple[Prefix, ...] = ()

    @classmethod
    def of(cls, intent: Intent, here: str) -> _Known:
        """Return what the objects say; a pod that several EgressIPs select may have the addresses of each."""
        known = cls(here)
        index, pods_in = NamespaceIndex(intent.namespaces), PodIndex(intent.pods)
        known.pods = {address: pod for pod in pods_in.all() for address in pod.addresses}
        for one in intent.egress_ips:
            known.owners.update(dict.fromkeys(one.egress_ips, one.name))
            for pod in pods_in.of(index.select(one.namespace_selector), one.pod_selector):
                for address in pod.addresses:
                    mine = {each: place for place, each in one.assigned if each.version == address.version}
                    known.may_have[address].update(mine)
                    known.served_by[address].add(one.name)
        for node in intent.nodes:
            own = (*node.internal_ips, *(one.address for one in node.host_cidrs))
            known.nodes.update(dict.fromkeys(own, node.name))
        network = intent.network
        subnets = [subnet.prefix for node in intent.nodes for subnet in node.subnets if subnet.network == "default"]
        known.inside = (*(network.cluster_networks if network is not None else ()), *subnets)
        return known

    def is_pods(self, source: Address) -> bool:
        """Whether a source is a pod's, of today or of yesterday."""
        return source in self.pods or any(one.version == source.version and source in one for one in self.inside)

    def is_about(self, source: Address, seen_as: Address, name: str) -> bool:
        """Whether a flow has to do with one EgressIP: it leaves as one of its addresses, or should."""
        return self.owners.get(seen_as) == name or name in self.served_by.get(source, ())

    def amiss(self, flow: Flow) -> str:
        """Return why a translated flow should not leave as it does; empty when it may."""
        source, seen_as, to = flow.original.src, flow.reply.dst, flow.reply.src
        allowed: Mapping[Address, str] = self.may_have.get(source, {})
        place = allowed.get(seen_as, self.here)
        if place != self.here:
            return f"leaves here as {seen_as}, which is on {place} now, where answers come to"
        if seen_as in allowed or seen_as in self.others or to in self.nodes:
            return ""
        if any(one.version == seen_as.version and seen_as in one for one in _MASQUERADE):
            return ""
        should = " or ".join(map(str, sorted(allowed, key=int)))
        if seen_as in self.nodes:
            return f"leaves as node {self.nodes[seen_as]}, and new flows as {should}" if allowed else ""
        whose = f"EgressIP/{self.owners[seen_as]}" if seen_as in self.owners else "no EgressIP any more"
        now = f"new flows leave as {should}" if allowed else "its pod has no egress IP now"
        if source not in self.pods:
            now = "no pod has its source any more"
        return f"leaves as {seen_as} of {whose}; {now}"


def _remote(flow: Flow) -> Remote:
    port = flow.reply.src_port if flow.icmp is None else 0
    return Remote(_PROTOCOLS.get(flow.protocol, str(flow.protocol)), flow.reply.src, port)


def _use(address: Address, known: _Known, remotes: Mapping[Remote, Mapping[int, _Port]]) -> AddressUse:
    uses = [
        PortUse(
            remote=remote,
            ports=len(ports),
            ending=sum(one.ending for one in ports.values()),
            pods=tuple(Counter(one.pod for one in ports.values()).most_common(_TOP)),
        )
        for remote, ports in remotes.items()
    ]
    return AddressUse(
        egress_ip=known.owners[address],
        address=address,
        flows=sum(one.ports for one in uses),
        pods=len({one.pod for ports in remotes.values() for one in ports.values()}),
        remotes=tuple(sorted(uses, key=lambda one: (-one.ports, str(one.remote)))),
    )


def _pod_uses(by_pod: Mapping[tuple[str, Address], Counter[Remote]]) -> Iterator[PodUse]:
    order = sorted(by_pod.items(), key=lambda one: (-one[1].total(), one[0][0], str(one[0][1])))
    for (pod, seen_as), remotes in order:
        yield PodUse(pod=pod, seen_as=seen_as, flows=remotes.total(), remotes=tuple(remotes.most_common(_TOP)))


def _exhaustion(addresses: Iterable[AddressUse]) -> Iterator[Finding]:
    for address in addresses:
        for one in address.remotes:
            if one.remote.port and one.ports >= _NEARLY * PORTS:
                who = ", ".join(f"{pod} {number:,}" for pod, number in one.pods)
                text = (
                    f"{address.address} has {one.ports:,} of {PORTS:,} ports in use to {one.remote}, of which "
                    f"{one.ending:,} only wait to end; most are of {who}: the nearer the end, the more new "
                    "connections there are dropped"
                )
                fix = "let these pods keep connections open, or share the load among more egress IPs"
                yield Finding("PortsRunOut", f"EgressIP/{address.egress_ip}", text, fix=fix)


def _strays(astray: Iterable[Astray]) -> Iterator[Finding]:
    by_text: dict[tuple[str, str], int] = Counter((one.pod, one.text) for one in astray)
    for (pod, text), number in by_text.items():
        flows = "1 flow" if number == 1 else f"{number:,} flows, each of which"
        fix = "end the connection, in the pod or with `conntrack -D`: only a new one gets another address"
        yield Finding("FlowAstray", f"Pod/{pod}", f"{flows} {text}", fix=fix)


def _full(node: str, held: Held) -> Iterator[Finding]:
    if held.limit and held.entries >= _NEARLY * held.limit:
        text = f"connection tracking has {held.entries:,} entries of {held.limit:,}; once full, new flows are dropped"
        fix = "raise net.netfilter.nf_conntrack_max"
        yield Finding("TrackingNearlyFull", f"Node/{node}", text, fix=fix)
