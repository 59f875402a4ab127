"""One tenant's way through the gateway: its link and next hop, its mark, its sources, its egress IPs.

The mark is the pivot: links and sources map to it, addresses and limits hang on it. Its low byte says which of several
egress IPs a source gets, by the hash that the kernel uses (`model.spread`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from ipaddress import IPv4Address
from itertools import pairwise

from outgate.model.intent import EgressGateway, EgressTenant, NextHopIdentity, Pod, SourceCheck, SourceIdentity
from outgate.model.ledger import Allocation
from outgate.model.net import Address, LinkAddress, LinkName, Mark, Prefix, Span, TenantLink
from outgate.model.ruleset import Connections, Element, Limit, Quota, Value
from outgate.model.spread import BUCKETS, bucket
from outgate.model.state import Resource
from outgate.model.why import Because
from outgate.plan.claims import Claim
from outgate.plan.guard import span_of
from outgate.plan.inbound import allowance_element

_NAME_BYTES = 127  # ALTIFNAMSIZ of the kernel, without its NUL


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantFacts:
    """All that one tenant's path depends on, so that an unchanged tenant is not planned twice.

    `claimed` are its next hops, which say where its link is; `hops` and `egress` its claims whose address is held
    (probed, nobody answered); `foreign` those of its addresses
    that stand on the NIC by somebody else's hand; `retiring` addresses with their link that still carry old flows;
    `adopted` links of somebody else whose traffic is this tenant's.
    """

    tenant: EgressTenant
    allocation: Allocation
    claimed: tuple[Claim, ...]
    hops: tuple[Claim, ...]
    egress: tuple[Claim, ...]
    own: tuple[Address, ...]  # the tenant's own egress IPs, in order, held or not
    foreign: frozenset[Address]
    retiring: tuple[tuple[Address, LinkName], ...]
    pods: tuple[Pod, ...]
    ranges: tuple[Prefix, ...] = ()  # of those that it lists as sources
    adopted: tuple[LinkName, ...] = ()


def plan_tenant(facts: TenantFacts, gateway: EgressGateway) -> dict[Resource, Because]:
    """Want everything that one tenant needs, each resource with its reason."""
    tenant = facts.tenant
    path = _Path(facts)
    cites = (f"EgressTenant/{tenant.name}",)
    wants: dict[Resource, Because] = {}
    for resource, rule, text in (
        *_identity(path),
        *_addresses(path),
        *_translation(path),
        *_limits(path),
        *_inbound(path),
    ):
        wants[resource] = Because(_rule(rule), text, cites)
    if isinstance(tenant.identity, NextHopIdentity) and path.families:
        parent = facts.claimed[0].link if facts.claimed else gateway.inner[0].interface
        link = TenantLink(
            name=facts.allocation.link,
            parent=parent,
            mac=facts.allocation.mac,
            alternative=alternative_name(tenant.name),
            ipv6=any(hop.address.version == 6 for hop in facts.claimed),
        )
        wants[link] = Because(_rule("link"), f"nodes send {tenant.name}'s traffic to a MAC of its own", cites)
    return wants


@cache
def _rule(name: str) -> str:
    """Return a rule's full name: one text for all tenants, of which there are a dozen for each."""
    return f"tenant/{name}"


def alternative_name(tenant: str) -> str:
    """Return the device's name for people. The kernel allows 127 bytes and no name twice, so a longer one ends in a
    digest of the whole.
    """
    name = f"outgate-{tenant}"
    return name if len(name) <= _NAME_BYTES else f"{name[: _NAME_BYTES - 9]}-{sha256(name.encode()).hexdigest()[:8]}"


def slot_mark(mark: Mark, slot: int) -> Mark:
    """Return the mark of a tenant's packet that leaves by egress IP number `slot`."""
    return Mark(mark | slot)


def slot_of(source: Address, slots: int) -> int:
    """Return which of `slots` egress IPs a source gets: stable per source, about even over sources."""
    return bucket(source) % slots if slots > 1 else 0


class _Path:
    """A tenant's held egress IPs by family, and its marks."""

    def __init__(self, facts: TenantFacts) -> None:
        self.facts = facts
        self.tenant = facts.tenant
        self.mark = facts.allocation.mark
        held = {claim.address for claim in facts.egress}
        self.own = {v: tuple(ip for ip in facts.own if ip.version == v and ip in held) for v in (4, 6)}
        self.families = tuple(v for v in (4, 6) if self.own[v])
        self.slots = max(1, *(len(self.own[v]) for v in (4, 6)))
        self.marks = tuple(slot_mark(self.mark, slot) for slot in range(self.slots))


_Wanted = tuple[Resource, str, str]


def _identity(path: _Path) -> Iterator[_Wanted]:
    """Yield what tells this tenant's packets: its link, or its pods' addresses."""
    tenant, name = path.tenant, path.tenant.name
    for mark in path.marks:
        yield Element("tenant_of", (mark,), path.mark), "mark", f"{name} has mark {path.mark:#x}"
    if isinstance(tenant.identity, NextHopIdentity):
        link = path.facts.allocation.link
        yield Element("inner", (link,)), "link", f"{link} is {name}'s next hop"
        yield from _told_by(path, link, f"what enters by {link} is {name}'s")
        for old in path.facts.adopted:
            text = f"{old} was {name}'s before outgate, and neighbours may still send to its MAC"
            yield Element("inner", (old,)), "adopted", text
            yield from _told_by(path, old, text)
        yield from _source_check(path)
        return
    for cidr in path.facts.ranges:
        if cidr.version in path.families:
            yield (
                Element(f"id_net{cidr.version}", (span_of(cidr),), path.mark),
                "identity",
                f"{cidr} is listed by {name}",
            )
    yield from _pods(path, "id_pod")


def _told_by(path: _Path, link: LinkName, text: str) -> Iterator[_Wanted]:
    """Yield what gives packets of a link their mark: one, or one per hash of the source when there are several."""
    if path.slots == 1:
        yield Element("id_link", (link,), path.mark), "identity", text
        return
    yield Element("spread", (link,)), "identity", f"{text}; of {path.slots} egress IPs a source keeps to one"
    for number in range(BUCKETS):
        mark = slot_mark(path.mark, number % path.slots)
        shown = f"sources of hash {number} use egress IP {number % path.slots + 1}"
        yield Element("id_spread", (link, number), mark), "identity", shown


def _source_check(path: _Path) -> Iterator[_Wanted]:
    name = path.tenant.name
    match path.tenant.source_check:
        case SourceCheck.OFF:
            return
        case SourceCheck.NODE_SUBNETS:
            for mark in path.marks:
                yield Element("check_nodes", (mark,)), "source-check", f"{name}'s next hop is for pods of known nodes"
        case SourceCheck.PODS:
            for mark in path.marks:
                yield Element("check_pods", (mark,)), "source-check", f"{name}'s next hop is for its own pods"
            yield from _pods(path, "pods_of")


def _pods(path: _Path, name: str) -> Iterator[_Wanted]:
    """Yield one element per pod address, in `id_pod` (address to mark) or `pods_of` (mark and address)."""
    for pod in path.facts.pods:
        for address in pod.addresses:
            if address.version in path.families:
                mark = slot_mark(path.mark, slot_of(address, path.slots))
                key, value = ((address,), mark) if name == "id_pod" else ((mark, address), None)
                yield (
                    Element(f"{name}{address.version}", key, value),
                    "pod",
                    f"{pod.namespace}/{pod.name} is selected by {path.tenant.name}",
                )


def _addresses(path: _Path) -> Iterator[_Wanted]:
    facts, name = path.facts, path.tenant.name
    if path.families:
        for hop in facts.hops:
            if hop.address.version in path.families:
                yield (
                    LinkAddress(link=facts.allocation.link, address=hop.address),
                    "next-hop",
                    f"nodes reach {name} at {hop.address}",
                )
    for claim in facts.egress:
        if claim.address not in facts.foreign:
            yield (
                LinkAddress(link=claim.link, address=claim.address),
                "egress-ip",
                f"replies to {name} come to {claim.address}",
            )
    for address, link in facts.retiring:
        yield LinkAddress(link=link, address=address), "retiring", f"old flows of {name} still use {address}"


def _translation(path: _Path) -> Iterator[_Wanted]:
    """Yield which source a packet gets: per destination first, else the tenant's own; and all that it may have."""
    name = path.tenant.name
    for version in path.families:
        mine = path.own[version]
        for slot, mark in enumerate(path.marks):
            ip = mine[slot % len(mine)]
            yield Element(f"snat{version}", (mark,), ip), "snat", f"{name} leaves as {ip}"
        for span, ip in _special(path, version):
            for mark in path.marks:
                yield Element(f"snat_to{version}", (mark, span), ip), "snat", f"{name} leaves as {ip} towards {span}"
    for address in (*(claim.address for claim in path.facts.egress), *(address for address, _ in path.facts.retiring)):
        yield Element(f"egress{address.version}", (address,)), "egress-ip", f"{address} is {name}'s"
        for mark in path.marks:
            yield Element(f"own{address.version}", (mark, address)), "own", f"{name} may leave as {address}"


def _special(path: _Path, version: int) -> list[tuple[Span, Address]]:
    """Return the per-destination egress IPs as disjoint ranges: the longest prefix wins."""
    held = {claim.address for claim in path.facts.egress}
    rules = [
        (span_of(cidr), cidr.prefixlen, ip)
        for rule in path.tenant.destinations
        for ip in rule.egress_ips
        for cidr in rule.cidrs
        if cidr.version == ip.version == version and ip in held
    ]
    family = type(rules[0][2]) if rules else IPv4Address
    cuts = sorted({edge for span, _, _ in rules for edge in (int(span.first), int(span.last) + 1)})
    pieces: list[tuple[int, int, Address]] = []
    for start, end in pairwise(cuts):
        best = max(
            (r for r in rules if int(r[0].first) <= start < int(r[0].last) + 1), key=lambda r: r[1], default=None
        )
        if best is None:
            continue
        if pieces and pieces[-1][1] == start and pieces[-1][2] == best[2]:
            pieces[-1] = (pieces[-1][0], end, best[2])
        else:
            pieces.append((start, end, best[2]))
    return [(Span(first=family(start), last=family(end - 1)), ip) for start, end, ip in pieces]


def _limits(path: _Path) -> Iterator[_Wanted]:
    tenant, key = path.tenant, (path.mark,)
    for name in ("sent", "received", "opened"):
        yield Element(name, key), "account", f"what {tenant.name} {name} is counted"
    wanted: list[tuple[str, Value, str]] = []
    if tenant.rate:
        wanted.append(
            (
                "rates",
                Limit(tenant.rate.bytes_per_s, tenant.rate.burst_bytes),
                f"{tenant.rate.bytes_per_s} bytes per second",
            )
        )
    if tenant.quota:
        wanted.append(
            (
                "quotas",
                Quota(tenant.quota.limit_bytes),
                f"{tenant.quota.limit_bytes} bytes per {tenant.quota.period_s} s",
            )
        )
    if tenant.connections:
        wanted.append(("connections", Connections(tenant.connections), f"{tenant.connections} connections at most"))
    for name, value, text in wanted:
        yield Element(name, key, value), "limit", f"{tenant.name} may have {text}"


def _inbound(path: _Path) -> Iterator[_Wanted]:
    for claim in path.facts.egress:
        for allowance in path.tenant.allow_inbound:
            yield (
                allowance_element(("allowed_port", "allowed_proto"), claim.address, allowance),
                "inbound",
                f"{path.tenant.name} lets the gateway answer on {claim.address}",
            )


def serves_source(tenant: EgressTenant) -> bool:
    """Whether the tenant is told by source address."""
    return isinstance(tenant.identity, SourceIdentity)
