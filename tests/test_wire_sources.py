"""Chat, Anthropic and Gemini streams as sources of every kind: bytes, arrays, mappings, objects of their SDKs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Peer, Server, sse

from eventflow import Dispatcher, Event, Limits, Plugin, Run, TextDelta, ToolCall, acollect, collect, transform
from eventflow.errors import APIStreamError, DecodeError, LimitExceeded, PluginError, StreamTruncated, UsageError
from eventflow.json_array import ElementDecoder, begins_array
from eventflow.sse import Frame
from eventflow.wires import ResponsesWire, detect, wire_named

JSON = dict[str, Any]
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}


def chunk(delta: JSON, finish: str | None = None, **fields: Any) -> JSON:
    """A chunk of a chat stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "chat_1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **fields,
    }


CHAT = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "hm"}),
    chunk({"reasoning_content": "m"}),
    chunk({"content": "a"}),
    chunk({"content": "b"}),
    chunk({"tool_calls": [CALL]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": ' "x"}'}}]}),
    chunk({}, "tool_calls"),
    {**chunk({}), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}},
]
ANTHROPIC = [
    {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
     "content": [], "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "b"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2,
     "content_block": {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ' "x"}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
     "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]  # fmt: skip


def part(*parts: JSON, **fields: Any) -> JSON:
    """A chunk of a Gemini stream."""
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **fields}]}


USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 1, "totalTokenCount": 8}
GEMINI = [
    {**part({"text": "hm", "thought": True}), "responseId": "g_1", "modelVersion": "m"},
    part({"text": "m", "thought": True}),
    part({"text": "a"}),
    part({"text": "b"}),
    part({"functionCall": {"id": "call_1", "name": "weather", "args": {"city": "x"}}}),
    {**part(finishReason="STOP"), "usageMetadata": USAGE},
]


def chat_body() -> bytes:
    """The chat stream as a server sends it."""
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in CHAT) + b"data: [DONE]\n\n"


def anthropic_body() -> bytes:
    """The Anthropic stream as a server sends it."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in ANTHROPIC)


def gemini_body() -> bytes:
    """The Gemini stream as a server sends it: with CRLF."""
    return b"".join(b"data: %s\r\n\r\n" % json.dumps(event).encode() for event in GEMINI)


BODIES: dict[str, Callable[[], bytes]] = {"chat": chat_body, "anthropic": anthropic_body, "gemini": gemini_body}
MAPPINGS = {"chat": CHAT, "anthropic": ANTHROPIC, "gemini": GEMINI}
WIRES = tuple(BODIES)


def check(run: Run) -> None:
    """Every wire says the same."""
    response = run.response
    assert (run.status, run.warnings) == ("completed", ())
    assert (response.output_text, response.reasoning_text) == ("ab", "hmm")
    (call,) = response.tool_calls
    assert (call.name, json.loads(call.arguments), call.call_id) == ("weather", {"city": "x"}, "call_1")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 5)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("given", [None, "named"])
def test_handlers_when_the_wire_is_any_are_told_the_same(wire: str, given: str | None) -> None:
    """Handlers written once work with every provider, the wire named or found out."""
    heard: list[Any] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    flow.on(ToolCall, lambda event: heard.append(event.name))
    run = flow.run(BODIES[wire](), wire=wire if given else None)
    check(run)
    assert heard == ["a", "b", "weather"]


@pytest.mark.parametrize("wire", WIRES)
@given(data=st.data())
def test_bytes_when_cut_anywhere_give_the_same_events(wire: str, data: st.DataObject) -> None:
    """Any chunking, and the long way of single frames, give the same events."""
    body = BODIES[wire]()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=20)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    whole = list(Dispatcher().stream(body))
    assert list(Dispatcher().stream(iter(chunks))) == whole
    assert list(Dispatcher().stream(iter([body[i : i + 1] for i in range(len(body))]))) == whole


@pytest.mark.parametrize("wire", WIRES)
def test_mappings_when_given_are_read_by_their_wire(wire: str) -> None:
    """The chunks as mappings, as litellm and message queues have them; the end of them is the end of the body."""
    check(Dispatcher().run(iter(MAPPINGS[wire])))


@pytest.mark.parametrize("wire", WIRES)
def test_relay_when_it_keeps_nothing_translates_too(wire: str) -> None:
    """Without a snapshot, handlers are told the same."""
    heard: list[str] = []
    flow = Dispatcher(snapshot=False)
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    run = flow.run(BODIES[wire]())
    assert (run.status, heard) == ("completed", ["a", "b"])
    assert run.events == Dispatcher().run(BODIES[wire]()).events


@pytest.mark.parametrize("wire", WIRES)
def test_frame_when_asked_for_is_the_providers(wire: str) -> None:
    """`run.frame` has the frame as it stood on the wire."""
    frames: list[Frame | None] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event, run: frames.append(run.frame))
    flow.run(BODIES[wire]())
    assert [json.loads(frame.data) for frame in frames if frame is not None] == [
        event for event in MAPPINGS[wire] if '"a"' in json.dumps(event) or '"b"' in json.dumps(event)
    ]


class _Upper(Plugin):
    """Changes the text."""

    @transform(TextDelta)
    def upper(self, event: TextDelta) -> TextDelta:
        return event.replace(delta=event.delta.upper())


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
def test_handlers_when_they_raise_emit_or_cancel(wire: str, long: bool) -> None:
    """On the short way, which a wire named goes from the start, as on the long one: failures, emission, leaving."""

    def given() -> dict[str, Any]:
        return {"source": BODIES[wire](), "wire": None if long else wire}

    def fail(event: TextDelta) -> None:
        raise ValueError("mine")

    flow = Dispatcher()
    flow.on(TextDelta, fail)
    with pytest.raises(ValueError, match="mine"):
        flow.run(**given())

    flow = Dispatcher()
    flow.on(TextDelta, fail, errors="isolate")
    heard: list[Event] = []
    flow.on("eventflow.handler_failed", heard.append)
    check(flow.run(**given()))
    assert len(heard) == 2

    flow = Dispatcher()
    flow.on(TextDelta, lambda event: (TextDelta(text.upper()) for text in event.delta if text.islower()))
    check(flow.run(**given()))
    assert [e.delta for e in flow.stream(**given()) if isinstance(e, TextDelta)] == ["a", "A", "b", "B"]

    flow = Dispatcher(_Upper())
    assert [e.delta for e in flow.stream(**given()) if isinstance(e, TextDelta)] == ["A", "B"]

    for text in ("a", "b"):
        flow = Dispatcher()
        flow.on(TextDelta, lambda event, run, text=text: run.cancel() if event.delta == text else None)
        run = flow.run(**given())
        assert (run.status, run.text) == ("cancelled", "ab"[: "ab".index(text) + 1])

    flow = Dispatcher(snapshot=False)
    flow.on(TextDelta, heard.append)
    assert flow.run(**given()).status == "completed"
    assert [event.delta for event in heard if isinstance(event, TextDelta)] == ["a", "b"]

    broken = given() | {"source": given()["source"].replace(b"weather", b'"')}
    assert Dispatcher().run(**broken, check=False).status == "failed"


@pytest.mark.parametrize("wire", WIRES)
def test_text_when_it_is_long_is_let_go_of_on_the_way(wire: str) -> None:
    """Thousands of pieces, in chunks and as frames."""
    piece = {"chat": CHAT[3], "anthropic": ANTHROPIC[8], "gemini": GEMINI[2]}[wire]
    events = [event for event in MAPPINGS[wire] for _ in range(700 if event is piece else 1)]
    name = "event: content_block_delta\n" if wire == "anthropic" else ""
    line = f"{name}data: {json.dumps(piece)}\n\n".encode()
    body = BODIES[wire]().replace(b"\r\n", b"\n").replace(line, line * 700)
    run = Dispatcher().run(iter([body[start : start + 4096] for start in range(0, len(body), 4096)]), wire=wire)
    assert run.text == "a" * 700 + "b"
    assert Dispatcher().run(iter(events)).text == run.text


@pytest.mark.parametrize("wire", WIRES)
def test_limits_when_reached_end_a_translated_stream(wire: str) -> None:
    """Text, arguments and events are bounded on every wire."""
    for limits in (Limits(text=1), Limits(arguments=3), Limits(event_bytes=60)):
        with pytest.raises(LimitExceeded):
            Dispatcher(limits=limits).run(BODIES[wire]())


@pytest.mark.parametrize("wire", WIRES)
def test_stream_when_cut_is_truncated(wire: str) -> None:
    """A stream that ends before its reason for finishing is not complete, and runs no call."""
    body = BODIES[wire]()
    run = Dispatcher().run(body[: body.index(b"weather")], check=False)
    assert (run.status, run.text) == ("truncated", "ab")
    assert isinstance(run.error, StreamTruncated)
    assert run.response.status == "incomplete"


# --- arrays of JSON --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("indent", "line_end"), [(None, b""), (2, b"\n"), (2, b"\r\n")])
@given(data=st.data())
def test_array_when_cut_anywhere_is_read(indent: int | None, line_end: bytes, data: st.DataObject) -> None:
    """Gemini's body without ``alt=sse``: one array, of which each element is a chunk."""
    body = json.dumps(GEMINI, indent=indent).encode().replace(b"\n", line_end)
    cuts = sorted(data.draw(st.sets(st.integers(1, 20) | st.integers(1, len(body) - 1), max_size=20)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    check(Dispatcher().run(iter(chunks)))


def test_array_when_it_is_a_response() -> None:
    """An HTTP answer in JSON is taken where it begins as such an array does, and only there."""
    headers = {"content-type": "application/json"}
    check(Dispatcher().run(httpx.Response(200, headers=headers, content=json.dumps(GEMINI).encode())))


def test_array_when_it_is_cancelled_on_its_way() -> None:
    """Nothing after that is read."""
    flow = Dispatcher()
    flow.on(TextDelta, lambda event, run: run.cancel())
    run = flow.run(json.dumps(GEMINI).encode())
    assert (run.status, run.text) == ("cancelled", "a")


def test_array_when_it_reports_an_error() -> None:
    """Errors come as an array as well."""
    error = [{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}]
    with pytest.raises(APIStreamError, match="slow down") as caught:
        collect(json.dumps(error).encode(), wire="gemini")
    assert caught.value.retryable


def test_array_when_an_element_is_too_large_or_unfinished() -> None:
    """Elements are bounded as events are; a cut is a cut."""
    body = json.dumps(GEMINI).encode()
    with pytest.raises(LimitExceeded):
        Dispatcher(limits=Limits(event_bytes=50)).run(iter([body[:150], body[150:]]))
    assert Dispatcher().run(body[:-200], check=False).status == "truncated"
    decoder = ElementDecoder(max_event_bytes=None)
    assert decoder.feed(b'[{"a": 1}, {"b"') == ['{"a": 1}']
    assert (decoder.unfinished, decoder.ended) == (b'{"b"', False)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.lists(st.integers()))), st.data())
def test_elements_when_the_array_is_cut_anywhere(elements: list[Any], data: st.DataObject) -> None:
    """Any array of objects comes out as it went in, whatever its strings hold."""
    body = json.dumps(elements, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "replace")
    decoder, found, place = ElementDecoder(max_event_bytes=None), [], 0
    while place < len(body):
        size = data.draw(st.integers(1, 30))
        found += decoder.feed(body[place : place + size])
        place += size
    assert [json.loads(element) for element in found] == json.loads(body)
    assert decoder.ended
    assert decoder.feed(b"[{}] more") == []
    assert ElementDecoder(max_event_bytes=None).feed(b"[\\ {}, \\{}]") == ["{}", "{}"]  # no JSON, and no matter here
    assert not begins_array(b'[{"other": 1}]')


# --- detection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
def test_wire_when_another_is_named_wins(wire: str) -> None:
    """What the caller says stands, even where it is wrong."""
    run = Dispatcher().run(BODIES[wire](), wire="responses", check=False)
    assert run.status != "completed" or not run.text


def test_wire_when_none_fits_shows_the_frame() -> None:
    """The first frame is shown."""
    with pytest.raises(DecodeError, match=r"responses, anthropic, chat, gemini.*nonsense"):
        collect(b'data: {"nonsense": 1}\n\n')


def test_error_field_when_it_is_all_is_an_error() -> None:
    """Some servers write the failure as a field of its own."""
    first = json.dumps(chunk({"content": "a"})).encode()
    with pytest.raises(APIStreamError, match="out of memory") as caught:
        collect(b'data: %s\n\nerror: {"message": "out of memory"}\n\n' % first)
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"


class _Plain:
    """A stranger's wire, with what it must have: a frame is a word."""

    name = "words"

    def __init__(self, limits: Limits) -> None:
        self._assembled: list[Event] = []

    @staticmethod
    def fits(frame: Frame) -> bool:
        return "word" in (frame.event, json.loads(frame.data).get("type") if frame.data.startswith("{") else None)

    def feed(self, frame: Frame) -> list[Event]:
        return [TextDelta(frame.data)]

    def close(self) -> list[Event]:
        from eventflow import Response, ResponseCompleted

        return [ResponseCompleted(Response(status="completed"))]


class _Entry:
    """An entry point."""

    dist = None

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, "strangers:" + name
        self._value = value

    def load(self) -> Any:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


def test_wire_when_a_stranger_has_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wire of an entry point is found by name and by its first frame, before all that has a type is for Responses."""
    entries = [_Entry("words", _Plain)]

    def entry_points(group: str, name: str | None = None) -> list[_Entry]:
        assert group == "eventflow.wires"
        return [entry for entry in entries if name in (None, entry.name)]

    monkeypatch.setattr("eventflow.wires.entry_points", entry_points)
    body = b"event: word\ndata: hello\n\nevent: word\ndata: you\n\n"
    assert Dispatcher().run(body).text == Dispatcher().run(body, wire="words").text == "helloyou"
    assert isinstance(detect(Frame(data='{"type": "word"}'), Limits()), _Plain)
    assert isinstance(detect(Frame(data='{"type": "vendor.word"}'), Limits()), ResponsesWire)
    assert isinstance(wire_named("words", Limits()), _Plain)
    with pytest.raises(UsageError, match="responses, anthropic, chat, gemini, words"):
        wire_named("word", Limits())
    with pytest.raises(DecodeError, match="of no wire"):
        detect(Frame("other", "{}"), Limits())
    entries[:] = [_Entry("words", ImportError("no such module"))]
    with pytest.raises(PluginError, match="cannot be loaded: ImportError"):
        wire_named("words", Limits())
    entries[:] = [_Entry("words", object())]
    with pytest.raises(PluginError, match="is none"):
        detect(Frame("word", "x"), Limits())


# --- SDKs ------------------------------------------------------------------------------------------------------------


def chat_answer(peer: Peer) -> None:
    """A chat server."""
    sse([b"data: %s\n\n" % json.dumps(event).encode() for event in CHAT] + [b"data: [DONE]\n\n"])(peer)


def anthropic_answer(peer: Peer) -> None:
    """An Anthropic server."""
    sse([b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in ANTHROPIC])(peer)


@pytest.fixture
def chat_server() -> Iterator[Server]:
    """One that streams a chat."""
    with Server(chat_answer) as server:
        yield server


@pytest.fixture
def anthropic_server() -> Iterator[Server]:
    """One that streams a message."""
    with Server(anthropic_answer) as server:
        yield server


@pytest.mark.parametrize("read", [False, True], ids=["unread", "begun"])
def test_chat_stream_of_the_openai_sdk(chat_server: Server, read: bool) -> None:
    """Its bytes while nothing is read, else its objects."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="made-up", base_url=chat_server.url, max_retries=0) as client:
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        if read:
            next(stream)
        check(Dispatcher().run(stream))


@pytest.mark.parametrize("form", ["begun", "listed"])
def test_chat_helper_of_the_openai_sdk(chat_server: Server, form: str) -> None:
    """What the helper made beside the chunks is left out, whatever it begins with."""
    openai = pytest.importorskip("openai")
    with (
        openai.OpenAI(api_key="made-up", base_url=chat_server.url, max_retries=0) as client,
        client.chat.completions.stream(model="m", messages=[]) as stream,
    ):
        if form == "begun":
            next(iter(stream))
        check(Dispatcher().run(stream if form == "begun" else list(stream)))


class _Made:
    """An object of an SDK."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self.__dict__.update(fields)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return self._fields


def test_objects_of_helpers_when_they_are_more_than_what_came() -> None:
    """An object around a chunk is the chunk; one that a helper made of several is none."""
    chunks: list[Any] = [_Made(type="content.delta", delta="a"), *(_Made(type="chunk", chunk=_Made(**c)) for c in CHAT)]
    check(Dispatcher().run([*chunks, _Made(type="content.done", content="ab")]))
    events = [_Made(type="text", text="a", snapshot="a"), *(_Made(**event) for event in ANTHROPIC)]
    check(Dispatcher().run(events))


@pytest.mark.parametrize("body", [{"message": "no", "code": "slow"}, {"type": "error", "error": {"message": "no"}}])
def test_error_of_an_sdk_when_it_was_an_event(body: Any) -> None:
    """An error that the SDK has made of an event is that event again, in the words of either SDK."""

    class APIError(Exception):
        body: Any = None

    class APIStatusError(APIError):
        pass

    def source() -> Iterator[Any]:
        yield _Made(**CHAT[0])
        error = APIStatusError("no")
        error.body = body
        raise error

    run = Dispatcher().run(source(), check=False)
    assert run.status == "failed"
    assert isinstance(run.error, APIStreamError)
    assert "no" in str(run.error)


@pytest.mark.parametrize("first", [b"event: ping\ndata: {}\n\n", b'data: {"type":"keepalive"}\n\n', b"data: {}\n\n"])
@pytest.mark.parametrize("wire", WIRES)
def test_detection_when_a_ping_comes_first(first: bytes, wire: str) -> None:
    """It may come on any wire, so it decides nothing."""
    check(Dispatcher().run(first + BODIES[wire]()))


@pytest.mark.parametrize("helper", [False, True])
def test_chat_stream_of_the_async_openai_sdk(chat_server: Server, helper: bool) -> None:
    """The same, async; and its helper, given as it is."""
    openai = pytest.importorskip("openai")

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="made-up", base_url=chat_server.url, max_retries=0) as client:
            if helper:
                check(await Dispatcher().arun(client.chat.completions.stream(model="m", messages=[])))
            else:
                stream = await client.chat.completions.create(model="m", messages=[], stream=True)
                check(await Dispatcher().arun(stream))

    anyio.run(main)


@pytest.mark.parametrize("form", ["create", "begun", "helper", "entered", "half"])
def test_stream_of_the_anthropic_sdk(anthropic_server: Server, form: str) -> None:
    """Its stream, and what its helper gives, unread and begun."""
    anthropic = pytest.importorskip("anthropic")
    url = anthropic_server.url.removesuffix("/v1")
    asked: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    with anthropic.Anthropic(api_key="made-up", base_url=url, max_retries=0) as client:
        if form in ("create", "begun"):
            stream = client.messages.create(**asked, stream=True)
            if form == "begun":
                rest = [next(stream)]
                check(Dispatcher().run(iter([*rest, *stream])))
            else:
                check(Dispatcher().run(stream))
            return
        manager = client.messages.stream(**asked)
        if form == "helper":
            check(Dispatcher().run(manager))
            return
        with manager as stream:
            first = [next(stream)] if form == "half" else []
            check(Dispatcher().run(iter([*first, *stream]) if first else stream))


def test_stream_of_the_async_anthropic_sdk(anthropic_server: Server) -> None:
    """The same, async."""
    anthropic = pytest.importorskip("anthropic")
    url = anthropic_server.url.removesuffix("/v1")

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="made-up", base_url=url, max_retries=0) as client:
            asked: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
            response = await acollect(await client.messages.create(**asked, stream=True))
            assert response.output_text == "ab"
            async with client.messages.stream(**asked) as stream:
                check(await Dispatcher().arun(stream))

    anyio.run(main)


# --- recordings of our own -------------------------------------------------------------------------------------------


def test_recordings_when_of_one_model_over_three_apis_agree(fixtures: Path) -> None:
    """llama.cpp's three APIs, recorded: the same kinds of events in the same order, whatever the wire."""
    kinds = {}
    for wire in ("responses", "chat", "anthropic"):
        for path in sorted(fixtures.glob(f"{wire}*.sse")):
            run = Dispatcher().run(path, check=False)
            assert run.status in ("completed", "incomplete", "failed"), path.name
            kinds[path.stem] = run
    assert len(kinds) >= 3


def test_array_when_its_text_is_too_long() -> None:
    """Text is bounded in arrays as well."""
    with pytest.raises(LimitExceeded):
        Dispatcher(limits=Limits(text=1)).run(json.dumps(GEMINI).encode())


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"type": ["x"]}\n\n',
        b'data: {"type": "content_block_start", "index": 0, "content_block": {"type": ["x"]}}\n\n',
    ],
)
def test_wire_when_a_frame_is_odd_raises_nothing_of_its_own(frame: bytes) -> None:
    """Odd shapes are read past, or end the run with an error of ours."""
    run = Dispatcher().run(frame, wire="anthropic", check=False)
    assert run.status in ("failed", "truncated")
    path = {"jsonPath": "$['']", "stringValue": "x"}
    begun = part({"functionCall": {"name": "f", "willContinue": True}})
    chunks = [begun, part({"functionCall": {"partialArgs": [path, {"jsonPath": "$.a[" + "9" * 5000 + "]"}]}})]
    assert Dispatcher().run(iter(chunks), wire="gemini", check=False).status == "truncated"


def test_wire_when_it_fails_by_itself_is_a_decode_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a wire ends the run, with what came before."""

    def feed(self: object, frame: Frame) -> list[Event]:
        raise KeyError("mine")

    monkeypatch.setattr("eventflow.wires.chat.ChatWire.feed", feed)
    with pytest.raises(DecodeError, match="KeyError: 'mine'"):
        collect(chat_body())


@pytest.mark.parametrize("wire", WIRES)
def test_wire_when_it_was_told_why_the_answer_ends_knows(wire: str) -> None:
    """The end of the body is the end of the answer then, and only then."""
    made: Any = wire_named(wire, Limits())
    assert not made.finished
    for event in MAPPINGS[wire][:-2]:
        made.feed(Frame(data=json.dumps(event)))
    for event in MAPPINGS[wire][-2:]:
        made.feed(Frame(data=json.dumps(event)))
    assert made.finished
