"""`Terminal`: what a person sees of a stream, as it comes: the answer as text, the rest a line each."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias, cast

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

if TYPE_CHECKING:
    from rich.console import Console

    from eventflow_plugins.board import Board

__all__ = ["Terminal"]

Voice: TypeAlias = Literal["text", "reasoning", "refusal"]
Part: TypeAlias = tuple[object, ...]
"""Which text: its item, and its place in it."""

_CUT: Final = 1000  # characters of a line that is not the answer itself
_BOARD_CUT: Final = 300  # of one that stands for a while, and is cut to the terminal's width
_MARKS: Final[dict[Voice, str]] = {"text": "", "reasoning": "| ", "refusal": "! "}
_VOICES: Final[dict[Voice, str]] = {"text": "", "reasoning": "dim", "refusal": "yellow"}
_CODES: Final = {"dim": 2, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}  # ECMA-48, SGR
_CALLS: Final = (FunctionCall, CustomToolCall, McpCall)  # what a `ToolCall` follows
_CLOSED: Final = "Terminal cannot write: its output is closed; close it after the last run, or give another one"
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

    _file: TextIO | None = state(default=None)
    _styled: bool = state(default=False)
    _board: Board | None = state(default=None)  # where lines can change
    _fresh: bool = state(default=True)  # at the start of a line
    _speaking: tuple[Voice, Part] | None = state(default=None)  # whose text is being written
    _heard: dict[tuple[Voice, Part], list[str]] = state(factory=dict[tuple[Voice, Part], list[str]])
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
        console = _console_of(self.output, self.width)
        if console is None:
            return
        self._file = cast("TextIO", console.file)
        able = console.is_terminal and not console.is_dumb_terminal and not console.legacy_windows
        self._styled = (able and not console.no_color) if self.colour is None else self.colour
        if able and self.live and not self.everything:
            from eventflow_plugins.board import Board

            self._board = Board(console, self._standing)

    def stop(self, run: Run) -> None:
        """Show what only the whole response told, what was odd, and how it ended."""
        if self._file is None:
            return
        for call in self._open:
            self._tell_call(call)
        self._places, self._calls, self._open = {}, {}, ()
        if run.status == "cancelled" or not run.events:
            self._end_line()
            return
        self._tell_rest()
        for oddity in run.warnings:
            self._line("warning", str(oddity), "yellow")
        self._end_line()
        good = run.status in ("completed", "incomplete")
        self._write(self._style(printable(self._summary(run)), "green" if good else "red") + "\n")

    def _tell_rest(self) -> None:
        """The texts that came in no other way than as a whole."""
        whole = self._whole if self._whole is not None and self._whole.output else Response(output=tuple(self._items))
        if self.everything:
            return
        heard = {voice for voice, _ in self._heard}
        texts: tuple[tuple[Voice, str], ...] = (
            ("reasoning", whole.reasoning_text),
            ("refusal", whole.refusal),
            ("text", whole.output_text),
        )
        for voice, text in texts:
            if voice not in heard:
                self._say(voice, ("whole",), text)

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
            case OutputItemAdded(item=item) if self._board is not None and isinstance(item, _CALLS):
                self._place(_Call(_name_of(item), time.monotonic()), (item.id, event.output_index))
            case FunctionCallArgumentsDelta() | CustomToolCallInputDelta() | McpCallArgumentsDelta() if (
                self._board is not None
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
                    self._line(item.type, " ".join(filter(None, (item.status, item.id))), "cyan")
            case StreamError():
                self._line("error", ": ".join(filter(None, (event.code, event.message))), "red")
            case ResponseFailed():
                self._whole = event.response
                fault = event.response.error
                said = (fault.code, fault.message) if fault is not None else ()
                self._line(event.type, ": ".join(filter(None, said)), "red")
            case ResponseCompleted() | ResponseIncomplete() if not self.everything:
                self._whole = event.response
            case HandlerFailed():
                self._line(event.type, f"{event.handler}: {type(event.error).__name__}: {event.error}", "red")
            case _:
                if self.everything or isinstance(event, UnknownEvent):
                    self._line(event.type, _fields_of(event), "magenta")
        self._raise_board()

    # --- calls -------------------------------------------------------------------------------------------------------

    def _place(self, call: _Call, places: tuple[object, ...]) -> None:
        self._places.update({place: call for place in places if place is not None})
        self._open = (*self._open, call)
        self._end_line()

    def _called(self, event: ToolCall) -> None:
        """A call is complete: a line that stays, or one on the board until its tool has run."""
        self._count += 1
        begun = self._places.get(event.item_id) or self._places.get(event.output_index)
        self._places = {place: call for place, call in self._places.items() if call is not begun}
        call = _Call(event.name, time.monotonic(), event.arguments, "running")
        self._open = tuple(other for other in self._open if other is not begun)
        if event.kind == "mcp":  # the provider itself has run it
            self._tell_call(call, f" -> {self._outcome}", "red" if self._outcome == "error" else "cyan")
        elif self._board is None:
            self._tell_call(call)
        else:
            self._open = (*self._open, call)
            self._end_line()
        self._calls[event.call_id] = call

    def _progressed(self, event: ToolProgress) -> None:
        progress = _told(event.progress)
        call = self._calls.get(event.call_id)
        if call is not None and call in self._open:
            call.progress = progress[:_BOARD_CUT]
        else:
            self._line("tool", f"{event.name or (call.name if call else event.call_id)}: {progress}", "cyan")

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
            self._line("tool", name + ending, "cyan" if good else "red")

    def _tell_call(self, call: _Call, ending: str = "", style: str = "cyan") -> None:
        cut = f"{call.name} {call.arguments}"
        room = max(_CUT - len(ending), _CUT // 2)
        cut = cut if len(cut) <= room else cut[:room] + "…"
        self._line("tool", cut + (" (incomplete)" if call.state == "arguments" else ending), style)

    def _standing(self) -> list[tuple[str, str]]:
        """The lines of the board, with their styles. Called from its thread."""
        now = time.monotonic()
        lines: list[str] = []
        for call in self._open:
            at = f"{call.state} {now - call.since:.0f} s" + (f": {call.progress}" if call.progress else "")
            lines.append(printable(f"[tool] {call.name} {at} {call.arguments[:_BOARD_CUT]}".rstrip()))
        return [(line, "cyan" if self._styled else "") for line in lines]

    def _raise_board(self) -> None:
        """Show the calls under way, unless a text is being written there."""
        if self._board is not None and self._open and self._fresh and self._speaking is None:
            self._guarded(self._board.show)

    # --- writing -----------------------------------------------------------------------------------------------------

    def _say(self, voice: Voice, part: Part, text: str) -> None:
        """The next piece of a text."""
        if not text:
            return
        if self._speaking != (voice, part):
            self._end_line()
            self._speaking = (voice, part)
        self._heard.setdefault((voice, part), []).append(text)
        mark, shown = _MARKS[voice], printable(text, newlines=True)
        if mark:
            lines = [mark + line if fresh else line for fresh, line in _lines(shown, self._fresh)]
            shown = "".join(lines)
        self._fresh = shown.endswith("\n")
        self._write(self._style(shown, _VOICES[voice]))

    def _say_whole(self, voice: Voice, part: Part, text: str) -> None:
        """A text is complete: show what has not come in deltas, or all of it where they said something else."""
        heard = "".join(self._heard.get((voice, part), ()))
        if text.startswith(heard):
            self._say(voice, part, text[len(heard) :])
        else:
            self._end_line()
            self._heard[voice, part] = []
            self._say(voice, part, text)

    def _line(self, label: str, text: str, style: str) -> None:
        self._end_line()
        cut = text[:_CUT] + "…" if len(text) > _CUT else text
        self._write(self._style(f"[{printable(label)}]", style) + (f" {printable(cut)}\n" if cut else "\n"))

    def _end_line(self) -> None:
        """Go to the start of a line."""
        if not self._fresh:
            self._fresh = True
            self._write("\n")
        self._speaking = None

    def _style(self, text: str, style: str) -> str:
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._styled and style else text

    def _write(self, text: str) -> None:
        """Write at once."""
        if self._board is not None and self._board.stands:
            self._guarded(self._board.hide)
        if self._file is not None:
            self._guarded(self._put, text)

    def _put(self, text: str) -> None:
        file = cast("TextIO", self._file)
        try:
            file.write(text)
        except UnicodeEncodeError:  # a locale that lacks a character must not end a stream
            encoding = file.encoding or "ascii"
            file.write(text.encode(encoding, "backslashreplace").decode(encoding))
        file.flush()

    def _guarded(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except ValueError as error:
            self._file = self._board = None
            raise PluginError(_CLOSED) from error
        except OSError:
            self._file = self._board = None  # nothing more is tried: `stop` would fail as well
            raise


def _console_of(output: TextIO | Console | None, width: int | None) -> Console | None:
    """The console to write to; None where stdout is closed."""
    from rich.console import Console

    if isinstance(output, Console):
        return output
    file = sys.stdout if output is None else output
    if file is None:
        return None
    if getattr(file, "closed", False):
        raise PluginError(_CLOSED)
    # told by itself, for rich takes a pipe for a terminal where the environment asks for colour
    terminal = bool(getattr(file, "isatty", bool)())
    return Console(file=file, width=width, force_terminal=terminal, highlight=False, emoji=False, markup=False)


def _lines(text: str, fresh: bool) -> list[tuple[bool, str]]:
    """The lines of *text*, and whether each begins one."""
    lines = text.splitlines(keepends=True)
    return [(fresh or index > 0, line) for index, line in enumerate(lines)]


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
