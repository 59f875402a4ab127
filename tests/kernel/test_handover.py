"""What another program made is handed over in place: egress IPs on enp7s0, macvlans on enp1s0, routes to the nodes.

All of it in a namespace; what outgate's own reader of the kernel then says is the oracle.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.ledger import Ledger
from outgate.model.net import LinkAddress, LinkName, Route, Via
from outgate.model.state import Reading
from outgate.roles.machine import GatewayMachine
from outgate.systems.host import handover
from outgate.systems.host.macvlans import macvlans, received

ENP1S0, ENP7S0 = LinkName("enp1s0"), LinkName("enp7s0")
OLD = LinkName("macvlan-ns-blue")
EGRESS, EGRESS6, NEXT_HOP = ip_address("192.168.55.113"), ip_address("fd55::113"), ip_address("192.168.99.13")


@pytest.fixture
def machine() -> Iterator[Namespace]:
    with Namespace("handover") as made:
        made.sysctl("net/ipv6/conf/default/accept_dad", 0)
        for line in (
            "link add enp1s0 type veth peer name node",
            "link add enp7s0 type veth peer name outside",
            *(f"link set {link} up" for link in ("enp1s0", "node", "enp7s0", "outside")),
            "link add link enp1s0 name macvlan-ns-blue type macvlan mode bridge",
            "link set macvlan-ns-blue up",
            "addr add 192.168.99.12/24 dev enp1s0",
            "addr add 192.168.99.13/32 dev macvlan-ns-blue",
            "addr add 192.168.55.12/24 dev enp7s0",
            "addr add 192.168.55.113/32 dev enp7s0",
            "addr add fd55::113/128 dev enp7s0",
        ):
            made.run(["ip", *line.split()])
        yield made


def reading(machine: Namespace) -> Reading:
    with machine.inside():
        seen = GatewayMachine()
        try:
            return seen.read(Ledger())
        finally:
            seen.close()


def told_while_labelling(machine: Namespace) -> list[str]:
    """Return what ip(8) tells about addresses while they are labelled."""
    monitor = machine.popen(["ip", "-o", "monitor", "address"], stdout=subprocess.PIPE)
    assert monitor.stdout is not None
    while not select.select([monitor.stdout], [], [], 0.05)[0]:  # until it listens
        machine.run(["ip", "addr", "replace", "192.0.2.1/32", "dev", "lo"])
    with machine.inside():
        handover.label([(ENP7S0, EGRESS), (ENP7S0, EGRESS6), (OLD, NEXT_HOP)])
    machine.run(["ip", "addr", "add", "192.0.2.2/32", "dev", "lo"])  # the end of what is told
    told = []
    for line in monitor.stdout:
        if "192.0.2.2" in line:
            break
        told.append(line)
    monitor.kill()
    return told


def test_a_labelled_address_is_ours_and_was_never_gone(machine: Namespace) -> None:
    before = reading(machine)
    assert not [one for one in before.actual if isinstance(one, LinkAddress)]

    told = told_while_labelling(machine)

    after = reading(machine)
    assert {one for one in after.actual if isinstance(one, LinkAddress)} == {
        LinkAddress(link=ENP7S0, address=EGRESS),
        LinkAddress(link=ENP7S0, address=EGRESS6),
        LinkAddress(link=OLD, address=NEXT_HOP),
    }
    assert before.facts.addresses - after.facts.addresses == {
        have for have in before.facts.addresses if have.address in (EGRESS, EGRESS6, NEXT_HOP)
    }
    assert all(any(f"{address}/" in line for line in told) for address in (EGRESS, EGRESS6, NEXT_HOP))
    assert not [line for line in told if line.startswith("Deleted")]


def test_only_routes_that_nobody_gave_a_protocol_are_removed_and_ours_beside_them_stay(machine: Namespace) -> None:
    hop = Via(address=ip_address("192.168.99.21"), link=ENP1S0)
    routes = [Route(dst=ip_network(f"10.132.{number}.0/24"), hop=hop) for number in range(3)]
    for number, words in enumerate(("", "proto static", "")):
        machine.run(
            ["ip", "route", "add", f"10.132.{number}.0/24", "via", "192.168.99.21", "dev", "enp1s0", *words.split()]
        )
        ours = ["proto", "111", "metric", "111"]
        machine.run(["ip", "route", "add", f"10.132.{number}.0/24", "via", "192.168.99.21", "dev", "enp1s0", *ours])

    with machine.inside():
        assert handover.remove_routes(routes) == 2
        assert handover.remove_routes(routes) == 0

    left = [line.split()[0] for line in machine.run(["ip", "route"]).stdout.splitlines() if "proto 111" in line]
    assert left == ["10.132.0.0/24", "10.132.1.0/24", "10.132.2.0/24"]
    assert "10.132.1.0/24 via 192.168.99.21 dev enp1s0 proto static" in machine.run(["ip", "route"]).stdout


def test_a_handed_over_link_is_removed_once_and_a_missing_one_is_no_failure(machine: Namespace) -> None:
    with machine.inside():
        assert handover.remove_link(OLD) == ""
        assert handover.remove_link(OLD) == ""
        assert macvlans() == ()


def test_unicast_packets_are_counted_and_broadcasts_are_not(machine: Namespace) -> None:
    (link,) = json.loads(machine.run(["ip", "-j", "link", "show", OLD]).stdout)
    with machine.inside():
        before = received([OLD])
        assert macvlans()[0].parent == ENP1S0
    rest = bytes.fromhex("02000000000108060001") + bytes(40)
    with machine.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as node:
        node.bind(("node", 0))
        for mac in ("ff:ff:ff:ff:ff:ff", link["address"]):
            for _ in range(7):
                node.send(bytes.fromhex(mac.replace(":", "")) + rest)
    with machine.inside():
        assert received([OLD, LinkName("absent")]) == {OLD: before[OLD] + 7}
        assert received([]) == {}
