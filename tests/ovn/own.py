"""A cluster in which outgate does all of EgressIP: the decisions of its cluster role, and its role on every node.

What the API server is between them is a dictionary here; tests/kube has the real one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from outgate.lab.ovn.addresses import Pair
from outgate.lab.ovn.topology import NAMESPACE, OvnLaboratory, OvnPod
from outgate.model.intent import EgressIP, EgressNode, EgressRouting, Intent, Namespace, Pod
from outgate.model.net import Address
from outgate.model.routing import OnUnassigned, Semantics, Stance
from outgate.model.selector import LabelSelector
from outgate.plan.egress_nodes import digest, egress_nodes
from outgate.plan.routing import DEFAULT
from tests.ovn.cluster import NodeRole, node_of, role_on

_NAME = "kubernetes.io/metadata.name"
_MOST_STEPS = 30
OWN = EgressRouting(name=DEFAULT, stance=Stance.OWN, semantics=Semantics.AUTO)


@dataclass(slots=True)
class OwnCluster:
    """The cluster, as its API server would show it, and a role for each node."""

    lab: OvnLaboratory
    roles: dict[str, NodeRole]
    intent: Intent
    there: dict[str, EgressNode] = field(default_factory=dict)
    local: bool = True

    def assign(self, name: str, *assigned: tuple[str, Address], pods: tuple[OvnPod, ...] = ()) -> None:
        """Put an EgressIP on nodes, for some pods; it stands nowhere if none is given."""
        labelled = tuple(
            replace(one, labels=(("egress", name),)) if any(one.name == pod.name for pod in pods) else one
            for one in self.intent.pods
        )
        egress_ip = EgressIP(
            name=name,
            egress_ips=tuple(address for _, address in assigned),
            namespace_selector=LabelSelector(match_labels=((_NAME, NAMESPACE),)),
            pod_selector=LabelSelector(match_labels=(("egress", name),)),
            assigned=assigned,
        )
        others = (one for one in self.intent.egress_ips if one.name != name)
        egress_ips = tuple(sorted((*others, egress_ip), key=lambda one: one.name))
        self.intent = replace(self.intent, egress_ips=egress_ips, pods=labelled if pods else self.intent.pods)

    def unassign(self, name: str, addresses: Pair) -> None:
        """Let an EgressIP list addresses that no node has."""
        changed = (
            replace(one, egress_ips=tuple(addresses), assigned=()) if one.name == name else one
            for one in self.intent.egress_ips
        )
        self.intent = replace(self.intent, egress_ips=tuple(changed))

    def wanted(self) -> dict[str, EgressNode]:
        """What the cluster role tells each node now."""
        intent = replace(self.intent, egress_nodes=tuple(self.there[name] for name in sorted(self.there)))
        return dict(egress_nodes(intent))

    def step(self, *, alive: tuple[str, ...] | None = None) -> bool:
        """Let the cluster role tell, and each node that is alive do it once; return whether anything was to do."""
        told = False
        for name, wanted in self.wanted().items():
            node = replace(wanted, programmed=self.there[name].programmed if name in self.there else "")
            if self.there.get(name) != node:
                self.there[name], told = node, True
        for name, role in self.roles.items():
            if name in self.there and (alive is None or name in alive):
                told |= self.work(name, role)
        return told

    def work(self, name: str, role: NodeRole) -> bool:
        """Let one node do what it was told; return whether it had not done that before."""
        node = self.there[name]
        if node.programmed == digest(node):
            return False
        outcome = role.round_of(node, self.intent.nodes, local=self.local)
        assert outcome.converged, outcome
        self.there[name] = replace(node, programmed=digest(node))
        return True

    def settle(self, *, alive: tuple[str, ...] | None = None) -> int:
        """Step until nothing is to do; return how many steps it took."""
        for number in range(_MOST_STEPS):
            if not self.step(alive=alive):
                return number
        raise AssertionError("the cluster does not come to rest")


@contextlib.contextmanager
def own_cluster(lab: OvnLaboratory, *, local: bool, drops: bool = False) -> Iterator[OwnCluster]:
    """The laboratory's cluster with a role on every node, and no EgressIP yet."""
    lab.set_mode(local=local)
    nodes = tuple(
        replace(node_of(one, local=local), transit=one.at.transit, internal_ips=one.at.primary)
        for one in lab.nodes.values()
    )
    intent = Intent(
        nodes=nodes,
        namespaces=(Namespace(name=NAMESPACE, labels=((_NAME, NAMESPACE),)),),
        pods=tuple(Pod(namespace=NAMESPACE, name=one.name, node=one.node, addresses=one.addresses) for one in lab.pods),
        egress_routings=(replace(OWN, on_unassigned=OnUnassigned.DROP) if drops else OWN,),
    )
    with contextlib.ExitStack() as opened:
        roles = {name: opened.enter_context(role_on(lab, name)) for name in lab.nodes}
        yield OwnCluster(lab, roles, intent, local=local)
