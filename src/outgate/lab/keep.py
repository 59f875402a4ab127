"""A laboratory that stays: `outgate lab up`, `shell`, `down`.

`up` publishes every network namespace as `og-lab-NAME` under /run/netns, leaves the server outside running, and writes
down what it made in /run/outgate-lab, with the manifests beside it. `down` undoes exactly what is written there. What a
user starts inside is the user's: `down` names those processes and leaves them alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

from outgate.lab.manifests import Manifests
from outgate.lab.namespace import Namespace, python_module, withdraw
from outgate.lab.topology import Laboratory

PLACE = Path("/run/outgate-lab")
PREFIX = "og-lab-"

_PUBLISHED = Path("/run/netns")  # of iproute2
_RECORD = "laboratory.json"
_LOG = "server.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What `up` made and `down` will undo. Namespaces by their published names."""

    prefix: str  # of the published names
    namespaces: tuple[str, ...]
    manifests: tuple[str, ...] = ()  # paths
    server: int = 0  # process id
    server_started: int = 0  # clock ticks after boot: a process id alone may belong to somebody else by now


def up(place: Path = PLACE, *, prefix: str = PREFIX, nodes: int = 2, pods_per_namespace: int = 1) -> Kept:
    """Build a laboratory that stays, and return what was made. Its pods are steered as its manifests say.

    Several may be up at once, if each has a place and a prefix of its own.

    Raises:
        FileExistsError: one is up already.
        PermissionError: the process is not root.
    """
    if (place / _RECORD).exists():
        raise FileExistsError(f"a laboratory is up already, as {place / _RECORD} says; `outgate lab down` ends it")
    with Laboratory(nodes=nodes, pods_per_namespace=pods_per_namespace, bare=True) as lab:
        lab.steer_all()
        kept = Kept(prefix=prefix, namespaces=tuple(prefix + net.name for net in lab.nets))
        place.mkdir(parents=True, exist_ok=True)
        _write(place, kept)  # before anything is published: what is cut short can still be undone
        try:
            for net in lab.nets:
                net.publish(prefix + net.name)
            manifests = Manifests(place / "manifests")
            manifests.put_all(lab)
            server = _serve(lab.ext, place / _LOG)
            kept = replace(
                kept,
                manifests=tuple(str(file) for file in sorted(manifests.directory.iterdir())),
                server=server,
                server_started=_started(server),
            )
            _write(place, kept)
        except BaseException:
            lab.release()
            down(place)
            raise
        lab.release()
    return kept


def down(place: Path = PLACE) -> dict[int, str]:
    """Undo what `up` made; return the processes that still run inside, by id, with their namespace. They keep it alive.

    Raises:
        FileNotFoundError: no laboratory is up.
    """
    kept = read(place)
    if kept.server and _started(kept.server) == kept.server_started:
        os.kill(kept.server, signal.SIGKILL)
        _wait_for_end(kept.server)
    published = [name for name in kept.namespaces if (_PUBLISHED / name).exists()]
    left = _inside({(_PUBLISHED / name).stat().st_ino: name.removeprefix(kept.prefix) for name in published})
    for name in published:
        withdraw(name)
    for file in (*map(Path, kept.manifests), place / _LOG, place / _RECORD):
        file.unlink(missing_ok=True)
    for directory in (place / "manifests", place):
        with contextlib.suppress(OSError):  # holds files of the user, or was never made
            directory.rmdir()
    return left


def shell(name: str, place: Path = PLACE) -> NoReturn:
    """Become a shell in a namespace, called as `up` published it, with or without prefix; pods also as NAMESPACE/POD.

    Raises:
        FileNotFoundError: no laboratory is up.
        LookupError: it has no such namespace; the message lists those it has.
    """
    kept = read(place)
    short = name.removeprefix(kept.prefix).replace("/", "-")
    full = kept.prefix + short
    if full not in kept.namespaces:
        known = ", ".join(one.removeprefix(kept.prefix) for one in kept.namespaces)
        raise LookupError(f"no namespace {name!r}; there are {known}")
    program = os.environ.get("SHELL", "/bin/sh")
    os.environ["OUTGATE_LAB"] = short
    os.execvp("nsenter", ("nsenter", f"--net={_PUBLISHED / full}", "--", program))


def read(place: Path = PLACE) -> Kept:
    """Return what is up.

    Raises:
        FileNotFoundError: nothing is.
    """
    try:
        record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"no laboratory is up: there is no {place / _RECORD}") from None
    return Kept(
        prefix=record["prefix"],
        namespaces=tuple(record["namespaces"]),
        manifests=tuple(record["manifests"]),
        server=record["server"],
        server_started=record["server_started"],
    )


def _write(place: Path, kept: Kept) -> None:
    """Write the record in one step."""
    torn = place / f".{_RECORD}.new"
    torn.write_text(json.dumps(asdict(kept), indent=2) + "\n", encoding="utf-8")
    torn.rename(place / _RECORD)


def _serve(ext: Namespace, log: Path) -> int:
    """Start a server that is no child of this process and return its id, once it listens."""
    command = ("setsid", "--fork", *python_module("outgate.lab.server"))
    with (
        log.open("ab") as lines,
        ext.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=lines, tied=False) as parent,
    ):
        assert parent.stdout is not None
        words = parent.stdout.readline().split()
    if len(words) != 2:
        raise RuntimeError(f"the server did not start; {log} says why")
    return int(words[1])


def _started(pid: int) -> int:
    """Return when a process started, in clock ticks after boot; -1 if there is none (proc(5), field 22 of stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return int(stat.rpartition(") ")[2].split()[19])


def _wait_for_end(pid: int) -> None:
    """Return once a process that was killed is gone; a second is plenty."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            select.select((descriptor,), (), (), 1.0)
        finally:
            os.close(descriptor)


def _inside(names: Mapping[int, str]) -> dict[int, str]:
    """Return the processes in namespaces that are given by inode."""
    return {pid: names[inode] for pid, inode in _everybody() if inode in names}


def _everybody() -> Iterator[tuple[int, int]]:
    """Yield every process and the inode of its network namespace."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                yield int(entry.name), (entry / "ns/net").stat().st_ino
