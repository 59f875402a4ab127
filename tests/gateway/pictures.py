"""What the gateway machine holds, told by other programs than outgate, so that two moments can be compared.

Numbers that are given out in the order of events (marks) are replaced by whom they belong to; what has no order is
sorted; handles, indexes and counters are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from outgate.lab.addresses import INNER_LINK, UPLINK
from outgate.lab.namespace import Namespace
from outgate.model.ledger import Ledger
from outgate.systems.statefile.state import StateFile

_MARK = re.compile(r"(?:0x|-)([0-9a-f]{8})\b")
_SETTINGS = ("arp_ignore", "arp_announce", "rp_filter", "src_valid_mark", "forwarding")
_LISTINGS = (
    ("ip", "-j", "rule"),
    ("ip", "-j", "-6", "rule"),
    ("ip", "-j", "route", "show", "table", "main"),
    ("ip", "-j", "-6", "route", "show", "table", "main"),
)


def ledger_in(place: Path) -> Ledger:
    """Return what a rig's gateway has written down."""
    return StateFile(place / "state" / "gateway").load().ledger


def picture(net: Namespace, ledger: Ledger) -> tuple[str, ...]:
    """Return all that the gateway machine holds, a line each."""
    return tuple(sorted((*_of_kernel(net), *_of_links(net), *_of_nft(net, ledger), *_of_settings(net))))


def difference(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    """Return what one picture has and the other has not."""
    missing = [f"- {line}" for line in expected if line not in found]
    extra = [f"+ {line}" for line in found if line not in expected]
    return "\n".join((*missing, *extra))


def _of_kernel(net: Namespace) -> Iterator[str]:
    for command in _LISTINGS:
        for entry in json.loads(net.run(command).stdout or "[]"):
            yield f"{' '.join(command[2:])}: {json.dumps(entry, sort_keys=True)}"


def _of_links(net: Namespace) -> Iterator[str]:
    for link in json.loads(net.run(("ip", "-j", "-d", "addr")).stdout):
        kept = {key: link.get(key) for key in ("ifname", "address", "altnames", "link", "flags")}
        yield f"link {json.dumps(kept, sort_keys=True)}"
        for one in link["addr_info"]:
            if one["scope"] != "link":
                yield f"address {one['local']}/{one['prefixlen']} on {link['ifname']}"


def _of_nft(net: Namespace, ledger: Ledger) -> Iterator[str]:
    """Yield the pieces of the ruleset with the block that they are in, each element apart."""
    owners: Mapping[int, str] = {allocation.mark >> 8: name for name, allocation in ledger.tenants.items()}

    def owner(found: re.Match[str]) -> str:
        mark = int(found[1], 16)
        return f"<{owners[mark >> 8]} {mark & 0xFF}>" if mark >> 8 in owners else found[0]

    block = ""
    for line in net.run(("nft", "-s", "-n", "list", "ruleset")).stdout.splitlines():
        words = line.strip()
        if words.endswith(" {"):
            block = words.removesuffix(" {")
        for piece in words.removeprefix("elements = {").split(", "):
            if piece.strip(" ,{}"):
                yield _MARK.sub(owner, f"nft {block}: {piece.strip(' ,{}')}")


def _of_settings(net: Namespace) -> Iterator[str]:
    for link in (INNER_LINK, UPLINK):
        for key in _SETTINGS:
            path = f"net/ipv4/conf/{link}/{key}"
            yield f"{path} = {net.sysctl(path)}"
    for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", f"net/ipv6/conf/{UPLINK}/accept_ra"):
        yield f"{path} = {net.sysctl(path)}"
