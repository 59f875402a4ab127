"""The cluster role on a real API server: pools give, conditions tell why not, of two replicas one leads, and a leader
that was held still does not write when it wakes up.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.control.role_metrics import METRICS
from outgate.lab.kube import ControlPlane
from outgate.lab.kube.cluster import Cluster
from outgate.lab.manifests import Manifest, egress_gateway, egress_pool
from tests.kube.replicas import Role, settles


def tenant(name: str, **spec: object) -> Manifest:
    """Return an EgressTenant told by its source; it selects a namespace of that name."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": name}}
    spec = {"gateway": "gw1", "namespaceSelector": selector, "identity": {"source": {}}, **spec}
    return {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressTenant", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def role(plane: ControlPlane, tmp_path: Path) -> Iterator[Role]:
    made = Role(plane, tmp_path)
    try:
        made.put(egress_gateway())
        yield made
    finally:
        made.close()
        plane.kubectl("delete", "egresstenants,egresspools,egressgateways", "--all")


def test_claims_are_given_addresses_and_the_oldest_claim_wins(role: Role) -> None:
    role.put(egress_pool("small", "192.0.2.10-192.0.2.11", quarantine="0s"))
    role.put(tenant("zoe", fromPool={"name": "small", "count": 2}))  # older than ann, though later by name
    settles(lambda: role.get("egresstenant", "zoe")["metadata"]["creationTimestamp"] != "", "zoe is there")
    role.start()
    settles(lambda: role.addresses("zoe") == ["192.0.2.10", "192.0.2.11"], "zoe is given both addresses")
    role.put(tenant("ann", fromPool={"name": "small"}))
    settles(lambda: role.condition("ann")[:2] == ("False", "PoolExhausted"), "ann is told that there are none")
    assert "EgressTenant/zoe" in role.condition("ann")[2]
    assert role.addresses("ann") == []
    settles(
        lambda: "PoolExhausted" in role.plane.kubectl("get", "events", "-n", "default").stdout, "an event tells of it"
    )
    role.put(tenant("zoe", fromPool={"name": "small", "count": 1}))
    settles(lambda: role.addresses("zoe") == ["192.0.2.10"], "zoe keeps the lower one")
    settles(lambda: role.addresses("ann") == ["192.0.2.11"], "what zoe gave back is ann's")
    assert role.condition("ann")[0] == "True"
    book = {one["address"]: one["tenant"] for one in role.get("egresspool", "small")["status"]["addresses"]}
    assert book == {"192.0.2.10": "zoe", "192.0.2.11": "ann"}


def test_what_is_released_rests_and_goes_back_to_who_had_it(role: Role) -> None:
    role.put(egress_pool("resting", "192.0.2.20", quarantine="1h"), tenant("first", fromPool={"name": "resting"}))
    role.start()
    settles(lambda: role.addresses("first") == ["192.0.2.20"], "first has the address")
    role.plane.kubectl("delete", "egresstenant", "first")
    role.put(tenant("second", fromPool={"name": "resting"}))
    settles(lambda: role.condition("second")[:2] == ("False", "PoolExhausted"), "the address rests")
    entry = role.get("egresspool", "resting")["status"]["addresses"][0]
    assert entry["tenant"] == "first"
    assert entry["restsUntil"]
    role.put(tenant("first", fromPool={"name": "resting"}))
    settles(lambda: role.addresses("first") == ["192.0.2.20"], "first has it again")


def test_two_tenants_of_one_address_are_told_apart_by_age(role: Role) -> None:
    role.put(tenant("older", egressIPs=["192.0.2.30"]))
    role.start()
    settles(lambda: role.condition("older")[0] == "True", "the older one is accepted")
    role.put(tenant("aaa-newer", egressIPs=["192.0.2.30"]))
    settles(lambda: role.condition("aaa-newer")[:2] == ("False", "AddressTaken"), "the newer one is refused")
    assert "EgressTenant/older" in role.condition("aaa-newer")[2]
    assert role.condition("older")[0] == "True"
    shown = role.plane.kubectl("get", "egresstenants").stdout.splitlines()
    assert [line.split()[0] for line in shown[1:] if "False" in line] == ["aaa-newer"]


def test_what_the_server_took_and_nobody_can_read_is_told_why_and_stays_what_it_was(role: Role) -> None:
    role.put(egress_pool("odd", "192.0.2.10-192.0.2.11"), tenant("zoe", fromPool={"name": "odd"}))
    role.start()
    settles(lambda: role.addresses("zoe") == ["192.0.2.10"], "zoe is given an address")

    role.put(egress_pool("odd", "192.0.2.0/99"))  # no policy is in force here

    settles(lambda: conditions(role, "egresspool", "odd").get("Accepted") == "False", "the pool is told")
    accepted = role.get("egresspool", "odd")["status"]["conditions"][0]
    assert (accepted["reason"], accepted["observedGeneration"]) == ("InvalidManifest", 2)
    assert "spec.ranges[0]" in accepted["message"]
    assert role.addresses("zoe") == ["192.0.2.10"]
    role.put(egress_pool("odd", "192.0.2.10-192.0.2.11"))
    settles(lambda: conditions(role, "egresspool", "odd").get("Accepted") == "True", "the pool is well again")


def conditions(role: Role, kind: str, name: str) -> dict[str, str]:
    """Return the statuses of an object's conditions, by their types."""
    return {one["type"]: one["status"] for one in role.get(kind, name).get("status", {}).get("conditions", [])}


def test_what_a_gateway_says_becomes_a_condition_and_a_condition_keeps_its_time(role: Role) -> None:
    role.put(tenant("spoken", egressIPs=["192.0.2.40"]))
    role.start()
    settles(lambda: role.condition("spoken", "Programmed")[:2] == ("Unknown", "NotHeard"), "nobody spoke yet")
    word = {"name": "gw1", "observedGeneration": 1, "programmed": True, "reason": "Programmed", "message": "all of it"}
    status = {"status": {"gateways": [word]}}
    role.plane.kubectl(
        *("patch", "egresstenant", "spoken", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    )
    settles(lambda: role.condition("spoken", "Programmed")[:2] == ("True", "Programmed"), "it is programmed")
    before = role.get("egresstenant", "spoken")
    role.put(tenant("spoken", egressIPs=["192.0.2.41"]))
    settles(lambda: role.condition("spoken", "Programmed")[:2] == ("Unknown", "Pending"), "the change is pending")
    after = role.get("egresstenant", "spoken")
    times = [
        {one["type"]: one["lastTransitionTime"] for one in found["status"]["conditions"]}["Accepted"]
        for found in (before, after)
    ]
    assert times[0] == times[1]
    assert after["status"]["observedGeneration"] == 2


def test_a_killed_leader_is_followed(role: Role) -> None:
    first = role.start()
    settles(lambda: role.lease().get("holderIdentity"), "the first leads")
    holder = role.lease()["holderIdentity"]
    role.start()
    first.kill()
    first.wait()
    settles(lambda: role.lease()["holderIdentity"] not in ("", holder), "the second leads")
    assert role.lease()["leaseTransitions"] == 1
    role.put(tenant("after", egressIPs=["192.0.2.50"]))
    settles(lambda: role.condition("after")[0] == "True", "the second judges")


def test_a_leader_that_ends_lets_go_at_once(role: Role) -> None:
    first = role.start()
    settles(lambda: role.lease().get("holderIdentity"), "it leads")
    first.terminate()
    assert first.wait(timeout=20) == 0
    assert role.lease()["holderIdentity"] == ""


def test_a_leader_that_was_held_still_does_not_write_when_it_wakes_up(role: Role) -> None:
    first = role.start()
    settles(lambda: role.lease().get("holderIdentity"), "the first leads")
    holder = role.lease()["holderIdentity"]
    role.start()
    role.put(tenant("still", egressIPs=["192.0.2.60"]))
    settles(lambda: role.condition("still")[0] == "True", "the first judges")
    first.send_signal(signal.SIGSTOP)
    settles(lambda: role.lease()["holderIdentity"] not in ("", holder), "the second leads")
    second = role.lease()["holderIdentity"]
    role.put(tenant("newer", egressIPs=["192.0.2.60"]))
    settles(lambda: role.condition("newer")[:2] == ("False", "AddressTaken"), "the second judges")
    version = role.get("egresstenant", "newer")["metadata"]["resourceVersion"]
    first.send_signal(signal.SIGCONT)
    seen = role.lease()["renewTime"]
    settles(lambda: role.lease()["renewTime"] > seen, "the second renews while the first is awake")
    assert role.lease()["holderIdentity"] == second
    assert role.get("egresstenant", "newer")["metadata"]["resourceVersion"] == version


def test_a_namespace_claims_for_itself(role: Role) -> None:
    plane = role.plane
    red, other = plane.namespace("claims-red", {"team": "red"}), plane.namespace("claims-other")
    allowed = {"matchLabels": {"team": "red"}}
    role.put(egress_pool("shared", "192.0.2.70-192.0.2.79", allowedNamespaces=allowed, quarantine="0s"))
    role.put(claim(red, "shop"), claim(other, "shop"), claim(red, "shop.two"))
    role.put(tenant(f"claim-{red}.shop.two", egressIPs=["192.0.2.99"]))  # somebody else's, whatever its name
    role.start()

    settles(lambda: claimed(role, red, "shop").get("egressIPs") == ["192.0.2.70"], "the claim has an address")
    made = role.get("egresstenant", f"claim-{red}.shop")
    assert made["metadata"]["labels"] == {"outgate.io/claim-namespace": red, "outgate.io/claim-name": "shop"}
    assert made["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": red}}
    assert condition(role, red, "shop")[:2] == ("True", "Accepted")
    settles(lambda: condition(role, other, "shop")[:2] == ("False", "PoolNotAllowed"), "the pool is not for all")
    settles(lambda: condition(role, red, "shop.two")[:2] == ("False", "NameTaken"), "a stranger keeps his name")
    assert "claims-red" in plane.kubectl("get", "egressclaims", "-A").stdout

    role.put(claim(red, "shop", podSelector={"matchLabels": {"tier": "web"}}))
    settles(
        lambda: role.get("egresstenant", f"claim-{red}.shop")["spec"].get("podSelector"), "the tenant follows its claim"
    )
    plane.kubectl("delete", "egressclaim", "shop", "-n", red)
    name = f"egresstenant/claim-{red}.shop"
    settles(lambda: plane.kubectl("get", name, check=False).returncode != 0, "the tenant goes with its claim")
    assert role.get("egresstenant", f"claim-{red}.shop.two")["spec"]["egressIPs"] == ["192.0.2.99"]
    plane.kubectl("delete", "egressclaims", "--all", "-A")


def test_what_the_server_refuses_stops_only_itself_and_probes_tell_how_a_replica_is(role: Role) -> None:
    plane, red = role.plane, role.plane.namespace("alone-red")
    name = "alone-claims"
    rule = {
        "apiGroups": ["outgate.io"],
        "apiVersions": ["*"],
        "operations": ["CREATE"],
        "resources": ["egresstenants"],
    }
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": f"object.metadata.name != 'claim-{red}.bad'", "message": "not this one"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    role.put(policy, binding)
    bad = json.dumps(tenant(f"claim-{red}.bad", egressIPs=["192.0.2.98"]))
    tried = ("apply", "--dry-run=server", "-f", "-")
    settles(lambda: "not this one" in plane.kubectl(*tried, input=bad, check=False).stderr, "the policy is in force")
    role.put(egress_pool("shared", "192.0.2.90-192.0.2.99"), claim(red, "bad"), claim(red, "good"))
    port = free_port()
    role.start("--probes", f"127.0.0.1:{port}")
    try:
        settles(lambda: claimed(role, red, "good").get("egressIPs") == ["192.0.2.90"], "the good claim is served")
        settles(lambda: condition(role, red, "bad")[1] == "Pending", "the other one waits")
        assert "not this one" in role.log()
        assert (probed(port, "/livez")[0], probed(port, "/readyz")[0], probed(port, "/other")[0]) == (200, 200, 404)
        page = probed(port, "/metrics")[1]
        assert {"outgate_cluster_leader 1.0", 'outgate_cluster_objects{kind="EgressClaim"} 2.0'} < set(
            page.splitlines()
        )
        assert {f"outgate_cluster_{name}" for name in METRICS} <= set(
            re.findall(r"^# TYPE (outgate_[a-z_]+)", page, re.MULTILINE)
        )
    finally:
        plane.kubectl("delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", name)
    settles(lambda: claimed(role, red, "bad").get("egressIPs") == ["192.0.2.91"], "it is served when it may be")
    plane.kubectl("delete", "egressclaims", "--all", "-A")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def probed(port: int, path: str) -> tuple[int, str]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def claim(namespace: str, name: str, **spec: object) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    whole = {"fromPool": {"name": "shared"}, "gateway": "gw1", **spec}
    return {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressClaim", "metadata": metadata, "spec": whole}


def claimed(role: Role, namespace: str, name: str) -> dict[str, Any]:
    """Return a claim's status."""
    found = json.loads(role.plane.kubectl("get", "egressclaim", name, "-n", namespace, "-o", "json").stdout)
    return dict(found.get("status", {}))


def condition(role: Role, namespace: str, name: str) -> tuple[str, str]:
    conditions = claimed(role, namespace, name).get("conditions", [])
    found = next((one for one in conditions if one["type"] == "Accepted"), None)
    return (found["status"], found["reason"]) if found else ("", "")


def test_the_route_to_the_gateway_is_made_for_a_tenant_and_goes_with_it(role: Role) -> None:
    Cluster(role.plane).install_neighbours()
    blue = role.plane.namespace("routed-blue")
    hop = {"nextHop": {"addresses": ["192.168.99.13"]}}
    role.start()
    role.put(tenant(blue, identity=hop, egressIPs=["192.0.2.80"]))

    def route() -> dict[str, Any]:
        found = role.plane.kubectl("get", "adminpolicybasedexternalroute", f"outgate-{blue}", "-o", "json", check=False)
        return dict(json.loads(found.stdout)) if found.returncode == 0 else {}

    settles(route, "the route is made", within_s=120.0)  # a kind that was absent is looked for each minute
    assert route()["spec"] == {
        "from": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": blue}}},
        "nextHops": {"static": [{"ip": "192.168.99.13"}]},
    }
    role.plane.kubectl("delete", "egresstenant", blue)
    settles(lambda: not route(), "the route goes with its tenant")
