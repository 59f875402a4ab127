"""Rows of OVN-Kubernetes in a real zone are held against what is assigned: what lacks and what is left over is named.

Nodes n1 and n2 with two pods each. EgressIP prod, 192.168.99.150 and fd99::150 of the primary LAN (or 192.168.55.150
and fd55::150 on the second NIC), is on n1 for p11, which runs there, and p21, which does not.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.lab.ovn.addresses import CLUSTER_ROUTER, PRIMARY_EGRESS, SECONDARY_EGRESS, Pair
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from tests.ovn.cluster import NodeRole, assignments_of, role_on

MOVED: Pair = (IPv4Address("192.168.99.151"), IPv6Address("fd99::151"))


def chosen(lab: OvnLaboratory) -> tuple[OvnPod, OvnPod]:
    return lab.node("n1").pods[0], lab.node("n2").pods[0]


def told(role: NodeRole, pair: Pair, pods: tuple[OvnPod, ...], *, contested: bool = False) -> list[tuple[str, str]]:
    assignments = tuple(
        replace(one, pods=tuple(replace(pod, contested=contested) for pod in one.pods))
        for one in assignments_of(pair, pods)
    )
    role.lab.settle()  # what was committed before has been told to everybody then
    return [(one.reason, one.about) for one in role.compare_zone(assignments)]


@pytest.mark.parametrize("is_local", [True, False], ids=["local", "shared"])
def test_rows_of_a_primary_egress_ip_agree_until_one_is_taken_away(lab: OvnLaboratory, is_local: bool) -> None:
    lab.set_mode(local=is_local)
    pods, node = chosen(lab), lab.node("n1")
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=pods))
    with role_on(lab, "n1") as role:
        assert told(role, PRIMARY_EGRESS, pods) == []

        node.programs.nbctl("lr-nat-del", node.at.router, "snat", str(pods[1].addresses[0]))
        assert told(role, PRIMARY_EGRESS, pods) == [("SnatMissing", "Pod/shop/p21")]
        assert told(role, PRIMARY_EGRESS, pods, contested=True) == []

        match = f"ip6.src == {pods[0].addresses[1]}"
        node.programs.nbctl("lr-policy-del", CLUSTER_ROUTER, "100", match)
        assert told(role, PRIMARY_EGRESS, pods) == [("SnatMissing", "Pod/shop/p21"), ("RerouteMissing", "Pod/shop/p11")]


def test_what_a_withdrawn_primary_egress_ip_leaves_behind_is_named(lab: OvnLaboratory) -> None:
    pods, node = chosen(lab), lab.node("n1")
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=pods))
    with role_on(lab, "n1") as role:
        assert told(role, PRIMARY_EGRESS, pods[1:]) == [("SnatLeftOver", "Node/n1")] * 2
        assert {reason for reason, _ in told(role, MOVED, pods)} == {"SnatMissing", "SnatLeftOver"}

        node.programs.nbctl("lr-nat-add", node.at.router, "snat", str(node.at.primary[0]), "10.128.0.99")
        assert told(role, PRIMARY_EGRESS, pods) == []  # a pod without an egress IP leaves as its node


def test_rows_of_a_secondary_egress_ip_agree_until_one_is_taken_away_or_left(lab: OvnLaboratory) -> None:
    pods, node = chosen(lab), lab.node("n1")
    Today(lab).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=pods))
    with role_on(lab, "n1") as role:
        assert told(role, SECONDARY_EGRESS, pods) == []
        assert told(role, SECONDARY_EGRESS, pods[:1]) == [("RerouteLeftOver", "Node/n1")] * 2

        for pod in pods:
            node.programs.nbctl("lr-policy-del", CLUSTER_ROUTER, "100", f"ip4.src == {pod.addresses[0]}")

        assert told(role, SECONDARY_EGRESS, pods) == [("RerouteMissing", f"Pod/shop/{pod.name}") for pod in pods]
