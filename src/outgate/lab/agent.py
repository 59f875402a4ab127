"""An agent in a namespace: one process that fetches pages, sends datagrams and holds flows, many at a time.

It is started by its first command (25 ms) and spares each later one the start of a process. Methods may be called from
any thread; they wait for the answer. It ends when its standard input closes, so it never outlives its owner.
"""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal, TypeAlias

from outgate.lab.addresses import Address
from outgate.lab.namespace import Namespace, python_module, stop

Kind: TypeAlias = Literal["tcp", "udp"]

_PORTS: Mapping[Kind, int] = {"tcp": 7000, "udp": 5000}  # the first echoing ones of outgate.lab.server
_GRACE_S = 10.0  # what a busy machine may add to the time that a command takes by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of fetching a page: whom the server saw, or the name of the error. `size` in bytes."""

    source: Address | None = None
    error: str | None = None
    size: int = 0
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoed:
    """What came of datagrams or of a flow: how many were answered, as whom the server saw them, errors by name.

    `gap_ms` is the longest time without an answer, and `alive` whether a flow goes on; both of flows only.
    """

    sent: int
    answered: int
    sources: Mapping[Address, int]
    errors: Mapping[str, int]
    gap_ms: float = 0.0
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """A flow that an agent keeps up."""

    agent: Agent = field(repr=False)
    number: int

    def look(self) -> Echoed:
        """Return how it goes; the flow goes on."""
        return _echoed(self.agent.ask("look", flow=self.number))

    def stop(self) -> Echoed:
        """End the flow and return how it went."""
        return _echoed(self.agent.ask("stop", flow=self.number))


class Agent:
    """The owner's end of the agent in one namespace."""

    def __init__(self, net: Namespace) -> None:
        """Prepare it; the process starts with the first command."""
        self._net = net
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started."""
        return self._child.pid if self._child else None

    def fetch(self, address: Address, *, port: int = 8080, path: str = "/", timeout_s: float = 2.0) -> Fetched:
        """Fetch a page over a new connection. `timeout_s` holds for each step: to connect, to send, to receive."""
        waited = {"address": str(address), "port": port, "path": path, "timeout_s": timeout_s}
        answer = self.ask("fetch", within_s=3 * timeout_s, **waited)
        source = answer.get("source")
        return Fetched(
            source=ip_address(source) if source else None,
            error=answer.get("error"),
            size=answer.get("bytes", 0),
            ms=answer["ms"],
        )

    def udp(
        self, address: Address, *, port: int = 5000, count: int = 20, interval_s: float = 0.01, fresh: bool = False
    ) -> Echoed:
        """Send datagrams and count the answers. `fresh` sends each from a port of its own: each is a new flow."""
        sending = {"address": str(address), "port": port, "count": count, "interval_s": interval_s, "fresh": fresh}
        return _echoed(self.ask("udp", within_s=count * interval_s, **sending))

    def hold(self, address: Address, *, kind: Kind = "tcp", port: int | None = None, interval_s: float = 0.05) -> Held:
        """Open a flow that sends a message each interval, and return when it is open.

        Raises:
            ConnectionError: the connection was not made; the message is the name of the error.
        """
        flow = next(self._numbers)
        target = {"address": str(address), "port": port or _PORTS[kind]}
        answer = self._ask(flow, "hold", 2.0, {**target, "kind": kind, "interval_s": interval_s})
        if "error" in answer:
            raise ConnectionError(answer["error"])
        return Held(self, flow)

    def ask(self, deed: str, *, within_s: float = 0.0, **parameters: object) -> dict[str, Any]:
        """Have a command of `outgate.lab.client serve` carried out and return its answer.

        `within_s` is the time that the command takes by itself.

        Raises:
            RuntimeError: the agent has ended.
            TimeoutError: it did not answer in time.
        """
        return self._ask(next(self._numbers), deed, within_s, parameters)

    def close(self) -> None:
        """End the process. A later command would start a new one."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        if self._reader is not None:
            self._reader.join()  # before its stream is closed under it
        stop(child)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, number: int, deed: str, within_s: float, parameters: Mapping[str, object]) -> dict[str, Any]:
        answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            child = self._child = self._child or self._start()
            self._waiting[number] = answers
            assert child.stdin is not None
            child.stdin.write(json.dumps({"id": number, "do": deed, **parameters}) + "\n")
            child.stdin.flush()
        try:
            answer = answers.get(timeout=within_s + _GRACE_S)
        except queue.Empty:
            raise TimeoutError(f"the agent in {self._net.name} did not answer {deed}") from None
        finally:
            self._waiting.pop(number, None)
        if answer is None:
            raise RuntimeError(f"the agent in {self._net.name} ended during {deed}")
        return answer

    def _start(self) -> subprocess.Popen[str]:
        command = python_module("outgate.lab.client", "serve")
        child = self._net.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, tied=False)
        self._reader = threading.Thread(target=self._read, args=(child,), daemon=True, name=f"agent {self._net.name}")
        self._reader.start()
        return child

    def _read(self, child: subprocess.Popen[str]) -> None:
        """Hand each answer to whoever waits for it; at the end, tell all who still wait that there will be none."""
        assert child.stdout is not None
        for line in child.stdout:
            answer = json.loads(line)
            waiting = self._waiting.get(answer.pop("id"))
            if waiting is not None:
                waiting.put(answer)
        for waiting in list(self._waiting.values()):
            waiting.put(None)


def _echoed(answer: Mapping[str, Any]) -> Echoed:
    return Echoed(
        sent=answer["sent"],
        answered=answer["answered"],
        sources={ip_address(source): count for source, count in answer["sources"].items()},
        errors=dict(answer["errors"]),
        gap_ms=answer.get("gap_ms", 0.0),
        alive=answer.get("alive", True),
    )
