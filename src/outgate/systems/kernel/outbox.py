"""Requests on their way to the kernel, in order, each with the resource it is for.

They leave in packets; between two packets stands a boundary, where a crash leaves everything before it done and
nothing behind it begun. What the kernel refuses is kept with the resource and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from outgate.model.state import Failure, Resource
from outgate.systems.netlink import NetlinkSocket

Boundary: TypeAlias = Callable[[str], None]

PACKET = 500  # requests: small enough for one packet of `NetlinkSocket.batch`, large enough that system calls are free


def no_boundary(place: str) -> None:
    """Let a boundary pass."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that the kernel refused."""

    resource: Resource
    errno: int
    words: str


@dataclass(slots=True)
class Outbox:
    """The requests that wait, and what became of those that left."""

    socket: NetlinkSocket
    boundary: Boundary
    waiting: list[tuple[Resource, bytes]] = field(default_factory=list)
    failures: dict[Resource, str] = field(default_factory=dict)

    def put(self, resource: Resource, *requests: bytes) -> None:
        """Let requests wait for their packet."""
        self.waiting += [(resource, request) for request in requests]

    def fail(self, resource: Resource, words: str) -> None:
        """Remember why a resource was not written; the first reason stays."""
        self.failures.setdefault(resource, words)

    def send(self, place: str) -> list[Refused]:
        """Send what waits and return what was refused. `place` names the boundaries behind the packets."""
        refused: list[Refused] = []
        waiting, self.waiting = self.waiting, []
        for start in range(0, len(waiting), PACKET):
            packet = waiting[start : start + PACKET]
            answers = self.socket.batch(request for _, request in packet)
            refused += [Refused(packet[answer.index][0], answer.errno, answer.words) for answer in answers]
            self.boundary(place)
        return refused

    def result(self) -> tuple[Failure, ...]:
        """Return what failed, in the order in which it did."""
        return tuple(Failure(resource, words) for resource, words in self.failures.items())
