"""The gateway of the stories: fresh for every test, because every test breaks something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.rig import Rig, a_gateway


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Rig]:
    """A laboratory whose gateway machine runs nothing yet."""
    with a_gateway(tmp_path) as rig:
        yield rig


@pytest.fixture
def served(bare: Rig) -> Rig:
    """A gateway whose daemon serves every pod, over both families."""
    bare.serve()
    return bare
