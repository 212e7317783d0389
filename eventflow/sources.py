"""Sources: anything that yields bytes, frames, mappings or events, made into one thing to pull from.

What is not built in becomes a source by a method ``__eventflow_source__()`` that gives one of the kinds built in.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast

import attrs

from eventflow.errors import ConnectionFailed, UsageError
from eventflow.events import Event, Response
from eventflow.http import abody_of, body_at_hand, body_of, check_unread, interrupter, is_response, refusal_of, slices
from eventflow.outcome import Position
from eventflow.sse import Frame
from eventflow.timers import Timeouts
from eventflow.waiting import discard

__all__ = ["Reopened", "Source", "open_source", "refusals"]

_CHUNK = 64 * 1024  # bytes read at once from files


def _nothing() -> None:
    """Nothing to close."""


async def _anothing() -> None:
    """Nothing to close."""


Reopened: TypeAlias = Literal["no", "anew", "on"]
"""Whether a source that ended goes on: not at all, with a body of its own, or in the middle of the one that was cut."""


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
        request_id: The server's id of the request, known once the head is.
        drain: Whether to let the little that follows a terminal event pass, so that the connection can be used again.
        timeouts: How long to wait for it, unless the dispatcher says; None for ever.
        waited: Seconds that it was waited for before it came here.
        spent: Seconds that all of it took, with pauses and tries that failed; None for *waited*.
        wire: Which wire its frames are of, where that is known.
        parse: Makes of a response what its request asked the text to be.
        reopen: Asked where the source ends or fails before a terminal event; told how far the run has come, what was
            raised, and how to sleep. It may replace `items`, `close`, `interrupt` and `request_id`.
        areopen: `reopen`, async.
        owner: What has to live for as long as it is read.
    """

    items: Iterator[Any] | None = None
    aitems: AsyncIterator[Any] | None = None
    close: Callable[[], None] = _nothing
    aclose: Callable[[], Awaitable[None]] = _anothing
    blocking: bool = False
    interrupt: Callable[[], None] | None = None
    request_id: str | None = None
    drain: bool = False
    timeouts: Timeouts | None = None
    waited: float = 0.0
    spent: float | None = None
    wire: str | None = None
    parse: Callable[[Response], Response] | None = None
    reopen: Callable[[Position, Exception | None, Callable[[float], object]], Reopened] | None = None
    areopen: Callable[[Position, Exception | None], Awaitable[Reopened]] | None = None
    owner: object = None


def open_source(source: Any) -> Source:
    """See what *source* is; nothing is read yet.

    Raises:
        UsageError: It is no source; the message says what would be.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return Source(items=slices(cast("bytes | bytearray | memoryview", source)))
    if isinstance(source, str | os.PathLike):
        return _file_at(cast("str | os.PathLike[str]", source))
    if isinstance(source, type):
        raise UsageError(f"the class {source.__name__} is no source; make one of it: {source.__name__}(...)")
    if isinstance(source, Event | Frame | Mapping):
        raise UsageError(f"one {type(cast('object', source)).__name__} is no source; put it in a list: run([...])")
    if hasattr(source, "__eventflow_source__"):
        return open_source(source.__eventflow_source__())
    if is_response(source):
        return _response_source(source)
    if is_response(getattr(source, "http_response", None)):  # the OpenAI SDK's with_raw_response
        return _response_source(source.http_response)
    if hasattr(source, "seek") and inspect.iscoroutinefunction(getattr(source, "read", None)):
        reads = _areads(source)
        return Source(aitems=reads, aclose=reads.aclose)
    if hasattr(source, "read") and not _has(source, "__aiter__"):
        return Source(items=_reads(source))
    if _has(source, "__aiter__") or _has(source, "__iter__"):
        return _sdk_source(source) or _iterable_source(source)
    if hasattr(source, "__enter__") or hasattr(source, "__aenter__"):
        return _context_source(source)
    if hasattr(source, "__await__"):
        discard(source)
        raise UsageError("an awaitable is no source; await it first: arun(await client.responses.create(...))")
    raise UsageError(
        f"{type(source).__name__} is no source; a source is an HTTP response, a path, an open binary file, bytes, or "
        "an iterable or async iterable of bytes, frames, mappings or events"
    )


def _has(source: object, method: str) -> bool:
    """Whether `iter` or `aiter` would find *method*: not where the object only passes it on to another."""
    return getattr(type(source), method, None) is not None


# --- bytes and files -------------------------------------------------------------------------------------------------


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
    while chunk := _checked(read(_CHUNK), file):
        yield chunk


async def _areads(file: Any) -> AsyncGenerator[bytes, None]:
    """A file of anyio or trio, whose ``wrapped`` is the plain one, or of aiofiles: read by chunks, not by lines."""
    read = file.read1 if hasattr(getattr(file, "wrapped", file), "read1") else file.read
    while chunk := _checked(await read(_CHUNK), file):
        yield chunk


def _checked(chunk: Any, file: object) -> bytes:
    """What was read from *file*, if it is bytes."""
    if isinstance(chunk, str):
        raise UsageError('the source is a text file; open it in binary: open(path, "rb")')
    if not isinstance(chunk, bytes):
        discard(chunk)
        raise UsageError(f"read() of the source {type(file).__name__} gives {type(chunk).__name__}, not bytes")
    return chunk


# --- iterables -------------------------------------------------------------------------------------------------------


def _iterable_source(source: Any) -> Source:
    made = Source()
    if _has(source, "__iter__"):
        made.items = iter(source)
        made.close = _closing(made.items, source)
    if _has(source, "__aiter__"):
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
    made = Source(blocking=True, timeouts=Timeouts())
    if hasattr(manager, "__enter__"):
        stack = contextlib.ExitStack()

        def items() -> Iterator[Any]:
            with refusals():
                entered = stack.enter_context(manager)
            inner = open_source(entered)
            made.interrupt, made.request_id, made.drain = inner.interrupt, inner.request_id, inner.drain
            stack.callback(inner.close)
            yield from _sync_items(inner)

        made.items, made.close = items(), stack.close
    if hasattr(manager, "__aenter__"):
        astack = contextlib.AsyncExitStack()

        async def aitems() -> AsyncIterator[Any]:
            with refusals():
                entered = await astack.enter_async_context(manager)
            inner = open_source(entered)
            made.request_id, made.drain = inner.request_id, inner.drain
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


@contextlib.contextmanager
def refusals() -> Generator[None]:
    """An SDK raises errors of its own where the server refuses, or does not answer: ours in their place."""
    try:
        yield
    except Exception as error:
        response: Any = getattr(error, "response", None)
        if is_response(response) and response.status_code >= 300:
            raise refusal_of(response) from error
        if any(kind.__name__ == "APIConnectionError" for kind in type(error).__mro__):  # openai 3.54, anthropic
            raise ConnectionFailed(f"no answer came: {type(error).__name__}: {error}") from error
        raise


def _sync_items(source: Source) -> Iterator[Any]:
    if source.items is None:
        raise UsageError("the source is asynchronous; use arun(), astream() or acollect()")
    return source.items


# --- HTTP ------------------------------------------------------------------------------------------------------------


def _response_source(response: Any) -> Source:
    made = Source(request_id=response.headers.get("x-request-id"))
    body = body_at_hand(response)
    if body is None:
        check_unread(response, also_closed=False)  # a run of the wrong kind closes it, and says so each time
    stream = getattr(response, "stream", None)
    if body is not None or hasattr(stream, "__iter__") or not hasattr(response, "aiter_raw"):
        made.items = body_of(response, body)
        made.close = _closing(response)
        made.interrupt, made.blocking = interrupter(response), True
    if body is not None or hasattr(stream, "__aiter__") or not hasattr(response, "iter_raw"):
        made.aitems = abody_of(response, body)
        made.aclose = _aclosing(made.aitems, response)
    if body is not None:
        made.close, made.aclose, made.interrupt, made.blocking = _nothing, _anothing, None, False
    else:
        made.timeouts, made.drain = Timeouts(), True
    return made


def _sdk_source(stream: Any) -> Source | None:
    """The stream object of an SDK: its response while nothing of it is read, else its own objects; None if it is none.

    The OpenAI SDK's ``Stream`` shows its response, what ``responses.stream()`` gives hides it (openai 3.54).
    """
    response: Any = getattr(stream, "response", None) or getattr(stream, "_response", None)
    if not is_response(response):
        return None
    skips = getattr(stream, "_starting_after", None) is not None  # itself leaves out what came before
    if not (skips or getattr(response, "is_stream_consumed", True)):
        return _response_source(response)
    made = _iterable_source(stream)
    made.request_id, made.timeouts = response.headers.get("x-request-id"), Timeouts()
    made.blocking = made.items is not None
    made.interrupt = interrupter(response) if made.blocking else None
    return made
