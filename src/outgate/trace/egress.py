"""The whole way of a pod's packet that an EgressIP may serve: through OVN, then through the host of the egress node.

Where no northbound database was asked, the OVN half is what the plan says, and says so. Where ovn-trace was asked, what
it says of each zone is held against the walk. Nothing is decided here; the plan's explanation comes in as a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from outgate.model.egress_ip import ClusterView, Decision, EgressAnswer, EgressExplanation, Path
from outgate.model.intent import Node
from outgate.model.net import Address, Discard, LinkName, Prefix, Via
from outgate.model.why import Finding, Severity
from outgate.model.zone import Microflow, OvnSaid
from outgate.trace.node import HostPacket, Machine, walk_host
from outgate.trace.ovn import End, OvnWalk
from outgate.trace.router import OvnPacket
from outgate.trace.said import difference, differing, told
from outgate.trace.steps import Place, Step, Verdict

_BRIDGE = LinkName("br-ex")
_TO_NODES = 1008  # OVN-Kubernetes' mark of packets from pods with an egress IP to nodes: they keep the node's address


class Fate(Enum):
    """How a packet ends."""

    LEAVES = "leaves"
    INSIDE = "stays inside"
    DROPPED = "dropped"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressWalk:
    """One way of the packet, of which there are several where next hops are.

    `node` is the one that it leaves or ends at; `link`, `via` and `leaves_as` are None where they are not known or it
    does not leave. `answer` is the plan's for this node, None where the plan gives the pod no egress IP there. `said`
    is what ovn-trace says of each zone on the way, in order.
    """

    steps: tuple[Step, ...]
    fate: Fate
    node: str
    link: LinkName | None = None
    via: Address | None = None
    leaves_as: Address | None = None
    answer: EgressAnswer | None = None
    said: tuple[OvnSaid, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether everything that decides was read."""
        return all(step.verdict is not Verdict.UNSURE for step in self.steps)

    @property
    def ending(self) -> str:
        """How it ends, in a sentence without a subject."""
        ended = next((step for step in reversed(self.steps) if step.verdict is Verdict.ENDS), self.steps[-1])
        match self.fate:
            case Fate.LEAVES:
                via = f" via {self.via}" if self.via is not None else ""
                return f"leaves {self.node} by {self.link}{via} as {self.leaves_as or 'an address that is not known'}"
            case Fate.INSIDE:
                return f"stays in the cluster: {ended.text}"
            case Fate.DROPPED:
                return f"is dropped: {ended.text}"
            case Fate.UNKNOWN:
                return f"is followed to {self.node} only: {ended.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressTrace:
    """The answer. `headline` is the first line; `is_well`: it leaves as the plan says, and nothing is amiss."""

    subject: str
    destination: Address
    headline: str
    is_well: bool
    known: bool = True
    asked: tuple[str, ...] = ()
    walks: tuple[EgressWalk, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was looked at: the view, the packet (None: no such pod or address), its ways through OVN, and what ovn-trace
    says, by zone and by the packet as it enters there. Without ways, `why_not` says why there are none.
    """

    view: ClusterView
    packet: OvnPacket | None = None
    ways: tuple[OvnWalk, ...] = ()
    zones: frozenset[str] = frozenset()
    why_not: str = "no northbound database was asked"
    said: Mapping[tuple[str, Microflow], OvnSaid] = field(default_factory=lambda: MappingProxyType({}))


def trace_egress(explained: EgressExplanation, seen: Seen) -> EgressTrace:
    """Return the walks of a packet, beside what the plan explains of it."""
    walks = tuple(_walks(explained, seen)) if seen.packet is not None else ()
    findings = [*explained.findings]
    for walk in walks:
        findings += _not_as_planned(walk)
    others = tuple(differing(seen.ways, seen.said))
    findings += (difference(leg, said) for leg, said in others)
    endings = "; or ".join(dict.fromkeys(walk.ending for walk in walks))
    endings += "".join(f"; but ovn-trace says that in the zone of {one.zone} it {told(one)}" for _, one in others)
    leaves = all(walk.fate in (Fate.LEAVES, Fate.INSIDE) for walk in walks)
    amiss = any(one.severity is not Severity.NOTE for one in findings)
    return EgressTrace(
        subject=explained.subject,
        destination=explained.destination,
        headline=f"{explained.subject} to {explained.destination}: {endings}" if walks else explained.headline,
        is_well=(leaves and not amiss) if walks else explained.is_well,
        known=explained.known,
        asked=tuple(_asked(seen, bool(walks))),
        walks=walks,
        notes=(*explained.standby, *explained.notes),
        findings=tuple(dict.fromkeys(findings)),
    )


def _asked(seen: Seen, has_walks: bool) -> Iterator[str]:
    """Yield what the half in OVN rests on."""
    if not has_walks:
        return
    if not seen.ways:
        yield f"{seen.why_not}: the half in OVN is what the plan says"
        return
    for zone in sorted(seen.zones):
        checked = "and its southbound, by ovn-trace" if any(name == zone for name, _ in seen.said) else ""
        yield f"the northbound database of {zone} {checked}".rstrip()


def _walks(explained: EgressExplanation, seen: Seen) -> Iterator[EgressWalk]:
    if not seen.ways:
        for answer in explained.answers:
            yield _continued(seen, answer, _planned(answer))
    for way in seen.ways:
        mine = next((one for one in explained.answers if one.decision.node == way.node), None)
        said = tuple(seen.said[leg.zone, leg.entry] for leg in way.legs if (leg.zone, leg.entry) in seen.said)
        yield replace(_after_ovn(seen, mine, way), said=said)


def _after_ovn(seen: Seen, answer: EgressAnswer | None, way: OvnWalk) -> EgressWalk:
    """Return a way through OVN, and what follows it on the host or, in a zone that nobody asked, by the plan."""
    ended = EgressWalk(steps=way.steps, fate=Fate.DROPPED, node=way.node, answer=answer)
    match way.end:
        case End.DROPPED:
            return ended
        case End.PORT | End.ROUTER:
            return replace(ended, fate=Fate.INSIDE)
        case End.BRIDGE:
            source, flow = _by_bridge(seen, way)
            steps = (*way.steps, *flow, *_mtu(answer))
            return replace(ended, fate=Fate.LEAVES, link=_BRIDGE, via=way.next_hop, leaves_as=source, steps=steps)
        case End.HOST:
            return _on_host(seen, ended, way.mark)
        case End.OTHER_ZONE:
            if answer is None:
                text = f"no northbound database of {way.node} was asked, and the plan gives the pod no egress IP there"
                step = Step(place=Place.PLAN, text=text, verdict=Verdict.UNSURE)
                return replace(ended, fate=Fate.UNKNOWN, steps=(*way.steps, step))
            return _continued(seen, answer, (*way.steps, *_planned(answer)))


def _by_bridge(seen: Seen, way: OvnWalk) -> tuple[Address | None, tuple[Step, ...]]:
    """Return the source behind br-ex, whose flows are OVN-Kubernetes' and not read, and the step that says so."""
    node = next((one for one in seen.view.intent.nodes if one.name == way.node), None)
    if way.mark == _TO_NODES and node is not None:
        mine = (one for one, network in _own_addresses(node) if network in node.primary)
        own = next((one for one in mine if one.version == way.source.version), None)
        text = f"a flow of br-ex gives packets with mark {_TO_NODES} the node's address, {own or 'which is not known'}"
        return own, (Step(place=Place.SNAT, text=text),)
    if seen.packet is not None and way.source == seen.packet.source:
        text = f"{way.source} is not translated: flows of br-ex drop it where it lies in the cluster's network"
        return way.source, (Step(place=Place.GUARD, text=text, verdict=Verdict.UNSURE),)
    return way.source, ()


def _continued(seen: Seen, answer: EgressAnswer, steps: tuple[Step, ...]) -> EgressWalk:
    """Return the walk from the egress node on, where its zone was not asked: by the plan, and through its host."""
    decision = answer.decision
    walk = EgressWalk(steps=steps, fate=Fate.DROPPED, node=decision.node, answer=answer)
    if decision.path is Path.HOST and decision.node in seen.view.hosts:
        text = f"handed to the host of {decision.node}"
        return _on_host(seen, replace(walk, steps=(*steps, Step(place=Place.HOST, text=text))), 0)
    if not decision.leaves:
        text = str(decision.hops[0]) if decision.hops else f"no route to {seen.packet and seen.packet.destination}"
        return replace(walk, steps=(*steps, Step(place=Place.ROUTE, text=text, verdict=Verdict.ENDS)))
    hop = decision.hops[0]
    via = hop.address if isinstance(hop, Via) else None
    text = f"{' or '.join(map(str, decision.hops))}, as {decision.source or 'the node'}"
    last = (Step(place=Place.LEAVING, text=text), *_mtu(answer))
    link = None if isinstance(hop, Discard) else hop.link
    return replace(walk, fate=Fate.LEAVES, link=link, via=via, leaves_as=decision.source, steps=(*steps, *last))


def _planned(answer: EgressAnswer) -> tuple[Step, ...]:
    """Return the half in OVN in the plan's words."""
    decision = answer.decision
    way = f"{decision.path.value} (row {decision.row})"
    text = f"EgressIP/{answer.egress_ip} has {answer.address} on {decision.node}: {way}"
    steps = [Step(place=Place.PLAN, text=text)]
    steps += [Step(place=Place.PLAN, text=one.text, because=one) for one in decision.because if one.rule != "fib"]
    if decision.path is Path.GATEWAY_ROUTER and decision.source is not None:
        steps.append(
            Step(place=Place.SNAT, text=f"{answer.pod_address} becomes {decision.source}, in {decision.place.value}")
        )
    return tuple(steps)


def _on_host(seen: Seen, walk: EgressWalk, mark: int) -> EgressWalk:
    """Return a walk that OVN has handed to a node's host, with what that does."""
    assert seen.packet is not None
    host, packet, answer = seen.view.hosts.get(walk.node), seen.packet, walk.answer
    node = next((one for one in seen.view.intent.nodes if one.name == walk.node), None)
    if host is None:
        text = f"the routes of {walk.node} are not known here: give what `outgate node snapshot` writes on it"
        return replace(
            walk, fate=Fate.UNKNOWN, steps=(*walk.steps, Step(place=Place.HOST, text=text, verdict=Verdict.UNSURE))
        )
    machine = Machine(
        node=walk.node,
        host=host,
        translations=seen.view.translations.get(walk.node),
        planned=answer.decision.source if answer is not None else None,
        own=_own_addresses(node),
    )
    sent = HostPacket(source=packet.source, destination=packet.destination, protocol=packet.protocol, mark=mark)
    found = walk_host(machine, sent)
    fate = Fate.INSIDE if found.is_here else Fate.LEAVES if found.link is not None else Fate.DROPPED
    steps = (*walk.steps, *found.steps, *(_mtu(answer) if found.link is not None else ()))
    return replace(walk, fate=fate, link=found.link, via=found.via, leaves_as=found.leaves_as, steps=steps)


def _own_addresses(node: Node | None) -> tuple[tuple[Address, Prefix], ...]:
    return tuple((one.address, one.network) for one in node.host_cidrs) if node is not None else ()


def _mtu(answer: EgressAnswer | None) -> tuple[Step, ...]:
    return (Step(place=Place.MTU, text=answer.mtu),) if answer is not None else ()


def _not_as_planned(walk: EgressWalk) -> Iterator[Finding]:
    """Yield what the rows and the host do otherwise than the plan says."""
    if walk.answer is None or walk.fate is Fate.UNKNOWN:
        return
    decision = walk.answer.decision
    planned = _in_words(decision)
    is_same = walk.fate is Fate.LEAVES and decision.leaves and _is_same(walk, decision)
    if not is_same and (walk.fate is Fate.LEAVES or decision.leaves):
        text = f"by the plan it {planned}, and by what was read it {walk.ending}"
        fix = "look at the conditions RowsAgree and HostRoutesFollowed of the node; is --semantics what is in force?"
        yield Finding("NotAsPlanned", f"EgressIP/{walk.answer.egress_ip}", text, Severity.WARNING, fix)


def _is_same(walk: EgressWalk, decision: Decision) -> bool:
    links = {hop.link for hop in decision.hops if not isinstance(hop, Discard)}
    routers = {hop.address for hop in decision.hops if isinstance(hop, Via)}
    is_source = decision.source is None or walk.leaves_as == decision.source
    return walk.link in links and is_source and (not routers or walk.via in routers)


def _in_words(decision: Decision) -> str:
    if not decision.leaves:
        return f"is dropped on {decision.node}"
    return f"leaves {decision.node} {' or '.join(map(str, decision.hops))} as {decision.source or 'its node'}"
