"""Several next hops in the mirror of a secondary NIC: they come, go and change in one step, whoever interferes.

The setting is that of `tests.kernel.mirror`; the partner 203.0.113.0/24 (2001:db8:113::/48) is reached by two of three
routers on the LAN of eth1.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from outgate.lab.batch import configure
from outgate.lab.namespace import Namespace
from outgate.lab.waiting import eventually
from outgate.model.net import OWN_PROTOCOL, Route
from outgate.systems.kernel.messages import RTMSG
from outgate.systems.kernel.outbox import Boundary, no_boundary
from outgate.systems.kernel.uapi import NETLINK_ROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE
from outgate.systems.netlink import HEADER_SIZE, NetlinkSocket, header
from tests.kernel.mirror import MANAGEMENT, NEAR, PARTNER, PODS, Mirror, host, load, matched, mirroring, partners, way


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with host("host") as net, mirroring(net) as made:
        yield made


def in_table(mirror: Mirror, version: int) -> list[str]:
    """What other programs see of the partner's route in the mirror: one line for each leg, or one for all."""
    shown = mirror.net.run(("ip", f"-{version}", "route", "show", PARTNER[version], "table", "all", "proto", "111"))
    return [" ".join(line.split()) for line in shown.stdout.splitlines()]


@pytest.mark.parametrize("version", [4, 6])
def test_routes_change_between_one_next_hop_several_and_none_in_one_step(mirror: Mirror, version: int) -> None:
    first, second, third = (f"via {one} dev eth1" for one in NEAR[version])
    steps = [
        (first, {NEAR[version][0]: 0}),
        (f"nexthop {first} nexthop {second}", {NEAR[version][0]: 1, NEAR[version][1]: 1}),
        (f"nexthop {second} nexthop {third} weight 9", {NEAR[version][1]: 1, NEAR[version][2]: 9}),
        (f"nexthop {second} weight 9 nexthop {third}", {NEAR[version][1]: 9, NEAR[version][2]: 1}),
        (third, {NEAR[version][2]: 0}),
        ("blackhole", {}),
        (f"nexthop {first} nexthop {third} nexthop {second}", dict.fromkeys(NEAR[version], 1)),
        ("prohibit", {}),
    ]
    group = RTNLGRP_IPV4_ROUTE if version == 4 else RTNLGRP_IPV6_ROUTE
    mirror.round()
    with mirror.net.inside():
        listener = NetlinkSocket(NETLINK_ROUTE)
    with listener:
        for number, (hops, expected) in enumerate(steps):
            said = f"{PARTNER[version]} {hops}" if expected else f"{hops} {PARTNER[version]}"
            load(mirror.net, [f"route replace {said}"])
            if not number:
                listener.subscribe([group])

            planned, failures = mirror.round()

            assert (len(planned.make), planned.drop, failures) == (max(len(expected), 1), (), ())
            assert way(mirror, version).legs == {("eth1", *leg) for leg in expected.items()}
            assert way(mirror, version).discarded == ("" if expected else hops)
            mirror.settled()
        kinds = [header(message).kind for message in listener.events() if told_by_us(message)]
    assert set(kinds) == {RTM_NEWROUTE}


def told_by_us(message: memoryview) -> bool:
    """Whether a notification is about a route of ours."""
    return bool(RTMSG.unpack_from(message, HEADER_SIZE)[5] == OWN_PROTOCOL)


TAMPERINGS = {
    4: (
        "del {at}",
        "del {at} via {first}",
        "append {at} via {third} dev eth1",
        "append {at} nexthop via {third} dev eth1 nexthop via {second} dev eth1",
        "replace {at} via {first} dev eth1",
        "replace {at} nexthop via {first} dev eth1 nexthop via {second} dev eth1",
        "replace blackhole {at}",
    ),
    6: (
        "del {at}",
        "del {at} via {first}",
        "del {at} via {second}",
        "append {at} via {third} dev eth1",
        "append {at} dev eth1",
        "replace {at} via {first} dev eth1",
        "replace {at} nexthop via {second} dev eth1 nexthop via {first} dev eth1",
        "replace blackhole {at}",
    ),
}


@pytest.mark.parametrize(
    ("version", "deed"), [(version, deed) for version in TAMPERINGS for deed in TAMPERINGS[version]]
)
def test_a_leg_that_somebody_takes_adds_or_changes_is_as_it_was_after_the_next_round(
    mirror: Mirror, version: int, deed: str
) -> None:
    first, second, third = NEAR[version]
    load(
        mirror.net,
        [f"route add {PARTNER[version]} nexthop via {first} dev eth1 weight 3 nexthop via {second} dev eth1"],
    )
    mirror.round()
    before, shown = mirror.actual(), in_table(mirror, version)
    (table,) = {one.table for one in before if isinstance(one, Route)}
    at = f"{PARTNER[version]} table {table} proto 111 metric {0 if version == 4 else 1024}"

    load(mirror.net, [f"route {deed.format(at=at, first=first, second=second, third=third)}"])
    assert in_table(mirror, version) != shown

    mirror.round()

    assert mirror.actual() == before
    assert in_table(mirror, version) == shown
    mirror.settled()


@pytest.mark.parametrize("version", [4, 6])
def test_somebody_elses_route_in_the_place_of_several_next_hops_stays_and_each_of_them_fails(
    mirror: Mirror, version: int
) -> None:
    first, second, third = NEAR[version]
    mirror.round()
    (table,) = {one.table for one in mirror.actual() if isinstance(one, Route)}
    theirs = f"{PARTNER[version]} via {third} dev eth1 table {table} metric {0 if version == 4 else 1024} proto static"
    load(mirror.net, [f"route add {theirs}"])
    load(mirror.net, [f"route add {PARTNER[version]} nexthop via {first} dev eth1 nexthop via {second} dev eth1"])

    planned, failures = mirror.round()

    assert {failure.resource for failure in failures} == set(planned.make)
    assert len(failures) == 2
    assert all("not ours stands in its place" in failure.words for failure in failures)
    assert way(mirror, version).legs == {("eth1", third, 0)}


class Killed(Exception):
    """The role ended between two writes."""


@pytest.mark.parametrize("version", [4, 6])
def test_killed_between_any_two_writes_packets_go_the_old_way_or_the_new_one(mirror: Mirror, version: int) -> None:
    first, second, third = (f"via {one} dev eth1" for one in NEAR[version])
    other, more = ("203.0.114.0/24", "203.0.115.0/24") if version == 4 else ("2001:db8:114::/48", "2001:db8:115::/48")
    states = (
        [f"{PARTNER[version]} {first}", f"{other} nexthop {first} nexthop {third}"],
        [f"{PARTNER[version]} nexthop {second} nexthop {third}", f"{more} nexthop {first} nexthop {second}"],
    )
    watched = [*partners(version)[:2], ip_network(other)[1], ip_network(more)[1]]

    def go_to(state: int) -> None:
        load(mirror.net, [f"route del {line.split()[0]}" for line in states[1 - state]])
        load(mirror.net, [f"route add {line}" for line in states[state]])

    go_to(0)
    mirror.round()
    ways = {0: [matched(mirror.net, one) for one in watched]}
    go_to(1)
    mirror.round()
    ways[1] = [matched(mirror.net, one) for one in watched]
    assert all(old != new for old, new in zip(ways[0], ways[1], strict=True))
    killed, state = 0, 1
    for number in itertools.count(1):
        state = 1 - state
        go_to(state)
        mirror.boundary = killing_at(number)
        with contextlib.suppress(Killed):
            mirror.round()
            break  # it came to its end: there was no boundary of this number any more
        killed += 1
        for one, old, new in zip(watched, ways[1 - state], ways[state], strict=True):
            assert matched(mirror.net, one) in (old, new), number
        mirror.boundary = no_boundary
        mirror.round()
        assert [matched(mirror.net, one) for one in watched] == ways[state]
        mirror.settled()
    assert killed >= 3


def killing_at(number: int) -> Boundary:
    passed = itertools.count(1)

    def boundary(place: str) -> None:
        if next(passed) == number:
            raise Killed(place)

    return boundary


COUNTED = """
table netdev legs {
  chain arrived {
    type filter hook ingress device "eth1-far" priority 0; policy accept;
    udp dport 20000-20499 ether daddr 02:00:00:00:00:01 counter comment "first"
    udp dport 20000-20499 ether daddr 02:00:00:00:00:02 counter comment "second"
  }
}
"""


@pytest.mark.parametrize("version", [4, 6])
def test_packets_take_both_next_hops_by_their_weights(mirror: Mirror, version: int) -> None:
    net, pod = mirror.net, PODS[version]
    first, second, _ = NEAR[version]
    for family in (4, 6):
        net.sysctl(f"net/ipv{family}/fib_multipath_hash_policy", 1)  # by ports as well
    load(net, [f"route add {PARTNER[version]} nexthop via {first} dev eth1 nexthop via {second} dev eth1 weight 4"])
    load(
        net, [f"neigh add {hop} lladdr 02:00:00:00:00:0{number} dev eth1" for number, hop in ((1, first), (2, second))]
    )
    net.run(("nft", "-f", "-"), input=COUNTED)
    mirror.round()

    with Namespace("pod") as far:
        net.run(("ip", "link", "set", "ovn-k8s-mp0-far", "netns", far.path))
        port, length = "ovn-k8s-mp0-far", pod.max_prefixlen
        gateway = "10.128.0.2" if version == 4 else "fd01:0:0:1::2"
        (link,) = json.loads(net.run(("ip", "-j", "link", "show", MANAGEMENT)).stdout)
        lines = (f"link set {port} up", f"addr add {pod}/{length} dev {port} nodad", f"route add {gateway} dev {port}")
        near = f"neigh add {gateway} lladdr {link['address']} dev {port}"  # of 500 packets none has to wait for it
        configure({far: [*lines, near, f"route add default via {gateway} dev {port}"]})
        with (
            far.inside(),
            socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sent,
        ):
            for number in range(500):
                sent.sendto(b"one", (str(partners(version)[0]), 20000 + number))
        eventually(lambda: sum(counted(net).values()) == 500, "all packets are out")
    seen = counted(net)
    assert 0 < 2 * seen["first"] < seen["second"]


def counted(net: Namespace) -> dict[str, int]:
    listed = json.loads(net.run(("nft", "-j", "list", "table", "netdev", "legs")).stdout)["nftables"]
    rules = [one["rule"] for one in listed if "rule" in one]
    return {
        rule["comment"]: next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part)
        for rule in rules
    }
