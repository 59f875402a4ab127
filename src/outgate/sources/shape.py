"""The vocabulary in which our kinds are described, once: shapes of values, with their limits and a sentence each.

From one description come the check of manifests (`validate`), the schemas in the cluster (`crd`), the reference
(`reference`) and the way back to a manifest (`dump`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

MISSING = object()
"""Where a default would stand: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A string with a meaning. `parse` raises Wrong; `pattern` (RE2) and `most` (bytes) are what a schema can check."""

    what: str  # completes "expected ..."
    parse: Callable[[str], Any]
    pattern: str
    most: int
    show: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole number within limits. The model holds it divided by `scale`: milliseconds become seconds with 1000."""

    least: int
    most: int
    unit: str = ""
    scale: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Yes or no: a boolean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of a few words; `meanings` has a sentence for each value of the enumeration."""

    of: type[Enum]
    meanings: Mapping[Enum, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """A list without duplicates, in the user's order. `per_family` limits the addresses of each family."""

    item: Shape
    least: int = 0
    most: int
    per_family: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A mapping from text to text; the model holds sorted pairs."""

    key: Text
    value: Text
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What must hold between fields: a sentence for the user, in CEL for the cluster, and here for files.

    `holds` is asked about the parsed fields by their attribute names; absent ones are their defaults, or None, or empty
    where a list or mapping stands. An empty `cel` is a rule that would cost the API server too much.
    """

    text: str
    fix: str
    cel: str
    holds: Callable[[Mapping[str, Any]], bool]
    at: str = ""  # the field that the message points to; empty: the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: its name in a manifest, its attribute in the model, and what it means (units included)."""

    name: str
    attribute: str
    shape: Shape
    text: str
    required: bool = False
    default: object = MISSING  # as a manifest writes it
    absent: str = ""  # what absence means, where it is not a default


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A mapping with known fields, which becomes one value of the model."""

    of: Callable[..., Any]
    fields: tuple[Field, ...]
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """A mapping with exactly one of its fields, whose value is the value of the whole."""

    options: tuple[Field, ...]


Shape: TypeAlias = Text | Whole | Flag | Choice | Many | Pairs | Record | OneOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One of our kinds. `columns` are printed by kubectl: title, type, JSON path, sentence."""

    name: str
    plural: str
    short: str
    text: str
    spec: Record
    columns: tuple[tuple[str, str, str, str], ...] = ()
    is_namespaced: bool = False
