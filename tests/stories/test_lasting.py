"""A finding that goes by itself is never told; one that stays is."""

from __future__ import annotations

from outgate.control.lasting import Lasting
from outgate.model.why import Finding

STAYS, PASSES = (Finding("SnatMissing", f"Pod/shop/{name}", "lacks it") for name in ("a", "b"))


def test_only_what_was_there_all_the_time_counts() -> None:
    lasting = Lasting(10.0)

    assert lasting.of((STAYS, PASSES), 100.0) == ()
    assert lasting.of((STAYS,), 105.0) == ()
    assert lasting.of((STAYS, PASSES), 110.0) == (STAYS,)
    assert lasting.of((PASSES,), 119.9) == ()
    assert lasting.of((PASSES,), 120.0) == (PASSES,)


def test_what_comes_back_is_new() -> None:
    lasting = Lasting(10.0)
    for now_s, there in ((0.0, (STAYS,)), (10.0, ()), (11.0, (STAYS,))):
        assert lasting.of(there, now_s) == ()
    assert lasting.of((STAYS,), 21.0) == (STAYS,)
