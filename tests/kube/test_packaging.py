"""What is shipped for a cluster is taken by a real API server, and gives each role the rights that it uses, no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.lab.kube import ControlPlane
from outgate.roles.rights import Right, cluster_rights, gateway_rights

BASE = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "base"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


@pytest.fixture(scope="module")
def installed(shared_plane: ControlPlane) -> Iterator[ControlPlane]:
    shared_plane.start()
    shared_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(BASE))
    yield shared_plane
    shared_plane.start()
    shared_plane.kubectl("delete", "clusterrolebindings,clusterroles", "-l", "app.kubernetes.io/name=outgate")


def test_every_manifest_is_taken_as_it_is(installed: ControlPlane) -> None:
    said = installed.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "-k", str(BASE))
    )
    assert said.stderr == ""  # no warning about a field or a pod that the namespace's policy would not admit
    assert "deployment.apps/outgate-cluster serverside-applied" in said.stdout


def resources(plane: ControlPlane) -> list[tuple[str, str]]:
    """Return group and name of everything that the server knows, subresources too."""
    _, groups = plane.call("GET", "/apis")
    paths = ["/api/v1", *(f"/apis/{one['preferredVersion']['groupVersion']}" for one in groups["groups"])]
    found = []
    for path in paths:
        _, listed = plane.call("GET", path)
        group = listed["groupVersion"].rpartition("/")[0]
        found += [(group, one["name"]) for one in listed["resources"]]
    return found


def allowed(plane: ControlPlane, account: str, group: str, resource: str, verb: str, **where: str) -> bool:
    name, _, subresource = resource.partition("/")
    asked = {"group": group, "resource": name, "subresource": subresource, "verb": verb, **where}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:outgate:{account}",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": asked,
        },
    }
    status, answer = plane.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert status == 201, json.dumps(answer)
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize(
    ("account", "rights"), [("outgate-gateway", gateway_rights()), ("outgate-cluster", cluster_rights())]
)
def test_an_account_may_do_what_its_role_does_and_nothing_else(
    installed: ControlPlane, account: str, rights: tuple[Right, ...]
) -> None:
    wide = {(one.group, one.resource, verb) for one in rights if not one.is_namespaced for verb in one.verbs}
    everybody = {  # what each authenticated user may ask: who am I, what may I
        (group, resource, "create")
        for group, resource in resources(installed)
        if resource.startswith(("selfsubject", "selfsubjectreviews"))
    }
    known = set(resources(installed))
    may = {
        (group, resource, verb)
        for group, resource in known
        for verb in VERBS
        if allowed(installed, account, group, resource, verb)
    }
    assert may - everybody == {right for right in wide if right[:2] in known}
    for one in rights:
        if one.is_namespaced:
            name = one.names[0] if one.names else ""
            for verb in one.verbs:
                assert allowed(installed, account, one.group, one.resource, verb, namespace="outgate", name=name)
                assert not allowed(installed, account, one.group, one.resource, verb, namespace="default", name=name)
