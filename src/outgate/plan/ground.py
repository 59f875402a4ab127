"""The nodes and addresses of a cluster, indexed: who can take an egress IP, who is unwell, who has an address already.

`assignment` explains with it and `placement` decides with it, so that they can not disagree.
Source: go-controller/pkg/clustermanager of OVN-Kubernetes (2026), and OKEP-6800 for selected nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from ipaddress import ip_network
from typing import Generic, TypeAlias, TypeVar

from outgate.model.intent import EgressIP, Intent, Node
from outgate.model.net import Address, Prefix
from outgate.model.placement import NodeHealth, PlacementFacts
from outgate.model.selector import LabelSelector

LABEL = "k8s.ovn.org/egress-assignable"

_OVN_USES = {
    "to join its routers": ("100.64.0.0/16", "fd98::/64"),
    "to join its zones": ("100.88.0.0/16", "fd97::/64"),
    "to masquerade": ("169.254.0.0/17", "fd69::/112"),
}  # where nobody has moved them
_WELL = NodeHealth()
_NOTHING_KNOWN = PlacementFacts()


Said = TypeVar("Said")
Seat: TypeAlias = tuple[str, Address]  # the name of an EgressIP and an address of it


class Ill(Enum):
    """Why a node that could have an address should not have it now."""

    DRAINING = "draining"
    NOT_READY = "not ready"
    UNREACHABLE = "unreachable"
    CUT = "cut"


ANY_ILL = frozenset(Ill)


def networks_of(node: Node) -> tuple[Prefix, ...]:
    """Return the networks of a node that egress IPs may be of, those first that come first.

    They are the primary one's, then those of its other NICs, the longest prefix first. On a cloud they are what that
    says, and no other NIC takes any.
    """
    if node.cloud is not None:
        return node.cloud.networks
    others = {
        one.network
        for one in node.host_cidrs
        if one.network.prefixlen < one.network.max_prefixlen and not one.network.is_link_local
    } - {*node.primary}
    return (*node.primary, *sorted(others, key=lambda one: (-one.prefixlen, one.version, int(one.network_address))))


def network_for(address: Address, node: Node) -> Prefix | None:
    """Return the network of a node that holds an address: the primary one first, else the longest of its NICs'."""
    return next((one for one in networks_of(node) if one.version == address.version and address in one), None)


def seniority(egress_ip: EgressIP) -> tuple[bool, str, str]:
    """Return what EgressIPs are sorted by: the older first, then by name; what no server has seen comes last."""
    return (not egress_ip.created, egress_ip.created, egress_ip.name)


class Ground:
    """What a cluster's nodes and addresses are to egress IPs. `nodes` are by name, sorted."""

    def __init__(self, intent: Intent, facts: PlacementFacts = _NOTHING_KNOWN) -> None:
        self.nodes = {one.name: one for one in sorted(intent.nodes, key=lambda one: one.name)}
        self._on: dict[str, set[Seat]] = {name: set() for name in self.nodes}
        for egress_ip in intent.egress_ips:
            for name, address in egress_ip.assigned:
                self.put((egress_ip.name, address), "", name)
        self._health = facts.health
        networks = {name: networks_of(node) for name, node in self.nodes.items()}
        self._networks = {name: _Ranges((one, one) for one in these) for name, these in networks.items()}
        self._all_networks = _Ranges((one, one) for one in {one: None for these in networks.values() for one in these})
        self._owned = _owned(self.nodes.values())
        self._inside = _Ranges(_inside(intent))
        self._taken = {address: (name, mac) for name in self.nodes for address, mac in self._of(name).taken.items()}
        self._first: dict[Address, EgressIP] = {}
        for egress_ip in sorted(intent.egress_ips, key=seniority):
            for address in egress_ip.egress_ips:
                self._first.setdefault(address, egress_ip)
        self._able: dict[tuple[LabelSelector | None, tuple[Prefix, ...], frozenset[Ill]], tuple[str, ...]] = {}

    def conflict(self, address: Address, egress_ip: EgressIP) -> str:
        """Return who else has an address, in a sentence; empty when it is free.

        An address that a node lists alone, without its network, and that the EgressIP has been given, is the egress IP
        itself as it stands on a NIC there.
        """
        owner = self._owned.get(address)
        if owner is not None:
            name, is_alone = owner
            if not is_alone or all(given != address for _, given in egress_ip.assigned):
                return f"{address} is an address of Node/{name} itself"
        if inside := self._inside.holding(address):
            return f"{address} lies in {inside[0]}"
        if address in self._taken:
            name, mac = self._taken[address]
            return f"{address} belongs to {mac}, which answered Node/{name} on the LAN"
        first = self._first.get(address, egress_ip)
        if first.name == egress_ip.name:
            return ""
        comes = "is older" if first.created != egress_ip.created else "comes first by name"
        return f"{address} is listed by EgressIP/{first.name} too, which {comes}"

    def network(self, address: Address, name: str) -> Prefix | None:
        """Return the network of a node that holds an address, as `network_for` does."""
        found = self._networks[name].holding(address) if name in self._networks else ()
        return found[0] if found else None

    def unfit(self, address: Address, egress_ip: EgressIP, name: str) -> Iterator[str]:
        """Give why a node can not have an address, however well it is."""
        node = self.nodes.get(name)
        if node is None:
            yield "there is no such node"
            return
        if egress_ip.node_selector is None:
            if not node.assignable:
                yield f"it has no label {LABEL}"
        elif not egress_ip.node_selector.matches(node.labels):
            yield "the EgressIP's egressNodeSelector does not select it"
        if self.network(address, name) is None:
            own = ", ".join(str(one) for one in networks_of(node) if one.version == address.version)
            yield f"no network of it holds {address} (it has {own or 'none that is known'})"

    def ills(self, address: Address, name: str) -> Iterator[tuple[Ill, str]]:
        """Give why a node should not have an address for the time being."""
        health, network = self._of(name), self.network(address, name)
        if health.draining:
            yield Ill.DRAINING, "it is being drained"
        if not self.nodes[name].ready:
            yield Ill.NOT_READY, "it is not ready"
        if not health.reachable:
            yield Ill.UNREACHABLE, "it does not answer"
        if network in health.cut:
            yield Ill.CUT, f"nothing gets out by {network} there"

    def full(self, address: Address, egress_ip: EgressIP, name: str) -> str:
        """Return why a node of a cloud has no room for one more address, in words; empty: it has, or has this one."""
        cloud = self.nodes[name].cloud
        if cloud is None or (egress_ip.name, address) in self._on[name]:
            return ""
        of_version = sum(one.version == address.version for _, one in self._on[name])
        limits = [(cloud.capacity, len(self._on[name]), "")] if cloud.capacity is not None else []
        limits += [(most, of_version, f" of IPv{one}") for one, most in cloud.by_version if one == address.version]
        over = ((most, has, what) for most, has, what in limits if has >= most)
        return next((f"the cloud lets it have {most}{what}, and it has {has}" for most, has, what in over), "")

    def able(self, address: Address, egress_ip: EgressIP, although: frozenset[Ill] = frozenset()) -> tuple[str, ...]:
        """Return the nodes, by name, that are fit and well, or ill of nothing but `although`, room or not.

        Addresses that the same networks hold share an answer, which is why 500 of them take 50 nodes no time.
        """
        key = (egress_ip.node_selector, self._all_networks.holding(address), although)
        if key not in self._able:
            self._able[key] = tuple(
                name
                for name in self.nodes
                if not any(self.unfit(address, egress_ip, name))
                and all(ill in although for ill, _ in self.ills(address, name))
            )
        return self._able[key]

    def put(self, seat: Seat, old: str, new: str) -> None:
        """Take note that an address goes from one node to another; empty is none, and so is one that is not known."""
        if old in self._on:
            self._on[old].discard(seat)
        if new in self._on:
            self._on[new].add(seat)

    def load(self, name: str) -> int:
        """Return how many egress IPs a node has."""
        return len(self._on[name])

    def _of(self, name: str) -> NodeHealth:
        return self._health.get(name, _WELL)


class _Ranges(Generic[Said]):
    """Prefixes, each with what is said of it, in the order in which they were given."""

    def __init__(self, given: Iterable[tuple[Prefix, Said]]) -> None:
        self._tables: dict[tuple[int, int], dict[int, list[tuple[int, Said]]]] = {}
        for number, (prefix, said) in enumerate(given):
            table = self._tables.setdefault((prefix.version, int(prefix.netmask)), {})
            table.setdefault(int(prefix.network_address), []).append((number, said))

    def holding(self, address: Address) -> tuple[Said, ...]:
        """Return what is said of the prefixes that hold an address."""
        version, bits = address.version, int(address)
        found = [
            one
            for (of_version, mask), table in self._tables.items()
            if of_version == version
            for one in table.get(bits & mask, ())
        ]
        if len(found) > 1:
            found.sort(key=lambda one: one[0])
        return tuple([said for _, said in found])


def _inside(intent: Intent) -> Iterator[tuple[Prefix, str]]:
    """Give the networks that the cluster uses itself, the most telling words first."""
    for node in intent.nodes:
        for subnet in node.subnets:
            yield subnet.prefix, f"{subnet.prefix}, the pods of Node/{node.name}"
    network = intent.network
    for prefix in (*network.cluster_networks, *network.service_networks) if network is not None else ():
        yield prefix, f"{prefix}, which the cluster uses inside"
    for what, texts in _OVN_USES.items():
        for text in texts:
            yield ip_network(text), f"{text}, which OVN-Kubernetes uses {what}"


def _owned(nodes: Iterable[Node]) -> dict[Address, tuple[str, bool]]:
    """Return the addresses that nodes have, each with the node, and whether it is listed there without its network."""
    owned: dict[Address, tuple[str, bool]] = {}
    for node in nodes:
        for address in node.internal_ips:
            owned[address] = (node.name, False)
        for one in node.host_cidrs:
            is_alone = one.network.prefixlen == one.network.max_prefixlen
            if one.address not in owned or (owned[one.address][1] and not is_alone):
                owned[one.address] = (node.name, is_alone)
    return owned
