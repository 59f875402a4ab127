"""One prober for each link that somebody wants to hear: opened when the link is there, given up when it is gone.

What the neighbours of a gateway and of a node have in common. They wait in different loops, so what is asked of a loop
is a protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from outgate.control.loop import Readable
from outgate.model.errors import Unreachable
from outgate.model.net import Address, LinkName
from outgate.systems.wire.probe import Conflict, Prober


class Turns(Protocol):
    """A loop: it calls back when a descriptor is readable, and at times in monotonic seconds."""

    def now_s(self) -> float:
        """Return monotonic seconds."""

    def watch(self, readable: Readable, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable."""

    def forget(self, readable: Readable) -> None:
        """Stop watching a descriptor."""

    def at(self, name: str, when_s: float | None, callback: Callable[[], None]) -> None:
        """Call back once at a time; a new time replaces the old one of that name, and None removes it."""


class Listener(Protocol):
    """Who is told what was heard."""

    def heard(self, link: LinkName, conflict: Conflict) -> None:
        """Take what was heard on a link: somebody else has, claims or probes for what is held or asked for."""

    def proved_free(self, address: Address) -> None:
        """Take that nobody answered for an address that was asked for."""

    def lost(self, link: LinkName) -> None:
        """Take that a link is gone, and what was asked there with it."""


class Ears:
    """The probers by link, in the network namespace of the calling thread."""

    def __init__(self, turns: Turns, listener: Listener) -> None:
        self._turns = turns
        self._listener = listener
        self._probers: dict[LinkName, Prober] = {}

    @property
    def links(self) -> frozenset[LinkName]:
        """The links that are listened to."""
        return frozenset(self._probers)

    def close(self) -> None:
        """Close all sockets; nobody is told."""
        for link in self.links:
            self.drop(link)

    def at(self, link: LinkName) -> Prober | None:
        """Return the prober of a link, None when it is not listened to."""
        return self._probers.get(link)

    def open(self, link: LinkName, *, probes: int = 3, interval_s: float = 0.3) -> Prober | None:
        """Return the prober of a link, made now if need be; None when the link is not there or can not be heard."""
        prober = self._probers.get(link)
        if prober is None:
            try:
                prober = Prober(link, probes=probes, interval_s=interval_s)
            except Unreachable:
                return None
            self._probers[link] = prober
            self._turns.watch(prober, lambda: self._hear(link))
        return prober

    def drop(self, link: LinkName) -> None:
        """Stop listening to a link, and asking there."""
        prober = self._probers.pop(link)
        self._turns.at(f"probe {link}", None, _nothing)
        self._turns.forget(prober)
        prober.close()

    def tick(self, link: LinkName) -> None:
        """Send what is due on a link, now and whenever something is due again."""
        prober = self._probers.get(link)
        if prober is None:
            return
        try:
            ticked = prober.tick(self._turns.now_s())
        except Unreachable:
            self._lose(link)
            return
        self._turns.at(f"probe {link}", ticked.next_s, lambda: self.tick(link))
        for address in ticked.free:
            self._listener.proved_free(address)

    def _hear(self, link: LinkName) -> None:
        try:
            conflicts = self._probers[link].receive()
        except Unreachable:
            self._lose(link)
            return
        for conflict in conflicts:
            self._listener.heard(link, conflict)

    def _lose(self, link: LinkName) -> None:
        self.drop(link)
        self._listener.lost(link)


def _nothing() -> None:
    """Do nothing: what a time that is removed would have called."""
