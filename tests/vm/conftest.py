"""The guest of the stories; where it can not be had they are skipped, and the reason names what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.lab.topology import Laboratory
from tests.vm.gateway import Gateway, a_gateway
from tests.vm.kernel import Unavailable, fetch
from tests.vm.machine import Machine
from tests.vm.program import install


@pytest.fixture(scope="session", autouse=True)
def _kernel() -> None:
    """See to it that there is a kernel to boot: the first time it is downloaded."""
    try:
        fetch()
    except Unavailable as missing:
        pytest.skip(f"NO GUEST: {missing}")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, installed in a folder of the host that the guest sees too."""
    return install(tmp_path_factory.mktemp("program"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A guest without network cards, booted."""
    with Machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def gateway(tmp_path: Path, program: Path) -> Iterator[Gateway]:
    """A laboratory whose gateway machine is a guest, installed and off."""
    try:
        with Laboratory() as lab, a_gateway(lab, tmp_path, program) as gateway:
            yield gateway
    except Unavailable as missing:
        pytest.skip(f"NO GUEST: {missing}")
