"""What stands in the file: JSON with one line an entry, sorted, so that two files can be compared by eye.

    {
    "format": 1,
    "written_by": "0.1.0",
    "place": "the boot and the network namespace it was written in",
    "checksum": "sha256 of the exact bytes of the ledger below",
    "ledger": { "tenants": { "ns-blue": {"mark": "0x00000100", ...}, ... }, ... }
    }

Any change of what stands in the ledger, a new field too, is a new format number. A program never reads a format that is
newer than its own: what it does not know it would lose at the next writing.
"""

from __future__ import annotations

import hashlib

import msgspec

from outgate.model.net import Mark

FORMAT = 1


# msgspec's own structs, not dataclasses: only they refuse a field that they do not know.
class AllocationRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An allocation; the mark in hex."""

    mark: str
    link: str
    mac: str
    pool: str
    pool_addresses: tuple[str, ...]


class HoldingRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A holding; its address is the key."""

    tenant: str
    link: str
    egress: bool


class RetiringRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A retiring address, which is the key."""

    tenant: str
    link: str
    mark: str
    until_s: float


class RestingRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A resting address, which is the key."""

    tenant: str
    until_s: float


class AdoptionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A link of somebody else that is being taken over; its name is the key."""

    tenant: str
    parent: str
    packets: int
    quiet_since_s: float
    released: bool


class UsedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant has used of its quota since its period began."""

    bytes: int
    since_s: float


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ledger."""

    gateway: str
    last_mark: str
    tenants_known: int
    nodes_known: int
    tenants: dict[str, AllocationRow]
    holdings: dict[str, HoldingRow]
    retiring: dict[str, RetiringRow]
    resting: dict[str, RestingRow]
    adopting: dict[str, AdoptionRow]
    quota_used: dict[str, UsedRow]
    subnets_seen: tuple[str, ...]
    settings_before: dict[str, dict[str, int]]
    addresses_made: dict[str, tuple[str, ...]]


class Stamp(msgspec.Struct, frozen=True):
    """What every format, also of the future, begins with."""

    format: int
    written_by: str = ""


class Envelope(msgspec.Struct, frozen=True):
    """The rest of this format; the ledger is kept as its exact bytes."""

    checksum: str
    place: str
    ledger: msgspec.Raw


def hex_of(mark: Mark) -> str:
    """Return a mark as it stands in the file."""
    return f"{mark:#010x}"


def mark_of(text: str) -> Mark:
    """Return the mark that a text says.

    Raises:
        ValueError: it is no number in hex.
    """
    return Mark(int(text, 16))


def checksum(content: bytes) -> str:
    """Return what tells whole bytes from torn ones."""
    return hashlib.sha256(content).hexdigest()
