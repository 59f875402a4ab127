"""Who answers for an egress IP, for people and programs."""

from __future__ import annotations

from outgate.model.neighbour import Neighbour
from outgate.report.findings import finding_lines
from outgate.report.layout import PLAIN, Cell, Row, Style, Tone, columns, paragraph
from outgate.report.plain import Plain, document

_SWITCH = (
    "sees the MAC of the node's NIC with one more address: what counts MACs takes it; what binds addresses to ports "
    "(IP source guard, ARP inspection, allowed address pairs, a hypervisor's anti-spoofing) must be told of it"
)


def neighbour_text(found: Neighbour, style: Style = PLAIN) -> str:
    """Return it as text: whose the address is, who answers, what the cloud says, and what is amiss."""
    where = f"on {found.node}" if found.node else "on no node"
    whose = f"is {found.owner}'s, {where}" if found.owner else "is no EgressIP's"
    lines = paragraph(f"{found.address} {whose}", style, tone=Tone.BAD if found.findings else Tone.GOOD)
    rows: list[Row] = [_row("asked", f"on {found.asked_on}")]
    itself = found.node and found.asked_on.endswith(f" of {found.node}")
    nobody = f"nobody but {found.node} itself, which does not hear its own question" if itself else "nobody"
    shown = ", ".join(f"{mac} ({name or 'no node that is known'})" for mac, name in found.answers)
    rows.append(_row("answers", shown or nobody))
    rows.append(_row("cloud", found.cloud or "no CloudPrivateIPConfig is known for it"))
    rows += [_row("switch", _SWITCH)] if found.node else []
    lines += columns(rows, style, indent=2)
    return "\n".join([*lines, *finding_lines(found.findings, style)])


def neighbour_document(found: Neighbour) -> dict[str, Plain]:
    """Return the document of kind EgressNeighbour."""
    return document("EgressNeighbour", {"neighbour": found})


def _row(label: str, text: str) -> Row:
    return ["", Cell(label, Tone.FAINT), text]
