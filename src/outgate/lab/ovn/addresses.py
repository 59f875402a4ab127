"""The addresses of the OVN laboratory: a small OVN-Kubernetes cluster whose nodes have two NICs, dual stack.

    pods 10.128.k.0/24 -- node n(k+1) .21+k --+-- primary LAN 192.168.99.0/24 --+-- .1 (eth0), .2 (eth2) ext
                                              +-- secondary LAN 192.168.55.0/24 +-- .1 (eth1)             |
                                                                                   203.0.113.10, 203.0.113.20

`ext` is the router of both LANs and everything beyond. Its second NIC on the primary LAN stands for another router
there, to which static routes lead. IPv6 hosts carry the digits of their IPv4 brother: .21 is fd99::21.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network
Pair: TypeAlias = tuple[IPv4Address, IPv6Address]

CLUSTER: tuple[IPv4Network, IPv6Network] = (IPv4Network("10.128.0.0/14"), IPv6Network("fd01::/48"))
SERVICES: tuple[IPv4Network, IPv6Network] = (IPv4Network("172.30.0.0/16"), IPv6Network("fd02::/112"))
JOIN: tuple[IPv4Network, IPv6Network] = (IPv4Network("100.64.0.0/16"), IPv6Network("fd98::/64"))
TRANSIT: tuple[IPv4Network, IPv6Network] = (IPv4Network("100.88.0.0/16"), IPv6Network("fd97::/64"))
PRIMARY: tuple[IPv4Network, IPv6Network] = (IPv4Network("192.168.99.0/24"), IPv6Network("fd99::/64"))
SECONDARY: tuple[IPv4Network, IPv6Network] = (IPv4Network("192.168.55.0/24"), IPv6Network("fd55::/64"))

BRIDGE, SECONDARY_NIC, MANAGEMENT_PORT = "br-ex", "eth1", "ovn-k8s-mp0"  # of every node
CLUSTER_ROUTER = "ovn_cluster_router"


def _pair(v4: str, v6: str) -> Pair:
    return IPv4Address(v4), IPv6Address(v6)


ROUTER = _pair("192.168.99.1", "fd99::1")  # the default route of the nodes and of their gateway routers
OTHER_ROUTER = _pair("192.168.99.2", "fd99::2")
SECONDARY_ROUTER = _pair("192.168.55.1", "fd55::1")
OUTSIDE = _pair("203.0.113.10", "2001:db8:113::10")  # the one that only default routes reach
PARTNER = _pair("203.0.113.20", "2001:db8:113::20")  # the one to which static routes are made
PRIMARY_EGRESS = _pair("192.168.99.150", "fd99::150")
SECONDARY_EGRESS = _pair("192.168.55.150", "fd55::150")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddresses:
    """Where a node is: on its two LANs, in the join and transit networks, and the subnets of its pods."""

    name: str
    number: int  # from 0

    @property
    def router(self) -> str:
        """The name of its gateway router."""
        return f"GR_{self.name}"

    @property
    def primary(self) -> Pair:
        """On br-ex, shared by the host and the gateway router."""
        return PRIMARY[0][21 + self.number], ip6("fd99::", 21 + self.number)

    @property
    def secondary(self) -> Pair:
        """On the second NIC."""
        return SECONDARY[0][21 + self.number], ip6("fd55::", 21 + self.number)

    @property
    def subnets(self) -> tuple[IPv4Network, IPv6Network]:
        """Of its pods. The first address is the cluster router's, the second the management port's."""
        return IPv4Network(f"10.128.{self.number}.0/24"), IPv6Network(f"fd01:0:0:{self.number + 1:x}::/64")

    @property
    def gateway(self) -> Pair:
        """The cluster router, as pods know it."""
        return self.subnets[0][1], self.subnets[1][1]

    @property
    def management(self) -> Pair:
        """The node's own address in its pod subnet: the way from OVN into the host."""
        return self.subnets[0][2], self.subnets[1][2]

    @property
    def join(self) -> Pair:
        """Of the gateway router, on the switch that joins it with the cluster router."""
        return JOIN[0][2 + self.number], JOIN[1][2 + self.number]

    @property
    def transit(self) -> Pair:
        """Of the zone's cluster router, on the switch that joins the zones."""
        return TRANSIT[0][2 + self.number], TRANSIT[1][2 + self.number]

    def pod(self, number: int) -> Pair:
        """Return the addresses of a pod, from 0."""
        return self.subnets[0][5 + number], ip6(str(self.subnets[1][0]), 5 + number)


def ip6(network: str, digits: int) -> IPv6Address:
    """Return an address of a network whose last group reads like decimal digits."""
    address = ip_address(f"{network}{digits}")
    assert isinstance(address, IPv6Address)
    return address


def mac_of(address: IPv4Address) -> str:
    """Return the MAC address that OVN-Kubernetes derives from an address."""
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in address.packed)
