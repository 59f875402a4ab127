"""One network namespace has one of the two roles that keep a table `inet outgate`: neither replaces the other's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.errors import Refused
from outgate.model.ledger import Ledger
from outgate.roles.machine import GatewayMachine
from outgate.systems.nft import read, write
from outgate.systems.nft.table import GATEWAY, NODE, digest


@pytest.fixture
def here() -> Iterator[Namespace]:
    with Namespace("machine") as net, net.inside():
        yield net


@pytest.mark.parametrize(("of", "other"), [(GATEWAY, NODE), (NODE, GATEWAY)])
def test_a_table_is_told_by_whose_it_is(here: Namespace, of: str, other: str) -> None:
    assert read.foreign_to(of, read.read()) == ""

    loaded = write.load((), of=of)

    assert loaded.reading.table is not None
    trusted = {loaded.reading.listing: digest(of)}
    assert read.foreign_to(of, read.read(trusted=trusted)) == ""
    assert "here is" in read.foreign_to(other, read.read(trusted=trusted))


def test_a_gateway_refuses_a_machine_that_is_a_node(here: Namespace) -> None:
    write.load((), of=NODE)
    machine = GatewayMachine()
    try:
        with pytest.raises(Refused, match="here is a cluster node's"):
            machine.read(Ledger())
    finally:
        machine.close()
    assert "pod_snat4" in here.run(("nft", "list", "ruleset")).stdout
