"""The assembler: pieces in, the events of a whole response out, always in their order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow.events import (
    AudioDelta,
    CodeInterpreterCall,
    ContentPartAdded,
    ContentPartDone,
    CustomToolCall,
    CustomToolCallInputDelta,
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    McpCall,
    McpCallArgumentsDone,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputText,
    Reasoning,
    ReasoningSummaryPartAdded,
    ReasoningSummaryTextDelta,
    ReasoningTextDelta,
    RefusalDelta,
    ResponseCompleted,
    ResponseFailed,
    ResponseFault,
    ResponseIncomplete,
    StreamError,
    TextAnnotationAdded,
    TextDelta,
    TextDone,
    Untyped,
    URLCitation,
    Usage,
)
from eventflow.limits import Limits
from eventflow.snapshot import Snapshot
from eventflow.testing import check_order
from eventflow.wires.assembly import Assembler


def begun() -> Assembler:
    """Make an assembler whose response has begun, and take that event."""
    assembler = Assembler(Limits())
    assembler.begin(response_id="resp", model="model", created_at=5.0)
    (created,) = assembler.take()
    assert created.response.to_dict() == {  # type: ignore[attr-defined]
        "id": "resp",
        "status": "in_progress",
        "model": "model",
        "object": "response",
        "created_at": 5.0,
    }
    return assembler


def types(events: list[Event]) -> list[str]:
    """The wire names of events, without what they share."""
    return [event.type.removeprefix("response.") for event in events]


def test_pieces_when_they_are_of_one_text_make_one_part() -> None:
    """The item and the part are opened before the first, and closed with all of it at the end."""
    assembler = begun()
    for piece in ("a", "", "b"):
        assembler.piece("t", TextDelta, piece)
    place = {"item_id": "msg_0_resp", "output_index": 0, "content_index": 0}
    opened = Message(id="msg_0_resp", role="assistant", status="in_progress")
    assert assembler.take() == [
        OutputItemAdded(opened, 0, sequence_number=1),
        ContentPartAdded(OutputText(), sequence_number=2, **place),
        TextDelta("a", sequence_number=3, **place),
        TextDelta("b", sequence_number=4, **place),
    ]
    assembler.end(usage=Usage(input_tokens=1))
    closed = opened.replace(content=(OutputText("ab"),), status="completed")
    *events, end = assembler.take()
    assert events == [
        TextDone("ab", sequence_number=5, **place),
        ContentPartDone(OutputText("ab"), sequence_number=6, **place),
        OutputItemDone(closed, 0, sequence_number=7),
    ]
    assert isinstance(end, ResponseCompleted)
    assert (end.response.output, end.response.usage) == ((closed,), Usage(input_tokens=1))
    assert (end.response.id, end.response.status, end.response.incomplete_details) == ("resp", "completed", None)
    assert assembler.take() == []
    assert assembler.ended


def test_pieces_when_they_are_many_are_joined() -> None:
    """A text of many pieces is all of them, whichever way they came."""
    assembler = begun()
    assembler.piece("t", TextDelta, "0")
    short = [assembler.next_piece("t", TextDelta, str(number % 10)) for number in range(1, 3000)]
    assert all(isinstance(event, TextDelta) for event in short)
    assembler.end()
    done = assembler.take()[-1]
    assert isinstance(done, ResponseCompleted)
    assert done.response.output_text == "".join(str(number % 10) for number in range(3000))


def test_pieces_when_their_kind_changes_open_another_part() -> None:
    """Texts and refusals are parts of one message, texts and summaries of one piece of reasoning."""
    assembler = begun()
    assembler.piece("t", TextDelta, "a")
    assembler.piece("t", RefusalDelta, "b")
    assembler.piece("r", ReasoningTextDelta, "c")
    assembler.piece("r", ReasoningSummaryTextDelta, "d")
    assembler.end_part("r")
    assembler.end_part("r")
    assembler.end_part("nothing")
    assembler.piece("r", ReasoningSummaryTextDelta, "e")
    assembler.close("t")
    assembler.close("t")
    assembler.end("max_output_tokens")
    events = assembler.take()
    indices = [event.summary_index for event in events if isinstance(event, ReasoningSummaryPartAdded)]
    assert indices == [0, 1]
    end = events[-1]
    assert isinstance(end, ResponseIncomplete)
    assert end.response.incomplete_details is not None
    assert end.response.incomplete_details.reason == "max_output_tokens"
    assert [item.to_dict() for item in end.response.output] == [
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
            "id": "msg_0_resp",
            "role": "assistant",
            "status": "completed",
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "d"}, {"type": "summary_text", "text": "e"}],
            "content": [{"type": "reasoning_text", "text": "c"}],
            "id": "rs_1_resp",
            "status": "incomplete",
        },
    ]


def test_piece_when_it_has_more_than_text_is_told_though_empty() -> None:
    """Probabilities of no text are an event."""
    assembler = begun()
    assembler.piece("t", TextDelta, "", logprobs=())
    assert types(assembler.take()) == ["output_item.added", "content_part.added", "output_text.delta"]


def test_citations_when_added_are_counted_and_kept() -> None:
    """They are in the part that is done, and open one where there is none."""
    assembler = begun()
    first, second = URLCitation(url="a"), Untyped({"type": "x"})
    assembler.annotate("t", first)
    assembler.annotate("t", second)
    assembler.end()
    events = assembler.take()
    added = [event for event in events if isinstance(event, TextAnnotationAdded)]
    assert [(event.annotation, event.annotation_index) for event in added] == [(first, 0), (second, 1)]
    (done,) = (event for event in events if isinstance(event, ContentPartDone))
    assert done.part == OutputText("", (first, second))


def test_seal_when_pieces_come_is_all_of_them() -> None:
    """What is encrypted is added up; it opens an item where there is none."""
    assembler = begun()
    assembler.seal("r", "x")
    assembler.piece("r", ReasoningTextDelta, "a")
    assembler.seal("r", "y")
    assembler.close("r")
    done = assembler.take()[-1]
    assert isinstance(done, OutputItemDone)
    assert isinstance(done.item, Reasoning)
    assert done.item.encrypted_content == "xy"


WHOLE = [
    "",
    " ",
    "{}",
    '{"a": [1, "b"]}',
    "7",
    '"a"',
    "1e999",
    r'{"a": "\ud800"}',
    '{"a": "\ud800"}',
    "[" * 5000 + "]" * 5000,
]
WRONG = ["{'a': 1}", '{"a": 1} {', "look!", '{"a": 1,}']


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        *((text, "completed") for text in WHOLE + WRONG),
        *((text, "incomplete") for text in ("{", '{"a', '{"a": ', '{"a": "b', '{"a": 1', '{"a": [1]', "[" * 5000, '"')),
    ],
    ids=lambda value: ascii(value)[:20],
)
@pytest.mark.parametrize("start", [FunctionCall("f", "", "call_1"), McpCall("f", "", "call_1")])
def test_call_when_its_arguments_break_off(start: Any, arguments: str, status: str) -> None:
    """It is not whole, though the provider closes it; what a model wrote wrongly is called, to be told so."""
    assembler = begun()
    assembler.call("c", start)
    assembler.arguments("c", arguments)
    assembler.close("c")
    done = assembler.take()[-1]
    assert isinstance(done, OutputItemDone)
    assert isinstance(done.item, FunctionCall | McpCall)
    assert (done.item.arguments, done.item.status) == (arguments, status)


VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))


@given(VALUES, st.floats(0, 1, exclude_max=True))
def test_call_when_its_arguments_are_cut_anywhere(value: Any, part: float) -> None:
    """An object is whole with its last character, and not before."""
    whole = json.dumps({"value": value})
    for text, status in ((whole, "completed"), (whole[: 1 + int(part * (len(whole) - 1))], "incomplete")):
        assembler = begun()
        assembler.call("c", FunctionCall("f", text, "call_1"))
        assembler.close("c")
        done: Any = assembler.take()[-1]
        assert done.item.status == status


def test_call_when_it_takes_any_text() -> None:
    """A custom tool's input is no JSON, and never breaks off."""
    assembler = begun()
    assembler.call("c", CustomToolCall("f", "{", "call_1"))
    assembler.close("c")
    done: Any = assembler.take()[-1]
    assert done.item.status == "completed"


@pytest.mark.parametrize(
    ("start", "field", "kind"),
    [
        (FunctionCall("f", "{", "call_1"), "arguments", "function_call_arguments"),
        (CustomToolCall("f", "{", "call_1"), "input", "custom_tool_call_input"),
        (McpCall("f", "{", "call_1"), "arguments", "mcp_call_arguments"),
    ],
)
def test_call_when_it_begins_with_arguments(start: Any, field: str, kind: str) -> None:
    """They are its first piece; the item is opened without, and closed with all of them."""
    assembler = begun()
    assembler.call("c", start)
    assembler.arguments("c", "")
    assembler.arguments("c", "}")
    assert assembler.has_arguments("c")
    assembler.amend("c", name="g")
    assert assembler.item_of("c").name == "g"  # type: ignore[union-attr]
    assert assembler.item_of("d") is None
    assembler.close("c")
    events: list[Any] = assembler.take()
    assert types(events) == ["output_item.added", f"{kind}.delta", f"{kind}.delta", f"{kind}.done", "output_item.done"]
    assert getattr(events[0].item, field) == ""
    assert getattr(events[-1].item, field) == "{}"
    assert events[-1].item.name == "g"
    assert events[-1].item.id == ("call_1" if kind.startswith("mcp") else "fc_0_resp")


def test_call_when_it_has_no_arguments_is_done_all_the_same() -> None:
    """Its done event has an empty text."""
    assembler = begun()
    assembler.call("c", McpCall("f"))
    assembler.end()
    (done,) = (event for event in assembler.take() if isinstance(event, McpCallArgumentsDone))
    assert done.arguments == ""


def test_next_piece_when_it_is_of_something_else_is_none() -> None:
    """The short way takes what goes on, and nothing else."""
    assembler = begun()
    assert assembler.next_piece("t", TextDelta, "a") is None
    assembler.piece("t", TextDelta, "a")
    assembler.call("c", FunctionCall("f"))
    assembler.call("d", CustomToolCall("f"))
    assembler.take()
    assert assembler.next_piece("t", ReasoningTextDelta, "a") is None
    assert assembler.next_piece("t", FunctionCallArgumentsDelta, "a") is None
    assert assembler.next_piece("d", FunctionCallArgumentsDelta, "a") is None
    assert assembler.next_piece("c", TextDelta, "a") is None
    event = assembler.next_piece("c", FunctionCallArgumentsDelta, "{}")
    assert event == FunctionCallArgumentsDelta("{}", "fc_1_resp", 1, sequence_number=6)
    assembler.keep({"x": 1})
    assert assembler.next_piece("c", FunctionCallArgumentsDelta, "a") is None
    assert assembler.take() == []
    assembler.end_part("t")
    assert assembler.next_piece("t", TextDelta, "a") is None


def test_kept_when_more_is_said_is_in_the_next_event() -> None:
    """What has no place is told once, with whatever comes next."""
    assembler = begun()
    assembler.keep({})
    assembler.keep({"a": 1})
    assembler.keep({"b": 2})
    assembler.item(Untyped({"type": "x"}))
    assembler.emit(AudioDelta("x"))
    assert [event.extra for event in assembler.take()] == [{"a": 1, "b": 2}, None, None]  # type: ignore[attr-defined]


def test_rename_when_the_beginning_was_not_the_last_word() -> None:
    """The end has what was said last."""
    assembler = begun()
    assembler.rename(model="other")
    assembler.end()
    end = assembler.take()[-1]
    assert isinstance(end, ResponseCompleted)
    assert end.response.model == "other"


def test_failure_when_a_response_is_open_closes_it() -> None:
    """What is open is incomplete; then comes the error, then the end, and no event after that."""
    assembler = begun()
    assembler.piece("t", TextDelta, "a")
    assembler.take()
    assembler.fail(StreamError("no", error_type="overloaded"), usage=Usage(output_tokens=1))
    events = assembler.take()
    assert types(events) == ["output_text.done", "content_part.done", "output_item.done", "error", "failed"]
    end = events[-1]
    assert isinstance(end, ResponseFailed)
    assert end.response.error == ResponseFault("overloaded", "no", "overloaded")
    assert [item.status for item in end.response.output] == ["incomplete"]
    assert end.response.usage == Usage(output_tokens=1)


def test_failure_when_none_is_open_is_the_error_alone() -> None:
    """Before the beginning and after the end there is nothing that could fail."""
    assembler = Assembler(Limits())
    assembler.fail(StreamError("no"))
    assert assembler.take() == [StreamError("no", sequence_number=0)]
    assembler = begun()
    assembler.end()
    assembler.take()
    assembler.fail(StreamError("late"))
    assert types(assembler.take()) == ["error"]


PIECES = (TextDelta, RefusalDelta, ReasoningTextDelta, ReasoningSummaryTextDelta)
CALLS = (FunctionCall("f", "{"), CustomToolCall("f"), McpCall("f"))


@given(st.data())
def test_assembler_when_told_anything_keeps_the_order(data: st.DataObject) -> None:
    """Whatever it hears, of whichever items at once: the order is kept, and the pieces fold to the whole."""
    assembler = Assembler(Limits())
    assembler.begin(response_id=None, model=None)
    open_: dict[int, Any] = {}
    events: list[Event] = []
    for key in data.draw(st.lists(st.integers(0, 3), max_size=30)):
        what = data.draw(st.sampled_from(["go on", "go on", "short", "close", "item", "cite", "end part", "keep"]))
        if what == "keep":
            assembler.keep({"x": key})
        elif what == "item":
            assembler.item(Untyped({"type": "x", "n": key}))
        elif what == "close":
            assembler.close(key, data.draw(st.sampled_from(["completed", "incomplete"])))
            open_.pop(key, None)
        elif what == "end part":
            assembler.end_part(key)
        elif key not in open_:
            start = open_[key] = data.draw(st.sampled_from(PIECES + CALLS))
            if start in PIECES:
                assembler.piece(key, start, "a")
            else:
                assembler.call(key, start)
        elif what == "short":
            kind = open_[key] if open_[key] in PIECES else FunctionCallArgumentsDelta
            piece = assembler.next_piece(key, kind, "b")
            events += [piece] if piece is not None else []
        elif open_[key] not in PIECES:
            assembler.arguments(key, "1")
        elif what == "cite" and open_[key] in (TextDelta, RefusalDelta):
            assembler.annotate(key, Untyped({"type": "x"}))
        else:
            assembler.piece(key, open_[key], "b")
        events += assembler.take()
    how = data.draw(st.sampled_from(["end", "cut", "fail", "go on"]))
    if how == "fail":
        assembler.fail(StreamError("no"))
    elif how != "go on":
        assembler.end("other" if how == "cut" else None)
    events += assembler.take()
    check_order(events)
    snapshot, pieces = Snapshot(), Snapshot()
    snapshot.add(events)
    assert not snapshot.oddities
    if how == "end":
        pieces.add(events[:-1])
        assert pieces.response.output == snapshot.response.output


def test_ids_when_two_items_have_one() -> None:
    """The second gets one of ours, or none: who folds events finds items by their ids."""
    assembler = begun()
    assembler.call("c", McpCall("f", id="x"))
    assembler.call("d", McpCall("f", id="x"))
    assembler.item(CodeInterpreterCall(code="", id="x"))
    assembler.item(CodeInterpreterCall(code="", id="y"))
    assembler.item(Untyped({"type": "x", "id": "y"}))
    items = [event.item.id for event in assembler.take() if isinstance(event, OutputItemAdded)]
    assert items == ["x", "fc_1_resp", None, "y", "y"]


def test_custom_input_when_it_goes_on_is_told() -> None:
    """Its pieces are events of their own kind."""
    assembler = begun()
    assembler.call("c", CustomToolCall("f", call_id="c"))
    assembler.arguments("c", "ls")
    assert isinstance(assembler.take()[-1], CustomToolCallInputDelta)
