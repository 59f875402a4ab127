"""Thousands of packets are asked about twice: the trace walks them through a reading, the kernel is asked itself.

The machine has rules, routes, link settings and reverse path filters as chance made them (the seed is fixed); it has no
table, so that routing alone decides. Addresses: nodes 192.168.99.0/24 and fd99::/64 by enp1s0, egress 192.168.55.0/24
and fd55::/64 by enp7s0, pods 10.128.0.0/14 and fd01::/48, outside 203.0.113.0/24 and 2001:db8:113::/64.
"""

from __future__ import annotations

import errno
from collections import Counter
from ipaddress import ip_address
from random import Random

import pytest

from outgate.model.net import LinkName, Mark
from outgate.systems.kernel.lookup import Answer, Question, lookup
from outgate.trace.steps import Disposition, Packet, Trace
from outgate.trace.walk import walk
from outgate.trace.world import World, world_of_actual
from tests.kernel.machine import BLUE, ENP1S0, ENP7S0, GATEWAY, Machine, machine_in_namespace

PACKETS = 400  # a machine
HOSTS4 = """10.128.0.5 10.128.2.5 10.130.9.9 192.168.99.1 192.168.99.11 192.168.99.13 192.168.99.255 192.168.55.1
    192.168.55.113 192.168.55.77 203.0.113.9 198.51.100.7 198.51.100.130 9.9.9.9 224.0.0.5 127.0.0.9"""
HOSTS6 = """fd01:0:0:1::5 fd01:0:0:2::5 fd01:0:9::9 fd99::1 fd99::11 fd99::13 fd55::1 fd55::113 fd55::77
    2001:db8:113::9 2001:db8:7::7 2620:fe::9"""
HOSTS = {4: tuple(map(ip_address, HOSTS4.split())), 6: tuple(map(ip_address, HOSTS6.split()))}
MARKS = tuple(map(Mark, (0, 0x100, 0x101, 0x200, 0xFE, 0x00FFFF00, 0x1000000)))
ROUTES = (
    "route add 198.51.100.0/24 via 192.168.55.2 dev enp7s0 metric 20",
    "route add 198.51.100.0/24 via 192.168.55.3 dev enp7s0 metric 10",
    "route add 198.51.100.128/25 via 192.168.99.200 dev enp1s0",
    "route add blackhole 9.9.9.0/24",
    "route add unreachable 9.9.9.0/24",
    "route add prohibit 203.0.113.0/28",
    "route add throw 203.0.113.0/24",
    "route add 10.130.0.0/16 via 192.168.55.9 dev enp7s0",
    "route del default",
    "-6 route add 2001:db8:7::/48 via fd55::2 dev enp7s0 metric 20",
    "-6 route add 2001:db8:7::/48 via fd99::200 dev enp1s0 metric 10",
    "-6 route add unreachable 2620:fe::/48",
    "-6 route add prohibit 2001:db8:113::/64",
)
RULES = (
    "rule add priority 90 from 10.128.2.0/24 lookup main",
    "rule add priority 91 to 203.0.113.0/24 prohibit",
    "rule add priority 92 fwmark 0x100/0xffff00 blackhole",
    "rule add priority 93 iif enp7s0 unreachable",
    "rule add priority 120 from 192.168.99.0/24 to 198.51.100.0/24 unreachable",
    "-6 rule add priority 91 to 2001:db8:113::/64 prohibit",
    "-6 rule add priority 92 fwmark 0x200/0xffff00 unreachable",
)
TOUCHED = {  # what a reading shows of each
    "all": ("rp_filter", "src_valid_mark"),
    "enp1s0": ("rp_filter", "src_valid_mark", "forwarding"),
    "enp7s0": ("rp_filter", "src_valid_mark", "forwarding"),
    BLUE.name: ("rp_filter", "forwarding"),
}


def disturbed(machine: Machine, chance: Random) -> None:
    """Let somebody add some routes and rules, and set link settings."""
    for lines in (ROUTES, RULES):
        for line in chance.sample(lines, chance.randrange(len(lines))):
            machine.namespace.run(("ip", *line.split()), check=False)  # one that another made impossible is left out
    for link, keys in TOUCHED.items():
        for key in keys:
            if chance.random() < 0.5:
                value = chance.randrange(3 if key == "rp_filter" else 2)
                machine.namespace.sysctl(f"net/ipv4/conf/{link}/{key}", value)


def as_the_kernel(trace: Trace, answer: Answer) -> bool:
    """Whether a walk that met no table ends as the kernel says."""
    if trace.disposition is Disposition.LEAVES:
        link, via = trace.link, trace.via
        hop = answer.route.hop if answer.route else None
        return answer.errno == 0 and getattr(hop, "link", None) == link and getattr(hop, "address", via) == via
    expected = {
        Disposition.LOCAL: (0,),
        Disposition.REJECTED: (errno.EACCES,),
        Disposition.NO_ROUTE: (errno.ENETUNREACH, errno.EHOSTUNREACH),
        Disposition.DROPPED: (errno.EINVAL, errno.EXDEV, errno.EHOSTUNREACH),
    }
    kept = answer.errno == 0 and answer.route is None  # for the machine, or a broadcast that it hears
    return answer.errno in expected[trace.disposition] and kept == (trace.disposition is Disposition.LOCAL)


def packets(chance: Random, version: int) -> list[Packet]:
    links: tuple[LinkName, ...] = (ENP1S0, ENP7S0, BLUE.name)

    def one() -> Packet:
        source, destination = chance.sample(HOSTS[version], 2)
        return Packet(source=source, destination=destination, incoming=chance.choice(links), mark=chance.choice(MARKS))

    return [one() for _ in range(PACKETS)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("version", [4, 6])
def test_the_walk_takes_the_same_rule_route_and_filter_as_the_kernel(version: int, seed: int) -> None:
    chance = Random(f"{version} {seed}")
    with machine_in_namespace() as machine:
        machine.made(*GATEWAY)
        machine.namespace.sysctl("net/ipv6/conf/all/forwarding", 1)
        disturbed(machine, chance)
        reading = machine.read()
        world: World = world_of_actual(reading.actual, reading.facts, "")
        ends: Counter[Disposition] = Counter()
        wrong: list[str] = []
        with machine.namespace.inside():
            for packet in packets(chance, version):
                trace = walk(world, packet)
                asked = Question(dst=packet.destination, src=packet.source, mark=packet.mark, incoming=packet.incoming)
                answer = lookup(machine.socket, machine.cache, asked)
                ends[trace.disposition] += 1
                if trace.certain and not as_the_kernel(trace, answer):
                    wrong.append(f"{packet} mark {packet.mark:#x}: {trace.disposition} {trace.reason}; kernel {answer}")

    assert wrong == []
    assert len(ends) >= 3, "chance made a machine on which all packets end alike"
