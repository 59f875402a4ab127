"""Opening what a role was told to speak to: one context, or several of one cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from outgate.apiserver.access import Access
from outgate.apiserver.failover import FailOver
from outgate.apiserver.renewal import keep_renewed
from outgate.apiserver.server import ApiServer


@asynccontextmanager
async def opened(accesses: Sequence[Access]) -> AsyncIterator[FailOver]:
    """Open the contexts of one cluster, keep their service accounts' tokens renewed meanwhile, and close them.

    A token in a pod is renewed by its kubelet, and one that is given as text has no place to be written to.
    """
    async with AsyncExitStack() as stack:
        servers = []
        for access in accesses:
            server = ApiServer(access)
            stack.push_async_callback(server.close)
            servers.append(server)
        renewing = [
            asyncio.create_task(keep_renewed(server, server.access.token_file))
            for server in servers
            if server.access.token_file is not None and server.access.context != "in-cluster"
        ]
        try:
            yield FailOver(servers)
        finally:
            for task in renewing:
                task.cancel()
            await asyncio.gather(*renewing, return_exceptions=True)
