"""Registering handlers, who hears what and in what order, emissions, failures; the doors of a dispatcher."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import (
    SYNC,
    AsyncWatched,
    Tick,
    Watched,
    answer,
    body,
    call,
    call_delta,
    closed,
    completed,
    created,
    delta,
    deltas,
    drive,
    error,
    failed,
    message,
    opened,
)

from eventflow import (
    Dispatcher,
    Event,
    FunctionCallArgumentsDelta,
    HandlerFailed,
    Limits,
    OutputItemAdded,
    OutputItemDone,
    Plugin,
    ResponseCompleted,
    ResponseFailed,
    Run,
    StreamError,
    TextDelta,
    TextDone,
    Timeouts,
    ToolCall,
    UnknownEvent,
    acollect,
    aiter_events,
    collect,
    iter_events,
    on,
    signals,
    state,
)
from eventflow.errors import APIStreamError, EventflowError, StreamTruncated, UsageError
from eventflow.events import LifecycleEvent, TextEvent, ToolEvent

AB = answer("a", "b")
ALL = [
    "response.created",
    "response.output_item.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.output_item.done",
    "response.completed",
]
VENDOR = [created(), {"type": "vendor.thing", "x": 1}, {"type": "tests.tick", "n": 4}, completed()]
CALL = [
    created(),
    opened(call("", status="in_progress"), index=1),
    call_delta("{}"),
    closed(call("{}"), index=1),
    completed(call("{}")),
]


def heard_by(select: Any, events: list[Any]) -> list[str]:
    """The types of the events that a handler for *select* hears."""
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(select, lambda event: heard.append(event.type))
    flow.run(events)
    return heard


# --- selectors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "events", "heard"),
    [
        (TextDelta, AB, ["response.output_text.delta"] * 2),
        ("response.output_text.delta", AB, ["response.output_text.delta"] * 2),
        ("response.text_delta", AB, ["response.output_text.delta"] * 2),
        ("response_text_delta", AB, ["response.output_text.delta"] * 2),
        ("response_output_text_done", AB, ["response.output_text.done"]),
        ("text", AB, ["response.output_text.delta"] * 2 + ["response.output_text.done"]),
        (TextEvent, AB, ["response.output_text.delta"] * 2 + ["response.output_text.done"]),
        ("item", AB, ["response.output_item.added", "response.output_item.done"]),
        ("lifecycle", AB, ["response.created", "response.completed"]),
        (LifecycleEvent, AB, ["response.created", "response.completed"]),
        ("response.*.delta", AB, ["response.output_text.delta"] * 2),
        ("response.output_*", AB, ALL[1:-1]),
        ("*.d*", AB, ["response.output_text.delta"] * 2 + ["response.output_text.done", "response.output_item.done"]),
        ("*", AB, ALL),
        (Event, AB, ALL),
        ("custom", VENDOR, ["tests.tick"]),
        (Tick, VENDOR, ["tests.tick"]),
        ("tests.tick", VENDOR, ["tests.tick"]),
        ("unknown", VENDOR, ["vendor.thing"]),
        (UnknownEvent, VENDOR, ["vendor.thing"]),
        ("vendor.*", VENDOR, ["vendor.thing"]),
        ("tool", CALL, ["response.function_call_arguments.delta", "eventflow.tool_call"]),
        (ToolEvent, CALL, ["response.function_call_arguments.delta", "eventflow.tool_call"]),
        ("eventflow.tool_call", CALL, ["eventflow.tool_call"]),
        ("eventflow.*", CALL, ["eventflow.tool_call"]),
        ("error", AB, []),
        ("refusal", AB, []),
        ("reasoning", AB, []),
        ("audio", AB, []),
    ],
    ids=str,
)
def test_selector_when_it_is(select: Any, events: list[Any], heard: list[str]) -> None:
    """A class, a wire name, a name of the SDK's page, a family, its class, or a pattern: each hears its own events."""
    assert heard_by(select, events) == heard


def test_failed_response_when_heard_by_family() -> None:
    """`ResponseFailed` is of the family error, and answers to lifecycle too; once where both are asked for."""
    heard: list[str] = []
    flow = Dispatcher()
    flow.on("error", lambda event: heard.append("error"))
    flow.on("lifecycle", lambda event: heard.append(f"lifecycle {event.type}"))
    flow.on("error", "lifecycle", ResponseFailed, lambda event: heard.append(f"all {event.type}"))
    flow.run([failed()], check=False)
    assert heard == ["error", "lifecycle response.failed", "all response.failed"]


def test_selectors_when_several() -> None:
    """A handler for several selectors hears an event once, also where more than one fits."""
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(TextDelta, "text", "*.delta", TextDone, lambda event: heard.append(event.type))
    flow.run(AB)
    assert heard == ["response.output_text.delta"] * 2 + ["response.output_text.done"]


@pytest.mark.parametrize(
    ("select", "hint"),
    [
        ("response.output_text.detla", "response.output_text.delta"),
        ("response.complete", "response.completed"),
        ("reasonin", "reasoning"),
        ("tools", "tool"),
        ("TextDelta", "text"),
        ("xyzzy", "families are"),
        ("vendor.event", "'vendor.event*'"),
        ("", "no event is called ''"),
    ],
)
def test_selector_when_misspelt(select: str, hint: str) -> None:
    """What can never match is refused at registration, with the nearest spelling and the way to a pattern."""
    flow = Dispatcher()
    with pytest.raises(UsageError, match="no event is called") as decorated:
        flow.on(select)
    with pytest.raises(UsageError) as called:
        flow.on(select, lambda event: None)
    with pytest.raises(UsageError) as method:
        on(select)
    assert hint in str(decorated.value)
    assert str(decorated.value) == str(called.value) == str(method.value)


@pytest.mark.parametrize("select", [3, None, int, b"text", ("text",), ...], ids=repr)
def test_selector_when_it_is_none(select: Any) -> None:
    """What is no selector at all is refused with what would be one."""
    with pytest.raises(UsageError, match="event classes, wire names, families"):
        Dispatcher().on(select)


def test_on_when_no_selector_is_given() -> None:
    """A bare decorator, and one without arguments, say that a selector is needed."""
    flow = Dispatcher()
    with pytest.raises(UsageError, match="needs a selector"):
        flow.on()
    with pytest.raises(UsageError, match="needs a selector"):

        @flow.on
        def handler(event: Event) -> None:
            """Never registered."""


@pytest.mark.parametrize("errors", ["ignore", "", None])
def test_error_policy_when_unknown(errors: Any) -> None:
    """An error policy is one of two words."""
    with pytest.raises(UsageError, match=r'"raise" or "isolate"'):
        Dispatcher().on("*", lambda event: None, errors=errors)


# --- handlers --------------------------------------------------------------------------------------------------------


class _Methods:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def one(self, event: Event) -> None:
        self.heard.append(("one", event.type))

    def two(self, event: Event, run: Run) -> None:
        self.heard.append(("two", event.type, run.events))

    @classmethod
    def of_class(cls, event: Event) -> None:
        assert cls is _Methods

    def __call__(self, event: Event) -> None:
        self.heard.append(("call", event.type))


def test_handler_when_its_arguments_vary() -> None:
    """A handler gets the event; the run too where a second positional parameter is required, and never otherwise."""
    given: dict[str, tuple[Any, ...]] = {}
    flow = Dispatcher()

    def event_alone(event: Event) -> None:
        given["event"] = (event,)

    def event_and_run(event: Event, run: Run) -> None:
        given["run"] = (event, run)

    def default(event: Event, mine: object = 3) -> None:
        given["default"] = (event, mine)

    def keyword(event: Event, *, mine: object = 4) -> None:
        given["keyword"] = (event, mine)

    def star(*args: object) -> None:
        given["star"] = args

    def event_and_star(event: Event, *args: object) -> None:
        given["event star"] = (event, *args)

    def any_keywords(event: Event, **kwargs: object) -> None:
        given["keywords"] = (event, kwargs)

    def positional(event: Event, run: Run, /) -> None:
        given["positional"] = (event, run)

    functions: list[Callable[..., None]] = [
        event_alone,
        event_and_run,
        default,
        keyword,
        star,
        event_and_star,
        any_keywords,
        positional,
    ]
    for function in functions:
        flow.on(TextDone, function)
    run = flow.run(AB)
    event = given["event"][0]
    assert given == {
        "event": (event,),
        "run": (event, run),
        "default": (event, 3),
        "keyword": (event, 4),
        "star": (event,),
        "event star": (event,),
        "keywords": (event, {}),
        "positional": (event, run),
    }


def test_handler_when_it_is_no_plain_function() -> None:
    """Bound methods, class methods, callable objects, partials, builtins and classes serve as handlers."""
    methods = _Methods()
    plain: list[Any] = []
    texts: list[Any] = []
    flow = Dispatcher()
    flow.on(TextDone, methods.one)
    flow.on(TextDone, methods.two)
    flow.on(TextDone, methods.of_class)
    flow.on(TextDone, methods)
    flow.on(TextDone, functools.partial(lambda word, event: methods.heard.append((word, event.type)), "partial"))
    flow.on(TextDone, plain.append)
    flow.on(TextDone, print)
    flow.on(TextDone)(repr)
    flow.on(TextDone)(str)
    flow.on(TextDone, functools.partial(texts.insert, 0))
    flow.run(AB)
    name = "response.output_text.done"
    assert methods.heard == [("one", name), ("two", name, 5), ("call", name), ("partial", name)]
    assert [event.type for event in plain + texts] == [name, name]


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda: None, "takes no argument"),
        (lambda event, run, more: None, "needs 3 arguments"),
        (lambda event, *, word: None, "keyword argument 'word'"),
        (lambda *, word=1: None, "takes no argument"),
        ("text", "must be callable"),
        (None, "must be callable"),
    ],
)
def test_handler_when_it_cannot_be_called(handler: Any, message: str) -> None:
    """A handler that cannot take an event is refused when it is registered."""
    with pytest.raises(UsageError, match=message):
        Dispatcher().on("*")(handler)


def test_routes_when_ever_new_types_come() -> None:
    """A peer can invent names without end: the routes of a few hundred are kept, and each event is heard."""
    heard: list[Event] = []
    flow = Dispatcher()
    flow.on("unknown", heard.append)
    flow.run([{"type": f"vendor.{number}"} for number in range(600)], check=False, wire="responses")
    assert len(heard) == 600
    assert len(flow._current_plan()._routes) < 300


@pytest.mark.parametrize("value", [5, 0, {}, "5", Timeouts, Limits])
def test_dispatcher_when_its_bounds_are_something_else(value: Any) -> None:
    """What are no `Timeouts` and no `Limits` is refused when the dispatcher is made, by name."""
    with pytest.raises(UsageError, match=r"timeout takes Timeouts\(\.\.\.\), not"):
        Dispatcher(timeout=value)
    with pytest.raises(UsageError, match=r"limits takes Limits\(\.\.\.\), not"):
        Dispatcher(limits=value)
    with pytest.raises(UsageError, match=r"limits takes Limits\(\.\.\.\), not"):
        collect([], limits=value)


def test_decorator_when_applied_returns_the_function() -> None:
    """Each decorator gives back the very function, so that they stack and the function stays usable."""
    flow = Dispatcher()

    def handler(event: Event) -> None:
        """Nothing."""

    assert flow.on("*")(handler) is handler
    assert flow.on(TextDelta, TextDone, order=3, errors="isolate")(handler) is handler


def test_decorators_when_stacked_run_the_function_once() -> None:
    """A function under several decorators hears an event once; two functions that are equal but two, twice."""
    heard: list[str] = []
    flow = Dispatcher()

    @flow.on("text")
    @flow.on(TextDone)
    @flow.on("*.done")
    def handler(event: Event) -> None:
        heard.append(event.type)

    methods = _Methods()
    flow.on(TextDone, methods.one)
    flow.on("text", methods.one)
    flow.on(TextDone, _Methods().one)
    flow.run(AB)
    assert heard == ["response.output_text.delta"] * 2 + ["response.output_text.done", "response.output_item.done"]
    assert methods.heard == [("one", "response.output_text.delta")] * 2 + [("one", "response.output_text.done")]


def test_order_when_given() -> None:
    """Lower order comes first, then the order of registration, whatever the selector."""
    heard: list[str] = []
    flow = Dispatcher()
    for name, order in [("a", 0), ("b", 5), ("c", -1), ("d", 0), ("e", -1), ("f", 5)]:
        flow.on("*" if order else TextDone, lambda event, name=name: heard.append(name), order=order)
    flow.run([{"type": "response.output_text.done", "text": ""}], check=False)
    assert heard == ["c", "e", "a", "d", "b", "f"]


@given(st.lists(st.integers(-3, 3), max_size=8))
def test_order_when_it_is_any(orders: list[int]) -> None:
    """Handlers run in the stable order of their numbers."""
    heard: list[tuple[int, int]] = []
    flow = Dispatcher()
    for place, order in enumerate(orders):
        flow.on(TextDone, lambda event, key=(order, place): heard.append(key), order=order)
    flow.run([{"type": "response.output_text.done", "text": ""}], check=False)
    assert heard == sorted((order, place) for place, order in enumerate(orders))


def test_undo_when_called() -> None:
    """The call form returns an undo; calling it takes the handler back, twice is once."""
    heard: list[str] = []
    flow = Dispatcher()
    undo = flow.on("*", lambda event: heard.append("first"))
    flow.on("*", lambda event: heard.append("second"))
    flow.run([completed()])
    undo()
    undo()
    flow.run([completed()])
    assert heard == ["first", "second", "second"]


def test_undo_when_it_is_a_context_manager() -> None:
    """In a ``with`` block the handler is registered until the end of the block, also when it is left by an error."""
    heard: list[str] = []
    flow = Dispatcher()
    with pytest.raises(KeyError), flow.on("*", lambda event: heard.append(event.type)):  # noqa: PT012  # how it is left
        flow.run([completed()])
        raise KeyError
    flow.run([completed()])
    assert heard == ["response.completed"]


def test_undo_when_the_function_is_registered_twice() -> None:
    """An undo takes back its own registration, and no other of the same function."""
    heard: list[str] = []
    flow = Dispatcher()

    def handler(event: Event) -> None:
        heard.append(event.type)

    flow.on(TextDone, handler)
    flow.on("lifecycle", handler)()
    flow.run(AB)
    assert heard == ["response.output_text.done"]


def test_registrations_when_changed_during_a_run() -> None:
    """A run takes the handlers and plugins as they are when it starts; the next run has the changed ones."""
    heard: list[str] = []
    flow = Dispatcher()
    undo = flow.on("text", lambda event: heard.append("early"))

    @flow.on("response.created")
    def change(event: Event) -> None:
        undo()
        flow.on("text", lambda event: heard.append("late"))

    flow.run(AB)
    assert heard == ["early"] * 3
    flow.run([*deltas("x"), completed()])
    assert heard == ["early"] * 3 + ["late"]


def test_registering_when_from_many_threads() -> None:
    """Nothing registered at once from many threads is lost."""
    flow = Dispatcher()
    heard: list[int] = []
    ready = threading.Barrier(8)

    def register(first: int) -> None:
        ready.wait()
        for number in range(first, first + 50):
            flow.on(TextDone, lambda event, number=number: heard.append(number))

    threads = [threading.Thread(target=register, args=(50 * place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flow.run([{"type": "response.output_text.done", "text": ""}], check=False)
    assert sorted(heard) == list(range(400))


# --- async handlers --------------------------------------------------------------------------------------------------


class _AsyncCallable:
    async def __call__(self, event: Event) -> None:
        """Nothing."""


async def _coroutine(event: Event) -> None:
    """Nothing."""


async def _generator(event: Event) -> AsyncIterator[Event]:
    yield Tick()


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (_coroutine, "_coroutine"),
        (_generator, "_generator"),
        (_AsyncCallable(), "_AsyncCallable"),
        (functools.partial(_coroutine), "_coroutine"),
    ],
)
@pytest.mark.parametrize("face", SYNC)
def test_async_handler_when_the_run_is_sync(handler: Any, name: str, face: str) -> None:
    """It is an error before the first event, naming the handler; the source is not touched."""
    heard: list[Event] = []
    source = Watched(AB)
    flow = Dispatcher()
    flow.on("*", heard.append)
    flow.on(TextDelta, handler)
    start: dict[str, Callable[[], Any]] = {
        "run": lambda: flow.run(source),
        "stream": lambda: list(flow.stream(source)),
        "open": lambda: flow.open().__enter__(),
    }
    with pytest.raises(UsageError, match=rf"{name} can only be awaited; use arun"):
        start[face]()
    assert heard == []
    assert source.pulled == 0
    assert source.closed == (face != "open")


def test_async_handlers_when_awaited_in_order() -> None:
    """Handlers of one event run one after the other, awaited, sync and async mixed."""
    heard: list[str] = []
    flow = Dispatcher()

    @flow.on(TextDone)
    async def slow(event: Event) -> None:
        heard.append("slow begins")
        await asyncio.sleep(0.01)
        heard.append("slow ends")

    flow.on(TextDone, lambda event: heard.append("plain"))

    @flow.on(TextDone)
    async def last(event: Event, run: Run) -> str:
        heard.append(f"last {run.events}")
        return "ignored"

    flow.on(TextDone, lambda event: asyncio.sleep(0, heard.append("awaitable")))
    asyncio.run(flow.arun(AB))
    assert heard == ["slow begins", "slow ends", "plain", "last 5", "awaitable"]


def test_awaitable_when_given_in_a_sync_run() -> None:
    """A plain handler whose result must be awaited ends a sync run with an error that names it; nothing leaks."""
    flow = Dispatcher()

    @flow.on(TextDelta)
    def disguised(event: Event) -> Any:
        return _coroutine(event)

    with pytest.raises(UsageError, match=r"disguised gave an awaitable; use arun") as caught:
        flow.run(AB)
    assert any("response.output_text.delta" in note for note in caught.value.__notes__)

    other = Dispatcher()
    other.on(TextDelta, lambda event: _generator(event))
    with pytest.raises(UsageError, match="async generator; use arun"):
        other.run(AB)


@pytest.mark.parametrize("result", [0, "text", b"", Tick(), [Tick()], (Tick(),), object(), False])
def test_result_when_it_is_no_generator(result: object) -> None:
    """Whatever else a handler returns is ignored."""
    heard: list[Event] = []
    flow = Dispatcher()
    flow.on(TextDone, lambda event: result)
    flow.on(Tick, heard.append)
    assert flow.run(AB).status == "completed"
    assert heard == []


# --- emissions -------------------------------------------------------------------------------------------------------


class _Log(Plugin):
    """Hears everything at its place."""

    name: str
    log: Any

    @on("*")
    def hear(self, event: Event) -> None:
        self.log.append((self.name, event.n if isinstance(event, Tick) else event.type))


def test_emission_when_a_generator_yields() -> None:
    """A generator's events come right after the current one, from the head of the pipeline, before the next event."""
    log: list[Any] = []
    flow = Dispatcher(_Log("plugin", log))

    @flow.on(TextDone)
    def ticks(event: Event) -> Iterator[Event]:
        yield Tick(1)
        yield Tick(2)

    flow.on("*", lambda event: log.append(("own", event.n if isinstance(event, Tick) else event.type)))
    flow.run([{"type": "response.output_text.done", "text": ""}, completed()])
    names = ["response.output_text.done", 1, 2, "response.completed"]
    assert log == [(place, name) for name in names for place in ("plugin", "own")]


@pytest.mark.parametrize("face", ["run", "arun"])
def test_emission_when_nested(face: str) -> None:
    """What is emitted on the way comes right after its cause, before what was emitted earlier and waits."""
    flow = Dispatcher()

    @flow.on(TextDone)
    def first(event: Event, run: Run) -> None:
        run.emit(Tick(1))
        run.emit(Tick(2))

    @flow.on(Tick)
    def nested(event: Tick, run: Run) -> None:
        if event.n < 10:
            run.emit(Tick(event.n * 10))
            run.emit(Tick(event.n * 10 + 1))

    outcome = drive(face, [*AB[:5], completed()], flow)
    after = outcome.heard[5:]
    assert [event.n if isinstance(event, Tick) else event.type for event in after] == [
        1,
        10,
        11,
        2,
        20,
        21,
        "response.completed",
    ]


def test_emission_when_the_generator_is_async() -> None:
    """An async generator's events are dispatched like a generator's; a coroutine may return a generator."""
    heard: list[int] = []
    flow = Dispatcher()

    @flow.on(TextDone)
    async def ticks(event: Event) -> AsyncIterator[Event]:
        yield Tick(1)
        await asyncio.sleep(0)
        yield Tick(2)

    @flow.on(TextDone)
    async def later(event: Event) -> Iterator[Event]:
        return (Tick(number) for number in (3, 4))

    flow.on(Tick, lambda event: heard.append(event.n))
    asyncio.run(flow.arun(AB))
    assert heard == [1, 2, 3, 4]


@pytest.mark.parametrize("face", ["run", "arun"])
def test_emission_when_it_is_no_event(face: str) -> None:
    """A generator that yields something else ends the run with an error naming the handler; `emit` refuses at once."""
    flow = Dispatcher()

    @flow.on(TextDone)
    def wrong(event: Event) -> Iterator[Any]:
        yield "text"

    outcome = drive(face, AB, flow)
    assert isinstance(outcome.raised, UsageError)
    assert "wrong yielded 'text'" in str(outcome.raised)
    with pytest.raises(UsageError, match="takes an event, not str"):
        outcome.run.emit("text")  # type: ignore[arg-type]


def test_emission_when_delivered() -> None:
    """A stream delivers emitted events in their place, and the tool call right after the item that carries it."""
    flow = Dispatcher()
    flow.on(FunctionCallArgumentsDelta, lambda event, run: run.emit(Tick(7)))
    types = [event.type for event in flow.stream(CALL)]
    assert types == [
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "tests.tick",
        "response.output_item.done",
        "eventflow.tool_call",
        "response.completed",
    ]


def test_tool_call_when_an_item_closes() -> None:
    """`ToolCall` comes right after what handlers of the closed item emit, with all that is needed to run it."""
    flow = Dispatcher()
    heard: list[Event] = []
    flow.on(OutputItemDone, lambda event, run: run.emit(Tick()))
    flow.on(Tick, ToolCall, heard.append)
    flow.run(CALL)
    assert heard == [Tick(), ToolCall("function", "weather", "{}", "call_1", "fc_1", 1)]


def test_emission_when_from_elsewhere() -> None:
    """What is emitted between two feeds is dispatched before the next event; what waits at the end, at the end."""
    flow = Dispatcher()
    heard: list[Any] = []
    flow.on("*", lambda event: heard.append(event.n if isinstance(event, Tick) else event.type))
    with flow.open(check=False) as run:
        run.emit(Tick(1))
        run.feed(created())
        run.emit(Tick(2))
    assert heard == [1, "response.created", 2]


def test_emission_when_in_start_and_stop() -> None:
    """`start` may emit: that comes before the first event; after the run, `emit` says that nobody hears."""
    heard: list[Any] = []

    class Early(Plugin):
        def start(self, run: Run) -> None:
            run.emit(Tick(0))

        def finish(self, run: Run) -> None:
            run.emit(Tick(1))

        @on("*")
        def hear(self, event: Event) -> None:
            heard.append(event.n if isinstance(event, Tick) else event.type)

    run = Dispatcher(Early()).run([completed()])
    assert heard == [0, "response.completed", 1]
    with pytest.raises(UsageError, match=r"run run_\w+ is over"):
        run.emit(Tick())


# --- failures --------------------------------------------------------------------------------------------------------


def _fail_on(flow: Dispatcher, select: Any, errors: Any) -> None:
    @flow.on(select, errors=errors)
    def breaks(event: Event) -> None:
        raise ValueError("broken")


@pytest.mark.parametrize("face", ["run", "arun", "stream", "astream", "open", "aopen"])
def test_handler_failure_when_it_raises(face: str) -> None:
    """The exception itself comes out, with a note naming handler, event and run; the source is done with."""
    flow = Dispatcher()
    _fail_on(flow, TextDelta, "raise")
    outcome = drive(face, AB, flow)
    assert type(outcome.raised) is ValueError
    (note,) = outcome.raised.__notes__
    assert "breaks on response.output_text.delta" in note
    assert outcome.run.id in note
    assert outcome.run.status == "failed"
    assert outcome.run.error is None
    assert outcome.run.text == "a"
    assert [event.type for event in outcome.heard] == ALL[:2]


@pytest.mark.parametrize("face", ["run", "arun", "stream", "astream", "open", "aopen"])
def test_handler_failure_when_isolated(face: str, caplog: pytest.LogCaptureFixture) -> None:
    """The run goes on; a `HandlerFailed` event follows, and a log record with the traceback is written."""
    flow = Dispatcher()
    _fail_on(flow, TextDone, "isolate")
    caught: list[HandlerFailed] = []
    flow.on(HandlerFailed, caught.append)
    outcome = drive(face, AB, flow)
    assert outcome.raised is None
    assert outcome.run.status == "completed"
    assert [event.type for event in outcome.heard] == [*ALL[:5], "eventflow.handler_failed", *ALL[5:]]
    (failure,) = caught
    assert failure.family == "error"
    assert isinstance(failure.error, ValueError)
    assert isinstance(failure.event, TextDone)
    assert failure.handler.endswith("breaks")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("eventflow", logging.ERROR)
    assert "breaks on response.output_text.done" in record.getMessage()
    assert outcome.run.id in record.getMessage()
    assert record.exc_info is not None


def test_handler_failure_when_a_generator_or_coroutine_is_isolated(caplog: pytest.LogCaptureFixture) -> None:
    """What fails while it is followed up is isolated too, and what it emitted before is dispatched."""
    flow = Dispatcher()

    @flow.on(TextDone, errors="isolate")
    def half(event: Event) -> Iterator[Event]:
        yield Tick(1)
        raise ValueError("half")

    @flow.on(TextDone, errors="isolate")
    async def late(event: Event) -> None:
        raise ValueError("late")

    heard: list[Any] = []
    flow.on(Tick, HandlerFailed, lambda event: heard.append(event.n if isinstance(event, Tick) else str(event.error)))
    asyncio.run(flow.arun(AB))
    assert heard == [1, "half", "late"]
    assert len(caplog.records) == 2


def test_handler_of_failures_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The failure of an isolated handler of `HandlerFailed` is only logged: it does not answer itself."""
    flow = Dispatcher()
    _fail_on(flow, "*", "isolate")
    heard: list[str] = []
    flow.on("error", lambda event: heard.append(event.type))
    run = flow.run([completed()])
    assert run.status == "completed"
    assert heard == ["eventflow.handler_failed"]
    assert len(caplog.records) == 2


def test_keyboard_interrupt_when_from_an_isolated_handler() -> None:
    """Isolation is for exceptions: an interrupt goes through, and closes the source."""
    flow = Dispatcher()

    @flow.on(TextDelta, errors="isolate")
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    source = Watched(AB)
    with pytest.raises(KeyboardInterrupt):
        flow.run(source)
    assert source.closed == 1


def test_error_handlers_when_the_stream_fails() -> None:
    """Handlers of an error event run before the error is raised."""
    heard: list[Event] = []
    flow = Dispatcher()
    flow.on("error", heard.append)
    with pytest.raises(APIStreamError):
        flow.run([created(), error(), failed()])
    assert [type(event) for event in heard] == [StreamError, ResponseFailed]


# --- without a dispatcher --------------------------------------------------------------------------------------------


def test_iter_events_when_iterated() -> None:
    """`iter_events` gives the typed events of a source, and raises as a run does."""
    with iter_events(body(AB)) as events:
        assert [event.type for event in events] == ALL
        assert events.run.text == "ab"
    with pytest.raises(StreamTruncated) as caught:
        list(iter_events(body(AB[:3])))
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"


def test_aiter_events_when_iterated() -> None:
    """`aiter_events` is the same, async."""

    async def main() -> list[str]:
        async with aiter_events(AsyncWatched([body(AB)])) as events:
            return [event.type async for event in events]

    assert asyncio.run(main()) == ALL


def test_collect_when_the_stream_is_whole_or_not() -> None:
    """`collect` and `acollect` give the response, or raise with what was received."""
    whole = collect(body(AB))
    assert whole.output_text == "ab"
    assert whole.usage is not None
    assert asyncio.run(acollect(AsyncWatched([body(AB)]))) == whole
    with pytest.raises(APIStreamError) as caught:
        collect([*AB[:3], error()])
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"
    with pytest.raises(StreamTruncated):
        asyncio.run(acollect([]))


def test_wire_when_named_or_unknown() -> None:
    """``wire=`` fixes the wire; an unknown one is a named error that lists those there are, and closes the source."""
    assert Dispatcher().run(body(AB), wire="responses").text == "ab"
    assert collect(body(AB), wire="responses").output_text == "ab"
    source = Watched(AB)
    with pytest.raises(UsageError, match=r"no wire is called 'morse'; there is .*responses"):
        Dispatcher().run(source, wire="morse")
    assert source.closed == 1


def test_error_when_it_leaves_is_of_one_root() -> None:
    """Errors of the library have one root, and say the run they ended."""
    flow = Dispatcher()
    outcome = drive("run", [created()], flow)
    assert isinstance(outcome.raised, EventflowError)
    assert outcome.raised.run is outcome.run
    assert outcome.raised.partial == outcome.run.response


# --- runs side by side -----------------------------------------------------------------------------------------------


def test_run_when_inside_a_handler() -> None:
    """A handler may run another stream through the same dispatcher; the two share nothing."""
    flow = Dispatcher()
    texts: list[tuple[str, str]] = []

    @flow.on(TextDone)
    def again(event: TextDone, run: Run) -> None:
        texts.append((run.id, event.text))
        if event.text == "ab":
            inner = flow.run(answer("in", "ner"))
            assert inner.text == "inner"
            assert inner.id != run.id

    run = flow.run(AB)
    assert run.text == "ab"
    assert [text for _, text in texts] == ["ab", "inner"]
    assert len({run_id for run_id, _ in texts}) == 2


def test_dispatchers_when_two() -> None:
    """Handlers of one dispatcher do not hear the runs of another, also with the same plugin in both."""
    log: list[Any] = []
    plugin = _Log("shared", log)
    one, two = Dispatcher(plugin), Dispatcher(plugin)
    one.on(TextDone, lambda event: log.append("one"))
    two.on(TextDone, lambda event: log.append("two"))
    one.run([{"type": "response.output_text.done", "text": ""}], check=False)
    two.run([{"type": "response.output_text.done", "text": ""}], check=False)
    assert log == [("shared", "response.output_text.done"), "one", ("shared", "response.output_text.done"), "two"]


def _texts(number: int) -> list[str]:
    return [f"{number}:{piece} " for piece in range(4)]


class _Gather(Plugin):
    """Gathers the text of its run."""

    texts: list[str] = state(factory=list)

    @on(TextDelta)
    def add(self, event: TextDelta) -> None:
        self.texts.append(event.delta)


def test_runs_when_a_thousand_tasks_at_once() -> None:
    """A thousand async runs at once each have their own text, plugins, outbox and warnings."""
    flow = Dispatcher(_Gather())

    async def one(number: int) -> None:
        run = await flow.arun(AsyncWatched([*answer(*_texts(number)), delta("ignored")]))
        assert run.text == "".join(_texts(number))
        assert run[_Gather].texts == _texts(number)
        assert run.warnings == ()

    async def main() -> None:
        await asyncio.gather(*map(one, range(1000)))

    asyncio.run(main())


def test_runs_when_a_thousand_in_threads() -> None:
    """A thousand runs in eight threads each have their own text."""
    flow = Dispatcher(_Gather())
    failures: list[object] = []
    ids: set[str] = set()

    def work(first: int) -> None:
        for number in range(first, first + 125):
            run = flow.run(body(answer(*_texts(number))))
            ids.add(run.id)
            if run.text != "".join(_texts(number)) or run[_Gather].texts != _texts(number):
                failures.append((number, run))

    threads = [threading.Thread(target=work, args=(125 * place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(ids) == 1000


def test_snapshot_when_switched_off() -> None:
    """A relay keeps no text, compares no numbers, and still knows how the stream ended, from its lifecycle events."""
    heard: list[str] = []
    flow = Dispatcher(snapshot=False)
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    events = [{**event, "sequence_number": 5} for event in answer("a", "b")]
    run = flow.run(body(events))
    assert heard == ["a", "b"]
    assert run.status == "completed"
    assert run.events == len(events)
    assert run.warnings == ()
    assert run.response.usage is not None
    cut = flow.run(body(events[:4]), check=False)
    assert (cut.status, cut.text) == ("truncated", "")
    broken = flow.run(body([created(), *deltas("x"), error()]), check=False)
    assert isinstance(broken.error, APIStreamError)
    assert broken.response.id == "resp_1"


def test_signals_when_registering_changes_nothing() -> None:
    """A dispatcher that is not run sends no signal."""
    sent: list[object] = []

    def receive(sender: object, **_: object) -> None:
        sent.append(sender)

    with signals.run_started.connected_to(receive):
        flow = Dispatcher()
        flow.on("*", print)
    assert sent == []


def test_heard_events_when_typed() -> None:
    """Handlers get records of the vocabulary, with the items typed."""
    heard: dict[str, Event] = {}
    flow = Dispatcher()
    flow.on("*", lambda event: heard.setdefault(event.type, event))
    flow.run(body(AB))
    added = heard["response.output_item.added"]
    ended = heard["response.completed"]
    assert isinstance(added, OutputItemAdded)
    assert added.item.type == "message"
    assert isinstance(ended, ResponseCompleted)
    assert ended.response.output_text == "ab"
    assert message("ab")["content"][0]["text"] == ended.response.output_text
