"""What the status of an object shall say: the word between deciding it and writing it to an API server."""

from __future__ import annotations

from dataclasses import dataclass

from outgate.model.intent import Condition, Given, Served
from outgate.model.net import Address
from outgate.model.placement import Moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the status of one object shall say. `allocated`, `given` and `moves` are None where the kind has no such
    field.
    """

    kind: str
    name: str
    namespace: str = ""
    served: Served
    conditions: tuple[Condition, ...]
    allocated: tuple[Address, ...] | None = None
    given: tuple[Given, ...] | None = None
    moves: tuple[Moved, ...] | None = None

    @property
    def about(self) -> str:
        """Return how findings name the object."""
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))

    @property
    def stands(self) -> bool:
        """Whether the status says this already."""
        standing = self.served.standing
        if standing is None:
            return False
        there = {one.type: one for one in standing.conditions}
        says = all(there.get(one.type) == one for one in self.conditions)
        if self.allocated is not None and self.allocated != standing.addresses:
            return False
        if self.moves is not None and self.moves != standing.moves:
            return False
        return says and (self.given is None or {*self.given} == {*standing.given})
