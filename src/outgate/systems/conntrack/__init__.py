"""Flows that the kernel tracks: read, counted and removed."""
