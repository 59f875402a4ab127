"""The nftables table that OVN-Kubernetes keeps on a node: masquerade in local gateway mode, SNAT for secondary NICs.

Chains, hooks and priorities are those of go-controller/pkg/node (2026), but for one: the masquerade stands a step later
here, because which of two chains of one priority comes first is the kernel's choice, and there it is the SNAT. The mark
by which OVN tells the guard whose packets are an egress IP's does not reach the kernel from a switch in user space; the
guard is there all the same.
"""

from __future__ import annotations

from outgate.lab.ovn.addresses import CLUSTER, NodeAddresses

TABLE = "inet ovn-kubernetes"
SNAT4, SNAT6 = "egress-ip-snat-v4", "egress-ip-snat-v6"
SECONDARY_MARK = 1009

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
    ip saddr {cluster4} meta mark {mark} drop
    ip6 saddr {cluster6} meta mark {mark} drop
  }}
  chain local-gw-masquerade {{
    type nat hook postrouting priority srcnat + 1; policy accept;
{masquerade}
  }}
}}
"""
_MASQUERADE = """
    ip daddr {cluster4} return
    ip6 daddr {cluster6} return
    ip saddr {pods4} masquerade
    ip6 saddr {pods6} masquerade
"""


def table(at: NodeAddresses, *, local: bool) -> str:
    """Return the whole table of a node, for `nft -f`; its maps are empty."""
    words = {"cluster4": CLUSTER[0], "cluster6": CLUSTER[1], "pods4": at.subnets[0], "pods6": at.subnets[1]}
    return _RULES.format(
        table=TABLE,
        snat4=SNAT4,
        snat6=SNAT6,
        mark=SECONDARY_MARK,
        masquerade=_MASQUERADE.format(**words) if local else "",
        **words,
    )
