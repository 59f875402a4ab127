"""Each row of EgressIP's decision tables is a folder in tests/golden, which says what becomes of packets; a change of
behaviour is a change of these files, written by `python -m tests.golden --write` and read by whoever reviews it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from outgate.model.egress_ip import Row
from outgate.model.nics import GatewayMode
from outgate.model.routing import Semantics
from tests.golden.__main__ import differing
from tests.golden.cases import EXPECTED, Case, cases

ROOT = Path(__file__).resolve().parents[2]
IN_BOTH_MODES = {Row.T4, Row.T5, Row.T9, Row.T10, Row.T11, Row.R9, Row.R11}
CASES = pytest.mark.parametrize("case", cases(), ids=lambda case: case.folder.name)


@CASES
def test_what_is_expected_of_a_row_is_what_comes_of_it(case: Case) -> None:
    changed = [path.name for path in differing(case)]

    assert changed == [], "python -m tests.golden --write, and look at the diff"


@CASES
def test_a_folder_is_about_the_row_that_it_names_in_the_mode_that_it_names(case: Case) -> None:
    decided = json.loads((case.folder / EXPECTED / "decision.json").read_text())

    assert {one["row"] for one in decided.values()} == {case.row}
    assert case.mode.value in case.folder.name.split("-")
    assert (case.routing.semantics is Semantics.LEGACY) is case.row.startswith("T")


def test_every_row_has_its_folders_and_its_line_in_the_docs() -> None:
    modes: dict[str, set[GatewayMode]] = {}
    for case in cases():
        modes.setdefault(case.row, set()).add(case.mode)
    table = re.findall(r"^\| ([TR]\d[^|]*?) \|", (ROOT / "docs" / "egress-ip.md").read_text(), re.MULTILINE)
    documented = [row for cell in table for row in cell.split(", ")]

    assert modes.keys() == set(Row)
    assert sorted(documented) == sorted(Row)
    assert {row for row, of_it in modes.items() if len(of_it) == 2} == IN_BOTH_MODES


def test_legacy_adds_nothing_to_any_node() -> None:
    added = {case.folder.name: (case.folder / EXPECTED / "assist.txt").read_text() for case in cases()}

    assert {name for name, text in added.items() if name.startswith("T") and text} == set()
    assert any(added.values())


@CASES
def test_explain_shows_what_is_decided_and_asks_nobody_else(case: Case) -> None:
    explained = {to: [answer.decision for answer in one.answers] for to, one in case.explanations.items()}

    assert explained in ({}, {to: [decision] for to, decision in case.decisions.items()})


def test_what_explain_is_shown_to_say_is_what_the_command_prints() -> None:
    (case,) = (one for one in cases() if one.row == Row.R3H)
    shown = (case.folder / EXPECTED / "explain.txt").read_text().removeprefix("$ ").split("\n\n$ ")

    command, _, text = shown[1].partition("\n")
    words = (sys.executable, "-m", *shlex.split(command), "-f", ".")
    ran = subprocess.run(words, cwd=case.folder, capture_output=True, text=True, check=False)

    assert (len(shown), ran.stdout) == (len(case.destinations), f"{text}\n"), ran.stderr
