"""Taking over from the former script: read what it left, write the manifests, and become what it was, without a gap.

The order makes a crash harmless at any point. Manifests first: without the record below they describe tenants that the
script still serves. Then the record in the ledger: its addresses are held, its links are adopted. Then our label on its
addresses, then rounds as always. Last, once all of ours is verified, its rules and routes, which do nothing any more.
Doing it again finishes what was cut short.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from outgate.control.lock import acquire
from outgate.control.round import Asked, Decided, decide
from outgate.model.errors import IntentError
from outgate.model.firewall import IptablesRule
from outgate.model.intent import NO_INTENT, Intent, NextHopIdentity, SourceCheck
from outgate.model.ledger import Adoption, Holding, Ledger
from outgate.model.net import Address, HostAddress, LinkAddress, LinkName, Route
from outgate.model.state import Moment, Reading
from outgate.model.why import Severity
from outgate.plan import script_command
from outgate.plan.import_script import Imported, Leftovers, import_script
from outgate.plan.script_rules import obsolete, script_routes, script_rules
from outgate.roles.gateway import apply_once, machine_of, read_intent, state_of
from outgate.roles.options import GatewayOptions, place_of
from outgate.sources.dump import dump
from outgate.sources.manifests import check
from outgate.sources.write import write_manifest
from outgate.systems.conntrack.read import flows
from outgate.systems.host import handover
from outgate.systems.host.macvlans import macvlans
from outgate.systems.iptables import write as iptables
from outgate.systems.iptables.read import read_rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the script left, and which of its links are adopted already."""

    left: Leftovers
    imported: Imported
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What was done. `waiting` are the old links that stay until nobody uses their MAC any more."""

    tenants: tuple[str, ...] = ()
    rules: int = 0
    routes: int = 0
    waiting: tuple[LinkName, ...] = ()


def survey(options: GatewayOptions) -> Survey:
    """Read what the script left in this network namespace, as intent; change nothing."""
    place = place_of(options)
    ledger = state_of(place).load().ledger
    with machine_of(place) as machine:
        reading = machine.read(ledger)
    rules, unread = read_rules()
    left = Leftovers(
        macvlans=tuple(link for link in macvlans() if link.name not in ledger.adopting),
        rules=rules,
        addresses=_addresses(reading),
        routes=reading.facts.routes,
        unread=unread,
    )
    imported = import_script(left, gateway=options.name or _standing_name(options))
    return Survey(left=left, imported=imported, ledger=ledger)


def _standing_name(options: GatewayOptions) -> str:
    """Return the name of the one EgressGateway that the manifests have, or that of a new one."""
    gateways = check([options.manifests])[0].gateways if options.manifests.is_dir() else ()
    return gateways[0].name if len(gateways) == 1 else script_command.NEW_GATEWAY


def adopt(options: GatewayOptions, progress: Callable[[str], None]) -> Adopted:
    """Take over every tenant of the script. A second call goes on where the first was cut short.

    Raises:
        AlreadyRunning: a daemon runs here; stop it for this.
        IntentError: something can not be taken over as it is, and nothing was changed.
        NotReady: it did not converge in time; the script's rules still stand, and it can be called again.
    """
    with acquire(place_of(options)):
        seen = survey(options)
        if seen.imported.refused:
            raise IntentError("not all of what the script left can be taken over (see above): nothing was changed")
        if not seen.imported.tenants and not seen.ledger.adopting:
            return Adopted()
        if seen.imported.tenants:
            _take(options, seen, progress)
        _label(options)
    report = apply_once(options, progress)
    assert report.decided is not None
    return _clear(options, report.decided, progress)


def _take(options: GatewayOptions, seen: Survey, progress: Callable[[str], None]) -> None:
    """Write the manifests, then the record; nothing of it reaches a packet."""
    standing = read_intent(options) if options.manifests.is_dir() else NO_INTENT
    additions = list(_additions(standing, seen.imported))
    intent = _with(standing, additions)
    ledger = _recorded(seen)
    _check(options, intent, ledger, seen)
    for addition in additions:
        for written in (addition.gateway, addition.tenant):
            if written is not None:
                progress(f"wrote {write_manifest(options.manifests, dump(written))}")
    state_of(place_of(options)).save(ledger)
    progress(f"recorded {len(seen.imported.tenants)} tenants and their addresses as held")


def _additions(standing: Intent, imported: Imported) -> Iterator[script_command.Addition]:
    """Yield what must be written, tenant by tenant, each beside those before it."""
    intent = standing
    assert imported.gateway is not None
    if standing.find_gateway(imported.gateway.name) is None and not standing.gateways:
        first = script_command.Addition(gateway=imported.gateway)
        yield first
        intent = _with(intent, [first])
    for tenant in imported.tenants:
        link = imported.links[tenant.name]
        assert isinstance(tenant.identity, NextHopIdentity)
        assert link.parent is not None
        assert tenant.uplink is not None
        asked = script_command.Asked(
            name=tenant.name,
            next_hops=tenant.identity.addresses,
            egress_ips=tenant.egress_ips,
            inner=link.parent,
            uplink=tenant.uplink,
            gateway=imported.gateway.name if len(intent.gateways) > 1 else "",
        )
        addition = script_command.add_tenant(intent, asked)
        yield addition
        intent = _with(intent, [addition])


def _with(intent: Intent, additions: list[script_command.Addition]) -> Intent:
    gateways = {gateway.name: gateway for gateway in intent.gateways}
    gateways.update((added.gateway.name, added.gateway) for added in additions if added.gateway is not None)
    tenants = {tenant.name: tenant for tenant in intent.tenants}
    tenants.update((added.tenant.name, added.tenant) for added in additions if added.tenant is not None)
    return replace(
        intent,
        gateways=tuple(gateways[name] for name in sorted(gateways)),
        tenants=tuple(tenants[name] for name in sorted(tenants)),
    )


def _recorded(seen: Survey) -> Ledger:
    """Return the ledger in which the script's addresses are held and its links are adopted."""
    holdings, adopting = dict(seen.ledger.holdings), dict(seen.ledger.adopting)
    for tenant in seen.imported.tenants:
        link = seen.imported.links[tenant.name]
        assert isinstance(tenant.identity, NextHopIdentity)
        assert link.parent is not None
        adopting[link.name] = Adoption(tenant=tenant.name, parent=link.parent)
        for hop in tenant.identity.addresses:
            holdings[hop] = Holding(tenant=tenant.name, link=link.parent, egress=False)
        for egress in tenant.egress_ips:
            uplink = next(nic for nic, address in seen.imported.egress if address == egress)
            holdings[egress] = Holding(tenant=tenant.name, link=uplink)
    return replace(
        seen.ledger,
        holdings=MappingProxyType(holdings),
        adopting=MappingProxyType(adopting),
        addresses_made=seen.ledger.addresses_made | _on_machine(seen),
    )


def _on_machine(seen: Survey) -> frozenset[tuple[LinkName, Address]]:
    """Return the addresses that become ours where they stand: egress IPs, and next hops on the old links."""
    links = {link.name for link in seen.imported.links.values()}
    egress = set(seen.imported.egress)
    return frozenset(
        (have.link, have.address)
        for have in seen.left.addresses
        if have.prefix_len == have.address.max_prefixlen and (have.link in links or (have.link, have.address) in egress)
    )


def _label(options: GatewayOptions) -> None:
    """Give our label to addresses that the ledger says are ours and the kernel does not."""
    place = place_of(options)
    ledger = state_of(place).load().ledger
    with machine_of(place) as machine:
        theirs = machine.read(ledger).facts.addresses
    alone = {(have.link, have.address) for have in theirs if have.prefix_len == have.address.max_prefixlen}
    handover.label(sorted(alone & ledger.addresses_made, key=str))


def _check(options: GatewayOptions, intent: Intent, ledger: Ledger, seen: Survey) -> None:
    """Refuse to begin what would cut a running flow: the plan must serve what the script serves."""
    place = place_of(options)
    with machine_of(place) as machine:
        asked = Asked(intent=intent, ledger=ledger, moment=Moment(now_s=time.time()), gateway=options.name)
        decided = decide(machine, asked)
    names = {tenant.name for tenant in seen.imported.tenants}
    abouts = {f"EgressTenant/{name}" for name in names}
    for finding in decided.desired.findings:
        if finding.severity is Severity.REFUSAL and finding.about in abouts:
            raise IntentError(f"{finding.about} would not be served: {finding.text}; {finding.fix}", finding.origin)
    if decided.claims is None or not names <= decided.claims.tenants.keys():
        raise IntentError(f"{', '.join(sorted(names))} would not be served by EgressGateway/{options.name or '?'}")
    strangers = sorted(_strangers(intent, decided, seen), key=str)
    if strangers:
        shown = ", ".join(map(str, strangers[:3])) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
        text = f"running flows of {shown} would be cut: these are in no known node's pod subnet"
        raise IntentError(f"{text}; oc get nodes -o yaml > {options.manifests}/nodes.yaml, then again")


def _strangers(intent: Intent, decided: Decided, seen: Survey) -> set[Address]:
    """Return the sources that the script serves now and whose tenant's source check would refuse."""
    assert decided.claims is not None
    checked = {
        address
        for name, tenant in decided.claims.tenants.items()
        if name in seen.imported.links and tenant.source_check is not SourceCheck.OFF
        for address in tenant.egress_ips
    }
    subnets = [subnet.prefix for node in intent.nodes for subnet in node.subnets]
    served = {
        flow.original.src for flow in flows() if flow.reply.dst in checked and flow.original.src != flow.reply.dst
    }
    return {source for source in served if not any(source in subnet for subnet in subnets)}


def _clear(options: GatewayOptions, decided: Decided, progress: Callable[[str], None]) -> Adopted:
    """Remove what of the script's does nothing any more: its rules, and routes beside which ours stand."""
    ledger, gateway = decided.ledger, decided.snapshot.intent.find_gateway(decided.snapshot.gateway)
    assert gateway is not None
    nics = {nic.interface for nic in gateway.inner}
    with acquire(place_of(options)):
        rules = _obsolete_rules(ledger, nics)
        iptables.remove(rules)
        routes = handover.remove_routes(_obsolete_routes(decided, nics))
    progress(f"removed {len(rules)} rules and {routes} routes of the script")
    return Adopted(
        tenants=tuple(sorted({adoption.tenant for adoption in ledger.adopting.values()})),
        rules=len(rules),
        routes=routes,
        waiting=tuple(sorted(ledger.adopting)),
    )


def _obsolete_rules(ledger: Ledger, nics: set[LinkName]) -> tuple[IptablesRule, ...]:
    rules, _ = read_rules()
    egress = {address for address, held in ledger.holdings.items() if held.egress}
    return obsolete(script_rules(rules), links=ledger.adopting.keys(), egress=egress, nics=nics)


def _obsolete_routes(decided: Decided, nics: set[LinkName]) -> list[Route]:
    """Return the script's routes whose prefix and next hop a route of ours has too."""
    ours = {(route.dst, route.hop) for route in decided.desired.wants if isinstance(route, Route)}
    return [route for route in script_routes(decided.reading.facts.routes, nics) if (route.dst, route.hop) in ours]


def _addresses(reading: Reading) -> frozenset[HostAddress]:
    """Return all addresses of the machine, those that are labelled ours already too."""
    ours = (resource for resource in reading.actual if isinstance(resource, LinkAddress) and not resource.fault)
    return reading.facts.addresses | {
        HostAddress(link=one.link, address=one.address, prefix_len=one.address.max_prefixlen) for one in ours
    }
