"""From the wire's structs of cluster objects to the model.

Raises Wrong with the field path in front of what the text is: the caller knows the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6, inet_pton
from typing import assert_never

import msgspec

from outgate.model import intent
from outgate.model.intent import MADE_BY, NodeSubnet
from outgate.model.net import Address, Prefix
from outgate.model.routing import DEFAULT_ROUTING, Routing, Stance
from outgate.model.selector import EVERYTHING, LabelExpression, Labels, LabelSelector, Operator
from outgate.model.why import Origin
from outgate.sources import cluster, ovn_node, values
from outgate.sources.json_reader import read_json
from outgate.sources.node import Fault
from outgate.sources.routing_fields import ROUTING
from outgate.sources.validate import Problems, read_fields
from outgate.sources.words import Wrong, quote

NAME_LABEL = "kubernetes.io/metadata.name"  # set by every API server since 1.21
NODE_SUBNETS = "k8s.ovn.org/node-subnets"

_NAME = re.compile(r"[a-z0-9][-a-z0-9.]{0,252}")
_EVERYWHERE = LabelSelector(expressions=(LabelExpression(NAME_LABEL, Operator.EXISTS),))
_BEARING_THE_LABEL = LabelSelector(expressions=(LabelExpression(ovn_node.ASSIGNABLE, Operator.EXISTS),))

_STANCES = {stance.value: stance for stance in Stance}

ModelObject = (
    intent.EgressGateway
    | intent.EgressTenant
    | intent.EgressPool
    | intent.EgressClaim
    | intent.EgressRouting
    | intent.Node
    | intent.Namespace
    | intent.Pod
    | intent.ClusterNetwork
    | intent.ExternalRoute
    | intent.EgressIP
    | intent.EgressNode
)


# Pods come by the hundred thousand. The __init__ of a frozen dataclass sets each field by its name, through
# object.__setattr__; its slots, called directly, take half the time (1.2 us of 5 for each pod and origin).
_new = object.__new__
_put_file, _put_line, _put_column, _put_kind, _put_its_namespace, _put_its_name, _put_field, _put_version = (
    getattr(Origin, one.name).__set__ for one in fields(Origin)
)
_put_namespace, _put_name, _put_node, _put_addresses, _put_labels, _put_host_network, _put_finished, _put_origin = (
    getattr(intent.Pod, one.name).__set__ for one in fields(intent.Pod)
)


class Misfit(Wrong):
    """A field of a cluster object does not have the value it needs. `path` names it."""

    def __init__(self, path: str, text: str, fix: str = "") -> None:
        super().__init__(text, fix or "the API server would not have taken this; get the object anew")
        self.path = path


class Converter:
    """Turns structs into model objects of one file; texts that repeat (namespaces, nodes, labels) are kept once."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._names: dict[str, str] = {"": ""}
        self._labels: dict[tuple[tuple[str, str], ...], Labels] = {(): ()}

    def convert(self, given: cluster.ClusterObject, line: int = 0, column: int = 0) -> ModelObject:
        """Return the model's value of a cluster object.

        Raises:
            Misfit: a field has a value that it can not have.
        """
        match given:
            case cluster.Pod():
                return self._pod(given, line, column)
            case cluster.Node():
                return self._node(given, line, column)
            case cluster.Namespace():
                name = self._name(given.metadata.name, "metadata.name")
                labels = {NAME_LABEL: name} | (given.metadata.labels or {})
                origin = Origin(file=self._file, line=line, column=column, kind="Namespace", name=name)
                return intent.Namespace(name=name, labels=self._pairs(labels), origin=origin)
            case cluster.Network():
                return self._network(given, line, column)
            case cluster.ExternalRoute() | cluster.EgressIP():
                return self._selecting(given, line, column)
            case cluster.EgressNode():
                return self._egress_node(given, line, column)
            case _:
                assert_never(given)

    def _name(self, name: str | None, path: str) -> str:
        """Check a name at its first sight, and return the copy that is kept."""
        kept = self._names.get(name or "")
        if kept is None:
            assert name is not None, "the empty name is known from the start"
            if not _NAME.fullmatch(name):
                raise Misfit(path, f"{quote(name)} is no name that Kubernetes gives")
            kept = self._names[name] = name
        return kept

    def _pairs(self, labels: dict[str, str] | None) -> Labels:
        given = tuple(labels.items()) if labels else ()
        kept = self._labels.get(given)
        if kept is None:
            kept = self._labels[given] = tuple(sorted(given))
        return kept

    def _pod(self, given: cluster.Pod, line: int, column: int) -> intent.Pod:
        meta, spec, status = given.metadata, given.spec, given.status
        name = meta.name
        if not _NAME.fullmatch(name):
            raise Misfit("metadata.name", f"{quote(name)} is no name that Kubernetes gives")
        namespace = self._name(meta.namespace, "metadata.namespace")
        if not namespace:
            raise Misfit("metadata.namespace", "the pod has no namespace")
        origin: Origin = _new(Origin)
        _put_file(origin, self._file)
        _put_line(origin, line)
        _put_column(origin, column)
        _put_kind(origin, "Pod")
        _put_its_namespace(origin, namespace)
        _put_its_name(origin, name)
        _put_field(origin, "")
        _put_version(origin, "")
        pod: intent.Pod = _new(intent.Pod)
        _put_namespace(pod, namespace)
        _put_name(pod, name)
        _put_node(pod, self._name(spec.node_name, "spec.nodeName") if spec else "")
        _put_addresses(pod, _pod_addresses(status) if status else ())
        _put_labels(pod, self._pairs(meta.labels))
        _put_host_network(pod, bool(spec and spec.host_network))
        _put_finished(pod, status is not None and status.phase in ("Succeeded", "Failed"))
        _put_origin(pod, origin)
        return pod

    def _node(self, given: cluster.Node, line: int, column: int) -> intent.Node:
        name = self._name(given.metadata.name, "metadata.name")
        status = given.status or cluster.NodeStatus()
        return intent.Node(
            name=name,
            subnets=_node_subnets(given),
            internal_ips=tuple(
                _address(one.address, f"status.addresses[{number}].address")
                for number, one in enumerate(status.addresses or ())
                if one.type == "InternalIP"
            ),
            **ovn_node.noted(given.metadata.annotations or {}),
            labels=self._pairs(given.metadata.labels),
            assignable=ovn_node.ASSIGNABLE in (given.metadata.labels or {}),
            ready=all(one.status == "True" for one in status.conditions or () if one.type == "Ready"),
            origin=Origin(file=self._file, line=line, column=column, kind="Node", name=name),
        )

    def _network(self, given: cluster.Network, line: int, column: int) -> intent.ClusterNetwork:
        """Take what is (status) before what was asked for (spec): an operator fills the status when it is done."""
        name = self._name(given.metadata.name, "metadata.name")
        parts = [("status", given.status), ("spec", given.spec)]
        path, inside = next(((path, part) for path, part in parts if part and part.cluster_network), ("spec", None))
        services = next((part.service_network for _, part in parts if part and part.service_network), [])
        if inside is None:
            raise Misfit("spec.clusterNetwork", "the Network names no cluster network, in status or in spec")
        networks = [one.cidr for one in inside.cluster_network or ()]
        return intent.ClusterNetwork(
            cluster_networks=_prefixes(networks, f"{path}.clusterNetwork"),
            service_networks=_prefixes(services, f"{path}.serviceNetwork"),
            origin=Origin(file=self._file, line=line, column=column, kind="Network", name=name),
        )

    def _selecting(
        self, given: cluster.ExternalRoute | cluster.EgressIP, line: int, column: int
    ) -> intent.ExternalRoute | intent.EgressIP:
        name = self._name(given.metadata.name, "metadata.name")
        if isinstance(given, cluster.EgressIP):
            addresses = _addresses(given.spec.egress_ips, "spec.egressIPs")
            origin = Origin(file=self._file, line=line, column=column, kind="EgressIP", name=name)
            selector = self._selector(given.spec.namespace_selector)
            pods, nodes = given.spec.pod_selector, given.spec.egress_node_selector
            items = given.status.items if given.status is not None else None
            return intent.EgressIP(
                name=name,
                egress_ips=addresses,
                namespace_selector=selector,
                pod_selector=self._selector(pods) if pods is not None and _is_bound(pods) else None,
                node_selector=self._of_nodes(nodes) if nodes is not None else None,
                assigned=tuple(
                    (one.node, _address(one.egress_ip, f"status.items[{number}].egressIP"))
                    for number, one in enumerate(items or ())
                ),
                created=given.metadata.creation_timestamp or "",
                origin=origin,
            )
        kind = "AdminPolicyBasedExternalRoute"
        hops = given.spec.next_hops
        return intent.ExternalRoute(
            name=name,
            namespace_selector=self._selector(given.spec.origin.namespace_selector),
            is_ours=(given.metadata.labels or {}).get(MADE_BY[0]) == MADE_BY[1],
            next_hops=_addresses([hop.ip for hop in (hops.static if hops else None) or ()], "spec.nextHops.static"),
            origin=Origin(file=self._file, line=line, column=column, kind=kind, name=name),
        )

    def _egress_node(self, given: cluster.EgressNode, line: int, column: int) -> intent.EgressNode:
        name, status = self._name(given.metadata.name, "metadata.name"), given.status or cluster.EgressNodeStatus()
        return intent.EgressNode(
            name=name,
            assignments=tuple(
                intent.Assignment(
                    egress_ip=one.name,
                    address=_address(one.address, f"status.egressIPs[{number}].address"),
                    pods=tuple(
                        intent.AssignedPod(
                            namespace=pod.namespace,
                            name=pod.name,
                            addresses=_addresses(pod.addresses, f"status.egressIPs[{number}].pods"),
                            contested=pod.contested,
                        )
                        for pod in one.pods or ()
                    ),
                    is_new=one.new,
                    routing=_routing(bytes(one.routing), f"status.egressIPs[{number}].routing"),
                )
                for number, one in enumerate(status.egress_ips or ())
            ),
            stance=_STANCES.get(status.stance, Stance.ASSIST),
            departures=tuple(
                intent.Departure(
                    egress_ip=one.egress_ip,
                    namespace=one.namespace,
                    name=one.name,
                    addresses=_addresses(one.addresses, f"status.departures[{number}].addresses"),
                    nodes=tuple(one.nodes or ()),
                    drops=one.drops,
                )
                for number, one in enumerate(status.departures or ())
            ),
            conditions=tuple(
                intent.Condition(
                    type=one.type,
                    holds={"True": True, "False": False}.get(one.status),
                    reason=one.reason,
                    message=one.message,
                    since=one.last_transition_time,
                )
                for one in status.conditions or ()
            ),
            cut=_prefixes(status.cut or (), "status.cut"),
            taken=tuple((_address(one.address, "status.taken"), one.mac) for one in status.taken or ()),
            programmed=status.programmed,
            host=status.host or "",
            origin=Origin(file=self._file, line=line, column=column, kind="EgressNode", name=name),
        )

    def _selector(self, given: cluster.Selector) -> LabelSelector:
        """Return the selector; an empty one means everything to OVN-Kubernetes, and nothing to the model."""
        selector = self._as_written(given)
        return _EVERYWHERE if selector.empty else selector

    def _of_nodes(self, given: cluster.Selector) -> LabelSelector | None:
        """Return the selector of nodes; what the server fills in where nobody wrote one is none (OKEP-6800)."""
        selector = self._as_written(given)
        if selector == _BEARING_THE_LABEL:
            return None
        return EVERYTHING if selector.empty else selector

    def _as_written(self, given: cluster.Selector) -> LabelSelector:
        expressions = tuple(
            LabelExpression(one.key, one.operator, tuple(one.values or ())) for one in given.match_expressions or ()
        )
        return LabelSelector(self._pairs(given.match_labels), expressions)


@lru_cache(maxsize=256)
def _routing(text: bytes, path: str) -> Routing:
    """Return the settings in an assignment; what it does not say is as in OVN-Kubernetes."""
    if not text:
        return DEFAULT_ROUTING
    node = read_json(text)
    problems = Problems()
    values = None if isinstance(node, Fault) else read_fields(ROUTING.spec, node, path, problems)
    if values is None:
        raise Misfit(path, problems.found[0].text if problems.found else "is no JSON")
    return Routing(**values)


def _pod_addresses(status: cluster.PodStatus) -> tuple[Address, ...]:
    if status.pod_ips:
        return tuple([_address(one.ip, "status.podIPs") for one in status.pod_ips if one.ip])
    return (_address(status.pod_ip, "status.podIP"),) if status.pod_ip else ()


def _address(text: str, path: str) -> Address:
    """Return an address. inet_pton knows no leading zeros and no zones, and is four times as fast as parsing here."""
    try:
        if ":" in text:
            return IPv6Address(int.from_bytes(inet_pton(AF_INET6, text)))
        return IPv4Address(int.from_bytes(inet_pton(AF_INET, text)))
    except (OSError, ValueError):
        raise Misfit(path, f"{quote(text)} is no IP address") from None


def _addresses(texts: Iterable[str], path: str) -> tuple[Address, ...]:
    return tuple(_address(text, path) for text in texts)


def _prefixes(texts: Iterable[str], path: str) -> tuple[Prefix, ...]:
    return tuple(_prefix(text, path) for text in texts)


def _prefix(text: str, path: str) -> Prefix:
    try:
        return values.parse_prefix(text)
    except Wrong as error:
        raise Misfit(path, f"{quote(text)} {error.text}") from None


def _is_bound(selector: cluster.Selector) -> bool:
    return bool(selector.match_labels or selector.match_expressions)


def _node_subnets(given: cluster.Node) -> tuple[NodeSubnet, ...]:
    """Return the pod subnets: the annotation first, because OVN-Kubernetes allocates there and ignores spec."""
    annotated = (given.metadata.annotations or {}).get(NODE_SUBNETS)
    if annotated is not None:
        return _annotated_subnets(annotated)
    spec = given.spec or cluster.NodeSpec()
    cidrs = spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else [])
    return tuple(NodeSubnet("default", prefix, "spec.podCIDRs") for prefix in _prefixes(cidrs, "spec.podCIDRs"))


def _annotated_subnets(text: str) -> tuple[NodeSubnet, ...]:
    """Parse `{"default": "10.132.0.0/24"}` (old) or `{"default": ["10.132.0.0/24", "fd01::/64"], "blue": [...]}`."""
    path = f"metadata.annotations[{NODE_SUBNETS}]"
    try:
        networks = msgspec.json.decode(text, type=dict[str, str | list[str]])
    except (msgspec.DecodeError, RecursionError):
        raise Misfit(path, f'expected JSON as in {{"default": ["10.132.0.0/24"]}}; found {quote(text)}') from None
    return tuple(
        NodeSubnet(network, _prefix(cidr, path), NODE_SUBNETS)
        for network, cidrs in networks.items()
        for cidr in ([cidrs] if isinstance(cidrs, str) else cidrs)
    )
