"""The gateway reads the cluster's objects as kubectl prints them: nodes, namespaces, pods, the network, and two kinds
of OVN-Kubernetes.

Whatever else they carry does not matter; what is read must be right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest

from outgate.model.intent import ClusterNetwork, EgressIP, ExternalRoute, Intent
from outgate.model.nics import CloudNic
from outgate.model.selector import EVERYTHING, LabelExpression, LabelSelector, Operator
from outgate.sources.documents import parse
from outgate.sources.dump_cluster import dump_cluster
from outgate.sources.merge import State, merge

SUBNETS = "k8s.ovn.org/node-subnets"


def read(*items: Mapping[str, object]) -> Intent:
    """The intent of these objects, the same from JSON and from YAML."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1).encode()
    from_json, from_yaml = (
        merge({"a": parse(file, start + text)}, State()).intent
        for file, start in (("a.json", b"   \n"), ("a.yaml", b"---\n"))
    )
    assert replace(from_json, refusals=()) == replace(from_yaml, refusals=())
    for one, other in zip(from_json.refusals, from_yaml.refusals, strict=True):
        assert one.origin is not None
        assert other == replace(one, origin=replace(one.origin, file="a.yaml"))
    return from_json


def node(annotations: dict[str, str] | None = None, **parts: object) -> dict[str, object]:
    metadata = {"name": "node-1", "annotations": annotations, "labels": {"a": "b"}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, **parts}


def subnets(intent: Intent) -> list[tuple[str, str, str]]:
    return [(one.network, str(one.prefix), one.source) for one in intent.nodes[0].subnets]


def test_the_annotation_of_a_node_wins_over_its_spec_with_all_networks_and_both_families() -> None:
    annotation = {"default": ["10.128.1.0/24", "fd01:0:0:1::/64"], "blue": "10.200.1.0/24"}
    intent = read(node({SUBNETS: json.dumps(annotation)}, spec={"podCIDRs": ["10.9.0.0/24"]}))

    assert intent.refusals == ()
    assert subnets(intent) == [
        ("default", "10.128.1.0/24", SUBNETS),
        ("default", "fd01:0:0:1::/64", SUBNETS),
        ("blue", "10.200.1.0/24", SUBNETS),
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podCIDR": "10.128.1.0/24", "podCIDRs": ["10.128.1.0/24", "fd01::/64"]}, ["10.128.1.0/24", "fd01::/64"]),
        ({"podCIDR": "10.128.1.0/24"}, ["10.128.1.0/24"]),
        ({}, []),
        (None, []),
    ],
)
def test_without_annotation_a_node_has_the_subnets_of_its_spec(
    spec: dict[str, object] | None, expected: list[str]
) -> None:
    intent = read(node(spec=spec))

    assert subnets(intent) == [("default", cidr, "spec.podCIDRs") for cidr in expected]


@pytest.mark.parametrize("annotation", ["", "10.128.0.0/24", "[1]", '{"default": [1]}', '{"default": "10.0.0.1/8"}'])
def test_an_annotation_that_can_not_be_read_is_refused_and_not_passed_over(annotation: str) -> None:
    intent = read(node({SUBNETS: annotation}, spec={"podCIDRs": ["10.9.0.0/24"]}))

    (finding,) = intent.refusals
    assert intent.nodes == ()
    assert finding.about == "Node/node-1"
    assert finding.origin is not None
    assert finding.origin.field == f"metadata.annotations[{SUBNETS}]"


def test_a_node_has_internal_addresses_of_both_families_and_may_not_be_ready() -> None:
    status = {
        "addresses": [
            {"type": "Hostname", "address": "node-1"},
            {"type": "InternalIP", "address": "192.168.99.21"},
            {"type": "InternalIP", "address": "fd99::21"},
            {"type": "ExternalIP", "address": "203.0.113.7"},
        ],
        "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "Unknown"}],
    }

    (found,) = read(node(status=status)).nodes

    assert found.internal_ips == (IPv4Address("192.168.99.21"), IPv6Address("fd99::21"))
    assert not found.ready
    assert read(node()).nodes[0].ready


def test_a_namespace_carries_its_name_as_a_label_even_where_nobody_wrote_it() -> None:
    plain = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns-blue", "labels": {"team": "b"}}}

    (found,) = read(plain).namespaces

    assert found.labels == (("kubernetes.io/metadata.name", "ns-blue"), ("team", "b"))


def pod(name: str, spec: object = None, status: object = None) -> dict[str, object]:
    metadata = {"name": name, "namespace": "ns-blue", "labels": None}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def test_pods_have_addresses_only_once_they_have_them_and_the_finished_are_marked() -> None:
    intent = read(
        pod("a"),
        pod("b", {"nodeName": "node-1", "hostNetwork": True}, {"phase": "Running", "podIP": "192.168.99.21"}),
        pod("c", {}, {"phase": "Succeeded", "podIPs": [{"ip": "10.128.0.5"}]}),
        pod("d", {"hostNetwork": False}, {"phase": "Failed", "podIPs": []}),
        pod("e", {"nodeName": None}, {"podIP": "", "podIPs": [{"ip": ""}, {}]}),
    )

    assert intent.refusals == ()
    assert [(one.name, len(one.addresses), one.host_network, one.finished) for one in intent.pods] == [
        ("a", 0, False, False),
        ("b", 1, True, False),
        ("c", 1, False, True),
        ("d", 0, False, True),
        ("e", 0, False, False),
    ]


def test_a_pod_without_namespace_or_with_an_impossible_name_is_refused() -> None:
    nameless = pod("a") | {"metadata": {"name": "a"}}
    hostile = pod("a") | {"metadata": {"name": "$(id)\x1b[2J", "namespace": "ns-blue"}}

    intent = read(nameless, hostile)

    assert intent.pods == ()
    assert [one.origin.field if one.origin else "" for one in intent.refusals] == [
        "metadata.namespace",
        "metadata.name",
    ]
    assert all((one.text + str(one.origin)).isprintable() for one in intent.refusals)


def network(name: str = "cluster", **parts: object) -> dict[str, object]:
    return {"apiVersion": "config.openshift.io/v1", "kind": "Network", "metadata": {"name": name}, **parts}


def test_the_network_is_what_is_before_what_was_asked_for() -> None:
    asked = {"clusterNetwork": [{"cidr": "10.128.0.0/14", "hostPrefix": 23}], "serviceNetwork": ["172.30.0.0/16"]}
    real = {"clusterNetwork": [{"cidr": "10.132.0.0/14"}, {"cidr": "fd01::/48"}], "serviceNetwork": ["172.31.0.0/16"]}

    assert read(network(spec=asked)).network == ClusterNetwork(
        cluster_networks=(IPv4Network("10.128.0.0/14"),), service_networks=(IPv4Network("172.30.0.0/16"),)
    )
    assert read(network(spec=asked, status=real)).network == ClusterNetwork(
        cluster_networks=(IPv4Network("10.132.0.0/14"), IPv6Network("fd01::/48")),
        service_networks=(IPv4Network("172.31.0.0/16"),),
    )


def test_the_operators_network_is_another_kind_and_a_second_network_is_told() -> None:
    spec = {"clusterNetwork": [{"cidr": "10.128.0.0/14"}]}
    operators = network(spec=spec) | {"apiVersion": "operator.openshift.io/v1"}

    intent = read(operators, network("another", spec={"clusterNetwork": [{"cidr": "10.0.0.0/8"}]}), network(spec=spec))

    assert intent.network is not None
    assert intent.network.cluster_networks == (IPv4Network("10.128.0.0/14"),)
    assert [(one.reason, one.about) for one in intent.refusals] == [
        ("KindIgnored", "Network/cluster"),
        ("KindIgnored", "Network/another"),
    ]


def test_a_network_without_networks_is_refused() -> None:
    (finding,) = read(network(spec={})).refusals

    assert "names no cluster network" in finding.text


EVERYWHERE = LabelSelector(expressions=(LabelExpression("kubernetes.io/metadata.name", Operator.EXISTS),))


def test_external_routes_and_egress_ips_are_read_and_their_empty_selector_means_everything() -> None:
    route = {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": "AdminPolicyBasedExternalRoute",
        "metadata": {"name": "blue"},
        "spec": {
            "from": {"namespaceSelector": {"matchLabels": {"team": "blue"}}},
            "nextHops": {"static": [{"ip": "192.168.99.13", "bfdEnabled": True}, {"ip": "fd99::13"}], "dynamic": []},
        },
    }
    egress_ip = {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": "EgressIP",
        "metadata": {"name": "all"},
        "spec": {"egressIPs": ["192.168.55.9"], "namespaceSelector": {}, "podSelector": {}},
    }

    intent = read(route, egress_ip)

    assert intent.external_routes == (
        ExternalRoute(
            name="blue",
            namespace_selector=LabelSelector((("team", "blue"),)),
            next_hops=(ip_address("192.168.99.13"), ip_address("fd99::13")),
        ),
    )
    assert intent.egress_ips == (
        EgressIP(name="all", egress_ips=(ip_address("192.168.55.9"),), namespace_selector=EVERYWHERE),
    )
    assert EVERYWHERE.matches((("kubernetes.io/metadata.name", "ns-blue"),))


def test_expressions_of_the_cluster_are_the_models() -> None:
    expressions = [
        {"key": "team", "operator": "NotIn", "values": ["red"]},
        {"key": "team", "operator": "Exists", "values": None},
    ]
    egress_ip = {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": "EgressIP",
        "metadata": {"name": "some"},
        "spec": {"egressIPs": [], "namespaceSelector": {"matchExpressions": expressions}},
    }

    assert read(egress_ip).egress_ips[0].namespace_selector == LabelSelector(
        (), (LabelExpression("team", Operator.NOT_IN, ("red",)), LabelExpression("team", Operator.EXISTS))
    )


@pytest.mark.parametrize(
    ("item", "field", "text"),
    [
        (pod("a") | {"metadata": {"name": 5}}, "metadata.name", "expected a string; found the number 5"),
        (pod("a") | {"metadata": {}}, "metadata", "object missing required field name"),
        (pod("a", [], {}), "spec", "expected a mapping; found an empty list"),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b", "c": True}}},
            "metadata.labels[c]",
            "expected a string; found the boolean true",
        ),
        (
            node(status={"addresses": [{"type": "InternalIP", "address": "192.168.99.021"}]}),
            "status.addresses[0].address",
            '"192.168.99.021" is no IP address',
        ),
    ],
)
def test_what_no_api_server_would_say_is_refused_with_its_place(
    item: Mapping[str, object], field: str, text: str
) -> None:
    (finding,) = read(item).refusals

    assert finding.text == text
    assert finding.origin is not None
    assert finding.origin.field == field
    assert finding.origin.line > 0


def test_addresses_are_the_models_own_values() -> None:
    (found,) = read(pod("a", {}, {"podIPs": [{"ip": "10.128.0.5"}, {"ip": "fd01::5"}]})).pods

    assert found.addresses == (ip_address("10.128.0.5"), ip_address("fd01::5"))
    assert [ip_network(one).prefixlen for one in found.addresses] == [32, 128]


def of_nodes(selector: object, created: str = "2026-01-01T00:00:00Z") -> dict[str, object]:
    spec = {"egressIPs": ["192.168.55.9"], "namespaceSelector": {}, "egressNodeSelector": selector}
    metadata = {"name": "picky", "creationTimestamp": created}
    return {"apiVersion": "k8s.ovn.org/v1", "kind": "EgressIP", "metadata": metadata, "spec": spec}


LABEL = "k8s.ovn.org/egress-assignable"


@pytest.mark.parametrize(
    ("written", "selector"),
    [
        (None, None),
        ({"matchExpressions": [{"key": LABEL, "operator": "Exists"}]}, None),  # what the server fills in
        ({}, EVERYTHING),
        ({"matchLabels": {"zone": "dmz"}}, LabelSelector((("zone", "dmz"),))),
        (
            {"matchExpressions": [{"key": LABEL, "operator": "In", "values": ["blue"]}]},
            LabelSelector((), (LabelExpression(LABEL, Operator.IN, ("blue",)),)),
        ),
    ],
)
def test_an_egress_ip_says_which_nodes_it_wants_and_how_old_it_is(
    written: object, selector: LabelSelector | None
) -> None:
    intent = read(of_nodes(written))

    (found,) = intent.egress_ips
    assert (found.node_selector, found.created) == (selector, "2026-01-01T00:00:00Z")
    assert read(*dump_cluster(intent)).egress_ips == intent.egress_ips


def test_an_empty_selector_of_nodes_selects_any_node() -> None:
    assert EVERYTHING.matches(())
    assert EVERYTHING.matches((("zone", "dmz"),))


CLOUD = "cloud.network.openshift.io/egress-ipconfig"


@pytest.mark.parametrize(
    ("annotation", "cloud"),
    [
        (
            '[{"interface": "eni-1", "ifaddr": {"ipv4": "10.0.128.0/20"}, "capacity": {"ipv4": 14, "ipv6": 15}}]',
            CloudNic(networks=(ip_network("10.0.128.0/20"),), by_version=((4, 14), (6, 15))),
        ),
        (
            '[{"interface": "nic0", "ifaddr": {"ipv4": "10.0.2.0/23", "ipv6": "fd00::/64"}, "capacity": {"ip": 10}}]',
            CloudNic(networks=(ip_network("10.0.2.0/23"), ip_network("fd00::/64")), capacity=10),
        ),
        ('[{"ifaddr": {"ipv4": "10.0.2.7/23"}}]', CloudNic(networks=(ip_network("10.0.2.0/23"),))),
        ("[]", None),
        ("nothing that can be read", None),
    ],
)
def test_a_cloud_says_what_a_node_may_have(annotation: str, cloud: CloudNic | None) -> None:
    intent = read(node({CLOUD: annotation}))

    (found,) = intent.nodes
    assert found.cloud == cloud
    assert found.labels == (("a", "b"),)
    assert read(*dump_cluster(intent)).nodes == intent.nodes
