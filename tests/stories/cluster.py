"""The cluster of the stories: two nodes, two namespaces, one gateway machine, one table of addresses.

pods 10.132.0.0/14 and fd01::/48, nodes 192.168.99.0/24 and fd99::/64, egress 192.168.55.0/24 and fd55::/64,
outside 203.0.113.0/24 and 2001:db8:113::/64.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

from outgate.model.intent import (
    ClusterNetwork,
    EgressGateway,
    EgressTenant,
    ExternalRoute,
    InnerInterface,
    Intent,
    Namespace,
    NextHopIdentity,
    Node,
    NodeSubnet,
    Pod,
    SourceIdentity,
)
from outgate.model.ledger import Holding, Ledger
from outgate.model.net import HostAddress, Link, LinkName, Mac, Route, Setting, Via
from outgate.model.selector import LabelSelector
from outgate.model.state import Desired, Facts, Moment, Snapshot
from outgate.plan.allocate import allocate
from outgate.plan.gateway import plan

ENP1S0, ENP7S0 = LinkName("enp1s0"), LinkName("enp7s0")
NOW_S = 1_000_000.0
DIGEST = "a table"

GATEWAY = EgressGateway(name="gw1", inner=(InnerInterface(interface=ENP1S0),), uplinks=(ENP7S0,))
NETWORK = ClusterNetwork(cluster_networks=(ip_network("10.132.0.0/14"), ip_network("fd01::/48")))
N1 = Node(
    name="n1",
    subnets=(
        NodeSubnet("default", ip_network("10.132.0.0/24"), "k8s.ovn.org/node-subnets"),
        NodeSubnet("default", ip_network("fd01:0:0:1::/64"), "k8s.ovn.org/node-subnets"),
    ),
    internal_ips=(ip_address("192.168.99.21"), ip_address("fd99::21")),
)
N2 = Node(
    name="n2",
    subnets=(
        NodeSubnet("default", ip_network("10.132.1.0/24"), "k8s.ovn.org/node-subnets"),
        NodeSubnet("default", ip_network("fd01:0:0:2::/64"), "k8s.ovn.org/node-subnets"),
    ),
    internal_ips=(ip_address("192.168.99.22"), ip_address("fd99::22")),
)


def in_namespace(name: str) -> LabelSelector:
    """Return the selector of one namespace."""
    return LabelSelector(match_labels=(("kubernetes.io/metadata.name", name),))


def namespace(name: str) -> Namespace:
    """Return a namespace with the label that every API server sets."""
    return Namespace(name=name, labels=(("kubernetes.io/metadata.name", name),))


def pod(namespace_: str, name: str, *addresses: str, node: str = "n1") -> Pod:
    """Return a running pod."""
    return Pod(namespace=namespace_, name=name, node=node, addresses=tuple(map(ip_address, addresses)))


BLUE = EgressTenant(
    name="ns-blue",
    namespace_selector=in_namespace("ns-blue"),
    identity=NextHopIdentity(addresses=(ip_address("192.168.99.13"), ip_address("fd99::13"))),
    egress_ips=(ip_address("192.168.55.113"), ip_address("fd55::113")),
)
RED = EgressTenant(
    name="ns-red",
    namespace_selector=in_namespace("ns-red"),
    identity=NextHopIdentity(addresses=(ip_address("192.168.99.14"),)),
    egress_ips=(ip_address("192.168.55.114"),),
)
GREEN_BY_SOURCE = EgressTenant(
    name="ns-green",
    namespace_selector=in_namespace("ns-green"),
    identity=SourceIdentity(),
    egress_ips=(ip_address("192.168.55.120"),),
)
CLUSTER = Intent(
    gateways=(GATEWAY,),
    tenants=(BLUE, RED),
    nodes=(N1, N2),
    namespaces=(namespace("ns-blue"), namespace("ns-green"), namespace("ns-red")),
    pods=(
        pod("ns-blue", "app-0", "10.132.0.5", "fd01:0:0:1::5"),
        pod("ns-blue", "app-1", "10.132.1.5", "fd01:0:0:2::5", node="n2"),
        pod("ns-green", "app-0", "10.132.0.7", "fd01:0:0:1::7"),
        pod("ns-red", "app-0", "10.132.0.6", "fd01:0:0:1::6"),
    ),
    network=NETWORK,
    external_routes=(
        ExternalRoute(
            name="blue",
            namespace_selector=in_namespace("ns-blue"),
            next_hops=(ip_address("192.168.99.13"), ip_address("fd99::13")),
        ),
        ExternalRoute(name="red", namespace_selector=in_namespace("ns-red"), next_hops=(ip_address("192.168.99.14"),)),
    ),
)
MACHINE = Facts(
    links=MappingProxyType(
        {
            ENP1S0: Link(name=ENP1S0, index=2, mac=Mac("52:54:00:a4:4f:32")),
            ENP7S0: Link(name=ENP7S0, index=3, mac=Mac("52:54:00:73:38:f7")),
        }
    ),
    addresses=frozenset(
        {
            HostAddress(link=ENP1S0, address=ip_address("192.168.99.12"), prefix_len=24),
            HostAddress(link=ENP1S0, address=ip_address("fd99::12"), prefix_len=64),
            HostAddress(link=ENP7S0, address=ip_address("192.168.55.12"), prefix_len=24),
            HostAddress(link=ENP7S0, address=ip_address("fd55::12"), prefix_len=64),
        }
    ),
    routes=frozenset(
        {
            Route(dst=ip_network("0.0.0.0/0"), hop=Via(address=ip_address("192.168.55.1"), link=ENP7S0)),
            Route(dst=ip_network("::/0"), hop=Via(address=ip_address("fd55::1"), link=ENP7S0), metric=1024),
        }
    ),
    settings=MappingProxyType({(link, setting): 0 for link in (ENP1S0, ENP7S0) for setting in Setting}),
)


def probed(ledger: Ledger, intent: Intent, facts: Facts = MACHINE) -> Ledger:
    """Return the ledger after every claimed address was probed and nobody answered."""
    gateway = intent.find_gateway("")
    assert gateway is not None
    snapshot = Snapshot(intent=intent, facts=facts, ledger=ledger, gateway=gateway.name)
    ledger, claims, _ = allocate(snapshot, gateway, Moment(now_s=NOW_S))
    held = {
        address: Holding(tenant=claim.tenant, link=claim.link, egress=claim.egress)
        for address, claim in claims.by_address.items()
    }
    return replace(ledger, holdings=MappingProxyType({**ledger.holdings, **held}))


def desired(intent: Intent, facts: Facts = MACHINE, ledger: Ledger | None = None) -> Desired:
    """Return the plan of an intent whose addresses were probed."""
    known = probed(ledger or Ledger(), intent, facts)
    return plan(Snapshot(intent=intent, facts=facts, ledger=known, gateway=""), DIGEST)


def reasons(wanted: Desired) -> set[str]:
    """Return the reasons of the findings."""
    return {finding.reason for finding in wanted.findings}
