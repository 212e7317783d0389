"""Streams to run, sources that watch how they are treated, the six faces of a run, and what is logged meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

import attrs

from eventflow import Dispatcher, Event, EventflowError, Run, signals

JSON = dict[str, Any]
H = TypeVar("H", bound=logging.Handler)

DIRECTION = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""The marks that turn text around."""


class Tick(Event, tag="tests.tick"):
    """An event of our own, to emit."""

    n: int = 0


# --- events as JSON --------------------------------------------------------------------------------------------------


def created(response_id: str = "resp_1") -> JSON:
    """The response begins."""
    return {"type": "response.created", "response": {"id": response_id, "status": "in_progress", "output": []}}


def delta(text: str, *, item_id: str = "msg_1", index: int = 0) -> JSON:
    """A piece of text of a message."""
    return {
        "type": "response.output_text.delta",
        "item_id": item_id,
        "output_index": index,
        "content_index": 0,
        "delta": text,
    }


def deltas(*texts: str) -> list[JSON]:
    """Pieces of text of one message."""
    return [delta(text) for text in texts]


def message(text: str, *, item_id: str = "msg_1") -> JSON:
    """A message: open while it has no text, closed otherwise."""
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    status = "completed" if text else "in_progress"
    return {"type": "message", "id": item_id, "role": "assistant", "status": status, "content": content}


def opened(item: JSON | None = None, *, index: int = 0) -> JSON:
    """An item begins."""
    return {"type": "response.output_item.added", "output_index": index, "item": item or message("")}


def closed(item: JSON, *, index: int = 0) -> JSON:
    """An item is complete."""
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def text_done(text: str) -> JSON:
    """The text of a message is whole."""
    return {
        "type": "response.output_text.done",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "text": text,
    }


def call(arguments: str, *, status: str = "completed", name: str = "weather", number: int = 1) -> JSON:
    """A function call."""
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def call_delta(text: str, *, number: int = 1) -> JSON:
    """A piece of arguments."""
    return {
        "type": "response.function_call_arguments.delta",
        "item_id": f"fc_{number}",
        "output_index": number,
        "delta": text,
    }


def completed(*items: JSON, response_id: str = "resp_1") -> JSON:
    """The response is whole, with *items*."""
    response = {"id": response_id, "status": "completed", "output": list(items)}
    response["usage"] = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    return {"type": "response.completed", "response": response}


def incomplete(*items: JSON) -> JSON:
    """The response was cut short."""
    response = {"id": "resp_1", "status": "incomplete", "output": list(items)}
    response["incomplete_details"] = {"reason": "max_output_tokens"}
    return {"type": "response.incomplete", "response": response}


def failed(code: str | None = "server_error", message: str = "it broke") -> JSON:
    """The response failed; without a *code*, for no reason given."""
    fault = {"code": code, "message": message} if code else None
    return {"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "output": [], "error": fault}}


def error(code: str = "rate_limit_exceeded", message: str = "slow down") -> JSON:
    """An error event in the documented, flat shape."""
    return {"type": "error", "code": code, "message": message, "param": None}


def answer(*texts: str, end: Callable[..., JSON] = completed) -> list[JSON]:
    """A whole response of one message."""
    whole = message("".join(texts))
    return [created(), opened(), *deltas(*texts), text_done("".join(texts)), closed(whole), end(whole)]


def numbered(events: Iterable[JSON], start: int = 0) -> list[JSON]:
    """The events with sequence numbers."""
    return [{**event, "sequence_number": number} for number, event in enumerate(events, start)]


# --- the same as bytes -----------------------------------------------------------------------------------------------


def block(event: JSON) -> bytes:
    """One event as servers send it."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def body(events: Iterable[JSON]) -> bytes:
    """Events as one body."""
    return b"".join(map(block, events))


def bytewise(data: bytes) -> list[bytes]:
    """A body in chunks of one byte."""
    return [data[place : place + 1] for place in range(len(data))]


# --- sources that watch ----------------------------------------------------------------------------------------------


class Watched:
    """A sync source: gives its items, then fails if it is to; counts what is pulled, remembers its closing."""

    def __init__(self, items: Iterable[Any], fault: BaseException | None = None) -> None:
        self._items = iter(items)
        self._fault = fault
        self.pulled = 0
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for item in self._items:
            self.pulled += 1
            return item
        if self._fault is not None:
            raise self._fault
        raise StopIteration

    def close(self) -> None:
        self.closed += 1


class AsyncWatched:
    """`Watched`, async; waits for ever at its end when it is to *hang*."""

    def __init__(self, items: Iterable[Any], fault: BaseException | None = None, *, hang: bool = False) -> None:
        self._items = iter(items)
        self._fault = fault
        self._hang = hang
        self.pulled = 0
        self.closed = 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        import anyio.lowlevel

        await anyio.lowlevel.checkpoint()
        for item in self._items:
            self.pulled += 1
            return item
        if self._hang:
            await anyio.sleep_forever()
        if self._fault is not None:
            raise self._fault
        raise StopAsyncIteration

    async def aclose(self) -> None:
        import anyio.lowlevel

        await anyio.lowlevel.checkpoint()
        self.closed += 1


# --- the six faces ---------------------------------------------------------------------------------------------------


@attrs.define
class Outcome:
    """What a run came to."""

    run: Run
    heard: list[Event]
    given: list[Event] | None  # what the faces that deliver events delivered
    raised: BaseException | None

    def shown(self) -> dict[str, Any]:
        """All of it that must be the same whatever the face, ready to compare."""
        run = self.run
        return {
            "heard": self.heard,
            "status": run.status,
            "error": _shown(run.error, run),
            "raised": _shown(self.raised, run),
            "response": run.response,
            "text": run.text,
            "events": run.events,
            "warnings": run.warnings,
            "outbox": run.outbox,
        }


def _shown(error: BaseException | None, run: Run) -> Any:
    if error is None:
        return None
    notes = [note.replace(run.id, "run_X") for note in getattr(error, "__notes__", ())]
    partial = error.partial if isinstance(error, EventflowError) else None
    return (type(error), str(error).replace(run.id, "run_X"), notes, partial)


def _run(flow: Dispatcher, items: Iterable[Any], given: list[Event], **options: Any) -> None:
    flow.run(Watched(items), **options)


def _arun(flow: Dispatcher, items: Iterable[Any], given: list[Event], **options: Any) -> None:
    asyncio.run(flow.arun(AsyncWatched(items), **options))


def _stream(flow: Dispatcher, items: Iterable[Any], given: list[Event], **options: Any) -> None:
    given.extend(flow.stream(Watched(items), **options))


def _astream(flow: Dispatcher, items: Iterable[Any], given: list[Event], **options: Any) -> None:
    async def main() -> None:
        async with flow.astream(AsyncWatched(items), **options) as events:
            async for event in events:
                given.append(event)

    asyncio.run(main())


def _open(flow: Dispatcher, items: Iterable[Any], given: list[Event], **options: Any) -> None:
    with flow.open(**options) as run:
        for item in items:
            run.feed(item)


def _aopen(flow: Dispatcher, items: Iterable[Any], given: list[Event], **options: Any) -> None:
    async def main() -> None:
        async with flow.aopen(**options) as run:
            for item in items:
                await run.afeed(item)

    asyncio.run(main())


FACES: dict[str, Callable[..., None]] = {
    "run": _run,
    "arun": _arun,
    "stream": _stream,
    "astream": _astream,
    "open": _open,
    "aopen": _aopen,
}
SYNC = ("run", "stream", "open")
ASYNC = ("arun", "astream", "aopen")


def drive(face: str, items: Iterable[Any], flow: Dispatcher | None = None, **options: Any) -> Outcome:
    """Drive *items* through *face*, and say what came of it; raises nothing."""
    flow = Dispatcher() if flow is None else flow
    runs: list[Run] = []
    heard: list[Event] = []
    given: list[Event] = []

    def started(_: object, run: Run) -> None:
        runs.append(run)

    raised: BaseException | None = None
    with signals.run_started.connected_to(started, sender=flow), flow.on("*", heard.append, order=1000):
        try:
            FACES[face](flow, items, given, **options)
        except BaseException as error:  # also a KeyboardInterrupt is an outcome
            raised = error
    return Outcome(runs[0], heard, given if "stream" in face else None, raised)


# --- what is logged --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def attached(handler: H, name: str = "eventflow", level: int = logging.DEBUG) -> Iterator[H]:
    """Let *handler* have what is logged under *name*, and below it, while the block lasts."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def interrupted(act: Callable[[], object], *functions: str) -> Iterator[None]:
    """Do something again and again, interrupted at one place later each time; yields while the interrupt is handled.

    The places are those where Python lets a signal handler run, in functions of these names: where they begin, and
    where they come back from a call of what is written in C.
    """
    place = 0
    while True:
        place += 1
        left = place

        def look(frame: FrameType, event: str, _: object) -> None:
            nonlocal left
            if event in ("call", "c_return") and frame.f_code.co_name in functions:
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt

        try:
            sys.setprofile(look)
            act()
        except KeyboardInterrupt:
            yield
        else:
            assert place > 1, "it was interrupted nowhere"
            return
        finally:
            sys.setprofile(None)
