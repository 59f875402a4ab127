"""`outgate completion`: the script that makes a shell complete commands and options; click writes it."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: source <(outgate completion bash)."""
    from outgate.cli.main import outgate

    made = get_completion_class(shell)
    assert made is not None  # click knows the three shells of the choice
    click.echo(made(outgate, {}, "outgate", "_OUTGATE_COMPLETE").source())
