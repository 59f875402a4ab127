"""What `explain`, `trace` and `doctor` look at: a snapshot, the plan, and what the machine holds, live or from a
bundle.
"""

from __future__ import annotations

from dataclasses import dataclass

from outgate.control.round import Decided
from outgate.model.state import Desired, Snapshot
from outgate.roles.gateway import look
from outgate.roles.options import GatewayOptions
from outgate.systems.nft.table import digest
from outgate.trace.world import World, world_of_actual


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One look at a gateway. `actual` is the machine as a packet meets it."""

    decided: Decided
    actual: World

    @property
    def snapshot(self) -> Snapshot:
        """What was asked and what is there."""
        return self.decided.snapshot

    @property
    def desired(self) -> Desired:
        """What is wanted."""
        return self.decided.desired


def sight_of(options: GatewayOptions) -> Sight:
    """Look at this machine; nothing is written."""
    decided = look(options)
    facts = decided.reading.facts
    return Sight(decided=decided, actual=world_of_actual(decided.reading.actual, facts, digest()))
