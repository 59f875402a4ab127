"""The files of a manifest directory: which ones count, and their content while nobody writes to it.

A file that somebody has open for writing is half a file, and half a file looks like a deletion. So a read lease is
asked for (fcntl(2), F_SETLEASE): the kernel refuses it while there is a writer, and makes a later one wait until it is
given back. It also makes mapping a large file safe, because a mapping of a file that is cut short kills its reader
(SIGBUS).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from outgate.model.errors import NotReady
from outgate.sources.json_reader import Content

Result = TypeVar("Result")

_MAPPED_BYTES = 16 << 20  # from here on a file is mapped: reading 300 MB would need them twice
_TRIES = 5  # listings, when files vanish between listing and looking
_FRESH_NS = 100_000_000  # a time stamp is as coarse as a kernel tick; a younger file may still change without trace

_NAME = re.compile(r"(?![.#]).*(?<!~)\.(?:yaml|yml|json)", re.DOTALL)


class Written(Exception):
    """A process has the file open for writing; it is not whole yet."""


class Version(Struct, frozen=True, gc=False):
    """What changes when a file's content changes. `settled`: its time stamp is old enough to tell the next change."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    settled: bool

    def is_like(self, other: Version) -> bool:
        """Return whether nothing but time has passed."""
        return msgspec.structs.replace(self, settled=other.settled) == other


def is_manifest(name: str) -> bool:
    """Return whether a file of this name counts: hidden and temporary ones do not."""
    return _NAME.fullmatch(name) is not None


def list_files(path: Path) -> dict[str, Version]:
    """Return the manifests of a directory (or the one file) in sorted order, with their versions.

    Hidden and temporary files do not count, nor do directories within. Links are followed, so that the ConfigMap volume
    of a pod is read like a directory.

    Raises:
        NotReady: the path is missing or can not be read, or files kept vanishing.
    """
    missing = str(path)
    for _ in range(_TRIES):
        try:
            versions = _versions(path) if path.is_dir() else {str(path): _version(path.stat(), time.time_ns())}
        except FileNotFoundError as error:
            missing = error.filename
            continue
        except OSError as error:
            raise NotReady(f"{error.filename}: can not be read: {error.strerror}") from error
        return versions
    what = "does not exist" if missing == str(path) else "is listed but does not exist (a link that leads nowhere?)"
    raise NotReady(f"{missing}: {what}; nothing is changed until it does")


def list_again(directory: Path, known: Mapping[str, Version], touched: Set[str]) -> dict[str, Version]:
    """Return what `list_files` would, if nothing but the files of these names was touched since `known`.

    Raises:
        NotReady: a file can not be looked at.
    """
    paths = {str(directory / name) for name in touched if is_manifest(name)}
    now_ns = time.time_ns()
    found: dict[str, Version] = {}
    for path in sorted({*known, *paths}):
        if path not in paths and known[path].settled:
            found[path] = known[path]
            continue
        try:
            seen = Path(path).stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise NotReady(f"{path}: can not be read: {error.strerror}") from error
        if not stat.S_ISDIR(seen.st_mode):
            found[path] = _version(seen, now_ns)
    return found


def read_settled(name: str, use: Callable[[Content], Result]) -> Result:
    """Return what `use` makes of a file's content, which does not change meanwhile and is not kept by it.

    Raises:
        Written: somebody is writing to it.
        FileNotFoundError: it is gone.
        NotReady: it can not be read.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                raise NotReady(f"{name}: is no regular file; nothing is changed while it is there")
            with _lease(descriptor) as is_held:
                if is_held and seen.st_size >= _MAPPED_BYTES:
                    return use(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
                return use(_whole(descriptor))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotReady(f"{name}: can not be read: {error.strerror}") from error


def _versions(directory: Path) -> dict[str, Version]:
    now_ns = time.time_ns()
    with os.scandir(directory) as entries:
        found = [(entry.path, entry.stat()) for entry in entries if is_manifest(entry.name)]
    return {name: _version(seen, now_ns) for name, seen in sorted(found) if not stat.S_ISDIR(seen.st_mode)}


def _version(seen: os.stat_result, now_ns: int) -> Version:
    is_settled = abs(now_ns - seen.st_mtime_ns) > _FRESH_NS
    return Version(seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, is_settled)


@contextmanager
def _lease(descriptor: int) -> Iterator[bool]:
    """Hold a read lease where it can be had: not on every file system, nor on files of others without CAP_LEASE."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # ignored by default; SIGIO would end the process
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise Written from None
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _whole(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()
