"""Waiting for something to become true, for demos and tests: ask again and again, up to a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.01  # short beside what is waited for, long beside what asking costs


def eventually(answer: Callable[[], T], what: str, *, within_s: float = 10.0) -> T:
    """Return the first answer that is true, or anything but empty.

    Raises:
        TimeoutError: it was not so within the limit; the message says `what` was waited for and the last answer.
    """
    end = time.monotonic() + within_s
    while not (latest := answer()):
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {within_s:g} s: {what}; at last {latest!r}")
        time.sleep(_PAUSE_S)
    return latest


async def comes_true(answer: Callable[[], T], what: str, *, within_s: float = 20.0) -> T:
    """Return as `eventually`, and let the running loop turn meanwhile.

    Raises:
        TimeoutError: as `eventually`.
    """
    end = time.monotonic() + within_s
    while not (latest := answer()):
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {within_s:g} s: {what}; at last {latest!r}")
        await asyncio.sleep(_PAUSE_S)
    return latest
