"""What holds while outgate does all of EgressIP, whatever happens: killed between two writes, with rows and tables that
somebody changes, and at random. The witness is what the world outside sees: the egress IPs, and nodes; never a pod.

Pods p11 on n1 and p21 on n2 have egress IPs or none; `onUnassigned` is drop, so what is not sent on its way stays.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from outgate.lab.ovn.addresses import CLUSTER_ROUTER, OUTSIDE, PRIMARY_EGRESS, SECONDARY_EGRESS, SECONDARY_ROUTER, Pair
from outgate.lab.ovn.programs import missing
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from outgate.model.net import Address
from tests.ovn.own import OwnCluster, own_cluster

FAMILIES = (0, 1)


class Killed(Exception):
    """A role ended between two writes."""


@pytest.fixture(params=[True, False], ids=["local", "shared"])
def cluster(request: pytest.FixtureRequest) -> Iterator[OwnCluster]:
    if lacking := missing():
        pytest.skip(lacking)
    with OvnLaboratory(egress_ip=False) as lab:
        _ = (lab.server, lab.by_default, lab.by_other, lab.by_secondary)
        with own_cluster(lab, local=request.param, drops=True) as made:
            yield made


def pods(cluster: OwnCluster) -> tuple[OvnPod, ...]:
    return (cluster.lab.node("n1").pods[0], cluster.lab.node("n2").pods[0])


def put(cluster: OwnCluster, pair: Pair, node: str, chosen: tuple[OvnPod, ...] = ()) -> None:
    """Put both addresses on a node; an empty name takes them from all."""
    cluster.assign("prod", *(((node, one) for one in pair) if node else ()), pods=chosen)
    if not node:
        cluster.unassign("prod", pair)


def strangers(cluster: OwnCluster, *pairs: Pair) -> set[Address]:
    """Who was seen outside as a client of the server, and is no egress IP."""
    lab = cluster.lab
    seen = {one for counter in (lab.by_default, lab.by_other, lab.by_secondary) for one in counter.seen_at(8080)}
    return seen - {one for pair in pairs for one in pair}


def ask(cluster: OwnCluster, target: Pair, timeout_s: float) -> list[object]:
    """As whom the pods are seen, one after the other."""
    return [pod.agent.fetch(target[family], timeout_s=timeout_s).source for pod in pods(cluster) for family in FAMILIES]


def test_killed_between_any_two_writes_nothing_leaks_and_the_next_rounds_end_it(cluster: OwnCluster) -> None:
    put(cluster, PRIMARY_EGRESS, "n1", pods(cluster))
    cluster.settle()
    killed = 0
    for node, name in itertools.product(("n2", "n1"), ("n1", "n2")):
        for number in itertools.count(1):
            kill_at(cluster, name, number)
            put(cluster, PRIMARY_EGRESS, node)
            with contextlib.suppress(Killed):
                cluster.settle()
                break
            killed += 1
            cluster.lab.settle()
            ask(cluster, OUTSIDE, 0.3)
            assert strangers(cluster, PRIMARY_EGRESS) == set(), (node, name, number)
            live_on(cluster)
            cluster.settle()
            put(cluster, PRIMARY_EGRESS, "n1" if node == "n2" else "n2")
            cluster.settle()
        live_on(cluster)
        assert ask(cluster, OUTSIDE, 5) == [*PRIMARY_EGRESS] * 2
    assert killed >= 6


def kill_at(cluster: OwnCluster, name: str, number: int) -> None:
    passed = itertools.count(1)

    def boundary(place: str) -> None:
        if next(passed) == number:
            raise Killed(place)

    cluster.roles[name].machine.boundary = boundary


def live_on(cluster: OwnCluster) -> None:
    for role in cluster.roles.values():
        role.machine.boundary = lambda _: None


def test_what_others_take_away_or_change_comes_back(cluster: OwnCluster) -> None:
    lab, node = cluster.lab, cluster.lab.node("n1")
    put(cluster, SECONDARY_EGRESS if cluster.local else PRIMARY_EGRESS, "n1", pods(cluster))
    cluster.settle()
    role = cluster.roles["n1"]
    with node.net.inside():
        before = role.machine.read().actual
    programs = node.programs
    deeds: list[Callable[[], object]] = [
        lambda: programs.nbctl("lr-policy-del", CLUSTER_ROUTER, "100"),
        lambda: programs.nbctl("lr-policy-del", CLUSTER_ROUTER, "102"),
        lambda: programs.nbctl("--if-exists", "--policy=src-ip", "lr-route-del", CLUSTER_ROUTER, "10.128.0.0/14"),
        lambda: node.net.run(("nft", "flush", "ruleset")),
    ]
    if cluster.local:
        deeds += [
            lambda: node.net.run(("ip", "route", "flush", "table", "local", "proto", "111")),
            lambda: node.net.run(("ip", "rule", "flush", "priority", "5998"), check=False),
        ]
    else:
        deeds += [
            lambda: programs.nbctl("lr-nat-del", node.at.router, "snat", str(pods(cluster)[0].addresses[0])),
            lambda: programs.nbctl("acl-del", "ext_n1"),
        ]
    for number, deed in enumerate(deeds):
        deed()
        outcome = role.round_of(cluster.there["n1"], cluster.intent.nodes, local=cluster.local)
        assert outcome.changes, number
        with node.net.inside():
            assert role.machine.read().actual == before, number
    assert lab.by_default.leaked(lab.nodes["n1"].at.subnets) == 0


def test_any_order_of_events_ends_with_the_wanted_address_and_nothing_else_is_seen(cluster: OwnCluster) -> None:
    dice = random.Random(7)
    pair, node = PRIMARY_EGRESS, "n1"
    for step in range(10):
        match dice.choice(("move", "move", "other", "nowhere", "half")):
            case "move":
                node = "n2" if node == "n1" else "n1"
            case "other":
                pair = SECONDARY_EGRESS if pair == PRIMARY_EGRESS else PRIMARY_EGRESS
                node = node or "n1"
            case "nowhere":
                node = ""
            case "half":
                cluster.step(alive=(dice.choice(("n1", "n2")),))
        put(cluster, pair, node, pods(cluster))
        cluster.settle()
        if node:
            target = OUTSIDE if pair == PRIMARY_EGRESS else SECONDARY_ROUTER
            assert ask(cluster, target, 5) == [*pair] * 2, step
        else:
            assert ask(cluster, OUTSIDE, 0.3) == [None] * 4, step
        assert strangers(cluster, PRIMARY_EGRESS, SECONDARY_EGRESS) == set(), step
