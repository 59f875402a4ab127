"""The chains of the table `inet outgate`, rule by rule, over the elements of a world.

Each function here is one chain of `systems/nft/gateway.nft`, in its order, for the first packet of a flow. What a chain
decides depends only on elements, because its rules are constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from outgate.model.net import NO_MARK, Address, LinkName, Mark
from outgate.model.ruleset import Element, Part, Value
from outgate.model.spread import bucket
from outgate.trace.steps import Disposition, Packet, Place, Step, Verdict
from outgate.trace.world import World

STRANGER, PASSING = Mark(0xFE), Mark(0x00FFFF00)  # nobody's packet, and one that is not ours to protect: no tenants'
_CHECKS = (("check_pods", "pods_of", "pod of the tenant"), ("check_nodes", "nodes", "pod of a known node"))
_ICMP = ("icmp", "icmpv6", "ipv6-icmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A packet that the kernel wants to send on: the packet, its mark, and the link it would leave by."""

    packet: Packet
    mark: Mark
    leaving: LinkName


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of a packet in a chain."""

    step: Step
    disposition: Disposition


def enters_inner(world: World, link: LinkName) -> bool:
    """Whether packets of this link are the table's business: an inner NIC or a tenant's link."""
    return world.element("inner", link) is not None


def identify(world: World, packet: Packet) -> tuple[Mark, Step]:
    """Return the mark that says whose packet this is, and the step that says why (chain `entered`)."""
    link, source, version = packet.incoming, packet.source, packet.source.version
    chosen = world.element("id_link", link)
    if chosen is None and world.element("spread", link) is not None:
        chosen = world.element("id_spread", link, bucket(source))
    on_nic = world.element("nics", link) is not None
    if chosen is None and on_nic:
        chosen = world.element(f"id_pod{version}", source) or world.covering(f"id_net{version}", source)
    if chosen is None or not isinstance(chosen.value, int):
        passing = world.covering(f"passing{version}", link, source) if on_nic else None
        if passing is not None:
            return PASSING, _step(world, Place.IDENTITY, passing, f"{source} is not protected, it passes")
        return STRANGER, Step(place=Place.IDENTITY, text=_nobody(packet, on_nic=on_nic))
    mark, because = Mark(chosen.value), world.because(chosen)
    text = f"mark {mark:#x}" + ("" if because else f" by {chosen}")
    return mark, Step(place=Place.IDENTITY, text=text, because=because, resource=chosen)


def refuse_stranger(who: Step, mark: Mark, *, local: bool) -> Stop | None:
    """Refuse what is nobody's and goes further than this machine (chain `stranger`); `who` is the identity step."""
    if mark != STRANGER or local:
        return None
    step = Step(place=who.place, text=f"{who.text}: refused at once", verdict=Verdict.ENDS)
    return Stop(step, Disposition.REJECTED)


def arrive_at_egress_ip(world: World, packet: Packet) -> Step | Stop | None:
    """Judge a new flow to an egress IP of the gateway (chain `called`): refused, unless the tenant allows it."""
    version, address = packet.destination.version, packet.destination
    egress = world.element(f"egress{version}", address)
    if egress is None:
        return None
    protocol = ("icmp" if version == 4 else "ipv6-icmp") if packet.protocol in _ICMP else packet.protocol
    allowed = world.element(f"allowed_port{version}", address, protocol, packet.port) or world.element(
        f"allowed_proto{version}", address, protocol
    )
    if allowed is not None:
        return _step(world, Place.EGRESS_IP, allowed, f"new {protocol} flows to {address} are allowed")
    text = f"{address} is an egress IP: new flows to it are refused unless the tenant allows them (allowInbound)"
    return Stop(_step(world, Place.EGRESS_IP, egress, text, ends=True), Disposition.REJECTED)


def pass_outward(world: World, passage: Passage) -> list[Step] | Stop:
    """Judge a packet that came by an inner or tenant link (chain `outward`)."""
    packet, mark, leaving = passage.packet, passage.mark, passage.leaving
    if mark == PASSING:
        return []
    if mark in (NO_MARK, STRANGER):
        text = f"{packet.source} came by {packet.incoming} and is no tenant's"
        told = Disposition.REJECTED if mark == STRANGER else Disposition.DROPPED
        return Stop(Step(place=Place.GATE, text=text, verdict=Verdict.ENDS), told)
    checked = _check_source(world, packet, mark)
    if isinstance(checked, Stop):
        return checked
    uplink = world.element("uplinks", leaving)
    if uplink is not None:
        return [*checked, _step(world, Place.GATE, uplink, f"out by {leaving}"), *_limits(world, mark)]
    inside = world.covering(f"internal{packet.source.version}", leaving, packet.destination)
    if inside is not None:
        return [*checked, _step(world, Place.GATE, inside, f"out by {leaving} untranslated")]
    inner = world.element("inner", leaving)
    if inner is not None:
        text = f"{packet.destination} lies behind the inner link {leaving}, and is no internal destination"
        return Stop(_step(world, Place.GATE, inner, text, ends=True), Disposition.REJECTED)
    text = f"{leaving} is no uplink: tenants' packets do not leave by it"
    return Stop(Step(place=Place.GATE, text=text, verdict=Verdict.ENDS), Disposition.REJECTED)


def pass_inward(world: World, passage: Passage, *, answer: bool = False) -> Stop | None:
    """Judge a packet that came by any other link (chains `forward` and `inward`); `answer`: of a flow from inside."""
    packet, version = passage.packet, passage.packet.destination.version
    inside = world.covering(f"protected{version}", packet.destination)
    if inside is not None:
        back_out = world.element("uplinks", passage.leaving) is not None
        if answer and not back_out:
            return None
        text = (
            f"{packet.destination} is protected, and its way in leads back out by {passage.leaving}"
            if back_out
            else f"new flows from outside to {packet.destination} are dropped: it is protected"
        )
        return Stop(_step(world, Place.GATE, inside, text, ends=True), Disposition.DROPPED)
    closed = world.element("closed", packet.incoming)
    return _closed(world, packet, closed) if closed is not None and not answer else None


def translate(world: World, passage: Passage) -> tuple[Address, Step | None]:
    """Return the source that the packet leaves with (chain `translate`), and the step that says so; None: no rule."""
    packet, mark = passage.packet, passage.mark
    version = packet.source.version
    leaves = enters_inner(world, packet.incoming) and world.element("uplinks", passage.leaving) is not None
    if not leaves or mark in (STRANGER, PASSING):
        return packet.source, None
    chosen = world.covering(f"snat_to{version}", mark, packet.destination) or world.element(f"snat{version}", mark)
    egress_ip = address_of(chosen.value) if chosen is not None else None
    if egress_ip is None:
        return packet.source, Step(place=Place.SNAT, text=f"mark {mark:#x} has no egress IP: the source stays")
    return egress_ip, _step(world, Place.SNAT, chosen, f"the source becomes {egress_ip}")


def leave(world: World, passage: Passage, source: Address) -> Step | Stop:
    """Judge what is about to leave, after translation (chains `guard` and `leaving`)."""
    packet, mark, version = passage.packet, passage.mark, source.version
    if not enters_inner(world, packet.incoming) or not mark:
        hidden = world.covering(f"protected{version}", source)
        if hidden is None:
            return Step(place=Place.GUARD, text=f"passed, {source} is not protected")
        text = f"{source} is protected, and has no mark of an inner link"
        return Stop(_step(world, Place.GUARD, hidden, text, ends=True), Disposition.DROPPED)
    if mark == PASSING:
        return Step(place=Place.GUARD, text=f"passed, {source} is not protected")
    own = world.element(f"own{version}", mark, source)
    if own is not None:
        return _step(world, Place.GUARD, own, f"passed as {source}")
    inside = world.covering(f"internal{version}", passage.leaving, packet.destination) if mark != STRANGER else None
    if inside is not None:
        return _step(world, Place.GUARD, inside, f"passed to {packet.destination}")
    text = f"{source} is no egress IP of mark {mark:#x}: it must not be seen outside"
    return Stop(Step(place=Place.GUARD, text=text, verdict=Verdict.ENDS), Disposition.DROPPED)


def tenant_of(world: World, mark: Mark) -> Mark:
    """Return the mark that connection tracking keeps of a packet's: its tenant's, without the egress IP's number."""
    kept = world.element("tenant_of", mark)
    return Mark(kept.value) if kept is not None and isinstance(kept.value, int) else NO_MARK


def mark_of_answer(world: World, incoming: LinkName, mark: Mark) -> Mark:
    """Return the mark that the answer to a packet with this mark gets back when it enters (chain `enter`)."""
    back = tenant_of(world, tenant_of(world, mark))
    return back if world.element("uplinks", incoming) is not None else NO_MARK


def address_of(value: Value) -> Address | None:
    """Return the address that a map gives, None if it gives something else."""
    return value if isinstance(value, IPv4Address | IPv6Address) else None


def _check_source(world: World, packet: Packet, mark: Mark) -> list[Step] | Stop:
    """Judge whether a source may use the tenant's link (chains `from_pods` and `from_nodes`)."""
    steps: list[Step] = []
    for check, members, what in _CHECKS:
        asked = world.element(check, mark)
        if asked is None:
            continue
        key: tuple[Part, ...] = (mark, packet.source) if check == "check_pods" else (packet.source,)
        member = world.covering(f"{members}{packet.source.version}", *key)
        if member is None:
            text = f"{packet.source} is no {what}, and only those may use this next hop"
            return Stop(_step(world, Place.GATE, asked, text, ends=True), Disposition.REJECTED)
        steps.append(_step(world, Place.GATE, member, "source check passed"))
    return steps


def _closed(world: World, packet: Packet, closed: Element) -> Stop:
    text = f"{packet.incoming} forwarded nothing before outgate: only answers to tenants pass"
    return Stop(_step(world, Place.GATE, closed, text, ends=True), Disposition.DROPPED)


def _limits(world: World, mark: Mark) -> list[Step]:
    """Say which limits stand; whether one is reached depends on the traffic."""
    tenant = tenant_of(world, mark)
    found = (world.element(name, tenant) for name in ("connections", "rates", "quotas"))
    limits = ((limit, world.because(limit)) for limit in found if limit is not None)
    return [
        _step(world, Place.LIMIT, limit, "what exceeds it is stopped" if because else f"{limit}")
        for limit, because in limits
    ]


def _nobody(packet: Packet, *, on_nic: bool) -> str:
    if on_nic:
        return f"no tenant names the source {packet.source}, and {packet.incoming} is nobody's next hop"
    return f"{packet.incoming} is no tenant's link"


def _step(world: World, place: Place, resource: Element | None, text: str, *, ends: bool = False) -> Step:
    verdict = Verdict.ENDS if ends else Verdict.GOES_ON
    return Step(place=place, text=text, verdict=verdict, because=world.because(resource), resource=resource)
