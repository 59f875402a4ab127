"""EgressIPs at a glance, and the reasons for one that is not assigned."""

from __future__ import annotations

from collections.abc import Iterator

from outgate.model.egress_ip import AddressReason, EgressRow
from outgate.model.errors import IntentError
from outgate.model.intent import EgressIP, Intent
from outgate.model.net import Address
from outgate.model.why import Finding, Severity
from outgate.plan.assignment import candidates, unassigned
from outgate.plan.selection import NamespaceIndex, pods_by_namespace, pods_of


def listed(intent: Intent) -> tuple[EgressRow, ...]:
    """Return the EgressIPs by name, each with the pods that it serves: a pod that two select has the first by name."""
    index, pods_in = NamespaceIndex(intent.namespaces), pods_by_namespace(intent.pods)
    owner: dict[tuple[str, str], str] = {}
    rows = []
    for one in sorted(intent.egress_ips, key=lambda each: each.name):
        namespaces = index.select(one.namespace_selector)
        pods = pods_of(namespaces, one.pod_selector, pods_in)
        mine = [pod for pod in pods if owner.setdefault((pod.namespace, pod.name), one.name) == one.name]
        lost = [pod for pod in pods if owner[pod.namespace, pod.name] != one.name]
        findings = [*unassigned(one, intent)]
        if lost:
            other = owner[lost[0].namespace, lost[0].name]
            text = f"{len(lost)} of its pods have EgressIP/{other}, which comes first by name: it stands by for them"
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
    found = next((one for one in intent.egress_ips if one.name == name), None)
    if found is None:
        known = ", ".join(sorted(one.name for one in intent.egress_ips)[:5]) or "none"
        raise IntentError(f"there is no EgressIP {name!r}; there are {known}")
    amiss = dict(zip(_open(found), unassigned(found, intent), strict=True))
    return tuple(
        AddressReason(
            egress_ip=name,
            address=address,
            node=node,
            finding=amiss.get(address),
            candidates=candidates(address, intent.nodes),
        )
        for address, node in _placed(found)
    )


def _placed(egress_ip: EgressIP) -> Iterator[tuple[Address, str]]:
    nodes = {address: node for node, address in egress_ip.assigned}
    for address in egress_ip.egress_ips:
        yield address, nodes.get(address, "")


def _open(egress_ip: EgressIP) -> Iterator[Address]:
    given = {address for _, address in egress_ip.assigned}
    return (address for address in egress_ip.egress_ips if address not in given)
