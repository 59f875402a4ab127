"""What each node has to do for egress IPs: those that are assigned to it, and the pods of all nodes behind each.

A node that serves an egress IP needs the addresses of pods on other nodes. Decided here, once for all, so that no node
reads all pods of a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from outgate.model.intent import AssignedPod, Assignment, EgressIP, EgressNode, Intent, Pod
from outgate.plan.selection import NamespaceIndex, pods_by_namespace, pods_of


def egress_nodes(intent: Intent) -> Mapping[str, EgressNode]:
    """Return, by name, each node that has an egress IP, and with none those that had one and still are there."""
    pods_in = pods_by_namespace(intent.pods)
    index = NamespaceIndex(intent.namespaces)
    found: dict[str, list[Assignment]] = {one.name: [] for one in intent.egress_nodes}
    selected: list[tuple[EgressIP, list[Pod]]] = []
    for egress_ip in intent.egress_ips:
        if egress_ip.assigned:
            of_it = pods_of(index.select(egress_ip.namespace_selector), egress_ip.pod_selector, pods_in)
            selected.append((egress_ip, sorted(of_it, key=lambda one: (one.namespace, one.name))))
    times = Counter((pod.namespace, pod.name) for _, pods in selected for pod in pods)
    for egress_ip, pods in selected:
        for node, address in egress_ip.assigned:
            of_family = [(pod, [one for one in pod.addresses if one.version == address.version]) for pod in pods]
            served = tuple(
                AssignedPod(
                    namespace=pod.namespace,
                    name=pod.name,
                    addresses=tuple(addresses),
                    contested=times[pod.namespace, pod.name] > 1,
                )
                for pod, addresses in of_family
                if addresses
            )
            assignment = Assignment(egress_ip=egress_ip.name, address=address, pods=served)
            found.setdefault(node, []).append(assignment)
    known = {one.name for one in intent.nodes}
    return MappingProxyType(
        {
            name: EgressNode(
                name=name, assignments=tuple(sorted(some, key=lambda one: (one.egress_ip, str(one.address))))
            )
            for name, some in sorted(found.items())
            if name in known
        }
    )
