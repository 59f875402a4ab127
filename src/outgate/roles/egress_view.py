"""What questions about EgressIP are answered from: objects as manifests or from an API server, and nodes' snapshots."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType

from outgate.model.egress_ip import ClusterView
from outgate.model.errors import NotReady, Refused
from outgate.model.firewall import Firewall
from outgate.model.host_table import HostSnapshot, HostTables, RefusedLink, Translations
from outgate.model.intent import Intent
from outgate.model.placement import Moved
from outgate.model.rivals import Rivals
from outgate.model.routing import Routing
from outgate.model.sdn import Sdn
from outgate.plan.egress_ip import MANAGEMENT_PORT
from outgate.plan.forwarding import refusing
from outgate.plan.routing import DEFAULT
from outgate.roles.cluster_source import open_server, read_once
from outgate.roles.gateway import read_intent
from outgate.roles.options import GatewayOptions, place_of
from outgate.sources.history import read_history
from outgate.sources.host_snapshot import snapshots, told_host, written
from outgate.sources.kube.kinds import HISTORY, NODES_TOLD
from outgate.sources.kube.rivals import read_rivals_live
from outgate.sources.must_gather import HISTORY_KINDS, SDN_KINDS, files_of, read_must_gather, rival_files, root_of
from outgate.sources.openshift_sdn import read_sdn
from outgate.sources.rivals import read_rivals
from outgate.systems.iptables import read as firewalls
from outgate.systems.kernel.tables import read_tables
from outgate.systems.nft import read as nft
from outgate.systems.nft.nic_snat import read_nic_snats
from outgate.systems.nft.table import NODE, set_types
from outgate.systems.statefile.documents import Documents

NODES = "nodes"  # where snapshots are looked for beside the manifests


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """Where a view comes from: objects as for a gateway, and a directory of snapshots."""

    objects: GatewayOptions
    nodes: Path | None = None  # None: the folder `nodes` beside the manifests, and what a live cluster's nodes tell
    routing: Routing | None = None


def view_of(options: ViewOptions, intent: Intent | None = None) -> ClusterView:
    """Return the view; nothing is written.

    Raises:
        NotReady: the objects can not be read completely.
        IntentError: a snapshot can not be read.
    """
    beside = options.objects.manifests / NODES
    place = options.nodes or (beside if options.objects.kubeconfig is None and beside.is_dir() else None)
    hosts = _told(options.objects)
    files = snapshots(place) if place is not None else {}
    hosts |= {name: one.host for name, one in files.items()}
    known = {name: one.translations for name, one in files.items() if one.translations is not None}
    return ClusterView(
        intent=objects_of(options.objects) if intent is None else intent,
        hosts=MappingProxyType(hosts),
        routing=options.routing,
        translations=MappingProxyType(known),
    )


def _told(options: GatewayOptions) -> dict[str, HostTables]:
    """Return the hosts that the role on each node tells of, in a live cluster that has that role; else none."""
    if options.kubeconfig is None:
        return {}
    try:
        told = read_once(options, Documents(place_of(options).state), NODES_TOLD).egress_nodes
    except NotReady:
        return {}
    found = {one.name: told_host(one.host) for one in told}
    return {name: host for name, host in found.items() if host is not None}


def moves_of(options: GatewayOptions) -> tuple[Moved, ...]:
    """Return what became of egress IPs, as the cluster role has kept it: of an API server, a must-gather or manifests.

    Raises:
        IntentError: a file can not be read.
        NotReady: the API server does not answer, or the role never ran there.
    """
    found: tuple[Moved, ...] | None
    if options.kubeconfig is None:
        root = root_of(options.manifests)
        found = read_history(files_of(root, HISTORY_KINDS) if root is not None else [options.manifests])
    else:
        routings = read_once(options, Documents(place_of(options).state), HISTORY).egress_routings
        default = next((one.served for one in routings if one.name == DEFAULT), None)
        found = default.standing.moves if default is not None and default.standing is not None else None
    if found is None:
        where = options.manifests if options.kubeconfig is None else "this cluster"
        raise NotReady(f"{where}: there is no EgressRouting `default`, where outgate's cluster role keeps the history")
    return found


def objects_of(options: GatewayOptions) -> Intent:
    """Return the objects: of an API server, of a must-gather, or of manifests.

    Raises:
        NotReady: they can not be read completely.
    """
    if options.kubeconfig is None and (root := root_of(options.manifests)) is not None:
        return read_must_gather(root)
    return read_intent(options)


def rivals_at(options: GatewayOptions) -> Rivals:
    """Return what else has a say about packets that leave, of the same place as the objects; what an API server does
    not tell stands in `unknown`.

    Raises:
        IntentError: a file can not be read.
        Unreachable: the API server can not be opened.
    """
    if options.clusters:
        return Rivals(
            unknown=(("EgressFirewall, NetworkPolicy and others", "of several clusters: name one by --context"),)
        )
    if options.kubeconfig is not None:
        return read_rivals_live(open_server(options, options.contexts))
    root = root_of(options.manifests)
    return read_rivals(rival_files(root) if root is not None else [options.manifests])


def sdn_of(options: GatewayOptions) -> Sdn:
    """Return what openshift-sdn's objects say, in a must-gather or in manifests.

    Raises:
        IntentError: a file can not be read.
    """
    root = root_of(options.manifests)
    return read_sdn(files_of(root, SDN_KINDS) if root is not None else [options.manifests])


def host_snapshot(node: str) -> bytes:
    """Return the file that tells of this thread's network namespace; of nftables only where there is the right to read.

    Raises:
        NotReady: the tables kept changing while they were read.
        Unreachable: netlink does not answer.
    """
    host = read_tables()
    try:
        translations: Translations | None = read_translations(host)
    except (Refused, NotReady):
        translations = None
    return written(HostSnapshot(node=node, taken_s=time.time(), host=host, translations=translations))


def read_translations(host: HostTables) -> Translations:
    """Return what gives packets their source and lets them out, in this thread's network namespace, which is `host`'s.

    Raises:
        NotReady: nft is missing, or too old.
        Refused: the right to read nftables is missing.
        Unreachable: nft does not answer.
    """
    table = nft.read()
    ours = frozenset(set_types(NODE))
    elements = frozenset(one for one in table.elements if one.set in ours) if table.table is not None else None
    firewall = firewalls.read()
    return Translations(
        elements=elements,
        by_nic=read_nic_snats(),
        others=firewall.nats,
        refused=tuple(_refused(host, firewall)),
    )


def _refused(host: HostTables, firewall: Firewall) -> Iterator[RefusedLink]:
    """Yield the links that routes lead to, and by which chains of others let no pod's packet out."""
    links = {route.link for route in host.routes} - {None, MANAGEMENT_PORT}
    for link, version in product(sorted(one for one in links if one is not None), (4, 6)):
        for chain in refusing(firewall, version, MANAGEMENT_PORT, link):
            yield RefusedLink(link=link, version=version, place=chain.place, jumps=chain.jumps)
