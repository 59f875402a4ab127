"""The gateway on a cluster: the laboratory's picture stands on a real API server, the daemon reads it there, pods fetch
pages, and what became of each object stands in its status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.lab.kube import ControlPlane, relay
from outgate.lab.kube.cluster import Cluster
from outgate.lab.manifests import egress_gateway, egress_tenant
from outgate.lab.topology import Laboratory
from tests.gateway.rig import FAST, Rig, until
from tests.kube.planes import control_plane


class KubeRig(Rig):
    """The gateway under test, with a kubeconfig instead of a directory."""

    def __init__(self, lab: Laboratory, place: Path, plane: ControlPlane) -> None:
        super().__init__(lab, place)
        self.plane, self.cluster = plane, Cluster(plane)
        self.kubeconfig = plane.kubeconfig(by_token=True)

    def command(self, *words: str) -> list[str]:
        start, *rest = super().command(*words)
        where = rest.index("-f")
        return [start, *rest[:where], "--kubeconfig", str(self.kubeconfig), *rest[where + 2 :]]

    def words(self, kind: str, name: str) -> dict[str, Any]:
        """Return what gateway gw1 says of an object."""
        found = json.loads(self.plane.kubectl("get", kind, name, "-o", "json").stdout)
        said = found.get("status", {}).get("gateways", [])
        return {**said[0], "generation": found["metadata"]["generation"]} if said else {}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[KubeRig]:
    """A laboratory and a control plane of its own, whose picture is there; the daemon is not started."""
    with control_plane(tmp_path / "plane") as plane, Laboratory() as lab, relay(lab.gw, plane.port):
        made = KubeRig(lab, tmp_path, plane)
        made.cluster.install_neighbours()
        made.cluster.put_all(lab)
        made.cluster.put(egress_gateway(**FAST))
        yield made


def test_the_cluster_is_followed_and_every_object_says_what_became_of_it(rig: KubeRig) -> None:
    rig.start()
    rig.wait_until_served()
    until(lambda: rig.words("egresstenant", "ns-blue").get("programmed"), "ns-blue is said to be programmed")
    said = rig.words("egresstenant", "ns-blue")
    assert (said["name"], said["reason"]) == ("gw1", "Programmed")
    assert said["observedGeneration"] == said["generation"]

    node = rig.lab.add_node("n3")
    rig.cluster.put_node(node)
    rig.wait_until_served()
    rig.cluster.drop_node(node)
    rig.lab.remove_node("n3")
    route = str(node.addresses.pods4)
    until(lambda: route not in rig.lab.gw.run(["ip", "route"]).stdout, "the route of a node that left is gone")

    blue = next(one for one in rig.lab.tenants if one.namespace == "ns-blue")
    rig.cluster.put(egress_tenant(blue, egressIPs=["10.132.0.9"]))
    until(
        lambda: rig.words("egresstenant", "ns-blue").get("reason") == "ClusterAddress",
        "the refusal is said",
        diagnosis=lambda: str(rig.words("egresstenant", "ns-blue")) + rig.diagnosis(),
    )
    said = rig.words("egresstenant", "ns-blue")
    assert (said["programmed"], said["observedGeneration"]) == (False, said["generation"])
    assert "10.132.0.9" in said["message"]
    rig.cluster.put(egress_tenant(blue))
    rig.wait_until_served()
    assert rig.leaked() == 0
