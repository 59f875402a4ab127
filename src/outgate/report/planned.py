"""A plan for people and programs: what will be added, changed and deleted, for whom and why, and what it does beside.

Reasons are those of the plan. What is deleted has none any more; the ledger from before says whose it was.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from outgate.model.flow import Flow
from outgate.model.ledger import Ledger
from outgate.model.net import TENANT_MASK, Answered, LinkAddress, LinkSetting, Mark, Route, Rule, TenantLink
from outgate.model.ovn import DropAcl, LogicalRoute, Policy, QosMark, SetMember, Snat
from outgate.model.ruleset import Element, Table
from outgate.model.state import Changes, Desired, Facts, Probe, Resource
from outgate.model.why import Because
from outgate.report.findings import finding_lines, summary
from outgate.report.layout import MANY, PLAIN, Cell, Row, Style, Tone, columns, count, paragraph
from outgate.report.plain import Plain, document

_OBJECT = re.compile(r"[A-Z][A-Za-z]+/\S+")
_NOBODY = "objects that are gone"
# Elements that hang on others and decide nothing alone: told by number, one line for all of an object
_FOLDED = re.compile(
    r"(tenant_of|id_spread|inner|own|egress|sent|received|opened|check_pods|check_nodes|id_pod|pods_of|nodes)[46]?"
)


class Sign(Enum):
    """What happens to a resource."""

    ADD = "+"
    CHANGE = "~"
    DELETE = "-"


_TONE = {Sign.ADD: Tone.GOOD, Sign.CHANGE: Tone.WARN, Sign.DELETE: Tone.BAD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan and all that its reader should know. `before` is the ledger from before the round: it names who had what.

    `ends` are live flows that the change will end, each with the reason, and `ends_unlisted` how many more there are.
    """

    gateway: str
    changes: Changes
    desired: Desired
    actual: frozenset[Resource] = frozenset()
    facts: Facts = field(default_factory=Facts)
    before: Ledger = field(default_factory=Ledger)
    ends: tuple[tuple[Flow, Because], ...] = ()
    ends_unlisted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One resource of a plan: what happens to it, whose it is, why; `was` is what it replaces."""

    sign: Sign
    resource: Resource
    owner: str
    because: Because | None = None
    was: Resource | None = None


def changes_of(planned: Planned) -> tuple[Change, ...]:
    """Return every change in the order of writing."""
    slots = {resource.slot: resource for resource in planned.actual} if planned.changes.make else {}
    whose = _Owners(planned)
    made = []
    for resource in planned.changes.make:
        was, because = slots.get(resource.slot), planned.desired.wants.get(resource)
        sign = Sign.ADD if was is None else Sign.CHANGE
        made.append(Change(sign=sign, resource=resource, owner=whose.of(resource), because=because, was=was))
    dropped = (Change(sign=Sign.DELETE, resource=r, owner=whose.of(r)) for r in planned.changes.drop)
    return (*made, *dropped)


def planned_text(planned: Planned, style: Style = PLAIN) -> str:
    """Return a plan as text: changes by object, then what else happens, and a line that counts them."""
    every = changes_of(planned)
    lines = _groups(every, planned, style)
    lines += _probe_lines(planned.desired.probes, style)
    lines += _flow_lines(planned, style)
    lines += finding_lines(planned.desired.findings, style, most=3)
    lines += [""] if lines else []
    foreign = _foreign(planned.facts)
    lines += paragraph(f"not touched: {foreign}", style, tone=Tone.FAINT) if foreign else []
    counts = Counter(change.sign for change in every)
    found = summary(planned.desired.findings) if planned.desired.findings else ""
    asked = len(planned.desired.probes)
    found = "; ".join(part for part in (f"{asked:,} to probe first" if asked else "", found) if part)
    lines += paragraph(plan_summary(counts, found), style, tone=Tone.STRONG)
    return "\n".join(lines)


def plan_summary(counts: Mapping[Sign, int], found: str) -> str:
    """Return the line that counts: `2 to add, 1 to change, 1 to delete; 1 warning`. `found` may be empty."""
    words = {Sign.ADD: "to add", Sign.CHANGE: "to change", Sign.DELETE: "to delete"}
    said = ", ".join(f"{counts.get(sign, 0):,} {word}" for sign, word in words.items() if counts.get(sign))
    return (said or "nothing to change") + (f"; {found}" if found else "")


def planned_document(planned: Planned) -> dict[str, Plain]:
    """Return the document of kind Plan."""
    every = changes_of(planned)
    counts = Counter(change.sign.name.lower() for change in every)
    facts = planned.facts
    probes = [
        {"address": probe.address, "link": probe.link, "tenant": probe.tenant, "because": because}
        for probe, because in planned.desired.probes.items()
    ]
    body = {
        "gateway": planned.gateway,
        "summary": {key: counts.get(key, 0) for key in ("add", "change", "delete")},
        "changes": [
            {
                "action": c.sign.name.lower(),
                "owner": c.owner,
                "resource": c.resource,
                "was": c.was,
                "because": c.because,
            }
            for c in every
        ],
        "probes": probes,
        "ends": [{"flow": str(flow), "because": because} for flow, because in planned.ends],
        "endsUnlisted": planned.ends_unlisted,
        "untouched": {"rules": len(facts.rules), "routes": len(facts.routes), "addresses": len(facts.addresses)},
        "findings": planned.desired.findings,
    }
    return document("Plan", body)


class _Owners:
    """Whose each resource is: the first object that its reason cites, else what the ledger remembers."""

    def __init__(self, planned: Planned) -> None:
        self._wants = planned.desired.wants
        self._gateway = f"EgressGateway/{planned.gateway}"
        before = planned.before
        self._marks = {allocation.mark: name for name, allocation in before.tenants.items()}
        self._links = {allocation.link: name for name, allocation in before.tenants.items()}
        self._addresses = {address: held.tenant for address, held in before.retiring.items()}
        self._addresses |= {address: held.tenant for address, held in before.holdings.items()}

    def of(self, resource: Resource) -> str:
        because = self._wants.get(resource)
        if because is not None:
            cited = (_OBJECT.match(cite) for cite in because.cites)
            return next((found.group() for found in cited if found), self._gateway)
        tenant = self._remembered(resource)
        return f"EgressTenant/{tenant}" if tenant else _NOBODY

    def _remembered(self, resource: Resource) -> str:
        parts: Iterable[object] = ()
        match resource:
            case TenantLink():
                parts = (resource.name,)
            case LinkAddress() | Answered():
                parts = (resource.link, resource.address)
            case Element():
                parts = (*resource.key, resource.value)
        return next((name for part in parts if (name := self._known(part))), "")

    def _known(self, part: object) -> str:
        if isinstance(part, int):
            return self._marks.get(Mark(part & TENANT_MASK), "")
        if isinstance(part, str):
            return {str(link): name for link, name in self._links.items()}.get(part, "")
        return self._addresses.get(part, "") if isinstance(part, IPv4Address | IPv6Address) else ""


def _groups(every: Sequence[Change], planned: Planned, style: Style) -> list[str]:
    """Return the changes by owner: the gateway, tenants and nodes by name, and last what belongs to nobody."""
    owners: dict[str, list[Change]] = defaultdict(list)
    for change in every:
        owners[change.owner].append(change)
    order = sorted(owners, key=lambda owner: (owner == _NOBODY, not owner.startswith("EgressGateway/"), owner))
    shown = order if style.whole else order[:MANY]
    lines: list[str] = []
    for owner in shown:
        lines += paragraph(owner, style, tone=Tone.STRONG)
        lines += columns(_change_rows(owners[owner], style), style, indent=2)
    if len(order) > len(shown):
        rest = sum(len(owners[owner]) for owner in order[len(shown) :])
        text = f"and {count(rest, 'change')} of {count(len(order) - len(shown), 'more object')}"
        lines += paragraph(text, style, tone=Tone.FAINT)
    return lines


def _change_rows(changes: Sequence[Change], style: Style) -> list[Row]:
    folded = [] if style.whole else [c for c in changes if isinstance(c.resource, Element) and _is_folded(c.resource)]
    told = [change for change in changes if change not in set(folded)]
    most = len(told) if style.whole or len(told) <= MANY + 1 else MANY
    reasons = [change.because.text if change.because else _gone(change) for change in told[:most]]
    fresh = [reason if reason != last else "" for reason, last in zip(reasons, ["", *reasons], strict=False)]
    rows = [_change_row(change, reason) for change, reason in zip(told, fresh, strict=False)]
    if len(told) > most:
        rows.append(["", "", Cell(f"and {len(told) - most} more", Tone.FAINT)])
    for sign in Sign:
        sets = Counter(c.resource.set for c in folded if c.sign is sign and isinstance(c.resource, Element))
        if sets:
            names = ", ".join(f"{name} {number}" if number > 1 else name for name, number in sorted(sets.items()))
            text = f"{count(sum(sets.values()), 'element')} with it: {names}"
            rows.append([Cell(sign.value, _TONE[sign]), "nft", Cell(text, Tone.FAINT)])
    return rows


def _change_row(change: Change, reason: str) -> Row:
    kind, text = _words(change.resource)
    was = f" (was {_old(change.was)})" if change.was is not None else ""
    return [Cell(change.sign.value, _TONE[change.sign]), kind, text + was, Cell(reason, Tone.FAINT)]


def _words(resource: Resource) -> tuple[str, str]:
    """Return the kind of a resource and what it is, without saying the kind twice."""
    match resource:
        case TenantLink():
            return "link", str(resource).removeprefix("macvlan ")
        case LinkAddress():
            return "address", str(resource).removeprefix("address ")
        case LinkSetting():
            return "setting", str(resource)
        case Route():
            return "route", str(resource)
        case Rule():
            return "rule", str(resource)
        case Answered():
            return "answer", str(resource)
        case Element() | Table():
            return "nft", str(resource).removeprefix("nft ")
        case Policy() | Snat() | LogicalRoute() | QosMark() | DropAcl() | SetMember():
            return "ovn", str(resource)


def _old(resource: Resource) -> str:
    """Return what a resource was: of a map's element the value, since the key is the same."""
    if isinstance(resource, Element) and resource.value is not None:
        return hex(resource.value) if isinstance(resource.value, int) else str(resource.value)
    return _words(resource)[1]


def _gone(change: Change) -> str:
    if isinstance(change.resource, Route):
        return "no node has this subnet here any more"
    return "no object asks for it any more"


def _is_folded(element: Element) -> bool:
    return _FOLDED.fullmatch(element.set) is not None


def _probe_lines(probes: Mapping[Probe, Because], style: Style) -> list[str]:
    """Return the addresses that are asked for before they are used."""
    if not probes:
        return []
    rows: list[Row] = [
        [Cell("?", Tone.WARN), "probe", f"{probe.address} on {probe.link}", Cell(because.text, Tone.FAINT)]
        for probe, because in probes.items()
    ]
    shown = rows if style.whole or len(rows) <= MANY + 1 else rows[:MANY]
    head = paragraph("before it is used, an address must stay unanswered", style, tone=Tone.STRONG)
    return [*head, *columns(shown, style, indent=2), *_more(len(rows) - len(shown), style)]


def _flow_lines(planned: Planned, style: Style) -> list[str]:
    total = len(planned.ends) + planned.ends_unlisted
    if not total:
        return []
    rows = [f"{flow}: {because.text}" for flow, because in planned.ends]
    shown = rows if style.whole else rows[:MANY]
    more = total - len(shown)
    head = paragraph(f"! {count(total, 'live flow')} will end", style, tone=Tone.BAD)
    return [*head, *(line for row in shown for line in paragraph(row, style, indent=4)), *_more(more, style)]


def _more(number: int, style: Style) -> list[str]:
    return paragraph(f"and {number:,} more", style, indent=4, tone=Tone.FAINT) if number else []


def _foreign(facts: Facts) -> str:
    counted = ((len(facts.rules), "rule"), (len(facts.routes), "route"), (len(facts.addresses), "address"))
    said = [count(number, noun, "addresses" if noun == "address" else "") for number, noun in counted if number]
    return ", ".join(said) + " of others" if said else ""
