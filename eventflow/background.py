"""The lane that a slow consumer hears a run's events through."""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from eventflow.errors import SlowConsumer, UsageError
from eventflow.events import AudioDelta, Event
from eventflow.jobs import Job, start_task, start_thread
from eventflow.plugin import Pause
from eventflow.routing import Background, Handler
from eventflow.waiting import Bell, discard, is_cancellation

if TYPE_CHECKING:
    from eventflow.run import Run

__all__ = ["Lane", "ending"]

_GRACE = 1.0  # seconds that cancelled work may take to end


class Lane:
    """A slow consumer's own bounded queue and worker: it hears a run's events in order, without the run's waiting.

    A plain function is called in a thread, a coroutine function in a task of the run's event loop. Made by
    `Run.background`; to be called with each event, by whoever drives the run. The run waits for what is queued before
    it ends; one that is left drops it.

    The worker holds the lane while it is at an event only, so that a run that is dropped goes, and the worker with it.

    Attributes:
        name: How messages call the consumer.
        dropped: Events that it was given and will not hear: for want of room, or because it, or the run, has failed.
        handled: Events that the consumer is done with.
    """

    def __init__(
        self, run: Run, handler: Handler, failed: Callable[[Exception, Event], bool], emit: Callable[[object], None]
    ) -> None:
        assert handler.background is not None
        self.name = handler.name
        self.dropped = self.handled = 0
        self._run, self._handler = run, handler
        self._failed, self._emit = failed, emit
        self._settings: Background = handler.background
        self._size = handler.background.queue
        self._queue: deque[Event | _Joined] = deque()
        self._lock = threading.Lock()  # for both ends of the queue: room is made at either
        self._news = Bell()
        self._at: Event | None = None  # what the consumer is at
        self._closed = False
        self._job: Job | None = None

    def __call__(self, event: Event) -> Lane | None:
        """Queue *event*; gives itself where the run is to wait for room, which it does when a handler gives it on."""
        if self._closed:
            self.dropped += 1
            return None
        full = False
        with self._lock:
            if len(self._queue) < self._size:
                self._queue.append(event)
            else:
                full = not self._squeeze_in(event)
        if full and self._settings.overflow == "error":
            self.dropped += 1
            self._raised(self._too_slow(f"its queue of {self._size} events is full"), event)
            return None
        if self._job is None:
            self._start()
        self._news.ring()
        return self if full else None

    def _squeeze_in(self, event: Event) -> bool:
        """Do with *event* what its consumer wants where there is no room for it; whether that is all."""
        overflow, queue = self._settings.overflow, self._queue
        if overflow == "error":
            return False
        if overflow == "coalesce":
            last = queue[-1]
            if not isinstance(last, _Joined):
                last = _Joined(last)
            if last.join(event):
                queue[-1] = last
                return True
        queue.append(event)
        if overflow == "drop_oldest":
            queue.popleft()
            self.dropped += 1
            return True
        return False

    # --- what the run asks -------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether there is nothing to wait for: everything queued has been handled, or will not be."""
        return self._closed or not (self._queue or self._at is not None)  # so ordered: see _next

    @property
    def full(self) -> bool:
        """Whether more waits than there is room for."""
        return len(self._queue) > self._size

    @property
    def ending(self) -> bool:
        """Whether the worker of a closed lane will end soon: not the thread of a handler that is at an event."""
        return self._job is not None and not self._job.done and (self._handler.is_async or self._at is None)

    def waiting(self) -> Generator[Pause]:
        """Wait for the consumer to be done with an event; one that is not for its patience has failed, and is left."""
        before, patience = self.handled, self._settings.patience
        until = None if patience is None else self._run.now() + patience
        while self.handled == before and not self.idle:
            left = None if until is None else until - self._run.now()
            if left is not None and left <= 0:
                self._give_up(self._too_slow(f"it has been at one event for {patience:g} s"))
                return
            yield Pause(left)

    def close(self) -> None:
        """Drop what is queued, and end the worker; a thread ends after the event that it is at."""
        self._closed = True
        with self._lock:
            self.dropped += len(self._queue)
            self._queue.clear()
        self._news.ring()
        if self._job is not None:
            self._job.cancel()

    def _too_slow(self, why: str) -> SlowConsumer:
        return SlowConsumer(
            f"{self.name} is too slow for run {self._run.id}: {why}. Give it a longer queue or more patience, or let "
            'it lose some: overflow="drop_oldest" or "coalesce"'
        )

    def _raised(self, error: BaseException, event: Event) -> None:
        if not isinstance(error, Exception):  # would end nothing but the worker, without a word, or all of trio
            wrapped = RuntimeError(f"{self.name} raised {error!r}")
            wrapped.__cause__ = error
            error = wrapped
        if self._failed(error, event):
            self.close()

    def _give_up(self, error: Exception) -> None:
        """The consumer goes on no more: the run ends with that, or goes on without it where it is isolated."""
        with self._lock:
            head = self._queue[0] if self._queue else None
        event = self._at or (head.event if isinstance(head, _Joined) else head)
        if event is not None:  # else it was done in this moment
            self._failed(error, event)
            self.close()

    # --- the worker --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        news, wake = self._news, self._run._bell.ring  # which does not hold the run
        lane = weakref.ref(self, lambda _: news.ring())
        name, ended = f"eventflow-background {self.name}", partial(_worker_ended, lane, wake)
        if self._handler.is_async:
            self._job = start_task(partial(_work_in_task, lane, news), name=name, then=ended)
        else:
            self._job = start_thread(partial(_work_in_thread, lane, news), name=name, then=ended)

    def handle_in_thread(self) -> bool:
        """Take the next event to the consumer; False where there is none."""
        event = self._next()
        if event is None:
            return False
        try:
            result = self._handler.call(event, self._run)
            if inspect.isawaitable(result):
                discard(result)
                raise UsageError(f"{self.name} gave an awaitable; make it a coroutine function (async def)")
            self._follow(result)
        except BaseException as error:
            self._raised(error, event)
        self._done()
        return True

    async def handle_in_task(self) -> bool:
        """`handle_in_thread`, in a task."""
        event = self._next()
        if event is None:
            return False
        try:
            result = self._handler.call(event, self._run)
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, types.AsyncGeneratorType):
                async with contextlib.aclosing(cast("AsyncGenerator[object]", result)) as given:
                    async for emitted in given:
                        self._emit(emitted)
            else:
                self._follow(result)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or is_cancellation(error):
                raise
            self._raised(error, event)
        self._done()
        return True

    def _follow(self, result: object) -> None:
        if isinstance(result, types.GeneratorType):
            with contextlib.closing(cast("Generator[object]", result)) as given:
                for emitted in given:
                    if self._closed:
                        return
                    self._emit(emitted)

    def _next(self) -> Event | None:
        with self._lock:
            if self._closed or not self._queue:
                return None
            head = self._queue[0]
            self._at = event = head.event if isinstance(head, _Joined) else head
            self._queue.popleft()  # after that: it is in the queue or in hand, whenever the run looks
            return event

    def _done(self) -> None:
        self.handled += 1
        self._at = None
        self._run.wake()

    def worker_ended(self) -> None:
        """The worker is no more."""
        if not self._closed:  # somebody has cancelled a task that is not theirs, or the handler itself
            self._job = None  # another one begins with the next event
            self._give_up(RuntimeError(f"{self.name} was cancelled"))


def _work_in_thread(lane: Callable[[], Lane | None], news: Bell) -> None:
    while (here := lane()) is not None and not here._closed:
        if not here.handle_in_thread():
            del here
            news.wait()


async def _work_in_task(lane: Callable[[], Lane | None], news: Bell) -> None:
    while (here := lane()) is not None and not here._closed:
        if not await here.handle_in_task():
            del here
            await news.await_()


def _worker_ended(lane: Callable[[], Lane | None], wake: Callable[[], object]) -> None:
    here = lane()
    if here is not None:
        here.worker_ended()
    wake()


def ending(lanes: Iterable[Lane]) -> Generator[Pause]:
    """Wait for the workers of closed lanes to end, a second at most: a task may take its time over its cancellation."""
    until = time.monotonic() + _GRACE
    while any(lane.ending for lane in lanes) and (left := until - time.monotonic()) > 0:
        yield Pause(left)


class _Joined:
    """A delta in the queue, and the pieces of the same text that were joined to it."""

    __slots__ = ("_first", "_last", "_pieces")

    def __init__(self, event: Event) -> None:
        self._first: Any = event
        self._last: Any = event
        self._pieces: list[str] = []

    def join(self, event: Any) -> bool:
        """Join *event*, if it is the next piece of the same text, and nothing of either would be lost."""
        first = self._first
        if type(event) is not type(first) or isinstance(event, AudioDelta):  # whose pieces are base64, each padded
            return False
        fields: tuple[str, ...] = event.__struct_fields__
        if "delta" not in fields or type(event.delta) is not str or type(first.delta) is not str:
            return False
        for name in fields:
            if name not in _JOINED and getattr(event, name) != getattr(first, name):
                return False
            if name in _CARRIED and (getattr(event, name) or getattr(first, name)):
                return False
        if not self._pieces:
            self._pieces.append(first.delta)
        self._pieces.append(event.delta)
        self._last = event
        return True

    @property
    def event(self) -> Event:
        """The event with what was joined to it, numbered as the last of them."""
        return cast("Event", self._last.replace(delta="".join(self._pieces)))


_JOINED = frozenset({"delta", "sequence_number", "obfuscation"})  # what pieces of one text differ in
_CARRIED = frozenset({"extra", "logprobs"})  # what belongs to one piece
