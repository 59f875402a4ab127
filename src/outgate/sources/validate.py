"""From the tree of a manifest to a value of the model, by the description of its kind.

All that is wrong with an object is told at once, each thing with its place, what was expected, and what to do. The
value exists only when nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, assert_never

from outgate.sources.node import Node, describe
from outgate.sources.shape import MISSING, Choice, Field, Flag, Many, OneOf, Pairs, Record, Shape, Text, Whole
from outgate.sources.words import Wrong, instead, plain, quote

BROKEN = object()
"""Stands for a value that could not be read; its problem is in the list."""

_EMPTY = "give it a value, or remove the line"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the field path, where it stands, what is the matter, what to do."""

    field: str
    line: int
    column: int
    text: str
    fix: str


@dataclass(slots=True)
class Problems:
    """What was found wrong so far, in the order of the manifest."""

    found: list[Problem] = field(default_factory=list)

    def add(self, path: str, node: Node, text: str, fix: str, *, at_key: bool = False) -> object:
        """Note one problem, and return what stands for the value."""
        has_key = at_key and node.key_line
        line, column = (node.key_line, node.key_column) if has_key else (node.line, node.column)
        self.found.append(Problem(path, line, column, text, fix))
        return BROKEN


def read_shape(shape: Shape, node: Node, path: str, problems: Problems) -> Any:
    """Return the value, or BROKEN with its problems noted."""
    match shape:
        case Text():
            return _text(shape, node, path, problems)
        case Whole():
            return _whole(shape, node, path, problems)
        case Flag():
            return node.value if isinstance(node.value, bool) else _mismatch(shape, node, path, problems)
        case Choice():
            return _choice(shape, node, path, problems)
        case Many():
            return _many(shape, node, path, problems)
        case Pairs():
            return _pairs(shape, node, path, problems)
        case Record():
            return _record(shape, node, path, problems)
        case OneOf():
            return _one_of(shape, node, path, problems)
        case _:
            assert_never(shape)


def read_fields(record: Record, node: Node, path: str, problems: Problems) -> dict[str, Any] | None:
    """Return the values of a record's fields by attribute, defaults filled in; None when anything is wrong."""
    given = _mapping_of(node, path, problems)
    if given is None:
        return None
    before = len(problems.found)
    _refuse_unknown(record.fields, given, path, problems)
    values: dict[str, Any] = {}
    for known in record.fields:
        here = f"{path}.{known.name}"
        if known.name in given:
            value = read_shape(known.shape, given[known.name], here, problems)
        elif known.default is not MISSING:
            value = read_shape(known.shape, Node(_default(known), node.line, node.column), here, problems)
        else:
            if known.required:
                fix = f"add {known.name}: {expected(known.shape)}"
                problems.add(here, node, f"{known.name} is missing", fix, at_key=True)
            continue
        values[known.attribute] = value
    if len(problems.found) == before:
        _keep_rules(record, values, node, (path, problems))
    return values if len(problems.found) == before else None


def expected(shape: Shape) -> str:
    """Return what a shape wants, in words that complete "expected ..."."""
    match shape:
        case Text(what=what):
            return what
        case Whole():
            unit = f" {shape.unit}" if shape.unit else ""
            return f"a whole number from {shape.least} to {shape.most}{unit}"
        case Flag():
            return "true or false"
        case Choice():
            return f"one of {', '.join(str(option.value) for option in shape.of)}"
        case Many():
            return f"a list, each item {expected(shape.item)}"
        case Pairs():
            return "a mapping of labels, as in {app: web}"
        case Record():
            return f"a mapping with {', '.join(known.name for known in shape.fields)}"
        case OneOf():
            return f"a mapping with exactly one of {', '.join(known.name for known in shape.options)}"
        case _:
            assert_never(shape)


def _default(known: Field) -> str | int:
    assert isinstance(known.default, str | int), f"{known.name}: a default is a string or a number"
    return known.default


def _mismatch(shape: Shape, node: Node, path: str, problems: Problems, fix: str = "") -> object:
    text = f"expected {expected(shape)}; found {describe(node.value)}"
    return problems.add(path, node, text, _EMPTY if node.value is None else fix or "write it as expected")


def _mapping_of(node: Node, path: str, problems: Problems) -> Mapping[str, Node] | None:
    if isinstance(node.value, dict):
        return node.value
    fix = "write its fields, or {} for none of them" if node.value is None else "write its fields as `name: value`"
    problems.add(path, node, f"expected a mapping; found {describe(node.value)}", fix)
    return None


def _refuse_unknown(known: Iterable[Field], given: Mapping[str, Node], path: str, problems: Problems) -> None:
    names = [one.name for one in known]
    for name, node in given.items():
        if name not in names:
            text = f"there is no field {plain(name)} here"
            problems.add(f"{path}.{plain(name)}", node, text, instead(name, names), at_key=True)


def _text(shape: Text, node: Node, path: str, problems: Problems) -> Any:
    value = node.value
    if not isinstance(value, str):
        return _mismatch(shape, node, path, problems, _quoted(shape, value))
    if len(value) > shape.most:
        text = f"expected {shape.what}; found {len(value)} characters: {quote(value)}"
        return problems.add(path, node, text, f"use at most {shape.most}")
    try:
        return shape.parse(value)
    except Wrong as error:
        return problems.add(path, node, f"{quote(value)} {error.text}", error.fix)


def _quoted(shape: Text, value: object) -> str:
    """Return what to do about a value without quotes: quote it, if that helps."""
    if not isinstance(value, bool | int | float):
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        shape.parse(text)
    except Wrong as error:
        return error.fix
    return f"write it in quotes: {quote(text)}"


def _whole(shape: Whole, node: Node, path: str, problems: Problems) -> Any:
    value = node.value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return _mismatch(shape, node, path, problems, f"write it without quotes: {value[:20]}")
    if isinstance(value, bool) or not isinstance(value, int):
        return _mismatch(shape, node, path, problems, "write a plain number, without unit or quotes")
    if not shape.least <= value <= shape.most:
        return _mismatch(shape, node, path, problems, f"choose a number from {shape.least} to {shape.most}")
    return value if shape.scale == 1 else value / shape.scale


def _choice(shape: Choice, node: Node, path: str, problems: Problems) -> Any:
    words = {str(option.value): option for option in shape.of}
    if isinstance(node.value, str) and node.value in words:
        return words[node.value]
    fix = instead(node.value, words) if isinstance(node.value, str) else ""
    return _mismatch(shape, node, path, problems, fix)


def _many(shape: Many, node: Node, path: str, problems: Problems) -> Any:
    if not isinstance(node.value, list):
        shown = quote(node.value) if isinstance(node.value, str) else "..."
        fix = f"write it as a list: [{shown}]"
        return _mismatch(shape, node, path, problems, fix)
    items = node.value
    before = len(problems.found)
    if not shape.least <= len(items) <= shape.most:
        text = f"expected {shape.least} to {shape.most} items; found {len(items)}"
        return problems.add(path, node, text, "add what is missing" if not items else "remove some")
    values = [read_shape(shape.item, item, f"{path}[{number}]", problems) for number, item in enumerate(items)]
    first: dict[Any, int] = {}
    for number, value in enumerate(values):
        if value is not BROKEN and first.setdefault(value, number) != number:
            text = f"is the same as {path}[{first[value]}] in line {items[first[value]].line}"
            problems.add(f"{path}[{number}]", items[number], text, "keep one of them")
    if len(problems.found) == before and shape.per_family:
        _limit_families(shape, values, (node, path, problems))
    return tuple(values) if len(problems.found) == before else BROKEN


def _limit_families(shape: Many, values: list[Any], place: tuple[Node, str, Problems]) -> None:
    node, path, problems = place
    for family, kind in (("IPv4", IPv4Address), ("IPv6", IPv6Address)):
        count = sum(isinstance(value, kind) for value in values)
        if count > shape.per_family:
            text = f"expected at most {shape.per_family} {family} address{'es' if shape.per_family > 1 else ''}"
            problems.add(path, node, f"{text}; found {count}", "remove some, or make another tenant")


def _pairs(shape: Pairs, node: Node, path: str, problems: Problems) -> Any:
    if not isinstance(node.value, dict):
        return _mismatch(shape, node, path, problems)
    before = len(problems.found)
    if len(node.value) > shape.most:
        text = f"expected at most {shape.most} entries; found {len(node.value)}"
        return problems.add(path, node, text, "remove some")
    pairs = []
    for name, item in node.value.items():
        here = f"{path}[{plain(name)}]"
        _text(shape.key, Node(name, item.key_line, item.key_column), here, problems)
        pairs.append((name, _text(shape.value, item, here, problems)))
    return tuple(sorted(pairs)) if len(problems.found) == before else BROKEN


def _record(shape: Record, node: Node, path: str, problems: Problems) -> Any:
    values = read_fields(shape, node, path, problems)
    return BROKEN if values is None else shape.of(**values)


def _one_of(shape: OneOf, node: Node, path: str, problems: Problems) -> Any:
    given = _mapping_of(node, path, problems)
    if given is None:
        return BROKEN
    before = len(problems.found)
    _refuse_unknown(shape.options, given, path, problems)
    chosen = [option for option in shape.options if option.name in given]
    if len(chosen) != 1 and len(problems.found) == before:
        names = " and ".join(option.name for option in shape.options)
        text = f"expected exactly one of {names}; found {'both' if chosen else 'none'}"
        return problems.add(path, node, text, "remove one" if chosen else "add one", at_key=True)
    values = [read_shape(option.shape, given[option.name], f"{path}.{option.name}", problems) for option in chosen]
    return values[0] if len(problems.found) == before else BROKEN


def _keep_rules(record: Record, values: Mapping[str, Any], node: Node, place: tuple[str, Problems]) -> None:
    path, problems = place
    empty: dict[str, Any] = {
        known.attribute: () if isinstance(known.shape, Many | Pairs) else None for known in record.fields
    }
    for rule in record.rules:
        if not rule.holds({**empty, **values}):
            inside = node.value.get(rule.at) if isinstance(node.value, dict) and rule.at else None
            here = f"{path}.{rule.at}" if rule.at else path
            problems.add(here, inside or node, rule.text, rule.fix, at_key=True)
