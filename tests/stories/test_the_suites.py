"""`make test` ends with a line to be trusted: a test that failed, was skipped, or never started is counted as such."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.suites import main

SUITES = Path(__file__).resolve().parents[2] / "tools" / "suites.py"


def run_suites(folder: Path, *suites: str) -> tuple[int, list[str]]:
    command = [sys.executable, str(SUITES), *suites]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout.splitlines()


def write_suite(folder: Path, suite: str, text: str) -> None:
    path = folder / "tests" / suite / f"test_{suite}.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_the_last_line_sums_all_suites_and_a_missing_suite_is_passed_over(tmp_path: Path) -> None:
    write_suite(tmp_path, "stories", "def test_one(): pass\ndef test_two(): pass\n")
    write_suite(tmp_path, "laws", "import pytest\ndef test_one(): pytest.skip('no reason')\n")

    code, lines = run_suites(tmp_path, "stories", "laws", "elsewhere")

    assert code == 0
    assert lines[-1] == "2 passed, 0 failed, 1 skipped"
    assert [line.split()[0] for line in lines[-3:-1]] == ["stories", "laws"]


def test_lanes_run_side_by_side_and_are_summed_in_the_order_of_the_words(tmp_path: Path) -> None:
    meet = "import pathlib, time\ndef test_meet():\n    end = time.monotonic() + 60\n"
    for suite, other in (("stories", "laws"), ("laws", "stories")):
        wait = (
            f"    while not pathlib.Path({str(tmp_path / other)!r}).exists():\n        assert time.monotonic() < end\n"
        )
        write_suite(tmp_path, suite, f"{meet}    pathlib.Path({str(tmp_path / suite)!r}).touch()\n{wait}")

    code, lines = run_suites(tmp_path, "stories", "+", "laws")

    assert (code, lines[-1]) == (0, "2 passed, 0 failed, 0 skipped")
    assert [line.split()[0] for line in lines[-3:-1]] == ["stories", "laws"]
    assert "== laws" in lines


def test_a_failed_test_is_an_exit_code(tmp_path: Path) -> None:
    write_suite(tmp_path, "stories", "def test_one(): assert 1 == 2\n")

    code, lines = run_suites(tmp_path, "stories")

    assert (code, lines[-1]) == (1, "0 passed, 1 failed, 0 skipped")


@pytest.mark.parametrize(
    "broken", ["import os\nos._exit(0)\n", "X = 1\n"], ids=["dies without a report", "has no test"]
)
def test_a_suite_that_could_not_be_counted_is_no_success(broken: str, tmp_path: Path) -> None:
    write_suite(tmp_path, "stories", broken)

    code, lines = run_suites(tmp_path, "stories")

    assert (code, lines[-1]) == (1, "0 passed, 1 failed, 0 skipped")
    assert "BROKEN" in lines[-2]


def test_a_suite_that_needs_root_is_named_when_root_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(tmp_path, "kernel", "def test_one(): pass\n")
    monkeypatch.chdir(tmp_path)

    code = main(["kernel"], is_root=False)

    lines = capsys.readouterr().out.splitlines()
    assert (code, lines[-1]) == (0, "0 passed, 0 failed, 0 skipped")
    assert "NOT RUN" in lines[-2]
    assert "root" in lines[-2]
