"""What the API server refuses by itself, told to whoever types `kubectl apply`; and `outgate lint` refuses the same,
offline, from the same description.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outgate.apiserver.access import from_kubeconfig
from outgate.apiserver.open import opened
from outgate.apiserver.server import Body
from outgate.lab.kube import ControlPlane
from outgate.lab.waiting import eventually
from outgate.model.errors import Refused
from tests.kube.planes import control_plane

ROOT = Path(__file__).resolve().parents[2]
SELECTED = {"namespaceSelector": {"matchLabels": {"team": "red"}}, "identity": {"source": {}}}


def tenant(**spec: object) -> dict[str, Any]:
    whole = {**SELECTED, "egressIPs": ["192.0.2.1"], **spec}
    given = {name: value for name, value in whole.items() if value is not None}
    return {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressTenant", "metadata": {"name": "tried"}, "spec": given}


def pool(*ranges: str, **spec: object) -> dict[str, Any]:
    whole = {"ranges": list(ranges), **spec}
    return {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressPool", "metadata": {"name": "tried"}, "spec": whole}


OBJECTS = {
    "a tenant": (tenant(), True),
    "IPv6": (tenant(egressIPs=["2001:db8::1"]), True),
    "a pool": (pool("192.0.2.1-192.0.2.9", "198.51.100.0/28", "203.0.113.7"), True),
    "no address": (tenant(egressIPs=["192.0.2.300"]), False),
    "an address with two gaps": (tenant(egressIPs=["fe80::1::2"]), False),
    "too many colons": (tenant(egressIPs=["1:2:3:4:5:6:7:8:9"]), False),
    "both list and pool": (tenant(fromPool={"name": "p"}), False),
    "neither list nor pool": (tenant(egressIPs=None), False),
    "nobody selected": (tenant(namespaceSelector=None), False),
    "a word nobody knows": (tenant(onChange="explode"), False),
    "a count of zero": (tenant(egressIPs=None, fromPool={"name": "p", "count": 0}), False),
    "a prefix too long": (pool("192.0.2.0/99"), False),
    "half a range": (pool("192.0.2.1-"), False),
    "a range of three": (pool("192.0.2.1-192.0.2.2-192.0.2.3"), False),
    "an IPv6 prefix that is none": (pool("fe80::1::/64"), False),
    "no ranges": (pool(), False),
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with our kinds and all policies, in force."""
    with control_plane(tmp_path_factory.mktemp("guarded")) as plane:
        plane.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "kustomize" / "base"))
        plane.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "policies" / "1.31"))
        eventually(lambda: not taken(plane, pool("192.0.2.0/99"))[0], "the policies are in force", within_s=30.0)
        yield plane


def taken(plane: ControlPlane, manifest: dict[str, Any]) -> tuple[bool, str]:
    """Whether the server takes an object, and what it says."""
    said = plane.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(manifest), check=False)
    return said.returncode == 0, said.stderr


@pytest.mark.parametrize("name", OBJECTS)
def test_the_server_and_lint_agree_about_an_object(guarded: ControlPlane, tmp_path: Path, name: str) -> None:
    manifest, is_right = OBJECTS[name]
    (tmp_path / "object.json").write_text(json.dumps(manifest))
    lint = subprocess.run(
        [sys.executable, "-m", "outgate", "lint", "-f", str(tmp_path)], capture_output=True, text=True, check=False
    )
    said = taken(guarded, manifest)
    assert (said[0], lint.returncode != 2) == (is_right, is_right), f"{said[1]}\n{lint.stdout}"


def test_the_refusal_says_what_and_what_to_do(guarded: ControlPlane) -> None:
    assert "these are no addresses: fe80::1::2" in taken(guarded, tenant(egressIPs=["fe80::1::2"]))[1]
    assert "FIRST-LAST" in taken(guarded, pool("192.0.2.0/99"))[1]
    assert "add namespaceSelector" in taken(guarded, tenant(namespaceSelector=None))[1]


def test_an_object_from_before_the_policies_may_still_be_changed_elsewhere(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        old = pool("192.0.2.0/99")
        plane.kubectl("apply", "-f", "-", input=json.dumps(old))
        plane.kubectl("apply", "--server-side", "-k", str(ROOT / "deploy" / "policies" / "1.31"))
        fresh = {**old, "metadata": {"name": "fresh"}}
        eventually(lambda: not taken(plane, fresh)[0], "the policies are in force", within_s=30.0)
        plane.kubectl("apply", "-f", "-", input=json.dumps(pool("192.0.2.0/99", quarantine="1h")))
        plane.kubectl("label", "egresspool", "tried", "migrated=yes")


def egress_claim(pool_name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": "tried", "namespace": namespace}
    spec = {"fromPool": {"name": pool_name}}
    return {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressClaim", "metadata": metadata, "spec": spec}


ALLOWED = {
    "by a label": ({"matchLabels": {"team": "red"}}, True),
    "by another value": ({"matchLabels": {"team": "blue"}}, False),
    "by a value out of some": ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["red"]}]}, True),
    "by a value that is another": ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}, False),
    "by a value that it has not": ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["b"]}]}, True),
    "by a value that it has": ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["red"]}]}, False),
    "by a label that is there": ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, True),
    "by a label that is not there": ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, False),
    "by no selector, which allows all": (None, True),
}


@pytest.mark.parametrize("how", ALLOWED)
def test_a_pool_lets_claim_whom_it_allows_at_the_door_and_offline(
    guarded: ControlPlane, tmp_path: Path, how: str
) -> None:
    selector, is_allowed = ALLOWED[how]
    bound = {} if selector is None else {"allowedNamespaces": selector}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "reds", "labels": {"team": "red"}}}
    given = {**pool("192.0.2.1-192.0.2.9", **bound), "metadata": {"name": "bound"}}
    for manifest in (namespace, given):
        guarded.kubectl("apply", "-f", "-", input=json.dumps(manifest))
    asked = egress_claim("bound", "reds")
    eventually(lambda: taken(guarded, asked)[0] is is_allowed, "the server judges by the pool as it is now")
    if not is_allowed:
        assert "EgressPool/bound does not allow the namespace reds" in taken(guarded, asked)[1]
    assert taken(guarded, egress_claim("made-later", "reds"))[0]

    for name, manifest in (("namespace", namespace), ("pool", given), ("claim", asked)):
        (tmp_path / f"{name}.json").write_text(json.dumps(manifest))
    lint = subprocess.run(
        [sys.executable, "-m", "outgate", "lint", "-f", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ("PoolNotAllowed" not in lint.stdout) is is_allowed, lint.stdout


def patch_status(plane: ControlPlane, account: str, status: dict[str, Any]) -> str:
    """Patch the status of the tenant `kept` as an account of ours, or as the admin; return what was said against it."""
    access = from_kubeconfig(plane.kubeconfig())
    if account:
        user = ("Impersonate-User", f"system:serviceaccount:outgate:{account}")
        access = replace(access, impersonated=(user, ("Impersonate-Group", "system:authenticated")))
    body = Body(json.dumps({"status": status}).encode(), "application/merge-patch+json")

    async def patch() -> None:
        async with opened([access]) as server:
            await server.request("PATCH", "/apis/outgate.io/v1alpha1/egresstenants/kept/status", body=body)

    try:
        asyncio.run(patch())
    except Refused as refused:
        return refused.words
    return ""


def test_statuses_are_written_by_outgate_alone(guarded: ControlPlane) -> None:
    kept = {**tenant(), "metadata": {"name": "kept"}}
    guarded.kubectl("apply", "-f", "-", input=json.dumps(kept))
    role, gateway = "outgate-cluster", "outgate-gateway"
    word = {"name": "gw1", "observedGeneration": 1, "programmed": True, "reason": "Programmed", "message": "all of it"}
    given = {"egressIPs": ["192.0.2.9"]}

    assert "only outgate writes statuses" in patch_status(guarded, "", given)
    assert "only outgate writes statuses" in patch_status(guarded, gateway, given)
    assert patch_status(guarded, role, given) == ""
    assert patch_status(guarded, gateway, {"gateways": [word]}) == ""
    assert "only outgate writes statuses" in patch_status(guarded, gateway, {"egressIPs": None})
    assert patch_status(guarded, "", given) == ""  # nothing is changed: a migration of the storage does this


def test_the_labels_by_which_outgate_knows_its_own_are_its_own(guarded: ControlPlane) -> None:
    made = {**tenant(), "metadata": {"name": "claimed", "labels": {"outgate.io/claim-name": "shop"}}}
    guarded.kubectl("apply", "-f", "-", input=json.dumps(made))  # a restore may

    for word in ("outgate.io/claim-name-", "outgate.io/claim-namespace=mine", "app.kubernetes.io/managed-by=outgate"):
        said = guarded.kubectl("label", "egresstenant", "claimed", word, check=False)
        assert said.returncode != 0
        assert f"knows its own: {word.rstrip('-').partition('=')[0]}" in said.stderr
    for word in ("team=red", "app.kubernetes.io/managed-by=Helm"):  # the user's are the user's
        guarded.kubectl("label", "egresstenant", "claimed", word)


def patch_node(plane: ControlPlane, name: str, node: str, status: dict[str, Any]) -> str:
    """Patch an EgressNode's status as the node role whose pod runs on `node`; return what was said against it."""
    access = replace(
        from_kubeconfig(plane.kubeconfig()),
        impersonated=(
            ("Impersonate-User", "system:serviceaccount:outgate-node:outgate-node"),
            ("Impersonate-Group", "system:authenticated"),
            ("Impersonate-Extra-authentication.kubernetes.io%2fnode-name", node),
        ),
    )
    body = Body(json.dumps({"status": status}).encode(), "application/merge-patch+json")

    async def patch() -> None:
        async with opened([access]) as server:
            await server.request("PATCH", f"/apis/outgate.io/v1alpha1/egressnodes/{name}/status", body=body)

    try:
        asyncio.run(patch())
    except Refused as refused:
        return refused.words
    return ""


def test_a_node_says_what_it_found_of_itself_alone(guarded: ControlPlane) -> None:
    for name in ("worker-1", "worker-2"):
        manifest = {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressNode", "metadata": {"name": name}}
        guarded.kubectl("apply", "-f", "-", input=json.dumps(manifest))
    found = {
        "type": "TablesAgree",
        "status": "True",
        "reason": "AsExpected",
        "message": "all is well",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }

    assert patch_node(guarded, "worker-1", "worker-1", {"conditions": [found]}) == ""
    assert "only outgate writes statuses" in patch_node(guarded, "worker-2", "worker-1", {"conditions": [found]})
    done = {"programmed": "0123456789abcdef", "cut": ["192.0.2.0/24"]}
    assert patch_node(guarded, "worker-1", "worker-1", done) == ""
    for to_do in (
        {"egressIPs": [{"name": "prod", "address": "192.0.2.9"}]},
        {"departures": [{"namespace": "red", "name": "a", "addresses": ["10.128.0.5"], "nodes": ["worker-1"]}]},
        {"stance": "own"},
    ):
        assert "only outgate writes statuses" in patch_node(guarded, "worker-1", "worker-1", to_do)
