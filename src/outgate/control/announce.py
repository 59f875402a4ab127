"""When addresses are announced: soon and repeatedly after they were programmed, then as a reminder to switches.

An announcement may be lost, and a switch or host that missed it keeps a stale entry for up to four hours; hence the
repeats. The reminders exist because replies leave with the MAC of the NIC, so that a switch would forget a tenant's MAC
(300 s is the usual ageing time) and flood what is sent to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from outgate.model.net import LinkName, Mac
from outgate.systems.wire.frames import Announcement, announcing
from outgate.systems.wire.pace import Pace

REPEATS_S = (0.0, 1.0, 3.0, 10.0, 60.0)  # after the address was programmed
REMINDER_S = 60.0  # from each MAC, whatever number of addresses it has

_Port = tuple[LinkName, Mac]


@dataclass(slots=True)
class _Fresh:
    """An announcement that still has repeats to come."""

    announcement: Announcement
    made_s: float


class Schedule:
    """Says which announcements are due, first ones before repeats before reminders, within a rate of frames per second.

    It holds no clock and sends nothing: times are monotonic seconds that the caller brings.
    """

    def __init__(self, rate_per_s: float = 50.0) -> None:
        self._pace = Pace(rate_per_s)
        self._held: dict[Announcement, _Fresh | None] = {}
        self._repeats: tuple[deque[_Fresh], ...] = tuple(deque() for _ in REPEATS_S)
        self._ports: dict[_Port, Announcement] = {}
        self._reminders: deque[tuple[float, _Port]] = deque()

    def hold(self, held: Iterable[Announcement], *, made: Iterable[Announcement] = (), now_s: float) -> None:
        """Announce exactly what is held from now on; what was `made` just now begins its repeats (again).

        What is held but was not made now, as after a restart, is only reminded of.
        """
        keep = dict.fromkeys(held)
        self._held = {announcement: self._held.get(announcement) for announcement in keep}
        for announcement in made:
            if announcement in keep:
                fresh = self._held[announcement] = _Fresh(announcement, now_s)
                self._repeats[0].append(fresh)
        known, self._ports = self._ports, {}
        for announcement in keep:
            self._ports.setdefault((announcement.link, announcement.mac), announcement)
        self._reminders = deque(each for each in self._reminders if each[1] in self._ports)
        self._reminders.extend((now_s + REMINDER_S, port) for port in self._ports if port not in known)

    def due(self, now_s: float) -> list[Announcement]:
        """Return what is to be sent now; each is returned once."""
        ready: list[Announcement] = []
        for number, repeats in enumerate(self._repeats):
            while repeats and self._due_s(number, repeats[0]) <= now_s:
                fresh = repeats[0]
                if self._held.get(fresh.announcement) is fresh:
                    if not self._take(now_s, fresh.announcement):
                        return ready
                    ready.append(fresh.announcement)
                    if number + 1 < len(REPEATS_S):
                        self._repeats[number + 1].append(fresh)
                repeats.popleft()
        while self._reminders and self._reminders[0][0] <= now_s:
            _, port = self._reminders[0]
            reminder = replace(self._ports[port], refresh=True)
            if not self._take(now_s, reminder):
                return ready
            ready.append(reminder)
            self._reminders.popleft()
            self._reminders.append((now_s + REMINDER_S, port))
        return ready

    def next_s(self) -> float | None:
        """Return when to ask again what is due; None when nothing is held."""
        times = [self._due_s(number, repeats[0]) for number, repeats in enumerate(self._repeats) if repeats]
        times += [self._reminders[0][0]] if self._reminders else []
        return self._pace.next_s(min(times)) if times else None

    def _take(self, now_s: float, announcement: Announcement) -> bool:
        return self._pace.take(now_s, len(announcing(announcement)))

    @staticmethod
    def _due_s(number: int, fresh: _Fresh) -> float:
        return fresh.made_s + REPEATS_S[number]
