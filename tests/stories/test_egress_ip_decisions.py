"""Which way packets with an egress IP leave node n1, in every gateway mode, by primary and secondary NIC.

Pods 10.128.0.0/14, node n1 192.168.99.21 on br-ex and 192.168.55.21 on eth1, egress IPs 192.168.99.150 and
192.168.55.150, outside 203.0.113.0/24. The host has static routes: to 203.0.113.20 by another router of the primary
LAN, to 203.0.113.40 by eth1, and 203.0.113.66 is a blackhole. Rows are those of docs/egress-ip.md.
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


@pytest.mark.parametrize(("routing", "row"), [(LEGACY, "T10"), (AUTO, "R7")])
def test_a_second_bridge_is_treated_like_a_plain_nic(routing: Routing, row: str) -> None:
    asked = Asked(egress_ip=SECONDARY, pod=HERE, pod_is_here=True, destination=BY_ETH1)

    decision = decide(asked, replace(EgressNodeFacts.of(node(SHARED), HOST), uplinks=frozenset({ETH1})), routing)

    assert (decision.row, decision.path, decision.offload.possible) == (row, Path.HOST, False)


def with_routes(*more: Route, without: tuple[Route, ...] = ()) -> HostTables:
    return replace(HOST, routes=(ROUTES - set(without)) | set(more))


@pytest.mark.parametrize(
    ("row", "mode", "pod", "egress_ip", "path", "place", "offload"),
    [
        ("T1", SHARED, HERE, PRIMARY, Path.GATEWAY_ROUTER, Place.GATEWAY_ROUTER, True),
        ("T2", SHARED, THERE, PRIMARY, Path.GATEWAY_ROUTER, Place.GATEWAY_ROUTER, True),
        ("T3", LOCAL, HERE, PRIMARY, Path.GATEWAY_ROUTER, Place.GATEWAY_ROUTER, None),
        ("T3", LOCAL, THERE, PRIMARY, Path.GATEWAY_ROUTER, Place.GATEWAY_ROUTER, None),
        ("T6", SHARED, HERE, SECONDARY, Path.HOST, Place.HOST, False),
        ("T7", SHARED, THERE, SECONDARY, Path.HOST, Place.HOST, False),
        ("T8", LOCAL, HERE, SECONDARY, Path.HOST, Place.HOST, False),
        ("T8", LOCAL, THERE, SECONDARY, Path.HOST, Place.HOST, False),
    ],
)
def test_legacy_is_what_ovn_kubernetes_does_today(
    *, row: str, mode: GatewayMode, pod: Address, egress_ip: Address, path: Path, place: Place, offload: bool | None
) -> None:
    decision = ask(mode, egress_ip, ANYWHERE, LEGACY, pod=pod)

    assert (decision.row, decision.path, decision.place, decision.offload.possible) == (row, path, place, offload)
    assert decision.source == egress_ip
    assert not decision.honours_host


@pytest.mark.parametrize("destination", [ANYWHERE, STATIC, BY_ETH1, HOLE], ids=str)
@pytest.mark.parametrize("mode", GatewayMode)
def test_legacy_sends_a_primary_egress_ip_by_the_gateway_routers_default_whatever_the_host_says(
    mode: GatewayMode, destination: Address
) -> None:
    decision = ask(mode, PRIMARY, destination, LEGACY)

    assert (decision.hops, decision.link) == ((DEFAULT,), BRIDGE)
    ignored = [finding.reason for finding in decision.findings]
    assert ignored == ([] if destination == ANYWHERE else ["HostRouteIgnored"])


@pytest.mark.parametrize(
    ("destination", "hop", "link"),
    [(ANYWHERE, DEFAULT, BRIDGE), (STATIC, OTHER, BRIDGE), (BY_ETH1, SECOND, ETH1), (HOLE, Discard.BLACKHOLE, None)],
    ids=str,
)
@pytest.mark.parametrize(("pod", "row"), [(HERE, "R1"), (THERE, "R2")])
def test_in_local_mode_a_primary_egress_ip_follows_the_hosts_routes(
    destination: Address, hop: NextHop, link: LinkName | None, pod: Address, row: str
) -> None:
    decision = ask(LOCAL, PRIMARY, destination, AUTO, pod=pod)

    assert (decision.row, decision.hops, decision.link) == (row, (hop,), link)
    assert (decision.path, decision.place, decision.source) == (Path.HOST, Place.HOST, PRIMARY)
    assert decision.honours_host
    assert decision.findings == ()


def test_what_the_gateway_router_does_the_same_stays_with_it_where_ovn_kubernetes_keeps_its_feature() -> None:
    same, other = ask(LOCAL, PRIMARY, ANYWHERE, ASSISTED), ask(LOCAL, PRIMARY, STATIC, ASSISTED)

    assert (same.row, same.path, same.hops, same.findings) == ("R1", Path.GATEWAY_ROUTER, (DEFAULT,), ())
    assert (other.row, other.path, other.hops) == ("R1", Path.HOST, (OTHER,))


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


def test_in_shared_mode_a_primary_egress_ip_stays_in_ovn_and_keeps_its_offload() -> None:
    decision = ask(SHARED, PRIMARY, STATIC, AUTO)

    assert (decision.row, decision.path, decision.hops) == ("R3", Path.GATEWAY_ROUTER, (DEFAULT,))
    assert decision.offload.possible
    assert "honorHostRoutes" in decision.findings[0].fix


@pytest.mark.parametrize(
    ("destination", "hop", "honours"),
    [(ANYWHERE, DEFAULT, False), (STATIC, OTHER, True), (HOLE, Discard.BLACKHOLE, True), (BY_ETH1, DEFAULT, False)],
    ids=str,
)
def test_in_shared_mode_host_routes_are_honoured_by_the_gateway_router_where_it_can(
    destination: Address, hop: NextHop, honours: bool
) -> None:
    decision = ask(SHARED, PRIMARY, destination, HONOURED)

    assert (decision.row, decision.hops, decision.honours_host) == ("R3h", (hop,), honours)
    assert decision.place is Place.GATEWAY_ROUTER
    said = [finding.fix for finding in decision.findings]
    assert said == (["the gateway router knows no other NIC: use local gateway mode for it"] * (destination == BY_ETH1))


@pytest.mark.parametrize(("mode", "row"), [(LOCAL, "R6"), (SHARED, "R8")])
def test_a_secondary_nic_behaves_the_same_in_both_modes(mode: GatewayMode, row: str) -> None:
    by_nic = ask(mode, SECONDARY, BY_ETH1, AUTO)
    nowhere = ask(mode, SECONDARY, ANYWHERE, AUTO)
    hole = ask(mode, SECONDARY, HOLE, AUTO)

    assert (by_nic.row, by_nic.hops, by_nic.link, by_nic.table) == (row, (SECOND,), ETH1, TableId(1005))
    assert by_nic.offload.reason == "eth1 is not an OVS uplink: host path, no offload"
    assert (nowhere.hops, [one.reason for one in nowhere.findings]) == ((), ["NoDefaultRoute"])
    assert hole.hops == (Discard.BLACKHOLE,)


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


@pytest.mark.parametrize(
    ("row", "mode", "network", "egress_ip", "routing", "source"),
    [
        ("T4", SHARED, PodNetwork.LAYER3, PRIMARY, LEGACY, PRIMARY),
        ("T5", LOCAL, PodNetwork.LAYER2, PRIMARY, LEGACY, PRIMARY),
        ("T9", SHARED, PodNetwork.LAYER3, SECONDARY, LEGACY, None),
        ("R4", LOCAL, PodNetwork.LAYER3, PRIMARY, AUTO, None),
        ("R5", SHARED, PodNetwork.LAYER2, PRIMARY, AUTO, PRIMARY),
        ("R9", SHARED, PodNetwork.LAYER3, SECONDARY, AUTO, None),
    ],
)
def test_user_defined_networks(
    *,
    row: str,
    mode: GatewayMode,
    network: PodNetwork,
    egress_ip: Address,
    routing: Routing,
    source: Address | None,
) -> None:
    decision = ask(mode, egress_ip, ANYWHERE, routing, network=network)

    assert (decision.row, decision.source) == (row, source)
    if source is None:
        leaks = routing is LEGACY
        assert decision.leaves is leaks
        assert decision.findings[0].reason == "UserDefinedNetwork"


def test_an_egress_ip_that_no_nic_has_is_refused_and_falls_through_today() -> None:
    nobody = ip_address("172.20.0.1")

    today, then = ask(SHARED, nobody, ANYWHERE, LEGACY), ask(SHARED, nobody, ANYWHERE, AUTO)

    assert (today.row, today.leaves, today.source) == ("T11", True, None)
    assert (then.row, then.leaves) == ("R11", False)
    assert then.findings[0].reason == "SourceNotOnLink"


def test_the_mirror_keeps_legs_and_discards_and_the_copy_does_not() -> None:
    host = with_routes(route("198.51.100.0/24", OTHER), route("198.51.100.0/24", SECOND))

    mirror, copy = mirrored(host, ETH1, 4, AUTO), copied(host, ETH1, 4)

    table = TableId(1005)
    assert set(mirror) - set(copy) == {
        route("198.51.100.0/24", SECOND, table=table),
        route("203.0.113.66/32", Discard.BLACKHOLE, table=table),
    }
    assert set(copy) - set(mirror) == {route("0.0.0.0/0", OnLink(link=ETH1), table=table)}
