"""What one router of OVN does with a packet: the route that wins, the policy that decides over it, the translation.

Of routes the longest prefix wins; of one length a connected one comes before a static one, and one that asks for the
destination before one that asks for the source. Of policies that match the one of the highest priority decides. Source:
ovn-nb(5), and northd/northd.c of OVN 23.03 (`build_route_match`, ROUTE_PRIO_OFFSET).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby

from outgate.model.net import Address, Prefix
from outgate.model.ovn import Action, LogicalRoute, Policy
from outgate.model.zone import RouterPort, SwitchPort, Zone
from outgate.trace.match import Fields, Judgement, Value, judge
from outgate.trace.steps import Place, Step, Verdict

_SHOWN = 3  # of the policies of one priority that did not match
_CONNECTED, _STATIC, _BY_SOURCE = 2, 1, 0  # among routes of one length
_PROTOCOLS = ("tcp", "udp", "sctp", "icmp4", "icmp6")
_OF_EACH = {("icmp", 4): "icmp4", ("icmp", 6): "icmp6", ("icmpv6", 6): "icmp6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OvnPacket:
    """The first packet of a flow as a pod sends it. Port 0: any."""

    source: Address
    destination: Address
    protocol: str = "tcp"
    port: int = 0
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop, and the router's port by which it is reached."""

    address: Address
    port: RouterPort


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a router decides: the next hops (none: dropped) and the mark, with the steps that say so."""

    steps: tuple[Step, ...]
    hops: tuple[Hop, ...]
    mark: int
    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class _Way:
    """A route that matches: how good it is, in words, and where it leads."""

    rank: tuple[int, int]
    text: str
    hops: tuple[Hop, ...]


def rule_on(zone: Zone, port: RouterPort, packet: OvnPacket) -> Ruling:
    """Return what becomes of a packet that enters a router by a port."""
    where = f"{port.router} of {zone.name}"
    ways = sorted(_ways(zone, port.router, packet), key=lambda one: (one.rank, one.text), reverse=True)
    best = [one for one in ways if one.rank == ways[0].rank]
    if not best:
        step = Step(place=Place.ROUTE, text=f"{where}: no route to {packet.destination}", verdict=Verdict.ENDS)
        return Ruling(steps=(step,), hops=(), mark=packet.mark)
    policy, steps = _policy(zone, port, packet, where)
    mark = policy.packet_mark or packet.mark if policy is not None else packet.mark
    if policy is not None and policy.action is Action.DROP:
        return Ruling(steps=steps, hops=(), mark=mark, policy=policy)
    if policy is not None and policy.action is Action.REROUTE:
        hops = tuple(hop for hop in (_reached(zone, port.router, one) for one in policy.next_hops) if hop is not None)
        if not hops:
            text = f"{where}: no port of it is in the network of {', '.join(map(str, policy.next_hops))}"
            steps = (*steps, Step(place=Place.ROUTE, text=text, verdict=Verdict.ENDS))
        return Ruling(steps=steps, hops=hops, mark=mark, policy=policy)
    hops = tuple(dict.fromkeys(hop for one in best for hop in one.hops))
    verdict = Verdict.GOES_ON if hops else Verdict.ENDS
    over = f", over {ways[len(best)].text}" if len(ways) > len(best) else ""
    text = f"{where}: {' and '.join(one.text for one in best)}{over}"
    return Ruling(
        steps=(*steps, Step(place=Place.ROUTE, text=text, verdict=verdict)), hops=hops, mark=mark, policy=policy
    )


def guarding(zone: Zone, port: SwitchPort, packet: OvnPacket) -> Step | None:
    """Return the step that drops a packet on its way out by a switch port, by an ACL of ours; None: none does."""
    fields = _fields(zone, port.name, packet, way="outport")
    for acl in sorted(zone.acls, key=lambda one: (-one.priority, one.match)):
        if acl.switch == port.switch and judge(acl.match, fields).holds:
            text = f"{acl.switch}: ACL {acl.priority} `{acl.match}` (outgate's) drops it"
            return Step(place=Place.GUARD, text=text, verdict=Verdict.ENDS, resource=acl)
    return None


def leave_router(zone: Zone, router: str, source: Address) -> tuple[Address, tuple[Step, ...]]:
    """Return the source that a packet leaves a router with, and the step that says so, where it is translated."""
    fitting = [
        one
        for one in zone.snats
        if one.router == router and one.inside.version == source.version and source in one.inside
    ]
    best = max(fitting, key=lambda one: (one.inside.prefixlen, str(one)), default=None)
    if best is None:
        return source, ()
    where = f"{router} of {zone.name}"
    if router not in zone.gateways:
        text = f"{where} would make {source} {best.outside}, and is bound to no chassis: whether it does is not known"
        return source, (Step(place=Place.SNAT, text=text, verdict=Verdict.UNSURE, resource=best),)
    others = sorted((one for one in fitting if one is not best), key=lambda one: -one.inside.prefixlen)
    over = f", over {others[0].inside} to {others[0].outside}" if others else ""
    text = f"{where}: {best.inside} becomes {best.outside}{over}"
    return best.outside, (Step(place=Place.SNAT, text=text, resource=best),)


def _policy(zone: Zone, port: RouterPort, packet: OvnPacket, where: str) -> tuple[Policy | None, tuple[Step, ...]]:
    """Return the policy that decides, and the steps about it and about those that may apply; None: no policy does."""
    fields = _fields(zone, port.name, packet)
    candidates = sorted(
        (one for one in zone.policies if one.router == port.router), key=lambda one: (-one.priority, one.match)
    )
    missed: list[tuple[Policy, Judgement]] = []
    unsure: list[Step] = []
    for one in candidates:
        said = judge(one.match, fields)
        if said.holds is None:
            text = f"{where}: policy {_shown(one)} comes first, and {said.why}: the walk passes it by"
            unsure.append(Step(place=Place.POLICY, text=text, verdict=Verdict.UNSURE, resource=one))
        elif said.holds:
            twin = _twin(candidates, one, fields)
            unsure += [_rival(where, one, twin)] if twin is not None else []
            return one, (*unsure, _matched(where, one, tuple(_passed(missed, packet))))
        else:
            missed.append((one, said))
    if not candidates:
        return None, tuple(unsure)
    text = f"{where}: none of {len(candidates)} policies matches"
    passed = tuple(_passed(missed, packet))
    return None, (*unsure, Step(place=Place.POLICY, text=text, passed=passed))


def _matched(where: str, policy: Policy, passed: tuple[str, ...]) -> Step:
    hops = " or ".join(map(str, policy.next_hops))
    does = {Action.ALLOW: "lets the routes decide", Action.DROP: "drops it", Action.REROUTE: f"sends it to {hops}"}
    mark = f", with mark {policy.packet_mark}" if policy.packet_mark else ""
    ours = " (outgate's)" if policy.owner else ""
    text = f"{where}: policy {_shown(policy)}{ours} {does[policy.action]}{mark}"
    verdict = Verdict.ENDS if policy.action is Action.DROP else Verdict.GOES_ON
    return Step(place=Place.POLICY, text=text, verdict=verdict, resource=policy, passed=passed)


def _twin(candidates: list[Policy], policy: Policy, fields: Fields) -> Policy | None:
    """Return another policy of the same priority that matches too and does something else: OVN takes any of them."""
    for one in candidates:
        does_same = (one.action, one.next_hops, one.packet_mark) == (
            policy.action,
            policy.next_hops,
            policy.packet_mark,
        )
        if one.priority == policy.priority and not does_same and judge(one.match, fields).holds:
            return one
    return None


def _rival(where: str, policy: Policy, twin: Policy) -> Step:
    text = f"{where}: policy {_shown(twin)} matches too, and does otherwise than {_shown(policy)}: OVN takes either"
    return Step(place=Place.POLICY, text=text, verdict=Verdict.UNSURE, resource=twin)


def _passed(missed: list[tuple[Policy, Judgement]], packet: OvnPacket) -> Iterator[str]:
    """Yield why policies that come first do not match: some of each priority, and of the packet's IP version alone."""
    other = f"ip{10 - packet.source.version}."
    mine = [(one, said) for one, said in missed if other not in one.match]
    for priority, group in groupby(mine, key=lambda each: each[0].priority):
        same = list(group)
        shown = same if len(same) <= _SHOWN + 1 else same[:_SHOWN]
        yield from (f"{_shown(one)}: {said.why}" for one, said in shown)
        if len(same) > len(shown):
            yield f"{priority}: {len(same) - len(shown)} more"


def _shown(policy: Policy) -> str:
    return f"{policy.priority} `{policy.match}`"


def _fields(zone: Zone, port: str, packet: OvnPacket, *, way: str = "inport") -> Fields:
    version = packet.source.version
    protocol = _OF_EACH.get((packet.protocol, version), packet.protocol)
    values: dict[str, Value] = {
        "ip": True,
        "ip4": version == 4,
        "ip6": version == 6,
        f"ip{version}.src": packet.source,
        f"ip{version}.dst": packet.destination,
        "pkt.mark": packet.mark,
        way: port,
        "icmp": protocol.startswith("icmp"),
        **{name: name == protocol for name in _PROTOCOLS},
    }
    if packet.port:
        values[f"{protocol}.dst"] = packet.port
    return Fields(values=values, sets=zone.sets)


def _ways(zone: Zone, router: str, packet: OvnPacket) -> Iterator[_Way]:
    """Yield every route of a router that matches."""
    for port in zone.router_ports:
        for one in port.interfaces if port.router == router else ():
            if _holds(one.network, packet.destination):
                text = f"{one.network} on {port.name}"
                yield _Way((one.network.prefixlen, _CONNECTED), text, (Hop(packet.destination, port),))
    for route in zone.routes:
        if route.router == router and _holds(route.prefix, packet.source if route.by_source else packet.destination):
            hop = _next_hop(zone, route)
            kind = _BY_SOURCE if route.by_source else _STATIC
            if hop is not None or route.next_hop == "discard":
                text = f"{'from ' if route.by_source else ''}{route.prefix} via {route.next_hop}"
                yield _Way((route.prefix.prefixlen, kind), text, (hop,) if hop is not None else ())


def _next_hop(zone: Zone, route: LogicalRoute) -> Hop | None:
    """Return where a static route leads; None for one that discards, or that no port of the router can follow."""
    if route.next_hop == "discard":
        return None
    address = ip_address(route.next_hop)
    named = next((one for one in zone.router_ports if route.port and one.name == route.port), None)
    return Hop(address, named) if named is not None else _reached(zone, route.router, address)


def _reached(zone: Zone, router: str, address: Address) -> Hop | None:
    """Return a next hop by the port whose network holds it."""
    mine = (port for port in zone.router_ports if port.router == router)
    port = next((one for one in mine if any(_holds(each.network, address) for each in one.interfaces)), None)
    return Hop(address, port) if port is not None else None


def _holds(prefix: Prefix, address: Address) -> bool:
    return prefix.version == address.version and address in prefix
