"""Why a pod's packets leave where they leave, when an EgressIP gives them their source. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from outgate.model.egress_ip import ClusterView, Decision, EgressAnswer, EgressExplanation, Path, Place, PodNetwork
from outgate.model.host_table import HostTables
from outgate.model.intent import EgressIP, Namespace, Node, Pod
from outgate.model.net import Address, Discard, LinkName, NextHop, OnLink, Setting, Via
from outgate.model.rivals import Fate, Packet, Say
from outgate.model.routing import OnUnassigned, Semantics
from outgate.model.selector import LabelSelector
from outgate.model.why import Finding, Severity
from outgate.plan.assignment import candidates, unassigned
from outgate.plan.egress_ip import BRIDGE, Asked, EgressNodeFacts, decide
from outgate.plan.egress_size import sizes
from outgate.plan.ground import Ground
from outgate.plan.rivals import conflicts, says
from outgate.plan.routing import Routings

_NO_HOST = HostTables(links=MappingProxyType({}), routes=frozenset(), rules=frozenset())


def explain_pod(
    view: ClusterView, subject: str, destination: Address, *, protocol: str = "", port: int = 0
) -> EgressExplanation:
    """Return where the packets of a pod (NAMESPACE/POD, or an address) to a destination go, and why."""
    pod = find_pod(view, subject)
    if pod is None:
        return EgressExplanation(
            subject=subject,
            destination=destination,
            headline=f"{subject}: nobody knows such a pod",
            is_well=False,
            known=False,
        )
    words = f"{pod.namespace}/{pod.name} ({', '.join(map(str, pod.addresses))}, node {pod.node or 'unknown'})"
    asking = _Asking(view, pod, Packet(destination=destination, protocol=protocol, port=port), words)
    if exempt := asking.exempt():
        return EgressExplanation(
            subject=words, destination=destination, headline=f"{words} to {destination}: {exempt}", is_well=True
        )
    return asking.explanation()


def find_pod(view: ClusterView, subject: str) -> Pod | None:
    """Return the pod that is meant; of an address that a finished pod had, the one that has it now."""
    if "/" in subject:
        namespace, _, name = subject.partition("/")
        return next((one for one in view.intent.pods if (one.namespace, one.name) == (namespace, name)), None)
    holders = (one for one in view.intent.pods if not one.finished and not one.host_network)
    return next((one for one in holders if subject in map(str, one.addresses)), None)


def selecting(view: ClusterView, pod: Pod) -> tuple[EgressIP, ...]:
    """Return the EgressIPs that select a pod, by name: the first serves it, the others stand by."""
    namespace = next((one for one in view.intent.namespaces if one.name == pod.namespace), None)
    labels = namespace.labels if namespace is not None else ()
    return tuple(
        one
        for one in sorted(view.intent.egress_ips, key=lambda one: one.name)
        if one.namespace_selector.matches(labels) and (one.pod_selector is None or one.pod_selector.matches(pod.labels))
    )


@dataclass(slots=True)
class _Asking:
    view: ClusterView
    pod: Pod
    packet: Packet
    words: str
    ground: Ground = field(init=False)

    def __post_init__(self) -> None:
        self.ground = Ground(self.view.intent)

    @property
    def destination(self) -> Address:
        """Where the packet wants to go."""
        return self.packet.destination

    def exempt(self) -> str:
        """Return why no EgressIP has a say, whatever selects the pod; empty when one may."""
        if self.pod.host_network:
            return f"uses the network of node {self.pod.node} itself, to which no EgressIP applies"
        if self.pod.finished:
            now = find_pod(self.view, str(self.pod.addresses[0])) if self.pod.addresses else None
            heir = f"; {now.namespace}/{now.name} has its address now" if now is not None else ""
            return f"has ended, and sends nothing{heir}"
        for node in self.view.intent.nodes:
            addresses = (*node.internal_ips, *(one.address for one in node.host_cidrs))
            if self.destination in addresses:
                return f"stays in the cluster: that is node {node.name}, which sees the address of the pod's own node"
        network = self.view.intent.network
        inside = (*network.cluster_networks, *network.service_networks) if network is not None else ()
        inside += tuple(subnet.prefix for node in self.view.intent.nodes for subnet in node.subnets)
        held = next(
            (one for one in inside if one.version == self.destination.version and self.destination in one), None
        )
        return f"stays in the cluster: {held} is inside, and sees the pod's own address" if held is not None else ""

    def explanation(self) -> EgressExplanation:
        """Return the explanation for a destination outside."""
        chosen = selecting(self.view, self.pod)
        said = says(self.pod, self.packet, self.view.intent, self.view.rivals, chosen[0] if chosen else None)
        if not chosen:
            headline = _won(said, self.pod) or f"no EgressIP selects it: {self._ordinary()}"
            notes = (*self._unknown(), *self._misses())
            return replace(self._blank(headline), notes=notes, says=said, is_well=_lost(said) is None)
        first, others = chosen[0], chosen[1:]
        answers = tuple(self._answers(first)) if _lost(said) is None else ()
        decided = [finding for answer in answers for finding in answer.decision.findings]
        findings = tuple(dict.fromkeys([*unassigned(first, self.ground), *self._conflicts(first), *decided]))
        if lost := _won(said, self.pod):
            headline = f"{lost}; EgressIP/{first.name} has no say"
        elif answers:
            headline = "; or ".join(dict.fromkeys(_ending(answer) for answer in answers))
        else:
            has_family = self.destination.version in {one.version for one in first.egress_ips}
            why = "is assigned to no node" if has_family else f"has no IPv{self.destination.version} address"
            headline = f"EgressIP/{first.name} selects it, and {why}: {self._without(first)}"
        return replace(
            self._blank(headline),
            is_well=bool(answers) and not any(one.severity is not Severity.NOTE for one in findings),
            answers=answers,
            findings=findings,
            says=said,
            notes=(*self._spread(answers), *self._unknown()),
            standby=tuple(
                f"EgressIP/{one.name} selects it too: a pod has the one that OVN-Kubernetes saw first, and it does not "
                "tell which; this is the first by name"
                for one in others
            ),
        )

    def _blank(self, headline: str) -> EgressExplanation:
        return EgressExplanation(
            subject=self.words,
            destination=self.destination,
            headline=f"{self.words} to {self.destination}: {headline}",
            is_well=True,
        )

    def _answers(self, egress_ip: EgressIP) -> Iterator[EgressAnswer]:
        for node_name, address in egress_ip.assigned:
            node = next((one for one in self.view.intent.nodes if one.name == node_name), None)
            sources = [one for one in self.pod.addresses if one.version == address.version]
            if node is not None and sources and address.version == self.destination.version:
                yield self._answer(egress_ip, address, node, sources[0])

    def _answer(self, egress_ip: EgressIP, address: Address, node: Node, source: Address) -> EgressAnswer:
        host = self.view.hosts.get(node.name)
        facts = EgressNodeFacts.of(node, host if host is not None else _NO_HOST)
        asked = Asked(
            egress_ip=address,
            pod=source,
            pod_is_here=self.pod.node == node.name,
            destination=self.destination,
            network=PodNetwork.DEFAULT,
        )
        routing = self.view.routing or Routings.of(self.view.intent)[egress_ip.name]
        decision = decide(asked, facts, routing)
        if host is None:
            decision = replace(decision, findings=(*decision.findings, _unread(node)))
        size = sizes(decision, facts, is_here=asked.pod_is_here)
        decision = replace(decision, findings=(*decision.findings, *size.findings))
        today = decide(asked, facts, replace(routing, semantics=Semantics.LEGACY))
        others = tuple(one for one in candidates(address, egress_ip, self.ground) if one.node != node.name)
        return EgressAnswer(
            pod_address=source,
            egress_ip=egress_ip.name,
            address=address,
            decision=decision,
            today=today if not _same_way(today, decision) else None,
            reply=_reply(decision, facts),
            mtu=size.mtu,
            large=size.large,
            others=others,
        )

    def _conflicts(self, egress_ip: EgressIP) -> tuple[Finding, ...]:
        alone = replace(self.view.intent, pods=(self.pod,), egress_ips=(egress_ip,))
        return conflicts(alone)

    def _spread(self, answers: tuple[EgressAnswer, ...]) -> Iterator[str]:
        """Say why the source changes, where the pod has several egress IPs of the destination's family."""
        if len(answers) > 1:
            addresses = " or ".join(str(one.address) for one in answers)
            yield (
                f"each new connection takes {addresses}, by OVN's hash of it: nothing pins a pod or a destination to "
                "one of them but an EgressIP of its own with one address; `outgate egressip flows` on these nodes "
                "shows which connection took which"
            )

    def _unknown(self) -> Iterator[str]:
        yield from (f"{kind} has not been asked: {why}" for kind, why in self.view.rivals.unknown)

    def _without(self, egress_ip: EgressIP) -> str:
        """Return what becomes of packets for which no node has an egress IP."""
        routing = self.view.routing or Routings.of(self.view.intent)[egress_ip.name]
        if routing.on_unassigned is OnUnassigned.DROP:
            return "it does not leave, because its EgressRouting says onUnassigned drop"
        return self._ordinary()

    def _ordinary(self) -> str:
        return f"it leaves like any pod, as its node {self.pod.node or ''}".rstrip()

    def _misses(self) -> Iterator[str]:
        namespace = next((one for one in self.view.intent.namespaces if one.name == self.pod.namespace), None)
        for one in sorted(self.view.intent.egress_ips, key=lambda each: each.name)[:3]:
            yield f"EgressIP/{one.name} {_miss(one, self.pod, namespace)}"


def _miss(egress_ip: EgressIP, pod: Pod, namespace: Namespace | None) -> str:
    if namespace is None:
        return f"may select it: the labels of namespace {pod.namespace} are not known"
    if not egress_ip.namespace_selector.matches(namespace.labels):
        return f"wants namespaces with {_asks(egress_ip.namespace_selector)}, which {namespace.name} is not"
    wanted = _asks(egress_ip.pod_selector) if egress_ip.pod_selector is not None else "nothing"
    return f"wants pods with {wanted}, which {pod.name} is not"


def _asks(selector: LabelSelector) -> str:
    pairs = [f"{key}={value}" for key, value in selector.match_labels]
    return ", ".join([*pairs, *(f"{one.key} {one.operator.value}" for one in selector.expressions)])


def _unread(node: Node) -> Finding:
    text = f"the routes of {node.name} are not known here, so none of its host routes is counted"
    fix = f"give what `outgate node snapshot` writes on {node.name}"
    return Finding("NodeNotRead", f"Node/{node.name}", text, Severity.WARNING, fix)


def _same_way(one: Decision, other: Decision) -> bool:
    return (one.path, one.hops, one.source, one.place) == (other.path, other.hops, other.source, other.place)


def _ending(answer: EgressAnswer) -> str:
    decision = answer.decision
    if decision.hops and isinstance(decision.hops[0], Discard):
        return f"is dropped on {decision.node} ({decision.hops[0]}), as the host's routes say"
    if not decision.hops:
        return f"is dropped on {decision.node}: no route leads there"
    if not decision.arrives:
        link = decision.link
        return f"is looked for on the LAN of {link} of {decision.node}, and not found: {link} has no default route"
    where = " or ".join(map(hop_words, decision.hops))
    source = f"as {decision.source}" if decision.source is not None else "WITHOUT its egress IP, as the node"
    return f"leaves {decision.node} {where} {source}"


def hop_words(hop: NextHop) -> str:
    """Return a next hop as it reads in a sentence."""
    match hop:
        case Via(address=address, link=link):
            return f"by {link} via {address}"
        case OnLink(link=link):
            return f"by {link}, on its LAN"
        case Discard():
            return str(hop)


def _reply(decision: Decision, facts: EgressNodeFacts) -> str:
    if not decision.leaves or decision.source is None:
        return "none: nothing leaves with the egress IP"
    source, link = decision.source, decision.link
    if decision.path is Path.GATEWAY_ROUTER:
        return f"to {BRIDGE}: the gateway router answers ARP for {source}, and translates back"
    if decision.place is Place.HOST and link is not None and link != BRIDGE and _is_primary(source, facts):
        strict = _rp_filter(facts, BRIDGE)
        fate = "are dropped there: its rp_filter is strict" if strict == 1 else "are taken there too"
        return f"to {link}, if the router there knows a way to {source}; answers that come to {BRIDGE} {fate}"
    where = link or "the link that they left by"
    return f"to {where}: the host knows the flow, and translates back"


def _is_primary(address: Address, facts: EgressNodeFacts) -> bool:
    return any(one.version == address.version and address in one for one in facts.node.primary)


def _rp_filter(facts: EgressNodeFacts, link: LinkName) -> int:
    settings = facts.host.settings
    return max(settings.get((link, Setting.RP_FILTER), 0), settings.get((LinkName("all"), Setting.RP_FILTER), 0))


def _lost(said: tuple[Say, ...]) -> Say | None:
    """Return the first object that drops the packet, or sends it another way."""
    return next((one for one in said if one.fate in (Fate.DROPS, Fate.TAKES)), None)


def _won(said: tuple[Say, ...], pod: Pod) -> str:
    """Return what that object does, in a sentence; empty when there is none."""
    one = _lost(said)
    if one is None:
        return ""
    if one.fate is Fate.DROPS:
        return f"is dropped on {pod.node} by {one.about}: {one.text}"
    return f"is taken by {one.about}: {one.text}"
