"""Pods that leave as somebody else, for people and programs."""

from __future__ import annotations

from outgate.model.unserved import Leaving, Unserved
from outgate.report.layout import MANY, PLAIN, Cell, Row, Style, Tone, columns, count, paragraph
from outgate.report.plain import Plain, document

_ALWAYS = (
    "to nodes and inside the cluster no pod has its egress IP",
    "an answer to a call from outside (NodePort, LoadBalancer, Route) leaves as the address that was called",
    "a new pod may leave as its node until OVN-Kubernetes has made its rows",
    "a flow keeps the address that it began with: `outgate egressip flows` on the node shows those",
)


def unserved_text(found: Unserved, style: Style = PLAIN) -> str:
    """Return them as text: whose the address is that was seen, the pods a line each, and what is always so."""
    lines: list[str] = []
    if found.seen is not None:
        whose = f"is {found.owner}" if found.owner else "is nobody's here: no EgressIP, node or pod has it"
        lines += paragraph(f"{found.seen} {whose}", style, tone=Tone.STRONG)
    meant = sum(one.is_meant for one in found.leaving)
    number = count(len(found.leaving), "pod address leaves", "pod addresses leave")
    lines.append(f"{number} without the EgressIP of the namespace, {meant} of them because a podSelector says so")
    if found.ordinary:
        lines.append(f"{count(found.ordinary, 'pod')} of other namespaces leaves as this node too")
    if found.leaving:
        head: Row = [Cell(word, Tone.FAINT) for word in ("POD", "ADDRESS", "SEEN AS", "BECAUSE")]
        shown = found.leaving if style.whole else found.leaving[: MANY * 3]
        lines += ["", *columns([head, *map(_row, shown)], style)]
        lines += [f"and {len(found.leaving) - len(shown)} more"] if len(found.leaving) > len(shown) else []
    always: list[Row] = [[Cell("" if place else "always", Tone.FAINT), one] for place, one in enumerate(_ALWAYS)]
    return "\n".join([*lines, "", *columns(always, style)])


def unserved_document(found: Unserved) -> dict[str, Plain]:
    """Return the document of kind EgressUnserved."""
    return document("EgressUnserved", {"unserved": found})


def _row(one: Leaving) -> Row:
    seen = str(one.seen_as or "-") + (f" ({one.of})" if one.of else "")
    return [one.pod, str(one.address or "-"), Cell(seen, Tone.PLAIN if one.is_meant else Tone.BAD), one.why]
