"""A packet's walk for people and programs: numbered steps, each with what decided, why, and whose word that was."""

from __future__ import annotations

from outgate.model.why import Because
from outgate.report.layout import PLAIN, Cell, Row, Style, Tone, columns, paragraph
from outgate.report.plain import Plain, as_plain, document
from outgate.trace.steps import Disposition, Step, Trace, Verdict

_TONE = {Disposition.LEAVES: Tone.GOOD, Disposition.INTERNAL: Tone.GOOD, Disposition.LOCAL: Tone.WARN}


def trace_text(wanted: Trace, actual: Trace | None = None, style: Style = PLAIN) -> str:
    """Return one walk, or two: what is wanted, and what the kernel would do now, with the step where they part."""
    shown = actual or wanted
    head = paragraph(f"{shown.packet}: {ending(shown)}", style, tone=ending_tone(shown))
    return "\n".join([*head, "", *columns(walk_rows(wanted, actual), style, indent=2)])


def walk_rows(wanted: Trace, actual: Trace | None) -> list[Row]:
    """Return the rows (number, place, text) of one walk, or of two that part, and the verdict on them."""
    if actual is None:
        return [*step_rows(wanted), *_unsure(wanted)]
    parting = wanted.parts_from(actual)
    if not parting:
        agrees = Cell("agrees: it holds what is wanted", Tone.GOOD)
        return [*step_rows(actual), *_unsure(actual), ["", Cell("kernel", Tone.FAINT), agrees]]
    return [
        ["", Cell("kernel", Tone.BAD), Cell("does otherwise than is wanted", Tone.BAD)],
        ["", Cell("", Tone.FAINT), parting],
        ["", Cell("found", Tone.STRONG), Cell(ending(actual), Tone.STRONG)],
        *step_rows(actual),
        *_unsure(actual),
        ["", Cell("wanted", Tone.STRONG), Cell(ending(wanted), Tone.STRONG)],
        *step_rows(wanted),
    ]


def ending(trace: Trace) -> str:
    """Return in a few words how a walk ends."""
    if not trace.disposition.forwards:
        return f"{trace.disposition.value}: {trace.reason}"
    lost = "" if trace.reply is None or trace.reply.returns else "; answers are lost"
    return f"{trace.disposition.value} by {trace.link} as {trace.leaves_as}{lost}"


def ending_tone(trace: Trace) -> Tone:
    """Return how good an ending is for the sender."""
    if trace.reply is not None and not trace.reply.returns:
        return Tone.BAD
    return _TONE.get(trace.disposition, Tone.BAD)


def step_rows(trace: Trace) -> list[Row]:
    """Return the steps of a walk and of its answer's, numbered."""
    rows = [step_row(step, number) for number, step in enumerate(trace.steps, 1)]
    if trace.reply is not None:
        lost = "" if trace.reply.returns else "are lost: "
        tone = Tone.PLAIN if trace.reply.returns else Tone.BAD
        said = trace.reply.reason.removeprefix("answers ")
        rows.append(["", Cell("answers", Tone.STRONG), Cell(lost + said, tone)])
        rows += [step_row(step, number) for number, step in enumerate(trace.reply.steps, len(trace.steps) + 1)]
    return rows


def why(because: Because | None, said: str) -> str:
    """Return the reason of a resource, unless a sentence has said it already, and the objects that it rests on."""
    if because is None:
        return ""
    reason = "" if because.text in said else f": {because.text}"
    return reason + (f" [{', '.join(because.cites)}]" if because.cites else "")


def trace_document(wanted: Trace, actual: Trace | None = None) -> dict[str, Plain]:
    """Return the document of kind Trace; `actual` is null when the kernel was not read."""
    body = {
        "wanted": plain_trace(wanted),
        "actual": plain_trace(actual) if actual is not None else None,
        "agrees": wanted.same_way(actual) if actual is not None else None,
        "parting": wanted.parts_from(actual) if actual is not None else "",
    }
    return document("Trace", body)


def plain_trace(trace: Trace) -> Plain:
    """Return a walk as plain data, with what is derived from its fields."""
    plain = as_plain(trace)
    assert isinstance(plain, dict)
    derived = {"certain": trace.certain, "untranslated": trace.untranslated}
    return {**plain, "disposition": trace.disposition.name, **derived}


def step_row(step: Step, number: int) -> Row:
    """Return a step as a row: its number, its place, and what happens there, with its reason."""
    tone = {Verdict.ENDS: Tone.BAD, Verdict.UNSURE: Tone.WARN}.get(step.verdict, Tone.PLAIN)
    doubt = "not sure: " if step.verdict is Verdict.UNSURE else ""
    text = f"{doubt}{step.text}{why(step.because, step.text)}"
    return [Cell(f"{number}", Tone.FAINT), Cell(step.place.value, Tone.NAME), Cell(text, tone)]


def _unsure(trace: Trace) -> list[Row]:
    if trace.certain:
        return []
    text = "not all that decides was read: the kernel may do otherwise where it says `not sure`"
    return [["", Cell("mind", Tone.WARN), Cell(text, Tone.WARN)]]
