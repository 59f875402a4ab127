"""Who asks about one packet wants to know what else of the cluster has a say: an API server tells, as far as one may.

The server has NetworkPolicy and Service, as all have; of OVN-Kubernetes' kinds it has EgressFirewall alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from outgate.lab.kube import ControlPlane
from outgate.model.rivals import Rivals
from outgate.roles.egress_view import rivals_at
from outgate.roles.options import GatewayOptions

FIREWALLS = "egressfirewalls.k8s.ovn.org"
KIND = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": FIREWALLS},
    "spec": {
        "group": "k8s.ovn.org",
        "scope": "Namespaced",
        "names": {"plural": "egressfirewalls", "singular": "egressfirewall", "kind": "EgressFirewall"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
def firewalls(plane: ControlPlane) -> Iterator[None]:
    """The kind EgressFirewall, which other tests have a cluster without."""
    plane.kubectl("apply", "-f", "-", input=json.dumps(KIND))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"crd/{FIREWALLS}")
    yield
    plane.kubectl("delete", "crd", FIREWALLS)


def told(plane: ControlPlane, user: str = "admin") -> Rivals:
    return rivals_at(GatewayOptions(kubeconfig=plane.kubeconfig(user)))


def test_what_the_server_has_is_read_and_kinds_that_it_lacks_are_none(
    plane: ControlPlane, namespace: str, firewalls: None
) -> None:
    rule = {"type": "Deny", "to": {"cidrSelector": "203.0.113.0/24"}}
    objects = [
        {
            "apiVersion": "k8s.ovn.org/v1",
            "kind": "EgressFirewall",
            "metadata": {"name": "default", "namespace": namespace},
            "spec": {"egress": [rule]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "none", "namespace": namespace},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
        },
    ]
    for one in objects:
        plane.kubectl("apply", "-f", "-", input=json.dumps(one))

    found = told(plane)

    assert [(one.namespace, one.rules[0].allows) for one in found.firewalls] == [(namespace, False)]
    assert [one.name for one in found.policies if one.namespace == namespace] == ["none"]
    assert (found.services, found.qos, found.unknown) == ((), (), ())


def test_what_one_may_not_read_is_told_as_unknown(plane: ControlPlane) -> None:
    unknown = dict(told(plane, "alice").unknown)

    assert {"NetworkPolicy", "Service"} <= unknown.keys()
    assert 'cannot list resource "networkpolicies"' in unknown["NetworkPolicy"]
