"""A pod's packet on its way through OVN: from its switch, router by router, to where it leaves OVN or ends.

In each router routes are asked first, and then policies, which may send it another way; a router that is bound to a
chassis translates what leaves it. Over the transit switch it comes into the zone of another node, and marks do not.
Load balancers, ACLs and what br-ex does are not walked. Source: ovn-nb(5), northd/ovn-northd.8 of OVN 23.03.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from outgate.model.net import Address
from outgate.model.nics import HostCidr
from outgate.model.ovn import Policy
from outgate.model.zone import Microflow, RouterPort, SwitchPort, Zone
from outgate.trace.router import Hop, OvnPacket, guarding, leave_router, rule_on
from outgate.trace.steps import Place, Step, Verdict

_MOST_ROUTERS = 12  # more than any way has: a loop
_TRANSIT, _GATEWAY = "tstor-", "GR_"  # and the node's name: its port on the transit switch, its gateway router
_MANAGEMENT = "k8s-"  # and the node's name: the port by which OVN hands packets to a node's host


class End(Enum):
    """Where a walk through OVN ends."""

    BRIDGE = "leaves by br-ex"
    HOST = "is handed to the host"
    PORT = "reaches a port"
    ROUTER = "ends at a router"
    DROPPED = "is dropped"
    OTHER_ZONE = "goes to a zone that nobody asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """The part of a walk that lies in one zone: how it enters, and by which port, as whom and to whom it leaves.

    `port` is empty when it does not leave; `policy` is the last one that decided there.
    """

    zone: str
    entry: Microflow
    port: str = ""
    kind: str = ""
    source: Address | None = None
    next_hop: Address | None = None
    policy: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OvnWalk:
    """One way of a packet through OVN; of several next hops each has a walk.

    `node` is the node where it ends, `source` and `mark` are the packet's there.
    """

    steps: tuple[Step, ...]
    legs: tuple[Leg, ...]
    end: End
    node: str
    source: Address
    next_hop: Address | None = None
    mark: int = 0

    @property
    def reason(self) -> str:
        """What ended it, in a sentence."""
        return self.steps[-1].text if self.steps else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spot:
    """A packet that is about to enter a router."""

    zone: Zone
    port: RouterPort
    packet: OvnPacket
    steps: tuple[Step, ...]
    legs: tuple[Leg, ...]
    left: int = _MOST_ROUTERS


def walk_ovn(zones: Mapping[str, Zone], node: str, packet: OvnPacket) -> tuple[OvnWalk, ...]:
    """Return the ways of a packet from the pod that has its source, in the zone of its node or in whichever runs it.

    None where no zone has a port for it.
    """
    candidates = (*((zones[node],) if node in zones else ()), *zones.values())
    zone = next((one for one in candidates if pod_port(one, packet.source) is not None), None)
    pod = pod_port(zone, packet.source) if zone is not None else None
    gateway = _router_of(zone, pod) if zone is not None and pod is not None else None
    if zone is None or pod is None or gateway is None:
        return ()
    entry = Microflow(
        datapath=pod.switch,
        inport=pod.name,
        eth_src=pod.mac,
        eth_dst=gateway.mac,
        source=packet.source,
        destination=packet.destination,
        protocol=packet.protocol,
        port=packet.port,
    )
    text = f"{pod.name} on switch {pod.switch}, by {gateway.name} to {gateway.router} of {zone.name}"
    legs = (Leg(zone=zone.name, entry=entry),)
    spot = _Spot(zone=zone, port=gateway, packet=packet, steps=(Step(place=Place.POD, text=text),), legs=legs)
    return tuple(_through(zones, spot))


def pod_port(zone: Zone, address: Address) -> SwitchPort | None:
    """Return the switch port that has an address, if the zone runs it."""
    return next((one for one in zone.switch_ports if not one.kind and address in one.addresses), None)


def _router_of(zone: Zone, port: SwitchPort) -> RouterPort | None:
    """Return the router port that is the way out of a switch."""
    peers = {one.router_port for one in zone.switch_ports if one.switch == port.switch and one.kind == "router"}
    return next((one for one in zone.router_ports if one.name in peers), None)


def _through(zones: Mapping[str, Zone], spot: _Spot) -> Iterator[OvnWalk]:
    """Yield the ways from a router on."""
    zone, packet, router = spot.zone, spot.packet, spot.port.router
    if any(packet.destination == one.address for one in _interfaces(zone, router)):
        text = f"{packet.destination} is an address of {router} itself: what becomes of it hangs on the flow"
        yield _ended(spot, Step(place=Place.ROUTE, text=text, verdict=Verdict.UNSURE), End.ROUTER)
        return
    if not spot.left:
        text = f"{router} has seen it before: it goes round until its TTL is spent"
        yield _ended(spot, Step(place=Place.ROUTE, text=text, verdict=Verdict.ENDS), End.DROPPED)
        return
    ruling = rule_on(zone, spot.port, packet)
    marked = replace(packet, mark=ruling.mark)
    leg = replace(spot.legs[-1], policy=ruling.policy or spot.legs[-1].policy)
    decided = replace(spot, packet=marked, steps=(*spot.steps, *ruling.steps), legs=_noted(spot.legs, leg))
    if not ruling.hops:
        yield _ended(decided, None, End.DROPPED)
    for hop in ruling.hops:
        several = f"by {hop.address}, one of {len(ruling.hops)} next hops that flows are spread over"
        one_of = (Step(place=Place.ROUTE, text=several),) * (len(ruling.hops) > 1)
        yield from _leave(zones, replace(decided, steps=(*decided.steps, *one_of)), hop)


def _leave(zones: Mapping[str, Zone], spot: _Spot, hop: Hop) -> Iterator[OvnWalk]:
    """Yield the ways by one next hop of a router: translated there, then to whoever has the next hop."""
    zone = spot.zone
    source, steps = leave_router(zone, spot.port.router, spot.packet.source)
    became = source if source != spot.packet.source else spot.legs[-1].source
    spot = replace(
        spot,
        packet=replace(spot.packet, source=source),
        steps=(*spot.steps, *steps),
        legs=_noted(spot.legs, replace(spot.legs[-1], source=became, next_hop=hop.address)),
    )
    near = next((one for one in zone.switch_ports if one.kind == "router" and one.router_port == hop.port.name), None)
    if near is None:
        peer = next((one for one in zone.router_ports if one.name == hop.port.peer), None)
        if peer is not None:
            yield from _through(zones, replace(spot, port=peer, left=spot.left - 1))
            return
        text = f"{hop.port.name} of {spot.port.router} leads to no switch"
        yield _ended(spot, Step(place=Place.ROUTE, text=text, verdict=Verdict.ENDS), End.DROPPED)
        return
    yield from _over(zones, spot, near, hop)


def _over(zones: Mapping[str, Zone], spot: _Spot, near: SwitchPort, hop: Hop) -> Iterator[OvnWalk]:
    """Yield the ways over a switch, to the port that has the next hop."""
    zone = spot.zone
    ports = [one for one in zone.switch_ports if one.switch == near.switch]
    routers = {one.name: one for one in zone.router_ports}
    for port in ports:
        peer = routers.get(port.router_port) if port.kind == "router" else None
        if peer is not None and any(hop.address == one.address for one in peer.interfaces):
            yield from _through(zones, replace(spot, port=peer, left=spot.left - 1))
            return
    holder = next((one for one in ports if hop.address in one.addresses and one.kind != "router"), None)
    if holder is not None and holder.kind == "remote":
        yield from _to_other_zone(zones, spot, holder, hop)
    elif holder is not None:
        yield _at_port(spot, holder, hop)
    elif (local := next((one for one in ports if one.kind == "localnet"), None)) is not None:
        node = _node_of(zone, spot.port.router)
        if (guard := guarding(zone, local, spot.packet)) is not None:
            yield _ended(spot, guard, End.DROPPED, node=node, hop=hop)
            return
        text = f"by {local.name}, to {hop.address} as {spot.packet.source}"
        yield _ended(_out(spot, local), Step(place=Place.LEAVING, text=text), End.BRIDGE, node=node, hop=hop)
    else:
        text = f"nobody on {near.switch} has the next hop {hop.address}"
        yield _ended(spot, Step(place=Place.ROUTE, text=text, verdict=Verdict.ENDS), End.DROPPED, hop=hop)


def _at_port(spot: _Spot, port: SwitchPort, hop: Hop) -> OvnWalk:
    """Return the end at a switch port: of a pod, or by which the host is reached."""
    out = _out(spot, port)
    if port.name.startswith(_MANAGEMENT):
        node = port.name.removeprefix(_MANAGEMENT)
        mark = f", with mark {out.packet.mark}" if out.packet.mark else ""
        step = Step(place=Place.HOST, text=f"handed to the host of {node} by {port.name}{mark}")
        return _ended(out, step, End.HOST, node=node, hop=hop)
    return _ended(out, Step(place=Place.LEAVING, text=f"to {port.name}, as {out.packet.source}"), End.PORT, hop=hop)


def _to_other_zone(zones: Mapping[str, Zone], spot: _Spot, port: SwitchPort, hop: Hop) -> Iterator[OvnWalk]:
    """Yield the ways on in the zone of the node behind the tunnel; marks stay behind."""
    out = _out(spot, port)
    there = next((one for one in zones.values() if one is not spot.zone and _entry(one, hop.address)), None)
    node = there.name if there is not None else port.name.removeprefix(_TRANSIT)
    step = Step(place=Place.TUNNEL, text=f"over {port.switch} to {node}, by {port.name}")
    entry = _entry(there, hop.address) if there is not None else None
    if there is None or entry is None:
        yield _ended(out, step, End.OTHER_ZONE, node=node, hop=hop)
        return
    packet = replace(out.packet, mark=0)
    flow = Microflow(
        datapath=port.switch,
        inport=_counterpart(there, hop.port),
        eth_src=hop.port.mac,
        eth_dst=entry.mac,
        source=packet.source,
        destination=packet.destination,
        ttl=63,
        protocol=packet.protocol,
        port=packet.port,
    )
    legs = (*out.legs, Leg(zone=there.name, entry=flow))
    steps = (*out.steps, step)
    yield from _through(
        zones, replace(out, zone=there, port=entry, packet=packet, steps=steps, legs=legs, left=out.left - 1)
    )


def _node_of(zone: Zone, router: str) -> str:
    """Return the node of a gateway router: where there is no interconnect, one zone has those of all nodes."""
    return zone.name if router.endswith(zone.name) else router.removeprefix(_GATEWAY)


def _entry(zone: Zone, address: Address) -> RouterPort | None:
    """Return the router port of a zone that has an address."""
    return next((one for one in zone.router_ports if any(address == each.address for each in one.interfaces)), None)


def _counterpart(zone: Zone, port: RouterPort) -> str:
    """Return by which port of a zone a neighbour's packets enter: the remote one that has the neighbour's MAC."""
    return next((one.name for one in zone.switch_ports if one.kind == "remote" and one.mac == port.mac), "")


def _interfaces(zone: Zone, router: str) -> Iterator[HostCidr]:
    for port in zone.router_ports:
        if port.router == router:
            yield from port.interfaces


def _noted(legs: tuple[Leg, ...], last: Leg) -> tuple[Leg, ...]:
    """Return the legs with another last one."""
    return (*legs[:-1], last)


def _out(spot: _Spot, port: SwitchPort) -> _Spot:
    """Return the packet as it leaves its zone by a port."""
    return replace(spot, legs=_noted(spot.legs, replace(spot.legs[-1], port=port.name, kind=port.kind)))


def _ended(spot: _Spot, step: Step | None, end: End, *, node: str = "", hop: Hop | None = None) -> OvnWalk:
    return OvnWalk(
        steps=(*spot.steps, step) if step is not None else spot.steps,
        legs=spot.legs,
        end=end,
        node=node or spot.zone.name,
        source=spot.packet.source,
        next_hop=hop.address if hop is not None else None,
        mark=spot.packet.mark,
    )
