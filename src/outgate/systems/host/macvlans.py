"""Macvlans of any owner, with their unicast traffic, by netlink.

/sys/class/net would say the same, but of the namespace that it was mounted in. Sources: linux/if_link.h (struct
rtnl_link_stats64), `drivers/net/macvlan.c`: `multicast` counts broadcasts as well, which every macvlan of a NIC gets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from outgate.model.host import Macvlan
from outgate.model.net import LinkName, Mac
from outgate.systems.netlink import HEADER_SIZE, DumpInterrupted, NetlinkSocket, pack, walk

_ROUTE = 0  # NETLINK_ROUTE
_GET_LINK = 18
_MAC, _NAME, _PARENT, _STATISTICS, _KIND = 1, 3, 5, 23, 18
_KIND_NAME = 1
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_INT = struct.Struct("=i")
_DUMP = pack(_GET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0))
_PLACES = (0, 8)  # of rx_packets and multicast in rtnl_link_stats64
_COUNT = struct.Struct("=Q")


def macvlans() -> tuple[Macvlan, ...]:
    """Return every macvlan of the calling thread's network namespace, by name.

    Raises:
        Unreachable: netlink does not answer.
        NotReady: links came or went while they were read.
    """
    seen = _links()
    names = {index: name for index, name, _, _ in seen}
    found = (_macvlan(name, attributes, names) for _, name, kind, attributes in seen if kind == b"macvlan")
    return tuple(sorted(found, key=lambda link: link.name))


def received(links: Iterable[LinkName]) -> dict[LinkName, int]:
    """Return how many unicast packets each of these macvlans has received; what is none or gone is left out.

    Raises:
        Unreachable: netlink does not answer.
        NotReady: links came or went while they were read.
    """
    wanted = set(links)
    return {link.name: link.packets for link in macvlans() if link.name in wanted} if wanted else {}


def _links() -> list[tuple[int, LinkName, bytes, dict[int, bytes]]]:
    """Dump all links; when they come and go meanwhile, dump them again, twice at most."""
    with NetlinkSocket(_ROUTE) as kernel:
        for _ in range(2):
            try:
                return [_parse(message) for message in kernel.dump(_DUMP)]
            except DumpInterrupted:
                continue
        return [_parse(message) for message in kernel.dump(_DUMP)]


def _parse(message: memoryview) -> tuple[int, LinkName, bytes, dict[int, bytes]]:
    _, _, index, _, _ = _LINK.unpack_from(message, HEADER_SIZE)
    attributes = {kind: bytes(content) for kind, content in walk(message[HEADER_SIZE + _LINK.size :])}
    nested = dict(walk(memoryview(attributes.get(_KIND, b""))))
    name = attributes[_NAME].rstrip(b"\0").decode(errors="backslashreplace")
    return index, LinkName(name), bytes(nested.get(_KIND_NAME, b"")).rstrip(b"\0"), attributes


def _macvlan(name: LinkName, attributes: dict[int, bytes], names: dict[int, LinkName]) -> Macvlan:
    parent = _INT.unpack(attributes[_PARENT])[0] if _PARENT in attributes else 0
    received, multicast = (_COUNT.unpack_from(attributes[_STATISTICS], 8 * place)[0] for place in _PLACES)
    return Macvlan(
        name=name,
        parent=names.get(parent),
        mac=Mac(attributes[_MAC].hex(":")),
        packets=received - multicast,
    )
