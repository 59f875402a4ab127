"""Send announcements. When, how often and how fast is decided by the caller."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from outgate.model.errors import Unreachable
from outgate.systems.wire.frames import ARP, IPV6, Announcement, announcing
from outgate.systems.wire.nic import has_carrier


class Announcer:
    """A packet socket of the calling thread's network namespace that only sends, through any NIC.

    Raises:
        Unreachable: the socket does not open.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0
            )  # 0: hears nothing
        except OSError as error:
            raise Unreachable(f"a packet socket does not open: {error.strerror}") from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, announcements: Iterable[Announcement]) -> None:
        """Send each announcement through its NIC, all of them before an error is raised.

        Raises:
            Unreachable: some did not leave, because a NIC is gone, down, or without carrier; repeat them.
        """
        tried, failed = 0, []
        for announcement in announcements:
            tried += 1
            try:
                self._send(announcement)
            except OSError as error:
                failed.append(f"{announcement.address} through {announcement.link}: {error.strerror}")
        if failed:
            raise Unreachable(f"{len(failed)} of {tried} announcements did not leave; first {failed[0]}")

    def _send(self, announcement: Announcement) -> None:
        if not has_carrier(self._socket, announcement.link):
            raise OSError(errno.ENETDOWN, "no carrier")
        protocol = ARP if announcement.address.version == 4 else IPV6
        for frame in announcing(announcement):
            self._socket.sendto(frame, (announcement.link, protocol))
