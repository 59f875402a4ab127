"""A packet is walked through the gateway as it should be, and through gateways on which something is missing.

pods 10.132.0.0/14 and fd01::/48, nodes 192.168.99.0/24 and fd99::/64, egress 192.168.55.0/24 and fd55::/64,
outside 203.0.113.0/24 and 2001:db8:113::/64. Links: enp1s0 to the nodes, enp7s0 to the outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.intent import DestinationRule, EgressTenant, Intent, InternalDestination, SourceCheck
from outgate.model.net import (
    ALL_LINKS,
    Address,
    Discard,
    LinkAddress,
    LinkName,
    Mark,
    Route,
    Rule,
    Setting,
    TableId,
    TenantLink,
    Via,
)
from outgate.model.ruleset import Element, Table
from outgate.model.selector import LabelSelector
from outgate.model.state import Desired, Facts, Resource
from outgate.trace.steps import Disposition, Packet, Place, Trace, Verdict
from outgate.trace.table import STRANGER
from outgate.trace.walk import arrive_by, walk
from outgate.trace.world import World, world_of_actual, world_of_desired
from tests.stories.cluster import (
    BLUE,
    CLUSTER,
    DIGEST,
    ENP1S0,
    ENP7S0,
    GATEWAY,
    GREEN_BY_SOURCE,
    MACHINE,
    RED,
    desired,
)

BLUE_POD, BLUE_POD6 = ip_address("10.132.0.5"), ip_address("fd01:0:0:1::5")
RED_POD, GREEN_POD = ip_address("10.132.0.6"), ip_address("10.132.0.7")
OUTSIDE, OUTSIDE6 = ip_address("203.0.113.9"), ip_address("2001:db8:113::9")
BLUE_HOP, BLUE_HOP6 = ip_address("192.168.99.13"), ip_address("fd99::13")
BLUE_IP, BLUE_IP6 = ip_address("192.168.55.113"), ip_address("fd55::113")
ROUTER, NODE1 = ip_address("192.168.55.1"), ip_address("192.168.99.21")


def gateway(intent: Intent = CLUSTER, facts: Facts = MACHINE) -> World:
    """Return the world in which all is as wanted."""
    return world_of_desired(desired(intent, facts), facts)


def without(gone: Callable[[Resource], bool], intent: Intent = CLUSTER, facts: Facts = MACHINE) -> World:
    """Return the world of a reading that lacks some of what is wanted."""
    wanted: Desired = desired(intent, facts)
    return world_of_actual(frozenset(r for r in wanted.wants if not gone(r)), facts, DIGEST, wanted.wants)


def in_set(name: str) -> Callable[[Resource], bool]:
    return lambda resource: isinstance(resource, Element) and resource.set == name


def packet(source: Address = BLUE_POD, destination: Address = OUTSIDE, incoming: LinkName = ENP1S0) -> Packet:
    return Packet(source=source, destination=destination, incoming=incoming, port=443)


def from_blue(world: World, source: Address = BLUE_POD, destination: Address = OUTSIDE) -> Trace:
    """Walk a packet that a node sends to ns-blue's next hop."""
    return arrive_by(world, packet(source, destination), BLUE_HOP if source.version == 4 else BLUE_HOP6)


def places(trace: Trace) -> list[str]:
    return [step.place.value for step in trace.steps]


def test_a_tenants_packet_takes_the_kernels_steps_in_order_and_leaves_as_the_tenant() -> None:
    trace = from_blue(gateway())

    assert places(trace) == ["arrives", "identity", "route", "gate", "gate", "snat", "guard", "leaves"]
    assert (trace.disposition, trace.leaves_as, trace.link, trace.via) == (
        Disposition.LEAVES,
        BLUE_IP,
        ENP7S0,
        ROUTER,
    )
    assert trace.certain
    assert not trace.untranslated


def test_every_step_of_ours_carries_the_reason_of_the_plan_and_the_object_that_asked_for_it() -> None:
    trace = from_blue(gateway())
    reasons = {step.place: step.because for step in trace.steps if step.because}
    assert reasons[Place.IDENTITY].text.endswith("is ns-blue's")
    assert reasons[Place.SNAT].cites == ("EgressTenant/ns-blue",)
    assert {step.resource for step in trace.steps if step.because} <= desired(CLUSTER).wants.keys()


def test_the_answer_comes_back_to_the_node_by_its_return_route_which_wins_over_the_default_route() -> None:
    reply = from_blue(gateway()).reply
    assert reply is not None
    assert (reply.returns, reply.link, reply.via) == (True, ENP1S0, NODE1)
    route = next(step for step in reply.steps if step.place is Place.ROUTE)
    assert [str(lost) for lost in route.over] == ["0.0.0.0/0 via 192.168.55.1 dev enp7s0"]


def test_ipv6_is_walked_alike() -> None:
    trace = from_blue(gateway(), BLUE_POD6, OUTSIDE6)
    assert (trace.disposition, trace.leaves_as, trace.via) == (Disposition.LEAVES, BLUE_IP6, ip_address("fd55::1"))
    assert trace.reply is not None
    assert trace.reply.via == ip_address("fd99::21")


def test_a_mark_that_somebody_else_put_on_the_packet_is_worth_nothing_on_an_inner_link() -> None:
    marked = replace(packet(), mark=Mark(0x200))
    assert walk(gateway(), marked).disposition is Disposition.REJECTED


def test_stale_arp_sends_the_packet_to_the_nic_itself_and_it_is_rejected_there() -> None:
    trace = walk(gateway(), packet(incoming=ENP1S0))
    assert (trace.disposition, trace.mark) == (Disposition.REJECTED, STRANGER)
    assert trace.decided_by is not None
    assert trace.decided_by.place is Place.IDENTITY


def test_a_pod_that_is_told_by_its_source_may_come_by_the_nic() -> None:
    trace = walk(gateway(replace(CLUSTER, tenants=(BLUE, RED, GREEN_BY_SOURCE))), packet(GREEN_POD))
    assert trace.leaves_as == ip_address("192.168.55.120")
    assert trace.steps[1].because is not None
    assert trace.steps[1].because.text == "ns-green/app-0 is selected by ns-green"


def test_a_source_outside_every_known_pod_subnet_may_not_use_a_tenants_next_hop() -> None:
    trace = from_blue(gateway(), ip_address("10.135.9.9"))
    assert trace.disposition is Disposition.REJECTED
    assert "no pod of a known node" in trace.reason


def test_another_tenants_pod_may_not_use_a_next_hop_that_checks_its_pods() -> None:
    strict = replace(CLUSTER, tenants=(replace(BLUE, source_check=SourceCheck.PODS), RED))
    assert from_blue(gateway(strict)).disposition is Disposition.LEAVES
    assert from_blue(gateway(strict), RED_POD).disposition is Disposition.REJECTED


def test_a_destination_of_its_own_gives_its_own_egress_ip() -> None:
    rule = DestinationRule(cidrs=(ip_network("198.51.100.0/24"),), egress_ips=(ip_address("192.168.55.115"),))
    world = gateway(replace(CLUSTER, tenants=(replace(BLUE, destinations=(rule,)), RED)))
    assert from_blue(world, destination=ip_address("198.51.100.7")).leaves_as == ip_address("192.168.55.115")
    assert from_blue(world).leaves_as == BLUE_IP


def test_of_several_egress_ips_a_source_always_gets_the_same_and_all_are_used() -> None:
    ips = tuple(map(ip_address, ("192.168.55.113", "192.168.55.115", "192.168.55.116")))
    world = gateway(replace(CLUSTER, tenants=(replace(BLUE, egress_ips=ips), RED)))
    seen = [from_blue(world, ip_address(f"10.132.0.{host}")).leaves_as for host in range(5, 60)]
    again = [from_blue(world, ip_address(f"10.132.0.{host}")).leaves_as for host in range(5, 60)]
    assert seen == again
    assert set(seen) == set(ips)


def test_a_destination_behind_an_inner_link_is_refused_unless_it_is_listed() -> None:
    lan = Route(dst=ip_network("192.168.99.0/24"), hop=Via(address=ip_address("192.168.99.1"), link=ENP1S0))
    facts = replace(MACHINE, routes=MACHINE.routes | {lan})
    api = ip_address("192.168.99.5")
    assert from_blue(gateway(CLUSTER, facts), destination=api).disposition is Disposition.REJECTED

    listed = InternalDestination(cidr=ip_network("192.168.99.5/32"), interface=ENP1S0)
    intent = replace(CLUSTER, gateways=(replace(GATEWAY, internal_destinations=(listed,)),))
    trace = from_blue(gateway(intent, facts), destination=api)
    assert (trace.disposition, trace.leaves_as, trace.link) == (Disposition.INTERNAL, BLUE_POD, ENP1S0)


def test_a_default_route_by_the_inner_nic_rejects_instead_of_leaking() -> None:
    wrong = Route(dst=ip_network("0.0.0.0/0"), hop=Via(address=ip_address("192.168.99.1"), link=ENP1S0))
    trace = from_blue(gateway(CLUSTER, replace(MACHINE, routes=frozenset({wrong}))))
    assert trace.disposition is Disposition.REJECTED
    assert "lies behind the inner link enp1s0" in trace.reason


def test_without_a_default_route_there_is_no_way() -> None:
    assert from_blue(gateway(CLUSTER, replace(MACHINE, routes=frozenset()))).disposition is Disposition.NO_ROUTE


@pytest.mark.parametrize(
    ("allowed", "disposition"),
    [((), Disposition.REJECTED), ((InboundAllowance(Protocol.TCP, 443),), Disposition.LOCAL)],
)
def test_new_flows_from_outside_to_an_egress_ip_are_refused_unless_allowed(
    allowed: tuple[InboundAllowance, ...], disposition: Disposition
) -> None:
    blue: EgressTenant = replace(BLUE, allow_inbound=allowed)
    trace = walk(gateway(replace(CLUSTER, tenants=(blue,))), packet(OUTSIDE, BLUE_IP, ENP7S0))
    assert trace.disposition is disposition


def test_new_flows_from_outside_to_a_pod_are_dropped_although_there_is_a_route_to_it() -> None:
    trace = walk(gateway(), packet(OUTSIDE, BLUE_POD, ENP7S0))
    assert trace.disposition is Disposition.DROPPED
    assert trace.decided_by is not None
    assert trace.decided_by.place is Place.GATE


def test_the_machine_itself_is_reached_from_anywhere_and_that_is_told_apart() -> None:
    assert from_blue(gateway(), destination=ip_address("192.168.99.12")).disposition is Disposition.LOCAL


def test_a_bypassed_machine_passes_as_it_is() -> None:
    intent = replace(CLUSTER, gateways=(replace(GATEWAY, bypass=(ip_network("192.168.98.0/24"),)),))
    trace = walk(gateway(intent), packet(ip_address("192.168.98.7")))
    assert (trace.disposition, trace.leaves_as, trace.untranslated) == (
        Disposition.LEAVES,
        ip_address("192.168.98.7"),
        True,
    )


def test_a_flushed_ruleset_leaves_policy_routing_to_refuse() -> None:
    trace = from_blue(without(lambda resource: isinstance(resource, Table)))
    assert trace.disposition is Disposition.REJECTED
    assert trace.decided_by is not None
    assert isinstance(trace.decided_by.resource, Rule)
    assert "the table is missing" in trace.reason


def test_without_table_and_policy_rules_a_pod_would_leave_untranslated_and_the_trace_says_so() -> None:
    trace = from_blue(without(lambda resource: isinstance(resource, Table | Rule)))
    assert (trace.disposition, trace.leaves_as, trace.untranslated) == (Disposition.LEAVES, BLUE_POD, True)


def test_an_edited_table_makes_the_walk_unsure() -> None:
    edited = frozenset(Table("edited") if isinstance(r, Table) else r for r in desired(CLUSTER).wants)
    trace = from_blue(world_of_actual(edited, MACHINE, DIGEST))
    assert not trace.certain
    assert [step.verdict for step in trace.steps].count(Verdict.UNSURE) == 1


@pytest.mark.parametrize(
    ("gone", "place"),
    [("id_link", Place.IDENTITY), ("snat4", Place.GUARD), ("own4", Place.GUARD)],
)
def test_a_missing_element_stops_the_packet_and_never_opens_a_way(gone: str, place: Place) -> None:
    trace = from_blue(without(in_set(gone)))
    assert trace.disposition in (Disposition.REJECTED, Disposition.DROPPED)
    assert trace.decided_by is not None
    assert trace.decided_by.place is place


def test_a_missing_tenant_link_leaves_the_next_hop_without_answer() -> None:
    trace = from_blue(without(lambda resource: isinstance(resource, TenantLink | LinkAddress)))
    assert trace.disposition is Disposition.NOT_RECEIVED
    assert trace.reason == "nobody here answers for the next hop 192.168.99.13"


@pytest.mark.parametrize("fault", ["down", "ARP is off; ipv4/rp_filter is 1"])
def test_a_tenant_link_that_is_down_or_deaf_is_as_good_as_none(fault: str) -> None:
    wanted = desired(CLUSTER).wants
    faulty = frozenset(replace(r, fault=fault) if isinstance(r, TenantLink) else r for r in wanted)
    assert from_blue(world_of_actual(faulty, MACHINE, DIGEST)).disposition is Disposition.NOT_RECEIVED


def test_a_tenant_link_that_does_not_forward_drops_without_a_word() -> None:
    wanted = desired(CLUSTER).wants
    faulty = frozenset(replace(r, fault="ipv4/forwarding is 0") if isinstance(r, TenantLink) else r for r in wanted)
    trace = from_blue(world_of_actual(faulty, MACHINE, DIGEST))
    assert trace.disposition is Disposition.DROPPED
    assert "forwarding is off" in trace.reason


def test_ipv6_needs_the_one_switch_for_all_links() -> None:
    off = without(
        lambda r: getattr(r, "setting", None) is Setting.FORWARDING6,
        facts=replace(MACHINE, settings={**MACHINE.settings, (ALL_LINKS, Setting.FORWARDING6): 0}),
    )
    assert from_blue(off, BLUE_POD6, OUTSIDE6).disposition is Disposition.DROPPED
    assert from_blue(off).disposition is Disposition.LEAVES


def test_an_egress_ip_that_is_on_no_link_leaves_but_its_answers_stop_coming() -> None:
    world = without(lambda r: isinstance(r, LinkAddress) and r.address == BLUE_IP)
    trace = from_blue(world)
    assert trace.disposition is Disposition.LEAVES
    assert trace.reply is not None
    assert not trace.reply.returns
    assert "no link has 192.168.55.113" in trace.reply.reason


def test_without_its_return_route_the_answer_goes_back_out_and_is_dropped() -> None:
    world = without(lambda r: isinstance(r, Route) and r.dst == ip_network("10.132.0.0/24"))
    reply = from_blue(world).reply
    assert reply is not None
    assert not reply.returns
    assert "leads back out by enp7s0" in reply.reason


@pytest.mark.parametrize("strength", [0, 1, 2])
def test_answers_pass_the_reverse_path_filter_of_the_uplink_in_every_mode(strength: int) -> None:
    settings = {**MACHINE.settings, (ENP7S0, Setting.RP_FILTER): strength}
    trace = from_blue(gateway(CLUSTER, replace(MACHINE, settings=settings)))
    assert trace.reply is not None
    assert trace.reply.returns


@pytest.mark.parametrize("strength", [1, 2])
def test_without_src_valid_mark_the_reverse_path_filter_kills_every_answer(strength: int) -> None:
    settings = {**MACHINE.settings, (ENP7S0, Setting.RP_FILTER): strength}
    world = without(
        lambda r: getattr(r, "setting", None) is Setting.SRC_VALID_MARK, facts=replace(MACHINE, settings=settings)
    )
    trace = from_blue(world)
    assert trace.disposition is Disposition.LEAVES
    assert trace.reply is not None
    assert not trace.reply.returns
    assert "rp_filter" in trace.reply.reason


def test_a_strict_inner_nic_drops_pods_to_which_the_way_back_is_by_another_link() -> None:
    elsewhere = Route(dst=ip_network("10.132.0.0/24"), hop=Via(address=ROUTER, link=ENP7S0), metric=1)
    settings = {**MACHINE.settings, (ALL_LINKS, Setting.RP_FILTER): 1}
    facts = replace(MACHINE, routes=MACHINE.routes | {elsewhere}, settings=settings)
    loose = replace(CLUSTER, tenants=(GREEN_BY_SOURCE,))
    strict = without(lambda r: getattr(r, "setting", None) is Setting.RP_FILTER, loose, facts)

    assert walk(gateway(loose, facts), packet(GREEN_POD)).disposition is Disposition.LEAVES
    trace = walk(strict, packet(GREEN_POD))

    assert trace.disposition is Disposition.DROPPED
    assert "rp_filter 1 on enp1s0 is strict" in trace.reason


def test_rules_are_tried_by_priority_and_a_foreign_one_before_ours_is_shown() -> None:
    detour = Rule(priority=50, version=4, src=ip_network("10.132.0.0/16"), action=Discard.BLACKHOLE)
    trace = from_blue(gateway(CLUSTER, replace(MACHINE, rules=frozenset({detour}))))
    assert trace.disposition is Disposition.DROPPED
    assert trace.decided_by is not None
    assert (trace.decided_by.place, trace.decided_by.resource) == (Place.RULE, detour)


def test_a_rule_into_a_table_that_was_not_read_makes_the_walk_unsure() -> None:
    detour = Rule(priority=50, version=4, action=TableId(77))
    trace = from_blue(gateway(CLUSTER, replace(MACHINE, rules=frozenset({detour}))))
    assert trace.disposition is Disposition.LEAVES
    assert not trace.certain


def test_the_lowest_metric_wins_among_equal_prefixes_and_a_link_that_is_down_loses_its_routes() -> None:
    first = Via(address=ip_address("192.168.55.2"), link=ENP7S0)
    second = Via(address=ip_address("192.168.55.3"), link=ENP7S0)
    default = ip_network("0.0.0.0/0")
    routes = frozenset({Route(dst=default, hop=first, metric=20), Route(dst=default, hop=second, metric=10)})
    assert from_blue(gateway(CLUSTER, replace(MACHINE, routes=routes))).via == second.address
    down = {**MACHINE.links, ENP7S0: replace(MACHINE.links[ENP7S0], up=False)}
    assert from_blue(gateway(CLUSTER, replace(MACHINE, links=down))).disposition is Disposition.NO_ROUTE


def test_two_legs_of_one_route_make_the_walk_unsure_which_is_taken() -> None:
    default = ip_network("0.0.0.0/0")
    legs = frozenset(
        Route(dst=default, hop=Via(address=ip_address(f"192.168.55.{host}"), link=ENP7S0)) for host in (1, 2)
    )
    assert not from_blue(gateway(CLUSTER, replace(MACHINE, routes=legs))).certain


@pytest.mark.parametrize("destination", ["224.0.0.5", "127.0.0.1", "0.0.0.0"])
def test_what_no_router_forwards_is_dropped(destination: str) -> None:
    assert from_blue(gateway(), destination=ip_address(destination)).disposition is Disposition.DROPPED


def test_an_address_of_the_machine_is_no_source_on_a_wire() -> None:
    host = next(have for have in MACHINE.addresses if have.address.version == 4)
    world = gateway(replace(CLUSTER, gateways=(replace(GATEWAY, bypass=(ip_network("192.168.0.0/16"),)),)))
    trace = walk(world, packet(host.address))
    assert trace.disposition is Disposition.DROPPED


def test_two_walks_that_part_say_where() -> None:
    wanted, actual = from_blue(gateway()), from_blue(without(in_set("snat4")))
    assert not wanted.same_way(actual)
    assert wanted.parts_from(actual).startswith("wanted (snat): the source becomes 192.168.55.113; found (snat): ")
    assert wanted.parts_from(from_blue(gateway())) == ""


def test_selectors_do_not_matter_to_a_walk() -> None:
    nobody = replace(BLUE, namespace_selector=LabelSelector())
    assert from_blue(gateway(replace(CLUSTER, tenants=(nobody, RED)))).leaves_as == BLUE_IP
