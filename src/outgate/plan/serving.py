"""Which pods a node serves with which egress IP, each address once.

OVN-Kubernetes serves a pod that several EgressIPs select with the one that came first to its mind, and tells nobody
which: for such pods its own rows and rules say. All others are served by what is assigned, whether it is done yet or
not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_network

from outgate.model.egress_ip import NodeSnapshot
from outgate.model.host_table import EGRESS_IP_PRIORITY
from outgate.model.intent import AssignedPod, Assignment, Node
from outgate.model.net import Address, Discard, LinkName, Prefix, TableId
from outgate.plan.egress_ip import BRIDGE, Networks, hosting_nic, table_of

CLUSTER_ROUTER = "ovn_cluster_router"


@dataclass(frozen=True, slots=True)
class Served:
    """A pod's address, the egress IP that it has here, and the NIC of that; None: no NIC has it."""

    address: Address
    assignment: Assignment
    pod: AssignedPod
    link: LinkName | None


def served(snapshot: NodeSnapshot) -> tuple[Served, ...]:
    """Return them in the order of EgressIPs: of several on this node the first by name counts."""
    return tuple(_served(snapshot))


def _served(snapshot: NodeSnapshot) -> Iterator[Served]:
    networks = Networks.of(snapshot.node.primary, snapshot.host)
    done = _Done.of(snapshot)
    taken: set[Address] = set()
    for one in sorted(snapshot.assignments, key=lambda one: (one.egress_ip, str(one.address))):
        link = hosting_nic(one.address, networks)
        for pod in one.pods:
            for address in pod.addresses:
                candidate = Served(address, one, pod, link)
                is_theirs = not pod.contested or candidate in done
                if address.version == one.address.version and address not in taken and is_theirs:
                    taken.add(address)
                    yield candidate


@dataclass(frozen=True, slots=True)
class _Done:
    """What OVN-Kubernetes has done for egress IPs here: translations in the gateway router, rules to NICs' tables."""

    snapshot: NodeSnapshot
    translations: frozenset[tuple[Address, Address]]
    rules: frozenset[tuple[Prefix | None, TableId | Discard]]

    @classmethod
    def of(cls, snapshot: NodeSnapshot) -> _Done:
        router = gateway_router(snapshot.node.name)
        single = (one for one in snapshot.snats if one.router == router and one.inside.num_addresses == 1)
        return cls(
            snapshot,
            frozenset((one.inside.network_address, one.outside) for one in single),
            frozenset((one.src, one.action) for one in snapshot.host.rules if one.priority == EGRESS_IP_PRIORITY),
        )

    def __contains__(self, one: Served) -> bool:
        if one.link is None:
            return False
        if one.link == BRIDGE:
            return (one.address, one.assignment.address) in self.translations
        return (ip_network(one.address), table_of(self.snapshot.host, one.link)) in self.rules


def set_name(node: str, what: str, version: int) -> str:
    """Return the name of an address set of a node: one database may serve several nodes."""
    return f"outgate_{what}{version}_{sha256(node.encode()).hexdigest()[:8]}"


def gateway_router(node: str) -> str:
    """Return the name of a node's gateway router in its zone."""
    return f"GR_{node}"


def pod_subnets(node: Node) -> tuple[Prefix, ...]:
    """Return a node's subnets of the cluster's default network."""
    return tuple(one.prefix for one in node.subnets if one.network == "default")


def management_ports(node: Node) -> tuple[Address, ...]:
    """Return the addresses of a node's management port: the third of each pod subnet, as OVN-Kubernetes gives them."""
    return tuple(one[2] for one in pod_subnets(node))
