"""Traffic that never stops: every pod sends datagrams of one flow and opens new connections, over both families.

Each tenant has ports of its own outside, so that the counter there can tell whose packet it was.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from outgate.lab import addresses
from outgate.lab.addresses import Address, TenantAddresses
from outgate.lab.agent import Held
from outgate.lab.node import Pod
from outgate.lab.topology import Laboratory

TARGETS = (addresses.OUTSIDE4, addresses.OUTSIDE6)

_DATAGRAM_S = 0.05  # between two datagrams of a pod to one target
_CONNECT_S = 1.0  # until a connection attempt is given up
_PAUSE_S = 0.1  # between two attempts of a pod: each costs the host a little and the guest much
_UDP, _HTTP = 5001, 8081  # the first tenant's ports, of those on which outgate.lab.server listens


class Traffic:
    """The traffic of all pods of a laboratory, from making it to closing it."""

    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab
        self._ended = threading.Event()
        self.flows: dict[Pod, tuple[Held, ...]] = {
            pod: tuple(
                pod.agent.hold(target, kind="udp", port=_UDP + self._number(pod), interval_s=_DATAGRAM_S)
                for target in TARGETS
            )
            for pod in lab.pods
        }
        self._threads = [threading.Thread(target=self._connect, args=(pod,), daemon=True) for pod in lab.pods]
        for thread in self._threads:
            thread.start()

    def served(self, pod: Pod) -> bool:
        """Whether a pod's new connections are seen as its tenant's egress IPs, over both families, now."""
        fetched = [pod.agent.fetch(target, port=self._port(pod), timeout_s=_CONNECT_S) for target in TARGETS]
        return {page.source for page in fetched} == set(self.egress_ips(pod))

    def answered(self) -> dict[tuple[str, str], int]:
        """Return how many datagrams of each flow were answered so far."""
        return {
            (f"{pod.namespace}/{pod.name}", str(target)): flow.look().answered
            for pod, flows in self.flows.items()
            for target, flow in zip(TARGETS, flows, strict=True)
        }

    def strangers(self) -> dict[str, int]:
        """Return packets that were seen outside with an address that is not their tenant's, by address."""
        return {
            f"{tenant.namespace} as {source}": packets
            for number, tenant in enumerate(self._lab.tenants)
            for port in (_UDP + number, _HTTP + number)
            for source, packets in self._lab.outside.seen_at(port).items()
            if source not in (tenant.egress4, tenant.egress6)
        }

    def egress_ips(self, pod: Pod) -> tuple[Address, Address]:
        """Return as whom a pod is to be seen."""
        tenant = self._tenants()[pod.namespace]
        return tenant.egress4, tenant.egress6

    def close(self) -> None:
        """End it."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for flow in self._all_flows():
            flow.stop()

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, pod: Pod) -> None:
        while not self._ended.is_set():
            for target in TARGETS:
                pod.agent.fetch(target, port=self._port(pod), timeout_s=_CONNECT_S)
                self._ended.wait(_PAUSE_S)

    def _port(self, pod: Pod) -> int:
        return _HTTP + self._number(pod)

    def _number(self, pod: Pod) -> int:
        return list(self._tenants()).index(pod.namespace)

    def _tenants(self) -> dict[str, TenantAddresses]:
        return {tenant.namespace: tenant for tenant in self._lab.tenants}

    def _all_flows(self) -> Iterator[Held]:
        for flows in self.flows.values():
            yield from flows
