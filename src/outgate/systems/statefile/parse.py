"""From the text of a file to the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import TypeVar

import msgspec

from outgate.model.ledger import Adoption, Allocation, Holding, Ledger, Resting, Retiring
from outgate.model.net import Address, LinkName, Mac, Setting
from outgate.systems.statefile.format import (
    FORMAT,
    AdoptionRow,
    AllocationRow,
    Body,
    Envelope,
    HoldingRow,
    RetiringRow,
    Stamp,
    checksum,
    mark_of,
)

_Row = TypeVar("_Row")


class Damaged(ValueError):
    """The text is not what a program wrote: torn, or edited by hand."""


class Foreign(ValueError):
    """The text is whole, but written by a program whose words this one does not know."""

    def __init__(self, written_by: str, number: int) -> None:
        super().__init__(f"written by outgate {written_by or 'of an unknown version'} in format {number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A ledger as it was read from a text, and the place where it was written."""

    ledger: Ledger
    place: str


def opened(content: bytes) -> Sealed:
    """Return what a text holds.

    Raises:
        Damaged: the text is torn, or its checksum does not fit.
        Foreign: another version of the program wrote it, in words that this one does not know.
    """
    try:
        stamp = msgspec.json.decode(content, type=Stamp)
        if stamp.format > FORMAT:
            raise Foreign(stamp.written_by, stamp.format)
        envelope = msgspec.json.decode(content, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as torn:
        raise Damaged(str(torn)) from torn
    inner = bytes(envelope.ledger)
    if checksum(inner) != envelope.checksum:
        raise Damaged("the checksum does not fit")
    try:
        ledger = _ledger(msgspec.json.decode(inner, type=Body))
    except ValueError as unknown:
        raise Foreign(stamp.written_by, stamp.format) from unknown
    return Sealed(ledger=ledger, place=envelope.place)


def _ledger(read: Body) -> Ledger:
    return Ledger(
        gateway=read.gateway,
        tenants=MappingProxyType({name: _allocation(row) for name, row in read.tenants.items()}),
        holdings=_by_address((at, _holding(row)) for at, row in read.holdings.items()),
        retiring=_by_address((at, _retiring(row)) for at, row in read.retiring.items()),
        resting=_by_address((at, Resting(tenant=row.tenant, until_s=row.until_s)) for at, row in read.resting.items()),
        subnets_seen=frozenset(map(ip_network, read.subnets_seen)),
        settings_before=MappingProxyType(
            {
                (LinkName(link), Setting(key)): value
                for link, row in read.settings_before.items()
                for key, value in row.items()
            }
        ),
        addresses_made=frozenset(
            (LinkName(link), ip_address(at)) for link, row in read.addresses_made.items() for at in row
        ),
        adopting=MappingProxyType({LinkName(link): _adoption(row) for link, row in read.adopting.items()}),
        quota_used=MappingProxyType({name: (row.bytes, row.since_s) for name, row in read.quota_used.items()}),
        last_mark=mark_of(read.last_mark),
        tenants_known=read.tenants_known,
        nodes_known=read.nodes_known,
    )


def _allocation(row: AllocationRow) -> Allocation:
    return Allocation(
        mark=mark_of(row.mark),
        link=LinkName(row.link),
        mac=Mac(row.mac),
        pool=row.pool,
        pool_addresses=tuple(map(ip_address, row.pool_addresses)),
    )


def _holding(row: HoldingRow) -> Holding:
    return Holding(tenant=row.tenant, link=LinkName(row.link), egress=row.egress)


def _retiring(row: RetiringRow) -> Retiring:
    return Retiring(tenant=row.tenant, link=LinkName(row.link), mark=mark_of(row.mark), until_s=row.until_s)


def _adoption(row: AdoptionRow) -> Adoption:
    return Adoption(
        tenant=row.tenant,
        parent=LinkName(row.parent),
        packets=row.packets,
        quiet_since_s=row.quiet_since_s,
        released=row.released,
    )


def _by_address(rows: Iterable[tuple[str, _Row]]) -> Mapping[Address, _Row]:
    return MappingProxyType({ip_address(at): row for at, row in rows})
