"""A packet's walk through the gateway, step by step as the kernel takes it, and the way of its answer.

The order is the kernel's: the link, chain `enter` (mangle), rules and routes, forwarding and the reverse path filter,
chain `forward`, SNAT, the guard behind it, the neighbour. What is walked is the first packet of a flow; a flow that
lives keeps the translation it got. Other tables' rules are not walked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from outgate.model.net import (
    ALL_LINKS,
    Address,
    Discard,
    LinkAddress,
    LinkName,
    Mark,
    Setting,
    TenantLink,
)
from outgate.trace import table
from outgate.trace.routing import (
    Ask,
    Found,
    link_of,
    look_up,
    neighbour_of,
    own_address,
    reverse_path_refuses,
    route_step,
)
from outgate.trace.steps import Disposition, Packet, Place, Reply, Step, Trace, Verdict
from outgate.trace.table import Passage, Stop
from outgate.trace.world import World

_LOOPBACK = LinkName("lo")
_ANYBODY = IPv4Address(0)  # whom the reverse path filter takes a broadcast for
_TOLD = {Discard.BLACKHOLE: Disposition.DROPPED, Discard.UNREACHABLE: Disposition.NO_ROUTE}  # else: prohibited


def walk(world: World, packet: Packet) -> Trace:
    """Return how the gateway treats a packet that comes in by a link."""
    way = _Way(world=world, packet=packet, mark=packet.mark)
    ended = _arrive(way) or _enter(way) or _route(way) or _forward(way) or _send(way)
    steps = tuple(way.steps)
    if not ended.forwards:
        last = next((step for step in steps if step.verdict is Verdict.ENDS), steps[-1])
        return Trace(packet=packet, steps=steps, disposition=ended, reason=last.text, mark=way.mark)
    return Trace(
        packet=packet,
        steps=steps,
        disposition=ended,
        reason=_reason(way, ended),
        leaves_as=way.source,
        link=way.leaving,
        via=way.via,
        mark=way.mark,
        reply=_reply(way) if way.source != packet.source else None,
    )


def arrive_by(world: World, packet: Packet, next_hop: Address) -> Trace:
    """Return the walk of a packet that a node sends to a next hop: it comes in by the link that answers for it.

    `packet.incoming` is replaced by that link. Where nobody answers, the packet is never received.
    """
    link = receiver(world, next_hop)
    if link is not None:
        return walk(world, replace(packet, incoming=link))
    text = f"nobody here answers for the next hop {next_hop}"
    step = Step(place=Place.ARRIVAL, text=text, verdict=Verdict.ENDS)
    return Trace(packet=packet, steps=(step,), disposition=Disposition.NOT_RECEIVED, reason=text)


def receiver(world: World, address: Address) -> LinkName | None:
    """Return the link on which an address is, so that neighbours find it there; None when it is on none that is up."""
    held = (have.link for have in world.addresses.get(address, ()))
    return next((link for link in held if world.is_up(link)), None)


@dataclass(slots=True)
class _Way:
    """A walk under way: what has been decided so far."""

    world: World
    packet: Packet
    mark: Mark
    steps: list[Step] = field(default_factory=list)
    found: Found = field(default_factory=Found)
    leaving: LinkName = _LOOPBACK
    via: Address | None = None
    source: Address | None = None

    def add(self, place: Place, text: str, *, ends: bool = False) -> None:
        verdict = Verdict.ENDS if ends else Verdict.GOES_ON
        self.steps.append(Step(place=place, text=text, verdict=verdict))

    def stop(self, stop: Stop) -> Disposition:
        self.steps.append(stop.step)
        return stop.disposition

    @property
    def passage(self) -> Passage:
        return Passage(packet=self.packet, mark=self.mark, leaving=self.leaving)


def _arrive(way: _Way) -> Disposition | None:
    world, packet = way.world, way.packet
    link = world.links.get(packet.incoming)
    if link is None or not world.is_up(packet.incoming):
        text = f"there is no link {packet.incoming}" if link is None else f"{packet.incoming} is down"
        way.add(Place.ARRIVAL, text, ends=True)
        return Disposition.NOT_RECEIVED
    deaf = isinstance(link, TenantLink) and not link.ipv6
    if packet.source.version == 6 and (deaf or world.strongest(packet.incoming, Setting.DISABLE_IPV6)):
        way.add(Place.ARRIVAL, f"{packet.incoming} takes no part in IPv6", ends=True)
        return Disposition.NOT_RECEIVED
    text = f"by {packet.incoming}"
    if isinstance(link, TenantLink):
        text += f" ({link.mac} on {link.parent})"
        way.steps.append(Step(place=Place.ARRIVAL, text=text, because=world.because(link), resource=link))
    else:
        way.add(Place.ARRIVAL, text)
    return None


def _enter(way: _Way) -> Disposition | None:
    """Take the chain `enter`: whose packet is it, and may it knock at an egress IP?"""
    world, packet = way.world, way.packet
    if world.table is None:
        way.add(Place.IDENTITY, "the table inet outgate is not there: nobody is known, nothing is translated")
        return None
    if world.expected and world.table.digest != world.expected:
        text = f"the table's rules are not those that outgate renders ({world.table}): the walk follows outgate's"
        way.steps.append(Step(place=Place.IDENTITY, text=text, verdict=Verdict.UNSURE, resource=world.table))
    if table.enters_inner(world, packet.incoming):
        way.mark, step = table.identify(world, packet)
        here = own_address(world, packet.destination) is not None or packet.destination.is_multicast
        stopped = table.refuse_stranger(step, way.mark, local=here)
        if stopped is not None:
            return way.stop(stopped)
        way.steps.append(step)
    met = table.arrive_at_egress_ip(world, packet)
    if isinstance(met, Stop):
        return way.stop(met)
    way.steps += [met] if met else []
    return None


def _route(way: _Way) -> Disposition | None:
    """Take policy rules, routes, the link's forwarding and the reverse path filter."""
    world, packet = way.world, way.packet
    strange = _never_forwarded(packet)
    if strange:
        way.add(Place.ROUTE, strange, ends=True)
        return Disposition.DROPPED
    asked = Ask(source=packet.source, destination=packet.destination, incoming=packet.incoming, mark=way.mark)
    way.found = found = look_up(world, asked)
    way.steps += found.notes
    asleep = "" if found.local is not None else not_forwarding(world, packet)
    if asleep and packet.source.version == 4:  # IPv4 gives up on other links' packets before it says why
        way.add(Place.FORWARDING, asleep, ends=True)
        return Disposition.DROPPED
    if found.discard is not None:
        way.steps.append(_discarded(world, found))
        return _TOLD.get(found.discard, Disposition.REJECTED)
    if found.local is None:
        way.steps.append(route_step(found, packet.destination, world))
    if found.local is None and found.route is None:
        return Disposition.NO_ROUTE
    way.leaving = (link_of(found.route) if found.route is not None else None) or _LOOPBACK
    way.via = neighbour_of(found.route, packet.destination) if found.route is not None else None
    back = replace(asked, destination=_ANYBODY) if found.local is not None and found.broadcast else asked
    refusal = asleep or reverse_path_refuses(world, back, packet.incoming, way.leaving)
    if refusal:
        way.add(Place.FORWARDING, refusal, ends=True)
        return Disposition.DROPPED
    if found.local is not None:
        way.add(Place.ROUTE, f"{packet.destination} is this machine's own, on {found.local.link}", ends=True)
        return Disposition.LOCAL
    return None


def _forward(way: _Way) -> Disposition | None:
    """Take the chain `forward`."""
    if way.world.table is None:
        return None
    if not table.enters_inner(way.world, way.packet.incoming):
        stop = table.pass_inward(way.world, way.passage)
        return way.stop(stop) if stop else None
    judged = table.pass_outward(way.world, way.passage)
    if isinstance(judged, Stop):
        return way.stop(judged)
    way.steps += judged
    return None


def _send(way: _Way) -> Disposition:
    """Take SNAT, the guard, and leave."""
    world, packet = way.world, way.packet
    way.source = packet.source
    if world.table is not None:
        way.source, step = table.translate(world, way.passage)
        way.steps += [step] if step else []
        judged = table.leave(world, way.passage, way.source)
        if isinstance(judged, Stop):
            return way.stop(judged)
        way.steps.append(judged)
    way.add(Place.LEAVING, f"by {way.leaving} to {way.via} as {way.source}")
    inside = world.covering(f"internal{packet.source.version}", way.leaving, packet.destination)
    return Disposition.INTERNAL if inside is not None and way.source == packet.source else Disposition.LEAVES


def _reply(way: _Way) -> Reply:
    """Walk the answer back to the sender: the address must be found, translated back, and routed to the node."""
    world, packet, seen_as = way.world, way.packet, way.source
    assert seen_as is not None
    back: list[Step] = []

    def lost(place: Place, text: str) -> Reply:
        back.append(Step(place=place, text=text, verdict=Verdict.ENDS))
        return Reply(steps=tuple(back), returns=False, reason=text)

    link = _answering(way, seen_as)
    if link is None:
        text = f"no link has {seen_as}: neighbours forget where it is, and answers stop coming"
        return lost(Place.ARRIVAL, text)
    own = next((a for a in world.addresses[seen_as] if isinstance(a, LinkAddress) and a.link == link), None)
    text = f"by {link}"
    back.append(Step(place=Place.ARRIVAL, text=text, because=world.because(own), resource=own))
    mark = table.mark_of_answer(world, link, way.mark)
    text = f"{seen_as} becomes {packet.source} again, mark {mark:#x}"
    back.append(Step(place=Place.IDENTITY, text=text))
    asked = Ask(source=packet.destination, destination=packet.source, incoming=link, mark=mark)
    found = look_up(world, asked)
    back += found.notes
    if found.discard is not None or found.route is None or found.local is not None:
        return lost(Place.ROUTE, f"there is no route back to {packet.source}")
    back.append(route_step(found, packet.source, world))
    leaving = link_of(found.route) or _LOOPBACK
    answer = Packet(source=packet.destination, destination=packet.source, incoming=link, mark=mark)
    refusal = not_forwarding(world, answer) or reverse_path_refuses(world, asked, link, leaving)
    if refusal:
        return lost(Place.FORWARDING, refusal)
    passage = Passage(packet=answer, mark=mark, leaving=leaving)
    judged = table.pass_inward(world, passage, answer=True) or table.leave(world, passage, answer.source)
    if isinstance(judged, Stop):
        return lost(judged.step.place, judged.step.text)
    if not table.enters_inner(world, leaving):
        return lost(Place.GATE, f"the way back to {packet.source} is by {leaving}, which is no inner link")
    via = neighbour_of(found.route, packet.source)
    back.append(Step(place=Place.LEAVING, text=f"by {leaving} to {via}"))
    return Reply(steps=tuple(back), returns=True, reason=f"answers return by {leaving} to {via}", link=leaving, via=via)


def _answering(way: _Way, address: Address) -> LinkName | None:
    """Return the link on which neighbours find an egress IP: the one it left by if that has it."""
    held = [have.link for have in way.world.addresses.get(address, ()) if way.world.is_up(have.link)]
    return way.leaving if way.leaving in held else next(iter(held), None)


def _discarded(world: World, found: Found) -> Step:
    """Return the step of a rule or route that ends the packet."""
    by = found.route if found.route is not None else found.rule
    place = Place.ROUTE if found.route is not None else Place.RULE
    because = world.because(by)
    text = (
        f"`{by}`"
        if found.route is not None or world.table is not None
        else f"the table is missing, and `{by}` refuses the packet"
    )
    return Step(place=place, text=text, verdict=Verdict.ENDS, because=because, resource=by, over=found.over)


def not_forwarding(world: World, packet: Packet) -> str:
    """Return why the kernel does not forward for this link and family, empty when it does or when nobody read it."""
    if packet.source.version == 6:
        off = world.setting(ALL_LINKS, Setting.FORWARDING6) == 0
        return "IPv6 forwarding is off (net.ipv6.conf.all.forwarding)" if off else ""
    if world.setting(packet.incoming, Setting.FORWARDING) == 0:
        return f"IPv4 forwarding is off on {packet.incoming} (net.ipv4.conf.{packet.incoming}.forwarding)"
    return ""


def _never_forwarded(packet: Packet) -> str:
    """Return why no router sends such a packet on, empty for ordinary ones."""
    for end, name in ((packet.source, "source"), (packet.destination, "destination")):
        if end.is_loopback or end.is_unspecified:
            return f"the {name} {end} has no meaning on a wire"
        if end.is_multicast:
            return f"the {name} {end} is multicast, which is not forwarded"
        if end.version == 6 and end.is_link_local:
            return f"the {name} {end} is link-local and stays on its link"
    return ""


def _reason(way: _Way, ended: Disposition) -> str:
    if ended is Disposition.INTERNAL:
        return f"{way.packet.destination} is an internal destination, reached untranslated"
    decided = next((step for step in way.steps if step.place is Place.SNAT), None)
    if decided is not None and way.source != way.packet.source:
        return decided.because.text if decided.because else decided.text
    if way.world.table is None:
        return "nothing of outgate's is in the way: it leaves as any router would send it"
    return f"{way.packet.source} is not protected: it leaves as it came"
