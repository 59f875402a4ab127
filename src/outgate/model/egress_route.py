"""The words for one host route and the egress IPs of its node: which of them follow it."""

from __future__ import annotations

from dataclasses import dataclass

from outgate.model.egress_ip import Decision
from outgate.model.net import Address, Prefix, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Follows:
    """One egress IP and the host's route to a prefix.

    `routes` are the route's legs; without any, the node has no route of that prefix, or (`decision` None) nobody has
    read its routes. `follows`: packets go where the route says. `why` is a sentence, `fix` what to do, perhaps nothing.
    """

    egress_ip: str
    address: Address
    node: str
    routes: tuple[Route, ...]
    follows: bool
    why: str
    fix: str = ""
    decision: Decision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAnswer:
    """Which egress IPs follow the host routes of a prefix."""

    prefix: Prefix
    egress_ips: tuple[Follows, ...]

    @property
    def ignored(self) -> tuple[Follows, ...]:
        """Those whose node has the route and whose packets go elsewhere."""
        return tuple(one for one in self.egress_ips if one.routes and not one.follows)
