"""A gateway's daemon without its start-up time: a warm process that forks a child for each order.

The child is the real daemon on the real machine, with its lock, its state file and its manifests; it runs rounds until
nothing is left to do and ends. Told to, it kills itself at the n-th boundary of its writing: between two packets to the
kernel, two transactions of the table, before and behind the saving of the ledger, behind the deletion of flows.

The warm process is started inside the gateway machine's namespace (`Warm`), and reads orders and writes answers as JSON
lines.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import msgspec

from outgate.control.daemon import Report
from outgate.lab.namespace import Namespace
from outgate.model.flow import Flow
from outgate.model.ledger import Ledger
from outgate.model.state import Outcome
from outgate.roles.gateway import LiveFlows, flush, opened
from outgate.roles.options import GatewayOptions
from outgate.systems.nft import program

SOON_S = 1.0  # a rest that ends so soon is waited for
LIMIT_S = 20.0  # for one child; generous: it needs some tenths of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended: the boundaries it came by, whether it was killed at the last of them, what it found."""

    boundaries: tuple[str, ...] = ()
    killed: bool = False
    error: str = ""
    changed: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


class Warm:
    """The owner's end of a warm gateway process."""

    def __init__(self, net: Namespace, place: Path) -> None:
        command = [sys.executable, __file__, str(place)]
        self._log = (place / "warm.log").open("a")
        self._child = net.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, tied=False)

    def converge(self, *, kill_at: int = 0) -> Ended:
        """Run rounds until nothing is left to do; 0 kills nowhere. The user is sure: the brake is told elsewhere."""
        return self._order("converge", kill_at)

    def flush(self, *, kill_at: int = 0) -> Ended:
        """Remove all that is outgate's."""
        return self._order("flush", kill_at)

    def close(self) -> None:
        """End the process."""
        self._child.communicate()
        self._log.close()

    def _order(self, deed: str, kill_at: int) -> Ended:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps({"do": deed, "kill_at": kill_at}) + "\n")
        self._child.stdin.flush()
        ended = msgspec.json.decode(self._child.stdout.readline(), type=Ended)
        if ended.error:
            raise AssertionError(f"{deed}, killed at {kill_at}: {ended}")
        return ended


@dataclass(slots=True)
class Fuse:
    """Counts boundaries, tells their names to the warm process, and kills at one of them."""

    kill_at: int
    pipe: int
    passed: int = 0

    def __call__(self, place: str) -> None:
        """Let a boundary pass, or die there."""
        self.passed += 1
        os.write(self.pipe, f"{place}\n".encode())
        if self.passed == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(slots=True)
class FusedFlows:
    """Connection tracking with a boundary behind each deletion."""

    fuse: Fuse
    live: LiveFlows = field(default_factory=LiveFlows)

    def flows(self, *, mark: int | None = None, mask: int | None = None) -> Iterable[Flow]:
        """Return live flows."""
        return self.live.flows(mark=mark, mask=mask)

    def delete(self, flows: Iterable[Flow]) -> int:
        """Delete flows."""
        self.fuse("before flows end")
        ended = self.live.delete(flows)
        self.fuse("flows ended")
        return ended


def words(outcome: Outcome) -> list[str]:
    """Return what was made and dropped, in words."""
    return [str(resource) for resource in (*outcome.changes.make, *outcome.changes.drop)]


def converge(options: GatewayOptions, fuse: Fuse) -> tuple[Report, list[str]]:
    """Run the daemon until nothing is left to do or to ask; return the last report and all that was changed."""
    last, changed = Report(), list[str]()

    def told(report: Report) -> None:
        nonlocal last
        last = report
        changed.extend(words(report.outcome))
        if report.decided is None or not report.outcome.converged or report.decided.desired.probes:
            return
        if all(rest.until_s > time.time() + SOON_S for rest in report.decided.ledger.resting.values()):
            gateway.loop.stop()

    with opened(options, told) as gateway:
        save = gateway.daemon.parts.save

        def fused_save(ledger: Ledger) -> None:
            fuse("before the ledger is saved")
            save(ledger)
            fuse("ledger saved")

        gateway.daemon.parts = replace(gateway.daemon.parts, save=fused_save, flows=FusedFlows(fuse))
        gateway.machine.boundary = fuse
        gateway.loop.at("limit", gateway.loop.now_s() + LIMIT_S, gateway.loop.stop)
        gateway.daemon.run()
    return last, changed


def run_child(deed: str, options: GatewayOptions, fuse: Fuse, answer: int) -> NoReturn:
    """Carry out an order as the forked child, and end without a trace of the process it was forked from."""
    if deed == "flush":
        outcome = flush(options, boundary=fuse)
        said: dict[str, object] = {"changed": words(outcome)}
        undone = not outcome.converged
    else:
        report, changed = converge(options, fuse)
        outcome = report.outcome
        said = {"changed": changed, "findings": [finding.reason for finding in report.findings]}
        undone = report.decided is None or not outcome.converged or bool(report.error)
    error = f"left {outcome.left} refused {outcome.failures}" if undone else ""
    os.write(answer, json.dumps({**said, "error": error}).encode())
    os._exit(0)


def carry_out(deed: str, options: GatewayOptions, kill_at: int) -> Ended:
    """Fork a child, wait for its end, and say how it ended."""
    (names, name_pipe), (answers, answer_pipe) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        run_child(deed, options, Fuse(kill_at, name_pipe), answer_pipe)
    os.close(name_pipe)
    os.close(answer_pipe)
    with os.fdopen(names) as boundaries, os.fdopen(answers) as answer:
        passed, said = tuple(boundaries.read().splitlines()), answer.read()
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if said:
        return Ended(boundaries=passed, **json.loads(said))
    return Ended(boundaries=passed, killed=killed, error="" if killed else f"ended with status {status}")


def main(place: Path, orders: Iterable[str], answered: Callable[[str], object]) -> None:
    """Carry out orders until there are no more."""
    logging.basicConfig(level=logging.INFO)
    options = GatewayOptions(manifests=place / "manifests", state=place / "state", run=place / "run", sure=True)
    program.version()  # remembered by all children
    for line in orders:
        order = json.loads(line)
        answered(json.dumps(asdict(carry_out(order["do"], options, order["kill_at"]))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin, lambda text: print(text, flush=True))
