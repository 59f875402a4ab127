"""JSON with positions, for the few documents that need them: our own kinds, and whatever proved broken.

The text is checked by msgspec first (fast, and it says at which byte a text stops being JSON), so that the reader here
walks over tokens that are known to fit. What msgspec can not see, a key that stands twice, is refused here.
"""

from __future__ import annotations

import json
import mmap
import re
from bisect import bisect_right
from typing import TypeAlias

import msgspec

from outgate.sources.node import DEEPEST, Fault, Node, Value
from outgate.sources.words import plain

MOST_JSON_BYTES = 1 << 30  # decoded from a mapping of the file, three seconds and about 400 MB of pods

Content: TypeAlias = bytes | mmap.mmap
Place: TypeAlias = tuple[int, int]  # line and column

_HEAD = 1 << 20  # bytes that are looked at together
_TOKEN = re.compile(r"[ \t\r\n]*(?:([{}\[\],:])|(\"(?:[^\"\\]|\\.)*\")|([^{}\[\],:\" \t\r\n]+))")
# The object that a broken text seems to be: a guess, for the message and to keep what was in force.
_KIND = re.compile(rb"\"kind\"\s*:\s*\"([A-Za-z]{1,63})\"")
_NAME = re.compile(rb"\"metadata\"\s*:\s*\{[^{}]*?\"name\"\s*:\s*\"([a-z0-9.-]{1,253})\"")
_BYTE = re.compile(r" \(byte (\d+)\)$")


class _Stop(Exception):
    """The document ends here, with a fault."""

    def __init__(self, offset: int, text: str, fix: str) -> None:
        super().__init__(text)
        self.offset, self.text, self.fix = offset, text, fix


def read_json(content: bytes, first: Place = (1, 1)) -> Node | Fault:
    """Return the one value of a JSON text that starts at this place of its file."""
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return json_fault(error, content, first)
    reader = _Reader(content.decode(), first)
    try:
        return reader.value(0)
    except _Stop as stop:
        return Fault(*reader.place(stop.offset), stop.text, stop.fix)


def json_fault(error: Exception, content: Content, first: Place = (1, 1)) -> Fault:
    """Return what msgspec found wrong with a text, with its place and the object that it seems to be."""
    if isinstance(error, RecursionError):
        offset, text, fix = 0, f"more than {DEEPEST} levels of nesting", "a manifest needs eight at most"
    elif isinstance(error, UnicodeDecodeError):
        offset, text, fix = _not_utf8(content), "the text is not UTF-8", "save it as UTF-8"
    else:
        said = str(error)
        found = _BYTE.search(said)
        offset = int(found[1]) if found else len(content)
        text = "this is not JSON: " + _BYTE.sub("", said).removeprefix("JSON is malformed: ")
        fix = "check commas, quotes and brackets here; a JSON file holds one value"
    head = bytes(content[:_HEAD])
    kind, name = _KIND.search(head), _NAME.search(head)
    place = place_at(content, offset, first)
    return Fault(*place, text, fix, kind[1].decode() if kind else "", name[1].decode() if name else "")


def place_at(content: Content, offset: int, first: Place = (1, 1), start: int = 0) -> Place:
    """Return line and column of a byte; `first` is the place of the byte `start`. Columns count characters."""
    lines = sum(content[at : min(at + _HEAD, offset)].count(b"\n") for at in range(start, offset, _HEAD))
    line_start = max(start, content.rfind(b"\n", start, offset) + 1)
    column = len(content[line_start : min(offset, line_start + _HEAD)].decode(errors="replace"))
    return (first[0] + lines, column + (1 if lines else first[1]))


def _not_utf8(content: Content) -> int:
    """Return the offset of the first byte that is not UTF-8; a large text is not searched."""
    try:
        bytes(content[: 64 * _HEAD]).decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


class _Reader:
    """Walks over a text that is known to be JSON."""

    def __init__(self, text: str, first: Place) -> None:
        self._text = text
        self._at = 0
        self._first = first
        self._line_starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        """Return line and column of a character."""
        line = bisect_right(self._line_starts, offset) - 1
        column = offset - self._line_starts[line]
        return (self._first[0] + line, column + (1 if line else self._first[1]))

    def value(self, depth: int, key_at: Place = (0, 0)) -> Node:
        """Read the next value, with all that is in it."""
        offset, token = self._next()
        if token in "{[" and depth == DEEPEST:
            raise _Stop(offset, f"more than {DEEPEST} levels of nesting", "a manifest needs eight at most")
        value: Value
        match token:
            case "{":
                value = self._mapping(depth + 1)
            case "[":
                value = self._list(depth + 1)
            case _:
                value = json.loads(token)
        return Node(value, *self.place(offset), *key_at)

    def _mapping(self, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        offset, token = self._next()
        while token != "}":
            if token == ",":
                offset, token = self._next()
            key: str = json.loads(token)
            if key in found:
                text = (
                    f"the key {plain(key)} stands here for the second time; the first is in line {found[key].key_line}"
                )
                raise _Stop(offset, text, "keep one of them")
            self._next()  # the colon
            found[key] = self.value(depth, self.place(offset))
            offset, token = self._next()
        return found

    def _list(self, depth: int) -> list[Node]:
        found: list[Node] = []
        while self._peek() != "]":
            found.append(self.value(depth))
            if self._peek() == ",":
                self._next()
        self._next()
        return found

    def _peek(self) -> str:
        before = self._at
        _, token = self._next()
        self._at = before
        return token

    def _next(self) -> tuple[int, str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None or found.lastindex is None:  # cannot happen after the check; a bug must not loop
            raise _Stop(self._at, "this is not JSON", "")
        self._at = found.end()
        return found.start(found.lastindex), found[found.lastindex]
