"""What every run keeps, whatever comes and whoever leaves: seven promises, over random pipelines and broken streams.

Completed only with a terminal event; nothing received is lost; one root of errors; chunking does not matter; queues
have bounds; the end is prompt and whole; a plugin's fault stays its own; and no tool runs on what is not complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import anyio.lowlevel
import pytest
from fuzz.targets import check_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scenarios import ASYNC, AsyncWatched, Tick, Watched

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    Plugin,
    ResponseCompleted,
    Run,
    TextDelta,
    Timeouts,
    ToolCall,
    UnknownEvent,
    on,
    rewrite,
    state,
    transform,
)
from eventflow.errors import EventflowError, StreamTimeout, UsageError
from eventflow.snapshot import Snapshot
from eventflow.testing import Clock, FakeStream, stream
from eventflow.testing.strategies import faults
from eventflow_plugins import Accumulate, Log, Redact, Tools, Usage, tee, tool

FIRST, IDLE, TOTAL = 5.0, 3.0, 15.0
SOON = 1.0  # seconds for threads that were told to end

LOGGER = logging.Logger("tests.invariants")  # of nobody
LOGGER.addHandler(logging.NullHandler())


class _Boom(Exception):
    """A handler's own fault."""


class Watch(Plugin):
    """What comes to this place, and how often it is stopped."""

    heard: list[Any] = state(factory=list[Any])
    stops: int = state(default=0)

    @on("*")
    def hear(self, event: Event) -> None:
        self.heard.append(event)

    def stop(self, run: Run) -> None:
        self.stops += 1


class Head(Watch):
    """At the head: all that was received or emitted."""


class Double(Plugin):
    """Says all text twice, in deltas of their own."""

    @transform(TextDelta)
    def twice(self, event: TextDelta) -> Iterator[Event]:
        yield event
        yield event


class Shout(Plugin):
    """Holds text back, and gives it in capitals."""

    @rewrite("text")
    def shout(self, text: str) -> str:
        return text.upper()


class Drop(Plugin):
    """Lets no reasoning through; holds ticks back to the end."""

    held: list[Event] = state(factory=list[Event])

    @transform("reasoning")
    def drop(self, event: Event) -> None:
        return None

    @transform(Tick)
    def hold(self, event: Tick) -> None:
        self.held.append(event)

    def finish(self, run: Run) -> list[Event]:
        return self.held


STAGES = ("accumulate", "log", "tools", "redact", "usage", "tee", "double", "shout", "drop")


class Pipeline:
    """A dispatcher with these stages in this order, a handler that fails if it is to, and what they have seen.

    Attributes:
        ran: What the tool was called with.
        background: What the handler beside the run has heard.
        clock: Its time.
    """

    def __init__(self, stages: list[str], fault: tuple[str, int] | None, *, is_async: bool) -> None:
        self.ran: list[int] = []
        self.background: list[Event] = []
        self.teed: list[Event] = []
        self.clock = Clock()
        self.fault = fault
        self._calls = 0

        @tool(name="count")
        def count(n: int) -> int:
            self.ran.append(n)
            return n

        makers: dict[str, Callable[[], Plugin]] = {
            "accumulate": Accumulate,
            "log": lambda: Log(logger=LOGGER),
            "tools": lambda: Tools([count]),
            "redact": Redact,
            "usage": lambda: Usage(clock=self.clock),
            "tee": lambda: tee(self.teed.append, queue=2),
            "double": Double,
            "shout": Shout,
            "drop": Drop,
        }
        self.flow = Dispatcher(
            Head(),
            *(makers[stage]() for stage in stages),
            Watch(),
            clock=self.clock,
            timeout=Timeouts(first_event=FIRST, idle=IDLE, total=TOTAL),
        )
        aside: Any = self.aheard if is_async else self.background.append
        self.flow.on("*", aside, background=True, queue=2)
        if fault is not None:
            how = fault[0]
            self.flow.on(
                "*", self.fail, background=how == "background", errors="isolate" if how == "isolate" else "raise"
            )

    async def aheard(self, event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        self.background.append(event)

    def fail(self, event: Event) -> None:
        assert self.fault is not None
        self._calls += 1
        if self._calls == self.fault[1] and not isinstance(event, HandlerFailed):
            raise _Boom

    # --- what must hold ----------------------------------------------------------------------------------------------

    def check_under_way(self, run: Run) -> None:
        """While a run goes on: what was heard adds up to the response; no tool runs."""
        received = _received(run)
        assert not any(isinstance(event, ResponseCompleted) for event in received)
        folded = Snapshot()
        folded.add(received)
        assert folded.response == run.response
        assert run.events == len(received)
        assert run.error is None or run.status == "failed"
        assert not self.ran
        assert (run[Head].stops, run[Watch].stops) == (0, 0)

    def check_over(self, run: Run, raised: BaseException | None, *, left: bool = False) -> None:
        """When it is over: so says its status, all was stopped once, nothing is left, and tools had their reasons.

        One that was left, perhaps at its last event, waits for nobody in the background.
        """
        heard, at_end = run[Head].heard, run.plugins[-1]
        assert isinstance(at_end, Watch)
        check_run(run, (event for event in heard if not isinstance(event, Tick)), raised=raised)
        assert (run[Head].stops, at_end.stops) == (1, 1)
        assert raised is None or isinstance(raised, _Boom) or raised is run.error or run.status == "cancelled"
        if isinstance(raised, _Boom):
            assert self.fault is not None
            assert self.fault[0] != "isolate"
            assert run.status == "failed"
            assert run.id in "".join(raised.__notes__)
        calls = Counter(event.arguments for event in heard if isinstance(event, ToolCall) and event.name == "count")
        assert Counter(json.dumps({"n": n}, separators=(",", ":")) for n in self.ran) <= calls
        if self.ran:
            assert any(isinstance(event, ResponseCompleted) for event in heard)
        if run.status != "completed":
            assert not self.ran or isinstance(raised, _Boom)
            assert not run.outbox
        assert self.background == at_end.heard[: len(self.background)]
        if raised is None and not left and run.status in ("completed", "incomplete"):
            assert len(self.background) == len(at_end.heard)
        with pytest.raises(UsageError):
            run.emit(Tick(0))
        until = time.monotonic() + SOON
        while (left := _threads()) and time.monotonic() < until:
            time.sleep(0.001)
        assert not left


def _received(run: Run) -> list[Event]:
    return [e for e in run[Head].heard if not (isinstance(e, Tick) or e.type.startswith("eventflow."))]


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("eventflow")]


def _tasks() -> set[Any]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@st.composite
def _streams(draw: st.DrawFn) -> FakeStream:
    """Streams with calls of the tool."""
    return stream(
        draw(st.lists(st.sampled_from(["a", "bc ", "sk-made-up-0123456789", "é"]), max_size=3)),
        reasoning=draw(st.lists(st.just("hm"), max_size=2)),
        tools=[("count", {"n": n}) for n in draw(st.lists(st.integers(0, 3), max_size=2))],
        status=draw(st.sampled_from(["incomplete", "completed", "completed"])),
        chunk=draw(st.none() | st.integers(1, 5)),
        wire=draw(st.sampled_from(["responses", "chat", "anthropic", "gemini"])),
    )


_bodies = st.one_of(_streams().map(lambda whole: whole.body), faults(_streams()).map(lambda fault: fault.body))
_stages = st.lists(st.sampled_from(STAGES), unique=True, max_size=5).map(
    lambda stages: stages if "tools" in stages else [*stages, "tools"]
)
_numbers = st.integers(1, 8)  # which event a handler fails on
_faults = st.none() | st.tuples(st.sampled_from(["raise", "isolate", "background"]), _numbers)
_prompt_faults = st.none() | st.tuples(st.sampled_from(["raise", "isolate"]), _numbers)  # at a time that is told


# --- pushed ----------------------------------------------------------------------------------------------------------


class InvariantMachine(RuleBasedStateMachine):
    """Feeds, stalls, emits, cancels, leaves, raises, at any point; sync and async."""

    @initialize(is_async=st.booleans(), stages=_stages, fault=_prompt_faults, body=_bodies)
    def begin(self, is_async: bool, stages: list[str], fault: tuple[str, int] | None, body: bytes) -> None:
        self.pipeline = Pipeline(stages, fault, is_async=is_async)
        self.body, self.fed = body, 0
        self.compared = False
        self.plain = fault is None  # whether nothing but the bytes has a say in how it goes
        self.waited, self.total = 0.0, 0.0
        self.raised: BaseException | None = None
        self.runner = asyncio.Runner() if is_async else None
        self.leave: Any = contextlib.AsyncExitStack() if is_async else contextlib.ExitStack()
        flow = self.pipeline.flow
        self.run: Run = self.call(
            lambda: self.leave.enter_async_context(flow.aopen()) if is_async else self.leave.enter_context(flow.open())
        )

    def teardown(self) -> None:
        with contextlib.ExitStack() as stack:
            if hasattr(self, "leave"):
                stack.callback(self.pipeline.flow.close)
                stack.enter_context(self.runner or contextlib.nullcontext())
            if hasattr(self, "run"):
                if self.under_way():
                    self.run.cancel()
                self.end()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function, and await what it gives; what the run ends with is kept."""
        try:
            if self.runner is None:
                return function()
            return self.runner.run(_awaited(function))
        except (_Boom, EventflowError) as error:
            self.raised = error

    def end(self) -> None:
        """Leave the block."""
        self.call(self.leave.close if self.runner is None else self.leave.aclose)
        if self.runner is not None:
            assert not self.runner.run(_awaited(_tasks))
        self.pipeline.check_over(self.run, self.raised)

    def under_way(self) -> bool:
        return self.run.status == "running"

    @invariant()
    def check(self) -> None:
        if not hasattr(self, "run"):
            return
        if self.under_way():
            self.pipeline.check_under_way(self.run)

    @precondition(under_way)
    @rule(size=st.integers(1, 300))
    def push(self, size: int) -> None:
        self.feed(size)

    def feed(self, size: int) -> None:
        chunk = self.body[self.fed : self.fed + size]
        self.fed += len(chunk)
        before = _progress(self.run)
        self.call(lambda: self.run.feed(chunk) if self.runner is None else self.run.afeed(chunk))
        if _progress(self.run) > before:
            self.waited = 0.0

    @precondition(under_way)
    @rule(size=st.integers(100, 3000))
    def feed_rest(self, size: int) -> None:
        while self.under_way() and self.fed < len(self.body):
            self.feed(size)

    @precondition(under_way)
    @rule(n=st.integers(0, 9))
    def emit(self, n: int) -> None:
        self.plain = False
        self.run.emit(Tick(n))

    @precondition(under_way)
    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5, 4.0]))
    def stall(self, seconds: float) -> None:
        self.plain = False
        self.pipeline.clock.advance(seconds)
        self.waited += seconds
        self.total += seconds
        self.call(self.run.tick if self.runner is None else self.run.atick)
        late = self.waited >= (IDLE if _progress(self.run) else FIRST) or self.total >= TOTAL
        assert late is (self.run.status != "running" or isinstance(self.raised, StreamTimeout))

    @precondition(under_way)
    @rule(cancelled=st.booleans())
    def leave_early(self, cancelled: bool) -> None:
        """It is cancelled, or nothing more comes."""
        if cancelled:
            self.run.cancel()
        self.plain = self.plain and not cancelled
        self.end()
        assert (self.run.status == "cancelled") is cancelled

    @precondition(lambda self: not self.under_way())
    @rule()
    def compare(self) -> None:
        """What bytes alone have made of a run, they make of it in one piece."""
        if self.compared:
            return
        self.compared = True
        self.end()
        if self.plain:
            whole = Dispatcher().run(self.body[: self.fed], check=False)
            assert whole.response == self.run.response
            assert (whole.status, type(whole.error)) == (self.run.status, type(self.run.error))
            assert whole.warnings == self.run.warnings


async def _awaited(function: Callable[[], Any]) -> Any:
    given = function()
    return await given if hasattr(given, "__await__") else given


def _progress(run: Run) -> int:
    return sum(not isinstance(event, UnknownEvent) for event in _received(run))


InvariantMachine.TestCase.settings = settings(stateful_step_count=15, max_examples=2 * settings().max_examples)
TestInvariants = InvariantMachine.TestCase


# --- pulled ----------------------------------------------------------------------------------------------------------


@given(
    face=st.sampled_from(["run", "stream", *ASYNC[:2]]),
    stages=_stages,
    fault=_faults,
    body=_bodies,
    size=st.integers(1, 400),
    leaving=st.none() | st.integers(1, 6),
    broken=st.booleans(),
)
def test_source_when_a_run_ends(
    face: str,
    stages: list[str],
    fault: tuple[str, int] | None,
    body: bytes,
    size: int,
    leaving: int | None,
    broken: bool,
) -> None:
    """However a run ends, by itself or left, its source is closed once before control returns, and all else holds."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    pipeline = Pipeline(stages, fault, is_async=face in ASYNC)
    raised: BaseException | None = None
    cut = ConnectionError("cut") if broken else None
    source: Any = (AsyncWatched if face in ASYNC else Watched)(chunks, cut)
    runs, left = list[Run](), list[bool]()
    pipeline.flow.on("*", lambda event, run: runs.append(run) if not runs else None, order=-1)

    async def main() -> None:
        if face == "arun":
            runs.append(await pipeline.flow.arun(source))
        else:
            async with pipeline.flow.astream(source) as events:
                runs.append(events.run)
                number = 0
                async for _ in events:
                    number += 1
                    if number == leaving:
                        left.append(True)
                        break
        assert not _tasks()

    try:
        if face in ASYNC:
            asyncio.run(main())
        elif face == "run":
            runs.append(pipeline.flow.run(source))
        else:
            events = pipeline.flow.stream(source)
            runs.append(events.run)
            for number, _ in enumerate(events, 1):
                if number == leaving:
                    left.append(True)
                    break
    except (_Boom, EventflowError) as error:
        raised = error
    finally:
        pipeline.flow.close()
    assert source.closed == 1
    if not runs:  # it has told nothing
        assert isinstance(raised, EventflowError)
        assert raised.run is not None
        runs.append(raised.run)
    pipeline.check_over(runs[0], raised, left=bool(left))
