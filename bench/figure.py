"""One figure: what was measured, what the rival took, and whether the goal is met."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured value. `ratio` is value / rival_value; `met` is None where there is no goal, only a number to know."""

    name: str
    value: float
    unit: str
    rival: str = ""
    rival_value: float | None = None
    goal: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the rival's value ours is."""
        return self.value / self.rival_value if self.rival_value else None

    def row(self) -> dict[str, object]:
        """Return the figure as a line of the record."""
        return {**asdict(self), "ratio": self.ratio}

    def __str__(self) -> str:
        rival = f"{self.rival} {self.rival_value:.4g}" if self.rival_value is not None else "-"
        ratio = f"{self.ratio:.3g}" if self.ratio is not None else "-"
        met = {True: "met", False: "MISSED", None: ""}[self.met]
        return f"{self.name:<44} {self.value:>10.4g} {self.unit:<6} {rival:<34} {ratio:>8}  {self.goal:<24} {met}"


def at_most_times(name: str, value: float, rival: tuple[str, float], times: float, unit: str = "s") -> Figure:
    """Return a figure whose goal is at most so many times the rival's value."""
    met = value <= rival[1] * times
    return Figure(
        name=name, value=value, unit=unit, rival=rival[0], rival_value=rival[1], goal=f"at most {times:g} x", met=met
    )


def faster(name: str, value: float, rival: tuple[str, float], times: float, unit: str = "s") -> Figure:
    """Return a figure whose goal is to be so many times faster than the rival."""
    met = value * times <= rival[1]
    return Figure(
        name=name, value=value, unit=unit, rival=rival[0], rival_value=rival[1], goal=f"{times:g} x faster", met=met
    )


def at_most(name: str, value: float, limit: float, unit: str, rival: tuple[str, float] | None = None) -> Figure:
    """Return a figure whose goal is an absolute limit; a rival is shown beside it."""
    told = {"rival": rival[0], "rival_value": rival[1]} if rival else {}
    return Figure(name=name, value=value, unit=unit, goal=f"at most {limit:g} {unit}", met=value <= limit, **told)  # type: ignore[arg-type]


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes, once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median(times: int, work: Callable[[], float]) -> float:
    """Return the median of several measurements."""
    return statistics.median(work() for _ in range(times))
