"""An engineer goes on with the script's runbook: add-tenant for ns-blue and ns-red, remove-tenant when they go.

next hops 192.168.99.13 and .14 on enp1s0, egress IPs 192.168.55.113 and .114 on enp7s0, pods 10.128.0.0/14; the
manifests are in a directory of the test's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from outgate.cli.main import FAILED, FINE, run
from outgate.model.intent import InnerInterface, Intent, NextHopIdentity, SourceCheck
from outgate.model.net import LinkName
from outgate.sources.manifests import check

ENP1S0, ENP7S0 = LinkName("enp1s0"), LinkName("enp7s0")
BLUE = {
    "--name": "ns-blue",
    "--gw-ip": "192.168.99.13",
    "--egress-ip": "192.168.55.113",
    "--mark": "10",
    "--dev": "enp1s0",
    "--out-dev": "enp7s0",
    "--pod-cidr": "10.128.0.0/14",
}
RED = {**BLUE, "--name": "ns-red", "--gw-ip": "192.168.99.14", "--egress-ip": "192.168.55.114", "--mark": "20"}


def gateway(verb: str, words: dict[str, str], place: Path, *more: str) -> int:
    pairs = [part for pair in words.items() if pair[1] for part in pair]
    return run(["gateway", verb, *pairs, *more, "-f", str(place)])


def add(words: dict[str, str], place: Path, *more: str) -> int:
    return gateway("add-tenant", words, place, *more)


def intent(place: Path) -> Intent:
    found, findings = check([place])
    assert findings == ()
    return found


def files(place: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in place.iterdir()} if place.is_dir() else {}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def put(place: Path, name: str, *objects: Mapping[str, object]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def node(name: str, subnet: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDRs": [subnet]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.99.21"}]},
    }


def test_the_runbooks_first_tenant_brings_the_gateway_along(tmp_path: Path) -> None:
    assert add(BLUE, tmp_path / "outgate") == FINE

    asked = intent(tmp_path / "outgate")
    (machine,), (blue,) = asked.gateways, asked.tenants
    assert machine.name == "gateway"
    assert machine.inner == (InnerInterface(interface=ENP1S0),)
    assert machine.uplinks == (ENP7S0,)
    assert machine.cluster_networks == (ip_network("10.128.0.0/14"),)
    assert blue.identity == NextHopIdentity(addresses=(ip_address("192.168.99.13"),), interface=ENP1S0)
    assert (blue.egress_ips, blue.uplink) == ((ip_address("192.168.55.113"),), ENP7S0)
    assert (blue.namespace_selector, blue.source_check) == (None, SourceCheck.NODE_SUBNETS)


def test_the_mark_is_ignored_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(BLUE, tmp_path) == FINE

    assert "--mark 10 is ignored" in said(capsys)
    assert all("mark" not in text.lower() for text in files(tmp_path).values())


def test_a_tenant_that_is_added_twice_stands_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(BLUE, tmp_path)
    before = files(tmp_path)

    assert add({**BLUE, "--mark": ""}, tmp_path) == FINE

    assert files(tmp_path) == before
    assert "stands already" in said(capsys)


def test_the_second_tenant_joins_the_gateway_that_stands(tmp_path: Path) -> None:
    add(BLUE, tmp_path)
    assert add(RED, tmp_path) == FINE

    asked = intent(tmp_path)
    assert [machine.name for machine in asked.gateways] == ["gateway"]
    assert [tenant.name for tenant in asked.tenants] == ["ns-blue", "ns-red"]


def test_another_pod_network_is_added_to_the_gateway_and_a_covered_one_is_not(tmp_path: Path) -> None:
    add(BLUE, tmp_path)
    add({**RED, "--pod-cidr": "10.132.0.0/14"}, tmp_path)
    add({**RED, "--pod-cidr": "10.132.1.0/24"}, tmp_path)

    assert intent(tmp_path).gateways[0].cluster_networks == (ip_network("10.128.0.0/14"), ip_network("10.132.0.0/14"))


def test_both_families_go_into_one_tenant(tmp_path: Path) -> None:
    assert add(BLUE, tmp_path, "--gw-ip", "fd99::13", "--egress-ip", "fd55::113", "--pod-cidr", "fd01::/48") == FINE

    (blue,) = intent(tmp_path).tenants
    assert isinstance(blue.identity, NextHopIdentity)
    assert blue.identity.addresses == (ip_address("192.168.99.13"), ip_address("fd99::13"))
    assert blue.egress_ips == (ip_address("192.168.55.113"), ip_address("fd55::113"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({**RED, "--dev": "enp2s0"}, "--dev enp2s0 contradicts EgressGateway/gateway, whose inner NICs are enp1s0"),
        (
            {**RED, "--out-dev": "enp8s0"},
            "--out-dev enp8s0 contradicts EgressGateway/gateway, whose uplinks are enp7s0",
        ),
        ({**RED, "--egress-ip": "192.168.55.113"}, "--egress-ip 192.168.55.113 is already EgressTenant/ns-blue's"),
        ({**RED, "--gw-ip": "192.168.99.13"}, "--gw-ip 192.168.99.13 is already EgressTenant/ns-blue's"),
        ({**BLUE, "--egress-ip": "192.168.55.120"}, "contradicts EgressTenant/ns-blue, which has 192.168.55.113"),
    ],
    ids=["inner NIC", "uplink", "egress IP of another", "next hop of another", "its own egress IP"],
)
def test_what_contradicts_a_standing_object_is_refused_with_its_place(
    words: dict[str, str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(BLUE, tmp_path)
    before = files(tmp_path)

    assert add(words, tmp_path) == FAILED

    text = said(capsys)
    assert told in text
    assert str(tmp_path) in text
    assert ".yaml:1" in text
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--name", "NS_Blue"),
        ("--name", 'a";drop#x'),
        ("--gw-ip", "192.168.99.013"),
        ("--gw-ip", "$(id)"),
        ("--egress-ip", "224.0.0.1"),
        ("--dev", "*"),
        ("--out-dev", "enp7s0; reboot"),
        ("--pod-cidr", "10.128.0.5/14"),
    ],
)
def test_a_value_that_can_not_be_meant_is_refused_by_its_option_and_nothing_is_written(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add({**BLUE, option: value}, tmp_path) == FAILED

    assert f"outgate: {option} " in said(capsys)
    assert files(tmp_path) == {}


def test_a_gateway_in_a_file_of_somebody_else_is_used_and_never_rewritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = {
        "apiVersion": "outgate.io/v1alpha1",
        "kind": "EgressGateway",
        "metadata": {"name": "gw1"},
        "spec": {"inner": [{"interface": "enp1s0"}], "uplinks": ["enp7s0"], "clusterNetworks": ["10.128.0.0/14"]},
    }
    put(tmp_path, "machine.json", machine)

    assert add(BLUE, tmp_path) == FINE
    assert add({**RED, "--pod-cidr": "10.140.0.0/14"}, tmp_path) == FAILED

    assert "machine.json" in said(capsys)
    assert [tenant.name for tenant in intent(tmp_path).tenants] == ["ns-blue"]


def test_of_several_gateways_one_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gw1", "gw2"):
        spec = {"inner": [{"interface": "enp1s0"}], "uplinks": ["enp7s0"], "clusterNetworks": ["10.128.0.0/14"]}
        put(
            tmp_path,
            f"{name}.json",
            {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressGateway", "metadata": {"name": name}, "spec": spec},
        )

    assert add(BLUE, tmp_path) == FAILED
    assert "--gateway" in said(capsys)
    assert add(BLUE, tmp_path, "--gateway", "gw2") == FINE
    assert intent(tmp_path).tenants[0].gateway == "gw2"


def test_the_seeds_mistake_is_told_where_nodes_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "nodes.json", node("n1", "10.132.0.0/24"))

    assert add(BLUE, tmp_path) == FINE

    assert "10.132.0.0/24" in (text := said(capsys))
    assert "10.131.255.255" in text


def test_without_nodes_the_user_is_told_how_to_bring_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(BLUE, tmp_path)
    assert f"oc get nodes -o yaml > {tmp_path}/nodes.yaml" in said(capsys)


def test_a_tenant_is_removed_and_its_neighbour_stays(tmp_path: Path) -> None:
    add(BLUE, tmp_path)
    add(RED, tmp_path)
    words = {"--name": "ns-blue", "--mark": "10", "--egress-ip": "192.168.55.113", "--out-dev": "enp7s0"}

    assert gateway("remove-tenant", words, tmp_path) == FINE

    assert [tenant.name for tenant in intent(tmp_path).tenants] == ["ns-red"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"--name": "ns-bleu"}, "there is no EgressTenant/ns-bleu; there are: ns-blue"),
        ({"--name": "ns-blue", "--egress-ip": "192.168.55.114"}, "has 192.168.55.113, not 192.168.55.114"),
        ({"--name": "ns-blue", "--out-dev": "enp8s0"}, "leaves by enp7s0, not enp8s0"),
    ],
    ids=["unknown", "another egress IP", "another uplink"],
)
def test_a_removal_that_means_something_else_removes_nothing(
    words: dict[str, str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(BLUE, tmp_path)

    assert gateway("remove-tenant", words, tmp_path) == FAILED

    assert told in said(capsys)
    assert len(intent(tmp_path).tenants) == 1


def test_a_directory_that_can_not_be_written_is_a_failure_with_the_systems_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    assert add(BLUE, tmp_path / "file" / "below") == FAILED
    assert "Not a directory" in said(capsys)
