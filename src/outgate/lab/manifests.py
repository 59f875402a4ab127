"""The laboratory as a cluster would describe it, and the intent of its picture, as files of one manifest each.

    with Laboratory() as lab:
        written = Manifests(directory)
        written.put_all(lab)                                          # the cluster, EgressGateway gw1, its tenants
        written.put(egress_tenant(lab.tenants[0], onChange="flush"))  # replaced in one step
        written.drop("Node", "n2")

A file appears under its name only when it is whole, so a directory that is watched never shows a torn one.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from outgate.lab.addresses import CLUSTER, CLUSTER_HOST_PREFIX, INNER_LINK, SERVICES, UPLINK, TenantAddresses
from outgate.lab.node import Node, Pod
from outgate.lab.topology import Laboratory

Manifest: TypeAlias = Mapping[str, object]

GATEWAY = "gw1"  # name of the EgressGateway
APP_LABELS = {"app": "business-app"}  # of every pod

_OURS = "outgate.io/v1alpha1"
_NAME_LABEL = "kubernetes.io/metadata.name"
_PLAIN = re.compile(
    r"[A-Za-z][A-Za-z0-9_./-]*"
)  # strings that YAML 1.1 and 1.2 read as strings without quotes, but for:
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})


class Picture(ABC):
    """The picture as objects, wherever they are put."""

    @abstractmethod
    def put(self, manifest: Manifest) -> object:
        """Put an object in place, replacing the one of the same kind and name."""

    @abstractmethod
    def drop(self, kind: str, name: str, namespace: str = "") -> None:
        """Remove an object."""

    def put_all(self, lab: Laboratory) -> None:
        """Write the cluster, its gateway, and a tenant for each namespace."""
        self.put_cluster(lab)
        self.put(egress_gateway())
        for tenant in lab.tenants:
            self.put(egress_tenant(tenant))

    def put_cluster(self, lab: Laboratory) -> None:
        """Write what a cluster holds by itself: network, namespaces with their external routes, nodes, pods."""
        self.put(network())
        for tenant in lab.tenants:
            self.put(namespace(tenant.namespace))
            self.put(external_route(tenant))
        for node_ in lab.nodes.values():
            self.put_node(node_)

    def put_node(self, joined: Node) -> None:
        """Write a node and its pods."""
        self.put(node(joined))
        for pod_ in joined.pods:
            self.put(pod(pod_))

    def drop_node(self, left: Node) -> None:
        """Remove a node and the pods that were on it."""
        for pod_ in left.pods:
            self.drop("Pod", pod_.name, pod_.namespace)
        self.drop("Node", left.name)


class Manifests(Picture):
    """A directory of manifests: `KIND-NAME.yaml`, or `KIND-NAMESPACE-NAME.yaml`, in lower case."""

    def __init__(self, directory: Path) -> None:
        """Use a directory, made if it is missing."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def put(self, manifest: Manifest) -> Path:
        """Write a manifest, replacing the one of the same kind and name, and return its file."""
        file = self.file(*identity(manifest))
        torn = file.with_name(f".{file.name}.new")  # hidden, and not called .yaml: no reader takes it for a manifest
        torn.write_text("".join(f"{line}\n" for line in _yaml(manifest)), encoding="utf-8")
        torn.rename(file)
        return file

    def drop(self, kind: str, name: str, namespace: str = "") -> None:
        """Remove a manifest.

        Raises:
            FileNotFoundError: there is none.
        """
        self.file(kind, name, namespace).unlink()

    def file(self, kind: str, name: str, namespace: str = "") -> Path:
        """Return where the manifest of an object is, or would be."""
        parts = (kind.lower(), namespace, name)
        return self.directory / ("-".join(part for part in parts if part) + ".yaml")


def node(of: Node, *, ready: bool = True) -> Manifest:
    """Return the Node as OVN-Kubernetes annotates it: it allocates pod subnets in the annotation, not in the spec."""
    subnets = [str(of.addresses.pods4), str(of.addresses.pods6)]
    reason = "KubeletReady" if ready else "NodeStatusUnknown"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": of.name,
            "labels": {"kubernetes.io/hostname": of.name, "node-role.kubernetes.io/worker": ""},
            "annotations": {"k8s.ovn.org/node-subnets": json.dumps({"default": subnets})},
        },
        "spec": {"podCIDR": subnets[0], "podCIDRs": subnets},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": str(of.v4)},
                {"type": "InternalIP", "address": str(of.v6)},
                {"type": "Hostname", "address": of.name},
            ],
            "conditions": [{"type": "Ready", "status": str(ready), "reason": reason}],
        },
    }


def pod(of: Pod) -> Manifest:
    """Return the running Pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": of.name, "namespace": of.namespace, "labels": APP_LABELS},
        "spec": {"nodeName": of.node, "containers": [{"name": "app", "image": "example.org/app:1"}]},
        "status": {"phase": "Running", "podIP": str(of.v4), "podIPs": [{"ip": str(of.v4)}, {"ip": str(of.v6)}]},
    }


def namespace(name: str, **labels: str) -> Manifest:
    """Return the Namespace with the label that every cluster gives it, and these."""
    metadata = {"name": name, "labels": {_NAME_LABEL: name, **labels}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def network() -> Manifest:
    """Return the cluster's Network object of OpenShift."""
    pairs = zip(CLUSTER, CLUSTER_HOST_PREFIX, strict=True)
    facts = {
        "clusterNetwork": [{"cidr": str(prefix), "hostPrefix": length} for prefix, length in pairs],
        "serviceNetwork": [str(prefix) for prefix in SERVICES],
        "networkType": "OVNKubernetes",
    }
    metadata = {"name": "cluster"}
    return {
        "apiVersion": "config.openshift.io/v1",
        "kind": "Network",
        "metadata": metadata,
        "spec": facts,
        "status": facts,
    }


def external_route(tenant: TenantAddresses) -> Manifest:
    """Return the AdminPolicyBasedExternalRoute that sends a tenant's pods to its next hops."""
    return {
        "apiVersion": "k8s.ovn.org/v1",
        "kind": "AdminPolicyBasedExternalRoute",
        "metadata": {"name": f"{tenant.namespace}-route"},
        "spec": {
            "from": {"namespaceSelector": {"matchLabels": {_NAME_LABEL: tenant.namespace}}},
            "nextHops": {"static": [{"ip": str(tenant.next_hop4)}, {"ip": str(tenant.next_hop6)}]},
        },
    }


def egress_gateway(name: str = GATEWAY, **changes: object) -> Manifest:
    """Return the EgressGateway of the gateway machine; `changes` are fields of its spec, None omits one."""
    spec = {"inner": [{"interface": INNER_LINK}], "uplinks": [UPLINK], **changes}
    return _ours("EgressGateway", name, spec)


def egress_tenant(tenant: TenantAddresses, name: str | None = None, **changes: object) -> Manifest:
    """Return the EgressTenant of a namespace, told by next hop; `changes` are fields of its spec, None omits one."""
    spec = {
        "gateway": GATEWAY,
        "namespaceSelector": {"matchLabels": {_NAME_LABEL: tenant.namespace}},
        "identity": {"nextHop": {"addresses": [str(tenant.next_hop4), str(tenant.next_hop6)]}},
        "egressIPs": [str(tenant.egress4), str(tenant.egress6)],
        **changes,
    }
    return _ours("EgressTenant", name or tenant.namespace, spec)


def egress_pool(name: str, *ranges: str, **changes: object) -> Manifest:
    """Return an EgressPool; `changes` are fields of its spec, None omits one."""
    return _ours("EgressPool", name, {"ranges": list(ranges), **changes})


def _ours(kind: str, name: str, spec: Mapping[str, object]) -> Manifest:
    given = {field: value for field, value in spec.items() if value is not None}
    return {"apiVersion": _OURS, "kind": kind, "metadata": {"name": name}, "spec": given}


def identity(manifest: Manifest) -> tuple[str, str, str]:
    """Return kind, name and namespace."""
    metadata = manifest["metadata"]
    assert isinstance(metadata, Mapping)
    return str(manifest["kind"]), str(metadata["name"]), str(metadata.get("namespace", ""))


def _yaml(value: object) -> Iterator[str]:
    """Yield the lines of a value in block style, a subset of YAML that needs no library to write."""
    match value:
        case Mapping() if value:
            for key, inner in value.items():
                yield from _entry(f"{_scalar(key)}:", inner)
        case list() | tuple() if value:
            for item in value:
                first, *rest = _yaml(item)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
        case _:
            yield _scalar(value)


def _entry(key: str, value: object) -> Iterator[str]:
    """Yield the lines of one entry of a map: the value beside the key, or beneath it when it has entries itself."""
    if isinstance(value, Mapping | list | tuple) and value:
        yield key
        yield from (f"  {line}" for line in _yaml(value))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: object) -> str:
    """Return a value on one line. A JSON value is a YAML value, so JSON quotes whatever might be misread."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
