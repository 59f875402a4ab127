"""Two writers in one network namespace would fight over one table. The lock lets one in, and names it to the other."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from outgate.control.lock import EX_TEMPFAIL, AlreadyRunning, acquire
from outgate.control.place import Place, here
from outgate.model.errors import IntentError, Refused

HOLD = """
import os, sys
from pathlib import Path
from outgate.control.lock import AlreadyRunning, acquire
from outgate.control.place import here

try:
    lock = acquire(here(sys.argv[2], run_dir=Path(sys.argv[1])))
except AlreadyRunning as held:
    print(held, flush=True)
    sys.exit(held.exit_code)
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


def place(folder: Path) -> Place:
    return here(run_dir=folder / "run")


@contextmanager
def holder(folder: Path, *, instance: str = "gateway", within: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, or has said why it does not; it lets go when its input ends."""
    command = [*within, sys.executable, "-c", HOLD, str(folder / "run"), instance]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_the_second_daemon_of_a_namespace_exits_75_and_names_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        assert said(first) == "held"

        with holder(tmp_path, instance="other") as second:
            words = said(second)
            assert second.wait() == EX_TEMPFAIL == 75

    assert f"pid {first.pid} (" in words
    assert "instance gateway" in words
    assert f"`{sys.executable} -c " in words
    assert " since 20" in words
    assert words.isprintable(), "the newlines of its command line are not repeated"


def test_another_network_namespace_is_another_place(tmp_path: Path) -> None:
    with holder(tmp_path) as first, holder(tmp_path, within=("unshare", "--net")) as second:
        assert said(first) == "held"
        assert said(second) == "held"


def test_a_killed_holder_holds_nothing_and_is_not_named(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        assert said(first) == "held"
        first.send_signal(signal.SIGKILL)
        first.wait()

    with acquire(place(tmp_path)), holder(tmp_path) as second:
        assert f"pid {os.getpid()} " in said(second)


def test_a_released_lock_is_free_and_its_file_stays_and_is_empty(tmp_path: Path) -> None:
    with acquire(place(tmp_path)) as lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
        with pytest.raises(AlreadyRunning):
            acquire(place(tmp_path))

    assert lock.path.read_text() == ""
    acquire(place(tmp_path)).release()


def test_a_program_that_the_holder_starts_does_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = acquire(place(tmp_path))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        lock.release()

        acquire(place(tmp_path)).release()
        assert child.poll() is None


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    first = acquire(place(tmp_path))
    first.path.unlink()
    first.release()

    with acquire(place(tmp_path)) as lock:
        assert lock.path.exists()


def test_a_holder_in_a_container_is_named_with_a_warning_about_its_pid(tmp_path: Path) -> None:
    in_a_container = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with holder(tmp_path, within=in_a_container) as first:
        assert said(first) == "held"

        with pytest.raises(AlreadyRunning, match=r"pid 1 \(.*which is not to be seen from here \(in a container\?\)"):
            acquire(place(tmp_path))


def test_a_holder_that_has_not_said_its_name_yet_is_reported_all_the_same(tmp_path: Path) -> None:
    with acquire(place(tmp_path)) as lock:
        lock.path.write_text("")

        with pytest.raises(AlreadyRunning, match="namespace: a process that has just begun") as held:
            acquire(place(tmp_path))
        assert held.value.holder is None


def as_nobody() -> None:
    """Become nobody; runs in the child between fork and exec."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)


def test_a_user_without_rights_can_not_take_the_lock_from_the_daemon(tmp_path: Path) -> None:
    where = place(tmp_path)
    acquire(where).release()
    for folder in (tmp_path, *tmp_path.parents[:1]):
        folder.chmod(0o755)
    where.run_dir.chmod(0o755)  # even if somebody opened the directory

    tried = subprocess.run(
        ["flock", "--nonblock", str(where.lock), "true"], preexec_fn=as_nobody, capture_output=True, check=False
    )

    assert tried.returncode != 0
    assert where.lock.stat().st_mode & 0o777 == 0o600


def test_the_lock_that_root_makes_belongs_to_the_user_of_the_daemon(tmp_path: Path) -> None:
    where = place(tmp_path)
    where.run_dir.mkdir()
    os.chown(where.run_dir, 65534, 65534)

    acquire(where).release()

    assert where.lock.stat().st_uid == 65534


def test_a_directory_that_can_not_be_made_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file or directory"):
        acquire(replace(place(tmp_path), run_dir=tmp_path / "missing" / "run"))


@pytest.mark.parametrize("name", ["", "Gateway", "a/b", "..", "-a", "a" * 64, "a\n"])
def test_an_instance_name_that_is_no_label_never_becomes_a_path(name: str) -> None:
    with pytest.raises(IntentError, match="must be at most 63 lower-case letters"):
        here(name)
