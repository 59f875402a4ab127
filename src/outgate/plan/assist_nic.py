"""What a node adds beside OVN-Kubernetes' own EgressIP for egress IPs on secondary NICs: live mirrors of their routes.

OVN-Kubernetes sends such a pod's packets to the NIC's own table by a rule of priority 6000, and fills that table now
and then. Ours stands before it: a rule of priority 5998 to a table of our own, which holds what the main table says of
the NIC, discards too, and ends with `unreachable`: a default that nobody made is not made up, and a table that empties
lets nothing fall through to another NIC. The address, and its translation, stay OVN-Kubernetes'; but by the address,
which stands on the host's NIC, nobody outside may call the host.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from outgate.model.egress_ip import NodeSnapshot
from outgate.model.host_table import TO_NODES_PRIORITY
from outgate.model.intent import Assignment
from outgate.model.net import MAIN, OWN_TABLES, Address, Discard, LinkName, Prefix, Route, Rule
from outgate.model.routing import Routing, Semantics
from outgate.model.ruleset import Element
from outgate.model.state import Resource
from outgate.model.why import Because, Finding, Severity
from outgate.plan.egress_ip import BRIDGE, MANAGEMENT_PORT, copied, mirrored, table_of
from outgate.plan.fib import best
from outgate.plan.forwarding import in_words, not_forwarding, refusing
from outgate.plan.inbound import allowance_element
from outgate.plan.serving import Served
from outgate.plan.source_ranges import outermost

RULE, MARKED = 5998, 5997  # before OVN-Kubernetes' rules of 6000 and 5999
_LAST_METRIC = 4278198272  # of the end of a table: behind every route that somebody makes
_LEAST_METRIC = {4: 0, 6: 1024}  # what the kernel makes of no metric


def plan_nics(
    snapshot: NodeSnapshot, serving: Iterable[Served], inside: Iterable[Prefix]
) -> tuple[dict[Resource, Because], tuple[Finding, ...]]:
    """Return what is wanted for egress IPs on secondary NICs, and what can not be."""
    by_nic = [(one, one.link) for one in serving if one.link is not None and one.link != BRIDGE]
    if not by_nic:
        return {}, ()
    holes = list(inside)
    wants: dict[Resource, Because] = {}
    findings: list[Finding] = []
    for link, version in sorted({(link, one.address.version) for one, link in by_nic}):
        routing = next(one.assignment.routing for one, its in by_nic if its == link)
        routes = _routes(snapshot, link, version, routing)
        wants |= _table(snapshot, link, version, routes, holes)
        findings += _in_part(snapshot, link, routes)
        pods = [one.address for one, its in by_nic if its == link and one.address.version == version]
        findings += _replies(snapshot, link, pods)
        findings += _preflight(snapshot, link, version)
    wants |= _marked(snapshot, {one.address.version for one, _ in by_nic})
    for one, link in by_nic:
        table = table_of(snapshot.host, link, OWN_TABLES.start)
        rule = Rule(
            priority=RULE,
            version=one.address.version,
            action=table,
            src=ip_network(one.address),
            incoming=MANAGEMENT_PORT,
        )
        given, pod = one.assignment, one.pod
        text = f"EgressIP/{given.egress_ip} gives Pod/{pod.namespace}/{pod.name} {given.address}, which is on {link}"
        wants[rule] = Because("assist/nic-rule", text)
        wants |= closed(given, link)
    return wants, tuple(findings)


def _preflight(snapshot: NodeSnapshot, link: LinkName, version: int) -> Iterator[Finding]:
    """Yield what keeps packets from the NIC or answers from pods: they go that way anyhow, and are dropped."""
    about = f"Node/{snapshot.node.name}"
    shut = not_forwarding(snapshot.host.settings, version, (MANAGEMENT_PORT, link))
    if shut is not None:
        text = f"egress IPs are on {link}, and {shut} does not forward: packets or their answers are dropped"
        fix = f"allow forwarding on {shut} (sysctl net.ipv{version}.conf.{shut}.forwarding=1)"
        yield Finding("ForwardingDisabled", about, text, Severity.WARNING, fix)
    if chains := refusing(snapshot.firewall, version, MANAGEMENT_PORT, link):
        shown, fix = in_words(chains, MANAGEMENT_PORT)
        text = f"egress IPs are on {link}, and packets by it or their answers are dropped by {shown}"
        yield Finding("ForwardRefused", about, text, Severity.WARNING, fix)


def _routes(snapshot: NodeSnapshot, link: LinkName, version: int, routing: Routing) -> Sequence[Route]:
    """Return the routes of a NIC as its pods follow them, in the table of ours."""
    if routing.semantics is Semantics.AUTO:
        return mirrored(snapshot.host, link, version, routing)
    table = table_of(snapshot.host, link, OWN_TABLES.start)
    return [replace(one, table=table) for one in copied(snapshot.host, link, version)]


def closed(given: Assignment, link: LinkName) -> Mapping[Resource, Because]:
    """Want that nobody may call this host by an egress IP, but for what its EgressIP allows."""
    address, version = given.address, given.address.version
    text = f"{link} has {address}, and nobody may call this host by it"
    wants: dict[Resource, Because] = {Element(f"node_egress{version}", (address,)): Because("assist/closed", text)}
    for allowance in given.routing.allow_inbound:
        element = allowance_element(("node_open_port", "node_open_proto"), address, allowance)
        wants[element] = Because("assist/open", f"allowInbound of EgressIP/{given.egress_ip}")
    return wants


def _table(
    snapshot: NodeSnapshot, link: LinkName, version: int, routes: Sequence[Route], holes: Iterable[Prefix]
) -> Mapping[Resource, Because]:
    table = table_of(snapshot.host, link, OWN_TABLES.start)
    wants: dict[Resource, Because] = {
        route: Because("assist/nic-route", f"table {snapshot.host.host_table(link)} has it, of {link}")
        for route in routes
    }
    slots = {route.slot for route in routes}
    for prefix in outermost(one for one in holes if one.version == version):
        hole = Route(dst=prefix, hop=Discard.THROW, table=table, metric=_LEAST_METRIC[version])
        if hole.slot not in slots:
            wants[hole] = Because("assist/nic-inside", "pods, services and nodes are not reached by this NIC")
    anywhere = ip_network("0.0.0.0/0" if version == 4 else "::/0")
    end = Route(dst=anywhere, hop=Discard.UNREACHABLE, table=table, metric=_LAST_METRIC)
    wants[end] = Because("assist/nic-end", f"what no route of {link} takes leaves by no other NIC")
    return wants


def _marked(snapshot: NodeSnapshot, versions: Iterable[int]) -> Mapping[Resource, Because]:
    """Want OVN-Kubernetes' rule for packets to nodes once more, before ours, where it has one."""
    wants: dict[Resource, Because] = {}
    for rule in snapshot.host.rules:
        if rule.priority == TO_NODES_PRIORITY and rule.mark is not None and rule.version in versions and not rule.more:
            copy = Rule(priority=MARKED, version=rule.version, action=rule.action, mark=rule.mark, mask=rule.mask)
            wants[copy] = Because(
                "assist/nic-marked", f"OVN-Kubernetes has it at {TO_NODES_PRIORITY}, which comes after ours"
            )
    return wants


def _replies(snapshot: NodeSnapshot, link: LinkName, pods: Iterable[Address]) -> Iterator[Finding]:
    """Yield where the table of a VRF takes answers that come in by its slave, if that is not to pods."""
    table = snapshot.host.host_table(link)
    if table == MAIN:
        return
    routes = [one for one in snapshot.host.routes if one.table == table]
    for pod in pods:
        route = best(routes, pod)
        if route is not None and (isinstance(route.hop, Discard) or route.hop.link != MANAGEMENT_PORT):
            text = (
                f"answers to {pod} come in by {link}, and the table of its VRF has {route}: they do not reach the pod"
            )
            inside = best((one for one in snapshot.host.routes if one.table == MAIN), pod)
            fix = f"ip route add {inside} table {table}" if inside is not None else "let the VRF have a route to pods"
            yield Finding("ReplyDropped", f"Node/{snapshot.node.name}", text, Severity.WARNING, fix)
            return


def _in_part(snapshot: NodeSnapshot, link: LinkName, held: Iterable[Route]) -> Iterator[Finding]:
    """Yield the routes of several next hops of which the mirror holds those by its link alone."""
    table = snapshot.host.host_table(link)
    legs: dict[Hashable, list[Route]] = {}
    for route in snapshot.host.routes:
        if route.weight and route.table == table:
            legs.setdefault(route.slot, []).append(route)
    taken: dict[Hashable, list[Route]] = {}
    for route in held if legs else ():
        taken.setdefault(replace(route, table=table).slot, []).append(route)
    for slot in sorted(legs.keys() & taken.keys(), key=str):
        hops = {one.hop for one in taken[slot]}
        others = [leg for leg in legs[slot] if leg.hop not in hops]
        if others:
            text = (
                f"the host has several next hops for {others[0].dst}; packets with an egress IP on {link} take "
                f"{_shown(taken[slot])}, never {_shown(others)}"
            )
            yield Finding("SeveralHops", f"Node/{snapshot.node.name}", text, Severity.NOTE)


def _shown(legs: Iterable[Route]) -> str:
    return ", ".join(sorted(str(leg.hop) for leg in legs))
