"""``eventflow record``: see a stream as it comes, and keep it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from eventflow.cli.tail import show
from eventflow.dispatcher import Dispatcher
from eventflow.errors import UsageError

__all__ = ["record"]


@click.command()
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("file", metavar="[FILE|-]", default="-")
@click.option("--json", "as_json", is_flag=True, help="Write one event a line, as JSON.")
@click.option("--events", "selects", metavar="SELECTOR", multiple=True, help="Show these events only; may be repeated.")
@click.option("--wire", metavar="NAME", help="Whose stream it is; by default the first frame tells.")
def record(out: Path, file: str, as_json: bool, selects: tuple[str, ...], wire: str | None) -> int:
    """Record an event stream to OUT while it is shown.

    What is shown, and how, is what `eventflow tail` says of FILE; - is standard input. OUT must not exist, or is a
    folder. It keeps what was received as it came, byte for byte and unredacted, when each piece came, and how it
    ended; `eventflow replay` shows it again.

    \b
        curl -sN https://api.openai.com/v1/responses ... | eventflow record answer.jsonl

    Exit codes: 0 the response is completed or incomplete; 1 the stream failed, was cut off or cannot be read; 2 wrong
    use, a file that cannot be opened or written, or one that is no event stream; 130 interrupted.
    """  # noqa: D301  # click looks for the character
    if file == "-" and sys.stdin is None:
        raise UsageError("stdin is closed; give a file, or a stream through a pipe")
    flow = Dispatcher()
    flow.use("record", path=out)
    return show(flow, sys.stdin.buffer if file == "-" else Path(file), as_json=as_json, selects=selects, wire=wire)
