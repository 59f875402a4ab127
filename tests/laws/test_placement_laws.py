"""Whatever fails and recovers, and in whatever order it is told: what stands well stays, one node has one address of an
EgressIP, nothing comes to a node that can not have it, and deciding again decides nothing new.

The laws ask by plain look-ups of their own, not by what the plan asks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from itertools import product
from random import Random
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from outgate.model.intent import EgressIP, Intent, Node
from outgate.model.net import Address, Prefix
from outgate.model.nics import CloudNic, HostCidr
from outgate.model.placement import NodeHealth, Placed, PlacementFacts
from outgate.model.selector import LabelSelector
from outgate.plan.placement import place

T = TypeVar("T")
LAN, LAN6, ETH1 = ip_network("192.168.99.0/24"), ip_network("fd99::/64"), ip_network("192.168.55.0/24")
ADDRESSES = [
    *(LAN[150 + number] for number in range(6)),
    *(ETH1[150 + number] for number in range(4)),
    *(LAN6[150 + number] for number in range(3)),
    LAN[21],  # a node's own
    ip_address("172.20.0.1"),  # in nobody's network
]
NAMES = [f"n{number}" for number in range(1, 6)]
WELL_OFTEN = (True, True, True, False)
CLOUDS = (
    None,
    None,
    None,
    CloudNic(networks=(LAN,), capacity=1),
    CloudNic(networks=(LAN, LAN6), by_version=((4, 1), (6, 1))),
    CloudNic(networks=(LAN, LAN6), capacity=3, by_version=((4, 2),)),
)
DMZ = LabelSelector((("zone", "dmz"),))


def node(name: str, made: tuple[bool, bool, bool, bool, bool, CloudNic | None]) -> Node:
    has_eth1, has_six, is_ready, is_assignable, is_in_dmz, cloud = made
    last = 20 + int(name[1:])
    return Node(
        name=name,
        ready=is_ready,
        primary=(LAN, LAN6) if has_six else (LAN,),
        host_cidrs=(HostCidr(LAN[last], LAN), *((HostCidr(ETH1[last], ETH1),) if has_eth1 else ())),
        assignable=is_assignable,
        labels=(("zone", "dmz"),) if is_in_dmz else (),
        cloud=cloud,
    )


# Everything that may be is listed first and drawn in one go: drawing it piece by piece takes ten times as long.
MADE = list(product((True, False), (True, False), WELL_OFTEN, WELL_OFTEN, (True, False), CLOUDS))
HEALTH = st.sampled_from(
    [
        NodeHealth(reachable=is_reachable, cut=frozenset(cut), taken=taken, draining=is_draining)
        for is_reachable, cut, taken, is_draining in product(
            (True, True, False),
            ((), (), (LAN,), (ETH1,), (LAN, LAN6)),
            ({}, {}, {LAN[150]: "02:00:00:00:00:99"}),
            (False, False, True),
        )
    ]
)
STANDS = st.lists(st.sampled_from(list(product([*NAMES, "gone"], ADDRESSES))), max_size=3)
WANTED = st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4)
KINDS = st.sampled_from(list(product((None, None, DMZ), ("", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"))))


@st.composite
def egress_ips(draw: st.DrawFn, name: str) -> EgressIP:
    selector, created = draw(KINDS)
    return EgressIP(
        name=name,
        egress_ips=tuple(draw(WANTED)),
        namespace_selector=LabelSelector(),
        node_selector=selector,
        assigned=tuple(draw(STANDS)),
        created=created,
    )


SORTS = st.sampled_from(MADE)
SOME_NODES, SOME_EGRESS_IPS = (
    st.lists(st.sampled_from(some), unique=True, max_size=5) for some in (NAMES, list("abcde"))
)


@st.composite
def worlds(draw: st.DrawFn) -> Intent:
    return Intent(
        nodes=tuple(node(name, draw(SORTS)) for name in draw(SOME_NODES)),
        egress_ips=tuple(draw(egress_ips(name)) for name in draw(SOME_EGRESS_IPS)),
    )


KNOWN = st.builds(
    PlacementFacts,
    health=st.dictionaries(st.sampled_from(NAMES), HEALTH, max_size=5),
    held=st.frozensets(st.sampled_from(list(product("abcde", ADDRESSES))), max_size=3),
    moves_left=st.integers(0, 4),
)


@dataclass(frozen=True)
class Seen:
    """A world and what is known of it, looked at plainly."""

    intent: Intent
    facts: PlacementFacts

    def node(self, name: str) -> Node | None:
        return next((one for one in self.intent.nodes if one.name == name), None)

    def network(self, address: Address, node: Node) -> Prefix | None:
        if node.cloud is not None:
            nets = list(node.cloud.networks)
        else:
            nets = [*node.primary, *(one.network for one in node.host_cidrs)]
        return next((net for net in nets if address in net), None)

    def is_free(self, address: Address, egress_ip: EgressIP) -> bool:
        """Whether nobody else has it: no node, nobody on the LAN, no EgressIP that is older."""
        if any(address == one.address for node in self.intent.nodes for one in node.host_cidrs):
            return False
        if any(address in self.facts.health.get(one.name, NodeHealth()).taken for one in self.intent.nodes):
            return False
        rivals = [one for one in self.intent.egress_ips if address in one.egress_ips]
        return min(rivals, key=lambda one: (one.created or "later", one.name)).name == egress_ip.name

    def is_fit(self, address: Address, egress_ip: EgressIP, name: str) -> bool:
        node = self.node(name)
        if node is None or self.network(address, node) is None:
            return False
        selector = egress_ip.node_selector
        return node.assignable if selector is None else ("zone", "dmz") in node.labels

    def is_well(self, name: str) -> bool:
        node, health = self.node(name), self.facts.health.get(name, NodeHealth())
        return node is not None and node.ready and health.reachable and not health.draining

    def is_cut(self, address: Address, name: str) -> bool:
        node = self.node(name)
        return node is not None and self.network(address, node) in self.facts.health.get(name, NodeHealth()).cut

    def is_fine(self, address: Address, egress_ip: EgressIP, name: str) -> bool:
        return self.is_fit(address, egress_ip, name) and self.is_well(name) and not self.is_cut(address, name)

    def has_room(self, placed: Placed, name: str, address: Address) -> bool:
        """Whether one more address would be within the cloud's limits."""
        node = self.node(name)
        assert node is not None
        there = [one for items in placed.items.values() for where, one in items if where == name]
        cloud = node.cloud or CloudNic()
        limits = dict(cloud.by_version)
        of_family = sum(one.version == address.version for one in there)
        return (cloud.capacity is None or len(there) < cloud.capacity) and of_family < limits.get(address.version, 99)


def after(intent: Intent, placed: Placed) -> Intent:
    """Return the world once what was placed stands."""
    return replace(intent, egress_ips=tuple(replace(one, assigned=placed.items[one.name]) for one in intent.egress_ips))


def nodes_of(placed: Placed, egress_ip: EgressIP) -> dict[Address, str]:
    return {address: name for name, address in placed.items[egress_ip.name]}


def shuffled(chance: Random, given: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(chance.sample(given, len(given)))


def stood(egress_ip: EgressIP) -> dict[Address, set[str]]:
    return {one: {node for node, each in egress_ip.assigned if each == one} for one in egress_ip.egress_ips}


@given(intent=worlds(), facts=KNOWN)
def test_placing_again_moves_nothing(intent: Intent, facts: PlacementFacts) -> None:
    placed = place(intent, facts)
    left = facts.moves_left - sum(one.counted for one in placed.moves)

    again = place(after(intent, placed), replace(facts, moves_left=left))

    assert left >= 0, "no more moves by failure than are allowed"
    assert (again.moves, again.items) == ((), placed.items)


@given(intent=worlds(), facts=KNOWN, chance=st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_told_does_not_matter(
    intent: Intent, facts: PlacementFacts, chance: Random
) -> None:
    other = Intent(
        nodes=shuffled(chance, intent.nodes),
        egress_ips=tuple(
            replace(one, assigned=shuffled(chance, one.assigned)) for one in shuffled(chance, intent.egress_ips)
        ),
    )

    assert place(other, facts) == place(intent, facts)


@given(intent=worlds(), facts=KNOWN)
def test_what_can_stay_stays(intent: Intent, facts: PlacementFacts) -> None:
    seen, placed = Seen(intent, facts), place(intent, facts)
    for egress_ip in intent.egress_ips:
        on_node = Counter(node for nodes in stood(egress_ip).values() for node in nodes)
        for address, nodes in stood(egress_ip).items():
            fine = [one for one in nodes if seen.is_fine(address, egress_ip, one)]
            if seen.is_free(address, egress_ip) and fine and all(on_node[one] == 1 for one in nodes):
                assert nodes_of(placed, egress_ip)[address] in fine


@given(intent=worlds(), facts=KNOWN)
def test_an_address_has_one_node_and_a_node_one_address_of_an_egress_ip(intent: Intent, facts: PlacementFacts) -> None:
    placed = place(intent, facts)
    everywhere = [address for items in placed.items.values() for _, address in items]
    assert len(everywhere) == len(set(everywhere))
    for egress_ip in intent.egress_ips:
        names = [name for name, _ in placed.items[egress_ip.name]]
        assert len(names) == len(set(names))
        assert {address for _, address in placed.items[egress_ip.name]} <= set(egress_ip.egress_ips)


@given(intent=worlds(), facts=KNOWN)
def test_an_address_comes_only_to_a_node_that_can_have_it(intent: Intent, facts: PlacementFacts) -> None:
    seen, placed = Seen(intent, facts), place(intent, facts)
    by_name = {one.name: one for one in intent.egress_ips}
    before = Counter(node for one in intent.egress_ips for node, _ in set(one.assigned))
    there = Counter(node for items in placed.items.values() for node, _ in items)
    for move in placed.moves:
        egress_ip = by_name[move.egress_ip]
        if not move.to_node:
            continue
        assert seen.is_free(move.address, egress_ip)
        assert seen.is_fit(move.address, egress_ip, move.to_node)
        assert seen.is_well(move.to_node)
        if seen.is_cut(move.address, move.to_node):
            able = [one.name for one in intent.nodes if seen.is_fine(move.address, egress_ip, one.name)]
            busy = {node for node, _ in placed.items[move.egress_ip]}
            assert all(one in busy or not seen.has_room(placed, one, move.address) for one in able)
        node = seen.node(move.to_node)
        if node is not None and node.cloud is not None and node.cloud.capacity is not None:
            assert there[node.name] <= max(node.cloud.capacity, before[node.name])


@given(intent=worlds(), facts=KNOWN)
def test_a_clouds_limits_are_kept_where_they_were_kept(intent: Intent, facts: PlacementFacts) -> None:
    empty = replace(intent, egress_ips=tuple(replace(one, assigned=()) for one in intent.egress_ips))
    placed = place(empty, facts)
    for node in intent.nodes:
        there = [address for items in placed.items.values() for name, address in items if name == node.name]
        if node.cloud is not None:
            assert node.cloud.capacity is None or len(there) <= node.cloud.capacity
            for version, most in node.cloud.by_version:
                assert sum(one.version == version for one in there) <= most


@given(intent=worlds(), facts=KNOWN)
def test_no_address_is_without_a_node_and_a_reason(intent: Intent, facts: PlacementFacts) -> None:
    seen, placed = Seen(intent, facts), place(intent, facts)
    for egress_ip in intent.egress_ips:
        has = nodes_of(placed, egress_ip)
        said = [one for one in placed.findings if one.about == f"EgressIP/{egress_ip.name}"]
        assert all(one.reason != "NotAssignedYet" for one in said)
        for address in egress_ip.egress_ips:
            name = has.get(address, "")
            assert seen.is_fine(address, egress_ip, name) or any(str(address) in one.text for one in said)
            if not name and seen.is_free(address, egress_ip):
                open_ = [one.name for one in intent.nodes if seen.is_fine(address, egress_ip, one.name)]
                assert all(one in has.values() or not seen.has_room(placed, one, address) for one in open_)


@given(intent=worlds(), facts=KNOWN)
def test_the_moves_lead_from_what_stands_to_what_is_placed(intent: Intent, facts: PlacementFacts) -> None:
    placed = place(intent, facts)
    now = {(one.name, node, address) for one in intent.egress_ips for node, address in one.assigned}
    for move in placed.moves:
        now -= {(move.egress_ip, move.from_node, move.address)} if move.from_node else set()
        now |= {(move.egress_ip, move.to_node, move.address)} if move.to_node else set()
    assert now == {(name, node, address) for name, items in placed.items.items() for node, address in items}


@given(intent=worlds(), walk=st.lists(KNOWN, max_size=6))
def test_on_a_walk_of_failures_and_recoveries_nothing_moves_whose_node_is_fine(
    intent: Intent, walk: list[PlacementFacts]
) -> None:
    for facts in walk:
        seen, placed = Seen(intent, facts), place(intent, facts)
        by_name = {one.name: one for one in intent.egress_ips}
        for move in placed.moves:
            egress_ip = by_name[move.egress_ip]
            crowded = [node for node, _ in egress_ip.assigned].count(move.from_node) > 1
            twice = [address for _, address in egress_ip.assigned].count(move.address) > 1
            if move.from_node and move.address in egress_ip.egress_ips and not crowded and not twice:
                was_fine = seen.is_fine(move.address, egress_ip, move.from_node)
                assert not (was_fine and seen.is_free(move.address, egress_ip))
        intent = after(intent, placed)
