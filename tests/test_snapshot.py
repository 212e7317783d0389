"""The fold: well-formed streams, and every way in which servers are not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import events as ef
from eventflow.events import (
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputRefusal,
    OutputText,
    Reasoning,
    ReasoningText,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    StreamError,
    SummaryText,
    TextDelta,
    TextDone,
    Untyped,
    decode,
)
from eventflow.limits import weight
from eventflow.snapshot import Oddity, Snapshot
from eventflow.sse import decode as frames_of
from tests.strategies import Told, batches, streams, wire_events

FIXTURES = Path(__file__).parent / "fixtures"
CREATED = ResponseCreated(Response(id="resp_1", status="in_progress", model="m"))
ENDS = (OutputItemDone, ef.ContentPartDone, ef.ReasoningSummaryPartDone)
DONES = (
    ef.TextDone,
    ef.RefusalDone,
    ef.ReasoningTextDone,
    ef.ReasoningSummaryTextDone,
    ef.FunctionCallArgumentsDone,
    ef.CustomToolCallInputDone,
    ef.McpCallArgumentsDone,
    ef.CodeInterpreterCallCodeDone,
)


def fold(*events: Event) -> Snapshot:
    """Fold events, all at once."""
    snapshot = Snapshot()
    snapshot.add(events)
    return snapshot


def kinds(snapshot: Snapshot) -> list[str]:
    """What was odd."""
    return [oddity.kind for oddity in snapshot.oddities]


def seen(snapshot: Snapshot) -> tuple[object, ...]:
    """All that a snapshot shows."""
    sizes = snapshot.text_size, snapshot.arguments_size, snapshot.other_size
    return snapshot.response, snapshot.text, snapshot.oddities, sizes


def words(response: Response) -> tuple[object, ...]:
    """All that a response says."""
    code = [item.code or "" for item in response.output if isinstance(item, ef.CodeInterpreterCall)]
    return (
        response.output_text,
        response.refusal,
        response.reasoning_text,
        response.reasoning_summary,
        [(type(call), call.arguments) for call in response.tool_calls],
        code,
    )


def opened(index: int | None = 0, item_id: str | None = "msg_1") -> OutputItemAdded:
    """Open a message."""
    return OutputItemAdded(Message(id=item_id, role="assistant", status="in_progress"), output_index=index)


def closed(*texts: str, index: int | None = 0, item_id: str | None = "msg_1") -> OutputItemDone:
    """Close a message."""
    content = tuple(map(OutputText, texts))
    return OutputItemDone(Message(content, id=item_id, role="assistant", status="completed"), output_index=index)


def call(arguments: str = "", status: str = "in_progress", index: int = 0) -> FunctionCall:
    """Make a function call."""
    return FunctionCall("f", arguments, f"call_{index}", f"fc_{index}", status)


# --- well-formed streams ---------------------------------------------------------------------------------------------


@given(streams())
def test_fold_when_a_stream_is_well_formed(told: Told) -> None:
    """The fold is the terminal response; before the terminal event its output is there already, and nothing is odd."""
    whole = fold(*told.events)
    assert whole.response == told.response
    assert whole.text == told.response.output_text
    before = fold(*told.events[:-1])
    assert before.response.output == told.response.output
    assert before.response.status == "in_progress"
    assert whole.oddities == before.oddities == []


@given(streams())
def test_fold_when_the_terminal_event_has_no_output(told: Told) -> None:
    """The items that came before it stay (the Codex backend sends null)."""
    terminal = told.events[-1].replace(response=told.response.replace(output=()))
    assert fold(*told.events[:-1], terminal).response == told.response


@given(streams(), st.sampled_from([(ENDS,), (ENDS, DONES), (ENDS, (*DONES, OutputItemAdded))]))
def test_fold_when_texts_are_repeated_less_often(told: Told, left_out: tuple[Any, ...]) -> None:
    """Deltas alone say the same as deltas, texts, parts and items."""
    some = [event for event in told.events[:-1] if not any(isinstance(event, classes) for classes in left_out)]
    said = words(fold(*some).response)
    if OutputItemAdded not in left_out[-1]:
        assert said == words(told.response)
    else:  # of items that were never opened, calls are guessed
        assert said[:4] == words(told.response)[:4]


@given(streams())
def test_fold_when_there_are_no_deltas(told: Told) -> None:
    """The ``done`` events alone say the same (LM Studio)."""
    some = [event for event in told.events[:-1] if not event.type.endswith(".delta") and not isinstance(event, ENDS)]
    snapshot = fold(*some)
    assert words(snapshot.response) == words(told.response)
    assert snapshot.oddities == []


@given(st.data())
def test_add_when_events_come_in_batches(data: st.DataObject) -> None:
    """Any batches give the same, all the way."""
    events = data.draw(streams().map(lambda told: list(told.events)) | st.lists(wire_events(), max_size=30))
    snapshot = Snapshot()
    count = 0
    for batch in data.draw(batches(events)):
        snapshot.add(batch)
        count += len(batch)
        assert seen(snapshot) == seen(fold(*events[:count]))
    assert seen(snapshot) == seen(fold(*events))


@given(st.lists(wire_events(), max_size=30))
def test_fold_when_events_are_any(events: list[Event]) -> None:
    """No sequence of events is refused, and text and response agree."""
    snapshot = fold(*events)
    assert snapshot.text == snapshot.response.output_text
    snapshot.close()
    snapshot.response.to_json()


@given(streams())
def test_sizes_when_a_stream_is_well_formed(told: Told) -> None:
    """They are those of the texts, with and without the items that repeat them."""
    deltas = [event for event in told.events[:-1] if not isinstance(event, (*ENDS, *DONES))]
    for events in (told.events, told.events[:-1], deltas):
        snapshot = fold(*events)
        text, refusal, _, _, calls, code = words(told.response)
        reasoning = [
            part.text
            for item in told.response.output
            if isinstance(item, Reasoning)
            for part in item.content + item.summary
            if not isinstance(part, OutputRefusal | Untyped)
        ]
        assert snapshot.text_size == len(text) + len(refusal) + sum(map(len, reasoning))  # type: ignore[arg-type]
        assert snapshot.arguments_size == sum(len(arguments) for _, arguments in calls) + sum(map(len, code))  # type: ignore[attr-defined,arg-type]


# --- which item an event belongs to ----------------------------------------------------------------------------------


def renamed(change: Callable[[str | None, int | None, int], dict[str, Any]], events: Iterable[Any]) -> list[Any]:
    """Events with other ids and indexes; *change* is given both, and the event's place."""
    told = []
    for place, event in enumerate(events):
        if isinstance(event, OutputItemAdded | OutputItemDone):
            new = change(event.item.id, event.output_index, place)
            event = event.replace(output_index=new["output_index"], item=event.item.replace(id=new["item_id"]))
        elif "output_index" in event.__struct_fields__:
            new = change(getattr(event, "item_id", None), event.output_index, place)
            event = event.replace(**{name: value for name, value in new.items() if name in event.__struct_fields__})
        told.append(event)
    return told


FOLDED = ("message", "reasoning", "function", "custom", "mcp", "code")


@given(streams(FOLDED))
def test_fold_when_ids_change_with_every_event(told: Told) -> None:
    """Items are told apart by their index (GitHub Copilot)."""
    events = renamed(lambda _, index, place: {"item_id": f"x{place}", "output_index": index}, told.events[:-1])
    for some in (events, [event for event in events if not isinstance(event, (*ENDS, *DONES))]):
        snapshot = fold(*some)
        assert words(snapshot.response) == words(told.response)
        assert snapshot.oddities == []


@given(streams(FOLDED))
def test_fold_when_there_is_no_output_index(told: Told) -> None:
    """Items are told apart by their id (llama.cpp)."""
    events = renamed(lambda item_id, _, __: {"item_id": item_id, "output_index": None}, told.events[:-1])
    for some in (events, [event for event in events if not isinstance(event, (*ENDS, *DONES))]):
        snapshot = fold(*some)
        by_id = {item.id: item for item in snapshot.response.output}
        ordered = tuple(by_id[item.id] for item in told.response.output)
        assert words(Response(output=ordered)) == words(told.response)
        assert snapshot.oddities == []


@given(streams(FOLDED, interleaved=False))
def test_fold_when_there_are_neither_ids_nor_indexes(told: Told) -> None:
    """One item after the other, an event belongs to the one that is open."""
    events = renamed(lambda *_: {"item_id": None, "output_index": None}, told.events[:-1])
    indexes = ("content_index", "summary_index")
    events = [event.replace(**{name: None for name in indexes if name in event.__struct_fields__}) for event in events]
    snapshot = fold(*events)
    assert words(snapshot.response) == words(told.response)
    assert snapshot.oddities == []
    without_texts = [event for event in events if not isinstance(event, DONES)]
    assert words(fold(*without_texts).response) == words(told.response)


@pytest.mark.parametrize("name", ["responses-text", "responses-tool", "responses-reasoning"])
def test_fold_when_a_stream_was_recorded(name: str) -> None:
    """Of a real server's stream, the terminal response says what the events before it said."""
    frames = list(frames_of([(FIXTURES / f"{name}.sse").read_bytes()]))
    events = [decode(frame.data, frame.event) for frame in frames if frame.data != "[DONE]"]
    terminal = events[-1]
    assert isinstance(terminal, ResponseCompleted)
    whole, before = fold(*events), fold(*events[:-1])
    assert whole.response == terminal.response
    assert words(before.response) == words(whole.response)
    assert any(words(whole.response)[:5])
    assert whole.oddities == []


def test_fold_when_a_delta_is_for_an_item_that_was_never_opened() -> None:
    """It is kept as an item of its own, and joins no other's text."""
    snapshot = fold(CREATED, opened(), TextDelta("a", "msg_1", 0, 0), TextDelta("stray", "msg_9", 7, 0))
    snapshot.add([TextDelta("b", "msg_1", 0, 0), TextDelta("!", "msg_9", 7, 0)])
    assert [item.content for item in snapshot.response.output] == [(OutputText("ab"),), (OutputText("stray!"),)]  # type: ignore[union-attr]
    assert snapshot.oddities == [
        Oddity("orphan", "response.output_text.delta is for item msg_9, which was never opened; it is kept as its own")
    ]
    assert str(snapshot.oddities[0]).startswith("orphan: response.output_text.delta")


@pytest.mark.parametrize(
    ("event", "item"),
    [
        (TextDelta("a", "x"), Message((OutputText("a"),), "x")),
        (ef.RefusalDelta("a", "x"), Message((OutputRefusal("a"),), "x")),
        (ef.ReasoningTextDelta("a", "x"), Reasoning((), (ReasoningText("a"),), "x")),
        (ef.ReasoningSummaryTextDelta("a", "x"), Reasoning((SummaryText("a"),), (), "x")),
        (FunctionCallArgumentsDelta("a", "x"), FunctionCall("", "a", None, "x")),
        (FunctionCallArgumentsDelta("", "x"), Message((), "x")),
        (ef.ContentPartAdded(SummaryText("a"), "x"), Reasoning((SummaryText("a"),), (), "x")),
    ],
)
def test_fold_when_nothing_was_opened(event: Event, item: Any) -> None:
    """An item of the kind that fits is made for the event."""
    snapshot = fold(event)
    assert snapshot.response == Response(output=(item,))
    assert kinds(snapshot) == ["orphan"]
    assert snapshot.arguments("x") == getattr(item, "arguments", None)


def test_fold_when_an_item_is_opened_after_its_deltas() -> None:
    """It takes what came for its place."""
    early = [TextDelta("a", "msg_1", 0, 0), opened(item_id="msg_2"), TextDelta("b", "msg_2", 0, 0)]
    snapshot = fold(*early)
    assert snapshot.response.output == (Message((OutputText("ab"),), "msg_2", role="assistant", status="in_progress"),)
    assert fold(*early, closed("ab", item_id="msg_2")).response.output == (closed("ab", item_id="msg_2").item,)
    assert fold(TextDelta("a", None, 0, 0), opened(0, None), TextDelta("b", None, 0, 0)).text == "ab"


def test_fold_when_an_item_is_opened_twice() -> None:
    """By its id it is one item; at the same index with another id it is a second one."""
    twice = fold(opened(), TextDelta("a", "msg_1", 0, 0), opened(), TextDelta("b", "msg_1", 0, 0))
    assert [item.id for item in twice.response.output] == ["msg_1"]
    assert twice.text == "ab"
    two = fold(opened(), TextDelta("a", "msg_1", 0, 0), opened(item_id="msg_2"), TextDelta("b", "msg_2", 0, 0))
    assert [item.id for item in two.response.output] == ["msg_1", "msg_2"]
    assert two.text == "ab"
    nameless = fold(opened(0, None), TextDelta("a", None, 0, 0))
    assert nameless.text == "a"


def test_fold_when_a_closed_item_goes_on() -> None:
    """What comes late for an item that was closed with its text changes nothing; one without takes it."""
    late = (TextDelta("x", "msg_1", 0, 0), TextDone("xyz", "msg_1", 0, 0))
    assert fold(opened(), closed("abc"), *late).text == "abc"
    assert fold(opened(), closed(), *late).text == "xyz"
    assert fold(opened(None, None), closed("abc", index=None, item_id=None), TextDelta("x")).text == "abcx"
    done = OutputItemDone(call("{}", "completed"), output_index=0)
    assert fold(done, FunctionCallArgumentsDelta("x", "fc_0")).response.output == (done.item,)


def test_fold_when_indexes_are_missing_for_some() -> None:
    """Items with an index come in its order, the others after them."""
    snapshot = fold(opened(None, "c"), opened(1, "b"), opened(0, "a"), opened(None, "d"))
    assert [item.id for item in snapshot.response.output] == ["a", "b", "c", "d"]


def test_fold_when_several_items_are_open_and_nothing_names_them() -> None:
    """The last one opened is meant; when it is closed, the one before it."""
    two = (opened(None, None), opened(None, None), TextDelta("b"), closed("b", index=None, item_id=None))
    snapshot = fold(*two, TextDelta("a"), closed("a", index=None, item_id=None))
    assert [item.content for item in snapshot.response.output] == [(OutputText("a"),), (OutputText("b"),)]  # type: ignore[union-attr]


def test_fold_when_deltas_of_parts_take_turns() -> None:
    """Each goes to its own part."""
    turns = [TextDelta(text, "msg_1", 0, place) for text, place in (("a", 0), ("x", 1), ("b", 0), ("y", 1), ("z", 1))]
    assert fold(opened(), *turns).response.output[0].content == (OutputText("ab"), OutputText("xyz"))  # type: ignore[union-attr]


def test_fold_when_items_come_whole() -> None:
    """An item that was never opened is taken as closed, and is nothing odd."""
    snapshot = fold(closed("a"), closed("b", index=None, item_id=None), OutputItemDone(call("{}", "completed")))
    assert snapshot.text == "ab"
    assert snapshot.response.tool_calls == (call("{}", "completed"),)
    assert (snapshot.text_size, snapshot.arguments_size) == (2, 2)
    assert snapshot.oddities == []
    again = fold(opened(), TextDelta("a", "msg_1", 0, 0), closed("a"), closed("a"))
    assert (len(again.response.output), again.text_size) == (1, 1)


def test_fold_when_a_stream_is_resumed_in_its_middle() -> None:
    """What began before is odd once; that the ``done`` text has more than the deltas is not."""
    rest = [TextDelta("lo", "msg_1", 1, 0), TextDelta("!", "msg_1", 1, 0)]
    snapshot = fold(*rest)
    assert snapshot.text == "lo!"
    snapshot.add([TextDone("Hello!", "msg_1", 1, 0), closed("Hello!", index=1)])
    assert snapshot.text == "Hello!"
    final = Response(id="r", status="completed", output=(Reasoning(), closed("Hello!").item))
    snapshot.add([ResponseCompleted(final)])
    assert snapshot.response == final
    assert kinds(snapshot) == ["orphan"]
    assert kinds(fold(*rest, ResponseCompleted(final))) == ["orphan"]
    assert kinds(fold(*rest, TextDone("Hello?", "msg_1", 1, 0))) == ["orphan", "mismatch"]


# --- deltas and what repeats them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whole", "what"),
    [
        (TextDone("xyz", "msg_1", 0, 0, sequence_number=4), "the text of response.output_text.done (number 4)"),
        (ef.ContentPartDone(OutputText("xyz"), "msg_1", 0, 0), "the text of response.content_part.done"),
        (closed("xyz"), "the text of response.output_item.done"),
        (ResponseCompleted(Response(output=(closed("xyz").item,))), "the text of response.completed"),
    ],
)
def test_fold_when_deltas_and_done_differ(whole: Event, what: str) -> None:
    """What is done wins, with a warning; whether lengths differ or not."""
    for deltas in (("a", "bc"), ("abcd",)):
        snapshot = fold(CREATED, opened(), *(TextDelta(delta, "msg_1", 0, 0) for delta in deltas), whole)
        assert snapshot.text == "xyz"
        assert snapshot.oddities == [Oddity("mismatch", f"{what} differs from what came before; its own is kept")]


@pytest.mark.parametrize(
    ("delta", "done", "item"),
    [
        (ef.RefusalDelta("a", "x"), ef.RefusalDone("b", "x"), Message((OutputRefusal("b"),), "x")),
        (ef.ReasoningTextDelta("a", "x"), ef.ReasoningTextDone("b", "x"), Reasoning((), (ReasoningText("b"),), "x")),
        (
            ef.ReasoningSummaryTextDelta("a", "x"),
            ef.ReasoningSummaryTextDone("b", "x"),
            Reasoning((SummaryText("b"),), (), "x"),
        ),
        (FunctionCallArgumentsDelta("a", "x"), FunctionCallArgumentsDone("b", "x"), FunctionCall("", "b", None, "x")),
        (
            ef.CustomToolCallInputDelta("a", "x"),
            ef.CustomToolCallInputDone("b", "x"),
            ef.CustomToolCall("", "b", None, "x"),
        ),
        (ef.McpCallArgumentsDelta("a", "x"), ef.McpCallArgumentsDone("b", "x"), ef.McpCall("", "b", "x")),
        (
            ef.CodeInterpreterCallCodeDelta("a", "x"),
            ef.CodeInterpreterCallCodeDone("b", "x"),
            ef.CodeInterpreterCall("b", "x"),
        ),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_fold_when_any_text_differs_from_its_deltas(delta: Any, done: Any, item: Any) -> None:
    """It is the same for every kind of text, in the ``done`` event as in the item."""
    empty = type(item)(id="x")
    for whole in (done, OutputItemDone(item)):
        snapshot = fold(OutputItemAdded(empty), delta, whole)
        assert snapshot.response.output == (item,)
        assert kinds(snapshot) == ["mismatch"]


def test_fold_when_done_is_empty() -> None:
    """What leaves the text out does not take away what the deltas brought."""
    deltas = (opened(), TextDelta("abc", "msg_1", 0, 0))
    empty = (TextDone("", "msg_1", 0, 0), ef.ContentPartDone(OutputText(), "msg_1", 0, 0), closed(), closed(""))
    for some in (empty[:1], empty[:2], empty[:3], (*empty[:2], empty[3])):
        snapshot = fold(*deltas, *some)
        assert snapshot.text == "abc"
        assert snapshot.oddities == []
        assert snapshot.text_size == 3
    arguments = (OutputItemAdded(call()), FunctionCallArgumentsDelta("{}", "fc_0"))
    bare = OutputItemDone(call(status="completed"))
    snapshot = fold(*arguments, FunctionCallArgumentsDone("", "fc_0"), bare)
    assert snapshot.response.output == (call("{}", "completed"),)
    assert snapshot.arguments_size == 2


def test_fold_when_reasoning_is_closed_in_part() -> None:
    """Of a closed item, what it leaves out stays as its deltas brought it."""
    told = (
        OutputItemAdded(Reasoning(id="rs")),
        ef.ReasoningTextDelta("at length", "rs", content_index=0),
        ef.ReasoningSummaryTextDelta("in short", "rs", summary_index=0),
    )
    snapshot = fold(*told, OutputItemDone(Reasoning((SummaryText("in short"),), (), "rs", "gAAA")))
    assert snapshot.response.output == (
        Reasoning((SummaryText("in short"),), (ReasoningText("at length"),), "rs", "gAAA"),
    )


def test_fold_when_parts_begin_with_text() -> None:
    """It is the first piece."""
    snapshot = fold(opened(), ef.ContentPartAdded(OutputText("a"), "msg_1", 0, 0), TextDelta("b", "msg_1", 0, 0))
    assert (snapshot.text, snapshot.text_size) == ("ab", 2)
    late = ef.ContentPartAdded(OutputText("x"), "msg_1", 0, 0)
    assert fold(opened(), TextDelta("b", "msg_1", 0, 0), late).text == "b"


def test_fold_when_items_begin_with_text() -> None:
    """It stands until deltas come."""
    item = Message((OutputText("a"),), "msg_1")
    assert fold(OutputItemAdded(item)).text == "a"
    assert fold(OutputItemAdded(item), TextDelta("ab", "msg_1")).text == "ab"
    begun = OutputItemAdded(call("{"))
    assert fold(begun).arguments("call_0") == "{"
    assert fold(begun, FunctionCallArgumentsDelta("{}", "fc_0")).arguments("call_0") == "{}"


def test_fold_when_kinds_share_an_index() -> None:
    """Text and refusal do not mix; an empty part gives way to what the deltas say it is."""
    both = fold(opened(), TextDelta("a", "msg_1", 0, 0), ef.RefusalDelta("b", "msg_1", 0, 0))
    assert both.response.output[0].content == (OutputRefusal("b"), OutputText("a"))  # type: ignore[union-attr]
    turned = fold(opened(), ef.ContentPartAdded(OutputText(), "msg_1", 0, 0), ef.RefusalDelta("b", "msg_1", 0, 0))
    assert turned.response.output[0].content == (OutputRefusal("b"),)  # type: ignore[union-attr]


def test_fold_when_parts_are_of_another_type() -> None:
    """They stay as they came, unless text comes for them."""
    part = Untyped({"type": "output_audio", "data": "UklG"})
    added = (opened(), ef.ContentPartAdded(part, "msg_1", 0, 0))
    assert fold(*added).response.output[0].content == (part,)  # type: ignore[union-attr]
    assert fold(*added, ef.ContentPartDone(part, "msg_1", 0, 0)).response.output[0].content == (part,)  # type: ignore[union-attr]
    assert fold(*added, TextDelta("a", "msg_1", 0, 0)).text == "a"


def test_fold_when_items_are_of_another_type() -> None:
    """They stay as they came, whatever is said about them."""
    item = Untyped({"type": "computer_call", "id": "cu_1", "status": "in_progress"})
    snapshot = fold(OutputItemAdded(item), FunctionCallArgumentsDelta("x", "cu_1"), TextDelta("x", "cu_1"))
    snapshot.add([StreamError("gone")])
    assert snapshot.response.output == (item,)
    assert snapshot.arguments("cu_1") is None
    done = Untyped({"type": "computer_call", "id": "cu_1", "status": "completed"})
    assert fold(OutputItemAdded(item), OutputItemDone(done)).response.output == (done,)


def test_fold_when_citations_are_added() -> None:
    """They are part of the text until its part says so itself; null is none."""
    citation, other = ef.URLCitation(url="https://a.example"), ef.FileCitation(file_id="f")
    added = ef.TextAnnotationAdded(citation, 0, "msg_1", 0, 0), ef.TextAnnotationAdded(None, 1, "msg_1", 0, 0)
    told = (opened(), TextDelta("a", "msg_1", 0, 0), *added)
    assert fold(*told).response.output[0].content == (OutputText("a", (citation,)),)  # type: ignore[union-attr]
    part = ef.ContentPartDone(OutputText("a", (other,), (ef.Logprob("a", -1.0),)), "msg_1", 0, 0)
    assert fold(*told, part).response.output[0].content == (part.part,)  # type: ignore[union-attr]


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (ResponseCreated(Response()), "in_progress"),
        (ef.ResponseQueued(Response()), "queued"),
        (ef.ResponseInProgress(Response()), "in_progress"),
        (ResponseCompleted(Response()), "completed"),
        (ResponseIncomplete(Response()), "incomplete"),
        (ResponseFailed(Response()), "failed"),
        (ResponseCompleted(Response(status="cancelled")), "cancelled"),
    ],
)
def test_status_when_the_response_does_not_say(event: Event, status: str) -> None:
    """It is that of the event."""
    assert fold(event).response.status == status


def test_fold_when_the_terminal_response_is_empty() -> None:
    """It is still known whose it is, and what came before."""
    snapshot = fold(CREATED, closed("a"), ResponseCompleted(Response()))
    assert snapshot.response == Response(id="resp_1", status="completed", model="m", output=(closed("a").item,))


def test_fold_when_the_terminal_output_differs() -> None:
    """It wins: it is the whole response."""
    final = Response(id="resp_1", status="completed", output=(closed("b").item,))
    snapshot = fold(CREATED, closed("a"), ResponseCompleted(final))
    assert snapshot.response == final
    assert kinds(snapshot) == ["mismatch"]
    assert fold(CREATED, ResponseCompleted(final)).oddities == []


def test_fold_when_the_terminal_output_says_nothing() -> None:
    """What its items leave empty stays as it was received; what was empty before stays empty."""
    call = FunctionCall(name="look", arguments="{}", call_id="call_1", id="fc_1", status="completed")
    bare = FunctionCall(name="ping", arguments="", call_id="call_2", id="fc_2", status="completed")
    received = [closed("a"), OutputItemDone(call, output_index=1), OutputItemDone(bare, output_index=2)]
    said = received[0].item
    final = (said.replace(content=()), call.replace(arguments=""), bare, Message(), Reasoning(id="fc_1"))
    snapshot = fold(CREATED, *received, ResponseCompleted(Response(output=final)))
    assert snapshot.response.output == (said, call, bare, Message(), Reasoning(id="fc_1"))
    assert snapshot.oddities == []


@given(streams(), st.lists(wire_events(), max_size=5))
def test_add_when_the_response_has_ended(told: Told, late: list[Event]) -> None:
    """Nothing changes any more: not by events, not by closing."""
    snapshot = fold(*told.events)
    before = seen(snapshot)
    snapshot.add(late)
    assert seen(snapshot) == before == seen(fold(*told.events, *late))
    snapshot.close()
    assert seen(snapshot) == before


def test_fold_when_the_stream_reports_an_error() -> None:
    """The response so far has failed, and what was open is incomplete; a terminal event says more."""
    told = (CREATED, closed("a"), OutputItemAdded(call(index=1), output_index=1), StreamError("gone", "server_error"))
    snapshot = fold(*told, StreamError("later"))
    assert snapshot.response.status == "failed"
    assert snapshot.response.error == ef.ResponseFault("server_error", "gone")
    assert [item.status for item in snapshot.response.output] == ["completed", "incomplete"]
    final = Response(id="resp_1", status="failed", error=ef.ResponseFault("x", "more"))
    ended = fold(*told, ResponseFailed(final)).response
    assert (ended.status, ended.error) == ("failed", final.error)
    assert [item.status for item in ended.output] == ["completed", "incomplete"]


def test_fold_when_a_response_ends_early() -> None:
    """What was not closed is incomplete; what an item itself says stays."""
    searched = OutputItemAdded(ef.WebSearchCall("ws_1", "failed"), output_index=1)
    told = (CREATED, OutputItemAdded(call(), output_index=0), FunctionCallArgumentsDelta("{", "fc_0"), searched)
    details = ef.IncompleteDetails("max_output_tokens")
    ended = fold(*told, ResponseIncomplete(Response(id="resp_1", incomplete_details=details))).response
    assert ended.status == "incomplete"
    assert ended.tool_calls == (call("{", "incomplete"),)
    assert ended.output[1].status == "failed"
    whole = fold(*told, ResponseCompleted(Response(id="resp_1"))).response
    assert whole.tool_calls == (call("{"),)


def test_close_when_the_stream_is_cut() -> None:
    """The response, and the call that was being written, are incomplete."""
    snapshot = fold(CREATED, closed("a"), OutputItemAdded(call(index=1), output_index=1))
    assert snapshot.response.status == "in_progress"
    snapshot.close()
    assert snapshot.response.status == "incomplete"
    assert [item.status for item in snapshot.response.output] == ["completed", "incomplete"]
    snapshot.add([closed("b", item_id="msg_2", index=3)])
    assert snapshot.text == "a"


def test_close_when_nothing_has_come() -> None:
    """Nothing is not incomplete."""
    snapshot = Snapshot()
    snapshot.close()
    assert snapshot.response == Response()
    failed = fold(CREATED, StreamError("gone"))
    failed.close()
    assert failed.response.status == "failed"
    silent = fold(CREATED, OutputItemDone(Message((), "msg_1"), output_index=0))
    silent.close()
    assert silent.response.output[0].status is None
    cancelled = fold(ef.ResponseInProgress(Response(id="r", status="cancelled")))
    cancelled.close()
    assert cancelled.response.status == "cancelled"


# --- reading ---------------------------------------------------------------------------------------------------------


def test_response_when_nothing_was_added() -> None:
    """It is the same object."""
    snapshot = fold(CREATED, opened())
    assert snapshot.response is snapshot.response
    first = snapshot.response
    snapshot.add([TextDelta("a", "msg_1", 0, 0)])
    assert snapshot.response is not first
    assert first.output_text == ""


def test_arguments_when_a_call_is_under_way() -> None:
    """They are found by the call's id and the item's, while they come and afterwards."""
    calls = [OutputItemAdded(call(index=index), output_index=index) for index in range(2)]
    snapshot = fold(CREATED, *calls, FunctionCallArgumentsDelta('{"a', "fc_1", 1))
    assert snapshot.arguments("call_1") == snapshot.arguments("fc_1") == '{"a'
    assert snapshot.arguments("call_0") == ""
    assert snapshot.arguments("call_2") is None
    snapshot.add([FunctionCallArgumentsDone("{}", "fc_1", 1)])
    assert snapshot.arguments("call_1") == "{}"
    snapshot.add([OutputItemDone(call("{}", "completed", 1), output_index=1)])
    assert snapshot.arguments("call_1") == "{}"
    message, mcp = closed("a").item, ef.McpCall("g", "[]", "mcp_1")
    snapshot.add([ResponseCompleted(Response(output=(message, call("{}", "completed", 1), mcp)))])
    assert snapshot.arguments("call_1") == snapshot.arguments("fc_1") == "{}"
    assert snapshot.arguments("mcp_1") == "[]"
    assert snapshot.arguments("msg_1") is None
    assert snapshot.arguments("call_0") is None


def test_note_when_there_is_too_much() -> None:
    """A hundred are kept, and one that says that there were more."""
    snapshot = fold(*(TextDelta("a", f"x{number}") for number in range(300)))
    assert len(snapshot.oddities) == 101
    assert kinds(snapshot)[-2:] == ["orphan", "many"]


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untraced")
def test_memory_when_there_are_many_deltas() -> None:
    """Twenty thousand deltas cost their text once, and nothing is left of them when the text is whole."""
    count, piece = 20_000, "four"
    snapshot = Snapshot()
    tracemalloc.start()
    try:
        for _ in range(count // 200):
            snapshot.add([TextDelta(piece[:2] + piece[2:], "msg_1", 0, 0) for _ in range(200)])
        growing, _ = tracemalloc.get_traced_memory()
        whole = piece * count
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        snapshot.add([TextDone(whole, "msg_1", 0, 0)])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert growing < 1.3 * count * len(piece)
    assert after - before < -0.9 * count * len(piece)
    assert snapshot.text == whole


def test_parts_when_they_do_not_come_in_order() -> None:
    """Each is at its index; what tells none is of the last by number, not by time."""
    snapshot = Snapshot()
    snapshot.add([TextDelta("b", "msg_1", 0, 1), TextDelta("a", "msg_1", 0, 0), TextDelta("c", "msg_1", 0)])
    (item,) = snapshot.response.output
    assert isinstance(item, Message)
    assert item.content == (OutputText("a"), OutputText("bc"))


@pytest.mark.usefixtures("untraced")
def test_memory_when_deltas_come_one_by_one() -> None:
    """Pieces are joined as they come: a string for every token would cost many times the text."""
    snapshot = Snapshot()
    tracemalloc.start()
    try:
        for number in range(20_000):
            snapshot.add([FunctionCallArgumentsDelta(f"{number:06}", "fc_0", 0)])
        growing, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert growing < 1.3 * 6 * 20_000
    assert snapshot.arguments_size == 120_000


def test_sizes_when_more_than_text_is_kept() -> None:
    """All that is kept counts: ids, items as opened, what is encrypted, annotations; a closed item is what it is."""
    snapshot = fold(ef.OutputItemAdded(Reasoning(id="rs"), output_index=0))
    opened = snapshot.other_size
    assert opened == len("rs") + weight(Reasoning(id="rs"))
    whole = Reasoning(id="rs", encrypted_content="x" * 50)
    for _ in range(2):  # the second takes the place of the first
        snapshot.add([ef.OutputItemDone(whole, output_index=0)])
        assert snapshot.other_size == opened + 50
    note: dict[str, Any] = {"type": "note", "n": "y" * 20}
    snapshot.add([TextDelta("a", item_id="m", output_index=1)])
    before = snapshot.other_size
    snapshot.add([ef.TextAnnotationAdded(annotation=Untyped(note), item_id="m", output_index=1)])
    assert snapshot.other_size == before + weight(note)
    before = snapshot.other_size
    snapshot.add([ef.OutputItemDone(Untyped({"type": "new", "data": "z" * 30}), output_index=2)])
    assert snapshot.other_size == before + weight({"type": "new", "data": "z" * 30})
    assert (snapshot.text_size, snapshot.arguments_size) == (1, 0)


def test_oddities_when_what_they_quote_is_long() -> None:
    """They are cut: a hundred of them are kept."""
    (oddity,) = fold(TextDelta("a", item_id="x" * 100_000)).oddities
    assert len(oddity.message) < 1100
