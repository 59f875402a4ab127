"""Frames that announce and probe addresses, and what the frames of others say: pure functions over bytes.

IPv4 speaks ARP (RFC 826) as RFC 5227 has it; IPv6 speaks neighbour discovery (RFC 4861), with its duplicate detection
(RFC 4862). Nothing here knows VLAN tags: a tagged link is a NIC of its own to the kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from outgate.model.net import Address, LinkName, Mac

ARP, IPV6 = 0x0806, 0x86DD

_BROADCAST = b"\xff" * 6
_UNKNOWN = bytes(6)
_NOBODY = bytes(4)
_REQUEST, _REPLY = 1, 2
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_KIND = (1, 0x0800, 6, 4)  # Ethernet, IPv4, and the lengths of their addresses

_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136
_IPV6 = struct.Struct("!IHBB16s16s")
_DISCOVERY = struct.Struct("!BBHI16s")
_SOURCE_LINK, _TARGET_LINK = 1, 2
_ANY = bytes(16)
_ALL_NODES = IPv6Address("ff02::1")
_ROUTER, _OVERRIDE = 0x80000000, 0x20000000


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An address that stands behind a MAC, to be said through a NIC.

    Through the NIC also when the MAC is that of a macvlan on it: what a macvlan broadcasts is cloned to all others.
    With `refresh` it only keeps switches from forgetting the MAC, for which one frame is enough.
    """

    link: LinkName
    address: Address
    mac: Mac
    refresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a frame says of one address: that `mac` has it, or (`asking`) that `mac` probes whether anybody has it."""

    address: Address
    mac: Mac
    asking: bool


def announcing(announcement: Announcement) -> tuple[bytes, ...]:
    """Return the frames of an announcement.

    IPv4: a request and, for those who learn only from replies, a reply. IPv6: an unsolicited advertisement that
    overrides what is cached; its router flag is set because a gateway forwards, and the kernel's own answers have it.
    """
    own, address = packed(announcement.mac), announcement.address
    if isinstance(address, IPv6Address):
        says = _discovery(_ADVERTISEMENT, address, _ROUTER | _OVERRIDE, _link_option(_TARGET_LINK, own))
        return (_ipv6(own, address.packed, _ALL_NODES, says),)
    request = _arp(_REQUEST, own, address.packed, _UNKNOWN, address.packed)
    if announcement.refresh:
        return (request,)
    return request, _arp(_REPLY, own, address.packed, own, address.packed)


def probing(address: Address, mac: Mac, *, at: Mac | None = None) -> bytes:
    """Return the frame by which a NIC with this MAC asks whether anybody has the address, without claiming it.

    `at` is a MAC that alone shall hear it. Of IPv6 it is ignored: the question is for a group, and the answer for all.
    """
    own = packed(mac)
    if isinstance(address, IPv4Address):
        frame = _arp(_REQUEST, own, _NOBODY, _UNKNOWN, address.packed)
        return frame if at is None else packed(at) + frame[len(_BROADCAST) :]
    group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(address) & 0xFFFFFF)
    return _ipv6(own, _ANY, group, _discovery(_SOLICITATION, address, 0, b""))


def hear(frame: bytes) -> Heard | None:
    """Return what a frame says, None when it is no ARP and no neighbour discovery, or malformed."""
    if len(frame) < _ETHERNET.size:
        return None
    _, source, kind = _ETHERNET.unpack_from(frame)
    if kind == ARP:
        return _hear_arp(frame[_ETHERNET.size :])
    return _hear_discovery(frame[_ETHERNET.size :], source) if kind == IPV6 else None


def packed(mac: Mac) -> bytes:
    """Return the six bytes of a MAC."""
    return bytes.fromhex(mac.replace(":", ""))


def shown(mac: bytes) -> Mac:
    """Return a MAC as the model writes it."""
    return Mac(mac.hex(":"))


def _arp(operation: int, sender: bytes, sender_ip: bytes, target: bytes, target_ip: bytes) -> bytes:
    body = _ARP.pack(*_ARP_KIND, operation, sender, sender_ip, target, target_ip)
    return _ETHERNET.pack(_BROADCAST, sender, ARP) + body


def _hear_arp(body: bytes) -> Heard | None:
    if len(body) < _ARP.size:
        return None
    *kind, operation, sender, sender_ip, _, target_ip = _ARP.unpack_from(body)
    if tuple(kind) != _ARP_KIND:
        return None
    if sender_ip != _NOBODY:
        return Heard(address=IPv4Address(sender_ip), mac=shown(sender), asking=False)
    return Heard(address=IPv4Address(target_ip), mac=shown(sender), asking=True) if operation == _REQUEST else None


def _discovery(kind: int, target: IPv6Address, flags: int, option: bytes) -> bytes:
    return _DISCOVERY.pack(kind, 0, 0, flags, target.packed) + option


def _link_option(kind: int, mac: bytes) -> bytes:
    return bytes([kind, 1]) + mac  # the length counts units of 8 bytes


def _ipv6(own: bytes, source: bytes, destination: IPv6Address, body: bytes) -> bytes:
    """Return the frame to a multicast group; hop limit 255 proves to the receiver that no router passed it on."""
    target = destination.packed
    total = _sum(source + target + struct.pack("!II", len(body), _ICMPV6) + body)
    checked = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    ethernet = _ETHERNET.pack(b"\x33\x33" + target[-4:], own, IPV6)
    return ethernet + _IPV6.pack(6 << 28, len(checked), _ICMPV6, 255, source, target) + checked


def _sum(content: bytes) -> int:
    """Return the ones' complement sum of 16-bit words (RFC 1071); the length is even."""
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _hear_discovery(packet: bytes, ethernet_source: bytes) -> Heard | None:
    if len(packet) < _IPV6.size + _DISCOVERY.size:
        return None
    _, length, protocol, hops, source, destination = _IPV6.unpack_from(packet)
    body = packet[_IPV6.size : _IPV6.size + length]
    if protocol != _ICMPV6 or hops != 255 or len(body) < max(length, _DISCOVERY.size) or length % 8:
        return None
    if _sum(source + destination + struct.pack("!II", length, _ICMPV6) + body) != 0xFFFF:
        return None
    kind, _, _, _, target = _DISCOVERY.unpack_from(body)
    options = body[_DISCOVERY.size :]
    if kind == _ADVERTISEMENT:
        mac = _option(options, _TARGET_LINK) or ethernet_source
        return Heard(address=IPv6Address(target), mac=shown(mac), asking=False)
    if kind == _SOLICITATION and source == _ANY:
        return Heard(address=IPv6Address(target), mac=shown(ethernet_source), asking=True)
    mac = _option(options, _SOURCE_LINK)
    return Heard(address=IPv6Address(source), mac=shown(mac), asking=False) if kind == _SOLICITATION and mac else None


def _option(options: bytes, wanted: int) -> bytes:
    """Return the MAC in the first option of a kind, b"" when there is none."""
    while len(options) >= 8 and options[1]:
        if options[0] == wanted and options[1] == 1:
            return options[2:8]
        options = options[options[1] * 8 :]
    return b""
