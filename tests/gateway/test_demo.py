"""What a new user types first: the demo, and the laboratory that stays open. Neither leaves anything behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.rig import until

DEMO = [sys.executable, "-m", "outgate", "demo"]


MARK = "OUTGATE_TEST_OF_THE_DEMO"


def leftovers(place: Path) -> set[str]:
    """Return what a laboratory could leave: published namespaces, processes that bear our mark, directories."""
    names = Path("/run/netns")
    found = {str(path) for path in names.glob("og-lab-*")} if names.is_dir() else set()
    found |= {str(path) for path in place.glob("outgate-*")}
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            is_ours = f"{MARK}={place}".encode() in process.read_bytes().split(b"\0")
            words = (process.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if is_ours:
            found.add(f"{process.parent.name}: {b' '.join(words[:6]).decode()}")
    return found


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for the demo's files, and nothing of it is left: other laboratories may be open on this machine."""
    with tempfile.TemporaryDirectory(prefix="ogt") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setenv(MARK, name)
        before = leftovers(Path(name))
        yield Path(name)
        until(lambda: leftovers(Path(name)) <= before, "nothing is left behind")


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


def test_a_killed_demo_leaves_no_namespace_and_no_process(place: Path) -> None:
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "A node joins" in line:
                demo.kill()
                break
        demo.communicate(timeout=60)
    for path in place.glob("outgate-demo-*"):  # files are all that a killed process can not take with it
        shutil.rmtree(path)


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
