"""As whom, and by which way? A tenant's packets leave by an uplink with an address of their tenant, or not at all.

Tenants blue and red have a link and an egress IP each, of both families; see `tests.kernel.passage`. What outside has
seen is the only oracle about leaks.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace
from outgate.model.net import Address
from outgate.model.ruleset import Element
from tests.kernel.passage import (
    BLUE,
    BLUE_LINK,
    INNER,
    LAN,
    NEXT_HOPS,
    PORT,
    RED_LINK,
    REFUSED,
    UPLINK,
    V4,
    V6,
    Passage,
    Plan,
    dropped,
    listening,
    only,
    own,
    seen_as,
    send,
    snat,
    span,
    tcp,
    told,
    udp,
)

BOTH = pytest.mark.parametrize("plan", [V4, V6], ids=str)
SECOND_INNER = "enp2s0"
POD_SOURCES = ("10.128.0.0/14", "fd01::/48")


@pytest.fixture
def passage() -> Iterator[Passage]:
    made = Passage()
    try:
        yield made
    finally:
        made.close()


def six(plan: Plan) -> str:
    """What a line of `ip -batch` begins with when only the family says what it means."""
    return "-6 " if plan.version == 6 else ""


def foreign(passage: Passage, chain: str) -> None:
    """Load somebody else's table with one chain."""
    passage.gateway.run(("nft", "-f", "-"), input=f"table inet foreign {{\n  chain theirs {{\n{chain}\n  }}\n}}\n")


def nat(rule: str) -> str:
    return f"    type nat hook postrouting priority srcnat; policy accept;\n    {rule}"


@BOTH
def test_a_destination_with_an_egress_ip_of_its_own_sees_that_one(passage: Passage, plan: Plan) -> None:
    passage.load(
        Element(f"snat_to{plan.version}", (BLUE, only(plan.other)), plan.blue_second), own(BLUE, plan.blue_second)
    )
    assert seen_as(passage, plan.blue, plan.other) == plan.blue_second
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip


@BOTH
def test_a_range_of_destinations_has_its_egress_ip_up_to_its_last_address(passage: Passage, plan: Plan) -> None:
    before = type(plan.other)(int(plan.other) - 3)
    special = Element(
        f"snat_to{plan.version}", (BLUE, type(plan.cluster)(first=before, last=plan.other)), plan.blue_second
    )
    beyond = type(plan.other)(int(plan.other) + 1)
    passage.add(passage.outside, "lo", beyond)
    passage.load(special, own(BLUE, plan.blue_second))

    assert seen_as(passage, plan.blue, plan.other) == plan.blue_second
    assert seen_as(passage, plan.blue, beyond) == plan.blue_ip


@BOTH
def test_without_a_translation_nothing_leaves(passage: Passage, plan: Plan) -> None:
    passage.load(without=[snat(BLUE, plan.blue_ip)])
    with udp(passage.node, plan.blue) as pod:
        send(pod, plan.server)
    dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
@pytest.mark.parametrize("instead", ["red_ip", "gateway", "blue_second"])
def test_a_tenant_never_leaves_with_an_address_that_is_not_its_own(passage: Passage, plan: Plan, instead: str) -> None:
    passage.load(snat(BLUE, getattr(plan, instead)))
    with udp(passage.node, plan.blue) as pod:
        send(pod, plan.server)
    dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_masquerade_that_was_there_first_does_not_win(passage: Passage, plan: Plan) -> None:
    foreign(passage, nat(f'oifname "{UPLINK}" masquerade'))
    passage.load()
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip


@BOTH
def test_a_masquerade_of_somebody_else_does_not_stand_in_for_a_missing_translation(
    passage: Passage, plan: Plan
) -> None:
    foreign(passage, nat(f'oifname "{UPLINK}" masquerade'))
    passage.load(without=[snat(BLUE, plan.blue_ip)])
    with udp(passage.node, plan.blue) as pod:
        send(pod, plan.server)
    dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_new_egress_ip_is_for_new_flows_while_old_ones_keep_theirs(passage: Passage, plan: Plan) -> None:
    passage.load()
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        assert server.recvfrom(10)[1][0] == str(plan.blue_ip)

        passage.change([snat(BLUE, plan.blue_second), own(BLUE, plan.blue_second)])

        send(pod, plan.server)
        assert server.recvfrom(10)[1][0] == str(plan.blue_ip)
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_second


@BOTH
def test_a_flow_on_an_address_that_its_tenant_lost_is_stopped(passage: Passage, plan: Plan) -> None:
    passage.load()
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        server.recv(10)
        passage.leaks.reset()

        passage.change([snat(BLUE, plan.blue_second), own(BLUE, plan.blue_second)], [own(BLUE, plan.blue_ip)])

        send(pod, plan.server)
        dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_pod_that_moved_to_another_tenant_does_not_take_its_old_address_along(passage: Passage, plan: Plan) -> None:
    passage.load()
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        server.recv(10)
        passage.leaks.reset()

        passage.steer(plan.blue, NEXT_HOPS[RED_LINK][plan.version == 6])

        send(pod, plan.server)
        dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_default_route_by_the_inner_nic_is_refused_and_not_followed(passage: Passage, plan: Plan) -> None:
    passage.load()
    configure({passage.gateway: [f"route replace default via {plan.lan} dev {INNER}"]})

    assert told(passage, plan.blue, plan.server) in REFUSED

    assert passage.stopped("internal_refused") >= 1
    assert passage.leaks.seen() == {}


@BOTH
def test_a_link_that_is_no_uplink_is_no_way_out(passage: Passage, plan: Plan) -> None:
    passage.load()
    with Namespace("elsewhere") as elsewhere:
        configure({passage.gateway: [cable("mgmt0", 7, to=elsewhere, link=LAN), "link set mgmt0 up"]})
        configure({passage.gateway: [f"route add {plan.server} dev mgmt0"], elsewhere: [f"link set {LAN} up"]})

        assert told(passage, plan.blue, plan.server) in REFUSED

    assert passage.stopped("wrong_exit") >= 1


@contextlib.contextmanager
def second_inner(passage: Passage, *addresses: Address) -> Iterator[Namespace]:
    """Give the gateway a second inner NIC, and a machine there that has these addresses and its default route here."""
    with Namespace("storage") as machine:
        machine.sysctl("net/ipv6/conf/default/accept_dad", 0)
        lines = [
            cable(SECOND_INNER, 8, to=machine, link=LAN),
            f"addr add 192.168.98.1/24 dev {SECOND_INNER}",
            f"addr add fd98::1/64 dev {SECOND_INNER} nodad",
            f"link set {SECOND_INNER} up",
        ]
        configure({passage.gateway: lines})
        there = [
            f"link set {LAN} up",
            f"addr add 192.168.98.5/24 dev {LAN}",
            f"addr add fd98::5/64 dev {LAN} nodad",
            "route add default via 192.168.98.1",
            "route add default via fd98::1",
        ]
        configure({machine: there})
        passage.add(machine, LAN, *addresses)
        yield machine


INTERNAL: dict[int, tuple[Address, str, str]] = {
    4: (IPv4Address("172.20.0.5"), "172.20.0.0/16", "192.168.98.5"),
    6: (IPv6Address("fd20::5"), "fd20::/64", "fd98::5"),
}
SECOND = [Element(name, (SECOND_INNER,)) for name in ("inner", "nics")]


@BOTH
def test_an_internal_destination_is_reached_untranslated_and_may_answer(passage: Passage, plan: Plan) -> None:
    storage, prefix, via = INTERNAL[plan.version]
    passage.load(*SECOND, Element(f"internal{plan.version}", (SECOND_INNER, span(prefix))))
    with second_inner(passage, storage) as machine:
        configure({passage.gateway: [f"route add {prefix} via {via}"]})
        with listening(machine, storage) as server, tcp(passage.node, plan.blue) as client:
            client.connect((str(storage), PORT))
            there, (seen, *_) = server.accept()
            with there:
                there.sendall(b"hello")
                assert client.recv(5) == b"hello"
    assert seen == str(plan.blue)
    assert passage.stopped("internal_passed") >= 2
    assert passage.leaks.seen() == {}


@BOTH
def test_an_internal_destination_that_is_not_listed_is_refused(passage: Passage, plan: Plan) -> None:
    storage, prefix, via = INTERNAL[plan.version]
    passage.load(*SECOND)
    with second_inner(passage, storage) as machine, listening(machine, storage):
        configure({passage.gateway: [f"route add {prefix} via {via}"]})
        assert told(passage, plan.blue, storage) in REFUSED
    assert passage.stopped("internal_refused") >= 1


@BOTH
def test_an_internal_destination_opens_no_flow_into_the_pods(passage: Passage, plan: Plan) -> None:
    storage, prefix, via = INTERNAL[plan.version]
    passage.load(*SECOND, Element(f"internal{plan.version}", (SECOND_INNER, span(prefix))))
    with second_inner(passage, storage) as machine, listening(passage.node, plan.blue):
        configure({passage.gateway: [f"route add {prefix} via {via}"]})
        with tcp(machine, storage) as client, pytest.raises(OSError, match=r"No route|Permission"):
            client.connect((str(plan.blue), PORT))
    assert passage.stopped("no_identity") >= 1


@BOTH
def test_an_internal_destination_that_is_routed_out_of_an_uplink_is_still_translated(
    passage: Passage, plan: Plan
) -> None:
    passage.load(Element(f"internal{plan.version}", (INNER, only(plan.server))))
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip


@BOTH
def test_what_somebody_takes_out_of_connection_tracking_does_not_leave(passage: Passage, plan: Plan) -> None:
    passage.load()
    foreign(passage, f'    type filter hook prerouting priority raw; policy accept;\n    iifname "{BLUE_LINK}" notrack')
    with udp(passage.node, plan.blue) as pod:
        send(pod, plan.server)
    dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_flow_that_left_untranslated_before_the_table_was_there_is_stopped(passage: Passage, plan: Plan) -> None:
    foreign(passage, nat(f'oifname "{UPLINK}" ct mark 1 masquerade'))  # so that connection tracking is at work
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        assert server.recvfrom(10)[1][0] == str(plan.blue), "the situation: it leaks"
        passage.leaks.reset()

        passage.load()

        for number in range(1, 6):
            send(pod, plan.server)
            dropped(passage, "guard_dropped", number)
    assert passage.leaks.seen() == {}


@BOTH
def test_a_flow_that_somebody_translated_to_the_tenants_address_before_goes_on_and_is_the_tenants(
    passage: Passage, plan: Plan
) -> None:
    family = "ip6" if plan.version == 6 else "ip"
    foreign(passage, nat(f'iifname "{BLUE_LINK}" oifname "{UPLINK}" snat {family} to {plan.blue_ip}'))
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        _, seen = server.recvfrom(10)

        passage.load()

        send(pod, plan.server)
        assert server.recvfrom(10)[1] == seen
        server.sendto(b"back", seen)
        assert pod.recv(10) == b"back"
    assert passage.counts().accounts["received", BLUE].packets == 1


@BOTH
def test_a_segment_that_belongs_to_no_flow_is_dropped_where_nothing_would_translate_it(
    passage: Passage, plan: Plan
) -> None:
    passage.load()
    passage.gateway.sysctl("net/netfilter/nf_conntrack_tcp_loose", 0)
    with listening(passage.outside, plan.server) as server, tcp(passage.node, plan.blue) as client:
        client.connect((str(plan.server), PORT))
        with server.accept()[0]:
            passage.gateway.run(("conntrack", "-F"))
            passage.leaks.reset()
            client.sendall(b"lost")
            dropped(passage, "invalid")
    assert passage.leaks.seen() == {}


@BOTH
def test_the_machine_itself_does_not_leave_with_a_pods_address(passage: Passage, plan: Plan) -> None:
    passage.load()
    passage.add(passage.gateway, "lo", plan.nobody)
    with udp(passage.gateway, plan.nobody) as local, contextlib.suppress(PermissionError):
        send(local, plan.server)
    dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_pod_that_comes_by_a_link_nobody_declared_is_stopped_by_the_guard(passage: Passage, plan: Plan) -> None:
    passage.load(without=[Element("inner", (INNER,)), Element("nics", (INNER,))])
    with udp(passage.node, plan.nobody) as pod:
        send(pod, plan.server)
    dropped(passage, "guard_dropped")
    assert passage.leaks.seen() == {}


@BOTH
def test_a_ping_is_translated_and_answered(passage: Passage, plan: Plan) -> None:
    passage.load()
    passage.node.run(("ping", "-c", "1", "-W", "5", "-I", str(plan.blue), str(plan.server)))
    assert passage.leaks.seen() == {plan.blue_ip: 1}


@BOTH
def test_the_machines_own_neighbour_discovery_and_multicast_reports_are_not_taken_for_tenants(
    passage: Passage, plan: Plan
) -> None:
    passage.load()
    for link in (BLUE_LINK, INNER):  # joining and leaving a group makes the kernel report it, by every inner link
        index = link_index(passage, link)
        with passage.gateway.inside(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as member:
            group = socket.inet_pton(socket.AF_INET6, "ff02::6f") + index.to_bytes(4, "little")
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip
    assert passage.stopped("guard_dropped") == 0


def link_index(passage: Passage, link: str) -> int:
    with passage.gateway.inside():
        return socket.if_nametoindex(link)


@BOTH
def test_with_policy_routing_nothing_leaves_while_the_table_is_gone(passage: Passage, plan: Plan) -> None:
    source = POD_SOURCES[plan.version == 6]
    configure({passage.gateway: [six(plan) + f"rule add pref 110 from {source} fwmark 0/0x00ffff00 prohibit"]})
    passage.load()
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip
    passage.leaks.reset()

    passage.gateway.run(("nft", "flush", "ruleset"))

    assert told(passage, plan.red, plan.server) in REFUSED
    assert passage.leaks.seen() == {}


@BOTH
def test_a_flow_of_nobody_is_counted_though_policy_routing_would_stop_it_too(passage: Passage, plan: Plan) -> None:
    source = POD_SOURCES[plan.version == 6]
    configure({passage.gateway: [six(plan) + f"rule add pref 110 from {source} fwmark 0/0x00ffff00 prohibit"]})
    passage.load()
    with udp(passage.node, plan.nobody) as pod:
        send(pod, plan.server)
    dropped(passage, "no_identity")
    assert passage.leaks.seen() == {}
