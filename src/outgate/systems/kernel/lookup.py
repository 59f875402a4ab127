"""Asking the kernel where it would send a packet: the oracle beside which a trace is held.

Source: `inet_rtm_getroute` and `inet6_rtm_getroute` of the kernel, with RTM_F_FIB_MATCH: the answer is the entry of
the table that decided, not the cached result. Policy rules are followed, nftables is not.

Of IPv6 routes by next hop objects it may name another one of the same object: the kernel keeps what it answers with the
object's next hop, for each CPU (measured on 6.18: two prefixes by one object, asked for in turn on one CPU).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from outgate.model.net import Address, Discard, LinkName, Mark, Route
from outgate.systems.kernel import uapi
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.messages import get_route
from outgate.systems.kernel.parse import route_of
from outgate.systems.netlink import HEADER_SIZE, Denied, NetlinkSocket

_UNMARKED = Mark(0)
_DISCARDS = {
    errno.EACCES: Discard.PROHIBIT,
    errno.ENETUNREACH: Discard.UNREACHABLE,
    errno.EHOSTUNREACH: Discard.UNREACHABLE,
    errno.EINVAL: Discard.BLACKHOLE,
    errno.EXDEV: Discard.BLACKHOLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A packet that stands before the routing decision. Without `incoming` the machine itself sends it."""

    dst: Address
    src: Address | None = None
    mark: Mark = _UNMARKED
    incoming: LinkName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of it: a route carries it, or it is for the machine itself, or it is discarded.

    `discard` is what its sender learns. A packet whose reverse path does not hold is dropped as silently as by a
    blackhole, and newer kernels give both the same `errno` (EINVAL; before, EXDEV told the former).
    """

    route: Route | None = None
    local: bool = False
    discard: Discard | None = None
    errno: int = 0


def lookup(socket: NetlinkSocket, cache: Cache, question: Question) -> Answer:
    """Return the kernel's own decision for one packet. `cache` must hold a reading, for the names of links.

    Raises:
        KeyError: there is no link of the name in `question.incoming`.
        Unreachable: netlink does not answer.
    """
    incoming = cache.indexes[question.incoming] if question.incoming else 0
    request = get_route((question.dst, question.src), question.mark, incoming)
    try:
        message = socket.ask(request)[0]
    except Denied as refusal:
        return Answer(discard=_DISCARDS.get(refusal.errno), errno=refusal.errno)
    kind, route = route_of(bytes(message[HEADER_SIZE:]), cache.names)
    discard = route.hop if route is not None and isinstance(route.hop, Discard) else None
    return Answer(route=route, local=kind == uapi.RTN_LOCAL, discard=discard)
