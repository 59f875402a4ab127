"""The one place that waits: file descriptors, deadlines, signals. Single-threaded, so nothing here needs a lock.

All times are monotonic seconds; the wall clock moves and would lie about durations.
"""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol


class Readable(Protocol):
    """Something with a file descriptor that becomes readable."""

    def fileno(self) -> int:
        """Return the file descriptor."""


class Loop:
    """Calls back when a descriptor is readable or a deadline has come; ends on `stop` or a signal."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._deadlines: dict[str, tuple[float, Callable[[], None]]] = {}
        self._running = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self.selector.register(self._wake_reader, selectors.EVENT_READ, self._drain_wakes)

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def watch(self, readable: Readable, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable."""
        self.selector.register(readable.fileno(), selectors.EVENT_READ, callback)

    def forget(self, readable: Readable) -> None:
        """Stop watching a descriptor."""
        self.selector.unregister(readable.fileno())

    def at(self, name: str, when_s: float | None, callback: Callable[[], None]) -> None:
        """Call back once at a time; a name has one deadline, so a new one replaces the old, and None removes it."""
        if when_s is None:
            self._deadlines.pop(name, None)
        else:
            self._deadlines[name] = (when_s, callback)

    def stop(self) -> None:
        """End `run` after the current callback."""
        self._running = False
        self._wake_writer.send(b"x")

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT end the loop between two callbacks, never amid one: a change is written whole."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def run(self, idle: Callable[[], None]) -> None:
        """Run until stopped. `idle` is called after every batch of callbacks: work that several of them asked for is
        done once.
        """
        self._running = True
        idle()
        while self._running:
            for key, _ in self.selector.select(self._timeout_s()):
                key.data()
            self._call_due()
            idle()

    def close(self) -> None:
        """Close what the loop itself opened."""
        signal.set_wakeup_fd(-1)
        self.selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _timeout_s(self) -> float | None:
        if not self._deadlines:
            return None
        return max(0.0, min(when for when, _ in self._deadlines.values()) - self.now_s())

    def _call_due(self) -> None:
        now = self.now_s()
        for name in [name for name, (when, _) in self._deadlines.items() if when <= now]:
            _, callback = self._deadlines.pop(name, (now, _nothing))
            callback()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._running = False

    def _drain_wakes(self) -> None:
        try:
            while self._wake_reader.recv(4096):
                pass
        except BlockingIOError:
            pass


def _nothing() -> None:
    """Do nothing: a deadline that another callback has removed meanwhile."""
