"""A gateway under test: the laboratory, its manifests in a directory, and the real daemon in a process of its own.

The counters outside (`lab.outside`, `lab.uplink`, `lab.inner`) are the only oracle about leaks.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from outgate.lab import addresses
from outgate.lab.addresses import CLUSTER
from outgate.lab.manifests import Manifests, egress_gateway
from outgate.lab.node import Pod
from outgate.lab.topology import Laboratory

LIMIT_S = 20.0  # generous: what takes this long has failed
FAST: dict[str, Any] = {
    "announce": {"probes": 1, "probeIntervalMilliseconds": 50}
}  # stories that are not about probing


def until(
    holds: Callable[[], object], what: str, limit_s: float = LIMIT_S, diagnosis: Callable[[], str] = str
) -> float:
    """Poll a stated condition until it holds; return the seconds it took, or fail naming it, with a diagnosis."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit_s:
            raise AssertionError(f"after {limit_s:.0f} s still not so: {what}\n{diagnosis()}")
        time.sleep(0.01)
    return time.monotonic() - began


class Rig:
    """The gateway machine of a laboratory, with the daemon that serves it."""

    def __init__(self, lab: Laboratory, place: Path) -> None:
        self.lab = lab
        self.place = place
        self.manifests = Manifests(place / "manifests")
        self.daemon: subprocess.Popen[str] | None = None

    def command(self, *words: str) -> list[str]:
        """Return the command line of `outgate` with this rig's directories."""
        places = ["-f", str(self.place / "manifests"), "--state-dir", str(self.place / "state")]
        return [sys.executable, "-m", "outgate", *words, *places, "--run-dir", str(self.place / "run")]

    def outgate(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run the command in the gateway's namespace."""
        return self.lab.gw.run(self.command(*words), check=check)

    def start(self, *words: str, limited: Sequence[str] = ()) -> None:
        """Start the daemon; `limited` is a command in front that takes something away from it."""
        command = [*limited, *self.command("gateway", "run", *words)]
        with Path("/dev/null").open("a") if limited else self.log.open("a") as file:
            self.daemon = self.lab.gw.popen(command, stdout=file, stderr=file)

    def kill(self) -> None:
        """Kill the daemon, as the kernel or an impatient administrator would."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()

    def stop(self) -> int:
        """Stop the daemon politely and return its exit code."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(timeout=LIMIT_S)

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.place / "daemon.log"

    def status(self) -> dict[str, Any]:
        """Return what `outgate gateway status -o json` says, or an empty dict while nobody answers."""
        answer = self.outgate("gateway", "status", "-o", "json").stdout
        found: dict[str, Any] = json.loads(answer) if answer.strip() else {}
        return found

    def serve(self, *, manifests: bool = True, limited: Sequence[str] = ()) -> None:
        """Write the picture's manifests, start the daemon, and wait until every pod is served in both families."""
        if manifests:
            self.manifests.put_all(self.lab)
            self.manifests.put(egress_gateway(**FAST))
        self.start(limited=limited)
        self.wait_until_served()

    def wait_until_served(self) -> None:
        """Return when every pod is seen as its tenant, over both families."""
        for pod in self.lab.pods:
            for version in (4, 6):
                served = partial(self.is_served, pod, version)
                until(served, f"{pod.namespace}/{pod.name} is served over IPv{version}", diagnosis=self.diagnosis)

    def is_served(self, pod: Pod, version: int = 4) -> bool:
        """Whether a pod is seen outside as its tenant's egress IP."""
        return self.seen(pod, version) == self.expected(pod, version)

    def diagnosis(self) -> str:
        """Return what helps to understand a failure: status, neighbours, the daemon's log."""
        status = self.outgate("gateway", "status")
        neighbours = self.lab.gw.run(["ip", "neigh"]).stdout
        links = self.lab.gw.run(["ip", "-br", "addr"]).stdout
        return f"{status.stdout}{status.stderr}\n{links}\n{neighbours}\n{self.tail()}"

    def tail(self) -> str:
        """Return the end of the daemon's log."""
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def seen(self, pod: Pod, version: int = 4, timeout_s: float = 1.0) -> addresses.Address | None:
        """Return as whom a pod is seen outside, None when it gets no answer."""
        target = addresses.OUTSIDE4 if version == 4 else addresses.OUTSIDE6
        return pod.agent.fetch(target, timeout_s=timeout_s).source

    def expected(self, pod: Pod, version: int = 4) -> addresses.Address:
        """Return the egress IP of a pod's tenant."""
        tenant = next(t for t in self.lab.tenants if t.namespace == pod.namespace)
        return tenant.egress4 if version == 4 else tenant.egress6

    def leaked(self) -> int:
        """Return how many packets were seen outside or on the uplink LAN with the address of a pod."""
        return self.lab.outside.leaked(CLUSTER) + self.lab.uplink.leaked(CLUSTER)

    def sysctl(self, path: str, value: object = None) -> str:
        """Read or set a setting of the gateway machine."""
        return self.lab.gw.sysctl(path, value)


@contextmanager
def a_gateway(place: Path, **shape: Any) -> Iterator[Rig]:
    """Yield a laboratory with nothing running on its gateway machine."""
    with Laboratory(**shape) as lab:
        yield Rig(lab, place)
