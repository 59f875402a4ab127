"""The nftables table that OVN-Kubernetes keeps on a node: masquerade in local gateway mode, SNAT for secondary NICs.

Chains, hooks and priorities are those of go-controller/pkg/node (2026), but for one: the masquerade stands a step later
here, because which of two chains of one priority comes first is the kernel's choice, and there it is the SNAT. OVN's
marks, which tell whose packets are an egress IP's, do not reach the kernel from a switch in user space; what hangs on
them is there all the same.
"""

from __future__ import annotations

from outgate.lab.ovn.addresses import CLUSTER, NodeAddresses

TABLE = "inet ovn-kubernetes"
SNAT4, SNAT6 = "egress-ip-snat-v4", "egress-ip-snat-v6"
SECONDARY_MARK = 1009  # of packets with an egress IP of a secondary NIC
TO_NODES_MARK = 1008  # of packets of pods with an egress IP to nodes, which keep the node's address
MARKED_PRIORITY = 5999  # of the rule that takes those to the main table, ahead of the rules for secondary NICs

_RULES = """
table {table}
delete table {table}
table {table} {{
  map {snat4} {{ type ipv4_addr . ifname : ipv4_addr; }}
  map {snat6} {{ type ipv6_addr . ifname : ipv6_addr; }}
  chain egress-ip-snat {{
    type nat hook postrouting priority srcnat; policy accept;
    snat ip to ip saddr . meta oifname map @{snat4}
    snat ip6 to ip6 saddr . meta oifname map @{snat6}
  }}
  chain egress-ip-sec-filter {{
    type filter hook postrouting priority srcnat + 1; policy accept;
    ip saddr {cluster4} meta mark {mark} counter drop
    ip6 saddr {cluster6} meta mark {mark} counter drop
  }}
  chain local-gw-masquerade {{
    type nat hook postrouting priority srcnat + 1; policy accept;
{masquerade}
  }}
{connmark}
}}
"""
_CONNMARK = """
  chain egress-ip-connmark {{
    type filter hook prerouting priority mangle; policy accept;
    meta mark 0 meta mark set ct mark
    meta mark {to_nodes} ct mark set meta mark
  }}
"""  # answers get the mark of their flow back before their way is looked up
_MASQUERADE = """
    ip daddr {cluster4} return
    ip6 daddr {cluster6} return
    ip saddr {pods4} masquerade
    ip6 saddr {pods6} masquerade
"""


def table(at: NodeAddresses, *, local: bool, egress_ip: bool = True) -> str:
    """Return the whole table of a node, for `nft -f`, with empty maps. `egress_ip` says whether the feature is on."""
    words = {"cluster4": CLUSTER[0], "cluster6": CLUSTER[1], "pods4": at.subnets[0], "pods6": at.subnets[1]}
    return _RULES.format(
        table=TABLE,
        snat4=SNAT4,
        snat6=SNAT6,
        mark=SECONDARY_MARK,
        masquerade=_MASQUERADE.format(**words) if local else "",
        connmark=_CONNMARK.format(to_nodes=TO_NODES_MARK) if local and egress_ip else "",
        **words,
    )
