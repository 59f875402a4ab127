"""The daemon's socket is on a machine with several users. The kernel says who asks; root may all, one group may look,
another one may change, and everybody else is told what is missing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outgate.control.ask import Answered, ask
from outgate.control.peer import NotAllowed
from tests.ear import LIMITS

ROOT = Path(__file__).resolve().parents[2]
LOOKERS, CHANGERS, OTHERS = (
    64_001,
    64_002,
    65_534,
)  # numbers are enough for the kernel; the names are the server's matter
NOBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """The socket of a daemon that runs as root, in a directory that everybody may enter."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    listening = tmp_path / "ear.sock"
    command = [sys.executable, "-m", "tests.ear", str(listening), str(LOOKERS), str(CHANGERS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as daemon:
        assert daemon.stdout
        assert daemon.stdout.readline() == "listening\n"
        yield listening
        daemon.kill()


def asked(path: Path, verb: str, *groups: int, uid: int = NOBODY, times: int = 1, text: str = "") -> str:
    """What a process of another user gets to hear: the result, or the error's kind and text.

    With `times` it asks that often at once, keeps all but the last waiting, and gives the last answer. It is forked,
    not executed: another user may not be allowed to read this interpreter.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups(groups[1:])
        os.setresgid(groups[0], groups[0], groups[0])
        os.setresuid(uid, uid, uid)
        os.write(writer, answer_of(path, verb, times, text)[:1000].encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        heard = answer.read()
    os.waitpid(child, 0)
    return heard


def answer_of(path: Path, verb: str, times: int, text: str) -> str:
    with ExitStack() as stack:
        for _ in range(times - 1):
            stack.enter_context(waiting(path))
        try:
            return f"result {ask(path, verb, {'text': text} if text else {})}"
        except Answered as error:
            return f"{error.kind}: {error}"
        except NotAllowed as error:
            return f"NotAllowed: {error}"


def waiting(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.sendall(b'{"verb": "wait"}\n')
    assert b"waiting" in connection.recv(4096)
    return connection


def test_a_stranger_can_not_even_connect_and_is_told_which_group_to_join(path: Path) -> None:
    text = asked(path, "echo", OTHERS)

    assert text == (
        f"NotAllowed: nobody (uid {NOBODY}) may not ask the daemon at {path}: be root, or a member of the group "
        "outgate (usermod -aG outgate nobody)"
    )


@pytest.mark.parametrize("groups", [(LOOKERS,), (OTHERS, 64_009, LOOKERS)])
def test_a_member_of_the_group_may_look(path: Path, groups: tuple[int, ...]) -> None:
    assert asked(path, "echo", *groups) == "result {}"


def test_a_member_who_may_look_may_not_change_and_is_told_who_he_is_and_what_is_needed(path: Path) -> None:
    text = asked(path, "release", OTHERS, LOOKERS)

    assert text == (
        "NotAllowed: `release` changes the gateway and needs root or the group outgate-admin; you are uid 65534 "
        f"(groups {LOOKERS}, {OTHERS}). As root: usermod -aG outgate-admin NAME"
    )


def test_a_member_of_the_group_that_may_change_may_do_both(path: Path) -> None:
    assert asked(path, "release", OTHERS, LOOKERS, CHANGERS) == "result 0"
    assert asked(path, "echo", OTHERS, LOOKERS, CHANGERS) == "result {}"


def test_root_may_do_all_without_any_group(path: Path) -> None:
    assert asked(path, "release", OTHERS, uid=0) == "result 0"


def test_where_the_mode_was_opened_by_hand_the_daemon_still_asks_the_kernel(path: Path) -> None:
    path.chmod(0o666)

    text = asked(path, "echo", OTHERS)

    assert text.startswith(
        "NotAllowed: `echo` looks at the gateway and needs root or the group outgate; you are uid 65534"
    )


def test_who_may_only_look_can_not_send_much(path: Path) -> None:
    text = asked(path, "echo", LOOKERS, text="x" * LIMITS.question_bytes)

    assert text.startswith("IntentError: the question is too long")
    assert asked(path, "echo", LOOKERS, CHANGERS, text="x" * LIMITS.question_bytes).startswith("result {'text': 'xx")


def test_one_user_can_not_take_all_places(path: Path) -> None:
    text = asked(path, "echo", LOOKERS, times=LIMITS.of_one_user + 1)

    assert text == f"NotReady: {LIMITS.of_one_user} clients are being answered; ask again in a moment"


def test_root_is_answered_while_a_user_has_taken_all_that_he_can(path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.setresgid(LOOKERS, LOOKERS, LOOKERS)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kept = [waiting(path) for _ in range(LIMITS.of_one_user)]
        os.read(reader, 1)
        os._exit(len(kept) - LIMITS.of_one_user)
    os.close(reader)
    try:
        assert ask(path, "release") in range(LIMITS.of_one_user + 1)
    finally:
        os.close(writer)
        assert os.waitpid(child, 0)[1] == 0


def test_the_file_is_roots_and_its_group_is_of_those_who_may_look(path: Path) -> None:
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, 0, LOOKERS)
