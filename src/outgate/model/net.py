"""Links, addresses, routes and policy rules, in the kernel's words.

Everything here is a frozen value: two routes that mean the same thing are equal and hash alike, whether they were
planned or read back from the kernel. Links are named, never numbered; an ifindex exists only inside `outgate.systems`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import NewType, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network

LinkName = NewType("LinkName", str)
TableId = NewType("TableId", int)
Mark = NewType("Mark", int)
Mac = NewType("Mac", str)  # six lower-case hex pairs: "02:e6:00:11:22:33"

MAIN = TableId(254)
OWN_PROTOCOL = 0x6F  # rtm_protocol, FRA_PROTOCOL, nexthop protocol of what outgate writes (unassigned in rt_protos)
OWN_METRIC = (
    0x6F  # metric of outgate's routes: protocol is no part of a route's key, so ours stand in a slot of their own
)
OWN_TABLES = range(6_000_000, 7_000_000)  # route tables of outgate's alone: the first and a NIC's ifindex
NO_MARK = Mark(0)
TENANT_MASK = Mark(0x00FFFF00)  # the field of a tenant in fwmark and ct mark
SLOT_MASK = Mark(0x000000FF)  # which of the tenant's egress IPs a packet gets; 0 is the first
OWN_MASK = Mark(TENANT_MASK | SLOT_MASK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An inclusive range of addresses of one family; the unit of nftables intervals."""

    first: Address
    last: Address

    def __contains__(self, address: Address) -> bool:
        return address.version == self.first.version and int(self.first) <= int(address) <= int(self.last)

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Via:
    """Next hop: a router with an address on a link. It compares by `_key`, for the reason that `Route` gives."""

    address: Address
    link: LinkName
    _key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        key = b"v%d " % self.address.version + self.address.packed + self.link.encode()
        object.__setattr__(self, "_key", key)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Via) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return f"via {self.address} dev {self.link}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnLink:
    """Next hop: the destination itself, on a link."""

    link: LinkName

    def __str__(self) -> str:
        return f"dev {self.link}"


class Discard(Enum):
    """Next hop: none; what the sender is told differs."""

    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"
    THROW = "throw"

    def __str__(self) -> str:
        return self.value


NextHop: TypeAlias = Via | OnLink | Discard


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """One FIB entry. A route of several next hops is several of these, one per leg, in one slot.

    `weight` says how often a leg is taken beside the others (1 to 256); 0: it is the only one. So a leg whose others
    came or went is another value, and one look at it says whether there are others.

    Equality and hash go by `_key`, bytes that say the same as the fields: comparing 100,000 wanted routes with 100,000
    that were read takes 0.06 s that way, and 0.3 s by the fields, because networks and addresses compare in Python. For
    that reason the slot is the first part of it.
    """

    dst: Prefix
    hop: NextHop
    table: TableId = MAIN
    metric: int = 0
    weight: int = 0
    _key: bytes = field(init=False, repr=False)
    _slot_len: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        dst = self.dst
        numbers = b"%d %d %d %d " % (dst.version, dst.prefixlen, self.table, self.metric)
        slot = numbers + dst.network_address.packed
        object.__setattr__(self, "_slot_len", len(slot))
        object.__setattr__(self, "_key", slot + b"%d " % self.weight + _hop_key(self.hop))

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Route) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def slot(self) -> Hashable:
        """What the kernel allows one of, its legs together; the protocol is NOT part of it."""
        return self._key[: self._slot_len]

    @property
    def link(self) -> LinkName | None:
        """The link that it leaves by; None for one that discards."""
        return None if isinstance(self.hop, Discard) else self.hop.link

    @property
    def is_of_link_alone(self) -> bool:
        """Whether it is link-local or multicast: the kernel has those on every NIC."""
        return self.dst.is_link_local or self.dst.is_multicast

    def __str__(self) -> str:
        shown = f"{self.dst} {self.hop}" + (f" weight {self.weight}" if self.weight > 1 else "")
        shown += f" metric {self.metric}" if self.metric else ""
        return shown + ("" if self.table == MAIN else f" table {self.table}")


def _hop_key(hop: NextHop) -> bytes:
    """Return bytes that only equal next hops share."""
    match hop:
        case Via():
            return hop._key
        case OnLink():
            return b"l" + hop.link.encode()
        case Discard():
            return b"d" + hop.value.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy rule. Lower priority is tried first. `action` is a table to look up, or a Discard."""

    priority: int
    version: int  # 4 or 6
    action: TableId | Discard
    src: Prefix | None = None
    dst: Prefix | None = None
    incoming: LinkName | None = None
    mark: Mark | None = None  # matched under `mask`
    mask: Mark | None = None
    more: str = ""  # what else a foreign rule asks for or does, in the words of ip-rule(8); ours have none

    @property
    def slot(self) -> Hashable:
        """The whole rule: rules that differ in anything live side by side."""
        return ("rule", self)

    def __str__(self) -> str:
        parts = [f"{self.priority}:", f"from {self.src or 'all'}"]
        parts += [f"to {self.dst}"] if self.dst else []
        parts += [f"iif {self.incoming}"] if self.incoming else []
        parts += [f"fwmark {self.mark:#x}/{self.mask or 0xFFFFFFFF:#x}"] if self.mark is not None else []
        parts += [self.more] if self.more else []
        parts += [str(self.action) if isinstance(self.action, Discard) else f"lookup {self.action}"]
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLink:
    """A macvlan of ours (bridge mode) on an inner NIC: the next hop that one tenant's nodes see.

    `ipv6` says whether the link takes part in IPv6; link-local addresses are never generated (4,000 of them cost ten
    seconds).
    """

    name: LinkName
    parent: LinkName
    mac: Mac
    alternative: str
    ipv6: bool = False
    fault: str = ""  # only of a link that was read: what else is wrong with it ("down; arp_ignore is 0"); never wanted

    @property
    def slot(self) -> Hashable:
        """One device per name."""
        return ("link", self.name)

    def __str__(self) -> str:
        fault = f", at fault: {self.fault}" if self.fault else ""
        return f"macvlan {self.name} ({self.alternative}) on {self.parent}, {self.mac}{fault}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkAddress:
    """An address of ours on a link, always /32 or /128: no connected route, no duplicate detection by the kernel.

    IPv6 ones are deprecated (preferred lifetime 0), so that the machine never picks them as its own source. It compares
    by `_key`, for the reason that `Route` gives: 4,000 tenants have 8,000 of them.
    """

    link: LinkName
    address: Address
    fault: str = ""  # only of an address that was read: what is wrong with it ("prefix length 24"); never wanted
    _key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        key = b"%d " % self.address.version + self.address.packed + f"{self.link} {self.fault}".encode()
        object.__setattr__(self, "_key", key)

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, LinkAddress) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def slot(self) -> Hashable:
        """One per link and address."""
        return ("address", self.link, self.address)

    def __str__(self) -> str:
        fault = f", at fault: {self.fault}" if self.fault else ""
        return f"address {self.address}/{self.address.max_prefixlen} on {self.link}{fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An address that a link answers for (ARP, neighbour discovery) although it stands on no link.

    Who lists the machine's addresses does not find it, and packets to it come to the machine nevertheless.
    """

    link: LinkName
    address: Address
    fault: str = ""  # only of one that was read: why it is not answered for ("proxy_ndp is 0"); never wanted

    @property
    def slot(self) -> Hashable:
        """One per link and address."""
        return ("answered", self.link, self.address)

    def __str__(self) -> str:
        fault = f", at fault: {self.fault}" if self.fault else ""
        return f"{self.link} answers for {self.address}{fault}"


class Setting(Enum):
    """The per-link kernel settings that outgate reads and, on declared NICs and its own links, writes."""

    ARP_IGNORE = "ipv4/arp_ignore"
    ARP_ANNOUNCE = "ipv4/arp_announce"
    RP_FILTER = "ipv4/rp_filter"
    SRC_VALID_MARK = "ipv4/src_valid_mark"
    FORWARDING = "ipv4/forwarding"
    SEND_REDIRECTS = "ipv4/send_redirects"
    ACCEPT_RA = "ipv6/accept_ra"
    FORWARDING6 = "ipv6/forwarding"
    DISABLE_IPV6 = "ipv6/disable_ipv6"


ALL_LINKS = LinkName("all")
TENANT_LINK_SETTINGS = MappingProxyType(
    {Setting.ARP_IGNORE: 1, Setting.ARP_ANNOUNCE: 2, Setting.RP_FILTER: 2, Setting.FORWARDING: 1}
)  # part of what a tenant's link is, never resources of their own: it answers for its own address only, and forwards


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSetting:
    """A kernel setting of one link (`net.ipv4.conf.LINK.arp_ignore`), or of the pseudo link `all`."""

    link: LinkName
    setting: Setting
    value: int

    @property
    def slot(self) -> Hashable:
        """One value per link and setting."""
        return ("setting", self.link, self.setting)

    def __str__(self) -> str:
        family, key = self.setting.value.split("/")
        return f"net.{family}.conf.{self.link}.{key} = {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network device that is not ours, as the kernel shows it. `table` is where the host's own routes by it stand:
    the main table, or that of the VRF whose slave it is.
    """

    name: LinkName
    index: int
    mac: Mac | None = None
    up: bool = True
    carrier: bool = True
    kind: str = ""
    mtu: int = 1500
    table: TableId = MAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAddress:
    """An address on a link that is not ours, with its prefix length."""

    link: LinkName
    address: Address
    prefix_len: int
