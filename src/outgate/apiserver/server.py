"""One API server over HTTP/1.1: requests and watches, with deadlines that no silence outlasts.

Connections are aiohttp's; what is ours is when something counts as silent, who we are, and what answers mean.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar
from urllib.parse import quote, urlencode
from weakref import WeakSet

import msgspec

from outgate.apiserver.access import Access
from outgate.apiserver.credentials import Credentials, Presented
from outgate.apiserver.errors import Unauthorized, error_of
from outgate.model.errors import Unreachable
from outgate.model.why import Finding

if TYPE_CHECKING:
    import aiohttp

JSON, APPLY, MERGE = "application/json", "application/apply-patch+yaml", "application/merge-patch+json"

_T = TypeVar("_T")
_GOODBYES = 1000  # milliseconds: who does not answer a goodbye within this is left


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent, and its media type."""

    text: bytes
    kind: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource of the API, as its path names it."""

    plural: str
    group: str = ""
    version: str = "v1"

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """Return the path of one object, or of all without a name."""
        start = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = ["namespaces", namespace] if namespace else []
        parts += [self.plural, *([name] if name else []), *([subresource] if subresource else [])]
        return "/".join([start, *(quote(part, safe="") for part in parts)])


class Server(Protocol):
    """What everybody who speaks to an API server needs: one server, or several of one cluster."""

    @property
    def name(self) -> str:
        """The context."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        deadline_s: float = 30.0,
    ) -> bytes:
        """Return the body of an answer with a status below 300; see `ApiServer.request`."""

    def lines(
        self, path: str, *, query: Mapping[str, str], first_byte_s: float, deadline_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a watch; see `ApiServer.lines`."""

    async def cluster_uid(self) -> str:
        """Return the identity of the cluster."""

    def findings(self) -> tuple[Finding, ...]:
        """Return what should be known of the credentials."""


OpenServer: TypeAlias = Callable[[], AbstractAsyncContextManager[Server]]
"""Opens the connection to a cluster inside a thread's own loop, because connections belong to one loop."""


class ApiServer:
    """The server of one context. Made and used in one event loop; close it."""

    def __init__(self, access: Access, credentials: Credentials | None = None) -> None:
        """Describe it; the first request connects."""
        self.access = access
        self.name = access.context
        self.credentials = credentials or Credentials(access)
        self._session: aiohttp.ClientSession | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()

    async def close(self) -> None:
        """Close the connections, and return when they are: one that was cut while it was made says goodbye first."""
        if self._session is not None:
            await self._session.close()
            for _ in range(_GOODBYES):
                if all(one.fileno() < 0 for one in self._sockets):
                    return
                await asyncio.sleep(0.001)

    def findings(self) -> tuple[Finding, ...]:
        """Return what should be known of the credentials."""
        return self.credentials.findings()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        deadline_s: float = 30.0,
    ) -> bytes:
        """Return the body of an answer with a status below 300.

        Credentials that are not taken are read again and presented once more.

        Raises:
            Unreachable: no answer, or `Busy`.
            Answered: the server said no; see `errors`.
        """
        try:
            async with asyncio.timeout(deadline_s), self._answer(method, path, query or {}, body) as answer:
                return bytes(await answer.read())
        except _broken() as error:
            raise self._unreachable(f"{method} {path}", error, deadline_s) from error

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Mapping[str, str], first_byte_s: float, deadline_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch on a connection of its own: whole lines, until the server ends it.

        Raises:
            Unreachable: the headers did not come within `first_byte_s`, or the end not within `deadline_s`; or the
                connection broke.
            Answered: the server said no.
        """
        limit_s = first_byte_s
        try:
            async with (
                asyncio.timeout(first_byte_s) as limit,
                self._answer("GET", path, query, None) as answer,
            ):
                limit_s = deadline_s
                limit.reschedule(asyncio.get_running_loop().time() + deadline_s)
                try:
                    yield _split(answer)
                finally:
                    _cut(answer)
        except _broken() as error:
            raise self._unreachable(f"watch {path}", error, limit_s) from error

    async def cluster_uid(self) -> str:
        """Return the uid of the namespace kube-system: the cluster's identity.

        Raises:
            OutgateError: as `request`.
        """
        path = "/api/v1/namespaces/kube-system"
        return decoded(
            f"{self.access.server}{path}", await self.request("GET", path, deadline_s=5.0), _Named
        ).metadata.uid

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, query: Mapping[str, str], body: Body | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open an answer of success; what the server does not believe, or we not of it, is read again once."""
        asked = f"{method} {self.access.server}{path}"
        for anew in (False, True):
            presented = await self.credentials.present(anew=anew)
            try:
                sent = await self._sent(method, path, query, body, presented)
            except ssl.SSLError:
                if anew:
                    raise
                continue
            async with sent as answer:
                if answer.status < 300:
                    yield answer
                    return
                error = error_of(asked, answer.status, await answer.read(), answer.headers.get("Retry-After", ""))
                if anew or not isinstance(error, Unauthorized):
                    raise error

    async def _sent(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body | None,
        presented: Presented,
    ) -> aiohttp.ClientResponse:
        from multidict import CIMultiDict
        from yarl import URL

        headers = CIMultiDict([("Accept", JSON), *presented.headers])
        if body is not None:
            headers["Content-Type"] = body.kind
        address = URL(self.access.server + path + (f"?{urlencode(query)}" if query else ""), encoded=True)
        return await self._opened().request(
            method,
            address,
            data=body.text if body is not None else None,
            headers=headers,
            ssl=presented.tls if presented.tls is not None else True,
            server_hostname=presented.server_name,
            proxy=self.access.proxy or None,
            allow_redirects=False,
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, socket_factory=self._socket),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
                headers={"User-Agent": "outgate", "Accept-Encoding": "identity"},
                read_bufsize=1 << 18,
            )
        return self._session

    def _socket(self, found: tuple[int, int, int, str, object]) -> socket.socket:
        made = socket.socket(*found[:3])
        self._sockets.add(made)
        return made

    def _unreachable(self, asked: str, error: BaseException, limit_s: float) -> Unreachable:
        words = f"no answer within {limit_s:g} s" if isinstance(error, TimeoutError) else _words(error)
        return Unreachable(f"{self.access.server}: {asked}: {words}")


class _Identity(msgspec.Struct, frozen=True):
    uid: str


class _Named(msgspec.Struct, frozen=True):
    metadata: _Identity


def decoded(where: str, body: bytes, kind: type[_T]) -> _T:
    """Return an answer as a struct.

    Raises:
        Unreachable: it is none: something else than an API server has answered, a proxy perhaps.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Unreachable(f"{where}: the answer is not what an API server says: {error}") from error


def _words(error: BaseException) -> str:
    """Return what went wrong with a connection; aiohttp wraps the system's own words in its own."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(error).split(" ssl:")[0] or repr(error)


def _cut(answer: aiohttp.ClientResponse) -> None:
    """Drop the connection of an answer that was not read to its end; a goodbye would wait for a peer who is silent."""
    connection = answer.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    answer.close()


async def _split(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield whole lines. What the server did not end was cut, and is nothing."""
    rest: Sequence[bytes] = ()
    async for chunk in answer.content.iter_any():
        first, *others = chunk.split(b"\n")
        if not others:
            rest = (*rest, first)
            continue
        yield b"".join((*rest, first))
        for line in others[:-1]:
            yield line
        rest = (others[-1],) if others[-1] else ()


def _broken() -> tuple[type[Exception], ...]:
    """Return what a connection ends with; aiohttp is imported when something is opened."""
    import aiohttp

    return TimeoutError, OSError, aiohttp.ClientError
