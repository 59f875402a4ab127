"""One round: read, allocate, plan, compare, write, read again. Nothing else calls across rooms.

The round holds no state and knows no clock: what it needs comes in, what it decided goes out. The ledger is saved
before anything that depends on it is written, so that a crash at any point leaves numbers that were used in a file that
remembers them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from outgate.compare.changes import Difference, changes_of, difference
from outgate.model.intent import EgressGateway, Intent
from outgate.model.ledger import Ledger
from outgate.model.net import Address, LinkAddress, LinkName, LinkSetting, Mac, Setting
from outgate.model.state import Changes, Desired, Facts, Failure, Moment, Outcome, Reading, Resource, Snapshot
from outgate.model.why import Because, Finding
from outgate.plan.adopt import awaited, handed_over
from outgate.plan.allocate import allocate
from outgate.plan.claims import Claims
from outgate.plan.gateway import PlanMemory, plan, plan_claims


class Seen(Protocol):
    """The machine, as a decision needs it: read wholly, now or when a bundle was taken."""

    def read(self, ledger: Ledger) -> Reading:
        """Return a complete reading. The ledger says what is ours where the kernel keeps no owner."""

    @property
    def digest(self) -> str:
        """The digest of the nftables table that this program renders."""


class World(Seen, Protocol):
    """The machine, as a round needs it: read it wholly, write changes in their order."""

    def write(self, planned: Changes, wants: Mapping[Resource, Because]) -> tuple[Failure, ...]:
        """Write the changes in order; return what was refused. `wants` is for a table that must be loaded whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one round is given. `gateway` is the EgressGateway's name; empty means the only one."""

    intent: Intent
    ledger: Ledger
    moment: Moment
    gateway: str = ""
    conflicts: Mapping[Address, Mac] = field(default_factory=lambda: MappingProxyType({}))
    unproven: frozenset[Address] = frozenset()


@dataclass(slots=True)
class Memory:
    """What the last round decided, so that a round costs what has changed since. It decides nothing."""

    plan: PlanMemory = field(default_factory=PlanMemory)
    allocated: tuple[Ledger, Claims] | None = None
    wants: Mapping[Resource, Because] | None = None
    found: Difference | None = None

    def compare(self, wants: Mapping[Resource, Because], reading: Reading) -> Difference:
        """Return where a plan and a reading differ. Settings are facts: a wanted one is always missing here."""
        known = self.found is not None and wants is self.wants
        wanted = self.found.wanted if self.found is not None and known else frozenset(wants)
        return difference(wanted, reading.actual, self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a round decided, before it writes: the next ledger, the plan, and how the machine differs from it."""

    ledger: Ledger
    snapshot: Snapshot
    desired: Desired
    reading: Reading
    changes: Changes
    claims: Claims | None = None


def decide(world: Seen, asked: Asked, memory: Memory | None = None) -> Decided:
    """Read, allocate, plan and compare; write nothing. This is what `plan` shows and what `apply` then does."""
    memory = memory or Memory()
    reading = world.read(asked.ledger)
    facts = replace(_before_us(reading.facts, asked.ledger), conflicts=asked.conflicts, unproven=asked.unproven)
    gateway = asked.intent.find_gateway(asked.gateway)
    if gateway is None:
        snapshot = Snapshot(intent=asked.intent, facts=facts, ledger=asked.ledger, gateway=asked.gateway)
        desired, ledger, claims = plan(snapshot, world.digest), asked.ledger, None
        found = memory.compare(desired.wants, reading)
    else:
        snapshot = Snapshot(intent=asked.intent, facts=facts, ledger=asked.ledger, gateway=gateway.name)
        ledger, claims, findings = allocate(snapshot, gateway, asked.moment, memory.allocated)
        memory.allocated = (ledger, claims)
        snapshot = replace(snapshot, ledger=ledger)
        desired = plan_claims(snapshot, claims, world.digest, memory.plan)
        desired = replace(desired, findings=(*desired.findings, *findings))
        found = memory.compare(desired.wants, reading)
        ledger = _remember(ledger, found, reading, asked.intent, gateway)
    memory.wants, memory.found = desired.wants, found
    return Decided(
        ledger=ledger,
        snapshot=snapshot,
        desired=desired,
        reading=reading,
        changes=_changes(ledger, desired, reading, found),
        claims=claims,
    )


def settle(world: World, decided: Decided, save: Callable[[Ledger], None], memory: Memory | None = None) -> Outcome:
    """Write what was decided and verify it by a second reading. `save` makes the ledger durable first."""
    save(decided.ledger)
    if not decided.changes:
        return Outcome()
    failures = world.write(decided.changes, decided.desired.wants)
    again = world.read(decided.ledger)
    found = (memory or Memory()).compare(decided.desired.wants, again)
    left = _changes(decided.ledger, decided.desired, again, found)
    return Outcome(changes=decided.changes, failures=failures, left=left)


def restored(changes_: Changes, ledger: Ledger) -> Changes:
    """Return the changes with every dropped setting turned into the value it had before us: a setting can not be
    absent.
    """
    settings = [resource for resource in changes_.drop if isinstance(resource, LinkSetting)]
    if not settings:
        return changes_
    before = [
        replace(setting, value=ledger.settings_before[setting.link, setting.setting])
        for setting in settings
        if (setting.link, setting.setting) in ledger.settings_before
    ]
    drop = tuple(resource for resource in changes_.drop if not isinstance(resource, LinkSetting))
    return Changes(make=(*before, *changes_.make), drop=drop)


def _changes(ledger: Ledger, desired: Desired, reading: Reading, found: Difference) -> Changes:
    """Return the changes, with the settings that count as ours (those wanted now, and those we changed before) and with
    what was handed over to us.
    """
    now = reading.facts.settings
    wanted = {(r.link, r.setting) for r in found.missing if isinstance(r, LinkSetting)}
    waiting = awaited(reading.actual, ledger) if desired.wants else frozenset[Resource]()
    ours: set[Resource] = {*handed_over(reading.facts, ledger, waiting, leaving=not desired.wants)}
    for key in wanted | set(ledger.settings_before):
        if key in now and (key in wanted or now[key] != ledger.settings_before[key]):
            ours.add(LinkSetting(link=key[0], setting=key[1], value=now[key]))
    return restored(changes_of(found, desired.wants, ours, waiting), ledger)


def _before_us(facts: Facts, ledger: Ledger) -> Facts:
    """Return the facts with the settings as they were before outgate, so that the planner never sees its own output."""
    if not ledger.settings_before:
        return facts
    settings: dict[tuple[LinkName, Setting], int] = dict(facts.settings)
    settings.update((key, value) for key, value in ledger.settings_before.items() if key in settings)
    return replace(facts, settings=MappingProxyType(settings))


def _remember(ledger: Ledger, found: Difference, reading: Reading, intent: Intent, gateway: EgressGateway) -> Ledger:
    """Add to the ledger what must be known before writing: old settings, addresses that will be ours, sizes for the
    brake.
    """
    fresh = replace(
        ledger,
        settings_before=MappingProxyType(_settings_before(ledger, found, reading)),
        addresses_made=_made(ledger.addresses_made, found),
        tenants_known=len(intent.tenants_of(gateway)),
        nodes_known=len(intent.nodes),
    )
    return ledger if fresh == ledger else fresh


def _settings_before(ledger: Ledger, found: Difference, reading: Reading) -> dict[tuple[LinkName, Setting], int]:
    """Return what the wanted settings were before outgate, and those that are not wanted any more until they are set
    back: from then on they are somebody else's again.
    """
    now = reading.facts.settings
    wanted = {(r.link, r.setting) for r in found.missing if isinstance(r, LinkSetting)}  # facts, and so never actual
    kept = {key: was for key, was in ledger.settings_before.items() if key in wanted or now.get(key, was) != was}
    return {**{key: now[key] for key in wanted if key in now}, **kept}


def _made(recorded: frozenset[tuple[LinkName, Address]], found: Difference) -> frozenset[tuple[LinkName, Address]]:
    """Return the addresses that are ours or will be: all that are wanted, and of those recorded what still stands."""
    moved = {(r.link, r.address) for r in _or_all(found) if isinstance(r, LinkAddress)}
    moved |= recorded if found.moved is None else set()
    if not moved:
        return recorded
    wanted = {key for key in moved if LinkAddress(link=key[0], address=key[1]) in found.wanted}
    doubtful = (moved - wanted) & recorded
    standing = {(r.link, r.address) for r in found.actual if isinstance(r, LinkAddress)} if doubtful else set()
    made = recorded - (doubtful - standing) | wanted
    return recorded if made == recorded else made


def _or_all(found: Difference) -> frozenset[Resource]:
    return found.wanted | found.actual if found.moved is None else found.moved


def findings_of(decided: Decided, outcome: Outcome) -> tuple[Finding, ...]:
    """Return everything the user should know after a round: what was planned badly, and what was refused in writing."""
    refused = tuple(
        Finding("NotProgrammed", str(failure.resource), failure.words, fix="outgate doctor")
        for failure in outcome.failures
    )
    return (*decided.desired.findings, *refused)
