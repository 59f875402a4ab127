"""Two tenants want one address. Who holds it keeps it, whatever else changes about the holder; what the holder gives up
is not another's before its old flows are gone.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from outgate.model.intent import EgressTenant, Intent, NextHopIdentity, OnChange
from outgate.model.ledger import Ledger
from outgate.model.net import LinkName
from outgate.model.state import Moment, Snapshot
from outgate.model.why import Finding, Severity
from outgate.plan.allocate import DEFAULT_QUARANTINE_S, allocate
from outgate.plan.claims import Claims
from outgate.plan.gateway import plan
from tests.stories.cluster import BLUE, CLUSTER, DIGEST, ENP1S0, GATEWAY, MACHINE, NOW_S, RED, probed

FIRST_BY_NAME = EgressTenant(
    name="a-newcomer",
    identity=NextHopIdentity(addresses=(ip_address("192.168.99.19"),)),
    egress_ips=BLUE.egress_ips[:1],
)
BLUES = BLUE.egress_ips[0]
ELSEWHERE = (ip_address("192.168.55.121"), ip_address("fd55::121"))


def of(*tenants: EgressTenant) -> Intent:
    return replace(CLUSTER, tenants=tenants)


def settled(intent: Intent, ledger: Ledger, after_s: float = 1.0) -> tuple[Ledger, Claims]:
    """What a round makes of it."""
    snapshot = Snapshot(intent=intent, facts=MACHINE, ledger=ledger, gateway=GATEWAY.name)
    return allocate(snapshot, GATEWAY, Moment(now_s=NOW_S + after_s))[:2]


def test_a_holder_that_asks_for_one_address_more_keeps_what_it_has() -> None:
    held = probed(Ledger(), of(BLUE))
    more = replace(BLUE, egress_ips=(*BLUE.egress_ips, ip_address("192.168.55.121")))
    ledger, claims = settled(of(FIRST_BY_NAME, more), held)
    assert set(claims.tenants) == {"ns-blue"}
    assert [f.reason for f in claims.findings if f.about == "EgressTenant/a-newcomer"] == ["AddressTaken"]
    assert ledger.holdings[BLUES].tenant == "ns-blue"


def test_an_egress_ip_that_is_given_up_and_asked_for_in_one_reading_rests_first() -> None:
    held = probed(Ledger(), of(BLUE))
    moved = replace(BLUE, egress_ips=ELSEWHERE, on_change=OnChange.FLUSH)
    ledger, claims = settled(of(FIRST_BY_NAME, moved), held)
    assert set(claims.tenants) == {"ns-blue"}
    assert ledger.resting[BLUES].tenant == "ns-blue"
    ledger, claims = settled(of(FIRST_BY_NAME, moved), ledger, 2.0)
    assert [f.reason for f in claims.findings] == ["AddressResting"]
    assert ledger.resting[BLUES].tenant == "ns-blue"
    ledger, claims = settled(of(FIRST_BY_NAME, moved), ledger, 2.0 + DEFAULT_QUARANTINE_S)
    assert set(claims.tenants) == {"a-newcomer", "ns-blue"}


def test_an_egress_ip_that_drains_is_not_taken_by_who_asked_for_it_in_the_same_reading() -> None:
    held = probed(Ledger(), of(BLUE))
    intent = of(FIRST_BY_NAME, replace(BLUE, egress_ips=ELSEWHERE))
    ledger, _ = settled(intent, held)
    for after_s in (2.0, 3.0):
        ledger, claims = settled(intent, ledger, after_s)
        assert ledger.retiring[BLUES].tenant == "ns-blue"
        assert [f.reason for f in claims.findings] == ["AddressDraining"]


def test_a_next_hop_that_is_given_up_is_free_at_once() -> None:
    held = probed(Ledger(), of(BLUE, RED))
    swapped = of(replace(BLUE, identity=RED.identity), replace(RED, identity=BLUE.identity))
    ledger, claims = settled(swapped, held)
    assert set(claims.tenants) == {"ns-blue", "ns-red"}
    assert not ledger.resting
    assert not ledger.retiring


def test_a_next_hop_that_is_still_asked_for_stays_with_its_holder() -> None:
    held = probed(Ledger(), of(BLUE))
    more = replace(BLUE, egress_ips=(*BLUE.egress_ips, ip_address("192.168.55.121")))
    rival = replace(FIRST_BY_NAME, identity=BLUE.identity, egress_ips=(ip_address("192.168.55.122"),))
    _, claims = settled(of(rival, more), held)
    assert set(claims.tenants) == {"ns-blue"}


def test_a_tenant_that_can_not_be_read_loses_no_address_to_another() -> None:
    held = probed(Ledger(), of(BLUE))
    broken = (Finding("InvalidObject", "EgressTenant/ns-blue", "can not be read", Severity.REFUSAL),)
    for rival in (FIRST_BY_NAME, replace(FIRST_BY_NAME, identity=BLUE.identity, egress_ips=ELSEWHERE)):
        ledger, claims = settled(replace(of(rival), refusals=broken), held)
        assert set(claims.tenants) == set()
        assert ledger.holdings == held.holdings


def test_a_tenant_that_names_a_link_the_gateway_does_not_declare_for_that_is_refused() -> None:
    by_hop = replace(BLUE, identity=NextHopIdentity(addresses=BLUE.egress_ips[:1], interface=LinkName("enp5s0")))
    for tenant in (by_hop, replace(BLUE, uplink=LinkName("enp5s0")), replace(BLUE, uplink=ENP1S0)):
        _, claims = settled(of(tenant, RED), Ledger())
        assert set(claims.tenants) == {"ns-red"}
        (finding,) = claims.findings
        assert finding.reason == "LinkNotDeclared"
        assert finding.fix.startswith("use one of: enp")


def test_what_is_probed_says_whether_it_is_an_egress_ip() -> None:
    ledger, _ = settled(of(BLUE), Ledger())
    wanted = plan(Snapshot(intent=of(BLUE), facts=MACHINE, ledger=ledger, gateway=""), DIGEST)
    asked = {str(probe.address): probe.egress for probe in wanted.probes}
    assert asked == {"192.168.99.13": False, "fd99::13": False, "192.168.55.113": True, "fd55::113": True}
