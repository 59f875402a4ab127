"""A tar.gz of plain files, written whole and read with mistrust.

Read block by block, without the library's extraction: nothing is ever written to disk, and only regular files with
names that are expected are let in: no links, no directories, no devices, no long names, no sparse files. What is packed
well beyond its worth (a bomb) ends the reading at a stated size. Source: POSIX.1-1988 "ustar", as in tar(5).
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from typing import IO

MOST_BYTES = 512 << 20  # of all files of one archive, unpacked: 100,000 pods and as many routes need 60 MiB
_BLOCK = 512
_END = bytes(_BLOCK)


class Unfit(ValueError):
    """A file is no archive of ours: damaged, too large, or holding what it must not hold."""


def pack(members: Iterable[tuple[str, bytes]], file: IO[bytes], taken_s: float) -> None:
    """Write files with these names and contents as one archive; `taken_s` (wall clock) becomes their time.

    Each is packed as it comes, so that only one of them is held at a time.

    Raises:
        ValueError: together they are larger than what is ever read back.
        OSError: the file can not be written.
    """
    total = 0
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=taken_s) as stream,
        tarfile.open(mode="w|", fileobj=stream, format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in members:
            total += len(content)
            if total > MOST_BYTES:
                raise ValueError(f"the bundle would have more than {MOST_BYTES >> 20} MiB")
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), int(taken_s), 0o600
            tar.addfile(member, BytesIO(content))


def unpack(file: IO[bytes], expected: Collection[str], most_bytes: int = MOST_BYTES) -> Iterator[tuple[str, bytes]]:
    """Give name and content of each file of an archive. Each name is one of `expected`, and comes once.

    Raises:
        Unfit: it is something else.
    """
    seen: set[str] = set()
    left = most_bytes
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            while (header := _exactly(stream, _BLOCK)) != _END:
                name, size = _member(header)
                if name not in expected:
                    raise Unfit(f"it holds {name[:80]!a}, which is no part of a bundle that this version knows")
                if name in seen:
                    raise Unfit(f"it holds {name} twice")
                left -= size
                if left < 0:
                    raise Unfit(f"unpacked it has more than {most_bytes >> 20} MiB")
                seen.add(name)
                yield name, _exactly(stream, size)
                _exactly(stream, -size % _BLOCK)
            _drain(stream)
    except (gzip.BadGzipFile, zlib.error) as damaged:
        raise Unfit(f"it is no tar.gz, or damaged: {damaged}") from None
    except EOFError:
        raise Unfit("it ends too early: it was cut, perhaps in sending") from None


def _member(header: bytes) -> tuple[str, int]:
    """Return name and size of the file that a header announces."""
    try:
        found = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as damaged:
        raise Unfit(f"it is no tar archive: {damaged}") from None
    if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise Unfit(f"it holds {found.name[:80]!a}, which is no regular file")
    if found.size < 0:
        raise Unfit("it is no tar archive: a file has a negative size")
    return found.name, found.size


def _exactly(stream: gzip.GzipFile, size: int) -> bytes:
    """Return so many bytes; memory grows with what is really there, not with what a header says."""
    parts = []
    while size:
        part = stream.read(min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _drain(stream: gzip.GzipFile) -> None:
    """Read the padding to its end, so that the check sum of the whole is compared."""
    left = tarfile.RECORDSIZE
    while part := stream.read(_BLOCK):
        left -= len(part)
        if left < 0 or any(part):
            raise Unfit("something stands behind its end")
