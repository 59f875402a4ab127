"""Who leaves as somebody else: pods of namespaces with an EgressIP that do not have it, and why.

What stands here lasts as long as the objects stand so. What is over in a moment (a new pod whose rows OVN-Kubernetes
has not made yet, a flow that was opened before) is seen in the flows and tables of the node alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outgate.model.egress_ip import ClusterView
from outgate.model.host_table import EGRESS_IP_PRIORITY, Translations
from outgate.model.intent import EgressIP, Node, Pod
from outgate.model.net import Address, LinkName
from outgate.model.nics import GatewayMode
from outgate.model.rivals import Fate
from outgate.model.routing import OnUnassigned
from outgate.model.unserved import Leaving, Unserved
from outgate.plan.egress_ip import BRIDGE, EgressNodeFacts, hosting_nic
from outgate.plan.rivals import takers
from outgate.plan.routing import Routings
from outgate.plan.selection import NamespaceIndex

_OUR_PRIORITY = 5998  # of the rules that an assisting node has beside OVN-Kubernetes' own


def unserved(view: ClusterView, seen: Address | None = None) -> Unserved:
    """Return the pods that leave as somebody else; with `seen`, those only that are seen as it."""
    known = _Known.of(view)
    every = sorted(_leaving(known), key=lambda one: (one.is_meant, one.pod, str(one.address)))
    if seen is None:
        return Unserved(leaving=tuple(every))
    shown = tuple(one for one in every if one.seen_as == seen or (one.seen_as is None and one.address == seen))
    return Unserved(leaving=shown, seen=seen, owner=_owner(known, seen), ordinary=known.ordinary(seen))


@dataclass(frozen=True, slots=True)
class _Known:
    view: ClusterView
    nodes: Mapping[str, Node]
    facts: Mapping[str, EgressNodeFacts]  # of nodes whose hosts are known
    selecting: Mapping[str, tuple[EgressIP, ...]]  # by namespace, those whose namespace selector fits, by name
    heirs: Mapping[Address, Pod]  # who has an address now
    routings: Routings

    @classmethod
    def of(cls, view: ClusterView) -> _Known:
        index = NamespaceIndex(view.intent.namespaces)
        nodes = {one.name: one for one in view.intent.nodes}
        selecting: dict[str, tuple[EgressIP, ...]] = {}
        for one in sorted(view.intent.egress_ips, key=lambda each: each.name):
            for name in index.select(one.namespace_selector):
                selecting[name] = (*selecting.get(name, ()), one)
        living = [one for one in view.intent.pods if not one.finished and not one.host_network]
        return cls(
            view=view,
            nodes=nodes,
            facts={name: EgressNodeFacts.of(nodes[name], host) for name, host in view.hosts.items() if name in nodes},
            selecting=selecting,
            heirs={address: pod for pod in living for address in pod.addresses},
            routings=Routings.of(view.intent),
        )

    def serving(self, pod: Pod) -> tuple[EgressIP, ...]:
        """Return the EgressIPs that select a pod, by name."""
        every = self.selecting.get(pod.namespace, ())
        return tuple(one for one in every if one.pod_selector is None or one.pod_selector.matches(pod.labels))

    def node_address(self, pod: Pod, version: int) -> Address | None:
        """Return the address that a pod without egress IP leaves its node as."""
        node = self.nodes.get(pod.node)
        return next((one for one in node.internal_ips if one.version == version), None) if node is not None else None

    def ordinary(self, seen: Address) -> int:
        """Return how many pods outside all EgressIPs leave as a node's address."""
        mine = {name for name, node in self.nodes.items() if seen in node.internal_ips}
        pods = self.view.intent.pods
        return sum(one.node in mine and not one.finished and one.namespace not in self.selecting for one in pods)


def _leaving(known: _Known) -> Iterator[Leaving]:
    for pod in known.view.intent.pods:
        if pod.namespace not in known.selecting:
            continue
        if pod.finished:
            yield from _ended(known, pod)
        elif pod.host_network:
            yield from _as_node(known, pod, "it uses the node's own network, to which no EgressIP applies")
        else:
            yield from _of_pod(known, pod)


def _ended(known: _Known, pod: Pod) -> Iterator[Leaving]:
    """Tell who has the address of a pod that has ended, where its egress IP may still be in force for it."""
    serving = known.serving(pod)
    for address in pod.addresses if serving else ():
        heir = known.heirs.get(address)
        if heir is None or set(known.serving(heir)) & set(serving):
            continue
        assigned = next((one for _, one in serving[0].assigned if one.version == address.version), None)
        for node, facts in known.facts.items():
            if assigned is not None and _has_rule(facts, address):
                why = f"{pod.namespace}/{pod.name} had its address and has ended, and {node} still has the rule of that"
                name = f"{heir.namespace}/{heir.name}"
                yield Leaving(pod=name, address=address, seen_as=assigned, of=f"EgressIP/{serving[0].name}", why=why)


def _of_pod(known: _Known, pod: Pod) -> Iterator[Leaving]:
    serving = known.serving(pod)
    if not serving:
        wants = " or ".join(f"EgressIP/{one.name}" for one in known.selecting[pod.namespace])
        yield from _as_node(known, pod, f"the podSelector of {wants} does not select it", is_meant=True)
        return
    if not pod.addresses:
        yield Leaving(pod=_name(pod), address=None, seen_as=None, of="", why="it has no address yet, and sends nothing")
        return
    first = serving[0]
    taker = next(
        (one for one in takers(pod, known.view.intent, known.view.rivals, first) if one.fate is Fate.TAKES), None
    )
    for address in pod.addresses:
        if taker is not None:
            yield Leaving(pod=_name(pod), address=address, seen_as=None, of=taker.about, why=taker.text)
            continue
        assigned = [(node, one) for each in serving for node, one in each.assigned if one.version == address.version]
        if not assigned and known.routings[first.name].on_unassigned is OnUnassigned.DROP:
            why = f"{_why_none(first, address)}, and with onUnassigned drop nothing leaves"
            yield Leaving(pod=_name(pod), address=address, seen_as=None, of="", why=why)
        elif not assigned:
            yield from _as_node(known, pod, _why_none(first, address), only=address)
        elif len(serving) == 1:
            yield from _unprogrammed(known, pod, address, assigned)


def _why_none(egress_ip: EgressIP, address: Address) -> str:
    if any(one.version == address.version for one in egress_ip.egress_ips):
        return f"EgressIP/{egress_ip.name} is on no node with an IPv{address.version} address"
    return f"EgressIP/{egress_ip.name} has no IPv{address.version} address"


def _unprogrammed(known: _Known, pod: Pod, address: Address, assigned: list[tuple[str, Address]]) -> Iterator[Leaving]:
    """Tell where an egress node's host lacks the rule that leads a pod to its NIC, or the translation there."""
    for node, one in assigned:
        facts = known.facts.get(node)
        nic = hosting_nic(one, facts.networks) if facts is not None else None
        if facts is None or nic in (None, BRIDGE):
            continue
        own = {each.network: each.address for each in facts.node.host_cidrs if each.address.version == address.version}
        if not _has_rule(facts, address):
            lacks = f"has no rule that leads it to the NIC of {one}"
            out = next((each for each in facts.node.internal_ips if each.version == address.version), None)
        elif _lacks_translation(known.view.translations.get(node), address, nic):
            lacks = f"does not translate it to {one} on {nic}"
            out = next((mine for network, mine in own.items() if one in network), None)
        else:
            continue
        why = f"{node} {lacks}: OVN-Kubernetes has not done it yet, or lost it"
        if facts.node.mode is GatewayMode.LOCAL:
            yield Leaving(pod=_name(pod), address=address, seen_as=out, of=f"Node/{node}", why=why)
        else:
            why += "; what comes there is dropped"
            yield Leaving(pod=_name(pod), address=address, seen_as=None, of="", why=why)


def _lacks_translation(held: Translations | None, address: Address, nic: LinkName | None) -> bool:
    """Whether OVN-Kubernetes' map lacks a pod; where outgate's own table translates, or nobody has read them: no."""
    if held is None or held.elements is not None:
        return False
    return not any(one.pod == address and one.link == nic for one in held.by_nic)


def _has_rule(facts: EgressNodeFacts, address: Address) -> bool:
    return any(
        one.priority in (EGRESS_IP_PRIORITY, _OUR_PRIORITY)
        and one.src is not None
        and one.version == address.version
        and address in one.src
        for one in facts.host.rules
    )


def _as_node(
    known: _Known, pod: Pod, why: str, *, is_meant: bool = False, only: Address | None = None
) -> Iterator[Leaving]:
    """Tell of a pod that leaves like any other: as its node, or as itself where its network is advertised."""
    told = known.view.rivals.advertisements
    for address in pod.addresses if only is None else (only,):
        as_itself = bool(told) and not pod.host_network
        yield Leaving(
            pod=_name(pod),
            address=address,
            seen_as=address if as_itself else known.node_address(pod, address.version),
            of=f"RouteAdvertisements/{told[0].name}" if as_itself else f"Node/{pod.node}",
            why=why,
            is_meant=is_meant,
        )


def _owner(known: _Known, seen: Address) -> str:
    """Return whose an address is."""
    for egress_ip in known.view.intent.egress_ips:
        if seen in egress_ip.egress_ips:
            node = next((name for name, one in egress_ip.assigned if one == seen), "")
            return f"EgressIP/{egress_ip.name}, {f'on {node}' if node else 'on no node'}"
    for one in known.nodes.values():
        if seen in (*one.internal_ips, *(each.address for each in one.host_cidrs)):
            return f"Node/{one.name}"
    heir = known.heirs.get(seen)
    return f"Pod/{_name(heir)} itself, untranslated" if heir is not None else ""


def _name(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.name}"
