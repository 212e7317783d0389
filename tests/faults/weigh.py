"""Streams that are to cost too much, each in a process of its own: ``python tests/faults/weigh.py NAME``.

What comes of it is printed as JSON: how far memory grew beyond the text that was received, and the seconds of CPU for a
quarter of the load and for all of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import attrs
from answers import Answer, Api, Talk, block, talk

from eventflow import AsyncClient, Client, Dispatcher, Limits, Run
from eventflow.testing import Request, Script, Server

__all__ = ["LOADS", "Load", "Weight", "check", "weigh"]

MEBI = 2**20
CHUNK = 2**16
PIECE = 2**12
ROOM = 40_000_000  # bytes that memory may grow by
PATIENCE = 30.0  # seconds for a process: each takes one or two
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@attrs.frozen
class Load:
    """A stream that grows with a number.

    Attributes:
        what: The server does, for the page.
        api: Whose stream it is.
        way: How it is read.
        size: The number, for all of it.
        pieces: What is sent, of an answer that goes well and the number.
        ends: What comes of it: the run's status, and the name of the limit that was reached.
        limits: Of the run, of the number.
        headers: Of the answer.
        copies: How often the text that is received is there: of a translated stream, at the wire and in the fold.
    """

    what: str
    api: Api
    way: Literal["sync", "async"]
    size: int
    pieces: Callable[[Talk, int], Iterable[bytes]]
    ends: tuple[str, str | None] = ("completed", None)
    limits: Callable[[int], Limits] = attrs.field(default=lambda size: Limits())
    headers: dict[str, str | None] = attrs.field(factory=dict[str, str | None])
    copies: int = 1


@attrs.frozen
class Weight:
    """What a load cost.

    Attributes:
        status: How the run ended.
        limit: The limit that was reached, or None.
        growth: Bytes of memory at most, beyond what was there before and the copies of the text.
        small: Seconds of CPU for a quarter of the load.
        large: For all of it.
    """

    status: str
    limit: str | None
    growth: int
    small: float
    large: float


# --- the loads -------------------------------------------------------------------------------------------------------


def repeated(piece: bytes, size: int) -> Iterator[bytes]:
    """*piece* again and again, in chunks, until there are *size* bytes."""
    chunk = piece * max(1, CHUNK // len(piece))
    for _ in range(max(1, size // len(chunk))):
        yield chunk


def between(piece: Callable[[Talk], bytes], *, ends: bool = True) -> Callable[[Talk, int], Iterator[bytes]]:
    """So many bytes of a piece in the middle of an answer."""

    def pieces(said: Talk, size: int) -> Iterator[bytes]:
        yield b"".join(said.before)
        yield from repeated(piece(said), size)
        if ends:
            yield b"".join(said.after)

    return pieces


def endless(head: bytes, piece: bytes) -> Callable[[Talk, int], Iterator[bytes]]:
    """Twice as many bytes of one event as are allowed."""

    def pieces(said: Talk, size: int) -> Iterator[bytes]:
        yield b"".join([*said.before, head])
        yield from repeated(piece, 2 * size)

    return pieces


def deltas(said: Talk, count: int) -> Iterator[bytes]:
    """So many pieces of text, without any that repeats them."""
    yield b"".join(said.before)
    delta = said.delta("streaming ")
    yield from repeated(delta, count * len(delta))
    yield b"".join(said.blocks[len(said.to_end) :])


def arguments(said: Talk, size: int) -> Iterator[bytes]:
    """So many characters of arguments, in pieces of 4 KiB."""
    first = b'"Pa"' if said.api == "gemini" else b"Paris"
    place = next(place for place, each in enumerate(said.blocks) if first in each)
    yield b"".join(said.blocks[:place])
    piece = said.blocks[place].replace(first.strip(b'"'), b"x" * PIECE)
    if said.api == "responses":  # it repeats them at its end, which would be events of 48 MiB; some servers do not
        piece = re.sub(b',"sequence_number":[0-9]+', b"", piece)
    yield from repeat(piece, size // PIECE)
    for each in said.blocks[place + 1 :]:
        yield re.sub(rb'"arguments":"{.*?}"', b'"arguments":""', each)


def packed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same as gzip."""
    engine = zlib.compressobj(wbits=31)
    yield from filter(None, map(engine.compress, pieces))
    yield engine.flush()


def deep(said: Talk, size: int) -> Iterator[bytes]:
    """One event of so many brackets."""
    yield b"".join(said.before)
    yield b'data: {"type":"vendor.deep","x":'
    yield from repeated(b"[", size)
    yield b"\n\n"


def numbers(said: Talk, count: int) -> Iterator[bytes]:
    """So many events with an integer of 10,000 digits."""
    return between(lambda said: b'data: {"type":"vendor.number","n":' + b"7" * 10_000 + b"}\n\n")(said, count * 10_000)


def event_bytes(size: int) -> Limits:
    """What is read of one event."""
    return Limits(event_bytes=size)


def long_line(said: Talk, size: int) -> Iterator[bytes]:
    """A line that is too long."""
    return endless(b"data: ", b"x")(said, size)


def short_lines(said: Talk, size: int) -> Iterator[bytes]:
    """An event of too many lines; of each, two bytes count."""
    return endless(b"", b"data: x\n")(said, 3 * size)


def comments(said: Talk, size: int) -> Iterator[bytes]:
    """So many bytes of comments."""
    return between(lambda said: b": " + b"x" * 100 + b"\n\n")(said, size)


def unknown(said: Talk, count: int) -> Iterator[bytes]:
    """So many events of a type that nobody knows."""
    event = block({"type": "vendor.progress", "n": 1})
    return between(lambda said: event)(said, count * len(event))


def raised(size: int) -> Limits:
    """For so many characters of arguments."""
    return Limits(arguments=2 * size, event_bytes=2 * size)


GZIP: dict[str, str | None] = {"content-encoding": "gzip"}
TOO_LONG = ("failed", "event_bytes")
TOO_DEEP = ("failed", "json_depth")
RAISED = "48 MiB of arguments, with `Limits(arguments=...)` raised"


def bomb(said: Talk, size: int) -> Iterator[bytes]:
    """A line that is too long, as gzip."""
    return packed(long_line(said, 4 * size))


def packed_comments(said: Talk, size: int) -> Iterator[bytes]:
    """So many bytes of comments, as gzip."""
    return packed(comments(said, size))


LOADS: dict[str, Load] = {
    "endless-line": Load("a line without end", "responses", "async", 8 * MEBI, long_line, TOO_LONG, event_bytes),
    "endless-event": Load("short lines without end", "chat", "sync", MEBI // 2, short_lines, TOO_LONG, event_bytes),
    "gzip-bomb": Load(
        "64 KiB as gzip, 64 MiB as it was", "anthropic", "async", 8 * MEBI, bomb, TOO_LONG, event_bytes, GZIP
    ),
    "gzip-comments": Load("64 MiB of comments, as gzip", "responses", "sync", 64 * MEBI, packed_comments, headers=GZIP),
    "comments": Load("32 MiB of comments between two events", "chat", "async", 32 * MEBI, comments),
    "deltas": Load("100,000 pieces of text", "responses", "sync", 100_000, deltas),
    "deltas-chat": Load("100,000 pieces of text", "chat", "async", 100_000, deltas),
    "deltas-anthropic": Load("100,000 pieces of text", "anthropic", "sync", 100_000, deltas),
    "deltas-gemini": Load("50,000 pieces of text", "gemini", "async", 50_000, deltas),
    "arguments": Load(RAISED, "responses", "sync", 48 * MEBI, arguments, limits=raised),
    "arguments-chat": Load(RAISED, "chat", "async", 48 * MEBI, arguments, limits=raised, copies=2),
    "arguments-gemini": Load(RAISED, "gemini", "sync", 48 * MEBI, arguments, limits=raised, copies=2),
    "deep-json": Load("an event of 4 MiB of brackets", "responses", "async", 4 * MEBI, deep, TOO_DEEP),
    "unknown": Load("50,000 events of a type that nobody knows", "responses", "async", 50_000, unknown),
    "numbers": Load("1,000 integers of 10,000 digits", "responses", "sync", 1_000, numbers),
}


# --- the scales ------------------------------------------------------------------------------------------------------


def weigh(name: str) -> Weight:
    """Run a load, first a quarter of it."""
    load = LOADS[name]
    current = 0

    def answer(request: Request) -> Script:
        said = talk(load.api)
        pieces = load.pieces(said, current) if current else said.blocks
        return Script(Answer(pieces, headers=load.headers if current else {}, ending="end").play)

    with Server(answer, repeat=True, patience=20.0) as server:
        _read(load, server.url, Limits())
        before = _memory("VmRSS")
        current = load.size // 4
        small = _read(load, server.url, load.limits(current))[1]
        current = load.size
        run, large = _read(load, server.url, load.limits(current))
        received = len(run.text) + sum(len(call.arguments or "") for call in run.response.tool_calls)
        growth = _memory("VmHWM") - before - load.copies * received
    limit = getattr(run.error, "limit", None)
    return Weight(run.status, limit, growth, small, large)


def check(name: str) -> list[str]:
    """Weigh a load in a process of its own, and say what is not as it must be."""
    command = [sys.executable, __file__, name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True, text=True, env=UNMEASURED)
    except subprocess.TimeoutExpired:
        return [f"{name} takes more than {PATIENCE:g} s"]
    except subprocess.CalledProcessError as error:
        return [f"{name} fails: {error.stderr[-2000:]}"]
    weight = Weight(**json.loads(done.stdout))
    found: list[str] = []
    if (weight.status, weight.limit) != LOADS[name].ends:
        found.append(f"{name} ends as {weight.status}, with the limit {weight.limit}")
    if weight.growth > ROOM:
        found.append(f"{name} takes {weight.growth:,} bytes beyond the text")
    if weight.large > 8 * weight.small + 0.1:  # four times the load; sixteen times the time would be quadratic
        found.append(f"{name} takes {weight.large:.3f} s for four times what takes {weight.small:.3f} s")
    return found


def _read(load: Load, url: str, limits: Limits) -> tuple[Run, float]:
    """The run, and the seconds of CPU of the thread that reads."""
    began = time.thread_time()
    options: dict[str, Any] = {"base_url": url, "api_key": "sk-made-up", "wire": load.api, "limits": limits}
    question: dict[str, Any] = {"model": "made-up", "input": "Hi", "stream": True}
    flow = Dispatcher(limits=limits)

    async def read() -> Run:
        async with AsyncClient(**options) as client:
            return await flow.arun(await client.responses.create(**question), check=False)

    if load.way == "async":
        run = asyncio.run(read())
    else:
        with Client(**options) as client:
            run = flow.run(client.responses.create(**question), check=False)
    return run, time.thread_time() - began


def _memory(name: str) -> int:
    """Bytes of this process, now or at most; of its own, where the system tells what was inherited."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(weigh(sys.argv[1]))))
