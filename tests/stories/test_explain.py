"""Somebody asks at night why a pod's packets leave as they do, or do not leave. The cluster is that of the stories.

pods 10.132.0.0/14 and fd01::/48, nodes 192.168.99.0/24 and fd99::/64, egress 192.168.55.0/24 and fd55::/64,
outside 203.0.113.0/24 and 2001:db8:113::/64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.errors import IntentError
from outgate.model.intent import DestinationRule, EgressIP, ExternalRoute, InnerInterface, Intent, Pod
from outgate.model.ledger import Ledger
from outgate.model.net import LinkAddress
from outgate.model.nics import GatewayMode
from outgate.model.ruleset import Element, Table
from outgate.model.selector import LabelExpression, LabelSelector, Operator
from outgate.model.state import Facts, Moment, Resource, Snapshot
from outgate.plan.allocate import allocate
from outgate.plan.gateway import plan
from outgate.trace.explain import Explanation, Standing, explain
from outgate.trace.question import PodName, Target, parse_question, parse_target
from outgate.trace.steps import Disposition
from outgate.trace.world import World, world_of_actual
from tests.stories.cluster import (
    BLUE,
    CLUSTER,
    DIGEST,
    ENP1S0,
    GATEWAY,
    GREEN_BY_SOURCE,
    MACHINE,
    NOW_S,
    RED,
    desired,
    in_namespace,
    pod,
    probed,
)

GREEN_TOO = replace(CLUSTER, tenants=(BLUE, GREEN_BY_SOURCE, RED))
SHARED = ip_address("192.168.99.11")


def asked(
    *words: str,
    intent: Intent = CLUSTER,
    facts: Facts = MACHINE,
    found: Callable[[Resource], bool] | None = None,
) -> Explanation:
    """Ask on a gateway whose addresses are all held; `found` says which wanted resources the kernel still has."""
    snapshot = Snapshot(intent=intent, facts=facts, ledger=probed(Ledger(), intent, facts), gateway="gw1")
    wanted = desired(intent, facts)
    actual: World | None = None
    if found is not None:
        actual = world_of_actual(frozenset(r for r in wanted.wants if found(r)), facts, DIGEST)
    return explain(snapshot, wanted, parse_question(*words), actual)


def with_pods(*pods: Pod) -> Intent:
    return replace(CLUSTER, pods=(*CLUSTER.pods, *pods))


def test_the_first_line_is_the_decision() -> None:
    told = asked("ns-blue/app-0", "203.0.113.9")
    expected = "ns-blue/app-0 (10.132.0.5, node n1) to 203.0.113.9: leaves gw1 by enp7s0 as 192.168.55.113"
    assert (told.headline, told.standing) == (expected, Standing.FINE)


def test_the_external_route_says_how_the_packet_comes_and_the_mark_says_whose_it_is() -> None:
    (answer,) = asked("ns-blue/app-0", "203.0.113.9").answers
    assert answer.approach.text == (
        "by AdminPolicyBasedExternalRoute/blue: next hop 192.168.99.13, the next hop of EgressTenant/ns-blue"
    )
    assert answer.approach.cites == ("AdminPolicyBasedExternalRoute/blue",)
    assert answer.tenant == "ns-blue"


def test_without_a_destination_both_families_are_answered_for_anywhere_outside() -> None:
    told = asked("ns-blue/app-0")
    assert [answer.headline for answer in told.answers] == [
        "ns-blue/app-0 (10.132.0.5, node n1) to anywhere outside: leaves gw1 by enp7s0 as 192.168.55.113",
        "ns-blue/app-0 (fd01:0:0:1::5, node n1) to anywhere outside: leaves gw1 by enp7s0 as fd55::113",
    ]


def test_without_a_destination_those_that_are_treated_apart_are_listed() -> None:
    rule = DestinationRule(cidrs=(ip_network("203.0.113.0/24"),), egress_ips=(ip_address("192.168.55.115"),))
    (answer, _) = asked(
        "ns-blue/app-0", intent=replace(CLUSTER, tenants=(replace(BLUE, destinations=(rule,)),))
    ).answers
    assert [(str(special.destinations), str(special.leaves_as)) for special in answer.specials] == [
        ("203.0.113.0-203.0.113.255", "192.168.55.115")
    ]
    assert answer.walked_to not in ip_network("203.0.113.0/24")


def test_a_bare_address_is_the_pod_that_has_it() -> None:
    told = asked("10.132.0.5", "203.0.113.9")
    assert told.headline.startswith("ns-blue/app-0 (10.132.0.5, node n1) to 203.0.113.9: leaves gw1")


def test_an_address_that_no_pod_has_is_a_stranger_on_the_inner_nic() -> None:
    told = asked("10.132.0.99", "203.0.113.9")
    assert told.subject is not None
    assert (told.subject.node_name, told.subject.pod) == ("n1", None)
    assert told.answers[0].wanted.disposition is Disposition.REJECTED


def test_a_next_hop_may_be_taken_for_granted() -> None:
    assert asked("10.132.0.99", "203.0.113.9", "192.168.99.14").answers[0].tenant == "ns-red"


def test_a_pod_of_no_tenant_is_not_sent_here_and_the_nearest_selectors_name_their_label() -> None:
    told = asked("ns-green/app-0", "203.0.113.9")
    assert told.standing is Standing.FINE
    assert told.headline.endswith("is not sent to gw1: no AdminPolicyBasedExternalRoute selects its namespace")
    assert told.answers[0].wanted.disposition is Disposition.REJECTED
    assert ("ns-red", "namespace ns-green has kubernetes.io/metadata.name=ns-green, the selector wants ns-red") in {
        (miss.tenant, miss.text) for miss in told.misses
    }


def test_a_selector_that_wants_the_namespace_but_not_the_pod_names_the_pods_label() -> None:
    web = LabelSelector(
        match_labels=(("app", "web"),),
        expressions=(LabelExpression("tier", Operator.EXISTS), LabelExpression("app", Operator.IN, ("web", "api"))),
    )
    picky = replace(RED, name="ns-blue-web", namespace_selector=in_namespace("ns-blue"), pod_selector=web)
    told = asked("ns-blue/app-0", "203.0.113.9", intent=replace(CLUSTER, tenants=(BLUE, picky)))
    (miss,) = told.misses
    assert miss.tenant == "ns-blue-web"
    assert miss.text.split("; ") == [
        "pod app-0 has no label app, the selector wants web",
        "pod app-0 has no label tier, the selector wants it",
        "pod app-0 has no label app, the selector wants one of web, api",
    ]


def test_a_tenant_by_source_whose_pods_come_by_a_shared_next_hop() -> None:
    route = ExternalRoute(name="green", namespace_selector=in_namespace("ns-green"), next_hops=(SHARED,))
    inner = InnerInterface(interface=ENP1S0, shared_next_hops=(SHARED,))
    intent = replace(GREEN_TOO, gateways=(replace(GATEWAY, inner=(inner,)),), external_routes=(route,))
    told = asked("ns-green/app-0", "203.0.113.9", intent=intent)
    (answer,) = told.answers
    assert told.standing is Standing.FINE
    assert (answer.wanted.packet.incoming, answer.tenant) == (ENP1S0, "ns-green")
    assert "shared by source-identity tenants on enp1s0" in answer.approach.text


def test_a_tenant_that_selects_a_pod_whose_packets_are_sent_elsewhere_is_a_fault() -> None:
    told = asked("ns-green/app-0", "203.0.113.9", intent=GREEN_TOO)
    assert told.standing is Standing.DEGRADED
    assert "EgressTenant/ns-green selects it by its source" in told.headline


def test_an_external_route_to_nobodys_next_hop_leads_nowhere() -> None:
    lost = ExternalRoute(
        name="blue", namespace_selector=in_namespace("ns-blue"), next_hops=(ip_address("192.168.99.99"),)
    )
    told = asked("ns-blue/app-0", "203.0.113.9", intent=replace(CLUSTER, external_routes=(lost,)))
    assert told.standing is Standing.DEGRADED
    assert told.headline.endswith("does not leave: nobody here answers for the next hop 192.168.99.99")
    assert "nobody's on gw1" in told.answers[0].approach.text
    assert "NoExternalRoute" in {finding.reason for finding in told.findings}


def test_a_family_without_next_hop_leaves_by_the_node_itself() -> None:
    told = asked("ns-red/app-0", "2001:db8:113::9")
    assert "is not sent to gw1: AdminPolicyBasedExternalRoute/red has no IPv6 next hop" in told.headline


def test_where_nobody_told_us_of_external_routes_the_tenant_that_selects_the_pod_is_believed() -> None:
    told = asked("ns-blue/app-0", "203.0.113.9", intent=replace(CLUSTER, external_routes=()))
    assert told.standing is Standing.FINE
    assert told.answers[0].wanted.leaves_as == ip_address("192.168.55.113")


def test_a_refused_tenant_is_named_with_its_finding() -> None:
    greedy = replace(RED, egress_ips=BLUE.egress_ips)
    told = asked("ns-red/app-0", "203.0.113.9", intent=replace(CLUSTER, tenants=(BLUE, greedy)))
    assert told.answers[0].wanted.disposition is Disposition.NOT_RECEIVED
    assert told.notes[0] == "EgressTenant/ns-red is refused (AddressTaken), so its packets go nowhere"
    assert [finding.reason for finding in told.findings] == ["AddressTaken"]


def test_a_tenant_whose_addresses_are_being_probed_says_so() -> None:
    snapshot = Snapshot(intent=CLUSTER, facts=MACHINE, ledger=Ledger(), gateway="gw1")
    snapshot = replace(snapshot, ledger=allocate(snapshot, GATEWAY, Moment(now_s=NOW_S))[0])
    told = explain(snapshot, plan(snapshot, DIGEST), parse_question("ns-red/app-0", "203.0.113.9"))
    assert told.notes[0].startswith("EgressTenant/ns-red waits until nobody answers for 192.168.55.114, 192.168.99.14")


def test_findings_about_node_gateway_and_tenant_come_along_and_others_do_not() -> None:
    intent = replace(CLUSTER, nodes=tuple(replace(node, ready=False) for node in CLUSTER.nodes))
    told = asked("ns-blue/app-0", "203.0.113.9", intent=intent)
    assert {(finding.about, finding.reason) for finding in told.findings} == {("Node/n1", "NodeNotReady")}


BLUE_BY_ROUTE = ExternalRoute(
    name="blue", namespace_selector=in_namespace("ns-blue"), next_hops=(ip_address("192.168.99.21"),)
)


@pytest.mark.parametrize(
    ("mode", "node", "routes", "said"),
    [
        (GatewayMode.LOCAL, "n2", (BLUE_BY_ROUTE,), "AdminPolicyBasedExternalRoute/blue wins over it"),
        (GatewayMode.SHARED, "n1", (BLUE_BY_ROUTE,), "AdminPolicyBasedExternalRoute/blue wins over it"),
        (GatewayMode.SHARED, "n2", (BLUE_BY_ROUTE,), "it wins: the packets leave by n2, not here"),
        (GatewayMode.SHARED, "n2", (), "without an AdminPolicyBasedExternalRoute its packets leave by n2"),
    ],
)
def test_an_egress_ip_that_selects_the_pod_too_is_noted_with_who_wins(
    mode: GatewayMode, node: str, routes: tuple[ExternalRoute, ...], said: str
) -> None:
    address = ip_address("192.168.99.150")
    rival = EgressIP(
        name="foo", egress_ips=(address,), namespace_selector=in_namespace("ns-blue"), assigned=((node, address),)
    )
    nodes = tuple(replace(one, mode=mode) for one in CLUSTER.nodes)
    intent = replace(CLUSTER, nodes=nodes, egress_ips=(rival,), external_routes=routes)
    told = asked("ns-blue/app-0", "203.0.113.9", intent=intent)
    assert any(note.startswith("EgressIP/foo selects it too") and said in note for note in told.notes)
    other = replace(rival, pod_selector=LabelSelector(match_labels=(("app", "other"),)))
    told = asked("ns-blue/app-0", intent=replace(intent, egress_ips=(other,)))
    assert not any("EgressIP/foo" in note for note in told.notes)


@pytest.mark.parametrize(
    ("special", "said"),
    [
        ({"host_network": True}, "runs in its node's network"),
        ({"finished": True}, "has finished"),
        ({"addresses": ()}, "has no address yet"),
    ],
)
def test_pods_that_no_tenant_can_select_are_said_to_be_so(special: dict[str, object], said: str) -> None:
    odd = replace(pod("ns-blue", "odd-0", "192.168.99.21"), **special)  # type: ignore[arg-type]
    told = asked("ns-blue/odd-0", "203.0.113.9", intent=with_pods(odd))
    assert said in told.headline
    assert told.answers == ()


def test_a_pod_without_the_family_of_the_destination_can_not_reach_it() -> None:
    told = asked("ns-blue/four-0", "2001:db8:113::9", intent=with_pods(pod("ns-blue", "four-0", "10.132.0.44")))
    assert told.headline == ("ns-blue/four-0 (10.132.0.44, node n1): has no IPv6 address to reach 2001:db8:113::9 from")


def test_an_unknown_pod_is_answered_with_the_nearest_names() -> None:
    told = asked("ns-blu/app0")
    assert told.standing is Standing.UNKNOWN
    assert told.headline == "there is no pod ns-blu/app0; did you mean ns-blue/app-0?"
    assert told.nearest == ("ns-blue/app-0", "ns-blue/app-1")


def test_a_machine_without_gateway_says_so() -> None:
    snapshot = Snapshot(intent=replace(CLUSTER, gateways=()), facts=MACHINE, ledger=Ledger(), gateway="")
    told = explain(snapshot, plan(snapshot, DIGEST), parse_question("ns-blue/app-0"))
    assert told.standing is Standing.DEGRADED
    assert told.headline.endswith("there is no EgressGateway for this machine")


def test_the_kernel_agrees_when_it_holds_what_is_wanted() -> None:
    (answer,) = asked("ns-blue/app-0", "203.0.113.9", found=lambda _: True).answers
    assert (answer.agrees, answer.parting) == (True, "")


def test_what_happens_now_comes_first_where_the_kernel_does_otherwise() -> None:
    told = asked("ns-blue/app-0", "203.0.113.9", found=lambda r: not isinstance(r, Table))
    (answer,) = told.answers
    assert told.standing is Standing.DEGRADED
    assert answer.agrees is False
    assert ": is rejected by gw1: the table is missing, and " in told.headline
    assert told.headline.endswith("Wanted: leaves gw1 by enp7s0 as 192.168.55.113")
    assert answer.parting.startswith(
        "wanted (identity): mark 0x100; found (identity): the table inet outgate is not there"
    )


def test_answers_that_would_be_lost_are_part_of_the_decision() -> None:
    gone = ip_address("192.168.55.113")
    told = asked("ns-blue/app-0", "203.0.113.9", found=lambda r: not (isinstance(r, LinkAddress) and r.address == gone))
    assert told.standing is Standing.DEGRADED
    assert "and answers are lost: no link has 192.168.55.113" in told.headline


def test_what_the_kernel_holds_is_explained_with_the_reasons_of_the_plan() -> None:
    told = asked("ns-blue/app-0", "203.0.113.9", found=lambda r: not (isinstance(r, Element) and r.set == "own4"))
    actual = told.answers[0].actual
    assert actual is not None
    assert actual.disposition is Disposition.DROPPED
    assert {step.because.text for step in actual.steps if step.because} >= {"ns-blue leaves as 192.168.55.113"}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("203.0.113.9", Target(address=ip_address("203.0.113.9"))),
        ("203.0.113.9:443", Target(address=ip_address("203.0.113.9"), port=443)),
        ("203.0.113.9:53/UDP", Target(address=ip_address("203.0.113.9"), port=53, protocol="udp")),
        ("203.0.113.9/icmp", Target(address=ip_address("203.0.113.9"), protocol="icmp")),
        ("2001:db8::9", Target(address=ip_address("2001:db8::9"))),
        ("[2001:db8::9]:443/tcp", Target(address=ip_address("2001:db8::9"), port=443, protocol="tcp")),
    ],
)
def test_a_destination_is_written_as_people_write_it_and_reads_back_the_same(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    "text",
    ["host", "203.0.113.9:0", "203.0.113.9:x", "203.0.113.9:70000", "203.0.113.9/http", "[2001:db8::9", "", "1.2.3.4/"],
)
def test_a_destination_that_is_none_is_refused_with_the_form_that_was_expected(text: str) -> None:
    with pytest.raises(IntentError, match=r"write IP\[:PORT\]\[/PROTO\]"):
        parse_target(text)


def test_a_subject_is_a_pod_or_an_address() -> None:
    assert parse_question("ns-blue/app-0").subject == PodName(namespace="ns-blue", name="app-0")
    assert parse_question("fd01::5").subject == ip_address("fd01::5")
    for wrong in ("app-0", "ns-blue/", "a/b/c"):
        with pytest.raises(IntentError, match="write NAMESPACE/POD"):
            parse_question(wrong)
