"""What a packet socket asks the kernel about a NIC, by the socket: its network namespace is meant (netdevice(7))."""

from __future__ import annotations

import fcntl
import socket
import struct

from outgate.model.net import LinkName

_SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8933
_NUMBER = struct.Struct("=16si20x")  # struct ifreq with an int in its union
_FLAGS = struct.Struct("=16sH22x")  # and with a short
_RUNNING = 0x40  # administratively up, with carrier


def index(asked: socket.socket, link: LinkName) -> int:
    """Return the number of a link.

    Raises:
        OSError: there is no such link.
    """
    number: int = _NUMBER.unpack(fcntl.ioctl(asked, _SIOCGIFINDEX, _NUMBER.pack(link.encode(), 0)))[1]
    return number


def has_carrier(asked: socket.socket, link: LinkName) -> bool:
    """Say whether frames can leave. Without carrier the kernel drops them and says that they were sent.

    Raises:
        OSError: there is no such link.
    """
    flags: int = _FLAGS.unpack(fcntl.ioctl(asked, _SIOCGIFFLAGS, _FLAGS.pack(link.encode(), 0)))[1]
    return bool(flags & _RUNNING)
