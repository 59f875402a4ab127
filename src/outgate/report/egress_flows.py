"""Live flows of egress IPs, for people and programs."""

from __future__ import annotations

from outgate.model.egress_flows import AddressUse, EgressFlows, PodUse
from outgate.report.findings import finding_lines
from outgate.report.layout import MANY, PLAIN, Cell, Row, Style, Tone, columns, count
from outgate.report.plain import Plain, as_plain, document

_NARROW = 2  # destinations of a pod on one line


def flows_text(found: EgressFlows, ports: int, style: Style = PLAIN) -> str:
    """Return them as text: each egress IP with its busiest destinations, then pods, then what is amiss. `ports` are
    there for one destination.
    """
    total = sum(one.flows for one in found.addresses)
    head = f"{found.node}: {count(total, 'flow leaves', 'flows leave')} as an egress IP; connection tracking has "
    lines = [f"{head}{found.entries:,} entries of {found.limit:,}"]
    if found.addresses:
        titles = ("ADDRESS", "EGRESSIP", "FLOWS", "PODS", "BUSIEST DESTINATION", "PORTS IN USE THERE")
        lines += ["", *columns([_titles(titles), *(_address(one, ports) for one in found.addresses)], style)]
        shown = found.pods if style.whole else found.pods[:MANY]
        lines += ["", *columns([_titles(("POD", "LEAVES AS", "FLOWS", "TO")), *map(_pod, shown)], style)]
        lines += [f"and {len(found.pods) - len(shown)} more"] if len(found.pods) > len(shown) else []
    if found.findings:
        lines += ["", *finding_lines(found.findings, style)]
    return "\n".join(lines)


def flows_document(found: EgressFlows) -> dict[str, Plain]:
    """Return the document of kind EgressFlows; flows that are astray stand in it one by one."""
    plain = as_plain(found)
    assert isinstance(plain, dict)
    return document(
        "EgressFlows", {**plain, "astray": [{**_plain(one), "flow": str(one.flow)} for one in found.astray]}
    )


def _plain(one: object) -> dict[str, Plain]:
    plain = as_plain(one)
    assert isinstance(plain, dict)
    return plain


def _titles(words: tuple[str, ...]) -> Row:
    return [Cell(word, Tone.FAINT) for word in words]


def _address(one: AddressUse, ports: int) -> Row:
    busiest = one.remotes[0]
    share = f" ({busiest.ports / ports:.0%})" if busiest.remote.port else ""
    ending = f", {busiest.ending:,} of them only wait to end" if busiest.ending else ""
    of = f" of {ports:,}" if busiest.remote.port else ""
    use = f"{busiest.ports:,}{of}{share}{ending}"
    return [str(one.address), one.egress_ip, f"{one.flows:,}", str(one.pods), str(busiest.remote), use]


def _pod(one: PodUse) -> Row:
    shown = [f"{remote} {number:,}" for remote, number in one.remotes[:_NARROW]]
    more = len(one.remotes) - len(shown)
    return [one.pod, str(one.seen_as), f"{one.flows:,}", ", ".join(shown) + (f" and {more} more" if more > 0 else "")]
