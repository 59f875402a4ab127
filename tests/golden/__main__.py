"""Writes what is expected of the decision tables' rows anew: `python -m tests.golden --write`, then look at the diff.

Without `--write` it names the files that would change, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.golden.cases import EXPECTED, Case, cases


def main() -> int:
    """Compare or write all folders; return the exit code."""
    parser = argparse.ArgumentParser(prog="tests.golden", description="Golden folders of EgressIP's decision tables.")
    parser.add_argument("--write", action="store_true", help="write what is expected anew")
    wanted = parser.parse_args()
    found = [path for case in cases() for path in differing(case)]
    if wanted.write:
        for case in cases():
            write(case)
    for path in found:
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return 1 if found and not wanted.write else 0


def differing(case: Case) -> Iterator[Path]:
    """Yield the files of a folder that are not, or no longer, as expected."""
    place, files = case.folder / EXPECTED, case.files
    there = {path.name: path.read_text() for path in place.glob("*")}
    yield from (place / name for name in sorted(there.keys() | files) if there.get(name) != files.get(name))


def write(case: Case) -> None:
    """Write what is expected of a folder, and nothing else."""
    place = case.folder / EXPECTED
    place.mkdir(exist_ok=True)
    for path in differing(case):
        path.unlink(missing_ok=True)
    for name, text in case.files.items():
        (place / name).write_text(text)


if __name__ == "__main__":
    sys.exit(main())
