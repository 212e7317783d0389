"""What a person sees of a stream in the terminal: the answer as text, the rest a line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import click

from eventflow.cli.output import echo
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

__all__ = ["View", "show_json"]

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


def show_json(event: Event) -> None:
    """Write *event* as a line of JSON."""
    echo(printable(event.to_json().decode()).encode() + b"\n")  # bytes: JSON is UTF-8 whatever the locale


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

    def close(self, run: Run, more: Sequence[str] = ()) -> None:
        """Show what only the whole response told, what was odd, how it ended, and *more* of that."""
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
        self._write(printable(f"-- {run.status}{reason}, {', '.join([*parts, *more])}"), fg="green" if good else "red")
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
