"""What would change, for people and programs."""

from __future__ import annotations

from collections.abc import Sequence

from outgate.model.egress_ip import Decision, Shift
from outgate.report.egress_ip import way
from outgate.report.layout import MANY, PLAIN, Cell, Row, Style, Tone, columns, count, cut
from outgate.report.plain import Plain, document

_WORST = ("source", "fate", "path", "offload")
_TONES = {"source": Tone.BAD, "fate": Tone.BAD, "path": Tone.WARN, "offload": Tone.WARN}


def whatif_text(shifts: Sequence[Shift], unread: Sequence[str], style: Style = PLAIN) -> str:
    """Return what changes as text, the worst first, and a line that counts."""
    shown = sorted(shifts, key=lambda one: (min(map(_WORST.index, one.changes)), one.egress_ip, str(one.address)))
    most = len(shown) if style.whole or len(shown) <= 4 * MANY else 4 * MANY
    lines: list[str] = []
    for one in shown[:most]:
        head = f"EgressIP/{one.egress_ip} {one.address} on {one.before.node}, {count(one.pods, 'pod')}, to {_to(one)}"
        lines.append(style.paint(f"{head}: {', '.join(one.changes)}", _TONES[one.changes[0]]))
        rows: list[Row] = [["", "now", _told(one.before)], ["", Cell("then", Tone.STRONG), _told(one.after)]]
        lines += columns(rows, style, indent=2)
    lines += [f"and {len(shown) - most} more"] if len(shown) > most else []
    lines += [f"{name}: its routes are not known, so nothing is said of it" for name in unread]
    counts = [f"{sum(word in one.changes for one in shifts)} change {word}" for word in _WORST]
    lines.append(f"{count(len(shifts), 'change')}: {', '.join(counts)}" if shifts else "nothing changes")
    return "\n".join(lines)


def whatif_document(shifts: Sequence[Shift], unread: Sequence[str]) -> dict[str, Plain]:
    """Return the document of kind WhatIf."""
    changes = [{"changes": list(one.changes), "shift": one} for one in shifts]
    return document("WhatIf", {"shifts": changes, "unread": list(unread)})


def _to(shift: Shift) -> str:
    named = [str(one) for one in shift.destinations if one.prefixlen]
    elsewhere = ["anywhere else"] * (len(named) < len(shift.destinations))
    return ", ".join(cut([*named, *elsewhere], PLAIN))


def _told(decision: Decision) -> str:
    possible = {True: "offload", False: "no offload", None: "offload in part"}[decision.offload.possible]
    return f"{way(decision)}; {possible} (row {decision.row})"
