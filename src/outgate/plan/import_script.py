"""What the former script left on a machine, as intent: an EgressGateway, its tenants, and what does not add up.

The script gives each tenant a macvlan `macvlan-NAME` with a /32, a mangle rule that marks what enters by it, a nat rule
that translates what is marked, and the egress IP as /32 on the outgoing NIC. What is imported is what the kernel does
with these now: the last mark wins, the first translation wins. Where that is not one tenant with one egress IP, the
tenant is refused with what stands where; nothing is guessed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.firewall import IptablesRule
from outgate.model.host import Macvlan
from outgate.model.intent import EgressGateway, EgressTenant, InnerInterface, NextHopIdentity
from outgate.model.net import Address, HostAddress, LinkName, Prefix, Route
from outgate.model.why import Finding, Origin, Severity
from outgate.plan.guard import collapse
from outgate.plan.script_command import NEW_GATEWAY
from outgate.plan.script_rules import (
    LINK_PREFIX,
    ScriptRules,
    egress_of,
    mark_of,
    matched_mark,
    script_links,
    script_routes,
    script_rules,
)

_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What is on the machine. `routes` are those of the main table that are not ours, `addresses` likewise."""

    macvlans: tuple[Macvlan, ...] = ()
    rules: tuple[IptablesRule, ...] = ()
    addresses: frozenset[HostAddress] = frozenset()
    routes: frozenset[Route] = frozenset()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The equivalent intent, and by whom it is served now.

    `links` maps each imported tenant to its old link, and `egress` are the egress IPs with their NICs. Without a tenant
    there is no gateway.
    """

    gateway: EgressGateway | None = None
    tenants: tuple[EgressTenant, ...] = ()
    links: Mapping[str, Macvlan] = field(default_factory=lambda: MappingProxyType({}))
    egress: tuple[tuple[LinkName, Address], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether a part of what is there could not be imported."""
        return any(finding.severity is Severity.REFUSAL for finding in self.findings)


def import_script(left: Leftovers, *, gateway: str = NEW_GATEWAY) -> Imported:
    """Return the intent that does what the script's leftovers do. `gateway` is the name of the EgressGateway."""
    rules = script_rules(left.rules)
    paths = [_path(link, left, rules) for link in script_links(left.macvlans)]
    shared = _collisions(paths)
    sound = tuple(path for path in paths if not path.refused and path.name not in shared)
    findings = [finding for path in paths for finding in path.findings]
    findings += [finding for several in shared.values() for finding in several]
    findings += [*_orphans(left, rules, paths), *_guard_findings(left, rules, sound), *_unread(left)]
    return Imported(
        gateway=_gateway(gateway, sound, rules),
        tenants=tuple(path.tenant(gateway) for path in sound),
        links=MappingProxyType({path.name: path.link for path in sound}),
        egress=tuple((leg.uplink, leg.egress) for path in sound for leg in path.legs),
        findings=tuple(findings),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leg:
    """A tenant's way in one family: next hop in, mark, egress IP out."""

    hop: Address
    mark: int
    egress: Address
    uplink: LinkName


@dataclass(frozen=True, slots=True, kw_only=True)
class _Path:
    """What stands on the machine for one macvlan."""

    link: Macvlan
    legs: tuple[_Leg, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        return self.link.name.removeprefix(LINK_PREFIX)

    @property
    def refused(self) -> bool:
        return any(finding.severity is Severity.REFUSAL for finding in self.findings)

    def tenant(self, gateway: str) -> EgressTenant:
        """Return the tenant. It selects nothing: the script knows no namespaces, only who may use its next hop."""
        uplinks = {leg.uplink for leg in self.legs}
        return EgressTenant(
            name=self.name,
            gateway=gateway,
            identity=NextHopIdentity(addresses=tuple(leg.hop for leg in self.legs), interface=self.link.parent),
            egress_ips=tuple(leg.egress for leg in self.legs),
            uplink=uplinks.pop() if len(uplinks) == 1 else None,
            origin=Origin(kind="EgressTenant", name=self.name),
        )


def _path(link: Macvlan, left: Leftovers, rules: ScriptRules) -> _Path:
    """Return what stands for one macvlan, with everything that does not add up."""
    name = link.name.removeprefix(LINK_PREFIX)
    if not _OBJECT_NAME.fullmatch(name):
        text = f"its tenant would be called {name!r}, which can not be the name of an object"
        fix = (
            "ip link set it down, rename it (lower-case letters, digits, hyphens), change its mangle rule; or remove it"
        )
        return _Path(link=link, findings=(_refused("NameUnfit", link, text, fix),))
    if link.parent is None:
        text = "the NIC that it stands on is in another network namespace"
        return _Path(link=link, findings=(_refused("ParentUnknown", link, text, "remove it"),))
    mine = [have for have in left.addresses if have.link == link.name and not have.address.is_link_local]
    hops = [have for have in mine if have.address.version == 4 or have.prefix_len == have.address.max_prefixlen]
    findings = list(_hop_findings(link, hops))
    findings += [_made_by_itself(link, have) for have in mine if have not in hops]
    legs: list[_Leg] = []
    for have in sorted(hops, key=lambda have: (have.address.version, have.address)):
        leg, told = _leg(link, have.address, left, rules)
        legs += [leg] if leg else []
        findings += told
    if len({leg.uplink for leg in legs}) > 1:
        text = f"it leaves by {' and '.join(sorted({leg.uplink for leg in legs}))}: one tenant has one uplink"
        findings.append(_refused("TwoUplinks", link, text, "remove the rules of one family"))
    return _Path(link=link, legs=tuple(legs), findings=tuple(findings))


def _hop_findings(link: Macvlan, hops: list[HostAddress]) -> Iterator[Finding]:
    if not hops:
        text = "it has no address, so no next hop leads to it"
        yield _refused(
            "NextHopMissing", link, text, f"ip link del {link.name}, or ip addr add NEXTHOP/32 dev {link.name}"
        )
    for version in (4, 6):
        mine = [have for have in hops if have.address.version == version]
        if len(mine) > 1:
            shown = ", ".join(str(have.address) for have in sorted(mine, key=lambda have: have.address))
            text = f"it has several IPv{version} addresses ({shown}); a tenant has one next hop of a family"
            yield _refused("NextHopsSeveral", link, text, "remove those that no external route names")
    for have in hops:
        if have.prefix_len != have.address.max_prefixlen:
            text = f"its address {have.address}/{have.prefix_len} takes a whole subnet off {link.parent}"
            fix = f"ip addr add {have.address}/{have.address.max_prefixlen} dev {link.name}, then"
            fix += f" ip addr del {have.address}/{have.prefix_len} dev {link.name}"
            yield _refused("NextHopNotHost", link, text, fix)


def _made_by_itself(link: Macvlan, have: HostAddress) -> Finding:
    text = f"{have.address}/{have.prefix_len} is no host address; it looks like autoconfiguration, and is not imported"
    return _finding("AddressIgnored", link, text, Severity.NOTE, "")


def _leg(link: Macvlan, hop: Address, left: Leftovers, rules: ScriptRules) -> tuple[_Leg | None, list[Finding]]:
    """Return the way of one family as the kernel takes it now, and what is odd about it."""
    findings: list[Finding] = []
    program = "iptables" if hop.version == 4 else "ip6tables"
    marking = [rule for rule in rules.marking if (rule.incoming, rule.version) == (link.name, hop.version)]
    if not marking:
        text = (
            f"nothing marks what enters by it (IPv{hop.version}), so it is forwarded untranslated: pod addresses leak"
        )
        fix = f"{program} -t mangle -A PREROUTING -i {link.name} -j MARK --set-mark N, or remove the link"
        return None, [_refused("MarkMissing", link, text, fix)]
    findings += _one_of_several(link, "marks", marking, [mark_of(rule) for rule in marking], last=True)
    mark = mark_of(marking[-1]) or 0
    translating = [rule for rule in rules.translating if (matched_mark(rule), rule.version) == (mark, hop.version)]
    if not translating:
        text = f"no rule translates its mark {mark:#x} (IPv{hop.version}), so pod addresses leak"
        fix = f"{program} -t nat -A POSTROUTING -o UPLINK -m mark --mark {mark:#x} -j SNAT --to-source EGRESSIP"
        return None, [*findings, _refused("TranslationMissing", link, text, fix)]
    targets = [f"{egress_of(rule)} on {rule.outgoing}" for rule in translating]
    findings += _one_of_several(link, "translations", translating, targets, last=False)
    egress, uplink = egress_of(translating[0]), LinkName(translating[0].outgoing)
    assert egress is not None
    findings += _egress_findings(link, egress, uplink, left.addresses)
    return _Leg(hop=hop, mark=mark, egress=egress, uplink=uplink), findings


def _one_of_several(
    link: Macvlan, what: str, rules: list[IptablesRule], values: Sequence[object], *, last: bool
) -> Iterator[Finding]:
    """Say when rules stand twice, or contradict each other; between the two iptables there is no order to go by."""
    if len(rules) == 1:
        return
    places = "; ".join(rule.place for rule in rules)
    if len(set(values)) == 1:
        text = f"{len(rules)} equal {what} stand for it: {places}"
        yield _finding("RuleTwice", link, text, Severity.NOTE, "--adopt removes all of them")
    elif len({rule.variant for rule in rules}) > 1:
        text = f"its {what} contradict each other, in both variants of iptables: {places}"
        yield _refused("RulesContradict", link, text, "remove the ones that are not meant")
    else:
        used = values[-1] if last else values[0]
        shown = f"{used:#x}" if isinstance(used, int) else f"{used}"
        text = f"its {what} contradict each other ({places}); in force is {shown}, and that is imported"
        yield _finding("RulesContradict", link, text, Severity.WARNING, "remove the ones that are not meant")


def _egress_findings(
    link: Macvlan, egress: Address, uplink: LinkName, addresses: frozenset[HostAddress]
) -> Iterator[Finding]:
    places = [have for have in addresses if have.address == egress]
    whole = next((have for have in places if have.prefix_len < egress.max_prefixlen), None)
    if whole is not None:
        text = f"its egress IP {egress} is this machine's own address on {whole.link} (/{whole.prefix_len})"
        fix = f"give the tenant an address of its own, or make it /{egress.max_prefixlen} if it is no other's"
        yield _refused("EgressIPIsHost", link, text, fix)
    elif not any(have.link == uplink for have in places):
        text = f"its egress IP {egress} is not on {uplink}: replies are lost as soon as neighbours ask for it"
        yield _finding("EgressIPMissing", link, text, Severity.WARNING, "outgate adds and announces it")


def _collisions(paths: list[_Path]) -> dict[str, list[Finding]]:
    """Return, by tenant, what it shares with another and must not: a mark (its egress IP then too), an address."""
    users: dict[tuple[str, int], list[_Path]] = defaultdict(list)
    for path in paths:
        for leg in path.legs:
            for shared in (f"mark {leg.mark:#x}", f"next hop {leg.hop}", f"egress IP {leg.egress}"):
                users[shared, leg.hop.version].append(path)
    found: dict[str, list[Finding]] = defaultdict(list)
    told: set[tuple[str, ...]] = set()
    for (shared, _), several in users.items():
        names = tuple(path.link.name for path in several)
        if len(several) == 1 or names in told:
            continue
        told.add(names)
        for path in several:
            others = ", ".join(name for name in names if name != path.link.name)
            text = f"it shares the {shared} with {others}: they leave as each other"
            fix = "add one of them anew with values of its own, or remove it"
            found[path.name].append(_refused("Shared", path.link, text, fix))
    return dict(found)


def _orphans(left: Leftovers, rules: ScriptRules, paths: list[_Path]) -> Iterator[Finding]:
    """Say what has no counterpart; it is left alone."""
    links = {path.link.name for path in paths}
    marks = {(rule.version, mark_of(rule)) for rule in rules.marking}
    egress = {egress_of(rule) for rule in rules.translating}
    uplinks = {rule.outgoing for rule in rules.translating}
    for rule in rules.marking:
        if rule.incoming not in links:
            yield _orphan(rule.place, f"marks what enters by {rule.incoming}, which does not exist")
    for rule in rules.translating:
        if (rule.version, matched_mark(rule)) not in marks:
            yield _orphan(rule.place, f"translates the mark {matched_mark(rule):#x}, which no rule sets")
    for have in sorted(left.addresses, key=str):
        if have.link in uplinks and have.prefix_len == have.address.max_prefixlen and have.address not in egress:
            place = f"{have.address}/{have.prefix_len} on {have.link}"
            yield _orphan(place, "is on an uplink of the script, and no rule translates to it")


def _guard_findings(left: Leftovers, rules: ScriptRules, paths: tuple[_Path, ...]) -> Iterator[Finding]:
    """Say which pods the script did not protect: of node subnets outside its guard, or all, without one."""
    guarded = collapse(rule.src for rule in rules.guarding if rule.src is not None)
    inner = {path.link.parent for path in paths if path.link.parent is not None}
    if paths and not guarded:
        text = "no rule rejects unmarked pods: the script leaks them whenever a mark, a MAC or a rule is missing"
        fix = "outgate protects all that enters by inner NICs; name the cluster network in spec.clusterNetworks"
        yield Finding("GuardMissing", "iptables -t filter, FORWARD", text, Severity.WARNING, fix)
    outside = [route for route in script_routes(left.routes, inner) if guarded and not _within(route.dst, guarded)]
    for route in outside:
        ends = ", ".join(f"{prefix} (it ends at {prefix.broadcast_address})" for prefix in guarded)
        text = f"the pods behind it are outside the script's guard {ends}: they were never protected"
        fix = "correct spec.clusterNetworks to the cluster's network, as in: oc get network cluster -o yaml"
        yield Finding("GuardTooNarrow", f"route {route}", text, Severity.WARNING, fix)


def _within(prefix: Prefix, wide: list[Prefix]) -> bool:
    return any(
        one.version == prefix.version and prefix.network_address in one and prefix.prefixlen >= one.prefixlen
        for one in wide
    )


def _unread(left: Leftovers) -> Iterator[Finding]:
    for sentence in left.unread:
        yield Finding("NotRead", "firewall", sentence, Severity.NOTE)


def _gateway(name: str, paths: tuple[_Path, ...], rules: ScriptRules) -> EgressGateway | None:
    """Return the gateway that the imported tenants need: their NICs, and the ranges that the script guarded."""
    if not paths:
        return None
    inner = sorted({path.link.parent for path in paths if path.link.parent is not None})
    uplinks = tuple(sorted({leg.uplink for path in paths for leg in path.legs}))
    guarded = collapse(rule.src for rule in rules.guarding if rule.src is not None and rule.incoming in inner)
    return EgressGateway(
        name=name,
        inner=tuple(InnerInterface(interface=nic) for nic in inner),
        uplinks=uplinks,
        cluster_networks=tuple(guarded),
        origin=Origin(kind="EgressGateway", name=name),
    )


def _finding(reason: str, link: Macvlan, text: str, severity: Severity, fix: str) -> Finding:
    return Finding(reason, link.name, text, severity, fix)


def _refused(reason: str, link: Macvlan, text: str, fix: str) -> Finding:
    return _finding(reason, link, text, Severity.REFUSAL, fix)


def _orphan(place: str, text: str) -> Finding:
    return Finding("Orphan", place, f"{text}; it is not imported", Severity.WARNING, "remove it if nobody needs it")
