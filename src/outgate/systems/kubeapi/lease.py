"""Who leads: a Lease (coordination.k8s.io/v1) that client-go understands and that counts by its own clock.

Expiry is judged by what was observed to change, never by the times in the object, which other clocks wrote. A leader
may write until `renew_s` after it last asked for a renewal that was granted, counted through suspends: one that was
held still and wakes up finds its time over before it writes another word.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from outgate.apiserver.errors import Conflict, Missing
from outgate.apiserver.server import Body, Resource, Server, decoded
from outgate.model.errors import IntentError, OutgateError

LEASES = Resource(plural="leases", group="coordination.k8s.io")
_JITTER = 1.2  # as client-go has it: those who wait do not ask at once


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimings:
    """Seconds. A killed leader is followed within `duration_s` and two retries; OpenShift's own are 137, 107 and 26."""

    duration_s: float = 8.0
    renew_s: float = 5.0
    retry_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.retry_s < self.renew_s < self.duration_s:
            text = f"a lease of {self.duration_s:g} s can not be renewed within {self.renew_s:g} s, asked every"
            raise IntentError(f"{text} {self.retry_s:g} s; each must be less than the one before")


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Spec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _Spec = _Spec()


class Lease:
    """One candidate for one lease. For one event loop."""

    def __init__(
        self, server: Server, resource: tuple[str, str], identity: str, timings: LeaseTimings | None = None
    ) -> None:
        """Be `identity`, which must be this process's alone, for the lease of that namespace and name."""
        self._server, self._identity = server, identity
        self._namespace, self._name = resource
        self._timings = timings or LeaseTimings()
        self._seen, self._seen_s = _Spec(), float("-inf")  # what was observed, and since when
        self._until_s = float("-inf")
        self._turned_s = _now_s()

    @property
    def is_alive(self) -> bool:
        """Whether `run` goes on: each turn ends within the deadline of a renewal and a retry."""
        timings = self._timings
        return _now_s() < self._turned_s + timings.duration_s + timings.renew_s + timings.retry_s

    @property
    def leads(self) -> bool:
        """Whether this candidate may write, at this very moment."""
        return _now_s() < self._until_s

    async def run(self, changed: Callable[[], None]) -> None:
        """Acquire and renew, for ever; cancel it. `changed` is called when leading begins or ends."""
        led = False
        while True:
            asked_s = self._turned_s = _now_s()
            try:
                async with asyncio.timeout(self._timings.renew_s):
                    is_granted = await self._ask()
            except (OutgateError, TimeoutError):
                is_granted = False
            if is_granted:
                self._until_s = asked_s + self._timings.renew_s
            if self.leads != led:
                led = self.leads
                changed()
            jitter = 1.0 if led else random.uniform(1.0, _JITTER)
            await asyncio.sleep(self._timings.retry_s * jitter)

    async def release(self) -> None:
        """Let the next one lead at once. What fails is no harm: the lease runs out."""
        if not self.leads:
            return
        self._until_s = float("-inf")
        try:
            found = await self._read()
            if found.spec.holder_identity == self._identity:
                spec = msgspec.structs.replace(found.spec, holder_identity="", lease_duration_seconds=1)
                await self._write(found.metadata.resource_version, spec)
        except OutgateError:
            return

    async def _ask(self) -> bool:
        """Try once to acquire or renew.

        Raises:
            OutgateError: the server does not answer, or refuses.
        """
        try:
            found = await self._read()
        except Missing:
            return await self._create()
        held, now_s = found.spec, _now_s()
        if held != self._seen:
            self._seen, self._seen_s = held, now_s
        is_ours = held.holder_identity == self._identity
        lasts_s = held.lease_duration_seconds or 0
        if held.holder_identity and not is_ours and now_s < self._seen_s + max(lasts_s, self._timings.duration_s):
            return False
        spec = self._spec(held if is_ours else None, (held.lease_transitions or 0) + (not is_ours))
        try:
            await self._write(found.metadata.resource_version, spec)
        except Conflict:
            return False  # somebody was quicker
        self._seen, self._seen_s = spec, now_s
        return True

    async def _create(self) -> bool:
        body = self._body("", self._spec(None, 0))
        try:
            await self._server.request("POST", LEASES.path(namespace=self._namespace), body=body)
        except Conflict:
            return False
        return True

    async def _read(self) -> _Lease:
        path = LEASES.path(self._name, namespace=self._namespace)
        return decoded(path, await self._server.request("GET", path), _Lease)

    async def _write(self, version: str, spec: _Spec) -> None:
        path = LEASES.path(self._name, namespace=self._namespace)
        await self._server.request("PUT", path, body=self._body(version, spec))

    def _spec(self, before: _Spec | None, transitions: int) -> _Spec:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # six digits, always: the server takes no fewer
        return _Spec(
            holder_identity=self._identity,
            lease_duration_seconds=round(self._timings.duration_s),
            acquire_time=before.acquire_time if before is not None else now,
            renew_time=now,
            lease_transitions=transitions,
        )

    def _body(self, version: str, spec: _Spec) -> Body:
        metadata = {"name": self._name, "namespace": self._namespace}
        if version:
            metadata["resourceVersion"] = version
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        return Body(msgspec.json.encode(lease))


def _now_s() -> float:
    """Return seconds since the boot, suspends counted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
