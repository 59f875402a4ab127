"""`outgate explain` and `outgate trace`: where a packet goes and why, by the plan and by what the kernel holds."""

from __future__ import annotations

import click

from outgate.cli.bundle import sight
from outgate.cli.gateway import sight_options
from outgate.cli.show import CHANGES, FAILED, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions

_EXITS = {"fine": FINE, "degraded": CHANGES, "unknown": FAILED}


@click.command()
@click.argument("subject", metavar="NAMESPACE/POD")
@click.option(
    "--to", default="", metavar="IP[:PORT][/PROTO]", help="Where it wants to go; without it, anywhere outside."
)
@click.option("--by", default="", metavar="NEXT-HOP", help="Take this next hop for granted.")
@format_option
@sight_options
def explain(options: GatewayOptions, subject: str, to: str, by: str, output: str) -> int:
    """Say where a pod's packets go, and why: the decision first, then each step with its reason.

    NAMESPACE/POD may also be a bare source address. Exit 0 when its packets leave as wanted, 1 when not, 2 when nobody
    knows the pod.
    """
    from outgate.report.explanation import explanation_document, explanation_text
    from outgate.trace.explain import explain as why
    from outgate.trace.question import parse_question

    question = parse_question(subject, to, by)
    seen = sight(options)
    explanation = why(seen.snapshot, seen.desired, question, seen.actual)
    show(output, lambda: explanation_document(explanation), lambda: explanation_text(explanation, style()))
    return _EXITS[explanation.standing.name.lower()]


@click.command()
@click.argument("subject", metavar="NAMESPACE/POD")
@click.option("--to", required=True, metavar="IP[:PORT][/PROTO]", help="Where the packet wants to go.")
@click.option("--by", default="", metavar="NEXT-HOP", help="Take this next hop for granted.")
@format_option
@sight_options
def trace(options: GatewayOptions, subject: str, to: str, by: str, output: str) -> int:
    """Walk one packet through the plan and through what the kernel holds, step by step.

    Exit 0 when it leaves as wanted, 1 when it does not leave or the kernel does otherwise, 2 when nobody knows the pod.
    """
    from outgate.report.explanation import explanation_document
    from outgate.report.trace import trace_text
    from outgate.trace.explain import explain as why
    from outgate.trace.question import parse_question

    question = parse_question(subject, to, by)
    seen = sight(options)
    explanation = why(seen.snapshot, seen.desired, question, seen.actual)

    def text() -> str:
        if not explanation.answers:
            return explanation.headline
        parts = [
            f"{answer.headline}\n{trace_text(answer.wanted, answer.actual, style())}" for answer in explanation.answers
        ]
        return "\n\n".join(parts)

    show(output, lambda: explanation_document(explanation), text)
    return _EXITS[explanation.standing.name.lower()]
