"""Entries of connection tracking as ctnetlink messages: requests to pack, and what a dump says.

Source: `linux/netfilter/nfnetlink_conntrack.h` and `net/netfilter/nf_conntrack_netlink.c`. Integers are big endian.

A dump holds few shapes of message (TCP or UDP, counted or not, IPv4 or IPv6), each with every attribute in the same
place. So the attributes are walked once per shape, which gives a `_Shape`; every other message of that length is
checked against its attribute headers and read with one compiled struct.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from operator import itemgetter
from typing import Any

from outgate.model.flow import Endpoints, Flow, TcpState
from outgate.model.net import Address
from outgate.systems.netlink import HEADER_SIZE, attr, nest, pack, spans, walk

NETLINK_NETFILTER = 12
_GET, _DELETE, _GET_STATS = 0x101, 0x102, 0x105  # NFNL_SUBSYS_CTNETLINK is 1
_FAMILY_SIZE = 4  # struct nfgenmsg: family, version, resource
_FAMILY = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}

_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_COUNTED_ORIGINAL, _COUNTED_REPLY, _ID, _ZONE, _MARK_MASK = 9, 10, 12, 18, 21
_IP, _PROTO, _TUPLE_ZONE = 1, 2, 3
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_NUMBER, _SRC_PORT, _DST_PORT, _ICMP_ID, _ICMP_TYPE, _ICMP_CODE, _ICMPV6_ID, _ICMPV6_TYPE, _ICMPV6_CODE = range(1, 10)
_STATS_ENTRIES, _STATS_LIMIT = 1, 2

_Path = tuple[int, ...]
_NESTS: frozenset[_Path] = frozenset(
    [(side, *inner) for side in (_ORIGINAL, _REPLY) for inner in ((), (_IP,), (_PROTO,))]
    + [(_PROTOINFO,), (_PROTOINFO, 1), (_COUNTED_ORIGINAL,), (_COUNTED_REPLY,)]
)


_TCP_STATES = tuple(TcpState)


def _side(side: int) -> tuple[tuple[_Path, ...], ...]:
    identifier = (side, _PROTO, _ICMP_ID), (side, _PROTO, _ICMPV6_ID)
    return (
        ((side, _IP, _V4_SRC), (side, _IP, _V6_SRC)),
        ((side, _PROTO, _SRC_PORT), *identifier),
        ((side, _IP, _V4_DST), (side, _IP, _V6_DST)),
        ((side, _PROTO, _DST_PORT), *identifier),
    )


# The places where each value that `Entries` takes may stand, in the order in which it takes them.
_VALUES: tuple[tuple[_Path, ...], ...] = (
    *_side(_ORIGINAL),
    *_side(_REPLY),
    ((_ORIGINAL, _PROTO, _NUMBER),),
    ((_MARK,),),
    ((_ZONE,), (_ORIGINAL, _TUPLE_ZONE)),
    ((_STATUS,),),
    ((_TIMEOUT,),),
    ((_ID,),),
    ((_PROTOINFO, 1, 1),),  # the TCP state
    ((_ORIGINAL, _PROTO, _ICMP_TYPE), (_ORIGINAL, _PROTO, _ICMPV6_TYPE)),
    ((_ORIGINAL, _PROTO, _ICMP_CODE), (_ORIGINAL, _PROTO, _ICMPV6_CODE)),
    *(((side, counter),) for counter in (1, 2) for side in (_COUNTED_ORIGINAL, _COUNTED_REPLY)),  # packets, bytes
)
_OPTIONAL = 14  # from here on a value that is absent is None, before it is 0
_KNOWN = {path for paths in _VALUES for path in paths}
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where everything stands in messages of one shape. A message has it if `mask` leaves `headers` of its integer."""

    mask: int
    headers: int
    values: struct.Struct
    ordered: Callable[
        [tuple[Any, ...]], tuple[Any, ...]
    ]  # puts what `values` gave, then 0 and None, in order of _VALUES


def _attributes(message: memoryview, start: int, end: int, path: _Path = ()) -> Iterator[tuple[_Path, int, int]]:
    """Yield (path, start, end) of the content of every attribute, those that hold others before what they hold."""
    for kind, first, last in spans(message, start, end):
        here = (*path, kind)
        yield here, first, last
        if here in _NESTS:
            yield from _attributes(message, first, last, here)


def _shape(message: memoryview) -> _Shape:
    mask, values = bytearray(len(message)), [">"]
    places: dict[_Path, int] = {}
    read = 0
    for path, start, end in _attributes(message, HEADER_SIZE + _FAMILY_SIZE, len(message)):
        mask[start - 4 : start] = b"\xff\xff\xff\xff"
        if path in _KNOWN:
            is_address = path[:-1] in ((_ORIGINAL, _IP), (_REPLY, _IP))
            values.append(f"{start - read}x" + (f"{end - start}s" if is_address else _FORMATS[end - start]))
            read = end
            places[path] = len(places)
    order = [
        next((places[path] for path in paths if path in places), len(places) + (number >= _OPTIONAL))
        for number, paths in enumerate(_VALUES)
    ]
    headers = int.from_bytes(mask) & int.from_bytes(message)
    return _Shape(int.from_bytes(mask), headers, struct.Struct("".join(values)), itemgetter(*order))


class _Addresses(dict[bytes, Address]):
    """Each address once: a dump repeats few of them very often."""

    def __missing__(self, packed: bytes) -> Address:
        address = self[packed] = (IPv4Address if len(packed) == 4 else IPv6Address)(int.from_bytes(packed))
        return address


class Decoder:
    """Reads the messages of one dump; remembers their shapes and addresses."""

    def __init__(self) -> None:
        self._shapes: dict[int, list[_Shape]] = {}
        self._addresses = _Addresses()

    def flow(self, message: memoryview) -> Flow:
        """Return the flow that a message of a dump describes."""
        values = self._values(message)
        src, src_port, dst, dst_port, back_src, back_src_port, back_dst, back_dst_port = values[:8]
        protocol, mark, zone, status, timeout_s, identity, state, kind, code, sent, got, sent_b, got_b = values[8:]
        known = self._addresses
        return Flow(
            protocol=protocol,
            original=Endpoints(src=known[src], src_port=src_port, dst=known[dst], dst_port=dst_port),
            reply=Endpoints(src=known[back_src], src_port=back_src_port, dst=known[back_dst], dst_port=back_dst_port),
            mark=mark,
            zone=zone,
            status=status,
            timeout_s=timeout_s,
            tcp_state=None if state is None else _TCP_STATES[state],
            icmp=None if kind is None else kind << 8 | code,
            packets=None if sent is None else sent + got,
            bytes=None if sent_b is None else sent_b + got_b,
            id=identity,
        )

    def tally(self, messages: Iterable[memoryview]) -> dict[tuple[Address, int], int]:
        """Return how many flows there are of each (source that the other end sees, protocol): no flow is built."""
        counts = Counter(map(itemgetter(6, 8), map(self._values, messages)))
        return {(self._addresses[seen], protocol): number for (seen, protocol), number in counts.items()}

    def _values(self, message: memoryview) -> tuple[Any, ...]:
        """Return what stands in the places of `_VALUES`."""
        shapes = self._shapes.setdefault(len(message), [])
        number = int.from_bytes(message)
        for shape in shapes:
            if number & shape.mask == shape.headers:
                break
        else:
            shape = _shape(message)
            shapes.append(shape)
        return shape.ordered((*shape.values.unpack_from(message), 0, None))


def dump_request(*, mark: int | None, mask: int | None, version: int | None) -> bytes:
    """Return the request for entries of an IP version (None: both) whose mark under `mask` is `mark` (None: any)."""
    wanted = b""
    if mark is not None:
        bits = 0xFFFFFFFF if mask is None else mask
        wanted = attr(_MARK, struct.pack(">I", mark & bits)) + attr(_MARK_MASK, struct.pack(">I", bits))
    return pack(_GET, 0, _family(_FAMILY[version]) + wanted)


def delete_request(flow: Flow) -> bytes:
    """Return the request that deletes exactly this entry: its tuple in its zone, and its id, which no successor has."""
    return pack(
        _DELETE,
        0,
        _family(_FAMILY[flow.version])
        + _tuple(flow)
        + (attr(_ZONE, struct.pack(">H", flow.zone)) if flow.zone else b"")
        + (attr(_ID, struct.pack(">I", flow.id)) if flow.id else b""),
    )


def stats_request() -> bytes:
    """Return the request for how full the table is; `stats` reads the answer."""
    return pack(_GET_STATS, 0, _family(socket.AF_UNSPEC))


def stats(message: memoryview) -> tuple[int, int]:
    """Return (entries, most entries that the kernel takes)."""
    found = dict(walk(message[HEADER_SIZE + _FAMILY_SIZE :]))
    return int.from_bytes(found[_STATS_ENTRIES]), int.from_bytes(found[_STATS_LIMIT])


def _family(family: int) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def _tuple(flow: Flow) -> bytes:
    sent = flow.original
    source, destination = (_V4_SRC, _V4_DST) if flow.version == 4 else (_V6_SRC, _V6_DST)
    if flow.icmp is None:
        inner = attr(_SRC_PORT, struct.pack(">H", sent.src_port)) + attr(_DST_PORT, struct.pack(">H", sent.dst_port))
    else:
        kinds = (_ICMP_TYPE, _ICMP_CODE, _ICMP_ID) if flow.version == 4 else (_ICMPV6_TYPE, _ICMPV6_CODE, _ICMPV6_ID)
        contents = (bytes([flow.icmp >> 8]), bytes([flow.icmp & 0xFF]), struct.pack(">H", sent.src_port))
        inner = b"".join(attr(kind, content) for kind, content in zip(kinds, contents, strict=True))
    return nest(
        _ORIGINAL,
        nest(_IP, attr(source, sent.src.packed), attr(destination, sent.dst.packed)),
        nest(_PROTO, attr(_NUMBER, bytes([flow.protocol])), inner),
    )
