"""The clients against a server on loopback: what is sent, how answers are read, and what never leaves the program.

A test is said once, in the async manner; `play` has each way of sending requests go through it.
"""

from __future__ import annotations

import contextlib
import email.utils
import gc
import gzip
import inspect
import json
import logging
import os
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from scenarios import JSON, answer, block, call, completed, created, delta, deltas, error, failed, message, opened
from servers import Answer, Peer, Server, document, raw, silence, sse, status
from test_schema import KINDS

from eventflow import (
    AsyncClient,
    AsyncStream,
    Client,
    Dispatcher,
    Event,
    Limits,
    Response,
    Run,
    Stream,
    TextDelta,
    Timeouts,
    iter_events,
)
from eventflow.errors import (
    APIStreamError,
    ConnectionFailed,
    DecodeError,
    EventflowError,
    HTTPStatusError,
    LimitExceeded,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UnexpectedContentType,
    UsageError,
)
from eventflow.exchange import Exchange, Pause, Read, Send
from eventflow.http import interrupter
from eventflow.request import create_call, head_seconds
from eventflow.schema import ParsedResponse, text_format_of

try:
    from httpx_aiohttp import HttpxAiohttpClient
except ImportError:
    HttpxAiohttpClient = None  # type: ignore[assignment,misc]

# httpx leaves generators of its own behind when a body is left early, which trio warns of; ours must not be among them
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

AIOHTTP = pytest.param("aiohttp", marks=pytest.mark.skipif(HttpxAiohttpClient is None, reason="no httpx-aiohttp"))
WAYS = ("sync", "httpx2", "asyncio", "asyncio-httpx2", AIOHTTP, "trio")
FEW = ("sync", "asyncio", "trio")
SYNC = ("sync", "httpx2")

AB = answer("a", "b")
DOCUMENT: JSON = {"id": "resp_1", "status": "completed", "output": [message("ab")]}
FAILED: JSON = failed()["response"]
NOW = {"retry-after-ms": "1"}
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, address or proxy of the machine's; tries follow each other at once."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("eventflow.exchange._FIRST_DELAY", 0.001)
    # no certificates for each client: to read them takes as long as all else in a test
    monkeypatch.setattr("ssl.create_default_context", lambda *_, **__: CONTEXT)


# --- all ways through one test ---------------------------------------------------------------------------------------


class Cursor:
    """A sync iterator in the async shape; dropping it drops what it holds."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self.items)
        except StopIteration:
            raise StopAsyncIteration from None


class Plain:
    """A `Stream` in the shape of an `AsyncStream`."""

    def __init__(self, stream: Stream[Any]) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __repr__(self) -> str:
        return repr(self.stream)

    def __aiter__(self) -> Cursor:
        return Cursor(iter(self.stream))

    async def __anext__(self) -> Event:
        return await Cursor(self.stream).__anext__()

    @property
    def text(self) -> Cursor:
        return Cursor(self.stream.text)

    async def collect(self) -> Any:
        return self.stream.collect()

    async def close(self) -> None:
        self.stream.close()

    async def __aenter__(self) -> Plain:
        assert self.stream.__enter__() is self.stream
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stream.__exit__(*error)


class Face:
    """Either client, in the async shape."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client: Any = client

    async def create(self, **parameters: Any) -> Any:
        """What ``responses.create`` gives."""
        return await came(self.client.responses.create(**{"model": "m", "input": "hello", **parameters}))

    async def retrieve(self, *arguments: Any, **options: Any) -> Any:
        """What ``responses.retrieve`` gives."""
        return await came(self.client.responses.retrieve(*arguments, **options))

    async def cancel(self, *arguments: Any, **options: Any) -> Any:
        """What ``responses.cancel`` gives."""
        return await came(self.client.responses.cancel(*arguments, **options))

    async def close(self) -> None:
        """Close the client."""
        await came(self.client.close())

    async def run(self, flow: Dispatcher, stream: Any, **options: Any) -> Run:
        """The run of a stream that is given to *flow*."""
        if isinstance(stream, Plain):
            return flow.run(stream.stream, **options)
        return await flow.arun(stream, **options)

    async def sleep(self, seconds: float) -> None:
        """Let some time pass."""
        if isinstance(self.client, Client):
            time.sleep(seconds)  # noqa: ASYNC251
        else:
            await anyio.sleep(seconds)

    async def sees_left(self, server: Server, seconds: float = 2) -> bool:
        """Whether a server sees its client leave, in time."""
        deadline = time.monotonic() + seconds
        while not server.left.is_set() and time.monotonic() < deadline:
            await self.sleep(0.002)
        return server.left.is_set()

    def events(self, flow: Dispatcher, stream: Any) -> AsyncIterator[Event]:
        """The events of a stream that is given to *flow*."""
        if isinstance(stream, Plain):
            return Cursor(iter(flow.stream(stream.stream)))
        return aiter(flow.astream(stream))


async def came(made: Any) -> Any:
    """What a call gave."""
    if inspect.isawaitable(made):
        return await made
    return Plain(made) if isinstance(made, Stream) else made


Scenario = Callable[[Face], Awaitable[Any]]


def play(way: str, server: Server | str, scenario: Scenario, *, vault: Any = None, **options: Any) -> Any:
    """What *scenario* comes to with a client of *server*; a *vault* has options that nobody may see."""
    options["base_url"] = server if isinstance(server, str) else server.url
    if way in SYNC:
        with contextlib.ExitStack() as stack:
            if way == "httpx2":
                options["http_client"] = stack.enter_context(httpx2.Client(timeout=None))
            with Client(**options, **(vault.options if vault else {})) as client:
                return step(scenario(Face(client)))

    async def main() -> Any:
        async with contextlib.AsyncExitStack() as stack:
            if way == "asyncio-httpx2":
                options["http_client"] = await stack.enter_async_context(httpx2.AsyncClient(timeout=None))
            if way == "aiohttp":
                options["http_client"] = await stack.enter_async_context(HttpxAiohttpClient(timeout=None))
            async with AsyncClient(**options, **(vault.options if vault else {})) as client:
                return await scenario(Face(client))

    return anyio.run(main, backend="trio" if way == "trio" else "asyncio")


def step(scenario: Any) -> Any:
    """What a scenario comes to that never waits."""
    try:
        scenario.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a sync client has waited for a loop")


def ask(way: str, server: Server | str, *, options: Any = None, **parameters: Any) -> Response:
    """The response to one ``create``, streamed or not."""

    async def scenario(face: Face) -> Response:
        made = await face.create(**parameters)
        return made if isinstance(made, Response) else await made.collect()  # type: ignore[no-any-return]

    return play(way, server, scenario, **(options or {}))  # type: ignore[no-any-return]


def good(stream: bool) -> Answer:
    """A good answer, as it was asked for."""
    return sse(AB) if stream else document(DOCUMENT)


def hanging(peer: Peer) -> None:
    """A stream that begins, and then says nothing more."""
    sse(AB[:3], then=silence)(peer)


def types(events: list[Event]) -> list[str]:
    """What events they are."""
    return [event.type for event in events]


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody will."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/v1"


# --- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_create_when_it_is_asked_for(way: str, stream: bool) -> None:
    """The parameters are the body, with what stream says; the headers ask for what can be read."""
    with Server(good(stream)) as server:
        response = ask(
            way,
            server,
            stream=stream,
            temperature=None,
            tools=[{"type": "function", "name": "f"}],
            extra_body={"top_k": 5, "model": "n"},
            extra_headers={"X-More": "1"},
            extra_query={"trial": True},
            options={"api_key": "sk-made-up"},
        )
    assert (response.id, response.status, response.output_text) == ("resp_1", "completed", "ab")
    (request,) = server.requests
    wish = {"stream": True} if stream else {}
    tools = [{"type": "function", "name": "f"}]
    assert request.json == {"model": "n", "input": "hello", "tools": tools, "top_k": 5, **wish}
    assert (request.method, request.path) == ("POST", "/v1/responses?trial=true")
    assert request.headers["accept"] == ("text/event-stream" if stream else "application/json")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["authorization"] == "Bearer sk-made-up"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "eventflow"
    assert request.headers["x-more"] == "1"


@pytest.mark.parametrize("way", FEW)
def test_create_when_the_input_has_items_of_a_response(way: str) -> None:
    """A conversation goes on with what the model gave, as it gave it, and with what a tool said to it."""
    odd = {"type": "telepathy_call", "id": "tp_1", "depth": {"a": [1]}}
    output = [message("let me see"), call('{"city": "Bergen"}'), odd]
    said = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}

    async def scenario(face: Face) -> None:
        first = await (await face.create(stream=True)).collect()
        await face.create(input=[*first.output, said])

    with Server(sse([created(), completed(*output)]), document(DOCUMENT)) as server:
        play(way, server, scenario)
    sent = server.requests[1].json["input"]
    assert [item["type"] for item in sent] == ["message", "function_call", "telepathy_call", "function_call_output"]
    assert sent[1:] == [*output[1:], said]
    assert sent[0]["content"][0]["text"] == "let me see"


@pytest.mark.parametrize("way", FEW)
def test_idempotency_key_when_a_request_is_sent_again(way: str) -> None:
    """One key for all attempts, so that the work is done once; a new one for each call."""

    async def scenario(face: Face) -> None:
        await face.create()
        await (await face.create(stream=True)).collect()

    answers = [status(503, headers=NOW), raw(b""), document(DOCUMENT)]
    with Server(*answers, status(429, headers=NOW), sse([], end=b""), sse(AB)) as server:
        play(way, server, scenario)
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(keys) == 6
    assert len(set(keys[:3])) == len(set(keys[3:])) == 1
    assert keys[0] != keys[3]
    assert len({request.body for request in server.requests[:3]}) == 1


@pytest.mark.parametrize("way", WAYS)
def test_base_url_when_it_has_a_query(way: str) -> None:
    """It stays, in front of what is added."""

    async def scenario(face: Face) -> None:
        await face.create(extra_query={"a": "b c"})
        await face.retrieve("resp/1?x")

    with Server(document(DOCUMENT)) as server:
        play(way, server.url + "/?api-version=2", scenario)
    assert [request.path for request in server.requests] == [
        "/v1/responses?api-version=2&a=b+c",
        "/v1/responses/resp%2F1%3Fx?api-version=2",
    ]


@pytest.mark.parametrize("way", FEW)
def test_client_when_the_environment_has_key_and_address(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken where nothing else is given."""
    cls = Client if way == "sync" else AsyncClient
    with Server(document(DOCUMENT)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
        assert repr(cls()) == f"<{cls.__name__} {server.url}>"
        ask(way, server)
        ask(way, server, options={"api_key": "sk-given"})
        monkeypatch.delenv("OPENAI_API_KEY")
        ask(way, server)
    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == ["Bearer sk-of-the-environment", "Bearer sk-given", None]


@pytest.mark.parametrize("way", FEW)
def test_key_when_it_is_a_function(way: str) -> None:
    """It is asked for each attempt: a key that has expired meanwhile is not sent again."""
    keys = iter(["sk-1", "sk-2", "sk-3"])
    with Server(status(503, headers=NOW), document(DOCUMENT)) as server:
        ask(way, server, options={"api_key": lambda: next(keys)})
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer sk-1", "Bearer sk-2"]


@pytest.mark.parametrize("way", FEW)
def test_headers_when_the_client_has_more(way: str) -> None:
    """They are sent with each request, ours stay but for the user agent; an authorization of theirs wins."""
    more = {"X-More": "1", "Accept": "text/plain", "User-Agent": "mine/1", "Authorization": "Basic x"}
    with Server(document(DOCUMENT)) as server:
        ask(way, server, options={"headers": more, "api_key": "sk-made-up"})
        ask(way, server, options={"api_key": "sk-made-up"}, extra_headers={"Authorization": "Basic y"})
    first, second = (request.headers for request in server.requests)
    assert (first["x-more"], first["accept"], first["user-agent"]) == ("1", "application/json", "mine/1")
    assert (first["authorization"], second["authorization"]) == ("Basic x", "Basic y")


@pytest.mark.parametrize("way", FEW)
def test_proxy_when_the_environment_has_one(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to other machines go through it, those to this machine do not."""
    with Server(document(DOCUMENT)) as proxy, Server(document(DOCUMENT)) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        ask(way, "http://models.invalid/v1")
        ask(way, server)
    assert [request.path for request in proxy.requests] == ["http://models.invalid/v1/responses"]
    assert len(server.requests) == 1


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_is_iterated(way: str) -> None:
    """All events come, each when it is sent; then the run is complete."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        assert isinstance(stream, Plain | AsyncStream)
        events = [event async for event in stream]
        assert types(events) == [event["type"] for event in AB]
        assert (stream.run.status, stream.run.text, stream.run.events) == ("completed", "ab", len(AB))
        with pytest.raises(UsageError, match="read once"):
            [event async for event in stream]

    with Server(sse(AB)) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_events_are_taken_one_by_one(way: str) -> None:
    """``next()`` takes one, a loop the rest; behind the end there is nothing."""

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as stream:
            first = await anext(stream)
            assert (first.type, stream.run.status, stream.run.events) == ("response.created", "running", 1)
            assert (await anext(stream)).type == AB[1]["type"]
            assert types([event async for event in stream]) == [event["type"] for event in AB[2:]]
            for _ in range(2):
                with pytest.raises(StopAsyncIteration):
                    await anext(stream)
            assert stream.run.text == "ab"

    with Server(sse(AB)) as server:
        play(way, server, scenario)


WHOLE = message("ab")
TEXTS: dict[str, tuple[list[JSON], list[str]]] = {
    "deltas": (AB, ["a", "b"]),
    "deltas only": ([created(), opened(), *deltas("a", "b"), completed()], ["a", "b"]),
    "done only": ([event for event in AB if event["type"] != delta("")["type"]], ["ab"]),
    "done and nothing else": (
        [created(), *(event for event in AB if event["type"].endswith("text.done")), completed()],
        ["ab"],
    ),
    "terminal only": ([completed(WHOLE)], ["ab"]),
    "two messages": (
        [created(), delta("a"), {**delta("b", index=1), "item_id": "msg_2"}, delta("c"), completed(WHOLE, WHOLE)],
        ["a", "b", "c"],
    ),
    "empty deltas": ([created(), delta(""), delta("a"), completed(message("a"))], ["a"]),
    "none": ([created(), completed()], []),
    "calls": ([created(), completed(call("{}"))], []),
}


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("form", TEXTS)
def test_text_when_the_server_sends(way: str, form: str) -> None:
    """The whole text comes once, in pieces where the server gives pieces."""
    events, pieces = TEXTS[form]

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as stream:
            assert [piece async for piece in stream.text] == pieces
            assert stream.run.status == "completed"

    with Server(sse(events)) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", FEW)
def test_text_when_events_were_taken_before(way: str) -> None:
    """It goes on where they ended, and fails as the stream does."""

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as stream:
            while not isinstance(await anext(stream), TextDelta):
                pass
            text = aiter(stream.text)
            assert [await anext(text), await anext(text)] == ["b", "c"]
            with pytest.raises(APIStreamError, match="it broke"):
                await anext(text)

    with Server(sse([created(), opened(), *deltas("a", "b", "c"), failed()])) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_is_collected(way: str) -> None:
    """The whole response, however much was read before; again and again the same."""

    async def scenario(face: Face) -> list[Response]:
        responses = []
        for taken in (0, 1, 5, len(AB)):
            async with await face.create(stream=True) as stream:
                for _ in range(taken):
                    await anext(stream)
                responses += [await stream.collect(), await stream.collect()]
        stream = await face.create(stream=True)
        assert [event async for event in stream][-1].response == responses[0]
        return [*responses, await stream.collect()]

    with Server(sse(AB)) as server:
        responses = play(way, server, scenario)
    assert len(responses) == 9
    assert all(response == responses[0] for response in responses)
    assert (responses[0].output_text, responses[0].usage.total_tokens) == ("ab", 8)


@pytest.mark.parametrize("way", FEW)
def test_stream_when_it_was_left_is_not_collected(way: str) -> None:
    """What is not whole is not given out as if it were; it stands in the run."""

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
            with pytest.raises(UsageError):
                await stream.collect()
        with pytest.raises(UsageError, match="left before its end"):
            await stream.collect()
        assert (stream.run.status, stream.run.text) == ("cancelled", "a")

    with Server(hanging) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_was_closed_unread_is_not_read(way: str) -> None:
    """A closed stream gives nothing any more, and its request is not sent again."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        await stream.close()
        with pytest.raises((UsageError, StopAsyncIteration)):
            await anext(stream)
        with pytest.raises(UsageError):
            await stream.collect()
        assert stream.run.status == "cancelled"

    with Server(hanging) as server:
        play(way, server, scenario)
    assert len(server.requests) == 1


FAULTS: dict[str, tuple[Answer, type[EventflowError]]] = {
    "failed": (sse([created(), *deltas("a"), failed()]), APIStreamError),
    "reported": (sse([created(), *deltas("a"), error()]), APIStreamError),
    "truncated": (sse([created(), *deltas("a")]), StreamTruncated),
    "cut": (sse([created(), *deltas("a")], end=b""), StreamInterrupted),
    "garbled": (sse([created(), *deltas("a"), b"data: {]\n\n"]), DecodeError),
    "large": (sse([created(), *deltas("a", "x" * 3000)]), LimitExceeded),
    "silent": (sse([created(), *deltas("a")], then=silence), StreamTimeout),
}


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("fault", FAULTS)
def test_stream_when_it_fails(way: str, fault: str) -> None:
    """Reading it raises what the run ended with, and collecting it raises that again; the rest is in ``partial``."""
    reply, expected = FAULTS[fault]

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as stream:
            with pytest.raises(expected) as read:
                async for _ in stream:
                    pass
            with pytest.raises(expected) as collected:
                await stream.collect()
            assert collected.value is read.value is stream.run.error
            assert read.value.run is stream.run
            assert read.value.partial.output_text == "a"
        async with await face.create(stream=True) as stream:
            with pytest.raises(expected):
                await stream.collect()

    with Server(reply) as server:
        play(way, server, scenario, limits=Limits(event_bytes=2000), timeout=Timeouts(idle=0.2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_stream_when_it_is_closed(way: str, taken: int) -> None:
    """The server sees the connection end, whatever was read of the stream; to close it twice is to close it once."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        for _ in range(taken):
            await anext(stream)
        await stream.close()
        await stream.close()
        assert await face.sees_left(server)
        if taken:
            assert stream.run.status == "cancelled"
            with pytest.raises((UsageError, StopAsyncIteration)):
                await anext(stream)

    with Server(hanging) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["unread", "break", "raise", "next"])
def test_stream_when_its_block_is_left(way: str, how: str) -> None:
    """The connection ends with the block, on whatever path."""

    async def scenario(face: Face) -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with await face.create(stream=True) as stream:
                if how == "next":
                    await anext(stream)
                elif how != "unread":
                    async for event in stream:
                        if how == "raise":
                            raise ZeroDivisionError
                        assert event.type == "response.created"
                        break
        assert await face.sees_left(server)
        assert how == "unread" or stream.run.status == "cancelled"

    with Server(hanging) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("how", ["events", "text"])
def test_stream_when_a_loop_is_left_by_break(how: str) -> None:
    """A bare break closes a sync stream at once."""
    with Server(hanging) as server, server.client() as client:
        stream = client.responses.create(stream=True)
        for _ in stream if how == "events" else stream.text:
            break
        assert server.left.wait(2)
        assert stream.run.status == "cancelled"


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_is_looked_at(way: str) -> None:
    """The HTTP response, the server's id of the request, and the run are at hand before anything is read."""

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as stream:
            assert stream.response.status_code == 200
            assert stream.response.headers["openai-version"] == "x"
            assert stream.request_id == "req_1"
            assert (stream.run.status, stream.run.events) == ("running", 0)
            name = "Stream" if way in SYNC else "AsyncStream"
            assert repr(stream) == f"<{name} POST {server.url}/responses>"
            await stream.collect()
            assert stream.run.status == "completed"
        async with await face.create(stream=True) as stream:
            assert stream.request_id is None
            with pytest.raises(APIStreamError):
                await stream.collect()

    with Server(sse(AB, headers={"x-request-id": "req_1", "openai-version": "x"}), sse([failed()])) as server:
        play(way, server, scenario)


def test_error_when_a_stream_fails_has_the_id_of_the_request() -> None:
    """It is what the server's people ask for; also where no stream was asked for."""
    mark = {"x-request-id": "req_1"}
    with Server(sse([failed()], headers=mark)) as server, pytest.raises(APIStreamError) as caught:
        ask("sync", server, stream=True)
    assert caught.value.request_id == "req_1"
    with Server(document(FAILED, headers=mark)) as server, pytest.raises(APIStreamError) as caught:
        ask("sync", server)
    assert caught.value.request_id == "req_1"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("block", [False, True], ids=["bare", "block"])
@pytest.mark.parametrize("how", ["run", "events"])
def test_stream_when_it_is_given_to_a_dispatcher(way: str, block: bool, how: str) -> None:
    """Handlers hear its events, once, in a ``with`` block or without; the stream itself says that it was given."""
    heard: list[Event] = []
    flow = Dispatcher()
    flow.on("*", heard.append)

    async def give(face: Face, stream: Any) -> None:
        if how == "run":
            run = await face.run(flow, stream)
            assert (run.status, run.text) == ("completed", "ab")
        else:
            assert types([event async for event in face.events(flow, stream)]) == types(heard)
        for use in (face.run(flow, stream), face.run(Dispatcher(), stream)):
            with pytest.raises(UsageError, match="can be read once"):
                await use
        for use in (stream.collect(), anext(stream)):
            with pytest.raises(UsageError, match="given to a dispatcher"):
                await use
        with pytest.raises(UsageError, match="given to a dispatcher"):
            _ = stream.run
        assert stream.request_id == "req_1"

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        if not block:
            await give(face, stream)
            await stream.close()
            return
        async with stream:
            await give(face, stream)

    with Server(sse(AB, headers={"x-request-id": "req_1"})) as server:
        play(way, server, scenario)
    assert types(heard) == [event["type"] for event in AB]
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", FEW)
def test_stream_when_its_block_begins_after_it_was_given(way: str) -> None:
    """The block changes nothing for the dispatcher."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        events = face.events(Dispatcher(), stream)
        async with stream:
            assert types([event async for event in events]) == [event["type"] for event in AB]

    with Server(sse(AB)) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", FEW)
def test_stream_when_it_is_read_already_is_not_given(way: str) -> None:
    """Who has begun to read it reads it to its end."""

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as stream:
            await anext(stream)
            with pytest.raises(UsageError, match="can be read once"):
                await face.run(Dispatcher(), stream)
            assert (await stream.collect()).output_text == "ab"

    with Server(sse(AB)) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", FEW)
def test_stream_when_a_dispatcher_has_not_read_it_is_closed_by_its_block(way: str) -> None:
    """The block ends the connection also where a dispatcher got the stream and never came to its end."""
    flow = Dispatcher()

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        events = face.events(flow, stream)
        await anext(events)
        await stream.close()
        left = await face.sees_left(server, 0.3)
        if way != "sync":
            await events.aclose()  # type: ignore[attr-defined]
        assert left

    with Server(hanging) as server:
        play(way, server, scenario)


def test_async_stream_when_it_is_given_to_a_sync_run() -> None:
    """The caller is told, and can close it."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        with pytest.raises(UsageError, match="use arun"):
            Dispatcher().run(stream)
        await stream.close()
        assert await face.sees_left(server, 0.3)

    with Server(hanging) as server:
        play("asyncio", server, scenario)


def test_sync_stream_when_it_is_given_to_an_async_run() -> None:
    """The caller is told, and the connection is closed."""
    with Server(hanging) as server, server.client() as client:
        stream = client.responses.create(stream=True)
        with pytest.raises(UsageError, match="synchronous HTTP response"):
            anyio.run(Dispatcher().arun, stream)
        assert server.left.wait(2)


@pytest.mark.parametrize("way", FEW)
def test_stream_when_nobody_reads_it(way: str) -> None:
    """A stream that is dropped unread is a mistake, and a sync one's connection is closed then."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        with pytest.warns(
            ResourceWarning, match=r"Stream POST http.*/responses> was never read nor closed.*with block"
        ):
            del stream
        if way == "sync":
            assert await face.sees_left(server)

    with Server(hanging) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", FEW)
def test_stream_when_it_was_used_says_nothing(way: str) -> None:
    """Warnings are errors here: read, closed or given away, a stream goes in silence."""

    async def scenario(face: Face) -> None:
        await (await face.create(stream=True)).collect()
        await (await face.create(stream=True)).close()
        await face.run(Dispatcher(), await face.create(stream=True))
        async with await face.create(stream=True):
            pass
        gc.collect()

    with Server(sse(AB)) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", WAYS)
def test_streams_when_there_are_two_at_once(way: str) -> None:
    """Each has a connection of its own, and its own text."""

    async def scenario(face: Face) -> None:
        async with await face.create(stream=True) as one, await face.create(stream=True) as two:
            pairs = [(await anext(one), await anext(two)) for _ in AB]
            assert all(left.type == right.type for left, right in pairs)
            assert (one.run.text, two.run.text) == ("ab", "cd")

    with Server(sse(AB), sse(answer("c", "d"))) as server:
        play(way, server, scenario)
        assert server.connections == 2 or way == "aiohttp"  # which lets go of a connection once all of it has come


def test_client_when_threads_share_it() -> None:
    """Each thread gets its own answer."""

    def echo(peer: Peer) -> None:
        text = peer.request.json["input"]
        (sse(answer(text)) if "stream" in peer.request.json else document({"id": "r", "output": [message(text)]}))(peer)

    texts: dict[int, list[str]] = {}

    def work(number: int) -> None:
        asked = [client.responses.create(input=f"{number} {n}").output_text for n in range(3)]
        asked += [client.responses.create(input=f"{number} {n}", stream=True).collect().output_text for n in range(3)]
        texts[number] = asked

    with Server(echo) as server, server.client() as client:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == {number: [f"{number} {n}" for n in (0, 1, 2)] * 2 for number in range(8)}


# --- retrieve, cancel ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_retrieve_when_it_is_a_document(way: str) -> None:
    """The response as it stands, also one that is under way or has failed."""

    async def scenario(face: Face) -> list[Response]:
        more: Any = {"extra_headers": {"X-More": "1"}, "extra_query": {"include": "x"}}
        return [await face.retrieve("resp_1", **more), await face.retrieve("resp_1"), await face.retrieve("resp_1")]

    pending = {"id": "resp_1", "status": "in_progress", "output": []}
    with Server(document(DOCUMENT), document(pending), document(FAILED)) as server:
        done, under_way, broken = play(way, server, scenario, api_key="sk-made-up")
    assert (done.output_text, under_way.status, broken.status) == ("ab", "in_progress", "failed")
    assert broken.error.code == "server_error"
    request = server.requests[0]
    assert (request.method, request.path, request.body) == ("GET", "/v1/responses/resp_1?include=x", b"")
    assert (request.headers["accept"], request.headers["x-more"]) == ("application/json", "1")
    assert request.headers["authorization"] == "Bearer sk-made-up"
    assert not {"idempotency-key", "content-type"} & set(request.headers)


@pytest.mark.parametrize("way", WAYS)
def test_retrieve_when_it_is_a_stream(way: str) -> None:
    """The events behind a number."""

    async def scenario(face: Face) -> Response:
        async with await face.retrieve("resp_1", stream=True, starting_after=0) as stream:
            assert repr(stream).endswith(f"GET {server.url}/responses/resp_1>")  # a query may have a key
            return await stream.collect()  # type: ignore[no-any-return]

    with Server(sse([{**event, "sequence_number": number} for number, event in enumerate(AB)][1:])) as server:
        assert play(way, server, scenario).output_text == "ab"
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/v1/responses/resp_1?stream=true&starting_after=0")
    assert request.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("way", WAYS)
def test_cancel_when_a_response_is_under_way(way: str) -> None:
    """The response as it stands then, failed or not."""

    async def scenario(face: Face) -> tuple[Response, Response]:
        return await face.cancel("resp_1"), await face.cancel("resp_2", extra_query={"a": 1})

    with Server(document({"id": "resp_1", "status": "cancelled", "output": []}), document(FAILED)) as server:
        first, second = play(way, server, scenario)
    assert (first.status, second.status) == ("cancelled", "failed")
    paths = [(request.method, request.path, request.body) for request in server.requests]
    assert paths == [("POST", "/v1/responses/resp_1/cancel", b""), ("POST", "/v1/responses/resp_2/cancel?a=1", b"")]


@pytest.mark.parametrize("way", FEW)
def test_resumption_when_the_servers_id_is_odd(way: str) -> None:
    """It stays one segment of the path: a server does not choose where the key goes next."""
    odd = "../../admin?x=1#y"
    events = [{**event, "sequence_number": number} for number, event in enumerate([created(odd), *deltas("a", "b")])]
    last = {**completed(message("ab"), response_id=odd), "sequence_number": 3}
    with Server(sse(events, end=b""), sse([last])) as server:
        assert ask(way, server, stream=True, resume=True).output_text == "ab"
    path = server.requests[1].path.partition("?")[0]  # the library's fault: _rest_of() quotes no id
    assert path == "/v1/responses/..%2F..%2Fadmin%3Fx%3D1%23y"


@pytest.mark.parametrize("way", FEW)
def test_retrieve_when_there_is_no_id(way: str) -> None:
    """Nothing is sent."""

    async def scenario(face: Face) -> None:
        for use in (face.retrieve(""), face.cancel(""), face.retrieve("", stream=True)):
            with pytest.raises(UsageError, match="empty"):
                await use

    with Server(document(DOCUMENT)) as server:
        play(way, server, scenario)
    assert server.requests == []


# --- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "fault", [FAILED, {"error": {"message": "it broke", "code": "server_error"}}], ids=["failed", "error"]
)
def test_create_when_the_response_failed(way: str, fault: JSON) -> None:
    """An answer that says that it failed raises as a stream does, with what there is of it."""
    with Server(document(fault)) as server, pytest.raises(APIStreamError, match="it broke") as caught:
        ask(way, server)
    assert (caught.value.code, caught.value.retryable) == ("server_error", True)
    assert caught.value.partial is not None
    assert caught.value.partial.id == fault.get("id")
    assert len(server.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_create_when_the_response_failed_for_no_reason(stream: bool) -> None:
    """A status alone is enough, streamed or not."""
    reply = sse([failed(None)]) if stream else document({**FAILED, "error": None})
    with Server(reply) as server, pytest.raises(APIStreamError, match="no reason given"):
        ask("sync", server, stream=stream)


@pytest.mark.parametrize("way", FEW)
def test_create_when_the_response_is_incomplete(way: str) -> None:
    """What was cut short by a limit of the caller's is an answer."""
    cut = {**DOCUMENT, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    with Server(document(cut)) as server:
        response = ask(way, server)
    assert (response.status, response.output_text) == ("incomplete", "ab")


@pytest.mark.parametrize("way", WAYS)
def test_create_when_the_server_streams_unasked(way: str) -> None:
    """Some stream whatever they are asked: that is read to its end."""

    async def scenario(face: Face) -> list[str]:
        return [(await face.create()).output_text, (await face.retrieve("resp_1")).output_text]

    with Server(sse(AB)) as server:
        assert play(way, server, scenario) == ["ab", "ab"]
    with Server(sse([created(), *deltas("a"), failed()])) as server, pytest.raises(APIStreamError) as caught:
        ask(way, server)
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"


@pytest.mark.parametrize("way", FEW)
def test_create_when_the_server_streams_too_much_unasked(way: str) -> None:
    """The client's limits hold for that as well."""
    with Server(sse(answer("a long text"))) as server, pytest.raises(LimitExceeded):
        ask(way, server, options={"limits": Limits(text=5)})


def no_content(peer: Peer) -> None:
    """HTTP 204."""
    peer.head(204)


HTML = {"content-type": "text/html"}
WRONG: dict[str, tuple[Answer, str]] = {
    "page": (document(b"<html>Log in, please</html>", headers=HTML), "text/html"),
    "nothing": (document(b"", headers={"content-type": "text/plain"}), "text/plain"),
    "no content": (no_content, ""),
    "list": (document([DOCUMENT]), "application/json"),
    "text": (document("hello"), "application/json"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", WRONG)
def test_answer_when_it_is_something_else(way: str, stream: bool, form: str) -> None:
    """It is named by its type, and its beginning is shown; it is not asked for again."""
    reply, content_type = WRONG[form]
    with Server(reply) as server, pytest.raises(UnexpectedContentType) as caught:
        ask(way, server, stream=stream)
    assert caught.value.content_type == content_type
    assert (content_type or "no content type") in caught.value.message
    assert ("Log in" in caught.value.excerpt) is (form == "page")
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", FEW)
def test_stream_when_the_answer_is_a_document(way: str) -> None:
    """A server that does not stream is told apart from one that does."""
    with Server(document(DOCUMENT)) as server, pytest.raises(UnexpectedContentType, match="stream=true") as caught:
        ask(way, server, stream=True)
    assert caught.value.content_type == "application/json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "resp_1"',
        b'{"id": "resp_1"} and more',
        b'{"output": 3}',
        b'{"id": "resp_1"}}',
        b'{"id": "resp_1"}, "response": {"id": "resp_2"}',
        b'{}, "type": "error"',
        b'{}, "type": "tests.unknown"',
    ],
)
def test_document_when_it_is_garbled(body: bytes) -> None:
    """What begins as JSON and is none, or no response, cannot be decoded."""
    with Server(document(body)) as server, pytest.raises(DecodeError):
        ask("sync", server)


@pytest.mark.parametrize("way", FEW)
def test_document_when_it_is_compressed(way: str) -> None:
    """A server that compresses though it was asked not to is read all the same."""
    data = gzip.compress(json.dumps(DOCUMENT).encode())
    with Server(document(data, headers={"content-encoding": "gzip"})) as server:
        assert ask(way, server).output_text == "ab"


@pytest.mark.parametrize("way", WAYS)
def test_document_when_it_is_too_large(way: str) -> None:
    """It is read no further than the limit, and the client serves on."""
    large = {**DOCUMENT, "metadata": {"x": "y" * 100_000}}

    async def scenario(face: Face) -> str:
        with pytest.raises(LimitExceeded) as caught:
            await face.create()
        assert (caught.value.limit, caught.value.maximum) == ("event_bytes", 5000)
        assert 5000 < caught.value.seen < 100_000
        return (await face.create()).output_text  # type: ignore[no-any-return]

    with Server(document(large), document(DOCUMENT)) as server:
        assert play(way, server, scenario, limits=Limits(event_bytes=5000)) == "ab"
    with Server(document(large)) as server:
        assert ask(way, server, options={"limits": Limits(event_bytes=None)}).output_text == "ab"


@pytest.mark.parametrize(("depth", "limit", "fits"), [(20, 10, False), (20, 100, True), (200, None, True)])
def test_document_when_it_is_deep(depth: int, limit: int | None, fits: bool) -> None:
    """The client's limit holds, whatever it is."""
    deep: JSON = {}
    for _ in range(depth):
        deep = {"a": deep}
    with Server(document({**DOCUMENT, "metadata": deep})) as server:
        reason = contextlib.nullcontext() if fits else pytest.raises(LimitExceeded)
        with reason:
            ask("sync", server, options={"limits": Limits(json_depth=limit)})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", [200, 404])
def test_connection_when_an_answer_is_too_large_ends(way: str, code: int) -> None:
    """What is not read to its end holds no connection: the server may stop sending."""

    def endless(peer: Peer) -> None:
        peer.head(code, {"content-type": "application/json", "content-length": "1000000"})
        peer.send(b"{" * 10_000)
        silence(peer)

    async def scenario(face: Face) -> None:
        with pytest.raises(LimitExceeded if code == 200 else HTTPStatusError):
            await face.create()
        assert await face.sees_left(server)

    with Server(endless) as server:
        play(way, server, scenario, limits=Limits(event_bytes=5000))


HALF = b'HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"id": "re'
HALF_CHUNKED = b'HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n63\r\n{"id": "re'


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("half", [HALF, HALF_CHUNKED], ids=["length", "chunked"])
def test_document_when_it_is_cut_off(way: str, half: bytes) -> None:
    """It is asked for again, as often as the client tries; then the cut is told."""
    with Server(raw(half), document(DOCUMENT)) as server:
        assert ask(way, server).output_text == "ab"
    assert len(server.requests) == 2
    with Server(raw(half)) as server, pytest.raises(StreamInterrupted, match="the answer was cut") as caught:
        ask(way, server, options={"max_retries": 1})
    assert (type(caught.value), caught.value.phase, caught.value.retryable) == (StreamInterrupted, "stream", True)
    assert len(server.requests) == 2


@pytest.mark.parametrize("way", WAYS)
def test_document_when_its_body_does_not_come(way: str) -> None:
    """The idle timer counts for the whole body; the timeouts of a call win over the client's."""

    def stuck(peer: Peer) -> None:
        peer.send(HALF)
        silence(peer)

    with Server(stuck) as server, pytest.raises(StreamTimeout) as caught:
        ask(way, server, timeout=Timeouts(idle=0.1), options={"timeout": Timeouts(idle=60)})
    assert (caught.value.timer, caught.value.seconds) == ("idle", 0.1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_head_when_it_does_not_come(way: str, stream: bool) -> None:
    """That is not tried again, for models do not think faster then, unless it was asked for."""
    options: Any = {"timeout": Timeouts(first_event=0.1)}
    with Server(silence) as server, pytest.raises(StreamTimeout) as caught:
        ask(way, server, stream=stream, options=options)
    assert (caught.value.timer, caught.value.seconds, caught.value.phase) == ("first_event", 0.1, "headers")
    assert len(server.requests) == 1
    assert server.left.wait(2)
    with Server(silence, good(stream)) as server:
        assert ask(way, server, stream=stream, options={**options, "retry_timeouts": True}).output_text == "ab"
    assert len(server.requests) == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_body_when_it_takes_longer_than_a_head_may(way: str, stream: bool) -> None:
    """The timeout of the head is over once the head is there."""

    def slow(peer: Peer) -> None:
        peer.head(200, {"content-type": "text/event-stream" if stream else "application/json", "connection": "close"})
        data = b"".join(map(block, AB)) if stream else json.dumps(DOCUMENT).encode()
        peer.send(data[:200] if stream else data[:10])
        time.sleep(0.3)
        peer.send(data[200:] if stream else data[10:])
        peer.closes = True

    with Server(slow) as server:
        options = {"timeout": Timeouts(first_event=0.2, idle=2), "max_retries": 0}

        assert ask(way, server, stream=stream, options=options).output_text == "ab"


@pytest.mark.parametrize("way", FEW)
def test_head_when_it_trickles(way: str) -> None:
    """The timer counts until the whole head is there, not from byte to byte."""

    def trickle(peer: Peer) -> None:
        for byte in b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n":
            peer.send(bytes([byte]))
            time.sleep(0.008)

    with Server(trickle) as server, pytest.raises(StreamTimeout):
        ask(way, server, options={"timeout": Timeouts(first_event=0.1)})


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_connection_when_answers_are_complete(way: str) -> None:
    """One serves streams and documents, however they are read, and errors between them."""

    async def scenario(face: Face) -> None:
        await (await face.create(stream=True)).collect()
        async with await face.create(stream=True) as stream:
            async for _ in stream:
                pass
        await face.run(Dispatcher(), await face.create(stream=True))
        await face.create()
        with pytest.raises(HTTPStatusError):
            await face.create()
        async with await face.create(stream=True) as stream:
            assert [text async for text in stream.text] == ["a", "b"]
        with pytest.raises(APIStreamError):
            await (await face.create(stream=True)).collect()
        await face.create()

    with Server(
        *[sse(AB)] * 3,
        document(DOCUMENT),
        status(404),
        sse(AB),
        sse([failed()]),
        status(503, headers=NOW),
        document(DOCUMENT),
    ) as server:
        play(way, server, scenario)
        assert (server.connections, len(server.requests)) == (1, 9)


def test_connection_when_an_interruption_comes_late() -> None:
    """What would have ended a wait of an answer that is over does nothing to the next one on its connection."""
    with Server(sse(AB), sse(AB, pace=0.02)) as server, server.client() as client:
        over = client.responses.create(stream=True)
        interrupt = interrupter(over.response)
        over.collect()
        with client.responses.create(stream=True) as stream:
            heard = iter(stream)
            next(heard)
            interrupt()
            assert list(heard)[-1].type == "response.completed"
        assert server.connections == 1


CLOSING = b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"


@pytest.mark.parametrize("way", WAYS)
def test_connection_when_the_server_closes_it_after_each_answer(way: str) -> None:
    """A server that does not say so is no failure, though no retries are left."""
    data = json.dumps(DOCUMENT).encode()

    async def scenario(face: Face) -> None:
        for number in range(6):
            assert (await face.create()).output_text == "ab"
            if number % 2:
                await face.sleep(0.01)  # the end has come before the next request, or comes with it

    with Server(raw(CLOSING % (len(data), data))) as server:
        play(way, server, scenario, max_retries=0)
    assert len(server.requests) == 6


@pytest.mark.parametrize("way", WAYS)
def test_connection_when_it_has_died_unnoticed(way: str) -> None:
    """The server closes it when the next request is under way: that one is sent on a new one, once."""

    async def scenario(face: Face) -> None:
        await face.create()
        assert (await face.create()).output_text == "ab"

    with Server(document(DOCUMENT), raw(b""), document(DOCUMENT)) as server:
        play(way, server, scenario, max_retries=0)
        assert (server.connections, len(server.requests)) == (2, 3)

    with Server(document(DOCUMENT), raw(b"")) as server, pytest.raises(ConnectionFailed):
        play(way, server, scenario, max_retries=0)
    assert len(server.requests) == 3


@pytest.mark.parametrize("way", WAYS)
def test_client_when_it_is_closed(way: str) -> None:
    """Its own HTTP client is closed with it, twice is once; one that was given serves on."""

    async def scenario(face: Face) -> None:
        await face.create()
        await face.close()
        await face.close()
        if way in FEW:
            for stream in (False, True):
                with pytest.raises(UsageError, match="the HTTP client is closed; make a new one"):
                    await face.create(stream=stream)
        else:
            assert (await face.create()).output_text == "ab"

    with Server(document(DOCUMENT)) as server:
        play(way, server, scenario)


def test_client_when_it_is_dropped_closes_its_connections() -> None:
    """Nobody needs to wait for the garbage collector's whim to have no open sockets."""
    with Server(sse(AB[:2], then=lambda peer: peer.wait())) as server:
        client = server.client()
        stream = client.responses.create(stream=True)
        next(stream)
        del stream, client
        gc.collect()
        assert server.left.wait(2)


@pytest.mark.parametrize("face", [iter, iter_events, Dispatcher().stream])
def test_client_when_only_its_stream_is_iterated(face: Callable[[Any], Iterable[Event]]) -> None:
    """The loop that reads a stream holds the client whose connection it is, whoever made the loop."""
    with Server(sse(AB, pace=0.005)) as server:
        heard = []
        for event in face(Client(base_url=server.url).responses.create(input="hello", stream=True)):
            heard.append(event.type)
    assert heard == [event["type"] for event in AB]


def test_client_when_only_its_responses_are_kept() -> None:
    """What was made of a client works though nobody holds the client: a script may be one line."""
    with Server(document(DOCUMENT)) as server:
        # within assert, where pytest holds on to it
        response = Client(base_url=server.url).responses.create(input="hello")
    assert response.output_text == "ab"


def test_client_when_only_its_stream_is_kept() -> None:
    """A function may make a client and give a stream."""

    def make() -> Stream[Response]:
        return Client(base_url=server.url).responses.create(stream=True)

    def made() -> Stream[Response]:
        client = Client(base_url=server.url)
        return client.responses.create(stream=True)

    with Server(sse(AB, pace=0.01)) as server:
        for one in (made, make):
            stream = one()
            assert stream.collect().output_text == "ab"


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("code", [408, 409, 429, 500, 502, 503, 504, 529])
def test_request_when_the_server_is_unwell_is_sent_again(way: str, stream: bool, code: int) -> None:
    """The same request, after what the server asks for."""
    with Server(status(code, headers=NOW), good(stream)) as server:
        assert ask(way, server, stream=stream).output_text == "ab"
    first, second = server.requests
    assert (first.body, first.path) == (second.body, second.path)


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_request_when_it_is_wrong_is_not_sent_again(way: str, code: int) -> None:
    """The answer is told as it is."""
    reply = status(code, page=b'{"error": "you\x07 did it"}', headers={**NOW, "x-request-id": "req_1"})
    with Server(reply) as server, pytest.raises(HTTPStatusError, match=f"HTTP {code} .*did it") as caught:
        ask(way, server, stream=True)
    assert (caught.value.status, caught.value.request_id, caught.value.retryable) == (code, "req_1", False)
    assert (caught.value.excerpt, caught.value.retry_after) == (r'{"error": "you\x07 did it"}', 0.001)
    assert len(server.requests) == 1


def slow(peer: Peer) -> None:
    """An error whose page stops in the middle."""
    peer.head(404, {"content-length": "99"})
    peer.send(b"not here")
    silence(peer)


PAGES: dict[str, tuple[Answer, str]] = {
    "empty": (status(404, page=b""), ""),
    "compressed": (status(404, page=gzip.compress(b"not here"), headers={"content-encoding": "gzip"}), "not here"),
    "unreadable": (status(404, page=b"not here", headers={"content-encoding": "br"}), ""),
    "cut": (raw(b"HTTP/1.1 404 X\r\ncontent-length: 99\r\n\r\nnot here"), "not here"),
    "slow": (slow, "not here"),
    "large": (status(404, page=b"not here " * 100_000), "not here not here"),
    "stream": (
        status(404, page=block(AB[0]), headers={"content-type": "text/event-stream"}),
        "event: response.created",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", PAGES)
def test_error_page_when_it_is(way: str, stream: bool, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is told whatever the page is; of a page no more is read than is shown, and the client serves on."""
    page, shown = PAGES[form]
    monkeypatch.setattr("eventflow.exchange._PAGE_SECONDS", 0.1 if form == "slow" else 10.0)

    async def scenario(face: Face) -> None:
        with pytest.raises(HTTPStatusError) as caught:
            await face.create(stream=stream)
        assert caught.value.status == 404
        assert caught.value.excerpt.startswith(shown)
        assert len(caught.value.excerpt) <= 4100
        assert len(caught.value.message) < 500
        assert (await face.create()).output_text == "ab"

    with Server(page, document(DOCUMENT)) as server:
        play(way, server, scenario, max_retries=0)
    assert len(server.requests) == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_request_when_all_tries_fail(way: str, stream: bool) -> None:
    """The last error is told, after as many tries as were allowed."""
    answers = [raw(b""), status(503, headers=NOW), status(500)]
    with Server(*answers) as server, pytest.raises(HTTPStatusError) as caught:
        ask(way, server, stream=stream)
    assert (caught.value.status, caught.value.retryable) == (500, True)
    if way != "aiohttp":  # which does not tell whether a connection is new, so that one try more is made
        assert len(server.requests) == 3
    with Server(status(503)) as server, pytest.raises(HTTPStatusError):
        ask(way, server, stream=stream, options={"max_retries": 0})
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize(
    "headers", [{"retry-after-ms": "60"}, {"retry-after": "0.06"}, {"retry-after": "9", "retry-after-ms": "60"}]
)
def test_request_when_the_server_asks_to_wait_waits(way: str, headers: dict[str, str]) -> None:
    """In milliseconds, which win, or in seconds."""
    with Server(status(429, headers=headers), document(DOCUMENT)) as server:
        begun = time.monotonic()
        ask(way, server)
        took = time.monotonic() - begun
    assert 0.06 <= took < 5


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("wait", ["-3600 s", "soon", "-5", ""])
def test_request_when_the_wait_is_over_or_none_is_sent_at_once(way: str, wait: str) -> None:
    """A date that has passed is now; what cannot be read is as nothing."""
    if wait.endswith("s"):
        wait = email.utils.formatdate(time.time() + float(wait.split()[0]), usegmt=True)
    with Server(status(429, headers={"retry-after": wait}), document(DOCUMENT)) as server:
        assert ask(way, server).output_text == "ab"


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "61"}, 61),
        ({"retry-after-ms": "60001"}, 60.001),
        ({"retry-after": "date"}, 3600),
        ({"retry-after": "inf"}, float("inf")),
    ],
)
def test_request_when_the_wait_is_too_long(way: str, headers: dict[str, str], seconds: float) -> None:
    """More than a minute is not waited for: the caller is told how long it would be."""
    if headers.get("retry-after") == "date":
        headers = {"retry-after": email.utils.formatdate(time.time() + seconds, usegmt=True)}
    with Server(status(503, headers=headers)) as server, pytest.raises(HTTPStatusError) as caught:
        ask(way, server)
    assert caught.value.retry_after == pytest.approx(seconds, abs=2)
    assert caught.value.retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize(
    ("code", "advice", "sent"), [(400, "true", 2), (503, "false", 1), (503, "true", 2), (503, "", 2)]
)
def test_request_when_the_server_advises(way: str, code: int, advice: str, sent: int) -> None:
    """OpenAI's servers say whether to try again, whatever the status."""
    expected = contextlib.nullcontext() if sent == 2 else pytest.raises(HTTPStatusError)
    with Server(status(code, headers={"x-should-retry": advice, **NOW}), document(DOCUMENT)) as server, expected:
        ask(way, server)
    assert len(server.requests) == sent


def test_pauses_when_tries_fail_on_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """They double up to a bound, up to a quarter less by chance, and begin anew with each call."""
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    async def scenario(face: Face) -> None:
        for _ in range(2):
            with pytest.raises(HTTPStatusError):
                await face.create()

    monkeypatch.undo()
    monkeypatch.setattr("eventflow.driving.sleep", note)
    with Server(status(503)) as server:
        play("asyncio", server, scenario, max_retries=7)
    assert len(pauses) == 14
    for seconds, longest in zip(pauses, [0.5, 1, 2, 4, 8, 8, 8] * 2, strict=True):
        assert longest * 0.75 <= seconds <= longest
    assert len(set(pauses)) == 14


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("stream", [False, True])
def test_total_when_a_pause_would_be_longer(way: str, stream: bool) -> None:
    """What went wrong is told at once: there would be no time left to try again."""
    with Server(status(503, headers={"retry-after": "30"})) as server, pytest.raises(HTTPStatusError):
        ask(way, server, stream=stream, options={"timeout": Timeouts(total=20)})
    assert len(server.requests) == 1


def test_total_when_tries_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they and the pauses took is no longer there for the head, nor for the body."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("eventflow.exchange.time", clock)
    client = Client(base_url="http://127.0.0.1:1/v1", timeout=Timeouts(first_event=8, idle=5, total=10))
    call = create_call(client._settings, stream=False, model="m", input="x")
    exchange = Exchange(call, client._settings, client._http, is_async=False)
    steps = exchange.document()
    step = next(steps)
    assert isinstance(step, Send)
    assert (step.spent, head_seconds(call.timeouts, step.spent)) == (0.0, ("first_event", 8))
    clock.now += 3
    assert isinstance(steps.throw(ConnectionFailed()), Pause)
    clock.now += 1
    step = steps.send(None)
    assert isinstance(step, Send)
    assert (step.spent, head_seconds(call.timeouts, step.spent)) == (4.0, ("total", 6))
    assert step.request.extensions["timeout"]["read"] == 6
    clock.now += 2
    step = steps.send((SimpleNamespace(status_code=200, headers={}, extensions={}), 2.0))
    assert isinstance(step, Read)
    assert (step.seconds, step.timer, step.allowed) == (4.0, "total", 10)
    assert (exchange.waited, exchange.spent) == (2.0, 6.0)
    client.close()


@pytest.mark.parametrize("way", WAYS)
def test_total_when_a_body_does_not_come(way: str) -> None:
    """The body of a document is waited for no longer than all of it may take."""

    def begun(peer: Peer) -> None:
        peer.head(200, {"content-type": "application/json", "content-length": "100"})
        peer.send(b"{")
        peer.wait()
        peer.closes = True

    with Server(begun) as server, pytest.raises(StreamTimeout, match=r"within 0.2 s; raise Timeouts\(total=") as caught:
        ask(way, server, stream=False, options={"timeout": Timeouts(total=0.2)})
    assert (caught.value.timer, caught.value.seconds) == ("total", 0.2)


@pytest.mark.parametrize("way", WAYS)
def test_total_when_it_is_spent_before_the_stream(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run begins with what is left of it: here nothing, by a clock that goes on 400 s whenever it is looked at."""
    ticks = count(0, 400)
    monkeypatch.setattr("eventflow.exchange.time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    with Server(sse(AB)) as server, pytest.raises(StreamTimeout) as caught:
        ask(way, server, stream=True, options={"timeout": Timeouts(total=1000)})
    assert (caught.value.timer, caught.value.seconds) == ("total", 1000)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_connection_when_it_is_refused(way: str, stream: bool) -> None:
    """Nobody listens: that is tried again, and told with the server's address."""
    with closed_port() as url, pytest.raises(ConnectionFailed, match=url.removesuffix("/v1")) as caught:
        ask(way, url, stream=stream)

    assert (caught.value.phase, caught.value.retryable) == ("connect", True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "beginning", [b"", b"HTTP/1.1 200 X\r\ncontent-le", b"SSH-2.0-OpenSSH\r\n"], ids=["none", "half", "other"]
)
def test_connection_when_it_is_cut_before_the_head(way: str, beginning: bytes) -> None:
    """The request is sent again; without a try left that is told."""
    with Server(raw(beginning), document(DOCUMENT)) as server:
        assert ask(way, server).output_text == "ab"
    assert len(server.requests) == 2
    with Server(raw(beginning)) as server, pytest.raises(ConnectionFailed) as caught:
        ask(way, server, options={"max_retries": 0})
    assert (caught.value.phase, caught.value.retryable) == ("headers", True)
    if way != "aiohttp":  # see above
        assert len(server.requests) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tail", [b"", b": comment\n\n", block(AB[0])[:30]], ids=["nothing", "comment", "half"])
def test_stream_when_it_is_cut_before_its_first_event(way: str, tail: bytes) -> None:
    """Nobody has heard anything: the request is sent again, and only its events are heard."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        events = [event async for event in stream]
        assert types(events) == [event["type"] for event in AB]
        assert (stream.run.warnings, stream.run.status, stream.request_id) == ((), "completed", "req_2")

    with Server(sse([tail] if tail else [], end=b""), sse(AB, headers={"x-request-id": "req_2"})) as server:
        play(way, server, scenario)
    assert len(server.requests) == 2
    with Server(sse([tail] if tail else [], end=b"")) as server, pytest.raises(StreamInterrupted):
        ask(way, server, stream=True, options={"max_retries": 1})
    assert len(server.requests) == 2


@pytest.mark.parametrize("way", WAYS)
def test_stream_when_it_is_cut_after_its_first_event(way: str) -> None:
    """What was heard cannot be taken back: the caller decides."""
    with Server(sse(AB[:1], end=b""), sse(AB)) as server, pytest.raises(StreamInterrupted) as caught:
        ask(way, server, stream=True)
    assert len(server.requests) == 1
    assert caught.value.partial is not None
    assert caught.value.partial.id == "resp_1"


@pytest.mark.parametrize("way", FEW)
def test_stream_when_it_is_refused_at_the_second_try(way: str) -> None:
    """The error of the last try is told."""
    with Server(sse([], end=b""), status(401)) as server, pytest.raises(HTTPStatusError) as caught:
        ask(way, server, stream=True)
    assert caught.value.status == 401


@pytest.mark.parametrize("way", FEW)
def test_stream_when_it_is_cancelled_while_it_waits_for_another_try(way: str) -> None:
    """A pause that a server has asked for ends with the run."""

    async def scenario(face: Face) -> None:
        stream = await face.create(stream=True)
        timer = threading.Timer(0.15, stream.run.cancel)
        timer.start()
        with pytest.raises(UsageError, match="left before its end"):
            await stream.collect()
        timer.join()
        assert (stream.run.status, stream.run.error) == ("cancelled", None)

    begun = time.monotonic()
    with Server(sse([], end=b""), status(503, headers={"retry-after": "30"})) as server:
        play(way, server, scenario)
    assert time.monotonic() - begun < 5
    assert len(server.requests) == 2


class Raising:
    """A transport of httpx that fails, and counts how often."""

    def __init__(self, fault: Callable[[], Exception]) -> None:
        self.fault = fault
        self.sent = 0

    def options(self, way: str) -> dict[str, Any]:
        """The client's."""
        transport = httpx.MockTransport(self.handle)
        cls = httpx.Client if way == "sync" else httpx.AsyncClient
        return {"http_client": cls(transport=transport)}

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        raise self.fault()


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize(
    ("fault", "expected", "phase"),
    [
        (httpx.ConnectError("refused"), ConnectionFailed, "connect"),
        (httpx.ProxyError("no"), ConnectionFailed, "connect"),
        (httpx.ReadError("reset"), ConnectionFailed, "headers"),
        (httpx.WriteError("reset"), ConnectionFailed, "headers"),
        (httpx.RemoteProtocolError("rubbish"), ConnectionFailed, "headers"),
        (OSError("unreachable"), ConnectionFailed, "headers"),
        (httpx.ConnectTimeout("slow"), StreamTimeout, "connect"),
        (httpx.PoolTimeout("full"), StreamTimeout, "connect"),
        (httpx.ReadTimeout("slow"), StreamTimeout, "headers"),
        (httpx.WriteTimeout("slow"), StreamTimeout, "headers"),
        (httpx.UnsupportedProtocol("gopher"), UsageError, None),
        (httpx.LocalProtocolError("line end"), UsageError, None),
        (RuntimeError("Cannot send a request, as the client has been closed."), UsageError, None),
        (RuntimeError("a bug"), RuntimeError, None),
        (ZeroDivisionError("a bug"), ZeroDivisionError, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_failure_when_an_http_client_of_the_callers_raises(
    way: str, fault: Exception, expected: type[Exception], phase: str | None
) -> None:
    """Each of httpx's errors has a meaning; what is none of them is a bug, and passes."""
    transport = Raising(lambda: type(fault)(str(fault)))
    with pytest.raises(expected) as caught:
        ask(way, "http://models.invalid/v1", options={**transport.options(way), "max_retries": 0})
    assert type(caught.value) is expected
    assert getattr(caught.value, "phase", None) == phase
    assert "models.invalid" in str(caught.value) or not isinstance(caught.value, ConnectionFailed | StreamTimeout)
    if isinstance(caught.value, StreamTimeout):
        timer = "connect" if phase == "connect" else "first_event"
        assert (caught.value.timer, caught.value.seconds) == (timer, {"connect": 10, "first_event": 120}[timer])


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize(
    ("fault", "sent"), [(httpx.ConnectError, 3), (httpx.ConnectTimeout, 3), (httpx.ReadTimeout, 1)]
)
def test_tries_when_an_http_client_of_the_callers_fails(way: str, fault: type[Exception], sent: int) -> None:
    """No connection was made, so nothing can have gone stale: the tries are those that were allowed."""
    transport = Raising(lambda: fault("no"))
    with pytest.raises(EventflowError):
        ask(way, "http://models.invalid/v1", options={**transport.options(way), "max_retries": 2})
    assert transport.sent == sent


# --- redirects -------------------------------------------------------------------------------------------------------


def moved(target: str, code: int = 307) -> Answer:
    """A redirect."""
    return status(code, headers={"location": target}, page=b"elsewhere")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
def test_redirect_when_nobody_said_to_follow(way: str, stream: bool) -> None:
    """It is an answer like any other error's."""
    with Server(moved("/v2/responses"), good(stream)) as server, pytest.raises(HTTPStatusError) as caught:
        ask(way, server, stream=stream)
    assert (caught.value.status, caught.value.retryable) == (307, False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", [307, 308])
@pytest.mark.parametrize("stream", [False, True])
def test_redirect_when_it_stays_within_the_origin(way: str, code: int, stream: bool) -> None:
    """The same request goes to the new address, relative or not, with the same body and key."""

    def to_whole(peer: Peer) -> None:
        moved(server.url.removesuffix("/v1") + "/v3/responses?a=b", code)(peer)

    with Server(moved("/v2/responses", code), to_whole, good(stream)) as server:
        options = {"follow_redirects": True, "api_key": "sk-made-up", "max_retries": 0}
        assert ask(way, server, stream=stream, options=options).output_text == "ab"
    assert [request.path for request in server.requests] == ["/v1/responses", "/v2/responses", "/v3/responses?a=b"]
    for name in ("method", "body"):
        assert len({getattr(request, name) for request in server.requests}) == 1
    for name in ("authorization", "idempotency-key", "accept"):
        assert len({request.headers[name] for request in server.requests}) == 1


@pytest.mark.parametrize("way", WAYS)
def test_redirect_when_it_leads_to_another_origin(way: str) -> None:
    """It is never followed: the key would go along."""
    with Server(document(DOCUMENT)) as other:
        port = other.url.removesuffix("/v1").rpartition(":")[2]
        for target in (f"{other.url}/responses", f"//127.0.0.1:{port}/x", f"http://localhost:{port}/v1"):
            with Server(moved(target)) as server, pytest.raises(HTTPStatusError) as caught:
                ask(way, server, options={"follow_redirects": True, "api_key": "sk-made-up"})
            assert caught.value.status == 307
            assert len(server.requests) == 1
    assert (other.requests, other.connections) == ([], 0)


@pytest.mark.parametrize("way", FEW)
def test_redirect_when_it_goes_in_circles(way: str) -> None:
    """After five of them it is enough."""
    with Server(moved("/v1/responses")) as server, pytest.raises(HTTPStatusError) as caught:
        ask(way, server, options={"follow_redirects": True})
    assert caught.value.status == 307
    assert len(server.requests) == 6


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("code", [301, 302, 303])
def test_redirect_when_it_would_change_the_method(way: str, code: int) -> None:
    """A POST is not made a GET; a GET is followed."""

    async def scenario(face: Face) -> str:
        return (await face.retrieve("resp_1")).output_text  # type: ignore[no-any-return]

    with Server(moved("/v2/responses", code)) as server, pytest.raises(HTTPStatusError) as caught:
        ask(way, server, options={"follow_redirects": True})
    assert (caught.value.status, len(server.requests)) == (code, 1)
    with Server(moved("/v2/x", code), document(DOCUMENT)) as server:
        assert play(way, server, scenario, follow_redirects=True) == "ab"
    assert [(request.method, request.path) for request in server.requests][1] == ("GET", "/v2/x")


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("target", ["", "//", "http://127.0.0.1:99999/", "http://[", "http://127.0.0.1:x/", "mailto:x"])
def test_redirect_when_it_leads_nowhere(way: str, follow: bool, target: str) -> None:
    """Whatever a server writes there, it is the server's error, and ours by class."""
    with Server(moved(target)) as server, pytest.raises(EventflowError):
        ask(way, server, options={"follow_redirects": follow, "max_retries": 0})


@pytest.mark.parametrize("way", ["sync", "httpx2", "asyncio", "asyncio-httpx2", "trio"])
@pytest.mark.parametrize("follow", [False, True])
def test_redirect_when_its_address_is_none_is_an_answer(way: str, follow: bool) -> None:
    """The status is told, and the request is not sent again, though the HTTP client takes it for a broken answer."""
    with Server(moved("http://[::1")) as server, pytest.raises(HTTPStatusError) as caught:
        ask(way, server, options={"follow_redirects": follow, "max_retries": 2})
    assert (caught.value.status, caught.value.retryable, len(server.requests)) == (307, False, 1)


@pytest.mark.parametrize("way", FEW)
def test_redirect_when_the_http_client_follows_by_itself(way: str) -> None:
    """A client of the caller's that follows redirects does not do so here."""

    async def main() -> None:
        async with httpx.AsyncClient(follow_redirects=True) as http:
            client = AsyncClient(base_url=server.url, http_client=http, api_key="sk-made-up")
            for stream in (False, True):
                with pytest.raises(HTTPStatusError):
                    await client.responses.create(stream=stream)

    with Server(document(DOCUMENT)) as other, Server(moved(other.url + "/responses")) as server:
        if way == "sync":
            with httpx.Client(follow_redirects=True) as http:
                client = Client(base_url=server.url, http_client=http, api_key="sk-made-up")
                for stream in (False, True):
                    with pytest.raises(HTTPStatusError):
                        client.responses.create(stream=stream)
        else:
            anyio.run(main, backend=way)
        assert len(server.requests) == 2
    assert other.requests == []


@pytest.mark.parametrize("way", FEW)
def test_redirect_when_the_new_address_is_unwell(way: str) -> None:
    """Tries count on at the new address."""
    answers = [moved("/v2/responses"), status(503, headers=NOW), raw(b""), document(DOCUMENT)]
    with Server(*answers) as server:
        assert ask(way, server, options={"follow_redirects": True}).output_text == "ab"
    assert [request.path for request in server.requests] == ["/v1/responses", *["/v2/responses"] * 3]


# --- HTTP clients of the caller's ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("stream", [False, True])
def test_http_client_when_it_is_a_mock(way: str, stream: bool) -> None:
    """The mock of httpx serves, which gives answers that are read already."""

    def handle(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["model"] == "m"
        if stream:
            body = b"".join(map(block, AB))
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
        return httpx.Response(200, json=DOCUMENT)

    cls = httpx.Client if way == "sync" else httpx.AsyncClient
    http = cls(transport=httpx.MockTransport(handle))

    assert ask(way, "http://models.invalid/v1", stream=stream, options={"http_client": http}).output_text == "ab"
    assert not http.is_closed


@pytest.mark.parametrize(
    ("client", "given", "missing"),
    [(Client, 5, "build_request"), (Client, httpx.AsyncClient(), "close"), (AsyncClient, httpx.Client(), "aclose")],
)
def test_http_client_when_it_is_of_the_wrong_kind(client: Any, given: Any, missing: str) -> None:
    """The error says what it lacks."""
    kind = type(given).__name__
    message = f"http_client takes an HTTP client with build_request, send and a?close; {kind} has no {missing}"
    with pytest.raises(UsageError, match=f"^{message}$"):
        client(base_url="http://127.0.0.1:1/v1", http_client=given)


@pytest.mark.parametrize("way", FEW)
def test_http_client_when_it_has_settings_of_its_own(way: str) -> None:
    """Its headers, query and authorization are sent; its timeouts are not those of a stream."""
    own: Any = {"headers": {"x-own": "1"}, "params": {"p": "q"}, "auth": ("user", "word"), "timeout": 0.1}

    def slow(peer: Peer) -> None:
        time.sleep(0.2)
        document(DOCUMENT)(peer)

    async def main() -> None:
        async with httpx.AsyncClient(**own) as http:
            client = AsyncClient(base_url=server.url, http_client=http, api_key="sk-made-up")
            assert (await client.responses.create(input="hello")).output_text == "ab"

    with Server(slow) as server:
        if way == "sync":
            with httpx.Client(**own) as http:
                client = Client(base_url=server.url, http_client=http, api_key="sk-made-up")
                assert client.responses.create(input="hello").output_text == "ab"
        else:
            anyio.run(main, backend=way)
    (request,) = server.requests
    assert (request.headers["x-own"], request.path) == ("1", "/v1/responses?p=q")
    assert request.headers["authorization"].startswith("Basic ")


# --- text_format -----------------------------------------------------------------------------------------------------

BERGEN = '{"city": "Bergen", "degrees": 7}'


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
def test_text_format_when_the_text_is_of_the_type(way: str, kind: str, stream: bool) -> None:
    """The schema is asked for, and the text comes as an object."""
    cls = KINDS[kind]()
    reply = sse(answer(BERGEN[:9], BERGEN[9:])) if stream else document({"id": "r", "output": [message(BERGEN)]})
    with Server(reply) as server:
        response: Any = ask(way, server, stream=stream, text_format=cls, text={"verbosity": "low"})
    assert isinstance(response, ParsedResponse)
    assert (response.parsed, response.output_text) == (cls(city="Bergen", degrees=7), BERGEN)
    assert server.requests[0].json["text"] == {"verbosity": "low", "format": text_format_of(cls)}


@pytest.mark.parametrize("way", FEW)
def test_text_format_when_a_dispatcher_reads_the_stream(way: str) -> None:
    """The run's response is parsed too, and an unasked stream's."""
    cls = KINDS["dataclass"]()

    async def scenario(face: Face) -> None:
        run: Any = await face.run(Dispatcher(), await face.create(stream=True, text_format=cls))
        assert run.response.parsed == cls("Bergen", 7)
        assert (await face.create(text_format=cls)).parsed == cls("Bergen", 7)

    with Server(sse(answer(BERGEN))) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("stream", [False, True])
def test_text_format_when_the_text_is_not_of_the_type(way: str, stream: bool) -> None:
    """A refusal is None, another text a `DecodeError` when it is asked for; the answer itself comes all the same."""
    refusal = {"type": "message", "id": "msg_1", "content": [{"type": "refusal", "refusal": "no"}]}
    cls = KINDS["attrs"]()

    async def scenario(face: Face) -> None:
        refused, wrong = [await face.create(stream=stream, text_format=cls) for _ in range(2)]
        if stream:
            refused, wrong = await refused.collect(), await wrong.collect()
        assert (refused.refusal, refused.parsed) == ("no", None)
        assert wrong.output_text == "Bergen"
        with pytest.raises(DecodeError, match="the text is no Attrs"):
            _ = wrong.parsed

    answers = [sse([completed(refusal)]), sse(answer("Bergen"))]
    if not stream:
        answers = [document({"id": "r", "output": [refusal]}), document({"id": "r", "output": [message("Bergen")]})]
    with Server(*answers) as server:
        play(way, server, scenario)


@pytest.mark.parametrize("way", FEW)
def test_text_format_when_there_is_no_schema(way: str) -> None:
    """Nothing is sent."""
    with Server(document(DOCUMENT)) as server:
        for parameters in ({"text_format": int}, {"text_format": object}, {"input": object()}):
            with pytest.raises(UsageError):
                ask(way, server, **parameters)
    assert server.requests == []


# --- secrets ---------------------------------------------------------------------------------------------------------


class Vault:
    """A key and a prompt that no error may show; it shows neither itself."""

    def __init__(self) -> None:
        self.key = f"sk-made-up-{os.urandom(8).hex()}"
        self.prompt = f"plan-{os.urandom(8).hex()} "
        self.options: dict[str, Any] = {"api_key": self.key}

    def __repr__(self) -> str:
        return "<Vault>"

    async def ask(self, face: Face, *, stream: bool = True, size: int = 1) -> None:
        """Send the prompt, and read all that comes of it."""
        made = await came(face.client.responses.create(model="m", input=self.prompt * size, stream=stream))
        if stream:
            await made.collect()

    def client(self, cls: type, **options: Any) -> None:
        """Make a client of the key."""
        cls(api_key=self.key, **options)

    def found_in(self, text: str) -> list[str]:
        """The lines that show something."""
        return [line for line in text.splitlines() if self.key in line or self.prompt.strip() in line]


@pytest.fixture
def vault() -> Vault:
    """One that is new."""
    return Vault()


def told(fault: BaseException) -> str:
    """All that can be seen of an error and of those behind it, with the variables of each frame."""
    seen: dict[int, BaseException] = {}
    links: list[BaseException | None] = [fault]
    while links:
        link = links.pop()
        if link is not None and id(link) not in seen:
            seen[id(link)] = link
            context = None if link.__suppress_context__ else link.__context__
            links += [link.__cause__, context, *getattr(link, "exceptions", ())]
    texts: list[str] = []
    for link in seen.values():
        texts += [str(link), repr(link), *getattr(link, "__notes__", ())]
        texts += traceback.TracebackException(type(link), link, link.__traceback__, capture_locals=True).format()
    return "\n".join(texts)


def test_search_when_there_is_something_to_find(vault: Vault) -> None:
    """The search itself finds a key in a frame's variables, in a cause, and in a note."""

    def leak(how: str) -> None:
        if how == "frame":
            secret = vault.key
            raise ValueError(f"{len(secret)} characters")
        if how == "cause":
            raise ValueError("characters") from KeyError(vault.key)
        fault = ValueError("characters")
        fault.add_note(vault.prompt)
        raise fault

    for how in ("frame", "cause", "note"):
        with pytest.raises(ValueError, match="characters") as caught:
            leak(how)
        assert vault.found_in(told(caught.value))


@contextlib.contextmanager
def resetting() -> Iterator[str]:
    """A server that resets each connection while it is being written to."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(100)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@contextlib.contextmanager
def serving(reply: Answer) -> Iterator[str]:
    """The address of a server."""
    with Server(reply) as server:
        yield server.url


TROUBLES: dict[str, tuple[Callable[[], Any], type[EventflowError]]] = {
    "refused": (closed_port, ConnectionFailed),
    "reset": (resetting, ConnectionFailed),
    "no head": (lambda: serving(silence), StreamTimeout),
    "rubbish": (
        lambda: serving(raw(b"rubbish\r\n\r\n")),
        ConnectionFailed,
    ),
    "unauthorized": (lambda: serving(status(401)), HTTPStatusError),
    "elsewhere": (lambda: serving(moved("http://127.0.0.1:1/")), HTTPStatusError),
    "page": (lambda: serving(document(b"<html>", headers=HTML)), UnexpectedContentType),
    "truncated": (lambda: serving(sse(AB[:3])), StreamTruncated),
    "cut": (lambda: serving(sse(AB[:3], end=b"")), StreamInterrupted),
    "reset stream": (lambda: serving(sse(AB[:3], then=Peer.abort)), StreamInterrupted),
    "garbled": (lambda: serving(sse([*AB[:3], b"data: {]\n\n"])), DecodeError),
    "garbled chunk": (lambda: serving(sse(AB[:3], end=b"zz\r\n")), StreamInterrupted),
    "compressed": (lambda: serving(sse(AB, headers={"content-encoding": "gzip"})), DecodeError),
    "unknown coding": (lambda: serving(sse(AB, headers={"content-encoding": "br"})), DecodeError),
    "large": (lambda: serving(sse([*AB[:3], delta("x" * 3000)])), LimitExceeded),
    "failed": (lambda: serving(sse([*AB[:3], failed()])), APIStreamError),
    "idle": (lambda: serving(hanging), StreamTimeout),
}
DOCUMENT_TROUBLES: dict[str, tuple[Callable[[], Any], type[EventflowError]]] = {
    "failed document": (lambda: serving(document(FAILED)), APIStreamError),
    "cut document": (lambda: serving(raw(HALF)), StreamInterrupted),
    "large document": (
        lambda: serving(document(b"x" * 3000)),
        LimitExceeded,
    ),
    "garbled document": (lambda: serving(document(b"{]")), DecodeError),
    "page document": (lambda: serving(document(b"<html>", headers=HTML)), UnexpectedContentType),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("trouble", [*TROUBLES, *DOCUMENT_TROUBLES])
def test_secrets_when_something_fails(way: str, trouble: str, vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """Neither key nor prompt is in any text of the error, of what caused it, of their frames, or in the log."""
    caplog.set_level(logging.DEBUG)
    place, expected = {**TROUBLES, **DOCUMENT_TROUBLES}[trouble]
    size = 40_000 if trouble == "reset" else 1  # more than a megabyte makes aiohttp warn
    if (way, trouble) == ("aiohttp", "garbled chunk"):
        expected = EventflowError  # it may say nothing of it, and the timer runs out

    async def scenario(face: Face) -> None:
        await vault.ask(face, stream=trouble in TROUBLES, size=size)

    timeouts = Timeouts(first_event=0.1 if trouble == "no head" else 5, idle=0.1 if trouble == "idle" else 5)
    options: Any = {"timeout": timeouts, "limits": Limits(event_bytes=2000)}
    with place() as url, pytest.raises(expected) as caught:
        play(way, url, scenario, vault=vault, max_retries=1, **options)
    assert vault.found_in(told(caught.value)) == []
    assert vault.found_in(caplog.text + "".join(f"{record.args!r}\n" for record in caplog.records)) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["key", "headers", "line end in extra headers", "not ascii"])
def test_secrets_when_a_header_cannot_be_sent(
    way: str, where: str, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller is told that it is a header, and not what it is."""
    caplog.set_level(logging.DEBUG)
    key = vault.key

    async def scenario(face: Face) -> None:
        if where == "line end in extra headers":
            await came(face.client.responses.create(extra_headers={"x-key": vault.key + "\n"}))
        else:
            await vault.ask(face)

    if where == "key":
        vault.options = {"api_key": lambda: vault.key + "\n"}
    elif where == "headers":
        vault.options = {"headers": {"x-key": vault.key + "\r\nx: y"}}
    elif where == "not ascii":
        vault.options = {"api_key": lambda: vault.key + "\N{SNOWMAN}\0"}
    del key
    with Server(document(DOCUMENT)) as server, pytest.raises(UsageError) as caught:
        play(way, server, scenario, vault=vault)
    assert server.requests == []
    assert vault.found_in(told(caught.value)) == []
    assert vault.found_in(caplog.text) == []


@pytest.mark.parametrize("cls", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"base_url": "127.0.0.1:1"}, "base_url"),
        ({"base_url": "http://[::1"}, "base_url"),
        ({"wire": "respones"}, "no wire"),
    ],
)
def test_secrets_when_a_client_is_made_wrongly(
    cls: type, options: dict[str, Any], message: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what is wrong, and no frame of ours holds the key, given or of the environment."""
    options = {"base_url": "http://127.0.0.1:1", **options}
    with pytest.raises(UsageError, match=message) as caught:
        vault.client(cls, **options)
    assert vault.found_in(told(caught.value)) == []
    monkeypatch.setenv("OPENAI_API_KEY", vault.key)
    with pytest.raises(UsageError, match=message) as caught:
        cls(**options)
    assert vault.found_in(told(caught.value)) == []


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_secrets_when_a_key_has_a_line_end(cls: type, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key read from a file with its line end is the most common mistake of all."""
    vault.key += "\n"
    with pytest.raises(UsageError, match="perhaps a line end") as caught:
        vault.client(cls, base_url="http://127.0.0.1:1")
    vault.key = vault.key.strip()
    assert vault.found_in(told(caught.value)) == []
    monkeypatch.setenv("OPENAI_API_KEY", vault.key + "\n")
    with pytest.raises(UsageError, match="perhaps a line end") as caught:
        cls(base_url="http://127.0.0.1:1")
    assert vault.found_in(told(caught.value)) == []


@pytest.mark.parametrize("way", FEW)
@pytest.mark.parametrize("fault", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.LocalProtocolError])
def test_secrets_when_frames_of_the_http_client_have_them(way: str, fault: type[Exception], vault: Vault) -> None:
    """Its variables are headers and bodies: its frames go, also those of what caused its error."""

    def handle(request: httpx.Request) -> httpx.Response:
        headers, body = dict(request.headers), request.content
        try:
            raise OSError(f"{len(headers)} headers, {len(body)} bytes")
        except OSError as error:
            raise fault("no") from error

    cls = httpx.Client if way == "sync" else httpx.AsyncClient
    http: Any = cls(transport=httpx.MockTransport(handle))
    with pytest.raises(EventflowError) as caught:
        play(way, "http://models.invalid/v1", vault.ask, vault=vault, http_client=http)
    assert vault.found_in(told(caught.value)) == []


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_client_when_there_is_no_key_for_openai(cls: type) -> None:
    """It is told at once, before anything is sent."""
    with pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        cls()


@pytest.mark.parametrize("way", FEW)
def test_secrets_when_everything_goes_well(way: str, vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """No log, and no repr of what a client gives, shows them either."""
    caplog.set_level(logging.DEBUG)

    async def scenario(face: Face) -> None:
        await vault.ask(face, stream=False)
        stream = await came(face.client.responses.create(input=vault.prompt, stream=True))
        await stream.collect()
        things = [face.client, face.client.responses, face.client._settings, stream, stream.run, stream._exchange]
        shown = [repr(thing) for thing in [*things, *(vars(thing) for thing in things if hasattr(thing, "__dict__"))]]
        assert vault.found_in("\n".join(shown)) == []

    with Server(document(DOCUMENT), sse(AB)) as server:
        play(way, server, scenario, vault=vault)
    assert server.requests[0].headers["authorization"] == f"Bearer {vault.key}"
    assert vault.found_in(caplog.text + "".join(f"{record.args!r}\n" for record in caplog.records)) == []


@pytest.mark.parametrize("way", FEW)
def test_key_when_its_function_fails(way: str) -> None:
    """That is the caller's, told as such; nothing is sent."""

    def lost() -> str:
        raise KeyError("no key today")

    def locked() -> str:
        raise UsageError("the vault is locked")

    odd: list[tuple[Any, str]] = [(lambda: "", "header"), (lambda: "a\n", "header"), (lambda: "\N{SNOWMAN}", "header")]
    for key, words in [(lost, "no key today"), (locked, "^the vault is locked"), *odd]:
        with Server(document(DOCUMENT)) as server, pytest.raises(UsageError, match=words):
            ask(way, server, options={"api_key": key})
        assert server.requests == []
