"""Netlink framing that every room which speaks netlink shares: headers, attributes, dumps, batches, events.

Knows no family: what a message means is the business of the room that packs it. Sources: RFC 3549, netlink(7),
`Documentation/userspace-api/netlink` and `net/netlink/af_netlink.c` of the kernel. Integers are in host byte order.

A socket belongs to the network namespace of the thread that opened it, and to one thread at a time. It either asks
(`dump`, `ask`, `batch`) or listens (`subscribe`, `events`): an event that arrives amid an answer would be lost.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from outgate.model.errors import NotReady, Refused, Unreachable

REQUEST, ACK, ECHO, DUMP = 0x1, 0x4, 0x8, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NESTED = 0x8000

_DUMP_INTR, _ACK_TLVS = 0x10, 0x200
_NOOP, _ERROR, _DONE = 1, 2, 3
_SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _STRICT_CHK = 270, 1, 10, 11, 12
_SO_RCVBUFFORCE = 33
_ERROR_TEXT = 1
_BUFFER_SIZE = 256 * 1024  # one datagram: dumps use 32 KiB, but one link with many virtual functions takes more
_ANSWER_LIMIT_S = 10  # the kernel answers within sendmsg; a silence means that the answer was lost
_PACKET_BYTES, _PACKET_MESSAGES = 128 * 1024, 500  # fits the default SO_SNDBUF; 500 refusals fit the receive buffer

HEADER_SIZE = 16
_HEADER = struct.Struct("=IHHII")
_FRAME = struct.Struct("=IH")
_ATTR = struct.Struct("=HH")
_INT = struct.Struct("=i")


class DumpInterrupted(NotReady):
    """The table changed while it was read (NLM_F_DUMP_INTR); what was yielded is no reading.

    Links and addresses are watched so, but IPv4 routes and tracked flows are not (measured, Linux 6.18): of those, what
    changes during a dump may be in it or not, and only an event or the next reading tells.
    """


class Overrun(NotReady):
    """Messages were lost because the receive buffer was full (ENOBUFS); only a full reading tells the truth now."""


class Denied(Refused):
    """The kernel said no to one request; `errno` says why for programs, `words` for people."""

    def __init__(self, change: str, code: int, words: str) -> None:
        super().__init__(change, words)
        self.errno = code


class Header(NamedTuple):
    """The header of a message. `port` of an event names the socket whose request caused it (0: the kernel itself)."""

    length: int
    kind: int
    flags: int
    seq: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the kernel said to message number `index` of a batch; `words` are its own behind the text of `errno`."""

    index: int
    errno: int
    words: str


def pack(kind: int, flags: int, payload: bytes) -> bytes:
    """Return one request. The payload is a multiple of 4 bytes; the socket that sends it sets the sequence number."""
    return _HEADER.pack(HEADER_SIZE + len(payload), kind, flags | REQUEST, 0, 0) + payload


def attr(kind: int, content: bytes) -> bytes:
    """Return one attribute, padded to a multiple of 4 bytes."""
    return _ATTR.pack(4 + len(content), kind) + content + bytes(-len(content) & 3)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attr(kind | NESTED, b"".join(attributes))


def header(message: memoryview) -> Header:
    """Return the header of a message as `dump` and `events` yield it; the payload starts at `HEADER_SIZE`."""
    return Header._make(_HEADER.unpack_from(message))


def spans(message: bytes | memoryview, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield (type without its flag bits, start, end) of the content of each attribute between two places."""
    at, stop = start, len(message) if end is None else end
    while at + 4 <= stop:
        size, kind = _ATTR.unpack_from(message, at)
        if size < 4:
            raise Unreachable(f"the kernel sent an attribute of {size} bytes")
        yield kind & 0x3FFF, at + 4, at + size
        at += (size + 3) & ~3


def walk(attributes: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (type without its flag bits, content) of each attribute."""
    for kind, start, end in spans(attributes):
        yield kind, attributes[start:end]


def messages(datagram: bytes) -> Iterator[memoryview]:
    """Yield each message of a datagram, its header included, control messages left out."""
    view, at, end = memoryview(datagram), 0, len(datagram)
    while at < end:
        size, kind = _FRAME.unpack_from(datagram, at)
        if kind > _DONE:
            yield view[at : at + size]
        at += (size + 3) & ~3


def payloads(datagram: bytes) -> list[bytes]:
    """Return what follows the header of each message of a datagram of `NetlinkSocket.datagrams`.

    What equals a payload of an earlier dump means the same, so a reader that keeps these bytes parses only what is new.
    A datagram of equal messages, as long dumps of routes have them, takes 0.05 us a message instead of 0.4.
    """
    step = _stride(datagram)
    if step:
        size, _ = _FRAME.unpack_from(datagram)
        layout = f"{HEADER_SIZE}x{size - HEADER_SIZE}s{step - size}x"
        return [payload for (payload,) in struct.iter_unpack(layout, datagram)]
    found, at, end = [], 0, len(datagram)
    while at < end:
        size, kind = _FRAME.unpack_from(datagram, at)
        if kind > _DONE:
            found.append(datagram[at + HEADER_SIZE : at + size])
        at += (size + 3) & ~3
    return found


class NetlinkSocket:
    """A netlink socket of the calling thread's network namespace.

    Raises:
        Unreachable: the socket does not open, or does not answer.
    """

    def __init__(self, protocol: int, *, receive_buffer: int = 4 * 1024 * 1024) -> None:
        """Open the socket with strict checking of dump filters, short acknowledgements and the kernel's own words."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise Unreachable(f"netlink protocol {protocol} does not open: {error.strerror}") from error
        self._socket.bind((0, 0))
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _ANSWER_LIMIT_S, 0))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:  # who only reads needs no privilege, and gets what net.core.rmem_max allows
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port: int = self._socket.getsockname()[0]
        self._buffer = bytearray(_BUFFER_SIZE)
        self._seq = 0

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a dump that still runs ends in the kernel too."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, readable when events wait."""
        return self._socket.fileno()

    def dump(self, request: bytes) -> Iterator[memoryview]:
        """Send a request of `pack` as a dump and yield each message. Read it to the end, or close the socket.

        Raises:
            DumpInterrupted: at the end; read again.
            Denied: with the kernel's words.
        """
        for datagram in self.datagrams(request):
            yield from messages(datagram)

    def ask(self, request: bytes) -> list[memoryview]:
        """Send one request that is no dump, and return what it is answered with (nothing, for most).

        Raises:
            Denied: with the kernel's words.
        """
        return [message for datagram in self.datagrams(request, flags=ACK) for message in messages(datagram)]

    def datagrams(self, request: bytes, *, flags: int = DUMP) -> Iterator[bytes]:
        """Yield an answer as it arrives, some 32 KiB of whole messages at a time: `dump` for those who stride.

        Raises:
            DumpInterrupted: at the end; read again.
            Denied: with the kernel's words.
        """
        self._seq += 1
        size, kind, asked, _, _ = _HEADER.unpack_from(request)
        self._send(_HEADER.pack(size, kind, asked | flags, self._seq, 0) + request[HEADER_SIZE:])
        change, seen, code, words = f"netlink request of type {kind}", 0, -1, ""
        while code < 0:
            datagram, at = self._receive(), 0
            while at < len(datagram):
                size, kind, told, seq, _ = _HEADER.unpack_from(datagram, at)
                if seq != self._seq:
                    break  # what a reader before us left unread
                seen |= told
                if kind in (_DONE, _ERROR):
                    code, words = _verdict(datagram[at:])
                    break
                at = len(datagram) if at == 0 and _stride(datagram) else at + ((size + 3) & ~3)
            if at:
                yield datagram[:at]
        if code:
            raise Denied(change, code, words)
        if seen & _DUMP_INTR:
            raise DumpInterrupted(f"{change}: the table changed while it was read")

    def batch(self, requests: Iterable[bytes]) -> list[Refusal]:
        """Send many requests of `pack` in few system calls, in order; return the refusals (none: all were done).

        One that fails does not stop those behind it. The kernel answers a request without ACK flag only when it fails,
        so each packet ends with one empty message that asks for an acknowledgement, and success costs nothing.
        """
        refusals: list[Refusal] = []
        first = 0
        for packet in _packets(requests):
            refusals += self._batch(packet, first)
            first += len(packet)
        return refusals

    def _batch(self, requests: list[bytes], first: int) -> Iterator[Refusal]:
        start = self._seq + 1
        self._seq = start + len(requests)
        packet = bytearray().join([*requests, _HEADER.pack(HEADER_SIZE, _NOOP, REQUEST | ACK, self._seq, 0)])
        words, at = memoryview(packet).cast("I"), 2
        for seq, request in enumerate(requests, start):
            words[at] = seq
            at += len(request) >> 2
        self._send(packet)
        seq = 0
        while seq != self._seq:
            datagram = self._receive()
            _, kind, _, seq, _ = _HEADER.unpack_from(datagram)
            if kind == _ERROR and start <= seq < self._seq:
                code, text = _verdict(datagram)
                if code:
                    yield Refusal(index=first + seq - start, errno=code, words=text)

    def subscribe(self, groups: Iterable[int]) -> None:
        """Join multicast groups by number (RTNLGRP_*, NFNLGRP_*)."""
        for group in groups:
            try:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            except OSError as error:
                raise Unreachable(f"netlink group {group} can not be joined: {error.strerror}") from error

    def events(self) -> Iterator[memoryview]:
        """Yield the messages that wait, without blocking.

        Raises:
            Overrun: some were lost; read everything again.
        """
        while datagram := self._receive(socket.MSG_DONTWAIT):
            yield from messages(datagram)

    def _send(self, packet: bytes | bytearray) -> None:
        try:
            self._socket.send(packet)
        except OSError as error:
            raise Unreachable(f"netlink does not take a request: {error.strerror}") from error

    def _receive(self, flags: int = 0) -> bytes:
        """Return the next datagram of the kernel; b"" when none waits and the flags say not to wait."""
        sender, size, told = -1, 0, 0
        while sender != 0:
            try:
                size, _, told, (sender, _) = self._socket.recvmsg_into([self._buffer], 0, flags)
            except BlockingIOError:
                if flags & socket.MSG_DONTWAIT:
                    return b""
                raise Unreachable(f"netlink gave no answer for {_ANSWER_LIMIT_S} s") from None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overrun("netlink messages were lost: the receive buffer was full") from error
                raise Unreachable(f"netlink can not be read: {error.strerror}") from error
        if told & socket.MSG_TRUNC:
            raise Unreachable(f"a netlink datagram is longer than {_BUFFER_SIZE} bytes")
        return bytes(memoryview(self._buffer)[:size])


def _packets(requests: Iterable[bytes]) -> Iterator[list[bytes]]:
    packet: list[bytes] = []
    size = 0
    for request in requests:
        if len(packet) == _PACKET_MESSAGES or (packet and size + len(request) > _PACKET_BYTES):
            yield packet
            packet, size = [], 0
        packet.append(request)
        size += len(request)
    if packet:
        yield packet


def _stride(datagram: bytes) -> int:
    """Return the distance of the messages when all have the length, type and flags of the first one; else 0.

    If what stands one length behind a header has the same length, it is the next header, and so on to the end.
    """
    size, kind = _FRAME.unpack_from(datagram)
    step = (size + 3) & ~3
    count, rest = divmod(len(datagram), step)
    if rest or kind <= _DONE:
        return 0
    return step if all(datagram[at::step] == datagram[at : at + 1] * count for at in range(8)) else 0


def _verdict(message: bytes) -> tuple[int, str]:
    """Return errno (0: done) and the words of an NLMSG_ERROR or NLMSG_DONE at the start of `message`."""
    _, kind, flags, _, _ = _HEADER.unpack_from(message)
    code = -_INT.unpack_from(message, HEADER_SIZE)[0]
    if code <= 0:
        return 0, ""
    texts: list[str] = []
    if flags & _ACK_TLVS:
        at = HEADER_SIZE + 4 + (HEADER_SIZE if kind == _ERROR else 0)  # an error quotes the header that it answers
        said = walk(memoryview(message)[at:])
        texts = [bytes(text).rstrip(bytes(1)).decode(errors="replace") for kind, text in said if kind == _ERROR_TEXT]
    return code, ": ".join([os.strerror(code), *texts])
