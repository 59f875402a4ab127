"""The addresses of the laboratory: the picture of an OpenShift cluster with one external egress gateway, dual stack.

    pods 10.132.k.0/24 -- worker n(k+1) .21+k --+                             +-- ext .1 and .13 -- 203.0.113.9
                                                |                             |
                              inner LAN 192.168.99.0/24 -- .12 gw .12 -- uplink LAN 192.168.55.0/24

Everything is a function of small numbers (a worker's index, a tenant's number, a pod's host number), so that tests and
manifests can say an address before it exists. IPv6 hosts carry the digits of their IPv4 brother: .21 is fd99::21.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network

CLUSTER: tuple[Prefix, ...] = (IPv4Network("10.132.0.0/14"), IPv6Network("fd01::/48"))
CLUSTER_HOST_PREFIX = (24, 64)  # of the part of CLUSTER that each worker gets, IPv4 and IPv6
SERVICES: tuple[Prefix, ...] = (IPv4Network("172.30.0.0/16"), IPv6Network("fd02::/112"))
LAN4, LAN6 = IPv4Network("192.168.99.0/24"), IPv6Network("fd99::/64")
WAN4, WAN6 = IPv4Network("192.168.55.0/24"), IPv6Network("fd55::/64")

INNER_LINK, UPLINK = "enp1s0", "enp7s0"  # of the gateway machine
INNER_MAC, UPLINK_MAC = "52:54:00:a4:4f:32", "52:54:00:73:38:f7"
INNER4, INNER6 = IPv4Address("192.168.99.12"), IPv6Address("fd99::12")
LAN_ROUTER4, LAN_ROUTER6 = IPv4Address("192.168.99.1"), IPv6Address("fd99::1")  # leads nowhere: a wrong default route
LAN_SERVER4, LAN_SERVER6 = IPv4Address("192.168.99.5"), IPv6Address("fd99::5")
UPLINK4, UPLINK6 = IPv4Address("192.168.55.12"), IPv6Address("fd55::12")
ROUTER4, ROUTER6 = IPv4Address("192.168.55.1"), IPv6Address("fd55::1")  # the default route of the gateway machine
SERVER4, SERVER6 = IPv4Address("192.168.55.13"), IPv6Address("fd55::13")  # a server on the uplink LAN itself
OUTSIDE4, OUTSIDE6 = IPv4Address("203.0.113.9"), IPv6Address("2001:db8:113::9")  # a server beyond the router

_FIRST_POD = 5  # what comes before is the cluster's: router, management port
_TENANTS = 8  # next hops .13 to .20 lie between the gateway machine and the first worker
_WORKERS = 64  # .21 to .84


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAddresses:
    """Where a worker node is, and the subnets of its pods."""

    v4: IPv4Address
    v6: IPv6Address
    pods4: IPv4Network
    pods6: IPv6Network

    def pod(self, host: int) -> tuple[IPv4Address, IPv6Address]:
        """Return the addresses of the pod with this host number; in IPv6 too it is read as decimal digits."""
        return self.pods4[host], IPv6Address(f"{self.pods6[0]}{host}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantAddresses:
    """What one namespace is promised: by which next hop its pods leave, and as whom they are seen outside."""

    namespace: str
    next_hop4: IPv4Address
    next_hop6: IPv6Address
    egress4: IPv4Address
    egress6: IPv6Address


def worker(index: int) -> WorkerAddresses:
    """Return the addresses of the worker with this index, from 0.

    Raises:
        ValueError: the LAN has no room for it.
    """
    if not 0 <= index < _WORKERS:
        raise ValueError(f"worker {index} is outside 0..{_WORKERS - 1}")
    digits = 21 + index
    return WorkerAddresses(
        v4=LAN4[digits],
        v6=IPv6Address(f"fd99::{digits}"),
        pods4=IPv4Network(f"10.132.{index}.0/24"),
        pods6=IPv6Network(f"fd01:0:0:{index + 1:x}::/64"),
    )


def tenant(number: int, namespace: str) -> TenantAddresses:
    """Return the addresses of the tenant with this number, from 0: the first two are those of the picture.

    Raises:
        ValueError: the LAN has no room for its next hop.
    """
    if not 0 <= number < _TENANTS:
        raise ValueError(f"tenant {number} ({namespace}) is outside 0..{_TENANTS - 1}")
    return TenantAddresses(
        namespace=namespace,
        next_hop4=LAN4[13 + number],
        next_hop6=IPv6Address(f"fd99::{13 + number}"),
        egress4=WAN4[113 + number],
        egress6=IPv6Address(f"fd55::{113 + number}"),
    )


def free_host(taken: Sequence[int]) -> int:
    """Return the host number for a worker's next pod: no number is used twice, unless somebody asks for it."""
    return max(taken, default=_FIRST_POD - 1) + 1
