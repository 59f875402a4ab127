"""A gateway remembers in one file what no intent can say again: marks, addresses it holds, old kernel settings. That
file meets everything that happens to files: a kill amid a writing, a torn sector, a hand that edits, a version that
goes back, a disk that is full.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from outgate.model.errors import IntentError, Refused, Unreachable
from outgate.model.ledger import Adoption, Allocation, Holding, Ledger, Resting, Retiring
from outgate.model.net import LinkName, Mac, Mark, Setting
from outgate.model.why import Severity
from outgate.systems.statefile import disk
from outgate.systems.statefile.documents import Documents
from outgate.systems.statefile.format import (
    AdoptionRow,
    AllocationRow,
    Body,
    HoldingRow,
    RestingRow,
    RetiringRow,
    checksum,
)
from outgate.systems.statefile.parse import opened
from outgate.systems.statefile.render import Scribe, sealed
from outgate.systems.statefile.state import Loaded, StateFile, not_written

UPLINK, INNER = LinkName("enp7s0"), LinkName("enp1s0")
BLUE_IP, BLUE_IP6, RED_IP = ip_address("192.168.55.113"), ip_address("fd55::113"), ip_address("192.168.55.114")
HERE = "boot-1 4026531840"


def mac(last: int) -> Mac:
    return Mac(f"02:e6:00:00:00:{last:02x}")


def ledger(*, blue_mark: int = 0x100) -> Ledger:
    """Blue holds an address of each family; red drains one and another one rests."""
    return Ledger(
        gateway="gw1",
        tenants={
            "ns-blue": Allocation(
                mark=Mark(blue_mark), link=LinkName("og-00000001"), mac=mac(1), pool="lab", pool_addresses=(BLUE_IP,)
            ),
            "ns-red": Allocation(mark=Mark(0x200), link=LinkName("og-00000002"), mac=mac(2)),
        },
        holdings={
            BLUE_IP: Holding(tenant="ns-blue", link=UPLINK),
            BLUE_IP6: Holding(tenant="ns-blue", link=UPLINK),
            ip_address("192.168.99.13"): Holding(tenant="ns-blue", link=INNER, egress=False),
        },
        retiring={RED_IP: Retiring(tenant="ns-red", link=UPLINK, mark=Mark(0x200), until_s=1_800_000_000.5)},
        resting={ip_address("192.168.55.115"): Resting(tenant="ns-green", until_s=1_800_000_300.25)},
        subnets_seen=frozenset({ip_network("10.128.0.0/23"), ip_network("fd01::/64")}),
        settings_before={(INNER, Setting.ARP_IGNORE): 0, (UPLINK, Setting.RP_FILTER): 2},
        addresses_made=frozenset({(UPLINK, BLUE_IP), (UPLINK, BLUE_IP6)}),
        adopting={
            LinkName("macvlan-red"): Adoption(
                tenant="ns-red", parent=INNER, packets=17, quiet_since_s=1_800_000_000.75, released=True
            )
        },
        quota_used={"ns-blue": (123_456_789_012, 1_800_000_000.0)},
        last_mark=Mark(0x200),
        tenants_known=2,
        nodes_known=3,
    )


def file_in(folder: Path, **given: str) -> StateFile:
    return StateFile(folder, **{"place": HERE, "written_by": "0.1.0", **given})


def loaded(folder: Path) -> Loaded:
    return file_in(folder).load()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_saved_is_loaded_by_the_next_start(tmp_path: Path) -> None:
    assert file_in(tmp_path / "gateway").save(ledger())

    found = loaded(tmp_path / "gateway")

    assert found == Loaded(ledger=ledger(), same_place=True, findings=())
    assert names(tmp_path / "gateway") == {"state.json"}
    assert (tmp_path / "gateway" / "state.json").stat().st_mode & 0o777 == 0o600


def test_the_file_has_every_field_of_the_ledger() -> None:
    assert {field.name for field in fields(Ledger)} == set(Body.__struct_fields__)
    for row, value in ROWS:
        assert {field.name for field in fields(value)} == set(row.__struct_fields__), value
    assert all(getattr(ledger(), field.name) != getattr(Ledger(), field.name) for field in fields(Ledger))


ROWS: tuple[tuple[type[Struct], type], ...] = (
    (AllocationRow, Allocation),
    (HoldingRow, Holding),
    (RetiringRow, Retiring),
    (RestingRow, Resting),
    (AdoptionRow, Adoption),
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
LINKS = NAMES.map(LinkName)
MARKS = st.integers(0, 0xFFFFFFFF).map(Mark)
ADDRESSES = st.ip_addresses()
TIMES = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**62)
LEDGERS = st.builds(
    Ledger,
    gateway=NAMES,
    tenants=st.dictionaries(
        NAMES,
        st.builds(
            Allocation,
            mark=MARKS,
            link=LINKS,
            mac=NAMES.map(Mac),
            pool=NAMES,
            pool_addresses=st.lists(ADDRESSES, max_size=3).map(tuple),
        ),
        max_size=4,
    ),
    holdings=st.dictionaries(ADDRESSES, st.builds(Holding, tenant=NAMES, link=LINKS, egress=st.booleans()), max_size=4),
    retiring=st.dictionaries(
        ADDRESSES, st.builds(Retiring, tenant=NAMES, link=LINKS, mark=MARKS, until_s=TIMES), max_size=3
    ),
    resting=st.dictionaries(ADDRESSES, st.builds(Resting, tenant=NAMES, until_s=TIMES), max_size=3),
    subnets_seen=st.frozensets(ADDRESSES.map(ip_network), max_size=4),
    settings_before=st.dictionaries(st.tuples(LINKS, st.sampled_from(Setting)), COUNTS, max_size=4),
    addresses_made=st.frozensets(st.tuples(LINKS, ADDRESSES), max_size=4),
    adopting=st.dictionaries(
        LINKS,
        st.builds(Adoption, tenant=NAMES, parent=LINKS, packets=COUNTS, quiet_since_s=TIMES, released=st.booleans()),
        max_size=2,
    ),
    quota_used=st.dictionaries(NAMES, st.tuples(COUNTS, TIMES), max_size=3),
    last_mark=MARKS,
    tenants_known=COUNTS,
    nodes_known=COUNTS,
)


@given(st.lists(LEDGERS, min_size=1, max_size=3))
def test_any_ledger_comes_back_from_its_text_also_when_lines_are_kept_from_writing_to_writing(
    ledgers: list[Ledger],
) -> None:
    scribe = Scribe()
    for one in ledgers:
        body = scribe.body(one)
        assert opened(sealed(body, written_by="0.1.0", place=HERE)).ledger == one
        assert body == Scribe().body(one)


def test_an_unchanged_ledger_writes_nothing(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(ledger())
    before = (tmp_path / "state.json").stat()

    assert not file.save(ledger())
    again = file_in(tmp_path)
    again.load()
    assert not again.save(ledger())

    assert (tmp_path / "state.json").stat() == before


def test_a_file_that_somebody_removed_is_written_again(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(ledger())
    (tmp_path / "state.json").unlink()

    assert file.save(ledger())
    assert loaded(tmp_path).ledger == ledger()


def test_after_a_reboot_the_ledger_holds_but_says_that_the_kernel_has_forgotten(tmp_path: Path) -> None:
    file_in(tmp_path).save(ledger())

    rebooted = file_in(tmp_path, place="boot-2 4026531840")
    found = rebooted.load()

    assert found == Loaded(ledger=ledger(), same_place=False)
    assert rebooted.save(ledger()), "the new place is worth a writing"
    assert not rebooted.save(ledger())


def test_one_changed_tenant_is_one_changed_line(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(ledger())
    before = (tmp_path / "state.json").read_text().splitlines()

    file.save(ledger(blue_mark=0x300))

    after = (tmp_path / "state.json").read_text().splitlines()
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [line.split(":")[0] for line in changed] == ['"checksum"', '"ns-blue"']
    assert '"mark":"0x00000300"' in changed[1]


def test_no_state_yet_is_an_empty_ledger_and_a_note(tmp_path: Path) -> None:
    found = loaded(tmp_path / "never-made")

    assert (found.ledger, found.same_place) == (Ledger(), False)
    (finding,) = found.findings
    assert (finding.reason, finding.severity) == ("StateMissing", Severity.NOTE)
    assert not (tmp_path / "never-made").exists(), "looking writes nothing"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_torn_file_gives_the_version_before_it_and_is_kept_aside_at_the_next_writing(
    tmp_path: Path, share: float
) -> None:
    file = file_in(tmp_path)
    file.save(ledger())
    file.save(ledger(blue_mark=0x300))
    whole = (tmp_path / "state.json").read_bytes()
    torn = whole[: int(len(whole) * share)]
    (tmp_path / "state.json").write_bytes(torn)

    restarted = file_in(tmp_path)
    found = restarted.load()

    assert found.ledger == ledger()
    assert [finding.reason for finding in found.findings] == ["StateTorn"]
    assert names(tmp_path) == {"state.json", "state.json.previous"}, "looking moves nothing"

    restarted.save(ledger(blue_mark=0x400))
    assert (tmp_path / "state.json.broken-1").read_bytes() == torn
    assert loaded(tmp_path) == Loaded(ledger=ledger(blue_mark=0x400), same_place=True)
    assert opened((tmp_path / "state.json.previous").read_bytes()).ledger == ledger(), "the last good one"


def test_a_file_edited_by_hand_is_not_trusted(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(ledger())
    text = (tmp_path / "state.json").read_text()
    (tmp_path / "state.json").write_text(text.replace("0x00000100", "0x00000200"))

    found = loaded(tmp_path)

    assert found.ledger == Ledger()
    assert [finding.reason for finding in found.findings] == ["StateLost"]
    assert "the checksum does not fit" in found.findings[0].text


def test_when_both_versions_are_damaged_both_are_kept_and_the_text_says_what_is_lost(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"\xff\xfe not JSON")
    (tmp_path / "state.json.previous").write_bytes(b'{"format": 1}')
    (tmp_path / "state.json.broken-1").write_bytes(b"from last year")

    restarted = file_in(tmp_path)
    found = restarted.load()
    restarted.save(ledger())

    assert found.ledger == Ledger()
    (finding,) = found.findings
    assert finding.reason == "StateLost"
    assert "Marks and addresses from pools may be given anew" in finding.text
    assert "quarantine" in finding.text
    assert (tmp_path / "state.json.broken-1").read_bytes() == b"from last year"
    assert (tmp_path / "state.json.broken-2").read_bytes() == b"\xff\xfe not JSON"
    assert (tmp_path / "state.json.broken-3").read_bytes() == b'{"format": 1}'
    assert loaded(tmp_path).findings == ()


def test_a_version_that_went_missing_between_two_names_leaves_the_one_before_it(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(ledger())
    file.save(ledger(blue_mark=0x300))
    (tmp_path / "state.json").unlink()

    found = loaded(tmp_path)

    assert found.ledger == ledger()
    assert "is missing" in found.findings[0].text


def future(folder: Path) -> bytes:
    """A file of a later version: another number, and words that this one has never heard."""
    content = json.dumps({"format": 7, "written_by": "4.2.0", "checksum": "?", "registry": {"ns-blue": 256}}).encode()
    (folder / "state.json").write_bytes(content)
    return content


def test_a_file_of_a_newer_version_is_refused_and_never_overwritten(tmp_path: Path) -> None:
    content = future(tmp_path)

    with pytest.raises(IntentError, match=r"state\.json: written by outgate 4\.2\.0 in format 7") as refused:
        loaded(tmp_path)
    with pytest.raises(IntentError):
        file_in(tmp_path).save(ledger())

    assert "this is outgate 0.1.0, which knows format 1" in refused.value.text
    assert "Install the version that wrote it, or move the file away" in refused.value.text
    assert names(tmp_path) == {"state.json"}
    assert (tmp_path / "state.json").read_bytes() == content


def test_a_damaged_file_over_one_of_a_newer_version_is_refused_too(tmp_path: Path) -> None:
    future(tmp_path).decode()
    (tmp_path / "state.json").rename(tmp_path / "state.json.previous")
    (tmp_path / "state.json").write_text("{")

    with pytest.raises(IntentError, match=r"4\.2\.0"):
        loaded(tmp_path)


def test_an_unknown_field_in_a_whole_file_is_a_refusal_not_a_silent_loss(tmp_path: Path) -> None:
    body = Scribe().body(ledger()).replace(b'"tenants_known"', b'"leases": {}, "tenants_known"')
    assert len(checksum(body)) == 64
    (tmp_path / "state.json").write_bytes(sealed(body, written_by="0.1.1", place=HERE))

    with pytest.raises(IntentError, match=r"written by outgate 0\.1\.1 in format 1"):
        loaded(tmp_path)


def test_a_state_that_can_not_be_read_is_waited_for_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()

    with pytest.raises(Unreachable, match=r"state\.json can not be read: Is a directory"):
        loaded(tmp_path)


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from outgate.model.net import Mark
from outgate.systems.statefile.state import StateFile

file = StateFile(Path(sys.argv[1]), place="x")
old = file.load().ledger
number = old.tenants_known
while True:
    number += 1
    file.save(replace(old, tenants_known=number, nodes_known=number, last_mark=Mark(number)))
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file_no_older_than_what_was_confirmed(tmp_path: Path) -> None:
    file_in(tmp_path).save(ledger())
    confirmed = 0
    for kill in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            for _ in range(1 + kill * 2):
                confirmed = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            confirmed = max([confirmed, *map(int, writer.stdout.read().split("\n")[:-1])])

        found = loaded(tmp_path)

        assert found.findings == ()
        assert found.ledger.nodes_known == found.ledger.tenants_known == found.ledger.last_mark
        assert confirmed <= found.ledger.tenants_known <= confirmed + 1


def test_a_disk_without_room_refuses_and_leaves_the_old_file(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.save(ledger())
    before = (tmp_path / "state.json").read_bytes()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(Refused) as refused:
            file.save(ledger(blue_mark=0x300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (tmp_path / "state.json").read_bytes() == before
    assert names(tmp_path) == {"state.json"}, "the half of a file is not left behind"
    finding = not_written(refused.value)
    assert (finding.reason, finding.severity) == ("StateNotWritten", Severity.WARNING)
    assert f"write {tmp_path / 'state.json'}: File too large" in finding.text
    assert file.save(ledger(blue_mark=0x300)), "the next round tries again by itself"
    assert loaded(tmp_path).ledger == ledger(blue_mark=0x300)


def test_a_file_where_the_directory_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "outgate").write_text("not a directory")

    with pytest.raises(Unreachable, match=r"pending\.json can not be read: Not a directory"):
        Documents(tmp_path / "outgate" / "gateway").write("pending.json", b"{}")


def test_documents_stand_beside_the_state_and_go_when_told(tmp_path: Path) -> None:
    documents = Documents(tmp_path)
    assert documents.read("pending.json") is None

    documents.write("pending.json", b'{"deadline": 1}')
    documents.write("pending.json", b'{"deadline": 2}')
    first = (tmp_path / "pending.json").stat()
    documents.write("pending.json", b'{"deadline": 2}')

    assert documents.read("pending.json") == b'{"deadline": 2}'
    assert (tmp_path / "pending.json").stat() == first, "the same content is not written again"
    assert names(tmp_path) == {"pending.json"}
    documents.remove("pending.json")
    documents.remove("pending.json")
    assert names(tmp_path) == set()


def test_a_file_that_is_replaced_keeps_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    manifest = tmp_path / "tenants.yaml"
    umask = os.umask(0o077)
    try:
        disk.replace(manifest, b"one", mode=0o644)
        new = manifest.stat().st_mode & 0o777
        manifest.chmod(0o640)
        disk.replace(manifest, b"two", mode=0o644)
    finally:
        os.umask(umask)

    assert (new, manifest.stat().st_mode & 0o777) == (0o644, 0o640)


@pytest.mark.parametrize("name", ["state.json", "../state.json", "", ".hidden", "a/b", "state.json.previous", "A"])
def test_a_document_can_not_have_a_name_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a document"):
        Documents(tmp_path).write(name, b"")


def test_only_lines_that_changed_are_rendered_again() -> None:
    one = ledger()
    scribe = Scribe()
    before = scribe.body(one)
    blue = replace(one.tenants["ns-blue"], mark=Mark(0x300))

    after = scribe.body(replace(one, tenants={**one.tenants, "ns-blue": blue}))

    assert after == Scribe().body(ledger(blue_mark=0x300))
    assert scribe.body(one) == before


def test_documents_that_come_first_and_together_all_find_the_directory(tmp_path: Path) -> None:
    documents, begin = Documents(tmp_path / "not" / "there" / "yet"), Barrier(8)

    def write(number: int) -> None:
        begin.wait()
        documents.write(f"part-{number}.json", b"{}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))

    assert all(documents.read(f"part-{number}.json") == b"{}" for number in range(8))
