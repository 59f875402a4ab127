"""What stands in the statuses of our objects: conditions, and what claims were given, for all of a cluster at once.

`Accepted` is decided here, `Programmed` and `Degraded` are what the gateway machines say. A condition keeps the time at
which it last changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from outgate.model.intent import Condition, EgressClaim, EgressGateway, EgressPool, EgressTenant, Intent, Served, Told
from outgate.model.net import Address, Prefix
from outgate.model.verdict import Verdict
from outgate.model.why import Finding, Severity
from outgate.plan.claims import seniority
from outgate.plan.egress_claims import Claimed, tenant_name
from outgate.plan.external_routes import Routed
from outgate.plan.pools import Gifts

ACCEPTED, PROGRAMMED, DEGRADED = "Accepted", "Programmed", "Degraded"


def judge(
    intent: Intent, gifts: Gifts, claimed: Claimed, routed: Routed
) -> tuple[tuple[Verdict, ...], tuple[Finding, ...]]:
    """Return the verdict on each object of ours that an API server serves, and the refusals behind them."""
    found = (*gifts.findings, *claimed.findings, *_refusals(intent, gifts))
    refusals = {one.about: one for one in found if one.severity is Severity.REFUSAL}
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
    tenants = {one.name: one for one in verdicts if one.kind == "EgressTenant"}
    verdicts += [
        _of_claim(claim, claim.served, tenants.get(tenant_name(claim)), refusals)
        for claim in intent.claims
        if claim.served is not None
    ]
    verdicts += [_of_pool(pool, gifts) for pool in intent.pools if pool.served is not None]
    return tuple(verdicts), (*refusals.values(), *warnings.values())


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
        allocated=(tenant.allocated or ()) if tenant is not None and refusal is None else (),
    )


def _of_pool(pool: EgressPool, gifts: Gifts) -> Verdict:
    assert pool.served is not None
    given = gifts.pools[pool.name]
    resting = sum(1 for one in given if one.rests_until_s is not None)
    size = sum(int(span.last) - int(span.first) + 1 for span in pool.ranges)
    text = f"{len(given) - resting} addresses are given and {resting} rest, of {size}"
    condition = _condition(ACCEPTED, True, "Accepted", text, pool.served)
    return Verdict(kind="EgressPool", name=pool.name, served=pool.served, conditions=(condition,), given=given)


def _conditions(served: Served, refusal: Finding | None, gateway: EgressGateway | None) -> tuple[Condition, ...]:
    """Return the three conditions of an object that a gateway machine serves."""
    if refusal is not None:
        words = f"{refusal.text}; {refusal.fix}" if refusal.fix else refusal.text
        accepted = _condition(ACCEPTED, False, refusal.reason, words, served)
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
    degraded = _condition(DEGRADED, True, warning.reason, f"{warning.text}; {warning.fix}", served)
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


def _refusals(intent: Intent, gifts: Gifts) -> Iterator[Finding]:
    """Yield why tenants can not be accepted; what several want is the oldest one's, standing claims first."""
    nodes = {ip: node.name for node in intent.nodes for ip in node.internal_ips}
    inside = [*(("cluster", p) for p in _networks(intent)), *(("service", p) for p in _services(intent))]
    wanted: dict[Address, list[EgressTenant]] = defaultdict(list)
    for tenant in sorted(intent.tenants, key=lambda one: (not _is_accepted(one), *seniority(one))):
        if intent.gateway_of(tenant) is None:
            yield _without_gateway(tenant, intent)
        for address in _addresses(tenant, gifts):
            finding = _forbidden(tenant, address, nodes, inside)
            if finding is not None:
                yield finding
                break
            wanted[address].append(tenant)
    for address, tenants in wanted.items():
        first = tenants[0]
        for tenant in tenants[1:]:
            text = f"egress IP {address} is EgressTenant/{first.name}'s, which claimed it first"
            yield _refused("AddressTaken", tenant, text, "give one of them another address")


def _is_accepted(tenant: EgressTenant) -> bool:
    standing = tenant.served.standing if tenant.served is not None else None
    return standing is not None and any(one.type == ACCEPTED and one.holds for one in standing.conditions)


def _addresses(tenant: EgressTenant, gifts: Gifts) -> Iterable[Address]:
    special = [ip for rule in tenant.destinations for ip in rule.egress_ips]
    return dict.fromkeys((*tenant.egress_ips, *gifts.tenants.get(tenant.name, ()), *special))


def _forbidden(
    tenant: EgressTenant, address: Address, nodes: Mapping[Address, str], inside: list[tuple[str, Prefix]]
) -> Finding | None:
    fix = "choose an address that nobody else needs"
    if address in nodes:
        text = f"egress IP {address} can not be used: it is the address of Node/{nodes[address]}"
        return _refused("NodeAddress", tenant, text, fix)
    for which, prefix in inside:
        if address in prefix:
            text = f"egress IP {address} can not be used: it is inside the {which} network {prefix}"
            return _refused(f"{which.capitalize()}Address", tenant, text, fix)
    return None


def _networks(intent: Intent) -> tuple[Prefix, ...]:
    own = intent.network.cluster_networks if intent.network is not None else ()
    return (*own, *(prefix for gateway in intent.gateways for prefix in gateway.cluster_networks))


def _services(intent: Intent) -> tuple[Prefix, ...]:
    return intent.network.service_networks if intent.network is not None else ()


def _without_gateway(tenant: EgressTenant, intent: Intent) -> Finding:
    known = ", ".join(sorted(one.name for one in intent.gateways)) or "none"
    if tenant.gateway is None:
        text = f"names no gateway, and there are several: {known}" if intent.gateways else "there is no gateway"
        return _refused("GatewayUnnamed", tenant, text, "set spec.gateway")
    text = f"names the gateway {tenant.gateway}, which does not exist (there are: {known})"
    return _refused("GatewayUnknown", tenant, text, f"create EgressGateway/{tenant.gateway} or correct spec.gateway")


def _refused(reason: str, tenant: EgressTenant, text: str, fix: str) -> Finding:
    return Finding(reason, f"EgressTenant/{tenant.name}", text, Severity.REFUSAL, fix, tenant.origin)
