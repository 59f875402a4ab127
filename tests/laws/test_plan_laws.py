"""Laws of the plan, for any intent: tenants that want the same, subnets that overlap, nodes without addresses.

What users ask for may contradict itself in any way; what is wanted of the machine may not. The intents are small and
full of collisions; what rounds make of them over time is settled on a machine of paper.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from types import MappingProxyType
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.compare.changes import changes
from outgate.compare.order import FORWARDING
from outgate.control.round import Asked, Decided, decide, settle
from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.intent import (
    ByteQuota,
    DestinationRule,
    EgressGateway,
    EgressPool,
    EgressTenant,
    Identity,
    InnerInterface,
    Intent,
    InternalDestination,
    NextHopIdentity,
    Node,
    NodeSubnet,
    OnChange,
    Pod,
    PoolClaim,
    RateLimit,
    SourceCheck,
    SourceIdentity,
)
from outgate.model.ledger import Holding, Ledger
from outgate.model.net import (
    ALL_LINKS,
    TENANT_MASK,
    Address,
    Link,
    LinkAddress,
    LinkName,
    LinkSetting,
    Prefix,
    Rule,
    Setting,
    Span,
    TenantLink,
)
from outgate.model.ruleset import Element, Table
from outgate.model.state import Changes, Moment, Resource
from outgate.plan.brake import braked
from outgate.plan.guard import covers
from outgate.systems.nft import render
from tests.laws.paper import PaperMachine
from tests.stories.cluster import CLUSTER, ENP1S0, ENP7S0, MACHINE, NETWORK, NOW_S, in_namespace

SOME = settings(max_examples=60, derandomize=True, deadline=None)
FEW = settings(SOME, max_examples=30)  # where each example is a whole life
T = TypeVar("T")

NAMES = ("ns-blue", "ns-green", "ns-grey", "ns-red")
QUARANTINE_S = 60
POOL = EgressPool(
    name="lab",
    ranges=(Span(first=ip_address("192.168.55.113"), last=ip_address("192.168.55.118")),),
    excludes=(Span(first=ip_address("192.168.55.115"), last=ip_address("192.168.55.115")),),
    quarantine_s=QUARANTINE_S,
)
BARE = replace(MACHINE, settings=MappingProxyType({**MACHINE.settings, (ALL_LINKS, Setting.FORWARDING6): 0}))
UNRELATED = EgressTenant(
    name="zz-unrelated",
    identity=NextHopIdentity(addresses=(ip_address("192.168.99.99"), ip_address("fd99::99"))),
    egress_ips=(ip_address("192.168.55.199"), ip_address("fd55::199")),
)


def some(values: Iterable[T], most: int = 2, least: int = 0) -> st.SearchStrategy[tuple[T, ...]]:
    """Some of the values, each once, in any order."""
    return st.lists(st.sampled_from(tuple(values)), min_size=least, max_size=most, unique=True).map(tuple)


HOPS = tuple(ip_address(f"{net}{host}") for host in (13, 14, 15) for net in ("192.168.99.", "fd99::"))
EGRESS = tuple(ip_address(f"{net}{host}") for host in (113, 114, 116) for net in ("192.168.55.", "fd55::"))
BEYOND = tuple(map(ip_network, ("198.51.100.0/24", "198.51.100.128/25", "198.51.0.0/16", "2001:db8:1::/48")))
SOURCES = tuple(map(ip_network, ("172.16.0.0/16", "172.16.1.0/24", "172.16.2.0/23", "fd77::/48", "fd77:0:0:1::/64")))
SUBNETS = tuple(
    map(
        ip_network, ("10.132.0.0/24", "10.132.0.0/23", "10.132.1.0/24", "10.140.0.0/24", "fd01:0:0:1::/64", "fd01::/62")
    )
)
INSIDE = tuple(map(ip_network, ("192.168.99.5/32", "192.168.99.0/28", "fd99::5/128", "fd99::/120")))
PODS = tuple(
    Pod(
        namespace=namespace, name=f"app-{host}", addresses=(ip_address(f"10.132.0.{host}"), ip_address(f"fd01::{host}"))
    )
    for host, namespace in enumerate((*NAMES, *NAMES), start=5)
)
NODE_IPS = tuple(map(ip_address, ("192.168.99.21", "192.168.99.22", "fd99::21", "192.168.99.13")))


@st.composite
def tenants(draw: st.DrawFn) -> EgressTenant:
    """A tenant of few words, so that several of them often want the same."""
    name = draw(st.sampled_from(NAMES))
    hops: list[Address] = list({ip.version: ip for ip in draw(some(HOPS, least=1))}.values())
    identities: list[Identity] = [
        NextHopIdentity(addresses=tuple(hops)),
        SourceIdentity(cidrs=draw(some(SOURCES, most=3))),
    ]
    listed = draw(st.one_of(st.none(), some(EGRESS, most=4, least=1)))
    special = draw(some(EGRESS, most=1))
    return EgressTenant(
        name=name,
        identity=draw(st.sampled_from(identities)),
        namespace_selector=draw(st.sampled_from([None, in_namespace(name), in_namespace("ns-blue")])),
        source_check=draw(st.sampled_from(SourceCheck)),
        egress_ips=listed or (),
        claim=None if listed else PoolClaim("lab", draw(st.integers(1, 3))),
        destinations=tuple(DestinationRule(cidrs=draw(some(BEYOND, least=1)), egress_ips=(ip,)) for ip in special),
        on_change=draw(st.sampled_from(OnChange)),
        allow_inbound=draw(some((InboundAllowance(Protocol.TCP, 22), InboundAllowance(Protocol.ICMP)))),
        rate=draw(st.sampled_from([None, RateLimit(1000, 10)])),
        connections=draw(st.sampled_from([None, 10])),
        quota=draw(st.sampled_from([None, ByteQuota(1000, 3600)])),
    )


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    """A node; its subnets may be those of another, and it may have no address of their family."""
    subnets = tuple(NodeSubnet("default", prefix, "k8s.ovn.org/node-subnets") for prefix in draw(some(SUBNETS)))
    name = draw(st.sampled_from(("n1", "n2", "n3")))
    return Node(name=name, subnets=subnets, internal_ips=draw(some(NODE_IPS)), ready=draw(st.booleans()))


def by_name(found: Iterable[T]) -> tuple[T, ...]:
    """Objects sorted, one of each name, as every source gives them."""
    named: dict[str, T] = {getattr(one, "name"): one for one in found}  # noqa: B009 - T has no bound with a name
    return tuple(named[name] for name in sorted(named))


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    """What users may ask for."""
    gateway = EgressGateway(
        name="gw1",
        inner=(InnerInterface(interface=ENP1S0),),
        uplinks=(ENP7S0,),
        bypass=draw(some(map(ip_network, ("192.168.98.0/24", "192.168.98.0/25", "10.132.0.0/16")))),
        internal_destinations=tuple(
            InternalDestination(cidr=cidr, interface=ENP1S0) for cidr in draw(some(INSIDE, most=3))
        ),
    )
    return replace(
        CLUSTER,
        gateways=(gateway,),
        tenants=by_name(draw(st.lists(tenants(), max_size=4))),
        nodes=by_name(draw(st.lists(nodes(), max_size=3))),
        pools=draw(st.sampled_from([(), (POOL,)])),
        pods=draw(some(PODS, most=8)),
        network=draw(st.sampled_from([None, NETWORK])),
        external_routes=(),
    )


class Life:
    """A gateway over time, on a machine of paper. Whatever is asked about on the links, nobody answers."""

    def __init__(self) -> None:
        self.machine = PaperMachine(BARE)
        self.ledger = Ledger()
        self.now_s = NOW_S

    def round(self, intent: Intent) -> Decided:
        """One round."""
        decided = decide(self.machine, Asked(intent=intent, ledger=self.ledger, moment=Moment(now_s=self.now_s)))
        assert settle(self.machine, decided, lambda _: None).converged
        self.ledger = decided.ledger
        return decided

    def live(self, intent: Intent) -> Decided:
        """Rounds until nothing is left to ask; return the last one."""
        decided = self.round(intent)
        for _ in range(5):
            if not decided.desired.probes:
                return decided
            held = {
                probe.address: Holding(tenant=probe.tenant, link=probe.link, egress=probe.egress)
                for probe in decided.desired.probes
            }
            self.ledger = replace(self.ledger, holdings=MappingProxyType({**self.ledger.holdings, **held}))
            decided = self.round(intent)
        raise AssertionError(f"still asking about {decided.desired.probes}")


def wants(intent: Intent) -> Mapping[Resource, object]:
    """What is wanted for an intent in the end, on a fresh machine."""
    return Life().live(intent).desired.wants


def elements(wanted: Iterable[Resource], *names: str) -> Iterator[Element]:
    """The elements of these sets, of both families where a set has two."""
    for resource in wanted:
        if isinstance(resource, Element) and resource.set.rstrip("46") in names:
            yield resource


def owner(mark: object) -> int:
    """The tenant's part of a mark."""
    assert isinstance(mark, int)
    return mark & TENANT_MASK


@SOME
@given(intents())
def test_a_second_round_changes_nothing_and_plans_the_same(intent: Intent) -> None:
    life = Life()
    first = life.live(intent)
    second = life.round(intent)
    assert not second.changes
    assert second.ledger == first.ledger
    assert second.desired == first.desired


@SOME
@given(intents(), st.randoms(use_true_random=False))
def test_the_order_of_objects_decides_nothing(intent: Intent, chance: object) -> None:
    def shuffled(objects: tuple[T, ...]) -> tuple[T, ...]:
        order = list(objects)
        chance.shuffle(order)  # type: ignore[attr-defined]
        return tuple(order)

    other = replace(
        intent,
        tenants=shuffled(intent.tenants),
        nodes=shuffled(intent.nodes),
        namespaces=shuffled(intent.namespaces),
        pods=shuffled(intent.pods),
    )
    assert wants(other).keys() == wants(intent).keys()


@SOME
@given(intents())
def test_a_new_tenant_that_shares_nothing_moves_nobody(intent: Intent) -> None:
    life = Life()
    before = life.live(intent).desired.wants
    joined = life.live(replace(intent, tenants=(*intent.tenants, UNRELATED))).desired.wants
    of_all = {resource for resource, because in joined.items() if because.cites != ("EgressTenant/zz-unrelated",)}
    shared = {
        resource for resource in of_all if isinstance(resource, LinkSetting)
    }  # IPv6 forwarding, when it is the first
    assert of_all - shared == before.keys() - shared


@SOME
@given(intents(), st.sampled_from(NAMES))
def test_a_tenant_that_leaves_takes_nothing_from_the_others(intent: Intent, name: str) -> None:
    life = Life()
    listing = tuple(tenant for tenant in intent.tenants if tenant.claim is None)  # from a pool, more may be given then
    before = life.live(replace(intent, tenants=listing)).desired.wants
    left = life.live(replace(intent, tenants=tuple(t for t in listing if t.name != name))).desired.wants
    others = {
        resource
        for resource, because in before.items()
        if because.cites != (f"EgressTenant/{name}",) and not isinstance(resource, LinkSetting)
    }
    assert others <= left.keys()


@FEW
@given(st.lists(intents(), min_size=1, max_size=4))
def test_no_two_tenants_share_a_number_a_link_or_an_address(asked: list[Intent]) -> None:
    life = Life()
    for intent in asked:
        wanted = life.live(intent).desired.wants
        tenants_ = life.ledger.tenants.values()
        assert len({one.mark for one in tenants_}) == len({one.link for one in tenants_}) == len(tenants_)
        assert len({one.mac for one in tenants_}) == len(tenants_)
        holders: dict[object, set[int]] = defaultdict(set)
        for element in elements(wanted, "own"):
            holders[element.key[1]].add(owner(element.key[0]))
        assert all(len(marks) == 1 for marks in holders.values())
        assert {element.key[0] for element in elements(wanted, "egress")} == holders.keys()
        for element in elements(wanted, "snat", "snat_to"):
            assert holders[element.value] == {owner(element.key[0])}


@SOME
@given(intents())
def test_the_kernel_can_hold_all_that_is_wanted(intent: Intent) -> None:
    wanted = wants(intent)
    assert len({resource.slot for resource in wanted}) == len(wanted)
    assert [render.unfit(element) for element in wanted if isinstance(element, Element) and render.unfit(element)] == []
    intervals: dict[tuple[object, ...], list[Span]] = defaultdict(list)
    for resource in wanted:
        if isinstance(resource, Element) and isinstance(resource.key[-1], Span):
            intervals[resource.set, *resource.key[:-1]].append(resource.key[-1])
    for place, spans in intervals.items():
        for left, right in pairwise(sorted(spans, key=lambda span: int(span.first))):
            assert int(left.last) < int(right.first), f"{place}: {left} and {right} overlap"


@SOME
@given(intents())
def test_a_mark_that_is_given_leads_to_an_address_of_its_tenant(intent: Intent) -> None:
    wanted = wants(intent)
    known = {element.key[0]: element.value for element in elements(wanted, "tenant_of")}
    assert all(owner(mark) == tenant for mark, tenant in known.items())
    leaving = {element.key[0] for element in elements(wanted, "snat")}
    links = {resource.name for resource in wanted if isinstance(resource, TenantLink)}
    by_link = [one.value for one in elements(wanted, "id_link", "id_spread") if one.key[0] in links]
    by_source = [one.value for one in elements(wanted, "id_pod", "id_net")]
    assert {*by_link, *by_source} <= known.keys()
    assert {*by_link, *by_source} <= leaving
    for link in (element.key[0] for element in elements(wanted, "spread")):
        assert len([one for one in elements(wanted, "id_spread") if one.key[0] == link]) == 16


@FEW
@given(st.lists(intents(), min_size=1, max_size=4))
def test_every_pod_subnet_ever_seen_is_protected(asked: list[Intent]) -> None:
    life, seen = Life(), set[Prefix]()
    for intent in asked:
        wanted = life.live(intent).desired.wants
        seen |= {subnet.prefix for node in intent.nodes for subnet in node.subnets}
        rules = [resource.src for resource in wanted if isinstance(resource, Rule) and resource.src is not None]
        spans = [element.key[0] for element in elements(wanted, "protected")]
        for prefix in seen:
            assert any(covers(src, prefix) for src in rules)
            assert any(isinstance(span, Span) and prefix[0] in span and prefix[-1] in span for span in spans)


@FEW
@given(st.lists(intents(), min_size=1, max_size=3))
def test_who_asks_for_nothing_gets_nothing_and_nothing_is_left(asked: list[Intent]) -> None:
    life = Life()
    for intent in asked:
        life.live(intent)
    gone = life.round(Intent())
    assert gone.desired.wants == {}
    assert life.machine.reading.actual == frozenset()
    assert life.machine.reading.facts.settings == BARE.settings


@SOME
@given(intents())
def test_without_tenants_the_guards_stand_alone(intent: Intent) -> None:
    wanted = wants(replace(intent, tenants=()))
    assert any(isinstance(resource, Table) for resource in wanted)
    assert not [resource for resource in wanted if isinstance(resource, TenantLink | LinkAddress)]
    assert not [*elements(wanted, "id_link", "id_pod", "id_net", "id_spread", "own", "snat", "egress", "tenant_of")]


@SOME
@given(intents(), intents())
def test_nothing_is_left_to_change_exactly_when_both_are_equal(one: Intent, other: Intent) -> None:
    first, second = Life().live(one).desired.wants, Life().live(other).desired.wants
    planned = changes(second, frozenset(first))
    assert bool(planned) == (first.keys() != second.keys())
    made = {resource.slot: resource for resource in planned.make}
    dropped = {resource.slot for resource in planned.drop}
    assert {*made.values(), *(r for r in first if r.slot not in made.keys() | dropped)} == set(second)
    assert not set(planned.make) & set(first)
    assert not set(planned.drop) & set(second)


@SOME
@given(intents(), intents())
def test_guards_come_before_what_opens_and_go_after_it(one: Intent, other: Intent) -> None:
    """Guards are the table and the policy rules; what opens is an identity, a tenant's link, forwarding."""
    first, second = Life().live(one).desired.wants, Life().live(other).desired.wants
    planned = changes(second, frozenset(first))
    assert_ordered(planned.make)
    assert_ordered(tuple(reversed(planned.drop)))
    whole = changes(second, frozenset())
    assert_ordered(whole.make)
    assert_ordered(tuple(reversed(changes({}, frozenset(second)).drop)))


def assert_ordered(resources: tuple[Resource, ...]) -> None:
    """Nothing that opens stands before a guard, no link before its identity, no address before its link."""
    places = [_opens(resource) for resource in resources]
    assert places == sorted(places)
    links = {resource.name: number for number, resource in enumerate(resources) if isinstance(resource, TenantLink)}
    for number, resource in enumerate(resources):
        if isinstance(resource, LinkAddress) and resource.link in links:
            assert number > links[resource.link]


def _opens(resource: Resource) -> int:
    if isinstance(resource, Table | Rule):
        return 0
    if isinstance(resource, LinkSetting):
        return 3 if resource.setting in FORWARDING else 0
    if isinstance(resource, TenantLink) or (isinstance(resource, LinkAddress) and resource.link.startswith("og-")):
        return 2
    return 1


@FEW
@given(st.lists(st.tuples(intents(), st.sampled_from([0.0, 1.0, QUARANTINE_S / 2])), min_size=2, max_size=6))
def test_an_address_that_a_tenant_had_is_not_anothers_before_it_has_rested(asked: list[tuple[Intent, float]]) -> None:
    life = Life()
    had: dict[object, tuple[str, float]] = {}  # by address: who could leave as it, and when last
    for intent, passed_s in asked:
        life.now_s += passed_s
        wanted = life.live(replace(intent, pools=(POOL,))).desired.wants
        for element, because in ((one, wanted[one]) for one in elements(wanted, "own")):
            (tenant,) = because.cites
            before, at_s = had.get(element.key[1], (tenant, 0.0))
            if element.key[1] in POOL.ranges[0]:  # type: ignore[operator]
                assert before == tenant or life.now_s >= at_s + QUARANTINE_S
            had[element.key[1]] = (tenant, life.now_s)


@FEW
@given(st.lists(intents(), min_size=1, max_size=3), st.booleans())
def test_what_was_just_put_in_force_is_never_held_back(asked: list[Intent], several: bool) -> None:
    life = Life()
    for one in asked:
        gateways = (*one.gateways, replace(one.gateways[0], name="gw2")) if several else one.gateways
        intent = replace(one, gateways=gateways)
        decided = decide(
            life.machine, Asked(intent=intent, ledger=life.ledger, moment=Moment(now_s=life.now_s), gateway="gw1")
        )
        assert braked(intent, intent.find_gateway("gw1"), decided.ledger) is None
        life.ledger = decided.ledger


def test_a_nic_that_is_gateway_no_more_is_set_back_and_then_left_alone() -> None:
    life = Life()
    life.live(CLUSTER)
    moved = replace(
        CLUSTER, gateways=(replace(CLUSTER.gateways[0], inner=(InnerInterface(interface=LinkName("enp9s0")),)),)
    )
    life.live(moved)
    assert life.machine.reading.facts.settings[ENP1S0, Setting.ARP_IGNORE] == 0
    life.live(moved)
    theirs = LinkSetting(link=ENP1S0, setting=Setting.ARP_IGNORE, value=2)
    life.machine.write(Changes(make=(theirs,)), {})
    life.live(moved)
    assert life.machine.reading.facts.settings[ENP1S0, Setting.ARP_IGNORE] == 2


def test_a_link_is_from_the_first_moment_where_it_stays() -> None:
    """Egress IPs may be proven before the next hop is: the link is made then, and its parent stays for good."""
    second = LinkName("enp9s0")
    gateway = replace(CLUSTER.gateways[0], inner=(InnerInterface(interface=ENP1S0), InnerInterface(interface=second)))
    tenant = replace(UNRELATED, identity=NextHopIdentity(addresses=(ip_address("192.168.99.99"),), interface=second))
    life = Life()
    life.machine = PaperMachine(
        replace(BARE, links=MappingProxyType({**BARE.links, second: Link(name=second, index=9)}))
    )
    life.ledger = Ledger(
        holdings=MappingProxyType({ip: Holding(tenant=tenant.name, link=ENP7S0) for ip in tenant.egress_ips})
    )
    intent = replace(CLUSTER, gateways=(gateway,), tenants=(tenant,))
    first = [resource for resource in life.round(intent).desired.wants if isinstance(resource, TenantLink)]
    last = [resource for resource in life.live(intent).desired.wants if isinstance(resource, TenantLink)]
    assert [link.parent for link in first] == [second]
    assert first == last
