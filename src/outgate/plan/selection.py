"""Which pods belong to which tenant: namespaces first, then pods, by label selectors.

Namespaces are indexed by their label pairs, so that 4,000 tenants over 2,000 namespaces cost a look-up each and not a
scan each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from outgate.model.intent import EgressTenant, Namespace, Pod, SourceIdentity
from outgate.model.net import Address, Prefix
from outgate.model.selector import LabelSelector
from outgate.model.why import Finding, Severity
from outgate.plan.source_ranges import grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The namespaces and pods of each tenant, and the ranges that it listed and has, by tenant name; tenants that
    select or list nothing are absent.
    """

    namespaces: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    pods: Mapping[str, tuple[Pod, ...]] = field(default_factory=lambda: MappingProxyType({}))
    ranges: Mapping[str, tuple[Prefix, ...]] = field(default_factory=lambda: MappingProxyType({}))
    findings: tuple[Finding, ...] = ()


class PodIndex:
    """The pods that may be selected, with addresses of their own and not finished, by namespace.

    Those of a namespace are indexed by label pair when a selector asks for the first time: 500 EgressIPs of one large
    namespace cost a look-up each.
    """

    def __init__(self, pods: Sequence[Pod]) -> None:
        self._in: dict[str, list[Pod]] = defaultdict(list)
        self._by_pair: dict[str, dict[tuple[str, str], list[Pod]]] = {}
        for pod in pods:
            if pod.addresses and not pod.host_network and not pod.finished:
                self._in[pod.namespace].append(pod)

    def all(self) -> Iterator[Pod]:
        """Yield all of them."""
        for pods in self._in.values():
            yield from pods

    def of(self, namespaces: Sequence[str], selector: LabelSelector | None) -> tuple[Pod, ...]:
        """Return the pods of these namespaces that a selector selects; without one, all."""
        if selector is None:
            return tuple(pod for name in namespaces for pod in self._in.get(name, ()))
        return tuple(
            pod for name in namespaces for pod in self._candidates(name, selector) if selector.matches(pod.labels)
        )

    def _candidates(self, namespace: str, selector: LabelSelector) -> Sequence[Pod]:
        pods = self._in.get(namespace, [])
        if not selector.match_labels or not pods:
            return pods
        by_pair = self._by_pair.get(namespace)
        if by_pair is None:
            by_pair = self._by_pair[namespace] = defaultdict(list)
            for pod in pods:
                for pair in pod.labels:
                    by_pair[pair].append(pod)
        return min((by_pair.get(pair, []) for pair in selector.match_labels), key=len)


def select(tenants: Sequence[EgressTenant], namespaces: Sequence[Namespace], pods: Sequence[Pod]) -> Selection:
    """Return what each tenant selects.

    Host-network and finished pods are never selected: their addresses are the node's, or may be somebody else's by now.
    An address that two source-identity tenants select stays with the tenant that comes first by name; the other is
    told.
    """
    index = NamespaceIndex(namespaces)
    pods_in = PodIndex(pods)
    chosen: dict[str, tuple[str, ...]] = {}
    members: dict[str, tuple[Pod, ...]] = {}
    for tenant in tenants:
        if tenant.namespace_selector is None:
            continue
        names = index.select(tenant.namespace_selector)
        chosen[tenant.name] = names
        members[tenant.name] = pods_in.of(names, tenant.pod_selector)
    selected_twice = _keep_first(tenants, members)
    ranges, listed_twice = grant(tenants)
    return Selection(
        namespaces=MappingProxyType(chosen),
        pods=MappingProxyType(members),
        ranges=ranges,
        findings=(*selected_twice, *listed_twice),
    )


def subject(tenant: EgressTenant) -> tuple[object, ...]:
    """Return the part of a tenant that `select` looks at."""
    listed = tenant.identity.cidrs if isinstance(tenant.identity, SourceIdentity) else None
    if tenant.namespace_selector is None and not listed:
        return ()
    told = tenant.origin if listed is not None else None
    return (tenant.name, tenant.namespace_selector, tenant.pod_selector, listed, told)


class NamespaceIndex:
    """Namespaces by label pair."""

    def __init__(self, namespaces: Sequence[Namespace]) -> None:
        self._all = tuple(namespaces)
        self._by_pair: dict[tuple[str, str], list[Namespace]] = defaultdict(list)
        for namespace in namespaces:
            for pair in namespace.labels:
                self._by_pair[pair].append(namespace)

    def select(self, selector: LabelSelector) -> tuple[str, ...]:
        """Return the names of the selected namespaces, sorted."""
        if selector.match_labels:
            candidates = min((self._by_pair.get(pair, []) for pair in selector.match_labels), key=len)
        else:
            candidates = list(self._all)
        return tuple(sorted(namespace.name for namespace in candidates if selector.matches(namespace.labels)))


def _keep_first(tenants: Sequence[EgressTenant], members: dict[str, tuple[Pod, ...]]) -> tuple[Finding, ...]:
    """Leave each address with the first source-identity tenant by name, and tell the others."""
    owner: dict[Address, str] = {}
    findings: list[Finding] = []
    for tenant in sorted((t for t in tenants if isinstance(t.identity, SourceIdentity)), key=lambda t: t.name):
        lost: dict[str, list[Pod]] = defaultdict(list)
        for pod in members.get(tenant.name, ()):
            for address in pod.addresses:
                holder = owner.setdefault(address, tenant.name)
                if holder != tenant.name:
                    lost[holder].append(pod)
        if lost:
            gone = {pod.name + "/" + pod.namespace for pods in lost.values() for pod in pods}
            members[tenant.name] = tuple(p for p in members[tenant.name] if p.name + "/" + p.namespace not in gone)
        findings += [_overlap(tenant, holder, pods) for holder, pods in lost.items()]
    return tuple(findings)


def _overlap(tenant: EgressTenant, holder: str, pods: list[Pod]) -> Finding:
    shown = ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods[:3]) + (
        f" and {len(pods) - 3} more" if len(pods) > 3 else ""
    )
    return Finding(
        "PodSelectedTwice",
        f"EgressTenant/{tenant.name}",
        f"{shown} are selected by EgressTenant/{holder} too, which comes first by name and keeps them",
        Severity.WARNING,
        "make the selectors disjoint",
        tenant.origin,
    )
