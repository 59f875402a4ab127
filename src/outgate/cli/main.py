"""The command `outgate`: which words it knows, and how errors become exit codes.

Exit codes: 0 fine or no changes, 1 changes or degraded, 2 failed (wrong input, refused, unreachable), 75 another
outgate has this machine (EX_TEMPFAIL), 130 interrupted. Commands are loaded when they are called, so that `outgate
--help` starts at once.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from outgate.model.errors import OutgateError

FINE, CHANGES, FAILED, LOCKED, INTERRUPTED = 0, 1, 2, 75, 130

_COMMANDS = {
    "gateway": ("outgate.cli.gateway:gateway", "Run an egress gateway: plan, apply, status, flush, tenants."),
    "cluster": ("outgate.cli.cluster:cluster", "Judge all objects of a cluster: conditions, addresses from pools."),
    "node": ("outgate.cli.node:node", "Look at a cluster node: which way pods with an egress IP leave."),
    "egressip": ("outgate.cli.egressip:egressip", "List EgressIPs: where they are, whom they serve, why not."),
    "whatif": ("outgate.cli.whatif:whatif", "Say what changes if EgressIPs are routed another way."),
    "migrate": ("outgate.cli.migrate:migrate", "Prepare a migration from openshift-sdn, or to another setting."),
    "explain": ("outgate.cli.explain:explain", "Say where a pod's packet goes, and why."),
    "trace": ("outgate.cli.trace:trace", "Walk a packet through the plan, through OVN and through the kernel."),
    "doctor": ("outgate.cli.doctor:doctor", "Look for what would break or leak, and say how to mend it."),
    "bundle": ("outgate.cli.bundle:bundle", "Write a redacted support bundle that explain and trace can read."),
    "lint": ("outgate.cli.lint:lint", "Check manifests without touching anything."),
    "demo": ("outgate.cli.lab:demo", "Show the gateway at work in network namespaces."),
    "lab": ("outgate.cli.lab:lab", "Keep the laboratory open to play with."),
    "completion": ("outgate.cli.completion:completion", "Print the shell completion script."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and whose help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from the short texts, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; suggest the nearest name for one that is not known."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="outgate", prog_name="outgate")
def outgate() -> None:
    """Decide how traffic leaves an OVN-Kubernetes cluster, make it so, and say why."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        result: Any = outgate.main(args=args, prog_name="outgate", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return FAILED
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except OutgateError as error:
        click.echo(f"outgate: {error}", err=True)
        return getattr(error, "exit_code", FAILED)
    return result if isinstance(result, int) else FINE
