"""The wire of the Gemini API: every part, every oddity of recorded streams, and whatever else may come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiring import Told, extras, feed, frame, listen, said, unjoined

from eventflow import Limits
from eventflow.errors import DecodeError, LimitExceeded
from eventflow.events import (
    CodeInterpreterCall,
    FunctionCallArgumentsDelta,
    ImageGenerationCall,
    InputTokensDetails,
    OutputItemAdded,
    OutputItemDone,
    OutputTokensDetails,
    Reasoning,
    ResponseFailed,
    StreamError,
    TextDelta,
    Untyped,
    Usage,
)
from eventflow.sse import Frame
from eventflow.sse import decode as frames_of
from eventflow.testing import check_order
from eventflow.wires.gemini import GeminiWire

JSON = dict[str, Any]


def chunk(*parts: JSON, finish: str | None = None, index: int | None = None, **fields: Any) -> JSON:
    """A chunk with one candidate; *fields* are the chunk's."""
    candidate: JSON = {"content": {"role": "model", "parts": list(parts)}}
    candidate |= {} if finish is None else {"finishReason": finish}
    candidate |= {} if index is None else {"index": index}
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r1", **fields}


def text(piece: str, **fields: Any) -> JSON:
    """A part with text."""
    return {"text": piece, **fields}


def call(name: str | None = "look", **fields: Any) -> JSON:
    """A part with a call, or with more of one."""
    return {"functionCall": ({"name": name} if name else {}) | fields}


def piece(path: str, **value: Any) -> JSON:
    """A piece of an argument of a call that goes on."""
    return call(None, partialArgs=[{"jsonPath": path, **value}], willContinue=True)


STOP = chunk(finish="STOP")


def gemini(*stream: Any, close: bool = True) -> Told:
    """What the wire makes of a stream."""
    return listen(GeminiWire, *stream, close=close)


# --- the stream ------------------------------------------------------------------------------------------------------


def test_stream_when_it_is_plain() -> None:
    """The response has the first chunk's id, model and time; texts are one message; the body's end is the answer's."""
    told = gemini(chunk(text("a"), createTime="2026-11-01"), chunk(text("b")), chunk(text("c"), finish="STOP"))
    response = told.response
    assert (response.id, response.model, response.status, response.usage) == ("r1", "m", "completed", None)
    assert said(response) == ["abc"]
    assert [event.delta for event in told.of(TextDelta)] == ["a", "b", "c"]
    assert extras(told.events) == {"createTime": "2026-11-01", "finishReason": "STOP"}


def test_stream_when_its_frames_end_in_crlf() -> None:
    """So Google sends them; they are the same."""
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\r\n\r\n" for each in (chunk(text("a")), STOP))
    assert said(gemini(*frames_of([body])).response) == ["a"]


@pytest.mark.parametrize("nothing", [frame("[DONE]"), frame(""), frame(" "), frame({}), frame({"candidates": []})])
def test_stream_when_a_frame_says_nothing(nothing: Frame) -> None:
    """It changes nothing."""
    assert said(gemini(chunk(text("a")), nothing, STOP, nothing).response) == ["a"]


@pytest.mark.parametrize(
    "odd", [None, 5, {}, {"content": None}, {"content": {"parts": 5}}, {"content": {"parts": [5]}}]
)
def test_stream_when_a_candidate_has_no_parts(odd: Any) -> None:
    """It says nothing, whatever is in the place of parts."""
    assert said(gemini(chunk(text("a")), {"candidates": [odd]}, chunk({}, text("")), STOP).response) == ["a"]


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("STOP", None),
        ("FINISH_REASON_UNSPECIFIED", None),
        ("MAX_TOKENS", "max_output_tokens"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("what is new", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"),
        ("UNEXPECTED_TOOL_CALL", "malformed_function_call"),
        ("OTHER", "other"),
    ],
)
def test_finish_when_a_reason_is_given(reason: str, why: str | None) -> None:
    """All reasons but one say that the answer is not whole."""
    response = gemini(chunk(text("a"), finish=reason)).response
    details = response.incomplete_details
    assert (response.status, details and details.reason) == ("incomplete" if why else "completed", why)


def test_finish_when_a_reason_comes_more_than_once() -> None:
    """The last one counts, and text after it is still of the answer."""
    told = gemini(
        chunk(text("a"), finish="STOP"), chunk(text("b"), finish="MAX_TOKENS"), chunk(text("c"), finish="STOP")
    )
    assert said(told.response) == ["abc"]
    assert told.response.status == "completed"


def test_finish_when_no_reason_comes() -> None:
    """The answer is cut: no event says that it ended."""
    told = gemini(chunk(text("a")))
    assert told.response.status == "in_progress"
    assert [event.type for event in told.events][-1] == "response.output_text.delta"
    assert gemini().events == []


def test_prompt_when_it_is_blocked() -> None:
    """The answer is empty, and incomplete; feedback beside an answer is only kept."""
    feedback = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    told = gemini(feedback | {"usageMetadata": {"promptTokenCount": 4}})
    assert told.response.status == "incomplete"
    assert told.response.incomplete_details is not None
    assert told.response.incomplete_details.reason == "content_filter"
    assert extras(told.events)["promptFeedback"] == feedback["promptFeedback"]
    assert gemini(chunk(text("a"), **feedback), STOP).response.status == "completed"
    assert gemini(chunk(text("a"), index=1), feedback).response.status == "incomplete"


def test_candidates_when_one_is_cut() -> None:
    """The body's end is the answer's only when every candidate has its reason."""
    told = gemini(chunk(text("a"), index=0), chunk(text("x"), index=1), STOP)
    assert told.response.status == "in_progress"
    assert gemini(chunk(text("a"), finish="STOP"), chunk(text("x"), index=1)).response.status == "in_progress"


def test_candidates_when_there_are_several() -> None:
    """Each is items of its own."""
    both = {"candidates": [chunk(text("b"))["candidates"][0], chunk(text("y"), index=1)["candidates"][0]]}
    told = gemini(chunk(text("a"), index=0), chunk(text("x"), index=1), both, STOP, chunk(finish="SAFETY", index=1))
    assert said(told.response) == ["ab", "xy"]
    assert told.response.status == "incomplete"


# --- usage, and what has no place ------------------------------------------------------------------------------------


def test_usage_when_sent() -> None:
    """The last one counts; thoughts, which are not among the candidates' tokens, are added to them."""
    first = {"promptTokenCount": 5, "totalTokenCount": 5}
    last = {"candidatesTokenCount": 7, "thoughtsTokenCount": 2, "totalTokenCount": 14, "cachedContentTokenCount": 1}
    told = gemini(chunk(text("a"), usageMetadata=first), chunk(usageMetadata=last, finish="STOP"))
    expected = Usage(5, 9, 14, InputTokensDetails(cached_tokens=1), OutputTokensDetails(reasoning_tokens=2))
    assert told.response.usage == expected
    assert extras(told.events)["usage"] == first | last


@pytest.mark.parametrize(
    ("sent", "given"),
    [
        ({"promptTokenCount": 5}, (5, None)),
        ({"promptTokenCount": "5", "thoughtsTokenCount": 2}, (None, 2)),
        ({"candidatesTokenCount": 7.0}, (None, 7)),
    ],
)
def test_usage_when_some_of_it_is_missing(sent: JSON, given: Any) -> None:
    """What was not said is None."""
    usage = gemini(chunk(text("a"), usageMetadata=sent, finish="STOP")).response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == given


def test_usage_when_it_counts_nothing() -> None:
    """There is none."""
    assert gemini(chunk(text("a"), usageMetadata={"trafficType": "x"}, finish="STOP")).response.usage is None


def test_fields_when_they_have_no_place_are_kept() -> None:
    """Grounding, safety and whatever is new, where it changes."""
    grounded = chunk(text("b"), finish="STOP", vendor=1)
    grounded["candidates"][0] |= {"groundingMetadata": {"webSearchQueries": ["q"]}, "safetyRatings": [{"x": 1}]}
    told = gemini(chunk(text("a"), vendor=1), grounded)
    assert extras(told.events) == {
        "vendor": 1,
        "groundingMetadata": {"webSearchQueries": ["q"]},
        "safetyRatings": [{"x": 1}],
        "finishReason": "STOP",
    }
    assert [event.extra and event.extra.get("vendor") for event in told.of(TextDelta)] == [None, None]


# --- thoughts --------------------------------------------------------------------------------------------------------


def test_thoughts_when_they_are_signed() -> None:
    """A thought is an item of its own; its signature is what must be sent back with it."""
    told = gemini(
        chunk(text("a", thought=True)),
        chunk(text("b", thought=True, thoughtSignature="s")),
        chunk(text("x")),
        chunk(text("", thoughtSignature="t")),
        chunk(text("c", thought=True)),
        STOP,
    )
    assert said(told.response) == [("thought", "ab"), "x", ("thought", ""), ("thought", "c")]
    turns = [event.output_index for event in told.events if isinstance(event, OutputItemAdded | OutputItemDone)]
    assert turns == [0, 0, 1, 1, 2, 2, 3, 3]
    seals = [item.encrypted_content for item in told.response.output if isinstance(item, Reasoning)]
    assert seals == ["s", "t", None]


def test_thoughts_when_there_is_but_a_signature() -> None:
    """It is kept in an item without text, or one of its own."""
    told = gemini(chunk(text("", thought=True, thoughtSignature="s")), chunk({"thoughtSignature": "t"}), STOP)
    assert told.response.output[0].encrypted_content == "s"  # type: ignore[union-attr]
    assert told.response.output[1] == Untyped({"type": "thoughtSignature", "thoughtSignature": "t"})


# --- calls -----------------------------------------------------------------------------------------------------------


def test_calls_when_they_come_whole() -> None:
    """Each is a call with its arguments as JSON; those without an id get one, for outputs to name."""
    told = gemini(
        chunk(text("x"), call(args={"a": 1}), call("see", id="c7"), {**call("go", args={}), "thoughtSignature": "s"}),
        STOP,
    )
    assert said(told.response) == [
        "x",
        ("look", '{"a":1}', "call_2"),
        ("see", "{}", "c7"),
        ("thought", ""),  # the signature, which must be sent back before the call
        ("go", "{}", "call_5"),
    ]
    assert told.response.output[3].encrypted_content == "s"  # type: ignore[union-attr]


def test_call_when_its_arguments_come_in_pieces() -> None:
    """They are put together by their paths, and told when the call is complete."""
    told = gemini(
        chunk(call(willContinue=True)),
        chunk(piece("$.city", stringValue="Bos", willContinue=True)),
        chunk(piece("$.city", stringValue="ton")),
        chunk(piece("$.days[0].n", numberValue=3), piece("$.days[1]['a.b']", boolValue=True)),
        chunk(piece("$.none", nullValue=None), piece("$.days[1].n", numberValue=4.5)),
        chunk(call(None)),
        chunk(text("x")),
        STOP,
    )
    expected = {"city": "Boston", "days": [{"n": 3}, {"a.b": True, "n": 4.5}], "none": None}
    (name, arguments, call_id), after = said(told.response)
    assert (name, json.loads(arguments), call_id, after) == ("look", expected, "call_1", "x")
    assert len(told.of(FunctionCallArgumentsDelta)) == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", {"a": 1}),
        ("", {"a": 1}),
        ("$[0]", {"a": 1}),
        ("$.a.b", {"a": {"b": 2}}),
        ("$.b[1]", {"a": 1, "b": []}),
        ("$.b[0]", {"a": 1, "b": [2]}),
        ("$.a", {"a": 2}),
    ],
)
def test_call_when_a_path_does_not_fit(path: str, expected: Any) -> None:
    """What has no place in what came before is left out."""
    told = gemini(
        chunk(call(args={"a": 1}, willContinue=True)), chunk(piece(path, numberValue=2)), chunk(call(None)), STOP
    )
    assert json.loads(said(told.response)[0][1]) == expected


def test_call_when_a_path_is_too_deep() -> None:
    """A path has the depth of what it makes, and its limit, though none be set."""
    wire = GeminiWire(Limits(json_depth=None))
    wire.feed(frame(chunk(call(willContinue=True))))
    with pytest.raises(LimitExceeded):
        wire.feed(frame(chunk(piece("$" + ".a" * 200, numberValue=2))))
    wire = GeminiWire(Limits(json_depth=20))
    wire.feed(frame(chunk(call(willContinue=True))))
    wire.feed(frame(chunk(piece("$" + ".a" * 20, numberValue=2))))
    with pytest.raises(LimitExceeded):
        wire.feed(frame(chunk(piece("$" + ".a" * 21, numberValue=2))))


def test_call_when_its_text_comes_in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are joined once, at the end; what took the place of text in between, or came after it, counts alone."""
    monkeypatch.setattr("eventflow.wires.translation._read_any", unjoined)
    told = gemini(
        chunk(call(willContinue=True)),
        *(chunk(piece("$.a.b[0]", stringValue=str(number % 10))) for number in range(3000)),
        *(chunk(piece("$.c", **value)) for value in ({"stringValue": "x"}, {"stringValue": "y"}, {"numberValue": 1})),
        *(chunk(piece("$.d", **value)) for value in ({"numberValue": 1}, {"stringValue": "x"}, {"stringValue": "y"})),
        *(chunk(piece("$.e", stringValue=text)) for text in "xyz"),
        chunk(piece("$.e.f", boolValue=True)),
        chunk(call(None)),
        STOP,
    )
    expected = {"a": {"b": ["0123456789" * 300]}, "c": 1, "d": "xy", "e": {"f": True}}
    assert json.loads(said(told.response)[0][1]) == expected


@pytest.mark.parametrize(
    "pieces",
    [
        [piece("$.a", stringValue="x" * 10)] * 10,
        [piece(f"$.a[{number}]", numberValue=1) for number in range(100)],
        [piece(f"$.{number:010}", numberValue=1) for number in range(10)],
    ],
)
def test_call_when_its_pieces_are_too_many(pieces: list[JSON]) -> None:
    """They are counted as they come, for no event tells of them before the call is complete."""
    wire = GeminiWire(Limits(arguments=99))
    wire.feed(frame(chunk(call(willContinue=True))))
    with pytest.raises(LimitExceeded) as caught:
        feed(wire, [frame(chunk(each)) for each in pieces])
    assert (caught.value.limit, caught.value.maximum) == ("arguments", 99)
    wire = GeminiWire(Limits(arguments=None))
    wire.feed(frame(chunk(call(willContinue=True), *pieces)))


@pytest.mark.parametrize(
    "then",
    [
        chunk(text("x")),
        chunk(call("see")),
        chunk({"executableCode": {"code": "1"}}),
        chunk({"codeExecutionResult": {}}),
        chunk({"vendor": 1}),
        STOP,
    ],
)
def test_call_when_something_else_comes_before_its_end(then: JSON) -> None:
    """What came of it is told, but it is not whole: it said that it would go on."""
    told = gemini(chunk(call(willContinue=True)), chunk(piece("$.a", numberValue=1)), then, STOP)
    assert said(told.response)[0] == ("look", '{"a":1}', "call_1")
    assert told.response.output[0].status == "incomplete"
    assert told.response.status == "completed"


@pytest.mark.parametrize("last", [*({"candidates": [{"finishReason": why}]} for why in ("STOP", "MAX_TOKENS")), None])
def test_call_when_the_answer_ends_before_it(last: JSON | None) -> None:
    """What has come is told, but is no call to be run, whatever the answer ends with."""
    told = gemini(chunk(call(willContinue=True)), chunk(piece("$.a", stringValue="Par")), *([last] if last else []))
    done = told.of(OutputItemDone)[-1].item
    assert (done.arguments, done.status) == ('{"a":"Par"}', "incomplete")


@pytest.mark.parametrize("args", [["Paris"], "Paris", 5])
def test_call_when_its_arguments_are_no_object(args: Any) -> None:
    """They are told as they came, and who runs the call will say what is wrong with them; no path leads into them."""
    told = gemini(
        chunk(call(args=args, willContinue=True)), chunk(piece("$.a", numberValue=1)), chunk(call(None)), STOP
    )
    assert json.loads(said(told.response)[0][1]) == args


def test_part_when_something_of_it_is_null() -> None:
    """That is as good as not there."""
    nulls = dict.fromkeys(("text", "functionCall", "executableCode", "codeExecutionResult", "inlineData", "thought"))
    told = gemini(chunk(nulls), chunk({**nulls, "text": "a"}), chunk({**nulls, "vendor": 1}), STOP)
    assert said(told.response) == ["a", "vendor"]
    assert told.response.output[1] == Untyped({"type": "vendor", "vendor": 1})


def test_text_when_it_is_none() -> None:
    """Anything else would be lost unseen."""
    with pytest.raises(DecodeError, match=r"parts\[\].text is dict, not text"):
        gemini(chunk({"text": {"a": 1}}))


def test_call_when_more_comes_of_none() -> None:
    """It is kept."""
    told = gemini(chunk(text("a")), chunk(piece("$.a", numberValue=1)), chunk(call(None)), STOP)
    assert said(told.response) == ["a"]
    assert extras(told.events)["functionCall"]["willContinue"] is True


# --- code, images, other parts ---------------------------------------------------------------------------------------

CODE: JSON = {"executableCode": {"language": "PYTHON", "code": "print(1)", "id": "x1"}}
RESULT: JSON = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}


def test_code_when_it_was_run() -> None:
    """Code and result are one item, at its place between the texts."""
    told = gemini(chunk(text("a")), chunk(CODE), chunk(RESULT), chunk(text("b")), STOP)
    first, code, last = told.response.output
    assert (first.type, last.type) == ("message", "message")
    assert isinstance(code, CodeInterpreterCall)
    assert (code.id, code.code, code.status) == ("x1", "print(1)", "completed")
    assert code.outputs == [{"type": "logs", "logs": "1\n"}]
    assert extras(told.events)["executableCode"] == CODE
    assert extras(told.events)["codeExecutionResult"] == RESULT["codeExecutionResult"]


def test_code_when_it_is_signed() -> None:
    """The signature is a reasoning item before it, as that of a call is."""
    told = gemini(chunk({**CODE, "thoughtSignature": "c2ln"}), chunk(RESULT), STOP)
    sealed, code = told.response.output
    assert (sealed.type, code.type) == ("reasoning", "code_interpreter_call")
    assert sealed.encrypted_content == "c2ln"


@pytest.mark.parametrize("then", [[chunk(text("b"))], [chunk(CODE)], [chunk(finish="STOP")]])
def test_code_when_no_result_came(then: list[JSON]) -> None:
    """It is complete with whatever comes next, or with the answer."""
    told = gemini(chunk(CODE), *then, STOP)
    code = told.response.output[0]
    assert isinstance(code, CodeInterpreterCall)
    assert (code.status, code.outputs) == ("completed", [])


def test_code_when_it_failed_or_was_never_told() -> None:
    """A result without code is an item as well."""
    told = gemini(chunk({"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "no"}}), STOP)
    (code,) = told.response.output
    assert isinstance(code, CodeInterpreterCall)
    assert (code.code, code.status, code.outputs) == ("", "failed", [{"type": "logs", "logs": "no"}])


def test_images_when_inline() -> None:
    """An image is an item; other data is passed on."""
    image, sound = {"mimeType": "image/png", "data": "AA"}, {"mimeType": "audio/wav", "data": "BB"}
    told = gemini(chunk(text("a")), chunk({"inlineData": image}, {"inlineData": sound}), chunk(text("b")), STOP)
    assert [item.type for item in told.response.output] == ["message", "image_generation_call", "inlineData", "message"]
    made = told.response.output[1]
    assert isinstance(made, ImageGenerationCall)
    assert made.result == "AA"
    assert told.response.output[2] == Untyped({"type": "inlineData", "inlineData": sound})
    assert extras(told.events)["mimeType"] == "image/png"


def test_parts_when_nobody_knows_them_are_passed_on() -> None:
    """They are items of their own, called after their first field."""
    told = gemini(chunk({"thoughtSignature": "s", "toolCall": {"id": "t"}}, {"toolResponse": {}}), STOP)
    assert [item.type for item in told.response.output] == ["toolCall", "toolResponse"]


# --- errors ----------------------------------------------------------------------------------------------------------

FAULT: JSON = {"error": {"code": 503, "message": "too much", "status": "UNAVAILABLE", "details": []}}


def test_error_when_it_comes_in_the_stream() -> None:
    """The answer has failed, with what was received and used; nothing after it counts."""
    told = gemini(chunk(text("a"), usageMetadata={"promptTokenCount": 1}), FAULT, chunk(text("b")), STOP)
    error, failed = told.events[-2:]
    assert isinstance(error, StreamError)
    assert (error.message, error.error_type, error.status) == ("too much", "UNAVAILABLE", 503)
    assert isinstance(failed, ResponseFailed)
    assert said(told.response) == ["a"]
    assert (told.response.output[0].status, told.response.usage is None) == ("incomplete", False)


def test_error_when_something_is_open() -> None:
    """A call that goes on is incomplete, with what came of it."""
    told = gemini(chunk(call(willContinue=True)), chunk(piece("$.a", numberValue=1)), FAULT)
    assert [(item.arguments, item.status) for item in told.response.tool_calls] == [('{"a":1}', "incomplete")]


@pytest.mark.parametrize(("data", "message"), [("out of memory", "out of memory"), ("[1]", "[1]"), ("null", "")])
def test_error_when_it_is_no_object(data: str, message: str) -> None:
    """A gateway's frame that is named an error is one, whatever it says."""
    assert gemini(frame(data, "error")).events == [StreamError(message=message, sequence_number=0)]


@pytest.mark.parametrize("data", [FAULT, {"error": "too much"}, {"error": {"code": "x", "type": "t"}}])
def test_error_when_nothing_came_before(data: JSON) -> None:
    """It is the error alone."""
    (event,) = gemini(data).events
    assert isinstance(event, StreamError)


@pytest.mark.parametrize("data", ["[1]", "null", "x", "{", '"a"', "\ud800"])
def test_chunk_when_it_is_no_object(data: str) -> None:
    """The error shows it."""
    with pytest.raises(DecodeError, match="no JSON object"):
        GeminiWire(Limits()).feed(frame(data))


def test_chunk_when_it_is_too_deep() -> None:
    """The depth that is allowed is the wire's."""
    with pytest.raises(LimitExceeded):
        GeminiWire(Limits(json_depth=3)).feed(frame(chunk(text("a"))))
    assert GeminiWire(Limits(json_depth=None)).feed(frame(chunk(text("a"))))


# --- the choice of the wire ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "fits"),
    [
        (chunk(text("a")), True),
        ({"usageMetadata": {}}, True),
        ({"promptFeedback": {}}, True),
        ({"choices": []}, False),
        ({"candidates": 5}, False),
        ([], False),
    ],
)
def test_fits_when_asked(first: Any, fits: bool) -> None:
    """Candidates tell, or what stands in for them; there is no short way."""
    assert GeminiWire.fits(frame(first)) is fits
    assert GeminiWire.name == "gemini"
    assert GeminiWire.direct("message") is GeminiWire(Limits()).delta("message", b"{}") is None


# --- any stream ------------------------------------------------------------------------------------------------------

_values = st.sampled_from([{"stringValue": "a"}, {"numberValue": 1}, {"boolValue": True}, {"nullValue": None}, {}])
_paths = st.sampled_from(["$.a", "$.a[0]", "$.a[1].b", "$.b", "$", "", "$['c'].d", "$[0]", "$.a.b", "$.a[0].b"])
_partial = st.lists(st.builds(lambda path, value: {"jsonPath": path, **value}, _paths, _values), max_size=3)
_more = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["look", "see", ""]),
        "args": st.sampled_from([{}, {"a": [1]}, None]),
        "partialArgs": _partial,
        "willContinue": st.just(True),
        "id": st.sampled_from(["a", "b"]),
    },
)
_signed = st.sampled_from([{}, {}, {"thoughtSignature": "s"}])
_parts = st.one_of(
    st.builds(
        lambda part, signed: part | signed, st.sampled_from([text(""), text("a"), text("t", thought=True)]), _signed
    ),
    _more.map(lambda fields: {"functionCall": fields}),
    _more.map(lambda fields: {"functionCall": fields | {"willContinue": True}}),
    st.sampled_from([{"executableCode": {"code": "1"}}, RESULT, {"codeExecutionResult": 5}, {"functionCall": None}]),
    st.sampled_from([{"inlineData": {"mimeType": "image/png"}}, {"inlineData": 5}, {"vendor": 1}, {}, 5]),
)
_finishes = st.sampled_from([None, None, None, "STOP", "MAX_TOKENS"])
_chunks = st.builds(
    lambda parts, finish, index, fields: chunk(*parts, finish=finish, index=index) | fields,
    st.lists(_parts, max_size=3),
    _finishes,
    st.sampled_from([None, 0, 1]),
    st.sampled_from([{}, {}, {"usageMetadata": {"promptTokenCount": 1}}, {"vendor": 1}]),
)
_other = st.sampled_from([STOP, FAULT, {}, {"promptFeedback": {"blockReason": "X"}}, {"candidates": [None]}, "[DONE]"])


@given(st.lists(st.one_of(_chunks, _chunks, _chunks, _other), max_size=10))
def test_stream_when_it_is_anything_keeps_the_order(stream: list[Any]) -> None:
    """No stream of such chunks raises; order and fold hold; the same of each beginning of it."""
    events = gemini(*stream).events
    begun = gemini(*stream[: len(stream) // 2], close=False).events
    assert events[: len(begun)] == begun


@given(st.text(max_size=30), st.sampled_from(["message", "error"]))
def test_feed_when_the_data_is_any_text(data: str, name: str) -> None:
    """Events or an error of ours come of it."""
    wire = GeminiWire(Limits())
    try:
        check_order(wire.feed(Frame(event=name, data=data)) + wire.close())
    except DecodeError as error:
        assert error.frame is not None  # noqa: PT017  # most texts raise, but not all
