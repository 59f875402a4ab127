"""What the stories of a laboratory with OVN share: its nodes as outgate knows them, and a node's machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from outgate.lab.ovn import addresses
from outgate.lab.ovn.addresses import PRIMARY, SECONDARY, SERVICES, Pair
from outgate.lab.ovn.topology import NAMESPACE, OvnLaboratory, OvnNode, OvnPod
from outgate.model.egress_ip import NodeSnapshot
from outgate.model.intent import AssignedPod, Assignment, Departure, EgressNode, Node, NodeSubnet
from outgate.model.nics import GatewayMode, HostCidr
from outgate.model.routing import Routing, Semantics
from outgate.model.state import Desired, Outcome
from outgate.model.why import Finding
from outgate.plan.assist import plan_node
from outgate.plan.zone import compare_zone
from outgate.roles.node_machine import NodeMachine
from outgate.systems.ovn.northbound import Northbound

AUTO = Routing(semantics=Semantics.AUTO)


def node_of(node: OvnNode, *, local: bool) -> Node:
    """The node as OVN-Kubernetes would have annotated it."""
    primary = [HostCidr(node.at.primary[family], PRIMARY[family]) for family in (0, 1)]
    secondary = [HostCidr(node.at.secondary[family], SECONDARY[family]) for family in (0, 1)]
    return Node(
        name=node.name,
        subnets=tuple(NodeSubnet("default", subnet, "k8s.ovn.org/node-subnets") for subnet in node.at.subnets),
        primary=PRIMARY,
        mode=GatewayMode.LOCAL if local else GatewayMode.SHARED,
        next_hops=addresses.ROUTER,
        host_cidrs=(*primary, *secondary),
        assignable=True,
    )


def assignments_of(pair: Pair, pods: tuple[OvnPod, ...]) -> tuple[Assignment, ...]:
    """An EgressIP with an address of each family, as the cluster role tells a node of it."""
    return tuple(
        Assignment(
            egress_ip="prod",
            address=pair[number],
            pods=tuple(
                AssignedPod(namespace=NAMESPACE, name=pod.name, addresses=(pod.addresses[number],)) for pod in pods
            ),
        )
        for number in (0, 1)
    )


class NodeRole:
    """outgate on one node of the laboratory, a round at a time."""

    def __init__(self, lab: OvnLaboratory, name: str, machine: NodeMachine) -> None:
        self.lab, self.node, self.machine = lab, lab.node(name), machine

    def plan(
        self,
        assignments: tuple[Assignment, ...],
        routing: Routing = AUTO,
        *,
        local: bool = True,
        departures: tuple[Departure, ...] = (),
    ) -> Desired:
        """Read and plan; write nothing."""
        snapshot = replace(self._snapshot(assignments, routing, local=local), departures=departures)
        return plan_node(snapshot, self.machine.digest)

    def compare_zone(self, assignments: tuple[Assignment, ...]) -> tuple[Finding, ...]:
        """Read, and say which rows of OVN-Kubernetes lack or are left over."""
        return compare_zone(self._snapshot(assignments, AUTO, local=True))

    def _snapshot(self, assignments: tuple[Assignment, ...], routing: Routing, *, local: bool) -> NodeSnapshot:
        with self.node.net.inside():
            reading = self.machine.read()
        return NodeSnapshot(
            node=node_of(self.node, local=local),
            host=reading.host,
            policies=reading.northbound.policies,
            snats=reading.northbound.snats,
            routes=reading.northbound.routes,
            ports=reading.northbound.ports,
            marks_answers=reading.northbound.marks_answers,
            sets=reading.northbound.sets,
            firewall=reading.firewall,
            assignments=tuple(replace(one, routing=routing) for one in assignments),
            inside=SERVICES,
        )

    def round_of(self, work: EgressNode, nodes: tuple[Node, ...], *, local: bool) -> Outcome:
        """Do what the cluster role tells this node; the switches hold what was written when this returns."""
        snapshot = replace(
            self._snapshot((), AUTO, local=local),
            assignments=work.assignments,
            departures=work.departures,
            stance=work.stance,
            nodes=nodes,
        )
        desired = plan_node(snapshot, self.machine.digest)
        assert {one.reason for one in desired.findings} <= {"AnswersNotMarked", "OtherNicNotUsed"}, desired.findings
        with self.node.net.inside():
            outcome = self.machine.settle(desired, self.machine.read())
        self.lab.settle()
        return outcome

    def round(
        self,
        assignments: tuple[Assignment, ...],
        routing: Routing = AUTO,
        *,
        local: bool = True,
        departures: tuple[Departure, ...] = (),
    ) -> Outcome:
        """Read, plan, write and verify; the switches hold what was written when this returns."""
        desired = self.plan(assignments, routing, local=local, departures=departures)
        with self.node.net.inside():
            outcome = self.machine.settle(desired, self.machine.read())
        self.lab.settle()
        return outcome


@contextlib.contextmanager
def role_on(lab: OvnLaboratory, name: str) -> Iterator[NodeRole]:
    """outgate on a node, connected to the node's zone."""
    node = lab.node(name)
    with contextlib.closing(Northbound(f"unix:{node.programs.northbound}")) as northbound:
        with node.net.inside():
            machine = NodeMachine(northbound)
        with contextlib.closing(machine):
            yield NodeRole(lab, name, machine)
