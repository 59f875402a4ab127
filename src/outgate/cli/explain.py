"""`outgate explain`: where a packet goes and why, by the plan and by what the kernel holds.

Where there is an EgressGateway, its tenants are meant; in a cluster without one, its EgressIPs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outgate.cli.bundle import sight
from outgate.cli.egressip import Routed, view_options
from outgate.cli.gateway import sight_options
from outgate.cli.show import CHANGES, FAILED, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions

if TYPE_CHECKING:
    from outgate.model.intent import Intent
    from outgate.trace.question import Question

EXITS = {"fine": FINE, "degraded": CHANGES, "unknown": FAILED}


@click.command()
@click.argument("subject", metavar="NAMESPACE/POD")
@click.option(
    "--to", default="", metavar="IP[:PORT][/PROTO]", help="Where it wants to go; without it, anywhere outside."
)
@click.option("--by", default="", metavar="NEXT-HOP", help="Take this next hop for granted.")
@view_options
@format_option
@sight_options
def explain(options: GatewayOptions, routed: Routed, output: str, **asked: str) -> int:
    """Say where a pod's packets go, and why: the decision first, then each step with its reason.

    NAMESPACE/POD may also be a bare source address. Where there is no EgressGateway, the answer is about EgressIPs;
    what `outgate node snapshot` wrote on the nodes makes it complete. Exit 0 when its packets leave as wanted, 1 when
    not, 2 when nobody knows the pod.
    """
    from outgate.report.explanation import explanation_document, explanation_text
    from outgate.trace.explain import explain as why
    from outgate.trace.question import parse_question

    question = parse_question(**asked)
    intent = intent_of(options)
    if intent is not None and (routed.nodes is not None or not intent.gateways):
        return _by_egress_ip(options, routed, intent, question, output)
    seen = sight(options, intent)
    explanation = why(seen.snapshot, seen.desired, question, seen.actual)
    show(output, lambda: explanation_document(explanation), lambda: explanation_text(explanation, style()))
    return EXITS[explanation.standing.name.lower()]


def intent_of(options: GatewayOptions) -> Intent | None:
    """Return what is asked for of this machine or cluster; None where a bundle tells."""
    if options.bundle is not None:
        return None
    from outgate.roles.egress_view import objects_of

    return objects_of(options)


def _by_egress_ip(options: GatewayOptions, routed: Routed, intent: Intent, question: Question, output: str) -> int:
    from dataclasses import replace

    from outgate.plan.egress_explain import explain_pod
    from outgate.report.egress_ip import egress_document, egress_text
    from outgate.roles.egress_view import ViewOptions, rivals_at, view_of

    if question.to is None:
        raise click.UsageError("say where it wants to go, with --to: the route of an egress IP hangs on that")
    view = view_of(ViewOptions(objects=options, nodes=routed.nodes, routing=routed.routing), intent)
    view = replace(view, rivals=rivals_at(options))
    to = question.to
    found = explain_pod(view, str(question.subject), to.address, protocol=to.protocol, port=to.port)
    show(output, lambda: egress_document(found), lambda: egress_text(found, style()))
    return FAILED if not found.known else FINE if found.is_well else CHANGES
