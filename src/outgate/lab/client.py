"""The client in a pod: `python -m outgate.lab.client` in a network namespace, with JSON lines for answers.

    fetch ADDRESS [PORT]   {"source": "192.168.55.113", "bytes": 15, "ms": 1.2} or {"error": "EHOSTUNREACH", "ms": 0.3}
    udp ADDRESS [PORT]     {"sent": 20, "answered": 20, "sources": {"192.168.55.113": 20}, "errors": {}}
    hold ADDRESS [PORT]    a flow that goes on until stdin ends and the last answers are there; then the same, and
                           {"gap_ms": 10.4, "alive": true}
    serve                  the same as commands, JSON lines on stdin, each answered when it is done (outgate.lab.agent)

Commands of `serve` carry an `id`, which the answer repeats, what to `do`, and the parameters of the function of that
name; `look` and `stop` name the `flow` by the id of its `hold`. Errors are names of errno(3), or "timeout", or "closed"
when the other side ended without an answer. `gap_ms` is the longest time without an answer. Few imports: it starts in
25 ms.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Result: TypeAlias = dict[str, Any]

_PAGE_PORT, _UDP_PORT, _ECHO_PORT = 8080, 5000, 7000  # as outgate.lab.server listens
_LINGER_S = 0.3  # how long a silence ends the wait for answers to the last datagrams
_RCVBUFFORCE = 33  # SO_RCVBUFFORCE of asm-generic/socket.h; without it 300 waiting answers overflow the socket
_HEAD_LIMIT = 4096  # of a page that is no longer than a source address


def fetch(address: str, port: int = _PAGE_PORT, path: str = "/", timeout_s: float = 2.0) -> Result:
    """Fetch a page over a new connection; `timeout_s` holds for each step. The page "/" is whom the server saw."""
    begun = time.monotonic()
    result: Result = {}
    try:
        with socket.create_connection((address, port), timeout_s) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
            start, size = _page(connection)
        result["bytes"] = size
        if path == "/":
            result["source"] = start.decode().strip()
    except OSError as error:
        result["error"] = _name(error)
    result["ms"] = _ms(time.monotonic() - begun)
    return result


def udp(address: str, port: int = _UDP_PORT, count: int = 20, interval_s: float = 0.01, fresh: bool = False) -> Result:
    """Send datagrams and count the answers. `fresh` sends each from a port of its own, so that each is a new flow."""
    try:
        flow = Flow(address, port, "udp")
    except OSError as error:  # a datagram socket that can not even be connected has no route
        return {"sent": 0, "answered": 0, "sources": {}, "errors": {_name(error): 1}}
    with contextlib.closing(flow):
        for number in range(count):
            if fresh and number:
                flow.open()
            flow.send()
            flow.receive(interval_s)
        flow.linger()
        report = flow.report()
    return {key: report[key] for key in ("sent", "answered", "sources", "errors")}


class Flow:
    """A flow of numbered messages, UDP or TCP, and what became of them."""

    def __init__(self, address: str, port: int, kind: str) -> None:
        """Open it; for TCP, connect.

        Raises:
            OSError: the connection was refused or timed out.
        """
        self.sent = self.answered = 0
        self.alive = True
        self._target = (address, port)
        self._kind = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
        self._sources: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._readable = select.poll()
        self._rest = b""
        self.open()
        self._gap_s, self._heard = 0.0, time.monotonic()

    def open(self) -> None:
        """Go on from another port; answers to the old one still count."""
        family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
        self._socket = socket.socket(family, self._kind)
        self._sockets[self._socket.fileno()] = self._socket
        if self._kind == socket.SOCK_DGRAM:
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 22)
        self._socket.settimeout(2.0)
        self._socket.connect(self._target)
        self._socket.setblocking(False)
        self._readable.register(self._socket, select.POLLIN)

    def run(self, interval_s: float, ended: threading.Event) -> None:
        """Send and receive until told to end, or until a connection breaks."""
        while self.alive and not ended.is_set():
            self.send()
            self.receive(interval_s)

    def send(self) -> None:
        """Send the next message. A datagram socket first hands out an earlier one's error, so it gets two attempts."""
        for _ in range(2 if self._kind == socket.SOCK_DGRAM else 1):
            try:
                self._socket.send(b"%d\n" % self.sent)
            except OSError as error:
                self._note(error)
            else:
                self.sent += 1
                return

    def receive(self, for_s: float) -> None:
        """Take answers for a while, or until a connection breaks."""
        end = time.monotonic() + for_s
        while self.alive:
            for fd, _ in self._readable.poll(max(0.0, end - time.monotonic()) * 1000):
                self._take(self._sockets[fd])
            if time.monotonic() >= end:
                return

    def linger(self) -> None:
        """Take the answers that are still on their way: until all have come, or none came for a while."""
        heard, end = -1, 0.0
        while self.alive and self.heard < self.sent and (self.heard > heard or time.monotonic() < end):
            if self.heard > heard:
                heard, end = self.heard, time.monotonic() + _LINGER_S
            self.receive(0.005)

    @property
    def heard(self) -> int:
        """Messages of which the end is known: answered, or met by an error."""
        return self.answered + sum(self._errors.values())

    def report(self) -> Result:
        """Return what happened so far."""
        return {
            "sent": self.sent,
            "answered": self.answered,
            "sources": dict(self._sources),
            "errors": dict(self._errors),
            "gap_ms": _ms(max(self._gap_s, time.monotonic() - self._heard)),
            "alive": self.alive,
        }

    def close(self) -> None:
        """Close all sockets."""
        for each in self._sockets.values():
            each.close()

    def _take(self, readable: socket.socket) -> None:
        try:
            received = readable.recv(65536)
        except OSError as error:
            self._note(error)
            return
        if not received:
            self._note(ConnectionAbortedError())
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            self._hear(line.split(b" ", 1)[0].decode("latin-1"))

    def _hear(self, source: str) -> None:
        now = time.monotonic()
        self._gap_s, self._heard = max(self._gap_s, now - self._heard), now
        self._sources[source] = self._sources.get(source, 0) + 1
        self.answered += 1

    def _note(self, error: OSError) -> None:
        """Count an error; a connection does not survive one, datagrams do."""
        name = _name(error)
        self._errors[name] = self._errors.get(name, 0) + 1
        self.alive = self._kind == socket.SOCK_DGRAM


class Service:
    """Carries out commands, each in a thread of its own, and writes the answers."""

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._flows: dict[int, tuple[Flow, threading.Event]] = {}
        self._stopped_by: dict[int, int] = {}  # flow, and the command that is answered when it has ended

    def serve(self, lines: Iterable[str]) -> None:
        """Obey the commands of a stream until it ends. What is not done then is not waited for."""
        for line in lines:
            self.obey(json.loads(line))

    def obey(self, command: Mapping[str, Any]) -> None:
        """Start one command. `look` is done when this returns."""
        parameters = dict(command)
        number, deed = parameters.pop("id"), parameters.pop("do")
        match deed:
            case "look":
                self._answer(number, self._flows[parameters["flow"]][0].report())
            case "stop":
                _, ended = self._flows[parameters["flow"]]
                self._stopped_by[parameters["flow"]] = number
                ended.set()
            case "hold":
                threading.Thread(target=self._hold, args=(number,), kwargs=parameters, daemon=True).start()
            case _:
                function = {"fetch": fetch, "udp": udp}[deed]
                threading.Thread(target=self._do, args=(number, function, parameters), daemon=True).start()

    def _do(self, number: int, function: Callable[..., Result], parameters: Mapping[str, Any]) -> None:
        result: Result = {"error": "crashed"}  # the traceback is on stderr
        try:
            result = function(**parameters)
        finally:
            self._answer(number, result)

    def _hold(self, number: int, address: str, port: int, kind: str, interval_s: float) -> None:
        try:
            flow = Flow(address, port, kind)
        except OSError as error:
            self._answer(number, {"error": _name(error)})
            return
        ended = threading.Event()
        self._flows[number] = flow, ended
        self._answer(number, {})
        with contextlib.closing(flow):
            flow.run(interval_s, ended)
            ended.wait()  # a connection that broke is told about when it is asked for
            flow.linger()
            self._answer(self._stopped_by[number], flow.report())

    def _answer(self, number: int, result: Result) -> None:
        with self._writing:
            _print({"id": number, **result})


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; 1 says that nobody answered."""
    deed, *rest = sys.argv[1:] if arguments is None else arguments
    if deed == "serve":
        Service().serve(sys.stdin)
        sys.stdout.flush()
        os._exit(0)  # threads may still wait for the network; nobody waits for them
    return _once(deed, rest)


def _once(deed: str, arguments: Sequence[str]) -> int:
    """Carry out one command; argparse costs 6 ms, which the agents above do without."""
    import argparse

    parser = argparse.ArgumentParser(prog=f"outgate.lab.client {deed}")
    parser.add_argument("address")
    function: Callable[..., Result]
    match deed:
        case "fetch":
            parser.add_argument("port", type=int, nargs="?", default=_PAGE_PORT)
            parser.add_argument("--path", default="/")
            parser.add_argument("--timeout", type=float, default=2.0, dest="timeout_s", metavar="SECONDS")
            function = fetch
        case "udp":
            parser.add_argument("port", type=int, nargs="?", default=_UDP_PORT)
            parser.add_argument("-n", type=int, default=20, dest="count")
            parser.add_argument("-i", type=float, default=0.01, dest="interval_s", metavar="SECONDS")
            parser.add_argument("--fresh", action="store_true", help="each from a port of its own")
            function = udp
        case "hold":
            parser.add_argument("port", type=int, nargs="?", default=_ECHO_PORT)
            parser.add_argument("--kind", choices=("tcp", "udp"), default="tcp")
            parser.add_argument("-i", type=float, default=0.1, dest="interval_s", metavar="SECONDS")
            function = _hold_until_eof
        case _:
            parser.error(f"expected fetch, udp, hold or serve, not {deed!r}")
    result = function(**vars(parser.parse_args(arguments)))
    _print(result)
    return 1 if "error" in result or result.get("answered") == 0 else 0


def _hold_until_eof(address: str, port: int, kind: str, interval_s: float) -> Result:
    """Hold a flow until standard input ends, and say how it went."""
    try:
        flow = Flow(address, port, kind)
    except OSError as error:
        return {"error": _name(error)}
    ended = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    with contextlib.closing(flow):
        flow.run(interval_s, ended)
        flow.linger()
        return flow.report()


def _page(connection: socket.socket) -> tuple[bytes, int]:
    """Return the start of a page and its size in bytes.

    Raises:
        ConnectionAbortedError: the other side ended before the page began.
    """
    start, size = b"", 0
    while received := connection.recv(1 << 16):
        size += len(received)
        if len(start) < _HEAD_LIMIT:
            start += received
    head, end, body = start.partition(b"\r\n\r\n")
    if not end:
        raise ConnectionAbortedError
    return body, size - len(head) - len(end)


def _name(error: OSError) -> str:
    """Return the name of an error for machines."""
    if isinstance(error, TimeoutError):
        return "timeout"
    return errno.errorcode.get(error.errno or 0, "closed")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _print(result: Result) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    sys.exit(main())
