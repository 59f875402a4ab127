"""`outgate egressip flows|neighbour|route|unserved`: what people ask when something went out as somebody else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from outgate.cli.egressip import Routed, nodes_option, view_options
from outgate.cli.gateway import place_options
from outgate.cli.show import CHANGES, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions

if TYPE_CHECKING:
    from outgate.model.net import Address


_HERE = click.option(
    "--node", envvar="NODE_NAME", default="", help="The Node that this machine is; by default its host name."
)


@click.command()
@click.argument("egress_ip", metavar="[NAME]", default="")
@_HERE
@format_option
@place_options
def flows(options: GatewayOptions, egress_ip: str, node: str, output: str) -> int:
    """Show which live flows leave this node as an egress IP: exit 1 when ports run out, or one leaves as another.

    Run it in the node's network namespace, with CAP_NET_ADMIN. It reads connection tracking, and changes nothing.
    """
    from outgate.plan.egress_flows import PORTS
    from outgate.report.egress_flows import flows_document, flows_text
    from outgate.roles.egress_here import flows_here
    from outgate.roles.egress_view import objects_of, rivals_at

    found = flows_here(objects_of(options), node or os.uname().nodename, egress_ip, rivals_at(options))
    show(output, lambda: flows_document(found), lambda: flows_text(found, PORTS, style()))
    return CHANGES if found.findings else FINE


@click.command()
@click.option("--seen", metavar="IP", default="", help="Whose this address is, and who is seen as it.")
@nodes_option
@format_option
@place_options
def unserved(options: GatewayOptions, routed: Routed, seen: str, output: str) -> int:
    """List pods that leave as somebody else though their namespace has an EgressIP: exit 1 when any does unmeant.

    Somebody's firewall has seen a node's or a pod's address: `--seen` names the pods that it may have been.
    """
    from dataclasses import replace

    from outgate.plan.unserved import unserved as leaving
    from outgate.report.unserved import unserved_document, unserved_text
    from outgate.roles.egress_view import ViewOptions, rivals_at, view_of

    view = view_of(ViewOptions(objects=options, nodes=routed.nodes))
    found = leaving(replace(view, rivals=rivals_at(options)), parse_address(seen, "--seen") if seen else None)
    show(output, lambda: unserved_document(found), lambda: unserved_text(found, style()))
    return CHANGES if any(not one.is_meant for one in found.leaving) else FINE


@click.command()
@click.argument("prefix", metavar="PREFIX")
@view_options
@format_option
@place_options
def route(options: GatewayOptions, routed: Routed, prefix: str, output: str) -> int:
    """Say which egress IPs follow the route to PREFIX that their node's host has: exit 1 when one does not, and why."""
    from ipaddress import ip_network

    from outgate.plan.egress_route import who_follows
    from outgate.report.egress_route import route_document, route_text
    from outgate.roles.egress_view import ViewOptions, view_of

    try:
        asked = ip_network("0.0.0.0/0" if prefix == "default" else prefix)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="PREFIX") from None
    found = who_follows(view_of(ViewOptions(objects=options, nodes=routed.nodes, routing=routed.routing)), asked)
    show(output, lambda: route_document(found), lambda: route_text(found, style()))
    return CHANGES if found.ignored else FINE


@click.command()
@click.argument("address", metavar="IP")
@_HERE
@format_option
@place_options
def neighbour(options: GatewayOptions, address: str, node: str, output: str) -> int:
    """Ask on the LAN who answers for an egress IP, and compare with who should: exit 1 when they differ.

    Run it in the network namespace of a node on that LAN, with CAP_NET_RAW; on another node than the one that has the
    address it hears that one too. Nothing is claimed: it sends ARP and neighbour discovery probes.
    """
    from outgate.report.neighbour import neighbour_document, neighbour_text
    from outgate.roles.egress_here import neighbour_here
    from outgate.roles.egress_view import objects_of, rivals_at

    asked = parse_address(address, "IP")
    found = neighbour_here(asked, objects_of(options), rivals_at(options), node or os.uname().nodename)
    show(output, lambda: neighbour_document(found), lambda: neighbour_text(found, style()))
    return CHANGES if found.findings else FINE


def parse_address(text: str, option: str) -> Address:
    """Return the address that somebody typed.

    Raises:
        click.BadParameter: it is none.
    """
    from ipaddress import ip_address

    try:
        return ip_address(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no address", param_hint=option) from None
