"""The OpenFlow flows of br-ex, where host and gateway router share one address and one MAC, as OVN-Kubernetes has them.

Connection tracking in zone 64000 tells whose a reply is: mark 1 came from the gateway router (the patch port), 2 from
the host (LOCAL). Priorities follow go-controller/pkg/node/bridgeconfig/bridgeflows.go (2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from outgate.lab.ovn.addresses import CLUSTER, NodeAddresses, mac_of

UPLINK_PORT = 1
_ZONE = 64000
_OVN, _HOST = 1, 2  # conntrack marks
_BYPASS_MARK = 0x3F0  # 1008: a pod with an egress IP that talks to a node keeps the node's address
_NEIGHBOUR_TALK = (133, 134, 135, 136, 137)  # ICMPv6 types that connection tracking must not see


def flows(node: NodeAddresses, patch: str, *, egress_ip: bool = True) -> Sequence[str]:
    """Return the flows of a node's br-ex; `patch` is the number of the port that leads to br-int. `egress_ip` says
    whether OVN-Kubernetes' feature of that name is on.
    """
    return (*_flows(node, patch), *(_of_egress_ip(node, patch) if egress_ip else ()))


def _of_egress_ip(node: NodeAddresses, patch: str) -> Iterator[str]:
    mac, up = mac_of(node.primary[0]), UPLINK_PORT
    for ip, address, cluster in zip(("ip", "ipv6"), node.primary, CLUSTER, strict=True):
        source = "nw_src" if ip == "ip" else "ipv6_src"
        kept = f"ct(commit,zone={_ZONE},nat(src={address}),exec(load:{_OVN}->NXM_NX_CT_MARK[])),output:{up}"
        yield f"table=0,priority=105,in_port={patch},dl_src={mac},{ip},pkt_mark={_BYPASS_MARK:#x},actions={kept}"
        yield f"table=0,priority=103,in_port={patch},dl_src={mac},{ip},{source}={cluster},actions=drop"


def _flows(node: NodeAddresses, patch: str) -> Iterator[str]:
    mac, up = mac_of(node.primary[0]), UPLINK_PORT
    for port, out in ((up, "LOCAL"), ("LOCAL", f"output:{up}")):
        yield f"table=0,priority=205,in_port={port},udp,tp_dst=6081,actions={out}"
    for icmp_type in _NEIGHBOUR_TALK:
        yield f"table=0,priority=110,icmp6,icmp_type={icmp_type},actions=FLOOD"
    for ip in ("ip", "ipv6"):
        for port, mark in ((f"{patch},dl_src={mac}", _OVN), ("LOCAL", _HOST)):
            noted = f"ct(commit,zone={_ZONE},exec(load:{mark}->NXM_NX_CT_MARK[])),output:{up}"
            yield f"table=0,priority=100,in_port={port},{ip},actions={noted}"
        yield f"table=0,priority=50,in_port={up},{ip},actions=ct(zone={_ZONE},nat,table=1)"
        for state in ("+est", "+rel"):
            for mark, out in ((_OVN, f"output:{patch}"), (_HOST, "LOCAL")):
                yield f"table=1,priority=100,ct_state={state}+trk,ct_mark={mark},{ip},actions={out}"
    yield f"table=0,priority=10,in_port={up},dl_dst={mac},actions=output:{patch},LOCAL"
    yield f"table=0,priority=9,in_port={patch},dl_src={mac},actions=NORMAL"
    yield "table=0,priority=0,actions=NORMAL"
    for icmp in ("icmp", "icmp6"):
        yield f"table=1,priority=13,ct_state=+new+trk,{icmp},dl_dst={mac},actions=output:{patch}"
    yield f"table=1,priority=10,dl_dst={mac},actions=LOCAL"
    yield "table=1,priority=0,actions=NORMAL"
