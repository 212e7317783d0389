"""`Terminal`: what a person sees of a stream, in a terminal and in a pipe."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import io
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.errors import LiveError
from rich.live import Live
from scenarios import DIRECTION
from strategies import wire_events

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    OutputItemAdded,
    OutputItemDone,
    Plugin,
    Response,
    ResponseCompleted,
    ResponseFailed,
    Run,
    StreamError,
    TextDelta,
    TextDone,
    ToolCall,
    ToolOutput,
    ToolProgress,
    UnknownEvent,
    rewrite,
    transform,
)
from eventflow.errors import PluginError, UsageError
from eventflow.events import (
    FunctionCall,
    FunctionCallArgumentsDelta,
    McpCall,
    Message,
    OutputText,
    ReasoningTextDelta,
    RefusalDelta,
)
from eventflow.events import WebSearchCall as Search
from eventflow_plugins import Terminal

HOSTILE = "\x00\x07\b\n\r\t\x1b\x7f\x85\x9b\x9d\u2028\u2029\ud800]52;c;[2J" + DIRECTION
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Tick(Event, tag="tests.terminal.tick"):
    n: int = 0


OPENED = OutputItemAdded(item=Message(id="m"), output_index=0)
END = ResponseCompleted(response=Response(id="r"))


def text(delta: str, **fields: Any) -> TextDelta:
    """The next piece of the text of `OPENED`."""
    return TextDelta(delta=delta, item_id="m", output_index=0, **fields)


class Script(Plugin):
    """Sends its own events in place of the first one of the source: no run looks at them before the plugins do."""

    script: tuple[Event, ...] = ()

    @transform(Tick)
    def send(self, event: Tick) -> Iterable[Event]:
        return self.script if event.n == 0 else (event,)


def sent(events: Iterable[Event], *plugins: Plugin) -> Run:
    """A run in which *plugins* get these very events."""
    source = [Tick(), END]
    return Dispatcher(Script(tuple(events)), *plugins).run(source, check=False)


def plain(*events: Event, **configuration: Any) -> list[str]:
    """The lines in a pipe, the closing one left out."""
    output = io.StringIO()
    sent(events, Terminal(output, **configuration))
    lines = output.getvalue().split("\n")
    assert lines.pop() == ""
    assert lines.pop().startswith("-- completed, 2 events")
    return lines


class Screen:
    """A terminal of a few columns: what is written, and what stands there in the end."""

    def __init__(self, width: int = 80, **configuration: Any) -> None:
        self.file = io.StringIO()
        environment: dict[str, str] = {"TERM": "xterm-256color"} | configuration.pop("environment", {})
        self.console = Console(
            file=self.file, force_terminal=True, width=width, height=20, _environ=environment, legacy_windows=False
        )

    @property
    def written(self) -> str:
        return self.file.getvalue()

    @property
    def lines(self) -> list[str]:
        """The lines as they stand now, without colours; the empty ones at the end left out."""
        rows, row, column = [""], 0, 0
        for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.written):
            if piece == "\n":
                row, column = row + 1, 0
            elif piece == "\r":
                column = 0
            elif piece == "\x1b[1A":
                row -= 1
            elif piece == "\x1b[2K":
                rows[row] = ""
            elif not piece.startswith("\x1b"):
                rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + len(piece) :]
                column += len(piece)
            else:
                assert piece[-1] in "mhl", piece
            rows += [""] * (row + 1 - len(rows))
        while rows and not rows[-1]:
            rows.pop()
        return rows


class Clock:
    """`time.monotonic`, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("eventflow_plugins.terminal.time.monotonic", lambda: self.now)


def call(name: str = "weather", arguments: str = '{"city":"Paris"}', number: int = 1) -> list[Event]:
    """The events of a call, as a stream has them."""
    item = FunctionCall(name=name, call_id=f"call_{number}", id=f"fc_{number}")
    whole = item.replace(arguments=arguments, status="completed")
    return [
        OutputItemAdded(item=item, output_index=number),
        *(FunctionCallArgumentsDelta(delta=piece, item_id=item.id, output_index=number) for piece in arguments),
        OutputItemDone(item=whole, output_index=number),
        ToolCall(kind="function", name=name, arguments=arguments, call_id=item.call_id, item_id=item.id),
    ]


def watched(screen: Screen, *events: Event, **configuration: Any) -> list[list[str]]:
    """What stands on the screen after each event, and in the end."""
    seen: list[list[str]] = []
    flow = Dispatcher(Script(events), Terminal(screen.console, **configuration))
    flow.on("*", lambda event: seen.append(screen.lines))
    flow.run([Tick(), END], check=False)
    return [*seen, screen.lines]


# --- in a pipe -------------------------------------------------------------------------------------------------------


def unsafe(text: str) -> set[str]:
    """The characters of *text* that could drive a terminal, end a line for some, or turn text around."""
    bad = {c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    return bad | (set(text) & set(DIRECTION))


nasty = st.text(st.characters(exclude_categories=()) | st.sampled_from(HOSTILE), max_size=12)
own_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(ToolCall, kind=st.sampled_from(["function", "mcp"]), name=nasty, arguments=nasty, call_id=nasty),
    st.builds(ToolOutput, call_id=nasty, output=nasty, name=nasty, outcome=st.just("ok") | nasty),
    st.builds(ToolProgress, call_id=nasty, progress=nasty | st.lists(nasty, max_size=2), name=nasty),
    st.builds(lambda text: HandlerFailed(ValueError(text), text), nasty),
    st.builds(lambda text: UnknownEvent(type=text or "x", data={text: text}), nasty),
)
any_events = st.sampled_from([wire_events(nasty), own_events]).flatmap(lambda events: events)  # ours as often


@given(st.lists(any_events, max_size=6), st.booleans())
@settings(max_examples=200)
def test_no_control_character_reaches_a_pipe(events: list[Event], everything: bool) -> None:
    """Whatever a peer writes, wherever: text, newlines and tabs."""
    output = io.StringIO()
    sent(events, Terminal(output, everything=everything))
    assert unsafe(output.getvalue()) == set()


@given(st.lists(any_events, max_size=4))
@settings(max_examples=40)
def test_no_control_character_but_ours_reaches_a_terminal(events: list[Event]) -> None:
    """Colours, and the few that draw the lines of calls anew; the rest of what is written is as harmless as ever."""
    screen = Screen()
    sent(events, Terminal(screen.console))
    ours = set(ESCAPES.findall(screen.written))
    assert ours <= {*(f"\x1b[{n}m" for n in (0, 2, 31, 32, 33, 35, 36)), "\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A"}
    assert unsafe(ESCAPES.sub("", screen.written).replace("\r", "")) == set()


@given(st.lists(st.sampled_from(["text", "reasoning", "refusal", "call", "error"]), max_size=6))
def test_every_kind_has_lines_of_its_own(kinds: list[str]) -> None:
    """However they are mixed: marks at the start of lines, calls and errors one line."""
    events: list[Event] = []
    expected: list[str] = []
    for number, kind in enumerate(kinds):
        match kind:
            case "text":
                events += [TextDelta(delta=piece, output_index=number) for piece in ("a", "b\n", "\nc")]
                expected += ["ab", "", "c"]
            case "reasoning":
                events += [ReasoningTextDelta(delta=piece, output_index=number) for piece in ("a", "b\n", "\nc")]
                expected += ["| ab", "| ", "| c"]
            case "refusal":
                events += [RefusalDelta(delta=piece, output_index=number) for piece in ("no\n", "no")]
                expected += ["! no", "! no"]
            case "call":
                events += call(number=number)
                expected += ['[tool] weather {"city":"Paris"}']
            case _:
                events += [StreamError(code="c", message="m\n-- completed")]
                expected += [r"[error] c: m\n-- completed"]
    assert plain(*events) == expected


def test_a_text_that_differs_from_its_deltas_is_shown_anew() -> None:
    """What was missing at the end is added; where the deltas were wrong, the whole text follows them."""
    where: dict[str, Any] = {"item_id": "m", "output_index": 0}
    assert plain(text("a"), TextDone(text="ab", **where), TextDone(text="ab", **where)) == ["ab"]
    assert plain(text("a"), TextDone(text="b", **where)) == ["a", "b"]


def test_a_call_in_a_pipe_is_a_line_and_its_end_another() -> None:
    """And one for each thing that the tool reports. Nothing is written twice."""
    lines = plain(
        *call(),
        ToolProgress(call_id="call_1", progress="half\nway"),
        ToolProgress(call_id="call_1", progress={"at": 0.5}),
        ToolOutput(call_id="call_1", output="sunny", duration=0.25),
        *call("shell", "{}", 2),
        ToolOutput(call_id="call_2", output="not\nyours", outcome="denied"),
        ToolOutput(call_id="lost", output="", name="ghost"),
        ToolOutput(call_id="lost", output="x", outcome="timeout", duration=3.0),
    )
    assert lines == [
        '[tool] weather {"city":"Paris"}',
        r"[tool] weather: half\nway",
        '[tool] weather: {"at":0.5}',
        "[tool] weather -> ok, 0.25 s",
        "[tool] shell {}",
        r"[tool] shell -> denied: not\nyours",
        "[tool] ghost -> ok",
        "[tool] lost -> timeout, 3.00 s: x",
    ]


def test_calls_that_the_provider_runs_say_how_that_went() -> None:
    """Nobody here answers them."""
    lines: list[str] = []
    for item in (McpCall(name="f", id="1", status="completed"), McpCall(name="g", id="2", error="broke")):
        lines += plain(OutputItemDone(item=item), ToolCall("mcp", item.name, "{}", item.id, item.id))
    assert lines == ["[tool] f {} -> ok", "[tool] g {} -> error"]


def test_other_things_are_a_line_each() -> None:
    """Items that no call follows, failed handlers, unknown events, objects that are no JSON."""
    loop: list[Any] = []
    loop.append(loop)
    assert plain(
        OutputItemDone(item=Search(id="ws_1", status="completed")),
        HandlerFailed(ValueError("x"), "f"),
        UnknownEvent(type="acme.thing", data={"a": 1}),
        UnknownEvent(type="acme.loop", data={"a": loop}),
        ToolProgress(call_id="c", progress=loop, name="t"),
        Tick(n=1),
    ) == [
        "[web_search_call] completed ws_1",
        "[eventflow.handler_failed] f: ValueError: x",
        '[acme.thing] {"a": 1}',
        "[acme.loop] ValueError: Circular reference detected",
        "[tool] t: list",
    ]


def test_everything_is_shown_when_asked_for_and_nothing_that_is_not_selected() -> None:
    """`events` is a selector as for `on`."""
    assert plain(Tick(n=1), everything=True, events=Tick) == ['[tests.terminal.tick] {"n": 1}']
    assert plain(*call(), TextDelta(delta="a"), events=("text", "error")) == ["a"]
    with pytest.raises(UsageError, match=r"Terminal\(events=\.\.\.\).*did you mean 'text'"):
        Terminal(events="txet")


def test_long_lines_are_cut_and_keep_their_end() -> None:
    """Arguments may have megabytes; how the call went is never cut off."""
    screen = Screen(2000)
    output = ToolOutput(call_id="call_1", output="y" * 5000, outcome="error", duration=1.0)
    sent([*call(arguments="x" * 5000), output], Terminal(screen.console))
    line = screen.lines[0]
    assert len(line) < 1100
    assert line.startswith("[tool] weather xxx")
    assert "x… -> error, 1.00 s: y" in line


# --- what the pipeline says ------------------------------------------------------------------------------------------


def test_what_a_plugin_before_it_changed_is_never_shown_as_it_was() -> None:
    """Also where a text comes with the terminal event, or its item, alone."""

    class Redact(Plugin):
        @rewrite("text")
        def redact(self, text: str) -> str:
            return text.replace("secret", "***")

    message = Message(id="m", content=(OutputText(text="a secret"),), status="completed")
    endings: list[list[Event]] = [
        [ResponseCompleted(response=Response(output=(message,)))],
        [OutputItemDone(item=message), ResponseCompleted(response=Response())],
        [OutputItemDone(item=message)],
        [TextDelta(delta="a secret"), ResponseCompleted(response=Response(output=(message,)))],
        [TextDone(text="a secret")],
        [ResponseFailed(response=Response(output=(message,)))],
    ]
    for events in endings:
        output = io.StringIO()
        Dispatcher(Redact(), Terminal(output)).run(events, check=False)
        assert output.getvalue().count("a ***\n") == 1
        assert "secret" not in output.getvalue()


# --- in a terminal ---------------------------------------------------------------------------------------------------


def test_a_call_in_a_terminal_is_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments come, the tool runs, it reports, it is done: the line stands once, wherever one looks."""
    clock = Clock(monkeypatch)
    screen = Screen(60)
    seen: dict[str, list[str]] = {}

    def look(event: Event) -> None:
        seen[event.type] = screen.lines
        clock.now += 1

    events = [
        TextDelta(delta="Let me see"),
        *call(),
        ToolProgress(call_id="call_1", progress="half"),
        ToolOutput(call_id="call_1", output="sunny", duration=0.25),
        TextDelta(delta="Sunny.", output_index=9),
    ]
    flow = Dispatcher(Script(tuple(events)), Terminal(screen.console))
    flow.on("*", look)
    flow.run([Tick(), END])
    first, running = "Let me see", "[tool] weather running"
    assert seen["response.output_item.added"] == [first, "[tool] weather arguments 0 s"]
    assert seen["eventflow.tool_call"] == [first, f'{running} 0 s {{"city":"Paris"}}']
    assert seen["eventflow.tool_progress"] == [first, f'{running} 1 s: half {{"city":"Paris"}}']
    done = [first, '[tool] weather {"city":"Paris"} -> ok, 0.25 s']
    assert seen["eventflow.tool_output"] == done
    assert screen.lines[:3] == [*done, "Sunny."]
    assert screen.lines[3].startswith("-- completed, 2 events, first text after 0.00 s")
    assert screen.lines[3].endswith(", 1 tool call")
    assert screen.written.count("\x1b[?25l") == screen.written.count("\x1b[?25h")  # the cursor is back


def test_calls_that_run_at_once_stand_below_what_has_ended() -> None:
    """Text and lines that come meanwhile go above them, and nothing of them stays behind."""
    screen = Screen(30)
    *_, before, end = watched(
        screen,
        *call("a", "{}", 1),
        *call("b", "x" * 100, 2),
        ToolOutput(call_id="call_2", output="no", outcome="error"),
        TextDelta(delta="one\ntwo", output_index=7),
        StreamError(message="odd"),
    )
    assert before == [
        *("[tool] b " + "x" * 100 + " -> error: no", "one", "two", "[error] odd"),
        "[tool] a running 0 s {}",
    ]
    assert end[:-1] == [*before[:-1], "[tool] a {}"]
    assert len(before[-1]) <= 30


def test_calls_that_nobody_answers_stay_as_they_are() -> None:
    """A provider's stream may end with its calls, or within one."""
    screen = Screen()
    end = watched(screen, *call(), *call("shell", '{"a": 1}', 2)[:4])[-1]
    assert end[:2] == ['[tool] weather {"city":"Paris"}', '[tool] shell {"a (incomplete)']


def test_calls_without_ids_are_lost_no_more_than_others() -> None:
    """Each stands, and each is told."""
    screen = Screen()
    calls = [ToolCall("function", name, "{}") for name in "ab"]
    assert watched(screen, *calls)[-1][:2] == ["[tool] a {}", "[tool] b {}"]


def test_a_second_turn_follows_the_first() -> None:
    """Each run through one dispatcher has a view of its own, which begins on a line of its own."""
    screen = Screen()
    flow = Dispatcher(Script((*call(), ToolOutput(call_id="call_1", output=""))), Terminal(screen.console))
    source = [Tick(), OPENED, text("Hi"), END]
    flow.run(source)
    flow.run(source)
    half = ['[tool] weather {"city":"Paris"} -> ok', "Hi", "-- completed"]
    assert [line.split(",")[0] for line in screen.lines] == half * 2


@pytest.mark.parametrize(
    ("configuration", "environment", "styled"),
    [
        ({}, {}, True),
        ({}, {"NO_COLOR": "1"}, False),
        ({}, {"TERM": "dumb"}, False),
        ({"colour": False}, {}, False),
        ({"colour": True}, {"NO_COLOR": "1"}, True),
    ],
)
def test_colour_where_it_is_wanted(configuration: Any, environment: dict[str, str], styled: bool) -> None:
    """Reasoning dim, refusals yellow, errors red; every style is switched off again."""
    screen = Screen(environment=environment)
    events = [ReasoningTextDelta(delta="hm"), RefusalDelta(delta="no"), StreamError(message="m"), *call()]
    sent(events, Terminal(screen.console, **configuration))
    codes = re.findall(r"\x1b\[([0-9;]+)m", screen.written)
    assert bool(codes) is styled
    if styled:
        assert "\x1b[2m| hm\x1b[0m\n\x1b[33m! no\x1b[0m\n\x1b[31m[error]\x1b[0m m\n" in screen.written
        assert codes.count("0") * 2 == len(codes)
    if environment.get("TERM") == "dumb":
        assert "\x1b" not in screen.written


def test_colour_when_asked_for_in_a_pipe() -> None:
    """Colours, and nothing that moves."""
    output = io.StringIO()
    sent([ReasoningTextDelta(delta="hm"), *call()], Terminal(output, colour=True))
    assert output.getvalue().startswith("\x1b[2m| hm\x1b[0m\n\x1b[36m[tool]\x1b[0m weather")


def test_live_display_of_the_program_is_left_alone() -> None:
    """Calls are told when they end, where the lines below are somebody else's, and no two displays fight."""

    def refuse(live: Live) -> bool:
        raise LiveError("Only one live display may be active at once")  # as rich did before 14.1

    screen = Screen()
    with Live("theirs", console=screen.console, auto_refresh=False), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(screen.console, "set_live", refuse)
        sent([*call(), ToolOutput(call_id="call_1", output="")], Terminal(screen.console))
    assert '[tool]\x1b[0m weather {"city":"Paris"} -> ok\n' in screen.written


# --- the closing line ------------------------------------------------------------------------------------------------


def test_closing_line_sums_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, tokens with what is known of them, times, calls, warnings; in an async run as in a sync one."""
    clock = Clock(monkeypatch)
    usage = {
        "input_tokens": 1000,
        "output_tokens": 50,
        "input_tokens_details": {"cached_tokens": 24},
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    response = {"id": "r", "incomplete_details": {"reason": "max_output_tokens"}, "usage": usage}

    def source() -> Iterator[Any]:
        clock.now += 2
        yield OPENED.replace(sequence_number=0)
        yield text("a", sequence_number=1)
        clock.now += 0.5
        yield text("b", sequence_number=3)
        yield {"type": "response.incomplete", "response": response}

    closing = []
    for face in ("sync", "async"):
        output = io.StringIO()
        flow = Dispatcher(Terminal(output))
        if face == "sync":
            flow.run(source())
        else:
            asyncio.run(flow.arun(source()))
        answer, warning, line = output.getvalue().splitlines()
        assert answer == "ab"
        assert warning.startswith("[warning] gap: ")
        closing.append(line)
    assert (
        closing
        == [
            "-- incomplete (max_output_tokens), 4 events, tokens: 1,000 in (24 cached), 50 out (5 reasoning), "
            "first text after 2.00 s, 100 tokens/s, 1 warning"
        ]
        * 2
    )


def test_times_count_from_when_the_answer_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or are left out."""
    Clock(monkeypatch)
    for configuration, expected in (({"began": 90.0}, "first text after 10.00 s"), ({"timing": False}, "2 events")):
        output = io.StringIO()
        sent([TextDelta(delta="a")], Terminal(output, **configuration))
        assert output.getvalue().endswith(f"{expected}\n")


def test_a_run_that_is_cancelled_ends_its_line_only() -> None:
    """Whoever left knows; a handler's failure is told."""
    output = io.StringIO()
    flow = Dispatcher(Terminal(output))
    for event in flow.stream([OPENED, text("a"), text("b")]):
        if isinstance(event, TextDelta):
            break
    assert output.getvalue() == "a\n"
    with flow.on("*", lambda event: 1 // 0), pytest.raises(ZeroDivisionError):
        flow.run([OPENED])
    assert output.getvalue() == "a\n-- failed, 1 event\n"


# --- the output ------------------------------------------------------------------------------------------------------


class Pipe(io.StringIO):
    """An output that fails once, after so many writes, and counts what is tried."""

    def __init__(self, error: Exception, after: int = 0, terminal: bool = False) -> None:
        super().__init__()
        self.error, self.after, self.terminal, self.tried = error, after, terminal, 0

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.tried += 1
        if self.tried == self.after + 1:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("after", [0, 1])
def test_an_output_that_fails_ends_the_run_with_what_the_system_says(error: OSError, after: int) -> None:
    """As it is, for the command to treat; nothing is written again."""
    pipe = Pipe(error, after)
    with pytest.raises(type(error)) as caught:
        Dispatcher(Terminal(pipe)).run([TextDelta(delta="a"), TextDelta(delta="b")])
    assert caught.value is error
    assert pipe.tried == after + 1


@pytest.mark.parametrize("after", range(2, 12))
def test_a_terminal_that_fails_ends_the_run_whoever_draws(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it fails while the lines of calls are drawn; and nobody goes on to draw them."""
    monkeypatch.setenv("TERM", "xterm")
    pipe = Pipe(OSError(errno.EIO, "gone"), after, terminal=True)
    events = [TextDelta(delta="a"), *call(), ToolOutput(call_id="call_1", output=""), *call("b", "{}", 2)]
    threads = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        sent(events, Terminal(pipe))
    assert pipe.tried > after
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and threading.active_count() > threads:
            thread.join(1)
    assert threading.active_count() == threads


def test_an_output_that_is_closed_is_said() -> None:
    """A stranger may have closed it between two runs."""
    output = io.StringIO()
    output.close()
    with pytest.raises(PluginError, match="its output is closed"):
        Dispatcher(Terminal(output)).run([TextDelta(delta="a")])
    output = io.StringIO()
    flow = Dispatcher(Terminal(output))
    flow.on(TextDelta, lambda event: output.close())
    with pytest.raises(PluginError, match="its output is closed"):
        flow.run([TextDelta(delta="a"), TextDelta(delta="b")])


def test_stdout_is_written_to_as_it_is_when_a_run_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is closed is written nowhere."""
    flow = Dispatcher(Terminal())
    flow.run([OPENED, text("a"), END])
    assert capsys.readouterr().out.startswith("a\n-- completed, 3 events")
    monkeypatch.setattr("sys.stdout", None)
    assert flow.run([OPENED, text("a"), END]).status == "completed"


def test_characters_that_an_output_lacks_are_escaped() -> None:
    """A locale must not end a stream."""
    raw = io.BytesIO()
    output = io.TextIOWrapper(raw, encoding="latin-1", newline="\n")
    sent([TextDelta(delta="€é")], Terminal(output, timing=False))
    assert raw.getvalue() == b"\\u20ac\xe9\n-- completed, 2 events\n"


def test_text_is_written_at_once() -> None:
    """Whoever reads sees a piece of text when its handlers are called."""
    raw = io.BytesIO()
    seen: list[bytes] = []
    flow = Dispatcher(Terminal(io.TextIOWrapper(raw, encoding="utf-8")))
    flow.on(TextDelta, lambda event: seen.append(raw.getvalue()))
    flow.run([TextDelta(delta="a"), TextDelta(delta="b")], check=False)
    assert seen == [b"a", b"ab"]


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"output": 3}, "text file or a rich Console, not 3"),
        ({"width": 0}, "positive number of columns"),
        ({"width": True}, "positive number of columns"),
        ({"colour": "red"}, "True, False or None"),
    ],
)
def test_a_configuration_that_is_none_is_refused(configuration: dict[str, Any], message: str) -> None:
    """When it is made, with what to write instead."""
    with pytest.raises(UsageError, match=message):
        Terminal(**configuration)


def test_without_rich_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is made, not in the middle of a run."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "rich" else find(name))
    with pytest.raises(PluginError, match=r"pip install 'eventflow-stream\[cli\]'"):
        Terminal()
