"""The constant part of the table `inet outgate`: its objects, the types of its sets, its digest.

A machine has one of two such tables: an egress gateway's or a cluster node's. Source of all three is `gateway.json` or
`node.json`, which tools/render_ruleset.py makes from the texts beside them. JSON as in libnftables-json(5). No set of
one has the name of a set of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

import msgspec

FAMILY, NAME = "inet", "outgate"
GATEWAY, NODE = "gateway", "node"  # whose table
PLACE = {"family": FAMILY, "table": NAME}
ACCOUNTS = ("opened", "sent", "received")

CONSTANT = frozenset({"ready", "nobody"})  # the maps whose elements are part of the table, and written last
_STATE = frozenset({"handle", "packets", "bytes", "used"})
_OF_TENANT = re.compile(r"(?:rate|quota|connections)-[0-9a-f]{8}")

Object = dict[str, dict[str, Any]]  # one object of nft's JSON: {kind: properties}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetType:
    """What a set or map of the table holds.

    `fields` are nft's names of the types of a key's parts, in order; `value` that of a map's value, None for a set. In
    interval sets every address of a key is a range of addresses.
    """

    name: str
    fields: tuple[str, ...]
    value: str | None = None
    interval: bool = False


@cache
def objects(of: str = GATEWAY) -> tuple[Object, ...]:
    """Return the table's sets, maps, counters, chains and rules in the order in which they must be added."""
    text = resources.files("outgate.systems.nft").joinpath(f"{of}.json").read_bytes()
    return tuple(msgspec.json.decode(text, type=dict[str, list[Object]])["nftables"])


@cache
def set_types(*of: str) -> dict[str, SetType]:
    """Return the type of each set and map by its name, of the tables that are named or of both."""
    found: dict[str, SetType] = {}
    for one in (one for name in of or (GATEWAY, NODE) for one in objects(name)):
        properties = one.get("set") or one.get("map")
        if properties is not None and properties["name"] not in CONSTANT:
            fields = properties["type"]
            found[properties["name"]] = SetType(
                name=properties["name"],
                fields=(fields,) if isinstance(fields, str) else tuple(fields),
                value=properties.get("map"),
                interval="interval" in properties.get("flags", ()),
            )
    return found


@cache
def digest(of: str = GATEWAY) -> str:
    """Return the digest of the table that this program renders."""
    return digest_of(objects(of))


def digest_of(listed: Iterable[Object], strange: Iterable[object] = ()) -> str:
    """Return the digest of a listing's constant part, and of what is `strange` in the rest.

    It does not depend on handles, counts, elements, the order of sets and chains, or the order of keys.
    """
    chains: dict[str, list[bytes]] = {}
    others: list[bytes] = []
    for one in constant_part(listed):
        place = chains.setdefault(str(one["rule"].get("chain")), []) if "rule" in one else others
        place.append(_canonical(one))
    content = [sorted(others), sorted(chains.items()), sorted(map(_canonical, strange))]
    return sha256(msgspec.json.encode(content)).hexdigest()


def constant_part(listed: Iterable[Object]) -> Iterator[Object]:
    """Yield the objects of a listing without what varies: handles, counts, elements, and what elements name."""
    for one in listed:
        for kind, properties in one.items():
            if kind != "metainfo" and not of_tenant(kind, properties):
                left = {key: value for key, value in properties.items() if key not in _STATE}
                if properties.get("name") not in CONSTANT:
                    left.pop("elem", None)
                yield {kind: left}


def of_tenant(kind: str, properties: dict[str, Any]) -> bool:
    """Whether an object is one that an element names: a tenant's limit, quota, chain, or a rule in that chain."""
    name = properties.get("chain" if kind == "rule" else "name")
    return isinstance(name, str) and _OF_TENANT.fullmatch(name) is not None


def _canonical(one: object) -> bytes:
    return msgspec.json.encode(_sorted_sets(one), order="sorted")


def _sorted_sets(one: object) -> object:
    """Return a JSON value with the elements of anonymous sets in order: the kernel keeps them by hash."""
    match one:
        case {"set": list(elements)}:
            return {"set": sorted((_sorted_sets(each) for each in elements), key=msgspec.json.encode)}
        case dict():
            return {key: _sorted_sets(value) for key, value in one.items()}
        case list():
            return [_sorted_sets(value) for value in one]
    return one
