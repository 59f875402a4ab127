"""A pod's packet through the host of a cluster node: it comes by the management port, and leaves by a NIC, or does not.

The order is the kernel's: rules and routes, forwarding and the reverse path filter, the first translation that matches,
the guard behind it. The chains are those of `systems/nft/node.nft`, of OVN-Kubernetes' map for secondary NICs, and
whatever rule of others gives a source. Of others' chains those are known that let nothing out by a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from outgate.model.firewall import SourceNat
from outgate.model.host_table import HostTables, Translations
from outgate.model.net import MAIN, NO_MARK, Address, Discard, LinkName, Mark, Prefix
from outgate.trace.routing import Ask, Found, link_of, look_up, neighbour_of, reverse_path_refuses, route_step
from outgate.trace.steps import Packet, Place, Step, Verdict
from outgate.trace.table import address_of
from outgate.trace.walk import not_forwarding
from outgate.trace.world import World, world_of_node

MANAGEMENT_PORT = LinkName("ovn-k8s-mp0")
_SECONDARY_MARK = 1009  # OVN-Kubernetes': whoever bears it leaves by a secondary NIC as an egress IP, or not at all


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPacket:
    """A pod's packet as OVN hands it to the host."""

    source: Address
    destination: Address
    protocol: str = "tcp"
    mark: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWalk:
    """The way through a host. `link` is None where the packet does not leave, and `is_here` says that it need not:
    it is for the node itself. `leaves_as` is None where that is not known.
    """

    steps: tuple[Step, ...]
    link: LinkName | None = None
    via: Address | None = None
    leaves_as: Address | None = None
    is_here: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node's host as far as it was read; `planned` is the source that the plan gives where nftables were not.

    `own` are addresses of the node and their networks, one of which is taken where packets are masqueraded.
    """

    node: str
    host: HostTables
    translations: Translations | None = None
    planned: Address | None = None
    own: tuple[tuple[Address, Prefix], ...] = ()


def walk_host(machine: Machine, packet: HostPacket) -> HostWalk:
    """Return how a node's host treats a pod's packet."""
    if any(packet.destination == one for one, _ in machine.own):
        text = f"{packet.destination} is {machine.node}'s own address"
        return HostWalk(steps=(Step(place=Place.ROUTE, text=text),), is_here=True)
    elements = machine.translations.elements if machine.translations is not None else None
    world = world_of_node(machine.host, elements)
    mark = Mark(packet.mark) if packet.mark else NO_MARK
    asked = Ask(source=packet.source, destination=packet.destination, incoming=MANAGEMENT_PORT, mark=mark)
    found = look_up(world, asked)
    steps = (*found.notes, *_routed(world, found, packet.destination))
    link = link_of(found.route) if found.route is not None else None
    if found.route is None or link is None:
        return HostWalk(steps=steps)
    arrived = Packet(source=packet.source, destination=packet.destination, incoming=MANAGEMENT_PORT)
    refusal = not_forwarding(world, arrived) or reverse_path_refuses(world, asked, MANAGEMENT_PORT, link)
    if refusal:
        refused = Step(place=Place.FORWARDING, text=f"{refusal}, on {machine.node}", verdict=Verdict.ENDS)
        return HostWalk(steps=(*steps, refused))
    stopped = _refused(machine, packet, link)
    steps = (*steps, *stopped)
    if any(one.verdict is Verdict.ENDS for one in stopped):
        return HostWalk(steps=steps)
    source, translated = _translate(machine, world, packet, link)
    guarded = _guard(machine, world, packet, source)
    steps = (*steps, translated, *([guarded] if guarded is not None else []))
    if guarded is not None and guarded.verdict is Verdict.ENDS:
        return HostWalk(steps=steps)
    via = neighbour_of(found.route, packet.destination)
    text = f"by {link} to {via}" + (f" as {source}" if source is not None else "")
    return HostWalk(steps=(*steps, Step(place=Place.LEAVING, text=text)), link=link, via=via, leaves_as=source)


def _routed(world: World, found: Found, destination: Address) -> Iterator[Step]:
    """Yield the rule that matched, where it is not the one that leads to main, and the route or discard that won."""
    rule = found.rule
    if rule is not None and (rule.action != MAIN or rule.src is not None or rule.mark is not None):
        ends = isinstance(rule.action, Discard)
        yield Step(
            place=Place.RULE, text=f"rule `{rule}`", verdict=Verdict.ENDS if ends else Verdict.GOES_ON, resource=rule
        )
        if ends:
            return
    step = route_step(found, destination, world)
    if found.discard is not None:
        step = Step(place=Place.ROUTE, text=step.text, verdict=Verdict.ENDS, resource=step.resource, over=step.over)
    yield step


def _refused(machine: Machine, packet: HostPacket, link: LinkName) -> tuple[Step, ...]:
    """Return the steps about chains of others that let no pod's packet out by a link."""
    known = machine.translations.refused if machine.translations is not None else ()
    found = []
    for one in known:
        if (one.link, one.version) == (link, packet.source.version):
            unless = ", unless a chain that it jumps to accepts it" if one.jumps else ""
            text = f"{one.place} lets no pod's packet out by {link}, or no answer back{unless}"
            verdict = Verdict.UNSURE if one.jumps else Verdict.ENDS
            found.append(Step(place=Place.FORWARDING, text=text, verdict=verdict))
    return tuple(found)


def _translate(machine: Machine, world: World, packet: HostPacket, link: LinkName) -> tuple[Address | None, Step]:
    """Return the source that the packet leaves with, None where that is not known, and the step that says why."""
    version, pod = packet.source.version, packet.source
    have = machine.translations
    if have is None:
        text = f"nftables of {machine.node} was not read" + (
            f"; the plan makes it {machine.planned}" if machine.planned is not None else ""
        )
        return machine.planned, Step(place=Place.SNAT, text=text, verdict=Verdict.UNSURE)
    if _departs(world, packet):
        own = next((one for one, _ in _on_link(machine, link, version)), None)
        text = f"table inet outgate: {pod} to a node becomes {own or f'an address of {link}'}"
        return own, Step(place=Place.SNAT, text=text)
    inside = world.covering(f"inside{version}", packet.destination)
    given = world.element(f"pod_snat{version}", pod) if inside is None else None
    address = address_of(given.value) if given is not None else None
    if address is not None:
        text = f"table inet outgate: {pod} becomes {address}"
        return address, Step(place=Place.SNAT, text=text, resource=given)
    theirs = next((one for one in have.by_nic if one.pod == pod and one.link == link), None)
    if theirs is not None:
        text = f"table inet ovn-kubernetes, map egress-ip-snat-v{version}: {pod} by {link} becomes {theirs.address}"
        return theirs.address, Step(place=Place.SNAT, text=text)
    rule = min((one for one in have.others if _applies(one, pod, link)), key=lambda one: one.priority, default=None)
    if rule is not None:
        own = next((one for one, _ in _on_link(machine, link, version)), None)
        return own, Step(place=Place.SNAT, text=f"{rule.place}: {pod} becomes {own or f'an address of {link}'}")
    return pod, Step(place=Place.SNAT, text=f"nothing translates {pod}: it keeps its address")


def _departs(world: World, packet: HostPacket) -> bool:
    """Whether it is a packet to a node from a pod that runs here and has an egress IP: nodes see this node."""
    version = packet.source.version
    departing = world.element(f"departing{version}", packet.source)
    return departing is not None and world.element(f"node_peer{version}", packet.destination) is not None


def _applies(rule: SourceNat, pod: Address, link: LinkName) -> bool:
    """Whether a rule of others surely gives a pod's packets another source."""
    covers = rule.src is not None and rule.src.version == pod.version and pod in rule.src
    by = rule.incoming in ("", MANAGEMENT_PORT) and rule.outgoing in ("", link)
    return covers and by and rule.mark is None and not rule.conditional


def _on_link(machine: Machine, link: LinkName, version: int) -> Iterator[tuple[Address, Prefix]]:
    """Yield the node's own addresses on a link, by the networks that the link is connected to."""
    connected = {one.dst for one in machine.host.routes if one.link == link}
    yield from (one for one in machine.own if one[0].version == version and one[1] in connected)


def _guard(machine: Machine, world: World, packet: HostPacket, source: Address | None) -> Step | None:
    """Return what the guards behind translation say; None where none has a say."""
    version, pod = packet.source.version, packet.source
    if machine.translations is None or world.covering(f"inside{version}", packet.destination) is not None:
        return None
    if world.element(f"served{version}", pod) is not None and not _departs(world, packet):
        own = world.element(f"pod_own{version}", pod, source) if source is not None else None
        if own is not None:
            return Step(place=Place.GUARD, text=f"table inet outgate: passed as {source}", resource=own)
        text = f"table inet outgate: {source or 'what it became'} is no egress IP of {pod}: dropped"
        return Step(place=Place.GUARD, text=text, verdict=Verdict.ENDS)
    if packet.mark == _SECONDARY_MARK and source == pod:
        text = (
            f"mark {_SECONDARY_MARK} and no egress IP: OVN-Kubernetes drops it since June 2026, and let it out before"
        )
        return Step(place=Place.GUARD, text=text, verdict=Verdict.UNSURE)
    return None
