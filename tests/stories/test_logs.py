"""A daemon writes a line per round and one per change: to journald, to a pipe that a collector reads, or to a terminal
on which somebody looks. Some of the names in the lines were chosen by people who would like to draw there.
"""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from outgate.control.logs import Form, as_journal, as_json, as_text, best_form, configure

HOSTILE = 'ns-red\x1b[2J\nMESSAGE=all is well\r"=\u202e'
log = logging.getLogger("outgate.control")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave the library as it was found."""
    root, own = logging.getLogger(), logging.getLogger("outgate")
    before = (root.handlers[:], root.level, own.level)
    yield
    for added in [added for added in root.handlers if added not in before[0]]:
        root.removeHandler(added)
        added.close()
    root.setLevel(before[1])
    own.setLevel(before[2])


def record(message: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = log.makeRecord(log.name, level, "/usr/lib/outgate/control/daemon.py", 42, message, (), None, "_account")
    made.fields = fields
    made.created = 1_800_000_000.25
    return made


def journal_fields(datagram: bytes) -> dict[str, str]:
    """Read the native protocol back: a name, a newline, a length, that many bytes, a newline."""
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        (size,) = struct.unpack_from("<Q", rest)
        fields[name.decode()] = rest[8 : 8 + size].decode()
        assert rest[8 + size : 9 + size] == b"\n"
        datagram = rest[9 + size :]
    return fields


def test_a_line_for_people_has_time_room_message_and_fields() -> None:
    line = as_text(record("round", changes=3, seconds=0.123456789, drift=False, last="route 10.128.0.0/23", empty=""))

    assert line[8:] == ' control: round changes=3 seconds=0.123457 drift=false last="route 10.128.0.0/23" empty=""'
    assert as_text(record("round put off", logging.WARNING))[8:] == " warning control: round put off"


def test_a_line_for_machines_is_json_with_the_time_in_utc() -> None:
    line = as_json(record("made", resource=ip_address("192.168.55.113"), drift=True, room="mine", pause_s=0.5))

    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "room": "control",
        "message": "made",
        "resource": "192.168.55.113",
        "drift": True,
        "pause_s": 0.5,
    }


def test_the_journal_gets_a_readable_message_and_every_field_by_name() -> None:
    fields = journal_fields(as_journal(record("made", logging.WARNING, resource="route 10.128.0.0/23", drift=True)))

    assert fields == {
        "MESSAGE": 'made resource="route 10.128.0.0/23" drift=true',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "outgate",
        "CODE_FILE": "/usr/lib/outgate/control/daemon.py",
        "CODE_LINE": "42",
        "CODE_FUNC": "_account",
        "OUTGATE_ROOM": "control",
        "OUTGATE_EVENT": "made",
        "OUTGATE_RESOURCE": "route 10.128.0.0/23",
        "OUTGATE_DRIFT": "true",
    }


def test_no_value_draws_begins_a_line_or_makes_a_field() -> None:
    hostile = record(HOSTILE, tenant=HOSTILE)

    assert as_text(hostile).isprintable()
    assert as_json(hostile).isprintable()
    assert json.loads(as_json(hostile))["tenant"] == HOSTILE
    fields = journal_fields(as_journal(hostile))
    assert all(value.isprintable() for value in fields.values())
    assert fields["OUTGATE_TENANT"] == 'ns-red\\x1b[2J\\nMESSAGE=all is well\\r"=\\u202e'
    assert fields["MESSAGE"].startswith("ns-red\\x1b[2J\\nMESSAGE")


def test_half_a_surrogate_and_a_very_long_value_are_no_trouble() -> None:
    odd = record("made", link="a\udc80b", text="x" * 1_000_000)

    assert "link=a\\udc80b" in as_text(odd)
    assert json.loads(as_json(odd))["link"] == "a\udc80b"
    assert len(as_journal(odd)) < 20_000, "fits a datagram"


def test_a_failure_carries_its_traceback() -> None:
    try:
        raise ValueError("what is this")
    except ValueError:
        failed = log.makeRecord(log.name, logging.ERROR, "x.py", 1, "stopped", (), sys.exc_info())

    assert "ValueError: what is this" in json.loads(as_json(failed))["error"]
    assert as_text(failed).isprintable()


def test_a_terminal_gets_text_and_a_pipe_gets_json() -> None:
    terminal, behind = os.openpty()
    reader, writer = os.pipe()
    with closing(os.fdopen(terminal, "w")) as screen, closing(os.fdopen(writer, "w")) as pipe:
        assert best_form(screen, "") is Form.TEXT
        assert best_form(pipe, "") is Form.JSON
        assert best_form(io.StringIO(), "") is Form.JSON
    os.close(behind)
    os.close(reader)


def test_the_journal_is_chosen_only_when_stderr_leads_there(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with (tmp_path / "stderr").open("w") as stream:
        status = os.fstat(stream.fileno())
        leads_there = f"{status.st_dev}:{status.st_ino}"
        assert best_form(stream, leads_there, journal) is Form.JSON, "there is no journald"
        journal.touch()
        assert best_form(stream, leads_there, journal) is Form.JOURNAL
        assert best_form(stream, "8:1", journal) is Form.JSON, "somebody redirected stderr"


def test_records_go_to_the_journal_and_to_stderr_while_it_is_away(tmp_path: Path) -> None:
    journal, stderr = tmp_path / "journal", io.StringIO()
    assert configure(Form.JOURNAL, stream=stderr, journal=journal) is Form.JOURNAL

    log.info("made", extra={"fields": {"resource": "one"}})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(journal))
        log.info("made", extra={"fields": {"resource": "two"}})
        listening.settimeout(10)
        fields = journal_fields(listening.recv(65536))

    assert json.loads(stderr.getvalue())["resource"] == "one"
    assert (fields["OUTGATE_RESOURCE"], fields["PRIORITY"]) == ("two", "6")


def test_setting_logs_up_twice_writes_every_line_once_and_leaves_other_libraries_quiet() -> None:
    stream = io.StringIO()
    configure(Form.TEXT, stream=io.StringIO())
    configure(Form.JSON, stream=stream)

    log.info("round")
    log.debug("detail")
    logging.getLogger("urllib3").info("chatter")

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["round"]
    configure(Form.JSON, stream=stream, level=logging.DEBUG)
    log.debug("detail")
    assert stream.getvalue().count("detail") == 1
