"""The laboratory with a real OVN: nodes with ovn-controller and Open vSwitch (user space), one zone each, joined by a
transit switch, as OVN-Kubernetes builds a cluster with interconnect.
"""
