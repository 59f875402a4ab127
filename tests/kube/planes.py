"""Control planes as the tests of this folder want them: with our kinds installed, or not at all, loudly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outgate.lab.kube import ControlPlane, Unavailable

CRDS = Path(__file__).resolve().parents[2] / "deploy" / "crds"


@contextmanager
def control_plane(folder: Path, *, name: str = "lab", audit: bool = False) -> Iterator[ControlPlane]:
    """Yield a control plane with our CRDs, established. Where there can be none the test is skipped; CI fails."""
    with bare_control_plane(folder, name=name, audit=audit) as plane:
        install_crds(plane)
        yield plane


@contextmanager
def bare_control_plane(
    folder: Path, *, name: str = "lab", audit: bool = False, snapshot: Path | None = None
) -> Iterator[ControlPlane]:
    """Yield a control plane without our CRDs, or with what a snapshot of the store holds."""
    try:
        plane = ControlPlane(folder, name=name, audit=audit, snapshot=snapshot)
        plane.__enter__()
    except Unavailable as missing:
        if os.environ.get("CI"):
            pytest.fail(f"NO API SERVER: {missing}")
        pytest.skip(f"NO API SERVER: {missing}")
    try:
        yield plane
    finally:
        plane.__exit__()


def install_crds(plane: ControlPlane) -> None:
    """Apply deploy/crds and wait until the API server serves them."""
    plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS))
