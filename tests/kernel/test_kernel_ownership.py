"""A machine that others use too: their links, addresses, routes and rules stand beside ours, some of them very close.

What is not ours is a fact, stays byte-identical whatever outgate writes, and is never overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.net import (
    Discard,
    HostAddress,
    LinkAddress,
    LinkName,
    Mark,
    OnLink,
    Route,
    Rule,
    Setting,
    TableId,
    TenantLink,
    Via,
)
from outgate.model.state import Resource
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.read import read
from tests.kernel.machine import (
    BLUE,
    BLUE_HOP,
    EGRESS,
    EGRESS6,
    ENP1S0,
    ENP7S0,
    GATEWAY,
    GUARD,
    NODE1,
    NODE1_V6,
    RED,
    Machine,
    machine_in_namespace,
)

FOREIGN = """
ip link add og-0000beef type veth peer name og-tenant
ip link add macvlan-blue link enp1s0 type macvlan mode bridge
ip address add 192.168.99.200/32 dev macvlan-blue
ip address add 192.168.55.200/32 dev enp7s0
ip address add fd55::200/128 dev enp7s0 nodad
ip route add 10.128.0.0/23 via 192.168.99.66 metric 50 proto static
ip route add 10.128.0.0/23 via 192.168.99.67 metric 50 table 500 proto 111
ip route add 10.128.8.0/24 via 192.168.99.66 metric 50 proto 111
ip route add 10.128.9.0/24 via 192.168.99.66 metric 111 proto static
ip route add 10.128.10.0/24 nexthop via 192.168.99.66 nexthop via 192.168.99.67
ip route add blackhole 10.128.11.0/24
ip route add fd01:0:0:1::/64 via fd99::66 metric 50 proto static
ip route add fd01:0:0:9::/64 via fd99::66 metric 111 proto static
ip route add fd01:0:0:a::/64 nexthop via fd99::66 nexthop via fd99::67
ip nexthop add id 7 via 192.168.99.66 dev enp1s0
ip nexthop add id 1862270980 via 192.168.99.67 dev enp1s0
ip route add 10.128.12.0/24 nhid 7
ip rule add priority 110 from 10.128.0.0/14 fwmark 0x100/0xffff00 lookup 500
ip -6 rule add priority 110 from fd01::/48 lookup 500
"""
WORDY = """
ip rule add priority 200 not from 10.0.0.0/8 oif enp7s0 ipproto tcp dport 80-90 lookup 501
ip rule add priority 201 goto 400
ip rule add priority 202 uidrange 0-10 lookup main suppress_prefixlength 0
ip rule add priority 203 from 10.128.0.5/14 iif lo nop
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_in_namespace() as made:
        made.run(FOREIGN)
        yield made


def test_what_others_made_is_fact_and_none_of_it_is_ours(machine: Machine) -> None:
    reading = machine.read()

    assert reading.actual == frozenset()
    assert {LinkName("og-0000beef"), LinkName("macvlan-blue")} <= reading.facts.links.keys()
    assert HostAddress(link=ENP7S0, address=ip_address("192.168.55.200"), prefix_len=32) in reading.facts.addresses
    assert Route(dst=ip_network("10.128.11.0/24"), hop=Discard.BLACKHOLE) in reading.facts.routes
    assert Route(dst=NODE1.dst, hop=via("192.168.99.66"), metric=50) in reading.facts.routes
    assert not any(route.table == TableId(500) for route in reading.facts.routes)


def via(address: str) -> Via:
    return Via(address=ip_address(address), link=ENP1S0)


def test_a_foreign_route_of_several_legs_is_one_route_per_leg(machine: Machine) -> None:
    facts = machine.read().facts

    for dst, legs in (
        ("10.128.10.0/24", ("192.168.99.66", "192.168.99.67")),
        ("fd01:0:0:a::/64", ("fd99::66", "fd99::67")),
    ):
        found = {route.hop for route in facts.routes if route.dst == ip_network(dst)}
        assert found == {via(leg) for leg in legs}


def test_a_leg_by_a_link_that_is_down_is_no_way_out(machine: Machine) -> None:
    machine.run(
        "ip link set enp7s0 up; ip route add 10.128.13.0/24 nexthop via 192.168.99.66 nexthop via 192.168.55.66"
    )
    dst, near = ip_network("10.128.13.0/24"), via("192.168.99.66")

    both = {route for route in machine.read().facts.routes if route.dst == dst}
    machine.run("ip link set enp7s0 down")
    left = {route for route in machine.read().facts.routes if route.dst == dst}

    assert {(route.hop, route.weight) for route in both} == {
        (near, 1),
        (Via(address=ip_address("192.168.55.66"), link=ENP7S0), 1),
    }
    assert left == {Route(dst=dst, hop=near)}


def test_a_next_hop_that_stands_there_twice_has_the_weight_of_both(machine: Machine) -> None:
    hops = "nexthop via 192.168.99.66 weight 3 nexthop via 192.168.99.67 nexthop via 192.168.99.66 weight 4"
    machine.run(f"ip route add 10.128.13.0/24 {hops}")

    found = {route for route in machine.read().facts.routes if route.dst == ip_network("10.128.13.0/24")}

    assert {(route.hop, route.weight) for route in found} == {(via("192.168.99.66"), 7), (via("192.168.99.67"), 1)}


@pytest.mark.parametrize("more", ["tos 0x10 via 192.168.99.67", "from fd01:0:0:2::/64 via fd99::67"])
def test_a_foreign_route_for_some_packets_alone_is_no_leg_of_the_one_beside_it(machine: Machine, more: str) -> None:
    dst, hop = ("10.128.13.0/24", "192.168.99.66") if "tos" in more else ("fd01:0:0:d::/64", "fd99::66")
    machine.run(f"ip route add {dst} via {hop}; ip route add {dst} {more}")

    (found,) = [route for route in machine.read().facts.routes if route.dst == ip_network(dst)]

    assert (found.hop, found.weight) == (via(hop), 0)


def test_a_foreign_route_by_a_nexthop_object_shows_where_it_leads(machine: Machine) -> None:
    route = Route(dst=ip_network("10.128.12.0/24"), hop=via("192.168.99.66"))

    assert route in machine.read().facts.routes

    machine.namespace.sysctl("net/ipv4/nexthop_compat_mode", 0)
    assert route in machine.read().facts.routes


def test_all_that_is_foreign_is_the_same_before_and_after_a_gateways_life(machine: Machine) -> None:
    before, facts = machine.listing(), machine.read().facts

    assert machine.write(GATEWAY) == ()
    during = machine.read()
    assert during.actual == set(GATEWAY)
    assert during.facts == facts
    shown = machine.listing()
    for what, text in before.items():
        # A NIC that carries tenant links listens to all MACs, or to theirs as well: that is what a macvlan is.
        assert [line for line in text.splitlines() if line not in shown[what] and "promiscuity" not in line] == []

    assert machine.write([], GATEWAY[::-1]) == ()
    assert machine.listing() == before
    assert machine.read().facts == facts


@pytest.mark.parametrize(("dst", "node"), [("10.128.9.0/24", "192.168.99.11"), ("fd01:0:0:9::/64", "fd99::11")])
def test_a_foreign_route_in_our_place_is_a_failure_and_stays(machine: Machine, dst: str, node: str) -> None:
    before = machine.listing()
    wanted = replace(NODE1, dst=ip_network(dst), hop=via(node))

    failures = machine.write([wanted, GUARD])

    assert [failure.resource for failure in failures] == [wanted]
    assert "not ours stands in its place" in failures[0].words
    assert machine.read().actual == {GUARD}
    machine.write([], [wanted, GUARD])
    assert machine.listing() == before


@pytest.mark.parametrize("address", ["192.168.55.200", "fd55::200"])
def test_a_foreign_address_in_our_place_is_a_failure_and_stays(machine: Machine, address: str) -> None:
    before = machine.listing()
    wanted = LinkAddress(link=ENP7S0, address=ip_address(address))

    (failure,) = machine.write([wanted])

    assert failure.resource == wanted
    assert "not ours" in failure.words
    machine.write([], [wanted])
    assert machine.listing() == before


def test_a_foreign_link_of_a_tenants_name_is_a_failure_and_stays(machine: Machine) -> None:
    before = machine.listing()
    wanted = replace(BLUE, name=LinkName("og-0000beef"))

    (failure,) = machine.write([wanted])

    assert failure.resource == wanted
    assert "not ours: veth" in failure.words
    assert machine.write([], [wanted]) == ()
    assert machine.listing() == before


def test_a_tenants_alternative_name_that_is_taken_stops_that_tenant_alone(machine: Machine) -> None:
    wanted = replace(BLUE, alternative="og-tenant")

    (failure,) = machine.write([wanted, RED])

    assert failure.resource == wanted
    assert "alternative name is taken" in failure.words
    (blue,) = [link for link in machine.read().actual if isinstance(link, TenantLink) and link != RED]
    assert blue.alternative == ""
    assert blue.fault.startswith("down")


@pytest.mark.parametrize("more", ["", "tos 0x10"])
def test_our_rule_stands_beside_a_foreign_one_that_says_the_same_or_nearly(machine: Machine, more: str) -> None:
    machine.run(f"ip rule add priority 110 from 10.128.0.0/14 fwmark 0/0xffff00 {more} prohibit")
    before = machine.listing()

    machine.made(GUARD)

    assert len(machine.listing()["-4 rule"].splitlines()) == len(before["-4 rule"].splitlines()) + 1
    assert machine.write([], [GUARD]) == ()
    assert machine.listing() == before


def test_foreign_rules_tell_what_they_match_beyond_our_words(machine: Machine) -> None:
    machine.run(WORDY)

    found = {rule.priority: rule for rule in machine.read().facts.rules if rule.version == 4 and rule.priority >= 200}

    ten = ip_network("10.0.0.0/8")
    assert set(found[200].more.split()) == {"not", "oif", "enp7s0", "ipproto", "6", "dport", "80-90"}
    assert replace(found[200], more="") == Rule(priority=200, version=4, src=ten, action=TableId(501))
    assert found[201] == Rule(priority=201, version=4, action=TableId(0), more="goto 400")
    assert set(found[202].more.split()) == {"uidrange", "0-10", "suppress_prefixlength", "0"}
    assert found[203] == Rule(
        priority=203, version=4, src=ip_network("10.128.0.0/14"), incoming=LinkName("lo"), action=TableId(0), more="nop"
    )


def test_foreign_marks_are_read_with_their_masks(machine: Machine) -> None:
    machine.run("ip rule add priority 210 fwmark 0x10 lookup 500; ip rule add priority 211 fwmark 0/0xff lookup 500")

    found = {rule.priority: (rule.mark, rule.mask) for rule in machine.read().facts.rules if rule.version == 4}

    assert found[210] == (Mark(0x10), None)  # all bits
    assert found[211] == (Mark(0), Mark(0xFF))
    assert found[32766] == (None, None)


def test_on_a_kernel_that_labels_no_addresses_the_record_says_which_are_ours(machine: Machine) -> None:
    machine.run("ip address flush dev lo; sysctl -qw net.ipv6.conf.all.disable_ipv6=1")  # leaves no labelled address
    ours = ip_address("192.168.55.200")

    with machine.namespace.inside():
        reading = read(machine.socket, Cache(), recorded=frozenset({(ENP7S0, ours), (ENP1S0, ours)}))

    assert reading.actual == {LinkAddress(link=ENP7S0, address=ours)}
    assert not any(found.address == ours for found in reading.facts.addresses)


def test_on_a_kernel_that_labels_addresses_the_record_changes_nothing(machine: Machine) -> None:
    theirs = ip_address("192.168.55.200")

    with machine.namespace.inside():
        reading = read(machine.socket, Cache(), recorded=frozenset({(ENP7S0, theirs)}))

    assert reading.actual == frozenset()


def test_what_the_kernel_and_others_add_to_a_tenant_link_is_told_as_ours(machine: Machine) -> None:
    machine.made(BLUE)

    machine.run(f"ip address add 192.168.99.77/24 dev {BLUE.name}")

    reading = machine.read()
    added = LinkAddress(link=BLUE.name, address=ip_address("192.168.99.77"), fault="prefix length 24")
    assert reading.actual == {BLUE, added}
    assert Route(dst=ip_network("192.168.99.0/24"), hop=OnLink(link=BLUE.name)) not in reading.facts.routes
    assert machine.write([], [added]) == ()
    assert machine.read().actual == {BLUE}


def test_settings_of_tenant_links_are_no_facts(machine: Machine) -> None:
    machine.made(BLUE, BLUE_HOP)

    settings = machine.read().facts.settings

    assert (ENP1S0, Setting.ARP_IGNORE) in settings
    assert not any(link == BLUE.name for link, _ in settings)


@pytest.mark.parametrize("resource", [EGRESS, EGRESS6, NODE1, NODE1_V6, GUARD, BLUE], ids=str)
def test_dropping_what_is_not_there_is_no_failure(machine: Machine, resource: Resource) -> None:
    before = machine.listing()

    assert machine.write([], [resource]) == ()

    assert machine.listing() == before
