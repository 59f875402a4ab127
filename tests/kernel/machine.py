"""A gateway machine for the kernel tests: inner NIC enp1s0, uplink enp7s0, in a namespace of its own.

Addresses: nodes 192.168.99.0/24 and fd99::/64 by enp1s0, egress 192.168.55.0/24 and fd55::/64 by enp7s0, pods
10.128.0.0/14 and fd01::/48 behind the nodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from outgate.lab.namespace import Namespace
from outgate.model.net import (
    ALL_LINKS,
    OWN_METRIC,
    TENANT_MASK,
    Discard,
    LinkAddress,
    LinkName,
    LinkSetting,
    Mac,
    Mark,
    Prefix,
    Route,
    Rule,
    Setting,
    TenantLink,
    Via,
)
from outgate.model.state import Failure, Reading, Resource
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.outbox import Boundary, no_boundary
from outgate.systems.kernel.read import read
from outgate.systems.kernel.write import write
from outgate.systems.netlink import NetlinkSocket

WITHIN_S = 10.0  # what the kernel does by itself takes milliseconds; this only bounds a failure
ENP1S0, ENP7S0 = LinkName("enp1s0"), LinkName("enp7s0")
NIC_SCRIPT = """
sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
for nic in enp1s0 enp7s0; do
  ip link add $nic type veth peer name peer-$nic
  ip link set peer-$nic up
  ip link set $nic up
done
ip link set lo up
ip address add 192.168.99.1/24 dev enp1s0
ip address add 192.168.55.1/24 dev enp7s0
ip address add fd99::1/64 dev enp1s0 nodad
ip address add fd55::1/64 dev enp7s0 nodad
ip route add default via 192.168.55.254 dev enp7s0
ip route add default via fd55::fe dev enp7s0
"""

BLUE = TenantLink(
    name=LinkName("og-0000b10e"), parent=ENP1S0, mac=Mac("02:e6:00:00:b1:0e"), alternative="og-ns-blue", ipv6=True
)
RED = TenantLink(name=LinkName("og-000004ed"), parent=ENP1S0, mac=Mac("02:e6:00:00:04:ed"), alternative="og-ns-red")
BLUE_HOP = LinkAddress(link=BLUE.name, address=ip_address("192.168.99.13"))
BLUE_HOP6 = LinkAddress(link=BLUE.name, address=ip_address("fd99::13"))
RED_HOP = LinkAddress(link=RED.name, address=ip_address("192.168.99.14"))
EGRESS = LinkAddress(link=ENP7S0, address=ip_address("192.168.55.113"))
EGRESS6 = LinkAddress(link=ENP7S0, address=ip_address("fd55::113"))


def return_route(prefix: str, node: str) -> Route:
    """The way back to a node's pods."""
    return Route(dst=ip_network(prefix), hop=Via(address=ip_address(node), link=ENP1S0), metric=OWN_METRIC)


def prohibit(prefix: str) -> Rule:
    """Unmarked pods go nowhere."""
    pods: Prefix = ip_network(prefix)
    return Rule(priority=110, version=pods.version, src=pods, mark=Mark(0), mask=TENANT_MASK, action=Discard.PROHIBIT)


def setting(link: LinkName, which: Setting, value: int) -> LinkSetting:
    return LinkSetting(link=link, setting=which, value=value)


NODE1, NODE1_V6 = return_route("10.128.0.0/23", "192.168.99.11"), return_route("fd01:0:0:1::/64", "fd99::11")
NODE2, NODE2_V6 = return_route("10.128.2.0/23", "192.168.99.12"), return_route("fd01:0:0:2::/64", "fd99::12")
GUARD, GUARD6 = prohibit("10.128.0.0/14"), prohibit("fd01::/48")
# Everything that a gateway with two tenants holds, in the order in which it is made; settings are no part of `actual`.
GATEWAY: tuple[Resource, ...] = (
    GUARD, GUARD6, EGRESS, EGRESS6, NODE1, NODE1_V6, NODE2, NODE2_V6, BLUE, RED, BLUE_HOP, BLUE_HOP6, RED_HOP,
)  # fmt: skip
SETTINGS = (
    setting(ENP1S0, Setting.ARP_IGNORE, 1),
    setting(ENP7S0, Setting.SRC_VALID_MARK, 1),
    setting(ENP7S0, Setting.ACCEPT_RA, 2),
    setting(ENP1S0, Setting.FORWARDING, 1),
    setting(ALL_LINKS, Setting.FORWARDING6, 1),
)


@dataclass(slots=True)
class Machine:
    """The machine, with a socket inside and the memory of its readings."""

    namespace: Namespace
    socket: NetlinkSocket
    cache: Cache = field(default_factory=Cache)

    def read(self) -> Reading:
        with self.namespace.inside():
            return read(self.socket, self.cache)

    def write(
        self, make: Sequence[Resource], drop: Sequence[Resource] = (), boundary: Boundary = no_boundary
    ) -> tuple[Failure, ...]:
        """Read, then write: a write refers to the reading before it."""
        with self.namespace.inside():
            read(self.socket, self.cache)
            return write(self.socket, self.cache, make, drop, boundary)

    def settle(self) -> None:
        """Wait until the kernel has said all it says about links that came up: carrier, then addresses."""
        deadline = time.monotonic() + WITHIN_S
        while any(link["operstate"] not in ("UP", "UNKNOWN") for link in self.ip("link")):
            assert time.monotonic() < deadline, "a link has no carrier"
        while "tentative" in self.run("ip -6 address"):
            assert time.monotonic() < deadline, "an address is still being looked for on the link"

    def made(self, *resources: Resource) -> None:
        """Write, and insist that all of it was done and is read back."""
        assert self.write(resources) == ()
        missing = [str(resource) for resource in resources if resource not in self.read().actual]
        assert missing == []

    def run(self, script: str) -> str:
        """Do something by shell, as somebody else would."""
        return self.namespace.run(("sh", "-ec", script)).stdout

    def ip(self, *arguments: str) -> list[dict[str, Any]]:
        """What iproute2 shows; it knows none of our code."""
        found = self.namespace.run(("ip", "-j", "-d", *arguments)).stdout
        return list(json.loads(found or "[]"))

    def listing(self) -> dict[str, str]:
        """All that the machine shows to a bystander, as text that can be compared."""
        asked = (
            "link",
            "address",
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule",
            "-6 rule",
            "nexthop",
        )
        return {what: self.run(f"ip -d {what}") for what in asked}


@contextmanager
def machine_in_namespace() -> Iterator[Machine]:
    """A machine with its NICs up, not yet touched by outgate; gone when the block ends."""
    with Namespace("gateway") as namespace:
        namespace.run(("sh", "-ec", NIC_SCRIPT))
        with namespace.inside():
            socket = NetlinkSocket(0)
        with socket:
            made = Machine(namespace, socket)
            made.settle()
            yield made
