"""How commands print: text for people, JSON and YAML for programs; colour only where a person looks and did not forbid
it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

import click

from outgate.cli.main import CHANGES, FAILED, FINE
from outgate.report.layout import Style

__all__ = ["CHANGES", "FAILED", "FINE", "Format", "coloured", "format_option", "show", "style", "width"]

Function = TypeVar("Function", bound=Callable[..., Any])


class Format(Enum):
    """What `-o` knows."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


def format_option(function: Function) -> Function:
    """Add `-o text|json|yaml` to a command; it arrives as `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice([form.value for form in Format]),
        default=Format.TEXT.value,
        show_default=True,
        help="How to print the answer.",
    )(function)


def show(output: str, plain: Callable[[], object], text: Callable[[], str]) -> None:
    """Print an answer in the form that was asked for; only that form is made."""
    match Format(output):
        case Format.TEXT:
            click.echo(text())
        case Format.JSON:
            import json

            click.echo(json.dumps(plain(), indent=2))
        case Format.YAML:
            import yaml

            click.echo(yaml.safe_dump(plain(), sort_keys=False, allow_unicode=True), nl=False)


def coloured() -> bool:
    """Whether to colour: a terminal, and no NO_COLOR (no-color.org: any value that is not empty)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def style() -> Style:
    """Return how text is written here."""
    return Style(colour=coloured(), width=width())


def width() -> int:
    """Return the columns to write for: the terminal's, or 120 where there is none."""
    return shutil.get_terminal_size((120, 40)).columns if sys.stdout.isatty() else 120
