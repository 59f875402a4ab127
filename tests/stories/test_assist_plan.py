"""What an assisting node wants beside OVN-Kubernetes, decided on paper: pods, host routes, and what is in their way.

Node n1 (br-ex 192.168.99.21, eth1 192.168.55.21), EgressIP prod 192.168.99.150 on it for pods shop/web 10.128.0.5 and
shop/db 10.128.1.5. Its host reaches 203.0.113.0/24 by another router of the primary LAN, 198.51.100.0/24 by eth1.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from outgate.model.egress_ip import NodeSnapshot
from outgate.model.firewall import Acceptance, Firewall, HookChain, MaskedMark
from outgate.model.host_table import HostTables
from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.intent import AssignedPod, Assignment, Departure, Node, NodeSubnet
from outgate.model.net import MAIN, Link, LinkName, Mark, NextHop, OnLink, Route, Rule, Setting, TableId, Via
from outgate.model.nics import GatewayMode
from outgate.model.ovn import Action, Policy, SetMember, Snat
from outgate.model.routing import Routing, Semantics, SnatScope, Stance
from outgate.model.ruleset import Element, Table
from outgate.model.state import Desired
from outgate.plan.assist import destinations_of, plan_node
from outgate.plan.egress_ip import BRIDGE, MANAGEMENT_PORT
from outgate.plan.serving import CLUSTER_ROUTER

ETH1 = LinkName("eth1")
AUTO = Routing(semantics=Semantics.AUTO)
NODES = "nodes_v4"


def route(dst: str, hop: NextHop) -> Route:
    return Route(dst=ip_network(dst), hop=hop)


def via(address: str, link: LinkName) -> Via:
    return Via(address=ip_address(address), link=link)


def policy(priority: int, match: str, action: Action = Action.ALLOW, mark: int = 0) -> Policy:
    return Policy(router=CLUSTER_ROUTER, priority=priority, match=match, action=action, packet_mark=mark)


INSIDE = policy(102, "ip4.src == 10.128.0.0/14 && ip4.dst == 10.128.0.0/14")
TO_NODES = policy(102, f"(ip4.src == $served || ip4.src == $other) && ip4.dst == ${NODES}", mark=1008)
HOST = HostTables(
    links=MappingProxyType({name: Link(name=name, index=index) for name, index in ((BRIDGE, 3), (ETH1, 4))}),
    routes=frozenset(
        {
            route("0.0.0.0/0", via("192.168.99.1", BRIDGE)),
            route("192.168.99.0/24", OnLink(link=BRIDGE)),
            route("10.128.0.0/14", via("10.128.0.1", MANAGEMENT_PORT)),
            route("203.0.113.0/24", via("192.168.99.2", BRIDGE)),
            route("198.51.100.0/24", via("192.168.55.1", ETH1)),
        }
    ),
    rules=frozenset({Rule(priority=0, version=4, action=TableId(255)), Rule(priority=32766, version=4, action=MAIN)}),
)
PODS = (
    AssignedPod(namespace="shop", name="db", addresses=(ip_address("10.128.1.5"),)),
    AssignedPod(namespace="shop", name="web", addresses=(ip_address("10.128.0.5"),)),
)
SNAPSHOT = NodeSnapshot(
    node=Node(
        name="n1",
        subnets=(NodeSubnet("default", ip_network("10.128.0.0/24"), "k8s.ovn.org/node-subnets"),),
        primary=(ip_network("192.168.99.0/24"),),
        mode=GatewayMode.LOCAL,
        next_hops=(ip_address("192.168.99.1"),),
    ),
    host=HOST,
    assignments=(Assignment(egress_ip="prod", address=ip_address("192.168.99.150"), pods=PODS, routing=AUTO),),
    policies=frozenset({INSIDE, TO_NODES}),
    sets=MappingProxyType({NODES: frozenset({"192.168.99.21", "192.168.99.22"})}),
)


def plan(routing: Routing = AUTO, **changes: object) -> Desired:
    snapshot = replace(SNAPSHOT, **changes)  # type: ignore[arg-type]
    routed = tuple(replace(one, routing=routing) for one in snapshot.assignments)
    return plan_node(replace(snapshot, assignments=routed), "digest")


def members(desired: Desired, what: str) -> set[str]:
    return {str(one.member) for one in desired.wants if isinstance(one, SetMember) and f"_{what}4" in one.set}


def reasons(desired: Desired) -> list[str]:
    return [one.reason for one in desired.findings]


def with_settings(*closed: tuple[LinkName, Setting, int]) -> HostTables:
    return replace(HOST, settings=MappingProxyType({(link, setting): value for link, setting, value in closed}))


def test_destinations_with_a_route_of_their_own_are_handed_to_the_host_and_no_others() -> None:
    desired = plan()

    assert members(desired, "far") == {"203.0.113.0/24", "198.51.100.0/24"}
    assert members(desired, "pods") == {"10.128.0.5/32", "10.128.1.5/32"}
    (handing,) = (one for one in desired.wants if isinstance(one, Policy) and one.priority == 103)
    assert (handing.action, handing.next_hops) == (Action.REROUTE, (ip_address("10.128.0.2"),))
    assert Element("pod_snat4", (ip_address("10.128.0.5"),), ip_address("192.168.99.150")) in desired.wants
    assert next(iter(desired.wants)) == Table("digest")
    assert desired.findings == ()


def test_their_exceptions_stand_once_more_above_ours_word_for_word() -> None:
    copies = {one for one in plan().wants if isinstance(one, Policy) and one.priority == 104}

    assert copies == {replace(INSIDE, priority=104), replace(TO_NODES, priority=104)}
    assert {str(one) for one in destinations_of({INSIDE, TO_NODES}, SNAPSHOT.sets)} == {
        "10.128.0.0/14",
        "192.168.99.21/32",
        "192.168.99.22/32",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"routing": Routing()},
        {"stance": Stance.OBSERVE},
        {"assignments": ()},
        {"host": replace(HOST, routes=frozenset(one for one in HOST.routes if one.dst.prefixlen != 24))},
        {"node": replace(SNAPSHOT.node, mode=GatewayMode.SHARED)},
        {"node": replace(SNAPSHOT.node, mode=None)},
    ],
    ids=["legacy", "observe", "no pods", "no route that differs", "shared mode", "mode unknown"],
)
def test_nothing_is_added_where_nothing_has_to_be(changes: dict[str, object]) -> None:
    assert plan(**changes) == Desired()  # type: ignore[arg-type]


def test_without_their_exceptions_nothing_is_added_and_somebody_is_told() -> None:
    desired = plan(policies=frozenset())

    assert desired.wants == {}
    assert reasons(desired) == ["NoExceptions"]


def test_a_link_that_does_not_forward_keeps_its_destinations_with_the_gateway_router() -> None:
    closed = plan(host=with_settings((ETH1, Setting.FORWARDING, 0)))
    management = plan(host=with_settings((MANAGEMENT_PORT, Setting.FORWARDING, 0)))

    assert (members(closed, "far"), reasons(closed)) == ({"203.0.113.0/24"}, ["ForwardingDisabled"])
    assert (management.wants, reasons(management)) == ({}, ["ForwardingDisabled", "ForwardingDisabled"])


CHAIN = HookChain(place="nft table inet site, chain forward", hook="forward", priority=0, refuses=True)
OUT, BACK = Acceptance(incoming=MANAGEMENT_PORT), Acceptance(outgoing=MANAGEMENT_PORT)
ANSWERS = Acceptance(established=True)


@pytest.mark.parametrize(
    ("chain", "handed"),
    [
        (CHAIN, set()),
        (replace(CHAIN, refuses=False), {"203.0.113.0/24", "198.51.100.0/24"}),
        (replace(CHAIN, hook="input"), {"203.0.113.0/24", "198.51.100.0/24"}),
        (replace(CHAIN, version=6), {"203.0.113.0/24", "198.51.100.0/24"}),
        (replace(CHAIN, version=4), set()),
        (replace(CHAIN, accepts=(OUT,)), set()),
        (replace(CHAIN, accepts=(BACK, ANSWERS)), set()),
        (replace(CHAIN, accepts=(OUT, BACK)), {"203.0.113.0/24", "198.51.100.0/24"}),
        (replace(CHAIN, accepts=(OUT, ANSWERS)), {"203.0.113.0/24", "198.51.100.0/24"}),
        (replace(CHAIN, accepts=(replace(OUT, outgoing="eth*"), ANSWERS)), {"198.51.100.0/24"}),
        (replace(CHAIN, accepts=(replace(OUT, mark=MaskedMark(value=Mark(1))), ANSWERS)), set()),
    ],
)
def test_a_firewall_that_would_drop_packets_keeps_their_destinations_with_the_gateway_router(
    chain: HookChain, handed: set[str]
) -> None:
    desired = plan(firewall=Firewall(chains=(chain,)))

    assert members(desired, "far") == handed
    assert reasons(desired) == ["ForwardRefused"] * (2 - len(handed))
    for finding in desired.findings:
        assert "dropped by nft table inet site, chain forward" in finding.text
        assert finding.fix == (
            'nft insert rule inet site forward iifname "ovn-k8s-mp0" accept; '
            'nft insert rule inet site forward oifname "ovn-k8s-mp0" accept'
        )


def test_a_firewall_that_could_not_be_read_is_told_where_packets_are_handed_over() -> None:
    unread = Firewall(failed=("nft failed: no",))

    assert reasons(plan(firewall=unread)) == ["FirewallNotRead"]
    assert reasons(plan(firewall=unread, assignments=())) == []


def test_a_strict_reverse_path_filter_on_br_ex_is_told_and_hinders_nothing() -> None:
    desired = plan(host=with_settings((BRIDGE, Setting.RP_FILTER, 1)))

    assert (len(members(desired, "far")), reasons(desired)) == (2, ["ReplyDropped"])


def test_the_snat_scope_keeps_egress_ips_on_br_ex() -> None:
    desired = plan(routing=replace(AUTO, snat_scope=SnatScope.HOSTING_LINK))

    assert (members(desired, "far"), reasons(desired)) == ({"203.0.113.0/24"}, ["SourceNotOnLink"])


def test_a_rule_of_the_user_lets_the_host_be_asked_about_everything() -> None:
    rules = HOST.rules | {Rule(priority=500, version=4, action=TableId(77), src=ip_network("10.128.0.0/14"))}

    desired = plan(host=replace(HOST, rules=rules))

    assert (members(desired, "far"), reasons(desired)) == ({"0.0.0.0/0"}, ["AllByHost"])


def test_pods_of_an_egress_service_are_left_to_it() -> None:
    service = policy(101, "ip4.src == 10.128.0.5", Action.REROUTE)

    desired = plan(policies=SNAPSHOT.policies | {service})

    assert members(desired, "pods") == {"10.128.1.5/32"}
    assert reasons(desired) == ["EgressServiceFirst"]


def test_a_pod_that_several_egress_ips_select_is_served_by_the_one_that_ovn_kubernetes_serves_it_with() -> None:
    db, web = PODS
    prod = replace(SNAPSHOT.assignments[0], pods=(db, replace(web, contested=True)))
    other = Assignment(egress_ip="zeta", address=ip_address("192.168.99.151"), pods=(replace(web, contested=True),))
    far = replace(other, egress_ip="far", address=ip_address("192.168.55.150"))
    host = replace(HOST, routes=HOST.routes | {route("192.168.55.0/24", OnLink(link=ETH1))})

    def source(host: HostTables = host, *translated: tuple[str, str]) -> list[object]:
        snats = (
            Snat(router=router, inside=ip_network("10.128.0.5"), outside=ip_address(to)) for router, to in translated
        )
        wants = plan(assignments=(prod, other, far), host=host, snats=frozenset(snats)).wants
        of_web = [
            one.value
            for one in wants
            if isinstance(one, Element) and one.set == "pod_snat4" and one.key == web.addresses
        ]
        return of_web + [one.action for one in wants if isinstance(one, Rule) and one.src == ip_network("10.128.0.5")]

    assert source() == []  # neither is done yet, or it is served on another node
    assert source(host, ("GR_n1", "192.168.99.150")) == [ip_address("192.168.99.150")]
    assert source(host, ("GR_n1", "192.168.99.151")) == [ip_address("192.168.99.151")]
    assert source(host, ("GR_n2", "192.168.99.151")) == []
    ruled = Rule(priority=6000, version=4, action=TableId(1004), src=ip_network("10.128.0.5"))
    assert source(replace(host, rules=host.rules | {ruled})) == [TableId(6_000_004)]


def test_in_shared_mode_each_route_by_br_ex_becomes_a_policy_on_the_gateway_router() -> None:
    shared = replace(SNAPSHOT.node, mode=GatewayMode.SHARED)

    desired = plan(node=shared, routing=replace(AUTO, honor_host_routes=True))

    (honoured,) = (one for one in desired.wants if isinstance(one, Policy) and one.priority == 224)
    assert (honoured.router, honoured.next_hops) == ("GR_n1", (ip_address("192.168.99.2"),))
    assert honoured.match.endswith("ip4.dst == 203.0.113.0/24")
    assert reasons(desired) == ["HostRouteIgnored"]
    assert not any(isinstance(one, Element) for one in desired.wants)


def test_several_next_hops_by_a_secondary_nic_are_mirrored_with_their_weights_and_others_are_named() -> None:
    one = Assignment(egress_ip="far", address=ip_address("192.168.55.150"), pods=PODS)
    first, second = via("192.168.55.1", ETH1), via("192.168.55.2", ETH1)

    def legs(*hops: tuple[NextHop, int]) -> tuple[set[tuple[NextHop, int]], list[str]]:
        more = {replace(route("198.18.0.0/15", hop), weight=weight) for hop, weight in hops}
        host = replace(HOST, routes=HOST.routes | {route("192.168.55.0/24", OnLink(link=ETH1))} | more)
        desired = plan(assignments=(one,), host=host)
        routes = [each for each in desired.wants if isinstance(each, Route) and each.dst == ip_network("198.18.0.0/15")]
        return {(each.hop, each.weight) for each in routes}, [each.text for each in desired.findings]

    assert legs((first, 3), (second, 1)) == ({(first, 3), (second, 1)}, [])
    found, (text,) = legs((first, 3), (via("192.168.99.2", BRIDGE), 1))
    assert found == {(first, 0)}
    assert text == (
        "the host has several next hops for 198.18.0.0/15; packets with an egress IP on eth1 take "
        "via 192.168.55.1 dev eth1, never via 192.168.99.2 dev br-ex"
    )


def test_an_egress_ip_on_a_secondary_nic_gets_a_table_of_its_own_and_no_row_in_ovn() -> None:
    one = Assignment(egress_ip="far", address=ip_address("192.168.55.150"), pods=PODS)
    host = replace(HOST, routes=HOST.routes | {route("192.168.55.0/24", OnLink(link=ETH1))})

    desired = plan(assignments=(one,), host=host)

    rules = [each for each in desired.wants if isinstance(each, Rule)]
    assert {(str(each.src), each.action, each.incoming) for each in rules} == {
        (f"{pod.addresses[0]}/32", TableId(6_000_004), MANAGEMENT_PORT) for pod in PODS
    }
    routes = {str(each) for each in desired.wants if isinstance(each, Route)}
    assert "198.51.100.0/24 via 192.168.55.1 dev eth1 table 6000004" in routes
    assert "0.0.0.0/0 unreachable metric 4278198272 table 6000004" in routes
    assert "10.128.0.0/14 throw table 6000004" in routes
    assert not any("br-ex" in each for each in routes)
    assert not any(isinstance(each, Policy | SetMember) for each in desired.wants)
    elements = {each for each in desired.wants if isinstance(each, Element)}
    assert elements == {Element("node_egress4", (ip_address("192.168.55.150"),))}


def test_only_the_pods_of_a_canary_are_handed_over() -> None:
    old = replace(SNAPSHOT.assignments[0], pods=PODS[:1], routing=Routing())
    canary = Assignment(egress_ip="qa", address=ip_address("192.168.99.151"), pods=PODS[1:], routing=AUTO)

    desired = plan_node(replace(SNAPSHOT, assignments=(old, canary)), "digest")

    assert members(desired, "pods") == {"10.128.0.5/32"}


def test_pods_whose_settings_differ_have_policies_of_their_own() -> None:
    near = replace(AUTO, snat_scope=SnatScope.HOSTING_LINK)
    first = replace(SNAPSHOT.assignments[0], pods=PODS[:1], routing=AUTO)
    second = Assignment(egress_ip="qa", address=ip_address("192.168.99.151"), pods=PODS[1:], routing=near)

    desired = plan_node(replace(SNAPSHOT, assignments=(first, second)), "digest")

    by_set: dict[str, set[str]] = {}
    for one in desired.wants:
        if isinstance(one, SetMember):
            by_set.setdefault(one.set, set()).add(str(one.member))
    handing = [one for one in desired.wants if isinstance(one, Policy) and one.priority == 103]
    told = {tuple(frozenset(by_set[name]) for name in re.findall(r"\$(\w+)", one.match)) for one in handing}
    assert told == {
        (frozenset({"10.128.1.5/32"}), frozenset({"203.0.113.0/24", "198.51.100.0/24"})),
        (frozenset({"10.128.0.5/32"}), frozenset({"203.0.113.0/24"})),
    }


def test_what_may_call_an_egress_ip_is_let_in_and_nothing_else() -> None:
    allowed = (InboundAllowance(Protocol.TCP, 22), InboundAllowance(Protocol.ICMP))

    desired = plan(routing=replace(AUTO, allow_inbound=allowed))

    address = ip_address("192.168.99.150")
    opened = {one for one in desired.wants if isinstance(one, Element) and one.set.startswith("node_open")}
    assert opened == {Element("node_open_port4", (address, "tcp", 22)), Element("node_open_proto4", (address, "icmp"))}
    assert Element("node_egress4", (address,)) in desired.wants


def test_pods_that_shall_not_leave_without_are_held_below_their_policies_and_the_exceptions() -> None:
    held = Departure(egress_ip="prod", namespace="shop", name="web", addresses=(ip_address("10.128.0.5"),), drops=True)

    desired = plan(assignments=(), departures=(held,))

    (policy,) = (one for one in desired.wants if isinstance(one, Policy))
    assert (policy.priority, policy.action, members(desired, "held")) == (98, Action.DROP, {"10.128.0.5/32"})
    assert plan(assignments=(), departures=(replace(held, drops=False),)) == Desired()


def test_what_keeps_packets_from_a_secondary_nic_is_told_though_they_go_there_anyhow() -> None:
    host = replace(HOST, routes=HOST.routes | {route("192.168.55.0/24", OnLink(link=ETH1))})
    far = Assignment(egress_ip="far", address=ip_address("192.168.55.150"), pods=PODS)
    shut = replace(host, settings=MappingProxyType({(ETH1, Setting.FORWARDING): 0}))

    desired = plan(assignments=(far,), host=shut, firewall=Firewall(chains=(CHAIN,)))

    assert reasons(desired) == ["ForwardingDisabled", "ForwardRefused"]
    assert "net.ipv4.conf.eth1.forwarding=1" in desired.findings[0].fix
    assert any(isinstance(one, Rule) for one in desired.wants), "nothing is withheld: they would go there without it"
