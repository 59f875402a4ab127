"""Routes on their way to the kernel: one request for each, with all its legs.

An IPv4 route of several next hops is one entry, which is replaced whole: who deletes one leg by its router deletes the
entry when that leg is the first, and nothing when it is not. IPv6 keeps an entry for each leg, and shows them as one;
replacing exchanges them all, and a deletion that names no router takes them all (Linux 6.18). So a route is always
written with all its legs, and dropped as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from outgate.model.net import Discard, NextHop, Route
from outgate.model.state import Resource
from outgate.systems.kernel import messages, nexthops
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.outbox import Outbox
from outgate.systems.kernel.parse import own_legs


@dataclass(frozen=True, slots=True)
class Spelling:
    """How routes are spelled out: next hops that are nexthop objects, and the legs of routes of several next hops.

    Those go with their first leg, in whose name the kernel answers.
    """

    objects: Mapping[NextHop, int]
    several: Mapping[Resource, Sequence[Route]]

    def is_said(self, route: Route) -> bool:
        """Whether the request of another leg says this one too."""
        return bool(route.weight) and route not in self.several


def spell(outbox: Outbox, cache: Cache, routes: Sequence[Route]) -> Spelling:
    """Return how these routes are to be spelled out, with the nexthop objects made that they need."""
    objects = nexthops.prepare(outbox, cache, routes)
    cache.hops_made.update(route.hop for route in routes)
    return Spelling(objects, by_first_leg(routes))


def by_first_leg(routes: Iterable[Route]) -> Mapping[Resource, Sequence[Route]]:
    """Return the legs of routes of several next hops, by the leg that comes first."""
    by_slot: dict[Hashable, list[Route]] = {}
    for route in routes:
        if route.weight:
            by_slot.setdefault(route.slot, []).append(route)
    return {legs[0]: legs for legs in by_slot.values()}


def put(outbox: Outbox, cache: Cache, route: Route, spelling: Spelling, *, instead_of: int = 0) -> None:
    """Let a route wait for its packet, unless the request of another leg says it. `instead_of` counts the entries of
    ours that it takes the place of: the last one of them is replaced.
    """
    if spelling.is_said(route):
        return
    legs = spelling.several.get(route, (route,))
    gone = [leg.link for leg in legs if leg.link is not None and leg.link not in cache.indexes]
    if gone:
        fail(outbox, route, f"there is no link {gone[0]}", spelling)
        return
    outbox.put(route, *[messages.delete_route(route)] * (instead_of - 1))
    outbox.put(route, messages.new_route(route, _hop(cache, legs, spelling), replace=instead_of > 0))


def fail(outbox: Outbox, resource: Resource, words: str, spelling: Spelling) -> None:
    """Remember why a resource was not written; of a route each leg."""
    for one in spelling.several.get(resource, (resource,)):
        outbox.fail(one, words)


def standing(cache: Cache, resources: Iterable[Resource]) -> Counter[Hashable]:
    """Return how many entries of ours stand in the slots of these routes: one, or more where somebody put others."""
    slots = {one.slot for one in resources if isinstance(one, Route)}
    if not slots:
        return Counter()
    entries = (own_legs(found)[:1] for shelf in cache.routes.values() for found in shelf.values)
    return Counter(leg.slot for entry in entries for leg in entry if leg.slot in slots)


def _hop(cache: Cache, legs: Sequence[Route], spelling: Spelling) -> bytes:
    """Return the attributes that say where a route leads."""
    route = legs[0]
    if len(legs) > 1:
        return messages.several_hops((cache.indexes[leg.link], leg) for leg in legs if leg.link is not None)
    if isinstance(route.hop, Discard):
        return b""
    if route.hop in spelling.objects:
        return messages.object_hop(spelling.objects[route.hop])
    return messages.link_hop(cache.indexes[route.hop.link], route)
