"""Waiting that can be ended from elsewhere: one waiter per async run, for asyncio and for whatever anyio drives.

Under asyncio the waiting task is cancelled and the cancellation taken back, as ``asyncio.timeout`` does: a chunk that
comes in time costs two attribute writes, where a scope for every chunk would cost 3 to 13 µs. Elsewhere (trio) a
scope it is.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "Bell",
    "Interrupted",
    "Waiter",
    "asyncio_loop",
    "checkpoint",
    "discard",
    "is_cancellation",
    "shielded",
    "sleep",
    "soon",
    "waiter",
    "wholly",
]


class Interrupted(Exception):
    """The wait was ended by `Waiter.interrupt`, or its time was up."""


class Waiter(Protocol):
    """Waits for one thing at a time."""

    async def wait(self, awaitable: Awaitable[Any], deadline: float = inf) -> Any:
        """What *awaitable* gives; raises `Interrupted` when `interrupt` is called or the *deadline* has come.

        The deadline is of ``time.monotonic``.
        """
        ...

    def handed_over(self) -> None:
        """The consumer had an event: from here on another task may drive the run."""
        ...

    def interrupt(self) -> None:
        """End the wait under way, if any. From any thread."""
        ...

    def close(self) -> None:
        """There are no more waits."""
        ...


class _AsyncioWaiter:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        self._asyncio = asyncio
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None  # who drives the run: to ask takes as long as all the rest here
        self._waiting: asyncio.Task[Any] | None = None
        self._interrupted = False
        self._deadline = inf  # of the wait under way
        self._alarm: asyncio.TimerHandle | None = None  # one for all waits: setting it anew takes as long as a chunk
        self._rings = inf  # when it looks at the deadline

    async def wait(self, awaitable: Awaitable[Any], deadline: float = inf) -> Any:
        if self._task is None:
            self._task = self._asyncio.current_task()
        task = self._task
        assert task is not None
        before, self._waiting, self._interrupted = task.cancelling(), task, False
        self._deadline = deadline
        if deadline < self._rings:
            self._set_alarm(deadline)
        try:
            return await awaitable
        except self._asyncio.CancelledError:
            if not self._interrupted:
                raise
            self._interrupted = False
            if task.uncancel() > before:  # somebody else cancels too, and wants it to go through
                raise
            raise Interrupted from None
        finally:
            self._waiting = None
            if self._interrupted:  # the source made something else of the cancellation
                self._interrupted = False
                task.uncancel()

    def _set_alarm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings = deadline
        self._alarm = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self._alarm, self._rings = None, inf
        if self._waiting is None:
            return  # the next wait sets it
        if time.monotonic() < self._deadline:
            self._set_alarm(self._deadline)
        else:
            self._end()

    def handed_over(self) -> None:
        self._task = None

    def _end(self) -> None:
        if self._waiting is not None and not self._interrupted:
            self._interrupted = True
            self._waiting.cancel()

    def interrupt(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class _AnyioWaiter:
    def __init__(self) -> None:
        self._soon = soon()
        self._thread = threading.get_ident()
        self._scope: Any = None

    async def wait(self, awaitable: Awaitable[Any], deadline: float = inf) -> Any:
        import anyio

        with anyio.move_on_after(max(0.0, deadline - time.monotonic())) as self._scope:
            return await awaitable
        raise Interrupted

    def handed_over(self) -> None:
        """A scope belongs to whoever enters it."""

    def close(self) -> None:
        """No scope is left open."""

    def _end(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def interrupt(self) -> None:
        if threading.get_ident() == self._thread:
            self._end()
        else:
            self._soon(self._end)


class Bell:
    """Wakes the one thread or task that waits for it; may be rung from any thread, also before the wait begins.

    Whoever waits looks again at what it waits for: a ring may be an old one.
    """

    __slots__ = ("_rung", "_wake")

    def __init__(self) -> None:
        self._rung = False
        self._wake: Callable[[], object] | None = None

    def ring(self) -> None:
        """End the wait under way, or the next one. A signal handler or a finalizer may do so."""
        self._rung = True
        wake = self._wake
        if wake is not None:
            wake()

    def wait(self, seconds: float | None = None) -> None:
        """Block until it rings, or for so many seconds."""
        woken = SimpleQueue[None]()  # not an Event: that is held where a signal handler may interrupt
        self._wake = partial(woken.put, None)
        try:
            if not self._rung:  # looked at after the waker stands: a ring in between is not missed
                with contextlib.suppress(Empty):
                    woken.get(timeout=None if seconds is None else min(max(seconds, 0.0), threading.TIMEOUT_MAX))
        finally:
            self._wake, self._rung = None, False

    async def await_(self, seconds: float | None = None) -> None:
        """`wait`, in a task."""
        import anyio

        woken, thread, in_loop = anyio.Event(), threading.get_ident(), soon()

        def wake() -> None:
            if threading.get_ident() == thread:
                woken.set()
            else:
                in_loop(woken.set)

        self._wake = wake
        try:
            if not self._rung:
                with anyio.move_on_after(seconds):
                    await woken.wait()
        finally:
            self._wake, self._rung = None, False


def soon() -> Callable[[Callable[[], object]], None]:
    """What has a function called in the event loop that runs here, from any thread; not once the loop is over.

    It does not wait for that: the loop may wait for the thread.
    """
    loop = asyncio_loop()
    post: Callable[[Callable[[], object]], object]
    if loop is not None:
        post = loop.call_soon_threadsafe
    else:
        import trio

        post = trio.lowlevel.current_trio_token().run_sync_soon

    def call(function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is over: nobody waits any more
            post(function)

    return call


def discard(given: object) -> None:
    """Close what was given in the place of something else, and what nobody awaits: Python warns of such a coroutine.

    What cannot be closed is let be.
    """
    close = getattr(given, "close", None)
    if close is not None:
        close()


def is_cancellation(error: BaseException) -> bool:
    """Whether what a task raises is none of its own: it is cancelled, or it is dropped."""
    if isinstance(error, GeneratorExit):  # which may be thrown where no event loop runs
        return True
    if isinstance(error, Exception):
        return False
    from anyio import get_cancelled_exc_class

    return isinstance(error, get_cancelled_exc_class())


async def shielded(awaitable: Awaitable[Any]) -> Any:
    """Await something though the task is being cancelled.

    asyncio delivers a cancellation once, so that it needs no shield; the scopes of trio, and of anyio on asyncio,
    deliver it at every await.
    """
    if "anyio" not in sys.modules and asyncio_loop() is not None:
        return await awaitable
    import anyio

    with anyio.CancelScope(shield=True):
        return await awaitable


async def wholly(close: Callable[[], Awaitable[Any]]) -> None:
    """Await what *close* gives to its end, though the task is cancelled meanwhile; that goes through behind it.

    A cancellation of asyncio's reaches whatever the task waits for, a shield of anyio's notwithstanding: here that is
    another task. Elsewhere a shield does.
    """
    if asyncio_loop() is None:
        await close()
        return
    import asyncio

    closing = asyncio.ensure_future(close())
    try:
        await asyncio.wait([closing])
    except asyncio.CancelledError:
        await shielded(asyncio.wait([closing]))
        raise
    closing.result()


async def sleep(seconds: float) -> None:
    """Do nothing for some time."""
    if asyncio_loop() is None:
        import anyio

        await anyio.sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)


async def checkpoint() -> None:
    """Let other tasks have their turn; a cancellation arrives here."""
    if asyncio_loop() is None:
        from anyio import lowlevel

        await lowlevel.checkpoint()
    else:
        import asyncio

        await asyncio.sleep(0)


def waiter() -> Waiter:
    """A waiter for the event loop that runs here."""
    loop = asyncio_loop()
    return _AnyioWaiter() if loop is None else _AsyncioWaiter(loop)


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The asyncio loop that runs here, or None under another library. asyncio is not imported for sync programs."""
    module = sys.modules.get("asyncio")
    if module is None:
        return None
    try:
        return module.get_running_loop()  # type: ignore[no-any-return]
    except RuntimeError:
        return None
