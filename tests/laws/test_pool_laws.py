"""Whatever tenants come, go, and ask for: nobody loses what he has, nobody has what another one has, and whoever
decides next, with what was written down, decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from outgate.model.intent import EgressPool, EgressTenant, Given, Intent, PoolClaim, Served, SourceIdentity, Standing
from outgate.model.net import Span
from outgate.plan.pools import Gifts, give

POOLS = {
    "big": Span(first=ip_address("192.0.2.1"), last=ip_address("192.0.2.6")),
    "small": Span(first=ip_address("198.51.100.1"), last=ip_address("198.51.100.1")),
}
CLAIMS = st.builds(PoolClaim, pool=st.sampled_from(["big", "small", "none"]), count=st.integers(1, 3))
WISHES = st.dictionaries(st.sampled_from("abcdef"), CLAIMS, max_size=5)
STEPS = st.lists(st.tuples(WISHES, st.integers(0, 400)), min_size=1, max_size=6)
REST_S = 300


def intent(wishes: dict[str, PoolClaim], books: Mapping[str, tuple[Given, ...]], gifts: Gifts | None) -> Intent:
    had = gifts.tenants if gifts is not None else {}
    return Intent(
        tenants=tuple(
            EgressTenant(
                name=name,
                identity=SourceIdentity(),
                claim=claim,
                allocated=had.get(name, ()),
                served=Served(uid=name, generation=1, created=f"2026-01-01T00:00:{ord(name):03}Z"),
            )
            for name, claim in sorted(wishes.items())
        ),
        pools=tuple(
            EgressPool(
                name=name,
                ranges=(span,),
                quarantine_s=REST_S,
                served=Served(uid=name, generation=1, created="", standing=Standing(given=books.get(name, ()))),
            )
            for name, span in POOLS.items()
        ),
    )


@given(steps=STEPS)
def test_books_are_kept(steps: list[tuple[dict[str, PoolClaim], int]]) -> None:
    now_s, books = 1_000_000.0, dict[str, tuple[Given, ...]]()
    before: Gifts | None = None
    released: dict[object, tuple[str, float]] = {}
    for wishes, pause_s in steps:
        now_s += pause_s
        gifts = give(intent(wishes, books, before), now_s)

        again = intent(wishes, dict(gifts.pools), gifts)
        assert give(again, now_s) == gifts, "decided again with what was written down"

        lost = {pool.name: () for pool in again.pools}
        anew = give(intent(wishes, lost, gifts), now_s)
        for name, has in gifts.tenants.items():
            assert set(has) <= set(anew.tenants[name]), "a book that was lost takes nothing away"

        everything = [address for given in gifts.tenants.values() for address in given]
        assert len(everything) == len(set(everything)), "an address is one tenant's"
        for name, claim in wishes.items():
            has = gifts.tenants[name]
            assert len(has) <= claim.count
            assert all(claim.pool in POOLS and address in POOLS[claim.pool] for address in has)
            if before is not None and name in before.tenants and claim.pool in POOLS:
                kept = [one for one in before.tenants[name] if one in POOLS[claim.pool]][: claim.count]
                assert has[: len(kept)] == tuple(kept), "what stands stays"
            for address in has:
                last, rests_until_s = released.get(address, (name, 0.0))
                assert last == name or rests_until_s <= now_s, "what was released rests"
        for pool in gifts.pools.values():
            for one in pool:
                if one.rests_until_s is not None:
                    released[one.address] = one.tenant, one.rests_until_s
        books, before = dict(gifts.pools), gifts


@given(wishes=WISHES)
def test_the_oldest_claims_are_served_first(wishes: dict[str, PoolClaim]) -> None:
    gifts = give(intent(wishes, {}, None), 0.0)
    for pool in POOLS:
        claimants = [name for name in sorted(wishes) if wishes[name].pool == pool]
        served = [len(gifts.tenants[name]) == wishes[name].count for name in claimants]
        lacking = served.index(False) if False in served else len(served)
        assert all(not gifts.tenants[name] for name in claimants[lacking + 1 :]), (
            "nobody younger has what an older lacks"
        )


def test_a_quarantine_begins_when_it_is_seen_and_ends_by_the_clock() -> None:
    first = give(intent({"a": PoolClaim(pool="small")}, {}, None), 0.0)
    gone = give(intent({"b": PoolClaim(pool="small")}, dict(first.pools), None), 10.0)
    assert gone.next_end_s == 10.0 + REST_S
    assert gone.tenants == {"b": ()}
    assert "EgressTenant/a" in gone.findings[0].text
    rested = give(intent({"b": PoolClaim(pool="small")}, dict(gone.pools), None), 10.0 + REST_S)
    assert rested.tenants == {"b": (ip_address("198.51.100.1"),)}
    assert rested.pools["small"] == (replace(first.pools["small"][0], tenant="b"),)
