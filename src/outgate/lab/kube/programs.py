"""The programs of a control plane: etcd, kube-apiserver, kubectl and helm, and where they are found.

`KUBEBUILDER_ASSETS` names a folder that holds the first three (setup-envtest makes such folders). Without it they are
taken from a cache outside the checkout, where tools/kube/build.py puts what it builds from the module that pins them:
`$XDG_CACHE_HOME/outgate/kube-<version>-<hash of the module>`. Nothing here builds; `make test` and `make kube` do.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

NAMES = ("etcd", "kube-apiserver", "kubectl")
MODULE = Path(__file__).resolve().parents[4] / "tools" / "kube"

_OVERRIDE = "KUBEBUILDER_ASSETS"
_PINNED = ("go.mod", "go.sum", "tools.go")


class Unavailable(Exception):
    """There can be no control plane on this machine; the message names what is missing and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A folder with the programs."""

    folder: Path

    @property
    def etcd(self) -> Path:
        """The store."""
        return self.folder / "etcd"

    @property
    def apiserver(self) -> Path:
        """The API server."""
        return self.folder / "kube-apiserver"

    @property
    def kubectl(self) -> Path:
        """The client that users type."""
        return self.folder / "kubectl"

    @property
    def helm(self) -> Path | None:
        """What installs charts; folders that others made have none."""
        found = self.folder / "helm"
        return found if os.access(found, os.X_OK) else None


def binaries() -> Programs:
    """Return the programs.

    Raises:
        Unavailable: one of them is missing, or nothing has been built yet.
    """
    named = os.environ.get(_OVERRIDE)
    folder = Path(named) if named else place()
    missing = [name for name in NAMES if not os.access(folder / name, os.X_OK)]
    if not missing:
        return Programs(folder=folder)
    if named:
        raise Unavailable(f"{', '.join(missing)} missing in {folder}, the folder that {_OVERRIDE} names")
    failed = failure_note(folder)
    said = f"; the last build said: {failed.read_text().strip()}" if failed.exists() else ""
    raise Unavailable(f"{', '.join(missing)} missing in {folder}; `make kube` builds them, once{said}")


def place() -> Path:
    """Return the folder of the cache for the programs as they are pinned now, whether it exists or not.

    Raises:
        Unavailable: this is no checkout, so there is no module that pins anything.
    """
    if not (MODULE / "go.mod").exists():
        raise Unavailable(f"no etcd, kube-apiserver, kubectl: set {_OVERRIDE} to a folder that holds them")
    digest = hashlib.sha256(platform.machine().encode())
    for name in _PINNED:
        digest.update((MODULE / name).read_bytes())
    return cache() / f"kube-{version()}-{digest.hexdigest()[:12]}"


def version() -> str:
    """Return the version of Kubernetes that the module pins, such as `1.35.0`."""
    pinned = re.search(r"k8s\.io/kubernetes v(\S+)", (MODULE / "go.mod").read_text())
    if pinned is None:
        raise Unavailable(f"{MODULE / 'go.mod'} does not name a version of k8s.io/kubernetes")
    return pinned[1]


def cache() -> Path:
    """Return the folder that outlives every checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outgate"


def failure_note(folder: Path) -> Path:
    """Return the file beside a folder of the cache that says why it could not be built."""
    return folder.with_name(folder.name + ".failed")
