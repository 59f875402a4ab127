"""What else of a cluster has a say about packets that leave: the words, as far as EgressIP needs them.

Only what decides about destinations outside the cluster is kept: selectors of peers inside say nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outgate.model.net import Address, Prefix
from outgate.model.selector import Labels, LabelSelector


@dataclass(frozen=True, slots=True)
class Ports:
    """A range of ports of one protocol; an empty protocol is any, and a first port 0 means all ports."""

    protocol: str = ""  # tcp, udp or sctp
    first: int = 0
    last: int = 0

    def holds(self, protocol: str, port: int) -> bool | None:
        """Return whether a packet fits; None where nobody has said its protocol or port and that decides."""
        if self.protocol and protocol != self.protocol:
            return None if not protocol else False
        if not self.first:
            return True
        return self.first <= port <= self.last if port else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallRule:
    """One rule of an EgressFirewall: for a range, a DNS name, or the addresses of nodes."""

    allows: bool
    cidr: Prefix | None = None
    name: str = ""
    ports: tuple[Ports, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressFirewall:
    """An EgressFirewall: the first rule that fits decides; without one the packet passes."""

    namespace: str
    name: str
    rules: tuple[FirewallRule, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A range of addresses that a NetworkPolicy allows, without some."""

    cidr: Prefix
    excepts: tuple[Prefix, ...] = ()

    def __contains__(self, address: Address) -> bool:
        return _holds(self.cidr, address) and not any(_holds(one, address) for one in self.excepts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One egress rule of a NetworkPolicy: to any destination, or to these ranges; peers inside are left out."""

    anywhere: bool
    blocks: tuple[Block, ...] = ()
    ports: tuple[Ports, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """A NetworkPolicy that limits what pods may send. `pods` None: all of the namespace."""

    namespace: str
    name: str
    pods: LabelSelector | None
    rules: tuple[PolicyRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressService:
    """An EgressService with its Service's selector: `by_address`, the pods behind it leave with the Service's address.

    `pods` empty: the Service is not known. `host` is the node that takes them, empty while there is none.
    """

    namespace: str
    name: str
    by_address: bool
    pods: Labels = ()
    addresses: tuple[Address, ...] = ()
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QosRule:
    """One rule of an EgressQoS. `cidr` None: any destination; `pods` None: all of the namespace."""

    dscp: int
    cidr: Prefix | None = None
    pods: LabelSelector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressQos:
    """An EgressQoS: the first rule that fits gives packets their DSCP."""

    namespace: str
    name: str
    rules: tuple[QosRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """A RouteAdvertisements object that makes the default network's pod subnets known outside."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudAddress:
    """A CloudPrivateIPConfig: which node the cloud is asked to give an address to, and what it says. `assigned` None:
    nothing yet.
    """

    address: Address
    wanted: str
    node: str = ""
    assigned: bool | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """All of them. `unknown` are kinds that could not be read, each with why."""

    firewalls: tuple[EgressFirewall, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    services: tuple[EgressService, ...] = ()
    qos: tuple[EgressQos, ...] = ()
    advertisements: tuple[Advertisement, ...] = ()
    cloud: tuple[CloudAddress, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()


class Fate(Enum):
    """What an object does to a packet."""

    DROPS = "drops it"
    MAY_DROP = "may drop it"
    PASSES = "lets it pass"
    TAKES = "takes it"  # another way, with another source
    YIELDS = "yields"  # to the EgressIP
    MARKS = "marks it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """What one object says to one packet, in the order in which OVN-Kubernetes asks them."""

    about: str
    fate: Fate
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The packet that is asked about. Port 0 and an empty protocol: nobody has said."""

    destination: Address
    protocol: str = ""
    port: int = 0


NO_RIVALS = Rivals()


def _holds(prefix: Prefix, address: Address) -> bool:
    return prefix.version == address.version and address in prefix
