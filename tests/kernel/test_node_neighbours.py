"""A node on a wire with a router and another node: `eth1` of each leads to a switch of its own namespace.

The node holds 192.168.55.150 and fd55::150; the router is 192.168.55.1 and fd55::1, the other node 192.168.55.11 and
fd55::11. What somebody's kernel believes about an address is read from its neighbour table.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from outgate.control.node_neighbours import NodeNeighbours
from outgate.lab.namespace import Namespace
from outgate.lab.waiting import comes_true
from outgate.model.net import Address, LinkName, Mac
from outgate.systems.wire.announce import Announcer
from outgate.systems.wire.frames import Announcement
from outgate.systems.wire.probe import Prober

LIMIT_S = 20.0  # generous: the machine may be busy with other things
ETH1 = LinkName("eth1")
NODE_MAC, ROUTER_MAC, OTHER_MAC = Mac("02:e6:00:00:00:0a"), Mac("02:aa:00:00:00:01"), Mac("02:e6:00:00:00:0b")
STALE_MAC, RIVAL_MAC = Mac("02:bb:00:00:00:99"), Mac("02:cc:00:00:00:01")
EGRESS = ip_address("192.168.55.150"), ip_address("fd55::150")
ROUTER = ip_address("192.168.55.1"), ip_address("fd55::1")
OTHER = ip_address("192.168.55.11"), ip_address("fd55::11")
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
MUTE = """
table inet mute {
  chain out { type filter hook output priority 0; icmpv6 type nd-neighbor-advert drop; }
}
table arp mute {
  chain out { type filter hook output priority 0; drop; }
}
"""


@dataclass(frozen=True, slots=True)
class Wire:
    node: Namespace
    router: Namespace
    other: Namespace
    switch: Namespace

    def cable(self, end: Namespace, mac: Mac) -> None:
        """Give a machine its `eth1`, plugged in."""
        port = f"to-{end.name}"
        self.switch.run(("ip", "link", "add", port, "type", "veth", "peer", ETH1, "address", mac, "netns", end.path))
        self.switch.run(("ip", "link", "set", port, "master", "lan", "up"))
        end.run(("ip", "link", "set", ETH1, "up"))

    def plug(self, end: Namespace, state: str) -> None:
        self.switch.run(("ip", "link", "set", f"to-{end.name}", state))


@pytest.fixture
def wire() -> Iterator[Wire]:
    with (
        Namespace("node") as node,
        Namespace("router") as router,
        Namespace("other") as other,
        Namespace("switch") as switch,
    ):
        made = Wire(node, router, other, switch)
        switch.run(("ip", "link", "add", "lan", "up", "type", "bridge"))
        for end, mac, host in ((node, NODE_MAC, 10), (router, ROUTER_MAC, 1), (other, OTHER_MAC, 11)):
            end.sysctl("net/ipv6/conf/default/accept_dad", 0)
            made.cable(end, mac)
            end.run(("ip", "address", "add", f"192.168.55.{host}/24", "dev", ETH1))
            end.run(("ip", "address", "add", f"fd55::{host}/64", "dev", ETH1, "nodad"))
        yield made


class Watched:
    """The neighbours of the node, and how often they called."""

    def __init__(self) -> None:
        self.calls = 0
        self.neighbours = NodeNeighbours(asyncio.get_running_loop(), self.changed)

    def changed(self) -> None:
        self.calls += 1


@asynccontextmanager
async def watching(wire: Wire) -> AsyncIterator[Watched]:
    await comes_true(lambda: all(map(carries, (wire.node, wire.router, wire.other))), "carrier everywhere")
    made = Watched()
    try:
        yield made
    finally:
        made.neighbours.close()


def shown(namespace: Namespace, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(namespace.run(("ip", "-j", *arguments)).stdout or "[]"))


def carries(namespace: Namespace) -> bool:
    """Whether frames can leave: the kernel takes up a new carrier some time after it is there."""
    (link,) = shown(namespace, "link", "show", ETH1)
    return bool(link["operstate"] == "UP" and link["qdisc"] != "noop")


def believed(namespace: Namespace, address: Address) -> str | None:
    """The MAC that a namespace believes to have the address."""
    return next((entry.get("lladdr") for entry in shown(namespace, "neighbour", "show", str(address))), None)


def believe(namespace: Namespace, address: Address, mac: Mac) -> None:
    namespace.run(("ip", "neighbour", "replace", str(address), "lladdr", mac, "dev", ETH1, "nud", "stale"))


def mute(namespace: Namespace) -> None:
    namespace.run(("nft", "-f", "-"), input=MUTE)


def unmute(namespace: Namespace) -> None:
    namespace.run(("nft", "delete table inet mute; delete table arp mute"))


def run(wire: Wire, story: Coroutine[None, None, None]) -> None:
    """Let a story happen with the loop's thread on the node."""
    with wire.node.inside():
        asyncio.run(story)


@FAMILIES
def test_what_is_held_is_announced_with_the_links_own_mac(wire: Wire, family: int) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            believe(wire.router, EGRESS[family], STALE_MAC)

            node.neighbours.hold({EGRESS[family]: ETH1})

            await comes_true(
                lambda: believed(wire.router, EGRESS[family]) == NODE_MAC, "the router knows the node's MAC"
            )
            assert node.calls == 0

    run(wire, story())


@FAMILIES
def test_what_is_held_without_carrier_is_announced_when_there_is_one(wire: Wire, family: int) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            believe(wire.router, EGRESS[family], STALE_MAC)
            wire.plug(wire.node, "down")
            await comes_true(lambda: not carries(wire.node), "no carrier")
            node.neighbours.hold({EGRESS[family]: ETH1})

            wire.plug(wire.node, "up")

            await comes_true(
                lambda: believed(wire.router, EGRESS[family]) == NODE_MAC, "the router knows the node's MAC"
            )

    run(wire, story())


@FAMILIES
def test_what_is_held_is_announced_again_when_its_link_gets_another_mac(wire: Wire, family: int) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            believe(wire.router, EGRESS[family], STALE_MAC)
            node.neighbours.hold({EGRESS[family]: ETH1})
            await comes_true(
                lambda: believed(wire.router, EGRESS[family]) == NODE_MAC, "the router knows the node's MAC"
            )

            wire.node.run(("ip", "link", "set", ETH1, "address", RIVAL_MAC))

            await comes_true(lambda: believed(wire.router, EGRESS[family]) == RIVAL_MAC, "the router knows the new one")
            assert node.neighbours.taken == {}

    run(wire, story())


@FAMILIES
def test_what_is_held_before_its_link_is_there_is_announced_when_it_comes(wire: Wire, family: int) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            wire.node.run(("ip", "link", "delete", ETH1))
            believe(wire.router, EGRESS[family], STALE_MAC)
            node.neighbours.hold({EGRESS[family]: ETH1})
            node.neighbours.watch({ETH1: frozenset()})
            await comes_true(lambda: node.neighbours.cut == {ETH1}, "a link that is not there is cut")

            wire.cable(wire.node, NODE_MAC)

            await comes_true(
                lambda: believed(wire.router, EGRESS[family]) == NODE_MAC, "the router knows the node's MAC"
            )
            assert node.neighbours.cut == frozenset()

    run(wire, story())


@FAMILIES
def test_who_claims_what_is_held_is_told_until_it_is_held_no_more(wire: Wire, family: int) -> None:
    async def story() -> None:
        address = EGRESS[family]
        async with watching(wire) as node:
            node.neighbours.hold({address: ETH1})
            with wire.other.inside():
                rival = Announcer()

            rival.send([Announcement(link=ETH1, address=address, mac=RIVAL_MAC)])

            await comes_true(lambda: node.calls, "a call")
            assert node.neighbours.taken == {address: RIVAL_MAC}
            node.neighbours.hold({})
            await comes_true(lambda: node.calls == 2, "a call")
            assert node.neighbours.taken == {}
            rival.close()

    run(wire, story())


def test_what_is_said_with_the_nodes_own_mac_or_only_asked_is_no_claim(wire: Wire) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            node.neighbours.hold(dict.fromkeys(EGRESS, ETH1))
            with wire.other.inside():
                speaker, asking = Announcer(), Prober(ETH1)
            speaker.send([Announcement(link=ETH1, address=address, mac=NODE_MAC) for address in EGRESS])
            for address in EGRESS:
                assert asking.ask(address)

            speaker.send([Announcement(link=ETH1, address=EGRESS[0], mac=RIVAL_MAC)])

            await comes_true(lambda: node.calls, "a call")
            assert node.neighbours.taken == {EGRESS[0]: RIVAL_MAC}, "the last one only"
            speaker.close()
            asking.close()

    run(wire, story())


def test_addresses_are_asked_for_side_by_side_and_each_gets_its_verdict(wire: Wire) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            node.neighbours.ask(dict.fromkeys((*EGRESS, *OTHER), ETH1))
            assert (node.neighbours.free, node.neighbours.taken) == (frozenset(), {})

            await comes_true(lambda: node.neighbours.free == set(EGRESS), "what nobody has is free")

            assert node.neighbours.taken == dict.fromkeys(OTHER, OTHER_MAC)
            assert 2 <= node.calls <= 4

    run(wire, story())


@FAMILIES
def test_a_verdict_stands_until_the_address_is_wanted_no_more_and_then_is_sought_again(wire: Wire, family: int) -> None:
    async def story() -> None:
        address = EGRESS[family]
        async with watching(wire) as node:
            node.neighbours.ask({address: ETH1})
            await comes_true(lambda: node.neighbours.free == {address}, "it is free")
            length = 24 if address.version == 4 else 64
            wire.other.run(("ip", "address", "add", f"{address}/{length}", "dev", ETH1, "nodad"))
            node.neighbours.ask({address: ETH1, OTHER[family]: ETH1})
            await comes_true(lambda: OTHER[family] in node.neighbours.taken, "the other one is asked for")
            assert node.neighbours.free == {address}

            node.neighbours.ask({})
            await comes_true(lambda: not node.neighbours.free, "there is no verdict any more")
            node.neighbours.ask({address: ETH1})

            await comes_true(lambda: node.neighbours.taken == {address: OTHER_MAC}, "it is taken")
            assert node.neighbours.free == frozenset()

    run(wire, story())


def test_what_is_asked_for_on_a_link_that_goes_is_asked_for_when_it_comes_back(wire: Wire) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            node.neighbours.ask(dict.fromkeys((*EGRESS, *OTHER), ETH1))
            wire.node.run(("ip", "link", "delete", ETH1))
            node.neighbours.watch({ETH1: frozenset()})
            await comes_true(lambda: node.neighbours.cut == {ETH1}, "the link is gone")
            assert node.neighbours.free == frozenset()

            wire.cable(wire.node, NODE_MAC)

            await comes_true(lambda: node.neighbours.free == set(EGRESS), "what nobody has is free")
            assert node.neighbours.taken == dict.fromkeys(OTHER, OTHER_MAC)

    run(wire, story())


def test_a_link_that_another_one_of_its_name_replaces_at_once_is_asked_and_announced_on(wire: Wire) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            node.neighbours.hold({EGRESS[0]: ETH1})
            node.neighbours.ask({EGRESS[1]: ETH1, OTHER[1]: ETH1})
            believe(wire.router, EGRESS[0], STALE_MAC)

            wire.node.run(("ip", "link", "delete", ETH1))
            wire.cable(wire.node, NODE_MAC)
            await comes_true(lambda: carries(wire.node), "carrier")

            await comes_true(lambda: node.neighbours.free == {EGRESS[1]}, "what nobody has is free")
            assert node.neighbours.taken == {OTHER[1]: OTHER_MAC}
            await comes_true(lambda: believed(wire.router, EGRESS[0]) == NODE_MAC, "the router knows the node's MAC")

    run(wire, story())


@FAMILIES
def test_a_link_whose_router_falls_silent_is_cut_and_comes_back_with_it(wire: Wire, family: int) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            node.neighbours.watch({ETH1: frozenset({ROUTER[family]})})
            await answered(ROUTER[family])
            assert node.neighbours.cut == frozenset()

            mute(wire.router)
            await comes_true(lambda: node.neighbours.cut == {ETH1}, "the link is cut")
            assert node.calls == 1

            unmute(wire.router)
            await comes_true(lambda: node.neighbours.cut == frozenset(), "the link is back")
            assert node.calls == 2

    run(wire, story())


async def answered(router: Address) -> None:
    """Wait until questions that leave after this have been answered, as often as it takes to be cut otherwise."""
    ear = Prober(ETH1)
    ear.hold([router], [])
    heard = 0

    def enough() -> bool:
        nonlocal heard
        heard += len(ear.receive())
        return heard >= 4

    try:
        await comes_true(enough, f"{router} answers again and again")
    finally:
        ear.close()


def test_one_router_that_answers_is_enough(wire: Wire) -> None:
    async def story() -> None:
        gone = ip_address("192.168.55.2")
        async with watching(wire) as node:
            node.neighbours.watch({ETH1: frozenset({gone, ROUTER[0]})})
            await answered(ROUTER[0])
            assert node.neighbours.cut == frozenset()

            node.neighbours.watch({ETH1: frozenset({gone})})

            await comes_true(lambda: node.neighbours.cut == {ETH1}, "the one that is left never answers")

    run(wire, story())


@FAMILIES
def test_other_nodes_that_ask_for_the_router_are_not_the_router(wire: Wire, family: int) -> None:
    async def story() -> None:
        mute(wire.router)
        async with watching(wire) as node:
            node.neighbours.watch({ETH1: frozenset({ROUTER[family]})})
            with wire.other.inside():
                other = Prober(ETH1)

            def is_cut() -> bool:
                assert other.ask(ROUTER[family])
                return node.neighbours.cut == {ETH1}

            await comes_true(is_cut, "the link is cut though the other node asks all the time")
            other.close()

    run(wire, story())


def test_a_router_whose_unicast_answer_fails_is_asked_by_all_and_may_have_another_mac(wire: Wire) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            node.neighbours.watch({ETH1: frozenset({ROUTER[0]})})
            await answered(ROUTER[0])

            wire.router.run(("ip", "address", "delete", f"{ROUTER[0]}/24", "dev", ETH1))
            wire.other.run(("ip", "address", "add", f"{ROUTER[0]}/24", "dev", ETH1))

            await answered(ROUTER[0])
            assert node.calls == 0, "one lost answer cuts nothing"

    run(wire, story())


@pytest.mark.parametrize("routers", [frozenset(), frozenset(ROUTER)], ids=["no router", "routers"])
@pytest.mark.parametrize("end", ["node", "switch"], ids=["NIC down", "no carrier"])
def test_a_link_without_carrier_is_cut_and_comes_back_with_it(
    wire: Wire, end: str, routers: frozenset[Address]
) -> None:
    async def story() -> None:
        side, link = (wire.node, ETH1) if end == "node" else (wire.switch, "to-node")
        async with watching(wire) as node:
            node.neighbours.watch({ETH1: routers})
            assert node.neighbours.cut == frozenset()

            side.run(("ip", "link", "set", link, "down"))
            await comes_true(lambda: node.neighbours.cut == {ETH1}, "the link is cut")

            side.run(("ip", "link", "set", link, "up"))
            await comes_true(lambda: node.neighbours.cut == frozenset(), "the link is back")

    run(wire, story())


def test_a_link_without_routers_is_never_cut_by_silence_and_one_that_is_watched_no_more_is_not_cut(wire: Wire) -> None:
    async def story() -> None:
        async with watching(wire) as node:
            node.neighbours.watch({ETH1: frozenset({ip_address("192.168.55.2")})})
            await comes_true(lambda: node.neighbours.cut == {ETH1}, "it never answers")

            node.neighbours.watch({ETH1: frozenset()})
            await comes_true(lambda: node.neighbours.cut == frozenset(), "there is nobody to be silent")

            node.neighbours.watch({ETH1: frozenset({ip_address("192.168.55.2")})})
            await comes_true(lambda: node.neighbours.cut == {ETH1}, "it never answers")
            node.neighbours.watch({})
            await comes_true(lambda: node.neighbours.cut == frozenset(), "it is watched no more")

    run(wire, story())
