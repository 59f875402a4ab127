"""The objects of the OVN laboratory's cluster, as `kubectl get -o json` would show them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from outgate.lab.ovn.addresses import CLUSTER, ROUTER, SERVICES, Address
from outgate.lab.ovn.topology import NAMESPACE, OvnLaboratory, OvnNode

Object: TypeAlias = dict[str, Any]

CHOSEN = "egress"  # label of the pods that an EgressIP selects


def cluster(lab: OvnLaboratory, *, local: bool, chosen: Sequence[str]) -> list[Object]:
    """Return the cluster's network, nodes in a gateway mode, namespace and pods; `chosen` pods bear the label."""
    network = {
        "clusterNetwork": [{"cidr": str(one), "hostPrefix": 24 if one.version == 4 else 64} for one in CLUSTER],
        "serviceNetwork": [str(one) for one in SERVICES],
    }
    return [
        _object("config.openshift.io/v1", "Network", {"name": "cluster"}, status=network),
        _object("v1", "Namespace", {"name": NAMESPACE, "labels": {"kubernetes.io/metadata.name": NAMESPACE}}),
        *(_node(node, local=local) for node in lab.nodes.values()),
        *(
            _object(
                "v1",
                "Pod",
                {"name": pod.name, "namespace": NAMESPACE, "labels": {CHOSEN: "yes"} if pod.name in chosen else {}},
                spec={"nodeName": pod.node},
                status={"phase": "Running", "podIPs": [{"ip": str(one)} for one in pod.addresses]},
            )
            for pod in lab.pods
        ),
    ]


def egress_ip(name: str, addresses: Sequence[Address], assigned: Mapping[Address, str]) -> Object:
    """Return an EgressIP for the chosen pods, with its addresses on nodes as OVN-Kubernetes has decided."""
    return _object(
        "k8s.ovn.org/v1",
        "EgressIP",
        {"name": name},
        spec={
            "egressIPs": [str(one) for one in addresses],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            "podSelector": {"matchLabels": {CHOSEN: "yes"}},
        },
        status={"items": [{"node": node, "egressIP": str(address)} for address, node in assigned.items()]},
    )


def write(directory: Path, objects: Sequence[Object]) -> None:
    """Write objects as one list into a directory of manifests."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, indent=1)
    (directory / "cluster.json").write_text(text, encoding="utf-8")


def _node(node: OvnNode, *, local: bool) -> Object:
    at = node.at
    gateway = {
        "mode": "local" if local else "shared",
        "bridge-id": "br-ex",
        "next-hops": [str(one) for one in ROUTER],
        "ip-addresses": [f"{at.primary[0]}/24", f"{at.primary[1]}/64"],
    }
    lengths = (24, 64)
    primary, secondary = (
        [f"{one}/{length}" for one, length in zip(pair, lengths, strict=True)] for pair in (at.primary, at.secondary)
    )
    annotations = {
        "k8s.ovn.org/node-subnets": {"default": [str(one) for one in at.subnets]},
        "k8s.ovn.org/node-primary-ifaddr": {"ipv4": primary[0], "ipv6": primary[1]},
        "k8s.ovn.org/l3-gateway-config": {"default": gateway},
        "k8s.ovn.org/host-cidrs": [*primary, *secondary],
        "k8s.ovn.org/node-transit-switch-port-ifaddr": {"ipv4": f"{at.transit[0]}/16", "ipv6": f"{at.transit[1]}/64"},
    }
    return _object(
        "v1",
        "Node",
        {
            "name": node.name,
            "labels": {"k8s.ovn.org/egress-assignable": ""},
            "annotations": {name: json.dumps(value) for name, value in annotations.items()},
        },
        status={
            "addresses": [{"type": "InternalIP", "address": str(one)} for one in at.primary],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    )


def _object(api_version: str, kind: str, metadata: Object, **parts: Object) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}
