"""What another program made becomes ours, in place: its addresses get our label, its routes and links go when ours
stand.

An address is never removed and added again: replacing one that stands only changes what is recorded about it
(net/ipv4/devinet.c, inet_rtm_newaddr; net/ipv6/addrconf.c, inet6_addr_modify). A route is deleted by its protocol as
well, so that ours of the same prefix, which has another protocol, can not be hit.
"""

from __future__ import annotations

import errno
import socket as sockets
import struct
from collections.abc import Iterable

from outgate.model.net import OWN_PROTOCOL, Address, LinkName, Route, Via
from outgate.systems.netlink import ACK, REPLACE, Denied, NetlinkSocket, attr, pack

_ROUTE = 0  # NETLINK_ROUTE
_DELETE_LINK, _NEW_ADDRESS, _DELETE_ROUTE = 17, 20, 25
_NAME = 3  # IFLA_IFNAME
_IFINFOMSG = struct.Struct("=BxHiII")
_ADDRESS, _LOCAL, _CACHE, _FLAGS, _PROTOCOL = 1, 2, 6, 8, 11  # IFA_*
_NODAD, _NO_PREFIX_ROUTE = 0x2, 0x200
_FOREVER = 0xFFFFFFFF
_IFADDRMSG, _RTMSG = struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_LIFETIMES = struct.Struct("=IIII")  # struct ifa_cacheinfo: preferred, valid, created, updated
_DST, _OUT, _GATEWAY, _METRIC = 1, 4, 5, 6  # RTA_*
_MAIN, _NOWHERE, _UNICAST = 254, 255, 1
SCRIPT_PROTOCOL = 3  # RTPROT_BOOT: what `ip route` writes when nobody tells it who asks


def label(addresses: Iterable[tuple[LinkName, Address]]) -> None:
    """Make our label stand on host addresses (/32, /128) that somebody else has set; they stay in use meanwhile.

    IPv6 ones become deprecated, as ours are, so that the machine does not pick them as its own source. A kernel before
    5.18 keeps no label and ignores it: there the ledger alone says whose they are. An IPv4 address that went meanwhile
    is set again.

    Raises:
        Refused: an IPv6 address is gone.
        Unreachable: netlink does not answer.
    """
    with NetlinkSocket(_ROUTE) as kernel:
        for link, address in addresses:
            kernel.ask(_labelled(link, address))


def remove_routes(routes: Iterable[Route]) -> int:
    """Delete main-table routes that the script made, and return how many were still there.

    Raises:
        Refused: the kernel keeps one.
        Unreachable: netlink does not answer.
    """
    count = 0
    with NetlinkSocket(_ROUTE) as kernel:
        for route in routes:
            try:
                kernel.ask(_deletion(route))
                count += 1
            except Denied as refused:
                if refused.errno != errno.ESRCH:
                    raise
    return count


def remove_link(link: LinkName) -> str:
    """Delete a link that was handed over. Return "" when it is gone, else why it is not.

    Raises:
        Unreachable: netlink does not answer.
    """
    name = attr(_NAME, link.encode() + b"\0")
    with NetlinkSocket(_ROUTE) as kernel:
        try:
            kernel.ask(pack(_DELETE_LINK, ACK, _IFINFOMSG.pack(0, 0, 0, 0, 0) + name))
        except Denied as refused:
            return "" if refused.errno == errno.ENODEV else refused.words
    return ""


def _labelled(link: LinkName, address: Address) -> bytes:
    family = sockets.AF_INET if address.version == 4 else sockets.AF_INET6
    head = _IFADDRMSG.pack(family, address.max_prefixlen, 0, 0, sockets.if_nametoindex(link))
    words = [attr(_LOCAL, address.packed), attr(_ADDRESS, address.packed), attr(_PROTOCOL, bytes([OWN_PROTOCOL]))]
    if address.version == 6:
        words.append(attr(_FLAGS, _U32.pack(_NODAD | _NO_PREFIX_ROUTE)))
        words.append(attr(_CACHE, _LIFETIMES.pack(0, _FOREVER, 0, 0)))
    return pack(_NEW_ADDRESS, ACK | REPLACE, head + b"".join(words))


def _deletion(route: Route) -> bytes:
    family = sockets.AF_INET if route.dst.version == 4 else sockets.AF_INET6
    head = _RTMSG.pack(family, route.dst.prefixlen, 0, 0, _MAIN, SCRIPT_PROTOCOL, _NOWHERE, _UNICAST, 0)
    words = [attr(_DST, route.dst.network_address.packed), attr(_METRIC, _U32.pack(route.metric))]
    if isinstance(route.hop, Via):
        words.append(attr(_GATEWAY, route.hop.address.packed))
        words.append(attr(_OUT, _U32.pack(sockets.if_nametoindex(route.hop.link))))
    return pack(_DELETE_ROUTE, ACK, head + b"".join(words))
