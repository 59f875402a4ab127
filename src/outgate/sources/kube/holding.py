"""What is known of one kind, and what a list, an event or the absence of the kind means for it. No clock, no wire.

An event says what happened and is believed. A list says what is there, and what it leaves out was perhaps only not
shown (a store that was restored, a server that is not yet itself): a list that is older than what was seen, empty, or
less than half of what is held deletes nothing until a second list, some seconds later, leaves out the same objects.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, replace

from outgate.model.intent import Unread
from outgate.model.why import Finding
from outgate.sources.convert import ModelObject
from outgate.sources.parsed import Key


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as the server shows it. `value` is None when it can not be read; then `findings` say why, and `unread`
    tells one of ours to who writes statuses.
    """

    uid: str
    version: str
    value: ModelObject | None
    findings: tuple[Finding, ...] = ()
    unread: Unread | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of one complete list, and the resourceVersion that it stands for."""

    entries: Mapping[Key, Entry]
    version: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Objects (by key, with their uids) that a doubtful list left out, and since when (monotonic seconds)."""

    missing: Mapping[Key, str]
    since_s: float


class Holding:
    """The objects of one kind, by key. For one thread."""

    def __init__(self, agree_after_s: float) -> None:
        """Hold nothing yet; a second list agrees with a doubtful one at the earliest after so many seconds."""
        self._agree_after_s = agree_after_s
        self._entries: dict[Key, Entry] = {}
        self._keys: list[Key] = []  # sorted
        self._newest = 0
        self._objects: tuple[ModelObject, ...] | None = None  # None: to be gathered anew
        self._findings: tuple[Finding, ...] | None = None
        self.version = ""
        self.doubt: Doubt | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def objects(self) -> tuple[ModelObject, ...]:
        """Return the readable objects, sorted by namespace and name."""
        if self._objects is None:
            entries = self._entries
            self._objects = tuple([value for key in self._keys if (value := entries[key].value) is not None])
        return self._objects

    def findings(self) -> tuple[Finding, ...]:
        """Return what is wrong with objects that can not be read."""
        if self._findings is None:
            self._findings = tuple(finding for key in self._keys for finding in self._entries[key].findings)
        return self._findings

    def unread(self) -> tuple[Unread, ...]:
        """Return the objects that can not be read, as they are served now."""
        return tuple(entry.unread for key in self._keys if (entry := self._entries[key]).unread is not None)

    def put(self, key: Key, entry: Entry) -> bool:
        """Take an object that was added or changed; say whether anything that outgate reads is different now.

        A repeated event, or one that is older than what is held of the same object, is nothing new.
        """
        held = self._entries.get(key)
        if held is not None and held.uid == entry.uid and _is_not_newer(entry.version, held.version):
            self._seen(entry.version)
            return False
        if held is None:
            insort(self._keys, key)
        is_new = self._replace(key, entry)
        self._seen(entry.version)
        return is_new

    def drop(self, key: Key, entry: Entry) -> bool:
        """Take the news that an object was deleted; another object of the same name stays."""
        held = self._entries.get(key)
        is_held = held is not None and held.uid == entry.uid
        if is_held:
            self._remove(key)
        self._seen(entry.version)
        return is_held

    def bookmark(self, version: str) -> None:
        """Remember how far the server's word goes."""
        self._seen(version)

    def is_past(self, version: str) -> bool:
        """Return whether a list of this resourceVersion is older than what was seen already."""
        return 0 < _number(version) < self._newest

    def relist(self, listed: Listed, now_s: float) -> bool:
        """Take a complete list; say whether anything is different now. `doubt` is set while deletions are held back."""
        missing = {key: entry.uid for key, entry in self._entries.items() if key not in listed.entries}
        # An object whose name belongs to another uid now is replaced below: that is a deletion and an addition.
        is_doubtful = bool(missing) and (
            not listed.entries or len(listed.entries) * 2 < len(self._entries) or self.is_past(listed.version)
        )
        agreed, doubt = self._weigh(missing, now_s, is_doubtful=is_doubtful)
        is_new = False
        for key in agreed:
            self._remove(key)
            is_new = True
        for key, entry in listed.entries.items():
            held = self._entries.get(key)
            if held is None or (held.uid, held.version) != (entry.uid, entry.version):
                is_new = self._replace(key, entry) or is_new
        if len(self._keys) != len(self._entries):
            self._keys = sorted(self._entries)
        self.doubt = doubt
        self.version = listed.version
        if doubt is None:
            self._newest = _number(listed.version)
        return is_new

    def _weigh(self, missing: dict[Key, str], now_s: float, *, is_doubtful: bool) -> tuple[list[Key], Doubt | None]:
        """Return what may be deleted now, and what is still doubted."""
        if not is_doubtful:
            return list(missing), None
        before = self.doubt
        if before is None:
            return [], Doubt(missing, now_s)
        if now_s - before.since_s < self._agree_after_s:
            return [], Doubt(
                {key: uid for key, uid in missing.items() if before.missing.get(key) == uid}, before.since_s
            )
        agreed = [key for key, uid in missing.items() if before.missing.get(key) == uid]
        left = {key: uid for key, uid in missing.items() if before.missing.get(key) != uid}
        return agreed, Doubt(left, now_s) if left else None

    def _replace(self, key: Key, entry: Entry) -> bool:
        """Put an entry in place. What does not differ keeps its very value, and what can not be read its old one."""
        held = self._entries.get(key)
        if held is None:
            self._entries[key] = entry
            self._forget_gathered()
            return True
        is_same_object = held.uid == entry.uid
        if (entry.value is None and is_same_object) or _says_the_same(entry.value, held.value):
            entry = replace(entry, value=held.value)
        self._entries[key] = entry
        is_new = entry.value is not held.value or (entry.findings, entry.unread) != (held.findings, held.unread)
        if is_new:
            self._forget_gathered()
        return is_new

    def _remove(self, key: Key) -> None:
        del self._entries[key]
        del self._keys[bisect_left(self._keys, key)]
        self._forget_gathered()

    def _forget_gathered(self) -> None:
        self._objects = self._findings = None

    def _seen(self, version: str) -> None:
        self.version = version or self.version
        self._newest = max(self._newest, _number(version))


def _number(version: str) -> int:
    """Return a resourceVersion as the number that it is since Kubernetes 1.35 (and was before); 0: it is none."""
    return int(version) if version.isascii() and version.isdigit() else 0


def _is_not_newer(version: str, held: str) -> bool:
    if version == held:
        return True
    new, old = _number(version), _number(held)
    return bool(new and old) and new < old


def _says_the_same(value: ModelObject | None, held: ModelObject | None) -> bool:
    """Return whether two readings of an object are one to outgate: equal, and of the same uid and generation."""
    if value is None or held is None:
        return False
    return value == held and getattr(value, "served", None) == getattr(held, "served", None)
