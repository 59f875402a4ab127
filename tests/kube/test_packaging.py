"""What is shipped for a cluster is taken by a real API server, and gives each role the rights that it uses, no more."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from outgate.lab.kube import ControlPlane, binaries
from outgate.roles.rights import Right, cluster_rights, gateway_rights, node_rights

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BASE = DEPLOY / "kustomize" / "base"
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
    assert "daemonset.apps/outgate-node serverside-applied" in said.stdout


def test_openshift_lets_the_node_role_do_what_its_pods_ask_and_no_more() -> None:
    constraints = yaml.safe_load((DEPLOY / "openshift" / "scc.yaml").read_text())
    documents = yaml.safe_load_all((BASE / "node.yaml").read_text())
    pod = next(one for one in documents if one["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    allowed = {key for key, value in constraints.items() if key.startswith("allow") and value}
    assert allowed == {"allowHostNetwork", "allowHostPorts"}
    assert pod["hostNetwork"]
    assert not {"hostPID", "hostIPC", "volumes"} & pod.keys()
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": constraints["requiredDropCapabilities"]}
    assert constraints["users"] == [f"system:serviceaccount:outgate-node:{pod['serviceAccountName']}"]


def test_the_owning_node_role_asks_for_one_capability_more_and_reads_all_nodes(installed: ControlPlane) -> None:
    folder = str(DEPLOY / "kustomize" / "own")
    words = ("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "-k", folder)
    assert installed.kubectl(*words).stderr == ""
    (container,) = (
        one["spec"]["template"]["spec"]["containers"][0]
        for one in yaml.safe_load_all(installed.kubectl("kustomize", folder).stdout)
        if one["kind"] == "DaemonSet"
    )
    assert container["args"][-2:] == ["--northbound=unix:/run/ovn/ovnnb_db.sock", "--every-node"]
    assert container["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "NET_RAW"]


def test_the_assisting_node_role_asks_for_what_it_needs_and_no_more(installed: ControlPlane) -> None:
    folder = str(DEPLOY / "kustomize" / "assist")
    words = ("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "-k", folder)
    assert installed.kubectl(*words).stderr == ""
    (pod,) = (
        one["spec"]["template"]["spec"]
        for one in yaml.safe_load_all(installed.kubectl("kustomize", folder).stdout)
        if one["kind"] == "DaemonSet"
    )
    (container,) = pod["containers"]
    constraints = yaml.safe_load((DEPLOY / "openshift-assist" / "scc.yaml").read_text())

    assert container["args"][-1] == "--northbound=unix:/run/ovn/ovnnb_db.sock"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": constraints["allowedCapabilities"]}
    assert constraints["allowedCapabilities"] == ["NET_ADMIN"]
    assert not {"hostPID", "hostIPC"} & pod.keys()
    assert [one["hostPath"]["path"] for one in pod["volumes"]] == ["/var/run/ovn-ic"]
    allowed = {key for key, value in constraints.items() if key.startswith("allow") and value is True}
    assert allowed == {"allowHostNetwork", "allowHostPorts", "allowHostDirVolumePlugin"}


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
            "user": f"system:serviceaccount:{'outgate-node' if account == 'outgate-node' else 'outgate'}:{account}",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": asked,
        },
    }
    status, answer = plane.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert status == 201, json.dumps(answer)
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize(
    ("account", "rights"),
    [
        ("outgate-gateway", gateway_rights()),
        ("outgate-cluster", cluster_rights()),
        ("outgate-node", node_rights()),
    ],
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


def rendered(*options: str, version: str = "1.35.0") -> dict[tuple[str, str], Any]:
    """Return what the Helm chart makes for a server of a version, by kind and name."""
    helm = binaries().helm
    if helm is None:
        pytest.skip("no helm: KUBEBUILDER_ASSETS names a folder without it")
    words = ("template", "outgate", DEPLOY / "helm" / "outgate", "--namespace=outgate", f"--kube-version={version}")
    return by_name(subprocess.run([helm, *words, *options], capture_output=True, text=True, check=True).stdout)


def by_name(documents: str) -> dict[tuple[str, str], Any]:
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(documents) if one}


def test_the_chart_makes_what_kustomize_makes(shared_plane: ControlPlane) -> None:
    folders = (BASE, DEPLOY / "policies" / "1.31")
    applied = by_name("---\n".join(shared_plane.kubectl("kustomize", str(one)).stdout for one in folders))
    namespace = applied.pop(("Namespace", "outgate"))
    assert rendered() == applied
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_chart_is_taken_as_it_is(installed: ControlPlane) -> None:
    documents = yaml.safe_dump_all(rendered().values())
    said = installed.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "-f", "-"),
        input=documents,
    )
    assert said.stderr == ""


@pytest.mark.parametrize(
    ("version", "policies"),
    [
        ("1.27.9", set()),
        ("1.29.4+a1b2c3d", set()),
        ("1.30.4", {"outgate-labels", "outgate-pools", "outgate-status"}),
        ("1.31.0", {"outgate-addresses", "outgate-labels", "outgate-pools", "outgate-status"}),
    ],
)
def test_the_chart_picks_the_policies_that_a_server_knows(version: str, policies: set[str]) -> None:
    made = rendered(version=version)
    assert {name for kind, name in made if kind == "ValidatingAdmissionPolicy"} == policies
    flow = {"1.27.9": "v1beta3"}.get(version, "v1")
    assert made["FlowSchema", "outgate"]["apiVersion"] == f"flowcontrol.apiserver.k8s.io/{flow}"


def test_what_a_chart_asks_as_a_value_arrives() -> None:
    made = rendered(
        *("--set", "image.repository=registry.example.org/outgate,image.tag=2", "--set", "replicas=3,monitoring=true"),
        *(
            "--set",
            "lease.duration=137,lease.renewDeadline=107,lease.retryPeriod=26,crds=false,policies=false",
        ),
    )
    deployment = made["Deployment", "outgate-cluster"]["spec"]
    container = deployment["template"]["spec"]["containers"][0]
    assert (deployment["replicas"], container["image"]) == (3, "registry.example.org/outgate:2")
    assert {"--lease-duration=137", "--renew-deadline=107", "--retry-period=26"} < set(container["args"])
    assert {kind for kind, _ in made} >= {"PrometheusRule", "ServiceMonitor"}
    assert not {kind for kind, _ in made} & {"CustomResourceDefinition", "ValidatingAdmissionPolicy"}
    rules = made["PrometheusRule", "outgate"]["spec"]
    assert rules == yaml.safe_load((DEPLOY / "monitoring" / "rules.yaml").read_text())["spec"]
