"""Streams of the OpenAI SDK as sources: unread they are read as bytes, begun as objects, and it makes no difference."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import threading
import types
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx2
import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import responses as sdk
from scenarios import JSON, answer, block, body, completed, created, error, failed, message, numbered, opened
from servers import Peer, Server, document, silence, sse, status

from eventflow import Dispatcher, Event, Run, TextDelta, Timeouts, acollect, collect
from eventflow.errors import (
    APIStreamError,
    EventflowError,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UsageError,
)
from eventflow.events import OutputItemDone, StreamError, ToolCall, UnknownEvent
from eventflow.sse import Frame
from eventflow.sse import decode as frames_of
from tests.strategies import Told, chunkings, streams

# A body that is left early leaves generators of httpx's and the SDK's behind, which trio warns of; none may be of ours.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(http|openai):ResourceWarning")

WAYS = ("sync", "asyncio", "trio")
ASKED: dict[str, Any] = {"model": "m", "input": "Hello!"}
SOON = 5.0  # seconds within which a server has noticed that its client left
FIXTURES = sorted(path.name for path in (Path(__file__).parent / "fixtures").glob("responses-*.sse"))

Form = Callable[[Any], Generator[Any, Any, Any]]


def said(*texts: str, end: Callable[..., JSON] = completed) -> list[JSON]:
    """A numbered answer, with the part that the SDK's ``responses.stream()`` needs to know of."""
    first, second, *rest = answer(*texts, end=end)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "response.content_part.added", **place, "part": {"type": "output_text", "text": ""}}
    return numbered([first, second, part, *rest])


AB = said("a", "b")
BEGUN = AB[:4]  # until the first piece of text


# --- the forms in which the SDK gives a stream -----------------------------------------------------------------------
#
# Each is written once for both clients: it yields what an async program awaits, or a manager to be entered.


@attrs.frozen
class Enter:
    """A context manager to be entered until the run is over."""

    manager: Any


def step(stream: Any) -> Any:
    """Its next event."""
    return anext(stream) if hasattr(stream, "__anext__") else next(stream)


def unread(client: Any) -> Generator[Any, Any, Any]:
    """Its stream as it comes."""
    return (yield client.responses.create(**ASKED, stream=True))


def retrieved(client: Any) -> Generator[Any, Any, Any]:
    """The stream of a response that was made before."""
    return (yield client.responses.retrieve("resp_1", stream=True))


def manager(client: Any) -> Generator[Any, Any, Any]:
    """Its helper, not entered."""
    yield from ()
    return client.responses.stream(**ASKED)


def entered(client: Any) -> Generator[Any, Any, Any]:
    """Its helper, entered."""
    return (yield Enter(client.responses.stream(**ASKED)))


def raw(client: Any) -> Generator[Any, Any, Any]:
    """Its raw response."""
    return (yield client.responses.with_raw_response.create(**ASKED, stream=True))


def raw_parsed(client: Any) -> Generator[Any, Any, Any]:
    """The stream inside that."""
    answer = yield from raw(client)
    return (yield answer.parse())


def streaming(client: Any) -> Generator[Any, Any, Any]:
    """Its raw response that is read as a stream, not entered."""
    yield from ()
    return client.responses.with_streaming_response.create(**ASKED, stream=True)


def streaming_entered(client: Any) -> Generator[Any, Any, Any]:
    """The same, entered."""
    manager = yield from streaming(client)
    return (yield Enter(manager))


def streaming_parsed(client: Any) -> Generator[Any, Any, Any]:
    """The stream inside that."""
    answer = yield from streaming_entered(client)
    return (yield answer.parse())


def begun(client: Any) -> Generator[Any, Any, Any]:
    """Its stream, one event taken."""
    stream = yield from unread(client)
    yield step(stream)
    return stream


def half_read(client: Any) -> Generator[Any, Any, Any]:
    """Its helper, three events taken."""
    stream = yield from entered(client)
    for _ in range(3):
        yield step(stream)
    return stream


def parsing(client: Any) -> Generator[Any, Any, Any]:
    """Its helper when it parses what comes, one event taken."""

    class Letters(pydantic.BaseModel):
        a: int

    stream = yield Enter(client.responses.stream(**ASKED, text_format=Letters))
    yield step(stream)
    return stream


def behind(client: Any) -> Generator[Any, Any, Any]:
    """Its helper when it leaves out what came before; it does that itself."""
    return (yield Enter(client.responses.stream(response_id="resp_1", starting_after=2)))


BYTES = (unread, retrieved, manager, entered, raw, raw_parsed, streaming, streaming_entered, streaming_parsed)
OBJECTS = {begun: 1, half_read: 3, parsing: 1, behind: 3}  # how many events do not come to the run
forms = pytest.mark.parametrize("form", BYTES, ids=lambda form: form.__name__)
object_forms = pytest.mark.parametrize("form", OBJECTS, ids=lambda form: form.__name__)
both_forms = pytest.mark.parametrize("form", [unread, manager, begun, half_read], ids=lambda form: form.__name__)
ways = pytest.mark.parametrize("way", WAYS)


def made(steps: Generator[Any, Any, Any], stack: ExitStack) -> Any:
    """The stream of a form, of a sync client."""
    value = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as done:
            return done.value
        if isinstance(value, Enter):
            value = stack.enter_context(value.manager)


async def amade(steps: Generator[Any, Any, Any], stack: AsyncExitStack) -> Any:
    """The stream of a form, of an async client."""
    value = None
    while True:
        try:
            value = steps.send(value)
        except StopIteration as done:
            return done.value
        if isinstance(value, Enter):
            value = await stack.enter_async_context(value.manager)
        elif isinstance(value, Awaitable):
            value = await value


PLAIN: dict[str, Any] = {"verify": False, "trust_env": False}  # reading certificates, which none needs, takes 25 ms


def client_of(server: Server) -> openai.OpenAI:
    """A client of the SDK."""
    return openai.OpenAI(base_url=server.url, api_key="made-up", max_retries=0, http_client=httpx2.Client(**PLAIN))


def aclient_of(server: Server) -> openai.AsyncOpenAI:
    """An async client of the SDK."""
    http = httpx2.AsyncClient(**PLAIN)
    return openai.AsyncOpenAI(base_url=server.url, api_key="made-up", max_retries=0, http_client=http)


def asked(
    server: Server, way: str, form: Form, use: Callable[[Any], Any], ause: Callable[[Any], Awaitable[Any]]
) -> Any:
    """What *use*, or *ause* in an async way, makes of a stream of *server*."""
    if way == "sync":
        with client_of(server) as client, ExitStack() as stack:
            return use(made(form(client), stack))

    async def main() -> Any:
        async with aclient_of(server) as client, AsyncExitStack() as stack:
            return await ause(await amade(form(client), stack))

    result = anyio.run(main, backend=way)
    if way == "trio":
        gc.collect()  # what is left behind is warned of here, not in another test
    return result


def run_of(server: Server, way: str, form: Form, flow: Dispatcher | None = None) -> Run:
    """The run over a stream of *server*, however it ends."""
    flow = flow or Dispatcher()
    use, ause = functools.partial(flow.run, check=False), functools.partial(flow.arun, check=False)
    return typing.cast("Run", asked(server, way, form, use, ause))


def listening(**options: Any) -> tuple[Dispatcher, list[Event], list[Frame | None]]:
    """A dispatcher, what its handlers hear, and the frames that they see."""
    flow, heard, seen = Dispatcher(**options), list[Event](), list[Frame | None]()

    @flow.on("*")
    def note(event: Event, run: Run) -> None:
        heard.append(event)
        seen.append(run.frame)

    return flow, heard, seen


def events_of(events: list[JSON]) -> list[Event]:
    """What *events* are, read as bytes."""
    return list(Dispatcher().stream(body(events), check=False))


# --- whole streams ---------------------------------------------------------------------------------------------------


@ways
@forms
def test_stream_when_it_is_unread_is_read_as_bytes(form: Form, way: str) -> None:
    """Whatever the SDK wraps around it, the frames are those of the wire, to the letter."""
    flow, heard, seen = listening()
    with Server(sse(AB)) as server:
        run = run_of(server, way, form, flow)
    assert (run.status, run.error, run.text, run.warnings) == ("completed", None, "ab", ())
    assert heard == events_of(AB)
    assert seen == list(frames_of([body(AB)]))


@ways
@object_forms
def test_stream_when_it_is_begun_gives_the_rest(form: Form, way: str) -> None:
    """Events that were taken before are the caller's; every other one comes, once."""
    text = '{"a": 1}' if form is parsing else "ab"
    events = said(text[:1], text[1:])
    flow, heard, _ = listening()
    with Server(sse(events)) as server:
        run = run_of(server, way, form, flow)
    assert (run.status, run.error, run.text) == ("completed", None, text)
    assert heard == events_of(events)[OBJECTS[form] :]


@ways
@both_forms
def test_stream_when_it_is_given_to_any_face(form: Form, way: str) -> None:
    """Run, iterated or collected: the same response, and the connection is left as the SDK would leave it."""

    async def aiterated(source: Any) -> list[Event]:
        async with Dispatcher().astream(source) as events:
            return [event async for event in events]

    with Server(sse(AB)) as server:
        response = asked(server, way, form, collect, acollect)
        events = asked(server, way, form, lambda source: list(Dispatcher().stream(source)), aiterated)
    assert response.output_text == "ab"
    assert response.usage.total_tokens == 8
    assert events == events_of(AB)[OBJECTS.get(form, 0) :]


def test_stream_when_it_was_read_as_bytes_leaves_its_connection_open() -> None:
    """The next request goes over the same connection."""
    with Server(sse(AB)) as server, client_of(server) as client:
        for _ in range(3):
            collect(client.responses.create(**ASKED, stream=True))
        assert (len(server.requests), server.connections) == (3, 1)


@ways
@both_forms
def test_stream_when_it_is_compressed(form: Form, way: str) -> None:
    """The SDK asks for gzip by itself."""
    import gzip

    data = gzip.compress(body(AB))
    with Server(sse([data[:40], data[40:]], headers={"content-encoding": "gzip"})) as server:
        assert run_of(server, way, form).text == "ab"
        assert "gzip" in server.requests[0].headers["accept-encoding"]


# --- leaving, waiting, breaking off ----------------------------------------------------------------------------------


def hanging(peer: Peer) -> None:
    """An answer that begins, and says no more."""
    sse(BEGUN, then=silence)(peer)


@ways
@both_forms
def test_stream_when_it_is_left_early_closes_its_connection(form: Form, way: str) -> None:
    """After the first event that came through."""

    def leave(source: Any) -> bool:
        for _ in Dispatcher().stream(source):
            break
        return server.left.wait(SOON)  # here: at the end of its own blocks the SDK would close it

    async def aleave(source: Any) -> bool:
        async with Dispatcher().astream(source) as events:
            async for _ in events:
                break
        return await anyio.to_thread.run_sync(server.left.wait, SOON)

    with Server(hanging) as server:
        assert asked(server, way, form, leave, aleave)


@ways
@both_forms
def test_stream_when_its_run_is_cancelled_closes_its_connection(form: Form, way: str) -> None:
    """Also from another thread, while it is waited for."""
    timers: list[threading.Timer] = []
    flow = Dispatcher()

    @flow.on(TextDelta)
    def soon(event: TextDelta, run: Run) -> None:
        timers.append(threading.Timer(0.05, run.cancel))
        timers[0].start()

    with Server(hanging) as server:
        run = run_of(server, way, form, flow)
        timers[0].join()
        assert server.left.wait(SOON)
    assert (run.status, run.error, run.text) == ("cancelled", None, "a")


@ways
@both_forms
def test_stream_when_it_goes_silent_is_a_timeout(form: Form, way: str) -> None:
    """The dispatcher's timers count, and the connection is closed."""
    with Server(hanging) as server:
        run = run_of(server, way, form, Dispatcher(timeout=Timeouts(idle=0.2)))
        assert server.left.wait(SOON)
    assert (run.status, run.text) == ("timeout", "a")
    assert isinstance(run.error, StreamTimeout)
    assert run.error.timer == "idle"


@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_stream_when_its_head_does_not_come_is_a_timeout(way: str) -> None:
    """A request that is sent when its manager is entered counts as well."""
    with Server(silence) as server:
        run = run_of(server, way, manager, Dispatcher(timeout=Timeouts(first_event=0.2)))
        assert server.left.wait(SOON)
    assert (run.status, run.events) == ("timeout", 0)


@ways
@both_forms
@pytest.mark.parametrize(("end", "kind"), [(b"0\r\n\r\n", StreamTruncated), (b"", StreamInterrupted)])
def test_stream_when_it_ends_too_early_is_truncated(form: Form, way: str, end: bytes, kind: type[Exception]) -> None:
    """A clean end without a terminal event, and a cut: what came is in the error."""
    with Server(sse(BEGUN, end=end)) as server:
        run = run_of(server, way, form)
    assert (run.status, type(run.error)) == ("truncated", kind)
    assert isinstance(run.error, EventflowError)
    assert run.error.partial is not None
    assert run.error.partial.output_text == "a"


def test_stream_when_it_ends_too_early_is_nothing_to_the_sdk() -> None:
    """Which is why it is worth telling: its own loop just ends."""
    with Server(sse(BEGUN)) as server, client_of(server) as client:
        events = list(client.responses.create(**ASKED, stream=True))
    assert [event.type for event in events] == [event["type"] for event in BEGUN]


REPORTS: list[JSON] = [
    error("server_error", "it broke"),
    failed("server_error", "it broke"),
    {"type": "error", "error": {"type": "server_error", "code": "server_error", "message": "it broke"}},
    {"error": {"code": "server_error", "message": "it broke"}},
]


@ways
@both_forms
@pytest.mark.parametrize("report", REPORTS, ids=["flat", "failed", "nested", "bare"])
def test_stream_when_it_reports_an_error_fails(form: Form, way: str, report: JSON) -> None:
    """Of some shapes the SDK makes an exception of its own; the run ends the same."""
    last = block(report) if "type" in report else f"data: {json.dumps(report)}\n\n".encode()
    with Server(sse([*BEGUN, last])) as server:
        run = run_of(server, way, form)
    assert (run.status, run.text) == ("failed", "a")
    assert isinstance(run.error, APIStreamError)
    assert run.error.code == "server_error"
    assert "it broke" in run.error.message


@ways
def test_manager_when_the_server_refuses_says_what_the_sdk_raised(way: str) -> None:
    """The request is sent when it is entered; what the SDK makes of an HTTP error is the cause."""
    page = b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}'
    with Server(status(429, page=page)) as server:
        run = run_of(server, way, manager)
    assert run.error is not None
    assert isinstance(run.error.__cause__, openai.RateLimitError)
    assert "429" in run.error.message


# --- what cannot be --------------------------------------------------------------------------------------------------


def test_coroutine_when_it_was_not_awaited_is_refused() -> None:
    """The message says what to do; Python does not complain about it a second time."""

    async def main() -> None:
        async with aclient_of(server) as client:
            for take in (Dispatcher().arun, acollect):
                with pytest.raises(UsageError, match=r"await it first: arun\(await client\.responses\.create"):
                    await take(client.responses.create(**ASKED, stream=True))
            for refuse in (Dispatcher().astream, Dispatcher().stream, Dispatcher().run):
                with pytest.raises(UsageError, match="await it first"):
                    refuse(client.responses.create(**ASKED, stream=True))
        gc.collect()

    with Server(sse(AB)) as server:
        asyncio.run(main())
        assert server.requests == []


@pytest.mark.parametrize("form", [unread, entered, begun, half_read], ids=lambda form: form.__name__)
def test_sync_stream_when_a_run_is_async_is_refused(form: Form) -> None:
    """It would block the loop; it is closed, for nobody will read it."""

    async def main(source: Any) -> None:
        with pytest.raises(UsageError, match="is a synchronous HTTP response; use run"):
            await Dispatcher().arun(source)
        with pytest.raises(UsageError, match="is a synchronous HTTP response; use run"):
            Dispatcher().astream(source)

    def use(source: Any) -> bool:
        asyncio.run(main(source))
        return server.left.wait(SOON)

    with Server(hanging) as server:
        assert asked(server, "sync", form, use, main)


def test_sync_manager_when_a_run_is_async_is_refused() -> None:
    """Before anything is sent."""

    def use(source: Any) -> None:
        with pytest.raises(UsageError, match="synchronous"):
            asyncio.run(Dispatcher().arun(source))

    with Server(sse(AB)) as server:
        asked(server, "sync", manager, use, acollect)
        assert server.requests == []


@pytest.mark.parametrize("form", [unread, entered, begun, half_read], ids=lambda form: form.__name__)
@pytest.mark.parametrize("way", ["asyncio", "trio"])
def test_async_stream_when_a_run_is_sync_is_refused(form: Form, way: str) -> None:
    """The message names the faces that take it; it can still be read by one of them."""

    async def ause(source: Any) -> str:
        with pytest.raises(UsageError, match=r"use arun\(\), astream\(\) or acollect\(\)"):
            Dispatcher().run(source)
        return (await acollect(source)).output_text

    with Server(sse(AB)) as server:
        assert asked(server, way, form, collect, ause) == "ab"


# --- bytes and objects are the same ----------------------------------------------------------------------------------


class _Chunks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class Player:
    """A client of the SDK for whatever chunks it is to get, without a server."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        transport = httpx2.MockTransport(self._answer)
        options: dict[str, Any] = {"base_url": "http://127.0.0.1/v1", "api_key": "made-up", "max_retries": 0}
        self._client = openai.OpenAI(**options, http_client=httpx2.Client(transport=transport))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Chunks(self._chunks))

    def stream(self, chunks: list[bytes]) -> Any:
        """A stream of the SDK that gets *chunks*."""
        self._chunks = chunks
        return self._client.responses.create(**ASKED, stream=True)


@functools.cache
def player() -> Player:
    """The one player: making a client takes longer than all that is asked of it."""
    return Player()


def outcome(run: Run) -> dict[str, Any]:
    """What a run came to."""
    response = run.response
    return {
        "status": run.status,
        "error": type(run.error),
        "text": run.text,
        "reasoning": response.reasoning_text,
        "tool calls": response.tool_calls,
        "usage": response.usage,
    }


def told(events: list[Event]) -> list[Event]:
    """What was told but for errors, of which the SDK makes exceptions."""
    return [event for event in events if not isinstance(event, StreamError)]


def over_objects(chunks: list[bytes], taken: int | None = None) -> tuple[Run, list[Event]]:
    """A run over the SDK's stream when some of its events are *taken*, or over its events as such; what it heard."""
    flow, heard, _ = listening()
    stream = player().stream(chunks)
    for _ in range(taken or 0):
        next(stream)
    return flow.run((event for event in stream) if taken is None else stream, check=False), heard


def over_bytes(chunks: list[bytes]) -> tuple[Run, list[Event]]:
    """The same over its bytes."""
    flow, heard, seen = listening()
    run = flow.run(player().stream(chunks), check=False)
    assert seen[0] == next(iter(frames_of(chunks)))
    return run, heard


@given(data=st.data())
def test_objects_when_the_stream_is_recorded_are_the_same_as_bytes(fixtures: Path, data: st.DataObject) -> None:
    """However the body is cut: the same events, text, reasoning, calls, usage, status, and kind of error."""
    chunks = data.draw(chunkings((fixtures / data.draw(st.sampled_from(FIXTURES))).read_bytes()))
    run, events = over_bytes(chunks)
    again, objects = over_objects(chunks)
    events = told(events)
    assert told(objects) == events
    assert outcome(again) == outcome(run)
    places = [place for place, event in enumerate(events) if not isinstance(event, ToolCall)]  # made here, not sent
    taken = data.draw(st.integers(1, len(places) - 1))
    rest, objects = over_objects(chunks, taken)
    sent = [event for event in told(objects) if not isinstance(event, ToolCall)]
    assert sent == [event for event in events[places[taken] :] if not isinstance(event, ToolCall)]
    calls = [{event.call_id for event in heard if isinstance(event, ToolCall)} for heard in (objects, events)]
    assert calls[0] == calls[1]  # the terminal event tells of those that were read elsewhere
    assert rest.status == run.status


@given(stream=streams())
def test_objects_when_the_stream_is_any_are_the_same_as_bytes(stream: Told) -> None:
    """Items of every kind, several at once, and any text."""
    chunks = [body([event.to_dict() for event in stream.events])]
    run, events = over_bytes(chunks)
    again, objects = over_objects(chunks)
    assert objects == events
    assert (outcome(again), again.response) == (outcome(run), run.response)


def test_objects_when_recordings_are_of_many_servers_are_the_same_as_bytes(corpus: Path) -> None:
    """Every recorded stream, ended properly; behind an error the SDK reads no further."""
    compared = 0
    for path in sorted((corpus / "responses").iterdir()):
        chunks = [path.read_bytes(), b"\n\n"]
        run, events = over_bytes(chunks)
        again, objects = over_objects(chunks)
        assert outcome(again) == outcome(run), path.name
        if run.error is None:
            assert (objects, again.response) == (events, run.response), path.name
            compared += 1
    assert compared > 100


# Every type that the SDK knows, with all the fields that it has.


def members(kind: Any) -> list[Any]:
    """The classes of a union, however it is wrapped."""
    if typing.get_origin(kind) is typing.Annotated:
        return members(typing.get_args(kind)[0])
    if hasattr(kind, "__value__"):  # type X = ...
        return members(kind.__value__)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [member for argument in typing.get_args(kind) for member in members(argument)]
    return [kind]


SAMPLES: dict[Any, Any] = {str: "words", int: 3, float: 1.5, bool: True, object: {"any": ["thing"]}, Any: None}


def sample(kind: Any) -> Any:
    """JSON for *kind*, no field left out."""
    first = members(kind)[0]
    origin, arguments = typing.get_origin(first), typing.get_args(first)
    if origin is typing.Literal:
        return arguments[0]
    if origin is list:
        return [sample(arguments[0])]
    if origin is dict:
        return {"key": sample(arguments[1])}
    if first not in SAMPLES and issubclass(first, pydantic.BaseModel):
        return {field.alias or name: sample(field.annotation) for name, field in first.model_fields.items()}
    return SAMPLES[first]


def named(kind: Any) -> dict[str, Any]:
    """A sample of each member, by its type."""
    return {value["type"]: value for value in map(sample, members(kind))}


SDK_EVENTS = named(sdk.ResponseStreamEvent)
SDK_ITEMS = named(sdk.ResponseOutputItem)


def both(event: JSON) -> tuple[list[Event], list[Event]]:
    """One event as it is heard when read as bytes, and as an object."""
    chunks = [block(event)]
    return over_bytes(chunks)[1], over_objects(chunks)[1]


@pytest.mark.parametrize("name", SDK_EVENTS)
def test_object_of_any_event_is_the_same_as_its_bytes(name: str) -> None:
    """Whatever the SDK has a class for."""
    as_bytes, as_object = both(SDK_EVENTS[name])
    assert [event.type for event in as_bytes] == [name]
    assert as_object == as_bytes


@pytest.mark.parametrize("name", SDK_ITEMS)
def test_object_of_any_item_is_the_same_as_its_bytes(name: str) -> None:
    """By itself, and in a whole response."""
    item = SDK_ITEMS[name]
    as_bytes, as_object = both({"type": "response.output_item.done", "output_index": 0, "item": item})
    assert as_object == as_bytes
    assert isinstance(as_bytes[0], OutputItemDone)
    assert as_bytes[0].item.type == name
    as_bytes, as_object = both(completed(item))
    assert as_object == as_bytes


def test_objects_when_fields_have_names_of_python_are_sent_under_those_of_the_api() -> None:
    """The SDK calls some of them ``schema_`` and ``async_``."""
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    tool = {"type": "function", "name": "f", "parameters": {}, "strict": True, "async": True}
    response = {**completed()["response"], "text": {"format": schema}, "tools": [tool]}
    _, (event,) = both({"type": "response.completed", "response": response})
    assert event.to_dict()["response"]["text"] == {"format": schema}
    assert event.to_dict()["response"]["tools"] == [tool]


@pytest.mark.parametrize("name", SDK_ITEMS)
def test_items_of_the_sdk_when_they_are_sent_are_what_was_received(name: str) -> None:
    """What the SDK gave as output may be input of the next request."""
    (event,) = player().stream([block({"type": "response.output_item.done", "item": SDK_ITEMS[name]})])
    with Server(document({"id": "resp_1", "status": "completed", "output": []})) as server, server.client() as client:
        client.responses.create(model="m", input=[event.item])
        assert server.requests[0].json["input"] == [SDK_ITEMS[name]]


STRANGE: list[JSON] = [
    {
        "type": "vendor.thing",
        "sequence_number": 7,
        "delta": {"x": [1, None]},
        "n": None,
        "big": 2**70,
        "text": "ü\ud83d",
    },
    {"type": "response.output_text.sparkle", "item_id": "msg_1", "delta": 5, "async": True, "schema": {"type": "x"}},
    {"type": "vendor.thing", "response": {"status": 5}, "item": {"type": "nothing", "content": 1}, "error": None},
]


@ways
@both_forms
def test_unknown_events_keep_all_their_data(form: Form, way: str) -> None:
    """The SDK takes them for something that it knows; here they are `UnknownEvent` with what was sent."""
    events = [*BEGUN, *STRANGE, *AB[4:]]
    flow, heard, _ = listening()
    with Server(sse(events)) as server:
        run = run_of(server, way, form, flow)
    unknown = [event for event in heard if isinstance(event, UnknownEvent)]
    assert [event.type for event in unknown] == [event["type"] for event in STRANGE]
    assert [event.data for event in unknown] == json.loads(json.dumps(STRANGE))
    assert (run.status, run.text) == ("completed", "ab")


def test_unknown_items_and_parts_keep_all_their_data() -> None:
    """Inside an event that is known."""
    item = {"type": "vendor_item", "id": "x", "arguments": {"a": [1]}, "content": [1], "name": None, "async": True}
    part = {"type": "vendor_part", "text": {"a": 1}}
    note = {"type": "vendor_note", "start_index": "one"}
    text = {"type": "output_text", "text": "a", "annotations": [note]}
    told = {**message("a"), "content": [part, text]}
    for event in (opened(item), opened(told), completed(item, told)):
        as_bytes, as_object = both(event)
        assert as_object == as_bytes
        shown = as_object[0].to_dict()
        assert {key: shown[key] for key in event if key != "response"} == {
            k: v for k, v in event.items() if k != "response"
        }
    assert shown["response"]["output"] == [item, told]


@pytest.mark.parametrize("missing", ["created", "in the middle"])
def test_objects_when_events_are_missing_warn_as_bytes_do(missing: str) -> None:
    """Sequence numbers are compared in both."""
    events = numbered([created(), *answer("a", "b")[1:]])
    del events[0 if missing == "created" else 3]
    run, _ = over_bytes([body(events)])
    again, _ = over_objects([body(events)])
    assert again.warnings == run.warnings
