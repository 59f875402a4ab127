"""Elements as nft's JSON: whole rulesets and changes, each a document that nft takes as one transaction. Pure.

Names of links are JSON strings and never pasted, yet nft gives some strings a meaning of its own: a leading `@` is a
set, a trailing `*` a wildcard. `unfit` names those, and whatever else the type of the set forbids. Protocols go as
numbers, so that /etc/protocols has no say. Format: libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import msgspec

from outgate.model.net import OWN_MASK, TENANT_MASK, Address, Mark, Span
from outgate.model.ruleset import Connections, Element, Limit, Part, Quota
from outgate.systems.nft.table import FAMILY, GATEWAY, NAME, PLACE, SetType, objects, set_types

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "ipv6-icmp": 58, "sctp": 132, "udplite": 136}
LINK_NAME_BYTES = 15  # IFNAMSIZ less the zero at the end

# What nft reads as a number wherever a string may stand (constant_tbl in src/parser_json.c): link `tcp` became `\x06`.
_NUMBERS = frozenset(["tcp", "udp", "udplite", "esp", "ah", "icmp", "icmpv6", "comp", "dccp", "sctp", "redirect"])
_TABLE = {"table": {"family": FAMILY, "name": NAME}}
_WORD = 1 << 32
_LONG = 1 << 63
_MOST_OF_A_SECOND = ((1 << 64) - 1) // 10**9  # bytes; the kernel multiplies them by nanoseconds in 64 bits
_FAMILIES: dict[str, type[Address]] = {"ipv4_addr": IPv4Address, "ipv6_addr": IPv6Address}
_VALUES: dict[str | None, type] = {
    None: type(None),
    "mark": int,
    "ipv4_addr": IPv4Address,
    "ipv6_addr": IPv6Address,
    "limit": Limit,
    "quota": Quota,
    "verdict": Connections,
}

Json = Any  # what msgspec makes a JSON value of


def load(elements: Iterable[Element], used: Mapping[Mark, int] | None = None, of: str = GATEWAY) -> bytes:
    """Return the document that replaces the whole table, there or not, by a gateway's or a node's with these elements.

    `used` says how many bytes of its quota a tenant (by mark) has used up already: a new table would begin at 0.
    """
    commands: list[Json] = [{"add": _TABLE}, {"delete": _TABLE}]
    last: list[Json] = []
    for one in objects(of):
        match one:
            case {"map": {"elem": list(constant), **empty}}:
                commands.append({"add": {"map": empty}})
                last.append({"add": {"element": {**PLACE, "name": empty["name"], "elem": constant}}})
            case _:
                commands.append({"add": one})
    return _document([*commands, *_additions(elements, used or {}), *last])


def delta(make: Iterable[Element], drop: Iterable[Element], used: Mapping[Mark, int] | None = None) -> bytes:
    """Return the document that deletes `drop` and then adds `make`.

    An element that gets another value stands in both, with its old value in `drop`; the kernel shows no packet a moment
    between. `used` as in `load`.
    """
    return _document([*_deletions(drop), *_additions(make, used or {})])


def renewal(marks: Iterable[Mark]) -> bytes:
    """Return the document that sets what these tenants have used of their quotas to nothing."""
    return _document([{"reset": {"quota": {**PLACE, "name": object_name(Quota(0), mark)}}} for mark in marks])


def removal() -> bytes:
    """Return the document that deletes the table, there or not."""
    return _document([{"add": _TABLE}, {"delete": _TABLE}])


def object_name(value: Limit | Quota | Connections, mark: int) -> str:
    """Return the name of the limit, quota or chain that a tenant's element names."""
    match value:
        case Limit():
            return f"rate-{mark:08x}"
        case Quota():
            return f"quota-{mark:08x}"
        case Connections():
            return f"connections-{mark:08x}"


def unfit(element: Element) -> str:
    """Return why an element can not be written, or an empty string."""
    return unfit_key(element) or _unfit_value(element, set_types()[element.set])


def unfit_key(element: Element) -> str:
    """Return why an element can not even be named, or an empty string."""
    kind = set_types().get(element.set)
    if kind is None:
        return f"there is no set {element.set}"
    if len(element.key) != len(kind.fields):
        return f"the key has {len(element.key)} parts, not {len(kind.fields)} ({' . '.join(kind.fields)})"
    for part, field in zip(element.key, kind.fields, strict=True):
        reason = _unfit_part(part, field, interval=kind.interval)
        if reason:
            return reason
    return ""


def _unfit_part(part: Part, field: str, *, interval: bool) -> str:
    if field in _FAMILIES:
        return _unfit_address(part, field, interval=interval)
    if field == "ifname":
        return _unfit_name(part) if isinstance(part, str) else f"{part} is no link name"
    if field == "inet_proto":
        return "" if part in PROTOCOLS else f"protocol {part} is none of {', '.join(PROTOCOLS)}"
    limit = 1 << 16 if field == "inet_service" else _WORD
    return "" if isinstance(part, int) and 0 <= part < limit else f"{part} is no {field}"


def _unfit_address(part: Part, field: str, *, interval: bool) -> str:
    family = _FAMILIES[field]
    if not interval:
        return "" if isinstance(part, family) else f"{part} is no {field}"
    if not isinstance(part, Span) or not (isinstance(part.first, family) and isinstance(part.last, family)):
        return f"{part} is no range of {field}"
    if int(part.first) > int(part.last):
        return f"the range {part} ends before it starts"
    alone = int(part.first) == (1 << part.first.max_prefixlen) - 1
    return f"nft 1.0.6 does not delete {part}, the last address of all, from a map" if alone else ""


def _unfit_name(name: str) -> str:
    """Return why nft would not take a string for exactly the link of that name."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return f"the link name {name!a} is no UTF-8"
    if not 0 < size <= LINK_NAME_BYTES:
        return f"the link name {name!r} has {size} bytes, not 1 to {LINK_NAME_BYTES}"
    if not literal(name):
        return f"nft would not read {name!r} as the name of a link"
    return "" if name.isprintable() and not any(c.isspace() or c in "/:" for c in name) else f"{name!r} is no link name"


def literal(name: str) -> bool:
    """Whether nft takes a string for the link of that name and lists it so: no set, no wildcard, no constant."""
    return not (name.startswith("@") or name.endswith("*") or "\\" in name or name in _NUMBERS)


def _unfit_value(element: Element, kind: SetType) -> str:
    value = element.value
    if not isinstance(value, _VALUES[kind.value]):
        return f"{value} is no value for {element.set}"
    match value:
        case int():  # a number without a tenant, or the one of what passes, would open the guard
            fits = 0 < value & TENANT_MASK < TENANT_MASK and value <= OWN_MASK
        case Limit():
            whole = value.bytes_per_s + value.burst_bytes
            fits = value.bytes_per_s > 0 and 0 <= value.burst_bytes < _WORD and whole <= _MOST_OF_A_SECOND
        case Quota():
            fits = 0 <= value.limit_bytes < _LONG
        case Connections():
            fits = 0 <= value.at_most < _WORD
        case _:
            fits = True
    return "" if fits else f"{value} is out of range"


def _document(commands: list[Json]) -> bytes:
    return msgspec.json.encode({"nftables": commands})


def _additions(elements: Iterable[Element], used: Mapping[Mark, int]) -> list[Json]:
    """Return what elements name first, then the elements, one command for each set."""
    by_set: dict[str, list[Json]] = {}
    named: list[Json] = []
    types = set_types()
    for element in elements:
        key = _key(element, types[element.set])
        match element.value:
            case None:
                one: Json = key
            case Limit() | Quota() | Connections() as value:
                name = object_name(value, key)
                named += _named(name, value, used.get(key, 0))
                one = [key, {"jump": {"target": name}} if isinstance(value, Connections) else name]
            case int() as mark:
                one = [key, mark]
            case address:
                one = [key, str(address)]
        by_set.setdefault(element.set, []).append(one)
    return [*named, *({"add": {"element": {**PLACE, "name": name, "elem": each}}} for name, each in by_set.items())]


def _deletions(elements: Iterable[Element]) -> list[Json]:
    """Return the elements first, then what they named."""
    by_set: dict[str, list[Json]] = {}
    named: list[Json] = []
    types = set_types()
    for element in elements:
        key = _key(element, types[element.set])
        by_set.setdefault(element.set, []).append(key)
        match element.value:
            case Limit() as value:
                named.append({"delete": {"limit": {**PLACE, "name": object_name(value, key)}}})
            case Quota() as value:
                named.append({"delete": {"quota": {**PLACE, "name": object_name(value, key)}}})
            case Connections() as value:
                chain = {"chain": {**PLACE, "name": object_name(value, key)}}
                named += [{"flush": chain}, {"delete": chain}]
    return [*({"delete": {"element": {**PLACE, "name": name, "elem": each}}} for name, each in by_set.items()), *named]


def _named(name: str, value: Limit | Quota | Connections, used: int) -> list[Json]:
    mine = {**PLACE, "name": name}
    match value:
        case Limit():
            rate = {"rate": value.bytes_per_s, "rate_unit": "bytes", "per": "second", "inv": True}
            return [{"add": {"limit": {**mine, **rate, "burst": value.burst_bytes, "burst_unit": "bytes"}}}]
        case Quota():
            return [{"add": {"quota": {**mine, "bytes": value.limit_bytes, "used": used, "inv": True}}}]
        case Connections():
            rule = {**PLACE, "chain": name, "expr": connections_rule(value.at_most)}
            return [{"add": {"chain": mine}}, {"add": {"rule": rule}}]


def connections_rule(at_most: int) -> list[Json]:
    """Return the one rule of a tenant's chain, as nft lists it."""
    refuse = {"goto": {"target": "refuse"}}
    return [{"ct count": {"val": at_most, "inv": True}}, {"counter": "connections_refused"}, refuse]


def _key(element: Element, kind: SetType) -> Json:
    parts = [_WRITERS[field](part) for field, part in zip(kind.fields, element.key, strict=True)]
    return parts[0] if len(parts) == 1 else {"concat": parts}


def _address(part: Address | Span) -> Json:
    if not isinstance(part, Span):
        return str(part)
    # a single address is a prefix too: nft 1.0.6 does not find it otherwise when it deletes it from a concatenation
    first, size = int(part.first), int(part.last) - int(part.first) + 1
    if size & (size - 1) or first % size:
        return {"range": [str(part.first), str(part.last)]}
    return {"prefix": {"addr": str(part.first), "len": part.first.max_prefixlen - size.bit_length() + 1}}


def _plain(part: Any) -> Json:
    return part


_WRITERS: dict[str, Callable[[Any], Json]] = {
    "ifname": _plain,
    "mark": _plain,
    "inet_service": _plain,
    "inet_proto": PROTOCOLS.__getitem__,
    "ipv4_addr": _address,
    "ipv6_addr": _address,
}
