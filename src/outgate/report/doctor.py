"""The answers of `outgate doctor`: the worst first, each with what to do; what is well is counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outgate.model.check import Check, Grade
from outgate.report.layout import MANY, PLAIN, Cell, Row, Style, Tone, columns, count, paragraph
from outgate.report.plain import Plain, document

_ORDER = {Grade.FAIL: 0, Grade.WARN: 1, Grade.OK: 2}
_WORD = {Grade.FAIL: "FAIL", Grade.WARN: "WARN", Grade.OK: "ok"}
_TONE = {Grade.FAIL: Tone.BAD, Grade.WARN: Tone.WARN, Grade.OK: Tone.GOOD}


def worst(checks: Iterable[Check]) -> Grade:
    """Return the worst grade, OK for no checks."""
    return min((check.grade for check in checks), key=lambda grade: _ORDER[grade], default=Grade.OK)


def checks_text(checks: Sequence[Check], style: Style = PLAIN) -> str:
    """Return what was found as text, failures first, and a line that counts; of many of one id some are shown."""
    rows: list[Row] = []
    lines: list[str] = []
    for grade in (Grade.FAIL, Grade.WARN, Grade.OK):
        told = [check for check in checks if check.grade is grade and check.text]
        for identity in dict.fromkeys(check.id for check in told):
            same = [check for check in told if check.id == identity]
            shown = same if style.whole or len(same) <= MANY + 1 else same[:MANY]
            for check in shown:
                rows += _rows(check)
            if len(same) > len(shown):
                rows += [["", "", Cell(f"and {len(same) - len(shown)} more {identity}", Tone.FAINT)]]
    lines += columns(rows, style)
    return "\n".join([*lines, *paragraph(summary(checks), style)])


def summary(checks: Sequence[Check]) -> str:
    """Return a line that counts: `2 failures, 1 warning, 27 checks passed`."""
    failed, warned = (sum(check.grade is grade for check in checks) for grade in (Grade.FAIL, Grade.WARN))
    passed = len({check.id for check in checks} - {check.id for check in checks if check.grade is not Grade.OK})
    said = [count(failed, "failure")] if failed else []
    said += [count(warned, "warning")] if warned else []
    return ", ".join([*said, f"{count(passed, 'check')} passed"])


def checks_document(checks: Sequence[Check]) -> dict[str, Plain]:
    """Return the document of kind Checks: every check, those that passed too."""
    return document("Checks", {"worst": worst(checks), "checks": list(checks)})


def _rows(check: Check) -> list[Row]:
    head = f"{check.about}: {check.text}" if check.about else check.text
    rows: list[Row] = [[Cell(_WORD[check.grade], _TONE[check.grade]), Cell(check.id, Tone.NAME), head]]
    return [*rows, ["", "", Cell(f"fix: {check.fix}", Tone.FAINT)]] if check.fix else rows
