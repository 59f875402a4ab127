"""A manifest as a tree of values with positions: what the YAML and the JSON reader both give.

Structs of msgspec without cyclic collection, because a document has one of these per scalar, and a tree has no cycles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from outgate.sources.words import quote

DEEPEST = 64  # levels of nesting; a manifest needs eight

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = "Scalar | dict[str, Node] | list[Node]"


class Node(Struct, frozen=True, gc=False):
    """One value, where it stands, and where its key stands (0: it is an item of a list). All count from 1."""

    value: Value
    line: int
    column: int
    key_line: int = 0
    key_column: int = 0


class Fault(Struct, frozen=True, gc=False):
    """A stretch of a file that could not be read: where, why, what to do, and the object it seems to have been."""

    line: int
    column: int
    text: str
    fix: str = ""
    kind: str = ""
    name: str = ""


TakeItem: TypeAlias = Callable[[Node], bool]
"""Is handed each complete item of a list object; True: it was taken, and needs no place in the tree."""


def describe(value: Value) -> str:
    """Return what a value is, in words: for "found ..."."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {value}" if len(str(value)) < 30 else "a very long number"
        case str():
            return f"the string {quote(value)}"
        case list():
            return "a list" if value else "an empty list"
        case _:
            return "a mapping" if value else "an empty mapping"


def child(node: Node, *path: str | int) -> Node | None:
    """Return the node at a path of keys and indexes, or None."""
    found: Node | None = node
    for step in path:
        found = _step(found, step) if found is not None else None
    return found


def _step(node: Node, step: str | int) -> Node | None:
    if isinstance(step, str):
        return node.value.get(step) if isinstance(node.value, dict) else None
    return node.value[step] if isinstance(node.value, list) and step < len(node.value) else None


def text_at(node: Node, *path: str | int) -> str:
    """Return the string at a path; empty when there is none."""
    found = child(node, *path)
    return found.value if found is not None and isinstance(found.value, str) else ""


def bare(node: Node) -> object:
    """Return the value without positions, as plain dictionaries and lists."""
    value = node.value
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    if isinstance(value, list):
        return [bare(item) for item in value]
    return value
