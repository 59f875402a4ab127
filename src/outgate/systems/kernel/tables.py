"""Reading all route tables of a node, to look at what others have programmed. Nothing is written or remembered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
        found = (parse(payload) for datagram in socket.datagrams(request) for payload in payloads(datagram))
        routes.update(_reachable(filter(None, map(all_legs, found))))
    return HostTables(links=facts.links, routes=frozenset(routes), rules=facts.rules, settings=facts.settings)


def _reachable(dumped: Iterable[tuple[Route, ...]]) -> Iterator[Route]:
    """Yield the legs of routes in the order of their dump, without those that no packet takes by their link.

    Two entries in one slot are told one after the other (appended ones, or defaults that routers advertise on two
    links), and the kernel goes by the first. The second is left for who asks about its link alone.
    """
    held: list[Route] = []
    for legs in dumped:
        if not held or held[0].slot != legs[0].slot:
            held = list(legs)
            yield from legs
            continue
        links = {one.link for one in held}
        if None not in (*links, legs[0].link):  # behind one that discards nothing comes, nor does it behind others
            more = [leg for leg in legs if leg.link not in links]
            held += more
            yield from more
