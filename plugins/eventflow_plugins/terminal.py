"""`Terminal`: what a person sees of a stream, as it comes: the answer as text, the rest a line each."""

from __future__ import annotations

import importlib.util
import json
import time
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import attrs

from eventflow import Event, HandlerFailed, Plugin, Response, Run, UnknownEvent, configured, on, state
from eventflow.errors import PluginError, UsageError
from eventflow.events import (
    CustomToolCall,
    CustomToolCallInputDelta,
    FunctionCall,
    FunctionCallArgumentsDelta,
    McpCall,
    McpCallArgumentsDelta,
    Message,
    OutputItem,
    OutputItemAdded,
    OutputItemDone,
    Reasoning,
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    RefusalDelta,
    RefusalDone,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    StreamError,
    TextDelta,
    TextDone,
    ToolCall,
    ToolOutput,
    ToolProgress,
    encode_json,
)
from eventflow.limits import is_count
from eventflow.printable import printable
from eventflow.routing import Selects
from eventflow_plugins.writer import CUT, Voice, Writer, console_of

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Terminal"]

_BOARD_CUT: Final = 300  # of one that stands for a while, and is cut to the terminal's width
_CALLS: Final = (FunctionCall, CustomToolCall, McpCall)  # what a `ToolCall` follows
_UNENCODABLE: Final = (TypeError, ValueError, RecursionError)  # somebody's own object in a field of free JSON


@attrs.define(eq=False)
class _Call:
    """A call under way.

    Attributes:
        name: The tool's.
        since: When it began to be what it is now, by ``time.monotonic``.
        arguments: As far as they have come; kept as far as they are shown.
        state: What is known of it.
        progress: What the tool said last.
    """

    name: str
    since: float
    arguments: str = ""
    state: Literal["arguments", "running"] = "arguments"
    progress: str = ""


class Terminal(Plugin):
    """The live view of a stream: the answer as text while it comes, everything else a line each.

    ::

        run = Dispatcher(Terminal()).run(source)

    Reasoning is dimmed and behind ``|``, a refusal behind ``!``. A tool call is one line, which in a terminal changes
    while the arguments come and the tool runs, and says in the end how that went and how long it took. Other output
    items, errors, failed handlers, warnings of the run and unknown events are a line each. The last line has the
    status, tokens, the time to the first text, the speed and the number of calls; a run that is cancelled ends without
    it, at the start of a line.

    Where the output is no terminal, lines are plain and never change: a call is one line when it is complete, another
    for each thing that its tool reports, and one when the tool has run. Whatever the model wrote, no control character
    and no mark that turns text around reaches the output: they are shown as escapes. What the pipeline before it
    changed is shown as changed.

    Every run has a view of its own; two runs at once on one terminal write between each other's lines. Needs the extra
    ``cli``.

    Attributes:
        output: Where to write: a text file, or a ``rich.console.Console``; by default stdout as it is when a run
            starts. A stdout that is closed is written nowhere.
        colour: Whether to style; by default in terminals, where neither ``NO_COLOR`` is set nor ``TERM`` is dumb.
        width: Of the lines that change, in columns; by default that of the terminal.
        events: Which events: a selector, as for `on`, or a tuple or list of them.
        everything: Show events that have no form of their own as well, a line each.
        live: Let the lines of calls change in a terminal; False where nobody runs the tools.
        timing: Tell the time to the first text, and the speed.
        began: When the answer was asked for, by ``time.monotonic``; by default, when the run starts.

    Raises:
        UsageError: The configuration is none.
        PluginError: rich is not installed. In a run: the output was closed. What the system says of a full disk or a
            broken pipe (`OSError`, `BrokenPipeError`) is raised as it is.
    """

    output: TextIO | Console | None = None
    colour: bool | None = attrs.field(default=None, kw_only=True)
    width: int | None = attrs.field(default=None, kw_only=True)
    events: Selects = attrs.field(default="*", kw_only=True)
    everything: bool = attrs.field(default=False, kw_only=True)
    live: bool = attrs.field(default=True, kw_only=True)
    timing: bool = attrs.field(default=True, kw_only=True)
    began: float | None = attrs.field(default=None, kw_only=True)

    _writer: Writer = state(factory=Writer)
    _whole: Response | None = state(default=None)  # as the terminal event told it
    _items: list[OutputItem] = state(factory=list[OutputItem])
    _places: dict[object, _Call] = state(factory=dict[object, _Call])  # by item, until a call is complete
    _calls: dict[str | None, _Call] = state(factory=dict[str | None, _Call])  # by call id, until the tool has run
    _open: tuple[_Call, ...] = state(default=())  # on the board; never changed in place: another thread reads it
    _outcome: str = state(default="ok")  # of the last call that the provider ran
    _count: int = state(default=0)
    _start: float = state(default=0.0)
    _first: float | None = state(default=None)  # when the first and the last piece of text came
    _last: float | None = state(default=None)

    def __attrs_post_init__(self) -> None:
        if importlib.util.find_spec("rich") is None:
            raise PluginError("Terminal needs rich: pip install 'eventflow-stream[cli]'")
        if self.output is not None and not hasattr(self.output, "write") and not hasattr(self.output, "file"):
            raise UsageError(f"Terminal(output) takes a text file or a rich Console, not {self.output!r}")
        if self.width is not None and not is_count(self.width):
            raise UsageError(f"Terminal(width=...) must be a positive number of columns, not {self.width!r}")
        if self.colour is not None and type(self.colour) is not bool:
            raise UsageError(f"Terminal(colour=...) must be True, False or None, not {self.colour!r}")

    # --- the run -----------------------------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """Look at the output: what it is, is known now."""
        self._start = time.monotonic() if self.began is None else self.began
        console = console_of(self.output, self.width)
        standing = self._standing if self.live and not self.everything else None
        self._writer = Writer(console, colour=self.colour, standing=standing)

    def stop(self, run: Run) -> None:
        """Show what only the whole response told, what was odd, and how it ended."""
        if not self._writer.writes:
            return
        for call in self._open:
            self._tell_call(call)
        self._places, self._calls, self._open = {}, {}, ()
        if run.status == "cancelled" or not run.events:
            self._writer.end_line()
            return
        self._tell_rest()
        for oddity in run.warnings:
            self._writer.line("warning", str(oddity), "yellow")
        good = run.status in ("completed", "incomplete")
        self._writer.conclude(self._summary(run), "green" if good else "red")

    def _tell_rest(self) -> None:
        """The texts that came in no other way than as a whole."""
        whole = self._whole if self._whole is not None and self._whole.output else Response(output=tuple(self._items))
        if self.everything:
            return
        heard = self._writer.voices
        texts: tuple[tuple[Voice, str], ...] = (
            ("reasoning", whole.reasoning_text),
            ("refusal", whole.refusal),
            ("text", whole.output_text),
        )
        for voice, text in texts:
            if voice not in heard:
                self._writer.say(voice, ("whole",), text)

    def _summary(self, run: Run) -> str:
        response = run.response
        details = response.incomplete_details
        reason = f" ({details.reason})" if run.status == "incomplete" and details is not None and details.reason else ""
        parts = [f"-- {run.status}{reason}", _counted(run.events, "event")]
        usage = response.usage
        if usage is not None and (usage.input_tokens is not None or usage.output_tokens is not None):
            cached = _of_them(usage.input_tokens_details, "cached_tokens", "cached")
            reasoning = _of_them(usage.output_tokens_details, "reasoning_tokens", "reasoning")
            parts.append(f"tokens: {_number(usage.input_tokens)} in{cached}")
            parts.append(f"{_number(usage.output_tokens)} out{reasoning}")
        if self.timing and self._first is not None and self._last is not None:
            parts.append(f"first text after {max(0.0, self._first - self._start):.2f} s")
            tokens, seconds = usage.output_tokens if usage is not None else None, self._last - self._first
            if tokens and seconds > 0:
                parts.append(f"{tokens / seconds:.0f} tokens/s")
        if self._count:
            parts.append(_counted(self._count, "tool call"))
        if run.warnings:
            parts.append(_counted(len(run.warnings), "warning"))
        return ", ".join(parts)

    # --- its events --------------------------------------------------------------------------------------------------

    @on(configured("events"))
    def _show(self, event: Event) -> None:
        """Show *event*, or nothing where it only repeats what was shown."""
        match event:
            case TextDelta():
                self._last = time.monotonic()
                if self._first is None:
                    self._first = self._last
                self._writer.say("text", (_item(event), event.content_index), event.delta)
            case ReasoningTextDelta():
                self._writer.say("reasoning", (_item(event), event.content_index), event.delta)
            case ReasoningSummaryTextDelta():
                self._writer.say("reasoning", (_item(event), "summary", event.summary_index), event.delta)
            case RefusalDelta():
                self._writer.say("refusal", (_item(event), event.content_index), event.delta)
            case TextDone():
                self._writer.say_whole("text", (_item(event), event.content_index), event.text)
            case ReasoningTextDone():
                self._writer.say_whole("reasoning", (_item(event), event.content_index), event.text)
            case ReasoningSummaryTextDone():
                self._writer.say_whole("reasoning", (_item(event), "summary", event.summary_index), event.text)
            case RefusalDone():
                self._writer.say_whole("refusal", (_item(event), event.content_index), event.refusal)
            case _:
                self._show_other(event)

    def _show_other(self, event: Event) -> None:
        match event:
            case ToolCall():
                self._called(event)
            case ToolProgress():
                self._progressed(event)
            case ToolOutput():
                self._answered(event)
            case OutputItemAdded(item=item) if self._writer.changes and isinstance(item, _CALLS):
                self._place(_Call(_name_of(item), time.monotonic()), (item.id, event.output_index))
            case FunctionCallArgumentsDelta() | CustomToolCallInputDelta() | McpCallArgumentsDelta() if (
                self._writer.changes
            ):
                call = self._places.get(event.item_id) or self._places.get(event.output_index)
                if call is not None and len(call.arguments) < _BOARD_CUT:
                    call.arguments += event.delta
                return  # the board draws itself anew now and then
            case OutputItemDone(item=item):
                if isinstance(item, Message | Reasoning):
                    self._items.append(item)
                elif isinstance(item, McpCall):
                    self._outcome = "ok" if item.error is None and item.status != "failed" else "error"
                elif not isinstance(item, _CALLS):
                    self._writer.line(item.type, " ".join(filter(None, (item.status, item.id))), "cyan")
            case StreamError():
                self._writer.line("error", ": ".join(filter(None, (event.code, event.message))), "red")
            case ResponseFailed():
                self._whole = event.response
                fault = event.response.error
                said = (fault.code, fault.message) if fault is not None else ()
                self._writer.line(event.type, ": ".join(filter(None, said)), "red")
            case ResponseCompleted() | ResponseIncomplete() if not self.everything:
                self._whole = event.response
            case HandlerFailed():
                self._writer.line(event.type, f"{event.handler}: {type(event.error).__name__}: {event.error}", "red")
            case _:
                if self.everything or isinstance(event, UnknownEvent):
                    self._writer.line(event.type, _fields_of(event), "magenta")
        if self._open:
            self._writer.stand()

    # --- calls -------------------------------------------------------------------------------------------------------

    def _place(self, call: _Call, places: tuple[object, ...]) -> None:
        self._places.update({place: call for place in places if place is not None})
        self._open = (*self._open, call)
        self._writer.end_line()

    def _called(self, event: ToolCall) -> None:
        """A call is complete: a line that stays, or one on the board until its tool has run."""
        self._count += 1
        begun = self._places.get(event.item_id) or self._places.get(event.output_index)
        self._places = {place: call for place, call in self._places.items() if call is not begun}
        call = _Call(event.name, time.monotonic(), event.arguments, "running")
        self._open = tuple(other for other in self._open if other is not begun)
        if event.kind == "mcp":  # the provider itself has run it
            self._tell_call(call, f" -> {self._outcome}", "red" if self._outcome == "error" else "cyan")
        elif not self._writer.changes:
            self._tell_call(call)
        else:
            self._open = (*self._open, call)
            self._writer.end_line()
        self._calls[event.call_id] = call

    def _progressed(self, event: ToolProgress) -> None:
        progress = _told(event.progress)
        call = self._calls.get(event.call_id)
        if call is not None and call in self._open:
            call.progress = progress[:_BOARD_CUT]
        else:
            self._writer.line("tool", f"{event.name or (call.name if call else event.call_id)}: {progress}", "cyan")

    def _answered(self, event: ToolOutput) -> None:
        """The tool has run: the last line of its call."""
        call = self._calls.pop(event.call_id, None)
        how = event.outcome if event.duration is None else f"{event.outcome}, {event.duration:.2f} s"
        good = event.outcome == "ok"
        ending = f" -> {how}" if good else f" -> {how}: {event.output}"
        if call is not None and call in self._open:
            self._open = tuple(other for other in self._open if other is not call)
            self._tell_call(call, ending, "cyan" if good else "red")
        else:
            name = event.name or (call.name if call is not None else event.call_id or "")
            self._writer.line("tool", name + ending, "cyan" if good else "red")

    def _tell_call(self, call: _Call, ending: str = "", style: str = "cyan") -> None:
        cut = f"{call.name} {call.arguments}"
        room = max(CUT - len(ending), CUT // 2)
        cut = cut if len(cut) <= room else cut[:room] + "…"
        self._writer.line("tool", cut + (" (incomplete)" if call.state == "arguments" else ending), style)

    def _standing(self) -> list[str]:
        """The lines that change: the calls under way. Called from the thread that draws them."""
        now = time.monotonic()
        lines: list[str] = []
        for call in self._open:
            at = f"{call.state} {now - call.since:.0f} s" + (f": {call.progress}" if call.progress else "")
            lines.append(printable(f"[tool] {call.name} {at} {call.arguments[:_BOARD_CUT]}".rstrip()))
        return lines


def _item(event: Any) -> object:
    """The item that *event* speaks for: by its place, for some servers name it anew in every event."""
    return event.item_id if event.output_index is None else event.output_index


def _name_of(item: Any) -> str:
    return str(item.name or "")


def _told(progress: object) -> str:
    """What a tool reported, in a line."""
    try:
        return progress if isinstance(progress, str) else encode_json(progress).decode()
    except _UNENCODABLE:
        return type(progress).__name__


def _fields_of(event: Event) -> str:
    try:
        fields = {name: value for name, value in event.to_dict().items() if name != "type"}
        return json.dumps(fields, ensure_ascii=False) if fields else ""
    except _UNENCODABLE as error:
        return f"{type(error).__name__}: {error}"


def _number(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _of_them(details: Any, field: str, word: str) -> str:
    """How many of the tokens were of a kind, where the server says so."""
    count = getattr(details, field, None)
    return f" ({count:,} {word})" if count else ""
