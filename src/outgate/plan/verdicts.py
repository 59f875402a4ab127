"""What stands in the statuses of our objects: conditions, and what claims were given, for all of a cluster at once.

`Accepted` is decided here, `Programmed` and `Degraded` are what the gateway machines say. A condition keeps the time at
which it last changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from outgate.model.intent import (
    Condition,
    EgressClaim,
    EgressGateway,
    EgressPool,
    EgressTenant,
    Intent,
    Served,
    Told,
    Unread,
)
from outgate.model.net import Address
from outgate.model.state import Facts
from outgate.model.verdict import Verdict
from outgate.model.why import Finding, Severity
from outgate.plan.claims import Forbidden, refused, seniority, without_gateway
from outgate.plan.egress_claims import Claimed, tenant_name
from outgate.plan.external_routes import Routed
from outgate.plan.pools import Gifts
from outgate.plan.routing import Routings

ACCEPTED, PROGRAMMED, DEGRADED = "Accepted", "Programmed", "Degraded"


def judge(
    intent: Intent, gifts: Gifts, claimed: Claimed, routed: Routed
) -> tuple[tuple[Verdict, ...], tuple[Finding, ...]]:
    """Return the verdict on each object of ours that an API server serves, and the refusals behind them."""
    found = (
        *map(_placed, intent.refusals),
        *gifts.findings,
        *claimed.findings,
        *Routings.of(intent).refusals,
        *address_refusals(intent, gifts.tenants),
    )
    refusals = {one.about: one for one in reversed(found) if one.severity is Severity.REFUSAL}  # the first one counts
    warnings = {one.about: one for one in routed.findings}
    verdicts = [
        Verdict(
            kind="EgressTenant",
            name=tenant.name,
            served=tenant.served,
            conditions=_warned(
                _conditions(tenant.served, refusals.get(f"EgressTenant/{tenant.name}"), intent.gateway_of(tenant)),
                warnings.get(f"EgressTenant/{tenant.name}"),
                tenant.served,
            ),
            allocated=gifts.tenants.get(tenant.name, ()) if tenant.claim is not None else None,
        )
        for tenant in intent.tenants
        if tenant.served is not None
    ]
    verdicts += [
        Verdict(
            kind="EgressGateway",
            name=gateway.name,
            served=gateway.served,
            conditions=_conditions(gateway.served, None, gateway),
        )
        for gateway in intent.gateways
        if gateway.served is not None
    ]
    tenants = {one.served.claim: one for one in verdicts if one.served.claim is not None}
    verdicts += [
        _of_claim(claim, claim.served, tenants.get((claim.namespace, claim.name)), refusals)
        for claim in intent.claims
        if claim.served is not None
    ]
    verdicts += [_of_pool(pool, gifts) for pool in intent.pools if pool.served is not None]
    verdicts += [
        Verdict(kind="EgressRouting", name=one.name, served=one.served, conditions=_of_routing(one.served, refusal))
        for one in intent.egress_routings
        if one.served is not None
        for refusal in [refusals.get(f"EgressRouting/{one.name}")]
    ]
    unread = {one.about: _of_unread(one, refusals[one.about]) for one in intent.unread if one.about in refusals}
    return (
        (*(one for one in verdicts if one.about not in unread), *unread.values()),
        (*refusals.values(), *warnings.values()),
    )


def _placed(refusal: Finding) -> Finding:
    """Return a refusal with its field in front: a condition and an event show no origin."""
    field = refusal.origin.field if refusal.origin is not None else ""
    return replace(refusal, text=f"{field}: {refusal.text}") if field else refusal


def _of_unread(unread: Unread, refusal: Finding) -> Verdict:
    """Return the verdict on an object that can not be read: why; what it was before stays in force where it is."""
    accepted, *others = _conditions(unread.served, refusal, None)
    conditions = (accepted,) if unread.kind in ("EgressPool", "EgressRouting") else (accepted, *others)
    return Verdict(
        kind=unread.kind, name=unread.name, namespace=unread.namespace, served=unread.served, conditions=conditions
    )


def _of_claim(claim: EgressClaim, served: Served, tenant: Verdict | None, refusals: Mapping[str, Finding]) -> Verdict:
    """Return the verdict on a claim: that on its tenant, or why it has none."""
    refusal = refusals.get(f"EgressClaim/{claim.namespace}/{claim.name}")
    if refusal is not None:
        conditions = _conditions(served, refusal, None)
    elif tenant is None:
        waits = _condition(ACCEPTED, None, "Pending", f"EgressTenant/{tenant_name(claim)} is being made", served)
        conditions = (waits, *_conditions(served, None, None)[1:])
    else:
        conditions = tuple(
            _condition(one.type, one.holds, one.reason, one.message, served) for one in tenant.conditions
        )
    return Verdict(
        kind="EgressClaim",
        name=claim.name,
        namespace=claim.namespace,
        served=served,
        conditions=conditions,
        allocated=(tenant.allocated or ()) if tenant is not None else (),
    )


def _of_pool(pool: EgressPool, gifts: Gifts) -> Verdict:
    assert pool.served is not None
    given = gifts.pools[pool.name]
    resting = sum(1 for one in given if one.rests_until_s is not None)
    size = sum(int(span.last) - int(span.first) + 1 for span in pool.ranges)
    text = f"{len(given) - resting} addresses are given and {resting} rest, of {size}"
    condition = _condition(ACCEPTED, True, "Accepted", text, pool.served)
    return Verdict(kind="EgressPool", name=pool.name, served=pool.served, conditions=(condition,), given=given)


def _of_routing(served: Served, refusal: Finding | None) -> tuple[Condition, ...]:
    return _conditions(served, refusal, None)[:1]  # what came of it stands in the nodes' EgressNodes


def _conditions(served: Served, refusal: Finding | None, gateway: EgressGateway | None) -> tuple[Condition, ...]:
    """Return the three conditions of an object that a gateway machine serves."""
    if refusal is not None:
        accepted = _condition(ACCEPTED, False, refusal.reason, refusal.sentence, served)
    else:
        accepted = _condition(ACCEPTED, True, "Accepted", "it is valid and contradicts no other object", served)
    told = _told(served, gateway)
    if told is None:
        who = f"EgressGateway/{gateway.name}" if gateway is not None else "its gateway"
        words = f"{who} has not said anything about it yet"
        return accepted, _condition(PROGRAMMED, None, "NotHeard", words, served)
    is_current = told.generation == served.generation
    holds = told.programmed if is_current else None
    reason = told.reason if is_current else "Pending"
    words = told.message if is_current else f"EgressGateway/{told.gateway} has not seen the last change yet"
    programmed = _condition(PROGRAMMED, holds, reason, words, served)
    is_ill = is_current and told.reason != "Programmed"
    text = told.message if is_ill else "nothing is amiss"
    degraded = _condition(DEGRADED, is_ill, told.reason if is_ill else "AsExpected", text, served)
    return accepted, programmed, degraded


def _warned(conditions: tuple[Condition, ...], warning: Finding | None, served: Served) -> tuple[Condition, ...]:
    """Return the conditions with a warning, if there is one and nothing else is amiss."""
    if warning is None or any(one.type == DEGRADED and one.holds for one in conditions):
        return conditions
    degraded = _condition(DEGRADED, True, warning.reason, warning.sentence, served)
    return (*(one for one in conditions if one.type != DEGRADED), degraded)


def _told(served: Served, gateway: EgressGateway | None) -> Told | None:
    standing = served.standing
    if standing is None or gateway is None:
        return None
    return next((one for one in standing.told if one.gateway == gateway.name), None)


def _condition(kind: str, holds: bool | None, reason: str, message: str, served: Served) -> Condition:
    """Return a condition; what it says anew keeps its time while its value stays."""
    before = served.standing.conditions if served.standing is not None else ()
    since = next((one.since for one in before if one.type == kind and one.holds is holds), "")
    return Condition(type=kind, holds=holds, reason=reason, message=message, generation=served.generation, since=since)


def address_refusals(intent: Intent, given: Mapping[str, tuple[Address, ...]]) -> Iterator[Finding]:
    """Yield why tenants can not be accepted: standing claims are decided first, then the oldest. As on the gateways, a
    tenant with one address that it can not have is refused whole, and takes none. `given` are addresses from pools.
    """
    homeless = {one.about: one for one in without_gateway(intent)}
    forbidden = {gateway.name: Forbidden(intent, Facts(), gateway) for gateway in intent.gateways}
    taken: dict[Address, str] = {}
    for tenant in sorted(intent.tenants, key=lambda one: (not _is_accepted(one), *seniority(one))):
        gateway, wanted = intent.gateway_of(tenant), _addresses(tenant, given)
        if gateway is None:
            yield homeless[f"EgressTenant/{tenant.name}"]
            continue
        refusal = next((r for one in wanted if (r := _refusal(tenant, one, taken, forbidden[gateway.name]))), None)
        if refusal is not None:
            yield refusal
        else:
            taken.update(dict.fromkeys(wanted, tenant.name))


def _refusal(
    tenant: EgressTenant, address: Address, taken: Mapping[Address, str], forbidden: Forbidden
) -> Finding | None:
    """Return why a tenant may not have an egress IP, or None."""
    if address in taken:
        text = f"egress IP {address} is EgressTenant/{taken[address]}'s, which claimed it first"
        return refused("AddressTaken", tenant, text, "give one of them another address")
    why = forbidden.reason(address)
    if why is None:
        return None
    text = f"egress IP {address} can not be used: {why[1]}"
    return refused(why[0], tenant, text, "choose an address that nobody else needs")


def _is_accepted(tenant: EgressTenant) -> bool:
    standing = tenant.served.standing if tenant.served is not None else None
    return standing is not None and any(one.type == ACCEPTED and one.holds for one in standing.conditions)


def _addresses(tenant: EgressTenant, given: Mapping[str, tuple[Address, ...]]) -> Mapping[Address, None]:
    special = [ip for rule in tenant.destinations for ip in rule.egress_ips]
    return dict.fromkeys((*tenant.egress_ips, *given.get(tenant.name, ()), *special))
