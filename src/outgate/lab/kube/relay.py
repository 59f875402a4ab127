"""A way to the API server on the machine's loopback from a network namespace, which has a loopback of its own.

A socket belongs for ever to the namespace where it was made: the relay listens in the namespace, on the very address
and port of the server, and connects outside, from one thread. So a kubeconfig is good in both places, TLS goes through
untouched, and what befalls the server is felt inside: a refused, a cut and a silent connection each as what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

from outgate.lab.namespace import Namespace

_LOOPBACK = "127.0.0.1"
_CHUNK = 1 << 18
_BACKLOG = 512


@contextlib.contextmanager
def relay(namespace: Namespace, port: int) -> Iterator[None]:
    """Make the port of the machine's 127.0.0.1 reachable inside a namespace, as the same port of its 127.0.0.1.

    The namespace's loopback has to be up.

    Raises:
        OSError: the port is taken inside.
    """
    with namespace.inside():
        listening = socket.create_server((_LOOPBACK, port), backlog=_BACKLOG)
    loop = asyncio.new_event_loop()
    carrying = threading.Thread(target=_carry, args=(loop, listening, port), name=f"relay-{port}")
    carrying.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        carrying.join()
        loop.close()


def _carry(loop: asyncio.AbstractEventLoop, listening: socket.socket, port: int) -> None:
    """Serve until the loop is stopped, then cut everything."""
    conversations: set[asyncio.Task[None]] = set()

    async def connected(inner: asyncio.StreamReader, to_inner: asyncio.StreamWriter) -> None:
        conversations.add(task := _current_task())
        try:
            await _join(inner, to_inner, port)
        except asyncio.CancelledError:  # the end; streams of Python 3.11 would print a traceback of it
            to_inner.transport.abort()
        finally:
            conversations.discard(task)

    asyncio.set_event_loop(loop)
    server = loop.run_until_complete(asyncio.start_server(connected, sock=listening, limit=_CHUNK))
    loop.run_forever()
    server.close()
    for task in conversations:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*conversations, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())


async def _join(inner: asyncio.StreamReader, to_inner: asyncio.StreamWriter, port: int) -> None:
    """Connect outside and pass on what comes from either end until one ends; a refusal is passed on as a reset."""
    try:
        outer, to_outer = await asyncio.open_connection(_LOOPBACK, port, limit=_CHUNK)
    except OSError:
        to_inner.transport.abort()
        return
    ways = [asyncio.ensure_future(_pass_on(inner, to_outer)), asyncio.ensure_future(_pass_on(outer, to_inner))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        to_inner.close()
        to_outer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on bytes until there are no more, or an end is gone."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
