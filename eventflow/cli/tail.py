"""``eventflow tail``: what a stream says, as it comes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click

from eventflow import sse
from eventflow.cli.output import echo, wants_colour
from eventflow.dispatcher import Dispatcher
from eventflow.errors import DecodeError, UsageError
from eventflow.events import (
    CustomToolCall,
    Event,
    FunctionCall,
    McpCall,
    Message,
    OutputItemDone,
    Reasoning,
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    RefusalDelta,
    RefusalDone,
    ResponseFailed,
    StreamError,
    TextDelta,
    TextDone,
    ToolCall,
    UnknownEvent,
)
from eventflow.printable import printable
from eventflow.run import Run
from eventflow.sources import open_source

__all__ = ["View", "tail"]

_CUT = 1000  # characters of a line that is not the answer itself; --json shows all

Voice: TypeAlias = Literal["text", "reasoning", "refusal"]

_Said: TypeAlias = (
    TextDelta
    | TextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | ReasoningSummaryTextDelta
    | ReasoningSummaryTextDone
    | RefusalDelta
    | RefusalDone
)

_MARKS: dict[Voice, str] = {"text": "", "reasoning": "| ", "refusal": "! "}
_STYLES: dict[Voice, dict[str, Any]] = {"text": {}, "reasoning": {"dim": True}, "refusal": {"fg": "yellow"}}


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

    view = View(colour=wants_colour(), everything=bool(selects))
    flow = Dispatcher()
    flow.on(*(selects or ("*",)))(_show_json if as_json else view.show)
    try:
        run = flow.run(source, wire=wire, check=False)
    except KeyboardInterrupt:
        view.end_line()
        raise
    if not as_json and run.events:
        view.close(run)
    if run.error is not None:
        if isinstance(run.error, DecodeError) and not run.events:
            run.error.add_note("--raw shows frames as they stand")
        raise run.error
    return 0


def _show_json(event: Event) -> None:
    echo(printable(event.to_json().decode()).encode() + b"\n")  # bytes: JSON is UTF-8 whatever the locale


def _show_frames(source: Any, as_json: bool) -> None:
    opened = open_source(source)
    assert opened.items is not None
    try:
        for frame in sse.decode(opened.items):
            if as_json:
                record = {"event": frame.event, "data": frame.data, "id": frame.id}
                echo(printable(json.dumps(record, ensure_ascii=False)).encode() + b"\n")
            else:
                echo(f"[{printable(frame.event)}] {printable(frame.data)}\n")
    finally:
        opened.close()


class View:
    """What a person sees of one stream, written to stdout."""

    def __init__(self, *, colour: bool, everything: bool = False) -> None:
        """*everything*: show events that have no form of their own as well, one line each."""
        self._colour = colour
        self._everything = everything
        self._fresh = True  # at the start of a line
        self._speaking: tuple[Voice, object] | None = None  # whose text is being written: its voice, item and part
        self._heard: dict[tuple[Voice, object], list[str]] = {}  # their texts, in pieces

    def show(self, event: Event) -> None:
        """Show *event*, or nothing where it only repeats what was shown."""
        match event:
            case TextDelta():
                self._say("text", (_item(event), event.content_index), event.delta)
            case ReasoningTextDelta():
                self._say("reasoning", (_item(event), event.content_index), event.delta)
            case ReasoningSummaryTextDelta():
                self._say("reasoning", (_item(event), "summary", event.summary_index), event.delta)
            case RefusalDelta():
                self._say("refusal", (_item(event), event.content_index), event.delta)
            case TextDone():
                self._say_whole("text", (_item(event), event.content_index), event.text)
            case ReasoningTextDone():
                self._say_whole("reasoning", (_item(event), event.content_index), event.text)
            case ReasoningSummaryTextDone():
                self._say_whole("reasoning", (_item(event), "summary", event.summary_index), event.text)
            case RefusalDone():
                self._say_whole("refusal", (_item(event), event.content_index), event.refusal)
            case ToolCall():
                self._line("tool", f"{event.name} {event.arguments}", fg="cyan")
            case OutputItemDone():
                item = event.item
                if not isinstance(item, Message | Reasoning | FunctionCall | CustomToolCall | McpCall):
                    self._line(item.type, " ".join(filter(None, (item.status, item.id))), fg="cyan")
            case StreamError():
                self._line("error", ": ".join(filter(None, (event.code, event.message))), fg="red")
            case ResponseFailed():
                fault = event.response.error
                said = (fault.code, fault.message) if fault is not None else ()
                self._line(event.type, ": ".join(filter(None, said)), fg="red")
            case UnknownEvent():
                self._line_of(event)
            case _:
                if self._everything:
                    self._line_of(event)

    def close(self, run: Run) -> None:
        """Show what only the whole response told, what was odd, and how it ended."""
        response = run.response
        if not self._everything:
            wholes: tuple[tuple[Voice, str], ...] = (
                ("reasoning", response.reasoning_text),
                ("refusal", response.refusal),
                ("text", run.text),
            )
            voices = {voice for voice, _ in self._heard}
            for voice, whole in wholes:
                if whole and voice not in voices:
                    self._say(voice, "whole", whole)
        for oddity in run.warnings:
            self._line("warning", str(oddity), fg="yellow")
        parts = [f"{run.events:,} events"]
        usage = response.usage
        if usage is not None and (usage.input_tokens is not None or usage.output_tokens is not None):
            parts.append(f"tokens: {_number(usage.input_tokens)} in, {_number(usage.output_tokens)} out")
        details = response.incomplete_details
        reason = f" ({details.reason})" if run.status == "incomplete" and details is not None and details.reason else ""
        good = run.status in ("completed", "incomplete")
        self.end_line()
        self._write(printable(f"-- {run.status}{reason}, {', '.join(parts)}"), fg="green" if good else "red")
        echo("\n")

    def end_line(self) -> None:
        """Go to the start of a line."""
        if not self._fresh:
            echo("\n")
            self._fresh = True
        self._speaking = None

    def _say(self, voice: Voice, part: object, text: str) -> None:
        """The next piece of a text."""
        if not text:
            return
        if self._speaking != (voice, part):
            self.end_line()
            self._speaking = (voice, part)
        self._heard.setdefault((voice, part), []).append(text)
        marked: list[str] = []
        for line in printable(text, newlines=True).splitlines(keepends=True):
            marked.append(_MARKS[voice] + line if self._fresh else line)
            self._fresh = line.endswith("\n")
        self._write("".join(marked), **_STYLES[voice])

    def _say_whole(self, voice: Voice, part: object, text: str) -> None:
        """A text is complete: show what has not come in deltas, or all of it where they said something else."""
        heard = "".join(self._heard.get((voice, part), ()))
        if text.startswith(heard):
            self._say(voice, part, text[len(heard) :])
        else:
            self.end_line()
            self._heard[voice, part] = []
            self._say(voice, part, text)

    def _line(self, label: str, text: str, **style: Any) -> None:
        self.end_line()
        cut = text[:_CUT] + "…" if len(text) > _CUT else text
        self._write(f"[{printable(label)}]", **style)
        echo(f" {printable(cut)}\n" if cut else "\n")

    def _line_of(self, event: Event) -> None:
        fields = {name: value for name, value in event.to_dict().items() if name != "type"}
        self._line(event.type, json.dumps(fields, ensure_ascii=False) if fields else "", fg="magenta")

    def _write(self, text: str, **style: Any) -> None:
        echo(click.style(text, **style) if self._colour and style else text)


def _item(event: _Said) -> object:
    """The item that *event* speaks for: by its place, for some servers name it anew in every event."""
    return event.item_id if event.output_index is None else event.output_index


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"
