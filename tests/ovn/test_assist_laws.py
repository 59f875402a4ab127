"""The laws of the house for an assisting node, on a real OVN: killed anywhere, tampered with, driven at random, it ends
where a fresh start would, changes nothing twice, and no packet leaves with another address than the egress IP.

p11 on n1 and p21 on n2 have the egress IP 192.168.99.150 (fd99::150) on n1, in local gateway mode.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from outgate.lab.ovn.addresses import (
    BRIDGE,
    CLUSTER_ROUTER,
    OTHER_ROUTER,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
    SERVICES,
)
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from outgate.model.errors import Unreachable
from outgate.model.intent import Assignment, EgressNode
from outgate.model.routing import Routing
from outgate.roles.node_assist import Amiss, Assisting
from tests.ovn.cluster import AUTO, NodeRole, assignments_of, node_of, role_on

ROUTES = {
    "other router": [f"{to} via {hop} dev {BRIDGE}" for to, hop in zip(PARTNER, OTHER_ROUTER, strict=True)],
    "second NIC": [f"{to} via {hop} dev {SECONDARY_NIC}" for to, hop in zip(PARTNER, SECONDARY_ROUTER, strict=True)],
    "blackhole": [f"blackhole {to}" for to in PARTNER],
}


@pytest.fixture
def role(lab: OvnLaboratory) -> Iterator[NodeRole]:
    lab.set_mode(local=True)
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=pods_of(lab)))
    with role_on(lab, "n1") as made:
        yield made


def pods_of(lab: OvnLaboratory) -> tuple[OvnPod, OvnPod]:
    return lab.node("n1").pods[0], lab.node("n2").pods[0]


def no_other_address(lab: OvnLaboratory) -> bool:
    """Whether the world outside has seen the egress IP alone, wherever it looked."""
    for counter in (lab.by_default, lab.by_other, lab.by_secondary):
        if not set(counter.seen()) <= set(PRIMARY_EGRESS):
            return False
    return True


class Killed(Exception):
    """The role ended between two writes."""


def kill_at(role: NodeRole, number: int) -> Callable[[str], None]:
    passed = itertools.count(1)

    def boundary(place: str) -> None:
        if next(passed) == number:
            raise Killed(place)

    role.machine.boundary = boundary
    return boundary


def test_killed_between_any_two_writes_nothing_leaks_and_the_next_round_ends_it(role: NodeRole) -> None:
    lab, (near, far) = role.lab, pods_of(role.lab)
    both, one = assignments_of(PRIMARY_EGRESS, (near, far)), assignments_of(PRIMARY_EGRESS, (far,))
    role.node.ip(*(f"route add {line}" for line in ROUTES["other router"]))
    transitions: list[tuple[tuple[Assignment, ...], Routing]] = [
        (both, AUTO),
        (one, AUTO),
        (both, AUTO),
        (both, Routing()),
        (both, AUTO),
        ((), AUTO),
    ]
    killed, standing = 0, transitions[-1]
    for wanted, routing in transitions:
        for number in itertools.count(1):
            role.machine.boundary = lambda _: None
            role.round(*standing)
            kill_at(role, number)
            with contextlib.suppress(Killed):
                role.round(wanted, routing)
                break  # it came to its end: there was no boundary of this number any more
            killed += 1
            lab.settle()
            for pod in (near, far):
                pod.agent.fetch(PARTNER[0], timeout_s=0.3)
            assert no_other_address(lab), (wanted, routing, number)
        role.machine.boundary = lambda _: None
        assert not role.round(wanted, routing).changes
        standing = (wanted, routing)
    assert killed >= 10


def test_what_others_take_away_or_change_comes_back(role: NodeRole) -> None:
    wanted = assignments_of(PRIMARY_EGRESS, pods_of(role.lab))
    role.node.ip(*(f"route add {line}" for line in ROUTES["second NIC"]))
    role.round(wanted)
    with role.node.net.inside():
        before = role.machine.read().actual
    programs = role.node.programs
    deeds: list[Callable[[], object]] = [
        lambda: programs.nbctl("lr-policy-del", CLUSTER_ROUTER, "103"),
        lambda: programs.nbctl("lr-policy-del", CLUSTER_ROUTER, "104"),
        lambda: programs.nbctl("set", "logical_router_policy", one_of_ours(role), "action=drop", "nexthops=[]"),
        lambda: programs.nbctl("clear", "address_set", set_of_ours(role), "addresses"),
        lambda: programs.nbctl("destroy", "address_set", set_of_ours(role)),
        lambda: role.node.net.run(("nft", "flush", "ruleset")),
        lambda: role.node.net.run(("nft", "flush", "map", "inet", "outgate", "pod_snat4")),
        lambda: role.node.net.run(("nft", "delete", "table", "inet", "outgate")),
    ]
    for number, deed in enumerate(deeds):
        deed()
        outcome = role.round(wanted)
        assert outcome.changes, number
        with role.node.net.inside():
            assert role.machine.read().actual == before, number
        assert not role.round(wanted).changes


def one_of_ours(role: NodeRole) -> str:
    found = role.node.programs.nbctl("--bare", "--columns=_uuid", "find", "logical_router_policy", "priority=103")
    return found.split()[0]


def set_of_ours(role: NodeRole) -> str:
    found = role.node.programs.nbctl("--bare", "--columns=name", "find", "address_set").split()
    return sorted(name for name in found if name.startswith("outgate_pods4"))[0]


def test_any_order_of_events_ends_where_a_fresh_start_would(role: NodeRole) -> None:
    lab, (near, far) = role.lab, pods_of(role.lab)
    dice = random.Random(20)
    routed: set[str] = set()
    served: list[OvnPod] = [near, far]
    for step in range(14):
        match dice.choice(("route", "route", "pods", "tamper", "semantics")):
            case "route":
                name = dice.choice(sorted(ROUTES))
                for other in sorted(routed - {name}):
                    role.node.ip(*(f"route del {line}" for line in ROUTES[other]))
                    routed.discard(other)
                verb = "del" if name in routed else "add"
                role.node.ip(*(f"route {verb} {line}" for line in ROUTES[name]))
                routed ^= {name}
            case "pods":
                served = dice.sample([near, far], dice.randint(1, 2))
            case "tamper":
                role.node.programs.nbctl("--if-exists", "lr-policy-del", CLUSTER_ROUTER, "103")
            case "semantics":
                role.round(assignments_of(PRIMARY_EGRESS, tuple(served)), Routing())
        wanted = assignments_of(PRIMARY_EGRESS, tuple(served))
        assert role.round(wanted).converged, step
        assert not role.round(wanted).changes, step
        for pod in (near, far):
            pod.agent.fetch(PARTNER[0], timeout_s=0.3 if "blackhole" in routed else 5)
        assert no_other_address(lab), step
    with role.node.net.inside():
        walked = role.machine.read().actual
    with role_on(lab, "n1") as fresh:
        fresh.round(())
        fresh.round(assignments_of(PRIMARY_EGRESS, tuple(served)))
        with fresh.node.net.inside():
            assert fresh.machine.read().actual == walked


def test_a_database_that_goes_and_comes_back_changes_nothing_on_the_way(role: NodeRole) -> None:
    lab, programs = role.lab, role.node.programs
    pods, wanted = pods_of(lab), assignments_of(PRIMARY_EGRESS, pods_of(lab))
    work = EgressNode(name="n1", assignments=tuple(replace(one, routing=AUTO) for one in wanted))
    role.node.ip(*(f"route add {line}" for line in ROUTES["other router"]))
    own = node_of(role.node, local=True)
    with role.node.net.inside():
        assisting = Assisting(f"unix:{programs.northbound}", SERVICES)
        with contextlib.closing(assisting):
            assert assisting.round(own, work) == Amiss(is_done=True)
            lab.settle()

            programs.stop_northbound()
            assert assisting.changed()
            with pytest.raises(Unreachable):
                assisting.round(own, work)
            for pod in pods:
                assert pod.agent.fetch(PARTNER[0], timeout_s=5).source == PRIMARY_EGRESS[0]

            programs.start_northbound()
            assert assisting.round(own, work) == Amiss(is_done=True)
            assert not role_is_new(lab, wanted)
    assert set(lab.by_other.seen()) == {PRIMARY_EGRESS[0]}


def role_is_new(lab: OvnLaboratory, wanted: tuple[Assignment, ...]) -> bool:
    """Whether another role that starts now would find something to do."""
    with role_on(lab, "n1") as fresh:
        return bool(fresh.round(wanted).changes)
