"""`Run`: one stream on its way through a dispatcher; and the only two loops, sync and async."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from eventflow import signals
from eventflow.background import Lane
from eventflow.engine import CLOSE, PULL, Engine
from eventflow.errors import EventflowError, StreamTimeout, UsageError
from eventflow.events import Event, Response, TurnStarted
from eventflow.limits import Limits
from eventflow.outcome import Status
from eventflow.plan import Plan, Step
from eventflow.plugin import Pause, Plugin
from eventflow.reading import AsyncReader, Reader
from eventflow.routing import Background, HandlerOptions, handler_of
from eventflow.snapshot import Oddity
from eventflow.sources import Source
from eventflow.sse import Frame
from eventflow.timers import Timeouts, Timers
from eventflow.waiting import Bell, shielded, waiter

if TYPE_CHECKING:
    from eventflow.dispatcher import Dispatcher

__all__ = ["Left", "Run", "aloop", "loop"]

P = TypeVar("P", bound=Plugin)


class Left(BaseException):
    """The consumer has left: thrown into the engine so that it ends as a cancellation does."""


class Run:
    """One stream on its way through a dispatcher: its state, its result, its errors.

    Made by a dispatcher. Two runs share nothing that changes. `cancel`, `emit` and `wake` may be called from other
    threads; everything else belongs to the thread or task that drives the run.

    Attributes:
        id: A random name, for logs.
        dispatcher: The dispatcher that made it.
        plugins: The run's own copies of the plugins, in order.
        outbox: Items to send back to the model: what tools gave.
        turn: Which turn of an agent it is, from 1; 0 for a run of its own.
        is_async: Whether it is driven by a task: handlers and hooks may be async.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        plan: Plan,
        *,
        wire: str | None,
        limits: Limits,
        keep: bool,
        strict: bool,
        check: bool,
        is_async: bool,
        deliver: bool = False,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
        turn: int = 0,
    ) -> None:
        self.id = "run_" + os.urandom(8).hex()
        self.dispatcher = dispatcher
        self.outbox: list[Any] = []
        self.turn = turn
        self.is_async = is_async
        self._check = check
        self._bell = Bell()
        self._interrupt: Any = None
        self._steps: Any = None  # of a run that is pushed
        self._fed = threading.Lock()
        self._left = False  # whether the block of `open` was left
        self._finished = False
        self._timeouts = timeouts
        self._clock = clock
        self._timers: Timers | None = None  # of a run that is pushed
        self._engine = Engine(
            self,
            plan,
            wire=wire,
            limits=limits,
            keep=keep,
            strict=strict,
            is_async=is_async,
            deliver=deliver,
            clock=clock,
            lock=threading.RLock(),  # a signal handler may emit in the middle of an emit
        )
        self._engine.measures = timeouts is not None and timeouts.total is not None
        self.plugins: tuple[Plugin, ...] = self._engine.chain.plugins
        if turn:
            self.emit(TurnStarted(turn))

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.status}, {self.events} events>"

    @property
    def status(self) -> Status:
        """``running``, or how it ended: ``completed incomplete failed truncated timeout cancelled``."""
        return self._engine.outcome.status

    @property
    def error(self) -> EventflowError | None:
        """What the stream ended with when it did not end well, or None."""
        return self._engine.outcome.error

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called; the response may have been complete by then, as `status` tells."""
        return self._engine.chain.cancelled

    @property
    def source_error(self) -> Exception | None:
        """What reading the source raised, as it was raised; None where it came to its end, or was left before."""
        return self._engine.outcome.source_error

    @property
    def wire(self) -> str | None:
        """The name of the wire that the frames are of; None as long as neither the caller nor a frame has told it."""
        return self._engine.wire

    @property
    def response(self) -> Response:
        """The response as received so far, whatever the pipeline did to it: unredacted."""
        response, source = self._engine.fold().response, self._engine.outcome.source
        return response if source is None or source.parse is None else source.parse(response)

    @property
    def text(self) -> str:
        """The text as received so far."""
        return self._engine.fold().text

    @property
    def events(self) -> int:
        """How many events were received so far, the one under way included."""
        engine = self._engine
        return engine._count + len(engine._pending)  # its `count`, without the call: logs ask with every event

    @property
    def warnings(self) -> tuple[Oddity, ...]:
        """What was odd but survivable: gaps, duplicates, deltas that differ from the done text; at most 100."""
        return tuple(self._engine.fold().oddities)

    @property
    def frame(self) -> Frame | None:
        """The frame under way as it stood on the wire; None where the source gives events. Made when read."""
        return self._engine.frame

    def __getitem__(self, plugin: type[P], /) -> P:
        """The first plugin of class *plugin* in this run; raises `UsageError` when there is none."""
        _check_class(plugin)
        for instance in self.plugins:
            if isinstance(instance, plugin):
                return instance
        names = ", ".join(type(instance).__name__ for instance in self.plugins) or "none"
        raise UsageError(f"no {plugin.__name__} runs here; the plugins of this run: {names}")

    def emit(self, event: Event) -> None:
        """Dispatch *event* right after the current one, from the head of the pipeline. From any thread.

        From elsewhere than a handler it is dispatched before the next event of the source, or at its end.

        Raises:
            UsageError: The run is over, or *event* is no event.
        """
        if not isinstance(event, Event):
            raise UsageError(f"emit() takes an event, not {type(event).__name__}")
        if self._finished or not self._engine.chain.emit(event):
            raise UsageError(f"run {self.id} is over; nothing hears what is emitted now")

    def background(self, function: Callable[..., object], **options: Unpack[HandlerOptions]) -> Lane:
        """For plugins: let *function* hear events beside the run, from a queue of its own.

        Args:
            function: Takes an event, or an event and the run. A plain one is called in a thread, a coroutine function
                in a task.
            options: ``errors``, ``queue``, ``overflow`` and ``patience``, as for `Dispatcher.on`.

        Returns:
            What is to be called with each event. A handler returns what that gives, so that the run waits where there
            is no room.

        Raises:
            UsageError: It cannot take an event, it is async and the run is not, or the run is over.
        """
        unknown = options.keys() - {"errors", "queue", "overflow", "patience"}
        if unknown:
            raise TypeError(f"background() got an unexpected keyword argument {min(unknown)!r}")
        if self._engine.chain.closed or self._finished:
            raise UsageError(f"run {self.id} is over; nothing is heard in its background now")
        options["background"] = True
        handler = handler_of(function, (), errors=options.get("errors", "raise"), background=Background.of(options))
        if handler.is_async and not self.is_async:
            raise UsageError(f"{handler.name} can only be awaited; use arun(), astream() or aopen()")
        step = Step(
            -1, "handler", handler.name, None, function, handler.matches, isolate=handler.isolate, handler=handler
        )
        return self._engine.chain.lane(handler, step)

    def wake(self) -> None:
        """Let the plugin that waits (see `Pause`) look again. From any thread."""
        self._bell.ring()

    def now(self) -> float:
        """Seconds by the dispatcher's clock."""
        return self._clock()

    def cancel(self) -> None:
        """End the run: no more events, the source closed, status ``cancelled``. From any thread; twice is once."""
        self._engine.chain.cancel()
        interrupt = self._interrupt
        if interrupt is not None:
            interrupt()

    def _abandon(self) -> None:
        """The run was left before it began."""
        self._engine.outcome.left(Left())
        self._conclude()

    def _conclude(self) -> None:
        """The run is over, on whatever path."""
        if self._finished:
            return
        self._finished = True
        error = self.error
        if error is not None:
            if error.run is None:
                error.run = self
            if error.partial is None:
                error.partial = self.response
        signals.send(signals.run_finished, self.dispatcher, run=self)

    def _raise(self) -> None:
        """Raise what the stream ended with, where the caller wants that."""
        if self._check and self.error is not None:
            raise self.error

    # --- push --------------------------------------------------------------------------------------------------------

    def feed(self, item: Any) -> None:
        """Push form: give the run a chunk, frame, mapping or event; returns when its handlers have run.

        After the terminal event nothing more is looked at, and behind the block nothing more is taken.

        Raises:
            UsageError: The run was not opened with ``open()``, or its block was left.
            Exception: Whatever `Dispatcher.run` raises.
        """
        if self._steps is None or self.is_async:
            hint = "await run.afeed(...)" if self.is_async else "a run over a source feeds itself"
            raise UsageError(f"feed() is for runs made with open(); {hint}")
        self._check_entered()
        self._push(item)

    async def afeed(self, item: Any) -> None:
        """`feed`, for runs made with ``aopen()``."""
        if self._steps is None or not self.is_async:
            hint = "a run over a source feeds itself" if self.is_async else "use run.feed(...)"
            raise UsageError(f"afeed() is for runs made with aopen(); {hint}")
        self._check_entered()
        await self._apush(item)

    def tick(self) -> float:
        """Push form: see whether the next item is overdue by `Timeouts`; call it now and then while none comes.

        The time between two items counts, not the time that handlers take.

        Returns:
            Seconds until the next item is overdue; infinite where nothing is waited for.

        Raises:
            UsageError: The run was not opened with ``open()``.
            StreamTimeout: It is overdue, and the run has ended with it.
        """
        left, error = self._time_left(is_async=False)
        if error is not None:
            self._push(error, throw=True)
        return left

    async def atick(self) -> float:
        """`tick`, for runs made with ``aopen()``."""
        left, error = self._time_left(is_async=True)
        if error is not None:
            await self._apush(error, throw=True)
        return left

    def _time_left(self, *, is_async: bool) -> tuple[float, StreamTimeout | None]:
        if self._steps is None or self.is_async is not is_async:
            raise UsageError("tick() is for runs made with open(), atick() for those made with aopen()")
        if self._finished or self._timers is None or self._fed.locked():  # an item is being handled
            return inf, None
        now = self._clock()
        self._timers.end(now)
        left = self._timers.begin(now, self._engine.progress, self._engine.handled) - now
        return (left, None) if left > 0 else (0.0, self._timers.error())

    def _open_push(self) -> None:
        self._check_unopened()
        self._steps = self._engine.steps()
        self._push(None)

    def _check_unopened(self) -> None:
        if self._steps is not None:
            raise UsageError(f"run {self.id} was opened before; call open() again for another run")

    def _check_entered(self) -> None:
        if self._left:
            raise UsageError(f"run {self.id} is over: its block was left; nothing takes what is fed now")

    async def _aopen_push(self) -> None:
        self._check_unopened()
        self._steps = self._engine.steps()
        await self._apush(None)

    def _push(self, item: Any, *, throw: bool = False) -> None:
        if self._finished:
            return
        with self._turn(), self._feeding():
            if not self._finished:  # by another thread's item, which came first
                self._send(item, throw=throw)

    def _send(self, item: Any, *, throw: bool) -> None:
        try:
            request = (self._steps.throw if throw else self._steps.send)(item)
            while request is not PULL:  # a sync run asks for nothing else but a pause; the source is somebody else's
                request = self._after(request)
        except StopIteration:
            self._conclude()
            self._raise()
        except BaseException:
            self._conclude()
            raise

    async def _apush(self, item: Any, *, throw: bool = False) -> None:
        if self._finished:
            return
        with self._turn(), self._feeding():
            if not self._finished:
                await self._asend(item, throw=throw)

    def _turn(self) -> threading.Lock:
        """One item at a time: what a second one did in the middle of the first would be lost.

        The lock is taken by "with": an interrupt between acquire() and try would leave it held.
        """
        if self._fed.locked():
            raise UsageError(f"run {self.id} is being fed already; feed it from one task or thread at a time")
        return self._fed

    @contextlib.contextmanager
    def _feeding(self) -> Generator[None]:
        """The time between two items counts, not the time that an item takes."""
        try:
            if self._timers is not None:
                self._timers.end(self._clock())
            yield
        finally:
            if self._timers is None:
                self._timers = Timers(self._timeouts or Timeouts())
            self._timers.begin(self._clock(), self._engine.progress, self._engine.handled)

    async def _asend(self, item: Any, *, throw: bool) -> None:
        send = self._steps.throw if throw else self._steps.send
        try:
            while (request := send(item)) is not PULL:
                try:
                    send, item = self._steps.send, await self._done(request, leaving=throw)
                except BaseException as error:
                    send, item = self._steps.throw, error
                    throw = throw or not isinstance(error, Exception)
        except StopIteration:
            self._conclude()
            self._raise()
        except BaseException:
            self._conclude()
            raise

    # --- what the engine asks for, besides the next item --------------------------------------------------------------

    def _after(self, request: object) -> Any:
        """Do what is asked for; returns what the engine asks for next."""
        try:
            if isinstance(request, Pause):
                self._bell.wait(request.seconds)
        except BaseException as error:
            return self._steps.throw(error)
        return self._steps.send(None)

    async def _done(self, request: Any, *, leaving: bool) -> Any:
        """What is asked for in an async run: a pause, or something awaited; *leaving*, though the task is cancelled."""
        if request is CLOSE:  # of a run that is pushed: the source is somebody else's
            return None
        if type(request) is Pause:
            request = self._bell.await_(request.seconds)
        return await (shielded(request) if leaving else request)


def _check_class(plugin: object) -> None:
    if not isinstance(plugin, type):
        raise UsageError(f"a run is asked for a plugin by its class: run[WordCount], not run[{plugin!r}]")


# --- the two loops ---------------------------------------------------------------------------------------------------


def loop(run: Run, source: Source) -> Generator[Event, None, None]:
    """Drive *run* over *source* to the end; yields the events that came through, where the run delivers them."""
    reader = Reader(run._engine, source, run._timeouts, run._clock, run.id)
    run._interrupt = reader.interrupt
    steps = run._engine.steps()
    send, throw, pull = steps.send, steps.throw, reader.pull
    try:
        request = send(None)
        while True:
            if request is PULL:
                try:
                    item = pull()
                except BaseException as error:
                    request = throw(error)
                    continue
                request = send(item)
            else:
                try:
                    if type(request) is Pause:
                        run._bell.wait(request.seconds)
                    elif request is CLOSE:
                        run._interrupt = None  # the connection may be another request's from here on
                        reader.close()
                    else:
                        yield request
                except GeneratorExit:
                    request = throw(Left())
                except BaseException as error:
                    request = throw(error)
                else:
                    request = send(None)
    except StopIteration:
        pass
    except Left:
        return
    finally:
        run._interrupt = None
        try:
            reader.close()
        finally:
            run._conclude()
    run._raise()


async def aloop(run: Run, source: Source) -> AsyncGenerator[Event, None]:
    """`loop`, async."""
    wait = waiter()
    reader = AsyncReader(run._engine, source, run._timeouts, run._clock, run.id, wait)
    run._interrupt = wait.interrupt
    steps, pull, timed = run._engine.steps(), reader.pull, reader.timed
    send: Any = steps.send
    value: Any = None
    leaving = False
    try:
        while True:
            request = send(value)
            send, value = steps.send, None
            try:
                if request is PULL:
                    try:
                        value = await pull()
                    except Exception as error:
                        value = await reader.ended(error)
                    else:
                        if timed:
                            reader.came()
                elif isinstance(request, Event):
                    yield request
                    wait.handed_over()
                elif request is CLOSE:
                    run._interrupt = None
                    await reader.close()
                else:
                    value = await run._done(request, leaving=leaving)
            except GeneratorExit:
                wait.handed_over()  # to whoever closes this
                send, value, leaving = steps.throw, Left(), True
            except BaseException as error:
                send, value, leaving = steps.throw, error, not isinstance(error, Exception)
    except StopIteration:
        pass
    except Left:
        return
    finally:
        run._interrupt = None
        try:
            await reader.close()
        finally:
            run._conclude()
    run._raise()
