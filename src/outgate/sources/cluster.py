"""Objects of the cluster, as `kubectl get -o json` or `-o yaml` shows them: the few fields that outgate reads.

Lenient about everything else, because other versions of Kubernetes have other fields; strict about what is read. The
structs are the shape on the wire; msgspec fills them from a JSON text without making values of what is left out, which
is why 100,000 pods take a third of a second and not seven.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Struct, field

from outgate.model.selector import Operator


class Meta(Struct, frozen=True, gc=False):
    """`metadata`, as far as pods and most others need it."""

    name: str
    namespace: str | None = None
    labels: dict[str, str] | None = None


class NodeMeta(Struct, frozen=True, gc=False):
    """`metadata` of a node, with its annotations."""

    name: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class DatedMeta(Struct, frozen=True, gc=False, rename="camel"):
    """`metadata` of a kind of which the older object comes first."""

    name: str
    creation_timestamp: str | None = None


class PodAddress(Struct, frozen=True, gc=False):
    """One of `status.podIPs`."""

    ip: str | None = None


class PodSpec(Struct, frozen=True, gc=False, rename="camel"):
    """`spec` of a pod."""

    node_name: str | None = None
    host_network: bool | None = None


class PodStatus(Struct, frozen=True, gc=False, rename="camel"):
    """`status` of a pod."""

    phase: str | None = None
    pod_ip: str | None = field(name="podIP", default=None)
    pod_ips: list[PodAddress] | None = field(name="podIPs", default=None)


class Pod(Struct, frozen=True, gc=False, rename="camel", tag_field="kind"):
    """v1 Pod."""

    metadata: Meta
    api_version: str = "v1"
    spec: PodSpec | None = None
    status: PodStatus | None = None


class NodeAddress(Struct, frozen=True, gc=False):
    """One of `status.addresses`."""

    type: str
    address: str


class NodeCondition(Struct, frozen=True, gc=False):
    """One of `status.conditions`."""

    type: str
    status: str


class NodeSpec(Struct, frozen=True, gc=False):
    """`spec` of a node."""

    pod_cidr: str | None = field(name="podCIDR", default=None)
    pod_cidrs: list[str] | None = field(name="podCIDRs", default=None)


class NodeStatus(Struct, frozen=True, gc=False):
    """`status` of a node."""

    addresses: list[NodeAddress] | None = None
    conditions: list[NodeCondition] | None = None


class Node(Struct, frozen=True, gc=False, rename="camel", tag_field="kind"):
    """v1 Node."""

    metadata: NodeMeta
    api_version: str = "v1"
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class Namespace(Struct, frozen=True, gc=False, rename="camel", tag_field="kind"):
    """v1 Namespace."""

    metadata: Meta
    api_version: str = "v1"


class ClusterCidr(Struct, frozen=True, gc=False):
    """One of `clusterNetwork`."""

    cidr: str


class NetworkPart(Struct, frozen=True, gc=False, rename="camel"):
    """`spec` or `status` of a Network: what was asked for, and what is."""

    cluster_network: list[ClusterCidr] | None = None
    service_network: list[str] | None = None


class Network(Struct, frozen=True, gc=False, rename="camel", tag_field="kind"):
    """config.openshift.io/v1 Network."""

    metadata: Meta
    api_version: str = "config.openshift.io/v1"
    spec: NetworkPart | None = None
    status: NetworkPart | None = None


class Expression(Struct, frozen=True, gc=False):
    """One of `matchExpressions`."""

    key: str
    operator: Operator
    values: list[str] | None = None


class Selector(Struct, frozen=True, gc=False, rename="camel"):
    """A label selector; in the cluster's own objects an empty one selects everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Expression] | None = None


class RouteFrom(Struct, frozen=True, gc=False, rename="camel"):
    """`spec.from` of an AdminPolicyBasedExternalRoute."""

    namespace_selector: Selector


class StaticHop(Struct, frozen=True, gc=False):
    """One of `spec.nextHops.static`."""

    ip: str


class Hops(Struct, frozen=True, gc=False):
    """`spec.nextHops`; dynamic ones are pods, which are no business of a gateway machine."""

    static: list[StaticHop] | None = None


class RouteSpec(Struct, frozen=True, gc=False, rename="camel"):
    """`spec` of an AdminPolicyBasedExternalRoute."""

    origin: RouteFrom = field(name="from")
    next_hops: Hops | None = None


class ExternalRoute(
    Struct, frozen=True, gc=False, rename="camel", tag_field="kind", tag="AdminPolicyBasedExternalRoute"
):
    """k8s.ovn.org/v1 AdminPolicyBasedExternalRoute."""

    metadata: Meta
    spec: RouteSpec
    api_version: str = "k8s.ovn.org/v1"


class EgressIPSpec(Struct, frozen=True, gc=False, rename="camel"):
    """`spec` of an EgressIP."""

    egress_ips: list[str] = field(name="egressIPs")
    namespace_selector: Selector
    pod_selector: Selector | None = None
    egress_node_selector: Selector | None = None


class EgressIPItem(Struct, frozen=True, gc=False):
    """One of `status.items` of an EgressIP."""

    node: str
    egress_ip: str = field(name="egressIP")


class EgressIPStatus(Struct, frozen=True, gc=False):
    """`status` of an EgressIP."""

    items: list[EgressIPItem] | None = None


class EgressIP(Struct, frozen=True, gc=False, rename="camel", tag_field="kind"):
    """k8s.ovn.org/v1 EgressIP."""

    metadata: DatedMeta
    spec: EgressIPSpec
    api_version: str = "k8s.ovn.org/v1"
    status: EgressIPStatus | None = None


class ServedPod(Struct, frozen=True, gc=False):
    """A pod in `status.egressIPs` of an EgressNode."""

    namespace: str
    name: str
    addresses: list[str]
    contested: bool = False


class NodeEgressIP(Struct, frozen=True, gc=False):
    """One of `status.egressIPs` of an EgressNode."""

    name: str
    address: str
    pods: list[ServedPod] | None = None
    new: bool = False
    routing: msgspec.Raw = msgspec.Raw(b"")  # as the spec of an EgressRouting


class NodeDeparture(Struct, frozen=True, gc=False):
    """One of `status.departures` of an EgressNode."""

    namespace: str
    name: str
    addresses: list[str]
    egress_ip: str = field(name="egressIP", default="")
    nodes: list[str] | None = None
    drops: bool = False


class StatusCondition(Struct, frozen=True, gc=False, rename="camel"):
    """One of `status.conditions` of an EgressNode."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class TakenAddress(Struct, frozen=True, gc=False):
    """One of `status.taken` of an EgressNode."""

    address: str
    mac: str


class EgressNodeStatus(Struct, frozen=True, gc=False):
    """`status` of an EgressNode."""

    stance: str = ""
    egress_ips: list[NodeEgressIP] | None = field(name="egressIPs", default=None)
    departures: list[NodeDeparture] | None = None
    conditions: list[StatusCondition] | None = None
    cut: list[str] | None = None
    taken: list[TakenAddress] | None = None
    programmed: str = ""
    host: str | None = None


class EgressNode(Struct, frozen=True, gc=False, rename="camel", tag_field="kind"):
    """outgate.io/v1alpha1 EgressNode: outgate's own word to its nodes, which no user writes."""

    metadata: Meta
    api_version: str = "outgate.io/v1alpha1"
    status: EgressNodeStatus | None = None


ClusterObject: TypeAlias = Pod | Node | Namespace | Network | ExternalRoute | EgressIP | EgressNode

READ: dict[tuple[str, str], type[ClusterObject]] = {
    ("v1", "Pod"): Pod,
    ("v1", "Node"): Node,
    ("v1", "Namespace"): Namespace,
    ("config.openshift.io/v1", "Network"): Network,
    ("k8s.ovn.org/v1", "AdminPolicyBasedExternalRoute"): ExternalRoute,
    ("k8s.ovn.org/v1", "EgressIP"): EgressIP,
}
API_VERSIONS = {cls: api_version for (api_version, _), cls in READ.items()}


class Listing(Struct, frozen=True, gc=False, rename="camel"):
    """A list whose items say their kinds, as kubectl writes it."""

    items: list[ClusterObject]
    api_version: str = ""
    kind: str = ""


class RawListing(Struct, frozen=True, gc=False, rename="camel"):
    """Any object: its kind, and its items, if it is a list, not decoded yet."""

    api_version: object = ""
    kind: object = ""
    items: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET
