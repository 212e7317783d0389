"""Work beside a run: jobs in threads and tasks, and the lane that a slow consumer hears events through.

A job never outlives its interest: one that is cancelled is cancelled if it is a task, and left alone if it is a thread,
which nobody can stop. Threads are daemons, so that one that never returns does not keep a program from ending.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import types
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from eventflow.errors import SlowConsumer, UsageError, excerpt
from eventflow.events import Event
from eventflow.plugin import Pause
from eventflow.routing import Background, Handler
from eventflow.waiting import Bell

if TYPE_CHECKING:
    import asyncio

    from eventflow.run import Run

__all__ = ["Job", "Lane", "LoopThread", "await_thread", "start_task", "start_thread"]


T = TypeVar("T")


class Job(Protocol):
    """Work under way."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def cancel(self) -> None:
        """End it where that can be: a task. A thread goes on and is left alone."""
        ...


class _Thread:
    """A job in a daemon thread."""

    def __init__(self, function: Callable[[], object], name: str, then: Callable[[], object]) -> None:
        self.done = False
        self._function, self._then = function, then
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True).start()

    def _work(self) -> None:
        try:
            self._function()
        finally:
            self.done = True
            self._then()

    def cancel(self) -> None:
        """Nobody can stop a thread."""


class _Task:
    """A job in a task of the event loop that runs here."""

    def __init__(self, function: Callable[[], Awaitable[object]], name: str, then: Callable[[], object]) -> None:
        self.done = False
        self._function, self._then = function, then
        self._scope: Any = None
        self._task: asyncio.Task[None] | None = None
        loop = _asyncio_loop()
        if loop is not None:
            self._task = loop.create_task(self._work(), name=name)
            self._task.add_done_callback(self._ended)  # also where it was cancelled before it began
        else:
            import trio

            self._scope = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._work_in_scope, name=name, context=contextvars.copy_context())

    async def _work(self) -> None:
        await self._function()

    async def _work_in_scope(self) -> None:
        try:
            with self._scope:
                await self._function()
        finally:
            self._ended()

    def _ended(self, task: asyncio.Task[None] | None = None) -> None:
        if task is not None and not task.cancelled():
            task.exception()  # looked at: jobs report for themselves
        self.done = True
        self._then()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._scope is not None:
            self._scope.cancel()


def _nothing() -> None:
    """Nobody waits for the end."""


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    module = sys.modules.get("asyncio")
    try:
        return None if module is None else cast("asyncio.AbstractEventLoop", module.get_running_loop())
    except RuntimeError:
        return None


def start_thread(function: Callable[[], object], *, name: str, then: Callable[[], object] = _nothing) -> Job:
    """Call *function* in a daemon thread, in a copy of the context that is current here.

    Args:
        function: What to do; it sees to its own exceptions.
        name: Of the thread.
        then: Called in the thread when the job has ended.
    """
    return _Thread(function, name, then)


def start_task(function: Callable[[], Awaitable[object]], *, name: str, then: Callable[[], object] = _nothing) -> Job:
    """Await what *function* gives in a task of the event loop that runs here: asyncio's or trio's.

    Args:
        function: What to do; it sees to its own exceptions.
        name: Of the task.
        then: Called in the event loop when the job has ended.
    """
    return _Task(function, name, then)


async def await_thread(function: Callable[[], T], *, name: str) -> T:
    """What *function* gives, called in a daemon thread; one whose task is cancelled is left alone."""
    bell = Bell()
    given: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            given.append(function())
        except BaseException as error:
            raised.append(error)

    job = start_thread(work, name=name, then=bell.ring)
    while not job.done:
        await bell.await_()
    if raised:
        raise raised[0]
    return given[0]


class LoopThread:
    """One asyncio event loop in a daemon thread, for async work of programs that have none; begun when first used.

    Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start_task(
        self, function: Callable[[], Coroutine[Any, Any, object]], *, name: str, then: Callable[[], object] = _nothing
    ) -> Job:
        """`eventflow.background.start_task`, in this loop; *then* is called in its thread."""
        return _Remote(self._running(), function, name, then)

    def close(self) -> None:
        """Cancel what is under way, and end the loop. Twice is once; a later `start_task` begins another."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                arguments = (self._loop,)
                threading.Thread(target=_run_loop, args=arguments, name="eventflow-loop", daemon=True).start()
            return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    with asyncio.Runner(loop_factory=lambda: loop):  # its end cancels the tasks, and lets them end
        loop.run_forever()


class _Remote:
    """A job in the loop of another thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[[], Coroutine[Any, Any, object]],
        name: str,
        then: Callable[[], object],
    ) -> None:
        self.done = False
        self._loop, self._name = loop, name
        self._function, self._then = function, then
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False
        loop.call_soon_threadsafe(self._begin, context=contextvars.copy_context())

    def _begin(self) -> None:
        if self._cancelled:
            self._ended(None)
            return
        self._task = self._loop.create_task(self._function(), name=self._name)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object] | None) -> None:
        if task is not None and not task.cancelled():
            task.exception()  # looked at: jobs report for themselves
        self.done = True
        self._then()

    def cancel(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()


# --- lanes -----------------------------------------------------------------------------------------------------------


class Lane:
    """A slow consumer's own bounded queue and worker: it hears a run's events in order, without the run's waiting.

    A plain function is called in a thread, a coroutine function in a task of the run's event loop. Made by
    `Run.background`; to be called with each event. The run waits for what is queued before it ends; one that is left
    drops it.

    Attributes:
        name: How messages call the consumer.
        dropped: Events that went for want of room, by ``overflow="drop_oldest"``.
        handled: Events that the consumer is done with.
        error: What the consumer raised, which ends the run; None where it did not, or is isolated.
    """

    def __init__(self, run: Run, handler: Handler, failed: Callable[[Exception, Event], None]) -> None:
        assert handler.background is not None
        self.name = handler.name
        self.dropped = self.handled = 0
        self._run, self._handler, self._failed = run, handler, failed
        self._settings: Background = handler.background
        self._queue: deque[_Queued] = deque()
        self._lock = threading.Lock()  # for both ends of the queue: room is made at either
        self._news = Bell()
        self._busy = self._closed = False
        self.error: Exception | None = None
        self._job: Job | None = None

    def __call__(self, event: Event) -> Lane | None:
        """Queue *event*; gives itself where there is no room, so that the run waits for it and asks again.

        Raises:
            SlowConsumer: The queue is full, by ``overflow="error"``.
            Exception: What the consumer raised with an earlier event.
        """
        if self.error is not None:
            raise self.error
        with self._lock:
            if len(self._queue) < self._settings.queue:
                self._queue.append(_Queued(event))
            elif not self._squeeze_in(event):
                return self
        if self._job is None:
            self._start()
        self._news.ring()
        return None

    def _squeeze_in(self, event: Event) -> bool:
        """Do with *event* what its consumer wants where there is no room for it."""
        overflow, queue = self._settings.overflow, self._queue
        if overflow == "error":
            raise self._too_slow(f"its queue of {self._settings.queue} events is full")
        if overflow == "drop_oldest":
            queue.popleft()
            queue.append(_Queued(event))
            self.dropped += 1
            return True
        return overflow == "coalesce" and queue[-1].join(event)

    # --- what the run asks -------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether everything queued has been handled; raises what the consumer raised."""
        if self.error is not None:
            raise self.error
        return not (self._queue or self._busy)

    @property
    def is_task(self) -> bool:
        """Whether the worker is a task, which can be cancelled."""
        return self._handler.is_async

    @property
    def ended(self) -> bool:
        """Whether the worker has ended."""
        return self._job is None or self._job.done

    def waiting(self) -> Generator[Pause]:
        """Wait for the consumer to be done with an event; raises `SlowConsumer` when it has not for its patience."""
        before, patience = self.handled, self._settings.patience
        until = None if patience is None else self._run.now() + patience
        while self.handled == before and not self.idle:
            left = None if until is None else until - self._run.now()
            if left is not None and left <= 0:
                raise self._too_slow(f"it has been at one event for {patience:g} s")
            yield Pause(left)

    def close(self) -> None:
        """Drop what is queued, and end the worker; a thread ends after the event that it is at."""
        self._closed = True
        with self._lock:
            self._queue.clear()
        self._news.ring()
        if self._job is not None:
            self._job.cancel()

    def _too_slow(self, why: str) -> SlowConsumer:
        return SlowConsumer(
            f"{self.name} is too slow for run {self._run.id}: {why}. Give it a longer queue or more patience, or let "
            'it lose some: overflow="drop_oldest" or "coalesce"'
        )

    # --- the worker --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        name = f"eventflow-background {self.name}"
        if self._handler.is_async:
            self._job = start_task(self._work_in_task, name=name, then=self._run.wake)
        else:
            self._job = start_thread(self._work_in_thread, name=name, then=self._run.wake)

    def _work_in_thread(self) -> None:
        while not self._closed:
            event = self._next()
            if event is None:
                self._news.wait()
                continue
            try:
                result = self._handler.call(event, self._run)
                if isinstance(result, types.GeneratorType):
                    for emitted in cast("Generator[object]", result):
                        self._emit(emitted)
            except Exception as error:
                self._raised(error, event)
            except SystemExit as error:  # ends a program, and here nothing but the thread, without a word
                self._raised(RuntimeError(f"{self.name} raised {error!r}"), event)
            self._done()

    async def _work_in_task(self) -> None:
        while not self._closed:
            event = self._next()
            if event is None:
                await self._news.await_()
                continue
            try:
                result = self._handler.call(event, self._run)
                if isinstance(result, types.AsyncGeneratorType):
                    async for emitted in cast("AsyncGenerator[object]", result):
                        self._emit(emitted)
                else:
                    await result
            except Exception as error:
                self._raised(error, event)
            self._done()

    def _next(self) -> Event | None:
        with self._lock:
            if not self._queue:
                return None
            self._busy = True
            queued = self._queue.popleft()
        return queued.event

    def _done(self) -> None:
        self._busy = False
        self.handled += 1
        self._run.wake()

    def _emit(self, emitted: object) -> None:
        if self._closed:
            return
        if not isinstance(emitted, Event):
            raise UsageError(
                f"{self.name} yielded {excerpt(repr(emitted))}; a handler that is a generator yields events"
            )
        self._run.emit(emitted)

    def _raised(self, error: Exception, event: Event) -> None:
        if self._closed:
            return
        try:
            self._failed(error, event)  # raises, unless the consumer is isolated
        except Exception as raised:
            self.error, self._closed = raised, True


class _Queued:
    """An event in the queue, and the deltas that were joined to it."""

    __slots__ = ("_event", "_last", "_pieces")

    def __init__(self, event: Event) -> None:
        self._event = self._last = event
        self._pieces: list[str] | None = None

    def join(self, event: Any) -> bool:
        """Join a delta to the one here, if it is the next piece of the same text."""
        ours: Any = self._event
        if type(event) is not type(ours) or not isinstance(getattr(event, "delta", None), str):
            return False
        if any(getattr(event, name, None) != getattr(ours, name, None) for name in _PLACE):
            return False
        if self._pieces is None:
            self._pieces = [ours.delta]
        self._pieces.append(event.delta)
        self._last = event
        return True

    @property
    def event(self) -> Event:
        """The event, with what was joined to it; numbered as the last of them."""
        if self._pieces is None:
            return self._event
        last: Any = self._last
        gone = {name: None for name in ("logprobs", "obfuscation") if getattr(last, name, None) is not None}
        return cast("Event", last.replace(delta="".join(self._pieces), **gone))


_PLACE = ("item_id", "output_index", "content_index", "summary_index", "command_index")
