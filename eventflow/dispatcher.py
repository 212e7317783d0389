"""The front door: a `Dispatcher` holds plugins and handlers, takes a source, starts a run."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, Unpack, overload

from eventflow import plugin as plugins
from eventflow import signals
from eventflow.errors import UsageError
from eventflow.events import Event, Response
from eventflow.limits import Limits, limits_of
from eventflow.pipeline import unrolled
from eventflow.plan import Plan
from eventflow.plugin import Plugin
from eventflow.reading import let_go
from eventflow.routing import Background, Handler, HandlerOptions, Select, handler_of, matcher_of
from eventflow.run import Run, aloop, loop
from eventflow.sources import Source, open_source
from eventflow.streams import AsyncEventStream, AsyncPush, EventStream, Push
from eventflow.timers import Timeouts, timeouts_of

__all__ = ["Dispatcher", "Undo", "acollect", "aiter_events", "collect", "iter_events"]

E = TypeVar("E", bound=Event)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")


class Undo:
    """Takes a registration back when called, or at the end of a ``with`` block. Twice is once."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def __call__(self) -> None:
        """Take it back."""
        self._undo()

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo()


class FunctionOn(Protocol[E]):
    """``flow.on(EventClass)`` over a function."""

    @overload
    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]: ...
    @overload
    def __call__(self, handler: Callable[[E, Run], R], /) -> Callable[[E, Run], R]: ...


class Dispatcher:
    """Routes the events of streams to handlers and plugins.

    ::

        flow = Dispatcher(WordCount())


        @flow.on(TextDelta)
        def show(event: TextDelta) -> None:
            print(event.delta, end="", flush=True)


        run = flow.run(source)

    Any number of runs may go on at once, in any threads and tasks; each takes the registrations as they are when it
    starts. Registering is safe from any thread.

    Args:
        plugins: Plugins and pipelines, in order.
        snapshot: False for relays of many streams: no received text is kept, no sequence numbers are compared, and
            frames that nobody listens to are not parsed.
        strict: Raise `SequenceError` for missing or doubled events instead of noting them in ``run.warnings``.
        limits: What one stream may cost.
        timeout: How long to wait for a source. By default what the source itself says: `Timeouts` for HTTP responses,
            those of the client for its streams, nothing for files and iterables.
        clock: Gives seconds, never goes back; for tests.

    Raises:
        UsageError: A plugin is none, or *limits* or *timeout* are something else.
    """

    def __init__(
        self,
        *plugins: Plugin,
        snapshot: bool = True,
        strict: bool = False,
        limits: Limits | None = None,
        timeout: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeouts = timeouts_of(timeout, None)
        self._clock = clock
        self._snapshot = snapshot
        self._strict = strict
        self._limits = limits_of(limits)
        self._lock = threading.RLock()  # a plugin may register handlers while it is opened
        self._uses: tuple[list[Plugin], ...] = (unrolled(plugins),)  # a list is one use, and what its undo takes out
        self._handlers: tuple[Handler, ...] = ()
        self._plan: Plan | None = None
        self._opened: list[Plugin] = []
        self._finalizer = weakref.finalize(self, _close_all, self._opened)

    # --- registering -------------------------------------------------------------------------------------------------

    @overload  # the overloads overlap where a class is given; the first that fits is meant, it knows the event
    def on(  # type: ignore[overload-overlap]
        self, select: type[E], /, **options: Unpack[HandlerOptions]
    ) -> FunctionOn[E]: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self, select: type[E], handler: Callable[[E], object], /, **options: Unpack[HandlerOptions]
    ) -> Undo: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self, select: type[E], handler: Callable[[E, Run], object], /, **options: Unpack[HandlerOptions]
    ) -> Undo: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self, select: type[E1], second: type[E2], /, **options: Unpack[HandlerOptions]
    ) -> FunctionOn[E1 | E2]: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self, select: str, handler: Callable[..., object], /, **options: Unpack[HandlerOptions]
    ) -> Undo: ...
    @overload
    def on(self, *selects: Select, **options: Unpack[HandlerOptions]) -> Callable[[F], F]: ...
    def on(self, *selects: Any, **options: Any) -> Any:
        """Register a handler: as a decorator, which returns the function unchanged, or with the handler last.

        Args:
            selects: Event classes, wire names (dots or underscores), families, or patterns with ``*``; in the call
                form, the handler last.
            options: More about the handler:

                - ``order=0``: lower comes first; handlers of one order run as they were registered.
                - ``errors="raise"``: what a failure of the handler does: ``raise`` ends the run with it; ``isolate``
                  logs it, reports it as a `HandlerFailed` event, and the run goes on.
                - ``background=False``: whether it hears events beside the run, in order, from a queue of its own: a
                  plain function in a thread, a coroutine function in a task. The run waits for it before it ends, and
                  ends with what it raises.
                - ``queue``, ``overflow``, ``patience``: of one in the background, see `eventflow.routing.Background`.

        Returns:
            A decorator; in the call form, an `Undo`.

        Raises:
            UsageError: A selector can never match, or the handler cannot take an event.
        """
        unknown = options.keys() - HandlerOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"on() got an unexpected keyword argument {min(unknown)!r}")
        said: HandlerOptions = options  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        if selects and callable(selects[-1]) and not isinstance(selects[-1], type):
            if len(selects) == 1:
                raise UsageError('on() needs a selector: on(TextDelta), on("tool"), on("*")')
            return self._register(selects[:-1], selects[-1], said)
        if not selects:
            raise UsageError('on() needs a selector: on(TextDelta), on("tool"), on("*")')
        for select in selects:
            matcher_of(select)  # a misspelt one fails here, at the decorator's own line
        Background.of(said)

        def decorate(function: F) -> F:
            self._register(selects, function, said)
            return function

        return decorate

    def _register(self, selects: tuple[Select, ...], function: Callable[..., Any], options: HandlerOptions) -> Undo:
        handler = handler_of(
            function,
            tuple(map(matcher_of, selects)),
            order=options.get("order", 0),
            errors=options.get("errors", "raise"),
            background=Background.of(options),
        )
        with self._lock:
            self._handlers, self._plan = (*self._handlers, handler), None

        def undo() -> None:
            with self._lock:
                self._handlers = tuple(other for other in self._handlers if other is not handler)
                self._plan = None

        return Undo(undo)

    def use(self, plugin: Plugin | str, /, **configuration: Any) -> Undo:
        """Add a plugin behind the others: an instance, or the name of an entry point with its configuration.

        Raises:
            PluginError: No such plugin can be loaded.
            UsageError: It is no plugin.
        """
        if isinstance(plugin, str):
            plugin = plugins.make(plugin, configuration)
        elif configuration:
            raise UsageError("use() takes configuration with a name only; configure the instance itself")
        added = unrolled((plugin,))
        with self._lock:
            self._uses, self._plan = (*self._uses, added), None

        def undo() -> None:
            with self._lock:
                self._uses = tuple(use for use in self._uses if use is not added)
                self._plan = None

        return Undo(undo)

    # --- shared resources --------------------------------------------------------------------------------------------

    def __enter__(self) -> Dispatcher:
        self._current_plan()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Call ``close`` of every plugin that was opened, last first; a later run opens them anew. Twice is once."""
        with self._lock:
            _close_all(self._opened)

    def _current_plan(self) -> Plan:
        """The compiled registrations; plugins that are new are opened."""
        with self._lock:
            used = tuple(plugin for use in self._uses for plugin in use)
            for plugin in used:
                if not any(plugin is opened for opened in self._opened):
                    plugin.open()
                    self._opened.append(plugin)
            if self._plan is None:
                self._plan = Plan(used, self._handlers)
            return self._plan

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, source: Any, *, wire: str | None = None, check: bool = True, turn: int = 0) -> Run:
        """Take *source* to its end.

        Args:
            source: An HTTP response, a path, an open binary file, bytes, or an iterable of bytes, frames, mappings or
                events.
            wire: Which wire its frames are of; by default the first frame tells.
            check: False never raises for the stream's own failures; see ``run.status`` and ``run.error``.
            turn: For loops: which turn with the model it is, from 1. The run knows it, and begins with a `TurnStarted`.

        Raises:
            UsageError: The source is none, or a handler is async.
            EventflowError: The stream did not end well; its ``partial`` has what was received.
            Exception: What a handler, transform or hook raised, with a note that names it.
        """
        opened, run = self._begin(source, wire, check, turn, is_async=False)
        list(loop(run, opened))  # nothing is delivered: it runs to the end
        return run

    async def arun(self, source: Any, *, wire: str | None = None, check: bool = True, turn: int = 0) -> Run:
        """`run`, async; the source may be sync or async."""
        opened, run = await self._abegin(source, wire, check, turn)
        [event async for event in aloop(run, opened)]
        return run

    def stream(self, source: Any, *, wire: str | None = None, check: bool = True, turn: int = 0) -> EventStream:
        """Iterate the events that come through the pipeline; handlers are called too. Arguments as for `run`."""
        opened, run = self._begin(source, wire, check, turn, is_async=False, deliver=True)
        return EventStream(run, opened)

    def astream(self, source: Any, *, wire: str | None = None, check: bool = True, turn: int = 0) -> AsyncEventStream:
        """`stream`, async. Where this call raises, the source is still the caller's to close."""
        self._plan_for(is_async=True)  # before the source is opened: nothing here can wait until it is let go of
        opened, run = self._begin(source, wire, check, turn, is_async=True, deliver=True)
        return AsyncEventStream(run, opened)

    def open(self, *, wire: str | None = None, check: bool = True) -> Push:
        """A run to push into: ``with flow.open() as run: run.feed(chunk)``. Arguments as for `run`."""
        return Push(self._make(wire, check, is_async=False))

    def aopen(self, *, wire: str | None = None, check: bool = True) -> AsyncPush:
        """A run to push into: ``async with flow.aopen() as run: await run.afeed(chunk)``."""
        return AsyncPush(self._make(wire, check, is_async=True))

    def _begin(
        self, source: Any, wire: str | None, check: bool, turn: int, *, is_async: bool, deliver: bool = False
    ) -> tuple[Source, Run]:
        opened = open_source(source)
        try:
            return opened, self._over(opened, wire, check, turn, is_async=is_async, deliver=deliver)
        except BaseException:
            opened.close()
            raise

    async def _abegin(
        self, source: Any, wire: str | None, check: bool, turn: int, *, deliver: bool = False
    ) -> tuple[Source, Run]:
        opened = open_source(source)
        try:
            return opened, self._over(opened, wire, check, turn, is_async=True, deliver=deliver)
        except BaseException:
            await let_go(opened)
            raise

    def _over(self, opened: Source, wire: str | None, check: bool, turn: int, *, is_async: bool, deliver: bool) -> Run:
        """A run over a source that is open."""
        if not is_async and opened.items is None:
            raise UsageError("the source is asynchronous; use arun(), astream() or acollect()")
        if is_async and opened.aitems is None and opened.blocking:
            raise UsageError("the source is a synchronous HTTP response; use run(), or an async client")
        return self._make(wire or opened.wire, check, turn, is_async=is_async, deliver=deliver)

    def _plan_for(self, is_async: bool) -> Plan:
        """The compiled registrations; raises `UsageError` where a sync run would have to await."""
        plan = self._current_plan()
        names = [] if is_async else plan.asynchronous()
        if names:
            raise UsageError(f"{', '.join(names)} can only be awaited; use arun(), astream() or aopen()")
        return plan

    def _make(self, wire: str | None, check: bool, turn: int = 0, *, is_async: bool, deliver: bool = False) -> Run:
        plan = self._plan_for(is_async)
        run = Run(
            self,
            plan,
            wire=wire,
            limits=self._limits,
            keep=self._snapshot,
            strict=self._strict,
            check=check,
            is_async=is_async,
            deliver=deliver,
            timeouts=self._timeouts,
            clock=self._clock,
            turn=turn,
        )
        signals.send(signals.run_started, self, run=run)
        return run


def _close_all(opened: list[Plugin]) -> None:
    """Close every plugin, last first, though one raises; raise what the first one did."""
    first: Exception | None = None
    while opened:
        try:
            opened.pop().close()
        except Exception as error:
            first = first or error
    if first is not None:
        raise first


# --- without a dispatcher --------------------------------------------------------------------------------------------


def iter_events(source: Any, *, wire: str | None = None, limits: Limits | None = None) -> EventStream:
    """The events of *source*; raises as `Dispatcher.run` does."""
    return Dispatcher(limits=limits).stream(source, wire=wire)


def aiter_events(source: Any, *, wire: str | None = None, limits: Limits | None = None) -> AsyncEventStream:
    """`iter_events`, async."""
    return Dispatcher(limits=limits).astream(source, wire=wire)


def collect(source: Any, *, wire: str | None = None, limits: Limits | None = None) -> Response:
    """The whole response of *source*; raises as `Dispatcher.run` does."""
    return Dispatcher(limits=limits).run(source, wire=wire).response


async def acollect(source: Any, *, wire: str | None = None, limits: Limits | None = None) -> Response:
    """`collect`, async."""
    return (await Dispatcher(limits=limits).arun(source, wire=wire)).response
