"""What OVN-Kubernetes notes about a node's NICs: by which stack its pods leave, and which addresses its host has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outgate.model.net import Address, Prefix


class GatewayMode(Enum):
    """How a node's ordinary pods leave: by the host's stack, or by the gateway router and br-ex alone."""

    LOCAL = "local"  # `routingViaHost: true`
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class HostCidr:
    """An address of a node's host network and the network that it is in."""

    address: Address
    network: Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudNic:
    """What a cloud lets a node's first NIC take: in which networks, and how many addresses; None: any number.

    `capacity` counts both families together, `by_version` has the limits of one: 4 or 6, and the number.
    """

    networks: tuple[Prefix, ...] = ()
    capacity: int | None = None
    by_version: tuple[tuple[int, int], ...] = ()
