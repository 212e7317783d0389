"""How the command writes: styled where a person reads, plain into pipes, nothing foreign unescaped."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from eventflow.events import Event
from eventflow.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["complain", "echo", "echo_table", "show_json", "wants_colour"]


def wants_colour() -> bool:
    """Whether stdout is a terminal whose user wants colour (https://no-color.org)."""
    return _is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def echo(text: str | bytes, *, end: str = "") -> None:
    """Write to stdout, at once."""
    click.echo(text + end if isinstance(text, str) else text, nl=False, color=wants_colour())


def echo_table(table: Table) -> None:
    """Write *table* to stdout: as wide as the terminal, into a pipe as wide as it needs to be."""
    from rich.console import Console

    console = Console(
        width=None if _is_terminal() else 10_000, no_color=not wants_colour(), highlight=False, emoji=False
    )
    with console.capture() as written:
        console.print(table)
    echo("\n".join(line.rstrip() for line in written.get().splitlines()), end="\n")


def show_json(event: Event) -> None:
    """Write *event* as a line of JSON."""
    echo(printable(event.to_json().decode()).encode() + b"\n")  # bytes: JSON is UTF-8 whatever the locale


def complain(message: str) -> None:
    """Write one line to stderr."""
    click.echo(f"eventflow: {printable(message)}", err=True)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None: it is closed
