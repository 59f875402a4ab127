"""Somebody types a command, and types it wrong: what they read is a sentence, never a traceback."""

from __future__ import annotations

import pytest

from outgate.cli.main import FAILED, run


def test_a_time_to_confirm_that_is_no_duration_is_refused_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["gateway", "apply", "--confirm-within", "soon"])

    assert code == FAILED
    assert capsys.readouterr().err == (
        'outgate: --confirm-within "soon" is no duration; write a number and s, m, h or d, as in "5m" or "24h"\n'
    )


def test_a_time_to_confirm_beyond_a_day_is_refused_with_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["gateway", "apply", "--confirm-within", "2d"])

    assert code == FAILED
    assert "is not from 1s to 1d" in capsys.readouterr().err


def test_a_command_that_nobody_knows_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["explian", "ns-blue/app-1"])

    assert code == FAILED
    assert "did you mean 'explain'?" in capsys.readouterr().err
