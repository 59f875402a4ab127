"""Reading the kernel: links, addresses, routes, rules and settings, split into theirs (facts) and ours (actual).

What is ours (see docs/ownership.md): routes by protocol and metric; rules by protocol; links by name and kind;
addresses by IFA_PROTO, or by the caller's record on kernels before 5.18, and all that stands on a link of ours; nexthop
objects by protocol and number. Settings are facts, all of them: whose they are is for `control` to say, which knows
what was there before.

One dump each for links and addresses, one per family for routes: 4,000 links with all their settings take 20 ms,
100,000 unchanged routes 30 ms. A dump of routes is not filtered by the kernel: routes of ours stand in the main table,
whose foreign routes are wanted as well, so two filtered dumps would carry most messages twice.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum
from functools import partial
from hashlib import blake2b
from types import MappingProxyType

from outgate.model.net import (
    ALL_LINKS,
    MAIN,
    OWN_PROTOCOL,
    OWN_TABLES,
    Address,
    Discard,
    HostAddress,
    Link,
    LinkAddress,
    LinkName,
    Route,
    Setting,
    TableId,
)
from outgate.model.state import Facts, Reading, Resource
from outgate.systems.kernel import sysctl, tenant, uapi
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.messages import DUMP_ADDRESSES, DUMP_LINKS, DUMP_NEXTHOPS, DUMP_ROUTES, DUMP_RULES
from outgate.systems.kernel.parse import (
    OwnLegs,
    SeenLink,
    parse_address,
    parse_link,
    parse_nexthop,
    parse_route,
    parse_rule,
    without_counters,
)
from outgate.systems.netlink import Denied, DumpInterrupted, NetlinkSocket, payloads

_TRIES = 5  # a kernel whose tables change during five dumps in a row is not at rest; the next round will see


class Part(Enum):
    """What can be read apart. Links carry the settings; addresses and routes refer to links by number."""

    LINKS = "links"
    ADDRESSES = "addresses"
    ROUTES = "routes"
    RULES = "rules"


ALL_PARTS = frozenset(Part)


def read(
    socket: NetlinkSocket,
    cache: Cache,
    *,
    recorded: frozenset[tuple[LinkName, Address]] = frozenset(),
    parts: frozenset[Part] = ALL_PARTS,
) -> Reading:
    """Return a complete reading; parts that are not named are taken from the last one.

    `recorded` are the addresses that we made, for kernels that do not say who made an address. A kernel that says
    exactly what it said the last time gives the same `Reading` object again.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    last, cache.reading = cache.reading, None
    wanted = ALL_PARTS if last is None or Part.LINKS in parts else parts
    changed = _refresh(socket, cache, wanted)
    if changed or last is None or (recorded != cache.recorded and not cache.labels_addresses):
        cache.recorded = recorded
        last = _reading(cache)
    cache.reading = last
    return last


def _refresh(socket: NetlinkSocket, cache: Cache, parts: frozenset[Part]) -> bool:
    """Dump the parts anew until no table changes meanwhile; return whether anything is new."""
    changed = False
    for _ in range(_TRIES - 1):
        try:
            return _dump(socket, cache, parts) or changed
        except DumpInterrupted:
            parts, changed = ALL_PARTS, True
            cache.links.stale = True  # so that all that hangs on links is made anew
    return _dump(socket, cache, parts) or changed


def _dump(socket: NetlinkSocket, cache: Cache, parts: frozenset[Part]) -> bool:
    names, changed = cache.names, False
    if Part.LINKS in parts:
        changed |= _dump_links(socket, cache)
    if Part.ADDRESSES in parts:
        changed |= cache.addresses.refresh(_payloads(socket, DUMP_ADDRESSES), partial(parse_address, names=names))
    if Part.ROUTES in parts:
        cache.hops_made = set()
        changed |= _dump_nexthops(socket, cache)
        for version, request in DUMP_ROUTES.items():
            changed |= cache.routes[version].refresh(_payloads(socket, request), partial(parse_route, names=names))
    if Part.RULES in parts:
        changed |= cache.rules.refresh(_payloads(socket, DUMP_RULES), parse_rule)
    return changed


def _dump_links(socket: NetlinkSocket, cache: Cache) -> bool:
    """Read links and settings; when a link has a new name, forget what was said with the old one."""
    settings = sysctl.read_all()
    changed = settings != cache.settings_of_all
    cache.settings_of_all = settings
    payloads_of: dict[bytes, bytes] = {}  # a link's message is 1 kB; what is remembered of it is its digest
    dump = (_digested(found, payloads_of) for found in _payloads(socket, DUMP_LINKS))
    if not cache.links.refresh(dump, lambda digest: parse_link(payloads_of[digest])):
        return changed
    links = {seen.index: seen.name for seen in cache.links.values}
    if cache.names.renew(links):
        cache.addresses.forget()
        cache.nexthops.forget()
        for shelf in cache.routes.values():
            shelf.forget()
        cache.tenants = {}
    cache.indexes = {name: index for index, name in links.items()}
    known = cache.tenants
    ours = [pair for pair in zip(cache.links.order, cache.links.values, strict=True) if tenant.is_ours(pair[1])]
    cache.tenants = {payload: known.get(payload) or tenant.as_resource(seen, cache.names) for payload, seen in ours}
    cache.tenants_seen = {seen.index: seen for _, seen in ours}
    return True


def _digested(found: list[bytes], payloads_of: dict[bytes, bytes]) -> list[bytes]:
    digests = []
    for payload in map(without_counters, found):
        digest = blake2b(payload, digest_size=16).digest()
        payloads_of[digest] = payload
        digests.append(digest)
    return digests


def _dump_nexthops(socket: NetlinkSocket, cache: Cache) -> bool:
    """Read nexthop objects; when they changed, forget the routes that only name one."""
    try:
        changed = cache.nexthops.refresh(_payloads(socket, DUMP_NEXTHOPS), partial(parse_nexthop, names=cache.names))
        cache.has_nexthops = True
    except Denied as refusal:
        if refusal.errno != errno.EOPNOTSUPP:
            raise
        return False
    if changed:
        cache.names.objects = {seen.number: seen for seen in cache.nexthops.values}
        for shelf in cache.routes.values():
            shelf.forget(cache.names.indirect)
        cache.names.indirect = set()
    return changed


def _payloads(socket: NetlinkSocket, request: bytes) -> Iterator[list[bytes]]:
    return (payloads(datagram) for datagram in socket.datagrams(request))


def _reading(cache: Cache) -> Reading:
    own_names = frozenset(link.name for link in cache.tenants.values())
    addresses, foreign_addresses = _addresses(cache, own_names)
    routes, foreign_routes = _routes(cache, own_names)
    rules = [found for found in cache.rules.values if found is not None]
    foreign_links = [seen for seen in cache.links.values if seen.name not in own_names]
    actual: frozenset[Resource] = frozenset[Resource]().union(
        cache.tenants.values(), addresses, routes, (rule for ours, rule in rules if ours)
    )
    vrfs = {seen.index: TableId(seen.vrf) for seen in foreign_links if seen.vrf}
    facts = Facts(
        links=MappingProxyType({seen.name: _link(seen, vrfs) for seen in foreign_links}),
        addresses=foreign_addresses,
        routes=foreign_routes,
        rules=frozenset(rule for ours, rule in rules if not ours),
        settings=MappingProxyType(_settings(cache, foreign_links)),
    )
    return Reading(facts=facts, actual=actual)


def _link(seen: SeenLink, vrfs: Mapping[int, TableId]) -> Link:
    """Return a link; `vrfs` are the tables of VRFs by their ifindex."""
    return Link(
        name=seen.name,
        index=seen.index,
        mac=seen.mac,
        up=bool(seen.flags & uapi.IFF_UP),
        carrier=bool(seen.flags & uapi.IFF_LOWER_UP),
        kind=seen.kind,
        mtu=seen.mtu,
        table=vrfs.get(seen.master, MAIN),
    )


def _settings(cache: Cache, links: list[SeenLink]) -> dict[tuple[LinkName, Setting], int]:
    found = {(ALL_LINKS, setting): value for setting, value in cache.settings_of_all.items()}
    found.update(((seen.name, setting), value) for seen in links for setting, value in seen.settings.items())
    return found


def _addresses(cache: Cache, own_links: frozenset[LinkName]) -> tuple[set[LinkAddress], frozenset[HostAddress]]:
    """Return ours and theirs. Where one of ours stands with two prefix lengths, the wrong one is told."""
    seen_all = cache.addresses.values
    cache.labels_addresses = any(seen.protocol for seen in seen_all)  # since Linux 5.18, which labels its own as well
    cache.ours = []
    sound: set[LinkAddress] = set()
    faulty: set[LinkAddress] = set()
    foreign: set[HostAddress] = set()
    for seen in seen_all:
        found = seen.resource
        recorded = not cache.labels_addresses and (found.link, found.address) in cache.recorded
        if not (seen.protocol == OWN_PROTOCOL or recorded or found.link in own_links):
            foreign.add(HostAddress(link=found.link, address=found.address, prefix_len=seen.prefix_len))
            continue
        cache.ours.append(seen)
        (faulty if found.fault else sound).add(found)
    for found in faulty:
        sound.discard(LinkAddress(link=found.link, address=found.address))
    return sound | faulty, frozenset(foreign)


def _routes(cache: Cache, own_links: frozenset[LinkName]) -> tuple[list[Route], frozenset[Route]]:
    """Return ours and theirs. What the kernel itself adds to a link of ours is neither."""
    ours: list[Route] = []
    theirs: list[Route] = []
    for shelf in cache.routes.values():
        for payload, found in zip(shelf.order, shelf.values, strict=True):
            if isinstance(found, Route):
                ours.append(found)
            elif isinstance(found, OwnLegs):
                ours += found.legs
            elif found and not (payload[5] == uapi.RTPROT_KERNEL and _leads_to(found[0], own_links)):
                theirs += found
    return _side_by_side(ours), frozenset(theirs)


def _side_by_side(ours: list[Route]) -> list[Route]:
    """Return routes of ours with those as legs of one that somebody put into one slot of a table of ours, so that none
    of them counts as the route that was wanted there.
    """
    entries = Counter(route.slot for route in ours if route.table in OWN_TABLES)
    beside = {slot for slot, number in entries.items() if number > 1}
    if not beside:
        return ours
    return [replace(one, weight=1) if not one.weight and one.slot in beside else one for one in ours]


def _leads_to(route: Route, links: frozenset[LinkName]) -> bool:
    return not isinstance(route.hop, Discard) and route.hop.link in links
