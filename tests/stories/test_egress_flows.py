"""A node's connection tracking, and what it says about egress IPs.

EgressIP prod (192.168.99.150 on n1) serves shop/web (10.128.0.5) and shop/db (10.128.1.5); lab/tool (10.128.1.6) has
none. Node n1 is 192.168.99.21. The partner is 203.0.113.20.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.egress_flows import EgressFlows
from outgate.model.errors import IntentError
from outgate.model.flow import Endpoints, Flow, TcpState
from outgate.model.intent import ClusterNetwork, EgressIP, Intent, Namespace, Node, Pod
from outgate.model.net import Address
from outgate.model.rivals import EgressService
from outgate.model.selector import LabelSelector
from outgate.plan.egress_flows import PORTS, Held, egress_flows
from outgate.report.egress_flows import flows_document, flows_text

EGRESS, OTHER, GONE = (ip_address(f"192.168.99.{last}") for last in (150, 151, 159))
WEB, DB, TOOL, NOBODY = (ip_address(one) for one in ("10.128.0.5", "10.128.1.5", "10.128.1.6", "10.128.0.99"))
N1, PARTNER = ip_address("192.168.99.21"), ip_address("203.0.113.20")
EGRESS6, WEB6, PARTNER6 = ip_address("fd99::150"), ip_address("fd01::5"), ip_address("2001:db8:113::20")
SHOP, LAB = LabelSelector((("name", "shop"),)), LabelSelector((("name", "lab"),))
INTENT = Intent(
    nodes=(Node(name="n1", internal_ips=(N1,)),),
    namespaces=(Namespace(name="lab", labels=(("name", "lab"),)), Namespace(name="shop", labels=(("name", "shop"),))),
    pods=(
        Pod(namespace="lab", name="tool", node="n1", addresses=(TOOL,)),
        Pod(namespace="shop", name="db", node="n2", addresses=(DB,)),
        Pod(namespace="shop", name="web", node="n1", addresses=(WEB, WEB6)),
    ),
    network=ClusterNetwork(cluster_networks=(ip_network("10.128.0.0/14"), ip_network("fd01::/48"))),
    egress_ips=(
        EgressIP(
            name="prod",
            egress_ips=(EGRESS, EGRESS6),
            namespace_selector=SHOP,
            assigned=(("n1", EGRESS), ("n1", EGRESS6)),
        ),
        EgressIP(name="spare", egress_ips=(OTHER,), namespace_selector=LAB),
    ),
)


def flow(
    source: Address, seen_as: Address, *, sport: int = 40000, to: Address = PARTNER, state: TcpState | None = None
) -> Flow:
    """A TCP flow to port 443 as connection tracking has it after translation."""
    return Flow(
        protocol=6,
        original=Endpoints(src=source, src_port=sport, dst=to, dst_port=443),
        reply=Endpoints(src=to, src_port=443, dst=seen_as, dst_port=sport),
        tcp_state=state or TcpState.ESTABLISHED,
    )


def look(flows: Iterable[Flow], only: str = "", intent: Intent = INTENT) -> EgressFlows:
    found = tuple(flows)
    return egress_flows(intent, "n1", Held(flows=found, entries=len(found), limit=262_144), only)


def many(source: Address, number: int, first: int = 1024) -> Iterator[Flow]:
    return (flow(source, EGRESS, sport=first + one) for one in range(number))


def test_flows_are_counted_by_egress_ip_pod_and_destination() -> None:
    found = look([*many(WEB, 3), *many(DB, 1, 5000), flow(WEB6, EGRESS6, to=PARTNER6)])

    four, six = found.addresses
    assert (four.egress_ip, four.flows, four.pods, str(four.remotes[0].remote)) == (
        "prod",
        4,
        2,
        "203.0.113.20:443/tcp",
    )
    assert four.remotes[0].pods == (("shop/web", 3), ("shop/db", 1))
    assert str(six.remotes[0].remote) == "[2001:db8:113::20]:443/tcp"
    assert [(one.pod, str(one.seen_as), one.flows) for one in found.pods] == [
        ("shop/web", "192.168.99.150", 3),
        ("shop/db", "192.168.99.150", 1),
        ("shop/web", "fd99::150", 1),
    ]
    assert found.findings == ()


def test_an_entry_in_two_zones_is_one_port_and_one_without_translation_says_nothing() -> None:
    one = flow(WEB, EGRESS)
    found = look([one, replace(one, zone=12), flow(WEB, WEB), flow(EGRESS, EGRESS), flow(N1, N1)])

    assert [address.flows for address in found.addresses] == [1]


def test_ports_that_run_out_are_told_with_the_pods_that_have_them() -> None:
    ending = [flow(DB, EGRESS, sport=60000 + one, state=TcpState.TIME_WAIT) for one in range(9)]
    busy = [*ending, *many(WEB, int(0.8 * PORTS))]
    assert look(busy[: -len(ending) - 1]).findings == ()

    (finding,) = look(busy).findings
    assert (finding.reason, finding.about) == ("PortsRunOut", "EgressIP/prod")
    for words in ("51,618 of 64,512 ports in use to 203.0.113.20:443/tcp", "9 only wait", "shop/web 51,609, shop/db 9"):
        assert words in finding.text


@pytest.mark.parametrize(
    ("source", "seen_as", "text"),
    [
        (WEB, N1, "leaves as node n1, and new flows as 192.168.99.150"),
        (WEB, OTHER, "leaves as 192.168.99.151 of EgressIP/spare; new flows leave as 192.168.99.150"),
        (DB, GONE, "leaves as 192.168.99.159 of no EgressIP any more; new flows leave as 192.168.99.150"),
        (TOOL, EGRESS, "leaves as 192.168.99.150 of EgressIP/prod; its pod has no egress IP now"),
        (NOBODY, EGRESS, "leaves as 192.168.99.150 of EgressIP/prod; no pod has its source any more"),
    ],
)
def test_a_flow_that_leaves_as_somebody_else_is_told(source: Address, seen_as: Address, text: str) -> None:
    found = look([flow(source, seen_as)])

    assert [one.text for one in found.astray] == [text]
    assert [one.reason for one in found.findings] == ["FlowAstray"]
    assert look([flow(source, seen_as, state=TcpState.TIME_WAIT)]).astray == ()  # it ends by itself


def test_what_may_leave_as_its_node_is_not_told() -> None:
    inside = ip_address("192.168.99.22")
    intent = replace(INTENT, nodes=(*INTENT.nodes, Node(name="n2", internal_ips=(inside,))))
    masqueraded = flow(WEB, ip_address("169.254.0.2"))

    assert look([flow(TOOL, N1), flow(WEB, N1, to=inside), masqueraded], intent=intent).astray == ()
    service = EgressService(namespace="shop", name="web", by_address=True, addresses=(GONE,))
    held = Held(flows=(flow(WEB, GONE),), entries=1, limit=9)
    assert egress_flows(INTENT, "n1", held, services=(service,)).astray == ()


def test_a_flow_that_an_egress_ip_left_behind_when_it_moved_is_told() -> None:
    n2 = Node(name="n2", internal_ips=(ip_address("192.168.99.22"),))
    moved = replace(INTENT.egress_ips[0], assigned=(("n2", EGRESS),))
    intent = replace(INTENT, nodes=(*INTENT.nodes, n2), egress_ips=(moved,))

    (one,) = look([flow(WEB, EGRESS)], intent=intent).astray
    assert one.text == "leaves here as 192.168.99.150, which is on n2 now, where answers come to"


def test_a_machine_that_is_no_node_is_refused() -> None:
    with pytest.raises(IntentError, match="there is no Node 'laptop'; there are n1: name it with --node"):
        egress_flows(INTENT, "laptop", Held(flows=(), entries=0, limit=1))


def test_a_name_narrows_the_view_to_what_leaves_or_should_leave_as_that_egress_ip() -> None:
    flows = [flow(WEB, EGRESS), flow(WEB, N1, sport=5), flow(TOOL, OTHER, sport=6)]

    prod = look(flows, "prod")
    assert [one.flow.reply.dst for one in prod.astray] == [N1]
    assert [one.address for one in look(flows, "spare").addresses] == [OTHER]


def test_a_table_that_is_nearly_full_is_told() -> None:
    held = Held(flows=(), entries=220_000, limit=262_144)
    assert [one.reason for one in egress_flows(INTENT, "n1", held).findings] == ["TrackingNearlyFull"]
    assert egress_flows(INTENT, "n1", replace(held, entries=200_000)).findings == ()


def test_the_text_shows_egress_ips_then_pods_then_what_is_amiss() -> None:
    found = look(
        [*many(WEB, 2), flow(DB, EGRESS, sport=9000, state=TcpState.TIME_WAIT), flow(TOOL, EGRESS, sport=9001)]
    )

    text = flows_text(found, PORTS)
    assert text.startswith("n1: 4 flows leave as an egress IP; connection tracking has 4 entries of 262,144\n")
    row = "192.168.99.150  prod      4      3     203.0.113.20:443/tcp  4 of 64,512 (0%), 1 of them only wait to end"
    assert row in text
    assert "shop/web  192.168.99.150  2      203.0.113.20:443/tcp 2" in text
    assert "WARNING  Pod/lab/tool FlowAstray" in text
    plain = json.loads(json.dumps(flows_document(found)))
    assert plain["kind"] == "EgressFlows"
    assert plain["astray"][0]["flow"] == "tcp 10.128.1.6:9001 to 203.0.113.20:443 as 192.168.99.150:9001"
    assert (
        flows_text(look([]), PORTS) == "n1: 0 flows leave as an egress IP; connection tracking has 0 entries of 262,144"
    )
