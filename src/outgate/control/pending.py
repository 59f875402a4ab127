"""An applied intent that waits for confirmation: written down before it is put in force, so that a restart rolls it
back in time.

The manifests are kept as documents of their own beside the ledger; the daemon's directory is neither read nor written
until somebody confirms. Confirming makes the directory say what was applied; rolling back forgets it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from outgate.model.errors import IntentError, OutgateError, Refused
from outgate.systems.statefile import disk
from outgate.systems.statefile.documents import Documents

DOCUMENT = "pending.json"
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Manifests by file name, and until when (wall clock, seconds) they wait for a word."""

    manifests: Mapping[str, str]
    until_s: float


def collect(path: Path) -> dict[str, str]:
    """Return the manifests of a directory or file, by file name.

    Raises:
        IntentError: there are none, or they can not be read.
    """
    try:
        files = (
            sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
            if path.is_dir()
            else [path]
        )
        found = {file.name: file.read_text() for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise IntentError(f"{path} can not be read: {error}") from error
    if not found:
        raise IntentError(f"{path} holds no manifests ({', '.join(SUFFIXES)})")
    return found


def write(documents: Documents, pending: Pending) -> None:
    """Make it durable before it is put in force."""
    document = {"until_s": pending.until_s, "manifests": dict(pending.manifests)}
    documents.write(DOCUMENT, json.dumps(document, indent=1).encode())


def read(documents: Documents) -> Pending | None:
    """Return what waits, or None; what can not be understood is as good as rolled back."""
    content = documents.read(DOCUMENT)
    if content is None:
        return None
    try:
        document = json.loads(content)
        return Pending(manifests=dict(document["manifests"]), until_s=float(document["until_s"]))
    except (ValueError, KeyError, TypeError):
        documents.remove(DOCUMENT)
        return None


def unfold(pending: Pending, directory: Path) -> Path:
    """Write the manifests into a directory that holds nothing else, for the source to read; return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.iterdir():
        if stale.name not in pending.manifests:
            stale.unlink()
    for name, text in pending.manifests.items():
        disk.replace(directory / Path(name).name, text.encode())
    return directory


def confirm(pending: Pending, directory: Path) -> None:
    """Make the daemon's directory say what was applied: write every manifest, then remove those that were not applied.

    Raises:
        Refused: the directory can not be written; some of its files may be new already.
    """
    try:
        for name, text in pending.manifests.items():
            disk.replace(directory / Path(name).name, text.encode(), mode=0o644)
        for old in directory.iterdir():
            if old.suffix in SUFFIXES and not old.name.startswith(".") and old.name not in pending.manifests:
                old.unlink()
    except OSError as error:
        raise Refused(f"write {directory}", str(error)) from error


class NothingPending(OutgateError):
    """There is nothing to confirm or to roll back."""
