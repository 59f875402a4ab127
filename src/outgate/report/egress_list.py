"""Lists of EgressIPs for people and programs."""

from __future__ import annotations

from collections.abc import Sequence

from outgate.model.egress_ip import AddressReason, EgressDetail, EgressRow
from outgate.model.intent import Pod
from outgate.model.placement import Moved
from outgate.report.findings import finding_lines
from outgate.report.layout import MANY, PLAIN, Cell, Row, Style, Tone, columns, count
from outgate.report.plain import Plain, document


def list_text(rows: Sequence[EgressRow], style: Style = PLAIN) -> str:
    """Return the list as text: an address a line, and below it what is amiss."""
    if not rows:
        return "there is no EgressIP"
    table: list[Row] = [[Cell(word, Tone.FAINT) for word in ("EGRESSIP", "ADDRESS", "NODE", "PODS", "NAMESPACES")]]
    for row in rows:
        spaces = ", ".join(row.namespaces[:3]) + (f" and {len(row.namespaces) - 3} more" * (len(row.namespaces) > 3))
        for number, (address, node) in enumerate(row.addresses):
            head = (row.name, str(row.pods), spaces) if number == 0 else ("", "", "")
            place = Cell(node) if node else Cell("none", Tone.BAD)
            table.append([head[0], str(address), place, head[1], head[2]])
    findings = [finding for row in rows for finding in row.findings]
    return "\n".join([*columns(table, style), *finding_lines(findings, style)])


def list_document(rows: Sequence[EgressRow]) -> dict[str, Plain]:
    """Return the document of kind EgressIPs."""
    return document("EgressIPs", {"egressIPs": list(rows)})


def reasons_text(reasons: Sequence[AddressReason], style: Style = PLAIN) -> str:
    """Return, for each address, where it is or why it is nowhere, and what each node says to it."""
    lines: list[str] = []
    for one in reasons:
        place = f"is on {one.node}" if one.node else "is on no node"
        lines.append(style.paint(f"{one.address} {place}", Tone.PLAIN if one.node else Tone.BAD))
        rows: list[Row] = [
            [
                each.node,
                Cell(each.reason or f"can take it, by {each.network}", Tone.FAINT if each.reason else Tone.GOOD),
            ]
            for each in one.candidates
        ]
        lines += columns(rows, style, indent=2)
        lines += finding_lines([one.finding] if one.finding is not None else [], style, indent=2)
    lines.append(f"{count(sum(bool(one.node) for one in reasons), 'address', 'addresses')} of {len(reasons)} assigned")
    return "\n".join(lines)


def reasons_document(reasons: Sequence[AddressReason]) -> dict[str, Plain]:
    """Return the document of kind EgressIPReasons."""
    return document("EgressIPReasons", {"addresses": list(reasons)})


def detail_text(detail: EgressDetail, style: Style = PLAIN) -> str:
    """Return one EgressIP as text: its addresses, its pods, and what is amiss."""
    rows: list[Row] = []
    for one in detail.placements:
        where = f"on {one.node}" if one.node else "on no node"
        by = f", {one.nic}" if one.nic is not None else ""
        rows.append([str(one.address), Cell(where + by, Tone.PLAIN if one.node else Tone.BAD), str(one.network or "")])
    lines = [style.paint(f"EgressIP/{detail.name}", Tone.STRONG), *columns(rows, style, indent=2)]
    lines.append(f"serves {count(len(detail.pods), 'pod')}")
    lines += columns([[*_pod(pod), ""] for pod in detail.pods][: None if style.whole else MANY], style, indent=2)
    lines += [f"  and {len(detail.pods) - MANY} more"] if len(detail.pods) > MANY and not style.whole else []
    lines += columns([[*_pod(pod), f"has EgressIP/{owner} first"] for pod, owner in detail.standby], style, indent=2)
    return "\n".join([*lines, *finding_lines(detail.findings, style)])


def detail_document(detail: EgressDetail) -> dict[str, Plain]:
    """Return the document of kind EgressIPDetail."""
    return document("EgressIPDetail", {"egressIP": detail})


def _pod(pod: Pod) -> list[str]:
    return [f"{pod.namespace}/{pod.name}", ", ".join(map(str, pod.addresses)), f"on {pod.node}" if pod.node else ""]


def history_text(moves: Sequence[Moved], style: Style = PLAIN) -> str:
    """Return what became of egress IPs, a move a line, the latest last."""
    if not moves:
        return "nothing moved since the cluster role runs here"
    heads = ("TIME", "EGRESSIP", "ADDRESS", "FROM", "TO", "BECAUSE")
    table: list[Row] = [[Cell(word, Tone.FAINT) for word in heads]]
    table += [
        [one.at, one.egress_ip, str(one.address), one.from_node or "none", one.to_node or "none", one.reason]
        for one in moves
    ]
    return "\n".join(columns(table, style))


def history_document(moves: Sequence[Moved]) -> dict[str, Plain]:
    """Return the document of kind EgressIPHistory."""
    return document("EgressIPHistory", {"moves": list(moves)})
