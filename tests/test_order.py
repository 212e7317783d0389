"""The order of events: the table, its drawing, and the checker, which must notice whatever is out of place."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import call, call_delta, closed, completed, created, opened

from eventflow import Dispatcher, Limits
from eventflow.events import (
    AudioDelta,
    ContentPartAdded,
    ContentPartDone,
    CustomToolCall,
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    McpCall,
    McpCallArgumentsDone,
    McpCallInProgress,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputRefusal,
    OutputText,
    Reasoning,
    ReasoningSummaryPartAdded,
    ReasoningSummaryPartDone,
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningTextDelta,
    RefusalDelta,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseInProgress,
    ResponseQueued,
    ShellCallCommandAdded,
    StreamError,
    SummaryText,
    TextAnnotationAdded,
    TextDelta,
    TextDone,
    ToolCall,
    ToolOutput,
    UnknownEvent,
    Untyped,
    URLCitation,
    event_classes,
)
from eventflow.sse import decode as frames_of
from eventflow.testing import ORDER, OrderError, check_order, draw_order, order
from eventflow.wires.responses import ResponsesWire

DOCS = Path(__file__).parents[1] / "docs"

CITED = URLCitation(url="https://example.org")
START = Message(id="m", role="assistant", status="in_progress")
TEXT = OutputText("ab", (CITED,))
DONE = START.replace(content=(TEXT,), status="completed")
CALL = FunctionCall("look", "", "call_1", "f", "in_progress")
CALLED = CALL.replace(arguments="{}", status="completed")
TOLD = ToolCall("function", "look", "{}", "call_1", "f", 1)
THOUGHT = Reasoning(id="r", status="in_progress")
SUMMARY = SummaryText("so")
THOUGHTS = THOUGHT.replace(summary=(SUMMARY,), status="completed")
IMAGE = Untyped({"type": "image"})
AT: dict[str, Any] = {"item_id": "m", "output_index": 0, "content_index": 0}
OF_CALL: dict[str, Any] = {"item_id": "f", "output_index": 1}
OF_SUMMARY: dict[str, Any] = {"item_id": "r", "output_index": 2, "summary_index": 0}

GOOD: tuple[Event, ...] = (
    ResponseCreated(Response()),
    OutputItemAdded(START, 0),
    ContentPartAdded(OutputText(), **AT),
    TextDelta("a", **AT),
    TextAnnotationAdded(CITED, 0, **AT),
    TextDelta("b", **AT),
    TextDone("ab", **AT),
    ContentPartDone(TEXT, **AT),
    OutputItemDone(DONE, 0),
    OutputItemAdded(CALL, 1),
    FunctionCallArgumentsDelta("{}", **OF_CALL),
    FunctionCallArgumentsDone("{}", **OF_CALL),
    OutputItemDone(CALLED, 1),
    TOLD,
    OutputItemAdded(THOUGHT, 2),
    ReasoningSummaryPartAdded(SummaryText(), **OF_SUMMARY),
    ReasoningSummaryTextDelta("so", **OF_SUMMARY),
    ReasoningSummaryTextDone("so", **OF_SUMMARY),
    ReasoningSummaryPartDone(SUMMARY, **OF_SUMMARY),
    OutputItemDone(THOUGHTS, 2),
    OutputItemAdded(IMAGE, 3),
    OutputItemDone(IMAGE, 3),
    ResponseCompleted(Response(output=(DONE, CALLED, THOUGHTS, IMAGE))),
)


def numbered(*events: Event) -> list[Event]:
    """Give those that are counted their numbers."""
    number, counted = 0, list[Event]()
    for event in events:
        if hasattr(event, "sequence_number") and not event.type.startswith("eventflow."):
            event = event.replace(sequence_number=number)
            number += 1
        counted.append(event)
    return counted


def fault_of(events: list[Event]) -> str | None:
    """What the checker says of events; None when they are in order."""
    try:
        check_order(events)
    except OrderError as error:
        return str(error)
    return None


# --- the table -------------------------------------------------------------------------------------------------------


def test_table_when_compared_with_the_vocabulary_has_every_event() -> None:
    """Every event of the vocabulary stands in it, but for those that may come anywhere; its states are reachable."""
    known = {cls for cls in event_classes().values() if cls.__module__.startswith("eventflow.events.")}
    standing = frozenset[type[Event]]().union(*(machine.events for machine in ORDER))
    anywhere = {f"eventflow.{name}" for name in ("tool_output", "tool_progress", "handler_failed", "turn_started")}
    assert {cls.type for cls in known - standing} == anywhere
    assert standing <= known
    for machine in ORDER:
        first, *others = machine.states
        assert {state for moves in machine.states.values() for state in moves.values()} - {first} == set(others)


def test_drawing_when_compared_with_the_documentation_is_in_it() -> None:
    """docs/wires.md shows the table as it is."""
    page = (DOCS / "wires.md").read_text(encoding="utf-8")
    assert f"```text\n{draw_order()}\n```" in page
    assert draw_order().splitlines()[:3] == ["response", "  none", "    response.created  -> open"]


def test_docstrings_when_run() -> None:
    """The examples say what happens."""
    assert doctest.testmod(order).failed == 0


# --- what is in order ------------------------------------------------------------------------------------------------


def test_check_when_events_are_in_order() -> None:
    """A whole stream passes, and so does every beginning of it."""
    events = numbered(*GOOD)
    for end in range(len(events) + 1):
        check_order(events[:end])


@pytest.mark.parametrize(
    "events",
    [
        (StreamError("no"),),
        (GOOD[0], StreamError("no"), ResponseFailed(Response())),
        (*GOOD[:4], StreamError("no"), ResponseFailed(Response())),
        (*GOOD[:11], ResponseFailed(Response(output=(DONE,)))),
        (GOOD[0], ResponseQueued(Response()), ResponseInProgress(Response()), AudioDelta("x")),
        (GOOD[0], ToolOutput("c", "x"), UnknownEvent("x", {}), *GOOD[1:3], ToolOutput("c", "x"), *GOOD[3:13], TOLD),
        (*GOOD[:13], ToolOutput("c", "x"), TOLD),
        (GOOD[0], OutputItemAdded(McpCall(id="p"), 0), McpCallInProgress("p", 0), McpCallArgumentsDone("", "p", 0)),
        (GOOD[0], OutputItemAdded(IMAGE, 0), ShellCallCommandAdded("ls", 0, 0)),
        (GOOD[0], OutputItemAdded(DONE, 0), OutputItemDone(DONE, 0)),
        (GOOD[0], OutputItemAdded(CALLED, 0), OutputItemDone(CALLED, 0)),
    ],
    ids=["error", "failed", "midway", "open", "audio", "others", "between", "at work", "shell", "whole", "whole call"],
)
def test_check_when_an_order_is_unusual_but_good(events: tuple[Event, ...]) -> None:
    """Failures may leave things open, others may come between, and items may come whole."""
    check_order(numbered(*events))


def test_check_when_a_dispatcher_makes_the_calls() -> None:
    """What handlers see is in order, with the calls that the dispatcher tells."""
    begun, done = call("", status="in_progress"), call("{}")
    arguments = {"type": "response.function_call_arguments.done", "item_id": "fc_1", "output_index": 0}
    stream: list[Any] = [created(), opened(begun), call_delta("{}") | {"output_index": 0}]
    stream += [{**arguments, "arguments": "{}"}, closed(done), completed(done)]
    seen: list[Event] = []
    flow = Dispatcher()
    flow.on("*", seen.append)
    flow.run([f"data: {json.dumps(data | {'sequence_number': n})}\n\n".encode() for n, data in enumerate(stream)])
    assert [type(event) for event in seen[-3:]] == [OutputItemDone, ToolCall, ResponseCompleted]
    check_order(seen)


# --- what is not -----------------------------------------------------------------------------------------------------

ITEM = OutputItemAdded(START, 0)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (GOOD[1:], "event 0, response.output_item.added of item 0: its response is none, where it may not come"),
        ((GOOD[0], GOOD[0]), "event 1, response.created: its response is open, where it may not come"),
        ((ResponseCreated(Response(output=(DONE,))),), "its response has output already"),
        ((*GOOD, AudioDelta("x")), "its response is ended, where it may not come"),
        ((GOOD[0], StreamError(), ITEM), "its response is error, where it may not come"),
        ((*GOOD[:3], StreamError(), GOOD[3]), "item 0, content 0: its response is error"),
        ((GOOD[0], OutputItemAdded(START, 1)), "of item 1: the item opened next is number 0"),
        ((GOOD[0], OutputItemAdded(START, None)), "of item None: the item opened next is number 0"),
        ((*GOOD[:2], ITEM), "its item is open, where it may not come"),
        ((*GOOD[:9], ContentPartAdded(OutputText(), "m", 0, 1)), "its item is closed, where it may not come"),
        ((*GOOD[:2], ContentPartAdded(OutputText(), "m", 0, 1)), "item 0, content 1: the part opened next is number 0"),
        ((*GOOD[:2], TextDelta("a", **AT)), "item 0, content 0: its part is none, where it may not come"),
        ((GOOD[0], TextDelta("a", **AT)), "item 0, content 0: its item is none"),
        ((*GOOD[:3], TextDelta("a", "x", 0, 0)), "its item's id is 'x', and 'm' when it was opened"),
        ((*GOOD[:2], ContentPartAdded(OutputText(), "x", 0, 0)), "its item's id is 'x', and 'm' when it was opened"),
        ((*GOOD[:2], OutputItemDone(DONE.replace(id="x"), 0)), "its item's id is 'x'"),
        ((*GOOD[:3], RefusalDelta("a", **AT)), "its part is OutputText"),
        ((*GOOD[:3], ReasoningTextDelta("a", **AT)), "its part is OutputText"),
        ((*GOOD[:2], FunctionCallArgumentsDelta("a", "m", 0)), "its item is Message"),
        ((*GOOD[:2], ContentPartAdded(OutputRefusal(), **AT), TextDelta("", **AT)), "its part is OutputRefusal"),
        ((*GOOD[:3], TextAnnotationAdded(CITED, 1, **AT)), "the annotation added next is number 0"),
        ((*GOOD[:4], TextDone("b", **AT)), "its text is 'b', not 'a' of its deltas, joined"),
        ((*GOOD[:7], TextDelta("c", **AT)), "its part is written, where it may not come"),
        ((*GOOD[:7], ContentPartDone(OutputText("x", (CITED,)), **AT)), "its text is 'x', not 'ab'"),
        ((*GOOD[:7], ContentPartDone(OutputText("ab"), **AT)), "what it cites is ()"),
        ((*GOOD[:7], ContentPartDone(OutputRefusal("ab"), **AT)), "it was opened as OutputText"),
        ((*GOOD[:3], OutputItemDone(DONE, 0)), "a part of its content is open"),
        ((*GOOD[:16], OutputItemDone(THOUGHTS, 2)), "a part of its summary is open"),
        ((*GOOD[:8], OutputItemDone(START, 0)), "its content is ()"),
        ((*GOOD[:8], OutputItemDone(THOUGHTS.replace(id="m"), 0)), "it was opened as Message"),
        ((*GOOD[:19], OutputItemDone(THOUGHT, 2)), "its summary is ()"),
        ((*GOOD[:10], OutputItemDone(CALLED, 1)), "its text is '{}', not '' that was written"),
        ((*GOOD[:11], OutputItemDone(CALLED, 1)), "its item is writing, where it may not come"),
        ((*GOOD[:12], OutputItemDone(CALL, 1)), "its text is '', not '{}' that was written"),
        ((*GOOD[:9], ResponseCompleted(Response())), "its output is ()"),
        ((*GOOD[:10], ResponseCompleted(Response(output=(DONE,)))), "item 1 is open"),
        ((*GOOD[:9], TOLD.replace(output_index=0)), "its item is Message"),
        ((*GOOD[:14], TOLD), "its item is called, where it may not come"),
        ((*GOOD[:12], TOLD), "its item is written, where it may not come"),
        ((*GOOD[:13], GOOD[14], TOLD), "it does not come right after its item"),
        ((*GOOD[:13], TOLD.replace(kind="custom")), "its item is FunctionCall"),
        ((*GOOD[:13], TOLD.replace(kind="other")), "its item is FunctionCall"),
        ((*GOOD[:13], TOLD.replace(arguments="{")), "it is ('look', '{', 'call_1', 'f'), not ('look', '{}'"),
        ((*GOOD[:12], OutputItemDone(CALLED.replace(status="incomplete"), 1), TOLD), "its item is incomplete"),
    ],
)
def test_check_when_something_is_out_of_order(events: tuple[Event, ...], message: str) -> None:
    """The error names the event, its place and the rule."""
    with pytest.raises(OrderError) as caught:
        check_order(numbered(*events))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"event {len(events) - 1 if events[0] is GOOD[0] else 0}, ")
    assert isinstance(caught.value, AssertionError)


def test_check_when_numbers_have_a_gap() -> None:
    """Every event of the wire counts, those that nobody knows too."""
    with pytest.raises(OrderError, match=r"event 0, response\.created: its sequence number is None, the next is 0"):
        check_order(GOOD)
    with pytest.raises(OrderError, match="event 1, vendor: its sequence number is 2, the next is 1"):
        check_order([GOOD[0].replace(sequence_number=0), UnknownEvent("vendor", {}, sequence_number=2)])


QUIET = {("drop", 13), ("swap", 3), ("swap", 4), ("swap", 8), ("swap", 19)}
"""What may as well be: a call that is not told, a citation earlier or later, an item that begins before one ends."""


@given(st.data())
def test_check_when_a_good_stream_is_changed_notices(data: st.DataObject) -> None:
    """An event that is missing, comes twice or changes places with the next is noticed, though all are counted anew."""
    place = data.draw(st.integers(0, len(GOOD) - 2))
    change = data.draw(st.sampled_from(["drop", "repeat", "swap"]))
    events = list(GOOD)
    if change == "drop":
        del events[place]
    elif change == "repeat":
        events.insert(place, events[place])
    else:
        events[place : place + 2] = reversed(events[place : place + 2])
    if (change, place) in QUIET:
        check_order(numbered(*events))
    else:
        with pytest.raises(OrderError):
            check_order(numbered(*events))


def test_check_when_a_custom_call_is_told() -> None:
    """Its input is its arguments."""
    done = CustomToolCall("run", "ls", "call_1", "c", "completed")
    told = ToolCall("custom", "run", "ls", "call_1", "c", 0)
    check_order(numbered(GOOD[0], OutputItemAdded(done, 0), OutputItemDone(done, 0), told))


def test_check_when_streams_of_the_responses_api_were_recorded(corpus: Path) -> None:
    """Most of OpenAI's own streams keep the order; what the others do is known."""
    known = (
        "its sequence number is",  # none, or a stream that was resumed
        "its output is",  # nothing at all, or reasoning that is encrypted anew
        "its content is",  # probabilities that the part did not have
        "its text is",  # a recording that was edited
        "its item's id is",  # ids that change with every event
        "item 0 is open",  # likewise edited
    )
    kept = 0
    for path in sorted((corpus / "responses").iterdir()):
        wire = ResponsesWire(Limits())
        events = [event for frame in frames_of([path.read_bytes()]) for event in wire.feed(frame)]
        fault = fault_of(events)
        assert fault is None or any(f": {each}" in fault for each in known), path.name
        kept += fault is None
    assert kept >= 90
