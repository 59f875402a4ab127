"""The daemon with 4,000 tenants, seen from outside: changes, commands, idling, repairs, a restart; 100,000 pods."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median as middle

from bench.figure import Figure, at_most, median, seconds
from bench.scene import FIRST_EGRESS, gateway_machine, many_tenants, write_manifests
from outgate.lab.namespace import Namespace
from outgate.systems.nft.read import generation

COUNT = 4000
PATIENCE_S = 120.0
IDLE_S = 65.0  # two audits
SETTLED_S = 45.0  # the kernel tells of new links' carriers for so long: a hundred links a second
APART_S = 0.5  # between changes: each meets a daemon that has finished with the one before


def daemon_with_many_tenants() -> Iterator[Figure]:
    """The real daemon on a directory of 4,001 files.

    Change: a tenant's rate is changed by replacing its file; until the kernel's ruleset has a new number. Median of 15,
    half a second apart; rival: one `nft` that adds one element. Commands: wall time of a process, median of 5, rival
    `python -c pass`. Repair: a tenant's /32 is deleted, until it is back; 50 times. Idle: CPU over 65 s, which hold two
    audits, when the kernel has done with its new links. Restart: SIGKILL, then until `status` says OK.
    """
    with _running() as (net, place, start):
        yield at_most("daemon.start-to-ok", start, 30, "s")
        changes = [_change(net, place, number) for number in range(15)]
        one = ["nft", "add", "element", "inet", "outgate", "uplinks", "{ none0 }"]
        rival = median(5, lambda: seconds(lambda: net.run(one)))
        yield at_most("daemon.event-to-kernel", middle(changes) * 1000, 50, "ms", ("one nft add element", rival * 1000))
        bare = median(5, lambda: seconds(_interpreter))
        asked = median(5, lambda: seconds(lambda: _outgate(net, place, "gateway", "status")))
        yield at_most("command.status", asked * 1000, 300, "ms", ("python -c pass", bare * 1000))
        repairs = sorted(_repair(net, number) for number in range(50))
        yield at_most("daemon.repair-p50", repairs[25] * 1000, 2000, "ms")
        yield at_most("daemon.repair-p99", repairs[-1] * 1000, 2000, "ms")
        time.sleep(SETTLED_S)
        share, resident = _idle(place)
        yield at_most("daemon.idle-cpu", share * 100, 1, "%")
        yield at_most("daemon.idle-memory", resident, 100, "MB")
        os.kill(_pid(place), signal.SIGKILL)
        yield at_most("daemon.restart-to-ok", _start(net, place), 5, "s")


def help_text() -> Iterator[Figure]:
    """Wall time of `outgate --help`, median of 9; rival: the interpreter alone."""
    command = [sys.executable, "-m", "outgate", "--help"]
    ours = median(9, lambda: seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)))
    bare = median(9, lambda: seconds(_interpreter))
    yield at_most("command.help", ours * 1000, 100, "ms", ("python -c pass", bare * 1000))


def pods_from_json() -> Iterator[Figure]:
    """100,000 pods of 3 kB each as `kubectl get pods -A -o json` prints them, read into the model by a process of its
    own; seconds and its highest anonymous memory. Rival: json.load in a process of its own. Median of 3.
    """
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "pods.json"
        _write_pods(file)
        ours = [_measured(_READ, file) for _ in range(3)]
        rival = _measured(_LOAD, file)
    yield at_most("source.100000-pods", middle([one[0] for one in ours]), 1, "s", ("json.load", rival[0]))
    yield at_most("source.100000-pods-memory", middle([one[1] for one in ours]), 300, "MB", ("json.load", rival[1]))


_PEAK = """
import sys, time, threading, pathlib
peak = 0
def watch():
    global peak
    while True:
        text = pathlib.Path("/proc/self/status").read_text()
        peak = max(peak, int(text.split("RssAnon:")[1].split()[0]))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
"""
_READ = (
    _PEAK
    + """
from pathlib import Path
from outgate.sources.manifests import ManifestSource
began = time.perf_counter()
intent = ManifestSource(Path(sys.argv[1])).read()
took = time.perf_counter() - began
assert len(intent.pods) == 100_000
print(took, peak / 1000)
"""
)
_LOAD = (
    _PEAK
    + """
import json
began = time.perf_counter()
with open(sys.argv[1]) as file:
    found = json.load(file)
took = time.perf_counter() - began
assert len(found["items"]) == 100_000
print(took, peak / 1000)
"""
)


def _measured(program: str, file: Path) -> tuple[float, float]:
    ran = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    took, peak = ran.stdout.split()
    return float(took), float(peak)


def _write_pods(file: Path) -> None:
    filler = [{"name": f"VARIABLE_{number}", "value": "x" * 60} for number in range(24)]
    with file.open("w") as out:
        out.write('{"apiVersion": "v1", "kind": "List", "items": [')
        for number in range(100_000):
            address = f"10.{128 + number // 65536}.{number // 256 % 256}.{number % 256}"
            metadata = {"name": f"app-{number}", "namespace": f"ns-{number % 500}", "labels": {"app": "x"}}
            spec = {"nodeName": f"n{number % 500}", "containers": [{"name": "app", "image": "i", "env": filler}]}
            status = {"phase": "Running", "podIPs": [{"ip": address}]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
            out.write(("," if number else "") + json.dumps(pod))
        out.write("]}")


@contextmanager
def _running() -> Iterator[tuple[Namespace, Path, float]]:
    with tempfile.TemporaryDirectory() as name, gateway_machine() as net:
        place = Path(name)
        write_manifests(many_tenants(COUNT), place / "manifests")
        start = _start(net, place)
        try:
            yield net, place, start
        finally:
            os.kill(_pid(place), signal.SIGTERM)


def _words(place: Path, *words: str) -> list[str]:
    places = ["-f", str(place / "manifests"), "--state-dir", str(place / "state"), "--run-dir", str(place / "run")]
    return [sys.executable, "-m", "outgate", *words, *places]


def _outgate(net: Namespace, place: Path, *words: str) -> str:
    return net.run(_words(place, *words), check=False).stdout


def _start(net: Namespace, place: Path) -> float:
    """Start the daemon and return the seconds until its status is OK."""
    began = time.perf_counter()
    with (place / "log").open("a") as log:
        daemon = net.popen(_words(place, "gateway", "run"), stdout=log, stderr=log)
    (place / "pid").write_text(str(daemon.pid))

    def fine() -> bool:
        answer = json.loads(_outgate(net, place, "gateway", "status", "-o", "json") or "{}")
        return bool(answer.get("health") == "OK")

    _until(fine)
    return time.perf_counter() - began


def _pid(place: Path) -> int:
    return int((place / "pid").read_text())


def _change(net: Namespace, place: Path, number: int) -> float:
    file = place / "manifests" / f"egresstenant-t-{number:05}.yaml"
    text = file.read_text() + f"  rate:\n    bytesPerSecond: {1_000_000 + number}\n    burstBytes: 100000\n"
    fresh = file.with_name(".fresh")
    fresh.write_text(text)
    time.sleep(APART_S)
    with net.inside():
        before = generation()
        began = time.perf_counter()
        fresh.rename(file)
        _until(lambda: generation() != before)
        return time.perf_counter() - began


def _repair(net: Namespace, number: int) -> float:
    address = f"{FIRST_EGRESS + number}/32"
    net.run(["ip", "addr", "del", address, "dev", "enp7s0"])
    began = time.perf_counter()
    _until(lambda: address in net.run(["ip", "addr", "show", "dev", "enp7s0", "to", address]).stdout)
    return time.perf_counter() - began


def _idle(place: Path) -> tuple[float, float]:
    pid = _pid(place)
    before, began = _cpu_s(pid), time.monotonic()
    time.sleep(IDLE_S)
    share = (_cpu_s(pid) - before) / (time.monotonic() - began)
    status = Path(f"/proc/{pid}/status").read_text()
    return share, int(status.split("VmRSS:")[1].split()[0]) / 1000


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _interpreter() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def _until(holds: Callable[[], object]) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_S, f"not so after {PATIENCE_S:.0f} s"
        time.sleep(0.0005)
