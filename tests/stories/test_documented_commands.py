"""Somebody types what the page on troubleshooting shows, where it says so, and sees what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from outgate.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
EXAMPLE = "docs/examples/egress-ip"  # the manifests and snapshots that the page is about
BLOCK = re.compile(r"^```console\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)


class Shown(NamedTuple):
    """A command as the page has it, and what stands below it."""

    command: str
    output: str


def shown() -> list[Shown]:
    """The commands of the page that ask about the example; those for a node's own machine are not among them."""
    found = []
    for block in BLOCK.finditer(PAGE.read_text()):
        for part in re.split(r"^admin\$ ", block["body"], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if EXAMPLE in command:
                found.append(Shown(command, output))
    return found


@pytest.mark.parametrize("one", shown(), ids=[one.command.partition(" -f ")[0] for one in shown()])
def test_a_command_of_the_page_says_what_the_page_shows(
    one: Shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(shlex.split(one.command)[1:]) in (0, 1)
    assert capsys.readouterr().out.splitlines() == one.output.splitlines()


def test_the_page_shows_a_command_for_each_question() -> None:
    sections = PAGE.read_text().split("\n## ")[1:]
    assert len(shown()) >= 8
    for section in sections:
        assert re.search(r"^(admin|n\d)[$#] outgate |^    outgate ", section, re.MULTILINE), section[:60]
