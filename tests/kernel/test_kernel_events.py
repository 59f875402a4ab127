"""Somebody changes the machine while outgate listens: it is told which parts to read anew, and nothing about itself."""

from __future__ import annotations

import select
import time
from collections.abc import Collection, Iterator

import pytest

from outgate.systems.kernel.events import Watch
from outgate.systems.kernel.read import ALL_PARTS, Part, read
from tests.kernel.machine import EGRESS, GUARD, NODE1, NODE2, RED, WITHIN_S, Machine, machine_in_namespace


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_in_namespace() as made:
        yield made


@pytest.fixture
def watch(machine: Machine) -> Iterator[Watch]:
    with machine.namespace.inside():
        opened = Watch(own_ports=[machine.socket.port])
    with opened:
        yield opened


def told(watch: Watch, parts: Collection[Part]) -> frozenset[Part]:
    """What is told after a change, at least these parts; the kernel tells some of them a moment later."""
    deadline, found = time.monotonic() + WITHIN_S, frozenset[Part]()
    while not found >= set(parts):
        readable, _, _ = select.select([watch], [], [], WITHIN_S)
        assert readable
        assert time.monotonic() < deadline, f"only {found} was told"
        found |= watch.changed()
    return found


CHANGES = {
    "an address": ("ip address add 192.168.55.77/32 dev enp7s0", {Part.ADDRESSES}),
    "an IPv6 address": ("ip address add fd55::77/128 dev enp7s0 nodad", {Part.ADDRESSES}),
    "a route": ("ip route add 10.9.0.0/16 via 192.168.99.66", {Part.ROUTES}),
    "an IPv6 route": ("ip route add fd09::/64 via fd99::66", {Part.ROUTES}),
    "a rule": ("ip rule add priority 7 lookup 500", {Part.RULES}),
    "an IPv6 rule": ("ip -6 rule add priority 7 lookup 500", {Part.RULES}),
    "a nexthop object": ("ip nexthop add id 7 via 192.168.99.66 dev enp1s0", {Part.ROUTES}),
    "a link": ("ip link set enp7s0 mtu 1400", {Part.LINKS, Part.ADDRESSES, Part.ROUTES}),
    "forwarding": ("sysctl -w net.ipv4.conf.enp1s0.forwarding=1", {Part.LINKS}),
    "rp_filter": ("sysctl -w net.ipv4.conf.enp1s0.rp_filter=1", {Part.LINKS}),
    "IPv6 forwarding of all": ("sysctl -w net.ipv6.conf.all.forwarding=1", {Part.LINKS}),
}


@pytest.mark.parametrize(("change", "parts"), CHANGES.values(), ids=CHANGES)
def test_each_change_by_others_tells_its_part(machine: Machine, watch: Watch, change: str, parts: set[Part]) -> None:
    watch.changed()

    machine.run(change)

    found = told(watch, parts)
    assert found == parts or Part.ADDRESSES in found  # an IPv6 address brings routes, a link brings everything


def test_a_nexthop_object_that_goes_away_tells_routes_although_no_route_is_told(machine: Machine, watch: Watch) -> None:
    machine.run("ip nexthop add id 7 via 192.168.99.66 dev enp1s0; ip route add 10.9.0.0/16 nhid 7")
    watch.changed()

    machine.run("ip nexthop del id 7")

    assert told(watch, {Part.ROUTES}) == {Part.ROUTES}


def test_what_we_write_ourselves_tells_nothing(machine: Machine, watch: Watch) -> None:
    machine.read()
    watch.changed()

    machine.write([GUARD, EGRESS, NODE1])
    machine.write([], [NODE1, EGRESS, GUARD])

    assert watch.changed() == frozenset()


@pytest.fixture
def knowing(machine: Machine) -> Iterator[Watch]:
    """One that knows what was read of a tenant's link, and has nothing to tell yet."""
    with machine.namespace.inside():
        opened = Watch(own_ports=[machine.socket.port], is_known=machine.cache.knows)
    with opened:
        machine.made(RED)
        machine.settle()
        opened.changed()
        machine.read()
        yield opened


@pytest.mark.parametrize("change", ["allmulticast on", "txqueuelen 7"])
def test_a_notification_without_news_about_a_tenants_link_tells_nothing(
    machine: Machine, watch: Watch, knowing: Watch, change: str
) -> None:
    """Of each new link the kernel tells once more when it has carrier: 4,000 would be read anew for forty seconds."""
    watch.changed()

    machine.run(f"ip link set {RED.name} {change}")

    assert Part.LINKS in told(watch, {Part.LINKS})
    assert knowing.changed() == frozenset()


@pytest.mark.parametrize(
    "change",
    ["down", "arp off", "address 02:00:00:00:00:07", "mtu 1400", "group 7", "type macvlan mode private"],
)
def test_what_others_do_to_a_tenants_link_is_told(machine: Machine, knowing: Watch, change: str) -> None:
    machine.run(f"ip link set {RED.name} {change}")

    assert Part.LINKS in told(knowing, {Part.LINKS})


def test_lost_notifications_ask_for_everything(machine: Machine) -> None:
    with machine.namespace.inside():
        watch = Watch(receive_buffer=4096)
    with watch:
        routes = "\n".join(f"route add 10.9.0.{i}/32 via 192.168.99.66" for i in range(200))

        machine.namespace.run(("ip", "-batch", "-"), input=routes)

        assert told(watch, ALL_PARTS) == ALL_PARTS
        assert watch.changed() == frozenset()


def test_after_a_change_only_the_told_part_needs_to_be_read(machine: Machine, watch: Watch) -> None:
    machine.made(NODE1)
    watch.changed()

    machine.run(f"ip route del {NODE1.dst} proto 111")
    with machine.namespace.inside():
        reading = read(machine.socket, machine.cache, parts=told(watch, {Part.ROUTES}))

    assert reading.actual == frozenset()
    assert reading.facts == machine.read().facts


def test_a_part_that_is_not_read_is_as_it_was(machine: Machine) -> None:
    machine.made(NODE1, EGRESS)
    machine.run(f"ip route del {NODE1.dst} proto 111; ip address del 192.168.55.113/32 dev enp7s0")

    with machine.namespace.inside():
        reading = read(machine.socket, machine.cache, parts=frozenset({Part.ROUTES}))

    assert reading.actual == {EGRESS}


def test_a_reading_of_one_part_that_meets_a_new_link_reads_the_links_too(machine: Machine) -> None:
    machine.read()
    machine.run("ip link add new0 type veth peer name new1; ip address add 192.168.77.1/24 dev new0")

    with machine.namespace.inside():
        reading = read(machine.socket, machine.cache, parts=frozenset({Part.ADDRESSES}))

    assert "new0" in reading.facts.links
    assert "new0" in {found.link for found in reading.facts.addresses}


def test_a_reading_amid_constant_change_is_right_when_the_change_ends(machine: Machine) -> None:
    machine.made(NODE1, NODE2)
    flapping = "for i in $(seq 50); do ip link add flap$i type veth peer name palf$i; ip link del flap$i; done"
    somebody = machine.namespace.popen(("sh", "-ec", flapping))

    while somebody.poll() is None:
        assert machine.read().actual == {NODE1, NODE2}

    assert somebody.returncode == 0
    assert not any(link.startswith("flap") for link in machine.read().facts.links)
