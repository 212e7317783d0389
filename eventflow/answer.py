"""`Stream` and `AsyncStream`: an answer that is still coming, read by itself or given to a dispatcher."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from eventflow.dispatcher import Dispatcher
from eventflow.errors import UsageError
from eventflow.events import Event, Response, TextDelta, TextDone
from eventflow.exchange import Exchange
from eventflow.request import shown
from eventflow.run import Run
from eventflow.sources import Source
from eventflow.streams import AsyncEventStream, EventStream

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AsyncStream", "Stream"]

R_co = TypeVar("R_co", bound=Response, covariant=True)
S = TypeVar("S", bound=EventStream | AsyncEventStream)


class _Handle(Generic[R_co, S]):
    """What both streams know: an answer that can be read once, by themselves or by a dispatcher."""

    def __init__(self, exchange: Exchange, source: Source, client: object) -> None:
        source.owner = client  # whose connections are open as long as somebody holds it
        self._exchange = exchange
        self._source = source
        self._flow = Dispatcher(limits=exchange.limits)
        self._events: S | None = None  # once it is read by itself
        self._given = False  # to a dispatcher of the caller's
        self._open = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._exchange.call.method} {shown(self._exchange.call.url)}>"

    def __eventflow_source__(self) -> Source:
        if self._given or self._events is not None:
            state = "is being read already, and can be read once" if self._open else "was closed"
            raise UsageError(f"this stream {state}")
        self._given = True
        return self._source

    @property
    def response(self) -> Any:
        """The HTTP response, of httpx or whatever sent the request; after a resumption the newest."""
        return self._exchange.response

    @property
    def request_id(self) -> str | None:
        """The server's id of the request (``x-request-id``), to be named when asking its people."""
        return self._source.request_id

    def _check_mine(self) -> None:
        if self._given:
            raise UsageError("this stream was given to a dispatcher, which reads it: see its run")

    def _result(self, run: Run) -> R_co:
        if run.error is not None:
            raise run.error
        if run.status == "cancelled":
            raise UsageError("this stream was left before its end; what came until then is in .run.response")
        return cast("R_co", run.response)

    def __del__(self) -> None:
        if getattr(self, "_open", False) and not (self._given or self._events is not None):
            message = f"{self!r} was never read nor closed; use it in a with block"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
            self._source.close()


class _Texts:
    """The text of a stream, piece by piece; of servers that send no deltas, at the end of each part."""

    def __init__(self) -> None:
        self._heard: set[object] = set()

    def of(self, event: Event) -> str:
        """What *event* adds."""
        if not isinstance(event, TextDelta | TextDone):
            return ""
        part = (event.output_index if event.output_index is not None else event.item_id, event.content_index)
        if isinstance(event, TextDelta):
            self._heard.add(part)
            return event.delta
        if part in self._heard:
            return ""
        self._heard.add(part)
        return event.text

    def rest(self, run: Run) -> str:
        """What only the whole response told."""
        return "" if self._heard else run.text


class Stream(_Handle[R_co, EventStream]):
    """The events of an answer that is still coming: iterate it, or give it to a dispatcher.

    Use it in a ``with`` block, or read it to its end; a bare ``break`` out of a loop over it closes it too, unless
    ``next`` was used before.
    """

    _cursor: Iterator[Event] | None = None

    def _begin(self) -> EventStream:
        self._check_mine()
        if self._events is None:
            self._events = self._flow.stream(self._source)
        return self._events

    @property
    def run(self) -> Run:
        """The run that reads it: its status, and the response so far."""
        return self._begin().run

    def __iter__(self) -> Iterator[Event]:
        """The events; raises as `Dispatcher.run` does."""
        return iter(self._begin()) if self._cursor is None else self._cursor

    def __next__(self) -> Event:
        if self._cursor is None:
            self._cursor = iter(self._begin())
        return next(self._cursor)

    @property
    def text(self) -> Iterator[str]:
        """The text alone, piece by piece."""
        texts = _Texts()
        for event in self:
            if text := texts.of(event):
                yield text
        if rest := texts.rest(self.run):
            yield rest

    def collect(self) -> R_co:
        """Read it to its end; returns the whole response, raises as `Dispatcher.run` does."""
        if self.run.status == "running":
            for _ in self:
                pass
        return self._result(self.run)

    def close(self) -> None:
        """Close the connection, or give it back where the answer is complete. Twice is once."""
        self._open = False
        if self._given:
            self._source.close()
        else:
            self._begin().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_Handle[R_co, AsyncEventStream]):
    """`Stream`, async: ``async for``, ``async with``, ``await stream.collect()``."""

    _cursor: AsyncIterator[Event] | None = None
    _entered = False

    def _begin(self) -> AsyncEventStream:
        self._check_mine()
        if self._events is None:
            self._events = self._flow.astream(self._source)
            self._events._entered = self._entered
        return self._events

    @property
    def run(self) -> Run:
        """The run that reads it: its status, and the response so far."""
        return self._begin().run

    def __aiter__(self) -> AsyncIterator[Event]:
        """The events; raises as `Dispatcher.run` does."""
        return aiter(self._begin()) if self._cursor is None else self._cursor

    async def __anext__(self) -> Event:
        if self._cursor is None:
            self._cursor = aiter(self._begin())
        return await anext(self._cursor)

    @property
    async def text(self) -> AsyncIterator[str]:
        """The text alone, piece by piece."""
        texts = _Texts()
        async for event in self:
            if text := texts.of(event):
                yield text
        if rest := texts.rest(self.run):
            yield rest

    async def collect(self) -> R_co:
        """Read it to its end; returns the whole response, raises as `Dispatcher.arun` does."""
        if self.run.status == "running":
            async for _ in self:
                pass
        return self._result(self.run)

    async def close(self) -> None:
        """Close the connection, or give it back where the answer is complete. Twice is once."""
        self._open = False
        if self._given:
            await self._source.aclose()
        else:
            await self._begin().aclose()

    aclose = close  # for contextlib.aclosing

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
