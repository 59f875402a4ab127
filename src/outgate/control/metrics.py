"""What Prometheus may know, in one table: every metric with its labels, its meaning, and where its samples come from.

Labels have few values: tenants and egress IPs, up to MOST_LABELS of each, then one `_other`. Addresses of pods are
never labels. The reference page is generated from the table, by `reference`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from types import MappingProxyType
from typing import TypeAlias

from outgate.model.state import Outcome, Resource
from outgate.model.status import Health, PortUse, Status, TenantState, TenantStatus

MOST_LABELS = 1000
OTHER = "_other"  # no object's name begins with an underscore
BUCKETS_S = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)  # a quiet round, up to 4,000 tenants at once

Sample: TypeAlias = tuple[tuple[str, ...], float]


class Kind(Enum):
    """How a value moves."""

    COUNTER = "counter"  # it only grows, and begins at 0 anew at a restart or when the table is loaded
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How many observations fell into each bucket (the last one is open), and their sum."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS_S) + 1)
    total: float = 0.0

    def observe(self, value: float) -> Distribution:
        """Return the distribution with one more observation."""
        at = bisect_left(BUCKETS_S, value)
        counts = tuple(count + (place == at) for place, count in enumerate(self.counts))
        return Distribution(counts=counts, total=self.total + value)

    def cumulated(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus wants them: the upper bound, and how many are at most that."""
        bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsView:
    """All that the metrics show, at one moment. The loop makes a new one after a round; whoever scrapes reads the last.

    `made_s` is the monotonic time at which the ages of the status were true. `flows` are the entries of connection
    tracking and how many the kernel takes; None where nobody counted.
    """

    status: Status
    made_s: float
    rounds: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by result
    seconds: Distribution = Distribution()
    changes: Mapping[tuple[str, str], int] = field(default_factory=lambda: MappingProxyType({}))  # by kind and action
    repaired: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by kind
    succeeded_s: float | None = None  # wall clock of the last round that left nothing to do
    flows: tuple[int, int] | None = None


class Meter:
    """Counts the rounds of one daemon. Lives in the loop's thread; what it gives away is frozen."""

    def __init__(self) -> None:
        self._rounds: Counter[str] = Counter(converged=0, unfinished=0, failed=0)
        self._seconds = Distribution()
        self._changes: Counter[tuple[str, str]] = Counter()
        self._repaired: Counter[str] = Counter()
        self._succeeded_s: float | None = None

    def count(self, outcome: Outcome, seconds: float, *, wall_s: float, drift: bool) -> None:
        """Count a round that ran to its end. `drift` says that its changes were repairs: nobody had asked for any."""
        self._rounds["converged" if outcome.converged else "unfinished"] += 1
        self._seconds = self._seconds.observe(seconds)
        for action, resources in (("make", outcome.changes.make), ("drop", outcome.changes.drop)):
            for resource in resources:
                self._changes[kind_of(resource), action] += 1
                self._repaired[kind_of(resource)] += drift
        if outcome.converged:
            self._succeeded_s = wall_s

    def fail(self) -> None:
        """Count a round that was put off: a part was missing, or a system did not answer."""
        self._rounds["failed"] += 1

    def view(self, status: Status, *, now_s: float, flows: tuple[int, int] | None = None) -> MetricsView:
        """Return what the metrics show from now on. `now_s` is monotonic."""
        return MetricsView(
            status=status,
            made_s=now_s,
            rounds=MappingProxyType(dict(self._rounds)),
            seconds=self._seconds,
            changes=MappingProxyType(dict(self._changes)),
            repaired=MappingProxyType(dict(self._repaired)),
            succeeded_s=self._succeeded_s,
            flows=flows,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One metric. `read` gives its samples of a view at a monotonic time; a histogram's come from the view itself."""

    name: str
    kind: Kind
    text: str
    read: Callable[[MetricsView, float], Iterable[Sample]]
    labels: tuple[str, ...] = ()


def kind_of(resource: Resource) -> str:
    """Return the label value of a resource: `tenant_link`, `route`, `element`."""
    name = type(resource).__name__
    return name[0].lower() + "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name[1:])


def reference() -> str:
    """Return the table of all metrics for the reference page, as Markdown."""
    rows = [f"| `{one.name}` | {one.kind.value} | {', '.join(one.labels) or 'none'} | {one.text} |" for one in METRICS]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _one(value: float | None) -> Iterable[Sample]:
    return [] if value is None else [((), float(value))]


def _each(counted: Mapping[str, int]) -> Iterable[Sample]:
    return [((name,), float(count)) for name, count in sorted(counted.items())]


def _tenants(view: MetricsView, count: Callable[[TenantStatus], int | None], *labels: str) -> Iterator[Sample]:
    """Yield a counter of each tenant, the first MOST_LABELS by name, and the sum of the rest."""
    tenants = sorted(view.status.tenants, key=lambda tenant: tenant.name)
    for tenant in tenants[:MOST_LABELS]:
        value = count(tenant)
        if value is not None:
            yield (tenant.name, *labels), float(value)
    if len(tenants) > MOST_LABELS:
        yield (OTHER, *labels), float(sum(count(tenant) or 0 for tenant in tenants[MOST_LABELS:]))


def _ports(view: MetricsView, value: Callable[[PortUse], float]) -> Iterator[Sample]:
    """Yield a value of each egress IP, the first MOST_LABELS in order, and the largest of the rest."""
    uses = sorted(
        (use for tenant in view.status.tenants for use in tenant.ports),
        key=lambda use: (use.address.version, int(use.address)),
    )
    values = {str(use.address): value(use) for use in uses}
    shown = list(values.items())[:MOST_LABELS]
    yield from (((address,), one) for address, one in shown)
    if len(values) > MOST_LABELS:
        yield (OTHER,), max(list(values.values())[MOST_LABELS:])


def _leaks(view: MetricsView) -> Iterable[Sample]:
    packets: Counter[str] = Counter()
    for blocked in view.status.guard.blocked:
        packets[blocked.layer.value] += blocked.packets
    return _each(packets)


def _findings(view: MetricsView) -> Iterable[Sample]:
    counted = Counter((finding.severity.value, finding.reason) for finding in view.status.findings)
    return [(labels, float(count)) for labels, count in sorted(counted.items())]


def _freshness(view: MetricsView, now_s: float) -> Iterable[Sample]:
    elapsed_s = now_s - view.made_s
    return [
        ((" ".join(filter(None, (one.name, one.part))),), one.age_s + elapsed_s)
        for one in view.status.sources
        if one.age_s is not None
    ]


def _states(view: MetricsView) -> Iterable[Sample]:
    counted = Counter(tenant.state for tenant in view.status.tenants)
    return [((state.value.lower(),), float(counted[state])) for state in TenantState]


def _health(view: MetricsView) -> Iterable[Sample]:
    return [((health.value.lower(),), float(view.status.health is health)) for health in Health]


def _guard(view: MetricsView) -> Iterable[Sample]:
    return [(("table",), float(view.status.guard.table)), (("rules",), float(view.status.guard.rules))]


METRICS: tuple[Definition, ...] = (
    Definition(
        name="outgate_build_info",
        kind=Kind.GAUGE,
        labels=("version", "gateway"),
        text="Always 1; the labels say which outgate serves which EgressGateway",
        read=lambda view, now_s: [((view.status.version, view.status.gateway), 1.0)],
    ),
    Definition(
        name="outgate_health",
        kind=Kind.GAUGE,
        labels=("health",),
        text="1 for how the gateway is doing (ok, degraded, failed), else 0",
        read=lambda view, now_s: _health(view),
    ),
    Definition(
        name="outgate_rounds_total",
        kind=Kind.COUNTER,
        labels=("result",),
        text="Rounds: converged, unfinished (changes were left), failed (put off; nothing was changed)",
        read=lambda view, now_s: _each(view.rounds),
    ),
    Definition(
        name="outgate_round_seconds",
        kind=Kind.HISTOGRAM,
        text="Time of a round from reading to verifying",
        read=lambda view, now_s: [],
    ),
    Definition(
        name="outgate_last_successful_round_timestamp_seconds",
        kind=Kind.GAUGE,
        text="When a round last left nothing to do, in seconds since 1970",
        read=lambda view, now_s: _one(view.succeeded_s),
    ),
    Definition(
        name="outgate_changes_total",
        kind=Kind.COUNTER,
        labels=("kind", "action"),
        text="Resources made and dropped, by kind (tenant_link, route, element and so on)",
        read=lambda view, now_s: [(key, float(count)) for key, count in sorted(view.changes.items())],
    ),
    Definition(
        name="outgate_drift_repaired_total",
        kind=Kind.COUNTER,
        labels=("kind",),
        text="Of these, repairs: somebody else had changed what is ours",
        read=lambda view, now_s: _each(view.repaired),
    ),
    Definition(
        name="outgate_tenants",
        kind=Kind.GAUGE,
        labels=("state",),
        text="Tenants: ok, degraded, refused (their packets are stopped)",
        read=lambda view, now_s: _states(view),
    ),
    Definition(
        name="outgate_tenant_bytes_total",
        kind=Kind.COUNTER,
        labels=("tenant", "direction"),
        text="Bytes of a tenant, sent and received",
        read=lambda view, now_s: [
            *_tenants(view, lambda tenant: tenant.sent_bytes, "sent"),
            *_tenants(view, lambda tenant: tenant.received_bytes, "received"),
        ],
    ),
    Definition(
        name="outgate_tenant_packets_total",
        kind=Kind.COUNTER,
        labels=("tenant", "direction"),
        text="Packets of a tenant, sent",
        read=lambda view, now_s: _tenants(view, lambda tenant: tenant.packets, "sent"),
    ),
    Definition(
        name="outgate_tenant_connections_total",
        kind=Kind.COUNTER,
        labels=("tenant", "direction"),
        text="New connections of a tenant, sent",
        read=lambda view, now_s: _tenants(view, lambda tenant: tenant.opened, "sent"),
    ),
    Definition(
        name="outgate_snat_ports_in_use",
        kind=Kind.GAUGE,
        labels=("egress_ip",),
        text="Ports of an egress IP in use towards the destination that uses most, when last sampled",
        read=lambda view, now_s: _ports(view, lambda use: float(use.used)),
    ),
    Definition(
        name="outgate_snat_ports_available",
        kind=Kind.GAUGE,
        labels=("egress_ip",),
        text="Ports that one destination can use at most",
        read=lambda view, now_s: _ports(view, lambda use: float(use.available)),
    ),
    Definition(
        name="outgate_snat_ports_sample_age_seconds",
        kind=Kind.GAUGE,
        labels=("egress_ip",),
        text="Age of that sample",
        read=lambda view, now_s: _ports(view, lambda use: use.age_s + now_s - view.made_s),
    ),
    Definition(
        name="outgate_leaks_blocked_total",
        kind=Kind.COUNTER,
        labels=("layer",),
        text="Packets stopped by layer: enter, forward, guard (above 0: an outer layer had a hole), inbound",
        read=lambda view, now_s: _leaks(view),
    ),
    Definition(
        name="outgate_guard_up",
        kind=Kind.GAUGE,
        labels=("part",),
        text="1 while the guard stands: the nftables table, and the policy rules behind it",
        read=lambda view, now_s: _guard(view),
    ),
    Definition(
        name="outgate_source_freshness_seconds",
        kind=Kind.GAUGE,
        labels=("source",),
        text="Time since a source of intent was last read wholly",
        read=_freshness,
    ),
    Definition(
        name="outgate_findings",
        kind=Kind.GAUGE,
        labels=("severity", "reason"),
        text="What `status` would list, by severity (note, warning, refusal) and reason",
        read=lambda view, now_s: _findings(view),
    ),
    Definition(
        name="outgate_nodes",
        kind=Kind.GAUGE,
        text="Nodes known",
        read=lambda view, now_s: _one(len(view.status.nodes)),
    ),
    Definition(
        name="outgate_routes",
        kind=Kind.GAUGE,
        text="Return routes in place",
        read=lambda view, now_s: _one(sum(node.routed for node in view.status.nodes)),
    ),
    Definition(
        name="outgate_conntrack_entries",
        kind=Kind.GAUGE,
        text="Entries of connection tracking, of the whole machine",
        read=lambda view, now_s: _one(view.flows[0] if view.flows else None),
    ),
    Definition(
        name="outgate_conntrack_limit",
        kind=Kind.GAUGE,
        text="Entries that the kernel takes before it drops new connections",
        read=lambda view, now_s: _one(view.flows[1] if view.flows else None),
    ),
)
