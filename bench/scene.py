"""The machines of the measurements: a gateway with two NICs in a namespace of its own, and intents of many tenants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import MappingProxyType

from outgate.lab.namespace import Namespace
from outgate.model.intent import (
    Announce,
    ClusterNetwork,
    EgressGateway,
    EgressTenant,
    InnerInterface,
    Intent,
    NextHopIdentity,
)
from outgate.model.ledger import Holding, Ledger
from outgate.model.net import LinkName
from outgate.sources.dump import dump
from outgate.sources.yaml_writer import to_yaml

INNER, UPLINK = LinkName("enp1s0"), LinkName("enp7s0")
FIRST_HOP, FIRST_EGRESS = ip_address("10.64.16.0"), ip_address("10.65.16.0")
CLUSTER = ip_network("10.128.0.0/14")
_NICS = """
link add enp1s0 type veth peer name far1
link add enp7s0 type veth peer name far7
link set lo up
link set far1 up
link set far7 up
link set enp1s0 up
link set enp7s0 up
addr add 10.64.0.1/16 dev enp1s0
addr add 10.65.0.1/16 dev enp7s0
route add default via 10.65.255.254 dev enp7s0
"""


@contextmanager
def gateway_machine() -> Iterator[Namespace]:
    """Yield a namespace with an inner NIC and an uplink, IPv6 off on links to come, as the figures say."""
    with Namespace("bench") as net:
        net.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
        net.run(["ip", "-batch", "-"], input=_NICS)
        yield net


def many_tenants(count: int) -> Intent:
    """Return an intent of so many next-hop tenants, one egress IP each; probing off, so that nothing waits."""
    gateway = EgressGateway(
        name="gw1",
        inner=(InnerInterface(interface=INNER),),
        uplinks=(UPLINK,),
        cluster_networks=(CLUSTER,),
        announce=Announce(probes=0),
    )
    tenants = tuple(
        EgressTenant(
            name=f"t-{number:05}",
            identity=NextHopIdentity(addresses=(FIRST_HOP + number,)),
            egress_ips=(FIRST_EGRESS + number,),
        )
        for number in range(count)
    )
    return Intent(gateways=(gateway,), tenants=tenants, network=ClusterNetwork(cluster_networks=(CLUSTER,)))


def held(intent: Intent) -> Ledger:
    """Return the ledger in which every address is held already: duplicate detection is no part of the figure."""
    holdings = {}
    for tenant in intent.tenants:
        assert isinstance(tenant.identity, NextHopIdentity)
        holdings[tenant.identity.addresses[0]] = Holding(tenant=tenant.name, link=INNER, egress=False)
        holdings[tenant.egress_ips[0]] = Holding(tenant=tenant.name, link=UPLINK, egress=True)
    return Ledger(holdings=MappingProxyType(holdings))


def write_manifests(intent: Intent, directory: Path) -> None:
    """Write an intent as one file per object."""
    directory.mkdir(parents=True)
    objects: tuple[EgressGateway | EgressTenant, ...] = (*intent.gateways, *intent.tenants)
    for one in objects:
        (directory / f"{type(one).__name__.lower()}-{one.name}.yaml").write_text(to_yaml(dump(one)))
