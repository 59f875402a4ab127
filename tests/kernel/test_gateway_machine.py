"""A daemon keeps the table's elements on a machine where others may write to it too.

It knows what its own transactions did without listing the table, it notices every transaction of somebody else, and at
the next audit it looks for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from outgate.lab.namespace import Namespace
from outgate.model.ledger import Ledger
from outgate.model.ruleset import Element, Limit, Table
from outgate.model.state import Changes, Resource
from outgate.model.why import Because
from outgate.roles.machine import GatewayMachine
from outgate.systems.nft import program
from outgate.systems.nft import read as nft

MARK, OTHER = 0x100, 0x200
SNAT = Element("snat4", (MARK,), ip_address("192.168.55.113"))
SNAT_NEW = Element("snat4", (MARK,), ip_address("192.168.55.114"))
COUNTED = Element("sent", (MARK,))
LIMITED = Element("rates", (MARK,), Limit(1000, 500))
STRANGE = Element("sent", (OTHER,))


@contextmanager
def a_machine(*elements: Element) -> Iterator[GatewayMachine]:
    """A machine whose table holds these elements."""
    with Namespace("gateway") as namespace, namespace.inside():
        machine = GatewayMachine()
        try:
            table = Table(machine.digest)
            resources: tuple[Resource, ...] = (table, *elements)
            wants = dict.fromkeys(resources, Because("test", "wanted"))
            assert machine.write(Changes(make=resources), wants) == ()
            yield machine
        finally:
            machine.close()


def elements(machine: GatewayMachine) -> set[Element]:
    return {one for one in machine.read(Ledger()).actual if isinstance(one, Element)}


def listed() -> frozenset[Element]:
    return nft.read().elements


def holds_object(machine: GatewayMachine, element: Element) -> bool:
    """Whether the reading has this very object; one that was listed is another object of the same value."""
    return any(one is element for one in machine.read(Ledger()).actual)


def test_what_a_transaction_of_ours_did_is_known_without_listing() -> None:
    with a_machine(SNAT, COUNTED) as machine:
        machine.read(Ledger())

        machine.write(Changes(make=(SNAT_NEW, LIMITED)), {})
        machine.write(Changes(drop=(COUNTED,)), {})

        assert elements(machine) == {SNAT_NEW, LIMITED}
        assert holds_object(machine, LIMITED)
        assert listed() == {SNAT_NEW, LIMITED}


def test_an_audit_lists_the_table_after_we_changed_it_and_only_then() -> None:
    with a_machine(SNAT) as machine:
        machine.read(Ledger())
        machine.write(Changes(make=(COUNTED,)), {})

        machine.distrust()
        first = machine.read(Ledger())
        machine.distrust()
        second = machine.read(Ledger())

        assert elements(machine) == {SNAT, COUNTED}
        assert not holds_object(machine, COUNTED)
        assert second is first


def test_what_somebody_else_wrote_meanwhile_is_seen() -> None:
    with a_machine(SNAT) as machine:
        machine.read(Ledger())
        program.run(("add", "element", "inet", "outgate", "sent", "{ 0x200 }"), change="somebody else's")

        machine.write(Changes(make=(COUNTED,)), {})

        assert elements(machine) == {SNAT, COUNTED, STRANGE}


def test_what_somebody_else_writes_later_is_seen_too() -> None:
    with a_machine(SNAT) as machine:
        machine.write(Changes(make=(COUNTED,)), {})
        assert elements(machine) == {SNAT, COUNTED}

        program.run(("delete", "element", "inet", "outgate", "snat4", "{ 0x100 }"), change="somebody else's")

        assert machine.changed()
        assert elements(machine) == {COUNTED}


def test_an_element_that_the_kernel_refuses_is_not_believed() -> None:
    bad = Element("connections", (MARK,), Limit(1, 1))  # a value of another kind than the map's
    with a_machine(SNAT) as machine:
        machine.read(Ledger())

        (failure,) = machine.write(Changes(make=(bad, COUNTED)), {})

        assert failure.resource == bad
        assert elements(machine) == {SNAT, COUNTED} == listed()


def test_elements_that_stay_are_the_same_objects_in_the_next_listing() -> None:
    with a_machine(SNAT, COUNTED) as machine:
        before = {id(one) for one in elements(machine)}
        program.run(("add", "element", "inet", "outgate", "sent", "{ 0x200 }"), change="somebody else's")

        after = {id(one) for one in elements(machine)}

        assert before < after
