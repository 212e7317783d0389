"""The faces of a run that a caller holds: iterate it, or push into it; sync and async."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType

from eventflow.engine import END
from eventflow.errors import UsageError
from eventflow.events import Event
from eventflow.reading import let_go
from eventflow.run import Left, Run, aloop, loop
from eventflow.sources import Source

__all__ = ["AsyncEventStream", "AsyncPush", "EventStream", "Push", "left"]


def _check_fresh(run: Run, begun: bool) -> None:
    if begun:
        state = "has ended" if run.status != "running" else "is being iterated already"
        raise UsageError(f"this stream {state}: a source can be read once; call stream() again with a new one")


def left(cursor: Generator[Event, None, None]) -> bool:
    """Close *cursor*; False where that cannot be: it is being driven, by another thread or by the caller's caller."""
    try:
        cursor.close()
    except ValueError:  # nothing else raises one here: what handlers and hooks raise is logged where a run is left
        return False
    return True


class EventStream:
    """The events of a run, as they come through its pipeline; handlers are called too.

    Iterate it; a bare ``break`` closes the source at once. ``with`` guarantees it.

    Attributes:
        run: The run.
    """

    def __init__(self, run: Run, source: Source) -> None:
        self.run = run
        self._source = source
        self._begun = False
        self._cursor: weakref.ref[Generator[Event, None, None]] | None = None

    def __iter__(self) -> Iterator[Event]:
        _check_fresh(self.run, self._begun)
        self._begun = True
        cursor = loop(self.run, self._source)
        self._cursor = weakref.ref(cursor)  # weakly: leaving the for loop drops the cursor, and that closes the source
        return cursor

    def close(self) -> None:
        """Leave the run and close its source; from a handler, or another thread, by `Run.cancel`. Twice is once."""
        cursor = self._cursor() if self._cursor is not None else None
        if cursor is not None and not left(cursor):
            self.run.cancel()
            return
        if not self.run._finished:  # nothing of it was ever pulled
            self._begun = True
            self._source.close()
            self.run._abandon()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEventStream:
    """`EventStream`, async: ``async for`` and ``async with``.

    Under asyncio a bare ``break`` closes the source at the next await; under trio use ``async with``.

    Attributes:
        run: The run.
    """

    def __init__(self, run: Run, source: Source) -> None:
        self.run = run
        self._source = source
        self._begun = False
        self._cursor: weakref.ref[AsyncGenerator[Event, None]] | None = None
        self._entered = False
        self._held: AsyncGenerator[Event, None] | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        _check_fresh(self.run, self._begun)
        self._begun = True
        cursor = aloop(self.run, self._source)
        self._cursor = weakref.ref(cursor)
        if self._entered:
            self._held = cursor  # a break must not drop it: the end of the block closes it, and waits for that
        return cursor

    async def aclose(self) -> None:
        """Leave the run and close its source. Twice is once."""
        cursor = self._cursor() if self._cursor is not None else None
        if cursor is not None:
            try:
                await cursor.aclose()
            except RuntimeError:  # another task waits in it
                self.run.cancel()
                return
        if not self.run._finished:  # nothing of it was ever pulled
            self._begun = True
            await let_go(self._source)
            self.run._abandon()

    async def __aenter__(self) -> AsyncEventStream:
        self._entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Push:
    """``with flow.open() as run``: a run that is fed from elsewhere.

    Leaving the block is the end of the body: a stream without a terminal event is truncated then. Leaving it with an
    exception cancels the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> Run:
        self._run._open_push()
        return self._run

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._run._left = True
        if error is None:
            self._run._push(END)
            return
        with contextlib.suppress(Left):
            self._run._push(Left(), throw=True)


class AsyncPush:
    """``async with flow.aopen() as run``; as `Push`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def __aenter__(self) -> Run:
        await self._run._aopen_push()
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._run._left = True
        if error is None:
            await self._run._apush(END)
            return
        with contextlib.suppress(Left):
            await self._run._apush(Left(), throw=True)
