"""One writer per network namespace: an exclusive flock(2) on an open file, which ends with the process that holds it.

A pid file would outlive a kill and name a stranger. What stands in the file is for people only: who holds it, since
when. Daemon and commands that write take the same lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from outgate.control.place import Place, give, make_run_dir
from outgate.model.errors import OutgateError, Refused

EX_TEMPFAIL = 75  # sysexits.h: try again later

_UNIT = re.compile(r"/([^/\n]+\.service)(?:/|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the lock. `ticks` is when the process began, in clock ticks since boot: a pid is used again."""

    pid: int
    ticks: int
    since_s: float
    instance: str
    command: str
    unit: str = ""

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        unit = f"{self.unit}, " if self.unit else ""
        return f"pid {self.pid} ({unit}instance {self.instance}, `{self.command}`) since {since}"


class AlreadyRunning(OutgateError):
    """Somebody else writes to this network namespace; `holder` is None when it has not said its name yet.

    `seen` says whether that process is to be seen from here; one in a container has another pid there.
    """

    exit_code = EX_TEMPFAIL

    def __init__(self, holder: Holder | None, *, seen: bool = True) -> None:
        who = str(holder) if holder else "a process that has just begun"
        where = "" if seen or not holder else ", which is not to be seen from here (in a container?)"
        super().__init__(
            f"another outgate has this network namespace: {who}{where}. Stop it first, or ask it by its socket"
        )
        self.holder = holder


class Lock:
    """The lock, held until it is released or the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next one in. The file stays: a file that goes while somebody opens it would be two locks."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def acquire(place: Place) -> Lock:
    """Return the lock of a network namespace, at once.

    Raises:
        AlreadyRunning: somebody else holds it.
        Refused: the directory or the file can not be written; only root and the daemon's user may.
    """
    make_run_dir(place.run_dir)
    while True:
        descriptor = _open(place.lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _named(descriptor)
            os.close(descriptor)
            raise AlreadyRunning(holder, seen=holder is not None and _ticks(holder.pid) == holder.ticks) from None
        if _is_at(descriptor, place.lock):
            break
        os.close(descriptor)  # somebody removed the file between open and lock: what we hold guards nothing
    give(place.lock, None)
    text = json.dumps(asdict(_self(place.instance)))
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode() + b"\n", 0)
    return Lock(place.lock, descriptor)


def _open(path: Path) -> int:
    """Open the file for the owner only: whoever could open it, even to read, could hold the lock against the daemon."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as failed:
        raise Refused(f"lock {path}", failed.strerror or str(failed)) from failed


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _self(instance: str) -> Holder:
    pid = os.getpid()
    command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    units = _UNIT.findall(Path(f"/proc/{pid}/cgroup").read_text())
    return Holder(
        pid=pid,
        ticks=_ticks(pid) or 0,
        since_s=time.time(),
        instance=instance,
        command="".join(letter if letter.isprintable() else "?" for letter in command)[:200],
        unit=units[-1] if units else "",
    )


def _ticks(pid: int) -> int | None:
    """Return when a process began (proc(5), stat, field 22), or None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _named(descriptor: int) -> Holder | None:
    """Return who the file names; the holder writes that at once, so an older name stands there for a moment only."""
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None
