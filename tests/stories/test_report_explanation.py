"""The answers to "why?" are read at three in the morning: by whoever is on call, and by scripts.

pods 10.132.0.0/14 and fd01::/48, nodes 192.168.99.0/24, egress 192.168.55.0/24, outside 203.0.113.0/24.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

from outgate.model.intent import DestinationRule, Intent
from outgate.model.ledger import Ledger
from outgate.model.ruleset import Element, Table
from outgate.model.state import Resource, Snapshot
from outgate.report.explanation import explanation_document, explanation_text
from outgate.report.layout import Style
from outgate.report.trace import trace_document, trace_text
from outgate.trace.explain import Explanation, explain
from outgate.trace.question import parse_question
from outgate.trace.world import world_of_actual
from tests.stories.cluster import BLUE, CLUSTER, DIGEST, MACHINE, RED, desired, probed

WIDE = Style(width=110)

IT_LEAVES = """\
ns-blue/app-0 (10.132.0.5, node n1) to 203.0.113.9: leaves gw1 by enp7s0 as 192.168.55.113

      comes     by AdminPolicyBasedExternalRoute/blue: next hop 192.168.99.13, the next hop of
                EgressTenant/ns-blue
      tenant    ns-blue
  1   arrives   by og-4eb88aa9 (02:e6:91:eb:a4:34 on enp1s0): nodes send ns-blue's traffic to a MAC of its own
                [EgressTenant/ns-blue]
  2   identity  mark 0x100: what enters by og-4eb88aa9 is ns-blue's [EgressTenant/ns-blue]
  3   route     0.0.0.0/0 via 192.168.55.1 dev enp7s0
  4   gate      source check passed: pods of node n1 [Node/n1 k8s.ovn.org/node-subnets]
  5   gate      out by enp7s0: enp7s0 is an uplink [EgressGateway/gw1]
  6   snat      the source becomes 192.168.55.113: ns-blue leaves as 192.168.55.113 [EgressTenant/ns-blue]
  7   guard     passed as 192.168.55.113: ns-blue may leave as 192.168.55.113 [EgressTenant/ns-blue]
  8   leaves    by enp7s0 to 192.168.55.1 as 192.168.55.113
      answers   return by enp1s0 to 192.168.99.21
  9   arrives   by enp7s0: replies to ns-blue come to 192.168.55.113 [EgressTenant/ns-blue]
  10  identity  192.168.55.113 becomes 10.132.0.5 again, mark 0x100
  11  route     10.132.0.0/24 via 192.168.99.21 dev enp1s0 metric 111, over 0.0.0.0/0 via 192.168.55.1 dev
                enp7s0: pods of node n1 are behind it [Node/n1 k8s.ovn.org/node-subnets]
  12  leaves    by enp1s0 to 192.168.99.21
      kernel    agrees: it holds what is wanted"""

THE_TABLE_IS_GONE = """\
ns-blue/app-0 (10.132.0.5, node n1) to 203.0.113.9:443: is rejected by gw1: the table is missing, and `110:
from 10.132.0.0/14 fwmark 0x0/0xffff00 prohibit` refuses the packet. Wanted: leaves gw1 by enp7s0 as
192.168.55.113

      comes     by AdminPolicyBasedExternalRoute/blue: next hop 192.168.99.13, the next hop of
                EgressTenant/ns-blue
      tenant    ns-blue
      kernel    does otherwise than is wanted
                wanted (identity): mark 0x100; found (identity): the table inet outgate is not there: nobody
                is known, nothing is translated
      found     rejected: the table is missing, and `110: from 10.132.0.0/14 fwmark 0x0/0xffff00 prohibit`
                refuses the packet
  1   arrives   by og-4eb88aa9 (02:e6:91:eb:a4:34 on enp1s0): nodes send ns-blue's traffic to a MAC of its own
                [EgressTenant/ns-blue]
  2   identity  the table inet outgate is not there: nobody is known, nothing is translated
  3   rule      the table is missing, and `110: from 10.132.0.0/14 fwmark 0x0/0xffff00 prohibit` refuses the
                packet: an unmarked packet from 10.132.0.0/14 has no tenant and must not leave, even when the
                table is gone [10.132.0.0/14 from Network]
      wanted    leaves by enp7s0 as 192.168.55.113
  1   arrives   by og-4eb88aa9 (02:e6:91:eb:a4:34 on enp1s0): nodes send ns-blue's traffic to a MAC of its own
                [EgressTenant/ns-blue]
  2   identity  mark 0x100: what enters by og-4eb88aa9 is ns-blue's [EgressTenant/ns-blue]
  3   route     0.0.0.0/0 via 192.168.55.1 dev enp7s0
  4   gate      source check passed: pods of node n1 [Node/n1 k8s.ovn.org/node-subnets]
  5   gate      out by enp7s0: enp7s0 is an uplink [EgressGateway/gw1]
  6   snat      the source becomes 192.168.55.113: ns-blue leaves as 192.168.55.113 [EgressTenant/ns-blue]
  7   guard     passed as 192.168.55.113: ns-blue may leave as 192.168.55.113 [EgressTenant/ns-blue]
  8   leaves    by enp7s0 to 192.168.55.1 as 192.168.55.113
      answers   return by enp1s0 to 192.168.99.21
  9   arrives   by enp7s0: replies to ns-blue come to 192.168.55.113 [EgressTenant/ns-blue]
  10  identity  192.168.55.113 becomes 10.132.0.5 again, mark 0x100
  11  route     10.132.0.0/24 via 192.168.99.21 dev enp1s0 metric 111, over 0.0.0.0/0 via 192.168.55.1 dev
                enp7s0: pods of node n1 are behind it [Node/n1 k8s.ovn.org/node-subnets]
  12  leaves    by enp1s0 to 192.168.99.21"""

NOBODYS_POD = """\
ns-green/app-0 (10.132.0.7, node n1) to 203.0.113.9: is not sent to gw1: no AdminPolicyBasedExternalRoute
selects its namespace

  if it came  by enp1s0 all the same: rejected: no tenant names the source 10.132.0.7, and enp1s0 is nobody's
              next hop: refused at once

  not used  EgressTenant/ns-red: namespace ns-green has kubernetes.io/metadata.name=ns-green, the selector
            wants ns-red
  not used  EgressTenant/ns-blue: namespace ns-green has kubernetes.io/metadata.name=ns-green, the selector
            wants ns-blue
  note      this is what is wanted; the kernel was not read"""

REFUSED = """\
ns-red/app-0 (10.132.0.6, node n1) to 203.0.113.9: does not leave: nobody here answers for the next hop
192.168.99.14

     comes    by AdminPolicyBasedExternalRoute/red: next hop 192.168.99.14, the next hop of
              EgressTenant/ns-red
  1  arrives  nobody here answers for the next hop 192.168.99.14
     kernel   agrees: it holds what is wanted

  note  EgressTenant/ns-red is refused (AddressTaken), so its packets go nowhere

  REFUSED  EgressTenant/ns-red AddressTaken
           egress IP 192.168.55.113 is already held by EgressTenant/ns-blue
           fix: give one of them another address"""


def asked(
    *words: str, intent: Intent = CLUSTER, found: Callable[[Resource], bool] | None = lambda _: True
) -> Explanation:
    """Ask on a gateway whose addresses are held; `found` says which wanted resources the kernel still has."""
    snapshot = Snapshot(intent=intent, facts=MACHINE, ledger=probed(Ledger(), intent), gateway="gw1")
    wanted = desired(intent)
    if found is None:
        return explain(snapshot, wanted, parse_question(*words))
    held = frozenset(resource for resource in wanted.wants if found(resource))
    return explain(snapshot, wanted, parse_question(*words), world_of_actual(held, MACHINE, DIGEST))


def no_table(resource: Resource) -> bool:
    return not isinstance(resource, Table)


def greedy() -> Intent:
    return replace(CLUSTER, tenants=(BLUE, replace(RED, egress_ips=BLUE.egress_ips)))


def test_a_packet_that_leaves_is_followed_there_and_back() -> None:
    assert explanation_text(asked("ns-blue/app-0", "203.0.113.9"), WIDE) == IT_LEAVES


def test_where_the_kernel_does_otherwise_both_ways_are_shown_and_what_happens_now_stands_first() -> None:
    assert explanation_text(asked("ns-blue/app-0", "203.0.113.9:443", found=no_table), WIDE) == THE_TABLE_IS_GONE


def test_a_pod_of_no_tenant_is_told_why_not() -> None:
    assert explanation_text(asked("ns-green/app-0", "203.0.113.9", found=None), WIDE) == NOBODYS_POD


def test_a_refused_tenants_pod_is_told_what_to_do() -> None:
    assert explanation_text(asked("ns-red/app-0", "203.0.113.9", intent=greedy()), WIDE) == REFUSED


def test_on_a_narrow_terminal_no_line_is_longer_than_it() -> None:
    for width in (60, 80):
        text = explanation_text(asked("ns-blue/app-0", "203.0.113.9"), Style(width=width))
        assert max(map(len, text.splitlines())) <= width


def test_destinations_that_are_treated_apart_are_written_as_prefixes() -> None:
    rule = DestinationRule(cidrs=(ip_network("203.0.113.0/24"),), egress_ips=(ip_address("192.168.55.115"),))
    text = explanation_text(
        asked("ns-blue/app-0", intent=replace(CLUSTER, tenants=(replace(BLUE, destinations=(rule,)),)))
    )
    assert "except     to 203.0.113.0/24 as 192.168.55.115" in text


def test_the_document_holds_every_step_with_its_reason() -> None:
    plain = explanation_document(asked("ns-blue/app-0", "203.0.113.9"))
    assert json.loads(json.dumps(plain)) == plain
    assert {key: plain[key] for key in ("apiVersion", "kind", "standing", "gateway")} == {
        "apiVersion": "outgate.io/v1alpha1",
        "kind": "Explanation",
        "standing": "fine",
        "gateway": "gw1",
    }
    assert isinstance(plain["answers"], list)
    (answer,) = plain["answers"]
    assert isinstance(answer, dict)
    assert (answer["tenant"], answer["agrees"]) == ("ns-blue", True)
    wanted = answer["wanted"]
    assert isinstance(wanted, dict)
    assert (wanted["disposition"], wanted["leavesAs"], wanted["certain"]) == ("LEAVES", "192.168.55.113", True)
    assert isinstance(wanted["steps"], list)
    step = wanted["steps"][1]
    assert isinstance(step, dict)
    assert step["because"] == {
        "rule": "tenant/identity",
        "text": "what enters by og-4eb88aa9 is ns-blue's",
        "cites": ["EgressTenant/ns-blue"],
    }


def test_a_trace_alone_says_in_its_first_line_how_the_packet_ends() -> None:
    def kept(resource: Resource) -> bool:
        return not (isinstance(resource, Element) and resource.set == "snat4")

    (answer,) = asked("ns-blue/app-0", "203.0.113.9:443", found=kept).answers
    assert answer.actual is not None

    fine, broken = trace_text(answer.wanted), trace_text(answer.wanted, answer.actual)

    assert fine.splitlines()[0] == (
        "10.132.0.5 to 203.0.113.9:443/tcp by og-4eb88aa9: leaves by enp7s0 as 192.168.55.113"
    )
    assert broken.splitlines()[0].startswith(
        "10.132.0.5 to 203.0.113.9:443/tcp by og-4eb88aa9: dropped: 10.132.0.5 is no"
    )
    assert "the source stays" in broken
    assert trace_document(answer.wanted, answer.actual)["agrees"] is False
