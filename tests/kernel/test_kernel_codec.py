"""The numbers and structures of rtnetlink, held beside pyroute2, which other people wrote from the same headers.

Nexthop objects are not known there; `ip nexthop` is their oracle, in the stories of return routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from pyroute2.netlink import rtnl
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from outgate.model.errors import Unreachable
from outgate.model.net import LinkName, Mac, Mark, OnLink, Setting
from outgate.systems.kernel import messages, uapi
from outgate.systems.kernel.parse import IPV6_PLACE, Names, all_legs, parse_link, parse_route, without_counters
from outgate.systems.netlink import HEADER_SIZE, attr
from tests.kernel.machine import (
    BLUE_HOP6,
    EGRESS,
    ENP1S0,
    ENP7S0,
    GUARD,
    NODE1,
    NODE1_V6,
    Machine,
    machine_in_namespace,
)

SEVERAL = (replace(NODE1, weight=3), replace(NODE1, weight=1, hop=OnLink(link=ENP7S0)))
ATTRIBUTES = {"IFLA_": ifinfmsg, "IFA_": ifaddrmsg, "RTA_": rtmsg, "FRA_": fibmsg}
NESTED = ("IFLA_INET", "IFLA_MACVLAN", "IFLA_VRF", "IFA_F_")  # numbers of their own
STRANGE = {"RTM_NEWNEXTHOP", "RTM_DELNEXTHOP", "RTM_GETNEXTHOP", "RTNLGRP_NEXTHOP", "RTA_NH_ID"}  # to pyroute2
STRANGE |= {"FRA_DSCP", "FRA_FLOWLABEL", "IFA_PROTO"}  # to some versions of it


def numbers(message: type) -> dict[str, int]:
    """The attributes of one of pyroute2's messages by name; where it gives no number, the place is the number."""
    return {
        entry[0] if isinstance(entry[0], str) else entry[1]: place if isinstance(entry[0], str) else entry[0]
        for place, entry in enumerate(message.nla_map)  # type: ignore[attr-defined]
    }


def test_kinds_and_groups_have_the_kernels_numbers() -> None:
    names = [name for name in vars(uapi) if name.startswith(("RTM_", "RTNLGRP_")) and not name.startswith("RTM_F_")]
    known = {name: getattr(rtnl, name) for name in names if hasattr(rtnl, name)}

    assert set(names) - known.keys() <= STRANGE
    for name, number in known.items():
        as_bit = 1 << (getattr(uapi, name) - 1)  # pyroute2 keeps groups as bits
        assert number in (getattr(uapi, name), as_bit), name


@pytest.mark.parametrize("prefix", ATTRIBUTES)
def test_attributes_have_the_kernels_numbers(prefix: str) -> None:
    ours = {name: number for name, number in vars(uapi).items() if name.startswith(prefix)}
    ours = {name: number for name, number in ours.items() if not name.startswith(NESTED)}
    theirs = numbers(ATTRIBUTES[prefix])

    assert ours.keys() - theirs.keys() <= STRANGE
    assert {name: theirs[name] for name in ours if name in theirs} == {
        name: number for name, number in ours.items() if name in theirs
    }


def test_every_setting_of_the_model_has_one_place() -> None:
    assert {*messages.IPV4_PLACE, *IPV6_PLACE} == set(Setting)
    assert not messages.IPV4_PLACE.keys() & IPV6_PLACE.keys()


@pytest.mark.parametrize(
    ("request_", "message", "expected"),
    [
        (
            messages.new_route(NODE1, messages.link_hop(3, NODE1)),
            rtmsg,
            {"RTA_DST": "10.128.0.0", "RTA_GATEWAY": "192.168.99.11", "RTA_OIF": 3, "RTA_PRIORITY": 111},
        ),
        (
            messages.new_route(NODE1_V6, messages.object_hop(0x6F000000)),
            rtmsg,
            {"RTA_DST": "fd01:0:0:1::", "RTA_TABLE": 254},
        ),
        (messages.new_address(7, EGRESS.address), ifaddrmsg, {"IFA_LOCAL": "192.168.55.113", "IFA_PROTO": 111}),
        (messages.new_address(7, BLUE_HOP6.address), ifaddrmsg, {"IFA_ADDRESS": "fd99::13", "IFA_FLAGS": 0x202}),
        (messages.new_rule(GUARD), fibmsg, {"FRA_SRC": "10.128.0.0", "FRA_FWMARK": 0, "FRA_FWMASK": 0xFFFF00}),
        (
            messages.new_macvlan(0x6F000000, LinkName("og-0000b10e"), 3, Mac("02:e6:00:00:b1:0e")),
            ifinfmsg,
            {"IFLA_IFNAME": "og-0000b10e", "IFLA_LINK": 3, "IFLA_ADDRESS": "02:e6:00:00:b1:0e"},
        ),
    ],
    ids=["route", "IPv6 route by object", "address", "IPv6 address", "rule", "macvlan"],
)
def test_requests_mean_to_others_what_they_mean_to_us(
    request_: bytes, message: type, expected: dict[str, object]
) -> None:
    decoded = message(request_)
    decoded.decode()

    assert {name: decoded.get_attr(name) for name in expected} == expected


def test_legs_mean_to_others_what_they_mean_to_us() -> None:
    decoded = rtmsg(messages.new_route(SEVERAL[0], messages.several_hops([(3, SEVERAL[0]), (4, SEVERAL[1])])))
    decoded.decode()

    first, second = decoded.get_attr("RTA_MULTIPATH")

    assert (first["oif"], first["hops"], first["flags"], first.get_attr("RTA_GATEWAY")) == (3, 2, 0, "192.168.99.11")
    assert (second["oif"], second["hops"], second["flags"], second.get_attr("RTA_GATEWAY")) == (4, 0, 0, None)


def test_a_default_route_has_no_address_in_its_message() -> None:
    payload = messages.DUMP_ROUTES[4][HEADER_SIZE:]
    unicast = payload[:4] + bytes([254, 4, 0, uapi.RTN_UNICAST]) + payload[8:]
    found = parse_route(unicast + attr(uapi.RTA_OIF, b"\3\0\0\0"), Names(links={3: ENP1S0}))

    assert [str(route) for route in all_legs(found)] == ["0.0.0.0/0 dev enp1s0"]


def test_a_message_that_breaks_off_is_an_answer_that_can_not_be_used() -> None:
    whole = messages.new_route(NODE1, messages.link_hop(3, NODE1))[HEADER_SIZE:]
    broken = whole + b"\0\0\1\0"

    with pytest.raises(Unreachable, match="attribute of 0 bytes"):
        parse_route(broken, Names(links={3: ENP1S0}))


def test_a_link_without_its_counters_says_the_same() -> None:
    name, mtu = attr(uapi.IFLA_IFNAME, b"enp1s0\0"), attr(uapi.IFLA_MTU, b"\xdc\5\0\0")
    before = messages.IFINFOMSG.pack(0, 1, 3, uapi.IFF_UP, 0) + name
    counters = attr(uapi.IFLA_STATS64, bytes(200)) + attr(uapi.IFLA_STATS, bytes(96))

    assert without_counters(before + counters + mtu) == before + mtu
    assert without_counters(before + mtu) == before + mtu
    assert parse_link(before + mtu).mtu == 1500


def test_a_mark_of_zero_and_a_full_mask_are_sent_in_full() -> None:
    full = messages.new_rule(GUARD.__class__(priority=1, version=4, action=GUARD.action, mark=Mark(0)))
    decoded = fibmsg(full)
    decoded.decode()

    assert (decoded.get_attr("FRA_FWMARK"), decoded.get_attr("FRA_FWMASK")) == (0, 0xFFFFFFFF)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_in_namespace() as made:
        yield made


HOSTILE = ['a";drop#x', "*", "eth*", "x$(id)", "a'b", "{", "@s", "-oops", "grün"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_link_name_is_a_name_and_nothing_else(machine: Machine, name: str) -> None:
    machine.namespace.run(("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "other0"))
    machine.namespace.run(("ip", "address", "add", "10.9.0.1/24", "dev", name))

    facts = machine.read().facts

    assert LinkName(name) in facts.links
    assert {found.link for found in facts.addresses if found.address == ip_address("10.9.0.1")} == {name}
    assert not any(route.dst == ip_network("10.9.0.0/24") for route in facts.routes)  # the link is down


def test_a_link_name_that_is_no_text_is_spelled_out(machine: Machine) -> None:
    machine.run("ip link add name $(printf 'b\\377d') type veth peer name other0")

    assert LinkName("b\\xffd") in machine.read().facts.links
