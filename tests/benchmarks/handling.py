"""Bytes to typed events to handlers: `Dispatcher` and the OpenAI SDK's streams."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from typing import Any

import msgspec
from measure import Lap, Measure, Race, race, timed, turns
from responses import async_response, response
from streams import CHUNKINGS, Recorded, slices, text_payloads, text_stream

from eventflow import Dispatcher, Plugin, TextDelta, on, rewrite, transform
from eventflow_plugins import Accumulate, Log, Tools, Usage

__all__ = [
    "LONG",
    "OPENAI",
    "PARSE",
    "handle",
    "handle_async",
    "handle_recorded",
    "linear_time",
    "openai_stream",
    "pipeline",
    "quiet",
]

OPENAI = "openai Stream, one function"
PARSE = "msgspec's parse alone"
SHORT = "a quarter of the deltas"
LONG = "all deltas"


def handle(deltas: int, rounds: int) -> list[Race]:
    """Bytes to typed event to one handler, everything on; the floor is the parser alone, on JSON cut out beforehand."""
    return [
        race(
            f"bytes to one handler, {form}",
            {
                "Dispatcher.run": functools.partial(_run, _text_flow, cut(body)),
                "Dispatcher.open, feed": functools.partial(_feed, _text_flow, cut(body)),
                "Dispatcher.run, snapshot=False": functools.partial(_run, _relay, cut(body)),
                OPENAI: functools.partial(_openai, cut(body)),
                PARSE: functools.partial(_parse, text_payloads(body)),
            },
            events=deltas,
            rounds=rounds,
        )
        for form, cut, body in _forms(deltas)
    ]


def handle_async(deltas: int, rounds: int) -> list[Race]:
    """The same, async: a sync handler on an async response."""
    return [
        race(
            f"bytes to one handler, async, {form}",
            {
                "Dispatcher.arun": functools.partial(_arun, cut(body)),
                "openai AsyncStream, one function": functools.partial(_async_openai, cut(body)),
                "Dispatcher.run": functools.partial(_run, _text_flow, cut(body)),
            },
            events=deltas,
            rounds=rounds,
        )
        for form, cut, body in _forms(deltas)
    ]


def linear_time(deltas: int, rounds: int) -> list[Race]:
    """A stream four times as long shall cost four times as much: the time of one event stays."""
    contenders: dict[str, Callable[[], Measure]] = {}
    for name, count in ((SHORT, deltas // 4), (LONG, deltas)):
        chunks = slices(b"".join(text_stream(count)))
        contenders[name] = functools.partial(timed, name, _run(_text_flow, chunks), count)
    return [turns("linear time", f"ns of CPU an event, 4 KiB chunks, {deltas:,} deltas", contenders, rounds)]


def quiet(deltas: int, rounds: int) -> list[Race]:
    """Nobody listens: with ``snapshot=False`` the frames need not be parsed."""
    return [
        race(
            f"nobody listening, {form}",
            {
                "Dispatcher(snapshot=False).run": functools.partial(_silence, {"snapshot": False}, cut(body)),
                "Dispatcher().run": functools.partial(_silence, {}, cut(body)),
                "openai Stream, read to its end": functools.partial(_openai_silence, cut(body)),
            },
            events=sum(1 for _ in text_stream(deltas)),
            rounds=rounds,
        )
        for form, cut, body in _forms(deltas)
    ]


def pipeline(deltas: int, rounds: int) -> list[Race]:
    """What plugins, transforms, rewrites and the iterating face cost, in 4 KiB chunks."""
    [(form, cut, body), _] = _forms(deltas)
    chunks = cut(body)
    flows: dict[str, Callable[[_Counter], Dispatcher]] = {
        "one handler": _text_flow,
        "one handler that takes the run": _run_taker,
        "three plugins, a handler each": functools.partial(_piped, _Words(), _Characters(), _Longest()),
        "a transform that lets all through": functools.partial(_piped, _Through()),
        "a transform that makes new events": functools.partial(_piped, _Upper()),
        "a rewrite": functools.partial(_piped, _Loud()),
        "Accumulate | Log | Tools | Usage": functools.partial(_bundled, None),
        "the same, Log to a file": functools.partial(_bundled, os.devnull),
    }
    contenders = {name: functools.partial(_run, make, chunks) for name, make in flows.items()}
    contenders["for event in Dispatcher.stream"] = functools.partial(_stream, chunks)
    contenders[OPENAI] = functools.partial(_openai, chunks)
    return [race(f"pipelines, {form}", contenders, events=deltas, rounds=rounds)]


def handle_recorded(streams: Recorded, rounds: int) -> list[Race]:
    """Recorded streams, one handler for everything: short streams, where setting up a run counts."""
    races: list[Race] = []
    for form, cut in CHUNKINGS.items():
        bodies = [cut(body) for body in streams.bodies]
        races.append(
            race(
                f"bytes to one handler, recorded streams, {form}",
                {
                    "Dispatcher.run": functools.partial(_run_all, bodies),
                    OPENAI: functools.partial(_openai_all, bodies),
                },
                events=_run_all(bodies)(),
                rounds=rounds,
            )
        )
    return races


def _forms(deltas: int) -> list[tuple[str, Callable[[bytes], list[bytes]], bytes]]:
    body = b"".join(text_stream(deltas))
    return [(form, cut, body) for form, cut in CHUNKINGS.items()]


# --- the handler: the same for all -----------------------------------------------------------------------------------


class _Counter:
    """Counts the events that it is called with; their text is looked at, as a handler would."""

    def __init__(self) -> None:
        self.events = 0
        self.characters = 0

    def __call__(self, event: Any) -> None:
        self.events += 1
        self.characters += len(event.delta)


def _text_flow(counter: _Counter) -> Dispatcher:
    flow = Dispatcher()
    flow.on(TextDelta, counter)
    return flow


def _relay(counter: _Counter) -> Dispatcher:
    flow = Dispatcher(snapshot=False)
    flow.on(TextDelta, counter)
    return flow


def _run_taker(counter: _Counter) -> Dispatcher:
    flow = Dispatcher()

    @flow.on(TextDelta)
    def handle(event: TextDelta, run: object) -> None:
        counter(event)

    return flow


def _piped(*plugins_and_counter: Any) -> Dispatcher:
    *plugins, counter = plugins_and_counter
    flow = Dispatcher(*plugins)
    flow.on(TextDelta, counter)
    return flow


def _bundled(path: str | None, counter: _Counter) -> Dispatcher:
    return _piped(Accumulate(), Log(path), Tools([openai_stream]), Usage(), counter)


# --- eventflow -------------------------------------------------------------------------------------------------------


def _run(make: Callable[[_Counter], Dispatcher], chunks: list[bytes]) -> Lap:
    def lap() -> int:
        counter = _Counter()
        make(counter).run(response(chunks))
        return counter.events

    return lap


def _feed(make: Callable[[_Counter], Dispatcher], chunks: list[bytes]) -> Lap:
    def lap() -> int:
        counter = _Counter()
        with make(counter).open() as run:
            for chunk in chunks:
                run.feed(chunk)
        return counter.events

    return lap


def _stream(chunks: list[bytes]) -> Lap:
    def lap() -> int:
        counter = _Counter()
        for event in Dispatcher().stream(response(chunks)):
            if type(event) is TextDelta:
                counter(event)
        return counter.events

    return lap


def _arun(chunks: list[bytes]) -> Lap:
    def lap() -> int:
        counter = _Counter()
        asyncio.run(_text_flow(counter).arun(async_response(chunks)))
        return counter.events

    return lap


def _silence(configuration: dict[str, Any], chunks: list[bytes]) -> Lap:
    flow = Dispatcher(**configuration)
    return lambda: flow.run(response(chunks)).events


def _run_all(bodies: list[list[bytes]]) -> Lap:
    flow = Dispatcher()
    heard = 0

    @flow.on("*")
    def handle(event: object) -> None:
        nonlocal heard
        heard += 1

    return lambda: sum(flow.run(response(body)).events for body in bodies)


class _Words(Plugin):
    """Counts words."""

    words: int = 0

    @on(TextDelta)
    def count(self, event: TextDelta) -> None:
        self.words += event.delta.count(" ")


class _Characters(Plugin):
    """Counts characters."""

    characters: int = 0

    @on(TextDelta)
    def count(self, event: TextDelta) -> None:
        self.characters += len(event.delta)


class _Longest(Plugin):
    """Finds the longest piece."""

    longest: int = 0

    @on(TextDelta)
    def count(self, event: TextDelta) -> None:
        if len(event.delta) > self.longest:
            self.longest = len(event.delta)


class _Through(Plugin):
    """Lets everything through."""

    @transform(TextDelta)
    def look(self, event: TextDelta) -> TextDelta:
        return event


class _Upper(Plugin):
    """Puts a new event in the place of each."""

    @transform(TextDelta)
    def upper(self, event: TextDelta) -> TextDelta:
        return event.replace(delta=event.delta.upper())


class _Loud(Plugin):
    """The same as a rewrite, which changes the done events too."""

    @rewrite("text")
    def upper(self, text: str) -> str:
        return text.upper()


# --- the peers -------------------------------------------------------------------------------------------------------


def _parse(payloads: list[bytes]) -> Lap:
    parse = msgspec.json.Decoder(TextDelta).decode

    def lap() -> int:
        for payload in payloads:
            parse(payload)
        return len(payloads)

    return lap


def _openai(chunks: list[bytes]) -> Lap:
    stream = openai_stream()

    def lap() -> int:
        counter = _Counter()
        for event in stream(response(chunks)):
            if event.type == "response.output_text.delta":
                counter(event)
        return counter.events

    return lap


def _openai_silence(chunks: list[bytes]) -> Lap:
    stream = openai_stream()
    return lambda: sum(1 for _ in stream(response(chunks)))


def _openai_all(bodies: list[list[bytes]]) -> Lap:
    stream = openai_stream()

    def lap() -> int:
        count = 0
        for body in bodies:
            for _ in stream(response(body)):
                count += 1
        return count

    return lap


def openai_stream() -> Callable[[Any], Any]:
    """Makes the SDK's stream of a response, as its client does for ``responses.create(stream=True)``."""
    from openai import OpenAI, Stream
    from openai.types.responses import ResponseStreamEvent

    client = OpenAI(api_key="none", base_url="http://localhost/v1")
    kind: Any = ResponseStreamEvent
    return lambda answer: Stream[Any](cast_to=kind, response=answer, client=client)


def _async_openai(chunks: list[bytes]) -> Lap:
    from openai import AsyncOpenAI, AsyncStream
    from openai.types.responses import ResponseStreamEvent

    client = AsyncOpenAI(api_key="none", base_url="http://localhost/v1")
    kind: Any = ResponseStreamEvent

    async def read() -> int:
        counter = _Counter()
        answer: Any = async_response(chunks)
        async for event in AsyncStream[Any](cast_to=kind, response=answer, client=client):
            if event.type == "response.output_text.delta":
                counter(event)
        return counter.events

    return lambda: asyncio.run(read())
