"""The whole way of a packet with an egress IP: what the rows, the host and ovn-trace say, beside what the plan says.

Pod shop/web 10.128.0.5 on n1 and shop/db 10.128.1.5 on n2 have 192.168.99.150 on n1, in local gateway mode. The host of
n1 reaches the partner 203.0.113.20 by eth1. tests/stories/zones.py has the zones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any

import pytest

from outgate.model.egress_ip import ClusterView
from outgate.model.firewall import SourceNat
from outgate.model.host_table import HostTables, NicSnat, RefusedLink, Translations
from outgate.model.intent import ClusterNetwork, EgressIP, Intent, Namespace, Node, NodeSubnet, Pod
from outgate.model.net import (
    ALL_LINKS,
    MAIN,
    Address,
    Discard,
    Link,
    LinkName,
    NextHop,
    OnLink,
    Route,
    Rule,
    Setting,
    Span,
    TableId,
    Via,
)
from outgate.model.nics import GatewayMode, HostCidr
from outgate.model.routing import Routing, Semantics
from outgate.model.ruleset import Element
from outgate.model.selector import LabelSelector
from outgate.model.zone import Microflow, Output, OvnSaid, Zone
from outgate.plan.egress_explain import explain_pod
from outgate.report.egress_trace import egress_trace_document, egress_trace_text
from outgate.trace.egress import EgressTrace, EgressWalk, Fate, Seen, trace_egress
from outgate.trace.ovn import OvnWalk, walk_ovn
from outgate.trace.router import OvnPacket
from outgate.trace.steps import Place, Verdict
from tests.stories.zones import (
    EGRESS_IP,
    JOIN,
    MANAGEMENT,
    OUTSIDE,
    PARTNER,
    POD,
    TRANSIT,
    policy,
    with_policies,
    with_snats,
    zone,
)

BRIDGE, ETH1, PORT = LinkName("br-ex"), LinkName("eth1"), LinkName("ovn-k8s-mp0")
SECONDARY = ip_address("192.168.55.150")
WEB, DB = "shop/web", "shop/db"
AUTO = Routing(semantics=Semantics.AUTO)
POD_NET = "10.128.0.0/24"


def route(dst: str, hop: NextHop, table: int = MAIN) -> Route:
    return Route(dst=ip_network(dst), hop=hop, table=TableId(table))


def via(address: str, link: LinkName) -> Via:
    return Via(address=ip_address(address), link=link)


HOST = HostTables(
    links=MappingProxyType(
        {
            name: Link(name=name, index=index, mtu=mtu)
            for name, index, mtu in ((BRIDGE, 3, 1500), (ETH1, 5, 1500), (PORT, 7, 1400))
        }
    ),
    routes=frozenset(
        {
            route("0.0.0.0/0", via("192.168.99.1", BRIDGE)),
            route("192.168.99.0/24", OnLink(link=BRIDGE)),
            route("192.168.55.0/24", OnLink(link=ETH1)),
            route(f"{PARTNER}/32", via("192.168.55.1", ETH1)),
            route("203.0.113.66/32", Discard.BLACKHOLE),
            route("10.128.0.0/14", via("10.128.0.1", PORT)),
        }
    ),
    rules=frozenset({Rule(priority=0, version=4, action=TableId(255)), Rule(priority=32766, version=4, action=MAIN)}),
)
OURS = frozenset(
    {
        *(Element("served4", (pod,)) for pod in POD.values()),
        *(Element("pod_snat4", (pod,), EGRESS_IP) for pod in POD.values()),
        *(Element("pod_own4", (pod, EGRESS_IP)) for pod in POD.values()),
        Element("inside4", (Span(first=ip_address("10.128.0.0"), last=ip_address("10.131.255.255")),)),
    }
)
MASQUERADE = SourceNat(place="nft table inet ovn-kubernetes, chain pods", priority=100, src=ip_network(POD_NET))
TRANSLATIONS = Translations(elements=OURS, others=(MASQUERADE,))


def node(name: str, number: int) -> Node:
    primary, secondary = ip_network("192.168.99.0/24"), ip_network("192.168.55.0/24")
    return Node(
        name=name,
        subnets=(NodeSubnet("default", ip_network(f"10.128.{number}.0/24"), "k8s.ovn.org/node-subnets"),),
        primary=(primary,),
        mode=GatewayMode.LOCAL,
        next_hops=(ip_address("192.168.99.1"),),
        host_cidrs=(
            HostCidr(ip_address(f"192.168.99.{21 + number}"), primary),
            HostCidr(ip_address(f"192.168.55.{21 + number}"), secondary),
        ),
        assignable=True,
    )


def view(*, egress_ip: Address = EGRESS_IP, routing: Routing = AUTO, host: HostTables = HOST) -> ClusterView:
    """The cluster, with one EgressIP for namespace shop, on n1."""
    prod = EgressIP(
        name="prod",
        egress_ips=(egress_ip,),
        namespace_selector=LabelSelector((("env", "prod"),)),
        pod_selector=None,
        assigned=(("n1", egress_ip),),
    )
    intent = Intent(
        nodes=(node("n1", 0), node("n2", 1)),
        namespaces=(Namespace(name="lab"), Namespace(name="shop", labels=(("env", "prod"),))),
        pods=(
            Pod(namespace="shop", name="web", node="n1", addresses=(POD["n1"],)),
            Pod(namespace="shop", name="db", node="n2", addresses=(POD["n2"],)),
            Pod(namespace="lab", name="tool", node="n1", addresses=(ip_address("10.128.0.6"),)),
        ),
        network=ClusterNetwork(cluster_networks=(ip_network("10.128.0.0/14"),), service_networks=()),
        egress_ips=(prod,),
    )
    known = MappingProxyType({"n1": TRANSLATIONS})
    return ClusterView(intent=intent, hosts=MappingProxyType({"n1": host}), routing=routing, translations=known)


def assisted() -> tuple[Zone, Zone]:
    """Both zones with the egress IP in force, and what outgate adds on n1."""
    here = with_policies(
        zone("n1"),
        policy(100, f"ip4.src == {POD['n1']}", JOIN["n1"]),
        policy(103, f"ip4.src == $served && ip4.dst == {{{PARTNER}, 203.0.113.66}}", MANAGEMENT["n1"]),
    )
    there = with_policies(zone("n2"), policy(100, f"ip4.src == {POD['n2']}", TRANSIT["n1"]))
    return with_snats(here, *((str(pod), str(EGRESS_IP)) for pod in POD.values())), there


def ways(subject: str, to: Address, *zones: Zone) -> tuple[OvnWalk, ...]:
    pod = {WEB: "n1", DB: "n2"}[subject]
    return walk_ovn({one.name: one for one in zones}, pod, OvnPacket(source=POD[pod], destination=to))


def traced(
    subject: str,
    to: Address,
    *zones: Zone,
    seen_in: ClusterView | None = None,
    said: Mapping[tuple[str, Microflow], OvnSaid] = MappingProxyType({}),
) -> EgressTrace:
    known = seen_in or view()
    packet = OvnPacket(source={WEB: POD["n1"], DB: POD["n2"]}[subject], destination=to)
    found = ways(subject, to, *zones)
    seen = Seen(view=known, packet=packet, ways=found, zones=frozenset(one.name for one in zones), said=said)
    return trace_egress(explain_pod(known, subject, to), seen)


def only(trace: EgressTrace) -> EgressWalk:
    (walk,) = trace.walks
    return walk


@pytest.mark.parametrize("subject", [WEB, DB])
def test_what_the_host_is_handed_leaves_by_its_route_as_the_egress_ip(subject: str) -> None:
    trace = traced(subject, PARTNER, *assisted())

    walk = only(trace)
    assert trace.headline.endswith("leaves n1 by eth1 via 192.168.55.1 as 192.168.99.150")
    assert (walk.fate, walk.link, walk.leaves_as, trace.is_well, walk.certain) == (
        Fate.LEAVES,
        ETH1,
        EGRESS_IP,
        True,
        True,
    )
    after = [one.place for one in walk.steps[[one.place for one in walk.steps].index(Place.HOST) :]]
    assert after == [Place.HOST, Place.ROUTE, Place.SNAT, Place.GUARD, Place.LEAVING, Place.MTU]


def test_what_the_gateway_router_keeps_leaves_by_the_bridge() -> None:
    trace = traced(DB, OUTSIDE, *assisted())

    assert trace.headline.endswith("leaves n1 by br-ex via 192.168.99.1 as 192.168.99.150")
    assert (trace.is_well, trace.findings) == (True, ())


def test_a_route_of_the_host_that_discards_ends_the_walk_there() -> None:
    trace = traced(WEB, ip_address("203.0.113.66"), *assisted())

    assert only(trace).fate is Fate.DROPPED
    assert trace.headline.endswith("is dropped: 203.0.113.66/32 blackhole, over 0.0.0.0/0 via 192.168.99.1 dev br-ex")
    assert trace.findings == ()  # the plan says the same
    assert not trace.is_well


def test_without_a_database_the_plan_speaks_for_ovn_and_the_host_is_walked() -> None:
    trace = traced(DB, PARTNER)

    walk = only(trace)
    assert trace.asked == ("no northbound database was asked: the half in OVN is what the plan says",)
    assert [one.place for one in walk.steps[:3]] == [Place.PLAN, Place.PLAN, Place.HOST]
    assert (walk.link, walk.leaves_as, trace.is_well) == (ETH1, EGRESS_IP, True)


def test_a_database_that_does_not_run_the_pod_is_told() -> None:
    seen = Seen(
        view=view(), packet=OvnPacket(source=POD["n2"], destination=PARTNER), why_not="no database of n1 has it"
    )

    trace = trace_egress(explain_pod(view(), DB, PARTNER), seen)

    assert trace.asked == ("no database of n1 has it: the half in OVN is what the plan says",)


def test_without_the_zone_of_the_egress_node_the_plan_takes_over_there() -> None:
    _, there = assisted()

    trace = traced(DB, OUTSIDE, there)

    walk = only(trace)
    assert {Place.TUNNEL, Place.PLAN} <= {one.place for one in walk.steps}
    assert (walk.node, walk.leaves_as) == ("n1", EGRESS_IP)


def test_rows_that_do_otherwise_than_the_plan_are_a_finding() -> None:
    legacy_rows = with_snats(
        with_policies(zone("n1"), policy(100, f"ip4.src == {POD['n1']}", JOIN["n1"])), (str(POD["n1"]), str(EGRESS_IP))
    )

    trace = traced(WEB, PARTNER, legacy_rows)

    (found,) = trace.findings
    assert (found.reason, trace.is_well) == ("NotAsPlanned", False)
    assert "leaves n1 via 192.168.55.1 dev eth1 as 192.168.99.150" in found.text
    assert "leaves n1 by br-ex via 192.168.99.1 as 192.168.99.150" in found.text


def test_a_host_without_the_translation_is_a_leak_that_is_told() -> None:
    bare = replace(view(), translations=MappingProxyType({"n1": Translations()}))

    trace = traced(WEB, PARTNER, *assisted(), seen_in=bare)

    assert trace.headline.endswith("leaves n1 by eth1 via 192.168.55.1 as 10.128.0.5")
    assert [one.reason for one in trace.findings] == ["NotAsPlanned"]


def test_nftables_that_nobody_read_are_no_certainty() -> None:
    unread = replace(view(), translations=MappingProxyType({}))

    trace = traced(WEB, PARTNER, *assisted(), seen_in=unread)

    walk = only(trace)
    assert (walk.leaves_as, walk.certain) == (EGRESS_IP, False)
    assert "not sure: nftables of n1 was not read; the plan makes it 192.168.99.150" in egress_trace_text(trace)


def test_a_host_that_nobody_read_ends_the_walk() -> None:
    unknown = replace(view(), hosts=MappingProxyType({}))

    trace = traced(WEB, PARTNER, *assisted(), seen_in=unknown)

    assert only(trace).fate is Fate.UNKNOWN
    assert "is followed to n1 only" in trace.headline


def test_the_guard_stops_what_a_rule_of_others_translated_first() -> None:
    elements = frozenset(one for one in OURS if one.set != "pod_snat4")
    half = replace(view(), translations=MappingProxyType({"n1": replace(TRANSLATIONS, elements=elements)}))

    trace = traced(WEB, PARTNER, *assisted(), seen_in=half)

    assert only(trace).fate is Fate.DROPPED
    assert "192.168.55.21 is no egress IP of 10.128.0.5: dropped" in trace.headline


def test_a_host_that_does_not_forward_drops() -> None:
    closed = replace(HOST, settings=MappingProxyType({(PORT, Setting.FORWARDING): 0}))

    assert (
        "IPv4 forwarding is off on ovn-k8s-mp0" in traced(WEB, PARTNER, *assisted(), seen_in=view(host=closed)).headline
    )


@pytest.mark.parametrize(("jumps", "fate"), [(False, Fate.DROPPED), (True, Fate.LEAVES)])
def test_a_firewall_that_lets_no_pod_out_by_the_link_ends_the_walk_or_leaves_a_doubt(jumps: bool, fate: Fate) -> None:
    refused = RefusedLink(link=ETH1, version=4, place="iptables-nft -t filter, FORWARD", jumps=jumps)
    closed = replace(view(), translations=MappingProxyType({"n1": replace(TRANSLATIONS, refused=(refused,))}))

    walk = only(traced(WEB, PARTNER, *assisted(), seen_in=closed))

    assert (walk.fate, walk.certain) == (fate, not jumps)
    told = next(one for one in walk.steps if one.place is Place.FORWARDING)
    assert told.text.startswith("iptables-nft -t filter, FORWARD lets no pod's packet out by eth1")


def test_a_strict_reverse_path_filter_of_the_management_port_drops_what_has_no_way_back() -> None:
    strict = replace(
        HOST,
        routes=HOST.routes - {route("10.128.0.0/14", via("10.128.0.1", PORT))},
        settings=MappingProxyType({(ALL_LINKS, Setting.RP_FILTER): 1}),
    )

    assert "is strict" in traced(WEB, PARTNER, *assisted(), seen_in=view(host=strict)).headline


def secondary(*, rule: bool = True, entry: bool = True) -> tuple[ClusterView, Zone]:
    """The egress IP on eth1, as OVN-Kubernetes does it: its rule, its table, its map and its mark."""
    own_table = {route("0.0.0.0/0", via("192.168.55.1", ETH1), 1005), route("192.168.55.0/24", OnLink(link=ETH1), 1005)}
    own_rule = Rule(priority=6000, version=4, action=TableId(1005), src=ip_network(f"{POD['n1']}/32"))
    host = replace(HOST, routes=HOST.routes | own_table, rules=HOST.rules | ({own_rule} if rule else frozenset()))
    by_nic = frozenset({NicSnat(pod=POD["n1"], link=ETH1, address=SECONDARY)} if entry else ())
    known = MappingProxyType({"n1": Translations(by_nic=by_nic, others=(MASQUERADE,) if entry else ())})
    seen = replace(view(egress_ip=SECONDARY, routing=Routing(), host=host), translations=known)
    return seen, with_policies(zone("n1"), policy(100, f"ip4.src == {POD['n1']}", MANAGEMENT["n1"], mark=1009))


def test_a_secondary_egress_ip_is_walked_by_its_rule_its_table_and_the_map() -> None:
    seen, here = secondary()

    trace = traced(WEB, OUTSIDE, here, seen_in=seen)

    walk = only(trace)
    said = {one.place: one.text for one in walk.steps}
    assert (walk.link, walk.leaves_as, trace.is_well) == (ETH1, SECONDARY, True)
    assert said[Place.RULE] == "rule `6000: from 10.128.0.5/32 lookup 1005`"
    assert said[Place.ROUTE] == "0.0.0.0/0 via 192.168.55.1 dev eth1 table 1005 (table 1005)"
    assert said[Place.SNAT] == (
        "table inet ovn-kubernetes, map egress-ip-snat-v4: 10.128.0.5 by eth1 becomes 192.168.55.150"
    )


def test_without_its_rule_a_secondary_egress_ip_is_masqueraded_by_the_other_nic() -> None:
    seen, here = secondary(rule=False)

    trace = traced(WEB, OUTSIDE, here, seen_in=seen)

    assert trace.headline.endswith("leaves n1 by br-ex via 192.168.99.1 as 192.168.99.21")
    assert "NotAsPlanned" in [one.reason for one in trace.findings]


def test_a_marked_packet_that_nothing_translates_is_left_to_the_version_of_ovn_kubernetes() -> None:
    seen, here = secondary(entry=False)

    walk = only(traced(WEB, OUTSIDE, here, seen_in=seen))

    assert any(one.place is Place.GUARD and one.verdict is Verdict.UNSURE for one in walk.steps)


def test_packets_to_nodes_get_the_nodes_address_from_the_bridge() -> None:
    here = with_snats(zone("n1", local=False), (str(POD["n1"]), str(EGRESS_IP)))

    trace = traced(WEB, ip_address("192.168.99.22"), here)

    assert only(trace).leaves_as == ip_address("192.168.99.21")
    assert "a flow of br-ex gives packets with mark 1008 the node's address" in egress_trace_text(trace)


def test_a_pod_address_that_nothing_translated_is_stopped_at_the_bridge_as_far_as_is_known() -> None:
    here = replace(zone("n1", local=False), snats=frozenset())

    walk = only(traced(WEB, OUTSIDE, here))

    assert (walk.leaves_as, walk.certain) == (POD["n1"], False)


def spoken(subject: str, to: Address, **words: object) -> dict[tuple[str, Microflow], OvnSaid]:
    """What ovn-trace says in the first zone on the way."""
    leg = ways(subject, to, *assisted())[0].legs[0]
    return {(leg.zone, leg.entry): OvnSaid(zone=leg.zone, **words)}  # type: ignore[arg-type]


def test_ovn_trace_that_says_the_same_is_shown() -> None:
    outputs, hop = (Output("br-ex_n1", "localnet"),), ip_address("192.168.99.1")

    trace = traced(
        WEB, OUTSIDE, *assisted(), said=spoken(WEB, OUTSIDE, outputs=outputs, next_hop=hop, source=EGRESS_IP)
    )

    assert (trace.findings, trace.is_well) == ((), True)
    assert "in the zone of n1 it leaves by br-ex_n1 via 192.168.99.1 as 192.168.99.150" in egress_trace_text(trace)


FLOW = "lr_in_policy 501 `ip4`"
BY_BRIDGE, BY_HOST = (Output("br-ex_n1", "localnet"),), (Output("k8s-n1", ""),)
ROUTER, OTHER = ip_address("192.168.99.1"), ip_address("192.168.99.2")


@pytest.mark.parametrize(
    "words",
    [
        {"outputs": BY_HOST, "policy": FLOW},
        {"outputs": BY_BRIDGE, "next_hop": OTHER, "source": EGRESS_IP, "policy": FLOW},
        {"outputs": BY_BRIDGE, "next_hop": ROUTER, "source": JOIN["n1"], "policy": FLOW},
        {"outputs": BY_BRIDGE, "next_hop": ROUTER, "policy": FLOW},
        {"outputs": (), "flow": FLOW},
    ],
    ids=["port", "next hop", "address", "no address", "dropped"],
)
def test_ovn_trace_that_says_something_else_is_a_finding_that_names_the_flow(words: dict[str, object]) -> None:
    trace = traced(WEB, OUTSIDE, *assisted(), said=spoken(WEB, OUTSIDE, **words))

    (found,) = trace.findings
    assert (found.reason, found.about, trace.is_well) == ("TraceDiffers", "zone n1", False)
    assert "501 `ip4`" in found.text
    assert "; but ovn-trace says that in the zone of n1 it " in trace.headline
    assert "by policy 100 `ip4.src == 10.128.0.5`" in found.text


def test_a_neighbour_that_nobody_has_learned_hides_the_address_and_nothing_else() -> None:
    outputs, hop = (Output("br-ex_n1", "localnet"),), ip_address("192.168.99.1")

    said = spoken(WEB, OUTSIDE, outputs=outputs, next_hop=hop, asks_neighbour=True)

    assert traced(WEB, OUTSIDE, *assisted(), said=said).findings == ()


def test_of_several_ways_ovn_trace_takes_one_and_agrees() -> None:
    here, there = assisted()
    both = policy(100, f"ip4.src == {POD['n1']}", JOIN["n1"], TRANSIT["n2"])
    here = replace(here, policies=frozenset(one for one in here.policies if one.priority != 100) | {both})
    found = ways(WEB, OUTSIDE, here, there)
    leg = found[0].legs[0]
    said = OvnSaid(zone="n1", outputs=(Output("tstor-n2", "remote"),), next_hop=TRANSIT["n2"])

    trace = traced(WEB, OUTSIDE, here, there, said={("n1", leg.entry): said})

    assert len(trace.walks) == 2
    assert "TraceDiffers" not in [one.reason for one in trace.findings]


def test_a_pod_that_nobody_knows() -> None:
    trace = trace_egress(explain_pod(view(), "shop/gone", OUTSIDE), Seen(view=view()))

    assert (trace.known, trace.walks, trace.headline) == (False, (), "shop/gone: nobody knows such a pod")


def test_the_document_says_all_that_the_text_does() -> None:
    trace = traced(DB, PARTNER, *assisted())

    document: Any = egress_trace_document(trace)
    (walk,) = document["trace"]["walks"]
    assert document["kind"] == "EgressTrace"
    assert (walk["fate"], walk["node"], walk["link"], walk["leavesAs"]) == ("LEAVES", "n1", "eth1", "192.168.99.150")
    assert str(walk["ending"]) in egress_trace_text(trace)


def test_a_pod_that_runs_here_is_seen_as_its_node_by_other_nodes() -> None:
    elements = OURS | {Element("departing4", (POD["n1"],)), Element("node_peer4", (ip_address("192.168.99.22"),))}
    own = replace(view(), translations=MappingProxyType({"n1": Translations(elements=elements)}))

    trace = traced(WEB, ip_address("192.168.99.22"), zone("n1"), seen_in=own)

    walk = only(trace)
    assert (walk.link, walk.leaves_as) == (BRIDGE, ip_address("192.168.99.21"))
    assert "table inet outgate: 10.128.0.5 to a node becomes 192.168.99.21" in egress_trace_text(trace)
