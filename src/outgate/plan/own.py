"""What a node's zone holds where OVN-Kubernetes' EgressIP feature is off and outgate does all of it (stance `own`).

The rows are those that the feature would make, at its priorities: exceptions for the cluster's own traffic (102), a
policy for the pods of each way (100), a translation in the gateway router for each pod, and the mark on answers to
flows from outside. So all that stands beside OVN-Kubernetes in the stance `assist` stands beside these as well.

Three things are otherwise. Pods that leave by the same nodes share a policy and an address set, so that a thousand pods
are as few policies as one. And br-ex has no flow that would give packets to other nodes this node's address, so in
shared mode they go by the management port, where the host does. And no egress IP stands on a NIC as an address, which
OVN-Kubernetes would take for the node's own then: the NIC merely answers for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from ipaddress import ip_network

from outgate.model.egress_ip import NodeSnapshot
from outgate.model.intent import Departure, Node
from outgate.model.net import Address, Answered, Prefix
from outgate.model.nics import GatewayMode
from outgate.model.ovn import Action, DropAcl, LogicalRoute, Policy, QosMark, SetMember, Snat
from outgate.model.ruleset import Element
from outgate.model.state import Resource
from outgate.model.why import Because, Finding, Severity
from outgate.plan.egress_ip import BRIDGE
from outgate.plan.held_back import hold
from outgate.plan.serving import CLUSTER_ROUTER, Served, gateway_router, management_ports, set_name

_REROUTE, EXCEPTIONS = 100, 102
_REPLY_MARK = 42  # by which answers to flows from outside are told
_GUARDING = 1000  # of the ACL that stops what is not translated
_MARKING = 103  # the priority of the row that marks them


@dataclass(frozen=True, slots=True)
class Owned:
    """What is wanted, and the snapshot as it is with that: these rows among those that the rest stands beside."""

    wants: Mapping[Resource, Because]
    snapshot: NodeSnapshot
    findings: tuple[Finding, ...]


def plan_own(snapshot: NodeSnapshot, serving: tuple[Served, ...]) -> Owned:
    """Return the rows: nothing for a pod whose way is not known, and none at all where somebody else makes them too."""
    if stranger := next((one for one in snapshot.policies if _is_of_theirs(one)), None):
        text = f"somebody else makes the rows of EgressIP too: {stranger}"
        fix = "turn OVN-Kubernetes' feature off (--enable-egress-ip=false), or let EgressRouting/default say assist"
        refusal = Finding("TwoOwners", f"Node/{snapshot.node.name}", text, Severity.REFUSAL, fix)
        return Owned({}, replace(snapshot, assignments=(), departures=()), (refusal,))
    zone = _Zone(snapshot, serving)
    zone.plan()
    policies = frozenset(one for one in zone.wants if isinstance(one, Policy))
    sets = dict(snapshot.sets)
    for one in zone.wants:
        if isinstance(one, SetMember):
            sets[one.set] = sets.get(one.set, frozenset()) | {str(one.member)}
    nodes = {ip_network(address) for one in snapshot.nodes for address in _of_node(one)}
    seen = replace(
        snapshot,
        policies=snapshot.policies | policies,
        sets=sets,
        inside=(*snapshot.inside, *sorted(nodes, key=str)),
    )
    return Owned(zone.wants, seen, tuple(zone.findings))


@dataclass(slots=True)
class _Zone:
    """The plan of one node's zone."""

    snapshot: NodeSnapshot
    serving: tuple[Served, ...]
    wants: dict[Resource, Because] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    sent: set[Address] = field(default_factory=set)  # pods that have a way

    def plan(self) -> None:
        """Fill in what is wanted."""
        if not self.serving and not self.snapshot.departures:
            return
        here = {one.address: one for one in self.serving if one.link is not None}
        for version in (4, 6):
            self._exceptions(version)
        for one in self.serving:
            self._translate(one)
        for departure in self.snapshot.departures:
            for address in departure.addresses:
                hops = self._hops(departure, address, here)
                if hops:
                    self._send(address, hops, f"EgressIP/{departure.egress_ip} is on {', '.join(departure.nodes)}")
                elif departure.nodes:
                    where = ", ".join(departure.nodes)
                    self._stop(address, f"EgressIP/{departure.egress_ip} is on {where}, and no way leads there")
                self._answers(departure, address)
        self._guests(here)
        for one in self.serving:
            if one.link is None and one.address not in self.sent:
                text = f"{one.assignment.address} of EgressIP/{one.assignment.egress_ip} is in the network of no NIC"
                self._stop(one.address, text)

    def _guests(self, here: Mapping[Address, Served]) -> None:
        """Want the way of pods that come from other nodes, and that there is one at all."""
        leaving = {address for one in self.snapshot.departures for address in one.addresses}
        coming = {one: given for one, given in here.items() if one not in leaving and not self._runs_here(one)}
        for address, one in coming.items():
            way = self._out(one)
            if way is not None:
                self._send(address, (way,), f"it comes from another node, and {one.assignment.address} is here")
        if coming:
            self._way_out()

    def _way_out(self) -> None:
        """Want a route for packets of other nodes' pods: without one they are dropped before policies are asked."""
        port = f"rtoj-{gateway_router(self.snapshot.node.name)}"
        known = {one for one in self.snapshot.routes if one.router == CLUSTER_ROUTER and one.by_source}
        for prefix in self._pods():
            for each in self.snapshot.ports.get(port, ()):
                if each.address.version == prefix.version and not each.network.is_link_local:
                    route = LogicalRoute(
                        router=CLUSTER_ROUTER,
                        prefix=prefix,
                        next_hop=str(each.address),
                        by_source=True,
                        owner=f"node:{self.snapshot.node.name}:way-out",
                    )
                    if route not in known:
                        self.wants[route] = Because("own/way-out", "pods of other nodes have an egress IP here")

    def _hops(self, departure: Departure, address: Address, here: Mapping[Address, Served]) -> tuple[Address, ...]:
        """Return where a pod's packets go from here: to the other nodes, or out."""
        found: list[Address] = []
        for name in departure.nodes:
            if name == self.snapshot.node.name:
                way = self._out(here[address]) if address in here else None
            else:
                way = self._transit(name, address.version)
            found += [way] if way is not None else []
        return tuple(sorted(found, key=int))

    def _out(self, one: Served) -> Address | None:
        """Return the next hop by which this node lets a pod out: its gateway router, or the host."""
        version = one.address.version
        if one.link != BRIDGE:
            return next((each for each in management_ports(self.snapshot.node) if each.version == version), None)
        port = f"rtoj-{gateway_router(self.snapshot.node.name)}"
        own = (each.address for each in self.snapshot.ports.get(port, ()) if each.address.version == version)
        found = next(own, None)
        if found is None:
            text = f"the zone has no port {port} with an IPv{version} address, so nothing leads to the gateway router"
            fix = "see whether this is the node's zone"
            self._say(Finding("NoGatewayRouter", self._about, text, Severity.WARNING, fix))
        return found

    def _transit(self, name: str, version: int) -> Address | None:
        """Return the address of another node's zone on the transit switch."""
        node = next((one for one in self.snapshot.nodes if one.name == name), None)
        found = next((one for one in node.transit if one.version == version), None) if node is not None else None
        if found is None:
            text = f"Node/{name} has no IPv{version} address on the transit switch, so no packet can be sent there"
            fix = "look at its annotation k8s.ovn.org/node-transit-switch-port-ifaddr"
            self._say(Finding("NoTransit", self._about, text, Severity.WARNING, fix))
        return found

    def _send(self, address: Address, hops: tuple[Address, ...], why: str) -> None:
        """Want that packets from a pod go to next hops: all pods with the same ones by one policy."""
        node, version = self.snapshot.node.name, address.version
        self.sent.add(address)
        shown = " ".join(map(str, hops))
        name = set_name(node, f"to{sha256(shown.encode()).hexdigest()[:8]}_", version)
        self.wants[SetMember(set=name, member=ip_network(address))] = Because("own/pod", why)
        policy = Policy(
            router=CLUSTER_ROUTER,
            priority=_REROUTE,
            match=f"ip{version}.src == ${name}",
            action=Action.REROUTE,
            next_hops=hops,
            owner=f"node:{node}:send:{shown}",
        )
        self.wants[policy] = Because("own/send", f"pods with an egress IP go to {shown}")

    def _stop(self, address: Address, why: str) -> None:
        """Want that a pod that should leave with an egress IP, and can not, does not leave at all."""
        self.wants |= hold(self.snapshot.node.name, address, why)

    def _translate(self, one: Served) -> None:
        """Want what gives a pod its egress IP: a row of the gateway router, or elements of the host's table."""
        node, given = self.snapshot.node.name, one.assignment
        text = f"EgressIP/{given.egress_ip} gives Pod/{one.pod.namespace}/{one.pod.name} {given.address} on this node"
        why = Because("own/translate", text)
        if one.link == BRIDGE:
            snat = Snat(
                router=gateway_router(node),
                inside=ip_network(one.address),
                outside=given.address,
                port=f"k8s-{node}",
                owner=f"node:{node}:translate:{one.address}",
            )
            self.wants[snat] = why
            self._guard(one.address, why)
        elif one.link is not None:
            version = one.address.version
            self.wants[Answered(link=one.link, address=given.address)] = Because(
                "own/address", f"{one.link} answers for {given.address} of EgressIP/{given.egress_ip}"
            )
            for element in (
                Element(f"served{version}", (one.address,)),
                Element(f"pod_own{version}", (one.address, given.address)),
                Element(f"pod_snat{version}", (one.address,), given.address),
            ):
                self.wants[element] = why

    def _guard(self, address: Address, why: Because) -> None:
        """Want that a pod's packets never leave the gateway router's side of br-ex as they are.

        A chassis does what a zone says piece by piece, and somebody might take a translation away.
        """
        node, version = self.snapshot.node.name, address.version
        name = set_name(node, "guarded", version)
        self.wants[SetMember(set=name, member=ip_network(address))] = why
        acl = DropAcl(
            switch=f"ext_{node}",
            priority=_GUARDING,
            match=f"ip{version}.src == ${name}",
            owner=f"node:{node}:guard{version}",
        )
        self.wants[acl] = Because("own/guard", "pods with an egress IP leave with it or not at all")

    def _exceptions(self, version: int) -> None:
        """Want that the cluster's own traffic, and answers to flows from outside, meet no egress IP."""
        ip = f"ip{version}"
        inside = [one for one in self._inside() if one.version == version]
        for source in (one for one in self._pods() if one.version == version):
            for target in inside:
                text = "pods and routers of the cluster never see an egress IP"
                self._allow(f"{ip}.src == {source} && {ip}.dst == {target}", text)
        self._allow(f"pkt.mark == {_REPLY_MARK}", "answers to flows from outside go back as they came")
        self._nodes(version)

    def _nodes(self, version: int) -> None:
        """Want that nodes see the address of the pod's node: by its host, or as it is where that is the way anyhow."""
        ip, node = f"ip{version}", self.snapshot.node
        addresses = {each for one in self.snapshot.nodes for each in _of_node(one) if each.version == version}
        leaving = [each for one in self.snapshot.departures for each in one.addresses if each.version == version]
        if not addresses or not leaving:
            return
        pods, nodes = set_name(node.name, "leaving", version), set_name(node.name, "nodes", version)
        why = Because("own/nodes", "nodes see the address of the pod's node")
        for address in addresses:
            self.wants[SetMember(set=nodes, member=ip_network(address))] = why
            self.wants[Element(f"node_peer{version}", (address,))] = why
        for address in leaving:
            self.wants[Element(f"departing{version}", (address,))] = why
        host = next((each for each in management_ports(node) if each.version == version), None)
        by_host = node.mode is GatewayMode.SHARED and host is not None
        policy = Policy(
            router=CLUSTER_ROUTER,
            priority=EXCEPTIONS,
            match=f"{ip}.src == ${pods} && {ip}.dst == ${nodes}",
            action=Action.REROUTE if by_host else Action.ALLOW,
            next_hops=(host,) if by_host and host is not None else (),
            owner=f"node:{node.name}:nodes{version}",
        )
        self.wants[policy] = why

    def _allow(self, match: str, text: str) -> None:
        policy = Policy(
            router=CLUSTER_ROUTER,
            priority=EXCEPTIONS,
            match=match,
            action=Action.ALLOW,
            owner=f"node:{self.snapshot.node.name}:exception",
        )
        if policy not in self.snapshot.policies:  # EgressServices need the same ones
            self.wants[policy] = Because("own/exception", text)

    def _answers(self, departure: Departure, address: Address) -> None:
        """Want that answers of a pod to flows from outside are marked where they enter its node's switch."""
        node, version = self.snapshot.node.name, address.version
        name = set_name(node, "leaving", version)
        self.wants[SetMember(set=name, member=ip_network(address))] = Because(
            "own/leaving", f"EgressIP/{departure.egress_ip} serves Pod/{departure.namespace}/{departure.name}"
        )
        if not self.snapshot.marks_answers:
            text = "this OVN can not mark answers: those of pods with an egress IP to flows from outside that came by"
            text += " another node go by the egress IP's node"
            fix = "use an OVN whose QoS rows have marks (24.03 or later)"
            self._say(Finding("AnswersNotMarked", self._about, text, Severity.NOTE, fix))
            return
        mark = QosMark(
            switch=node,
            priority=_MARKING,
            match=f"ip{version}.src == ${name} && ct.trk && ct.rpl",
            mark=_REPLY_MARK,
            owner=f"node:{node}:answers{version}",
        )
        self.wants[mark] = Because("own/answers", "answers to flows from outside go back as they came")

    def _pods(self) -> Iterable[Prefix]:
        """Return the networks of pods: what the gateway router leads into the cluster."""
        router = gateway_router(self.snapshot.node.name)
        joins = {str(each.address) for each in self.snapshot.ports.get(f"rtoj-{CLUSTER_ROUTER}", ())}
        routes = (one for one in self.snapshot.routes if one.router == router and one.next_hop in joins)
        return sorted({one.prefix for one in routes}, key=str)

    def _inside(self) -> Iterator[Prefix]:
        yield from self._pods()
        for one in self.snapshot.ports.get(f"rtoj-{CLUSTER_ROUTER}", ()):
            if not one.network.is_link_local:
                yield one.network

    def _runs_here(self, address: Address) -> bool:
        subnets = (one.prefix for one in self.snapshot.node.subnets)
        return any(one.version == address.version and address in one for one in subnets)

    def _say(self, finding: Finding) -> None:
        if finding not in self.findings:
            self.findings.append(finding)

    @property
    def _about(self) -> str:
        return f"Node/{self.snapshot.node.name}"


def _is_of_theirs(policy: Policy) -> bool:
    return policy.router == CLUSTER_ROUTER and policy.priority == _REROUTE and policy.action is Action.REROUTE


def _of_node(node: Node) -> Iterator[Address]:
    yield from node.internal_ips
    for one in node.host_cidrs:
        yield one.address
