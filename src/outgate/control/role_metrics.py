"""The page that Prometheus scrapes from the roles inside a cluster. It names kinds and reasons, no object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outgate.model.status import SourceStatus
from outgate.model.why import Finding

_ROLES = ("cluster", "node")
METRICS = {
    "leader": "1 while this replica leads; of the cluster role only",
    "ready": "1 while the objects of the cluster are read",
    "written_total": "Statuses and objects that were written",
    "not_written_total": "Statuses and objects that the API server did not take",
    "findings": "Objects that are refused or warned about, by reason",
    "objects": "Objects that are read, by kind",
    "source_age_seconds": "Seconds since the API server was last heard about a kind",
}


@dataclass(slots=True, kw_only=True)
class Tallies:
    """What a role counts while it works. Written by its loop, read by a scrape, each field as a whole."""

    written: int = 0
    failed: int = 0
    findings: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by reason

    def judged(self, findings: Sequence[Finding]) -> None:
        """Take what is wrong now."""
        self.findings = MappingProxyType(Counter(one.reason for one in findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView:
    """A role at one moment. `leads` is None where there is no leader."""

    role: str
    leads: bool | None
    is_ready: bool
    tallies: Tallies
    sources: tuple[SourceStatus, ...]


def reference() -> str:
    """Return the table of all metrics for the reference page, as Markdown."""
    labels = {"findings": "reason", "objects": "kind", "source_age_seconds": "kind"}
    kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in METRICS}
    rows = [
        f"| `outgate_{role}_{name}` | {kinds[name]} | {labels.get(name, 'none')} | {text} |"
        for role in _ROLES
        for name, text in METRICS.items()
        if role == "cluster" or name != "leader"
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


def page_of(view: Callable[[], RoleView]) -> Callable[[], bytes]:
    """Return what makes the page, in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Views(view))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)


class _Views(Collector):
    def __init__(self, view: Callable[[], RoleView]) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as they are now."""
        view = self._view()
        role, ages = view.role, {one.part: one.age_s for one in view.sources if one.age_s is not None}
        if view.leads is not None:
            yield GaugeMetricFamily(*_named(role, "leader"), value=float(view.leads))
        yield GaugeMetricFamily(*_named(role, "ready"), value=float(view.is_ready))
        yield CounterMetricFamily(*_named(role, "written_total"), value=view.tallies.written)
        yield CounterMetricFamily(*_named(role, "not_written_total"), value=view.tallies.failed)
        yield _gauges(*_named(role, "findings"), "reason", view.tallies.findings)
        objects = {one.part: float(sum(one.objects.values())) for one in view.sources}
        yield _gauges(*_named(role, "objects"), "kind", objects)
        yield _gauges(*_named(role, "source_age_seconds"), "kind", ages)


def _named(role: str, name: str) -> tuple[str, str]:
    return f"outgate_{role}_{name}", METRICS[name]


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], float(value))
    return family
