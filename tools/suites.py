"""Runs the test suites and sums them up: a line per suite with its time, then one line for all.

Suites run one after the other, in lanes that `+` divides: lanes run side by side, because the suites with daemons and
network namespaces wait more than they work. The first lane is shown as it comes, of the others a suite when it is done.

A suite is a folder of `tests/` here that holds test files; a name without such a folder is passed over. The suites that
build network namespaces (`kube` is one: gateways live on its API server) need root; without it they are not run, and
the summary says so loudly. The exit code is 1 when a test failed or when a suite broke before it could count its tests,
else 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPORTS = Path("build/junit")
NEEDS_ROOT = frozenset({"kernel", "gateway", "ovn", "kube", "vm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one suite came to. `broken` says why it could not be counted at all."""

    suite: str
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    broken: str = ""

    def __str__(self) -> str:
        result = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return f"{self.suite:<8} {self.seconds:7.1f} s   {f'BROKEN: {self.broken}' if self.broken else result}"


def exists(suite: str) -> bool:
    """Whether there is at least one test file in the suite's folder."""
    return any(Path("tests", suite).rglob("test_*.py"))


def run(suite: str, *, at_once: bool) -> Tally:
    """Run one suite under pytest and count it from pytest's JUnit report. Its output is shown as it comes, or later."""
    report = REPORTS / f"{suite}.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    if at_once:
        print(f"== {suite}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", f"tests/{suite}"]
    pipe, both = (None, None) if at_once else (subprocess.PIPE, subprocess.STDOUT)
    done = subprocess.run(command, check=False, text=True, stdout=pipe, stderr=both)
    if not at_once:
        print(f"== {suite}\n{done.stdout}", end="", flush=True)
    code = done.returncode
    seconds = time.monotonic() - started
    if not report.exists():
        return Tally(suite=suite, seconds=seconds, broken=f"pytest ended with {code} and left no report")
    return counted(suite, seconds, code, report)


def counted(suite: str, seconds: float, code: int, report: Path) -> Tally:
    """Read the numbers of one JUnit report; a bad exit code without a failed test counts as broken."""
    numbers = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for element in ET.parse(report).getroot().iter("testsuite"):
        for name in numbers:
            numbers[name] += int(element.get(name, "0"))
    failed = numbers["failures"] + numbers["errors"]
    if code and not failed:
        return Tally(suite=suite, seconds=seconds, broken=f"pytest ended with {code} though no test failed")
    passed = numbers["tests"] - failed - numbers["skipped"]
    return Tally(suite=suite, seconds=seconds, passed=passed, failed=failed, skipped=numbers["skipped"])


def lanes_of(words: list[str]) -> list[list[str]]:
    """Return the suites of each lane."""
    lanes: list[list[str]] = [[]]
    for word in words:
        if word == "+":
            lanes.append([])
        else:
            lanes[-1].append(word)
    return lanes


def main(words: list[str], *, is_root: bool) -> int:
    """Run the named suites, lanes side by side, print the summary, and return the exit code."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    there = [[suite for suite in lane if exists(suite)] for lane in lanes_of(words)]
    barred = [suite for lane in there for suite in lane if suite in NEEDS_ROOT and not is_root]
    lanes = [[suite for suite in lane if suite not in barred] for lane in there]

    def through(number: int) -> list[Tally]:
        return [run(suite, at_once=number == 0) for suite in lanes[number]]

    with ThreadPoolExecutor(len(lanes)) as pool:
        tallies = [tally for lane in pool.map(through, range(len(lanes))) for tally in lane]
    print()
    for tally in tallies:
        print(tally)
    for suite in barred:
        print(f"{suite:<8}           NOT RUN: it builds network namespaces and needs root (sudo make test)")
    broken = sum(bool(tally.broken) for tally in tallies)
    failed = sum(tally.failed for tally in tallies) + broken
    passed, skipped = sum(tally.passed for tally in tallies), sum(tally.skipped for tally in tallies)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:], is_root=os.geteuid() == 0))
    except KeyboardInterrupt:
        sys.exit(130)
