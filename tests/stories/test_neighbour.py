"""A node has asked on the LAN who has 192.168.99.150, which is EgressIP prod's, on n1.

n1 is 192.168.99.21 and has MAC ...:15, n2 is .22 and has MAC ...:16; n2 asks, if nothing else is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from outgate.model.errors import IntentError
from outgate.model.host_table import HostTables
from outgate.model.intent import EgressIP, Intent, Node
from outgate.model.neighbour import Heard, Neighbour
from outgate.model.net import Address, LinkName, Mac
from outgate.model.nics import HostCidr
from outgate.model.rivals import CloudAddress
from outgate.model.selector import LabelSelector
from outgate.plan.egress_ip import BRIDGE
from outgate.plan.neighbour import judge, question
from outgate.report.neighbour import neighbour_document, neighbour_text

EGRESS, N1, N2 = (ip_address(f"192.168.99.{last}") for last in (150, 21, 22))
MAC1, MAC2, STRANGER = Mac("0a:58:c0:a8:63:15"), Mac("0a:58:c0:a8:63:16"), Mac("02:aa:00:00:00:01")
LAN = ip_network("192.168.99.0/24")


def node(name: str, address: Address) -> Node:
    return Node(name=name, primary=(LAN,), host_cidrs=(HostCidr(address, LAN),))


PROD = EgressIP(
    name="prod",
    egress_ips=(EGRESS,),
    namespace_selector=LabelSelector((("name", "shop"),)),
    assigned=(("n1", EGRESS),),
)
INTENT = Intent(nodes=(node("n1", N1), node("n2", N2)), egress_ips=(PROD,))
FREE = replace(INTENT, egress_ips=(replace(PROD, assigned=()),))
ON_N2: Mapping[Address, Mac] = {N1: MAC1}
ON_N1: Mapping[Address, Mac] = {N2: MAC2}


def heard(*macs: Mac, on: str = "n2", intent: Intent = INTENT, cloud: tuple[CloudAddress, ...] = ()) -> Neighbour:
    known = ON_N2 if on == "n2" else ON_N1
    answers = {EGRESS: frozenset(macs), **{address: frozenset({mac}) for address, mac in known.items()}}
    asked = Heard(node=on, link=BRIDGE, own=MAC2 if on == "n2" else MAC1, answers=answers)
    return judge(EGRESS, intent, asked, cloud)


@pytest.mark.parametrize(
    ("macs", "on", "intent", "reasons"),
    [
        ((MAC1,), "n2", INTENT, []),
        ((), "n2", INTENT, ["NobodyAnswers"]),
        ((MAC1, STRANGER), "n2", INTENT, ["AnsweredByOther"]),
        ((STRANGER,), "n2", INTENT, ["AnsweredByOther"]),
        ((), "n1", INTENT, []),  # it does not hear itself
        ((MAC2,), "n1", INTENT, ["AnsweredByOther"]),
        ((), "n2", FREE, []),
        ((MAC1,), "n2", FREE, ["AnsweredByOther"]),
    ],
)
def test_the_node_that_has_the_address_answers_alone_or_something_is_amiss(
    macs: tuple[Mac, ...], on: str, intent: Intent, reasons: list[str]
) -> None:
    assert [one.reason for one in heard(*macs, on=on, intent=intent).findings] == reasons


def test_who_answers_wrongly_is_named_with_mac_and_node() -> None:
    moved = replace(INTENT, egress_ips=(replace(PROD, assigned=(("n2", EGRESS),)),))

    (finding,) = heard(MAC1, on="n2", intent=moved).findings
    assert "0a:58:c0:a8:63:15 (n1) answers for 192.168.99.150 on br-ex, which is assigned to n2" in finding.text
    (finding,) = heard(STRANGER, intent=FREE).findings
    assert "02:aa:00:00:00:01 (no node) answers for 192.168.99.150 on br-ex, which no node has" in finding.text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (CloudAddress(address=EGRESS, wanted="n1", node="n1", assigned=True), ""),
        (
            CloudAddress(address=EGRESS, wanted="n1", assigned=False, message="PrivateIpAddressLimitExceeded"),
            "asked for n1, on none, refused: PrivateIpAddressLimitExceeded",
        ),
        (CloudAddress(address=EGRESS, wanted="n2", node="n2", assigned=True), "asked for n2, on n2, assigned"),
        (CloudAddress(address=N1, wanted="n1", node="n1", assigned=True), "the cloud was never asked for the address"),
    ],
)
def test_what_the_cloud_says_is_held_against_the_assignment(said: CloudAddress, text: str) -> None:
    findings = heard(MAC1, cloud=(said,)).findings
    assert [one.reason for one in findings] == (["CloudDisagrees"] if text else [])
    assert all(text in one.text for one in findings)


def test_the_question_is_asked_on_the_nic_of_the_address_for_it_and_all_nodes() -> None:
    host = HostTables(links=MappingProxyType({}), routes=frozenset(), rules=frozenset())

    asked = question(EGRESS, INTENT, "n2", host)
    assert (asked.link, asked.addresses) == (LinkName("br-ex"), (EGRESS, N1, N2))
    with pytest.raises(IntentError, match="there is no Node 'laptop'"):
        question(EGRESS, INTENT, "laptop", host)
    with pytest.raises(IntentError, match=r"no NIC of n2 is in a network that holds 198\.51\.100\.1"):
        question(ip_address("198.51.100.1"), INTENT, "n2", host)


def test_the_text_says_whose_it_is_who_answers_and_what_a_switch_sees() -> None:
    text = neighbour_text(heard(MAC1))

    assert text.startswith("192.168.99.150 is EgressIP/prod's, on n1\n")
    assert "  answers  0a:58:c0:a8:63:15 (n1)\n" in text
    assert "what counts MACs takes it" in text
    assert "nobody but n1 itself, which does not hear its own question" in neighbour_text(heard(on="n1"))
    assert json.loads(json.dumps(neighbour_document(heard(MAC1))))["neighbour"]["answers"] == [[MAC1, "n1"]]
