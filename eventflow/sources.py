"""Sources: anything that yields bytes, frames, mappings or events, made into one thing to pull from.

HTTP responses are taken by their shape (``status_code``, ``headers``, ``iter_raw``/``aiter_raw``), so that httpx,
httpx2 and whatever has their interface serve alike; no HTTP library is imported here. Bytes are read raw, as they
come, and what is compressed all the same is inflated here, with a bound.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any, cast

import attrs

from eventflow.errors import DecodeError, HTTPStatusError, UnexpectedContentType, UsageError, excerpt
from eventflow.events import Event
from eventflow.sse import Frame, plausible

__all__ = ["Source", "open_source"]

_CHUNK = 64 * 1024  # bytes read at once from files, and given out at once by the inflater
_EXCERPT = 4096  # bytes of an error page that are read


def _nothing() -> None:
    """Nothing to close."""


async def _anothing() -> None:
    """Nothing to close."""


@attrs.define
class Source:
    """Something to pull from, in one or both ways.

    Attributes:
        items: The sync iterator, or None where the source is async only.
        aitems: The async iterator, or None where the source is sync only.
        close: Let go of it, sync.
        aclose: Let go of it, async.
        blocking: Whether pulling from the sync iterator waits for a peer: not for an async run.
        interrupt: From another thread, make a read that is under way fail at once; None where that cannot be.
        request_id: Asks for the server's id of the request, known once the head is.
    """

    items: Iterator[Any] | None = None
    aitems: AsyncIterator[Any] | None = None
    close: Callable[[], None] = _nothing
    aclose: Callable[[], Awaitable[None]] = _anothing
    blocking: bool = False
    interrupt: Callable[[], None] | None = None
    request_id: str | None = None


def open_source(source: Any) -> Source:
    """See what *source* is; nothing is read yet.

    Raises:
        UsageError: It is no source; the message says what would be.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return Source(items=_slices(cast("bytes | bytearray | memoryview", source)))
    if isinstance(source, str | os.PathLike):
        return _file_at(cast("str | os.PathLike[str]", source))
    if isinstance(source, type):
        raise UsageError(f"the class {source.__name__} is no source; make one of it: {source.__name__}(...)")
    if isinstance(source, Event | Frame | Mapping):
        raise UsageError(f"one {type(cast('object', source)).__name__} is no source; put it in a list: run([...])")
    if _is_response(source):
        return _response_source(source)
    if hasattr(source, "read") and not hasattr(source, "__aiter__"):
        return Source(items=_reads(source))
    if hasattr(source, "__aiter__") or hasattr(source, "__iter__"):
        return _iterable_source(source)
    if hasattr(source, "__enter__") or hasattr(source, "__aenter__"):
        return _context_source(source)
    raise UsageError(
        f"{type(source).__name__} is no source; a source is an HTTP response, a path, an open binary file, bytes, or "
        "an iterable or async iterable of bytes, frames, mappings or events"
    )


# --- bytes and files -------------------------------------------------------------------------------------------------


def _slices(data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    if isinstance(data, bytes) and len(data) <= _CHUNK:
        yield data
        return
    view = memoryview(data).cast("B")
    for start in range(0, len(view), _CHUNK):
        yield bytes(view[start : start + _CHUNK])


def _file_at(path: str | os.PathLike[str]) -> Source:
    if isinstance(path, str) and ("\n" in path or "\0" in path):
        raise UsageError("a str as source is a path; give the text of a stream as bytes: text.encode()")
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        raise UsageError(f"a str as source is a path, and {path!r} an address; give the HTTP response itself")
    try:
        os.stat(path)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise UsageError(f"cannot open the source {os.fspath(path)!r}: {error.strerror or error}") from error
    items = _reads_at(path)
    return Source(items=items, close=items.close)


def _reads_at(path: str | os.PathLike[str]) -> Generator[bytes, None, None]:
    """A file that is opened when it is first read: a stream that nobody iterates leaves nothing open."""
    with open(path, "rb", buffering=0) as file:
        yield from _reads(file)


def _reads(file: Any) -> Iterator[bytes]:
    read = getattr(file, "read1", None) or file.read  # read1 gives what a pipe has, read waits for all of it
    while True:
        chunk = read(_CHUNK)
        if isinstance(chunk, str):
            raise UsageError('the source is a text file; open it in binary: open(path, "rb")')
        if not isinstance(chunk, bytes):
            if hasattr(chunk, "close"):
                chunk.close()
            raise UsageError(f"read() of the source {type(file).__name__} gives {type(chunk).__name__}, not bytes")
        if not chunk:
            return
        yield chunk


# --- iterables -------------------------------------------------------------------------------------------------------


def _iterable_source(source: Any) -> Source:
    made = Source()
    if hasattr(source, "__iter__"):
        made.items = iter(source)
        made.close = _closing(made.items, source)
    if hasattr(source, "__aiter__"):
        made.aitems = aiter(source)
        made.aclose = _aclosing(made.aitems, source)
    return made


def _closing(*owners: Any) -> Callable[[], None]:
    """Closes each of *owners* that can be closed, in order, though one raises."""

    def close() -> None:
        with contextlib.ExitStack() as stack:
            for owner in reversed(_distinct(owners)):
                if callable(getattr(owner, "close", None)):
                    stack.callback(owner.close)

    return close


def _aclosing(*owners: Any) -> Callable[[], Awaitable[None]]:
    """Closes each of *owners* that can be closed, by ``aclose`` or ``close``, in order, though one raises."""

    async def aclose() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for owner in reversed(_distinct(owners)):
                close = getattr(owner, "aclose", None) or getattr(owner, "close", None)
                if callable(close):
                    stack.push_async_callback(_awaited, close)

    return aclose


async def _awaited(close: Callable[[], Any]) -> None:
    result = close()
    if hasattr(result, "__await__"):
        await result


def _distinct(owners: tuple[Any, ...]) -> list[Any]:
    return list({id(owner): owner for owner in owners}.values())


def _context_source(manager: Any) -> Source:
    """``client.stream(...)`` before it is entered: entered at the first pull, left at the end."""
    made = Source(blocking=True)
    if hasattr(manager, "__enter__"):
        stack = contextlib.ExitStack()

        def items() -> Iterator[Any]:
            inner = open_source(stack.enter_context(manager))
            made.interrupt, made.request_id = inner.interrupt, inner.request_id
            stack.callback(inner.close)
            yield from _sync_items(inner)

        made.items, made.close = items(), stack.close
    if hasattr(manager, "__aenter__"):
        astack = contextlib.AsyncExitStack()

        async def aitems() -> AsyncIterator[Any]:
            inner = open_source(await astack.enter_async_context(manager))
            made.request_id = inner.request_id
            if inner.aitems is None:
                astack.callback(inner.close)
                for item in _sync_items(inner):
                    yield item
                return
            astack.push_async_callback(inner.aclose)
            async for item in inner.aitems:
                yield item

        made.aitems = aitems()
        made.aclose = _aclosing(made.aitems, astack)
    return made


def _sync_items(source: Source) -> Iterator[Any]:
    if source.items is None:
        raise UsageError("the source is asynchronous; use arun(), astream() or acollect()")
    return source.items


# --- HTTP ------------------------------------------------------------------------------------------------------------


def _is_response(source: Any) -> bool:
    return all(hasattr(source, name) for name in ("status_code", "headers")) and (
        hasattr(source, "iter_raw") or hasattr(source, "aiter_raw")
    )


def _response_source(response: Any) -> Source:
    made = Source(request_id=response.headers.get("x-request-id"))
    body = _read_already(response)
    stream = getattr(response, "stream", None)
    if body is not None or hasattr(stream, "__iter__") or not hasattr(response, "aiter_raw"):
        made.items = _response_items(response, body)
        made.close = _closing(response)
        made.interrupt, made.blocking = _interrupter(response), True
    if body is not None or hasattr(stream, "__aiter__") or not hasattr(response, "iter_raw"):
        made.aitems = _response_aitems(response, body)
        made.aclose = _aclosing(made.aitems, response)
    if body is not None:
        made.close, made.aclose, made.interrupt, made.blocking = _nothing, _anothing, None, False
    return made


def _read_already(response: Any) -> bytes | None:
    """The body of a response that was read before it came here, already inflated; else None."""
    try:
        body = response.content
    except Exception:  # httpx.ResponseNotRead, which is not imported here: the body is still to be read
        return None
    return body if isinstance(body, bytes) else None


def _response_items(response: Any, body: bytes | None) -> Iterator[bytes]:
    judge = _Head(response)
    chunks = iter(response.iter_raw() if body is None else _slices(body))
    for raw in chunks:
        yield from judge.feed(raw, inflated=body is not None)
        if judge.decided:
            raise judge.verdict()
        if judge.satisfied:
            yield from chunks
            return
    yield from judge.end()


async def _response_aitems(response: Any, body: bytes | None) -> AsyncGenerator[bytes, None]:
    judge = _Head(response)
    if body is not None:
        for chunk in _response_items(response, body):
            yield chunk
        return
    async with contextlib.aclosing(response.aiter_raw()) as raws:
        satisfied = False
        async for raw in raws:
            if satisfied:
                yield raw
                continue
            for chunk in judge.feed(raw):
                yield chunk
            if judge.decided:
                raise judge.verdict()
            satisfied = judge.satisfied
    for chunk in judge.end():
        yield chunk


class _Head:
    """Judges an answer by its head and first bytes, and inflates its body. Sans-IO."""

    def __init__(self, response: Any) -> None:
        headers = response.headers
        self.status = int(response.status_code)
        self.content_type = str(headers.get("content-type") or "")
        self.request_id = headers.get("x-request-id")
        self.retry_after = headers.get("retry-after")
        self.retry_after_ms = headers.get("retry-after-ms")
        self._inflate = _Inflater(str(headers.get("content-encoding") or ""))
        self._held = b""  # the start of a body that is under suspicion
        declared = self.content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._trusted = self.status < 300 and declared
        self.decided = False

    @property
    def satisfied(self) -> bool:
        """Whether the rest of the body can go by: it is a stream, and not compressed."""
        return self._trusted and self._inflate.plain

    def feed(self, raw: bytes, *, inflated: bool = False) -> Iterator[bytes]:
        """The body's next bytes; nothing while it is under suspicion."""
        for chunk in (raw,) if inflated else self._inflate.feed(raw):
            if self._trusted:
                yield chunk
                continue
            self._held += chunk
            if self.status < 300 and plausible(self._held) and len(self._held) >= 6:
                self._trusted = True
                yield self._held
            elif len(self._held) >= _EXCERPT:
                self.decided = True
                return

    def end(self) -> Iterator[bytes]:
        """The body has ended: its last bytes, or the verdict on one that was no stream."""
        self._inflate.close()
        if not self._trusted:
            if self.status < 300 and self._held and plausible(self._held):
                yield self._held
                return
            raise self.verdict()

    def verdict(self) -> HTTPStatusError | UnexpectedContentType:
        """The error that this answer is."""
        shown = excerpt(self._held[:_EXCERPT], _EXCERPT)
        if self.status >= 300:
            return HTTPStatusError(
                f"the server answered HTTP {self.status} instead of a stream: {excerpt(self._held)}",
                status=self.status,
                excerpt=shown,
                request_id=self.request_id,
                retry_after=self._retry_seconds(),
            )
        what = self.content_type or "no content type"
        return UnexpectedContentType(
            f"the server answered HTTP {self.status} with {what}, not text/event-stream; was stream=true asked for, is "
            f"the address right? It begins with {excerpt(self._held)!r}",
            content_type=self.content_type,
            excerpt=shown,
        )

    def _retry_seconds(self) -> float | None:
        """What the server asks for, in seconds or milliseconds or as a date."""
        for value, scale in ((self.retry_after_ms, 1000.0), (self.retry_after, 1.0)):
            try:
                if value is not None and float(value) >= 0:
                    return float(value) / scale
            except ValueError:
                continue
        if self.retry_after is None:
            return None
        from email.utils import parsedate_to_datetime

        try:
            return max(0.0, parsedate_to_datetime(self.retry_after).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None


class _Inflater:
    """Bounded inflating of gzip and deflate: at most 64 KiB are unpacked at once, however much a byte may mean."""

    def __init__(self, encoding: str) -> None:
        names = [name.strip().lower() for name in encoding.split(",") if name.strip().lower() not in ("", "identity")]
        self._engine: Any = None
        self._held = b""  # the first byte of deflate, which alone does not tell whether it has its header
        self._deflate = False
        self._compressed = bool(names)
        if not names:
            return
        if names not in (["gzip"], ["x-gzip"], ["deflate"]):
            raise DecodeError(
                f"the body is compressed with {encoding!r}, which is not read here; send the header "
                "Accept-Encoding: identity with the request"
            )
        self._deflate = names == ["deflate"]
        if not self._deflate:
            self._engine = zlib.decompressobj(47)

    @property
    def plain(self) -> bool:
        """Whether there is nothing to unpack."""
        return not self._compressed

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """The unpacked bytes, in bounded pieces."""
        if not self._compressed:
            if raw:
                yield raw
            return
        if self._engine is None:
            raw = self._held = self._held + raw
            if len(raw) < 2:
                return
            headed = raw[0] & 15 == 8 and int.from_bytes(raw[:2], "big") % 31 == 0  # RFC 1950; some send none
            self._engine = zlib.decompressobj(15 if headed else -15)
        while True:
            try:
                chunk = self._engine.decompress(raw, _CHUNK)
            except zlib.error as error:
                raise DecodeError(f"the compressed body is corrupt: {error}") from error
            if chunk:
                yield chunk
            raw = self._engine.unconsumed_tail
            if self._engine.eof or not (raw or len(chunk) == _CHUNK):  # a full piece: there may be more of it
                return

    def close(self) -> None:
        """The body has ended; raises where the compressed data is cut off."""
        if self._compressed and (self._held if self._engine is None else not self._engine.eof):
            raise DecodeError("the compressed body was cut off")


def _interrupter(response: Any) -> Callable[[], None]:
    """Shut the response's socket down, which ends a read in another thread; found when it is needed."""

    def interrupt() -> None:
        import socket

        extensions = getattr(response, "extensions", {})
        if extensions.get("http_version") == b"HTTP/2":
            return  # other streams share the connection
        network = extensions.get("network_stream")
        connection = network.get_extra_info("socket") if network is not None else None
        if isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):  # it is gone already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the plain one: an SSL socket's own is not safe

    return interrupt
