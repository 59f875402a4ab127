"""outgate does all of EgressIP, on a real API server and a real OVN: the cluster role assigns egress IPs and asks the
nodes whether they live, a role on each node makes the rows.

Nodes n1 and n2; EgressIP prod, 192.168.99.150 and fd99::150, serves p11 on n1 and p21 on n2. OVN-Kubernetes' own
feature is off. The cluster role stands outside, at the router of the nodes' LAN.

Pods ask for nothing while their way changes (tests/ovn/test_own.py has that): the connection tracking of Open vSwitch
3.1 in user space ends the switch by an assertion (conn_update_state) when a TCP port is used again with another
translation.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.lab.kube import ControlPlane, relay
from outgate.lab.kube.cluster import Cluster
from outgate.lab.ovn import objects
from outgate.lab.ovn.addresses import CLUSTER, OUTSIDE, PRIMARY_EGRESS
from outgate.lab.ovn.programs import missing
from outgate.lab.ovn.topology import NAMESPACE, OvnLaboratory
from outgate.model.intent import EgressNode
from outgate.model.routing import Stance
from outgate.plan.egress_nodes import digest
from tests.kube.replicas import Role, settles
from tests.kube.test_node_assist import put

CHOSEN = ("p11", "p21")
FAMILIES = (0, 1)
ALONE = ("setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all,+net_admin,+net_raw")
_OWN = {
    "apiVersion": "outgate.io/v1alpha1",
    "kind": "EgressRouting",
    "metadata": {"name": "default"},
    "spec": {"stance": "own", "semantics": "auto", "onUnassigned": "drop"},
}


@pytest.fixture(params=[True, False], ids=["local", "shared"])
def lab(request: pytest.FixtureRequest) -> Iterator[OvnLaboratory]:
    if lacking := missing():
        pytest.skip(lacking)
    with OvnLaboratory(local=request.param, egress_ip=False) as made:
        _ = (made.server, made.by_default, made.by_other)
        yield made


@pytest.fixture
def role(request: pytest.FixtureRequest, plane: ControlPlane, lab: OvnLaboratory, tmp_path: Path) -> Iterator[Role]:
    """The cluster's objects, without an EgressIP, and roles on both nodes; the cluster role is to be started."""
    made = Role(plane, tmp_path)
    Cluster(plane).install_egress_ips()
    with contextlib.ExitStack() as opened:
        opened.callback(_clean, plane, lab)
        opened.callback(made.close)
        labels = {"kubernetes.io/metadata.name": NAMESPACE}
        Cluster(plane).put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
        for one in objects.cluster(lab, local="local" in request.node.name, chosen=CHOSEN):
            if one["kind"] in ("Node", "Pod"):
                put(made, one)
                if one["kind"] == "Node":
                    _set_addresses(made, one)
        made.put(_OWN)
        opened.enter_context(relay(lab.ext, plane.port))
        for name in lab.nodes:
            opened.enter_context(node_role(plane, lab, name, tmp_path))
        yield made


def _set_addresses(role: Role, node: objects.Object) -> None:
    name, status = node["metadata"]["name"], json.dumps({"status": {"addresses": node["status"]["addresses"]}})
    role.plane.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", status)


@contextlib.contextmanager
def node_role(plane: ControlPlane, lab: OvnLaboratory, name: str, folder: Path) -> Iterator[None]:
    node = lab.node(name)
    words = (*ALONE, sys.executable, "-m", "outgate", "node", "run", "--name", name, "--every-node")
    where = ("--northbound", f"unix:{node.programs.northbound}", "--probes", "0.0.0.0:9097")
    kubeconfig = ("--kubeconfig", str(plane.kubeconfig(by_token=True)))
    with relay(node.net, plane.port), (folder / f"{name}.log").open("wb") as log:
        with node.net.inside():
            child = subprocess.Popen((*words, *where, *kubeconfig), stdout=log, stderr=log)
        try:
            yield
        finally:
            child.terminate()
            assert child.wait(20) == 0, (folder / f"{name}.log").read_text()


def _clean(plane: ControlPlane, lab: OvnLaboratory) -> None:
    plane.kubectl("delete", "egressnodes", "--all")
    plane.kubectl("delete", "crd", "egressips.k8s.ovn.org")
    plane.kubectl("delete", "node", *lab.nodes, "--ignore-not-found")
    plane.kubectl("delete", "pod", "-n", NAMESPACE, "--all", "--grace-period=0", "--force")


def start(role: Role, lab: OvnLaboratory) -> None:
    with lab.ext.inside():
        role.start("--node-port", "9097")


def node_of(role: Role, name: str) -> str:
    """The node that an EgressIP is on; empty: none."""
    items = role.get("egressip", name).get("status", {}).get("items", [])
    return ",".join(sorted(one["node"] for one in items))


def on_their_way(role: Role) -> bool:
    """Whether the nodes were told to send both pods, by both EgressIPs, to the nodes that these are on."""
    listed = json.loads(role.plane.kubectl("get", "egressnodes", "-o", "json").stdout)["items"]
    told = {
        (one["name"], one["egressIP"]): one.get("nodes", [])
        for node in listed
        for one in node.get("status", {}).get("departures", [])
    }
    wanted = {(pod, name): [node_of(role, name)] for pod in CHOSEN for name in ("prod4", "prod6")}
    return told == wanted


def is_idle(role: Role, name: str) -> bool:
    """Whether a node was told to do nothing, and has done that."""
    status = role.get("egressnode", name)["status"]
    nothing = EgressNode(name=name, stance=Stance.OWN)
    return bool(status.get("programmed") == digest(nothing))


def leaves(lab: OvnLaboratory, name: str) -> list[object]:
    pod = next(one for one in lab.pods if one.name == name)
    return [pod.agent.fetch(OUTSIDE[family], timeout_s=1).source for family in FAMILIES]


def test_egress_ips_are_assigned_and_move_when_their_node_dies_or_is_drained_and_nothing_leaks(
    role: Role, lab: OvnLaboratory
) -> None:
    start(role, lab)
    role.put(*(objects.egress_ip(f"prod{one.version}", [one], {}) for one in PRIMARY_EGRESS))

    settles(lambda: {node_of(role, "prod4"), node_of(role, "prod6")} == {"n1", "n2"}, "each is on a node of its own")
    settles(lambda: on_their_way(role), "the pods are sent there")
    settles(lambda: leaves(lab, "p11") == leaves(lab, "p21") == [*PRIMARY_EGRESS], "both pods leave with both")
    lab.by_default.reset()

    lab.node("n1").ip("link set eth0 down")
    settles(lambda: node_of(role, "prod4") == node_of(role, "prod6") == "n2", "what the dead node had has moved")
    settles(lambda: leaves(lab, "p21") == [*PRIMARY_EGRESS], "the pod on the other node leaves with both again")

    lab.node("n1").ip("link set eth0 up")
    settles(lambda: on_their_way(role), "the node that is back is told")
    settles(lambda: leaves(lab, "p11") == [*PRIMARY_EGRESS], "so does the one on the node that is back")
    assert node_of(role, "prod4") == node_of(role, "prod6") == "n2", "nothing moves back"

    role.plane.kubectl("label", "node", "n2", "k8s.ovn.org/egress-assignable-")
    settles(lambda: node_of(role, "prod4") == node_of(role, "prod6") == "n1", "a node that gives up its label is left")
    settles(lambda: on_their_way(role), "the pods are sent there")
    settles(lambda: leaves(lab, "p11") == leaves(lab, "p21") == [*PRIMARY_EGRESS], "with the same addresses")

    role.plane.kubectl("delete", "egressip", "prod4", "prod6")
    nodes = {name: list(lab.node(name).at.primary) for name in lab.nodes}
    assert set(lab.by_default.seen_at(8080)) == {*PRIMARY_EGRESS}  # the nodes themselves answer the cluster role
    settles(lambda: all(is_idle(role, name) for name in lab.nodes), "the nodes have nothing to do any more")
    settles(lambda: (leaves(lab, "p11"), leaves(lab, "p21")) == (nodes["n1"], nodes["n2"]), "they are ordinary pods")
    assert lab.by_default.leaked(CLUSTER) == 0
