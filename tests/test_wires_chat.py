"""The wire of Chat Completions: every way in which servers speak it, as small streams of our own, and recorded ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiring import Told, extras, feed, frame, listen, said

from eventflow import Dispatcher, Limits
from eventflow.errors import DecodeError, LimitExceeded, StreamTruncated
from eventflow.events import (
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    CustomToolCall,
    FunctionCallArgumentsDelta,
    ImageGenerationCall,
    InputTokensDetails,
    OutputRefusal,
    OutputTokensDetails,
    ReasoningTextDelta,
    ResponseCreated,
    ResponseFailed,
    StreamError,
    TextAnnotationAdded,
    TextDelta,
    TextDone,
    Untyped,
    URLCitation,
    Usage,
)
from eventflow.sse import Frame
from eventflow.testing import check_order
from eventflow.wires.chat import ChatWire

JSON = dict[str, Any]
STOP: JSON = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
LENGTH: JSON = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
CALLS: JSON = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
USAGE: JSON = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
USED = Usage(3, 5, 8)


def chunk(delta: JSON | None = None, *, index: int = 0, **fields: Any) -> JSON:
    """A chunk with one choice; *fields* are the chunk's."""
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [{"index": index, "delta": delta or {}, "finish_reason": None}],
        **fields,
    }


def text(content: str) -> JSON:
    """A chunk with a piece of text."""
    return chunk({"content": content})


def tool(index: int | None = 0, call_id: str | None = None, name: str | None = None, arguments: Any = None) -> JSON:
    """A chunk with a piece of a tool call; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    call = {"index": index, "id": call_id, "type": "function" if name else None, "function": function}
    return chunk({"tool_calls": [{key: value for key, value in call.items() if value is not None}]})


def chat(*stream: Any, close: bool = True) -> Told:
    """What the wire makes of a stream."""
    return listen(ChatWire, *stream, close=close)


# --- what chunks are -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [(r"a\ud83d", "a\ud83d"), (f'a", "vendor": {"7" * 10_000}, "more": "', "a"), ("\ufffd", "\ufffd")],
)
def test_chunk_when_only_python_reads_it(written: str, meant: str) -> None:
    """Half a surrogate pair, and integers longer than anybody's, are no reason to lose a chunk."""
    piece = json.dumps(text("HERE")).replace("HERE", written)
    assert said(chat(Frame(data=piece), STOP).response) == said(chat(text(meant), STOP).response)


@pytest.mark.parametrize("content", [{"a": 1}, 5, True])
def test_content_when_it_is_no_text(content: Any) -> None:
    """It cannot be told on, and must not get lost unseen: that is an error."""
    with pytest.raises(DecodeError, match="the content of a chunk is"):
        chat(text(content))


# --- how streams begin and end ---------------------------------------------------------------------------------------


def test_stream_when_it_is_plain() -> None:
    """The response has the chunk's id, model and time; pieces of text are one message."""
    told = chat(chunk({"role": "assistant", "content": ""}), text("a"), text("b"), STOP, "[DONE]")
    response = told.response
    assert (response.id, response.model, response.created_at, response.status) == ("c1", "m", 7, "completed")
    assert said(response) == ["ab"]
    assert [event.delta for event in told.of(TextDelta)] == ["a", "b"]
    assert extras(told.events) == {"finish_reason": "stop"}


@pytest.mark.parametrize("end", ["[DONE]", "[DONE] ", " [DONE]\n", None])
def test_end_when_it_is_marked_or_not(end: str | None) -> None:
    """The mark ends a stream, with or without spaces; the end of the body does where a reason was given."""
    told = chat(text("a"), STOP, *([end] if end else []))
    assert told.response.status == "completed"


def test_end_when_only_the_mark_comes() -> None:
    """A mark ends an answer that gave no reason (Ollama, Snowflake); the end of the body alone does not."""
    assert chat(text("a"), "[DONE]").response.status == "completed"
    cut = chat(text("a"))
    assert cut.response.status == "in_progress"
    assert not cut.of(TextDone)


def test_end_when_nothing_came_before_it() -> None:
    """There is no answer that could end."""
    assert chat("[DONE]").events == chat().events == chat("", " ").events == []


def test_stream_when_it_goes_on_after_the_end() -> None:
    """What comes then is not of the answer."""
    assert said(chat(text("a"), "[DONE]", text("b"), "[DONE]").response) == ["a"]


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("function_call", "completed", None),
        ("eos", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("max_tokens", "incomplete", "max_output_tokens"),
        ("model_length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
@pytest.mark.parametrize("field", ["finish_reason", "finishReason"])
def test_finish_when_a_reason_is_given(field: str, reason: str, status: str, why: str | None) -> None:
    """Some reasons say that the answer is not whole; one server has the field in camel case."""
    told = chat(text("a"), {"choices": [{"index": 0, "delta": {}, field: reason}]})
    details = told.response.incomplete_details
    assert (told.response.status, details and details.reason) == (status, why)
    assert [item.status for item in told.response.output] == [status]


def test_finish_when_a_reason_comes_twice_or_early() -> None:
    """The last one counts, and text after it is still of the answer."""
    first = chunk({"content": "a"})
    first["choices"][0]["finish_reason"] = "stop"
    told = chat(first, text("b"), {"choices": [{"delta": {}, "finish_reason": "length"}]}, STOP, text("c"), "[DONE]")
    assert said(told.response) == ["abc"]
    assert told.response.status == "completed"


@pytest.mark.parametrize("choices", [[], None, "x", [None], [5]])
def test_choices_when_there_are_none(choices: Any) -> None:
    """Such a chunk says nothing; no chunk must have choices."""
    told = chat(text("a"), {"id": "c1", "choices": choices}, {"id": "c1"}, STOP)
    assert said(told.response) == ["a"]


def test_first_chunk_when_it_is_azures() -> None:
    """It says only what was filtered, with no id and no model; the response begins with the next."""
    filtered = {"id": "", "model": "", "object": "", "created": 0, "choices": [], "prompt_filter_results": [{"x": 1}]}
    told = chat(filtered, text("a"), STOP)
    (created,) = told.of(ResponseCreated)
    assert (created.response.id, created.response.model) == ("c1", "m")
    assert created.extra == {"prompt_filter_results": [{"x": 1}]}


def test_ids_when_they_change() -> None:
    """The first is the response's; an empty one is none."""
    told = chat(text("a"), chunk({"content": "b"}, id="c2", model="n"), STOP)
    assert (told.response.id, told.response.model) == ("c1", "m")
    told = chat(chunk({"content": "b"}, id="", model=None, created="now"), STOP)
    assert (told.response.id, told.response.model, told.response.created_at) == (None, None, None)
    assert told.response.output[0].id == "msg_0_response"


def test_choices_when_there_are_several() -> None:
    """Each is items of its own, in the order in which they begin; one that is cut makes the whole incomplete."""
    second = chunk({"content": "x"}, index=1)
    both = {"choices": [{"index": 0, "delta": {"content": "b"}}, {"index": 1, "delta": {"content": "y"}}]}
    told = chat(text("a"), second, both, STOP, {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]})
    assert said(told.response) == ["ab", "xy"]
    assert told.response.status == "incomplete"


def test_choices_when_one_is_cut() -> None:
    """The body's end is the answer's only when every choice has its reason; the mark ends it, and a half is told so."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    stream = text("a"), chunk({"reasoning": "r"}, index=1), chunk({"tool_calls": [call]}, index=1), STOP
    assert chat(*stream).response.status == "in_progress"
    assert chat(text("a"), chunk(index=1), STOP).response.status == "in_progress"
    told = chat(*stream, "[DONE]")
    assert told.response.status == "completed"
    assert [item.status for item in told.response.output] == ["completed", "completed", "incomplete"]
    assert [item.status for item in chat(*stream[:-1], "[DONE]").response.output] == ["completed"] * 3
    run = Dispatcher().run(map(frame, stream), wire="chat", check=False)
    assert isinstance(run.error, StreamTruncated)
    assert [item.status for item in run.response.output] == ["incomplete", "completed", "incomplete"]


def test_answer_when_it_came_whole() -> None:
    """A choice with a message, as from a server that does not stream, is read like one piece."""
    message = {"choices": [{"index": "0", "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}]}
    assert said(chat(message).response) == ["ab"]


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stream",
    [
        [text("a"), STOP | {"usage": USAGE}],
        [text("a"), STOP, {"choices": [], "usage": USAGE}],
        [chunk({"content": "a"}, usage={"prompt_tokens": 3}), STOP, {"choices": [], "usage": USAGE}, "[DONE]"],
        [chunk({"content": "a"}, usage=USAGE), STOP | {"usage": None}, "[DONE]"],
        [text("a"), STOP | {"x_groq": {"id": "r", "usage": USAGE}}],
    ],
    ids=["finish", "last", "every", "first", "groq"],
)
def test_usage_when_it_is_on_any_chunk(stream: list[Any]) -> None:
    """The last one that came is the response's, and as it was sent it is in extra."""
    told = chat(*stream)
    assert told.response.usage == USED.replace(
        input_tokens_details=InputTokensDetails(), output_tokens_details=OutputTokensDetails()
    )
    assert extras(told.events)["usage"] == USAGE


def test_usage_when_it_comes_after_the_end() -> None:
    """Nothing is looked at after the mark."""
    assert chat(text("a"), STOP, "[DONE]", {"choices": [], "usage": USAGE}).response.usage is None


def test_usage_when_it_has_details() -> None:
    """They go where the Responses API has them; DeepSeek and others have names of their own."""
    details = {
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    usage = chat(STOP | {"usage": USAGE | details}).response.usage
    assert usage == USED.replace(
        input_tokens_details=InputTokensDetails(2, 1), output_tokens_details=OutputTokensDetails(4)
    )
    usage = chat(STOP | {"usage": {"prompt_cache_hit_tokens": 2.0, "reasoning_tokens": 4}}).response.usage
    assert usage == Usage(input_tokens_details=InputTokensDetails(2), output_tokens_details=OutputTokensDetails(4))
    assert chat(STOP | {"usage": {"prompt_tokens": "many"}}).response.usage == Usage(
        input_tokens_details=InputTokensDetails(), output_tokens_details=OutputTokensDetails()
    )


# --- text, refusals, reasoning ---------------------------------------------------------------------------------------


def test_refusal_when_spoken() -> None:
    """It is a part of the message."""
    told = chat(chunk({"refusal": ""}), chunk({"refusal": "no"}), chunk({"refusal": "pe"}), STOP)
    assert said(chat(chunk({"content": "", "refusal": ""}), STOP).response) == []
    assert told.response.refusal == "nope"
    assert told.response.output[0].content == (OutputRefusal("nope"),)  # type: ignore[union-attr]


def test_logprobs_when_sent() -> None:
    """They are on the delta; what is not as the API has it is left out."""
    choice = {"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": -1}]}}
    empty = {"index": 0, "delta": {"content": ""}, "logprobs": {"content": [{"token": "", "logprob": -0.5}]}}
    odd = {"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [{"token": {}}]}}
    null = {"index": 0, "delta": {"content": "c"}, "logprobs": {"content": None, "refusal": None}}
    told = chat(*({"id": "c1", "choices": [each]} for each in (choice, empty, odd, null)), STOP)
    deltas = told.of(TextDelta)
    assert [event.delta for event in deltas] == ["a", "", "b", "c"]
    assert [event.logprobs and event.logprobs[0].logprob for event in deltas] == [-1, -0.5, None, None]
    assert said(told.response) == ["abc"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_when_it_has_a_field(field: str) -> None:
    """It is an item of its own; when it goes on after text, it is another."""
    told = chat(*(chunk({field: piece, "content": ""}) for piece in "ab"), text("x"), chunk({field: "c"}), STOP)
    assert said(told.response) == [("thought", "ab"), "x", ("thought", "c")]
    assert told.response.reasoning_text == "ab\n\nc"


def test_reasoning_when_a_chunk_has_text_too() -> None:
    """The reasoning comes first; said under two names it is said once."""
    told = chat(chunk({"reasoning_content": "a", "reasoning": "a", "content": "x"}), text("y"), STOP)
    assert said(told.response) == [("thought", "a"), "xy"]


def test_reasoning_when_it_has_details() -> None:
    """OpenRouter says the text twice; Snowflake there alone; what is encrypted or signed is kept to be sent back."""
    both = {"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]}
    alone = {"reasoning_details": [{"text": "b"}, {"summary": "c"}]}
    signed = {"reasoning_details": [{"type": "reasoning.text", "signature": "s"}]}
    encrypted = {"content": "", "reasoning_details": [{"type": "reasoning.encrypted", "data": "d"}]}
    told = chat(chunk(both), chunk(alone), chunk(signed), chunk(encrypted), text("x"), STOP)
    assert said(told.response) == [("thought", "abc"), "x"]
    assert told.response.output[0].encrypted_content == "sd"  # type: ignore[union-attr]
    sealed = [*signed["reasoning_details"], *encrypted["reasoning_details"]]
    assert extras(told.events)["reasoning_details"] == sealed


def test_reasoning_when_all_of_it_is_encrypted() -> None:
    """It is an item without text."""
    told = chat(chunk({"reasoning_details": [{"data": "d"}]}), text("x"), STOP)
    assert said(told.response) == [("thought", ""), "x"]
    told = chat(text("x"), chunk({"reasoning_details": [{"data": "d"}]}), chunk({"reasoning": "a"}), STOP)
    assert said(told.response) == ["x", ("thought", "a")]


def test_content_when_it_is_a_list() -> None:
    """Mistral's thinking models send parts; what is neither text nor thinking is kept."""
    parts = [
        [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}],
        [{"type": "thinking", "thinking": "b"}, {"type": "text", "text": "x"}],
        [{"type": "reference", "reference_ids": [1]}],
    ]
    told = chat(*(chunk({"content": part}) for part in parts), text("y"), STOP)
    assert said(told.response) == [("thought", "ab"), "xy"]
    assert extras(told.events)["content"] == [parts[2][0]]


def test_annotations_when_sent() -> None:
    """Pages that are cited are annotations as the Responses API has them, others stay as they are."""
    cited = {"type": "url_citation", "url_citation": {"url": "https://a.org", "title": "A", "start_index": 1}}
    other = {"type": "file", "file": {"name": "f"}}
    told = chat(text("a"), chunk({"annotations": [cited, other]}), STOP)
    url = URLCitation("https://a.org", "A", 1)
    assert [event.annotation for event in told.of(TextAnnotationAdded)] == [url, Untyped(other)]
    assert told.response.output[0].content[0].annotations == (url, Untyped(other))  # type: ignore[union-attr]
    assert extras(told.events)["annotation"] == cited
    told = chat(chunk({"reasoning": "r"}), chunk({"annotations": [cited]}), text("a"), STOP)
    assert said(told.response) == [("thought", "r"), "a"]


# --- other media -----------------------------------------------------------------------------------------------------


def test_audio_when_spoken() -> None:
    """Sound and transcript are events of the response, and done at its end."""
    pieces: list[JSON] = [{"id": "a1"}, {"data": "AA", "transcript": "Hel"}, {"transcript": "lo"}, {"expires_at": 9}]
    told = chat(*(chunk({"audio": piece}) for piece in pieces), "[DONE]")
    assert [event.delta for event in told.of(AudioDelta)] == ["AA"]
    assert [event.delta for event in told.of(AudioTranscriptDelta)] == ["Hel", "lo"]
    assert len(told.of(AudioDone)) == len(told.of(AudioTranscriptDone)) == 1
    assert extras(told.events) == {"id": "a1", "expires_at": 9}


def test_images_when_sent() -> None:
    """OpenRouter's images are items; one that is a page's is kept as it is."""
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    linked = {"type": "image_url", "image_url": {"url": "https://a.org/x.png"}}
    told = chat(chunk({"content": "a", "images": [inline, linked, 5]}), STOP)
    images = [item for item in told.response.output if isinstance(item, ImageGenerationCall)]
    assert [image.result for image in images] == ["AA", None, None]
    assert extras(told.events)["image_format"] == "data:image/png;base64"


# --- tool calls ------------------------------------------------------------------------------------------------------


def test_calls_when_they_are_plain() -> None:
    """Each index is a call; its arguments are pieces, and whole when the answer ends."""
    told = chat(
        chunk({"role": "assistant", "content": None, "tool_calls": None}),
        tool(0, "call_a", "look", ""),
        tool(0, arguments='{"a"'),
        tool(0, arguments=":1}"),
        tool(1, "call_b", "see", ""),
        tool(1, arguments="{}"),
        CALLS,
    )
    assert said(told.response) == [("look", '{"a":1}', "call_a"), ("see", "{}", "call_b")]
    assert [event.delta for event in told.of(FunctionCallArgumentsDelta)] == ['{"a"', ":1}", "{}"]


@pytest.mark.parametrize(
    "stream",
    [
        [tool(0, "a", "f", '{"x":1}'), tool(1, "b", "g", "{}")],
        [tool(3, "a", "f", '{"x":1}'), tool(7, "b", "g", "{}")],
        [tool(None, "a", "f", '{"x":1}'), tool(None, "b", "g", "{}")],
        [tool(None, "a", "f", '{"x"'), tool(None, arguments=":1}"), tool(None, "b", "g"), tool(None, "b", None, "{}")],
        [tool(None, "a", "f", '{"x"'), tool(None, "a", "f", ":1}"), tool(None, "b", "g", "{}")],
        [tool(0, "a", "f", '{"x":1}'), tool(0, "b", "g", "{}")],
        [tool(0, "a", "f", {"x": 1}), tool(1, "b", "g", {})],
        [tool(0, "a", "f", '{"x"'), tool(0, "a", "f", ":1}"), tool(1, "b", "g", "{}"), tool(1, "b", "g", "")],
        [tool(0, "a", "f", '{"x"'), tool(0, "other", None, ":1}"), tool(1, "b", "g", "{}")],
        [tool(1, "a", "f", '{"x"'), tool(2, "b", "g", "{"), tool(1, arguments=":1}"), tool(2, arguments="}")],
    ],
    ids=["whole", "above", "none", "pieces", "repeated", "shared", "object", "named-again", "other-id", "interleaved"],
)
def test_calls_when_servers_have_their_ways(stream: list[JSON]) -> None:
    """Without index, above 0, whole, under one index, named again, as an object, with ids that change, at once."""
    assert said(chat(*stream, CALLS).response) == [("f", '{"x":1}', "a"), ("g", "{}", "b")]


def test_call_when_several_without_arguments_share_an_index() -> None:
    """Another id with another name is another call."""
    told = chat(tool(0, "a", "f", ""), tool(0, "b", "g", ""), CALLS)
    assert said(told.response) == [("f", "", "a"), ("g", "", "b")]


def test_call_when_its_name_does_not_end() -> None:
    """What it is copied at every piece counts, so that the time is bounded too."""
    wire = ChatWire(Limits(arguments=1000))
    with pytest.raises(LimitExceeded) as caught:
        feed(wire, [frame(tool(name="ab"[number % 2])) for number in range(100)])
    assert (caught.value.limit, caught.value.seen) == ("arguments", sum(range(2, 46)))


def test_call_when_its_signature_does_not_end() -> None:
    """It counts as the reasoning that it is of."""
    wire = ChatWire(Limits(text=99))
    with pytest.raises(LimitExceeded) as caught:
        feed(wire, [frame(chunk({"reasoning_details": [{"signature": "x" * 10}]}))] * 10)
    assert (caught.value.limit, caught.value.seen) == ("text", 100)


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize(
    ("limit", "first", "piece"),
    [
        ("text", text("ab"), text("cd")),
        ("text", chunk({"reasoning": "ab"}), chunk({"reasoning": "cd"})),
        ("text", chunk({"refusal": "ab"}), chunk({"refusal": "cd"})),
        ("arguments", tool(0, "a", "f", "ab"), tool(arguments="cd")),
    ],
)
def test_pieces_when_they_are_too_many(limit: str, first: JSON, piece: JSON, snapshot: bool) -> None:
    """Also in a run that keeps no response: the wire keeps them for their end. The piece too much is heard."""
    heard: list[str] = []
    flow = Dispatcher(limits=Limits(**{limit: 9}), snapshot=snapshot)
    flow.on("*", lambda event: heard.append(getattr(event, "delta", "")))
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in [first] + [piece] * 9).encode()
    run = flow.run(body, wire="chat", check=False)
    assert isinstance(run.error, LimitExceeded)
    assert (run.error.limit, run.error.maximum, run.error.seen) == (limit, 9, 10)
    assert "".join(heard) == "abcdcdcdcd"


def test_call_when_its_name_comes_in_pieces() -> None:
    """They are put together; one that repeats the end of it adds nothing."""
    told = chat(tool(0, "a", "get_", ""), tool(0, name="weather", arguments=""), tool(0, "a", "get_weather"), CALLS)
    assert said(told.response) == [("get_weather", "", "a")]


@pytest.mark.parametrize("last", [[], [text("x")], [tool(1, "b", "g", "{}")]])
@pytest.mark.parametrize("end", ["[DONE]", CALLS, LENGTH])
def test_call_when_it_breaks_off(last: list[JSON], end: Any) -> None:
    """It is incomplete, whatever comes behind it and however the answer ends."""
    told = chat(tool(0, "a", "f", '{"a'), *last, end, "[DONE]")
    assert told.response.tool_calls[0].status == "incomplete"


def test_call_when_it_has_no_id() -> None:
    """It gets one, for its output to name."""
    told = chat(tool(0, None, "f", "{}"), tool(1, "", "g", "{}"), CALLS)
    assert said(told.response) == [("f", "{}", "call_0_1"), ("g", "{}", "call_0_2")]


def test_call_when_text_is_around_it() -> None:
    """Text before it is complete; text after it, or with the reason, is a message of its own."""
    last = {"choices": [{"index": 0, "delta": {"content": "y"}, "finish_reason": "tool_calls"}]}
    told = chat(text("x"), tool(0, "a", "f", "{"), tool(0, arguments="}"), last)
    assert said(told.response) == ["x", ("f", "{}", "a"), "y"]


def test_call_when_a_chunk_has_more_than_its_piece() -> None:
    """Text and several pieces in one chunk are all heard."""
    more = {"content": "x", "tool_calls": [{"index": index, "function": {"arguments": "}"}} for index in (0, 1)]}
    told = chat(tool(0, "a", "f", "{"), tool(1, "b", "g", "{"), chunk(more), CALLS)
    assert said(told.response) == [("f", "{}", "a"), ("g", "{}", "b"), "x"]


def test_call_when_the_answer_is_cut() -> None:
    """A call that is not whole is incomplete, and so is never told as one."""
    told = chat(tool(0, "a", "f", '{"x'), {"choices": [{"delta": {}, "finish_reason": "length"}]})
    assert [item.status for item in told.response.output] == ["incomplete"]


def test_call_when_it_is_of_the_old_kind() -> None:
    """``function_call`` is a call without an id."""
    told = chat(chunk({"function_call": {"name": "f", "arguments": ""}}), chunk({"function_call": {"arguments": "{}"}}))
    assert told.response.status != "completed"
    stop = {"choices": [{"delta": {}, "finish_reason": "function_call"}]}
    told = chat(chunk({"function_call": {"name": "f"}}), chunk({"function_call": {"arguments": "{}"}}), stop)
    assert said(told.response) == [("f", "{}", "call_0_1")]


def test_call_when_it_is_of_a_custom_tool() -> None:
    """Its input is text."""
    begun = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": ""}}
    told = chat(chunk({"tool_calls": [begun]}), chunk({"tool_calls": [{"index": 0, "custom": {"input": "ls"}}]}), CALLS)
    (item,) = told.response.output
    assert isinstance(item, CustomToolCall)
    assert (item.name, item.input) == ("sh", "ls")


# --- what has no place -----------------------------------------------------------------------------------------------


def test_fields_when_several_come_before_an_event() -> None:
    """Nothing is lost: they are a list, and lists are one; of what a chunk says of itself the last word counts."""
    parts = [{"type": "image", "n": 1}, {"type": "image", "n": 2}]
    quiet = {"choices": [{"index": 0, "delta": {"vendor": 1}, "ids": [1]}], "time": 1}
    more = {"choices": [{"index": 0, "delta": {"vendor": [2]}, "ids": [2]}], "time": 2}
    told = chat(text("a"), quiet, more, chunk({"content": [*parts, {"type": "text", "text": "b"}]}), STOP)
    assert extras(told.events) == {
        "vendor": [1, 2], "ids": [1, 2], "time": 2, "content": parts, "finish_reason": "stop"
    }  # fmt: skip
    assert quiet["choices"][0]["ids"] == [1]  # type: ignore[index]
    reasons = {"choices": [{"index": index, "finish_reason": why} for index, why in enumerate(("stop", "length"))]}
    assert extras(chat(text("a"), reasons).events) == {"finish_reason": ["stop", "length"]}


def test_fields_when_nobody_knows_them_are_kept() -> None:
    """Those of chunks and choices where they change, those of deltas and calls always; paddings are not."""
    first = chunk({"content": "a", "vendor": 1}, system_fingerprint="f", service_tier="x", obfuscation="zz", p="ab")
    first["choices"][0]["native_finish_reason"] = None
    second = chunk({"content": "b", "vendor": 1}, system_fingerprint="f", service_tier="y", obfuscation="zzz")
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"s": 1}}
    last = {"choices": [{"delta": {}, "finish_reason": "stop", "stop_reason": 5}], "timings": {"n": 1}}
    told = chat(first, second, chunk({"tool_calls": [call]}), last)
    kept = [event.extra for event in told.events if event.extra]  # type: ignore[attr-defined]
    assert kept[0] == {"system_fingerprint": "f", "service_tier": "x", "vendor": 1}
    assert extras(told.events) == {
        "system_fingerprint": "f",
        "service_tier": "y",
        "vendor": 1,
        "extra_content": {"s": 1},
        "timings": {"n": 1},
        "stop_reason": 5,
        "finish_reason": "stop",
    }
    assert [event.extra for event in told.of(TextDelta)][1] == {"service_tier": "y", "vendor": 1}


# --- errors ----------------------------------------------------------------------------------------------------------

FAULT = {"message": "too much", "type": "overloaded", "code": 503}


@pytest.mark.parametrize(
    "last",
    [
        frame({"error": FAULT}),
        frame({"error": FAULT}, "error"),
        frame(FAULT, "error"),
        frame(chunk({"content": ""}, error=FAULT)),
        frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": FAULT}, {"index": 1}]}),
    ],
    ids=["data", "both", "event", "chunk", "choice"],
)
def test_error_when_it_comes_in_the_stream(last: Frame) -> None:
    """The answer has failed, with what was received; nothing after it counts."""
    told = chat(text("a"), last, text("b"), "[DONE]")
    error, end = told.events[-2:]
    assert isinstance(error, StreamError)
    assert (error.message, error.error_type, error.code) == ("too much", "overloaded", "503")
    assert isinstance(end, ResponseFailed)
    assert said(told.response) == ["a"]
    assert (told.response.status, told.response.output[0].status) == ("failed", "incomplete")


@pytest.mark.parametrize("data", ["out of memory", '"out of memory"', {"error": "out of memory"}])
def test_error_when_it_is_text(data: Any) -> None:
    """Plain text and JSON strings are messages; before the beginning it is the error alone."""
    told = chat(frame(data, "error"))
    assert [event.to_dict() for event in told.events] == [
        {"type": "error", "message": "out of memory", "sequence_number": 0}
    ]
    assert chat(frame(data, "error"), text("a"), STOP).events == told.events


def test_error_when_the_reason_says_so_alone() -> None:
    """It is an error with no words of the server's."""
    told = chat(text("a"), {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}, "[DONE]")
    assert told.response.status == "failed"
    assert told.response.error is not None
    assert told.response.error.code == "error"


@pytest.mark.parametrize("data", ["[1]", "null", "x", "{", '"a"', "\ud800"])
def test_chunk_when_it_is_no_object(data: str) -> None:
    """The error shows it."""
    with pytest.raises(DecodeError, match="no JSON object"):
        ChatWire(Limits()).feed(frame(data))


def test_chunk_when_it_is_too_deep() -> None:
    """The depth that is allowed is the wire's."""
    with pytest.raises(LimitExceeded):
        ChatWire(Limits(json_depth=3)).feed(frame(text("a")))
    assert ChatWire(Limits(json_depth=None)).feed(frame(text("a")))


# --- the choice of the wire, and the short way -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "fits"),
    [
        (text("a"), True),
        ({"choices": []}, True),
        ({"object": "chat.completion.chunk"}, True),
        ({"object": "response"}, False),
        ({"type": "ping"}, False),
        ({"choices": 5}, False),
        ([], False),
    ],
)
def test_fits_when_asked(first: Any, fits: bool) -> None:
    """Choices tell, or the kind of the object."""
    assert ChatWire.fits(frame(first)) is fits
    assert ChatWire.name == "chat"
    assert ChatWire.direct("message") is None


@pytest.mark.parametrize(
    "other",
    [
        tool(0, arguments=""),
        chunk({"content": "b", "reasoning": "c"}),
        chunk({"content": "b"}, service_tier="new"),
        chunk({"content": "b"}, vendor=1),
        {"choices": [{"delta": {"content": "b"}}, {"delta": {}}]},
        chunk({"content": ""}),
        chunk({"refusal": "b"}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}], "content": "b"}),
    ],
)
def test_delta_when_a_chunk_is_more_than_a_piece(other: JSON) -> None:
    """It goes the long way; what is but a piece does not."""
    wire = ChatWire(Limits())
    feed(wire, [frame(text("a")), frame(tool(0, "a", "f", "{"))], close=False)
    assert wire.delta("message", json.dumps(other).encode()) is None
    assert wire.delta("error", json.dumps(tool(0, arguments="}")).encode()) is None
    event = wire.delta("message", json.dumps(tool(0, arguments="}")).encode())
    assert isinstance(event, FunctionCallArgumentsDelta)


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_delta_when_a_chunk_is_a_piece_gives_its_event(field: str) -> None:
    """Text and reasoning take the short way."""
    wire = ChatWire(Limits())
    feed(wire, [frame(chunk({field: "a"}))], close=False)
    event = wire.delta("message", json.dumps(chunk({field: "b"})).encode())
    assert isinstance(event, TextDelta if field == "content" else ReasoningTextDelta)


# --- any stream ------------------------------------------------------------------------------------------------------

_names = st.sampled_from(["", "f", "g", "get_"])
_ids = st.sampled_from([None, "", "a", "b", 5])
_pieces = st.sampled_from(["", "a", "{", "}", "\ud83d\ude00"])
_calls = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({}, optional={"name": _names, "arguments": _pieces | st.just({"x": 1})})},
    optional={"index": st.sampled_from([0, 0, 1, 3, None, "0"]), "id": _ids, "type": st.just("function")},
) | st.just({"custom": {"name": "sh", "input": "ls"}})
_details = st.sampled_from([{"text": "r"}, {"data": "d"}, {"signature": "s"}, {"summary": "t"}, 5])
_deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": _pieces | st.none() | st.just([{"type": "thinking", "thinking": [{"text": "t"}]}, {"text": "x"}]),
        "reasoning_content": _pieces | st.none(),
        "reasoning": _pieces,
        "reasoning_details": st.lists(_details, max_size=2),
        "refusal": _pieces | st.none(),
        "tool_calls": st.lists(_calls, max_size=2) | st.none(),
        "function_call": st.just({"name": "old", "arguments": "{"}) | st.none(),
        "annotations": st.just([{"type": "url_citation", "url_citation": {"url": "u"}}, 5]),
        "audio": st.sampled_from([{"data": "AA"}, {"transcript": "t"}, {}]),
        "images": st.just([{"image_url": {"url": "data:x,AA"}}]),
        "vendor": st.just(1),
    },
)
_choices = st.fixed_dictionaries(
    {"delta": _deltas | st.none()},
    optional={
        "index": st.sampled_from([0, 0, 0, 1, None, "x"]),
        "finish_reason": st.sampled_from([None, None, "stop", "length", "error", 5]),
        "logprobs": st.sampled_from([None, {"content": [{"token": "a"}]}, {"content": 5}]),
        "error": st.sampled_from([None, None, None, FAULT]),
    },
)
_simple = st.sampled_from([text("a"), text("b"), tool(0, arguments="1"), chunk({"reasoning": "r"}), STOP])
_chunks = _simple | st.fixed_dictionaries(
    {"choices": st.lists(_choices, max_size=2) | st.none()},
    optional={
        "id": st.sampled_from(["c1", "", None, 5]),
        "usage": st.sampled_from([None, USAGE, 5]),
        "service_tier": st.sampled_from(["x", None]),
        "x_groq": st.just({"usage": USAGE}),
        "error": st.sampled_from([None, None, None, "no", FAULT]),
    },
)
_data = st.one_of(_chunks, _chunks, _chunks, _chunks, st.sampled_from(["[DONE]", "", " "]))


@given(st.lists(_data, max_size=12))
def test_stream_when_it_is_anything_keeps_the_order(stream: list[Any]) -> None:
    """No stream of such chunks raises; order, fold and short way hold; the same of each beginning of it."""
    events = chat(*stream).events
    begun = chat(*stream[: len(stream) // 2], close=False).events
    assert events[: len(begun)] == begun


@given(st.text(max_size=30), st.sampled_from(["message", "error", "data"]))
def test_feed_when_the_data_is_any_text(data: str, name: str) -> None:
    """Events or an error of ours come of it."""
    wire = ChatWire(Limits())
    try:
        check_order(wire.feed(Frame(event=name, data=data)) + wire.close())
    except DecodeError as error:
        assert error.frame is not None  # noqa: PT017  # most texts raise, but not all
