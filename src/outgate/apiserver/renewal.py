"""A service account's token that renews itself: asked for anew at four fifths of its life, and written down whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from outgate.apiserver.expiry import Claims, claims_of
from outgate.apiserver.server import Body, Resource, Server, decoded
from outgate.model.errors import OutgateError

RENEW_AT = 0.8  # of its life
LOOK_AGAIN_S = 60.0  # after a token that can not be renewed, or was not
_SUBJECT = "system:serviceaccount:"


class _Status(msgspec.Struct, frozen=True):
    token: str


class _TokenRequest(msgspec.Struct, frozen=True):
    status: _Status


async def keep_renewed(server: Server, file: Path, wall_s: Callable[[], float] = time.time) -> None:
    """Renew the token in a file for ever; cancel it. What fails is tried again a minute later: the old token is good
    for the last fifth of its life, and `Credentials` warns of its end.
    """
    while True:
        due_s = LOOK_AGAIN_S
        with contextlib.suppress(OutgateError, OSError):
            due_s = await renew(server, file, wall_s())
        await asyncio.sleep(due_s)


async def renew(server: Server, file: Path, now_s: float) -> float:
    """Renew the token in a file if it is due; return the seconds until the next look.

    A token that says neither whose it is nor when it ends is left alone.

    Raises:
        OSError: the file can not be read or replaced.
        OutgateError: the server does not give one; the old token stays in the file.
    """
    claims = _claims(file)
    if claims is None or not claims.exp or not claims.sub.startswith(_SUBJECT):
        return LOOK_AGAIN_S
    life_s = claims.exp - claims.iat
    left_s = claims.iat + RENEW_AT * life_s - now_s
    if left_s > 0:
        return min(left_s, LOOK_AGAIN_S)
    namespace, name = claims.sub.removeprefix(_SUBJECT).split(":")
    path = Resource(plural="serviceaccounts").path(name, namespace=namespace, subresource="token")
    spec = {"expirationSeconds": max(600, round(life_s))}  # the least that a server gives
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await server.request("POST", path, body=Body(msgspec.json.encode(asked)))
    _write(file, decoded(path, answer, _TokenRequest).status.token)
    return LOOK_AGAIN_S


def _claims(file: Path) -> Claims | None:
    return claims_of(file.read_text().strip())


def _write(file: Path, token: str) -> None:
    """Replace the file whole; as it was, only its owner reads it."""
    fd, fresh = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(fd, "w") as out:
            out.write(token)
            out.flush()
            os.fsync(out.fileno())
        Path(fresh).replace(file)
    except OSError:
        Path(fresh).unlink(missing_ok=True)
        raise
