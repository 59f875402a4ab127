"""`outgate node ...`: what a cluster node's host network does with pods that have an egress IP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from outgate.cli.show import CHANGES, FINE, format_option, show, style


@click.group()
def node() -> None:
    """Look at a cluster node: which way pods with an egress IP leave its host network."""


@node.command()
@click.option("--name", required=True, envvar="NODE_NAME", help="The Node that this machine is.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), default=None, help="Without it: the pod's own cluster.")
@click.option("--context", "contexts", multiple=True, help="Several are ways to the same cluster.")
@click.option("--probes", default="", metavar="ADDRESS:PORT", help="Answer /livez, /readyz and /metrics there.")
@click.option(
    "--northbound",
    default="",
    metavar="unix:PATH",
    help="Write to this northbound database of the node's zone (all members of a cluster, with commas), and to"
    " nftables; without it, only observe.",
)
@click.option("--every-node", is_flag=True, help="Read all Nodes: for stance `own`, which sends pods to other nodes.")
def run(**words: Any) -> None:
    """Look after this node until stopped: whether its rules and tables serve the egress IPs that are assigned to it.

    What it finds stands in the conditions of the node's EgressNode. Observing, it changes nothing on the machine, and
    needs no privilege there. With --northbound it adds what the cluster's EgressRoutings ask for: with
    semantics `auto`, what makes host routes count for egress IPs, beside OVN-Kubernetes' own rows. For that it needs
    CAP_NET_ADMIN and the database's socket.
    """
    from outgate.roles.node import NodeOptions, serve

    serve(NodeOptions(**words))


@node.command()
@click.option("--northbound", required=True, metavar="unix:PATH", help="The zone's northbound database.")
def flush(northbound: str) -> int:
    """Take back what `outgate node run` wrote, in the zone and on the host: exactly that."""
    from outgate.roles.node import flush as take_back

    outcome = take_back(northbound)
    click.echo(f"{len(outcome.changes.drop)} rows and elements taken back")
    for failure in outcome.failures:
        click.echo(f"refused: {failure.resource}: {failure.words}", err=True)
    return FINE if outcome.converged else CHANGES


@node.command()
@click.option("--name", required=True, envvar="NODE_NAME", help="The Node that this machine is.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    metavar="FILE",
    help="Where to write it; by default to standard output.",
)
def snapshot(name: str, output: Path | None) -> None:
    """Write this node's links, routes, rules and settings as one file, for `outgate explain --nodes` elsewhere.

    Run it in the node's network namespace. A user without rights is enough; with CAP_NET_ADMIN it also tells what
    nftables translates, which `outgate trace` walks through. Nothing is changed.
    """
    from outgate.roles.egress_view import host_snapshot

    content = host_snapshot(name)
    if output is None:
        click.echo(content)
    else:
        output.write_bytes(content)


@node.command()
@click.option(
    "--to", "destination", metavar="IP", default="", help="Also say which route takes packets to this address."
)
@format_option
def tables(destination: str, output: str) -> int:
    """Compare each secondary NIC's EgressIP table with the main table: exit 0 all alike, 1 when pods go elsewhere.

    Run it in the node's network namespace (`oc debug node/NAME`, then `chroot /host`). Nothing is changed.
    """
    from ipaddress import ip_address

    from outgate.report.host_tables import tables_document, tables_text
    from outgate.roles.node import egress_tables

    try:
        asked = ip_address(destination) if destination else None
    except ValueError:
        raise click.BadParameter(f"{destination!r} is no address", param_hint="--to") from None
    found = egress_tables(asked)
    show(output, lambda: tables_document(found), lambda: tables_text(found, style()))
    return CHANGES if any(table.findings for table in found) else FINE
