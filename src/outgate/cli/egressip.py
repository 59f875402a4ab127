"""`outgate egressip ...`: EgressIPs of a cluster, live or from files, and how they are routed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outgate.cli.gateway import place_options
from outgate.cli.show import CHANGES, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions

if TYPE_CHECKING:
    from outgate.model.egress_ip import ClusterView
from outgate.model.routing import Routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What the options say: a directory of nodes' snapshots, and how all EgressIPs shall be routed."""

    semantics: str | None = None
    honor_host_routes: bool = False
    snat_scope: str | None = None
    nodes: Path | None = None

    @property
    def routing(self) -> Routing | None:
        """The same in the words of the plan; None when no option says anything: the cluster's EgressRoutings count."""
        if self.semantics is None and self.snat_scope is None and not self.honor_host_routes:
            return None
        from outgate.model.routing import Routing, Semantics, SnatScope

        return Routing(
            semantics=Semantics(self.semantics or Semantics.AUTO),
            honor_host_routes=self.honor_host_routes,
            snat_scope=SnatScope(self.snat_scope or SnatScope.ANY),
        )


def routing_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how EgressIP is routed; they arrive as `routed`."""

    @wraps(function)
    def with_routing(
        *args: Any,
        semantics: str | None,
        honor_host_routes: bool,
        snat_scope: str | None,
        nodes: Path | None = None,
        **words: Any,
    ) -> Any:
        routed = Routed(nodes=nodes, semantics=semantics, honor_host_routes=honor_host_routes, snat_scope=snat_scope)
        return function(*args, routed=routed, **words)

    for option in (  # the last one that is added stands first in the help
        click.option(
            "--snat-scope",
            type=click.Choice(["any", "hosting-link"]),
            default=None,
            help="By which links a packet may leave with an egress IP of the primary NIC.",
        ),
        click.option("--honor-host-routes", is_flag=True, help="With semantics auto: also in shared gateway mode."),
        click.option(
            "--semantics",
            type=click.Choice(["legacy", "auto"]),
            default=None,
            help="Take for granted that all EgressIPs are routed as OVN-Kubernetes does today, or by gateway mode and"
            " the host's routes; by default as the cluster's EgressRoutings say.",
        ),
    ):
        with_routing = option(with_routing)
    return with_routing


def view_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `routing_options`, and `--nodes`."""
    return _NODES(routing_options(function))


def nodes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--nodes` alone; it arrives in `routed` as well."""

    @wraps(function)
    def with_nodes(*args: Any, nodes: Path | None, **words: Any) -> Any:
        return function(*args, routed=Routed(nodes=nodes), **words)

    return _NODES(with_nodes)


_NODES = click.option(
    "--nodes",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    metavar="DIR",
    help="What `outgate node snapshot` wrote on the nodes; by default the folder `nodes` beside the manifests.",
)


_QUESTIONS = ("flows", "neighbour", "route", "unserved")  # commands in cli/egress_questions.py


class WithQuestions(click.Group):
    """The group of commands about EgressIPs, with those that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted as the help shows them."""
        return sorted([*super().list_commands(ctx), *_QUESTIONS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command."""
        if cmd_name not in _QUESTIONS:
            return super().get_command(ctx, cmd_name)
        from outgate.cli import egress_questions

        command: click.Command = getattr(egress_questions, cmd_name)
        return command


@click.group(cls=WithQuestions)
def egressip() -> None:
    """Look at EgressIPs: where they are, whom they serve, and why one is not assigned."""


@egressip.command(name="list")
@format_option
@place_options
def list_(options: GatewayOptions, output: str) -> int:
    """List EgressIPs with their nodes, pods and what is amiss: exit 1 when an address is on no node."""
    from outgate.plan.egress_list import listed
    from outgate.report.egress_list import list_document, list_text

    rows = listed(_view(options).intent)
    show(output, lambda: list_document(rows), lambda: list_text(rows, style()))
    return CHANGES if any(one.findings for one in rows) else FINE


@egressip.command(name="show")
@click.argument("egress_ip", metavar="NAME")
@nodes_option
@format_option
@place_options
def show_(options: GatewayOptions, routed: Routed, egress_ip: str, output: str) -> int:
    """Show one EgressIP: on which node and NIC each address is, the pods that it serves, what is amiss: exit 1 then."""
    from outgate.plan.egress_list import detail
    from outgate.report.egress_list import detail_document, detail_text
    from outgate.roles.egress_view import ViewOptions, view_of

    found = detail(view_of(ViewOptions(objects=options, nodes=routed.nodes)), egress_ip)
    show(output, lambda: detail_document(found), lambda: detail_text(found, style()))
    return CHANGES if found.findings else FINE


@egressip.command(name="why-unassigned")
@click.argument("egress_ip", metavar="NAME")
@format_option
@place_options
def why_unassigned(options: GatewayOptions, egress_ip: str, output: str) -> int:
    """Say for each address of an EgressIP which node could take it, and why the others can not."""
    from outgate.plan.egress_list import reasons
    from outgate.report.egress_list import reasons_document, reasons_text

    found = reasons(_view(options).intent, egress_ip)
    show(output, lambda: reasons_document(found), lambda: reasons_text(found, style()))
    return CHANGES if any(one.finding is not None for one in found) else FINE


@egressip.command()
@click.argument("egress_ip", metavar="[NAME]", required=False, default="")
@format_option
@place_options
def history(options: GatewayOptions, egress_ip: str, output: str) -> int:
    """Tell when addresses moved, from which node to which, and why: of one EgressIP, or of all.

    The cluster role keeps the last 256 moves in the status of the EgressRouting `default`. This reads it of an API
    server, a must-gather, or files. Exit 2 when there is none: the role never ran.
    """
    from outgate.report.egress_list import history_document, history_text
    from outgate.roles.egress_view import moves_of

    found = tuple(one for one in moves_of(options) if egress_ip in ("", one.egress_ip))
    show(output, lambda: history_document(found), lambda: history_text(found, style()))
    return FINE


def _view(options: GatewayOptions) -> ClusterView:
    from outgate.roles.egress_view import ViewOptions, view_of

    return view_of(ViewOptions(objects=options))
