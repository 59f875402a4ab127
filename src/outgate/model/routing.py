"""How EgressIP shall be routed: the settings, in words that the plan decides by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outgate.model.inbound import InboundAllowance
from outgate.model.net import Address, LinkName


class Semantics(Enum):
    """Whose rules decide the path."""

    LEGACY = "legacy"  # what OVN-Kubernetes does today
    AUTO = "auto"  # by gateway mode and interface, the host's routes honoured


class Stance(Enum):
    """How much of the data path outgate writes on a node."""

    OBSERVE = "observe"  # nothing: it looks, compares and tells
    ASSIST = "assist"  # OVN-Kubernetes' EgressIP stays on; only what that lacks is added
    OWN = "own"  # its EgressIP feature is off; all is ours


class SnatScope(Enum):
    """By which links a packet may leave with an egress IP that is on the primary NIC."""

    ANY = "any"  # by whatever link the host's routes say, as with openshift-sdn
    HOSTING_LINK = "hosting-link"  # by the link that hosts it only; others are refused


class OnUnassigned(Enum):
    """What becomes of a pod's packets while no node has an egress IP for it."""

    NODE_IP = "node-ip"  # they leave as if it had no egress IP, as OVN-Kubernetes does
    DROP = "drop"  # they do not leave, as with openshift-sdn


@dataclass(frozen=True, slots=True, kw_only=True)
class NicGateway:
    """What a secondary NIC without a default route shall use as one: a router's address, or (None) the link itself."""

    link: LinkName
    router: Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How EgressIP shall be routed; what nobody has said."""

    semantics: Semantics = Semantics.LEGACY
    stance: Stance = Stance.ASSIST
    honor_host_routes: bool = False  # in shared gateway mode, by the gateway router
    snat_scope: SnatScope = SnatScope.ANY
    on_unassigned: OnUnassigned = OnUnassigned.NODE_IP
    allow_inbound: tuple[InboundAllowance, ...] = ()
    gateways: tuple[NicGateway, ...] = ()


DEFAULT_ROUTING = Routing()
