"""Large answers hang: which sizes lie on the way of a pod's packets, and who cuts what.

The cluster is that of test_egress_explain: pods have MTU 1400, br-ex 1500, eth1 9000; n1 has the egress IPs.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

import pytest

from outgate.model.egress_ip import ClusterView, EgressAnswer
from outgate.model.net import Address, LinkName
from outgate.model.nics import GatewayMode
from outgate.plan.egress_explain import explain_pod
from outgate.plan.egress_ip import BRIDGE, MANAGEMENT_PORT
from tests.stories.test_egress_explain import AUTO, BY_ETH1, ETH1, HOST, INTENT, OUTSIDE, VIEW

SHARED = replace(
    VIEW, intent=replace(INTENT, nodes=tuple(replace(one, mode=GatewayMode.SHARED) for one in INTENT.nodes))
)


def with_mtu(link: LinkName, mtu: int, view: ClusterView = VIEW) -> ClusterView:
    links = {**HOST.links, link: replace(HOST.links[link], mtu=mtu)}
    return replace(view, hosts=MappingProxyType({"n1": replace(HOST, links=MappingProxyType(links))}))


def ask(view: ClusterView, pod: str, to: Address = OUTSIDE) -> EgressAnswer:
    (answer,) = explain_pod(view, pod, to).answers
    return answer


@pytest.mark.parametrize(
    ("view", "to", "large"),
    [
        (VIEW, OUTSIDE, "br-ex hands them to the host, which cuts those that may be cut; of the others the sender is"),
        (SHARED, OUTSIDE, "answers of more than 1400 bytes are lost: nobody cuts them, and their sender"),
        (replace(VIEW, routing=AUTO), BY_ETH1, "answers of more than 1400 bytes: the host cuts those that may be cut"),
    ],
)
def test_who_cuts_large_answers_hangs_on_the_gateway_mode_and_the_path(
    view: ClusterView, to: Address, large: str
) -> None:
    assert large in ask(view, "shop/db", to).large


def test_the_tunnel_takes_its_part_where_the_pod_is_elsewhere() -> None:
    assert ask(VIEW, "shop/db").mtu == (
        "pods 1400 (ovn-k8s-mp0), br-ex 1500, between the nodes geneve takes 58 bytes of br-ex's"
    )
    assert ask(VIEW, "shop/web").mtu == "pods 1400 (ovn-k8s-mp0), br-ex 1500"
    six = tuple(replace(one, internal_ips=(ip_address("fd99::21"),)) for one in INTENT.nodes)
    assert "geneve takes 78 bytes" in ask(replace(VIEW, intent=replace(INTENT, nodes=six)), "shop/db").mtu


@pytest.mark.parametrize(
    ("view", "pod", "to", "text"),
    [
        (with_mtu(BRIDGE, 1457), "shop/db", OUTSIDE, "pods may send 1400 bytes, which need 1458 between nodes"),
        (with_mtu(BRIDGE, 1458), "shop/db", OUTSIDE, ""),
        (with_mtu(BRIDGE, 1457), "shop/web", OUTSIDE, ""),  # no tunnel lies between
        (with_mtu(ETH1, 1300, replace(VIEW, routing=AUTO)), "shop/web", BY_ETH1, "and eth1 has MTU 1300"),
        (with_mtu(MANAGEMENT_PORT, 1500), "shop/db", OUTSIDE, "which need 1558 between nodes, and br-ex has MTU 1500"),
    ],
)
def test_an_mtu_that_does_not_fit_is_told(view: ClusterView, pod: str, to: Address, text: str) -> None:
    found = [one for one in ask(view, pod, to).decision.findings if one.reason == "MtuTooSmall"]
    assert len(found) == bool(text)
    assert all(text in one.text for one in found)
