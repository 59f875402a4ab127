"""The command line of the script that outgate replaces, so that its runbook goes on working: `add-tenant`,
`remove-tenant`, `daemon`; and `import-script`, which takes over what it left on a machine.

The commands write and remove manifests; the daemon, or `outgate gateway apply`, puts them in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from outgate.model.errors import IntentError, Refused
from outgate.roles.options import MANIFESTS

Value = TypeVar("Value")

_directory = click.option(
    "-f",
    "--manifests",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=MANIFESTS,
    show_default=True,
    help="The directory of the manifests.",
)
_mark = click.option("--mark", default="", help="Accepted and ignored: outgate gives marks itself.")


@click.command("add-tenant")
@click.option("--name", required=True, help="The tenant's name.")
@click.option("--gw-ip", "hops", required=True, multiple=True, help="Its next hop; once for each family.")
@click.option("--egress-ip", "egress", required=True, multiple=True, help="Its egress IP; may stand several times.")
@_mark
@click.option("--dev", required=True, help="The NIC towards the cluster.")
@click.option("--out-dev", required=True, help="The NIC towards the outside.")
@click.option("--pod-cidr", "networks", multiple=True, help="The cluster network; may stand several times.")
@click.option("--gateway", default="", help="The EgressGateway, when there are several.")
@_directory
def add_tenant(directory: Path, mark: str, **given: Any) -> None:
    """Write the manifest of a tenant, and that of the gateway if there is none; once is enough, twice does no harm."""
    from outgate.plan.script_command import Asked
    from outgate.plan.script_command import add_tenant as plan
    from outgate.sources import values

    asked = Asked(
        name=_parsed("--name", given["name"], values.parse_name),
        next_hops=_all("--gw-ip", given["hops"], values.parse_host),
        egress_ips=_all("--egress-ip", given["egress"], values.parse_host),
        inner=_parsed("--dev", given["dev"], values.parse_link),
        uplink=_parsed("--out-dev", given["out_dev"], values.parse_link),
        cluster_networks=_all("--pod-cidr", given["networks"], values.parse_prefix),
        gateway=_parsed("--gateway", given["gateway"], values.parse_name) if given["gateway"] else "",
    )
    addition = plan(_intent(directory), asked)
    _say_mark(mark)
    for written in (addition.gateway, addition.tenant):
        if written is not None:
            _write(directory, written)
    if addition.tenant is None:
        click.echo(f"EgressTenant/{asked.name} stands already as asked")
    for note in addition.notes:
        click.echo(f"note: {note.replace('DIRECTORY', str(directory))}", err=True)


@click.command("remove-tenant")
@click.option("--name", required=True, help="The tenant's name.")
@_mark
@click.option("--egress-ip", "egress", multiple=True, help="Its egress IP: nothing is removed if it has another.")
@click.option("--out-dev", default="", help="The NIC towards the outside: nothing is removed if it leaves by another.")
@_directory
def remove_tenant(directory: Path, name: str, mark: str, egress: tuple[str, ...], out_dev: str) -> None:
    """Remove the manifest of a tenant. Its egress IP rests before another tenant gets it."""
    from outgate.plan.script_command import remove_tenant as plan
    from outgate.sources import values
    from outgate.sources.write import remove_manifest

    uplink = _parsed("--out-dev", out_dev, values.parse_link) if out_dev else None
    tenant = plan(_intent(directory), name, _all("--egress-ip", egress, values.parse_host), uplink)
    _say_mark(mark)
    try:
        removed = remove_manifest(directory, "EgressTenant", tenant.name)
    except OSError as failed:
        raise Refused(f"remove EgressTenant/{name} from {directory}", failed.strerror or str(failed)) from failed
    click.echo(f"removed {removed}")


def _intent(directory: Path) -> Any:
    """Return what the directory asks for; nothing, where there is none yet."""
    from outgate.model.intent import NO_INTENT
    from outgate.sources.manifests import check

    return check([directory])[0] if directory.is_dir() else NO_INTENT


def _write(directory: Path, written: Any) -> None:
    from outgate.sources.dump import dump
    from outgate.sources.write import write_manifest

    try:
        click.echo(f"wrote {write_manifest(directory, dump(written))}")
    except OSError as failed:
        raise Refused(f"write a manifest into {directory}", failed.strerror or str(failed)) from failed


def _say_mark(mark: str) -> None:
    if mark:
        text = f"--mark {mark} is ignored: outgate gives every tenant a mark of its own, and remembers it"
        click.echo(text, err=True)


def _all(option: str, texts: Iterable[str], parse: Callable[[str], Value]) -> tuple[Value, ...]:
    return tuple(_parsed(option, text, parse) for text in texts)


def _parsed(option: str, text: str, parse: Callable[[str], Value]) -> Value:
    from outgate.sources.words import Wrong, quote

    try:
        return parse(text)
    except Wrong as wrong:
        raise IntentError(f"{option} {quote(text)} {wrong.text}" + (f"; {wrong.fix}" if wrong.fix else "")) from wrong
