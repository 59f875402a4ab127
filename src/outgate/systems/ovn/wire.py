"""The OVSDB management protocol: JSON-RPC 1.0 over a Unix socket or TCP (RFC 7047, ovsdb-server(7)).

Messages stand end to end, without anything between. The maintained Python package walks through each with a parser of
its own and then keeps every row twice: 100,000 rows take it 7 s and 258 MB. Here the whole answer is decoded at once.
A message is looked for when nothing more is coming, or when there is twice as much as at the last try.

Of a clustered database the leader is spoken to: another member may be behind, and would pass writes on. The server says
who leads in its database `_Server`, and tells when that changes.
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from outgate.model.errors import Refused, Unreachable

Json: TypeAlias = Any
Operation: TypeAlias = dict[str, Json]

_CHUNK = 1 << 20
_QUIET_S = 0.002  # so long nothing has come: what is there may be whole
_END = ord("}")
_ANSWER_S = 30.0
_SERVER, _LEADERSHIP = "_Server", "outgate-leadership"  # the database about databases, and our monitor of it
_DECODER = json.JSONDecoder()


class Database:
    """A connection to one database of a server. It belongs to one thread; a call waits for its answer."""

    def __init__(self, target: str, name: str) -> None:
        """Connect to `unix:PATH` or `tcp:HOST:PORT`; `name` is the database's, such as OVN_Northbound. Of several, with
        commas between, the members of a cluster, it is the leader that is spoken to.

        Raises:
            Unreachable: nobody listens there, or nobody leads.
        """
        self.name = name
        self._numbers = itertools.count(1)
        self._buffer = bytearray()
        self._messages: deque[dict[str, Json]] = deque()
        self._told: deque[Json] = deque()
        failures: list[str] = []
        for one in target.split(","):
            self.target = one
            try:
                self._socket = _connected(one)
            except (OSError, ValueError) as error:
                failures.append(f"{name} at {one}: {error}")
                continue
            try:
                self._follow_leader()
            except Unreachable as error:
                self._socket.close()
                self._buffer.clear()
                self._messages.clear()
                failures.append(str(error))
                continue
            return
        raise Unreachable("; ".join(failures))

    def fileno(self) -> int:
        """Return what becomes readable when the server says something."""
        return self._socket.fileno()

    def transact(self, operations: Sequence[Operation], *, change: str) -> list[Json]:
        """Have operations carried out, all or none, and return the result of each. `change` says what is asked.

        Raises:
            Refused: with the server's words; nothing was carried out.
            Unreachable: the server does not answer.
        """
        results: list[Json] = self.call("transact", [self.name, *operations])
        for number, result in enumerate(results):
            if isinstance(result, dict) and "error" in result:
                words = f"{result['error']}: {result.get('details', '')}"
                where = operations[number].get("table", "") if number < len(operations) else "commit"
                raise Refused(change, f"{self.name} {where}: {words}")
        return results

    def call(self, method: str, parameters: Sequence[Json]) -> Json:
        """Call a method of the server and return its result; what it tells meanwhile is kept for `told`.

        Raises:
            Refused: with the server's words.
            Unreachable: the server does not answer.
        """
        number = next(self._numbers)
        self._send({"id": number, "method": method, "params": list(parameters)})
        end = time.monotonic() + _ANSWER_S
        while True:
            message = self._next(end)
            if message is None:
                raise Unreachable(f"{self.name} at {self.target} has not answered {method} for {_ANSWER_S:g} s")
            if message.get("id") == number and "method" not in message:
                if message.get("error") is not None:
                    raise Refused(method, f"{self.name}: {_words(message['error'])}")
                return message["result"]
            self._take(message)

    def told(self) -> list[Json]:
        """Return the parameters of updates that have come, oldest first, without waiting.

        Raises:
            Unreachable: the connection is gone.
        """
        while (message := self._next(0.0)) is not None:
            self._take(message)
        told = list(self._told)
        self._told.clear()
        return told

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _follow_leader(self) -> None:
        """Ask who leads, and to be told when that changes.

        Raises:
            Unreachable: this server does not lead.
        """
        watched = {"Database": [{"columns": ["leader"], "where": [["name", "==", self.name]]}]}
        try:
            self._look_who_leads(self.call("monitor_cond", [_SERVER, _LEADERSHIP, watched]))
        except Refused:
            return  # a server without that database knows no clusters

    def _look_who_leads(self, tables: Json) -> None:
        """Take what the server says of its database: a column that holds its default is left out at first."""
        for row in tables.get("Database", {}).values():
            said = row.get("initial", row.get("insert", row.get("modify", {})))
            if not said.get("leader", "modify" in row):
                raise Unreachable(f"{self.name} at {self.target}: another member of the cluster leads")

    def _take(self, message: dict[str, Json]) -> None:
        match message.get("method"):
            case "echo":  # the server asks whether we live
                self._send({"id": message.get("id"), "result": message.get("params", []), "error": None})
            case "update2" if message["params"][0] == _LEADERSHIP:
                self._look_who_leads(message["params"][1])
            case "update" | "update2" | "update3":
                self._told.append(message["params"])

    def _send(self, message: dict[str, Json]) -> None:
        try:
            self._socket.sendall(msgspec.json.encode(message))
        except OSError as error:
            raise Unreachable(f"{self.name} at {self.target}: {error}") from error

    def _next(self, until: float) -> dict[str, Json] | None:
        """Return the next message; None when there is none until a moment of the monotonic clock (0: now)."""
        tried = 0
        while not self._messages:
            came = self._receive(_QUIET_S if self._buffer else max(until - time.monotonic(), 0.0))
            size = len(self._buffer)
            if size and self._buffer[-1] == _END and (not came or size >= 2 * tried):
                tried = size
                self._decode()
            elif not came and time.monotonic() >= until:
                return None
        return self._messages.popleft()

    def _decode(self) -> None:
        """Take whole messages out of what has come, and leave the rest."""
        try:
            self._messages.append(msgspec.json.decode(self._buffer))
        except msgspec.DecodeError:  # several, or the last of them cut off
            self._decode_several()
        else:
            self._buffer.clear()

    def _decode_several(self) -> None:
        text, place = self._buffer.decode(), 0
        while place < len(text):
            try:
                message, place = _DECODER.raw_decode(text, place)
            except json.JSONDecodeError:
                break
            self._messages.append(message)
        self._buffer = bytearray(text[place:].encode())

    def _receive(self, wait_s: float) -> bool:
        """Return whether something came within so many seconds; it is in the buffer then."""
        if not select.select((self._socket,), (), (), wait_s)[0]:
            return False
        try:
            chunk = self._socket.recv(_CHUNK)
        except OSError as error:
            raise Unreachable(f"{self.name} at {self.target}: {error}") from error
        if not chunk:
            raise Unreachable(f"{self.name} at {self.target}: the server closed the connection")
        self._buffer += chunk
        return True


def _connected(target: str) -> socket.socket:
    kind, _, place = target.partition(":")
    if kind == "unix":
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(_ANSWER_S)
            opened.connect(place)
        except OSError:
            opened.close()
            raise
        return opened
    if kind == "tcp":
        host, _, port = place.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S)
    raise ValueError(f"{target} is neither unix:PATH nor tcp:HOST:PORT")


def _words(error: Json) -> str:
    if isinstance(error, dict):
        return f"{error.get('error', error)}: {error.get('details', '')}"
    return str(error)
