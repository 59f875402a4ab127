"""What one file turned out to hold: readable objects, and places where there is one that can not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from outgate.model.why import Finding, Origin, Severity
from outgate.sources.convert import ModelObject

Key: TypeAlias = (
    str  # kind, namespace and name, with NUL in between: sorts as they do, and is no work for the collector
)


@dataclass(frozen=True, slots=True)
class Broken:
    """A refusal, and the object that it is about; None: nobody can tell which."""

    finding: Finding
    key: Key | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Objects of a kind that outgate does not read: how many, and where the first stands."""

    count: int
    origin: Origin
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One file, read. Objects stand in file order, by kind."""

    objects: Mapping[str, tuple[ModelObject, ...]] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()
    ignored: Mapping[str, Ignored] = field(default_factory=dict)


def key_of(given: ModelObject) -> Key:
    """Return what two objects must not share."""
    return key(given.origin)


def key(origin: Origin) -> Key:
    """Return the key of the object that an origin names."""
    return f"{origin.kind}\0{origin.namespace}\0{origin.name}"


def kind_of(key: Key) -> str:
    """Return the kind in a key."""
    return key.partition("\0")[0]


def refusal(text: str, fix: str, origin: Origin, about: str = "") -> Finding:
    """Return the finding about an object, or about a file, that can not be read."""
    return Finding("InvalidManifest", about or origin.object or origin.file, text, Severity.REFUSAL, fix, origin)
