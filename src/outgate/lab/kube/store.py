"""The store of a control plane: an etcd of one member on a unix socket in the plane's folder.

Its data is a folder that can be copied while it runs: it is held still for the copy, which is then what a killed etcd
would have left behind, and that is what its write-ahead log is for.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from outgate.lab.kube.programs import Programs
from outgate.lab.kube.server import Server

_SOCKET = "etcd.sock:0"  # etcd takes the whole of `host:port` for the name of the file
_COMPACTED = b"compact_rev_key"  # of k8s.io/apiserver, storage/etcd3/compact.go
_QUOTA = 8 << 30  # bytes; etcd's own limit of 2 GiB is no subject of any test
_ANSWERS_WITHIN_S = 60.0


class Store:
    """What the API server keeps its objects in."""

    def __init__(self, programs: Programs, server: Server) -> None:
        """Describe it; nothing runs yet."""
        self._programs, self._server = programs, server
        self._folder = server.folder / "etcd"

    @property
    def url(self) -> str:
        """Its address, relative to the folder that the API server runs in, because paths of sockets must be short."""
        return f"unix://{_SOCKET}"

    def start(self) -> None:
        """Start it if it does not run, and return when it answers.

        Raises:
            ServerFailed: it did not come up.
        """
        peer = "unix://peer.sock:0"
        options = {
            "name": "lab",
            "data-dir": self._folder,
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"lab={peer}",
            "unsafe-no-fsync": "true",  # what a power cut would lose is no subject of any test
            "quota-backend-bytes": _QUOTA,
            "snapshot-count": 100,  # entries of the log, after which a new etcd needs not read it all
            "log-level": "warn",
        }
        self._server.start([str(self._programs.etcd), *(f"--{name}={value}" for name, value in options.items())])
        self._server.until_ready(self._is_ready)

    def take(self, into: Path) -> Path:
        """Copy the data of this moment into a folder that does not exist yet, and return it."""
        is_running = self._server.is_running
        if is_running:
            self._server.pause()
        try:
            _copy(self._folder, into)
        finally:
            if is_running:
                self._server.resume()
        return into

    def put(self, snapshot: Path) -> None:
        """Replace the data by a copy of a snapshot; the server is down meanwhile."""
        shutil.rmtree(self._folder, ignore_errors=True)
        _copy(snapshot, self._folder)

    def compact(self) -> None:
        """Forget all revisions but the last, and write down that it was done where API servers look for it."""
        revision = self.ask("/v3/kv/range", {"key": _text(b"/")})["header"]["revision"]
        self.put_all([(_COMPACTED, str(revision).encode())])
        self.ask("/v3/kv/compaction", {"revision": revision, "physical": True})

    def get(self, key: bytes) -> bytes:
        """Return what is stored under a key.

        Raises:
            LookupError: nothing is.
        """
        found = self.ask("/v3/kv/range", {"key": _text(key)}).get("kvs")
        if not found:
            raise LookupError(f"etcd has nothing under {key.decode()}")
        return base64.b64decode(found[0]["value"])

    def put_all(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Store pairs of key and value in one transaction, which takes 128 of them."""
        puts = [{"requestPut": {"key": _text(key), "value": _text(value)}} for key, value in pairs]
        self.ask("/v3/kv/txn", {"success": puts})

    def delete(self, key: bytes) -> None:
        """Delete what is stored under a key."""
        self.ask("/v3/kv/deleterange", {"key": _text(key)})

    def ask(self, path: str, question: object) -> Any:
        """Ask etcd through its JSON gateway, and return the answer.

        Raises:
            OSError: it does not answer.
        """
        with contextlib.closing(_UnixConnection(self._server.folder, _SOCKET)) as connection:
            connection.request("POST", path, json.dumps(question))
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise OSError(f"etcd: {path}: {text.decode(errors='replace').strip()}")
        return json.loads(text)

    def _is_ready(self) -> bool:
        try:
            self.ask("/v3/maintenance/status", {})
        except OSError:
            return False
        return True


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, whose path may be longer than the 107 bytes that an address holds."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__("localhost", timeout=_ANSWERS_WITHIN_S)
        self._folder, self._name = folder, name

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ANSWERS_WITHIN_S)
        folder = os.open(self._folder, os.O_PATH | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._name}")
        finally:
            os.close(folder)


def _text(raw: bytes) -> str:
    """Return bytes as etcd's JSON has them."""
    return base64.b64encode(raw).decode()


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; the log's unwritten parts, 64 MB of zeros each, take no space."""
    subprocess.run(("cp", "-a", "--sparse=always", "--reflink=auto", str(source), str(target)), check=True)
