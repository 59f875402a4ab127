"""Which live flows must end: those whose translation contradicts what is wanted now.

Connection tracking keeps the translation of a flow for its life, whatever the table says later. So a flow that left
before the guards stood stays untranslated, and one that was translated to an address which its tenant lost keeps it.
The guard after NAT stops their packets; deleting the entry lets the client open a new flow at once instead of waiting
for a time-out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from outgate.model.flow import Flow
from outgate.model.net import TENANT_MASK, Address, LinkAddress, Mark, Span
from outgate.model.ruleset import Element
from outgate.model.state import Facts, Resource
from outgate.model.why import Because


@dataclass(frozen=True, slots=True)
class FlowRules:
    """What flows are judged by, taken from the wanted resources once.

    `sources` maps a source address to the mark it has now, where sources tell tenants; other sources are told by link.
    """

    protected: tuple[Span, ...]
    internal: tuple[Span, ...]
    own: frozenset[tuple[int, Address]]  # (tenant's mark, address it may leave as)
    sources: Mapping[Address, int]
    egress: frozenset[Address]
    here: frozenset[Address]  # the machine's own addresses


def flow_rules(wants: Iterable[Resource], facts: Facts) -> FlowRules:
    """Return the rules that the wanted elements imply."""
    protected: list[Span] = []
    internal: list[Span] = []
    own: set[tuple[int, Address]] = set()
    sources: dict[Address, int] = {}
    ours: set[Address] = set()
    for resource in wants:
        if isinstance(resource, LinkAddress):
            ours.add(resource.address)
        if not isinstance(resource, Element):
            continue
        match resource.set[:-1], resource.key, resource.value:
            case "protected", (Span() as span,), _:
                protected.append(span)
            case "internal", (_, Span() as span), _:
                internal.append(span)
            case "own", (int() as mark, address), _ if not isinstance(address, str | int | Span):
                own.add((mark & TENANT_MASK, address))
            case "id_pod", (address,), int() as mark if not isinstance(address, str | int | Span):
                sources[address] = mark & TENANT_MASK
    here = frozenset(have.address for have in facts.addresses) | ours
    return FlowRules(
        protected=tuple(protected),
        internal=tuple(internal),
        own=frozenset(own),
        sources=sources,
        egress=frozenset(address for _, address in own),
        here=here - frozenset(address for _, address in own),
    )


def stale_flows(flows: Iterable[Flow], rules: FlowRules) -> Iterator[tuple[Flow, Because]]:
    """Yield the flows that must end, each with its reason."""
    for flow in flows:
        because = _judge(flow, rules)
        if because is not None:
            yield flow, because


def tenant_mark(flow: Flow) -> Mark:
    """Return the mark of the tenant that a flow belongs to; 0 is nobody's."""
    return Mark(flow.mark & TENANT_MASK)


def _judge(flow: Flow, rules: FlowRules) -> Because | None:
    source, seen_as = flow.original.src, flow.reply.dst
    if flow.original.dst in rules.here:
        return None  # to the machine itself: it does not leave
    if seen_as == source:
        if _in(source, rules.protected) and not _in(flow.original.dst, rules.internal):
            return Because("flow/untranslated", f"{source} left untranslated before the guards stood")
        return None
    mark = tenant_mark(flow)
    now = rules.sources.get(source)
    if mark and now is not None and now != mark:
        return Because("flow/other-tenant", f"{source} belongs to another tenant now")
    if mark and (mark, seen_as) not in rules.own:
        return Because("flow/lost-address", f"its tenant may no longer leave as {seen_as}")
    return None


def _in(address: Address, spans: tuple[Span, ...]) -> bool:
    return any(address in span for span in spans)
