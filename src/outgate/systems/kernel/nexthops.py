"""Nexthop objects: how routes over many gateways stay cheap to write.

A route that spells out its gateway costs the kernel a search among all other gateways: 50,000 routes over 4,000
gateways took 2.2 s, and 0.1 s as references to 4,000 nexthop objects (Linux 6.18). Below a few dozen gateways there is
no difference, so small machines show plain routes. For the model a route is the same value either way.

The number space is shared with others (FRR counts up from 1), so ours have a range of their own. Deleting an object
that is in use silently deletes its routes, and replacing one walks the whole table; so objects are never changed, and
deleted only when no route uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

from outgate.model.net import OWN_PROTOCOL, NextHop, Route, Via
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.messages import delete_nexthop, new_nexthop
from outgate.systems.kernel.outbox import Outbox
from outgate.systems.kernel.parse import SeenNexthop, all_legs

FIRST_NUMBER, LAST_NUMBER = 0x6F000000, 0x6FFFFFFF
GATEWAYS = 64  # routes over more gateways than this use objects


def prepare(outbox: Outbox, cache: Cache, routes: Iterable[Route]) -> dict[NextHop, int]:
    """Return the objects that routes shall use, making those that are missing; other routes spell out their hop, and
    those of several next hops always do.
    """
    wanted = {route.hop: route for route in routes if isinstance(route.hop, Via) and not route.weight}
    if not cache.has_nexthops or not wanted:
        return {}
    numbers: dict[NextHop, int] = {seen.hop: seen.number for seen in _ours(cache) if seen.hop is not None}
    if len(wanted.keys() | _gateways(cache)) <= GATEWAYS:
        return numbers
    missing = {hop: route for hop, route in wanted.items() if hop not in numbers and hop.link in cache.indexes}
    fresh = dict(zip(missing, _free(cache), strict=False))
    for hop, number in fresh.items():
        outbox.put(missing[hop], new_nexthop(number, cache.indexes[hop.link], hop.address))
    refused = {refusal.resource for refusal in outbox.send("nexthop objects")}  # their routes spell out the hop
    for hop, number in fresh.items():
        if missing[hop] not in refused:
            numbers[hop] = number
            cache.names.objects[number] = SeenNexthop(number=number, protocol=OWN_PROTOCOL, hop=hop)
    return numbers


def sweep(outbox: Outbox, cache: Cache, dropped: frozenset[Route]) -> None:
    """Delete the objects that no route uses. Those that routes have left by this very write go with the next one."""
    ours = list(_ours(cache))
    if not ours:
        return
    used: dict[int, NextHop] = {id(hop): hop for hop in cache.hops_made}
    for shelf in cache.routes.values():
        for found in shelf.values:
            used.update((id(leg.hop), leg.hop) for leg in all_legs(found) if leg not in dropped)
    in_use = set(used.values())
    unused = [seen for seen in ours if seen.hop not in in_use]
    if unused:
        outbox.socket.batch(delete_nexthop(seen.number) for seen in unused)
        for seen in unused:
            cache.names.objects.pop(seen.number, None)
        outbox.boundary("unused nexthop objects")


def _ours(cache: Cache) -> Iterator[SeenNexthop]:
    for seen in cache.names.objects.values():
        if seen.protocol == OWN_PROTOCOL and FIRST_NUMBER <= seen.number <= LAST_NUMBER:
            yield seen


def _gateways(cache: Cache) -> set[NextHop]:
    """Return the next hops of our routes. Equal ones of a reading are one object, and objects are told quicker."""
    hops = {
        id(found.hop): found.hop
        for shelf in cache.routes.values()
        for found in shelf.values
        if isinstance(found, Route)
    }
    return set(hops.values())


def _free(cache: Cache) -> Iterator[int]:
    """Yield numbers above all that are taken in our range, whoever took them."""
    taken = [number for number in cache.names.objects if FIRST_NUMBER <= number <= LAST_NUMBER]
    return count(max(taken, default=FIRST_NUMBER - 1) + 1)
