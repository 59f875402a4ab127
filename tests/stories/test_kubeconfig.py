"""A kubeconfig is read as kubectl reads it; what it does not say is refused with the file and the field."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from outgate.apiserver.access import from_kubeconfig, from_pod
from outgate.apiserver.expiry import certificate_ends_s, claims_of
from outgate.apiserver.server import Resource
from outgate.model.errors import IntentError

WHOLE = """
apiVersion: v1
kind: Config
current-context: east
clusters:
- name: east
  cluster: {server: "https://east.example.org:6443/", certificate-authority: ca.crt, tls-server-name: kubernetes}
- name: west
  cluster: {server: "https://west.example.org:6443", proxy-url: "http://proxy.example.org:3128"}
users:
- name: gateway
  user: {tokenFile: /secrets/token, as: auditor, as-groups: [readers]}
- name: plugged
  user:
    exec:
      {apiVersion: client.authentication.k8s.io/v1, command: ./get-token, args: [--for, west],
       env: [{name: A, value: b}]}
contexts:
- name: east
  context: {cluster: east, user: gateway, namespace: default}
- name: west
  context: {cluster: west, user: plugged}
- name: nobody
  context: {cluster: north, user: gateway}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "kubeconfig"
    file.write_text(text)
    return file


def test_the_current_context_is_read_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    access = from_kubeconfig(written(tmp_path, WHOLE))
    assert (access.context, access.server) == ("east", "https://east.example.org:6443")
    assert access.files == (tmp_path / "ca.crt", Path("/secrets/token"))
    assert access.server_name == "kubernetes"
    assert access.impersonated == (("Impersonate-User", "auditor"), ("Impersonate-Group", "readers"))


def test_another_context_is_read_by_its_name(tmp_path: Path) -> None:
    access = from_kubeconfig(written(tmp_path, WHOLE), "west")
    assert access.proxy == "http://proxy.example.org:3128"
    assert access.plugin is not None
    assert access.plugin.command == str(tmp_path / "get-token")
    assert access.plugin.arguments == ("--for", "west")
    assert access.plugin.environment == (("A", "b"),)


@pytest.mark.parametrize(
    ("text", "context", "said"),
    [
        ("a: [", "", "is no YAML"),
        ("[]", "", "is no kubeconfig"),
        ("kind: Config", "", "current-context: is not set"),
        (WHOLE, "south", "names 'south', which is not among the contexts; there are east, nobody, west"),
        (WHOLE, "nobody", "contexts[nobody].context.cluster: names 'north'"),
        (WHOLE.replace("https://east", "ftp://east"), "", "clusters[east].cluster.server: is 'ftp://east"),
        (WHOLE.replace("http://proxy", "socks5://proxy"), "west", "clusters[west].cluster.proxy-url: is 'socks5:"),
        (WHOLE.replace("/v1, command", "/v1alpha1, command"), "west", "users[plugged].user.exec.apiVersion"),
        (WHOLE.replace("command: ./get-token, ", ""), "west", "users[plugged].user.exec.command: is missing"),
        (WHOLE.replace("[readers]", "readers"), "", "users[gateway].user.as-groups: is a str; expected a list"),
        (WHOLE.replace("as: auditor", "username: admin"), "", "users[gateway].user.username: is no longer spoken"),
        (WHOLE.replace("certificate-authority: ca.crt", "certificate-authority-data: '?'"), "", "is no base64"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_field(tmp_path: Path, text: str, context: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(IntentError) as refused:
        from_kubeconfig(file, context)
    assert str(file) in str(refused.value)
    assert said in str(refused.value)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IntentError, match="No such file"):
        from_kubeconfig(tmp_path / "missing")


def test_a_pod_calls_its_own_cluster_and_who_is_no_pod_is_told(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    environment = {"KUBERNETES_SERVICE_HOST": "fd02::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = from_pod(environment, tmp_path)
    assert access.server == "https://[fd02::1]:443"
    assert access.token_file == tmp_path / "token"
    with pytest.raises(IntentError, match="name a kubeconfig"):
        from_pod({}, tmp_path)


def test_a_token_says_whose_it_is_and_when_it_ends() -> None:
    claims = base64.urlsafe_b64encode(b'{"sub":"system:serviceaccount:a:b","iat":1,"exp":3601}').decode().rstrip("=")
    found = claims_of(f"head.{claims}.signature")
    assert found is not None
    assert (found.sub, found.exp) == ("system:serviceaccount:a:b", 3601)
    assert claims_of("opaque") is None
    assert claims_of("a.!.c") is None


def test_a_text_that_is_no_certificate_ends_never() -> None:
    assert certificate_ends_s(b"") is None
    assert certificate_ends_s(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n") is None


def test_names_in_paths_are_quoted() -> None:
    resource = Resource(plural="egresstenants", group="outgate.io", version="v1alpha1")
    assert resource.path("a/../b") == "/apis/outgate.io/v1alpha1/egresstenants/a%2F..%2Fb"
    pods = Resource(plural="pods").path("p", namespace="n", subresource="status")
    assert pods == "/api/v1/namespaces/n/pods/p/status"
