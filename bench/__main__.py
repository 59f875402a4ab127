"""`python -m bench [NAME...]`: run the measurements, print the table, write build/bench.jsonl."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.egress_ip import assisting, look_ups, northbound_rows, what_if
from bench.faces import daemon_with_many_tenants, help_text, pods_from_json
from bench.failover import announcing, failing_over
from bench.figure import Figure
from bench.kube import events, events_from_the_server, large_cluster, patch_to_kernel
from bench.packets import data_path
from bench.routes import routes_from_nothing, routes_read_and_compared
from bench.tenants import tenants_from_nothing

RECORD = Path("build/bench.jsonl")
MEASUREMENTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "tenants": tenants_from_nothing,
    "routes": routes_read_and_compared,
    "fresh-routes": routes_from_nothing,
    "packets": data_path,
    "daemon": daemon_with_many_tenants,
    "help": help_text,
    "pods": pods_from_json,
    "kube-patch": patch_to_kernel,
    "kube-crowd": large_cluster,
    "kube-events": events,
    "kube-watch": events_from_the_server,
    "egressip-rows": northbound_rows,
    "egressip-node": assisting,
    "egressip-look-ups": look_ups,
    "egressip-what-if": what_if,
    "egressip-failover": failing_over,
    "egressip-announcing": announcing,
}


def main(names: list[str]) -> int:
    """Run the named measurements, all without names; return 1 when a goal is missed."""
    if os.geteuid() != 0:
        print("bench: network namespaces need root")
        return 2
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        print(f"bench: there is no {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
        return 2
    RECORD.parent.mkdir(exist_ok=True)
    missed = 0
    print(f"load at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with RECORD.open("w") as record:
        for name in names or MEASUREMENTS:
            for figure in MEASUREMENTS[name]():
                print(figure, flush=True)
                record.write(json.dumps(figure.row()) + "\n")
                missed += figure.met is False
    print(f"{missed} goals missed" if missed else "every goal met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
