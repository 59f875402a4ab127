"""Two pods share one egress IP and call one server: the kernel needs a source port of its own for every flow, and says
what happens when there is none left.

Pods 10.128.0.5 and .6, egress IP 192.168.55.113, server 203.0.113.10; all addresses are on loopback.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.intent import ClusterNetwork, EgressIP, Intent, Node, Pod
from outgate.model.intent import Namespace as KubeNamespace
from outgate.model.net import Address
from outgate.model.selector import LabelSelector
from outgate.plan.egress_flows import PORTS
from outgate.roles.egress_here import flows_here

WEB, DB, EGRESS, SERVER = (ip_address(one) for one in ("10.128.0.5", "10.128.0.6", "192.168.55.113", "203.0.113.10"))
FIREWALL = f"""
table ip translation {{
  chain leaving {{
    type nat hook postrouting priority srcnat;
    ip saddr {{ {WEB}, {DB} }} snat to {EGRESS}
  }}
  chain arriving {{
    type filter hook input priority filter;
    meta l4proto udp drop
  }}
}}
"""
SHOP = LabelSelector((("name", "shop"),))
INTENT = Intent(
    nodes=(Node(name="n1"),),
    namespaces=(KubeNamespace(name="shop", labels=(("name", "shop"),)),),
    pods=(
        Pod(namespace="shop", name="db", node="n1", addresses=(DB,)),
        Pod(namespace="shop", name="web", node="n1", addresses=(WEB,)),
    ),
    network=ClusterNetwork(cluster_networks=()),
    egress_ips=(EgressIP(name="prod", egress_ips=(EGRESS,), namespace_selector=SHOP, assigned=(("n1", EGRESS),)),),
)


@pytest.fixture
def node() -> Iterator[Namespace]:
    with Namespace("ports") as made:
        made.run(("ip", "link", "set", "lo", "up"))
        for address in (WEB, DB, EGRESS, SERVER):
            made.run(("ip", "address", "add", f"{address}/32", "dev", "lo"))
        made.run(("nft", "-f", "-"), input=FIREWALL)
        made.sysctl("net/netfilter/nf_conntrack_udp_timeout", 600)
        yield made


def send(node: Namespace, source: Address, ports: range, *, to: int = 9) -> int:
    """Send a UDP packet from each of these ports of a pod, and return how many the kernel let out."""
    left = 0
    with node.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        raw.bind((str(source), 0))
        for port in ports:
            try:
                raw.sendto(struct.pack("!HHHH", port, to, 8, 0), (str(SERVER), 0))
            except PermissionError:  # dropped on its way out
                continue
            left += 1
    return left


def test_when_all_ports_to_one_destination_are_taken_new_flows_there_are_dropped_and_flows_names_the_pods(
    node: Namespace,
) -> None:
    assert send(node, WEB, range(1024, 65536)) == PORTS

    assert send(node, DB, range(2000, 2050)) == 0  # not one finds a port
    assert send(node, DB, range(2000, 2050), to=10) == 50  # to another port of the server all do

    with node.inside():
        found = flows_here(INTENT, "n1")
    (use,) = found.addresses
    assert [(str(one.remote), one.ports, one.pods) for one in use.remotes] == [
        ("203.0.113.10:9/udp", PORTS, (("shop/web", PORTS),)),
        ("203.0.113.10:10/udp", 50, (("shop/db", 50),)),
    ]
    assert [one.reason for one in found.findings] == ["PortsRunOut"]
    assert found.entries == PORTS + 50


def test_two_pods_with_the_same_port_get_two_ports_of_the_egress_ip(node: Namespace) -> None:
    assert send(node, WEB, range(5000, 5010)) == send(node, DB, range(5000, 5010)) == 10

    with node.inside():
        found = flows_here(INTENT, "n1")
    assert [(one.pod, one.flows) for one in found.pods] == [("shop/db", 10), ("shop/web", 10)]
    assert found.addresses[0].flows == 20
    assert found.findings == ()
