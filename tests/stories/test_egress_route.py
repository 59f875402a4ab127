"""Somebody has added a route on a node's host, and asks which egress IPs follow it.

The cluster is that of test_egress_explain: prod (192.168.99.150) on n1's br-ex, zeta (192.168.55.150) on its eth1, in
local gateway mode. The host of n1 has 203.0.113.20/32 by another router on br-ex, 203.0.113.40/32 by eth1, and discards
203.0.113.66/32.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from types import MappingProxyType

import pytest

from outgate.model.egress_ip import ClusterView
from outgate.model.egress_route import Follows
from outgate.model.net import OnLink, Route
from outgate.model.nics import GatewayMode
from outgate.model.routing import Routing, Semantics
from outgate.plan.egress_route import who_follows
from outgate.report.egress_route import route_document, route_text
from tests.stories.test_egress_explain import AUTO, ETH1, HOST, INTENT, VIEW

HONOURED = Routing(semantics=Semantics.AUTO, honor_host_routes=True)
SHARED = replace(INTENT, nodes=tuple(replace(one, mode=GatewayMode.SHARED) for one in INTENT.nodes))


def ask(prefix: str, view: ClusterView = VIEW) -> dict[str, Follows]:
    return {one.egress_ip: one for one in who_follows(view, ip_network(prefix)).egress_ips}


@pytest.mark.parametrize(
    ("prefix", "view", "prod", "zeta"),
    [
        ("203.0.113.20/32", VIEW, False, False),
        ("203.0.113.20/32", replace(VIEW, routing=AUTO), True, False),
        ("203.0.113.20/32", replace(VIEW, intent=SHARED, routing=AUTO), False, False),
        ("203.0.113.20/32", replace(VIEW, intent=SHARED, routing=HONOURED), True, False),
        ("203.0.113.40/32", replace(VIEW, routing=AUTO), True, True),
        ("203.0.113.40/32", replace(VIEW, intent=SHARED, routing=HONOURED), False, True),
        ("203.0.113.40/32", VIEW, False, True),
        ("203.0.113.66/32", VIEW, False, False),
        ("203.0.113.66/32", replace(VIEW, routing=AUTO), True, True),
        ("0.0.0.0/0", VIEW, True, False),
    ],
)
def test_a_route_is_followed_or_not_by_mode_semantics_and_nic(
    prefix: str, view: ClusterView, prod: bool, zeta: bool
) -> None:
    found = ask(prefix, view)
    assert (found["prod"].follows, found["zeta"].follows) == (prod, zeta)
    assert all(one.routes for one in found.values())


def test_one_that_does_not_follow_says_why_and_what_to_do() -> None:
    found = ask("203.0.113.20/32")["prod"]

    assert found.why == "legacy in local gateway mode keeps to the gateway router"
    assert found.fix.startswith("routing semantics `auto` honour it in local gateway mode")
    text = route_text(who_follows(VIEW, ip_network("203.0.113.20/32")))
    assert text.startswith("EgressIP/prod 192.168.99.150 on n1: does not follow it\n")
    assert "  route    203.0.113.20/32 via 192.168.99.2 dev br-ex\n" in text
    assert "  packets  gateway router, via 192.168.99.1 dev br-ex as 192.168.99.150 (row T3)\n" in text
    assert text.endswith("2 egress IPs on nodes with a route to 203.0.113.20/32, 2 do not follow it")
    assert (
        json.loads(json.dumps(route_document(who_follows(VIEW, ip_network("203.0.113.20/32")))))["kind"]
        == "EgressRoute"
    )


def test_a_prefix_that_no_host_has_a_route_to_is_said_so() -> None:
    found = ask("198.51.100.0/24")["prod"]
    assert (found.routes, found.why) == ((), "the host of n1 has no route to 198.51.100.0/24")
    unread = ask("203.0.113.20/32", replace(VIEW, hosts=MappingProxyType({})))["prod"]
    assert unread.why.startswith("nobody has read the routes of n1")
    assert route_text(who_follows(VIEW, ip_network("2001:db8::/32"))) == "no egress IP of IPv6 is on a node"


def test_a_route_that_longer_ones_cover_leads_nobody() -> None:
    halves = {Route(dst=ip_network(one), hop=OnLink(link=ETH1)) for one in ("203.0.113.20/31", "203.0.113.22/31")}
    covered = {Route(dst=ip_network("203.0.113.20/30"), hop=OnLink(link=ETH1)), *halves}
    host = replace(HOST, routes=frozenset({*(one for one in HOST.routes if one.dst.prefixlen != 32), *covered}))

    found = ask("203.0.113.20/30", replace(VIEW, hosts=MappingProxyType({"n1": host})))["prod"]
    assert found.why == "longer routes cover all of it"
