"""OVN-Kubernetes' maps of egress IPs on secondary NICs, in its table `inet ovn-kubernetes`; read, never written.

Source: go-controller/pkg/node/controllers/egressip/nftables.go of OVN-Kubernetes (2026).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import msgspec

from outgate.model.errors import Refused, Unreachable
from outgate.model.host_table import NicSnat
from outgate.model.net import LinkName
from outgate.systems.nft import program

_PLACE = ("inet", "ovn-kubernetes")
_MAPS = ("egress-ip-snat-v4", "egress-ip-snat-v6")


def read_nic_snats() -> frozenset[NicSnat]:
    """Return the entries of both maps, in the calling thread's network namespace; none where there are no such maps.

    Raises:
        NotReady: nft is not installed, or too old.
        Refused: nftables can not be read at all.
        Unreachable: nft does not answer.
    """
    listed = program.run(("-j", "list", "tables"), change="list the tables of nftables")
    tables = {(one["table"]["family"], one["table"]["name"]) for one in _objects(listed) if "table" in one}
    if _PLACE not in tables:
        return frozenset()
    return frozenset(entry for name in _MAPS for entry in _entries(name))


def _entries(name: str) -> Iterator[NicSnat]:
    try:
        listed = program.run(("-j", "list", "map", *_PLACE, name), change=f"list map {' '.join(_PLACE)} {name}")
    except Refused:
        return  # a version of OVN-Kubernetes that has the table has not always the map
    for one in _objects(listed):
        for key, value in one.get("map", {}).get("elem", ()):
            pod, link = key["concat"]
            yield NicSnat(pod=ip_address(pod), link=LinkName(link), address=ip_address(value))


def _objects(text: bytes) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = msgspec.json.decode(text)["nftables"]
    except msgspec.DecodeError as error:
        raise Unreachable(f"nft lists in a way that is no JSON of a ruleset: {error}") from error
    return found
