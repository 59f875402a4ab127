"""Packets of pods that were stopped because nothing lets them out: told now and then, with how many they were since.

Pure: the caller brings the counts and the time. A table that is loaded anew counts from nothing, so a count that is
lower than before is all new.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

AGAIN_AFTER_S = 600.0  # a pod that tries for ever is told of this often
# What would have left the machine without an egress IP, by the counters of the table.
_LEAKS = {
    "no_identity": "came in by no tenant's link",
    "source_refused": "had a source that its tenant does not own",
    "wrong_exit": "were on the way out by a link that is no uplink of theirs",
    "guard_dropped": "had still a pod's address behind the address translation",
}


class BlockedLeaks:
    """What was counted, and what was told of it. For one thread."""

    def __init__(self) -> None:
        """Nothing was counted, and nothing told."""
        self._seen: Mapping[str, int] = MappingProxyType({})
        self._untold: dict[str, int] = {}
        self._told_s: float | None = None

    def look(self, packets: Mapping[str, int], now_s: float) -> str:
        """Take the counters of the table, by name; return what should be told now, or nothing."""
        for name in _LEAKS:
            count, before = packets.get(name, 0), self._seen.get(name, 0)
            fresh = count - before if count >= before else count
            if fresh:
                self._untold[name] = self._untold.get(name, 0) + fresh
        self._seen = MappingProxyType(dict(packets))
        if not self._untold or (self._told_s is not None and now_s - self._told_s < AGAIN_AFTER_S):
            return ""
        words = "; ".join(f"{number} {_LEAKS[name]} ({name})" for name, number in self._untold.items())
        self._untold, self._told_s = {}, now_s
        return f"packets were stopped that would have left without an egress IP: {words}"
