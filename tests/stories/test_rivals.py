"""An EgressIP serves pod shop/web (10.128.0.5 on n1), and other objects have a say about its packets to the partner
203.0.113.20: who wins?

EgressIP prod is 192.168.99.150 on n1, and serves shop/db (10.128.1.5 on n2) too.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml

from outgate.cli.main import run
from outgate.model.egress_ip import ClusterView
from outgate.model.errors import IntentError
from outgate.model.intent import EgressIP, ExternalRoute, Intent, Namespace, Node, Pod
from outgate.model.net import Address
from outgate.model.nics import GatewayMode
from outgate.model.rivals import Fate, Packet, Rivals
from outgate.model.selector import LabelSelector
from outgate.plan.egress_explain import explain_pod
from outgate.plan.egress_list import detail, listed
from outgate.plan.rivals import conflicts, says
from outgate.report.egress_ip import egress_document, egress_text
from outgate.sources.must_gather import rival_files
from outgate.sources.rivals import read_rivals

PARTNER, ELSEWHERE = ip_address("203.0.113.20"), ip_address("198.51.100.7")
EGRESS, HOP = ip_address("192.168.99.150"), ip_address("192.168.99.13")
SHOP = LabelSelector((("kubernetes.io/metadata.name", "shop"),))
WEB = Pod(namespace="shop", name="web", node="n1", addresses=(ip_address("10.128.0.5"),), labels=(("app", "web"),))
DB = Pod(namespace="shop", name="db", node="n2", addresses=(ip_address("10.128.1.5"),))
PROD = EgressIP(name="prod", egress_ips=(EGRESS,), namespace_selector=SHOP, assigned=(("n1", EGRESS),))
ROUTE = ExternalRoute(name="gw", namespace_selector=SHOP, next_hops=(HOP,))


def node(name: str, mode: GatewayMode) -> Node:
    primary, hop = ip_network("192.168.99.0/24"), ip_address("192.168.99.1")
    return Node(name=name, primary=(primary,), mode=mode, next_hops=(hop,), assignable=True)


def intent(*routes: ExternalRoute, mode: GatewayMode = GatewayMode.LOCAL) -> Intent:
    return Intent(
        nodes=(node("n1", mode), node("n2", mode)),
        namespaces=(Namespace(name="shop", labels=(("kubernetes.io/metadata.name", "shop"),)),),
        pods=(DB, WEB),
        egress_ips=(PROD,),
        external_routes=routes,
    )


def manifest(kind: str, name: str, api: str = "k8s.ovn.org/v1", **parts: object) -> dict[str, object]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, **parts}


def firewall(*rules: dict[str, object]) -> dict[str, object]:
    return manifest("EgressFirewall", "default", spec={"egress": list(rules)})


def rule(kind: str, cidr: str = "", **more: object) -> dict[str, object]:
    return {"type": kind, "to": {"cidrSelector": cidr} if cidr else {"dnsName": "partner.example"}, **more}


def policy(name: str, **spec: object) -> dict[str, object]:
    return manifest("NetworkPolicy", name, "networking.k8s.io/v1", spec={"podSelector": {}, **spec})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path


def rivals(place: Path, *objects: dict[str, object]) -> Rivals:
    """The objects, written down and read as a user would have them."""
    (place / "rivals.yaml").write_text(yaml.safe_dump_all(objects))
    return read_rivals([place])


def verdict(found: Rivals, to: Address = PARTNER, *, protocol: str = "", port: int = 0) -> tuple[Fate, str]:
    """What the only object says to a packet of shop/web."""
    (said,) = says(WEB, Packet(destination=to, protocol=protocol, port=port), intent(), found, PROD)
    return said.fate, said.text


def test_the_first_rule_of_an_egress_firewall_that_fits_decides(written: Path) -> None:
    found = rivals(written, firewall(rule("Allow", "203.0.113.0/24"), rule("Deny", "0.0.0.0/0")))

    assert verdict(found) == (Fate.PASSES, "rule 1 allows 203.0.113.0/24")
    assert verdict(found, ELSEWHERE) == (Fate.DROPS, "rule 2 denies 0.0.0.0/0")
    assert verdict(found, ip_address("2001:db8::1")) == (Fate.PASSES, "no rule names the destination")


def test_a_rule_for_ports_decides_when_the_port_is_said_and_leaves_it_open_when_not(written: Path) -> None:
    https = {"ports": [{"protocol": "TCP", "port": 443}]}
    found = rivals(written, firewall(rule("Allow", "203.0.113.0/24", **https), rule("Deny", "0.0.0.0/0")))

    assert verdict(found, protocol="tcp", port=443)[0] is Fate.PASSES
    assert verdict(found, protocol="tcp", port=80)[0] is Fate.DROPS
    assert verdict(found, protocol="udp", port=443)[0] is Fate.DROPS
    assert verdict(found) == (
        Fate.MAY_DROP,
        "rule 1 allows 203.0.113.0/24, only tcp 443; else rule 2 denies 0.0.0.0/0",
    )


def test_a_rule_for_a_dns_name_may_mean_any_destination(written: Path) -> None:
    found = rivals(written, firewall(rule("Allow"), rule("Deny", "0.0.0.0/0")))

    fate, text = verdict(found)
    assert fate is Fate.MAY_DROP
    assert text == "rule 1 allows partner.example, which may be this destination; else rule 2 denies 0.0.0.0/0"


def test_network_policies_allow_together_and_drop_what_none_of_them_allows(written: Path) -> None:
    block = {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.64/26"]}}
    inside: dict[str, object] = {"namespaceSelector": {}}
    found = rivals(
        written,
        policy("inside", policyTypes=["Egress"], egress=[{"to": [inside]}]),
        policy("partner", policyTypes=["Egress", "Ingress"], egress=[{"to": [block]}]),
        policy("ingress", policyTypes=["Ingress"]),
    )

    assert verdict(found) == (Fate.PASSES, "egress rule 1 of partner allows 203.0.113.20")
    assert verdict(found, ip_address("203.0.113.70"))[0] is Fate.DROPS
    assert verdict(found, ELSEWHERE) == (Fate.DROPS, "no egress rule allows 198.51.100.7")


def test_a_policy_for_other_pods_or_for_named_ports_says_nothing_about_this_packet(written: Path) -> None:
    other = policy("other", policyTypes=["Egress"], podSelector={"matchLabels": {"app": "other"}})
    named = policy("named", policyTypes=["Egress"], egress=[{"ports": [{"port": "metrics"}]}])

    assert says(WEB, Packet(destination=PARTNER), intent(), rivals(written, other), PROD) == ()
    assert verdict(rivals(written, named))[0] is Fate.DROPS


@pytest.mark.parametrize(
    ("mode", "pod", "fate"),
    [
        (GatewayMode.LOCAL, WEB, Fate.TAKES),
        (GatewayMode.LOCAL, DB, Fate.TAKES),
        (GatewayMode.SHARED, WEB, Fate.TAKES),  # on the egress node the route stands on the same router
        (GatewayMode.SHARED, DB, Fate.YIELDS),  # the route stands on n2's router, where the packet never comes
    ],
)
def test_an_external_route_wins_by_mode_and_node(mode: GatewayMode, pod: Pod, fate: Fate) -> None:
    (said,) = says(pod, Packet(destination=PARTNER), intent(ROUTE, mode=mode), Rivals(), PROD)
    assert (said.about, said.fate) == ("AdminPolicyBasedExternalRoute/gw", fate)


def test_a_route_and_an_egress_ip_on_one_pod_are_a_conflict_of_both() -> None:
    found = conflicts(intent(ROUTE, mode=GatewayMode.SHARED))

    assert [one.about for one in found] == ["EgressIP/prod", "AdminPolicyBasedExternalRoute/gw"]
    for one in found:
        assert "the route wins for shop/web (the gateway router of n1 sends to 192.168.99.13" in one.text
        assert "the EgressIP wins for shop/db" in one.text
    assert listed(intent(ROUTE, mode=GatewayMode.SHARED))[0].findings == found
    view = ClusterView(intent=intent(ROUTE, mode=GatewayMode.SHARED), hosts=MappingProxyType({}))
    assert detail(view, "prod").findings == found
    assert conflicts(intent()) == conflicts(replace(intent(ROUTE), pods=())) == ()


def service(by: str, selector: dict[str, str]) -> list[dict[str, object]]:
    return [
        manifest("EgressService", "web", spec={"sourceIPBy": by}, status={"host": "n2"}),
        manifest(
            "Service",
            "web",
            "v1",
            spec={"selector": selector},
            status={"loadBalancer": {"ingress": [{"ip": "192.168.99.200"}]}},
        ),
    ]


def test_an_egress_service_takes_the_pods_behind_it(written: Path) -> None:
    taken = "policy 101 comes before the EgressIP (100): it leaves n2 as 192.168.99.200"
    assert verdict(rivals(written, *service("LoadBalancerIP", {"app": "web"}))) == (Fate.TAKES, taken)
    assert verdict(rivals(written, *service("LoadBalancerIP", {"app": "other"})))[0] is Fate.YIELDS
    assert verdict(rivals(written, *service("Network", {"app": "web"})))[0] is Fate.YIELDS
    unknown = rivals(written, service("LoadBalancerIP", {})[0])
    assert verdict(unknown) == (
        Fate.YIELDS,
        "its pods leave by policy 101, before the EgressIP; the selector of Service web is unknown",
    )


def test_an_egress_qos_and_an_advertised_network_change_no_way(written: Path) -> None:
    qos = manifest("EgressQoS", "default", spec={"egress": [{"dscp": 40, "dstCIDR": "203.0.113.0/24"}, {"dscp": 10}]})
    told = manifest(
        "RouteAdvertisements",
        "pods",
        spec={"advertisements": ["PodNetwork"], "networkSelectors": [{"networkSelectionType": "DefaultNetwork"}]},
    )
    only_egress_ips = manifest("RouteAdvertisements", "eips", spec={"advertisements": ["EgressIP"]})
    found = rivals(written, qos, told, only_egress_ips)

    said = says(WEB, Packet(destination=PARTNER), intent(), found, PROD)
    assert [(one.about, one.fate) for one in said] == [
        ("EgressQoS/shop/default", Fate.MARKS),
        ("RouteAdvertisements/pods", Fate.YIELDS),
    ]
    assert said[0].text.startswith("DSCP 40")


def test_explain_says_first_who_drops_or_takes_the_packet(written: Path) -> None:
    found = rivals(written, firewall(rule("Deny", "203.0.113.0/24")), *service("LoadBalancerIP", {"app": "web"}))
    view = ClusterView(intent=intent(ROUTE), hosts=MappingProxyType({}), rivals=found)

    told = explain_pod(view, "shop/web", PARTNER)
    assert told.headline.endswith(
        "is dropped on n1 by EgressFirewall/shop/default: rule 1 denies 203.0.113.0/24; EgressIP/prod has no say"
    )
    assert not told.is_well
    text = egress_text(told)
    assert "EgressService/shop/web            takes it: policy 101" in text
    assert text.index("EgressFirewall/shop/default") < text.index("AdminPolicyBasedExternalRoute/gw")
    assert '"fate": "takes it"' in json.dumps(egress_document(told))
    assert "is taken by AdminPolicyBasedExternalRoute/gw" in explain_pod(view, "shop/web", ELSEWHERE).headline


def test_what_could_not_be_read_is_told_with_the_answer() -> None:
    view = ClusterView(
        intent=intent(), hosts=MappingProxyType({}), rivals=Rivals(unknown=(("NetworkPolicy", "403: may not list"),))
    )
    assert "NetworkPolicy has not been asked: 403: may not list" in explain_pod(view, "shop/web", PARTNER).notes


def test_a_list_in_json_and_a_must_gather_say_the_same(tmp_path: Path) -> None:
    objects = [firewall(rule("Deny", "203.0.113.0/24")), policy("none", policyTypes=["Egress"])]
    (tmp_path / "json").mkdir()
    listing = {"kind": "List", "items": [*objects, {"kind": "Pod", "metadata": {"name": "p"}}]}
    (tmp_path / "json" / "cluster.json").write_text(json.dumps(listing))
    root = tmp_path / "gathered"
    for place, kind, items in (
        ("k8s.ovn.org/egressfirewalls/default.yaml", None, objects[0]),
        ("networking.k8s.io/networkpolicies.yaml", "NetworkPolicyList", objects[1]),
    ):
        file = root / "namespaces" / "shop" / place
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump(items if kind is None else {"kind": kind, "items": [items]}))
    (root / "cluster-scoped-resources").mkdir()

    found = read_rivals([tmp_path / "json"])
    assert read_rivals(rival_files(root)) == found
    assert (len(found.firewalls), len(found.policies)) == (1, 1)


def test_a_file_of_other_kinds_alone_is_not_even_parsed(written: Path) -> None:
    (written / "rivals.yaml").write_text("kind: ServiceAccount\n\t- this is no YAML: a Service, an EgressFirewall")
    assert read_rivals([written]) == Rivals()


def test_cloud_addresses_are_read_by_their_names(written: Path) -> None:
    four = manifest(
        "CloudPrivateIPConfig",
        "192.168.99.150",
        "cloud.network.openshift.io/v1",
        spec={"node": "n1"},
        status={"conditions": [{"type": "Assigned", "status": "False", "message": "quota"}]},
    )
    six = manifest("CloudPrivateIPConfig", "fd99.0000.0000.0000.0000.0000.0000.0150", "cloud.network.openshift.io/v1")

    found = rivals(written, four, six).cloud
    assert [(one.address, one.wanted, one.assigned, one.message) for one in found] == [
        (EGRESS, "n1", False, "quota"),
        (ip_address("fd99::150"), "", None, ""),
    ]


def test_an_object_that_can_not_be_understood_is_told_and_stops_no_other(written: Path) -> None:
    wrong = manifest("EgressFirewall", "other", spec={"egress": [{"type": 5}]})
    found = rivals(written, firewall(rule("Deny", "203.0.113.0/33")), wrong, policy("none", policyTypes=["Egress"]))

    assert [name for name, _ in found.unknown] == ["EgressFirewall in rivals.yaml", "EgressFirewall/shop/default"]
    assert len(found.policies) == 1
    (written / "rivals.yaml").write_text("kind: EgressFirewall\n\t- x")
    with pytest.raises(IntentError, match=r"rivals\.yaml: can not be read"):
        read_rivals([written])


def test_the_command_reads_them_beside_the_other_manifests(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"nodeName": "n1"},
            "status": {"podIPs": [{"ip": "10.128.0.5"}]},
        },
        firewall(rule("Deny", "203.0.113.0/24")),
    ]
    (written / "all.yaml").write_text(yaml.safe_dump_all(items))

    words = ["explain", "shop/web", "--to", "203.0.113.20:443/tcp", "-f", str(written)]
    assert run(words) == 1
    assert "EgressFirewall/shop/default  drops it: rule 1 denies 203.0.113.0/24" in capsys.readouterr().out
