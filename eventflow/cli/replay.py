"""``eventflow replay``: a recorded stream once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eventflow.cli.output import echo
from eventflow.cli.tail import show
from eventflow.dispatcher import Dispatcher
from eventflow.engine import ANEW
from eventflow.errors import PluginError, UsageError
from eventflow.plugin import load

__all__ = ["replay"]


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--speed",
    type=click.FloatRange(0),
    metavar="N",
    default=0.0,
    help="1 shows it as it came, N so many times faster; by default all at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one event a line, as JSON.")
@click.option("--raw", is_flag=True, help="Write the bytes as they were received.")
@click.option("--events", "selects", metavar="SELECTOR", multiple=True, help="Show these events only; may be repeated.")
@click.option("--wire", metavar="NAME", help="Whose stream it is; by default as when it was recorded.")
def replay(file: Path, speed: float, as_json: bool, raw: bool, selects: tuple[str, ...], wire: str | None) -> int:
    """Show a recorded event stream again.

    FILE is what `eventflow record`, `eventflow run --record` or the plugin Record has written. It is shown as
    `eventflow tail` shows a stream, with the end that it had.

    \b
        eventflow replay --speed 1 answer.jsonl
        eventflow replay --raw answer.jsonl > answer.sse

    Exit codes: 0 the response is completed or incomplete, or with --raw all bytes were written; 1 the stream failed,
    was cut off or cannot be read; 2 wrong use, a file that cannot be opened, or one that is no recording; 130
    interrupted.
    """  # noqa: D301  # click looks for the character
    source = _replay(file, speed)
    if not raw:
        return show(Dispatcher(), source, as_json=as_json, selects=selects, wire=wire)
    if as_json or selects or wire:
        raise UsageError("--raw writes bytes, which are not read as events: leave --json, --events and --wire out")
    for item in source:
        if isinstance(item, bytes):
            echo(item)
        elif item is not ANEW:  # between two bodies there is nothing
            raise UsageError(f"{str(file)!r} has {type(item).__name__}s, for its source gave no bytes: leave --raw out")
    return 0


def _replay(file: Path, speed: float) -> Any:
    """The source that the plugin which records has for its recordings: it is found by name, as all plugins are."""
    recorder = load("record")
    maker = getattr(recorder, "replay", None)
    if not callable(maker):
        raise PluginError(
            f"the plugin 'record' that is installed ({recorder!r}) has no replay(): it cannot be replayed"
        )
    return maker(file, speed=speed)
