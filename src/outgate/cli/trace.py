"""`outgate trace`: one packet, step by step, through the plan and through what kernel and OVN hold.

Where there is an EgressGateway, its tenants are meant; in a cluster without one, its EgressIPs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from outgate.cli.bundle import sight
from outgate.cli.egressip import Routed, view_options
from outgate.cli.explain import EXITS, intent_of
from outgate.cli.gateway import sight_options
from outgate.cli.show import CHANGES, FAILED, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions

if TYPE_CHECKING:
    from outgate.model.intent import Intent
    from outgate.trace.question import Question


class ZoneDatabase(click.ParamType):  # type: ignore[type-arg]
    """[NODE=]TARGET: a database of the zone of a node, as `unix:PATH` or `tcp:HOST:PORT`."""

    name = "[NODE=]unix:PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the node, empty where none is said, and the target."""
        if isinstance(value, tuple):
            return value
        node, equals, target = value.partition("=")
        if not equals or ":" in node:
            node, target = "", value
        if not target.startswith(("unix:", "tcp:")):
            self.fail(f"{value!r} is no database; write it as in n1=unix:/var/run/ovn/ovnnb_db.sock", param, ctx)
        return node, target


@click.command()
@click.argument("subject", metavar="NAMESPACE/POD")
@click.option("--to", required=True, metavar="IP[:PORT][/PROTO]", help="Where the packet wants to go.")
@click.option("--by", default="", metavar="NEXT-HOP", help="Take this next hop for granted.")
@click.option(
    "--northbound",
    multiple=True,
    type=ZoneDatabase(),
    help="Walk through the rows of this northbound database, of the zone of a node; one for each zone on the way.",
)
@click.option(
    "--southbound",
    multiple=True,
    type=ZoneDatabase(),
    help="Ask ovn-trace, too, with this southbound database; without a node, that of the pod's node.",
)
@click.option("--here", default="", metavar="NODE", help="This machine is that node: read its routes and nftables.")
@view_options
@format_option
@sight_options
def trace(options: GatewayOptions, routed: Routed, subject: str, output: str, **words: Any) -> int:
    """Walk one packet through the plan and through what kernel and OVN hold, step by step.

    Where there is no EgressGateway, the packet is walked through OVN and then through the host of the node that has its
    egress IP; without --northbound, the half in OVN is what the plan says. Exit 0 when it leaves as wanted, 1 when it
    does not leave or something does otherwise, 2 when nobody knows the pod.
    """
    from outgate.trace.question import parse_question

    question = parse_question(subject, words.pop("to"), words.pop("by"))  # what is left says which databases
    intent = intent_of(options)
    if intent is None or (routed.nodes is None and not any(words.values()) and intent.gateways):
        return _through_gateway(options, intent, question, output)
    from outgate.report.egress_trace import egress_trace_document, egress_trace_text
    from outgate.roles.egress_trace import TraceOptions, trace_pod
    from outgate.roles.egress_view import ViewOptions

    assert question.to is not None  # --to is required
    view = ViewOptions(objects=options, nodes=routed.nodes, routing=routed.routing)
    found = trace_pod(TraceOptions(view=view, **words), intent, question, question.to)
    show(output, lambda: egress_trace_document(found), lambda: egress_trace_text(found, style()))
    return FAILED if not found.known else FINE if found.is_well else CHANGES


def _through_gateway(options: GatewayOptions, intent: Intent | None, question: Question, output: str) -> int:
    from outgate.report.explanation import explanation_document
    from outgate.report.trace import trace_text
    from outgate.trace.explain import explain as why

    seen = sight(options, intent)
    explanation = why(seen.snapshot, seen.desired, question, seen.actual)

    def text() -> str:
        if not explanation.answers:
            return explanation.headline
        parts = [
            f"{answer.headline}\n{trace_text(answer.wanted, answer.actual, style())}" for answer in explanation.answers
        ]
        return "\n\n".join(parts)

    show(output, lambda: explanation_document(explanation), text)
    return EXITS[explanation.standing.name.lower()]
