"""Byte budgets with a period: the kernel counts and stops, but never begins anew; and a table that is loaded anew
begins at nothing.

So what each tenant has used is remembered (in the ledger, with the wall-clock start of its period), handed to every
load of the table, and begun anew when the period is over. Pure: the caller brings the time and the counts, and does the
resetting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from outgate.model.intent import EgressTenant
from outgate.model.ledger import Ledger
from outgate.model.net import Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The ledger with what was used, and the marks whose period begins anew now."""

    ledger: Ledger
    renewed: tuple[Mark, ...] = ()


def settle_quotas(ledger: Ledger, tenants: Iterable[EgressTenant], used: Mapping[Mark, int], now_s: float) -> Budgets:
    """Return what each tenant with a quota has used by now; those whose period is over begin anew.

    Periods follow each other without gaps from a tenant's first one, however seldom this is called. A count that is
    lower than the remembered one comes from a table that was loaded without it: the higher one holds.
    """
    remembered: dict[str, tuple[int, float]] = {}
    renewed: list[Mark] = []
    for tenant in tenants:
        allocation = ledger.tenants.get(tenant.name)
        if tenant.quota is None or allocation is None:
            continue
        before, start_s = ledger.quota_used.get(tenant.name, (0, now_s))
        over = int((now_s - start_s) // tenant.quota.period_s)
        if over > 0:
            renewed.append(allocation.mark)
            remembered[tenant.name] = (0, start_s + over * tenant.quota.period_s)
        else:
            remembered[tenant.name] = (max(before, used.get(allocation.mark, 0)), start_s)
    if remembered == dict(ledger.quota_used):
        return Budgets(ledger=ledger)
    return Budgets(ledger=replace(ledger, quota_used=MappingProxyType(remembered)), renewed=tuple(renewed))


def used_by_mark(ledger: Ledger) -> dict[Mark, int]:
    """Return what a table that is loaded anew must begin with."""
    marks = {name: allocation.mark for name, allocation in ledger.tenants.items()}
    return {marks[name]: used for name, (used, _) in ledger.quota_used.items() if name in marks and used}
