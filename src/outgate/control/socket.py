"""The daemon's ear: a unix socket where a question is a line of JSON, an answer lines of progress and a last one.

    {"verb": "status", "arguments": {}}
    {"progress": {"text": "writing 4000 changes"}}
    {"result": {...}}      or      {"error": {"kind": "Refused", "text": "...", "exit": 2}}

A connection carries one question; a client that closes it, or shuts its sending side, withdraws the question.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TypeVar

from outgate.control.connection import Connection, Limits
from outgate.control.lock import AlreadyRunning
from outgate.control.loop import Loop
from outgate.control.peer import Right, Rights, peer_of, rights
from outgate.control.place import give, make_run_dir
from outgate.model.errors import IntentError, NotReady, OutgateError, Refused

ACCEPT_PAUSE_S = 1.0  # when no descriptor is left for a connection

_FAILED = 2
_Kind = TypeVar("_Kind")


class Later(Enum):
    """What a verb returns when it answers its question at another time."""

    LATER = "later"


LATER = Later.LATER


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """What can be asked: the right it needs, and what runs. It returns what JSON can say, or LATER; what it raises of
    `outgate.model.errors` is told to the client.
    """

    needs: Right
    run: Callable[[Question], object]


class Question:
    """One question of one client, until it is answered or withdrawn."""

    def __init__(self, verb: str, arguments: Mapping[str, object], connection: Connection) -> None:
        self.verb = verb
        self.arguments = arguments
        self.peer = connection.peer
        self._connection = connection

    @property
    def withdrawn(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._connection.closed

    def argument(self, name: str, kind: type[_Kind], default: _Kind) -> _Kind:
        """Return an argument of a given kind, or the default where it is not given. A whole number is a float, too.

        Raises:
            IntentError: the argument is of another kind.
        """
        value = self.arguments.get(name, default)
        if kind is float and type(value) is int:
            return kind(value)  # type: ignore[call-arg]  # float takes a number, which mypy does not see through _Kind
        if type(value) is not kind:
            raise IntentError(f"`{self.verb}`: {name} must be {kind.__name__}, not {value!r:.80}")
        return value

    def progress(self, **said: object) -> None:
        """Tell the client how far it is; sent at once, as far as the client takes it."""
        self._connection.say({"progress": said})

    def answer(self, result: object) -> None:
        """Give the result, which ends the question."""
        self._connection.say({"result": result}, last=True)

    def fail(self, error: OutgateError) -> None:
        """Give the error instead of a result, which ends the question."""
        fail(self._connection, error)


class Server:
    """Listens until it is closed. Made under the lock of `control.lock`: the file of a dead daemon is replaced."""

    def __init__(
        self,
        path: Path,
        verbs: Mapping[str, Verb],
        loop: Loop,
        *,
        allowed: Rights | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.path = path
        self._limits = limits or Limits()
        self._verbs = verbs
        self._loop = loop
        self._rights = allowed or rights()
        self._connections: set[Connection] = set()
        self._listening = _listen(path, self._rights.lookers)
        self._inode = path.stat().st_ino
        self._resume()

    def close(self) -> None:
        """Tell all who wait that the daemon stops, and remove the socket's file unless it is another's by now."""
        for connection in tuple(self._connections):
            fail(connection, NotReady("the daemon is stopping; the data path stays as it is"))
            connection.close()
        self._pause()
        self._loop.at("accept", None, self._resume)
        self._listening.close()
        try:
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        except FileNotFoundError:
            pass

    def _resume(self) -> None:
        self._loop.selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def _pause(self) -> None:
        if self._listening in self._loop.selector.get_map():
            self._loop.selector.unregister(self._listening)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left: the connection stays in the queue, and would wake us without end
            self._pause()
            self._loop.at("accept", self._loop.now_s() + ACCEPT_PAUSE_S, self._resume)
            return
        limits = self._limits
        if self._rights.may_change(peer_of(accepted)):
            limits = replace(limits, question_bytes=limits.change_bytes)
        connection = Connection(accepted, self._loop, limits, heard=self._heard, gone=self._connections.discard)
        users = [other.peer.uid for other in self._connections]
        self._connections.add(connection)
        uid = connection.peer.uid
        if len(users) >= self._limits.clients or (uid != 0 and users.count(uid) >= self._limits.of_one_user):
            fail(connection, NotReady(f"{len(users)} clients are being answered; ask again in a moment"))

    def _heard(self, connection: Connection, line: bytes | None) -> None:
        """Let the verb of a question run."""
        try:
            question = _question(line, connection)
            verb = self._verbs.get(question.verb)
            if verb is None:
                raise IntentError(f"there is no verb `{question.verb:.40}`; there are {', '.join(sorted(self._verbs))}")
            self._rights.check(connection.peer, verb.needs, question.verb)
            result = verb.run(question)
        except OutgateError as error:
            fail(connection, error)
        else:
            if result is not LATER:
                question.answer(result)


def exit_code(error: OutgateError) -> int:
    """Return the exit code of a command that ends with an error: 2, or 75 when it should be tried again later."""
    return error.exit_code if isinstance(error, AlreadyRunning) else _FAILED


def fail(connection: Connection, error: OutgateError) -> None:
    """Say an error as the last line."""
    told = {"kind": type(error).__name__, "text": str(error), "exit": exit_code(error)}
    connection.say({"error": told}, last=True)


def _question(line: bytes | None, connection: Connection) -> Question:
    if line is None:
        raise IntentError("the question is too long; put large manifests into the daemon's directory instead")
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        asked = None
    match asked:
        case {"verb": str(verb), "arguments": dict(arguments)}:
            return Question(verb, arguments, connection)
        case {"verb": str(verb)}:
            return Question(verb, {}, connection)
    raise IntentError('a question is one line of JSON: {"verb": "status", "arguments": {}}')


def _listen(path: Path, group: int | None) -> socket.socket:
    """Return a listening socket with a file of mode 0660 at `path`. The file gets its name last, so that nobody can
    connect before it is as it should be.
    """
    make_run_dir(path.parent)
    beside = path.with_name(f".{path.name}.new")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        beside.unlink(missing_ok=True)
        umask = os.umask(0o117)  # of the whole process; no other thread makes files
        try:
            listening.bind(str(beside))
        finally:
            os.umask(umask)
        give(beside, group)
        listening.listen()
        beside.rename(path)
    except OSError as failed:
        listening.close()
        raise Refused(f"listen at {path}", failed.strerror or str(failed)) from failed
    return listening
