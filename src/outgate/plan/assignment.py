"""Which nodes can take an egress IP, and why the others can not.

A node takes one when it bears the label, is ready, and has a network that holds the address: the primary one, or
another NIC's by the longest prefix. An address that a node itself has, that lies in the cluster's own networks, or that
another EgressIP lists first, is taken by none. Source: go-controller/pkg/clustermanager of OVN-Kubernetes (2026).
"""

from __future__ import annotations

from collections.abc import Sequence

from outgate.model.egress_ip import Candidate
from outgate.model.intent import EgressIP, Intent, Node
from outgate.model.net import Address, Prefix
from outgate.model.why import Finding, Severity

LABEL = "k8s.ovn.org/egress-assignable"


def candidates(address: Address, nodes: Sequence[Node]) -> tuple[Candidate, ...]:
    """Return each node, by name, with why it can not take the address."""
    return tuple(_candidate(address, node) for node in sorted(nodes, key=lambda one: one.name))


def unassigned(egress_ip: EgressIP, intent: Intent) -> tuple[Finding, ...]:
    """Return, for each address of an EgressIP that no node has, why."""
    given = {address for _, address in egress_ip.assigned}
    return tuple(_why(egress_ip, address, intent) for address in egress_ip.egress_ips if address not in given)


def network_for(address: Address, node: Node) -> Prefix | None:
    """Return the network of a node that holds an address: the primary one first, else the longest of its NICs'."""
    for network in node.primary:
        if network.version == address.version and address in network:
            return network
    fitting = [
        one.network
        for one in node.host_cidrs
        if one.network.version == address.version
        and address in one.network
        and one.network.prefixlen < one.network.max_prefixlen
        and not one.network.is_link_local
    ]
    return max(fitting, key=lambda one: one.prefixlen, default=None)


def conflict(address: Address, egress_ip: EgressIP, intent: Intent) -> str:
    """Return who else has an address, in a sentence; empty when it is free."""
    for node in intent.nodes:
        if any(one.address == address for one in node.host_cidrs) or address in node.internal_ips:
            return f"{address} is an address of Node/{node.name} itself"
        for subnet in node.subnets:
            if subnet.prefix.version == address.version and address in subnet.prefix:
                return f"{address} lies in {subnet.prefix}, the pods of Node/{node.name}"
    network = intent.network
    for prefix in (*network.cluster_networks, *network.service_networks) if network is not None else ():
        if prefix.version == address.version and address in prefix:
            return f"{address} lies in {prefix}, which the cluster uses inside"
    for other in intent.egress_ips:
        if other.name < egress_ip.name and address in other.egress_ips:
            return f"{address} is listed by EgressIP/{other.name} too, which comes first by name"
    return ""


def _candidate(address: Address, node: Node) -> Candidate:
    network = network_for(address, node)
    reasons = []
    if not node.assignable:
        reasons.append(f"it has no label {LABEL}")
    if not node.ready:
        reasons.append("it is not ready")
    if network is None:
        known = [str(one) for one in (*node.primary, *(each.network for each in node.host_cidrs))]
        own = ", ".join(dict.fromkeys(one for one in known if (":" in one) == (address.version == 6)))
        reasons.append(f"no network of it holds {address} (it has {own or 'none that is known'})")
    return Candidate(node=node.name, reason=", ".join(reasons), network=network)


def _why(egress_ip: EgressIP, address: Address, intent: Intent) -> Finding:
    about = f"EgressIP/{egress_ip.name}"
    if taken := conflict(address, egress_ip, intent):
        return Finding("EgressIPConflict", about, taken, Severity.REFUSAL, "use a free address", egress_ip.origin)
    found = candidates(address, intent.nodes)
    able = [one for one in found if not one.reason]
    if not able:
        shown = "; ".join(f"{one.node}: {one.reason}" for one in found[:5])
        text = f"no node can take {address}: {shown or 'no node is known'}"
        fix = f"label a node that has such a network: kubectl label node NAME {LABEL}="
        return Finding("NoMatchingNodeFound", about, text, Severity.REFUSAL, fix, egress_ip.origin)
    busy = {node for node, _ in egress_ip.assigned}
    if all(one.node in busy for one in able):
        names = ", ".join(one.node for one in able)
        text = f"{address} waits: a node takes one address of an EgressIP, and all that could have one ({names})"
        fix = "label another node, or ask for fewer addresses"
        return Finding("UnassignedRequest", about, text, Severity.WARNING, fix, egress_ip.origin)
    text = f"{address} is not assigned although {able[0].node} could take it"
    fix = "look at the events of the EgressIP: the node may not be reachable on port 9107"
    return Finding("NotAssignedYet", about, text, Severity.WARNING, fix, egress_ip.origin)
