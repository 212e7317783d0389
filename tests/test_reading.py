"""How long a run waits for its source: told times, sync and async; the watchdog; timers of runs that are pushed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import JSON, AsyncWatched, Tick, answer, block, body, bytewise, completed, created, delta, error, opened

from eventflow import Dispatcher, Event, Plugin, Run, TextDelta, Timeouts, on, signals, state
from eventflow.errors import APIStreamError, EventflowError, StreamInterrupted, StreamTimeout, UsageError
from eventflow.reading import Watchdog
from eventflow.sources import Source
from eventflow.sse import Decoder, Frame
from eventflow.testing import Clock

WAYS = ("sync", "asyncio", "trio")
BACKENDS = ("asyncio", "trio")
MIXED = (*WAYS, "mixed")  # a sync source in an async run as well
PATIENCE = 5.0  # seconds that nothing here takes, however slow the machine

Script = list[tuple[float, Any]]  # seconds that go by, then the item, or what is raised


def told(clock: Clock, script: Script) -> Iterator[Any]:
    """A source that takes its time."""
    for seconds, item in script:
        clock.now += seconds
        if isinstance(item, Exception):
            raise item
        yield item


async def atold(clock: Clock, script: Script) -> AsyncIterator[Any]:
    """`told`, async."""
    for seconds, item in script:
        await anyio.lowlevel.checkpoint()
        clock.now += seconds
        if isinstance(item, Exception):
            raise item
        yield item


def drive(
    way: str,
    script: Script,
    *,
    flow: Dispatcher | None = None,
    clock: Clock | None = None,
    timeouts: Timeouts | None = None,
    own: Timeouts | None = None,
    check: bool = False,
) -> Run:
    """The run over *script*, in one of four ways; *timeouts* are the dispatcher's, *own* those of the source."""
    clock = clock or Clock()
    flow = flow or Dispatcher(timeout=timeouts, clock=clock)
    if way == "sync":
        return flow.run(Source(items=told(clock, script), timeouts=own), check=check)

    if way == "mixed":
        source = Source(items=told(clock, script), timeouts=own)
        return anyio.run(lambda: flow.arun(source, check=check))

    async def main() -> Run:
        items = atold(clock, script)
        return await flow.arun(Source(aitems=items, aclose=items.aclose, timeouts=own), check=check)  # type: ignore[attr-defined]

    return anyio.run(main, backend=way)


def timer_of(run: Run) -> str:
    """The timer that ended *run*."""
    assert run.status == "timeout"
    assert isinstance(run.error, StreamTimeout)
    assert run.error.run is run
    assert run.error.partial == run.response
    assert (run.error.phase, run.error.retryable) == ("stream", True)
    return run.error.timer


def blocks(*texts: str) -> Script:
    """A stream's beginning, at once."""
    return [(0, block(event)) for event in answer(*texts)[: 2 + len(texts)]]


END: Script = [(0, block(completed()))]
PING = b": ping\n\n"
LONG = block(delta("and so on" * 10))
NOISE = {
    "comments": [PING] * 10,
    "nothing": [b""] * 10,
    "blank lines": [b"\n"] * 10,
    "retries": [b"retry: 100\n\n"] * 10,
    "frames without data": [b"event: ping\n\n"] * 10,
    "trickled bytes": bytewise(LONG),
    "a trickled line": [b"event: ping", *bytewise(b"x" * 10)],
}

# --- each timer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("noise", NOISE)
def test_first_event_when_only_noise_comes_runs_out(way: str, noise: str) -> None:
    """Until the first event, comments and pieces of an event keep nothing alive."""
    clock = Clock()
    script = [(4.0, item) for item in NOISE[noise]]
    run = drive(way, script + END, clock=clock, timeouts=Timeouts(first_event=10, idle=1000))
    assert timer_of(run) == "first_event"
    assert (clock.now, run.events, run.text) == (12, 0, "")  # the third item is received, and is the last one


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("noise", NOISE)
def test_idle_when_only_noise_comes_runs_out(way: str, noise: str) -> None:
    """After an event, comments and pieces of the next one keep nothing alive."""
    clock = Clock()
    script = [*blocks("a"), *((4.0, item) for item in NOISE[noise])]
    run = drive(way, script + END, clock=clock, timeouts=Timeouts(first_event=1, idle=10))
    assert timer_of(run) == "idle"
    assert (clock.now, run.events, run.text) == (12, 3, "a")


@pytest.mark.parametrize("way", MIXED)
def test_idle_when_events_come_in_time_begins_anew(way: str) -> None:
    """Each event has the whole time, whatever came between."""
    script = [(0, block(created())), *[(4.5, item) for number in range(9) for item in (PING, block(delta("x")))]]
    run = drive(way, script + END, timeouts=Timeouts(first_event=1, idle=10), check=True)
    assert (run.status, run.text) == ("completed", "x" * 9)


@pytest.mark.parametrize("way", MIXED)
def test_total_when_all_waits_together_are_too_long_runs_out(way: str) -> None:
    """The sum of all waiting is bounded, however lively the stream is."""
    clock = Clock()
    script = [(3.0, block(event)) for event in [created(), opened(), *map(delta, "abcdefgh"), completed()]]
    run = drive(way, script, clock=clock, timeouts=Timeouts(first_event=5, idle=5, total=20))
    assert timer_of(run) == "total"
    assert (clock.now, run.text) == (21, "abcde")


@pytest.mark.parametrize("way", WAYS)
def test_timers_when_off_wait_for_ever(way: str) -> None:
    """None is no limit: nothing else takes its place."""
    script = [(1e6, block(event)) for event in answer("a", "b")]
    run = drive(way, script, timeouts=Timeouts(first_event=None, idle=None, total=None))
    assert (run.status, run.text) == ("completed", "ab")
    run = drive(way, script, timeouts=Timeouts(first_event=None, idle=None, total=3.5e6))
    assert timer_of(run) == "total"
    run = drive(way, [(1e6, PING), *blocks("a"), (9, PING), (9, PING)], timeouts=Timeouts(first_event=None, idle=10))
    assert timer_of(run) == "idle"


@pytest.mark.parametrize("way", WAYS)
def test_source_when_it_has_no_timers_is_waited_for(way: str, tmp_path: Path) -> None:
    """Iterables, lists, files and bytes take the time they take, unless the dispatcher says otherwise."""
    run = drive(way, [(1e6, block(event)) for event in answer("a")], check=True)
    assert (run.status, run.text) == ("completed", "a")
    path = tmp_path / "stream.sse"
    path.write_bytes(body(answer("a")))
    for source in (path, path.read_bytes(), answer("a")):
        clock = Clock()
        flow = Dispatcher(clock=clock)
        flow.on("*", lambda event, clock=clock: setattr(clock, "now", clock.now + 1e6))
        if way == "sync":
            assert flow.run(source).status == "completed"
        else:
            assert anyio.run(flow.arun, source, backend=way).status == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_timeouts_when_source_and_dispatcher_have_some_are_the_dispatchers(way: str) -> None:
    """What the dispatcher was given goes before what the source says, stricter or not; else the source's counts."""
    script = [(3.0, PING), *((0.0, block(event)) for event in answer("a"))]
    short, long = Timeouts(first_event=2, idle=2), Timeouts()
    assert timer_of(drive(way, script, own=short)) == "first_event"
    assert drive(way, script, own=short, timeouts=long).status == "completed"
    assert timer_of(drive(way, script, own=long, timeouts=short)) == "first_event"
    assert drive(way, script, own=long).status == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_first_event_when_the_source_was_waited_for_before_is_shorter(way: str) -> None:
    """The seconds that went into the head of an answer count."""
    script: Script = [(3, PING), (0, block(created())), *END]
    for waited, status in ((6.0, "completed"), (8.0, "timeout")):
        clock = Clock()
        flow = Dispatcher(clock=clock)
        source = Source(waited=waited, timeouts=Timeouts(first_event=10))
        if way == "sync":
            source.items = told(clock, script)
            run = flow.run(source, check=False)
        else:
            source.aitems = atold(clock, script)
            run = anyio.run(lambda source=source, flow=flow: flow.arun(source, check=False), backend=way)
        assert run.status == status


# --- what does not count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("total", [None, 30.0])
def test_timers_when_handlers_are_slow_do_not_run(way: str, total: float | None) -> None:
    """However long a handler takes, sync or async, only waiting for the source counts."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(first_event=5, idle=5, total=total), clock=clock)

    @flow.on("*")
    def slow(event: Event) -> None:
        clock.now += 1000

    async def slower(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        clock.now += 1000

    if way != "sync":
        flow.on("*", slower)
    script: Script = [(2.0, item) for event in answer("a", "b") for item in (PING, block(event))]
    run = drive(way, script, flow=flow, clock=clock, check=True)
    assert (run.status, run.text) == ("completed", "ab")
    assert clock.now == 28 + 7000 * (1 if way == "sync" else 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("total", [None, 25.0])
def test_timers_when_the_consumer_is_slow_do_not_run(way: str, total: float | None) -> None:
    """Whoever iterates a stream may take as long as they like between two events."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(first_event=5, idle=5, total=total), clock=clock)
    script = [(3.0, block(event)) for event in answer("a", "b")]
    seen = 0
    if way == "sync":
        for _ in flow.stream(told(clock, script)):
            clock.now += 1000
            seen += 1
    else:

        async def main() -> int:
            seen = 0
            async with flow.astream(atold(clock, script)) as events:
                async for _ in events:
                    clock.now += 1000
                    seen += 1
            return seen

        seen = anyio.run(main, backend=way)
    assert seen == len(script) == 7
    assert clock.now == 7021


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("total", [None, 25.0])
def test_timers_when_handlers_of_emitted_events_are_slow_do_not_run(way: str, total: float | None) -> None:
    """What was emitted from elsewhere has handlers too, and their time is no waiting either."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(first_event=5, idle=5, total=total), clock=clock)
    runs: list[Run] = []

    @flow.on(Tick)
    def slow(event: Tick) -> None:
        clock.now += 1000

    class Emitting(list[Any]):
        """Yields a ping while something is emitted."""

        def __iter__(self) -> Iterator[Any]:
            yield block(created())
            runs[0].emit(Tick(1))
            yield PING
            yield from map(block, answer("a")[1:])

    class AsyncEmitting:
        def __aiter__(self) -> AsyncIterator[Any]:
            return self.items()

        async def items(self) -> AsyncIterator[Any]:
            for item in Emitting():
                await anyio.lowlevel.checkpoint()
                yield item

    def started(_: object, run: Run) -> None:
        runs.append(run)

    with signals.run_started.connected_to(started, sender=flow):
        if way == "sync":
            run = flow.run(iter(Emitting()), check=False)
        else:
            run = anyio.run(lambda: flow.arun(AsyncEmitting(), check=False), backend=way)
    assert (run.status, run.text) == ("completed", "a")


# --- what comes too late ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", MIXED)
@pytest.mark.parametrize("total", [None, 10.0])
def test_item_when_it_comes_too_late_is_received(way: str, total: float | None) -> None:
    """What a source gave at last is not lost, though the run ends behind it."""
    timeouts = Timeouts(idle=10 if total is None else None, total=total)
    heard: list[str] = []
    clock = Clock()
    flow = Dispatcher(timeout=timeouts, clock=clock)
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    late = block(delta("b")) + block(delta("c"))
    run = drive(way, [*blocks("a"), (11, late), (0, block(delta("d")))], flow=flow, clock=clock)
    assert timer_of(run) == ("idle" if total is None else "total")
    assert (heard, run.text) == (["a", "b", "c"], "abc")


@pytest.mark.parametrize("way", MIXED)
def test_terminal_event_when_it_comes_too_late_is_the_end(way: str) -> None:
    """A response that is whole at last is whole."""
    for timeouts in (Timeouts(idle=10), Timeouts(total=10)):
        run = drive(way, [*blocks("a"), (11, block(completed()))], timeouts=timeouts)
        assert (run.status, run.error) == ("completed", None)


@pytest.mark.parametrize("failure", [None, OSError("shut down")])
def test_sync_source_when_it_ends_behind_its_deadline_is_a_timeout(failure: Exception | None) -> None:
    """A source that was cut off by the watchdog ends or fails somehow: the timer is what ended it."""
    script: Script = [*blocks("a"), (11, failure)] if failure else blocks("a")
    clock = Clock()

    def late() -> Iterator[Any]:
        yield from told(clock, script)
        clock.now += 11

    flow = Dispatcher(timeout=Timeouts(idle=10), clock=clock)
    assert timer_of(flow.run(late(), check=False)) == "idle"


@pytest.mark.parametrize("way", MIXED)
def test_source_when_it_fails_before_its_deadline_is_no_timeout(way: str) -> None:
    """What the source itself ends with in time is what the run ends with."""
    run = drive(way, [*blocks("a"), (9, OSError("cut"))], timeouts=Timeouts(idle=10))
    assert type(run.error) is StreamInterrupted
    run = drive(way, blocks("a"), timeouts=Timeouts(idle=10))
    assert run.status == "truncated"


@pytest.mark.parametrize("way", MIXED)
def test_source_when_it_has_no_timers_ends_as_it_ends(way: str) -> None:
    """Nothing is timed, and nothing is lost: an end is an end, a failure a failure."""
    run = drive(way, blocks("a"))
    assert (run.status, run.text) == ("truncated", "a")
    failure = OSError("cut")
    run = drive(way, [*blocks("a"), (1e6, failure)])
    assert (type(run.error), run.text) == (StreamInterrupted, "a")
    assert run.error is not None
    assert run.error.__cause__ is failure


@pytest.mark.parametrize("way", WAYS)
def test_source_when_it_cannot_be_closed_is_let_go_of(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """What closing raises is a line in the log, and changes nothing of the run, which timed out."""

    def close() -> None:
        raise OSError("no")

    async def aclose() -> None:
        close()

    clock = Clock()
    script: Script = [*blocks("a"), (11, PING)]
    source = Source(close=close, aclose=aclose, timeouts=Timeouts(idle=10))
    flow = Dispatcher(clock=clock)
    with caplog.at_level("DEBUG", "eventflow"):
        if way == "sync":
            source.items = told(clock, script)
            run = flow.run(source, check=False)
        else:
            source.aitems = atold(clock, script)
            run = anyio.run(lambda: flow.arun(source, check=False), backend=way)
    assert timer_of(run) == "idle"
    assert [record.getMessage() for record in caplog.records if record.name == "eventflow"] == [
        f"the source of run {run.id} could not be closed"
    ]


# --- against a model -------------------------------------------------------------------------------------------------

ITEMS = {"event": block(delta("x")), "ping": PING, "nothing": b"", "piece": b": and"}


@attrs.frozen
class Pulled:
    """One item of a source: how long it took, what it was, and how long its handlers took."""

    seconds: int
    kind: str
    work: int


def ended_by(timeouts: Timeouts, pulls: list[Pulled]) -> tuple[str, int]:
    """How a run ends, and with how many events, by adding up what its source took."""
    events = since = waited = 0
    for pull in [*pulls, Pulled(0, "end", 0)]:
        name, allowed = ("idle", timeouts.idle) if events else ("first_event", timeouts.first_event)
        room = {name: inf if allowed is None else allowed - since}
        room["total"] = inf if timeouts.total is None else timeouts.total - waited
        timer = min(room, key=lambda timer: room[timer])
        if room[timer] <= 0:
            return timer, events
        events += pull.kind == "event"
        if pull.seconds > room[timer]:
            return timer, events
        waited += pull.seconds
        since = 0 if pull.kind == "event" else since + pull.seconds
    return "truncated", events


@settings(max_examples=200)
@given(
    way=st.sampled_from(MIXED),
    timeouts=st.builds(
        Timeouts,
        first_event=st.integers(1, 12) | st.none(),
        idle=st.integers(1, 12) | st.none(),
        total=st.integers(1, 40) | st.none(),
    ),
    pulls=st.lists(
        st.builds(Pulled, st.integers(0, 8), st.sampled_from(["event", *ITEMS]), st.integers(0, 20)), max_size=15
    ),
)
def test_run_when_its_source_takes_any_time_ends_as_the_model_says(
    way: str, timeouts: Timeouts, pulls: list[Pulled]
) -> None:
    """A run ends with the timer, and with the events, that adding up by hand gives."""
    clock = Clock()
    flow = Dispatcher(timeout=timeouts, clock=clock)
    works = [pull.work for pull in pulls if pull.kind == "event"]

    @flow.on(TextDelta)
    def work(event: TextDelta, run: Run) -> None:
        clock.now += works[run.events - 1]

    script: Script = []
    for pull in pulls:
        script.append((pull.seconds, ITEMS[pull.kind]))
        if pull.kind == "piece":
            script.append((0, b"\n\n"))
    run = drive(way, script, flow=flow, clock=clock)
    ended = run.error.timer if isinstance(run.error, StreamTimeout) else run.status
    assert (ended, run.events) == ended_by(timeouts, pulls)


# --- a source that is never waited for -------------------------------------------------------------------------------

FLOODS = {
    "comments": b": ping\r\n\r\n",
    "blank lines": b"\r\n" * 10,
    "pings": b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n',
    "empty objects": b"data: {}\r\n\r\n",
}


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock by which every chunk takes a second to read."""
    clock, feed = Clock(), Decoder.feed

    def slow(decoder: Decoder, data: bytes) -> list[Frame]:
        clock.now += 1
        return feed(decoder, data)

    monkeypatch.setattr(Decoder, "feed", slow)
    return clock


class Slow(Plugin):
    """Takes its time for every chunk and every event."""

    clock: Any
    worked: int = state(default=0)

    def receive(self, item: object) -> None:
        self.clock.now += 1000
        self.worked += 1000

    @on("*")
    def hear(self, event: Event) -> None:
        self.receive(event)


@pytest.mark.parametrize("way", MIXED)
@pytest.mark.parametrize("timeouts", [Timeouts(idle=10), Timeouts(idle=None, total=10)])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_timer_when_a_flood_brings_no_event_runs_out(
    way: str, flood: bytes, timeouts: Timeouts, reading: Clock
) -> None:
    """The source never lets itself be waited for: reading counts, the handlers of what it brings do not."""
    flow = Dispatcher(Slow(reading), timeout=timeouts, clock=reading)
    run = drive(way, [(0, block(created())), *[(0, flood)] * 20], flow=flow, clock=reading)
    assert timer_of(run) == ("idle" if timeouts.idle else "total")
    assert 10 <= reading.now - run[Slow].worked <= 12


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_tick_when_a_flood_brings_no_event_ends_the_run(way: str, flood: bytes, reading: Clock) -> None:
    """The same for a run that is fed, whoever feeds it without a pause."""
    flow = Dispatcher(Slow(reading), timeout=Timeouts(idle=10), clock=reading)

    async def script(push: Pushed) -> None:
        await push.feed(block(created()))
        for _ in range(20):
            await push.feed(flood)
            await push.tick()

    run = pushed(way, script, flow, raises=True)
    assert timer_of(run) == "idle"
    assert 10 <= reading.now - run[Slow].worked <= 12


@pytest.mark.parametrize("way", MIXED)
@pytest.mark.parametrize("heard", [True, False])
def test_total_when_events_flood_runs_out(way: str, heard: bool, reading: Clock) -> None:
    """Reading what comes counts for the whole, though events come all the time; their handlers do not."""
    flow = Dispatcher(*[Slow(reading)] * heard, timeout=Timeouts(total=10), clock=reading)
    chunk = block(delta("a")).replace(b"\n", b"\r\n")
    run = drive(way, [(0, block(created())), *[(0, chunk)] * 20], flow=flow, clock=reading)
    assert timer_of(run) == "total"
    assert 10 <= reading.now - (run[Slow].worked if heard else 0) <= 12


# --- how a run ends with it ------------------------------------------------------------------------------------------


class Hooked(Plugin):
    """Notes when its hooks are called, and what the run is then."""

    notes: Any

    def start(self, run: Run) -> None:
        self.notes.append(("start", run.status))

    def finish(self, run: Run) -> None:
        self.notes.append(("finish", run.status))

    def stop(self, run: Run) -> None:
        self.notes.append(("stop", run.status, type(run.error)))


class AsyncHooked(Plugin):
    """`Hooked`, async."""

    notes: Any

    async def start(self, run: Run) -> None:
        await anyio.lowlevel.checkpoint()
        self.notes.append(("start", run.status))

    async def finish(self, run: Run) -> None:
        await anyio.lowlevel.checkpoint()
        self.notes.append(("finish", run.status))

    async def stop(self, run: Run) -> None:
        await anyio.lowlevel.checkpoint()
        self.notes.append(("stop", run.status, type(run.error)))


HOOKS = [("start", "running"), ("finish", "timeout"), ("stop", "timeout", StreamTimeout)]


@pytest.mark.parametrize("way", WAYS)
def test_timeout_when_plugins_have_hooks_calls_them(way: str) -> None:
    """A run that ends with a timer is finished and stopped like any other."""
    notes: list[Any] = []
    clock = Clock()
    plugin = Hooked(notes) if way == "sync" else AsyncHooked(notes)
    flow = Dispatcher(plugin, timeout=Timeouts(idle=10), clock=clock)
    run = drive(way, [*blocks("a"), (11, PING)], flow=flow, clock=clock)
    assert notes == HOOKS
    assert timer_of(run) == "idle"


@pytest.mark.parametrize("way", MIXED)
def test_timeout_when_checked_is_raised(way: str) -> None:
    """By default the error is raised, with what was received; unchecked it stands in the run."""
    script: Script = [*blocks("a", "b"), (11, PING)]
    with pytest.raises(StreamTimeout, match=r"sent no event for 10 s; 4 events") as caught:
        drive(way, script, timeouts=Timeouts(idle=10), check=True)
    assert (caught.value.timer, caught.value.seconds, caught.value.phase) == ("idle", 10, "stream")
    assert caught.value.retryable
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "ab"
    assert caught.value.run is not None
    assert caught.value.run.status == "timeout"
    run = drive(way, script, timeouts=Timeouts(idle=10))
    assert (run.status, run.text, timer_of(run)) == ("timeout", "ab", "idle")


@pytest.mark.parametrize("way", WAYS)
def test_timer_when_an_error_event_has_come_does_not_count(way: str) -> None:
    """What the API reported is how the run ends, though the source says nothing more for long."""
    script: Script = [*blocks("a"), (0, block(error())), (5, PING), (100, PING)]
    clock = Clock()
    run = drive(way, script, clock=clock, timeouts=Timeouts(idle=1))
    assert (run.status, type(run.error), clock.now) == ("failed", APIStreamError, 5)


# --- opened again ----------------------------------------------------------------------------------------------------


def reopening(way: str, clock: Clock, first: Script, second: Script, *, spent: float, waited: float) -> Source:
    """A source that gives *first*, and then, *spent* seconds later, *second*."""
    source = Source()

    def take(script: Script) -> None:
        if way == "sync":
            source.items = told(clock, script)
        else:
            source.aitems = atold(clock, script)

    def reopen(position: Any, error: Exception | None, pause: Any = None) -> Any:
        source.reopen = source.areopen = None
        clock.now += spent
        source.waited = waited
        take(second)
        return "anew"

    async def areopen(position: Any, error: Exception | None) -> Any:
        await anyio.lowlevel.checkpoint()
        return reopen(position, error)

    take(first)
    source.reopen, source.areopen = reopen, areopen
    return source


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("timeouts", "pace", "timer", "ends"),
    [
        (Timeouts(first_event=20, idle=10), 4.0, "first_event", 8 + 30 + 16),  # the head took 5 of the 20
        (Timeouts(first_event=60, idle=60, total=50), 5.0, "total", 8 + 30 + 15),  # 12 are left
        (Timeouts(first_event=60, idle=60, total=50), 2.0, "total", 8 + 30 + 12),
    ],
)
def test_source_when_it_is_opened_again_has_the_time_of_a_first_event(
    way: str, timeouts: Timeouts, pace: float, timer: str, ends: float
) -> None:
    """Behind a cut the next event may take as long as a first one; the total counts all that the opening took."""
    clock = Clock()
    first: Script = [(4.0, block(created())), (4.0, block(opened()))]
    source = reopening(way, clock, first, [(pace, PING)] * 20, spent=30.0, waited=5.0)
    flow = Dispatcher(timeout=timeouts, clock=clock)
    run = (
        flow.run(source, check=False)
        if way == "sync"
        else anyio.run(lambda: flow.arun(source, check=False), backend=way)
    )
    assert timer_of(run) == timer
    assert (clock.now, run.events) == (ends, 2)


@pytest.mark.parametrize("way", WAYS)
def test_source_when_it_is_opened_again_in_time_goes_on(way: str) -> None:
    """However long the opening took, idle begins with the next event."""
    clock = Clock()
    rest: Script = [(9.0, block(event)) for event in answer("a")[1:]]
    source = reopening(way, clock, [(4.0, block(created()))], rest, spent=1000.0, waited=0.0)
    flow = Dispatcher(timeout=Timeouts(first_event=10, idle=10), clock=clock)
    run = flow.run(source) if way == "sync" else anyio.run(flow.arun, source, backend=way)
    assert (run.status, run.text) == ("completed", "a")


# --- waits that are cut off ------------------------------------------------------------------------------------------


class Blocking:
    """A sync source that gives its items, and then waits until it is interrupted; ends or fails then."""

    def __init__(
        self, items: list[bytes], *, timeouts: Timeouts | None = None, fails: bool = True, pace: float = 0.0
    ) -> None:
        self.interruptions: list[float] = []
        self.closed = 0
        self.since = time.monotonic()  # before the wait under way began
        self._items = items
        self._cut = threading.Event()
        self._fails = fails
        self._pace = pace
        self.source = Source(
            items=self._generate(), close=self._close, interrupt=self._interrupt, blocking=True, timeouts=timeouts
        )

    def _generate(self) -> Iterator[bytes]:
        for item in self._items:
            if self._cut.wait(self._pace):
                break
            self.since = time.monotonic()
            yield item
        assert self._cut.wait(PATIENCE)
        if self._fails:
            raise OSError("shut down")

    def _interrupt(self) -> None:
        self.interruptions.append(time.monotonic())
        self._cut.set()

    def _close(self) -> None:
        self.closed += 1


def dogs() -> list[threading.Thread]:
    """The watchdogs that are on duty."""
    return [thread for thread in threading.enumerate() if thread.name == "eventflow-watchdog"]


def no_dogs() -> bool:
    """Whether all watchdogs go home at once."""
    for thread in dogs():
        thread.join(1)
    return not dogs()


STREAM = [block(event) for event in answer("a", "b")]


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize(
    ("items", "timeouts", "timer"),
    [
        ([], Timeouts(first_event=0.15), "first_event"),
        (STREAM[:4], Timeouts(idle=0.15), "idle"),
        (STREAM[:4], Timeouts(total=0.15), "total"),
        (STREAM[:4], Timeouts(idle=0.15, total=120), "idle"),
    ],
)
def test_sync_wait_when_it_is_too_long_is_cut(items: list[bytes], timeouts: Timeouts, timer: str, fails: bool) -> None:
    """The watchdog interrupts the source when the time is up and not before; it is gone afterwards."""
    blocking = Blocking(items, timeouts=timeouts, fails=fails)
    begun = time.monotonic()
    run = Dispatcher().run(blocking.source, check=False)
    assert timer_of(run) == timer
    assert blocking.interruptions[0] - (begun if timer == "total" else blocking.since) >= 0.15
    assert time.monotonic() - begun < PATIENCE / 2
    assert (run.events, blocking.closed) == (len(items), 1)
    assert no_dogs()


@pytest.mark.parametrize("ends", [STREAM, STREAM[:3]])
def test_watchdog_when_the_source_is_in_time_does_nothing(ends: list[bytes]) -> None:
    """A source that never takes too long is never interrupted; one thread serves all waits and is gone at the end."""
    seen: set[int | None] = set()
    flow = Dispatcher()
    flow.on("*", lambda event: seen.update(thread.ident for thread in dogs()))
    blocking = Blocking(ends, timeouts=Timeouts(first_event=PATIENCE, idle=PATIENCE), fails=False)
    if ends is not STREAM:
        flow.on(TextDelta, lambda event, run: run.cancel())
    flow.run(blocking.source, check=False)
    assert blocking.interruptions == ([] if ends is STREAM else blocking.interruptions[:1])
    assert len(seen) == 1
    assert no_dogs()


@pytest.mark.parametrize("timeouts", [Timeouts(idle=0.1), Timeouts(idle=0.1, total=0.15)])
def test_watchdog_when_a_handler_is_slow_does_nothing(timeouts: Timeouts) -> None:
    """Between two waits nothing is overdue: a source that is let alone is not shut down."""
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: threading.Event().wait(0.2))
    blocking = Blocking(STREAM, timeouts=timeouts)
    assert flow.run(blocking.source).status == "completed"
    assert blocking.interruptions == []


def test_watchdog_when_the_run_fails_goes_home() -> None:
    """A handler's exception, a break and a failing source leave no thread behind."""
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flow.run(Blocking(STREAM, timeouts=Timeouts()).source)
    assert no_dogs()
    for _ in Dispatcher().stream(Blocking(STREAM, timeouts=Timeouts()).source):
        assert len(dogs()) == 1
        break
    assert no_dogs()

    def failing() -> Iterator[bytes]:
        yield STREAM[0]
        raise OSError("cut")

    Dispatcher().run(Source(items=failing(), blocking=True, timeouts=Timeouts()), check=False)
    assert no_dogs()


def test_watchdog_when_it_is_dropped_goes_home() -> None:
    """An exception from a signal handler may come before there is anybody who would stop it."""
    dog = Watchdog(Source(), time.monotonic)
    assert len(dogs()) == 1
    del dog
    assert no_dogs()


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("timeouts", [Timeouts(), None])
def test_watchdog_when_nobody_needs_it_is_not_there(blocking: bool, timeouts: Timeouts | None) -> None:
    """A thread is started only for sources that block and have timers."""
    seen: list[int] = []
    flow = Dispatcher()
    flow.on("*", lambda event: seen.append(len(dogs())))
    flow.run(Source(items=iter(STREAM), blocking=blocking, timeouts=timeouts))
    assert seen == [1 if blocking and timeouts else 0] * len(STREAM)
    assert no_dogs()


@pytest.mark.parametrize("fails", [True, False])
def test_watchdog_when_a_deadline_comes_sooner_is_woken(fails: bool) -> None:
    """It sleeps for two minutes; an error event gives the source 0.2 s."""
    blocking = Blocking([*STREAM[:3], block(error())], timeouts=Timeouts(), fails=fails)
    begun = time.monotonic()
    run = Dispatcher().run(blocking.source, check=False)
    assert (run.status, type(run.error)) == ("failed", APIStreamError)
    assert blocking.interruptions[0] - blocking.since >= 0.2
    assert time.monotonic() - begun < PATIENCE / 2
    assert no_dogs()


def test_watchdog_when_a_source_without_timers_reports_an_error_is_there() -> None:
    """The 0.2 s after an error event count without any timers too."""
    blocking = Blocking([*STREAM[:3], block(error())])
    run = Dispatcher().run(blocking.source, check=False)
    assert (run.status, type(run.error)) == ("failed", APIStreamError)
    assert blocking.interruptions[0] - blocking.since >= 0.2
    assert no_dogs()


def test_watchdog_when_deadlines_move_on_waits_for_the_last() -> None:
    """Items in time move the deadline on; the thread that slept for the first one looks again."""
    blocking = Blocking(STREAM[:6], timeouts=Timeouts(first_event=0.3, idle=0.3), pace=0.06)
    run = Dispatcher().run(blocking.source, check=False)
    assert timer_of(run) == "idle"
    assert (run.events, run.text) == (6, "ab")
    assert blocking.interruptions[0] - blocking.since >= 0.3


def soon(condition: Callable[[], bool]) -> bool:
    """Whether *condition* comes true."""
    until = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < until:
        threading.Event().wait(0.01)
    return condition()


def test_watchdog_when_interrupting_was_in_vain_tries_again() -> None:
    """A source that goes on waiting is interrupted again, until the wait is over."""
    calls: list[float] = []
    dog = Watchdog(Source(interrupt=lambda: calls.append(time.monotonic())), time.monotonic)
    begun = time.monotonic()
    dog.deadline = begun + 0.05
    dog.wake()
    assert soon(lambda: len(calls) >= 3)
    dog.deadline = inf
    assert all(call >= begun + 0.05 + 0.1 * number for number, call in enumerate(calls))
    threading.Event().wait(0.15)  # what it was about to do is done
    count = len(calls)
    threading.Event().wait(0.25)
    assert len(calls) == count
    dog.stop()
    assert no_dogs()


def test_watchdog_when_the_wait_ended_in_time_is_quiet() -> None:
    """A deadline that was taken back, or moved on, is none; one that has passed is heeded at once."""
    calls: list[float] = []
    dog = Watchdog(Source(interrupt=lambda: calls.append(time.monotonic())), time.monotonic)
    dog.deadline = time.monotonic() + 0.1
    dog.wake()
    dog.deadline = inf
    threading.Event().wait(0.2)
    dog.deadline = time.monotonic() + 60
    dog.wake()
    assert soon(lambda: time.monotonic() + 50 < dog.looks < inf)
    assert calls == []
    dog.deadline = 0
    dog.wake()
    assert soon(lambda: len(calls) == 1)
    dog.stop()
    assert no_dogs()


def test_watchdog_when_the_source_cannot_be_interrupted_harms_nothing() -> None:
    """A source that blocks and cannot be cut is judged when it yields."""
    cut = threading.Event()

    def slow() -> Iterator[bytes]:
        yield STREAM[0]
        cut.wait(0.15)
        yield STREAM[1]
        yield STREAM[2]

    run = Dispatcher().run(Source(items=slow(), blocking=True, timeouts=Timeouts(idle=0.05)), check=False)
    assert timer_of(run) == "idle"
    assert run.events == 2
    assert no_dogs()


# --- the same, async -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("items", "timeouts", "timer"),
    [
        ([], Timeouts(first_event=0.15), "first_event"),
        (STREAM[:4], Timeouts(idle=0.15), "idle"),
        (STREAM[:4], Timeouts(total=0.15), "total"),
        (STREAM[:4], Timeouts(idle=0.15, total=120), "idle"),
    ],
)
def test_async_wait_when_it_is_too_long_is_cut(
    items: list[bytes], timeouts: Timeouts, timer: str, backend: str
) -> None:
    """The wait ends when the time is up and not before; the task goes on undisturbed."""

    async def main() -> None:
        source = AsyncWatched(items, hang=True)
        begun = time.monotonic()
        run = await Dispatcher(timeout=timeouts).arun(source, check=False)
        took = time.monotonic() - begun
        assert timer_of(run) == timer
        assert 0.15 <= took < PATIENCE / 2
        assert (run.events, source.closed) == (len(items), 1)
        await anyio.sleep(0.01)  # a late alarm would hit this
        assert (await Dispatcher().arun(AsyncWatched(STREAM))).status == "completed"

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_async_wait_when_deadlines_move_on_waits_for_the_last(backend: str) -> None:
    """Items in time move the deadline on; the alarm that was set for the first one looks again."""
    last = 0.0

    async def paced() -> AsyncIterator[bytes]:
        nonlocal last
        for item in STREAM[:6]:
            await anyio.sleep(0.06)
            last = time.monotonic()
            yield item
        await anyio.sleep_forever()

    async def main() -> None:
        run = await Dispatcher(timeout=Timeouts(first_event=0.3, idle=0.3)).arun(paced(), check=False)
        assert timer_of(run) == "idle"
        assert time.monotonic() - last >= 0.3
        assert run.events == 6

    anyio.run(main, backend=backend)


def noting_alarms(alarms: list[asyncio.TimerHandle]) -> None:
    """Have the loop that runs here note what it is to do later."""
    loop = asyncio.get_running_loop()
    original = loop.call_at

    def call_at(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        alarms.append(original(when, *args, **options))
        return alarms[-1]

    loop.call_at = call_at  # type: ignore[method-assign]


@pytest.mark.parametrize("total", [None, PATIENCE * 100])
def test_asyncio_waiter_when_there_are_many_waits_sets_one_alarm(total: float | None) -> None:
    """An alarm takes as long to set as a chunk: one serves all waits, and none is left behind."""
    alarms: list[asyncio.TimerHandle] = []

    async def many() -> AsyncIterator[bytes]:
        for event in answer(*(["x"] * 500)):
            await asyncio.sleep(0)
            yield block(event)

    async def main() -> None:
        noting_alarms(alarms)
        run = await Dispatcher(timeout=Timeouts(first_event=120, idle=120, total=total)).arun(many())
        assert run.events == 505

    asyncio.run(main())
    assert len(alarms) == 1
    assert alarms[0].cancelled()


def test_asyncio_alarm_when_a_deadline_comes_sooner_is_set_anew() -> None:
    """The alarm of two minutes is taken back for the 0.2 s after an error event."""
    alarms: list[asyncio.TimerHandle] = []

    async def hanging() -> AsyncIterator[bytes]:
        for item in [*STREAM[:3], block(error())]:
            yield item
        await asyncio.Event().wait()

    async def main() -> None:
        noting_alarms(alarms)
        begun = time.monotonic()
        run = await Dispatcher(timeout=Timeouts()).arun(hanging(), check=False)
        assert (run.status, type(run.error)) == ("failed", APIStreamError)
        assert 0.2 <= time.monotonic() - begun < PATIENCE / 2

    asyncio.run(main())
    assert [alarm.cancelled() for alarm in alarms] == [True, False]


def test_asyncio_alarm_when_it_rings_while_a_handler_works_is_set_again() -> None:
    """An alarm that rings between two waits cuts nothing; the next wait has an alarm of its own."""

    async def main() -> None:
        flow = Dispatcher(timeout=Timeouts(first_event=0.1, idle=0.1))

        @flow.on("response.output_item.added")
        async def slow(event: Event) -> None:
            await asyncio.sleep(0.25)

        source = AsyncWatched(STREAM[:4], hang=True)
        begun = time.monotonic()
        run = await flow.arun(source, check=False)
        assert timer_of(run) == "idle"
        assert (run.events, run.text) == (4, "ab")
        assert time.monotonic() - begun >= 0.35

    asyncio.run(main())


class Stubborn(AsyncWatched):
    """Makes an error of its own of a wait that is cut."""

    async def __anext__(self) -> Any:
        try:
            return await super().__anext__()
        except asyncio.CancelledError:
            raise OSError("cancelled") from None


def test_asyncio_task_when_a_wait_was_cut_is_not_cancelled() -> None:
    """The cancellation that ended the wait is taken back, also where the source made something else of it."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        for kind in (AsyncWatched, Stubborn):
            run = await Dispatcher(timeout=Timeouts(idle=0.05)).arun(kind(STREAM[:3], hang=True), check=False)
            assert run.error is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0)

    asyncio.run(main())


def test_async_source_when_it_fails_because_it_was_cut_is_a_timeout() -> None:
    """A source that makes an error of its own of the cut ends with the timer, as a sync one does."""

    async def main() -> None:
        run = await Dispatcher(timeout=Timeouts(idle=0.05)).arun(Stubborn(STREAM[:3], hang=True), check=False)
        assert timer_of(run) == "idle"

    asyncio.run(main())


@pytest.mark.parametrize("start", [-1e6, 0.0, 1e9])
@pytest.mark.parametrize("backend", BACKENDS)
def test_clock_when_it_shows_any_time_serves_an_async_run(start: float, backend: str) -> None:
    """The event loop has a clock of its own: only how much time is left counts."""

    async def main() -> None:
        clock = Clock()
        clock.now = start
        flow = Dispatcher(timeout=Timeouts(), clock=clock)
        assert (await flow.arun(AsyncWatched(STREAM))).status == "completed"
        begun = time.monotonic()
        flow = Dispatcher(timeout=Timeouts(idle=0.05), clock=lambda: start + time.monotonic())
        assert timer_of(await flow.arun(AsyncWatched(STREAM[:3], hang=True), check=False)) == "idle"
        assert 0.05 - 1e-6 <= time.monotonic() - begun < PATIENCE / 2  # large numbers are not that fine

    anyio.run(main, backend=backend)


# --- cancelled while it waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeouts", [Timeouts(), Timeouts(total=60)])
@pytest.mark.parametrize("way", WAYS)
def test_run_when_cancelled_during_a_wait_is_no_timeout(way: str, timeouts: Timeouts) -> None:
    """`cancel` from another thread ends a wait that has a deadline: status cancelled, no error."""
    threads: list[threading.Thread] = []
    flow = Dispatcher(timeout=timeouts)

    @flow.on(TextDelta)
    def soon(event: TextDelta, run: Run) -> None:
        threads.append(threading.Timer(0.05, run.cancel))
        threads[0].start()

    begun = time.monotonic()
    if way == "sync":
        blocking = Blocking(STREAM[:3])
        run = flow.run(blocking.source)
        closed = blocking.closed
    else:
        source = AsyncWatched(STREAM[:3], hang=True)
        run = anyio.run(flow.arun, source, backend=way)
        closed = source.closed
    threads[0].join()
    assert (run.status, run.error, run.text, closed) == ("cancelled", None, "a", 1)
    assert time.monotonic() - begun < PATIENCE / 2
    assert no_dogs()


@pytest.mark.parametrize("backend", BACKENDS)
def test_run_when_cancelled_by_a_thread_that_a_handler_waits_for(backend: str) -> None:
    """`cancel` in another thread returns at once, though the loop is busy."""
    stuck: list[bool] = []
    flow = Dispatcher()

    @flow.on("response.created")
    def wait_for_it(event: Event, run: Run) -> None:
        thread = threading.Thread(target=run.cancel)
        thread.start()
        thread.join(0.3)
        stuck.append(thread.is_alive())

    run = anyio.run(flow.arun, AsyncWatched(STREAM), backend=backend)
    assert (run.status, stuck) == ("cancelled", [False])


# --- pushed ----------------------------------------------------------------------------------------------------------


class Pushed:
    """A run that is pushed, sync or async, by the same words."""

    def __init__(self, run: Run, is_async: bool) -> None:
        self.run = run
        self._is_async = is_async

    async def feed(self, *items: JSON | bytes) -> None:
        for item in items:
            if self._is_async:
                await self.run.afeed(item)
            else:
                self.run.feed(item)

    async def tick(self) -> float:
        return round(await self.run.atick() if self._is_async else self.run.tick(), 3)


def pushed(
    way: str, script: Callable[[Pushed], Any], flow: Dispatcher, *, check: bool = True, raises: bool = False
) -> Run:
    """The run that *script* pushes, in one of three ways."""
    runs: list[Run] = []

    async def main() -> None:
        if way == "sync":
            with flow.open(check=check) as run:
                runs.append(run)
                await script(Pushed(run, is_async=False))
        else:
            async with flow.aopen(check=check) as run:
                runs.append(run)
                await script(Pushed(run, is_async=True))

    if raises:
        with pytest.raises(StreamTimeout) as caught:
            anyio.run(main, backend="asyncio" if way == "sync" else way)
        assert caught.value is runs[0].error
    else:
        anyio.run(main, backend="asyncio" if way == "sync" else way)
    return runs[0]


@pytest.mark.parametrize("way", WAYS)
def test_tick_when_nothing_is_overdue_says_how_long(way: str) -> None:
    """It gives the seconds that are left: first_event, then idle, never more than total."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(first_event=10, idle=20, total=50), clock=clock)

    async def script(push: Pushed) -> None:
        assert await push.tick() == 10
        clock.now += 4
        assert await push.tick() == 6
        assert await push.tick() == 6
        await push.feed(PING)
        assert await push.tick() == 6
        clock.now += 5
        await push.feed(b"event: response.cre", b": ")
        assert await push.tick() == 1
        await push.feed(b"\n\n", created())
        assert await push.tick() == 20
        clock.now += 19
        assert await push.tick() == 1
        await push.feed(delta("a"))
        clock.now += 12
        assert await push.tick() == 8
        await push.feed(delta("b"))
        assert await push.tick() == 10  # of the 50
        await push.feed(completed())
        assert await push.tick() == inf

    assert pushed(way, script, flow).status == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_tick_when_nobody_says_how_long_is_the_default(way: str) -> None:
    """Who pushes and ticks has the timers of a server; None switches them off."""
    clock = Clock()

    async def script(push: Pushed) -> None:
        assert await push.tick() == 120
        clock.now += 119
        await push.feed(created())
        clock.now += 119
        assert await push.tick() == 1
        await push.feed(completed())

    pushed(way, script, Dispatcher(clock=clock))

    async def patient(push: Pushed) -> None:
        assert await push.tick() == inf
        clock.now += 1e6
        assert await push.tick() == inf
        await push.feed(created(), completed())

    pushed(way, patient, Dispatcher(timeout=Timeouts(first_event=None, idle=None), clock=clock))


@pytest.mark.parametrize("way", WAYS)
def test_push_when_nobody_ticks_has_no_timers(way: str) -> None:
    """An item that is fed at last is received, whenever that is."""
    clock = Clock()

    async def script(push: Pushed) -> None:
        for event in answer("a", "b"):
            clock.now += 1e6
            await push.feed(event)

    run = pushed(way, script, Dispatcher(timeout=Timeouts(first_event=1, idle=1, total=1), clock=clock))
    assert (run.status, run.text) == ("completed", "ab")


@pytest.mark.parametrize("way", WAYS)
def test_tick_when_handlers_were_slow_does_not_count_them(way: str) -> None:
    """Only the time between two items counts, for idle and for total."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(first_event=10, idle=10, total=25), clock=clock)

    @flow.on("*")
    def slow(event: Event) -> None:
        clock.now += 1000

    async def slower(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        clock.now += 1000

    if way != "sync":
        flow.on("*", slower)

    async def script(push: Pushed) -> None:
        clock.now += 8
        await push.feed(created())
        assert await push.tick() == 10
        clock.now += 8
        assert await push.tick() == 2
        await push.feed(delta("a"))
        assert await push.tick() == 9
        await push.feed(completed())

    assert pushed(way, script, flow).status == "completed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("timer", ["first_event", "idle", "total"])
def test_tick_when_an_item_is_overdue_ends_the_run(way: str, timer: str) -> None:
    """The run ends with the timer, its hooks are called, and what is fed afterwards is not looked at."""
    notes: list[Any] = []
    clock = Clock()
    flow = Dispatcher(
        Hooked(notes) if way == "sync" else AsyncHooked(notes), timeout=Timeouts(**{timer: 10.0}), clock=clock
    )

    async def script(push: Pushed) -> None:
        if timer != "first_event":
            await push.feed(created(), opened(), delta("a"))
        clock.now += 6
        await push.feed(PING)
        clock.now += 3
        assert await push.tick() == 1
        clock.now += 1
        with pytest.raises(StreamTimeout) as caught:
            await push.tick()
        assert caught.value.timer == timer
        assert timer_of(push.run) == timer
        assert notes == HOOKS
        assert await push.tick() == inf
        await push.feed(delta("b"), completed())
        assert push.run.text == ("a" if timer != "first_event" else "")
        raise caught.value

    run = pushed(way, script, flow, raises=True)
    assert run.status == "timeout"


@pytest.mark.parametrize("way", WAYS)
def test_tick_when_unchecked_raises_nothing(way: str) -> None:
    """With ``check=False`` the run ends just so: nothing is left, and then nothing is waited for."""
    clock = Clock()

    async def script(push: Pushed) -> None:
        await push.feed(created(), opened(), delta("a"))
        clock.now += 10
        assert await push.tick() == 0
        assert timer_of(push.run) == "idle"
        assert await push.tick() == inf

    run = pushed(way, script, Dispatcher(timeout=Timeouts(idle=10), clock=clock), check=False)
    assert (run.status, run.text) == ("timeout", "a")


@pytest.mark.parametrize("way", WAYS)
def test_tick_when_an_error_event_has_come_keeps_it(way: str) -> None:
    """What the API reported is the run's error, though a timer ends it."""
    clock = Clock()

    async def script(push: Pushed) -> None:
        await push.feed(created(), error())
        clock.now += 11
        await push.tick()

    run = pushed(way, script, Dispatcher(timeout=Timeouts(idle=10), clock=clock), check=False)
    assert (run.status, type(run.error)) == ("failed", APIStreamError)


def test_tick_when_used_wrongly_says_so() -> None:
    """It is for runs that are pushed: ``tick`` for sync ones, ``atick`` for async ones."""
    match = r"tick\(\) is for runs made with open\(\), atick\(\) for those made with aopen\(\)"

    async def main() -> None:
        with Dispatcher().open(check=False) as run:
            with pytest.raises(UsageError, match=match):
                await run.atick()
            run.tick()
        async with Dispatcher().aopen(check=False) as run:
            with pytest.raises(UsageError, match=match):
                run.tick()
            await run.atick()
        for call in (run.tick, run.feed):
            with pytest.raises(UsageError):
                call(*((b"",) if call == run.feed else ()))

        arun = await Dispatcher().arun(STREAM)
        with pytest.raises(UsageError, match=match):
            await arun.atick()

    asyncio.run(main())
    run = Dispatcher().run(STREAM)
    with pytest.raises(UsageError, match=match):
        run.tick()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("total", [None, 100])
def test_tick_when_a_handler_works_counts_nothing(way: str, total: float | None) -> None:
    """Who ticks beside a slow handler, or in it, is told that nothing is waited for."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(first_event=10, idle=10, total=total), clock=clock)
    ticks: list[float] = []

    @flow.on(TextDelta)
    def slow(event: TextDelta, run: Run) -> Any:
        async def slower() -> None:
            for _ in range(3):
                clock.now += 30
                await anyio.lowlevel.checkpoint()
                ticks.append(await run.atick())

        if way != "sync":
            return slower()
        for _ in range(3):
            clock.now += 30
            ticks.append(run.tick())
        return None

    async def script(push: Pushed) -> None:
        await push.feed(created())
        clock.now += 9
        await push.feed(delta("a"))
        assert await push.tick() == 10
        await push.feed(completed())

    assert pushed(way, script, flow).status == "completed"
    assert ticks == [inf] * 3


def test_feed_when_a_run_is_over_by_a_timer_is_nothing() -> None:
    """What is fed to a run that timed out is not looked at, and raises nothing."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(first_event=10), clock=clock)
    with flow.open(check=False) as run:
        clock.now += 11
        run.tick()
        run.feed("no source may yield this")
    assert isinstance(run.error, EventflowError)
    assert (run.status, run.events) == ("timeout", 0)


@pytest.mark.parametrize(
    "ping", [b'event: ping\ndata: {"type":"ping"}\n\n', b"data: {}\n\n", b"data:\n\n", b"data: \n\n"]
)
def test_pings_when_they_are_events_reset_no_timer(ping: bytes) -> None:
    """Whatever form a server gives them, they are no progress."""
    clock = Clock()
    flow = Dispatcher(timeout=Timeouts(idle=100), clock=clock)
    run = flow.run(told(clock, [(0.0, block(created())), *((30.0, ping) for _ in range(9))]), check=False)
    assert timer_of(run) == "idle"
    assert clock.now == 120
