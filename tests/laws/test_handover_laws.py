"""Where outgate does all of EgressIP: in whatever order nodes do what they are told, and whatever is changed meanwhile,
no node sends a pod's packets to a node that does not translate them.

A node here is what it has done last. Who decides sees what the nodes have said, which may be old.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.model.intent import EgressIP, EgressNode, EgressRouting, Intent, Namespace, Node, Pod
from outgate.model.net import Address
from outgate.model.routing import OnUnassigned, Semantics, Stance
from outgate.model.selector import LabelSelector
from outgate.plan.egress_nodes import digest, egress_nodes
from outgate.plan.routing import DEFAULT

NODES = ("n1", "n2", "n3")
NAME = "kubernetes.io/metadata.name"
PODS = tuple(
    Pod(namespace="red", name=f"p{number}", node=NODES[number % 3], addresses=(IPv4Address(0x0A800005 + number),))
    for number in range(4)
)
ADDRESSES = (IPv4Address("192.168.99.150"), IPv4Address("192.168.99.151"))


class Cluster:
    """What the API server shows, and what each node has done."""

    def __init__(self, *, drops: bool) -> None:
        routing = EgressRouting(
            name=DEFAULT,
            stance=Stance.OWN,
            semantics=Semantics.AUTO,
            on_unassigned=OnUnassigned.DROP if drops else OnUnassigned.NODE_IP,
        )
        self.intent = Intent(
            nodes=tuple(Node(name=name) for name in NODES),
            namespaces=(Namespace(name="red", labels=((NAME, "red"),)),),
            pods=PODS,
            egress_routings=(routing,),
        )
        self.there: dict[str, EgressNode] = {}
        self.done: dict[str, EgressNode] = {}

    def assign(self, placed: tuple[tuple[str, Address], ...]) -> None:
        """Put the EgressIP elsewhere."""
        egress_ip = EgressIP(
            name="prod",
            egress_ips=ADDRESSES,
            namespace_selector=LabelSelector(match_labels=((NAME, "red"),)),
            assigned=placed,
        )
        self.intent = replace(self.intent, egress_ips=(egress_ip,))

    def decide(self) -> bool:
        """Tell the nodes what they have to do now; return whether that is news to one of them."""
        told = False
        intent = replace(self.intent, egress_nodes=tuple(self.there.values()))
        for name, wanted in egress_nodes(intent).items():
            node = replace(wanted, programmed=self.there[name].programmed if name in self.there else "")
            told |= self.there.get(name) != node
            self.there[name] = node
        return told

    def work(self, name: str) -> bool:
        """Let a node do what it was told, and say so; return whether that is something else than before."""
        if name not in self.there or self.there[name].programmed == digest(self.there[name]):
            return False
        self.done[name] = self.there[name]
        self.there[name] = replace(self.there[name], programmed=digest(self.there[name]))
        return True

    def untranslated(self) -> list[tuple[str, str]]:
        """Return the pods that are sent to a node which does not translate them, with that node."""
        return [
            (departure.name, target)
            for node in self.done.values()
            for departure in node.departures
            for target in departure.nodes
            if not self._translates(target, departure.addresses)
        ]

    def _translates(self, name: str, addresses: tuple[Address, ...]) -> bool:
        done = self.done.get(name)
        pods = (pod for one in done.assignments for pod in one.pods) if done is not None else ()
        return any(address in pod.addresses for pod in pods for address in addresses)


places = st.lists(
    st.tuples(st.sampled_from(NODES), st.sampled_from(ADDRESSES)), max_size=2, unique_by=lambda one: one[1]
)
steps = st.lists(
    st.one_of(
        places.map(tuple),
        st.lists(st.sampled_from(NODES), max_size=3),
        st.lists(st.sampled_from(NODES), max_size=3),
        st.sampled_from([pod.name for pod in PODS]),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(steps, st.booleans())
def test_no_pod_is_ever_sent_where_nobody_translates_it(walk: list[object], drops: bool) -> None:
    cluster = Cluster(drops=drops)
    for step in walk:
        take(cluster, step, checked=True)


@settings(max_examples=200)
@given(steps, places, st.booleans())
def test_when_everybody_does_their_work_the_wanted_state_comes(
    walk: list[object], last: list[tuple[str, Address]], drops: bool
) -> None:
    cluster = Cluster(drops=drops)
    for step in walk:
        take(cluster, step)
    cluster.assign(tuple(last))

    for _ in range(12):
        cluster.decide()
        worked = [cluster.work(name) for name in NODES]
        if not any(worked) and not cluster.decide():
            break
    else:
        raise AssertionError("it does not come to rest")

    wanted = {node for node, _ in last}
    pods = {pod.name for pod in cluster.intent.pods}
    sent = {one.name: set(one.nodes) for node in cluster.done.values() for one in node.departures}
    assert sent == (dict.fromkeys(pods, wanted) if wanted or drops else {})
    held = {(name, one.address) for name, node in cluster.done.items() for one in node.assignments if one.pods}
    assert held == ({(node, address) for node, address in last} if pods else set())


def take(cluster: Cluster, step: object, *, checked: bool = False) -> None:
    """Do one step of a walk: place, decide and let some nodes work, or let a pod come or go."""
    match step:
        case tuple():
            cluster.assign(step)
        case list():
            cluster.decide()
            for name in step:
                cluster.work(name)
                assert not checked or cluster.untranslated() == []
        case str():
            name = step
            gone = tuple(one for one in cluster.intent.pods if one.name != name)
            back = tuple(one for one in PODS if one.name == name)
            there = len(gone) < len(cluster.intent.pods)
            pods = gone if there else tuple(sorted((*gone, *back), key=lambda one: one.name))
            cluster.intent = replace(cluster.intent, pods=pods)
