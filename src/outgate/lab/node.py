"""A worker node and its pods, each in a network namespace of its own.

A worker does what OVN-Kubernetes does for a namespace under an AdminPolicyBasedExternalRoute: traffic of its pods that
leaves the cluster keeps the pod's address and goes to the tenant's next hop on the LAN, by the MAC address that the
neighbour table holds. Here that is a policy rule and a route table for each pod. Traffic between pods of different
workers is not carried, and a pod that nobody steered reaches nothing outside the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from outgate.lab.addresses import CLUSTER, SERVICES, Address, free_host, worker
from outgate.lab.agent import Agent
from outgate.lab.batch import cable, configure
from outgate.lab.namespace import Namespace

Hops: TypeAlias = tuple[IPv4Address | None, IPv6Address | None]  # the next hop of each family

LINK = "eth0"  # of every worker on the LAN, and of every pod on its worker
ENDPOINT = {  # settings of a machine that only wants to be reached
    "net/ipv4/conf/all/rp_filter": 0,  # said outright: a new namespace copies the IPv4 settings of the first one
    "net/ipv4/conf/default/rp_filter": 0,
    "net/ipv6/conf/default/accept_dad": 0,  # nobody waits a second for an address that nobody else can have
    "net/ipv6/conf/default/accept_ra": 0,
}

_ROUTER = ENDPOINT | {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
}
_POD = ENDPOINT | {"net/ipv6/conf/default/addr_gen_mode": 1}  # no link-local addresses
_POD_ROUTER = "fe80::1"  # the worker's end of every pod's cable
_TO_CLUSTER, _FROM_POD = 100, 200  # priorities of the policy rules
_TABLES = 1000  # plus the pod's host number
_RETRANS_MS = 250  # a next hop that is not there is given up after 0.75 s, not 3 s
_NOWHERE: Hops = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pod:
    """A pod: its place in Kubernetes, its addresses, its network namespace, and the agent that acts inside it."""

    namespace: str
    name: str
    node: str
    host: int  # number within the worker's pod subnets
    v4: IPv4Address
    v6: IPv6Address
    net: Namespace
    agent: Agent

    def close(self) -> None:
        """End the pod and all that runs in it."""
        self.agent.close()
        self.net.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """A pod to be made. Without a host number it gets the next one of its worker."""

    namespace: str
    name: str
    host: int | None = None


class Node:
    """A worker on the LAN. The laboratory cables it; `lines` and `pod_lines` are what it then configures in bulk."""

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.addresses = worker(index)
        self.net = Namespace(name)
        self.pods: list[Pod] = []
        self._hosts: list[int] = []  # ever used
        self._steering: dict[str, Hops] = {}  # by Kubernetes namespace
        self._hops: dict[Pod, Hops] = {}  # what the pod's route table holds
        for path, value in _ROUTER.items():
            self.net.sysctl(path, value)

    @property
    def v4(self) -> IPv4Address:
        """Address on the LAN."""
        return self.addresses.v4

    @property
    def v6(self) -> IPv6Address:
        """Address on the LAN."""
        return self.addresses.v6

    def add_pod(self, namespace: str, name: str, *, host: int | None = None) -> Pod:
        """Start a pod and return it. It leaves by its namespace's next hops, if those are known."""
        pods = self.make((PodPlan(namespace=namespace, name=name, host=host),))
        configure({self.net: self.pod_lines(pods)})
        configure({pod.net: self.inner_lines(pod) for pod in pods})
        return pods[0]

    def remove_pod(self, pod: Pod) -> None:
        """End a pod and forget what was routed for it."""
        self.pods.remove(pod)
        routes = self._turn(pod, _NOWHERE)
        rules = [f"rule del priority {_FROM_POD} from {pod.v4}", f"-6 rule del priority {_FROM_POD} from {pod.v6}"]
        configure({self.net: [*routes, *rules, f"link del {_cable(pod)}"]})
        del self._hops[pod]
        pod.close()

    def steer(self, who: Pod | str, v4: IPv4Address | None = None, v6: IPv6Address | None = None) -> None:
        """Send a pod's traffic, or that of a namespace's pods now and later, to next hops; none means nowhere."""
        if isinstance(who, str):
            self._steering[who] = (v4, v6)
        pods = [pod for pod in self.pods if who in (pod, pod.namespace)]
        configure({self.net: [line for pod in pods for line in self._turn(pod, (v4, v6))]})

    def poison(self, next_hop: Address, mac: str) -> None:
        """Nail a MAC address to a next hop, as a neighbour table does that missed an announcement."""
        configure({self.net: [f"neigh replace {next_hop} lladdr {mac} nud permanent dev {LINK}"]})

    def heal(self, next_hop: Address) -> None:
        """Forget what the neighbour table says about a next hop: the next packet asks again."""
        if self.neighbour(next_hop) is not None:
            configure({self.net: [f"neigh del {next_hop} dev {LINK}"]})

    def neighbour(self, next_hop: Address) -> str | None:
        """Return the MAC address that traffic to a next hop is sent to; None when that is not known."""
        found = json.loads(self.net.run(("ip", "-j", "neigh", "show", str(next_hop), "dev", LINK)).stdout)
        return next((str(entry["lladdr"]) for entry in found if "lladdr" in entry), None)

    def make(self, plans: Iterable[PodPlan]) -> list[Pod]:
        """Return new pods in namespaces without links; `pod_lines` and `inner_lines` connect them."""
        made = [self._make(plan) for plan in plans]
        self.pods += made
        return made

    def lines(self) -> list[str]:
        """Return the settings of a worker whose cable is plugged in."""
        lines = [
            "link set lo up",
            f"addr add {self.v4}/24 dev {LINK}",
            f"addr add {self.v6}/64 dev {LINK}",
            f"link set {LINK} up",
            *(f"ntable change name {cache} dev {LINK} retrans {_RETRANS_MS}" for cache in ("arp_cache", "ndisc_cache")),
        ]
        for prefix in (*CLUSTER, *SERVICES):
            family = "-6 " if prefix.version == 6 else ""
            lines.append(f"{family}rule add priority {_TO_CLUSTER} to {prefix} lookup main")
        return lines

    def pod_lines(self, pods: Sequence[Pod]) -> list[str]:
        """Return the settings of the worker for new pods: a cable, routes and rules each, and the next hops."""
        router = self.addresses.pods4[1]
        lines = []
        for pod in pods:
            end = _cable(pod)
            lines += [
                cable(end, pod.host, to=pod.net, link=LINK),
                f"link set {end} addrgenmode none",
                f"addr add {router}/32 dev {end}",
                f"addr add {_POD_ROUTER}/64 dev {end}",
                f"link set {end} up",
                f"route add {pod.v4} dev {end}",
                f"route add {pod.v6} dev {end}",
                f"rule add priority {_FROM_POD} from {pod.v4} lookup {_TABLES + pod.host}",
                f"-6 rule add priority {_FROM_POD} from {pod.v6} lookup {_TABLES + pod.host}",
            ]
            self._hops[pod] = _NOWHERE
            lines += self._turn(pod, self._steering.get(pod.namespace, _NOWHERE))
        return lines

    def inner_lines(self, pod: Pod) -> list[str]:
        """Return the settings of a pod whose cable is plugged in: its addresses, and the worker as its router."""
        router = self.addresses.pods4[1]
        return [
            "link set lo up",
            f"addr add {pod.v4}/32 dev {LINK}",
            f"addr add {pod.v6}/128 dev {LINK}",
            f"link set {LINK} up",
            f"route add {router} dev {LINK}",
            f"route add default via {router} dev {LINK}",
            f"route add default via {_POD_ROUTER} dev {LINK}",
        ]

    def close(self) -> None:
        """End the worker and its pods."""
        for pod in self.pods:
            pod.close()
        self.net.close()

    def _make(self, plan: PodPlan) -> Pod:
        host = free_host(self._hosts) if plan.host is None else plan.host
        self._hosts.append(host)
        net = Namespace(f"{plan.namespace}-{plan.name}")
        for path, value in _POD.items():
            net.sysctl(path, value)
        v4, v6 = self.addresses.pod(host)
        return Pod(
            namespace=plan.namespace, name=plan.name, node=self.name, host=host, v4=v4, v6=v6, net=net, agent=Agent(net)
        )

    def _turn(self, pod: Pod, hops: Hops) -> Iterator[str]:
        """Yield what turns a pod's route table from the next hops it holds to others."""
        former, self._hops[pod] = self._hops[pod], hops
        for old, new in zip(former, hops, strict=True):
            if new is not None:
                yield f"route replace default via {new} dev {LINK} table {_TABLES + pod.host}"
            elif old is not None:
                yield f"route del default via {old} dev {LINK} table {_TABLES + pod.host}"


def _cable(pod: Pod) -> str:
    """Return the worker's end of a pod's cable."""
    return f"pod{pod.host}"
