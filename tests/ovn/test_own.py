"""OVN-Kubernetes' EgressIP feature is off, and outgate does all of it: packets, from before an EgressIP exists until
after it is gone, in both gateway modes.

Pods p11 on n1 and p21 on n2 have an egress IP, first on n1; p12 and p22 have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from itertools import product

import pytest

from outgate.lab.agent import Held
from outgate.lab.outside import Server
from outgate.lab.ovn.addresses import (
    BRIDGE,
    CLUSTER,
    OTHER_ROUTER,
    OUTSIDE,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
)
from outgate.lab.ovn.programs import missing
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from outgate.lab.waiting import eventually
from outgate.model.net import Answered
from outgate.model.ovn import Policy, Snat
from tests.ovn.own import OwnCluster, own_cluster

FAMILIES = (0, 1)
NOWHERE = (ip_address("172.20.0.1"), ip_address("fd20::1"))  # in the network of no NIC


@pytest.fixture
def bare() -> Iterator[OvnLaboratory]:
    if lacking := missing():
        pytest.skip(lacking)
    with OvnLaboratory(egress_ip=False) as made:
        _ = (made.server, made.by_default, made.by_other, made.by_secondary)
        yield made


@pytest.fixture(params=[True, False], ids=["local", "shared"])
def cluster(request: pytest.FixtureRequest, bare: OvnLaboratory) -> Iterator[OwnCluster]:
    with own_cluster(bare, local=request.param) as made:
        yield made


def chosen(cluster: OwnCluster) -> tuple[OvnPod, ...]:
    return (cluster.lab.node("n1").pods[0], cluster.lab.node("n2").pods[0])


def others(cluster: OwnCluster) -> tuple[OvnPod, ...]:
    return (cluster.lab.node("n1").pods[1], cluster.lab.node("n2").pods[1])


def on(cluster: OwnCluster, node: str, pods: tuple[OvnPod, ...] = ()) -> None:
    cluster.assign("prod", *((node, one) for one in PRIMARY_EGRESS), pods=pods)


def sources(pods: tuple[OvnPod, ...], timeout_s: float = 5) -> list[object]:
    return [pod.agent.fetch(OUTSIDE[family], timeout_s=timeout_s).source for pod in pods for family in FAMILIES]


def nodes_of(cluster: OwnCluster, pods: tuple[OvnPod, ...]) -> list[object]:
    return [one for pod in pods for one in cluster.lab.node(pod.node).at.primary]


def test_pods_leave_with_their_egress_ip_from_when_it_is_there_until_it_goes_and_others_never_do(
    cluster: OwnCluster,
) -> None:
    mine, rest = chosen(cluster), others(cluster)
    assert sources(mine) == nodes_of(cluster, mine)

    on(cluster, "n1", mine)
    cluster.settle()
    assert sources(mine) == [*PRIMARY_EGRESS] * 2
    assert sources(rest) == nodes_of(cluster, rest)

    cluster.assign("prod")
    cluster.settle()
    assert sources(mine) == nodes_of(cluster, mine)
    for role in cluster.roles.values():
        assert role.machine.read().northbound.actual == frozenset()
    assert cluster.lab.by_default.leaked(CLUSTER) == 0


def test_the_clusters_own_traffic_never_sees_an_egress_ip(cluster: OwnCluster) -> None:
    lab, mine = cluster.lab, chosen(cluster)
    on(cluster, "n1", mine)
    cluster.settle()
    other, node = others(cluster)[1], lab.node("n2")
    with Server(other.net, "--http", "8080") as pod, Server(node.net, "--http", "8080") as host:
        for each in (pod, host):
            each.wait_until_ready()
        for one in mine:
            assert [one.agent.fetch(to, timeout_s=5).source for to in other.addresses] == [*one.addresses]
        own = lab.node("n1").at
        assert [mine[0].agent.fetch(to, timeout_s=5).source for to in node.at.primary] == [*own.primary]
        seen = [mine[0].agent.fetch(to, timeout_s=5).source for to in node.at.secondary]
        assert all(one in (*own.primary, *own.secondary) for one in seen), seen


def test_an_egress_ip_that_moves_takes_its_pods_along_and_nothing_leaks_on_the_way(cluster: OwnCluster) -> None:
    mine = chosen(cluster)
    on(cluster, "n1", mine)
    cluster.settle()
    cluster.lab.by_default.reset()
    flows = [pod.agent.hold(OUTSIDE[family], kind="udp") for pod in mine for family in FAMILIES]
    eventually(lambda: all(flow.look().answered for flow in flows), "all flows are answered")

    on(cluster, "n2")
    cluster.settle()

    for flow in flows:
        goes_on(flow)
        flow.stop()
    assert sources(mine) == [*PRIMARY_EGRESS] * 2
    assert set(cluster.lab.by_default.seen()) == {*PRIMARY_EGRESS}
    assert not any(one.owner.startswith("node:n1:translate") for one in rows(cluster, "n1"))


def goes_on(flow: Held) -> None:
    before = flow.look().answered
    eventually(lambda: flow.look().answered > before, "the flow goes on")


def rows(cluster: OwnCluster, node: str) -> list[Policy | Snat]:
    found = cluster.roles[node].machine.read().northbound.actual
    return [one for one in found if isinstance(one, Policy | Snat)]


def test_pods_of_a_node_that_died_leave_by_the_next_one_with_the_same_address(cluster: OwnCluster) -> None:
    mine = chosen(cluster)
    on(cluster, "n1", mine)
    cluster.settle()
    cluster.lab.node("n1").ip("link set eth0 down")  # and its role does nothing any more
    cluster.lab.by_default.reset()

    on(cluster, "n2")
    cluster.settle(alive=("n2",))

    assert sources(mine[1:]) == [*PRIMARY_EGRESS]
    assert set(cluster.lab.by_default.seen()) == {*PRIMARY_EGRESS}


def test_two_egress_ips_of_one_object_share_its_pods_and_the_loss_of_one_leaves_the_other(cluster: OwnCluster) -> None:
    mine, second = chosen(cluster), IPv4Address("192.168.99.151")
    cluster.assign("prod", ("n1", PRIMARY_EGRESS[0]), ("n2", second), pods=mine)
    cluster.settle()
    seen = {pod.agent.fetch(OUTSIDE[0], timeout_s=5).source for pod in mine for _ in range(12)}
    assert seen == {PRIMARY_EGRESS[0], second}

    cluster.assign("prod", ("n2", second))
    cluster.settle()
    assert {pod.agent.fetch(OUTSIDE[0], timeout_s=5).source for pod in mine for _ in range(6)} == {second}


def test_a_pod_that_came_or_was_recreated_elsewhere_has_its_egress_ip_and_nobody_else_gets_it(
    cluster: OwnCluster,
) -> None:
    mine, rest = chosen(cluster), others(cluster)
    on(cluster, "n1", mine[:1])
    cluster.settle()
    on(cluster, "n1", rest[1:])
    cluster.settle()
    assert sources(rest[1:]) == [*PRIMARY_EGRESS]

    gone = tuple(one for one in cluster.intent.pods if one.name != rest[1].name)
    cluster.intent = replace(cluster.intent, pods=gone)
    cluster.settle()
    assert sources(rest[1:]) == nodes_of(cluster, rest[1:]), "whoever has its address now is nobody to the EgressIP"


def test_an_egress_ip_of_a_second_nic_is_answered_for_and_stands_nowhere(cluster: OwnCluster) -> None:
    lab, mine = cluster.lab, chosen(cluster)
    routes = [
        f"route add {to} via {hop} dev {SECONDARY_NIC}" for to, hop in zip(PARTNER, SECONDARY_ROUTER, strict=True)
    ]
    for node in lab.nodes.values():
        node.ip(*routes)
    cluster.assign("far", *(("n1", one) for one in SECONDARY_EGRESS), pods=mine)
    cluster.settle()

    for pod, family in product(mine, FAMILIES):
        for target in (SECONDARY_ROUTER, PARTNER):
            assert pod.agent.fetch(target[family], timeout_s=5).source == SECONDARY_EGRESS[family]
        beyond = pod.agent.fetch(OUTSIDE[family], timeout_s=1)
        assert beyond.source is None, "its NIC has no default route, and none is made up"
    shown = lab.node("n1").net.run(("ip", "addr")).stdout
    assert not any(str(one) in shown for one in SECONDARY_EGRESS)
    with Server(lab.node("n1").net, "--http", "22") as sshd:
        sshd.wait_until_ready()
        assert [lab.outsider.fetch(one, port=22, timeout_s=1).source for one in SECONDARY_EGRESS] == [None, None]

    cluster.assign("far", *(("n2", one) for one in SECONDARY_EGRESS))
    cluster.settle()
    assert {one for counter in (lab.by_secondary, lab.by_default) for one in counter.seen_at(8080)} == {
        *SECONDARY_EGRESS
    }
    assert not any(isinstance(one, Answered) for one in cluster.roles["n1"].machine.read().actual)


def test_pods_whose_egress_ip_is_in_the_network_of_no_nic_do_not_leave_and_reach_the_cluster(
    cluster: OwnCluster,
) -> None:
    lab, mine = cluster.lab, chosen(cluster)
    on(cluster, "n1", others(cluster)[1:])  # so that n1 lets pods of n2 out
    cluster.settle()
    lab.by_default.reset()
    cluster.assign("lost", *(("n1", one) for one in NOWHERE), pods=mine)
    cluster.settle()

    assert sources(mine, timeout_s=1) == [None] * 4
    seen = [lab.by_default.seen_at(8080)]
    assert not any(seen), "neither with the node's address nor with their own"
    for family in FAMILIES:
        to = others(cluster)[0].addresses[family]
        with Server(others(cluster)[0].net, "--http", "8081") as inside:
            inside.wait_until_ready()
            assert [one.agent.fetch(to, port=8081, timeout_s=5).source for one in mine] == [
                one.addresses[family] for one in mine
            ]


def test_the_host_routes_of_a_node_count_where_it_is_in_local_mode_and_when_asked_in_shared(
    bare: OvnLaboratory,
) -> None:
    node = bare.node("n1")
    node.ip(*(f"route add {to} via {hop} dev {BRIDGE}" for to, hop in zip(PARTNER, OTHER_ROUTER, strict=True)))
    for local in (True, False):
        with own_cluster(bare, local=local) as cluster:
            asked = replace(cluster.intent.egress_routings[0], honor_host_routes=True)
            cluster.intent = replace(cluster.intent, egress_routings=(asked,))
            bare.by_other.reset()
            on(cluster, "n1", chosen(cluster))
            cluster.settle()
            for pod, family in product(chosen(cluster), FAMILIES):
                assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == PRIMARY_EGRESS[family]
            assert set(bare.by_other.seen()) == {*PRIMARY_EGRESS}
            cluster.assign("prod")
            cluster.settle()


def test_a_live_flow_survives_a_flip_of_the_gateway_mode_and_back(bare: OvnLaboratory) -> None:
    with own_cluster(bare, local=True) as cluster:
        mine = chosen(cluster)
        on(cluster, "n1", mine)
        cluster.settle()
        flows = [pod.agent.hold(OUTSIDE[family], kind="udp") for pod in mine for family in FAMILIES]
        for flow in flows:
            goes_on(flow)

        for local in (False, True):
            bare.set_mode(local=local)
            cluster.local = local
            for name, role in cluster.roles.items():
                assert role.round_of(cluster.there[name], cluster.intent.nodes, local=local).converged
            for flow in flows:
                goes_on(flow)

        for flow in flows:
            assert set(flow.stop().sources) <= {*PRIMARY_EGRESS}
        assert set(bare.by_default.seen()) == {*PRIMARY_EGRESS}
        assert bare.by_default.leaked(CLUSTER) == 0
