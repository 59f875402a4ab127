"""How patient the reflectors are, in one place. Tests pass shorter ones; the defaults are the product's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds, except `page`, which is objects per page of a list."""

    page: int = 500
    list_deadline_s: float = 30.0  # for one page
    list_every_s: float = 5.0  # at most one list per kind in this time
    agree_after_s: float = 5.0  # a second list that confirms deletions in bulk comes this much later
    start_jitter_s: float = 10.0
    watch_least_s: int = 40  # the server is asked to end a watch after a time between these two
    watch_most_s: int = 55
    stall_s: float = 5.0  # a watch that has not ended so long after its time is dead
    first_byte_s: float = 5.0
    quick_s: float = 1.0  # a watch that ends sooner than this counts as one that did not work
    pause_first_s: float = 1.0
    pause_most_s: float = 30.0
    recheck_s: float = 60.0  # kinds that are absent or denied are asked for again
    gather_s: float = 0.005  # events that arrive together are published together
