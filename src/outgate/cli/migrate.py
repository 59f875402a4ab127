"""`outgate migrate ...`: what changes for EgressIPs on the way from openshift-sdn, or under another setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outgate.cli.egressip import Routed, nodes_option
from outgate.cli.gateway import place_options
from outgate.cli.show import CHANGES, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions

if TYPE_CHECKING:
    from outgate.model.why import Finding

_SDN = "openshift-sdn"


@click.group()
def migrate() -> None:
    """Prepare a migration: EgressIPs from openshift-sdn's objects, and what changes under which setting."""


@migrate.command()
@click.option("--from", "origin", type=click.Choice([_SDN, "ovn-kubernetes"]), required=True, help="What runs now.")
@nodes_option
@format_option
@place_options
def report(options: GatewayOptions, routed: Routed, origin: str, output: str) -> int:
    """Say, for four settings, which EgressIPs change path, source or offload, and by which route: exit 1 when some do.

    The objects come from a must-gather directory, from files or from an API server; the nodes' routes from what
    `outgate node snapshot` wrote. Nothing is changed.
    """
    from dataclasses import replace

    from outgate.plan.migrate import AS_SDN, as_with_ovn
    from outgate.plan.migrate import migrate as translate
    from outgate.plan.migrate import report as of_all
    from outgate.plan.whatif import Other, unread
    from outgate.report.migrate import report_document, report_text
    from outgate.roles.egress_view import ViewOptions, sdn_of, view_of

    view = view_of(ViewOptions(objects=options, nodes=routed.nodes))
    before = Other(routing=view.routing)
    findings: tuple[Finding, ...] = ()
    if origin == _SDN:
        view = as_with_ovn(view)
        migrated = translate(sdn_of(options), view.intent)
        before, findings = AS_SDN, migrated.findings
        view = replace(view, intent=replace(view.intent, egress_ips=migrated.egress_ips))
    found, missing = of_all(view, before), unread(view)
    show(
        output,
        lambda: report_document(found, missing, findings),
        lambda: report_text(found, missing, findings, style()),
    )
    return CHANGES if findings or missing or any(found.values()) else FINE


@migrate.command()
@place_options
def convert(options: GatewayOptions) -> int:
    """Print EgressIPs that say what openshift-sdn's NetNamespaces and HostSubnets say, as manifests.

    What can not be said stands on stderr, with the labels that nodes need. Nothing is changed.
    """
    from outgate.plan.migrate import migrate as translate
    from outgate.report.findings import findings_text
    from outgate.roles.egress_view import objects_of, sdn_of
    from outgate.sources.dump_cluster import dump_egress_ip
    from outgate.sources.yaml_writer import to_yaml

    migrated = translate(sdn_of(options), objects_of(options))
    documents = [to_yaml(dump_egress_ip(one)) for one in migrated.egress_ips]
    click.echo("---\n".join(documents), nl=False)
    for node in migrated.nodes:
        click.echo(f"kubectl label node {node} k8s.ovn.org/egress-assignable=", err=True)
    if migrated.findings:
        click.echo(findings_text(migrated.findings, style()), err=True)
    return CHANGES if migrated.findings else FINE
