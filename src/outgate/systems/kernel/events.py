"""What changes in the kernel while nobody reads: notifications of rtnetlink, told as the parts that must be read anew.

Notifications are hints, never state. Some changes send none: the kernel deletes IPv4 routes silently when their link
goes down or their nexthop object goes away, so these two events ask for the routes as well; of the settings, only
forwarding, rp_filter and the like are told, and arp_ignore and arp_announce are seen by the periodic audit alone.
Neighbours are not listened to. Changes of nftables come by another netlink protocol and belong to that room.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from outgate.systems.kernel import uapi
from outgate.systems.kernel.messages import RTMSG
from outgate.systems.kernel.read import ALL_PARTS, Part
from outgate.systems.netlink import HEADER_SIZE, NetlinkSocket, Overrun, header

_GROUPS = (
    uapi.RTNLGRP_LINK,
    uapi.RTNLGRP_IPV4_IFADDR,
    uapi.RTNLGRP_IPV6_IFADDR,
    uapi.RTNLGRP_IPV4_ROUTE,
    uapi.RTNLGRP_IPV6_ROUTE,
    uapi.RTNLGRP_IPV4_RULE,
    uapi.RTNLGRP_IPV6_RULE,
    uapi.RTNLGRP_IPV4_NETCONF,
    uapi.RTNLGRP_IPV6_NETCONF,
    uapi.RTNLGRP_NEXTHOP,
)
_LINKS = frozenset({Part.LINKS, Part.ADDRESSES, Part.ROUTES})
_PARTS = {
    uapi.RTM_NEWLINK: _LINKS,
    uapi.RTM_DELLINK: _LINKS,
    uapi.RTM_NEWNETCONF: frozenset({Part.LINKS}),
    uapi.RTM_DELNETCONF: frozenset({Part.LINKS}),
    uapi.RTM_NEWADDR: frozenset({Part.ADDRESSES}),
    uapi.RTM_DELADDR: frozenset({Part.ADDRESSES}),
    uapi.RTM_NEWROUTE: frozenset({Part.ROUTES}),
    uapi.RTM_DELROUTE: frozenset({Part.ROUTES}),
    uapi.RTM_NEWNEXTHOP: frozenset({Part.ROUTES}),
    uapi.RTM_DELNEXTHOP: frozenset({Part.ROUTES}),
    uapi.RTM_NEWRULE: frozenset({Part.RULES}),
    uapi.RTM_DELRULE: frozenset({Part.RULES}),
}
_BUFFER = 8 * 1024 * 1024  # bytes: some 5,000 notifications of links may wait before an overrun


class Watch:
    """Listens in the network namespace of the thread that opened it, from the moment it is opened.

    Raises:
        Unreachable: netlink does not open.
    """

    def __init__(
        self,
        *,
        own_ports: Collection[int] = (),
        is_known: Callable[[bytes], bool] = lambda _: False,
        receive_buffer: int = _BUFFER,
    ) -> None:
        """Listen. Changes by the sockets of `own_ports` (`NetlinkSocket.port`) are our own, and not told; nor is what a
        notification about a link says when it `is_known` (`Cache.knows`).

        What follows from them in the kernel comes in the kernel's name and is told. So call `changed` before the
        reading that verifies a write: it drains what the write caused.
        """
        self._own_ports = frozenset(own_ports)
        self._is_known = is_known
        self._socket = NetlinkSocket(uapi.NETLINK_ROUTE, receive_buffer=receive_buffer)
        self._socket.subscribe(_GROUPS)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, readable when something may have changed."""
        return self._socket.fileno()

    def changed(self) -> frozenset[Part]:
        """Return the parts that were told since the last call, without blocking; all when notifications were lost."""
        parts: frozenset[Part] = frozenset()
        while True:
            try:
                for message in self._socket.events():
                    if not _told_by(message) <= parts:  # of 50,000 after a first start all but the first few
                        parts |= self._part(message)
                return parts
            except Overrun:
                parts = ALL_PARTS

    def _part(self, message: memoryview) -> frozenset[Part]:
        told = header(message)
        if told.port in self._own_ports:
            return frozenset()
        if told.kind == uapi.RTM_NEWLINK and self._is_known(bytes(message[HEADER_SIZE:])):
            return frozenset()
        if told.kind in (uapi.RTM_NEWROUTE, uapi.RTM_DELROUTE):
            table = RTMSG.unpack_from(message, HEADER_SIZE)[4]
            if table == uapi.RT_TABLE_LOCAL:  # follows from addresses, which are told themselves
                return frozenset()
        return _told_by(message)


def _told_by(message: memoryview) -> frozenset[Part]:
    """Return the parts that a message of this kind can concern."""
    return _PARTS.get(header(message).kind, frozenset())
