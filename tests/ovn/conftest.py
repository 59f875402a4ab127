"""The OVN laboratory of the stories: fresh for every test, because every test breaks something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outgate.lab.ovn.programs import missing
from outgate.lab.ovn.topology import OvnLaboratory


@pytest.fixture
def lab() -> Iterator[OvnLaboratory]:
    """Two nodes with two pods each, in shared gateway mode, and everything outside watched."""
    if lacking := missing():
        pytest.skip(lacking)
    with OvnLaboratory() as made:
        _ = (made.server, made.by_default, made.by_other, made.by_secondary)
        yield made
