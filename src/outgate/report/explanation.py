"""An explanation for people and programs. Its first line is the decision; below stand the reasons, one a line."""

from __future__ import annotations

from ipaddress import summarize_address_range

from outgate.model.net import Span
from outgate.report.findings import finding_lines
from outgate.report.layout import PLAIN, Cell, Row, Style, Tone, columns, cut, paragraph
from outgate.report.plain import Plain, as_plain, document
from outgate.report.trace import ending, ending_tone, plain_trace, walk_rows
from outgate.trace.explain import Answer, Explanation, Special, Standing

_TONE = {Standing.FINE: Tone.GOOD, Standing.DEGRADED: Tone.BAD, Standing.UNKNOWN: Tone.BAD}


def explanation_text(explanation: Explanation, style: Style = PLAIN) -> str:
    """Return an explanation as text: the decision, the way here, the walk, what else to know."""
    lines = paragraph(explanation.headline, style, tone=_TONE[explanation.standing])
    others = [answer.headline for answer in explanation.answers if answer.headline != explanation.headline]
    for headline in others:
        lines += paragraph(headline, style)
    for answer in explanation.answers:
        lines += ["", *_answer_lines(explanation, answer, style)]
    lines += _also(explanation, style)
    if explanation.findings:
        lines += ["", *finding_lines(explanation.findings, style, indent=2)]
    return "\n".join(lines)


def explanation_document(explanation: Explanation) -> dict[str, Plain]:
    """Return the document of kind Explanation."""
    body = {
        "headline": explanation.headline,
        "standing": explanation.standing.name.lower(),
        "gateway": explanation.gateway,
        "question": {
            "subject": str(explanation.question.subject),
            "to": explanation.question.to,
            "by": explanation.question.by,
        },
        "subject": explanation.subject,
        "answers": [_plain_answer(answer) for answer in explanation.answers],
        "misses": explanation.misses,
        "findings": explanation.findings,
        "notes": explanation.notes,
        "nearest": explanation.nearest,
    }
    return document("Explanation", body)


def destinations(span: Span) -> str:
    """Return a range as people write it: as a prefix where it is one."""
    prefixes = [*summarize_address_range(span.first, span.last)]
    return str(prefixes[0]) if len(prefixes) == 1 else str(span)


def _answer_lines(explanation: Explanation, answer: Answer, style: Style) -> list[str]:
    rows = [_row("source", str(answer.source))] if len(explanation.answers) > 1 else []
    if answer.approach.supposed:
        trace = answer.actual or answer.wanted
        row = _row("if it came", f"by {answer.approach.link} all the same: {ending(trace)}", ending_tone(trace))
        return columns([*rows, row], style, indent=2)
    rows.append(_row("comes", answer.approach.text))
    rows += [_row("tenant", answer.tenant, Tone.STRONG)] if answer.tenant else []
    if answer.destination is None:
        rows.append(_row("walked to", f"{answer.walked_to}, for anywhere that only a default route reaches"))
    rows += walk_rows(answer.wanted, answer.actual)
    rows += [_row("except", _special_text(special)) for special in answer.specials]
    return columns(rows, style, indent=2)


def _row(label: str, text: str, tone: Tone = Tone.PLAIN) -> Row:
    return ["", Cell(label, Tone.FAINT), Cell(text, tone)]


def _special_text(special: Special) -> str:
    whose = f"as {special.leaves_as}" if special.leaves_as is not None else "untranslated"
    return f"to {destinations(special.destinations)} {whose}"


def _also(explanation: Explanation, style: Style) -> list[str]:
    """Return what is no part of the walk: near misses, notes, names that come near."""
    rows = [_row("not used", f"EgressTenant/{miss.tenant}: {miss.text}") for miss in explanation.misses]
    rows += [_row("note", note) for note in explanation.notes]
    rows += [_row("there is", name) for name in cut(explanation.nearest, style)]
    return ["", *columns(rows, style, indent=2)] if rows else []


def _plain_answer(answer: Answer) -> Plain:
    plain = as_plain(answer)
    assert isinstance(plain, dict)
    actual = plain_trace(answer.actual) if answer.actual is not None else None
    return {**plain, "wanted": plain_trace(answer.wanted), "actual": actual}
