"""What a packet meets on the gateway, as values: rules, routes, links, addresses, settings, the table's elements.

A world is built from what is wanted or from what was read; `walk` does not know which. So the same walk answers "what
should happen" and "what does happen", and both can be compared with the kernel itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import TypeAlias

from outgate.model.host_table import HostTables
from outgate.model.net import (
    ALL_LINKS,
    MAIN,
    TENANT_LINK_SETTINGS,
    Address,
    HostAddress,
    Link,
    LinkAddress,
    LinkName,
    LinkSetting,
    Prefix,
    Route,
    Rule,
    Setting,
    Span,
    TableId,
    TenantLink,
)
from outgate.model.ruleset import Element, Part, Table
from outgate.model.state import Desired, Facts, Resource
from outgate.model.why import Because

LOCAL, DEFAULT = TableId(255), TableId(253)  # rt_tables: the machine's own addresses; empty unless somebody fills it
KERNEL_RULES = ((0, LOCAL), (32766, MAIN), (32767, DEFAULT))  # what every network namespace starts with

AnyLink: TypeAlias = Link | TenantLink
AnyAddress: TypeAlias = HostAddress | LinkAddress
Routes: TypeAlias = Mapping[tuple[TableId, Prefix], tuple[Route, ...]]
Elements: TypeAlias = Mapping[str, Mapping[tuple[Part, ...], Element]]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The machine as a packet meets it.

    `rules` are sorted by priority; `routes` of one destination and table by metric. `table` is the table that is
    loaded, None when there is none (then `elements` are empty); `expected` the digest of the one that outgate renders,
    empty when nobody said. `reasons` are those of the wanted resources. `whole`: the routes of every table were read.
    """

    rules: tuple[Rule, ...] = ()
    routes: Routes = field(default_factory=lambda: MappingProxyType({}))
    links: Mapping[LinkName, AnyLink] = field(default_factory=lambda: MappingProxyType({}))
    addresses: Mapping[Address, tuple[AnyAddress, ...]] = field(default_factory=lambda: MappingProxyType({}))
    settings: Mapping[tuple[LinkName, Setting], int] = field(default_factory=lambda: MappingProxyType({}))
    elements: Elements = field(default_factory=lambda: MappingProxyType({}))
    table: Table | None = None
    expected: str = ""
    reasons: Mapping[Resource, Because] = field(default_factory=lambda: MappingProxyType({}))
    whole: bool = False

    def element(self, name: str, *key: Part) -> Element | None:
        """Return the element of a set or map with exactly this key."""
        return self.elements.get(name, {}).get(key)

    def covering(self, name: str, *parts: Part) -> Element | None:
        """Return the element of an interval set whose key covers these values."""
        found = self.elements.get(name, {})
        exact = found.get(parts)
        if exact is not None:
            return exact
        return next((element for key, element in found.items() if _covers(key, parts)), None)

    def setting(self, link: LinkName, setting: Setting) -> int | None:
        """Return a link's setting, None when nobody read it."""
        return self.settings.get((link, setting))

    def strongest(self, link: LinkName, setting: Setting) -> int:
        """Return the greater of a link's setting and that of all links, as the kernel takes rp_filter; unread is 0."""
        return max(self.setting(link, setting) or 0, self.setting(ALL_LINKS, setting) or 0)

    def is_up(self, link: LinkName) -> bool:
        """Whether a link is there, up and heard, and for a tenant's link the NIC below it too."""
        have = self.links.get(link)
        if isinstance(have, TenantLink):
            return not {"down", "ARP is off"} & set(have.fault.split("; ")) and self.is_up(have.parent)
        return have is not None and have.up

    def because(self, resource: Resource | None) -> Because | None:
        """Return why a resource is wanted, None for what is not ours or not wanted."""
        return self.reasons.get(resource) if resource is not None else None


def world_of_desired(desired: Desired, facts: Facts) -> World:
    """Return the world in which all that is wanted is there, beside what is not ours."""
    table = next((resource for resource in desired.wants if isinstance(resource, Table)), None)
    return _world(desired.wants, facts, table.digest if table else "", desired.wants)


def world_of_actual(
    actual: frozenset[Resource],
    facts: Facts,
    digest: str,
    reasons: Mapping[Resource, Because] = MappingProxyType({}),
) -> World:
    """Return the world of a reading: `actual` is ours, `facts` are others', both as they are now.

    `digest` is that of the table which outgate renders; a table with another one was edited, and the walk says that it
    can not know its rules. `reasons` (of the wanted resources) let the walk say why what it meets is there.
    """
    return _world(actual, facts, digest, reasons)


def world_of_node(host: HostTables, elements: frozenset[Element] | None) -> World:
    """Return the world of a cluster node, whose own addresses are not known; without elements it has no table."""
    facts = Facts(links=host.links, routes=host.routes, rules=host.rules, settings=host.settings)
    ours: set[Resource] = {Table(""), *elements} if elements is not None else set()
    return replace(_world(ours, facts, "", MappingProxyType({})), whole=True)


def _world(ours: Iterable[Resource], facts: Facts, digest: str, reasons: Mapping[Resource, Because]) -> World:
    kinds: dict[type, list[Resource]] = defaultdict(list)
    for resource in ours:
        kinds[type(resource)].append(resource)
    links: dict[LinkName, AnyLink] = dict(facts.links)
    links |= {r.name: r for r in kinds[TenantLink] if isinstance(r, TenantLink) and r.parent in facts.links}
    addresses: dict[Address, tuple[AnyAddress, ...]] = {}
    for have in (*sorted(facts.addresses, key=str), *kinds[LinkAddress]):
        if isinstance(have, HostAddress | LinkAddress) and have.link in links:
            addresses[have.address] = (*addresses.get(have.address, ()), have)
    settings = dict(facts.settings)
    for link in kinds[TenantLink]:
        settings |= _settings_of(link) if isinstance(link, TenantLink) else {}
    settings |= {(r.link, r.setting): r.value for r in kinds[LinkSetting] if isinstance(r, LinkSetting)}
    table = next((r for r in kinds[Table] if isinstance(r, Table)), None)
    return World(
        rules=_rules([*facts.rules, *(r for r in kinds[Rule] if isinstance(r, Rule))]),
        routes=_routes([*facts.routes, *(r for r in kinds[Route] if isinstance(r, Route))]),
        links=MappingProxyType(links),
        addresses=MappingProxyType(addresses),
        settings=MappingProxyType(settings),
        elements=_elements(r for r in kinds[Element] if isinstance(r, Element)) if table else MappingProxyType({}),
        table=table,
        expected=digest,
        reasons=reasons,
    )


def _settings_of(link: TenantLink) -> dict[tuple[LinkName, Setting], int]:
    """Return a tenant link's settings: what every one has, but for what its fault says (`ipv4/forwarding is 0`)."""
    faults = dict(word.partition(" is ")[::2] for word in link.fault.split("; ") if " is " in word)
    return {
        (link.name, setting): int(read) if (read := faults.get(setting.value, "")).isdigit() else value
        for setting, value in TENANT_LINK_SETTINGS.items()
    }


def _rules(rules: list[Rule]) -> tuple[Rule, ...]:
    """Sort rules by priority. A family without a rule for the local table is a reading that left the kernel's out."""
    for version in (4, 6):
        if not any(rule.version == version and rule.action == LOCAL for rule in rules):
            rules += [Rule(priority=priority, version=version, action=table) for priority, table in KERNEL_RULES]
    return tuple(sorted(set(rules), key=lambda rule: (rule.priority, str(rule))))


def _routes(routes: list[Route]) -> Routes:
    found: dict[tuple[TableId, Prefix], tuple[Route, ...]] = {}
    for route in routes:
        key = (route.table, route.dst)
        have = found.get(key)
        found[key] = (route,) if have is None else (*have, route)
    return {
        key: tuple(sorted(same, key=lambda route: (route.metric, str(route)))) if len(same) > 1 else same
        for key, same in found.items()
    }


def _elements(elements: Iterable[Element]) -> Elements:
    found: dict[str, dict[tuple[Part, ...], Element]] = defaultdict(dict)
    for element in elements:
        found[element.set][element.key] = element
    return dict(found)


def _covers(key: tuple[Part, ...], parts: tuple[Part, ...]) -> bool:
    return len(key) == len(parts) and all(
        (part in have if isinstance(have, Span) and not isinstance(part, int | str | Span) else part == have)
        for have, part in zip(key, parts, strict=True)
    )


def prefixes_of(address: Address) -> Iterable[Prefix]:
    """Yield every prefix that holds an address, the longest first."""
    return (ip_network((address, length), strict=False) for length in range(address.max_prefixlen, -1, -1))
