"""What stands in the statuses of a cluster's objects, and that it is what the gateways do."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from outgate.model.intent import (
    ClusterNetwork,
    EgressGateway,
    EgressTenant,
    InnerInterface,
    Intent,
    NextHopIdentity,
    Served,
    Standing,
    Told,
)
from outgate.model.net import Address, LinkName
from outgate.model.verdict import Verdict
from outgate.plan.egress_claims import tenants_of_claims
from outgate.plan.external_routes import routes_to_gateways
from outgate.plan.pools import give
from outgate.plan.verdicts import judge

FREE, SHARED, INSIDE = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("10.128.0.9")
GATEWAY = EgressGateway(
    name="gw1", inner=(InnerInterface(interface=LinkName("enp1s0")),), uplinks=(LinkName("enp7s0"),)
)
NETWORK = ClusterNetwork(cluster_networks=(ip_network("10.128.0.0/14"),))


def tenant(
    name: str, age: int, *addresses: Address, gateway: str | None = None, told: tuple[Told, ...] = ()
) -> EgressTenant:
    served = Served(
        uid=name, generation=2, created=f"2026-01-01T00:00:{age:02}Z", version="1", standing=Standing(told=told)
    )
    hop = NextHopIdentity(addresses=(ip_address("192.168.99.1") + age,))
    return EgressTenant(name=name, identity=hop, egress_ips=addresses, gateway=gateway, served=served)


def judged(*tenants: EgressTenant, gateways: tuple[EgressGateway, ...] = (GATEWAY,)) -> dict[str, Verdict]:
    intent = Intent(gateways=gateways, tenants=tenants, network=NETWORK)
    verdicts, _ = judge(intent, give(intent, 0.0), tenants_of_claims(intent), routes_to_gateways(intent))
    return {one.name: one for one in verdicts if one.kind == "EgressTenant"}


def said(verdict: Verdict, kind: str) -> tuple[bool | None, str]:
    return next((one.holds, one.reason) for one in verdict.conditions if one.type == kind)


def test_of_two_the_older_has_an_address_whatever_they_are_called() -> None:
    found = judged(tenant("a", 9, SHARED), tenant("z", 1, SHARED))
    assert said(found["z"], "Accepted") == (True, "Accepted")
    assert said(found["a"], "Accepted") == (False, "AddressTaken")


def test_a_tenant_that_is_refused_keeps_no_address_from_another() -> None:
    found = judged(tenant("old", 1, SHARED, INSIDE), tenant("new", 2, SHARED))
    assert said(found["old"], "Accepted") == (False, "ClusterAddress")
    assert said(found["new"], "Accepted") == (True, "Accepted")


def test_the_first_reason_is_told() -> None:
    found = judged(tenant("old", 1, FREE, SHARED), tenant("new", 2, FREE, SHARED))
    message = next(one.message for one in found["new"].conditions if one.type == "Accepted")
    assert str(FREE) in message


def test_a_tenant_without_a_gateway_is_not_accepted() -> None:
    assert said(judged(tenant("t", 1, FREE, gateway="gw9"))["t"], "Accepted") == (False, "GatewayUnknown")
    assert said(judged(tenant("t", 1, FREE), gateways=())["t"], "Accepted") == (False, "GatewayUnnamed")


def test_what_a_gateway_said_of_an_older_generation_is_pending() -> None:
    for generation, expected in ((1, (None, "Pending")), (2, (True, "Programmed"))):
        word = Told(gateway="gw1", generation=generation, programmed=True, reason="Programmed", message="all of it")
        assert said(judged(tenant("t", 1, FREE, told=(word,)))["t"], "Programmed") == expected
