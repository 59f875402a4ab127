"""What the role on a node says and asks on its links, where outgate does all of EgressIP.

An egress IP that nobody had before is asked for before it is used; one that is used is announced, and others who claim
it are heard; the routers by each NIC are watched. The cluster role is told: by which networks nothing gets out, and who
else has an address. A node that the API server does not reach gives up what somebody else claims: another node has it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from outgate.control.node_neighbours import NodeNeighbours
from outgate.model.errors import Unreachable
from outgate.model.host_table import HostTables
from outgate.model.intent import EgressNode, Node
from outgate.model.net import MAIN, Address, LinkName, Mac, OnLink, Prefix, Via
from outgate.plan.egress_ip import BRIDGE, MANAGEMENT_PORT, Networks, hosting_nic

_ASKED_AGAIN_S = 60.0  # who had an address may have left

log = logging.getLogger("outgate.node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What may be done now: `work` without what is being asked for, was found with others, or was lost to one."""

    work: EgressNode
    taken: tuple[tuple[Address, str], ...] = ()
    cut: tuple[Prefix, ...] = ()


class NodeClaims:
    """One node's part of the talk on its links. Without the right to it (CAP_NET_RAW) nothing is said or asked."""

    def __init__(self, changed: Callable[[], None], *, again_s: float = _ASKED_AGAIN_S) -> None:
        self._again_s = again_s
        self._neighbours: NodeNeighbours | None = None
        try:
            self._neighbours = NodeNeighbours(asyncio.get_running_loop(), changed)
        except Unreachable as error:
            log.warning("nothing is announced or asked", extra={"fields": {"error": str(error)}})
        self._free: set[Address] = set()  # what was asked for and is nobody's, or was ours before
        self._taken: dict[Address, tuple[Mac, float]] = {}  # by whom, and when that was heard (monotonic)

    def close(self) -> None:
        """Say and ask nothing any more."""
        if self._neighbours is not None:
            self._neighbours.close()

    def look(self, work: EgressNode, node: Node, host: HostTables, *, is_cut_off: bool) -> Claims:
        """Return what may be done of some work; `is_cut_off`: the API server does not answer, and it may be old."""
        if self._neighbours is None:
            return Claims(work=work)
        networks = Networks.of(node.primary, host)
        self._neighbours.watch(dict(_routers(node, host)))
        self._free &= {one.address for one in work.assignments}
        again = self._hear(self._neighbours, time.monotonic())
        asked = {one.address for one in work.assignments if one.is_new and one.address not in self._free}
        lost = set(self._neighbours.taken) if is_cut_off else set()
        wanted = asked | self._taken.keys()
        self._neighbours.ask(_by_link(wanted - again, networks))
        if again:
            self._neighbours.ask(_by_link(wanted, networks))
        withheld = asked | lost
        kept = tuple(one for one in work.assignments if one.address not in withheld)
        return Claims(
            work=work if not withheld else replace(work, assignments=kept),
            taken=tuple(sorted(((address, str(mac)) for address, (mac, _) in self._taken.items()), key=str)),
            cut=tuple(sorted(_networks_of(self._neighbours.cut, node, networks), key=str)),
        )

    def stands(self, work: EgressNode, node: Node, host: HostTables) -> None:
        """Announce what is in force now."""
        if self._neighbours is not None:
            addresses = {one.address for one in work.assignments if one.pods}
            self._free |= addresses
            self._neighbours.hold(_by_link(addresses, Networks.of(node.primary, host)))

    def _hear(self, neighbours: NodeNeighbours, now_s: float) -> set[Address]:
        """Take verdicts; return what somebody had a while ago, and is to be asked for again: he may have left."""
        self._free |= neighbours.free
        self._taken = {address: one for address, one in self._taken.items() if address not in neighbours.free}
        for address, mac in neighbours.taken.items():
            if address not in self._free:
                self._taken.setdefault(address, (mac, now_s))
        again = {address for address, (_, at) in self._taken.items() if now_s - at >= self._again_s}
        self._taken |= {address: (self._taken[address][0], now_s) for address in again}
        return again


def _by_link(addresses: Iterable[Address], networks: Networks) -> dict[Address, LinkName]:
    found = ((address, hosting_nic(address, networks)) for address in addresses)
    return {address: link for address, link in found if link is not None}


def _routers(node: Node, host: HostTables) -> Iterator[tuple[LinkName, frozenset[Address]]]:
    """Yield the links that lead out, each with the routers by it: of br-ex those of the gateway router."""
    yield BRIDGE, frozenset(node.next_hops)
    by_link: dict[LinkName, set[Address]] = {}
    for route in host.routes:
        if isinstance(route.hop, OnLink) and route.table == MAIN and _is_lan(route.dst):
            by_link.setdefault(route.hop.link, set())
    for route in host.routes:
        if isinstance(route.hop, Via) and route.hop.link in by_link and route.table == host.host_table(route.hop.link):
            by_link[route.hop.link].add(route.hop.address)
    for link, routers in by_link.items():
        if link not in (BRIDGE, MANAGEMENT_PORT):
            yield link, frozenset(routers)


def _is_lan(prefix: Prefix) -> bool:
    return 0 < prefix.prefixlen < prefix.max_prefixlen and not prefix.is_link_local and not prefix.is_multicast


def _networks_of(links: Iterable[LinkName], node: Node, networks: Networks) -> set[Prefix]:
    gone = set(links)
    found = {one.dst for one in networks.connected if one.link in gone and _is_lan(one.dst)}
    return found | (set(node.primary) if BRIDGE in gone else set())
