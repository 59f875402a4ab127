"""Checks of kernel settings, limits, versions and links."""

from __future__ import annotations

from collections import Counter

from outgate.model.net import ALL_LINKS, LinkName, Setting, TenantLink
from outgate.plan.doctor.seen import Seen, Troubles, fail, warn

KERNEL_NEEDED = (5, 10)  # reject in prerouting, the incoming link in postrouting
KERNEL_LABELS = (5, 18)  # addresses say who made them
NFT_NEEDED = (1, 0, 6)
FLOWS_OF_A_TENANT = 1024  # what a tenant without a limit is reckoned to have at a time
MANY_MACVLANS = (
    400  # on one NIC: a burst of 400 ARP requests is answered whole, of 4,000 requests at 4,000 links few are
)
_FULL, _FILLING = 95, 80  # per cent


def reverse_path(seen: Seen) -> Troubles:
    """Say where the reverse-path filter would drop tenants' packets; of `all` and the link's own the higher counts."""
    strict = [name for name in seen.inner if _effective(seen, name, Setting.RP_FILTER) == 1]
    for name in strict if seen.in_force else ():
        text = "it is strict: packets of pods that are reached another way are dropped"
        yield fail(_named(name, Setting.RP_FILTER), text, _set(name, Setting.RP_FILTER, 2))
    for name in seen.gateway.uplinks if seen.in_force else ():
        filtered = _effective(seen, name, Setting.RP_FILTER)
        if filtered and not max(_values(seen, name, Setting.SRC_VALID_MARK)):
            text = "replies are looked up without their mark, and policy routing prohibits that for pods"
            yield fail(_named(name, Setting.SRC_VALID_MARK), text, _set(name, Setting.SRC_VALID_MARK, 1))


def arp(seen: Seen) -> Troubles:
    """Say where NICs would answer ARP for each other, or not at all."""
    for name in (*seen.inner, *seen.gateway.uplinks):
        value = _effective(seen, name, Setting.ARP_IGNORE)
        at_fault = ALL_LINKS if (seen.setting(ALL_LINKS, Setting.ARP_IGNORE) or 0) > 1 else name
        if value > 1:
            text = f"{name} answers ARP by rule {value}, which leaves out addresses that stand alone (/32)"
            yield fail(_named(at_fault, Setting.ARP_IGNORE), text, _set(at_fault, Setting.ARP_IGNORE, 1))
        elif value == 0 and seen.in_force:
            text = f"{name} answers ARP for the next hops of tenants too: their traffic comes to the wrong MAC"
            yield fail(_named(name, Setting.ARP_IGNORE), text, _set(name, Setting.ARP_IGNORE, 1))


def forwarding(seen: Seen) -> Troubles:
    """Say which settings that let packets through are not as wanted."""
    for wanted in seen.wanted_settings(Setting.FORWARDING, Setting.FORWARDING6) if seen.in_force else ():
        if seen.setting(wanted.link, wanted.setting) != wanted.value:
            text = "nothing is forwarded there, so tenants are not served"
            yield fail(_named(wanted.link, wanted.setting), text, "outgate gateway apply")
    for uplink in seen.gateway.uplinks:
        forwards6 = seen.setting(ALL_LINKS, Setting.FORWARDING6)
        if forwards6 and seen.setting(uplink, Setting.ACCEPT_RA) == 1:
            text = "the machine forwards IPv6, so it no longer learns its default route from router advertisements"
            yield warn(_named(uplink, Setting.ACCEPT_RA), text, _set(uplink, Setting.ACCEPT_RA, 2))


def tenant_links(seen: Seen) -> Troubles:
    """Say which links of ours are not as they must be."""
    faulty = [one for one in seen.reading.actual if isinstance(one, TenantLink) and one.fault]
    for link in sorted(faulty, key=lambda link: link.name):
        yield fail(link.name, f"the link of {link.alternative}: {link.fault}", "outgate gateway apply")


def connection_tracking(seen: Seen) -> Troubles:
    """Say when connection tracking is full, nearly so, or small for so many tenants."""
    found, tenants = seen.host.conntrack, seen.snapshot.intent.tenants
    about = "net.netfilter.nf_conntrack_max"
    if not found.maximum:
        return
    share = 100 * found.count // found.maximum
    wanted = sum(tenant.connections or FLOWS_OF_A_TENANT for tenant in tenants)
    fix = f"sysctl -w {about}={max(2 * found.maximum, 1 << (2 * wanted).bit_length())}, and in /etc/sysctl.d"
    if share >= _FILLING:
        text = (
            f"{found.count:,} of {found.maximum:,} flows are tracked ({share} %): when it is full, new ones are dropped"
        )
        yield (fail if share >= _FULL else warn)(about, text, fix)
    elif wanted > found.maximum:
        text = f"{found.maximum:,} flows are little for {len(tenants):,} tenants, who may have {wanted:,} at a time"
        yield warn(about, text, fix)


def versions(seen: Seen) -> Troubles:
    """Say when kernel or nft are older than what outgate needs."""
    kernel, nft = seen.host.kernel, seen.host.nft
    if kernel and kernel[:2] < KERNEL_NEEDED:
        text = f"Linux {_dotted(kernel)} is older than {_dotted(KERNEL_NEEDED)}: the table can not be loaded"
        yield fail("kernel", text, "upgrade the kernel")
    elif kernel and kernel[:2] < KERNEL_LABELS:
        text = (
            f"Linux {_dotted(kernel)} does not say who made an address: only the state file tells which are outgate's"
        )
        yield warn("kernel", text, "keep /var/lib/outgate in the backup")
    if not nft:
        yield fail("nft", "it is not installed, or does not work", "install the package nftables")
    elif nft < NFT_NEEDED:
        text = f"nft {_dotted(nft)} is older than {_dotted(NFT_NEEDED)}, with which outgate is tested"
        yield warn("nft", text, "upgrade the package nftables")


def mtu(seen: Seen) -> Troubles:
    """Say which uplinks carry shorter packets than the inner NICs."""
    links = seen.snapshot.facts.links
    inner = max((links[name].mtu for name in seen.inner if name in links), default=0)
    for uplink in seen.gateway.uplinks:
        if uplink in links and links[uplink].mtu < inner:
            text = (
                f"its MTU is {links[uplink].mtu}, that of the inner NIC {inner}: TCP adapts, long datagrams are refused"
            )
            yield warn(uplink, text, f"ip link set {uplink} mtu {inner}, if the network behind it carries that")


def macvlans(seen: Seen) -> Troubles:
    """Say which NICs carry more tenant links than broadcasts allow: each of them gets a copy of each broadcast."""
    parents = Counter(resource.parent for resource in seen.desired.wants if isinstance(resource, TenantLink))
    for parent, number in sorted(parents.items()):
        if number > MANY_MACVLANS:
            text = f"{number:,} tenant links get a copy of each broadcast: bursts of ARP requests go unanswered"
            fix = "give tenants `identity: source` with a shared next hop, or spread them over several inner NICs"
            yield warn(parent, text, fix)


def _values(seen: Seen, link: LinkName, setting: Setting) -> tuple[int, int]:
    return seen.setting(ALL_LINKS, setting) or 0, seen.setting(link, setting) or 0


def _effective(seen: Seen, link: LinkName, setting: Setting) -> int:
    """Return the value that counts where the kernel takes the higher of `all` and the link's own."""
    return max(_values(seen, link, setting))


def _named(link: LinkName, setting: Setting) -> str:
    family, key = setting.value.split("/")
    return f"net.{family}.conf.{link}.{key}"


def _set(link: LinkName, setting: Setting, value: int) -> str:
    return f"sysctl -w {_named(link, setting)}={value}, and in /etc/sysctl.d"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
