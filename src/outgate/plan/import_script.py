"""What the former script left on a machine, as intent: an EgressGateway, its tenants, and what does not add up.

The script gives each tenant a macvlan `macvlan-NAME` with a /32, a mangle rule that marks what enters by it, a nat rule
that translates what is marked, and the egress IP as /32 on the outgoing NIC. What is imported is what the kernel does
with these now: the last mark wins, the first translation wins. Where that is not one tenant with one egress IP, the
tenant is refused with what stands where; nothing is guessed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import MappingProxyType

from outgate.model.firewall import WHOLE_MARK, IptablesRule
from outgate.model.host import Macvlan
from outgate.model.intent import EgressGateway, EgressTenant, InnerInterface, NextHopIdentity
from outgate.model.net import Address, HostAddress, LinkName, Prefix, Route, Via
from outgate.model.why import Finding, Origin, Severity
from outgate.plan.guard import collapse

LINK_PREFIX = "macvlan-"
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

    `links` maps each imported tenant to its old link, `egress` are the egress IPs with the NICs that they are on, and
    `rules` are all rules of the script, those of refused tenants too; without a tenant there is no gateway.
    """

    gateway: EgressGateway | None = None
    tenants: tuple[EgressTenant, ...] = ()
    links: Mapping[str, Macvlan] = field(default_factory=lambda: MappingProxyType({}))
    egress: tuple[tuple[LinkName, Address], ...] = ()
    rules: tuple[IptablesRule, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether a part of what is there could not be imported."""
        return any(finding.severity is Severity.REFUSAL for finding in self.findings)


def import_script(left: Leftovers, *, gateway: str = "gateway") -> Imported:
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
        rules=rules.every,
        findings=tuple(findings),
    )


def script_links(macvlans: Iterable[Macvlan]) -> tuple[Macvlan, ...]:
    """Return the macvlans that are named as the script names them."""
    return tuple(link for link in macvlans if link.name.startswith(LINK_PREFIX))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRules:
    """The script's rules by what they do; rules that look like one and ask for more are not the script's."""

    marking: tuple[IptablesRule, ...]
    translating: tuple[IptablesRule, ...]
    guarding: tuple[IptablesRule, ...]

    @property
    def every(self) -> tuple[IptablesRule, ...]:
        """All of them."""
        return (*self.marking, *self.translating, *self.guarding)


def script_rules(rules: Iterable[IptablesRule]) -> ScriptRules:
    """Return the rules that have exactly the form in which the script writes them."""
    found: dict[str, list[IptablesRule]] = defaultdict(list)
    for rule in rules:
        found[_form(rule)].append(rule)
    return ScriptRules(
        marking=tuple(found["marking"]), translating=tuple(found["translating"]), guarding=tuple(found["guarding"])
    )


def script_routes(routes: Iterable[Route], inner: Iterable[LinkName]) -> tuple[Route, ...]:
    """Return the routes that look like the script's return routes: without a metric, via a router on an inner NIC."""
    nics = set(inner)
    return tuple(
        sorted(
            (r for r in routes if isinstance(r.hop, Via) and r.hop.link in nics and r.dst.prefixlen and not _metric(r)),
            key=str,
        )
    )


def _metric(route: Route) -> int:
    """Return a route's metric, 0 for the one that the kernel gives to IPv6 routes without one."""
    return 0 if route.dst.version == 6 and route.metric == 1024 else route.metric


def _form(rule: IptablesRule) -> str:
    """Return which of the script's three rules this is, "" for none."""
    if rule.more or rule.dst is not None or rule.flow_mark is not None:
        return ""
    match rule.table, rule.chain, rule.target:
        case "mangle", "PREROUTING", "MARK":
            fits = rule.incoming.startswith(LINK_PREFIX) and not (rule.outgoing or rule.src or rule.mark)
            return "marking" if fits and _mark(rule) is not None else ""
        case "nat", "POSTROUTING", "SNAT":
            fits = bool(rule.outgoing) and _matched(rule) not in (None, 0) and not (rule.incoming or rule.src)
            return "translating" if fits and _egress(rule) is not None else ""
        case "filter", "FORWARD", "REJECT":
            fits = bool(rule.incoming and rule.outgoing) and rule.src is not None and _matched(rule) == 0
            return "guarding" if fits else ""
        case _:
            return ""


def _mark(rule: IptablesRule) -> int | None:
    """Return the mark that a rule writes whole, None for one that writes a part."""
    value, _, mask = (rule.argument("--set-xmark") or "").partition("/")
    return int(value, 16) if value and mask and int(mask, 16) == WHOLE_MARK and len(rule.arguments) == 2 else None


def _matched(rule: IptablesRule) -> int | None:
    """Return the whole mark that a rule asks for, None for no or another question."""
    mark = rule.mark
    return mark.value if mark is not None and mark.mask == WHOLE_MARK and not mark.negated else None


def _egress(rule: IptablesRule) -> Address | None:
    """Return the one address that a rule translates to, None for a range or ports."""
    try:
        return ip_address(rule.argument("--to-source") or "") if len(rule.arguments) == 2 else None
    except ValueError:
        return None


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
    hops = [have for have in left.addresses if have.link == link.name and not have.address.is_link_local]
    findings = list(_hop_findings(link, hops))
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
    findings += _one_of_several(link, "marks", marking, [_mark(rule) for rule in marking], last=True)
    mark = _mark(marking[-1]) or 0
    translating = [rule for rule in rules.translating if (_matched(rule), rule.version) == (mark, hop.version)]
    if not translating:
        text = f"no rule translates its mark {mark:#x} (IPv{hop.version}), so pod addresses leak"
        fix = f"{program} -t nat -A POSTROUTING -o UPLINK -m mark --mark {mark:#x} -j SNAT --to-source EGRESSIP"
        return None, [*findings, _refused("TranslationMissing", link, text, fix)]
    targets = [f"{_egress(rule)} on {rule.outgoing}" for rule in translating]
    findings += _one_of_several(link, "translations", translating, targets, last=False)
    egress, uplink = _egress(translating[0]), LinkName(translating[0].outgoing)
    assert egress is not None
    findings += _egress_findings(link, egress, uplink, left.addresses)
    return _Leg(hop=hop, mark=mark, egress=egress, uplink=uplink), findings


def _one_of_several(
    link: Macvlan, what: str, rules: list[IptablesRule], values: list[object], *, last: bool
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
    """Return, by tenant, what it shares with another and must not: a mark, a next hop, an egress IP."""
    users: dict[tuple[str, int, object], list[_Path]] = defaultdict(list)
    for path in paths:
        for leg in path.legs:
            for what, value in (("mark", leg.mark), ("next hop", leg.hop), ("egress IP", leg.egress)):
                users[what, leg.hop.version, value].append(path)
    found: dict[str, list[Finding]] = defaultdict(list)
    for (what, _, value), several in users.items():
        for path in several if len(several) > 1 else ():
            others = ", ".join(other.link.name for other in several if other is not path)
            shown = f"{value:#x}" if isinstance(value, int) else f"{value}"
            text = f"it shares the {what} {shown} with {others}: they leave as each other"
            fix = "add one of them anew with values of its own, or remove it"
            found[path.name].append(_refused("Shared", path.link, text, fix))
    return dict(found)


def _orphans(left: Leftovers, rules: ScriptRules, paths: list[_Path]) -> Iterator[Finding]:
    """Say what has no counterpart; it is left alone."""
    links = {path.link.name for path in paths}
    marks = {(rule.version, _mark(rule)) for rule in rules.marking}
    egress = {_egress(rule) for rule in rules.translating}
    uplinks = {rule.outgoing for rule in rules.translating}
    for rule in rules.marking:
        if rule.incoming not in links:
            yield _orphan(rule.place, f"marks what enters by {rule.incoming}, which does not exist")
    for rule in rules.translating:
        if (rule.version, _matched(rule)) not in marks:
            yield _orphan(rule.place, f"translates the mark {_matched(rule):#x}, which no rule sets")
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
