"""A node's secondary NIC in a VRF, told by a program in the guest: its routes are mirrored from the VRF's table.

    pod -- mp0, node, eth1 (a slave of VRF red, table 100) -- LAN router 192.168.55.1 -- partner 203.0.113.20

The pod has an egress IP on eth1. What OVN-Kubernetes adds on the host is added by hand; our rule and table are planned
and written by outgate. Each step asserts and says so.
"""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address, ip_network

from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace
from outgate.lab.outside import SourceCounter
from outgate.model.egress_ip import NodeSnapshot
from outgate.model.intent import AssignedPod, Assignment, Node, NodeSubnet
from outgate.model.net import LinkName, Route, Rule, TableId
from outgate.model.nics import GatewayMode
from outgate.model.routing import Routing, Semantics
from outgate.plan.assist_nic import plan_nics
from outgate.plan.egress_ip import Networks, hosting_nic
from outgate.plan.serving import served
from outgate.systems.kernel.cache import Cache
from outgate.systems.kernel.read import read
from outgate.systems.kernel.tables import read_tables
from outgate.systems.kernel.uapi import NETLINK_ROUTE
from outgate.systems.kernel.write import write
from outgate.systems.netlink import NetlinkSocket

POD, EGRESS, PARTNER = "10.128.0.5", "192.168.55.150", "203.0.113.20"
ETH1, RED = LinkName("eth1"), TableId(100)
_SNAT = f"""
table ip theirs {{
  chain out {{
    type nat hook postrouting priority srcnat;
    ip saddr {POD} oifname "eth1" snat to {EGRESS}
  }}
}}
"""


def main() -> int:
    """Tell the story; an assertion ends it."""
    with Namespace("pod") as pod, Namespace("node") as node, Namespace("outside") as outside:
        build(pod, node, outside)
        counter = SourceCounter(outside, "lan")

        assist(node)
        assert not answered(pod)
        assert counter.seen() == {}
        step("without a route in the VRF nothing of the pod leaves by the NIC, nor by another")

        configure({node: ["route add 203.0.113.0/24 via 192.168.55.1 dev eth1 vrf red"]})
        assist(node)
        assert answered(pod)
        assert set(counter.seen()) == {ip_address(EGRESS)}
        step("a route of the VRF is followed as the egress IP, and answers come back")

        configure({node: ["route add unreachable default metric 4278198272 vrf red"]})
        (told,) = assist(node)
        assert not answered(pod)
        configure({node: [told.partition("ip ")[2]]})
        assert assist(node) == []
        assert answered(pod)
        assert set(counter.seen()) == {ip_address(EGRESS)}
        step("a VRF that discards answers to pods is told, and what is told mends it")
    return 0


def build(pod: Namespace, node: Namespace, outside: Namespace) -> None:
    configure({node: [cable("ovn-k8s-mp0", 0, to=pod, link="eth0"), cable("eth1", 1, to=outside, link="lan")]})
    node.sysctl("net/ipv4/ip_forward", 1)
    configure(
        {
            pod: [
                f"addr add {POD}/24 dev eth0",
                "link set eth0 up",
                "route add default via 10.128.0.2",
            ],
            node: [
                "link set lo up",
                "link add red type vrf table 100",
                "link set red up",
                "link set eth1 master red",
                "addr add 10.128.0.2/24 dev ovn-k8s-mp0",
                "link set ovn-k8s-mp0 up",
                "addr add 192.168.55.21/24 dev eth1",
                f"addr add {EGRESS}/32 dev eth1",
                "link set eth1 up",
            ],
            outside: [
                "link set lo up",
                f"addr add {PARTNER}/32 dev lo",
                "addr add 192.168.55.1/24 dev lan",
                "link set lan up",
            ],
        }
    )
    node.run(("nft", "-f", "-"), input=_SNAT)


AUTO = Routing(semantics=Semantics.AUTO)


def assist(node: Namespace) -> list[str]:
    """Plan and write what stands beside OVN-Kubernetes for the NIC; return what would mend what is amiss."""
    with node.inside(), NetlinkSocket(NETLINK_ROUTE) as socket:
        host, cache = read_tables(), Cache()
        assert host.links[ETH1].table == RED
        subnet = NodeSubnet("default", ip_network("10.128.0.0/24"), "k8s.ovn.org/node-subnets")
        pods = (AssignedPod(namespace="shop", name="web", addresses=(ip_address(POD),)),)
        snapshot = NodeSnapshot(
            node=Node(name="n1", subnets=(subnet,), mode=GatewayMode.LOCAL),
            host=host,
            assignments=(Assignment(egress_ip="prod", address=ip_address(EGRESS), pods=pods, routing=AUTO),),
        )
        assert hosting_nic(ip_address(EGRESS), Networks.of(snapshot.node.primary, host)) == ETH1
        wants, findings = plan_nics(snapshot, served(snapshot), [ip_network("10.128.0.0/14")])
        actual = read(socket, cache).actual
        of_kernel = [one for one in wants if isinstance(one, Route | Rule)]  # nftables stands in no way here
        make = sorted((one for one in of_kernel if one not in actual), key=lambda one: isinstance(one, Rule))
        drop = [one for one in actual if one not in wants and isinstance(one, Route | Rule)]
        assert write(socket, cache, make, drop) == ()
    return [one.fix for one in findings]


def answered(pod: Namespace) -> bool:
    """Whether the partner answers the pod."""
    ran: subprocess.CompletedProcess[str] = pod.run(("ping", "-c", "1", "-W", "2", PARTNER), check=False)
    return ran.returncode == 0


def step(sentence: str) -> None:
    """Say what has just been shown."""
    print(f"ok: {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
