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

from outgate.compare.changes import changes
from outgate.model.intent import EgressGateway, Intent
from outgate.model.ledger import Ledger
from outgate.model.net import Address, LinkAddress, LinkName, LinkSetting, Mac, Setting
from outgate.model.state import Changes, Desired, Facts, Failure, Moment, Outcome, Reading, Resource, Snapshot
from outgate.model.why import Because, Finding
from outgate.plan.adopt import awaited, handed_over
from outgate.plan.allocate import allocate
from outgate.plan.claims import Claims
from outgate.plan.gateway import Memory, find_gateway, plan, plan_claims


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
    gateway = find_gateway(asked.intent, asked.gateway)
    if gateway is None:
        snapshot = Snapshot(intent=asked.intent, facts=facts, ledger=asked.ledger, gateway=asked.gateway)
        return _compared(asked.ledger, snapshot, plan(snapshot, world.digest), reading)
    snapshot = Snapshot(intent=asked.intent, facts=facts, ledger=asked.ledger, gateway=gateway.name)
    ledger, claims, findings = allocate(snapshot, gateway, asked.moment, memory.allocated)
    memory.allocated = (ledger, claims)
    snapshot = replace(snapshot, ledger=ledger)
    desired = plan_claims(snapshot, claims, world.digest, memory)
    desired = replace(desired, findings=(*desired.findings, *findings))
    ledger = _remember(ledger, desired, reading, asked.intent, gateway)
    return replace(_compared(ledger, snapshot, desired, reading), claims=claims)


def settle(world: World, decided: Decided, save: Callable[[Ledger], None]) -> Outcome:
    """Write what was decided and verify it by a second reading. `save` makes the ledger durable first."""
    save(decided.ledger)
    if not decided.changes:
        return Outcome()
    failures = world.write(decided.changes, decided.desired.wants)
    again = world.read(decided.ledger)
    left = _compare(decided.ledger, decided.desired, again)
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


def _compared(ledger: Ledger, snapshot: Snapshot, desired: Desired, reading: Reading) -> Decided:
    found = _compare(ledger, desired, reading)
    return Decided(ledger=ledger, snapshot=snapshot, desired=desired, reading=reading, changes=found)


def _compare(ledger: Ledger, desired: Desired, reading: Reading) -> Changes:
    """Compare, with the settings that count as ours (those wanted now, and those we changed before) and with what was
    handed over to us.
    """
    now = reading.facts.settings
    wanted = {(r.link, r.setting) for r in desired.wants if isinstance(r, LinkSetting)}
    actual: set[Resource] = {*reading.actual, *handed_over(reading.facts, reading.actual, ledger)}
    for key in wanted | set(ledger.settings_before):
        if key in now and (key in wanted or now[key] != ledger.settings_before[key]):
            actual.add(LinkSetting(link=key[0], setting=key[1], value=now[key]))
    return restored(changes(desired.wants, actual, spare=awaited(reading.actual, ledger)), ledger)


def _before_us(facts: Facts, ledger: Ledger) -> Facts:
    """Return the facts with the settings as they were before outgate, so that the planner never sees its own output."""
    if not ledger.settings_before:
        return facts
    settings: dict[tuple[LinkName, Setting], int] = dict(facts.settings)
    settings.update((key, value) for key, value in ledger.settings_before.items() if key in settings)
    return replace(facts, settings=MappingProxyType(settings))


def _remember(ledger: Ledger, desired: Desired, reading: Reading, intent: Intent, gateway: EgressGateway) -> Ledger:
    """Add to the ledger what must be known before writing: old settings, addresses that will be ours, sizes for the
    brake.
    """
    before = dict(ledger.settings_before)
    made = set(ledger.addresses_made)
    for resource in desired.wants:
        if isinstance(resource, LinkSetting):
            key = (resource.link, resource.setting)
            if key not in before and key in reading.facts.settings:
                before[key] = reading.facts.settings[key]
        elif isinstance(resource, LinkAddress):
            made.add((resource.link, resource.address))
    wanted = {(r.link, r.address) for r in desired.wants if isinstance(r, LinkAddress)}
    present = {(r.link, r.address) for r in reading.actual if isinstance(r, LinkAddress)}
    made &= wanted | present
    tenants = sum(1 for tenant in intent.tenants if tenant.gateway in (None, gateway.name))
    fresh = replace(
        ledger,
        settings_before=MappingProxyType(before),
        addresses_made=frozenset(made),
        tenants_known=tenants,
        nodes_known=len(intent.nodes),
    )
    return ledger if fresh == ledger else fresh


def findings_of(decided: Decided, outcome: Outcome) -> tuple[Finding, ...]:
    """Return everything the user should know after a round: what was planned badly, and what was refused in writing."""
    refused = tuple(
        Finding("NotProgrammed", str(failure.resource), failure.words, fix="outgate doctor")
        for failure in outcome.failures
    )
    return (*decided.desired.findings, *refused)
