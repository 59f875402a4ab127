"""What a role reads from the API server, as a table. A kind is added by a row here and a word in the Intent.

`pods` are read only while somebody needs them: a tenant of the gateway, or an egress IP that is on a node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from outgate.apiserver.server import Resource
from outgate.model.intent import EgressGateway, EgressTenant, Intent, SourceCheck, SourceIdentity
from outgate.model.routing import OnUnassigned
from outgate.sources import cluster
from outgate.sources.fields import GROUP

Shape: TypeAlias = type[cluster.ClusterObject] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One kind that is listed and watched. `shape` None: one of our own, read strictly."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    shape: Shape = None
    may_be_absent: bool = False  # a cluster without the CRD is complete without it
    field_selector: str = ""
    with_status: bool = False  # of our own: what stands in the status is read as well

    @property
    def path(self) -> str:
        """The path of the collection, over all namespaces."""
        return Resource(plural=self.plural, group=self.group, version=self.version).path()


PODS = Watched(kind="Pod", plural="pods", shape=cluster.Pod)

_KINDS = (
    Watched(kind="EgressGateway", plural="egressgateways", group=GROUP, version="v1alpha1"),
    Watched(kind="EgressTenant", plural="egresstenants", group=GROUP, version="v1alpha1"),
    Watched(kind="EgressPool", plural="egresspools", group=GROUP, version="v1alpha1"),
    Watched(kind="Node", plural="nodes", shape=cluster.Node),
    Watched(kind="Namespace", plural="namespaces", shape=cluster.Namespace),
    Watched(kind="Network", plural="networks", group="config.openshift.io", shape=cluster.Network, may_be_absent=True),
    Watched(
        kind="AdminPolicyBasedExternalRoute",
        plural="adminpolicybasedexternalroutes",
        group="k8s.ovn.org",
        shape=cluster.ExternalRoute,
        may_be_absent=True,
    ),
    Watched(kind="EgressIP", plural="egressips", group="k8s.ovn.org", shape=cluster.EgressIP, may_be_absent=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """What one reader needs: kinds that are always read, and whether pods are read while a tenant needs them."""

    always: tuple[Watched, ...]
    pods_when: Callable[[Intent, str], bool] | None = None  # by what is read, and the name of a gateway


def _a_tenant_needs_pods(intent: Intent, gateway: str) -> bool:
    return needs_pods(intent.tenants, intent.find_gateway(gateway))


GATEWAY = Kinds(always=_KINDS, pods_when=_a_tenant_needs_pods)
_CLAIMS = Watched(kind="EgressClaim", plural="egressclaims", group=GROUP, version="v1alpha1")
_ROUTINGS = Watched(kind="EgressRouting", plural="egressroutings", group=GROUP, version="v1alpha1", may_be_absent=True)
_EGRESS_NODES = Watched(
    kind="EgressNode",
    plural="egressnodes",
    group=GROUP,
    version="v1alpha1",
    shape=cluster.EgressNode,
    may_be_absent=True,
)
LOOKER = Kinds(always=(*_KINDS, _ROUTINGS, PODS))  # whoever looks may ask about a pod
NODES_TOLD = Kinds(always=(_EGRESS_NODES,))  # what the role on each node has told of its host
HISTORY = Kinds(always=(replace(_ROUTINGS, with_status=True),))  # what became of egress IPs
CLUSTER = Kinds(
    always=tuple(
        replace(one, with_status=True) if one.shape is None else one
        for one in (*_KINDS, _CLAIMS, _ROUTINGS, _EGRESS_NODES)
    ),
    pods_when=lambda intent, _: (
        any(one.assigned for one in intent.egress_ips)
        or any(one.on_unassigned is OnUnassigned.DROP for one in intent.egress_routings)
    ),
)


def of_node(name: str, *, every_node: bool = False) -> Kinds:
    """Return what the role on one node reads: its own objects, and no pods; what other nodes' pods need is in there.

    `every_node`: it also has to know how to reach the others.
    """
    own = f"metadata.name={name}"
    node = next(one for one in _KINDS if one.kind == "Node")
    nodes = node if every_node else replace(node, field_selector=own)
    return Kinds(always=(nodes, replace(_EGRESS_NODES, field_selector=own)))


def needs_pods(tenants: tuple[EgressTenant, ...], gateway: EgressGateway | None) -> bool:
    """Return whether a tenant of this gateway, or of any while it is unknown, is told by or checked against pods."""
    name = gateway.name if gateway is not None else None
    return any(
        isinstance(one.identity, SourceIdentity) or one.pod_selector is not None or one.source_check is SourceCheck.PODS
        for one in tenants
        if name is None or one.gateway in (None, name)
    )
