"""The node role, as far as it goes: it looks, and changes nothing."""

from __future__ import annotations

from outgate.model.host_table import EgressTable
from outgate.model.net import Address
from outgate.plan.host_table import examine
from outgate.systems.kernel.tables import read_tables


def egress_tables(destination: Address | None = None) -> tuple[EgressTable, ...]:
    """Return the tables that EgressIP uses in this thread's network namespace, beside the main table.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    return examine(read_tables(), destination)
