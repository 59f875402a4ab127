"""YAML with positions, by the core schema of YAML 1.2.2 (chapter 10.3), and nothing else.

libyaml splits the text into events; the values are made here, without PyYAML's constructors. So `NO` is a string, a key
may stand once, and what one reader takes for another thing than the next (anchors, tags, `010`) is refused with its
place. A file is cut at its document markers first: by the specification (9.1.2) `---` and `...` at the start of a line
are never content, so one broken document leaves the others whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from yaml import events

from outgate.sources.node import DEEPEST, Fault, Node, Scalar, TakeItem, Value
from outgate.sources.words import plain, quote

MOST_YAML_BYTES = 64 << 20  # ten seconds of parsing; larger dumps of a cluster come as JSON

_MARKER = re.compile(rb"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_EMPTY = re.compile(rb"(?:[ \t]*(?:#[^\n]*|%[^\n]*)?\r?(?:\n|\Z))*")
_NUMBER_START = frozenset("0123456789+-.")
_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_WORDS |= {sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")}
_WORDS |= {word: float("nan") for word in (".nan", ".NaN", ".NAN")}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_INTEGER = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 40  # characters; Python refuses to print integers of more than 4,300 digits
# The object that an unreadable document seems to be: a guess, for the message and to keep what was in force.
_KIND = re.compile(rb"^kind:[ \t]*[\"']?([A-Za-z]{1,63})[\"']?[ \t]*\r?$", re.MULTILINE)
_BLOCK = rb"[ \t]*\r?\n(?P<in>[ ]+)(?:\S[^\n]*\n(?:(?P=in)[^\n]*\n)*?(?P=in))?"
_NAME = re.compile(
    rb"^metadata:(?:" + _BLOCK + rb"|[ ]*\{[ ]*)name:[ \t]*[\"']?(?P<name>[a-z0-9.-]{1,253})\b", re.MULTILINE
)


class _Stop(Exception):
    """The document ends here, with a fault."""

    def __init__(self, event: events.Event, text: str, fix: str) -> None:
        super().__init__(text)
        self.at, self.text, self.fix = _at(event), text, fix


def read_yaml(content: bytes, take_item: TakeItem | None = None) -> Iterator[Node | Fault]:
    """Give the documents of a file in order; one that can not be read is a Fault in its place.

    Items of a list object are offered to `take_item` one by one as they are complete, so that a large list needs no
    tree; those that it takes stay taken when the document proves broken further on.
    """
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        yield Fault(line, column, "the file is not UTF-8 text", "save it as UTF-8")
        return
    for first_line, chunk in _documents(content.removeprefix(b"\xef\xbb\xbf")):
        document = _read_document(chunk, first_line, take_item)
        if document is not None:
            yield document


def resolve(text: str) -> Scalar:
    """Return what a plain scalar is by the core schema.

    Raises:
        ValueError: it is a number in one YAML and another number in the next, or too long for one.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _INTEGER.fullmatch(text):
        digits = text.lstrip("+-")
        if len(digits) > _LONGEST_NUMBER:
            raise ValueError("is too long for a number")
        if len(digits) > 1 and digits[0] == "0":
            raise ValueError("starts with 0: YAML 1.2 reads it as decimal, YAML 1.1 (and so kubectl) as octal")
        return int(text)
    if _OTHER_INTEGER.fullmatch(text) and len(text) <= _LONGEST_NUMBER:
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def _documents(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut at the document markers; give the number of the first line and the text of each document that has content."""
    cuts = [(found.start(), found.group()) for found in _MARKER.finditer(content)]
    start, line = 0, 1
    for cut, marker in [*cuts, (len(content), b"")]:
        chunk = content[start:cut]
        if not _EMPTY.fullmatch(chunk.removeprefix(b"---")):
            yield line, chunk
        line += chunk.count(b"\n")
        start = cut + len(marker) if marker == b"..." else cut


def _read_document(chunk: bytes, first_line: int, take_item: TakeItem | None) -> Node | Fault | None:
    builder = _Builder(first_line, take_item)
    try:
        for event in yaml.parse(chunk, Loader=yaml.CSafeLoader):
            builder.take(event)
    except _Stop as stop:
        line, column = stop.at
        place, text, fix = (first_line + line, column + 1), stop.text, stop.fix
    except yaml.MarkedYAMLError as error:
        place, text, fix = _syntax(error, chunk, first_line)
    except yaml.reader.ReaderError as error:
        lines = chunk[: error.position].split(b"\n")
        place = (first_line + len(lines) - 1, len(lines[-1]) + 1)
        text, fix = f"the character U+{_code(error.character):04X} can not stand in YAML", "remove it"
    else:
        return builder.root
    kind, name = _KIND.search(chunk), _NAME.search(chunk)
    return Fault(*place, text, fix, kind[1].decode() if kind else "", name["name"].decode() if name else "")


def _at(event: events.Event) -> tuple[int, int]:
    """Return line and column of an event, from 0."""
    mark = event.start_mark
    return (mark.line, mark.column) if mark else (0, 0)


def _code(character: str | int) -> int:
    return character if isinstance(character, int) else ord(character)


def _syntax(error: yaml.MarkedYAMLError, chunk: bytes, first_line: int) -> tuple[tuple[int, int], str, str]:
    """Word what libyaml says; a tab, the usual culprit, by its name."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = chunk.split(b"\n")
    if error.context_mark and not b"".join([lines[line][column:], *lines[line + 1 :]] if lines[line:] else []).strip():
        line, column = error.context_mark.line, error.context_mark.column  # never closed: look where it was opened
    shown = lines[line : line + 1]
    if shown and b"\t" in shown[0][: column + 1]:
        at = shown[0].index(b"\t")
        return (first_line + line, at + 1), "a tab stands where YAML wants spaces", "indent with spaces only"
    context = f" {error.context}" if error.context else ""
    began = f" that began in line {first_line + error.context_mark.line}" if error.context_mark and context else ""
    text = f"this is not YAML: {error.problem}{context}{began}"
    return (first_line + line, column + 1), text, "check indentation, quotes and colons here and in the line before"


class _Open:
    """A mapping or list that is not complete yet. `key` is the one that waits for its value."""

    __slots__ = ("column", "key", "key_column", "key_line", "line", "places", "value")

    def __init__(self, value: dict[str, Node] | list[Node], line: int, column: int) -> None:
        self.value = value
        self.line, self.column = line, column
        self.key: str | None = None
        self.key_line = self.key_column = 0
        self.places: dict[str, int] = {}


class _Builder:
    """Makes the tree of one document from its events, with a stack of its own: no nesting can exhaust the machine's."""

    def __init__(self, first_line: int, take_item: TakeItem | None) -> None:
        self.root: Node | None = None
        self._first_line = first_line
        self._take_item = take_item
        self._open: list[_Open] = []

    def take(self, event: events.Event) -> None:
        """Add one event to the tree.

        Raises:
            _Stop: the event has no place in a manifest.
        """
        if isinstance(event, events.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, events.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, events.CollectionEndEvent):
            done = self._open.pop()
            self._place(done.value, done.line, done.column)
        elif isinstance(event, events.AliasEvent):
            raise _Stop(
                event, f"the alias *{plain(event.anchor or '')} is refused", "write its text out where it is needed"
            )

    def _start(self, event: events.CollectionStartEvent) -> None:
        _refuse_extras(event)
        if len(self._open) == DEEPEST:
            raise _Stop(event, f"more than {DEEPEST} levels of nesting", "a manifest needs eight at most")
        value: dict[str, Node] | list[Node] = {} if isinstance(event, events.MappingStartEvent) else []
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise _Stop(event, "a key must be a string", "write `key: value`; { } and [ ] can not be keys")
        line, column = _at(event)
        self._open.append(_Open(value, self._first_line + line, column + 1))

    def _scalar(self, event: events.ScalarEvent) -> None:
        _refuse_extras(event)
        value: Scalar = event.value
        if event.implicit[0]:  # plain, not quoted
            try:
                value = resolve(event.value)
            except ValueError as error:
                fix = f"write it without the zeros for the number, or as {quote(event.value)} for the text"
                raise _Stop(event, f"{quote(event.value)} {error}", fix) from None
        line, column = _at(event)
        line, column = self._first_line + line, column + 1
        top = self._open[-1] if self._open else None
        if top is None or top.key is not None or isinstance(top.value, list):
            self._place(value, line, column)
        elif not isinstance(value, str):
            raise _Stop(event, f"the key {event.value or 'null'} is not a string", f"write it as {quote(event.value)}")
        elif value in top.places:
            text = f"the key {plain(value)} stands here for the second time; the first is in line {top.places[value]}"
            raise _Stop(event, text, "keep one of them")
        else:
            top.key, top.key_line, top.key_column = value, line, column
            top.places[value] = line

    def _place(self, value: Value, line: int, column: int) -> None:
        """Put a complete value where it belongs: under its key, into its list, or at the root."""
        if not self._open:
            self.root = Node(value, line, column)
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            node = Node(value, line, column)
            if not self._is_taken(node):
                top.value.append(node)
        elif top.key is not None:
            top.value[top.key] = Node(value, line, column, top.key_line, top.key_column)
            top.key = None

    def _is_taken(self, node: Node) -> bool:
        depth = len(self._open)
        is_item = depth == 1 or (depth == 2 and self._open[0].key == "items")
        return is_item and self._take_item is not None and self._take_item(node)


def _refuse_extras(event: events.ScalarEvent | events.CollectionStartEvent) -> None:
    if event.anchor is not None:
        raise _Stop(event, f"the anchor &{plain(event.anchor)} is refused", "write the text out where it is needed")
    if event.tag is not None and event.tag != "!":
        tag = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
        raise _Stop(event, f"the tag {plain(tag)} is refused", "quote the value if it is a string")
