"""The source of a gateway that serves several clusters: one reflecting source for each, and their intents as one.

Nothing is known until each cluster was read, or what it said last is on the disk: a cluster that is not heard is no
empty cluster.
"""

from __future__ import annotations

import select
from collections.abc import Mapping

from outgate.model.errors import NotReady
from outgate.model.intent import Intent
from outgate.model.status import SourceStatus
from outgate.sources.kube.source import KubeSource
from outgate.sources.kube.together import Together


class SeveralSources:
    """Sources by the names of their clusters, the first of which has the first word. For one thread."""

    def __init__(self, sources: Mapping[str, KubeSource]) -> None:
        """Take the sources; `close` closes them."""
        self._sources, self._together = sources, Together()
        self._woken: select.epoll | None = None

    def read(self, *, look_at_all: bool = True) -> Intent:
        """Return all that is asked now: the very same value as before while nothing changed.

        Raises:
            NotReady: a kind of a cluster was never read whole; the message names them.
        """
        self.fileno()  # all of them begin now, also those behind one that is not ready
        found, missing = {}, []
        for name, source in self._sources.items():
            try:
                found[name] = source.read(look_at_all=look_at_all)
            except NotReady as error:
                missing.append(f"{name}: {error}")
        if missing:
            raise NotReady("; ".join(missing))
        return self._together.join(found)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when `changed` should be asked."""
        if self._woken is None:
            self._woken = select.epoll()
            for source in self._sources.values():
                self._woken.register(source.fileno(), select.EPOLLIN)
        return self._woken.fileno()

    def changed(self) -> bool:
        """Consume the wake-ups; say whether there were any."""
        woken = [source.changed() for source in self._sources.values()]
        return any(woken)

    def close(self) -> None:
        """End all of them."""
        if self._woken is not None:
            self._woken.close()
        for source in self._sources.values():
            source.close()

    @property
    def is_refused(self) -> bool:
        """Whether waiting is no use, for one of them at least."""
        return any(source.is_refused for source in self._sources.values())

    def statuses(self) -> tuple[SourceStatus, ...]:
        """Return how fresh each kind of each cluster is."""
        return tuple(status for source in self._sources.values() for status in source.statuses())
