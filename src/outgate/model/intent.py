"""What users ask for: our kinds (outgate.io/v1alpha1) and the cluster's objects, parsed, each with its origin.

Field for field as in docs/reference.md. Lists are tuples, maps are sorted tuples of pairs, so that values hash; absent
lists are empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from outgate.model.inbound import InboundAllowance
from outgate.model.net import Address, LinkName, Prefix, Span
from outgate.model.nics import CloudNic, GatewayMode, HostCidr
from outgate.model.placement import Moved
from outgate.model.routing import DEFAULT_ROUTING, NicGateway, OnUnassigned, Routing, Semantics, SnatScope, Stance
from outgate.model.selector import Labels, LabelSelector
from outgate.model.why import Finding, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerInterface:
    """A NIC towards the cluster; `shared_next_hops` are addresses that source-identity tenants share there (/32 or
    /128, ours).
    """

    interface: LinkName
    shared_next_hops: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalDestination:
    """A destination on the inner side that tenants may reach untranslated, on exactly this link."""

    cidr: Prefix
    interface: LinkName


class AnnounceMethod(Enum):
    """How addresses are made known to neighbours."""

    LAYER2 = "Layer2"  # gratuitous ARP and unsolicited neighbour advertisements
    NONE = "None"  # somebody else does it


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """How an EgressGateway announces and probes. Rates in frames per second, intervals in seconds."""

    method: AnnounceMethod = AnnounceMethod.LAYER2
    rate_per_s: int = 50
    probes: int = 3  # 0 turns duplicate address detection off
    probe_interval_s: float = 0.3

    @property
    def asks(self) -> bool:
        """Whether an address is probed before it is used for the first time."""
        return self.probes > 0 and self.method is not AnnounceMethod.NONE


CLAIM_NAMESPACE, CLAIM_NAME = "outgate.io/claim-namespace", "outgate.io/claim-name"  # labels of a claim's EgressTenant


MADE_BY = ("app.kubernetes.io/managed-by", "outgate")  # label of what the cluster role makes for tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of an object's status. `holds` None is Unknown; `since` is as the server writes a time."""

    type: str
    holds: bool | None
    reason: str
    message: str
    generation: int = 0
    since: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one gateway says of an object: of which generation, whether the machine holds all of it, and why not."""

    gateway: str
    generation: int
    programmed: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An address that a pool has given: to which tenant, and, since that released it, until when it rests."""

    address: Address
    tenant: str
    rests_until_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What stands in an object's status."""

    conditions: tuple[Condition, ...] = ()
    told: tuple[Told, ...] = ()
    given: tuple[Given, ...] = ()
    addresses: tuple[Address, ...] = ()  # of a tenant or a claim
    moves: tuple[Moved, ...] = ()  # of egress IPs, the oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What an API server adds to an object of ours. `created` is as the server writes it, which sorts by time.

    Who writes statuses reads them too: then `standing` is there, and `version` is the resourceVersion that it was.
    """

    uid: str
    generation: int
    created: str
    version: str = ""
    standing: Standing | None = None
    claim: tuple[str, str] | None = None  # namespace and name of the EgressClaim that an EgressTenant was made for


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """An object of ours that the API server took and we can not read; a refusal about it says why."""

    kind: str
    name: str
    served: Served
    namespace: str = ""

    @property
    def about(self) -> str:
        """Return how findings name it."""
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressGateway:
    """One gateway machine: its NICs and what it protects."""

    name: str
    inner: tuple[InnerInterface, ...]
    uplinks: tuple[LinkName, ...]
    cluster_networks: tuple[Prefix, ...] = ()
    bypass: tuple[Prefix, ...] = ()
    internal_destinations: tuple[InternalDestination, ...] = ()
    announce: Announce = field(default_factory=Announce)
    served: Served | None = field(default=None, compare=False)
    served_by: tuple[tuple[str, Served], ...] = field(default=(), compare=False)  # of several clusters, by their names
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NextHopIdentity:
    """The tenant is told by the next hop its nodes use: a link and MAC of its own. At most one address per family."""

    addresses: tuple[Address, ...]
    interface: LinkName | None = None  # None: the inner NIC whose connected prefix holds the addresses, else the first


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIdentity:
    """The tenant is told by the source address: its pods', and any `cidrs` (machines outside Kubernetes)."""

    cidrs: tuple[Prefix, ...] = ()


Identity: TypeAlias = NextHopIdentity | SourceIdentity


class SourceCheck(Enum):
    """Which sources may use a tenant's next hop."""

    PODS = "pods"
    NODE_SUBNETS = "nodeSubnets"
    OFF = "off"


class OnChange(Enum):
    """What happens to live flows when an egress IP is taken from a tenant."""

    DRAIN = "drain"
    FLUSH = "flush"


@dataclass(frozen=True, slots=True)
class PoolClaim:
    """So many addresses of one family from an EgressPool."""

    pool: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRule:
    """For these destinations, these egress IPs instead of the tenant's own. The longest prefix wins."""

    cidrs: tuple[Prefix, ...]
    egress_ips: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Bytes per second that leave or enter for a tenant."""

    bytes_per_s: int
    burst_bytes: int


@dataclass(frozen=True, slots=True)
class ByteQuota:
    """Bytes per period (seconds) for a tenant."""

    limit_bytes: int
    period_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressTenant:
    """A group of namespaces with its own egress IPs on a gateway. Exactly one of `egress_ips` and `claim` is given.

    `allocated` is what a claim was given by whoever gives addresses for all gateways of a cluster; None: nobody does,
    and the gateway takes them from the pool itself.
    """

    name: str
    identity: Identity
    gateway: str | None = None
    namespace_selector: LabelSelector | None = None
    pod_selector: LabelSelector | None = None
    source_check: SourceCheck = SourceCheck.NODE_SUBNETS
    egress_ips: tuple[Address, ...] = ()
    claim: PoolClaim | None = None
    allocated: tuple[Address, ...] | None = None
    uplink: LinkName | None = None  # None: the uplink whose connected prefix holds the address, else the first
    destinations: tuple[DestinationRule, ...] = ()
    on_change: OnChange = OnChange.DRAIN
    allow_inbound: tuple[InboundAllowance, ...] = ()
    rate: RateLimit | None = None
    connections: int | None = None
    quota: ByteQuota | None = None
    served: Served | None = field(default=None, compare=False)
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPool:
    """Addresses that tenants may claim, and how long a released one rests before another tenant gets it (seconds)."""

    name: str
    ranges: tuple[Span, ...]
    excludes: tuple[Span, ...] = ()
    allowed_namespaces: LabelSelector | None = None
    quarantine_s: int = 300
    served: Served | None = field(default=None, compare=False)
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressClaim:
    """What a namespace claims for its own pods: addresses of a pool that allows it."""

    namespace: str
    name: str
    claim: PoolClaim
    gateway: str | None = None
    pod_selector: LabelSelector | None = None
    served: Served | None = field(default=None, compare=False)
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True)
class NodeSubnet:
    """A pod subnet of a node, in one network (`default` or a user-defined one), and the field that named it."""

    network: str
    prefix: Prefix
    source: str  # "k8s.ovn.org/node-subnets" or "spec.podCIDRs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A cluster node: where its pods are and how to reach it, and what OVN-Kubernetes has noted about its NICs."""

    name: str
    subnets: tuple[NodeSubnet, ...] = ()
    internal_ips: tuple[Address, ...] = ()
    ready: bool = True
    primary: tuple[Prefix, ...] = ()  # the networks of its primary NIC
    mode: GatewayMode | None = None
    next_hops: tuple[Address, ...] = ()  # of its gateway router's default routes
    host_cidrs: tuple[HostCidr, ...] = ()  # on all NICs, the primary one too
    transit: tuple[Address, ...] = ()  # of its zone, on the switch between zones
    labels: Labels = ()
    assignable: bool = False  # it bears the label that lets it take egress IPs
    cloud: CloudNic | None = None  # what the cloud lets it take; None: it is on no cloud that says so
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace and its labels."""

    name: str
    labels: Labels = ()
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod. Host-network and finished pods are kept, marked, and never selected."""

    namespace: str
    name: str
    node: str = ""
    addresses: tuple[Address, ...] = ()
    labels: Labels = ()
    host_network: bool = False
    finished: bool = False  # phase Succeeded or Failed: its addresses may belong to somebody else already
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNetwork:
    """The `Network` object of config.openshift.io: what the cluster uses inside."""

    cluster_networks: tuple[Prefix, ...]
    service_networks: tuple[Prefix, ...] = ()
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalRoute:
    """An AdminPolicyBasedExternalRoute: pods of these namespaces leave by these static next hops."""

    name: str
    namespace_selector: LabelSelector
    next_hops: tuple[Address, ...]
    is_ours: bool = False  # it bears the label of what outgate has made
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressIP:
    """An EgressIP of OVN-Kubernetes, as far as the gateway must know it: a namespace should not have both."""

    name: str
    egress_ips: tuple[Address, ...]
    namespace_selector: LabelSelector
    pod_selector: LabelSelector | None = None  # None: all pods of the namespaces
    node_selector: LabelSelector | None = None  # None: nodes that bear the label
    assigned: tuple[tuple[str, Address], ...] = ()  # node and address: what OVN-Kubernetes' cluster manager has decided
    created: str = ""  # as the server writes it, which sorts by time; empty: of an object that no server has seen
    origin: Origin = field(default_factory=Origin, compare=False)

    def yields_to_external_route(self, node: str, mode: GatewayMode | None) -> bool:
        """Return whether an external route decides for a pod on `node` that both select; `mode` is that node's.

        In local gateway mode the route's policy (501) comes before ours (100). In shared mode the route counts on the
        pod's own node alone, and packets get there only if that node has the egress IP, or none has.
        """
        nodes = {name for name, _ in self.assigned}
        return mode is GatewayMode.LOCAL or not nodes or node in nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRouting:
    """How EgressIPs are routed: those that it names, or, named `default`, all that no other names.

    What is None is as the default has it; `stance` and `gateways` are the default's alone.
    """

    name: str
    egress_ips: tuple[str, ...] = ()
    stance: Stance | None = None
    semantics: Semantics | None = None
    honor_host_routes: bool | None = None
    snat_scope: SnatScope | None = None
    on_unassigned: OnUnassigned | None = None
    allow_inbound: tuple[InboundAllowance, ...] = ()
    gateways: tuple[NicGateway, ...] = ()
    served: Served | None = field(default=None, compare=False)
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedPod:
    """A pod that an egress IP serves, and its addresses of that family. `contested`: another EgressIP that is on a node
    selects it too, and OVN-Kubernetes serves it with one of them.
    """

    namespace: str
    name: str
    addresses: tuple[Address, ...]
    contested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One egress IP on a node, the EgressIP that it is of and how that is routed, and all pods that it serves, on
    whatever node they run.
    """

    egress_ip: str
    address: Address
    pods: tuple[AssignedPod, ...]
    routing: Routing = DEFAULT_ROUTING
    is_new: bool = False  # no node had it before: it is asked for on the LAN before it is used


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A pod that runs on a node and has an egress IP: the nodes that have one for it, of the family of `addresses`.

    On none of them, or while it is none: `drops` says whether its packets stay, or leave as if it had no egress IP.
    """

    egress_ip: str
    namespace: str
    name: str
    addresses: tuple[Address, ...]
    nodes: tuple[str, ...] = ()
    drops: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressNode:
    """What one node has to do for others: the cluster role writes it, so that a node need not read all pods."""

    name: str
    assignments: tuple[Assignment, ...] = ()
    stance: Stance = Stance.ASSIST
    departures: tuple[Departure, ...] = ()  # only of pods for which something is to be done where they run
    conditions: tuple[Condition, ...] = ()
    cut: tuple[Prefix, ...] = ()  # networks of its NICs by which nothing gets out
    taken: tuple[tuple[Address, str], ...] = ()  # egress IPs that somebody else on a LAN has, and that one's MAC
    programmed: str = ""  # the digest of what the role there has done last
    host: str = ""  # the host's routes as the role there has told them, as text that `sources.host_snapshot` reads
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """All that was asked, complete. Objects are sorted by name; `refusals` are the ones that could not be read.

    Where no tenant needs pods, an API server is not asked for them: `pods_known` says whether none means none,
    in each of its clusters.
    """

    gateways: tuple[EgressGateway, ...] = ()
    tenants: tuple[EgressTenant, ...] = ()
    pools: tuple[EgressPool, ...] = ()
    claims: tuple[EgressClaim, ...] = ()
    nodes: tuple[Node, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    pods: tuple[Pod, ...] = ()
    pods_known: bool = True
    network: ClusterNetwork | None = None
    external_routes: tuple[ExternalRoute, ...] = ()
    egress_ips: tuple[EgressIP, ...] = ()
    egress_routings: tuple[EgressRouting, ...] = ()
    egress_nodes: tuple[EgressNode, ...] = ()
    refusals: tuple[Finding, ...] = ()
    unread: tuple[Unread, ...] = ()  # told only to who writes statuses

    def find_gateway(self, name: str) -> EgressGateway | None:
        """Return the named EgressGateway; an empty name means the only one there is."""
        if name:
            return next((gateway for gateway in self.gateways if gateway.name == name), None)
        return self.gateways[0] if len(self.gateways) == 1 else None

    def gateway_of(self, tenant: EgressTenant) -> EgressGateway | None:
        """Return the gateway that serves a tenant: the one that it names, or the only one there is."""
        return self.find_gateway(tenant.gateway or "")

    def tenants_of(self, gateway: EgressGateway) -> tuple[EgressTenant, ...]:
        """Return the tenants of one gateway: those that name it, or name none while there is only one."""
        only = len(self.gateways) == 1
        return tuple(t for t in self.tenants if t.gateway == gateway.name or (t.gateway is None and only))


NO_INTENT = Intent()
