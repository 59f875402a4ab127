"""What is asked, what is there, what is wanted, what must change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.net import (
    Address,
    Answered,
    HostAddress,
    Link,
    LinkAddress,
    LinkName,
    LinkSetting,
    Mac,
    Route,
    Rule,
    Setting,
    TenantLink,
)
from outgate.model.ovn import OvnRow
from outgate.model.ruleset import Element, Table
from outgate.model.why import Because, Finding

Resource: TypeAlias = TenantLink | LinkAddress | Answered | LinkSetting | Route | Rule | Element | Table | OvnRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the machine shows that is not ours. `routes` are foreign ones of the main table; `rules` foreign policy
    rules.

    `conflicts` are addresses that answered to somebody else's MAC when probed, or were claimed by one later.
    """

    links: Mapping[LinkName, Link] = field(default_factory=lambda: MappingProxyType({}))
    addresses: frozenset[HostAddress] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()
    settings: Mapping[tuple[LinkName, Setting], int] = field(default_factory=lambda: MappingProxyType({}))
    conflicts: Mapping[Address, Mac] = field(default_factory=lambda: MappingProxyType({}))
    unproven: frozenset[Address] = frozenset()  # held before the machine was away: to be probed again before use


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What time has brought: the wall clock in seconds, the live flows that still use each retiring address, and the
    unicast packets that each link under adoption has received.
    """

    now_s: float
    flows: Mapping[Address, int] = field(default_factory=lambda: MappingProxyType({}))
    received: Mapping[LinkName, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything one round may know, complete."""

    intent: Intent
    facts: Facts
    ledger: Ledger
    gateway: str  # the EgressGateway this machine is


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """An address that must be probed (duplicate address detection) before it is wanted, and who wants it."""

    address: Address
    link: LinkName  # the NIC to probe through
    tenant: str
    egress: bool = True  # an egress IP; else a next hop


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The wanted resources, each with its reason; what must be probed first; and what could not be wanted.

    `pods` counts the selected pods of each tenant that selects by label.
    """

    wants: Mapping[Resource, Because] = field(default_factory=lambda: MappingProxyType({}))
    probes: Mapping[Probe, Because] = field(default_factory=lambda: MappingProxyType({}))
    findings: tuple[Finding, ...] = ()
    pods: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What turns the actual into the desired: make first, in order, then drop."""

    make: tuple[Resource, ...] = ()
    drop: tuple[Resource, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.make or self.drop)


@dataclass(frozen=True, slots=True)
class Failure:
    """A change that a system refused, with the system's words. The rest of the changes were written."""

    resource: Resource
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One complete reading of the machine, split by ownership. `settings` hold every link setting as it is now."""

    facts: Facts
    actual: frozenset[Resource] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a round did. `left` is what a second reading still found to do: empty means converged."""

    changes: Changes = field(default_factory=Changes)
    failures: tuple[Failure, ...] = ()
    left: Changes = field(default_factory=Changes)

    @property
    def converged(self) -> bool:
        """Whether nothing is left to do."""
        return not self.left and not self.failures
