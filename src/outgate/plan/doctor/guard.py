"""Checks of the guards and of the ways in and out."""

from __future__ import annotations

from outgate.model.net import MAIN, TENANT_MASK, Discard, Prefix, Rule, Span, TableId
from outgate.model.ruleset import Element, Table
from outgate.plan.doctor.seen import Seen, Trouble, Troubles, fail, warn
from outgate.plan.guard import RULE_PRIORITY, span_of

_LOCAL = TableId(255)
_MAIN_PRIORITY = 32766  # of the rule that looks up the main table, in every kernel


def table_stands(seen: Seen) -> Troubles:
    """Say when outgate is not in force here, or its table is not the one that this program renders."""
    wanted = {resource for resource in seen.desired.wants if isinstance(resource, Table)}
    stands = {resource for resource in seen.reading.actual if isinstance(resource, Table)}
    if not stands and any(isinstance(resource, Rule) for resource in seen.reading.actual):
        text = "it is gone: pods are stopped by policy routing, and no tenant is served"
        yield fail("table inet outgate", text, "outgate gateway run")
    elif not stands:
        text = "it is not loaded: outgate is not in force on this machine, so its plan was examined"
        yield warn("table inet outgate", text, "outgate gateway run")
    elif wanted and stands != wanted:
        text = "it is not the table that this program writes: somebody changed it, or another version wrote it"
        yield fail("table inet outgate", text, "outgate gateway apply")


def guard_covers_nodes(seen: Seen) -> Troubles:
    """Say which node subnets a guard does not cover."""
    spans = [span for resource in seen.standing if (span := _protected(resource)) is not None]
    rules = [span_of(src) for resource in seen.standing if (src := _prohibited(resource)) is not None]
    for node in seen.snapshot.intent.nodes:
        for subnet in node.subnets:
            bare = [
                name
                for name, layer in (("the table", spans), ("policy routing", rules))
                if not _in(subnet.prefix, layer)
            ]
            if bare:
                text = f"its subnet {subnet.prefix} is not guarded by {' nor by '.join(bare)}:"
                text += " its pods could leave with their own address"
                yield fail(f"Node/{node.name}", text, "outgate gateway apply")


def links(seen: Seen) -> Troubles:
    """Say which declared NICs are down or without carrier."""
    for name in (*seen.inner, *seen.gateway.uplinks):
        link = seen.snapshot.facts.links.get(name)
        if link is not None and not link.up:
            yield fail(name, "the NIC is down", f"ip link set {name} up")
        elif link is not None and not link.carrier:
            yield fail(name, "the NIC has no carrier", "check the cable or the switch port")


def earlier_rules(seen: Seen) -> Troubles:
    """Name foreign policy rules before ours that match a packet of a pod: they take it past the last guard."""
    for rule in sorted(seen.snapshot.facts.rules, key=lambda rule: (rule.priority, str(rule))):
        if rule.priority <= RULE_PRIORITY and rule.action != _LOCAL and _takes_pods(seen, rule) and not _bound(rule):
            does = "refuses" if isinstance(rule.action, Discard) else "decides for"
            text = f"it stands before outgate's rules (priority {RULE_PRIORITY}) and {does} packets of pods"
            fix = f"give it a priority above {RULE_PRIORITY}, or let it ask for less"
            yield _graded(rule, text, fix)


def diverting_rules(seen: Seen) -> Troubles:
    """Name foreign policy rules between ours and the main table that could send tenants' packets elsewhere."""
    for rule in sorted(seen.snapshot.facts.rules, key=lambda rule: (rule.priority, str(rule))):
        ordinary = rule.action == MAIN or rule.priority >= _MAIN_PRIORITY or rule.priority <= RULE_PRIORITY
        if ordinary or not _takes_tenants(seen, rule) or _bound(rule):
            continue
        text = "it may send tenants' packets by another table than main, past the uplinks that outgate looks at"
        yield warn(f"rule {rule}", text, "let it ask for less, or make sure that its table leaves by an uplink")


def _protected(resource: object) -> Span | None:
    """Return the range that an element of ours protects, None for everything else."""
    if not isinstance(resource, Element) or resource.set not in ("protected4", "protected6"):
        return None
    return resource.key[0] if isinstance(resource.key[0], Span) else None


def _prohibited(resource: object) -> Prefix | None:
    """Return the range that a rule of ours prohibits, None for everything else."""
    if not isinstance(resource, Rule) or resource.action is not Discard.PROHIBIT or resource.mask != TENANT_MASK:
        return None
    return resource.src


def _in(prefix: Prefix, spans: list[Span]) -> bool:
    return any(prefix.network_address in span and prefix.broadcast_address in span for span in spans)


def _takes_pods(seen: Seen, rule: Rule) -> bool:
    """Whether a rule may match a packet without a mark that comes from a pod and goes outside."""
    return _may_match(seen, rule) and (rule.mark is None or rule.mark & (rule.mask or 0xFFFFFFFF) == 0)


def _takes_tenants(seen: Seen, rule: Rule) -> bool:
    """Whether a rule may match a packet of a tenant that goes outside."""
    mask = rule.mask or 0xFFFFFFFF
    negated = "not" in rule.more.split()
    return _may_match(seen, rule) and (
        rule.mark is None or negated or any(mark & mask == rule.mark for mark in seen.marks)
    )


def _may_match(seen: Seen, rule: Rule) -> bool:
    ranges = [prefix for prefix in seen.protected if prefix.version == rule.version]
    if not ranges or (rule.incoming is not None and rule.incoming not in (*seen.inner, *seen.tenant_links)):
        return False
    if rule.dst is not None and any(_in(rule.dst, [span_of(prefix)]) for prefix in ranges):
        return False  # towards pods: replies and return routes
    return rule.src is None or any(rule.src.overlaps(prefix) for prefix in ranges)


def _bound(rule: Rule) -> bool:
    """Whether a rule only matches what belongs to a VRF or to the machine's own sockets."""
    return any(word in rule.more.split() for word in ("l3mdev", "uidrange", "nop", "oif"))


def _graded(rule: Rule, text: str, fix: str) -> Trouble:
    """Return a failure; a warning when the rule asks for more than addresses, links and marks."""
    return (warn if rule.more or rule.dst else fail)(f"rule {rule}", text, fix)
