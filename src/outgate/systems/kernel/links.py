"""Making and dropping tenants' links, many at a time.

A link is made down, gets its settings, and goes up last; each of these steps is taken for all links before the next
one, so that 4,000 links are a few dozen packets. The ifindex of a new link is chosen here, in a range that the kernel
does not reach by counting, so that nothing has to be asked back.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import count

from outgate.model.net import LinkName, Setting, TenantLink
from outgate.systems.kernel import sysctl, tenant
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.messages import delete_link, delete_links, link_group, new_address, set_link
from outgate.systems.kernel.outbox import Outbox
from outgate.systems.kernel.parse import SeenLink

_FEW = 8  # links deleted one by one; each of them waits 25 ms for the kernel's grace periods, a group waits once


def make_links(outbox: Outbox, cache: Cache, links: Sequence[TenantLink]) -> None:
    """Make links, or mend those that stand there. A link whose request is refused stays down.

    A parent can not be changed in place: such a link is deleted and made anew, with its addresses. This is the one
    change of all that has a moment with neither the old nor the new.
    """
    seen = {link.name: link for link in cache.links.values}
    indexes = count(max((*cache.indexes.values(), tenant.FIRST_INDEX - 1)) + 1)
    alive: dict[LinkName, int] = {}
    moved: list[TenantLink] = []
    for link in links:
        parent, stands = cache.indexes.get(link.parent), seen.get(link.name)
        if parent is None:
            outbox.fail(link, f"there is no link {link.parent} to put it on")
        elif stands is None:
            alive[link.name] = next(indexes)
            outbox.put(link, *tenant.create(link, alive[link.name], parent))
        elif not tenant.is_ours(stands):
            outbox.fail(link, f"another link of this name stands there, which is not ours: {_kind(stands)}")
        elif stands.parent == parent:
            alive[link.name] = stands.index
            outbox.put(link, *tenant.mend(link, stands))
        else:
            alive[link.name] = next(indexes)
            outbox.put(link, delete_link(link.name), *tenant.create(link, alive[link.name], parent))
            moved.append(link)
    for refusal in outbox.send("links made"):
        taken = ": its alternative name is taken" if refusal.errno == errno.EEXIST else ""
        outbox.fail(refusal.resource, refusal.words + taken)
    sound = [link for link in links if link not in outbox.failures]
    cache.indexes |= {link.name: alive[link.name] for link in sound}
    cache.links.stale = True  # whatever the next dump says, the indexes above are to be seen in it
    _set_ipv6(outbox, cache, sound)
    _set_up(outbox, cache, [link for link in sound if link not in outbox.failures], moved)


def drop_links(outbox: Outbox, cache: Cache, links: Sequence[TenantLink]) -> None:
    """Delete links, many of them as one device group. A link that is gone, or is not ours, is passed over."""
    foreign = {seen.name for seen in cache.links.values if not tenant.is_ours(seen)}
    links = [link for link in links if link.name not in foreign]
    doomed = {link.name for link in links}
    others = [seen for seen in cache.links.values if seen.group == tenant.DOOMED_GROUP and seen.name not in doomed]
    if len(links) <= _FEW or not all(tenant.is_ours(seen) for seen in others):
        for link in links:
            outbox.put(link, delete_link(link.name))
    else:
        for seen in others:  # marked by an earlier deletion that was cut short, and wanted again since
            outbox.put(links[0], set_link(seen.index, link_group(0)))
        mark = link_group(tenant.DOOMED_GROUP)
        for link in links:
            outbox.put(link, set_link(cache.indexes.get(link.name, -1), mark))
        _fail_unless_gone(outbox, "links marked")
        outbox.put(links[0], delete_links(tenant.DOOMED_GROUP))
    _fail_unless_gone(outbox, "links deleted")


def _set_ipv6(outbox: Outbox, cache: Cache, links: Sequence[TenantLink]) -> None:
    """Write what netlink does not: IPv6 off, or on and deaf to router advertisements. It precedes `up`."""
    if Setting.DISABLE_IPV6 not in cache.settings_of_all:
        return  # this kernel has no IPv6
    for link in links:
        for setting, value in tenant.proc_settings(link).items():
            words = sysctl.write(link.name, setting, value)
            if words:
                outbox.fail(link, words)
    outbox.boundary("links set")


def _set_up(outbox: Outbox, cache: Cache, links: Sequence[TenantLink], moved: Sequence[TenantLink]) -> None:
    for link in links:
        outbox.put(link, tenant.up(cache.indexes[link.name]))
    again = {link.name: link for link in moved if link in links}
    for name, address in cache.held() if again else ():
        if name in again:
            outbox.put(again[name], new_address(cache.indexes[name], address))
    for refusal in outbox.send("links up"):
        outbox.fail(refusal.resource, refusal.words)


def _fail_unless_gone(outbox: Outbox, place: str) -> None:
    for refusal in outbox.send(place):
        if refusal.errno != errno.ENODEV:
            outbox.fail(refusal.resource, refusal.words)


def _kind(seen: SeenLink) -> str:
    return seen.kind or "a network card"
