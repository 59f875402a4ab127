"""Read the table `inet outgate`, in the calling thread's network namespace.

The kernel numbers its rulesets: while the number is that of an earlier reading, nothing has changed and nothing is
read, which matters because 100,000 elements take a second. What packets change (counts) does not change the number.
Source: `net/netfilter/nf_tables_api.c` and `linux/netfilter/nf_tables.h` of the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from outgate.model.errors import Refused, Unreachable
from outgate.model.ruleset import Element, Table
from outgate.systems.netlink import NetlinkSocket, pack, walk
from outgate.systems.nft import program, tally
from outgate.systems.nft.parse import Counts, listing
from outgate.systems.nft.table import FAMILY, GATEWAY, NAME, NODE, digest
from outgate.systems.nft.tally import NFT, OF_INET, PAYLOAD, TABLE

NETLINK_NETFILTER = 12
LIST = ("-n", "-j", "list")  # -n: numbers, not the names that files of this machine give them

_GET_TABLE, _GET_GENERATION = NFT | 1, NFT | 16
_TABLE_FLAGS, _GENERATION_ID = 2, 1  # NFTA_TABLE_FLAGS, NFTA_GEN_ID

NO_TRUST: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The table as it was at one generation of the ruleset, or later.

    `table` is None when there is none; its digest is that of this program's rendering when the listing is one that is
    trusted to show it, else that of the listing, so that it compares unequal. `listing` is the digest of the listing.
    """

    generation: int
    table: Table | None = None
    elements: frozenset[Element] = frozenset()
    counts: Counts = field(default_factory=Counts)
    listing: str = ""


def generation() -> int:
    """Return the number of the ruleset that is in force; each transaction that changes any table makes it a new one.

    Raises:
        Refused: the kernel has no nftables, or the privilege is missing.
        Unreachable: netlink does not open or answer.
    """
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        return _generation(netlink)


def read(previous: Reading | None = None, *, trusted: Mapping[str, str] = NO_TRUST) -> Reading:
    """Return the table, or `previous` itself if the ruleset is still of its generation.

    Versions of nft list the same table differently. `trusted` maps the digest of a listing to that of the rendering
    which it shows, as `write.load` has learned it on this machine.

    Raises:
        NotReady: nft is not installed, or too old.
        Refused: with the kernel's or nft's words.
        Unreachable: netlink or nft does not answer.
    """
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        now = _generation(netlink)
        if previous is not None and previous.generation == now:
            return previous
        flags = _table_flags(netlink)
        if flags is None:
            return Reading(generation=now)
        try:
            text = program.run((*LIST, "table", FAMILY, NAME), change=f"list table {FAMILY} {NAME}")
        except Refused:
            if _table_flags(netlink) is None:  # it went meanwhile
                return Reading(generation=now)
            raise
    return _reading(now, text, flags, trusted)


def foreign_to(of: str, reading: Reading) -> str:
    """Return why a table is not this role's to replace, in a sentence; empty when it is, or when there is none."""
    other, whose = (NODE, "a cluster node's") if of == GATEWAY else (GATEWAY, "an egress gateway's")
    is_theirs = reading.table is not None and reading.table.digest == digest(other)
    return f"the table {FAMILY} {NAME} here is {whose}" if is_theirs else ""


def counts() -> Counts:
    """Return what the table counts, without reading the rest of it. Without a table there is nothing.

    Raises:
        NotReady: the ruleset changed meanwhile; ask again.
        Refused: with the kernel's words.
        Unreachable: netlink does not open or answer.
    """
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        if _table_flags(netlink) is None:
            return Counts()
        try:
            named, used, accounts = tally.named(netlink), tally.used(netlink), tally.accounts(netlink)
        except Refused:
            if _table_flags(netlink) is None:  # it went meanwhile
                return Counts()
            raise
    return Counts(named=MappingProxyType(named), accounts=MappingProxyType(accounts), used=MappingProxyType(used))


def _reading(now: int, text: bytes, flags: int, trusted: Mapping[str, str]) -> Reading:
    """Return what a listing says. Flags of a table (dormant: no chain sees a packet) stand in no JSON of nft 1.0.6."""
    try:
        listed = listing(text)
    except msgspec.DecodeError as error:
        raise Unreachable(f"nft lists the table in a way that is no JSON of a ruleset: {error}") from error
    shown = f"{listed.digest} with flags {flags:#x}" if flags else listed.digest
    meant = trusted.get(shown, shown)
    return Reading(generation=now, table=Table(meant), elements=listed.elements, counts=listed.counts, listing=shown)


def _generation(netlink: NetlinkSocket) -> int:
    """Return the number that NFT_MSG_GETGEN answers (NFTA_GEN_ID)."""
    try:
        (answer,) = netlink.ask(pack(_GET_GENERATION, 0, OF_INET))
    except Refused as refused:
        raise Refused("ask for the generation of the ruleset", refused.words) from refused
    return int.from_bytes(dict(walk(answer[PAYLOAD:]))[_GENERATION_ID], "big")


def _table_flags(netlink: NetlinkSocket) -> int | None:
    """Return the flags of the table (NFTA_TABLE_FLAGS); None: there is no table."""
    try:
        (answer,) = netlink.ask(pack(_GET_TABLE, 0, OF_INET + TABLE))
    except Refused as refused:
        if refused.words.startswith(os.strerror(errno.ENOENT)):
            return None
        raise Refused(f"look for table {FAMILY} {NAME}", refused.words) from refused
    return int.from_bytes(dict(walk(answer[PAYLOAD:])).get(_TABLE_FLAGS, b""), "big")
