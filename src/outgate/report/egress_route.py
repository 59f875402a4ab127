"""Which egress IPs follow a host route, for people and programs."""

from __future__ import annotations

from outgate.model.egress_route import Follows, RouteAnswer
from outgate.report.egress_ip import way
from outgate.report.layout import PLAIN, Cell, Row, Style, Tone, columns, count
from outgate.report.plain import Plain, document


def route_text(found: RouteAnswer, style: Style = PLAIN) -> str:
    """Return it as text: each egress IP with the route of its node, whether it follows, why, and what to do."""
    if not found.egress_ips:
        return f"no egress IP of IPv{found.prefix.version} is on a node"
    lines: list[str] = []
    for one in found.egress_ips:
        word, tone = _verdict(one)
        lines.append(style.paint(f"EgressIP/{one.egress_ip} {one.address} on {one.node}: {word}", tone))
        rows: list[Row] = [_row("route", " and ".join(map(str, one.routes)))] if one.routes else []
        rows += [_row("packets", f"{way(one.decision)} (row {one.decision.row})")] if one.decision is not None else []
        rows.append(_row("because", one.why))
        rows += [_row("fix", one.fix)] if one.fix else []
        lines += columns(rows, style, indent=2)
    with_route = sum(bool(one.routes) for one in found.egress_ips)
    number = count(with_route, "egress IP", "egress IPs")
    return "\n".join(
        [*lines, f"{number} on nodes with a route to {found.prefix}, {len(found.ignored)} do not follow it"]
    )


def route_document(found: RouteAnswer) -> dict[str, Plain]:
    """Return the document of kind EgressRoute."""
    return document("EgressRoute", {"route": found})


def _verdict(one: Follows) -> tuple[str, Tone]:
    if not one.routes:
        return "no such route is known", Tone.FAINT
    return ("follows it", Tone.GOOD) if one.follows else ("does not follow it", Tone.BAD)


def _row(label: str, text: str) -> Row:
    return ["", Cell(label, Tone.FAINT), text]
