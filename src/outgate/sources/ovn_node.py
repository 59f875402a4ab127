"""What OVN-Kubernetes and a cloud note about a node's NICs, in annotations whose values are JSON.

One that is missing or unreadable says nothing, and is no reason to lose the node: other versions write other things.
Source: go-controller/pkg/util/node_annotations.go of OVN-Kubernetes (2026), and the README of OpenShift's
cloud-network-config-controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from outgate.model.intent import Node
from outgate.model.net import Address, Prefix
from outgate.model.nics import CloudNic, GatewayMode, HostCidr

PRIMARY = "k8s.ovn.org/node-primary-ifaddr"
GATEWAY = "k8s.ovn.org/l3-gateway-config"
CLOUD = "cloud.network.openshift.io/egress-ipconfig"
HOST_CIDRS = "k8s.ovn.org/host-cidrs"
TRANSIT = "k8s.ovn.org/node-transit-switch-port-ifaddr"
ASSIGNABLE = "k8s.ovn.org/egress-assignable"  # a label

_TRANSIT_LENGTH = {4: 16, 6: 64}  # of the network, which OVN-Kubernetes writes too and nobody needs here
_MODES = {mode.value: mode for mode in GatewayMode}
T = TypeVar("T")


class _CloudEntry(Struct, frozen=True, gc=False, omit_defaults=True):
    """One NIC of the cloud's annotation. Its name there is the cloud's own, and says nothing to a host."""

    ifaddr: dict[str, str]
    capacity: dict[str, int] = {}


def noted(annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a Node that its annotations say: `cloud` is what a cloud says, the others OVN-Kubernetes."""
    gateway: dict[str, Any] = _decoded(annotations.get(GATEWAY, "{}"), dict[str, dict[str, Any]], {}).get("default", {})
    hops = gateway.get("next-hops", [gateway["next-hop"]] if gateway.get("next-hop") else [])
    return {
        "primary": _primary(_decoded(annotations.get(PRIMARY, "{}"), dict[str, str], {})),
        "mode": _MODES.get(str(gateway.get("mode"))),
        "next_hops": _next_hops(hops),
        "transit": _transit(_decoded(annotations.get(TRANSIT, "{}"), dict[str, str], {})),
        "host_cidrs": _host_cidrs(_decoded(annotations.get(HOST_CIDRS, "[]"), list[str], [])),
        "cloud": _cloud(_decoded(annotations.get(CLOUD, "[]"), list[_CloudEntry], [])),
    }


def annotations_of(node: Node) -> dict[str, str]:
    """Return the annotations that say the same of a node; what it does not say has none."""
    gateway: dict[str, object] = {"mode": node.mode.value} if node.mode is not None else {}
    gateway |= {"next-hops": [str(one) for one in node.next_hops]} if node.next_hops else {}
    said = {
        PRIMARY: {f"ipv{one.version}": str(one) for one in node.primary},
        GATEWAY: {"default": gateway} if gateway else {},
        TRANSIT: {f"ipv{one.version}": f"{one}/{_TRANSIT_LENGTH[one.version]}" for one in node.transit},
        HOST_CIDRS: [f"{one.address}/{one.network.prefixlen}" for one in node.host_cidrs],
        CLOUD: [_cloud_entry(node.cloud)] if node.cloud is not None else [],
    }
    return {name: msgspec.json.encode(value).decode() for name, value in said.items() if value}


def _decoded(text: str, kind: type[T], otherwise: T) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return otherwise


def _primary(found: Mapping[str, str]) -> tuple[Prefix, ...]:
    try:
        return tuple(ip_interface(found[family]).network for family in ("ipv4", "ipv6") if found.get(family))
    except ValueError:
        return ()


def _transit(found: Mapping[str, str]) -> tuple[Address, ...]:
    try:
        return tuple(ip_interface(found[family]).ip for family in ("ipv4", "ipv6") if found.get(family))
    except ValueError:
        return ()


def _next_hops(found: object) -> tuple[Address, ...]:
    try:
        return tuple(ip_address(str(one)) for one in found) if isinstance(found, list) else ()
    except ValueError:
        return ()


def _host_cidrs(found: list[str]) -> tuple[HostCidr, ...]:
    try:
        interfaces = [ip_interface(one) for one in found]
    except ValueError:
        return ()
    return tuple(HostCidr(one.ip, one.network) for one in interfaces)


def _cloud(found: list[_CloudEntry]) -> CloudNic | None:
    """Return what the first NIC takes: clouds give addresses to no other one."""
    if not found:
        return None
    capacity = found[0].capacity
    return CloudNic(
        networks=_primary(found[0].ifaddr),
        capacity=capacity.get("ip"),
        by_version=tuple((version, capacity[f"ipv{version}"]) for version in (4, 6) if f"ipv{version}" in capacity),
    )


def _cloud_entry(nic: CloudNic) -> _CloudEntry:
    capacity = {f"ipv{version}": number for version, number in nic.by_version}
    capacity |= {"ip": nic.capacity} if nic.capacity is not None else {}
    return _CloudEntry({f"ipv{one.version}": str(one) for one in nic.networks}, capacity)
