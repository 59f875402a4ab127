"""Who we are to an API server stays true: whatever of token, certificate, authority or program is exchanged, the next
request goes out with the new one; and of several ways to a cluster, one that answers is used.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from outgate.apiserver.access import Access, Exec, from_kubeconfig, from_pod
from outgate.apiserver.errors import Denied, Missing, Unauthorized
from outgate.apiserver.expiry import certificate_ends_s, claims_of
from outgate.apiserver.open import opened
from outgate.apiserver.renewal import renew
from outgate.apiserver.server import Body, Server
from outgate.lab.kube import ControlPlane
from outgate.lab.waiting import eventually
from outgate.model.errors import Unreachable
from tests.kube.planes import control_plane

T = TypeVar("T")
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()


def asked(accesses: list[Access], ask: Callable[[Server], Awaitable[T]]) -> T:
    """Open the accesses, ask, and close."""

    async def run() -> T:
        async with opened(accesses) as server:
            return await ask(server)

    return asyncio.run(run())


async def who(server: Server) -> str:
    """Return as whom the server sees us."""
    answer = json.loads(await server.request("POST", WHO, body=Body(REVIEW)))
    return str(answer["status"]["userInfo"]["username"])


@pytest.fixture
def by_token(plane: ControlPlane) -> Access:
    return from_kubeconfig(plane.kubeconfig(by_token=True))


@pytest.fixture
def by_certificate(plane: ControlPlane) -> Access:
    return from_kubeconfig(plane.kubeconfig())


def test_a_certificate_a_token_and_an_impersonation_say_who_we_are(
    plane: ControlPlane, by_token: Access, by_certificate: Access
) -> None:
    assert asked([by_certificate], who) == "admin"
    assert asked([by_token], who) == "admin"
    assert asked([replace(by_token, impersonated=(("Impersonate-User", "alice"),))], who) == "alice"
    text = replace(
        by_certificate, **{one: getattr(by_certificate, one).read_bytes() for one in ("ca", "certificate", "key")}
    )
    assert asked([text], who) == "admin"
    assert plane.server == text.server


def test_what_the_server_says_no_with_is_told_apart(by_token: Access) -> None:
    async def get(server: Server) -> None:
        await server.request("GET", "/api/v1/namespaces/nowhere")

    with pytest.raises(Missing, match="nowhere"):
        asked([by_token], get)
    with pytest.raises(Denied, match='cannot get resource "namespaces"'):
        asked([replace(by_token, impersonated=(("Impersonate-User", "alice"),))], get)
    with pytest.raises(Unauthorized):
        asked([replace(by_token, token="wrong", token_file=None)], get)


def test_the_certificate_is_checked_against_the_name_that_is_given(by_token: Access) -> None:
    assert asked([replace(by_token, server_name="kubernetes.default.svc")], who) == "admin"
    with pytest.raises(Unreachable, match="certificate"):
        asked([replace(by_token, server_name="another.example.org")], who)


def test_a_pod_is_its_service_account(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    token = plane.kubectl("create", "token", "default", "-n", namespace).stdout
    (tmp_path / "token").write_text(token)
    (tmp_path / "ca.crt").write_bytes(plane.ca.read_bytes())
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(plane.port)}
    assert asked([from_pod(environment, tmp_path)], who) == f"system:serviceaccount:{namespace}:default"


def test_tokens_certificates_and_authorities_that_are_exchanged_are_taken_up(tmp_path: Path) -> None:
    # what a thread starts ends with it, so this one outlives the servers
    with ThreadPoolExecutor(1) as pool, control_plane(tmp_path) as plane:
        token, certificate = from_kubeconfig(plane.kubeconfig(by_token=True)), from_kubeconfig(plane.kubeconfig())

        async def through(server: Server) -> list[str]:
            seen = [await who(server)]
            for exchange in (plane.rotate_tokens, plane.rotate_ca, lambda: plane.certificate("admin")):
                await asyncio.get_running_loop().run_in_executor(pool, exchange)
                seen.append(await who(server))
            return seen

        assert asked([token], through) == ["admin"] * 4
        assert asked([certificate], through) == ["admin"] * 4


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_program_gives_credentials_and_is_asked_again_before_they_end(
    by_token: Access, plane: ControlPlane, tmp_path: Path, version: str
) -> None:
    program, runs = tmp_path / "get-token.py", tmp_path / "runs"
    soon = datetime.fromtimestamp(time.time() + 30, UTC).isoformat()  # less than a minute: asked again each time
    program.write_text(
        f"""
import json, os, pathlib
told = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert told["spec"]["cluster"]["server"] == {plane.server!r}, told
assert os.environ["SPOKEN"] == "yes"
with open({str(runs)!r}, "a") as file:
    file.write("run ")
token = pathlib.Path({str(plane.token_file("bob"))!r}).read_text()
status = {{"token": token, "expirationTimestamp": {soon!r}}}
print(json.dumps({{"apiVersion": told["apiVersion"], "kind": "ExecCredential", "status": status}}))
"""
    )
    plugin = Exec(
        version=f"client.authentication.k8s.io/{version}",
        command=sys.executable,
        arguments=(str(program),),
        environment=(("SPOKEN", "yes"),),
        tells_cluster=True,
    )

    async def twice(server: Server) -> list[str]:
        return [await who(server), await who(server)]

    access = replace(by_token, token_file=None, plugin=plugin)
    assert asked([access], twice) == ["bob", "bob"]
    assert runs.read_text() == "run run "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; sys.exit('the vault is sealed')", "exit code 1: the vault is sealed"),
        ("print('hello')", "printed no ExecCredential"),
        (
            """print('{"apiVersion": "client.authentication.k8s.io/v1", "status": {}}')""",
            "printed neither a token nor a certificate",
        ),
    ],
)
def test_a_program_that_gives_nothing_is_told_in_its_own_words(by_token: Access, text: str, said: str) -> None:
    plugin = Exec(version="client.authentication.k8s.io/v1", command=sys.executable, arguments=("-c", text))
    with pytest.raises(Unreachable, match=said):
        asked([replace(by_token, token_file=None, plugin=plugin)], who)


def test_a_program_that_is_missing_is_told_with_the_hint_of_its_author(by_token: Access) -> None:
    plugin = Exec(version="client.authentication.k8s.io/v1", command="/nowhere/get-token", hint="install get-token")
    with pytest.raises(Unreachable, match="No such file or directory; install get-token"):
        asked([replace(by_token, token_file=None, plugin=plugin)], who)


def test_a_certificate_that_ends_within_a_week_is_told(plane: ControlPlane) -> None:
    pair = plane.certificate("carol", days=3)
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in", str(pair.certificate)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ends = datetime.fromisoformat(said.strip().removeprefix("notAfter=").replace("Z", "+00:00"))
    assert certificate_ends_s(pair.certificate.read_bytes()) == ends.timestamp()
    access = replace(from_kubeconfig(plane.kubeconfig()), certificate=pair.certificate, key=pair.key)

    async def findings(server: Server) -> list[str]:
        await who(server)
        return [f"{one.reason}: {one.text}" for one in server.findings()]

    found = asked([access], findings)
    assert len(found) == 1
    assert found[0].startswith("CredentialEnds: the client certificate ends in 7")


def test_the_token_of_a_service_account_renews_itself(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    role = f"renews-{namespace}"
    plane.kubectl("create", "role", role, "-n", namespace, "--verb=create", "--resource=serviceaccounts/token")
    plane.kubectl(
        "create", "rolebinding", role, "-n", namespace, f"--role={role}", f"--serviceaccount={namespace}:default"
    )
    file = tmp_path / "token"
    file.write_text(plane.kubectl("create", "token", "default", "-n", namespace, "--duration=1h").stdout.strip())
    old = claims_of(file.read_text())
    assert old is not None
    access = replace(from_kubeconfig(plane.kubeconfig(by_token=True)), token_file=file)

    assert asked([access], lambda server: renew(server, file, old.iat + 0.79 * 3600)) > 0
    assert claims_of(file.read_text()) == old

    def ends_later() -> bool:  # a token says its time in whole seconds
        asked([access], lambda server: renew(server, file, old.iat + 0.81 * 3600))
        new = claims_of(file.read_text())
        return new is not None and new.exp > old.exp

    eventually(ends_later, "the token is a new one")
    assert file.stat().st_mode & 0o777 == 0o600
    assert asked([access], who) == f"system:serviceaccount:{namespace}:default"


def test_of_several_ways_to_a_cluster_one_that_answers_is_used(by_token: Access) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    dead = replace(by_token, context="dead", server=f"https://127.0.0.1:{port}")

    async def name(server: Server) -> tuple[str, str]:
        return await who(server), server.name

    assert asked([dead, by_token], name) == ("admin", by_token.context)
    with pytest.raises(Unreachable, match="Connection refused"):
        asked([dead], who)


def test_a_way_to_another_cluster_is_never_used(plane: ControlPlane, by_token: Access, tmp_path: Path) -> None:
    with control_plane(tmp_path, name="other") as other:
        stranger = from_kubeconfig(other.kubeconfig(by_token=True))

        async def lose(server: Server) -> list[str]:
            await server.cluster_uid()
            plane.kill()
            with pytest.raises(Unreachable):
                await who(server)
            return [one.reason for one in server.findings()]

        assert asked([by_token, stranger], lose) == ["OtherCluster"]


@contextmanager
def tinyproxy(folder: Path) -> Iterator[tuple[str, Path]]:
    """Run a real proxy on loopback; yield its address and its log."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    log = folder / "log"
    log.touch()
    settings = folder / "tinyproxy.conf"
    settings.write_text(f'Port {port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{log}"\nLogLevel Connect\nMaxClients 8\n')
    process = subprocess.Popen(["tinyproxy", "-d", "-c", str(settings)], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: "Accepting connections" in log.read_text() or _listens(port), "the proxy listens")
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def test_a_proxy_is_gone_through_when_it_is_named(by_token: Access, plane: ControlPlane, tmp_path: Path) -> None:
    with tinyproxy(tmp_path) as (address, log):
        assert asked([replace(by_token, proxy=address)], who) == "admin"
        eventually(lambda: f"CONNECT 127.0.0.1:{plane.port}" in log.read_text(), "the proxy was asked to connect")
