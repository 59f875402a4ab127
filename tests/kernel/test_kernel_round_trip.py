"""What outgate writes to the kernel it reads back as the same values, IPv4 and IPv6, and other programs see it too."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from pyroute2 import IPRoute

from outgate.model.net import (
    ALL_LINKS,
    OWN_METRIC,
    OWN_PROTOCOL,
    Discard,
    HostAddress,
    LinkName,
    LinkSetting,
    Mark,
    OnLink,
    Route,
    Rule,
    Setting,
    TableId,
    Via,
)
from outgate.model.state import Resource
from tests.kernel.machine import (
    BLUE,
    BLUE_HOP,
    BLUE_HOP6,
    EGRESS,
    EGRESS6,
    ENP1S0,
    ENP7S0,
    GATEWAY,
    GUARD,
    NODE1,
    NODE1_V6,
    RED,
    SETTINGS,
    Machine,
    machine_in_namespace,
    setting,
)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_in_namespace() as made:
        yield made


def route(dst: str, hop: Via | OnLink | Discard, table: int = 254) -> Route:
    return Route(dst=ip_network(dst), hop=hop, table=TableId(table), metric=OWN_METRIC)


ROUTES = [
    NODE1,
    NODE1_V6,
    route("10.128.4.0/24", OnLink(link=ENP1S0)),
    route("fd01:0:0:4::/64", OnLink(link=ENP1S0)),
    route("10.128.5.0/24", Via(address=ip_address("fd99::11"), link=ENP1S0)),  # RFC 5549
    route("10.128.6.1/32", NODE1.hop, table=10_001),
    route("0.0.0.0/0", NODE1.hop, table=10_001),
    route("::/0", NODE1_V6.hop, table=10_001),
    route("fd01::6/128", NODE1_V6.hop, table=200),
    *(route("10.128.7.0/24", discard, table=10_002 + i) for i, discard in enumerate(Discard)),
    *(route("fd01:0:0:7::/64", discard, table=10_002 + i) for i, discard in enumerate(Discard)),
]
RULES = [
    GUARD,
    Rule(priority=111, version=4, action=TableId(10_001)),
    Rule(priority=111, version=6, action=TableId(254), dst=ip_network("fd55::/64")),
    Rule(priority=112, version=4, action=TableId(254), incoming=ENP1S0, mark=Mark(0x500)),
    Rule(priority=112, version=4, action=Discard.BLACKHOLE, incoming=LinkName("later0")),
    Rule(priority=113, version=6, action=Discard.UNREACHABLE, mark=Mark(0), mask=Mark(0xFF00)),
    Rule(priority=114, version=4, action=Discard.PROHIBIT, src=ip_network("10.0.0.0/8"), dst=ip_network("10.1.0.0/16")),
]


@pytest.mark.parametrize("resource", [*ROUTES, *RULES, EGRESS, EGRESS6, BLUE, RED], ids=str)
def test_each_resource_is_read_as_it_was_written_and_leaves_nothing_when_dropped(
    machine: Machine, resource: Resource
) -> None:
    before = machine.read()

    assert machine.write([resource]) == ()
    assert machine.read().actual == {resource}
    assert machine.read().facts == before.facts

    assert machine.write([], [resource]) == ()
    assert machine.read().actual == frozenset()


def test_a_whole_gateway_is_written_at_once_and_dropped_in_reverse(machine: Machine) -> None:
    before = machine.listing()

    assert machine.write(GATEWAY) == ()
    assert machine.read().actual == set(GATEWAY)

    assert machine.write([], GATEWAY[::-1]) == ()
    assert machine.read().actual == frozenset()
    assert machine.listing() == before


@pytest.mark.parametrize("wanted", SETTINGS, ids=str)
def test_each_setting_is_read_as_it_was_written(machine: Machine, wanted: Resource) -> None:
    assert machine.write([wanted]) == ()

    assert isinstance(wanted, LinkSetting)
    link, which, value = wanted.link, wanted.setting, wanted.value
    assert machine.read().facts.settings[link, which] == value
    family, key = which.value.split("/")
    assert machine.namespace.sysctl(f"net/{family}/conf/{link}/{key}") == str(value)


def test_every_setting_of_the_model_is_read_for_every_link_and_for_all(machine: Machine) -> None:
    found = machine.read().facts.settings

    for link in (ALL_LINKS, ENP1S0, ENP7S0):
        for which in Setting:
            family, key = which.value.split("/")
            assert found[link, which] == int(machine.namespace.sysctl(f"net/{family}/conf/{link}/{key}"))


def test_a_setting_can_not_be_dropped_because_it_can_not_be_absent(machine: Machine) -> None:
    wanted = setting(ENP1S0, Setting.ARP_IGNORE, 1)
    machine.write([wanted])

    (failure,) = machine.write([], [wanted])

    assert failure.resource == wanted
    assert "make the value it had before" in failure.words
    assert machine.read().facts.settings[ENP1S0, Setting.ARP_IGNORE] == 1


def test_an_unchanged_kernel_gives_the_same_reading_again(machine: Machine) -> None:
    machine.write(GATEWAY)

    assert machine.read() is machine.read()


def test_other_programs_see_our_signs_on_what_we_made(machine: Machine) -> None:
    machine.made(*GATEWAY)

    with machine.namespace.inside(), IPRoute() as oracle:
        ours = [found for found in oracle.get_routes() if found["proto"] == OWN_PROTOCOL]
        rules = [found for found in oracle.get_rules() if found.get("protocol") == OWN_PROTOCOL]
        addresses = [found for found in oracle.get_addr() if found.get("proto") == OWN_PROTOCOL]
        (blue,) = oracle.get_links(ifname=BLUE.name)

    assert {found.get("dst") for found in ours} == {"10.128.0.0", "10.128.2.0", "fd01:0:0:1::", "fd01:0:0:2::"}
    assert {found.get("priority") for found in ours} == {OWN_METRIC}
    assert sorted(found.get("src") for found in rules) == ["10.128.0.0", "fd01::"]
    assert {(found.get("address"), found["prefixlen"]) for found in addresses} == {
        ("192.168.55.113", 32), ("fd55::113", 128), ("192.168.99.13", 32), ("fd99::13", 128), ("192.168.99.14", 32),
    }  # fmt: skip
    assert blue.get("address") == BLUE.mac
    assert blue.get(("linkinfo", "kind")) == "macvlan"
    assert blue.get(("linkinfo", "data", "macvlan_mode")) == "bridge"


def test_a_tenant_link_is_up_quiet_and_known_by_its_tenants_name(machine: Machine) -> None:
    machine.made(BLUE, RED, BLUE_HOP, BLUE_HOP6)

    (blue,) = machine.ip("link", "show", "og-ns-blue")
    assert blue["ifname"] == BLUE.name
    assert "UP" in blue["flags"]
    for link, disabled in ((BLUE.name, "0"), (RED.name, "1")):
        assert machine.namespace.sysctl(f"net/ipv4/conf/{link}/arp_ignore") == "1"
        assert machine.namespace.sysctl(f"net/ipv4/conf/{link}/arp_announce") == "2"
        assert machine.namespace.sysctl(f"net/ipv4/conf/{link}/rp_filter") == "2"
        assert machine.namespace.sysctl(f"net/ipv4/conf/{link}/forwarding") == "1"
        assert machine.namespace.sysctl(f"net/ipv6/conf/{link}/disable_ipv6") == disabled
    assert machine.namespace.sysctl(f"net/ipv6/conf/{BLUE.name}/accept_ra") == "0"
    shown = machine.ip("address", "show", "dev", BLUE.name)[0]["addr_info"]
    assert {(a["local"], a["prefixlen"]) for a in shown} == {("192.168.99.13", 32), ("fd99::13", 128)}


def test_an_ipv6_egress_ip_is_never_the_machines_own_source(machine: Machine) -> None:
    machine.made(EGRESS6)

    (answer,) = machine.ip("-6", "route", "get", "2001:db8:113::10")
    assert answer["prefsrc"] == "fd55::1"
    (shown,) = [a for a in machine.ip("address", "show", "dev", "enp7s0")[0]["addr_info"] if a["local"] == "fd55::113"]
    assert shown["deprecated"]
    assert not shown.get("tentative")


def test_an_egress_ip_brings_no_connected_route(machine: Machine) -> None:
    before = machine.run("ip route; ip -6 route")

    machine.made(EGRESS, EGRESS6)

    assert machine.run("ip route; ip -6 route") == before


def test_facts_are_what_iproute2_shows(machine: Machine) -> None:
    facts = machine.read().facts

    assert {(link.name, link.index, link.up, link.mtu) for link in facts.links.values()} == {
        (shown["ifname"], shown["ifindex"], "UP" in shown["flags"], shown["mtu"]) for shown in machine.ip("link")
    }
    assert facts.links[ENP1S0].kind == "veth"
    assert facts.addresses == {
        HostAddress(link=LinkName(shown["ifname"]), address=ip_address(a["local"]), prefix_len=a["prefixlen"])
        for shown in machine.ip("address")
        for a in shown["addr_info"]
    }
    default = Route(dst=ip_network("0.0.0.0/0"), hop=Via(address=ip_address("192.168.55.254"), link=ENP7S0))
    assert default in facts.routes
    assert Route(dst=ip_network("192.168.99.0/24"), hop=OnLink(link=ENP1S0)) in facts.routes
    assert Route(dst=ip_network("fd99::/64"), hop=OnLink(link=ENP1S0), metric=256) in facts.routes
    assert Rule(priority=32766, version=6, action=TableId(254)) in facts.rules
