"""One node, one namespace and one pod as a cluster has them, and how they come about: who writes what, in which order.

Their names and addresses are words that occur nowhere else and have the length of those that replace them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

NAMESPACE, NODE, POD = "ns-qqqq", "node-qqqq", "app-7c5ddbdf54-qqqqq"
NODE_ADDRESS = "192.168.199.199"
POD_NETWORK, POD_ADDRESS, POD_MAC = "10.159.199.0/24", "10.159.199.199", "0a:58:0a:9f:c7:c7"

_WHEN = "2026-01-01T00:00:00Z"
_IMAGE = "registry.example.com/shop/app:v4.18.2"

Step = tuple[str, str, Mapping[str, Any]]


def uid_of(value: bytes) -> str:
    """Return the uid within a stored object: the first, which is its own."""
    found = re.search(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value)
    assert found is not None
    return found[0].decode()


def _condition(kind: str, **more: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "lastTransitionTime": _WHEN, **more}


_OVN_NODE = {
    "k8s.ovn.org/host-cidrs": json.dumps([f"{NODE_ADDRESS}/16"]),
    "k8s.ovn.org/l3-gateway-config": json.dumps(
        {
            "default": {
                "mode": "shared",
                "bridge-id": "br-ex",
                "interface-id": f"br-ex_{NODE}",
                "mac-address": "52:54:00:11:22:33",
                "ip-addresses": [f"{NODE_ADDRESS}/16"],
                "next-hops": ["192.168.0.1"],
                "node-port-enable": "true",
                "vlan-id": "0",
            }
        }
    ),
    "k8s.ovn.org/network-ids": json.dumps({"default": "0"}),
    "k8s.ovn.org/node-chassis-id": "5d3c1f7e-9e1b-4f5a-8c8e-1a2b3c4d5e6f",
    "k8s.ovn.org/node-encap-ips": json.dumps([NODE_ADDRESS]),
    "k8s.ovn.org/node-id": "17",
    "k8s.ovn.org/node-primary-ifaddr": json.dumps({"ipv4": f"{NODE_ADDRESS}/16"}),
    "k8s.ovn.org/node-subnets": json.dumps({"default": [POD_NETWORK]}),
    "k8s.ovn.org/zone-name": NODE,
    "machineconfiguration.openshift.io/currentConfig": "rendered-worker-0f2d8a9a6a4b4d6e8f1a2b3c4d5e6f70",
    "machineconfiguration.openshift.io/state": "Done",
    "volumes.kubernetes.io/controller-managed-attach-detach": "true",
}
_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": NODE,
        "annotations": _OVN_NODE,
        "labels": {
            "beta.kubernetes.io/arch": "amd64",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": NODE,
            "kubernetes.io/os": "linux",
            "node-role.kubernetes.io/worker": "",
            "node.openshift.io/os_id": "rhel",
        },
    },
    "spec": {"podCIDR": POD_NETWORK, "podCIDRs": [POD_NETWORK], "taints": []},
    "status": {
        "addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}, {"type": "Hostname", "address": NODE}],
        "allocatable": {"cpu": "15500m", "ephemeral-storage": "450Gi", "memory": "62Gi", "pods": "250"},
        "capacity": {"cpu": "16", "ephemeral-storage": "500Gi", "memory": "64Gi", "pods": "250"},
        "conditions": [
            {**_condition("MemoryPressure", reason="KubeletHasSufficientMemory"), "status": "False"},
            {**_condition("DiskPressure", reason="KubeletHasNoDiskPressure"), "status": "False"},
            {**_condition("PIDPressure", reason="KubeletHasSufficientPID"), "status": "False"},
            _condition("Ready", reason="KubeletReady", message="kubelet is posting ready status"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "images": [{"names": [_IMAGE], "sizeBytes": 412345678}],
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": "0b5a9f2e-3a0e-4b0e-9a59-6f0a5b1c2d3e",
            "containerRuntimeVersion": "cri-o://1.31.4",
            "kernelVersion": "5.14.0-427.50.1.el9_4.x86_64",
            "kubeProxyVersion": "v1.31.4",
            "kubeletVersion": "v1.31.4",
            "machineID": "9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a",
            "operatingSystem": "linux",
            "osImage": "Red Hat Enterprise Linux CoreOS 418.94",
            "systemUUID": "4c4c4544-0042-3510-8052-b4c04f4a4b4c",
        },
    },
}
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": POD,
        "namespace": NAMESPACE,
        "labels": {"app": "shop", "pod-template-hash": "7c5ddbdf54"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "app-7c5ddbdf54",
                "uid": "7f6e5d4c-3b2a-4190-8f7e-6d5c4b3a2910",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    },
    "spec": {
        "nodeName": NODE,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "app",
                "image": _IMAGE,
                "resources": {"requests": {"cpu": "100m"}},
            }
        ],
    },
}
_POD_NETWORKS = {
    "k8s.ovn.org/pod-networks": json.dumps(
        {
            "default": {
                "ip_addresses": [f"{POD_ADDRESS}/24"],
                "mac_address": POD_MAC,
                "gateway_ips": ["10.128.0.1"],
            }
        }
    )
}
_POD_STATUS = {
    "phase": "Running",
    "hostIP": NODE_ADDRESS,
    "hostIPs": [{"ip": NODE_ADDRESS}],
    "podIP": POD_ADDRESS,
    "podIPs": [{"ip": POD_ADDRESS}],
    "startTime": _WHEN,
    "conditions": [_condition(kind) for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")],
    "containerStatuses": [
        {
            "name": "app",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "image": _IMAGE,
            "imageID": "6b" * 32,
            "state": {"running": {"startedAt": _WHEN}},
        }
    ],
}
_NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": NAMESPACE,
        "annotations": {"openshift.io/sa.scc.uid-range": "1000680000/10000"},
        "labels": {"team": "shop", "pod-security.kubernetes.io/enforce": "baseline"},
    },
}
_ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}}


def _applied(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of the pod as server-side apply takes it."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "namespace": NAMESPACE}, **part}


_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
STEPS: Mapping[str, tuple[str, tuple[Step, ...]]] = {  # kind: its key in etcd, and the requests that make it
    "namespace": (f"/registry/namespaces/{NAMESPACE}", (("POST", "/api/v1/namespaces?fieldManager=oc", _NAMESPACE),)),
    "account": (
        f"/registry/serviceaccounts/{NAMESPACE}/default",
        (("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts?fieldManager=kube-controller-manager", _ACCOUNT),),
    ),
    "node": (f"/registry/minions/{NODE}", (("POST", "/api/v1/nodes?fieldManager=kubelet", _NODE),)),
    "pod": (
        f"/registry/pods/{NAMESPACE}/{POD}",
        (
            ("POST", f"{_PODS}?fieldManager=kube-controller-manager", _POD),
            (
                "PATCH",
                f"{_PODS}/{POD}?fieldManager=ovnkube",
                _applied({"metadata": {"name": POD, "annotations": _POD_NETWORKS}}),
            ),
            ("PATCH", f"{_PODS}/{POD}/status?fieldManager=kubelet", _applied({"status": _POD_STATUS})),
        ),
    ),
}
