"""What people ask when a partner complains, answered by the commands and held against packets and frames.

EgressIP prod serves p11 on n1 and p21 on n2. Primary: 192.168.99.150 (fd99::150) on n1; secondary: 192.168.55.150
(fd55::150) on n1's eth1, by which the host reaches the partner 203.0.113.20. The objects stand in files.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from outgate.cli.main import run
from outgate.lab.ovn import host, objects
from outgate.lab.ovn.addresses import (
    BRIDGE,
    CLUSTER_ROUTER,
    OTHER_ROUTER,
    OUTSIDE,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
    Pair,
)
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import NAMESPACE, OvnLaboratory, OvnPod
from outgate.roles.egress_view import host_snapshot

CHOSEN = ("p11", "p21")
ALLOWED = "203.0.113.0/28"  # OUTSIDE is in it, PARTNER is not


@pytest.fixture
def local(lab: OvnLaboratory) -> OvnLaboratory:
    """Local gateway mode, and the partner by the second NIC."""
    lab.set_mode(local=True)
    routes = zip(PARTNER, SECONDARY_ROUTER, strict=True)
    lab.node("n1").ip(*(f"route add {to} via {hop} dev {SECONDARY_NIC}" for to, hop in routes))
    return lab


def chosen(lab: OvnLaboratory) -> tuple[OvnPod, ...]:
    return tuple(pod for pod in lab.pods if pod.name in CHOSEN)


def tell(
    lab: OvnLaboratory, place: Path, pair: Pair, *others: Mapping[str, Any], on: str = "n1", local: bool = True
) -> None:
    """Write down the cluster's objects with EgressIP prod, and what both hosts have."""
    every = [
        *objects.cluster(lab, local=local, chosen=CHOSEN),
        objects.egress_ip("prod", pair, dict.fromkeys(pair, on)),
    ]
    objects.write(place, [*every, *map(dict, others)])
    (place / "nodes").mkdir(exist_ok=True)
    for node in lab.nodes.values():
        with node.net.inside():
            (place / "nodes" / f"{node.name}.json").write_bytes(host_snapshot(node.name))


def ask(lab: OvnLaboratory, node: str, place: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Ask a question on a node, and return the exit code and the answer."""
    said = io.StringIO()
    with lab.node(node).net.inside(), contextlib.redirect_stdout(said):
        code = run([*words, "-f", str(place), "-o", "json"])
    return code, json.loads(said.getvalue())


def test_flows_shows_a_live_flow_and_tells_when_its_egress_ip_has_gone_elsewhere(
    local: OvnLaboratory, tmp_path: Path
) -> None:
    Today(local).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=chosen(local)))
    tell(local, tmp_path, SECONDARY_EGRESS)
    held = [pod.agent.hold(PARTNER[number]) for pod in chosen(local) for number in (0, 1)]

    code, found = ask(local, "n1", tmp_path, "egressip", "flows", "--node", "n1")
    assert (code, found["findings"]) == (0, [])
    assert {(one["pod"], one["seenAs"], one["remotes"][0][0]["address"]) for one in found["pods"]} == {
        (f"{NAMESPACE}/{pod}", str(SECONDARY_EGRESS[number]), str(PARTNER[number]))
        for pod in CHOSEN
        for number in (0, 1)
    }

    tell(local, tmp_path, SECONDARY_EGRESS, on="n2")
    code, found = ask(local, "n1", tmp_path, "egressip", "flows", "--node", "n1")
    assert code == 1
    assert {one["pod"] for one in found["astray"]} == {f"{NAMESPACE}/{pod}" for pod in CHOSEN}
    assert all("is on n2 now" in one["text"] for one in found["astray"])
    assert {source for flow in held for source in flow.stop().sources} == set(SECONDARY_EGRESS)


@pytest.mark.parametrize(("pair", "link"), [(PRIMARY_EGRESS, BRIDGE), (SECONDARY_EGRESS, SECONDARY_NIC)])
def test_neighbour_hears_the_node_that_has_the_address_and_anybody_who_has_it_too(
    local: OvnLaboratory, tmp_path: Path, pair: Pair, link: str
) -> None:
    today, one = Today(local), Assigned(pair=pair, node="n1", pods=chosen(local))
    (today.assign_primary if link == BRIDGE else today.assign_secondary)(one)
    tell(local, tmp_path, pair)
    for address in pair:
        code, found = ask(local, "n2", tmp_path, "egressip", "neighbour", str(address), "--node", "n2")
        assert (code, [name for _, name in found["neighbour"]["answers"]]) == (0, ["n1"])
        assert found["neighbour"]["askedOn"] == f"{link} of n2"

    port = "eth0" if link == BRIDGE else "eth1"  # the router of the LAN takes the addresses as well
    for address in pair:
        local.ext.run(("ip", "address", "add", f"{address}/{address.max_prefixlen}", "dev", port, "nodad"))
    own = json.loads(local.ext.run(("ip", "-j", "link", "show", port)).stdout)[0]["address"]
    for address, on in ((address, on) for address in pair for on in ("n1", "n2")):
        code, found = ask(local, on, tmp_path, "egressip", "neighbour", str(address), "--node", on)
        (finding,) = found["neighbour"]["findings"]
        assert (code, finding["reason"]) == (1, "AnsweredByOther")
        assert own in finding["text"]


def explain(lab: OvnLaboratory, place: Path, pod: str, to: object) -> dict[str, Any]:
    _, found = ask(lab, "n1", place, "explain", f"{NAMESPACE}/{pod}", "--to", str(to))
    explanation: dict[str, Any] = found["explanation"]
    return explanation


def external_route(lab: OvnLaboratory, pod: OvnPod, *, local: bool) -> Mapping[str, Any]:
    """Do what OVN-Kubernetes does for an AdminPolicyBasedExternalRoute, for one pod; return the object."""
    node, address, hop = lab.node(pod.node), pod.addresses[0], OTHER_ROUTER[0]
    route = ("lr-route-add", node.at.router, f"{address}/32", str(hop), f"rtoe-{node.at.router}")
    node.programs.nbctl("--policy=src-ip", *route)
    if local:
        match = f'inport == "rtos-{node.name}" && ip4.src == {address} && ip4.dst != 10.128.0.0/14'
        node.programs.nbctl("lr-policy-add", CLUSTER_ROUTER, "501", match, "reroute", str(node.at.join[0]))
    lab.settle()
    return {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": "AdminPolicyBasedExternalRoute",
        "metadata": {"name": "gw"},
        "spec": {
            "from": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}},
            "nextHops": {"static": [{"ip": str(hop)}]},
        },
    }


@pytest.mark.parametrize("is_local", [True, False])
def test_an_external_route_wins_where_explain_says_so(lab: OvnLaboratory, tmp_path: Path, is_local: bool) -> None:
    lab.set_mode(local=is_local)
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(lab)))
    made = [external_route(lab, pod, local=is_local) for pod in chosen(lab)]
    tell(lab, tmp_path, PRIMARY_EGRESS, made[0], local=is_local)

    for pod in chosen(lab):
        before = sum(lab.by_other.seen().values())
        pod.agent.fetch(OUTSIDE[0], timeout_s=2)
        by_other = sum(lab.by_other.seen().values()) > before

        found = explain(lab, tmp_path, pod.name, OUTSIDE[0])
        assert ("is taken by AdminPolicyBasedExternalRoute/gw" in found["headline"]) is by_other
        assert by_other is (is_local or pod.node == "n1")
        assert {one["about"] for one in found["findings"] if one["reason"] == "Conflict"} == {
            "EgressIP/prod",
            "AdminPolicyBasedExternalRoute/gw",
        }


def test_an_egress_firewall_drops_before_the_egress_ip_is_asked(local: OvnLaboratory, tmp_path: Path) -> None:
    Today(local).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(local)))
    rules = [{"type": kind, "to": {"cidrSelector": cidr}} for kind, cidr in (("Allow", ALLOWED), ("Deny", "0.0.0.0/0"))]
    firewall = {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": "EgressFirewall",
        "metadata": {"name": "default", "namespace": NAMESPACE},
        "spec": {"egress": rules},
    }
    tell(local, tmp_path, PRIMARY_EGRESS, firewall)
    for node in local.nodes.values():
        switch = ("acl-add", node.name, "from-lport")
        node.programs.nbctl(*switch, "10000", f"ip4.dst == {ALLOWED}", "allow-related")
        node.programs.nbctl(*switch, "9999", "ip4.dst == 0.0.0.0/0 && ip4.dst != 10.128.0.0/14", "drop")
    local.settle()

    sources = []
    for to in (OUTSIDE[0], PARTNER[0]):
        sources.append(local.node("n1").pods[0].agent.fetch(to, timeout_s=2).source)
        headline = explain(local, tmp_path, "p11", to)["headline"]
        assert ("is dropped on n1 by EgressFirewall/shop/default" in headline) is (sources[-1] is None)
    assert sources == [PRIMARY_EGRESS[0], None]


def test_who_lacks_its_rule_leaves_as_the_node_that_unserved_names(local: OvnLaboratory, tmp_path: Path) -> None:
    Today(local).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=chosen(local)))
    pod, node = local.node("n1").pods[0], local.node("n1")
    assert pod.agent.fetch(PARTNER[0], timeout_s=2).source == SECONDARY_EGRESS[0]
    node.ip(f"rule del priority 6000 from {pod.addresses[0]}")
    tell(local, tmp_path, SECONDARY_EGRESS)

    source = pod.agent.fetch(OUTSIDE[0], timeout_s=2).source

    code, found = ask(local, "n1", tmp_path, "egressip", "unserved", "--seen", str(source))
    (one,) = [each for each in found["unserved"]["leaving"] if not each["isMeant"]]
    assert (code, found["unserved"]["owner"]) == (1, "Node/n1")
    assert (one["pod"], one["seenAs"], source) == (f"{NAMESPACE}/p11", str(source), node.at.primary[0])


def test_who_is_not_translated_leaves_as_the_address_of_the_nic(local: OvnLaboratory, tmp_path: Path) -> None:
    Today(local).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=chosen(local)))
    pod, node = local.node("n1").pods[0], local.node("n1")
    element = f'{{ {pod.addresses[0]} . "{SECONDARY_NIC}" }}'
    node.net.run(("nft", "-f", "-"), input=f"delete element {host.TABLE} {host.SNAT4} {element}\n")
    tell(local, tmp_path, SECONDARY_EGRESS)

    source = pod.agent.fetch(PARTNER[0], timeout_s=2).source

    _, found = ask(local, "n1", tmp_path, "egressip", "unserved")
    (one,) = [each for each in found["unserved"]["leaving"] if not each["isMeant"]]
    assert (one["pod"], one["seenAs"], source) == (f"{NAMESPACE}/p11", str(source), node.at.secondary[0])


def test_route_says_which_egress_ip_follows_and_packets_agree(local: OvnLaboratory, tmp_path: Path) -> None:
    Today(local).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(local)))
    tell(local, tmp_path, PRIMARY_EGRESS)

    code, found = ask(local, "n1", tmp_path, "egressip", "route", f"{PARTNER[0]}/32")
    (one,) = found["route"]["egressIps"]
    before = sum(local.by_secondary.seen().values())
    local.node("n1").pods[0].agent.fetch(PARTNER[0], timeout_s=2)
    assert (code, one["follows"]) == (1, False)
    assert sum(local.by_secondary.seen().values()) == before
    assert one["routes"][0]["hop"]["link"] == SECONDARY_NIC


def test_with_two_egress_ips_connections_take_either_and_keep_it(local: OvnLaboratory, tmp_path: Path) -> None:
    """OVN-Kubernetes gives the pod's policy the gateway routers of both egress nodes as next hops."""
    pod, first, second = local.node("n1").pods[0], PRIMARY_EGRESS[0], PRIMARY_EGRESS[0] + 1
    hops = f"{local.node('n1').at.join[0]},{local.node('n2').at.transit[0]}"
    for name, address in (("n1", first), ("n2", second)):
        node = local.node(name)
        node.programs.nbctl("lr-nat-add", node.at.router, "snat", str(address), str(pod.addresses[0]))
    match = f"ip4.src == {pod.addresses[0]}"
    local.node("n1").programs.nbctl("lr-policy-add", CLUSTER_ROUTER, "100", match, "reroute", hops)
    local.settle()
    prod = objects.egress_ip("prod", (first, second), {first: "n1", second: "n2"})
    objects.write(tmp_path, [*objects.cluster(local, local=True, chosen=CHOSEN), prod])
    flow = pod.agent.hold(OUTSIDE[0])

    seen: set[object] = set()
    for _ in range(64):  # each takes either with even odds
        seen.add(pod.agent.fetch(OUTSIDE[0], timeout_s=2).source)
        if len(seen) > 1:
            break

    assert seen == {first, second}
    assert len(set(flow.stop().sources)) == 1
    found = explain(local, tmp_path, "p11", OUTSIDE[0])
    assert [one["address"] for one in found["answers"]] == [str(first), str(second)]
    assert f"each new connection takes {first} or {second}" in found["notes"][0]


IP_MTU_DISCOVER, PMTUDISC_DONT, PMTUDISC_DO = 10, 0, 2  # linux/in.h: may be cut, must not be cut


def large_answers(lab: OvnLaboratory, pod: OvnPod, to: str, *, discover: int) -> tuple[bool, bool]:
    """Answer a pod by UDP with more than its MTU, again and again; return whether one arrives, and whether the sender
    is told that it must not be so large.
    """
    with lab.ext.inside():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pod.net.inside():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind((to, 4444))
        server.settimeout(10)
        server.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
        client.sendto(b"question", (to, 4444))
        _, seen_as = server.recvfrom(100)
        server.sendto(b"small", seen_as)
        client.settimeout(10)
        assert client.recv(100) == b"small"
        client.settimeout(0.5)
        told = False
        for _ in range(4):
            try:
                server.sendto(bytes(1430), seen_as)
            except OSError as error:
                told = told or error.errno == errno.EMSGSIZE
            try:
                return len(client.recv(2000)) == 1430, told
            except TimeoutError:
                continue
        return False, told


def test_the_host_cuts_large_answers_or_tells_their_sender(local: OvnLaboratory, tmp_path: Path) -> None:
    Today(local).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=chosen(local)))
    tell(local, tmp_path, SECONDARY_EGRESS)
    pod, to = local.node("n1").pods[0], str(PARTNER[0])

    assert large_answers(local, pod, to, discover=PMTUDISC_DONT) == (True, False)
    assert large_answers(local, pod, to, discover=PMTUDISC_DO) == (False, True)
    said = explain(local, tmp_path, "p11", to)["answers"][0]["large"]
    assert said.startswith("answers of more than 1400 bytes: the host cuts those that may be cut")


@pytest.mark.parametrize("discover", [PMTUDISC_DONT, PMTUDISC_DO])
def test_in_shared_gateway_mode_large_answers_are_lost(lab: OvnLaboratory, tmp_path: Path, discover: int) -> None:
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=chosen(lab)))
    tell(lab, tmp_path, PRIMARY_EGRESS, local=False)
    pod, to = lab.node("n1").pods[0], str(OUTSIDE[0])

    assert large_answers(lab, pod, to, discover=discover) == (False, False)
    assert "are lost: nobody cuts them" in explain(lab, tmp_path, "p11", to)["answers"][0]["large"]
