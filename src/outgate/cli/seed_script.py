"""The command line of the script that outgate replaces, so that its runbook goes on working: `add-tenant`,
`remove-tenant`, `daemon`; and `import-script`, which takes over what it left on a machine.

The commands write and remove manifests; the daemon, or `outgate gateway apply`, puts them in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outgate.cli.gateway import place_options
from outgate.cli.show import CHANGES, FAILED, FINE, style
from outgate.model.errors import IntentError, Refused
from outgate.roles.options import MANIFESTS, GatewayOptions

if TYPE_CHECKING:
    from outgate.plan.import_script import Imported

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


@click.command("daemon")
@click.option("--dev", default="", help="The NIC towards the cluster, which the manifests name too.")
@place_options
def daemon(options: GatewayOptions, dev: str) -> None:
    """Run the gateway, as `outgate gateway run` does; the nodes' return routes are part of it."""
    from outgate.roles.gateway import read_intent
    from outgate.roles.gateway_daemon import serve

    gateway = read_intent(options).find_gateway(options.name)
    inner = [nic.interface for nic in gateway.inner] if gateway is not None else []
    if dev and gateway is not None and dev not in inner:
        raise IntentError(
            f"--dev {dev} is no inner NIC of EgressGateway/{gateway.name}: {', '.join(inner)}", gateway.origin
        )
    serve(options)


@click.command("import-script")
@click.option("--adopt", is_flag=True, help="Take over: write the manifests, and serve in the script's place.")
@place_options
def import_script(options: GatewayOptions, adopt: bool) -> int:
    """Print what the script left on this machine as manifests; say what does not add up. --name names the gateway."""
    from outgate.report.findings import findings_text
    from outgate.roles.adopt import adopt as take_over
    from outgate.roles.adopt import survey

    seen = survey(options)
    imported = seen.imported
    if imported.findings:
        click.echo(findings_text(imported.findings, style()), err=True)
    for link, adoption in seen.ledger.adopting.items():
        click.echo(f"{link} is adopted already, for EgressTenant/{adoption.tenant}", err=True)
    if not adopt:
        _print(imported)
        return FAILED if imported.refused else CHANGES if imported.findings else FINE
    done = take_over(options, lambda text: click.echo(text, err=True))
    for link in done.waiting:
        click.echo(f"{link} stays, without an address, until nothing has come by its MAC for five minutes")
    click.echo(f"adopted: {', '.join(done.tenants)}" if done.tenants else "there is nothing to adopt")
    if done.waiting:
        click.echo("start the daemon now, it goes on from here: outgate gateway run")
    return FINE


def _print(imported: Imported) -> None:
    from outgate.sources.dump import dump
    from outgate.sources.yaml_writer import to_yaml

    if imported.gateway is None:
        click.echo("# the script left nothing here that could be imported")
        return
    documents = [to_yaml(dump(imported.gateway)), *(to_yaml(dump(tenant)) for tenant in imported.tenants)]
    click.echo("---\n".join(documents), nl=False)


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
