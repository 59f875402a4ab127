"""The last complete intent, written down: a gateway that boots while the API server is away serves its tenants from it.

Where and how it is written (whole or not at all) is the business of the role, which brings a `Keep`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from outgate.model.errors import OutgateError
from outgate.model.intent import Intent
from outgate.model.why import Finding, Severity
from outgate.sources.exact import Misread, plain_of, value_of

_FORMAT = 1


class Keep(Protocol):
    """One document that survives a power cut. What it can not do is an OutgateError."""

    def read(self) -> bytes | None:
        """Return the document; None when there is none."""

    def write(self, content: bytes) -> None:
        """Replace it atomically, and return when it is on the disk."""


class LastGood:
    """Writes the intent when it is another than before; for one thread at a time."""

    def __init__(self, keep: Keep, clock: Callable[[], float] = time.time) -> None:
        """Write to this document; `clock` gives seconds of the calendar, because the age must survive a boot."""
        self._keep, self._clock = keep, clock
        self._written: Intent | None = None

    def write(self, intent: Intent) -> None:
        """Write the intent if it is another than before.

        Raises:
            OutgateError: the disk does not take it.
        """
        if intent is self._written:
            return
        plain = {
            "format": _FORMAT,
            "saved_s": self._clock(),
            "intent": plain_of(Intent, replace(intent, refusals=(), unread=())),
        }
        self._keep.write(msgspec.json.encode(plain))
        self._written = intent

    def read(self) -> Intent | None:
        """Return what was written last, with a finding that says how old it is; None: nothing that can be read."""
        try:
            found = msgspec.json.decode(self._keep.read() or b"")
            if not isinstance(found, dict) or found.get("format") != _FORMAT:
                return None
            saved_s = float(found["saved_s"])
            intent: Intent = value_of(Intent, found["intent"])
        except (OutgateError, msgspec.DecodeError, Misread, KeyError, TypeError, ValueError):
            return None
        age_s = max(0.0, self._clock() - saved_s)
        text = f"the API server was not heard yet; in force is what it said {age_s:.0f} s ago, from the disk"
        told = Finding("IntentFromDisk", "API server", text, Severity.WARNING, "see why it does not answer")
        return replace(intent, refusals=(told,))
