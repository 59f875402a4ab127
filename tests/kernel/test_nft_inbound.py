"""What comes from outside? Answers to tenants get in, and what the tenant allows; all else is dropped or refused.

Outside knows a way to the pods and to the egress IPs, and uses it; see `tests.kernel.passage` for the three machines.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace
from outgate.lab.waiting import eventually
from outgate.model.net import Address
from outgate.model.ruleset import Element
from tests.kernel.passage import (
    BLUE,
    FORWARDING,
    LAN,
    LIMIT_S,
    PORT,
    UPLINK,
    V4,
    V6,
    Passage,
    Plan,
    dropped,
    listening,
    passing,
    seen_as,
    send,
    tcp,
    udp,
)

BOTH = pytest.mark.parametrize("plan", [V4, V6], ids=str)
SERVICE = 22
NO_ROUTE = r"No route to host|Permission denied"
INNER_ADDRESS: dict[int, Address] = {4: IPv4Address("192.168.99.11"), 6: IPv6Address("fd99::11")}
PODS = {4: "10.128.0.0/14", 6: "fd01::/48"}
NEIGHBOUR_SOLICIT, NEIGHBOUR_ADVERT = 135, 136
IP_MTU, IP_MTU_DISCOVER, IPV6_MTU, IPV6_MTU_DISCOVER, DO = 14, 10, 24, 23, 2


@pytest.fixture
def passage() -> Iterator[Passage]:
    made = Passage()
    try:
        yield made
    finally:
        made.close()


def six(plan: Plan) -> str:
    return "-6 " if plan.version == 6 else ""


def way_in(passage: Passage, plan: Plan, prefix: str = "") -> None:
    """Let outside know a way to the pods, or another prefix, through the gateway."""
    configure({passage.outside: [f"route add {prefix or PODS[plan.version]} via {plan.gateway}"]})


def redirect(passage: Passage, plan: Plan, to: Address, port: int) -> None:
    """Load somebody else's rule that redirects calls of the egress IP elsewhere, as kube-proxy and Docker do."""
    family = "ip" if plan.version == 4 else "ip6"
    spot = f"{to}:{port}" if plan.version == 4 else f"[{to}]:{port}"
    passage.gateway.run(
        ("nft", "-f", "-"),
        input=f"""
table inet foreign {{
  chain elsewhere {{
    type nat hook prerouting priority dstnat; policy accept;
    {family} daddr {plan.blue_ip} tcp dport {SERVICE} dnat {family} to {spot}
  }}
}}
""",
    )


@BOTH
def test_a_new_flow_from_outside_into_the_pods_is_dropped(passage: Passage, plan: Plan) -> None:
    passage.load()
    way_in(passage, plan)
    with udp(passage.node, plan.blue, PORT) as pod, udp(passage.outside, plan.server) as caller:
        pod.setblocking(False)
        send(caller, plan.blue)
        dropped(passage, "inbound_dropped")
        with pytest.raises(BlockingIOError):
            pod.recv(10)


@BOTH
def test_a_flow_that_outside_opened_before_the_table_was_there_goes_neither_way(passage: Passage, plan: Plan) -> None:
    tracking = (
        "table inet foreign {\n  chain any {\n    type filter hook forward priority 0;\n    ct state new\n  }\n}\n"
    )
    passage.gateway.run(("nft", "-f", "-"), input=tracking)
    way_in(passage, plan)
    with udp(passage.node, plan.blue, PORT) as pod, udp(passage.outside, plan.server) as caller:
        send(caller, plan.blue)
        _, seen = pod.recvfrom(10)
        pod.sendto(b"open", seen)
        assert caller.recv(10) == b"open", "the situation: the gateway is a router into the cluster"
        passage.leaks.reset()

        passage.load()

        send(caller, plan.blue)
        dropped(passage, "inbound_dropped")
        pod.sendto(b"leak", seen)
        dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_new_flow_to_an_egress_ip_is_refused_though_the_machine_listens_there(passage: Passage, plan: Plan) -> None:
    passage.load()
    with (
        listening(passage.gateway, plan.blue_ip, SERVICE),
        tcp(passage.outside, plan.server) as caller,
        pytest.raises(OSError, match=NO_ROUTE),
    ):
        caller.connect((str(plan.blue_ip), SERVICE))
    assert passage.stopped("inbound_refused") >= 1


@BOTH
def test_a_pod_is_refused_at_an_egress_ip_as_outside_is(passage: Passage, plan: Plan) -> None:
    passage.load()
    with (
        listening(passage.gateway, plan.red_ip, SERVICE),
        tcp(passage.node, plan.blue) as caller,
        pytest.raises(OSError, match=NO_ROUTE),
    ):
        caller.connect((str(plan.red_ip), SERVICE))


@BOTH
def test_a_redirection_of_somebody_else_never_sees_a_call_that_is_refused(passage: Passage, plan: Plan) -> None:
    redirect(passage, plan, plan.blue, PORT)
    passage.load()
    with (
        listening(passage.node, plan.blue),
        tcp(passage.outside, plan.server) as caller,
        pytest.raises(OSError, match=NO_ROUTE),
    ):
        caller.connect((str(plan.blue_ip), SERVICE))
    assert passage.stopped("inbound_refused") >= 1


@BOTH
def test_what_the_tenant_allows_is_answered_by_the_machine(passage: Passage, plan: Plan) -> None:
    passage.load(Element(f"allowed_port{plan.version}", (plan.blue_ip, "tcp", SERVICE)))
    with listening(passage.gateway, plan.blue_ip, SERVICE) as server, tcp(passage.outside, plan.server) as caller:
        caller.connect((str(plan.blue_ip), SERVICE))
        with server.accept()[0] as there:
            there.sendall(b"hello")
            assert caller.recv(5) == b"hello"


@BOTH
def test_a_port_that_is_allowed_for_one_protocol_and_address_is_not_for_another(passage: Passage, plan: Plan) -> None:
    passage.load(Element(f"allowed_port{plan.version}", (plan.blue_ip, "tcp", SERVICE)))
    with udp(passage.outside, plan.server) as caller:
        send(caller, plan.blue_ip, SERVICE)
        send(caller, plan.red_ip, SERVICE)
        dropped(passage, "inbound_refused", 2)


@BOTH
def test_what_the_tenant_allows_somebody_else_may_redirect_but_not_into_the_pods(passage: Passage, plan: Plan) -> None:
    redirect(passage, plan, plan.blue, PORT)
    passage.load(Element(f"allowed_port{plan.version}", (plan.blue_ip, "tcp", SERVICE)))
    with listening(passage.node, plan.blue), tcp(passage.outside, plan.server) as caller:
        caller.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            caller.connect((str(plan.blue_ip), SERVICE))
        dropped(passage, "inbound_dropped")


@BOTH
def test_an_egress_ip_answers_pings_only_where_the_tenant_allows_them(passage: Passage, plan: Plan) -> None:
    protocol = "icmp" if plan.version == 4 else "ipv6-icmp"
    passage.load(Element(f"allowed_proto{plan.version}", (plan.blue_ip, protocol)))
    passage.outside.run(("ping", "-c", "1", "-W", "5", "-I", str(plan.server), str(plan.blue_ip)))
    refused = passage.outside.run(("ping", "-c", "1", "-W", "5", "-I", str(plan.server), str(plan.red_ip)), check=False)
    assert refused.returncode == 1
    assert passage.stopped("inbound_refused") == 1


@pytest.mark.parametrize("reverse_path", [0, 1, 2])
@BOTH
def test_answers_get_in_past_policy_routing_and_any_reverse_path_filter(
    passage: Passage, plan: Plan, reverse_path: int
) -> None:
    configure(
        {passage.gateway: [six(plan) + f"rule add pref 110 from {PODS[plan.version]} fwmark 0/0x00ffff00 prohibit"]}
    )
    passage.gateway.sysctl(f"net/ipv4/conf/{UPLINK}/rp_filter", reverse_path)
    passage.gateway.sysctl(f"net/ipv4/conf/{UPLINK}/src_valid_mark", 1)
    passage.load()

    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip
    assert passage.counts().accounts["received", BLUE].packets == 1


@BOTH
def test_an_answer_that_finds_no_way_back_in_does_not_go_out_again(passage: Passage, plan: Plan) -> None:
    passage.load()
    subnet = "10.128.1.0/24" if plan.version == 4 else "fd01:0:0:1::/64"
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        _, seen = server.recvfrom(10)
        passage.leaks.reset()
        configure({passage.gateway: [f"route del {subnet}"]})
        server.sendto(b"back", seen)
        dropped(passage, "inbound_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_server_whose_flow_the_gateway_forgot_is_reset_instead_of_left_to_hang(passage: Passage, plan: Plan) -> None:
    passage.load()
    with listening(passage.outside, plan.server) as server, tcp(passage.node, plan.blue) as client:
        client.connect((str(plan.server), PORT))
        with server.accept()[0] as there:
            there.settimeout(LIMIT_S)
            passage.gateway.run(("conntrack", "-F"))
            there.sendall(b"are you there?")
            with pytest.raises(ConnectionResetError):
                there.recv(1)
    assert passage.stopped("inbound_refused") >= 1


def test_a_neighbour_may_ask_an_egress_ip_itself_whether_it_still_lives_there(passage: Passage) -> None:
    passage.load()
    with passage.outside.inside():
        index = socket.if_nametoindex(LAN)
        neighbour = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with neighbour:
        neighbour.settimeout(LIMIT_S)
        neighbour.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        neighbour.bind((str(V6.router), 0, 0, 0))
        assert seen_as(passage, V6.blue, V6.server) == V6.blue_ip  # so that both know the other's MAC already
        solicit = struct.pack("!BBHI", NEIGHBOUR_SOLICIT, 0, 0, 0) + V6.blue_ip.packed
        neighbour.sendto(solicit, (str(V6.blue_ip), 0, 0, index))
        answers = iter(lambda: neighbour.recv(100), b"")
        advert = next(answer for answer in answers if answer[0] == NEIGHBOUR_ADVERT)
    assert advert[8:24] == V6.blue_ip.packed
    assert passage.stopped("inbound_refused") == 0


@contextlib.contextmanager
def far_server(passage: Passage, plan: Plan, mtu: int) -> Iterator[tuple[Namespace, Address]]:
    """A server behind a router outside, over a link with a smaller MTU, and its address."""
    here, there, length = ("10.9.9.1", "10.9.9.2", 24) if plan.version == 4 else ("fd09::1", "fd09::2", 64)
    nodad = " nodad" if plan.version == 6 else ""
    with Namespace("far") as far:
        lines = [
            cable("far0", 9, to=far, link=LAN),
            f"link set far0 mtu {mtu} up",
            f"addr add {here}/{length} dev far0{nodad}",
        ]
        configure({passage.outside: lines})
        for path in FORWARDING:
            passage.outside.sysctl(path, 1)
        ends = [
            f"link set {LAN} mtu {mtu} up",
            f"addr add {there}/{length} dev {LAN}{nodad}",
            f"route add default via {here}",
        ]
        configure({far: ends})
        yield far, (IPv4Address(there) if plan.version == 4 else IPv6Address(there))


@pytest.mark.parametrize("reverse_path", [0, 1])
@BOTH
def test_a_routers_word_that_a_packet_is_too_big_reaches_the_pod(
    passage: Passage, plan: Plan, reverse_path: int
) -> None:
    configure(
        {passage.gateway: [six(plan) + f"rule add pref 110 from {PODS[plan.version]} fwmark 0/0x00ffff00 prohibit"]}
    )
    passage.gateway.sysctl(f"net/ipv4/conf/{UPLINK}/rp_filter", reverse_path)
    passage.gateway.sysctl(f"net/ipv4/conf/{UPLINK}/src_valid_mark", 1)
    passage.load()
    level, discover, known = (
        (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
        if plan.version == 4
        else (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)
    )
    with far_server(passage, plan, 1300) as (_, server), udp(passage.node, plan.blue) as pod:
        pod.setsockopt(level, discover, DO)
        pod.connect((str(server), PORT))
        assert pod.getsockopt(level, known) == 1500

        pod.send(bytes(1400))

        eventually(lambda: pod.getsockopt(level, known) == 1300, "the pod knows the MTU of the path")
    assert passage.leaks.leaked([]) == 0


@BOTH
def test_outside_may_not_use_a_closed_uplink_as_a_way_into_the_lan(passage: Passage, plan: Plan) -> None:
    passage.load(Element("closed", (UPLINK,)), passing(plan.lan_net))
    way_in(passage, plan, "192.168.99.0/24" if plan.version == 4 else "fd99::/64")
    with udp(passage.node, plan.lan, PORT) as machine, udp(passage.outside, plan.server) as caller:
        machine.setblocking(False)
        send(caller, plan.lan)
        dropped(passage, "through_dropped")
        with pytest.raises(BlockingIOError):
            machine.recv(10)


@BOTH
def test_a_machine_of_the_lan_that_passes_gets_its_answers_through_a_closed_uplink(
    passage: Passage, plan: Plan
) -> None:
    passage.load(Element("closed", (UPLINK,)), passing(plan.lan_net))
    way_in(passage, plan, "192.168.99.0/24" if plan.version == 4 else "fd99::/64")
    assert seen_as(passage, plan.lan, plan.server) == plan.lan


@BOTH
def test_an_uplink_that_served_the_lan_before_goes_on_doing_so(passage: Passage, plan: Plan) -> None:
    passage.load(passing(plan.lan_net))
    way_in(passage, plan, "192.168.99.0/24" if plan.version == 4 else "fd99::/64")
    with udp(passage.node, plan.lan, PORT) as machine, udp(passage.outside, plan.server) as caller:
        send(caller, plan.lan)
        content, seen = machine.recvfrom(10)
        machine.sendto(content, seen)
        assert caller.recv(10) == content


@BOTH
def test_the_machines_own_flows_are_left_alone(passage: Passage, plan: Plan) -> None:
    passage.load(Element("closed", (UPLINK,)))
    with listening(passage.outside, plan.server), tcp(passage.gateway, plan.gateway) as client:
        client.connect((str(plan.server), PORT))
    with listening(passage.gateway, INNER_ADDRESS[plan.version]), tcp(passage.node, plan.node) as client:
        client.connect((str(INNER_ADDRESS[plan.version]), PORT))
