"""Plain values as YAML that every reader takes for the same: block style, and quotes wherever a version might differ.

PyYAML writes for YAML 1.1, where `0o10` and `1e3` need no quotes; in YAML 1.2 they are numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

_HARMLESS = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})  # of YAML 1.1 or 1.2


def to_yaml(value: object) -> str:
    """Return the YAML document of dictionaries, lists, strings, numbers, booleans and None.

    Raises:
        TypeError: something else is among them.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: object) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(key)}:", item)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(key: str, item: object) -> Iterator[str]:
    lines = list(_lines(item))
    if isinstance(item, Mapping) and item:
        yield key
        yield from (f"  {line}" for line in lines)
    elif isinstance(item, Sequence) and not isinstance(item, str) and item:
        yield key
        yield from lines
    else:
        yield f"{key} {lines[0]}"


def _scalar(value: object) -> str:
    match value:
        case None | bool() | int() | float():
            return json.dumps(value)
        case str():
            is_plain = _HARMLESS.fullmatch(value) and value.lower() not in _WORDS
            return value if is_plain else _quoted(value)
        case Mapping():
            return "{}"
        case Sequence():
            return "[]"
        case _:
            raise TypeError(f"{type(value).__name__} has no place in a manifest")


def _quoted(text: str) -> str:
    """Return a double-quoted scalar; what YAML does not take as it is, DEL and C1, is escaped too."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)
