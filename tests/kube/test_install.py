"""docs/install.md as a new user follows it: every command of the page, in order, on a real API server and in the
gateway of the laboratory; then the tenant's pod is seen outside as the page says. Both roles have the page's rights.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from outgate.lab import addresses
from outgate.lab.kube import ControlPlane, binaries, relay
from outgate.lab.kube.cluster import Cluster
from outgate.lab.topology import Laboratory
from tests.gateway.rig import until
from tests.kube.replicas import Role

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The page speaks of a machine of its own; here its directories are in the test's folder, and the daemon is ended.
PRELUDE = """
outgate() {
  local places=(--state-dir "$PWD/state" --run-dir "$PWD/run")
  if [ "$2" = run ]; then
    echo "$BASHPID" > daemon.pid
    exec python -m outgate "$@" --metrics '' "${places[@]}" > daemon.log 2>&1
  fi
  python -m outgate "$@" "${places[@]}"
}
"""


def blocks(*marks: str) -> list[tuple[str, str]]:
    """Return the page's blocks with these marks; `clusters` are tried in test_gateway.py."""
    return [one for one in BLOCK.findall((ROOT / "docs" / "install.md").read_text()) if one[0] in marks]


class Reader:
    """Somebody with the page, a cluster and a machine."""

    def __init__(self, plane: ControlPlane, lab: Laboratory | None, place: Path) -> None:
        self._lab, self._place = lab, place
        place.mkdir()
        (place / "deploy").symlink_to(ROOT / "deploy")
        shutil.copy(plane.ca, place / "ca.crt")
        path = f"{plane.programs.kubectl.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {"PATH": path, "HOME": str(place), "KUBECONFIG": str(plane.kubeconfig())}

    def follow(self, where: str, text: str) -> str:
        """Do what a block says, and return what was printed."""
        settings = [f"{name}={value}" for name, value in self._environment.items()]
        script = f"cd {self._place}\n{PRELUDE if where == 'gateway' else ''}{text}"
        words = ["env", *settings, "bash", "-euo", "pipefail", "-c", script]
        if where == "gateway":
            assert self._lab is not None
            ran = self._lab.gw.run(words, check=False)
        else:
            ran = subprocess.run(words, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, f"{text}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def close(self) -> None:
        """End the daemon that the page started."""
        file = self._place / "daemon.pid"
        if file.exists():
            pid = int(file.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                until(lambda: not Path(f"/proc/{pid}").exists(), "the daemon has ended")


def test_the_page_leads_from_a_cluster_to_a_working_tenant(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane") as plane, Laboratory() as lab, relay(lab.gw, plane.port):
        cluster = Cluster(plane)
        cluster.install_neighbours()
        cluster.put_cluster(lab)
        reader, role = Reader(plane, lab, tmp_path / "machine"), Role(plane, tmp_path, account="outgate-cluster")
        printed = []
        try:
            for where, text in blocks("cluster", "gateway"):
                printed.append(reader.follow(where, text))
                if "deploy/kustomize" in text:  # no kubelet starts the Deployment that the page has applied
                    role.start()
            pod = lab.pod("ns-blue")
            until(
                lambda: pod.agent.fetch(addresses.OUTSIDE4).source == ip_address("192.168.55.113"),
                "the pod is seen as the egress IP of the page",
            )
        finally:
            reader.close()
            role.close()
    told = "\n".join(printed)
    assert "leaves gw1 by enp7s0 as 192.168.55.113" in told
    assert "Programmed=True" in told
    assert "192.168.55.120" in printed[-1]


def test_every_block_of_the_page_is_tried() -> None:
    marks = {mark for mark, _ in BLOCK.findall((ROOT / "docs" / "install.md").read_text())}
    assert marks == {"cluster", "gateway", "openshift", "prometheus", "helm", "clusters"}


def open_kind(group: str, kind: str, plural: str, scope: str) -> dict[str, object]:
    """Return the definition of a kind of somebody else's, which takes everything."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


OTHERS = (
    ("monitoring.coreos.com", "PrometheusRule", "prometheusrules", "Namespaced"),
    ("monitoring.coreos.com", "ServiceMonitor", "servicemonitors", "Namespaced"),
    ("monitoring.coreos.com", "PodMonitor", "podmonitors", "Namespaced"),
    ("security.openshift.io", "SecurityContextConstraints", "securitycontextconstraints", "Cluster"),
)


def test_the_chart_of_the_page_is_installed_and_what_others_want_beside_it(tmp_path: Path) -> None:
    if binaries().helm is None:
        pytest.skip("no helm: KUBEBUILDER_ASSETS names a folder without it")
    with ControlPlane(tmp_path / "plane") as plane:
        reader = Reader(plane, None, tmp_path / "machine")
        for where, text in blocks("helm"):
            assert "STATUS: deployed" in reader.follow(where, text)
        found = plane.kubectl(
            "get", "deployments,daemonsets,validatingadmissionpolicies", "--all-namespaces", "-o", "name"
        )
        assert {"deployment.apps/outgate-cluster", "daemonset.apps/outgate-node"} < set(found.stdout.split())
        assert "outgate-addresses" in found.stdout
        Cluster(plane).install(open_kind(*one) for one in OTHERS)
        for where, text in blocks("prometheus", "openshift"):
            reader.follow(where, text)
        made = plane.kubectl("get", "prometheusrules,servicemonitors,podmonitors", "--all-namespaces", "-o", "name")
        assert len(made.stdout.split()) == 3
