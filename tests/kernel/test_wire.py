"""A gateway and a neighbour on one wire: 192.168.55.12 and fd55::12 face 192.168.55.1 and fd55::1, in two namespaces.

The gateway's `uplink` and the neighbour's `port` are the ends of a veth pair. What the neighbour's kernel believes
about an address is read from its neighbour table; what arrived at a link is read from the link's counters.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.errors import Unreachable
from outgate.model.net import Address, LinkName, Mac
from outgate.systems.wire.announce import Announcer
from outgate.systems.wire.frames import Announcement
from outgate.systems.wire.probe import Conflict, Prober

UPLINK, PORT = LinkName("uplink"), LinkName("port")
UPLINK_MAC, PORT_MAC = Mac("02:e6:00:00:00:0c"), Mac("02:aa:00:00:00:01")
TENANT_MAC, STALE_MAC = Mac("02:e6:00:11:22:33"), Mac("02:bb:00:00:00:99")
TAKEN = ip_address("192.168.55.1"), ip_address("fd55::1")
FREE = ip_address("192.168.55.113"), ip_address("fd55::113")
LIMIT_S = 20.0  # generous: the machine may be busy with other things


@dataclass(frozen=True)
class Wire:
    gateway: Namespace
    neighbour: Namespace


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Namespace("gateway") as gateway, Namespace("neighbour") as neighbour:
        gateway.sysctl("net/ipv6/conf/default/accept_dad", 0)
        neighbour.sysctl("net/ipv6/conf/default/accept_dad", 0)
        ends = ("dev", UPLINK, "address", UPLINK_MAC), ("name", PORT, "address", PORT_MAC, "netns", neighbour.path)
        gateway.run(("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]))
        for namespace, link, host in ((gateway, UPLINK, "12"), (neighbour, PORT, "1")):
            namespace.run(("ip", "link", "set", link, "up"))
            namespace.run(("ip", "address", "add", f"192.168.55.{host}/24", "dev", link))
            namespace.run(("ip", "address", "add", f"fd55::{host}/64", "dev", link, "nodad"))
        until(lambda: carries(gateway, UPLINK) and carries(neighbour, PORT), "carrier at both ends")
        yield Wire(gateway, neighbour)


@pytest.fixture
def prober(wire: Wire) -> Iterator[Prober]:
    with wire.gateway.inside():
        made = Prober(UPLINK)
    yield made
    made.close()


@pytest.fixture
def announcer(wire: Wire) -> Iterator[Announcer]:
    with wire.gateway.inside():
        made = Announcer()
    yield made
    made.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Ask again and again, at most for the limit, until the condition holds."""
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up, f"never came true: {what}"
        select.select([], [], [], 0.01)


def carries(namespace: Namespace, link: str) -> bool:
    """Whether frames can leave: the kernel takes up a new carrier some time after it is there."""
    (shown,) = json.loads(namespace.run(("ip", "-j", "link", "show", link)).stdout)
    return bool(shown["operstate"] == "UP" and shown["qdisc"] != "noop")


def drive(*probers: Prober, done: Callable[[], bool]) -> tuple[set[Address], list[Conflict]]:
    """Do for probers what a loop does, until done; return the free addresses and the conflicts of all of them."""
    free: set[Address] = set()
    conflicts: list[Conflict] = []
    give_up = time.monotonic() + LIMIT_S
    while True:
        ticks = [each.tick(time.monotonic()) for each in probers]
        free.update(address for tick in ticks for address in tick.free)
        if done():
            return free, conflicts
        assert time.monotonic() < give_up, f"still probing {[each.probed for each in probers]}"
        next_s = min((tick.next_s for tick in ticks if tick.next_s is not None), default=time.monotonic() + 0.05)
        readable, _, _ = select.select(probers, [], [], max(0.0, next_s - time.monotonic()))
        for each in readable:
            conflicts += each.receive()


def verdicts(*probers: Prober) -> tuple[set[Address], list[Conflict]]:
    return drive(*probers, done=lambda: not any(each.probed for each in probers))


def heard(prober: Prober, count: int) -> list[Conflict]:
    """The first conflicts that a prober hears while it only watches."""
    found: list[Conflict] = []

    def enough() -> bool:
        found.extend(prober.receive())
        return len(found) >= count

    until(enough, f"{count} conflicts")
    return found


def believed(namespace: Namespace, address: Address) -> str | None:
    """The MAC that a namespace believes to have the address."""
    entries = json.loads(namespace.run(("ip", "-j", "neighbour", "show", str(address))).stdout or "[]")
    return next((entry.get("lladdr") for entry in entries), None)


def received(namespace: Namespace, *, kind: str) -> dict[str, int]:
    """How many packets each link of a kind has received."""
    links = json.loads(namespace.run(("ip", "-j", "-s", "link", "show", "type", kind)).stdout)
    return {link["ifname"]: link["stats64"]["rx"]["packets"] for link in links}


@pytest.mark.parametrize("address", TAKEN, ids=str)
def test_an_address_that_the_neighbour_has_is_a_conflict_with_its_mac(prober: Prober, address: Address) -> None:
    prober.start([address], time.monotonic())

    free, conflicts = verdicts(prober)

    assert free == set()
    assert conflicts == [Conflict(address=address, mac=PORT_MAC)]


@pytest.mark.parametrize("address", FREE, ids=str)
def test_an_address_that_nobody_has_is_free_after_three_probes_and_as_many_pauses(
    wire: Wire, prober: Prober, address: Address
) -> None:
    before = received(wire.neighbour, kind="veth")[PORT]
    started = time.monotonic()
    prober.start([address], started)

    free, conflicts = verdicts(prober)

    assert (free, conflicts) == ({address}, [])
    assert 0.9 <= time.monotonic() - started < 5
    assert received(wire.neighbour, kind="veth")[PORT] - before >= 3
    assert prober.tick(time.monotonic()).next_s is None


def test_probing_teaches_the_neighbour_nothing(wire: Wire, prober: Prober) -> None:
    for address in FREE:
        wire.neighbour.run(("ip", "neighbour", "add", str(address), "lladdr", STALE_MAC, "dev", PORT, "nud", "stale"))
    prober.start(FREE, time.monotonic())

    assert verdicts(prober) == (set(FREE), [])

    assert [believed(wire.neighbour, address) for address in FREE] == [STALE_MAC, STALE_MAC]


def test_many_addresses_are_probed_side_by_side(wire: Wire, prober: Prober) -> None:
    addresses = [ip_address(f"192.168.55.{n}") for n in range(100, 200)] + [
        ip_address(f"fd55::{n}") for n in range(100)
    ]
    taken = set(addresses[10:20] + addresses[110:120])
    batch = "".join(f"address add {a}/{24 if a.version == 4 else 64} dev {PORT}\n" for a in taken)
    wire.neighbour.run(("ip", "-batch", "-"), input=batch)
    started = time.monotonic()
    prober.start(addresses, started)

    free, conflicts = verdicts(prober)

    assert {conflict.address for conflict in conflicts} == taken | {ip_address("fd55::1")}
    assert {conflict.mac for conflict in conflicts} == {PORT_MAC}
    assert free == set(addresses) - taken - {ip_address("fd55::1")}


def test_the_frames_of_many_addresses_keep_to_the_rate(wire: Wire) -> None:
    with wire.gateway.inside():
        prober = Prober(UPLINK, probes=1, interval_s=0.1, rate_per_s=50)
    started = time.monotonic()
    prober.start([ip_address(f"192.168.55.{n}") for n in range(100, 160)], started)

    free, _ = verdicts(prober)

    prober.close()
    assert len(free) == 60
    assert time.monotonic() - started >= 1.1, "60 frames at 50 a second, the first 5 at once"


@pytest.mark.parametrize("address", FREE, ids=str)
def test_two_who_probe_for_one_address_at_once_both_hear_of_it(wire: Wire, prober: Prober, address: Address) -> None:
    with wire.neighbour.inside():
        rival = Prober(PORT)
    for each in (rival, prober):
        each.start([address], time.monotonic())

    free, conflicts = verdicts(prober, rival)

    rival.close()
    assert free == set()
    assert {conflict.mac for conflict in conflicts} == {UPLINK_MAC, PORT_MAC}


def test_an_address_that_nobody_wants_any_more_gets_no_verdict(prober: Prober) -> None:
    prober.start([FREE[0], FREE[1]], time.monotonic())
    prober.stop([FREE[0]])

    assert verdicts(prober) == ({FREE[1]}, [])


@pytest.mark.parametrize("cut", ["gateway", "neighbour"], ids=["NIC down", "no carrier"])
def test_silence_while_frames_can_not_leave_proves_nothing(wire: Wire, prober: Prober, cut: str) -> None:
    namespace, link = (wire.gateway, UPLINK) if cut == "gateway" else (wire.neighbour, PORT)
    namespace.run(("ip", "link", "set", link, "down"))
    until(lambda: not carries(wire.gateway, UPLINK), "no carrier")
    started = time.monotonic()
    prober.start([TAKEN[0], FREE[0]], started)
    assert drive(prober, done=lambda: time.monotonic() - started > 1.5) == (set(), [])

    namespace.run(("ip", "link", "set", link, "up"))

    assert verdicts(prober) == ({FREE[0]}, [Conflict(address=TAKEN[0], mac=PORT_MAC)])


def test_a_link_that_is_gone_or_is_no_ethernet_is_unreachable(wire: Wire, prober: Prober) -> None:
    prober.start([FREE[0]], time.monotonic())
    wire.gateway.run(("ip", "link", "delete", UPLINK))

    with pytest.raises(Unreachable, match="uplink is gone: No such device"):
        verdicts(prober)
    with wire.gateway.inside():
        for link, words in (("nowhere", "No such device"), ("lo", "it is no Ethernet link")):
            with pytest.raises(Unreachable, match=f"{link} can not be listened on: {words}"):
                Prober(LinkName(link))


@pytest.mark.parametrize("address", FREE, ids=str)
def test_somebody_who_claims_an_address_of_ours_later_is_noticed(wire: Wire, prober: Prober, address: Address) -> None:
    prober.hold([address], [TENANT_MAC])
    with wire.neighbour.inside():
        thief = Announcer()

    thief.send([Announcement(link=PORT, address=address, mac=STALE_MAC)])

    assert heard(prober, 1) == [Conflict(address=address, mac=STALE_MAC)]
    thief.close()


def test_what_is_ours_or_nobodys_business_is_no_conflict(wire: Wire, prober: Prober) -> None:
    prober.hold(FREE, [TENANT_MAC])
    with wire.neighbour.inside():
        rival, speaker = Prober(PORT, probes=1), Announcer()
    rival.start(FREE, time.monotonic())
    verdicts(rival)

    for address in FREE:
        speaker.send([Announcement(link=PORT, address=address, mac=mac) for mac in (TENANT_MAC, UPLINK_MAC)])
    speaker.send([Announcement(link=PORT, address=address, mac=STALE_MAC) for address in TAKEN])
    speaker.send([Announcement(link=PORT, address=FREE[0], mac=STALE_MAC)])

    assert heard(prober, 1) == [Conflict(address=FREE[0], mac=STALE_MAC)], "the last one only"
    rival.close()
    speaker.close()


def test_traffic_that_is_no_address_resolution_does_not_wake_the_prober(wire: Wire, prober: Prober) -> None:
    for namespace, link, mac in ((wire.gateway, UPLINK, PORT_MAC), (wire.neighbour, PORT, UPLINK_MAC)):
        for host in ("192.168.55.1", "192.168.55.12", "fd55::1", "fd55::12"):
            namespace.run(("ip", "neighbour", "replace", host, "lladdr", mac, "dev", link, "nud", "permanent"))
    prober.hold(FREE, [])
    prober.receive()

    for host in ("192.168.55.12", "fd55::12"):
        wire.neighbour.run(("ping", "-c3", "-i0.01", "-q", host))
        with (
            wire.neighbour.inside(),
            socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            sender.sendto(b"x", (host, 9))

    assert select.select([prober], [], [], 0)[0] == []


@pytest.mark.parametrize("refresh", [False, True], ids=["announced", "refreshed"])
@pytest.mark.parametrize("address", FREE, ids=str)
def test_an_announcement_corrects_what_the_neighbour_believes(
    wire: Wire, announcer: Announcer, address: Address, refresh: bool
) -> None:
    wire.neighbour.run(("ip", "neighbour", "add", str(address), "lladdr", STALE_MAC, "dev", PORT, "nud", "stale"))
    assert believed(wire.neighbour, address) == STALE_MAC

    announcer.send([Announcement(link=UPLINK, address=address, mac=TENANT_MAC, refresh=refresh)])

    until(lambda: believed(wire.neighbour, address) == TENANT_MAC, f"{address} at {TENANT_MAC}")


def test_a_neighbour_that_accepts_it_learns_a_new_address(wire: Wire, announcer: Announcer) -> None:
    wire.neighbour.sysctl(f"net/ipv4/conf/{PORT}/arp_accept", 1)
    assert believed(wire.neighbour, FREE[0]) is None

    announcer.send([Announcement(link=UPLINK, address=FREE[0], mac=TENANT_MAC)])

    until(lambda: believed(wire.neighbour, FREE[0]) == TENANT_MAC, "the new neighbour")


def test_announcing_for_two_hundred_macvlans_through_their_parent_clones_nothing(
    wire: Wire, announcer: Announcer
) -> None:
    wire.gateway.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
    macs = [Mac(f"02:e6:00:00:01:{n:02x}") for n in range(200)]
    links = "".join(
        f"link add link {UPLINK} name og-{n:08x} address {mac} up type macvlan mode bridge\n"
        for n, mac in enumerate(macs)
    )
    wire.gateway.run(("ip", "-batch", "-"), input=links)
    before, arrived = received(wire.gateway, kind="macvlan"), received(wire.neighbour, kind="veth")[PORT]
    announcements = [
        Announcement(link=UPLINK, address=ip_address(f"192.168.55.{20 + n}"), mac=mac) for n, mac in enumerate(macs)
    ]

    announcer.send(announcements)

    until(lambda: received(wire.neighbour, kind="veth")[PORT] >= arrived + 400, "two frames for each address")
    assert received(wire.gateway, kind="macvlan") == before

    announcer.send([Announcement(link=LinkName("og-00000000"), address=FREE[0], mac=macs[0], refresh=True)])

    def cloned() -> bool:
        after = received(wire.gateway, kind="macvlan")
        return sum(after[name] > before[name] for name in after) == 199

    until(cloned, "what a macvlan sends itself reaches the 199 others, so the counters do see clones")


def test_announcements_that_can_leave_do_leave_before_the_others_are_reported(wire: Wire, announcer: Announcer) -> None:
    wire.neighbour.run(("ip", "neighbour", "add", str(FREE[0]), "lladdr", STALE_MAC, "dev", PORT, "nud", "stale"))
    lost = Announcement(link=LinkName("nowhere"), address=FREE[1], mac=TENANT_MAC)
    fine = Announcement(link=UPLINK, address=FREE[0], mac=TENANT_MAC)

    with pytest.raises(
        Unreachable, match="1 of 2 announcements did not leave; first fd55::113 through nowhere: No such device"
    ):
        announcer.send([lost, fine])

    until(lambda: believed(wire.neighbour, FREE[0]) == TENANT_MAC, "the announcement that could leave")


def test_an_announcement_on_a_link_without_carrier_is_reported(wire: Wire, announcer: Announcer) -> None:
    wire.neighbour.run(("ip", "link", "set", PORT, "down"))
    until(lambda: not carries(wire.gateway, UPLINK), "no carrier")

    with pytest.raises(Unreachable, match=r"first 192\.168\.55\.113 through uplink: no carrier"):
        announcer.send([Announcement(link=UPLINK, address=FREE[0], mac=TENANT_MAC)])
