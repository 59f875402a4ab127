"""Who we are, kept current: files are read again when they change, programs are run again before what they gave ends.

What is presented is one frozen value; a request that was begun with the old one ends with it. A private key given as
text is never written to a disk.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from outgate.apiserver.access import Access, Exec, Pem
from outgate.apiserver.expiry import certificate_ends_s, claims_of
from outgate.model.errors import Unreachable
from outgate.model.why import Finding, Severity

LOOK_S = 30.0  # files are looked at this often, and whenever the server says 401 or a handshake fails
EXEC_DEADLINE_S = 15.0
EXEC_EARLY_S = 60.0  # a program is run again so long before what it gave ends
WARN_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What goes with a request: headers, and the TLS side with our certificate in it (None: plain http)."""

    headers: tuple[tuple[str, str], ...]
    tls: ssl.SSLContext | None
    server_name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What a program printed. `ends_s` is in seconds since 1970; infinity when it does not say."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    ends_s: float = float("inf")


class _ExecStatus(msgspec.Struct, frozen=True, rename="camel"):
    token: str = ""
    client_certificate: str = msgspec.field(name="clientCertificateData", default="")
    client_key: str = msgspec.field(name="clientKeyData", default="")
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    status: _ExecStatus


class Credentials:
    """The credentials of one access. For one event loop; `wall_s` is the calendar, in seconds since 1970."""

    def __init__(self, access: Access, wall_s: Callable[[], float] = time.time) -> None:
        self.access = access
        self._wall_s = wall_s
        self._presented: Presented | None = None
        self._given: _Given | None = None
        self._ends: dict[str, float] = {}  # what ends, and when
        self._seen: dict[str, tuple[int, int, int]] = {}  # of each file: inode, size, nanoseconds
        self._looked_s = float("-inf")
        self._lock = asyncio.Lock()

    async def present(self, *, anew: bool = False) -> Presented:
        """Return what to present now. `anew`: the server did not take what was presented, so look at once.

        Raises:
            Unreachable: a file can not be read or holds nothing of use, or the program failed; with its own words.
        """
        async with self._lock:
            given = await self._from_plugin(anew=anew)
            seen = self._look(anew=anew)
            if self._presented is None or given is not self._given or seen != self._seen:
                self._presented = self._made(given)
                self._given, self._seen = given, seen
            return self._presented

    def findings(self) -> tuple[Finding, ...]:
        """Return what ends within a week, or has ended."""
        now_s, found = self._wall_s(), []
        for what, ends_s in self._ends.items():
            left_s = ends_s - now_s
            if left_s < WARN_S:
                when = f"ends in {left_s / 3600:.0f} h" if left_s > 0 else f"ended {-left_s / 3600:.0f} h ago"
                text, fix = (
                    f"{what} {when}; without it the API server is not heard",
                    "renew it in place; it is read again",
                )
                found.append(Finding("CredentialEnds", self.access.context, text, Severity.WARNING, fix))
        return tuple(found)

    def _look(self, *, anew: bool) -> dict[str, tuple[int, int, int]]:
        now_s = time.monotonic()
        if not anew and now_s - self._looked_s < LOOK_S:
            return self._seen
        self._looked_s = now_s
        seen = {}
        for file in self.access.files:
            try:
                stat = file.stat()
            except OSError as error:
                raise self._error(f"{file}: {error.strerror}") from error
            seen[str(file)] = stat.st_ino, stat.st_size, stat.st_mtime_ns
        return seen

    def _made(self, given: _Given | None) -> Presented:
        """Make what is presented, and note when it ends."""
        access, ends = self.access, dict[str, float]()
        token = given.token if given is not None and given.token else access.token
        if access.token_file is not None and not access.token:
            token = self._read(access.token_file).decode().strip()
            if not token:
                raise self._error(f"{access.token_file}: the token file is empty")
        claims = claims_of(token)
        if claims is not None and claims.exp:
            ends["the token" + (f" in {access.token_file}" if access.token_file else "")] = claims.exp
        certificate, key = self._pair(given)
        ends_s = certificate_ends_s(certificate) if certificate else None
        if ends_s is not None:
            ends["the client certificate"] = ends_s
        self._ends = ends if given is None else {}
        headers = list(access.impersonated)
        if token:
            headers.append(("Authorization", f"Bearer {token}"))
        tls = self._tls(certificate, key) if access.server.startswith("https") else None
        return Presented(headers=tuple(headers), tls=tls, server_name=access.server_name or None)

    def _pair(self, given: _Given | None) -> tuple[bytes, bytes]:
        if given is not None and given.certificate:
            return given.certificate, given.key
        certificate, key = (self._text(one) for one in (self.access.certificate, self.access.key))
        return certificate, key or certificate  # one file may hold both

    def _tls(self, certificate: bytes, key: bytes) -> ssl.SSLContext:
        access, authority = self.access, self._text(self.access.ca)
        try:
            context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        except (ssl.SSLError, ValueError) as error:
            raise self._error(f"the certificate authority is unusable: {error}") from error
        if access.is_unverified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate:
            try:
                _load(context, certificate, key)
            except (ssl.SSLError, OSError) as error:
                raise self._error(f"the client certificate and its key are unusable: {error}") from error
        return context

    async def _from_plugin(self, *, anew: bool) -> _Given | None:
        """Return what the program gives; it runs when nothing is known, when told anew, and before the end."""
        plugin, given = self.access.plugin, self._given
        if plugin is None:
            return None
        if given is not None and not anew and self._wall_s() < given.ends_s - EXEC_EARLY_S:
            return given
        return await self._run(plugin)

    async def _run(self, plugin: Exec) -> _Given:
        environment = {**os.environ, **dict(plugin.environment), "KUBERNETES_EXEC_INFO": self._told_to(plugin)}
        try:
            child = await asyncio.create_subprocess_exec(
                plugin.command,
                *plugin.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            hint = f"; {plugin.hint}" if plugin.hint else ""
            raise self._error(f"{plugin.command}: {error.strerror}{hint}") from error
        try:
            printed, said = await asyncio.wait_for(child.communicate(), EXEC_DEADLINE_S)
        except TimeoutError:
            child.kill()
            await child.wait()
            raise self._error(f"{plugin.command}: no credentials after {EXEC_DEADLINE_S:.0f} s") from None
        words = " ".join(said.decode("utf-8", "replace").split())[-500:]
        if child.returncode:
            raise self._error(f"{plugin.command}: exit code {child.returncode}: {words}")
        try:
            found = msgspec.json.decode(printed, type=_ExecCredential)
        except msgspec.DecodeError as error:
            raise self._error(f"{plugin.command}: printed no ExecCredential: {error} {words}") from error
        if found.api_version != plugin.version:
            raise self._error(f"{plugin.command}: printed {found.api_version}, was asked for {plugin.version}")
        status = found.status
        if not status.token and not (status.client_certificate and status.client_key):
            raise self._error(f"{plugin.command}: printed neither a token nor a certificate with its key")
        return _Given(
            token=status.token,
            certificate=status.client_certificate.encode(),
            key=status.client_key.encode(),
            ends_s=status.expiration_timestamp.timestamp() if status.expiration_timestamp else float("inf"),
        )

    def _told_to(self, plugin: Exec) -> str:
        spec: dict[str, Any] = {"interactive": False}
        if plugin.tells_cluster:
            cluster: dict[str, Any] = {"server": self.access.server}
            if authority := self._text(self.access.ca):
                cluster["certificate-authority-data"] = msgspec.json.decode(msgspec.json.encode(authority))  # base64
            more = {
                "tls-server-name": self.access.server_name,
                "proxy-url": self.access.proxy,
                "insecure-skip-tls-verify": self.access.is_unverified,
            }
            cluster |= {name: value for name, value in more.items() if value}
            spec["cluster"] = cluster
        told = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": spec}
        return msgspec.json.encode(told).decode()

    def _text(self, pem: Pem | None) -> bytes:
        if pem is None:
            return b""
        return pem if isinstance(pem, bytes) else self._read(pem)

    def _read(self, file: Any) -> bytes:
        try:
            content: bytes = file.read_bytes()
        except OSError as error:
            raise self._error(f"{file}: {error.strerror}") from error
        return content

    def _error(self, text: str) -> Unreachable:
        where = f" of {self.access.file}" if self.access.file else ""
        return Unreachable(f"the context {self.access.context}{where} has no credentials now: {text}")


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Give a context our certificate: OpenSSL takes files only, so both are files in memory while it reads them."""
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(certificate.rstrip() + b"\n" + (key if key != certificate else b""))
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
