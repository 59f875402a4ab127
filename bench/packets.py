"""The data path at 4,000 tenants beside 1, and new flows beside the script's linear rules."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from types import MappingProxyType

from bench.figure import Figure, at_most_times, faster
from bench.scene import many_tenants
from outgate.control.round import Asked, decide, settle
from outgate.lab import addresses
from outgate.lab.manifests import Manifests, egress_gateway
from outgate.lab.node import Pod
from outgate.lab.topology import Laboratory
from outgate.lab.waiting import eventually
from outgate.model.intent import Intent
from outgate.model.ledger import Holding, Ledger
from outgate.model.state import Moment
from outgate.roles.machine import GatewayMachine
from outgate.sources.manifests import ManifestSource

COUNT = 4000
CONNECTIONS, FLOWS = 400, 3000


def data_path() -> Iterator[Figure]:
    """A pod of the laboratory behind the last of 4,000 tenants, beside the same pod with one tenant: median time of 400
    connections with a small answer each. New flows: 3,000 datagrams, each from a port of its own, until all are
    answered; rival: the script's two rules for each of 4,000 tenants, the pod's tenant last.
    """
    with _laboratory(1) as pod:
        single = _latency_ms(pod)
    with _laboratory(COUNT) as pod:
        many, ours = _latency_ms(pod), _flows_per_s(pod)
    with _script(COUNT) as pod:
        script = _flows_per_s(pod)
    yield at_most_times("packets.connect-p50-at-4000-tenants", many, ("at 1 tenant", single), 1.1, unit="ms")
    yield faster("packets.time-per-new-flow", 1000 / ours, ("the script's rules", 1000 / script), 20, unit="ms")


def _latency_ms(pod: Pod) -> float:
    return median(pod.agent.fetch(addresses.OUTSIDE4).ms for _ in range(CONNECTIONS))


def _flows_per_s(pod: Pod) -> float:
    began = time.perf_counter()
    sent = pod.agent.udp(addresses.OUTSIDE4, count=FLOWS, interval_s=0.0, fresh=True)
    assert sent.answered > FLOWS * 0.9, sent
    return sent.answered / (time.perf_counter() - began)


@contextmanager
def _laboratory(tenants: int) -> Iterator[Pod]:
    """Yield a pod of the laboratory whose gateway serves so many tenants, the pod's own the last by name."""
    with tempfile.TemporaryDirectory() as name, Laboratory(nodes=1, namespaces=("zz-last",)) as lab:
        manifests = Manifests(Path(name))
        manifests.put_all(lab)
        manifests.put(egress_gateway(announce={"probes": 0}))
        source = ManifestSource(Path(name))
        intent = source.read()
        source.close()
        others = many_tenants(tenants - 1).tenants
        whole = Intent(
            gateways=intent.gateways,
            tenants=(*others, *intent.tenants),
            nodes=intent.nodes,
            namespaces=intent.namespaces,
            pods=intent.pods,
            network=intent.network,
        )
        with lab.gw.inside():
            machine = GatewayMachine()
            ledger = Ledger()
            for _ in range(3):
                decided = decide(machine, Asked(intent=whole, ledger=ledger, moment=Moment(now_s=1.0)))
                assert decided.claims is not None
                holdings = {
                    a: Holding(tenant=c.tenant, link=c.link, egress=c.egress)
                    for a, c in decided.claims.by_address.items()
                }
                settle(machine, decided, lambda _: None)
                ledger = replace(decided.ledger, holdings=MappingProxyType(holdings))
            machine.close()
        pod = lab.pods[0]
        expected = lab.tenants[0].egress4
        eventually(lambda: pod.agent.fetch(addresses.OUTSIDE4).source == expected, "the pod is served")
        yield pod


@contextmanager
def _script(tenants: int) -> Iterator[Pod]:
    """Yield a pod that leaves by the script's rules: marks and SNAT in one linear list each, the pod's tenant last."""
    with Laboratory(nodes=1, namespaces=("zz-last",)) as lab:
        lab.forward_plainly()
        hop, egress = lab.tenants[0].next_hop4, lab.tenants[0].egress4
        lab.gw.run(["ip", "link", "add", "link", "enp1s0", "name", "macvlan-last", "type", "macvlan", "mode", "bridge"])
        lab.gw.run(["ip", "addr", "add", f"{hop}/32", "dev", "macvlan-last"])
        lab.gw.run(["ip", "link", "set", "macvlan-last", "up"])
        lab.gw.run(["ip", "addr", "add", f"{egress}/32", "dev", "enp7s0"])
        for link in ("all", "enp1s0"):
            lab.gw.sysctl(f"net/ipv4/conf/{link}/arp_ignore", 1)
        names = [f"macvlan-{number:x}" for number in range(tenants - 1)] + ["macvlan-last"]
        ips = [ip_address("10.65.16.0") + number for number in range(tenants - 1)] + [egress]
        marks = "\n".join(f"-A PREROUTING -i {n} -j MARK --set-mark {i + 1}" for i, n in enumerate(names))
        nats = "\n".join(
            f"-A POSTROUTING -o enp7s0 -m mark --mark {i + 1} -j SNAT --to-source {ip}" for i, ip in enumerate(ips)
        )
        lab.gw.run(["iptables-restore"], input=f"*mangle\n{marks}\nCOMMIT\n*nat\n{nats}\nCOMMIT\n")
        pod = lab.pods[0]
        eventually(lambda: pod.agent.fetch(addresses.OUTSIDE4).source == egress, "the pod is served")
        yield pod
