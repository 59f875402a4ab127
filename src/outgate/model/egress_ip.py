"""The words of EgressIP: what is asked of a packet from a pod with an egress IP, and the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from types import MappingProxyType

from outgate.model.firewall import Firewall
from outgate.model.host_table import HostTables, Translations
from outgate.model.intent import Assignment, Departure, Intent, Node, Pod
from outgate.model.net import Address, Discard, LinkName, NextHop, Prefix, Route, TableId
from outgate.model.nics import HostCidr
from outgate.model.ovn import LogicalRoute, Policy, Snat
from outgate.model.rivals import NO_RIVALS, Rivals, Say
from outgate.model.routing import Routing, Stance
from outgate.model.why import Because, Finding


class Row(StrEnum):
    """A row of the decision tables in docs/egress-ip.md: T is today, R under `auto`."""

    T1 = "T1"
    T2 = "T2"
    T3 = "T3"
    T4 = "T4"
    T5 = "T5"
    T6 = "T6"
    T7 = "T7"
    T8 = "T8"
    T9 = "T9"
    T10 = "T10"
    T11 = "T11"
    R1 = "R1"
    R2 = "R2"
    R3 = "R3"
    R3H = "R3h"
    R4 = "R4"
    R5 = "R5"
    R6 = "R6"
    R7 = "R7"
    R8 = "R8"
    R9 = "R9"
    R11 = "R11"


class Path(Enum):
    """By which stack a packet leaves the egress node."""

    GATEWAY_ROUTER = "gateway router"
    HOST = "host"


class Place(Enum):
    """Where the source address is translated."""

    GATEWAY_ROUTER = "the gateway router"
    BRIDGE = "a flow of br-ex"
    HOST = "the host's nftables"
    NOWHERE = "nowhere"


class PodNetwork(Enum):
    """In what kind of network the pod is."""

    DEFAULT = "default"
    LAYER3 = "user-defined, layer 3"
    LAYER2 = "user-defined, layer 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """All that a node's plan may know.

    `policies`, `snats`, `routes`, `ports` (of routers) and `sets` (addresses by name) are those of others in the node's
    zone; `marks_answers` says whether its OVN can mark answers to flows from outside. `nodes` are all nodes, where
    outgate does all of EgressIP. `inside` are destinations that never see an egress IP, beside those that the zone's
    policies name: service networks, for one. `firewall` is what others filter by on the host.
    """

    node: Node
    host: HostTables
    assignments: tuple[Assignment, ...] = ()
    departures: tuple[Departure, ...] = ()
    stance: Stance = Stance.ASSIST
    inside: tuple[Prefix, ...] = ()
    nodes: tuple[Node, ...] = ()
    policies: frozenset[Policy] = frozenset()
    snats: frozenset[Snat] = frozenset()
    routes: frozenset[LogicalRoute] = frozenset()
    ports: Mapping[str, tuple[HostCidr, ...]] = field(default_factory=lambda: MappingProxyType({}))
    marks_answers: bool = True
    sets: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    firewall: Firewall = field(default_factory=Firewall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """Whether hardware may carry the flow, and why or why not. None: only in part."""

    possible: bool | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of packets of one pod, by one egress IP on one node, to one destination.

    `hops` are the next hops, more than one where a flow takes one of several; a Discard ends the packet, none means
    that there is no route. `link` is the one that it leaves by, None when it does not leave or when hops differ in
    that. `source` is what the world sees; None: nothing is translated to an egress IP. `table` is the host's route
    table that was asked, `route` the winner there and `over` those that lost.
    """

    row: Row
    node: str
    path: Path
    link: LinkName | None
    hops: tuple[NextHop, ...]
    source: Address | None
    place: Place
    offload: Offload
    honours_host: bool
    because: tuple[Because, ...]
    table: TableId | None = None
    route: Route | None = None
    over: tuple[Route, ...] = ()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def leaves(self) -> bool:
        """Whether the packet leaves the node at all."""
        return bool(self.hops) and not any(isinstance(hop, Discard) for hop in self.hops)

    @property
    def arrives(self) -> bool:
        """Whether it leaves by a route that somebody made: of a default that was made up nobody gets an answer."""
        return self.leaves and not any(one.reason == "NoDefaultRoute" for one in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """What questions about EgressIP are answered from: the cluster's objects, and the hosts of nodes that are known.

    `routing` is taken for all EgressIPs; None: each is routed as the cluster's EgressRoutings say. `translations` are
    those of hosts whose nftables were read.
    """

    intent: Intent
    hosts: Mapping[str, HostTables]
    routing: Routing | None = None
    translations: Mapping[str, Translations] = field(default_factory=lambda: MappingProxyType({}))
    rivals: Rivals = NO_RIVALS


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A node that might take an egress IP, and why it can not; an empty reason: it can. `network` is the one that
    holds the address there.
    """

    node: str
    reason: str
    network: Prefix | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressAnswer:
    """What happens to packets of one pod address by one egress IP.

    `today` is the decision under `legacy`, given where that is another. `reply` says how answers come back, `mtu` which
    sizes lie on the way, `large` what happens to answers that are larger than the pods' MTU.
    """

    pod_address: Address
    egress_ip: str
    address: Address
    decision: Decision
    today: Decision | None
    reply: str
    mtu: str
    large: str = ""
    others: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressExplanation:
    """Where a pod's packets to a destination go. `headline` is the decision in a line; `is_well`: nothing is amiss.
    `says` is what other objects do to them, in their order.
    """

    subject: str
    destination: Address
    headline: str
    is_well: bool
    known: bool = True
    answers: tuple[EgressAnswer, ...] = ()
    standby: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    says: tuple[Say, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRow:
    """One EgressIP in a list: its addresses with their nodes (empty: none), and how many pods it serves."""

    name: str
    addresses: tuple[tuple[Address, str], ...]
    pods: int
    namespaces: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressReason:
    """One address of an EgressIP: the node that has it (empty: none), what is amiss, and each node's fitness."""

    egress_ip: str
    address: Address
    node: str
    finding: Finding | None
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What becomes of one egress IP's packets to some ranges, if something changes.

    `destinations` are ranges that the egress node's routes tell apart and that fare alike. `pods` counts the pod
    addresses, on the egress node and elsewhere; the decisions are those of one of them.
    """

    egress_ip: str
    address: Address
    destinations: tuple[Prefix, ...]
    pods: int
    before: Decision
    after: Decision

    @property
    def changes(self) -> tuple[str, ...]:
        """What of it changes: `path`, `source`, `offload`, or `fate` where it leaves before or after only."""
        found = []
        if self.before.arrives is not self.after.arrives:
            found.append("fate")
        if (self.before.path, self.before.hops) != (self.after.path, self.after.hops):
            found.append("path")
        if self.before.source != self.after.source:
            found.append("source")
        if self.before.offload.possible is not self.after.offload.possible:
            found.append("offload")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One address of an EgressIP: its node (empty: none), the NIC there, where that is known, and the network."""

    address: Address
    node: str
    nic: LinkName | None = None
    network: Prefix | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressDetail:
    """An EgressIP as a whole: where its addresses are, the pods that it serves and those that have another first."""

    name: str
    placements: tuple[Placement, ...]
    pods: tuple[Pod, ...]
    standby: tuple[tuple[Pod, str], ...]
    findings: tuple[Finding, ...] = ()
