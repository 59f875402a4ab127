"""The leader asks nodes whether they live: over real TCP, in namespaces of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from outgate.control.probes import Probes
from outgate.control.pulses import INTERVAL_S, MISSES, Pulses
from outgate.lab.namespace import Namespace
from outgate.lab.waiting import comes_true

NODE, PORT = IPv4Address("192.0.2.2"), 9097


@pytest.fixture
def leader() -> Iterator[Namespace]:
    with Namespace("leader") as leader:
        leader.run(("ip", "link", "set", "lo", "up"))
        leader.run(("ip", "addr", "add", f"{NODE}/32", "dev", "lo"))
        yield leader


@contextlib.contextmanager
def role() -> Iterator[None]:
    with Probes(f"{NODE}:{PORT}", is_alive=lambda: True, is_ready=lambda: True, metrics=bytes):
        yield


def test_a_node_is_lost_when_nobody_is_there_and_found_again_when_somebody_is(leader: Namespace) -> None:
    async def story() -> tuple[int, float]:
        told: list[frozenset[str]] = []
        pulses = Pulses(PORT, lambda: told.append(pulses.lost))
        loop = asyncio.get_running_loop()
        with role():
            pulses.watch({"n1": NODE})
            await comes_true(lambda: len(asyncio.all_tasks()) > 1, "it is being asked")
            assert pulses.lost == frozenset()
        leader.run(("nft", "-f", "-"), input=_SILENT)
        began = loop.time()
        await comes_true(lambda: pulses.lost == {"n1"}, "it is lost")
        took_s = loop.time() - began
        leader.run(("nft", "delete", "table", "inet", "silent"))
        with role():
            await comes_true(lambda: pulses.lost == frozenset(), "it is found again")
        pulses.close()
        return len(told), took_s

    with leader.inside():
        changes, took_s = asyncio.run(story())

    assert changes == 2
    assert took_s >= (MISSES - 1) * INTERVAL_S, "one question that is lost is no node that is lost"


def test_a_node_whose_role_is_down_is_not_lost_for_that(leader: Namespace) -> None:
    async def story() -> frozenset[str]:
        leader.run(("nft", "-f", "-"), input=_COUNTED)
        pulses = Pulses(PORT, lambda: None)
        pulses.watch({"n1": NODE})
        await comes_true(lambda: asked(leader) > MISSES, "it was asked more often than a dead one would have to be")
        lost = pulses.lost
        pulses.watch({})
        return lost

    with leader.inside():
        assert asyncio.run(story()) == frozenset()


def asked(leader: Namespace) -> int:
    """How many connections were asked for."""
    words = ("nft", "-j", "list", "counter", "inet", "counted", "asked")
    listed = json.loads(leader.run(words).stdout)["nftables"]
    return next(int(one["counter"]["packets"]) for one in listed if "counter" in one)


_COUNTED = """
table inet counted {
  counter asked { }
  chain out { type filter hook output priority 0; policy accept; tcp dport 9097 tcp flags syn counter name asked; }
}
"""
_SILENT = """
table inet silent {
  chain out { type filter hook output priority 0; policy accept; tcp dport 9097 drop; }
}
"""
