"""The table as a value: written and read back, changed, tampered with, refused in part. No packets here.

A namespace with nothing in it but, in one test, somebody else's table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outgate.lab.namespace import Namespace
from outgate.model.net import Address, Mark, Span
from outgate.model.ruleset import Connections, Element, Limit, Quota, Table, Value
from outgate.systems.nft import read, render, write
from outgate.systems.nft.parse import Counts
from outgate.systems.nft.table import GATEWAY, SetType, digest, objects, set_types
from tools import render_ruleset

MARK, OTHER = 0x00010000, 0x00020000
EGRESS = IPv4Address("192.168.55.113")
USUAL = {
    Element("inner", ("og-00000001",)),
    Element("id_link", ("og-00000001",), MARK),
    Element("tenant_of", (MARK,), MARK),
    Element("snat4", (MARK,), EGRESS),
    Element("own4", (MARK, EGRESS)),
    Element("sent", (MARK,)),
    Element("rates", (MARK,), Limit(2 << 20, 256 << 10)),
    Element("quotas", (MARK,), Quota(1_000_000_000)),
    Element("connections", (MARK,), Connections(1000)),
}
HOSTILE = [
    'a";drop#x',
    "x$(id)",
    "x`id`",
    "a'b",
    "{",
    "-oops",
    "};flush",
    "1.2.3.4",
    "123",
    "0x7f",
    "ip",
    "größe",
    "a,b",
]
MISREAD = [
    "*",
    "eth*",
    "@inner",
    "a\\*",
    "a b",
    "a/b",
    "tcp",
    "redirect",
    "a\nb",
    "",
    "sixteen-bytes-xx",
    "a\x00b",
    "\udc80",
]
SET_NAMES = sorted(set_types(GATEWAY))


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("table") as made, made.inside():
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Namespace]:
    """One namespace for many examples of one law, since each loads its own table."""
    with Namespace("laws") as made, made.inside():
        yield made


def span(first: Address, size: int) -> Span:
    most = (1 << first.max_prefixlen) - 1
    return Span(first=first, last=type(first)(min(int(first) + size, most)))


v4, v6 = st.builds(IPv4Address, st.integers(0, (1 << 32) - 1)), st.builds(IPv6Address, st.integers(0, (1 << 128) - 1))
marks = st.integers(0, (1 << 32) - 1)
sizes = st.one_of(st.integers(0, 3), st.integers(0, 40).map(lambda bits: (1 << bits) - 1), st.integers(0, 1 << 30))
names = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=15),
).filter(lambda name: not render.unfit(Element("inner", (name,))))
PARTS: dict[str, st.SearchStrategy[object]] = {
    "ifname": names,
    "mark": marks,
    "ipv4_addr": v4,
    "ipv6_addr": v6,
    "inet_proto": st.sampled_from(sorted(render.PROTOCOLS)),
    "inet_service": st.integers(0, 65535),
}
SPANS: dict[str, st.SearchStrategy[object]] = {
    "ipv4_addr": st.builds(span, v4, sizes),
    "ipv6_addr": st.builds(span, v6, sizes),
}
VALUES: dict[str | None, st.SearchStrategy[Value]] = {
    None: st.none(),
    "mark": marks,
    "ipv4_addr": v4,
    "ipv6_addr": v6,
    "limit": st.builds(Limit, st.integers(1, 14 * 10**9), st.integers(0, (1 << 32) - 1)),
    "quota": st.builds(Quota, st.integers(0, 1 << 50)),
    "verdict": st.builds(Connections, st.integers(0, (1 << 32) - 1)),
}


def elements_of(kind: SetType) -> st.SearchStrategy[Element]:
    fields = [SPANS.get(field, PARTS[field]) if kind.interval else PARTS[field] for field in kind.fields]
    return st.builds(Element, st.just(kind.name), st.tuples(*fields), VALUES[kind.value]).filter(
        lambda element: not render.unfit(element)
    )


def disjoint(elements: list[Element]) -> set[Element]:
    """Drop what has the key of an earlier element, or a range that overlaps it."""
    kept: list[Element] = []
    for element in elements:
        if not any(element.set == other.set and _meets(element, other) for other in kept):
            kept.append(element)
    return set(kept)


def _meets(one: Element, other: Element) -> bool:
    for part, its in zip(one.key, other.key, strict=True):
        if isinstance(part, Span) and isinstance(its, Span):
            if int(part.last) < int(its.first) or int(its.last) < int(part.first):
                return False
        elif part != its:
            return False
    return True


rulesets = st.lists(st.sampled_from(SET_NAMES).flatmap(lambda name: elements_of(set_types()[name])), max_size=25).map(
    disjoint
)


def rules(namespace: Namespace) -> str:
    """The rules as the kernel executes them: its own listing of their code, without handles."""
    listing = namespace.run(("nft", "--debug=netlink", "list", "table", "inet", "outgate")).stdout
    code = listing[: listing.index("table inet outgate {")]
    lines = [re.sub(r"^(inet outgate \w+) \d+.*", r"\1", line) for line in code.splitlines()]
    return "\n".join(line for line in lines if "element" not in line and "@" not in line)


def test_the_text_for_people_and_the_json_for_the_kernel_are_the_same_table(namespace: Namespace) -> None:
    assert render_ruleset.main(check=True) == 0
    namespace.run(("nft", "-f", str(render_ruleset.FOLDER / "gateway.nft")))
    from_text = rules(namespace)

    write.load(())

    assert rules(namespace) == from_text
    assert len(from_text.splitlines()) > 300


def test_without_a_table_there_is_none(namespace: Namespace) -> None:
    assert read.read().table is None
    assert read.read().elements == frozenset()
    assert read.counts() == Counts()


def test_what_was_loaded_reads_back_as_the_table_of_this_program_with_the_same_elements(namespace: Namespace) -> None:
    loaded = write.load(USUAL)

    assert loaded.failures == ()
    assert loaded.reading.table == Table(digest())
    assert loaded.reading.elements == USUAL
    assert read.read() == loaded.reading


@given(wanted=rulesets)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_elements_read_back_as_they_were_written(shared: Namespace, wanted: set[Element]) -> None:
    loaded = write.load(wanted)

    assert loaded.failures == ()
    assert loaded.reading.table == Table(digest())
    assert loaded.reading.elements == wanted


@given(before=rulesets, after=rulesets)
@example(before=set(), after={Element("connections", (0,), Connections(1 << 31))})  # nft prints it below nought
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_elements_become_any_others_in_one_transaction(
    shared: Namespace, before: set[Element], after: set[Element]
) -> None:
    write.load(before)
    generation = read.generation()
    wanted = {element.slot for element in after}

    failures = write.write(after, [e for e in before - after if e.slot not in wanted], actual=before)

    assert failures == ()
    assert read.read().elements == after
    assert read.read().table == Table(digest())
    assert read.generation() - generation <= 1


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_link_name_is_one_element_and_nothing_else(namespace: Namespace, name: str) -> None:
    write.load(())
    before = rules(namespace)
    wanted = {Element("inner", (name,)), Element("id_link", (name,), MARK), Element("id_spread", (name, 3), MARK)}

    loaded = write.load(wanted)

    assert loaded.reading.elements == wanted
    assert rules(namespace) == before


@pytest.mark.parametrize("name", MISREAD)
def test_a_name_that_nft_would_read_as_something_else_is_refused_alone(namespace: Namespace, name: str) -> None:
    bad = Element("inner", (name,))

    loaded = write.load(USUAL | {bad})

    assert [failure.resource for failure in loaded.failures] == [bad]
    assert loaded.reading.elements == USUAL


def test_an_element_gets_another_value_in_place(namespace: Namespace) -> None:
    write.load(USUAL)
    changed = {
        Element("snat4", (MARK,), IPv4Address("192.168.55.114")),
        Element("rates", (MARK,), Limit(1000, 1)),
        Element("quotas", (MARK,), Quota(5)),
        Element("connections", (MARK,), Connections(5)),
    }

    assert write.write(changed, (), actual=USUAL) == ()

    slots = {element.slot for element in changed}
    assert read.read().elements == changed | {element for element in USUAL if element.slot not in slots}


def test_writing_what_is_there_already_changes_nothing(namespace: Namespace) -> None:
    write.load(USUAL)
    write.write(USUAL, (), actual=USUAL)
    assert read.read().elements == USUAL


OVERLAP = [Element("nodes4", (span(IPv4Address("10.128.1.0"), size),)) for size in (255, 511)]
CONFLICT = [Element("snat6", (MARK,), IPv6Address(f"fd55::{number}")) for number in (113, 114)]


@pytest.mark.parametrize("bad", [OVERLAP, CONFLICT], ids=["ranges that overlap", "two values for one key"])
def test_what_the_kernel_refuses_is_found_and_the_rest_is_loaded(namespace: Namespace, bad: list[Element]) -> None:
    crowd = {Element("own4", (OTHER, IPv4Address(0x0A000000 + number))) for number in range(300)}

    loaded = write.load([*USUAL, *crowd, *bad])

    assert [failure.resource for failure in loaded.failures] == bad[1:]
    assert loaded.failures[0].words
    assert loaded.reading.elements == USUAL | crowd | {bad[0]}


def test_what_the_kernel_refuses_of_a_change_is_found_and_the_rest_is_made(namespace: Namespace) -> None:
    write.load(USUAL | {OVERLAP[0]})
    good = Element("own4", (OTHER, EGRESS))
    gone = Element("sent", (MARK,))

    failures = write.write([good, OVERLAP[1]], [gone], actual=USUAL | {OVERLAP[0]})

    assert [failure.resource for failure in failures] == [OVERLAP[1]]
    assert read.read().elements == (USUAL | {OVERLAP[0], good}) - {gone}


def test_a_range_makes_room_for_a_wider_one_in_the_same_change(namespace: Namespace) -> None:
    write.load(USUAL | {OVERLAP[0]})
    assert write.write([OVERLAP[1]], [OVERLAP[0]], actual=USUAL | {OVERLAP[0]}) == ()
    assert read.read().elements == USUAL | {OVERLAP[1]}


def test_a_change_without_a_table_is_refused_with_nfts_words(namespace: Namespace) -> None:
    failures = write.write([Element("sent", (MARK,))], (), actual=frozenset())
    assert [failure.resource for failure in failures] == [Element("sent", (MARK,))]
    assert "No such file or directory" in failures[0].words
    assert read.read().table is None


def test_a_table_all_of_whose_elements_are_refused_is_loaded_without_any_and_so_is_closed(namespace: Namespace) -> None:
    bad = [Element("inner", ("eth*",)), Element("rates", (MARK,), Limit(1 << 60, 1))]
    loaded = write.load(bad)
    assert {failure.resource for failure in loaded.failures} == set(bad)
    assert (loaded.reading.table, loaded.reading.elements) == (Table(digest()), frozenset())


TAMPERINGS = {
    "a rule of ours is deleted": "delete rule inet outgate refuse handle {handle}",
    "a chain is flushed": "flush chain inet outgate guard",
    "a rule is added": "insert rule inet outgate guard accept",
    "a chain is added": "add chain inet outgate extra",
    "a set is added": "add set inet outgate extra {{ type mark; }}",
    "a policy is changed": "add chain inet outgate forward {{ policy drop; }}",
    "the table sleeps": "add table inet outgate {{ flags dormant; }}",
    "a limit that nothing names": "add limit inet outgate rate-00000007 {{ rate over 1 bytes/second; }}",
    "a chain that nothing names": "add chain inet outgate connections-00000007",
    "a limit of another tenant is named": 'add element inet outgate rates {{ 7 : "rate-00010000" }}',
    "the constant element goes": "flush map inet outgate ready",
    "a limit is turned around": "add rule inet outgate connections-00010000 accept",
}


@pytest.mark.parametrize("command", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_table_that_somebody_changed_is_not_ours_any_more_until_it_is_loaded_anew(
    namespace: Namespace, command: str
) -> None:
    before = write.load(USUAL).reading
    listed = json.loads(namespace.run(("nft", "-j", "list", "chain", "inet", "outgate", "refuse")).stdout)["nftables"]
    handle = next(one["rule"]["handle"] for one in listed if "rule" in one)
    namespace.run(("nft", "-f", "-"), input=command.format(handle=handle) + "\n")

    after = read.read(before)

    assert after.table not in (None, Table(digest()))
    assert write.load(USUAL).reading == read.read()
    assert read.read().table == Table(digest())
    assert read.read().elements == USUAL


EXTRA = {Element("own4", (7, IPv4Address("192.0.2.1"))), Element("id_link", ("lo",), 0x00FFFF00)}


def test_an_element_that_somebody_adds_or_deletes_shows_as_that_and_not_as_a_strange_table(
    namespace: Namespace,
) -> None:
    write.load(USUAL)
    added = "add element inet outgate own4 { 0x7 . 192.0.2.1 }; add element inet outgate id_link { lo : 0x00ffff00 }"
    namespace.run(("nft", f"{added}; delete element inet outgate snat4 {{ 65536 }}"))

    tampered = read.read()

    assert tampered.table == Table(digest())
    assert tampered.elements - USUAL == EXTRA
    assert USUAL - tampered.elements == {Element("snat4", (MARK,), EGRESS)}
    assert write.write([Element("snat4", (MARK,), EGRESS)], EXTRA, actual=tampered.elements) == ()
    assert read.read().elements == USUAL


def test_a_reading_of_the_same_generation_is_that_reading(namespace: Namespace) -> None:
    first = write.load(USUAL).reading
    assert read.read(first) is first
    assert read.generation() == first.generation

    namespace.run(("nft", "add table inet foreign"))

    assert read.generation() > first.generation
    again = read.read(first)
    assert again is not first
    assert (again.table, again.elements) == (first.table, first.elements)


def test_a_listing_that_is_trusted_stands_for_the_table_of_this_program(namespace: Namespace) -> None:
    write.load(USUAL)
    namespace.run(("nft", "add chain inet outgate another_version_lists_it_so"))
    strange = read.read()
    assert strange.table == Table(strange.listing)

    assert read.read(trusted={strange.listing: digest()}).table == Table(digest())


def test_nothing_is_learned_about_a_listing_that_is_the_one_we_know(namespace: Namespace) -> None:
    assert write.load(USUAL).learned == {}


def test_removing_leaves_nothing_of_ours_and_everything_of_others(namespace: Namespace) -> None:
    namespace.run(("nft", "-f", "-"), input="table inet foreign {\n set s {\n type mark\n elements = { 7 }\n }\n}\n")
    before = namespace.run(("nft", "list", "ruleset")).stdout
    write.load(USUAL)

    write.remove()
    write.remove()

    assert namespace.run(("nft", "list", "ruleset")).stdout == before
    assert read.read().table is None


def test_loading_and_changing_leave_the_tables_of_others_byte_identical(namespace: Namespace) -> None:
    chain = "chain POSTROUTING {\n type nat hook postrouting priority srcnat; policy accept;\n masquerade\n }\n"
    text = f"table ip nat {{\n{chain}}}\n"
    namespace.run(("nft", "-f", "-"), input=text)
    before = namespace.run(("nft", "-a", "list", "table", "ip", "nat")).stdout

    write.load(USUAL)
    write.write([Element("sent", (OTHER,))], (), actual=USUAL)

    assert namespace.run(("nft", "-a", "list", "table", "ip", "nat")).stdout == before


def test_counts_are_the_same_in_a_reading_and_without_one(namespace: Namespace) -> None:
    write.load(USUAL, used={Mark(MARK): 77})
    assert read.counts() == read.read().counts
    assert read.counts().used == {MARK: 77}
    assert set(read.counts().named) == {one["counter"]["name"] for one in objects() if "counter" in one}
