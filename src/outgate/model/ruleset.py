"""The elements of the one nftables table `inet outgate`: rules are constant, all that varies is an element of a named
set or map.

A key has one part per field of the set's type. Parts are typed values; intervals are spans. The table itself is one
resource, told by the digest of its constant part, so that a table that somebody edited or flushed is one change: load
it anew.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

from outgate.model.net import Address, Span

Part: TypeAlias = Address | Span | int | str  # int: mark or port; str: link name or protocol


@dataclass(frozen=True, slots=True)
class Limit:
    """A policer: bytes per second above the burst are dropped."""

    bytes_per_s: int
    burst_bytes: int


@dataclass(frozen=True, slots=True)
class Quota:
    """A byte budget; what exceeds it is dropped until control starts a new period (the kernel never renews a quota)."""

    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Connections:
    """At most so many live connections."""

    at_most: int


Value: TypeAlias = Address | int | Limit | Quota | Connections | None


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a set (`value` is None) or map of the table."""

    set: str
    key: tuple[Part, ...]
    value: Value = None

    @property
    def slot(self) -> Hashable:
        """One element per key."""
        return ("element", self.set, self.key)

    def __str__(self) -> str:
        key = " . ".join(hex(part) if isinstance(part, int) else str(part) for part in self.key)
        value = hex(self.value) if isinstance(self.value, int) else self.value
        return f"nft {self.set} {{ {key}{'' if value is None else f' : {value}'} }}"


@dataclass(frozen=True, slots=True)
class Table:
    """The constant part of the table: its sets, chains and rules, told by the digest of their rendering."""

    digest: str

    @property
    def slot(self) -> Hashable:
        """There is one table."""
        return ("table",)

    def __str__(self) -> str:
        return f"nft table inet outgate ({self.digest[:8]})"
