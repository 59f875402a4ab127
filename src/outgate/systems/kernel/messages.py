"""Requests to rtnetlink: from values of the model to bytes. Pure, one function per thing that is asked.

Sources: rtnetlink(7), and of the kernel `rtnetlink.c`, `devinet.c`, `addrconf.c`, `fib_frontend.c`, `route.c` (IPv6),
`nexthop.c` and `fib_rules.c`. Links appear as ifindex, because that is the kernel's name for them; who calls looked
them up. Integers are in host byte order, addresses in network order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from outgate.model.net import (
    OWN_PROTOCOL,
    OWN_TABLES,
    Address,
    Discard,
    LinkName,
    Mac,
    Mark,
    Prefix,
    Route,
    Rule,
    Setting,
    TableId,
    Via,
)
from outgate.systems.kernel import uapi
from outgate.systems.netlink import APPEND, CREATE, EXCL, REPLACE, attr, nest, pack

IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, ifindex, flags, mask of the flags to change
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, ifindex
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
RULE_HEADER = struct.Struct("=BBBBBxxBI")  # family, dst length, src length, tos, table, action, flags
NHMSG = struct.Struct("=BBBxI")  # family, scope, protocol, flags
RTNEXTHOP = struct.Struct("=HBBi")  # of a leg: length with its attributes, flags, weight - 1, ifindex
_NUMBER = struct.Struct("=HHI")  # length with this header, type, value
_LIFETIMES = struct.Struct("=IIII")  # ifa_cacheinfo: preferred and valid lifetime in seconds, two time stamps

FAMILY = {4: uapi.AF_INET, 6: uapi.AF_INET6}
ROUTE_TYPE = {
    Discard.BLACKHOLE: uapi.RTN_BLACKHOLE,
    Discard.UNREACHABLE: uapi.RTN_UNREACHABLE,
    Discard.PROHIBIT: uapi.RTN_PROHIBIT,
    Discard.THROW: uapi.RTN_THROW,
}
RULE_ACTION = {
    Discard.BLACKHOLE: uapi.FR_ACT_BLACKHOLE,
    Discard.UNREACHABLE: uapi.FR_ACT_UNREACHABLE,
    Discard.PROHIBIT: uapi.FR_ACT_PROHIBIT,
}
IPV4_PLACE = {
    Setting.FORWARDING: uapi.IPV4_DEVCONF_FORWARDING,
    Setting.SEND_REDIRECTS: uapi.IPV4_DEVCONF_SEND_REDIRECTS,
    Setting.RP_FILTER: uapi.IPV4_DEVCONF_RP_FILTER,
    Setting.ARP_ANNOUNCE: uapi.IPV4_DEVCONF_ARP_ANNOUNCE,
    Setting.ARP_IGNORE: uapi.IPV4_DEVCONF_ARP_IGNORE,
    Setting.SRC_VALID_MARK: uapi.IPV4_DEVCONF_SRC_VMARK,
}

DUMP_LINKS = pack(
    uapi.RTM_GETLINK,
    0,
    IFINFOMSG.pack(uapi.AF_UNSPEC, 0, 0, 0, 0) + _NUMBER.pack(8, uapi.IFLA_EXT_MASK, uapi.RTEXT_FILTER_SKIP_STATS),
)
DUMP_ADDRESSES = pack(uapi.RTM_GETADDR, 0, IFADDRMSG.pack(uapi.AF_UNSPEC, 0, 0, 0, 0))
DUMP_RULES = pack(uapi.RTM_GETRULE, 0, RULE_HEADER.pack(uapi.AF_UNSPEC, 0, 0, 0, 0, 0, 0))
DUMP_NEXTHOPS = pack(uapi.RTM_GETNEXTHOP, 0, NHMSG.pack(uapi.AF_UNSPEC, 0, 0, 0))
DUMP_ROUTES = {
    version: pack(uapi.RTM_GETROUTE, 0, RTMSG.pack(family, 0, 0, 0, uapi.RT_TABLE_UNSPEC, 0, 0, 0, 0))
    for version, family in FAMILY.items()
}


def new_macvlan(index: int, name: LinkName, parent: int, mac: Mac) -> bytes:
    """Create a macvlan in bridge mode, down, under an ifindex of our choice, so that what follows can name it."""
    place = IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, 0, 0)
    found = link_name(name) + _u32(uapi.IFLA_LINK, parent) + link_mac(mac) + _bridge_macvlan()
    return pack(uapi.RTM_NEWLINK, CREATE | EXCL, place + found)


def set_mode(index: int) -> bytes:
    """Put a macvlan into bridge mode again."""
    return pack(uapi.RTM_NEWLINK, 0, IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, 0, 0) + _bridge_macvlan())


def set_link(index: int, *attributes: bytes, flags: int = 0, mask: int = 0) -> bytes:
    """Change attributes of a link, and those of its flags that `mask` covers."""
    return pack(uapi.RTM_SETLINK, 0, IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, flags, mask) + b"".join(attributes))


def link_name(name: LinkName) -> bytes:
    """Return the attribute that names a link."""
    return attr(uapi.IFLA_IFNAME, name.encode() + b"\0")


def link_mac(mac: Mac) -> bytes:
    """Return the attribute that gives a link its MAC."""
    return attr(uapi.IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def link_group(group: int) -> bytes:
    """Return the attribute that puts a link into a device group."""
    return _u32(uapi.IFLA_GROUP, group)


def link_master(index: int) -> bytes:
    """Return the attribute that makes a link part of another one (a bridge, a VRF); 0 frees it."""
    return _u32(uapi.IFLA_MASTER, index)


def link_settings(settings: Mapping[Setting, int], *, quiet_ipv6: bool = False) -> bytes:
    """Return the attribute that sets IPv4 settings; `quiet_ipv6` also stops the kernel from making IPv6 addresses."""
    ipv4 = nest(uapi.IFLA_INET_CONF, *(_u32(IPV4_PLACE[setting], value) for setting, value in settings.items()))
    families = [nest(uapi.AF_INET, ipv4)]
    if quiet_ipv6:
        families.append(nest(uapi.AF_INET6, attr(uapi.IFLA_INET6_ADDR_GEN_MODE, bytes([uapi.IN6_ADDR_GEN_MODE_NONE]))))
    return nest(uapi.IFLA_AF_SPEC, *families)


def add_alternative(index: int, name: str) -> bytes:
    """Give a link one more name (at most 127 bytes, unique in the namespace)."""
    return _alternative(uapi.RTM_NEWLINKPROP, CREATE | EXCL | APPEND, index, name)


def remove_alternative(index: int, name: str) -> bytes:
    """Take an alternative name from a link."""
    return _alternative(uapi.RTM_DELLINKPROP, 0, index, name)


def delete_link(name: LinkName) -> bytes:
    """Delete a link by its name: an ifindex may mean another link by now, our names mean ours."""
    return pack(uapi.RTM_DELLINK, 0, IFINFOMSG.pack(uapi.AF_UNSPEC, 0, 0, 0, 0) + link_name(name))


def delete_links(group: int) -> bytes:
    """Delete all links of a device group in one operation."""
    return pack(uapi.RTM_DELLINK, 0, IFINFOMSG.pack(uapi.AF_UNSPEC, 0, 0, 0, 0) + link_group(group))


def new_address(index: int, address: Address, *, replace: bool = False) -> bytes:
    """Add an address as a host prefix, or correct the one that stands there."""
    length, flags = address.max_prefixlen, 0
    if address.version == 6:
        flags = uapi.IFA_F_NODAD | uapi.IFA_F_NOPREFIXROUTE
    place = IFADDRMSG.pack(FAMILY[address.version], length, flags & 0xFF, uapi.RT_SCOPE_UNIVERSE, index)
    found = (
        attr(uapi.IFA_LOCAL, address.packed)
        + attr(uapi.IFA_ADDRESS, address.packed)
        + attr(uapi.IFA_PROTO, bytes([OWN_PROTOCOL]))
    )
    if address.version == 6:
        found += _u32(uapi.IFA_FLAGS, flags) + attr(uapi.IFA_CACHEINFO, _LIFETIMES.pack(0, uapi.FOREVER, 0, 0))
    return pack(uapi.RTM_NEWADDR, CREATE | (REPLACE if replace else EXCL), place + found)


def delete_address(index: int, address: Address, prefix_len: int) -> bytes:
    """Remove exactly the address with this prefix length."""
    place = IFADDRMSG.pack(FAMILY[address.version], prefix_len, 0, 0, index)
    return pack(
        uapi.RTM_DELADDR, 0, place + attr(uapi.IFA_LOCAL, address.packed) + attr(uapi.IFA_ADDRESS, address.packed)
    )


def new_route(route: Route, hop: bytes, *, replace: bool = False) -> bytes:
    """Add a route of ours into a free place, or replace the one of ours that stands there. `hop` is of `*_hop`; where
    it is of several, `route` is any of the legs.
    """
    kind = ROUTE_TYPE[route.hop] if isinstance(route.hop, Discard) else uapi.RTN_UNICAST
    on_link = not isinstance(route.hop, Via | Discard) and route.dst.version == 4 and not route.weight
    scope = uapi.RT_SCOPE_LINK if on_link else uapi.RT_SCOPE_UNIVERSE
    flags = CREATE | (REPLACE if replace else EXCL)
    return pack(uapi.RTM_NEWROUTE, flags, _route(route, scope, kind, 0 if route.weight else _near(route)) + hop)


def delete_route(route: Route) -> bytes:
    """Remove the route in this place, if its protocol is ours: whatever it leads to."""
    return pack(uapi.RTM_DELROUTE, 0, _route(route, uapi.RT_SCOPE_NOWHERE, uapi.RTN_UNSPEC))


def link_hop(index: int, route: Route) -> bytes:
    """Return the attributes of a next hop that is spelled out in the route."""
    return _gateway(route) + _u32(uapi.RTA_OIF, index)


def several_hops(legs: Iterable[tuple[int, Route]]) -> bytes:
    """Return the attribute of several next hops: legs of one route, each with the ifindex that it leaves by."""
    return attr(uapi.RTA_MULTIPATH, b"".join(_leg(index, route) for index, route in legs))


def object_hop(number: int) -> bytes:
    """Return the attribute of a next hop that is a nexthop object."""
    return _u32(uapi.RTA_NH_ID, number)


def new_nexthop(number: int, index: int, gateway: Address) -> bytes:
    """Create a nexthop object under a number that is free."""
    place = NHMSG.pack(FAMILY[gateway.version], 0, OWN_PROTOCOL, 0)
    found = _u32(uapi.NHA_ID, number) + _u32(uapi.NHA_OIF, index) + attr(uapi.NHA_GATEWAY, gateway.packed)
    return pack(uapi.RTM_NEWNEXTHOP, CREATE | EXCL, place + found)


def delete_nexthop(number: int) -> bytes:
    """Delete a nexthop object; the kernel deletes the routes that use it, without a word."""
    return pack(uapi.RTM_DELNEXTHOP, 0, NHMSG.pack(uapi.AF_UNSPEC, 0, 0, 0) + _u32(uapi.NHA_ID, number))


def new_rule(rule: Rule) -> bytes:
    """Add a policy rule of ours beside whatever stands there.

    Not exclusively: the kernel would take a foreign rule that has a TOS for the same as ours that has none
    (`fib4_rule_compare`), and refuse a guard. Two rules of one meaning and two owners do no harm.
    """
    return pack(uapi.RTM_NEWRULE, CREATE, _rule(rule))


def delete_rule(rule: Rule) -> bytes:
    """Remove a policy rule of ours."""
    return pack(uapi.RTM_DELRULE, 0, _rule(rule))


def get_route(addresses: tuple[Address, Address | None], mark: Mark, incoming: int) -> bytes:
    """Ask where a packet from the second address to the first would go. `incoming` 0 is the machine itself."""
    dst, src = addresses
    flags = uapi.RTM_F_FIB_MATCH | (
        uapi.RTM_F_LOOKUP_TABLE if dst.version == 4 else 0
    )  # IPv6 knows the first flag only
    src_len = src.max_prefixlen if src else 0
    place = RTMSG.pack(FAMILY[dst.version], dst.max_prefixlen, src_len, 0, 0, 0, 0, 0, flags)
    found = [attr(uapi.RTA_DST, dst.packed)]
    found += [attr(uapi.RTA_SRC, src.packed)] if src else []
    found += [_u32(uapi.RTA_MARK, mark)] if mark else []
    found += [_u32(uapi.RTA_IIF, incoming)] if incoming else []
    return pack(uapi.RTM_GETROUTE, 0, place + b"".join(found))


def _u32(kind: int, value: int) -> bytes:
    """Return an attribute that holds one number: `attr` in one step, because most attributes are numbers."""
    return _NUMBER.pack(8, kind, value)


def _bridge_macvlan() -> bytes:
    mode = _u32(uapi.IFLA_MACVLAN_MODE, uapi.MACVLAN_MODE_BRIDGE)
    return nest(uapi.IFLA_LINKINFO, attr(uapi.LINKINFO_KIND, b"macvlan"), nest(uapi.LINKINFO_BY_KIND, mode))


def _alternative(kind: int, flags: int, index: int, name: str) -> bytes:
    place = IFINFOMSG.pack(uapi.AF_UNSPEC, 0, index, 0, 0)
    return pack(kind, flags, place + nest(uapi.IFLA_PROP_LIST, attr(uapi.IFLA_ALT_IFNAME, name.encode() + b"\0")))


def _route(route: Route, scope: int, kind: int, flags: int = 0) -> bytes:
    dst = route.dst
    place = RTMSG.pack(FAMILY[dst.version], dst.prefixlen, 0, 0, _short(route.table), OWN_PROTOCOL, scope, kind, flags)
    target = attr(uapi.RTA_DST, dst.network_address.packed) if dst.prefixlen else b""
    return place + target + _u32(uapi.RTA_TABLE, route.table) + _u32(uapi.RTA_PRIORITY, route.metric)


def _leg(index: int, route: Route) -> bytes:
    gateway = _gateway(route)
    return RTNEXTHOP.pack(RTNEXTHOP.size + len(gateway), _near(route), max(route.weight, 1) - 1, index) + gateway


def _near(route: Route) -> int:
    """Return the flag that has a router taken for one on its link, in a table that repeats what others have said.

    The kernel has checked it there; here it would look for the way to it in a table that is not complete yet, and
    refuse one that was said to be on the link (`onlink`).
    """
    return uapi.RTNH_F_ONLINK if isinstance(route.hop, Via) and route.table in OWN_TABLES else 0


def _gateway(route: Route) -> bytes:
    """Return the attribute of a leg's router; nothing for one on the link."""
    if not isinstance(route.hop, Via):
        return b""
    gateway = route.hop.address
    if gateway.version == route.dst.version:
        return attr(uapi.RTA_GATEWAY, gateway.packed)
    return attr(uapi.RTA_VIA, struct.pack("=H", FAMILY[gateway.version]) + gateway.packed)


def _short(table: TableId) -> int:
    """Return the table for the header's byte; the attribute beside it has room for large ones."""
    return table if table < 256 else uapi.RT_TABLE_UNSPEC


def _rule(rule: Rule) -> bytes:
    action = RULE_ACTION[rule.action] if isinstance(rule.action, Discard) else uapi.FR_ACT_TO_TBL
    table = uapi.RT_TABLE_UNSPEC if isinstance(rule.action, Discard) else rule.action
    dst_len, src_len = (prefix.prefixlen if prefix else 0 for prefix in (rule.dst, rule.src))
    header = RULE_HEADER.pack(FAMILY[rule.version], dst_len, src_len, 0, _short(TableId(table)), action, 0)
    return header + b"".join(_selectors(rule, table))


def _selectors(rule: Rule, table: int) -> Iterable[bytes]:
    yield _u32(uapi.FRA_PRIORITY, rule.priority)
    yield attr(uapi.FRA_PROTOCOL, bytes([OWN_PROTOCOL]))
    yield from (
        _end(kind, end) for kind, end in ((uapi.FRA_SRC, rule.src), (uapi.FRA_DST, rule.dst)) if end is not None
    )
    if rule.incoming is not None:
        yield attr(uapi.FRA_IIFNAME, rule.incoming.encode() + b"\0")
    if rule.mark is not None:
        yield _u32(uapi.FRA_FWMARK, rule.mark) + _u32(uapi.FRA_FWMASK, 0xFFFFFFFF if rule.mask is None else rule.mask)
    if table:
        yield _u32(uapi.FRA_TABLE, table)


def _end(kind: int, prefix: Prefix) -> bytes:
    return attr(kind, prefix.network_address.packed)
