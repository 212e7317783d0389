"""JSON to events: the strict way, the lenient way, and that nothing else comes out of either."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventflow import events as ef
from eventflow.errors import DecodeError, EventflowError, LimitExceeded, UsageError
from eventflow.events import Event, StreamError, TextDelta, UnknownEvent, Untyped, decode, decode_mapping, event_classes
from eventflow.events._decode import STRICT_ERRORS, check_depth, decoder_of, is_flat
from eventflow.sse import decode as frames_of
from tests.strategies import json_values, wire_events

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("responses-*.sse"))
FRAMES = [frame for path in FIXTURES for frame in frames_of([path.read_bytes()])]
DELTA = {"type": "response.output_text.delta", "delta": "a"}


def read(data: Any, name: str = "") -> Any:
    """Decode JSON of *data*, both ways that there are, which must agree."""
    event = decode(json.dumps(data).encode(), name)
    assert decode_mapping(data, name) == event
    assert decode(json.dumps(data), name) == event
    return event


def item(value: Any) -> Any:
    """The item that an ``added`` event carries."""
    return read({"type": "response.output_item.added", "item": value, "output_index": 0}).item


# --- there and back --------------------------------------------------------------------------------------------------


@given(wire_events())
def test_decode_when_an_event_was_encoded(event: Event) -> None:
    """Every event comes back from its JSON: named or not, strictly or leniently."""
    data = event.to_json()
    assert decode(data) == event
    assert decode(data, event.type) == event
    assert decode(data, "message") == event
    assert decode(data, "vendor.name") == event
    assert decode(data.decode(), event.type) == event
    assert decode_mapping(json.loads(data)) == event
    assert decode_mapping(event.to_dict(), event.type) == event


@given(wire_events(st.text(max_size=4).filter(lambda text: not any("\ud800" <= c <= "\udbff" for c in text))))
def test_decode_when_an_event_has_lone_surrogates(event: Event) -> None:
    """They are escaped on the way out, and back they are what they were."""
    assert decode(event.to_json()) == event
    assert decode(event.to_json(), event.type) == event


@given(wire_events())
def test_decode_when_the_type_is_in_the_event_name_alone(event: Event) -> None:
    """Data without a type is what its event name says."""
    data = event.data if isinstance(event, UnknownEvent) else event.to_dict()
    data = {name: value for name, value in data.items() if name != "type"}
    if isinstance(event, UnknownEvent):
        event = UnknownEvent(event.type, data, sequence_number=event.sequence_number)
    assert read(data, event.type) == event
    assert read({**data, "type": None}, event.type.replace(".", "_")) == event


@given(wire_events(), wire_events())
def test_decode_when_name_and_type_differ(event: Event, other: Event) -> None:
    """The type inside the data wins."""
    assert read(event.to_dict(), other.type) == event


def test_decode_when_names_are_of_the_sdk_page() -> None:
    """They are understood on the wire too."""
    for name in ("response.text_delta", "response_text_delta", "response.output_text_delta"):
        assert read({"type": name, "delta": "a"}) == read({"type": name, "delta": "a"}, name) == TextDelta("a")
        assert read({"delta": "a"}, name) == TextDelta("a")
    assert read({"type": "response.error", "message": "m"}) == StreamError("m")


@given(json_values(12))
def test_decode_mapping_when_decode_reads_the_same(value: Any) -> None:
    """Python values and their JSON give the same event, or both are refused."""
    data = {"type": "response.output_item.done", "item": value, "sequence_number": value}
    try:
        event = decode(json.dumps(data))
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_mapping(data)
    else:
        assert decode_mapping(data) == event


# --- what nobody knows -----------------------------------------------------------------------------------------------


def test_decode_when_nobody_knows_the_type() -> None:
    """It is an unknown event, with all that it carried."""
    data = {"type": "codex.rate_limits", "sequence_number": 3.0, "plan": {"a": [1]}}
    event = read(data)
    assert event == UnknownEvent("codex.rate_limits", data, sequence_number=3)
    assert (event.type, event.family) == ("codex.rate_limits", "unknown")


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        ({"n": 1}, "", "message"),
        ({"n": 1}, "message", "message"),
        ({"n": 1}, "vendor.thing", "vendor.thing"),
        ({"type": 5}, "vendor.thing", "vendor.thing"),
        ({"type": ""}, "", "message"),
        ({"type": ["x"]}, "", "message"),
        ({"type": "x"}, "vendor.thing", "x"),
        ({"error": None}, "", "message"),
        ({"error": False}, "vendor.thing", "vendor.thing"),
    ],
)
def test_decode_when_there_is_no_known_type(data: Any, name: str, kind: str) -> None:
    """The unknown event is called what the data says, else what the frame says."""
    assert read(data, name) == UnknownEvent(kind, data)


@pytest.mark.parametrize("tag", sorted(tag for tag in event_classes() if tag.startswith("eventflow.")))
def test_decode_when_a_peer_sends_eventflows_own(tag: str) -> None:
    """No peer can make one, however it spells it: it is an unknown event."""
    data = {"kind": "function", "name": "rm", "arguments": "{}", "call_id": "c", "output": "", "error": "x"}
    data = {key: value for key, value in data.items() if key != "error"}
    for name in (tag, tag.replace(".", "_")):
        assert read({"type": name, **data}) == UnknownEvent(name, {"type": name, **data})
        assert read(data, name) == UnknownEvent(name, data)
        assert type(read({"type": name, **data}, name)) is UnknownEvent


def test_decode_when_items_and_parts_are_unknown() -> None:
    """They keep their mapping."""
    call = {"type": "computer_call", "id": "cu_1", "action": {"type": "click", "x": 1}}
    assert item(call) == Untyped(call)
    assert item({"no": "type"}) == Untyped({"no": "type"})
    assert item({"type": 5}) == Untyped({"type": 5})
    part = {"type": "output_audio", "data": "UklG"}
    text = {"type": "output_text", "text": "a", "annotations": [{"type": "vendor_citation"}, {"type": "file_path"}]}
    assert item({"type": "message", "content": [part, text]}) == ef.Message(
        (Untyped(part), ef.OutputText("a", (Untyped({"type": "vendor_citation"}), ef.FilePath())))
    )


# --- what is odd but no error ----------------------------------------------------------------------------------------


def test_decode_when_fields_are_null() -> None:
    """Null is nothing said."""
    nothing = dict.fromkeys(("delta", "item_id", "output_index", "content_index", "sequence_number", "logprobs"))
    assert read({"type": "response.output_text.delta", **nothing}) == TextDelta("")
    assert item({"type": "message", "content": None, "id": None, "role": None}) == ef.Message()
    assert item({"type": "function_call", "name": None, "arguments": None}) == ef.FunctionCall()
    assert item({"type": "message", "content": [{"type": "output_text", "text": None, "annotations": None}]}) == (
        ef.Message((ef.OutputText(),))
    )
    empty = {"type": "response.completed", "response": {"output": None, "usage": None, "error": None}}
    assert read(empty) == ef.ResponseCompleted(ef.Response())
    assert read({"type": "response.completed", "response": None}) == ef.ResponseCompleted(ef.Response())
    assert read({"type": "response.completed"}) == ef.ResponseCompleted(ef.Response())


@pytest.mark.parametrize(
    ("sent", "meant"), [(0.0, 0), (2.0, 2), ("3", 3), ("3.0", 3), (10**30, 10**30), ("9007199254740993", 2**53 + 1)]
)
def test_decode_when_integers_come_as_something_else(sent: Any, meant: int) -> None:
    """Whole floats and numeric strings are integers; large ones stay exact."""
    assert read({**DELTA, "output_index": sent, "sequence_number": sent}) == TextDelta(
        "a", output_index=meant, sequence_number=meant
    )


def test_decode_when_numbers_come_as_text_and_text_as_numbers() -> None:
    """Ids and codes that are numbers become text."""
    assert read({**DELTA, "delta": 1.5, "item_id": 7}) == TextDelta("1.5", item_id="7")
    fault = {"type": "response.failed", "response": {"error": {"code": 429, "message": "slow"}, "created_at": 1}}
    response = read(fault).response
    assert response.error == ef.ResponseFault(code="429", message="slow")
    assert response.created_at == 1.0


def test_decode_when_details_come_as_text_alone() -> None:
    """An error or a reason that is a string is understood."""
    failed = {"type": "response.failed", "response": {"error": "out of memory", "incomplete_details": "content_filter"}}
    response = read(failed).response
    assert response.error == ef.ResponseFault(message="out of memory")
    assert response.incomplete_details == ef.IncompleteDetails("content_filter")


def test_decode_when_a_summary_part_is_of_another_type() -> None:
    """Its text is read all the same."""
    data = {"type": "response.reasoning_summary_part.done", "part": {"type": "text", "text": "why"}, "summary_index": 0}
    assert read(data).part == ef.SummaryText("why")


def test_decode_when_json_has_no_words_for_a_number() -> None:
    """Python's NaN and Infinity are read, and become null again."""
    event: Any = decode(b'{"type":"vendor","n":NaN,"m":-Infinity}')
    assert math.isnan(event.data["n"])
    assert json.loads(event.to_json()) == {"type": "vendor", "n": None, "m": None}
    usage = b'{"type":"response.completed","response":{"usage":{"input_tokens":NaN},"created_at":%s}}' % (b"9" * 400)
    response = decode(usage).response  # type: ignore[attr-defined]
    assert response.usage == ef.Usage()
    assert response.created_at == math.inf


def test_decode_when_an_integer_has_more_digits_than_python_reads() -> None:
    """It becomes a float rather than an error."""
    event: Any = decode(b'{"type":"vendor","n":%s}' % (b"9" * 5000))
    assert event.data["n"] == math.inf
    assert decode(b'{"type":"vendor","n":%s}' % (b"9" * 4000)).data["n"] > 10**3999  # type: ignore[attr-defined]
    with pytest.raises(DecodeError, match="output_index must be an integer, not str"):
        decode(b'{"type":"response.output_text.delta","output_index":"%s"}' % (b"9" * 5000))


@pytest.mark.parametrize("odd", [5, "x", [], {"a": []}, True, [5], [{"token": 5, "logprob": "x", "bytes": "x"}]])
def test_decode_when_a_field_that_is_not_folded_is_wrong(odd: Any) -> None:
    """It is left out; the event is delivered."""
    assert read({**DELTA, "logprobs": odd}).delta == "a"
    assert read({**DELTA, "sequence_number": odd}).delta == "a"
    part = {"type": "output_text", "text": "a", "annotations": odd, "logprobs": odd}
    assert item({"type": "message", "content": [part]}).content[0].text == "a"
    response = {"id": "r", "usage": odd, "created_at": odd, "completed_at": odd, "top_logprobs": odd}
    assert read({"type": "response.completed", "response": response}).response.id == "r"
    usage = {"input_tokens": odd, "output_tokens": 2, "input_tokens_details": {"cached_tokens": odd}}
    assert read({"type": "response.completed", "response": {"usage": usage}}).response.usage.output_tokens == 2
    annotated = {"type": "response.output_text.annotation.added", "annotation_index": odd, "content_index": 1}
    assert read({**annotated, "annotation": {"type": "url_citation", "url": odd}}).content_index == 1


def test_decode_when_an_annotation_has_a_wrong_shape() -> None:
    """It keeps its mapping."""
    sent = {"type": "url_citation", "url": {"href": "x"}}
    event = read({"type": "response.output_text.annotation.added", "annotation": sent})
    assert event.annotation == Untyped(sent)
    assert read({"type": "response.output_text.annotation.added", "annotation": None}).annotation is None


def test_decode_when_bytes_are_no_utf8() -> None:
    """They are replaced."""
    assert decode(b'{"type":"response.output_text.delta","delta":"a\xff"}') == TextDelta("a\ufffd")
    assert decode(b'{"type":"response.output_text.delta","delta":"a\xed\xa0\x80"}') == TextDelta("a\ufffd\ufffd\ufffd")


def test_decode_when_text_has_surrogates_unescaped() -> None:
    """Text from Python code may have them."""
    assert decode('{"type":"response.output_text.delta","delta":"\ud800"}') == TextDelta("\ud800")


# --- what is an error ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({**DELTA, "delta": ["a"]}, "delta must be text, not list"),
        ({**DELTA, "delta": True}, "delta must be text, not bool"),
        ({**DELTA, "item_id": {}}, "item_id must be text, not dict"),
        ({**DELTA, "output_index": "first"}, "output_index must be an integer, not str"),
        ({**DELTA, "output_index": 0.5}, "output_index must be an integer, not float"),
        ({**DELTA, "content_index": False}, "content_index must be an integer, not bool"),
        ({"type": "response.output_item.done"}, "item must be an object, not NoneType"),
        ({"type": "response.output_item.done", "item": []}, "item must be an object, not list"),
        (
            {"type": "response.output_item.done", "item": {"type": "message", "content": "Hi"}},
            "item.content must be a list",
        ),
        ({"type": "response.completed", "response": 5}, "response must be an object, not int"),
        ({"type": "response.completed", "response": {"output": 5}}, "response.output must be a list, not int"),
        ({"type": "response.completed", "response": {"status": []}}, "response.status must be text, not list"),
        ({"type": "response.content_part.done", "part": {"type": "output_text", "text": {}}}, "part.text must be text"),
    ],
)
def test_decode_when_a_folded_field_has_a_wrong_shape(data: Any, path: str) -> None:
    """The error names the event, the field, and what was sent."""
    with pytest.raises(DecodeError) as caught:
        decode(json.dumps(data))
    assert caught.value.message.startswith(f"{data['type']}: {path}")
    assert json.dumps(data["type"]) in caught.value.message


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"<html>", "", "the data of a message event is not JSON"),
        (b"", "response.created", "the data of a response.created event is not JSON"),
        (b'{"type":', "", "not JSON"),
        (b"[1]", "", r"the data of a message event is list, not an object: \[1\]"),
        (b"null", "vendor", "the data of a vendor event is NoneType, not an object: null"),
        (b'"\x00"', "", "not JSON"),
    ],
)
def test_decode_when_data_is_no_json_object(data: bytes, name: str, words: str) -> None:
    """The error says what it is instead."""
    with pytest.raises(DecodeError, match=words):
        decode(data, name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"upstream is gone", "upstream is gone"),
        (b'"gone"', "gone"),
        (b"[]", "[]"),
        (b"", ""),
        (b'{"message":"gone"}', "gone"),
        (b'{"type":"server_error","message":"gone"}', "gone"),
        (b'{"type":"error","error":{"message":"gone"}}', "gone"),
        (b'{"error":"gone"}', "gone"),
        (b"\xffgone", "\ufffdgone"),
    ],
)
def test_decode_when_the_event_is_named_error(data: bytes, message: str) -> None:
    """Whatever it carries, it is an error event."""
    event = decode(data, "error")
    assert type(event) is StreamError
    assert event.message == message


def test_decode_when_an_error_comes_without_a_type() -> None:
    """An ``error`` in the data is enough, unless the frame is named as an event that we know."""
    assert read({"error": {"message": "m", "code": 429}, "sequence_number": "4"}) == StreamError(
        "m", "429", sequence_number=4
    )
    assert read({"error": {}}, "message") == StreamError()
    assert read({"error": "x"}, "vendor.thing") == StreamError("x")
    assert read({"error": "x", "output_index": 1}, "response.mcp_call.failed") == ef.McpCallFailed(output_index=1)
    assert read({"type": "error", "status": 400, "error": {"type": "t"}}) == StreamError(error_type="t", status=400)
    assert read({**DELTA}, "error") == TextDelta("a")


def test_decode_mapping_when_values_are_no_json() -> None:
    """The error can be written all the same."""
    loop: dict[str, Any] = {"type": "response.output_text.delta", "delta": {1, 2}}
    loop["self"] = loop
    for mapping in (loop, {"type": "response.output_text.delta", "delta": {(1, 2): 3}}):
        with pytest.raises(DecodeError, match="delta must be text"):
            decode_mapping(mapping)


# --- nothing else comes out ------------------------------------------------------------------------------------------

names = st.sampled_from(["", "message", "error", "eventflow.tool_call", "vendor.x", *event_classes()])


@given(st.binary(max_size=60) | st.text(max_size=60), names)
def test_decode_when_given_any_bytes(data: bytes | str, name: str) -> None:
    """An event or an eventflow error comes of anything."""
    with contextlib.suppress(EventflowError):
        assert isinstance(decode(data, name), Event)


@settings(max_examples=500)
@given(st.data())
def test_decode_when_real_frames_are_damaged(data: st.DataObject) -> None:
    """Bytes changed, cut out and put in anywhere in a recorded frame give an event or an eventflow error."""
    frame = data.draw(st.sampled_from(FRAMES))
    body = bytearray(frame.data.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(body)))
        stop = min(len(body), start + data.draw(st.integers(0, 6)))
        put_in = st.binary(max_size=3) | st.sampled_from([b"null", b"[", b"{}", b"1e999", b"-0.0", b'"\\ud800"', b","])
        body[start:stop] = data.draw(put_in)
    try:
        event = decode(bytes(body), data.draw(st.sampled_from([frame.event, "", "error"])))
    except EventflowError:
        return
    event.to_json()
    repr(event)


@settings(max_examples=300)
@given(st.data(), json_values())
def test_decode_when_real_frames_have_other_values(data: st.DataObject, value: Any) -> None:
    """Any value in the place of any other gives an event or an eventflow error."""
    frame = data.draw(st.sampled_from(FRAMES))
    whole = json.loads(frame.data)
    place = whole
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner and data.draw(st.booleans())):
            break
        place = inner
    place[key] = value
    try:
        event = decode(json.dumps(whole), frame.event)
    except EventflowError:
        return
    event.to_json()


# --- depth -----------------------------------------------------------------------------------------------------------


def depth_of(value: Any) -> int:
    """How deep a value is nested, found the slow way."""
    if isinstance(value, dict | list):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(json_values(30), st.integers(0, 4))
@example(['"', "\\", '\\"', "[{", {"]": "}"}], 1)
def test_check_depth_when_json_is_measured(value: Any, maximum: int) -> None:
    """The depth is that of the brackets outside of strings, whatever the strings hold."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        for data in (text, text.encode()):
            if depth_of(value) > maximum:
                with pytest.raises(LimitExceeded) as caught:
                    check_depth(data, maximum)
                assert (caught.value.limit, caught.value.maximum) == ("json_depth", maximum)
                assert caught.value.seen == depth_of(value)
            else:
                check_depth(data, maximum)
    check_depth(json.dumps(value), None)


@given(st.text('[]{}"\\a', max_size=30), st.integers(0, 3))
def test_check_depth_when_it_is_no_json(data: str, maximum: int) -> None:
    """What is no JSON is measured, not refused."""
    if data.count("{") + data.count("[") <= maximum:
        check_depth(data, maximum)
    else:
        with contextlib.suppress(LimitExceeded):
            check_depth(data, maximum)


def nested(kind: str, depth: int) -> str:
    """JSON with lists in lists."""
    return json.dumps({"type": kind, "response": {"metadata": 0}}).replace("0", "[" * depth + "1" + "]" * depth)


@pytest.mark.parametrize("name", ["", "response.created", "vendor"])
@pytest.mark.parametrize("kind", ["response.created", "vendor"])
def test_decode_when_json_is_too_deep(name: str, kind: str) -> None:
    """The limit is found before anything is made of it, however deep it is."""
    for depth in (200, 100_000):
        deep = nested(kind, depth)
        with pytest.raises(LimitExceeded) as caught:
            decode(deep, name)
        assert caught.value.seen == depth + 2
    assert decode(nested(kind, 120), name).type == kind
    with pytest.raises(DecodeError, match="not JSON"):
        decode(deep, name, max_depth=None)


def test_is_flat_when_classes_are_asked() -> None:
    """Flat are the events whose fields cannot hold JSON of any depth."""
    flat = {tag for tag, cls in event_classes().items() if is_flat(cls) and cls.__module__.startswith("eventflow.")}
    assert {"response.output_text.delta", "response.output_text.done", "response.function_call_arguments.delta"} <= flat
    assert not {"response.created", "response.output_item.added", "error", "eventflow.tool_call"} & flat
    assert "response.shell_call_output_content.delta" not in flat


# --- users' classes --------------------------------------------------------------------------------------------------


class Point(ef.Record):
    x: int
    y: int = 0


class Route(ef.Record):
    point: Point
    rest: tuple[Route, ...] = ()


class Drawn(Event, tag="tests_decode.drawn"):
    path: Route
    names: list[str] = msgspec.field(default_factory=list)
    when: float = 0.0

    def __post_init__(self) -> None:
        if self.when < 0:
            raise ValueError("the past")


def test_decode_when_the_class_is_a_users() -> None:
    """Nested records, records that contain themselves, and msgspec's own types are read, strictly or leniently."""
    data = {"type": "tests_decode.drawn", "path": {"point": {"x": 1}, "rest": [{"point": {"x": 2, "y": 3}}]}}
    path = Route(Point(1), (Route(Point(2, 3)),))
    assert read({**data, "names": ["a"]}) == Drawn(path, ["a"])
    assert read({**data, "names": ["a"]}, "tests_decode.drawn") == Drawn(path, ["a"])
    data["path"]["point"]["x"] = "1"  # type: ignore[index]
    assert read({**data, "names": ["a"], "when": 1}, "tests_decode.drawn") == Drawn(path, ["a"], 1.0)
    assert not is_flat(Drawn)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"path": None}, "path must be an object"),
        ({"path": {"point": {"x": "one"}}}, "path.point.x must be an integer"),
        ({"names": [{}]}, r"names must be list\[str\] \(Expected `str`, got `object` - at `\$\[0\]`\), not list"),
        ({"when": -1.0}, r"value must be what Drawn takes \(the past\), not dict"),
        ({"when": "now"}, "when must be a number, not str"),
    ],
)
def test_decode_when_a_users_event_has_a_wrong_shape(changes: Any, words: str) -> None:
    """It is a decode error that names the field."""
    data = {"type": "tests_decode.drawn", "path": {"point": {"x": 1}}, **changes}
    for name in ("", "tests_decode.drawn"):
        with pytest.raises(DecodeError, match=f"tests_decode.drawn: {words}"):
            decode(json.dumps(data), name)


def test_decode_when_a_users_class_cannot_be_decoded() -> None:
    """The error names the class."""

    class Broken(Event, tag="tests_decode.broken"):
        value: Nowhere  # type: ignore[name-defined]  # noqa: F821

    class Ambiguous(Event, tag="tests_decode.ambiguous"):
        value: Point | Route

    for name in ("", "tests_decode.broken"):
        with pytest.raises(UsageError, match=r"Broken cannot be decoded from JSON: name 'Nowhere'"):
            decode(b'{"type":"tests_decode.broken"}', name)
    with pytest.raises(UsageError, match=r"Ambiguous cannot be decoded from JSON: If a type union"):
        decode(b'{"type":"tests_decode.ambiguous"}', "tests_decode.ambiguous")
    with pytest.raises(UsageError, match=r"Point \| .*Route cannot be decoded from JSON: If a type union"):
        decode(b'{"type":"tests_decode.ambiguous"}')
    assert decode(json.dumps(DELTA)) == TextDelta("a")


def test_strict_decoder_when_data_names_another_type() -> None:
    """It refuses, with an error that sends the caller the lenient way."""
    for data in (b'{"type":"response.output_text.done","delta":"a"}', b'{"delta":null}', b"{", b"\xff", b"[" * 10**5):
        with pytest.raises(STRICT_ERRORS):
            decoder_of(TextDelta)(data)
    assert issubclass(msgspec.ValidationError, STRICT_ERRORS)


# --- threads ---------------------------------------------------------------------------------------------------------

AT_ONCE = """
import sys, threading
from eventflow import collect
from eventflow.testing import stream

sys.setswitchinterval(1e-6)
body = stream("Hello", tools=[("get_weather", {"city": "Paris"})]).body
ready, said = threading.Barrier(8), []

def read():
    ready.wait()
    said.append(collect(body).output_text)

threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert said == ["Hello"] * 8, said
"""


def test_decode_when_threads_meet_the_classes_at_once() -> None:
    """The first streams of a process may be read by several threads: it does not crash, as msgspec by itself would."""
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
