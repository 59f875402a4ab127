"""A live flow, as the kernel's connection tracking knows it.

The kernel keeps two tuples of a flow: what the first packet said, and what a reply must say to belong to it. Where they
do not mirror each other, an address was translated; the reply's destination is the source that the outside world sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outgate.model.net import Address

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6", 132: "sctp", 47: "gre", 33: "dccp"}

# Bits of `status`, linux/netfilter/nf_conntrack_common.h
SEEN_REPLY, ASSURED, CONFIRMED, SRC_NAT, DST_NAT = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5


class TcpState(Enum):
    """Where a TCP flow stands, in the kernel's order and words."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """One direction of a flow. Ports are 0 where the protocol has none; with ICMP both are the identifier."""

    src: Address
    src_port: int
    dst: Address
    dst_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One entry of connection tracking.

    `original` is the direction of the first packet, `reply` the one that answers. `icmp` is type * 256 + code of the
    first packet. `timeout_s` is how long the entry lives on without a packet. `packets` and `bytes` sum both ways, None
    where the kernel does not count (net.netfilter.nf_conntrack_acct). `id` tells an entry from a later one with equal
    tuples; 0 when unknown.
    """

    protocol: int
    original: Endpoints
    reply: Endpoints
    mark: int = 0
    zone: int = 0
    status: int = 0
    timeout_s: int = 0
    tcp_state: TcpState | None = None
    icmp: int | None = None
    packets: int | None = None
    bytes: int | None = None
    id: int = 0

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.original.src.version

    def __str__(self) -> str:
        sent, answered = self.original, self.reply
        name = _PROTOCOLS.get(self.protocol, f"protocol {self.protocol}")
        source, seen = _spot(sent.src, sent.src_port), _spot(answered.dst, answered.dst_port)
        return f"{name} {source} to {_spot(sent.dst, sent.dst_port)}" + (f" as {seen}" if seen != source else "")


def _spot(address: Address, port: int) -> str:
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
