"""Elements of the table as nft's JSON and back, and nft as a program that may be missing, old, hung or wordy.

No kernel here: what the kernel makes of it stands in tests/kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from outgate.model.errors import NotReady, Refused, Unreachable
from outgate.model.net import Span
from outgate.model.ruleset import Connections, Element, Limit, Part, Quota, Value
from outgate.model.spread import BUCKETS, bucket
from outgate.systems.nft import parse, program, render, table

MARK = 0x00010000
EGRESS, EGRESS6 = IPv4Address("192.168.55.113"), IPv6Address("fd55::113")
PLACE = {"family": "inet", "table": "outgate"}


def span(first: str, last: str) -> Span:
    return Span(first=ip_address(first), last=ip_address(last))


def commands(document: bytes) -> list[dict[str, dict[str, object]]]:
    found: list[dict[str, dict[str, object]]] = json.loads(document)["nftables"]
    return found


@pytest.mark.parametrize(
    ("element", "written"),
    [
        (Element("id_link", ("og-00000001",), MARK), ["og-00000001", MARK]),
        (Element("own4", (MARK, EGRESS)), {"concat": [MARK, "192.168.55.113"]}),
        (Element("nodes4", (span("10.128.0.0", "10.128.0.255"),)), {"prefix": {"addr": "10.128.0.0", "len": 24}}),
        (Element("nodes4", (span("10.128.0.1", "10.128.0.9"),)), {"range": ["10.128.0.1", "10.128.0.9"]}),
        (Element("nodes6", (span("fd01::5", "fd01::5"),)), {"prefix": {"addr": "fd01::5", "len": 128}}),
        (
            Element("snat_to6", (MARK, span("2001:db8::", "2001:db8::ffff")), EGRESS6),
            [{"concat": [MARK, {"prefix": {"addr": "2001:db8::", "len": 112}}]}, "fd55::113"],
        ),
        (Element("allowed_port4", (EGRESS, "tcp", 22)), {"concat": ["192.168.55.113", 6, 22]}),
        (Element("allowed_proto6", (EGRESS6, "ipv6-icmp")), {"concat": ["fd55::113", 58]}),
        (Element("rates", (MARK,), Limit(1, 2)), [MARK, "rate-00010000"]),
        (Element("quotas", (MARK,), Quota(1)), [MARK, "quota-00010000"]),
        (Element("connections", (MARK,), Connections(5)), [MARK, {"jump": {"target": "connections-00010000"}}]),
    ],
)
def test_an_element_is_written_as_nft_reads_it(element: Element, written: object) -> None:
    assert render.unfit(element) == ""
    last = commands(render.delta([element], ()))[-1]
    assert last == {"add": {"element": {**PLACE, "name": element.set, "elem": [written]}}}


def test_many_elements_of_a_set_are_one_command_and_what_they_name_comes_first_and_goes_last() -> None:
    limits = [Element("rates", (mark,), Limit(10, 20)) for mark in (1, 2)]
    made, dropped = commands(render.delta(limits, ())), commands(render.delta((), limits))
    assert [next(iter(command["add"])) for command in made] == ["limit", "limit", "element"]
    assert [next(iter(command["delete"])) for command in dropped] == ["element", "limit", "limit"]


def test_a_whole_table_is_one_document_that_ends_with_what_says_that_all_is_there() -> None:
    document = commands(render.load([Element("quotas", (MARK,), Quota(9))], used={MARK: 5}))  # type: ignore[dict-item]

    assert [next(iter(command)) for command in document[:2]] == ["add", "delete"]
    assert {"add": {"quota": {**PLACE, "name": "quota-00010000", "bytes": 9, "used": 5, "inv": True}}} in document
    assert {command["add"]["element"]["name"] for command in document[-2:]} == table.CONSTANT  # type: ignore[index]


@pytest.mark.parametrize(
    ("set_name", "key", "value", "reason"),
    [
        ("none", (MARK,), None, "there is no set none"),
        ("ready", (MARK,), None, "there is no set ready"),
        ("own4", (MARK,), None, "the key has 1 parts, not 2 (mark . ipv4_addr)"),
        ("own4", (MARK, EGRESS6), None, "fd55::113 is no ipv4_addr"),
        ("nodes4", (EGRESS,), None, "192.168.55.113 is no range of ipv4_addr"),
        ("egress4", (span("1.2.3.4", "1.2.3.4"),), None, "1.2.3.4 is no ipv4_addr"),
        ("nodes4", (span("1.2.3.4", "1.2.3.3"),), None, "the range 1.2.3.4-1.2.3.3 ends before it starts"),
        ("sent", (1 << 32,), None, "4294967296 is no mark"),
        ("allowed_port4", (EGRESS, "tcp", 65536), None, "65536 is no inet_service"),
        ("allowed_port4", (EGRESS, "tcpp", 22), None, "protocol tcpp is none of"),
        ("snat4", (MARK,), EGRESS6, "fd55::113 is no value for snat4"),
        ("snat4", (MARK,), None, "None is no value for snat4"),
        ("id_link", ("og-00000001",), 0x00FFFF00, "16776960 is out of range"),
        ("id_link", ("og-00000001",), 0xFE, "254 is out of range"),
        ("id_link", ("og-00000001",), 0x01000100, "16777472 is out of range"),
        ("sent", (MARK,), Quota(1), "Quota(limit_bytes=1) is no value for sent"),
        ("rates", (MARK,), Limit(1 << 40, 0), "is out of range"),
        ("rates", (MARK,), Limit(0, 0), "is out of range"),
        ("inner", ("*",), None, "nft would not read '*' as the name of a link"),
        ("inner", ("tcp",), None, "nft would not read 'tcp' as the name of a link"),
        ("inner", ("sixteen-bytes-xx",), None, "has 16 bytes, not 1 to 15"),
        ("inner", ("a b",), None, "is no link name"),
        ("inner", ("\udc80",), None, "is no UTF-8"),
        ("inner", (MARK,), None, "is no link name"),
    ],
)
def test_what_can_not_be_written_says_why(set_name: str, key: tuple[Part, ...], value: Value, reason: str) -> None:
    assert reason in render.unfit(Element(set_name, key, value))


def test_the_digest_does_not_depend_on_handles_counts_elements_or_order() -> None:
    objects = list(table.objects())
    changed = [json.loads(json.dumps(one)) for one in reversed([one for one in objects if "rule" not in one])]
    for number, one in enumerate(changed):
        for properties in one.values():
            properties["handle"] = number
            if "counter" in one:
                properties.update(packets=7, bytes=7)
    sent = next(one["set"] for one in changed if one.get("set", {}).get("name") == "sent")
    sent["elem"] = [{"elem": {"val": 7, "counter": {"packets": 1, "bytes": 1}}}]

    assert table.digest_of([*changed, *(one for one in objects if "rule" in one)]) == table.digest()


def test_the_digest_depends_on_every_object_and_on_the_order_of_rules() -> None:
    objects = list(table.objects())
    without_one = {table.digest_of(objects[:place] + objects[place + 1 :]) for place in range(len(objects))}
    assert len(without_one) == len(objects)
    assert table.digest() not in without_one
    rules = [one for one in objects if "rule" in one]
    swapped = [one for one in objects if "rule" not in one] + [rules[1], rules[0], *rules[2:]]
    assert table.digest_of(swapped) != table.digest()


def test_an_element_that_we_would_not_write_makes_the_table_strange_and_is_none_of_ours() -> None:
    ours = {"nftables": list(table.objects())}
    assert parse.listing(json.dumps(ours).encode()).digest == table.digest()
    strange = {
        "set": {**PLACE, "name": "own4", "type": ["mark", "ipv4_addr"], "elem": [{"elem": {"val": 7, "timeout": 3}}]}
    }

    listed = parse.listing(json.dumps({"nftables": [*ours["nftables"], strange]}).encode())

    assert listed.digest != table.digest()
    assert listed.elements == frozenset()


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("10.128.1.5", 12),
        ("10.128.1.6", 7),
        ("0.0.0.0", 9),
        ("255.255.255.255", 14),
        ("fd01:0:0:1::5", 9),
        ("fd01:0:0:1::6", 3),
        ("::", 11),
    ],
)
def test_the_bucket_of_a_source_never_changes(source: str, number: int) -> None:
    """As counted in Linux 6.18 by `jhash ip saddr mod 16 seed 0x6f`; tests/kernel asks the kernel for many more."""
    assert bucket(ip_address(source)) == number


def test_sources_are_spread_over_all_buckets() -> None:
    assert {bucket(IPv4Address(0x0A800000 + number)) for number in range(200)} == set(range(BUCKETS))


@pytest.fixture
def binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is all the places where nft is looked for."""
    monkeypatch.setattr(program, "PLACES", str(tmp_path))
    program.version.cache_clear()
    yield tmp_path
    program.version.cache_clear()


def install(folder: Path, script: str) -> None:
    file = folder / "nft"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_without_nft_the_package_to_install_is_named(binaries: Path) -> None:
    with pytest.raises(NotReady, match="install the package nftables"):
        program.run(("-j", "-f", "-"), b"{}", change="load")


def test_an_nft_that_is_too_old_is_named_with_the_version_to_install(binaries: Path) -> None:
    install(binaries, "echo 'nftables v0.9.8 (E.D.S.)'")
    with pytest.raises(NotReady, match=r"nft 0\.9\.8 is too old: install nftables 1\.0\.6 or later"):
        program.run((), change="load")


@pytest.mark.parametrize(("words", "numbers"), [("nftables v1.0.6 (Lester)", (1, 0, 6)), ("nftables v1.1 (X)", (1, 1))])
def test_a_version_is_read_from_what_nft_says(binaries: Path, words: str, numbers: tuple[int, ...]) -> None:
    install(binaries, f"echo '{words}'")
    assert program.version() == numbers


def test_an_nft_without_a_version_is_not_trusted(binaries: Path) -> None:
    install(binaries, "echo 'who knows'")
    with pytest.raises(NotReady, match="names no version"):
        program.version()


def test_an_nft_that_hangs_is_killed_and_called_unreachable(binaries: Path) -> None:
    install(binaries, "case $1 in --version) echo 'nftables v1.0.6';; *) exec sleep 60;; esac")
    with pytest.raises(Unreachable, match=r"did not end within 0\.2 s"):
        program.run(("-j", "-f", "-"), b"{}", change="load", timeout_s=0.2)


def test_a_refusal_carries_each_of_nfts_words_once(binaries: Path) -> None:
    said = r"internal:0:0-0: Error: No such file\n\ninternal:0:0-0: Error: No such file\nError: Too bad\n"
    install(binaries, f"case $1 in --version) echo 'nftables v1.0.6';; *) printf '{said}' >&2; exit 1;; esac")
    with pytest.raises(Refused, match=r"^load: No such file; Too bad$"):
        program.run(("-j", "-f", "-"), b"{}", change="load")
