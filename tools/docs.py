"""Writes the generated parts of the pages anew: `make docs`.

A generated part stands in a page between two comments, `<!-- generated: NAME -->` and `<!-- end of NAME -->`. Each name
has one function here that gives its lines. With `--check` nothing is written, and the exit code is 1 if a page is old.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from outgate.plan.doctor.examine import reference

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)


def debian_packages() -> Iterator[str]:
    """Give the table of Debian packages from the list that the set-up reads."""
    yield from ("| Debian package | why |", "|---|---|")
    for line in (ROOT / "tools" / "debian-packages.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            package, reason = line.removeprefix("check ").split(maxsplit=1)
            yield f"| {package} | {reason} |"


def doctor_checks() -> Iterator[str]:
    """Give the table of what `outgate doctor` looks at."""
    yield from ("| id | what should hold |", "|---|---|")
    yield from (f"| {identity} | {sentence} |" for identity, sentence in reference())


PARTS: dict[str, Callable[[], Iterator[str]]] = {"debian-packages": debian_packages, "doctor-checks": doctor_checks}


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
