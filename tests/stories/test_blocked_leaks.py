"""A pod that nobody serves tries to leave. The gateway stops its packets, says so, and says it again after a while."""

from __future__ import annotations

from outgate.control.leaks import AGAIN_AFTER_S, BlockedLeaks


def test_what_was_stopped_is_told_with_its_number_and_then_not_again_for_a_while() -> None:
    leaks = BlockedLeaks()

    assert leaks.look({"no_identity": 0, "inbound_refused": 7}, 0.0) == ""
    first = leaks.look({"no_identity": 3, "source_refused": 2}, 30.0)
    assert "3 came in by no tenant's link (no_identity)" in first
    assert "2 had a source that its tenant does not own (source_refused)" in first
    assert leaks.look({"no_identity": 5, "source_refused": 2}, 60.0) == ""


def test_what_was_stopped_meanwhile_is_told_together() -> None:
    leaks = BlockedLeaks()
    leaks.look({"guard_dropped": 1}, 0.0)

    leaks.look({"guard_dropped": 4}, 30.0)

    assert "5 had still a pod's address" in leaks.look({"guard_dropped": 6}, AGAIN_AFTER_S)


def test_a_table_that_was_loaded_anew_counts_from_nothing() -> None:
    leaks = BlockedLeaks()
    leaks.look({"wrong_exit": 100}, 0.0)

    assert "2 were on the way out" in leaks.look({"wrong_exit": 2}, AGAIN_AFTER_S)
