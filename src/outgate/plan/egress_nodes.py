"""What each node has to do for egress IPs: those that are assigned to it with the pods of all nodes behind each, and
the pods that run on it and leave elsewhere.

Decided here, once for all, so that no node reads all pods of a cluster. Where outgate does all of EgressIP (stance
`own`), this is also where the order between nodes comes from. A node says which work it has done (`programmed`), so:
packets are sent to an egress node when it has said that it translates them, and it goes on translating until the pod's
node has said that it sends none any more. A pod whose egress IP moves keeps its old way, dead though it may be, until
the new one stands: packets are lost then, and never leave with another address.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product
from types import MappingProxyType

from outgate.model.intent import AssignedPod, Assignment, Departure, EgressIP, EgressNode, Intent, Pod
from outgate.model.net import Address
from outgate.model.routing import OnUnassigned, Stance
from outgate.plan.ground import seniority
from outgate.plan.routing import Routings
from outgate.plan.selection import NamespaceIndex, PodIndex

_Behind = dict[tuple[str, Address], list[AssignedPod]]  # by EgressIP and its address


def egress_nodes(intent: Intent) -> Mapping[str, EgressNode]:
    """Return, by name, each node that has to do something, and with nothing those that had and still are there."""
    routings = Routings.of(intent)
    chosen = _chosen(intent, routings)
    if routings.default.stance is Stance.OWN:
        handover = _Handover(intent, routings, chosen)
        is_new: Callable[[str, Address], bool] = handover.is_new
        assignments, departures = handover.plan()
    else:
        is_new = _never
        assignments, departures = _assigned(chosen), _held(chosen, routings)
    known = {one.name for one in intent.nodes}
    names = {*assignments, *departures, *(one.name for one in intent.egress_nodes)} & known
    return MappingProxyType(
        {
            name: EgressNode(
                name=name,
                stance=routings.default.stance,
                assignments=tuple(
                    Assignment(
                        egress_ip=egress_ip,
                        address=address,
                        pods=tuple(pods),
                        routing=routings[egress_ip],
                        is_new=is_new(name, address),
                    )
                    for (egress_ip, address), pods in sorted(
                        assignments.get(name, {}).items(), key=lambda item: (item[0][0], str(item[0][1]))
                    )
                ),
                departures=tuple(sorted(departures.get(name, ()), key=_of_departure)),
            )
            for name in sorted(names)
        }
    )


def digest(node: EgressNode) -> str:
    """Return a short name of all that a node has to do, by which it says that it has done it."""
    found = sha256(node.stance.value.encode())
    for one in node.assignments:
        found.update(f"here {one.egress_ip} {one.address} {one.routing}\n".encode())
        for pod in one.pods:
            found.update(f"{pod.namespace}/{pod.name} {pod.contested} {_shown(pod.addresses)}\n".encode())
    for each in node.departures:
        found.update(f"away {each.namespace}/{each.name} {each.egress_ip} {each.nodes} {each.drops} ".encode())
        found.update(f"{_shown(each.addresses)}\n".encode())
    return found.hexdigest()[:16]


def _shown(addresses: Iterable[Address]) -> str:
    return " ".join(map(str, addresses))


def _never(_node: str, _address: Address) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Choice:
    """An EgressIP and the pods that it serves, and how many EgressIPs that are on a node select each pod. `denied` are
    pods, by namespace, name and IP version, that an older one serves.
    """

    egress_ip: EgressIP
    pods: Sequence[Pod]
    times: Mapping[tuple[str, str], int]
    denied: frozenset[tuple[str, str, int]] = frozenset()

    def addresses(self, pod: Pod, version: int) -> tuple[Address, ...]:
        """Return those addresses of a pod that it serves, of one family: none if it has no address of that itself."""
        if (pod.namespace, pod.name, version) in self.denied or version not in self.versions:
            return ()
        return tuple(one for one in pod.addresses if one.version == version)

    @property
    def versions(self) -> frozenset[int]:
        """The families that it has addresses of."""
        return frozenset(one.version for one in self.egress_ip.egress_ips)

    def behind(self, address: Address) -> Iterator[AssignedPod]:
        """Yield the pods behind one of its addresses: those with an address of that family."""
        for pod in self.pods:
            addresses = self.addresses(pod, address.version)
            if addresses:
                yield AssignedPod(
                    namespace=pod.namespace,
                    name=pod.name,
                    addresses=addresses,
                    contested=self.times[pod.namespace, pod.name] > 1,
                )


def _chosen(intent: Intent, routings: Routings) -> list[_Choice]:
    """Return the EgressIPs that serve pods. With stance `own` each family of a pod is served by one, the oldest that
    selects it.
    """
    is_own = routings.default.stance is Stance.OWN
    pods_in = PodIndex(intent.pods)
    index = NamespaceIndex(intent.namespaces)
    selected: list[tuple[EgressIP, list[Pod], frozenset[tuple[str, str, int]]]] = []
    taken: set[tuple[str, str, int]] = set()
    for egress_ip in sorted(intent.egress_ips, key=seniority) if is_own else intent.egress_ips:
        if egress_ip.assigned or routings[egress_ip.name].on_unassigned is OnUnassigned.DROP or is_own:
            of_it = pods_in.of(index.select(egress_ip.namespace_selector), egress_ip.pod_selector)
            pods = sorted(of_it, key=lambda one: (one.namespace, one.name))
            versions = {one.version for one in egress_ip.egress_ips} if is_own else set()
            claims = {(one.namespace, one.name, version) for one in pods for version in versions}
            selected.append((egress_ip, pods, frozenset(claims & taken)))
            taken |= claims
    if is_own:
        return [_Choice(egress_ip, pods, Counter(), denied) for egress_ip, pods, denied in selected]
    times = Counter((pod.namespace, pod.name) for one, pods, _ in selected if one.assigned for pod in pods)
    return [_Choice(egress_ip, pods, times) for egress_ip, pods, _ in selected]


def _assigned(chosen: Iterable[_Choice]) -> dict[str, _Behind]:
    found: dict[str, _Behind] = defaultdict(dict)
    for one in chosen:
        for node, address in one.egress_ip.assigned:
            found[node][one.egress_ip.name, address] = list(one.behind(address))
    return found


def _held(chosen: Iterable[_Choice], routings: Routings) -> dict[str, list[Departure]]:
    """Return, by the node that they run on, the pods whose packets shall stay while no node has their egress IP."""
    found: dict[str, list[Departure]] = defaultdict(list)
    for one in chosen:
        if routings[one.egress_ip.name].on_unassigned is OnUnassigned.DROP:
            for pod, version in product(one.pods, sorted(one.versions)):
                addresses = one.addresses(pod, version)
                if pod.node and addresses:
                    found[pod.node].append(_departure(one.egress_ip, pod, addresses, drops=True))
    return found


def _departure(
    egress_ip: EgressIP, pod: Pod, addresses: tuple[Address, ...], nodes: Iterable[str] = (), *, drops: bool
) -> Departure:
    return Departure(
        egress_ip=egress_ip.name,
        namespace=pod.namespace,
        name=pod.name,
        addresses=addresses,
        nodes=tuple(sorted(nodes)),
        drops=drops,
    )


class _Handover:
    """What each node does next, by what each has done so far, where outgate does all of EgressIP."""

    def __init__(self, intent: Intent, routings: Routings, chosen: list[_Choice]) -> None:
        self._routings, self._chosen = routings, chosen
        self._there = {one.name: one for one in intent.egress_nodes}
        self._done = {one.name for one in intent.egress_nodes if one.programmed == digest(one)}
        self._sends: dict[Address, tuple[str, ...]] = {  # by pod address: to which nodes its node sends it
            address: departure.nodes
            for node in intent.egress_nodes
            for departure in node.departures
            for address in departure.addresses
        }
        self._runs_on = {address: pod.node for pod in intent.pods for address in pod.addresses if not pod.finished}

    def plan(self) -> tuple[dict[str, _Behind], dict[str, list[Departure]]]:
        """Return the assignments and the departures of each node."""
        assignments = _assigned(self._chosen)
        departures: dict[str, list[Departure]] = defaultdict(list)
        for one in self._chosen:
            drops = self._routings[one.egress_ip.name].on_unassigned is OnUnassigned.DROP
            for pod, version in product(one.pods, sorted(one.versions)):
                addresses = one.addresses(pod, version)
                nodes = self._nodes_for(one.egress_ip, addresses, version)
                if addresses and pod.node and (nodes or drops):
                    departures[pod.node].append(_departure(one.egress_ip, pod, addresses, nodes, drops=drops))
        self._keep(assignments)
        return assignments, departures

    def is_new(self, node: str, address: Address) -> bool:
        """Whether nobody had an address before this node, and it has not said yet that it uses it."""
        had = {name: one for name, there in self._there.items() for one in there.assignments if one.address == address}
        if node in had:
            return had[node].is_new and node not in self._done
        return not had

    def _nodes_for(self, egress_ip: EgressIP, addresses: tuple[Address, ...], version: int) -> tuple[str, ...]:
        """Return the nodes that a pod's packets may be sent to now: that have the egress IP, and have said so."""
        wanted = {node for node, address in egress_ip.assigned if address.version == version}
        standing = self._sends.get(addresses[0], ()) if addresses else ()
        ready = {node for node in wanted if node in standing or self._translates(node, egress_ip, addresses)}
        return tuple(ready) if ready or not wanted else standing

    def _translates(self, node: str, egress_ip: EgressIP, addresses: tuple[Address, ...]) -> bool:
        """Whether a node has said that it translates a pod for this EgressIP."""
        if node not in self._done:
            return False
        return any(
            address in pod.addresses
            for one in self._there[node].assignments
            if one.egress_ip == egress_ip.name
            for pod in one.pods
            for address in addresses
        )

    def _keep(self, assignments: dict[str, _Behind]) -> None:
        """Leave with a node the pods that others may still send it, where it has nothing else for them."""
        for name, node in self._there.items():
            now = {address for pods in assignments.get(name, {}).values() for pod in pods for address in pod.addresses}
            for one in node.assignments:
                kept = [pod for pod in one.pods if self._may_come(name, pod) and now.isdisjoint(pod.addresses)]
                if kept:
                    behind = assignments.setdefault(name, {}).setdefault((one.egress_ip, one.address), [])
                    behind.extend(replace(pod, contested=False) for pod in kept)
                    behind.sort(key=lambda pod: (pod.namespace, pod.name))

    def _may_come(self, node: str, pod: AssignedPod) -> bool:
        """Whether a pod's node sends its packets to this node, or has not said yet that it stopped."""
        for address in pod.addresses:
            runs_on = self._runs_on.get(address, "")
            if node in self._sends.get(address, ()) or (runs_on in self._there and runs_on not in self._done):
                return True
        return False


def _of_departure(one: Departure) -> tuple[str, str, str]:
    return (one.namespace, one.name, str(one.addresses[0]))
