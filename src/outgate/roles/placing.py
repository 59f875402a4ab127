"""The part of the cluster role that assigns egress IPs, where outgate does all of EgressIP: how the nodes do, and what
follows from it.

It holds what only time tells: which nodes do not answer, and which addresses moved a short while ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import MappingProxyType

from outgate.control.pulses import Pulses
from outgate.model.intent import EgressIP, Intent
from outgate.model.net import Address
from outgate.model.placement import Move, NodeHealth, Placed, PlacementFacts
from outgate.plan.placement import place

_HOLD_S = 60.0  # an address that a failure moved stays where it is as long, if only its path is cut
_MOST_LOST = 0.5  # the share of egress nodes that may be unwell at once before nothing moves


class Placing:
    """One replica's memory of how nodes do."""

    def __init__(self, port: int, wake: Callable[[], None]) -> None:
        """`port` is where the role on each node answers; `wake` is called when it matters."""
        self._pulses = Pulses(port, wake)
        self._moved_s: dict[tuple[str, Address], float] = {}

    def close(self) -> None:
        """Ask no node any more."""
        self._pulses.close()

    def place(self, intent: Intent, now_s: float) -> Placed:
        """Return where egress IPs are to be. `now_s` is monotonic."""
        able = [one for one in intent.nodes if one.assignable and one.internal_ips]
        self._pulses.watch({one.name: one.internal_ips[0] for one in able})
        health = dict(self._health(intent))
        unwell = [one for one in able if not one.ready or not health.get(one.name, NodeHealth()).reachable]
        self._moved_s = {key: at for key, at in self._moved_s.items() if now_s - at < _HOLD_S}
        facts = PlacementFacts(
            health=MappingProxyType(health),
            held=frozenset(self._moved_s),
            moves_left=0 if able and len(unwell) > _MOST_LOST * len(able) else len(intent.egress_ips) * len(able),
        )
        placed = place(intent, facts)
        self._moved_s |= {(one.egress_ip, one.address): now_s for one in placed.moves if one.counted}
        return placed

    def _health(self, intent: Intent) -> Iterator[tuple[str, NodeHealth]]:
        told = {one.name: one for one in intent.egress_nodes}
        ours = {one.address for node in intent.egress_nodes if node.programmed for one in node.assignments if one.pods}
        lost = self._pulses.lost
        for name in {*told, *lost}:
            node = told.get(name)
            yield (
                name,
                NodeHealth(
                    reachable=name not in lost,
                    cut=frozenset(node.cut) if node is not None else frozenset(),
                    taken=MappingProxyType({one: mac for one, mac in node.taken if one not in ours} if node else {}),
                ),
            )


def as_placed(intent: Intent, placed: Placed) -> Intent:
    """Return an intent in which EgressIPs are where they were placed."""
    return replace(intent, egress_ips=tuple(replace(one, assigned=placed.items[one.name]) for one in intent.egress_ips))


def differing(intent: Intent, placed: Placed) -> Iterator[tuple[EgressIP, tuple[tuple[str, Address], ...]]]:
    """Yield the EgressIPs whose status says something else, with what it is to say."""
    for one in intent.egress_ips:
        if set(one.assigned) != set(placed.items[one.name]):
            yield one, placed.items[one.name]


def told(move: Move) -> dict[str, str]:
    """Return a move as fields of a line in the log."""
    return {
        "egress ip": f"{move.egress_ip} {move.address}",
        "from": move.from_node,
        "to": move.to_node,
        "because": move.reason,
    }
