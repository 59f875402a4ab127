"""What must be remembered: allocations and claims that no intent can reproduce. Written down before it is used, never
changed while claimed.

Wall-clock seconds appear here because they must outlive a restart; only `control` compares them with a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.net import NO_MARK, Address, LinkName, Mac, Mark, Prefix, Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One tenant's numbers: its mark (slot bits 0), its link's name and MAC, and its pool addresses with the pool they
    came from.
    """

    mark: Mark
    link: LinkName
    mac: Mac
    pool: str = ""
    pool_addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """An address that a tenant holds: it was probed and nobody answered, or it was ours at a restart."""

    tenant: str
    link: LinkName
    egress: bool = True  # an egress IP; else a next hop


@dataclass(frozen=True, slots=True, kw_only=True)
class Retiring:
    """An address taken from a tenant whose old flows still live on it (drain)."""

    tenant: str
    link: LinkName
    mark: Mark
    until_s: float  # wall clock: the drain ends at the latest then


@dataclass(frozen=True, slots=True, kw_only=True)
class Resting:
    """A released address in quarantine: nobody else gets it before `until_s` (wall clock)."""

    tenant: str
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A link that somebody else made, and whose traffic is a tenant's: what still comes by its MAC is served until it
    is silent.

    `packets` is how many unicast packets the link had received when it was last looked at, and `quiet_since_s` (wall
    clock) since when that has been so. A released one is ours to drop.
    """

    tenant: str
    parent: LinkName
    packets: int = -1  # -1: never looked at
    quiet_since_s: float = 0.0
    released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The durable facts of one gateway."""

    gateway: str = ""
    tenants: Mapping[str, Allocation] = field(default_factory=lambda: MappingProxyType({}))
    holdings: Mapping[Address, Holding] = field(default_factory=lambda: MappingProxyType({}))
    retiring: Mapping[Address, Retiring] = field(default_factory=lambda: MappingProxyType({}))
    resting: Mapping[Address, Resting] = field(default_factory=lambda: MappingProxyType({}))
    subnets_seen: frozenset[Prefix] = frozenset()
    settings_before: Mapping[tuple[LinkName, Setting], int] = field(default_factory=lambda: MappingProxyType({}))
    addresses_made: frozenset[tuple[LinkName, Address]] = frozenset()  # ours, where the kernel keeps no protocol
    adopting: Mapping[LinkName, Adoption] = field(default_factory=lambda: MappingProxyType({}))
    quota_used: Mapping[str, tuple[int, float]] = field(
        default_factory=lambda: MappingProxyType({})
    )  # bytes, period start
    last_mark: Mark = NO_MARK  # the highest tenant mark ever given: numbers are not given again soon
    tenants_known: int = 0  # of the last intent that was applied: what the brake compares with
    nodes_known: int = 0
