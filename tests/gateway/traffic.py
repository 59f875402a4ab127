"""Traffic from every pod that costs a millisecond: sockets are made in the pods' namespaces, and stay there.

Each pod has one flow that stands, as old as this, and sends from a new port beside it. The port that packets go to
tells whose they are, so the counter outside tells as whom each tenant was seen.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from outgate.lab import addresses
from outgate.lab.addresses import Address
from outgate.lab.node import Pod
from outgate.lab.topology import Laboratory

FIRST_PORT = 5001  # of the first namespace; the server outside answers on 5000 to 5031
TARGETS = {4: addresses.OUTSIDE4, 6: addresses.OUTSIDE6}
Seen = Mapping[str, set[Address]]  # as whom, by namespace


@dataclass(slots=True)
class Sender:
    """One pod's sockets towards the outside in one family."""

    pod: Pod
    version: int
    port: int
    standing: socket.socket = field(init=False)
    fresh: socket.socket | None = None
    seen: set[Address] = field(default_factory=set)  # as whom the fresh flow was seen, as the answers say

    def __post_init__(self) -> None:
        self.standing = self._open()

    def send(self) -> None:
        """Send on the standing flow and on a new one."""
        self.close_fresh()
        self.fresh = self._open()
        _send(self.standing)
        _send(self.fresh)

    def is_answered(self) -> bool:
        """Send once more on the new flow, and return whether it was ever answered."""
        assert self.fresh is not None
        _send(self.fresh)
        return bool(self.listen())

    def listen(self) -> set[Address]:
        """Return as whom the new flow was seen so far."""
        assert self.fresh is not None
        with contextlib.suppress(OSError):
            while answer := self.fresh.recv(200):
                self.seen.add(ip_address(answer.split(b" ", 1)[0].decode()))
        return self.seen

    def close(self) -> None:
        """Close the sockets."""
        self.close_fresh()
        self.standing.close()

    def close_fresh(self) -> None:
        """End the new flow."""
        if self.fresh is not None:
            self.fresh.close()
        self.fresh, self.seen = None, set()

    def _open(self) -> socket.socket:
        family = socket.AF_INET if self.version == 4 else socket.AF_INET6
        with self.pod.net.inside():
            opened = socket.socket(family, socket.SOCK_DGRAM)
        opened.setblocking(False)
        opened.connect((str(TARGETS[self.version]), self.port))
        return opened


class Traffic:
    """The traffic of all pods of a laboratory."""

    def __init__(self, lab: Laboratory) -> None:
        self.ports = {tenant.namespace: FIRST_PORT + number for number, tenant in enumerate(lab.tenants)}
        self.senders = [Sender(pod, version, self.ports[pod.namespace]) for pod in lab.pods for version in (4, 6)]
        self._lab = lab

    def send(self) -> None:
        """Let every pod send, on its standing flow and on a new one."""
        for sender in self.senders:
            sender.send()

    def of(self, node: str, namespaces: Iterable[str]) -> list[Sender]:
        """Return the senders of these namespaces' pods on a worker."""
        return [one for one in self.senders if one.pod.node == node and one.pod.namespace in set(namespaces)]

    def seen(self) -> dict[str, set[Address]]:
        """Return as whom each namespace was ever seen outside, by the counter there."""
        found: dict[str, set[Address]] = {namespace: set() for namespace in self.ports}
        of_port = {port: namespace for namespace, port in self.ports.items()}
        for source, port in self._lab.outside.seen_by_port():
            if port in of_port:
                found[of_port[port]].add(source)
        return found

    def close(self) -> None:
        """End all flows."""
        for sender in self.senders:
            sender.close()


def _send(opened: socket.socket) -> None:
    """Send a packet. The socket hands out an earlier one's error first, so there are two attempts."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            opened.send(b"?\n")
            return
