"""Who a question is about: the pod, its node and namespace, and which tenants select it or just miss it."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches

from outgate.model.intent import EgressTenant, ExternalRoute, Intent, Namespace, Node, Pod
from outgate.model.net import Address
from outgate.model.selector import LabelExpression, Labels, LabelSelector, Operator
from outgate.trace.question import PodName

MISSES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who is asked about, as far as the intent knows it.

    `pod` is None for a bare address that no pod has. `node` is the object, None where it is not known; `node_name` is
    what the pod or the subnet says.
    """

    words: str
    pod: Pod | None = None
    addresses: tuple[Address, ...] = ()
    node_name: str = ""
    node: Node | None = None
    namespace: Namespace | None = None

    @property
    def namespace_labels(self) -> Labels:
        """The labels of the namespace; empty when it is not known, and then nothing selects it."""
        return self.namespace.labels if self.namespace else ()


@dataclass(frozen=True, slots=True)
class Miss:
    """A tenant that does not apply to the subject, and the sentence that says why."""

    tenant: str
    text: str


def find_subject(intent: Intent, asked: PodName | Address) -> Subject | None:
    """Return who is meant; None when no pod has the name. An address is always somebody, if only a stranger."""
    if isinstance(asked, PodName):
        named = (pod for pod in intent.pods if pod.name == asked.name and pod.namespace == asked.namespace)
        pod = next(named, None)
        return _pod_subject(intent, pod, f"{asked}") if pod else None
    holder = next((pod for pod in intent.pods if asked in pod.addresses and not pod.finished), None)
    if holder is not None:
        found = _pod_subject(intent, holder, f"{holder.namespace}/{holder.name}")
        return found if holder.host_network else _only(found, asked)
    node = next((node for node in intent.nodes if any(asked in subnet.prefix for subnet in node.subnets)), None)
    return Subject(words=str(asked), addresses=(asked,), node_name=node.name if node else "", node=node)


def nearest_pods(intent: Intent, asked: PodName) -> tuple[str, ...]:
    """Return the names that come nearest to one that does not exist: in its namespace first, else in one like it."""
    namespaces = {pod.namespace for pod in intent.pods}
    within = [asked.namespace] if asked.namespace in namespaces else get_close_matches(asked.namespace, namespaces, 2)
    names = [f"{pod.namespace}/{pod.name}" for pod in intent.pods if pod.namespace in within]
    return tuple(get_close_matches(str(asked), names, 3, 0.5) or sorted(names)[:3])


def routes_of(intent: Intent, subject: Subject) -> tuple[ExternalRoute, ...]:
    """Return the external routes that select the subject's namespace."""
    return tuple(r for r in intent.external_routes if r.namespace_selector.matches(subject.namespace_labels))


def selecting(tenants: tuple[EgressTenant, ...], subject: Subject) -> tuple[EgressTenant, ...]:
    """Return the tenants whose selectors match the subject's namespace and pod."""
    return tuple(tenant for tenant in tenants if tenant.namespace_selector and not _differences(tenant, subject))


def misses(tenants: tuple[EgressTenant, ...], subject: Subject, *, served: bool) -> tuple[Miss, ...]:
    """Return the tenants that come nearest to selecting the subject, each with the label that keeps it out.

    Where a tenant serves the subject already, only those count that want its namespace and not the pod.
    """
    if subject.pod is None or subject.namespace is None:
        return ()
    found: list[tuple[int, float, Miss]] = []
    for tenant in tenants:
        apart = _differences(tenant, subject)
        in_namespace = tenant.namespace_selector is not None and tenant.namespace_selector.matches(
            subject.namespace_labels
        )
        if apart and (in_namespace or not served):
            likeness = SequenceMatcher(None, tenant.name, subject.namespace.name).ratio()
            found.append((len(apart), -likeness, Miss(tenant.name, "; ".join(apart))))
    return tuple(miss for _, _, miss in sorted(found, key=lambda f: (f[0], f[1], f[2].tenant))[:MISSES_SHOWN])


def _differences(tenant: EgressTenant, subject: Subject) -> list[str]:
    """Return what keeps a tenant's selectors from matching; empty when they match, or when it has none."""
    if tenant.namespace_selector is None or subject.pod is None:
        return []
    if subject.namespace is None:
        return [f"the labels of namespace {subject.pod.namespace} are not known"]
    apart = _unmet(tenant.namespace_selector, subject.namespace_labels, f"namespace {subject.namespace.name}")
    if tenant.pod_selector is not None:
        apart += _unmet(tenant.pod_selector, subject.pod.labels, f"pod {subject.pod.name}")
    return apart


def _unmet(selector: LabelSelector, labels: Labels, whose: str) -> list[str]:
    """Return a sentence for each label that a selector asks for and does not find."""
    if selector.empty:
        return ["its selector is empty, which selects nothing"]
    have = dict(labels)
    said = [
        _difference(key, have.get(key), f"wants {value}", whose)
        for key, value in selector.match_labels
        if have.get(key) != value
    ]
    return said + [
        _difference(expression.key, have.get(expression.key), _wish(expression), whose)
        for expression in selector.expressions
        if not expression.matches(have)
    ]


def _difference(key: str, have: str | None, wish: str, whose: str) -> str:
    shown = f"{whose} has no label {key}" if have is None else f"{whose} has {key}={have}"
    return f"{shown}, the selector {wish}"


def _wish(expression: LabelExpression) -> str:
    values = ", ".join(expression.values)
    match expression.operator:
        case Operator.IN:
            return f"wants one of {values}"
        case Operator.NOT_IN:
            return f"wants none of {values}"
        case Operator.EXISTS:
            return "wants it"
        case Operator.DOES_NOT_EXIST:
            return "wants it absent"


def _pod_subject(intent: Intent, pod: Pod, words: str) -> Subject:
    return Subject(
        words=words,
        pod=pod,
        addresses=pod.addresses,
        node_name=pod.node,
        node=next((node for node in intent.nodes if node.name == pod.node), None),
        namespace=next((space for space in intent.namespaces if space.name == pod.namespace), None),
    )


def _only(subject: Subject, address: Address) -> Subject:
    return Subject(
        words=subject.words,
        pod=subject.pod,
        addresses=(address,),
        node_name=subject.node_name,
        node=subject.node,
        namespace=subject.namespace,
    )
