"""The laboratory as built: workers n1 and n2 with pods of ns-blue and ns-red, a bare gateway machine, the outside.

Pods 10.132.0.0/14 (fd01::/48), nodes 192.168.99.0/24 (fd99::/64), egress 192.168.55.0/24 (fd55::/64), outside
203.0.113.9 (2001:db8:113::9). Here the gateway machine merely forwards: every packet that gets out is a leak, and must
be counted.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from outgate.lab import addresses
from outgate.lab.addresses import INNER4, INNER6, INNER_LINK, INNER_MAC, OUTSIDE4, OUTSIDE6, SERVER4, SERVER6, Address
from outgate.lab.namespace import Namespace, python_module
from outgate.lab.outside import Server, SourceCounter
from outgate.lab.topology import Laboratory, two_hosts
from outgate.lab.waiting import eventually

BLUE, RED = "ns-blue", "ns-red"
NEXT_HOP4, TENANT_MAC = IPv4Address("192.168.99.13"), "02:e6:00:00:00:01"
TRANSLATION = """
table inet translation {{
  chain out {{
    type nat hook postrouting priority srcnat;
    oifname "enp7s0" ip saddr {{ 10.132.0.5, 10.132.1.5 }} snat ip to {egress4}
    oifname "enp7s0" ip6 saddr {{ fd01:0:0:1::5, fd01:0:0:2::5 }} snat ip6 to {egress6}
  }}
}}
"""
OUTSIDE = pytest.mark.parametrize("outside", [OUTSIDE4, OUTSIDE6, SERVER4, SERVER6], ids=str)


@pytest.fixture
def lab() -> Iterator[Laboratory]:
    with Laboratory() as made:
        yield made


@pytest.fixture
def forwarding() -> Iterator[Laboratory]:
    """All pods leave by the gateway machine's own address, and it forwards."""
    with Laboratory() as made:
        made.forward_plainly()
        for tenant in made.tenants:
            made.steer(tenant.namespace, INNER4, INNER6)
        yield made


def own_address(pod_v4: Address, pod_v6: Address, outside: Address) -> Address:
    return pod_v4 if outside.version == 4 else pod_v6


def states(net: Namespace) -> set[str]:
    return {link["operstate"] for link in json.loads(net.run(("ip", "-j", "link")).stdout)}


def test_every_link_runs_as_soon_as_the_laboratory_is_there(lab: Laboratory) -> None:
    for net in lab.nets:
        assert states(net) <= {"UP", "UNKNOWN"}, net  # UNKNOWN: the loopback


@OUTSIDE
def test_a_pod_is_seen_outside_with_its_own_address_when_the_gateway_merely_forwards(
    forwarding: Laboratory, outside: Address
) -> None:
    pod = forwarding.pod(RED, "n2")
    echoed = pod.agent.udp(outside, count=5)
    assert (echoed.sent, echoed.answered) == (5, 0), "nothing outside knows a way back to pods"
    assert forwarding.outside.leaked() == forwarding.uplink.leaked() == 5
    assert forwarding.outside.seen() == {own_address(pod.v4, pod.v6, outside): 5}


def test_nothing_leaves_a_gateway_machine_that_does_not_forward(lab: Laboratory) -> None:
    for pod in lab.pods:
        lab.steer(pod.namespace, INNER4, INNER6)
        assert pod.agent.udp(OUTSIDE4, count=2).answered == pod.agent.udp(OUTSIDE6, count=2).answered == 0
    assert lab.outside.seen() == lab.uplink.seen() == {}


@OUTSIDE
def test_a_pod_is_answered_once_the_outside_knows_a_way_back(forwarding: Laboratory, outside: Address) -> None:
    forwarding.open_inbound()
    for pod in forwarding.pods:
        own = own_address(pod.v4, pod.v6, outside)
        assert pod.agent.fetch(outside).source == own
        assert pod.agent.udp(outside, count=3, fresh=True).sources == {own: 3}
    visits = forwarding.server.visits()
    assert [visit.source for visit in visits] == [own_address(pod.v4, pod.v6, outside) for pod in forwarding.pods]
    assert {(visit.port, visit.path) for visit in visits} == {(8080, "/")}


def test_a_large_page_arrives_whole(forwarding: Laboratory) -> None:
    forwarding.open_inbound()
    assert forwarding.pod(BLUE).agent.fetch(OUTSIDE6, path="/bytes/1000001").size == 1_000_001


def test_the_counter_starts_anew_after_a_reset_and_knows_ports(forwarding: Laboratory) -> None:
    blue, red = forwarding.pod(BLUE, "n1"), forwarding.pod(RED, "n1")
    blue.agent.udp(OUTSIDE4, count=3)
    forwarding.outside.reset()
    assert forwarding.outside.seen() == {}
    blue.agent.udp(OUTSIDE4, port=5001, count=2)
    red.agent.udp(OUTSIDE6, port=5002, count=1)
    assert forwarding.outside.seen_at(5001) == {blue.v4: 2}
    assert forwarding.outside.seen_at(5002) == {red.v6: 1}
    assert forwarding.outside.leaked([addresses.CLUSTER[0]]) == 2


def test_the_counter_on_the_inner_lan_sees_what_the_gateway_machine_sends_back(forwarding: Laboratory) -> None:
    for router in (addresses.LAN_ROUTER4, addresses.LAN_ROUTER6):
        forwarding.gw.run(("ip", "route", "replace", "default", "via", str(router), "dev", INNER_LINK))
    pod = forwarding.pod(BLUE)
    pod.agent.udp(OUTSIDE4, count=4)
    pod.agent.udp(OUTSIDE6, count=4)
    assert forwarding.inner.leaked() == 8
    assert forwarding.uplink.seen() == {}


def test_an_error_has_a_name(lab: Laboratory) -> None:
    pod = lab.pod(BLUE)
    lab.steer(BLUE, INNER4, INNER6)
    lab.gw.sysctl("net/ipv4/ip_forward", 1)
    lab.gw.run(("ip", "rule", "add", "from", str(pod.v4), "prohibit"))
    lab.gw.run(("ip", "route", "add", f"{pod.v4}/32", "via", str(lab.nodes["n1"].v4)))
    assert pod.agent.fetch(OUTSIDE4).error == "EHOSTUNREACH"
    assert set(pod.agent.udp(OUTSIDE4, count=2).errors) == {"EHOSTUNREACH"}
    assert lab.outsider.fetch(OUTSIDE4, port=1).error == "ECONNREFUSED"
    assert lab.outsider.fetch(pod.v4, timeout_s=0.2).error == "ENETUNREACH"


def test_a_poisoned_neighbour_sends_traffic_to_the_wrong_mac(lab: Laboratory) -> None:
    lab.gw.sysctl("net/ipv4/conf/all/arp_ignore", 1)
    lab.gw.run(("ip", "link", "add", "og-blue", "link", INNER_LINK, "address", TENANT_MAC, "type", "macvlan"))
    lab.gw.run(("ip", "addr", "add", f"{NEXT_HOP4}/32", "dev", "og-blue"))
    lab.gw.run(("ip", "link", "set", "og-blue", "up"))
    tenant, pod, node = SourceCounter(lab.gw, "og-blue"), lab.pod(BLUE, "n1"), lab.nodes["n1"]

    pod.agent.udp(OUTSIDE4, count=2)
    assert node.neighbour(NEXT_HOP4) == TENANT_MAC
    assert tenant.seen() == {pod.v4: 2}

    node.poison(NEXT_HOP4, INNER_MAC)
    pod.agent.udp(OUTSIDE4, count=2)
    assert node.neighbour(NEXT_HOP4) == INNER_MAC
    assert tenant.seen() == {pod.v4: 2}

    node.heal(NEXT_HOP4)
    assert node.neighbour(NEXT_HOP4) is None
    pod.agent.udp(OUTSIDE4, count=2)
    assert tenant.seen() == {pod.v4: 4}


def test_a_pod_that_is_translated_is_answered_under_its_egress_ip(forwarding: Laboratory) -> None:
    blue = forwarding.tenants[0]
    for egress in (blue.egress4, blue.egress6):
        forwarding.gw.run(("ip", "addr", "add", str(egress), "dev", addresses.UPLINK, "nodad"))
    forwarding.gw.run(("nft", "-f", "-"), input=TRANSLATION.format(egress4=blue.egress4, egress6=blue.egress6))
    for pod in forwarding.pods:
        if pod.namespace == BLUE:
            assert pod.agent.fetch(OUTSIDE4).source == blue.egress4
            assert pod.agent.udp(OUTSIDE6, port=5001).sources == {blue.egress6: 20}
    assert forwarding.outside.leaked() == 0
    assert forwarding.outside.seen_at(5001) == {blue.egress6: 40}

    forwarding.pod(RED).agent.udp(OUTSIDE4, count=3)
    assert forwarding.outside.leaked() == 3


def test_a_held_flow_lives_on_and_says_when_it_was_not_answered(forwarding: Laboratory) -> None:
    forwarding.open_inbound()
    agent = forwarding.pod(BLUE).agent
    flows = [agent.hold(OUTSIDE4, interval_s=0.01), agent.hold(OUTSIDE6, kind="udp", interval_s=0.01)]
    eventually(lambda: all(flow.look().answered > 5 for flow in flows), "both flows are answered")

    forwarding.gw.sysctl("net/ipv4/ip_forward", 0)
    forwarding.gw.sysctl("net/ipv6/conf/all/forwarding", 0)
    eventually(lambda: all(flow.look().gap_ms > 300 for flow in flows), "neither flow is answered")
    before = [flow.look().answered for flow in flows]

    forwarding.gw.sysctl("net/ipv4/ip_forward", 1)
    forwarding.gw.sysctl("net/ipv6/conf/all/forwarding", 1)
    eventually(
        lambda: all(flow.look().answered > count for flow, count in zip(flows, before, strict=True)),
        "both flows are answered again",
    )
    tcp, udp = (flow.stop() for flow in flows)
    assert tcp.alive
    assert tcp.errors == {}
    assert udp.sent > udp.answered


def test_a_flow_that_can_not_begin_says_why(forwarding: Laboratory) -> None:
    forwarding.open_inbound()
    with pytest.raises(ConnectionError, match="ECONNREFUSED"):
        forwarding.pod(BLUE).agent.hold(OUTSIDE4, port=1)


def test_a_worker_joins_and_its_pods_get_out(forwarding: Laboratory) -> None:
    node = forwarding.add_node("n3")
    pod = forwarding.pod(RED, "n3")
    assert (str(node.v4), str(node.addresses.pods6), str(pod.v4)) == ("192.168.99.23", "fd01:0:0:3::/64", "10.132.2.6")
    pod.agent.udp(OUTSIDE4, count=1)
    pod.agent.udp(OUTSIDE6, count=1)
    assert forwarding.outside.seen() == {pod.v4: 1, pod.v6: 1}


def test_a_worker_leaves_and_another_takes_its_place(lab: Laboratory) -> None:
    left = lab.remove_node("n1")
    assert {pod.node for pod in lab.pods} == {"n2"}
    joined = lab.add_node("n9", pods_per_namespace=0)
    assert (joined.v4, joined.pods) == (left.v4, [])
    with pytest.raises(ValueError, match="n9"):
        lab.add_node("n9")


def test_a_pod_starts_and_ends_and_another_may_get_its_address(forwarding: Laboratory) -> None:
    node = forwarding.nodes["n1"]
    blue = node.add_pod(BLUE, "short")
    blue.agent.udp(OUTSIDE4, count=1)
    node.remove_pod(blue)
    red = node.add_pod(RED, "next", host=blue.host)
    red.agent.udp(OUTSIDE4, count=1)
    assert (red.v4, red.v6) == (blue.v4, blue.v6)
    assert forwarding.outside.seen() == {red.v4: 2}


def test_a_pod_that_is_steered_nowhere_reaches_nothing(forwarding: Laboratory) -> None:
    pod, other = forwarding.pod(BLUE, "n1"), forwarding.pod(BLUE, "n2")
    forwarding.nodes["n1"].steer(pod, v6=INNER6)
    for each in (pod, other):
        each.agent.udp(OUTSIDE4, count=1)
        each.agent.udp(OUTSIDE6, count=1)
    assert set(forwarding.outside.seen()) == {pod.v6, other.v4, other.v6}


def test_a_stranger_gets_to_a_pod_where_the_gateway_machine_merely_forwards(forwarding: Laboratory) -> None:
    forwarding.open_inbound()
    pod = forwarding.pod(BLUE)
    with Server(pod.net, "--http", "8080", "--udp", "", "--echo", "") as server:
        server.wait_until_ready()
        assert forwarding.outsider.fetch(pod.v4).error is None
        assert forwarding.outsider.fetch(pod.v6).error is None
    assert forwarding.outsider.fetch(pod.v6).error == "ECONNREFUSED"


def test_the_client_is_a_program_too(forwarding: Laboratory) -> None:
    forwarding.open_inbound()
    pod = forwarding.pod(BLUE)
    for deed, key, value in (("fetch", "source", str(pod.v4)), ("udp", "sources", {str(pod.v4): 20})):
        done = pod.net.run(python_module("outgate.lab.client", deed, str(OUTSIDE4)))
        assert json.loads(done.stdout)[key] == value
    with pod.net.popen(
        python_module("outgate.lab.client", "hold", str(OUTSIDE4), "-i", "0.01"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        eventually(lambda: forwarding.outside.seen().get(pod.v4, 0) > 80, "the flow is under way")
        report = json.loads(child.communicate()[0])
    assert report["answered"] > 0


def test_a_socket_made_inside_stays_inside() -> None:
    with two_hosts() as (left, right):
        with right.inside():
            listener = socket.create_server(("192.168.99.22", 9))
        with left.inside():
            caller = socket.create_connection(("192.168.99.22", 9))
        with listener, caller:
            assert listener.accept()[0].detach() > 0
            assert caller.getsockname()[0] == "192.168.99.21"


def test_what_a_program_said_is_in_the_error() -> None:
    with Namespace("alone") as net:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            net.run(("ip", "link", "set", "nothing", "up"))
        assert any("alone" in note and "nothing" in note for note in caught.value.__notes__)
        assert net.run(("false",), check=False).returncode == 1
        with pytest.raises(subprocess.TimeoutExpired):
            net.run(("sleep", "60"), timeout_s=0.05)
