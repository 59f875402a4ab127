"""The walk of a pod's packet through OVN and a node's host, for people and programs: the headline, then the steps."""

from __future__ import annotations

from outgate.model.zone import OvnSaid
from outgate.report.findings import finding_lines
from outgate.report.layout import PLAIN, Cell, Row, Style, Tone, columns, paragraph
from outgate.report.plain import Plain, as_plain, document
from outgate.report.trace import step_row
from outgate.trace.egress import EgressTrace, EgressWalk, Fate
from outgate.trace.said import told

_TONE = {Fate.LEAVES: Tone.GOOD, Fate.INSIDE: Tone.GOOD, Fate.UNKNOWN: Tone.WARN, Fate.DROPPED: Tone.BAD}


def egress_trace_text(trace: EgressTrace, style: Style = PLAIN) -> str:
    """Return a trace as text: the headline, each way with its steps numbered, then what is amiss."""
    lines = paragraph(trace.headline, style, tone=Tone.GOOD if trace.is_well else Tone.BAD)
    for number, walk in enumerate(trace.walks, 1):
        head = [_row(f"way {number}", walk.ending, _TONE[walk.fate])] if len(trace.walks) > 1 else []
        lines += ["", *columns([*head, *_rows(walk)], style, indent=2)]
    also = [_row("asked", text) for text in trace.asked] + [_row("note", text) for text in trace.notes]
    if also:
        lines += ["", *columns(also, style, indent=2)]
    if trace.findings:
        lines += ["", *finding_lines(trace.findings, style, indent=2)]
    return "\n".join(lines)


def egress_trace_document(trace: EgressTrace) -> dict[str, Plain]:
    """Return the document of kind EgressTrace; each walk says how it ends in words, too."""
    plain = as_plain(trace)
    assert isinstance(plain, dict)
    walks = [_plain_walk(walk) for walk in trace.walks]
    return document("EgressTrace", {"trace": {**plain, "walks": walks}})


def _plain_walk(walk: EgressWalk) -> Plain:
    plain = as_plain(walk)
    assert isinstance(plain, dict)
    return {**plain, "fate": walk.fate.name, "ending": walk.ending, "certain": walk.certain}


def _rows(walk: EgressWalk) -> list[Row]:
    rows: list[Row] = []
    for number, step in enumerate(walk.steps, 1):
        rows.append(step_row(step, number))
        rows += [["", "", Cell(f"not {text}", Tone.FAINT)] for text in step.passed]
    rows += [_said_row(one) for one in walk.said]
    if walk.answer is not None and walk.fate is Fate.LEAVES:
        rows.append(_row("answers", walk.answer.reply))
    if not walk.certain:
        text = "not all that decides was read: it may go otherwise where it says `not sure`"
        rows.append(_row("mind", text, Tone.WARN))
    return rows


def _said_row(said: OvnSaid) -> Row:
    return _row("ovn-trace", f"in the zone of {said.zone} it {told(said)}")


def _row(label: str, text: str, tone: Tone = Tone.PLAIN) -> Row:
    return ["", Cell(label, Tone.FAINT), Cell(text, tone)]
