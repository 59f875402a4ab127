"""What the last reading left behind: parsed messages by their bytes, and the kernel's own handles of what was read.

A dump of 100,000 routes is 7 MB that are the same every time but for a few messages. Who remembers each message by its
bytes parses only what is new, and hands out the same values again, which compare fast because they are identical.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from outgate.model.net import Address, LinkName, NextHop, Rule, Setting, TenantLink
from outgate.model.state import Reading
from outgate.systems.kernel import uapi
from outgate.systems.kernel.messages import IFINFOMSG
from outgate.systems.kernel.parse import (
    Names,
    SeenAddress,
    SeenLink,
    SeenNexthop,
    SeenRoute,
    parse_link,
    without_counters,
)

Parsed = TypeVar("Parsed")

_FLAGS = uapi.IFF_UP | uapi.IFF_NOARP  # of a link of ours: the flags that are read


@dataclass(slots=True)
class Shelf(Generic[Parsed]):
    """What one dump said the last time: its payloads (of links their digests) in order, and what each of them means."""

    order: list[bytes] = field(default_factory=list)
    values: list[Parsed] = field(default_factory=list)
    stale: bool = False

    def refresh(self, dump: Iterable[list[bytes]], parse: Callable[[bytes], Parsed]) -> bool:
        """Take a new dump, a datagram's payloads at a time; return whether it means anything else than the last one.

        Only payloads that were not there before are parsed.
        """
        order: list[bytes] = []
        same = not self.stale
        for found in dump:
            known = self.order[len(order) : len(order) + len(found)]
            same = same and known == found
            order += known if same else found
        if same and len(order) == len(self.order):
            return False
        means = dict(zip(self.order, self.values, strict=True))
        values = [means[payload] if payload in means else parse(payload) for payload in order]
        changed = self.stale or values != self.values  # a lifetime that counts down is another payload, but no news
        self.order, self.values, self.stale = order, values, False
        return changed

    def forget(self, payloads: Container[bytes] | None = None) -> None:
        """Forget what some payloads mean, or all: what they refer to has changed."""
        kept = [
            (payload, value)
            for payload, value in zip(self.order, self.values, strict=True)
            if payloads is not None and payload not in payloads
        ]
        self.order, self.values = [payload for payload, _ in kept], [value for _, value in kept]
        self.stale = True


@dataclass(slots=True)
class Cache:
    """The memory of `read`, from which `write` takes the kernel's handles. One per network namespace; starts empty."""

    links: Shelf[SeenLink] = field(default_factory=Shelf)
    addresses: Shelf[SeenAddress] = field(default_factory=Shelf)
    nexthops: Shelf[SeenNexthop] = field(default_factory=Shelf)
    routes: dict[int, Shelf[SeenRoute]] = field(default_factory=lambda: {4: Shelf(), 6: Shelf()})
    rules: Shelf[tuple[bool, Rule] | None] = field(default_factory=Shelf)
    settings_of_all: dict[Setting, int] = field(default_factory=dict)  # those of the pseudo link `all`
    names: Names = field(default_factory=lambda: Names(links={}))
    tenants: dict[bytes, TenantLink] = field(
        default_factory=dict
    )  # links of ours, by the digest of the message that shows them
    ours: list[SeenAddress] = field(default_factory=list)  # addresses of ours
    indexes: dict[LinkName, int] = field(default_factory=dict)  # of all links; `write` adds those it makes
    tenants_seen: dict[int, SeenLink] = field(default_factory=dict)  # links of ours, by their index
    hops_made: set[NextHop] = field(default_factory=set)  # next hops of routes that were made since the reading
    labels_addresses: bool = False  # whether the kernel says who made an address (since Linux 5.18)
    has_nexthops: bool = False  # whether the kernel knows nexthop objects (since Linux 5.3)
    reading: Reading | None = None
    recorded: frozenset[tuple[LinkName, Address]] = frozenset()

    def knows(self, payload: bytes) -> bool:
        """Whether a notification about a link of ours says nothing but what the last reading saw.

        The kernel tells of a new link once more when it has carrier, a hundred links a second; whether a macvlan has it
        follows from the NIC below, and changes nothing that is read.
        """
        seen = self.tenants_seen.get(IFINFOMSG.unpack_from(payload)[2])
        if seen is None:
            return False
        told = parse_link(without_counters(payload))
        return replace(told, flags=seen.flags) == seen and not (told.flags ^ seen.flags) & _FLAGS

    def held(self) -> dict[tuple[LinkName, Address], list[SeenAddress]]:
        """Return the addresses of ours by place; several stand in one place when prefix lengths differ."""
        found: dict[tuple[LinkName, Address], list[SeenAddress]] = {}
        for seen in self.ours:
            found.setdefault((seen.resource.link, seen.resource.address), []).append(seen)
        return found
