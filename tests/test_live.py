"""Streams over real sockets: how long they are waited for, how they end, how they are left; every face, sync and async.

Faces are streams of `Client` and `AsyncClient`, and plain responses of httpx and httpx2 that a dispatcher is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import signal
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import attrs
import httpx
import httpx2
import pytest
from scenarios import JSON, answer, block, body, completed, created, delta, error, failed, opened
from servers import Answer, Peer, Server, document, raw, silence, sse, status

from eventflow import AsyncClient, Client, Dispatcher, Event, Run, TextDelta, Timeouts
from eventflow.errors import (
    APIStreamError,
    DecodeError,
    EventflowError,
    HTTPStatusError,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UnexpectedContentType,
)

# httpx leaves generators of its own behind when a body is left early, which trio warns of; ours must not be among them
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

LIBRARIES: dict[str, Any] = {"httpx": httpx, "httpx2": httpx2}
FACES = ("client", "httpx", "httpx2")
WAYS = ("sync", "asyncio", "trio")
ALL = [(face, way) for face in FACES for way in WAYS]
# Where a whole response is all that is seen, each face once and each way once are enough.
SOME = [("client", "sync"), ("client", "asyncio"), ("client", "trio"), ("httpx", "sync"), ("httpx2", "asyncio")]
CLIENT = [("client", way) for way in WAYS]

GRACE = 2.0  # seconds later than they should be that timers may be: these machines are noisy
GONE = 1.0  # seconds after which a server must have seen that its client has left; it takes 0.2 s at most
TIMER = 0.15
ASK: dict[str, Any] = {"model": "m", "input": "hello", "stream": True}

AB = answer("a", "b")
HEAD = {"content-type": "text/event-stream", "transfer-encoding": "chunked", "x-request-id": "req_1"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr("eventflow.exchange._FIRST_DELAY", 0.001)


def faces(pairs: list[tuple[str, str]]) -> Any:
    """Parametrizes a test by face and way."""
    return pytest.mark.parametrize(("face", "way"), pairs)


# --- the driver ------------------------------------------------------------------------------------------------------


@contextmanager
def opening(
    server: Server, face: str, timeouts: Timeouts | None = None, *, resume: bool = False, **options: Any
) -> Iterator[Any]:
    """A source, sync: the answer of *server* through *face*."""
    if face == "client":
        with Client(base_url=server.url, timeout=timeouts, **options) as client:
            yield client.responses.create(**ASK, resume=resume)
    else:
        with LIBRARIES[face].Client(timeout=None, verify=False) as client:
            yield client.send(client.build_request("POST", server.url, json=ASK), stream=True)


@asynccontextmanager
async def aopening(
    server: Server, face: str, timeouts: Timeouts | None = None, *, resume: bool = False, **options: Any
) -> AsyncIterator[Any]:
    """`opening`, async."""
    if face == "client":
        async with AsyncClient(base_url=server.url, timeout=timeouts, **options) as client:
            yield await client.responses.create(**ASK, resume=resume)
    else:
        async with LIBRARIES[face].AsyncClient(timeout=None, verify=False) as client:
            yield await client.send(client.build_request("POST", server.url, json=ASK), stream=True)


def chunked(data: bytes) -> bytes:
    """*data* as one chunk."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@attrs.define
class Seen:
    """What came of a stream, while its client was still open."""

    run: Run | None
    error: EventflowError | None
    begun: float  # before the request
    ended: float
    left: bool  # whether the server has seen the connection go

    @property
    def took(self) -> float:
        """Seconds in all."""
        return self.ended - self.begun


def drive(
    server: Server,
    face: str,
    way: str,
    *,
    flow: Dispatcher | None = None,
    timeouts: Timeouts | None = None,
    leaves: bool = False,
    **options: Any,
) -> Seen:
    """Run what *server* answers, through *face*, in one of three ways.

    Args:
        server: The server.
        face: ``client``, ``httpx`` or ``httpx2``.
        way: ``sync``, ``asyncio`` or ``trio``.
        flow: The dispatcher.
        timeouts: Of the client; or of the dispatcher, where the source is a plain response.
        leaves: Whether to look that the server sees the connection go.
        options: Of the client, and ``resume``.
    """
    if flow is None:
        flow = Dispatcher(timeout=None if face == "client" else timeouts)
    seen = Seen(None, None, time.monotonic(), 0.0, left=False)

    def note(failure: EventflowError | None, run: Run | None) -> None:
        seen.ended = time.monotonic()
        seen.error, seen.run = failure, run if failure is None else failure.run

    def sync() -> None:
        with opening(server, face, timeouts, **options) as source:
            try:
                run = flow.run(source)
            except EventflowError as failure:
                note(failure, None)
            else:
                note(None, run)
            seen.left = leaves and server.left.wait(GONE)

    async def main() -> None:
        async with aopening(server, face, timeouts, **options) as source:
            try:
                run = await flow.arun(source)
            except EventflowError as failure:
                note(failure, None)
            else:
                note(None, run)
            seen.left = leaves and await anyio.to_thread.run_sync(server.left.wait, GONE)

    try:
        sync() if way == "sync" else anyio.run(main, backend=way)
    except EventflowError as failure:  # before there was a source
        note(failure, None)
    return seen


def check_error(seen: Seen, kind: type[EventflowError], state: str, text: str, **attributes: Any) -> None:
    """The stream ended with an error of exactly this kind, which tells of its run."""
    error = seen.error
    assert type(error) is kind
    assert seen.run is not None
    assert (error.run, error.partial) == (seen.run, seen.run.response)
    assert (seen.run.status, seen.run.error) == (state, error)
    assert seen.run.text == text
    assert error.partial is not None
    assert error.partial.output_text == text
    assert {name: getattr(error, name) for name in attributes} == attributes


# --- time ------------------------------------------------------------------------------------------------------------


def pings(peer: Peer) -> None:
    """A comment every now and then, without end."""
    while True:
        peer.chunk(b": ping\n\n")
        time.sleep(0.03)


def trickle(peer: Peer) -> None:
    """One long event, byte by byte."""
    for byte in block(delta("x" * 100)):
        peer.chunk(bytes([byte]))
        time.sleep(0.03)


def chatter(peer: Peer) -> None:
    """Events without end, each in time."""
    while True:
        peer.chunk(block(delta("x")))
        time.sleep(0.03)


class Marked:
    """An answer that notes when it sent its events, all at once; *then* nothing more is an event."""

    def __init__(self, events: list[JSON], then: Callable[[Peer], None]) -> None:
        self._events = events
        self._then = then
        self.since = 0.0

    def __call__(self, peer: Peer) -> None:
        peer.head(200, HEAD)
        if self._events:
            self.since = time.monotonic()
            peer.chunk(body(self._events))
        peer.closes = True
        self._then(peer)


WAITS: dict[str, tuple[list[JSON], Callable[[Peer], None], str]] = {
    "silent after the head": ([], Peer.wait, "first_event"),
    "pings after the head": ([], pings, "first_event"),
    "silent in the middle": (AB[:3], Peer.wait, "idle"),
    "pings in the middle": (AB[:3], pings, "idle"),
    "trickled bytes of an event": (AB[:3], trickle, "idle"),
}


@pytest.mark.parametrize(
    ("face", "way", "wait"),
    [(face, way, wait) for wait in WAITS for face, way in (ALL if wait.endswith("in the middle") else SOME)],
)
def test_stream_when_events_stay_away_times_out(face: str, way: str, wait: str) -> None:
    """No event within the time is a timeout, when the time is up and not before; the connection is closed."""
    events, then, timer = WAITS[wait]
    answer = Marked(events, then)
    timeouts = Timeouts(**{"first_event": 60, "idle": 60, timer: TIMER})
    with Server(answer) as server:
        seen = drive(server, face, way, timeouts=timeouts, leaves=True)
    check_error(
        seen,
        StreamTimeout,
        "timeout",
        "a" if events else "",
        timer=timer,
        seconds=TIMER,
        phase="stream",
        retryable=True,
    )
    assert seen.ended - (answer.since or seen.begun) >= TIMER
    assert seen.took < TIMER + GRACE
    assert seen.left
    assert len(server.requests) == 1


@faces(SOME)
@pytest.mark.parametrize("then", [chatter, Peer.wait])
def test_stream_when_all_the_waiting_is_too_long_times_out(face: str, way: str, then: Callable[[Peer], None]) -> None:
    """The total counts all waiting, however lively the stream is."""
    with Server(sse([created(), opened()], then=then)) as server:
        seen = drive(server, face, way, timeouts=Timeouts(total=TIMER), leaves=True)
    text = seen.run.text if seen.run is not None else ""
    check_error(seen, StreamTimeout, "timeout", text, timer="total", seconds=TIMER, phase="stream", retryable=True)
    assert seen.took < TIMER + GRACE
    assert then is not chatter or "x" in text
    assert seen.left


@faces(CLIENT)
@pytest.mark.parametrize("timer", ["first_event", "total"])
def test_timer_when_the_head_was_slow_counts_it(face: str, way: str, timer: str) -> None:
    """The time of the first event, and of all together, begins with the request and not with the head."""
    heads: list[float] = []

    def slow(peer: Peer) -> None:
        time.sleep(0.25)
        time.sleep(0.25)
        heads.append(time.monotonic())
        sse([], then=pings)(peer)

    with Server(slow) as server:
        seen = drive(server, face, way, timeouts=Timeouts(**{timer: 0.8}))
    check_error(seen, StreamTimeout, "timeout", "", timer=timer, seconds=0.8, phase="stream")
    assert seen.took >= 0.8
    assert seen.ended - heads[0] < 0.8


@faces(CLIENT)
def test_request_when_no_head_comes_times_out(face: str, way: str) -> None:
    """A server that never answers is a timeout before there is any run; the connection is closed."""
    with Server(silence) as server:
        seen = drive(server, face, way, timeouts=Timeouts(first_event=TIMER))
        assert server.left.wait(GONE)
    assert type(seen.error) is StreamTimeout
    assert (seen.error.timer, seen.error.seconds, seen.error.phase) == ("first_event", TIMER, "headers")
    assert (seen.error.run, seen.error.partial, seen.error.retryable) == (None, None, True)
    assert TIMER <= seen.took < TIMER + GRACE
    assert len(server.requests) == 1


@faces(CLIENT)
def test_request_when_no_head_comes_within_the_total_names_it(face: str, way: str) -> None:
    """Where the total is shorter, it is what ran out."""
    with Server(silence) as server:
        seen = drive(server, face, way, timeouts=Timeouts(total=TIMER))
    assert type(seen.error) is StreamTimeout
    assert TIMER <= seen.took < TIMER + GRACE
    assert (seen.error.timer, seen.error.seconds, seen.error.phase) == ("total", TIMER, "headers")


def trickled(peer: Peer) -> None:
    """A head that comes byte by byte, for 0.9 s and more."""
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-long: ")
    for _ in range(30):
        peer.send(b"x")
        time.sleep(0.03)


@faces(CLIENT)
def test_request_when_its_head_trickles_times_out(face: str, way: str) -> None:
    """A head that comes byte by byte comes too late as well."""
    with Server(trickled) as server:
        seen = drive(server, face, way, timeouts=Timeouts(first_event=TIMER))
    assert type(seen.error) is StreamTimeout
    assert (seen.error.timer, seen.error.phase) == ("first_event", "headers")
    assert TIMER <= seen.took < 0.9


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("sync", marks=pytest.mark.xfail(reason="the watchdog knows only connections that are made anew")),
        "asyncio",
        "trio",
    ],
)
def test_request_when_its_head_trickles_on_a_used_connection_times_out(way: str) -> None:
    """The same where the connection has served before."""

    def sync(server: Server) -> None:
        with Client(base_url=server.url, timeout=Timeouts(first_event=TIMER)) as client:
            client.responses.create(**ASK).collect()
            with pytest.raises(StreamTimeout):
                client.responses.create(**ASK)

    async def main(server: Server) -> None:
        async with AsyncClient(base_url=server.url, timeout=Timeouts(first_event=TIMER)) as client:
            await (await client.responses.create(**ASK)).collect()
            with pytest.raises(StreamTimeout):
                await client.responses.create(**ASK)

    begun = time.monotonic()
    with Server(sse(AB), trickled) as server:
        sync(server) if way == "sync" else anyio.run(main, server, backend=way)
        assert time.monotonic() - begun < 0.9
        assert server.connections == 1


@contextmanager
def deaf() -> Iterator[str]:
    """The address of a listener that takes no connections: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("retries", [0, 1])
def test_connection_when_nobody_accepts_it_times_out(way: str, retries: int) -> None:
    """A connection that does not come to stand is a timeout of its own; the request was not seen, so it is retried."""
    timeouts = Timeouts(connect=TIMER)

    def sync(url: str) -> None:
        with Client(base_url=url, timeout=timeouts, max_retries=retries) as client:
            client.responses.create(**ASK)

    async def main(url: str) -> None:
        async with AsyncClient(base_url=url, timeout=timeouts, max_retries=retries) as client:
            await client.responses.create(**ASK)

    begun = time.monotonic()
    with deaf() as url, pytest.raises(StreamTimeout, match="no connection to http://127") as caught:
        sync(url) if way == "sync" else anyio.run(main, url, backend=way)
    took = time.monotonic() - begun
    assert (caught.value.timer, caught.value.seconds, caught.value.phase) == ("connect", TIMER, "connect")
    assert (caught.value.run, caught.value.partial, caught.value.retryable) == (None, None, True)
    assert TIMER * (1 + retries) <= took < TIMER * (1 + retries) + GRACE


@faces(SOME)
def test_stream_when_handlers_are_slow_is_no_timeout(face: str, way: str) -> None:
    """A handler may take longer than any timer, sync and async."""
    timeouts = Timeouts(first_event=TIMER, idle=TIMER, total=0.3)
    flow = Dispatcher(timeout=None if face == "client" else timeouts)

    @flow.on(TextDelta)
    def slow(event: TextDelta) -> None:
        if way == "sync" or event.delta == "a":
            threading.Event().wait(0.2)

    if way != "sync":

        @flow.on(TextDelta)
        async def slower(event: TextDelta) -> None:
            if event.delta == "b":
                await anyio.sleep(0.2)

    def at_once(peer: Peer) -> None:
        peer.head(200, HEAD)
        peer.send(b"".join(chunked(block(event)) for event in AB) + b"0\r\n\r\n")

    with Server(at_once) as server:
        seen = drive(server, face, way, flow=flow, timeouts=timeouts)
    assert seen.error is None
    assert seen.run is not None
    assert (seen.run.status, seen.run.text) == ("completed", "ab")
    assert seen.took >= 0.4


@faces(SOME)
def test_stream_when_the_first_event_may_take_longer_than_others_is_waited_for(face: str, way: str) -> None:
    """A model that thinks before it speaks: idle does not count before the first event."""

    def late(peer: Peer) -> None:
        time.sleep(0.3)
        peer.chunk(body(AB))
        peer.chunk(b"")

    with Server(sse([], then=late)) as server:
        seen = drive(server, face, way, timeouts=Timeouts(first_event=60, idle=0.15), max_retries=0)
    assert seen.error is None
    assert seen.run is not None
    assert (seen.run.status, seen.run.text) == ("completed", "ab")


@faces(CLIENT)
def test_timeouts_when_the_dispatcher_has_some_are_the_dispatchers(face: str, way: str) -> None:
    """What a dispatcher was given goes before what the client was given, stricter or not."""

    def late(peer: Peer) -> None:
        time.sleep(0.3)
        peer.chunk(block(completed()))

    with Server(sse(AB[:3], then=late)) as server:
        flow = Dispatcher(timeout=Timeouts(idle=60))
        seen = drive(server, face, way, flow=flow, timeouts=Timeouts(idle=0.1))
        assert seen.error is None
    with Server(sse(AB[:3], then=Peer.wait)) as server:
        flow = Dispatcher(timeout=Timeouts(idle=TIMER))
        seen = drive(server, face, way, flow=flow, timeouts=Timeouts(idle=60))
        check_error(seen, StreamTimeout, "timeout", "a", timer="idle")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_response_when_its_client_has_a_timeout_of_its_own_is_interrupted(library: str, way: str) -> None:
    """What a plain client was told itself is not ours: its timeout is a failure of the transport."""
    module = LIBRARIES[library]
    flow = Dispatcher()

    def sync(url: str) -> Run:
        with module.Client(timeout=TIMER, verify=False) as client:
            return flow.run(client.send(client.build_request("POST", url), stream=True), check=False)

    async def main(url: str) -> Run:
        async with module.AsyncClient(timeout=TIMER, verify=False) as client:
            return await flow.arun(await client.send(client.build_request("POST", url), stream=True), check=False)

    with Server(sse(AB[:3], then=Peer.wait)) as server:
        run = sync(server.url) if way == "sync" else anyio.run(main, server.url, backend=way)
    assert (run.status, type(run.error), run.text) == ("truncated", StreamInterrupted, "a")
    assert isinstance(run.error, StreamInterrupted)
    assert type(run.error.__cause__) is module.ReadTimeout


def check_retries(face: str, way: str, first: Answer) -> None:
    """By default a timeout of the *first* answer is told at once; `retry_timeouts` tries again."""
    timeouts = Timeouts(first_event=0.3)
    with Server(first, sse(AB)) as server:
        seen = drive(server, face, way, timeouts=timeouts)
        assert type(seen.error) is StreamTimeout
        assert len(server.requests) == 1
    with Server(first, sse(AB)) as server:
        seen = drive(server, face, way, timeouts=timeouts, retry_timeouts=True)
        assert seen.error is None
        assert seen.run is not None
        assert (seen.run.status, seen.run.text, seen.run.events) == ("completed", "ab", len(AB))
        assert len(server.requests) == 2


@faces(CLIENT)
def test_timeout_before_the_head_when_asked_for_is_retried(face: str, way: str) -> None:
    """A server that never answered may be asked again, where that is wanted."""
    check_retries(face, way, silence)


@faces(CLIENT)
def test_timeout_before_the_first_event_when_asked_for_is_retried(face: str, way: str) -> None:
    """Nothing was heard of the answer, so that another may take its place, where that is wanted."""
    check_retries(face, way, sse([], then=Peer.wait))


@faces(CLIENT)
def test_timeout_after_an_event_when_retries_are_asked_for_is_told(face: str, way: str) -> None:
    """What was heard cannot be unheard: a stream that has begun is not begun again."""
    with Server(sse(AB[:3], then=Peer.wait), sse(AB)) as server:
        seen = drive(server, face, way, timeouts=Timeouts(idle=TIMER), retry_timeouts=True)
    check_error(seen, StreamTimeout, "timeout", "a", timer="idle")
    assert len(server.requests) == 1


@faces(CLIENT)
def test_total_when_used_up_is_not_retried(face: str, way: str) -> None:
    """Where no time is left, another request could only be thrown away."""
    with Server(sse([], then=Peer.wait)) as server:
        seen = drive(server, face, way, timeouts=Timeouts(total=TIMER), retry_timeouts=True)
    check_error(seen, StreamTimeout, "timeout", "", timer="total")
    assert len(server.requests) == 1


@faces(CLIENT)
def test_total_when_a_stream_is_resumed_goes_on(face: str, way: str) -> None:
    """All the waiting for one stream together: that for the first answer is part of it to the end."""
    asked: list[float] = []

    def first(peer: Peer) -> None:
        time.sleep(0.25)
        time.sleep(0.25)
        sse([b"id: %d\n" % number + block(event) for number, event in enumerate(AB[:3])], end=b"")(peer)

    def second(peer: Peer) -> None:
        asked.append(time.monotonic())
        sse([b"id: 3\n" + block(delta("b"))], then=chatter)(peer)

    with Server(first, second) as server:
        seen = drive(server, face, way, timeouts=Timeouts(total=0.8), resume=True)
    assert seen.run is not None
    assert seen.run.text.startswith("a")
    check_error(seen, StreamTimeout, "timeout", seen.run.text, timer="total", seconds=0.8)
    assert seen.took >= 0.8
    assert seen.ended - asked[0] < 0.8


@faces(CLIENT)
def test_total_when_a_stream_cannot_be_resumed_in_time_names_it(face: str, way: str) -> None:
    """Where the second answer does not come within the total, that is what ran out, and not the resumption."""
    first = sse([b"id: %d\n" % number + block(event) for number, event in enumerate(AB[:3])], end=b"")
    with Server(first, silence) as server:
        seen = drive(server, face, way, timeouts=Timeouts(total=TIMER), resume=True)
    check_error(seen, StreamTimeout, "timeout", "a", timer="total", seconds=TIMER)
    assert TIMER <= seen.took < TIMER + GRACE


@faces(CLIENT)
def test_stream_when_a_timer_is_larger_than_any_clock_is_served(face: str, way: str) -> None:
    """A number of seconds that no system call takes is as good as for ever."""
    with Server(sse(AB)) as server:
        seen = drive(server, face, way, timeouts=Timeouts(first_event=1e12, idle=1e12))
    assert seen.error is None


# --- endings ---------------------------------------------------------------------------------------------------------


def headed(data: bytes, *lines: bytes) -> Answer:
    """An event stream with more lines in its head; *data* as it is, then the end of the connection."""
    head = [b"HTTP/1.1 200 OK", b"content-type: text/event-stream", b"x-request-id: req_1", *lines, b"", b""]
    return raw(b"\r\n".join(head) + data)


def packed(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> Answer:
    """A body that says it is gzip, in chunks."""
    return sse(pieces, end=end, headers={"content-encoding": "gzip"})


A = body(AB[:3])
NOISE = bytes(place * 7919 % 251 for place in range(4000)).replace(b"\n", b" ")
ZIPPED = gzip.compress(A + b": " + NOISE + b"\n\n" + body(AB[3:]), 1)
SPLIT = len(ZIPPED) // 2  # behind the first events
CUT = StreamInterrupted, "truncated", "a", {"phase": "stream", "retryable": True}
SHORT = StreamTruncated, "truncated", "a", {"phase": "stream", "retryable": True}
CORRUPT = DecodeError, "failed", "a", {"phase": "decode", "retryable": False}


def told(code: str | None, message: str, *, retryable: bool, **attributes: Any) -> tuple[Any, ...]:
    """What the API's own error is."""
    attributes = {"code": code, "request_id": "req_1", "phase": "stream", "retryable": retryable, **attributes}
    return APIStreamError, "failed", "a", {**attributes, "match": message}


def reporting(*events: JSON | bytes) -> Answer:
    """A stream that reports an error and ends."""
    return sse([*AB[:3], *events], headers={"x-request-id": "req_1"})


NESTED = {"type": "error", "error": {"type": "server_error", "code": "overloaded", "message": "too much"}}
ENDINGS: dict[str, tuple[Answer, tuple[Any, ...]]] = {
    "clean end without a terminal event": (sse(AB[:3]), SHORT),
    "clean end in the middle of an event": (sse([*AB[:3], block(AB[3])[:30]]), SHORT),
    "empty body": (sse([]), (StreamTruncated, "truncated", "", {"phase": "stream", "retryable": True})),
    "empty body of a known length": (
        headed(b"", b"content-length: 0"),
        (StreamTruncated, "truncated", "", {"phase": "stream", "retryable": True}),
    ),
    "cut in the middle of an event": (sse([*AB[:3], block(AB[3])[:30]], end=b""), CUT),
    "cut between two events": (sse(AB[:3], end=b""), CUT),
    "cut before the first event": (
        sse([], end=b""),
        (StreamInterrupted, "truncated", "", {"phase": "stream", "retryable": True}),
    ),
    "reset": (sse(AB[:3], then=Peer.abort), CUT),
    "broken chunk": (sse(AB[:3], end=b"zzz\r\n"), CUT),
    "chunk cut short": (headed(b"fff\r\n" + A, b"transfer-encoding: chunked"), CUT),
    "shorter than its length": (headed(A, b"content-length: 100000"), CUT),
    "end of the connection is the end of the body": (headed(A), SHORT),
    "corrupt gzip": (packed(ZIPPED[:SPLIT], b"\xff" * 3000 + ZIPPED[SPLIT:]), CORRUPT),
    "no gzip at all": (
        packed(A),
        (DecodeError, "failed", "", {"phase": "decode", "retryable": False}),
    ),
    "cut gzip": (
        packed(ZIPPED[:SPLIT]),
        (*SHORT[:3], {**SHORT[3], "match": "the compressed body was cut off"}),
    ),
    "cut gzip of a cut connection": (packed(ZIPPED[:SPLIT], end=b""), CUT),
    "flat error": (reporting(error()), told("rate_limit_exceeded", "slow down", retryable=True)),
    "flat error of the caller": (
        reporting({"type": "error", "code": "invalid_prompt", "message": "no", "param": "input"}),
        told("invalid_prompt", "no", retryable=False, param="input"),
    ),
    "nested error": (reporting(NESTED), told("overloaded", "too much", retryable=True, type="server_error")),
    "bare error": (
        reporting(b'data: {"error": {"message": "out of memory", "type": "server_error"}}\n\n'),
        told(None, "out of memory", retryable=True, type="server_error"),
    ),
    "error that is a string": (
        reporting(b'data: {"error": "model not loaded"}\n\n'),
        told(None, "model not loaded", retryable=False),
    ),
    "error that is plain text": (
        reporting(b"event: error\ndata: upstream is gone\n\n"),
        told(None, "upstream is gone", retryable=False),
    ),
    "response.failed": (reporting(failed()), told("server_error", "it broke", retryable=True)),
    "response.failed without a reason": (reporting(failed(None)), told(None, "no reason given", retryable=False)),
    "error, then response.failed": (
        reporting(error("first", "told first"), failed("server_error", "told last")),
        told("server_error", "told last", retryable=True),
    ),
    "error, then the connection is cut": (
        sse([*AB[:3], error()], headers={"x-request-id": "req_1"}, then=Peer.abort),
        told("rate_limit_exceeded", "slow down", retryable=True),
    ),
    "error, then silence": (
        sse([*AB[:3], error()], headers={"x-request-id": "req_1"}, then=Peer.wait),
        told("rate_limit_exceeded", "slow down", retryable=True),
    ),
}


@faces(SOME)
@pytest.mark.parametrize("ending", ENDINGS)
def test_stream_when_it_ends_badly_says_how(face: str, way: str, ending: str) -> None:
    """Each bad ending has its error, which carries what was received; a request that was heard is not sent twice."""
    answer, (kind, state, text, attributes) = ENDINGS[ending]
    attributes = dict(attributes)
    match = attributes.pop("match", "")
    with Server(answer) as server:
        seen = drive(server, face, way, max_retries=2 if text else 0)
    check_error(seen, kind, state, text, **attributes)
    assert match in str(seen.error)
    assert len(server.requests) == 1
    assert seen.error is not None
    assert (seen.error.__cause__ is not None) is (kind in (StreamInterrupted, DecodeError))
    assert seen.took < 0.2 + GRACE


PAGE = b"<html>\x1b[31mout of order</html>"
REFUSALS: dict[int, tuple[dict[str, str], float | None, bool]] = {
    400: ({}, None, False),
    401: ({"retry-after": "1"}, 1.0, False),
    404: ({}, None, False),
    408: ({}, None, True),
    409: ({}, None, True),
    422: ({}, None, False),
    429: ({"retry-after": "7"}, 7.0, True),
    500: ({}, None, True),
    503: ({"retry-after-ms": "250", "retry-after": "9"}, 0.25, True),
}


@faces(SOME)
@pytest.mark.parametrize("code", REFUSALS)
def test_answer_when_it_is_an_http_error_says_which(face: str, way: str, code: int) -> None:
    """An HTTP error has its status, the start of its page, the request's id, and when to come again."""
    headers, retry_after, retryable = REFUSALS[code]
    page = status(code, headers={"content-type": "text/html", "x-request-id": "req_9", **headers}, page=PAGE)
    with Server(page) as server:
        seen = drive(server, face, way, max_retries=0)
    error = seen.error
    assert isinstance(error, HTTPStatusError)
    assert (error.status, error.request_id, error.retry_after, error.retryable) == (
        code,
        "req_9",
        retry_after,
        retryable,
    )
    assert (error.excerpt, error.phase) == ("<html>\\x1b[31mout of order</html>", "headers")
    assert f"HTTP {code}" in str(error)
    assert "out of order" in str(error)
    if face == "client":  # there was no run yet
        assert (error.run, error.partial) == (None, None)
    else:
        check_error(seen, HTTPStatusError, "failed", "")


@faces(SOME)
@pytest.mark.parametrize(
    ("answer", "content_type", "excerpt"),
    [
        pytest.param(
            document(PAGE, headers={"content-type": "text/html"}),
            "text/html",
            "<html>\\x1b[31mout of order</html>",
            id="HTML",
        ),
        pytest.param(document({"id": "resp_1"}), "application/json", '{"id": "resp_1"}', id="JSON"),
        pytest.param(raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "", "", id="204"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), "", "", id="nothing"),
    ],
)
def test_answer_when_it_is_no_stream_says_what(
    face: str, way: str, answer: Answer, content_type: str, excerpt: str
) -> None:
    """A success that is no event stream is an error that shows how it begins: never an empty success."""
    with Server(answer) as server:
        seen = drive(server, face, way)
    check_error(
        seen,
        UnexpectedContentType,
        "failed",
        "",
        content_type=content_type,
        excerpt=excerpt,
        phase="headers",
        retryable=False,
    )
    assert len(server.requests) == 1


@faces(SOME)
@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/octet-stream", "x"])
def test_answer_when_its_type_is_wrong_but_its_body_is_right_is_accepted(
    face: str, way: str, content_type: str
) -> None:
    """Servers that name their streams wrongly are read all the same, event by event."""
    with Server(sse(AB, headers={"content-type": content_type}, then=Peer.wait)) as server:
        seen = drive(server, face, way)
    assert seen.took < GRACE  # the body never ends
    assert seen.error is None
    assert seen.run is not None
    assert (seen.run.status, seen.run.text) == ("completed", "ab")


@faces(ALL)
def test_stream_when_the_socket_stays_open_behind_the_terminal_event_is_left(face: str, way: str) -> None:
    """The terminal event is the end: what never follows is not waited for, and the connection is closed."""
    ended: list[float] = []
    flow = Dispatcher()
    flow.on("response.completed", lambda event: ended.append(time.monotonic()))
    with Server(sse(AB, then=Peer.wait)) as server:
        seen = drive(server, face, way, flow=flow, leaves=True)
    assert seen.error is None
    assert seen.run is not None
    assert (seen.run.status, seen.run.text) == ("completed", "ab")
    assert seen.ended - ended[0] < 0.5
    assert seen.left


@faces(SOME)
def test_stream_when_bytes_follow_the_terminal_event_ignores_them(face: str, way: str) -> None:
    """Nothing behind the terminal event is heard, be it an event, an error or rubbish."""
    heard: list[str] = []
    flow = Dispatcher()
    flow.on("*", lambda event: heard.append(event.type))
    rest = [delta("zzz"), error(), completed(), b"event: what\ndata: {\n\n", b"\xff\xfe", b": " + b"x" * 100_000]
    for script in (sse([*AB, *rest]), sse([body(AB) + body([delta("zzz"), error()]), *rest]), sse(AB, end=b"zz\r\n")):
        heard.clear()
        with Server(script) as server:
            seen = drive(server, face, way, flow=flow)
        assert seen.error is None
        assert seen.run is not None
        assert (seen.run.status, seen.run.text, seen.run.warnings) == ("completed", "ab", ())
        assert heard == [event["type"] for event in AB]


@faces(SOME)
def test_stream_when_the_connection_is_cut_behind_the_terminal_event_is_whole(face: str, way: str) -> None:
    """A response that is whole is whole, however its connection ends."""
    for script in (sse(AB, end=b""), sse(AB, then=Peer.abort), sse([body(AB)[:-1]])):
        with Server(script) as server:
            seen = drive(server, face, way)
        assert seen.error is None
        assert seen.run is not None
        assert (seen.run.status, seen.run.text) == ("completed", "ab")


@pytest.mark.parametrize("way", WAYS)
def test_connection_when_a_stream_was_whole_is_used_again(way: str) -> None:
    """A stream that has come to its end gives its connection back."""

    async def main(server: Server) -> None:
        async with AsyncClient(base_url=server.url) as client:
            for _ in range(3):
                await Dispatcher().arun(await client.responses.create(**ASK))

    with Server(sse(AB)) as server:
        if way == "sync":
            with Client(base_url=server.url) as client:
                for _ in range(3):
                    Dispatcher().run(client.responses.create(**ASK))
        else:
            anyio.run(main, server, backend=way)
        assert (len(server.requests), server.connections) == (3, 1)


# --- leaving ---------------------------------------------------------------------------------------------------------


class Boom(Exception):
    pass


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No thread of ours is left behind a test."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("eventflow-"):
            thread.join(1)
            assert not thread.is_alive()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection: what is let go of, is let go of by itself."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()  # a socket that was left open is a warning here


class Leaving:
    """A server that begins an answer and waits; it tells whether its client leaves in time."""

    def __init__(self, events: int = 3) -> None:
        self.server = Server(sse(AB[:events], then=Peer.wait) if events else silence)
        self.left_from = 0.0

    def now(self) -> None:
        """The client begins to leave."""
        self.left_from = time.monotonic()

    def check(self) -> None:
        """The server has seen it, soon after."""
        assert self.server.left.wait(GONE)
        assert self.server.left_at is not None
        assert self.left_from > 0
        assert self.server.left_at - self.left_from < GONE

    async def acheck(self) -> None:
        """`check`, while the event loop goes on."""
        await anyio.to_thread.run_sync(self.check)


def is_delta(event: Event) -> bool:
    """Whether it is time to leave."""
    return isinstance(event, TextDelta)


def failing(leaving: Leaving) -> tuple[Dispatcher, list[Run]]:
    """A handler raises."""
    flow, runs = Dispatcher(), list[Run]()

    @flow.on(TextDelta)
    def fail(event: TextDelta, run: Run) -> None:
        runs.append(run)
        leaving.now()
        raise Boom

    return flow, runs


def cancelling(leaving: Leaving) -> Dispatcher:
    """A handler cancels the run."""
    flow = Dispatcher()

    @flow.on(TextDelta)
    def cancel(event: TextDelta, run: Run) -> None:
        leaving.now()
        run.cancel()

    return flow


def cancelling_from_a_thread(leaving: Leaving) -> tuple[Dispatcher, list[threading.Timer]]:
    """Another thread does, which waits a moment."""
    flow, timers = Dispatcher(), list[threading.Timer]()

    @flow.on(TextDelta)
    def soon(event: TextDelta, run: Run) -> None:
        def cancel() -> None:
            leaving.now()
            run.cancel()

        timers.append(threading.Timer(0.05, cancel))
        timers[0].start()

    return flow, timers


def noting() -> tuple[Dispatcher, list[Run], anyio.Event]:
    """A handler tells that the run is under way."""
    flow, runs, heard = Dispatcher(), list[Run](), anyio.Event()

    @flow.on(TextDelta)
    def note(event: TextDelta, run: Run) -> None:
        runs.append(run)
        heard.set()

    return flow, runs, heard


def _break(leaving: Leaving, source: Any) -> Run:
    stream = Dispatcher().stream(source)
    for event in stream:
        if is_delta(event):
            leaving.now()
            break
    return stream.run


def _break_of_the_stream_itself(leaving: Leaving, source: Any) -> Run:
    for event in source:
        if is_delta(event):
            leaving.now()
            break
    return source.run  # type: ignore[no-any-return]


def _break_in_with(leaving: Leaving, source: Any) -> Run:
    with Dispatcher().stream(source) as events:
        for event in events:
            if is_delta(event):
                leaving.now()
                break
    return events.run


def _raise_in_loop(leaving: Leaving, source: Any) -> Run:
    stream = Dispatcher().stream(source)
    with contextlib.suppress(Boom):
        for event in stream:
            if is_delta(event):
                leaving.now()
                raise Boom
    return stream.run


def _raise_in_handler(leaving: Leaving, source: Any) -> Run:
    flow, runs = failing(leaving)
    with pytest.raises(Boom):
        flow.run(source)
    return runs[0]


def _interrupt_in_handler(leaving: Leaving, source: Any) -> Run:
    flow, runs = Dispatcher(), list[Run]()

    @flow.on(TextDelta)
    def fail(event: TextDelta, run: Run) -> None:
        runs.append(run)
        leaving.now()
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        flow.run(source)
    return runs[0]


def interrupt_later(leaving: Leaving, seconds: float = 0.05) -> threading.Timer:
    """Ctrl-C for the main thread, while it waits."""

    def interrupt() -> None:
        leaving.now()
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(seconds, interrupt)
    timer.start()
    return timer


def _interrupt_in_wait(leaving: Leaving, source: Any) -> Run:
    flow, runs, timers = Dispatcher(), list[Run](), list[threading.Timer]()

    @flow.on(TextDelta)
    def soon(event: TextDelta, run: Run) -> None:
        runs.append(run)
        timers.append(interrupt_later(leaving))

    with pytest.raises(KeyboardInterrupt):
        flow.run(source)
    timers[0].join()
    return runs[0]


def _cancel_in_handler(leaving: Leaving, source: Any) -> Run:
    return cancelling(leaving).run(source)


def _cancel_from_a_thread(leaving: Leaving, source: Any) -> Run:
    flow, timers = cancelling_from_a_thread(leaving)
    run = flow.run(source)
    timers[0].join()
    return run


def _timer(leaving: Leaving, source: Any) -> Run:
    flow = Dispatcher(timeout=Timeouts(idle=TIMER))
    flow.on(TextDelta, lambda event: leaving.now())
    run = flow.run(source, check=False)
    leaving.left_from += TIMER
    return run


SYNC_WAYS_OUT: dict[str, tuple[Callable[[Leaving, Any], Run], str]] = {
    "break": (_break, "cancelled"),
    "break of a client's stream": (_break_of_the_stream_itself, "cancelled"),
    "break in a with block": (_break_in_with, "cancelled"),
    "exception in the loop": (_raise_in_loop, "cancelled"),
    "exception in a handler": (_raise_in_handler, "failed"),
    "Ctrl-C in a handler": (_interrupt_in_handler, "cancelled"),
    "Ctrl-C in a wait": (_interrupt_in_wait, "cancelled"),
    "cancel() in a handler": (_cancel_in_handler, "cancelled"),
    "cancel() in another thread": (_cancel_from_a_thread, "cancelled"),
    "a timer": (_timer, "timeout"),
}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, whoever runs these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("uncollected", "interruptible")
@pytest.mark.parametrize(
    ("way_out", "face"),
    [(way_out, face) for way_out in SYNC_WAYS_OUT for face in FACES if face == "client" or "client" not in way_out],
)
def test_sync_stream_when_it_is_left_closes_the_connection(face: str, way_out: str) -> None:
    """On each way out the server sees its client go, before the client is closed and without garbage collection."""
    leave, state = SYNC_WAYS_OUT[way_out]
    leaving = Leaving()
    with leaving.server, opening(leaving.server, face) as source:
        run = leave(leaving, source)
        assert run.status == state
        assert run.text == "a"
        leaving.check()


async def _abreak(leaving: Leaving, source: Any) -> Run:
    stream = Dispatcher().astream(source)
    async for event in stream:
        if is_delta(event):
            leaving.now()
            break
    return stream.run


async def _abreak_in_with(leaving: Leaving, source: Any) -> Run:
    async with Dispatcher().astream(source) as events:
        async for event in events:
            if is_delta(event):
                leaving.now()
                break
    return events.run


async def _araise_in_with(leaving: Leaving, source: Any) -> Run:
    stream = Dispatcher().astream(source)
    with contextlib.suppress(Boom):
        async with stream as events:
            async for event in events:
                if is_delta(event):
                    leaving.now()
                    raise Boom
    return stream.run


async def _araise_in_handler(leaving: Leaving, source: Any) -> Run:
    flow, runs = failing(leaving)
    with pytest.raises(Boom):
        await flow.arun(source)
    return runs[0]


async def _araise_in_async_handler(leaving: Leaving, source: Any) -> Run:
    flow, runs = Dispatcher(), list[Run]()

    @flow.on(TextDelta)
    async def fail(event: TextDelta, run: Run) -> None:
        runs.append(run)
        await anyio.sleep(0.01)
        leaving.now()
        raise Boom

    with pytest.raises(Boom):
        await flow.arun(source)
    return runs[0]


async def _acancel_scope(leaving: Leaving, source: Any, in_handler: bool = False) -> Run:
    flow, runs = Dispatcher(), list[Run]()
    heard = anyio.Event()

    @flow.on(TextDelta)
    async def note(event: TextDelta, run: Run) -> None:
        runs.append(run)
        heard.set()
        if in_handler:
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(flow.arun, source)
        await heard.wait()
        await anyio.sleep(0.05)
        leaving.now()
        group.cancel_scope.cancel()
    return runs[0]


async def _acancel_scope_in_handler(leaving: Leaving, source: Any) -> Run:
    return await _acancel_scope(leaving, source, in_handler=True)


async def _acancel_task(leaving: Leaving, source: Any) -> Run:
    flow, runs, heard = noting()
    task = asyncio.create_task(flow.arun(source))
    await heard.wait()
    await asyncio.sleep(0.05)
    leaving.now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return runs[0]


async def _acancel_in_handler(leaving: Leaving, source: Any) -> Run:
    return await cancelling(leaving).arun(source)


async def _acancel_from_a_task(leaving: Leaving, source: Any) -> Run:
    flow, runs, heard = noting()

    async def cancel() -> None:
        await heard.wait()
        await anyio.sleep(0.05)
        leaving.now()
        runs[0].cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(cancel)
        return await flow.arun(source)


async def _acancel_from_a_thread(leaving: Leaving, source: Any) -> Run:
    flow, timers = cancelling_from_a_thread(leaving)
    run = await flow.arun(source)
    await anyio.to_thread.run_sync(timers[0].join)
    return run


async def _atimer(leaving: Leaving, source: Any) -> Run:
    flow = Dispatcher(timeout=Timeouts(idle=TIMER))
    flow.on(TextDelta, lambda event: leaving.now())
    run = await flow.arun(source, check=False)
    leaving.left_from += TIMER
    return run


ASYNC_WAYS_OUT: dict[str, tuple[Callable[[Leaving, Any], Any], str, tuple[str, ...]]] = {
    "break": (_abreak, "cancelled", ("asyncio",)),  # under trio a loop needs the block
    "break in an async with block": (_abreak_in_with, "cancelled", ("asyncio", "trio")),
    "exception in the loop": (_araise_in_with, "cancelled", ("asyncio", "trio")),
    "exception in a handler": (_araise_in_handler, "failed", ("asyncio", "trio")),
    "exception in an async handler": (_araise_in_async_handler, "failed", ("asyncio", "trio")),
    "cancelled scope": (_acancel_scope, "cancelled", ("asyncio", "trio")),
    "cancelled scope while a handler waits": (_acancel_scope_in_handler, "cancelled", ("asyncio", "trio")),
    "cancelled task": (_acancel_task, "cancelled", ("asyncio",)),
    "cancel() in a handler": (_acancel_in_handler, "cancelled", ("asyncio", "trio")),
    "cancel() in another task": (_acancel_from_a_task, "cancelled", ("asyncio", "trio")),
    "cancel() in another thread": (_acancel_from_a_thread, "cancelled", ("asyncio", "trio")),
    "a timer": (_atimer, "timeout", ("asyncio", "trio")),
}


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    ("way_out", "backend"), [(way_out, backend) for way_out, (*_, ways) in ASYNC_WAYS_OUT.items() for backend in ways]
)
@pytest.mark.parametrize("face", FACES)
def test_async_stream_when_it_is_left_closes_the_connection(face: str, way_out: str, backend: str) -> None:
    """The same in an async run; the task goes on undisturbed."""
    leave, state, _ = ASYNC_WAYS_OUT[way_out]
    leaving = Leaving()

    async def main() -> None:
        async with aopening(leaving.server, face) as source:
            run = await leave(leaving, source)
            await leaving.acheck()
            assert run.status == state
            assert run.text == "a"

    with leaving.server:
        anyio.run(main, backend=backend)


@pytest.mark.usefixtures("uncollected")
@faces(SOME)
def test_stream_when_it_is_left_at_its_terminal_event_is_whole(face: str, way: str) -> None:
    """Leaving then changes nothing: the run is completed, and the connection may serve again."""

    def sync(server: Server) -> Run:
        with opening(server, face) as source, Dispatcher().stream(source) as events:
            for event in events:
                if event.type == "response.completed":
                    break
        return events.run

    async def main(server: Server) -> Run:
        async with aopening(server, face) as source, Dispatcher().astream(source) as events:
            async for event in events:
                if event.type == "response.completed":
                    break
        return events.run

    for script in (sse(AB), sse(AB, then=Peer.wait)):
        with Server(script) as server:
            run = sync(server) if way == "sync" else anyio.run(main, server, backend=way)
        assert (run.status, run.error, run.text) == ("completed", None, "ab")


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_client_stream_when_it_is_left_by_itself_closes_the_connection(backend: str) -> None:
    """A client's own stream in an async block, without a dispatcher."""
    leaving = Leaving()

    async def main() -> None:
        async with aopening(leaving.server, "client") as stream:
            async with stream:
                async for event in stream:
                    if is_delta(event):
                        leaving.now()
                        break
            await leaving.acheck()
            assert stream.run.status == "cancelled"

    with leaving.server:
        anyio.run(main, backend=backend)


@pytest.mark.usefixtures("uncollected")
def test_client_stream_when_a_loop_is_left_in_asyncio_closes_the_connection() -> None:
    """A bare break out of a client's own stream."""
    leaving = Leaving()

    async def main() -> None:
        async with aopening(leaving.server, "client") as stream:
            async for event in stream:
                if is_delta(event):
                    leaving.now()
                    break
            await leaving.acheck()
            assert stream.run.status == "cancelled"

    with leaving.server:
        asyncio.run(main())


@pytest.mark.parametrize("face", FACES)
def test_task_when_it_leaves_at_the_terminal_event_goes_on_undisturbed(face: str) -> None:
    """Whoever breaks at the end of a stream whose socket stays open is not cancelled for it."""

    async def main(server: Server) -> None:
        async with aopening(server, face) as source:
            async for event in Dispatcher().astream(source):
                if event.type == "response.completed":
                    break
            await asyncio.sleep(0.2)

    with Server(sse(AB, then=Peer.wait)) as server:
        asyncio.run(main(server))


@pytest.mark.usefixtures("uncollected", "interruptible")
@pytest.mark.parametrize("way", ["sync", "asyncio", "trio", "task"])
def test_request_when_it_is_left_before_the_head_closes_the_connection(way: str) -> None:
    """Ctrl-C, a cancelled scope and a cancelled task end the wait for an answer too."""
    leaving = Leaving(0)

    def sync() -> None:
        with Client(base_url=leaving.server.url) as client:
            timer = interrupt_later(leaving)
            with pytest.raises(KeyboardInterrupt):
                client.responses.create(**ASK)
            leaving.check()
            timer.join()

    async def main() -> None:
        async with AsyncClient(base_url=leaving.server.url) as client:
            if way == "task":
                task = asyncio.create_task(client.responses.create(**ASK))
                await asyncio.sleep(0.1)
                leaving.now()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(partial(client.responses.create, **ASK))
                    await anyio.sleep(0.1)
                    leaving.now()
                    group.cancel_scope.cancel()
            await leaving.acheck()

    with leaving.server:
        sync() if way == "sync" else anyio.run(main, backend="trio" if way == "trio" else "asyncio")
    assert len(leaving.server.requests) == 1


# --- backpressure and memory -----------------------------------------------------------------------------------------

PIECE = block(delta("x" * 2**16))


class Flood:
    """An answer of many MiB, as fast as they are taken; it gives up when nothing goes any more."""

    def __init__(self, mebibytes: int, patience: float) -> None:
        self._patience = patience  # seconds, for each piece
        self.pieces = mebibytes * 16
        self.sent = 0
        self.stuck = threading.Event()

    def __call__(self, peer: Peer) -> None:
        peer.head(200, HEAD)
        for event in (created(), opened()):
            peer.chunk(block(event))
        peer.patience(self._patience)
        try:
            for _ in range(self.pieces):
                peer.chunk(PIECE)
                self.sent += len(PIECE)
        except TimeoutError:
            peer.closes = True
            self.stuck.set()
            peer.wait()
            return
        peer.chunk(block(completed()))
        peer.chunk(b"")


@pytest.fixture
def measured(untraced: None) -> Iterator[None]:
    """Memory is measured."""
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("measured")
@faces([("client", "sync"), ("client", "asyncio"), ("client", "trio"), ("httpx", "sync"), ("httpx2", "asyncio")])
def test_server_when_nobody_reads_cannot_send(face: str, way: str) -> None:
    """A consumer that does not read stops the server: nothing is read ahead, and memory stays flat."""
    flood = Flood(50, patience=0.3)

    def sync() -> None:
        with opening(server, face) as source, Dispatcher().stream(source) as events:
            for event in events:
                if is_delta(event):
                    tracemalloc.reset_peak()
                    assert flood.stuck.wait(5)
                    break

    async def main() -> None:
        async with aopening(server, face) as source, Dispatcher().astream(source) as events:
            async for event in events:
                if is_delta(event):
                    tracemalloc.reset_peak()
                    assert await anyio.to_thread.run_sync(flood.stuck.wait, 5)
                    break

    with Server(flood) as server:
        before = tracemalloc.get_traced_memory()[0]
        sync() if way == "sync" else anyio.run(main, backend=way)
        peak = tracemalloc.get_traced_memory()[1] - before
        assert server.left.wait(GONE)
    assert flood.sent < flood.pieces * len(PIECE) / 3  # what the system's own buffers hold, a few MiB
    assert peak < 2 * 2**20


@pytest.mark.usefixtures("measured")
@faces([("client", "sync"), ("client", "asyncio"), ("client", "trio"), ("httpx", "sync"), ("httpx2", "asyncio")])
def test_memory_when_a_relay_reads_everything_stays_flat(face: str, way: str) -> None:
    """20 MiB go through a dispatcher that keeps no text, a few at a time."""
    flow = Dispatcher(snapshot=False)
    sizes: list[int] = []
    flow.on(TextDelta, lambda event: sizes.append(len(event.delta)))
    flood = Flood(20, patience=5)
    with Server(flood) as server:
        before = tracemalloc.get_traced_memory()[0]
        seen = drive(server, face, way, flow=flow)
        peak = tracemalloc.get_traced_memory()[1] - before
    assert seen.error is None
    assert sum(sizes) == 20 * 2**20
    assert flood.sent == flood.pieces * len(PIECE)
    assert peak < 4 * 2**20
