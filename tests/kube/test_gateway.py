"""The gateway on a cluster: the laboratory's picture stands on a real API server, the daemon reads it there, pods fetch
pages, and what became of each object stands in its status.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from outgate.lab import addresses
from outgate.lab.kube import ControlPlane, relay
from outgate.lab.kube.cluster import Cluster
from outgate.lab.manifests import egress_gateway, egress_pool, egress_tenant, namespace, network, node
from outgate.lab.node import Node, Pod
from outgate.lab.topology import Laboratory
from tests.gateway.rig import FAST, Rig, until
from tests.kube.planes import control_plane
from tests.kube.replicas import Role


class KubeRig(Rig):
    """The gateway under test, with a kubeconfig instead of a directory."""

    def __init__(self, lab: Laboratory, place: Path, plane: ControlPlane) -> None:
        super().__init__(lab, place)
        self.plane, self.cluster = plane, Cluster(plane)
        self.kubeconfig = plane.kubeconfig(by_token=True)
        self.extra: tuple[str, ...] = ()

    def command(self, *words: str) -> list[str]:
        start, *rest = super().command(*words)
        where = rest.index("-f")
        return [start, *rest[:where], "--kubeconfig", str(self.kubeconfig), *self.extra, *rest[where + 2 :]]

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

    rig.lab.gw.run(["nft", "flush", "ruleset"])
    until(
        lambda: "DriftRepaired" in rig.plane.kubectl("get", "events", "-n", "default").stdout, "the repair is an event"
    )
    assert rig.leaked() == 0

    rig.lab.steer("ns-blue", addresses.INNER4)  # nobody's next hop
    assert not any(rig.is_served(pod) for pod in rig.lab.pods if pod.namespace == "ns-blue")
    until(
        lambda: "came in by no tenant's link" in rig.plane.kubectl("get", "events", "-n", "default").stdout,
        "what was stopped is an event",
        limit_s=60.0,
    )
    assert rig.leaked() == 0


def test_a_claim_is_served_with_what_the_cluster_role_gave_it(rig: KubeRig, tmp_path: Path) -> None:
    blue = next(one for one in rig.lab.tenants if one.namespace == "ns-blue")
    rig.cluster.put(egress_pool("blue", f"{blue.egress4}-{blue.egress4}"))
    rig.cluster.put(egress_tenant(blue, egressIPs=None, fromPool={"name": "blue"}))
    rig.start()
    until(lambda: rig.words("egresstenant", "ns-blue").get("reason") == "NotAllocated", "it waits for its address")
    assert not any(rig.is_served(pod) for pod in rig.lab.pods if pod.namespace == "ns-blue")
    role = Role(rig.plane, tmp_path)
    try:
        role.start()
        pods = [pod for pod in rig.lab.pods if pod.namespace == "ns-blue"]
        until(lambda: all(rig.is_served(pod) for pod in pods), "its pods are served", diagnosis=rig.diagnosis)
        until(lambda: role.condition("ns-blue", "Programmed")[0] == "True", "its condition says so", diagnosis=role.log)
    finally:
        role.close()
    assert rig.leaked() == 0


def test_without_the_api_server_the_data_path_stays_and_a_boot_serves_what_it_said_last(rig: KubeRig) -> None:
    rig.start()
    rig.wait_until_served()
    document = rig.place / "state" / "gateway" / "intent.json"
    until(document.exists, "the intent is kept")
    rig.plane.kill()
    for pod in rig.lab.pods:
        assert rig.is_served(pod)
    rig.kill()
    rig.lab.gw.run(["nft", "flush", "ruleset"])  # as after a boot: nothing of ours is there
    for link in json.loads(rig.lab.gw.run(["ip", "-j", "link"]).stdout):
        if link["ifname"].startswith("og-"):
            rig.lab.gw.run(["ip", "link", "del", link["ifname"]])
    rig.start()
    rig.wait_until_served()
    status = rig.outgate("gateway", "status").stdout
    assert "IntentFromDisk" in status
    rig.plane.start()
    until(lambda: "IntentFromDisk" not in rig.outgate("gateway", "status").stdout, "the server is heard again")
    assert rig.leaked() == 0


def test_a_kubeconfig_of_another_cluster_deletes_nothing(rig: KubeRig, tmp_path: Path) -> None:
    rig.start()
    rig.wait_until_served()
    rig.stop()
    with control_plane(tmp_path / "other", name="other") as other, relay(rig.lab.gw, other.port):
        rig.kubeconfig = other.kubeconfig(by_token=True)
        rig.start()
        status = partial(rig.outgate, "gateway", "status")
        until(lambda: "leads to the cluster" in status().stdout, "it is refused", diagnosis=lambda: str(status()))
        for pod in rig.lab.pods:
            assert rig.is_served(pod)


def test_whoever_only_looks_reads_the_api_server_too(rig: KubeRig) -> None:
    planned = rig.outgate("gateway", "plan")
    assert planned.returncode == 1, planned.stderr
    assert "EgressTenant/ns-blue" in planned.stdout
    rig.start()
    rig.wait_until_served()
    pod = rig.lab.pod("ns-blue")
    told = rig.outgate("explain", f"{pod.namespace}/{pod.name}", "--to", "203.0.113.9")
    assert told.returncode == 0, told.stderr
    assert str(rig.expected(pod)) in told.stdout
    refused = rig.outgate("gateway", "apply", "--confirm-within", "60s")
    assert refused.returncode == 2
    assert "kubectl" in refused.stderr


def both(kubeconfigs: Iterable[Path], to: Path) -> Path:
    """Write one kubeconfig of several, whose users are told apart by their clusters."""
    whole: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}
    for file in kubeconfigs:
        given = yaml.safe_load(file.read_text())
        name = given["current-context"]
        whole["clusters"] += given["clusters"]
        whole["users"].append({**given["users"][0], "name": name})
        whole["contexts"].append({"name": f"{name}-admin", "context": {"cluster": name, "user": name}})
    to.write_text(yaml.safe_dump(whole))
    return to


def of_the_page() -> dict[str, list[str]]:
    """Return what docs/install.md says to type for several clusters, in words, by the command."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "install.md").read_text()
    lines = page.split("```sh clusters\n")[1].split("```")[0].splitlines()
    return {" ".join(line.split()[:2]): line.split() for line in lines}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A gateway with two clusters, east with the blue namespace on n1 and west with the red one on n2."""

    rig: KubeRig
    east: ControlPlane
    west: ControlPlane
    lab: Laboratory

    @property
    def ours(self) -> list[Pod]:
        """The pods that shall be served, those of east first."""
        mine = {("ns-blue", "n1"), ("ns-red", "n2")}
        return sorted((one for one in self.lab.pods if (one.namespace, one.node) in mine), key=lambda one: one.node)

    def is_served(self) -> bool:
        return all(map(self.rig.is_served, self.ours))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two clusters whose objects are there; the daemon is not started."""
    with (
        control_plane(tmp_path / "east", name="east") as east,
        control_plane(tmp_path / "west", name="west") as west,
        Laboratory() as lab,
        relay(lab.gw, east.port),
        relay(lab.gw, west.port),
    ):
        rig = KubeRig(lab, tmp_path, east)
        rig.kubeconfig = both((plane.kubeconfig(by_token=True) for plane in (east, west)), tmp_path / "kubeconfig")
        rig.extra = ("--cluster", "east=east-admin", "--cluster", "west=west-admin")
        blue, red = lab.tenants
        for plane, mine, node_ in ((east, blue, lab.nodes["n1"]), (west, red, lab.nodes["n2"])):
            cluster = Cluster(plane)
            cluster.install_neighbours()
            cluster.put(network())
            for one in lab.tenants:
                cluster.put(namespace(one.namespace))
            cluster.put(egress_gateway(**FAST))
            cluster.put_node(node_)
            cluster.put(egress_tenant(mine, name="shop", sourceCheck="pods"))  # the same name in both
        yield Pair(rig=rig, east=east, west=west, lab=lab)


def test_one_gateway_serves_two_clusters_whose_objects_have_the_same_names(pair: Pair) -> None:
    rig, typed = pair.rig, of_the_page()
    assert typed["outgate gateway"][2:] == ["run", "--kubeconfig", "kubeconfig", *rig.extra]
    rig.start()
    until(pair.is_served, "both clusters are served", limit_s=60.0, diagnosis=rig.diagnosis)
    strangers = [pod for pod in pair.lab.pods if pod not in pair.ours]
    assert strangers
    assert not any(map(rig.is_served, strangers))  # the other cluster's namespace of that name
    for plane in (pair.east, pair.west):
        rig.plane = plane
        until(lambda: rig.words("egresstenant", "shop").get("programmed"), "each cluster is told of its own")
        assert rig.words("egressgateway", "gw1").get("programmed")
    subject, to, where = typed["outgate explain"][2], typed["outgate explain"][3:5], typed["outgate explain"][5:]
    assert (subject, to) == (f"west.ns-red/{pair.ours[-1].name}", ["--to", str(addresses.OUTSIDE4)])
    assert where == ["--kubeconfig", "kubeconfig", *rig.extra]
    explained = rig.outgate("explain", subject, *to)
    assert "west.shop" in explained.stdout, explained
    assert rig.leaked() == 0


def test_a_cluster_that_is_silent_or_wrong_takes_nothing_from_the_other(pair: Pair) -> None:
    rig, status = pair.rig, partial(pair.rig.outgate, "gateway", "status")
    rig.start()
    until(pair.is_served, "both clusters are served", limit_s=60.0, diagnosis=rig.diagnosis)
    pair.west.kill()
    rig.stop()
    rig.start()
    until(pair.is_served, "what the silent cluster said last is in force", diagnosis=rig.diagnosis)
    pair.west.start()
    Cluster(pair.west).drop("EgressTenant", "shop")
    until(lambda: not rig.is_served(pair.ours[-1]), "a tenant that left the one is withdrawn", limit_s=60.0)
    assert rig.is_served(pair.ours[0])
    Cluster(pair.west).put(manifest_of_node(pair.lab.nodes["n1"], "n9"))
    until(lambda: "ClustersOverlap" in status().stdout, "a shared range is a conflict", diagnosis=rig.diagnosis)
    assert "Node/west.n9" in status().stdout
    assert rig.is_served(pair.ours[0])
    assert rig.leaked() == 0


def manifest_of_node(there: Node, name: str) -> dict[str, Any]:
    """Return a node of another name that says that it has the same pod subnets."""
    made = json.loads(json.dumps(node(there)))
    made["metadata"]["name"] = name
    return dict(made)
