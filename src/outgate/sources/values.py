"""Texts of the user become values here, and nowhere else: addresses, prefixes, ranges, names, labels, durations.

Each function returns the value or raises Wrong with a sentence that completes "VALUE ..." and with what to write. What
two programs read in two ways is refused: leading zeros (RFC 6943, 3.1.1), IPv4-mapped IPv6, zone ids, host bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from outgate.model.net import Address, LinkName, Prefix, Span
from outgate.sources.words import Wrong, quote

_ZEROS = re.compile(r"(?<![0-9a-fA-F:.])((?:[0-9]{1,4}\.){3}[0-9]{1,4})(?![0-9.])")
_DOTTED_MASK = re.compile(r"/[0-9]+\.[0-9.]+$")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LINK = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]*")
_DURATION = re.compile(r"(?:[0-9]{1,8}[dhms])+")
_UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_KERNEL_WORDS = {"all": "stands for all links", "default": "stands for links to come"}  # in net.ipv4.conf

# Blocks whose addresses no neighbour can answer for: IANA special-purpose registries; RFC 1122 3.2.1.3, RFC 4291 2.4.
_NO_HOSTS: tuple[tuple[Prefix, str], ...] = (
    (IPv4Network("0.0.0.0/8"), 'is in 0.0.0.0/8, which means "this network"'),
    (IPv4Network("127.0.0.0/8"), "is a loopback address"),
    (IPv4Network("169.254.0.0/16"), "is a link-local address"),
    (IPv4Network("224.0.0.0/4"), "is a multicast address"),
    (IPv4Network("255.255.255.255/32"), "is the broadcast address"),
    (IPv6Network("::/128"), "is the unspecified address"),
    (IPv6Network("::1/128"), "is the loopback address"),
    (IPv6Network("fe80::/10"), "is a link-local address"),
    (IPv6Network("ff00::/8"), "is a multicast address"),
)


def parse_address(text: str) -> Address:
    """Return an address, of any kind."""
    if "/" in text:
        raise Wrong("carries a prefix length", f"write {quote(text.split('/', maxsplit=1)[0])}")
    return _address(text)


def parse_host(text: str) -> Address:
    """Return an address that a machine on the LAN can hold."""
    address = parse_address(text)
    for block, reason in _NO_HOSTS:
        if address.version == block.version and address in block:
            raise Wrong(reason, "use an address that a machine can hold")
    return address


def parse_prefix(text: str) -> Prefix:
    """Return a prefix, which may be all addresses (0.0.0.0/0)."""
    address, slash, length = text.partition("/")
    if not slash:
        parsed = _address(text)
        raise Wrong("has no prefix length", f"write {quote(f'{parsed}/{parsed.max_prefixlen}')} for this one address")
    first = _address(address)
    if _DOTTED_MASK.search(text):
        raise Wrong("has a dotted mask", f"write the number of its bits, as in {quote(_with_bits(text, first))}")
    if not re.fullmatch(r"0|[1-9][0-9]{0,2}", length) or int(length) > first.max_prefixlen:
        raise Wrong(f"has no prefix length from 0 to {first.max_prefixlen}", f"write it as in {quote(f'{first}/24')}")
    prefix = ip_network((first, int(length)), strict=False)
    if prefix.network_address != first:
        one = f"{first}/{first.max_prefixlen}"
        fix = f"write {quote(str(prefix))} for the prefix, or {quote(one)} for the one address"
        raise Wrong(f"has bits set behind its prefix length {length}", fix)
    return prefix


def _with_bits(text: str, first: Address) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return f"{first}/24"


def parse_part(text: str) -> Prefix:
    """Return a prefix that is not all addresses of its family."""
    prefix = parse_prefix(text)
    if prefix.prefixlen == 0:
        raise Wrong("means every address there is", "name the prefixes that are meant")
    return prefix


def parse_span(text: str) -> Span:
    """Return a range: one address, `first-last`, or a prefix."""
    first, dash, last = text.partition("-")
    if dash:
        span = Span(first=_end(first), last=_end(last))
    elif "/" in text:
        prefix = parse_prefix(text)
        span = Span(first=prefix.network_address, last=prefix.broadcast_address)
    else:
        span = Span(first=parse_address(text), last=parse_address(text))
    if span.first.version != span.last.version:
        raise Wrong("begins in one address family and ends in the other", "write one range a family")
    if int(span.first) > int(span.last):
        raise Wrong("ends before it begins", f'write "{span.last}-{span.first}"')
    return span


def _end(text: str) -> Address:
    try:
        return parse_address(text)
    except Wrong as error:
        raise Wrong(f"has the end {quote(text)}, which {error.text}", error.fix) from None


def parse_host_span(text: str) -> Span:
    """Return a range of addresses that machines can hold."""
    span = parse_span(text)
    for block, reason in _NO_HOSTS:
        if (
            block.version == span.first.version
            and int(span.first) <= int(block.broadcast_address)
            and int(block.network_address) <= int(span.last)
        ):
            shown = block.network_address if block.num_addresses == 1 else block
            raise Wrong(f"touches {shown}, which {reason}", "leave these addresses out")
    return span


def parse_link(text: str) -> LinkName:
    """Return the name of a network interface.

    The kernel would take nearly anything (net/core/dev.c, dev_valid_name); names that a shell, a ruleset or a pattern
    could read as something else are refused, because nobody means them.
    """
    if not 1 <= len(text.encode(errors="replace")) <= 15:
        raise Wrong("is not 1 to 15 bytes long, as interface names are", "see the names with `ip -br link`")
    if ":" in text:
        raise Wrong(
            'contains ":", which no interface has (eth0:1 is a label of an address)', "name the interface itself"
        )
    if text in (".", "..") or not _LINK.fullmatch(text):
        raise Wrong(
            "is no interface name: letters, digits and _ . @ - are allowed, and no @ or - in front",
            "see the names with `ip -br link`; patterns such as eth* are not taken",
        )
    if text in _KERNEL_WORDS:
        raise Wrong(f"{_KERNEL_WORDS[text]} in kernel settings", "name one interface")
    if text.startswith("og-"):
        raise Wrong("begins with og-, as the links do that outgate makes itself", "name a NIC of the machine")
    return LinkName(text)


def parse_name(text: str) -> str:
    """Return the name of an object (RFC 1123 subdomain, as Kubernetes has it)."""
    if not text or len(text) > 253 or not _NAME.fullmatch(text):
        lower = text.lower().replace("_", "-").replace(" ", "-")
        fix = f"write {lower}" if len(lower) <= 253 and _NAME.fullmatch(lower) else "choose a name such as ns-red"
        raise Wrong("is no object name: 1 to 253 lower-case letters, digits, - and ., no - or . at an end", fix)
    return text


def parse_label_key(text: str) -> str:
    """Return the key of a label: `name` or `prefix/name`."""
    prefix, slash, word = text.rpartition("/")
    is_prefix_fine = not slash or (len(prefix) <= 253 and _NAME.fullmatch(prefix) is not None)
    if not is_prefix_fine or not _LABEL_WORD.fullmatch(word):
        raise Wrong(
            "is no label key",
            "write it as in app or kubernetes.io/metadata.name; the part after / has 1 to 63 characters",
        )
    return text


def parse_label_value(text: str) -> str:
    """Return the value of a label, which may be empty."""
    if text and not _LABEL_WORD.fullmatch(text):
        raise Wrong(
            "is no label value", "write at most 63 letters, digits and - _ . with a letter or digit at both ends"
        )
    return text


def parse_duration(least_s: int, most_s: int) -> Callable[[str], int]:
    """Return a reader of durations such as 30s, 5m, 24h, 7d or 1h30m, within limits; all in seconds."""

    def parse(text: str) -> int:
        if not _DURATION.fullmatch(text):
            raise Wrong("is no duration", 'write a number and s, m, h or d, as in "5m" or "24h"')
        seconds = sum(int(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"[0-9]+[dhms]", text))
        if not least_s <= seconds <= most_s:
            raise Wrong(
                f"is not from {show_duration(least_s)} to {show_duration(most_s)}", "choose a duration in between"
            )
        return seconds

    return parse


def show_duration(seconds: int) -> str:
    """Return seconds in the largest units that divide them: 5400 is 90m."""
    for letter, unit_s in _UNITS_S.items():
        if seconds and seconds % unit_s == 0:
            return f"{seconds // unit_s}{letter}"
    return "0s"


def _address(text: str) -> Address:
    """Return an address, or say which of the usual slips it is."""
    if "%" in text:
        raise Wrong(
            "carries a zone", f"write {quote(text.split('%', maxsplit=1)[0])}; the interface has a field of its own"
        )
    zeros = _ZEROS.fullmatch(text)
    if zeros and any(len(octet) > 1 and octet[0] == "0" for octet in text.split(".")):
        decimal = ".".join(str(int(octet)) for octet in text.split("."))
        raise Wrong(
            "has a leading zero, which some programs read as octal", f"write {quote(decimal)} if decimal was meant"
        )
    try:
        address = ip_address(text)
    except ValueError:
        raise Wrong("is no IPv4 or IPv6 address", "write it as in 192.168.55.113 or fd55::113") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise Wrong("is an IPv4 address written as IPv6", f"write {quote(str(address.ipv4_mapped))}")
    return address


def families(addresses: tuple[Address, ...] | tuple[Prefix, ...]) -> set[int]:
    """Return the address families that occur, as 4 and 6."""
    return {4 if isinstance(address, IPv4Address | IPv4Network) else 6 for address in addresses}
