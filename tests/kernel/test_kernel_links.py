"""Tenants' links among other people's hands: whatever is done to one is seen as a fault, and mended without its tenant
losing more than it must.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from outgate.model.net import LinkAddress, LinkName, Mac, TenantLink
from outgate.model.state import Resource
from tests.kernel.machine import (
    BLUE,
    BLUE_HOP,
    BLUE_HOP6,
    EGRESS,
    EGRESS6,
    ENP1S0,
    ENP7S0,
    RED,
    RED_HOP,
    Machine,
    machine_in_namespace,
)

TENANTS: tuple[Resource, ...] = (BLUE, RED, BLUE_HOP, BLUE_HOP6, RED_HOP)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machine_in_namespace() as made:
        made.made(*TENANTS)
        yield made


def missing(machine: Machine) -> list[Resource]:
    """What must be made again, links before addresses, as `compare` would order it."""
    actual = machine.read().actual
    return [resource for resource in TENANTS if resource not in actual]


def index_of(machine: Machine, link: LinkName) -> int:
    return int(machine.ip("link", "show", link)[0]["ifindex"])


IN_PLACE = {
    "down": f"ip link set {BLUE.name} down",
    "ARP is off": f"ip link set {BLUE.name} arp off",
    "not in bridge mode": f"ip link set {BLUE.name} type macvlan mode private",
    "part of another link": f"ip link add br0 type bridge; ip link set {BLUE.name} master br0",
    "marked for deletion": f"ip link set {BLUE.name} group 1862270977",
    "ipv4/arp_ignore is 0": f"sysctl -w net.ipv4.conf.{BLUE.name}.arp_ignore=0",
    "ipv4/rp_filter is 1": f"sysctl -w net.ipv4.conf.{BLUE.name}.rp_filter=1",
    "ipv4/forwarding is 0": f"sysctl -w net.ipv4.conf.{BLUE.name}.forwarding=0",
    "ipv6/accept_ra is 2": f"sysctl -w net.ipv6.conf.{BLUE.name}.accept_ra=2",
    "makes IPv6 addresses by itself": f"ip link set {BLUE.name} addrgenmode eui64",
    "is also called og-impostor": f"ip link property add dev {BLUE.name} altname og-impostor",
}


@pytest.mark.parametrize(("fault", "tampering"), IN_PLACE.items(), ids=IN_PLACE)
def test_a_tenant_link_that_was_tampered_with_is_at_fault_and_is_mended_in_place(
    machine: Machine, fault: str, tampering: str
) -> None:
    before = index_of(machine, BLUE.name)

    machine.run(tampering)
    found = next(link for link in machine.read().actual if isinstance(link, TenantLink) and link.name == BLUE.name)
    assert fault in found.fault
    assert found.slot == BLUE.slot

    machine.made(*missing(machine))
    assert machine.read().actual == set(TENANTS)
    assert index_of(machine, BLUE.name) == before


FIELDS = {
    "MAC": (f"ip link set {BLUE.name} address 02:00:00:00:00:99", replace(BLUE, mac=Mac("02:00:00:00:00:99"))),
    "alternative name": (f"ip link property del dev {BLUE.name} altname og-ns-blue", replace(BLUE, alternative="")),
    "IPv6 off": (f"sysctl -w net.ipv6.conf.{BLUE.name}.disable_ipv6=1", replace(BLUE, ipv6=False)),
}


@pytest.mark.parametrize(("tampering", "seen"), FIELDS.values(), ids=FIELDS)
def test_a_tenant_link_with_another_value_is_mended_in_place(
    machine: Machine, tampering: str, seen: TenantLink
) -> None:
    before = index_of(machine, BLUE.name)

    machine.run(tampering)
    assert seen in machine.read().actual

    machine.made(*missing(machine))
    assert machine.read().actual == set(TENANTS)
    assert index_of(machine, BLUE.name) == before


def test_ipv6_is_switched_off_on_a_link_that_needs_it_no_more(machine: Machine) -> None:
    wanted = replace(BLUE, ipv6=False)

    machine.made(wanted)

    assert machine.read().actual == {wanted, RED, BLUE_HOP, RED_HOP}


def test_a_tenant_link_on_the_wrong_nic_is_made_anew_with_its_addresses(machine: Machine) -> None:
    moved = replace(BLUE, parent=ENP7S0)

    machine.made(moved)
    assert machine.read().actual == {moved, *TENANTS[1:]}

    machine.made(BLUE)
    assert machine.read().actual == set(TENANTS)


def test_a_deleted_tenant_link_comes_back_with_the_same_mac(machine: Machine) -> None:
    machine.run(f"ip link del {BLUE.name}")
    assert machine.read().actual == {RED, RED_HOP}

    machine.made(*missing(machine))

    assert machine.read().actual == set(TENANTS)
    assert machine.ip("link", "show", BLUE.name)[0]["address"] == BLUE.mac


def test_a_tenant_link_whose_nic_is_gone_fails_with_the_nics_name(machine: Machine) -> None:
    wanted = replace(BLUE, name=LinkName("og-00000001"), parent=LinkName("gone0"), alternative="")
    hop = replace(BLUE_HOP, link=wanted.name)

    failures = {failure.resource: failure.words for failure in machine.write([wanted, hop])}

    assert failures == {wanted: "there is no link gone0 to put it on", hop: "there is no link og-00000001"}


LINK = f"dev {BLUE.name}"
WIDENED = {
    "IPv4": (f"ip address del 192.168.99.13/32 {LINK}; ip address add 192.168.99.13/24 {LINK}", BLUE_HOP),
    "IPv4 beside": (f"ip address add 192.168.99.13/24 {LINK}", BLUE_HOP),
    "IPv6": (f"ip address del fd99::13/128 {LINK}; ip address add fd99::13/64 {LINK} nodad", BLUE_HOP6),
}


@pytest.mark.parametrize(("tampering", "hop"), WIDENED.values(), ids=WIDENED)
def test_a_next_hop_with_another_prefix_length_is_replaced(machine: Machine, tampering: str, hop: LinkAddress) -> None:
    machine.run(tampering)
    (wrong,) = machine.read().actual - set(TENANTS)
    assert isinstance(wrong, LinkAddress)
    assert wrong.slot == hop.slot
    assert wrong.fault.startswith("prefix length")

    machine.made(*missing(machine))

    assert machine.read().actual == set(TENANTS)
    lengths = {
        a["prefixlen"]
        for a in machine.ip("address", "show", "dev", BLUE.name)[0]["addr_info"]
        if a["local"] == str(hop.address)
    }
    assert lengths == {hop.address.max_prefixlen}


def test_an_ipv6_next_hop_that_became_a_source_is_deprecated_again(machine: Machine) -> None:
    machine.run(f"ip address change fd99::13/128 dev {BLUE.name} preferred_lft forever valid_lft forever")
    (wrong,) = machine.read().actual - set(TENANTS)
    assert "own source" in str(wrong)

    machine.made(*missing(machine))

    assert machine.read().actual == set(TENANTS)


@pytest.mark.parametrize("egress", [EGRESS, EGRESS6], ids=str)
def test_an_egress_ip_that_somebody_deleted_is_missing_and_comes_back(machine: Machine, egress: LinkAddress) -> None:
    machine.made(egress)

    machine.run(f"ip address del {egress.address} dev enp7s0")
    assert egress not in machine.read().actual

    machine.made(egress)


def many(count: int) -> list[TenantLink]:
    return [
        TenantLink(
            name=LinkName(f"og-{0xC0000000 + i:08x}"),
            parent=ENP1S0,
            mac=Mac("02:e6:00:01:" + i.to_bytes(2, "big").hex(":")),
            alternative=f"og-tenant-{i}",
            ipv6=bool(i % 2),
        )
        for i in range(count)
    ]


def test_hundreds_of_tenants_are_made_in_a_few_packets_and_dropped_as_one_group(machine: Machine) -> None:
    links = many(300)
    hops = [LinkAddress(link=link.name, address=IPv4Address("192.168.99.20") + i % 100) for i, link in enumerate(links)]
    packets: list[str] = []

    assert machine.write([*links, *hops], boundary=packets.append) == ()
    assert machine.read().actual == {*TENANTS, *links, *hops}
    # 900 requests to make them, one pass over /proc, 300 to set them up, 300 addresses
    assert packets == ["links made", "links made", "links set", "links up", "made"]

    packets.clear()
    assert machine.write([], [*hops, *links], boundary=packets.append) == ()
    assert packets == ["links marked", "links deleted"]
    assert machine.read().actual == set(TENANTS)


def test_a_link_that_was_marked_by_a_deletion_cut_short_survives_the_next_deletion(machine: Machine) -> None:
    links = many(20)
    machine.made(*links)
    machine.run(f"ip link set {BLUE.name} group 1862270977")

    assert machine.write([], links) == ()

    assert machine.read().actual == set(TENANTS)


def test_a_foreign_link_in_our_group_is_never_deleted(machine: Machine) -> None:
    links = many(20)
    machine.made(*links)
    machine.run("ip link add theirs type veth peer name theirs2; ip link set theirs group 1862270977")
    before = machine.run("ip -d link show theirs")

    assert machine.write([], links) == ()

    assert machine.read().actual == set(TENANTS)
    assert machine.run("ip -d link show theirs") == before


class Killed(Exception):
    """The process died here."""


@pytest.mark.parametrize("survived", range(4))
def test_a_writer_killed_between_two_packets_leaves_what_the_next_one_completes(
    machine: Machine, survived: int
) -> None:
    links = many(10)
    hop = LinkAddress(link=links[0].name, address=ip_address("192.168.99.50"))
    places: list[str] = []

    def kill(place: str) -> None:
        places.append(place)
        if len(places) > survived:
            raise Killed

    with pytest.raises(Killed):
        machine.write([*links, hop], boundary=kill)
    wanted: list[Resource] = [*links, hop]
    machine.made(*[resource for resource in wanted if resource not in machine.read().actual])

    assert machine.read().actual == {*TENANTS, *wanted}
