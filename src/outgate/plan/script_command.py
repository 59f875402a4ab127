"""What the former script's `add-tenant` and `remove-tenant` mean as intent: which objects are to be written or removed.

The script made what it was told at once; here a tenant is an object that stays, so what contradicts a standing object
is refused with the place where that stands, and what is there already is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from outgate.model.errors import IntentError
from outgate.model.intent import EgressGateway, EgressTenant, InnerInterface, Intent, NextHopIdentity, SourceCheck
from outgate.model.net import Address, LinkName, Prefix
from outgate.plan.guard import covers, declared

NEW_GATEWAY = "gateway"  # the name of the EgressGateway that the first tenant brings along


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One `add-tenant`. `gateway` is the EgressGateway's name; empty means the only one there is, or a new one."""

    name: str
    next_hops: tuple[Address, ...]
    egress_ips: tuple[Address, ...]
    inner: LinkName
    uplink: LinkName
    cluster_networks: tuple[Prefix, ...] = ()
    gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What is to be written (None: it stands already as asked), and what the user should know."""

    gateway: EgressGateway | None = None
    tenant: EgressTenant | None = None
    notes: tuple[str, ...] = ()


def add_tenant(intent: Intent, asked: Asked) -> Addition:
    """Return what makes a tenant out of the script's words.

    Raises:
        IntentError: they contradict what stands; the message says where that is.
    """
    gateway = _gateway(intent, asked)
    standing = next((tenant for tenant in intent.tenants if tenant.name == asked.name), None)
    if standing is not None:
        _same_tenant(standing, asked)
    else:
        _free_addresses(intent, asked)
    changed, note = _with_networks(intent, gateway, asked)
    wanted = EgressTenant(
        name=asked.name,
        gateway=gateway.name if len(intent.gateways) > 1 else None,
        identity=NextHopIdentity(addresses=asked.next_hops, interface=asked.inner),
        egress_ips=asked.egress_ips,
        uplink=asked.uplink,
    )
    return Addition(
        gateway=changed,
        tenant=wanted if standing is None else None,
        notes=(*note, *_node_notes(intent, changed or gateway, standing or wanted)),
    )


def remove_tenant(intent: Intent, name: str, egress_ips: tuple[Address, ...], uplink: LinkName | None) -> EgressTenant:
    """Return the tenant that the script's words name; what they say about it must be so.

    Raises:
        IntentError: there is no such tenant, or it has other addresses.
    """
    tenant = next((tenant for tenant in intent.tenants if tenant.name == name), None)
    if tenant is None:
        known = ", ".join(tenant.name for tenant in intent.tenants) or "none"
        raise IntentError(f"there is no EgressTenant/{name}; there are: {known}")
    strange = [address for address in egress_ips if address not in tenant.egress_ips]
    if strange:
        mine = _shown(tenant.egress_ips) or f"addresses of EgressPool/{tenant.claim.pool if tenant.claim else '?'}"
        text = f"EgressTenant/{name} has {mine}, not {_shown(strange)}: nothing was removed"
        raise IntentError(text, tenant.origin)
    if uplink is not None and tenant.uplink not in (None, uplink):
        raise IntentError(
            f"EgressTenant/{name} leaves by {tenant.uplink}, not {uplink}: nothing was removed", tenant.origin
        )
    return tenant


def _gateway(intent: Intent, asked: Asked) -> EgressGateway:
    """Return the standing gateway that is meant, or a new one."""
    broken = [refusal for refusal in intent.refusals if refusal.about.startswith("EgressGateway/")]
    if broken:
        raise IntentError(f"{broken[0].about} can not be read: {broken[0].text}; {broken[0].fix}", broken[0].origin)
    if asked.gateway:
        found = next((gateway for gateway in intent.gateways if gateway.name == asked.gateway), None)
    elif len(intent.gateways) > 1:
        names = ", ".join(gateway.name for gateway in intent.gateways)
        raise IntentError(f"there are several EgressGateways ({names}): say which with --gateway")
    else:
        found = intent.gateways[0] if intent.gateways else None
    if found is None:
        name = asked.gateway or NEW_GATEWAY
        return EgressGateway(name=name, inner=(InnerInterface(interface=asked.inner),), uplinks=(asked.uplink,))
    inner = [nic.interface for nic in found.inner]
    for option, link, has in (("--dev", asked.inner, inner), ("--out-dev", asked.uplink, list(found.uplinks))):
        if link not in has:
            what = "inner NICs" if option == "--dev" else "uplinks"
            text = f"{option} {link} contradicts EgressGateway/{found.name}, whose {what} are {_shown(has)}"
            raise IntentError(f"{text}: correct the option, or add the NIC there", found.origin)
    return found


def _same_tenant(standing: EgressTenant, asked: Asked) -> None:
    """Refuse words that contradict the tenant that stands; what the script has no words for may be anything."""
    identity = standing.identity
    hops = identity.addresses if isinstance(identity, NextHopIdentity) else ()
    pairs: list[tuple[str, Iterable[object], Iterable[object]]] = [
        ("--gw-ip", asked.next_hops, hops),
        ("--egress-ip", asked.egress_ips, standing.egress_ips),
    ]
    if isinstance(identity, NextHopIdentity) and identity.interface is not None:
        pairs.append(("--dev", (asked.inner,), (identity.interface,)))
    if standing.uplink is not None:
        pairs.append(("--out-dev", (asked.uplink,), (standing.uplink,)))
    for option, wanted, has in pairs:
        if set(wanted) != set(has):
            text = (
                f"{option} {_shown(wanted)} contradicts EgressTenant/{standing.name}, which has {_shown(has) or 'none'}"
            )
            raise IntentError(f"{text}: edit it there, or remove the tenant first", standing.origin)


def _free_addresses(intent: Intent, asked: Asked) -> None:
    """Refuse addresses that another tenant has: the script would have let two leave as each other."""
    for other in intent.tenants:
        hops = other.identity.addresses if isinstance(other.identity, NextHopIdentity) else ()
        special = tuple(ip for rule in other.destinations for ip in rule.egress_ips)
        for option, wanted, taken in (
            ("--gw-ip", asked.next_hops, hops),
            ("--egress-ip", asked.egress_ips, (*other.egress_ips, *special)),
        ):
            both = [address for address in wanted if address in taken]
            if both:
                raise IntentError(f"{option} {_shown(both)} is already EgressTenant/{other.name}'s", other.origin)


def _with_networks(
    intent: Intent, gateway: EgressGateway, asked: Asked
) -> tuple[EgressGateway | None, tuple[str, ...]]:
    """Return the gateway if it is new or must say more, and a note about what it says."""
    known = declared(intent, gateway)
    missing = tuple(p for p in asked.cluster_networks if not any(covers(wide, p) for wide in known))
    if missing:
        gateway = replace(gateway, cluster_networks=(*gateway.cluster_networks, *missing))
    is_new = gateway.name not in {standing.name for standing in intent.gateways}
    if not is_new and not missing:
        return None, ()
    note = () if declared(intent, gateway) else ("no cluster network is known: add --pod-cidr, or the Network object",)
    return gateway, note


def _node_notes(intent: Intent, gateway: EgressGateway, tenant: EgressTenant) -> Iterator[str]:
    """Yield what keeps the tenant's pods from being served."""
    wide = declared(intent, gateway)
    if not intent.nodes and tenant.source_check is SourceCheck.NODE_SUBNETS:
        yield "no Node is known yet, so no pod may use the next hop: oc get nodes -o yaml > DIRECTORY/nodes.yaml"
    for node in intent.nodes:
        for subnet in node.subnets:
            if wide and not any(covers(prefix, subnet.prefix) for prefix in wide):
                ends = ", ".join(f"{prefix} ends at {prefix.broadcast_address}" for prefix in wide)
                yield f"the pods of Node/{node.name} ({subnet.prefix}) are outside the cluster network: {ends}"


def _shown(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
