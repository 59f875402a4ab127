"""Desired against actual. An empty result is the definition of converged.

Both are sets of some 50,000 values, of which a round changes a few. A set difference between a set and its successor
costs a millisecond, because the members are the very same objects; between two sets of equal values that were made
apart it costs fifty. So the difference of an earlier round is carried on from what has changed on either side.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from outgate.compare.order import drop_rank, make_rank
from outgate.model.net import Route
from outgate.model.state import Changes, Resource

BULK = (
    5_000  # from so many changes on, nobody reads them one by one, and sorting them by name costs a tenth of a second
)

_NOTHING: frozenset[Resource] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two sets differ. `moved` is what has come or gone on either side since an earlier difference; None: there
    was none, so all may have.
    """

    wanted: frozenset[Resource]
    actual: frozenset[Resource]
    missing: frozenset[Resource]
    extra: frozenset[Resource]
    moved: frozenset[Resource] | None = None


def difference(
    wanted: frozenset[Resource], actual: frozenset[Resource], before: Difference | None = None
) -> Difference:
    """Return what is wanted and not there, and what is there and not wanted.

    `before` is an earlier difference of the same two sides; the result is the same without it, `moved` aside.
    """
    if before is None:
        missing = wanted - actual
        extra = _NOTHING if len(wanted) - len(missing) == len(actual) else actual - wanted
        return Difference(wanted, actual, missing, extra)
    came, went = _since(wanted, before.wanted)
    appeared, vanished = _since(actual, before.actual)
    return Difference(
        wanted=wanted,
        actual=actual,
        missing=_without(wanted, actual, before.missing | came | vanished),
        extra=_without(actual, wanted, before.extra | went | appeared),
        moved=came | went | appeared | vanished,
    )


def changes_of(
    found: Difference,
    wants: Iterable[Resource],
    present: AbstractSet[Resource] = _NOTHING,
    spare: Collection[Resource] = (),
) -> Changes:
    """Return what to make and what to drop, each in the order in which it must be written.

    A resource whose slot is wanted with another value is not dropped: making the new value replaces it in one
    operation, so that there is no moment without either. Of a route whose legs differ all are made, for that reason.
    `wants` is `found.wanted` in the order of the plan; `present` is there beside `found.actual`; `spare` is left alone
    although it is not wanted.
    """
    extra = found.extra | (present - found.wanted)
    missing = found.missing - present
    missing |= _other_legs(found.wanted, missing | extra)
    slots = {resource.slot for resource in missing} if extra else set()
    kept = set(spare)
    make = sorted(missing, key=str) if len(missing) < BULK else [r for r in wants if r in missing]
    drop = sorted((r for r in extra if r.slot not in slots and r not in kept), key=str)
    return Changes(make=tuple(sorted(make, key=make_rank)), drop=tuple(sorted(drop, key=drop_rank)))


def changes(wants: Collection[Resource], actual: Iterable[Resource], spare: Collection[Resource] = ()) -> Changes:
    """Return what turns the actual into the wanted, in the order of writing."""
    return changes_of(difference(frozenset(wants), frozenset(actual)), wants, spare=spare)


def _other_legs(wanted: frozenset[Resource], differing: frozenset[Resource]) -> frozenset[Resource]:
    """Return the wanted legs of all routes of several next hops that differ in any leg."""
    slots = {one.slot for one in differing if isinstance(one, Route) and one.weight}
    if not slots:
        return _NOTHING
    return frozenset(one for one in wanted if isinstance(one, Route) and one.weight and one.slot in slots)


def _without(
    these: frozenset[Resource], those: frozenset[Resource], candidates: frozenset[Resource]
) -> frozenset[Resource]:
    """Return `these` without `those`, of which nothing can be but the candidates."""
    if len(candidates) > len(these) // 4:
        return these - those
    return frozenset(resource for resource in candidates if resource in these and resource not in those)


def _since(now: frozenset[Resource], then: frozenset[Resource]) -> tuple[frozenset[Resource], frozenset[Resource]]:
    """Return what has come and what has gone."""
    return (_NOTHING, _NOTHING) if now is then else (now - then, then - now)
