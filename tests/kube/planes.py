"""Control planes as the tests of this folder want them: with our kinds installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outgate.apiserver.access import from_kubeconfig
from outgate.apiserver.open import opened
from outgate.apiserver.server import OpenServer
from outgate.lab.kube import ControlPlane

CRDS = Path(__file__).resolve().parents[2] / "deploy" / "crds"


@contextmanager
def control_plane(folder: Path, *, name: str = "lab", audit: bool = False) -> Iterator[ControlPlane]:
    """Yield a control plane with our CRDs, established."""
    with ControlPlane(folder, name=name, audit=audit) as plane:
        install_crds(plane)
        yield plane


def install_crds(plane: ControlPlane) -> None:
    """Apply deploy/crds and wait until the API server serves them."""
    plane.kubectl("apply", "--server-side", "-k", str(CRDS))
    names = [f"crd/{file.stem.split('_')[1]}.outgate.io" for file in sorted(CRDS.glob("outgate.io_*.yaml"))]
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)


def server_of(plane: ControlPlane, user: str) -> OpenServer:
    """Return what opens the API server of a plane as one of its users, by the token in its file."""
    access = from_kubeconfig(plane.kubeconfig(user, by_token=True))
    return lambda: opened([access])
