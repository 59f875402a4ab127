"""Which tenant of a cluster gets which addresses of a pool, for all gateways at once.

What stands stays: an address that a pool gave is its tenant's for as long as the claim is there. Among new claimants
the oldest object comes first. What is released rests as long as its pool says, and goes back to its last tenant before
that. All of it stands in the statuses of the pools, so whoever decides next decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType

from outgate.model.intent import EgressPool, EgressTenant, Given, Intent, PoolClaim
from outgate.model.net import Address
from outgate.model.why import Finding, Severity
from outgate.plan.allocate import pool_refusal
from outgate.plan.claims import seniority
from outgate.plan.selection import NamespaceIndex

_Book = dict[Address, Given]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gifts:
    """What each pool has given, sorted, and what each claiming tenant has, by name; why somebody has less than it
    claims; and when the next rest is over (seconds since 1970).
    """

    pools: Mapping[str, tuple[Given, ...]]
    tenants: Mapping[str, tuple[Address, ...]]
    findings: tuple[Finding, ...] = ()
    next_end_s: float | None = None


def give(intent: Intent, now_s: float) -> Gifts:
    """Decide for all claims of a cluster. `now_s` is the calendar, in seconds since 1970."""
    pools = {pool.name: pool for pool in intent.pools}
    claims = {one.name: one.claim for one in sorted(intent.tenants, key=seniority) if one.claim is not None}
    tenants = {one.name: one for one in intent.tenants}
    books = {name: _opened(pool, claims, tenants, now_s) for name, pool in pools.items()}
    taken = _taken(intent).union(*books.values())
    free = {name: _free(pool, taken) for name, pool in pools.items()}
    namespaces, findings = NamespaceIndex(intent.namespaces), list[Finding]()
    for name, claim in claims.items():
        refusal = pool_refusal(tenants[name], pools.get(claim.pool), pools, namespaces)
        if refusal is None:
            refusal = _serve(tenants[name], claim, books[claim.pool], free[claim.pool], taken)
        findings += [refusal] if refusal is not None else []
    given = {name: tuple(sorted(book.values(), key=lambda one: int(one.address))) for name, book in books.items()}
    ends = [one.rests_until_s for book in given.values() for one in book if one.rests_until_s is not None]
    return Gifts(
        pools=MappingProxyType(given),
        tenants=MappingProxyType(
            {name: _in_order(tenants[name], _of(name, given.get(claim.pool, ()))) for name, claim in claims.items()}
        ),
        findings=tuple(findings),
        next_end_s=min(ends, default=None),
    )


def _opened(
    pool: EgressPool, claims: Mapping[str, PoolClaim], tenants: Mapping[str, EgressTenant], now_s: float
) -> _Book:
    """Return a pool's book as it stands now: rests that are over are struck out, what nobody claims begins to rest.

    A status that was lost is written anew from what the tenants say they have.
    """
    standing = pool.served.standing if pool.served is not None else None
    book = {one.address: one for one in standing.given} if standing is not None else {}
    mine = {name: claim for name, claim in claims.items() if claim.pool == pool.name}
    for name in mine:
        for address in tenants[name].allocated or ():
            if address not in book and any(address in span for span in pool.ranges):
                book[address] = Given(address=address, tenant=name)
    left = {name: claim.count for name, claim in mine.items()}
    place = {address: at for name in mine for at, address in enumerate(tenants[name].allocated or ())}
    # whoever gives back gives the last that it has
    for address in sorted(book, key=lambda one: (place.get(one, len(place)), int(one))):
        one = book[address]
        if one.rests_until_s is not None:
            if one.rests_until_s <= now_s:
                del book[address]
        elif left.get(one.tenant, 0) > 0:
            left[one.tenant] -= 1
        else:
            book[address] = replace(one, rests_until_s=now_s + pool.quarantine_s)
    return book


def _serve(
    tenant: EgressTenant, claim: PoolClaim, book: _Book, free: Iterator[Address], taken: set[Address]
) -> Finding | None:
    """Give a tenant what it lacks: first what it released itself, then the lowest free addresses."""
    missing = claim.count - len(_of(tenant.name, book.values()))
    own = [one for one in book.values() if one.tenant == tenant.name and one.rests_until_s is not None]
    fresh = [one.address for one in sorted(own, key=lambda one: int(one.address))][:missing]
    fresh += islice(free, missing - len(fresh))
    for address in fresh:
        book[address] = Given(address=address, tenant=tenant.name)
        taken.add(address)
    if len(fresh) == missing:
        return None
    has = f"asks EgressPool/{claim.pool} for {claim.count} addresses and has {claim.count - missing + len(fresh)}"
    text = f"{has}: no more are free{_others(tenant, book)}"
    fix = "widen spec.ranges, release addresses, or wait for the quarantine"
    return Finding("PoolExhausted", f"EgressTenant/{tenant.name}", text, Severity.REFUSAL, fix, tenant.origin)


def _others(tenant: EgressTenant, book: _Book) -> str:
    """Return who has them, in words."""
    others = sorted({f"EgressTenant/{one.tenant}" for one in book.values() if one.tenant != tenant.name})
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"; it has given to {', '.join(others[:3])}{more}"


def _free(pool: EgressPool, taken: set[Address]) -> Iterator[Address]:
    for span in pool.ranges:
        for number in range(int(span.first), int(span.last) + 1):
            address = type(span.first)(number)
            if address not in taken and not any(address in hole for hole in pool.excludes):
                yield address


def _taken(intent: Intent) -> set[Address]:
    """Return addresses that no pool may give: those that tenants name themselves, and the nodes' own."""
    named = {ip for tenant in intent.tenants for ip in tenant.egress_ips}
    special = {ip for tenant in intent.tenants for rule in tenant.destinations for ip in rule.egress_ips}
    return named | special | {ip for node in intent.nodes for ip in node.internal_ips}


def _of(tenant: str, given: Iterable[Given]) -> tuple[Address, ...]:
    return tuple(one.address for one in given if one.tenant == tenant and one.rests_until_s is None)


def _in_order(tenant: EgressTenant, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return a tenant's addresses, those that it has first: sources are spread over them by their place."""
    standing = [one for one in tenant.allocated or () if one in addresses]
    return (*standing, *(one for one in addresses if one not in standing))
