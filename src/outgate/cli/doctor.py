"""`outgate doctor`: what would break or leak, and how to mend it."""

from __future__ import annotations

import click

from outgate.cli.bundle import sight
from outgate.cli.gateway import sight_options
from outgate.cli.show import CHANGES, FAILED, FINE, format_option, show, style
from outgate.roles.options import GatewayOptions


@click.command()
@click.option("--probe", is_flag=True, help="Ask the LANs, by ARP and neighbour solicitations, who has our addresses.")
@format_option
@sight_options
def doctor(options: GatewayOptions, output: str, probe: bool) -> int:
    """Look for what would break or leak, and say how to mend it: exit 0 all well, 1 warnings, 2 failures.

    Nothing is changed. Before the first `outgate gateway run` the plan is examined instead of what is in force.
    """
    from outgate.model.check import Grade
    from outgate.report.doctor import checks_document, checks_text, worst
    from outgate.roles.doctor import diagnose

    if probe and options.bundle is not None:
        raise click.UsageError("--probe asks the LANs of this machine; a bundle has none")
    checks = diagnose(sight(options), probing=probe)
    show(output, lambda: checks_document(checks), lambda: checks_text(checks, style()))
    return {Grade.OK: FINE, Grade.WARN: CHANGES, Grade.FAIL: FAILED}[worst(checks)]
