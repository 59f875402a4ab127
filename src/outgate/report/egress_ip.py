"""What is said about EgressIP, for people and programs. The first line is the decision."""

from __future__ import annotations

from outgate.model.egress_ip import Decision, EgressAnswer, EgressExplanation
from outgate.model.rivals import Fate, Say
from outgate.report.findings import finding_lines
from outgate.report.layout import PLAIN, Cell, Row, Style, Tone, columns, paragraph
from outgate.report.plain import Plain, document

_TONES = {Fate.DROPS: Tone.BAD, Fate.TAKES: Tone.BAD, Fate.MAY_DROP: Tone.WARN}


def egress_text(explanation: EgressExplanation, style: Style = PLAIN) -> str:
    """Return an explanation as text: the decision, then each step with its reason, then what is amiss."""
    lines = paragraph(explanation.headline, style, tone=Tone.GOOD if explanation.is_well else Tone.BAD)
    for answer in explanation.answers:
        lines += ["", *columns(_rows(answer), style, indent=2)]
    if explanation.says:
        lines += ["", *columns([_said(one) for one in explanation.says], style, indent=2)]
    also = [_row("note", text) for text in (*explanation.standby, *explanation.notes)]
    if also:
        lines += ["", *columns(also, style, indent=2)]
    if explanation.findings:
        lines += ["", *finding_lines(explanation.findings, style, indent=2)]
    return "\n".join(lines)


def egress_document(explanation: EgressExplanation) -> dict[str, Plain]:
    """Return the document of kind EgressExplanation."""
    return document("EgressExplanation", {"explanation": explanation})


def way(decision: Decision) -> str:
    """Return where a decision sends packets, in a few words."""
    hops = " or ".join(map(str, decision.hops)) or "no route"
    source = f" as {decision.source}" if decision.source is not None else " without the egress IP"
    return f"{decision.path.value}, {hops}" + (source if decision.leaves else "")


def _rows(answer: EgressAnswer) -> list[Row]:
    decision = answer.decision
    rows = [
        _row("egress IP", f"{answer.address} of EgressIP/{answer.egress_ip}", Tone.STRONG),
        _row("node", f"{decision.node}" + "".join(_others(answer))),
        _row("path", f"{decision.path.value} (row {decision.row})"),
    ]
    rows += [_row("because", one.text) for one in decision.because if one.rule != "fib"]
    if decision.route is not None and any(one.rule == "fib" for one in decision.because):
        over = f", over {decision.over[0]}" if decision.over else ""
        rows.append(_row("route", f"{decision.route}{over}"))
    rows.append(_row("SNAT", f"{decision.source or 'none'}, in {decision.place.value}"))
    possible = {True: "yes", False: "no", None: "in part"}[decision.offload.possible]
    rows.append(_row("offload", f"{possible}: {decision.offload.reason}"))
    rows.append(_row("answers", answer.reply))
    rows.append(_row("MTU", answer.mtu))
    rows += [_row("large", answer.large)] if answer.large else []
    if answer.today is not None:
        rows.append(_row("legacy", f"{way(answer.today)} (row {answer.today.row})", Tone.FAINT))
    return rows


def _said(one: Say) -> Row:
    return [Cell(one.about, Tone.FAINT), Cell(f"{one.fate.value}: {one.text}", _TONES.get(one.fate, Tone.PLAIN))]


def _others(answer: EgressAnswer) -> list[str]:
    shown = [
        f"; not {one.node}: {one.reason}" if one.reason else f"; {one.node} could take it too"
        for one in answer.others[:3]
    ]
    more = len(answer.others) - len(shown)
    return [*shown, f"; and {more} more nodes"] if more > 0 else shown


def _row(label: str, text: str, tone: Tone = Tone.PLAIN) -> Row:
    return ["", Cell(label, Tone.FAINT), Cell(text, tone)]
