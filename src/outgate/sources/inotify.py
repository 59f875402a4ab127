"""Changes in one directory, by inotify(7), as a file descriptor for an event loop.

Three functions of libc by ctypes. The packages that wrap them (inotify_simple and others) are no longer than this, and
each would be one more to lock and to trust.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

# linux/inotify.h
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x4, 0x400, 0x800
_Q_OVERFLOW, _ONLYDIR = 0x4000, 0x01000000
_CHANGES = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ATTRIB | _DELETE_SELF | _MOVE_SELF
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_BUFFER = 64 * 1024


class Watch:
    """Watches one directory. A directory that goes and comes back under its name is found again by `renew`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._check(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._watch = -1
        self._seen = (0, 0)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something happens."""
        return self._descriptor

    def renew(self) -> None:
        """Watch the directory that has the name now.

        Raises:
            OSError: there is none, or the kernel's limit of watches is reached.
        """
        seen = self._directory.stat()
        if self._watch >= 0 and self._seen == (seen.st_dev, seen.st_ino):
            return
        self._drop()
        path = os.fsencode(self._directory)
        self._watch = self._check(self._libc.inotify_add_watch(self._descriptor, path, _CHANGES | _ONLYDIR))
        self._seen = (seen.st_dev, seen.st_ino)

    def read(self) -> set[str] | None:
        """Return the names that something happened to, since the last call; None: perhaps to any of them."""
        names: set[str] = set()
        is_lost = False
        while True:
            try:
                events = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                return None if is_lost else names
            offset = 0
            while offset < len(events):
                watch, mask, _, length = _EVENT.unpack_from(events, offset)
                offset += _EVENT.size
                name = events[offset : offset + length].rstrip(b"\0")
                offset += length
                names.add(os.fsdecode(name))
                is_lost = is_lost or bool(mask & (_Q_OVERFLOW | _DELETE_SELF | _MOVE_SELF))
                if watch == self._watch and mask & (_DELETE_SELF | _MOVE_SELF):
                    self._seen = (0, 0)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def _drop(self) -> None:
        if self._watch >= 0:
            self._libc.inotify_rm_watch(self._descriptor, self._watch)  # fails when the directory is gone: as wanted
            self._watch = -1

    def _check(self, result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(self._directory))
        return result
