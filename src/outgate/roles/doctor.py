"""Looking at a gateway for the doctor: the plan and the machine, what lives around them, and, if asked, who answers."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from outgate.control.round import Decided
from outgate.model.check import Check
from outgate.model.net import Address, LinkName, Mac
from outgate.plan.claims import Claim
from outgate.plan.doctor.examine import examine
from outgate.plan.gateway import PlanMemory, plan_claims
from outgate.roles.sight import Sight, surroundings_of
from outgate.systems.nft.table import digest
from outgate.systems.wire.probe import Prober

_PROBES, _RATE_PER_S = 3, 200.0
_PATIENCE_S = 5.0  # beyond what the pace needs


def diagnose(seen: Sight, *, probing: bool = False) -> tuple[Check, ...]:
    """Return what every check found. Nothing is changed; `probing` asks the LANs whether others have our addresses.

    Raises:
        NotReady: the bundle that is looked at lacks a part.
        Unreachable: the kernel does not answer.
    """
    decided = seen.decided
    if probing:
        decided = with_conflicts(decided)
    return examine(decided.snapshot, decided.desired, decided.reading, *surroundings_of(seen))


def with_conflicts(decided: Decided) -> Decided:
    """Return the decision as it is with the answers of those who have addresses of ours."""
    claims = decided.claims
    if claims is None:
        return decided
    macs = [allocation.mac for allocation in decided.ledger.tenants.values()]
    answered = probe(claims.by_address.values(), macs)
    facts = replace(
        decided.snapshot.facts, conflicts=MappingProxyType({**decided.snapshot.facts.conflicts, **answered})
    )
    snapshot = replace(decided.snapshot, facts=facts)
    known = set(decided.desired.findings)
    again = plan_claims(snapshot, claims, digest(), PlanMemory())
    findings = (*decided.desired.findings, *(finding for finding in again.findings if finding not in known))
    return replace(decided, snapshot=snapshot, desired=replace(decided.desired, findings=findings))


def probe(claims: Iterable[Claim], own_macs: Iterable[Mac]) -> dict[Address, Mac]:
    """Return who answers for addresses that are claimed here; the kernel does not answer itself.

    All addresses of a NIC are asked for side by side; it takes about a second, or as long as the pace of 200 frames a
    second needs.

    Raises:
        Unreachable: a NIC is gone or can not be listened on.
    """
    by_link: dict[LinkName, list[Address]] = {}
    for claim in claims:
        by_link.setdefault(claim.link, []).append(claim.address)
    answered: dict[Address, Mac] = {}
    for link, addresses in sorted(by_link.items()):
        prober = Prober(link, probes=_PROBES, rate_per_s=_RATE_PER_S)
        try:
            prober.hold((), list(own_macs))
            prober.start(addresses, time.monotonic())
            answered.update(_heard(prober))
        finally:
            prober.close()
    return answered


def _heard(prober: Prober) -> dict[Address, Mac]:
    """Run a prober until each address is free or answered for; a NIC that lets no probe out is given up."""
    answered: dict[Address, Mac] = {}
    next_s = prober.tick(time.monotonic()).next_s
    deadline_s = time.monotonic() + _PATIENCE_S + len(prober.probed) * _PROBES / _RATE_PER_S
    while next_s is not None and time.monotonic() < deadline_s:
        readable, _, _ = select.select([prober], [], [], max(0.0, next_s - time.monotonic()))
        if readable:
            answered.update((conflict.address, conflict.mac) for conflict in prober.receive())
        next_s = prober.tick(time.monotonic()).next_s
    return answered
