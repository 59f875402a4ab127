"""Reading all route tables of a node, to look at what others have programmed. Nothing is written or remembered."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

from outgate.model.host_table import HostTables
from outgate.model.net import Route
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.messages import DUMP_ROUTES
from outgate.systems.kernel.parse import all_legs, parse_route
from outgate.systems.kernel.read import read
from outgate.systems.kernel.uapi import NETLINK_ROUTE
from outgate.systems.netlink import DumpInterrupted, NetlinkSocket, payloads

_TRIES = 5


def read_tables() -> HostTables:
    """Return links, rules and the routes of every table but `local`, in this thread's network namespace.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    with NetlinkSocket(NETLINK_ROUTE) as socket:
        for _ in range(_TRIES - 1):
            try:
                return _read(socket)
            except DumpInterrupted:
                continue
        return _read(socket)


def _read(socket: NetlinkSocket) -> HostTables:
    cache = Cache()
    facts = read(socket, cache).facts
    parse = partial(parse_route, names=cache.names, every_table=True)
    routes: set[Route] = set()
    for request in DUMP_ROUTES.values():
        slot: Hashable = None
        for datagram in socket.datagrams(request):
            for legs in (all_legs(parse(payload)) for payload in payloads(datagram)):
                if legs and slot != (slot := legs[0].slot):  # of two in one slot the kernel takes the first
                    routes.update(legs)
    return HostTables(links=facts.links, routes=frozenset(routes), rules=facts.rules, settings=facts.settings)
