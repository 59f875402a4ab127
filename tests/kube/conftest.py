"""One control plane for all tests of this folder, with our kinds installed. A test works in a namespace of its own and
deletes its cluster-scoped objects or names them as nobody else does; what it ends or holds still is put right after it.
Without the programs of a control plane every test here is skipped, loudly; under CI (`CI` is set) it fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest

from outgate.lab.kube import ControlPlane, Unavailable, binaries
from tests.kube.planes import control_plane

_NUMBERS = count(1)


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    """See to it that there are programs to run."""
    try:
        binaries()
    except Unavailable as missing:
        if os.environ.get("CI"):
            pytest.fail(f"NO API SERVER: {missing}")
        pytest.skip(f"NO API SERVER: {missing}")


@pytest.fixture(scope="session")
def shared_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane itself; tests ask for `plane`."""
    with control_plane(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture
def plane(shared_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane, running when the test begins, whatever the one before has done to it.

    The EgressRouting that a cluster role writes down at its first start says what was there then, so it goes with it.
    """
    yield shared_plane
    for server in (shared_plane.etcd, shared_plane.apiserver):
        if server.is_running:
            server.resume()
    shared_plane.start()
    shared_plane.kubectl("delete", "egressroutings", "--all")


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    """A namespace that no other test uses."""
    return plane.namespace(f"test-{next(_NUMBERS)}")
