"""Pods send through tables as chance left them; what becomes of each packet is foretold by the trace of a reading.

Three machines in a row, tenants blue and red by their links, nobody by the NIC, both families (`tests.kernel.passage`).
Every packet opens a flow of its own, since a flow that lives keeps what was decided for its first packet.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from outgate.model.net import Address, LinkName
from outgate.model.ruleset import Element
from outgate.model.spread import BUCKETS
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.read import read as read_kernel
from outgate.systems.netlink import NetlinkSocket
from outgate.systems.nft import read as nft
from outgate.trace.steps import Disposition, Packet, Trace
from outgate.trace.walk import arrive_by
from outgate.trace.world import World, world_of_actual
from tests.kernel.passage import (
    BLUE,
    BLUE_LINK,
    INNER,
    LIMIT_S,
    NEXT_HOPS,
    PORT,
    RED_LINK,
    REFUSED,
    V4,
    V6,
    Passage,
    Plan,
    only,
    own,
    passing,
    ruleset,
    snat,
    udp,
)

TABLES = 12
SILENCE_S = 0.3  # what should be dropped would have been seen after this long; all else may take its time
NIC_HOPS = {4: "192.168.99.11", 6: "fd99::11"}


@pytest.fixture
def passage() -> Iterator[Passage]:
    made = Passage()
    try:
        yield made
    finally:
        made.close()


def extras(chance: Random) -> list[Element]:
    """Return some elements that other plans would want."""
    spread = [Element("id_spread", (BLUE_LINK, number), BLUE | number % 2) for number in range(BUCKETS)]
    found: list[list[Element]] = [[Element("spread", (BLUE_LINK,)), *spread, Element("tenant_of", (BLUE | 1,), BLUE)]]
    for plan in (V4, V6):
        version = plan.version
        found += [
            [snat(BLUE | 1, plan.blue_second), own(BLUE | 1, plan.blue_second)],
            [Element(f"snat_to{version}", (BLUE, only(plan.other)), plan.blue_second), own(BLUE, plan.blue_second)],
            [Element(f"snat_to{version}", (BLUE, only(plan.other)), plan.red_ip)],
            [Element(f"id_pod{version}", (plan.nobody,), BLUE)],
            [Element(f"id_net{version}", (plan.subnet,), BLUE)],
            [passing(plan.subnet)],
            [Element("check_pods", (BLUE,)), Element(f"pods_of{version}", (BLUE, plan.blue))],
            [Element("closed", (INNER,))],
        ]
    chosen = [element for group in found if chance.random() < 0.3 for element in group]
    return list({element.slot: element for element in chosen}.values())


def world_of(passage: Passage) -> World:
    """Read the gateway as it is."""
    with passage.gateway.inside(), NetlinkSocket(0) as netlink:
        kernel, table = read_kernel(netlink, Cache()), nft.read()
    assert table.table is not None
    return world_of_actual(kernel.actual | table.elements | {table.table}, kernel.facts, table.table.digest)


def foretold(world: World, source: Address, server: Address, next_hop: str) -> Trace:
    packet = Packet(source=source, destination=server, incoming=LinkName(INNER), protocol="udp", port=PORT)
    return arrive_by(world, packet, type(source)(next_hop))


def happened(passage: Passage, source: Address, server: Address, wait_s: float) -> tuple[Disposition, Address | None]:
    """Send a packet from a pod, and say what became of it within a time: seen outside as whom, refused, or gone."""
    with udp(passage.node, source) as pod, udp(passage.outside, server, PORT) as there:
        pod.connect((str(server), PORT))
        pod.send(b"x")
        ready, _, _ = select.select([pod, there], [], [], wait_s)
        if there in ready:
            _, (seen, *_) = there.recvfrom(64)
            return Disposition.LEAVES, type(source)(seen)
        if pod in ready:
            refusal = pod.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert refusal in REFUSED, refusal
            return Disposition.REJECTED, None
    return Disposition.DROPPED, None


def senders(plan: Plan) -> Iterator[tuple[Address, str]]:
    """Yield each pod with the next hop that its node sends it to."""
    place = 0 if plan.version == 4 else 1
    yield plan.blue, NEXT_HOPS[BLUE_LINK][place]
    yield plan.red, NEXT_HOPS[RED_LINK][place]
    yield plan.nobody, NIC_HOPS[plan.version]


def test_every_packet_ends_as_the_trace_of_the_kernels_own_table_foretells(passage: Passage) -> None:
    chance = Random("tables")
    ends: Counter[Disposition] = Counter()
    wrong: list[str] = []
    for number in range(TABLES):
        lost = chance.sample(sorted(ruleset(), key=str), chance.randrange(5)) if number else []
        passage.load(*(extras(chance) if number else []), without=lost)
        world = world_of(passage)
        for plan in (V4, V6):
            for source, next_hop in senders(plan):
                for server in (plan.server, plan.other):
                    trace = foretold(world, source, server, next_hop)
                    assert trace.certain
                    ends[trace.disposition] += 1
                    wait_s = SILENCE_S if trace.disposition is Disposition.DROPPED else LIMIT_S
                    found = happened(passage, source, server, wait_s)
                    if found != (trace.disposition, trace.leaves_as):
                        wrong.append(f"table {number} without {lost}: {trace.packet}: {trace.reason}; found {found}")

    assert wrong == []
    assert min(ends[end] for end in (Disposition.LEAVES, Disposition.REJECTED, Disposition.DROPPED)) > 5, ends
