"""How a tenant's pods are sent to its gateway."""

from __future__ import annotations

from ipaddress import ip_address

from outgate.model.intent import (
    EgressGateway,
    EgressTenant,
    ExternalRoute,
    InnerInterface,
    Intent,
    Namespace,
    NextHopIdentity,
    SourceIdentity,
)
from outgate.model.net import LinkName
from outgate.model.selector import LabelSelector
from outgate.plan.external_routes import routes_to_gateways

HOP, SHARED, ELSEWHERE = (ip_address(f"192.168.99.{number}") for number in (13, 11, 99))
BLUE = LabelSelector(match_labels=(("name", "blue"),))
GATEWAY = EgressGateway(
    name="gw1",
    inner=(InnerInterface(interface=LinkName("enp1s0"), shared_next_hops=(SHARED,)),),
    uplinks=(LinkName("enp7s0"),),
)
NAMESPACES = (Namespace(name="blue", labels=(("name", "blue"),)), Namespace(name="red", labels=(("name", "red"),)))
BY_HOP = EgressTenant(name="t", namespace_selector=BLUE, identity=NextHopIdentity(addresses=(HOP,)))
BY_SOURCE = EgressTenant(name="t", namespace_selector=BLUE, identity=SourceIdentity())


def intent(tenant: EgressTenant, *routes: ExternalRoute) -> Intent:
    return Intent(gateways=(GATEWAY,), tenants=(tenant,), namespaces=NAMESPACES, external_routes=routes)


def test_a_tenant_told_by_next_hop_is_reached_by_it_and_one_told_by_source_by_the_shared_one() -> None:
    for tenant, hop in ((BY_HOP, HOP), (BY_SOURCE, SHARED)):
        routed = routes_to_gateways(intent(tenant))
        made = ExternalRoute(name="outgate-t", namespace_selector=BLUE, next_hops=(hop,), is_ours=True)
        assert dict(routed.wants) == {"outgate-t": made}
        again = routes_to_gateways(intent(tenant, made))
        assert (dict(again.wants), again.gone) == ({"outgate-t": made}, ())


def test_what_a_user_wrote_stays_and_is_compared() -> None:
    users = ExternalRoute(name="mine", namespace_selector=BLUE, next_hops=(HOP,))
    assert routes_to_gateways(intent(BY_HOP, users)).findings == ()
    assert not routes_to_gateways(intent(BY_HOP, users)).wants
    wrong = ExternalRoute(name="mine", namespace_selector=BLUE, next_hops=(ELSEWHERE,))
    routed = routes_to_gateways(intent(BY_HOP, wrong))
    assert [(one.reason, one.about) for one in routed.findings] == [("RoutedElsewhere", "EgressTenant/t")]
    assert "192.168.99.99" in routed.findings[0].text
    assert not routed.wants


def test_a_route_of_a_user_that_bears_our_name_is_not_taken() -> None:
    red = LabelSelector(match_labels=(("name", "red"),))
    users = ExternalRoute(name="outgate-t", namespace_selector=red, next_hops=(HOP,))
    routed = routes_to_gateways(intent(BY_HOP, users))
    assert (dict(routed.wants), routed.gone) == ({}, ())


def test_a_route_goes_with_its_tenant() -> None:
    made = ExternalRoute(name="outgate-t", namespace_selector=BLUE, next_hops=(HOP,), is_ours=True)
    gone = Intent(gateways=(GATEWAY,), namespaces=NAMESPACES, external_routes=(made,))
    assert routes_to_gateways(gone).gone == (made,)
