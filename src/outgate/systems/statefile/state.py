"""The ledger's file. Every way in which it can be wrong has an answer; none of them is to trust it.

`load` only reads, so that a command which looks may use it beside a running daemon. `save` belongs to the one who holds
the lock. The last good version stays as `state.json.previous`; what is damaged is kept as `state.json.broken-1`, and so
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from outgate.model.errors import IntentError, Refused
from outgate.model.ledger import Ledger
from outgate.model.why import Finding, Origin, Severity
from outgate.systems.statefile import disk
from outgate.systems.statefile.format import FORMAT
from outgate.systems.statefile.parse import Damaged, Foreign, Sealed, opened
from outgate.systems.statefile.render import Scribe, sealed

NAME = "state.json"

_LOST = (
    "Marks and addresses from pools may be given anew (old flows of tenants whose mark changes are cut), addresses "
    "that were draining or in quarantine are free at once, quotas start at zero, addresses are probed again before "
    "they are used, and `flush` can not restore kernel settings to what they were before outgate"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the file said. `same_place`: it was last written in this boot and this network namespace, so that what it
    says of the kernel is still so.
    """

    ledger: Ledger
    same_place: bool = False
    findings: tuple[Finding, ...] = ()


class StateFile:
    """The ledger of one gateway in one directory. `place` is a word for this boot and this network namespace."""

    def __init__(self, directory: Path, *, place: str = "", written_by: str = "") -> None:
        self.path = directory / NAME
        self._former = self.path.with_name(f"{NAME}.previous")
        self._place = place
        self._written_by = written_by
        self._loaded = False
        self._saved: Ledger | None = None  # what the file holds, when it is good and was written in this place
        self._scribe = Scribe()
        self._damaged: tuple[Path, ...] = ()

    def load(self) -> Loaded:
        """Return the ledger, the one before it when the file is damaged, or an empty one; findings say which.

        Raises:
            IntentError: another version of outgate wrote the file, in a format that this one does not know.
            Unreachable: the file is there and can not be read.
        """
        now = self._open(self.path)
        former = None if isinstance(now, Sealed) else self._open(self._former)
        found = now if isinstance(now, Sealed) else former if isinstance(former, Sealed) else None
        self._damaged = tuple(
            path for path, one in ((self.path, now), (self._former, former)) if isinstance(one, Damaged)
        )
        self._saved = now.ledger if isinstance(now, Sealed) and now.place == self._place else None
        self._loaded = True
        return Loaded(
            ledger=found.ledger if found else Ledger(),
            same_place=found is not None and found.place == self._place,
            findings=self._findings(now, former),
        )

    def save(self, ledger: Ledger) -> bool:
        """Make the ledger durable, and return whether there was something to write.

        Raises:
            Refused: the disk is full, read-only or broken; what stood in the file still does (see `not_written`).
            IntentError: another version of outgate wrote the file, which is never overwritten.
            Unreachable: the file is there and can not be read.
        """
        if not self._loaded:
            self.load()
        if ledger == self._saved and self.path.exists():
            return False
        self._set_aside()
        content = sealed(self._scribe.body(ledger), written_by=self._written_by, place=self._place)
        disk.replace(self.path, content, former=self._former)
        self._saved = ledger
        return True

    def _set_aside(self) -> None:
        """Keep what is damaged under another name, so that it never takes the place of the last good version."""
        while self._damaged:
            path, *rest = self._damaged
            if path.exists():
                disk.rename(path, _unused(path))
            self._damaged = tuple(rest)

    def _open(self, path: Path) -> Sealed | Damaged | None:
        content = disk.read(path)
        try:
            return None if content is None else opened(content)
        except Damaged as damaged:
            return damaged
        except Foreign as foreign:
            raise IntentError(
                f"{foreign}; this is outgate {self._written_by}, which knows format {FORMAT}. Nothing was changed. "
                f"Install the version that wrote it, or move the file away to begin without a memory. {_LOST}",
                Origin(file=str(path)),
            ) from foreign

    def _findings(self, now: Sealed | Damaged | None, former: Sealed | Damaged | None) -> tuple[Finding, ...]:
        if isinstance(now, Sealed):
            return ()
        if now is None and former is None:
            text = "There is no state yet: this gateway begins without a memory"
            return (Finding("StateMissing", str(self.path), text, Severity.NOTE),)
        what = "is missing" if now is None else f"is damaged ({now})"
        kept = f"The next writing keeps what is damaged beside it, as {NAME}.broken-1 or the next free number"
        if isinstance(former, Sealed):
            text = (
                f"The state file {what}; the version before it is in force. What was allocated last may be given anew"
            )
            return (Finding("StateTorn", str(self.path), text, fix=kept if now else ""),)
        text = (
            f"The state file {what}, nor is there a good one before it: this gateway begins without a memory. {_LOST}"
        )
        return (Finding("StateLost", str(self.path), text, fix=f"{kept}. Bring a good copy back, if there is one"),)


def not_written(refused: Refused) -> Finding:
    """Return what the user should know when the ledger could not be saved: the gateway goes on, but from memory."""
    text = (
        f"What is allocated now is not written down ({refused}): the gateway serves on from memory, and would forget "
        "it at a restart"
    )
    return Finding(
        "StateNotWritten", refused.change, text, fix="Make room, or mend the disk; it is tried again by itself"
    )


def _unused(path: Path) -> Path:
    """Return the first free name to keep a damaged file under; the previous version is numbered with the others."""
    names = (path.with_name(f"{NAME}.broken-{number}") for number in count(1))
    return next(name for name in names if not name.exists())
