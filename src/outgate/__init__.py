"""Egress and routing control plane for OVN-Kubernetes: decides how traffic leaves a cluster, and can say why."""
