"""Intent from a directory of manifests: YAML and JSON as kubectl writes and takes them.

Reading again costs one look at each file and one parse of each that changed. What can not be read whole is either
refused and kept as it was (a broken document), or stops everything (a file that can not be opened): a part of the
wishes is never taken for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from types import MappingProxyType

from outgate.model.errors import NotReady
from outgate.model.intent import Intent
from outgate.model.why import Finding, Origin, Severity
from outgate.sources.documents import parse
from outgate.sources.files import Version, Written, is_manifest, list_again, list_files, read_settled
from outgate.sources.inotify import Watch
from outgate.sources.merge import State, merge
from outgate.sources.parsed import Parsed

_TRIES = 5  # when files vanish between listing and reading


class ManifestSource:
    """Reads and watches one directory, or one file. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.parent if path.is_file() else path
        self._watch: Watch | None = None
        self._files = _Files()
        self._state = State()
        self._notes: tuple[Finding, ...] = ()
        self._touched: set[str] | None = None  # names since the last complete reading; None: perhaps all

    def read(self, *, look_at_all: bool = True) -> Intent:
        """Return all that is asked now: the very same value as before while nothing changed.

        Without `look_at_all` only files that the kernel reported are looked at (of 4,000 that is 2 ms and not 15). That
        is for a round after `changed`; the regular audit looks at all, because links may lead out of the directory.

        Raises:
            NotReady: something is missing that could change everything; the message names it.
        """
        notes = self._renewed_watch()
        self.changed()
        touched, self._touched = self._touched, None
        is_new = self._files.read([self._path], None if look_at_all else touched)
        if self._watch is not None and not notes and self._folder == self._path:
            self._touched = set()
        notes += self._files.notes
        if is_new or notes != self._notes:
            self._state = merge(self._files.parsed, self._state, notes)
            self._notes = notes
        return self._state.intent

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when `changed` should be asked; the first call begins to watch.

        Begin to watch before the first `read`, so that nothing happens in between unseen.

        Raises:
            NotReady: the kernel's limit of inotify instances is reached.
        """
        if self._watch is None:
            try:
                self._watch = Watch(self._folder)
            except OSError as error:
                text = f"{self._path}: can not be watched: {error.strerror}; raise fs.inotify.max_user_instances"
                raise NotReady(text) from error
            self._renewed_watch()
        return self._watch.fileno()

    def changed(self) -> bool:
        """Return whether something happened to a manifest since the last call; True also when nobody can tell.

        What happens to the target of a link that points out of the directory is seen by the next `read` only.
        """
        names = self._watch.read() if self._watch is not None else None
        if names is None or any(not name or name.startswith("..") for name in names):
            self._touched = None  # the directory itself, or the links of a ConfigMap volume
            return True
        if self._touched is not None:
            self._touched |= names
        if self._folder != self._path:
            return self._path.name in names
        return any(is_manifest(name) for name in names)

    def ignored(self) -> Mapping[str, int]:
        """Return how many objects of each kind that outgate does not read the files held when they were read last."""
        counts: Counter[str] = Counter()
        for parsed in self._files.parsed.values():
            counts.update({kind: one.count for kind, one in parsed.ignored.items()})
        return MappingProxyType(counts)

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _renewed_watch(self) -> tuple[Finding, ...]:
        """Watch the directory that has the name now, and say so when that fails."""
        if self._watch is None:
            return ()
        try:
            self._watch.renew()
        except FileNotFoundError:
            return ()  # reading will say so
        except OSError as error:
            text = f"can not be watched ({error.strerror}): changes are seen by the regular audit only"
            origin = Origin(file=str(self._folder))
            fix = "raise fs.inotify.max_user_watches"
            return (Finding("NotWatched", str(self._folder), text, Severity.WARNING, fix, origin),)
        return ()


def check(paths: Sequence[Path]) -> tuple[Intent, tuple[Finding, ...]]:
    """Return what these files and directories ask for, and everything that is wrong with them.

    Raises:
        NotReady: a path is missing or can not be read.
    """
    files = _Files()
    files.read(paths)
    intent = merge(files.parsed, State()).intent
    return intent, intent.refusals


class _Files:
    """The parsed files, by name, each parsed once per version."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Version, Parsed]] = {}
        self._was_complete = False
        self.notes: tuple[Finding, ...] = ()

    @property
    def parsed(self) -> Mapping[str, Parsed]:
        """What each file holds, in the order in which they count."""
        return {name: parsed for name, (_, parsed) in self._known.items()}

    def read(self, paths: Sequence[Path], touched: Set[str] | None = None) -> bool:
        """Bring everything up to date, and return whether anything is new. `touched` are the only files to look at.

        Raises:
            NotReady: a file can not be read, or none of this was ever read and one is being written just now.
        """
        vanished = ""
        for _ in range(_TRIES):
            try:
                if touched is None:
                    return self._read({name: one for path in paths for name, one in list_files(path).items()})
                known = {name: version for name, (version, _) in self._known.items()}
                return self._read(list_again(paths[0], known, touched))
            except FileNotFoundError as error:
                vanished = error.filename
        raise NotReady(f"{vanished}: is listed, but is gone whenever it is to be read; nothing is changed meanwhile")

    def _read(self, versions: Mapping[str, Version]) -> bool:
        now: dict[str, tuple[Version, Parsed]] = {}
        notes: list[Finding] = []
        for name, version in versions.items():
            have = self._known.get(name)
            if have is not None and have[0] == version and version.settled:
                now[name] = have
                continue
            try:
                now[name] = (version, self._parse(name, version))
            except Written:
                if not self._was_complete:
                    raise NotReady(f"{name}: is being written by another program; waiting until it is whole") from None
                if have is not None:
                    now[name] = have
                notes.append(_being_written(name, is_known=have is not None))
        before, self._known = self._known, now
        self._was_complete = True
        self.notes = tuple(notes)
        return list(before) != list(now) or any(before[name][1] is not parsed for name, (_, parsed) in now.items())

    def _parse(self, name: str, version: Version) -> Parsed:
        parsed = read_settled(name, partial(parse, name))
        have = self._known.get(name)
        is_same = have is not None and version.is_like(have[0]) and have[1] == parsed
        return have[1] if have is not None and is_same else parsed


def _being_written(name: str, *, is_known: bool) -> Finding:
    left = "what was read from it before stays in force" if is_known else "it is not read yet"
    text = f"is open in a program that writes to it; {left} until the program closes it"
    return Finding("FileBeingWritten", name, text, Severity.NOTE, "", Origin(file=name))
