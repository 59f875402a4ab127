"""Replicas of the cluster role, as the tests of this folder start and end them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from outgate.lab.kube import ControlPlane
from outgate.lab.kube.kubeconfig import write_kubeconfig
from outgate.lab.manifests import Manifest
from outgate.lab.waiting import eventually

_NUMBERS = count(1)


def settles(answer: Callable[[], object], what: str, within_s: float = 40.0) -> None:
    """Wait for what replicas bring about: a process has to start, perhaps a lease to run out; so generously."""
    eventually(answer, what, within_s=within_s)


def account_kubeconfig(plane: ControlPlane, folder: Path, account: str) -> Path:
    """Write a kubeconfig with a token of a service account of the namespace outgate, and return it."""
    token = folder / f"{account}.token"
    token.write_text(plane.kubectl("create", "token", account, "--namespace", "outgate").stdout)
    file, user = folder / f"{account}.yaml", {account: {"tokenFile": token}}
    return write_kubeconfig(file, name=plane.name, server=plane.server, ca=plane.ca, user=user)


class Role:
    """Replicas of the role on a control plane, each a process of its own, with leases of this test."""

    def __init__(self, plane: ControlPlane, folder: Path, *, account: str = "") -> None:
        """Run as the admin, with a lease of its own, or as an account of the namespace outgate, with that one's."""
        self.plane, self._folder = plane, folder
        self._namespace, self._lease = ("outgate", account) if account else ("default", f"cluster-{next(_NUMBERS)}")
        self._account = account
        self.replicas: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start one more replica."""
        kubeconfig = account_kubeconfig(self.plane, self._folder, self._account) if self._account else None
        where = ["--kubeconfig", str(kubeconfig or self.plane.kubeconfig(by_token=True))]
        words = ["cluster", "run", *where, "--namespace", self._namespace, "--lease", self._lease, *options]
        with (self._folder / "role.log").open("ab") as log:
            replica = subprocess.Popen([sys.executable, "-m", "outgate", *words], stdout=log, stderr=log)
        self.replicas.append(replica)
        return replica

    def lease(self) -> dict[str, Any]:
        """Return the lease's spec; empty while there is none."""
        status, found = self.plane.call(
            "GET", f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{self._lease}"
        )
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
