"""What a node says and asks on its links for the egress IPs that it places itself.

Three things, each told anew whenever a round has decided: addresses that are held are announced, and others who claim
one are heard; addresses that are wanted are asked for before their first use; routers are asked whether they are there.
It is the gateway's part in this (`neighbours`) for a role that waits in asyncio.

A link of OVN-Kubernetes' gateway bridge has one MAC with OVN's gateway router, so what that router says is no conflict.

Routers are asked by probes, which need no address of ours: an ARP request from nobody to the MAC that answered the last
time (to all when it did not), and a solicitation from nobody. Linux answers both. Other nodes' probes for the same
router are no answers of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.control.announce import Schedule
from outgate.control.ears import Ears
from outgate.control.loop import Readable
from outgate.model.errors import Unreachable
from outgate.model.net import Address, LinkName, Mac
from outgate.systems.kernel.uapi import NETLINK_ROUTE, RTNLGRP_LINK
from outgate.systems.netlink import NetlinkSocket, Overrun
from outgate.systems.wire.announce import Announcer
from outgate.systems.wire.frames import Announcement
from outgate.systems.wire.probe import Conflict, Prober

ASK_S = 0.5  # between two questions to a router
_RATE_PER_S = 1000.0  # frames: what a dead node had must be known elsewhere at once
SILENCE_S = 1.5  # of all routers of a link, after which it is cut
_UNANSWERED = 3  # questions as well: a loop that stood still has asked nobody

_Seen = tuple[Mac, bool]  # a link's MAC, and whether frames can leave


@dataclass(slots=True)
class _Routers:
    """The routers by a link, when one of them was heard, who they were, and how often they were asked since."""

    heard_s: float
    addresses: frozenset[Address] = frozenset()
    macs: dict[Address, Mac] = field(default_factory=dict)
    asked: int = 0


class NodeNeighbours:
    """The neighbours of one node, in the network namespace of the calling thread.

    `free` and `taken` are the verdicts on what is asked for; `taken` also has what is held and somebody else claims.
    `cut` are the links by which no router is reached. `changed` is called by the loop after each change of these (once
    for several in one turn), and never from within a call of ours.

    Raises:
        Unreachable: the sockets do not open.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self.free: frozenset[Address] = frozenset()
        self.taken: Mapping[Address, Mac] = MappingProxyType({})
        self.cut: frozenset[LinkName] = frozenset()
        self._changed = changed
        self._turns = _AsyncTurns(loop)
        self._announcer = Announcer()
        self._schedule = Schedule(_RATE_PER_S)
        self._ears = Ears(self._turns, self)
        self._held: dict[Address, LinkName] = {}
        self._claimed: dict[Address, Mac] = {}  # of what is held: by whom
        self._wanted: dict[Address, LinkName] = {}
        self._verdicts: dict[Address, Mac | None] = {}  # on what is wanted: who has it, None for nobody
        self._routers: dict[LinkName, _Routers] = {}
        self._seen: dict[LinkName, _Seen] = {}  # the links that are listened to
        self._said: set[tuple[Address, LinkName]] = set()  # what is announced, or was when its link had carrier last
        self._links = NetlinkSocket(NETLINK_ROUTE)
        self._links.subscribe([RTNLGRP_LINK])
        self._turns.watch(self._links, self._links_changed)

    def close(self) -> None:
        """Close all sockets; `changed` is not called any more."""
        self._ears.close()
        self._turns.forget(self._links)
        self._links.close()
        self._announcer.close()
        self._turns.close()

    def hold(self, held: Mapping[Address, LinkName]) -> None:
        """Announce exactly these addresses, each by its link, and listen for others who claim one."""
        gone = {address for address, link in self._held.items() if held.get(address) != link}
        self._claimed = {address: mac for address, mac in self._claimed.items() if address not in gone}
        self._held = dict(held)
        self._said &= set(held.items())
        self._look()
        self._speak()

    def ask(self, wanted: Mapping[Address, LinkName]) -> None:
        """Ask once for each of these addresses by its link, until it is wanted no more, or by another link."""
        for address, link in self._wanted.items():
            if wanted.get(address) != link:
                self._verdicts.pop(address, None)
                prober = self._ears.at(link)
                if prober is not None:
                    prober.stop([address])
        self._wanted = dict(wanted)
        self._look()
        self._speak()

    def watch(self, routers: Mapping[LinkName, frozenset[Address]]) -> None:
        """Watch exactly these links: each is cut without carrier, and when none of its routers (if any) answers."""
        before = {link: routers.addresses for link, routers in self._routers.items()}
        known, now_s = self._routers, self._turns.now_s()
        self._routers = {}
        for link, addresses in routers.items():
            goes_on = link in known and bool(known[link].addresses) == bool(addresses)
            one = self._routers[link] = known[link] if goes_on else _Routers(now_s)
            one.addresses = addresses
        self._look()
        self._speak()
        if before != routers:  # otherwise the next question has its time already
            self._ask_routers()

    def heard(self, link: LinkName, conflict: Conflict) -> None:
        """Take what somebody said of an address: a router that is there, a verdict, or a claim to what is held."""
        address, mac = conflict.address, conflict.mac
        routers = self._routers.get(link)
        if routers is not None and address in routers.addresses:
            routers.heard_s, routers.asked = self._turns.now_s(), 0
            routers.macs[address] = mac
        if self._wanted.get(address) == link and address not in self._verdicts:
            self._verdicts[address] = mac
        elif self._held.get(address) == link:
            self._claimed[address] = mac
        self._judge()

    def proved_free(self, address: Address) -> None:
        """Take that nobody has an address that is wanted."""
        if address in self._wanted:
            self._verdicts[address] = None
        self._judge()

    def lost(self, link: LinkName) -> None:
        """Take that a link is gone; it is looked for again."""
        self._seen.pop(link, None)
        self._turns.at("look", self._turns.now_s() + ASK_S, self._links_changed)

    def _links_changed(self) -> None:
        with suppress(Overrun):  # whatever was lost: all links are looked at
            for _ in self._links.events():
                pass
        if self._look():
            self._speak()

    def _look(self) -> bool:
        """Look at the links that are needed, and listen to them; return whether anything is new."""
        needed = {*self._held.values(), *self._wanted.values(), *self._routers}
        for link in self._ears.links:
            prober = self._ears.at(link)
            if prober is not None and (link not in needed or not prober.is_there):
                self._ears.drop(link)
                self._seen.pop(link, None)
        before, self._seen = self._seen, {}
        for link in sorted(needed):
            prober = self._ears.open(link)
            if prober is not None:
                self._seen[link] = (prober.mac, prober.carries)
                prober.hold(self._listened_for(link), ())
        if before != self._seen:  # switches and routers may have forgotten what was said by a link that was away
            fresh = {link for link, seen in self._seen.items() if seen != before.get(link) and seen[1]}
            self._said = {(address, link) for address, link in self._said if link not in fresh}
        self._judge()
        return before != self._seen

    def _listened_for(self, link: LinkName) -> frozenset[Address]:
        routers = self._routers[link].addresses if link in self._routers else frozenset()
        return routers | {address for address, by in self._held.items() if by == link}

    def _speak(self) -> None:
        """Say and ask what is to be said and asked on the links that are there."""
        self._announce()
        self._start()

    def _announce(self) -> None:
        """Announce what is held, beginning with what is new and can be said now."""
        now = {(address, link) for address, link in self._held.items() if self._carries(link)}
        fresh = now - self._said
        self._said |= now
        said = {
            (address, link): Announcement(link=link, address=address, mac=self._seen[link][0])
            for address, link in self._held.items()
            if link in self._seen
        }
        made = [announcement for place, announcement in said.items() if place in fresh]
        self._schedule.hold(said.values(), made=made, now_s=self._turns.now_s())
        self._send()

    def _send(self) -> None:
        now_s = self._turns.now_s()
        with suppress(Unreachable):  # a link is down: when it is back, what is held is announced again
            self._announcer.send(self._schedule.due(now_s))
        self._turns.at("announce", self._schedule.next_s(), self._send)

    def _start(self) -> None:
        """Ask for what has no verdict yet and is not being asked for."""
        now_s, fresh = self._turns.now_s(), [one for one in self._wanted if one not in self._verdicts]
        for link in {self._wanted[address] for address in fresh}:
            prober = self._ears.at(link)
            if prober is not None:
                prober.start([address for address in fresh if self._wanted[address] == link], now_s)
                self._ears.tick(link)

    def _ask_routers(self) -> None:
        for link, routers in self._routers.items():
            prober = self._ears.at(link)
            if prober is not None:
                with suppress(Unreachable):  # it went just now, which the kernel tells as well
                    routers.asked += any(list(_asked(prober, routers)))
        is_asked = any(routers.addresses for routers in self._routers.values())
        self._turns.at("routers", self._turns.now_s() + ASK_S if is_asked else None, self._ask_routers)
        self._judge()

    def _judge(self) -> None:
        """Say what is free, taken and cut now, and tell when that is new."""
        taken = {address: mac for address, mac in self._verdicts.items() if mac is not None} | self._claimed
        free = frozenset(address for address, mac in self._verdicts.items() if mac is None and address not in taken)
        now_s = self._turns.now_s()
        cut = frozenset(link for link in self._routers if not self._carries(link) or self._is_silent(link, now_s))
        due = [one.heard_s + SILENCE_S for one in self._routers.values() if one.addresses]
        self._turns.at("silence", min((one for one in due if one > now_s), default=None), self._judge)
        if (free, taken, cut) != (self.free, self.taken, self.cut):
            self.free, self.taken, self.cut = free, MappingProxyType(taken), cut
            self._turns.soon(self._changed)

    def _carries(self, link: LinkName) -> bool:
        return link in self._seen and self._seen[link][1]

    def _is_silent(self, link: LinkName, now_s: float) -> bool:
        routers = self._routers[link]
        return bool(routers.addresses) and routers.asked >= _UNANSWERED and now_s - routers.heard_s >= SILENCE_S


def _asked(prober: Prober, routers: _Routers) -> Iterator[bool]:
    """Ask each router of a link, and yield whether the question left."""
    for address in routers.addresses:
        yield prober.ask(address, at=routers.macs.get(address) if routers.asked == 0 else None)


class _AsyncTurns:
    """The turns of an asyncio loop, whose own time is monotonic."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._times: dict[str, asyncio.TimerHandle] = {}
        self._soon: asyncio.Handle | None = None

    def now_s(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def watch(self, readable: Readable, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable."""
        self._loop.add_reader(readable.fileno(), callback)

    def forget(self, readable: Readable) -> None:
        """Stop watching a descriptor."""
        self._loop.remove_reader(readable.fileno())

    def at(self, name: str, when_s: float | None, callback: Callable[[], None]) -> None:
        """Call back once at a time; a new time replaces the old one of that name, and None removes it."""
        old = self._times.pop(name, None)
        if old is not None:
            old.cancel()
        if when_s is not None:
            self._times[name] = self._loop.call_at(when_s, callback)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn, once however often that is asked for until then."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._call, callback)

    def _call(self, callback: Callable[[], None]) -> None:
        self._soon = None
        callback()

    def close(self) -> None:
        """Call back no more."""
        for handle in (*self._times.values(), *((self._soon,) if self._soon is not None else ())):
            handle.cancel()
