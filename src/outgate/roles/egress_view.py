"""What questions about EgressIP are answered from: objects as manifests or from an API server, and nodes' snapshots."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from outgate.model.egress_ip import DEFAULT_ROUTING, ClusterView, Routing
from outgate.model.host_table import HostSnapshot
from outgate.model.intent import Intent
from outgate.roles.gateway import read_intent
from outgate.roles.options import GatewayOptions
from outgate.sources.host_snapshot import snapshots, written
from outgate.systems.kernel.tables import read_tables

NODES = "nodes"  # where snapshots are looked for beside the manifests


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """Where a view comes from: objects as for a gateway, and a directory of snapshots."""

    objects: GatewayOptions
    nodes: Path | None = None  # None: the folder `nodes` beside the manifests, if there is one
    routing: Routing = DEFAULT_ROUTING


def view_of(options: ViewOptions, intent: Intent | None = None) -> ClusterView:
    """Return the view; nothing is written.

    Raises:
        NotReady: the objects can not be read completely.
        IntentError: a snapshot can not be read.
    """
    beside = options.objects.manifests / NODES
    place = options.nodes or (beside if options.objects.kubeconfig is None and beside.is_dir() else None)
    hosts = {name: one.host for name, one in snapshots(place).items()} if place is not None else {}
    return ClusterView(
        intent=read_intent(options.objects) if intent is None else intent,
        hosts=MappingProxyType(hosts),
        routing=options.routing,
    )


def host_snapshot(node: str) -> bytes:
    """Return the file that tells of this thread's network namespace.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    return written(HostSnapshot(node=node, taken_s=time.time(), host=read_tables()))
