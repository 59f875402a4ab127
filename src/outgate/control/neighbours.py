"""What is said and asked on the links: probes before a first claim, announcements after, and an ear for others who
claim the same.

Joins the rooms: addresses and MACs come from a round, frames go out by `systems.wire`, times from the loop. A tenant's
next hop is announced through its parent NIC with the tenant's MAC; an egress IP with the uplink's own MAC.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from outgate.control.announce import Schedule
from outgate.control.ears import Ears
from outgate.control.loop import Loop
from outgate.control.round import Decided
from outgate.model.errors import Unreachable
from outgate.model.intent import Announce, AnnounceMethod
from outgate.model.net import Address, Link, LinkAddress, LinkName, Mac, TenantLink
from outgate.model.state import Probe, Resource
from outgate.systems.wire.announce import Announcer
from outgate.systems.wire.frames import Announcement
from outgate.systems.wire.probe import Conflict, Prober

Verdict = Callable[[Probe, Mac | None], None]


class LinkNeighbours:
    """The neighbours of one gateway machine. `claimed` is called when somebody else claims an address that is held."""

    def __init__(self, loop: Loop, claimed: Callable[[Address, Mac], None]) -> None:
        self._loop = loop
        self._claimed = claimed
        self._announcer = Announcer()
        self._schedule = Schedule()
        self._rate = Announce().rate_per_s
        self._ears = Ears(loop, self)
        self._asked: dict[Address, tuple[Probe, Verdict]] = {}
        self._announced: object = None  # what the schedule and the ears were made from

    def close(self) -> None:
        """Close all sockets."""
        self._announcer.close()
        self._ears.close()

    def probe(self, probes: Iterable[Probe], how: Announce, verdict: Verdict) -> None:
        """Probe exactly these addresses; those that are being probed go on, others are given up."""
        wanted = {probe.address: probe for probe in probes}
        for address in [address for address in self._asked if address not in wanted]:
            probe, _ = self._asked.pop(address)
            prober = self._ears.at(probe.link)
            if prober is not None:
                prober.stop([address])
        fresh = [probe for address, probe in wanted.items() if address not in self._asked]
        if not how.asks:
            for probe in fresh:
                verdict(probe, None)
            return
        for link in {probe.link for probe in fresh}:
            prober = self._prober(link, how)
            if prober is None:
                continue  # the link is not there: the next round wants the probe again
            mine = [probe for probe in fresh if probe.link == link]
            self._asked.update((probe.address, (probe, verdict)) for probe in mine)
            prober.start((probe.address for probe in mine), self._loop.now_s())
            self._ears.tick(link)

    def announce(self, decided: Decided, made: Iterable[Resource]) -> None:
        """Announce what is held, beginning with what was made just now; listen for others who claim it."""
        if decided.claims is None:
            return
        how, links = decided.claims.gateway.announce, decided.snapshot.facts.links
        wants = decided.desired.wants  # of 50,000, asking isinstance would take 20 ms
        wanted = [one for one in wants if type(one) is LinkAddress or type(one) is TenantLink]
        fresh = {one for one in made if isinstance(one, LinkAddress | TenantLink)}
        if fresh or (wanted, links, how) != self._announced:
            self._announced = (wanted, links, how)
            self._announce(dict(_announcements(wanted, links)), fresh, how)
        self._send()

    def _announce(self, held: dict[LinkAddress, Announcement], made: Collection[Resource], how: Announce) -> None:
        if how.method is AnnounceMethod.NONE:
            held = {}
        if how.rate_per_s != self._rate:
            self._rate, self._schedule = how.rate_per_s, Schedule(how.rate_per_s)
        remade = {one.name for one in made if isinstance(one, TenantLink)}
        fresh = [said for one, said in held.items() if one in made or one.link in remade]
        self._schedule.hold(held.values(), made=fresh, now_s=self._loop.now_s())
        self._listen(held.values(), how)

    def _listen(self, held: Iterable[Announcement], how: Announce) -> None:
        by_link: dict[LinkName, list[Announcement]] = {}
        for said in held:
            by_link.setdefault(said.link, []).append(said)
        for link, mine in by_link.items():
            prober = self._prober(link, how)
            if prober is not None:
                prober.hold([said.address for said in mine], {said.mac for said in mine})

    def _send(self) -> None:
        now_s = self._loop.now_s()
        with suppress(Unreachable):  # a NIC is down: the repeats and the reminders come again
            self._announcer.send(self._schedule.due(now_s))
        self._loop.at("announce", self._schedule.next_s(), self._send)

    def _prober(self, link: LinkName, how: Announce) -> Prober | None:
        prober = self._ears.open(link, probes=max(1, how.probes), interval_s=how.probe_interval_s)
        if prober is None:
            self._announced = None  # the next round listens again
        return prober

    def heard(self, link: LinkName, conflict: Conflict) -> None:
        """Take that somebody else has or claims an address: the verdict of its probe, or a claim to what is held."""
        asked = self._asked.pop(conflict.address, None)
        if asked is not None:
            asked[1](asked[0], conflict.mac)
        else:
            self._claimed(conflict.address, conflict.mac)

    def proved_free(self, address: Address) -> None:
        """Take that nobody has a probed address."""
        asked = self._asked.pop(address, None)
        if asked is not None:
            asked[1](asked[0], None)

    def lost(self, link: LinkName) -> None:
        """Forget what was asked on a link that is gone; the next round listens and asks again."""
        self._announced = None
        self._asked = {address: asked for address, asked in self._asked.items() if asked[0].link != link}


def _announcements(
    wanted: Collection[LinkAddress | TenantLink], links: Mapping[LinkName, Link]
) -> Iterator[tuple[LinkAddress, Announcement]]:
    """Yield every wanted address with how it is announced; an uplink whose MAC is unknown announces nothing."""
    tenants = {one.name: one for one in wanted if isinstance(one, TenantLink)}
    for one in wanted:
        if isinstance(one, LinkAddress):
            tenant, link = tenants.get(one.link), links.get(one.link)
            if tenant is not None:
                yield one, Announcement(link=tenant.parent, address=one.address, mac=tenant.mac)
            elif link is not None and link.mac is not None:
                yield one, Announcement(link=link.name, address=one.address, mac=link.mac)
