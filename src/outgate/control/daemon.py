"""The daemon: rounds when something changed, an audit every 30 seconds, and nothing in between.

Triggers are the intent's source, the kernel's notifications, verdicts of address probes, and deadlines (rests, drains,
confirmation). Several triggers that arrive together make one round. A round that can not run, because a part is missing
or a system is silent, changes nothing and is tried again with a growing pause.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from outgate.control.gate import Gate
from outgate.control.loop import Loop, Readable
from outgate.control.quotas import settle_quotas, used_by_mark
from outgate.control.round import Asked, Decided, Memory, World, decide, findings_of, settle
from outgate.model.errors import NotReady, OutgateError, Refused, Unreachable
from outgate.model.flow import Flow, TcpState
from outgate.model.intent import Announce, Intent
from outgate.model.ledger import Holding, Ledger
from outgate.model.net import TENANT_MASK, Address, LinkName, Mac, Mark
from outgate.model.ruleset import Element, Table
from outgate.model.state import Moment, Outcome, Probe, Resource
from outgate.model.why import Because, Finding
from outgate.plan.flows import FlowRules, flow_rules, stale_flows
from outgate.plan.memo import copied

AUDIT_S = 30.0  # a lost notification is found at the latest then
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
ENDED = (TcpState.TIME_WAIT, TcpState.CLOSE)
SHOWN_CHANGES = 100  # of a round are logged one by one, the rest as a number
TOLD = frozenset({"source", "machine", "probe", "conflict", "rest"})  # reasons for which notifications are trusted
PROBE_AGAIN_S = 60.0  # an address that somebody else answered is probed again after this

log = logging.getLogger("outgate.control")


class Source(Readable, Protocol):
    """Where the intent comes from."""

    def read(self, *, look_at_all: bool = True) -> Intent:
        """Return the complete intent, or raise NotReady. Without `look_at_all`, what was notified is looked at only."""

    def changed(self) -> bool:
        """Consume pending notifications; say whether the intent may have changed."""


class Machine(World, Protocol):
    """The machine with its notifications."""

    def watched(self) -> Iterable[Readable]:
        """Return what becomes readable when the machine changed."""

    def changed(self) -> bool:
        """Consume pending notifications that others caused; say whether there were any."""

    def distrust(self) -> None:
        """Let the next reading read everything anew."""

    def quotas_used(self) -> Mapping[Mark, int]:
        """Return the bytes of its quota that each tenant has used, by mark."""

    def begin_quotas(self, used: Mapping[Mark, int], renewed: Iterable[Mark]) -> None:
        """Let a table that is loaded anew begin with what was used, and let these quotas begin anew now."""

    def received(self, links: Iterable[LinkName]) -> Mapping[LinkName, int]:
        """Return how many unicast packets links of somebody else have received; absent ones are left out."""


class Flows(Protocol):
    """Connection tracking."""

    def flows(self, *, mark: int | None = None, mask: int | None = None) -> Iterable[Flow]:
        """Return live flows, filtered by mark."""

    def delete(self, flows: Iterable[Flow]) -> int:
        """Delete flows; return how many were still there."""


class Neighbours(Protocol):
    """What is said and asked on the links."""

    def probe(self, probes: Iterable[Probe], how: Announce, verdict: Callable[[Probe, Mac | None], None]) -> None:
        """Probe exactly these addresses; call back with the MAC that answered, or None when nobody did."""

    def announce(self, decided: Decided, made: Iterable[Resource]) -> None:
        """Announce the addresses among the resources that were made, and keep announcing all that are held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a daemon is made of."""

    source: Source
    machine: Machine
    flows: Flows
    neighbours: Neighbours
    save: Callable[[Ledger], None]
    wall_s: Callable[[], float]
    told: Callable[[Report], None]  # after every round: status, metrics, watchdog


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a round leaves for status and metrics. Times are monotonic seconds."""

    decided: Decided | None = None
    outcome: Outcome = field(default_factory=Outcome)
    findings: tuple[Finding, ...] = ()
    rounds: int = 0
    changes: int = 0
    repaired: int = 0
    failed: int = 0
    drift: bool = False  # nobody asked for the last round's changes: they are repairs
    last_repair: str = ""
    repaired_at_s: float = 0.0
    seconds: float = 0.0
    at_s: float = 0.0
    error: str = ""


class Daemon:
    """One gateway's life: from the first round to the signal that ends it. The data path stays as it is then."""

    def __init__(
        self, parts: Parts, loop: Loop, *, gateway: str, ledger: Ledger, unproven: frozenset[Address] = frozenset()
    ) -> None:
        """Begin with a ledger; `unproven` are addresses that it holds and that must be probed again: a machine that was
        away may find them taken.
        """
        self.parts = parts
        self.loop = loop
        self.ledger = ledger
        self.report = Report()
        self._gateway = gateway
        self._gate = Gate(gateway)
        self._memory = Memory()
        self._conflicts: dict[Address, Mac] = {}
        self._unproven = unproven
        self._proven: dict[Address, Holding] = {}  # nobody answered for them: held from the next round on
        self._live: Mapping[Address, int] = MappingProxyType({})
        self._received: Mapping[LinkName, int] = MappingProxyType({})
        self._reasons: set[str] = {"start"}
        self._setbacks = 0  # rounds in a row that failed or left something undone
        self._blocked = False  # a system is silent: wait for the pause, whatever happens meanwhile
        self._sure = False
        self._override: Intent | None = None
        self.source_read_s: float | None = None  # when the source last gave a complete intent
        self.source_error = ""  # why it did not, the last time

    def run(self) -> None:
        """Run until the loop is stopped."""
        self.parts.machine.begin_quotas(used_by_mark(self.ledger), ())
        self.loop.watch(self.parts.source, self._source_changed)
        for readable in self.parts.machine.watched():
            self.loop.watch(readable, self._machine_changed)
        self.loop.at("audit", self.loop.now_s() + AUDIT_S, self._audit)
        self.loop.run(self.work)

    def want(self, reason: str) -> None:
        """Ask for a round; it runs when the pending callbacks are done."""
        self._reasons.add(reason)
        self.loop.at("round", self.loop.now_s(), lambda: None)  # wake up, whoever asks

    def override(self, intent: Intent | None, *, sure: bool = False) -> None:
        """Put an applied intent in force instead of the source's, or end that with None."""
        self._override, self._sure = intent, sure or self._sure
        self.want("applied" if intent is not None else "start")  # what ends a trial looks at all flows again

    @property
    def confirming(self) -> bool:
        """Whether an applied intent is in force and waits for confirmation."""
        return self._override is not None

    def be_sure(self) -> None:
        """Let the next round delete in bulk: the user said `--yes`."""
        self._sure = True
        self.want("yes")

    def work(self) -> None:
        """Run the round that was asked for, if any, unless a pause is on."""
        if not self._reasons or (self._blocked and "retry" not in self._reasons):
            return
        reasons, self._reasons = self._reasons, set()
        started = self.loop.now_s()
        try:
            self._round(reasons, started)
            self._blocked = False
        except (NotReady, Unreachable, Refused) as error:
            self._wait(error, reasons)

    def _round(self, reasons: set[str], started: float) -> None:
        self._hold_proven()
        intent = self._intent(started, look_at_all=not reasons <= TOLD)
        if intent is None:
            self._tell(replace(self.report, findings=self._gate.findings))
            return
        if reasons & {"start", "audit"}:
            self._received = self.parts.machine.received(self.ledger.adopting)
        moment = Moment(now_s=self.parts.wall_s(), flows=self._live, received=self._received)
        asked = Asked(
            intent=intent,
            ledger=self.ledger,
            moment=moment,
            gateway=self._gateway,
            conflicts=dict(self._conflicts),
            unproven=self._unproven,
        )
        decided = decide(self.parts.machine, asked, self._memory)
        outcome = settle(self.parts.machine, decided, self.parts.save, self._memory)
        drift = decided.ledger == self.ledger and reasons <= {"machine", "audit"}
        self.ledger, self._sure = decided.ledger, False
        self._end_flows(decided, outcome, reasons)
        self.parts.neighbours.announce(decided, outcome.changes.make)
        if decided.claims is not None:
            self.parts.neighbours.probe(decided.desired.probes, decided.claims.gateway.announce, self._verdict)
        self._schedule(decided, outcome)
        self._account(decided, outcome, self.loop.now_s() - started, drift=drift)

    def _hold_proven(self) -> None:
        """Take the addresses of which nobody said that they are his, all together."""
        if self._proven:
            holdings = MappingProxyType({**copied(self.ledger.holdings), **self._proven})
            self.ledger = replace(self.ledger, holdings=holdings)
            self._unproven -= self._proven.keys()
            self._proven = {}

    def _intent(self, now_s: float, *, look_at_all: bool) -> Intent | None:
        """Return the intent in force: the applied one that waits for confirmation, else the source's if the brake lets
        it.
        """
        if self._override is not None:
            return self._override
        try:
            complete = self.parts.source.read(look_at_all=look_at_all)
        except NotReady as error:
            self.source_error = str(error)
            raise
        self.source_error = ""
        self.source_read_s = now_s
        intent = self._gate.admit(complete, self.ledger, now_s, sure=self._sure)
        self.loop.at("second reading", self._gate.read_again_s, lambda: self.want("second reading"))
        return intent

    def _end_flows(self, decided: Decided, outcome: Outcome, reasons: set[str]) -> None:
        """End flows whose translation contradicts the plan: at the start, and when identities or addresses changed."""
        touched = (*outcome.changes.make, *outcome.changes.drop)
        if self._override is not None:
            return  # a trial ends no flows: they would not come back with a rollback
        if "start" not in reasons and not any(_decides_flows(resource) for resource in touched):
            return
        rules = flow_rules(decided.desired.wants, decided.snapshot.facts)
        marks = None if "start" in reasons or any(isinstance(r, Table) for r in touched) else _marks(touched)
        stale = tuple(self._stale(rules, marks))
        if stale:
            ended = self.parts.flows.delete(flow for flow, _ in stale)
            log.info("ended flows", extra={"fields": {"flows": ended, "why": stale[0][1].text}})

    def _stale(self, rules: FlowRules, marks: set[Mark] | None) -> Iterable[tuple[Flow, Because]]:
        if marks is None:
            yield from stale_flows(self.parts.flows.flows(), rules)
            return
        for mark in marks:
            yield from stale_flows(self.parts.flows.flows(mark=mark, mask=TENANT_MASK), rules)

    def _verdict(self, probe: Probe, mac: Mac | None) -> None:
        """Take the verdict on an address: hold it, or remember who answered and ask again later."""
        if mac is not None:
            self._conflicts[probe.address] = mac
            again = self.loop.now_s() + PROBE_AGAIN_S
            self.loop.at(f"conflict {probe.address}", again, lambda: self._forget_conflict(probe.address))
        else:
            self._proven[probe.address] = Holding(tenant=probe.tenant, link=probe.link, egress=probe.egress)
        self.want("probe")

    def claimed(self, address: Address, mac: Mac) -> None:
        """Take notice that somebody else claims an address which is held: a condition, never a fight."""
        self._conflicts[address] = mac
        again = self.loop.now_s() + PROBE_AGAIN_S
        self.loop.at(f"conflict {address}", again, lambda: self._forget_conflict(address))
        self.want("conflict")

    def _forget_conflict(self, address: Address) -> None:
        self._conflicts.pop(address, None)
        self.want("probe")

    def _schedule(self, decided: Decided, outcome: Outcome) -> None:
        """Come back for what time decides: rests and drains that end; and soon, when a round left something undone."""
        ends = [rest.until_s for rest in decided.ledger.resting.values()]
        ends += [old.until_s for old in decided.ledger.retiring.values()]
        if ends:
            left_s = max(0.0, min(ends) - self.parts.wall_s())
            self.loop.at("rest", self.loop.now_s() + left_s + 0.1, lambda: self.want("rest"))
        if outcome.converged:
            self._setbacks = 0
        else:
            self._retry_later()

    def _account(self, decided: Decided, outcome: Outcome, seconds: float, *, drift: bool) -> None:
        made, dropped = outcome.changes.make, outcome.changes.drop
        count = len(made) + len(dropped)
        if count:
            log.info(
                "round", extra={"fields": {"made": len(made), "dropped": len(dropped), "ms": round(seconds * 1000)}}
            )
        for verb, resources in (("made", made), ("dropped", dropped)):
            for resource in resources[:SHOWN_CHANGES]:
                log.info(verb, extra={"fields": {"resource": str(resource), "drift": drift}})
            if len(resources) > SHOWN_CHANGES:
                log.info(verb, extra={"fields": {"more": len(resources) - SHOWN_CHANGES, "drift": drift}})
        for failure in outcome.failures[:SHOWN_CHANGES]:
            log.warning("refused", extra={"fields": {"resource": str(failure.resource), "words": failure.words}})
        repaired = drift and count > 0
        last = f"{(*made, *dropped)[0]}" + (f" and {count - 1} more" if count > 1 else "") if repaired else ""
        self._tell(
            replace(
                self.report,
                decided=decided,
                outcome=outcome,
                findings=(*self._gate.findings, *findings_of(decided, outcome)),
                rounds=self.report.rounds + 1,
                changes=self.report.changes + count,
                repaired=self.report.repaired + (count if repaired else 0),
                last_repair=last or self.report.last_repair,
                repaired_at_s=self.loop.now_s() if last else self.report.repaired_at_s,
                seconds=seconds,
                drift=repaired,
                at_s=self.loop.now_s(),
                error="",
            )
        )

    def _tell(self, report: Report) -> None:
        self.report = report
        self.parts.told(report)

    def _wait(self, error: OutgateError, reasons: set[str]) -> None:
        """Try again after a pause that grows; the reasons are kept, so that a start stays a start."""
        self._reasons |= reasons - {"retry"}
        self._blocked = True
        pause_s = self._retry_later()
        log.warning("round put off", extra={"fields": {"error": str(error), "pause_s": pause_s}})
        self._tell(replace(self.report, error=str(error), failed=self.report.failed + 1))

    def _retry_later(self) -> float:
        """Ask for another round after a pause that doubles with every setback; return the pause."""
        pause_s = float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._setbacks))
        self._setbacks = min(self._setbacks + 1, 10)
        self.parts.machine.distrust()
        self.loop.at("retry", self.loop.now_s() + pause_s, lambda: self.want("retry"))
        return pause_s

    def _source_changed(self) -> None:
        if self.parts.source.changed():
            self.want("source")

    def _machine_changed(self) -> None:
        if self.parts.machine.changed():
            self.want("machine")

    def _audit(self) -> None:
        """Read everything anew, also what no notification has named, and count the flows on retiring addresses."""
        self.loop.at("audit", self.loop.now_s() + AUDIT_S, self._audit)
        self._settle_quotas()
        self.parts.machine.distrust()
        retiring = self.ledger.retiring
        self._live = MappingProxyType({a: self._flows_on(a, old.mark) for a, old in retiring.items()})
        self.want("audit")

    def _settle_quotas(self) -> None:
        """Remember what was used of quotas, and begin those anew whose period is over."""
        decided = self.report.decided
        tenants = decided.snapshot.intent.tenants if decided else ()
        if not any(tenant.quota for tenant in tenants):
            return
        try:
            used = self.parts.machine.quotas_used()
            settled = settle_quotas(self.ledger, tenants, used, self.parts.wall_s())
            self.ledger = settled.ledger
            self.parts.machine.begin_quotas(used_by_mark(self.ledger), settled.renewed)
        except (NotReady, Unreachable, Refused) as error:  # the audit's round meets the same and says so
            log.warning("quotas not settled", extra={"fields": {"error": str(error)}})

    def _flows_on(self, address: Address, mark: Mark) -> int:
        """Return how many flows still live on an address; one that only waits for stray packets does not."""
        flows = self.parts.flows.flows(mark=mark, mask=TENANT_MASK)
        return sum(1 for flow in flows if flow.reply.dst == address and flow.tcp_state not in ENDED)


def _decides_flows(resource: Resource) -> bool:
    if isinstance(resource, Table):
        return True
    return isinstance(resource, Element) and resource.set.startswith(("own", "id_pod", "protected"))


def _marks(resources: Iterable[Resource]) -> set[Mark]:
    """Return the tenants' marks that the resources name."""
    marks: set[Mark] = set()
    for resource in resources:
        if isinstance(resource, Element):
            numbers = [part for part in resource.key if isinstance(part, int)]
            numbers += [resource.value] if isinstance(resource.value, int) else []
            marks |= {Mark(number & TENANT_MASK) for number in numbers if number & TENANT_MASK}
    return marks
