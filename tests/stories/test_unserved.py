"""The partner's firewall has seen an address that is no egress IP: which pod was it?

EgressIP prod serves namespace shop: pods with app=web, 192.168.99.150 on n1, IPv4 only; far serves namespace far by
192.168.55.150 on n1's second NIC; spare serves namespace idle, and is on no node. Nodes n1 and n2 are 192.168.99.21
and .22 (fd99::21, fd99::22).
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from outgate.model.egress_ip import ClusterView
from outgate.model.host_table import EGRESS_IP_PRIORITY, HostTables, NicSnat, Translations
from outgate.model.intent import EgressIP, EgressRouting, ExternalRoute, Intent, Namespace, Node, Pod
from outgate.model.net import Link, LinkName, OnLink, Route, Rule, TableId
from outgate.model.nics import GatewayMode, HostCidr
from outgate.model.rivals import Advertisement, Rivals
from outgate.model.routing import OnUnassigned
from outgate.model.selector import LabelSelector
from outgate.model.unserved import Leaving
from outgate.plan.egress_explain import explain_pod
from outgate.plan.unserved import unserved
from outgate.report.unserved import unserved_document, unserved_text

BR_EX, ETH1 = LinkName("br-ex"), LinkName("eth1")


def node(name: str, last: int) -> Node:
    own = (ip_address(f"192.168.99.{last}"), ip_address(f"fd99::{last}"))
    return Node(name=name, internal_ips=own, primary=(ip_network("192.168.99.0/24"),), mode=GatewayMode.LOCAL)


def in_namespace(name: str) -> LabelSelector:
    return LabelSelector((("name", name),))


def pod(namespace: str, name: str, *addresses: str, on: str = "n1", app: str = "web") -> Pod:
    return Pod(
        namespace=namespace,
        name=name,
        node=on,
        addresses=tuple(map(ip_address, addresses)),
        labels=(("app", app),),
    )


def egress_ip(
    name: str, address: str, namespace: str, *, on: str = "n1", pods: LabelSelector | None = None
) -> EgressIP:
    return EgressIP(
        name=name,
        egress_ips=(ip_address(address),),
        namespace_selector=in_namespace(namespace),
        pod_selector=pods,
        assigned=((on, ip_address(address)),) if on else (),
    )


FAR = pod("far", "one", "10.128.0.20")
PODS = (
    FAR,
    pod("idle", "one", "10.128.0.30"),
    replace(pod("shop", "agent", "192.168.99.21"), host_network=True),
    pod("shop", "both", "10.128.0.6", "fd01::6"),
    pod("shop", "job", "10.128.1.9", on="n2", app="job"),
    pod("shop", "new"),
    pod("shop", "web", "10.128.0.5"),
    pod("team", "own", "10.128.1.40", on="n2"),
)
RULES = (Rule(priority=EGRESS_IP_PRIORITY, version=4, src=ip_network("10.128.0.20/32"), action=TableId(1005)),)
HOST = HostTables(
    links=MappingProxyType({one: Link(name=one, index=index) for one, index in ((BR_EX, 3), (ETH1, 5))}),
    routes=frozenset({Route(dst=ip_network("192.168.55.0/24"), hop=OnLink(link=ETH1))}),
    rules=frozenset(RULES),
)
INTENT = Intent(
    nodes=(node("n1", 21), node("n2", 22)),
    namespaces=tuple(Namespace(name=one, labels=(("name", one),)) for one in ("far", "idle", "shop", "team")),
    pods=PODS,
    egress_ips=(
        egress_ip("far", "192.168.55.150", "far"),
        egress_ip("prod", "192.168.99.150", "shop", pods=LabelSelector((("app", "web"),))),
        egress_ip("spare", "192.168.99.160", "idle", on=""),
    ),
)
VIEW = ClusterView(intent=INTENT, hosts=MappingProxyType({"n1": HOST}))


def rows(view: ClusterView = VIEW) -> dict[tuple[str, str], Leaving]:
    return {(one.pod, str(one.address)): one for one in unserved(view).leaving}


@pytest.mark.parametrize(
    ("pod_", "address", "seen_as", "why"),
    [
        ("shop/both", "fd01::6", "fd99::21", "EgressIP/prod has no IPv6 address"),
        ("idle/one", "10.128.0.30", "192.168.99.21", "EgressIP/spare is on no node with an IPv4 address"),
        (
            "shop/agent",
            "192.168.99.21",
            "192.168.99.21",
            "it uses the node's own network, to which no EgressIP applies",
        ),
        ("shop/job", "10.128.1.9", "192.168.99.22", "the podSelector of EgressIP/prod does not select it"),
        ("shop/new", "None", "None", "it has no address yet, and sends nothing"),
    ],
)
def test_each_pod_without_its_egress_ip_is_told_with_the_reason(
    pod_: str, address: str, seen_as: str, why: str
) -> None:
    found = rows()[pod_, address]
    assert (str(found.seen_as), found.why) == (seen_as, why)
    assert found.is_meant is (pod_ == "shop/job")


def test_a_pod_that_has_its_egress_ip_is_not_told() -> None:
    assert set(rows()) == {
        ("idle/one", "10.128.0.30"),
        ("shop/agent", "192.168.99.21"),
        ("shop/both", "fd01::6"),
        ("shop/job", "10.128.1.9"),
        ("shop/new", "None"),
    }


def test_a_pod_whose_rule_the_egress_node_lacks_leaves_as_that_node() -> None:
    lacking = replace(VIEW, hosts=MappingProxyType({"n1": replace(HOST, rules=frozenset())}))

    found = rows(lacking)["far/one", "10.128.0.20"]
    assert (str(found.seen_as), found.of) == ("192.168.99.21", "Node/n1")
    assert "n1 has no rule that leads it to the NIC of 192.168.55.150" in found.why
    assert ("far/one", "10.128.0.20") not in rows(replace(VIEW, hosts=MappingProxyType({})))  # nobody has looked
    shared = replace(INTENT, nodes=tuple(replace(one, mode=GatewayMode.SHARED) for one in INTENT.nodes))
    dropped = rows(replace(lacking, intent=shared))["far/one", "10.128.0.20"]
    assert (dropped.seen_as, dropped.why.endswith("what comes there is dropped")) == (None, True)


def test_a_pod_that_the_egress_node_does_not_translate_leaves_as_the_address_of_its_nic() -> None:
    n1 = replace(INTENT.nodes[0], host_cidrs=(HostCidr(ip_address("192.168.55.21"), ip_network("192.168.55.0/24")),))
    view = replace(VIEW, intent=replace(INTENT, nodes=(n1, INTENT.nodes[1])))
    empty = replace(view, translations=MappingProxyType({"n1": Translations()}))

    found = rows(empty)["far/one", "10.128.0.20"]
    assert (str(found.seen_as), found.of) == ("192.168.55.21", "Node/n1")
    assert found.why.startswith("n1 does not translate it to 192.168.55.150 on eth1")
    snat = NicSnat(pod=FAR.addresses[0], link=ETH1, address=ip_address("192.168.55.150"))
    held = replace(view, translations=MappingProxyType({"n1": Translations(by_nic=frozenset({snat}))}))
    assert ("far/one", "10.128.0.20") not in rows(held)
    assert ("far/one", "10.128.0.20") not in rows(view)  # nobody has read them


def test_with_on_unassigned_drop_nothing_leaves_and_explain_says_the_same() -> None:
    drop = EgressRouting(name="default", on_unassigned=OnUnassigned.DROP)
    view = replace(VIEW, intent=replace(INTENT, egress_routings=(drop,)))

    found = rows(view)["idle/one", "10.128.0.30"]
    assert (found.seen_as, found.why.endswith("with onUnassigned drop nothing leaves")) == (None, True)
    said = explain_pod(view, "idle/one", ip_address("203.0.113.10")).headline
    assert said.endswith("it does not leave, because its EgressRouting says onUnassigned drop")


def test_pods_of_an_advertised_network_are_seen_as_themselves() -> None:
    told = replace(VIEW, rivals=Rivals(advertisements=(Advertisement(name="pods"),)))

    (one,) = unserved(told, ip_address("10.128.0.30")).leaving
    assert (one.pod, one.of) == ("idle/one", "RouteAdvertisements/pods")
    assert str(rows(told)["shop/agent", "192.168.99.21"].seen_as) == "192.168.99.21"


def test_who_has_the_address_of_a_pod_that_has_ended_may_leave_as_its_egress_ip() -> None:
    heir = pod("team", "heir", "10.128.0.20")
    intent = replace(INTENT, pods=(*(one for one in PODS if one is not FAR), replace(FAR, finished=True), heir))

    found = rows(replace(VIEW, intent=intent))["team/heir", "10.128.0.20"]
    assert (str(found.seen_as), found.of) == ("192.168.55.150", "EgressIP/far")
    assert "far/one had its address and has ended" in found.why
    clean = replace(HOST, rules=frozenset())
    assert ("team/heir", "10.128.0.20") not in rows(replace(VIEW, intent=intent, hosts=MappingProxyType({"n1": clean})))


def test_a_pod_that_an_external_route_takes_is_told_with_the_route() -> None:
    route = ExternalRoute(name="gw", namespace_selector=in_namespace("shop"), next_hops=(ip_address("192.168.99.13"),))
    found = rows(replace(VIEW, intent=replace(INTENT, external_routes=(route,))))

    assert found["shop/web", "10.128.0.5"].of == "AdminPolicyBasedExternalRoute/gw"
    assert found["shop/web", "10.128.0.5"].seen_as is None


@pytest.mark.parametrize(
    ("seen", "owner", "pods", "ordinary"),
    [
        ("192.168.99.21", "Node/n1", ["idle/one", "shop/agent"], 0),
        ("192.168.99.22", "Node/n2", ["shop/job"], 1),
        ("192.168.99.150", "EgressIP/prod, on n1", [], 0),
        ("192.168.99.160", "EgressIP/spare, on no node", [], 0),
        ("10.128.0.5", "Pod/shop/web itself, untranslated", [], 0),
        ("198.51.100.1", "", [], 0),
    ],
)
def test_an_address_that_was_seen_has_an_owner_and_pods(seen: str, owner: str, pods: list[str], ordinary: int) -> None:
    found = unserved(VIEW, ip_address(seen))

    assert (found.owner, [one.pod for one in found.leaving], found.ordinary) == (owner, pods, ordinary)


def test_the_text_says_whose_the_address_is_and_what_is_always_so() -> None:
    text = unserved_text(unserved(VIEW, ip_address("192.168.99.22")))

    first = "192.168.99.22 is Node/n2\n1 pod address leaves without the EgressIP of the namespace, 1 of them because"
    assert text.startswith(first)
    assert "1 pod of other namespaces leaves as this node too" in text
    assert "shop/job  10.128.1.9  192.168.99.22 (Node/n2)  the podSelector of EgressIP/prod does not select it" in text
    assert "leaves as the address that was called" in text
    assert json.loads(json.dumps(unserved_document(unserved(VIEW))))["unserved"]["leaving"][0]["pod"] == "idle/one"
