"""Everything that may be a source, and what is none: bytes, files, iterables, HTTP responses of httpx and httpx2."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from scenarios import AsyncWatched, Watched, answer, block, body, completed, created, delta, deltas, error, failed

from eventflow import Dispatcher, Limits, Run, collect
from eventflow.errors import (
    APIStreamError,
    DecodeError,
    EventflowError,
    HTTPStatusError,
    LimitExceeded,
    StreamInterrupted,
    StreamTruncated,
    UnexpectedContentType,
    UsageError,
)
from eventflow.events import encode_json
from eventflow.sources import open_source
from eventflow.sse import Frame

# httpx leaves generators of its own behind when a body is left early, which trio warns of; ours must not be among them
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")

AB = answer("a", "b")
BODY = body(AB)
LONG = body(answer(*(f"word {number} " for number in range(3000))))
CLIENTS = [httpx, httpx2]
SSE = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": "req_1"}


def gzipped(data: bytes) -> bytes:
    """*data* as gzip."""
    return gzip.compress(data, 1)


def deflated(data: bytes, window: int = 15) -> bytes:
    """*data* as deflate, in the format that *window* says."""
    engine = zlib.compressobj(wbits=window)
    return engine.compress(data) + engine.flush()


# --- bytes, files, iterables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [BODY, bytearray(BODY), memoryview(BODY), memoryview(bytearray(BODY)), LONG, bytearray(LONG)]
)
def test_source_when_it_is_bytes(data: Any) -> None:
    """Bytes of any kind are a body, however long, in sync and async runs."""
    text = collect(bytes(data)).output_text
    assert text
    assert Dispatcher().run(data).text == text
    assert asyncio.run(Dispatcher().arun(data)).text == text


def test_source_when_it_is_a_path(tmp_path: Path) -> None:
    """A path, as object or text, is opened, read and closed, however the run ends."""
    path = tmp_path / "stream.sse"
    path.write_bytes(LONG)
    for source in (path, str(path)):
        assert Dispatcher().run(source).events == 3005
        for _ in Dispatcher().stream(source):
            break  # an unclosed file would be a warning, and warnings are errors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_source_when_it_is_a_file_of_anyio_or_trio(tmp_path: Path, backend: str, buffering: int) -> None:
    """It passes the methods of the plain file on, but is read as what it is, from where it stands, and left open."""
    path = tmp_path / "stream.sse"
    path.write_bytes(b"skipped" + LONG)

    async def read(opened: Any) -> None:
        async with opened as file:
            await file.read(7)
            assert (await Dispatcher().arun(file)).events == 3005
            assert await file.read(1) == b""  # a closed one would raise
            with pytest.raises(UsageError, match="asynchronous"):
                Dispatcher().run(file)

    async def main() -> None:
        await read(await anyio.open_file(path, "rb", buffering=buffering))
        if backend == "trio":
            await read(await trio.open_file(path, "rb", buffering=buffering))
        async with await anyio.open_file(path) as text:
            with pytest.raises(UsageError, match="open it in binary"):
                await Dispatcher().arun(text)

    anyio.run(main, backend=backend)


def test_source_when_it_only_passes_methods_on_is_what_its_class_says() -> None:
    """An attribute ``__iter__`` that the class does not have is nothing that can be iterated."""

    class Passing:
        def __init__(self, to: Any) -> None:
            self._to = to

        def __getattr__(self, name: str) -> Any:
            return getattr(self._to, name)

    class Events(Passing):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield BODY

    assert asyncio.run(Dispatcher().arun(Events([b"other"]))).text == "ab"
    with pytest.raises(UsageError, match="asynchronous"):
        Dispatcher().run(Events([b"other"]))
    with pytest.raises(UsageError, match="Passing is no source"):
        Dispatcher().run(Passing([BODY]))
    with pytest.raises(UsageError, match="Passing is no source"):
        asyncio.run(Dispatcher().arun(Passing(Events(BODY))))


def test_source_when_it_is_a_path_in_an_async_run(tmp_path: Path) -> None:
    """A path serves an async run, and is closed by it."""
    path = tmp_path / "stream.sse"
    path.write_bytes(BODY)
    assert asyncio.run(Dispatcher().arun(path)).text == "ab"


def test_source_when_it_is_an_open_file(tmp_path: Path) -> None:
    """An open binary file is read from where it stands, and left open for who opened it."""
    path = tmp_path / "stream.sse"
    path.write_bytes(b"skipped" + BODY)
    with open(path, "rb") as file:
        file.read(7)
        assert Dispatcher().run(file).text == "ab"
        assert not file.closed
    with open(path, "rb", buffering=0) as raw:
        raw.read(7)
        assert Dispatcher().run(raw).text == "ab"
    memory = io.BytesIO(BODY)
    assert asyncio.run(Dispatcher().arun(memory)).text == "ab"
    assert not memory.closed


def test_source_when_it_is_a_pipe() -> None:
    """What a pipe has is read when it comes: an event is heard before the next one is written."""
    reading, writing = os.pipe()
    heard: list[str] = []
    flow = Dispatcher()
    rest = iter(map(block, AB[1:]))
    os.write(writing, block(AB[0]))

    @flow.on("*")
    def write_next(event: Any) -> None:
        heard.append(event.type)
        chunk = next(rest, None)
        if chunk is not None:
            os.write(writing, chunk)

    try:
        with open(reading, "rb") as pipe:
            assert flow.run(pipe).text == "ab"
    finally:
        os.close(writing)
    assert len(heard) == len(AB)


FORMS: dict[str, Callable[[], list[Any]]] = {
    "bytes": lambda: [BODY[:100], BODY[100:]],
    "bytearrays": lambda: [bytearray(BODY[:100]), bytearray(BODY[100:])],
    "frames": lambda: [Frame(event["type"], encode_json(event).decode()) for event in AB],
    "mappings": lambda: list(AB),
    "events": lambda: list(Dispatcher().stream(AB)),
}


@pytest.mark.parametrize("form", FORMS)
def test_source_when_it_is_an_iterable(form: str) -> None:
    """Lists, iterators, generators of bytes, frames, mappings, events; sync in both runs, async in an async one."""

    def generate() -> Iterator[Any]:
        yield from FORMS[form]()

    async def agenerate() -> AsyncIterator[Any]:
        for item in FORMS[form]():
            yield item

    for source in (FORMS[form](), tuple(FORMS[form]()), iter(FORMS[form]()), generate(), Watched(FORMS[form]())):
        assert Dispatcher().run(source).text == "ab"
    for asource in (FORMS[form](), generate(), agenerate(), AsyncWatched(FORMS[form]())):
        assert asyncio.run(Dispatcher().arun(asource)).text == "ab"


def test_source_when_it_is_an_iterable_is_closed() -> None:
    """A generator is closed when the run is left, also one behind an object; an async one is awaited."""
    ended: list[str] = []

    def generate() -> Iterator[bytes]:
        try:
            yield from map(block, AB)
        finally:
            ended.append("sync")

    async def agenerate() -> AsyncIterator[bytes]:
        try:
            for event in AB:
                yield block(event)
        finally:
            await asyncio.sleep(0)
            ended.append("async")

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return generate()

    async def main() -> None:
        async with Dispatcher().astream(agenerate()) as events:
            cursor = aiter(events)
            await anext(cursor)

    for source in (generate(), Body()):
        for _ in Dispatcher().stream(source):
            break
    asyncio.run(main())
    assert ended == ["sync", "sync", "async"]


def test_source_when_it_is_an_iterator_with_a_plain_close() -> None:
    """An async source whose ``close`` is a plain method is closed too; one without any needs none."""

    class Plain:
        closed = 0

        def __init__(self) -> None:
            self.items = iter(map(block, AB))

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            for item in self.items:
                return item
            raise StopAsyncIteration

        def close(self) -> None:
            self.closed += 1

    class Bare:
        def __init__(self) -> None:
            self.items = iter(map(block, AB))

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            return next(self.items)

    plain = Plain()
    assert asyncio.run(Dispatcher().arun(plain)).text == "ab"
    assert plain.closed == 1
    assert asyncio.run(Dispatcher().arun(Bare())).text == "ab"


# --- what is no source -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "NoneType is no source; a source is an HTTP response, a path"),
        (3, "int is no source"),
        (object(), "object is no source"),
        ({"type": "x"}, r"one dict is no source; put it in a list"),
        (Frame(), "one Frame is no source"),
        (next(iter(Dispatcher().stream(AB))), "one ResponseCreated is no source"),
        ("no/such/file.sse", r"cannot open the source 'no/such/file.sse': No such file"),
        ("event: x\ndata: {}\n\n", r"text\.encode\(\)"),
        ("a\0b", r"a str as source is a path"),
        (io.StringIO("event: x"), "open it in binary"),
        ([3], "not int"),
        (["text"], r"the response itself"),
        ([None], "not NoneType"),
        ([b"", [b"x"]], "not list"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_source_when_it_is_none(source: Any, message: str, is_async: bool) -> None:
    """What is no source, or yields what no source may, is a named error that says what would be one."""
    call = (lambda: asyncio.run(Dispatcher().arun(source))) if is_async else (lambda: Dispatcher().run(source))
    with pytest.raises(UsageError, match=message):
        call()


def test_source_when_it_is_a_class() -> None:
    """A class in place of its instance is no source, whatever its instances can do."""
    for source in (Dispatcher, list, io.BytesIO, Path):
        with pytest.raises(UsageError, match="is no source"):
            Dispatcher().run(source)


def test_source_when_it_cannot_be_read(tmp_path: Path) -> None:
    """A folder is a named error; a file that is read asynchronously too; a text file as well."""
    with pytest.raises(UsageError, match="cannot open the source"):
        Dispatcher().run(tmp_path)

    class AsyncFile:
        async def read(self, size: int) -> bytes:
            return b""

    with pytest.raises(UsageError, match="AsyncFile gives coroutine, not bytes"):
        Dispatcher().run(AsyncFile())

    class Odd:
        def read(self, size: int) -> object:
            return 3

    with pytest.raises(UsageError, match="Odd gives int, not bytes"):
        Dispatcher().run(Odd())
    path = tmp_path / "page.txt"
    path.write_text("# Not a stream\n\nBut a page.\n", encoding="utf-8")
    with pytest.raises(DecodeError, match=r"no event stream.*# Not a stream"):
        Dispatcher().run(path)
    path.write_bytes(b"")
    with pytest.raises(StreamTruncated, match="0 events"):
        Dispatcher().run(path)


def test_source_when_a_file_fails_midway() -> None:
    """A read that fails is an interruption, with what was received."""

    class Failing:
        reads = 0

        def read(self, size: int) -> bytes:
            self.reads += 1
            if self.reads > 1:
                raise OSError(5, "Input/output error")
            return body(AB[:3])

    with pytest.raises(StreamInterrupted, match="Input/output error") as caught:
        Dispatcher().run(Failing())
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"


# --- responses without a network -------------------------------------------------------------------------------------


class Body:
    """The stream of a response, sync and async; counts how often it is closed."""

    def __init__(self, library: Any, chunks: list[bytes], fault: Exception | None = None) -> None:
        outer = self
        self.closed = 0

        class Sync(library.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                yield from chunks
                if fault is not None:
                    raise fault

            def close(self) -> None:
                outer.closed += 1

        class Async(library.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for chunk in chunks:
                    yield chunk
                if fault is not None:
                    raise fault

            async def aclose(self) -> None:
                outer.closed += 1

        self.sync = Sync()
        self.asynchronous = Async()


def client_for(library: Any, stream: Body, status: int = 200, headers: dict[str, str] | None = None) -> tuple[Any, Any]:
    """Clients, sync and async, whose every answer is *stream*."""

    def answer_it(request: Any) -> Any:
        return library.Response(status, headers=SSE if headers is None else headers, stream=stream.sync)

    async def answer_async(request: Any) -> Any:
        return library.Response(status, headers=SSE if headers is None else headers, stream=stream.asynchronous)

    return (
        library.Client(transport=library.MockTransport(answer_it)),
        library.AsyncClient(transport=library.MockTransport(answer_async)),
    )


def both(
    library: Any,
    chunks: list[bytes],
    *,
    check: bool = True,
    fault: Exception | None = None,
    flow: Any = None,
    **options: Any,
) -> list[Run]:
    """The runs over a streamed answer, sync and async; the answer is closed by each."""
    stream = Body(library, chunks, fault)
    client, aclient = client_for(library, stream, **options)
    flow = Dispatcher() if flow is None else flow
    runs: list[Run] = []
    errors: list[Exception] = []

    async def main() -> None:
        async with aclient:
            response = await aclient.send(aclient.build_request("POST", "http://test/"), stream=True)
            runs.append(await flow.arun(response, check=check))
            assert response.is_closed

    def sync() -> None:
        with client:
            response = client.send(client.build_request("POST", "http://test/"), stream=True)
            runs.append(flow.run(response, check=check))
            assert response.is_closed

    for call in (sync, lambda: asyncio.run(main())):
        try:
            call()
        except EventflowError as error:
            errors.append(error)
    assert stream.closed == 2
    if errors:
        assert len(errors) == 2
        assert type(errors[0]) is type(errors[1])
        assert str(errors[0]) == str(errors[1])
        raise errors[0]
    return runs


@pytest.mark.parametrize("library", CLIENTS)
def test_response_when_streamed(library: Any) -> None:
    """A streamed response of either library is read raw and closed, sync and async."""
    for run in both(library, [BODY[:50], BODY[50:]]):
        assert (run.status, run.text) == ("completed", "ab")


@pytest.mark.parametrize("library", CLIENTS)
def test_response_when_read_already(library: Any) -> None:
    """A response that was read before serves too, in either kind of run."""
    client, _ = client_for(library, Body(library, [gzipped(BODY)]), headers={**SSE, "content-encoding": "gzip"})
    with client:
        response = client.get("http://test/")
        assert Dispatcher().run(response).text == "ab"
        assert asyncio.run(Dispatcher().arun(response)).text == "ab"
    made = library.Response(200, headers=SSE, content=BODY)
    assert Dispatcher().run(made).text == "ab"


@pytest.mark.parametrize("library", CLIENTS)
@pytest.mark.parametrize("how", ["run", "left", "read", "closed"])
def test_response_when_nothing_of_it_is_left(library: Any, how: str) -> None:
    """A streamed response that was read or closed, before the run or since it was opened, is wrong use, no cut."""
    what = "closed" if how == "closed" else "read"
    refused = partial(pytest.raises, UsageError, match=f"the response was {what} already.*send the request again")
    stream, flow = Body(library, [BODY[:50], BODY[50:]]), Dispatcher()
    client, aclient = client_for(library, stream)

    with client:
        response = client.send(client.build_request("POST", "http://test/"), stream=True)
        opened = flow.stream(response)
        if how == "left":
            for _ in flow.stream(response):
                break
        elif how == "read":
            next(response.iter_bytes())
        elif how == "closed":
            response.close()
        else:
            flow.run(response)
        with refused():
            flow.run(response, check=False)
        with refused():
            list(opened)

    async def main() -> None:
        async with aclient:
            response = await aclient.send(aclient.build_request("POST", "http://test/"), stream=True)
            opened = flow.astream(response)
            if how == "left":
                async with flow.astream(response) as events:
                    async for _ in events:
                        break
            elif how == "read":
                async with aclosing(response.aiter_bytes()) as chunks:
                    await anext(chunks)
            elif how == "closed":
                await response.aclose()
            else:
                await flow.arun(response)
            with refused():
                await flow.arun(response, check=False)
            with refused():
                [event async for event in opened]

    asyncio.run(main())


@pytest.mark.parametrize("library", CLIENTS)
def test_response_when_it_is_a_stream_not_yet_entered(library: Any) -> None:
    """``client.stream(...)`` is entered by the run and left at its end, sync and async."""
    stream = Body(library, [BODY])
    client, aclient = client_for(library, stream)
    with client:
        assert Dispatcher().run(client.stream("POST", "http://test/")).text == "ab"
        assert stream.closed == 1
        for _ in Dispatcher().stream(client.stream("POST", "http://test/")):
            break
        assert stream.closed == 2

    async def main() -> None:
        async with aclient:
            assert (await Dispatcher().arun(aclient.stream("POST", "http://test/"))).text == "ab"

    asyncio.run(main())
    assert stream.closed == 3


@pytest.mark.parametrize("library", CLIENTS)
def test_response_when_the_client_is_of_the_other_kind(library: Any) -> None:
    """A sync response in an async run, and the reverse, are errors that say what to use; the response is closed."""
    stream = Body(library, [BODY])
    client, aclient = client_for(library, stream)

    async def main() -> None:
        async with aclient:
            response = await aclient.send(aclient.build_request("GET", "http://test/"), stream=True)
            with pytest.raises(UsageError, match="asynchronous; use arun"):
                Dispatcher().run(response)
            with pytest.raises(UsageError, match="asynchronous; use arun"):
                Dispatcher().run(aclient.stream("GET", "http://test/"))
            await response.aclose()
        with client:
            other = client.send(client.build_request("GET", "http://test/"), stream=True)
            with pytest.raises(UsageError, match="synchronous HTTP response; use run"):
                await Dispatcher().arun(other)
            assert other.is_closed

    asyncio.run(main())


@pytest.mark.parametrize("library", CLIENTS)
def test_response_when_its_status_is_an_error(library: Any) -> None:
    """An HTTP error has its status, the start of its page, the request's id, and when to come again."""
    headers = {"content-type": "application/json", "x-request-id": "req_9", "retry-after": "7"}
    page = b'{"error": {"message": "slow down \x1b[31m"}}'
    with pytest.raises(HTTPStatusError, match="HTTP 429") as caught:
        both(library, [page], status=429, headers=headers)
    found = caught.value
    assert (found.status, found.request_id, found.retry_after, found.retryable) == (429, "req_9", 7.0, True)
    assert found.phase == "headers"
    assert "slow down" in found.excerpt
    assert "\x1b" not in found.excerpt + str(found)


@pytest.mark.parametrize(
    ("status", "headers", "retryable", "retry_after"),
    [
        (500, {}, True, None),
        (503, {"retry-after-ms": "250", "retry-after": "9"}, True, 0.25),
        (529, {"retry-after": "1.5"}, True, 1.5),
        (429, {"retry-after": "-3"}, True, None),
        (429, {"retry-after": "soon"}, True, None),
        (429, {"retry-after-ms": "soon", "retry-after": "2"}, True, 2.0),
        (401, {"content-type": "text/event-stream"}, False, None),
        (404, {}, False, None),
        (301, {"location": "http://elsewhere/"}, False, None),
    ],
)
def test_response_when_its_status_is(
    status: int, headers: dict[str, str], retryable: bool, retry_after: float | None
) -> None:
    """Which statuses are worth another try, and what of ``Retry-After`` is understood."""
    for chunks in ([], [b"x" * 10_000], [b"data: {}\n\n"]):
        with pytest.raises(HTTPStatusError) as caught:
            both(httpx, chunks, status=status, headers=headers)
        assert (caught.value.status, caught.value.retryable) == (status, retryable)
        assert caught.value.retry_after == retry_after
        assert len(caught.value.excerpt) <= 4097


def test_retry_after_when_it_is_a_date() -> None:
    """``Retry-After`` may be a date: then it is the seconds until it, never less than none."""
    for date, least, most in (("Fri, 31 Dec 2100 23:59:59 GMT", 1e8, 1e10), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0)):
        with pytest.raises(HTTPStatusError) as caught:
            both(httpx, [], status=503, headers={"retry-after": date})
        assert caught.value.retry_after is not None
        assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize(
    ("page", "content_type"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "text/html"),
        (b"<html>", "text/html; charset=utf-8"),
        (b'{"id": "resp_1", "output": []}', "application/json"),
        (b"", "application/json"),
        (b"", ""),
        (b"plain words", "text/plain"),
    ],
)
@pytest.mark.parametrize("library", CLIENTS)
def test_response_when_it_is_no_stream(library: Any, page: bytes, content_type: str) -> None:
    """A page with status 200 is an error that shows its type and its start: never an empty success."""
    headers = {"content-type": content_type} if content_type else {}
    with pytest.raises(UnexpectedContentType, match="HTTP 200") as caught:
        both(library, [page], headers=headers)
    assert caught.value.content_type == content_type
    assert caught.value.excerpt == page.decode()
    assert caught.value.phase == "headers"


def test_response_when_it_is_no_stream_in_small_pieces() -> None:
    """The start of a page is shown however it is cut."""
    page = b"<!DOCTYPE html><html><body>Sign in</body></html>"
    with pytest.raises(UnexpectedContentType, match="Sign in") as caught:
        both(httpx, [page[place : place + 1] for place in range(len(page))], headers={"content-type": "text/html"})
    assert caught.value.excerpt == page.decode()


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}, {"content-type": "application/octet-stream"}])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b": hello\n\n", b"\n", b"id: 1\n", b"retry: 3\n\n", b"\r\n"])
def test_response_when_its_type_is_wrong_but_its_body_is_right(headers: dict[str, str], start: bytes) -> None:
    """A body that begins as event streams do is one, whatever its type says, in any chunks."""
    data = start + BODY
    for chunks in ([data], [data[place : place + 1] for place in range(len(data))]):
        for run in both(httpx, chunks, headers=headers):
            assert run.text == "ab"


def test_response_when_its_body_ends_early() -> None:
    """A short body is truncated, an empty one too; a body that fails is interrupted."""
    with pytest.raises(StreamTruncated):
        both(httpx, [body(AB[:3])])
    with pytest.raises(StreamTruncated, match="0 events"):
        both(httpx, [])
    with pytest.raises(StreamInterrupted, match="ReadError: cut") as caught:
        both(httpx, [body(AB[:3])], fault=httpx.ReadError("cut"))
    assert isinstance(caught.value.__cause__, httpx.ReadError)
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"


def test_response_when_the_api_reports_an_error() -> None:
    """The API's error carries the id of the request."""
    with pytest.raises(APIStreamError) as caught:
        both(httpx, [body([*AB[:3], error()])])
    assert caught.value.request_id == "req_1"


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzipped),
        ("x-gzip", gzipped),
        ("GZIP", gzipped),
        ("deflate", deflated),
        ("identity", bytes),
        ("", bytes),
        ("identity, gzip", gzipped),
    ],
)
def test_response_when_compressed(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    """What is compressed though nobody asked for it is inflated, in any chunks."""
    packed = pack(BODY)
    for chunks in ([packed], [packed[place : place + 1] for place in range(len(packed))]):
        for run in both(httpx, chunks, headers={**SSE, "content-encoding": encoding}):
            assert run.text == "ab"
    for run in both(httpx, [pack(LONG)], headers={**SSE, "content-encoding": encoding}):
        assert run.events == 3005


def test_response_when_deflated_without_a_header() -> None:
    """What some servers call deflate lacks the header that the standard asks for; that is read as well."""
    packed = deflated(BODY, -15)
    for chunks in ([packed], [packed[place : place + 1] for place in range(len(packed))]):
        for run in both(httpx, chunks, headers={**SSE, "content-encoding": "deflate"}):
            assert run.text == "ab"


@given(data=st.data())
def test_response_when_compressed_and_cut_anywhere(data: st.DataObject) -> None:
    """However a compressed body is cut, it inflates to the same."""
    packed = gzipped(BODY)
    place = data.draw(st.integers(0, len(packed)))
    headers = {**SSE, "content-encoding": "gzip"}
    response = httpx.Response(200, headers=headers, stream=Body(httpx, [packed[:place], packed[place:]]).sync)
    assert Dispatcher().run(response).text == "ab"


@given(data=st.data())
def test_response_when_compressed_in_several_members(data: st.DataObject) -> None:
    """A body of gzip may be several, one behind the other, and cut anywhere; what is none behind them says nothing."""
    places = sorted(data.draw(st.lists(st.integers(0, len(BODY)), max_size=3)))
    members = [gzipped(BODY[start:end]) for start, end in pairwise([0, *places, len(BODY)])]
    packed = b"".join(members) + data.draw(st.sampled_from([b"", bytes(9), b"padding", b"padding" + gzipped(b"more")]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=5)))
    chunks = [packed[start:end] for start, end in pairwise([0, *cuts, len(packed)])]
    headers = {**SSE, "content-encoding": "gzip"}
    for cut in (chunks, [packed[place : place + 1] for place in range(len(packed))]):
        run = Dispatcher().run(httpx.Response(200, headers=headers, stream=Body(httpx, cut).sync))
        assert (run.text, run.events) == ("ab", len(AB))


@pytest.mark.parametrize("left", [1, 2, 5, 20])
def test_response_when_its_second_member_is_cut(left: int) -> None:
    """What it would have brought is missing, though the first one is whole."""
    chunks = [gzipped(body(AB[:3])), gzipped(body(AB[3:]))[:left]]
    for pieces in (chunks, [b"".join(chunks)]):
        with pytest.raises(StreamTruncated, match="the compressed body was cut off"):
            both(httpx, pieces, headers={**SSE, "content-encoding": "gzip"})


def test_response_when_its_members_are_bombs() -> None:
    """The bound is that of the body, however many members bring it, and however little each is."""
    headers = {**SSE, "content-encoding": "gzip"}
    bomb = gzipped(b"event: response.created\ndata: ") + gzipped(b"x" * 2**18) * 40
    with pytest.raises(LimitExceeded, match="event_bytes") as caught:
        both(httpx, [bomb], headers=headers, flow=Dispatcher(limits=Limits(event_bytes=2**20)))
    assert caught.value.seen < 2**20 + 2**18
    for run in both(httpx, [gzipped(b"") * 5000 + gzipped(BODY)], headers=headers):
        assert run.text == "ab"


def test_response_when_compressed_by_something_else() -> None:
    """An encoding that is not read here is an error that says what to ask for."""
    for encoding in ("br", "zstd", "gzip, gzip"):
        with pytest.raises(DecodeError, match="Accept-Encoding: identity"):
            both(httpx, [BODY], headers={**SSE, "content-encoding": encoding})


def test_response_when_its_compression_is_broken() -> None:
    """A compressed body that is corrupt or cut is an error; what was inflated before is kept."""
    headers = {**SSE, "content-encoding": "gzip"}
    packed = gzipped(LONG)
    with pytest.raises(EventflowError) as cut:
        both(httpx, [packed[: len(packed) // 2]], headers=headers)
    assert isinstance(cut.value, StreamTruncated | DecodeError)
    assert cut.value.partial is not None
    assert cut.value.partial.output_text.startswith("word 0 word 1 ")
    with pytest.raises(DecodeError, match="corrupt"):
        both(httpx, [b"no gzip at all, but text"], headers=headers)
    engine = zlib.compressobj(wbits=31)
    begun = engine.compress(BODY[: BODY.index(b"event: response.completed")]) + engine.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(DecodeError, match="corrupt") as garbled:  # in one piece with what is whole
        both(httpx, [begun + b"\xff" * 100], headers=headers)
    assert garbled.value.partial is not None
    assert garbled.value.partial.output_text == "ab"
    broken = bytearray(packed)
    broken[len(packed) // 2 :] = bytes(len(packed) - len(packed) // 2)
    with pytest.raises(DecodeError):
        both(httpx, [bytes(broken)], headers=headers)


def test_response_when_it_is_a_bomb() -> None:
    """A small body that inflates to a huge event ends with the limit, before the memory is spent."""
    engine = zlib.compressobj(9, wbits=31)
    bomb = engine.compress(b"event: response.created\ndata: ")
    bomb += b"".join(engine.compress(b"x" * 2**20) for _ in range(64)) + engine.flush()
    assert len(bomb) < 100_000
    headers = {**SSE, "content-encoding": "gzip"}
    with pytest.raises(LimitExceeded, match="event_bytes") as caught:
        both(httpx, [bomb], headers=headers, flow=Dispatcher(limits=Limits(event_bytes=2**20)))
    assert caught.value.seen < 2**20 + 2**18


def test_response_when_an_error_page_is_endless() -> None:
    """Of an error page only the start is read."""
    pulled: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            pulled.append(1)
            yield b"x" * 1000

    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return endless()

    for status, kind in ((500, HTTPStatusError), (200, UnexpectedContentType)):
        pulled.clear()
        with pytest.raises(kind):
            Dispatcher().run(httpx.Response(status, headers={"content-type": "text/html"}, stream=Endless()))
        assert len(pulled) < 10


def test_response_when_only_its_shape_is_known() -> None:
    """Any object with the shape of a response serves: status, headers, raw bytes, ``close``."""

    class Foreign:
        status_code = 200
        headers: dict[str, str] = SSE  # a fake
        closed = 0

        def iter_raw(self) -> Iterator[bytes]:
            yield BODY

        def close(self) -> None:
            self.closed += 1

    class AsyncForeign:
        status_code = 200
        headers: dict[str, str] = SSE  # a fake
        closed = 0

        async def aiter_raw(self) -> AsyncIterator[bytes]:
            yield BODY

        async def aclose(self) -> None:
            self.closed += 1

    foreign, asynchronous = Foreign(), AsyncForeign()
    assert Dispatcher().run(foreign).text == "ab"
    assert asyncio.run(Dispatcher().arun(asynchronous)).text == "ab"
    assert (foreign.closed, asynchronous.closed) == (1, 1)


def test_context_manager_when_it_gives_no_source() -> None:
    """A context manager is entered and left though what it gives is no source."""
    log: list[str] = []

    @contextmanager
    def manager() -> Iterator[int]:
        log.append("entered")
        yield 3
        log.append("never")

    class Manager:
        def __enter__(self) -> int:
            log.append("entered")
            return 3

        def __exit__(self, *_: object) -> None:
            log.append("left")

    with pytest.raises(EventflowError, match="int is no source"):
        Dispatcher().run(Manager())
    assert log == ["entered", "left"]

    class Bytes(Manager):
        def __enter__(self) -> Any:
            return io.BytesIO(BODY)

    assert Dispatcher().run(Bytes()).text == "ab"


def test_context_manager_when_it_is_async_and_gives_a_sync_source() -> None:
    """What an async context manager gives may be any source."""

    class Manager:
        async def __aenter__(self) -> list[bytes]:
            return [BODY]

        async def __aexit__(self, *_: object) -> None:
            """Nothing to leave."""

    assert asyncio.run(Dispatcher().arun(Manager())).text == "ab"


def test_context_manager_when_it_is_sync_and_gives_an_async_source() -> None:
    """A sync run cannot read what a context manager gives if that is async; it says so."""

    class Manager:
        def __enter__(self) -> AsyncWatched:
            return AsyncWatched(AB)

        def __exit__(self, *_: object) -> None:
            """Nothing to leave."""

    with pytest.raises(UsageError, match="asynchronous; use arun"):
        Dispatcher().run(Manager())


def test_source_when_it_is_none_and_nothing_is_checked() -> None:
    """``check=False`` is for the stream's own failures: wrong use is raised all the same."""
    with pytest.raises(UsageError, match="open it in binary"):
        Dispatcher().run(io.StringIO("text"), check=False)


def test_source_when_it_is_one_of_ours() -> None:
    """A `Source` is a source: what was opened need not be opened again."""
    assert Dispatcher().run(open_source(BODY)).text == "ab"


def test_source_when_empty_chunks_come() -> None:
    """Chunks without bytes are nothing, compressed or not."""
    for run in both(httpx, [b"", BODY[:9], b"", BODY[9:], b""]):
        assert run.text == "ab"
    packed = gzipped(BODY)
    for run in both(httpx, [b"", packed[:9], b"", packed[9:]], headers={**SSE, "content-encoding": "gzip"}):
        assert run.text == "ab"


@pytest.mark.parametrize("data", [bytearray(body(AB[:3])), memoryview(body(AB[:3]))])
def test_source_when_its_bytes_end_early(data: Any) -> None:
    """Bytes of any kind that end early are truncated."""
    assert Dispatcher().run(data, check=False).status == "truncated"


def test_response_when_read_already_and_no_stream() -> None:
    """A response that was read before is judged like any other, in either kind of run."""
    page = httpx.Response(500, headers={"content-type": "text/html"}, content=b"<html>" * 1000)
    html = httpx.Response(200, headers={"content-type": "text/html"}, content=b"<html>" * 1000)
    short = httpx.Response(200, headers={}, content=b":\n\n")
    for response, kind in ((page, HTTPStatusError), (html, UnexpectedContentType), (short, StreamTruncated)):
        with pytest.raises(kind):
            Dispatcher().run(response)
        with pytest.raises(kind):
            asyncio.run(Dispatcher().arun(response))


def test_response_when_cancelled_without_a_socket() -> None:
    """A run over a response that has no socket is cancelled like any other."""
    client, _ = client_for(httpx, Body(httpx, [body(AB[:3]), body(AB[3:])]))
    flow = Dispatcher()
    flow.on("response.output_text.delta", lambda event, run: run.cancel())
    with client:
        assert flow.run(client.stream("GET", "http://test/")).status == "cancelled"


def test_response_when_it_is_short_and_says_nothing_of_itself() -> None:
    """A body too short to be sure of, without a type, is what it seems to be."""
    with pytest.raises(StreamTruncated):
        both(httpx, [b":\n\n"], headers={})


# --- a real server on loopback ---------------------------------------------------------------------------------------


class Server:
    """Answers each connection on loopback with what *script* writes; remembers when its peer left."""

    def __init__(self, script: Callable[[Server, socket.socket], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.left = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1/responses"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        socket.create_connection(self._listener.getsockname()[:2]).close()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    got = connection.recv(65536)
                    if not got:
                        return
                    head += got
                try:
                    self._script(self, connection)
                except OSError:
                    self.left.set()

    def wait(self, connection: socket.socket) -> None:
        """Until the peer has left."""
        connection.settimeout(2)
        try:
            if not connection.recv(1):
                self.left.set()
        except TimeoutError:
            return


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_7\r\n"


def chunk(data: bytes) -> bytes:
    """*data* as one chunk of HTTP/1.1."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def serve_chunked(pieces: list[bytes], *, headers: bytes = b"", end: bytes = b"0\r\n\r\n") -> Any:
    """A script that sends *pieces* as HTTP chunks, then *end*."""

    def script(server: Server, connection: socket.socket) -> None:
        connection.sendall(HEAD + headers + b"transfer-encoding: chunked\r\n\r\n")
        for piece in pieces:
            connection.sendall(chunk(piece))
        connection.sendall(end)

    return script


def run_over(url: str, library: Any, way: str, **options: Any) -> Run:
    """Run what *url* answers, in one of four ways."""
    flow = Dispatcher(**options)
    if way == "sync":
        with library.Client() as client, client.stream("POST", url) as response:
            return flow.run(response)
    if way == "unentered":
        with library.Client() as client:
            return flow.run(client.stream("POST", url))

    async def main() -> Run:
        async with library.AsyncClient() as client, client.stream("POST", url) as response:
            return await flow.arun(response)

    result: Run = anyio.run(main, backend=way)
    return result


@pytest.mark.parametrize("way", ["sync", "unentered", "asyncio", "trio"])
@pytest.mark.parametrize("library", CLIENTS)
def test_server_when_it_streams(library: Any, way: str) -> None:
    """A chunked answer over a real socket, one event a chunk."""
    with Server(serve_chunked(list(map(block, AB)))) as server:
        run = run_over(server.url, library, way)
    assert (run.status, run.text) == ("completed", "ab")


@pytest.mark.parametrize("way", ["sync", "asyncio"])
@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzipped), ("deflate", deflated)])
def test_server_when_it_compresses(encoding: str, pack: Any, way: str) -> None:
    """An answer compressed all the same."""
    packed = pack(LONG)
    pieces = [packed[start : start + 999] for start in range(0, len(packed), 999)]
    with Server(serve_chunked(pieces, headers=f"content-encoding: {encoding}\r\n".encode())) as server:
        assert run_over(server.url, httpx, way).events == 3005


@pytest.mark.parametrize("way", ["sync", "unentered", "asyncio", "trio"])
@pytest.mark.parametrize("library", CLIENTS)
@pytest.mark.parametrize("end", ["cut", "garbage", "short"])
def test_server_when_the_connection_is_cut(end: str, library: Any, way: str) -> None:
    """A connection cut within the body is an interruption that carries all that was received."""

    def short(server: Server, connection: socket.socket) -> None:
        connection.sendall(HEAD + b"content-length: 100000\r\n\r\n" + body(AB[:3]))

    script = short if end == "short" else serve_chunked([body(AB[:3])], end=b"" if end == "cut" else b"zzz\r\n")
    with Server(script) as server, pytest.raises(StreamInterrupted) as caught:
        run_over(server.url, library, way)
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"
    assert caught.value.__cause__ is not None
    assert caught.value.run is not None
    assert caught.value.run.status == "truncated"


@pytest.mark.parametrize("way", ["sync", "asyncio"])
def test_server_when_it_answers_with_an_error(way: str) -> None:
    """An HTTP error of a real server, with its page and when to come again."""

    def script(server: Server, connection: socket.socket) -> None:
        page = b"<html>out of order</html>"
        connection.sendall(
            b"HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\nretry-after: 3\r\nx-request-id: req_8\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(page), page)
        )

    with Server(script) as server, pytest.raises(HTTPStatusError) as caught:
        run_over(server.url, httpx, way)
    assert (caught.value.status, caught.value.retry_after, caught.value.request_id) == (500, 3.0, "req_8")
    assert "out of order" in caught.value.excerpt


@pytest.mark.parametrize("way", ["sync", "unentered", "asyncio", "trio"])
def test_server_when_it_lingers_after_an_error_event(way: str) -> None:
    """After an error event a silent server is left within 0.2 s, in sync runs too."""

    def script(server: Server, connection: socket.socket) -> None:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(body([*AB[:3], error()])))
        server.wait(connection)

    begun = time.monotonic()
    with Server(script) as server:
        with pytest.raises(APIStreamError):
            run_over(server.url, httpx, way)
        assert time.monotonic() - begun < 2
        assert server.left.wait(2)


@pytest.mark.parametrize(
    "way",
    [
        "sync",
        "asyncio",
        "unentered",
    ],
)
def test_server_when_its_api_reports_an_error(way: str) -> None:
    """The API's error names the request of a real server, however the response came into the run."""
    with Server(serve_chunked([body([*AB[:3], error(), failed()])])) as server, pytest.raises(APIStreamError) as caught:
        run_over(server.url, httpx, way)
    assert caught.value.request_id == "req_7"


@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
def test_server_when_it_lingers_after_the_end(way: str) -> None:
    """The terminal event is the end: the run does not wait for the body's."""

    def script(server: Server, connection: socket.socket) -> None:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(BODY))
        server.wait(connection)

    begun = time.monotonic()
    with Server(script) as server:
        assert run_over(server.url, httpx, way).status == "completed"
        assert time.monotonic() - begun < 2
        assert server.left.wait(2)


@pytest.mark.parametrize(
    "entered",
    [
        True,
        False,
    ],
)
def test_server_when_a_run_is_cancelled_from_another_thread(entered: bool) -> None:
    """A sync run that waits for a real server is ended at once by `cancel` from another thread."""

    def script(server: Server, connection: socket.socket) -> None:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(body(AB[:3])))
        server.wait(connection)

    timers: list[threading.Timer] = []
    flow = Dispatcher()

    @flow.on("response.output_text.delta")
    def soon(event: Any, run: Run) -> None:
        timers.append(threading.Timer(0.05, run.cancel))
        timers[0].start()

    begun = time.monotonic()
    with Server(script) as server, httpx.Client() as client:
        if entered:
            with client.stream("POST", server.url) as response:
                run = flow.run(response)
        else:
            run = flow.run(client.stream("POST", server.url))
        assert (run.status, run.error, run.text) == ("cancelled", None, "a")
        assert server.left.wait(2)
    timers[0].join()
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("way", ["break", "raise", "cancel"])
def test_server_when_the_consumer_leaves(way: str) -> None:
    """The server sees the connection go at once, without garbage collection, on each way out."""

    def script(server: Server, connection: socket.socket) -> None:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(body(AB[:3])))
        server.wait(connection)

    async def main(url: str, server: Server) -> None:
        async with httpx.AsyncClient() as client:
            request = client.build_request("POST", url)
            response = await client.send(request, stream=True)
            with anyio.move_on_after(0.1):
                await Dispatcher().arun(response)
            assert server.left.wait(2)

    with Server(script) as server:
        if way == "cancel":
            anyio.run(main, server.url, server)
            return
        with httpx.Client() as client:
            response = client.send(client.build_request("POST", server.url), stream=True)
            try:
                for _ in Dispatcher().stream(response):
                    if way == "raise":
                        raise KeyError
                    break
            except KeyError:
                pass
            assert server.left.wait(2)


def test_source_when_made_of_all_sizes() -> None:
    """Events of 1 byte to 1 MiB come whole through bytes, file-likes and chunks of any size."""
    sizes = [1, 100, 65_535, 65_536, 65_537, 1_000_000]
    whole = body([created(), *(delta("x" * size) for size in sizes), completed()])
    for source in (whole, io.BytesIO(whole), [whole[start : start + 4096] for start in range(0, len(whole), 4096)]):
        lengths: list[int] = []
        flow = Dispatcher()
        flow.on("response.output_text.delta", lambda event, lengths=lengths: lengths.append(len(event.delta)))
        assert flow.run(source).events == len(sizes) + 2
        assert lengths == sizes
    assert len(deltas("a", "b")) == 2


def test_source_when_its_iterator_is_a_generator_closes_both() -> None:
    """A source with a ``close`` of its own is closed, though its iterator has one too."""
    closed: list[str] = []

    class Stream:
        def __iter__(self) -> Iterator[bytes]:
            try:
                yield from (BODY[place : place + 1] for place in range(len(BODY)))
            finally:
                closed.append("iterator")

        def close(self) -> None:
            closed.append("source")

    for _ in Dispatcher().stream(Stream()):
        break
    assert closed == ["iterator", "source"]


def test_response_when_raw_deflate_ends_on_a_full_piece() -> None:
    """What the inflater still holds when its input is used up is read as well: the blank line of the last event."""
    size, events = 65_536, BODY.rstrip(b"\n")
    data = b":".ljust(size - len(events) - 2, b"x") + b"\n" + events + b"\n" * 50  # the first of these is in the piece
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()

    def holds(part: bytes) -> bool:
        engine = zlib.decompressobj(-15)
        full = len(engine.decompress(part, size)) == size
        return full and not engine.unconsumed_tail and engine.decompress(b"", size) != b""

    part = next(packed[:end] for end in range(len(packed)) if holds(packed[:end]))
    for run in both(httpx, [part], headers={**SSE, "content-encoding": "deflate"}):
        assert (run.status, run.text) == ("completed", "ab")


def test_detection_when_a_ping_comes_first() -> None:
    """An empty frame at the start says nothing of the wire."""
    assert Dispatcher().run([b"event: ping\ndata: {}\n\ndata: \n\n", BODY]).text == "ab"
