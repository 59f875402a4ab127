"""The last complete intent, written down: a gateway that boots while the API server is away serves its tenants from it.

Where and how it is written (whole or not at all) is the business of the role, which brings a `Keep`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from outgate.model.intent import Intent
from outgate.model.why import Finding, Severity
from outgate.sources.exact import Misread, plain_of, value_of

_FORMAT = 1


class Keep(Protocol):
    """One document that survives a power cut."""

    def read(self) -> bytes:
        """Return the document; empty when there is none."""

    def write(self, content: bytes) -> None:
        """Replace it atomically, and return when it is on the disk."""


class LastGood:
    """Writes the intent when it changed, at most once in `every_s` seconds; for one thread."""

    def __init__(self, keep: Keep, every_s: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        """Write to this document; `clock` gives seconds of the calendar, because the age must survive a boot."""
        self._keep, self._every_s, self._clock = keep, every_s, clock
        self._written: Intent | None = None
        self._written_s = float("-inf")

    def write(self, intent: Intent) -> bool:
        """Write the intent if it is another than before and it is time; say whether what is written is current.

        Raises:
            OSError: the disk does not take it.
        """
        if intent is self._written:
            return True
        now_s = self._clock()
        if 0 <= now_s - self._written_s < self._every_s:
            return False
        plain = {"format": _FORMAT, "saved_s": now_s, "intent": plain_of(Intent, replace(intent, refusals=()))}
        self._keep.write(msgspec.json.encode(plain))
        self._written, self._written_s = intent, now_s
        return True

    def read(self) -> Intent | None:
        """Return what was written last, with a finding that says how old it is; None: nothing that can be read."""
        try:
            found = msgspec.json.decode(self._keep.read())
            if not isinstance(found, dict) or found.get("format") != _FORMAT:
                return None
            saved_s = float(found["saved_s"])
            intent: Intent = value_of(Intent, found["intent"])
        except (OSError, msgspec.DecodeError, Misread, KeyError, TypeError, ValueError):
            return None
        age_s = max(0.0, self._clock() - saved_s)
        text = f"the API server was not heard yet; in force is what it said {age_s:.0f} s ago, from the disk"
        told = Finding("IntentFromDisk", "API server", text, Severity.WARNING, "see why it does not answer")
        return replace(intent, refusals=(told,))
