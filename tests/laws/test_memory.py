"""A daemon that runs for months decides round after round, and remembers what it decided about the same values.

The law: memory saves time and decides nothing. Whatever happens to tenants, nodes, pools, neighbours and the machine,
a round with the memory of all rounds before it decides exactly what a round without any memory decides.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.control.round import Asked, Decided, Memory, decide, settle
from outgate.model.intent import (
    Announce,
    DestinationRule,
    EgressPool,
    EgressTenant,
    Identity,
    NextHopIdentity,
    OnChange,
    PoolClaim,
    RateLimit,
    SourceIdentity,
)
from outgate.model.ledger import Holding, Ledger
from outgate.model.net import LinkAddress, Mac, Span
from outgate.model.ruleset import Element, Table
from outgate.model.state import Moment
from outgate.model.why import Finding, Origin, Severity
from tests.laws.paper import PaperMachine
from tests.stories.cluster import CLUSTER, GATEWAY, N1, N2, NOW_S, in_namespace

NAMES = ("ns-amber", "ns-blue", "ns-green", "ns-red")
POOL = EgressPool(name="lab", ranges=(Span(first=ip_address("192.168.55.200"), last=ip_address("192.168.55.202")),))
HOPS = st.integers(13, 16).map(lambda host: ip_address(f"192.168.99.{host}"))
EGRESS = st.integers(113, 118).map(lambda host: ip_address(f"192.168.55.{host}"))


@st.composite
def tenants(draw: st.DrawFn) -> EgressTenant:
    """A tenant of few words, so that tenants often want the same."""
    name = draw(st.sampled_from(NAMES))
    from_pool = draw(st.booleans())
    special = draw(st.lists(EGRESS, max_size=1).map(tuple))
    identities: list[Identity] = [NextHopIdentity(addresses=(draw(HOPS),)), SourceIdentity()]
    return EgressTenant(
        name=name,
        identity=draw(st.sampled_from(identities)),
        namespace_selector=draw(st.sampled_from([None, in_namespace(name), in_namespace("ns-blue")])),
        egress_ips=() if from_pool else tuple(draw(st.lists(EGRESS, min_size=1, max_size=2, unique=True))),
        claim=PoolClaim("lab", draw(st.integers(1, 2))) if from_pool else None,
        destinations=tuple(DestinationRule(cidrs=(ip_network("198.51.100.0/24"),), egress_ips=(ip,)) for ip in special),
        rate=draw(st.sampled_from([None, RateLimit(1000, 10), RateLimit(2000, 10)])),
        on_change=draw(st.sampled_from(OnChange)),
    )


STEPS = st.one_of(
    st.tuples(st.just("put"), tenants()),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("unreadable"), st.sampled_from(NAMES)),
    st.tuples(st.just("nodes"), st.sampled_from([(), (N1,), (N2,), (N1, N2)])),
    st.tuples(st.just("probes"), st.sampled_from([0, 3])),
    st.tuples(st.just("time"), st.sampled_from([1.0, 400.0, 100_000.0])),
    st.tuples(st.just("free"), st.none()),
    st.tuples(st.just("answered"), st.one_of(HOPS, EGRESS)),
    st.tuples(st.just("silent"), st.none()),
    st.tuples(st.just("lose"), st.integers(0, 1000)),
    st.tuples(st.just("find"), st.integers(0, 3)),
    st.tuples(st.just("edit"), st.none()),
    st.tuples(st.just("nothing"), st.none()),
)


class Story:
    """A gateway over time, decided by rounds with a memory and, beside each, a round without."""

    def __init__(self) -> None:
        self.machine = PaperMachine()
        self.memory = Memory()
        self.ledger = Ledger()
        self.moment = Moment(now_s=NOW_S)
        self.conflicts: dict[Any, Mac] = {}
        self.intent = replace(CLUSTER, tenants=(), pools=(POOL,), gateways=(replace(GATEWAY, announce=Announce()),))
        self.last: Decided | None = None

    def step(self, what: str, given_: Any) -> None:
        """Let something happen, and run a round."""
        getattr(self, what)(given_)
        asked = Asked(intent=self.intent, ledger=self.ledger, moment=self.moment, conflicts=dict(self.conflicts))
        had = {r for r in self.machine.reading.actual if isinstance(r, LinkAddress)}
        plainly = decide(self.machine, asked)
        decided = decide(self.machine, asked, self.memory)
        assert (decided.ledger, decided.claims) == (plainly.ledger, plainly.claims)
        assert decided.desired == plainly.desired
        assert decided.changes == plainly.changes
        wanted = {(r.link, r.address) for r in decided.desired.wants if isinstance(r, LinkAddress)}
        standing = {(r.link, r.address) for r in had} & self.ledger.addresses_made
        assert decided.ledger.addresses_made == wanted | standing
        outcome = settle(self.machine, decided, lambda _: None, self.memory)
        assert outcome.converged
        self.ledger, self.last = decided.ledger, decided

    def put(self, tenant: EgressTenant) -> None:
        others = tuple(one for one in self.intent.tenants if one.name != tenant.name)
        self.intent = replace(self.intent, tenants=tuple(sorted((*others, tenant), key=lambda one: one.name)))

    def remove(self, name: str) -> None:
        self.intent = replace(self.intent, tenants=tuple(one for one in self.intent.tenants if one.name != name))

    def unreadable(self, name: str) -> None:
        self.remove(name)
        finding = Finding("InvalidManifest", f"EgressTenant/{name}", "broken", Severity.REFUSAL, "", Origin(file="f"))
        self.intent = replace(self.intent, refusals=() if self.intent.refusals else (finding,))

    def nodes(self, nodes: tuple[Any, ...]) -> None:
        self.intent = replace(self.intent, nodes=nodes)

    def probes(self, number: int) -> None:
        gateway = replace(GATEWAY, announce=Announce(probes=number))
        self.intent = replace(self.intent, gateways=(gateway,))

    def time(self, seconds: float) -> None:
        self.moment = Moment(now_s=self.moment.now_s + seconds, flows=dict.fromkeys(self.ledger.retiring, 0))

    def free(self, _: None) -> None:
        """Nobody answered for what was asked."""
        probes = self.last.desired.probes if self.last is not None else {}
        claims = self.last.claims if self.last is not None else None
        held = {
            probe.address: Holding(
                tenant=probe.tenant, link=probe.link, egress=claims is None or claims.by_address[probe.address].egress
            )
            for probe in probes
        }
        self.ledger = replace(self.ledger, holdings=MappingProxyType({**self.ledger.holdings, **held}))

    def answered(self, address: Any) -> None:
        self.conflicts[address] = Mac("52:54:00:00:00:66")

    def silent(self, _: None) -> None:
        self.conflicts = {}

    def lose(self, number: int) -> None:
        have = sorted(self.machine.reading.actual, key=str)
        self.machine.tamper(lost=frozenset({have[number % len(have)]}) if have else frozenset())

    def find(self, number: int) -> None:
        self.machine.tamper(found=frozenset({Element("tenant_of", (0x99900 + number,), 0x99900)}))

    def edit(self, _: None) -> None:
        tables = frozenset(r for r in self.machine.reading.actual if isinstance(r, Table))
        self.machine.tamper(lost=tables, found=frozenset({Table("edited")}))

    def nothing(self, _: None) -> None:
        """Let a round pass."""


@settings(deadline=None, max_examples=200)
@given(st.lists(STEPS, min_size=1, max_size=30))
def test_a_round_with_memory_decides_what_a_round_without_decides(steps: list[tuple[str, Any]]) -> None:
    story = Story()
    for what, given_ in steps:
        story.step(what, given_)


def test_a_round_in_which_nothing_happened_hands_out_the_very_plan_of_the_last_one() -> None:
    story = Story()
    for tenant in CLUSTER.tenants:
        story.step("put", tenant)
    story.step("free", None)
    story.step("nothing", None)
    first = story.last
    story.step("nothing", None)
    assert first is not None
    assert story.last is not None
    assert story.last.desired.wants is first.desired.wants
