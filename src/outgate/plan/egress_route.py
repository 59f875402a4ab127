"""Which egress IPs follow a route of their node's host, and why the others do not. Nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from outgate.model.egress_ip import ClusterView
from outgate.model.egress_route import Follows, RouteAnswer
from outgate.model.net import MAIN, Prefix, Route
from outgate.model.routing import Routing
from outgate.plan.egress_ip import Asked, EgressNodeFacts, decide, hosting_nic
from outgate.plan.routing import Routings
from outgate.plan.selection import NamespaceIndex, PodIndex
from outgate.plan.whatif import ranges

_REASONS = ("HostRouteIgnored", "SourceNotOnLink", "NoDefaultRoute", "OtherNicNotUsed")


def who_follows(view: ClusterView, prefix: Prefix) -> RouteAnswer:
    """Return, for each egress IP of the prefix's IP version that is on a node, whether it follows the route there."""
    index, pods_in = NamespaceIndex(view.intent.namespaces), PodIndex(view.intent.pods)
    facts = {
        one.name: EgressNodeFacts.of(one, view.hosts[one.name]) for one in view.intent.nodes if one.name in view.hosts
    }
    routings = Routings.of(view.intent)
    found: list[Follows] = []
    for egress_ip in sorted(view.intent.egress_ips, key=lambda one: one.name):
        pods = pods_in.of(index.select(egress_ip.namespace_selector), egress_ip.pod_selector)
        sources = [address for pod in pods for address in pod.addresses if address.version == prefix.version]
        for node, address in egress_ip.assigned:
            if address.version == prefix.version:
                asked = Asked(
                    egress_ip=address,
                    pod=sources[0] if sources else address,
                    pod_is_here=True,
                    destination=prefix.network_address,
                )
                one = _One(name=egress_ip.name, node=node, asked=asked)
                if node in facts:
                    found.append(one.judged(facts[node], prefix, view.routing or routings[egress_ip.name]))
                else:
                    found.append(one.answer((), f"nobody has read the routes of {node}: `outgate node snapshot` there"))
    return RouteAnswer(prefix=prefix, egress_ips=tuple(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    """One egress IP on one node, and the question about the prefix."""

    name: str
    node: str
    asked: Asked

    def answer(self, routes: tuple[Route, ...], why: str, *, follows: bool = False) -> Follows:
        """Return an answer for which nothing had to be decided."""
        address = self.asked.egress_ip
        return Follows(egress_ip=self.name, address=address, node=self.node, routes=routes, follows=follows, why=why)

    def judged(self, facts: EgressNodeFacts, prefix: Prefix, routing: Routing) -> Follows:
        """Return whether packets go where the node's route to the prefix says."""
        nic = hosting_nic(self.asked.egress_ip, facts.networks)
        table = facts.host.host_table(nic) if nic is not None else MAIN
        every = sorted((one for one in facts.host.routes if one.dst == prefix and one.table == table), key=str)
        routes = tuple(one for one in every if one.metric == min(each.metric for each in every))
        if not routes:
            return self.answer((), f"the host of {self.node} has no route to {prefix}", follows=True)
        destination = next((at for one, at in ranges(facts.host, prefix.version, ()) if one == prefix), None)
        if destination is None:
            return self.answer(routes, "longer routes cover all of it", follows=True)
        decision = decide(replace(self.asked, destination=destination), facts, routing)
        follows = set(decision.hops) == {one.hop for one in routes}
        said = next((one for one in decision.findings if one.reason in _REASONS), None)
        because = "; ".join(one.text for one in decision.because if one.rule != "fib")
        fix = said.fix if said is not None and not follows else ""
        return replace(self.answer(routes, because, follows=follows), fix=fix, decision=decision)
