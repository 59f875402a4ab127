"""Write the table `inet outgate`, in the calling thread's network namespace. Each call is one transaction.

A transaction that is refused changes nothing. Then the elements that it was refused for are looked for, by asking the
kernel about parts of it without putting them in force, and the rest is written: one bad element stops only itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from outgate.model.errors import Refused
from outgate.model.net import Mark
from outgate.model.ruleset import Element, Table
from outgate.model.state import Failure
from outgate.systems.nft import program, render
from outgate.systems.nft.read import NO_TRUST, Reading, generation, read
from outgate.systems.nft.table import GATEWAY, digest

QUESTIONS = (
    200  # to the kernel about one refused transaction, 10 to 40 ms each: some seconds, then the rest counts as bad
)
NOTHING_USED: Mapping[Mark, int] = MappingProxyType({})

_WRITE, _ASK = ("-j", "-f", "-"), ("-j", "-c", "-f", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What came of loading: the elements that were refused, the table as it reads now, and how this nft lists it.

    `learned` is for the `trusted` of `read`; it is empty when somebody else wrote between loading and reading.
    """

    failures: tuple[Failure, ...]
    reading: Reading
    learned: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Step:
    """What is written together: an element to make, or to drop, or to make where the one to drop stands."""

    make: Element | None
    drop: Element | None

    @property
    def element(self) -> Element:
        """The element that this is about."""
        chosen = self.make or self.drop
        assert chosen is not None
        return chosen

    def unfit(self) -> str:
        """Return why it can not be written, or an empty string. What is dropped has whatever value somebody gave it."""
        return render.unfit(self.make) if self.make else render.unfit_key(self.element)


_Document: TypeAlias = Callable[[Iterable[_Step]], bytes]


def load(elements: Collection[Element], *, used: Mapping[Mark, int] = NOTHING_USED, of: str = GATEWAY) -> Loaded:
    """Replace the whole table, there or not, by a gateway's or a node's with these elements.

    Packets see the old one or the new. Counts begin at 0, and so does what a tenant has used of its quota, unless
    `used` says more (bytes).

    Raises:
        NotReady: nft is not installed, or too old.
        Refused: the table itself, or for a reason that is no element's; nothing is changed.
        Unreachable: netlink or nft does not answer.
    """
    before = generation()
    steps = [_Step(element, None) for element in elements]
    failures = _write(
        steps, lambda part: render.load(_made(part), used, of), f"load the table with {len(elements)} elements"
    )
    reading = read()
    alone = reading.generation == generation() == before + 1
    if alone and reading.listing != digest(of):
        learned = MappingProxyType({reading.listing: digest(of)})
        return Loaded(failures=failures, reading=replace(reading, table=Table(digest(of))), learned=learned)
    return Loaded(failures=failures, reading=reading, learned=NO_TRUST)


def write(
    make: Collection[Element],
    drop: Collection[Element],
    *,
    actual: AbstractSet[Element],
    used: Mapping[Mark, int] = NOTHING_USED,
) -> tuple[Failure, ...]:
    """Make and drop elements of the table that is there, and return those that were refused (without a table, all).

    `actual` are the elements that were read: one that is to be made where another value stands replaces it. `used` as
    in `load`, for quotas that are made.

    Raises:
        NotReady: nft is not installed, or too old.
        Refused: for a reason that is no element's; nothing is changed.
        Unreachable: nft does not answer.
    """
    change = f"make {len(make)} and drop {len(drop)} elements"
    steps = [_Step(None, element) for element in drop]
    steps += [_Step(element, old) for element, old in _with_old(make, actual)]
    if not steps:
        return ()
    return _write(steps, lambda part: render.delta(_made(part), _dropped(part), used), change)


def renew(marks: Iterable[Mark]) -> None:
    """Let the quotas of these tenants begin anew; a table without them is left as it is.

    Raises:
        NotReady: nft is not installed, or too old.
        Refused: one of them has no quota; none begins anew.
        Unreachable: nft does not answer.
    """
    wanted = tuple(marks)
    if wanted:
        program.run(_WRITE, render.renewal(wanted), change=f"begin {len(wanted)} quotas anew")


def remove() -> None:
    """Delete the table; without one, do nothing.

    Raises:
        NotReady: nft is not installed, or too old.
        Refused: with nft's words.
        Unreachable: nft does not answer.
    """
    program.run(_WRITE, render.removal(), change="delete the table")


def _with_old(make: Collection[Element], actual: AbstractSet[Element]) -> Iterator[tuple[Element, Element | None]]:
    """Yield each element that is not there yet, with the one that stands in its place under another value."""
    missing = [element for element in make if element not in actual]
    valued = {(element.set, element.key) for element in missing if element.value is not None}
    names = {name for name, _ in valued}
    there = (element for element in actual if element.set in names)
    old = {slot: element for element in there if (slot := (element.set, element.key)) in valued}
    for element in missing:
        yield element, old.get((element.set, element.key))


def _write(steps: Sequence[_Step], document: _Document, change: str) -> tuple[Failure, ...]:
    """Write all steps that the kernel takes in one transaction, and return the others."""
    failures = [Failure(step.element, reason) for step in steps if (reason := step.unfit())]
    bad = {failure.resource for failure in failures}
    fit = [step for step in steps if step.element not in bad] if bad else steps
    try:
        program.run(_WRITE, document(fit), change=change)
    except Refused as refused:
        if _refusal(document(())):
            raise
        good, refusals = _sift(fit, document)
        if not refusals:
            raise Refused(change, refused.words) from refused
        program.run(_WRITE, document(good), change=change)
        failures += refusals
    return tuple(failures)


def _sift(steps: Sequence[_Step], document: _Document) -> tuple[list[_Step], list[Failure]]:
    """Return the steps that the kernel takes together, and the others with its words.

    A set's elements can only be refused for what is in that set, so that each is asked about alone; drops come first,
    since they make room. What is still untold after `QUESTIONS` counts as refused.
    """
    by_set: dict[str, list[_Step]] = {}
    for step in sorted(steps, key=lambda step: step.make is not None):
        by_set.setdefault(step.element.set, []).append(step)
    good: list[_Step] = []
    refusals: list[Failure] = []
    asked = 0
    for each in by_set.values():
        taken: list[_Step] = []
        parts = [each]
        while parts:
            part = parts.pop()
            words = _refusal(document([*taken, *part])) if asked < QUESTIONS else f"refused, or one of {len(part)} is"
            asked += 1
            if not words:
                taken += part
            elif len(part) == 1 or asked > QUESTIONS:
                refusals += [Failure(step.element, words) for step in part]
            else:
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
        good += taken
    return good, refusals


def _refusal(document: bytes) -> str:
    """Return the kernel's words about a transaction that is not put in force; empty: it would take it."""
    try:
        program.run(_ASK, document, change="ask")
    except Refused as refused:
        return refused.words
    return ""


def _made(steps: Iterable[_Step]) -> list[Element]:
    return [step.make for step in steps if step.make is not None]


def _dropped(steps: Iterable[_Step]) -> list[Element]:
    return [step.drop for step in steps if step.drop is not None]
