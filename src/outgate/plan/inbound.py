"""What an allowance for new flows from outside is in nftables: for gateways and for nodes alike."""

from __future__ import annotations

from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.net import Address
from outgate.model.ruleset import Element


def allowance_element(sets: tuple[str, str], address: Address, allowance: InboundAllowance) -> Element:
    """Return the element that allows it at an egress IP. `sets` are those of ports and of protocols without ports."""
    ports, protocols = (f"{name}{address.version}" for name in sets)
    if allowance.protocol is Protocol.ICMP:
        return Element(protocols, (address, "icmp" if address.version == 4 else "ipv6-icmp"))
    return Element(ports, (address, allowance.protocol.value.lower(), allowance.port))
