"""ns-blue is taken over from the script's link macvlan-ns-blue, which has the next hop 192.168.99.13.

Nodes still know that link's MAC. What the plan does with it, step by step.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

from outgate.model.ledger import Adoption, Ledger
from outgate.model.net import HostAddress, Link, LinkAddress, LinkName, Mac
from outgate.model.ruleset import Element
from outgate.model.state import Facts, Moment, Snapshot
from outgate.plan.adopt import QUIET_S, awaited, handed_over, settle_adoption
from outgate.plan.gateway import plan
from tests.stories.cluster import CLUSTER, DIGEST, ENP1S0, MACHINE, NOW_S, probed

OLD = LinkName("macvlan-ns-blue")
NEXT_HOP = ip_address("192.168.99.13")
OLD_LINK = Link(name=OLD, index=9, kind="macvlan", mac=Mac("ce:4a:63:57:b2:78"))
SCRIPTED = replace(MACHINE, links=MappingProxyType({**MACHINE.links, OLD: OLD_LINK}))


def ledger(**of_adoption: object) -> Ledger:
    adoption = replace(Adoption(tenant="ns-blue", parent=ENP1S0), **of_adoption)  # type: ignore[arg-type]
    return probed(Ledger(adopting=MappingProxyType({OLD: adoption})), CLUSTER, SCRIPTED)


def looked_at(known: Ledger, packets: int | None, *, after_s: float = 0.0, facts: Facts = SCRIPTED) -> Ledger:
    received = MappingProxyType({OLD: packets} if packets is not None else {})
    return settle_adoption(facts, known, Moment(now_s=NOW_S + after_s, received=received))


def elements(known: Ledger, facts: Facts = SCRIPTED) -> set[str]:
    wanted = plan(Snapshot(intent=CLUSTER, facts=facts, ledger=known, gateway=""), DIGEST).wants
    return {resource.set for resource in wanted if isinstance(resource, Element) and resource.key[0] == OLD}


def test_what_comes_by_the_old_link_is_the_tenants_as_what_comes_by_the_new_one() -> None:
    assert elements(ledger()) == {"inner", "id_link"}


def test_the_old_link_itself_is_never_wanted_so_nobody_makes_it_anew() -> None:
    wanted = plan(Snapshot(intent=CLUSTER, facts=SCRIPTED, ledger=ledger(), gateway=""), DIGEST).wants
    assert all(getattr(resource, "name", "") != OLD and getattr(resource, "link", "") != OLD for resource in wanted)


def test_the_old_link_keeps_its_address_until_the_new_one_has_it() -> None:
    known = ledger()
    old, new = (LinkAddress(link=link, address=NEXT_HOP) for link in (OLD, known.tenants["ns-blue"].link))

    assert awaited({old}, known) == {old}
    assert awaited({old, new}, known) == set()


def test_a_link_is_silent_when_nothing_came_for_five_minutes_and_not_before() -> None:
    known = looked_at(ledger(), 100)
    assert looked_at(known, 100, after_s=QUIET_S - 1).adopting[OLD].released is False
    assert looked_at(known, 100, after_s=QUIET_S).adopting[OLD].released is True


def test_a_packet_begins_the_five_minutes_anew() -> None:
    known = looked_at(looked_at(ledger(), 100), 101, after_s=QUIET_S - 1)
    assert looked_at(known, 101, after_s=QUIET_S + 1).adopting[OLD].released is False


def test_a_link_whose_packets_nobody_counted_is_not_silent() -> None:
    known = looked_at(ledger(), 100)
    assert looked_at(known, None, after_s=10 * QUIET_S) == known


def test_a_released_link_that_is_used_again_before_it_is_dropped_is_the_tenants_again() -> None:
    known = looked_at(ledger(packets=100, released=True), 101)
    assert elements(known) == {"inner", "id_link"}


def test_a_silent_link_is_dropped_with_its_elements_unless_its_address_is_still_awaited() -> None:
    known = ledger(packets=100, quiet_since_s=NOW_S, released=True)
    old = LinkAddress(link=OLD, address=NEXT_HOP)

    (dropped,) = handed_over(SCRIPTED, known, set())

    assert getattr(dropped, "name", "") == OLD
    assert elements(known) == set()
    assert handed_over(SCRIPTED, known, {old}) == set()


def test_an_old_link_goes_when_outgate_leaves_the_machine_for_nothing_would_guard_it() -> None:
    assert len(handed_over(SCRIPTED, ledger(), set(), leaving=True)) == 1


def test_the_record_of_a_link_that_is_gone_is_closed() -> None:
    assert looked_at(ledger(), 100, facts=MACHINE).adopting == {}


def test_another_kind_of_link_that_got_the_name_is_somebody_elses() -> None:
    other = replace(SCRIPTED, links=MappingProxyType({**MACHINE.links, OLD: replace(OLD_LINK, kind="veth")}))

    assert elements(ledger(released=False), other) == set()
    assert handed_over(other, ledger(released=True), set()) == set()


def test_when_the_tenant_goes_its_old_link_goes_at_once() -> None:
    known = replace(ledger(), tenants=MappingProxyType({}))
    assert looked_at(known, 100).adopting[OLD].released is True


def test_an_address_of_the_old_link_that_nobody_handed_over_is_left_alone() -> None:
    theirs = HostAddress(link=OLD, address=NEXT_HOP, prefix_len=32)
    facts = replace(SCRIPTED, addresses=SCRIPTED.addresses | {theirs})
    wanted = plan(Snapshot(intent=CLUSTER, facts=facts, ledger=ledger(), gateway=""), DIGEST).wants
    assert LinkAddress(link=OLD, address=NEXT_HOP) not in wanted
