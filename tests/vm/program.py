"""The program as an installer leaves it: a copy of outgate with compiled files, for compiling costs the guest 10 s."""

from __future__ import annotations

import compileall
import shutil
from pathlib import Path

import outgate

_SOURCE = Path(outgate.__file__).parent


def install(into: Path) -> Path:
    """Copy outgate into a folder, compile it there, and return the folder, for use as a PYTHONPATH."""
    shutil.copytree(_SOURCE, into / _SOURCE.name, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(into, quiet=2)
    into.chmod(0o755)  # the daemon has a user of its own
    return into
