"""A control plane: etcd and kube-apiserver on 127.0.0.1, with TLS, RBAC, users, and everything that can befall them.

    with ControlPlane(tmp_path) as plane:                        # 3 to 4 s on an idle machine
        plane.kubectl("apply", "-f", "-", input=manifest)
        plane.kubectl("get", "egresstenants", user="alice")      # no rights, until a RoleBinding gives some
        plane.kill()
        plane.start()                                            # the same port, the same store

Everything that it makes lies in its folder and nothing outlives it. The port of the API server is its own from the
beginning to the end, also while the server is down: a socket that is bound and never listens keeps it, and the server
binds beside it (SO_REUSEPORT). etcd listens on a unix socket in the folder. Audit is off unless asked for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import socket
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from outgate.lab.kube import certificates
from outgate.lab.kube.kubeconfig import write_kubeconfig
from outgate.lab.kube.programs import binaries
from outgate.lab.kube.server import Server
from outgate.lab.kube.store import Store
from outgate.lab.waiting import eventually

ADMIN = "admin"
USERS: Mapping[str, Sequence[str]] = MappingProxyType({ADMIN: ("system:masters",), "alice": (), "bob": ()})
ISSUER = "https://kubernetes.default.svc"

_LOOPBACK = "127.0.0.1"
_AUDIT_POLICY = """
{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}
"""
_REQUEST_LIMIT_S = 30.0


class ControlPlane:
    """An API server and its store. Started by entering it; ended, whatever happens, by leaving it."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "lab",
        users: Mapping[str, Sequence[str]] = USERS,
        snapshot: Path | None = None,
        audit: bool = False,
    ) -> None:
        """Describe it; nothing runs yet.

        `name` is that of the cluster and its context in kubeconfigs. `users` have tokens, by name with their groups;
        a client certificate is made for whatever name is asked. `snapshot` is a folder that `etcd_snapshot` wrote, to
        start from. `audit` writes one line of JSON for each request to `audit_log`.

        Raises:
            Unavailable: the programs are missing.
        """
        self.programs = binaries()
        self.folder, self.name = folder.resolve(), name
        self.ca = self.folder / "ca.crt"
        self.audit_log = self.folder / "audit.log" if audit else None
        self.etcd = Server("etcd", self.folder)
        self.apiserver = Server("apiserver", self.folder)
        self.store = Store(self.programs, self.etcd)
        self._users, self._snapshot = dict(users), snapshot
        self._tokens: dict[str, str] = {}
        self._everything = contextlib.ExitStack()
        self._port = 0

    @property
    def server(self) -> str:
        """The address of the API server."""
        return f"https://{_LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        """The port of the API server, on 127.0.0.1."""
        return self._port

    def __enter__(self) -> ControlPlane:
        self._pki, self._kubeconfigs = self.folder / "pki", self.folder / "kubeconfigs"
        for place in (self.folder, self._pki, self._kubeconfigs, self._pki / "users"):
            place.mkdir(exist_ok=True, mode=0o700)
        try:
            held = self._everything.enter_context(socket.socket())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((_LOOPBACK, 0))
            self._port = held.getsockname()[1]
            self._make_secrets()
            if self._snapshot is not None:
                self.store.put(self._snapshot)
            for server in (self.etcd, self.apiserver):  # killed in the reverse order; `stop` is for who wants a goodbye
                self._everything.callback(server.kill)
            self.start()
        except BaseException:
            self._everything.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._everything.close()

    def start(self) -> None:
        """Start what does not run, and return when the API server is ready and its own namespaces are there.

        Raises:
            ServerFailed: one of them did not come up; the message has its log.
        """
        self.store.start()
        self.apiserver.start(self._command())
        self.apiserver.until_ready(self._is_ready)

    def stop(self) -> None:
        """End both in order, the API server first."""
        self.apiserver.stop()
        self.etcd.stop()

    def kill(self) -> None:
        """Kill the API server (SIGKILL); etcd goes on. `plane.etcd.kill()` kills that one."""
        self.apiserver.kill()

    def pause(self) -> None:
        """Hold the API server still (SIGSTOP): connections stay open and nobody answers."""
        self.apiserver.pause()

    def resume(self) -> None:
        """Let the API server go on."""
        self.apiserver.resume()

    def kubeconfig(self, user: str = ADMIN, *, groups: Sequence[str] = (), by_token: bool = False) -> Path:
        """Write a kubeconfig for a user and return it: each call a certificate anew, or with the user's token.

        The files that it names (`ca`, the certificate and key, the token file) are those that rotations rewrite.
        `groups` are added to those that the user has anyway.
        """
        file = self._kubeconfigs / f"{user.replace('/', '_')}{'-by-token' if by_token else ''}.yaml"
        if by_token:
            credentials = {"tokenFile": self.token_file(user)}
        else:
            pair = self.certificate(user, groups=groups)
            credentials = {"client-certificate": pair.certificate, "client-key": pair.key}
        return write_kubeconfig(file, name=self.name, server=self.server, ca=self.ca, user={user: credentials})

    def certificate(self, user: str, *, groups: Sequence[str] = (), days: int = 365) -> certificates.KeyPair:
        """Make a client certificate for a user, in place of the one that was; it ends after so many days."""
        all_groups = (*self._users.get(user, ()), *groups)
        return certificates.client(self._pki / "users", self._client_ca, user, groups=all_groups, days=days)

    def token(self, user: str) -> str:
        """Return the token of one of the users that were named in the beginning."""
        return self._tokens[user]

    def token_file(self, user: str) -> Path:
        """Return the file with the token of a user; `rotate_tokens` rewrites it."""
        return self._pki / "users" / f"{user}.token"

    def kubectl(
        self,
        *words: str,
        input: str | None = None,  # noqa: A002 - the word of subprocess.run
        check: bool = True,
        user: str = ADMIN,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as a user and return what came of it.

        Raises:
            subprocess.CalledProcessError: it failed and `check` is set; what it said is a note of the exception.
        """
        kubeconfig = self._kubeconfigs / f"{user.replace('/', '_')}.yaml"
        if not kubeconfig.exists():
            self.kubeconfig(user)
        own = {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(self.folder / "kubectl"), "KUBERC": "off"}
        argv = [str(self.programs.kubectl), *words]
        stdin = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(argv, check=False, capture_output=True, text=True, env={**os.environ, **own}, **stdin)
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
            error.add_note(done.stderr.strip())
            raise error
        return done

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Make one request as the admin, and return the status code and the answer, decoded if it is JSON."""
        connection = http.client.HTTPSConnection(
            _LOOPBACK, self.port, timeout=_REQUEST_LIMIT_S, context=self._admin_tls()
        )
        with contextlib.closing(connection):
            sent = None if body is None else json.dumps(body)
            kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
            connection.request(method, path, sent, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(text) if is_json else text.decode()

    def namespace(self, name: str, labels: Mapping[str, str] = MappingProxyType({})) -> str:
        """Make a namespace with its service account `default`, without which no pod is admitted; return its name."""
        named = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
        self.kubectl("create", "-f", "-", input="\n---\n".join(map(json.dumps, (named, account))))
        return name

    def rotate_certificate(self, *, names: Sequence[str] = certificates.SERVER_NAMES) -> None:
        """Give the API server a new certificate of the same authority, and return when it shows it."""
        pair = certificates.server(self._pki, self._server_ca, names=names)
        wanted = ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
        eventually(lambda: self._certificate_shown() == wanted, "the API server shows its new certificate")

    def rotate_ca(self, *, keep_old: bool = False) -> None:
        """Give the API server a certificate of a new authority, and put that one into `ca`, beside the old one if
        that is to be kept. Client certificates are of another authority and stay good.
        """
        old = self.ca.read_text()
        self._server_ca = certificates.authority(self._pki, "server-ca")
        self._publish_ca(self._server_ca.certificate.read_text() + (old if keep_old else ""))
        self.rotate_certificate()

    def rotate_tokens(self) -> None:
        """Give each user another token, in `token` and its file. The API server starts anew: the old ones get 401."""
        self._make_tokens()
        self.apiserver.stop()
        self.start()

    def etcd_snapshot(self, into: Path) -> Path:
        """Copy the store as it is at this moment into a folder, and return it: to start from, or to go back to."""
        return self.store.take(into)

    def restore(self, snapshot: Path) -> None:
        """Go back to a snapshot: both servers are ended and started, resourceVersions are lower than they were."""
        self.stop()
        self.store.put(snapshot)
        self.start()

    def compact(self) -> None:
        """Forget all revisions but the last (etcd compaction), for which older continue tokens and watches answer 410.

        The API server serves old pages and events from its own memory for up to 15 s more, the period in which it looks
        for compactions. A new one has no such memory: kill, compact, start, and it answers 410 at once.
        """
        self.store.compact()

    def _make_secrets(self) -> None:
        self._server_ca = certificates.authority(self._pki, "server-ca")
        self._client_ca = certificates.authority(self._pki, "client-ca")
        self._publish_ca(self._server_ca.certificate.read_text())
        certificates.server(self._pki, self._server_ca)
        certificates.signing_key(self._pki / "service-accounts.key")
        self._admin = self.certificate(ADMIN)
        self._make_tokens()

    def _publish_ca(self, text: str) -> None:
        """Replace the bundle whole: readers of a file half-written would see no authority at all."""
        fresh = self.ca.with_name(".ca.crt")
        fresh.write_text(text)
        fresh.replace(self.ca)

    def _make_tokens(self) -> None:
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        lines = [f'{self._tokens[user]},{user},{user},"{",".join(groups)}"\n' for user, groups in self._users.items()]
        (self._pki / "tokens.csv").write_text("".join(lines))
        for user, token in self._tokens.items():
            fresh = self._pki / "users" / f".{user}.token"
            fresh.write_text(token)
            fresh.replace(self.token_file(user))

    def _command(self) -> list[str]:
        options = {
            "etcd-servers": self.store.url,
            "bind-address": _LOOPBACK,
            "advertise-address": _LOOPBACK,
            "secure-port": self.port,
            "permit-port-sharing": "true",  # with the socket that keeps the port
            "tls-cert-file": self._pki / "serving.crt",
            "tls-private-key-file": self._pki / "serving.key",
            "client-ca-file": self._client_ca.certificate,
            "token-auth-file": self._pki / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-account-issuer": ISSUER,
            "service-account-key-file": self._pki / "service-accounts.key",
            "service-account-signing-key-file": self._pki / "service-accounts.key",
            "service-cluster-ip-range": "10.96.0.0/16",
            "endpoint-reconciler-type": "none",  # it would refuse loopback as the endpoint of `kubernetes`
            "allow-privileged": "true",
            "profiling": "false",
        }
        if self.audit_log is not None:
            policy = self.folder / "audit-policy.json"
            policy.write_text(_AUDIT_POLICY)
            options |= {"audit-policy-file": policy, "audit-log-path": self.audit_log, "audit-log-mode": "blocking"}
        return [str(self.programs.apiserver), *(f"--{name}={value}" for name, value in options.items())]

    def _is_ready(self) -> bool:
        try:
            return self.call("GET", "/readyz")[0] == 200 and self.call("GET", "/api/v1/namespaces/default")[0] == 200
        except OSError:  # not listening yet
            return False

    def _admin_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self._admin.certificate, self._admin.key)
        return context

    def _certificate_shown(self) -> bytes:
        shown = ssl.get_server_certificate((_LOOPBACK, self.port), timeout=_REQUEST_LIMIT_S)
        return ssl.PEM_cert_to_DER_cert(shown)
