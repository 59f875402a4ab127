"""A packet from pod 10.128.0.5 on n1 (or 10.128.1.5 on n2) is walked through the rows of two zones.

What stands there is what OVN-Kubernetes writes for an EgressIP, an EgressService or an external gateway, and what
outgate adds beside it. tests/stories/zones.py has the addresses.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.net import Address
from outgate.model.ovn import DropAcl, LogicalRoute, Policy, Snat
from outgate.model.zone import Zone
from outgate.trace.ovn import End, OvnWalk, walk_ovn
from outgate.trace.router import OvnPacket
from outgate.trace.steps import Place, Step, Verdict
from tests.stories.zones import (
    CLUSTER_ROUTER,
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

OURS = tuple(replace(one, priority=104, owner="node:n1:exception") for one in zone("n1").policies)
HAND_OVER = replace(
    policy(103, "ip4.src == $outgate_pods && ip4.dst == $outgate_far", MANAGEMENT["n1"]), owner="node:n1:hand-over4"
)
REROUTE = policy(100, f"ip4.src == {POD['n1']}", JOIN["n1"])


def serving(*more: Policy, local: bool = True) -> Zone:
    """The zone of n1 with an egress IP for its pod and for that of n2, and more policies."""
    pairs = ((str(pod), str(EGRESS_IP)) for pod in POD.values())
    made = with_snats(with_policies(zone("n1", local=local), REROUTE, *more), *pairs)
    far = {"outgate_pods": frozenset(map(str, POD.values())), "outgate_far": frozenset({f"{PARTNER}/32"})}
    return replace(made, sets={**made.sets, **far})


def walk(*zones: Zone, pod: str = "n1", to: Address = OUTSIDE, mark: int = 0) -> OvnWalk:
    (found,) = walk_ovn({one.name: one for one in zones}, pod, OvnPacket(source=POD[pod], destination=to, mark=mark))
    return found


def decided(found: OvnWalk, router: str = CLUSTER_ROUTER) -> Step:
    """The step that says which policy decided in a router."""
    return next(one for one in found.steps if one.place is Place.POLICY and one.text.startswith(router))


def test_an_egress_ip_here_is_given_by_the_gateway_router() -> None:
    found = walk(serving())

    assert (found.end, found.node, found.source) == (End.BRIDGE, "n1", EGRESS_IP)
    assert found.next_hop == ip_address("192.168.99.1")
    assert decided(found).resource == REROUTE
    assert any(
        "10.128.0.5/32 becomes 192.168.99.150, over 10.128.0.0/24 to 192.168.99.21" in one.text for one in found.steps
    )
    assert found.legs[-1].port == "br-ex_n1"


def test_an_egress_ip_on_another_node_is_reached_over_the_transit_switch() -> None:
    there = with_policies(zone("n2"), policy(100, f"ip4.src == {POD['n2']}", TRANSIT["n1"]))

    found = walk(there, serving(), pod="n2")

    assert (found.end, found.node, found.source) == (End.BRIDGE, "n1", EGRESS_IP)
    assert [(leg.zone, leg.port) for leg in found.legs] == [("n2", "tstor-n1"), ("n1", "br-ex_n1")]
    entry = found.legs[1].entry
    assert (entry.datapath, entry.inport, entry.eth_src) == ("transit_switch", "tstor-n2", "0a:58:64:58:00:03")


def test_a_zone_that_nobody_asked_ends_the_walk_and_is_named() -> None:
    there = with_policies(zone("n2"), policy(100, f"ip4.src == {POD['n2']}", TRANSIT["n1"]))

    found = walk(there, pod="n2")

    assert (found.end, found.node) == (End.OTHER_ZONE, "n1")


def test_a_pod_that_the_zone_does_not_run_has_no_walk() -> None:
    assert walk_ovn({"n1": zone("n1")}, "n1", OvnPacket(source=POD["n2"], destination=OUTSIDE)) == ()
    assert walk_ovn({}, "n1", OvnPacket(source=POD["n1"], destination=OUTSIDE)) == ()


def test_without_interconnect_one_zone_has_all_nodes_and_the_gateway_router_names_the_node() -> None:
    whole = replace(serving(), name="global", gateways={"GR_n1": "a-chassis-id"})

    (found,) = walk_ovn({"global": whole}, "n1", OvnPacket(source=POD["n1"], destination=OUTSIDE))

    assert (found.end, found.node, found.source) == (End.BRIDGE, "n1", EGRESS_IP)


@pytest.mark.parametrize(
    ("row", "to", "mark"),
    [
        ("10.128.0.0/14", POD["n2"], 0),
        ("100.64.0.0/16", JOIN["n2"], 0),
        ("$nodes", ip_address("192.168.99.22"), 0),
        ("pkt.mark == 42", OUTSIDE, 42),
    ],
)
@pytest.mark.parametrize("priority", [102, 104])
def test_each_exception_of_102_and_its_copy_at_104_keeps_the_packet_on_its_way(
    row: str, to: Address, mark: int, priority: int
) -> None:
    here = serving(HAND_OVER, *(OURS if priority == 104 else ()))

    found = walk(here, zone("n2"), to=to, mark=mark)

    matched = decided(found).resource
    assert isinstance(matched, Policy)
    assert (matched.priority, row in matched.match) == (priority, True)
    assert found.end in (End.PORT, End.HOST, End.OTHER_ZONE, End.DROPPED)
    assert found.source == POD["n1"]


def test_packets_to_nodes_bear_the_mark_of_the_exception() -> None:
    assert walk(serving(), to=ip_address("192.168.99.22")).mark == 1008


def test_a_host_route_takes_the_packet_to_the_management_port_by_103() -> None:
    here = serving(HAND_OVER, *OURS)

    to_partner, elsewhere = walk(here, to=PARTNER), walk(here)

    assert (to_partner.end, to_partner.node, to_partner.next_hop) == (End.HOST, "n1", MANAGEMENT["n1"])
    assert decided(to_partner).text.count("(outgate's) sends it to 10.128.0.2") == 1
    assert elsewhere.end is End.BRIDGE
    assert "ip4.dst 203.0.113.10 is not in $outgate_far" in " ".join(decided(elsewhere).passed)


def test_every_policy_above_the_one_that_decides_says_why_it_does_not() -> None:
    passed = decided(walk(serving(HAND_OVER, *OURS))).passed

    assert [line.split()[0] for line in passed] == ["104"] * 4 + ["103"] + ["102"] * 4
    assert passed[3] == "104 `pkt.mark == 42`: pkt.mark 0 is not 42"


def test_policies_of_one_priority_are_told_in_part_and_counted() -> None:
    many = [policy(501, f"ip4.src == 10.128.0.{last}", JOIN["n1"]) for last in range(100, 140)]

    passed = decided(walk(serving(*many))).passed

    assert len([one for one in passed if one.startswith("501 `")]) == 3
    assert "501: 37 more" in passed


@pytest.mark.parametrize("priority", [101, 501])
def test_an_egress_service_and_an_external_gateway_come_before_the_egress_ip(priority: int) -> None:
    hop = MANAGEMENT["n1"] if priority == 101 else JOIN["n1"]
    before = policy(priority, f'inport == "rtos-n1" && ip4.src == {POD["n1"]} && ip4.dst != 10.128.0.0/14', hop)

    found = walk(serving(before))

    assert decided(found).resource == before
    assert found.end is (End.HOST if priority == 101 else End.BRIDGE)


def test_an_external_gateway_is_a_route_by_source_of_the_gateway_router() -> None:
    by_source = LogicalRoute(
        router="GR_n1", prefix=ip_network(f"{POD['n1']}/32"), next_hop="192.168.99.13", by_source=True
    )
    here = serving(policy(501, f"ip4.src == {POD['n1']}", JOIN["n1"]))
    here = replace(here, routes=here.routes | {by_source}, snats=frozenset())

    found = walk(here)

    assert (found.next_hop, found.source) == (ip_address("192.168.99.13"), POD["n1"])
    assert any(
        "from 10.128.0.5/32 via 192.168.99.13, over 0.0.0.0/0 via 192.168.99.1" in one.text for one in found.steps
    )


def test_on_the_gateway_router_the_longest_prefix_wins_and_the_inside_passes() -> None:
    from_pods = "ip4.src == $outgate_pods && ip4.dst"
    here = serving(
        policy(400, f"{from_pods} == $nodes", router="GR_n1"),
        policy(232, f"{from_pods} == {PARTNER}/32", "192.168.99.2", router="GR_n1"),
        policy(224, f"{from_pods} == 203.0.113.0/24", drop=True, router="GR_n1"),
        local=False,
    )

    partner, other = walk(here, to=PARTNER), walk(here, to=OUTSIDE)

    assert (partner.end, partner.next_hop, partner.source) == (End.BRIDGE, ip_address("192.168.99.2"), EGRESS_IP)
    assert (
        decided(partner, "GR_n1").passed[0].startswith("400 `ip4.src == $outgate_pods && ip4.dst == $nodes`: ip4.dst")
    )
    assert (other.end, other.steps[-1].verdict) == (End.DROPPED, Verdict.ENDS)
    assert "224" in other.reason


def test_several_next_hops_are_several_ways() -> None:
    both = policy(100, f"ip4.src == {POD['n1']}", JOIN["n1"], TRANSIT["n2"])
    here = replace(serving(), policies=(serving().policies - {REROUTE}) | {both})
    there = with_snats(zone("n2"), (str(POD["n1"]), "192.168.99.151"))

    ways = walk_ovn({"n1": here, "n2": there}, "n1", OvnPacket(source=POD["n1"], destination=OUTSIDE))

    assert {(one.node, str(one.source)) for one in ways} == {("n1", "192.168.99.150"), ("n2", "192.168.99.151")}
    assert all(any("one of 2 next hops" in step.text for step in one.steps) for one in ways)


def test_a_mark_does_not_cross_into_another_zone() -> None:
    marked = policy(100, f"ip4.src == {POD['n2']}", TRANSIT["n1"], mark=42)

    found = walk(with_policies(zone("n2"), marked), serving(), pod="n2")

    assert (found.end, found.source, found.mark) == (End.BRIDGE, EGRESS_IP, 0)


def test_a_secondary_egress_ip_is_handed_to_the_host_with_a_mark() -> None:
    secondary = policy(100, f"ip4.src == {POD['n1']}", MANAGEMENT["n1"], mark=1009)

    found = walk(with_policies(zone("n1", local=False), secondary))

    assert (found.end, found.mark, found.source) == (End.HOST, 1009, POD["n1"])


@pytest.mark.parametrize(("local", "end"), [(True, End.HOST), (False, End.BRIDGE)])
def test_a_pod_without_an_egress_ip_leaves_by_its_nodes_mode(local: bool, end: End) -> None:
    found = walk(zone("n1", local=local))

    assert (found.end, found.node) == (end, "n1")
    assert decided(found).text.endswith("none of 4 policies matches")


def test_without_a_route_policies_are_not_even_asked() -> None:
    bare = replace(serving(), routes=frozenset())

    found = walk(bare)

    assert (found.end, found.reason) == (End.DROPPED, "ovn_cluster_router of n1: no route to 203.0.113.10")


@pytest.mark.parametrize(
    ("hop", "words"),
    [
        ("100.64.0.77", "nobody on join has the next hop 100.64.0.77"),
        ("172.16.0.1", "no port of it is in the network of 172.16.0.1"),
    ],
)
def test_a_next_hop_that_nobody_has_drops_the_packet(hop: str, words: str) -> None:
    found = walk(with_policies(zone("n1"), policy(100, f"ip4.src == {POD['n1']}", hop)))

    assert found.end is End.DROPPED
    assert words in found.reason


def test_a_policy_that_can_not_be_judged_is_told_and_passed_by() -> None:
    found = walk(serving(policy(900, "ip4.src == $unread", drop=True)))

    assert found.end is End.BRIDGE
    doubt = next(one for one in found.steps if one.verdict is Verdict.UNSURE)
    assert "policy 900 `ip4.src == $unread` comes first, and $unread is not known" in doubt.text


def test_two_policies_of_one_priority_that_do_not_agree_are_told() -> None:
    other = policy(100, "ip4.src == $served", MANAGEMENT["n1"])

    found = walk(serving(other))

    assert any(one.verdict is Verdict.UNSURE and "OVN takes either" in one.text for one in found.steps)


def test_a_translation_in_a_router_that_is_bound_to_no_chassis_is_not_believed() -> None:
    strange = Snat(router=CLUSTER_ROUTER, inside=ip_network(f"{POD['n1']}/32"), outside=ip_address("192.0.2.1"))
    here = replace(serving(), snats=serving().snats | {strange})

    found = walk(here)

    assert found.source == EGRESS_IP
    assert any(one.verdict is Verdict.UNSURE and "is bound to no chassis" in one.text for one in found.steps)


def test_a_loop_of_routers_ends() -> None:
    back = LogicalRoute(router="GR_n1", prefix=ip_network("203.0.113.0/24"), next_hop="100.64.0.1")
    here = serving()

    found = walk(replace(here, routes=here.routes | {back}, snats=frozenset()))

    assert (found.end, "until its TTL is spent" in found.reason) == (End.DROPPED, True)


def test_an_address_of_a_router_is_left_open() -> None:
    found = walk(serving(), to=ip_address("10.128.0.1"))

    assert (found.end, found.steps[-1].verdict) == (End.ROUTER, Verdict.UNSURE)


def test_the_guard_of_a_zone_of_our_own_stops_what_is_not_translated_on_its_way_out() -> None:
    guard = DropAcl(switch="ext_n1", priority=1000, match="ip4.src == $guarded", owner="node:n1:guard4")
    made = serving()
    sets = {**made.sets, "guarded": frozenset({str(POD["n1"])})}
    here = replace(made, acls=frozenset({guard}), sets=sets)

    translated, bare = walk(here), walk(replace(here, snats=frozenset()))

    assert translated.end is End.BRIDGE
    assert (bare.end, bare.steps[-1].resource) == (End.DROPPED, guard)
    assert "ACL 1000 `ip4.src == $guarded` (outgate's) drops it" in bare.reason


def test_pods_that_are_held_are_dropped_by_a_policy_of_ours() -> None:
    held = replace(policy(101, f"ip4.src == {POD['n1']}", drop=True), owner="node:n1:held")

    found = walk(with_policies(zone("n1"), held))

    assert (found.end, found.reason.endswith("(outgate's) drops it")) == (End.DROPPED, True)
