"""The words for who answers for an egress IP on its LAN, by ARP or neighbour discovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.net import Address, LinkName, Mac
from outgate.model.why import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a node heard on a link: for each address that it asked for, the MACs that answered. It does not hear
    itself; `own` is its MAC there.
    """

    node: str
    link: LinkName
    own: Mac | None
    answers: Mapping[Address, frozenset[Mac]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Who answers for an address and who should (`node`, empty: nobody). `answers` are MACs, each with the node that
    it is of, as far as that is known. `cloud` is what the cloud's object says, empty where there is none.
    """

    address: Address
    owner: str
    node: str
    asked_on: str
    answers: tuple[tuple[Mac, str], ...]
    cloud: str
    findings: tuple[Finding, ...] = ()
