"""What the reflectors need of an API server, so that they know no transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

from outgate.model.errors import OutgateError


class Trouble(Enum):
    """What an error of the wire means for a kind."""

    ABSENT = "absent"  # 404: the server does not know the kind
    DENIED = "denied"  # 403
    AUTH = "auth"  # 401, also after the credentials were read again
    GONE = "gone"  # 410: the resourceVersion or the page is forgotten
    UNREACHABLE = "unreachable"  # anything that may be better in a moment


class Wire(Protocol):
    """One API server. Every error that it raises on purpose is an OutgateError."""

    name: str  # of the context

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, deadline_s: float = 30.0
    ) -> bytes:
        """Return the body of an answer with a status below 300."""

    def lines(
        self, path: str, *, query: Mapping[str, str], first_byte_s: float, deadline_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a watch on a connection of its own: whole lines, until the server ends it.

        It raises when the headers do not come within `first_byte_s`, or the end not within `deadline_s`.
        """

    async def cluster_uid(self) -> str:
        """Return the uid of the namespace kube-system: the cluster's identity."""

    def trouble(self, error: OutgateError) -> Trouble:
        """Return what an error of `request` or `lines` means."""
