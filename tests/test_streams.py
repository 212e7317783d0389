"""The faces that a caller holds: streams to iterate, runs to push into."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from scenarios import AsyncWatched, Tick, Watched, answer, block, body, completed, deltas

from eventflow import Dispatcher, Event, Plugin, Run, TextDelta, transform
from eventflow.errors import StreamTruncated, UsageError

AB = answer("a", "b")
TYPES = [event["type"] for event in AB]


class Change(Plugin):
    """Doubles an a, drops a b."""

    @transform(TextDelta)
    def change(self, event: TextDelta) -> list[Event]:
        return [event, Tick(1)] if event.delta == "a" else []


def test_stream_when_iterated_gives_what_came_through() -> None:
    """The events delivered are those that came through the pipeline; handlers hear each before it is delivered."""
    log: list[tuple[str, str]] = []
    flow = Dispatcher(Change())
    flow.on("*", lambda event: log.append(("heard", event.type)))
    for event in flow.stream([*deltas("a", "b"), completed()]):
        log.append(("given", event.type))
    names = ["response.output_text.delta", "tests.tick", "response.completed"]
    assert log == [(what, name) for name in names for what in ("heard", "given")]


def test_stream_when_iterated_is_lazy() -> None:
    """An event is given before the next item is pulled; nothing is pulled before the first is asked for."""
    source = Watched(map(block, AB))
    events = Dispatcher().stream(source)
    assert source.pulled == 0
    pulled = [source.pulled for _ in events]
    assert pulled == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_astream_when_iterated(backend: str) -> None:
    """The same, async, on either event loop."""

    async def main() -> None:
        source = AsyncWatched(map(block, AB))
        flow = Dispatcher()
        heard: list[str] = []

        @flow.on("*")
        async def hear(event: Event) -> None:
            await anyio.lowlevel.checkpoint()
            heard.append(event.type)

        pulled: list[int] = []
        async with flow.astream(source) as events:
            async for event in events:
                assert heard[-1] == event.type
                pulled.append(source.pulled)
        assert pulled == [1, 2, 3, 4, 5, 6, 7]
        assert heard == TYPES
        assert events.run.status == "completed"
        assert source.closed == 1

    anyio.run(main, backend=backend)


def test_stream_when_the_body_ends_early() -> None:
    """The events come first, then the error; without ``check`` the loop just ends."""
    given: list[str] = []
    events = Dispatcher().stream(body(AB[:3]))
    with pytest.raises(StreamTruncated) as caught:
        given.extend(event.type for event in events)
    assert given == TYPES[:3]
    assert caught.value.run is events.run
    quiet = Dispatcher().stream(body(AB[:3]), check=False)
    assert len(list(quiet)) == 3
    assert quiet.run.status == "truncated"


def test_stream_when_it_runs_in_another_thread() -> None:
    """A stream made in one thread may be driven in another."""
    given: list[str] = []
    events = Dispatcher().stream(AB)
    thread = threading.Thread(target=lambda: given.extend(event.type for event in events))
    thread.start()
    thread.join()
    assert given == TYPES


def test_stream_when_a_consumer_throws_into_it() -> None:
    """Several streams at once, one left early, do not disturb each other."""
    flow = Dispatcher()
    first, second = iter(flow.stream(AB)), iter(flow.stream(answer("c")))
    next(first)
    next(second)
    del first
    assert len(list(second)) == len(AB) - 2


def test_stream_when_the_source_is_async() -> None:
    """An async source in a sync call is an error that says what to use."""
    for call in (Dispatcher().run, Dispatcher().stream):
        with pytest.raises(UsageError, match="asynchronous; use arun"):
            call(AsyncWatched(AB))


def test_push_when_entered_twice_or_fed_outside() -> None:
    """A run that was left takes nothing more, and says so."""
    heard: list[Event] = []
    flow = Dispatcher()
    flow.on("*", heard.append)
    with flow.open() as run:
        run.feed(body(AB))
    with pytest.raises(UsageError, match="its block was left"):
        run.feed(body(AB))
    assert len(heard) == len(AB)

    async def main() -> Run:
        async with flow.aopen() as other:
            await other.afeed(body(AB))
        with pytest.raises(UsageError, match="its block was left"):
            await other.afeed(body(AB))
        return other

    assert asyncio.run(main()).events == len(AB)
    assert len(heard) == 2 * len(AB)


def test_push_when_a_hook_raises_at_the_start() -> None:
    """What `start` raises leaves the ``with`` statement at its head."""

    class Breaks(Plugin):
        def start(self, run: Run) -> None:
            raise ValueError("mine")

    entered: list[Any] = []
    with pytest.raises(ValueError, match="mine"), Dispatcher(Breaks()).open() as run:
        entered.append(run)
    assert entered == []


def test_push_when_wire_is_named() -> None:
    """``open`` takes the wire like `run` does."""
    with Dispatcher().open(wire="responses") as run:
        run.feed(body(AB))
    assert run.text == "ab"
    with pytest.raises(UsageError, match="no wire is called"):
        Dispatcher().open(wire="morse")
