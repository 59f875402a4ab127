"""Several ways to one cluster: who does not answer is passed over, and who leads elsewhere is never used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from outgate.apiserver.server import ApiServer, Body
from outgate.model.errors import OutgateError, Unreachable
from outgate.model.why import Finding, Severity


class FailOver:
    """The contexts of one cluster, the preferred one first. Used in one event loop.

    The one in use is kept until it does not answer. Before another one is used, it must show the uid of the cluster
    that the first one showed.
    """

    def __init__(self, servers: Sequence[ApiServer]) -> None:
        """Take at least one."""
        self._servers = list(servers)
        self._current = 0
        self._uid = ""
        self._strangers: dict[str, Finding] = {}

    @property
    def name(self) -> str:
        """The context that is in use."""
        return self._servers[self._current].name

    def findings(self) -> tuple[Finding, ...]:
        """Return what should be known of all contexts."""
        found = (finding for server in self._servers for finding in server.findings())
        return (*found, *self._strangers.values())

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        deadline_s: float = 30.0,
    ) -> bytes:
        """Ask the one in use, and the others when it does not answer.

        Raises:
            OutgateError: as `ApiServer.request`; Unreachable when none answers.
        """
        tried = self._current
        try:
            return await self._servers[tried].request(method, path, query=query, body=body, deadline_s=deadline_s)
        except Unreachable as error:
            server = await self._moved_on(tried, error)
        return await server.request(method, path, query=query, body=body, deadline_s=deadline_s)

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Mapping[str, str], first_byte_s: float, deadline_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Watch by the one in use; what breaks is told, and the next watch may use another one.

        Raises:
            OutgateError: as `ApiServer.lines`.
        """
        tried = self._current
        try:
            async with self._servers[tried].lines(
                path, query=query, first_byte_s=first_byte_s, deadline_s=deadline_s
            ) as lines:
                yield lines
        except Unreachable as error:
            await self._moved_on(tried, error)
            raise

    async def cluster_uid(self) -> str:
        """Return the identity of the cluster; the first answer binds the other contexts.

        Raises:
            OutgateError: none answers.
        """
        tried = self._current
        try:
            uid = await self._servers[tried].cluster_uid()
        except Unreachable as error:
            uid = await (await self._moved_on(tried, error)).cluster_uid()
        self._uid = self._uid or uid
        return uid

    async def _moved_on(self, tried: int, error: Unreachable) -> ApiServer:
        """Return the server to use after one did not answer.

        Raises:
            Unreachable: there is none; the error of the one that was tried.
        """
        if tried != self._current:
            return self._servers[self._current]  # somebody moved on meanwhile
        for step in range(1, len(self._servers)):
            number = (tried + step) % len(self._servers)
            if await self._is_same_cluster(self._servers[number]):
                self._current = number
                return self._servers[number]
        raise error

    async def _is_same_cluster(self, server: ApiServer) -> bool:
        try:
            uid = await server.cluster_uid()
        except OutgateError:
            return False
        if self._uid and uid != self._uid:
            text = f"the context {server.name} leads to the cluster {uid}, the others to {self._uid}; it is not used"
            fix = "name contexts of one cluster only"
            self._strangers[server.name] = Finding("OtherCluster", server.name, text, Severity.WARNING, fix)
            return False
        self._strangers.pop(server.name, None)
        self._uid = uid
        return True
