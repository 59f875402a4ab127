"""What questions about EgressIP are answered from: objects as manifests or from an API server, and nodes' snapshots."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from outgate.model.egress_ip import DEFAULT_ROUTING, ClusterView, Routing
from outgate.model.host_table import HostSnapshot
from outgate.model.intent import Intent
from outgate.model.sdn import Sdn
from outgate.roles.gateway import read_intent
from outgate.roles.options import GatewayOptions
from outgate.sources.host_snapshot import snapshots, written
from outgate.sources.must_gather import SDN_KINDS, files_of, read_must_gather, root_of
from outgate.sources.openshift_sdn import read_sdn
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
        intent=objects_of(options.objects) if intent is None else intent,
        hosts=MappingProxyType(hosts),
        routing=options.routing,
    )


def objects_of(options: GatewayOptions) -> Intent:
    """Return the objects: of an API server, of a must-gather, or of manifests.

    Raises:
        NotReady: they can not be read completely.
    """
    if options.kubeconfig is None and (root := root_of(options.manifests)) is not None:
        return read_must_gather(root)
    return read_intent(options)


def sdn_of(options: GatewayOptions) -> Sdn:
    """Return what openshift-sdn's objects say, in a must-gather or in manifests.

    Raises:
        IntentError: a file can not be read.
    """
    root = root_of(options.manifests)
    return read_sdn(files_of(root, SDN_KINDS) if root is not None else [options.manifests])


def host_snapshot(node: str) -> bytes:
    """Return the file that tells of this thread's network namespace.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    return written(HostSnapshot(node=node, taken_s=time.time(), host=read_tables()))
