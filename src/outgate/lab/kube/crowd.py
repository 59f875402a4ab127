"""A large cluster in a store: thousands of nodes and pods, written once into the cache and started from in seconds.

    with ControlPlane(tmp_path, snapshot=crowd()) as plane: ...      # 2,000 nodes, 50,000 pods, 500 namespaces

The API server itself writes one node, one namespace and one pod, each by the managers that write them in a cluster, so
that defaults, managedFields and the stored form are its own. Then etcd gets copies of what it stored, in which words
were replaced by others of the same length: names, uids, addresses. Lengths must stay, for the stored form counts bytes.

node-I, from 0, has the address 192.168.(100 + I / 100).(100 + I % 100) and the pod network 10.(128 + I / 100).(100 + I
% 100).0/24. Pod P is on node P % nodes and in namespace P % 500; on its node it is the (P / nodes)th, from 0, and its
address ends in 100 more.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from outgate.lab.kube import examples
from outgate.lab.kube.plane import ControlPlane
from outgate.lab.kube.programs import binaries, cache
from outgate.lab.kube.store import Store

NAMESPACES = 500
CLUSTER_NETWORK = "10.128.0.0/11"  # room for 3,200 nodes

_PUTS = 100  # in one transaction; etcd takes 128
_CONNECTIONS = 4
_MOST_NODES, _MOST_PODS_OF_A_NODE = 3_200, 100  # addresses keep their length up to here

Words = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object as the API server keeps it in etcd."""

    key: bytes
    value: bytes

    def changed(self, words: Words) -> Stored:
        """Return a copy with words replaced by others, each as long as the one it replaces."""
        key, value = self.key, self.value
        for old, new in words.items():
            assert len(old) == len(new), (old, new)
            key, value = key.replace(old.encode(), new.encode()), value.replace(old.encode(), new.encode())
        return Stored(key=key, value=value)


def crowd(*, nodes: int = 2_000, pods: int = 50_000, folder: Path | None = None) -> Path:
    """Return a snapshot of a store with so many nodes and pods, from a folder (the cache, if none is given), after
    writing it there if it is missing: 20 s and 350 MB for the default numbers.

    Raises:
        ValueError: more than 3,200 nodes, or more than 100 pods for each node.
        Unavailable: the programs are missing.
    """
    if nodes > _MOST_NODES or pods > nodes * _MOST_PODS_OF_A_NODE:
        raise ValueError(f"{nodes} nodes with {pods} pods: at most {_MOST_NODES}, and {_MOST_PODS_OF_A_NODE} on each")
    folder = folder or cache()
    folder.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(_versions())
    for file in (Path(__file__), Path(examples.__file__)):
        recipe.update(file.read_bytes())
    snapshot = folder / f"crowd-{nodes}-{pods}-{recipe.hexdigest()[:12]}"
    with snapshot.with_name(snapshot.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not snapshot.exists():
            _write(snapshot, nodes, pods)
    return snapshot


def _versions() -> bytes:
    """Return what the two servers say of themselves: another release may read and write its store otherwise."""
    programs = binaries()
    return b"".join(
        subprocess.run((program, "--version"), check=True, capture_output=True).stdout
        for program in (programs.etcd, programs.apiserver)
    )


def _write(snapshot: Path, nodes: int, pods: int) -> None:
    """Write the store in a scratch folder, and move it to its place when it is whole."""
    with tempfile.TemporaryDirectory(dir=snapshot.parent, prefix=f".{snapshot.name}-") as scratch:
        with ControlPlane(Path(scratch, "plane")) as plane:
            models = _models(plane)
            plane.apiserver.stop()  # it would keep all that is written in its own memory
            for model in models.values():
                plane.store.delete(model.key)
            _put_all(plane.store, _copies(models, nodes, pods))
            plane.store.compact()
            plane.etcd.stop()
            plane.etcd_snapshot(Path(scratch, "whole"))
        Path(scratch, "whole").rename(snapshot)


def _models(plane: ControlPlane) -> dict[str, Stored]:
    """Let the API server write one of each kind, and return them as etcd has them."""
    found = {}
    for kind, (key, steps) in examples.STEPS.items():
        for method, path, body in steps:
            _do(plane, method, path, body)
        found[kind] = Stored(key=key.encode(), value=plane.store.get(key.encode()))
    return found


def _do(plane: ControlPlane, method: str, path: str, body: object) -> None:
    status, answer = plane.call(method, path, body)
    if status not in (200, 201):
        raise ValueError(f"{method} {path}: {answer}")


def _copies(models: Mapping[str, Stored], nodes: int, pods: int) -> Iterator[Stored]:
    """Yield every object of the crowd."""
    uids = {kind: examples.uid_of(model.value) for kind, model in models.items()}
    for number in range(NAMESPACES):
        name = {examples.NAMESPACE: _namespace(number)}
        for kind in ("namespace", "account"):
            yield models[kind].changed(name | {uids[kind]: _uid(kind, number)})
    for number in range(nodes):
        yield models["node"].changed(_node(number) | {uids["node"]: _uid("node", number)})
    for number in range(pods):
        yield models["pod"].changed(_pod(number, nodes) | {uids["pod"]: _uid("pod", number)})


def _namespace(number: int) -> str:
    return f"ns-{number:04}"


def _node(number: int) -> dict[str, str]:
    high, low = divmod(number, 100)
    return {
        examples.NODE: f"node-{number:04}",
        examples.NODE_ADDRESS: f"192.168.{100 + high}.{100 + low}",
        examples.POD_NETWORK: f"10.{128 + high}.{100 + low}.0/24",
    }


def _pod(number: int, nodes: int) -> dict[str, str]:
    on_node, node = divmod(number, nodes)
    high, low = divmod(node, 100)
    address = (10, 128 + high, 100 + low, 100 + on_node)
    return {
        examples.NAMESPACE: _namespace(number % NAMESPACES),
        examples.POD: f"app-7c5ddbdf54-{number:05}",
        examples.POD_ADDRESS: ".".join(map(str, address)),
        examples.POD_MAC: "0a:58:" + ":".join(f"{part:02x}" for part in address),
        examples.NODE_ADDRESS: _node(node)[examples.NODE_ADDRESS],
        examples.NODE: f"node-{node:04}",
    }


def _uid(kind: str, number: int) -> str:
    """Return a uid that no other object has."""
    return f"{kind.encode().hex():0<8.8}-0000-4000-8000-{number:012x}"


def _put_all(store: Store, objects: Iterable[Stored]) -> None:
    """Put them into etcd, a hundred in each transaction, over a few connections at once."""

    def put(batch: list[Stored]) -> None:
        store.put_all((one.key, one.value) for one in batch)

    waiting = iter(objects)
    with ThreadPoolExecutor(_CONNECTIONS) as connections:
        while batches := [batch for _ in range(4 * _CONNECTIONS) if (batch := list(islice(waiting, _PUTS)))]:
            list(connections.map(put, batches))
