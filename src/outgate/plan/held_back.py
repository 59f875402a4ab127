"""Pods that leave with their egress IP or not at all, where nothing sends them to it.

The policy stands below those that send pods to their egress IPs (100) and below the exceptions (102), so it is in force
at once when the former go, and meets nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

from outgate.model.egress_ip import NodeSnapshot
from outgate.model.net import Address
from outgate.model.ovn import Action, Policy, SetMember
from outgate.model.state import Resource
from outgate.model.why import Because
from outgate.plan.serving import CLUSTER_ROUTER, set_name

_HELD_BACK = 98


def held_back(snapshot: NodeSnapshot) -> Mapping[Resource, Because]:
    """Want that packets of some pods that run here do not leave while nobody has their egress IP."""
    wants: dict[Resource, Because] = {}
    for one in snapshot.departures:
        for address in one.addresses if one.drops else ():
            text = f"EgressIP/{one.egress_ip}: Pod/{one.namespace}/{one.name} leaves with its egress IP or not at all"
            wants |= hold(snapshot.node.name, address, text)
    return wants


def hold(node: str, address: Address, text: str) -> Mapping[Resource, Because]:
    """Want that packets from a pod, or by way of this node, end here; `text` says whose and why."""
    name = set_name(node, "held", address.version)
    policy = Policy(
        router=CLUSTER_ROUTER,
        priority=_HELD_BACK,
        match=f"ip{address.version}.src == ${name}",
        action=Action.DROP,
        owner=f"node:{node}:held-back{address.version}",
    )
    return {
        SetMember(set=name, member=ip_network(address)): Because("held-back/pod", text),
        policy: Because("held-back", "what nothing sends to its egress IP does not leave"),
    }
