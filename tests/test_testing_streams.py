"""`eventflow.testing.stream`: what it makes is what was said, on every wire, and in the provider's own form."""

from __future__ import annotations

import doctest
import json
from typing import Any

import anyio
import pytest
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from eventflow import Dispatcher, Event, Run
from eventflow.errors import APIStreamError, StreamTruncated, UsageError
from eventflow.events import (
    InputTokensDetails,
    OutputTokensDetails,
    StreamError,
    TextDelta,
    Usage,
    decode,
)
from eventflow.sse import decode as frames_of
from eventflow.testing import FakeStream, check_order, cut, stream, streams
from eventflow.testing.frames import WIRES
from eventflow.testing.strategies import streams as drawn

ALL: Any = tuple(WIRES)
TOOLS: Any = [("weather", {"city": "Köln"}), ("time", "{}"), ("roll", {"sides": 6}, "mine")]
COUNTED = Usage(
    input_tokens=9,
    output_tokens=7,
    total_tokens=16,
    input_tokens_details=InputTokensDetails(cached_tokens=4, cache_write_tokens=2),
    output_tokens_details=OutputTokensDetails(reasoning_tokens=3),
)


def run_of(source: Any, **options: Any) -> tuple[Run, list[Event]]:
    """The run over a source, and its events."""
    heard: list[Event] = []
    flow = Dispatcher()
    flow.on("*", heard.append)
    return flow.run(source, **options), heard


def data_of(made: FakeStream) -> list[Any]:
    """The data of a stream's frames; text where it is no JSON."""
    return [frame.data if frame.data == "[DONE]" else json.loads(frame.data) for frame in frames_of([made.body])]


def whole(wire: Any, **options: Any) -> FakeStream:
    """A stream that says everything that every wire has words for."""
    return stream("Hello, wörld!", reasoning=["hm", " hm"], tools=TOOLS, wire=wire, **options)


# --- what is said is what is heard -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ALL)
def test_stream_when_run_says_what_was_given(wire: Any) -> None:
    """Text, reasoning and calls arrive whole, in order and without a warning, and the wire is detected."""
    run, heard = run_of(whole(wire))
    check_order(heard)
    assert (run.status, run.warnings) == ("completed", ())
    assert (run.text, run.response.reasoning_text, run.response.model) == ("Hello, wörld!", "hm hm", "made-up")
    calls = [(call.name, json.loads(call.arguments), call.call_id) for call in run.response.tool_calls]
    assert calls == [
        ("weather", {"city": "Köln"}, "call_1"),
        ("time", {}, "call_2"),
        ("roll", {"sides": 6}, "mine"),
    ]
    assert run.response.usage is not None
    assert (run.response.usage.input_tokens, run.response.usage.output_tokens) == (10, 5)
    assert [event.delta for event in heard if isinstance(event, TextDelta)] == ["Hello", ",", " wörld", "!"]


@given(drawn())
def test_stream_when_drawn_is_in_order(made: FakeStream) -> None:
    """Any stream of any wire, in chunks of any size, passes the checker and gives no warning."""
    run, heard = run_of(made)
    check_order(heard)
    assert run.status in ("completed", "incomplete")
    assert run.warnings == ()
    assert b"".join(made) == made.body
    assert len(list(frames_of([made.body]))) == made.events == len(made.blocks)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(ALL))
def test_text_when_cut_into_pieces_is_whole(text: str, wire: Any) -> None:
    """A text of any characters is cut into pieces that are it, joined."""
    run, _ = run_of(stream(text, wire=wire))
    assert run.text == text


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_stream_when_pulled_async_is_the_same(way: str) -> None:
    """The async face gives the same chunks, again and again, and runs to the same response."""
    made = whole("responses", chunk=11)

    async def main() -> tuple[list[bytes], Run]:
        run = await Dispatcher().arun(made)
        return [chunk async for chunk in made], run

    chunks, run = anyio.run(main, backend=way)
    assert chunks == list(made) == made.chunks == cut(made.body, 11)
    assert run.response == run_of(made)[0].response


def test_stream_when_made_twice_is_the_same() -> None:
    """Nothing in it depends on chance or time."""
    for wire in WIRES:
        assert whole(wire) == whole(wire)


def test_stream_when_nothing_is_said_completes() -> None:
    """An answer may be empty."""
    for wire in ALL:
        run, heard = run_of(stream(wire=wire))
        check_order(heard)
        assert (run.status, run.text, run.response.output) == ("completed", "", ())


# --- the provider's own form -----------------------------------------------------------------------------------------

KINDS = {
    "responses-text": ("responses", {"text": "ab"}),
    "responses-tool": ("responses", {"tools": TOOLS[:1]}),
    "responses-reasoning": ("responses", {"text": "ab", "reasoning": "hm"}),
    "chat-text": ("chat", {"text": "ab"}),
    "chat-tool": ("chat", {"tools": TOOLS[:1]}),
    "anthropic-text": ("anthropic", {"text": "ab"}),
    "anthropic-tool": ("anthropic", {"tools": TOOLS[:1]}),
}


def shape_of(data: Any) -> str:
    """What kind of event it is: its type, and that of what it carries."""
    if not isinstance(data, dict):
        return str(data)
    inner = next((data[name] for name in ("item", "part", "content_block", "delta") if name in data), {})
    inner = inner if isinstance(inner, dict) else {}
    choice = next(iter(data.get("choices", ())), {})
    said = sorted(name for name, value in choice.get("delta", {}).items() if value) if choice else []
    return f"{data.get('type')} {inner.get('type')} {said} {choice.get('finish_reason')}"


@pytest.mark.parametrize("name", KINDS)
def test_stream_when_compared_with_a_recording_has_its_events(name: str) -> None:
    """Whatever kinds of events a real server sends are in the fake as well."""
    wire, said = KINDS[name]
    made = [shape_of(data) for data in data_of(stream(wire=wire, **said))]
    recorded = [
        shape_of(frame.data if frame.data == "[DONE]" else json.loads(frame.data))
        for frame in frames_of([(FIXTURES / f"{name}.sse").read_bytes()])
    ]
    assert set(recorded) <= set(made)


def test_responses_when_decoded_has_only_known_events() -> None:
    """Every event of a Responses stream is of the vocabulary, under its own name, and counted from 0."""
    made = stream("a", reasoning="b", summary="c", refusal="d", tools=TOOLS)
    events = [decode(frame.data, frame.event) for frame in frames_of([made.body])]
    assert [event.sequence_number for event in events] == list(range(made.events))  # type: ignore[attr-defined]
    assert [event.type for event in events] == [frame.event for frame in frames_of([made.body])]
    run, heard = run_of(made)
    check_order(heard)
    assert (run.response.reasoning_summary, run.response.refusal) == ("c", "d")


def test_chat_when_it_refuses() -> None:
    """A refusal is a piece of its own kind."""
    run, _ = run_of(stream(refusal="I will not", wire="chat"))
    assert (run.response.refusal, run.text) == ("I will not", "")


@pytest.mark.parametrize("wire", ALL)
def test_usage_when_given_arrives(wire: Any) -> None:
    """Tokens, those in the cache and those of thinking arrive under every provider's names."""
    usage = run_of(stream("a", usage=COUNTED, wire=wire))[0].response.usage
    assert usage is not None
    assert usage.input_tokens_details is not None
    assert usage.output_tokens_details is not None
    assert (usage.input_tokens, usage.output_tokens) == (9, 7)
    assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (4, 3)
    assert run_of(stream("a", usage=None, wire=wire))[0].response.usage is None
    unsaid = run_of(stream("a", usage=Usage(input_tokens=3), wire=wire))[0].response.usage
    assert unsaid is not None
    assert (unsaid.input_tokens, unsaid.output_tokens) == (3, None)


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "reason"), [(wire, reason) for wire in ALL for reason in (None, *WIRES[wire].reasons)]
)
def test_stream_when_incomplete_says_why(wire: Any, reason: str | None) -> None:
    """An answer that is cut short has the reason that was given, in order and without a warning."""
    run, heard = run_of(stream("Hello", status="incomplete", reason=reason, wire=wire))
    check_order(heard)
    assert (run.status, run.warnings, run.text) == ("incomplete", (), "Hello")
    assert run.response.incomplete_details is not None
    assert run.response.incomplete_details.reason == (reason or "max_output_tokens")


@pytest.mark.parametrize("wire", ALL)
def test_stream_when_an_error_comes_fails_there(wire: Any) -> None:
    """After any number of events the provider's own error ends the stream; what was said before is kept."""
    error = StreamError("too much", code="c", error_type="overloaded_error", status=529)
    for count in range(whole(wire).events):
        made = whole(wire, error_at=count, error=error)
        assert made.blocks[:count] == whole(wire).blocks[:count]
        run, heard = run_of(made, wire=wire, check=False)
        if wire != "responses" or count:  # a Responses stream that is but an error still counts it
            check_order(heard)
        assert (run.status, run.warnings) == ("failed", ())
        assert isinstance(run.error, APIStreamError)
        assert "too much" in str(run.error)
        detected, _ = run_of(made, check=False)
        assert detected.status == "failed"


def test_responses_when_failed_ends_with_that() -> None:
    """The Responses API has an end that is a failure."""
    run, heard = run_of(stream("Hello", status="failed", error=StreamError("no", code="c")), check=False)
    check_order(heard)
    assert (run.status, run.text, heard[-1].type) == ("failed", "Hello", "response.failed")
    assert run.response.error is not None
    assert (run.response.error.code, run.response.error.message) == ("c", "no")


@pytest.mark.parametrize("wire", ALL)
def test_stream_when_cut_ends_there(wire: Any) -> None:
    """A body that ends early is the beginning of the whole, cut after an event or within one."""
    full = whole(wire)
    for count in range(full.events - 1):
        made = whole(wire, cut_at=count)
        assert (made.body, made.events) == (b"".join(full.blocks[:count]), count)
        half = whole(wire, cut_at=count + 0.5)
        size = len(full.blocks[count]) // 2
        assert (half.body, half.events) == (made.body + full.blocks[count][:size], count)
    run, _ = run_of(whole(wire, cut_at=3.5), check=False)
    assert isinstance(run.error, StreamTruncated)


def test_chunks_when_asked_for() -> None:
    """One an event, so many bytes, or all at once."""
    assert len(list(stream("a"))) == stream("a").events
    assert {len(chunk) for chunk in list(stream("a", chunk=7))[:-1]} == {7}
    assert list(stream("a", chunk="whole")) == [stream("a").body]
    assert cut(b"", 3) == []


# --- what cannot be said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wire": "telegraph"}, "no such wire; give responses, chat, anthropic or gemini"),
        ({"wire": "chat", "summary": "x"}, "summary=...): the wire chat has no words for that; give reasoning="),
        ({"wire": "gemini", "refusal": "x"}, "refusal=...): the wire gemini has no words for that; give text="),
        ({"wire": "chat", "status": "failed"}, "status='failed'): the wire chat has no words for that; error_at="),
        ({"text": 5}, "text=...): give a str or a list of them, not int"),
        ({"text": b"x"}, "not bytes"),
        ({"text": ["a", None]}, "not NoneType"),
        ({"text": "\ud800"}, "lone surrogate"),
        ({"tools": ["weather"]}, "'weather' is no call; give (name, arguments)"),
        ({"tools": [("weather", 5)]}, "is no call"),
        ({"tools": [("weather", {}, "id", 4)]}, "is no call"),
        ({"tools": [("weather", "[1]")], "wire": "gemini"}, "as a JSON object, which those of weather are not: [1]"),
        ({"tools": [("weather", "{")], "wire": "gemini"}, "give a mapping, or another wire"),
        ({"tools": [("\udc00", "{}")]}, "lone surrogate"),
        ({"chunk": 0}, "chunk=0): give None, a number of bytes from 1 on, or 'whole'"),
        ({"chunk": "half"}, "chunk='half'"),
        ({"error_at": 1, "cut_at": 1}, "give one of them"),
        ({"error_at": 99}, "error_at=99): the stream has 3 events; give a number from 0 to 2"),
        ({"error_at": 1.5}, "error_at=1.5)"),
        ({"cut_at": -1}, "cut_at=-1)"),
        ({"cut_at": True}, "cut_at=True)"),
        ({"status": "queued"}, "give 'completed', 'incomplete' or 'failed'"),
        ({"reason": "max_output_tokens"}, "give status='incomplete'"),
        ({"status": "incomplete", "reason": "tired"}, "the wire responses has max_output_tokens or content_filter"),
    ],
)  # fmt: skip
def test_stream_when_it_cannot_be_made_says_what_to_give(options: Any, message: str) -> None:
    """What a wire cannot say, or what is no answer at all, is refused with words that help."""
    with pytest.raises(UsageError) as caught:
        stream(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_cut_when_the_size_is_none_is_refused(size: Any) -> None:
    """A chunk has a byte at least."""
    with pytest.raises(UsageError, match="from 1 on"):
        cut(b"ab", size)


def test_arguments_when_broken_are_sent_as_they_are() -> None:
    """Models send broken JSON too; where arguments are text, it can be said."""
    for wire in ("responses", "chat", "anthropic"):
        run, _ = run_of(stream(tools=[("weather", '{"city": "Par')], wire=wire))
        (call,) = run.response.tool_calls
        assert call.arguments == '{"city": "Par'


def test_docstrings_when_run() -> None:
    """The examples say what happens."""
    assert doctest.testmod(streams).failed == 0
