"""What nft lists as JSON (`nft -n -j list table inet outgate`), as the values that were written. Pure.

An element reads back as it was rendered: in interval sets every address of a key is a Span, also a single one,
elsewhere an Address. What this program never writes (an element with a timeout, a limit that no element names) is
`strange`; it counts as part of the table's constant part, so that the table compares as somebody else's and is loaded
anew.
Text listings are never parsed: nft prints the names of links unquoted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton
from types import MappingProxyType
from typing import Any

import msgspec

from outgate.model.net import Address, Mark, Span
from outgate.model.ruleset import Connections, Element, Limit, Part, Quota, Value
from outgate.systems.nft.render import PROTOCOLS, connections_rule, literal, object_name
from outgate.systems.nft.table import ACCOUNTS, Object, SetType, digest_of, of_tenant, set_types
from outgate.systems.uncollected import uncollected

_UNITS = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20, "gbytes": 1 << 30}
_NAMES = {number: name for name, number in PROTOCOLS.items()}

Json = Any  # what msgspec makes of a JSON value


@dataclass(frozen=True, slots=True)
class Tally:
    """How much was counted since the table was loaded."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the table counts.

    `named` are its counters by name. `accounts` are what tenants (by mark) `sent`, `received` and `opened`, where a
    packet is a flow. `used` are the bytes of its quota that a tenant has used up.
    """

    named: Mapping[str, Tally] = field(default_factory=lambda: MappingProxyType({}))
    accounts: Mapping[tuple[str, Mark], Tally] = field(default_factory=lambda: MappingProxyType({}))
    used: Mapping[Mark, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A table as nft lists it: the digest of its constant part, its elements, its counts."""

    digest: str
    elements: frozenset[Element]
    counts: Counts


class _Strange(Exception):
    """An element or object that this program does not write."""


def listing(text: bytes) -> Listing:
    """Return the table that nft listed.

    Raises:
        msgspec.DecodeError: that is no listing.
    """
    with uncollected():
        objects = _objects(text)
        reader = _Reader(objects)
        elements = frozenset(reader.elements())
    return Listing(
        digest=digest_of(objects, reader.strange + reader.unnamed()),
        elements=elements,
        counts=Counts(
            named=MappingProxyType(_named(objects)),
            accounts=MappingProxyType(reader.accounts),
            used=MappingProxyType(reader.used),
        ),
    )


def _objects(text: bytes) -> list[Object]:
    return msgspec.json.decode(text, type=dict[str, list[Object]])["nftables"]


def _named(objects: list[Object]) -> dict[str, Tally]:
    listed = [one["counter"] for one in objects if "counter" in one]
    return {counter["name"]: Tally(counter.get("packets", 0), counter.get("bytes", 0)) for counter in listed}


class _Reader:
    """Reads the elements of one listing, and keeps which of the objects they name were named."""

    def __init__(self, objects: list[Object]) -> None:
        self.strange: list[Json] = []
        self.used: dict[Mark, int] = {}
        self.accounts: dict[tuple[str, Mark], Tally] = {}
        self._sets = [properties for one in objects for kind, properties in one.items() if kind in ("set", "map")]
        self._objects: dict[str, list[Json]] = {}
        for one in objects:
            for kind, properties in one.items():
                if of_tenant(kind, properties):
                    name = properties["chain" if kind == "rule" else "name"]
                    self._objects.setdefault(name, []).append((kind, properties))

    def elements(self) -> list[Element]:
        """Return the elements of all sets of ours."""
        found: list[Element] = []
        types = set_types()
        for properties in self._sets:
            kind = types.get(properties["name"])
            if kind is not None and "elem" in properties:
                found += self._of_set(kind, properties["elem"])
        return found

    def unnamed(self) -> list[Json]:
        """Return the limits, quotas and chains that no element names."""
        return [one for each in self._objects.values() for one in each]

    def _of_set(self, kind: SetType, listed: list[Json]) -> list[Element]:
        found: list[Element] = []
        name, key_of, counted = kind.name, _key_reader(kind), kind.name in ACCOUNTS
        value_of = self._value_reader(kind)
        for each in listed:
            try:
                if kind.value is not None:
                    key, value = each
                    found.append(Element(name, key_of(key), value_of(key, value)))
                elif counted:
                    found.append(Element(name, (self._counted(name, each["elem"]),)))
                else:
                    found.append(Element(name, key_of(each)))
            except (_Strange, ValueError, TypeError, KeyError, OSError):  # a shape or a string that we never write
                self.strange.append([name, each])
        return found

    def _counted(self, name: str, element: Json) -> Mark:
        """Keep the count of an element of an accounting set, and return its key."""
        count = element["counter"]
        if len(element) != 2:  # `val` and `counter`
            raise _Strange
        mark = Mark(_number(element["val"]))
        self.accounts[name, mark] = Tally(count["packets"], count["bytes"])
        return mark

    def _value_reader(self, kind: SetType) -> Callable[[Json, Json], Value]:
        match kind.value:
            case "ipv4_addr":
                return lambda _, value: _ipv4(value)
            case "ipv6_addr":
                return lambda _, value: _ipv6(value)
            case "limit" | "quota" | "verdict":
                return self._object
            case _:
                return lambda _, value: _number(value)

    def _object(self, mark: Json, value: Json) -> Value:
        """Return the value of an element that names a limit, quota or chain; it must be named after the mark."""
        match value:
            case str(name) | {"jump": {"target": str(name)}}:
                found = self._object_value(self._objects.get(name, []), mark)
                if found is None or object_name(found, _number(mark)) != name:
                    raise _Strange
                del self._objects[name]
                return found
        raise _Strange

    def _object_value(self, listed: list[Json], mark: int) -> Limit | Quota | Connections | None:
        match listed:
            case [("limit", {"rate": int(rate), "rate_unit": str(unit), "per": "second", "inv": True} as limit)]:
                burst = limit.get("burst", 0) * _UNITS[limit.get("burst_unit", "bytes")]
                return Limit(rate * _UNITS[unit], burst)
            case [("quota", {"bytes": int(most), "used": int(used), "inv": True})]:
                self.used[Mark(mark)] = used
                return Quota(most)
            case [("chain", chain), ("rule", {"expr": [{"ct count": {"val": int(most)}}, *_] as rule})]:
                # nft prints the number with a sign, which the kernel does not have
                fits = rule == connections_rule(most) and "hook" not in chain
                return Connections(most % (1 << 32)) if fits else None
        return None


def _key_reader(kind: SetType) -> Callable[[Json], tuple[Part, ...]]:
    readers = tuple(_SPANS[field] if kind.interval and field in _SPANS else _PARTS[field] for field in kind.fields)
    if len(readers) == 1:
        (one,) = readers
        return lambda key: (one(key),)

    def concatenated(key: Json) -> tuple[Part, ...]:
        return tuple([read(part) for read, part in zip(readers, key["concat"], strict=True)])

    return concatenated


def _number(part: Json) -> int:
    if type(part) is not int:
        raise _Strange
    return part


def _link_name(part: Json) -> str:
    if type(part) is not str or not literal(part):
        raise _Strange
    return part


def _protocol(part: Json) -> str:
    return _NAMES[part]


def _ipv4(part: Json) -> Address:
    return IPv4Address(inet_pton(AF_INET, part))


def _ipv6(part: Json) -> Address:
    return IPv6Address(inet_pton(AF_INET6, part))


def _span(address: Callable[[Json], Address]) -> Callable[[Json], Span]:
    def read(part: Json) -> Span:
        match part:
            case str():
                first = last = address(part)
            case {"range": [start, end]}:
                first, last = address(start), address(end)
            case {"prefix": {"addr": start, "len": int(length)}}:
                first = address(start)
                last = type(first)(int(first) + (1 << first.max_prefixlen - length) - 1)
            case _:
                raise _Strange
        return Span(first=first, last=last)

    return read


_PARTS: dict[str, Callable[[Json], Part]] = {
    "ifname": _link_name,
    "mark": _number,
    "inet_service": _number,
    "inet_proto": _protocol,
    "ipv4_addr": _ipv4,
    "ipv6_addr": _ipv6,
}
_SPANS: dict[str, Callable[[Json], Part]] = {"ipv4_addr": _span(_ipv4), "ipv6_addr": _span(_ipv6)}
