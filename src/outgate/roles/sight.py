"""What `explain`, `trace`, `doctor` and `plan` look at: a snapshot, the plan, and what the machine holds; of this
machine now, or of another one when a bundle was taken. Where it comes from is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from outgate.control.round import Asked, Decided, decide
from outgate.model.firewall import Firewall
from outgate.model.flow import Flow
from outgate.model.host import Host
from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.state import Desired, Moment, Reading, Snapshot
from outgate.roles.gateway import look, state_of
from outgate.roles.options import GatewayOptions, place_of
from outgate.sources.bundle import Bundle
from outgate.systems.conntrack import read as conntrack
from outgate.systems.host import read as host
from outgate.systems.iptables import read as firewall
from outgate.systems.nft.table import digest
from outgate.trace.world import World, world_of_actual


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One look at a gateway. `actual` is the machine as a packet meets it, `before` the ledger as it was found.

    `bundle` is where it comes from, None for this machine.
    """

    decided: Decided
    actual: World
    before: Ledger
    bundle: Bundle | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What was asked and what is there."""
        return self.decided.snapshot

    @property
    def desired(self) -> Desired:
        """What is wanted."""
        return self.decided.desired


@dataclass(frozen=True, slots=True)
class _Taken:
    """The machine of a bundle: it was read once, and whatever is asked, that is the answer."""

    reading: Reading
    digest: str

    def read(self, ledger: Ledger) -> Reading:
        """Return the reading; the ledger had its say when it was made."""
        del ledger
        return self.reading


def sight_of(options: GatewayOptions, intent: Intent | None = None) -> Sight:
    """Look at this machine, or at the options' bundle; nothing is written. `intent`, if it was read already.

    Raises:
        NotReady: something can not be read completely, or the bundle lacks it.
        IntentError: the bundle can not be read.
    """
    if options.bundle is not None:
        return _sight_of_bundle(options, Bundle.open(options.bundle))
    before = state_of(place_of(options)).load().ledger
    decided = look(options, intent)
    return Sight(decided=decided, actual=_actual(decided, digest()), before=before)


def flows_of(sight: Sight, limit: int) -> Iterator[Flow]:
    """Yield live flows, at most so many; of a bundle, those of its sample.

    Raises:
        Refused: connection tracking can not be read.
        NotReady: the bundle lacks it.
    """
    if sight.bundle is None:
        return conntrack.flows(limit=limit)
    return islice(sight.bundle.need("flows"), limit)


def surroundings_of(sight: Sight) -> tuple[Host, Firewall]:
    """Return what else lives on the machine, and what other programs' firewalls hold.

    Raises:
        Unreachable: a program is there, but fails or does not answer.
        NotReady: the bundle lacks it.
    """
    if sight.bundle is None:
        return host.read(), firewall.read()
    return sight.bundle.need("host"), sight.bundle.need("firewall")


def _sight_of_bundle(options: GatewayOptions, bundle: Bundle) -> Sight:
    """Decide again what was decided there: the same pure functions on the same facts say the same."""
    about = bundle.about
    before: Ledger = bundle.need("ledger")
    asked = Asked(
        intent=bundle.need("intent"),
        ledger=before,
        moment=Moment(now_s=about.taken_s),
        gateway=options.name or about.gateway,
    )
    decided = decide(_Taken(bundle.need("reading"), about.digest), asked)
    return Sight(decided=decided, actual=_actual(decided, about.digest), before=before, bundle=bundle)


def _actual(decided: Decided, rendered: str) -> World:
    return world_of_actual(decided.reading.actual, decided.reading.facts, rendered)
