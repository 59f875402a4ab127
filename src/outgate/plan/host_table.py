"""Whether a secondary NIC's table is what the main table says about that NIC, and what follows where it is not.

OVN-Kubernetes sends a pod with an egress IP on a secondary NIC to a table of that NIC (1000 and its ifindex). It copies
there the main table's routes by that NIC: only when an EgressIP, a pod or a namespace changes, only routes of one
next hop, and no route that discards. Where main has no default by the NIC it makes one up, without a next hop.
Source: go-controller/pkg/node/controllers/egressip of OVN-Kubernetes, read in 2026.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from outgate.model.host_table import EGRESS_IP_PRIORITY, FIRST_TABLE, Compared, EgressTable, HostTables
from outgate.model.intent import AssignedPod, Assignment, Condition, EgressNode
from outgate.model.net import MAIN, Address, Discard, Link, LinkName, Prefix, Route, TableId
from outgate.model.why import Finding, Severity
from outgate.plan.egress_ip import BRIDGE, Networks, hosting_nic, table_of
from outgate.plan.fib import best, together

TABLES_AGREE, ROUTES_FOLLOWED, ROWS_AGREE = "TablesAgree", "HostRoutesFollowed", "RowsAgree"
_WELL = {
    TABLES_AGREE: "its rules and tables are what the egress IPs and the main table ask for",
    ROUTES_FOLLOWED: "packets with an egress IP of the primary NIC follow the host's routes",
    ROWS_AGREE: "OVN-Kubernetes' rows in the node's zone are what its egress IPs ask for",
}
_SHOWN = 5
_COPY_AGAIN = "let OVN-Kubernetes copy again: change the EgressIP, or restart ovnkube-node on this node"


def examine(host: HostTables, destination: Address | None = None) -> tuple[EgressTable, ...]:
    """Return each table that EgressIP uses here, by number, with what differs from the main table, and how packets to a
    destination go, if one is given.
    """
    links = {TableId(FIRST_TABLE + link.index): link for link in host.links.values()}
    sources: dict[TableId, list[Prefix]] = {}
    for rule in host.rules:
        if rule.priority == EGRESS_IP_PRIORITY and not isinstance(rule.action, Discard) and rule.src is not None:
            sources.setdefault(rule.action, []).append(rule.src)
    routes: dict[TableId, list[Route]] = {}
    for route in host.routes:
        if route.table in sources or route.table in links:
            routes.setdefault(route.table, []).append(route)
    in_table: dict[TableId, list[Route]] = {MAIN: []}
    for route in host.routes:
        in_table.setdefault(route.table, []).append(route)

    def seen(number: TableId) -> _Seen:
        link = links.get(number)
        hosts = [_copied(one, MAIN) for one in in_table.get(link.table, ())] if link is not None else []
        return _Seen(sources.get(number, []), routes.get(number, []), hosts, in_table[MAIN])

    return tuple(_table(number, links.get(number), seen(number), destination) for number in sorted({*sources, *routes}))


def unserved(host: HostTables, node: EgressNode, primary: Iterable[Prefix]) -> tuple[Finding, ...]:
    """Return which rules this node lacks, and which it has too many, for the egress IPs on its secondary NICs. Those in
    a network of the primary NIC are OVN's business, not the host's.
    """
    networks = Networks.of(primary, host)
    standing = {(one.src, one.action) for one in host.rules if one.priority == EGRESS_IP_PRIORITY}
    wanted: dict[tuple[Prefix, TableId], tuple[Assignment, AssignedPod, LinkName]] = {}
    findings = []
    for assignment in node.assignments:
        link = hosting_nic(assignment.address, networks)
        if link == BRIDGE:
            continue
        if link is None or link not in host.links:
            findings.append(_nowhere(assignment))
            continue
        table = table_of(host, link)
        wanted |= {
            (ip_network(address), table): (assignment, pod, link)
            for pod in assignment.pods
            for address in pod.addresses
        }
    lacking = [one for one in wanted if one not in standing and not wanted[one][1].contested]
    findings += [_without_rule(*wanted[one], one[1]) for one in lacking]
    extra = [one for one in standing if one not in wanted and one[0] is not None and not isinstance(one[1], Discard)]
    findings += [_of_nobody(one[0], one[1]) for one in sorted(extra, key=str)]
    return tuple(findings)


def condition_of(findings: Sequence[Finding], node: EgressNode, kind: str = TABLES_AGREE) -> Condition:
    """Return what the status of an EgressNode shall say; what it says anew keeps its time while its value stays. Notes
    are for who asks.
    """
    findings = [one for one in findings if one.severity is not Severity.NOTE]
    agrees = not findings
    if agrees:
        reason, message = "AsExpected", _WELL[kind]
    else:
        more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
        message = "; ".join(f"{one.about}: {one.text}" for one in findings[:_SHOWN]) + more
        reason = findings[0].reason
    since = next((one.since for one in node.conditions if one.type == kind and one.holds is agrees), "")
    return Condition(type=kind, holds=agrees, reason=reason, message=message, since=since)


def _nowhere(assignment: Assignment) -> Finding:
    about = f"EgressIP/{assignment.egress_ip}"
    text = f"{assignment.address} is assigned to this node, and no NIC is in a network that holds it"
    return Finding(
        "SourceNotOnLink", about, text, Severity.WARNING, "give a NIC of this node an address in that network"
    )


def _without_rule(assignment: Assignment, pod: AssignedPod, link: LinkName, table: TableId) -> Finding:
    text = (
        f"its egress IP {assignment.address} (EgressIP/{assignment.egress_ip}) is on {link}, and no rule sends its "
        f"packets to table {table}: they are dropped, or leave as if it had none"
    )
    return Finding("PodWithoutRule", f"Pod/{pod.namespace}/{pod.name}", text, Severity.WARNING, _COPY_AGAIN)


def _of_nobody(source: Prefix | None, table: object) -> Finding:
    text = f"a rule sends packets from {source} to table {table}, and no egress IP of this node serves such a pod"
    return Finding("RuleOfNobody", f"table {table}", text, Severity.WARNING, _COPY_AGAIN)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Whose packets go to a table, its routes, and those of the main table. `hosts` are those that it has to be a copy
    of: the main table's, or those of the NIC's VRF, as if they stood there.
    """

    sources: list[Prefix]
    routes: list[Route]
    hosts: list[Route]
    main: list[Route]


def _table(number: TableId, link: Link | None, seen: _Seen, destination: Address | None) -> EgressTable:
    sources, routes, main, hosts = seen.sources, seen.routes, seen.main, seen.hosts
    findings: tuple[Finding, ...]
    name = link.name if link is not None else None
    if name is None:
        findings = (_without_link(number),)
    else:
        versions = {one.version for one in sources} or {one.dst.version for one in routes}
        findings = tuple(
            finding
            for version in sorted(versions)
            for finding in _compare(
                name,
                number,
                [one for one in routes if one.dst.version == version],
                [one for one in hosts if one.dst.version == version],
            )
        )
    compared = None
    if destination is not None:
        compared = Compared(
            destination=destination,
            held=best(routes, destination),
            on_link=best((one for one in hosts if one.link == name), destination) if name is not None else None,
            main=best(main, destination),
        )
    return EgressTable(
        table=number,
        link=name,
        sources=tuple(sorted(sources, key=lambda one: (one.version, one.network_address.packed, one.prefixlen))),
        routes=tuple(sorted(routes, key=str)),
        findings=findings,
        compared=compared,
    )


def _compare(link: LinkName, table: TableId, held: list[Route], main: list[Route]) -> Iterator[Finding]:
    """Yield what differs, for one IP version. A table is seldom long: each prefix is looked up by walking."""
    about = f"table {table} ({link})"
    if not held:
        text = "holds no route: packets of its pods fall through to the main table, and leave by another NIC"
        yield Finding("TableEmpty", about, text, Severity.WARNING, _COPY_AGAIN)
        return
    legs = Counter(one.slot for one in main)
    by_link = (one for one in main if one.link == link)
    kept = {_copied(one, table) for one in together(by_link) if not one.is_of_link_alone}
    for route in sorted(kept - set(held), key=str):
        yield _missing(about, link, route, held, several=legs[_copied(route, MAIN).slot] > 1)
    for route in sorted(set(held) - kept, key=str):
        if route.is_of_link_alone or isinstance(route.hop, Discard):
            continue
        is_made_up = _is_bare_default(route, link) and not any(one.dst == route.dst for one in kept)
        yield _made_up(about, link, route) if is_made_up else _left_over(about, route)
    for route in sorted((one for one in main if isinstance(one.hop, Discard)), key=str):
        wins = best(held, route.dst.network_address)
        if route.hop is not Discard.THROW and wins is not None and not isinstance(wins.hop, Discard):
            text = f"main has {route}, and here {wins} takes such packets: pods reach by {link} what the host must not"
            yield Finding("DropNotCopied", about, text, Severity.WARNING, "forbid it by an EgressFirewall as well")


def _missing(about: str, link: LinkName, route: Route, held: list[Route], *, several: bool) -> Finding:
    shown = _copied(route, MAIN)
    wins = best(held, route.dst.network_address)
    instead = (
        f"its pods take {_copied(wins, MAIN)} instead"
        if wins is not None
        else "its pods have no route there in this table"
    )
    if several:
        text = f"main has {shown} as one of several next hops, and such routes are not copied: {instead}"
        fix = f"give {link} a route of its own with one next hop and another metric"
        return Finding("PathsNotCopied", about, text, Severity.WARNING, fix)
    text = f"main has {shown}, which came after the routes were copied: {instead}"
    return Finding("RouteNotCopied", about, text, Severity.WARNING, _COPY_AGAIN)


def _made_up(about: str, link: LinkName, route: Route) -> Finding:
    text = f"{route} is made up, because main has no default by {link}: hosts beyond the LAN are looked for on the LAN"
    fix = f"add a default route by {link}, with a metric above the main one, or routes to what its pods shall reach"
    return Finding("NoDefaultRoute", about, text, Severity.WARNING, fix)


def _left_over(about: str, route: Route) -> Finding:
    text = f"{route} is not in main any more"
    return Finding("RouteLeftOver", about, text, Severity.WARNING, _COPY_AGAIN)


def _without_link(table: TableId) -> Finding:
    text = f"no link has the ifindex {table - FIRST_TABLE} any more: packets of its pods fall through to the main table"
    return Finding("TableWithoutLink", f"table {table}", text, Severity.WARNING, _COPY_AGAIN)


def _copied(route: Route, table: TableId) -> Route:
    return replace(route, table=table)


def _is_bare_default(route: Route, link: LinkName) -> bool:
    return route.dst.prefixlen == 0 and str(route.hop) == f"dev {link}"
