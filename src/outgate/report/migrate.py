"""A migration report for people and programs: setting by setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outgate.model.egress_ip import Shift
from outgate.model.why import Finding
from outgate.report.findings import finding_lines
from outgate.report.layout import PLAIN, Style, Tone
from outgate.report.plain import Plain, document
from outgate.report.whatif import whatif_text


def report_text(
    settings: Mapping[str, Sequence[Shift]], unread: Sequence[str], findings: Sequence[Finding], style: Style = PLAIN
) -> str:
    """Return the report as text: what is lost whatever is set, then each setting with what changes."""
    lines = finding_lines(findings, style)
    for name, shifts in settings.items():
        lines += [style.paint(f"{name}:", Tone.STRONG), *_indented(whatif_text(shifts, (), style)), ""]
    lines += [f"{name}: its routes are not known, so nothing is said of it" for name in unread]
    return "\n".join(lines).rstrip()


def report_document(
    settings: Mapping[str, Sequence[Shift]], unread: Sequence[str], findings: Sequence[Finding]
) -> dict[str, Plain]:
    """Return the document of kind MigrationReport."""
    shown = [
        {"setting": name, "shifts": [{"changes": list(one.changes), "shift": one} for one in shifts]}
        for name, shifts in settings.items()
    ]
    return document("MigrationReport", {"settings": shown, "unread": list(unread), "findings": list(findings)})


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
