"""Where log records go, and how they look: journald's own fields under systemd, text on a terminal, else JSON lines.

Rooms log by the standard library, with a constant message and fields:

    log = logging.getLogger("outgate.control")
    log.info("made", extra={"fields": {"resource": str(route), "drift": True}})

No value gets out with control characters in it: a name that somebody chose must not draw on a terminal or begin a line.
Sources: systemd.journal-fields(7), and systemd's "Native Journal Protocol".
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TextIO

JOURNAL = Path("/run/systemd/journal/socket")
VALUE_LENGTH = 8192  # characters; the rest is cut, so that a record always fits a datagram

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
_SIZE = struct.Struct("<Q")


class Form(Enum):
    """How records look."""

    TEXT = "text"
    JSON = "json"
    JOURNAL = "journal"


def configure(
    form: Form | None = None, *, level: int = logging.INFO, stream: TextIO | None = None, journal: Path = JOURNAL
) -> Form:
    """Send the records of all rooms to one place, and return the form; without one, the best for where stderr leads.

    Called again, it replaces what it set before. Records of other libraries appear from warnings on.
    """
    stream = stream or sys.stderr
    form = form or best_form(stream, os.environ.get("JOURNAL_STREAM", ""), journal)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Lines | _Journal)]:
        root.removeHandler(old)
        old.close()
    lines = _Lines(stream)
    lines.setFormatter(_Text() if form is Form.TEXT else _Json())
    root.addHandler(_Journal(journal, lines) if form is Form.JOURNAL else lines)
    root.setLevel(logging.WARNING)
    logging.getLogger("outgate").setLevel(level)
    return form


def best_form(stream: TextIO, journal_stream: str, journal: Path = JOURNAL) -> Form:
    """Return the form that fits a stream. `journal_stream` is what systemd says of stderr: device and inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return Form.JSON
    if journal_stream == f"{status.st_dev}:{status.st_ino}" and journal.exists():
        return Form.JOURNAL
    return Form.TEXT if stream.isatty() else Form.JSON


def as_text(record: logging.LogRecord) -> str:
    """Return a record as a line for people: time, level unless it is info, room, message, fields."""
    at = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
    level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
    fields = "".join(f" {name}={_bare(value)}" for name, value in _fields(record))
    return f"{at} {level}{_room(record)}: {_plain(record.getMessage())}{fields}"


def as_json(record: logging.LogRecord) -> str:
    """Return a record as a line of JSON. Fields stand beside the record's own, which win."""
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    own = {"time": at, "level": record.levelname.lower(), "room": _room(record), "message": record.getMessage()}
    return json.dumps({**own, **{name: value for name, value in _fields(record) if name not in own}}, default=str)


def as_journal(record: logging.LogRecord) -> bytes:
    """Return a record as journald takes it: every value with its length, so that nothing in it can begin a field."""
    fields = {
        "MESSAGE": _plain(record.getMessage()) + "".join(f" {name}={_bare(value)}" for name, value in _fields(record)),
        "PRIORITY": str(_PRIORITIES.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": "outgate",
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        "OUTGATE_ROOM": _room(record),
        "OUTGATE_EVENT": _plain(record.getMessage()),
        **{f"OUTGATE_{_upper(name)}": _plain(_shown(value)) for name, value in _fields(record)},
    }
    return b"".join(_field(name, value) for name, value in fields.items())


class _Text(logging.Formatter):
    """The library's seam for `as_text`."""

    def format(self, record: logging.LogRecord) -> str:
        return as_text(record)


class _Json(logging.Formatter):
    """The library's seam for `as_json`."""

    def format(self, record: logging.LogRecord) -> str:
        return as_json(record)


class _Lines(logging.StreamHandler[TextIO]):
    """Lines to a stream; a class of its own, so that `configure` finds what it set."""


class _Journal(logging.Handler):
    """Datagrams to journald. What it does not take, because it restarts or is behind, goes to stderr instead."""

    def __init__(self, journal: Path, instead: logging.Handler) -> None:
        super().__init__()
        self._journal = str(journal)
        self._instead = instead
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(as_journal(record), self._journal)
        except OSError:
            self._instead.emit(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    fields = getattr(record, "fields", None)
    if isinstance(fields, Mapping):
        yield from ((str(name), value) for name, value in fields.items())
    if record.exc_info:
        yield "error", logging.Formatter().formatException(record.exc_info)


def _room(record: logging.LogRecord) -> str:
    return record.name.removeprefix("outgate.")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """Return a text without control characters and the like; what is not printable is written as its escape."""
    if len(text) > VALUE_LENGTH:
        text = f"{text[:VALUE_LENGTH]}..."
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _bare(value: object) -> str:
    """Return a value for a line of `name=value`: in quotes where it would not be one word."""
    text = _plain(_shown(value))
    return text if text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def _upper(name: str) -> str:
    """Return a field's name as journald allows it: capital letters, digits, underscores; it starts with OUTGATE_."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).upper()[:50]


def _field(name: str, value: str) -> bytes:
    content = value.encode(errors="backslashreplace")
    return name.encode() + b"\n" + _SIZE.pack(len(content)) + content + b"\n"
