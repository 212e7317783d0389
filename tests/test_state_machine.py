"""A dispatcher under any order of registering, undoing, starting, feeding, emitting, failing, cancelling, leaving."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Pool
from hypothesis.stateful import RuleBasedStateMachine, consumes, initialize, multiple, rule
from scenarios import Tick

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    Plugin,
    Response,
    ResponseCompleted,
    Run,
    TextDelta,
    TextDone,
    on,
    state,
    transform,
)
from eventflow.errors import StreamTruncated, UsageError

Log = list[tuple[str, str, object]]  # (run, who, what it heard)


class _Boom(Exception):
    pass


def _key(event: Event) -> object:
    """An event as it stands in the log; a failure by what failed."""
    return ("failed", event.handler) if isinstance(event, HandlerFailed) else event


class Stage(Plugin):
    """Logs what it hears; lets deltas through as they are, doubled, not at all, or as something else."""

    name: str
    mode: str
    log: Any
    seen: int = state(default=0)

    @on("*", order=1)
    def late(self, event: Event, run: Run) -> None:
        self.log.append((run.id, f"{self.name}.late", _key(event)))

    @on(TextDelta)
    def early(self, event: TextDelta, run: Run) -> None:
        self.seen += 1
        self.log.append((run.id, f"{self.name}.early", event))

    @transform(TextDelta)
    def change(self, event: TextDelta) -> Any:
        match self.mode:
            case "drop":
                return None
            case "double":
                return [event, event.replace(delta=event.delta + "!")]
            case "tick":
                return Tick(len(event.delta))
        return event

    def stop(self, run: Run) -> None:
        self.log.append((run.id, f"{self.name}.stop", self.seen))


SELECTORS: dict[Any, Callable[[Event], bool]] = {
    TextDelta: lambda event: isinstance(event, TextDelta),
    "text": lambda event: event.family == "text",
    "response.output_text.delta": lambda event: isinstance(event, TextDelta),
    "response_text_done": lambda event: isinstance(event, TextDone),
    "*": lambda event: True,
    "response.*": lambda event: event.type.startswith("response."),
    Tick: lambda event: isinstance(event, Tick),
    "custom": lambda event: isinstance(event, Tick),
    "error": lambda event: event.family == "error",
}


@attrs.define(eq=False)
class _Registered:
    """A handler as the model knows it."""

    name: str
    selects: tuple[Any, ...]
    order: int
    isolate: bool
    behaviour: str
    undo: Callable[[], None]

    def hears(self, event: Event) -> bool:
        return any(SELECTORS[select](event) for select in self.selects)


@attrs.define(eq=False)
class _Used:
    """A plugin as the model knows it."""

    stage: Stage
    undo: Callable[[], None]


@attrs.define(eq=False)
class _Running:
    """A run, and the registrations it started with."""

    run: Run
    leave: ExitStack
    plugins: list[_Used]
    handlers: list[_Registered]
    seen: dict[int, int] = attrs.field(factory=dict)


class DispatcherMachine(RuleBasedStateMachine):
    """Checks, after each step, that everything was heard by whom the model says, in its order."""

    registered = Pool("registered")
    used = Pool("used")
    running = Pool("running")

    @initialize()
    def begin(self) -> None:
        self.flow = Dispatcher()
        self.log: Log = []
        self.handlers: list[_Registered] = []
        self.plugins: list[_Used] = []
        self.counter = 0
        self.open: list[_Running] = []

    def teardown(self) -> None:
        for running in getattr(self, "open", []):
            running.run.cancel()
            running.leave.close()

    def name(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    # --- registering -------------------------------------------------------------------------------------------------

    @rule(
        target=registered,
        selects=st.lists(st.sampled_from(list(SELECTORS)), min_size=1, max_size=3),
        order=st.integers(-1, 1),
        behaviour=st.sampled_from(["quiet", "quiet", "emit", "yield", "raise"]),
        isolate=st.booleans(),
        decorated=st.booleans(),
    )
    def register(self, selects: list[Any], order: int, behaviour: str, isolate: bool, decorated: bool) -> _Registered:
        name = self.name("handler")

        def quiet(event: Event, run: Run) -> None:
            self.log.append((run.id, name, _key(event)))

        def emit(event: Event, run: Run) -> None:
            quiet(event, run)
            if not isinstance(event, Tick):
                run.emit(Tick(-1))

        def generate(event: Event, run: Run) -> Any:
            quiet(event, run)
            if not isinstance(event, Tick):
                yield Tick(-2)
                yield Tick(-3)

        def fail(event: Event, run: Run) -> None:
            quiet(event, run)
            if isinstance(event, TextDone) or (isolate and isinstance(event, HandlerFailed)):
                raise _Boom(name)

        function = {"quiet": quiet, "emit": emit, "yield": generate, "raise": fail}[behaviour]
        function.__qualname__ = name
        errors = "isolate" if isolate else "raise"
        if decorated:
            assert self.flow.on(*selects, order=order, errors=errors)(function) is function
            undo: Any = None
        else:
            undo = self.flow.on(*selects, function, order=order, errors=errors)
        handler = _Registered(name, tuple(selects), order, isolate, behaviour, undo)
        self.handlers.append(handler)
        return handler

    @rule(handler=registered)
    def take_back(self, handler: _Registered) -> None:
        if handler.undo is not None:
            handler.undo()
            self.handlers = [other for other in self.handlers if other is not handler]

    @rule(target=used, mode=st.sampled_from(["pass", "drop", "double", "tick"]))
    def use(self, mode: str) -> _Used:
        stage = Stage(self.name("stage"), mode, self.log)
        plugin = _Used(stage, self.flow.use(stage))
        self.plugins.append(plugin)
        return plugin

    @rule(plugin=consumes(used))
    def unuse(self, plugin: _Used) -> None:
        plugin.undo()
        self.plugins = [other for other in self.plugins if other is not plugin]

    # --- running -----------------------------------------------------------------------------------------------------

    @rule(target=running)
    def start(self) -> Any:
        if len(self.open) > 3:
            return multiple()
        leave = ExitStack()
        run = leave.enter_context(self.flow.open())
        ordered = sorted(self.handlers, key=lambda handler: handler.order)
        running = _Running(run, leave, list(self.plugins), ordered)
        self.open.append(running)
        return running

    @rule(running=running, text=st.sampled_from(["a", "bc"]), emitted=st.integers(0, 2))
    def feed_delta(self, running: _Running, text: str, emitted: int) -> None:
        if running not in self.open:
            with pytest.raises(UsageError):
                running.run.emit(Tick(0))
            return
        for number in range(emitted):
            running.run.emit(Tick(number))
        self.feed(running, [*map(Tick, range(emitted)), TextDelta(delta=text)])

    @rule(running=running)
    def feed_done(self, running: _Running) -> None:
        if running in self.open:
            self.feed(running, [TextDone(text="")])

    @rule(running=consumes(running))
    def complete(self, running: _Running) -> None:
        if running in self.open:
            ended = ResponseCompleted(response=Response())
            if self.feed(running, [ended], last=True):
                assert running.run.status == "completed"
                running.leave.close()

    @rule(running=consumes(running))
    def truncate(self, running: _Running) -> None:
        if running in self.open:
            expected = self.stops(running)
            mark = len(self.log)
            with pytest.raises(StreamTruncated):
                running.leave.close()
            assert self.log[mark:] == expected
            assert running.run.status == "truncated"
            self.open.remove(running)

    @rule(running=consumes(running))
    def cancel(self, running: _Running) -> None:
        if running in self.open:
            expected = self.stops(running)
            mark = len(self.log)
            running.run.cancel()
            running.run.feed(TextDelta(delta="unheard"))
            running.leave.close()
            assert self.log[mark:] == expected
            assert running.run.status == "cancelled"
            self.open.remove(running)

    @rule(running=consumes(running))
    def leave_with_an_error(self, running: _Running) -> None:
        if running in self.open:
            expected = self.stops(running)
            mark = len(self.log)
            with pytest.raises(KeyError), running.leave:
                raise KeyError
            assert self.log[mark:] == expected
            assert running.run.status == "cancelled"
            self.open.remove(running)

    # --- the model ---------------------------------------------------------------------------------------------------

    def feed(self, running: _Running, events: list[Event], *, last: bool = False) -> bool:
        """Feed the last of *events* (the others were emitted before it); whether the run survived it."""
        expected: Log = []
        survived = True
        try:
            for event in events:
                self.expect_all(running, event, expected)
        except _Boom:
            survived = False
        if last or not survived:
            expected += self.stops(running)
        mark = len(self.log)
        if survived:
            running.run.feed(events[-1])
        else:
            with pytest.raises(_Boom) as caught:
                running.run.feed(events[-1])
            (note,) = caught.value.__notes__
            assert running.run.id in note
            assert caught.value.args[0] in note
            assert running.run.status == "failed"
            running.leave.close()
        assert self.log[mark:] == expected
        assert running.run.events > 0 or not survived
        if last or not survived:
            self.open.remove(running)
        return survived

    def stops(self, running: _Running) -> Log:
        return [
            (running.run.id, f"{plugin.stage.name}.stop", running.seen.get(id(plugin), 0))
            for plugin in reversed(running.plugins)
        ]

    def expect_all(self, running: _Running, event: Event, expected: Log) -> None:
        """The event, then what it causes, each right after its cause."""
        caused: list[Event] = []
        self.expect(running, event, 0, expected, caused)
        for emission in caused:
            self.expect_all(running, emission, expected)

    def expect(self, running: _Running, event: Event, place: int, expected: Log, caused: list[Event]) -> None:
        name = running.run.id
        if place == len(running.plugins):
            for handler in running.handlers:
                if handler.hears(event):
                    expected.append((name, handler.name, _key(event)))
                    self.act(handler, event, caused)
            return
        plugin = running.plugins[place]
        goes_on: list[Event] = [event]
        if isinstance(event, TextDelta):
            running.seen[id(plugin)] = running.seen.get(id(plugin), 0) + 1
            expected.append((name, f"{plugin.stage.name}.early", event))
            match plugin.stage.mode:
                case "drop":
                    goes_on = []
                case "double":
                    goes_on = [event, event.replace(delta=event.delta + "!")]
                case "tick":
                    goes_on = [Tick(len(event.delta))]
        expected.append((name, f"{plugin.stage.name}.late", _key(event)))
        for replacement in goes_on:
            self.expect(running, replacement, place + 1, expected, caused)

    def act(self, handler: _Registered, event: Event, caused: list[Event]) -> None:
        match handler.behaviour:
            case "emit" if not isinstance(event, Tick):
                caused.append(Tick(-1))
            case "yield" if not isinstance(event, Tick):
                caused += [Tick(-2), Tick(-3)]
            case "raise" if isinstance(event, TextDone):
                if not handler.isolate:
                    raise _Boom
                caused.append(HandlerFailed(error=None, handler=handler.name))


DispatcherMachine.TestCase.settings = settings(stateful_step_count=30)
TestDispatcher = DispatcherMachine.TestCase
