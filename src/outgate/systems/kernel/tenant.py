"""The link of a tenant: what it must be like, how it is told from other links, how it is made and mended.

A tenant link is a macvlan in bridge mode named `og-` and eight hex digits. Its settings are constants, not resources of
their own: it answers ARP for its own addresses only (4,000 links on one LAN would all answer otherwise), accepts
packets whose way back leaves by the NIC below it, forwards, and makes no IPv6 addresses by itself (4,000 of them cost
ten seconds).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from outgate.model.net import LinkName, Mac, Setting, TenantLink
from outgate.systems.kernel import uapi
from outgate.systems.kernel.messages import (
    add_alternative,
    link_group,
    link_mac,
    link_master,
    link_settings,
    new_macvlan,
    remove_alternative,
    set_link,
    set_mode,
)
from outgate.systems.kernel.parse import Names, SeenLink

SETTINGS: Mapping[Setting, int] = MappingProxyType(
    {Setting.ARP_IGNORE: 1, Setting.ARP_ANNOUNCE: 2, Setting.RP_FILTER: 2, Setting.FORWARDING: 1}
)
FIRST_INDEX = 0x6F000000  # ifindexes from here on are ours to give: the kernel counts up from 1
DOOMED_GROUP = 0x6F000001  # device group of links that are about to be deleted together
_SETTINGS = {quiet: link_settings(SETTINGS, quiet_ipv6=quiet) for quiet in (False, True)}
_NAME = re.compile(r"og-[0-9a-f]{8}")


def is_ours(seen: SeenLink) -> bool:
    """Whether a link carries our sign. A link of that name and another kind is somebody else's, and in the way."""
    return seen.kind == "macvlan" and _NAME.fullmatch(seen.name) is not None


def as_resource(seen: SeenLink, names: Names) -> TenantLink:
    """Return a link of ours as a resource; `fault` says what is wrong with it beyond the fields."""
    return TenantLink(
        name=seen.name,
        parent=names.link(seen.parent) if seen.parent > 0 else LinkName(""),
        mac=seen.mac or Mac(""),
        alternative=seen.alternatives[0] if seen.alternatives else "",
        ipv6=_has_ipv6(seen),
        fault="; ".join(_faults(seen)),
    )


def proc_settings(wanted: TenantLink) -> dict[Setting, int]:
    """Return the settings of a wanted link that netlink does not write.

    Without IPv6 it has none at all. With IPv6 it learns nothing from router advertisements: the tenants' side may not
    give this machine routes.
    """
    if wanted.ipv6:
        return {Setting.ACCEPT_RA: 0, Setting.DISABLE_IPV6: 0}
    return {Setting.DISABLE_IPV6: 1}


def create(wanted: TenantLink, index: int, parent: int) -> Iterator[bytes]:
    """Yield the requests that make a link, down: it goes `up` when its settings stand."""
    yield new_macvlan(index, wanted.name, parent, wanted.mac)
    yield set_link(index, _SETTINGS[wanted.ipv6])
    if wanted.alternative:
        yield add_alternative(index, wanted.alternative)


def mend(wanted: TenantLink, seen: SeenLink) -> Iterator[bytes]:
    """Yield the requests that make a link of ours, on the right parent, what it must be; it goes `up` afterwards."""
    index = seen.index
    if seen.mode != uapi.MACVLAN_MODE_BRIDGE:
        yield set_mode(index)
    if seen.master:
        yield set_link(index, link_master(0))
    if seen.mac != wanted.mac:
        yield set_link(index, link_mac(wanted.mac))
    yield set_link(index, link_group(0), _SETTINGS[wanted.ipv6])
    yield from (remove_alternative(index, name) for name in seen.alternatives if name != wanted.alternative)
    if wanted.alternative and wanted.alternative not in seen.alternatives:
        yield add_alternative(index, wanted.alternative)


def up(index: int) -> bytes:
    """Return the request that sets a link up, with ARP."""
    return set_link(index, flags=uapi.IFF_UP, mask=uapi.IFF_UP | uapi.IFF_NOARP)


def _faults(seen: SeenLink) -> Iterator[str]:
    if not seen.flags & uapi.IFF_UP:
        yield "down"
    if seen.flags & uapi.IFF_NOARP:
        yield "ARP is off"
    if seen.mode != uapi.MACVLAN_MODE_BRIDGE:
        yield "not in bridge mode"
    if seen.master:
        yield "part of another link"
    if seen.group == DOOMED_GROUP:
        yield "marked for deletion"
    for setting, value in SETTINGS.items():
        if seen.settings.get(setting) != value:
            yield f"{setting.value} is {seen.settings.get(setting)}"
    if _has_ipv6(seen):
        if seen.makes_ipv6:
            yield "makes IPv6 addresses by itself"
        if seen.settings.get(Setting.ACCEPT_RA):
            yield f"{Setting.ACCEPT_RA.value} is {seen.settings[Setting.ACCEPT_RA]}"
    for name in seen.alternatives[1:]:
        yield f"is also called {name}"


def _has_ipv6(seen: SeenLink) -> bool:
    return seen.settings.get(Setting.DISABLE_IPV6, 1) == 0
