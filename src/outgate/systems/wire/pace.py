"""How fast frames may leave: so many a second, in small handfuls, so that a big gateway is no broadcast storm."""

from __future__ import annotations

SLICE_S = 0.1  # what this time allows may leave at once: a waking per frame would only cost


class Pace:
    """A limit of frames per second. It holds no clock: every question brings the time, in monotonic seconds."""

    def __init__(self, rate_per_s: float) -> None:
        self._frame_s = 1 / rate_per_s
        self._slack_s = max(0.0, SLICE_S - self._frame_s)
        self._free_s = float("-inf")  # when all frames let through so far would have left, had they left one by one

    def take(self, now_s: float, frames: int = 1) -> bool:
        """Say whether so many frames may leave now, and count them if so."""
        if self._free_s > now_s:
            return False
        self._free_s = max(self._free_s, now_s - self._slack_s) + frames * self._frame_s
        return True

    def next_s(self, due_s: float) -> float:
        """Return when to ask for frames that are due at a time: then, or when a whole slice of them may leave."""
        return due_s if self._free_s <= due_s else self._free_s + self._slack_s
