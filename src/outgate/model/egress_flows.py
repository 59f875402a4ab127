"""The words for live flows that leave as an egress IP: who has which, how many ports are in use, which are amiss."""

from __future__ import annotations

from dataclasses import dataclass

from outgate.model.flow import Flow
from outgate.model.net import Address
from outgate.model.why import Finding


@dataclass(frozen=True, slots=True)
class Remote:
    """A destination as the world sees it. Port 0: the protocol has none."""

    protocol: str
    address: Address
    port: int

    def __str__(self) -> str:
        spot = f"[{self.address}]" if self.address.version == 6 and self.port else str(self.address)
        return f"{spot}:{self.port}/{self.protocol}" if self.port else f"{spot}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortUse:
    """How many source ports of an egress IP are taken towards one destination; `ending` of them only wait to end.

    `pods` are those that have most of them, each with its number.
    """

    remote: Remote
    ports: int
    ending: int
    pods: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressUse:
    """One egress IP on this node: its flows, by destination the busiest first, and how many pods have them."""

    egress_ip: str
    address: Address
    flows: int
    pods: int
    remotes: tuple[PortUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUse:
    """The flows of one pod by the address that they leave as, and where most of them go."""

    pod: str
    seen_as: Address
    flows: int
    remotes: tuple[tuple[Remote, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Astray:
    """A flow that leaves as an address that its pod should not have, and why that is."""

    pod: str
    flow: Flow
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressFlows:
    """What a node's connection tracking says about egress IPs. `entries` are all that it holds, of at most `limit`."""

    node: str
    entries: int
    limit: int
    addresses: tuple[AddressUse, ...]
    pods: tuple[PodUse, ...]
    astray: tuple[Astray, ...]
    findings: tuple[Finding, ...] = ()
