"""How a gateway is doing: what `status` prints, the socket answers and metrics count. Filled by `control`.

Ages and durations are seconds at the moment the status was made; None means it never happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from outgate.model.net import Address, LinkName, Prefix
from outgate.model.why import Finding


class Health(Enum):
    """How a part is doing; the worst part is how the whole is doing."""

    OK = "OK"
    DEGRADED = "DEGRADED"  # it works, and something asks for attention
    FAILED = "FAILED"  # it does not do its job


class TenantState(Enum):
    """How a tenant is doing."""

    OK = "OK"
    DEGRADED = "DEGRADED"  # in force, and something asks for attention
    REFUSED = "REFUSED"  # not in force: its packets are stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """How fresh a source of intent is: `name` is a directory, a file, or an API server; of that, `part` is the kind."""

    name: str
    part: str = ""
    health: Health
    age_s: float | None  # since the last complete reading
    objects: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # how many of each kind, as shown
    error: str = ""  # the last one, empty when the last reading went well


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStatus:
    """What the rounds did since the start."""

    rounds: int = 0
    changes: int = 0  # resources made and dropped
    repaired: int = 0  # of these, drift: nobody asked for a change
    failed: int = 0  # rounds that could not finish
    last_age_s: float | None = None
    last_duration_s: float = 0.0
    last_repair: str = ""  # the resources, in words
    last_repair_age_s: float | None = None
    owned: int = 0  # resources of ours that the last reading found as wanted
    left: int = 0  # changes that the last round could not make
    error: str = ""


class Layer(Enum):
    """Where a packet that must not pass is stopped, in the order it comes by."""

    ENTER = "enter"  # by identity, before any route
    FORWARD = "forward"
    GUARD = "guard"  # behind every address translation; anything but 0 means that an outer layer had a hole
    INBOUND = "inbound"  # from outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """One counter of the table: packets stopped since it was loaded."""

    layer: Layer
    counter: str  # its name in the table: no_identity
    packets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardStatus:
    """Whether the guards stand: the table, the policy rules behind it, and that they cover every known pod subnet."""

    table: bool
    rules: bool
    covered: int = 0  # pod subnets inside protected ranges
    subnets: int = 0  # pod subnets known
    blocked: tuple[Blocked, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PortUse:
    """How much of an egress IP's ports is in use, as last sampled: the fullest (protocol, destination) counts."""

    address: Address
    used: int  # live flows of the fullest destination
    available: int
    age_s: float  # of the sample


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStatus:
    """One tenant. Counters run since the table was loaded; None where nobody counted."""

    name: str
    state: TenantState
    reason: str = ""  # why it is not OK: a reason and a sentence
    egress_ips: tuple[Address, ...] = ()
    next_hops: tuple[Address, ...] = ()  # none: told by its sources
    link: LinkName | None = None
    pods: int | None = None  # selected pods with addresses; None: it selects none by label
    packets: int | None = None  # sent
    sent_bytes: int | None = None
    received_bytes: int | None = None
    opened: int | None = None  # flows
    ports: tuple[PortUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node: its pod subnets, how many of them have their return route, and by which addresses."""

    name: str
    ready: bool
    subnets: tuple[Prefix, ...] = ()
    routed: int = 0
    via: tuple[Address, ...] = ()
    reason: str = ""  # why a subnet has no route


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """An applied intent that goes back unless it is confirmed in time."""

    left_s: float
    text: str = ""  # what was applied


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One gateway, whole."""

    gateway: str
    version: str
    health: Health
    uptime_s: float
    sources: tuple[SourceStatus, ...] = ()
    rounds: RoundStatus = RoundStatus()
    guard: GuardStatus = GuardStatus(table=False, rules=False)
    tenants: tuple[TenantStatus, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
    findings: tuple[Finding, ...] = ()
    confirmation: Confirmation | None = None
