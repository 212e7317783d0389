"""The wire of Anthropic's Messages API: every block, every oddity of recorded streams, and whatever else may come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiring import Told, Unscanned, extras, feed, frame, listen, said, unjoined

from eventflow import Dispatcher, Limits
from eventflow.errors import DecodeError, LimitExceeded
from eventflow.events import (
    FunctionCall,
    FunctionCallArgumentsDelta,
    InputTokensDetails,
    McpCall,
    OutputItemDone,
    OutputTokensDetails,
    Reasoning,
    ReasoningTextDelta,
    ResponseCreated,
    ResponseFailed,
    StreamError,
    TextAnnotationAdded,
    TextDelta,
    ToolCall,
    UnknownEvent,
    Untyped,
    URLCitation,
    Usage,
)
from eventflow.sse import Frame
from eventflow.testing import check_order
from eventflow.wires.anthropic import AnthropicWire

JSON = dict[str, Any]


def start(**fields: Any) -> JSON:
    """The message begins."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    return {"type": "message_start", "message": message | fields}


def block(kind: str, index: int = 0, **fields: Any) -> JSON:
    """A block begins."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def delta(kind: str, index: int = 0, **fields: Any) -> JSON:
    """A piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def text(piece: str, index: int = 0) -> JSON:
    """A piece of text."""
    return delta("text_delta", index, text=piece)


def arguments(piece: str, index: int = 0) -> JSON:
    """A piece of a call's input."""
    return delta("input_json_delta", index, partial_json=piece)


def stop(index: int = 0) -> JSON:
    """A block ends."""
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None = "end_turn", **usage: Any) -> list[JSON]:
    """The message ends."""
    change: JSON = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}}
    return [change | ({"usage": usage} if usage else {}), {"type": "message_stop"}]


def tool(index: int = 0, name: str = "look", call_id: str = "toolu_1", **fields: Any) -> JSON:
    """A call of a tool begins."""
    return block("tool_use", index, id=call_id, name=name, input={}, **fields)


def anthropic(*stream: Any, close: bool = True) -> Told:
    """What the wire makes of a stream; frames are named after their types."""
    named = [frame(each, each["type"]) if isinstance(each, dict) and "type" in each else each for each in stream]
    return listen(AnthropicWire, *named, close=close)


PING: JSON = {"type": "ping"}


# --- the message -----------------------------------------------------------------------------------------------------


def test_stream_when_it_is_plain() -> None:
    """The response has the message's id and model; pings say nothing."""
    told = anthropic(start(), block("text", text=""), PING, text("a"), text("b"), stop(), PING, *end())
    assert said(told.response) == ["ab"]
    response = told.response
    assert (response.id, response.model, response.status, response.usage) == ("msg_1", "m", "completed", None)
    assert [event.delta for event in told.of(TextDelta)] == ["a", "b"]
    assert extras(told.events) == {"stop_reason": "end_turn"}


def test_stream_when_its_frames_have_no_names_or_odd_ones() -> None:
    """The type in the data tells; without one, the name of the frame does."""
    stream = [start(), block("text"), text("a"), stop(), *end()]
    assert said(listen(AnthropicWire, *stream).response) == ["a"]
    assert said(listen(AnthropicWire, *(frame(each, "data") for each in stream)).response) == ["a"]
    bare = [frame({key: value for key, value in each.items() if key != "type"}, each["type"]) for each in stream]
    assert said(listen(AnthropicWire, *bare).response) == ["a"]


@pytest.mark.parametrize("mark", [frame("[DONE]", "data"), frame("[DONE]"), frame("", "ping"), frame(" ")])
def test_stream_when_a_gateway_adds_a_mark(mark: Frame) -> None:
    """It means nothing, in the middle or at the end."""
    assert said(anthropic(start(), mark, block("text"), mark, text("a"), stop(), *end(), mark).response) == ["a"]


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("end_turn", None),
        ("stop_sequence", None),
        ("tool_use", None),
        ("max_tokens", "max_output_tokens"),
        ("model_context_window_exceeded", "max_output_tokens"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        ("compaction", "compaction"),
        ("what is new", None),
        (None, None),
    ],
)
def test_end_when_a_reason_is_given(reason: str | None, why: str | None) -> None:
    """Some reasons say that the answer is not whole."""
    response = anthropic(start(), block("text"), text("a"), stop(), *end(reason)).response
    details = response.incomplete_details
    assert details == (None if why is None else type(details)(reason=why))  # type: ignore[misc]
    assert (response.status == "completed") is (why is None)


def test_end_when_only_the_reason_came() -> None:
    """The end of the body is the end of the answer then, and not without a reason."""
    assert anthropic(start(), block("text"), text("a"), stop(), end()[0]).response.status == "completed"
    cut = anthropic(start(), block("text"), text("a"), stop())
    assert cut.response.status == "in_progress"
    assert not cut.of(OutputItemDone)


def test_stream_when_it_goes_on_after_the_end() -> None:
    """What comes then is not of the answer."""
    assert said(anthropic(start(), block("text"), text("a"), stop(), *end(), text("b"), *end()).response) == ["a"]


@pytest.mark.parametrize("first", [text("a"), block("text", text="a")])
def test_stream_when_its_beginning_is_lost(first: JSON) -> None:
    """The response has no id, and begins all the same."""
    told = anthropic(first, stop(), *end())
    assert said(told.response) == ["a"]
    assert told.response.id is None
    assert anthropic({"type": "message_stop"}).response.status == "completed"
    assert anthropic(PING).events == anthropic().events == []


def test_usage_when_it_is_in_both_places() -> None:
    """What was said last counts; what was cached is not among the input tokens."""
    first = {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}
    last = {"output_tokens": 7, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 3}}
    told = anthropic(start(usage=first), *end("end_turn", **last))
    assert told.response.usage == Usage(
        input_tokens=9,
        output_tokens=7,
        input_tokens_details=InputTokensDetails(cached_tokens=4, cache_write_tokens=2),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=3),
    )
    whole = {key: value for key, value in last.items() if value is not None}
    assert extras(told.events)["usage"] == first | whole
    told = anthropic(start(usage={"input_tokens": "9"}), *end())
    assert told.response.usage is not None
    assert told.response.usage.input_tokens is None


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("text", delta("text_delta", text={"a": 1})),
        ("thinking", delta("thinking_delta", thinking=[])),
        ("tool_use", delta("input_json_delta", partial_json={"city": "Paris"})),
    ],
)
def test_piece_when_it_is_no_text(kind: str, given: JSON) -> None:
    """It cannot be told on, and must not get lost unseen: that is an error. None is no piece at all."""
    with pytest.raises(DecodeError, match=r"of a delta is (dict|list), not text"):
        anthropic(start(), block(kind), given)
    anthropic(
        start(), block(kind), {**given, "delta": dict.fromkeys(given["delta"]) | {"type": given["delta"]["type"]}}
    )


def test_fields_when_nobody_knows_them_are_kept() -> None:
    """Those of the message, of its change, of pieces and blocks, and events that would pass for ours."""
    change: JSON = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "container": {"id": "c"}}}
    told = anthropic(
        start(container={"id": "b"}, context_management=None),
        {"type": "response.completed", "n": 1},
        {"type": "response.completed", "n": 2},
        block("thinking", thinking=""),
        delta("thinking_delta", thinking="a", estimated_tokens=5),
        stop(),
        tool(1, caller={"type": "direct"}),
        stop(1),
        change | {"context_management": {"edits": []}},
        {"type": "message_stop"},
    )
    assert told.events[0].extra == {"container": {"id": "b"}}  # type: ignore[attr-defined]
    assert extras(told.events) == {
        "container": {"id": "c"},
        "response.completed": [{"type": "response.completed", "n": 1}, {"type": "response.completed", "n": 2}],
        "estimated_tokens": 5,
        "stop_reason": "end_turn",
        "context_management": {"edits": []},
    }


def test_events_when_nobody_knows_their_type() -> None:
    """Each is passed on as it was sent, in its place, with or without a message."""
    first, second = {"type": "vendor_event", "n": 1}, {"type": "vendor_event", "n": 2}
    told = anthropic(first, start(), first, second, block("text", text="a"), stop(), *end())
    assert [(event.type, event.data) for event in told.of(UnknownEvent)] == [
        ("vendor_event", first), ("vendor_event", first), ("vendor_event", second)
    ]  # fmt: skip
    assert [event.type for event in told.events][:4] == ["vendor_event", "response.created"] + ["vendor_event"] * 2


# --- text and citations ----------------------------------------------------------------------------------------------


def test_texts_when_they_follow_each_other_are_parts_of_one_message() -> None:
    """So it is with texts that cite; anything else between them makes two."""
    told = anthropic(
        start(), block("text"), text("a"), stop(), block("text", 1, text="b"), stop(1), tool(2), stop(2),
        block("text", 3), text("c", 3), stop(3), *end(),
    )  # fmt: skip
    assert said(told.response) == ["ab", ("look", "{}", "toolu_1"), "c"]
    assert [len(item.content) for item in told.response.output if item.type == "message"] == [2, 1]  # type: ignore[union-attr]


LOCATIONS: list[JSON] = [
    {"type": "char_location", "cited_text": "x", "document_index": 0, "start_char_index": 0, "end_char_index": 1},
    {"type": "page_location", "cited_text": "x", "document_index": 0, "start_page_number": 1, "end_page_number": 2},
    {"type": "content_block_location", "cited_text": "x", "start_block_index": 0, "end_block_index": 1},
    {"type": "search_result_location", "cited_text": "x", "source": "s", "search_result_index": 0},
]
PAGE: JSON = {"type": "web_search_result_location", "url": "https://a.org", "title": "A", "encrypted_index": "e"}


def test_citations_when_sent() -> None:
    """Pages of a search are as the Responses API has them, others stay as they are."""
    cited = [delta("citations_delta", citation=location) for location in (*LOCATIONS[1:], PAGE)]
    told = anthropic(start(), block("text", citations=LOCATIONS[:1]), text("a"), *cited, stop(), *end())
    expected = [*map(Untyped, LOCATIONS), URLCitation("https://a.org", "A")]
    assert [event.annotation for event in told.of(TextAnnotationAdded)] == expected
    assert told.response.output[0].content[0].annotations == tuple(expected)  # type: ignore[union-attr]
    assert extras(told.events)["citation"] == PAGE


# --- thinking --------------------------------------------------------------------------------------------------------


def test_thinking_when_it_is_signed() -> None:
    """Its signature is what must be sent back with it."""
    told = anthropic(
        start(),
        block("thinking", thinking="", signature=""),
        delta("thinking_delta", thinking="a"),
        delta("thinking_delta", thinking="b"),
        delta("signature_delta", signature="s"),
        stop(),
        block("thinking", 1, thinking="c", signature="t"),
        stop(1),
        block("redacted_thinking", 2, data="d"),
        stop(2),
        block("text", 3),
        text("x", 3),
        stop(3),
        *end(),
    )
    assert said(told.response) == [("thought", "ab"), ("thought", "c"), ("thought", ""), "x"]
    thoughts = [item.encrypted_content for item in told.response.output if isinstance(item, Reasoning)]
    assert thoughts == ["s", "t", "d"]
    assert [event.delta for event in told.of(ReasoningTextDelta)] == ["a", "b", "c"]


# --- calls -----------------------------------------------------------------------------------------------------------


def test_call_when_its_input_comes_in_pieces() -> None:
    """Empty pieces say nothing."""
    told = anthropic(start(), tool(), arguments(""), arguments('{"a"'), arguments(":1}"), stop(), *end("tool_use"))
    assert said(told.response) == [("look", '{"a":1}', "toolu_1")]
    assert [event.delta for event in told.of(FunctionCallArgumentsDelta)] == ['{"a"', ":1}"]


@pytest.mark.parametrize(("given", "expected"), [({}, "{}"), (None, "{}"), ({"a": 1}, '{"a":1}')])
def test_call_when_its_input_has_no_pieces(given: Any, expected: str) -> None:
    """A tool without parameters has an empty object; one that was sent whole has what came with it."""
    told = anthropic(start(), block("tool_use", id="t", name="f", input=given), stop(), *end("tool_use"))
    assert said(told.response) == [("f", expected, "t")]


SEARCH: JSON = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "https://a.org"}]}


def test_server_tool_when_it_has_a_result() -> None:
    """The call and its result are one item, which is complete with the result."""
    told = anthropic(
        start(),
        block("server_tool_use", id="srv_1", name="web_search", input={}),
        arguments('{"query":"a"}'),
        stop(),
        block("web_search_tool_result", 1, tool_use_id="srv_1", content=SEARCH["content"]),
        stop(1),
        block("text", 2),
        text("x", 2),
        stop(2),
        *end(),
    )
    call, _ = told.response.output
    assert isinstance(call, McpCall)
    assert (call.id, call.name, call.arguments, call.status) == ("srv_1", "web_search", '{"query":"a"}', "completed")
    assert call.output == SEARCH


def test_mcp_tool_when_it_has_a_result() -> None:
    """It has the server's name too."""
    told = anthropic(
        start(),
        block("mcp_tool_use", id="m_1", name="echo", input={"a": 1}, server_name="s"),
        stop(),
        block("mcp_tool_result", 1, tool_use_id="m_1", is_error=False, content=[]),
        stop(1),
        *end(),
    )
    (call,) = told.response.output
    assert isinstance(call, McpCall)
    assert (call.server_label, call.arguments, call.output["is_error"]) == ("s", '{"a":1}', False)


def test_server_tool_when_it_has_no_result() -> None:
    """It is closed with the answer; a result of no call, and one that names none, are items of their own."""
    told = anthropic(
        start(),
        block("server_tool_use", id="srv_2", name="web_search", input={}),
        stop(),
        block("server_tool_use", 1, name="web_search", input={}),
        stop(1),
        block("web_search_tool_result", 2, tool_use_id="srv_1"),
        stop(2),
        block("web_search_tool_result", 3),
        stop(3),
        *end("pause_turn"),
    )
    statuses = [(item.type, item.status) for item in told.response.output]
    assert statuses == [
        ("mcp_call", "incomplete"),
        ("mcp_call", "completed"),
        ("web_search_tool_result", None),
        ("web_search_tool_result", None),
    ]


def test_server_tools_when_two_have_one_id() -> None:
    """The result is the first one's; no call is lost."""
    begun = {"id": "srv_1", "name": "web_search", "input": {}}
    told = anthropic(
        start(), block("server_tool_use", **begun), stop(), block("server_tool_use", 1, **begun), stop(1),
        block("web_search_tool_result", 2, tool_use_id="srv_1"), stop(2), *end(),
    )  # fmt: skip
    calls = [item for item in told.response.output if isinstance(item, McpCall)]
    assert [(call.id, call.output is None) for call in calls] == [("srv_1", False), ("fc_1_msg_1", True)]


# --- other blocks ----------------------------------------------------------------------------------------------------


def test_blocks_when_nobody_knows_them_are_passed_on() -> None:
    """With what their pieces add: texts go on, other values take the place of what was there."""
    told = anthropic(
        start(),
        block("vendor", data="a", n=1),
        delta("vendor_delta", data="b", n=2, more=[1], nothing=None),
        text("c"),
        arguments("{}"),
        stop(),
        *end(),
    )
    (item,) = told.response.output
    assert isinstance(item, Untyped)
    assert item.data == {"type": "vendor", "data": "ab", "n": 2, "more": [1], "text": "c", "partial_json": "{}"}


def test_blocks_when_a_conversation_was_compacted() -> None:
    """The summary is an item of its own type."""
    told = anthropic(
        start(), block("compaction", content=None), delta("compaction_delta", content="so far"), stop(),
        *end("compaction"),
    )  # fmt: skip
    assert dict(told.response.output[0]) == {"type": "compaction", "content": "so far"}  # type: ignore[call-overload]
    assert told.response.status == "incomplete"


@pytest.mark.parametrize(("to", "model"), [({"model": "n"}, "n"), ({}, None), (None, None)])
def test_blocks_when_another_model_goes_on(to: Any, model: str | None) -> None:
    """The response is of that model then."""
    told = anthropic(start(), block("fallback", **{"from": {"model": "m"}, "to": to}), stop(), *end())
    assert told.response.model == model
    (created,) = told.of(ResponseCreated)
    assert created.response.model == "m"


# --- blocks out of order ---------------------------------------------------------------------------------------------


def test_blocks_when_they_overlap() -> None:
    """Each is an item of its own; two texts at once are two messages."""
    told = anthropic(
        start(), block("text"), text("a"), block("text", 1), tool(2), text("b", 1), arguments("{", 2), text("c"),
        stop(), arguments("}", 2), stop(2), text("d", 1), stop(1), block("text", 3, text="e"), stop(3), *end(),
    )  # fmt: skip
    assert said(told.response) == ["ac", "bd", ("look", "{}", "toolu_1"), "e"]
    assert [event.output_index for event in told.of(OutputItemDone)] == [0, 2, 1, 3]


def test_blocks_when_many_overlap() -> None:
    """Those that are open are not gone through for each that opens."""
    wire = AnthropicWire(Limits())
    wire._keys = Unscanned()
    events = feed(wire, map(frame, [start(), block("text"), block("text", 1), tool(2), stop(1), text("a"), stop()]))
    assert isinstance(events[-1], OutputItemDone)


def test_blocks_when_they_never_stop() -> None:
    """They are complete with the answer; incomplete when the answer is."""
    told = anthropic(start(), block("text"), text("a"), tool(1), *end("tool_use"))
    assert said(told.response) == ["a", ("look", "{}", "toolu_1")]
    assert [item.status for item in told.response.output] == ["completed", "completed"]
    told = anthropic(start(), tool(1), arguments('{"a', 1), *end("max_tokens"))
    assert [item.status for item in told.response.output] == ["incomplete"]


def test_blocks_when_an_index_is_opened_twice() -> None:
    """The one before will not be completed."""
    told = anthropic(start(), tool(), arguments('{"a'), tool(0, "see", "toolu_2"), arguments("{}"), stop(), *end())
    assert said(told.response) == [("look", '{"a', "toolu_1"), ("see", "{}", "toolu_2")]
    assert [item.status for item in told.response.output] == ["incomplete", "completed"]


@pytest.mark.parametrize("stray", [stop(5), stop(), {"type": "content_block_stop"}])
def test_blocks_when_one_stops_that_is_not_open(stray: JSON) -> None:
    """That means nothing."""
    told = anthropic(start(), block("text", 1), text("a", 1), stray, text("b", 1), stop(1), stop(1), *end())
    assert said(told.response) == ["ab"]


@pytest.mark.parametrize("index", [None, "0", [0], {}, 1.5])
def test_blocks_when_the_index_is_no_number(index: Any) -> None:
    """They are one block after the other."""
    stream = [each | {"index": index} for each in (block("text"), text("a"), stop(), tool(), stop())]
    assert said(anthropic(start(), *stream, *end()).response) == ["a", ("look", "{}", "toolu_1")]


def test_pieces_when_their_block_was_never_opened() -> None:
    """Text and thinking open one; others are kept."""
    told = anthropic(
        start(), delta("thinking_delta", thinking="t"), stop(), text("a", 1), stop(1), arguments("{}", 2), *end()
    )
    assert said(told.response) == [("thought", "t"), "a"]
    assert extras(told.events)["delta"] == {"type": "input_json_delta", "partial_json": "{}"}


WRONG = [
    ("text", arguments("{}")),
    ("text", delta("signature_delta", signature="s")),
    ("text", delta("thinking_delta", thinking="t")),
    ("thinking", text("a")),
    ("thinking", delta("citations_delta", citation=PAGE)),
    ("redacted_thinking", delta("thinking_delta", thinking="t")),
    ("tool_use", text("a")),
    ("tool_use", delta("signature_delta", signature="s")),
    ("server_tool_use", delta("vendor_delta", x=1)),
]


@pytest.mark.parametrize(("kind", "piece"), WRONG)
def test_pieces_when_they_do_not_fit_their_block(kind: str, piece: JSON) -> None:
    """They are kept, and change nothing."""
    whole = anthropic(start(), block(kind), stop(), *end())
    told = anthropic(start(), block(kind), piece, stop(), *end())
    assert told.response.output == whole.response.output
    assert extras(told.events)["delta"] == piece["delta"]


# --- a message that begins again -------------------------------------------------------------------------------------


def test_message_when_it_begins_again() -> None:
    """What was open is incomplete, and is never told as a call; the rest is the answer."""
    told = anthropic(
        start(),
        block("text"),
        text("a"),
        stop(),
        block("server_tool_use", 1, id="srv_1", name="web_search", input={}),
        stop(1),
        tool(2),
        arguments('{"value":"Spark', 2),
        block("text", 3),
        text("b", 3),
        start(id="msg_2"),
        block("web_search_tool_result", 0, tool_use_id="srv_1"),
        stop(),
        block("text", 1),
        text("c", 1),
        stop(1),
        tool(2, "look", "toolu_2"),
        arguments('{"value":1}', 2),
        stop(2),
        *end("tool_use"),
    )
    assert [(item.type, item.status) for item in told.response.output] == [
        ("message", "completed"),
        ("mcp_call", "incomplete"),
        ("function_call", "incomplete"),
        ("message", "incomplete"),
        ("web_search_tool_result", None),
        ("message", "completed"),
        ("function_call", "completed"),
    ]
    calls = [item for item in told.response.output if isinstance(item, FunctionCall)]
    assert [call.arguments for call in calls] == ['{"value":"Spark', '{"value":1}']
    assert told.response.id == "msg_1"
    assert extras(told.events)["message_start"]["id"] == "msg_2"
    empty = anthropic(start(), tool(), start(), *end())
    assert said(empty.response) == [("look", "", "toolu_1")]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "last",
    [
        frame({"type": "error", "error": {"type": "overloaded_error", "message": "too much"}}, "error"),
        frame({"type": "error", "error": {"type": "overloaded_error", "message": "too much"}}),
        frame({"error": {"type": "overloaded_error", "message": "too much"}}),
        frame({"type": "overloaded_error", "message": "too much"}, "error"),
    ],
    ids=["both", "data", "bare", "flat"],
)
def test_error_when_it_comes_in_the_stream(last: Frame) -> None:
    """The answer has failed, with what was received and used; nothing after it counts."""
    usage = {"input_tokens": 3}
    told = anthropic(start(usage=usage), block("text"), text("a"), tool(1), last, text("b"), *end())
    error, failed = told.events[-2:]
    assert isinstance(error, StreamError)
    assert (error.message, error.error_type) == ("too much", "overloaded_error")
    assert isinstance(failed, ResponseFailed)
    assert [item.status for item in told.response.output] == ["incomplete", "incomplete"]
    assert told.response.usage is not None


@pytest.mark.parametrize("data", ["out of memory", '"out of memory"'])
def test_error_when_it_is_text(data: str) -> None:
    """Plain text is its message; before the beginning it is the error alone."""
    told = anthropic(frame(data, "error"), start())
    assert [event.to_dict() for event in told.events] == [
        {"type": "error", "message": "out of memory", "sequence_number": 0}
    ]


@pytest.mark.parametrize("data", ["[1]", "null", "x", "{", '"a"', "\ud800"])
def test_event_when_it_is_no_object(data: str) -> None:
    """The error shows it."""
    with pytest.raises(DecodeError, match="no JSON object"):
        AnthropicWire(Limits()).feed(frame(data))


def test_event_when_it_is_too_deep() -> None:
    """The depth that is allowed is the wire's."""
    with pytest.raises(LimitExceeded):
        AnthropicWire(Limits(json_depth=1)).feed(frame(start()))
    assert AnthropicWire(Limits(json_depth=None)).feed(frame(start()))


# --- the choice of the wire, and the short way -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "fits"),
    [
        (frame(start()), True),
        (frame("{", "message_start"), True),
        (frame(PING), True),
        (frame({"type": "response.created"}), False),
        (frame({"type": 5}), False),
        (frame("x"), False),
    ],
)
def test_fits_when_asked(first: Frame, fits: bool) -> None:
    """The type tells, or the name of the frame."""
    assert AnthropicWire.fits(first) is fits
    assert AnthropicWire.name == "anthropic"
    assert AnthropicWire.direct("message") is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("content_block_start", b"{}"),
        ("content_block_delta", b"{"),
        ("content_block_delta", b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}'),
        ("message", b'{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}'),
        ("message", b'{"type":"content_block_delta","index":2,"delta":{"type":"thinking_delta","thinking":""}}'),
        ("message", b'{"type":"content_block_delta","index":9,"delta":{"type":"text_delta","text":"a"}}'),
        ("message", b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a","x":1}}'),
    ],
)
def test_delta_when_a_frame_is_more_than_a_piece(name: str, data: bytes) -> None:
    """It goes the long way."""
    wire = AnthropicWire(Limits())
    feed(wire, map(frame, [start(), block("text"), tool(1), block("thinking", 2)]), close=False)
    assert wire.delta(name, data) is None


def test_delta_when_a_frame_is_a_piece_gives_its_event() -> None:
    """Text, thinking and input take the short way."""
    wire = AnthropicWire(Limits())
    feed(wire, map(frame, [start(), block("text"), tool(1), block("thinking", 2)]), close=False)
    for piece, cls in (
        (text("a"), TextDelta),
        (arguments("{", 1), FunctionCallArgumentsDelta),
        (delta("thinking_delta", 2, thinking="t"), ReasoningTextDelta),
    ):
        assert isinstance(wire.delta("content_block_delta", frame(piece).data.encode()), cls)


def test_call_when_it_is_cut_by_the_limit_of_tokens() -> None:
    """Its block stops before the reason is told: it is incomplete all the same, and nobody is asked to run it."""
    stream = [start(), tool(), arguments('{"city": "Par'), stop(), *end("max_tokens")]
    told = anthropic(*stream)
    assert [(item.arguments, item.status) for item in told.response.tool_calls] == [('{"city": "Par', "incomplete")]
    for pieces, calls in (('{"city": "Par', []), ('{"city": "Paris"}', ['{"city": "Paris"}'])):
        flow, asked = Dispatcher(), list[str]()
        flow.on(ToolCall, lambda event, asked=asked: asked.append(event.arguments))
        run = flow.run([frame(each) for each in (start(), tool(), arguments(pieces), stop(), *end("max_tokens"))])
        assert (run.status, asked) == ("incomplete", calls)


# --- what grows ------------------------------------------------------------------------------------------------------


def test_blocks_when_they_come_in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures, and fields of blocks of unknown types, are joined once, at the end."""
    monkeypatch.setattr("eventflow.wires.translation._read_any", unjoined)
    told = anthropic(
        start(),
        block("thinking", signature="s"),
        *(delta("signature_delta", signature="s") for _ in range(3000)),
        stop(),
        block("vendor", 1, content="c", note="n", tool_use_id="x"),
        *(delta("vendor_delta", 1, content="c", tool_use_id="x") for _ in range(3000)),
        *(delta("vendor_delta", 1, note=note, more=more) for note, more in ((1, "a"), ("m", "b"), ("m", None))),
        stop(1),
        *end(),
    )
    thought, vendor = told.response.output
    assert isinstance(thought, Reasoning)
    assert thought.encrypted_content == "s" * 3001
    assert isinstance(vendor, Untyped)
    assert dict(vendor) == {
        "type": "vendor", "content": "c" * 3001, "note": "mm", "tool_use_id": "x" * 3001, "more": "ab"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("opened", "piece"),
    [
        (block("thinking"), delta("signature_delta", signature="x" * 10)),
        (block("vendor"), delta("vendor_delta", content="x" * 10)),
        (block("vendor"), delta("vendor_delta", content=["x" * 6])),
    ],
)
def test_blocks_when_their_pieces_are_too_many(opened: JSON, piece: JSON) -> None:
    """They are counted as they come, for no event tells of them before they are complete."""
    wire = AnthropicWire(Limits(text=99))
    stream = [frame(each) for each in (start(), opened, *[piece] * 10)]
    with pytest.raises(LimitExceeded) as caught:
        feed(wire, stream)
    assert (caught.value.limit, caught.value.maximum, caught.value.seen) == ("text", 99, 100)
    assert feed(AnthropicWire(Limits(text=None)), stream)


# --- any stream ------------------------------------------------------------------------------------------------------

_index = st.sampled_from([0, 0, 1, 2, None])
_words = st.sampled_from(["", "a", "{", "}"])
_kinds = st.sampled_from(
    [
        "text",
        "text",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "server_tool_use",
        "mcp_tool_use",
        "web_search_tool_result",
        "fallback",
        "vendor",
        "",
    ]
)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "text": _words,
        "thinking": _words,
        "signature": _words,
        "data": _words,
        "id": st.sampled_from(["a", "b", ""]),
        "tool_use_id": st.sampled_from(["a", "b", ""]),
        "name": _words,
        "input": st.sampled_from([{}, {"a": 1}, None]),
        "citations": st.just([PAGE, 5]),
        "to": st.just({"model": "n"}),
    },
)


def _block(kind: str, index: Any, fields: JSON) -> JSON:
    """Make a block; those that are passed on have no id, for two of one id are one item to who folds events."""
    return block(kind, index, **(fields if kind.endswith("_use") else fields | {"id": None}))


_blocks = st.builds(_block, _kinds, _index, _fields)
_deltas = st.builds(
    lambda kind, index, fields: delta(kind, index, **fields),
    st.sampled_from([*(f"{kind}_delta" for kind in ("text", "thinking", "signature", "input_json", "citations")), "x"]),
    _index,
    st.fixed_dictionaries(
        {},
        optional={
            "text": _words,
            "thinking": _words,
            "signature": _words,
            "partial_json": _words,
            "citation": st.just(PAGE),
        },
    ),
)
_simple = st.sampled_from([text("a"), text("b"), text("c", 1), arguments("1"), arguments("2", 1), stop(), stop(1)])
_other = st.sampled_from(
    [start(), start(), stop(), stop(1), stop(2), PING, {"type": "vendor"}, {"error": "no"}, {"type": 5}, *end(), *end()]
)


@given(st.lists(st.one_of(_blocks, _deltas, _simple, _simple, _other), max_size=16))
def test_stream_when_it_is_anything_keeps_the_order(stream: list[Any]) -> None:
    """No stream of such events raises; order, fold and short way hold; the same of each beginning of it."""
    events = listen(AnthropicWire, *stream).events
    begun = listen(AnthropicWire, *stream[: len(stream) // 2], close=False).events
    assert events[: len(begun)] == begun


@given(st.text(max_size=30), st.sampled_from(["message", "error", "content_block_delta", "ping"]))
def test_feed_when_the_data_is_any_text(data: str, name: str) -> None:
    """Events or an error of ours come of it."""
    wire = AnthropicWire(Limits())
    try:
        check_order(wire.feed(Frame(event=name, data=data)) + wire.close())
    except DecodeError as error:
        assert error.frame is not None  # noqa: PT017  # most texts raise, but not all
