"""Links that answer for addresses which stand on no link.

Others take every address of a link for the machine's own: they publish it, serve ports on it, name the machine by it.
So an egress IP gets no address; the kernel answers for it nevertheless, whether we run or not.

IPv4: a route of type local is enough, because `arp_process` looks no further than the table `local`, unless arp_ignore
is set: then it wants an address. IPv6: a proxy neighbour entry is what `ndisc_recv_ns` looks for; it asks for
proxy_ndp and forwarding on the link, and answers up to 0.8 s late unless proxy_delay is 0 (measured: 0.1 ms then). A
local route stands beside it: without one the kernel forwards a neighbour's question whether we are still there, which
is asked by unicast, and the neighbour gives up after three of them (measured, Linux 6.18). As for any address, other
links of the machine on the same wire answer for IPv4 too.

Ours are told by protocol, and the routes by our metric as well, so that a local route of somebody else has another
place. The kernel would let a proxy entry of somebody else be overwritten (`neigh_add` knows no "exclusively"), so they
are looked at first. What answers, answers on the machine's behalf: who calls the address reaches the machine's own
programs, unless a firewall has something against it.

Of a link that goes down the kernel forgets what is IPv6, and of one that loses its last IPv4 address the routes; the
next reading shows it. A link in a VRF uses the table `local` too: its rule comes first.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from socket import if_indextoname

from outgate.model.net import ALL_LINKS, OWN_METRIC, OWN_PROTOCOL, Address, Answered, LinkName
from outgate.model.state import Failure
from outgate.systems.kernel import sysctl, uapi
from outgate.systems.kernel.messages import FAMILY, RTMSG
from outgate.systems.kernel.outbox import Boundary, Outbox, no_boundary
from outgate.systems.netlink import (
    CREATE,
    EXCL,
    REPLACE,
    DumpInterrupted,
    NetlinkSocket,
    attr,
    pack,
    payloads,
    spans,
)

_TRIES = 5  # as in `read`
_NDMSG = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type
_U32 = struct.Struct("=I")
_GONE = {errno.ENODEV, errno.ESRCH, errno.ENOENT}
_SWITCHES = {"conf/{}/proxy_ndp": 1, "neigh/{}/proxy_delay": 0}  # of IPv6, on a link with proxy entries of ours
_STOCK_DELAY = 80  # hundredths of a second, what the kernel itself begins with

_Place = tuple[int, Address]  # ifindex and address

_DUMP_PROXIES = pack(uapi.RTM_GETNEIGH, 0, _NDMSG.pack(uapi.AF_INET6, 0, 0, uapi.NTF_PROXY, 0))
_DUMP_ROUTES = tuple(  # filtered by the kernel: ours are few, whatever else stands there
    pack(
        uapi.RTM_GETROUTE,
        0,
        RTMSG.pack(family, 0, 0, 0, uapi.RT_TABLE_LOCAL, OWN_PROTOCOL, 0, uapi.RTN_LOCAL, 0),
    )
    for family in FAMILY.values()
)


@dataclass(frozen=True, slots=True)
class _Standing:
    """The local routes that are ours, and all proxy entries of IPv6 with the protocol of who made them."""

    routes: frozenset[_Place]
    proxies: Mapping[_Place, int]
    own_proxies: frozenset[_Place]
    routed: frozenset[Address]


def read(socket: NetlinkSocket) -> frozenset[Answered]:
    """Return what links of this thread's namespace answer for by our doing; each says what keeps it from answering.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    standing = _standing(socket)
    names: dict[int, LinkName] = {}
    for index in {index for index, _ in standing.routes | standing.own_proxies}:
        try:
            names[index] = LinkName(if_indextoname(index))
        except OSError:  # the link went meanwhile, and with it what stood there
            continue
    faults = {(index, version): _link_faults(name, version) for index, name in names.items() for version in (4, 6)}
    return frozenset(
        Answered(
            link=names[index],
            address=address,
            fault="; ".join([*faults[index, address.version], *_missing(standing, (index, address))]),
        )
        for index, address in standing.routes | standing.own_proxies
        if index in names
    )


def write(
    socket: NetlinkSocket,
    indexes: Mapping[LinkName, int],
    make: Sequence[Answered],
    drop: Sequence[Answered],
    boundary: Boundary = no_boundary,
) -> tuple[Failure, ...]:
    """Make, then drop; return what could not be done, with the reason. `indexes` are those of all links by name.

    An address moves from link to link without a gap when it is made on one and dropped on the other in one call.

    Raises:
        NotReady, Unreachable: as `read`; how much was written is unknown.
    """
    outbox = Outbox(socket, boundary)
    standing = _standing(socket)
    for wanted in make:
        index = indexes.get(wanted.link)
        words = f"there is no link {wanted.link}" if index is None else _obstacle(standing, wanted, index)
        if index is None or words:
            outbox.fail(wanted, words)
        else:
            outbox.put(wanted, *_making(standing, index, wanted.address))
    for refusal in outbox.send("answers made"):
        taken = ": a local route that is not ours stands in its place" if refusal.errno == errno.EEXIST else ""
        outbox.fail(refusal.resource, refusal.words + taken)
    for made in make:
        if made.address.version == 6 and made not in outbox.failures and (words := _switch_on(made.link)):
            outbox.fail(made, words)
    places = {one: (indexes[one.link], one.address) for one in drop if one.link in indexes}
    for dropped, place in places.items():
        outbox.put(dropped, *_dropping(standing, place))
    for refusal in outbox.send("answers dropped"):
        if refusal.errno not in _GONE:
            outbox.fail(refusal.resource, refusal.words)
    quiet = {one.link: place[0] for one, place in places.items() if place in standing.own_proxies}
    if quiet:
        _switch_off(socket, quiet)
    return outbox.result()


def _obstacle(standing: _Standing, wanted: Answered, index: int) -> str:
    """Return why a link can not answer for an address, "" if it can."""
    link, address = wanted.link, wanted.address
    if words := _refusal(link, address.version):
        return words
    maker = standing.proxies.get((index, address), OWN_PROTOCOL)
    if maker == OWN_PROTOCOL:
        return ""
    free = f"ip -6 neigh del proxy {address} dev {link}"
    return f"a proxy entry that is not ours stands in its place, of protocol {maker}: {free}"


def _refusal(link: LinkName, version: int) -> str:
    """Return why the kernel answers on a link for none but addresses that stand there, "" if it does."""
    if version == 6:
        if sysctl.value_of(f"ipv6/conf/{link}/forwarding"):
            return ""
        return f"net.ipv6.conf.{link}.forwarding is not 1, so the kernel answers for no proxy entry: set it"
    for scope in (link, ALL_LINKS):
        value = sysctl.value_of(f"ipv4/conf/{scope}/arp_ignore")
        if value:
            return (
                f"net.ipv4.conf.{scope}.arp_ignore is {value}, so {link} answers only for addresses that stand on a "
                f"link: set it to 0"
            )
    return ""


def _link_faults(link: LinkName, version: int) -> list[str]:
    """Return what keeps a link from answering for all that stands there."""
    faults = [words] if (words := _refusal(link, version)) else []
    for name, value in _SWITCHES.items() if version == 6 else ():
        is_now = sysctl.value_of(f"ipv6/{name.format(link)}")
        faults += [] if is_now == value else [f"{name.rpartition('/')[2]} is {is_now}"]
    return faults


def _missing(standing: _Standing, place: _Place) -> Iterator[str]:
    """Yield what is not there of an answer for IPv6, which is two things."""
    if place[1].version == 6 and place not in standing.own_proxies:
        yield "no proxy entry"
    if place not in standing.routes:
        yield "no local route"


def _making(standing: _Standing, index: int, address: Address) -> Iterator[bytes]:
    """Yield the requests that are missing. A route of ours that leads to another link is replaced, without a gap."""
    if (index, address) not in standing.routes:
        flags = CREATE | (REPLACE if address in standing.routed else EXCL)
        yield pack(uapi.RTM_NEWROUTE, flags, _route(index, address))
    if address.version == 6 and (index, address) not in standing.own_proxies:
        yield pack(uapi.RTM_NEWNEIGH, CREATE | EXCL, _proxy(index, address))


def _dropping(standing: _Standing, place: _Place) -> Iterator[bytes]:
    if place in standing.own_proxies:
        yield pack(uapi.RTM_DELNEIGH, 0, _proxy(*place))
    if place in standing.routes:
        yield pack(uapi.RTM_DELROUTE, 0, _route(*place))


def _switch_on(link: LinkName) -> str:
    """Let a link answer for the proxy entries on it; return "", or the kernel's words."""
    for name, value in _SWITCHES.items():
        key = f"ipv6/{name.format(link)}"
        if sysctl.value_of(key) != value and (words := sysctl.put(key, value)):
            return words
    return ""


def _switch_off(socket: NetlinkSocket, links: Mapping[LinkName, int]) -> None:
    """Let links on which no proxy entry stands any more, of anybody, be as they were before ours came."""
    occupied = {index for index, _ in _standing(socket).proxies}
    delay = sysctl.value_of("ipv6/neigh/default/proxy_delay")  # shown in the first namespace only
    for link, index in links.items():
        if index not in occupied:
            sysctl.put(f"ipv6/conf/{link}/proxy_ndp", 0)
            sysctl.put(f"ipv6/neigh/{link}/proxy_delay", _STOCK_DELAY if delay is None else delay)


def _standing(socket: NetlinkSocket) -> _Standing:
    for _ in range(_TRIES - 1):
        try:
            return _dump(socket)
        except DumpInterrupted:
            continue
    return _dump(socket)


def _dump(socket: NetlinkSocket) -> _Standing:
    routes = (place for request in _DUMP_ROUTES for place in map(_route_place, _payloads(socket, request)))
    proxies = dict(map(_proxy_place, _payloads(socket, _DUMP_PROXIES)))
    own = frozenset(place for place, protocol in proxies.items() if protocol == OWN_PROTOCOL)
    found = frozenset(place for place in routes if place is not None)
    return _Standing(found, proxies, own, frozenset(address for _, address in found))


def _payloads(socket: NetlinkSocket, request: bytes) -> Iterable[bytes]:
    return (payload for datagram in socket.datagrams(request) for payload in payloads(datagram))


def _route_place(payload: bytes) -> _Place | None:
    """Return where a route of ours stands; None for what a kernel that does not filter shows beside."""
    _, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(payload)
    found = {kind: payload[start:end] for kind, start, end in spans(payload, RTMSG.size)}
    metric, dst = found.get(uapi.RTA_PRIORITY), found.get(uapi.RTA_DST)
    if (table, protocol, kind) != (uapi.RT_TABLE_LOCAL, OWN_PROTOCOL, uapi.RTN_LOCAL) or dst is None:
        return None
    if length != 8 * len(dst) or metric is None or _U32.unpack(metric)[0] != OWN_METRIC or uapi.RTA_OIF not in found:
        return None
    return _U32.unpack(found[uapi.RTA_OIF])[0], _address(dst)


def _proxy_place(payload: bytes) -> tuple[_Place, int]:
    _, index, _, _, _ = _NDMSG.unpack_from(payload)
    found = {kind: payload[start:end] for kind, start, end in spans(payload, _NDMSG.size)}
    return (index, _address(found[uapi.NDA_DST])), found.get(uapi.NDA_PROTOCOL, b"\0")[0]


def _route(index: int, address: Address) -> bytes:
    family, length = FAMILY[address.version], address.max_prefixlen
    scope = uapi.RT_SCOPE_HOST if address.version == 4 else uapi.RT_SCOPE_UNIVERSE
    place = RTMSG.pack(family, length, 0, 0, uapi.RT_TABLE_LOCAL, OWN_PROTOCOL, scope, uapi.RTN_LOCAL, 0)
    numbers = attr(uapi.RTA_OIF, _U32.pack(index)) + attr(uapi.RTA_PRIORITY, _U32.pack(OWN_METRIC))
    return place + attr(uapi.RTA_DST, address.packed) + numbers


def _proxy(index: int, address: Address) -> bytes:
    place = _NDMSG.pack(FAMILY[address.version], index, uapi.NUD_PERMANENT, uapi.NTF_PROXY, 0)
    return place + attr(uapi.NDA_DST, address.packed) + attr(uapi.NDA_PROTOCOL, bytes([OWN_PROTOCOL]))


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
