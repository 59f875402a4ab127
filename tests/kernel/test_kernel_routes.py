"""Return routes by the thousand and by the piece: over few gateways, over many, over gateways that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from outgate.model.net import OWN_METRIC, Address, LinkName, Route, Via
from outgate.model.state import Resource
from outgate.systems.kernel import uapi
from outgate.systems.kernel.nexthops import FIRST_NUMBER
from outgate.systems.kernel.read import read
from outgate.systems.kernel.write import write
from outgate.systems.netlink import NetlinkSocket, header
from tests.kernel.machine import ENP1S0, NODE1, NODE1_V6, NODE2, NODE2_V6, Machine, machine_in_namespace

PODS4, PODS6 = int(IPv4Address("10.128.0.0")), int(IPv6Address("fd01::"))
NODES4, NODES6 = int(IPv4Address("192.168.99.2")), int(IPv6Address("fd99::100"))


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_in_namespace() as made:
        yield made


def via(address: Address) -> Via:
    return Via(address=address, link=ENP1S0)


def fleet(nodes: int, version: int = 4) -> list[Route]:
    """The return routes of so many nodes, each with a subnet of its own."""
    if version == 6:
        subnets = [ip_network((PODS6 + (i << 64), 64)) for i in range(nodes)]
        return [
            Route(dst=subnet, hop=via(IPv6Address(NODES6 + i)), metric=OWN_METRIC) for i, subnet in enumerate(subnets)
        ]
    subnets = [ip_network((PODS4 + (i << 9), 23)) for i in range(nodes)]
    return [Route(dst=subnet, hop=via(IPv4Address(NODES4 + i)), metric=OWN_METRIC) for i, subnet in enumerate(subnets)]


def nexthops(machine: Machine) -> set[int]:
    return {shown["id"] for shown in machine.ip("nexthop")}


@pytest.mark.parametrize(("old", "new"), [(NODE1, NODE2), (NODE1_V6, NODE2_V6)], ids=["IPv4", "IPv6"])
def test_a_new_next_hop_takes_the_place_of_the_old_one_in_one_step(machine: Machine, old: Route, new: Route) -> None:
    machine.made(old)
    wanted = replace(old, hop=new.hop)
    group = uapi.RTNLGRP_IPV4_ROUTE if old.dst.version == 4 else uapi.RTNLGRP_IPV6_ROUTE
    with machine.namespace.inside():
        listener = NetlinkSocket(uapi.NETLINK_ROUTE)
    with listener:
        listener.subscribe([group])

        assert machine.write([wanted]) == ()

        kinds = [header(message).kind for message in listener.events()]
    assert machine.read().actual == {wanted}
    assert kinds == [uapi.RTM_NEWROUTE]


def test_a_route_that_somebody_made_a_discard_leads_to_the_node_again(machine: Machine) -> None:
    machine.made(NODE1, NODE1_V6)
    machine.run(f"ip route replace blackhole {NODE1.dst} proto 111 metric 111")
    assert str(next(r for r in machine.read().actual if r.slot == NODE1.slot)).startswith(f"{NODE1.dst} blackhole")

    machine.made(NODE1)

    assert machine.read().actual == {NODE1, NODE1_V6}


def test_a_leg_that_somebody_added_to_our_route_is_removed(machine: Machine) -> None:
    machine.made(NODE1_V6)
    machine.run(f"ip -6 route append {NODE1_V6.dst} via fd99::66 dev enp1s0 proto 111 metric 111")
    added = replace(NODE1_V6, hop=via(ip_address("fd99::66")), weight=1)
    assert machine.read().actual == {replace(NODE1_V6, weight=1), added}

    machine.made(NODE1_V6)

    assert machine.read().actual == {NODE1_V6}
    assert machine.run("ip -6 route show proto 111").split() == (
        f"{NODE1_V6.dst} via fd99::11 dev enp1s0 metric 111 pref medium".split()
    )


def test_a_route_to_nowhere_fails_with_the_kernels_words_and_stops_no_other(machine: Machine) -> None:
    lost = replace(NODE1, dst=ip_network("10.128.9.0/24"), hop=via(ip_address("198.51.100.1")))
    linkless = replace(lost, hop=Via(address=ip_address("192.168.99.11"), link=LinkName("gone0")))

    failures = {failure.resource: failure.words for failure in machine.write([lost, linkless, NODE1])}

    assert failures == {
        lost: "Network is unreachable: Nexthop has invalid gateway",
        linkless: "there is no link gone0",
    }
    assert machine.read().actual == {NODE1}


def test_few_gateways_are_spelled_out_in_their_routes(machine: Machine) -> None:
    machine.made(*fleet(64))

    assert nexthops(machine) == set()
    assert all("gateway" in shown for shown in machine.ip("route", "show", "proto", "111"))


@pytest.mark.parametrize("version", [4, 6])
def test_many_gateways_become_nexthop_objects_in_our_range_and_read_the_same(machine: Machine, version: int) -> None:
    machine.run("ip nexthop add id 7 via 192.168.99.66 dev enp1s0")
    routes = fleet(65, version)

    machine.made(*routes)

    shown = machine.ip(f"-{version}", "route", "show", "proto", "111")
    assert {route["nhid"] for route in shown} == nexthops(machine) - {7}
    assert min(nexthops(machine) - {7}) == FIRST_NUMBER
    assert machine.read().actual == set(routes)

    machine.namespace.sysctl("net/ipv4/nexthop_compat_mode", 0)  # routes now name their object and nothing else
    assert machine.read().actual == set(routes)

    assert machine.write([], routes) == ()
    assert nexthops(machine) == {7}


def test_a_node_that_joins_a_large_fleet_adds_one_object_and_one_that_leaves_takes_its_own(machine: Machine) -> None:
    routes = fleet(81)
    machine.made(*routes[:80])
    before = nexthops(machine)

    machine.made(routes[80])
    (added,) = nexthops(machine) - before
    assert added == max(before) + 1

    machine.write([], [routes[3]])
    assert len(nexthops(machine)) == 80
    assert machine.read().actual == {*routes[:3], *routes[4:]}


def test_objects_of_routes_that_moved_go_with_the_next_write(machine: Machine) -> None:
    routes = fleet(80)
    machine.made(*routes)
    moved = replace(routes[0], hop=routes[1].hop)

    machine.made(moved)
    assert len(nexthops(machine)) == 80

    machine.made(replace(moved, dst=ip_network("10.140.0.0/23")))
    assert len(nexthops(machine)) == 79


def test_a_nexthop_object_that_somebody_deletes_takes_its_routes_and_they_come_back(machine: Machine) -> None:
    routes = fleet(80)
    machine.made(*routes)
    victim = max(nexthops(machine))

    machine.run(f"ip nexthop del id {victim}")
    assert len(machine.read().actual) == 79

    machine.made(*[route for route in routes if route not in machine.read().actual])
    assert machine.read().actual == set(routes)


def test_two_writes_of_one_round_do_not_sweep_each_others_objects(machine: Machine) -> None:
    routes = fleet(160)
    machine.made(*routes[:80])

    with machine.namespace.inside():
        read(machine.socket, machine.cache)
        assert write(machine.socket, machine.cache, routes[80:], []) == ()
        assert write(machine.socket, machine.cache, [], routes[:80]) == ()

    assert machine.read().actual == set(routes[80:])
    assert len(nexthops(machine)) == 80


def test_a_gateway_that_is_not_there_fails_alone_among_many(machine: Machine) -> None:
    routes = fleet(80)
    lost = replace(routes[5], hop=via(ip_address("198.51.100.1")))
    wanted: list[Resource] = [*routes[:5], lost, *routes[6:]]

    (failure,) = machine.write(wanted)

    assert failure.resource == lost
    assert failure.words.startswith("Network is unreachable")
    assert machine.read().actual == set(wanted) - {lost}


def test_routes_that_left_silently_with_their_link_are_missing_in_the_next_reading(machine: Machine) -> None:
    machine.made(NODE1, NODE1_V6)

    machine.run("ip link set enp1s0 down")
    assert machine.read().actual == frozenset()

    machine.run("ip link set enp1s0 up; ip address add fd99::1/64 dev enp1s0 nodad")
    machine.made(NODE1, NODE1_V6)


def test_a_link_that_got_another_name_renames_what_was_read_before(machine: Machine) -> None:
    machine.made(NODE1, NODE1_V6)

    machine.run("ip link set enp1s0 down; ip link set enp1s0 name lan0; ip link set lan0 up")
    machine.run("ip address add fd99::1/64 dev lan0 nodad")
    lan0 = LinkName("lan0")
    moved = [
        replace(NODE1, hop=Via(address=ip_address("192.168.99.11"), link=lan0)),
        replace(NODE1_V6, hop=Via(address=ip_address("fd99::11"), link=lan0)),
    ]
    machine.made(*moved)

    assert machine.read().actual == set(moved)
    assert lan0 in machine.read().facts.links
    assert {found.link for found in machine.read().facts.addresses} >= {lan0}
    assert ENP1S0 not in {found.link for found in machine.read().facts.addresses}


def test_five_thousand_routes_are_made_and_dropped_whole(machine: Machine) -> None:
    machine.run("ip address add 192.168.96.1/19 dev enp1s0")
    nodes = [via(IPv4Address("192.168.100.0") + i) for i in range(2000)]
    routes = [
        Route(dst=ip_network((PODS4 + (i << 6), 26)), hop=nodes[i % len(nodes)], metric=OWN_METRIC) for i in range(5000)
    ]
    packets: list[str] = []

    assert machine.write(routes, boundary=packets.append) == ()
    assert machine.read().actual == set(routes)
    assert len(packets) == 14  # 2,000 objects and 5,000 routes, 500 in a packet

    assert machine.write([], routes) == ()
    assert machine.read().actual == frozenset()
    assert nexthops(machine) == set()
