"""From the ledger to the text of a file.

A gateway writes its ledger at every change of an allocation, and among thousands of rows a change touches a few. So
each line is kept from writing to writing for as long as its row is the same object; rows are frozen, so the same object
says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

import msgspec

from outgate.model.ledger import Adoption, Allocation, Holding, Ledger, Resting, Retiring
from outgate.model.net import Address, LinkName
from outgate.systems.statefile.format import (
    FORMAT,
    AdoptionRow,
    AllocationRow,
    HoldingRow,
    RestingRow,
    RetiringRow,
    UsedRow,
    checksum,
    hex_of,
)

_Key = TypeVar("_Key")
_Row = TypeVar("_Row")


class Section(Generic[_Key, _Row]):
    """One mapping of the ledger as lines: `"key": {...}`, sorted."""

    def __init__(self, shown: Callable[[_Row], object]) -> None:
        self._shown = shown
        self._lines: dict[int, tuple[_Key, _Row, bytes]] = {}  # by the row's id, which it keeps while it stands here

    def text(self, rows: Mapping[_Key, _Row]) -> bytes:
        """Return the object; only lines of rows that are new are made anew."""
        known = self._lines
        fresh: dict[int, tuple[_Key, _Row, bytes]] = {}
        lines = []
        for key, row in rows.items():
            entry = known.get(id(row))
            if entry is None or entry[0] is not key:
                entry = (key, row, _text(str(key)) + b": " + _text(self._shown(row)))
            fresh[id(row)] = entry
            lines.append(entry[2])
        self._lines = fresh
        return _object(sorted(lines))


class Scribe:
    """Renders one ledger after the other; equal ledgers have equal texts."""

    def __init__(self) -> None:
        self._tenants = Section[str, Allocation](_allocation)
        self._holdings = Section[Address, Holding](_holding)
        self._retiring = Section[Address, Retiring](_retiring)
        self._resting = Section[Address, Resting](_resting)
        self._adopting = Section[LinkName, Adoption](_adoption)
        self._quotas = Section[str, tuple[int, float]](lambda used: UsedRow(*used))

    def body(self, ledger: Ledger) -> bytes:
        """Return the ledger's own text."""
        settings: dict[str, dict[str, int]] = {}
        for (link, setting), value in ledger.settings_before.items():
            settings.setdefault(link, {})[setting.value] = value
        made: dict[str, list[str]] = {}
        for link, address in ledger.addresses_made:
            made.setdefault(link, []).append(str(address))
        fields = {
            "gateway": _text(ledger.gateway),
            "last_mark": _text(hex_of(ledger.last_mark)),
            "tenants_known": _text(ledger.tenants_known),
            "nodes_known": _text(ledger.nodes_known),
            "tenants": self._tenants.text(ledger.tenants),
            "holdings": self._holdings.text(ledger.holdings),
            "retiring": self._retiring.text(ledger.retiring),
            "resting": self._resting.text(ledger.resting),
            "adopting": self._adopting.text(ledger.adopting),
            "quota_used": self._quotas.text(ledger.quota_used),
            "subnets_seen": _text(sorted(map(str, ledger.subnets_seen))),
            "settings_before": _text({link: dict(sorted(settings[link].items())) for link in sorted(settings)}),
            "addresses_made": _text({link: sorted(made[link]) for link in sorted(made)}),
        }
        return _object(_text(name) + b": " + value for name, value in fields.items())


def sealed(body: bytes, *, written_by: str, place: str) -> bytes:
    """Return the whole text of a file around the ledger's own text."""
    head = {"format": FORMAT, "written_by": written_by, "place": place, "checksum": checksum(body)}
    return (
        _object([*(_text(name) + b": " + _text(value) for name, value in head.items()), b'"ledger": ' + body]) + b"\n"
    )


def _allocation(row: Allocation) -> AllocationRow:
    addresses = tuple(map(str, row.pool_addresses))
    return AllocationRow(mark=hex_of(row.mark), link=row.link, mac=row.mac, pool=row.pool, pool_addresses=addresses)


def _holding(row: Holding) -> HoldingRow:
    return HoldingRow(tenant=row.tenant, link=row.link, egress=row.egress)


def _retiring(row: Retiring) -> RetiringRow:
    return RetiringRow(tenant=row.tenant, link=row.link, mark=hex_of(row.mark), until_s=row.until_s)


def _resting(row: Resting) -> RestingRow:
    return RestingRow(tenant=row.tenant, until_s=row.until_s)


def _adoption(row: Adoption) -> AdoptionRow:
    return AdoptionRow(
        tenant=row.tenant,
        parent=row.parent,
        packets=row.packets,
        quiet_since_s=row.quiet_since_s,
        released=row.released,
    )


def _text(value: object) -> bytes:
    return msgspec.json.encode(value)


def _object(members: Iterable[bytes]) -> bytes:
    return b"{\n" + b",\n".join(members) + b"\n}"
