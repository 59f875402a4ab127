"""The northbound database of a real ovsdb-server, with the schema of the OVN that is installed, beside ovn-nbctl.

A zone of node n1 as OVN-Kubernetes fills it, pods 10.128.0.0/24; rows of ours bear our id, all others are theirs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_network
from pathlib import Path

import pytest

from outgate.lab.namespace import Namespace
from outgate.lab.ovn import northbound as lab
from outgate.lab.ovn.addresses import CLUSTER_ROUTER, NodeAddresses
from outgate.lab.ovn.programs import Programs, missing
from outgate.model.errors import Refused, Unreachable
from outgate.model.ovn import Action, OvnRow, Policy, SetMember, Snat
from outgate.systems.ovn.northbound import Northbound

N1, N2 = NodeAddresses(name="n1", number=0), NodeAddresses(name="n2", number=1)
POLICY = Policy(
    router=CLUSTER_ROUTER,
    priority=103,
    match="ip4.src == $outgate_pods4 && ip4.dst == $outgate_far4 && pkt.mark != 42",
    action=Action.REROUTE,
    next_hops=(N1.management[0],),
    owner="node:policy:far4",
)
SNAT = Snat(
    router=N1.router,
    inside=IPv4Network("10.128.0.5/32"),
    outside=IPv4Address("192.168.99.150"),
    port="k8s-n1",
    owner="node:snat:prod",
)
POD = SetMember(set="outgate_pods4", member=IPv4Network("10.128.0.5/32"))
FAR = SetMember(set="outgate_far4", member=IPv4Network("203.0.113.0/24"))


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[Programs]:
    if lacking := missing():
        pytest.skip(lacking)
    with Namespace("zone") as net:
        programs = Programs(net, tmp_path)
        programs.start_databases()
        programs.nbctl(*lab.zone(N1, [N1, N2], [("shop_web", N1.pod(0))]))
        yield programs


@pytest.fixture
def ovn(zone: Programs) -> Iterator[Northbound]:
    with contextlib.closing(Northbound(f"unix:{zone.northbound}")) as made:
        yield made


def everything(zone: Programs) -> str:
    """All rows as OVN's own program dumps them."""
    return zone.net.run(("ovsdb-client", "dump", "--no-headings", f"unix:{zone.northbound}", "OVN_Northbound")).stdout


def test_a_zone_reads_as_ovn_nbctl_shows_it(zone: Programs, ovn: Northbound) -> None:
    reading = ovn.read()

    assert reading.zone == "n1"
    assert reading.actual == frozenset()
    listed = zone.nbctl("lr-policy-list", CLUSTER_ROUTER)
    assert {f"{one.priority} {one.match}" for one in reading.policies} == {
        " ".join(line.split()[:1]) + " " + " ".join(line.split()[1:]).partition(" allow")[0]
        for line in listed.splitlines()
        if "allow" in line
    }
    assert {(one.inside, one.outside) for one in reading.snats} == set(zip(N1.subnets, N1.primary, strict=True))
    assert any(one.prefix == ip_network("0.0.0.0/0") and one.router == N1.router for one in reading.routes)
    assert any(one.by_source and one.prefix == N1.subnets[0] for one in reading.routes)


def test_what_was_written_is_read_as_ours_and_shown_by_ovn_nbctl(zone: Programs, ovn: Northbound) -> None:
    wanted: frozenset[OvnRow] = frozenset({POLICY, SNAT, POD, FAR})

    ovn.write(wanted, ())

    assert ovn.read().actual == wanted
    assert str(N1.management[0]) in zone.nbctl("lr-policy-list", CLUSTER_ROUTER)
    assert "192.168.99.150" in zone.nbctl("lr-nat-list", N1.router)


def test_what_is_dropped_leaves_the_database_as_it_was(zone: Programs, ovn: Northbound) -> None:
    before = everything(zone)

    ovn.write((POLICY, SNAT, POD, FAR), ())
    assert everything(zone) != before
    ovn.write((), (FAR, POD, SNAT, POLICY))

    assert everything(zone) == before


def test_a_row_in_the_same_slot_is_changed_in_place(zone: Programs, ovn: Northbound) -> None:
    ovn.write((POLICY,), ())
    first = zone.nbctl("--bare", "--columns=_uuid", "find", "logical_router_policy", "priority=103")
    other = Policy(router=POLICY.router, priority=103, match=POLICY.match, action=Action.DROP, owner=POLICY.owner)

    ovn.write((other,), ())

    assert ovn.read().actual == {other}
    assert zone.nbctl("--bare", "--columns=_uuid", "find", "logical_router_policy", "priority=103") == first


def test_members_of_a_set_come_and_go_one_by_one(ovn: Northbound) -> None:
    pods = [SetMember(set="outgate_pods4", member=IPv4Network(f"10.128.0.{last}/32")) for last in range(5, 9)]
    ovn.write(pods, ())

    ovn.write((), pods[:2])
    assert ovn.read().actual == frozenset(pods[2:])
    ovn.write(pods[:1], pods[2:3])
    assert ovn.read().actual == {pods[0], pods[3]}


def test_changes_of_others_are_told_and_read(zone: Programs, ovn: Northbound) -> None:
    ovn.write((POLICY,), ())
    zone.nbctl("lr-policy-add", CLUSTER_ROUTER, "100", "ip4.src == 10.128.0.5", "reroute", "100.64.0.2")

    assert ovn.catch_up()

    theirs = next(one for one in ovn.read().policies if one.priority == 100)
    assert (theirs.action, theirs.next_hops) == (Action.REROUTE, (IPv4Address("100.64.0.2"),))
    zone.nbctl("lr-policy-del", CLUSTER_ROUTER, "100")
    assert ovn.catch_up()
    assert not any(one.priority == 100 for one in ovn.read().policies)


def test_a_foreign_row_with_the_same_words_is_not_ours_to_drop(zone: Programs, ovn: Northbound) -> None:
    zone.nbctl("lr-policy-add", CLUSTER_ROUTER, "103", POLICY.match, "drop")
    ovn.catch_up()

    ovn.write((), (POLICY,))

    assert "103" in zone.nbctl("lr-policy-list", CLUSTER_ROUTER)


def test_a_router_that_is_not_there_refuses_the_whole_transaction(zone: Programs, ovn: Northbound) -> None:
    before = everything(zone)
    lost = Policy(router="GR_gone", priority=103, match="ip4", action=Action.DROP, owner="node:policy:x")

    with pytest.raises(Refused, match="GR_gone"):
        ovn.write((POLICY, POD, lost), ())

    assert everything(zone) == before


def test_words_that_the_schema_refuses_are_told_in_the_servers_words(ovn: Northbound) -> None:
    bad = Policy(router=CLUSTER_ROUTER, priority=99_999, match="ip4", action=Action.DROP, owner="node:policy:x")

    with pytest.raises(Refused, match="99999"):
        ovn.write((bad,), ())

    assert ovn.read().actual == frozenset()


def test_a_server_that_ends_is_unreachable_and_a_new_connection_reads_the_same(
    zone: Programs, ovn: Northbound, tmp_path: Path
) -> None:
    ovn.write((POLICY, POD), ())
    zone.net.run(("ovs-appctl", "-t", str(tmp_path / "nb.ctl"), "exit"))

    with pytest.raises(Unreachable):
        ovn.write((SNAT,), ())
    with pytest.raises(Unreachable):
        Northbound(f"unix:{tmp_path}/nobody.sock")


def test_ten_thousand_rows_go_in_one_transaction_and_read_back(ovn: Northbound) -> None:
    many = [
        Policy(
            router=CLUSTER_ROUTER,
            priority=103,
            match=f"ip4.src == 10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            action=Action.REROUTE,
            next_hops=(N1.management[0],),
            owner=f"node:policy:{number}",
        )
        for number in range(10_000)
    ]

    ovn.write(many, ())

    assert ovn.read().actual == frozenset(many)
    ovn.write((), many)
    assert ovn.read().actual == frozenset()
