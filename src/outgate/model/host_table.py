"""Words for the route tables that EgressIP uses on a node: one for each secondary NIC, and rules that lead there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.firewall import SourceNat
from outgate.model.net import MAIN, Address, Link, LinkName, Prefix, Route, Rule, Setting, TableId
from outgate.model.ruleset import Element
from outgate.model.why import Finding

EGRESS_IP_PRIORITY = 6000  # of the rules that send a pod's packets to the table of its egress IP's NIC
TO_NODES_PRIORITY = 5999  # of its rule for marked packets: those to other nodes, which keep to the main table
FIRST_TABLE = 1000  # the table of a NIC is this and its ifindex


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTables:
    """A node's links, policy rules, and routes of all tables; a route of several next hops is several of these.

    `settings` are those of links that say whether packets are forwarded and answers taken.
    """

    links: Mapping[LinkName, Link]
    routes: frozenset[Route]
    rules: frozenset[Rule]
    settings: Mapping[tuple[LinkName, Setting], int] = field(default_factory=lambda: MappingProxyType({}))

    def host_table(self, link: LinkName) -> TableId:
        """Return the table in which the host's own routes by a link stand: main, or that of its VRF."""
        return self.links[link].table if link in self.links else MAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSnat:
    """An entry of OVN-Kubernetes' map on a node: packets of a pod that leave by a link get an egress IP."""

    pod: Address
    link: LinkName
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedLink:
    """A link by which a chain of somebody else lets no pod's packet of an IP version out, or no answer back in.

    `jumps`: unless a chain that it jumps to lets it pass.
    """

    link: LinkName
    version: int
    place: str
    jumps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Translations:
    """What a node's host gives pods' packets as their source, and by which links it does not let them out.

    `elements` are those of outgate's table, None where there is none; `by_nic` OVN-Kubernetes' map; `others` the rules
    of anybody else.
    """

    elements: frozenset[Element] | None = None
    by_nic: frozenset[NicSnat] = frozenset()
    others: tuple[SourceNat, ...] = ()
    refused: tuple[RefusedLink, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Where a pod whose egress IP is on a link would send a packet, and where the host itself would.

    `held` is the route of the link's table, `on_link` the main table's best among those by that link, `main` its best.
    None: there is no route.
    """

    destination: Address
    held: Route | None
    on_link: Route | None
    main: Route | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressTable:
    """One NIC's table: whose packets are sent there (sources of the rules), what it holds, and what is wrong with it.

    `link` is None when no link has the table's number any more.
    """

    table: TableId
    link: LinkName | None
    sources: tuple[Prefix, ...]
    routes: tuple[Route, ...]
    findings: tuple[Finding, ...]
    compared: Compared | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSnapshot:
    """One node's host at one moment (wall clock, seconds), to be asked about elsewhere.

    `translations` are None where whoever took it had no right to read nftables.
    """

    node: str
    taken_s: float
    host: HostTables
    translations: Translations | None = None
