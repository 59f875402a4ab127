"""What the table counts, asked of the kernel itself: 12,000 elements in 30 ms, where nft takes 120 and reads far more.

Source: `linux/netfilter/nf_tables.h` of the kernel. Numbers of nf_tables are big end first; a mark is a number of the
packet path and stands in the machine's order.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from outgate.model.net import Mark
from outgate.systems.netlink import HEADER_SIZE, NetlinkSocket, attr, pack, spans, walk
from outgate.systems.nft.parse import Tally
from outgate.systems.nft.table import ACCOUNTS, NAME, of_tenant

NFT = 10 << 8  # NFNL_SUBSYS_NFTABLES
OF_INET = struct.pack("=BBH", 1, 0, 0)  # nfgenmsg: NFPROTO_INET
TABLE = attr(1, NAME.encode() + b"\0")  # NFTA_TABLE_NAME, NFTA_OBJ_TABLE, NFTA_SET_ELEM_LIST_TABLE
PAYLOAD = HEADER_SIZE + len(OF_INET)

_GET_ELEMENTS, _GET_OBJECTS = NFT | 13, NFT | 19
_COUNTER, _QUOTA = 1, 2  # NFT_OBJECT_*
_OBJECT_NAME, _OBJECT_TYPE, _OBJECT_CONTENT = 2, 3, 4
_BYTES, _PACKETS = 1, 2  # NFTA_COUNTER_*
_CONSUMED = 4  # NFTA_QUOTA_CONSUMED
_LIST_SET, _LIST_ELEMENTS, _LIST_ITEM = 2, 3, 1
_KEY, _EXPRESSION, _EXPRESSION_CONTENT = 1, 7, 2

# An element with a counter as every kernel so far lists it: key, mark; expression "counter", bytes; packets.
_LISTED = struct.Struct(">12s4s24sQ4sQ")
_HEADS = (
    struct.pack("=6H", _LISTED.size, _LIST_ITEM, 12, _KEY, 8, 1),
    struct.pack("=4H8s4H", 44, _EXPRESSION, 12, 1, b"counter", 28, _EXPRESSION_CONTENT, 12, _BYTES),
    struct.pack("=2H", 12, _PACKETS),
)


def named(netlink: NetlinkSocket) -> dict[str, Tally]:
    """Return the counters of the table by name."""
    return {name: Tally(got[_PACKETS], got[_BYTES]) for name, got in _objects(netlink, _COUNTER)}


def used(netlink: NetlinkSocket) -> dict[Mark, int]:
    """Return how many bytes of its quota each tenant has used up."""
    quotas = _objects(netlink, _QUOTA)
    return {Mark(int(name[-8:], 16)): got[_CONSUMED] for name, got in quotas if of_tenant("quota", {"name": name})}


def accounts(netlink: NetlinkSocket) -> dict[tuple[str, Mark], Tally]:
    """Return what each tenant has sent, received and opened."""
    found: dict[tuple[str, Mark], Tally] = {}
    for name in ACCOUNTS:
        request = pack(_GET_ELEMENTS, 0, OF_INET + TABLE + attr(_LIST_SET, name.encode() + b"\0"))
        for message in netlink.dump(request):
            for kind, start, end in spans(message, PAYLOAD):
                for mark, tally in _elements(message, start, end) if kind == _LIST_ELEMENTS else ():
                    found[name, mark] = tally
    return found


def _elements(message: memoryview, start: int, end: int) -> Iterator[tuple[Mark, Tally]]:
    """Yield each element of a list. All of one known shape are taken apart in one go, six times as fast."""
    if (end - start) % _LISTED.size == 0:
        rows = list(_LISTED.iter_unpack(message[start:end]))
        if all((first, second, third) == _HEADS for first, _, second, _, third, _ in rows):
            for _, mark, _, size, _, packets in rows:
                yield Mark(int.from_bytes(mark, sys.byteorder)), Tally(packets, size)
            return
    for _, at, stop in spans(message, start, end):
        yield _element(message, at, stop)


def _element(message: memoryview, at: int, stop: int) -> tuple[Mark, Tally]:
    got = dict(walk(message[at:stop]))
    numbers = dict(walk(dict(walk(got[_EXPRESSION]))[_EXPRESSION_CONTENT]))
    key = Mark(int.from_bytes(dict(walk(got[_KEY]))[1], sys.byteorder))
    return key, Tally(int.from_bytes(numbers[_PACKETS], "big"), int.from_bytes(numbers[_BYTES], "big"))


def _objects(netlink: NetlinkSocket, kind: int) -> list[tuple[str, dict[int, int]]]:
    """Return the name and the numbers of each named object of one type in the table."""
    found = []
    for answer in netlink.dump(pack(_GET_OBJECTS, 0, OF_INET + TABLE + attr(_OBJECT_TYPE, struct.pack(">I", kind)))):
        got = dict(walk(answer[PAYLOAD:]))
        if int.from_bytes(got[_OBJECT_TYPE], "big") == kind:
            numbers = {number: int.from_bytes(content, "big") for number, content in walk(got[_OBJECT_CONTENT])}
            found.append((bytes(got[_OBJECT_NAME]).rstrip(b"\0").decode(), numbers))
    return found
