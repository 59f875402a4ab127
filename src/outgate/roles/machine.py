"""The gateway machine: kernel and nftables as one world that a round reads and writes.

Keeps what the last reading saw, so that a round after one small change reads only what was told to have changed.
Writing goes in the order of the changes: neighbouring resources of one system go in one batch or one transaction.

The kernel numbers its rulesets. When a transaction of ours took the number from that of the last reading to the next
one, nobody else wrote, and since a transaction is in force wholly or not at all, the table is what it was with what the
transaction said. That is believed until the next audit, which lists the table: a listing of 40,000 elements costs a
third of a second, and would come with every change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from outgate.compare.order import OWN_LINK_PREFIX, make_rank
from outgate.control.loop import Readable
from outgate.model.errors import Refused
from outgate.model.ledger import Ledger
from outgate.model.net import LinkAddress, LinkName, LinkSetting, Mark, Route, Rule, Span, TenantLink
from outgate.model.ruleset import Element, Table
from outgate.model.state import Changes, Failure, Reading, Resource
from outgate.model.why import Because
from outgate.systems.host import handover, macvlans
from outgate.systems.kernel import read as kernel
from outgate.systems.kernel import write as kernel_write
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.events import Watch
from outgate.systems.kernel.outbox import no_boundary
from outgate.systems.kernel.uapi import NETLINK_ROUTE
from outgate.systems.netlink import NetlinkSocket, Overrun
from outgate.systems.nft import read as nft
from outgate.systems.nft import write as nft_write
from outgate.systems.nft.parse import Counts
from outgate.systems.nft.table import GATEWAY, digest

_NFT_GROUP = 7  # NFNLGRP_NFTABLES: a new generation of the ruleset


class GatewayMachine:
    """This machine, in the network namespace of the thread that makes it."""

    def __init__(
        self, trusted: Mapping[str, str] = nft.NO_TRUST, learned: Callable[[Mapping[str, str]], None] | None = None
    ) -> None:
        """Open what is needed to read and write; `trusted` and `learned` are about listings of the table (see
        `nft.read`).
        """
        self._socket = NetlinkSocket(NETLINK_ROUTE)
        self._cache = Cache()
        self._watch = Watch(own_ports=(self._socket.port,), is_known=self._cache.knows)
        self._nft_events = NetlinkSocket(nft.NETLINK_NETFILTER)
        self._nft_events.subscribe((_NFT_GROUP,))
        self._dirty: frozenset[kernel.Part] = kernel.ALL_PARTS
        self._table: nft.Reading | None = None
        self._listed = True  # the table was listed since we changed it
        self._trusted = dict(trusted)
        self._learned = learned
        self._joined: tuple[Reading, nft.Reading, Reading] | None = None
        self.boundary: Callable[[str], None] = no_boundary
        self._used: Mapping[Mark, int] = {}  # bytes of their quota that tenants have used, for a table loaded anew

    def close(self) -> None:
        """Close the sockets; the machine stays as it is."""
        self._socket.close()
        self._watch.close()
        self._nft_events.close()

    @property
    def digest(self) -> str:
        """The digest of the table that this program renders."""
        return digest()

    def watched(self) -> Iterable[Readable]:
        """Return what becomes readable when the machine changed."""
        return (self._watch, self._nft_events)

    def changed(self) -> bool:
        """Consume notifications; say whether somebody else changed what a round reads."""
        self._dirty |= self._watch.changed()
        self._drain_nft_events()
        return bool(self._dirty) or self._table is None or nft.generation() != self._table.generation

    def distrust(self) -> None:
        """Let the next reading read everything anew: notifications may have been lost, and some changes send none."""
        self._dirty = kernel.ALL_PARTS
        self._table = self._table if self._listed else None

    def read(self, ledger: Ledger) -> Reading:
        """Return a complete reading; what nobody has told to have changed is taken from the last one."""
        self._dirty |= self._watch.changed()
        self._drain_nft_events()
        links = kernel.read(self._socket, self._cache, recorded=ledger.addresses_made, parts=self._dirty)
        self._dirty = frozenset()
        self._table = self._read_table()
        if self._joined is None or self._joined[0] is not links or self._joined[1] is not self._table:
            table: frozenset[Resource] = frozenset((self._table.table,)) if self._table.table else frozenset()
            joined = Reading(facts=links.facts, actual=links.actual | self._table.elements | table)
            self._joined = (links, self._table, joined)
        return self._joined[2]

    def write(self, planned: Changes, wants: Mapping[Resource, Because]) -> tuple[Failure, ...]:
        """Write the changes in their order; return what was refused."""
        failures: list[Failure] = []
        whole = any(isinstance(resource, Table) for resource in planned.make)
        for in_table, run in groupby(planned.make, key=_in_table):
            resources = tuple(run)
            if not in_table:
                failures += self._write_kernel(resources, ())
            elif not whole:
                failures += self._change_table(_elements(resources), _in_the_way(resources, planned.drop))
            elif make_rank(resources[0]) == make_rank(Table("")):
                failures += self._load_table(_elements(wants))
        gone = any(isinstance(resource, Table) for resource in planned.drop)
        for in_table, run in groupby(planned.drop, key=_in_table):
            resources = tuple(run)
            if not in_table:
                failures += self._write_kernel((), resources)
            elif any(isinstance(resource, Table) for resource in resources):
                nft_write.remove()
                self.boundary("table removed")
            elif not (whole or gone):  # with the table its elements go, and not before: they are its guards
                early = set(_in_the_way(planned.make, resources))
                failures += self._change_table((), tuple(e for e in _elements(resources) if e not in early))
        return tuple(failures)

    def received(self, links: Iterable[LinkName]) -> Mapping[LinkName, int]:
        """Return how many unicast packets links of somebody else have received."""
        return macvlans.received(links)

    def quotas_used(self) -> Mapping[Mark, int]:
        """Return the bytes of its quota that each tenant has used, by mark."""
        return nft.counts().used

    def begin_quotas(self, used: Mapping[Mark, int], renewed: Iterable[Mark]) -> None:
        """Let a table that is loaded anew begin with what was used, and let these quotas begin anew now."""
        self._used = used
        nft_write.renew(renewed)

    def counts(self) -> Counts:
        """Return what the table has counted."""
        return nft.counts()

    def _write_kernel(self, make: tuple[Resource, ...], drop: tuple[Resource, ...]) -> tuple[Failure, ...]:
        self._dirty |= frozenset().union(*(_PARTS[kind] for kind in {type(one) for one in (*make, *drop)}))
        taken = [one for one in drop if isinstance(one, TenantLink) and not one.name.startswith(OWN_LINK_PREFIX)]
        failures = kernel_write.write(
            self._socket, self._cache, make, tuple(one for one in drop if one not in taken), self.boundary
        )
        return (*failures, *self._remove_adopted(taken))

    def _remove_adopted(self, links: Iterable[TenantLink]) -> Iterator[Failure]:
        """Remove links of a former script; the kernel's room drops none that does not carry our sign."""
        for link in links:
            words = handover.remove_link(link.name)
            self.boundary("an adopted link")
            if words:
                yield Failure(link, words)

    def _load_table(self, elements: tuple[Element, ...]) -> tuple[Failure, ...]:
        loaded = nft_write.load(elements, used=self._used)
        self.boundary("table loaded")
        reading, wanted = loaded.reading, frozenset(elements)
        if reading.elements == wanted:  # one object for what is wanted and what is there: 10 MB less of 40,000
            reading = replace(reading, elements=wanted)
        self._table, self._listed = reading, True
        if loaded.learned and self._trusted.keys() != {**self._trusted, **loaded.learned}.keys():
            self._trusted.update(loaded.learned)
            if self._learned is not None:
                self._learned(self._trusted)
        return loaded.failures

    def _change_table(self, make: tuple[Element, ...], drop: tuple[Element, ...]) -> tuple[Failure, ...]:
        """Change elements in one transaction; an element that gets another value is replaced in it."""
        before = self._table
        actual = before.elements if before is not None else frozenset[Element]()
        old = _standing(actual, make)
        failures = nft_write.write(make, drop, actual=old, used=self._used)
        self.boundary("table changed")
        if before is not None and not failures and nft.generation() == before.generation + 1:
            elements = actual.difference(old, drop) | frozenset(make)
            self._table, self._listed = replace(before, generation=before.generation + 1, elements=elements), False
        return failures

    def _read_table(self) -> nft.Reading:
        """Return the table as it is now; elements that were there before are the very same objects."""
        before, now = self._table, nft.read(self._table, trusted=self._trusted)
        if words := nft.foreign_to(GATEWAY, now):
            raise Refused("read this machine", f"{words}: one network namespace has one of the two roles")
        if now is before:
            return now
        self._listed = True
        known = self._joined[1].elements if self._joined is not None else frozenset[Element]()
        kept = known - (known - now.elements)
        return replace(now, elements=kept if len(kept) == len(now.elements) else kept | (now.elements - kept))

    def _drain_nft_events(self) -> None:
        """Consume notifications about rulesets; whether one matters is told by the generation."""
        while True:
            try:
                for _ in self._nft_events.events():
                    pass
            except Overrun:
                continue
            return


_PARTS = {
    TenantLink: kernel.ALL_PARTS,
    LinkSetting: kernel.ALL_PARTS,
    LinkAddress: frozenset({kernel.Part.ADDRESSES}),
    Route: frozenset({kernel.Part.ROUTES}),
    Rule: frozenset({kernel.Part.RULES}),
}  # what must be read again after a resource was written; what follows from it in the kernel is told by events


def _standing(actual: Iterable[Element], make: Iterable[Element]) -> frozenset[Element]:
    """Return the elements that stand where others are to be made."""
    places = {(element.set, element.key) for element in make}
    names = {name for name, _ in places}
    return frozenset(one for one in actual if one.set in names and (one.set, one.key) in places)


def _in_table(resource: Resource) -> bool:
    return isinstance(resource, Table | Element)


def _in_the_way(make: Iterable[Resource], drop: Iterable[Resource]) -> tuple[Element, ...]:
    """Return the ranges to drop in the transaction that makes others in the same sets: the kernel takes no overlaps."""
    sets = {element.set for element in _elements(make)}
    return tuple(e for e in _elements(drop) if e.set in sets and any(isinstance(part, Span) for part in e.key))


def _elements(resources: Iterable[Resource]) -> tuple[Element, ...]:
    return tuple(resource for resource in resources if isinstance(resource, Element))
