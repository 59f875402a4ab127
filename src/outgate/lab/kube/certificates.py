"""Certificates of a control plane, made by openssl(1): authorities, servers, clients, and the key for tokens.

Elliptic keys throughout: one takes openssl 10 ms where RSA takes 200.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outgate.lab.kube.programs import Unavailable

SERVER_NAMES = ("DNS:localhost", "DNS:kubernetes", "DNS:kubernetes.default.svc", "IP:127.0.0.1")

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_YEAR = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate and its key, each a PEM file."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str) -> KeyPair:
    """Make a certificate authority: NAME.crt and NAME.key, in place of what bears those names."""
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    return _certificate(folder, name, f"/CN=outgate-lab-{name}", extensions)


def server(folder: Path, issuer: KeyPair, *, names: Sequence[str] = SERVER_NAMES, days: int = _YEAR) -> KeyPair:
    """Make the certificate of the API server, `serving.crt`, for the names and addresses that it is called by."""
    extensions = (f"subjectAltName={','.join(names)}", "extendedKeyUsage=serverAuth")
    return _certificate(folder, "serving", "/CN=kube-apiserver", extensions, issued=(issuer, days))


def client(folder: Path, issuer: KeyPair, user: str, *, groups: Sequence[str] = (), days: int = _YEAR) -> KeyPair:
    """Make the certificate of a user, USER.crt: the common name is the user, the organisations are the groups."""
    subject = "".join(f"/O={_escaped(group)}" for group in groups) + f"/CN={_escaped(user)}"
    extensions = ("extendedKeyUsage=clientAuth",)
    return _certificate(folder, user.replace("/", "_"), subject, extensions, issued=(issuer, days))


def signing_key(file: Path) -> Path:
    """Make a private key, with which the API server signs the tokens of service accounts."""
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(file))
    return file


def _certificate(
    folder: Path, name: str, subject: str, extensions: Sequence[str], *, issued: tuple[KeyPair, int] | None = None
) -> KeyPair:
    """Make a key and its certificate; both files appear whole, the key first, as their readers expect of a rotation."""
    issuer, days = issued or (None, 10 * _YEAR)
    pair = KeyPair(certificate=folder / f"{name}.crt", key=folder / f"{name}.key")
    fresh = [file.with_name(f".{file.name}") for file in (pair.certificate, pair.key)]
    words = ["req", "-x509", *_CURVE, "-days", str(days), "-subj", subject]
    words += ["-out", str(fresh[0]), "-keyout", str(fresh[1])]
    for extension in extensions:
        words += ["-addext", extension]
    if issuer is not None:
        words += ["-CA", str(issuer.certificate), "-CAkey", str(issuer.key)]
    _openssl(*words)
    fresh[1].replace(pair.key)
    fresh[0].replace(pair.certificate)
    return pair


def _escaped(word: str) -> str:
    """Return a word as a subject takes it."""
    return word.replace("\\", "\\\\").replace("/", "\\/").replace("+", "\\+")


def _openssl(*words: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise Unavailable("openssl is missing (Debian package openssl); it makes the certificates of the API server")
    environment = {**os.environ, "OPENSSL_CONF": os.devnull}  # the machine's own settings would add extensions
    done = subprocess.run((program, *words), check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        error.add_note(done.stderr.strip())
        raise error
