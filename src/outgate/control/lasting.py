"""What is amiss for longer than others need to mend it: controllers beside us act on the same change a little later."""

from __future__ import annotations

from collections.abc import Iterable

from outgate.model.why import Finding


class Lasting:
    """Remembers since when each finding has been there, over looks that follow each other."""

    def __init__(self, settles_s: float) -> None:
        """A finding counts when it has been there for `settles_s` seconds, at every look in between."""
        self._settles_s = settles_s
        self._since: dict[Finding, float] = {}

    def of(self, findings: Iterable[Finding], now_s: float) -> tuple[Finding, ...]:
        """Return those of a look at `now_s` (monotonic) that have lasted."""
        self._since = {one: self._since.get(one, now_s) for one in findings}
        return tuple(one for one, since_s in self._since.items() if now_s - since_s >= self._settles_s)
