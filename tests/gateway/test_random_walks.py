"""A gateway in the hands of chance: tenants come, change and go, nodes too, manifests break, somebody tampers with the
machine, the daemon is killed while it writes. After every step all pods send; after every convergence the laws hold.

Each tenant has addresses of its own, so that nothing depends on who came first; contested addresses are the matter of
tests/laws. The walks are the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from outgate.lab import manifests
from outgate.lab.addresses import INNER_LINK, UPLINK, WAN4, Address
from outgate.lab.manifests import Manifest, egress_gateway, egress_tenant
from outgate.roles.gateway import look
from outgate.roles.options import GatewayOptions
from tests.gateway.pictures import difference
from tests.gateway.rig import until
from tests.gateway.workbench import NAMESPACES, STALE, Workbench, a_workbench

WALKS = settings(
    max_examples=12,
    stateful_step_count=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
LEAVING = "n3"

THEIRS = (
    ("ip", "rule", "add", "from", "10.9.9.9", "lookup", "main", "priority", "110"),
    ("ip", "rule", "add", "from", "10.132.0.0/14", "lookup", "main", "priority", "30000"),
    ("ip", "route", "add", "198.51.100.0/24", "via", "192.168.55.1"),
    ("ip", "route", "add", "10.133.0.0/24", "via", "192.168.99.99", "proto", "static"),
    ("ip", "-6", "route", "add", "2001:db8:9::/64", "via", "fd55::1"),
    ("ip", "addr", "add", "192.168.55.200/32", "dev", UPLINK),
    ("ip", "link", "add", "og-mine", "type", "veth", "peer", "name", "og-peer"),
    ("nft", "add", "table", "inet", "theirs"),
    ("nft", "add", "chain", "inet", "theirs", "c", "{ type filter hook forward priority 10; policy accept; }"),
    ("nft", "add", "rule", "inet", "theirs", "c", "counter", "accept"),
)
TAMPERINGS = (  # one layer at a time; where there is nothing to tamper with, nothing happens
    ("ip", "rule", "del", "priority", "110", "protocol", "111"),
    ("ip", "-6", "rule", "flush", "protocol", "111"),
    ("ip", "route", "flush", "protocol", "111"),
    ("ip", "-6", "route", "flush", "protocol", "111"),
    ("ip", "route", "replace", "10.132.0.0/24", "via", "192.168.99.22", "proto", "111", "metric", "111"),
    ("ip", "addr", "del", "192.168.55.113/32", "dev", UPLINK),
    ("ip", "addr", "add", "192.168.99.13/24", "dev", "outgate-ns-blue"),
    ("ip", "link", "del", "dev", "outgate-ns-blue"),
    ("ip", "link", "set", "dev", "outgate-ns-red", "down"),
    ("ip", "link", "set", "dev", "outgate-ns-red", "address", "02:00:00:00:00:99"),
    ("ip", "link", "property", "del", "dev", "outgate-ns-green", "altname", "outgate-ns-green"),
    ("nft", "flush", "map", "inet", "outgate", "snat4"),
    ("nft", "flush", "map", "inet", "outgate", "id_link"),
    ("nft", "flush", "set", "inet", "outgate", "inner"),
    ("nft", "add", "element", "inet", "outgate", "uplinks", "{ eth99 }"),
    ("nft", "insert", "rule", "inet", "outgate", "forward", "drop"),
    ("nft", "flush", "chain", "inet", "outgate", "translate"),
    ("nft", "delete", "table", "inet", "outgate"),
)
SYSCTLS = ((f"net/ipv4/conf/{INNER_LINK}/rp_filter", 1), (f"net/ipv4/conf/{UPLINK}/forwarding", 0))
BROKEN = ("", "kind: [", "{", "apiVersion: outgate.io/v1alpha1\nkind: EgressTenant\nmetadata: {name: 7}\n")

names = st.sampled_from(NAMESPACES)


def own_addresses(number: int) -> list[list[str]]:
    """The egress IPs of a tenant by its number, two families each; nobody else asks for them."""
    return [[str(WAN4[host]), f"fd55::{host}"] for host in (113 + number, 120 + 2 * number, 121 + 2 * number)]


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """What may be said about a tenant; `egress` are indexes into its own addresses."""
    limits = {"rate": {"bytesPerSecond": 9_000_000}, "connections": 500, "quota": {"bytes": 10**9, "period": "24h"}}
    return {
        "egress": draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)),
        "by_source": draw(st.booleans()),
        "sourceCheck": draw(st.sampled_from([None, "pods", "nodeSubnets", "off"])),
        "limits": draw(st.sampled_from([{}, limits])),
        "allowInbound": draw(st.sampled_from([None, [{"protocol": "TCP", "port": 8080}]])),
    }


class Walk(RuleBasedStateMachine):
    """One walk. What is asked is kept here as manifests; what the machine makes of it is read by others."""

    bench: ClassVar[Workbench]

    def __init__(self) -> None:
        super().__init__()
        self.rig = self.bench.rig
        self.bench.begin()
        self.bare = self.bench.picture()
        self.nodes: dict[str, bool] = {"n1": True, STALE: True, LEAVING: True}  # whether each is ready
        self.tenants: dict[str, dict[str, Any]] = {}
        self.broken: dict[str, str] = {}  # by tenant: what its file says instead
        self.allowed: dict[str, set[Address]] = {
            name: {ip_address(ip) for pair in own_addresses(number) for ip in pair}
            for number, name in enumerate(NAMESPACES)
        }
        self.tampered = self.behind = True  # behind: the machine is not as is asked

    @rule(name=names, change=changes())
    def put_tenant(self, name: str, change: dict[str, Any]) -> None:
        self.tenants[name], self.behind = change, True

    @precondition(lambda self: self.tenants)
    @rule(name=names)
    def remove_tenant(self, name: str) -> None:
        self.behind = self.tenants.pop(name, None) is not None or self.behind
        self.broken.pop(name, None)

    @rule(state=st.sampled_from([None, True, False]))
    def change_node(self, state: bool | None) -> None:
        self.nodes.pop(LEAVING, None)
        if state is not None:
            self.nodes[LEAVING] = state
        self.behind = True

    @precondition(lambda self: self.tenants)
    @rule(name=names, text=st.sampled_from(BROKEN))
    def break_manifest(self, name: str, text: str) -> None:
        if name in self.tenants:
            self.broken[name], self.behind = text, True

    @precondition(lambda self: self.broken)
    @rule()
    def mend_manifests(self) -> None:
        self.broken, self.behind = {}, True

    @rule(command=st.sampled_from(TAMPERINGS))
    def tamper(self, command: tuple[str, ...]) -> None:
        self.converge()  # so that one layer is missing, and not all of them
        self.rig.lab.gw.run(command, check=False)
        self.behind = True
        self.check_nothing_open(f"tampered: {command}")

    @rule(setting=st.sampled_from(SYSCTLS))
    def tamper_with_a_setting(self, setting: tuple[str, int]) -> None:
        self.converge()  # before that it is not outgate's
        self.rig.sysctl(*setting)
        self.behind = True

    @precondition(lambda self: self.behind)
    @rule(at=st.integers(1, 12))
    def be_killed_amid_a_round(self, at: int) -> None:
        self.write()
        ended = self.bench.warm.converge(kill_at=at)
        self.behind = ended.killed
        self.check_nothing_open(f"killed: {ended}")

    @precondition(lambda self: self.behind)
    @rule()
    def converge(self) -> None:
        self.write()
        planned = self.look()
        ended = self.bench.warm.converge()
        assert sorted(ended.changed) == sorted(map(str, (*planned.changes.make, *planned.changes.drop)))
        seen = self.look()
        assert not seen.changes, "a second round would change something"
        assert seen.desired.wants == planned.desired.wants, "the plan hangs on its own output"
        gone = [line for line in difference(self.bare, self.bench.picture()).splitlines() if line.startswith("- ")]
        assert [line for line in gone if not line.startswith("- net/")] == [], "what is not ours was touched"
        self.check_nothing_open("converged")
        self.behind = False

    def teardown(self) -> None:
        """At the end of every walk: who asked is served, another order ends the same, and flush leaves nothing."""
        self.broken, self.behind = {}, True
        self.converge()
        self.check_served()
        by_this_walk = self.bench.picture()
        self.bench.begin()
        assert difference(self.bare, self.bench.picture()) == "", "flush left or took something"
        self.bench.warm.converge()
        assert difference(by_this_walk, self.bench.picture()) == "", "another order ends differently"

    def look(self) -> Any:
        """Return what a round would decide now; nothing is written."""
        place = self.rig.place
        options = GatewayOptions(manifests=place / "manifests", state=place / "state", run=place / "run")
        with self.rig.lab.gw.inside():
            return look(options)

    def write(self) -> None:
        """Make the directory say what is asked, broken files included."""
        self.bench.write(self.manifests())
        for name, text in self.broken.items():
            self.rig.manifests.file("EgressTenant", name).write_text(text)

    def manifests(self) -> Iterator[Manifest]:
        yield manifests.network()
        yield egress_gateway(announce={"probes": 0})
        yield from (manifests.namespace(name) for name in NAMESPACES)
        for name, ready in self.nodes.items():
            node = self.rig.lab.nodes[name]
            yield manifests.node(node, ready=ready)
            yield from (manifests.pod(pod) for pod in node.pods)
        for number, one in enumerate(self.rig.lab.tenants):
            change = self.tenants.get(one.namespace)
            if change is not None:
                own = own_addresses(number)
                more: dict[str, Any] = {**change["limits"]}
                if change["by_source"]:
                    more["identity"] = {"source": {}}
                yield egress_tenant(
                    one,
                    egressIPs=[ip for index in change["egress"] for ip in own[index]],
                    onChange="flush",
                    sourceCheck=None if change["by_source"] else change["sourceCheck"],
                    allowInbound=change["allowInbound"],
                    **more,
                )

    def check_nothing_open(self, when: str) -> None:
        self.bench.check_nothing_open(self.allowed, when)

    def check_served(self) -> None:
        for number, name in enumerate(NAMESPACES):
            change = self.tenants.get(name)
            if change is not None:
                expected = {ip_address(own_addresses(number)[index][0]) for index in change["egress"]}
                for sender in self.bench.traffic.of(STALE if change["by_source"] else "n1", {name}):
                    until(sender.is_answered, f"{name} is served over IPv{sender.version}")
                    assert {ip for ip in sender.listen() if ip.version == 4} <= expected


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with a_workbench(tmp_path_factory.mktemp("walks")) as one:
        for command in THEIRS:
            one.rig.lab.gw.run(command)
        yield one


def test_wherever_chance_leads_the_laws_hold(bench: Workbench, tmp_path: Path) -> None:
    Walk.bench = bench
    run_state_machine_as_test(Walk, settings=WALKS)
