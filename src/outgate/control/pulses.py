"""Whether nodes are alive: the leader of the cluster role asks each of them, over the network that the cluster's own
traffic takes.

A node is lost when three times in a row nobody answered there, not even with a refusal: 2.4 s after its last sign of
life at most. What it does for packets does not hang on its role's health; a role that does not say for half a minute
that it is well can do nothing new, so its node is lost then too. One that was never asked is not lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from outgate.model.net import Address

INTERVAL_S = 0.6  # between the beginnings of two questions, and how long an answer may take
MISSES = 3
UNWELL = 50  # questions without the answer that all is well
_QUESTION = b"GET /livez HTTP/1.0\r\n\r\n"


class Pulses:
    """Asks nodes as long as they are watched; `changed` is called when one is lost, or found again."""

    def __init__(self, port: int, changed: Callable[[], None]) -> None:
        self._port, self._changed = port, changed
        self._tasks: dict[str, tuple[Address, asyncio.Task[None]]] = {}
        self._lost: set[str] = set()

    @property
    def lost(self) -> frozenset[str]:
        """The nodes that do not answer, by name."""
        return frozenset(self._lost)

    def watch(self, nodes: Mapping[str, Address]) -> None:
        """Ask exactly these nodes from now on; those that were asked already go on as they were."""
        for name in [name for name, (address, _) in self._tasks.items() if nodes.get(name) != address]:
            self._tasks.pop(name)[1].cancel()
            self._lost.discard(name)
        for name, address in nodes.items():
            if name not in self._tasks:
                self._tasks[name] = (address, asyncio.create_task(self._follow(name, address)))

    def close(self) -> None:
        """Ask nobody any more."""
        self.watch({})

    async def _follow(self, name: str, address: Address) -> None:
        loop, misses, unwell = asyncio.get_running_loop(), 0, 0
        while True:
            began = loop.time()
            heard = await _ask(address, self._port)
            misses = 0 if heard is not None else misses + 1
            unwell = 0 if heard else unwell + 1
            is_lost = misses >= MISSES or unwell >= UNWELL
            if is_lost is not (name in self._lost):
                (self._lost.add if is_lost else self._lost.discard)(name)
                self._changed()
            await asyncio.sleep(max(0.0, began + INTERVAL_S - loop.time()))


async def _ask(address: Address, port: int) -> bool | None:
    """Return whether somebody says in time that all is well; None when nobody is there at all."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(INTERVAL_S):
            reader, writer = await asyncio.open_connection(str(address), port)
            writer.write(_QUESTION)
            return b" 200 " in await reader.readline()
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError, ValueError):
        return None if writer is None else False  # the kernel has taken the connection
    finally:
        if writer is not None:
            writer.close()
