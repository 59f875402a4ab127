"""A source that lives on a real API server: what is there is read whole, what happens is seen, and whatever befalls the
server, its store, or the rights of the user, nothing that was read is lost before the server itself says so twice.
"""

from __future__ import annotations

import asyncio
import json
import select
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from outgate.apiserver.access import from_kubeconfig
from outgate.apiserver.open import opened
from outgate.apiserver.server import Body, Server
from outgate.lab.kube import ControlPlane
from outgate.lab.waiting import eventually
from outgate.model.errors import NotReady
from outgate.model.intent import Intent
from outgate.sources.kube.lastgood import LastGood
from outgate.sources.kube.reflector import State
from outgate.sources.kube.source import DEFAULTS, NOTHING, KubeSource, Remembered
from outgate.sources.kube.timings import Timings
from tests.kube.planes import control_plane, server_of

SHORT = Timings(
    page=3,
    list_every_s=0.2,
    agree_after_s=0.3,
    start_jitter_s=0.0,
    watch_least_s=2,
    watch_most_s=3,
    stall_s=0.5,
    first_byte_s=1.0,
    pause_first_s=0.1,
    pause_most_s=0.3,
    recheck_s=0.3,
)
NUMBERS = count(1)
READER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "alice-reads"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
}

BY_PODS = """
apiVersion: outgate.io/v1alpha1
kind: EgressTenant
metadata: {name: by-pods}
spec:
  identity: {nextHop: {addresses: [10.9.9.9]}}
  egressIPs: [192.0.2.9]
  sourceCheck: pods
  namespaceSelector: {matchLabels: {team: red}}
"""


@contextmanager
def reading(
    plane: ControlPlane, user: str = "admin", remembered: Remembered = NOTHING, timings: Timings = SHORT
) -> Iterator[KubeSource]:
    source = KubeSource(server_of(plane, user), timings=timings, remembered=remembered)
    try:
        yield source
    finally:
        source.close()


def until(source: KubeSource, holds: Callable[[Intent], bool], sentence: str, within_s: float = 10.0) -> Intent:
    """Wait on the descriptor, as the daemon does, until the intent fits."""
    last: list[Intent] = []

    def fits() -> bool:
        select.select([source.fileno()], [], [], 0.05)
        source.changed()
        try:
            last.append(source.read())
        except NotReady:
            return False
        return holds(last[-1])

    eventually(fits, sentence, within_s=within_s)
    return last[-1]


def namespaces(intent: Intent) -> set[str]:
    return {one.name for one in intent.namespaces}


def state(source: KubeSource, kind: str) -> State:
    return source.parts()[kind].state


def test_what_is_there_is_read_and_what_happens_is_seen(plane: ControlPlane, namespace: str) -> None:
    with reading(plane) as source:
        first = until(source, lambda intent: namespace in namespaces(intent), "the namespaces are read")
        assert source.read() is first
        other = plane.namespace(f"seen-{next(NUMBERS)}", {"team": "red"})
        second = until(source, lambda intent: other in namespaces(intent), "a new namespace is seen")
        assert second.nodes is first.nodes
        assert second.tenants is first.tenants
        made = next(one for one in second.namespaces if one.name == other)
        assert ("team", "red") in made.labels
        assert made.origin.resource_version
        assert (made.origin.kind, made.origin.name, made.origin.file) == ("Namespace", other, "")


def test_pods_are_read_only_while_a_tenant_needs_them(plane: ControlPlane, namespace: str) -> None:
    with reading(plane) as source:
        until(source, lambda _: True, "everything is read")
        assert "Pod" not in source.parts()
        plane.kubectl("apply", "-f", "-", input=BY_PODS)
        pod = {"containers": [{"name": "a", "image": "none"}]}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": namespace}, "spec": pod}
        plane.kubectl("apply", "-f", "-", input=json.dumps(manifest))
        until(source, lambda intent: any(one.namespace == namespace for one in intent.pods), "the pod is seen")
        plane.kubectl("delete", "egresstenant", "by-pods")
        until(source, lambda intent: not intent.pods, "pods are forgotten")
        assert "Pod" not in source.parts()


def test_a_server_that_dies_and_comes_back_loses_nothing(plane: ControlPlane, namespace: str) -> None:
    with reading(plane) as source:
        before = until(source, lambda intent: namespace in namespaces(intent), "the namespaces are read")
        plane.kill()
        eventually(lambda: state(source, "Namespace") is State.UNREACHABLE, "the source knows that nobody answers")
        assert source.read() is before
        plane.start()
        eventually(lambda: state(source, "Namespace") is State.WATCHING, "the source watches again")
        other = plane.namespace(f"after-{next(NUMBERS)}")
        until(source, lambda intent: {namespace, other} <= namespaces(intent), "events come again")


def test_a_server_that_is_held_still_is_found_out_by_its_broken_promise(plane: ControlPlane, namespace: str) -> None:
    with reading(plane) as source:
        before = until(source, lambda intent: namespace in namespaces(intent), "the namespaces are read")
        plane.pause()
        eventually(lambda: state(source, "Namespace") is State.UNREACHABLE, "the source knows that nobody answers")
        assert source.read() is before
        plane.resume()
        other = plane.namespace(f"woken-{next(NUMBERS)}")
        until(source, lambda intent: {namespace, other} <= namespaces(intent), "events come again")


def test_a_server_that_is_held_still_for_seventy_seconds_is_found_out_with_the_timings_of_the_product(
    plane: ControlPlane, namespace: str
) -> None:
    with reading(plane, timings=replace(DEFAULTS, start_jitter_s=0.0)) as source:
        before = until(source, lambda intent: namespace in namespaces(intent), "the namespaces are read")
        plane.pause()
        began_s = time.monotonic()
        eventually(lambda: time.monotonic() - began_s > 70.0, "70 seconds are over", within_s=100.0)
        assert state(source, "Namespace") is State.UNREACHABLE
        assert source.read() is before
        plane.resume()
        other = plane.namespace(f"woken-{next(NUMBERS)}")
        until(source, lambda intent: {namespace, other} <= namespaces(intent), "events come again", within_s=60.0)


def test_a_version_that_was_forgotten_leads_to_a_new_list(plane: ControlPlane, namespace: str) -> None:
    with reading(plane) as source:
        until(source, lambda intent: namespace in namespaces(intent), "the namespaces are read")
        plane.kill()
        plane.store.compact()
        plane.start()
        other = plane.namespace(f"compacted-{next(NUMBERS)}")
        until(source, lambda intent: {namespace, other} <= namespaces(intent), "events come again")


class Halfway:
    """A server that stops once before the second page of a list, until it is told to go on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.reached, self.go = threading.Event(), threading.Event()
        self.lines, self.cluster_uid, self.findings = server.lines, server.cluster_uid, server.findings

    @property
    def name(self) -> str:
        return self._server.name

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        deadline_s: float = 30.0,
    ) -> bytes:
        if path == "/api/v1/namespaces" and "continue" in (query or {}) and not self.reached.is_set():
            self.reached.set()
            await asyncio.to_thread(self.go.wait)
        return await self._server.request(method, path, query=query, body=body, deadline_s=deadline_s)


def test_a_list_that_is_forgotten_in_its_middle_is_read_anew_from_its_start(plane: ControlPlane) -> None:
    first = {plane.namespace(f"middle-{next(NUMBERS)}") for _ in range(3)}
    access = from_kubeconfig(plane.kubeconfig(by_token=True))
    halfway: list[Halfway] = []

    @asynccontextmanager
    async def open_halfway() -> AsyncIterator[Server]:
        async with opened([access]) as server:
            halfway.append(Halfway(server))
            yield halfway[0]

    source = KubeSource(open_halfway, timings=SHORT)
    try:
        source.fileno()  # it begins
        eventually(lambda: halfway and halfway[0].reached.is_set(), "the first page is read")
        late = plane.namespace(f"middle-{next(NUMBERS)}")
        plane.kill()
        plane.compact()
        plane.start()
        halfway[0].go.set()
        found = until(source, lambda intent: first | {late} <= namespaces(intent), "every namespace is read")
        assert len(found.namespaces) == len(namespaces(found))
        assert source.parts()["Namespace"].errors > 0
    finally:
        source.close()


def test_rights_that_are_cut_and_given_back(plane: ControlPlane, namespace: str) -> None:
    with reading(plane, "alice") as source:
        with pytest.raises(NotReady, match="not read from the API server yet"):
            source.read()
        plane.kubectl("apply", "-f", "-", input=json.dumps(READER))
        before = until(source, lambda intent: namespace in namespaces(intent), "given: everything is read")
        plane.kubectl("delete", "clusterrolebinding", "alice-reads")
        eventually(lambda: source.parts()["Namespace"].error != "", "cut: the source is refused")
        assert namespaces(source.read()) == namespaces(before)
        plane.kubectl("apply", "-f", "-", input=json.dumps(READER))
        other = plane.namespace(f"given-{next(NUMBERS)}")
        until(source, lambda intent: other in namespaces(intent), "given back: events come again")
        plane.kubectl("delete", "clusterrolebinding", "alice-reads")


def test_a_store_that_lost_most_objects_is_believed_the_second_time(tmp_path: Path) -> None:
    with control_plane(tmp_path / "plane") as plane:
        empty = plane.etcd_snapshot(tmp_path / "empty")
        names = {plane.namespace(f"lost-{number}") for number in range(12)}
        with reading(plane) as source:
            until(source, lambda intent: names <= namespaces(intent), "the namespaces are read")
            plane.restore(empty)
            until(source, lambda intent: not names & namespaces(intent), "the shorter list is believed in the end")
            assert source.parts()["Namespace"].lists >= 3  # the first, the doubtful one, and the one that agreed


def test_the_kubeconfig_of_another_cluster_is_refused_and_nothing_of_it_is_read(plane: ControlPlane) -> None:
    with reading(plane, remembered=Remembered(cluster="11111111-2222-3333-4444-555555555555")) as source:
        source.fileno()

        def told() -> bool:
            with pytest.raises(NotReady) as raised:
                source.read()
            return "leads to the cluster" in str(raised.value) and "11111111-2222" in str(raised.value)

        eventually(told, "both clusters are named")
        assert not any(part.synced or part.objects for part in source.parts().values())


def test_the_cluster_is_written_down_the_first_time(plane: ControlPlane) -> None:
    recorded: list[str] = []
    with reading(plane, remembered=Remembered(record=recorded.append)) as source:
        until(source, lambda _: True, "everything is read")
    uid = plane.call("GET", "/api/v1/namespaces/kube-system")[1]["metadata"]["uid"]
    assert recorded == [uid]


class File:
    """A document in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def write(self, content: bytes) -> None:
        self._path.write_bytes(content)


def test_who_boots_while_the_server_is_away_serves_what_it_said_last(
    plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    document = File(tmp_path / "intent.json")
    with reading(plane, remembered=Remembered(last_good=LastGood(document))) as source:
        before = until(source, lambda intent: namespace in namespaces(intent), "the namespaces are read")
    plane.kill()
    with reading(plane, remembered=Remembered(last_good=LastGood(document))) as source:
        from_disk = source.read()
        assert namespaces(from_disk) == namespaces(before)
        assert [one.reason for one in from_disk.refusals] == ["IntentFromDisk"]
        plane.start()
        fresh = until(source, lambda intent: not intent.refusals, "the server is heard again")
        assert namespaces(fresh) == namespaces(before)


def test_a_kind_that_is_absent_and_appears_is_read_then(plane: ControlPlane) -> None:
    route = "k8s.ovn.org"
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"egressips.{route}"},
        "spec": {
            "group": route,
            "scope": "Cluster",
            "names": {"plural": "egressips", "singular": "egressip", "kind": "EgressIP", "listKind": "EgressIPList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    }
    one = {
        "apiVersion": f"{route}/v1",
        "kind": "EgressIP",
        "metadata": {"name": "shown"},
        "spec": {"egressIPs": ["192.0.2.77"], "namespaceSelector": {"matchLabels": {"a": "b"}}},
    }
    with reading(plane) as source:
        until(source, lambda intent: not intent.egress_ips, "a cluster without the kind is complete")
        assert state(source, "EgressIP") is State.ABSENT
        plane.kubectl("apply", "-f", "-", input=json.dumps(crd))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", f"egressips.{route}")
        plane.kubectl("apply", "-f", "-", input=json.dumps(one))
        until(source, lambda intent: [eip.name for eip in intent.egress_ips] == ["shown"], "the kind is read")
        plane.kubectl("delete", "crd", f"egressips.{route}", "--wait=false")
