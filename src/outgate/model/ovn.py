"""Rows of OVN's northbound database, in OVN's words, as frozen values. A row of ours bears the key of what wants it.

Source: ovn-nb(5).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from outgate.model.net import Address, Prefix

OWNER = "outgate.io/owner"  # in external_ids: role, kind and key of what wants the row; OVN-Kubernetes has no such id


class Action(Enum):
    """What a policy does with a packet that it matches."""

    ALLOW = "allow"
    DROP = "drop"
    REROUTE = "reroute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A Logical_Router_Policy: of the policies whose `match` holds, the one of the highest priority decides."""

    router: str
    priority: int
    match: str
    action: Action
    next_hops: tuple[Address, ...] = ()  # of a reroute; several: by a hash of the flow
    packet_mark: int = 0
    owner: str = field(default="", compare=False)  # empty: not ours

    @property
    def slot(self) -> Hashable:
        """One per router, priority and match."""
        return ("policy", self.router, self.priority, self.match)

    def __str__(self) -> str:
        hops = f" {', '.join(map(str, self.next_hops))}" if self.next_hops else ""
        mark = f" pkt_mark={self.packet_mark}" if self.packet_mark else ""
        return f"policy {self.router} {self.priority} {self.match} {self.action.value}{hops}{mark}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snat:
    """A NAT of type snat on a router: packets from `inside` leave it as `outside`."""

    router: str
    inside: Prefix
    outside: Address
    port: str = ""  # logical_port, a mere tag on a gateway router
    owner: str = field(default="", compare=False)

    @property
    def slot(self) -> Hashable:
        """One per router and inside."""
        return ("snat", self.router, self.inside)

    def __str__(self) -> str:
        return f"snat {self.router} {self.inside} to {self.outside}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalRoute:
    """A Logical_Router_Static_Route of a router, in its main table."""

    router: str
    prefix: Prefix
    next_hop: str  # an address, or `discard`
    by_source: bool = False  # the prefix is compared with the packet's source
    port: str = ""
    owner: str = field(default="", compare=False)

    @property
    def slot(self) -> Hashable:
        """One per router, prefix and what it is compared with."""
        return ("logical route", self.router, self.prefix, self.by_source)

    def __str__(self) -> str:
        return f"route {self.router} {self.prefix} via {self.next_hop}" + (" by source" if self.by_source else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMember:
    """An address or prefix in an Address_Set of ours, which matches name as `$NAME`. A set without members is none."""

    set: str
    member: Prefix

    @property
    def slot(self) -> Hashable:
        """One per set and member."""
        return ("member", self.set, self.member)

    def __str__(self) -> str:
        return f"set ${self.set} {{ {self.member} }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QosMark:
    """A row of QoS of a logical switch: packets from its ports that match get a packet mark."""

    switch: str
    priority: int
    match: str
    mark: int
    owner: str = field(default="", compare=False)

    @property
    def slot(self) -> Hashable:
        """One per switch, priority and match."""
        return ("qos", self.switch, self.priority, self.match)

    def __str__(self) -> str:
        return f"qos {self.switch} {self.priority} {self.match} mark={self.mark}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DropAcl:
    """An ACL of a logical switch: packets to its ports that match are dropped."""

    switch: str
    priority: int
    match: str
    owner: str = field(default="", compare=False)

    @property
    def slot(self) -> Hashable:
        """One per switch, priority and match."""
        return ("acl", self.switch, self.priority, self.match)

    def __str__(self) -> str:
        return f"acl {self.switch} {self.priority} {self.match} drop"


OvnRow: TypeAlias = Policy | Snat | LogicalRoute | QosMark | DropAcl | SetMember
