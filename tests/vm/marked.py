"""What hangs on OVN's packet marks, told by a program in the guest, where Open vSwitch forwards in the kernel.

    p11 on n1 - eth1       192.168.55.150 --+
    p12 on n1 - bond0      192.168.66.150 --+-- secondary LAN -- router .1 -- partner 203.0.113.20
    p21 on n2 - br-ex1     192.168.88.150 --+
    p22 on n2 - eth1.77    192.168.77.150 --+

Local gateway mode; all four egress IPs are on n1, each on a NIC of another kind: plain, bond, bridge of Open vSwitch,
VLAN. Reverse path filters are strict. Each step asserts and says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from types import MappingProxyType

from outgate.lab.batch import cable, configure
from outgate.lab.outside import Server, SourceCounter
from outgate.lab.ovn import host
from outgate.lab.ovn.addresses import CLUSTER, PARTNER, Address, Pair
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import NAMESPACE, Datapath, OvnLaboratory, OvnPod
from outgate.lab.waiting import eventually
from outgate.model.egress_ip import ClusterView, Row
from outgate.model.host_table import HostTables
from outgate.model.intent import Assignment, EgressIP, Intent, Namespace, Pod
from outgate.model.selector import LabelSelector
from outgate.plan.egress_explain import explain_pod
from outgate.systems.kernel.tables import read_tables
from tests.ovn.cluster import AUTO, NodeRole, assignments_of, node_of, role_on

FAMILIES = (0, 1)  # IPv4, IPv6: places in the pairs of addresses
QUICK_S, PATIENT_S = 2.0, 20.0
_VLAN = 77
_SHOP = (("has", NAMESPACE),)
_GUARD = "egress-ip-sec-filter"
_RULES_IN_ORDER = (5997, 5998, host.MARKED_PRIORITY, 6000)
_WATCH = f"""
table inet watch {{
  counter to_nodes {{ }}
  counter secondary {{ }}
  chain arrived {{
    type filter hook prerouting priority raw; policy accept;
    iifname "ovn-k8s-mp0" meta mark {host.TO_NODES_MARK} counter name to_nodes
    iifname "ovn-k8s-mp0" meta mark {host.SECONDARY_MARK} counter name secondary
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """An egress IP of each family on a NIC of n1, the router there, and the pod that has it."""

    link: str
    pod: OvnPod
    network: int  # 192.168.N.0/24 and fdN::/64

    @property
    def egress(self) -> Pair:
        return self.at(150)

    @property
    def router(self) -> Pair:
        return self.at(1)

    def at(self, number: int) -> Pair:
        return IPv4Address(f"192.168.{self.network}.{number}"), IPv6Address(f"fd{self.network}::{number}")

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        return tuple(replace(one, egress_ip=self.pod.name) for one in assignments_of(self.egress, (self.pod,)))


def main() -> int:
    """Tell the story; an assertion ends it."""
    with OvnLaboratory(local=True, datapath=Datapath.KERNEL) as lab:
        hosted = [
            Hosted(link=link, pod=pod, network=network)
            for pod, (link, network) in zip(
                lab.pods, (("eth1", 55), ("bond0", 66), ("br-ex1", 88), (f"eth1.{_VLAN}", 77)), strict=True
            )
        ]
        build(lab, hosted)
        tagged = SourceCounter(lab.ext, f"eth1.{_VLAN}")
        outside = Outside((lab.by_default, lab.by_other, lab.by_secondary, tagged), hosted)
        lab.server.wait_until_ready()
        with role_on(lab, "n1") as role:
            by_the_hosts_route(role, hosted, outside)
            explained(lab, hosted)
            to_other_nodes(role)
            killed(role, hosted, outside)
            untranslated(role, hosted, outside)
    return 0


@dataclass(frozen=True, slots=True)
class Outside:
    """What the world outside sees on all its links."""

    counters: Sequence[SourceCounter]
    hosted: Sequence[Hosted]

    def seen(self) -> set[Address]:
        return {source for counter in self.counters for source in counter.seen()}

    def leaked(self) -> int:
        return sum(counter.leaked(CLUSTER) for counter in self.counters)

    def reset(self) -> None:
        for counter in self.counters:
            counter.reset()

    def saw_egress_ips_alone(self) -> bool:
        return self.seen() <= {address for one in self.hosted for address in one.egress}


def build(lab: OvnLaboratory, hosted: Sequence[Hosted]) -> None:
    """Give n1 its NICs, OVN-Kubernetes' part for each egress IP, and the host's routes, too late for that."""
    n1, lan, links = lab.node("n1"), lab.switches["secondary"], ("eth3", "eth4", "eth5")
    plugs = [
        line
        for number, link in enumerate(links)
        for line in (
            cable(f"n1-{link}", 40 + number, to=n1.net, link=link),
            f"link set n1-{link} master br0",
            f"link set n1-{link} up",
        )
    ]
    configure({lan: plugs})
    n1.programs.vsctl(
        *("add-br", "br-ex1", "--", "set", "bridge", "br-ex1", f"datapath_type={Datapath.KERNEL.value}"),
        *("--", "add-port", "br-ex1", "eth5"),
    )
    bond = ["link add bond0 type bond mode active-backup miimon 50"]
    bond += [line for link in links[:2] for line in (f"link set {link} down", f"link set {link} master bond0")]
    vlan = f"link add link eth1 name eth1.{_VLAN} type vlan id {_VLAN}"
    added = [one for one in hosted if one.link != "eth1"]
    configure(
        {
            n1.net: [*bond, vlan, "link set eth5 up", *(line for one in added for line in _up(one.link, one.at(21)))],
            lab.ext: [
                vlan,
                *(line for one in added for line in _up(one.link if "." in one.link else "eth1", one.router)),
            ],
        }
    )
    for link in ("br-ex", *(one.link for one in hosted)):
        n1.net.sysctl(f"net/ipv4/conf/{link}/rp_filter", 1)
    for one in hosted:
        Today(lab).assign_secondary(Assigned(pair=one.egress, node="n1", pods=(one.pod,)), link=one.link)
    n1.ip(
        *(
            f"route add {to} via {hop} dev {one.link} metric {one.network}"
            for one in hosted
            for to, hop in zip(PARTNER, one.router, strict=True)
        )
    )
    n1.net.run(("nft", "-f", "-"), input=_WATCH)


def _up(link: str, pair: Pair) -> Iterator[str]:
    yield f"link set {link} up"
    yield f"addr add {pair[0]}/24 dev {link}"
    yield f"addr add {pair[1]}/64 dev {link} nodad"


def by_the_hosts_route(role: NodeRole, hosted: Sequence[Hosted], outside: Outside) -> None:
    near = hosted[0].pod
    assert near.agent.fetch(PARTNER[0], timeout_s=QUICK_S).source is None, "a route that came later counts already"

    assert role.round(wanted(hosted)).converged
    for one, family in product(hosted, FAMILIES):
        seen = one.pod.agent.fetch(PARTNER[family], timeout_s=PATIENT_S).source
        assert seen == one.egress[family], one.link
    assert outside.saw_egress_ips_alone(), outside.seen()
    assert counted(role, "secondary") > 0
    listed = [int(line.split(":")[0]) for line in role.node.net.run(("ip", "rule")).stdout.splitlines()]
    assert tuple(sorted(set(listed) & set(_RULES_IN_ORDER))) == _RULES_IN_ORDER
    assert not role.round(wanted(hosted)).changes
    step("by a plain NIC, a bond, a bridge and a VLAN pods follow the host's route as their egress IP")


def explained(lab: OvnLaboratory, hosted: Sequence[Hosted]) -> None:
    with lab.node("n1").net.inside():
        view = view_of(lab, hosted, read_tables())
    for one, family in product(hosted, FAMILIES):
        found = explain_pod(view, f"{NAMESPACE}/{one.pod.name}", PARTNER[family])
        way = f"leaves n1 by {one.link} via {one.router[family]} as {one.egress[family]}"
        assert found.headline.endswith(way), found.headline
        assert [answer.decision.row for answer in found.answers] == [Row.R6]
    step("explain says the same of each of them")


def view_of(lab: OvnLaboratory, hosted: Sequence[Hosted], tables: HostTables) -> ClusterView:
    labels = {one.pod.name: (("has", one.pod.name),) for one in hosted}
    intent = Intent(
        nodes=tuple(node_of(node, local=True) for node in lab.nodes.values()),
        namespaces=(Namespace(name=NAMESPACE, labels=_SHOP),),
        pods=tuple(
            Pod(namespace=NAMESPACE, name=pod.name, node=pod.node, addresses=pod.addresses, labels=labels[pod.name])
            for pod in lab.pods
        ),
        egress_ips=tuple(
            EgressIP(
                name=one.pod.name,
                egress_ips=one.egress,
                namespace_selector=LabelSelector(_SHOP),
                pod_selector=LabelSelector(labels[one.pod.name]),
                assigned=tuple(("n1", address) for address in one.egress),
            )
            for one in hosted
        ),
    )
    return ClusterView(intent=intent, hosts=MappingProxyType({"n1": tables}), routing=AUTO)


def to_other_nodes(role: NodeRole) -> None:
    n1, n2 = role.node, role.lab.node("n2")
    near, far = n1.pods[0], n2.pods[0]
    with Server(n1.net) as here, Server(n2.net) as there:
        here.wait_until_ready()
        there.wait_until_ready()
        for family in FAMILIES:
            to, source = n2.at.primary[family], n1.at.primary[family]
            assert near.agent.fetch(to, timeout_s=PATIENT_S).source == source
            assert far.agent.fetch(source, timeout_s=PATIENT_S).source == to
        assert counted(role, "to_nodes") > 0

        n1.net.sysctl("net/ipv4/conf/all/src_valid_mark", 0)
        assert near.agent.fetch(n2.at.primary[0], timeout_s=QUICK_S).source is None, "nothing hangs on answers' marks"
        n1.net.sysctl("net/ipv4/conf/all/src_valid_mark", 1)
        marked = f"fwmark {host.TO_NODES_MARK:#x} lookup main"
        n1.ip(f"rule del priority 5997 {marked}", f"rule del priority {host.MARKED_PRIORITY} {marked}")
        assert near.agent.fetch(n2.at.primary[0], timeout_s=QUICK_S).source != n1.at.primary[0]
        n1.ip(f"rule add priority {host.MARKED_PRIORITY} {marked}")
    step("to other nodes they keep their node's address, by the mark that OVN gives them and its answers get back")


def killed(role: NodeRole, hosted: Sequence[Hosted], outside: Outside) -> None:
    places = []
    for assignments in ((), wanted(hosted), ()):
        while place := killed_at_once(role, assignments):
            places.append(place)
            for one in (hosted[0], hosted[-1]):
                one.pod.agent.fetch(PARTNER[0], timeout_s=QUICK_S)
            assert outside.saw_egress_ips_alone(), (place, outside.seen())
        assert not role.round(assignments).changes
    assert len(places) >= 5, places
    step("killed after each write of a round, on the way in and out, nothing leaves with another address")


class Killed(Exception):
    """The role ended between two writes."""


def killed_at_once(role: NodeRole, assignments: tuple[Assignment, ...]) -> str:
    """Begin a round and end it at the first place where a part is written; return that, or nothing when it was done."""

    def boundary(place: str) -> None:
        raise Killed(place)

    role.machine.boundary = boundary
    try:
        role.round(assignments)
    except Killed as place:
        return str(place)
    finally:
        role.machine.boundary = lambda _: None
    return ""


def untranslated(role: NodeRole, hosted: Sequence[Hosted], outside: Outside) -> None:
    near, far = hosted[0], hosted[-1]
    assert role.round(wanted(hosted)).converged
    outside.reset()
    role.node.net.run(("nft", "flush", "map", *host.TABLE.split(), host.SNAT4))
    for one in (near, far):
        one.pod.agent.fetch(PARTNER[0], timeout_s=QUICK_S)
    eventually(lambda: guarded(role) > 0, "OVN-Kubernetes' guard stops packets", within_s=PATIENT_S)
    assert outside.seen() <= {near.at(21)[0]}, outside.seen()

    role.node.net.run(("nft", "flush", "chain", *host.TABLE.split(), _GUARD))
    far.pod.agent.fetch(PARTNER[0], timeout_s=QUICK_S)
    eventually(outside.leaked, "without the guard the pod's own address is seen", within_s=PATIENT_S)
    step("without its translation a pod elsewhere is stopped by its mark, one of the node leaves as its NIC")


def wanted(hosted: Sequence[Hosted]) -> tuple[Assignment, ...]:
    return tuple(assignment for one in hosted for assignment in one.assignments)


def counted(role: NodeRole, name: str) -> int:
    """How many packets a counter of the node has seen."""
    words = role.node.net.run(("nft", "list", "counter", "inet", "watch", name)).stdout.split()
    return int(words[words.index("packets") + 1])


def guarded(role: NodeRole) -> int:
    """How many packets OVN-Kubernetes' guard has dropped, of IPv4."""
    listed = role.node.net.run(("nft", "list", "chain", *host.TABLE.split(), _GUARD)).stdout
    (rule,) = (line.split() for line in listed.splitlines() if line.strip().startswith("ip saddr"))
    return int(rule[rule.index("packets") + 1])


def step(sentence: str) -> None:
    """Say what has just been shown."""
    print(f"ok: {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
