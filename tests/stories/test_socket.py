"""A daemon listens at a unix socket, in the same loop that runs its rounds. Whatever comes to the socket, well asked,
badly asked or not asked at all, the next question is answered.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from outgate.control.ask import Answered, ask
from outgate.control.connection import Limits
from outgate.control.loop import Loop
from outgate.control.peer import Right, Rights
from outgate.control.socket import Server, Verb
from outgate.model.errors import Refused, Unreachable
from tests.ear import LIMITS

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 10.0  # for what should take milliseconds, on a machine that is busy


@contextmanager
def ear(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A listening daemon; it is killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.ear", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as daemon:
        try:
            assert said(daemon) == "listening"
            yield daemon
        finally:
            daemon.kill()


def said(daemon: subprocess.Popen[str]) -> str:
    assert daemon.stdout
    return daemon.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with ear(tmp_path / "4026531840.sock"):
        yield tmp_path / "4026531840.sock"


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LIMIT_S)
    connection.connect(str(path))
    return connection


def told(connection: socket.socket) -> bytes:
    """All that the daemon says until it closes, which must be soon."""
    with closing(connection), connection.makefile("rb") as answer:
        try:
            return answer.read()
        except ConnectionResetError:
            return b""


def error_of(answer: bytes) -> dict[str, object]:
    error: dict[str, object] = json.loads(answer)["error"]
    return error


def test_a_question_is_answered_with_what_json_can_say(path: Path) -> None:
    arguments = {"text": "ns-blue\x00\x1b", "number": 3, "list": [1.5, None, True], "umlaut": "ü"}

    assert ask(path, "echo", arguments) == arguments
    assert ask(path, "echo") == {}


def test_progress_comes_before_the_result_in_order(path: Path) -> None:
    steps: list[object] = []

    result = ask(path, "count", {"to": 5}, on_progress=lambda said: steps.append(said["number"]))

    assert result == "counted"
    assert steps == [0, 1, 2, 3, 4]


def test_control_characters_never_leave_the_daemon_as_they_are(path: Path) -> None:
    with connected(path) as connection:
        connection.sendall(b'{"verb": "count"}\n')
        answer = told(connection)

    assert all(byte >= 0x20 or byte == 0x0A for byte in answer)
    assert json.loads(answer.splitlines()[0])["progress"]["text"] == "step\x1b[31m\n"


def test_an_error_comes_with_its_kind_its_words_and_the_exit_code_of_the_command(path: Path) -> None:
    with pytest.raises(Answered, match=r"add route 10\.128\.0\.0/23: No such device") as refused:
        ask(path, "refuse")
    with pytest.raises(Answered, match="another outgate has this network namespace") as running:
        ask(path, "refuse", {"running": True})

    assert (refused.value.kind, refused.value.exit_code) == ("Refused", 2)
    assert (running.value.kind, running.value.exit_code) == ("AlreadyRunning", 75)


def test_an_argument_of_the_wrong_kind_is_refused_by_name(path: Path) -> None:
    with pytest.raises(Answered, match="`count`: to must be int, not 'many'"):
        ask(path, "count", {"to": "many"})


def test_a_whole_number_is_a_float_too(path: Path) -> None:
    assert ask(path, "half", {"of": 3}) == 1.5
    with pytest.raises(Answered, match="`half`: of must be float, not True"):
        ask(path, "half", {"of": True})


def test_an_unknown_verb_is_told_the_known_ones(path: Path) -> None:
    with pytest.raises(
        Answered, match="there is no verb `reboot`; there are big, count, echo, half, refuse, release, wait"
    ):
        ask(path, "reboot")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"status",
        b"[]",
        b'{"verb": 3}',
        b'{"verb": null, "arguments": {}}',
        b'{"arguments": {}}',
        b"\xff\xfe\x00",
        b"GET / HTTP/1.1\r",
        b"[" * 30_000,
        b"1" * 5_000,
    ],
)
def test_what_is_no_question_is_told_how_one_looks_and_the_next_is_answered(path: Path, line: bytes) -> None:
    with connected(path) as connection:
        connection.sendall(line + b"\n")
        error = error_of(told(connection))

    assert error["text"] == 'a question is one line of JSON: {"verb": "status", "arguments": {}}'
    assert ask(path, "echo", {"still": "there"}) == {"still": "there"}


def test_a_question_in_many_pieces_is_one_question(path: Path) -> None:
    with connected(path) as connection:
        for byte in b'{"verb": "echo", "arguments": {"a": 1}}\n':
            connection.send(bytes([byte]))

        assert json.loads(told(connection)) == {"result": {"a": 1}}


def test_a_question_that_is_too_long_is_told_so(path: Path) -> None:
    with pytest.raises(Answered, match="the question is too long"):
        ask(path, "echo", {"text": "x" * LIMITS.change_bytes})


def test_who_may_change_may_bring_much_along(path: Path) -> None:
    assert ask(path, "echo", {"text": "x" * (LIMITS.change_bytes - 1000)}) == {
        "text": "x" * (LIMITS.change_bytes - 1000)
    }


def test_a_client_that_talks_on_is_dropped(path: Path) -> None:
    with connected(path) as connection:
        connection.sendall(b'{"verb": "echo"}\n{"verb": "echo"}\n')
        assert told(connection) == b""


def test_a_client_that_says_nothing_is_dropped_at_its_deadline(path: Path) -> None:
    with connected(path) as silent, connected(path) as slow:
        slow.sendall(b'{"verb": "ec')

        assert told(silent) == b""
        assert told(slow) == b""


def test_a_client_that_does_not_read_delays_nobody_and_is_dropped_at_its_deadline(path: Path) -> None:
    with connected(path) as stuck:
        stuck.sendall(b'{"verb": "big", "arguments": {"bytes": 10000000}}\n')
        for number in range(20):
            assert ask(path, "echo", {"number": number}) == {"number": number}

        hung_up = select.poll()
        hung_up.register(stuck, 0)  # only the hang-up is reported
        assert hung_up.poll(LIMIT_S * 1000)
        assert len(told(stuck)) < 10_000_000


def test_a_large_answer_arrives_whole(path: Path) -> None:
    assert ask(path, "big", {"bytes": 20_000_000}) == "x" * 20_000_000


def test_an_answer_that_is_due_later_comes_when_it_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "ear.sock"
    with ear(path):
        answers: list[object] = []
        asked = threading.Event()
        waiting = threading.Thread(
            target=lambda: answers.append(ask(path, "wait", on_progress=lambda _: asked.set())), daemon=True
        )
        waiting.start()
        assert asked.wait(LIMIT_S)

        assert ask(path, "release") == 1
        waiting.join(LIMIT_S)
        assert answers == ["released"]


@pytest.mark.parametrize("goodbye", ["close", "shutdown"])
def test_a_client_that_goes_withdraws_its_question(tmp_path: Path, goodbye: str) -> None:
    path = tmp_path / "ear.sock"
    with ear(path) as daemon, connected(path) as connection:
        connection.sendall(b'{"verb": "wait"}\n')
        assert b"waiting" in connection.recv(4096)

        if goodbye == "close":
            connection.close()
        else:
            connection.shutdown(socket.SHUT_WR)

        assert said(daemon) == "withdrawn"
        assert ask(path, "release") == 0


def test_one_client_too_many_is_told_to_come_again(path: Path) -> None:
    with ExitStack() as stack:
        most = LIMITS.clients if os.geteuid() == 0 else LIMITS.of_one_user
        for _ in range(most):
            connection = stack.enter_context(connected(path))
            connection.sendall(b'{"verb": "wait"}\n')
            assert b"waiting" in connection.recv(4096)
        with pytest.raises(Answered, match=f"{most} clients are being answered; ask again in a moment") as busy:
            ask(path, "echo")
        assert busy.value.kind == "NotReady"

    def served() -> bool:
        try:
            return ask(path, "echo") == {}
        except Answered:
            return False

    assert any(served() for _ in range(1000)), "the places of those who left are free again"


def test_without_a_descriptor_left_the_daemon_waits_instead_of_spinning(tmp_path: Path) -> None:
    path = tmp_path / "ear.sock"
    with ear(path) as daemon:
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        in_use = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (in_use, limits[1]))
        with connected(path) as connection:
            connection.sendall(b'{"verb": "echo"}\n')
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            ticks = sum(map(int, Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
            assert ticks < 50 + os.sysconf("SC_CLK_TCK") / 4, "its start took most of that"

            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
            connection.settimeout(LIMIT_S)
            assert json.loads(told(connection)) == {"result": {}}


def test_the_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ear.sock"
    with ear(path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert path.is_socket()
    with pytest.raises(Unreachable, match=r"no daemon answers .*Connection refused.*systemctl start outgate-gateway"):
        ask(path, "echo")

    with ear(path):
        assert ask(path, "echo") == {}


def test_a_daemon_that_stops_tells_who_waits_and_takes_its_socket_along(tmp_path: Path) -> None:
    path = tmp_path / "ear.sock"
    with ear(path) as daemon, connected(path) as connection:
        connection.sendall(b'{"verb": "wait"}\n')
        assert b"waiting" in connection.recv(4096)

        daemon.terminate()

        assert error_of(told(connection))["text"] == "the daemon is stopping; the data path stays as it is"
        assert daemon.wait(LIMIT_S) == 0
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(Unreachable, match="No such file"):
        ask(path, "echo")


def test_a_silent_daemon_is_given_up_after_the_patience_of_the_caller(path: Path) -> None:
    with pytest.raises(Unreachable, match=r"said nothing for 0\.2 s"):
        ask(path, "wait", patience_s=0.2)


def test_a_daemon_that_dies_amid_an_answer_is_not_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "ear.sock"
    with ear(path) as daemon, pytest.raises(Unreachable, match="went away before it had answered `wait`"):
        ask(path, "wait", on_progress=lambda _: daemon.kill())


def test_the_socket_is_for_its_owner_and_one_group(path: Path) -> None:
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, os.geteuid(), os.getgid())


def test_a_place_that_can_not_be_listened_at_is_a_refusal(tmp_path: Path) -> None:
    loop = Loop()
    nobody = Rights(lookers=None, changers=None)
    verbs = {"echo": Verb(needs=Right.LOOK, run=lambda question: None)}

    with pytest.raises(Refused, match="listen at"):
        Server(tmp_path / ("x" * 300), verbs, loop, allowed=nobody, limits=Limits())
    loop.close()
