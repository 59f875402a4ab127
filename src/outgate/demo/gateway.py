"""The gateway's story: every pod leaves by its tenant's egress IP; then nodes come and go, and things break, and
nothing leaks.

Everything is real: the daemon is a process of its own in the gateway's namespace, packets cross links and routers, and
the counter that decides about leaks stands outside and knows nothing of outgate.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from outgate.demo.screen import Screen
from outgate.lab import addresses
from outgate.lab.addresses import INNER_MAC
from outgate.lab.manifests import Manifests, Picture
from outgate.lab.node import Pod
from outgate.lab.topology import Laboratory
from outgate.sources.crd import definitions

PATIENCE_S = 15.0
TABLE_HEAD = ("pod", "node", "tenant", "expected", "seen", "explained")


@dataclass(slots=True)
class Story:
    """One run of the demo: the laboratory, the daemon, and what was seen so far."""

    lab: Laboratory
    picture: Picture  # where the objects stand
    source: list[str]  # the options that say so
    place: Path
    screen: Screen
    daemon: subprocess.Popen[str] | None = None
    failures: list[str] = field(default_factory=list)

    def outgate(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command in the gateway's namespace."""
        return self.lab.gw.run(self.command(*words), check=False)

    def command(self, *words: str) -> list[str]:
        """Return the command line of `outgate`, with the demo's own directories."""
        places = ["--state-dir", str(self.place / "state"), "--run-dir", str(self.place / "run")]
        return [sys.executable, "-m", "outgate", *words, *self.source, *places]

    def start_daemon(self) -> None:
        """Start the daemon as an administrator would, its log in a file."""
        with (self.place / "daemon.log").open("a") as file:
            self.daemon = self.lab.gw.popen(self.command("gateway", "run"), stdout=file, stderr=file)

    def check(self, holds: bool, text: str) -> None:
        """Say a sentence, and remember it if it is not true."""
        self.screen.verdict(holds, text)
        if not holds:
            self.failures.append(text)


def run(screen: Screen, *, on_api_server: bool = False) -> int:
    """Run the demo and return its exit code: 0 when every sentence held. Its objects stand in a directory, or on a real
    API server of its own.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outgate-demo-")))
        lab = stack.enter_context(Laboratory())
        picture, source = stack.enter_context(_api_server(lab, place) if on_api_server else _directory(place))
        story = Story(lab, picture, source, place, screen)
        screen.title(
            "outgate demo: a cluster of two nodes, one gateway machine, and the world outside, in network namespaces"
        )
        what = "laboratory and API server" if on_api_server else "laboratory"
        screen.say(f"{what} up in {time.monotonic() - started:.2f} s; oracle: a packet counter outside")
        for act in (_everybody_gets_out, _a_node_joins, _a_node_leaves, _stale_arp, _flushed_ruleset, _killed_daemon):
            act(story)
        leaked = lab.outside.leaked() + lab.uplink.leaked()
        story.check(leaked == 0, f"packets with a pod's own address seen outside, from first to last: {leaked}")
        if story.failures:
            screen.say((place / "daemon.log").read_text()[-4000:])
        took = time.monotonic() - started
        screen.end(
            not story.failures,
            f"{len(story.failures)} of the sentences above failed" if story.failures else "every sentence held",
            took,
        )
        return 1 if story.failures else 0


@contextmanager
def _directory(place: Path) -> Iterator[tuple[Picture, list[str]]]:
    """Yield the picture as files, and the options that lead there."""
    yield Manifests(place / "manifests"), ["-f", str(place / "manifests")]


@contextmanager
def _api_server(lab: Laboratory, place: Path) -> Iterator[tuple[Picture, list[str]]]:
    """Yield the picture on an API server, with a way to it from the gateway's namespace."""
    from outgate.lab.kube import ControlPlane, relay
    from outgate.lab.kube.cluster import Cluster

    with ControlPlane(place / "plane") as plane, relay(lab.gw, plane.port):
        cluster = Cluster(plane)
        cluster.install(definitions().values())
        cluster.install_neighbours()
        yield cluster, ["--kubeconfig", str(plane.kubeconfig(by_token=True))]


def _everybody_gets_out(story: Story) -> None:
    story.screen.title("1. Every pod fetches a page outside")
    story.picture.put_all(story.lab)
    story.start_daemon()
    pods = list(story.lab.pods)
    served = _until(lambda: all(_seen(pod) == _expected(story, pod) for pod in pods))
    story.screen.say(
        f"daemon started; every pod served {served:.1f} s later (one of them to ask whether addresses are free)"
    )
    rows = []
    for pod in pods:
        for version in (4, 6):
            expected, seen = _expected(story, pod, version), _seen(pod, version)
            target = addresses.OUTSIDE4 if version == 4 else addresses.OUTSIDE6
            explained = story.outgate("explain", f"{pod.namespace}/{pod.name}", "--to", str(target)).stdout.strip()
            line = explained.partition("\n")[0].partition(": ")[2]  # who and where to stand in the columns before
            rows.append((f"{pod.namespace}/{pod.name}", pod.node, pod.namespace, str(expected), str(seen), line))
            if seen != expected:
                story.failures.append(f"{pod.namespace}/{pod.name} was seen as {seen}")
    story.screen.table(TABLE_HEAD, rows)
    story.check(
        all(row[3] == row[4] for row in rows),
        f"all {len(rows)} were seen as their tenant's egress IP",
    )


def _a_node_joins(story: Story) -> None:
    story.screen.title("2. A node joins")
    node = story.lab.add_node("n3")
    story.picture.put_node(node)
    took = _until(lambda: all(_seen(pod) == _expected(story, pod) for pod in node.pods))
    story.check(took < PATIENCE_S, f"its pods got out as their tenants {took:.2f} s after its object appeared")


def _a_node_leaves(story: Story) -> None:
    story.screen.title("3. A node leaves")
    node = story.lab.remove_node("n3")
    story.picture.drop_node(node)
    took = _until(lambda: str(node.addresses.pods4) not in story.lab.gw.run(["ip", "route"]).stdout)
    story.check(took < PATIENCE_S, f"its return route was gone {took:.2f} s later")


def _stale_arp(story: Story) -> None:
    story.screen.title("4. A stale ARP entry sends a tenant's traffic to the wrong MAC")
    pod = story.lab.pod("ns-blue", "n1")
    tenant = next(t for t in story.lab.tenants if t.namespace == "ns-blue")
    node = story.lab.nodes["n1"]
    before = story.lab.outside.leaked()
    node.poison(tenant.next_hop4, INNER_MAC)
    fetched = pod.agent.fetch(addresses.OUTSIDE4)
    leaked = story.lab.outside.leaked() - before
    story.check(
        fetched.error is not None and leaked == 0,
        f"the pod was told at once ({fetched.error}, {fetched.ms:.0f} ms) and {leaked} packets leaked",
    )
    node.heal(tenant.next_hop4)
    took = _until(lambda: _seen(pod) == tenant.egress4)
    story.check(took < PATIENCE_S, "with the entry healed the next connection works")


def _flushed_ruleset(story: Story) -> None:
    story.screen.title("5. Somebody runs `nft flush ruleset` under traffic")
    pod = story.lab.pod("ns-red", "n2")
    before = story.lab.outside.leaked()
    with _held(pod) as look:
        story.lab.gw.run(["nft", "flush", "ruleset"])
        took = _until(lambda: "outgate" in story.lab.gw.run(["nft", "list", "tables"]).stdout, every_s=0.005)
        served = _until(lambda: _seen(pod) == _expected(story, pod))
        answered = look()
    leaked = story.lab.outside.leaked() - before
    story.check(leaked == 0, f"{leaked} packets leaked; policy routing held meanwhile")
    story.check(
        took < PATIENCE_S and served < PATIENCE_S,
        f"the table was back after {took:.2f} s; the flow had {answered} answers so far",
    )


def _killed_daemon(story: Story) -> None:
    story.screen.title("6. The daemon is killed, and started again")
    pod = story.lab.pod("ns-blue", "n2")
    assert story.daemon is not None
    with _held(pod) as look:
        story.daemon.send_signal(signal.SIGKILL)
        story.daemon.wait()
        alive = look()
        _until(lambda: look() > alive + 3)
        story.check(look() > alive, f"a flow lives on without it ({look() - alive} answers since)")
        story.start_daemon()
        took = _until(
            lambda: json.loads(story.outgate("gateway", "status", "-o", "json").stdout or "{}").get("health") == "OK",
            every_s=0.2,
        )
        again = look()
        _until(lambda: look() > again + 3)
        story.check(
            took < PATIENCE_S and look() > again,
            f"after the restart it is OK within {took:.1f} s, and the flow still lives",
        )
    story.daemon.terminate()
    story.daemon.wait(timeout=10)


@contextmanager
def _held(pod: Pod) -> Iterator[Callable[[], int]]:
    """Keep a TCP flow of a pod up; yield a function that says how many answers it had."""
    held = pod.agent.hold(addresses.OUTSIDE4, interval_s=0.02)
    try:
        yield lambda: held.look().answered
    finally:
        held.stop()


def _expected(story: Story, pod: Pod, version: int = 4) -> addresses.Address:
    tenant = next(t for t in story.lab.tenants if t.namespace == pod.namespace)
    return tenant.egress4 if version == 4 else tenant.egress6


def _seen(pod: Pod, version: int = 4) -> addresses.Address | None:
    """Return as whom a pod is seen outside, or None when it gets no answer."""
    return pod.agent.fetch(addresses.OUTSIDE4 if version == 4 else addresses.OUTSIDE6, timeout_s=1.0).source


def _until(holds: Callable[[], bool], every_s: float = 0.02) -> float:
    """Wait until a condition holds, at most for PATIENCE_S, and return how long it took in seconds."""
    began = time.monotonic()
    while not holds() and time.monotonic() - began < PATIENCE_S:
        time.sleep(every_s)
    return time.monotonic() - began
