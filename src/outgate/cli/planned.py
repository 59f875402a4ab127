"""A plan with all that its reader should know: changes, and the live flows that they would end."""

from __future__ import annotations

from itertools import islice

from outgate.cli.bundle import sight
from outgate.model.errors import OutgateError
from outgate.plan.flows import flow_rules, stale_flows
from outgate.report.planned import Planned, Sign, changes_of
from outgate.roles.options import GatewayOptions
from outgate.roles.sight import flows_of

SHOWN = 20  # flows that are named; the rest is counted
LOOKED_AT = 100_000  # live flows that are judged


def planned_of(options: GatewayOptions) -> Planned:
    """Return what `apply` would do now."""
    seen = sight(options)
    decided = seen.decided
    ends = []
    more = 0
    if decided.changes:
        rules = flow_rules(decided.desired.wants, decided.snapshot.facts)
        try:
            judged = stale_flows(flows_of(seen, LOOKED_AT), rules)
            ends = list(islice(judged, SHOWN))
            more = sum(1 for _ in judged)
        except OutgateError:  # connection tracking is not there yet: there are no flows to end
            ends = []
    return Planned(
        gateway=decided.snapshot.gateway,
        changes=decided.changes,
        desired=decided.desired,
        actual=decided.reading.actual,
        facts=decided.snapshot.facts,
        before=seen.before,
        ends=tuple(ends),
        ends_unlisted=more,
    )


def diff_lines(planned: Planned) -> str:
    """Return the changes as a list for `grep`: sign and object, one a line, in the order of writing; and the addresses
    that must be asked about before more can change.
    """
    lines = []
    for change in changes_of(planned):
        if change.was is not None:
            lines.append(f"- {change.was}")
        lines.append(f"{'-' if change.sign is Sign.DELETE else '+'} {change.resource}")
    lines += [f"? probe {probe.address} on {probe.link}" for probe in planned.desired.probes]
    return "\n".join(lines)
