"""A question to the running daemon, from a command. The daemon's side, and the lines between, are `control.socket`."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from outgate.control.peer import NotAllowed
from outgate.control.place import READERS
from outgate.model.errors import OutgateError, Unreachable

PATIENCE_S = 60.0  # of silence: the daemon answers between two rounds, and a large round takes seconds


class Answered(OutgateError):
    """The daemon answered with an error. `kind` is its class there, `exit_code` what the command should end with."""

    def __init__(self, kind: str, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.kind = kind
        self.exit_code = exit_code


def ask(
    path: Path,
    verb: str,
    arguments: Mapping[str, object] | None = None,
    *,
    on_progress: Callable[[Mapping[str, object]], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> object:
    """Ask the daemon at a socket, and return the result. Interrupting it withdraws the question.

    Raises:
        Unreachable: nobody listens there, or nothing was said for `patience_s`.
        NotAllowed: this user may not even connect.
        Answered: the daemon's own error.
    """
    with closing(_connected(path, patience_s)) as connection:
        for line in _lines(connection, json.dumps({"verb": verb, "arguments": dict(arguments or {})}).encode()):
            match json.loads(line):
                case {"progress": dict(said)}:
                    if on_progress:
                        on_progress(said)
                case {"error": {"kind": str(kind), "text": str(text), "exit": int(code)}}:
                    raise Answered(kind, text, code)
                case {"result": result}:
                    answer: object = result
                    return answer
    raise Unreachable(f"the daemon at {path} went away before it had answered `{verb}`; look at its log")


def _connected(path: Path, patience_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(patience_s)
    try:
        connection.connect(str(path))
    except PermissionError as failed:
        connection.close()
        raise NotAllowed(_stranger(path)) from failed
    except OSError as failed:
        connection.close()
        raise Unreachable(
            f"no daemon answers in this network namespace ({path}: {failed.strerror}). Start it: "
            "systemctl start outgate-gateway"
        ) from failed
    return connection


def _stranger(path: Path) -> str:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return (
        f"{name} (uid {uid}) may not ask the daemon at {path}: be root, or a member of the group {READERS} "
        f"(usermod -aG {READERS} {name})"
    )


def _lines(connection: socket.socket, question: bytes) -> Iterator[bytes]:
    """Send a question and yield the lines of the answer, until the daemon closes."""
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # answered before it was read: too long, too many clients
            connection.sendall(question + b"\n")
        with connection.makefile("rb") as answer, suppress(ConnectionResetError):
            yield from answer
    except TimeoutError as silent:
        raise Unreachable(f"the daemon said nothing for {connection.gettimeout():g} s; look at its log") from silent
