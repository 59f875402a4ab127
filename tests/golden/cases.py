"""The rows of EgressIP's decision tables, each a folder with a cluster and what becomes of its packets.

    ROW-A-FEW-WORDS/
      cluster.yaml   the objects, as kubectl takes them; the EgressRouting `default` says the semantics
      nodes/n1.json  the egress node's host, as `outgate node snapshot` writes it
      asked.toml     whose packets, and where to
      expected/      decision.json, explain.txt, assist.txt, own.txt: written by `python -m tests.golden --write`

`assist.txt` is what an assisting node adds, a line for each resource, and what it tells; empty: it adds nothing.
`own.txt` is what every node holds where outgate does all of EgressIP, once pods have been handed over. It is missing
for rows of `legacy`, which are OVN-Kubernetes' own, and where `explain.txt` is.
`explain.txt` is what `outgate explain` says. It is missing where what is asked can not be read from a cluster yet: pods
of user-defined networks (`network`), and bridges beside br-ex that are uplinks of OVN (`uplinks`). The node's role can
not read those either, so `assist.txt` shows what it does for such a pod's address in the default network.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from outgate.model.egress_ip import ClusterView, Decision, EgressExplanation, NodeSnapshot, PodNetwork
from outgate.model.host_table import HostTables
from outgate.model.intent import EgressNode, Intent, Node, Pod
from outgate.model.net import Address, LinkName, Mark, Prefix, Route, Rule
from outgate.model.nics import GatewayMode, HostCidr
from outgate.model.ovn import Action, DropAcl, LogicalRoute, Policy, QosMark, SetMember, Snat
from outgate.model.routing import Routing, Semantics, Stance
from outgate.model.ruleset import Table
from outgate.plan.assist import plan_node
from outgate.plan.egress_explain import explain_pod, find_pod, selecting
from outgate.plan.egress_ip import Asked, EgressNodeFacts, decide
from outgate.plan.egress_nodes import digest, egress_nodes
from outgate.plan.routing import Routings
from outgate.plan.serving import CLUSTER_ROUTER, gateway_router
from outgate.report.egress_ip import egress_text
from outgate.report.plain import Plain, as_plain
from outgate.roles.egress_view import ViewOptions, view_of
from outgate.roles.options import GatewayOptions

ROWS = Path(__file__).parent / "egress_ip"
EXPECTED = "expected"
_JOIN: Mapping[int, Prefix] = MappingProxyType({4: ip_network("100.64.0.0/16"), 6: ip_network("fd98::/64")})
_UNKNOWN_HOST = HostTables(links=MappingProxyType({}), routes=frozenset(), rules=frozenset())
_NETWORKS = MappingProxyType({"default": PodNetwork.DEFAULT, "layer3": PodNetwork.LAYER3, "layer2": PodNetwork.LAYER2})


@dataclass(frozen=True)
class Case:
    """One folder."""

    folder: Path

    @property
    def row(self) -> str:
        """The row that the folder is about."""
        return self.folder.name.partition("-")[0]

    @cached_property
    def asked(self) -> dict[str, Any]:
        """What `asked.toml` says."""
        return tomllib.loads((self.folder / "asked.toml").read_text())

    @property
    def routing(self) -> Routing:
        """How EgressIPs are routed."""
        return Routings.of(self.view.intent).default

    @property
    def mode(self) -> GatewayMode:
        """The gateway mode of all nodes."""
        (mode,) = {one.mode for one in self.view.intent.nodes}
        assert mode is not None
        return mode

    @property
    def network(self) -> PodNetwork:
        """The kind of network that the pod is in."""
        return _NETWORKS[self.asked.get("network", "default")]

    @property
    def uplinks(self) -> frozenset[LinkName]:
        """Bridges beside br-ex that OVN is told of."""
        return frozenset(map(LinkName, self.asked.get("uplinks", ())))

    @property
    def destinations(self) -> tuple[Address, ...]:
        """Where the packets go."""
        return tuple(map(ip_address, self.asked["to"]))

    @cached_property
    def view(self) -> ClusterView:
        """The cluster and its hosts, read as `outgate explain` reads them."""
        return view_of(ViewOptions(objects=GatewayOptions(manifests=self.folder)))

    @property
    def decisions(self) -> dict[Address, Decision]:
        """What is decided, by destination."""
        return {to: self._decide(to) for to in self.destinations}

    @property
    def explanations(self) -> dict[Address, EgressExplanation]:
        """What `outgate explain` is told, by destination; nothing where that can not be asked."""
        if self.network is not PodNetwork.DEFAULT or self.uplinks:
            return {}
        return {to: explain_pod(self.view, self.asked["pod"], to) for to in self.destinations}

    @property
    def files(self) -> dict[str, str]:
        """What is expected, as text by the name of the file."""
        decided = {str(to): as_plain(one) for to, one in self.decisions.items()}
        found = {"decision.json": _laid_out(decided, levels=2) + "\n", "assist.txt": "".join(self._assisting())}
        if self.explanations:
            words = f"outgate explain {self.asked['pod']}"
            said = (f"$ {words} --to {to}\n{egress_text(one)}\n" for to, one in self.explanations.items())
            found["explain.txt"] = "\n".join(said).replace(f"{self.folder}/", "")
            if self.routing.semantics is not Semantics.LEGACY:
                found["own.txt"] = "".join(self._owning())
        return found

    def _decide(self, to: Address) -> Decision:
        pod = self._pod
        (egress_ip,) = selecting(self.view, pod)
        node_name, address = next(one for one in egress_ip.assigned if one[1].version == to.version)
        node = next(one for one in self.view.intent.nodes if one.name == node_name)
        asked = Asked(
            egress_ip=address,
            pod=next(one for one in pod.addresses if one.version == to.version),
            pod_is_here=pod.node == node_name,
            destination=to,
            network=self.network,
        )
        facts = replace(EgressNodeFacts.of(node, self.view.hosts[node_name]), uplinks=self.uplinks)
        return decide(asked, facts, self.routing)

    @property
    def _pod(self) -> Pod:
        pod = find_pod(self.view, self.asked["pod"])
        assert pod is not None, self.asked["pod"]
        return pod

    def _assisting(self) -> Iterator[str]:
        """Yield the lines of what the egress node adds and tells, each kind sorted."""
        intent = self.view.intent
        for name, node in egress_nodes(intent).items():
            snapshot = NodeSnapshot(
                node=next(one for one in intent.nodes if one.name == name),
                host=self.view.hosts[name],
                assignments=node.assignments,
                departures=node.departures,
                stance=node.stance,
                policies=frozenset(exceptions(intent)),
                sets=sets(intent),
            )
            yield from _planned(snapshot)

    def _owning(self) -> Iterator[str]:
        """Yield the same of each node with stance `own`, by its name."""
        intent = self.view.intent
        own = tuple(replace(one, stance=Stance.OWN) for one in intent.egress_routings)
        elsewhere = replace(intent, egress_routings=own, network=None)  # OpenShift has no `own`
        for name, told in _handed_over(elsewhere).items():
            node = next(one for one in intent.nodes if one.name == name)
            ports = zone_ports(node)
            snapshot = NodeSnapshot(
                node=node,
                nodes=intent.nodes,
                host=self.view.hosts.get(name, _UNKNOWN_HOST),
                assignments=told.assignments,
                departures=told.departures,
                stance=told.stance,
                ports=ports,
                routes=frozenset(ways_in(node, intent, ports)),
            )
            yield f"{name}:\n"
            yield from _planned(snapshot)


def cases() -> list[Case]:
    """Return all folders, by name."""
    return [Case(folder) for folder in sorted(ROWS.iterdir()) if folder.is_dir()]


def _handed_over(intent: Intent) -> Mapping[str, EgressNode]:
    """Return what nodes are told when nothing is left to be done: until then each does what it was told."""
    told: Mapping[str, EgressNode] = {}
    while True:
        done = tuple(replace(one, programmed=digest(one)) for one in told.values())
        now = egress_nodes(replace(intent, egress_nodes=done))
        if told and {name: digest(one) for name, one in now.items()} == {one.name: one.programmed for one in done}:
            return now
        told = now


def _planned(snapshot: NodeSnapshot) -> Iterator[str]:
    desired = plan_node(snapshot, digest="")
    yield from sorted(_line(one) for one in desired.wants if not isinstance(one, Table))
    yield from sorted(f"tells {one.severity.name.lower()} {one.reason}: {one.text}\n" for one in desired.findings)


def zone_ports(node: Node) -> Mapping[str, tuple[HostCidr, ...]]:
    """Return the ports of routers in a node's zone that lead from the gateway router to the cluster's, and back."""
    number = int(node.name.removeprefix("n")) + 1
    return MappingProxyType(
        {
            f"rtoj-{name}": tuple(HostCidr(one[last], one) for one in _JOIN.values())
            for name, last in ((CLUSTER_ROUTER, 1), (gateway_router(node.name), number))
        }
    )


def ways_in(node: Node, intent: Intent, ports: Mapping[str, tuple[HostCidr, ...]]) -> Iterator[LogicalRoute]:
    """Yield the routes by which the gateway router leads to pods."""
    assert intent.network is not None
    for prefix, hop in product(intent.network.cluster_networks, ports[f"rtoj-{CLUSTER_ROUTER}"]):
        if prefix.version == hop.address.version:
            yield LogicalRoute(router=gateway_router(node.name), prefix=prefix, next_hop=str(hop.address))


def exceptions(intent: Intent) -> Iterator[Policy]:
    """Yield what OVN-Kubernetes has at priority 102 in every zone: the traffic that no EgressIP is about."""
    assert intent.network is not None
    for version in (4, 6):
        pods = [one for one in intent.network.cluster_networks if one.version == version]
        for source, to in product(pods, [*pods, _JOIN[version]]):
            yield _allow(f"ip{version}.src == {source} && ip{version}.dst == {to}")
        of_egress = f"(ip{version}.src == $egressip_v{version} || ip{version}.src == $egresssvc_v{version})"
        yield replace(_allow(f"{of_egress} && ip{version}.dst == $nodes_v{version}"), packet_mark=Mark(1008))
    yield _allow("pkt.mark == 42")


def sets(intent: Intent) -> Mapping[str, frozenset[str]]:
    """Return the address sets that those name, as far as they are about nodes."""
    addresses = [one.address for node in intent.nodes for one in node.host_cidrs]
    return MappingProxyType(
        {f"nodes_v{version}": frozenset(str(one) for one in addresses if one.version == version) for version in (4, 6)}
    )


def _allow(match: str) -> Policy:
    return Policy(router=CLUSTER_ROUTER, priority=102, match=match, action=Action.ALLOW)


def _line(resource: object) -> str:
    rows = dict.fromkeys((Policy, SetMember, LogicalRoute, Snat, QosMark, DropAcl), "ovn ")
    kind = {**rows, Route: "route ", Rule: "rule "}.get(type(resource), "")
    return f"{kind}{resource}\n"


def _laid_out(value: Plain, *, levels: int, indent: str = "") -> str:
    """Return JSON with the outer levels a line for each item, and what is within them on that line."""
    if levels and isinstance(value, dict) and value:
        items = [
            f"{json.dumps(key)}: {_laid_out(one, levels=levels - 1, indent=indent + ' ')}" for key, one in value.items()
        ]
        return f"{{\n{indent} " + f",\n{indent} ".join(items) + f"\n{indent}}}"
    if levels and isinstance(value, list) and value:
        items = [_laid_out(one, levels=levels - 1, indent=indent + " ") for one in value]
        return f"[\n{indent} " + f",\n{indent} ".join(items) + f"\n{indent}]"
    return json.dumps(value)
