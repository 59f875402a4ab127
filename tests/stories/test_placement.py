"""outgate assigns egress IPs to nodes itself: who takes which, who keeps which, and when one moves.

Nodes n1, n2 and n3 are in 192.168.99.0/24 and fd99::/64 by br-ex, and in 192.168.55.0/24 by eth1. Egress IPs are
192.168.99.150 and up on the primary LAN, 192.168.55.150 and up on the other one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import permutations
from types import MappingProxyType

import pytest

from outgate.model.intent import ClusterNetwork, EgressIP, Intent, Node, NodeSubnet
from outgate.model.net import Address
from outgate.model.nics import CloudNic, HostCidr
from outgate.model.placement import Move, NodeHealth, Placed, PlacementFacts
from outgate.model.selector import EVERYTHING, LabelSelector
from outgate.plan.egress_list import reasons
from outgate.plan.placement import place

LAN, LAN6, ETH1 = ip_network("192.168.99.0/24"), ip_network("fd99::/64"), ip_network("192.168.55.0/24")
A, B, C = (ip_address(f"192.168.99.{last}") for last in (150, 151, 152))
SIX = ip_address("fd99::150")
BY_ETH1, ALSO_BY_ETH1 = ip_address("192.168.55.150"), ip_address("192.168.55.151")
DOWN, DRAINING = NodeHealth(reachable=False), NodeHealth(draining=True)
PRIMARY_CUT, ETH1_CUT = NodeHealth(cut=frozenset({LAN})), NodeHealth(cut=frozenset({ETH1}))
MAC = "02:00:00:00:00:99"


def node(name: str) -> Node:
    number = int(name[1:])
    return Node(
        name=name,
        subnets=(NodeSubnet("default", ip_network(f"10.128.{number}.0/24"), "k8s.ovn.org/node-subnets"),),
        internal_ips=(LAN[20 + number],),
        primary=(LAN, LAN6),
        host_cidrs=(HostCidr(LAN[20 + number], LAN), HostCidr(ETH1[20 + number], ETH1)),
        assignable=True,
    )


N1, N2, N3 = node("n1"), node("n2"), node("n3")


def egress_ip(name: str, *addresses: Address, on: str = "", created: str = "") -> EgressIP:
    """Return an EgressIP; `on` names the nodes of its addresses, one word each, `-` for none."""
    assigned = tuple((where, one) for where, one in zip(on.split(), addresses, strict=False) if where != "-")
    return EgressIP(
        name=name,
        egress_ips=addresses,
        namespace_selector=LabelSelector((("env", "prod"),)),
        assigned=assigned,
        created=created,
    )


def facts(moves_left: int = 9, held: tuple[tuple[str, Address], ...] = (), **health: NodeHealth) -> PlacementFacts:
    return PlacementFacts(health=MappingProxyType(health), held=frozenset(held), moves_left=moves_left)


def cluster(*egress_ips: EgressIP, nodes: tuple[Node, ...] = (N1, N2, N3)) -> Intent:
    return Intent(nodes=nodes, egress_ips=egress_ips)


def where(placed: Placed) -> Mapping[str, str]:
    """Return the nodes of each EgressIP's addresses, as words."""
    return {name: " ".join(one for one, _ in items) for name, items in placed.items.items()}


def told(placed: Placed) -> list[str]:
    return [one.reason for one in placed.findings]


def test_an_address_goes_to_the_node_with_the_fewest_and_then_by_name() -> None:
    placed = place(
        cluster(egress_ip("a", A), egress_ip("b", B), egress_ip("c", C, on="n1"), egress_ip("d", BY_ETH1)), facts()
    )

    assert where(placed) == {"a": "n2", "b": "n3", "c": "n1", "d": "n1"}
    assert placed.moves[0] == Move(egress_ip="a", address=A, from_node="", to_node="n2", reason="it had no node")
    assert str(placed.moves[1]) == "EgressIP/b 192.168.99.151 from no node to n3: it had no node"
    assert placed.findings == ()


def test_addresses_of_one_egress_ip_go_to_different_nodes_and_the_rest_wait() -> None:
    placed = place(cluster(egress_ip("many", A, B, C), nodes=(N1, N2)), facts())

    assert placed.items["many"] == (("n1", A), ("n2", B))
    (finding,) = placed.findings
    assert (finding.reason, "192.168.99.152 waits" in finding.text) == ("UnassignedRequest", True)

    later = place(cluster(egress_ip("many", A, B, C, on="n1 n2"), nodes=(N1, N2, N3)), facts())

    assert [(one.address, one.to_node) for one in later.moves] == [(C, "n3")], "a node that is labelled takes it"


@pytest.mark.parametrize(
    ("unable", "health", "words"),
    [
        (replace(N1, assignable=False), NodeHealth(), "no label k8s.ovn.org/egress-assignable"),
        (replace(N1, ready=False), NodeHealth(), "it is not ready"),
        (N1, DOWN, "it does not answer"),
        (N1, DRAINING, "it is being drained"),
        (replace(N1, primary=(), host_cidrs=()), NodeHealth(), "no network of it holds 192.168.99.150"),
        (
            replace(N1, primary=(LAN6,), host_cidrs=()),
            NodeHealth(),
            "no network of it holds 192.168.99.150 (it has none that is known)",
        ),
        (
            replace(N1, cloud=CloudNic(networks=(LAN,), capacity=0)),
            NodeHealth(),
            "the cloud lets it have 0, and it has 0",
        ),
    ],
)
def test_a_node_that_can_not_have_an_address_says_why(unable: Node, health: NodeHealth, words: str) -> None:
    alone = place(cluster(egress_ip("a", A), nodes=(unable,)), facts(n1=health))

    assert alone.items["a"] == ()
    assert alone.moves == ()
    (finding,) = alone.findings
    assert (finding.reason, words in finding.text) == ("NoMatchingNodeFound", True)

    assert where(place(cluster(egress_ip("a", A), nodes=(unable, N2)), facts(n1=health))) == {"a": "n2"}


def test_an_address_is_of_the_primary_network_first_and_then_of_the_longest_prefix() -> None:
    wide, narrow = ip_network("172.16.0.0/12"), ip_network("172.20.0.0/16")
    nics = (HostCidr(wide[5], wide), HostCidr(narrow[5], narrow))
    wanted = egress_ip("a", narrow[150])
    both = replace(N1, host_cidrs=nics)

    cut_wide = place(cluster(wanted, nodes=(both, N2)), facts(n1=NodeHealth(cut=frozenset({wide}))))
    cut_narrow = place(cluster(wanted, nodes=(both, N2)), facts(n1=NodeHealth(cut=frozenset({narrow}))))
    primary = replace(both, primary=(wide,))
    by_primary = place(cluster(wanted, nodes=(primary, N2)), facts(n1=NodeHealth(cut=frozenset({wide}))))

    assert told(cut_wide) == []
    assert told(cut_narrow) == told(by_primary) == ["NowhereBetter"], "it is of the network that is cut"


def test_families_are_placed_each_for_itself() -> None:
    only_six = replace(N1, primary=(LAN6,), host_cidrs=())

    placed = place(cluster(egress_ip("dual", A, SIX), nodes=(only_six, N2)), facts())

    assert placed.items["dual"] == (("n2", A), ("n1", SIX))
    six_alone = place(cluster(egress_ip("dual", A, SIX), nodes=(only_six,)), facts())
    assert (six_alone.items["dual"], told(six_alone)) == ((("n1", SIX),), ["NoMatchingNodeFound"])


def test_an_egress_ip_chooses_its_nodes_by_upstreams_selector_and_needs_no_label_then() -> None:
    dmz = replace(N3, assignable=False, labels=(("zone", "dmz"),))
    picky = replace(egress_ip("a", A), node_selector=LabelSelector((("zone", "dmz"),)))

    assert where(place(cluster(picky, egress_ip("b", B), nodes=(N1, dmz)), facts())) == {"a": "n3", "b": "n1"}
    alone = place(cluster(picky, nodes=(N1, N2)), facts())
    assert "the EgressIP's egressNodeSelector does not select it" in alone.findings[0].text
    any_node = replace(picky, node_selector=EVERYTHING)
    assert where(place(cluster(any_node, nodes=(replace(N1, assignable=False),)), facts())) == {"a": "n1"}

    moved = place(cluster(replace(picky, assigned=(("n1", A),)), nodes=(N1, dmz)), facts(moves_left=0))
    assert where(moved) == {"a": "n3"}, "a node that is selected no longer is left at once"


def test_a_cloud_says_which_networks_and_how_many_and_secondary_nics_take_none() -> None:
    both = replace(N1, cloud=CloudNic(networks=(LAN, LAN6), by_version=((4, 1), (6, 2))))

    placed = place(cluster(egress_ip("a", A), egress_ip("b", B), egress_ip("s", SIX), nodes=(both,)), facts())

    assert where(placed) == {"a": "n1", "b": "", "s": "n1"}
    assert "the cloud lets it have 1 of IPv4, and it has 1" in placed.findings[0].text
    together = replace(both, cloud=CloudNic(networks=(LAN, LAN6), capacity=1))
    assert where(place(cluster(egress_ip("a", A), egress_ip("s", SIX), nodes=(together,)), facts())) == {
        "a": "n1",
        "s": "",
    }
    by_eth1 = place(cluster(egress_ip("a", BY_ETH1), nodes=(both,)), facts())
    assert told(by_eth1) == ["NoMatchingNodeFound"]


def test_what_stands_over_a_clouds_limit_is_not_cut_off() -> None:
    small = replace(N1, cloud=CloudNic(networks=(LAN,), capacity=1))

    placed = place(cluster(egress_ip("a", A, on="n1"), egress_ip("b", B, on="n1"), nodes=(small, N2)), facts())

    assert placed.moves == ()


def test_nothing_moves_back_and_a_new_node_gets_only_what_has_none() -> None:
    placed = place(
        cluster(egress_ip("a", A, on="n1"), egress_ip("b", B, on="n1"), egress_ip("c", C), nodes=(N1, N2)), facts()
    )

    assert [(one.egress_ip, one.to_node) for one in placed.moves] == [("c", "n2")]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("192.168.99.22", "is an address of Node/n2 itself"),
        ("192.168.55.21", "is an address of Node/n1 itself"),
        ("10.128.1.77", "lies in 10.128.1.0/24, the pods of Node/n1"),
        ("10.131.0.1", "lies in 10.128.0.0/14, which the cluster uses inside"),
        ("172.30.0.9", "lies in 172.30.0.0/16, which the cluster uses inside"),
        ("100.64.0.5", "lies in 100.64.0.0/16, which OVN-Kubernetes uses to join its routers"),
        ("100.88.0.5", "lies in 100.88.0.0/16, which OVN-Kubernetes uses to join its zones"),
        ("169.254.0.9", "lies in 169.254.0.0/17, which OVN-Kubernetes uses to masquerade"),
        ("fd69::9", "lies in fd69::/112, which OVN-Kubernetes uses to masquerade"),
        ("192.168.99.199", f"belongs to {MAC}, which answered Node/n2 on the LAN"),
    ],
)
@pytest.mark.parametrize("stands", ["", "n1"])
def test_an_address_that_somebody_else_has_is_on_no_node(address: str, words: str, stands: str) -> None:
    anywhere = tuple(replace(one, primary=(ip_network("0.0.0.0/0"), ip_network("::/0"))) for one in (N1, N2))
    network = ClusterNetwork(
        cluster_networks=(ip_network("10.128.0.0/14"),), service_networks=(ip_network("172.30.0.0/16"),)
    )
    intent = replace(cluster(egress_ip("a", ip_address(address), on=stands), nodes=anywhere), network=network)
    taken = NodeHealth(taken=MappingProxyType({ip_address("192.168.99.199"): MAC}))

    placed = place(intent, facts(moves_left=0, n2=taken))

    assert placed.items["a"] == ()
    assert [(one.from_node, one.to_node) for one in placed.moves] == ([("n1", "")] if stands else [])
    (finding,) = placed.findings
    assert (finding.reason, words in finding.text) == ("EgressIPConflict", True)


def test_an_egress_ip_that_its_node_lists_among_its_addresses_is_not_in_conflict_with_itself() -> None:
    lists_it = replace(N1, host_cidrs=(*N1.host_cidrs, HostCidr(A, ip_network("192.168.99.150/32"))))

    assert place(cluster(egress_ip("a", A, on="n1"), nodes=(lists_it, N2)), facts()).moves == ()
    assert place(cluster(egress_ip("a", A, on="n2"), nodes=(lists_it, N2)), facts()).moves == ()
    assert told(place(cluster(egress_ip("a", A), nodes=(lists_it, N2)), facts())) == ["EgressIPConflict"]


def test_of_two_egress_ips_with_one_address_the_older_has_it() -> None:
    old = egress_ip("z", A, created="2026-01-01T00:00:00Z")
    young = egress_ip("a", A, created="2026-02-01T00:00:00Z", on="n1")
    unseen = egress_ip("b", A)

    placed = place(cluster(young, unseen, old), facts())

    assert where(placed) == {"a": "", "b": "", "z": "n1"}
    assert [one.text for one in placed.findings] == [f"{A} is listed by EgressIP/z too, which is older"] * 2
    by_name = place(cluster(egress_ip("b", A), egress_ip("a", A)), facts())
    assert where(by_name) == {"b": "", "a": "n1"}
    assert "which comes first by name" in by_name.findings[0].text


@pytest.mark.parametrize("ill", [DOWN, ETH1_CUT])
def test_a_failed_node_loses_its_addresses_to_another_one(ill: NodeHealth) -> None:
    placed = place(cluster(egress_ip("a", BY_ETH1, on="n1"), egress_ip("b", B, on="n2")), facts(n1=ill))

    (move,) = placed.moves
    assert (move.from_node, move.to_node, move.counted) == ("n1", "n3", True)
    assert move.reason in ("n1: it does not answer", "n1: nothing gets out by 192.168.55.0/24 there")


def test_a_node_that_is_not_ready_is_failed_too() -> None:
    placed = place(cluster(egress_ip("a", A, on="n1"), nodes=(replace(N1, ready=False), N2)), facts())

    assert [(one.to_node, one.counted, one.reason) for one in placed.moves] == [("n2", True, "n1: it is not ready")]


def test_a_cut_moves_only_the_addresses_of_that_network() -> None:
    placed = place(cluster(egress_ip("a", A, on="n1"), egress_ip("b", BY_ETH1, on="n1")), facts(n1=ETH1_CUT))

    assert where(placed) == {"a": "n1", "b": "n2"}


@pytest.mark.parametrize("ill", [DOWN, PRIMARY_CUT])
def test_a_failure_that_all_nodes_share_moves_nothing(ill: NodeHealth) -> None:
    placed = place(cluster(egress_ip("a", A, on="n1")), facts(n1=ill, n2=ill, n3=ill))

    assert placed.moves == ()
    assert where(placed) == {"a": "n1"}
    (finding,) = placed.findings
    assert finding.reason == "NowhereBetter"
    assert "192.168.99.150 stays on n1" in finding.text
    assert "n2: " in finding.text
    assert "n3: " in finding.text


def test_an_address_with_one_able_node_stays_there_whatever_ails_it() -> None:
    for ill in (DOWN, PRIMARY_CUT, DRAINING):
        placed = place(cluster(egress_ip("a", A, on="n1"), nodes=(N1, replace(N2, assignable=False))), facts(n1=ill))

        assert (placed.moves, told(placed)) == ((), ["NowhereBetter"])
        assert "none could have it" in placed.findings[0].text


def test_a_new_address_goes_to_a_cut_node_only_where_all_are_cut() -> None:
    one_is_not = place(cluster(egress_ip("a", A)), facts(n1=PRIMARY_CUT, n3=PRIMARY_CUT))
    all_are = place(cluster(egress_ip("a", A)), facts(n1=PRIMARY_CUT, n2=PRIMARY_CUT, n3=PRIMARY_CUT))

    assert (where(one_is_not), told(one_is_not)) == ({"a": "n2"}, [])
    assert (where(all_are), told(all_are)) == ({"a": "n1"}, ["NowhereBetter"])
    lost = place(
        cluster(egress_ip("a", A, on="n1"), nodes=(replace(N1, assignable=False), N2)), facts(n1=DOWN, n2=PRIMARY_CUT)
    )
    (move,) = lost.moves
    assert (move.to_node, move.reason) == ("n2", "n1: it has no label k8s.ovn.org/egress-assignable")


def test_no_address_goes_to_a_cut_node_where_another_one_serves_its_pods() -> None:
    placed = place(cluster(egress_ip("two", A, B, on="n1"), nodes=(N1, N2)), facts(n2=PRIMARY_CUT))

    assert (placed.moves, told(placed)) == ((), ["UnassignedRequest"])


def test_so_many_moves_by_failure_are_made_and_the_oldest_go_first() -> None:
    wanted = [
        egress_ip("a", A, on="n1", created="2026-03-01T00:00:00Z"),
        egress_ip("b", B, on="n1", created="2026-01-01T00:00:00Z"),
        egress_ip("c", C),
    ]

    placed = place(cluster(*wanted, nodes=(N1, N2)), facts(moves_left=1, n1=DOWN))

    assert where(placed) == {"a": "n1", "b": "n2", "c": "n2"}, "what had no node does not wait"
    (finding,) = placed.findings
    assert (finding.about, finding.reason) == ("EgressIP/a", "MovesHeld")
    assert sum(one.counted for one in placed.moves) == 1


def test_what_moved_a_short_while_ago_does_not_move_again_because_of_a_cut() -> None:
    wanted, held = cluster(egress_ip("a", A, on="n1")), (("a", A),)

    still = place(wanted, facts(held=held, n1=PRIMARY_CUT))

    assert (still.moves, told(still)) == ((), ["MovesHeld"])
    assert "it moved a short while ago" in still.findings[0].text
    assert where(place(wanted, facts(held=held, n1=DOWN))) == {"a": "n2"}
    assert where(place(wanted, facts(held=held, n1=DRAINING))) == {"a": "n2"}
    unlabelled = replace(wanted, nodes=(replace(N1, assignable=False), N2))
    assert where(place(unlabelled, facts(held=held, moves_left=0, n1=PRIMARY_CUT))) == {"a": "n2"}


def test_a_draining_node_is_left_in_one_go_and_nothing_is_counted() -> None:
    wanted = [egress_ip(f"e{number}", LAN[160 + number], on="n1") for number in range(6)]

    placed = place(cluster(*wanted), facts(moves_left=0, n1=DRAINING))

    assert set(where(placed).values()) == {"n2", "n3"}
    assert len(placed.moves) == 6
    assert not any(one.counted for one in placed.moves)
    assert placed.moves[0].reason == "n1: it is being drained"


def test_without_label_network_or_node_an_address_leaves_even_if_it_has_nowhere_to_go() -> None:
    wanted = egress_ip("a", A, on="n1")
    for nodes in ((replace(N1, assignable=False),), (replace(N1, primary=(), host_cidrs=()),), ()):
        placed = place(cluster(wanted, nodes=nodes), facts(moves_left=0))

        assert placed.items["a"] == ()
        (move,) = placed.moves
        assert (move.from_node, move.to_node, move.counted) == ("n1", "", False)
        assert told(placed) == ["NoMatchingNodeFound"]


def test_an_address_without_a_spare_node_is_given_up_where_another_one_serves_its_pods() -> None:
    """Pods spread their flows over all addresses that are assigned: one on a dead node would take half of them."""
    both = cluster(egress_ip("two", A, B, on="n1 n2"), nodes=(N1, N2))

    placed = place(both, facts(n2=DOWN))

    assert placed.items["two"] == (("n1", A),)
    assert [(one.from_node, one.to_node, one.counted) for one in placed.moves] == [("n2", "", True)]
    assert told(placed) == ["UnassignedRequest"]
    neither = place(both, facts(n1=DOWN, n2=DOWN))
    assert (neither.moves, told(neither)) == ((), ["NowhereBetter", "NowhereBetter"])
    other_family = place(cluster(egress_ip("dual", A, SIX, on="n1 n2"), nodes=(N1, N2)), facts(n2=DOWN))
    assert (other_family.moves, told(other_family)) == ((), ["NowhereBetter"]), "nothing else serves its IPv6"
    assert place(both, facts(moves_left=0, n2=DOWN)).moves == ()


def test_an_address_goes_where_another_one_of_its_egress_ip_has_just_left() -> None:
    """n1 has lost eth1 and n2 is down: the one of eth1 leaves n1 to n3, and makes room for the one of n2."""
    placed = place(cluster(egress_ip("two", A, BY_ETH1, on="n2 n1")), facts(n1=ETH1_CUT, n2=DOWN))

    assert placed.items["two"] == (("n1", A), ("n3", BY_ETH1))


def test_an_address_is_tried_again_when_another_one_of_its_egress_ip_has_gone() -> None:
    """Only n1 could have the one of n2, and has the other one, which leaves later than the first is looked at."""
    only_eth1 = replace(N3, primary=(), host_cidrs=N3.host_cidrs[1:])
    wanted = egress_ip("two", SIX, BY_ETH1, on="n2 n1")

    placed = place(cluster(wanted, nodes=(N1, N2, only_eth1)), facts(n1=ETH1_CUT, n2=DOWN))

    assert placed.items["two"] == (("n1", SIX), ("n3", BY_ETH1))
    neither = place(cluster(wanted, nodes=(N1, N2)), facts(n1=ETH1_CUT, n2=DOWN))
    assert (neither.moves, told(neither)) == ((), ["NowhereBetter", "NowhereBetter"]), "none of the two serves"
    no_eth1 = replace(N3, host_cidrs=N3.host_cidrs[:1])
    three = egress_ip("three", SIX, BY_ETH1, B, on="n2 n1 n3")
    given_up = place(cluster(three, nodes=(N1, N2, no_eth1)), facts(n1=ETH1_CUT, n2=DOWN))
    assert given_up.items["three"] == (("n1", SIX), ("n3", B)), "what is given up leaves room too"


def test_an_address_that_many_nodes_could_have_leaves_room_for_one_that_few_could() -> None:
    no_eth1 = [replace(one, host_cidrs=one.host_cidrs[:1]) for one in (N2, N3)]

    placed = place(cluster(egress_ip("mixed", A, BY_ETH1, B), nodes=(N1, *no_eth1)), facts())

    assert placed.items["mixed"] == (("n2", A), ("n1", BY_ETH1), ("n3", B))
    late = place(cluster(egress_ip("mixed", A, BY_ETH1, on="n1"), nodes=(N1, *no_eth1)), facts())
    assert (late.moves, told(late)) == ((), ["UnassignedRequest"]), "for that, nothing moves that stands"


def test_what_the_egress_ip_does_not_list_or_stands_twice_is_taken_away() -> None:
    wanted = replace(egress_ip("a", A), assigned=(("n1", A), ("n2", A), ("n3", B)))

    placed = place(cluster(wanted), facts(n1=DOWN))

    assert placed.items["a"] == (("n2", A),), "of several nodes the one that is well keeps it"
    assert [(one.from_node, one.address, one.reason) for one in placed.moves] == [
        ("n1", A, "it is on another node too"),
        ("n3", B, "the EgressIP does not list it"),
    ]
    crowded = replace(egress_ip("b", A, B), assigned=(("n1", A), ("n1", B)))
    apart = place(cluster(crowded), facts())
    assert apart.items["b"] == (("n1", A), ("n2", B))


def test_a_node_comes_back_only_when_it_is_ready_and_reachable() -> None:
    alone = replace(N1, ready=False)
    wanted = egress_ip("a", A)

    assert place(cluster(wanted, nodes=(alone,)), facts(n1=DOWN)).items["a"] == ()
    assert place(cluster(wanted, nodes=(N1,)), facts(n1=DOWN)).items["a"] == ()
    assert where(place(cluster(wanted, nodes=(N1,)), facts())) == {"a": "n1"}


def test_the_order_of_objects_decides_nothing() -> None:
    wanted = [egress_ip("a", A), egress_ip("b", B, C), egress_ip("c", BY_ETH1, on="n1"), egress_ip("d", ALSO_BY_ETH1)]
    first = place(cluster(*wanted), facts(n1=ETH1_CUT))

    for nodes in permutations((N1, N2, N3)):
        for these in permutations(wanted):
            assert place(cluster(*these, nodes=nodes), facts(n1=ETH1_CUT)) == first


def test_why_unassigned_says_what_placement_decided() -> None:
    wanted = cluster(egress_ip("a", A, B, ip_address("172.20.0.1"), LAN[21]), nodes=(N1,))

    placed = place(wanted, facts())
    standing = replace(wanted, egress_ips=(replace(wanted.egress_ips[0], assigned=placed.items["a"]),))

    assert [one.finding for one in reasons(standing, "a") if one.finding] == list(placed.findings)
    assert told(placed) == ["UnassignedRequest", "NoMatchingNodeFound", "EgressIPConflict"]
