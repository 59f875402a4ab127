"""Numbers and addresses that must be remembered: given once, kept while claimed, rested after."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from outgate.model.intent import EgressPool, EgressTenant, Intent, OnChange, PoolClaim
from outgate.model.ledger import Ledger
from outgate.model.net import Mark, Span
from outgate.model.state import Moment, Snapshot
from outgate.model.why import Finding, Severity
from outgate.plan.allocate import DEFAULT_QUARANTINE_S, allocate
from tests.stories.cluster import BLUE, CLUSTER, GATEWAY, MACHINE, NOW_S, RED, desired, in_namespace, probed, reasons

LAB = EgressPool(
    name="lab",
    ranges=(Span(first=ip_address("192.168.55.120"), last=ip_address("192.168.55.123")),),
    excludes=(Span(first=ip_address("192.168.55.121"), last=ip_address("192.168.55.121")),),
    quarantine_s=60,
)


def claiming(tenant: EgressTenant, count: int = 1) -> EgressTenant:
    return replace(tenant, egress_ips=(), claim=PoolClaim("lab", count))


def later(intent: Intent, ledger: Ledger, seconds: float, flows: dict[str, int] | None = None) -> Ledger:
    live = {ip_address(text): count for text, count in (flows or {}).items()}
    return allocate(asking(intent, ledger), GATEWAY, Moment(now_s=NOW_S + seconds, flows=live))[0]


def asking(intent: Intent, ledger: Ledger) -> Snapshot:
    return Snapshot(intent=intent, facts=MACHINE, ledger=ledger, gateway="gw1")


def first_allocated(intent: Intent) -> tuple[Ledger, tuple[Finding, ...]]:
    ledger, _, findings = allocate(asking(intent, Ledger()), GATEWAY, Moment(now_s=NOW_S))
    return ledger, findings


def test_marks_are_unique_and_outside_the_slot_bits() -> None:
    ledger = probed(Ledger(), CLUSTER)
    marks = [allocation.mark for allocation in ledger.tenants.values()]
    assert len(set(marks)) == len(marks) == 2
    assert all(mark & 0xFF == 0 and mark & ~0x00FFFF00 == 0 for mark in marks)


def test_a_tenant_keeps_its_numbers_when_others_come_and_go() -> None:
    first = probed(Ledger(), CLUSTER)
    without_blue = later(replace(CLUSTER, tenants=(RED,)), first, 1)
    again = later(CLUSTER, without_blue, 2)
    assert again.tenants["ns-red"] == first.tenants["ns-red"]


def test_a_number_is_not_given_again_soon() -> None:
    first = probed(Ledger(), CLUSTER)
    gone = later(replace(CLUSTER, tenants=(RED,)), first, 1)
    back = later(CLUSTER, gone, 2)
    assert back.tenants["ns-blue"].mark not in {a.mark for a in first.tenants.values()}


def test_marks_wrap_around_and_skip_those_in_use() -> None:
    ledger = replace(Ledger(), last_mark=Mark(0x00FFFE00))
    assert later(replace(CLUSTER, tenants=(RED,)), ledger, 0).tenants["ns-red"].mark == 0x100


def test_a_pool_gives_the_lowest_free_address_and_skips_its_holes() -> None:
    intent = replace(CLUSTER, pools=(LAB,), tenants=(claiming(BLUE, 2),))
    ledger = later(intent, Ledger(), 0)
    assert [str(ip) for ip in ledger.tenants["ns-blue"].pool_addresses] == ["192.168.55.120", "192.168.55.122"]


def test_a_standing_pool_address_stays_when_the_pool_changes() -> None:
    intent = replace(CLUSTER, pools=(LAB,), tenants=(claiming(BLUE),))
    ledger = later(intent, Ledger(), 0)
    elsewhere = replace(LAB, ranges=(Span(first=ip_address("192.168.56.1"), last=ip_address("192.168.56.9")),))
    again = later(replace(intent, pools=(elsewhere,)), ledger, 1)
    assert again.tenants["ns-blue"].pool_addresses == ledger.tenants["ns-blue"].pool_addresses


def test_an_exhausted_pool_refuses_the_claim_and_says_how_many_are_free() -> None:
    intent = replace(CLUSTER, pools=(LAB,), tenants=(claiming(BLUE, 5),))
    _, findings = first_allocated(intent)
    assert [f.reason for f in findings] == ["PoolExhausted"]
    assert "3 are free" in findings[0].text


def test_a_pool_serves_only_the_namespaces_that_it_allows() -> None:
    guarded = replace(LAB, allowed_namespaces=in_namespace("ns-red"))
    intent = replace(CLUSTER, pools=(guarded,), tenants=(claiming(BLUE), claiming(RED)))
    ledger, findings = first_allocated(intent)
    assert ledger.tenants["ns-blue"].pool_addresses == ()
    assert len(ledger.tenants["ns-red"].pool_addresses) == 1
    assert [f.reason for f in findings] == ["PoolNotAllowed"]


def test_a_released_address_rests_before_another_tenant_gets_it() -> None:
    first = probed(Ledger(), CLUSTER)
    thief = replace(BLUE, egress_ips=RED.egress_ips)
    gone = later(replace(CLUSTER, tenants=(BLUE,)), first, 1)
    assert ip_address("192.168.55.114") in gone.resting
    early = desired(replace(CLUSTER, tenants=(thief,)), ledger=gone)
    assert "AddressResting" in reasons(early)
    rested = later(replace(CLUSTER, tenants=(thief,)), gone, 2 + DEFAULT_QUARANTINE_S)
    assert ip_address("192.168.55.114") not in rested.resting


def test_a_resting_address_goes_back_to_the_tenant_that_released_it() -> None:
    first = probed(Ledger(), CLUSTER)
    gone = later(replace(CLUSTER, tenants=(BLUE,)), first, 1)
    assert "AddressResting" not in reasons(desired(CLUSTER, ledger=gone))


def test_a_drained_address_stays_until_its_last_flow_is_gone() -> None:
    first = probed(Ledger(), CLUSTER)
    moved = replace(CLUSTER, tenants=(BLUE, replace(RED, egress_ips=(ip_address("192.168.55.117"),))))
    draining = later(moved, first, 1)
    assert ip_address("192.168.55.114") in draining.retiring
    assert ip_address("192.168.55.114") in later(moved, draining, 2, {"192.168.55.114": 3}).retiring
    done = later(moved, draining, 3, {"192.168.55.114": 0})
    assert ip_address("192.168.55.114") not in done.retiring
    assert ip_address("192.168.55.114") in done.resting


def test_flush_lets_the_address_go_at_once() -> None:
    first = probed(Ledger(), CLUSTER)
    abrupt = replace(RED, egress_ips=(ip_address("192.168.55.117"),), on_change=OnChange.FLUSH)
    ledger = later(replace(CLUSTER, tenants=(BLUE, abrupt)), first, 1)
    assert ip_address("192.168.55.114") not in ledger.retiring
    assert ip_address("192.168.55.114") in ledger.resting


def test_an_unchanged_round_leaves_the_ledger_alone() -> None:
    ledger = later(CLUSTER, probed(Ledger(), CLUSTER), 1)
    assert later(CLUSTER, ledger, 2) is ledger


def test_a_tenant_whose_object_can_not_be_read_keeps_its_numbers_and_addresses() -> None:
    first = probed(Ledger(), CLUSTER)
    broken = Finding("InvalidManifest", "EgressTenant/ns-red", "expected an address", Severity.REFUSAL)
    ledger = later(replace(CLUSTER, tenants=(BLUE,), refusals=(broken,)), first, 1)
    assert ledger.tenants["ns-red"] == first.tenants["ns-red"]
    assert ip_address("192.168.55.114") in ledger.holdings
