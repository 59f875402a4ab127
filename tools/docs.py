"""Writes the generated parts of the pages anew: `make docs`.

A generated part stands in a page between two comments, `<!-- generated: NAME -->` and `<!-- end of NAME -->`. Each name
has one function here that gives its lines. With `--check` nothing is written, and the exit code is 1 if a page is old.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from outgate.cli.main import outgate
from outgate.control import metrics, role_metrics
from outgate.plan.doctor.examine import reference

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)
MANY = 5  # commands: an option that so many have is described once, and only named elsewhere

Key = tuple[tuple[str, ...], str]  # the spellings of an option, and what its help says


def debian_packages() -> Iterator[str]:
    """Give the table of Debian packages from the list that the set-up reads."""
    needs = {"check": "every command", "demo": "`make demo`", "test": "`make test`, `make bench`"}
    yield from ("| Debian package | asked for by | why |", "|---|---|---|")
    for line in (ROOT / "tools" / "debian-packages.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            mark, package, reason = line.split(maxsplit=2)
            yield f"| {package} | {needs[mark]} | {reason} |"


def doctor_checks() -> Iterator[str]:
    """Give the table of what `outgate doctor` looks at."""
    yield from ("| id | what should hold |", "|---|---|")
    yield from (f"| {identity} | {sentence} |" for identity, sentence in reference())


def metrics_table() -> Iterator[str]:
    """Give the table of metrics."""
    yield from metrics.reference().splitlines()


def cluster_metrics_table() -> Iterator[str]:
    """Give the table of the cluster role's metrics."""
    yield from role_metrics.reference().splitlines()


def commands() -> Iterator[str]:
    """Give every command as its help has it: what it does, its arguments and options; shared options come last."""
    every = list(leaves(click.Context(outgate, info_name="outgate")))
    times = Counter(_key(option) for context in every for option in _options(context))
    for context in every:
        yield from _command(context, {key for key, count in times.items() if count >= MANY})
    yield from ("### Options that many commands have", "", *_HEAD)
    shared = {_key(option): option for context in every for option in _options(context)}
    yield from (_row(shared[key]) for key in sorted(shared) if times[key] >= MANY)


def leaves(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for every command that does something, in the order of the help."""
    if not isinstance(context.command, click.Group):
        yield context
        return
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command is not None
        yield from leaves(click.Context(command, info_name=name, parent=context))


_HEAD = ("| option | when absent | meaning |", "|---|---|---|")


def _command(context: click.Context, shared: set[Key]) -> Iterator[str]:
    command, options = context.command, _options(context)
    yield from (f"### {context.command_path}", "")
    yield from (f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}", "")
    for paragraph in (command.help or "").split("\n\n"):
        yield from (" ".join(paragraph.split()), "")
    own = [option for option in options if _key(option) not in shared]
    if own:
        yield from (*_HEAD, *map(_row, own), "")
    also = [f"`{option.opts[-1]}`" for option in options if _key(option) in shared]
    if also:
        yield from (f"And {', '.join(also)}: [below](#options-that-many-commands-have).", "")


def _options(context: click.Context) -> list[click.Option]:
    return [option for option in context.command.params if isinstance(option, click.Option)]


def _key(option: click.Option) -> Key:
    return tuple(option.opts), option.help or ""


def _row(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    if isinstance(option.type, click.Choice):
        value = " " + "\\|".join(option.type.choices)
    absent = "required" if option.required else f"`{option.default}`" if option.show_default else ""
    return f"| `{', '.join(option.opts)}{value}` | {absent} | {option.help} |"


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "cluster-metrics": cluster_metrics_table,
    "commands": commands,
    "debian-packages": debian_packages,
    "doctor-checks": doctor_checks,
    "metrics": metrics_table,
}


def renewed(page: str) -> str:
    """Return the text of a page with every generated part written anew.

    Raises:
        KeyError: a part has a name that nothing here generates.
    """
    return PART.sub(lambda part: "\n".join([part[1].rstrip(), *PARTS[part["name"]](), part[3]]), page)


def main(*, check: bool) -> int:
    """Write or check all pages, name those that were old, and return the exit code."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    old = [page for page in sorted(pages) if renewed(page.read_text()) != page.read_text()]
    for page in old:
        print(f"{page.relative_to(ROOT)}: {'is old: run `make docs`' if check else 'written anew'}")
        if not check:
            page.write_text(renewed(page.read_text()))
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
