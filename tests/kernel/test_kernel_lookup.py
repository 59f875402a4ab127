"""Packets before the routing decision: who carries them, who discards them, in the kernel's own answer."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.net import OWN_METRIC, Discard, LinkName, Mark, OnLink, Route, Setting, TableId, Via
from outgate.systems.kernel.lookup import Answer, Question, lookup
from tests.kernel.machine import (
    ENP1S0,
    ENP7S0,
    GUARD,
    GUARD6,
    NODE1,
    NODE1_V6,
    Machine,
    machine_in_namespace,
    setting,
)

POD, POD6 = ip_address("10.128.0.5"), ip_address("fd01:0:0:1::5")
OUTSIDE, OUTSIDE6 = ip_address("203.0.113.10"), ip_address("2001:db8:113::10")
FORWARDING = (
    setting(ENP1S0, Setting.FORWARDING, 1),
    setting(ENP7S0, Setting.FORWARDING, 1),
    setting(LinkName("all"), Setting.FORWARDING6, 1),
)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_in_namespace() as made:
        made.write([*FORWARDING, GUARD, GUARD6, NODE1, NODE1_V6])
        made.read()
        yield made


def ask(machine: Machine, question: Question) -> Answer:
    with machine.namespace.inside():
        return lookup(machine.socket, machine.cache, question)


@pytest.mark.parametrize(
    ("question", "route"),
    [
        (Question(dst=POD), NODE1),
        (Question(dst=POD6), NODE1_V6),
        (Question(dst=POD, src=OUTSIDE, incoming=ENP7S0), NODE1),
        (Question(dst=POD6, src=OUTSIDE6, incoming=ENP7S0), NODE1_V6),
        (
            Question(dst=ip_address("192.168.99.11")),
            Route(dst=ip_network("192.168.99.0/24"), hop=OnLink(link=ENP1S0)),
        ),
        (
            Question(dst=OUTSIDE, src=POD, mark=Mark(0x500), incoming=ENP1S0),
            Route(dst=ip_network("0.0.0.0/0"), hop=Via(address=ip_address("192.168.55.254"), link=ENP7S0)),
        ),
    ],
    ids=str,
)
def test_a_packet_is_carried_by_the_route_that_decided(machine: Machine, question: Question, route: Route) -> None:
    assert ask(machine, question) == Answer(route=route)


@pytest.mark.parametrize(
    "question",
    [Question(dst=OUTSIDE, src=POD, incoming=ENP1S0), Question(dst=OUTSIDE6, src=POD6, incoming=ENP1S0)],
    ids=["IPv4", "IPv6"],
)
def test_an_unmarked_pods_packet_is_prohibited(machine: Machine, question: Question) -> None:
    assert ask(machine, question) == Answer(discard=Discard.PROHIBIT, errno=errno.EACCES)


@pytest.mark.parametrize("address", ["192.168.99.1", "fd99::1"])
def test_a_packet_for_the_machine_is_local(machine: Machine, address: str) -> None:
    assert ask(machine, Question(dst=ip_address(address))) == Answer(local=True)


def test_a_packet_without_a_route_is_unreachable(machine: Machine) -> None:
    machine.run("ip route del default")

    assert ask(machine, Question(dst=OUTSIDE)) == Answer(discard=Discard.UNREACHABLE, errno=errno.ENETUNREACH)


@pytest.mark.parametrize("discard", [Discard.BLACKHOLE, Discard.UNREACHABLE, Discard.PROHIBIT])
def test_a_packet_into_a_discard_is_told_as_such(machine: Machine, discard: Discard) -> None:
    machine.made(Route(dst=ip_network("198.51.100.0/24"), hop=discard, metric=OWN_METRIC))

    assert ask(machine, Question(dst=ip_address("198.51.100.1"))).discard is discard


def test_a_packet_that_no_reverse_path_holds_is_dropped_silently(machine: Machine) -> None:
    machine.write([setting(ENP7S0, Setting.RP_FILTER, 1)])

    answer = ask(machine, Question(dst=POD, src=ip_address("192.168.99.11"), incoming=ENP7S0))

    assert answer.route is None
    assert answer.discard is Discard.BLACKHOLE


def test_a_route_in_a_table_that_a_rule_leads_to_is_found_there(machine: Machine) -> None:
    route = Route(dst=ip_network("198.51.100.0/24"), hop=OnLink(link=ENP7S0), table=TableId(10_001), metric=OWN_METRIC)
    machine.made(route, replace(GUARD, priority=90, src=None, mark=Mark(0x500), mask=None, action=TableId(10_001)))

    assert ask(machine, Question(dst=ip_address("198.51.100.1"), mark=Mark(0x500))) == Answer(route=route)
