"""What ovn-trace says, held against the walk: same port, same address, same next hop, in each zone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from outgate.model.why import Finding, Severity
from outgate.model.zone import Microflow, OvnSaid
from outgate.trace.ovn import End, Leg, OvnWalk

_FIX = "the flow that is named decides: an ACL (NetworkPolicy, EgressFirewall), a load balancer, or northd lags behind"


def differing(ways: Iterable[OvnWalk], said: Mapping[tuple[str, Microflow], OvnSaid]) -> Iterator[tuple[Leg, OvnSaid]]:
    """Yield each zone of which ovn-trace says something else than every way there: the part of a way, and its words."""
    legs: dict[tuple[str, Microflow], list[Leg]] = {}
    for way in ways:
        certain = way.legs if way.end is not End.ROUTER else way.legs[:-1]  # what a router takes itself is not walked
        for leg in certain:
            legs.setdefault((leg.zone, leg.entry), []).append(leg)
    for key, mine in legs.items():
        theirs = said.get(key)
        if theirs is not None and not any(agrees(leg, theirs) for leg in mine):
            yield mine[0], theirs


def difference(leg: Leg, said: OvnSaid) -> Finding:
    """Return the finding about a zone of which ovn-trace says something else."""
    text = f"ovn-trace says that it {told(said)}, and by the rows it {_walked(leg)}"
    return Finding("TraceDiffers", f"zone {said.zone}", text, Severity.WARNING, _FIX)


def agrees(leg: Leg, said: OvnSaid) -> bool:
    """Whether both say the same, as far as ovn-trace tells."""
    if not said.outputs or not leg.port:
        return not said.outputs and not leg.port
    same_port = any(one.port == leg.port for one in said.outputs)
    same_source = leg.source == said.source or (said.source is None and said.asks_neighbour)
    on_link = leg.next_hop == leg.entry.destination  # then no register is loaded with a constant
    return same_port and same_source and (on_link or leg.next_hop == said.next_hop)


def told(said: OvnSaid) -> str:
    """Return in some words what ovn-trace says, with what decided."""
    if not said.outputs:
        return f"is dropped by {said.flow}"
    ports = " and ".join(one.port for one in said.outputs)
    via = f" via {said.next_hop}" if said.next_hop is not None else ""
    source = f" as {said.source}" if said.source is not None else ""
    return f"leaves by {ports}{via}{source}" + (f", by {said.policy}" if said.policy else "")


def _walked(leg: Leg) -> str:
    policy = f", by policy {leg.policy.priority} `{leg.policy.match}`" if leg.policy is not None else ""
    if not leg.port:
        return f"is dropped{policy}"
    source = f" as {leg.source}" if leg.source is not None else ""
    return f"leaves by {leg.port} via {leg.next_hop}{source}{policy}"
