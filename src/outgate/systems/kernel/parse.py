"""What rtnetlink's dumps say: from the payload of one message to a value. Pure, one function per kind of message.

The sources are those of `messages`, whose structures these are. Names of links are text of at most 15 bytes; the kernel
allows any bytes in them, and what is no UTF-8 is spelled with backslashes, so that no name breaks a log or a terminal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import TypeAlias

from outgate.model.net import (
    MAIN,
    OWN_METRIC,
    OWN_PROTOCOL,
    OWN_TABLES,
    Address,
    Discard,
    LinkAddress,
    LinkName,
    Mac,
    Mark,
    NextHop,
    OnLink,
    Prefix,
    Route,
    Rule,
    Setting,
    TableId,
    Via,
)
from outgate.systems.kernel import uapi
from outgate.systems.kernel.messages import (
    IFADDRMSG,
    IFINFOMSG,
    IPV4_PLACE,
    NHMSG,
    ROUTE_TYPE,
    RTMSG,
    RTNEXTHOP,
    RULE_ACTION,
    RULE_HEADER,
)
from outgate.systems.netlink import DumpInterrupted, spans

IPV6_PLACE = {
    Setting.FORWARDING6: uapi.DEVCONF_FORWARDING,
    Setting.ACCEPT_RA: uapi.DEVCONF_ACCEPT_RA,
    Setting.DISABLE_IPV6: uapi.DEVCONF_DISABLE_IPV6,
}
MOST_WEIGHT = 256  # of a leg, as a route spells it out
UNUSABLE = uapi.IFA_F_TENTATIVE | uapi.IFA_F_DADFAILED
_DISCARD = {kind: discard for discard, kind in ROUTE_TYPE.items()}
_RULE_DISCARD = {action: discard for discard, action in RULE_ACTION.items()}
_ATTR = struct.Struct("=HH")  # length with this header, type
_U32 = struct.Struct("=I")
_U32_PAIR = struct.Struct("=II")
_PORTS = struct.Struct("=HH")
_GROUP_LEG = struct.Struct("=IBBH")  # nexthop object, weight - 1, reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenLink:
    """A link as it was dumped. `parent` is 0 for none, and -1 when it lives in another namespace."""

    index: int
    name: LinkName
    flags: int
    mac: Mac | None
    mtu: int
    kind: str
    parent: int
    mode: int  # of a macvlan
    vrf: int  # the table of a VRF
    master: int
    group: int
    alternatives: tuple[str, ...]
    settings: Mapping[Setting, int]
    makes_ipv6: bool  # whether the kernel makes link-local addresses on it


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAddress:
    """An address as it was dumped. `protocol` says who made it (0: unknown); `resource` is what it is if it is ours."""

    index: int
    prefix_len: int
    flags: int
    protocol: int
    resource: LinkAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNexthop:
    """A nexthop object as it was dumped: one next hop, or a group of other objects."""

    number: int
    protocol: int
    hop: NextHop | None
    group: tuple[tuple[int, int], ...] = ()  # numbers of objects, each with its weight


@dataclass(frozen=True, slots=True)
class OwnLegs:
    """A route of ours that has several next hops."""

    legs: tuple[Route, ...]


SeenRoute: TypeAlias = Route | OwnLegs | tuple[Route, ...]  # one of ours, ours of several next hops, the legs of theirs


@dataclass(slots=True)
class Names:
    """What messages refer to by number, and which links were referred to: a new name of one of those changes values."""

    links: Mapping[int, LinkName]
    objects: dict[int, SeenNexthop] = field(default_factory=dict)
    hops: dict[tuple[bytes, int], NextHop] = field(default_factory=dict)  # equal next hops are one object
    used: set[int] = field(default_factory=set)  # ifindexes
    indirect: set[bytes] = field(default_factory=set)  # payloads of routes that only name a nexthop object

    def link(self, index: int) -> LinkName:
        """Return a link's name.

        Raises:
            DumpInterrupted: the link came after the links were read.
        """
        self.used.add(index)
        try:
            return self.links[index]
        except KeyError:
            raise DumpInterrupted(f"link {index} appeared while the kernel was read") from None

    def renew(self, links: Mapping[int, LinkName]) -> bool:
        """Take the names of a new dump; return whether a link that was referred to has another name now.

        What referred to a link that is gone is gone as well, and leaves with the next dump.
        """
        renamed = any(index in links and links[index] != self.links.get(index) for index in self.used)
        self.used.intersection_update(links)
        self.hops = {} if renamed else {place: hop for place, hop in self.hops.items() if place[1] in links}
        self.links = links
        return renamed


def without_counters(payload: bytes) -> bytes:
    """Return a link's payload without its traffic counters, which change all the time and no request leaves out.

    The two attributes are neighbours; what follows them, the settings above all, is not walked.
    """
    at, start, end = IFINFOMSG.size, 0, len(payload)
    while at < end:
        size, kind = _ATTR.unpack_from(payload, at)
        if kind == uapi.IFLA_STATS64 or kind == uapi.IFLA_STATS:  # noqa: PLR1714 - quicker than a set, 32 times a link
            start = start or at
        elif start:
            break
        at += (size + 3) & ~3 or 4
    return payload[:start] + payload[at:] if start else payload


def parse_link(payload: bytes) -> SeenLink:
    """Return one link of `messages.DUMP_LINKS`."""
    _, _, index, flags, _ = IFINFOMSG.unpack_from(payload)
    found = _attributes(payload, IFINFOMSG.size)
    mac = found.get(uapi.IFLA_ADDRESS, b"")
    about = _attributes(found.get(uapi.IFLA_LINKINFO, b""))
    kind = _text(about.get(uapi.LINKINFO_KIND, b""))
    of_kind = _attributes(about.get(uapi.LINKINFO_BY_KIND, b"")) if kind in ("macvlan", "vrf") else {}
    families = _attributes(found.get(uapi.IFLA_AF_SPEC, b""))
    ipv4 = _attributes(families.get(uapi.AF_INET, b""))
    ipv6 = _attributes(families.get(uapi.AF_INET6, b""))
    names = found.get(uapi.IFLA_PROP_LIST, b"")
    return SeenLink(
        index=index,
        name=LinkName(_text(found[uapi.IFLA_IFNAME])),
        flags=flags,
        mac=Mac(mac.hex(":")) if len(mac) == 6 and any(mac) else None,
        mtu=_number(found.get(uapi.IFLA_MTU)),
        kind=kind,
        parent=-1 if uapi.IFLA_LINK_NETNSID in found else _number(found.get(uapi.IFLA_LINK)),
        mode=_number(of_kind.get(uapi.IFLA_MACVLAN_MODE)) if kind == "macvlan" else 0,
        vrf=_number(of_kind.get(uapi.IFLA_VRF_TABLE)) if kind == "vrf" else 0,
        master=_number(found.get(uapi.IFLA_MASTER)),
        group=_number(found.get(uapi.IFLA_GROUP)),
        alternatives=tuple(
            _text(names[start:end]) for kind, start, end in spans(names) if kind == uapi.IFLA_ALT_IFNAME
        ),
        settings=_settings(ipv4.get(uapi.IFLA_INET_CONF, b""), ipv6.get(uapi.IFLA_INET6_CONF, b"")),
        makes_ipv6=ipv6.get(uapi.IFLA_INET6_ADDR_GEN_MODE, b"")[:1] != bytes([uapi.IN6_ADDR_GEN_MODE_NONE]),
    )


def parse_address(payload: bytes, names: Names) -> SeenAddress:
    """Return one address of `messages.DUMP_ADDRESSES`. On a point-to-point link it is the near end."""
    _, prefix_len, flags, _, index = IFADDRMSG.unpack_from(payload)
    found = _attributes(payload, IFADDRMSG.size)
    address = _address(found.get(uapi.IFA_LOCAL) or found[uapi.IFA_ADDRESS])
    flags = _number(found.get(uapi.IFA_FLAGS)) or flags
    fault = "; ".join(_address_faults(address, prefix_len, flags))
    return SeenAddress(
        index=index,
        prefix_len=prefix_len,
        flags=flags,
        protocol=found.get(uapi.IFA_PROTO, b"\0")[0],
        resource=LinkAddress(link=names.link(index), address=address, fault=fault),
    )


def _address_faults(address: Address, prefix_len: int, flags: int) -> Iterator[str]:
    if prefix_len != address.max_prefixlen:
        yield f"prefix length {prefix_len}"
    if address.version == 6 and not flags & uapi.IFA_F_DEPRECATED:
        yield "may become the machine's own source"
    if address.version == 6 and flags & UNUSABLE:
        yield "not usable: duplicate address detection"


def parse_nexthop(payload: bytes, names: Names) -> SeenNexthop:
    """Return one nexthop object of `messages.DUMP_NEXTHOPS`; `hop` is None for what no route of IP can use."""
    _, _, protocol, _ = NHMSG.unpack_from(payload)
    found = _attributes(payload, NHMSG.size)
    number = _number(found[uapi.NHA_ID])
    hop: NextHop | None = None
    group = found.get(uapi.NHA_GROUP, b"")
    legs = tuple((leg, weight + 1) for leg, weight, _, _ in _GROUP_LEG.iter_unpack(group))
    if uapi.NHA_BLACKHOLE in found:
        hop = Discard.BLACKHOLE
    elif uapi.NHA_OIF in found:
        hop = _hop(found.get(uapi.NHA_GATEWAY, b""), _number(found[uapi.NHA_OIF]), names)
    return SeenNexthop(number=number, protocol=protocol, hop=hop, group=legs)


def parse_route(payload: bytes, names: Names, *, every_table: bool = False) -> SeenRoute:
    """Return a route of ours, or the legs of a foreign one of the main table, or of every one (none: not ours).

    Ours have our protocol, and our metric or a table of our own. Of foreign ones, those that forward or discard count,
    unless they are for packets of one source or TOS alone, which the words of the model do not say.
    """
    family, dst_len, src_len, tos, table, protocol, _, kind, flags = RTMSG.unpack_from(payload)
    found = _attributes(payload, RTMSG.size)
    table = TableId(_number(found.get(uapi.RTA_TABLE)) or table)
    metric = _number(found.get(uapi.RTA_PRIORITY))
    ours = protocol == OWN_PROTOCOL and (metric == OWN_METRIC or table in OWN_TABLES)
    if (
        family not in (uapi.AF_INET, uapi.AF_INET6)
        or flags & uapi.RTM_F_CLONED
        or not (ours or ((every_table or table == MAIN) and not src_len and not tos))
    ):
        return ()
    dst = _prefix(family, found.get(uapi.RTA_DST, b""), dst_len)
    hops = _legs(payload, kind, found, names)
    if len(hops) == 1:
        route = Route(dst=dst, hop=hops[0][0], table=table, metric=metric)
        return route if ours else (route,)
    legs = tuple(Route(dst=dst, hop=hop, table=table, metric=metric, weight=weight) for hop, weight in hops)
    return OwnLegs(legs) if ours and legs else legs


def own_legs(seen: SeenRoute) -> tuple[Route, ...]:
    """Return the legs of a route of ours; none of theirs."""
    return (seen,) if isinstance(seen, Route) else seen.legs if isinstance(seen, OwnLegs) else ()


def all_legs(seen: SeenRoute) -> tuple[Route, ...]:
    """Return the legs of a route, whosever it is."""
    return seen if isinstance(seen, tuple) else own_legs(seen)


def parse_rule(payload: bytes) -> tuple[bool, Rule] | None:
    """Return whether a policy rule is ours, and the rule; None for rules of other families than IPv4 and IPv6."""
    family, dst_len, src_len, tos, table, action, flags = RULE_HEADER.unpack_from(payload)
    if family not in (uapi.AF_INET, uapi.AF_INET6):
        return None
    found = _attributes(payload, RULE_HEADER.size)
    mark, mask = found.get(uapi.FRA_FWMARK), found.get(uapi.FRA_FWMASK)  # a mark of 0 is left out, its mask is not
    incoming = found.get(uapi.FRA_IIFNAME)
    table = _number(found.get(uapi.FRA_TABLE)) or table
    rule = Rule(
        priority=_number(found.get(uapi.FRA_PRIORITY)),
        version=4 if family == uapi.AF_INET else 6,
        action=_RULE_DISCARD.get(action, TableId(table)),
        src=_prefix(family, found[uapi.FRA_SRC], src_len) if uapi.FRA_SRC in found else None,
        dst=_prefix(family, found[uapi.FRA_DST], dst_len) if uapi.FRA_DST in found else None,
        incoming=LinkName(_text(incoming)) if incoming else None,
        mark=Mark(_number(mark)) if mark or mask else None,
        mask=Mark(_number(mask)) if mask and _number(mask) != 0xFFFFFFFF else None,
        more=" ".join(_more(found, tos, action, flags)),
    )
    return found.get(uapi.FRA_PROTOCOL, b"\0")[0] == OWN_PROTOCOL, rule


def route_of(payload: bytes, names: Names) -> tuple[int, Route | None]:
    """Return the type (RTN_*) of the route that answers a look-up, and the route."""
    family, dst_len, _, _, table, _, _, kind, _ = RTMSG.unpack_from(payload)
    found = _attributes(payload, RTMSG.size)
    hops = _legs(payload, kind, found, names)
    if not hops:
        return kind, None
    dst = _prefix(family, found.get(uapi.RTA_DST, b""), dst_len)
    table = TableId(_number(found.get(uapi.RTA_TABLE)) or table)
    return kind, Route(dst=dst, hop=hops[0][0], table=table, metric=_number(found.get(uapi.RTA_PRIORITY)))


def _legs(payload: bytes, kind: int, found: Mapping[int, bytes], names: Names) -> tuple[tuple[NextHop, int], ...]:
    """Return the next hops of a route, with their weights; none for what neither forwards nor discards (local,
    broadcast).
    """
    if kind in _DISCARD:
        return ((_DISCARD[kind], 1),)
    if kind != uapi.RTN_UNICAST:
        return ()
    if uapi.RTA_MULTIPATH in found:
        return _weighed(_multipath(found[uapi.RTA_MULTIPATH], names))
    if uapi.RTA_OIF in found:
        return ((_hop(_gateway(found), _number(found[uapi.RTA_OIF]), names), 1),)
    # With net.ipv4.nexthop_compat_mode 0 a route says no more than the number of its object.
    names.indirect.add(payload)
    seen = names.objects.get(_number(found.get(uapi.RTA_NH_ID)))
    group = seen.group or ((seen.number, 1),) if seen is not None else ()
    members = ((names.objects[number].hop, weight) for number, weight in group if number in names.objects)
    return _weighed((hop, weight) for hop, weight in members if hop is not None)


def _multipath(legs: bytes, names: Names) -> Iterator[tuple[NextHop, int]]:
    """Yield the legs that can be taken: not those by a link that is down."""
    at = 0
    while at + RTNEXTHOP.size <= len(legs):
        size, flags, less_one, index = RTNEXTHOP.unpack_from(legs, at)
        if not flags & uapi.RTNH_F_DEAD:
            yield _hop(_gateway(_attributes(legs[at : at + size], RTNEXTHOP.size)), index, names), less_one + 1
        at += max(RTNEXTHOP.size, (size + 3) & ~3)


def _weighed(legs: Iterable[tuple[NextHop, int]]) -> tuple[tuple[NextHop, int], ...]:
    """Return each next hop once: one that stands there twice has the weight of both."""
    found: dict[NextHop, int] = {}
    for hop, weight in legs:
        found[hop] = min(found.get(hop, 0) + weight, MOST_WEIGHT)
    return tuple(found.items())


def _gateway(found: Mapping[int, bytes]) -> bytes:
    """Return the router's packed address, b"" for none. RTA_VIA is one of another family than the destination."""
    return found.get(uapi.RTA_GATEWAY) or found.get(uapi.RTA_VIA, b"")[2:]


def _hop(gateway: bytes, index: int, names: Names) -> NextHop:
    hop = names.hops.get((gateway, index))
    if hop is None:
        link = names.link(index)
        hop = Via(address=_address(gateway), link=link) if gateway else OnLink(link=link)
        names.hops[gateway, index] = hop
    return hop


def _more(found: Mapping[int, bytes], tos: int, action: int, flags: int) -> Iterator[str]:
    """Yield what a rule asks for or does beyond the words of the model, as ip-rule(8) would write it."""
    if flags & uapi.FIB_RULE_INVERT:
        yield "not"
    if tos:
        yield f"tos {tos:#x}"
    if action == uapi.FR_ACT_GOTO:
        yield f"goto {_number(found.get(uapi.FRA_GOTO))}"
    elif action == uapi.FR_ACT_NOP:
        yield "nop"
    for kind, content in found.items():
        if kind in _SAID or (kind in _UNSET and content == _UNSET[kind]):
            continue
        match kind:
            case uapi.FRA_OIFNAME:
                yield f"oif {_text(content)}"
            case uapi.FRA_UID_RANGE:
                yield "uidrange {}-{}".format(*_U32_PAIR.unpack(content))
            case uapi.FRA_SPORT_RANGE | uapi.FRA_DPORT_RANGE:
                yield "{} {}-{}".format(_WORDS[kind], *_PORTS.unpack(content))
            case uapi.FRA_L3MDEV:
                yield "l3mdev"
            case _:
                yield f"{_WORDS.get(kind, f'attribute {kind}')} {int.from_bytes(content, 'little')}"


_SAID = {
    uapi.FRA_DST, uapi.FRA_SRC, uapi.FRA_IIFNAME, uapi.FRA_GOTO, uapi.FRA_PRIORITY, uapi.FRA_FWMARK, uapi.FRA_FWMASK,
    uapi.FRA_TABLE, uapi.FRA_PROTOCOL, uapi.FRA_PAD,
}  # fmt: skip
_UNSET = {uapi.FRA_SUPPRESS_PREFIXLEN: b"\xff\xff\xff\xff"}
_WORDS = {
    uapi.FRA_FLOW: "realms",
    uapi.FRA_TUN_ID: "tun_id",
    uapi.FRA_SUPPRESS_IFGROUP: "suppress_ifgroup",
    uapi.FRA_SUPPRESS_PREFIXLEN: "suppress_prefixlength",
    uapi.FRA_IP_PROTO: "ipproto",
    uapi.FRA_SPORT_RANGE: "sport",
    uapi.FRA_DPORT_RANGE: "dport",
    uapi.FRA_DSCP: "dscp",
}


@lru_cache(maxsize=256)
def _settings(ipv4: bytes, ipv6: bytes) -> Mapping[Setting, int]:
    """Return the settings in the two arrays of a link; tenant links have the same ones, and share the result."""
    found = {}
    for setting in Setting:
        if setting in IPV4_PLACE:
            values, place = ipv4, IPV4_PLACE[setting] - 1
        else:
            values, place = ipv6, IPV6_PLACE[setting]
        if 4 * place + 4 <= len(values):
            found[setting] = _U32.unpack_from(values, 4 * place)[0]
    return MappingProxyType(found)


def _attributes(payload: bytes, start: int = 0) -> dict[int, bytes]:
    return {kind: payload[at:end] for kind, at, end in spans(payload, start)}


def _number(content: bytes | None) -> int:
    """Return a 32-bit number; 0 when the attribute is absent."""
    return int(_U32.unpack(content)[0]) if content else 0


def _text(content: bytes) -> str:
    return content.rstrip(b"\0").decode(errors="backslashreplace")


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _prefix(family: int, packed: bytes, length: int) -> Prefix:
    """Return a prefix. "All" has no address in its message; rules keep host bits that the kernel ignores."""
    if family == uapi.AF_INET:
        return IPv4Network((packed or bytes(4), length), strict=False)
    return IPv6Network((packed or bytes(16), length), strict=False)
