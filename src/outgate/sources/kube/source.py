"""The source of a daemon that lives on an API server: a thread with reflectors, and parts that are published whole.

The daemon's thread reads what is published, never waits for the wire, and is woken through a descriptor. Kinds that did
not change keep their very tuples from one Intent to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from outgate.apiserver.server import OpenServer, Server
from outgate.model import intent
from outgate.model.errors import NotReady, OutgateError
from outgate.model.intent import Intent
from outgate.model.status import Health, SourceStatus
from outgate.model.why import Finding, Severity
from outgate.sources.convert import ModelObject
from outgate.sources.kube.kinds import GATEWAY, PODS, Kinds
from outgate.sources.kube.lastgood import LastGood
from outgate.sources.kube.reflector import Part, Reflector, State, Surroundings
from outgate.sources.kube.timings import Timings
from outgate.sources.merge import the_network


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What is known from before. `cluster` is the uid that was recorded, empty the first time; `record` writes it down.
    `last_good` is in force until the server was read whole.
    """

    cluster: str = ""
    record: Callable[[str], None] = lambda _: None
    last_good: LastGood | None = None


NOTHING = Remembered()
DEFAULTS = Timings()
_KEEP_AFTER_S = 2.0  # an intent that changes often is written down this often
_LOOK_AT_CREDENTIALS_S = 60.0
_STALE_S = 90.0  # each kind is heard more often, one that is absent too


class _OtherCluster(OutgateError):
    """Another cluster answers than the one that was recorded."""


class KubeSource:
    """Lists and watches what a gateway needs from one cluster. `read`, `changed` and `close` are for one thread."""

    def __init__(
        self,
        open_server: OpenServer,
        *,
        gateway: str = "",
        kinds: Kinds = GATEWAY,
        remembered: Remembered = NOTHING,
        timings: Timings = DEFAULTS,
    ) -> None:
        """Describe it; the thread starts with the first `fileno` or `read`. `gateway` empty: the only one there is."""
        self._last_good = remembered.last_good
        self._from_disk = self._last_good.read() if self._last_good is not None else None
        self._open_server, self._gateway, self._kinds = open_server, gateway, kinds
        self._uid, self._record, self._timings = remembered.cluster, remembered.record, timings
        self._parts: Mapping[str, Part] = MappingProxyType({one.kind: Part(kind=one.kind) for one in kinds.always})
        self._seen: Mapping[str, Part] = {}
        self._intent = Intent()
        self._other_cluster: tuple[Finding, ...] = ()
        self._failure = ""
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._pods: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._started_s = time.monotonic()
        self._keeping: asyncio.TimerHandle | None = None
        self._context = ""
        self._credentials: tuple[Finding, ...] = ()
        self._told: tuple[Finding, ...] = ()  # what stands in the intent of these

    def read(self, *, look_at_all: bool = True) -> Intent:
        """Return all that is asked now: the very same value as before while nothing changed.

        Raises:
            NotReady: a kind was never read whole; the message names each and since when.
        """
        del look_at_all  # everything is always looked at: the server tells
        self._start()
        parts, told = self._parts, (*self._other_cluster, *self._credentials)
        missing = [one for one in parts.values() if not one.synced]
        if missing or self._failure:
            if self._from_disk is not None and not self._other_cluster:
                return self._from_disk
            raise NotReady(self._failure or self._missing(missing))
        if self._is_news(parts, told):
            self._intent, self._told = self._made(parts, told), told
            self._keep_soon()
        self._seen, self._from_disk = parts, None
        return self._intent

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when `changed` should be asked."""
        self._start()
        return self._reader

    def changed(self) -> bool:
        """Consume the wake-ups; say whether there were any."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._reader, 4096))
        return False

    def parts(self) -> Mapping[str, Part]:
        """Return each kind as it stands: state, since when, objects, counts, the last error."""
        return self._parts

    def close(self) -> None:
        """End the thread and its connections."""
        if self._thread is not None:
            if self._loop is not None and self._ended is not None:
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()
            self._thread = None
        for end in (self._reader, self._writer):
            with contextlib.suppress(OSError):
                os.close(end)

    @property
    def is_refused(self) -> bool:
        """Whether waiting is no use: another cluster answers, or the connection can not even be described."""
        return bool(self._other_cluster or self._failure)

    def statuses(self) -> tuple[SourceStatus, ...]:
        """Return how fresh each kind is: a watch that is alive is heard at least once in a minute."""
        now_s, found = time.monotonic(), []
        for one in self._parts.values():
            age_s = now_s - one.heard_s if one.heard_s else None
            is_well = one.state in (State.WATCHING, State.LISTING) or (one.state is State.ABSENT and one.synced)
            is_fresh = one.synced and age_s is not None and age_s < _STALE_S
            words = [] if is_well else [one.state.value.lower(), *([one.error] if one.error else [])]
            found.append(
                SourceStatus(
                    name=self._context or "API server",
                    part=one.kind,
                    health=Health.OK if is_well and is_fresh else Health.DEGRADED,
                    age_s=age_s,
                    objects={"object": len(one.objects)},
                    error=": ".join(words),
                )
            )
        return tuple(found)

    def _keep_soon(self) -> None:
        """Keep the intent for the next boot, soon, in the connection's thread: who waits for a change goes first."""
        if self._last_good is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._set_keeping)

    def _set_keeping(self) -> None:
        if self._keeping is None and self._loop is not None:
            self._keeping = self._loop.call_later(_KEEP_AFTER_S, self._keep)

    def _keep(self) -> None:
        """Write the intent down; a disk that does not take it stops nothing, and is tried again with the next."""
        self._keeping = None
        assert self._last_good is not None  # it is why we are called
        with contextlib.suppress(OutgateError):
            self._last_good.write(self._intent)

    def _missing(self, missing: Sequence[Part]) -> str:
        if self._other_cluster:
            return f"{self._other_cluster[0].text}; {self._other_cluster[0].fix}"
        waited_s = time.monotonic() - self._started_s
        words = [f"{one.kind} ({one.state.value}{': ' + one.error if one.error else ''})" for one in missing]
        return f"not read from the API server yet, for {waited_s:.0f} s: {', '.join(words)}"

    def _is_news(self, parts: Mapping[str, Part], told: tuple[Finding, ...]) -> bool:
        """Return whether something that stands in the Intent is another now; states and counts do not."""
        if parts.keys() != self._seen.keys() or told != self._told:
            return True
        return any(
            one.objects is not self._seen[kind].objects or one.findings is not self._seen[kind].findings
            for kind, one in parts.items()
        )

    def _made(self, parts: Mapping[str, Part], told: tuple[Finding, ...]) -> Intent:
        def of(kind: str) -> tuple[ModelObject, ...]:
            return parts[kind].objects if kind in parts else ()

        return Intent(
            gateways=cast("tuple[intent.EgressGateway, ...]", of("EgressGateway")),
            tenants=cast("tuple[intent.EgressTenant, ...]", of("EgressTenant")),
            pools=cast("tuple[intent.EgressPool, ...]", of("EgressPool")),
            claims=cast("tuple[intent.EgressClaim, ...]", of("EgressClaim")),
            nodes=cast("tuple[intent.Node, ...]", of("Node")),
            namespaces=cast("tuple[intent.Namespace, ...]", of("Namespace")),
            pods=cast("tuple[intent.Pod, ...]", of("Pod")),
            pods_known=PODS.kind in parts,
            network=the_network(of("Network")),
            external_routes=cast("tuple[intent.ExternalRoute, ...]", of("AdminPolicyBasedExternalRoute")),
            egress_ips=cast("tuple[intent.EgressIP, ...]", of("EgressIP")),
            egress_routings=cast("tuple[intent.EgressRouting, ...]", of("EgressRouting")),
            egress_nodes=cast("tuple[intent.EgressNode, ...]", of("EgressNode")),
            refusals=(*told, *(finding for one in parts.values() for finding in one.findings)),
            unread=tuple(unread for one in parts.values() for unread in one.unread),
        )

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outgate-kube", daemon=True)
            started = threading.Event()
            self._on_start = started.set
            self._thread.start()
            started.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._reflect())
        except OutgateError as error:  # the connection could not be opened: a kubeconfig that can not be read
            self._failure = str(error)
            self._wake()
        finally:
            self._on_start()

    async def _reflect(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._on_start()
        async with self._open_server() as server, asyncio.TaskGroup() as group:
            around = Surroundings(
                server=server,
                timings=self._timings,
                check_cluster=lambda: self._check_cluster(server),
                publish=lambda part: self._publish(part, group, around),
            )
            self._context = server.name
            tasks = [group.create_task(Reflector(one, around).run()) for one in self._kinds.always]
            tasks.append(group.create_task(self._look_at_credentials(server)))
            await self._ended.wait()
            for task in [*tasks, *([self._pods] if self._pods else [])]:
                task.cancel()
            if self._keeping is not None:
                self._keeping.cancel()
                self._keep()

    async def _look_at_credentials(self, server: Server) -> None:
        """Tell of credentials that end soon; for ever."""
        while True:
            found = server.findings()
            if found != self._credentials:
                self._credentials = found
                self._wake()
            await asyncio.sleep(_LOOK_AT_CREDENTIALS_S)

    async def _check_cluster(self, server: Server) -> None:
        """Refuse a server of another cluster, before anything of it is believed."""
        uid = await server.cluster_uid()
        if not self._uid:
            self._record(uid)
            self._uid = uid
        if uid == self._uid:
            self._other_cluster = ()
            return
        text = f"the context {server.name} leads to the cluster {uid}, and was the cluster {self._uid} before"
        fix = "use the kubeconfig of that cluster, or forget the recorded cluster; nothing is changed meanwhile"
        self._other_cluster = (Finding("OtherCluster", server.name, text, Severity.REFUSAL, fix),)
        self._wake()
        raise _OtherCluster(text)

    def _publish(self, part: Part, group: asyncio.TaskGroup, around: Surroundings) -> None:
        """Put one part among the others, in the thread of the loop; wake the daemon when its Intent may differ."""
        old = self._parts.get(part.kind)
        if part.kind == PODS.kind and self._pods is None and self._kinds.pods_when is not None:
            return  # its last word, after nobody needs it any more
        self._parts = MappingProxyType({**self._parts, part.kind: part})
        is_news = old is None or old.objects is not part.objects or old.findings is not part.findings
        if part.kind in ("EgressTenant", "EgressGateway", "EgressIP") and is_news and self._kinds.pods_when is not None:
            self._switch_pods(group, around, self._kinds.pods_when)
        if is_news or (old is not None and old.synced != part.synced):
            self._wake()

    def _switch_pods(
        self, group: asyncio.TaskGroup, around: Surroundings, pods_when: Callable[[Intent, str], bool]
    ) -> None:
        """Read pods while somebody needs them, and forget them when nobody does."""
        is_needed = pods_when(self._made(self._parts, ()), self._gateway)
        if is_needed and self._pods is None:
            self._parts = MappingProxyType({**self._parts, PODS.kind: Part(kind=PODS.kind, since_s=time.monotonic())})
            self._pods = group.create_task(Reflector(PODS, around).run())
        elif not is_needed and self._pods is not None:
            self._pods.cancel()
            self._pods = None
            self._parts = MappingProxyType({kind: one for kind, one in self._parts.items() if kind != PODS.kind})

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # it is full: the daemon is woken anyway
            os.write(self._writer, b"!")
