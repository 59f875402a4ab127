"""Whether the rows of a node's zone are what OVN-Kubernetes has to keep there for the egress IPs of the node.

A primary egress IP is a translation in the node's gateway router for each pod, and a policy on the cluster router for
each pod that runs here; a secondary one is a policy for each pod, to the management port. What pods of this node have
on other nodes is not known here, and not looked at; nor are user-defined networks.
Source: go-controller/pkg/ovn/egressip.go of OVN-Kubernetes (2026).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from outgate.model.egress_ip import NodeSnapshot
from outgate.model.net import Address
from outgate.model.ovn import Action, Policy, Snat
from outgate.model.why import Finding, Severity
from outgate.plan.egress_ip import BRIDGE
from outgate.plan.serving import CLUSTER_ROUTER, Served, gateway_router, management_ports, pod_subnets, served

_REROUTE = 100  # the priority of OVN-Kubernetes' policies for EgressIP
_ONE_POD = re.compile(r"ip[46]\.src == ([0-9a-fA-F:.]+)")
_AGAIN = (
    "look at the EgressIP's events and at ovnkube-controller's log on this node; restart it: it makes its rows anew"
)


def compare_zone(snapshot: NodeSnapshot) -> tuple[Finding, ...]:
    """Return which rows lack, and which are left over.

    A pod that several EgressIPs select may rightly lack the rows of one of them, and is passed over.
    """
    return tuple(_Zone.of(snapshot).findings())


@dataclass(frozen=True, slots=True)
class _Zone:
    """What stands in the zone, by pod address, and what is assigned to the node."""

    snapshot: NodeSnapshot
    snats: dict[Address, Snat]
    policies: dict[Address, Policy]
    served: tuple[Served, ...]

    @classmethod
    def of(cls, snapshot: NodeSnapshot) -> _Zone:
        router = gateway_router(snapshot.node.name)
        return cls(
            snapshot,
            {
                one.inside.network_address: one
                for one in snapshot.snats
                if one.router == router and one.inside.num_addresses == 1
            },
            {
                ip_address(found[1]): one
                for one in snapshot.policies
                if one.router == CLUSTER_ROUTER and one.priority == _REROUTE and one.action is Action.REROUTE
                if (found := _ONE_POD.fullmatch(one.match)) is not None
            },
            served(snapshot),
        )

    def findings(self) -> Iterator[Finding]:
        for one in self.served:
            if not one.pod.contested and one.link is not None:
                yield from self._lacking_translation(one) if one.link == BRIDGE else ()
                yield from self._lacking_policy(one)
        yield from self._left_over()

    def _lacking_translation(self, one: Served) -> Iterator[Finding]:
        found, given = self.snats.get(one.address), one.assignment
        if found is None or found.outside != given.address:
            what = f"translates {one.address} to {found.outside}" if found else f"does not translate {one.address}"
            text = f"EgressIP/{given.egress_ip} is here with {given.address}, and {self._router} {what}"
            yield Finding("SnatMissing", _about(one), text, Severity.WARNING, _AGAIN)

    def _lacking_policy(self, one: Served) -> Iterator[Finding]:
        found, given = self.policies.get(one.address), one.assignment
        if one.link == BRIDGE:
            is_here = any(one.address in prefix for prefix in pod_subnets(self.snapshot.node))
            lacks = is_here and (found is None or self._is_to_host(found))
            where = self._router
        else:
            lacks = found is None or not self._is_to_host(found)
            where = "the management port"
        if lacks:
            text = (
                f"EgressIP/{given.egress_ip} is here with {given.address}, and no policy of priority {_REROUTE} takes"
            )
            text += f" packets from {one.address} to {where}: they leave as if it had no egress IP, or not at all"
            yield Finding("RerouteMissing", _about(one), text, Severity.WARNING, _AGAIN)

    def _left_over(self) -> Iterator[Finding]:
        node = self.snapshot.node
        about = f"Node/{node.name}"
        assigned = {
            (address, one.address) for one in self.snapshot.assignments for pod in one.pods for address in pod.addresses
        }
        by_nic = {one.address for one in self.served if one.link not in (BRIDGE, None)}
        own = {one.address for one in node.host_cidrs}
        for pod, snat in sorted(self.snats.items(), key=str):
            is_egress_ip = bool(own) and snat.outside not in own and self._is_primary(snat.outside)
            if is_egress_ip and (pod, snat.outside) not in assigned:
                text = f"{snat} is left over: no EgressIP gives {pod} this address here; whoever has it leaves with it"
                yield Finding("SnatLeftOver", about, text, Severity.WARNING, _AGAIN)
        for pod, policy in sorted(self.policies.items(), key=str):
            if self._is_to_host(policy) and pod not in by_nic:
                text = f"{policy} is left over: no EgressIP on a secondary NIC of this node serves {pod}"
                yield Finding("RerouteLeftOver", about, text, Severity.WARNING, _AGAIN)

    @property
    def _router(self) -> str:
        return gateway_router(self.snapshot.node.name)

    def _is_to_host(self, policy: Policy) -> bool:
        return not set(policy.next_hops).isdisjoint(management_ports(self.snapshot.node))

    def _is_primary(self, address: Address) -> bool:
        return any(address in network for network in self.snapshot.node.primary if network.version == address.version)


def _about(one: Served) -> str:
    return f"Pod/{one.pod.namespace}/{one.pod.name}"
