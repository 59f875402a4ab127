"""The laboratory's picture on a real API server: the objects that `outgate.lab.manifests` writes into a directory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from outgate.lab.kube.plane import ControlPlane
from outgate.lab.manifests import Manifest, Picture, identity

_AS_LAB = "?fieldManager=lab&force=true"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where objects of a kind are, and whether their status is written apart."""

    start: str
    plural: str
    has_status: bool = False


_PLACES = {
    "Namespace": _Place("/api/v1", "namespaces"),
    "ServiceAccount": _Place("/api/v1", "serviceaccounts"),
    "Node": _Place("/api/v1", "nodes", has_status=True),
    "Pod": _Place("/api/v1", "pods", has_status=True),
    "Network": _Place("/apis/config.openshift.io/v1", "networks"),
    "AdminPolicyBasedExternalRoute": _Place("/apis/k8s.ovn.org/v1", "adminpolicybasedexternalroutes"),
    "EgressIP": _Place("/apis/k8s.ovn.org/v1", "egressips"),
    "EgressGateway": _Place("/apis/outgate.io/v1alpha1", "egressgateways"),
    "EgressTenant": _Place("/apis/outgate.io/v1alpha1", "egresstenants"),
    "EgressPool": _Place("/apis/outgate.io/v1alpha1", "egresspools"),
}


class Cluster(Picture):
    """Objects on an API server, written by its admin."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def install(self, definitions: Iterable[Mapping[str, object]]) -> None:
        """Let the server know kinds, and wait until it serves them."""
        names = []
        for definition in definitions:
            self.plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(definition))
            metadata = definition["metadata"]
            assert isinstance(metadata, Mapping)
            names.append(f"crd/{metadata['name']}")
        self.plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)

    def install_neighbours(self) -> None:
        """Let the server know the kinds of OpenShift and OVN-Kubernetes that the picture has, with open schemas."""
        self.install(_open_kind(kind) for kind in ("Network", "AdminPolicyBasedExternalRoute"))

    def install_egress_ips(self) -> None:
        """Let the server know the kind EgressIP of OVN-Kubernetes, with an open schema."""
        self.install([_open_kind("EgressIP")])

    def put(self, manifest: Manifest) -> None:
        """Apply an object, and its status where that is written apart."""
        kind, name, namespace = identity(manifest)
        if _PLACES[kind].has_status:
            self._apply(kind, name, namespace, {key: value for key, value in manifest.items() if key != "status"})
            self._set_status(_path(kind, name, namespace), manifest["status"])
        else:
            self._apply(kind, name, namespace, manifest)
        if kind == "Namespace":  # without its account no pod is admitted
            account = {"name": "default", "namespace": name}
            self._apply(
                "ServiceAccount",
                "default",
                name,
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
            )

    def drop(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object, at once: no kubelet will say that a pod has ended."""
        path = _path(kind, name, namespace)
        self._call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})

    def _apply(self, kind: str, name: str, namespace: str, manifest: Manifest) -> None:
        self._call("PATCH", _path(kind, name, namespace) + _AS_LAB, manifest)

    def _set_status(self, path: str, status: object) -> None:
        """Replace a status; a dual-stack node has two addresses of one type, which an apply does not take."""
        self._call("PUT", f"{path}/status", {**self._call("GET", path), "status": status})

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        status, answer = self.plane.call(method, path, body)
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return dict(answer)


def _path(kind: str, name: str, namespace: str) -> str:
    place = _PLACES[kind]
    parts = [place.start, *(["namespaces", namespace] if namespace else []), place.plural, name]
    return "/".join(parts)


def _open_kind(kind: str) -> Mapping[str, object]:
    """Return a CustomResourceDefinition that takes everything."""
    place, singular = _PLACES[kind], kind.lower()
    _, _, group, version = place.start.split("/")
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{place.plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"plural": place.plural, "singular": singular, "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    }
