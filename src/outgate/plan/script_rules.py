"""How the former script's rules, links and routes are told from everybody else's: by the exact form it writes them in.

A rule that asks for more, or writes a part of the mark, is not the script's, whatever its name says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from outgate.model.firewall import WHOLE_MARK, IptablesRule
from outgate.model.host import Macvlan
from outgate.model.net import Address, LinkName, Route, Via

LINK_PREFIX = "macvlan-"


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


def obsolete(
    rules: ScriptRules, *, links: Collection[LinkName], egress: Collection[Address], nics: Collection[LinkName]
) -> tuple[IptablesRule, ...]:
    """Return the rules that nobody needs once these links are adopted, these egress IPs held, these inner NICs guarded.

    Each standing of a rule is one: the script inserted some twice.
    """
    return (
        *(rule for rule in rules.marking if rule.incoming in links),
        *(rule for rule in rules.translating if egress_of(rule) in egress),
        *(rule for rule in rules.guarding if rule.incoming in nics),
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
            return "marking" if fits and mark_of(rule) is not None else ""
        case "nat", "POSTROUTING", "SNAT":
            fits = bool(rule.outgoing) and matched_mark(rule) not in (None, 0) and not (rule.incoming or rule.src)
            return "translating" if fits and egress_of(rule) is not None else ""
        case "filter", "FORWARD", "REJECT":
            fits = bool(rule.incoming and rule.outgoing) and rule.src is not None and matched_mark(rule) == 0
            return "guarding" if fits else ""
        case _:
            return ""


def mark_of(rule: IptablesRule) -> int | None:
    """Return the mark that a rule writes whole, None for one that writes a part."""
    value, _, mask = (rule.argument("--set-xmark") or "").partition("/")
    return int(value, 16) if value and mask and int(mask, 16) == WHOLE_MARK and len(rule.arguments) == 2 else None


def matched_mark(rule: IptablesRule) -> int | None:
    """Return the whole mark that a rule asks for, None for no or another question."""
    mark = rule.mark
    return mark.value if mark is not None and mark.mask == WHOLE_MARK and not mark.negated else None


def egress_of(rule: IptablesRule) -> Address | None:
    """Return the one address that a rule translates to, None for a range or ports."""
    try:
        return ip_address(rule.argument("--to-source") or "") if len(rule.arguments) == 2 else None
    except ValueError:
        return None
