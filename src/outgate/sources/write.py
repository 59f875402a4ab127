"""Writing and removing manifests, for commands that stand in for an editor: one object a file, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from outgate.model.errors import IntentError
from outgate.model.why import Origin
from outgate.sources.documents import parse
from outgate.sources.files import is_manifest, list_files
from outgate.sources.words import quote
from outgate.sources.yaml_writer import to_yaml

_LONGEST = 255 - len("egressgateway-.yaml")  # NAME_MAX of Linux file systems, linux/limits.h


def write_manifest(directory: Path, manifest: Mapping[str, object]) -> Path:
    """Write one object of our kinds, in the place of what stood in its file before, and return the file.

    A reader sees the old file or the new one. The directory is made if it is missing.

    Raises:
        IntentError: the object is not valid, or stands in another file, which is left to its author.
        OSError: the file can not be written.
    """
    text = to_yaml(manifest)
    origin = _valid(text, directory)
    path = manifest_path(directory, origin.kind, origin.name)
    directory.mkdir(parents=True, exist_ok=True)
    _stands_nowhere_else(directory, origin.kind, origin.name, path)
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=directory)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync(directory)
    return path


def remove_manifest(directory: Path, kind: str, name: str) -> Path | None:
    """Remove the file of an object, and return it; None when the object stands nowhere in the directory.

    Raises:
        IntentError: the object stands in another file, which is left to its author.
        OSError: the file can not be removed.
    """
    path = manifest_path(directory, kind, name)
    _stands_nowhere_else(directory, kind, name, path)
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    _sync(directory)
    return path


def find_manifests(directory: Path, kind: str, name: str) -> Iterator[Origin]:
    """Give the places in a directory where an object stands; only files that contain the name are parsed.

    Raises:
        NotReady: a file can not be read.
    """
    if not directory.is_dir():
        return
    for file in list_files(directory):
        content = Path(file).read_bytes()
        if name.encode() not in content:
            continue
        parsed = parse(file, content)
        for one in parsed.objects.get(kind, ()):
            if one.origin.name == name:
                yield one.origin
        for broken in parsed.broken:
            if broken.finding.about == f"{kind}/{name}" and broken.finding.origin is not None:
                yield broken.finding.origin


def manifest_path(directory: Path, kind: str, name: str) -> Path:
    """Return the file of an object; the longest names are cut and told apart by a hash."""
    stem = f"{kind.lower()}-{name}"
    if len(name.encode()) > _LONGEST:
        stem = f"{stem[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    if "/" in stem or not is_manifest(f"{stem}.yaml"):
        raise IntentError(f"{quote(name)} can not name a manifest; choose a name such as ns-red")
    return directory / f"{stem}.yaml"


def _valid(text: str, directory: Path) -> Origin:
    parsed = parse(str(directory), text.encode())
    for broken in parsed.broken:
        finding = broken.finding
        at = finding.origin.field if finding.origin else ""
        raise IntentError(" ".join(part for part in (finding.about, at, f"{finding.text}; {finding.fix}") if part))
    found = [one.origin for objects in parsed.objects.values() for one in objects]
    if len(found) != 1:
        raise IntentError(f"expected one object to write; found {len(found)}")
    return found[0]


def _stands_nowhere_else(directory: Path, kind: str, name: str, path: Path) -> None:
    for origin in find_manifests(directory, kind, name):
        if Path(origin.file) != path:
            raise IntentError("stands in a file that this command did not write: edit it there", origin)


def _sync(directory: Path) -> None:
    """Make the new name durable, not only the content."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
