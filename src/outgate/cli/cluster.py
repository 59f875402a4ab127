"""`outgate cluster ...`: the role that judges all objects of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group()
def cluster() -> None:
    """Judge all objects of a cluster: conditions, and addresses from pools."""


@cluster.command()
@click.option("--kubeconfig", type=click.Path(path_type=Path), default=None, help="Without it: the pod's own cluster.")
@click.option("--context", "contexts", multiple=True, help="Several are ways to the same cluster.")
@click.option("--namespace", default="outgate", show_default=True, help="Of the lease.")
@click.option("--lease", default="outgate-cluster", show_default=True, help="Its name; one of its candidates leads.")
@click.option("--lease-duration", default=8.0, show_default=True, metavar="SECONDS", help="OpenShift's own: 137.")
@click.option("--renew-deadline", default=5.0, show_default=True, metavar="SECONDS", help="OpenShift's own: 107.")
@click.option("--retry-period", default=1.0, show_default=True, metavar="SECONDS", help="OpenShift's own: 26.")
@click.option("--node-port", default=9097, show_default=True, metavar="PORT", help="Where the role on nodes answers.")
@click.option("--probes", default="", metavar="ADDRESS:PORT", help="Answer /livez, /readyz and /metrics there.")
def run(lease_duration: float, renew_deadline: float, retry_period: float, **words: Any) -> None:
    """Run one replica until it is stopped; of several, one leads."""
    from outgate.roles.cluster import ClusterOptions, serve
    from outgate.systems.kubeapi.lease import LeaseTimings

    timings = LeaseTimings(duration_s=lease_duration, renew_s=renew_deadline, retry_s=retry_period)
    serve(ClusterOptions(timings=timings, **words))
