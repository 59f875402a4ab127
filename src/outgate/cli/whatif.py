"""`outgate whatif`: which packets with an egress IP would go another way, before anybody makes it so."""

from __future__ import annotations

import click

from outgate.cli.egressip import Routed, view_options
from outgate.cli.gateway import place_options
from outgate.cli.show import CHANGES, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions


@click.command()
@click.option(
    "--gateway-mode",
    "mode",
    type=click.Choice(["local", "shared"]),
    default=None,
    help="Try this gateway mode on all nodes (`routingViaHost: true` is local); by default each node keeps its own.",
)
@view_options
@format_option
@place_options
def whatif(options: GatewayOptions, routed: Routed, mode: str | None, output: str) -> int:
    """Say which flows change path, source or offload if EgressIPs are routed so: exit 0 none, 1 some.

    Compared is with what OVN-Kubernetes does today (semantics legacy, each node's own mode). Needs what `outgate node
    snapshot` wrote on the nodes. Nothing is changed.
    """
    from outgate.model.nics import GatewayMode
    from outgate.plan.whatif import Other, shifts, unread
    from outgate.report.whatif import whatif_document, whatif_text
    from outgate.roles.egress_view import ViewOptions, view_of

    view = view_of(ViewOptions(objects=options, nodes=routed.nodes))
    other = Other(routing=routed.routing, mode=GatewayMode(mode) if mode is not None else None)
    found, missing = shifts(view, other), unread(view)
    show(output, lambda: whatif_document(found, missing), lambda: whatif_text(found, missing, style()))
    return CHANGES if found or missing else FINE
