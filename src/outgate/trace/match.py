"""OVN's match expressions, held against one packet: true, false, or not to be known from what was read, and why.

The grammar is that of ovn-sb(5), "Expressions": comparisons of fields with constants, sets of constants and address
sets (`$name`), joined by `&&`, `||` and `!`. A field of one IP version makes a comparison false for a packet of the
other, negated or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from types import MappingProxyType
from typing import TypeAlias

from outgate.model.net import Address

_TOKEN = re.compile(r'\s+|/\*.*?\*/|("[^"]*"|&&|\|\||==|!=|<=|>=|[<>!(){},]|[$@]?[\w.:/\[\]-]+)', re.DOTALL)
_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_NEGATED = MappingProxyType({"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"})
_MIRRORED = MappingProxyType({"<": ">", ">": "<", "<=": ">=", ">=": "<="})

Value: TypeAlias = Address | int | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What is known of a packet: values by OVN's names of fields. A name that is absent is not known.

    `sets` are the address sets of the zone.
    """

    values: Mapping[str, Value]
    sets: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a match holds (None: not to be known), and the part of it that says so."""

    holds: bool | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Comparison:
    field: str
    relation: str
    constants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Word:
    name: str


@dataclass(frozen=True, slots=True)
class _Not:
    inner: _Node


@dataclass(frozen=True, slots=True)
class _Several:
    every: bool  # all of them, or any
    parts: tuple[_Node, ...]


_Node: TypeAlias = _Comparison | _Word | _Not | _Several


def judge(match: str, packet: Fields) -> Judgement:
    """Return whether a match holds for a packet."""
    node = _parsed(match)
    return _judge(node, packet, negated=False) if node is not None else Judgement(None, "it is not understood")


class _Misread(Exception):
    """The text is no expression of this grammar."""


@lru_cache(maxsize=1 << 14)
def _parsed(match: str) -> _Node | None:
    """Return the expression; None where the grammar has more than is known here."""
    try:
        parser = _Parser(_tokens(match))
        node = parser.either()
        return node if parser.done else None
    except _Misread:
        return None


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise _Misread
        found += [token[1]] if token[1] else []
        place = token.end()
    return found


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens, self._place = tokens, 0

    @property
    def done(self) -> bool:
        return self._place == len(self._tokens)

    def either(self) -> _Node:
        parts = [self._both()]
        while self._next_is("||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else _Several(every=False, parts=tuple(parts))

    def _both(self) -> _Node:
        parts = [self._term()]
        while self._next_is("&&"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else _Several(every=True, parts=tuple(parts))

    def _term(self) -> _Node:
        if self._next_is("!"):
            return _Not(self._term())
        if self._next_is("("):
            inner = self.either()
            self._want(")")
            return inner
        left = self._constants()
        relation = self._tokens[self._place] if not self.done else ""
        if relation not in _RELATIONS:
            if len(left) != 1:
                raise _Misread
            return _Word(left[0])
        self._place += 1
        right = self._constants()
        if _is_field(left):
            return _Comparison(left[0], relation, right)
        if _is_field(right):
            return _Comparison(right[0], _MIRRORED.get(relation, relation), left)
        raise _Misread

    def _constants(self) -> tuple[str, ...]:
        if not self._next_is("{"):
            return (self._word(),)
        found = [self._word()]
        while not self._next_is("}"):
            self._next_is(",")
            found.append(self._word())
        return tuple(found)

    def _word(self) -> str:
        if self.done or not re.match(r'["$@\w]', self._tokens[self._place]):
            raise _Misread
        self._place += 1
        return self._tokens[self._place - 1]

    def _next_is(self, token: str) -> bool:
        if self.done or self._tokens[self._place] != token:
            return False
        self._place += 1
        return True

    def _want(self, token: str) -> None:
        if not self._next_is(token):
            raise _Misread


def _is_field(words: tuple[str, ...]) -> bool:
    """Whether this is a field and no constant: `ip4.src`, `pkt.mark`, `inport`, `reg0[0..15]`."""
    return len(words) == 1 and re.fullmatch(r"[a-zA-Z_]\w*(\.[a-zA-Z_]\w*)*(\[[\d.]+\])?", words[0]) is not None


def _judge(node: _Node, packet: Fields, *, negated: bool) -> Judgement:
    match node:
        case _Not(inner):
            return _judge(inner, packet, negated=not negated)
        case _Several(every, parts):
            return _joined([_judge(part, packet, negated=negated) for part in parts], every=every is not negated)
        case _Word(name):
            known = {"1": True, "0": False}.get(name, packet.values.get(name))
            if not isinstance(known, bool):
                return Judgement(None, f"{name} is not known")
            return Judgement(known is not negated, f"it is {'' if known else 'not '}{name}")
        case _Comparison(field, relation, constants):
            return _compared(field, _NEGATED[relation] if negated else relation, constants, packet)


def _joined(parts: Sequence[Judgement], *, every: bool) -> Judgement:
    """Return what several parts come to: the one that decides speaks, else all of them do."""
    decisive = next((one for one in parts if one.holds is (not every)), None)
    if decisive is not None:
        return decisive
    unknown = next((one for one in parts if one.holds is None), None)
    return unknown or Judgement(every, ", and ".join(one.why for one in parts))


def _compared(field: str, relation: str, constants: tuple[str, ...], packet: Fields) -> Judgement:
    version = field.split(".", 1)[0]
    if version in ("ip4", "ip6") and packet.values.get(version) is False:
        return Judgement(False, f"it is not {version}")
    value = packet.values.get(field)
    shown = " or ".join(constants[:3]) + (f" or {len(constants) - 3} more" if len(constants) > 3 else "")
    if value is None:
        return Judgement(None, f"{field} is not known")
    if relation not in ("==", "!="):
        return _ordered(field, relation, constants, value)
    found = [_equal(value, constant, packet) for constant in constants]
    if True not in found and None in found:
        return Judgement(None, f"{shown} is not known")
    is_one = True in found
    return Judgement(is_one is (relation == "=="), f"{field} {value} is {'' if is_one else 'not '}{_within(shown)}")


def _within(shown: str) -> str:
    return f"in {shown}" if "$" in shown or "/" in shown else shown


def _ordered(field: str, relation: str, constants: tuple[str, ...], value: Value) -> Judgement:
    try:
        bound = int(constants[0], 0)
    except ValueError:
        return Judgement(None, f"{constants[0]} is no number")
    if not isinstance(value, int) or len(constants) > 1:
        return Judgement(None, f"{field} can not be compared with {', '.join(constants)}")
    holds = {"<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound}[relation]
    return Judgement(holds, f"{field} is {value}")


def _equal(value: Value, constant: str, packet: Fields) -> bool | None:
    """Whether a value is a constant, or in a set; None where the set or the constant is not known."""
    if constant.startswith("$"):
        members = packet.sets.get(constant[1:])
        return None if members is None else _is_member(value, members)
    if constant.startswith('"'):
        return value == constant.strip('"')
    if isinstance(value, IPv4Address | IPv6Address):
        return _lies_in(value, constant)
    try:
        return value == int(constant, 0)
    except ValueError:
        return None


def _is_member(value: Value, members: frozenset[str]) -> bool:
    if str(value) in members:
        return True
    return isinstance(value, IPv4Address | IPv6Address) and any(_lies_in(value, one) for one in members if "/" in one)


def _lies_in(address: Address, text: str) -> bool | None:
    """Whether an address is one that a constant says: an address, or a prefix; None where it is no such thing."""
    try:
        prefix = ip_network(text, strict=False)
    except ValueError:
        return None
    return prefix.version == address.version and address in prefix
