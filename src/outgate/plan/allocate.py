"""The numbers and addresses that must be remembered: from a ledger and a moment to the next ledger.

Pure: `control` writes the result down before anything uses it. Nothing that is still claimed ever changes; what is
given up rests. Marks count upwards and wrap, so that a number is not given again while old flows may carry it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from outgate.model.intent import EgressGateway, EgressPool, EgressTenant, Intent, OnChange, PoolClaim
from outgate.model.ledger import Allocation, Holding, Ledger, Resting, Retiring
from outgate.model.net import Address, LinkName, Mac, Mark
from outgate.model.state import Facts, Moment, Snapshot
from outgate.model.why import Finding, Severity
from outgate.plan.adopt import settle_adoption
from outgate.plan.claims import Claims, claims, unreadable
from outgate.plan.memo import copied
from outgate.plan.selection import NamespaceIndex

MARK_STEP = 0x100  # the low byte of a mark says which of the tenant's egress IPs
LAST_MARK = 0x00FFFE00  # 0x00ffff00 is what passing packets carry
DEFAULT_QUARANTINE_S = 300.0
LONGEST_DRAIN_S = 24 * 3600.0  # a flow that lives longer on a taken address is cut


def allocate(
    snapshot: Snapshot, gateway: EgressGateway, moment: Moment, before: tuple[Ledger, Claims] | None = None
) -> tuple[Ledger, Claims, tuple[Finding, ...]]:
    """Return the next ledger, the claims that hold under it, and what could not be allocated.

    The order matters: rest and drain end first (their addresses are free then), pools are served next, and claims are
    decided last. `before` is what an earlier call returned: what holds of it is not decided again.
    """
    intent, facts, ledger = snapshot.intent, snapshot.facts, snapshot.ledger
    ledger = _settle_time(intent, ledger, moment)
    ledger = settle_adoption(facts, _number(intent, ledger, gateway), moment)
    ledger, findings = _serve_pools(intent, facts, ledger, gateway)
    decided = claims(intent, facts, ledger, gateway, before[1] if before else None)
    moved = _moved(ledger, decided, before)
    if moved is None or moved:
        ledger = _settle_holdings(intent, ledger, decided, moment, moved)
    if not gateway.announce.asks:
        ledger = _hold_unasked(facts, ledger, decided)
    if before is None or before[0].subnets_seen is not ledger.subnets_seen or before[1].grounds is not decided.grounds:
        subnets = frozenset(subnet.prefix for node in intent.nodes for subnet in node.subnets)
        if not subnets <= ledger.subnets_seen:
            ledger = replace(ledger, subnets_seen=ledger.subnets_seen | subnets)
    return ledger, decided, findings


def link_name(gateway: str, tenant: str) -> LinkName:
    """Return the device name of a tenant: `og-` and eight hex digits; the tenant's name itself is never part of a
    device name.
    """
    return LinkName("og-" + hashlib.sha256(f"{gateway}/{tenant}".encode()).hexdigest()[:8])


def mac_of(gateway: str, tenant: str) -> Mac:
    """Return a stable, locally administered unicast MAC, so that a re-created link is the same neighbour as before."""
    digest = hashlib.sha256(f"mac {gateway}/{tenant}".encode()).digest()
    return Mac("02:e6:" + ":".join(f"{byte:02x}" for byte in digest[:4]))


def quarantine_s(address: Address, pools: tuple[EgressPool, ...]) -> float:
    """Return how long a released address rests: its pool's time, else five minutes."""
    return next(
        (float(p.quarantine_s) for p in pools if any(address in span for span in p.ranges)), DEFAULT_QUARANTINE_S
    )


def _settle_time(intent: Intent, ledger: Ledger, moment: Moment) -> Ledger:
    """End rests that are over; end drains whose flows are gone or whose time is over, and let the address rest."""
    done = {
        address: old
        for address, old in ledger.retiring.items()
        if old.until_s <= moment.now_s or moment.flows.get(address) == 0
    }
    resting = {address: rest for address, rest in ledger.resting.items() if rest.until_s > moment.now_s}
    if not done and len(resting) == len(ledger.resting):
        return ledger
    resting |= {
        address: Resting(tenant=old.tenant, until_s=moment.now_s + quarantine_s(address, intent.pools))
        for address, old in done.items()
    }
    retiring = {address: old for address, old in ledger.retiring.items() if address not in done}
    return replace(ledger, retiring=MappingProxyType(retiring), resting=MappingProxyType(resting))


def _number(intent: Intent, ledger: Ledger, gateway: EgressGateway) -> Ledger:
    """Give marks, link names and MACs to tenants that have none; forget tenants that are gone."""
    wanted = {tenant.name for tenant in intent.tenants_of(gateway)}
    wanted |= unreadable(intent) & ledger.tenants.keys()
    if wanted == ledger.tenants.keys():
        return ledger
    kept = {name: allocation for name, allocation in ledger.tenants.items() if name in wanted}
    marks = {allocation.mark for allocation in kept.values()} | {old.mark for old in ledger.retiring.values()}
    links = {allocation.link for allocation in kept.values()}
    macs = {allocation.mac for allocation in kept.values()}
    last = ledger.last_mark
    for name in sorted(wanted - kept.keys()):
        last = _next_mark(last, marks)
        salt = _salt(gateway.name, name, links, macs)
        kept[name] = Allocation(mark=last, link=link_name(gateway.name, salt), mac=mac_of(gateway.name, salt))
        marks.add(last)
        links.add(kept[name].link)
        macs.add(kept[name].mac)
    return replace(ledger, tenants=MappingProxyType(kept), last_mark=last, gateway=gateway.name)


def _next_mark(last: Mark, taken: set[Mark]) -> Mark:
    """Return the next free mark after `last`, wrapping; there are 65,534 of them."""
    for step in range(1, LAST_MARK // MARK_STEP + 1):
        mark = Mark((last // MARK_STEP + step - 1) % (LAST_MARK // MARK_STEP) * MARK_STEP + MARK_STEP)
        if mark not in taken:
            return mark
    raise OverflowError("all 65,534 tenant marks are taken")


def _salt(gateway: str, tenant: str, links: set[LinkName], macs: set[Mac]) -> str:
    """Return the tenant's name, with a suffix if its hash is taken."""
    salt, turn = tenant, 0
    while link_name(gateway, salt) in links or mac_of(gateway, salt) in macs:
        turn += 1
        salt = f"{tenant}#{turn}"
    return salt


def _serve_pools(
    intent: Intent, facts: Facts, ledger: Ledger, gateway: EgressGateway
) -> tuple[Ledger, tuple[Finding, ...]]:
    """Give pool addresses to tenants that claim them. A standing allocation stays, whatever became of the pool's
    ranges.
    """
    claimants = [t for t in intent.tenants_of(gateway) if t.claim is not None and not _is_served(t, t.claim, ledger)]
    if not claimants:
        return ledger, ()
    pools = {pool.name: pool for pool in intent.pools}
    namespaces = NamespaceIndex(intent.namespaces)
    taken = _taken(intent, ledger, facts)
    allocations = dict(ledger.tenants)
    findings: list[Finding] = []
    for tenant in sorted(claimants, key=lambda t: t.name):
        assert tenant.claim is not None
        mine = allocations[tenant.name]
        if tenant.allocated is not None:
            allocations[tenant.name], found = _given(tenant, tenant.claim, tenant.allocated, mine)
            findings += found
            continue
        standing = mine.pool_addresses[: tenant.claim.count] if mine.pool == tenant.claim.pool else ()
        missing = tenant.claim.count - len(standing)
        pool = pools.get(tenant.claim.pool)
        refusal = pool_refusal(tenant, pool, pools, namespaces)
        if refusal is not None or pool is None:
            findings += [refusal] if refusal else []
            continue
        fresh = _free(pool, missing, taken, ledger, tenant.name)
        if len(fresh) < missing:
            findings.append(_exhausted(tenant, pool, missing, len(fresh)))
        taken |= set(fresh)
        allocations[tenant.name] = replace(mine, pool=pool.name, pool_addresses=(*standing, *fresh))
    if allocations == dict(ledger.tenants):
        return ledger, tuple(findings)
    return replace(ledger, tenants=MappingProxyType(allocations)), tuple(findings)


def _is_served(tenant: EgressTenant, claim: PoolClaim, ledger: Ledger) -> bool:
    """Whether a tenant has exactly what it claims."""
    mine = ledger.tenants[tenant.name]
    is_whole = mine.pool == claim.pool and len(mine.pool_addresses) == claim.count
    return is_whole and tenant.allocated in (None, mine.pool_addresses)


def _given(
    tenant: EgressTenant, claim: PoolClaim, allocated: tuple[Address, ...], mine: Allocation
) -> tuple[Allocation, tuple[Finding, ...]]:
    """Return the allocation of a tenant whose addresses are given elsewhere. What was given and is no longer said (a
    status that was lost with a restore) stays until something else is said.
    """
    standing = mine.pool_addresses if mine.pool == claim.pool else ()
    given = replace(mine, pool=claim.pool, pool_addresses=allocated or standing)
    if len(allocated) == claim.count:
        return given, ()
    text = f"has {len(allocated)} of {claim.count} addresses of EgressPool/{claim.pool} in status.egressIPs"
    fix = "see why in its conditions; is `outgate cluster run` alive?"
    severity = Severity.WARNING if given.pool_addresses else Severity.REFUSAL
    return given, (Finding("NotAllocated", f"EgressTenant/{tenant.name}", text, severity, fix, tenant.origin),)


def _taken(intent: Intent, ledger: Ledger, facts: Facts) -> set[Address]:
    """Return addresses that no pool may give: listed, given, retiring, on the machine, a node's, or answered by
    somebody else.
    """
    listed = {ip for tenant in intent.tenants for ip in tenant.egress_ips}
    special = {ip for tenant in intent.tenants for rule in tenant.destinations for ip in rule.egress_ips}
    given = {ip for allocation in ledger.tenants.values() for ip in allocation.pool_addresses}
    nodes = {ip for node in intent.nodes for ip in node.internal_ips}
    machine = {have.address for have in facts.addresses}
    return listed | special | given | nodes | machine | {*ledger.holdings, *ledger.retiring, *facts.conflicts}


def pool_refusal(
    tenant: EgressTenant, pool: EgressPool | None, pools: Mapping[str, EgressPool], namespaces: NamespaceIndex
) -> Finding | None:
    """Return why a tenant may not claim from a pool, or None."""
    about = f"EgressTenant/{tenant.name}"
    assert tenant.claim is not None
    if pool is None:
        known = ", ".join(sorted(pools)) or "none"
        text = f"claims from EgressPool/{tenant.claim.pool}, which does not exist (there are: {known})"
        return Finding(
            "PoolUnknown", about, text, Severity.REFUSAL, "create the pool or correct spec.fromPool.name", tenant.origin
        )
    if pool.allowed_namespaces is None:
        return None
    mine = namespaces.select(tenant.namespace_selector) if tenant.namespace_selector else ()
    allowed = set(namespaces.select(pool.allowed_namespaces))
    strangers = [name for name in mine if name not in allowed]
    if mine and not strangers:
        return None
    text = f"may not claim from EgressPool/{pool.name}: " + (
        f"it selects {', '.join(strangers[:3])}, which spec.allowedNamespaces does not"
        if strangers
        else "it selects no namespace"
    )
    return Finding(
        "PoolNotAllowed",
        about,
        text,
        Severity.REFUSAL,
        "ask the owner of the pool, or narrow the selector",
        tenant.origin,
    )


def _free(pool: EgressPool, count: int, taken: set[Address], ledger: Ledger, tenant: str) -> tuple[Address, ...]:
    """Return up to `count` free addresses of a pool, lowest first; one that rests goes only to the tenant that released
    it.
    """
    found: list[Address] = []
    for span in pool.ranges:
        number, last = int(span.first), int(span.last)
        while number <= last and len(found) < count:
            address = type(span.first)(number)
            hole = next((out for out in pool.excludes if address in out), None)
            rest = ledger.resting.get(address)
            if hole is not None:
                number = int(hole.last)
            elif address not in taken and (rest is None or rest.tenant == tenant):
                found.append(address)
            number += 1
    return tuple(found)


def _exhausted(tenant: EgressTenant, pool: EgressPool, wanted: int, got: int) -> Finding:
    text = f"asks EgressPool/{pool.name} for {wanted} more addresses, and {got} are free (resting ones are not)"
    fix = "widen spec.ranges, release addresses, or wait for the quarantine"
    return Finding("PoolExhausted", f"EgressTenant/{tenant.name}", text, Severity.REFUSAL, fix, tenant.origin)


def _moved(ledger: Ledger, decided: Claims, before: tuple[Ledger, Claims] | None) -> frozenset[str] | None:
    """Return the tenants whose holdings an earlier allocation has not settled with these very claims; None: all."""
    if before is None:
        return None
    had, claimed = before
    if ledger.holdings is not had.holdings or ledger.retiring is not had.retiring or ledger.resting is not had.resting:
        return None
    if decided.by_address is claimed.by_address:
        return frozenset()
    return decided.moved if decided.grounds is claimed.grounds else None


def _hold_unasked(facts: Facts, ledger: Ledger, decided: Claims) -> Ledger:
    """Hold what is claimed where nobody is to be asked first. What somebody else has answered for is not taken."""
    fresh = {}
    claimed, held = copied(decided.by_address), copied(ledger.holdings)
    for address in set(claimed).difference(held):  # hashes none of them again
        claim = decided.by_address[address]
        if address not in facts.conflicts and claim.link in facts.links:
            fresh[address] = Holding(tenant=claim.tenant, link=claim.link, egress=claim.egress)
    return replace(ledger, holdings=MappingProxyType({**copied(ledger.holdings), **fresh})) if fresh else ledger


def _settle_holdings(
    intent: Intent, ledger: Ledger, decided: Claims, moment: Moment, moved: frozenset[str] | None
) -> Ledger:
    """Move addresses that their tenant no longer claims: to retiring (drain), else to resting; next hops are just let
    go. `moved` are the tenants whose claims are others than before; None: perhaps all.
    """
    holdings, retiring, resting = copied(ledger.holdings), copied(ledger.retiring), copied(ledger.resting)
    asked = {tenant.name: tenant for tenant in intent.tenants}
    kept = unreadable(intent)
    for address, held in ledger.holdings.items():
        if moved is not None and held.tenant not in moved:
            continue
        claim = decided.by_address.get(address)
        if claim is not None and claim.tenant == held.tenant:
            if claim.link != held.link:
                holdings[address] = Holding(tenant=held.tenant, link=claim.link, egress=claim.egress)
            continue
        if held.tenant in kept:
            continue
        del holdings[address]
        if not held.egress:
            continue
        tenant, allocation = asked.get(held.tenant), ledger.tenants.get(held.tenant)
        if tenant is not None and allocation is not None and tenant.on_change is OnChange.DRAIN:
            until = moment.now_s + LONGEST_DRAIN_S
            retiring[address] = Retiring(tenant=held.tenant, link=held.link, mark=allocation.mark, until_s=until)
        else:
            resting[address] = Resting(tenant=held.tenant, until_s=moment.now_s + quarantine_s(address, intent.pools))
    for address in [a for a, old in retiring.items() if (c := decided.by_address.get(a)) and c.tenant == old.tenant]:
        old = retiring.pop(address)  # taken back by its tenant while it drained: it never stopped being ours
        holdings[address] = Holding(tenant=old.tenant, link=decided.by_address[address].link)
    for address in [a for a, old in retiring.items() if old.tenant not in asked]:
        old = retiring.pop(address)
        resting[address] = Resting(tenant=old.tenant, until_s=moment.now_s + quarantine_s(address, intent.pools))
    if (holdings, retiring, resting) == (ledger.holdings, ledger.retiring, ledger.resting):
        return ledger
    return replace(
        ledger,
        holdings=MappingProxyType(holdings),
        retiring=MappingProxyType(retiring),
        resting=MappingProxyType(resting),
    )
