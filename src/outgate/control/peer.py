"""Who asks at the daemon's socket, and what they may ask: the kernel's word, never the caller's own.

Root may do all. Members of the group `outgate` may look. Members of `outgate-admin`, where that group exists, may
change too. Source: unix(7), SO_PEERCRED and SO_PEERGROUPS.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import Enum

from outgate.control.place import READERS, group_id
from outgate.model.errors import OutgateError

CHANGERS = "outgate-admin"

_CREDENTIALS = struct.Struct("=iII")
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
_GROUPS_SIZE = 1024  # bytes: what Python's getsockopt takes at most, 256 groups


class NotAllowed(OutgateError):
    """The caller has no right to what was asked."""


class Right(Enum):
    """What a verb does to the gateway."""

    LOOK = "looks at"
    CHANGE = "changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other end, as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]

    def __str__(self) -> str:
        return f"uid {self.uid} (groups {', '.join(map(str, sorted(self.groups)))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The groups that may look and change, by number; None where there is no such group."""

    lookers: int | None
    changers: int | None

    def may_change(self, peer: Peer) -> bool:
        """Whether a peer may do all."""
        return peer.uid == 0 or self.changers in peer.groups

    def check(self, peer: Peer, right: Right, verb: str) -> None:
        """Let a peer pass.

        Raises:
            NotAllowed: the peer may not; the text says who it is and what is needed.
        """
        if self.may_change(peer) or (right is Right.LOOK and self.lookers in peer.groups):
            return
        groups = [(CHANGERS, self.changers)] if right is Right.CHANGE else [(READERS, self.lookers)]
        needed = [
            f"the group {name}" + ("" if number is not None else " (not on this machine)") for name, number in groups
        ]
        raise NotAllowed(
            f"`{verb}` {right.value} the gateway and needs root or {' or '.join(needed)}; you are {peer}. As root: "
            f"usermod -aG {groups[0][0]} NAME"
        )


def rights() -> Rights:
    """Return the rights of this machine. Asked once: looking up a group may wait for a directory server."""
    return Rights(lookers=group_id(READERS), changers=group_id(CHANGERS))


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end. Of a user in more than 256 groups only the first group counts."""
    pid, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        others = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError:
        others = b""
    return Peer(pid=pid, uid=uid, groups=frozenset({gid, *(number for (number,) in struct.iter_unpack("=I", others))}))
