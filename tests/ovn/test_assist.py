"""In local gateway mode the host's routes count for an egress IP, beside OVN-Kubernetes' own rows, shown with packets.

Pods p11 on n1 and p21 on n2 have the egress IP 192.168.99.150 (fd99::150) on n1. The host of n1 has a static route to
the partner 203.0.113.20 (2001:db8:113::20), by the other router of the primary LAN or by the second NIC.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from itertools import product

import pytest

from outgate.lab.agent import Held
from outgate.lab.batch import configure
from outgate.lab.outside import Server
from outgate.lab.ovn.addresses import (
    BRIDGE,
    CLUSTER,
    CLUSTER_ROUTER,
    MANAGEMENT_PORT,
    OTHER_ROUTER,
    OUTSIDE,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY,
    SECONDARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
    Pair,
)
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from outgate.lab.waiting import eventually
from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.intent import Assignment, Departure
from outgate.model.routing import Routing
from tests.ovn.cluster import AUTO, assignments_of, role_on

FAMILIES = (0, 1)
DEFAULT = ("0.0.0.0/0", "::/0")
SECOND_ROUTER: Pair = (SECONDARY[0][2], SECONDARY[1][2])  # beside the one of the secondary LAN
REFUSING = "table inet site { chain forward { type filter hook forward priority 5; policy drop; }; }"
HONOURED = replace(AUTO, honor_host_routes=True)


def by_other_router(lab: OvnLaboratory) -> None:
    lab.node("n1").ip(
        *(f"route add {dst} via {hop} dev {BRIDGE}" for dst, hop in zip(PARTNER, OTHER_ROUTER, strict=True))
    )


def by_second_nic(lab: OvnLaboratory) -> None:
    lab.node("n1").ip(
        *(f"route add {dst} via {hop} dev {SECONDARY_NIC}" for dst, hop in zip(PARTNER, SECONDARY_ROUTER, strict=True))
    )


@pytest.fixture
def local(lab: OvnLaboratory) -> OvnLaboratory:
    """Local gateway mode, and OVN-Kubernetes' rows for the egress IP of both families."""
    lab.set_mode(local=True)
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(lab)))
    return lab


def chosen(lab: OvnLaboratory) -> tuple[OvnPod, ...]:
    return (lab.node("n1").pods[0], lab.node("n2").pods[0])


def test_a_static_route_by_another_router_is_followed_with_the_egress_ip(local: OvnLaboratory) -> None:
    by_other_router(local)
    with role_on(local, "n1") as role:
        outcome = role.round(assignments_of(PRIMARY_EGRESS, chosen(local)))
        assert outcome.converged
        for pod, family in product(chosen(local), FAMILIES):
            assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == PRIMARY_EGRESS[family]
            assert pod.agent.fetch(OUTSIDE[family], timeout_s=5).source == PRIMARY_EGRESS[family]

    assert set(local.by_other.seen()) == set(PRIMARY_EGRESS)
    assert set(local.by_default.seen()) == set(PRIMARY_EGRESS)
    assert local.by_other.leaked(CLUSTER) == local.by_default.leaked(CLUSTER) == 0


def test_a_static_route_by_the_second_nic_is_followed_with_the_egress_ip(local: OvnLaboratory) -> None:
    by_second_nic(local)
    with role_on(local, "n1") as role:
        role.round(assignments_of(PRIMARY_EGRESS, chosen(local)))

        for pod, family in product(chosen(local), FAMILIES):
            assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == PRIMARY_EGRESS[family]

    assert set(local.by_secondary.seen()) == set(PRIMARY_EGRESS)


def test_a_second_round_changes_nothing_and_an_empty_one_leaves_nothing(local: OvnLaboratory) -> None:
    by_other_router(local)
    dump = local.node("n1").programs.nbctl("show"), policies(local)
    with role_on(local, "n1") as role:
        wanted = assignments_of(PRIMARY_EGRESS, chosen(local))
        assert role.round(wanted).changes
        assert not role.round(wanted).changes

        role.round(())

        assert not role.round(()).changes
        role.machine.end_rest()
        assert role.round(()).converged
    assert (local.node("n1").programs.nbctl("show"), policies(local)) == dump
    assert "outgate" not in local.node("n1").net.run(("nft", "list", "tables")).stdout
    assert "outgate" not in local.node("n1").programs.nbctl("list", "address_set")


def policies(lab: OvnLaboratory) -> str:
    return "".join(node.programs.nbctl("lr-policy-list", "ovn_cluster_router") for node in lab.nodes.values())


def test_legacy_writes_nothing(local: OvnLaboratory) -> None:
    by_other_router(local)
    with role_on(local, "n1") as role:
        assert not role.round(assignments_of(PRIMARY_EGRESS, chosen(local)), Routing()).changes

    assert chosen(local)[0].agent.fetch(PARTNER[0], timeout_s=5).source == PRIMARY_EGRESS[0]
    assert set(local.by_other.seen()) == set()


def test_a_route_that_discards_is_honoured_and_one_that_goes_is_forgotten(local: OvnLaboratory) -> None:
    pod, wanted = chosen(local)[0], assignments_of(PRIMARY_EGRESS, chosen(local))
    with role_on(local, "n1") as role:
        local.node("n1").ip(*(f"route add blackhole {one}" for one in PARTNER))
        role.round(wanted)
        assert [pod.agent.fetch(one, timeout_s=1).source for one in PARTNER] == [None, None]
        assert [pod.agent.fetch(one, timeout_s=5).source for one in OUTSIDE] == [*PRIMARY_EGRESS]

        local.node("n1").ip(*(f"route del blackhole {one}" for one in PARTNER))
        role.round(wanted)

        assert [pod.agent.fetch(one, timeout_s=5).source for one in PARTNER] == [*PRIMARY_EGRESS]
        assert set(local.by_default.seen()) == set(PRIMARY_EGRESS)


def test_a_firewall_of_the_node_that_would_drop_packets_is_seen_before_they_are_sent_its_way(
    local: OvnLaboratory,
) -> None:
    by_other_router(local)
    pod, node, wanted = chosen(local)[0], local.node("n1").net, assignments_of(PRIMARY_EGRESS, chosen(local))

    def served() -> list[object]:
        return [pod.agent.fetch(one, timeout_s=5).source for one in PARTNER]

    with role_on(local, "n1") as role:
        node.run(("iptables-nft", "-P", "FORWARD", "DROP"))
        node.run(("nft", "-f", "-"), input=REFUSING)
        findings = role.plan(wanted).findings
        assert {one.reason for one in findings} == {"ForwardRefused"}
        assert not role.round(wanted).changes
        assert served() == [*PRIMARY_EGRESS]
        assert set(local.by_other.seen()) == set()

        for command in dict.fromkeys(command for one in findings for command in one.fix.split("; ")):
            node.run(tuple(shlex.split(command)))
        assert role.plan(wanted).findings == ()
        assert role.round(wanted).converged
        assert served() == [*PRIMARY_EGRESS]
        assert set(local.by_other.seen()) == set(PRIMARY_EGRESS)

        node.run(("nft", "flush", "chain", "inet", "site", "forward"))
        role.round(wanted)

        local.by_other.reset()
        assert served() == [*PRIMARY_EGRESS]
        assert set(local.by_other.seen()) == set()


def test_pods_without_an_egress_ip_go_as_before(local: OvnLaboratory) -> None:
    by_other_router(local)
    ordinary = (local.node("n1").pods[1], local.node("n2").pods[1])

    def ways() -> list[object]:
        return [
            (pod.name, pair[family], pod.agent.fetch(pair[family], timeout_s=5).source)
            for pod, pair, family in product(ordinary, (OUTSIDE, PARTNER), FAMILIES)
        ]

    before = ways()
    with role_on(local, "n1") as role:
        role.round(assignments_of(PRIMARY_EGRESS, chosen(local)))

        assert ways() == before


def test_a_live_flow_survives_the_change_to_the_hosts_routes_and_back(local: OvnLaboratory) -> None:
    by_other_router(local)
    wanted = assignments_of(PRIMARY_EGRESS, chosen(local))
    flows = [pod.agent.hold(PARTNER[family]) for pod, family in product(chosen(local), FAMILIES)]
    with role_on(local, "n1") as role:
        for routing in (AUTO, Routing(), AUTO):
            role.round(wanted, routing)
            for flow in flows:
                goes_on(flow)

    for flow in flows:
        ended = flow.stop()
        assert (ended.alive, set(ended.sources) <= set(PRIMARY_EGRESS)) == (True, True)
    for counter in (local.by_default, local.by_other):
        assert set(counter.seen()) <= set(PRIMARY_EGRESS)


def test_a_live_flow_survives_a_flip_of_the_gateway_mode_and_back(local: OvnLaboratory) -> None:
    by_other_router(local)
    wanted = assignments_of(PRIMARY_EGRESS, chosen(local))
    with role_on(local, "n1") as role:
        role.round(wanted)
        flows = [pod.agent.hold(PARTNER[family]) for pod, family in product(chosen(local), FAMILIES)]
        for is_local in (False, True):
            local.set_mode(local=is_local)
            role.round(wanted, HONOURED, local=is_local)
            for flow in flows:
                goes_on(flow)

    for flow in flows:
        ended = flow.stop()
        assert (ended.alive, set(ended.sources) <= set(PRIMARY_EGRESS)) == (True, True)
    assert set(local.by_default.seen()) | set(local.by_other.seen()) == set(PRIMARY_EGRESS)


def test_a_flow_that_leaves_the_host_and_comes_back_after_much_was_said_is_never_untranslated(
    local: OvnLaboratory,
) -> None:
    by_other_router(local)
    wanted = assignments_of(PRIMARY_EGRESS, chosen(local))
    with role_on(local, "n1") as role:
        role.round(wanted)
        flow = chosen(local)[0].agent.hold(PARTNER[0], interval_s=0.001)
        goes_on(flow)
        role.round(wanted, Routing())
        before = flow.look().answered
        eventually(lambda: flow.look().answered > before + 2_000, "much is said by the gateway router", within_s=30)

        role.round(wanted)

        goes_on(flow)
        assert flow.stop().alive
    assert local.by_other.leaked(CLUSTER) == local.by_default.leaked(CLUSTER) == 0


def test_a_pod_that_another_nodes_egress_ip_selects_too_keeps_the_one_that_it_has(local: OvnLaboratory) -> None:
    by_other_router(local)
    local.node("n2").ip(
        *(f"route add {dst} via {hop} dev {SECONDARY_NIC}" for dst, hop in zip(PARTNER, SECONDARY_ROUTER, strict=True))
    )
    pods, spare = chosen(local), (IPv4Address("192.168.99.151"), IPv6Address("fd99::151"))
    with role_on(local, "n1") as serving, role_on(local, "n2") as standing_by:
        assert serving.round(contested(assignments_of(PRIMARY_EGRESS, pods))).converged
        assert not standing_by.round(contested(assignments_of(spare, pods))).changes

        for pod, family in product(pods, FAMILIES):
            assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == PRIMARY_EGRESS[family]
    assert set(local.by_other.seen()) == set(PRIMARY_EGRESS)
    assert set(local.by_secondary.seen()) == set()


def contested(assignments: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
    return tuple(replace(one, pods=tuple(replace(pod, contested=True) for pod in one.pods)) for one in assignments)


def test_an_egress_ip_that_moves_to_another_node_takes_that_nodes_routes(local: OvnLaboratory) -> None:
    by_other_router(local)
    local.node("n2").ip(
        *(f"route add {dst} via {hop} dev {SECONDARY_NIC}" for dst, hop in zip(PARTNER, SECONDARY_ROUTER, strict=True))
    )
    pods, today = chosen(local), Today(local)
    wanted = assignments_of(PRIMARY_EGRESS, pods)
    with role_on(local, "n1") as former, role_on(local, "n2") as latter:
        former.round(wanted)
        assert [pod.agent.fetch(PARTNER[0], timeout_s=5).source for pod in pods] == [PRIMARY_EGRESS[0]] * 2

        former.round(())
        today.withdraw_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=pods))
        today.assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n2", pods=pods))
        assert latter.round(wanted).converged
        local.by_other.reset()

        for pod, family in product(pods, FAMILIES):
            assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == PRIMARY_EGRESS[family]
        assert set(local.by_secondary.seen()) == set(PRIMARY_EGRESS)
        assert set(local.by_other.seen()) == set()
        assert not former.round(()).changes
    assert local.by_default.leaked(CLUSTER) == local.by_other.leaked(CLUSTER) == 0


def goes_on(flow: Held) -> None:
    before = flow.look().answered
    eventually(lambda: flow.look().answered > before + 3, "the flow goes on")


@pytest.mark.parametrize("gone", ["pod_snat4", "served4", "policy"])
def test_whatever_is_taken_away_nothing_leaves_with_another_address(local: OvnLaboratory, gone: str) -> None:
    by_other_router(local)
    near, far = chosen(local)
    wanted = assignments_of(PRIMARY_EGRESS, (near, far))
    with role_on(local, "n1") as role:
        role.round(wanted)
        if gone == "policy":
            role.node.programs.nbctl("lr-policy-del", CLUSTER_ROUTER, "103")
            local.settle()
        else:
            role.node.net.run(("nft", "flush", "set" if gone == "served4" else "map", "inet", "outgate", gone))

        for pod in (near, far):
            pod.agent.fetch(PARTNER[0], timeout_s=1)

        assert set(local.by_other.seen()) | set(local.by_default.seen()) <= set(PRIMARY_EGRESS)
        assert role.round(wanted).converged
        local.by_other.reset()
        assert far.agent.fetch(PARTNER[0], timeout_s=5).source == PRIMARY_EGRESS[0]
        assert set(local.by_other.seen()) == {PRIMARY_EGRESS[0]}


def test_pods_that_shall_not_leave_without_their_egress_ip_do_not_when_it_goes_and_all_else_does(
    local: OvnLaboratory,
) -> None:
    pod, other = local.node("n1").pods
    held = Departure(egress_ip="prod", namespace="shop", name=pod.name, addresses=pod.addresses, drops=True)
    near, own = local.node("n2").pods[0], local.node("n1").at
    with role_on(local, "n1") as role, Server(near.net, "--http", "8080") as answering:
        answering.wait_until_ready()
        role.round((), departures=(held,))
        assert [pod.agent.fetch(OUTSIDE[family], timeout_s=5).source for family in FAMILIES] == [*PRIMARY_EGRESS]

        Today(local).withdraw_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(local)))

        assert [pod.agent.fetch(OUTSIDE[family], timeout_s=1).source for family in FAMILIES] == [None, None]
        assert [pod.agent.fetch(one, timeout_s=5).source for one in near.addresses] == [*pod.addresses]
        assert [other.agent.fetch(OUTSIDE[family], timeout_s=5).source for family in FAMILIES] == [*own.primary]
        assert set(local.by_default.seen()) == {*PRIMARY_EGRESS, *own.primary}

        role.round(())
        assert [pod.agent.fetch(OUTSIDE[family], timeout_s=5).source for family in FAMILIES] == [*own.primary]


def test_what_an_egress_ip_allows_reaches_the_node_and_nothing_else_does(local: OvnLaboratory) -> None:
    Today(local).withdraw_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(local)))
    Today(local).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=chosen(local)))
    allowing = replace(AUTO, allow_inbound=(InboundAllowance(Protocol.TCP, 22),))
    with role_on(local, "n1") as role, Server(local.node("n1").net, "--http", "22,10250") as host:
        host.wait_until_ready()
        role.round(assignments_of(SECONDARY_EGRESS, chosen(local)), allowing)

        for family, port in product(FAMILIES, (22, 10250)):
            told = local.outsider.fetch(SECONDARY_EGRESS[family], port=port, timeout_s=1)
            assert (told.source is not None) is (port == 22)


@pytest.mark.parametrize("pair", [PRIMARY_EGRESS, SECONDARY_EGRESS], ids=["primary", "secondary"])
def test_sshd_kubelet_and_node_ports_are_not_reached_by_an_egress_ip(local: OvnLaboratory, pair: Pair) -> None:
    by_other_router(local)
    if pair == SECONDARY_EGRESS:
        Today(local).withdraw_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(local)))
        Today(local).assign_secondary(Assigned(pair=pair, node="n1", pods=chosen(local)))
    ports = (22, 10250, 30080)  # of sshd, kubelet, and a service's NodePort
    with (
        role_on(local, "n1") as role,
        Server(local.node("n1").net, "--http", ",".join(map(str, ports))) as host,
    ):
        host.wait_until_ready()
        at = local.node("n1").at
        own = at.primary if pair == PRIMARY_EGRESS else at.secondary

        def reached(addresses: Pair) -> list[object]:
            found = (local.outsider.fetch(one, port=port, timeout_s=1) for one in addresses for port in ports)
            return [one.source is not None for one in found]

        assert reached(own) == [True] * 6
        assert reached(pair) == [pair == SECONDARY_EGRESS] * 6, "the second NIC has the address: the host is open"

        role.round(assignments_of(pair, chosen(local)))

        assert reached(own) == [True] * 6
        assert reached(pair) == [False] * 6
        for pod, family in product(chosen(local), FAMILIES):
            target = (PARTNER if pair == PRIMARY_EGRESS else SECONDARY_ROUTER)[family]
            assert pod.agent.fetch(target, timeout_s=5).source == pair[family]


@pytest.mark.parametrize("is_local", [False, True], ids=["shared", "local"])
def test_a_secondary_nics_routes_are_followed_as_they_come_and_go_in_both_modes(
    lab: OvnLaboratory, *, is_local: bool
) -> None:
    lab.set_mode(local=is_local)
    near, far = chosen(lab)
    Today(lab).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=(near, far)))
    wanted = assignments_of(SECONDARY_EGRESS, (near, far))
    defaults = [
        f"{dst} via {hop} dev {SECONDARY_NIC} metric 500" for dst, hop in zip(DEFAULT, SECONDARY_ROUTER, strict=True)
    ]
    with role_on(lab, "n1") as role:
        assert role.round(wanted, local=is_local).converged
        for pod, family in product((near, far), FAMILIES):
            told = pod.agent.fetch(OUTSIDE[family], timeout_s=5)
            assert (told.source, told.error) == (None, ("EHOSTUNREACH", "ENETUNREACH")[family]), "told at once"
            assert pod.agent.fetch(SECONDARY_ROUTER[family], timeout_s=5).source == SECONDARY_EGRESS[family]

        lab.node("n1").ip(*(f"route add {line}" for line in defaults))
        assert role.round(wanted, local=is_local).changes
        for pod, family in product((near, far), FAMILIES):
            assert pod.agent.fetch(OUTSIDE[family], timeout_s=5).source == SECONDARY_EGRESS[family]
        assert not role.round(wanted, local=is_local).changes

        lab.node("n1").ip(f"route add blackhole {PARTNER[0]}")
        role.round(wanted, local=is_local)
        assert near.agent.fetch(PARTNER[0], timeout_s=1).source is None

        in_mirror = ("ip", "route", "show", "table", mirror_of(lab))
        assert "5998:" in role.node.net.run(("ip", "rule")).stdout
        assert "blackhole" in role.node.net.run(in_mirror).stdout
        role.round((), local=is_local)
        assert "5998:" not in role.node.net.run(("ip", "rule")).stdout
        assert role.node.net.run(in_mirror, check=False).stdout == ""
    assert set(lab.by_secondary.seen()) == set(SECONDARY_EGRESS)
    assert lab.by_default.seen() == {}


def test_several_routers_of_a_secondary_nic_are_all_used_and_one_that_somebody_takes_away_comes_back(
    lab: OvnLaboratory,
) -> None:
    pod, node = chosen(lab)[0], lab.node("n1")
    Today(lab).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=(pod,)))
    wanted = assignments_of(SECONDARY_EGRESS, (pod,))
    configure({lab.ext: [f"addr add {one} dev eth1 nodad" for one in SECOND_ROUTER]})
    for version, targets in ((4, PARTNER[0]), (6, PARTNER[1])):
        node.net.sysctl(f"net/ipv{version}/fib_multipath_hash_policy", 1)  # by ports as well
        hops = [f"nexthop via {pair[version == 6]} dev {SECONDARY_NIC}" for pair in (SECONDARY_ROUTER, SECOND_ROUTER)]
        node.ip(f"route add {targets} {' '.join(hops)}")
    with role_on(lab, "n1") as role:
        assert role.round(wanted, local=False).converged
        assert set(by_mirror(lab, PARTNER)) == {*map(str, SECONDARY_ROUTER), *map(str, SECOND_ROUTER)}
        for _, family in product(range(8), FAMILIES):
            assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == SECONDARY_EGRESS[family]

        for deed, target, router in zip(("replace", "del"), PARTNER, SECOND_ROUTER, strict=True):
            node.ip(f"route {deed} {target} via {router} dev {SECONDARY_NIC} table {mirror_of(lab)} proto 111")
        assert len(set(by_mirror(lab, PARTNER))) == 2, "one router of each family is gone"
        assert role.round(wanted, local=False).converged
        assert set(by_mirror(lab, PARTNER)) == {*map(str, SECONDARY_ROUTER), *map(str, SECOND_ROUTER)}
        assert not role.round(wanted, local=False).changes
    assert set(lab.by_secondary.seen()) == set(SECONDARY_EGRESS)


def mirror_of(lab: OvnLaboratory) -> str:
    """The number of the table that mirrors the first node's secondary NIC."""
    (link,) = json.loads(lab.node("n1").net.run(("ip", "-j", "link", "show", SECONDARY_NIC)).stdout)
    return str(6_000_000 + link["ifindex"])


def by_mirror(lab: OvnLaboratory, targets: Pair) -> Iterator[str]:
    """The routers by which the first node's host would send a pod's packets of 32 flows to each target."""
    node = lab.node("n1")
    for target, source in zip(targets, chosen(lab)[0].addresses, strict=True):
        for port in range(30000, 30032):
            flow = ("ipproto", "tcp", "sport", str(port), "dport", "80")
            words = ("ip", "-j", "route", "get", str(target), "from", str(source), "iif", MANAGEMENT_PORT, *flow)
            yield json.loads(node.net.run(words).stdout)[0]["gateway"]


def test_in_shared_mode_the_gateway_router_honours_host_routes_for_pods_with_an_egress_ip_alone(
    lab: OvnLaboratory,
) -> None:
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(lab)))
    by_other_router(lab)
    ordinary = lab.node("n1").pods[1]
    with role_on(lab, "n1") as role:
        wanted = assignments_of(PRIMARY_EGRESS, chosen(lab))
        assert not role.round(wanted, AUTO, local=False).changes

        assert role.round(wanted, HONOURED, local=False).converged

        for pod, family in product(chosen(lab), FAMILIES):
            assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == PRIMARY_EGRESS[family]
        assert set(lab.by_other.seen()) == set(PRIMARY_EGRESS)
        assert [ordinary.agent.fetch(one, timeout_s=5).source for one in PARTNER] == [*lab.node("n1").at.primary]
        assert set(lab.by_other.seen()) == set(PRIMARY_EGRESS)
        assert "outgate" not in lab.node("n1").net.run(("nft", "list", "tables")).stdout
        assert not role.round(wanted, HONOURED, local=False).changes
