"""The house keeps its own rules, those of CONTRIBUTING.md about rooms, names, sizes and errors, in every file.

What ruff and mypy can say is left to them. Here stands what they have no word for; a rule that fails prints the place.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tools import docs

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "outgate"
LINES_OF_A_FUNCTION = 60  # the aim is 40, one screen; beyond 60 nobody argues that it reads better in one piece
LINES_OF_A_MODULE = 500
EMPTY_WORDS = frozenset({"manager", "handler", "helper", "util", "common", "base", "process", "data", "info"})

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for path, tree in modules().items():
        for node in ast.walk(tree):
            yield path, node


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def names_given(node: ast.AST) -> Iterator[str]:
    """The names that a node brings into the world; names of other people's libraries are only used, never given."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            yield name
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.alias(asname=str(name)):
            yield name


def words(name: str) -> set[str]:
    """`ConfigHandlers` and `config_handlers` are the words config, handler."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {part.lower() for part in parts} | {part.lower().removesuffix("s") for part in parts}


def broken_contracts(folder: Path) -> str:
    """What import-linter says about the `outgate` package in a folder; empty when every contract is kept."""
    linter = str(Path(sys.executable).with_name("lint-imports"))
    command = [linter, "--no-cache", "--config", str(ROOT / ".importlinter")]
    ran = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    return "" if ran.returncode == 0 else " ".join(ran.stdout.split()) + ran.stderr


def test_every_import_contract_is_kept() -> None:
    assert broken_contracts(ROOT / "src") == ""


@pytest.mark.parametrize(
    ("room", "line", "sentence"),
    [
        ("plan", "import os", "Words, decisions and reports know no clock"),
        ("report", "import subprocess", "Words, decisions and reports know no clock"),
        ("model", "import msgspec", "The model is made of the standard library alone"),
        ("model", "import outgate.plan", "A room imports only what stands below it"),
        ("compare", "import outgate.trace", "rooms side by side do not know each other"),
        ("systems/kernel", "import outgate.sources", "rooms side by side do not know each other"),
        ("systems/kernel", "import outgate.systems.nft", "Systems do not know each other"),
        ("lab", "import outgate.plan", "The laboratory stands apart"),
        ("systems/kernel", "import pyroute2", "Nothing but the laboratory imports pyroute2"),
        ("control", "import outgate.lab", "Nothing but the command knows the laboratory"),
    ],
)
def test_an_import_across_a_wall_breaks_the_contract_that_forbids_it(
    room: str, line: str, sentence: str, tmp_path: Path
) -> None:
    for module in modules():
        if module.name == "__init__.py":
            copy = tmp_path / "outgate" / module.relative_to(SOURCE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module, copy)
    (tmp_path / "outgate" / room / "wall.py").write_text(f"{line}\n")

    said = broken_contracts(tmp_path)

    assert re.search(f"{sentence}[^.]*? BROKEN", said), said
    assert "1 broken" in said


def test_every_module_says_what_it_is() -> None:
    assert [place(path, tree) for path, tree in modules().items() if not ast.get_docstring(tree)] == []


def test_no_name_is_an_empty_word() -> None:
    in_files = [place(path, tree) for path, tree in modules().items() if words(path.stem) & EMPTY_WORDS]
    in_code = [
        f"{place(path, node)} {name}"
        for path, node in nodes()
        for name in names_given(node)
        if words(name) & EMPTY_WORDS
    ]
    assert in_files + in_code == []


def test_every_function_fits_a_screen_and_every_module_a_sitting() -> None:
    functions = [
        f"{place(path, node)} {node.name}"
        for path, node in nodes()
        if isinstance(node, FunctionNode) and (node.end_lineno or node.lineno) - node.lineno >= LINES_OF_A_FUNCTION
    ]
    long_modules = [str(path) for path in modules() if path.read_text().count("\n") > LINES_OF_A_MODULE]
    assert functions + long_modules == []


def test_no_error_is_caught_without_a_name_unless_it_is_raised_again() -> None:
    nameless = {"Exception", "BaseException"}

    def swallows_all(node: ast.ExceptHandler) -> bool:
        caught = [name for name in ast.walk(node.type) if isinstance(name, ast.Name)] if node.type else []
        all_caught = node.type is None or any(name.id in nameless for name in caught)
        last = node.body[-1]
        return all_caught and not (isinstance(last, ast.Raise) and last.exc is None)

    handlers = [(path, node) for path, node in nodes() if isinstance(node, ast.ExceptHandler)]
    assert [place(path, node) for path, node in handlers if swallows_all(node)] == []


def test_nothing_is_left_unfinished() -> None:
    unfinished = re.compile(r"NotImplementedError|\b(TODO|FIXME|XXX)\b|shell=True")
    assert [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if unfinished.search(line)
    ] == []


def test_every_value_of_the_model_is_frozen_and_slotted() -> None:
    def is_open(decorator: ast.expr) -> bool:
        given = {word.arg for word in decorator.keywords} if isinstance(decorator, ast.Call) else set()
        return ast.unparse(decorator).startswith("dataclass") and not {"frozen", "slots"} <= given

    assert [
        place(path, node)
        for path, node in nodes()
        if path.is_relative_to(SOURCE / "model") and isinstance(node, ast.ClassDef)
        if any(is_open(decorator) for decorator in node.decorator_list)
    ] == []


def test_no_test_sleeps() -> None:
    sleeping = [
        place(path, node)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("sleep")
    ]
    assert sleeping == []


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_every_make_command_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(page.name, word) for page in pages() for word in re.findall(r"`make ([a-z-]+)`", page.read_text())}
    assert {(page, word) for page, word in named if word not in targets} == set()
    assert {("README.md", "demo"), ("README.md", "test")} <= named


def test_every_link_of_a_page_leads_somewhere() -> None:
    links = {(page, link) for page in pages() for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())}
    assert {(page.name, link) for page, link in links if not (page.parent / link).exists()} == set()


def test_every_generated_part_of_a_page_is_as_the_code_would_write_it() -> None:
    assert docs.main(check=True) == 0
