"""Writing to the kernel: resources in the order given, in few packets, each refusal kept with its resource.

Nothing that is not ours is overwritten: what is new is created exclusively; a route is replaced only where the last
reading saw one of ours. Nothing is tried again here but one thing: a route that was refused because its place is taken
by one of ours replaces it, at the end of its run of resources.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import assert_never

from outgate.model.net import (
    ALL_LINKS,
    Address,
    Answered,
    LinkAddress,
    LinkName,
    LinkSetting,
    Route,
    Rule,
    TenantLink,
)
from outgate.model.ovn import DropAcl, LogicalRoute, Policy, QosMark, SetMember, Snat
from outgate.model.ruleset import Element, Table
from outgate.model.state import Failure, Resource
from outgate.systems.kernel import messages, nexthops, routes, sysctl
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.links import drop_links, make_links
from outgate.systems.kernel.outbox import Boundary, Outbox, Refused, no_boundary
from outgate.systems.kernel.parse import UNUSABLE, SeenAddress
from outgate.systems.netlink import NetlinkSocket

_GONE = {errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL}  # what was to be dropped is not there
_TAKEN = {
    Route: "a route that is not ours stands in its place",
    LinkAddress: "the address stands there, and is not ours",
}


def write(
    socket: NetlinkSocket,
    cache: Cache,
    make: Sequence[Resource],
    drop: Sequence[Resource],
    boundary: Boundary = no_boundary,
) -> tuple[Failure, ...]:
    """Make, then drop, in the order given; return what the kernel refused, in its words. The rest is written.

    Addresses of links that are dropped go with their links. `cache` must hold a reading of the same namespace; links
    that this makes are known to later calls. `boundary` is called with a name at each point where a crash would leave
    a part written.

    Raises:
        Unreachable: netlink does not answer; how much was written is unknown.
    """
    outbox = Outbox(socket, boundary)
    for links, others in _runs(make):
        if links:
            make_links(outbox, cache, links)
        else:
            _make(outbox, cache, others)
    doomed = {resource.name for resource in drop if isinstance(resource, TenantLink)}
    for links, others in _runs([r for r in drop if not (isinstance(r, LinkAddress) and r.link in doomed)]):
        if links:
            drop_links(outbox, cache, links)
        else:
            _drop(outbox, cache, others)
    dropped = frozenset(resource for resource in drop if isinstance(resource, Route))
    if dropped or any(isinstance(resource, Route) for resource in make):
        nexthops.sweep(outbox, cache, dropped)
    return outbox.result()


def _runs(resources: Sequence[Resource]) -> Iterator[tuple[list[TenantLink], list[Resource]]]:
    """Yield neighbours of one sort: links of tenants, which are made in steps, or all else."""
    for _, run in groupby(resources, key=lambda resource: isinstance(resource, TenantLink)):
        neighbours = list(run)
        links = [resource for resource in neighbours if isinstance(resource, TenantLink)]
        yield links, [] if links else neighbours


def _make(outbox: Outbox, cache: Cache, resources: Sequence[Resource]) -> None:
    spelling = routes.spell(outbox, cache, [resource for resource in resources if isinstance(resource, Route)])
    held = _held(cache, resources)
    refused: list[Refused] = []
    for resource in resources:
        if isinstance(resource, LinkSetting) and not _by_netlink(resource):
            refused += outbox.send("before a setting")
            words = sysctl.write(resource.link, resource.setting, resource.value)
            if words:
                outbox.fail(resource, words)
            outbox.boundary("a setting")
        elif isinstance(resource, LinkAddress):
            there = held.get((resource.link, resource.address), [])
            _put_at(outbox, cache, resource, partial(_address, address=resource.address, held=there))
        else:
            _put(outbox, cache, resource, spelling)
    refused += outbox.send("made")
    entries = routes.standing(cache, [found.resource for found in refused if found.errno == errno.EEXIST])
    for refusal in refused:
        resource = refusal.resource
        if isinstance(resource, Route) and entries[resource.slot] and refusal.errno == errno.EEXIST:
            routes.put(outbox, cache, resource, spelling, instead_of=entries[resource.slot])
        else:
            taken = _TAKEN.get(type(resource)) if refusal.errno == errno.EEXIST else None
            routes.fail(outbox, resource, f"{refusal.words}: {taken}" if taken else refusal.words, spelling)
    for refusal in outbox.send("routes replaced"):
        routes.fail(outbox, refusal.resource, refusal.words, spelling)


def _put(outbox: Outbox, cache: Cache, resource: Resource, spelling: routes.Spelling) -> None:
    match resource:
        case LinkSetting(setting=setting, value=value):
            settings = messages.link_settings({setting: value})
            _put_at(outbox, cache, resource, lambda index: [messages.set_link(index, settings)])
        case Route():
            routes.put(outbox, cache, resource, spelling)
        case Rule():
            outbox.put(resource, messages.new_rule(resource))
        case (
            TenantLink()
            | LinkAddress()
            | Answered()
            | Element()
            | Table()
            | Policy()
            | Snat()
            | LogicalRoute()
            | QosMark()
            | DropAcl()
            | SetMember()
        ):
            raise TypeError(f"{resource} is not written here")
        case _:
            assert_never(resource)


def _put_at(
    outbox: Outbox, cache: Cache, resource: LinkAddress | LinkSetting, requests: Callable[[int], Iterable[bytes]]
) -> None:
    index = cache.indexes.get(resource.link)
    if index is None:
        outbox.fail(resource, f"there is no link {resource.link}")
    else:
        outbox.put(resource, *requests(index))


def _address(index: int, address: Address, held: Sequence[SeenAddress]) -> Iterator[bytes]:
    """Yield what turns the addresses of ours that stand there into the right one, without a gap where possible.

    IPv4 lets two prefix lengths of one address stand side by side; IPv6 does not, so the wrong one goes first.
    """
    right = [seen for seen in held if seen.prefix_len == address.max_prefixlen and not seen.flags & UNUSABLE]
    wrong = [messages.delete_address(index, address, seen.prefix_len) for seen in held if seen not in right]
    if address.version == 6:
        yield from wrong
        yield messages.new_address(index, address, replace=bool(right))
    else:
        yield from () if right else (messages.new_address(index, address),)
        yield from wrong


def _drop(outbox: Outbox, cache: Cache, resources: Sequence[Resource]) -> None:
    held = _held(cache, resources)
    several = routes.by_first_leg(resource for resource in resources if isinstance(resource, Route))
    entries = routes.standing(cache, several)
    for resource in resources:
        match resource:
            case LinkAddress(link=link, address=address):
                index = cache.indexes.get(link, -1)
                for seen in held.get((link, address), []):
                    outbox.put(resource, messages.delete_address(index, address, seen.prefix_len))
            case Route():
                if not resource.weight or resource in several:
                    outbox.put(resource, *[messages.delete_route(resource)] * (entries[resource.slot] or 1))
            case Rule():
                outbox.put(resource, messages.delete_rule(resource))
            case LinkSetting():
                outbox.fail(resource, "a setting can not be absent: make the value it had before")
            case (
                TenantLink()
                | Answered()
                | Element()
                | Table()
                | Policy()
                | Snat()
                | LogicalRoute()
                | QosMark()
                | DropAcl()
                | SetMember()
            ):
                raise TypeError(f"{resource} is not written here")
            case _:
                assert_never(resource)
    for refusal in outbox.send("dropped"):
        if refusal.errno not in _GONE:
            outbox.fail(refusal.resource, refusal.words)


def _held(cache: Cache, resources: Sequence[Resource]) -> dict[tuple[LinkName, Address], list[SeenAddress]]:
    """Return the addresses of ours by place, if that is asked for at all."""
    return cache.held() if any(isinstance(resource, LinkAddress) for resource in resources) else {}


def _by_netlink(resource: LinkSetting) -> bool:
    return resource.setting in messages.IPV4_PLACE and resource.link != ALL_LINKS
