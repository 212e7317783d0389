"""`Chain`: a plan bound to one run. Events go in; handlers are called, replacements and emissions followed.

Whatever takes more than a call is a generator of the engine's kind: it yields what must be awaited, and, for a run
that delivers, the events that came through.
"""

from __future__ import annotations

import contextlib
import inspect
import types
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from eventflow import signals
from eventflow.background import Lane, ending
from eventflow.errors import EventflowError, LimitExceeded, UsageError, excerpt
from eventflow.events import Event, HandlerFailed, UnknownEvent
from eventflow.logs import logger
from eventflow.plan import Plan, Step, same
from eventflow.plugin import Pause, Plugin, instantiate
from eventflow.printable import printable
from eventflow.rewriting import Part, Rewriter
from eventflow.routing import Handler, name_of
from eventflow.waiting import discard

if TYPE_CHECKING:
    from eventflow.run import Run

__all__ = ["INERT", "Call", "Chain", "Steps"]

Call: TypeAlias = Callable[[Any], Any]
Steps: TypeAlias = Generator[Any, Any, None]

INERT = frozenset({bool, int, float, str, bytes})
"""What handlers often give and nobody follows: ``lambda event: out.write(event.delta)``."""

_log = logger("eventflow")


class Chain:
    """The steps of one run.

    Driven from one thread at a time; `emit` and `cancel` may be called from others.

    Attributes:
        plugins: The run's own copies of the plugins.
        attention: Whether something was emitted, or the run is to end: to be looked at after every event.
        cancelled: Whether the run is to end.
        closed: Whether it is too late to emit: the run ends.
        exceeded: The limit on emitted events, once it is reached: it ends the stream, and is no handler's failure.
        receivers: The ``receive`` of every plugin that has one, in order, and whether it takes the run.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        *,
        is_async: bool,
        deliver: bool,
        max_emitted: int | None,
        lock: contextlib.AbstractContextManager[object],
    ) -> None:
        self.plugins: tuple[Plugin, ...] = tuple(map(instantiate, plan.templates))
        self.attention = False
        self.cancelled = False
        self.closed = False
        self.exceeded: LimitExceeded | None = None
        self.receivers: tuple[tuple[Callable[..., object], bool], ...] = tuple(
            (self.plugins[place].receive, wants_run) for place, wants_run in plan.receivers
        )
        self._run = run
        self._plan = plan
        self._is_async = is_async
        self._deliver = deliver
        self._max_emitted = max_emitted
        self._routes: dict[tuple[type[Event], str], tuple[tuple[Step, Call], ...]] = {}
        self._rewriters: dict[int, Rewriter] = {}
        self._queue: deque[Event] = deque()  # one object for ever: other threads append to it
        self._emitting = lock
        self._failures: list[Exception] = []  # what handlers in the background raised, to end the run with
        self._lanes: list[Lane] = []
        self._lane_of: dict[int, Lane] = {}  # by the place of its step
        self._waits = True  # whether anything can be waited for: somebody drives the run, as far as is known

    # --- from any thread ---------------------------------------------------------------------------------------------

    def emit(self, event: Event) -> bool:
        """Queue *event* to be dispatched after the current one; False when it is too late."""
        with self._emitting:
            if self.closed:
                return False
            self._queue.append(event)
        self.attention = True
        self._run.wake()
        return True

    def cancel(self) -> None:
        """Have the run end at the next chance."""
        self.cancelled = True
        self.attention = True
        self._run.wake()

    # --- routes ------------------------------------------------------------------------------------------------------

    def straight(self, cls: type[Event], name: str) -> tuple[Call, ...] | None:
        """What to call with events of class *cls*, one after the other; None where something may change them."""
        route = self._route(cls, name)
        if any(step.kind != "handler" for step, _ in route):
            return None
        return tuple(call for _, call in route)

    def _route(self, cls: type[Event], name: str) -> tuple[tuple[Step, Call], ...]:
        route = self._routes.get((cls, name))
        if route is None:
            route = tuple((self._plan.steps[place], self._bind(place)) for place in self._plan.route(cls, name))
            if cls is not UnknownEvent:  # a peer can invent names without end
                self._routes[cls, name] = route
        return route

    def _bind(self, place: int) -> Call:
        step = self._plan.steps[place]
        if step.handler is not None:
            return self._lane_at(place, step, step.handler)
        target: Any = step.target if step.plugin is None else getattr(self.plugins[step.plugin], str(step.target))
        if step.kind == "rewrite":
            if place not in self._rewriters:
                rewrite = target if step.wants_run else _whole_pieces(target)
                self._rewriters[place] = Rewriter(_giving_text(rewrite, step.name), step.families)
            return self._rewriters[place].feed
        if step.wants_run:
            run = self._run
            return lambda event: target(event, run)
        return target  # type: ignore[no-any-return]

    # --- dispatch ----------------------------------------------------------------------------------------------------

    def dispatch(self, event: Event, after: int = -1) -> Steps:
        """Take *event* through the steps behind the place *after*."""
        for step, call in self._route(type(event), event.type):
            if step.place <= after:
                continue
            try:
                result = call(event)
                if step.kind != "handler":
                    if not isinstance(result, Event) and inspect.isawaitable(result):
                        result = yield from self._awaited(result, step.name)
                    if result is event:
                        continue
                    result = _events_of(result, step.name)
            except Exception as error:
                self.raised(error, step, event)
                continue
            if step.kind == "handler":
                if result is not None and type(result) not in INERT:
                    yield from self.follow(result, step, event)
                continue
            for replacement in result:
                yield from self.dispatch(replacement, step.place)
            return
        if self._deliver:
            yield event

    def drain(self) -> Steps:
        """Dispatch what was emitted; what is emitted on the way comes right after its cause.

        Raises what a handler in the background has raised.
        """
        self.attention = self.cancelled
        if self._failures:
            raise self._failures[0]
        emitted = 0
        later: deque[Event] = deque()
        while not self.cancelled:
            later.extendleft(reversed([self._queue.popleft() for _ in range(len(self._queue))]))
            if not later:
                return
            emitted += 1
            self._check_emitted(emitted)
            yield from self.dispatch(later.popleft())

    def _check_emitted(self, emitted: int) -> None:
        if self._max_emitted is not None and emitted > self._max_emitted:
            self.exceeded = LimitExceeded(limit="emitted", maximum=self._max_emitted, seen=emitted)
            raise self.exceeded

    def follow(self, result: object, step: Step, event: Event) -> Steps:
        """A handler gave something: a generator's events are emitted, an awaitable is awaited, the rest is ignored.

        A lane that gives itself is full: the run waits for room.
        """
        try:
            if inspect.isawaitable(result):
                result = yield from self._awaited(result, step.name)
            if type(result) is Lane:
                yield from self._wait_for_room(result)
            elif isinstance(result, types.GeneratorType):
                for emitted in cast("Iterable[object]", result):
                    self._emit_from(step, emitted)
            elif isinstance(result, types.AsyncGeneratorType):
                yield from self._follow_async(cast("AsyncGenerator[object, None]", result), step)
        except Exception as error:
            self.raised(error, step, event)

    def _follow_async(self, events: AsyncGenerator[object, None], step: Step) -> Steps:
        if not self._is_async:
            raise UsageError(f"{step.name} is an async generator; use arun(), astream() or aopen()")
        try:
            while not self.cancelled:
                try:
                    emitted = yield events.__anext__()
                except StopAsyncIteration:
                    return
                self._emit_from(step, emitted)
        except GeneratorExit:
            raise  # nothing can be awaited any more
        except BaseException:
            yield events.aclose()
            raise
        yield events.aclose()

    def _emit_from(self, step: Step, emitted: object) -> None:
        if not isinstance(emitted, Event):
            raise UsageError(
                f"{step.name} yielded {excerpt(repr(emitted))}; a handler that is a generator yields events"
            )
        self._check_emitted(len(self._queue) + 1)
        self.emit(emitted)

    def _awaited(self, awaitable: Any, name: str) -> Generator[Any, Any, Any]:
        if not self._is_async:
            discard(awaitable)
            raise UsageError(f"{name} gave an awaitable; use arun(), astream() or aopen()")
        if not self._waits:
            discard(awaitable)
            _log.warning("%s was not awaited in %s: the run was dropped", name, self._where())
            return None
        return (yield awaitable)

    # --- beside the run ----------------------------------------------------------------------------------------------

    def lane(self, handler: Handler, step: Step) -> Lane:
        """Let *handler* hear events beside the run; the run waits for it before it ends."""
        lane = Lane(
            self._run,
            handler,
            lambda error, event: self._failed_beside(error, step, event),
            lambda emitted: self._emit_from(step, emitted),
        )
        self._lanes.append(lane)
        return lane

    def _lane_at(self, place: int, step: Step, handler: Handler) -> Lane:
        """The lane of a step: one for a function, however many selectors it was registered with, one by one."""
        for other, lane in self._lane_of.items():
            known = self._plan.steps[other]
            if known.handler is not None and same(known, step) and known.handler.runs_like(handler):
                return lane
        self._lane_of[place] = lane = self.lane(handler, step)
        return lane

    def _failed_beside(self, error: Exception, step: Step, event: Event) -> bool:
        """A handler in the background raised, in its thread or task; whether that ends the run."""
        if self.closed:
            _log.error("%s on %s failed when %s was over", step.name, event.type, self._where(step), exc_info=error)
            return True
        try:
            self.raised(error, step, event)
        except Exception as raised:
            self._failures.append(raised)
            self.attention = True
            self._run.wake()
            return True
        return False

    def _wait_for_room(self, lane: Lane) -> Steps:
        while lane.full and not self._hurries:
            for pause in lane.waiting():
                yield pause
                if self._hurries:
                    return

    @property
    def _hurries(self) -> bool:
        """Whether the run is to end before its handlers in the background have heard everything."""
        return self.cancelled or bool(self._failures)

    def _empty_lanes(self) -> Steps:
        """Wait until everything queued has been handled, what that emits included."""
        while not self.cancelled:
            busy = next((lane for lane in self._lanes if not lane.idle), None)
            if self.attention:
                yield from self.drain()
            elif busy is None:
                return
            else:
                for pause in busy.waiting():
                    yield pause
                    if self.attention:  # which the handler may be waiting for
                        yield from self.drain()
                    if self.cancelled:
                        break

    def _close_lanes(self, left: BaseException | None) -> Steps:
        for lane in self._lanes:
            lane.close()
        if self._waits:
            yield from ending(self._lanes)
        for failure in self._failures:
            if failure is not left:
                _log.error("a handler in the background failed in %s", self._where(), exc_info=failure)
        for lane in self._lanes:
            if lane.dropped:
                _log.info("%s did not hear %d of the events of run %s", lane.name, lane.dropped, self._run.id)

    # --- failure -----------------------------------------------------------------------------------------------------

    def failed(self, error: Exception, call: Call, event: Event) -> None:
        """`raised`, for a call of `straight`."""
        self.raised(error, self.step_of(call, event), event)

    def step_of(self, call: Call, event: Event) -> Step:
        """The step that a call of `straight` belongs to."""
        return next(step for step, bound in self._route(type(event), event.type) if bound is call)

    def raised(self, error: Exception, step: Step, event: Event) -> None:
        """A step raised: report it where it is isolated, else end the run with it."""
        if self._told(error):
            raise error
        what = f"{step.name} on {event.type}"
        if isinstance(error, StopIteration):  # would end the generators of the chain instead of the run
            wrapped = RuntimeError(f"{step.name} raised StopIteration")
            wrapped.__cause__ = error
            error = wrapped
        failing_again = isinstance(event, HandlerFailed)  # only logged: it would answer itself for ever
        if not (step.isolate or failing_again):
            error.add_note(printable(f"raised by {what} in {self._where(step)}"))
            raise error
        _log.error("%s failed in %s", what, self._where(step), exc_info=error)
        if failing_again:
            return
        failure = HandlerFailed(error, step.name, event)
        signals.send(signals.handler_failed, self._run.dispatcher, run=self._run, failure=failure)
        self.emit(failure)

    def claim(self, error: BaseException) -> None:
        """An error of ours that a handler or hook raised tells of this run, unless it has one of its own."""
        if isinstance(error, EventflowError) and error.run is None:
            error.run, error.partial = self._run, self._run.response
            error.phase = error.phase or "handler"

    def _told(self, error: Exception) -> bool:
        """Whether *error* comes by a second time on its way out."""
        return error is self.exceeded or any(error is failure for failure in self._failures)

    def _where(self, step: Step | None = None) -> str:
        where = f"run {self._run.id}"
        if step is not None and step.handler is not None:
            return f"the background of {where}"  # which is at a later event
        return f"{where}, event {self._run.events}"

    # --- hooks -------------------------------------------------------------------------------------------------------

    def start(self) -> Steps:
        """Every plugin's ``start``, in order."""
        for plugin in self.plugins:
            yield from self._hook(plugin, "start")
        yield from self.drain()

    def receive(self, item: object) -> None:
        """Show *item* to every plugin's ``receive``, in order."""
        for receive, wants_run in self.receivers:
            try:
                if wants_run:
                    receive(item, self._run)
                else:
                    receive(item)
            except Exception as error:
                error.add_note(f"raised by {name_of(receive)} in {self._where()}")
                raise

    def finish(self) -> Steps:
        """Every plugin's ``finish``, in order; what its rewrites and it still hold goes on behind it.

        Before that, for what they emit, and after it, the handlers in the background come to the end of their queues.
        """
        if self._lanes:
            yield from self._empty_lanes()
            if self.cancelled:
                return
        for index, plugin in enumerate(self.plugins):
            for step in self._plan.steps:
                if step.plugin == index and step.place in self._rewriters:
                    for event in self._rewriters[step.place].close():
                        yield from self.dispatch(event, step.place)
            yield from self._hook(plugin, "finish", self._plan.ends[index])
            if self.cancelled:
                return
        while not (self.cancelled or self.closed):
            yield from self.drain()
            if self._lanes:
                yield from self._empty_lanes()
            self._close()

    def _close(self) -> None:
        """It is too late to emit, unless something has been since: seen in one step, or it would be lost."""
        with self._emitting:
            self.closed = True  # before the look: a signal handler may emit right here
            self.closed = not (self._queue or self._failures)

    def stop(self, left: BaseException | None) -> Generator[Any, Any, BaseException | None]:
        """The end of the handlers in the background, and every plugin's ``stop``, in reverse order.

        Whatever one of them raises.

        Args:
            left: What the run ends with already, or None.

        Returns:
            What the run ends with now: *left*, else what the first ``stop`` raised; a cancellation goes before both.
            The others are logged.
        """
        self.closed = True
        self._waits = not isinstance(left, GeneratorExit)
        endings = [("the background", self._close_lanes(left))] if self._lanes else []  # first: it may use the plugins
        endings += [(f"{type(plugin).__qualname__}.stop", self._hook(plugin, "stop")) for plugin in self.plugins[::-1]]
        for name, steps in endings:
            try:
                yield from steps
            except BaseException as error:
                if isinstance(error, GeneratorExit):
                    self._waits = False
                if left is None or (isinstance(left, Exception) and not isinstance(error, Exception)):
                    left, error = error, left
                if error is not None:
                    _log.error("%s failed in %s", name, self._where(), exc_info=error)
        return left

    def _hook(self, plugin: Plugin, name: str, place: int | None = None) -> Steps:
        """Call a hook; the events that it gives go on behind *place*, those of a generator at once; None ignores them.

        A generator may ask for a pause.
        """
        if getattr(type(plugin), name) is getattr(Plugin, name):
            return
        hook = f"{type(plugin).__qualname__}.{name}"
        try:
            result = getattr(plugin, name)(self._run)
            if inspect.isawaitable(result):
                result = yield from self._awaited(result, hook)
            if not isinstance(result, types.GeneratorType):
                yield from self._give(result, hook, place)
                return
            with contextlib.closing(cast("Generator[object]", result)) as given:
                for each in given:
                    if isinstance(each, Pause) and not self._waits:
                        return  # nobody drives the run any more: what it waits for would not come
                    yield from self._give(each, hook, place)
                    if self.cancelled and not self.closed:
                        return
        except Exception as error:
            if not self._told(error):
                error.add_note(f"raised by {hook} in {self._where()}")
            raise

    def _give(self, given: object, hook: str, place: int | None) -> Steps:
        if isinstance(given, Pause):
            if self._waits:
                yield given
        elif place is not None:
            for event in _events_of(given, hook):
                yield from self.dispatch(event, place)
        if self.attention and place is not None:
            yield from self.drain()


def _whole_pieces(method: Callable[[str], str]) -> Callable[[str, Part], str]:
    """A rewrite that takes text alone holds nothing back."""
    return lambda text, part: "" if part.final else method(text)


def _giving_text(rewrite: Callable[[str, Part], str], name: str) -> Callable[[str, Part], str]:
    def checked(text: str, part: Part) -> str:
        given = rewrite(text, part)
        if not isinstance(given, str):
            raise UsageError(f"{name} must give text, not {type(given).__name__}")
        return given

    return checked


def _events_of(given: object, name: str) -> list[Event]:
    """What a transform or hook gave, as events; raises `UsageError` for anything else."""
    if given is None:
        return []
    if isinstance(given, Event):
        return [given]
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        events = list(cast("Iterable[object]", given))
        if all(isinstance(event, Event) for event in events):
            return cast("list[Event]", events)
    shown = excerpt(repr(given))  # pyright: ignore[reportUnknownArgumentType]
    raise UsageError(f"{name} must give an event, None, or an iterable of events, not {shown}")
