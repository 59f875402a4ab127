"""How each EgressIP is routed: by the EgressRouting that names it, else by the one named `default`.

Where nobody has made a default, the cluster role makes one at its first start: `legacy` where there is an EgressIP
already, so that nothing changes by itself, else `auto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from outgate.model.intent import EgressRouting, Intent
from outgate.model.routing import DEFAULT_ROUTING, Routing, Semantics, Stance
from outgate.model.why import Finding, Severity

DEFAULT = "default"  # the EgressRouting of all that no other names
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Routings:
    """The settings of a cluster, resolved. `[NAME]` is how the EgressIP of that name is routed."""

    default: Routing
    named: Mapping[str, Routing]
    refusals: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, intent: Intent, without: Routing = DEFAULT_ROUTING) -> Routings:
        """Return those of a cluster; `without` is the default of one that has none."""
        refusals = tuple(_refusals(intent))
        refused = {one.about for one in refusals}
        usable = [one for one in intent.egress_routings if _about(one) not in refused]
        default = next((_resolved(one, without) for one in usable if one.name == DEFAULT), without)
        named: dict[str, Routing] = {}
        for one in usable:
            if one.name != DEFAULT:
                named.update((egress_ip, _resolved(one, default)) for egress_ip in one.egress_ips)
        return cls(default, MappingProxyType(named), refusals)

    def __getitem__(self, egress_ip: str) -> Routing:
        return self.named.get(egress_ip, self.default)


def first_default(intent: Intent) -> EgressRouting | None:
    """Return the default that is to be made; None when there is one, be it unreadable."""
    there = [one.name for one in intent.egress_routings]
    there += [one.name for one in intent.unread if one.kind == "EgressRouting"]
    if DEFAULT in there:
        return None
    semantics = Semantics.LEGACY if intent.egress_ips else Semantics.AUTO
    return EgressRouting(name=DEFAULT, stance=Stance.ASSIST, semantics=semantics)


def _resolved(one: EgressRouting, otherwise: Routing) -> Routing:
    return Routing(
        stance=_chosen(one.stance, otherwise.stance),
        semantics=_chosen(one.semantics, otherwise.semantics),
        honor_host_routes=_chosen(one.honor_host_routes, otherwise.honor_host_routes),
        snat_scope=_chosen(one.snat_scope, otherwise.snat_scope),
        on_unassigned=_chosen(one.on_unassigned, otherwise.on_unassigned),
        allow_inbound=one.allow_inbound or otherwise.allow_inbound,
        gateways=one.gateways or otherwise.gateways,
    )


def _chosen(said: T | None, otherwise: T) -> T:
    return otherwise if said is None else said


def _refusals(intent: Intent) -> Iterator[Finding]:
    """Yield what is wrong between names: the default names EgressIPs, another none, or two the same."""
    taken: dict[str, EgressRouting] = {}
    for one in intent.egress_routings:
        if (one.name == DEFAULT) is bool(one.egress_ips):
            text = (
                f"`{DEFAULT}` is about all EgressIPs that no other EgressRouting names, and names some"
                if one.egress_ips
                else f"names no EgressIP, and only `{DEFAULT}` may do that"
            )
            fix = "remove egressIPs" if one.egress_ips else f"add egressIPs, or name it {DEFAULT}"
            yield Finding("RoutingWithoutScope", _about(one), text, Severity.REFUSAL, fix, one.origin)
            continue
        if one.stance is Stance.OWN and intent.network is not None:
            text = "asks for stance own, and OpenShift's operator keeps OVN-Kubernetes' EgressIP feature on"
            fix = "use stance assist there (the operator hard-codes enable-egress-ip=true)"
            yield Finding("OwnOnOpenShift", _about(one), text, Severity.REFUSAL, fix, one.origin)
            continue
        if twice := sorted(set(one.egress_ips) & taken.keys()):
            text = f"names EgressIP/{twice[0]}, which {_about(taken[twice[0]])} names too, and comes first by name"
            yield Finding("RoutingConflict", _about(one), text, Severity.REFUSAL, "name it in one of them", one.origin)
            continue
        taken.update(dict.fromkeys(one.egress_ips, one))


def _about(one: EgressRouting) -> str:
    return f"EgressRouting/{one.name}"
