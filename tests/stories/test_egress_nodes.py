"""What a node has to do for egress IPs is decided for the whole cluster, and the node says what it lacks."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from types import MappingProxyType

from outgate.model.host_table import EGRESS_IP_PRIORITY, HostTables
from outgate.model.intent import AssignedPod, Assignment, Condition, EgressIP, EgressNode, Intent, Namespace, Node, Pod
from outgate.model.net import Link, LinkName, OnLink, Route, Rule, TableId
from outgate.model.selector import LabelSelector
from outgate.plan.egress_nodes import egress_nodes
from outgate.plan.host_table import condition_of, examine, unserved
from outgate.sources.kube.kinds import CLUSTER, of_node

ETH1, BR_EX = LinkName("eth1"), LinkName("br-ex")
TEAM, APP = LabelSelector(match_labels=(("team", "red"),)), LabelSelector(match_labels=(("app", "web"),))
HOST = HostTables(
    links=MappingProxyType({ETH1: Link(name=ETH1, index=5), BR_EX: Link(name=BR_EX, index=2)}),
    routes=frozenset(
        {
            Route(dst=ip_network("10.10.10.0/24"), hop=OnLink(link=ETH1)),
            Route(dst=ip_network("192.168.1.0/24"), hop=OnLink(link=BR_EX)),
            Route(dst=ip_network("0.0.0.0/0"), hop=OnLink(link=BR_EX)),
        }
    ),
    rules=frozenset(),
)
PRIMARY = (ip_interface("192.168.1.2/24").network,)


def pod(namespace: str, name: str, node: str, *addresses: str, app: str = "web", host_network: bool = False) -> Pod:
    return Pod(
        namespace=namespace,
        name=name,
        node=node,
        addresses=tuple(map(ip_address, addresses)),
        labels=(("app", app),),
        host_network=host_network,
    )


def cluster() -> Intent:
    return Intent(
        nodes=(Node(name="n1"), Node(name="n2")),
        namespaces=(Namespace(name="red", labels=(("team", "red"),)), Namespace(name="blue")),
        pods=(
            pod("red", "b", "n2", "10.244.1.5", "fd01::5"),
            pod("red", "a", "n1", "10.244.0.5"),
            pod("red", "job", "n1", "10.244.0.6", app="job"),
            pod("red", "agent", "n1", "192.168.1.2", host_network=True),
            pod("blue", "c", "n1", "10.244.0.7"),
        ),
        egress_ips=(
            EgressIP(
                name="prod",
                egress_ips=(ip_address("10.10.10.100"), ip_address("fd10::100")),
                namespace_selector=TEAM,
                pod_selector=APP,
                assigned=(("n1", ip_address("10.10.10.100")), ("n2", ip_address("fd10::100"))),
            ),
            EgressIP(name="idle", egress_ips=(ip_address("10.10.10.101"),), namespace_selector=TEAM),
        ),
    )


def test_a_node_is_told_of_its_egress_ips_and_of_their_pods_on_all_nodes() -> None:
    found = egress_nodes(cluster())

    assert list(found) == ["n1", "n2"]
    (four,), (six,) = found["n1"].assignments, found["n2"].assignments
    assert (four.egress_ip, str(four.address)) == ("prod", "10.10.10.100")
    assert [(one.namespace, one.name, *map(str, one.addresses)) for one in four.pods] == [
        ("red", "a", "10.244.0.5"),
        ("red", "b", "10.244.1.5"),
    ]
    assert [(one.name, *map(str, one.addresses)) for one in six.pods] == [("b", "fd01::5")]


def test_a_pod_that_two_egress_ips_on_nodes_select_is_told_to_both_as_contested() -> None:
    apart = EgressIP(name="qa", egress_ips=(ip_address("10.10.10.7"),), namespace_selector=TEAM)
    there = replace(apart, assigned=(("n2", ip_address("10.10.10.7")),))

    def contested(intent: Intent) -> set[tuple[str, str, str]]:
        return {
            (node, one.egress_ip, pod.name)
            for node, told in egress_nodes(intent).items()
            for one in told.assignments
            for pod in one.pods
            if pod.contested
        }

    assert contested(replace(cluster(), egress_ips=(*cluster().egress_ips, apart))) == set()
    assert contested(replace(cluster(), egress_ips=(*cluster().egress_ips, there))) == {
        ("n1", "prod", "a"),
        ("n1", "prod", "b"),
        ("n2", "prod", "b"),
        ("n2", "qa", "a"),
        ("n2", "qa", "b"),
    }


def test_a_node_whose_last_egress_ip_went_is_told_that_and_one_that_is_gone_is_not_told() -> None:
    before = (EgressNode(name="n1"), EgressNode(name="n9"))

    found = egress_nodes(replace(cluster(), egress_ips=(), egress_nodes=before))

    assert dict(found) == {"n1": EgressNode(name="n1")}


def test_pods_are_read_only_while_an_egress_ip_is_on_a_node() -> None:
    assert CLUSTER.pods_when is not None
    assert CLUSTER.pods_when(cluster(), "")
    assert not CLUSTER.pods_when(replace(cluster(), egress_ips=cluster().egress_ips[1:]), "")


def test_the_role_on_a_node_reads_its_own_objects_alone() -> None:
    kinds = of_node("n1")

    assert {one.kind: one.field_selector for one in kinds.always} == {
        "Node": "metadata.name=n1",
        "EgressNode": "metadata.name=n1",
    }
    assert kinds.pods_when is None


def assigned(address: str, *pods: str) -> EgressNode:
    served = tuple(
        AssignedPod(namespace="red", name=f"p{number}", addresses=(ip_address(one),)) for number, one in enumerate(pods)
    )
    return EgressNode(name="n1", assignments=(Assignment(egress_ip="prod", address=ip_address(address), pods=served),))


def rule(source: str, table: int) -> Rule:
    return Rule(priority=EGRESS_IP_PRIORITY, version=4, action=TableId(table), src=ip_network(source))


def test_a_pod_without_its_rule_and_a_rule_without_its_pod_are_told() -> None:
    host = replace(HOST, rules=frozenset({rule("10.244.0.5/32", 1005), rule("10.244.0.9/32", 1005)}))

    found = unserved(host, assigned("10.10.10.100", "10.244.0.5", "10.244.1.5"), PRIMARY)

    assert [(one.reason, one.about) for one in found] == [
        ("PodWithoutRule", "Pod/red/p1"),
        ("RuleOfNobody", "table 1005"),
    ]
    assert "no rule sends its packets to table 1005" in found[0].text


def test_a_pod_that_another_egress_ip_may_serve_is_not_said_to_lack_a_rule() -> None:
    node = assigned("10.10.10.100", "10.244.0.5")
    (one,) = node.assignments
    contested = replace(one, pods=tuple(replace(pod, contested=True) for pod in one.pods))

    assert [each.reason for each in unserved(HOST, node, PRIMARY)] == ["PodWithoutRule"]
    assert unserved(HOST, replace(node, assignments=(contested,)), PRIMARY) == ()
    ruled = replace(HOST, rules=frozenset({rule("10.244.0.5/32", 1005)}))
    assert unserved(ruled, replace(node, assignments=(contested,)), PRIMARY) == ()


def test_a_nic_in_a_vrf_is_held_against_the_table_of_the_vrf() -> None:
    red = TableId(100)
    routes = {replace(one, table=red) if one.hop == OnLink(link=ETH1) else one for one in HOST.routes}
    more = Route(dst=ip_network("10.20.0.0/16"), hop=OnLink(link=ETH1), table=red)
    copies = {replace(one, table=TableId(1005)) for one in routes if one.table == red}
    host = replace(
        HOST,
        links=MappingProxyType({**HOST.links, ETH1: Link(name=ETH1, index=5, table=red)}),
        routes=frozenset({*routes, *copies, more}),
        rules=frozenset({rule("10.244.0.5/32", 1005)}),
    )

    assert unserved(host, assigned("10.10.10.100", "10.244.0.5"), PRIMARY) == ()
    (table,) = examine(host)
    assert [one.reason for one in table.findings] == ["RouteNotCopied"]
    assert "10.20.0.0/16" in table.findings[0].text
    (before,) = examine(replace(host, routes=host.routes - {more}))
    assert before.findings == ()


def test_an_egress_ip_in_the_primary_network_is_no_business_of_the_host() -> None:
    assert unserved(HOST, assigned("192.168.1.100", "10.244.0.5"), PRIMARY) == ()


def test_an_egress_ip_that_no_nic_can_have_is_told() -> None:
    (found,) = unserved(HOST, assigned("172.16.5.100", "10.244.0.5"), PRIMARY)

    assert (found.reason, found.about) == ("SourceNotOnLink", "EgressIP/prod")


def test_a_condition_keeps_its_time_while_its_value_stays_and_names_some_of_many() -> None:
    pods = [f"10.244.0.{number}" for number in range(10, 20)]
    found = unserved(HOST, assigned("10.10.10.100", *pods), PRIMARY)

    first = condition_of(found, EgressNode(name="n1"))
    assert (first.holds, first.reason, first.since) == (False, "PodWithoutRule", "")
    assert first.message.endswith("; and 5 more")
    stands = EgressNode(name="n1", conditions=(replace(first, since="2026-01-01T00:00:00Z"),))
    assert condition_of(found[:1], stands).since == "2026-01-01T00:00:00Z"
    well = condition_of((), stands)
    assert (well.holds, well.reason, well.since) == (True, "AsExpected", "")
    assert well == Condition(type="TablesAgree", holds=True, reason="AsExpected", message=well.message)
