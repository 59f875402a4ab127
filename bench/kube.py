"""The gateway on a real API server: from a PATCH to the kernel; a large cluster; and events from memory.

The API server and etcd run on the same cores as what is measured.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench.figure import Figure, at_most, at_most_times, median, seconds
from outgate.apiserver.access import from_kubeconfig
from outgate.apiserver.open import opened
from outgate.lab.addresses import OUTSIDE4
from outgate.lab.kube import ControlPlane, relay
from outgate.lab.kube.cluster import Cluster
from outgate.lab.kube.crowd import crowd
from outgate.lab.manifests import egress_gateway, egress_tenant
from outgate.lab.topology import Laboratory
from outgate.sources.crd import definitions
from outgate.sources.kube.holding import Holding
from outgate.sources.kube.kinds import PODS
from outgate.sources.kube.objects import ObjectReader
from outgate.systems.nft.read import generation

PATIENCE_S = 60.0
APART_S = 0.5
EVENTS, CHANGES = 20_000, 10_000


def patch_to_kernel() -> Iterator[Figure]:
    """A tenant's rate is changed by a server-side apply; from the request's begin until the ruleset has a new number.
    Median of 15, half a second apart. Rival: the request alone.
    """
    with tempfile.TemporaryDirectory() as name, ControlPlane(Path(name) / "plane") as plane, Laboratory() as lab:
        place, cluster = Path(name), Cluster(plane)
        cluster.install(definitions().values())
        cluster.install_neighbours()
        cluster.put_all(lab)
        cluster.put(egress_gateway(announce={"probes": 0}))
        with relay(lab.gw, plane.port):
            words = ["gateway", "run", "--kubeconfig", str(plane.kubeconfig(by_token=True)), "--metrics", ""]
            places = ["--state-dir", str(place / "state"), "--run-dir", str(place / "run")]
            with (place / "log").open("w") as log:
                daemon = lab.gw.popen([sys.executable, "-m", "outgate", *words, *places], stdout=log, stderr=log)
            pod, tenant = lab.pod("ns-blue"), lab.tenants[0]
            _until(lambda: pod.agent.fetch(OUTSIDE4).source == tenant.egress4)
            try:
                times, asked = zip(*(_patched(lab, cluster, number) for number in range(15)), strict=True)
            finally:
                daemon.terminate()
                daemon.wait()
    middle = sorted(times)[7] * 1000
    yield at_most("kube.patch-to-kernel", middle, 50, "ms", ("the request alone", sorted(asked)[7] * 1000))


def _patched(lab: Laboratory, cluster: Cluster, number: int) -> tuple[float, float]:
    """Return the seconds until the kernel changed, and those of the request."""
    rate = {"bytesPerSecond": 1_000_000 + number, "burstBytes": 100_000}
    manifest = egress_tenant(lab.tenants[0], rate=rate)
    time.sleep(APART_S)
    with lab.gw.inside():
        before, began = generation(), time.perf_counter()
    cluster.put(manifest)
    asked = time.perf_counter() - began
    with lab.gw.inside():
        _until(lambda: generation() != before)
        return time.perf_counter() - began, asked


def large_cluster() -> Iterator[Figure]:
    """2,000 nodes, 500 namespaces and 50,000 pods: a source in a process of its own, from its start until it is read
    whole; its resident memory ten seconds later. Rival: http.client, the same pages, nothing read of them but where the
    next one begins. Median of 3.
    """
    with tempfile.TemporaryDirectory() as name, ControlPlane(Path(name), snapshot=crowd()) as plane:
        Cluster(plane).install(definitions().values())
        kubeconfig = str(plane.kubeconfig(by_token=True))
        token, ca = str(plane.token_file("admin")), str(plane.ca)
        bare = median(3, lambda: _ran(_BARE, str(plane.port), token, ca)[0])
        runs = [_ran(_SOURCE, kubeconfig, "pods") for _ in range(3)]
        without = _ran(_SOURCE, kubeconfig, "")
    took = sorted(run[0] for run in runs)[1]
    yield at_most_times("kube.52000-objects", took, ("a bare HTTP client", bare), 1.2)
    yield at_most("kube.52000-objects-memory", sorted(run[1] for run in runs)[1], 250, "MB")
    yield at_most("kube.without-pods-memory", without[1], 150, "MB")


def events() -> Iterator[Figure]:
    """20,000 events of pods of 3 kB, decoded and taken up from memory; events per second. Rival: json.loads alone."""
    lines = [_event(number) for number in range(EVENTS)]
    reader, holding = ObjectReader(PODS), Holding(5.0)

    def take() -> None:
        for line in lines:
            event = reader.event(line)
            assert event.entry is not None
            holding.put(event.key, event.entry)

    per_second = EVENTS / seconds(take)
    raw = EVENTS / seconds(partial(_raw, lines))
    yield Figure(
        name="kube.events-from-memory",
        value=per_second,
        unit="/s",
        rival="json.loads of each",
        rival_value=raw,
        goal="at least 100000 /s",
        met=per_second >= 100_000,
    )


def events_from_the_server() -> Iterator[Figure]:
    """10,000 changes of 500 pods are made first; then a watch from before the first, from its first line until the last
    is taken up: events per second. The server encodes each on the same cores. Rival: the same lines, not looked at.
    """
    with tempfile.TemporaryDirectory() as name:
        snapshot = crowd(nodes=50, pods=500, folder=Path(name))
        with ControlPlane(Path(name) / "plane", snapshot=snapshot) as plane:
            _, listed = plane.call("GET", "/api/v1/pods")
            pods = [(one["metadata"]["namespace"], one["metadata"]["name"]) for one in listed["items"]]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(partial(_relabelled, plane), pods * (CHANGES // len(pods)), range(CHANGES)))
            version, reader, holding = listed["metadata"]["resourceVersion"], ObjectReader(PODS), Holding(5.0)

            def take(line: bytes) -> None:
                event = reader.event(line)
                assert event.entry is not None
                holding.put(event.key, event.entry)

            bare = asyncio.run(_replayed(plane, version, lambda _: None))
            took = asyncio.run(_replayed(plane, version, take))
    yield Figure(
        name="kube.events-from-the-server",
        value=CHANGES / took,
        unit="/s",
        rival="the same lines, not looked at",
        rival_value=CHANGES / bare,
        goal="at least 15000 /s",
        met=CHANGES / took >= 15_000,
    )


def _relabelled(plane: ControlPlane, pod: tuple[str, str], number: int) -> None:
    namespace, name = pod
    metadata = {"name": name, "namespace": namespace, "labels": {"changed": str(number)}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}?fieldManager=bench&force=true"
    status, answer = plane.call("PATCH", path, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    assert status == 200, answer


async def _replayed(plane: ControlPlane, version: str, take: Callable[[bytes], None]) -> float:
    """Return the seconds from the first event of a watch until all changes are taken."""
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "60"}
    left, began = CHANGES, 0.0
    async with (
        opened([from_kubeconfig(plane.kubeconfig(by_token=True))]) as server,
        server.lines(PODS.path, query=query, first_byte_s=10.0, deadline_s=60.0) as lines,
    ):
        async for line in lines:
            began = began or time.perf_counter()
            take(line)
            left -= 1
            if not left:
                return time.perf_counter() - began
    raise AssertionError(f"{left} events did not come")


def _raw(lines: list[bytes]) -> None:
    for line in lines:
        json.loads(line)


def _event(number: int) -> bytes:
    metadata = {
        "name": f"app-{number % 5000}",
        "namespace": f"ns-{number % 500}",
        "uid": f"uid-{number % 5000}",
        "resourceVersion": str(number + 1),
        "labels": {"app": "x"},
    }
    filler = [{"name": f"VARIABLE_{one}", "value": "x" * 60} for one in range(24)]
    spec = {"nodeName": f"n{number % 500}", "containers": [{"name": "app", "image": "i", "env": filler}]}
    status = {
        "phase": "Running",
        "podIPs": [{"ip": f"10.{128 + number // 65536}.{number // 256 % 256}.{number % 256}"}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    return json.dumps({"type": "MODIFIED", "object": pod}).encode()


_SOURCE = """
import contextlib, select, sys, time
from pathlib import Path
from outgate.apiserver.access import from_kubeconfig
from outgate.apiserver.open import opened
from outgate.model.errors import NotReady
from outgate.sources.kube.kinds import GATEWAY, LOOKER
from outgate.sources.kube.source import KubeSource
from outgate.sources.kube.timings import Timings
access = from_kubeconfig(Path(sys.argv[1]))
kinds, timings = LOOKER if sys.argv[2] else GATEWAY, Timings(start_jitter_s=0.0)
source = KubeSource(lambda: opened([access]), kinds=kinds, timings=timings)
began = time.perf_counter()
while True:
    with contextlib.suppress(NotReady):
        intent = source.read()
        break
    select.select([source], [], [], 5.0)
    source.changed()
took = time.perf_counter() - began
assert len(intent.nodes) == 2000
assert len(intent.pods) == (50000 if sys.argv[2] else 0)
time.sleep(10)
resident = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1000
source.close()
print(took, resident)
"""
_BARE = """
import http.client, msgspec, ssl, sys, time
class Meta(msgspec.Struct):
    next_page: str = msgspec.field(name="continue", default="")
class Page(msgspec.Struct):
    metadata: Meta
port, token, ca = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
headers = {"Authorization": "Bearer " + open(token).read()}
began = time.perf_counter()
connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=tls)
for kind in ("nodes", "namespaces", "pods"):
    page = ""
    while True:
        connection.request("GET", f"/api/v1/{kind}?limit=500" + (f"&continue={page}" if page else ""), headers=headers)
        page = msgspec.json.decode(connection.getresponse().read(), type=Page).metadata.next_page
        if not page:
            break
print(time.perf_counter() - began, 0)
"""


def _ran(program: str, *words: str) -> tuple[float, float]:
    ran = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    took, resident = ran.stdout.split()
    return float(took), float(resident)


def _until(holds: Callable[[], object]) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE_S, f"not so after {PATIENCE_S:.0f} s"
        time.sleep(0.0005)
