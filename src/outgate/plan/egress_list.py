"""EgressIPs at a glance, and the reasons for one that is not assigned."""

from __future__ import annotations

from collections.abc import Iterator

from outgate.model.egress_ip import AddressReason, ClusterView, EgressDetail, EgressRow, Placement
from outgate.model.errors import IntentError
from outgate.model.intent import EgressIP, Intent, Pod
from outgate.model.net import Address
from outgate.model.why import Finding, Severity
from outgate.plan.assignment import candidates, unassigned
from outgate.plan.egress_ip import Networks, hosting_nic
from outgate.plan.ground import Ground, network_for
from outgate.plan.rivals import conflicts
from outgate.plan.selection import NamespaceIndex, PodIndex


def listed(intent: Intent) -> tuple[EgressRow, ...]:
    """Return the EgressIPs by name, each with the pods that it serves: a pod that two select has the first by name."""
    index, pods_in, ground = NamespaceIndex(intent.namespaces), PodIndex(intent.pods), Ground(intent)
    owner: dict[tuple[str, str], str] = {}
    rows = []
    fights = conflicts(intent)
    for one in sorted(intent.egress_ips, key=lambda each: each.name):
        namespaces = index.select(one.namespace_selector)
        pods = pods_in.of(namespaces, one.pod_selector)
        mine = [pod for pod in pods if owner.setdefault((pod.namespace, pod.name), one.name) == one.name]
        lost = [pod for pod in pods if owner[pod.namespace, pod.name] != one.name]
        findings = [*unassigned(one, ground), *_fights_of(one, fights)]
        if lost:
            other = owner[lost[0].namespace, lost[0].name]
            text = (
                f"EgressIP/{other} selects {len(lost)} of its pods too, and is shown to serve them, the first by name"
            )
            text += ": OVN-Kubernetes serves them with the one that it saw first, and does not tell which"
            findings.append(Finding("StandBy", f"EgressIP/{one.name}", text, Severity.NOTE, origin=one.origin))
        rows.append(
            EgressRow(
                name=one.name,
                addresses=tuple(_placed(one)),
                pods=len(mine),
                namespaces=namespaces,
                findings=tuple(findings),
            )
        )
    return tuple(rows)


def reasons(intent: Intent, name: str) -> tuple[AddressReason, ...]:
    """Return, for each address of an EgressIP, where it is, and which nodes could have it.

    Raises:
        IntentError: there is no such EgressIP.
    """
    found, ground = _named(intent, name), Ground(intent)
    amiss = dict(zip(_open(found), unassigned(found, ground), strict=True))
    return tuple(
        AddressReason(
            egress_ip=name,
            address=address,
            node=node,
            finding=amiss.get(address),
            candidates=candidates(address, found, ground),
        )
        for address, node in _placed(found)
    )


def detail(view: ClusterView, name: str) -> EgressDetail:
    """Return one EgressIP as a whole.

    Raises:
        IntentError: there is no such EgressIP.
    """
    found = _named(view.intent, name)
    index, pods_in = NamespaceIndex(view.intent.namespaces), PodIndex(view.intent.pods)
    first: dict[tuple[str, str], str] = {}
    mine: tuple[Pod, ...] = ()
    for one in sorted(view.intent.egress_ips, key=lambda each: each.name):
        pods = pods_in.of(index.select(one.namespace_selector), one.pod_selector)
        for pod in pods:
            first.setdefault((pod.namespace, pod.name), one.name)
        mine = pods if one.name == name else mine
    owners = [(pod, first[pod.namespace, pod.name]) for pod in sorted(mine, key=lambda one: (one.namespace, one.name))]
    return EgressDetail(
        name=name,
        placements=tuple(_placement(view, address, node) for address, node in _placed(found)),
        pods=tuple(pod for pod, owner in owners if owner == name),
        standby=tuple((pod, owner) for pod, owner in owners if owner != name),
        findings=(*unassigned(found, Ground(view.intent)), *_fights_of(found, conflicts(view.intent))),
    )


def _fights_of(egress_ip: EgressIP, fights: tuple[Finding, ...]) -> Iterator[Finding]:
    """Yield the conflicts of an EgressIP, each with what the other object is told, which stands behind it."""
    for one, other in zip(fights[::2], fights[1::2], strict=True):
        if one.about == f"EgressIP/{egress_ip.name}":
            yield from (one, other)


def _placement(view: ClusterView, address: Address, name: str) -> Placement:
    node = next((one for one in view.intent.nodes if one.name == name), None)
    host = view.hosts.get(name)
    return Placement(
        address=address,
        node=name,
        nic=hosting_nic(address, Networks.of(node.primary, host)) if node is not None and host is not None else None,
        network=network_for(address, node) if node is not None else None,
    )


def _named(intent: Intent, name: str) -> EgressIP:
    found = next((one for one in intent.egress_ips if one.name == name), None)
    if found is None:
        known = ", ".join(sorted(one.name for one in intent.egress_ips)[:5]) or "none"
        raise IntentError(f"there is no EgressIP {name!r}; there are {known}")
    return found


def _placed(egress_ip: EgressIP) -> Iterator[tuple[Address, str]]:
    nodes = {address: node for node, address in egress_ip.assigned}
    for address in egress_ip.egress_ips:
        yield address, nodes.get(address, "")


def _open(egress_ip: EgressIP) -> Iterator[Address]:
    given = {address for _, address in egress_ip.assigned}
    return (address for address in egress_ip.egress_ips if address not in given)
