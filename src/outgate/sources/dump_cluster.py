"""The cluster's objects as manifests again: only the fields that outgate reads, for a bundle that people look into.

Read back they give the same objects. What the cluster had beside (Secrets in environments, annotations, managed
fields) never was in the model, so it can not come out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from outgate.model.intent import ClusterNetwork, EgressIP, ExternalRoute, Intent, Namespace, Node, NodeSubnet, Pod
from outgate.model.selector import EVERYTHING, LabelSelector
from outgate.sources import ovn_node
from outgate.sources.convert import NODE_SUBNETS

Manifest = dict[str, Any]


def dump_cluster(intent: Intent) -> Iterator[Manifest]:
    """Give the manifest of each object of the cluster, as plain dictionaries and lists."""
    if intent.network is not None:
        yield _network(intent.network)
    yield from map(_node, intent.nodes)
    yield from map(_namespace, intent.namespaces)
    yield from map(_external_route, intent.external_routes)
    yield from map(_egress_ip, intent.egress_ips)
    yield from map(_pod, intent.pods)


def _network(given: ClusterNetwork) -> Manifest:
    inside = {
        "clusterNetwork": [{"cidr": str(prefix)} for prefix in given.cluster_networks],
        "serviceNetwork": [str(prefix) for prefix in given.service_networks],
    }
    return _manifest("config.openshift.io/v1", "Network", {"name": given.origin.name or "cluster"}, status=inside)


def _node(given: Node) -> Manifest:
    metadata: Manifest = {"name": given.name}
    labels = dict(given.labels) | ({ovn_node.ASSIGNABLE: ""} if given.assignable else {})
    if labels:
        metadata["labels"] = labels
    spec: Manifest = {}
    annotations = ovn_node.annotations_of(given)
    if any(subnet.source == NODE_SUBNETS for subnet in given.subnets):
        annotations[NODE_SUBNETS] = _annotation(given.subnets)
    elif given.subnets:
        spec["podCIDRs"] = [str(subnet.prefix) for subnet in given.subnets]
    if annotations:
        metadata["annotations"] = annotations
    status = {
        "addresses": [{"type": "InternalIP", "address": str(address)} for address in given.internal_ips],
        "conditions": [{"type": "Ready", "status": str(given.ready)}],
    }
    return _manifest("v1", "Node", metadata, spec=spec, status=status)


def _annotation(subnets: tuple[NodeSubnet, ...]) -> str:
    by_network: dict[str, list[str]] = {}
    for subnet in subnets:
        by_network.setdefault(subnet.network, []).append(str(subnet.prefix))
    return msgspec.json.encode(by_network).decode()


def _namespace(given: Namespace) -> Manifest:
    return _manifest("v1", "Namespace", {"name": given.name, "labels": dict(given.labels)})


def _pod(given: Pod) -> Manifest:
    metadata = {"name": given.name, "namespace": given.namespace, "labels": dict(given.labels)}
    spec: Manifest = {"nodeName": given.node} if given.node else {}
    if given.host_network:
        spec["hostNetwork"] = True
    status: Manifest = {"phase": "Succeeded"} if given.finished else {}
    status["podIPs"] = [{"ip": str(address)} for address in given.addresses]
    return _manifest("v1", "Pod", metadata, spec=spec, status=status)


def _external_route(given: ExternalRoute) -> Manifest:
    spec = {
        "from": {"namespaceSelector": _selector(given.namespace_selector)},
        "nextHops": {"static": [{"ip": str(hop)} for hop in given.next_hops]},
    }
    return _manifest("k8s.ovn.org/v1", "AdminPolicyBasedExternalRoute", {"name": given.name}, spec=spec)


def _egress_ip(given: EgressIP) -> Manifest:
    spec: Manifest = {
        "egressIPs": [str(address) for address in given.egress_ips],
        "namespaceSelector": _selector(given.namespace_selector),
    }
    if given.pod_selector is not None:
        spec["podSelector"] = _selector(given.pod_selector)
    if given.node_selector is not None:
        spec["egressNodeSelector"] = _selector(given.node_selector)
    metadata: Manifest = {"name": given.name}
    if given.created:
        metadata["creationTimestamp"] = given.created
    items = [{"node": node, "egressIP": str(address)} for node, address in given.assigned]
    return _manifest("k8s.ovn.org/v1", "EgressIP", metadata, spec=spec, status={"items": items})


def dump_egress_ip(given: EgressIP) -> Manifest:
    """Return the manifest by which a user asks for an EgressIP: without a status."""
    return {key: value for key, value in _egress_ip(given).items() if key != "status"}


def _selector(given: LabelSelector) -> Manifest:
    if given == EVERYTHING:
        return {}
    selector: Manifest = {"matchLabels": dict(given.match_labels)} if given.match_labels else {}
    if given.expressions:
        selector["matchExpressions"] = [
            {"key": one.key, "operator": one.operator.value, "values": list(one.values)} for one in given.expressions
        ]
    return selector


def _manifest(api_version: str, kind: str, metadata: Manifest, **parts: Manifest) -> Manifest:
    filled = {name: part for name, part in parts.items() if part}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **filled}
