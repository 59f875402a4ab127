"""A gateway machine serves ns-blue and ns-red by next hop, and ns-green by source. What it should hold, and why."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.intent import DestinationRule, Intent, SourceCheck
from outgate.model.ledger import Ledger
from outgate.model.net import (
    ALL_LINKS,
    OWN_METRIC,
    LinkAddress,
    LinkSetting,
    Mac,
    Route,
    Rule,
    Setting,
    Span,
    TenantLink,
    Via,
)
from outgate.model.ruleset import Element, Table
from outgate.model.state import Facts, Resource, Snapshot
from outgate.plan.gateway import plan
from tests.stories.cluster import (
    BLUE,
    CLUSTER,
    DIGEST,
    ENP1S0,
    ENP7S0,
    GREEN_BY_SOURCE,
    MACHINE,
    N1,
    N2,
    RED,
    desired,
    pod,
    probed,
    reasons,
)


def elements(wants: object, name: str) -> dict[tuple[object, ...], object]:
    assert hasattr(wants, "__iter__")
    return {e.key: e.value for e in wants if isinstance(e, Element) and e.set == name}


def mark_of(intent: Intent, tenant: str) -> int:
    return probed(Ledger(), intent).tenants[tenant].mark


def test_each_next_hop_tenant_gets_a_link_with_its_own_mac_and_a_host_address() -> None:
    wants = desired(CLUSTER).wants
    links = {link.alternative: link for link in wants if isinstance(link, TenantLink)}
    assert links.keys() == {"outgate-ns-blue", "outgate-ns-red"}
    blue, red = links["outgate-ns-blue"], links["outgate-ns-red"]
    assert blue.parent == ENP1S0
    assert blue.mac != red.mac
    assert LinkAddress(link=blue.name, address=ip_address("192.168.99.13")) in wants
    assert LinkAddress(link=blue.name, address=ip_address("fd99::13")) in wants


def test_a_tenant_leaves_as_its_own_egress_ip_and_as_nobody_else() -> None:
    wants = desired(CLUSTER).wants
    blue, red = mark_of(CLUSTER, "ns-blue"), mark_of(CLUSTER, "ns-red")
    assert elements(wants, "snat4") == {
        (blue,): ip_address("192.168.55.113"),
        (red,): ip_address("192.168.55.114"),
    }
    assert set(elements(wants, "own4")) == {(blue, ip_address("192.168.55.113")), (red, ip_address("192.168.55.114"))}


def test_every_node_subnet_of_both_families_has_its_way_back() -> None:
    routes = {r.dst: r for r in desired(CLUSTER).wants if isinstance(r, Route)}
    assert routes.keys() == {s.prefix for node in (N1, N2) for s in node.subnets}
    back = routes[ip_network("10.132.0.0/24")]
    assert back.hop == Via(address=ip_address("192.168.99.21"), link=ENP1S0)
    assert back.metric == OWN_METRIC


def test_the_cluster_network_is_guarded_in_the_table_and_by_policy_routing() -> None:
    wants = desired(CLUSTER).wants
    assert Table(DIGEST) in wants
    assert {rule.src for rule in wants if isinstance(rule, Rule)} == {
        ip_network("10.132.0.0/14"),
        ip_network("fd01::/48"),
    }
    assert len(elements(wants, "protected4")) == len(elements(wants, "protected6")) == 1


def test_a_node_outside_the_declared_cluster_network_is_protected_and_named() -> None:
    stray = replace(N1, subnets=(replace(N1.subnets[0], prefix=ip_network("10.200.0.0/24")),))
    intent = replace(CLUSTER, nodes=(stray, N2))
    found = desired(intent)
    assert "SubnetOutsideCluster" in reasons(found)
    assert ip_network("10.200.0.0/24") in {rule.src for rule in found.wants if isinstance(rule, Rule)}


def test_protection_does_not_shrink_when_a_node_leaves() -> None:
    stray = replace(N1, subnets=(replace(N1.subnets[0], prefix=ip_network("10.200.0.0/24")),))
    before = probed(Ledger(), replace(CLUSTER, nodes=(stray, N2)))
    after = desired(replace(CLUSTER, nodes=(N2,)), ledger=before)
    assert ip_network("10.200.0.0/24") in {rule.src for rule in after.wants if isinstance(rule, Rule)}


def test_a_source_tenant_is_told_by_its_pods_addresses_of_families_it_can_serve() -> None:
    intent = replace(CLUSTER, tenants=(GREEN_BY_SOURCE,))
    wants = desired(intent).wants
    assert set(elements(wants, "id_pod4")) == {(ip_address("10.132.0.7"),)}
    assert elements(wants, "id_pod6") == {}
    assert not [link for link in wants if isinstance(link, TenantLink)]


def test_two_source_tenants_that_select_one_pod_leave_it_with_the_first_by_name() -> None:
    rival = replace(GREEN_BY_SOURCE, name="ns-greener", egress_ips=(ip_address("192.168.55.121"),))
    found = desired(replace(CLUSTER, tenants=(GREEN_BY_SOURCE, rival)))
    marks = set(elements(found.wants, "id_pod4").values())
    assert marks == {mark_of(replace(CLUSTER, tenants=(GREEN_BY_SOURCE, rival)), "ns-green")}
    assert "PodSelectedTwice" in reasons(found)


def test_several_egress_ips_are_spread_over_sources_and_each_source_keeps_one() -> None:
    blue = replace(BLUE, egress_ips=tuple(map(ip_address, ("192.168.55.113", "192.168.55.115", "192.168.55.116"))))
    wants = desired(replace(CLUSTER, tenants=(blue,))).wants
    spread = elements(wants, "id_spread")
    assert len(spread) == 16
    assert len(set(spread.values())) == 3
    assert set(spread.values()) == {key[0] for key in elements(wants, "snat4")}
    assert elements(wants, "id_link") == {}


def test_a_destination_of_its_own_wins_by_longest_prefix_and_ranges_are_disjoint() -> None:
    special = (
        DestinationRule(cidrs=(ip_network("198.51.100.0/24"),), egress_ips=(ip_address("192.168.55.115"),)),
        DestinationRule(cidrs=(ip_network("198.51.100.128/25"),), egress_ips=(ip_address("192.168.55.116"),)),
    )
    wants = desired(replace(CLUSTER, tenants=(replace(RED, destinations=special),))).wants
    found = {str(key[1]): str(value) for key, value in elements(wants, "snat_to4").items()}
    assert found == {
        "198.51.100.0-198.51.100.127": "192.168.55.115",
        "198.51.100.128-198.51.100.255": "192.168.55.116",
    }


@pytest.mark.parametrize(
    ("check", "sets"),
    [
        (SourceCheck.PODS, {"check_pods", "pods_of4"}),
        (SourceCheck.NODE_SUBNETS, {"check_nodes"}),
        (SourceCheck.OFF, set()),
    ],
)
def test_the_source_check_decides_which_sets_are_filled(check: SourceCheck, sets: set[str]) -> None:
    wants = desired(replace(CLUSTER, tenants=(replace(RED, source_check=check),))).wants
    filled = {e.set for e in wants if isinstance(e, Element)} & {"check_pods", "pods_of4", "check_nodes"}
    assert filled == sets


def test_an_address_is_not_used_before_it_was_probed() -> None:
    snapshot = Snapshot(intent=CLUSTER, facts=MACHINE, ledger=probed(Ledger(), CLUSTER), gateway="")
    fresh = replace(snapshot, ledger=replace(snapshot.ledger, holdings={}))
    found = plan(fresh, DIGEST)
    assert {str(probe.address) for probe in found.probes} == {
        "192.168.99.13", "fd99::13", "192.168.55.113", "fd55::113", "192.168.99.14", "192.168.55.114",
    }  # fmt: skip
    assert not [a for a in found.wants if isinstance(a, LinkAddress)]
    assert elements(found.wants, "snat4") == {}


def test_an_address_that_somebody_else_answers_is_not_claimed_and_the_mac_is_named() -> None:
    conflicts = {ip_address("192.168.55.114"): Mac("52:54:00:aa:01:02")}
    known = probed(Ledger(), CLUSTER)
    holdings = {a: h for a, h in known.holdings.items() if a not in conflicts}
    facts = replace(MACHINE, conflicts=conflicts)
    found = plan(Snapshot(intent=CLUSTER, facts=facts, ledger=replace(known, holdings=holdings), gateway=""), DIGEST)
    finding = next(f for f in found.findings if f.reason == "AddressConflict")
    assert "52:54:00:aa:01:02" in finding.text
    assert mark_of(CLUSTER, "ns-red") not in {key[0] for key in elements(found.wants, "snat4")}


def test_two_tenants_that_want_one_egress_ip_are_told_apart_by_who_holds_it() -> None:
    rival = replace(RED, name="a-rival", egress_ips=RED.egress_ips, identity=RED.identity)
    known = probed(Ledger(), CLUSTER)
    found = desired(replace(CLUSTER, tenants=(rival, BLUE, RED)), ledger=known)
    refusal = next(f for f in found.findings if f.reason == "AddressTaken")
    assert refusal.about == "EgressTenant/a-rival"
    assert "EgressTenant/ns-red" in refusal.text


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.168.99.21", "NodeAddress"),
        ("192.168.55.12", "HostAddress"),
        ("192.168.55.1", "RouterAddress"),
        ("192.168.55.255", "BroadcastAddress"),
        ("192.168.55.0", "NetworkAddress"),
        ("10.132.0.99", "ClusterAddress"),
    ],
)
def test_an_address_that_somebody_else_needs_is_refused_with_the_reason(address: str, reason: str) -> None:
    found = desired(replace(CLUSTER, tenants=(replace(RED, egress_ips=(ip_address(address),)), BLUE)))
    assert reason in reasons(found)
    assert len(elements(found.wants, "snat4")) == 1, "the other tenant is served"


def test_a_foreign_route_to_a_node_subnet_is_named_and_not_overwritten() -> None:
    theirs = Route(dst=ip_network("10.132.0.0/24"), hop=Via(address=ip_address("192.168.99.99"), link=ENP1S0))
    found = desired(CLUSTER, facts=replace(MACHINE, routes=MACHINE.routes | {theirs}))
    assert "ForeignRoute" in reasons(found)
    in_our_slot = replace(theirs, metric=OWN_METRIC)
    found = desired(CLUSTER, facts=replace(MACHINE, routes=MACHINE.routes | {in_our_slot}))
    assert not [r for r in found.wants if isinstance(r, Route) and r.dst == theirs.dst]


def test_overlapping_node_subnets_are_named_on_both_nodes_and_get_no_route() -> None:
    twin = replace(N2, subnets=(replace(N2.subnets[0], prefix=ip_network("10.132.0.128/25")),))
    found = desired(replace(CLUSTER, nodes=(N1, twin)))
    about = {f.about for f in found.findings if f.reason == "SubnetOverlap"}
    assert about == {"Node/n1", "Node/n2"}
    assert not [r for r in found.wants if isinstance(r, Route) and r.dst.version == 4]


def test_a_node_that_is_not_ready_keeps_its_routes_and_says_so() -> None:
    found = desired(replace(CLUSTER, nodes=(replace(N1, ready=False), N2)))
    assert "NodeNotReady" in reasons(found)
    assert ip_network("10.132.0.0/24") in {r.dst for r in found.wants if isinstance(r, Route)}


def test_a_default_route_by_the_inner_nic_is_refused_with_the_command_that_mends_it() -> None:
    wrong = Route(dst=ip_network("0.0.0.0/0"), hop=Via(address=ip_address("192.168.99.1"), link=ENP1S0))
    found = desired(CLUSTER, facts=replace(MACHINE, routes=frozenset({wrong})))
    finding = next(f for f in found.findings if f.reason == "DefaultRouteNotOnUplink")
    assert "enp1s0" in finding.text
    assert "dev enp7s0" in finding.fix


def test_forwarding_is_wanted_per_link_and_ipv6_forwarding_only_when_a_tenant_has_ipv6() -> None:
    wants = desired(CLUSTER).wants
    assert LinkSetting(link=ENP1S0, setting=Setting.FORWARDING, value=1) in wants
    assert LinkSetting(link=ALL_LINKS, setting=Setting.FORWARDING6, value=1) in wants
    only4 = desired(replace(CLUSTER, tenants=(RED,))).wants
    assert LinkSetting(link=ALL_LINKS, setting=Setting.FORWARDING6, value=1) not in only4


def test_the_lan_passes_only_where_the_machine_was_a_router_before() -> None:
    assert elements(desired(CLUSTER).wants, "passing4") == {}
    settings = {**MACHINE.settings, (ENP1S0, Setting.FORWARDING): 1}
    routed = desired(CLUSTER, facts=replace(MACHINE, settings=settings)).wants
    lan = ip_network("192.168.99.0/24")
    assert (ENP1S0, Span(first=lan[0], last=lan[-1])) in elements(routed, "passing4")


def test_every_wanted_resource_has_a_reason_in_words() -> None:
    for resource, because in desired(CLUSTER).wants.items():
        assert because.text, resource
        assert because.rule


def test_an_intent_without_a_gateway_wants_nothing_and_says_what_to_do() -> None:
    found = plan(Snapshot(intent=Intent(), facts=Facts(), ledger=Ledger(), gateway=""), DIGEST)
    assert found.wants == {}
    assert [f.reason for f in found.findings] == ["GatewayUnknown"]


def test_the_plan_does_not_depend_on_the_order_of_objects() -> None:
    turned = replace(
        CLUSTER,
        tenants=CLUSTER.tenants[::-1],
        nodes=CLUSTER.nodes[::-1],
        pods=CLUSTER.pods[::-1],
        namespaces=CLUSTER.namespaces[::-1],
    )
    known = probed(Ledger(), CLUSTER)
    one, other = desired(CLUSTER, ledger=known), desired(turned, ledger=known)
    assert set[Resource](one.wants) == set[Resource](other.wants)


def test_a_host_network_or_finished_pod_is_never_selected() -> None:
    ghost = replace(pod("ns-green", "ghost", "10.132.0.8"), finished=True)
    host = replace(pod("ns-green", "host", "192.168.99.21"), host_network=True)
    intent = replace(CLUSTER, tenants=(GREEN_BY_SOURCE,), pods=(*CLUSTER.pods, ghost, host))
    assert set(elements(desired(intent).wants, "id_pod4")) == {(ip_address("10.132.0.7"),)}


def test_nothing_of_the_uplink_is_wanted_while_it_is_missing() -> None:
    facts = replace(MACHINE, links={ENP1S0: MACHINE.links[ENP1S0]})
    found = desired(CLUSTER, facts=facts)
    assert "LinkMissing" in reasons(found)
    assert not [r for r in found.wants if isinstance(r, LinkAddress) and r.link == ENP7S0]
