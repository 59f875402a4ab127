"""`outgate bundle`, and what the commands that read one with `--from` say about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outgate.cli.gateway import place_options
from outgate.cli.show import CHANGES, FINE
from outgate.roles.options import GatewayOptions

if TYPE_CHECKING:
    from outgate.model.intent import Intent
    from outgate.roles.sight import Sight
    from outgate.sources.bundle import Bundle


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    metavar="FILE",
    help="Where to write it; by default outgate-bundle-TIME.tar.gz here.",
)
@place_options
def bundle(options: GatewayOptions, output: Path | None) -> int:
    """Write a redacted support bundle that explain, trace, doctor and plan can read with --from.

    It holds the manifests without what outgate does not read, the state, one reading of the machine, and a sample of
    the live flows. Nothing is changed. Exit 1 when a part could not be read; the bundle says which and why.
    """
    from outgate.roles.bundle import save, take

    taken = take(options, lambda words: click.echo(f"reading {words}", err=True))
    path = output or Path(time.strftime("outgate-bundle-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime(taken.about.taken_s)))
    size = save(taken, path)
    click.echo(f"wrote {path}: {size / 1000:,.0f} kB, for its owner only")
    for line in contents(taken):
        click.echo(f"  {line}")
    click.echo(f"ask it, anywhere and without root: outgate explain NAMESPACE/POD --from {path}")
    return CHANGES if taken.about.missing else FINE


def contents(taken: Bundle) -> list[str]:
    """Return what a bundle holds, and what it lacks, in lines."""
    lines = []
    if taken.intent is not None:
        asked = taken.intent
        lines.append(f"{len(asked.tenants):,} tenants, {len(asked.nodes):,} nodes, {len(asked.pods):,} pods")
    lines += [f"left out: {count:,} of the kind {kind}" for kind, count in sorted(taken.about.left_out.items())]
    if taken.flows is not None:
        left = taken.about.flows - len(taken.flows)
        lines.append(f"{len(taken.flows):,} live flows" + (f"; {left:,} more are left out" if left else ""))
    return [*lines, *(f"missing: {part}: {why}" for part, why in sorted(taken.about.missing.items()))]


def sight(options: GatewayOptions, intent: Intent | None = None) -> Sight:
    """Return what is to be looked at: this machine, or what the options' bundle holds, which is told on stderr."""
    from outgate.roles.sight import sight_of

    seen = sight_of(options, intent)
    if options.bundle is not None and seen.bundle is not None:
        note(options.bundle, seen.bundle)
    return seen


def note(path: Path, taken: Bundle) -> None:
    """Say on stderr which machine and moment an answer is about, so that nobody takes it for this one."""
    from importlib.metadata import version

    about, ours = taken.about, version("outgate")
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(about.taken_s))
    other = f"; this is outgate {ours}, which may decide otherwise" if about.written_by != ours else ""
    click.echo(f"from {path}: host {about.host} at {at}, outgate {about.written_by}{other}", err=True)
    left = about.flows - len(taken.flows or ())
    if taken.flows is not None and left:
        click.echo(f"  its live flows are a sample: {left:,} more are not in it", err=True)
