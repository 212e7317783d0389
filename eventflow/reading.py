"""Reading a source for a run, sync and async: in time, opened again where it can be, and let go of at the end."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from math import inf
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from eventflow.engine import ANEW, END, Engine
from eventflow.errors import StreamTimeout
from eventflow.logs import logger
from eventflow.outcome import Outcome
from eventflow.sources import Source
from eventflow.timers import Timeouts, Timers
from eventflow.waiting import Interrupted, Waiter, checkpoint, shielded

__all__ = ["AsyncReader", "Reader", "Watchdog", "let_go"]

_log = logger("eventflow")

_DRAIN = 0.05  # seconds: what follows a terminal event comes with it or not at all
_AGAIN = 0.1  # seconds between two tries to interrupt: the socket may not be there yet
_LONGEST = 3600.0  # seconds between two looks of a watchdog: threads cannot wait for any number
_CHECKPOINT = 32  # items of a sync source between two chances for the other tasks of an async program


class _Over(Exception):
    """The time that a source had after an error event is over."""


class _Reading:
    """What both readers know of one run and its source."""

    def __init__(
        self, engine: Engine, source: Source, timeouts: Timeouts | None, clock: Callable[[], float], run_id: str
    ) -> None:
        self._engine = engine
        self._outcome: Outcome = engine.outcome
        self._outcome.source = source
        self._source = source
        self._clock = clock
        self._run_id = run_id
        timeouts = timeouts if timeouts is not None else source.timeouts
        self._timers = Timers(timeouts, waited=source.waited, spent=source.spent) if timeouts is not None else None
        engine.measures = timeouts is not None and timeouts.total is not None
        self._lingers_until: float | None = None
        self._deadline = inf  # of the wait under way
        self._open = True
        self._late: Exception | None = None  # what ends the run before the next wait

    def _begin(self) -> float:
        """A wait begins; returns when it is too long, and raises `StreamTimeout` where it is already."""
        if self._late is not None:
            raise self._late
        now = self._clock()
        engine, timers = self._engine, self._timers
        deadline = inf if timers is None else timers.begin(now, engine.progress, engine.handled)
        if self._outcome.linger is not None:
            if self._lingers_until is None:
                self._lingers_until = now + self._outcome.linger
            deadline = self._lingers_until  # what the run ends with is known: no other timer counts any more
        self._deadline = deadline
        if deadline <= now:
            raise self._overdue()
        return deadline

    def _overdue(self) -> StreamTimeout | _Over:
        """What a wait beyond its deadline is: the error of a timer, or the end of the moment after an error event."""
        return _Over() if self._outcome.linger is not None or self._timers is None else self._timers.error()

    def came(self) -> None:
        """The source has given something. If that was too late, it is received all the same, but nothing after it."""
        now = self._clock()
        if now > self._deadline:
            self._late = self._overdue()
        if self._timers is not None:
            self._timers.end(now)

    def _may_reopen(self, error: Exception | None) -> bool:
        """Whether the source may go on: nobody wants it to end, and it is not just the end of the answer."""
        over = error is None and self._engine.finished
        return not (over or self._outcome.linger is not None or self._engine.chain.cancelled)

    @property
    def timed(self) -> bool:
        """Whether the wait under way, or the next, has an end."""
        return self._timers is not None or self._outcome.linger is not None

    def _reopened(self, began: float) -> None:
        self._lingers_until = self._late = None
        if self._timers is not None:
            self._timers.anew(self._engine.progress, self._source.waited, self._clock() - began)

    def _closes(self) -> bool:
        """Whether the source is still to be let go of; asked once."""
        open_, self._open = self._open, False
        return open_

    @property
    def _drains(self) -> bool:
        """Whether the connection may be good for another request: the stream came to its end."""
        return self._source.drain and self._outcome.ended

    def _could_not_close(self) -> None:
        _log.debug("the source of run %s could not be closed", self._run_id, exc_info=True)


class Reader(_Reading):
    """Reads a sync source. A watchdog cuts a wait that takes too long, where the source can be interrupted."""

    def __init__(
        self, engine: Engine, source: Source, timeouts: Timeouts | None, clock: Callable[[], float], run_id: str
    ) -> None:
        super().__init__(engine, source, timeouts, clock, run_id)
        assert source.items is not None
        self._next = source.items.__next__
        self._dog: Watchdog | None = None
        self._interrupted = threading.Event()

    def pull(self) -> Any:
        """The source's next item, ANEW, or END; raises what it raises, and `StreamTimeout`."""
        if self._timers is None and self._outcome.linger is None:
            try:
                return self._next()
            except StopIteration:
                return self._ended(None)
            except Exception as error:
                return self._ended(error)
        try:
            deadline = self._begin()
            dog = self._dog
            if dog is None and self._source.blocking:
                dog = self._dog = Watchdog(self._source, self._clock)
            if dog is None:
                item = self._next()
            else:
                dog.deadline, dog.waiting = deadline, True
                if deadline < dog.looks:
                    dog.wake()
                try:
                    item = self._next()
                finally:
                    dog.waiting = False
        except StopIteration:
            return self._ended(None)
        except Exception as error:
            return self._ended(error)
        self.came()
        return item

    def _ended(self, error: Exception | None) -> Any:
        """The source gives no more of this body: open it again, or say how it ended."""
        began = self._clock()
        if began >= self._deadline:
            error = self._late or self._overdue()
        if self._source.reopen is not None and self._may_reopen(error):
            how = self._source.reopen(self._engine.position, error, self._interrupted.wait)
            if how != "no":
                self._reopened(began)
                assert self._source.items is not None
                self._next = self._source.items.__next__
                return ANEW if how == "anew" else b""
        if error is None or isinstance(error, _Over):
            return END
        raise error

    def interrupt(self) -> None:
        """End the wait under way, if that can be. From any thread."""
        self._interrupted.set()
        if self._source.interrupt is not None:
            self._source.interrupt()

    def close(self) -> None:
        """Let go of the source. Twice is once."""
        if not self._closes():
            return
        try:
            if self._drains:
                self._drain()
        finally:
            if self._dog is not None:
                self._dog.stop()
            try:
                self._source.close()
            except Exception:
                self._could_not_close()

    def _drain(self) -> None:
        deadline = self._clock() + _DRAIN
        dog = self._dog = self._dog or Watchdog(self._source, self._clock)
        dog.deadline, dog.waiting = deadline, True
        dog.wake()
        with contextlib.suppress(StopIteration, Exception):
            while self._clock() < deadline:
                self._next()


class Interruptible(Protocol):
    """What a `Watchdog` guards."""

    @property
    def interrupt(self) -> Callable[[], None] | None:
        """Make what is under way fail at once, from another thread; None where that cannot be, or not yet."""
        ...


class Watchdog:
    """Interrupts a source that takes too long, from a thread of its own. One for all waits of a run.

    The thread holds it weakly: one that an exception from a signal handler keeps from being stopped goes home too.

    A wait costs a few attribute writes: the thread sleeps until the deadline that it knows of, and then looks whether
    there is a later one. Only a deadline that comes before it `looks` must `wake` it. So a deadline stays when its wait
    is over: a thread that found none would have to be woken by the next.

    Attributes:
        deadline: Of the wait under way, or of the last one.
        waiting: Whether one is under way.
        looks: When the thread looks at them next; minus infinity when it is about to.
    """

    def __init__(self, source: Interruptible, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self.deadline, self.waiting, self.looks = inf, True, -inf
        self._stopped = False
        self._wake = wake = SimpleQueue[None]()  # not an Event: that is held where a finalizer may interrupt
        dog = weakref.ref(self, lambda _: wake.put(None))
        threading.Thread(target=_guard, args=(dog, wake), name="eventflow-watchdog", daemon=True).start()

    def wake(self) -> None:
        """Look at the deadline now."""
        self.looks = -inf
        self._wake.put(None)

    def stop(self) -> None:
        """There are no more waits."""
        self._stopped = True
        self._wake.put(None)

    def look(self) -> float | None:
        """Interrupt the wait under way if it is overdue; returns the seconds until the next look, None at the end."""
        if self._stopped:
            return None
        self.looks = inf  # before the deadline is read: one that is set meanwhile wakes the thread
        waiting, deadline, now = self.waiting, self.deadline, self._clock()  # so ordered: they are of one wait
        if deadline <= now:
            if waiting and self._source.interrupt is not None:
                self._source.interrupt()
            deadline = now + (_AGAIN if waiting else _LONGEST)
        self.looks = deadline
        return min(deadline - now, _LONGEST)


def _guard(dog: Callable[[], Watchdog | None], wake: SimpleQueue[None]) -> None:
    """The thread of a watchdog, which it keeps only while it looks."""
    while (seconds := _look(dog())) is not None:
        with contextlib.suppress(Empty):
            wake.get(timeout=seconds)


def _look(dog: Watchdog | None) -> float | None:
    return None if dog is None else dog.look()


class AsyncReader(_Reading):
    """Reads a source, async or sync, for an async run."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        timeouts: Timeouts | None,
        clock: Callable[[], float],
        run_id: str,
        waiter: Waiter,
    ) -> None:
        super().__init__(engine, source, timeouts, clock, run_id)
        self._waiter = waiter
        self._next = source.aitems.__anext__ if source.aitems is not None else _Polite(source).__anext__

    def pull(self) -> Awaitable[Any]:
        """To be awaited: the source's next item. What it raises, this call itself included, goes to `ended`."""
        if self._timers is None and self._outcome.linger is None:
            return self._waiter.wait(self._next())
        deadline = self._begin()
        if self._clock is not time.monotonic:  # which is what waiters go by
            deadline += time.monotonic() - self._clock()
        return self._waiter.wait(self._next(), deadline)

    async def ended(self, error: Exception | None) -> Any:
        """What `pull` raised was this: the source's next item all the same, ANEW, END, or the run's error is raised."""
        began = self._clock()
        if isinstance(error, Interrupted) and self._engine.chain.cancelled:
            error = None
        elif isinstance(error, Interrupted) or began >= self._deadline:
            error = self._late or self._overdue()
        elif isinstance(error, StopAsyncIteration):
            error = None
        if self._source.areopen is not None and self._may_reopen(error):
            try:
                how = await self._waiter.wait(self._source.areopen(self._engine.position, error))
            except Interrupted:
                return END
            if how != "no":
                self._reopened(began)
                assert self._source.aitems is not None
                self._next = self._source.aitems.__anext__
                return ANEW if how == "anew" else b""
        if error is None or isinstance(error, _Over):
            return END
        raise error

    async def close(self) -> None:
        """Let go of the source, though the task is being cancelled. Twice is once."""
        if not self._closes():
            return
        try:
            if self._drains:
                await self._drain()
        finally:
            self._waiter.close()
            try:
                await let_go(self._source)
            except Exception:
                self._could_not_close()

    async def _drain(self) -> None:
        deadline = self._clock() + _DRAIN
        with contextlib.suppress(StopAsyncIteration, Interrupted, Exception):
            while self._clock() < deadline:
                await self._waiter.wait(self._next(), deadline)


async def let_go(source: Source) -> None:
    """Close a source of an async run, which may be a sync one, though the task is being cancelled."""
    if source.aitems is None:
        source.close()
    else:
        await shielded(source.aclose())


class _Polite:
    """A sync source in an async run: it lets other tasks have their turn."""

    def __init__(self, source: Source) -> None:
        assert source.items is not None
        self._pull = source.items.__next__
        self._pulled = 0

    async def __anext__(self) -> Any:
        self._pulled += 1
        if self._pulled % _CHECKPOINT == 0:
            await checkpoint()
        try:
            return self._pull()
        except StopIteration:
            raise StopAsyncIteration from None
