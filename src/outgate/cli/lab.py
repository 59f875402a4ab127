"""`outgate demo` and `outgate lab ...`: the gateway at work, and the laboratory for who wants to play."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from outgate.cli.show import coloured, width
from outgate.model.errors import IntentError


@click.command()
@click.option("--api-server", is_flag=True, help="Let the objects stand on a real API server; `make kube` builds one.")
@click.option(
    "--egress-ip", is_flag=True, help="Show EgressIP on a real OVN instead, as today and by the host's routes."
)
def demo(api_server: bool, egress_ip: bool) -> int:
    """Show the gateway at work in network namespaces: real daemon, real packets, an oracle outside. Needs root."""
    from outgate.demo import egress_ip as of_egress_ip
    from outgate.demo.gateway import run
    from outgate.demo.screen import Screen
    from outgate.lab.kube.programs import Unavailable
    from outgate.lab.ovn.programs import missing

    _need_root()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # so that a polite end leaves nothing behind either
    screen = Screen(click.echo, coloured=coloured(), width=width())
    if egress_ip:
        if lacking := missing():
            raise IntentError(lacking)
        return of_egress_ip.run(screen)
    try:
        return run(screen, on_api_server=api_server)
    except Unavailable as error:
        raise IntentError(str(error)) from error


@click.group()
def lab() -> None:
    """Keep the laboratory open: two nodes with pods, a gateway machine, the world outside. Needs root."""


@lab.command()
@click.option("--nodes", default=2, show_default=True, help="Worker nodes.")
@click.option("--pods", default=1, show_default=True, help="Pods of each namespace on each node.")
def up(nodes: int, pods: int) -> None:
    """Build the laboratory and say how to enter it."""
    from outgate.lab import keep

    _need_root()
    with _told():
        kept = keep.up(nodes=nodes, pods_per_namespace=pods)
    click.echo(f"up: {', '.join(kept.namespaces)}")
    click.echo("enter one:  outgate lab shell gw      take it away:  outgate lab down")
    for path in kept.manifests[:1]:
        click.echo(f"manifests:  {Path(path).parent}  (in gw: outgate gateway run -f {Path(path).parent})")


@lab.command()
def down() -> None:
    """Remove the laboratory, and nothing else."""
    from outgate.lab import keep

    _need_root()
    with _told():
        left = keep.down()
    for pid, namespace in left.items():
        click.echo(f"process {pid} still runs in {namespace} and keeps it alive", err=True)


@lab.command()
@click.argument("name")
def shell(name: str) -> None:
    """Open a shell in a namespace of the laboratory: gw, ext, n1, or NAMESPACE/POD."""
    from outgate.lab import keep

    _need_root()
    with _told():
        keep.shell(name)


@contextmanager
def _told() -> Iterator[None]:
    """Say what the laboratory refuses as an error of the command."""
    try:
        yield
    except (FileExistsError, FileNotFoundError, LookupError, ValueError) as wrong:
        raise IntentError(str(wrong)) from wrong


def _need_root() -> None:
    if os.geteuid() != 0:
        raise IntentError("network namespaces need root: run it with sudo")
