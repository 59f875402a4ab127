"""Replicas of the cluster role, as the tests of this folder start and end them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

from outgate.lab.kube import ControlPlane
from outgate.lab.manifests import Manifest

_NUMBERS = count(1)


class Role:
    """Replicas of the role on a control plane, each a process of its own, with leases of this test."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self._folder = plane, folder
        self._lease = f"cluster-{next(_NUMBERS)}"
        self.replicas: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start one more replica."""
        kubeconfig = self.plane.kubeconfig(by_token=True)
        words = ["cluster", "run", "--kubeconfig", str(kubeconfig), "--namespace", "default", "--lease", self._lease]
        with (self._folder / "role.log").open("ab") as log:
            replica = subprocess.Popen([sys.executable, "-m", "outgate", *words], stdout=log, stderr=log)
        self.replicas.append(replica)
        return replica

    def lease(self) -> dict[str, Any]:
        """Return the lease's spec; empty while there is none."""
        status, found = self.plane.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{self._lease}")
        return dict(found["spec"]) if status == 200 else {}

    def put(self, *manifests: Manifest) -> None:
        """Apply objects."""
        text = "\n---\n".join(map(json.dumps, manifests))
        self.plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object."""
        found: dict[str, Any] = json.loads(self.plane.kubectl("get", kind, name, "-o", "json").stdout)
        return found

    def condition(self, name: str, kind: str = "Accepted") -> tuple[str, str, str]:
        """Return a tenant's condition as status, reason and message."""
        conditions = self.get("egresstenant", name).get("status", {}).get("conditions", [])
        found = next((one for one in conditions if one["type"] == kind), None)
        return (found["status"], found["reason"], found["message"]) if found else ("", "", "")

    def addresses(self, name: str) -> list[str]:
        """Return what a tenant was given."""
        return list(self.get("egresstenant", name).get("status", {}).get("egressIPs", []))

    def log(self) -> str:
        """Return what the replicas said."""
        return (self._folder / "role.log").read_text()[-3000:]

    def close(self) -> None:
        """End the replicas, whatever was done to them."""
        for replica in self.replicas:
            if replica.poll() is None:
                replica.send_signal(signal.SIGCONT)
                replica.kill()
            replica.wait()
