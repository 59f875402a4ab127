"""The tests of this folder stand on a real API server with its real store. Here it shows what they rely on: it refuses
by CEL and by policy, knows users and their rights, survives its own death, and nothing of it is seen from elsewhere.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from outgate.lab.kube import ControlPlane, ServerFailed, Unavailable, binaries, relay
from outgate.lab.kube.server import Server
from outgate.lab.namespace import Namespace
from outgate.lab.waiting import eventually

CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"
GADGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              low: {type: integer}
              high: {type: integer}
              address: {type: string}
            x-kubernetes-validations:
            - {rule: "self.low <= self.high", message: "low is above high"}
            - {rule: "isIP(self.address)", message: "address is no IP address"}
"""
GADGET = """
apiVersion: example.com/v1
kind: Gadget
metadata: {name: one}
spec: {low: %d, high: 5, address: "%s"}
"""
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-secrets-in-names}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  validations:
  - {expression: "!object.metadata.name.startsWith('secret')", message: "a name tells a secret"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-secrets-in-names}
spec: {policyName: no-secrets-in-names, validationActions: [Deny]}
"""
OWNER = """
import sys, time
from pathlib import Path
from outgate.lab.kube import ControlPlane
with ControlPlane(Path(sys.argv[1])) as plane:
    print(plane.etcd.pid, plane.apiserver.pid, flush=True)
    time.sleep(600)
"""


def status_for(plane: ControlPlane, token: str, path: str = "/api/v1/nodes") -> int:
    """The status code of a request with a token, by a client that trusts what `plane.ca` holds now."""
    context = ssl.create_default_context(cafile=str(plane.ca))
    with closing(http.client.HTTPSConnection("127.0.0.1", plane.port, timeout=10, context=context)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status


def is_running(pid: int) -> bool:
    """Whether it has not ended; what nobody has buried yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def put_config_map(plane: ControlPlane, namespace: str, name: str) -> int:
    status, answer = plane.call("POST", CONFIG_MAPS.format(namespace), {"metadata": {"name": name}})
    assert status == 201, answer
    return int(answer["metadata"]["resourceVersion"])


def exists(plane: ControlPlane, namespace: str, name: str) -> bool:
    return plane.call("GET", f"{CONFIG_MAPS.format(namespace)}/{name}")[0] == 200


def test_it_is_of_the_version_that_the_module_pins_and_serves_our_kinds(plane: ControlPlane) -> None:
    version = json.loads(plane.kubectl("version", "-o", "json").stdout)
    kinds = plane.kubectl("api-resources", "--api-group=outgate.io", "-o", "name").stdout.split()

    minor = int(version["serverVersion"]["minor"].rstrip("+"))
    assert minor >= 33
    assert version["clientVersion"]["gitVersion"].startswith("v1.")
    assert {"egressgateways.outgate.io", "egresstenants.outgate.io", "egresspools.outgate.io"} <= set(kinds)


def test_cel_in_a_crd_refuses_with_the_words_of_its_rule(plane: ControlPlane) -> None:
    plane.kubectl("apply", "-f", "-", input=GADGETS)
    plane.kubectl("wait", "--for=condition=Established", "crd/gadgets.example.com")

    upside_down = plane.kubectl("apply", "-f", "-", input=GADGET % (7, "192.168.55.1"), check=False)
    no_address = plane.kubectl("apply", "-f", "-", input=GADGET % (1, "fountain"), check=False)
    good = plane.kubectl("apply", "-f", "-", input=GADGET % (1, "192.168.55.1"), check=False)

    assert "low is above high" in upside_down.stderr
    assert "address is no IP address" in no_address.stderr
    assert good.returncode == 0, good.stderr


def test_a_policy_refuses_with_its_message(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("apply", "-f", "-", input=POLICY)
    path = CONFIG_MAPS.format(namespace)

    def refusal() -> str:
        """Policies reach the server's own cache a moment after they are stored."""
        status, answer = plane.call("POST", f"{path}?dryRun=All", {"metadata": {"name": "secret-name"}})
        return str(answer["message"]) if status == 422 else ""

    assert "a name tells a secret" in eventually(refusal, "the policy is in force")
    put_config_map(plane, namespace, "plain-name")
    plane.kubectl("delete", "-f", "-", input=POLICY)


def test_users_have_the_rights_that_roles_give_them_by_certificate_and_by_token(
    plane: ControlPlane, namespace: str
) -> None:
    before = plane.kubectl("get", "configmaps", "-n", namespace, user="alice", check=False)
    plane.kubectl("create", "role", "reader", "-n", namespace, "--verb=get,list", "--resource=configmaps")
    plane.kubectl("create", "rolebinding", "reader", "-n", namespace, "--role=reader", "--user=alice")

    def may_read() -> bool:
        return plane.kubectl("get", "configmaps", "-n", namespace, user="alice", check=False).returncode == 0

    assert 'User "alice" cannot list resource "configmaps"' in before.stderr
    eventually(may_read, "alice may read")
    assert status_for(plane, plane.token("alice"), CONFIG_MAPS.format(namespace)) == 200
    assert status_for(plane, plane.token("bob"), CONFIG_MAPS.format(namespace)) == 403
    assert status_for(plane, "of nobody", CONFIG_MAPS.format(namespace)) == 401


def test_a_service_account_is_given_tokens(plane: ControlPlane, namespace: str) -> None:
    token = plane.kubectl("create", "token", "default", "-n", namespace, "--duration=10m").stdout.strip()

    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status, answer = plane.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)

    assert status == 201
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{namespace}:default"


def test_a_killed_api_server_comes_back_at_its_port_with_all_that_was_stored(
    plane: ControlPlane, namespace: str
) -> None:
    put_config_map(plane, namespace, "kept")
    port = plane.port

    plane.kill()

    with pytest.raises(ConnectionRefusedError):
        plane.call("GET", "/readyz")
    plane.start()
    assert plane.port == port
    assert exists(plane, namespace, "kept")


def test_a_killed_store_loses_nothing(plane: ControlPlane, namespace: str) -> None:
    put_config_map(plane, namespace, "kept")

    plane.etcd.kill()
    plane.start()

    def is_there() -> bool:
        return exists(plane, namespace, "kept")

    eventually(is_there, "the API server has found its store again", within_s=30)


def test_an_api_server_that_is_held_still_accepts_and_says_nothing_until_it_goes_on(
    plane: ControlPlane, namespace: str
) -> None:
    context = ssl.create_default_context(cafile=str(plane.ca))
    with closing(http.client.HTTPSConnection("127.0.0.1", plane.port, timeout=1, context=context)) as connection:
        connection.connect()

        plane.pause()
        connection.request("GET", "/livez")
        with pytest.raises(TimeoutError):
            connection.getresponse()

        plane.resume()
    assert plane.call("GET", "/livez")[0] == 200


def test_a_new_authority_is_trusted_by_who_reads_the_file_again(plane: ControlPlane) -> None:
    trusted_before = ssl.create_default_context(cafile=str(plane.ca))

    plane.rotate_ca()

    stale = http.client.HTTPSConnection("127.0.0.1", plane.port, timeout=10, context=trusted_before)
    with closing(stale), pytest.raises(ssl.SSLCertVerificationError):
        stale.request("GET", "/livez")
    assert status_for(plane, plane.token("admin")) == 200
    assert plane.kubectl("get", "nodes").returncode == 0


def test_a_certificate_is_changed_for_another_of_the_same_authority(plane: ControlPlane) -> None:
    trusted_before = ssl.create_default_context(cafile=str(plane.ca))

    plane.rotate_certificate()

    same = http.client.HTTPSConnection("127.0.0.1", plane.port, timeout=10, context=trusted_before)
    with closing(same):
        same.request("GET", "/livez")
        assert same.getresponse().status == 200


def test_old_tokens_are_worth_nothing_after_they_were_changed(plane: ControlPlane) -> None:
    old = plane.token("admin")
    assert status_for(plane, old) == 200

    plane.rotate_tokens()

    assert status_for(plane, old) == 401
    assert status_for(plane, plane.token("admin")) == 200
    assert plane.token_file("admin").read_text() == plane.token("admin")


def test_a_snapshot_taken_while_it_runs_brings_everything_back_as_it_was(
    plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    put_config_map(plane, namespace, "old")
    snapshot = plane.etcd_snapshot(tmp_path / "snapshot")
    later = max(put_config_map(plane, namespace, f"new-{number}") for number in range(50))

    plane.restore(snapshot)

    assert exists(plane, namespace, "old")
    assert not exists(plane, namespace, "new-0")
    _, listed = plane.call("GET", CONFIG_MAPS.format(namespace))
    assert int(listed["metadata"]["resourceVersion"]) < later, "time went backwards"

    with ControlPlane(tmp_path / "other", snapshot=snapshot) as other:
        assert exists(other, namespace, "old")
        assert other.port != plane.port


def test_compaction_ends_a_list_in_its_middle(plane: ControlPlane, namespace: str) -> None:
    for number in range(4):
        put_config_map(plane, namespace, f"number-{number}")
    path = CONFIG_MAPS.format(namespace)
    _, first = plane.call("GET", f"{path}?limit=2")
    put_config_map(plane, namespace, "later")

    plane.kill()
    plane.compact()
    plane.start()

    status, answer = plane.call("GET", f"{path}?limit=2&continue={first['metadata']['continue']}")
    assert (status, answer["reason"]) == (410, "Expired")


def test_it_listens_on_loopback_alone(plane: ControlPlane) -> None:
    listening = subprocess.run(("ss", "-Hltnp"), capture_output=True, text=True, check=True).stdout.splitlines()

    ours = [line.split()[3] for line in listening if f"pid={plane.apiserver.pid}," in line]
    store = [line for line in listening if f"pid={plane.etcd.pid}," in line]

    assert ours == [f"127.0.0.1:{plane.port}"]
    assert store == []


def test_what_lives_in_a_namespace_reaches_it_at_the_same_address(plane: ControlPlane) -> None:
    with Namespace("inside") as inside:
        inside.run(("ip", "link", "set", "lo", "up"))
        ask = (str(binaries().kubectl), "--kubeconfig", str(plane.kubeconfig()), "get", "--raw", "/livez")
        before = inside.run(ask, check=False)
        with relay(inside, plane.port):
            during = inside.run(ask)
            plane.kill()
            without_server = inside.run(ask, check=False)
        after = inside.run(ask, check=False)

    assert "refused" in before.stderr
    assert during.stdout == "ok"
    assert without_server.returncode != 0
    assert "refused" in after.stderr


def test_nothing_outlives_an_owner_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen((sys.executable, "-c", OWNER, str(tmp_path)), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        owner.send_signal(signal.SIGKILL)

    assert len(pids) == 2
    eventually(lambda: not any(map(is_running, pids)), "both servers have ended")


def test_a_server_that_can_not_start_says_why(tmp_path: Path) -> None:
    server = Server("apiserver", tmp_path)
    server.start((str(binaries().apiserver), "--no-such-option"))

    with pytest.raises(ServerFailed, match="unknown flag: --no-such-option"):
        server.until_ready(lambda: False)


def test_a_folder_without_the_programs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "etcd").touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", os.fspath(tmp_path))

    with pytest.raises(Unavailable, match=f"kube-apiserver, kubectl missing in {tmp_path}"):
        binaries()
