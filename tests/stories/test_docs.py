"""Somebody follows a page word by word: every link leads somewhere, every command line is one that the program takes,
every manifest is one that it accepts, and every word that the program says is explained.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from outgate.cli import main
from outgate.control.peer import CHANGERS, Right
from outgate.control.place import READERS
from outgate.roles.gateway_daemon import Service
from outgate.sources.manifests import check
from tools import docs

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "outgate"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<to>[^)\s]+)\)")
PROMPT = re.compile(r"^(?:gw1#|n\d#|admin\$|outside#|\S+/app-\d\$) ")
AND_THEN = re.compile(r"\s*(?:;|&&)\s+")
INTO = re.compile(r"\s(?:\d?>|<|\|).*")  # what a shell does with the answer


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    dead = []
    for link in LINK.finditer(prose(page)):
        path, _, anchor = link["to"].partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link["to"])
    assert dead == []


def test_every_page_is_listed_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link["to"].partition("#")[0]).resolve() for link in LINK.finditer(index.read_text())}
    decisions = index.parent / "decisions"
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page != index and decisions not in page.parents}
    assert pages - listed == set()


def test_every_generated_part_stands_in_a_page() -> None:
    named = {part["name"] for page in PAGES for part in docs.PART.finditer(page.read_text())}
    assert named == docs.PARTS.keys()


class Shown(NamedTuple):
    """A command line as a page shows it; `whole` says that it is meant to be typed like that."""

    text: str
    whole: bool


def command_lines(page: Path) -> Iterator[Shown]:
    """Yield all that begins with `outgate` in blocks of commands, in indented blocks, and in inline code."""
    text = docs.PART.sub("", page.read_text())
    for block in FENCE.finditer(text):
        lines = _joined(block["body"])
        if block["language"] == "console":  # the rest is what was printed
            lines = [PROMPT.sub("", line) for line in lines if PROMPT.match(line)]
        if block["language"] in ("console", "sh", "ini"):
            yield from _typed(lines)
    text = FENCE.sub("", text)
    yield from _typed(line.strip() for line in _joined(text) if line.startswith("    "))
    for code in re.findall(r"`([^`\n]+)`", text):
        yield from (shown._replace(whole=False) for shown in _typed([code]))


def _typed(lines: Iterator[str] | list[str]) -> Iterator[Shown]:
    for command in (part.removeprefix("sudo ") for line in lines for part in AND_THEN.split(line)):
        if command == "outgate" or command.startswith("outgate "):
            yield Shown(INTO.sub("", command), whole="..." not in command)


def _joined(text: str) -> list[str]:
    return re.sub(r"\\\n\s*", "", text).splitlines()


def words_of(shown: Shown) -> list[str]:
    """The words after `outgate`; of `run|plan|diff` the first, and what is optional is taken."""
    words = shlex.split(shown.text.replace("[", "").replace("]", ""), comments=True)[1:]
    return [word.split("|")[0] for word in words if word not in ("...", "OPTIONS")]


def refusal(shown: Shown) -> str:
    """What click says against a command line, empty if nothing. Nothing runs."""
    context = click.Context(main.outgate, info_name="outgate")
    command: click.Command = main.outgate
    words = words_of(shown)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]}"
        command, context = found, click.Context(found, info_name=words.pop(0), parent=context)
    if isinstance(command, click.Group) and not words:
        return ""
    try:
        command.make_context(context.info_name, words, parent=context.parent)
    except click.MissingParameter as missing:
        return str(missing) if shown.whole else ""
    except click.UsageError as wrong:
        return wrong.format_message()
    except click.exceptions.Exit:  # --help, --version
        return ""
    return ""


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_line_is_one_that_the_program_takes(page: Path) -> None:
    wrong = {shown.text: said for shown in command_lines(page) if (said := refusal(shown))}
    assert wrong == {}


def test_the_command_lines_of_the_guide_are_found() -> None:
    guide = ROOT / "docs" / "gateway.md"
    assert len([shown for shown in command_lines(guide) if shown.whole]) > 20


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_manifest_on_a_page_passes_lint(page: Path, tmp_path: Path) -> None:
    told = []
    blocks = (block["body"] for block in FENCE.finditer(page.read_text()) if block["language"] == "yaml")
    for number, body in enumerate(block for block in blocks if "apiVersion:" in block):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "shown.yaml").write_text(body)
        told += [f"{finding.origin}: {finding.text}" for finding in check([folder])[1]]
    assert told == []


class Said(NamedTuple):
    """A reason with a severity, as the code says it."""

    reason: str
    severity: str


@cache
def reasons_said() -> frozenset[Said]:
    """The reasons that stand in the code, where findings are made and in the tables that they are made from."""
    found: set[Said] = set()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="Finding" | "refused" | "_refused" | "_finding" as name),
                    args=[ast.Constant(value=str(reason)), *_],
                ):
                    found.add(Said(reason, _severity(name, node)))
                case ast.Constant(value=str(reason)) if re.fullmatch(r"(?:[A-Z][a-z]+)+Address", reason):
                    found.add(Said(reason, "refusal"))  # of the table of addresses that nobody may have
    return frozenset(found)


def _severity(name: str, call: ast.Call) -> str:
    if name in ("refused", "_refused"):
        return "refusal"
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    named = [one.attr for one in given if isinstance(one, ast.Attribute) and getattr(one.value, "id", "") == "Severity"]
    return named[0].lower() if named else "warning"


def reasons_explained() -> dict[str, set[str]]:
    """The reasons of the tables in operations.md, with the severities that stand beside them."""
    severities = "(?:note|warning|refusal)"
    row = re.compile(rf"^\| (`[^|]+) \| ({severities}(?:, {severities})*) \| ", re.MULTILINE)
    found: dict[str, set[str]] = {}
    for names, given in row.findall((ROOT / "docs" / "operations.md").read_text()):
        for reason in re.findall(r"`(\w+)`", names):
            found.setdefault(reason, set()).update(given.split(", "))
    return found


def test_every_reason_of_a_finding_is_explained_with_its_severity() -> None:
    explained = reasons_explained()
    missing = [said for said in sorted(reasons_said()) if said.severity not in explained.get(said.reason, set())]
    assert missing == []


def test_no_reason_is_explained_that_nobody_says() -> None:
    said = {one.reason for one in reasons_said()}
    assert reasons_explained().keys() - said == set()


def test_every_counter_of_the_table_is_explained() -> None:
    ruleset = (SOURCE / "systems" / "nft" / "gateway.nft").read_text()
    counters = set(re.findall(r"^\tcounter (\w+) \{", ruleset, re.MULTILINE))
    explained = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    assert len(counters) > 10
    assert counters - explained == set()


def test_every_verb_of_the_socket_is_listed_with_who_may_use_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", _part("## The daemon's socket"), re.MULTILINE)
    listed = {verb: set(re.findall(r"group `([\w-]+)`", who)) for verb, who in rows}

    groups = {Right.LOOK: {READERS, CHANGERS}, Right.CHANGE: {CHANGERS}}
    assert listed == {name: groups[verb.needs] for name, verb in Service().verbs().items()}


def test_every_exit_code_is_listed() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", _part("## Exit codes"), re.MULTILINE)}
    assert listed == {main.FINE, main.CHANGES, main.FAILED, main.LOCKED, main.INTERRUPTED}


def test_every_variable_of_the_environment_that_is_read_is_listed() -> None:
    listed = set(re.findall(r"`([A-Z_]+)`", _part("## Environment")))
    assert variables_read() - listed == set()


def variables_read() -> set[str]:
    """The names that the code looks up in os.environ, or puts there."""
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Attribute(attr="environ")), args=[ast.Constant(value=str(name)), *_]
                ):
                    found.add(name)
                case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name))):
                    found.add(name)
    return found


def _part(heading: str) -> str:
    """The part of the reference page below a heading, up to the next one of its level."""
    text = (ROOT / "docs" / "reference.md").read_text()
    return text.split(f"\n{heading}\n")[1].split("\n## ")[0]
