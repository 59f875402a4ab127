"""What a new user types first: the demo, and the laboratory that stays open. Neither leaves anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.rig import until

DEMO = [sys.executable, "-m", "outgate", "demo"]


def leftovers() -> set[str]:
    """Return what a laboratory could leave: published namespaces, processes of ours, directories."""
    names = Path("/run/netns")
    found = {str(path) for path in names.glob("og-*")} if names.is_dir() else set()
    found |= {str(path) for path in Path("/tmp").glob("outgate-demo-*")}
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"outgate.lab.server" in words or any(b"outgate-demo-" in word for word in words):
            found.add(f"{process.parent.name}: {b' '.join(words[:6]).decode()}")
    return found


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Compare before and after: other laboratories may be open on this machine."""
    before = leftovers()
    yield
    until(lambda: leftovers() <= before, "nothing is left behind")


def test_the_demo_shows_every_sentence_and_says_so_in_its_last_line() -> None:
    ran = subprocess.run(DEMO, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].startswith("PASSED: every sentence held")
    assert "FAIL" not in ran.stdout
    for pod in ("ns-blue/app-1", "ns-red/app-2"):
        assert pod in ran.stdout
    assert "leaves gw1 by enp7s0 as 192.168.55.113" in ran.stdout
    assert "\x1b[" not in ran.stdout, "no colour where nobody looks"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "A node joins" in line:
                demo.send_signal(number)
                break
        demo.communicate(timeout=60)
        assert demo.returncode == 130


def test_a_killed_demo_leaves_no_namespace_and_no_process() -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "A node joins" in line:
                demo.kill()
                break
        demo.communicate(timeout=60)
    for path in Path("/tmp").glob("outgate-demo-*"):  # files are all that a killed process can not take with it
        if path.stat().st_uid == os.getuid():
            subprocess.run(["rm", "-r", str(path)], check=True)


def test_the_laboratory_can_be_kept_open_and_taken_away() -> None:
    if Path("/run/outgate-lab").exists():
        pytest.skip("a laboratory is open on this machine already: outgate lab down")
    outgate = [sys.executable, "-m", "outgate"]
    up = subprocess.run([*outgate, "lab", "up"], capture_output=True, text=True, check=True, timeout=60)
    try:
        assert "og-lab-gw" in up.stdout
        inside = subprocess.run(
            ["ip", "netns", "exec", "og-lab-gw", "ip", "-br", "addr"], capture_output=True, text=True, check=True
        )
        assert "192.168.99.12/24" in inside.stdout
        shell = subprocess.run(
            [*outgate, "lab", "shell", "gw"],
            input="ip -br link\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "enp7s0" in shell.stdout
    finally:
        down = subprocess.run([*outgate, "lab", "down"], capture_output=True, text=True, check=False, timeout=60)
    assert down.returncode == 0, down.stderr


def test_the_laboratory_needs_root_and_says_so() -> None:
    ran = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *DEMO],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "sudo" in ran.stderr
