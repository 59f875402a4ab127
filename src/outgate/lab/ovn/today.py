"""What OVN-Kubernetes itself programs for an EgressIP, by hand: the controller that outgate lives beside.

On a primary NIC the pod's node sends the pod's packets to the gateway router of the egress node, and that one
translates; no host route is ever looked at, in either gateway mode. On a secondary NIC the egress node's management
port takes them into the host, where a rule of priority 6000 leads to the NIC's own table, a copy of its routes.
Source: go-controller/pkg/ovn/egressip.go and go-controller/pkg/node/controllers/egressip of OVN-Kubernetes (2026).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outgate.lab.ovn import host
from outgate.lab.ovn.addresses import CLUSTER_ROUTER, SECONDARY_NIC, Address, Pair
from outgate.lab.ovn.northbound import SERVED4, SERVED6
from outgate.lab.ovn.topology import OvnLaboratory, OvnNode, OvnPod

_REROUTE = "100"
_RULE, _FIRST_TABLE = 6000, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """An egress IP of each family on a node, for some pods."""

    pair: Pair
    node: str
    pods: tuple[OvnPod, ...]


class Today:
    """OVN-Kubernetes' EgressIP feature in a laboratory, one call for each change that it would make."""

    def __init__(self, lab: OvnLaboratory) -> None:
        self._lab = lab

    def assign_primary(self, one: Assigned) -> None:
        """Put egress IPs of the primary network on a node."""
        egress = self._lab.node(one.node)
        for pod in one.pods:
            for logical, external in zip(pod.addresses, one.pair, strict=True):
                egress.programs.nbctl("lr-nat-add", egress.at.router, "snat", str(external), str(logical))
            self._serve(pod)
        for pod in one.pods:
            hops = egress.at.join if pod.node == one.node else egress.at.transit
            self._reroute(self._lab.node(pod.node), pod, hops)
        self._lab.settle()

    def withdraw_primary(self, one: Assigned) -> None:
        """Take them away again."""
        egress = self._lab.node(one.node)
        for pod in one.pods:
            self._reroute(self._lab.node(pod.node), pod, None)
            for logical in pod.addresses:
                egress.programs.nbctl("lr-nat-del", egress.at.router, "snat", str(logical))
                for node in self._lab.nodes.values():
                    node.programs.nbctl("remove", "address_set", _served(logical), "addresses", f'"{logical}"')
        self._lab.settle()

    def assign_secondary(self, one: Assigned, *, link: str = SECONDARY_NIC) -> None:
        """Put egress IPs of a secondary NIC's network on a node: copy the NIC's routes, once, and send pods there."""
        egress = self._lab.node(one.node)
        table = _FIRST_TABLE + _ifindex(egress, link)
        egress.ip(*_copies(egress, link, table))
        elements = []
        for pod in one.pods:
            for logical, external in zip(pod.addresses, one.pair, strict=True):
                family = "-6 " if logical.version == 6 else ""
                egress.ip(f"{family}rule add priority {_RULE} from {logical} lookup {table}")
                snat = host.SNAT4 if logical.version == 4 else host.SNAT6
                elements.append(f'add element {host.TABLE} {snat} {{ {logical} . "{link}" : {external} }}\n')
        egress.net.run(("nft", "-f", "-"), input="".join(elements))
        egress.ip(*(f"addr replace {address}/{address.max_prefixlen} dev {link} nodad" for address in one.pair[1:]))
        egress.ip(f"addr replace {one.pair[0]}/32 dev {link}")
        for pod in one.pods:
            if pod.node != one.node:
                self._reroute(egress, pod, egress.at.management, mark=True)
            hops = egress.at.management if pod.node == one.node else egress.at.transit
            self._reroute(self._lab.node(pod.node), pod, hops, mark=pod.node == one.node)
            self._serve(pod)
        self._lab.settle()

    def _serve(self, pod: OvnPod) -> None:
        """Note a pod as served in the zones of all nodes, which keeps its talk to nodes apart."""
        added = [("--", "add", "address_set", _served(one), "addresses", f'"{one}"') for one in pod.addresses]
        for node in self._lab.nodes.values():
            node.programs.nbctl(*(word for command in added for word in command))

    def _reroute(self, node: OvnNode, pod: OvnPod, hops: Pair | None, *, mark: bool = False) -> None:
        words: list[str] = []
        for number, logical in enumerate(pod.addresses):
            match = f"ip{logical.version}.src == {logical}"
            if hops is None:
                words += ["--", "lr-policy-del", CLUSTER_ROUTER, _REROUTE, match]
            else:
                words += ["--", "lr-policy-add", CLUSTER_ROUTER, _REROUTE, match, "reroute", str(hops[number])]
                words += [f"pkt_mark={host.SECONDARY_MARK}"] if mark else []
        node.programs.nbctl(*words[1:])


def _served(address: Address) -> str:
    return SERVED4 if address.version == 4 else SERVED6


def _ifindex(node: OvnNode, link: str) -> int:
    with node.net.inside():
        return socket.if_nametoindex(link)


def _copies(node: OvnNode, link: str, table: int) -> Sequence[str]:
    """Return lines that copy the main table's routes by a link; without a default among them one is made up."""
    lines = []
    for flag in ("", "-6 "):
        family = ("-6",) if flag else ()
        listed: list[dict[str, Any]] = json.loads(
            node.net.run(("ip", "-j", *family, "route", "show", "table", "main", "dev", link)).stdout
        )
        routes = [one for one in listed if not one["dst"].startswith("fe80")]
        for one in routes:
            via = f"via {one['gateway']} " if "gateway" in one else ""
            metric = f" metric {one['metric']}" if "metric" in one else ""
            lines.append(f"{flag}route replace {one['dst']} {via}dev {link} table {table}{metric}")
        if not any(one["dst"] == "default" for one in routes):
            lines.append(f"{flag}route replace default dev {link} table {table}")
    return lines
