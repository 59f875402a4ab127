"""One kind of one API server, for ever: list, publish, watch, and begin anew where the server says so.

Decisions about objects are those of `holding`. A watch that does not end when the server promised to end it is dead,
whatever else the connection says: no probe and no keep-alive is needed to find a server that is held still, a
half-open connection, or a proxy whose back end is gone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from outgate.apiserver.errors import Denied, Gone, Missing, Unauthorized
from outgate.apiserver.server import Server
from outgate.model.errors import OutgateError, Unreachable
from outgate.model.intent import Unread
from outgate.model.why import Finding, Severity
from outgate.sources.convert import ModelObject
from outgate.sources.kube.holding import Entry, Holding, Listed
from outgate.sources.kube.kinds import Watched
from outgate.sources.kube.objects import Event, ObjectReader, Page
from outgate.sources.kube.timings import Timings
from outgate.sources.parsed import Key

_QUICK_ENDS = 3  # watches in a row that end at once: the kind is listed again
_UNPAGED_AFTER = 2  # pages that were forgotten while they were read: the list is taken whole, from the server's memory


class State(Enum):
    """What a kind is doing."""

    LISTING = "LISTING"
    WATCHING = "WATCHING"
    HELD = "HELD"  # deletions in bulk wait for a second list
    ABSENT = "ABSENT"
    DENIED = "DENIED"
    AUTH = "AUTH"
    UNREACHABLE = "UNREACHABLE"


def _state_of(error: OutgateError) -> State:
    """Return what an error of the server means for a kind."""
    match error:
        case Missing():
            return State.ABSENT
        case Denied():
            return State.DENIED
        case Unauthorized():
            return State.AUTH
    return State.UNREACHABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind as it was published. Times are monotonic seconds; `synced` says that the objects are complete."""

    kind: str
    state: State = State.LISTING
    since_s: float = 0.0
    synced: bool = False
    heard_s: float = 0.0  # when the server last said something about it
    error: str = ""
    lists: int = 0
    watches: int = 0
    errors: int = 0
    objects: tuple[ModelObject, ...] = ()
    findings: tuple[Finding, ...] = ()
    unread: tuple[Unread, ...] = ()


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What the reflectors of one server share."""

    server: Server
    timings: Timings
    check_cluster: Callable[[], object]  # a coroutine function: raises when another cluster answers
    publish: Callable[[Part], None]
    two_lists: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    chance: random.Random = field(default_factory=random.Random)


class Reflector:
    """Holds one kind. `run` never returns; cancel it."""

    def __init__(self, watched: Watched, around: Surroundings) -> None:
        self._watched, self._around, self._timings = watched, around, around.timings
        self._reader = ObjectReader(watched)
        self._holding = Holding(around.timings.agree_after_s)
        self._part = Part(kind=watched.kind, since_s=time.monotonic())
        self._listed_s = float("-inf")
        self._forgotten = 0
        self._troubles = 0
        self._gathering: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """List and watch until it is cancelled."""
        await asyncio.sleep(self._around.chance.uniform(0, self._timings.start_jitter_s))
        try:
            while True:
                try:
                    await self._list()
                    if self._holding.doubt is None:
                        await self._watch_on()
                except OutgateError as error:
                    await self._bear(error)
        finally:
            if self._gathering is not None:
                self._gathering.cancel()

    async def _list(self) -> None:
        """Take one complete list, and publish what it means.

        Raises:
            OutgateError: it did not come whole; what is held stays as it was.
        """
        await asyncio.sleep(self._listed_s + self._timings.list_every_s - time.monotonic())
        async with self._around.two_lists:
            self._listed_s = time.monotonic()
            await self._around.check_cluster()  # type: ignore[misc]
            listed = await self._pages()
        self._forgotten = self._troubles = 0
        self._holding.relist(listed, time.monotonic())
        state = State.HELD if self._holding.doubt else State.WATCHING
        self._tell(state, lists=self._part.lists + 1, synced=True)

    async def _pages(self) -> Listed:
        """Read all pages into a new map: pages of a list that breaks off are thrown away."""
        found: dict[Key, Entry] = {}
        query = {"limit": str(self._timings.page)}
        if self._forgotten >= _UNPAGED_AFTER:
            query = {"resourceVersion": "0"}
        if self._watched.field_selector:
            query["fieldSelector"] = self._watched.field_selector
        while True:
            body = await self._around.server.request(
                "GET", self._watched.path, query=query, deadline_s=self._timings.list_deadline_s
            )
            page = self._page(body)
            found.update(page.entries)
            if not page.next_page:
                return Listed(found, page.version)
            query["continue"] = page.next_page

    def _page(self, body: bytes) -> Page:
        try:
            return self._reader.page(body)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self._watched.path}: the answer is no list of an API server: {error}") from error

    async def _watch_on(self) -> None:
        """Watch again and again; return when a list is due."""
        quick = stalled = 0
        was_cut = False
        while quick < _QUICK_ENDS:
            began_s, seconds = time.monotonic(), self._watch_seconds()
            try:
                is_current = not (was_cut and await self._is_past()) and await self._watch(seconds)
            except OutgateError as error:
                if _state_of(error) is not State.UNREACHABLE:
                    raise
                stalled, was_cut = stalled + 1, True
                self._tell(self._part.state, errors=self._part.errors + 1)
                if stalled > 1:  # the second connection in a row: it is the server
                    await self._bear(error)
            else:
                if not is_current:
                    return
                stalled = 0
                lasted_s = time.monotonic() - began_s
                was_cut = lasted_s < seconds - self._timings.quick_s
                is_quick = lasted_s < min(self._timings.quick_s, seconds / 2)
                quick = quick + 1 if is_quick else 0
                if quick > 1:
                    await asyncio.sleep(self._pause_s(quick - 1))

    async def _is_past(self) -> bool:
        """Return whether the store went back to an older state: a watch from the future would wait in silence.

        Asked after a watch that did not end as promised, because no store goes back beneath a living watch.
        """
        body = await self._around.server.request("GET", self._watched.path, query={"limit": "1"}, deadline_s=5.0)
        return self._holding.is_past(self._page(body).version)

    async def _watch(self, seconds: int) -> bool:
        """Follow one watch to its end; False: the server forgot the version, and a list is due."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._holding.version,
            "timeoutSeconds": str(seconds),
        }
        if self._watched.field_selector:
            query["fieldSelector"] = self._watched.field_selector
        try:
            async with self._around.server.lines(
                self._watched.path,
                query=query,
                first_byte_s=self._timings.first_byte_s,
                deadline_s=seconds + self._timings.stall_s,
            ) as lines:
                self._troubles = 0
                self._tell(State.WATCHING, watches=self._part.watches + 1)
                async for line in lines:
                    if not self._take(self._event(line)):
                        return False
        except Gone:
            return False
        return True

    def _event(self, line: bytes) -> Event:
        try:
            return self._reader.event(line)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self._watched.path}: a line of the watch is no event: {error}") from error

    def _take(self, event: Event) -> bool:
        """Take one event; False: a list is due."""
        if event.type == "BOOKMARK":
            self._holding.bookmark(event.version)
        elif event.entry is None:
            if event.code == 410:
                return False
            raise Unreachable(f"{self._watched.path}: the server ended the watch: {event.code} {event.message}")
        else:
            take = self._holding.drop if event.type == "DELETED" else self._holding.put
            if take(event.key, event.entry) and self._gathering is None:
                loop = asyncio.get_running_loop()
                self._gathering = loop.call_later(self._timings.gather_s, self._tell_gathered)
        return True

    def _tell_gathered(self) -> None:
        self._gathering = None
        self._tell(self._part.state)

    async def _bear(self, error: OutgateError) -> None:
        """Tell of a trouble, and wait as long as it deserves."""
        if isinstance(error, Gone):
            self._forgotten += 1
            self._tell(self._part.state, errors=self._part.errors + 1)
            return
        self._troubles += 1
        synced = self._part.synced
        state = _state_of(error)
        if state is State.ABSENT and (self._watched.may_be_absent or synced):
            self._holding.relist(Listed({}), time.monotonic())  # as any empty list: a second one must agree
            synced = True
        doubted = self._holding.doubt is not None and state is State.ABSENT
        self._tell(State.HELD if doubted else state, error=str(error), errors=self._part.errors + 1, synced=synced)
        if doubted:
            await asyncio.sleep(self._timings.agree_after_s)
        elif state in (State.ABSENT, State.DENIED):
            await asyncio.sleep(self._timings.recheck_s * self._around.chance.uniform(0.9, 1.1))
        else:
            await asyncio.sleep(self._pause_s(self._troubles))

    def _pause_s(self, times: int) -> float:
        """Return a pause that doubles with each time, with full jitter."""
        most_s = min(self._timings.pause_most_s, self._timings.pause_first_s * 2.0 ** min(times - 1, 16))
        return self._around.chance.uniform(0, most_s)

    def _watch_seconds(self) -> int:
        return self._around.chance.randint(self._timings.watch_least_s, self._timings.watch_most_s)

    def _tell(
        self,
        state: State,
        *,
        error: str = "",
        synced: bool | None = None,
        **counts: int,
    ) -> None:
        """Publish the kind as it is now; objects that did not change keep their very tuple."""
        old, now_s = self._part, time.monotonic()
        objects = self._holding.objects()
        findings = (*self._holding.findings(), *self._doubted(), *self._barred(state, error))
        self._part = Part(
            kind=old.kind,
            state=state,
            since_s=old.since_s if state is old.state else now_s,
            synced=old.synced if synced is None else synced,
            heard_s=old.heard_s if state is State.UNREACHABLE else now_s,
            error=error,
            lists=counts.get("lists", old.lists),
            watches=counts.get("watches", old.watches),
            errors=counts.get("errors", old.errors),
            objects=objects,
            unread=self._holding.unread() if findings else (),
            findings=old.findings if findings == old.findings else findings,
        )
        self._around.publish(self._part)

    def _doubted(self) -> tuple[Finding, ...]:
        if self._holding.doubt is None:
            return ()
        count = len(self._holding.doubt.missing)
        text = (
            f"the API server no longer shows {count} of {len(self._holding)} objects of the kind {self._watched.kind}; "
            "they stay in force until a second list agrees"
        )
        return (Finding("ListHeld", self._watched.kind, text, Severity.WARNING),)

    def _barred(self, state: State, error: str) -> tuple[Finding, ...]:
        if state is State.DENIED:
            fix = f"allow get, list and watch of {self._watched.plural} in the API group {self._watched.group!r}"
            return (Finding("KindDenied", self._watched.kind, f"may not be read: {error}", Severity.WARNING, fix),)
        if state is State.ABSENT and not self._watched.may_be_absent:
            fix = "apply the CustomResourceDefinitions of outgate"
            return (
                Finding("KindAbsent", self._watched.kind, "the API server has no such kind", Severity.WARNING, fix),
            )
        return ()
