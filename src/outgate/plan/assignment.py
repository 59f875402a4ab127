"""Which nodes can take an egress IP, and why the others can not.

A node takes one when it bears the label (or is one that the EgressIP selects), is ready, and has a network that holds
the address: the primary one, or another NIC's by the longest prefix; on a cloud, what that says, while there is room.
An address that a node itself has, that lies in the cluster's own networks, that somebody on the LAN has, or that an
older EgressIP lists, is taken by none. What is asked here is what `placement` decides by, where outgate assigns.
"""

from __future__ import annotations

from itertools import islice

from outgate.model.egress_ip import Candidate
from outgate.model.intent import EgressIP
from outgate.model.net import Address
from outgate.model.why import Finding, Severity
from outgate.plan.ground import LABEL, Ground


def candidates(address: Address, egress_ip: EgressIP, ground: Ground) -> tuple[Candidate, ...]:
    """Return each node, by name, with why it can not take an address of this EgressIP."""
    return tuple(_candidate(address, egress_ip, name, ground) for name in ground.nodes)


def unassigned(egress_ip: EgressIP, ground: Ground) -> tuple[Finding, ...]:
    """Return, for each address of an EgressIP that no node has, why."""
    given = {address for _, address in egress_ip.assigned}
    return tuple(_why(egress_ip, address, ground) for address in egress_ip.egress_ips if address not in given)


def _candidate(address: Address, egress_ip: EgressIP, name: str, ground: Ground) -> Candidate:
    reasons = [*ground.unfit(address, egress_ip, name), *(text for _, text in ground.ills(address, name))]
    if full := ground.full(address, egress_ip, name):
        reasons.append(full)
    return Candidate(node=name, reason=", ".join(reasons), network=ground.network(address, name))


def _why(egress_ip: EgressIP, address: Address, ground: Ground) -> Finding:
    about = f"EgressIP/{egress_ip.name}"
    if taken := ground.conflict(address, egress_ip):
        return Finding("EgressIPConflict", about, taken, Severity.REFUSAL, "use a free address", egress_ip.origin)
    able = [name for name in ground.able(address, egress_ip) if not ground.full(address, egress_ip, name)]
    if not able:
        found = (_candidate(address, egress_ip, name, ground) for name in islice(ground.nodes, 5))
        shown = "; ".join(f"{one.node}: {one.reason}" for one in found)
        text = f"no node can take {address}: {shown or 'no node is known'}"
        fix = f"label a node that has such a network: kubectl label node NAME {LABEL}="
        return Finding("NoMatchingNodeFound", about, text, Severity.REFUSAL, fix, egress_ip.origin)
    busy = {node for node, _ in egress_ip.assigned}
    idle = next((name for name in able if name not in busy), "")
    if not idle:
        names = ", ".join(able)
        text = f"{address} waits: a node takes one address of an EgressIP, and all that could have one ({names})"
        fix = "label another node, or ask for fewer addresses"
        return Finding("UnassignedRequest", about, text, Severity.WARNING, fix, egress_ip.origin)
    text = f"{address} is not assigned although {idle} could take it"
    fix = "look at the events of the EgressIP: the node may not be reachable on port 9107"
    return Finding("NotAssignedYet", about, text, Severity.WARNING, fix, egress_ip.origin)
