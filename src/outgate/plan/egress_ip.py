"""Which way a packet with an egress IP leaves: one function, for one pod's node, egress node and destination.

`legacy` is what OVN-Kubernetes does today (rows T of docs/egress-ip.md): a primary egress IP always leaves by the
gateway router's default, a secondary one by a copy of the NIC's routes. `auto` (rows R) asks the gateway mode first and
the interface second: the interface can only take the path down to the host, and says why.
Source: go-controller/pkg/ovn/egressip.go and go-controller/pkg/node/controllers/egressip of OVN-Kubernetes (2026).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from outgate.model.egress_ip import Decision, Offload, Path, Place, PodNetwork, Row
from outgate.model.host_table import EGRESS_IP_PRIORITY, FIRST_TABLE, TO_NODES_PRIORITY, HostTables
from outgate.model.intent import Node
from outgate.model.net import (
    MAIN,
    OWN_TABLES,
    Address,
    Discard,
    LinkName,
    NextHop,
    OnLink,
    Prefix,
    Route,
    Rule,
    TableId,
    Via,
)
from outgate.model.nics import GatewayMode
from outgate.model.routing import DEFAULT_ROUTING, Routing, Semantics, SnatScope, Stance
from outgate.model.why import Because, Finding, Severity
from outgate.plan.fib import Fib, Found, Table, best, together

BRIDGE = LinkName("br-ex")
MANAGEMENT_PORT = LinkName("ovn-k8s-mp0")
_ANY = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The networks that a node is in: those of the primary NIC, and routes to all that its NICs are connected to."""

    primary: tuple[Prefix, ...]
    connected: tuple[Route, ...]

    @classmethod
    def of(cls, primary: Iterable[Prefix], host: HostTables) -> Networks:
        """Return them from what OVN-Kubernetes noted about the node and from its host's routes."""
        connected = (
            one
            for one in host.routes
            if isinstance(one.hop, OnLink)
            and 0 < one.dst.prefixlen < one.dst.max_prefixlen
            and one.table == host.host_table(one.hop.link)
        )
        return cls(primary=tuple(primary), connected=tuple(connected))


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressNodeFacts:
    """An egress node: what OVN-Kubernetes noted about it, and its host's routes as a whole and searchable.

    `uplinks` are Open vSwitch bridges beside br-ex that OVN is told of.
    """

    node: Node
    host: HostTables
    fib: Fib
    networks: Networks
    uplinks: frozenset[LinkName] = frozenset()
    made: dict[object, Table] = field(default_factory=dict, compare=False, repr=False)  # tables that were asked for

    @classmethod
    def of(cls, node: Node, host: HostTables) -> EgressNodeFacts:
        """Return the facts of a node, with its tables made searchable."""
        return cls(node=node, host=host, fib=Fib(host), networks=Networks.of(node.primary, host))

    def table(self, link: LinkName, version: int, routing: Routing) -> Table:
        """Return a NIC's own table, searchable: as OVN-Kubernetes copies it, or as it ought to be. Made once."""
        key = (link, version, routing)
        if key not in self.made:
            legacy = routing.semantics is Semantics.LEGACY
            routes = copied(self.host, link, version) if legacy else mirrored(self.host, link, version, routing)
            self.made[key] = Table(routes)
        return self.made[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The question: a pod's packets, of one egress IP. `pod_is_here`: the pod runs on the egress node itself."""

    egress_ip: Address
    pod: Address
    pod_is_here: bool
    destination: Address
    network: PodNetwork = PodNetwork.DEFAULT


def decide(asked: Asked, facts: EgressNodeFacts, routing: Routing = DEFAULT_ROUTING) -> Decision:
    """Return which way the packet leaves the egress node, and why. The destination is one outside the cluster."""
    decision = decide_alone(asked, facts, routing)
    route, version = decision.route, asked.destination.version
    if route is None:
        return decision
    held = facts.fib.table(route.table, version)
    if held is None or route not in held.find(asked.destination):
        nic = hosting_nic(asked.egress_ip, facts.networks)
        held = facts.table(nic, version, routing) if nic is not None else None
    return replace(decision, over=held.losers(asked.destination) if held is not None else ())


def decide_alone(asked: Asked, facts: EgressNodeFacts, routing: Routing = DEFAULT_ROUTING) -> Decision:
    """Return the same without the routes that lost: finding those means to look at every route."""
    nic = hosting_nic(asked.egress_ip, facts.networks)
    legacy = routing.semantics is Semantics.LEGACY
    if nic is None:
        return _nowhere(asked, facts, legacy=legacy)
    if asked.network is not PodNetwork.DEFAULT:
        return _user_defined(asked, facts, nic, legacy=legacy)
    if nic == BRIDGE:
        if legacy:
            return _by_gateway_router(asked, facts, _row_today(asked, facts))
        if facts.node.mode is GatewayMode.LOCAL:
            return _by_main(asked, facts, routing)
        return _by_gateway_router(asked, facts, Row.R3H if routing.honor_host_routes else Row.R3, routing)
    return _by_nic(asked, facts, nic, routing)


def hosting_nic(egress_ip: Address, networks: Networks) -> LinkName | None:
    """Return the NIC in whose network an egress IP lies: br-ex when the primary network holds it, else by the longest
    prefix among the host's own networks; None when no NIC has it.
    """
    if any(egress_ip in network for network in networks.primary if network.version == egress_ip.version):
        return BRIDGE
    hosting = best(networks.connected, egress_ip)
    return hosting.link if hosting is not None else None


def mirrored(host: HostTables, link: LinkName, version: int, routing: Routing = DEFAULT_ROUTING) -> tuple[Route, ...]:
    """Return what the table of a NIC has to hold under `auto`: the host's routes by that link (main's, or those of its
    VRF), of several next hops those by it, and discards; no default is made up, one that is said for the NIC is added
    where there is none. A throw is unreachable here: behind this table comes another one that leads to other NICs.
    """
    table = table_of(host, link, OWN_TABLES.start)
    hosts = host.host_table(link)
    routes = [
        replace(one, table=table, hop=Discard.UNREACHABLE if one.hop is Discard.THROW else one.hop)
        for one in host.routes
        if one.table == hosts and one.dst.version == version and one.link in (link, None) and not one.is_of_link_alone
    ]
    said = next((one for one in routing.gateways if one.link == link), None)
    if said is not None and not any(one.dst.prefixlen == 0 and one.link == link for one in routes):
        hop = OnLink(link=link) if said.router is None else Via(address=said.router, link=link)
        if said.router is None or said.router.version == version:
            routes.append(Route(dst=_ANY[version], hop=hop, table=table))
    return tuple(sorted(together(one for one in together(routes) if not _is_refused(one)), key=str))


def _is_refused(route: Route) -> bool:
    """Whether the kernel takes no such leg: of several next hops of IPv6 each has a router, or is a nexthop object."""
    return bool(route.weight) and route.dst.version == 6 and isinstance(route.hop, OnLink)


def copied(host: HostTables, link: LinkName, version: int) -> tuple[Route, ...]:
    """Return what OVN-Kubernetes puts there today: routes of one next hop by that link, no discards, and a default
    without a next hop where main has none.
    """
    table = table_of(host, link)
    main = [one for one in host.routes if one.table == host.host_table(link) and one.dst.version == version]
    legs: dict[object, int] = {}
    for one in main:
        legs[one.slot] = legs.get(one.slot, 0) + 1
    routes = [
        replace(one, table=table)
        for one in main
        if one.link == link and legs[one.slot] == 1 and not one.is_of_link_alone
    ]
    if not any(one.dst.prefixlen == 0 for one in routes):
        routes.append(Route(dst=_ANY[version], hop=OnLink(link=link), table=table))
    return tuple(sorted(routes, key=str))


def table_of(host: HostTables, link: LinkName, first: int = FIRST_TABLE) -> TableId:
    """Return the number of a NIC's own table: OVN-Kubernetes' one, or the one that begins at `first`."""
    return TableId(first + (host.links[link].index if link in host.links else 0))


def _row_today(asked: Asked, facts: EgressNodeFacts) -> Row:
    if facts.node.mode is GatewayMode.LOCAL:
        return Row.T3
    return Row.T1 if asked.pod_is_here else Row.T2


def _by_gateway_router(asked: Asked, facts: EgressNodeFacts, row: Row, routing: Routing | None = None) -> Decision:
    """Decide for a primary egress IP that stays in OVN: by the router's default, or by a host route honoured there."""
    default = _router_hops(asked, facts)
    host = facts.fib.find(asked.egress_ip, asked.destination, mark=None)
    honoured = host_route_in_ovn(host, facts) if routing is not None and routing.honor_host_routes else None
    is_local = facts.node.mode is GatewayMode.LOCAL
    offload = (
        Offload(possible=None, reason="answers larger than the pod's MTU are taken to the kernel in local gateway mode")
        if is_local
        else Offload(possible=True, reason="geneve, gateway router and br-ex are all flows of Open vSwitch")
    )
    said = "legacy" if routing is None else "auto"
    why = [_because_of_mode(facts, said, "keeps to the gateway router")]
    findings: tuple[Finding, ...] = ()
    hops = default
    if honoured is not None and host.route is not None:
        hops = honoured
        why.append(
            Because("honorHostRoutes", f"the host has {host.route}, which a policy on the gateway router says too")
        )
    elif _is_ignored(host, default):
        findings = (_ignored(host, facts, routing),)
    return Decision(
        row=row,
        node=facts.node.name,
        path=Path.GATEWAY_ROUTER,
        link=None if hops and isinstance(hops[0], Discard) else BRIDGE,
        hops=hops,
        source=asked.egress_ip,
        place=Place.GATEWAY_ROUTER,
        offload=offload,
        honours_host=honoured is not None,
        because=tuple(why),
        route=host.route,
        findings=findings,
    )


def host_route_in_ovn(found: Found, facts: EgressNodeFacts) -> tuple[NextHop, ...] | None:
    """Return the next hops by which the gateway router can do what a host's route says; None when it can not: the route
    leaves by another NIC, or is the default that the router has anyway.
    """
    route = found.route
    if route is None or route.dst.prefixlen == 0:
        return None
    if isinstance(route.hop, Discard):
        return (route.hop,)
    if any(leg.link != BRIDGE or not isinstance(leg.hop, Via) for leg in found.legs):
        return None
    hops = tuple(leg.hop for leg in found.legs if isinstance(leg.hop, Via))
    is_near = all(any(hop.address in network for network in _primary(facts, hop.address.version)) for hop in hops)
    return hops if is_near else None


def _router_hops(asked: Asked, facts: EgressNodeFacts) -> tuple[NextHop, ...]:
    """Return the next hops of the gateway router itself: the primary network is on its link."""
    version = asked.destination.version
    if any(asked.destination in network for network in _primary(facts, version)):
        return (OnLink(link=BRIDGE),)
    return tuple(Via(address=one, link=BRIDGE) for one in facts.node.next_hops if one.version == version)


def _primary(facts: EgressNodeFacts, version: int) -> tuple[Prefix, ...]:
    return tuple(network for network in facts.node.primary if network.version == version)


def _is_ignored(found: Found, default: tuple[NextHop, ...]) -> bool:
    """Whether the host would send a packet another way than the gateway router does."""
    if found.discard is not None:
        return True
    if found.route is None:
        return False
    return not {leg.hop for leg in found.legs} <= set(default)


def _ignored(found: Found, facts: EgressNodeFacts, routing: Routing | None) -> Finding:
    route = found.route if found.route is not None else found.rule
    text = f"the host of {facts.node.name} has {route}, and packets with this egress IP do not follow it"
    if routing is None:
        fix = "routing semantics `auto` honour it in local gateway mode, and in shared with honorHostRoutes"
        return Finding("HostRouteIgnored", f"Node/{facts.node.name}", text, Severity.WARNING, fix)
    fix = "the gateway router knows no other NIC: use local gateway mode for it"
    if host_route_in_ovn(found, facts) is not None:
        fix = "set honorHostRoutes, and a policy on the gateway router says the same"
    return Finding("HostRouteIgnored", f"Node/{facts.node.name}", text, Severity.WARNING, fix)


def _by_main(asked: Asked, facts: EgressNodeFacts, routing: Routing) -> Decision:
    """Decide for a primary egress IP in local gateway mode under `auto`: the host's rules and main table decide."""
    found = facts.fib.find(asked.pod, asked.destination, incoming=MANAGEMENT_PORT)
    row = Row.R1 if asked.pod_is_here else Row.R2
    if routing.stance is not Stance.OWN and not _is_ignored(found, _router_hops(asked, facts)):
        same = Because(
            "assist", "the host would do the same as the gateway router, which therefore keeps these packets"
        )
        kept = _by_gateway_router(asked, facts, row, replace(routing, honor_host_routes=False))
        return replace(kept, because=(*kept.because, same), findings=tuple(_unsure(found, facts)))
    why = [_because_of_mode(facts, "auto", "hands packets to the host, whose routes decide")]
    hops = _hops_of(found)
    links = {leg.link for leg in found.legs} - {None}
    link = next(iter(links)) if len(links) == 1 else None
    findings = [*_unsure(found, facts)]
    beyond = sorted(str(one) for one in links if one != BRIDGE)
    if beyond and routing.snat_scope is SnatScope.HOSTING_LINK:
        text = (
            f"{found.route} leaves by {', '.join(beyond)}; snatScope hosting-link keeps {asked.egress_ip} on {BRIDGE}"
        )
        findings.append(
            Finding("SourceNotOnLink", f"Node/{facts.node.name}", text, Severity.WARNING, "set snatScope any")
        )
        hops = (Discard.PROHIBIT,)
    if found.route is not None:
        why.append(Because("fib", f"{found.route} wins in table {_named(found.rule)}"))
    return Decision(
        row=row,
        node=facts.node.name,
        path=Path.HOST,
        link=link if not any(isinstance(hop, Discard) for hop in hops) else None,
        hops=hops,
        source=asked.egress_ip,
        place=Place.HOST,
        offload=Offload(possible=False, reason="local gateway mode forwards in the kernel"),
        honours_host=True,
        because=tuple(why),
        table=found.route.table if found.route is not None else MAIN,
        route=found.route,
        findings=tuple(findings),
    )


def _by_nic(asked: Asked, facts: EgressNodeFacts, nic: LinkName, routing: Routing) -> Decision:
    """Decide for an egress IP on a secondary NIC: its own table, as it is (`legacy`) or as it ought to be (`auto`)."""
    version = asked.destination.version
    legacy = routing.semantics is Semantics.LEGACY
    is_local = facts.node.mode is GatewayMode.LOCAL
    table = table_of(facts.host, nic)
    if legacy:
        row = Row.T8 if is_local else (Row.T6 if asked.pod_is_here else Row.T7)
        row = Row.T10 if nic in facts.uplinks else row
        held = facts.fib.table(table, version) if _is_ruled(facts.host, asked.pod) else None
        routes = held if held is not None else facts.table(nic, version, routing)
        rule = "a copy of the NIC's routes, of when the EgressIP last changed"
    else:
        table = table_of(facts.host, nic, OWN_TABLES.start)
        row = Row.R6 if is_local else (Row.R7 if nic in facts.uplinks else Row.R8)
        routes = facts.table(nic, version, routing)
        rule = "a live mirror of the NIC's routes"
    legs = routes.find(asked.destination)
    found = Found(legs=legs, table=routes)
    why = [
        Because(
            "interface", f"{asked.egress_ip} lies in the network of {nic}, not in that of {BRIDGE}: the host's path"
        ),
        Because("table", f"table {table} ({nic}) is asked: {rule}"),
    ]
    if found.route is not None:
        why.append(Because("fib", f"{found.route} wins in table {table}"))
    return Decision(
        row=row,
        node=facts.node.name,
        path=Path.HOST,
        link=nic if found.route is not None and not isinstance(found.route.hop, Discard) else None,
        hops=_hops_of(found),
        source=asked.egress_ip,
        place=Place.HOST,
        offload=Offload(possible=False, reason=_no_offload(nic, facts)),
        honours_host=not legacy,
        because=tuple(why),
        table=table,
        route=found.route,
        findings=tuple(_about_nic(asked, facts, nic, found, legacy=legacy)),
    )


def _no_offload(nic: LinkName, facts: EgressNodeFacts) -> str:
    if nic in facts.uplinks:
        return f"{nic} is an OVS bridge, and OVN translates on one external port of a gateway router only: host path"
    return f"{nic} is not an OVS uplink: host path, no offload"


def _about_nic(asked: Asked, facts: EgressNodeFacts, nic: LinkName, found: Found, *, legacy: bool) -> Iterable[Finding]:
    about = f"Node/{facts.node.name}"
    if found.route is None:
        text = f"nothing of {nic} leads to {asked.destination}, and it has no default route: packets are dropped"
        fix = f"add a route by {nic} with a metric above the main one, or say its default gateway"
        yield Finding("NoDefaultRoute", about, text, Severity.WARNING, fix)
    elif legacy and found.route.dst.prefixlen == 0 and isinstance(found.route.hop, OnLink):
        text = f"{found.route} is made up: {asked.destination} is looked for by ARP on the LAN of {nic}, and not found"
        fix = f"add a default route by {nic}, with a metric above the main one"
        yield Finding("NoDefaultRoute", about, text, Severity.WARNING, fix)
    host = facts.fib.find(asked.egress_ip, asked.destination)
    if host.route is not None and host.route.link not in (nic, None) and host.route.dst.prefixlen > 0:
        text = f"the host itself goes by {host.route}; pods with an egress IP on {nic} keep to {nic}"
        yield Finding("OtherNicNotUsed", about, text, Severity.NOTE)


def _user_defined(asked: Asked, facts: EgressNodeFacts, nic: LinkName, *, legacy: bool) -> Decision:
    """Decide for a pod of a user-defined network: pod addresses of two such networks may be the same."""
    default = _router_hops(asked, facts)
    about = f"Node/{facts.node.name}"
    if nic != BRIDGE:
        text = f"{asked.egress_ip} is on {nic}, and a user-defined network can not use an egress IP on a secondary NIC"
        today = "; today its packets leave with the node's address although the status says assigned" if legacy else ""
        refusal = Finding("UserDefinedNetwork", about, text + today, Severity.REFUSAL, "use one of the primary network")
        return _refused(asked, facts, Row.T9 if legacy else Row.R9, refusal, falls_through=legacy)
    if not legacy and facts.node.mode is GatewayMode.LOCAL:
        text = (
            "in local gateway mode the host can tell pods of user-defined networks apart by marks only: not supported"
        )
        fix = "keep semantics `legacy` for EgressIPs of user-defined networks"
        return _refused(
            asked, facts, Row.R4, Finding("UserDefinedNetwork", about, text, Severity.REFUSAL, fix), falls_through=False
        )
    layer2 = asked.network is PodNetwork.LAYER2
    row = Row.R5 if not legacy else (Row.T5 if layer2 else Row.T4)
    return Decision(
        row=row,
        node=facts.node.name,
        path=Path.GATEWAY_ROUTER,
        link=BRIDGE,
        hops=default[:1] if layer2 else default,
        source=asked.egress_ip,
        place=Place.BRIDGE,
        offload=Offload(possible=True, reason="if the NIC offloads translations of connection tracking"),
        honours_host=False,
        because=(_because_of_mode(facts, "legacy" if legacy else "auto", "keeps to the network's gateway router"),),
    )


def _nowhere(asked: Asked, facts: EgressNodeFacts, *, legacy: bool) -> Decision:
    text = f"no NIC of {facts.node.name} is in a network that holds {asked.egress_ip}"
    fix = "give a NIC of the node an address in that network, or assign the egress IP elsewhere"
    refusal = Finding("SourceNotOnLink", f"Node/{facts.node.name}", text, Severity.REFUSAL, fix)
    return _refused(asked, facts, Row.T11 if legacy else Row.R11, refusal, falls_through=legacy)


def _refused(asked: Asked, facts: EgressNodeFacts, row: Row, why: Finding, *, falls_through: bool) -> Decision:
    """Return the decision to do nothing: packets leave as if the pod had no egress IP, or (`auto`) not at all."""
    default = _router_hops(asked, facts)
    return Decision(
        row=row,
        node=facts.node.name,
        path=Path.HOST if facts.node.mode is GatewayMode.LOCAL else Path.GATEWAY_ROUTER,
        link=BRIDGE if falls_through else None,
        hops=default if falls_through else (Discard.PROHIBIT,),
        source=None,
        place=Place.NOWHERE,
        offload=Offload(possible=False, reason="the egress IP is not in force"),
        honours_host=False,
        because=(Because("refused", why.text),),
        findings=(why,),
    )


def _because_of_mode(facts: EgressNodeFacts, semantics: str, does: str) -> Because:
    mode = facts.node.mode.value if facts.node.mode is not None else "unknown"
    text = f"{semantics} in {mode} gateway mode {does}"
    return Because("mode", text, (f"Node/{facts.node.name} k8s.ovn.org/l3-gateway-config",))


def _hops_of(found: Found) -> tuple[NextHop, ...]:
    if found.discard is not None:
        return (found.discard,)
    return tuple(leg.hop for leg in found.legs)


def _unsure(found: Found, facts: EgressNodeFacts) -> Iterable[Finding]:
    for rule in found.unsure:
        if rule.priority == TO_NODES_PRIORITY:
            continue  # OVN marks packets to nodes so, and these are not
        text = f"rule `{rule}` comes first, and whether it applies depends on more than addresses"
        yield Finding("RuleUnsure", f"Node/{facts.node.name}", text, Severity.NOTE)


def _is_ruled(host: HostTables, pod: Address) -> bool:
    """Whether OVN-Kubernetes has a rule for the pod's packets: then the table that it leads to was filled by it."""
    return any(
        rule.priority == EGRESS_IP_PRIORITY and rule.src is not None and pod in rule.src
        for rule in host.rules
        if rule.version == pod.version
    )


def _named(rule: Rule | None) -> str:
    action = rule.action if rule is not None else MAIN
    return "main" if action == MAIN else str(action)
