"""Which new flows from outside an egress IP takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Protocol(Enum):
    """Protocols that `allowInbound` names."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"  # echo and the rest of ICMP or ICMPv6, by the address's family


@dataclass(frozen=True, slots=True)
class InboundAllowance:
    """New flows from outside that the machine with the egress IP may answer itself. Port 0: no ports (ICMP)."""

    protocol: Protocol
    port: int = 0
