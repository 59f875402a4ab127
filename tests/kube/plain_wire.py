"""A wire to an API server in sixty lines: one connection per request, HTTP/1.1 and chunks, over asyncio's own streams.
It is what the reflectors are tried against where the sentence under test is about them and not about transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

from outgate.lab.kube import ControlPlane
from outgate.model.errors import OutgateError
from outgate.sources.kube.source import OpenWire
from outgate.sources.kube.wire import Trouble

TROUBLES = {401: Trouble.AUTH, 403: Trouble.DENIED, 404: Trouble.ABSENT, 410: Trouble.GONE}


class Answered(OutgateError):
    """The server answered with a status that is no success; 0: it did not answer."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status} {words}")
        self.status = status


class PlainWire:
    """Requests to a control plane as one of its users, by the token that its file holds now."""

    def __init__(self, port: int, ca: Path, token_file: Path) -> None:
        self.name = "lab"
        self._port, self._ca, self._token_file = port, ca, token_file

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, deadline_s: float = 30.0
    ) -> bytes:
        try:
            async with asyncio.timeout(deadline_s), self._answer(method, path, query or {}) as chunks:
                return b"".join([chunk async for chunk in chunks])
        except (TimeoutError, OSError, EOFError) as error:
            raise Answered(0, repr(error)) from error

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Mapping[str, str], first_byte_s: float, deadline_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            async with asyncio.timeout(first_byte_s) as limit, self._answer("GET", path, query) as chunks:
                limit.reschedule(asyncio.get_running_loop().time() + deadline_s)
                yield _split(chunks)
        except (TimeoutError, OSError, EOFError) as error:
            raise Answered(0, repr(error)) from error

    async def cluster_uid(self) -> str:
        found = json.loads(await self.request("GET", "/api/v1/namespaces/kube-system", deadline_s=2.0))
        return str(found["metadata"]["uid"])

    def trouble(self, error: OutgateError) -> Trouble:
        return TROUBLES.get(error.status, Trouble.UNREACHABLE) if isinstance(error, Answered) else Trouble.UNREACHABLE

    @asynccontextmanager
    async def _answer(self, method: str, path: str, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        tls = ssl.create_default_context(cafile=str(self._ca))
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=tls, limit=1 << 24)
        try:
            head = f"{method} {path}?{urlencode(query)} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            writer.write(f"{head}Authorization: Bearer {self._token_file.read_text()}\r\n\r\n".encode())
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            if status >= 300:
                raise Answered(status, (await reader.read(500)).decode())
            yield _chunks(reader) if b"transfer-encoding: chunked" in headers else _rest(reader)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]


async def _rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    yield await reader.read(-1)


async def _split(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


def opened(plane: ControlPlane, user: str) -> OpenWire:
    """Return what opens a wire to a plane as a user."""

    @asynccontextmanager
    async def _open() -> AsyncIterator[PlainWire]:
        yield PlainWire(plane.port, plane.ca, plane.token_file(user))

    return _open
