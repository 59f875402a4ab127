"""A node's EgressIP tables for people and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from outgate.model.host_table import Compared, EgressTable
from outgate.model.net import Route
from outgate.report.findings import finding_lines, summary
from outgate.report.layout import PLAIN, Style, Tone, columns, count, cut
from outgate.report.plain import Plain, document


def tables_text(tables: Sequence[EgressTable], style: Style = PLAIN) -> str:
    """Return the tables as text, each with its pods, its routes and what is wrong, and a line that counts that."""
    if not tables:
        return "no pod is sent to a table of a secondary NIC here: no rule of priority 6000 and no such table"
    lines = [line for table in tables for line in _table(table, style)]
    return "\n".join([*lines, summary(finding for table in tables for finding in table.findings)])


def tables_document(tables: Sequence[EgressTable]) -> dict[str, Plain]:
    """Return the document of kind EgressTables."""
    return document("EgressTables", {"tables": list(tables)})


def _table(table: EgressTable, style: Style) -> Iterator[str]:
    link = str(table.link) if table.link is not None else "no link"
    head = f"table {table.table} ({link}): {count(len(table.sources), 'rule')}, {count(len(table.routes), 'route')}"
    yield style.paint(head, Tone.BAD if table.findings else Tone.PLAIN)
    if table.sources:
        yield f"  pods    {', '.join(cut([str(one.network_address) for one in table.sources], style))}"
    shown = [(f"{one.dst} {one.hop}" + (f" metric {one.metric}" if one.metric else "")) for one in table.routes]
    for number, route in enumerate(cut(shown, style)):
        yield f"  {'routes' if number == 0 else '':7} {route}"
    if table.compared is not None:
        yield from _compared(table.compared, style)
    yield from finding_lines(table.findings, style, indent=2)


def _compared(compared: Compared, style: Style) -> list[str]:
    rows = [
        [f"to {compared.destination}", "its pods", _words(compared.held, "no route: on to the main table")],
        ["", "main, this NIC", _words(compared.on_link, "no route by this NIC")],
        ["", "the host", _words(compared.main, "no route")],
    ]
    return columns(rows, style, indent=2)


def _words(route: Route | None, none: str) -> str:
    return f"{route.hop} ({route.dst})" if route is not None else none
