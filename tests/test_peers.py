"""One program against a scripted server, llama.cpp's, and the mock that OpenAI's SDKs are tested against."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import openai
import pytest
from peers import Proxy, steady, why_no_steady
from servers import Server, document, sse

from eventflow import AsyncClient, Client, Dispatcher, Event, Response, Run, TextDelta, collect
from eventflow.cli import model_server
from eventflow.errors import EventflowError, HTTPStatusError, StreamTruncated, UnexpectedContentType
from eventflow.events import AudioDelta, Message, OutputText, ToolCall, UnknownEvent
from eventflow.sse import decode as frames_of

WAYS = ("sync", "asyncio", "trio")
QUESTION = "Name three colours."
FIXTURES = ("responses-reasoning.sse", "responses-text.sse", "responses-tool.sse")

ways = pytest.mark.parametrize("way", WAYS)


# --- the program -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Seen:
    """What the program was told: the whole response, then a streamed one.

    Attributes:
        whole: The response that was not streamed.
        events: The events of the other, as they were iterated.
        pieces: Its text, as a handler heard it.
        response: What came of them.
        status: How it ended.
        error: What it ended with.
        warnings: What was odd.
    """

    whole: Response
    events: tuple[Event, ...]
    pieces: tuple[str, ...]
    response: Response
    status: str
    error: EventflowError | None = attrs.field(eq=str)
    warnings: tuple[object, ...]

    @classmethod
    def of(cls, whole: Response, events: list[Event], pieces: list[str], run: Run) -> Seen:
        """What was seen of a run that is over."""
        return cls(whole, tuple(events), tuple(pieces), run.response, run.status, run.error, run.warnings)

    @property
    def types(self) -> list[str]:
        """The types of the events, in order."""
        return [event.type for event in self.events]


def program(base_url: str, model: str, **parameters: Any) -> Seen:
    """Ask twice: for a whole response, and for a stream, which handlers and a loop hear."""
    flow, pieces = Dispatcher(), list[str]()
    flow.on(TextDelta, lambda event: pieces.append(event.delta))
    with Client(base_url=base_url, api_key="made-up") as client:
        whole = client.responses.create(model=model, input=QUESTION, **parameters)
        answer = client.responses.create(model=model, input=QUESTION, stream=True, **parameters)
        with flow.stream(answer, check=False) as stream:
            events = list(stream)
    return Seen.of(whole, events, pieces, stream.run)


async def aprogram(base_url: str, model: str, **parameters: Any) -> Seen:
    """`program`, async."""
    flow, pieces = Dispatcher(), list[str]()
    flow.on(TextDelta, lambda event: pieces.append(event.delta))
    async with AsyncClient(base_url=base_url, api_key="made-up") as client:
        whole = await client.responses.create(model=model, input=QUESTION, **parameters)
        answer = await client.responses.create(model=model, input=QUESTION, stream=True, **parameters)
        async with flow.astream(answer, check=False) as stream:
            events = [event async for event in stream]
    return Seen.of(whole, events, pieces, stream.run)


def run_program(way: str, base_url: str, model: str, **parameters: Any) -> Seen:
    """The program, in one of three ways."""
    if way == "sync":
        return program(base_url, model, **parameters)

    async def main() -> Seen:
        return await aprogram(base_url, model, **parameters)

    return anyio.run(main, backend=way)


# --- a scripted server -----------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("fixture", FIXTURES)
def test_program_on_a_scripted_server(fixtures: Path, fixture: str, way: str) -> None:
    """It sees what was recorded, whether streamed or not; sync and async send and see the same."""
    recording = (fixtures / fixture).read_bytes()
    frames = list(frames_of([recording]))
    last = json.loads(frames[-1].data)["response"]
    with Server(document(last), sse([recording]), document(last), sse([recording])) as server:
        plain = program(server.url, "m")
        seen = run_program(way, server.url, "m")
        first, second = server.requests[:2], server.requests[2:]
    assert seen == plain
    assert [request.json for request in second] == [request.json for request in first]
    assert [request.json.get("stream") for request in second] == [None, True]
    assert (seen.status, seen.error, seen.warnings) == ("completed", None, ())
    assert [kind for kind in seen.types if kind != ToolCall.type] == [frame.event for frame in frames]
    assert seen.response == seen.whole
    assert "".join(seen.pieces) == seen.response.output_text
    assert any([seen.pieces, seen.response.tool_calls])


# --- llama.cpp's -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Iterator[model_server.ModelServer]:
    """A real model."""
    if not model_server.available():
        pytest.skip("the model's wheels are not installed (see make demo)")
    with model_server.model_server() as running:
        yield running


def settled(**more: Any) -> dict[str, Any]:
    """Parameters under which a model says the same each time, and not much."""
    same = {"seed": 1, "cache_prompt": False}  # a prompt that is not read again may come to other roundings
    return {"max_output_tokens": 24, "temperature": 0, "extra_body": same, **more}


@pytest.mark.model
def test_program_on_llama_cpp(model: model_server.ModelServer) -> None:
    """Sync and async see the same events and the same text."""
    plain, *others = (run_program(way, model.base_url, model.model, **settled()) for way in WAYS)
    for seen in others:
        assert seen.types == plain.types
        assert seen.pieces == plain.pieces
        assert seen.whole.output_text == plain.whole.output_text
    for seen in (plain, *others):
        assert (seen.status, seen.error, seen.warnings) == ("completed", None, ())
        assert seen.types[:2] == ["response.created", "response.in_progress"]
        assert seen.types[-1] == "response.completed"
        assert seen.types.count("response.output_text.delta") == len(seen.pieces) > 3
        assert "".join(seen.pieces) == seen.response.output_text
        for response in (seen.whole, seen.response):
            assert (response.status, response.model) == ("completed", model.model)
            (item,) = response.output
            assert isinstance(item, Message)
            (part,) = item.content
            assert isinstance(part, OutputText)
            assert part.text
            assert response.usage is not None
            assert response.usage.total_tokens == (response.usage.input_tokens or 0) + 24


@pytest.mark.model
@ways
def test_client_when_llama_cpp_has_closed_its_connection(model: model_server.ModelServer, way: str) -> None:
    """Which it does behind every stream: the next request takes another one, and that counts as no retry."""
    parameters = settled(model=model.model, input=QUESTION, max_output_tokens=2)
    options: dict[str, Any] = {"base_url": model.base_url, "max_retries": 0}

    statuses: list[str] = []

    def plain() -> None:
        with Client(**options) as client:
            for stream in (True, True, False, True):
                answer = client.responses.create(**parameters, stream=stream)
                statuses.append((answer.collect() if stream else answer).status)

    async def main() -> None:
        async with AsyncClient(**options) as client:
            for stream in (True, True, False, True):
                answer = await client.responses.create(**parameters, stream=stream)
                statuses.append((await answer.collect() if stream else answer).status)

    plain() if way == "sync" else anyio.run(main, backend=way)
    assert statuses == ["completed"] * 4


# Streams that are cut on their way, and go on.


@attrs.frozen
class Uncut:
    """A stream as it comes when nothing happens to it; *body* is it as it stands on the wire."""

    said: list[tuple[Any, ...]]
    body: bytes


def said(events: list[Event]) -> list[tuple[Any, ...]]:
    """What *events* say; ids and times are others each time."""
    return [(event.type, getattr(event, "delta", None), getattr(event, "text", None)) for event in events]


def heard(way: str, base_url: str, **parameters: Any) -> tuple[Run, list[Event]]:
    """The run of a stream that may be resumed, and its events."""
    flow, events = Dispatcher(), list[Event]()
    flow.on("*", events.append)
    if way == "sync":
        with Client(base_url=base_url) as client:
            return flow.run(client.responses.create(**parameters, stream=True, resume=True), check=False), events

    async def main() -> Run:
        async with AsyncClient(base_url=base_url) as client:
            return await flow.arun(await client.responses.create(**parameters, stream=True, resume=True), check=False)

    return anyio.run(main, backend=way), events


@pytest.fixture(scope="module")
def uncut(model: model_server.ModelServer) -> Uncut:
    """What the others are compared with."""
    with Proxy(model.base_url) as proxy:
        run, events = heard("sync", proxy.url, **settled(model=model.model, input=QUESTION))
    assert run.status == "completed"
    return Uncut(said(events), bytes(proxy.bodies[0]))


CUTS: dict[str, Callable[[bytes], list[int]]] = {
    "before the first event": lambda body: [body.index(b'"response.created"')],
    "between two events": lambda body: [body.index(b"\n\n", len(body) // 3) + 2],
    "within an event": lambda body: [body.index(b'"delta":"', len(body) // 3) + 4],
    "again and again": lambda body: [len(body) // 4, 1, len(body) // 4, 0, 100],
}


@pytest.mark.model
@ways
@pytest.mark.parametrize("where", CUTS)
def test_stream_of_llama_cpp_when_it_is_cut_goes_on(
    model: model_server.ModelServer, uncut: Uncut, monkeypatch: pytest.MonkeyPatch, way: str, where: str
) -> None:
    """Behind the last byte that came: the same text as of a stream that is not cut, and each event once."""
    monkeypatch.setattr("eventflow.exchange._FIRST_DELAY", 0.001)
    cuts = CUTS[where](uncut.body)
    with Proxy(model.base_url, *cuts) as proxy:
        run, events = heard(way, proxy.url, **settled(model=model.model, input=QUESTION))
    assert [len(body) for body in proxy.bodies[:-1]] == cuts
    assert (run.status, run.error, run.warnings) == ("completed", None, ())
    assert said(events) == uncut.said
    assert len({run.response.id, *(event.response.id for event in events if hasattr(event, "response"))}) == 1


# --- the mock of OpenAI's SDKs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """The address of the mock, which checks requests against OpenAI's specification."""
    reason = why_no_steady()
    if reason is not None:
        pytest.skip(reason)
    with steady() as url:
        yield url


@ways
def test_program_on_the_mock(mock: str, way: str) -> None:
    """The specification's own example, whole; and a stream that is none: it has no end, and the client says so."""
    seen = run_program(way, mock, "gpt-5")
    assert seen == program(mock, "gpt-5")
    assert seen.whole.status == "completed"
    assert seen.whole.output_text.startswith("The image depicts")
    assert (seen.whole.id or "").startswith("resp_")
    assert [type(event) for event in seen.events] == [AudioDelta] * 5 + [UnknownEvent]  # it invents them
    assert (seen.status, type(seen.error)) == ("truncated", StreamTruncated)
    assert "6 events were received" in str(seen.error)


def test_stream_of_the_mock_when_the_sdk_reads_it_just_ends(mock: str) -> None:
    """The SDK asks for JSON, gets it, and its loop is over before it began. A run says what came instead."""

    def ask(**options: Any) -> Any:
        return client.responses.create(model="gpt-5", input=QUESTION, stream=True, **options)

    with openai.OpenAI(base_url=mock, api_key="made-up", max_retries=0) as client:
        assert list(ask()) == []
        with pytest.raises(UnexpectedContentType, match="application/json"):
            collect(ask())
        streamed = {"extra_headers": {"accept": "text/event-stream"}}
        assert len(list(ask(**streamed))) == 6
        with pytest.raises(StreamTruncated, match="6 events"):
            collect(ask(**streamed))


def on_the_mock(way: str, mock: str, call: str, *arguments: Any, **parameters: Any) -> Any:
    """What a call on a client's responses gives; a stream is collected."""
    if way == "sync":
        with Client(base_url=mock, api_key="made-up") as client:
            answer = getattr(client.responses, call)(*arguments, **parameters)
            return answer.collect() if parameters.get("stream") else answer

    async def main() -> Any:
        async with AsyncClient(base_url=mock, api_key="made-up") as client:
            answer = await getattr(client.responses, call)(*arguments, **parameters)
            return await answer.collect() if parameters.get("stream") else answer

    return anyio.run(main, backend=way)


@attrs.frozen
class Weather:
    """What an answer is to be."""

    city: str
    celsius: float


@ways
def test_request_with_everything_is_what_the_specification_asks_for(mock: str, way: str) -> None:
    """All that a request can hold; what an answer said may be part of the next one."""
    before = on_the_mock(way, mock, "create", model="gpt-5", input=QUESTION)
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}
    response = on_the_mock(
        way,
        mock,
        "create",
        model="gpt-5",
        input=[{"role": "user", "content": QUESTION}, *before.output, {"role": "user", "content": "And now?"}],
        text_format=Weather,
        background=False,
        include=["reasoning.encrypted_content"],
        instructions="Be brief.",
        max_output_tokens=50,
        max_tool_calls=1,
        metadata={"a": "b"},
        parallel_tool_calls=True,
        previous_response_id=before.id,
        prompt=None,
        prompt_cache_key="x",
        reasoning={"effort": "low", "summary": "auto"},
        safety_identifier="x",
        service_tier="auto",
        store=False,
        temperature=0.5,
        text={"verbosity": "low"},
        tool_choice="auto",
        tools=[tool],
        top_logprobs=3,
        top_p=0.5,
        truncation="auto",
    )
    assert response.id == before.id


WRONG: dict[str, Any] = {"model": 5, "metadata": "x", "reasoning": {"effort": "zzz"}, "store": "yes", "include": "x"}


@ways
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_request_with_a_wrong_type_is_refused_by_the_server(mock: str, way: str, name: str, stream: bool) -> None:
    """The client checks no parameters; the server's reason is in the error."""
    parameters = {"model": "gpt-5", "input": QUESTION, name: WRONG[name]}
    with pytest.raises(HTTPStatusError, match="HTTP 400") as caught:
        on_the_mock(way, mock, "create", stream=stream, **parameters)
    assert (caught.value.status, caught.value.retryable) == (400, False)
    assert f'"path":"body.{name}' in caught.value.excerpt


@ways
def test_response_of_the_mock_when_it_is_retrieved_or_cancelled(mock: str, way: str) -> None:
    """By any id; the specification knows no stream there, and the client says what it got instead."""
    for response_id in ("resp_1", "resp/ 1?#ü"):
        assert on_the_mock(way, mock, "retrieve", response_id).status == "completed"
        assert on_the_mock(way, mock, "cancel", response_id).status == "completed"
    with pytest.raises(UnexpectedContentType, match="application/json") as caught:
        on_the_mock(way, mock, "retrieve", "resp_1", stream=True, starting_after=3)
    assert '"object": "response"' in caught.value.excerpt
