"""A gateway machine made of paper: it holds what was written to it, and loses or gains what a test takes or adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from outgate.model.ledger import Ledger
from outgate.model.net import LinkSetting
from outgate.model.state import Changes, Facts, Failure, Reading, Resource
from outgate.model.why import Because
from tests.stories.cluster import DIGEST, MACHINE


class PaperMachine:
    """A world for `control.round`."""

    digest = DIGEST

    def __init__(self, facts: Facts = MACHINE) -> None:
        self.reading = Reading(facts=facts)

    def read(self, ledger: Ledger) -> Reading:
        """Return what the machine holds."""
        return self.reading

    def write(self, planned: Changes, wants: Mapping[Resource, Because]) -> tuple[Failure, ...]:
        """Hold what is made, in the place of what stood in its slot, and let go of what is dropped."""
        made = {resource.slot: resource for resource in planned.make}
        gone = {resource.slot for resource in planned.drop}
        kept = {r.slot: r for r in self.reading.actual if r.slot not in gone}
        settings = {(r.link, r.setting): r.value for r in planned.make if isinstance(r, LinkSetting)}
        facts = replace(self.reading.facts, settings=MappingProxyType({**self.reading.facts.settings, **settings}))
        actual = frozenset(r for r in {**kept, **made}.values() if not isinstance(r, LinkSetting))
        self.reading = Reading(facts=facts, actual=actual)
        return ()

    def tamper(self, *, lost: frozenset[Resource] = frozenset(), found: frozenset[Resource] = frozenset()) -> None:
        """Change what the machine holds behind outgate's back."""
        self.reading = replace(self.reading, actual=self.reading.actual - lost | found)
