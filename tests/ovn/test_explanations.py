"""What `explain` says is what ovn-trace says and what the packets do, from the files that people would have at hand.

EgressIP prod, 192.168.99.150 (fd99::150) on n1, serves p11 and p21. The host of n1 reaches the partner 203.0.113.20 by
its second NIC; everything else goes by the default router.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from outgate.lab.ovn import objects
from outgate.lab.ovn.addresses import (
    CLUSTER,
    OUTSIDE,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
    Address,
    mac_of,
)
from outgate.lab.ovn.programs import missing
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from tests.ovn.cluster import AUTO, assignments_of, role_on

OUTGATE = (sys.executable, "-m", "outgate")
DEMO = (*OUTGATE, "demo", "--egress-ip")
CHOSEN = ("p11", "p21")
DESTINATIONS: tuple[Address, ...] = (*OUTSIDE, *PARTNER)


@pytest.fixture
def told(lab: OvnLaboratory, tmp_path: Path) -> Path:
    """Local gateway mode, the egress IP in force, and a directory with all that `explain` wants to know."""
    lab.set_mode(local=True)
    pods = tuple(pod for pod in lab.pods if pod.name in CHOSEN)
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=pods))
    routes = zip(PARTNER, SECONDARY_ROUTER, strict=True)
    lab.node("n1").ip(*(f"route add {to} via {hop} dev {SECONDARY_NIC}" for to, hop in routes))
    every = objects.cluster(lab, local=True, chosen=CHOSEN)
    objects.write(tmp_path, [*every, objects.egress_ip("prod", PRIMARY_EGRESS, dict.fromkeys(PRIMARY_EGRESS, "n1"))])
    (tmp_path / "nodes").mkdir()
    for node in lab.nodes.values():
        file = tmp_path / "nodes" / f"{node.name}.json"
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
        written = node.net.run((*nobody, *OUTGATE, "node", "snapshot", "--name", node.name)).stdout
        file.write_text(written)
    return tmp_path


def explain(told: Path, pod: OvnPod, to: Address, semantics: str) -> dict[str, object]:
    words = (*OUTGATE, "explain", f"shop/{pod.name}", "--to", str(to), "--semantics", semantics, "-o", "json")
    ran = subprocess.run((*words, "-f", str(told)), capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    (answer,) = json.loads(ran.stdout)["explanation"]["answers"]
    decision: dict[str, object] = answer["decision"]
    return decision


def traced(lab: OvnLaboratory, pod: OvnPod, to: Address) -> str:
    """What OVN's own tool says of the pod's packet, in the zone of its node."""
    node, number = lab.node(pod.node), 0 if to.version == 4 else 1
    ip = f"ip{to.version}"
    match = (
        f'inport == "{pod.port}" && eth.src == {mac_of(pod.addresses[0])} && eth.dst == {mac_of(node.at.gateway[0])}'
        f" && {ip}.src == {pod.addresses[number]} && {ip}.dst == {to} && ip.ttl == 64 && tcp"
    )
    words = ("ovn-trace", f"--db=unix:{node.programs.southbound}", "--minimal", node.name, match)
    return node.net.run(words).stdout


@pytest.mark.parametrize("semantics", ["legacy", "auto"])
def test_explain_ovn_trace_and_the_packets_agree(lab: OvnLaboratory, told: Path, semantics: str) -> None:
    pods = tuple(pod for pod in lab.pods if pod.name in CHOSEN)
    counters = {"br-ex": lab.by_default, "eth1": lab.by_secondary}
    with role_on(lab, "n1") as role:
        if semantics == "auto":
            assert role.round(assignments_of(PRIMARY_EGRESS, pods), AUTO).converged

        for pod, to in product(pods, DESTINATIONS):
            decision = explain(told, pod, to, semantics)
            before = {link: counter.seen() for link, counter in counters.items()}
            source = pod.agent.fetch(to, timeout_s=5).source
            came = {link for link, counter in counters.items() if counter.seen() != before[link]}

            assert (str(source), came) == (decision["source"], {decision["link"]})
            if pod.node == "n1":  # a trace of another zone ends where the tunnel begins
                said = traced(lab, pod, to)
                assert ("k8s-n1" in said) is (decision["path"] == "host"), said

    assert lab.by_default.leaked(CLUSTER) == lab.by_secondary.leaked(CLUSTER) == 0


def test_the_files_of_a_user_without_rights_are_enough(told: Path) -> None:
    ran = subprocess.run(
        (*OUTGATE, "whatif", "--semantics", "auto", "-f", str(told)), capture_output=True, text=True, check=False
    )

    assert ran.returncode == 1
    assert "EgressIP/prod 192.168.99.150 on n1, 2 pods, to 203.0.113.20/32: path, offload" in ran.stdout
    listed = subprocess.run((*OUTGATE, "egressip", "list", "-f", str(told)), capture_output=True, text=True, check=True)
    assert "prod      192.168.99.150  n1    2     shop" in listed.stdout


def test_a_file_that_is_no_snapshot_is_refused_by_its_name(told: Path) -> None:
    (told / "nodes" / "n3.json").write_text('{"kind": "Pod"}')

    words = (*OUTGATE, "explain", "shop/p11", "--to", str(OUTSIDE[0]), "-f", str(told))
    ran = subprocess.run(words, capture_output=True, text=True, check=False)

    assert ran.returncode == 2
    assert "n3.json: is not what `outgate node snapshot` writes" in ran.stderr


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for the demo's files, short enough for sockets."""
    if lacking := missing():
        pytest.skip(lacking)
    with tempfile.TemporaryDirectory(prefix="ogt") as name:
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


def test_the_demo_shows_every_sentence_and_leaves_nothing(place: Path) -> None:
    ran = subprocess.run(DEMO, capture_output=True, text=True, timeout=120, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("PASSED: every sentence held")
    assert "FAIL" not in ran.stdout
    for words in (
        "by eth1 via 192.168.55.1",
        "a flow that was open before lives on",
        "seen outside, from first to last: 0",
    ):
        assert words in ran.stdout
    assert leftovers(place) == set()


def test_an_interrupted_demo_leaves_nothing(place: Path) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "semantics auto" in line:
                demo.send_signal(signal.SIGTERM)
                break
        demo.communicate(timeout=60)
        assert demo.returncode == 130
    assert leftovers(place) == set()


def leftovers(place: Path) -> set[str]:
    """Files of a demo, and processes that name its directory."""
    found = {str(path) for path in place.glob("outgate-*")}
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(place) in word for word in words):
            found.add(" ".join(words[:4]))
    return found
