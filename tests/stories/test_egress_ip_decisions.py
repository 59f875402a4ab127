"""Which way packets with an egress IP leave node n1, where the rows in tests/golden do not tell: what the host has in
its tables and rules, settings, and nodes where OVN-Kubernetes' own feature is off.

Pods 10.128.0.0/14, node n1 192.168.99.21 on br-ex and 192.168.55.21 on eth1, egress IPs 192.168.99.150 and
192.168.55.150, outside 203.0.113.0/24. The host has static routes: to 203.0.113.20 by another router of the primary
LAN, to 203.0.113.40 by eth1, and 203.0.113.66 is a blackhole.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.egress_ip import Decision, Path, Place, PodNetwork
from outgate.model.host_table import HostTables
from outgate.model.intent import Node
from outgate.model.net import MAIN, Address, Discard, Link, LinkName, NextHop, OnLink, Route, Rule, TableId, Via
from outgate.model.nics import GatewayMode
from outgate.model.routing import NicGateway, Routing, Semantics, SnatScope, Stance
from outgate.plan.egress_ip import BRIDGE, Asked, EgressNodeFacts, copied, decide, mirrored

ETH1 = LinkName("eth1")
DEFAULT = Via(address=ip_address("192.168.99.1"), link=BRIDGE)
OTHER = Via(address=ip_address("192.168.99.2"), link=BRIDGE)
SECOND = Via(address=ip_address("192.168.55.1"), link=ETH1)
ANYWHERE, STATIC, BY_ETH1, HOLE = (ip_address(f"203.0.113.{last}") for last in (10, 20, 40, 66))
PRIMARY, SECONDARY = ip_address("192.168.99.150"), ip_address("192.168.55.150")
HERE, THERE = ip_address("10.128.0.5"), ip_address("10.128.1.5")

LEGACY, ASSISTED = Routing(), Routing(semantics=Semantics.AUTO)
AUTO = replace(ASSISTED, stance=Stance.OWN)
HONOURED = replace(AUTO, honor_host_routes=True)
SHARED, LOCAL = GatewayMode.SHARED, GatewayMode.LOCAL


def route(dst: str, hop: NextHop, *, metric: int = 0, table: int = MAIN) -> Route:
    return Route(dst=ip_network(dst), hop=hop, metric=metric, table=TableId(table))


ROUTES = frozenset(
    {
        route("0.0.0.0/0", DEFAULT),
        route("192.168.99.0/24", OnLink(link=BRIDGE)),
        route("192.168.55.0/24", OnLink(link=ETH1)),
        route("203.0.113.20/32", OTHER),
        route("203.0.113.40/32", SECOND),
        route("203.0.113.66/32", Discard.BLACKHOLE),
        route("10.128.0.0/14", Via(address=ip_address("10.128.0.1"), link=LinkName("ovn-k8s-mp0"))),
    }
)
RULES = frozenset(
    {
        Rule(priority=0, version=4, action=TableId(255)),
        Rule(priority=32766, version=4, action=MAIN),
        Rule(priority=32767, version=4, action=TableId(253)),
    }
)
LINKS = {name: Link(name=name, index=index) for name, index in ((BRIDGE, 3), (ETH1, 5))}
HOST = HostTables(links=LINKS, routes=ROUTES, rules=RULES)


def node(mode: GatewayMode) -> Node:
    return Node(name="n1", mode=mode, primary=(ip_network("192.168.99.0/24"),), next_hops=(ip_address("192.168.99.1"),))


def ask(
    mode: GatewayMode,
    egress_ip: Address,
    destination: Address,
    routing: Routing,
    *,
    pod: Address = HERE,
    host: HostTables = HOST,
    network: PodNetwork = PodNetwork.DEFAULT,
) -> Decision:
    asked = Asked(egress_ip=egress_ip, pod=pod, pod_is_here=pod == HERE, destination=destination, network=network)
    return decide(asked, EgressNodeFacts.of(node(mode), host), routing)


def with_routes(*more: Route, without: tuple[Route, ...] = ()) -> HostTables:
    return replace(HOST, routes=(ROUTES - set(without)) | set(more))


@pytest.mark.parametrize("pod", [HERE, THERE], ids=str)
def test_where_ovn_kubernetes_has_no_such_feature_the_host_gets_even_what_the_gateway_router_does_the_same(
    pod: Address,
) -> None:
    decision = ask(LOCAL, PRIMARY, ANYWHERE, AUTO, pod=pod)

    assert (decision.path, decision.place, decision.hops) == (Path.HOST, Place.HOST, (DEFAULT,))
    assert decision.honours_host


def test_metrics_decide_and_several_next_hops_stay_several() -> None:
    host = with_routes(
        route("203.0.113.20/32", SECOND, metric=500),
        route("198.51.100.0/24", OTHER),
        route("198.51.100.0/24", SECOND),
    )

    worse = ask(LOCAL, PRIMARY, STATIC, AUTO, host=host)
    several = ask(LOCAL, PRIMARY, ip_address("198.51.100.1"), AUTO, host=host)

    assert worse.hops == (OTHER,)
    assert str(worse.over[0]) == "203.0.113.20/32 via 192.168.55.1 dev eth1 metric 500"
    assert (set(several.hops), several.link) == ({OTHER, SECOND}, None)


def test_the_users_policy_rules_count_in_local_mode() -> None:
    rules = RULES | {Rule(priority=100, version=4, action=TableId(77), src=ip_network("10.128.0.0/14"))}
    host = replace(with_routes(route("203.0.113.0/24", SECOND, table=77)), rules=rules)

    decision = ask(LOCAL, PRIMARY, ANYWHERE, AUTO, host=host)

    assert (decision.hops, decision.table) == ((SECOND,), TableId(77))
    assert "table 77" in decision.because[-1].text


def test_the_snat_scope_can_keep_an_egress_ip_on_its_link() -> None:
    decision = ask(LOCAL, PRIMARY, BY_ETH1, replace(AUTO, snat_scope=SnatScope.HOSTING_LINK))

    assert decision.hops == (Discard.PROHIBIT,)
    assert [finding.reason for finding in decision.findings] == ["SourceNotOnLink"]


def test_legacy_makes_a_default_up_for_a_secondary_nic_and_ignores_what_discards() -> None:
    far, hole = ask(SHARED, SECONDARY, ANYWHERE, LEGACY), ask(SHARED, SECONDARY, HOLE, LEGACY)

    assert far.hops == hole.hops == (OnLink(link=ETH1),)
    assert [one.reason for one in far.findings] == ["NoDefaultRoute"]
    assert "looked for by ARP" in far.findings[0].text


def test_legacy_reads_the_table_that_ovn_kubernetes_filled_once_it_has_a_rule_for_the_pod() -> None:
    ruled = RULES | {Rule(priority=6000, version=4, action=TableId(1005), src=ip_network("10.128.0.5/32"))}
    host = replace(with_routes(route("0.0.0.0/0", SECOND, table=1005)), rules=ruled)

    assert ask(SHARED, SECONDARY, ANYWHERE, LEGACY, host=host).hops == (SECOND,)
    assert ask(SHARED, SECONDARY, BY_ETH1, LEGACY, pod=THERE, host=host).hops == (SECOND,)


def test_a_default_gateway_that_is_said_for_a_nic_is_used_where_it_has_none() -> None:
    said = replace(AUTO, gateways=(NicGateway(link=ETH1, router=ip_address("192.168.55.9")),))
    on_link = replace(AUTO, gateways=(NicGateway(link=ETH1, router=None),))
    has_one = with_routes(route("0.0.0.0/0", SECOND, metric=500))

    assert ask(LOCAL, SECONDARY, ANYWHERE, said).hops == (Via(address=ip_address("192.168.55.9"), link=ETH1),)
    assert ask(LOCAL, SECONDARY, ANYWHERE, on_link).hops == (OnLink(link=ETH1),)
    assert ask(LOCAL, SECONDARY, ANYWHERE, said, host=has_one).hops == (SECOND,)


def test_the_mirror_keeps_legs_and_discards_and_the_copy_does_not() -> None:
    host = with_routes(route("198.51.100.0/24", OTHER), route("198.51.100.0/24", SECOND))

    mirror, copy = mirrored(host, ETH1, 4, AUTO), copied(host, ETH1, 4)

    assert {(one.dst, one.hop) for one in mirror} - {(one.dst, one.hop) for one in copy} == {
        (ip_network("198.51.100.0/24"), SECOND),
        (ip_network("203.0.113.66/32"), Discard.BLACKHOLE),
    }
    assert {(one.dst, one.hop) for one in copy} - {(one.dst, one.hop) for one in mirror} == {
        (ip_network("0.0.0.0/0"), OnLink(link=ETH1))
    }
    assert {one.table for one in mirror} == {TableId(6_000_005)}
    assert {one.table for one in copy} == {TableId(1005)}
