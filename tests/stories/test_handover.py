"""What nodes are told where outgate does all of EgressIP: who serves whom, and who goes first.

Pods red/a on n1 and red/b on n2, dual stack; EgressIPs select both.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from outgate.model.intent import EgressIP, EgressNode, EgressRouting, Intent, Namespace, Node, Pod
from outgate.model.net import Address
from outgate.model.routing import OnUnassigned, Semantics, Stance
from outgate.model.selector import LabelSelector
from outgate.plan.egress_nodes import digest, egress_nodes
from outgate.plan.routing import DEFAULT

TEAM = LabelSelector(match_labels=(("team", "red"),))
FOUR, SIX, OTHER = ip_address("10.10.10.100"), ip_address("fd10::100"), ip_address("10.10.10.101")
A4, A6, B4, B6 = map(ip_address, ("10.244.0.5", "fd01::5", "10.244.1.5", "fd01:0:0:1::5"))
OWN = EgressRouting(name=DEFAULT, stance=Stance.OWN, semantics=Semantics.AUTO)
CLUSTER = Intent(
    nodes=(Node(name="n1"), Node(name="n2"), Node(name="n3")),
    namespaces=(Namespace(name="red", labels=(("team", "red"),)),),
    pods=(
        Pod(namespace="red", name="a", node="n1", addresses=(A4, A6)),
        Pod(namespace="red", name="b", node="n2", addresses=(B4, B6)),
    ),
    egress_routings=(OWN,),
)


def egress_ip(name: str, *assigned: tuple[str, Address], created: str = "") -> EgressIP:
    addresses = tuple(address for _, address in assigned)
    return EgressIP(name=name, egress_ips=addresses, namespace_selector=TEAM, assigned=assigned, created=created)


def told(
    *egress_ips: EgressIP, before: dict[str, EgressNode] | None = None, intent: Intent = CLUSTER
) -> dict[str, EgressNode]:
    there = tuple(before.values()) if before else ()
    return dict(egress_nodes(replace(intent, egress_ips=egress_ips, egress_nodes=there)))


def done(nodes: dict[str, EgressNode], *names: str) -> dict[str, EgressNode]:
    """The same when some nodes have done what they were told."""
    return {name: replace(one, programmed=digest(one)) if name in names else one for name, one in nodes.items()}


def ways(nodes: dict[str, EgressNode]) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(one.name, str(one.addresses[0])): one.nodes for node in nodes.values() for one in node.departures}


def test_a_pod_is_sent_only_when_its_egress_node_has_said_that_it_translates_it() -> None:
    first = told(egress_ip("prod", ("n3", FOUR)))
    assert ways(first) == {}
    assert [pod.name for one in first["n3"].assignments for pod in one.pods] == ["a", "b"]

    second = told(egress_ip("prod", ("n3", FOUR)), before=done(first, "n3"))
    assert ways(second) == {("a", str(A4)): ("n3",), ("b", str(B4)): ("n3",)}


def test_an_egress_node_goes_on_until_the_pods_nodes_have_said_that_they_stopped() -> None:
    prod, gone = egress_ip("prod", ("n3", FOUR)), egress_ip("prod")
    standing = done(told(prod, before=done(told(prod), "n3")), "n1", "n2", "n3")

    stopping = told(gone, before=standing)
    assert ways(stopping) == {}
    assert [pod.name for one in stopping["n3"].assignments for pod in one.pods] == ["a", "b"]
    half = told(gone, before=done(stopping, "n1", "n3"))
    assert [pod.name for one in half["n3"].assignments for pod in one.pods] == ["b"]
    assert told(gone, before=done(half, "n1", "n2", "n3"))["n3"].assignments == ()


def test_a_pod_keeps_its_old_way_until_the_new_one_stands_be_it_dead() -> None:
    before = egress_ip("prod", ("n1", FOUR))
    standing = done(told(before, before=done(told(before), "n1")), "n1", "n2", "n3")
    after = egress_ip("prod", ("n3", FOUR))

    moving = told(after, before=standing)
    assert set(ways(moving).values()) == {("n1",)}
    assert set(ways(told(after, before=done(moving, "n3"))).values()) == {("n3",)}


def test_of_two_egress_ips_the_older_one_serves_a_pod_in_each_family_that_it_has() -> None:
    young = egress_ip("a-young", ("n3", OTHER), ("n2", SIX), created="2026-02-02T00:00:00Z")
    old = egress_ip("old", ("n1", FOUR), created="2026-01-01T00:00:00Z")

    nodes = told(young, old)

    assert {(one.address, pod.addresses) for one in nodes["n1"].assignments for pod in one.pods} == {
        (FOUR, (A4,)),
        (FOUR, (B4,)),
    }
    assert {(one.address, pod.addresses) for one in nodes["n2"].assignments for pod in one.pods} == {
        (SIX, (A6,)),
        (SIX, (B6,)),
    }
    assert [one.pods for one in nodes["n3"].assignments] == [()]


def test_pods_are_held_in_the_families_that_their_egress_ip_has_and_in_no_other() -> None:
    dropping = replace(CLUSTER, egress_routings=(replace(OWN, on_unassigned=OnUnassigned.DROP),))
    waiting = replace(egress_ip("prod", ("n3", FOUR)), assigned=())

    nodes = told(waiting, intent=dropping)

    assert {(one.name, one.addresses, one.drops) for node in nodes.values() for one in node.departures} == {
        ("a", (A4,), True),
        ("b", (B4,), True),
    }


def test_an_address_is_new_to_the_lan_once() -> None:
    def news(nodes: dict[str, EgressNode]) -> dict[str, bool]:
        return {name: one.is_new for name, node in nodes.items() for one in node.assignments}

    first = told(egress_ip("prod", ("n1", FOUR)))
    assert news(first) == {"n1": True}
    assert news(told(egress_ip("prod", ("n1", FOUR)), before=first)) == {"n1": True}
    used = told(egress_ip("prod", ("n1", FOUR)), before=done(first, "n1"))
    assert news(used) == {"n1": False}
    assert digest(used["n1"]) != ""
    assert news(told(egress_ip("prod", ("n3", FOUR)), before=used))["n3"] is False


def test_a_node_that_was_deleted_is_nobodys_way_any_more() -> None:
    before = egress_ip("prod", ("n3", FOUR))
    standing = done(told(before, before=done(told(before), "n3")), "n1", "n2", "n3")
    fewer = replace(CLUSTER, nodes=CLUSTER.nodes[:2])

    nodes = told(egress_ip("prod", ("n1", FOUR)), before=standing, intent=fewer)

    assert set(nodes) == {"n1", "n2"}
    after = told(egress_ip("prod", ("n1", FOUR)), before=done(nodes, "n1"), intent=fewer)
    assert set(ways(after).values()) == {("n1",)}
