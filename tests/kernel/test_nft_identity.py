"""Who is it? Pods' packets reach the gateway by a tenant's link or by the NIC, and leave as their tenant or not at all.

Tenants blue and red have a link and an egress IP each, of both families; see `tests.kernel.passage`. What is refused is
refused at once: the client is told, and outside not one packet is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.lab.batch import configure
from outgate.model.net import Address
from outgate.model.ruleset import Element
from outgate.model.spread import BUCKETS, bucket
from tests.kernel.passage import (
    BLUE,
    BLUE_LINK,
    FORWARDING,
    INNER,
    NEXT_HOPS,
    PORT,
    RED,
    REFUSED,
    UPLINK,
    V4,
    V6,
    Passage,
    Plan,
    listening,
    own,
    passing,
    seen_as,
    send,
    snat,
    tcp,
    told,
    udp,
)

BOTH = pytest.mark.parametrize("plan", [V4, V6], ids=str)
INNER_NEXT_HOP = {4: "192.168.99.11", 6: "fd99::11"}


@pytest.fixture
def passage() -> Iterator[Passage]:
    made = Passage()
    try:
        yield made
    finally:
        made.close()


def nobody_is_seen(passage: Passage, source: Address) -> bool:
    """Whether outside has never seen this address."""
    return source not in passage.leaks.seen()


@BOTH
def test_a_pod_leaves_as_the_tenant_whose_link_it_came_by(passage: Passage, plan: Plan) -> None:
    passage.load()

    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip
    assert seen_as(passage, plan.red, plan.server) == plan.red_ip
    assert passage.leaks.leaked([]) == 0
    assert passage.leaks.seen().keys() == {plan.blue_ip, plan.red_ip}


@BOTH
def test_a_pod_of_nobody_is_refused_at_once_and_never_seen_outside(passage: Passage, plan: Plan) -> None:
    passage.load()

    with listening(passage.outside, plan.server):
        assert told(passage, plan.nobody, plan.server) in REFUSED

    assert passage.stopped("no_identity") >= 1
    assert passage.leaks.seen() == {}


@BOTH
def test_a_flow_whose_tenant_goes_is_reset_instead_of_left_to_hang(passage: Passage, plan: Plan) -> None:
    passage.load()
    with listening(passage.outside, plan.server) as server, tcp(passage.node, plan.blue) as client:
        client.connect((str(plan.server), PORT))
        there, _ = server.accept()
        with there:
            passage.change((), [Element("id_link", (BLUE_LINK,), BLUE)])
            client.sendall(b"still there?")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert passage.stopped("no_identity") >= 1


@BOTH
def test_a_pod_is_told_by_its_address_where_its_tenant_is_told_by_source(passage: Passage, plan: Plan) -> None:
    passage.load(Element(f"id_pod{plan.version}", (plan.nobody,), RED))
    assert seen_as(passage, plan.nobody, plan.server) == plan.red_ip


@BOTH
def test_a_source_range_tells_a_tenant_and_a_pod_in_it_tells_another(passage: Passage, plan: Plan) -> None:
    passage.steer(plan.blue, INNER_NEXT_HOP[plan.version])
    configure(
        {passage.node: [("-6 " if plan.version == 6 else "") + f"route flush table {1000 + int(plan.blue) % 997}"]}
    )
    passage.load(
        Element(f"id_net{plan.version}", (plan.subnet,), RED), Element(f"id_pod{plan.version}", (plan.blue,), BLUE)
    )

    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip
    assert seen_as(passage, plan.nobody, plan.server) == plan.red_ip


@BOTH
def test_a_source_counts_for_nothing_on_a_tenants_link(passage: Passage, plan: Plan) -> None:
    passage.load(Element(f"id_pod{plan.version}", (plan.blue,), RED))
    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip


@BOTH
def test_a_source_of_no_node_may_not_use_a_tenants_next_hop(passage: Passage, plan: Plan) -> None:
    passage.load()
    passage.steer(plan.node, NEXT_HOPS[BLUE_LINK][plan.version == 6])

    with listening(passage.outside, plan.server):
        assert told(passage, plan.node, plan.server) in REFUSED

    assert passage.stopped("source_refused") >= 1
    assert passage.leaks.seen() == {}


@BOTH
def test_with_the_check_for_pods_only_the_tenants_own_pods_may_use_its_next_hop(passage: Passage, plan: Plan) -> None:
    passage.load(
        Element("check_pods", (BLUE,)),
        Element(f"pods_of{plan.version}", (BLUE, plan.blue)),
        Element(f"pods_of{plan.version}", (RED, plan.nobody)),
        without=[Element("check_nodes", (BLUE,))],
    )
    passage.steer(plan.nobody, NEXT_HOPS[BLUE_LINK][plan.version == 6])

    assert seen_as(passage, plan.blue, plan.server) == plan.blue_ip
    assert told(passage, plan.nobody, plan.server) in REFUSED
    assert passage.stopped("source_refused") >= 1


@BOTH
def test_without_a_check_every_source_may_use_a_tenants_next_hop(passage: Passage, plan: Plan) -> None:
    passage.load(without=[Element("check_nodes", (BLUE,))])
    passage.steer(plan.node, NEXT_HOPS[BLUE_LINK][plan.version == 6])
    assert seen_as(passage, plan.node, plan.server) == plan.blue_ip


@BOTH
def test_a_source_that_passes_is_forwarded_as_it_is(passage: Passage, plan: Plan) -> None:
    passage.load(passing(plan.lan_net))
    configure({passage.outside: [f"route add {plan.lan} via {plan.gateway}"]})
    assert seen_as(passage, plan.lan, plan.server) == plan.lan


@BOTH
def test_a_source_that_passes_may_be_translated_by_somebody_else(passage: Passage, plan: Plan) -> None:
    passage.load(passing(plan.lan_net))
    passage.gateway.run(("nft", "-f", "-"), input=masquerade())
    assert seen_as(passage, plan.lan, plan.server) == plan.gateway


def masquerade() -> str:
    return f"""
table inet foreign {{
  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{UPLINK}" masquerade
  }}
}}
"""


@BOTH
def test_what_a_packet_was_marked_with_before_it_came_makes_nobody_a_tenant(passage: Passage, plan: Plan) -> None:
    passage.load()
    passage.gateway.run(
        ("nft", "-f", "-"),
        input=f"""
table inet foreign {{
  chain marks {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{INNER}" meta mark set {BLUE:#x}
  }}
}}
""",
    )
    assert told(passage, plan.nobody, plan.server) in REFUSED
    assert passage.leaks.seen() == {}


@BOTH
def test_a_pod_reaches_the_gateway_machine_itself_without_a_tenant(passage: Passage, plan: Plan) -> None:
    passage.load()
    here = IPv4Address("192.168.99.11") if plan.version == 4 else IPv6Address("fd99::11")
    with listening(passage.gateway, here):
        assert told(passage, plan.nobody, here) == 0


@BOTH
def test_the_gateway_machine_reaches_a_pod_and_gets_its_answer(passage: Passage, plan: Plan) -> None:
    passage.load()
    here = IPv4Address("192.168.99.11") if plan.version == 4 else IPv6Address("fd99::11")
    with listening(passage.node, plan.blue), tcp(passage.gateway, here) as client:
        client.connect((str(plan.blue), PORT))


@BOTH
def test_each_source_of_a_tenant_with_several_egress_ips_keeps_to_the_one_that_its_hash_says(
    passage: Passage, plan: Plan
) -> None:
    ips = (plan.blue_ip, plan.blue_second)
    second = BLUE | 1
    passage.load(
        Element("spread", (BLUE_LINK,)),
        *(Element("id_spread", (BLUE_LINK, number), BLUE | number % 2) for number in range(BUCKETS)),
        Element("tenant_of", (second,), BLUE),
        Element("check_nodes", (second,)),
        snat(second, plan.blue_second),
        *(own(mark, ip) for mark in (BLUE, second) for ip in ips),
        without=[Element("id_link", (BLUE_LINK,), BLUE)],
    )
    sources = [type(plan.blue)(int(plan.subnet.first) + number) for number in range(20, 84)]
    passage.add(passage.node, "lo", *sources)
    for source in sources:
        passage.steer(source, NEXT_HOPS[BLUE_LINK][plan.version == 6])

    seen = {source: seen_as(passage, source, plan.server) for source in sources}

    assert seen == {source: ips[bucket(source) % 2] for source in sources}
    assert set(seen.values()) == set(ips)
    assert {mark for (name, mark), _ in passage.counts().accounts.items() if name == "sent"} == {BLUE, RED}


@BOTH
def test_a_source_whose_slot_is_missing_is_refused_and_counted(passage: Passage, plan: Plan) -> None:
    there = (number for number in range(BUCKETS) if number != bucket(plan.blue))
    passage.load(
        Element("spread", (BLUE_LINK,)),
        *(Element("id_spread", (BLUE_LINK, number), BLUE) for number in there),
        without=[Element("id_link", (BLUE_LINK,), BLUE)],
    )
    assert told(passage, plan.blue, plan.server) in REFUSED
    assert passage.stopped("no_identity") >= 1


@BOTH
def test_the_kernel_and_the_planner_agree_on_the_bucket_of_any_source(passage: Passage, plan: Plan) -> None:
    field = "ip" if plan.version == 4 else "ip6"
    counters = "".join(f"  counter b{number} {{ }}\n" for number in range(BUCKETS))
    rules = "".join(
        f"    {field} saddr @known jhash {field} saddr mod 16 seed 0x6f {n} counter name b{n}\n" for n in range(16)
    )
    first, step = int(plan.cluster.first), (0x7A3F if plan.version == 4 else 0x9E3779B97F4A7C15 % (1 << 70)) | 1
    sources = [type(plan.blue)(first + (number * step) % (int(plan.cluster.last) - first)) for number in range(1, 201)]
    listed = ", ".join(map(str, sources))
    text = f"""
table inet hash {{
{counters}
  set known {{ type {"ipv4_addr" if plan.version == 4 else "ipv6_addr"}; elements = {{ {listed} }} }}
  chain out {{
    type filter hook output priority raw; policy accept;
{rules}
  }}
}}
"""
    passage.node.run(("nft", "-f", "-"), input=text)
    passage.add(passage.node, "lo", *sources)
    for source in sources:
        with udp(passage.node, source) as pod:
            send(pod, plan.nobody)

    counted = passage.node.run(("nft", "list", "counters", "table", "inet", "hash")).stdout.split()
    packets = [int(counted[place + 1]) for place, word in enumerate(counted) if word == "packets"]
    expected = [sum(bucket(source) == number for source in sources) for number in range(BUCKETS)]
    assert sorted(packets) == sorted(expected)
    assert sum(packets) == len(sources)


@BOTH
def test_an_icmp_error_from_the_nodes_side_leaves_as_the_flows_egress_ip(passage: Passage, plan: Plan) -> None:
    passage.load()
    for path in FORWARDING:
        passage.node.sysctl(path, 1)
    with udp(passage.node, plan.blue) as pod, udp(passage.outside, plan.server, PORT) as server:
        send(pod, plan.server)
        content, seen = server.recvfrom(100)
        server.connect(seen)
        pod_is_gone = f"addr del {plan.blue}/{plan.blue.max_prefixlen} dev lo"
        node_says_so = f"route add prohibit {plan.blue}/{plan.blue.max_prefixlen}"  # from its own address, by the NIC
        configure({passage.node: [pod_is_gone, node_says_so]})
        passage.leaks.reset()
        server.send(content)
        with pytest.raises(OSError, match=r"No route to host|Permission denied"):
            server.recv(100)
    assert passage.leaks.seen() == {plan.blue_ip: 1}
