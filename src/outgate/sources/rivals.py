"""What else of a cluster has a say about packets that leave: read once, from files or from lists of an API server.

No role needs these kinds; who asks about one packet does. So they stand beside the Intent, and what can not be read of
them is told with the answer instead of preventing it. Shapes: k8s.ovn.org/v1 of OVN-Kubernetes, networking.k8s.io/v1,
cloud.network.openshift.io/v1 of openshift/api.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct, field

from outgate.model import rivals as words
from outgate.model.errors import IntentError
from outgate.model.net import Address
from outgate.model.selector import LabelExpression, Labels, LabelSelector
from outgate.model.why import Origin
from outgate.sources.cluster import Selector
from outgate.sources.loose import files_in


class Meta(Struct, frozen=True):
    """`metadata`."""

    name: str
    namespace: str = ""


class _Ports(Struct, frozen=True, rename="camel"):
    protocol: str = ""
    port: int | str = 0  # a name stands for a port of a pod inside
    end_port: int = 0


class _FirewallTo(Struct, frozen=True, rename="camel"):
    cidr_selector: str = ""
    dns_name: str = ""


class _FirewallRule(Struct, frozen=True):
    type: str
    to: _FirewallTo = _FirewallTo()
    ports: list[_Ports] = []


class _FirewallSpec(Struct, frozen=True):
    egress: list[_FirewallRule] = []


class _Block(Struct, frozen=True):
    cidr: str
    excepts: list[str] = field(name="except", default_factory=list)


class _Peer(Struct, frozen=True, rename="camel"):
    ip_block: _Block | None = None


class _PolicyRule(Struct, frozen=True):
    to: list[_Peer] = []
    ports: list[_Ports] = []


class _PolicySpec(Struct, frozen=True, rename="camel"):
    pod_selector: Selector = Selector()
    policy_types: list[str] | None = None
    egress: list[_PolicyRule] | None = None


class _EgressServiceSpec(Struct, frozen=True):
    source_ip_by: str = field(name="sourceIPBy", default="")


class _Host(Struct, frozen=True):
    host: str = ""


class _ServiceSpec(Struct, frozen=True):
    selector: dict[str, str] = {}


class _Ingress(Struct, frozen=True):
    ip: str = ""


class _LoadBalancer(Struct, frozen=True):
    ingress: list[_Ingress] = []


class _ServiceStatus(Struct, frozen=True, rename="camel"):
    load_balancer: _LoadBalancer = _LoadBalancer()


class _QosRule(Struct, frozen=True, rename="camel"):
    dscp: int
    dst_cidr: str = field(name="dstCIDR", default="")
    pod_selector: Selector = Selector()


class _QosSpec(Struct, frozen=True):
    egress: list[_QosRule] = []


class _Network(Struct, frozen=True, rename="camel"):
    network_selection_type: str = ""


class _AdvertisementSpec(Struct, frozen=True, rename="camel"):
    advertisements: list[str] = []
    network_selectors: list[_Network] = []


class _CloudSpec(Struct, frozen=True):
    node: str = ""


class _Condition(Struct, frozen=True):
    type: str
    status: str
    message: str = ""


class _CloudStatus(Struct, frozen=True):
    node: str = ""
    conditions: list[_Condition] = []


class EgressFirewall(Struct, frozen=True):
    """k8s.ovn.org/v1 EgressFirewall."""

    metadata: Meta
    spec: _FirewallSpec = _FirewallSpec()


class NetworkPolicy(Struct, frozen=True):
    """networking.k8s.io/v1 NetworkPolicy."""

    metadata: Meta
    spec: _PolicySpec = _PolicySpec()


class EgressService(Struct, frozen=True):
    """k8s.ovn.org/v1 EgressService."""

    metadata: Meta
    spec: _EgressServiceSpec = _EgressServiceSpec()
    status: _Host = _Host()


class Service(Struct, frozen=True):
    """v1 Service, for the pods behind an EgressService."""

    metadata: Meta
    spec: _ServiceSpec = _ServiceSpec()
    status: _ServiceStatus = _ServiceStatus()


class EgressQoS(Struct, frozen=True):
    """k8s.ovn.org/v1 EgressQoS."""

    metadata: Meta
    spec: _QosSpec = _QosSpec()


class RouteAdvertisements(Struct, frozen=True):
    """k8s.ovn.org/v1 RouteAdvertisements."""

    metadata: Meta
    spec: _AdvertisementSpec = _AdvertisementSpec()


class CloudPrivateIPConfig(Struct, frozen=True):
    """cloud.network.openshift.io/v1 CloudPrivateIPConfig."""

    metadata: Meta
    spec: _CloudSpec = _CloudSpec()
    status: _CloudStatus = _CloudStatus()


Shape = (
    EgressFirewall | NetworkPolicy | EgressService | Service | EgressQoS | RouteAdvertisements | CloudPrivateIPConfig
)
SHAPES: Mapping[str, tuple[str, str, type[Shape]]] = {
    "EgressFirewall": ("k8s.ovn.org", "egressfirewalls", EgressFirewall),
    "NetworkPolicy": ("networking.k8s.io", "networkpolicies", NetworkPolicy),
    "EgressService": ("k8s.ovn.org", "egressservices", EgressService),
    "Service": ("", "services", Service),
    "EgressQoS": ("k8s.ovn.org", "egressqoses", EgressQoS),
    "RouteAdvertisements": ("k8s.ovn.org", "routeadvertisements", RouteAdvertisements),
    "CloudPrivateIPConfig": ("cloud.network.openshift.io", "cloudprivateipconfigs", CloudPrivateIPConfig),
}  # by kind: API group (all of version v1), plural, shape


_NAMED = re.compile(rf"kind[\"']?\s*:\s*[\"']?(?:{'|'.join(SHAPES)})(?:List)?\b".encode())


class _Head(Struct, frozen=True):
    kind: str = ""


class _Listing(Struct, frozen=True):
    kind: str = ""
    items: list[msgspec.Raw] | None = None


def read_rivals(paths: Sequence[Path]) -> words.Rivals:
    """Return what files, and the manifests of directories, hold of these kinds; other kinds are passed over.

    Raises:
        IntentError: a file can not be read.
    """
    found: list[Shape] = []
    unfit: list[tuple[str, str]] = []
    for file in files_in(paths):
        try:
            content = file.read_bytes()
            if _NAMED.search(content):  # most files hold pods, and are large
                for kind, given in _of_json(content) if file.suffix == ".json" else _of_yaml(content):
                    try:
                        found.append(msgspec.convert(given, SHAPES[kind][2]))
                    except msgspec.ValidationError as error:
                        unfit.append((f"{kind} in {file.name}", str(error)))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.DecodeError) as error:
            raise IntentError(f"can not be read: {error}", Origin(file=str(file))) from error
    return rivals_of(found, unfit)


def rivals_of(found: Iterable[Shape], unknown: Sequence[tuple[str, str]] = ()) -> words.Rivals:
    """Return these objects in the words of the plan; one that says an address or a range that is none is unknown."""
    services: dict[tuple[str, str], Service] = {}
    of: dict[type[Shape], list[Any]] = defaultdict(list)
    for one in found:
        if isinstance(one, Service):
            services[one.metadata.namespace, one.metadata.name] = one
        of[type(one)].append(one)
    left = [*unknown]

    def every(kind: type[Shape], make: Callable[[Any], Any]) -> tuple[Any, ...]:
        made = []
        for one in of[kind]:
            try:
                made.append(make(one))
            except ValueError as error:
                name = "/".join(filter(None, (kind.__name__, one.metadata.namespace, one.metadata.name)))
                left.append((name, str(error)))
        return tuple(each for each in made if each is not None)

    return words.Rivals(
        firewalls=every(EgressFirewall, _firewall),
        policies=every(NetworkPolicy, _policy),
        services=every(EgressService, lambda one: _service(one, services)),
        qos=every(EgressQoS, _qos),
        advertisements=every(RouteAdvertisements, _advertisement),
        cloud=every(CloudPrivateIPConfig, _cloud),
        unknown=tuple(left),
    )


def _of_json(content: bytes) -> Iterator[tuple[str, Any]]:
    listing = msgspec.json.decode(content, type=_Listing)
    whole = listing.kind.removesuffix("List")
    for raw in listing.items if listing.items is not None else [msgspec.Raw(content)]:
        kind = msgspec.json.decode(raw, type=_Head).kind or whole
        if kind in SHAPES:
            yield kind, msgspec.json.decode(raw)


def _of_yaml(content: bytes) -> Iterator[tuple[str, Any]]:
    for document in yaml.load_all(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        items = document.get("items") if isinstance(document, dict) else None
        whole = str(document.get("kind", "")).removesuffix("List") if isinstance(document, dict) else ""
        for one in items if isinstance(items, list) else [document]:
            kind = one.get("kind", whole) if isinstance(one, dict) else ""
            if kind in SHAPES:
                yield kind, one


def _firewall(given: EgressFirewall) -> words.EgressFirewall:
    return words.EgressFirewall(
        namespace=given.metadata.namespace,
        name=given.metadata.name,
        rules=tuple(
            words.FirewallRule(
                allows=one.type == "Allow",
                cidr=ip_network(one.to.cidr_selector, strict=False) if one.to.cidr_selector else None,
                name=one.to.dns_name,
                ports=_ports(one.ports),
            )
            for one in given.spec.egress
        ),
    )


def _policy(given: NetworkPolicy) -> words.NetworkPolicy | None:
    """Return a policy that limits egress: by its types, or where it names none, by its rules."""
    types = given.spec.policy_types
    if not ("Egress" in types if types is not None else given.spec.egress is not None):
        return None
    return words.NetworkPolicy(
        namespace=given.metadata.namespace,
        name=given.metadata.name,
        pods=_selector(given.spec.pod_selector),
        rules=tuple(
            words.PolicyRule(
                anywhere=not one.to,
                blocks=tuple(
                    words.Block(
                        ip_network(peer.ip_block.cidr, strict=False),
                        tuple(ip_network(each, strict=False) for each in peer.ip_block.excepts),
                    )
                    for peer in one.to
                    if peer.ip_block is not None
                ),
                ports=_ports(one.ports),
            )
            for one in given.spec.egress or ()
            if not one.ports or _ports(one.ports)  # a rule for named ports alone says nothing about outside
        ),
    )


def _ports(given: Sequence[_Ports]) -> tuple[words.Ports, ...]:
    """Return ports; one with a name is a port of pods, which nobody outside has."""
    return tuple(
        words.Ports((one.protocol or "TCP").lower(), one.port, one.end_port or one.port)
        for one in given
        if isinstance(one.port, int)
    )


def _service(given: EgressService, services: Mapping[tuple[str, str], Service]) -> words.EgressService:
    service, host = services.get((given.metadata.namespace, given.metadata.name)), given.status.host
    return words.EgressService(
        namespace=given.metadata.namespace,
        name=given.metadata.name,
        by_address=given.spec.source_ip_by != "Network",
        pods=_pairs(service.spec.selector) if service is not None else (),
        addresses=tuple(ip_address(one.ip) for one in service.status.load_balancer.ingress if one.ip)
        if service is not None
        else (),
        host="" if host == "ALL" else host,
    )


def _qos(given: EgressQoS) -> words.EgressQos:
    return words.EgressQos(
        namespace=given.metadata.namespace,
        name=given.metadata.name,
        rules=tuple(
            words.QosRule(
                dscp=one.dscp,
                cidr=ip_network(one.dst_cidr, strict=False) if one.dst_cidr else None,
                pods=_selector(one.pod_selector),
            )
            for one in given.spec.egress
        ),
    )


def _advertisement(given: RouteAdvertisements) -> words.Advertisement | None:
    """Return one that advertises pod subnets of the default network; older ones do not name networks so."""
    kinds = [one.network_selection_type for one in given.spec.network_selectors]
    if "PodNetwork" in given.spec.advertisements and (not kinds or "DefaultNetwork" in kinds):
        return words.Advertisement(name=given.metadata.name)
    return None


def _cloud(given: CloudPrivateIPConfig) -> words.CloudAddress:
    assigned = next((one for one in given.status.conditions if one.type == "Assigned"), None)
    return words.CloudAddress(
        address=_cloud_name(given.metadata.name),
        wanted=given.spec.node,
        node=given.status.node,
        assigned={"True": True, "False": False}.get(assigned.status) if assigned is not None else None,
        message=assigned.message if assigned is not None else "",
    )


def _cloud_name(name: str) -> Address:
    """Return the address that the object's name says: of IPv6 all groups, with dots between."""
    parts = name.split(".")
    return IPv6Address(":".join(parts)) if len(parts) == 8 else IPv4Address(name)


def _selector(given: Selector) -> LabelSelector | None:
    """Return a selector; None where an empty one selects all."""
    expressions = tuple(
        LabelExpression(one.key, one.operator, tuple(one.values or ())) for one in given.match_expressions or ()
    )
    selector = LabelSelector(_pairs(given.match_labels or {}), expressions)
    return None if selector.empty else selector


def _pairs(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
