"""`outgate egressip flows|neighbour|route|unserved`: what people ask when something went out as somebody else."""

from __future__ import annotations

import os

import click

from outgate.cli.gateway import place_options
from outgate.cli.show import CHANGES, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions


@click.command()
@click.argument("egress_ip", metavar="[NAME]", default="")
@click.option("--node", envvar="NODE_NAME", default="", help="The Node that this machine is; by default its host name.")
@format_option
@place_options
def flows(options: GatewayOptions, egress_ip: str, node: str, output: str) -> int:
    """Show which live flows leave this node as an egress IP: exit 1 when ports run out, or one leaves as another.

    Run it in the node's network namespace, with CAP_NET_ADMIN. It reads connection tracking, and changes nothing.
    """
    from outgate.plan.egress_flows import PORTS
    from outgate.report.egress_flows import flows_document, flows_text
    from outgate.roles.egress_here import flows_here
    from outgate.roles.egress_view import objects_of

    found = flows_here(objects_of(options), node or os.uname().nodename, egress_ip)
    show(output, lambda: flows_document(found), lambda: flows_text(found, PORTS, style()))
    return CHANGES if found.findings else FINE
