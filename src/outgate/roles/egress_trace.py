"""What `outgate trace` looks at for EgressIP: the view, the zones' databases, ovn-trace, and this machine if it is a
node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from outgate.model.egress_ip import ClusterView
from outgate.model.intent import Intent
from outgate.model.net import Prefix
from outgate.model.zone import Microflow, OvnSaid, Zone
from outgate.plan.egress_explain import explain_pod, find_pod
from outgate.roles.egress_view import ViewOptions, read_translations, view_of
from outgate.systems.kernel.tables import read_tables
from outgate.systems.ovn.topology import read_zone
from outgate.systems.ovn.trace_program import ovn_trace
from outgate.trace.egress import EgressTrace, Seen, trace_egress
from outgate.trace.ovn import OvnWalk, walk_ovn
from outgate.trace.question import Question, Target
from outgate.trace.router import OvnPacket

_NOBODY = "no northbound database was asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """Where a trace comes from: the view, and databases by the node of their zone. An empty name: a northbound one
    names itself, a southbound one is that of the pod's node. `here` is the node that this machine is; empty: none.
    """

    view: ViewOptions
    northbound: tuple[tuple[str, str], ...] = ()
    southbound: tuple[tuple[str, str], ...] = ()
    here: str = ""


def trace_pod(options: TraceOptions, intent: Intent, question: Question, to: Target) -> EgressTrace:
    """Return the walk of a pod's packet to a destination; nothing is written.

    Raises:
        IntentError: a snapshot can not be read.
        NotReady: objects or routes can not be read completely, or ovn-trace is not installed.
        Refused: a database is none, or ovn-trace refuses.
        Unreachable: a database, nft or netlink does not answer.
    """
    view = view_of(options.view, intent)
    view = with_this_machine(view, options.here) if options.here else view
    explained = explain_pod(view, str(question.subject), to.address)
    pod = find_pod(view, str(question.subject))
    addresses = pod.addresses if pod is not None and not pod.host_network else ()
    source = next((one for one in addresses if one.version == to.address.version), None)
    if pod is None or source is None:
        return trace_egress(explained, Seen(view=view))
    packet = OvnPacket(source=source, destination=to.address, protocol=to.protocol or "tcp", port=to.port)
    if any(to.address.version == one.version and to.address in one for one in _services(intent)):
        return trace_egress(
            explained, Seen(view=view)
        )  # load balancers give it another destination, and are not walked
    zones = _zones(options.northbound)
    ways = walk_ovn(zones, pod.node, packet)
    why_not = f"no database of {', '.join(zones)} has a port for {source}" if zones else _NOBODY
    said = _said(ways, {name or pod.node: target for name, target in options.southbound})
    seen = Seen(view=view, packet=packet, ways=ways, zones=frozenset(zones), why_not=why_not, said=said)
    return trace_egress(explained, seen)


def with_this_machine(view: ClusterView, node: str) -> ClusterView:
    """Return a view that knows the host of a node as this thread's network namespace shows it.

    Raises:
        NotReady, Refused, Unreachable: routes or nftables can not be read.
    """
    host = read_tables()
    known = MappingProxyType({**view.translations, node: read_translations(host)})
    return replace(view, hosts=MappingProxyType({**view.hosts, node: host}), translations=known)


def _zones(targets: Iterable[tuple[str, str]]) -> dict[str, Zone]:
    zones = [read_zone(target, node) for node, target in targets]
    return {zone.name: zone for zone in zones}


def _said(ways: Iterable[OvnWalk], southbound: Mapping[str, str]) -> dict[tuple[str, Microflow], OvnSaid]:
    """Return what ovn-trace says of every zone on the ways whose southbound database is known, asked once each."""
    entries = dict.fromkeys((leg.zone, leg.entry) for way in ways for leg in way.legs if leg.zone in southbound)
    return {(zone, entry): ovn_trace(southbound[zone], zone, entry) for zone, entry in entries}


def _services(intent: Intent) -> tuple[Prefix, ...]:
    return intent.network.service_networks if intent.network is not None else ()
