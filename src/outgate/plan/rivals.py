"""Who wins for a packet that an EgressIP might serve: everything else of OVN-Kubernetes that looks at it, in its order.

Access lists come first, at the pod's own switch: EgressFirewall and NetworkPolicy can only drop. Then policies of the
router by priority: an external route (501, in local gateway mode alone), an EgressService (101), the EgressIP (100). An
EgressQoS changes a field of the packet and no way. An advertised pod network takes the node's translation away, not
that of an egress IP. Source: go-controller/pkg/types/const.go, pkg/ovn/controller/apbroute/network_client.go,
pkg/ovn/egressfirewall.go of OVN-Kubernetes (2026).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from outgate.model.intent import EgressIP, ExternalRoute, Intent, Pod
from outgate.model.nics import GatewayMode
from outgate.model.rivals import (
    EgressFirewall,
    EgressService,
    Fate,
    NetworkPolicy,
    Packet,
    PolicyRule,
    Ports,
    QosRule,
    Rivals,
    Say,
)
from outgate.model.why import Finding, Severity
from outgate.plan.selection import NamespaceIndex, PodIndex

_SHOWN = 3


def says(pod: Pod, packet: Packet, intent: Intent, rivals: Rivals, serving: EgressIP | None) -> tuple[Say, ...]:
    """Return what each object says to a packet of a pod; `serving` is the EgressIP that the pod has, if any."""
    return (*barriers(pod, packet, rivals), *takers(pod, intent, rivals, serving), *_others(pod, packet, rivals))


def barriers(pod: Pod, packet: Packet, rivals: Rivals) -> Iterator[Say]:
    """Yield what may drop the packet before any route is looked at."""
    for firewall in rivals.firewalls:
        if firewall.namespace == pod.namespace:
            yield _by_firewall(firewall, packet)
    selecting = [one for one in rivals.policies if _selects(one, pod)]
    if selecting:
        yield _by_policies(selecting, packet)


def conflicts(intent: Intent) -> tuple[Finding, ...]:
    """Return a finding for each EgressIP and each external route that select the same pods: on both."""
    if not intent.external_routes or not intent.egress_ips:
        return ()
    index, pods_in = NamespaceIndex(intent.namespaces), PodIndex(intent.pods)
    routed = [(route, frozenset(index.select(route.namespace_selector))) for route in intent.external_routes]
    found: list[Finding] = []
    for egress_ip in intent.egress_ips:
        names = index.select(egress_ip.namespace_selector)
        for route, theirs in routed:
            both = pods_in.of([name for name in names if name in theirs], egress_ip.pod_selector)
            if both:
                found += _conflict(egress_ip, route, both, intent)
    return tuple(found)


def _by_firewall(firewall: EgressFirewall, packet: Packet) -> Say:
    """Ask the rules in their order; one that nobody can judge here leaves the answer open."""
    about, unsure = f"EgressFirewall/{firewall.namespace}/{firewall.name}", ""
    for number, rule in enumerate(firewall.rules, 1):
        word = "allows" if rule.allows else "denies"
        if rule.cidr is None:
            what = rule.name or "nodes by their labels"
            unsure = unsure or f"rule {number} {word} {what}, which may be this destination"
            continue
        if rule.cidr.version != packet.destination.version or packet.destination not in rule.cidr:
            continue
        fits = _fits(rule.ports, packet)
        text = f"rule {number} {word} {rule.cidr}{_only(rule.ports)}"
        if fits and not (unsure and not rule.allows):
            return Say(about=about, fate=Fate.PASSES if rule.allows else Fate.DROPS, text=text)
        if fits:
            return Say(about=about, fate=Fate.MAY_DROP, text=f"{unsure}; else {text}")
        if fits is None:
            unsure = unsure or text
    if unsure:
        return Say(about=about, fate=Fate.MAY_DROP, text=unsure)
    return Say(about=about, fate=Fate.PASSES, text="no rule names the destination")


def _by_policies(selecting: list[NetworkPolicy], packet: Packet) -> Say:
    """Ask all policies that select the pod at once: what one of them allows is allowed."""
    names = [f"{one.namespace}/{one.name}" for one in selecting]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    about = f"NetworkPolicy/{', '.join(names[:_SHOWN])}{more}"
    open_: list[PolicyRule] = []
    for policy in selecting:
        for number, rule in enumerate(policy.rules, 1):
            if not (rule.anywhere or any(packet.destination in block for block in rule.blocks)):
                continue
            fits = _fits(rule.ports, packet)
            if fits:
                text = f"egress rule {number} of {policy.name} allows {packet.destination}{_only(rule.ports)}"
                return Say(about=about, fate=Fate.PASSES, text=text)
            if fits is None:
                open_.append(rule)
    if open_:
        ports = tuple(dict.fromkeys(port for rule in open_ for port in rule.ports))
        return Say(about=about, fate=Fate.MAY_DROP, text=f"allows {packet.destination}{_only(ports)}")
    return Say(about=about, fate=Fate.DROPS, text=f"no egress rule allows {packet.destination}")


def _fits(ports: tuple[Ports, ...], packet: Packet) -> bool | None:
    """Return whether a packet has one of these ports (none: any); None where that has not been said."""
    if not ports:
        return True
    answers = [one.holds(packet.protocol, packet.port) for one in ports]
    return True if True in answers else None if None in answers else False


def _only(ports: tuple[Ports, ...]) -> str:
    words = []
    for one in ports:
        span = f" {one.first}" + (f"-{one.last}" if one.last > one.first else "") if one.first else ""
        words.append(f"{one.protocol or 'any protocol'}{span}")
    return f", only {', '.join(words)}" if words else ""


def _selects(policy: NetworkPolicy, pod: Pod) -> bool:
    return policy.namespace == pod.namespace and (policy.pods is None or policy.pods.matches(pod.labels))


def takers(pod: Pod, intent: Intent, rivals: Rivals, serving: EgressIP | None) -> Iterator[Say]:
    """Yield what may send the packet another way, the highest priority first."""
    labels = next((one.labels for one in intent.namespaces if one.name == pod.namespace), ())
    for route in intent.external_routes:
        if route.namespace_selector.matches(labels):
            fate, text = _by_route(pod, route, intent, serving)
            yield Say(about=f"AdminPolicyBasedExternalRoute/{route.name}", fate=fate, text=text)
    for service in rivals.services:
        if service.namespace == pod.namespace:
            yield _by_service(service, pod)


def _by_route(pod: Pod, route: ExternalRoute, intent: Intent, serving: EgressIP | None) -> tuple[Fate, str]:
    hops = ", ".join(map(str, route.next_hops)) or "its dynamic next hops"
    mode = next((one.mode for one in intent.nodes if one.name == pod.node), None)
    if serving is None or serving.yields_to_external_route(pod.node, mode):
        by = "policy 501 of local gateway mode" if mode is GatewayMode.LOCAL else f"the gateway router of {pod.node}"
        return Fate.TAKES, f"{by} sends to {hops}, and translations of the pod are deleted there"
    where = ", ".join(sorted({node for node, _ in serving.assigned}))
    return Fate.YIELDS, f"in shared gateway mode the route counts on {pod.node}, and the EgressIP leads to {where}"


def _by_service(service: EgressService, pod: Pod) -> Say:
    about = f"EgressService/{service.namespace}/{service.name}"
    if not service.by_address:
        return Say(about=about, fate=Fate.YIELDS, text="it chooses a network (sourceIPBy Network), and no address")
    if not service.pods:
        text = f"its pods leave by policy 101, before the EgressIP; the selector of Service {service.name} is unknown"
        return Say(about=about, fate=Fate.YIELDS, text=text)
    labels = dict(pod.labels)
    if any(labels.get(key) != value for key, value in service.pods):
        return Say(about=about, fate=Fate.YIELDS, text=f"the pod is not behind Service {service.name}")
    if not service.host:
        return Say(about=about, fate=Fate.YIELDS, text="no node has it")
    shown = ", ".join(map(str, service.addresses)) or "the Service's address"
    text = f"policy 101 comes before the EgressIP (100): it leaves {service.host} as {shown}"
    return Say(about=about, fate=Fate.TAKES, text=text)


def _others(pod: Pod, packet: Packet, rivals: Rivals) -> Iterator[Say]:
    for qos in rivals.qos:
        rule = next((one for one in qos.rules if qos.namespace == pod.namespace and _marks(one, pod, packet)), None)
        if rule is not None:
            about = f"EgressQoS/{qos.namespace}/{qos.name}"
            yield Say(about=about, fate=Fate.MARKS, text=f"DSCP {rule.dscp}; its way and source stay the same")
    for one in rivals.advertisements:
        text = "pods of the advertised network leave with their own address, except where an EgressIP serves them"
        yield Say(about=f"RouteAdvertisements/{one.name}", fate=Fate.YIELDS, text=text)


def _marks(rule: QosRule, pod: Pod, packet: Packet) -> bool:
    to = packet.destination
    is_there = rule.cidr is None or (rule.cidr.version == to.version and to in rule.cidr)
    return is_there and (rule.pods is None or rule.pods.matches(pod.labels))


def _conflict(egress_ip: EgressIP, route: ExternalRoute, both: Iterable[Pod], intent: Intent) -> Iterator[Finding]:
    """Yield the conflict of both objects: who wins for which of the pods they share, and why."""
    fates: dict[tuple[Fate, str], list[Pod]] = defaultdict(list)
    for pod in both:
        fates[_by_route(pod, route, intent, egress_ip)].append(pod)
    words = [
        f"{'the route' if fate is Fate.TAKES else 'the EgressIP'} wins for {_listed(pods)} ({how})"
        for (fate, how), pods in fates.items()
    ]
    number = sum(map(len, fates.values()))
    pair = ((egress_ip, f"EgressIP/{egress_ip.name}"), (route, f"AdminPolicyBasedExternalRoute/{route.name}"))
    for (one, about), (_, other) in (pair, pair[::-1]):
        text = f"{other} selects {number} of its pods too: {'; '.join(words)}"
        fix = "let one of the two not select the pods"
        yield Finding("Conflict", about, text, Severity.REFUSAL, fix, one.origin)


def _listed(pods: list[Pod]) -> str:
    shown = ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods[:_SHOWN])
    return shown + (f" and {len(pods) - _SHOWN} more" if len(pods) > _SHOWN else "")
