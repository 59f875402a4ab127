"""The data path at 4,000 tenants beside 1, and new flows beside the script's linear rules."""

from __future__ import annotations

import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from statistics import median
from types import MappingProxyType

from bench import ring
from bench.figure import Figure, at_most_times, faster
from bench.scene import many_tenants
from outgate.control.round import Asked, decide, settle
from outgate.lab import addresses
from outgate.lab.manifests import Manifests, egress_gateway
from outgate.lab.node import LINK
from outgate.lab.topology import Laboratory
from outgate.lab.waiting import eventually
from outgate.model.intent import Intent
from outgate.model.ledger import Holding, Ledger
from outgate.model.state import Moment
from outgate.roles.machine import GatewayMachine
from outgate.sources.manifests import ManifestSource

COUNT = 4000
BLOCKS, CONNECTIONS, RUNS = 10, 400, 5
PORT = 7000  # where the server outside takes connections


def data_path() -> Iterator[Figure]:
    """A pod behind the last of 4,000 tenants, beside a pod of another laboratory with one tenant: median time of 4,000
    TCP handshakes, ten blocks of each in turns, since the machine is never the same for long. New flows: one packet for
    each of 12,000, from the pod's worker to the tenant's MAC, until a counter outside has seen all of them; median of
    5, and a flow's share of it. Rival: the script's two rules for each of 4,000 tenants, the pod's tenant last.
    """
    with _laboratory(1) as other, _laboratory(COUNT) as lab:
        blocks = [(_handshakes_us(other), _handshakes_us(lab)) for _ in range(BLOCKS)]
        single, many = (median(took for block in column for took in block) for column in zip(*blocks, strict=True))
        ours = _flow_us(lab)
    with _script(COUNT) as lab:
        script = _flow_us(lab)
    yield at_most_times("packets.connect-p50-at-4000-tenants", many, ("at 1 tenant", single), 1.1, unit="us")
    yield faster("packets.time-per-new-flow", ours, ("the script's rules", script), 20, unit="us")


def _handshakes_us(lab: Laboratory) -> list[float]:
    """Return how long each of some handshakes took; a connection ends with a reset, so that none is left waiting."""
    took = []
    with lab.pods[0].net.inside():
        for _ in range(CONNECTIONS):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                began = time.perf_counter()
                client.connect((str(addresses.OUTSIDE4), PORT))
                took.append((time.perf_counter() - began) * 1e6)
    return took


def _flow_us(lab: Laboratory) -> float:
    """Return a new flow's share of the time that many take; every one of them must have arrived translated."""
    node, tenant = lab.nodes["n1"], lab.tenants[0]
    mac = node.neighbour(tenant.next_hop4)
    assert mac is not None
    ring.count_and_drop(lab.ext, LINK, tenant.egress4)
    took = []
    for _ in range(RUNS):
        lab.gw.run(["conntrack", "--flush"])  # each packet is to begin a flow
        took.append(ring.seconds_of_new_flows(node.net, LINK, mac, lab.pods[0].v4))
        arrived = ring.arrived(lab.ext)
        assert arrived == ring.PACKETS, f"{arrived} of {ring.PACKETS} packets arrived"
    return median(took) / ring.PACKETS * 1e6


@contextmanager
def _laboratory(tenants: int) -> Iterator[Laboratory]:
    """Yield the laboratory whose gateway serves so many tenants, that of its pod the last by name."""
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
        yield lab


@contextmanager
def _script(tenants: int) -> Iterator[Laboratory]:
    """Yield the laboratory whose pod leaves by the script's rules: marks and SNAT in one linear list each, the pod's
    tenant last.
    """
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
        yield lab
