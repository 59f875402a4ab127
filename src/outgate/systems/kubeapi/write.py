"""Saying to an API server what became of its objects: the latest counts, and only what differs is sent.

Nothing waits for it. What the server refuses is told as a finding and tried again with the next change; a server that
does not answer is asked again with a growing pause.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from outgate.apiserver.errors import Answered, Conflict, Missing
from outgate.apiserver.server import APPLY, Body, OpenServer, Server
from outgate.model.errors import OutgateError
from outgate.model.intent import Told
from outgate.model.why import Finding, Severity
from outgate.systems.kubeapi import events
from outgate.systems.kubeapi.read import words_of
from outgate.systems.kubeapi.render import News, Subject, applied

_MOST_NEWS = 16  # that wait to be told
_AT_ONCE = 8  # requests in flight: 4,000 statuses at a first start are no storm
_GATHER_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class StatusWriter:
    """Writes what one gateway says of its objects. `offer` and `close` are for one thread; the work is in its own."""

    def __init__(self, open_server: OpenServer, gateway: str) -> None:
        """Describe it; the thread starts with the first offer."""
        self._open_server, self._gateway = open_server, gateway
        self._wanted: Mapping[Subject, Told] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._woken, self._over = asyncio.Event(), asyncio.Event()  # of its loop
        self._news: list[News] = []
        self.findings: tuple[Finding, ...] = ()
        self.written = 0

    def offer(self, words: Mapping[Subject, Told]) -> None:
        """Say this from now on, and nothing else."""
        if words == self._wanted:
            return
        self._wanted = words
        if self._thread is None:
            started = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(started,), name="outgate-status", daemon=True)
            self._thread.start()
            started.wait()
        self._call(self._woken.set)

    def tell(self, news: News) -> None:
        """Write an event, if the server can be reached now; nobody needs old ones."""
        self._news = [*self._news, news][-_MOST_NEWS:]
        self._call(self._woken.set)

    def close(self) -> None:
        """End the thread; what was not said stays unsaid."""
        if self._thread is not None:
            self._call(self._finish)
            self._thread.join()

    def _finish(self) -> None:
        self._over.set()
        self._woken.set()

    def _call(self, function: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(function)

    def _run(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._work(started))
        except OutgateError as error:  # the connection could not be opened
            self._tell(error)
        finally:
            started.set()

    async def _work(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        started.set()
        async with self._open_server() as server:
            said: dict[Subject, Told] | None = None
            pause_s = 0.0
            while not self._over.is_set():
                self._woken.clear()
                try:
                    said = await words_of(server, self._gateway) if said is None else said
                    await self._say(server, said)
                    await self._tell_news(server)
                except OutgateError as error:
                    said = None  # what stands there is not known any more
                    self._tell(error)
                    pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s or _FIRST_PAUSE_S)
                    await self._rest(random.uniform(pause_s / 2, pause_s))
                else:
                    self.findings, pause_s = (), 0.0
                    await self._woken.wait()
                    await self._rest(_GATHER_S)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _say(self, server: Server, said: dict[Subject, Told]) -> None:
        """Send what differs.

        Raises:
            OutgateError: the first of what the server did not take, when all was tried.
        """
        wanted = self._wanted
        changed: dict[Subject, Told | None] = {one: word for one, word in wanted.items() if said.get(one) != word}
        changed |= {one: None for one in said if one not in wanted}
        in_flight, failed = asyncio.Semaphore(_AT_ONCE), list[OutgateError]()

        async def send(subject: Subject, word: Told | None) -> None:
            async with in_flight:
                if self._over.is_set():
                    return
                try:
                    await self._apply(server, subject, word)
                except OutgateError as error:
                    failed.append(error)
                    return
            said.pop(subject, None)
            if word is not None:
                said[subject] = word
                self.written += 1

        await asyncio.gather(*(send(subject, word) for subject, word in changed.items()))
        if failed:
            raise failed[0]

    async def _tell_news(self, server: Server) -> None:
        """Write the events that wait. One that the server refuses is dropped: it says nothing of statuses.

        Raises:
            Unreachable: the server does not answer.
        """
        while self._news:
            news, self._news = self._news[0], self._news[1:]
            with suppress(Answered):
                await events.tell(server, news, (f"outgate-gateway-{self._gateway}", self._gateway))

    async def _apply(self, server: Server, subject: Subject, word: Told | None) -> None:
        query = {"fieldManager": f"outgate-gateway-{self._gateway}", "force": "true"}
        try:
            await server.request("PATCH", subject.path, query=query, body=Body(applied(subject, word), APPLY))
        except (Missing, Conflict):
            return  # it was deleted, or another object has its name now: what was said of it is gone with it

    def _tell(self, error: OutgateError) -> None:
        fix = "allow patch of egresstenants/status and egressgateways/status, or see why the server does not answer"
        text = f"what became of the objects could not be written to the API server: {error}"
        self.findings = (Finding("StatusNotWritten", self._gateway, text, Severity.WARNING, fix),)
