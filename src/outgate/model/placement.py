"""The words of placement: how nodes did when they were last asked, and which node takes each egress IP.

They are used where outgate assigns egress IPs itself. Elapsed time comes as facts: whoever asks nodes, and counts
moves, knows the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.net import Address, Prefix
from outgate.model.why import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """How a node did when it was last asked; what nobody has asked is well.

    `cut` are networks of the node by which nothing gets out, because its routers there do not answer. `taken` are
    addresses that somebody else on the LAN has, neither a node nor outgate, each with that one's MAC. `draining`: it is
    planned that the node goes away, and everything leaves it in one go.
    """

    reachable: bool = True
    cut: frozenset[Prefix] = frozenset()
    taken: Mapping[Address, str] = field(default_factory=lambda: MappingProxyType({}))
    draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementFacts:
    """What placement knows beside the intent. A node that is missing in `health` was never asked.

    `held` are addresses, each with the name of its EgressIP, that moved a short while ago: they leave no node because a
    network of it is cut. `moves_left` is how many moves by failure may still be made now.
    """

    health: Mapping[str, NodeHealth] = field(default_factory=lambda: MappingProxyType({}))
    held: frozenset[tuple[str, Address]] = frozenset()
    moves_left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """An address of an EgressIP goes from a node to another one, and why. An empty node is none.

    `counted`: a failure made it go, and it uses up one of `moves_left`.
    """

    egress_ip: str
    address: Address
    from_node: str
    to_node: str
    reason: str
    counted: bool = False

    def __str__(self) -> str:
        way = f"from {self.from_node or 'no node'} to {self.to_node or 'no node'}"
        return f"EgressIP/{self.egress_ip} {self.address} {way}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A move that was seen or made, and when, as the server writes a time."""

    at: str
    egress_ip: str
    address: Address
    from_node: str
    to_node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where each address is to be: nodes with addresses by the name of the EgressIP, in the order of its addresses.

    Every EgressIP is in `items`; one without a node has none there. `moves` are what differs from what stands.
    """

    items: Mapping[str, tuple[tuple[str, Address], ...]]
    moves: tuple[Move, ...] = ()
    findings: tuple[Finding, ...] = ()
