"""Reads streams of `serving.py`, and measures this very process; prints a JSON object.

``subjects.py MEASURE SUBJECT ADDRESS DELTAS PACE STREAMS``
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import attrs
import httpx
from probe import resident

from eventflow import Dispatcher, TextDelta

__all__ = ["SUBJECTS"]

_TIMEOUT = 60  # seconds of silence: all subjects have some bound, as they would in earnest
_LIMITS = httpx.Limits(max_connections=10_000)


class _Ear:
    """The handler of all subjects.

    Attributes:
        events: How often it was called.
        chunks: Chunks that were read by those who make no events of them.
        left: When a chunk left the response last, in ns; 0 where that is not looked at.
        delays: How many ns later the handler was called, for each event.
    """

    def __init__(self) -> None:
        self.events = 0
        self.chunks = 0
        self.characters = 0
        self.left = 0
        self.delays: list[int] = []

    def __call__(self, event: Any) -> None:
        if self.left:
            self.delays.append(time.perf_counter_ns() - self.left)
        self.events += 1
        self.characters += len(event.delta)

    @property
    def heard(self) -> int:
        """What came so far."""
        return self.events + self.chunks


# --- who reads -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Subject:
    """A client, and what is done with it.

    Attributes:
        client: Makes the client, of the server's address.
        read: Reads the stream that a request asks for; the sync ones never await.
        needs: The modules without which it cannot run.
    """

    client: Callable[[str], Any]
    read: Callable[[Any, dict[str, Any], _Ear], Coroutine[Any, Any, None]]
    needs: tuple[str, ...] = ()


def _httpx(address: str) -> Any:
    return httpx.Client(base_url=address, timeout=_TIMEOUT)


def _httpx_async(address: str) -> Any:
    return httpx.AsyncClient(base_url=address, timeout=_TIMEOUT, limits=_LIMITS)


def _httpx_aiohttp(address: str) -> Any:
    from httpx_aiohttp import HttpxAiohttpClient

    return HttpxAiohttpClient(base_url=address, timeout=_TIMEOUT, limits=_LIMITS)


def _openai(address: str) -> Any:
    from openai import OpenAI

    return OpenAI(api_key="none", base_url=address)


def _openai_async(address: str) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(api_key="none", base_url=address)


def _openai_aiohttp(address: str) -> Any:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    return AsyncOpenAI(api_key="none", base_url=address, http_client=DefaultAioHttpClient())


async def _run(client: Any, request: dict[str, Any], ear: _Ear) -> None:
    flow = Dispatcher()
    flow.on(TextDelta, ear)
    flow.run(client.stream("POST", "/responses", json=request))


async def _arun(client: Any, request: dict[str, Any], ear: _Ear) -> None:
    flow = Dispatcher()
    flow.on(TextDelta, ear)
    await flow.arun(client.stream("POST", "/responses", json=request))


async def _create(client: Any, request: dict[str, Any], ear: _Ear) -> None:
    for event in client.responses.create(**request):
        if event.type == "response.output_text.delta":
            ear(event)


async def _acreate(client: Any, request: dict[str, Any], ear: _Ear) -> None:
    async for event in await client.responses.create(**request):
        if event.type == "response.output_text.delta":
            ear(event)


async def _read(client: Any, request: dict[str, Any], ear: _Ear) -> None:
    with client.stream("POST", "/responses", json=request) as response:
        for _ in response.iter_raw():
            ear.chunks += 1


async def _aread(client: Any, request: dict[str, Any], ear: _Ear) -> None:
    async with client.stream("POST", "/responses", json=request) as response:
        async for _ in response.aiter_raw():
            ear.chunks += 1


SUBJECTS = {
    "Dispatcher.run, httpx": Subject(_httpx, _run),
    "openai OpenAI": Subject(_openai, _create, ("openai",)),
    "httpx, only read": Subject(_httpx, _read),
    "Dispatcher.arun, httpx": Subject(_httpx_async, _arun),
    "Dispatcher.arun, httpx-aiohttp": Subject(_httpx_aiohttp, _arun, ("httpx_aiohttp",)),
    "openai AsyncOpenAI": Subject(_openai_async, _acreate, ("openai",)),
    "openai AsyncOpenAI, its aiohttp client": Subject(_openai_aiohttp, _acreate, ("openai", "aiohttp")),
    "httpx, only read, async": Subject(_httpx_async, _aread),
    "httpx-aiohttp, only read": Subject(_httpx_aiohttp, _aread, ("httpx_aiohttp",)),
}


# --- measuring -------------------------------------------------------------------------------------------------------


async def one(subject: Subject, client: Any, deltas: int, pace: int, _streams: int) -> dict[str, float]:
    """One stream: CPU time from the request to the end, in ns an event.

    At a pace also the time between a chunk's leaving the response and its event's coming to the handler, in µs.
    """
    ear = _Ear()
    if pace:
        for module in {"httpx", "httpx2"} & sys.modules.keys():
            _stamp(sys.modules[module].Response, ear)
    gc.collect()
    start = time.process_time_ns()
    await subject.read(client, _request(deltas, pace), ear)
    taken = time.process_time_ns() - start
    if ear.events != deltas and not ear.chunks:
        raise AssertionError(f"{ear.events:,} events were handled of {deltas:,}")
    if not ear.delays:
        return {"cpu": taken / deltas}
    delays = sorted(ear.delays)
    return {"cpu": taken / deltas, "median": delays[deltas // 2] / 1000, "p99": delays[deltas * 99 // 100] / 1000}


def _stamp(response: Any, ear: _Ear) -> None:
    """Have all instances of the class *response* say when they give a chunk."""
    raw, araw = response.iter_raw, response.aiter_raw

    def iter_raw(self: Any) -> Iterator[bytes]:
        for chunk in raw(self):
            ear.left = time.perf_counter_ns()
            yield chunk

    async def aiter_raw(self: Any) -> AsyncIterator[bytes]:
        async for chunk in araw(self):
            ear.left = time.perf_counter_ns()
            yield chunk

    response.iter_raw, response.aiter_raw = iter_raw, aiter_raw


async def many(subject: Subject, client: Any, deltas: int, pace: int, streams: int) -> dict[str, float]:
    """Many streams at once: CPU time while all are under way, in ns an event; memory, in KiB a stream."""
    ear, before = _Ear(), resident()
    request = _request(deltas, pace, streams)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(subject.read(client, request, ear))
        while ear.heard < streams:  # noqa: ASYNC110 - an asyncio.Event would cost every event something
            await asyncio.sleep(0.01)
        gc.collect()  # for all at the same moment: one full collection takes as long as a thousand events
        heard, start = ear.heard, time.process_time_ns()
        await asyncio.sleep(deltas / pace * 0.7)
        taken, heard = time.process_time_ns() - start, ear.heard - heard
        grown = resident() - before
    return {"cpu": taken / heard, "kibibytes": grown / streams}


def _request(deltas: int, pace: int = 0, together: int = 1) -> dict[str, Any]:
    metadata = {"deltas": str(deltas), "pace": str(pace), "together": str(together)}
    return {"model": "none", "input": "Go on.", "stream": True, "metadata": metadata}


async def _measured(measure: str, subject: Subject, address: str, *numbers: int) -> dict[str, float]:
    client = subject.client(address)
    try:
        await subject.read(client, _request(100), _Ear())  # fills what is made once; the connection is kept
        return await MEASURES[measure](subject, client, *numbers)
    finally:
        closing = (getattr(client, "aclose", None) or client.close)()
        if closing is not None:
            await closing


MEASURES = {measure.__name__: measure for measure in (one, many)}

if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _, measure, subject, address, *numbers = sys.argv
    print(json.dumps(asyncio.run(_measured(measure, SUBJECTS[subject], address, *map(int, numbers)))))
