"""The server outside: `python -m outgate.lab.server` in a network namespace. It tells everybody as whom it sees them.

    http   GET /          the client's source address and a line end; logged as a JSON line on stderr
           GET /bytes/N   N bytes instead (1 GiB at most), for measuring rates; logged too
    udp    a datagram     "SOURCE PORT " and the datagram, sent from the address that it was sent to
    echo   each line      "SOURCE PORT " and the line; the connection stays until the client ends it

It prints "ready" and its process id once it listens on all ports, IPv4 and IPv6. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import re
import socket
import struct
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

Conversation: TypeAlias = Callable[[StreamReader, StreamWriter], Awaitable[None]]

_GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)  # the ways in which a client may end it
_CHUNK = b"." * 65536
_PAGE_LIMIT = 1 << 30
_BYTES = re.compile(r"/bytes/(\d{1,10})")
_PKTINFO = struct.calcsize("16sI")  # struct in6_pktinfo: address, link
_BACKLOG = 1024
_RCVBUFFORCE = 33  # SO_RCVBUFFORCE of asm-generic/socket.h, which the socket module lacks


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until killed, or until standard input ends if that is asked for."""
    parser = argparse.ArgumentParser(prog="outgate.lab.server", description="Say to everybody as whom they are seen.")
    parser.add_argument("--http", type=ports, default=ports("80,8080-8095"), metavar="PORTS")
    parser.add_argument("--udp", type=ports, default=ports("5000-5031"), metavar="PORTS")
    parser.add_argument("--echo", type=ports, default=ports("7000-7015"), metavar="PORTS")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    asyncio.run(serve(parser.parse_args(arguments)))
    return 0


def ports(text: str) -> tuple[int, ...]:
    """Return the ports of a list such as `80,8080-8095`."""
    spans = [part.partition("-") for part in text.split(",") if part]
    return tuple(port for first, _, last in spans for port in range(int(first), int(last or first) + 1))


async def serve(options: argparse.Namespace) -> None:
    """Listen on all ports, say so, and stay."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    held: list[object] = []  # listeners, for as long as this runs
    for talk, numbers in ((page, options.http), (echo, options.echo)):
        for port in numbers:
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
            held.append(await asyncio.start_server(_ended_by_client(talk), sock=listener))
    for port in options.udp:
        receiver = datagram_socket(port)
        loop.add_reader(receiver, functools.partial(answer, receiver))
    if options.until_eof:
        loop.add_reader(sys.stdin, lambda: None if os.read(sys.stdin.fileno(), 4096) else ended.set())
    print("ready", os.getpid(), flush=True)
    await ended.wait()


async def page(reader: StreamReader, writer: StreamWriter) -> None:
    """Answer one web request and close."""
    head = await reader.readuntil(b"\r\n\r\n")
    path = head.split(b" ", 2)[1].decode("latin-1") if head.count(b" ") > 1 else "?"
    source, _ = plain(writer.get_extra_info("peername"))
    record = {"source": source, "port": writer.get_extra_info("sockname")[1], "path": path}
    print(json.dumps(record), file=sys.stderr)
    wanted = _BYTES.fullmatch(path)
    body = b"" if wanted else f"{source}\n".encode()
    filler = min(int(wanted[1]), _PAGE_LIMIT) if wanted else 0
    writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body) + filler}\r\n"
        f"Connection: close\r\n\r\n".encode()
        + body
    )
    for start in range(0, filler, len(_CHUNK)):
        writer.write(_CHUNK[: filler - start])
        await writer.drain()
    await writer.drain()


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    """Answer lines until the client ends the connection."""
    source, port = plain(writer.get_extra_info("peername"))
    prefix = f"{source} {port} ".encode()
    while line := await reader.readline():
        writer.write(prefix + line)
        await writer.drain()


def datagram_socket(port: int) -> socket.socket:
    """Return a socket for both families that is told which address a datagram was sent to."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 22)  # else a burst of 300 overflows it and looks like a loss
    made.setblocking(False)
    made.bind(("::", port))
    return made


def answer(receiver: socket.socket) -> None:
    """Answer the datagrams that wait, each from the address it was sent to: to NAT another one would be a stranger."""
    with contextlib.suppress(OSError):  # nothing waits any more, or no way back to that client
        while True:
            payload, ancillary, _, client = receiver.recvmsg(65535, socket.CMSG_SPACE(_PKTINFO))
            source, port = plain(client)
            told = [(level, kind, value[:16] + bytes(4)) for level, kind, value in ancillary]
            receiver.sendmsg([f"{source} {port} ".encode(), payload], told, 0, client)


def plain(peer: tuple[Any, ...]) -> tuple[str, int]:
    """Return address and port of a socket's peer; IPv4 arrives on sockets of both families as ::ffff:a.b.c.d."""
    return str(peer[0]).removeprefix("::ffff:"), int(peer[1])


def _ended_by_client(talk: Conversation) -> Conversation:
    """Return the conversation made to end quietly whenever and however its client ends it."""

    async def whole(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(*_GONE):
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(*_GONE):
            await writer.wait_closed()

    return whole


if __name__ == "__main__":
    sys.exit(main())
