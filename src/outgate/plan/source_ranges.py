"""Which of the ranges that source-identity tenants list belong to which tenant: no address to two of them.

The kernel's map of ranges holds disjoint ones only and gives each one mark, so that overlaps are decided here, by one
rule for all: what tenants list twice stays with the tenant that comes first by name, and the other one is told.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from outgate.model.intent import EgressTenant, SourceIdentity
from outgate.model.net import Prefix
from outgate.model.why import Finding, Severity

_Span = tuple[int, int, str]  # first and last address, and who has it


def outermost(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Return the prefixes that lie in no other of them, each once, IPv4 first: interval sets refuse overlaps."""
    kept: list[Prefix] = []
    version = end = -1
    for prefix in sorted(set(prefixes), key=lambda p: (p.version, int(p.network_address), p.prefixlen)):
        last = int(prefix.broadcast_address)
        if prefix.version != version or last > end:
            kept.append(prefix)
            version, end = prefix.version, last
    return kept


def lies_in(inner: Prefix, outer: Prefix) -> bool:
    """Whether a prefix is a part of another, or it itself; of two families it never is."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def grant(tenants: Iterable[EgressTenant]) -> tuple[Mapping[str, tuple[Prefix, ...]], tuple[Finding, ...]]:
    """Return the ranges that each tenant has of those that it lists, and what the others are told."""
    taken: dict[int, list[_Span]] = {4: [], 6: []}
    granted: dict[str, tuple[Prefix, ...]] = {}
    findings: list[Finding] = []
    for tenant in sorted(tenants, key=lambda one: one.name):
        if not isinstance(tenant.identity, SourceIdentity) or not tenant.identity.cidrs:
            continue
        mine: list[Prefix] = []
        for prefix in outermost(tenant.identity.cidrs):
            holder = _holder(prefix, taken[prefix.version])
            if holder is None:
                mine.append(prefix)
                insort(taken[prefix.version], (*_ends(prefix), tenant.name))
            else:
                findings.append(_listed_twice(tenant, prefix, holder))
        granted[tenant.name] = tuple(mine)
    return MappingProxyType(granted), tuple(findings)


def _ends(prefix: Prefix) -> tuple[int, int]:
    return int(prefix.network_address), int(prefix.broadcast_address)


def _holder(prefix: Prefix, taken: list[_Span]) -> str | None:
    """Return who has a part of a prefix. What is taken is disjoint and sorted, so two neighbours tell."""
    first, last = _ends(prefix)
    place = bisect_left(taken, (first,))
    if place < len(taken) and taken[place][0] <= last:
        return taken[place][2]
    if place and taken[place - 1][1] >= first:
        return taken[place - 1][2]
    return None


def _listed_twice(tenant: EgressTenant, prefix: Prefix, holder: str) -> Finding:
    text = (
        f"{prefix} is listed, in whole or in part, by EgressTenant/{holder} too, which comes first by name and keeps it"
    )
    fix = "list each source with one tenant"
    return Finding("SourceListedTwice", f"EgressTenant/{tenant.name}", text, Severity.WARNING, fix, tenant.origin)
