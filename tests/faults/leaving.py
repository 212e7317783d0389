"""Consumers that do not read to the end, or not as fast as the server sends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs
from answers import APIS, Answer, Api, Way, is_brief, talk

from eventflow import AsyncClient, Client, Dispatcher, Run, TextDelta
from eventflow.testing import Peer, Request, Script, Server

__all__ = ["BRIEF_CASES", "CASES", "LEAVINGS", "Leaving", "leave"]

GONE = 1.0  # seconds after which the server must have seen that its client has left
STUCK = 0.2  # seconds that a write waits before the server says so
FLOOD = 256  # pieces of 64 KiB: many more than the system's own buffers hold
QUESTION: dict[str, Any] = {"model": "made-up", "input": "Hi", "stream": True}


class Failure(Exception):
    """What a handler raises."""


@attrs.define
class Consumer:
    """Somebody who hears a stream: notes the run with the first piece of text, and then does something.

    Attributes:
        act: What it does then.
        run: The run.
        heard: Set once that has come.
    """

    act: Callable[[Run], None] = lambda run: None
    run: Run | None = None
    heard: threading.Event = attrs.field(factory=threading.Event)

    @property
    def flow(self) -> Dispatcher:
        """A dispatcher that tells it."""
        flow = Dispatcher()
        flow.on(TextDelta, self.hear)
        return flow

    def hear(self, event: TextDelta, run: Run) -> None:
        """Take a piece of text."""
        first, self.run = self.run is None, run
        self.heard.set()
        if first:
            self.act(run)


@attrs.frozen
class Leaving:
    """One way of a consumer to leave.

    Attributes:
        what: The consumer does, for the page.
        status: Of the run.
        comes: To the caller, for the page.
        sync: Leaves a source.
        asynchronous: The same in a task.
        floods: Whether the server sends more than is read, rather than nothing.
    """

    what: str
    status: str
    comes: str
    sync: Callable[[Any, Server], Run | None]
    asynchronous: Callable[[Any, Server], Awaitable[Run | None]]
    floods: bool = False


# --- ways out --------------------------------------------------------------------------------------------------------


def _raise(run: Run) -> None:
    raise Failure


def _break(source: Any, server: Server) -> Run | None:
    events = Dispatcher().stream(source)
    for event in events:
        if isinstance(event, TextDelta):
            break
    return events.run


async def _abreak(source: Any, server: Server) -> Run | None:
    events = Dispatcher().astream(source)
    async for event in events:
        if isinstance(event, TextDelta):
            break
    await asyncio.sleep(0)
    return events.run


def _acting(act: Callable[[Run], None]) -> tuple[Any, Any]:
    """By what a handler does; sync and async."""

    def sync(source: Any, server: Server) -> Run | None:
        consumer, raised = Consumer(act), False
        try:
            consumer.flow.run(source)
        except Failure:
            raised = True
        return consumer.run if raised is (act is _raise) else None

    async def asynchronous(source: Any, server: Server) -> Run | None:
        consumer, raised = Consumer(act), False
        try:
            await consumer.flow.arun(source)
        except Failure:
            raised = True
        return consumer.run if raised is (act is _raise) else None

    return sync, asynchronous


def _cancel_elsewhere(source: Any, server: Server) -> Run | None:
    consumer = Consumer()

    def cancel() -> None:
        if consumer.heard.wait(GONE) and consumer.run is not None:
            consumer.run.cancel()

    threading.Thread(target=cancel, daemon=True).start()
    return consumer.flow.run(source)


async def _cancel_task(source: Any, server: Server) -> Run | None:
    consumer = Consumer()
    task = asyncio.ensure_future(consumer.flow.arun(source))
    await asyncio.to_thread(consumer.heard.wait, GONE)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return consumer.run
    return None


def _wait_until_stuck(server: Server) -> None:
    """Until the server has not been able to send for a while."""
    until, sent = time.monotonic() + 5.0, -1
    while time.monotonic() < until and server.sent != sent:
        sent = server.sent
        time.sleep(STUCK)
    assert 0 < server.sent < FLOOD * 2**16 / 2, "it could send all the same"


def _slow(source: Any, server: Server) -> Run | None:
    def act(run: Run) -> None:
        _wait_until_stuck(server)
        run.cancel()

    return Consumer(act).flow.run(source)


async def _aslow(source: Any, server: Server) -> Run | None:
    flow = Dispatcher()

    async def wait(event: TextDelta, run: Run) -> None:
        await asyncio.to_thread(_wait_until_stuck, server)
        run.cancel()

    flow.on(TextDelta, wait)
    return await flow.arun(source)


LEAVINGS: dict[str, Leaving] = {
    "break": Leaving("leaves the loop by `break`", "cancelled", "the run", _break, _abreak),
    "raise": Leaving("raises in a handler", "failed", "that exception", *_acting(_raise)),
    "cancel": Leaving("calls `run.cancel()` in a handler", "cancelled", "the run", *_acting(Run.cancel)),
    "cancel-elsewhere": Leaving(
        "calls `run.cancel()` in another thread; cancels the task",
        "cancelled",
        "the run; the cancellation",
        _cancel_elsewhere,
        _cancel_task,
    ),
    "slow": Leaving(
        "takes its time while the server sends, and cancels", "cancelled", "the run", _slow, _aslow, floods=True
    ),
}


# --- the judge -------------------------------------------------------------------------------------------------------


def leave(name: str, api: Api, way: str) -> list[str]:
    """Leave a stream, and say what is not as it must be. The garbage collector does not help."""
    leaving, said = LEAVINGS[name], talk(api)

    def answer(request: Request) -> Script:
        pieces: Iterator[bytes] = iter([*said.before, *[said.delta("x" * 2**16)] * (FLOOD * leaving.floods)])

        def play(peer: Peer) -> None:
            Answer(pieces, ending="hang").play(peer)
            peer.wait()

        return Script(play)

    async def main(url: str) -> tuple[Run | None, bool]:
        async with AsyncClient(base_url=url, api_key="sk-made-up", wire=api) as client:
            run = await leaving.asynchronous(await client.responses.create(**QUESTION), server)
            return run, await asyncio.to_thread(server.left.wait, GONE)

    with Server(answer) as server, _uncollected():
        if way == "sync":
            with Client(base_url=server.url, api_key="sk-made-up", wire=api) as client:
                run = leaving.sync(client.responses.create(**QUESTION), server)
                left = server.left.wait(GONE)
        else:
            run, left = asyncio.run(main(server.url))
    found: list[str] = []
    if run is None or run.status != leaving.status:
        found.append(f"the run is {run}, not {leaving.status}")
    elif not run.text.startswith("It "):
        found.append(f"the text is {run.text[:100]!r}")
    if not left:
        found.append("the connection is still open")
    return [f"{name} of {api}, {way}: {each}" for each in found]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


WAYS: tuple[Way, ...] = ("sync", "async")
CASES: list[tuple[str, Api, Way]] = [(name, api, way) for name in LEAVINGS for api in APIS for way in WAYS]
BRIEF_CASES = [case for case in CASES if is_brief(list(LEAVINGS).index(case[0]), *case[1:])]
