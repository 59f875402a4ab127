"""The node role in its assisting stance: it adds to the node's zone and host what makes host routes count for egress
IPs, and leaves all that is OVN-Kubernetes' alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from outgate.control.loop import Readable
from outgate.model.egress_ip import NodeSnapshot
from outgate.model.errors import Unreachable
from outgate.model.intent import EgressNode, Node
from outgate.model.net import Prefix
from outgate.model.routing import Stance
from outgate.model.state import Desired, Outcome
from outgate.model.why import Finding, Severity
from outgate.plan.assist import plan_node
from outgate.plan.zone import compare_zone
from outgate.roles.node_machine import NodeMachine, NodeReading
from outgate.systems.kernel.events import Watch
from outgate.systems.ovn.northbound import Northbound

log = logging.getLogger("outgate.node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amiss:
    """What a round found amiss: in the `routes` that ought to be followed, and in the `rows` of OVN-Kubernetes.

    `is_done`: all that this node was told stands, and was read again.
    """

    is_done: bool = False
    routes: tuple[Finding, ...] = ()
    rows: tuple[Finding, ...] = ()


class Assisting:
    """A node's zone and host, a round at a time. The database may go and come back."""

    def __init__(self, target: str, services: tuple[Prefix, ...] = ()) -> None:
        """`target` is the northbound database of the node's zone (`unix:PATH`)."""
        self._target, self._services = target, services
        self._northbound: Northbound | None = None
        self._machine: NodeMachine | None = None
        self._watch = Watch()

    def round(self, node: Node, work: EgressNode, nodes: tuple[Node, ...] = ()) -> Amiss:
        """Read, plan, write and verify; return what is amiss.

        Raises:
            NotReady: the host could not be read completely.
            Refused: nftables can not be read or written.
            Unreachable: the database or netlink does not answer.
        """
        machine = self._opened()
        try:
            reading = machine.read()
            snapshot = replace(self._snapshot(node, work, reading), nodes=nodes)
            desired = plan_node(snapshot, machine.digest)
            outcome = machine.settle(desired, reading)
        except Unreachable:
            self._forget()
            raise
        self._tell(outcome)
        return Amiss(
            is_done=outcome.converged,
            routes=(*desired.findings, *_refused(outcome, node)),
            rows=compare_zone(snapshot) if snapshot.stance is not Stance.OWN else (),
        )

    def flush(self) -> Outcome:
        """Take back all that is ours, in the zone and on the host.

        Raises:
            NotReady, Refused, Unreachable: as `round`.
        """
        machine = self._opened()
        nothing = Desired(wants=MappingProxyType({}))
        outcome = machine.settle(nothing, machine.read())
        machine.end_rest()
        return replace(outcome, left=machine.settle(nothing, machine.read()).left)

    def watched(self) -> Iterator[Readable]:
        """Yield what becomes readable when the host or the zone changed; after a lost connection ask again."""
        yield self._watch
        if self._northbound is not None:
            yield self._northbound

    def changed(self) -> bool:
        """Consume what was told; return whether a round should follow."""
        told = bool(self._watch.changed())
        if self._northbound is not None:
            try:
                told |= self._northbound.catch_up()
            except Unreachable:
                self._forget()
                return True
        return told

    def close(self) -> None:
        """Close all connections; what was written stays."""
        self._forget()
        self._watch.close()

    def _snapshot(self, node: Node, work: EgressNode, reading: NodeReading) -> NodeSnapshot:
        return NodeSnapshot(
            node=node,
            host=reading.host,
            assignments=work.assignments,
            departures=work.departures,
            stance=work.stance,
            inside=self._services,
            policies=reading.northbound.policies,
            snats=reading.northbound.snats,
            routes=reading.northbound.routes,
            ports=reading.northbound.ports,
            marks_answers=reading.northbound.marks_answers,
            sets=reading.northbound.sets,
            firewall=reading.firewall,
        )

    def _opened(self) -> NodeMachine:
        if self._machine is None or self._northbound is None:
            self._northbound = Northbound(self._target)
            self._machine = NodeMachine(self._northbound)
        return self._machine

    def _forget(self) -> None:
        for one in (self._northbound, self._machine):
            if one is not None:
                one.close()
        self._northbound = self._machine = None

    def _tell(self, outcome: Outcome) -> None:
        if outcome.changes:
            made, dropped = len(outcome.changes.make), len(outcome.changes.drop)
            fields = {
                "made": made,
                "dropped": dropped,
                "refused": len(outcome.failures),
                "left": len(outcome.left.make),
            }
            log.info("round", extra={"fields": fields})


def _refused(outcome: Outcome, node: Node) -> Iterator[Finding]:
    about = f"Node/{node.name}"
    for failure in outcome.failures[:5]:
        yield Finding("NotProgrammed", about, f"{failure.resource}: {failure.words}", fix="outgate node tables")
    if outcome.left and not outcome.failures:
        text = (
            f"after writing, {len(outcome.left.make) + len(outcome.left.drop)} changes are left: somebody undoes them"
        )
        yield Finding(
            "NotConverged", about, text, Severity.WARNING, "see who else writes the zone's northbound database"
        )
