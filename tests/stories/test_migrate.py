"""A cluster of openshift-sdn is to become one of OVN-Kubernetes: what becomes of its egress IPs.

NetNamespace shop has 192.168.1.150 on node worker-1, team shares it, old has 10.99.0.1 that no network of worker-1
holds, and none has 192.168.1.160 that no node has. The host of worker-1 (ens3 192.168.1.11, ens4 10.20.0.11) reaches
198.51.100.0/24 by a second router and 203.0.113.0/24 by ens4. Objects stand as `oc adm must-gather` leaves them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml

from outgate.model.host_table import HostSnapshot, HostTables
from outgate.model.net import MAIN, Link, LinkName, NextHop, OnLink, Route, Rule, Via
from outgate.sources.host_snapshot import snapshots, told, told_host, written
from outgate.sources.must_gather import read_must_gather, root_of

OUTGATE = (sys.executable, "-m", "outgate")
ENS3, ENS4 = LinkName("ens3"), LinkName("ens4")


def route(dst: str, hop: NextHop) -> Route:
    return Route(dst=ip_network(dst), hop=hop)


def via(address: str, link: LinkName) -> Via:
    return Via(address=ip_address(address), link=link)


HOST = HostTables(
    links=MappingProxyType({name: Link(name=name, index=index) for name, index in ((ENS3, 2), (ENS4, 3))}),
    routes=frozenset(
        {
            route("0.0.0.0/0", via("192.168.1.1", ENS3)),
            route("192.168.1.0/24", OnLink(link=ENS3)),
            route("10.20.0.0/24", OnLink(link=ENS4)),
            route("198.51.100.0/24", via("192.168.1.2", ENS3)),
            route("203.0.113.0/24", via("10.20.0.1", ENS4)),
        }
    ),
    rules=frozenset({Rule(priority=32766, version=4, action=MAIN)}),
)


def put(root: Path, place: str, one: Mapping[str, object]) -> None:
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(dict(one)))


def sdn(kind: str, name: str, **fields: object) -> dict[str, object]:
    return {"apiVersion": "network.openshift.io/v1", "kind": kind, "metadata": {"name": name}, **fields}


@pytest.fixture
def gathered(tmp_path: Path) -> Path:
    """A must-gather and the snapshots of its nodes."""
    root = tmp_path / "must-gather.local.123" / "quay-io-release-sha256-abc"
    scoped = "cluster-scoped-resources"
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1"}}
    put(root, f"{scoped}/core/nodes/worker-1.yaml", node)
    for name, addresses in (
        ("shop", ["192.168.1.150"]),
        ("team", ["192.168.1.150"]),
        ("old", ["10.99.0.1"]),
        ("none", ["192.168.1.160"]),
    ):
        fields = {"netname": name, "netid": 7, "egressIPs": addresses}
        put(root, f"{scoped}/network.openshift.io/netnamespaces/{name}.yaml", sdn("NetNamespace", name, **fields))
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        put(root, f"namespaces/{name}/{name}.yaml", space)
    fields = {"host": "worker-1", "hostIP": "192.168.1.11", "egressIPs": ["192.168.1.150", "10.99.0.1"]}
    put(root, f"{scoped}/network.openshift.io/hostsubnets/worker-1.yaml", sdn("HostSubnet", "worker-1", **fields))
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"nodeName": "worker-1"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.128.0.5"}]},
    }
    put(root, "namespaces/shop/core/pods.yaml", {"apiVersion": "v1", "kind": "PodList", "items": [pod]})
    put(root, "namespaces/shop/pods/web/web.yaml", pod)
    (tmp_path / "nodes").mkdir()
    snapshot = HostSnapshot(node="worker-1", taken_s=1.0, host=HOST)
    (tmp_path / "nodes" / "worker-1.json").write_bytes(written(snapshot))
    return tmp_path


def outgate(gathered: Path, *words: str) -> subprocess.CompletedProcess[str]:
    place = ("-f", str(gathered / "must-gather.local.123"))
    return subprocess.run((*OUTGATE, *words, *place), capture_output=True, text=True, check=False)


def test_a_must_gather_is_read_as_the_manifests_that_it_holds(gathered: Path) -> None:
    root = root_of(gathered / "must-gather.local.123")
    assert root is not None

    intent = read_must_gather(root)

    assert [node.name for node in intent.nodes] == ["worker-1"]
    assert [pod.name for pod in intent.pods] == ["web"]
    assert [one.name for one in intent.namespaces] == ["none", "old", "shop", "team"]
    assert root_of(gathered / "nodes") is None


def test_a_snapshot_reads_back_as_it_was_written(gathered: Path) -> None:
    assert snapshots(gathered / "nodes")["worker-1"].host == HOST


def test_the_report_says_which_setting_keeps_which_way(gathered: Path) -> None:
    words = ("migrate", "report", "--from", "openshift-sdn", "--nodes", str(gathered / "nodes"))

    ran = outgate(gathered, *words)

    assert ran.returncode == 1, ran.stderr
    alone, shared, auto, honoured = ran.stdout.split("gateway mode, ")[1:]
    for setting in (alone, shared):
        assert "to 198.51.100.0/24: path" in setting
        assert "then  gateway router, via 192.168.1.1 dev br-ex as 192.168.1.150" in setting
        assert "to 203.0.113.0/24" in setting
        assert "anywhere else" not in setting
    assert "nothing changes" in auto
    assert "to 203.0.113.0/24" in honoured
    assert "198.51.100.0/24" not in honoured


def test_what_can_not_be_kept_is_refused_by_name(gathered: Path) -> None:
    words = ("migrate", "report", "--from", "openshift-sdn", "--nodes", str(gathered / "nodes"), "-o", "json")

    found = json.loads(outgate(gathered, *words).stdout)

    reasons = {(one["reason"], one["about"]) for one in found["findings"]}
    assert ("AddressShared", "NetNamespace/team") in reasons
    assert ("NoHostHasIt", "NetNamespace/none") in reasons
    assert ("NoNetworkHoldsIt", "NetNamespace/old") in reasons


def test_the_converted_objects_are_egress_ips_that_outgate_reads_back(gathered: Path, tmp_path: Path) -> None:
    ran = outgate(gathered, "migrate", "convert")
    assert "kubectl label node worker-1 k8s.ovn.org/egress-assignable=" in ran.stderr

    made = {one["metadata"]["name"]: one for one in yaml.safe_load_all(ran.stdout)}

    assert made["shop"]["spec"] == {
        "egressIPs": ["192.168.1.150"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
    }
    assert "status" not in made["shop"]
    assert set(made) == {"none", "old", "shop"}
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "egressips.yaml").write_text(ran.stdout)
    listed = subprocess.run(
        (*OUTGATE, "egressip", "list", "-f", str(tmp_path / "new")), capture_output=True, text=True, check=False
    )
    assert "192.168.1.150" in listed.stdout


def test_an_address_that_is_none_is_refused_with_its_place(gathered: Path) -> None:
    root = root_of(gathered / "must-gather.local.123")
    assert root is not None
    place = "cluster-scoped-resources/network.openshift.io/netnamespaces/bad.yaml"
    put(root, place, sdn("NetNamespace", "bad", egressIPs=["192.168.1.999"]))

    ran = outgate(gathered, "migrate", "convert")

    assert ran.returncode == 2
    assert "bad.yaml NetNamespace/bad: egressIPs: '192.168.1.999'" in ran.stderr


def test_what_a_node_tells_of_its_host_reads_back_without_the_links_of_pods() -> None:
    crowded = replace(
        HOST, links=MappingProxyType({**HOST.links, LinkName("veth1"): Link(name=LinkName("veth1"), index=9)})
    )

    assert told(crowded) == told(HOST)
    assert told_host(told(crowded)) == HOST
    assert told_host("") is told_host("{") is told_host('{"links": 7}') is None
