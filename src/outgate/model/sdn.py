"""The egress IPs of openshift-sdn, in its words."""

from __future__ import annotations

from dataclasses import dataclass, field

from outgate.model.net import Address, Prefix
from outgate.model.why import Origin


@dataclass(frozen=True, slots=True)
class NetNamespace:
    """A namespace and the egress IPs that its pods leave as: the first that a node has."""

    name: str
    egress_ips: tuple[Address, ...]
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True)
class HostSubnet:
    """A node, the egress IPs that it has, and the ranges of which it may be given some."""

    host: str
    egress_ips: tuple[Address, ...]
    egress_cidrs: tuple[Prefix, ...] = ()
    origin: Origin = field(default_factory=Origin, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdn:
    """All of them."""

    namespaces: tuple[NetNamespace, ...] = ()
    hosts: tuple[HostSubnet, ...] = ()
