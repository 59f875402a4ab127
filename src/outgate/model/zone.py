"""A zone of OVN as a packet meets it: routers and switches with their ports, and what ovn-trace says of a packet.

Source: ovn-nb(5), ovn-trace(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.net import Address
from outgate.model.nics import HostCidr
from outgate.model.ovn import DropAcl, LogicalRoute, Policy, Snat


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterPort:
    """A Logical_Router_Port. `peer` is another router's port that it is wired to without a switch."""

    router: str
    name: str
    mac: str
    interfaces: tuple[HostCidr, ...]
    peer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchPort:
    """A Logical_Switch_Port. `kind` is its type: empty for pods and management ports, `router`, `localnet`, `remote`.

    `router_port` is the port of the router that a port of kind `router` leads to.
    """

    switch: str
    name: str
    kind: str = ""
    mac: str = ""
    addresses: tuple[Address, ...] = ()
    router_port: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """All rows of a zone that decide where a pod's packet goes, ours and others' alike.

    `gateways` are the routers that are bound to a chassis, with its name; `sets` the addresses by set; `acls` are ours.
    Load balancers and others' ACLs are not here.
    """

    name: str
    policies: frozenset[Policy] = frozenset()
    snats: frozenset[Snat] = frozenset()
    routes: frozenset[LogicalRoute] = frozenset()
    acls: frozenset[DropAcl] = frozenset()
    sets: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    router_ports: tuple[RouterPort, ...] = ()
    switch_ports: tuple[SwitchPort, ...] = ()
    gateways: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Microflow:
    """A packet as ovn-trace is asked about it: where it enters a datapath, and what stands in it. Port 0: none."""

    datapath: str
    inport: str
    eth_src: str
    eth_dst: str
    source: Address
    destination: Address
    ttl: int = 64
    protocol: str = "tcp"
    port: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """A port by which a packet leaves OVN or its zone, and the port's kind in OVN's words."""

    port: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OvnSaid:
    """What ovn-trace says of a packet in one zone; no outputs: it is dropped.

    `source` is the address that it gets, None where none is told: of a neighbour whose MAC nobody has learned, it
    follows the question for that and not the packet. `policy` and `flow` are the last policy and the last flow that
    decided, in its words; `text` is all that it said.
    """

    zone: str
    outputs: tuple[Output, ...]
    next_hop: Address | None = None
    source: Address | None = None
    asks_neighbour: bool = False
    policy: str = ""
    flow: str = ""
    text: str = ""
