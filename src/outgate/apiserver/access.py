"""Where an API server is and as whom we call it, read from a kubeconfig or from the pod that we run in."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import yaml

from outgate.model.errors import IntentError
from outgate.model.why import Origin

Pem: TypeAlias = Path | bytes
"""Certificates or a key: a file, which is read again when it changes, or the text itself."""

EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_T = TypeVar("_T")
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """A program that prints credentials (client-go credential plugin)."""

    version: str
    command: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    hint: str = ""  # what its author says when it is missing
    tells_cluster: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One context: a server, and one way to say who we are. `file` is where it was read, for messages."""

    context: str
    server: str
    file: str = ""
    ca: Pem | None = None  # None: the authorities that the machine trusts
    server_name: str = ""  # what its certificate is checked against, if not the host of `server`
    is_unverified: bool = False
    proxy: str = ""
    token: str = ""
    token_file: Path | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    plugin: Exec | None = None
    impersonated: tuple[tuple[str, str], ...] = ()  # headers

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that rotations rewrite."""
        return tuple(one for one in (self.ca, self.certificate, self.key, self.token_file) if isinstance(one, Path))


def from_kubeconfig(file: Path, context: str = "") -> Access:
    """Read one context of a kubeconfig, the current one unless it is named.

    Raises:
        IntentError: the file can not be read, or does not say what is needed; with the file and the field.
    """
    return _Kubeconfig(file).access(context)


def from_contexts(file: Path, contexts: Sequence[str]) -> list[Access]:
    """Read several contexts of a kubeconfig, the current one if none is named.

    Raises:
        IntentError: as `from_kubeconfig`.
    """
    return [from_kubeconfig(file, context) for context in contexts or ("",)]


def from_pod(environment: Mapping[str, str] = os.environ, secrets: Path = SERVICE_ACCOUNT) -> Access:
    """Return how a pod calls its own cluster: by the environment's address and its service account's token.

    Raises:
        IntentError: this is no pod with a service account.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (secrets / "token").exists():
        fix = "name a kubeconfig, or let the pod mount its service account"
        raise IntentError(f"no API server is named, and this is no pod with a service account; {fix}")
    address = f"[{host}]" if ":" in host else host
    return Access(
        context="in-cluster",
        server=f"https://{address}:{port}",
        file=str(secrets),
        ca=secrets / "ca.crt",
        token_file=secrets / "token",
    )


def accesses_of(kubeconfig: Path | None, contexts: Sequence[str]) -> list[Access]:
    """Return how a role inside a cluster calls it: by a kubeconfig if one is named, else as a pod.

    Raises:
        IntentError: the kubeconfig does not say, or this is no pod.
    """
    return [from_pod()] if kubeconfig is None else from_contexts(kubeconfig, contexts)


class _Kubeconfig:
    """A kubeconfig that is being read. Fields that it may hold beyond ours are other programs' business."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._content = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except OSError as error:
            raise self._error("", f"can not be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise self._error("", f"is no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(self._content, dict):
            raise self._error("", "is no kubeconfig: a mapping with clusters, users and contexts was expected")

    def access(self, name: str) -> Access:
        """Return one context.

        Raises:
            IntentError: it is not there, or incomplete.
        """
        name = name or self._get(self._content, "current-context", str, "", "")
        if not name:
            raise self._error("current-context", "is not set; name a context")
        context = self._named("contexts", "context", name)
        at = f"contexts[{name}].context"
        cluster_name = self._get(context, "cluster", str, "", at)
        cluster = self._named("clusters", "cluster", cluster_name, by=f"{at}.cluster")
        user_name = self._get(context, "user", str, "", at)
        user = self._named("users", "user", user_name, by=f"{at}.user") if user_name else {}
        return Access(
            context=name,
            file=str(self._file),
            **self._server(cluster, f"clusters[{cluster_name}].cluster"),
            **self._user(user, f"users[{user_name}].user"),
        )

    def _server(self, cluster: Mapping[str, Any], at: str) -> dict[str, Any]:
        server = self._get(cluster, "server", str, "", at).rstrip("/")
        if urlsplit(server).scheme not in ("https", "http"):
            raise self._error(f"{at}.server", f"is {server!r}; expected https://HOST[:PORT]")
        proxy = self._get(cluster, "proxy-url", str, "", at)
        if proxy and urlsplit(proxy).scheme not in ("http", "https"):
            raise self._error(f"{at}.proxy-url", f"is {proxy!r}; only proxies by http:// and https:// are spoken to")
        return {
            "server": server,
            "ca": self._pem(cluster, "certificate-authority", at),
            "server_name": self._get(cluster, "tls-server-name", str, "", at),
            "is_unverified": self._get(cluster, "insecure-skip-tls-verify", bool, False, at),
            "proxy": proxy,
        }

    def _user(self, user: Mapping[str, Any], at: str) -> dict[str, Any]:
        token_file = self._get(user, "tokenFile", str, "", at)
        for field in ("username", "auth-provider"):
            if field in user:
                raise self._error(
                    f"{at}.{field}", "is no longer spoken by Kubernetes; use a token, a certificate or exec"
                )
        return {
            "token": self._get(user, "token", str, "", at),
            "token_file": self._beside(token_file) if token_file else None,
            "certificate": self._pem(user, "client-certificate", at),
            "key": self._pem(user, "client-key", at),
            "plugin": self._plugin(user, at),
            "impersonated": self._impersonated(user, at),
        }

    def _plugin(self, user: Mapping[str, Any], at: str) -> Exec | None:
        found = self._get(user, "exec", dict, {}, at)
        if not found:
            return None
        at = f"{at}.exec"
        version, command = (self._get(found, field, str, "", at) for field in ("apiVersion", "command"))
        if version not in EXEC_VERSIONS:
            raise self._error(f"{at}.apiVersion", f"is {version!r}; expected {' or '.join(EXEC_VERSIONS)}")
        if not command:
            raise self._error(f"{at}.command", "is missing: which program prints the credentials?")
        pairs = [
            (str(one.get("name", "")), str(one.get("value", "")))
            for one in self._get(found, "env", list, [], at)
            if isinstance(one, dict)
        ]
        return Exec(
            version=version,
            command=str(self._beside(command)) if "/" in command else command,
            arguments=tuple(map(str, self._get(found, "args", list, [], at))),
            environment=tuple(pairs),
            hint=self._get(found, "installHint", str, "", at),
            tells_cluster=self._get(found, "provideClusterInfo", bool, False, at),
        )

    def _impersonated(self, user: Mapping[str, Any], at: str) -> tuple[tuple[str, str], ...]:
        headers = [
            (header, value)
            for field, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid"))
            if (value := self._get(user, field, str, "", at))
        ]
        headers += [("Impersonate-Group", str(group)) for group in self._get(user, "as-groups", list, [], at)]
        for name, values in self._get(user, "as-user-extra", dict, {}, at).items():
            headers += [(f"Impersonate-Extra-{name}", str(value)) for value in values]
        return tuple(headers)

    def _named(self, section: str, content: str, name: str, by: str = "") -> Mapping[str, Any]:
        entries = self._get(self._content, section, list, [], "")
        for entry in entries:
            if isinstance(entry, dict) and entry.get("name") == name:
                found = entry.get(content)
                return found if isinstance(found, dict) else {}
        names = [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]
        there = f"there are {', '.join(sorted(names))}" if names else "there are none"
        raise self._error(by or "current-context", f"names {name!r}, which is not among the {section}; {there}")

    def _pem(self, holder: Mapping[str, Any], field: str, at: str) -> Pem | None:
        """Return a certificate or key; where both are given the text wins, as kubectl has it."""
        text = self._get(holder, f"{field}-data", str, "", at)
        if text:
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise self._error(f"{at}.{field}-data", f"is no base64: {error}") from error
        file = self._get(holder, field, str, "", at)
        return self._beside(file) if file else None

    def _beside(self, name: str) -> Path:
        """Return a path as kubeconfigs mean it: relative to their own folder."""
        return self._file.parent.absolute() / name

    def _get(self, holder: Mapping[str, Any], field: str, kind: type[_T], default: _T, at: str) -> _T:
        value = holder.get(field)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise self._error(f"{at}.{field}".lstrip("."), f"is a {type(value).__name__}; expected a {kind.__name__}")
        return value

    def _error(self, field: str, text: str) -> IntentError:
        return IntentError(text, Origin(file=str(self._file), field=field))
