"""The words of a walk: packet, step, trace, disposition (as Batfish uses them in its traces).

A trace is a value: it is printed, compared, and tested against the kernel; it is never decided again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outgate.model.net import NO_MARK, Address, LinkName, Mark, Route, Rule
from outgate.model.state import Resource
from outgate.model.why import Because


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a flow as it comes in by a link of the gateway. Port 0: the protocol has none, or any.

    `mark` is what others may have put on it before; packets that enter by an inner or tenant link lose it.
    """

    source: Address
    destination: Address
    incoming: LinkName
    protocol: str = "tcp"
    port: int = 0
    mark: Mark = NO_MARK

    def __str__(self) -> str:
        return f"{self.source} to {target(self.destination, self.port, self.protocol)} by {self.incoming}"


def target(address: Address, port: int = 0, protocol: str = "") -> str:
    """Return a destination as people write it: `203.0.113.9:443/tcp`, `[2001:db8::9]:443/tcp`, `203.0.113.9/icmp`."""
    spot = str(address) if not port else (f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}")
    return spot + (f"/{protocol}" if protocol and (port or protocol not in ("tcp", "")) else "")


class Place(Enum):
    """Where on its way a packet is, in the order in which the kernel comes by."""

    ARRIVAL = "arrives"
    IDENTITY = "identity"
    EGRESS_IP = "egress IP"  # new flows to an egress IP of the gateway
    RULE = "rule"
    ROUTE = "route"
    FORWARDING = "forwarding"  # the link's setting, and the reverse path filter
    GATE = "gate"  # chain forward: identity, source check, internal destination, exit
    LIMIT = "limit"
    SNAT = "snat"
    GUARD = "guard"
    LEAVING = "leaves"
    # of a pod's packet before it comes to a host: through OVN
    POD = "pod"
    POLICY = "policy"
    TUNNEL = "tunnel"
    HOST = "host"
    PLAN = "plan"  # what the plan says of a part that nobody asked
    MTU = "MTU"


class Verdict(Enum):
    """What a step does to the packet."""

    GOES_ON = "goes on"
    ENDS = "ends"
    UNSURE = "unsure"  # the walk goes on, and what the kernel does depends on something that was not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happens to the packet.

    `resource` is what decided (ours or others'), `because` why it is wanted (None: not ours). `over` are the routes or
    rules that matched too and lost, best first. `passed` are those that came first and did not match, each with why.
    """

    place: Place
    text: str
    verdict: Verdict = Verdict.GOES_ON
    because: Because | None = None
    resource: Resource | None = None
    over: tuple[Route | Rule, ...] = ()
    passed: tuple[str, ...] = ()


class Disposition(Enum):
    """How a packet ends."""

    LEAVES = "leaves"
    INTERNAL = "stays inside, untranslated"
    LOCAL = "delivered to the gateway itself"
    REJECTED = "rejected"  # the sender is told
    DROPPED = "dropped"  # the sender is not told
    NO_ROUTE = "no route"  # the sender is told: unreachable
    NOT_RECEIVED = "not received"  # nobody answers for the next hop

    @property
    def forwards(self) -> bool:
        """Whether the packet goes out by a link."""
        return self in (Disposition.LEAVES, Disposition.INTERNAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The way of the answer: whether it comes back to the sender, by which link and next hop, else why not."""

    steps: tuple[Step, ...]
    returns: bool
    reason: str
    link: LinkName | None = None
    via: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The whole walk of one packet through one world.

    `leaves_as` is the source that is seen behind `link`; `via` the neighbour it is handed to (the destination itself
    when that is on the link). They are None unless the packet is forwarded. `mark` is the packet's after the
    identity step. `reason` is one sentence: what decided.
    """

    packet: Packet
    steps: tuple[Step, ...]
    disposition: Disposition
    reason: str
    leaves_as: Address | None = None
    link: LinkName | None = None
    via: Address | None = None
    mark: Mark = NO_MARK
    reply: Reply | None = None

    @property
    def certain(self) -> bool:
        """Whether everything that decides was read."""
        return all(step.verdict is not Verdict.UNSURE for step in self.every_step)

    @property
    def untranslated(self) -> bool:
        """Whether the packet leaves with the source it came with: right for passing sources, a leak for pods."""
        return self.disposition is Disposition.LEAVES and self.leaves_as == self.packet.source

    @property
    def decided_by(self) -> Step | None:
        """Return the step that ended it, else the last one."""
        return next(
            (step for step in self.steps if step.verdict is Verdict.ENDS), self.steps[-1] if self.steps else None
        )

    def same_way(self, other: Trace) -> bool:
        """Whether both packets end alike, as seen from outside and by the sender."""
        mine = (self.disposition, self.leaves_as, self.link, self.via, self.reply and self.reply.returns)
        theirs = (other.disposition, other.leaves_as, other.link, other.via, other.reply and other.reply.returns)
        return mine == theirs

    def parts_from(self, other: Trace) -> str:
        """Say at which step two walks of one packet part, this being the wanted one; empty when they end alike."""
        if self.same_way(other):
            return ""
        for mine, theirs in zip(self.every_step, other.every_step, strict=False):
            if (mine.place, mine.verdict, mine.text) != (theirs.place, theirs.verdict, theirs.text):
                return f"wanted ({mine.place.value}): {mine.text}; found ({theirs.place.value}): {theirs.text}"
        return f"wanted: {self.reason}; found: {other.reason}"

    @property
    def every_step(self) -> tuple[Step, ...]:
        """The steps of the packet and then those of its answer."""
        return (*self.steps, *(self.reply.steps if self.reply else ()))
