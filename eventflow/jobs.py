"""Work beside a run: jobs in threads and tasks.

A job never outlives its interest: one that is cancelled is cancelled if it is a task, and left alone if it is a thread,
which nobody can stop. Threads are daemons, so that one that never returns does not keep a program from ending.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from eventflow.forks import PerProcess
from eventflow.logs import logger
from eventflow.waiting import Bell, asyncio_loop, soon

if TYPE_CHECKING:
    import asyncio

__all__ = ["Job", "LoopThread", "await_thread", "start_task", "start_thread"]

T = TypeVar("T")

_log = logger("eventflow")


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
        self._function, self._name, self._then = function, name, then
        self._soon = soon()
        loop = asyncio_loop()
        if loop is not None:
            task = loop.create_task(self._work(), name=name)
            task.add_done_callback(self._ended)  # also where it was cancelled before it began
            self._cancel: Callable[[], object] = task.cancel
        else:
            import trio

            scope = trio.CancelScope()
            self._cancel = scope.cancel
            trio.lowlevel.spawn_system_task(self._work_in_scope, scope, name=name, context=contextvars.copy_context())

    async def _work(self) -> None:
        await self._function()

    async def _work_in_scope(self, scope: Any) -> None:
        try:
            with scope:
                await self._function()
        except Exception as error:
            _unreported(self._name, error)
        finally:
            self._ended()

    def _ended(self, task: asyncio.Task[None] | None = None) -> None:
        if task is not None:
            _look_at(task)
        self.done = True
        self._then()

    def cancel(self) -> None:
        self._soon(self._cancel)


def _nothing() -> None:
    """Nobody waits for the end."""


def _look_at(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _unreported(task.get_name(), error)


def _unreported(name: str, error: BaseException) -> None:
    _log.error("%s failed", name, exc_info=error)  # jobs report for themselves: this one did not


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

    It may be cancelled from any thread.

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

    A loop that does not come to what it was handed is stuck in something that blocks it; another one takes its place
    for what is started then. A forked process has a loop of its own. Safe to use from any thread.

    Args:
        patience: Seconds after which a loop that does not answer is stuck.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self._patience = patience
        self._loops = PerProcess(_Loops)

    def start_task(
        self, function: Callable[[], Coroutine[Any, Any, object]], *, name: str, then: Callable[[], object] = _nothing
    ) -> Job:
        """`eventflow.background.start_task`, in this loop; *then* is called in its thread."""
        loops = self._loops.here()
        with loops.lock:  # a loop that is to stop takes no more
            return _Remote(loops.answering(self._patience), function, name, then)

    def close(self) -> None:
        """Cancel what is under way, and end the loop. Twice is once; a later `start_task` begins another."""
        loops = self._loops.here()
        with loops.lock:
            loops.stop()


class _Loops:
    """The loops of a process: the one in use, and those that were stuck. Only who holds the lock may touch them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._current: _Loop | None = None
        self._stuck: list[_Loop] = []

    def answering(self, patience: float) -> _Loop:
        if self._current is not None and self._current.silence() >= patience:
            self._stuck.append(self._current)
            self._current.retire()
            self._current = None
        if self._current is None:
            self._current = _Loop()
        return self._current

    def stop(self) -> None:
        for loop in (*self._stuck, *([] if self._current is None else [self._current])):
            loop.stop()
        self._stuck.clear()
        self._current = None


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        import asyncio

        self._asked: deque[float] = deque()  # when it was handed what it has not come to yet, oldest first
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run_loop, args=(self._loop,), name="eventflow-loop", daemon=True).start()

    def post(self, function: Callable[[], object]) -> None:
        """Have *function* called there, in a copy of the context that is current here; nothing once it has ended."""
        self._asked.append(time.monotonic())
        with contextlib.suppress(RuntimeError):  # it is closed: nothing is under way
            self._loop.call_soon_threadsafe(self._call, function)

    def _call(self, function: Callable[[], object]) -> None:
        self._asked.popleft()
        function()

    def silence(self) -> float:
        """Seconds for which it has not come to what it was handed."""
        oldest = tuple(self._asked)[:1]  # its thread may take it out meanwhile
        return time.monotonic() - oldest[0] if oldest else -1.0

    def create_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Called in its thread."""
        return self._loop.create_task(coroutine, name=name)

    def retire(self) -> None:
        """End it when everything that is under way there has ended."""
        self.post(lambda: self.create_task(_stop_last(), "eventflow-loop"))

    def stop(self) -> None:
        """Cancel what is under way there, and end it."""
        self.post(self._loop.stop)


async def _stop_last() -> None:
    import asyncio

    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    asyncio.get_running_loop().stop()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    with asyncio.Runner(loop_factory=lambda: loop):  # its end cancels the tasks, and lets them end
        loop.run_forever()


class _Remote:
    """A job in the loop of another thread."""

    def __init__(
        self,
        loop: _Loop,
        function: Callable[[], Coroutine[Any, Any, object]],
        name: str,
        then: Callable[[], object],
    ) -> None:
        self.done = False
        self._loop, self._name = loop, name
        self._function, self._then = function, then
        self._task: asyncio.Task[None] | None = None
        loop.post(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._work(), self._name)
        self._task.add_done_callback(self._ended)

    async def _work(self) -> None:
        await self._function()

    def _ended(self, task: asyncio.Task[None]) -> None:
        _look_at(task)
        self.done = True
        self._then()

    def cancel(self) -> None:
        self._loop.post(self._cancel)

    def _cancel(self) -> None:
        assert self._task is not None  # a loop does things in their order
        self._task.cancel()
