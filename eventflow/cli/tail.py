"""``eventflow tail``: what a stream says, as it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from eventflow import sse
from eventflow.cli.output import echo, show_json
from eventflow.dispatcher import Dispatcher
from eventflow.errors import DecodeError, UsageError, excerpt
from eventflow.printable import printable
from eventflow.sources import open_source

__all__ = ["show", "tail"]

_HEAD = 256  # bytes of a file kept for the message that it is no event stream


@click.command()
@click.argument("file", metavar="FILE|-")
@click.option("--json", "as_json", is_flag=True, help="Write one event a line, as JSON.")
@click.option("--raw", is_flag=True, help="Show the frames as they stand, of any server-sent events at all.")
@click.option("--events", "selects", metavar="SELECTOR", multiple=True, help="Show these events only; may be repeated.")
@click.option("--wire", metavar="NAME", help="Whose stream it is; by default the first frame tells.")
def tail(file: str, as_json: bool, raw: bool, selects: tuple[str, ...], wire: str | None) -> int:
    """Show a recorded or piped event stream, as it comes.

    The answer is shown as text; reasoning behind "|", refusals behind "!"; tool calls, other items, errors and unknown
    events one line each; at the end a line with the status, the events and the tokens. Control characters are
    shown as escapes.

    A SELECTOR is a family (text, refusal, reasoning, tool, item, lifecycle, error, audio, unknown), the name of an
    event, or a pattern: "response.*.delta".

    \b
        curl -sN https://api.openai.com/v1/responses ... | eventflow tail -
        eventflow tail --json --events eventflow.tool_call stream.sse | jq .name

    Exit codes: 0 the response is completed or incomplete; 1 the stream failed, was cut off or cannot be read; 2 wrong
    use, a file that cannot be opened, or one that is no event stream; 130 interrupted.
    """  # noqa: D301  # click looks for the character
    source: Any = Path(file)
    if file == "-":
        if sys.stdin is None:
            raise UsageError("stdin is closed; give a file, or a stream through a pipe")
        source = sys.stdin.buffer
    if raw:
        if selects or wire:
            raise UsageError("--raw shows frames, which are not read as events: leave --events and --wire out")
        _show_frames(source, as_json)
        return 0

    try:
        return show(Dispatcher(), source, as_json=as_json, selects=selects, wire=wire)
    except DecodeError as error:
        if error.run is not None and not error.run.events:
            error.add_note("--raw shows frames as they stand")
        raise


def show(flow: Dispatcher, source: Any, *, as_json: bool, selects: tuple[str, ...], wire: str | None) -> int:
    """Run *source* through *flow*, and show what comes through; gives the exit code, or raises the stream's error."""
    if as_json:
        flow.on(*(selects or ("*",)))(show_json)
    else:
        flow.use("terminal", events=selects or "*", everything=bool(selects), live=False, timing=False)
    with flow:
        run = flow.run(source, wire=wire, check=False)
    if run.error is not None:
        raise run.error
    return 0


def _show_frames(source: Any, as_json: bool) -> None:
    opened = open_source(source)
    assert opened.items is not None
    head, size, frames = b"", 0, 0

    def noted(chunks: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal head, size
        for chunk in chunks:
            head, size = head + chunk[: _HEAD - len(head)], size + len(chunk)
            yield chunk

    try:
        for frames, frame in enumerate(sse.decode(noted(opened.items)), 1):  # noqa: B007  # counted
            if as_json:
                record = {"event": frame.event, "data": frame.data, "id": frame.id}
                echo(printable(json.dumps(record, ensure_ascii=False)).encode() + b"\n")
            else:
                echo(f"[{printable(frame.event)}] {printable(frame.data)}\n")
    finally:
        opened.close()
    if not frames and not sse.plausible(head):
        raise DecodeError(
            f"no server-sent event in {size:,} bytes: this is no event stream. It begins with {excerpt(head)!r}"
        )
