"""What holds when nothing else does: protected ranges, policy rules that survive a flushed ruleset, the sets that the
table's guards read.

Protected is all that enters by an inner NIC or a tenant link, except the NIC's connected prefixes (where the machine
was a router before) and the bypass list. The policy layer knows no links, so it covers ranges: the cluster network and
every pod subnet ever seen; it never shrinks by itself. Three layers stand after each other: forward (reject, the client
sees an error at once), after NAT (drop), policy routing (prohibit; it needs no nftables).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from outgate.model.intent import EgressGateway, Intent
from outgate.model.ledger import Ledger
from outgate.model.net import ALL_LINKS, TENANT_MASK, Discard, LinkName, LinkSetting, Mark, Prefix, Rule, Setting, Span
from outgate.model.ruleset import Element, Table
from outgate.model.state import Facts, Resource, Snapshot
from outgate.model.why import Because, Finding, Severity
from outgate.plan.claims import connected
from outgate.plan.source_ranges import outermost

RULE_PRIORITY = 110  # behind `local` (0) and ahead of all that a distribution or FRR installs
# A reply's reverse path has the pod as its source: its mark must be seen there, or policy routing prohibits it.
NIC_SETTINGS = {Setting.ARP_IGNORE: 1, Setting.ARP_ANNOUNCE: 2, Setting.SRC_VALID_MARK: 1}
INNER_SETTINGS = {
    **NIC_SETTINGS,
    Setting.RP_FILTER: 2,
}  # pods' packets enter by tenant links and leave by the NIC: loose
UPLINK_SETTINGS = NIC_SETTINGS


def span_of(prefix: Prefix) -> Span:
    """Return a prefix as a range."""
    return Span(first=prefix.network_address, last=prefix.broadcast_address)


def collapse(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Return the same addresses in the fewest prefixes, IPv4 first: interval sets refuse overlaps."""
    every = list(prefixes)
    four = collapse_addresses(prefix for prefix in every if isinstance(prefix, IPv4Network))
    six = collapse_addresses(prefix for prefix in every if isinstance(prefix, IPv6Network))
    return [*four, *six]


def declared(intent: Intent, gateway: EgressGateway) -> dict[Prefix, str]:
    """Return the cluster networks as declared, each with the object that says so."""
    network = intent.network
    found = dict.fromkeys(network.cluster_networks, f"Network {network.origin}".strip()) if network else {}
    return {**found, **dict.fromkeys(gateway.cluster_networks, f"EgressGateway/{gateway.name} spec.clusterNetworks")}


def protected(intent: Intent, gateway: EgressGateway, ledger: Ledger) -> dict[Prefix, str]:
    """Return every protected range with its source: declared ones, and pod subnets ever seen that they do not cover."""
    ranges = declared(intent, gateway)
    for prefix in sorted(ledger.subnets_seen, key=str):
        if not any(covers(wide, prefix) for wide in ranges):
            ranges[prefix] = "a node subnet, seen now or before"
    return ranges


def plan_guard(snapshot: Snapshot, gateway: EgressGateway, digest: str) -> dict[Resource, Because]:
    """Want the table, the policy rules, and the sets that name NICs and ranges."""
    wants: dict[Resource, Because] = {Table(digest): Because("guard/table", "all packets are decided in one table")}
    ranges = protected(snapshot.intent, gateway, snapshot.ledger)
    for prefix in collapse(ranges):
        cites = tuple(f"{part} from {source}" for part, source in ranges.items() if covers(prefix, part))
        text = f"an unmarked packet from {prefix} has no tenant and must not leave, even when the table is gone"
        wants[_prohibit(prefix)] = Because("guard/policy", text, cites)
        text = f"nothing from {prefix} leaves untranslated, nothing new enters it from outside"
        wants[Element(f"protected{prefix.version}", (span_of(prefix),))] = Because("guard/protected", text, cites)
    wants |= _nic_sets(snapshot, gateway)
    wants |= _passing(snapshot, gateway)
    wants |= _internal(gateway)
    sources = {subnet.prefix: (node, subnet.source) for node in snapshot.intent.nodes for subnet in node.subnets}
    for prefix in outermost(sources):
        node, source = sources[prefix]
        because = Because("guard/node-subnet", f"pods of node {node.name}", (f"Node/{node.name} {source}",))
        wants[Element(f"nodes{prefix.version}", (span_of(prefix),))] = because
    return wants


def plan_settings(snapshot: Snapshot, gateway: EgressGateway, *, ipv6: bool) -> dict[Resource, Because]:
    """Want the kernel settings of declared NICs, and forwarding, which is enabled last of all.

    IPv4 forwarding is per link, so `ip_forward` is not touched. IPv6 has one switch for all links; before it is thrown,
    uplinks that learn their default route from router advertisements are told to go on doing so (`accept_ra` 2).
    """
    wants: dict[Resource, Because] = {}
    roles = [(inner.interface, INNER_SETTINGS, "inner NIC") for inner in gateway.inner]
    roles += [(uplink, UPLINK_SETTINGS, "uplink") for uplink in gateway.uplinks]
    for link, settings, role in roles:
        if link not in snapshot.facts.links:
            continue
        for setting, value in (*settings.items(), (Setting.FORWARDING, 1)):
            because = Because(f"settings/{setting.value}", f"{link} is an {role}", (_cite(gateway),))
            wants[LinkSetting(link=link, setting=setting, value=value)] = because
    if ipv6:
        for uplink in gateway.uplinks:
            if snapshot.facts.settings.get((uplink, Setting.ACCEPT_RA)) == 1:
                text = f"{uplink} may learn its default route from router advertisements; forwarding would end that"
                wants[LinkSetting(link=uplink, setting=Setting.ACCEPT_RA, value=2)] = Because(
                    "settings/ipv6/accept_ra", text
                )
        text = "a tenant has an IPv6 egress IP, and IPv6 forwards on all links or on none"
        wants[LinkSetting(link=ALL_LINKS, setting=Setting.FORWARDING6, value=1)] = Because(
            "settings/ipv6/forwarding", text
        )
    return wants


def guard_findings(snapshot: Snapshot, gateway: EgressGateway) -> Iterator[Finding]:
    """Say what makes the guards weaker or the gateway useless."""
    about = f"EgressGateway/{gateway.name}"
    intent = snapshot.intent
    if not declared(intent, gateway):
        text = "no cluster network is known: a new node's first packets meet two layers of three"
        yield Finding(
            "ClusterNetworkUnknown",
            about,
            text,
            Severity.WARNING,
            "add the Network object or spec.clusterNetworks",
            gateway.origin,
        )
    wide = declared(intent, gateway)
    for node in intent.nodes:
        for subnet in node.subnets:
            if wide and not any(covers(prefix, subnet.prefix) for prefix in wide):
                outside = f"its subnet {subnet.prefix} is outside the declared cluster networks"
                text = f"{outside} {', '.join(map(str, wide))}; it is protected all the same"
                yield Finding(
                    "SubnetOutsideCluster",
                    f"Node/{node.name}",
                    text,
                    Severity.WARNING,
                    "correct spec.clusterNetworks",
                    node.origin,
                )
    for prefix in gateway.bypass:
        inside = next((wide for wide in protected(intent, gateway, snapshot.ledger) if wide.overlaps(prefix)), None)
        if inside is not None:
            text = f"bypass {prefix} overlaps the protected range {inside}: the bypass is not in force"
            yield Finding("BypassOverlaps", about, text, Severity.REFUSAL, "narrow spec.bypass", gateway.origin)
    for link in (*(i.interface for i in gateway.inner), *gateway.uplinks):
        if link not in snapshot.facts.links:
            yield Finding(
                "LinkMissing",
                about,
                f"there is no link {link} on this machine",
                Severity.WARNING,
                "wait for it, or correct the name",
                gateway.origin,
            )


def _nic_sets(snapshot: Snapshot, gateway: EgressGateway) -> dict[Resource, Because]:
    wants: dict[Resource, Because] = {}
    cite = (_cite(gateway),)
    for inner in gateway.inner:
        for name in ("inner", "nics"):
            wants[Element(name, (inner.interface,))] = Because(
                "guard/inner", f"{inner.interface} is an inner NIC", cite
            )
    for uplink in gateway.uplinks:
        wants[Element("uplinks", (uplink,))] = Because("guard/uplink", f"{uplink} is an uplink", cite)
        if not _forwarded_before(uplink, snapshot.facts):
            text = f"{uplink} forwarded nothing before outgate: only answers to tenants pass"
            wants[Element("closed", (uplink,))] = Because("guard/closed", text)
    return wants


def _internal(gateway: EgressGateway) -> dict[Resource, Because]:
    """Want the destinations that tenants reach untranslated, by link."""
    by_link: dict[LinkName, list[Prefix]] = {}
    for destination in gateway.internal_destinations:
        by_link.setdefault(destination.interface, []).append(destination.cidr)
    return {
        Element(f"internal{cidr.version}", (link, span_of(cidr))): Because(
            "guard/internal", f"tenants reach {cidr} untranslated on {link}", (_cite(gateway),)
        )
        for link, cidrs in by_link.items()
        for cidr in outermost(cidrs)
    }


def _passing(snapshot: Snapshot, gateway: EgressGateway) -> dict[Resource, Because]:
    """Want the sources that are not protected: the bypass list, and LANs that the machine served before."""
    wants: dict[Resource, Because] = {}
    hidden = protected(snapshot.intent, gateway, snapshot.ledger)
    for inner in gateway.inner:
        mine = connected(inner.interface, snapshot.facts) if _forwarded_before(inner.interface, snapshot.facts) else ()
        for prefix in collapse((*mine, *(b for b in gateway.bypass if not any(h.overlaps(b) for h in hidden)))):
            if any(h.overlaps(prefix) for h in hidden):
                continue
            text = f"sources of {prefix} behind {inner.interface} are not pods: they pass as if outgate were not there"
            wants[Element(f"passing{prefix.version}", (inner.interface, span_of(prefix)))] = Because(
                "guard/passing", text, (_cite(gateway),)
            )
    return wants


def _forwarded_before(link: LinkName, facts: Facts) -> bool:
    """Whether the machine was a router on this link before outgate; `facts.settings` hold the values from before."""
    return facts.settings.get((link, Setting.FORWARDING)) == 1


def _prohibit(prefix: Prefix) -> Rule:
    return Rule(
        priority=RULE_PRIORITY,
        version=prefix.version,
        src=prefix,
        mark=Mark(0),
        mask=TENANT_MASK,
        action=Discard.PROHIBIT,
    )


def covers(wide: Prefix, narrow: Prefix) -> bool:
    """Whether `narrow` lies inside `wide`; prefixes of different families never do."""
    if isinstance(wide, IPv4Network):
        return isinstance(narrow, IPv4Network) and narrow.subnet_of(wide)
    return isinstance(narrow, IPv6Network) and narrow.subnet_of(wide)


def _cite(gateway: EgressGateway) -> str:
    return f"EgressGateway/{gateway.name}"
