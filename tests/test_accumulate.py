"""`Accumulate`: the fold at its place of the pipeline, read at any time."""

from __future__ import annotations

import asyncio
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import (
    Dispatcher,
    Event,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    OutputItemAdded,
    OutputItemDone,
    Pipeline,
    Plugin,
    ReasoningTextDelta,
    RefusalDelta,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    Run,
    StreamError,
    TextDelta,
    TextDone,
    ToolOutput,
    UnknownEvent,
    rewrite,
    transform,
)
from eventflow.errors import UsageError
from eventflow.events import (
    JSON,
    CodeInterpreterCall,
    CodeInterpreterCallCodeDelta,
    CustomToolCall,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    FunctionCall,
    ImageGenerationCallPartialImage,
    McpApprovalRequest,
    McpCall,
    McpCallArgumentsDelta,
    Message,
    Reasoning,
    Usage,
)
from eventflow.partial_json import PartialParser
from eventflow.snapshot import Snapshot
from eventflow_plugins import Accumulate

RECORDED = sorted(Path(__file__).with_name("fixtures").glob("responses-*.sse"))


class Note(Event, tag="tests.accumulate.note"):
    n: int = 0


# --- streams ---------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=()) | st.sampled_from('{}[]":,\\ 0123é😀\ud83d\ude00'), max_size=12)
documents = st.builds(
    json.dumps,
    st.dictionaries(texts, st.recursive(st.integers() | texts | st.none(), st.lists, max_leaves=4), max_size=3),
    ensure_ascii=st.booleans(),
)


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """*text* cut anywhere."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def calls(draw: st.DrawFn, index: int) -> list[Event]:
    """The events of a call: opened or not, with its whole text or without, done differing or not, closed or not."""
    made: Any = draw(st.sampled_from([FunctionCall, McpCall, CustomToolCall]))
    text = draw(texts if made is CustomToolCall else documents | texts)
    field = "input" if made is CustomToolCall else "arguments"
    names = {"id": f"item_{index}"} | ({} if made is McpCall else {"call_id": f"call_{index}"})
    delta: Any = {
        FunctionCall: FunctionCallArgumentsDelta,
        McpCall: McpCallArgumentsDelta,
        CustomToolCall: CustomToolCallInputDelta,
    }[made]
    place = draw(st.sampled_from([{"item_id": f"item_{index}"}, {"output_index": index}]))
    events: list[Event] = [OutputItemAdded(item=made(name="f", **names), output_index=index)]
    events += [delta(delta=piece, **place) for piece in draw(pieces(text))]
    whole = draw(st.just(text) | documents) if made is not CustomToolCall else text
    if draw(st.booleans()):
        done: Any = CustomToolCallInputDone if made is CustomToolCall else FunctionCallArgumentsDone
        events.append(done(**{field: whole}, **place))
    if draw(st.booleans()):
        status = draw(st.sampled_from(["completed", "incomplete", None]))
        events.append(OutputItemDone(item=made(name="f", status=status, **names, **{field: whole}), output_index=index))
    return events[0 if draw(st.integers(0, 5)) else 1 :]  # now and then, a call that was never opened


@st.composite
def messages(draw: st.DrawFn, index: int) -> list[Event]:
    """The events of a message or of reasoning, well formed or not."""
    place = draw(st.sampled_from([{"item_id": f"item_{index}"}, {"output_index": index}]))
    delta: Any = draw(st.sampled_from([TextDelta, ReasoningTextDelta, RefusalDelta]))
    item: Any = Reasoning if delta is ReasoningTextDelta else Message
    events: list[Event] = [OutputItemAdded(item=item(id=f"item_{index}"), output_index=index)]
    text = draw(texts)
    events += [delta(delta=piece, **place) for piece in draw(pieces(text))]
    if delta is TextDelta and draw(st.booleans()):
        events.append(TextDone(text=draw(st.just(text) | texts), **place))
    return events[0 if draw(st.integers(0, 5)) else 1 :]


def noise() -> st.SearchStrategy[Event]:
    """Events that say nothing of the response."""
    return st.sampled_from(
        [
            Note(n=1),
            ToolOutput(call_id="call_0", output="{}"),
            UnknownEvent(type="vendor.ping", data={"delta": "x"}),
            ImageGenerationCallPartialImage(partial_image_b64="aaaa"),
            CodeInterpreterCallCodeDelta(delta="1+1", item_id="code"),
        ]
    )


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """The events of a response, its items interleaved, with noise; ended in any way, or not at all."""
    items = draw(st.lists(st.booleans(), max_size=4))
    open_items = [draw(calls(index) if call else messages(index)) for index, call in enumerate(items)]
    events: list[Event] = [ResponseCreated(response=Response(id="resp", status="in_progress"))]
    while open_items:
        item = open_items[draw(st.integers(0, len(open_items) - 1))]
        if item:
            events.append(item.pop(0))
        open_items = [rest for rest in open_items if rest]
        if not draw(st.integers(0, 9)):
            events.append(draw(noise()))
    output = tuple(event.item for event in events if isinstance(event, OutputItemDone)) if draw(st.booleans()) else ()
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    last: Event | None = draw(
        st.sampled_from(
            [
                ResponseCompleted(response=Response(id="resp", status="completed", output=output, usage=usage)),
                ResponseIncomplete(response=Response(id="resp", status="incomplete", output=output)),
                ResponseFailed(response=Response(id="resp", status="failed")),
                StreamError(message="slow down", code="rate_limit_exceeded"),
                None,
            ]
        )
    )
    return events if last is None else [*events, last]


def ran(events: Iterable[Event], *plugins: Plugin, **options: Any) -> Run:
    """A run over *events*, through an `Accumulate` unless told otherwise; however it ends."""
    return Dispatcher(*plugins or (Accumulate(),), **options).run(list(events), check=False)


def seen(accumulate: Accumulate) -> dict[str, Any]:
    """All that can be read, but for the arguments."""
    names = ("response", "text", "reasoning", "refusal", "tool_calls", "usage", "status")
    return {name: getattr(accumulate, name) for name in names}


def same(accumulate: Accumulate, response: Response) -> None:
    """Whether it says of everything what *response* says."""
    assert accumulate.response == response
    assert accumulate.text == response.output_text
    assert accumulate.reasoning == response.reasoning_text
    assert accumulate.refusal == response.refusal
    assert accumulate.tool_calls == response.tool_calls
    assert accumulate.usage == response.usage
    assert accumulate.status == response.status


# --- it is the fold --------------------------------------------------------------------------------------------------


@given(streams())
def test_it_equals_the_response_when_nothing_stands_before_it(events: list[Event]) -> None:
    """Whatever the stream and however it ends, it says what `Run.response` says."""
    run = ran(events)
    same(run[Accumulate], run.response)


@pytest.mark.parametrize("recording", RECORDED, ids=lambda path: path.stem)
def test_it_equals_the_response_when_the_stream_is_recorded(recording: Path) -> None:
    """The same from bytes, through the fused path."""
    run = Dispatcher(Accumulate()).run(recording, check=False)
    assert run.events > 1 or "error" in recording.name
    same(run[Accumulate], run.response)


def test_it_equals_the_response_when_the_stream_is_of_the_corpus(corpus: Path) -> None:
    """The same for every recorded stream, and the arguments of all its calls are what `json.loads` reads."""
    recordings = sorted((corpus / "responses").glob("*.sse"))
    assert recordings
    for recording in recordings:
        arguments: dict[str, JSON] = {}
        run = Dispatcher(Accumulate(on_change=reader(arguments))).run(recording, check=False)
        same(run[Accumulate], run.response)
        for call in run.response.tool_calls:
            expected = call.input if isinstance(call, CustomToolCall) else json.loads(call.arguments or "null")
            assert arguments.get(str(call.call_id)) == expected, recording.name


def reader(arguments: dict[str, JSON]) -> Callable[[Accumulate], None]:
    """Reads all arguments after every event, and keeps them by call id."""

    def read(accumulate: Accumulate) -> None:
        for call in accumulate.tool_calls:
            if call.call_id is not None:
                arguments[call.call_id] = accumulate.partial_arguments(call.call_id)

    return read


@given(streams(), st.data())
def test_what_is_read_is_the_same_when_it_is_read_in_between(events: list[Event], data: st.DataObject) -> None:
    """Reading is without effect: any of it, after any events, and after each it is what a fold of so many says."""
    heard: list[Event] = []
    reads: dict[int, str] = data.draw(
        st.dictionaries(
            st.integers(0, len(events)),
            st.sampled_from(["response", "text", "reasoning", "refusal", "tool_calls", "usage", "status", "arguments"]),
        )
    )

    class Hear(Plugin):
        @transform("*")
        def hear(self, event: Event) -> Event:
            heard.append(event)
            return event

    def change(accumulate: Accumulate) -> None:
        read = reads.get(len(heard))
        fold = Snapshot()
        fold.add(heard)
        if read == "arguments":
            for call in fold.response.tool_calls:
                accumulate.partial_arguments(call.call_id or call.id or "")
        elif read is not None:
            response = fold.response
            names = {"text": response.output_text, "reasoning": response.reasoning_text, "response": response}
            assert getattr(accumulate, read) == (names[read] if read in names else getattr(response, read))

    read_often = ran(events, Hear(), Accumulate(on_change=change))
    never_read = ran(events)
    assert seen(read_often[Accumulate]) == seen(never_read[Accumulate])
    for call in never_read.response.tool_calls:
        name = call.call_id or call.id or ""
        assert read_often[Accumulate].partial_arguments(name) == never_read[Accumulate].partial_arguments(name)


def test_it_equals_the_response_when_there_are_more_events_than_are_kept() -> None:
    """Events are folded in batches; none is lost at their borders."""
    for size in (255, 256, 257, 600):
        run = ran([TextDelta(delta=f"{n} ", item_id="m") for n in range(size)])
        assert run[Accumulate].text == "".join(f"{n} " for n in range(size))


# --- its place -------------------------------------------------------------------------------------------------------


class Shout(Plugin):
    @rewrite("text", "tool")
    def shout(self, text: str) -> str:
        return text.upper()


class Mute(Plugin):
    @transform("reasoning")
    def mute(self, event: Event) -> None:
        return None


ANSWER: list[Event] = [
    OutputItemAdded(item=Message(id="m"), output_index=0),
    TextDelta(delta="hel", item_id="m"),
    ReasoningTextDelta(delta="hm", item_id="r"),
    TextDelta(delta="lo", item_id="m"),
    TextDone(text="hello", item_id="m"),
    ResponseCompleted(response=Response(id="resp", status="completed")),
]


def test_it_sees_what_transforms_before_it_let_through() -> None:
    """Before a transform it has what came, behind it what goes on; the run has what was received."""
    run = ran(ANSWER, Pipeline(Accumulate(), Shout(), Mute(), Accumulate()))
    before, behind = (plugin for plugin in run.plugins if isinstance(plugin, Accumulate))
    assert (before.text, before.reasoning) == ("hello", "hm")
    assert (behind.text, behind.reasoning) == ("HELLO", "")
    assert (run.text, run.response.reasoning_text) == ("hello", "hm")
    assert run[Accumulate] is before


def test_arguments_are_those_that_transforms_before_it_let_through() -> None:
    """Partial arguments follow the rewritten text."""
    partial: list[Any] = []
    events = [
        OutputItemAdded(item=FunctionCall(name="f", call_id="c", id="i"), output_index=0),
        FunctionCallArgumentsDelta(delta='{"city": "par', item_id="i", output_index=0),
        FunctionCallArgumentsDelta(delta='is"}', item_id="i", output_index=0),
        FunctionCallArgumentsDone(arguments='{"city": "paris"}', item_id="i", output_index=0),
    ]
    ran(events, Shout(), Accumulate(lambda accumulate: partial.append(repr(accumulate.partial_arguments("c")))))
    assert partial == ["None", "{'CITY': 'PAR'}", "{'CITY': 'PARIS'}", "{'CITY': 'PARIS'}"]


def test_it_still_accumulates_when_the_run_keeps_nothing() -> None:
    """With ``snapshot=False`` the run has no text; the plugin has."""
    run = ran(ANSWER, snapshot=False)
    assert (run.text, run[Accumulate].text) == ("", "hello")


def test_handlers_behind_it_see_the_event_under_way() -> None:
    """Reading it in a handler includes the event that the handler hears."""
    flow = Dispatcher(Accumulate())
    lengths: list[tuple[str, str]] = []

    @flow.on(TextDelta)
    def follow(event: TextDelta, run: Run) -> None:
        lengths.append((event.delta, run[Accumulate].text))

    flow.run(ANSWER)
    assert lengths == [("hel", "hel"), ("lo", "hello")]


# --- partial arguments -----------------------------------------------------------------------------------------------


@given(st.data(), documents, st.booleans())
def test_partial_arguments_are_what_the_parser_makes_of_the_text_so_far(
    data: st.DataObject, text: str, by_index: bool
) -> None:
    """After every piece, whoever asked how often before; at the end they are what `json.loads` reads."""
    cut = data.draw(pieces(text))
    asks = iter(data.draw(st.lists(st.booleans(), min_size=len(cut) + 1, max_size=len(cut) + 1)))
    place: dict[str, Any] = {"output_index": 3} if by_index else {"item_id": "i"}

    def change(accumulate: Accumulate) -> None:
        if next(asks):
            expected = PartialParser()
            expected.feed(accumulate.tool_calls[0].arguments)
            assert accumulate.partial_arguments("c") == expected.value == accumulate.partial_arguments("i")

    opened = OutputItemAdded(item=FunctionCall(name="f", call_id="c", id="i"), output_index=3)
    run = ran([opened, *(FunctionCallArgumentsDelta(delta=piece, **place) for piece in cut)], Accumulate(change))
    assert run[Accumulate].partial_arguments("c") == json.loads(text)


@given(st.data(), texts)
def test_partial_arguments_are_the_text_so_far_when_the_tool_takes_free_text(data: st.DataObject, text: str) -> None:
    """A custom tool's input is no JSON, and is given as the string that it is."""
    cut = data.draw(pieces(text))
    partial: list[JSON] = []
    events: list[Event] = [OutputItemAdded(item=CustomToolCall(name="f", call_id="c", id="i"))]
    events += [CustomToolCallInputDelta(delta=piece, item_id="i") for piece in cut]
    ran(events, Accumulate(lambda accumulate: partial.append(accumulate.partial_arguments("c"))))
    assert partial == ["".join(cut[:n]) for n in range(len(cut) + 1)]


def test_half_a_character_of_free_text_is_given_at_once() -> None:
    """As the pieces have it: a lone surrogate is no reason to wait for its partner."""
    opened = OutputItemAdded(item=CustomToolCall(name="f", call_id="c", id="i"))
    halves = [CustomToolCallInputDelta(delta=half, item_id="i") for half in ("\ud83d", "\ude00")]
    assert arguments_of(opened, halves[0]) == "\ud83d"
    assert arguments_of(opened, *halves) == "\ud83d\ude00"


CALL = FunctionCall(name="f", call_id="c", id="i")
OPENED = OutputItemAdded(item=CALL, output_index=0)


def pieces_of(*deltas: str) -> list[Event]:
    """The arguments of the call under test, piece by piece."""
    return [FunctionCallArgumentsDelta(delta=delta, item_id="i", output_index=0) for delta in deltas]


def arguments_of(*events: Event, asked: bool = True, call_id: str = "c") -> JSON:
    """The call's arguments after *events*, asked for after each of them or only at the end."""
    ask: Callable[[Accumulate], object] | None = (lambda a: a.partial_arguments(call_id)) if asked else None
    return ran(events, Accumulate(ask))[Accumulate].partial_arguments(call_id)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ([], {"a": 1}),
        ([FunctionCallArgumentsDone(arguments='{"b": 2}', item_id="i")], {"b": 2}),
        ([FunctionCallArgumentsDone(arguments='{"b": 2}', output_index=0)], {"b": 2}),
        ([FunctionCallArgumentsDone(arguments='{"b": 2}')], {"b": 2}),
        ([FunctionCallArgumentsDone(arguments="12", item_id="i")], 12),
        ([OutputItemDone(item=CALL.replace(arguments='{"b": 2}'), output_index=0)], {"b": 2}),
        ([OutputItemDone(item=CALL.replace(arguments="12"), output_index=0)], 12),
        ([OutputItemDone(item=CALL.replace(arguments="12", status="incomplete"), output_index=0)], None),
        ([OutputItemDone(item=CALL, output_index=0)], {"a": 1}),
        ([OutputItemDone(item=CALL.replace(id="j", arguments="3"), output_index=0)], 3),
        ([ResponseCompleted(response=Response(output=(CALL.replace(arguments='{"b": 2}'),)))], {"b": 2}),
        ([ResponseCompleted(response=Response(output=(CALL.replace(call_id="other", id="x"),)))], None),
        ([ResponseIncomplete(response=Response(output=(CALL.replace(arguments='["x', status="incomplete"),)))], ["x"]),
        ([ResponseCompleted(response=Response())], {"a": 1}),
    ],
)
def test_the_whole_arguments_win_when_they_differ_from_the_pieces(
    ending: list[Event], expected: JSON, asked: bool
) -> None:
    """Those of the done event, of the closed item, of the terminal event; and an empty one says nothing."""
    assert arguments_of(OPENED, *pieces_of('{"a"', ": 1}"), *ending, asked=asked) == expected


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ((), None),
        (("", ""), None),
        (("nul",), None),
        (('{"a": [1, 2', "0"), {"a": [1]}),
        (('{"a": 1', "x}", ', "b": 2}'), {"a": 1}),
        (('{"a": 1x',), {"a": 1}),
        (("[1]", "]"), [1]),
        (("not", " json"), None),
    ],
)
def test_arguments_that_are_no_json_give_what_was_certain_before_the_fault(
    deltas: tuple[str, ...], expected: JSON, asked: bool
) -> None:
    """Neither a part of JSON nor broken text raises."""
    assert arguments_of(OPENED, *pieces_of(*deltas), asked=asked) == expected


@pytest.mark.parametrize("asked", [True, False])
def test_arguments_give_what_is_above_when_they_are_nested_too_deep(asked: bool) -> None:
    """A model cannot end a run by nesting."""
    value = arguments_of(OPENED, *pieces_of("[" * 200, "]" * 200), asked=asked)
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    assert depth == 127


def test_arguments_are_none_when_no_such_call_has_come() -> None:
    """Neither a stranger's id nor that of a message is an error."""
    assert arguments_of(OPENED, call_id="other") is None
    assert arguments_of(OutputItemAdded(item=Message(id="m")), call_id="m") is None
    assert arguments_of(OutputItemAdded(item=CodeInterpreterCall(id="k")), call_id="k") is None
    assert arguments_of(call_id="c") is None


@pytest.mark.parametrize("asked", [True, False])
def test_arguments_find_their_call_however_servers_name_it(asked: bool) -> None:
    """By item id, by index where ids rotate, as the call opened last, or as a call that nobody opened."""
    delta = FunctionCallArgumentsDelta
    two = [OPENED, OutputItemAdded(item=FunctionCall(name="g", call_id="d", id="j"), output_index=1)]
    rotating = [delta(delta="[1,", item_id="x1", output_index=0), delta(delta="2]", item_id="x2", output_index=0)]
    nameless = [delta(delta="[3,"), delta(delta="4"), delta(delta="]", item_id="j", output_index=0)]
    orphan = [delta(delta="[5,", item_id="lost"), delta(delta="6]")]
    events = [*two, *rotating, *nameless, *orphan]
    assert arguments_of(*events, asked=asked) == [1, 2]
    assert arguments_of(*events, asked=asked, call_id="d") == [3, 4]
    assert arguments_of(*events, asked=asked, call_id="j") == [3, 4]
    assert arguments_of(*events, asked=asked, call_id="lost") == [5, 6]
    closed = OutputItemDone(item=FunctionCall(name="g", call_id="d", id="j", arguments="[7]"), output_index=1)
    last = [*two, closed, delta(delta="[8,"), delta(delta="9]")]
    assert arguments_of(*last, asked=asked) == [8, 9]
    assert arguments_of(*last, asked=asked, call_id="d") == [7]


def test_pieces_that_come_after_the_whole_change_nothing() -> None:
    """What was complete stays so."""
    done = FunctionCallArgumentsDone(arguments='{"b": 2}', item_id="i")
    late = FunctionCallArgumentsDelta(delta="x", item_id="i")
    assert arguments_of(OPENED, done, late) == {"b": 2}


def test_arguments_of_calls_that_the_provider_runs_are_known_too() -> None:
    """MCP calls and requests for approval have an item id alone; both are found, under way and at the end."""
    mcp = McpCall(name="f", id="mcp_1", arguments="[1]")
    asks = McpApprovalRequest(name="f", id="mcpr_1", arguments="[2]")
    events: list[Event] = [
        OutputItemAdded(item=mcp.replace(arguments="")),
        McpCallArgumentsDelta(delta="[1", item_id="mcp_1"),
    ]
    assert arguments_of(*events, call_id="mcp_1") == []
    assert arguments_of(*events, OutputItemDone(item=mcp), call_id="mcp_1") == [1]
    assert arguments_of(*events, OutputItemDone(item=asks), call_id="mcpr_1") == [2]
    whole = ResponseCompleted(response=Response(output=(mcp, asks)))
    assert arguments_of(*events, whole, call_id="mcp_1") == [1]
    assert arguments_of(*events, whole, call_id="mcpr_1") == [2]


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The characters that parsers were fed."""
    counts: list[int] = []
    feed = PartialParser.feed
    monkeypatch.setattr(PartialParser, "feed", lambda self, text: (counts.append(len(text)), feed(self, text))[1])
    return counts


def test_every_character_is_parsed_once_when_arguments_are_read_after_each_piece(fed: list[int]) -> None:
    """The cost of watching arguments is linear in them; the whole text of the done event is one more pass."""
    text = json.dumps({"text": "x" * 20_000})
    deltas = pieces_of(*(text[n : n + 5] for n in range(0, len(text), 5)))
    partial = arguments_of(OPENED, *deltas)
    assert partial == json.loads(text)
    assert sum(fed) == len(text)
    arguments_of(OPENED, *deltas, FunctionCallArgumentsDone(arguments=text, item_id="i"))
    assert sum(fed) == 3 * len(text)


def test_nothing_is_parsed_when_nobody_asks_for_arguments(fed: list[int]) -> None:
    """A parser is made when it is asked for, for the call that it is asked of."""
    ran([OPENED, *pieces_of("[1", "]")], Accumulate(lambda accumulate: accumulate.tool_calls))
    assert fed == []


# --- the callback ----------------------------------------------------------------------------------------------------


def test_on_change_is_called_after_each_event_that_may_change_the_response() -> None:
    """With the run's own instance, the event folded; what says nothing of the response is no change."""
    heard: list[tuple[str, str | None]] = []
    events = [*ANSWER[:1], Note(), ToolOutput(call_id="c", output=""), UnknownEvent(type="x.y", data={}), *ANSWER[1:]]
    run = ran(events, Accumulate(lambda accumulate: heard.append((accumulate.text, accumulate.status))))
    assert [text for text, _ in heard] == ["", "hel", "hel", "hello", "hello", "hello"]
    assert heard[-1][1] == "completed"
    assert run[Accumulate].on_change is not None


def test_on_change_may_be_awaited_when_the_run_is_async() -> None:
    """What it returns is a handler's result: awaited before the next event."""
    order: list[str] = []

    async def change(accumulate: Accumulate) -> None:
        before = accumulate.text
        await asyncio.sleep(0)
        order.append(before + "/" + accumulate.text)

    flow = Dispatcher(Accumulate(change))
    run = asyncio.run(flow.arun(ANSWER))
    assert run.status == "completed"
    assert order == ["/", "hel/hel", "hel/hel", "hello/hello", "hello/hello", "hello/hello"]


def test_on_change_that_must_be_awaited_is_an_error_when_the_run_is_sync() -> None:
    """It names the plugin; the coroutine does not linger."""

    async def change(accumulate: Accumulate) -> None: ...

    with pytest.raises(UsageError, match="Accumulate"):
        Dispatcher(Accumulate(change)).run(ANSWER)


def test_an_error_of_on_change_ends_the_run() -> None:
    """It is a handler's error, with a note that names the plugin."""
    with pytest.raises(ZeroDivisionError) as caught:
        Dispatcher(Accumulate(lambda accumulate: 1 // 0)).run(ANSWER)
    assert "Accumulate" in caught.value.__notes__[0]


@pytest.mark.parametrize("wrong", ["print", 3, Accumulate()])
def test_on_change_that_is_no_function_is_refused(wrong: Any) -> None:
    """At once, not at the first event."""
    with pytest.raises(UsageError, match="on_change"):
        Accumulate(on_change=wrong)


# --- runs ------------------------------------------------------------------------------------------------------------


def test_the_template_cannot_be_read() -> None:
    """It hears nothing, and to find an empty answer in it would be a riddle."""
    accumulate = Accumulate()
    Dispatcher(accumulate).run(ANSWER)
    for name in ("response", "text", "reasoning", "refusal", "tool_calls", "usage", "status"):
        with pytest.raises(UsageError, match=r"run\[Accumulate\]"):
            getattr(accumulate, name)
    with pytest.raises(UsageError, match="template"):
        accumulate.partial_arguments("c")


def test_it_can_be_read_before_the_first_event() -> None:
    """An empty response, once the run has begun."""
    with Dispatcher(Accumulate()).open(check=False) as run:
        assert seen(run[Accumulate]) == {
            "response": Response(),
            "text": "",
            "reasoning": "",
            "refusal": "",
            "tool_calls": (),
            "usage": None,
            "status": None,
        }
        run.feed(TextDelta(delta="a"))
        assert run[Accumulate].text == "a"


def test_runs_share_nothing() -> None:
    """Many at once, in threads and nested: each has its own text."""
    flow = Dispatcher(Accumulate())
    runs: list[tuple[int, Run]] = []

    def one(number: int) -> None:
        runs.append((number, flow.run([TextDelta(delta=f"{number}.{n} ") for n in range(300)], check=False)))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 20
    for number, run in runs:
        assert run[Accumulate].text == "".join(f"{number}.{n} " for n in range(300))


def test_repr_is_short_when_much_was_received() -> None:
    """A log line of a plugin is no place for a response."""
    run = ran([TextDelta(delta="x" * 100)] * 100)
    assert repr(run[Accumulate]) == "Accumulate()"
    assert repr(Accumulate(print)) == "Accumulate(on_change=<built-in function print>)"


@pytest.mark.usefixtures("untraced")
def test_memory_is_that_of_the_text_once() -> None:
    """20,000 deltas of ten characters cost the memory of their text, not that of the events."""

    def source() -> Iterator[bytes]:
        block = (
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"0123456789"}\n\n'
        )
        for _ in range(200):
            yield block * 100

    flow = Dispatcher(Accumulate(), snapshot=False)
    flow.run([TextDelta(delta="a")], check=False)  # whatever is made once
    tracemalloc.start()
    try:
        run = flow.run(source(), check=False)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(run[Accumulate].text) == 200_000
    assert kept < 300_000
    assert peak < 400_000


def test_large_images_are_not_kept() -> None:
    """Previews are no part of the response; 256 of them may be gigabytes."""
    previews = [ImageGenerationCallPartialImage(partial_image_b64="a") for _ in range(200)]
    assert ran(previews)[Accumulate]._pending == []
