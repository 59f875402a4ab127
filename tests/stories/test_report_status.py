"""The status of a gateway is read on one screen: is it well, what is not, and where to look next.

pods 10.132.0.0/14, nodes 192.168.99.0/24, egress 192.168.55.0/24 and fd55::/64, outside 203.0.113.0/24.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network

from outgate.model.net import LinkName
from outgate.model.status import (
    Blocked,
    Confirmation,
    GuardStatus,
    Health,
    Layer,
    NodeStatus,
    PortUse,
    RoundStatus,
    SourceStatus,
    Status,
    TenantState,
    TenantStatus,
)
from outgate.model.why import Finding, Origin, Severity
from outgate.report.layout import Style
from outgate.report.status import status_document, status_text

BLUE = TenantStatus(
    name="ns-blue",
    state=TenantState.OK,
    egress_ips=(ip_address("192.168.55.113"), ip_address("fd55::113")),
    next_hops=(ip_address("192.168.99.13"),),
    link=LinkName("og-4eb88aa9"),
    pods=12,
    packets=91_022,
    sent_bytes=81_234_567,
    received_bytes=912_345_678,
    opened=1_024,
)
GREEN = TenantStatus(
    name="ns-green",
    state=TenantState.REFUSED,
    reason="AddressConflict",
    egress_ips=(ip_address("192.168.55.120"),),
    pods=3,
)
CONFLICT = Finding(
    "AddressConflict",
    "EgressTenant/ns-green",
    "192.168.55.120 is answered by 52:54:00:aa:01:02 on enp7s0: it is not claimed",
    Severity.REFUSAL,
    "remove the other owner, or choose another address",
    Origin(file="/etc/outgate/green.yaml", line=4, column=3),
)
WELL = Status(
    gateway="gw1",
    version="0.1.0",
    health=Health.OK,
    uptime_s=12 * 86400 + 15_069,
    sources=(
        SourceStatus(name="/etc/outgate", health=Health.OK, age_s=3.0, objects={"node": 2, "namespace": 3, "pod": 15}),
    ),
    rounds=RoundStatus(
        rounds=812,
        changes=420,
        repaired=1,
        last_age_s=12.0,
        last_repair="110: from 10.132.0.0/14 fwmark 0x0/0xffff00 prohibit",
        last_repair_age_s=9_000.0,
        owned=412,
    ),
    guard=GuardStatus(
        table=True,
        rules=True,
        covered=2,
        subnets=2,
        blocked=(
            Blocked(layer=Layer.ENTER, counter="no_identity", packets=1_204),
            Blocked(layer=Layer.INBOUND, counter="inbound_refused", packets=7),
            Blocked(layer=Layer.GUARD, counter="guard_dropped", packets=0),
        ),
    ),
    tenants=(BLUE,),
    nodes=(
        NodeStatus(name="n1", ready=True, subnets=(ip_network("10.132.0.0/24"),), routed=1),
        NodeStatus(name="n2", ready=True, subnets=(ip_network("10.132.1.0/24"),), routed=1),
    ),
)
ILL = replace(
    WELL,
    health=Health.DEGRADED,
    tenants=(BLUE, GREEN),
    nodes=(WELL.nodes[0], replace(WELL.nodes[1], ready=False)),
    findings=(CONFLICT,),
    confirmation=Confirmation(left_s=42.0),
)

ALL_IS_WELL = """\
egress gateway gw1  OK  1 tenant   outgate 0.1.0, up 12d 04:11
  intent       OK  /etc/outgate: read 3s ago; 2 nodes, 3 namespaces, 15 pods
  kernel       OK  412 resources of ours as wanted; last round 12s ago, 812 rounds, 420 changes; drift
                   repaired 1 time; last 2h ago: 110: from 10.132.0.0/14 fwmark 0x0/0xffff00 prohibit
  fail closed  OK  table and policy rules stand; 2/2 pod subnets covered; blocked 1,204 at enter (no_identity
                   1,204), 7 at inbound (inbound_refused 7)

TENANT   STATE  EGRESS IP       NEXT HOP       LINK         PODS  OPENED  SENT  RECEIVED
ns-blue  OK     192.168.55.113  192.168.99.13  og-4eb88aa9  12    1.0k    81MB  912MB
                fd55::113

2 nodes, 2 ready and routed"""

SOMETHING_IS_NOT = """\
egress gateway gw1  DEGRADED  1 of 2 tenants needs attention   outgate 0.1.0, up 12d 04:11
  intent       OK  /etc/outgate: read 3s ago; 2 nodes, 3 namespaces, 15 pods
  kernel       OK  412 resources of ours as wanted; last round 12s ago, 812 rounds, 420 changes; drift
                   repaired 1 time; last 2h ago: 110: from 10.132.0.0/14 fwmark 0x0/0xffff00 prohibit
  fail closed  OK  table and policy rules stand; 2/2 pod subnets covered; blocked 1,204 at enter (no_identity
                   1,204), 7 at inbound (inbound_refused 7)
  ! applied: goes back in 42s unless `outgate gateway confirm`

TENANT    STATE    EGRESS IP       NEXT HOP       LINK         PODS  OPENED  SENT  RECEIVED
ns-green  REFUSED  192.168.55.120  by source      -            3     -       -     -
    AddressConflict
ns-blue   OK       192.168.55.113  192.168.99.13  og-4eb88aa9  12    1.0k    81MB  912MB
                   fd55::113

2 nodes, 1 ready and routed
  n2: not ready, 1/1 subnets routed

REFUSED  EgressTenant/ns-green AddressConflict
         192.168.55.120 is answered by 52:54:00:aa:01:02 on enp7s0: it is not claimed
         fix: remove the other owner, or choose another address
         at /etc/outgate/green.yaml:4:3

hint: outgate doctor; outgate explain NAMESPACE/POD of ns-green"""


def test_a_gateway_that_is_well_takes_few_lines_and_gives_no_hint() -> None:
    assert status_text(WELL, Style(width=110)) == ALL_IS_WELL


def test_what_is_not_well_stands_first_and_says_what_to_do() -> None:
    assert status_text(ILL, Style(width=110)) == SOMETHING_IS_NOT


def test_a_gateway_without_its_guards_is_failed_in_that_line() -> None:
    bare = replace(WELL, guard=replace(WELL.guard, table=False, rules=False))
    assert "fail closed  FAILED  nothing stands" in status_text(bare)
    half = replace(WELL, guard=replace(WELL.guard, table=False))
    assert "fail closed  FAILED  the table is missing: policy rules alone stop packets" in status_text(half)
    part = replace(WELL, guard=replace(WELL.guard, covered=1))
    assert "fail closed  DEGRADED  table and policy rules stand; 1/2 pod subnets covered" in status_text(part)


def test_changes_that_could_not_be_made_and_errors_are_in_the_line_of_the_kernel() -> None:
    stuck = replace(WELL, rounds=replace(WELL.rounds, left=2, error="nft: Operation not permitted"))
    (line,) = [line for line in status_text(stuck, Style(width=400)).splitlines() if line.startswith("  kernel")]
    assert line.startswith("  kernel       DEGRADED  412 resources of ours as wanted; 2 changes could not be made;")
    assert line.endswith("error: nft: Operation not permitted")


def test_a_source_that_was_never_read_says_so() -> None:
    unread = SourceStatus(name="/etc/outgate", health=Health.FAILED, age_s=None, error="red.yaml:3:1: no such field")
    text = status_text(replace(WELL, sources=(unread,)))
    assert "intent       FAILED  /etc/outgate: never read; red.yaml:3:1: no such field" in text


def test_ports_are_shown_when_they_run_out() -> None:
    fair = PortUse(address=BLUE.egress_ips[0], used=1_000, available=28_232, age_s=4.0)
    full = replace(fair, used=27_900)

    def shown(use: PortUse) -> str:
        return status_text(replace(WELL, tenants=(replace(BLUE, ports=(use,)),)), Style(width=160))

    assert "ports" not in shown(fair)
    assert "912MB     ports 27,900/28,232 of 192.168.55.113" in shown(full)


def test_of_four_thousand_tenants_those_that_need_attention_are_shown_and_json_has_all() -> None:
    many = tuple(replace(BLUE, name=f"t{number:04}", egress_ips=BLUE.egress_ips[:1]) for number in range(4_000))
    status = replace(ILL, tenants=(*many, GREEN))
    lines = status_text(status).splitlines()
    assert lines[0].startswith("egress gateway gw1  DEGRADED  1 of 4,001 tenants needs attention")
    table = lines.index(next(line for line in lines if line.startswith("TENANT")))
    assert lines[table + 1].startswith("ns-green  REFUSED")
    assert "and 3,991 more tenants" in lines
    assert len(lines) < 40
    tenants = status_document(status)["tenants"]
    assert isinstance(tenants, list)
    assert len(tenants) == 4_001


def test_the_document_is_stable_json() -> None:
    plain = status_document(ILL)
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain) == [
        *("apiVersion", "kind", "gateway", "version", "health", "uptimeSeconds", "sources", "rounds", "guard"),
        *("tenants", "nodes", "findings", "confirmation"),
    ]
    assert (plain["kind"], plain["health"], plain["confirmation"]) == (
        "Status",
        "DEGRADED",
        {"leftSeconds": 42.0, "text": ""},
    )


def test_kinds_of_an_api_server_that_are_alike_share_a_line_as_old_as_the_oldest() -> None:
    def kind(name: str, health: Health, age_s: float, error: str = "") -> SourceStatus:
        return SourceStatus(name="prod", part=name, health=health, age_s=age_s, objects={"object": 2}, error=error)

    away = "unreachable: https://api.example.org: GET /api/v1: Connection refused"
    sources = (
        kind("Node", Health.OK, 3.0),
        kind("EgressTenant", Health.DEGRADED, 70.0, away),
        kind("Namespace", Health.OK, 9.0),
        kind("EgressPool", Health.DEGRADED, 80.0, away),
        kind("Pod", Health.DEGRADED, 5.0, "denied: 403"),
    )
    text = status_text(replace(WELL, health=Health.DEGRADED, sources=sources), Style(colour=False, width=200))
    told = [line.split(None, 2)[2] for line in text.splitlines() if line.strip().startswith("intent")]
    assert told == [
        "prod: 2 kinds, read 9s ago; 2 Nodes, 2 Namespaces",
        "prod: 2 kinds, read 80s ago; 2 EgressTenants, 2 EgressPools; " + away,
        "prod Pod: read 5s ago; 2 Pods; denied: 403",
    ]
