"""Ask whether anybody has an address before it is used, and notice when somebody claims one that is ours later on.

Duplicate detection is that of RFC 5227 for IPv4 and RFC 4862 for IPv6, quicker than there: an address is free when
nobody answered several probes and one more interval. Nothing is ever defended by a fight; whoever answers is reported.

One socket per protocol, because a socket for all protocols would clone every packet that leaves the NIC. The kernel
filters, so that a busy NIC does not wake us: all ARP, and of IPv6 neighbour solicitations and advertisements only.
"""

from __future__ import annotations

import ctypes
import errno
import heapq
import select
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from outgate.model.errors import Unreachable
from outgate.model.net import Address, LinkName, Mac
from outgate.systems.wire.frames import ARP, IPV6, Heard, hear, probing, shown
from outgate.systems.wire.nic import has_carrier, index
from outgate.systems.wire.pace import Pace

_SOL_PACKET, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 263, 1, 2
_MR_MULTICAST, _MR_ALLMULTI = 0, 2
_SO_ATTACH_FILTER = 26
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ETHERNET = 1  # ARPHRD_ETHER
_FRAME_SIZE = 2048
_FRAMES_AT_ONCE = 1000  # then others of the same thread get their turn

# Classic BPF (linux/filter.h) as (code, jump if true, jump if false, constant): keep IPv6 with next header ICMPv6 (58)
# and type 135 or 136, drop the rest.
_DISCOVERY_ONLY = (
    (0x30, 0, 0, 14 + 6),
    (0x15, 0, 4, 58),
    (0x30, 0, 0, 14 + 40),
    (0x15, 1, 0, 135),
    (0x15, 0, 1, 136),
    (0x06, 0, 0, _FRAME_SIZE),
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Somebody else has, claims, or probes for an address of ours; `mac` is theirs."""

    address: Address
    mac: Mac


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """What time has done: the addresses that proved free, and when to tick again (None: nothing is probed)."""

    free: tuple[Address, ...]
    next_s: float | None


@dataclass(slots=True)
class _Question:
    """An address that is being probed, and how many probes have left."""

    address: Address
    asked: int = 0


class Prober:
    """Probes addresses through one NIC, and watches those that are ours, in the calling thread's network namespace.

    It holds no clock: times are monotonic seconds that the caller brings. Call `receive` when the descriptor is
    readable, and `tick` after `start` and at the time that the last `tick` named.

    Raises:
        Unreachable: the link is gone, is no Ethernet link, or does not let us listen; make another one later.
    """

    def __init__(self, link: LinkName, *, probes: int = 3, interval_s: float = 0.3, rate_per_s: float = 200.0) -> None:
        """Probe each address so often, with such pauses; the rate, in frames per second, is for all together."""
        self.link = link
        self._probes, self._interval_s, self._pace = probes, interval_s, Pace(rate_per_s)
        self._poll = select.epoll()
        self._sockets, self._index = _listening(link)
        for each in self._sockets.values():
            self._poll.register(each.fileno(), select.EPOLLIN)
        self._questions: dict[Address, _Question] = {}
        self._queue: list[tuple[float, int, _Question]] = []  # a heap: due, order of starting, question
        self._started = 0
        self._held: frozenset[Address] = frozenset()
        self._own_macs: frozenset[Mac] = frozenset()
        self._eager = False

    def fileno(self) -> int:
        """Return the descriptor, readable when frames wait."""
        return self._poll.fileno()

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets.values():
            each.close()
        self._poll.close()

    @property
    def mac(self) -> Mac:
        """The NIC's own MAC, as it is now."""
        return shown(self._sockets[4].getsockname()[4])

    @property
    def carries(self) -> bool:
        """Whether frames can leave; not where the link is gone, or another one has its name now."""
        asked = self._sockets[4]
        try:
            return self.is_there and has_carrier(asked, self.link)
        except OSError:
            return False

    @property
    def is_there(self) -> bool:
        """Whether the link has its name still; otherwise nothing is heard any more, and another prober is needed."""
        try:
            return index(self._sockets[4], self.link) == self._index
        except OSError:
            return False

    @property
    def probed(self) -> frozenset[Address]:
        """The addresses that have no verdict yet."""
        return frozenset(self._questions)

    def hold(self, addresses: Collection[Address], macs: Collection[Mac]) -> None:
        """Watch exactly these addresses as ours from now on; frames from these MACs, or from the NIC's, are our own."""
        self._held, self._own_macs = frozenset(addresses), frozenset(macs)

    def start(self, addresses: Iterable[Address], now_s: float) -> None:
        """Begin to probe addresses; those that are being probed already go on. Then `tick`."""
        for address in addresses:
            if address not in self._questions:
                self._started += 1
                question = self._questions[address] = _Question(address)
                heapq.heappush(self._queue, (now_s, self._started, question))
        self._hear_all_multicast()

    def stop(self, addresses: Iterable[Address]) -> None:
        """Give up probing addresses: nobody wants their verdict any more."""
        for address in addresses:
            self._questions.pop(address, None)
        self._hear_all_multicast()

    def receive(self) -> list[Conflict]:
        """Read the frames that wait and return the conflicts in them, which end the probing of these addresses."""
        conflicts: dict[Conflict, None] = {}
        for each in self._sockets.values():
            for frame in _frames(each):
                heard = hear(frame)
                if heard is not None and self._contradicts(heard):
                    conflicts[Conflict(address=heard.address, mac=heard.mac)] = None
        self.stop(conflict.address for conflict in conflicts)
        return list(conflicts)

    def tick(self, now_s: float) -> Ticked:
        """Send the probes that are due, as far as the rate allows, and return what is free by now.

        A probe that can not leave, because the NIC is down, has no carrier, or is full, does not count: silence would
        prove nothing.

        Raises:
            Unreachable: the link is gone.
        """
        free: list[Address] = []
        while self._queue and self._queue[0][0] <= now_s:
            _, order, question = self._queue[0]
            going_on = self._questions.get(question.address) is question
            if going_on and question.asked < self._probes:
                if not self._pace.take(now_s):
                    break
                question.asked += self.ask(question.address)
                heapq.heapreplace(self._queue, (now_s + self._interval_s, order, question))
                continue
            heapq.heappop(self._queue)
            if going_on:
                del self._questions[question.address]
                free.append(question.address)
        self._hear_all_multicast()
        return Ticked(free=tuple(free), next_s=self._pace.next_s(self._queue[0][0]) if self._queue else None)

    def _contradicts(self, heard: Heard) -> bool:
        if heard.mac in self._own_macs or heard.mac == self.mac:
            return False
        return heard.address in self._questions or (heard.address in self._held and not heard.asking)

    def ask(self, address: Address, *, at: Mac | None = None) -> bool:
        """Send one probe with the NIC's own MAC, to which the answer will come; say whether it left.

        `at` is who is known to have the address, to ask nobody else; None asks all. An answer is heard when the
        address is held.

        Raises:
            Unreachable: the link is gone.
        """
        out = self._sockets[address.version]
        try:
            if not has_carrier(out, self.link):
                return False
            out.send(probing(address, self.mac, at=at))
        except OSError as error:
            if error.errno in (errno.ENETDOWN, errno.ENOBUFS, errno.EAGAIN):
                return False
            raise Unreachable(f"{self.link} is gone: {error.strerror}") from error
        return True

    def _hear_all_multicast(self) -> None:
        """While IPv6 addresses are probed, hear others who probe for them too: they ask groups that we are not in."""
        wanted = any(address.version == 6 for address in self._questions)
        if wanted != self._eager:
            self._eager = wanted
            try:
                _membership(self._sockets[6], _ADD_MEMBERSHIP if wanted else _DROP_MEMBERSHIP, _MR_ALLMULTI)
            except OSError as error:
                raise Unreachable(f"{self.link} is gone: {error.strerror}") from error


def _listening(link: LinkName) -> tuple[dict[int, socket.socket], int]:
    """Return the sockets for IPv4 and IPv6 on a link, and its number; no socket hears before its filter is in place."""
    opened: dict[int, socket.socket] = {}
    try:
        for version, protocol in ((4, ARP), (6, IPV6)):
            opened[version] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            if version == 6:
                _attach(opened[version], _DISCOVERY_ONLY)
            opened[version].bind((link, protocol))
            if opened[version].getsockname()[3] != _ETHERNET:
                raise OSError(errno.EAFNOSUPPORT, "it is no Ethernet link")
        _membership(opened[6], _ADD_MEMBERSHIP, _MR_MULTICAST, _ALL_NODES_MAC)
        number = index(opened[6], link)
    except OSError as error:
        for each in opened.values():
            each.close()
        raise Unreachable(f"{link} can not be listened on: {error.strerror}") from error
    return opened, number


def _attach(to: socket.socket, program: Iterable[tuple[int, int, int, int]]) -> None:
    lines = [struct.pack("=HBBI", *line) for line in program]
    code = ctypes.create_string_buffer(b"".join(lines))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(lines), ctypes.addressof(code)))


def _membership(member: socket.socket, change: int, kind: int, group: bytes = b"") -> None:
    """Let the NIC pass frames to multicast MACs that the kernel's own addresses do not ask for."""
    number = index(member, LinkName(member.getsockname()[0]))
    member.setsockopt(_SOL_PACKET, change, struct.pack("=iHH8s", number, kind, len(group), group))


def _frames(waiting: socket.socket) -> Iterator[bytes]:
    for _ in range(_FRAMES_AT_ONCE):
        try:
            yield waiting.recv(_FRAME_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENETDOWN:  # told once when the link went down; it may come back
                raise Unreachable(f"a packet socket can not be read: {error.strerror}") from error
