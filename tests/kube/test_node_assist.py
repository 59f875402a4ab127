"""The node role, assisting, on a real API server and a real OVN: what a static route of a node's host does to pods with
an egress IP, from the route's coming to its going.

Nodes n1 and n2 in local gateway mode; EgressIP prod, 192.168.99.150 on n1, serves p11 on n1 and p21 on n2. The partner
203.0.113.20 is reached by the other router of the primary LAN once n1 has a route there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.lab.kube import ControlPlane, relay
from outgate.lab.kube.cluster import Cluster
from outgate.lab.ovn import objects
from outgate.lab.ovn.addresses import BRIDGE, CLUSTER, OTHER_ROUTER, PARTNER, PRIMARY_EGRESS
from outgate.lab.ovn.programs import missing
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import NAMESPACE, OvnLaboratory, OvnPod
from tests.kube.replicas import Role, settles

CHOSEN = ("p11", "p21")
_AUTO = ("patch", "egressrouting", "default", "--type=merge", "-p", '{"spec": {"semantics": "auto"}}')
ALONE = ("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin")  # as the DaemonSet's container


@pytest.fixture
def lab() -> Iterator[OvnLaboratory]:
    if lacking := missing():
        pytest.skip(lacking)
    with OvnLaboratory(local=True) as made:
        _ = (made.server, made.by_default, made.by_other)
        yield made


@pytest.fixture
def role(plane: ControlPlane, lab: OvnLaboratory, tmp_path: Path) -> Iterator[Role]:
    """The cluster role, told of the laboratory's nodes, pods and EgressIP."""
    made = Role(plane, tmp_path)
    Cluster(plane).install_egress_ips()
    try:
        plane.namespace(NAMESPACE)
        for one in objects.cluster(lab, local=True, chosen=CHOSEN):
            if one["kind"] in ("Node", "Pod"):
                put(made, one)
        made.put(objects.egress_ip("prod", PRIMARY_EGRESS, dict.fromkeys(PRIMARY_EGRESS, "n1")))
        yield made
    finally:
        made.close()
        plane.kubectl("delete", "egressnodes", "--all")
        plane.kubectl("delete", "crd", "egressips.k8s.ovn.org")
        plane.kubectl("delete", "node", *lab.nodes, "--ignore-not-found")
        plane.kubectl("delete", "pod", "-n", NAMESPACE, "--all", "--grace-period=0", "--force")


def put(role: Role, one: objects.Object) -> None:
    """Put an object; what a pod's status says is a write of its own, and a node's stays as the server has it."""
    if one["kind"] != "Pod":
        role.put({key: value for key, value in one.items() if key != "status"})
        return
    spec = {**one["spec"], "containers": [{"name": "app", "image": "app"}]}
    role.put({**one, "spec": spec, "status": {}})
    name, status = one["metadata"]["name"], json.dumps({"status": one["status"]})
    words = ("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", status)
    role.plane.kubectl(*words)


def followed(role: Role, condition: str = "HostRoutesFollowed") -> tuple[str, str]:
    found = role.plane.kubectl("get", "egressnode", "n1", "-o", "json", check=False)
    status = json.loads(found.stdout).get("status", {}) if found.returncode == 0 else {}
    said = (one for one in status.get("conditions", []) if one["type"] == condition)
    return next(((one["status"], one["reason"]) for one in said), ("", ""))


def test_a_route_of_the_host_counts_from_its_coming_to_its_going(
    role: Role, lab: OvnLaboratory, tmp_path: Path
) -> None:
    node, pods = lab.node("n1"), (lab.node("n1").pods[0], lab.node("n2").pods[0])
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=pods))
    role.start()
    database = f"unix:{node.programs.northbound}"
    words = (*ALONE, sys.executable, "-m", "outgate", "node", "run", "--name", "n1", "--northbound", database)
    with relay(node.net, role.plane.port), (tmp_path / "node.log").open("wb") as log:
        where = ("--kubeconfig", str(role.plane.kubeconfig(by_token=True)))
        with node.net.inside():
            child = subprocess.Popen([*words, *where], stdout=log, stderr=log)
        try:
            settles(lambda: followed(role) == ("True", "AsExpected"), "it assists")
            settles(lambda: arrives(lab, pods) == (2, 0), "by default so far")

            node.ip(f"route add {PARTNER[0]} via {OTHER_ROUTER[0]} dev {BRIDGE}")
            settles(lambda: semantics(role) == "legacy", "nothing changes by itself")
            settles(lambda: followed(role) == ("True", "AsExpected"), "so nothing is asked for")
            assert arrives(lab, pods) == (2, 0)
            role.plane.kubectl(*_AUTO)
            settles(lambda: arrives(lab, pods) == (0, 2), "the route is followed, of both pods")

            settles(
                lambda: explained(role) == "leaves n1 by br-ex via 192.168.99.2 as 192.168.99.150", "explain says so"
            )

            node.ip(f"route del {PARTNER[0]} via {OTHER_ROUTER[0]} dev {BRIDGE}")
            settles(lambda: arrives(lab, pods) == (2, 0), "the route is forgotten")

            node.ip(f"route add {PARTNER[0]} via {OTHER_ROUTER[0]} dev {BRIDGE}")
            settles(lambda: arrives(lab, pods) == (0, 2), "it is followed again")

            assert followed(role, "RowsAgree") == ("True", "AsExpected")
            node.programs.nbctl("lr-nat-del", node.at.router, "snat", str(pods[1].addresses[1]))
            settles(lambda: followed(role, "RowsAgree") == ("False", "SnatMissing"), "a row that lacks is told", 80)
            node.programs.nbctl("lr-nat-add", node.at.router, "snat", str(PRIMARY_EGRESS[1]), str(pods[1].addresses[1]))
            settles(lambda: followed(role, "RowsAgree") == ("True", "AsExpected"), "it is there again")
        finally:
            child.terminate()
            assert child.wait(20) == 0, (tmp_path / "node.log").read_text()
    assert arrives(lab, pods) == (0, 2)  # the role is gone, and what it wrote stays

    taken = node.net.run((sys.executable, "-m", "outgate", "node", "flush", "--northbound", database)).stdout

    assert "taken back" in taken
    lab.settle()
    assert arrives(lab, pods) == (2, 0)
    assert lab.by_default.leaked(CLUSTER) == lab.by_other.leaked(CLUSTER) == 0


def semantics(role: Role) -> str:
    found = role.plane.kubectl("get", "egressrouting", "default", "-o", "jsonpath={.spec.semantics}", check=False)
    return found.stdout


def explained(role: Role) -> str:
    """What `explain` answers from the cluster alone: the role on the node has told its host's routes there."""
    words = (sys.executable, "-m", "outgate", "explain", "shop/p21", "--to", str(PARTNER[0]))
    ran = subprocess.run(
        (*words, "--kubeconfig", str(role.plane.kubeconfig())), capture_output=True, text=True, check=False
    )
    return ran.stdout.partition("\n")[0].partition(f" to {PARTNER[0]}: ")[2]


def arrives(lab: OvnLaboratory, pods: tuple[OvnPod, ...]) -> tuple[int, int]:
    """How many of the pods' requests to the partner came by the default router, and how many by the other one, all with
    the egress IP.
    """
    ways = [0, 0]
    for pod in pods:
        before = [counter.seen().get(PRIMARY_EGRESS[0], 0) for counter in (lab.by_default, lab.by_other)]
        assert pod.agent.fetch(PARTNER[0], timeout_s=5).source == PRIMARY_EGRESS[0]
        after = [counter.seen().get(PRIMARY_EGRESS[0], 0) for counter in (lab.by_default, lab.by_other)]
        ways = [way + (now > then) for way, now, then in zip(ways, after, before, strict=True)]
    return ways[0], ways[1]
