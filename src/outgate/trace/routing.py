"""Rules and routes as the kernel takes them: policy rules by priority, in a table the longest prefix, then the metric.

Sources: ip-rule(8), ip-route(8), and of the kernel `fib_rules_lookup` (net/core/fib_rules.c) and `fib_validate_source`
(net/ipv4/fib_frontend.c) for the reverse path. Tables other than main, local and default are not read: where a rule
leads to one, the walk says so and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network

from outgate.model.net import (
    MAIN,
    Address,
    Discard,
    HostAddress,
    LinkName,
    Mark,
    OnLink,
    Route,
    Rule,
    Setting,
    TableId,
    Via,
)
from outgate.trace.steps import Place, Step, Verdict
from outgate.trace.world import DEFAULT, KERNEL_RULES, LOCAL, AnyAddress, World, prefixes_of

_READ = (MAIN, LOCAL, DEFAULT)
_TABLE_NAMES = {MAIN: "main", LOCAL: "local", DEFAULT: "default"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a look-up is asked: who sends to whom, by which link it came, and with which mark."""

    source: Address
    destination: Address
    incoming: LinkName | None
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The answer of a look-up.

    `local` is set for the machine's own addresses (`broadcast`: for the broadcast address beside one), `discard` when
    a rule or route ends the packet, `route` when one carries it on; all None: nothing matches. `over` are the routes
    that matched and lost. `notes` are what could not be known.
    """

    rule: Rule | None = None
    route: Route | None = None
    local: AnyAddress | None = None
    broadcast: bool = False
    discard: Discard | None = None
    over: tuple[Route, ...] = ()
    notes: tuple[Step, ...] = ()

    @property
    def decides(self) -> bool:
        """Whether this ends the look-up."""
        return self.local is not None or self.discard is not None or self.route is not None


def look_up(world: World, asked: Ask) -> Found:
    """Return where a packet goes: rules in order of priority, each with its table, until one decides."""
    notes: tuple[Step, ...] = ()
    for rule in world.rules:
        if not _matches(rule, asked):
            continue
        found = _consult(world, rule, asked)
        notes += found.notes
        if found.decides:
            return replace(found, notes=notes)
    return Found(notes=notes)


def _consult(world: World, rule: Rule, asked: Ask) -> Found:
    """Return what one rule that matches decides, nothing when the next one is asked."""
    if rule.more:
        return Found(notes=(_narrow(rule),))
    if isinstance(rule.action, Discard):
        return Found(rule=rule, discard=rule.action) if rule.action is not Discard.THROW else Found()
    if rule.action == LOCAL:
        here = own_address(world, asked.destination)
        return Found(rule=rule, local=here, broadcast=here is not None and here.address != asked.destination)
    live, lost = _routes_to(world, rule.action, asked.destination)
    if not live:
        was_read = world.whole or rule.action in _READ
        return Found(notes=() if was_read else (_unread(rule, rule.action),))
    best, rivals = live[0], tuple(live[1:] + lost)
    if isinstance(best.hop, Discard):
        return Found(rule=rule, route=best, discard=best.hop, over=rivals) if best.hop is not Discard.THROW else Found()
    legs = [route for route in live if route.dst == best.dst and route.metric == best.metric]
    notes = [_several(legs)] if len(legs) > 1 else []
    notes += [_astray(route) for route in lost if link_of(route) not in world.links and _before(route, best)]
    return Found(rule=rule, route=best, over=rivals, notes=tuple(notes))


def own_address(world: World, address: Address) -> AnyAddress | None:
    """Return the machine's own address that this is, or the one whose broadcast address it is."""
    mine = world.addresses.get(address)
    if mine:
        return mine[0]
    if address.version == 6:
        return None
    hosts = (have for held in world.addresses.values() for have in held if isinstance(have, HostAddress))
    return next((have for have in hosts if have.prefix_len < 31 and _broadcast(have) == address), None)


def reverse_path_refuses(world: World, packet: Ask, link: LinkName, leaving: LinkName) -> str:
    """Return why the reverse path filter of a link drops a packet, empty when it does not. IPv6 has none.

    The kernel asks its routes how it would answer: strict (1) wants that to leave by the same link, loose (2) wants
    any way at all. The mark counts only where `src_valid_mark` says so. `leaving` is the link it goes out by, which
    stands for the answer's incoming link in rules.
    """
    if packet.source.version == 6:
        return ""
    strength = world.strongest(link, Setting.RP_FILTER)
    own = own_address(world, packet.source)
    if own is not None and (own.address == packet.source or strength or _has_custom_rules(world)):
        return f"its source {packet.source} is this machine's own address"
    if not strength:
        return ""
    kept = packet.mark if world.strongest(link, Setting.SRC_VALID_MARK) else Mark(0)
    back = look_up(world, Ask(source=packet.destination, destination=packet.source, incoming=leaving, mark=kept))
    mode = f"rp_filter {strength} on {link}"
    if back.discard is not None:
        by = back.route if back.route is not None else back.rule
        return f"{mode}: an answer to {packet.source} would meet `{by}`"
    if back.route is None:
        return f"{mode}: there is no route back to {packet.source}"
    if link_of(back.route) == link:
        return ""
    if strength == 1:
        return f"{mode} is strict: the way back to {packet.source} is by {link_of(back.route)}"
    bare = not any(
        have.link == link and have.address.version == 4 for held in world.addresses.values() for have in held
    )
    return f"{mode} drops what comes from elsewhere while the link has no IPv4 address" if bare else ""


def route_step(found: Found, destination: Address, world: World) -> Step:
    """Return the step that says which route decided, and over which others."""
    route = found.route
    if route is None:
        return Step(place=Place.ROUTE, text=f"no route to {destination}", verdict=Verdict.ENDS)
    text = f"{route}"
    if found.over:
        text += f", over {found.over[0]}" + (f" and {len(found.over) - 1} more" if len(found.over) > 1 else "")
    if found.rule is not None and found.rule.action != MAIN:
        text += f" (table {_named(found.rule.action)})"
    return Step(place=Place.ROUTE, text=text, because=world.because(route), resource=route, over=found.over)


def link_of(route: Route) -> LinkName | None:
    """Return the link that a route leaves by, None when it ends the packet."""
    return route.hop.link if isinstance(route.hop, Via | OnLink) else None


def neighbour_of(route: Route, destination: Address) -> Address:
    """Return whom a packet is handed to: the router, or the destination itself when that is on the link."""
    return route.hop.address if isinstance(route.hop, Via) else destination


def _has_custom_rules(world: World) -> bool:
    """Whether there are IPv4 rules beside the kernel's: it looks closer at sources then, filter or not."""
    return any(rule.version == 4 and (rule.priority, rule.action) not in KERNEL_RULES for rule in world.rules)


def _matches(rule: Rule, asked: Ask) -> bool:
    if rule.version != asked.destination.version:
        return False
    if rule.src is not None and asked.source not in rule.src:
        return False
    if rule.dst is not None and asked.destination not in rule.dst:
        return False
    if rule.incoming is not None and rule.incoming != asked.incoming:
        return False
    if rule.mark is None:
        return True
    mask = 0xFFFFFFFF if rule.mask is None else rule.mask
    return asked.mark & mask == rule.mark & mask


def _routes_to(world: World, table: TableId, address: Address) -> tuple[list[Route], list[Route]]:
    """Return the routes of a table that hold an address, the winner first, and those whose link is not up.

    The kernel takes routes away with their link, so the second list is empty in a reading.
    """
    every = [route for prefix in prefixes_of(address) for route in world.routes.get((table, prefix), ())]
    live = [route for route in every if (link := link_of(route)) is None or world.is_up(link)]
    return live, [route for route in every if route not in live]


def _broadcast(have: HostAddress) -> Address:
    return ip_network((have.address, have.prefix_len), strict=False).broadcast_address


def _unread(rule: Rule, table: TableId) -> Step:
    text = f"rule `{rule}` comes first, and table {_named(table)} was not read: a route there would win"
    return Step(place=Place.RULE, text=text, verdict=Verdict.UNSURE, resource=rule)


def _narrow(rule: Rule) -> Step:
    text = f"rule `{rule}` comes first, and whether it applies depends on `{rule.more}`: the walk passes it by"
    return Step(place=Place.RULE, text=text, verdict=Verdict.UNSURE, resource=rule)


def _before(route: Route, other: Route) -> bool:
    return (-route.dst.prefixlen, route.metric) < (-other.dst.prefixlen, other.metric)


def _astray(route: Route) -> Step:
    text = f"{route} would win, and names no link that was read: the walk passes it by"
    return Step(place=Place.ROUTE, text=text, verdict=Verdict.UNSURE, resource=route)


def _several(legs: list[Route]) -> Step:
    text = f"{len(legs)} next hops share {legs[0].dst}; which one a flow takes is the kernel's choice"
    return Step(place=Place.ROUTE, text=text, verdict=Verdict.UNSURE, resource=legs[0], over=tuple(legs[1:]))


def _named(table: TableId | Discard) -> str:
    return str(table) if isinstance(table, Discard) else _TABLE_NAMES.get(table, str(table))
