"""A node with 500 egress IPs dies: how long until the other one has them all. Real OVN, two nodes, shared gateway mode.

From the moment at which the node counts as lost to the moment at which the other node's switch holds the last row: the
decision, the translations, the word that they stand, and the way of the pods, which run on the other node. The API
server between the roles is left out (bench `kube-patch` has it), and so is the detection, which takes 2.4 s at most.
Rival: ovn-nbctl adding the same translations and policies, all in one call, and waiting for the switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from types import MappingProxyType

from bench.figure import Figure, at_most, median, seconds
from outgate.control.node_neighbours import NodeNeighbours
from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace
from outgate.lab.ovn.addresses import CLUSTER_ROUTER, PRIMARY, ROUTER
from outgate.lab.ovn.topology import OvnLaboratory, OvnNode
from outgate.model import intent as objects
from outgate.model.egress_ip import NodeSnapshot
from outgate.model.intent import EgressIP, EgressNode, EgressRouting, Intent, Node, NodeSubnet, Pod
from outgate.model.net import LinkName
from outgate.model.nics import GatewayMode, HostCidr
from outgate.model.placement import NodeHealth, PlacementFacts
from outgate.model.routing import Semantics, Stance
from outgate.model.selector import LabelSelector
from outgate.plan.assist import plan_node
from outgate.plan.egress_nodes import digest, egress_nodes
from outgate.plan.placement import place
from outgate.plan.routing import DEFAULT
from outgate.roles.node_machine import NodeMachine
from outgate.systems.ovn.northbound import Northbound

MANY = 500
_ARP = 0x0806
_DEAD = PlacementFacts(health=MappingProxyType({"n1": NodeHealth(reachable=False)}), moves_left=MANY)


def failing_over() -> Iterator[Figure]:
    """500 egress IPs, each with a pod, move from a dead node to the other one; median of 3."""
    with OvnLaboratory(egress_ip=False) as lab:
        node = lab.node("n2")
        with contextlib.closing(Northbound(f"unix:{node.programs.northbound}")) as ovn:
            with node.net.inside():
                machine = NodeMachine(ovn)
            with contextlib.closing(machine):
                took = median(3, partial(_fail_over, lab, node, machine))
                rival = median(3, partial(_by_nbctl, node))
    yield at_most("egressip.failover-of-500", took, 2, "s", ("ovn-nbctl, one call", rival))


def announcing() -> Iterator[Figure]:
    """500 egress IPs are announced on a LAN, from the call to the moment at which a neighbour has heard of each."""
    with Namespace("node") as node, Namespace("far") as far:
        configure({far: [cable("far", 10, to=node, link="lan"), "link set far up"]})
        configure({node: ["link set lan up"]})
        with far.inside():
            heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
        with heard, node.inside():
            took = asyncio.run(_announce(heard))
    yield at_most("egressip.announcing-500", took, 1, "s")


async def _announce(heard: socket.socket) -> float:
    loop = asyncio.get_running_loop()
    heard.setblocking(False)
    neighbours = NodeNeighbours(loop, lambda: None)
    wanted = {_egress(number).packed for number in range(MANY)}
    began = loop.time()
    neighbours.hold({_egress(number): LinkName("lan") for number in range(MANY)})
    while wanted:
        frame = await loop.sock_recv(heard, 2048)
        wanted.discard(frame[28:32])  # the sender's address of an ARP frame
    took = loop.time() - began
    neighbours.close()
    return took


def _fail_over(lab: OvnLaboratory, node: OvnNode, machine: NodeMachine) -> float:
    intent = _intent(lab)
    there = {name: replace(one, programmed=digest(one)) for name, one in egress_nodes(intent).items()}

    def turn(now: Intent) -> None:
        told = egress_nodes(replace(now, egress_nodes=tuple(there.values())))["n2"]
        _work(node, machine, told, now.nodes)
        there["n2"] = replace(told, programmed=digest(told))

    def all_of_it() -> None:
        placed = place(intent, _DEAD)
        moved = tuple(replace(one, assigned=placed.items[one.name]) for one in intent.egress_ips)
        assert all(node == "n2" for one in moved for node, _ in one.assigned)
        now = replace(intent, egress_ips=moved)
        turn(now)  # the translations
        turn(now)  # and the pods' way

    took = seconds(all_of_it)
    assert len(machine.read().northbound.actual) > 2 * MANY
    _work(node, machine, EgressNode(name="n2", stance=Stance.OWN), intent.nodes)
    return took


def _work(node: OvnNode, machine: NodeMachine, work: EgressNode, nodes: tuple[Node, ...]) -> None:
    with node.net.inside():
        reading = machine.read()
        snapshot = NodeSnapshot(
            node=next(one for one in nodes if one.name == work.name),
            host=reading.host,
            assignments=work.assignments,
            departures=work.departures,
            stance=work.stance,
            nodes=nodes,
            policies=reading.northbound.policies,
            snats=reading.northbound.snats,
            routes=reading.northbound.routes,
            ports=reading.northbound.ports,
            marks_answers=reading.northbound.marks_answers,
            sets=reading.northbound.sets,
        )
        assert machine.settle(plan_node(snapshot, machine.digest), reading).converged


def _intent(lab: OvnLaboratory) -> Intent:
    team = LabelSelector(match_labels=(("kubernetes.io/metadata.name", "shop"),))
    numbers = range(MANY)
    return Intent(
        nodes=tuple(_node(one) for one in lab.nodes.values()),
        namespaces=(objects.Namespace(name="shop", labels=team.match_labels),),
        pods=tuple(
            Pod(
                namespace="shop",
                name=f"p{number}",
                node="n2",
                addresses=(_pod(number),),
                labels=(("app", f"p{number}"),),
            )
            for number in numbers
        ),
        egress_ips=tuple(
            EgressIP(
                name=f"e{number:03}",
                egress_ips=(_egress(number),),
                namespace_selector=team,
                pod_selector=LabelSelector(match_labels=(("app", f"p{number}"),)),
                assigned=(("n1", _egress(number)),),
            )
            for number in numbers
        ),
        egress_routings=(EgressRouting(name=DEFAULT, stance=Stance.OWN, semantics=Semantics.AUTO),),
    )


def _pod(number: int) -> IPv4Address:
    return IPv4Address("10.128.1.0") + 1024 + number


def _egress(number: int) -> IPv4Address:
    return IPv4Address("192.168.96.0") + number


def _node(one: OvnNode) -> Node:
    wide = PRIMARY[0].supernet(new_prefix=21)  # 500 egress IPs and both nodes
    return Node(
        name=one.name,
        subnets=tuple(NodeSubnet("default", subnet, "k8s.ovn.org/node-subnets") for subnet in one.at.subnets),
        internal_ips=one.at.primary,
        primary=(wide,),
        mode=GatewayMode.SHARED,
        next_hops=ROUTER,
        host_cidrs=(HostCidr(one.at.primary[0], wide),),
        transit=one.at.transit,
        assignable=True,
    )


def _by_nbctl(node: OvnNode) -> float:
    made, gone = [], []
    for number in range(MANY):
        pod, match = str(_pod(number)), f"ip4.src == {_pod(number)}"
        made += ["--", "lr-nat-add", node.at.router, "snat", str(_egress(number)), pod]
        made += ["--", "lr-policy-add", CLUSTER_ROUTER, "100", match, "reroute", str(node.at.join[0])]
        gone += ["--", "lr-nat-del", node.at.router, "snat", pod]
        gone += ["--", "lr-policy-del", CLUSTER_ROUTER, "100", match]
    took = seconds(lambda: node.programs.nbctl("--timeout=60", "--wait=hv", *made))
    node.programs.nbctl("--timeout=60", "--wait=hv", *gone)
    return took
