"""Looking a destination up as the kernel does: rules in order of priority, and in each table the longest prefix.

A table becomes a list of disjoint ranges once, so that a look-up is a search in a sorted list: a million of them over
100,000 routes take less than a second. Several next hops of one prefix and metric are all winners; which of them a flow
takes is the kernel's choice. Source: ip-rule(8), ip-route(8).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from outgate.model.host_table import HostTables
from outgate.model.net import Address, Discard, LinkName, Mark, NextHop, Route, Rule, TableId

LOCAL = TableId(255)  # the machine's own addresses: not among the routes that are read


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look-up came to: the rule, the winning legs, and the table that has them.

    Without legs nothing matches, unless `discard` says that a rule itself ends the packet. `unsure` are rules that may
    apply and were passed over, because they ask for more than is known of the packet.
    """

    rule: Rule | None = None
    legs: tuple[Route, ...] = ()
    table: Table | None = None
    discard: Discard | None = None
    unsure: tuple[Rule, ...] = ()

    @property
    def route(self) -> Route | None:
        """The winner, the first leg of several."""
        return self.legs[0] if self.legs else None


_BITS, _LARGE = 16, 1_000  # a large table is searched within what shares these first bits


class Table:
    """The routes of one table and IP version, searchable."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        by_prefix: dict[tuple[int, int], list[Route]] = {}
        for route in self._routes:
            by_prefix.setdefault((int(route.dst.network_address), route.dst.prefixlen), []).append(route)
        winners = [
            (first, first + (1 << (legs[0].dst.max_prefixlen - length)) - 1, winning(legs))
            for (first, length), legs in sorted(by_prefix.items())
        ]
        self._starts, self._held = _flattened(winners)
        self._shift = (self._routes[0].dst.max_prefixlen if self._routes else 32) - _BITS
        self._from = _first_of_each(self._starts, self._shift) if len(self._starts) > _LARGE else []

    def find(self, destination: Address) -> tuple[Route, ...]:
        """Return the winning legs for an address; none where nothing matches."""
        return self.at(int(destination))

    def at(self, number: int) -> tuple[Route, ...]:
        """Return the same for an address as a number."""
        if not self._from:
            return self._held[bisect_right(self._starts, number) - 1]
        part = number >> self._shift
        return self._held[bisect_right(self._starts, number, self._from[part], self._from[part + 1]) - 1]

    def losers(self, destination: Address) -> tuple[Route, ...]:
        """Return the routes that match and lose, best first. It walks through all: for one question, not a million."""
        won = self.find(destination)
        return tuple(route for route in _ranked(self._routes, destination) if route not in won)


class Fib:
    """All rules and tables of a machine."""

    def __init__(self, host: HostTables) -> None:
        self._rules: dict[int, list[Rule]] = {4: [], 6: []}
        for rule in sorted(host.rules, key=lambda one: (one.priority, str(one))):
            self._rules[rule.version].append(rule)
        routes: dict[tuple[int, TableId], list[Route]] = {}
        for route in host.routes:
            routes.setdefault((route.dst.version, route.table), []).append(route)
        self._tables: Mapping[tuple[int, TableId], Table] = {key: Table(some) for key, some in routes.items()}

    def table(self, number: TableId, version: int) -> Table | None:
        """Return one table of one IP version; None when it holds no route."""
        return self._tables.get((version, number))

    def find(
        self, source: Address, destination: Address, *, incoming: LinkName | None = None, mark: Mark | None = None
    ) -> Found:
        """Return where a packet goes. Without a mark, rules that ask for one are passed over as unsure.

        Which routes lost is not looked for: `Found.table` can be asked.
        """
        unsure: tuple[Rule, ...] = ()
        for rule in self._rules[destination.version]:
            if not _matches(rule, source, destination, incoming):
                continue
            if rule.more or (rule.mark is not None and mark is None):
                unsure += (rule,)
                continue
            if rule.mark is not None and (mark or 0) & (rule.mask or 0xFFFFFFFF) != rule.mark & (
                rule.mask or 0xFFFFFFFF
            ):
                continue
            if isinstance(rule.action, Discard):
                return Found(rule=rule, discard=rule.action, unsure=unsure)
            table = self.table(rule.action, destination.version)
            legs = table.find(destination) if table is not None else ()
            if table is not None and legs and legs[0].hop is not Discard.THROW:
                return Found(rule=rule, legs=legs, table=table, unsure=unsure)
        return Found(unsure=unsure)


def best(routes: Iterable[Route], destination: Address) -> Route | None:
    """Return the route that wins, the first leg of several. It walks through all: for few routes or one question."""
    return next(iter(_ranked(routes, destination)), None)


def winning(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Return the legs of the lowest metric, of the routes of one prefix."""
    lowest = min(route.metric for route in routes)
    return tuple(sorted((route for route in routes if route.metric == lowest), key=str))


def together(routes: Iterable[Route]) -> list[Route]:
    """Return routes as a table can hold them alone: legs of one slot have weights, one that is alone there has none.

    Where one route of a slot discards, it is the only one: the kernel has either, and less is let through that way.
    """
    slots: dict[Hashable, dict[NextHop, Route]] = {}
    for route in routes:
        slots.setdefault(route.slot, {})[route.hop] = route
    found: list[Route] = []
    for by_hop in slots.values():
        legs = sorted((leg for hop, leg in by_hop.items() if isinstance(hop, Discard)), key=str)[:1] or by_hop.values()
        is_alone = len(legs) == 1
        found += [leg if bool(leg.weight) != is_alone else replace(leg, weight=0 if is_alone else 1) for leg in legs]
    return found


def _matches(rule: Rule, source: Address, destination: Address, incoming: LinkName | None) -> bool:
    return (
        (rule.src is None or source in rule.src)
        and (rule.dst is None or destination in rule.dst)
        and (rule.incoming is None or rule.incoming == incoming)
    )


def _ranked(routes: Iterable[Route], destination: Address) -> list[Route]:
    """Return the routes that match: by the longest prefix, then the lowest metric."""
    fitting = (one for one in routes if one.dst.version == destination.version and destination in one.dst)
    return sorted(fitting, key=lambda one: (-one.dst.prefixlen, one.metric, str(one)))


def _first_of_each(starts: Sequence[int], shift: int) -> list[int]:
    """Return, for each value of the first bits, where its ranges begin, and the end behind the last."""
    found, place = [], 0
    for part in range(1 << _BITS):
        while place < len(starts) and starts[place] >> shift < part:
            place += 1
        found.append(place)
    return [*found, len(starts)]


def _flattened(
    winners: Sequence[tuple[int, int, tuple[Route, ...]]],
) -> tuple[list[int], list[tuple[Route, ...]]]:
    """Return where each range starts and what holds there. Prefixes nest: the inner one wins within its range."""
    starts: list[int] = [0]
    held: list[tuple[Route, ...]] = [()]
    around: list[
        tuple[int, tuple[Route, ...]]
    ] = []  # the prefixes that the walk is inside of, as last address and legs

    def begin(start: int, legs: tuple[Route, ...]) -> None:
        if starts[-1] == start:
            held[-1] = legs
        else:
            starts.append(start)
            held.append(legs)

    def leave(before: int) -> None:
        while around and around[-1][0] < before:
            last, _ = around.pop()
            begin(last + 1, around[-1][1] if around else ())

    for first, last, legs in winners:
        leave(first)
        begin(first, legs)
        around.append((last, legs))
    leave(1 << 129)
    return starts, held
