"""Values as plain data for JSON and YAML: stable, whole, and the same for every reader.

Field names become camelCase, as in Kubernetes objects; addresses, prefixes and ranges become text; what can be one of
several kinds says which in `type`. Lists are never cut here. Marks are numbers; only text shows them in hex.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeAlias, cast

from outgate.model.intent import NextHopIdentity, SourceIdentity
from outgate.model.net import Answered, LinkAddress, LinkSetting, OnLink, Route, Rule, Span, TenantLink, Via
from outgate.model.ruleset import Connections, Element, Limit, Quota, Table

API_VERSION = "outgate.io/v1alpha1"

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"

_AS_TEXT = (IPv4Address, IPv6Address, IPv4Network, IPv6Network, Span)
_ONE_OF_SEVERAL = (
    *(TenantLink, LinkAddress, Answered, LinkSetting, Route, Rule, Element, Table),
    *(Via, OnLink, Limit, Quota, Connections, NextHopIdentity, SourceIdentity),
)
_RESOURCES = _ONE_OF_SEVERAL[:8]


def as_plain(value: object) -> Plain:
    """Return a value of the model as plain data.

    Sets come sorted by their text, mappings by their keys in the order they have. A mapping whose keys are no text or
    number becomes a list of `{key, value}`.

    Raises:
        TypeError: it is nothing that the model is made of; the text names the type.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, Enum):
        return as_plain(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return _fields_of(value)
    if isinstance(value, Mapping):
        if all(isinstance(key, str | int | Enum | IPv4Address | IPv6Address) for key in value):
            return {str(as_plain(key)): as_plain(item) for key, item in value.items()}
        return [{"key": as_plain(key), "value": as_plain(item)} for key, item in value.items()]
    if isinstance(value, AbstractSet):
        return [as_plain(item) for item in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no plain data")


def document(kind: str, body: Mapping[str, object]) -> dict[str, Plain]:
    """Return a document of our API: its version, its kind, and the body as plain data."""
    return {"apiVersion": API_VERSION, "kind": kind, **{key: as_plain(value) for key, value in body.items()}}


def _fields_of(value: Any) -> dict[str, Plain]:
    """Return a dataclass by its public fields; resources say in words, too, what they are."""
    plain: dict[str, Plain] = {"type": type(value).__name__} if isinstance(value, _ONE_OF_SEVERAL) else {}
    plain |= {key: as_plain(getattr(value, name)) for name, key in _names(cast(Hashable, type(value)))}
    if isinstance(value, _RESOURCES):
        plain["text"] = str(value)
    return plain


@cache
def _names(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    """Return a dataclass's public fields, each with its name in camelCase."""
    public = (field.name for field in fields(kind) if not field.name.startswith("_"))
    return tuple((name, _camel(name)) for name in public)


def _camel(name: str) -> str:
    """`last_age_s` is `lastAgeSeconds`: units are spelled out for readers who do not know the house."""
    words = name.split("_")
    if len(words) > 1 and words[-1] == "s":
        words[-1] = "seconds"
    return words[0] + "".join(word.capitalize() for word in words[1:])
