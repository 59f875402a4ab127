"""The daemon is killed at every boundary of its writing, in every kind of change, while all pods send.

Whatever a kill leaves behind is the old or the new, for each tenant: no packet outside with a pod's address, none with
the address of another tenant. The next daemon, which knows only what was written down, ends with the very picture that
an undisturbed one would have left. Packets keep coming whatever is missing, and by the wrong way too (`workbench`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from outgate.lab import addresses, manifests
from outgate.lab.addresses import INNER_LINK, UPLINK, Address, TenantAddresses
from outgate.lab.manifests import Manifest, egress_gateway, egress_pool, egress_tenant
from outgate.lab.topology import Laboratory
from tests.gateway.pictures import difference, ledger_in
from tests.gateway.rig import FAST, until
from tests.gateway.warm import Ended
from tests.gateway.workbench import BLUE, GREEN, GREY, NAMESPACES, RED, STALE, Workbench, a_workbench

SECOND_INNER = "enp2s0"  # of the gateway machine, with nothing on it
POINTS_WANTED = 300
Changes = Mapping[str, Mapping[str, Any] | None]  # of tenants' specs; None is no tenant

points: dict[str, int] = {}  # kills, by leg


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What users ask for at one end of a leg. Without `gateway` the machine is flushed."""

    tenants: Changes = field(default_factory=dict)
    nodes: tuple[str, ...] = ("n1", "n2", "n3")
    gateway: Mapping[str, Any] | None = field(default_factory=dict)
    more: tuple[Manifest, ...] = ()
    deaf: tuple[str, ...] = ()  # namespaces whose tenant is served where none of their pods is


def egress(number: int) -> list[str]:
    """Both families' egress IPs of a number."""
    return [str(addresses.WAN4[number]), f"fd55::{number}"]


def hops(number: int) -> dict[str, Any]:
    """The next hops of a number."""
    return {"nextHop": {"addresses": [str(addresses.LAN4[number]), f"fd99::{number}"]}}


def everybody(**spec: Any) -> Changes:
    """The same change for all tenants."""
    return dict.fromkeys(NAMESPACES, spec)


def crowd(size: int) -> tuple[Manifest, ...]:
    """More tenants, without pods."""
    return tuple(
        egress_tenant(
            TenantAddresses(
                namespace=f"crowd-{number}",
                next_hop4=addresses.LAN4[100 + number],
                next_hop6=addresses.LAN6[0x100 + number],
                egress4=addresses.WAN4[160 + number],
                egress6=addresses.WAN6[0x160 + number],
            ),
            namespaceSelector=None,
        )
        for number in range(size)
    )


ALL = Asked()
AT_ONCE = egress_pool("at-once", "192.168.55.100-192.168.55.199", "fd55::100-fd55::199", quarantine="0s")
POOLS = (egress_pool("four", "192.168.55.130-192.168.55.139"), egress_pool("six", "fd55::130-fd55::139"))
LIMITS = {"rate": {"bytesPerSecond": 9_000_000}, "connections": 500, "quota": {"bytes": 1_000_000_000, "period": "24h"}}

LEGS: dict[str, tuple[Asked, Asked]] = {
    "a machine is flushed and served again": (Asked(gateway=None), ALL),
    "all tenants come and go": (Asked(tenants=dict.fromkeys(NAMESPACES)), ALL),
    "a tenant comes and goes": (Asked(tenants={GREEN: None}), ALL),
    "an egress IP changes and old flows drain": (ALL, Asked(tenants={BLUE: {"egressIPs": egress(120)}})),
    "an egress IP changes and old flows are flushed": (
        Asked(tenants=everybody(onChange="flush")),
        Asked(tenants={**everybody(onChange="flush"), BLUE: {"egressIPs": egress(120), "onChange": "flush"}}),
    ),
    "an egress IP is handed to another tenant": (
        Asked(tenants=everybody(onChange="flush"), more=(AT_ONCE,)),
        Asked(
            tenants={
                **everybody(onChange="flush"),
                BLUE: {"egressIPs": egress(120), "onChange": "flush"},
                RED: {"egressIPs": egress(113), "onChange": "flush"},
            },
            more=(AT_ONCE,),
        ),
    ),
    "one egress IP becomes three": (
        ALL,
        Asked(tenants={BLUE: {"egressIPs": [*egress(113), *egress(120), *egress(121)]}}),
    ),
    "egress IPs change their order": (
        Asked(tenants={BLUE: {"egressIPs": [*egress(113), *egress(120), *egress(121)]}}),
        Asked(tenants={BLUE: {"egressIPs": [*egress(121), *egress(113)]}}),
    ),
    "a listed egress IP becomes one of a pool": (
        Asked(more=POOLS),
        Asked(tenants={GREY: {"egressIPs": None, "fromPool": {"name": "four"}}}, more=POOLS),
    ),
    "some destinations get an egress IP of their own": (
        ALL,
        Asked(tenants={BLUE: {"destinations": [{"cidrs": ["198.51.100.0/24"], "egressIPs": ["192.168.55.119"]}]}}),
    ),
    "a next hop changes": (ALL, Asked(tenants={BLUE: {"identity": hops(17)}})),
    "two tenants swap their next hops": (
        ALL,
        Asked(tenants={BLUE: {"identity": hops(14)}, RED: {"identity": hops(13)}}),
    ),
    "all tenants are told by source and by next hop": (ALL, Asked(tenants=everybody(identity={"source": {}}))),
    "sources are checked by pod, then not at all": (
        Asked(tenants=everybody(sourceCheck="pods")),
        Asked(tenants=everybody(sourceCheck="off")),
    ),
    "a node comes and goes": (Asked(nodes=("n1", "n2")), ALL),
    "a tenant loses IPv6 and gets it back": (
        ALL,
        Asked(
            tenants={GREEN: {"egressIPs": egress(115)[:1], "identity": {"nextHop": {"addresses": ["192.168.99.15"]}}}}
        ),
    ),
    "limits come and go": (ALL, Asked(tenants=everybody(**LIMITS))),
    "a tenant moves to another inner NIC": (
        Asked(gateway={"inner": [{"interface": INNER_LINK}, {"interface": SECOND_INNER}]}),
        Asked(
            gateway={"inner": [{"interface": INNER_LINK}, {"interface": SECOND_INNER}]},
            tenants={BLUE: {"identity": {"nextHop": {**hops(13)["nextHop"], "interface": SECOND_INNER}}}},
            deaf=(BLUE,),
        ),
    ),
    "all tenants come, each address asked for first, and go": (
        Asked(tenants=dict.fromkeys(NAMESPACES), gateway=FAST),
        Asked(gateway=FAST),
    ),
    "a crowd comes and goes": (ALL, Asked(more=crowd(12))),
    "everything changes at once": (
        ALL,
        Asked(
            nodes=("n1", "n2"),
            tenants={
                BLUE: {"identity": {"source": {}}, "egressIPs": [*egress(120), *egress(121)]},
                RED: {"egressIPs": egress(122), "identity": hops(17), **LIMITS},
                GREEN: {"egressIPs": None, "fromPool": {"name": "six"}, "sourceCheck": "pods"},
                GREY: None,
            },
            more=POOLS,
        ),
    ),
    "the ways around the gateway change": (
        ALL,
        Asked(
            gateway={
                "clusterNetworks": ["10.136.0.0/14", "fd03::/48"],
                "bypass": ["192.168.98.0/24"],
                "internalDestinations": [{"cidr": "192.168.99.5/32", "interface": INNER_LINK}],
            },
            tenants=everybody(allowInbound=[{"protocol": "TCP", "port": 8080}, {"protocol": "ICMP"}]),
        ),
    ),
    "shared next hops come and go": (
        ALL,
        Asked(gateway={"inner": [{"interface": INNER_LINK, "sharedNextHops": ["192.168.99.11", "fd99::11"]}]}),
    ),
}

TAMPERINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "the table is edited": (("nft", "insert", "rule", "inet", "outgate", "guard", "accept"),),
    "the table is deleted": (("nft", "delete", "table", "inet", "outgate"),),
    "all elements that tell tenants are deleted": (
        ("nft", "flush", "map", "inet", "outgate", "id_link"),
        ("nft", "flush", "map", "inet", "outgate", "snat4"),
        ("nft", "flush", "map", "inet", "outgate", "snat6"),
    ),
    "policy rules are deleted": (
        ("ip", "rule", "flush", "protocol", "111"),
        ("ip", "-6", "rule", "flush", "protocol", "111"),
    ),
    "return routes are deleted": (
        ("ip", "route", "flush", "protocol", "111"),
        ("ip", "-6", "route", "flush", "protocol", "111"),
    ),
    "egress IPs are deleted": tuple(
        ("ip", "addr", "del", f"{address}/{length}", "dev", UPLINK)
        for number in (113, 114, 115, 116)
        for address, length in zip(egress(number), (32, 128), strict=True)
    ),
    "tenants' links are deleted": tuple(
        ("ip", "link", "del", "dev", f"outgate-{namespace}") for namespace in NAMESPACES
    ),
    "all is gone but the policy rules": (
        ("nft", "flush", "ruleset"),
        *(("ip", "link", "del", "dev", f"outgate-{namespace}") for namespace in NAMESPACES),
        ("ip", "route", "flush", "protocol", "111"),
        ("ip", "-6", "route", "flush", "protocol", "111"),
    ),
}


def written(lab: Laboratory, asked: Asked) -> Iterator[Manifest]:
    """The manifests that ask for it."""
    yield from of_cluster(lab, asked)
    if asked.gateway is not None:
        yield egress_gateway(**{"announce": {"probes": 0}, **asked.gateway})
    yield from tenants(lab, asked).values()
    yield from asked.more


def ask(bench: Workbench, asked: Asked, *, kill_at: int = 0) -> Ended:
    """Let the machine become what is asked, or die on the way."""
    if asked.gateway is None:
        return bench.warm.flush(kill_at=kill_at)
    bench.write(written(bench.rig.lab, asked))
    return bench.warm.converge(kill_at=kill_at)


def check_served(bench: Workbench, asked: Asked, when: str) -> None:
    """New flows of every pod that reaches its tenant rightly are seen as that tenant."""
    for namespace, expected in egress_ips(bench.rig.lab, asked, bench.rig.place).items():
        for sender in bench.traffic.of(way_in(asked, namespace), {namespace} - set(asked.deaf)):
            mine = {ip for ip in expected if ip.version == sender.version}
            if mine:
                until(
                    sender.is_answered,
                    f"{namespace} on {sender.pod.node} is served over IPv{sender.version} {when}",
                    diagnosis=lambda: "\n".join(bench.picture()),
                )
                assert sender.listen() <= mine, f"{namespace} {when}"


def of_cluster(lab: Laboratory, asked: Asked) -> Iterator[Manifest]:
    yield manifests.network()
    yield from (manifests.namespace(name) for name in NAMESPACES)
    for name in asked.nodes:
        yield manifests.node(lab.nodes[name])
        yield from (manifests.pod(pod) for pod in lab.nodes[name].pods)


def tenants(lab: Laboratory, asked: Asked) -> dict[str, Manifest]:
    """The manifests of the tenants that are asked for."""
    changes = {one.namespace: asked.tenants.get(one.namespace, {}) for one in lab.tenants}
    given = {one.namespace: (one, changes[one.namespace]) for one in lab.tenants if asked.gateway is not None}
    return {name: egress_tenant(one, **change) for name, (one, change) in given.items() if change is not None}


def egress_ips(lab: Laboratory, asked: Asked, place: Path) -> dict[str, set[Address]]:
    """As whom each asked-for tenant leaves towards the world outside."""
    ledger = ledger_in(place)
    found: dict[str, set[Address]] = {}
    for name, tenant in tenants(lab, asked).items():
        spec: Any = tenant["spec"]
        listed = {ip_address(ip) for ip in spec.get("egressIPs", ())}
        given = set(ledger.tenants[name].pool_addresses) if "fromPool" in spec and name in ledger.tenants else set()
        found[name] = listed | given
    return found


def way_in(asked: Asked, namespace: str) -> str:
    """The worker whose pods reach their tenant: by its MAC, or by the NIC's where sources tell."""
    change = asked.tenants.get(namespace) or {}
    return STALE if "source" in change.get("identity", {}) else "n1"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with a_workbench(tmp_path_factory.mktemp("bench")) as one:
        one.rig.lab.gw.run(("ip", "link", "add", SECOND_INNER, "up", "type", "veth", "peer", "name", "nothing"))
        yield one


def both(bench: Workbench, one: Asked, other: Asked) -> dict[str, set[Address]]:
    """As whom each namespace may be seen while the machine is between two ends; pools' addresses count for all."""
    found: dict[str, set[Address]] = {name: set() for name in NAMESPACES}
    for asked in (one, other):
        for name, ips in egress_ips(bench.rig.lab, asked, bench.rig.place).items():
            found[name] |= ips
    return found


@pytest.mark.parametrize("leg", LEGS)
def test_a_kill_amid_a_change_leaves_old_or_new_and_the_next_daemon_finishes(bench: Workbench, leg: str) -> None:
    ends = LEGS[leg]
    bench.begin()
    for asked in (*ends, *ends, *ends):  # what drains and rests is settled after the first time around
        ask(bench, asked)
        bench.traffic.send()
    undisturbed: dict[int, tuple[str, ...]] = {}
    for number, asked in enumerate(ends):
        ask(bench, asked)
        undisturbed[number] = bench.picture()
    allowed = both(bench, *ends)

    to = 0
    kill_at = {0: 1, 1: 1}
    while kill_at:
        if to in kill_at:
            ended = ask(bench, ends[to], kill_at=kill_at[to])
            when = f"after a kill at boundary {kill_at[to]} of {leg!r} towards end {to}: {ended.boundaries}"
            if ended.killed:
                points[leg] = points.get(leg, 0) + 1
                kill_at[to] += 1
                bench.check_nothing_open(allowed, when)
                ask(bench, ends[to])
                bench.check_nothing_open(allowed, f"{when}, repaired")
                check_served(bench, ends[to], f"{when}, repaired")
                assert not difference(undisturbed[to], bench.picture()), when
            else:
                del kill_at[to]
        else:
            ask(bench, ends[to])
        to = 1 - to


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_kill_amid_a_repair_leaves_nothing_open_and_the_next_daemon_finishes(
    bench: Workbench, tampering: str
) -> None:
    bench.begin()
    ask(bench, ALL)
    undisturbed = bench.picture()
    allowed = both(bench, ALL, ALL)

    killed, kill_at = True, 0
    while killed:
        kill_at += 1
        for command in TAMPERINGS[tampering]:
            bench.rig.lab.gw.run(command)
        ended = ask(bench, ALL, kill_at=kill_at)
        killed = ended.killed
        when = f"after {tampering} and a kill at boundary {kill_at}: {ended.boundaries}"
        points[tampering] = points.get(tampering, 0) + killed
        bench.check_nothing_open(allowed, when)
        ask(bench, ALL)
        bench.check_nothing_open(allowed, f"{when}, repaired")
        check_served(bench, ALL, f"{when}, repaired")
        assert not difference(undisturbed, bench.picture()), when


def test_the_points_are_many(capsys: pytest.CaptureFixture[str]) -> None:
    if points.keys() != LEGS.keys() | TAMPERINGS.keys():
        pytest.skip("counts the points of all other stories of this file, and not all of them were told")
    with capsys.disabled():
        print(f"\nkilled at {sum(points.values())} points of {len(points)} changes")
    assert sum(points.values()) >= POINTS_WANTED


CROWD = 50  # tenants
COLD_KILLS = 10
RESTARTED_S = 30.0  # generous; the promise of five seconds is measured by the bench


def one_of_the_crowd(lab: Laboratory, number: int, turn: int) -> TenantAddresses:
    """A tenant of many, with other egress IPs each turn; the first ones have pods."""
    name = lab.tenants[number].namespace if number < len(lab.tenants) else f"crowd-{number}"
    host = 100 + number + CROWD * (turn % 2)
    return TenantAddresses(
        namespace=name,
        next_hop4=addresses.LAN4[13 + number if number < len(lab.tenants) else 100 + number],
        next_hop6=addresses.LAN6[0x113 + number],
        egress4=addresses.WAN4[host],
        egress6=addresses.WAN6[host],
    )


def has_come(moment_s: float) -> bool:
    return time.monotonic() >= moment_s


def test_ten_cold_kills_amid_an_apply_of_fifty_tenants_leak_nothing(tmp_path: Path) -> None:
    chance = random.Random(79528)
    with a_workbench(tmp_path) as bench:
        rig = bench.rig
        rig.manifests.put_cluster(rig.lab)
        rig.manifests.put(egress_gateway(**FAST))
        allowed: dict[str, set[Address]] = {}

        def write(turn: int) -> None:
            for number in range(CROWD):
                one = one_of_the_crowd(rig.lab, number, turn)
                change = "flush" if number % 2 else "drain"
                rig.manifests.put(manifests.external_route(one))
                rig.manifests.put(egress_tenant(one, onChange=change, namespaceSelector=None))
                allowed.setdefault(one.namespace, set()).update((one.egress4, one.egress6))

        def served() -> bool:
            tenants = rig.status().get("tenants", [])
            return len(tenants) == CROWD and all(tenant["state"] == "OK" for tenant in tenants)

        write(0)
        rig.start()
        took_s = until(served, "all tenants are served", RESTARTED_S, rig.diagnosis)
        for turn in range(1, COLD_KILLS + 1):
            write(turn)
            moment = time.monotonic() + chance.uniform(0.0, took_s)
            until(partial(has_come, moment), "the moment of the kill has come")
            rig.kill()
            bench.check_nothing_open(allowed, f"after cold kill {turn}")
            rig.start()
            until(served, f"all tenants are served after cold kill {turn}", RESTARTED_S, rig.diagnosis)
            bench.check_nothing_open(allowed, f"after the restart behind cold kill {turn}")
        assert {name for name, seen in bench.traffic.seen().items() if seen} == set(NAMESPACES)
        assert rig.stop() == 0
