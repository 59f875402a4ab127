"""Desired against actual. An empty result is the definition of converged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

from outgate.compare.order import drop_rank, make_rank
from outgate.model.state import Changes, Resource
from outgate.model.why import Because


def changes(
    wants: Mapping[Resource, Because], actual: AbstractSet[Resource], spare: Collection[Resource] = ()
) -> Changes:
    """Return what to make and what to drop, each in the order in which it must be written.

    A resource whose slot is wanted with another value is not dropped: making the new value replaces it in one
    operation, so that there is no moment without either. `spare` is left alone although it is not wanted.
    """
    missing = wants.keys() - actual
    extra = actual - wants.keys()
    slots = {resource.slot for resource in missing} if extra else set()
    kept = set(spare)
    return Changes(
        make=tuple(sorted(missing, key=lambda r: (make_rank(r), str(r)))),
        drop=tuple(
            sorted((r for r in extra if r.slot not in slots and r not in kept), key=lambda r: (drop_rank(r), str(r)))
        ),
    )
