"""The words of `outgate doctor`: what was looked at, and how it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """How one check ended. The worst of all is the answer."""

    OK = "ok"
    WARN = "warn"  # it works, and may stop to, or works worse than it should
    FAIL = "fail"  # somebody is not served, or a guard is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at: its stable id, the sentence that holds when it is well, and what is the matter.

    A check that finds several things wrong gives one of these for each. `about` is the object or setting, `fix` what to
    do; both may be empty.
    """

    id: str
    grade: Grade
    title: str
    about: str = ""
    text: str = ""
    fix: str = ""
