"""While a table is being replaced, its rules are in force and its intervals are not: a moment, held still here.

The two maps that are written last are emptied, which is how the rules see that moment. See `tests.kernel.passage` for
the three machines, and gateway.nft for the reason.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from outgate.lab.batch import configure
from outgate.model.net import Address
from outgate.model.ruleset import Element
from tests.kernel.passage import (
    INNER,
    PORT,
    RED,
    UPLINK,
    V4,
    V6,
    Passage,
    Plan,
    listening,
    passing,
    send,
    tcp,
    told,
    udp,
)

BOTH = pytest.mark.parametrize("plan", [V4, V6], ids=str)
HERE: dict[int, Address] = {4: IPv4Address("192.168.99.11"), 6: IPv6Address("fd99::11")}
STOPPED_ALOUD = ("no_identity", "source_refused", "internal_refused", "wrong_exit", "inbound_dropped", "guard_dropped")


@pytest.fixture
def passage() -> Iterator[Passage]:
    made = Passage()
    try:
        yield made
    finally:
        made.close()


def hold(passage: Passage) -> None:
    """Make the table look as it does before its intervals are in force."""
    passage.gateway.run(("nft", "flush map inet outgate ready; flush map inet outgate nobody"))


def is_lost(passage: Passage, source: Address, destination: Address) -> bool:
    """Whether a packet from a pod is neither seen outside nor answered with an error, as if the wire had lost it."""
    passage.leaks.reset()
    with listening(passage.gateway, HERE[source.version]), udp(passage.node, source) as pod:
        pod.connect((str(destination), PORT))
        pod.send(b"x")
        assert told(passage, source, HERE[source.version]) == 0  # what was sent before this answer has been decided
        error = pod.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    quiet = all(passage.stopped(name) == 0 for name in STOPPED_ALOUD)
    return quiet and error == 0 and passage.leaks.seen() == {}


@BOTH
def test_a_flow_of_a_tenant_goes_on_both_ways(passage: Passage, plan: Plan) -> None:
    passage.load(Element(f"id_pod{plan.version}", (plan.nobody,), RED))
    with (
        listening(passage.outside, plan.server) as server,
        tcp(passage.node, plan.blue) as by_link,
        tcp(passage.node, plan.nobody) as by_pod,
        contextlib.ExitStack() as accepted,
    ):
        ends = []
        for client in (by_link, by_pod):
            client.connect((str(plan.server), PORT))
            ends.append((client, accepted.enter_context(server.accept()[0])))

        hold(passage)

        for client, there in ends:
            client.sendall(b"ping")
            assert there.recv(4) == b"ping"
            there.sendall(b"pong")
            assert client.recv(4) == b"pong"


@BOTH
def test_a_new_flow_is_lost_and_neither_refused_nor_translated(passage: Passage, plan: Plan) -> None:
    passage.load()
    hold(passage)
    assert is_lost(passage, plan.blue, plan.server)


@BOTH
def test_a_pod_of_nobody_is_lost_and_not_refused(passage: Passage, plan: Plan) -> None:
    passage.load()
    hold(passage)
    assert is_lost(passage, plan.nobody, plan.server)


@BOTH
def test_a_source_that_passes_is_lost_since_it_may_be_a_tenants(passage: Passage, plan: Plan) -> None:
    passage.load(passing(plan.lan_net))
    hold(passage)
    assert is_lost(passage, plan.lan, plan.server)


@BOTH
def test_what_is_not_for_an_uplink_is_lost_since_it_may_be_internal(passage: Passage, plan: Plan) -> None:
    passage.load(without=[Element("check_nodes", (mark,)) for mark in (0x10000, 0x20000)])
    configure({passage.gateway: [f"route replace default via {plan.lan} dev {INNER}"]})
    hold(passage)
    assert is_lost(passage, plan.blue, plan.server)


@BOTH
def test_a_new_flow_from_outside_into_the_pods_is_lost(passage: Passage, plan: Plan) -> None:
    passage.load()
    pods = "10.128.0.0/14" if plan.version == 4 else "fd01::/48"
    configure({passage.outside: [f"route add {pods} via {plan.gateway}"]})
    passage.gateway.run(("nft", f"flush set inet outgate protected{plan.version}"))
    hold(passage)
    with udp(passage.node, plan.blue, PORT) as pod, udp(passage.outside, plan.server) as caller:
        pod.setblocking(False)
        send(caller, plan.blue)
        with pytest.raises(BlockingIOError):
            pod.recv(10)


@BOTH
def test_the_machine_itself_is_reached(passage: Passage, plan: Plan) -> None:
    passage.load(Element("closed", (UPLINK,)))
    hold(passage)
    with listening(passage.gateway, HERE[plan.version]):
        assert told(passage, plan.nobody, HERE[plan.version]) == 0
    with listening(passage.outside, plan.server), tcp(passage.gateway, plan.gateway) as client:
        client.connect((str(plan.server), PORT))
