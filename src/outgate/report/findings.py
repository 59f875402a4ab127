"""Findings for people and programs: the worst first, each with its object, what is wrong, what to do, and where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from outgate.model.why import Finding, Severity
from outgate.report.layout import MANY, PLAIN, Cell, Row, Style, Tone, columns, count, paragraph
from outgate.report.plain import Plain, document

_ORDER = {Severity.REFUSAL: 0, Severity.WARNING: 1, Severity.NOTE: 2}
_WORD = {Severity.REFUSAL: "REFUSED", Severity.WARNING: "WARNING", Severity.NOTE: "note"}
TONE = {Severity.REFUSAL: Tone.BAD, Severity.WARNING: Tone.WARN, Severity.NOTE: Tone.FAINT}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the worst first, then by reason and object; what is said twice is kept once."""
    return sorted(dict.fromkeys(findings), key=lambda f: (_ORDER[f.severity], f.reason, f.about, f.text))


def findings_text(findings: Iterable[Finding], style: Style = PLAIN) -> str:
    """Return findings as text, ending with a line that counts them; of many with the same reason, some are shown."""
    every = ordered(findings)
    lines = finding_lines(every, style)
    return "\n".join([*lines, summary(every)])


def finding_lines(findings: Iterable[Finding], style: Style, *, indent: int = 0, most: int = MANY) -> list[str]:
    """Return the lines of findings, without the count. Of many with the same reason the first `most` are shown."""
    groups: dict[tuple[Severity, str], list[Finding]] = defaultdict(list)
    for finding in ordered(findings):
        groups[finding.severity, finding.reason].append(finding)
    lines: list[str] = []
    for (_, reason), same in groups.items():
        shown = same if style.whole or len(same) <= most + 1 else same[:most]
        for finding in shown:
            lines += _one(finding, style, indent)
        if len(same) > len(shown):
            lines += paragraph(f"and {len(same) - len(shown)} more {reason}", style, indent=indent, tone=Tone.FAINT)
    return lines


def summary(findings: Iterable[Finding]) -> str:
    """Return a line that counts findings: `1 refused, 2 warnings, 1 note`; `nothing to report` when there are none."""
    every = list(findings)
    counts = {severity: sum(finding.severity is severity for finding in every) for severity in _ORDER}
    said = [f"{counts[Severity.REFUSAL]:,} refused"] if counts[Severity.REFUSAL] else []
    said += [count(counts[Severity.WARNING], "warning")] if counts[Severity.WARNING] else []
    said += [count(counts[Severity.NOTE], "note")] if counts[Severity.NOTE] else []
    return ", ".join(said) or "nothing to report"


def findings_document(findings: Iterable[Finding]) -> dict[str, Plain]:
    """Return the document of kind Findings."""
    return document("Findings", {"findings": ordered(findings)})


def _one(finding: Finding, style: Style, indent: int) -> list[str]:
    word = Cell(f"{_WORD[finding.severity]:7}", TONE[finding.severity])
    rows: list[Row] = [[word, f"{finding.about} {finding.reason}"], ["", finding.text]]
    rows += [["", f"fix: {finding.fix}"]] if finding.fix else []
    origin = str(finding.origin) if finding.origin is not None else ""
    rows += [["", Cell(f"at {origin}", Tone.FAINT)]] if origin else []
    return columns(rows, style, indent=indent)
