"""What a node may do of its work, by what is heard on its LAN: real ARP and neighbour discovery between namespaces.

The node's br-ex is a plain NIC here, 192.168.99.21; `far` stands for everybody else on the LAN, and is its router.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace
from outgate.lab.waiting import comes_true
from outgate.model.intent import AssignedPod, Assignment, EgressNode, Node
from outgate.model.net import Address
from outgate.roles.node_claims import Claims, NodeClaims
from outgate.systems.kernel.tables import read_tables

PRIMARY = ip_network("192.168.99.0/24")
NODE = Node(name="n1", primary=(PRIMARY, ip_network("fd99::/64")), next_hops=(ip_address("192.168.99.1"),))
FREE, OURS, TAKEN = ip_address("192.168.99.150"), ip_address("fd99::150"), ip_address("192.168.99.151")


@dataclass(frozen=True, slots=True)
class Lan:
    node: Namespace
    far: Namespace


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Namespace("node") as node, Namespace("far") as far:
        configure(
            {far: [cable("lan", 10, to=node, link="br-ex"), "addr add 192.168.99.1/24 dev lan", "link set lan up"]}
        )
        configure({node: ["addr add 192.168.99.21/24 dev br-ex", "addr add fd99::21/64 dev br-ex nodad"]})
        configure({node: ["link set br-ex up"]})
        yield Lan(node, far)


def work(*addresses: Address, is_new: bool = True) -> EgressNode:
    pods = (AssignedPod(namespace="shop", name="web", addresses=(ip_address("10.128.0.5"),)),)
    return EgressNode(
        name="n1",
        assignments=tuple(
            Assignment(egress_ip="prod", address=address, pods=pods, is_new=is_new) for address in addresses
        ),
    )


def told(lan: Lan, story: Callable[[NodeClaims], Awaitable[None]], again_s: float = 60.0) -> None:
    async def play() -> None:
        claims = NodeClaims(lambda: None, again_s=again_s)
        try:
            await story(claims)
        finally:
            claims.close()

    with lan.node.inside():
        asyncio.run(play())


def look(claims: NodeClaims, wanted: EgressNode, *, is_cut_off: bool = False) -> Claims:
    return claims.look(wanted, NODE, read_tables(), is_cut_off=is_cut_off)


def given(claims: Claims) -> set[Address]:
    return {one.address for one in claims.work.assignments}


def test_what_nobody_had_before_waits_until_nobody_has_it_and_what_a_node_had_does_not_wait(lan: Lan) -> None:
    async def story(claims: NodeClaims) -> None:
        assert given(look(claims, work(FREE, OURS, is_new=False))) == {FREE, OURS}
        assert given(look(claims, EgressNode(name="n1"))) == set()
        assert given(look(claims, work(FREE, OURS))) == set()
        await comes_true(lambda: given(look(claims, work(FREE, OURS))) == {FREE, OURS}, "both are nobody's")

    told(lan, story)


def test_an_address_that_somebody_has_is_never_used_and_told_with_its_mac_until_he_leaves(lan: Lan) -> None:
    lan.far.run(("ip", "addr", "add", f"{TAKEN}/24", "dev", "lan"))
    (mac,) = {line.split()[2] for line in lan.far.run(("ip", "-br", "link", "show", "lan")).stdout.splitlines()}

    async def story(claims: NodeClaims) -> None:
        await comes_true(lambda: look(claims, work(TAKEN)).taken == ((TAKEN, mac),), "somebody has it")
        assert given(look(claims, work(TAKEN))) == set()
        assert look(claims, EgressNode(name="n1")).taken == ((TAKEN, mac),), "that it was taken away changes nothing"
        lan.far.run(("ip", "addr", "del", f"{TAKEN}/24", "dev", "lan"))
        await comes_true(lambda: look(claims, EgressNode(name="n1")).taken == (), "it is asked for again, and free")
        await comes_true(lambda: given(look(claims, work(TAKEN))) == {TAKEN}, "and may be used")

    told(lan, story, again_s=1.0)


def test_a_node_that_is_cut_off_from_the_api_gives_up_what_somebody_else_announces_and_else_defends_it(
    lan: Lan,
) -> None:
    async def story(claims: NodeClaims) -> None:
        mine = work(FREE, is_new=False)
        claims.stands(mine, NODE, read_tables())
        lan.far.run(("ip", "addr", "add", f"{FREE}/24", "dev", "lan"))
        lan.far.run(("arping", "-A", "-c", "1", "-I", "lan", str(FREE)), check=False)
        await comes_true(lambda: given(look(claims, mine, is_cut_off=True)) == set(), "another node has it")
        assert given(look(claims, mine)) == {FREE}

    told(lan, story)


def test_a_network_whose_router_is_silent_is_cut_and_comes_back(lan: Lan) -> None:
    async def story(claims: NodeClaims) -> None:
        await comes_true(lambda: look(claims, work()).cut == (), "the router answers")
        lan.far.run(("ip", "link", "set", "lan", "arp", "off"))
        await comes_true(lambda: PRIMARY in look(claims, work()).cut, "it does not")
        lan.far.run(("ip", "link", "set", "lan", "arp", "on"))
        await comes_true(lambda: look(claims, work()).cut == (), "it does again")

    told(lan, story)
