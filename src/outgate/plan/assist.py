"""What a node adds beside OVN-Kubernetes' own EgressIP, so that host routes count for egress IPs of its primary NIC.

OVN-Kubernetes' rows stay as they are: a pod's packets still come to the egress node, and what the gateway router's
default would do anyway, it does. In local gateway mode a policy of a higher priority hands the other destinations,
those for which the host has a route of its own, to the management port; the host's routes decide there, and its table
gives the egress IP. In shared gateway mode (`honorHostRoutes`) policies on the gateway router say what the routes say,
as far as it can. Neither touches the destinations or priorities of OVN-Kubernetes: 95, 100 to 102, 501 and above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import product
from types import MappingProxyType

from outgate.model.egress_ip import NodeSnapshot
from outgate.model.firewall import HookChain
from outgate.model.intent import AssignedPod, Assignment
from outgate.model.net import MAIN, Address, Discard, LinkName, OnLink, Prefix, Route, Rule, Setting, Span, Via
from outgate.model.nics import GatewayMode
from outgate.model.ovn import Action, Policy, SetMember
from outgate.model.routing import Routing, Semantics, SnatScope, Stance
from outgate.model.ruleset import Element, Table
from outgate.model.state import Desired, Resource
from outgate.model.why import Because, Finding, Severity
from outgate.plan.assist_nic import closed, plan_nics
from outgate.plan.egress_ip import BRIDGE, MANAGEMENT_PORT
from outgate.plan.fib import LOCAL, winning
from outgate.plan.forwarding import in_words, not_forwarding, refusing
from outgate.plan.held_back import held_back
from outgate.plan.own import plan_own
from outgate.plan.serving import CLUSTER_ROUTER, Served, gateway_router, management_ports, served, set_name
from outgate.plan.source_ranges import lies_in, outermost

_THEIR_EXCEPTIONS, _HAND_OVER, _EXCEPTIONS = 102, 103, 104  # on the cluster router; external gateways are at 501
_EGRESS_SERVICE = 101
_ALONE = Routing(semantics=Semantics.AUTO)  # the names of its sets bear the node's name alone
_ON_ROUTER = 200  # and the length of the prefix: the longest wins
_ROUTER_EXCEPTIONS = 400
_DESTINATION = re.compile(r"\bip[46]\.dst == (\$\w+|[0-9a-fA-F:.]+(?:/\d+)?)")
_SOURCE = re.compile(r"\bip[46]\.src == ([0-9a-fA-F:.]+)(?![0-9a-fA-F:./])")
_REPLY_MARK = 42  # by which OVN-Kubernetes tells answers to flows from outside
_KERNEL_RULES = frozenset({(0, LOCAL), (32766, MAIN), (32767, 253)})
_ALWAYS_INSIDE = tuple(
    map(ip_network, ("100.64.0.0/16", "100.88.0.0/16", "169.254.0.0/16", "fd97::/64", "fd98::/64", "fe80::/10"))
)  # join, transit and masquerade networks of OVN-Kubernetes where nobody has moved them; link-local


def plan_node(snapshot: NodeSnapshot, digest: str) -> Desired:
    """Return what the node shall hold beside OVN-Kubernetes. `digest` names the table that `systems.nft` renders.

    Nothing is wanted where nothing has to be added: no pods, no host route that OVN does not follow already, stance
    `observe`, or semantics `legacy`.
    """
    if snapshot.stance is Stance.OBSERVE:
        return Desired()
    serving = served(snapshot)
    wants: dict[Resource, Because] = {}
    findings: list[Finding] = []
    if snapshot.stance is Stance.OWN:
        own = plan_own(snapshot, serving)
        snapshot, serving = own.snapshot, serving if own.snapshot.assignments else ()
        wants |= own.wants
        findings += own.findings
    else:
        serving = tuple(one for one in serving if one.assignment.routing.semantics is Semantics.AUTO)
    if not serving and not snapshot.departures:
        return Desired(wants=MappingProxyType(wants), findings=tuple(findings))
    if not any(one.priority == _THEIR_EXCEPTIONS and one.router == CLUSTER_ROUTER for one in snapshot.policies):
        return Desired(findings=(_no_exceptions(snapshot),))
    honoured = {one.assignment.routing for one in serving if one.assignment.routing.semantics is Semantics.AUTO}
    for routing, version in product(sorted(honoured, key=str), (4, 6)):
        alike = (one for one in serving if (one.assignment.routing, one.address.version) == (routing, version))
        family = _Family(snapshot, routing, version, tuple(alike))
        family.plan()
        wants |= family.wants
        findings += family.findings
    wants |= held_back(snapshot)
    inside = (*destinations_of(snapshot.policies, snapshot.sets), *snapshot.inside, *_ALWAYS_INSIDE)
    of_nics, about_nics = plan_nics(snapshot, serving, inside)
    wants |= of_nics
    findings += about_nics
    if wants:
        findings += _firewall_not_read(snapshot)
    if any(isinstance(one, Element) for one in wants):
        wants = {Table(digest): Because("assist/table", "the host gives pods their egress IPs in one table"), **wants}
    return Desired(wants=MappingProxyType(wants), findings=tuple(findings))


def _no_exceptions(snapshot: NodeSnapshot) -> Finding:
    text = "the zone has no policies of priority 102, which keep EgressIP from the cluster's own traffic"
    fix = "nothing is added: see whether OVN-Kubernetes' EgressIP feature is on, and whether this is the node's zone"
    return Finding("NoExceptions", f"Node/{snapshot.node.name}", text, Severity.WARNING, fix)


def _firewall_not_read(snapshot: NodeSnapshot) -> Iterator[Finding]:
    for words in snapshot.firewall.failed:
        text = f"what others filter by was not read, so packets may be dropped on the host: {words}"
        yield Finding("FirewallNotRead", f"Node/{snapshot.node.name}", text, fix="see the words")


def destinations_of(policies: Iterable[Policy], sets: Mapping[str, frozenset[str]]) -> Iterator[Prefix]:
    """Yield the destinations that OVN-Kubernetes' exceptions name, by prefix or address set: pods, routers, nodes.

    What is written in another way is passed over: a packet there would be translated, but OVN never hands it over.
    """
    for policy in policies:
        if policy.router == CLUSTER_ROUTER and policy.priority == _THEIR_EXCEPTIONS and policy.action is Action.ALLOW:
            for word in _DESTINATION.findall(policy.match):
                yield from map(ip_network, sets.get(word[1:], ()) if word.startswith("$") else (word,))


@dataclass(slots=True)
class _Family:
    """The plan of one IP version, for the pods whose EgressIPs are routed alike."""

    snapshot: NodeSnapshot
    routing: Routing
    version: int
    serving: tuple[Served, ...]
    wants: dict[Resource, Because] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def plan(self) -> None:
        """Fill in what is wanted."""
        pods = self._pods()
        routes = self._diverging() if pods else []
        if not routes:
            return
        if self.snapshot.node.mode is GatewayMode.LOCAL:
            self._hand_over(pods, self._taken(routes))
        elif self.snapshot.node.mode is GatewayMode.SHARED and self.routing.honor_host_routes:
            self._on_router(pods, routes)

    def _pods(self) -> dict[Address, tuple[Assignment, AssignedPod]]:
        """Return the pods with an egress IP of the primary NIC here, by address.

        Pods that an EgressService sends elsewhere are left out: that is of priority 101, and has to come first.
        """
        found = {one.address: (one.assignment, one.pod) for one in self.serving if one.link == BRIDGE}
        for policy in self.snapshot.policies:
            if policy.router == CLUSTER_ROUTER and policy.priority == _EGRESS_SERVICE:
                for word in _SOURCE.findall(policy.match):
                    self._leave_to_service(found.pop(ip_address(word), None))
        return found

    def _leave_to_service(self, left_out: tuple[Assignment, AssignedPod] | None) -> None:
        if left_out is not None:
            one, pod = left_out
            text = (
                f"an EgressService sends Pod/{pod.namespace}/{pod.name} out, and comes before EgressIP/{one.egress_ip}"
            )
            self.findings.append(Finding("EgressServiceFirst", self._about, text, Severity.NOTE))

    def _diverging(self) -> list[tuple[Prefix, tuple[Route, ...]]]:
        """Return the prefixes for which the host goes another way than the gateway router, and its winning routes."""
        anywhere = ip_network("0.0.0.0/0" if self.version == 4 else "::/0")
        if self.snapshot.stance is Stance.OWN and self.snapshot.node.mode is GatewayMode.LOCAL:
            return [(anywhere, ())]  # nothing is left to the gateway router
        if (rule := self._users_rule()) is not None:
            text = f"rule `{rule}` may send any packet elsewhere: the host is asked about all destinations"
            self.findings.append(Finding("AllByHost", self._about, text, Severity.NOTE))
            return [(anywhere, ())]
        inside = [one for one in self._inside() if one.version == self.version]
        by_prefix: dict[Prefix, list[Route]] = {}
        for route in self.snapshot.host.routes:
            if route.table == MAIN and route.dst.version == self.version and not route.dst.is_multicast:
                by_prefix.setdefault(route.dst, []).append(route)
        found = []
        for prefix, routes in sorted(by_prefix.items(), key=lambda item: str(item[0])):
            legs = winning(routes)
            hops = {leg.hop for leg in legs}
            if hops != self._of_router(prefix) and not any(lies_in(prefix, one) for one in inside):
                found.append((prefix, legs))
        return found

    def _of_router(self, prefix: Prefix) -> set[object]:
        """Return the next hops of the gateway router for a prefix."""
        node = self.snapshot.node
        if any(lies_in(prefix, network) for network in node.primary if network.version == self.version):
            return {OnLink(link=BRIDGE)}
        return {Via(address=one, link=BRIDGE) for one in node.next_hops if one.version == self.version}

    def _users_rule(self) -> Rule | None:
        """Return a policy rule of the user that may apply to pods' packets, if there is one."""
        for rule in sorted(self.snapshot.host.rules, key=lambda one: one.priority):
            known = (rule.priority, rule.action) in _KERNEL_RULES or rule.mark is not None or rule.priority == 6000
            if rule.version == self.version and not known and rule.incoming in (None, MANAGEMENT_PORT):
                return rule
        return None

    def _taken(self, routes: Iterable[tuple[Prefix, tuple[Route, ...]]]) -> list[tuple[Prefix, tuple[Route, ...]]]:
        """Return the routes that packets may be handed to the host for; the others are told why not."""
        kept = []
        for prefix, legs in routes:
            links = sorted({leg.hop.link for leg in legs if not isinstance(leg.hop, Discard)})
            if self._can_leave(prefix, links):
                kept.append((prefix, legs))
        return kept

    def _can_leave(self, prefix: Prefix, links: list[LinkName]) -> bool:
        settings, routing = self.snapshot.host.settings, self.routing
        closed_link = not_forwarding(settings, self.version, (MANAGEMENT_PORT, *links))
        if closed_link is not None:
            text = f"{prefix} would leave by {closed_link}, which does not forward: packets keep to the gateway router"
            fix = f"allow forwarding on {closed_link} (sysctl net.ipv{self.version}.conf.{closed_link}.forwarding=1)"
            self.findings.append(Finding("ForwardingDisabled", self._about, text, Severity.WARNING, fix))
            return False
        for link in links:
            if chains := refusing(self.snapshot.firewall, self.version, MANAGEMENT_PORT, link):
                self.findings.append(self._refused(prefix, link, chains))
                return False
        away = [link for link in links if link != BRIDGE]
        if away and routing.snat_scope is SnatScope.HOSTING_LINK:
            text = f"{prefix} leaves by {away[0]}, and snatScope hosting-link keeps egress IPs on {BRIDGE}"
            self.findings.append(Finding("SourceNotOnLink", self._about, text, Severity.WARNING, "set snatScope any"))
            return False
        strict = (
            settings.get((BRIDGE, Setting.RP_FILTER)) == 1 or settings.get((LinkName("all"), Setting.RP_FILTER)) == 1
        )
        if away and self.version == 4 and strict:
            text = (
                f"{prefix} leaves by {away[0]}; answers that come back by {BRIDGE} are dropped, its rp_filter is strict"
            )
            fix = f"set net.ipv4.conf.{BRIDGE}.rp_filter=2, or let answers come back by {away[0]}"
            self.findings.append(Finding("ReplyDropped", self._about, text, Severity.WARNING, fix))
        return True

    def _refused(self, prefix: Prefix, link: LinkName, chains: Iterable[HookChain]) -> Finding:
        shown, fix = in_words(tuple(chains), MANAGEMENT_PORT)
        text = f"{prefix} would leave by {link}, and packets to there or back are dropped by {shown}"
        return Finding("ForwardRefused", self._about, f"{text}: they keep to the gateway router", fix=fix)

    def _hand_over(
        self, pods: dict[Address, tuple[Assignment, AssignedPod]], routes: list[tuple[Prefix, tuple[Route, ...]]]
    ) -> None:
        """Want the host's table for the pods, and the policy that hands these destinations to the host."""
        if not routes:
            return
        node, far, v = self.snapshot.node, self._set("far"), self.version
        management = next((one for one in management_ports(node) if one.version == v), None)
        if management is None:
            text = f"no IPv{v} pod subnet of {node.name} is known, so the address of its management port is not either"
            self.findings.append(Finding("NoManagementPort", self._about, text))
            return
        self._translate(pods)
        self._members(pods)
        for prefix, legs in routes:
            shown = ", ".join(map(str, legs[:3])) or "its rules say"
            text = f"the host does not go by the gateway router's default there: {shown}"
            self._want(SetMember(set=far, member=prefix), "assist/destination", text)
        self._exceptions()
        self._want(
            Policy(
                router=CLUSTER_ROUTER,
                priority=_HAND_OVER,
                match=f"{self._from_pods()} && ip{v}.dst == ${far}",
                action=Action.REROUTE,
                next_hops=(management,),
                owner=f"node:{node.name}:hand-over{v}",
            ),
            "assist/hand-over",
            f"pods with an egress IP here go by the host's routes ({node.name} is in local gateway mode)",
        )

    def _on_router(
        self, pods: dict[Address, tuple[Assignment, AssignedPod]], routes: list[tuple[Prefix, tuple[Route, ...]]]
    ) -> None:
        """Want a policy on the gateway router for each host route that it can follow; tell of the others."""
        node, v = self.snapshot.node, self.version
        router = gateway_router(node.name)
        near = [network for network in node.primary if network.version == v]
        wanted = False
        for prefix, legs in routes:
            hops = tuple(leg.hop.address for leg in legs if isinstance(leg.hop, Via) and leg.hop.link == BRIDGE)
            discards = bool(legs) and isinstance(legs[0].hop, Discard)
            if not discards and (len(hops) < max(len(legs), 1) or not all(any(h in n for n in near) for h in hops)):
                route = legs[0] if legs else "its policy rules"
                text = f"{route} can not be honoured in shared gateway mode: the gateway router reaches {BRIDGE} alone"
                self.findings.append(
                    Finding("OtherNicNotUsed", self._about, text, Severity.NOTE)
                    if legs and isinstance(legs[0].hop, OnLink)
                    else Finding("HostRouteIgnored", self._about, text, Severity.WARNING, "use local gateway mode here")
                )
                continue
            wanted = True
            self._want(
                Policy(
                    router=router,
                    priority=_ON_ROUTER + prefix.prefixlen,
                    match=f"{self._from_pods()} && ip{v}.dst == {prefix}",
                    action=Action.DROP if discards else Action.REROUTE,
                    next_hops=() if discards else tuple(sorted(hops)),
                    owner=f"node:{node.name}:route:{prefix}",
                ),
                "assist/route",
                f"the host has {legs[0]}, and honorHostRoutes asks the gateway router to do the same",
            )
        if wanted:
            self._members(pods)
            self._exceptions_on_router(router)

    def _members(self, pods: dict[Address, tuple[Assignment, AssignedPod]]) -> None:
        for address, (one, pod) in pods.items():
            text = f"EgressIP/{one.egress_ip} gives Pod/{pod.namespace}/{pod.name} {one.address} on this node"
            self._want(SetMember(set=self._set("pods"), member=_host(address)), "assist/pod", text)

    def _translate(self, pods: dict[Address, tuple[Assignment, AssignedPod]]) -> None:
        """Want the elements by which the host gives pods their egress IPs."""
        v = self.version
        for address, (one, pod) in pods.items():
            text = f"EgressIP/{one.egress_ip} gives Pod/{pod.namespace}/{pod.name} {one.address} on this node"
            for element in (
                Element(f"served{v}", (address,)),
                Element(f"pod_own{v}", (address, one.address)),
                Element(f"pod_snat{v}", (address,), one.address),
            ):
                self._want(element, "assist/translate", text)
            self.wants |= closed(one, BRIDGE)
        for prefix in outermost(one for one in self._inside() if one.version == v):
            span = Span(first=prefix.network_address, last=prefix.broadcast_address)
            text = "packets to pods, services and nodes never have an egress IP"
            self._want(Element(f"inside{v}", (span,)), "assist/inside", text)

    def _exceptions(self) -> None:
        """Want OVN-Kubernetes' own exceptions once more, above what hands packets over: word for word as they stand.

        (Not as `!=` in one match: ovn-controller multiplies the complements of a set's members with each other, and
        nine of them took OVN 23.03 a gigabyte and minutes.)
        """
        for theirs in self.snapshot.policies:
            if theirs.router == CLUSTER_ROUTER and theirs.priority == _THEIR_EXCEPTIONS:
                copy = replace(theirs, priority=_EXCEPTIONS, owner=f"node:{self.snapshot.node.name}:exception")
                self._want(
                    copy, "assist/exception", f"OVN-Kubernetes has it at {_THEIR_EXCEPTIONS}, which comes after ours"
                )

    def _exceptions_on_router(self, router: str) -> None:
        """Want that packets to pods, services and nodes, and answers to flows from outside, pass a gateway router."""
        v, owner = self.version, f"node:{self.snapshot.node.name}:exception"
        inside = self._set("inside")
        for prefix in outermost(one for one in self._inside() if one.version == v):
            text = "packets to pods, services and nodes never have an egress IP"
            self._want(SetMember(set=inside, member=prefix), "assist/inside", text)
        for match, text in (
            (
                f"{self._from_pods()} && ip{v}.dst == ${inside}",
                "host routes are about destinations outside the cluster",
            ),
            (f"pkt.mark == {_REPLY_MARK}", "answers to flows from outside go back as they came"),
        ):
            allow = Policy(router=router, priority=_ROUTER_EXCEPTIONS, match=match, action=Action.ALLOW, owner=owner)
            self._want(allow, "assist/exception", text)

    def _from_pods(self) -> str:
        return f"ip{self.version}.src == ${self._set('pods')}"

    def _set(self, what: str) -> str:
        node = self.snapshot.node.name
        return set_name(node if self.routing == _ALONE else f"{node} {self.routing}", what, self.version)

    def _inside(self) -> Iterator[Prefix]:
        yield from destinations_of(self.snapshot.policies, self.snapshot.sets)
        yield from self.snapshot.inside
        yield from _ALWAYS_INSIDE

    def _want(self, resource: Resource, rule: str, text: str) -> None:
        self.wants[resource] = Because(rule, text)

    @property
    def _about(self) -> str:
        return f"Node/{self.snapshot.node.name}"


@lru_cache(maxsize=1 << 16)
def _host(address: Address) -> Prefix:
    return ip_network(address)
