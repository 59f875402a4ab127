"""Files that are old or new, never half: written beside, flushed, renamed over, and the directory flushed.

Sources: rename(2), fsync(2), link(2).

One writer at a time: the names of the files beside are fixed, so what a killed writer left is overwritten by the next
one. The lock of `control` sees to that. A file belongs to whoever owns its directory, so that what root writes by hand
can be read by a daemon that runs as a user of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outgate.model.errors import Refused, Unreachable

_DIRECTORY_MODE = 0o750


def read(path: Path) -> bytes | None:
    """Return the content of a file, or None where there is none.

    Raises:
        Unreachable: there is a file, or something in the way to it, that can not be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as failed:
        raise Unreachable(f"{path} can not be read: {failed.strerror}") from failed


def replace(path: Path, content: bytes, *, former: Path | None = None, mode: int = 0o600) -> None:
    """Make `content` the content of `path`, wholly or not at all, and durable when this returns. The directory is made.

    A file that is there keeps its mode; a new one gets `mode`, which by default leaves it to the daemon and root. What
    stood at `path` before becomes `former`, if one is named; at no moment is there no file at `path`.

    Raises:
        Refused: the disk is full, read-only or broken. `path` is whole: as it was, or, when only the last flush failed,
            new but perhaps not durable. A `former` is as it was, or the same file as `path`.
    """
    with _refusal(f"write {path}"):
        _make_directory(path.parent)
        beside = path.with_name(f".{path.name}.new")
        _write_out(beside, content, path.stat().st_mode & 0o777 if path.exists() else mode)
        if former is not None and path.exists():
            aside = path.with_name(f".{former.name}.new")
            aside.unlink(missing_ok=True)
            os.link(path, aside)
            aside.rename(former)
        beside.rename(path)
        _flush_directory(path.parent)


def rename(path: Path, target: Path) -> None:
    """Give a file another name in its directory, durably.

    Raises:
        Refused: the directory can not be written.
    """
    with _refusal(f"rename {path} to {target.name}"):
        path.rename(target)
        _flush_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file durably; one that is not there is fine.

    Raises:
        Refused: the directory can not be written.
    """
    with _refusal(f"remove {path}"):
        try:
            path.unlink()
        except FileNotFoundError:
            return
        _flush_directory(path.parent)


@contextmanager
def _refusal(change: str) -> Iterator[None]:
    try:
        yield
    except OSError as failed:
        raise Refused(change, failed.strerror or str(failed)) from failed


def _make_directory(directory: Path) -> None:
    """Make a directory and those above it; a new one belongs to the owner of the one that it stands in."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    try:
        directory.mkdir(mode=_DIRECTORY_MODE)
    except FileExistsError:
        if directory.is_dir():
            return  # another thread, with another file of ours, was quicker
        raise
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give(opened, directory.parent)
    finally:
        os.close(opened)
    _flush_directory(directory.parent)


def _write_out(path: Path, content: bytes, mode: int) -> None:
    """Write a file anew and flush it. On failure it is gone again, so that a full disk is not fuller than before."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "wb") as file:
            os.fchmod(opened, mode)
            _give(opened, path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _give(opened: int, above: Path) -> None:
    """Give what root made to the owner of the directory above; others can not, and need not. By descriptor: under a
    name, that owner could put something of root's meanwhile.
    """
    owner = above.stat()
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        os.chown(opened, owner.st_uid, owner.st_gid)


def _flush_directory(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
