"""What other programs' firewalls hold: iptables of both variants and foreign nftables, read; a former script's rules,
removed.

`iptables-save` and `nft -j` are formats made for programs (iptables-save(8), libnftables-json(5)). Neither alone is
enough: nft shows rules of iptables-nft as opaque objects without their values, and those of iptables-legacy not at all.
"""
