"""Two nodes, three EgressIPs, and the questions that people ask about them.

Nodes n1 and n2 (192.168.99.21 and .22 on br-ex, 192.168.55.21 and .22 on eth1), pods shop/web 10.128.0.5 on n1,
shop/db 10.128.1.5 on n2 and lab/tool 10.128.1.6. EgressIP prod (192.168.99.150, on n1) serves namespaces with env=prod;
zeta (192.168.55.150, on n1) selects shop/web too. The host of n1 reaches 203.0.113.20 by another router of the primary
LAN, 203.0.113.40 by eth1, and discards 203.0.113.66.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from outgate.model.egress_ip import ClusterView, Path
from outgate.model.errors import IntentError
from outgate.model.host_table import HostTables
from outgate.model.intent import ClusterNetwork, EgressIP, ExternalRoute, Intent, Namespace, Node, NodeSubnet, Pod
from outgate.model.net import MAIN, Discard, Link, LinkName, NextHop, OnLink, Route, Rule, TableId, Via
from outgate.model.nics import GatewayMode, HostCidr
from outgate.model.routing import Routing, Semantics
from outgate.model.selector import LabelSelector
from outgate.plan.egress_explain import explain_pod
from outgate.plan.egress_ip import BRIDGE, MANAGEMENT_PORT
from outgate.plan.egress_list import detail, listed, reasons
from outgate.plan.whatif import Other, shifts, unread
from outgate.report.egress_ip import egress_document, egress_text
from outgate.report.egress_list import detail_text, list_text, reasons_text
from outgate.report.whatif import whatif_text

ETH1 = LinkName("eth1")
DEFAULT = Via(address=ip_address("192.168.99.1"), link=BRIDGE)
OTHER = Via(address=ip_address("192.168.99.2"), link=BRIDGE)
SECOND = Via(address=ip_address("192.168.55.1"), link=ETH1)
OUTSIDE, STATIC, BY_ETH1 = (ip_address(f"203.0.113.{last}") for last in (10, 20, 40))
AUTO = Routing(semantics=Semantics.AUTO)


def route(dst: str, hop: NextHop) -> Route:
    return Route(dst=ip_network(dst), hop=hop)


HOST = HostTables(
    links=MappingProxyType(
        {
            name: Link(name=name, index=index, mtu=mtu)
            for name, index, mtu in ((BRIDGE, 3, 1500), (MANAGEMENT_PORT, 4, 1400), (ETH1, 5, 9000))
        }
    ),
    routes=frozenset(
        {
            route("0.0.0.0/0", DEFAULT),
            route("192.168.99.0/24", OnLink(link=BRIDGE)),
            route("192.168.55.0/24", OnLink(link=ETH1)),
            route("203.0.113.20/32", OTHER),
            route("203.0.113.40/32", SECOND),
            route("203.0.113.66/32", Discard.BLACKHOLE),
            route("10.128.0.0/14", Via(address=ip_address("10.128.0.1"), link=LinkName("ovn-k8s-mp0"))),
        }
    ),
    rules=frozenset({Rule(priority=0, version=4, action=TableId(255)), Rule(priority=32766, version=4, action=MAIN)}),
)


def node(name: str, number: int, mode: GatewayMode = GatewayMode.LOCAL) -> Node:
    primary, secondary = ip_network("192.168.99.0/24"), ip_network("192.168.55.0/24")
    return Node(
        name=name,
        subnets=(NodeSubnet("default", ip_network(f"10.128.{number}.0/24"), "k8s.ovn.org/node-subnets"),),
        primary=(primary,),
        mode=mode,
        next_hops=(ip_address("192.168.99.1"),),
        host_cidrs=(
            HostCidr(ip_address(f"192.168.99.{21 + number}"), primary),
            HostCidr(ip_address(f"192.168.55.{21 + number}"), secondary),
        ),
        assignable=True,
    )


def egress_ip(name: str, address: str, on: str = "", pods: LabelSelector | None = None) -> EgressIP:
    return EgressIP(
        name=name,
        egress_ips=(ip_address(address),),
        namespace_selector=LabelSelector((("env", "prod"),)),
        pod_selector=pods,
        assigned=((on, ip_address(address)),) if on else (),
    )


WEB = Pod(namespace="shop", name="web", node="n1", addresses=(ip_address("10.128.0.5"),), labels=(("app", "web"),))
DB = Pod(namespace="shop", name="db", node="n2", addresses=(ip_address("10.128.1.5"),))
TOOL = Pod(namespace="lab", name="tool", node="n2", addresses=(ip_address("10.128.1.6"),))
INTENT = Intent(
    nodes=(node("n1", 0), node("n2", 1)),
    namespaces=(Namespace(name="lab"), Namespace(name="shop", labels=(("env", "prod"),))),
    pods=(DB, TOOL, WEB),
    network=ClusterNetwork(
        cluster_networks=(ip_network("10.128.0.0/14"),), service_networks=(ip_network("172.30.0.0/16"),)
    ),
    egress_ips=(
        egress_ip("prod", "192.168.99.150", "n1"),
        egress_ip("zeta", "192.168.55.150", "n1", LabelSelector((("app", "web"),))),
    ),
)
VIEW = ClusterView(intent=INTENT, hosts=MappingProxyType({"n1": HOST}))


def ask(subject: str, to: object, view: ClusterView = VIEW) -> str:
    return explain_pod(view, subject, ip_address(str(to))).headline


def test_the_first_line_says_where_it_leaves_and_as_whom() -> None:
    assert ask("shop/web", STATIC) == (
        "shop/web (10.128.0.5, node n1) to 203.0.113.20: leaves n1 by br-ex via 192.168.99.1 as 192.168.99.150"
    )
    assert ask("shop/db", STATIC, replace(VIEW, routing=AUTO)).endswith(
        "leaves n1 by br-ex via 192.168.99.2 as 192.168.99.150"
    )
    assert ask("10.128.1.5", BY_ETH1, replace(VIEW, routing=AUTO)).endswith(
        "leaves n1 by eth1 via 192.168.55.1 as 192.168.99.150"
    )
    assert "is dropped on n1 (blackhole)" in ask("shop/db", "203.0.113.66", replace(VIEW, routing=AUTO))


def test_below_stands_every_step_and_what_would_be_today() -> None:
    text = egress_text(explain_pod(replace(VIEW, routing=AUTO), "shop/db", BY_ETH1))

    for words in (
        "egress IP  192.168.99.150 of EgressIP/prod",
        "node       n1; n2 could take it too",
        "path       host (row R2)",
        "route      203.0.113.40/32 via 192.168.55.1 dev eth1, over 0.0.0.0/0 via 192.168.99.1 dev br-ex",
        "SNAT       192.168.99.150, in the host's nftables",
        "offload    no: local gateway mode forwards in the kernel",
        "answers    to eth1, if the router there knows a way to 192.168.99.150",
        "MTU        pods 1400 (ovn-k8s-mp0), eth1 9000, between the nodes geneve takes 58 bytes of br-ex's",
        "legacy     gateway router, via 192.168.99.1 dev br-ex as 192.168.99.150 (row T3)",
    ):
        assert words in text


def test_a_host_route_that_is_not_followed_is_told() -> None:
    found = explain_pod(VIEW, "shop/db", STATIC)

    assert not found.is_well
    assert [one.reason for one in found.findings] == ["HostRouteIgnored"]
    document = egress_document(found)
    assert document["kind"] == "EgressExplanation"


def test_a_pod_of_two_is_shown_with_the_first_by_name_and_the_other_is_told() -> None:
    found = explain_pod(VIEW, "shop/web", OUTSIDE)

    assert found.answers[0].egress_ip == "prod"
    (told,) = found.standby
    assert told.startswith("EgressIP/zeta selects it too: a pod has the one that OVN-Kubernetes saw first")
    assert told.endswith("this is the first by name")


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("192.168.55.22", "stays in the cluster: that is node n2"),
        ("10.128.1.6", "stays in the cluster: 10.128.0.0/14 is inside"),
        ("172.30.0.1", "stays in the cluster: 172.30.0.0/16 is inside"),
    ],
)
def test_what_stays_in_the_cluster_never_has_an_egress_ip(to: str, words: str) -> None:
    assert words in ask("shop/web", to)


def test_a_pod_that_nothing_selects_is_told_what_it_lacks() -> None:
    found = explain_pod(VIEW, "lab/tool", OUTSIDE)

    assert "no EgressIP selects it: it leaves like any pod, as its node n2" in found.headline
    assert found.notes[0] == "EgressIP/prod wants namespaces with env=prod, which lab is not"
    assert found.is_well


def test_a_pod_on_the_nodes_network_and_one_that_nobody_knows() -> None:
    on_host = replace(WEB, host_network=True)
    view = replace(VIEW, intent=replace(INTENT, pods=(on_host,)))

    assert "uses the network of node n1 itself" in ask("shop/web", OUTSIDE, view)
    assert not explain_pod(view, "shop/gone", OUTSIDE).known


def test_a_node_without_a_snapshot_is_said_to_be_unread() -> None:
    found = explain_pod(replace(VIEW, hosts=MappingProxyType({})), "shop/db", STATIC)

    assert [one.reason for one in found.findings] == ["NodeNotRead"]


def test_an_external_route_on_the_same_namespace_is_a_conflict() -> None:
    selects = ExternalRoute(
        name="gw", namespace_selector=LabelSelector((("env", "prod"),)), next_hops=(ip_address("192.168.99.13"),)
    )
    found = explain_pod(replace(VIEW, intent=replace(INTENT, external_routes=(selects,))), "shop/db", OUTSIDE)

    assert [(one.reason, one.about) for one in found.findings] == [
        ("Conflict", "EgressIP/prod"),
        ("Conflict", "AdminPolicyBasedExternalRoute/gw"),
    ]
    assert "501" in found.findings[0].text


@pytest.mark.parametrize(
    ("address", "reason", "words"),
    [
        ("172.20.0.1", "NoMatchingNodeFound", "no network of it holds 172.20.0.1"),
        ("192.168.99.22", "EgressIPConflict", "is an address of Node/n2 itself"),
        ("10.128.1.77", "EgressIPConflict", "the pods of Node/n2"),
        ("172.30.0.9", "EgressIPConflict", "which the cluster uses inside"),
        ("192.168.99.150", "EgressIPConflict", "is listed by EgressIP/prod too"),
        ("192.168.99.151", "NotAssignedYet", "although n1 could take it"),
    ],
)
def test_why_an_address_is_on_no_node(address: str, reason: str, words: str) -> None:
    intent = replace(INTENT, egress_ips=(*INTENT.egress_ips, egress_ip("unlucky", address)))

    (found,) = reasons(intent, "unlucky")

    assert found.finding is not None
    assert (found.finding.reason, words in found.finding.text) == (reason, True)
    assert words in " ".join(reasons_text([found]).split())
    assert explain_pod(replace(VIEW, intent=intent), "shop/db", OUTSIDE).answers


def test_a_node_without_the_label_and_one_that_is_not_ready_say_so() -> None:
    nodes = (replace(node("n1", 0), assignable=False), replace(node("n2", 1), ready=False))
    intent = replace(INTENT, nodes=nodes, egress_ips=(egress_ip("prod", "192.168.99.150"),))

    text = reasons_text(reasons(intent, "prod"))

    assert "it has no label k8s.ovn.org/egress-assignable" in text
    assert "it is not ready" in text
    with pytest.raises(IntentError, match="there is no EgressIP 'x'; there are prod"):
        reasons(intent, "x")


def test_more_addresses_than_nodes_wait() -> None:
    both = EgressIP(
        name="many",
        egress_ips=tuple(ip_address(f"192.168.99.{last}") for last in (151, 152, 153)),
        namespace_selector=LabelSelector((("env", "prod"),)),
        assigned=(("n1", ip_address("192.168.99.151")), ("n2", ip_address("192.168.99.152"))),
    )

    found = reasons(replace(INTENT, egress_ips=(both,)), "many")

    assert [one.finding.reason if one.finding else "" for one in found] == ["", "", "UnassignedRequest"]


def test_the_list_counts_pods_once() -> None:
    rows = listed(INTENT)

    assert [(one.name, one.pods) for one in rows] == [("prod", 2), ("zeta", 0)]
    assert rows[1].findings[0].reason == "StandBy"
    assert "prod      192.168.99.150  n1    2     shop" in list_text(rows)


def test_one_egress_ip_is_shown_with_its_nic_its_pods_and_those_that_have_another() -> None:
    prod, zeta = detail(VIEW, "prod"), detail(VIEW, "zeta")

    assert [(str(one.address), one.node, one.nic) for one in prod.placements] == [("192.168.99.150", "n1", BRIDGE)]
    assert [one.nic for one in zeta.placements] == [ETH1]
    assert [pod.name for pod in prod.pods] == ["db", "web"]
    assert (zeta.pods, [(pod.name, owner) for pod, owner in zeta.standby]) == ((), [("web", "prod")])
    text = detail_text(zeta)
    assert "192.168.55.150  on n1, eth1  192.168.55.0/24" in text
    assert "has EgressIP/prod first" in text
    with pytest.raises(IntentError, match="there are prod, zeta"):
        detail(VIEW, "x")


def test_what_changes_is_told_by_range_for_all_pods_that_are_alike() -> None:
    found = shifts(VIEW, Other(routing=AUTO))

    assert {(str(one.destinations[0]), one.pods, one.changes) for one in found if one.egress_ip == "prod"} == {
        ("192.168.55.0/24", 2, ("path", "offload")),
        ("203.0.113.20/32", 2, ("path", "offload")),
        ("203.0.113.40/32", 2, ("path", "offload")),
        ("203.0.113.66/32", 2, ("fate", "path", "offload")),
    }
    text = whatif_text(found, unread(VIEW))
    assert "EgressIP/prod 192.168.99.150 on n1, 2 pods, to 203.0.113.20/32: path, offload" in text
    assert text.endswith("4 changes: 0 change source, 1 change fate, 4 change path, 4 change offload")


def test_the_other_gateway_mode_can_be_tried_before_anybody_flips_it() -> None:
    shared = shifts(VIEW, Other(routing=Routing(), mode=GatewayMode.SHARED))
    honoured = shifts(VIEW, Other(routing=replace(AUTO, honor_host_routes=True), mode=GatewayMode.SHARED))

    assert {one.changes for one in shared} == {("offload",)}
    by_router = next(one for one in honoured if "203.0.113.20/32" in map(str, one.destinations))
    assert (by_router.after.path, by_router.after.hops) == (Path.GATEWAY_ROUTER, (OTHER,))


def test_nothing_changes_where_nothing_is_tried_and_unknown_nodes_are_named() -> None:
    blind = replace(VIEW, hosts=MappingProxyType({}))

    assert whatif_text(shifts(VIEW, Other(routing=Routing())), ()) == "nothing changes"
    assert "n1: its routes are not known" in whatif_text(shifts(blind, Other(routing=AUTO)), unread(blind))
