"""A cluster node as one world: its routes and rules, its table of nftables and its zone of OVN.

The order of writing lets no packet leave untranslated: first the host and the gateway router learn to translate, then
OVN sends them packets, in one transaction that also takes back what is not wanted any more; only then they forget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from outgate.compare.changes import changes
from outgate.model.errors import Refused
from outgate.model.firewall import Firewall
from outgate.model.flow import Flow
from outgate.model.host_table import HostTables
from outgate.model.net import Address, Answered, Prefix, Route, Rule, Span
from outgate.model.ovn import Action, DropAcl, LogicalRoute, OvnRow, Policy, QosMark, SetMember, Snat
from outgate.model.ruleset import Element, Table
from outgate.model.state import Changes, Desired, Failure, Outcome, Resource
from outgate.model.why import Because
from outgate.plan.own import EXCEPTIONS
from outgate.systems.conntrack import read as conntrack
from outgate.systems.conntrack import write as conntrack_write
from outgate.systems.iptables import read as firewalls
from outgate.systems.kernel import answers
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.read import read as read_kernel
from outgate.systems.kernel.tables import read_tables
from outgate.systems.kernel.uapi import NETLINK_ROUTE
from outgate.systems.kernel.write import write as kernel_write
from outgate.systems.netlink import NetlinkSocket
from outgate.systems.nft import read as nft
from outgate.systems.nft import write as nft_write
from outgate.systems.nft.table import NODE, digest, set_types
from outgate.systems.ovn.northbound import Northbound, NorthboundReading

_WITHDRAWN = ("withdrawn4", "withdrawn6")
_OURS = frozenset(set_types(NODE)) - {*_WITHDRAWN}
_OF_PODS = ("served", "departing")  # sets of pods that have an egress IP here, and that run here and have one anywhere
_RESTS_S = 120.0  # as long as the kernel keeps their elements, the table stands though nobody wants it
_APPLIED_S = (
    5.0  # a chassis takes some milliseconds to do what its zone says; when it takes longer, a round comes again
)


def _no_boundary(_: str) -> None:
    """Pass a place between two writes; tests stop there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """One look at a node: `actual` is ours, in nftables and OVN; `firewall` is what others filter by."""

    host: HostTables
    firewall: Firewall
    northbound: NorthboundReading
    table: nft.Reading
    actual: frozenset[Resource]


class NodeMachine:
    """This node, in the network namespace of the calling thread, and the northbound database of its zone."""

    def __init__(self, northbound: Northbound) -> None:
        self._northbound = northbound
        self._socket = NetlinkSocket(NETLINK_ROUTE)
        self._cache = Cache()
        self._table: nft.Reading | None = None
        self._firewall: tuple[int, Firewall] | None = None  # and the generation of the ruleset that it was read at
        self._trusted: dict[str, str] = {}
        self._rests_until_s = 0.0  # monotonic
        self.boundary: Callable[[str], None] = _no_boundary

    @property
    def digest(self) -> str:
        """The digest of the nftables table that this program renders for a node."""
        return digest(NODE)

    def read(self) -> NodeReading:
        """Return a complete reading.

        Raises:
            NotReady: routes kept changing while they were read, or nft is missing.
            Refused: nftables can not be read.
            Unreachable: netlink, nft or the database does not answer.
        """
        self._northbound.catch_up()
        northbound = self._northbound.read()
        self._table = table = nft.read(self._table, trusted=self._trusted)
        if words := nft.foreign_to(NODE, table):
            raise Refused("read this node", f"{words}: one network namespace has one of the two roles")
        kernel = read_kernel(self._socket, self._cache).actual
        in_table: set[Resource] = {one for one in table.elements if one.set in _OURS}
        if table.table is not None and (in_table or time.monotonic() >= self._rests_until_s):
            in_table.add(table.table)
        return NodeReading(
            host=read_tables(),
            firewall=self._others(table.generation),
            northbound=northbound,
            table=table,
            actual=frozenset(in_table | northbound.actual | kernel | answers.read(self._socket)),
        )

    def _others(self, generation: int) -> Firewall:
        """Return what others filter by, read again when somebody else changed a ruleset of nftables since.

        Rules of iptables-legacy, which no generation counts, are looked at no more often than that.
        """
        if self._firewall is None or self._firewall[0] != generation:
            self._firewall = (generation, firewalls.read())
        return self._firewall[1]

    def settle(self, desired: Desired, reading: NodeReading) -> Outcome:
        """Write what differs from what was read, and read again.

        Raises:
            NotReady, Refused, Unreachable: as `read` and `write`.
        """
        planned = changes(desired.wants, reading.actual)
        if not planned:
            return Outcome()
        failures = self.write(planned, desired.wants)
        left = changes(desired.wants, self.read().actual)
        return Outcome(changes=planned, failures=failures, left=left)

    def write(self, planned: Changes, wants: Mapping[Resource, Because]) -> tuple[Failure, ...]:
        """Write changes in the order that lets nothing leave untranslated; return what was refused."""
        made, dropped = _elements(planned.make), _elements(planned.drop)
        in_the_way = [one for one in dropped if one.set in {each.set for each in made} and _is_range(one)]
        failures: list[Failure] = []
        is_new = any(isinstance(one, Table) for one in planned.make)
        if is_new:
            loaded = nft_write.load(_elements(wants), of=NODE)
            self._trusted.update(loaded.learned)
            failures += loaded.failures
            self._table = loaded.reading
            self.boundary("table loaded")
        elif made:
            failures += self._change_table(made, in_the_way)
            self.boundary("elements made")
        failures += self._write_kernel(planned.make, ())
        failures += self._answer(planned.make, ())
        made_rows, dropped_rows = _rows(planned.make), _rows(planned.drop)
        for make, drop in (
            ([one for one in made_rows if not _sends(one)], []),
            ([one for one in made_rows if _sends(one)], [one for one in dropped_rows if _sends(one)]),
            ([], [one for one in dropped_rows if not _sends(one)]),
        ):
            failures += self._write_rows(make, drop) if not failures else []
            if failures or ((make or drop) and not self._northbound.wait_until_applied(_APPLIED_S)):
                return tuple(failures)  # packets may still come: what translates them stays until the next round
        if made_rows or dropped_rows:
            self._forget_flows(dropped_rows, wants)
        failures += self._answer((), planned.drop)
        failures += self._write_kernel((), planned.drop)
        late = [one for one in dropped if one not in in_the_way]
        withdrawn = _withdrawn(made, dropped) if not is_new else ()
        if withdrawn:
            failures += self._change_table(withdrawn, late)
            self._rests_until_s = time.monotonic() + _RESTS_S
            self.boundary("elements dropped")
        elif any(isinstance(one, Table) for one in planned.drop) and not is_new:
            nft_write.remove()
            self.boundary("table removed")
        elif late and not is_new:
            failures += self._change_table((), late)
            self.boundary("elements dropped")
        return tuple(failures)

    def end_rest(self) -> None:
        """Let the table not rest: the next round that wants nothing removes it."""
        self._rests_until_s = 0.0

    def _forget_flows(self, dropped: Iterable[OvnRow], wants: Mapping[Resource, Because]) -> None:
        """Let connection tracking forget flows to the outside that come by the host no longer, or had another address.

        Should they come again, they are taken up anew. By an old entry, whose window they have left meanwhile, they
        would be invalid, and translated by nobody; by one with another address, the guard would stop them.
        """
        members = [one for one in wants if isinstance(one, SetMember)]
        far = [one.member for one in members if "_far" in one.set]
        own = {one.key[0]: one.value for one in wants if isinstance(one, Element) and one.set.startswith("pod_snat")}
        gone = {one.member.network_address for one in dropped if isinstance(one, SetMember) and "_pods" in one.set}
        pods = gone | {one.member.network_address for one in members if "_pods" in one.set}
        elements = self._table.elements if self._table is not None else ()
        inside = [one.key[0] for one in elements if one.set.startswith("inside") and isinstance(one.key[0], Span)]

        def is_stale(flow: Flow) -> bool:
            src, dst, seen = flow.original.src, flow.original.dst, flow.reply.dst
            if src not in pods or seen == src or any(dst in span for span in inside):
                return False
            return own.get(src) != seen or not any(_holds(one, dst) for one in far)

        stale = [flow for flow in conntrack.flows() if is_stale(flow)]
        if stale:
            conntrack_write.delete(stale)
            self.boundary("flows forgotten")

    def _change_table(self, make: Sequence[Element], drop: Sequence[Element]) -> tuple[Failure, ...]:
        """Change elements in one transaction. When it took the ruleset from the number of the last reading to the next
        one, nobody else wrote, and the table is what it was with what the transaction said: it is not listed again.
        """
        before = self._table
        actual = before.elements if before is not None else frozenset[Element]()
        failures = nft_write.write(make, drop, actual=actual)
        if before is not None and not failures and nft.generation() == before.generation + 1:
            places = {(one.set, one.key) for one in make}
            kept = (one for one in actual.difference(drop) if (one.set, one.key) not in places)
            self._table = replace(before, generation=before.generation + 1, elements=frozenset(kept) | frozenset(make))
            if self._firewall is not None and self._firewall[0] == before.generation:
                self._firewall = (before.generation + 1, self._firewall[1])
        return failures

    def _write_kernel(self, making: Sequence[Resource], dropping: Sequence[Resource]) -> tuple[Failure, ...]:
        """Write rules and routes: tables before the rules that lead there, and rules away before their tables."""
        make, drop = ([one for one in some if isinstance(one, Route | Rule)] for some in (making, dropping))
        make.sort(key=lambda one: isinstance(one, Rule))
        drop.sort(key=lambda one: isinstance(one, Route))
        return kernel_write(self._socket, self._cache, make, drop, self.boundary) if make or drop else ()

    def _answer(self, making: Sequence[Resource], dropping: Sequence[Resource]) -> tuple[Failure, ...]:
        make, drop = ([one for one in some if isinstance(one, Answered)] for some in (making, dropping))
        if not make and not drop:
            return ()
        return answers.write(self._socket, self._cache.indexes, make, drop, self.boundary)

    def close(self) -> None:
        """Close the netlink socket; the node stays as it is."""
        self._socket.close()

    def _write_rows(self, make: list[OvnRow], drop: list[OvnRow]) -> list[Failure]:
        """Write rows in one transaction; a refusal is that of each of them."""
        if not make and not drop:
            return []
        try:
            self._northbound.write(make, drop)
        except Refused as refused:
            return [Failure(one, refused.words) for one in (*make, *drop)]
        self.boundary("rows written")
        return []


def _withdrawn(made: Iterable[Element], dropped: Iterable[Element]) -> tuple[Element, ...]:
    """Return the elements that note the pods which lose their egress IP, here or on the way from here: the last packets
    of their flows, which connection tracking makes nothing of any more, would be translated by nobody.
    """
    stay = {one.key for one in made if one.set.startswith(_OF_PODS)}
    gone = {(one.set[-1], one.key) for one in dropped if one.set.startswith(_OF_PODS) and one.key not in stay}
    return tuple(Element(f"withdrawn{version}", key) for version, key in sorted(gone, key=str))


def _sends(row: OvnRow) -> bool:
    """Whether a row sends pods' packets on their way. What translates, guards and excepts stands before, and longer: a
    chassis does what one transaction says piece by piece.
    """
    if isinstance(row, SetMember):
        return any(what in row.set for what in ("_to", "_pods", "_far"))
    return isinstance(row, Policy) and row.action is Action.REROUTE and row.priority != EXCEPTIONS


def _holds(prefix: Prefix, address: Address) -> bool:
    return prefix.version == address.version and address in prefix


def _is_range(element: Element) -> bool:
    return any(isinstance(part, Span) for part in element.key)


def _elements(resources: Iterable[Resource]) -> tuple[Element, ...]:
    return tuple(one for one in resources if isinstance(one, Element))


def _rows(resources: Iterable[Resource]) -> list[OvnRow]:
    return [one for one in resources if isinstance(one, Policy | Snat | LogicalRoute | QosMark | DropAcl | SetMember)]
