"""One connection to the daemon: a line comes in, lines go out, and nobody waits for it.

A client that says nothing, says too much, takes nothing or goes away costs a buffer and a deadline, never the loop.
"""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from outgate.control.loop import Loop
from outgate.control.peer import peer_of

_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients get at most. Root is not counted among `of_one_user`: who may only look can not lock out who may
    change.
    """

    clients: int = 16
    of_one_user: int = 8
    question_bytes: int = 1024 * 1024
    change_bytes: int = 64 * 1024 * 1024  # a question of who may change: `apply` brings whole manifests along
    waiting_bytes: int = 64 * 1024 * 1024  # of an answer that the client has not taken; then it is dropped
    question_s: float = 5.0  # from the connection to the end of the question
    stall_s: float = 10.0  # without a byte taken of an answer that is ready


class Connection:
    """First a line comes in, then lines go out; after the last one it closes by itself.

    `heard` is called once, with the line, or with None when it was too long. `gone` is called once at
    the end, whoever ended it. A client that closes, shuts its sending side, or sends more, is gone.
    """

    def __init__(
        self,
        accepted: socket.socket,
        loop: Loop,
        limits: Limits,
        *,
        heard: Callable[[Connection, bytes | None], None],
        gone: Callable[[Connection], None],
    ) -> None:
        accepted.setblocking(False)
        self.peer = peer_of(accepted)
        self.closed = False
        self._socket = accepted
        self._loop = loop
        self._limits = limits
        self._heard = heard
        self._gone = gone
        self._hearing = True
        self._done = False
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._deadline = f"client {accepted.fileno()}"
        loop.selector.register(accepted, selectors.EVENT_READ, self._ready)
        loop.at(self._deadline, loop.now_s() + limits.question_s, self.close)

    def say(self, line: Mapping[str, object], *, last: bool = False) -> None:
        """Send a line as JSON; what the client does not take at once is kept. After the last one nothing is sent."""
        if self.closed or self._done:
            return
        self._hearing = False
        self._done = last
        nothing_waited = not self._outbox
        self._outbox += json.dumps(line).encode() + b"\n"
        if nothing_waited:
            self._loop.at(self._deadline, self._loop.now_s() + self._limits.stall_s, self.close)
        self._flush()

    def close(self) -> None:
        """Drop the connection, with all that was not sent."""
        if not self.closed:
            self.closed = True
            self._loop.at(self._deadline, None, self.close)
            self._loop.selector.unregister(self._socket)
            self._socket.close()
            self._gone(self)

    def _ready(self) -> None:
        if not self.closed and not self._done:
            self._receive()
        if not self.closed:
            self._flush()

    def _receive(self) -> None:
        try:
            received = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received or not self._hearing:
            self.close()
            return
        self._inbox += received
        end = self._inbox.find(b"\n", len(self._inbox) - len(received))
        if end < 0 and len(self._inbox) <= self._limits.question_bytes:
            return
        if 0 <= end < len(self._inbox) - 1:  # more than a line: whoever talks on does not wait for an answer
            self.close()
            return
        line = None if end < 0 or end > self._limits.question_bytes else bytes(self._inbox[:end])
        self._hearing = False
        self._inbox.clear()
        self._loop.at(self._deadline, None, self.close)
        self._heard(self, line)

    def _flush(self) -> None:
        """Send what the client takes; close when it took all, when it is gone, or when too much waits for it."""
        waiting = len(self._outbox)
        try:
            while self._outbox:
                del self._outbox[: self._socket.send(self._outbox[:_CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if len(self._outbox) > self._limits.waiting_bytes or (self._done and not self._outbox):
            self.close()
            return
        if len(self._outbox) < waiting:
            limit = self._loop.now_s() + self._limits.stall_s if self._outbox else None
            self._loop.at(self._deadline, limit, self.close)
        # Who was told the last line is not listened to any more: bytes that nobody reads would wake the loop for ever.
        reading = 0 if self._done else selectors.EVENT_READ
        self._loop.selector.modify(self._socket, reading | (selectors.EVENT_WRITE if self._outbox else 0), self._ready)
