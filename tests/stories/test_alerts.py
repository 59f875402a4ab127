"""Alerts ask for metrics that are there, and each has its runbook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from outgate.control import metrics, role_metrics

ROOT = Path(__file__).resolve().parents[2]


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((ROOT / "deploy" / "monitoring" / "rules.yaml").read_text())
    every: list[dict[str, Any]] = [rule for group in found["spec"]["groups"] for rule in group["rules"]]
    return every


def test_every_metric_of_the_dashboard_is_one_that_outgate_has() -> None:
    made = json.loads((ROOT / "deploy" / "monitoring" / "dashboard.json").read_text())
    known = set(re.findall(r"outgate_[a-z_]+", metrics.reference() + role_metrics.reference()))
    asked = {name for panel in made["panels"] for name in re.findall(r"outgate_[a-z_]+", panel["targets"][0]["expr"])}
    assert {re.sub("_(sum|count)$", "", name) for name in asked} <= known
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])


def test_every_metric_of_an_alert_is_one_that_a_gateway_has() -> None:
    known = set(re.findall(r"outgate_[a-z_]+", metrics.reference()))
    asked = {name for rule in rules() for name in re.findall(r"outgate_[a-z_]+", rule["expr"])}
    assert asked - known == set()


def test_every_alert_has_its_runbook_with_the_very_condition() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert f"## {rule['alert']}\n\n`{rule['expr']}`\n" in page
    assert len(re.findall("^## ", page, re.MULTILINE)) == len(rules())
