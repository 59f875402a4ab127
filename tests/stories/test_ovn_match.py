"""OVN's match expressions against one packet: 10.128.0.5 to 203.0.113.10, TCP port 443, by rtos-n1, without a mark."""

from __future__ import annotations

from ipaddress import ip_address
from types import MappingProxyType

import pytest

from outgate.trace.match import Fields, judge

PACKET = Fields(
    values=MappingProxyType(
        {
            "ip": True,
            "ip4": True,
            "ip6": False,
            "ip4.src": ip_address("10.128.0.5"),
            "ip4.dst": ip_address("203.0.113.10"),
            "pkt.mark": 0,
            "inport": "rtos-n1",
            "tcp": True,
            "udp": False,
            "tcp.dst": 443,
        }
    ),
    sets=MappingProxyType(
        {"served": frozenset({"10.128.0.5"}), "lans": frozenset({"203.0.113.0/24"}), "none": frozenset()}
    ),
)


@pytest.mark.parametrize(
    "match",
    [
        "1",
        "ip4",
        "ip4.src == 10.128.0.5",
        "ip4.src==10.128.0.5&&ip4.dst==203.0.113.0/24",
        "10.128.0.5 == ip4.src",
        "ip4.src == $served && ip4.dst == $lans",
        "ip4.src == {10.0.0.1, 10.128.0.5}",
        "ip4.src != {10.0.0.1, 10.0.0.2}",
        "(ip4.src == $none || ip4.src == $served) && pkt.mark != 42",
        'inport == "rtos-n1" && ip4.src == 10.128.0.0/14 /* pods of n1 */',
        "!(ip4.src == 10.0.0.1 || ip4.dst == 10.0.0.1)",
        "tcp && tcp.dst == 443 && tcp.dst < 1024 && 1024 > tcp.dst",
        "pkt.mark == 0x0",
        "ip4.src == 10.128.0.5 || ct.new",
    ],
)
def test_a_match_that_holds(match: str) -> None:
    assert judge(match, PACKET).holds is True


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ("0", "it is not 0"),
        ("ip4.dst == $served", "ip4.dst 203.0.113.10 is not in $served"),
        ("ip4.src == $served && ip4.dst == 10.128.0.0/14", "ip4.dst 203.0.113.10 is not in 10.128.0.0/14"),
        ("ip4.src == $none", "ip4.src 10.128.0.5 is not in $none"),
        ("pkt.mark == 42", "pkt.mark 0 is not 42"),
        ('inport == "rtos-n2"', 'inport rtos-n1 is not "rtos-n2"'),
        (
            "ip4.src == 10.0.0.1 || ip4.src == 10.0.0.2",
            "ip4.src 10.128.0.5 is not 10.0.0.1, and ip4.src 10.128.0.5 is not 10.0.0.2",
        ),
        ("ip6.src == fd01::5", "it is not ip6"),
        ("ip6.src != fd01::5", "it is not ip6"),
        ("!(ip6.src == fd01::5)", "it is not ip6"),
        ("udp", "it is not udp"),
        ("!tcp", "it is tcp"),
        ("tcp.dst >= 1024", "tcp.dst is 443"),
        ("ip4.src == 10.0.0.1 && ct.new", "ip4.src 10.128.0.5 is not 10.0.0.1"),
    ],
)
def test_a_match_that_does_not_hold_says_which_part_does_not(match: str, why: str) -> None:
    said = judge(match, PACKET)

    assert (said.holds, said.why) == (False, why)


@pytest.mark.parametrize(
    ("match", "why"),
    [
        ("ct.new && ip4", "ct.new is not known"),
        ("ip4.src == $gone", "$gone is not known"),
        ("ip4.src == $gone || ip4.src == 10.0.0.1", "$gone is not known"),
        ("inport == @ports", "@ports is not known"),
        ("sctp", "sctp is not known"),
        ("eth.src[0..7] == 3", "eth.src[0..7] is not known"),
        ("ip4.src < 10.128.0.9", "10.128.0.9 is no number"),
        ("ip4.src =! 10.128.0.5", "it is not understood"),
        ("(ip4.src == 10.128.0.5", "it is not understood"),
        ("ip4.src ==", "it is not understood"),
        ("{ip4.src, ip4.dst}", "it is not understood"),
        ("ip4.src == 10.128.0.5; next", "it is not understood"),
    ],
)
def test_what_can_not_be_known_is_neither(match: str, why: str) -> None:
    said = judge(match, PACKET)

    assert (said.holds, said.why) == (None, why)
