"""An engineer reads a plan before saying yes to it: what comes, what changes, what goes, for whom, and whom it hurts.

pods 10.132.0.0/14 and fd01::/48, nodes 192.168.99.0/24 and fd99::/64, egress 192.168.55.0/24 and fd55::/64,
outside 203.0.113.0/24.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

from outgate.compare.changes import changes
from outgate.model.flow import Endpoints, Flow
from outgate.model.intent import EgressTenant, Intent, NextHopIdentity
from outgate.model.ledger import Ledger
from outgate.model.net import Answered, LinkName, TenantLink
from outgate.model.ruleset import Element
from outgate.model.state import Moment, Resource, Snapshot
from outgate.model.why import Because
from outgate.plan.allocate import allocate
from outgate.plan.gateway import plan
from outgate.report.layout import Style
from outgate.report.planned import Planned, Sign, changes_of, planned_document, planned_text
from tests.stories.cluster import (
    BLUE,
    CLUSTER,
    DIGEST,
    GATEWAY,
    MACHINE,
    N1,
    NOW_S,
    RED,
    desired,
    in_namespace,
    probed,
)

FLOW = Flow(
    protocol=6,
    original=Endpoints(src=ip_address("10.132.0.6"), src_port=40000, dst=ip_address("203.0.113.9"), dst_port=443),
    reply=Endpoints(src=ip_address("203.0.113.9"), src_port=443, dst=ip_address("192.168.55.114"), dst_port=40000),
)
LOST = Because("flow/lost-address", "its tenant may no longer leave as 192.168.55.114")

A_DAY = """\
EgressTenant/ns-blue
  +  address  192.168.55.119/32 on enp7s0                            replies to ns-blue come to 192.168.55.119
  ~  nft      snat4 { 0x100 : 192.168.55.119 } (was 192.168.55.113)  ns-blue leaves as 192.168.55.119
  +  nft      2 elements with it: egress4, own4
EgressTenant/ns-red
  -  address  192.168.99.14/32 on og-b23872ac                            no object asks for it any more
  -  link     og-b23872ac (outgate-ns-red) on enp1s0, 02:e6:db:65:21:e0
  -  nft      id_link { og-b23872ac : 0x200 }
  -  nft      snat4 { 0x200 : 192.168.55.114 }
  -  address  192.168.55.114/32 on enp7s0
  -  nft      8 elements with it: check_nodes, egress4, inner, opened, own4, received, sent, tenant_of
objects that are gone
  -  route  10.132.1.0/24 via 192.168.99.22 dev enp1s0 metric 111  no node has this subnet here any more
  -  route  fd01:0:0:2::/64 via fd99::22 dev enp1s0 metric 111
  -  nft    2 elements with it: nodes4, nodes6

not touched: 2 routes, 4 addresses of others
3 to add, 1 to change, 17 to delete"""


def tenant(number: int) -> EgressTenant:
    return EgressTenant(
        name=f"t{number:04}",
        namespace_selector=in_namespace(f"t{number:04}"),
        identity=NextHopIdentity(addresses=(ip_address("10.8.0.0") + number,)),
        egress_ips=(ip_address("10.9.0.0") + number,),
    )


def step(before: Intent, after: Intent) -> Planned:
    """Return the plan that leads from one intent, in force, to another one."""
    ledger = probed(Ledger(), before)
    have = frozenset(desired(before).wants)
    wanted = desired(after, MACHINE, ledger)
    return Planned(
        gateway="gw1",
        changes=changes(wanted.wants, have),
        desired=wanted,
        actual=have,
        facts=MACHINE,
        before=ledger,
    )


def test_a_tenant_goes_a_node_goes_and_an_egress_ip_changes() -> None:
    blue = replace(BLUE, egress_ips=(ip_address("192.168.55.119"), ip_address("fd55::113")))
    planned = step(CLUSTER, replace(CLUSTER, tenants=(blue,), nodes=(N1,)))

    assert planned_text(planned, Style(width=110)) == A_DAY


def test_a_plan_without_changes_says_so_in_one_line() -> None:
    assert planned_text(step(CLUSTER, CLUSTER)).splitlines()[-1] == "nothing to change"


def test_flows_that_will_end_are_named_with_their_reason_and_the_rest_is_counted() -> None:
    moved = replace(RED, egress_ips=(ip_address("192.168.55.119"),))
    planned = replace(step(CLUSTER, replace(CLUSTER, tenants=(BLUE, moved))), ends=((FLOW, LOST),), ends_unlisted=2)

    text = planned_text(planned)

    assert "! 3 live flows will end" in text
    assert (
        "    tcp 10.132.0.6:40000 to 203.0.113.9:443 as 192.168.55.114:40000: "
        "its tenant may no longer leave as 192.168.55.114" in text
    )
    assert "    and 2 more" in text
    assert text.splitlines()[-1] == "3 to add, 1 to change"


def test_addresses_are_probed_before_they_are_used_and_the_plan_says_which() -> None:
    snapshot = Snapshot(intent=CLUSTER, facts=MACHINE, ledger=Ledger(), gateway="")
    ledger, _, _ = allocate(snapshot, GATEWAY, Moment(now_s=NOW_S))
    wanted = plan(replace(snapshot, ledger=ledger), DIGEST)
    text = planned_text(Planned(gateway="gw1", changes=changes(wanted.wants, wanted.wants.keys()), desired=wanted))
    assert "  ?  probe  192.168.55.114 on enp7s0" in text
    assert text.splitlines()[-1] == "nothing to change; 6 to probe first"


def test_what_is_not_ours_is_counted_and_not_touched() -> None:
    assert "not touched: 2 routes, 4 addresses of others" in planned_text(step(CLUSTER, CLUSTER))


def test_a_faulty_link_is_a_change_that_shows_the_fault() -> None:
    planned = step(CLUSTER, CLUSTER)
    link = next(r for r in planned.actual if isinstance(r, TenantLink) and r.alternative == "outgate-ns-red")
    have = (planned.actual - {link}) | {replace(link, fault="down")}
    planned = replace(planned, actual=have, changes=changes(planned.desired.wants, have))

    (change,) = changes_of(planned)

    assert (change.sign, change.owner) == (Sign.CHANGE, "EgressTenant/ns-red")
    assert "at fault: down" in planned_text(planned)


def test_a_plan_for_hundreds_of_tenants_can_be_read_and_json_has_them_all() -> None:
    tenants = tuple(tenant(number) for number in range(400))
    planned = step(replace(CLUSTER, tenants=()), replace(CLUSTER, tenants=tenants))
    text = planned_text(planned)
    assert len(text.splitlines()) < 120
    assert "more objects" in text

    plain = planned_document(planned)

    assert isinstance(plain["changes"], list)
    assert len(plain["changes"]) == len(planned.changes.make)
    assert json.loads(json.dumps(plain)) == plain


def test_the_document_names_action_owner_and_reason() -> None:
    plain = planned_document(step(CLUSTER, replace(CLUSTER, tenants=(BLUE,))))
    assert (plain["apiVersion"], plain["kind"]) == ("outgate.io/v1alpha1", "Plan")
    assert plain["summary"] == {"add": 0, "change": 0, "delete": 13}
    assert isinstance(plain["changes"], list)
    first = plain["changes"][0]
    assert isinstance(first, dict)
    assert (first["action"], first["owner"], first["because"]) == ("delete", "EgressTenant/ns-red", None)


def test_a_link_begins_to_answer_before_packets_are_translated_and_ends_after_them() -> None:
    planned = step(CLUSTER, CLUSTER)
    answered = Answered(link=LinkName("enp7s0"), address=ip_address("192.168.55.150"))
    because: dict[Resource, Because] = {answered: Because("own/address", "EgressIP/blue is here")}
    wanted = replace(planned.desired, wants={**planned.desired.wants, **because})

    made = changes(wanted.wants, ())
    dropped = changes((), wanted.wants)

    assert rank_of(made.make, answered) < min(rank_of(made.make, one) for one in made.make if isinstance(one, Element))
    assert rank_of(dropped.drop, answered) > max(
        rank_of(dropped.drop, one) for one in dropped.drop if isinstance(one, Element)
    )
    text = planned_text(replace(planned, desired=wanted, changes=changes(wanted.wants, planned.actual)))
    assert "  +  answer  enp7s0 answers for 192.168.55.150  EgressIP/blue is here" in text


def rank_of(ordered: Sequence[Resource], one: Resource) -> int:
    return ordered.index(one)
