"""Where outgate does all of EgressIP, the walk goes through its own rows, and agrees with ovn-trace and the packets.

OVN-Kubernetes' EgressIP feature is off. Pods p11 on n1 and p21 on n2 get their egress IP on n1; p12 and p22 have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from outgate.lab.ovn.addresses import OUTSIDE, PRIMARY_EGRESS, Address
from outgate.lab.ovn.programs import missing
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from outgate.roles.egress_view import ViewOptions
from outgate.roles.options import GatewayOptions
from tests.ovn.own import OwnCluster, own_cluster
from tests.ovn.traces import Told, counter_of, learn_routers, look, reasons, sent, trace

LOCAL = pytest.mark.parametrize("is_local", [True, False], ids=["local", "shared"])


@pytest.fixture
def bare() -> Iterator[OvnLaboratory]:
    if lacking := missing():
        pytest.skip(lacking)
    with OvnLaboratory(egress_ip=False) as made:
        _ = (made.server, made.by_default, made.by_other, made.by_secondary)
        for node in made.nodes.values():
            learn_routers(node)
        yield made


def said(cluster: OwnCluster, place: Path, pod: OvnPod, to: Address) -> Told:
    """What trace says, by the EgressRoutings of the cluster."""
    view = ViewOptions(objects=GatewayOptions(manifests=place), nodes=place)
    return trace(cluster.lab, view, cluster.intent, pod, to)


@LOCAL
def test_the_walk_through_rows_of_our_own_agrees(bare: OvnLaboratory, tmp_path: Path, is_local: bool) -> None:
    with own_cluster(bare, local=is_local) as cluster:
        cluster.assign(
            "prod",
            *(("n1", one) for one in PRIMARY_EGRESS),
            pods=tuple(node.pods[0] for node in bare.nodes.values()),
        )
        cluster.settle()
        look(bare, tmp_path)

        for pod, family in product(bare.pods, (0, 1)):
            told = said(cluster, tmp_path, pod, OUTSIDE[family])

            (walk,) = told["walks"]
            assert {"TraceDiffers", "NotAsPlanned"}.isdisjoint(reasons(told)), told["findings"]
            assert sent(bare, pod, OUTSIDE[family]) == (walk["leavesAs"], {counter_of(walk)})
            has_one = pod in (bare.node("n1").pods[0], bare.node("n2").pods[0])
            assert (walk["leavesAs"] == str(PRIMARY_EGRESS[family])) is has_one


def test_pods_that_are_held_are_walked_to_what_holds_them(bare: OvnLaboratory, tmp_path: Path) -> None:
    pod = bare.node("n1").pods[0]
    with own_cluster(bare, local=True, drops=True) as cluster:
        cluster.assign("prod", *(("n1", one) for one in PRIMARY_EGRESS), pods=(pod,))
        (wanted,) = cluster.intent.egress_ips
        cluster.intent = replace(cluster.intent, egress_ips=(replace(wanted, assigned=()),))
        cluster.settle()
        look(bare, tmp_path)

        for family in (0, 1):
            told = said(cluster, tmp_path, pod, OUTSIDE[family])

            assert [one["fate"] for one in told["walks"]] == ["DROPPED"]
            assert "(outgate's) drops it" in told["headline"]
            assert "TraceDiffers" not in reasons(told)
            assert pod.agent.fetch(OUTSIDE[family], timeout_s=1).source is None
