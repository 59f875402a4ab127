"""One manifest of each kind with every field, for the reference; a story reads them, so that they stay valid."""

from __future__ import annotations

EXAMPLES = {
    "EgressGateway": """
apiVersion: outgate.io/v1alpha1
kind: EgressGateway
metadata:
  name: gw1
spec:
  inner:
  - interface: enp1s0
    sharedNextHops: [192.168.99.11, "fd99::11"]
  uplinks: [enp7s0]
  clusterNetworks: [10.128.0.0/14, "fd01::/48"]
  bypass: [192.168.98.0/24]
  internalDestinations:
  - {cidr: 192.168.99.5/32, interface: enp1s0}
  announce:
    method: Layer2
    ratePerSecond: 50
    probes: 3
    probeIntervalMilliseconds: 300
""",
    "EgressTenant": """
apiVersion: outgate.io/v1alpha1
kind: EgressTenant
metadata:
  name: ns-blue
spec:
  gateway: gw1
  namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: ns-blue
  podSelector:
    matchExpressions:
    - {key: tier, operator: In, values: [web, batch]}
  identity:
    nextHop:                      # or: source: {cidrs: [...]}
      addresses: [192.168.99.13, "fd99::13"]
      interface: enp1s0
  sourceCheck: pods
  egressIPs: [192.168.55.113, "fd55::113"]   # or: fromPool: {name: lab, count: 1}
  uplink: enp7s0
  destinations:
  - cidrs: [198.51.100.0/24]
    egressIPs: [192.168.55.115]
  onChange: drain
  allowInbound:
  - {protocol: TCP, port: 22}
  - {protocol: ICMP}
  rate: {bytesPerSecond: 2097152, burstBytes: 262144}
  connections: 1000
  quota: {bytes: 1000000000, period: 24h}
""",
    "EgressPool": """
apiVersion: outgate.io/v1alpha1
kind: EgressPool
metadata:
  name: lab
spec:
  ranges: [192.168.55.120-192.168.55.139, 192.168.56.0/28]
  excludes: [192.168.55.125]
  allowedNamespaces:
    matchLabels: {egress: allowed}
  quarantine: 5m
""",
    "EgressRouting": """
apiVersion: outgate.io/v1alpha1
kind: EgressRouting
metadata:
  name: default                   # all EgressIPs that no other EgressRouting names
spec:
  stance: assist
  semantics: legacy
  defaultGateways:
  - {interface: eth1, router: 192.168.55.1}
---
apiVersion: outgate.io/v1alpha1
kind: EgressRouting
metadata:
  name: canary
spec:
  egressIPs: [prod]
  semantics: auto
  honorHostRoutes: true
  snatScope: any
  onUnassigned: drop
  allowInbound:
  - {protocol: ICMP}
""",
    "EgressClaim": """
apiVersion: outgate.io/v1alpha1
kind: EgressClaim
metadata:
  name: shop
  namespace: ns-blue
spec:
  fromPool: {name: lab, count: 1}
  gateway: gw1
  podSelector:
    matchLabels: {tier: web}
""",
}
