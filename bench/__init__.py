"""Speed and memory, each figure beside its rival in the same run. `make bench` prints a table and writes
build/bench.jsonl.

A figure is a median of several runs unless it says otherwise. Everything runs in network namespaces of its own. How
each figure is taken stands in the docstring of its function and in docs/performance.md.
"""
