"""Large clusters come out of a store that was written once. What is in it the API server takes for its own: a small one
is looked at closely here, made by the same recipe as the 2,000 nodes and 50,000 pods of the bench.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from outgate.lab.kube import ControlPlane
from outgate.lab.kube.crowd import CLUSTER_NETWORK, crowd

NODES, PODS = 30, 120


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    snapshot = crowd(nodes=NODES, pods=PODS, folder=tmp_path_factory.mktemp("snapshots"))
    with ControlPlane(tmp_path_factory.mktemp("crowd"), snapshot=snapshot) as plane:
        yield plane


def listed(plane: ControlPlane, path: str) -> list[dict[str, Any]]:
    status, answer = plane.call("GET", path)
    assert status == 200, answer
    items: list[dict[str, Any]] = answer["items"]
    return items


def test_every_pod_is_one_of_its_own_and_its_address_is_of_its_node(crowded: ControlPlane) -> None:
    nodes = {node["metadata"]["name"]: node for node in listed(crowded, "/api/v1/nodes")}
    pods = listed(crowded, "/api/v1/pods")

    assert (len(nodes), len(pods)) == (NODES, PODS)
    for node in nodes.values():
        assert ip_network(node["spec"]["podCIDR"]).subnet_of(ip_network(CLUSTER_NETWORK))  # type: ignore[arg-type]
    for pod in pods:
        node = nodes[pod["spec"]["nodeName"]]
        assert ip_address(pod["status"]["podIP"]) in ip_network(node["spec"]["podCIDR"])
        assert pod["status"]["hostIP"] == node["status"]["addresses"][0]["address"]
    for field in ("name", "uid"):
        assert len({pod["metadata"][field] for pod in pods}) == PODS
    assert len({pod["status"]["podIP"] for pod in pods}) == PODS
    assert {manager["manager"] for manager in pods[0]["metadata"]["managedFields"]} == {
        "kube-controller-manager",
        "kubelet",
        "ovnkube",
    }


def test_what_is_in_it_can_be_changed_and_deleted_like_everything_else(crowded: ControlPlane) -> None:
    pod = ("pod", "app-7c5ddbdf54-00007", "-n", "ns-0007")

    crowded.kubectl("label", *pod, "app=other", "--overwrite")
    crowded.kubectl("delete", *pod, "--grace-period=0", "--force")
    crowded.kubectl("delete", "node", "node-0029")

    assert len(listed(crowded, "/api/v1/pods")) == PODS - 1
    assert len(listed(crowded, "/api/v1/nodes")) == NODES - 1


def test_more_than_addresses_allow_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 3200, and 100 on each"):
        crowd(nodes=10, pods=1001)
