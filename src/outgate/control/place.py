"""Where one outgate stands: its network namespace, its boot, and the paths that follow from both.

One network namespace has one table `inet outgate`, so lock and socket are named by the namespace, whatever the instance
is called. A namespace's number does not outlive a boot, so what is remembered on disk is named by the instance, and
says inside where it was written.
"""

from __future__ import annotations

import grp
import os
import re
from dataclasses import dataclass
from pathlib import Path

from outgate.model.errors import IntentError, Refused

RUN = Path("/run/outgate")
STATE = Path("/var/lib/outgate")
INSTANCE = "gateway"
READERS = "outgate"  # the group that may look; see `control.peer`

_INSTANCE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One instance in one network namespace. `netns` is the namespace's inode number, its name while it lives."""

    netns: int
    boot_id: str
    instance: str = INSTANCE
    run_dir: Path = RUN
    state_dir: Path = STATE

    @property
    def lock(self) -> Path:
        """The file whose lock says that somebody writes to this network namespace."""
        return self.run_dir / f"{self.netns}.lock"

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.run_dir / f"{self.netns}.sock"

    @property
    def state(self) -> Path:
        """The directory of the ledger and the documents."""
        return self.state_dir / self.instance

    def __str__(self) -> str:
        return f"{self.boot_id} {self.netns}"


def here(instance: str = INSTANCE, *, run_dir: Path = RUN, state_dir: Path = STATE) -> Place:
    """Return the place of the calling thread.

    Raises:
        IntentError: the instance's name is no DNS label; it becomes part of a path.
    """
    if not _INSTANCE.fullmatch(instance):
        raise IntentError(f"the instance name {instance!r} must be at most 63 lower-case letters, digits and hyphens")
    return Place(
        netns=Path("/proc/thread-self/ns/net").stat().st_ino,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        instance=instance,
        run_dir=run_dir,
        state_dir=state_dir,
    )


def group_id(name: str) -> int | None:
    """Return the number of a group, or None where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def make_run_dir(directory: Path) -> None:
    """Make the directory of locks and sockets, for its owner and the group that may look; one that is there is kept.

    Raises:
        Refused: it can not be made.
    """
    try:
        directory.mkdir(mode=0o750)
    except FileExistsError:
        return
    except OSError as failed:
        raise Refused(f"make {directory}", failed.strerror or str(failed)) from failed
    directory.chmod(0o750)  # whatever the umask of the first caller is
    give(directory, group_id(READERS))


def give(path: Path, group: int | None) -> None:
    """Give a file to the owner of its directory and to a group, as far as this process may: only root gives away."""
    now, above = path.lstat(), path.parent.stat()
    may = os.geteuid() == 0 or group in (os.getegid(), *os.getgroups())
    wanted = (above.st_uid if os.geteuid() == 0 else now.st_uid, group if group is not None and may else now.st_gid)
    if wanted != (now.st_uid, now.st_gid):  # not asked in vain: a sandbox may forbid the very call
        os.chown(path, *wanted, follow_symlinks=False)  # the owner could have put a link there meanwhile
