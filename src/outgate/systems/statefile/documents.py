"""Small documents beside the ledger that must outlive the program, each old or new and never half: an intent that waits
to be confirmed, the last good intent, what was learned of a ruleset.

What is in them is the business of whoever writes them; a reader treats one that it can not parse as one that is
missing.
"""

from __future__ import annotations

import re
from pathlib import Path

from outgate.systems.statefile import disk
from outgate.systems.statefile.state import NAME

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}(\.[a-z0-9]{1,8})?")


class Documents:
    """The documents of one gateway, by name: lower-case letters, digits and hyphens, and perhaps an ending."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> bytes | None:
        """Return a document, or None where there is none.

        Raises:
            Unreachable: it is there and can not be read.
        """
        return disk.read(self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a document, durably; one that holds this content already is left alone.

        Raises:
            Refused: the disk is full, read-only or broken; the document is whole, old or new.
            Unreachable: what is there can not be read.
        """
        path = self._path(name)
        if disk.read(path) != content:
            disk.replace(path, content)

    def remove(self, name: str) -> None:
        """Remove a document, durably; one that is not there is fine.

        Raises:
            Refused: the directory can not be written.
        """
        disk.remove(self._path(name))

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or name == NAME:
            raise ValueError(f"{name!r} is no name of a document")
        return self._directory / name
