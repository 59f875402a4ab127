"""Text is laid out for terminals of any width, with names in it that somebody else chose."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.net import Mark, Route, Span, Via
from outgate.model.ruleset import Element
from outgate.model.why import Finding, Origin, Severity
from outgate.report.findings import findings_document, findings_text
from outgate.report.layout import Cell, Row, Style, Tone, ago, clean, columns, count, cut, duration, large
from outgate.report.plain import as_plain
from tests.stories.cluster import BLUE, ENP7S0

PARAGRAPH = "a sentence that is so long that it does not fit beside the other cells of a narrow terminal"


def refused(tenant: str) -> Finding:
    return Finding(
        "AddressTaken",
        f"EgressTenant/{tenant}",
        "egress IP 192.168.55.113 is already held by EgressTenant/ns-blue",
        Severity.REFUSAL,
        "give one of them another address",
        Origin(file=f"{tenant}.yaml", line=14, column=11, field="spec.egressIPs[0]"),
    )


NOTE = Finding("NodeNotReady", "Node/n1", "is not ready; its routes stay", Severity.NOTE)


def test_cells_align_and_the_last_one_wraps_beneath_itself() -> None:
    assert columns([["a", "bbb", PARAGRAPH], ["aaaa", "b", "short"]], Style(width=60)) == [
        "a     bbb  a sentence that is so long that it does not fit",
        "           beside the other cells of a narrow terminal",
        "aaaa  b    short",
    ]


def test_where_the_cells_leave_no_room_the_last_one_gets_lines_of_its_own() -> None:
    lines = columns([["an egress IP that is long", "and another cell", PARAGRAPH]], Style(width=50))
    assert lines[0] == "an egress IP that is long  and another cell"
    assert lines[1].startswith("    a sentence")
    assert all(len(line) <= 50 for line in lines)


def test_a_column_that_is_empty_everywhere_takes_no_room() -> None:
    assert columns([["", "a", "b"], ["", "c", "d"]], Style()) == ["a  b", "c  d"]


def test_colour_changes_nothing_but_colour() -> None:
    rows: list[Row] = [[Cell("OK", Tone.GOOD), "fine"], [Cell("FAILED", Tone.BAD), PARAGRAPH]]
    plain = "\n".join(columns(rows, Style(width=60)))
    painted = "\n".join(columns(rows, Style(width=60, colour=True)))
    assert "\x1b[32mOK\x1b[0m" in painted
    for tone in Tone:
        painted = painted.replace(f"\x1b[{tone.value}m", "")
    assert painted.replace("\x1b[0m", "") == plain


@pytest.mark.parametrize("hostile", ["a\x1b[2Jb", "a\nb", "a\rb", "a\u202eb", "a\x00b"])
def test_what_a_terminal_would_obey_is_spelled_out(hostile: str) -> None:
    (line,) = columns([[hostile, "x"]], Style())
    assert line.isprintable()
    assert clean(hostile).startswith("a\\")


def test_long_lists_are_cut_but_never_by_a_single_line() -> None:
    names = [f"n{number}" for number in range(12)]
    assert cut(names[:11], Style()) == names[:11]
    assert cut(names, Style()) == [*names[:10], "and 2 more"]
    assert cut(names, Style(whole=True)) == names


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0"), (999, "999"), (1024, "1.0k"), (9_940, "9.9k"), (81_234_567, "81M"), (None, "-")]
)
def test_large_numbers_are_short(number: int | None, shown: str) -> None:
    assert large(number) == shown


def test_times_are_said_in_the_unit_that_matters() -> None:
    assert [ago(s) for s in (None, 0.2, 3, 59, 130, 9000, 400_000)] == ["never", "0.2s", "3s", "59s", "2m", "2h", "4d"]
    assert [duration(s) for s in (15069, 12 * 86400 + 15069)] == ["04:11:09", "12d 04:11"]
    assert [count(n, "change") for n in (1, 1204)] == ["1 change", "1,204 changes"]


def test_findings_are_worst_first_and_end_with_a_count() -> None:
    assert findings_text([NOTE, refused("ns-red")]).splitlines() == [
        "REFUSED  EgressTenant/ns-red AddressTaken",
        "         egress IP 192.168.55.113 is already held by EgressTenant/ns-blue",
        "         fix: give one of them another address",
        "         at ns-red.yaml:14:11 spec.egressIPs[0]",
        "note     Node/n1 NodeNotReady",
        "         is not ready; its routes stay",
        "1 refused, 1 note",
    ]


def test_a_thousand_findings_of_one_kind_do_not_hide_the_others_and_json_has_them_all() -> None:
    many = [refused(f"t{number:04}") for number in range(1000)]
    text = findings_text([*many, NOTE])
    assert "and 990 more AddressTaken" in text
    assert "Node/n1 NodeNotReady" in text
    listed = findings_document([*many, NOTE])["findings"]
    assert isinstance(listed, list)
    assert len(listed) == 1001


def test_no_findings_are_nothing_to_report() -> None:
    assert findings_text([]) == "nothing to report"


def test_values_become_plain_data_that_says_which_kind_it_is() -> None:
    route = Route(dst=ip_network("10.132.0.0/24"), hop=Via(address=ip_address("192.168.99.21"), link=ENP7S0))
    assert as_plain(route) == {
        "type": "Route",
        "dst": "10.132.0.0/24",
        "hop": {"type": "Via", "address": "192.168.99.21", "link": "enp7s0"},
        "table": 254,
        "metric": 0,
        "weight": 0,
        "text": "10.132.0.0/24 via 192.168.99.21 dev enp7s0",
    }


def test_marks_are_numbers_in_data_and_hex_in_text() -> None:
    span = Span(first=ip_address("198.51.100.0"), last=ip_address("198.51.100.255"))
    plain = as_plain(Element("snat_to4", (Mark(0x100), span), ip_address("192.168.55.115")))
    assert isinstance(plain, dict)
    assert plain["key"] == [256, "198.51.100.0-198.51.100.255"]
    assert plain["text"] == "nft snat_to4 { 0x100 . 198.51.100.0-198.51.100.255 : 192.168.55.115 }"


def test_field_names_are_those_of_kubernetes_objects_with_units_spelled_out() -> None:
    @dataclass(frozen=True, slots=True)
    class Aged:
        last_age_s: float
        egress_ips: frozenset[int]

    assert as_plain(Aged(1.5, frozenset({2, 1}))) == {"lastAgeSeconds": 1.5, "egressIps": [1, 2]}


def test_intent_is_plain_data_too_and_what_is_no_value_of_ours_is_an_error() -> None:
    plain = as_plain(BLUE)
    assert isinstance(plain, dict)
    assert plain["identity"] == {
        "type": "NextHopIdentity",
        "addresses": ["192.168.99.13", "fd99::13"],
        "interface": None,
    }
    with pytest.raises(TypeError, match="object is no plain data"):
        as_plain(object())
