"""The node role on a real API server: the cluster role tells a node what it has to do, and the node's own machine, a
network namespace, is looked at by a process without any capability.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.lab.kube import ControlPlane, relay
from outgate.lab.kube.cluster import Cluster
from outgate.lab.namespace import Namespace
from tests.kernel.test_node_tables import POD, Node
from tests.kube.replicas import Role, settles

EGRESS_IP = {
    "apiVersion": "k8s.ovn.org/v1",
    "kind": "EgressIP",
    "metadata": {"name": "prod"},
    "spec": {"egressIPs": ["10.10.10.100"], "namespaceSelector": {"matchLabels": {"team": "red"}}},
    "status": {"items": [{"node": "worker-1", "egressIP": "10.10.10.100"}]},
}
PRIMARY = {"k8s.ovn.org/node-primary-ifaddr": '{"ipv4":"192.168.1.2/24"}'}
ALONE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # root by name only


@pytest.fixture
def role(plane: ControlPlane, tmp_path: Path) -> Iterator[Role]:
    made = Role(plane, tmp_path)
    cluster = Cluster(plane)
    cluster.install_egress_ips()
    try:
        made.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-1", "annotations": PRIMARY}})
        yield made
    finally:
        made.close()
        plane.kubectl("delete", "egressnodes", "--all")
        plane.kubectl("delete", "crd", "egressips.k8s.ovn.org")  # other tests have a cluster without this kind
        plane.kubectl("delete", "node", "worker-1", "--ignore-not-found")


def put_pod(role: Role, namespace: str, name: str, address: str) -> None:
    role.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeName": "worker-2", "containers": [{"name": "app", "image": "app"}]},
        }
    )
    status = {"status": {"phase": "Running", "podIPs": [{"ip": address}], "podIP": address}}
    words = ("patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    role.plane.kubectl(*words)


def egress_node(role: Role) -> dict[str, Any]:
    """Return the status of the node's object, empty while there is none."""
    found = role.plane.kubectl("get", "egressnode", "worker-1", "-o", "json", check=False)
    return dict(json.loads(found.stdout).get("status", {})) if found.returncode == 0 else {}


def agrees(role: Role) -> tuple[str, str, str]:
    found = next((one for one in egress_node(role).get("conditions", []) if one["type"] == "TablesAgree"), None)
    return (found["status"], found["reason"], found["message"]) if found else ("", "", "")


def test_a_node_is_told_what_it_has_to_do_and_says_what_it_lacks(role: Role, tmp_path: Path) -> None:
    plane = role.plane
    red = plane.namespace("node-red", labels={"team": "red"})
    put_pod(role, red, "web", POD)
    role.put(EGRESS_IP)
    role.start()
    wanted = [
        {
            "name": "prod",
            "address": "10.10.10.100",
            "pods": [{"namespace": red, "name": "web", "addresses": [POD]}],
        }
    ]
    settles(lambda: egress_node(role).get("egressIPs") == wanted, "the node is told, of a pod that runs elsewhere")

    with Namespace("worker-1") as net, relay(net, plane.port):
        node = Node(net)
        words = [*ALONE, sys.executable, "-m", "outgate", "node", "run", "--name", "worker-1"]
        where = ["--kubeconfig", str(plane.kubeconfig(by_token=True))]
        with (tmp_path / "node.log").open("wb") as log, net.inside():
            child = subprocess.Popen([*words, *where], stdout=log, stderr=log)
        try:
            settles(lambda: agrees(role)[:2] == ("False", "PodWithoutRule"), "the node misses the rule")
            assert f"Pod/{red}/web" in agrees(role)[2]
            node.ip("route", "add", "default", "via", "10.10.10.1", "dev", "eth1", "metric", "200")
            node.copy()
            node.ip("rule", "add", "priority", "6000", "from", POD, "lookup", str(node.table))
            put_pod(role, red, "late", "10.244.7.7")  # it looks again, because something is new
            settles(lambda: "10.244.7.7" not in agrees(role)[2] and f"Pod/{red}/late" in agrees(role)[2], "one is left")
            assert f"Pod/{red}/web" not in agrees(role)[2]
            plane.kubectl("delete", "pod", "late", "-n", red, "--grace-period=0", "--force")
            settles(lambda: agrees(role)[:2] == ("True", "AsExpected"), "all is well")
            assert "10.10.10.100" in plane.kubectl("get", "egressnodes").stdout
        finally:
            child.terminate()
            assert child.wait(20) == 0, (tmp_path / "node.log").read_text()

    plane.kubectl("delete", "egressip", "prod")
    settles(lambda: egress_node(role).get("egressIPs") in ([], None), "it has nothing to do any more")
    plane.kubectl("delete", "node", "worker-1")
    settles(lambda: egress_node(role) == {}, "a node that left is forgotten")
