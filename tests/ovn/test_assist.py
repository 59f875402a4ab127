"""In local gateway mode the host's routes count for an egress IP, beside OVN-Kubernetes' own rows, shown with packets.

Pods p11 on n1 and p21 on n2 have the egress IP 192.168.99.150 (fd99::150) on n1. The host of n1 has a static route to
the partner 203.0.113.20 (2001:db8:113::20), by the other router of the primary LAN or by the second NIC.
"""

from __future__ import annotations

from itertools import product

import pytest

from outgate.lab.ovn.addresses import (
    BRIDGE,
    CLUSTER,
    OTHER_ROUTER,
    OUTSIDE,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
)
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from outgate.model.egress_ip import Routing
from tests.ovn.cluster import assignments_of, role_on

FAMILIES = (0, 1)


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
