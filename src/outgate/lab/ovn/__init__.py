"""The laboratory with a real OVN: nodes with ovn-controller and Open vSwitch, in user space or in the kernel, one zone
each, joined by a transit switch, as OVN-Kubernetes builds a cluster with interconnect.
"""
