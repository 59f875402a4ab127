"""Makes deploy/monitoring/dashboard.json, for Grafana's import: what an operator looks at first, top to bottom."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT, _PER_ROW = 12, 8, 2
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its title, what is drawn, the words beside each line, and Grafana's unit."""

    title: str
    query: str
    legend: str
    unit: str = "short"


PANELS = (
    Panel(
        "Gateways that are not well",
        'sum by (instance, health) (outgate_health{health!="ok"})',
        "{{instance}} {{health}}",
    ),
    Panel("Guards that stand", "min by (instance, part) (outgate_guard_up)", "{{instance}} {{part}}"),
    Panel(
        "Packets stopped",
        "sum by (instance, layer) (rate(outgate_leaks_blocked_total[5m]))",
        "{{instance}} {{layer}}",
        "pps",
    ),
    Panel("Tenants by state", "sum by (state) (outgate_tenants)", "{{state}}"),
    Panel(
        "Sent, busiest tenants", 'topk(10, rate(outgate_tenant_bytes_total{direction="sent"}[5m]))', "{{tenant}}", "Bps"
    ),
    Panel(
        "Ports in use, fullest egress IPs",
        "topk(10, outgate_snat_ports_in_use / outgate_snat_ports_available)",
        "{{egress_ip}}",
        "percentunit",
    ),
    Panel(
        "Seconds of a round",
        "rate(outgate_round_seconds_sum[5m]) / rate(outgate_round_seconds_count[5m])",
        "{{instance}}",
        "s",
    ),
    Panel("Drift repaired", "sum by (instance) (increase(outgate_drift_repaired_total[1h]))", "{{instance}}"),
    Panel("Replica that leads", "outgate_cluster_leader", "{{pod}}"),
    Panel("Objects refused or warned about", "max by (reason) (outgate_cluster_findings)", "{{reason}}"),
    Panel("Age of what is read", "max by (kind) (outgate_cluster_source_age_seconds)", "{{kind}}", "s"),
    Panel("Not taken by the API server", "sum(rate(outgate_cluster_not_written_total[5m]))", "writes", "ops"),
)


def dashboard() -> str:
    """Return the dashboard as JSON."""
    variable = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    made = {
        "uid": "outgate",
        "title": "outgate",
        "tags": ["outgate"],
        "schemaVersion": 39,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }
    return json.dumps(made, indent=2) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _PER_ROW)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [{"refId": "A", "datasource": _SOURCE, "expr": panel.query, "legendFormat": panel.legend}],
    }
