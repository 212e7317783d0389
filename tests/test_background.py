"""Handlers in the background: what they hear and in which order, how they fail, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import AsyncWatched, Tick, Watched, answer, block, completed, created

from eventflow import Dispatcher, Event, HandlerFailed, Limits, Pause, Plugin, Run, TextDelta, background, on, state
from eventflow.background import Lane
from eventflow.errors import LimitExceeded, SlowConsumer, UsageError
from eventflow.events import AudioDelta, FunctionCallArgumentsDelta, ResponseCompleted, decode_mapping
from eventflow.events import ShellCallCommandDelta as ShellDelta
from eventflow.jobs import Job, LoopThread, start_task, start_thread

AB = answer("a", "b")
LONG = 10.0  # seconds that nothing here takes: instead of hanging, a test fails


@attrs.frozen
class Kind:
    """How a handler in the background is run."""

    name: str
    backend: str | None  # None: in a sync run
    is_task: bool

    def __str__(self) -> str:
        return self.name

    def drive(self, flow: Dispatcher, source: Any, **options: Any) -> Run:
        """Run *source* to its end."""
        if self.backend is None:
            return flow.run(source, **options)
        return anyio.run(lambda: flow.arun(source, **options), backend=self.backend)

    def handler(self, function: Callable[..., Any], held: threading.Event | None = None) -> Callable[..., Any]:
        """*function* as a handler that first waits until nothing *held* it any more."""

        def plain(event: Event, run: Run) -> Any:
            assert held is None or held.wait(LONG)
            return function(event)

        async def coroutine(event: Event, run: Run) -> Any:
            await anyio.lowlevel.checkpoint()
            while held is not None and not held.is_set():  # noqa: ASYNC110  # also set from other threads
                await anyio.sleep(0.001)
            return function(event)

        return coroutine if self.is_task else plain


KINDS = (
    Kind("thread", None, False),
    Kind("thread-asyncio", "asyncio", False),
    Kind("thread-trio", "trio", False),
    Kind("task-asyncio", "asyncio", True),
    Kind("task-trio", "trio", True),
)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
BACKENDS = ("asyncio", "trio")


def workers() -> list[threading.Thread]:
    """The threads of eventflow that do not end."""
    left = [thread for thread in threading.enumerate() if thread.name.startswith("eventflow")]
    for thread in left:
        thread.join(2)
    return [thread for thread in left if thread.is_alive()]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Every test leaves the threads as it found them; a task that is left makes its event loop complain."""
    yield
    assert not workers()


class Beside(Plugin):
    """Gives the ticks and deltas at its place to a function in the background."""

    function: Callable[..., Any]
    options: Any = attrs.field(factory=dict)
    lane: Any = state(default=None)
    given: int = state(default=0)
    most: int = state(default=0)

    def start(self, run: Run) -> None:
        self.lane = run.background(self.function, **self.options)

    @on(Tick, TextDelta, FunctionCallArgumentsDelta, AudioDelta)
    def hear(self, event: Event) -> Any:
        self.most = max(self.most, self.given - self.lane.handled - self.lane.dropped)
        self.given += 1
        return self.lane(event)


def ticks(count: int) -> list[Any]:
    """Events of our own, and the end of a stream."""
    return [*(Tick(n=n) for n in range(count)), completed()]


# --- the queue -------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    overflow=st.sampled_from(["block", "coalesce"]),
    size=st.integers(1, 4),
    count=st.integers(0, 12),
    snapshot=st.booleans(),
)
def test_queue_when_it_blocks_loses_nothing(kind: Kind, overflow: Any, size: int, count: int, snapshot: bool) -> None:
    """Every event is heard, in order, and no more than the queue holds ever waits, besides what is in the two hands."""
    heard: list[int] = []
    beside = Beside(kind.handler(lambda event: heard.append(event.n)), {"queue": size, "overflow": overflow})
    run = kind.drive(Dispatcher(beside, snapshot=snapshot), ticks(count))
    assert heard == list(range(count))
    assert (run[Beside].lane.handled, run[Beside].lane.dropped) == (count, 0)
    assert run[Beside].most <= size + 1


@settings(max_examples=60)
@given(kind=st.sampled_from(KINDS), size=st.integers(1, 4), count=st.integers(0, 12))
def test_queue_when_it_drops_the_oldest(kind: Kind, size: int, count: int) -> None:
    """What is heard is in order, the last ones always; what is not was counted, and older than all that waited."""
    heard: list[int] = []
    free = threading.Event()
    options = {"queue": size, "overflow": "drop_oldest"}
    flow = Dispatcher(Beside(kind.handler(lambda event: heard.append(event.n), free), options))
    flow.on(ResponseCompleted, lambda event: free.set())
    run = kind.drive(flow, ticks(count))
    last = heard[1:] if len(heard) > size else heard  # the first was in hand, and may be of any time
    assert last == list(range(count))[count - len(last) :]
    assert heard == sorted(heard)
    assert min(count, size) <= len(heard) <= size + 1
    assert run[Beside].lane.dropped == count - len(heard)


pieces = st.lists(
    st.one_of(
        st.builds(TextDelta, delta=st.text(max_size=3), item_id=st.sampled_from("ab"), logprobs=st.just(())),
        st.builds(FunctionCallArgumentsDelta, delta=st.text(max_size=3), item_id=st.sampled_from("ab")),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(kind=st.sampled_from(KINDS), size=st.integers(1, 4), events=pieces)
def test_queue_when_it_coalesces(kind: Kind, size: int, events: list[Any]) -> None:
    """However deltas are joined, each text is whole, the parts keep their order, and numbers are those of the last."""
    heard: list[Any] = []
    free = threading.Event()
    one_text = len(set(map(place, events))) < 2
    if not one_text:  # then the run has to wait for the handler
        free.set()
    source = [event.replace(sequence_number=n) for n, event in enumerate(events)]
    flow = Dispatcher(Beside(kind.handler(heard.append, free), {"queue": size, "overflow": "coalesce"}))
    flow.on(ResponseCompleted, lambda event: free.set())
    run = kind.drive(flow, [*source, completed()])
    assert spoken(heard) == spoken(events)
    assert [event.sequence_number for event in heard] == sorted(event.sequence_number for event in heard)
    assert not events or heard[-1].sequence_number == len(events) - 1
    assert not one_text or len(heard) <= size + 1
    assert run[Beside].lane.dropped == 0


def place(event: Any) -> tuple[type[Event], str]:
    """Which text a delta belongs to."""
    return type(event), event.item_id


def spoken(events: Iterable[Any]) -> list[tuple[Any, str]]:
    """The texts of deltas, in order: one for as long as it goes on."""
    texts: list[tuple[Any, str]] = []
    for event in events:
        if texts and texts[-1][0] == place(event):
            texts[-1] = (texts[-1][0], texts[-1][1] + event.delta)
        else:
            texts.append((place(event), event.delta))
    return texts


class Move(Event, tag="tests.background.move"):
    delta: str
    player: int = 0


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (TextDelta("a", sequence_number=1), TextDelta("b", sequence_number=2), "ab"),
        (ShellDelta("a", obfuscation="xx"), ShellDelta("b", obfuscation="x"), "ab"),
        (TextDelta("a", extra={"x": 1}), TextDelta("b"), None),
        (TextDelta("a"), TextDelta("b", extra={"x": 1}), None),
        (AudioDelta(delta="YQ=="), AudioDelta(delta="Yg=="), None),
        (Move("a", player=1), Move("b", player=1), "ab"),
        (Move("a", player=1), Move("b", player=2), None),
        (Tick(n=1), Tick(n=1), None),
        (TextDelta("a"), Tick(n=1), None),
    ],
)
def test_coalescing_when_something_would_be_lost(first: Any, second: Any, joined: str | None) -> None:
    """Deltas are joined where they differ in their text alone; base64 and what carries more waits for room."""
    free = threading.Event()
    lanes: list[Lane] = []
    heard: list[Any] = []

    def hear(event: Event) -> None:
        assert free.wait(LONG)
        heard.append(event)

    class Gives(Plugin):
        def start(self, run: Run) -> None:
            lane = run.background(hear, queue=1, overflow="coalesce")
            lanes.append(lane)
            assert lane(Tick()) is None
            while lane._queue:  # the worker takes it: from here on it holds one event
                time.sleep(0)
            assert lane(first) is None
            assert (lane(second) is None) == (joined is not None)
            free.set()

    Dispatcher(Gives()).run([completed()])
    assert [getattr(event, "delta", None) for event in heard[1:]] == (
        [joined]
        if joined is not None
        else [first.delta if hasattr(first, "delta") else None, getattr(second, "delta", None)]
    )


@every_kind
@pytest.mark.parametrize("as_bytes", [False, True])
def test_handler_when_in_the_background_hears_what_others_hear(kind: Kind, as_bytes: bool) -> None:
    """`on(..., background=True)` hears each event once, in order, whichever path the events come on."""
    heard: list[Event] = []
    inline: list[Event] = []
    flow = Dispatcher()
    flow.on("*", kind.handler(heard.append), background=True, queue=2)
    flow.on("*", inline.append)
    kind.drive(flow, map(block, AB) if as_bytes else AB)
    assert heard == inline == [decode_mapping(event) for event in AB]


@every_kind
def test_function_when_registered_twice_has_one_queue(kind: Kind) -> None:
    """The events of a function that several selectors match come in order, one at a time."""
    heard: list[str] = []
    at: list[int] = []
    flow = Dispatcher()

    def hear(event: Event) -> None:
        at.append(1)
        heard.append(event.type)
        assert at.pop() == 1
        assert not at

    function = kind.handler(hear)
    for selector in ("response.created", "text", "response.completed"):
        flow.on(selector, function, background=True)
    kind.drive(flow, AB)
    assert heard == [event["type"] for event in AB if "item" not in event]
    other = Dispatcher()
    runs: list[Run] = []
    other.on("response.created", lambda event, run: runs.append(run))
    other.on("text", function, background=True)
    other.on("response.completed", function, background=True, queue=9)
    kind.drive(other, AB)
    assert len(runs[0]._engine.chain._lanes) == 2


@every_kind
def test_dispatcher_when_many_runs_go_on_keeps_them_apart(kind: Kind) -> None:
    """Each run has its queues and workers; none hears another's events."""
    heard: dict[str, list[int]] = {}
    flow = Dispatcher()

    def hear(event: Event, run: Run) -> None:
        heard.setdefault(run.id, []).append(event.n)  # type: ignore[attr-defined]

    async def later(event: Event, run: Run) -> None:
        hear(event, run)

    flow.on(Tick, later if kind.is_task else hear, background=True, queue=1)
    threads = [threading.Thread(target=kind.drive, args=(flow, ticks(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert list(heard.values()) == [list(range(20))] * 4


def test_async_plugin_handler_when_it_gives_on_a_lane() -> None:
    """A lane that an async handler gives is waited for as well."""
    heard: list[int] = []

    class Later(Plugin):
        lane: Any = state(default=None)

        def start(self, run: Run) -> None:
            self.lane = run.background(lambda event: heard.append(event.n), queue=1)

        @on(Tick)
        async def hear(self, event: Tick) -> Any:
            full = self.lane(event)
            assert len(self.lane._queue) <= 2
            return full

    asyncio.run(Dispatcher(Later()).arun(ticks(50)))
    assert heard == list(range(50))


def test_context_variables_when_read_in_the_background() -> None:
    """A handler in the background sees the context variables of its run, and sets its own."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody")
    seen: list[str] = []

    def look(event: Event) -> None:
        seen.append(variable.get())
        variable.set("handler")

    async def alook(event: Event) -> None:
        look(event)

    for kind, function in ((KINDS[0], look), (KINDS[3], alook), (KINDS[4], alook)):
        flow = Dispatcher()
        flow.on("response.created", function, background=True)
        token = variable.set(str(kind))
        kind.drive(flow, AB)
        assert variable.get() == str(kind)
        variable.reset(token)
    assert seen == ["thread", "task-asyncio", "task-trio"]


# --- slow ones -------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("errors", ["raise", "isolate"])
def test_queue_when_full_is_an_error(kind: Kind, errors: Any) -> None:
    """`overflow="error"` ends the run with `SlowConsumer`, or reports every event that is lost, and the run goes on."""
    free = threading.Event()
    heard: list[int] = []
    failures: list[HandlerFailed] = []
    flow = Dispatcher()
    flow.on(
        Tick,
        kind.handler(lambda event: heard.append(event.n), free),
        background=True,
        queue=2,
        overflow="error",
        errors=errors,
    )
    flow.on(HandlerFailed, failures.append)
    flow.on(ResponseCompleted, lambda event: free.set())
    try:
        if errors == "raise":
            with pytest.raises(
                SlowConsumer, match=r"handler\..* is too slow for run run_.*: its queue of 2 events is"
            ) as raised:
                kind.drive(flow, ticks(10))
            assert raised.value.run is not None
            assert (raised.value.phase, raised.value.run.status) == ("handler", "failed")
            assert raised.value.__notes__ == [
                f"raised by {_name(kind)} on tests.tick in the background of run {raised.value.run.id}"
            ]
        else:
            kind.drive(flow, ticks(10))
            assert len(failures) + len(heard) == 10
            assert len(heard) in (2, 3)
            assert {failure.event.n for failure in failures} | set(heard) == set(range(10))  # type: ignore[union-attr]
    finally:
        free.set()


def _name(kind: Kind) -> str:
    return "Kind.handler.<locals>." + ("coroutine" if kind.is_task else "plain")


@every_kind
@pytest.mark.parametrize("count", [1, 9], ids=["at its end", "for room"])
@pytest.mark.parametrize("errors", ["raise", "isolate"])
def test_handler_when_it_never_returns(kind: Kind, count: int, errors: Any) -> None:
    """After its patience the run ends with `SlowConsumer`, or goes on without a handler that is isolated."""
    free = threading.Event()
    flow = Dispatcher()
    failures: list[HandlerFailed] = []
    inline: list[Event] = []
    options: Any = {"queue": 2, "patience": 0.05, "errors": errors}
    flow.on(Tick, kind.handler(repr, free), background=True, **options)
    flow.on(HandlerFailed, failures.append)
    flow.on(Tick, inline.append)
    try:
        if errors == "raise":
            with pytest.raises(SlowConsumer, match=r"it has been at one event for 0\.05 s"):
                kind.drive(flow, ticks(count))
        else:
            assert kind.drive(flow, ticks(count)).status == "completed"
            assert [type(failure.error) for failure in failures] == [SlowConsumer]
            assert len(inline) == count
    finally:
        free.set()


def test_patience_when_it_is_by_the_dispatchers_clock() -> None:
    """The patience is measured by the dispatcher's clock; without an end the run waits for as long as it takes."""
    free = threading.Event()
    now = [0.0]
    for patience in (None, 5.0):
        free.clear()
        flow = Dispatcher(clock=lambda: now[0])

        def hear(event: Event, run: Run, patience: Any = patience) -> None:
            for _ in range(3 if patience is None else 2000):
                now[0] += 1e6
                run.wake()
                if free.wait(0.001):
                    return

        flow.on(Tick, hear, background=True, patience=patience)
        if patience is None:
            assert flow.run(ticks(3)).status == "completed"
        else:
            with pytest.raises(SlowConsumer, match="for 5 s"):
                flow.run(ticks(3))
    free.set()


# --- failures --------------------------------------------------------------------------------------------------------


class Quit(BaseException):
    pass


FAULTS: dict[str, tuple[BaseException, type[Exception]]] = {
    "exception": (ValueError("no"), ValueError),
    "stop iteration": (StopIteration("no"), RuntimeError),
    "exit": (SystemExit(3), RuntimeError),
    "base exception": (Quit("no"), RuntimeError),
}


@every_kind
@pytest.mark.parametrize("errors", ["raise", "isolate"])
@pytest.mark.parametrize("fault", FAULTS)
def test_failure_when_in_the_background(kind: Kind, fault: str, errors: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It ends the run, though the source has no end, or is reported, and the handler hears the next events."""
    raised, expected = FAULTS[fault]
    failures: list[HandlerFailed] = []
    heard: list[int] = []

    def fail(event: Any) -> None:
        heard.append(event.n)
        if event.n == 1:
            raise type(raised)(*raised.args)

    def endless() -> Iterator[Any]:
        yield Tick(n=1)
        while True:
            yield created()

    flow = Dispatcher()
    flow.on(Tick, kind.handler(fail), background=True, errors=errors)
    flow.on(HandlerFailed, failures.append)
    if errors == "raise":
        with pytest.raises(expected) as caught:
            kind.drive(flow, endless())
        (note,) = caught.value.__notes__
        assert note.startswith(f"raised by {_name(kind)} on tests.tick in the background of run run_")
    else:
        kind.drive(flow, ticks(4))
        assert heard == [0, 1, 2, 3]
        assert [type(failure.error) for failure in failures] == [expected]
        assert len(caplog.records) == 1


@every_kind
def test_failure_when_the_run_waits_for_room(kind: Kind) -> None:
    """A handler that raises while the run waits for room ends it at once."""
    flow = Dispatcher()

    def fail(event: Any) -> None:
        if event.n == 2:
            raise ValueError("full")

    flow.on(Tick, kind.handler(fail), background=True, queue=1, patience=None)
    with pytest.raises(ValueError, match="full"):
        kind.drive(flow, (Tick(n=n) for n in range(10**9)))


def test_failures_when_there_are_two(caplog: pytest.LogCaptureFixture) -> None:
    """The run ends with the first; the other is logged, as is one that comes when the run is over."""
    both, late, over = threading.Barrier(2), threading.Event(), threading.Event()
    done: list[Job | None] = []
    flow = Dispatcher()

    def first(event: Event) -> None:
        both.wait(LONG)
        raise ValueError("first")

    def second(event: Event) -> None:
        both.wait(LONG)
        raise ValueError("second")

    def third(event: Event) -> None:
        late.set()
        assert over.wait(LONG)
        raise ValueError("third")

    @flow.on("response.created", order=1)
    def wait(event: Event, run: Run) -> None:
        assert late.wait(LONG)
        lanes = run._engine.chain._lanes
        done.extend(lane._job for lane in lanes[:2])
        while not all(job is not None and job.done for job in done):
            time.sleep(0)

    for function in (first, second, third):
        flow.on("response.created", function, background=True)
    with pytest.raises(ValueError, match=r"first|second") as raised:
        flow.run(AB)
    other = {"first": "second", "second": "first"}[str(raised.value)]
    assert [(str(record.exc_info[1]), record.message) for record in caplog.records if record.exc_info] == [
        (other, f"a handler in the background failed in {_run_of(caplog.text)}, event 1")
    ]
    caplog.clear()
    over.set()
    assert not workers()
    assert "third on response.created failed when the background of run" in caplog.text


def _run_of(text: str) -> str:
    return "run run_" + text.partition("run run_")[2][:16]


def test_failure_when_a_hook_of_a_plugin_waits_is_not_called_the_hooks() -> None:
    """What a handler in the background raised while a plugin finishes has one note: whose failure it is."""

    class Waits(Plugin):
        def finish(self, run: Run) -> Iterator[Any]:
            run.emit(Tick(n=1))
            while True:
                yield Pause(LONG)

    def fail(event: Event) -> None:
        raise ValueError("no")

    flow = Dispatcher(Waits())
    flow.on(Tick, fail, background=True)
    with pytest.raises(ValueError, match="no") as raised:
        flow.run(AB)
    assert len(raised.value.__notes__) == 1


@every_kind
def test_run_when_another_handler_raises(kind: Kind) -> None:
    """It ends with that; what waits in the background is dropped, a task cancelled, a thread left alone."""
    free = threading.Event()
    runs: list[Run] = []
    flow = Dispatcher(Beside(kind.handler(repr, free), {"queue": 9}))

    @flow.on(ResponseCompleted)
    def fail(event: Event, run: Run) -> None:
        runs.append(run)
        raise KeyError("other")

    with pytest.raises(KeyError):
        kind.drive(flow, ticks(5))
    assert runs[0][Beside].lane.dropped >= 4
    free.set()


@every_kind
def test_run_when_interrupted(kind: Kind) -> None:
    """A KeyboardInterrupt goes through; every plugin's stop is called, after the end of the handlers."""
    free = threading.Event()
    ended: list[bool] = []

    class Stops(Plugin):
        def stop(self, run: Run) -> None:
            ended.append(all(lane._closed for lane in run._engine.chain._lanes))

    flow = Dispatcher(Stops())
    flow.on(Tick, kind.handler(repr, free), background=True)

    @flow.on(ResponseCompleted)
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kind.drive(flow, ticks(5))
    assert ended == [True]
    free.set()


def test_run_when_interrupted_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A KeyboardInterrupt in a wait, be it the one for workers that end, goes through, and plugins are stopped."""
    calls: list[str] = []
    free = threading.Event()

    class Stops(Plugin):
        def stop(self, run: Run) -> None:
            calls.append("stop")

    def interrupted(self: Any, seconds: float | None = None) -> None:
        calls.append("wait")
        raise KeyboardInterrupt

    async def later(event: Event) -> None:
        await anyio.sleep_forever()

    flow = Dispatcher(Stops())
    flow.on(Tick, lambda event: free.wait(LONG), background=True)
    monkeypatch.setattr(Run, "now", interrupted)
    with pytest.raises(KeyboardInterrupt):
        flow.run(ticks(1))
    assert calls == ["wait", "stop"]
    free.set()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stubborn", [False, True])
def test_task_when_it_takes_its_time_over_a_cancellation(
    backend: str, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for its end, but not for ever."""
    monkeypatch.setattr(background, "_GRACE", 0.05 if stubborn else LONG)
    ended: list[bool] = []
    begun: list[int] = []

    async def hear(event: Event) -> None:
        begun.append(1)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.2 if stubborn else 0.02)
            ended.append(True)

    async def main() -> None:
        flow = Dispatcher()
        flow.on(Tick, hear, background=True)

        @flow.on(ResponseCompleted)
        async def cancel(event: Event, run: Run) -> None:
            while not begun:
                await anyio.lowlevel.checkpoint()
            run.cancel()

        run = await flow.arun(ticks(1))
        assert (run.status, ended) == ("completed", [] if stubborn else [True])
        await anyio.sleep(0.25 if stubborn else 0)

    anyio.run(main, backend=backend)
    assert ended == [True]


# --- cancelling ------------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("count", [1, 9], ids=["at its end", "for room"])
def test_cancel_when_the_run_waits_for_a_handler(kind: Kind, count: int) -> None:
    """`run.cancel()` from another thread ends the wait; plugins are stopped, not finished."""
    free, begun, ended = threading.Event(), threading.Event(), threading.Event()
    runs: list[Run] = []
    calls: list[str] = []

    class Watch(Plugin):
        def start(self, run: Run) -> None:
            runs.append(run)

        def finish(self, run: Run) -> None:
            calls.append("finish")

        def stop(self, run: Run) -> None:
            calls.append("stop")

    def cancel() -> None:
        assert begun.wait(LONG)
        assert count > 1 or ended.wait(LONG)
        runs[0].cancel()

    def plain(event: Event) -> None:
        begun.set()
        assert free.wait(LONG)

    async def coroutine(event: Event) -> None:
        begun.set()
        await anyio.sleep_forever()

    flow = Dispatcher(Watch())
    flow.on(Tick, coroutine if kind.is_task else plain, background=True, queue=2, patience=None)
    flow.on(ResponseCompleted, lambda event: ended.set())
    thread = threading.Thread(target=cancel)
    thread.start()
    run = kind.drive(flow, ticks(count))
    thread.join()
    assert (run.status, calls) == ("cancelled" if count > 1 else "completed", ["stop"])  # its stream has ended well
    free.set()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_task", [False, True])
def test_task_when_cancelled_while_the_run_waits_for_a_handler(backend: str, is_task: bool) -> None:
    """The cancellation goes through; a handler in a task is cancelled with it."""
    free = threading.Event()
    ended: list[str] = []
    begun: list[int] = []

    async def coroutine(event: Event) -> None:
        begun.append(1)
        try:
            await anyio.sleep_forever()
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    def plain(event: Event) -> None:
        begun.append(1)
        assert free.wait(LONG)

    async def main() -> None:
        flow = Dispatcher()
        flow.on(Tick, coroutine if is_task else plain, background=True, queue=1)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    while not begun:  # noqa: ASYNC110  # also set from a thread
                        await anyio.sleep(0.001)
                    scope.cancel()

                group.start_soon(cancel)
                await flow.arun(ticks(5))
        assert scope.cancelled_caught
        assert ended == ([{"asyncio": "CancelledError", "trio": "Cancelled"}[backend]] if is_task else [])

    anyio.run(main, backend=backend)
    free.set()


@pytest.mark.parametrize("errors", ["raise", "isolate"])
@pytest.mark.parametrize("moment", ["at an event", "before the first", "by the handler"])
def test_worker_when_somebody_else_cancels_it(moment: str, errors: Any) -> None:
    """A worker task that a stranger cancels at an event ends the run with an error, or is reported."""
    failures: list[HandlerFailed] = []

    def cancel_workers() -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("eventflow-background"):
                task.cancel()

    async def hear(event: Event) -> None:
        if moment == "by the handler":
            raise asyncio.CancelledError
        asyncio.get_running_loop().call_soon(cancel_workers)
        await asyncio.sleep(LONG)

    flow = Dispatcher()
    flow.on(Tick, hear, background=True, errors=errors)
    flow.on(HandlerFailed, failures.append)
    if moment == "before the first":
        flow.on(Tick, lambda event: cancel_workers(), order=1)
    if errors == "raise":
        with pytest.raises(RuntimeError, match="hear was cancelled"):
            asyncio.run(flow.arun(ticks(1)))
    else:
        assert asyncio.run(flow.arun(ticks(1))).status == "completed"
        assert [str(failure.error).endswith("hear was cancelled") for failure in failures] == [True]


def test_worker_when_somebody_else_cancels_it_idle() -> None:
    """A worker task that is cancelled between events is replaced."""
    heard: list[int] = []

    async def hear(event: Any) -> None:
        heard.append(event.n)

    async def main() -> None:
        flow = Dispatcher()
        flow.on(Tick, hear, background=True)
        async with flow.aopen(check=False) as run:
            await run.afeed(Tick(n=1))
            await asyncio.sleep(0.01)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await run.afeed(Tick(n=2))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert heard == [1, 2]


def test_break_when_a_handler_is_in_the_background() -> None:
    """A bare break leaves the run at once; the worker ends after the event that it is at, and hears no other."""
    free = threading.Event()
    heard: list[Event] = []
    flow = Dispatcher()

    def hear(event: Event) -> None:
        assert free.wait(LONG)
        heard.append(event)

    flow.on("*", hear, background=True)
    source = Watched(AB)
    stream = flow.stream(source)
    for event in stream:
        if isinstance(event, TextDelta):
            break
    assert (stream.run.status, source.closed) == ("cancelled", 1)
    free.set()
    assert not workers()
    assert len(heard) <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_astream_when_left(backend: str) -> None:
    """Leaving an async stream cancels the handlers in its background, and waits for their end."""
    ended: list[bool] = []

    async def hear(event: Event) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    async def main() -> None:
        flow = Dispatcher()
        flow.on("*", hear, background=True)
        async with flow.astream(AsyncWatched(AB)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        assert ended == [True]
        assert events.run.status == "cancelled"

    anyio.run(main, backend=backend)


# --- pushed and dropped ----------------------------------------------------------------------------------------------


@every_kind
def test_push_when_a_handler_is_in_the_background(kind: Kind) -> None:
    """Runs that are fed have handlers in the background as well; the end of the block waits for them."""
    heard: list[int] = []
    flow = Dispatcher()
    flow.on(Tick, kind.handler(lambda event: heard.append(event.n)), background=True, queue=1)
    if kind.backend is None:
        with flow.open() as run:
            for event in ticks(9):
                run.feed(event)
    else:

        async def main() -> None:
            async with flow.aopen() as run:
                for event in ticks(9):
                    await run.afeed(event)

        anyio.run(main, backend=kind.backend)
    assert heard == list(range(9))


def test_push_when_dropped() -> None:
    """A run that is fed, and then dropped without its end, takes its worker with it, and stops its plugins."""
    calls: list[str] = []
    heard = threading.Event()

    class Stops(Plugin):
        def stop(self, run: Run) -> Iterator[Pause]:
            calls.append("stop")
            while True:  # nobody drives the run: this ends with the first
                yield Pause()

    flow = Dispatcher(Stops())
    flow.on(Tick, lambda event: heard.set(), background=True)
    push = flow.open()
    run = push.__enter__()
    run.feed(Tick())
    assert heard.wait(LONG)
    del push, run
    for _ in range(100):
        gc.collect()
        if calls:
            break
        time.sleep(0.01)
    assert calls == ["stop"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_apush_when_dropped(backend: str) -> None:
    """An async run that is dropped takes its worker task with it."""
    heard: list[int] = []
    ended: list[bool] = []

    async def hear(event: Event) -> None:
        heard.append(1)

    async def main() -> None:
        flow = Dispatcher()
        flow.on(Tick, hear, background=True)
        run = await flow.aopen().__aenter__()
        await run.afeed(Tick())
        await anyio.sleep(0.01)
        job = run._engine.chain._lanes[0]._job
        assert job is not None
        assert not job.done
        del run
        gc.collect()
        await anyio.sleep(0.01)
        ended.append(job.done)

    anyio.run(main, backend=backend)
    assert (heard, ended) == ([1], [True])


# --- what handlers give ----------------------------------------------------------------------------------------------


class Gather(Plugin):
    """Says at its finish what it has seen."""

    seen: list[int] = state(factory=list)
    finished: list[int] = state(factory=list)

    @on(Tick)
    def see(self, event: Tick) -> None:
        self.seen.append(event.n)

    def finish(self, run: Run) -> None:
        self.finished = list(self.seen)


@pytest.mark.parametrize("form", ["generator", "emit", "async generator", "coroutine that gives a generator"])
@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_events_when_a_handler_in_the_background_gives_them(form: str, backend: str | None) -> None:
    """They enter at the head of the pipeline, before plugins finish."""

    def generator(event: TextDelta) -> Iterator[Event]:
        for n in range(3):
            yield Tick(n=n)

    def emit(event: TextDelta, run: Run) -> None:
        for tick in generator(event):
            run.emit(tick)

    async def agenerator(event: TextDelta) -> AsyncIterator[Event]:
        for tick in generator(event):
            await anyio.lowlevel.checkpoint()
            yield tick

    async def coroutine(event: TextDelta) -> Iterator[Event]:
        return generator(event)

    functions: dict[str, Any] = {"generator": generator, "emit": emit, "async generator": agenerator}
    function = functions.get(form, coroutine)
    if function not in (generator, emit) and backend is None:
        pytest.skip("of async runs")
    flow = Dispatcher(Gather())
    flow.on(TextDelta, function, background=True)
    run = Kind("", backend, False).drive(flow, AB)
    assert run[Gather].finished == [0, 1, 2] * 2


@every_kind
def test_handler_when_it_waits_for_what_it_emits(kind: Kind) -> None:
    """While the run waits at its end, what is emitted is dispatched: a handler may wait for the answer."""
    answered = threading.Event()
    calls: list[str] = []
    flow = Dispatcher()
    flow.on(Tick, lambda event: answered.set())

    def plain(event: Event, run: Run) -> None:
        run.emit(Tick())
        calls.append(str(answered.wait(LONG)))

    async def coroutine(event: Event, run: Run) -> None:
        run.emit(Tick())
        while not answered.is_set():  # noqa: ASYNC110  # a threading.Event, for both kinds
            await anyio.sleep(0.001)
        calls.append("True")

    flow.on(ResponseCompleted, coroutine if kind.is_task else plain, background=True)
    kind.drive(flow, AB)
    assert calls == ["True"]


@every_kind
@pytest.mark.parametrize("what", ["no event", "without end"])
def test_generator_when_in_the_background_fails(kind: Kind, what: str) -> None:
    """What is no event is an error, and so are events without end."""
    at: list[int] = []

    def gives(event: Event) -> Iterator[Any]:
        while True:
            yield "text" if what == "no event" else Tick()

    async def agives(event: Event) -> AsyncIterator[Any]:
        try:
            for each in gives(event):
                yield each
        finally:
            at.append(1)

    flow = Dispatcher(limits=Limits(emitted=100))
    flow.on("response.created", agives if kind.is_task else gives, background=True)
    if what == "no event":
        with pytest.raises(UsageError, match="gives yielded 'text'; a handler that is a generator yields events"):
            kind.drive(flow, AB)
    else:
        with pytest.raises(LimitExceeded):
            kind.drive(flow, AB)
    assert at == [1] * kind.is_task


def test_generator_when_the_run_is_over_ends() -> None:
    """A generator without end in the background ends with its run."""
    closed = threading.Event()
    flow = Dispatcher(limits=Limits(emitted=None))
    begun = threading.Event()

    def gives(event: Event, run: Run) -> Iterator[Event]:
        try:
            while True:
                begun.set()
                time.sleep(0)
                yield Tick()
        finally:
            closed.set()

    flow.on("response.created", gives, background=True)
    with flow.open(check=False) as run:
        run.feed(created())
        assert begun.wait(LONG)
        run.cancel()
    assert closed.wait(LONG)


@pytest.mark.parametrize("kind", KINDS[:3], ids=str)
def test_function_when_it_gives_an_awaitable(kind: Kind) -> None:
    """A plain function that gives a coroutine is an error that says what to do; in a thread nobody awaits it."""

    async def later() -> None: ...

    flow = Dispatcher()
    flow.on("response.created", lambda event: later(), background=True)
    with pytest.raises(UsageError, match="gave an awaitable; make it a coroutine function"):
        kind.drive(flow, AB)


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": 0}, "queue must be a positive number"),
        ({"queue": True}, "queue must be a positive number"),
        ({"overflow": "drop"}, "overflow must be one of block, drop_oldest, coalesce, error, not 'drop'"),
        ({"patience": 0}, "patience must be seconds"),
        ({"patience": float("nan")}, "patience must be seconds"),
        ({"patience": "1"}, "patience must be seconds"),
        ({"errors": "ignore"}, "errors must be"),
    ],
)
def test_options_when_they_make_no_sense(options: Any, message: str) -> None:
    """They are an error where they are written: by `on` in both forms, and by `Run.background`."""
    flow = Dispatcher()
    with pytest.raises(UsageError, match=message):
        flow.on(TextDelta, print, background=True, **options)
    if "errors" not in options:
        with pytest.raises(UsageError, match=message):
            flow.on(TextDelta, background=True, **options)
        with pytest.raises(UsageError, match="is for handlers in the background; add background=True"):
            flow.on(TextDelta, print, **options)
    with pytest.raises(UsageError, match=message):
        Dispatcher(Beside(print, options)).run(AB)


def test_background_when_used_wrongly() -> None:
    """An option that is none, an async function in a sync run, and a run that is over are errors."""

    async def later(event: Event) -> None: ...

    flow = Dispatcher()
    with pytest.raises(TypeError, match="unexpected keyword argument 'quue'"):
        flow.on(TextDelta, print, background=True, quue=1)  # type: ignore[call-overload]
    flow.on(TextDelta, later, background=True)
    with pytest.raises(UsageError, match="later can only be awaited"):
        flow.run(AB)
    with pytest.raises(UsageError, match="later can only be awaited"):
        Dispatcher(Beside(later)).run(AB)
    with pytest.raises(TypeError, match="unexpected keyword argument 'order'"):
        Dispatcher(Beside(print, {"order": 1})).run(AB)
    run = Dispatcher().run(AB)
    with pytest.raises(UsageError, match="is over; nothing is heard in its background"):
        run.background(print)


def test_lane_when_the_run_is_over_hears_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What is given to it is counted, and a log record tells how much was not heard."""
    caplog.set_level(logging.INFO)
    free = threading.Event()
    flow = Dispatcher(Beside(lambda event: free.wait(LONG), {"queue": 1, "overflow": "drop_oldest"}))
    flow.on(ResponseCompleted, lambda event: free.set())
    run = flow.run(ticks(5))
    lane = run[Beside].lane
    dropped = lane.dropped
    assert dropped in (3, 4)
    assert f"did not hear {dropped} of the events of run {run.id}" in caplog.text
    assert lane(Tick()) is None
    assert lane.dropped == dropped + 1


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_thread_when_started_says_when_it_ends() -> None:
    """`then` is called in the thread when the job is done; cancelling it is nothing."""
    free, ended = threading.Event(), threading.Event()
    names: list[str] = []

    def work() -> None:
        assert free.wait(LONG)
        names.append(threading.current_thread().name)

    job = start_thread(work, name="eventflow-test", then=ended.set)
    job.cancel()
    assert not job.done
    free.set()
    assert ended.wait(LONG)
    assert (job.done, names) == (True, ["eventflow-test"])
    assert not workers()
    assert start_thread(names.clear, name="eventflow-test") is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_task_when_started_says_when_it_ends(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """`then` is called when it ends, is cancelled from any thread, or fails, which is logged."""
    ended: list[str] = []

    async def fail() -> None:
        raise ValueError("unreported")

    async def main() -> None:
        jobs = {
            "done": start_task(anyio.lowlevel.checkpoint, name="done", then=lambda: ended.append("done")),
            "cancelled": start_task(anyio.sleep_forever, name="c", then=lambda: ended.append("cancelled")),
            "remote": start_task(anyio.sleep_forever, name="r", then=lambda: ended.append("remote")),
            "failed": start_task(fail, name="failing", then=lambda: ended.append("failed")),
            "early": start_task(anyio.sleep_forever, name="e"),
        }
        jobs["early"].cancel()
        await anyio.sleep(0.01)
        jobs["cancelled"].cancel()
        thread = threading.Thread(target=jobs["remote"].cancel)
        thread.start()
        thread.join()
        with anyio.fail_after(LONG):
            while not all(job.done for job in jobs.values()):  # noqa: ASYNC110  # it sets nothing
                await anyio.sleep(0.001)
        jobs["done"].cancel()

    anyio.run(main, backend=backend)
    assert sorted(ended) == ["cancelled", "done", "failed", "remote"]
    assert [record.message for record in caplog.records] == ["failing failed"]


def test_loop_thread_when_used() -> None:
    """Jobs run in one loop, with the context of who started them; a job can be cancelled, also before it begins."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody")
    variable.set("caller")
    loops: list[Any] = []
    ended: list[threading.Event] = [threading.Event() for _ in range(3)]
    begun = threading.Event()

    async def work() -> None:
        loops.append((asyncio.get_running_loop(), variable.get()))

    async def forever() -> None:
        begun.set()
        await asyncio.sleep(LONG)

    thread = LoopThread()
    thread.close()  # of none is nothing
    first = thread.start_task(work, name="first", then=ended[0].set)
    second = thread.start_task(forever, name="second", then=ended[1].set)
    assert begun.wait(LONG)
    second.cancel()
    assert ended[0].wait(LONG)
    assert ended[1].wait(LONG)
    third = thread.start_task(work, name="third", then=ended[2].set)
    assert ended[2].wait(LONG)
    assert first.done
    assert second.done
    assert third.done
    assert loops[0] == loops[1]
    assert loops[0][1] == "caller"
    thread.close()
    thread.close()
    assert not workers()
    third.cancel()  # its loop is closed


def test_loop_thread_when_closed_ends_what_is_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """Every job that was started before it is closed comes to its end; a later one begins another loop."""
    thread = LoopThread()
    ended: list[int] = []
    for _ in range(20):
        jobs = [
            thread.start_task(lambda: asyncio.sleep(LONG), name="x", then=lambda: ended.append(1)) for _ in range(5)
        ]
        jobs[0].cancel()
        thread.close()
        assert not workers()
        assert all(job.done for job in jobs)
    assert len(ended) == 100

    def fails() -> Any:
        raise ValueError("before it began")

    done = threading.Event()
    thread.start_task(fails, name="failing", then=done.set)
    assert done.wait(LONG)
    thread.close()
    assert [record.message for record in caplog.records] == ["failing failed"]


def test_loop_thread_when_its_loop_is_blocked_begins_another() -> None:
    """What is started then runs at once; the blocked one comes to its other jobs and ends, or is closed too."""
    thread = LoopThread(patience=0)
    ended: list[str] = []

    async def blocks(go: threading.Event, begun: threading.Event) -> None:
        begun.set()
        go.wait(LONG)

    async def slow(name: str) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append(name)

    def block_loop(name: str) -> tuple[threading.Event, threading.Thread]:
        go, begun = threading.Event(), threading.Event()
        before = set(threading.enumerate())
        thread.start_task(lambda: blocks(go, begun), name="blocks")
        assert begun.wait(LONG)
        thread._loops.here()._current.post(lambda: asyncio.ensure_future(slow(name)))  # type: ignore[union-attr]
        (new,) = set(threading.enumerate()) - before
        return go, new

    def start() -> None:
        done = threading.Event()
        job = thread.start_task(lambda: slow("after"), name="after", then=done.set)
        assert done.wait(LONG)
        assert job.done

    go, first = block_loop("beside")
    start()
    assert ended == ["after"]
    go.set()
    first.join(LONG)
    assert not first.is_alive()
    assert ended == ["after", "beside"]

    thread.close()
    go, second = block_loop("cancelled")
    start()
    thread.close()
    assert second.is_alive()
    go.set()
    assert not workers()
    assert ended == ["after", "beside", "after"]


def test_run_when_what_a_handler_emits_at_the_end_cancels_it() -> None:
    """A run that is cancelled while its queues become empty ends without the rest."""
    calls: list[str] = []

    class Finishes(Plugin):
        def finish(self, run: Run) -> None:
            calls.append("finish")

    def emits(event: Event, run: Run) -> None:
        run.emit(Tick())

    flow = Dispatcher(Finishes())
    flow.on(ResponseCompleted, emits, background=True)
    flow.on(Tick, lambda event, run: run.cancel())
    flow.run(AB)
    assert calls == []
