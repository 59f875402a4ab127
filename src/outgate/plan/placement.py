"""Which node takes each egress IP, where outgate assigns them itself.

What stands somewhere good stays: no address moves because another node would be nicer, or because its old node is back.
An address that its node can not have any more (the label is gone, its network is, another one owns the address) leaves
at once, to another node or to none. One whose node is unwell (draining, not ready, unreachable, or with its network
cut) moves where a node is better, and stays where none is: a failure that all nodes share says nothing about any of
them, and moving would only make it worse. Where an address of the same EgressIP and family stands well, it is given up
instead, because pods spread their flows over all that are assigned. Ties go to the node with the fewest egress IPs,
then by name; older EgressIPs choose first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import TypeAlias

from outgate.model.intent import EgressIP, Intent
from outgate.model.net import Address
from outgate.model.placement import Move, Placed, PlacementFacts
from outgate.model.why import Finding, Severity
from outgate.plan.assignment import unassigned
from outgate.plan.ground import ANY_ILL, Ground, Ill, seniority

_SHOWN = 5  # nodes that a finding names
_BUSY = "it has an address of the EgressIP already"


def place(intent: Intent, facts: PlacementFacts) -> Placed:
    """Return where each address of each EgressIP is to be; what is `assigned` in the intent is where they stand.

    Placing again what was placed moves nothing, once `moves_left` is less by the moves that were counted.
    """
    board = _Board(intent, facts)
    board.settle()
    board.relocate()
    board.assign()
    return Placed(
        items=MappingProxyType({one.name: board.items(one) for one in intent.egress_ips}),
        moves=tuple(board.moves()),
        findings=tuple(board.findings()),
    )


@dataclass(slots=True, eq=False)
class _Seat:
    """One address of an EgressIP: the node that it stands on, the one that it is to be on, and why it goes or waits."""

    egress_ip: EgressIP
    address: Address
    stands: str
    node: str
    reason: str = ""
    counted: bool = False
    waits: str = ""


_Way: TypeAlias = tuple[tuple[_Seat, str], ...]  # addresses of one EgressIP and the nodes that they go to


class _Board:
    """All addresses and where they are, while they are placed."""

    def __init__(self, intent: Intent, facts: PlacementFacts) -> None:
        self._held, self._left = facts.held, facts.moves_left
        self._ground = Ground(intent, facts)
        self._seats: dict[str, tuple[_Seat, ...]] = {}
        self._extra: list[Move] = []
        for egress_ip in sorted(intent.egress_ips, key=seniority):
            stands = {address: self._stands(egress_ip, address) for address in egress_ip.egress_ips}
            self._seats[egress_ip.name] = tuple(_Seat(egress_ip, one, node, node) for one, node in stands.items())
            for node, address in sorted(set(egress_ip.assigned), key=lambda one: (one[1].version, one[1], one[0])):
                if stands.get(address) != node:
                    self._ground.put((egress_ip.name, address), node, "")
                    reason = "it is on another node too" if address in stands else "the EgressIP does not list it"
                    self._extra.append(_move(egress_ip, address, (node, ""), reason))

    def settle(self) -> None:
        """Take addresses from nodes that can not have them."""
        for seat in self._all():
            if seat.node and (reason := self._misplaced(seat)):
                seat.reason = reason
                self._put(seat, "")

    def relocate(self) -> None:
        """Move addresses from nodes that are unwell, and those that lost theirs, until none has a better place.

        One that goes may leave its node to another one of the same EgressIP, so the others are tried again.
        """
        while self._any(self._relocate) or self._any(self._give_up):
            pass

    def assign(self) -> None:
        """Give nodes to addresses that have none.

        One whose every node is cut goes to one of those all the same: what all share says nothing about any of them.
        Not so where a sibling serves its pods, which would lose a part of their flows.
        """
        self._any(lambda seat: self._assign(seat, frozenset()))
        self._any(lambda seat: not self._sibling_serves(seat) and self._assign(seat, frozenset({Ill.CUT})))

    def items(self, egress_ip: EgressIP) -> tuple[tuple[str, Address], ...]:
        """Return the nodes and addresses of an EgressIP that are together now."""
        return tuple((one.node, one.address) for one in self._seats[egress_ip.name] if one.node)

    def moves(self) -> Iterator[Move]:
        """Give what differs from what stands, older EgressIPs first."""
        yield from self._extra
        for seat in self._all():
            if seat.node != seat.stands:
                way = (seat.stands, seat.node)
                yield _move(seat.egress_ip, seat.address, way, seat.reason, counted=seat.counted)

    def findings(self) -> Iterator[Finding]:
        """Give why addresses have no node, and why some stay on one that is unwell."""
        for seats in self._seats.values():
            for seat in seats[:1]:
                placed = replace(seat.egress_ip, assigned=self.items(seat.egress_ip))
                yield from unassigned(placed, self._ground)
            yield from (self._stays(seat) for seat in seats if self._ills(seat))

    def _all(self) -> Iterator[_Seat]:
        return (seat for seats in self._seats.values() for seat in seats)

    def _any(self, change: Callable[[_Seat], bool]) -> bool:
        """Try to change each of them, and return whether one was."""
        changed = [seat for seat in self._all() if change(seat)]
        return bool(changed)

    def _stands(self, egress_ip: EgressIP, address: Address) -> str:
        """Return the node that has an address; of several that are said to, the best."""
        said = {node for node, one in egress_ip.assigned if one == address}

        def badness(node: str) -> tuple[bool, bool, str]:
            unfit = any(self._ground.unfit(address, egress_ip, node))
            return (unfit, unfit or any(self._ground.ills(address, node)), node)

        return min(said, key=badness) if len(said) > 1 else next(iter(said), "")

    def _misplaced(self, seat: _Seat) -> str:
        """Return why an address can not stay on its node, in words; empty: it can."""
        if conflict := self._ground.conflict(seat.address, seat.egress_ip):
            return conflict
        for unfit in self._ground.unfit(seat.address, seat.egress_ip, seat.node):
            return f"{seat.node}: {unfit}"
        others = self._seats[seat.egress_ip.name]
        if any(one.node == seat.node for one in others[: others.index(seat)]):
            return f"{seat.node}: {_BUSY}"
        return ""

    def _ills(self, seat: _Seat) -> dict[Ill, str]:
        return dict(self._ground.ills(seat.address, seat.node)) if seat.node else {}

    def _relocate(self, seat: _Seat) -> bool:
        if not seat.stands or (seat.node and not self._ills(seat)):
            return False
        way = self._way(seat)
        return bool(way) and self._leave(seat, way)

    def _give_up(self, seat: _Seat) -> bool:
        return bool(self._ills(seat)) and self._sibling_serves(seat) and self._leave(seat, ((seat, ""),))

    def _assign(self, seat: _Seat, although: frozenset[Ill]) -> bool:
        way = self._way(seat, although) if not seat.node else ()
        if way:
            seat.reason = seat.reason or "it had no node"
            self._go(way)
        return bool(way)

    def _leave(self, seat: _Seat, way: _Way) -> bool:
        """Let an address go, unless it has to wait for that; return whether it went."""
        ills = self._ills(seat)
        if ills:
            if Ill.DRAINING not in ills:
                seat.waits = self._wait(seat, ills)
                if seat.waits:
                    return False
                self._left -= 1
                seat.counted = True
            seat.reason = f"{seat.node}: {_listed(ills)}"
        self._go(way)
        return True

    def _wait(self, seat: _Seat, ills: Mapping[Ill, str]) -> str:
        """Return what an address has to wait for before it leaves an unwell node, in words; empty: nothing."""
        if ills.keys() == {Ill.CUT} and (seat.egress_ip.name, seat.address) in self._held:
            return "it moved a short while ago"
        return "" if self._left > 0 else "as many as may move at a time have moved"

    def _way(self, seat: _Seat, although: frozenset[Ill] = frozenset(), before: _Way = ()) -> _Way:
        """Return how an address comes to a node: that with the fewest egress IPs, then by name; empty: to none.

        A node takes one address of an EgressIP. Where all are taken, one that is on its way anyway may go to another,
        and that comes first in what is returned; `before` is who already goes where in this way.
        """
        ground, address, egress_ip = self._ground, seat.address, seat.egress_ip
        if ground.conflict(address, egress_ip):
            return ()
        going = dict(before)
        holders = {one.node: one for one in self._seats[egress_ip.name] if one is not seat and one not in going}
        able = [one for one in ground.able(address, egress_ip, although) if one not in going.values()]
        best_first = sorted(able, key=ground.load)  # they come by name, and sorting keeps that among equals
        open_ = [one for one in best_first if not ground.full(address, egress_ip, one)]
        for name in open_:
            if name not in holders:
                return ((seat, name),)
        for name in open_:
            if holders[name].node != holders[name].stands:
                first = self._way(holders[name], before=(*before, (seat, name)))
                if first:
                    return (*first, (seat, name))
        return ()

    def _sibling_serves(self, seat: _Seat) -> bool:
        """Return whether another address of the EgressIP, of the same family, is on a node that is well."""
        return any(
            one is not seat and one.node and one.address.version == seat.address.version and not self._ills(one)
            for one in self._seats[seat.egress_ip.name]
        )

    def _go(self, way: _Way) -> None:
        for seat, node in way:
            self._put(seat, node)

    def _put(self, seat: _Seat, node: str) -> None:
        self._ground.put((seat.egress_ip.name, seat.address), seat.node, node)
        seat.node = node

    def _stays(self, seat: _Seat) -> Finding:
        """Return why an address stays on a node that is unwell."""
        egress_ip, ills = seat.egress_ip, _listed(self._ills(seat))
        about = f"EgressIP/{egress_ip.name}"
        if seat.waits:
            text = f"{seat.address} stays on {seat.node} for now ({ills}): {seat.waits}"
            fix = "nothing, it is looked at again; if many wait, see what their nodes have in common"
            return Finding("MovesHeld", about, text, Severity.WARNING, fix, egress_ip.origin)
        others = (one for one in self._ground.able(seat.address, egress_ip, ANY_ILL) if one != seat.node)
        reasons = (f"{name}: {self._not_better(seat, name)}" for name in islice(others, _SHOWN))
        text = f"{seat.address} stays on {seat.node} ({ills}), because no other node is better: "
        text += "; ".join(reasons) or "none could have it"
        fix = "see to these nodes and their routers, or label another node that has such a network"
        return Finding("NowhereBetter", about, text, Severity.WARNING, fix, egress_ip.origin)

    def _not_better(self, seat: _Seat, name: str) -> str:
        ills = _listed(dict(self._ground.ills(seat.address, name)))
        return ills or self._ground.full(seat.address, seat.egress_ip, name) or _BUSY


def _listed(ills: Mapping[Ill, str]) -> str:
    return ", ".join(ills.values())


def _move(egress_ip: EgressIP, address: Address, way: tuple[str, str], reason: str, *, counted: bool = False) -> Move:
    return Move(
        egress_ip=egress_ip.name,
        address=address,
        from_node=way[0],
        to_node=way[1],
        reason=reason,
        counted=counted,
    )
