"""`outgate gateway ...`: run, plan, diff, apply, confirm, rollback, status, flush, and the tenants of the script's
runbook.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, cast

import click

from outgate.cli.show import CHANGES, FAILED, FINE, coloured, format_option, show, style, width
from outgate.model.errors import IntentError, NotReady, Unreachable
from outgate.roles.options import MANIFESTS, RUN, STATE, GatewayOptions

_EXITS = {"OK": FINE, "DEGRADED": CHANGES}  # by the gateway's health; whatever else it is, it FAILED

_PLACE = (
    "manifests",
    "kubeconfig",
    "contexts",
    "clusters",
    "name",
    "instance",
    "state",
    "run",
)  # fields of GatewayOptions


class NamedCluster(click.ParamType):  # type: ignore[type-arg]
    """NAME=CONTEXT[,CONTEXT...]: a cluster by a name of the user's, which has no dot."""

    name = "NAME=CONTEXT,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name and the contexts."""
        if isinstance(value, tuple):
            return value
        name, _, contexts = value.partition("=")
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", name) or not all(contexts.split(",")):
            self.fail(f"{value!r} is no NAME=CONTEXT; write it as in east=east-admin", param, ctx)
        return name, tuple(contexts.split(","))


def place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which gateway, which manifests, which state; they arrive as one `options`."""
    path = click.Path(path_type=Path)

    @wraps(function)
    def with_options(*args: Any, **words: Any) -> Any:
        options = GatewayOptions(**{field: words.pop(field) for field in _PLACE})
        names = [name for name, _ in options.clusters]
        if names and (options.kubeconfig is None or options.contexts or len(set(names)) < len(names)):
            raise click.UsageError("--cluster needs --kubeconfig, takes the place of --context, and each name once")
        return function(*args, options=options, **words)

    decorated: Callable[..., Any] = with_options
    for option in (
        click.option("--run-dir", "run", type=path, default=RUN, show_default=True, help="Where lock and socket are."),
        click.option(
            "--state-dir", "state", type=path, default=STATE, show_default=True, help="Where the state file is."
        ),
        click.option("--instance", default="gateway", show_default=True, help="Name of the state's directory."),
        click.option(
            "--name", default="", help="The EgressGateway that this machine is; needed when there are several."
        ),
        click.option(
            "--context",
            "contexts",
            multiple=True,
            help="Of the kubeconfig; several are ways to the same cluster, the first is preferred.",
        ),
        click.option(
            "--cluster",
            "clusters",
            multiple=True,
            type=NamedCluster(),
            help="One of several clusters that this gateway serves: a name for its objects here, and its contexts.",
        ),
        click.option(
            "--kubeconfig", type=path, default=None, help="Read the intent from this API server, not from manifests."
        ),
        click.option("-f", "--manifests", type=path, default=MANIFESTS, show_default=True, help="Directory or file."),
    ):
        decorated = option(decorated)
    return decorated


def sight_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `place_options`, and `--from BUNDLE`, for commands that only look."""

    @wraps(function)
    def with_bundle(*args: Any, options: GatewayOptions, bundle: Path | None, **words: Any) -> Any:
        from dataclasses import replace

        return function(*args, options=replace(options, bundle=bundle), **words)

    path = click.Path(path_type=Path, dir_okay=False)
    text = "Look at what this bundle holds (`outgate bundle`) instead of at this machine; needs no privilege."
    return place_options(
        click.option("--from", "bundle", type=path, default=None, metavar="BUNDLE", help=text)(with_bundle)
    )


_SCRIPT = {
    "add-tenant": "add_tenant",
    "remove-tenant": "remove_tenant",
    "daemon": "daemon",
    "import-script": "import_script",
}  # commands of the script that outgate replaces, in cli/seed_script.py


class WithScript(click.Group):
    """The group of gateway commands, with those of the script, which are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return our own commands, then the script's."""
        return [*super().list_commands(ctx), *_SCRIPT]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command."""
        if cmd_name not in _SCRIPT:
            return super().get_command(ctx, cmd_name)
        from outgate.cli import seed_script

        command: click.Command = getattr(seed_script, _SCRIPT[cmd_name])
        return command


@click.group(cls=WithScript)
def gateway() -> None:
    """Run an egress gateway: each tenant leaves by its own egress IP, or not at all."""


@gateway.command()
@click.option(
    "--metrics", default="127.0.0.1:9461", show_default=True, metavar="ADDRESS:PORT", help="Where; empty: no metrics."
)
@click.option("--metrics-remote", is_flag=True, help="Let --metrics be an address that others reach.")
@click.option("--yes", is_flag=True, help="Delete in bulk without a second reading.")
@place_options
def run(options: GatewayOptions, metrics: str, metrics_remote: bool, yes: bool) -> None:
    """Run the daemon: keep this machine as the manifests say, until stopped."""
    from dataclasses import replace

    from outgate.roles.gateway_daemon import serve

    serve(replace(options, metrics=metrics, metrics_remote=metrics_remote, sure=yes))


@gateway.command()
@format_option
@sight_options
def plan(options: GatewayOptions, output: str) -> int:
    """Show what would change, and why; exit 1 when something would, or when a part is refused."""
    from outgate.cli.planned import planned_of
    from outgate.model.why import Severity
    from outgate.report.planned import planned_document, planned_text

    planned = planned_of(options)
    show(output, lambda: planned_document(planned), lambda: planned_text(planned, style()))
    refused = any(finding.severity is Severity.REFUSAL for finding in planned.desired.findings)
    return CHANGES if planned.changes or planned.desired.probes or refused else FINE


@gateway.command()
@click.option("--confirm-within", default="", metavar="TIME", help="Roll back by itself unless confirmed: 60s, 5m.")
@click.option("--yes", is_flag=True, help="Delete in bulk without a second reading.")
@place_options
def apply(options: GatewayOptions, confirm_within: str, yes: bool) -> int:
    """Make this machine as the manifests say, once; through the daemon if it runs. Exit 1 when something is amiss."""
    from dataclasses import replace

    from outgate.model.why import Severity
    from outgate.roles.gateway import apply_once
    from outgate.roles.options import place_of

    within_s = _seconds("--confirm-within", confirm_within) if confirm_within else 0.0
    runs = place_of(options).socket.exists()
    if options.kubeconfig is not None and (runs or within_s):
        raise IntentError(
            "the daemon keeps this machine as its API server says; change the objects there, with kubectl"
        )
    if runs:
        return _apply_by_daemon(options, within_s, sure=yes)
    if within_s:
        raise IntentError("--confirm-within needs the daemon, which rolls back when you can not: outgate gateway run")
    report = apply_once(replace(options, sure=yes), lambda text: click.echo(text, err=True))
    click.echo(f"applied: {report.changes} changes in {report.rounds} rounds, verified by a second reading")
    return CHANGES if any(finding.severity is not Severity.NOTE for finding in report.findings) else FINE


def _apply_by_daemon(options: GatewayOptions, within_s: float, *, sure: bool) -> int:
    """Let the daemon put the manifests in force, and say how the gateway is doing with them."""
    from outgate.control.ask import ask
    from outgate.control.pending import collect
    from outgate.roles.options import place_of

    socket = place_of(options).socket
    arguments = {"manifests": collect(options.manifests), "within_s": within_s, "yes": sure}
    answer: Any = ask(socket, "apply", arguments, patience_s=120.0)
    health = str(cast(Any, ask(socket, "status", {"width": width()}))["health"])
    click.echo(f"applied by the daemon: {answer['changes']} changes, verified by a second reading")
    if within_s:
        click.echo(f"it goes back by itself in {within_s:.0f} s unless you say: outgate gateway confirm")
    if health != "OK":
        click.echo(f"the gateway is {health}; see: outgate gateway status", err=True)
    return _EXITS.get(health, FAILED)


def _seconds(option: str, text: str) -> float:
    """Return the seconds of a duration that the user gave, of a day at most.

    Raises:
        IntentError: it is no duration.
    """
    from outgate.sources.values import parse_duration
    from outgate.sources.words import Wrong, quote

    try:
        return float(parse_duration(1, 86400)(text))
    except Wrong as wrong:
        raise IntentError(f"{option} {quote(text)} {wrong.text}; {wrong.fix}") from wrong


def _order(verb: str, options: GatewayOptions) -> None:
    from outgate.control.ask import ask
    from outgate.roles.options import place_of

    ask(place_of(options).socket, verb, patience_s=120.0)


@gateway.command()
@format_option
@sight_options
def diff(options: GatewayOptions, output: str) -> int:
    """Show what differs between the manifests and this machine; the same as plan, in one line per object.

    `-` goes, `+` comes, `?` must first stay unanswered. Exit 1 when there is any such line.
    """
    from outgate.cli.planned import diff_lines, planned_of
    from outgate.report.planned import planned_document

    planned = planned_of(options)
    differs = bool(planned.changes or planned.desired.probes)
    if differs or output != "text":
        show(output, lambda: planned_document(planned), lambda: diff_lines(planned))
    return CHANGES if differs else FINE


@gateway.command()
@place_options
def confirm(options: GatewayOptions) -> None:
    """Keep what was applied with --confirm-within."""
    _order("confirm", options)
    click.echo(f"confirmed: {options.manifests} says now what was applied")


@gateway.command()
@place_options
def rollback(options: GatewayOptions) -> None:
    """Go back to what was in force before `apply --confirm-within`."""
    _order("rollback", options)
    click.echo("rolled back")


@gateway.command()
@click.option(
    "--wait", "wait_s", type=float, default=0.0, metavar="SECONDS", help="Wait until it is OK, so long at most."
)
@format_option
@sight_options
def status(options: GatewayOptions, output: str, wait_s: float) -> int:
    """Say how the gateway is doing: exit 0 OK, 1 degraded, 2 failed or no daemon."""
    if options.bundle is not None:
        return _status_of_bundle(options.bundle, output)
    from outgate.control.ask import ask
    from outgate.roles.options import place_of

    socket, deadline = place_of(options).socket, time.monotonic() + wait_s
    asked = {"width": width(), "colour": coloured()} if output == "text" else {}
    while True:
        answer: Any = {}
        try:
            answer = ask(socket, "status", asked)
        except (Unreachable, NotReady):
            if time.monotonic() >= deadline:
                raise
        health = str(answer.get("health", ""))
        if health == "OK" or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    show(output, lambda: answer["document"], lambda: str(answer["text"]))
    return _EXITS.get(health, FAILED)


def _status_of_bundle(path: Path, output: str) -> int:
    """Show how the gateway was doing when a bundle was taken."""
    from outgate.cli.bundle import note
    from outgate.report.status import status_document, status_text
    from outgate.sources.bundle import Bundle

    taken = Bundle.open(path)
    note(path, taken)
    found = taken.need("status")
    show(output, lambda: status_document(found), lambda: status_text(found, style()))
    return _EXITS.get(found.health.value, FAILED)


@gateway.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
def flush(options: GatewayOptions, yes: bool) -> int:
    """Remove exactly what is ours from this machine, and set back what was set."""
    from outgate.roles.gateway import flush as remove

    if not yes:
        click.confirm("Tenants lose their way out. Remove all that outgate made on this machine?", abort=True)
    outcome = remove(options)
    for failure in outcome.failures:
        click.echo(f"not removed: {failure.resource}: {failure.words}", err=True)
    click.echo(f"removed {len(outcome.changes.drop)} objects, set back {len(outcome.changes.make)} settings")
    return FINE if outcome.converged else FAILED
