"""`Usage`: tokens as the server told them, times by an injected clock, and both over all runs."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scenarios import FACES, drive

from eventflow import Dispatcher, Event, Plugin, Response, ResponseCompleted, ResponseCreated, TextDelta, on
from eventflow import events as ef
from eventflow.errors import UsageError
from eventflow.plugin import instantiate
from eventflow_plugins import Usage
from eventflow_plugins.usage import Spread, Tokens, Totals

TOLD = ef.Usage(
    input_tokens=12,
    output_tokens=6,
    total_tokens=18,
    input_tokens_details=ef.InputTokensDetails(cached_tokens=8),
    output_tokens_details=ef.OutputTokensDetails(reasoning_tokens=2),
)
END = ResponseCompleted(Response(usage=TOLD))


class Clock:
    """Seconds by hand; or given, one after the other."""

    def __init__(self, *times: float) -> None:
        self.now = 100.0
        self.times = list(times)

    def __call__(self) -> float:
        if self.times:
            self.now = self.times.pop(0)
        return self.now


def timed(events: Sequence[tuple[float, Event]], usage: Usage, clock: Clock, **options: Any) -> Usage:
    """Run events that come so many seconds after the one before."""
    flow = Dispatcher(usage)

    def source() -> Any:
        for seconds, event in events:
            clock.now += seconds
            yield event
        clock.now += 1.0

    return flow.run(source(), check=False, **options)[Usage]


def deltas(*gaps: float) -> list[tuple[float, Event]]:
    """Deltas so many seconds apart."""
    return [(gap, TextDelta("a", output_index=0)) for gap in gaps]


# --- one run ---------------------------------------------------------------------------------------------------------


def test_usage_when_a_run_completes() -> None:
    """Tokens as the terminal event tells them; times from the run's start; reasoning is no text."""
    clock = Clock()
    events: list[tuple[float, Event]] = [
        (0.25, ResponseCreated(Response())),
        (0.25, ef.ReasoningSummaryTextDelta("hm")),
        (0.5, TextDelta("")),  # says nothing yet
        (1.0, TextDelta("a")),
        (1.0, ef.FunctionCallArgumentsDelta("{}")),
        (0.5, END),
    ]
    usage = timed(events, Usage(clock=clock), clock)
    assert usage.tokens == Tokens(input=12, cached=8, output=6, reasoning=2, total=18)
    assert (usage.first_event, usage.first_reasoning, usage.first_text) == (0.25, 0.5, 2.0)
    assert (usage.deltas, usage.span, usage.tokens_per_second) == (4, 2.5, 2.4)
    assert usage.gaps == Spread(count=3, p50=1.0, p99=1.0, max=1.0)
    assert usage.duration == 3.5
    assert (
        str(usage)
        == usage.summary()
        == (
            "completed in 3.5 s; tokens: 12 input (8 cached), 6 output (2 reasoning), 18 total; first event 250 ms; "
            "first reasoning 500 ms; first text 2 s; 4 deltas, 2.4 tokens/s, gaps p50 1 s, p99 1 s, max 1 s"
        )
    )
    assert repr(usage) == f"<Usage: {usage.summary()}>"


def test_usage_when_nothing_is_known() -> None:
    """What was not told is None; a run that is cut off gives what there was."""
    clock = Clock()
    usage = timed([], Usage(clock=clock), clock)
    assert usage.tokens == Tokens()
    assert (
        usage.first_event is usage.first_text is usage.first_reasoning is usage.span is usage.tokens_per_second is None
    )
    assert (usage.deltas, usage.gaps, usage.duration) == (0, Spread(), 1.0)
    assert str(usage) == "truncated in 1 s; tokens: not told; 0 deltas"
    usage = timed(
        [(1.0, ResponseCreated(Response(usage=ef.Usage(input_tokens=3)))), *deltas(1.0)], Usage(clock=clock), clock
    )
    assert usage.tokens == Tokens(input=3)
    assert (usage.deltas, usage.span, usage.tokens_per_second, usage.first_text) == (1, None, None, 2.0)
    zero = timed([(1.0, ResponseCompleted(Response(usage=ef.Usage(output_tokens=0))))], Usage(clock=clock), clock)
    assert zero.tokens == Tokens(output=0)
    assert zero.summary().startswith("completed in 1 s; tokens: 0 output;")
    template = Usage(clock=clock)
    assert template.duration is None
    assert str(template) == "running; tokens: not told; 0 deltas"


def test_usage_when_the_request_was_sent_before() -> None:
    """Times count from when it was sent."""
    clock = Clock()
    usage = timed(deltas(0.5), Usage(clock=clock, began=99.0), clock)
    assert (usage.first_event, usage.first_text, usage.duration) == (1.5, 1.5, 2.5)


def test_usage_when_it_is_read_by_a_handler() -> None:
    """It tells of the run so far."""
    clock, seen = Clock(), list[Any]()

    class Reader(Plugin):
        @on(TextDelta)
        def read(self, event: TextDelta, run: Any) -> None:
            usage = run[Usage]
            seen.append((usage.deltas, usage.duration, usage.span, usage.gaps.max))

    def source() -> Any:
        for _, event in deltas(1, 1):
            clock.now += 1.0
            yield event

    Dispatcher(Usage(clock=clock), Reader()).run(source(), check=False)
    assert seen == [(1, 1.0, None, None), (2, 2.0, 1.0, 1.0)]


@pytest.mark.parametrize("options", [{"clock": 5}, {"totals": 5}])
def test_usage_when_it_is_configured_wrongly(options: Any) -> None:
    """The error names the field."""
    with pytest.raises(UsageError, match=f"{next(iter(options))}=.* not 5"):
        Usage(**options)


# --- many deltas -----------------------------------------------------------------------------------------------------

gaps = st.lists(st.sampled_from([0.0, 1e-7, 1e-6, 0.5, 2e9]) | st.floats(0, 1e3), min_size=1, max_size=40)


@given(gaps, st.sampled_from([1, 2, 5, 4096]))
@example([1e-6, 1e-6 * 1.0202, 5.0], 1)
def test_gaps_when_there_are_many(values: list[float], batch: int) -> None:
    """Exact while few; beyond, within 1 % of the nearest rank, and the largest and the count exact."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("spread", "usage"):
            patch.setattr(f"eventflow_plugins.{module}.FEW", batch)
        times = [0.0]
        for value in values:
            times.append(times[-1] + value)
        clock = Clock(0.0, *times, times[-1])
        usage = timed([(0, event) for _, event in deltas(*times)], Usage(clock=clock), clock)
        exact = sorted(later - earlier for earlier, later in pairwise(times))
        spread = usage.gaps
        totals = Totals()
        for _ in range(2):
            totals._add(usage, "completed", usage._all_gaps())
    assert (spread.count, spread.max, usage.deltas) == (len(exact), exact[-1], len(times))
    assert (totals.gaps.count, totals.gaps.max, totals.deltas) == (2 * len(exact), exact[-1], 2 * len(times))
    for part, got, count in ((0.5, spread.p50, 1), (0.99, spread.p99, 1), (0.5, totals.gaps.p50, 2)):
        want = exact[math.ceil(part * len(exact)) - 1]
        assert got is not None
        if batch > count * len(exact):
            assert got == want
        elif want < 1e-6:
            assert got in (0.0, want)
        elif want < 1e9:
            assert abs(got - want) <= 0.0101 * want


def test_usage_when_a_run_has_very_many_deltas() -> None:
    """What it keeps is bounded."""
    ticks = iter(range(10**9))
    usage = instantiate(Usage(clock=lambda: next(ticks) ** 1.5))
    assert isinstance(usage, Usage)
    event = TextDelta("a")
    for _ in range(10_000):
        usage._hear(TextDelta(""))
    for _ in range(10_000):
        usage._hear(event)
    assert usage.deltas == 20_000
    assert len(usage._times) <= 4097
    assert len(usage._gaps.few) + len(usage._gaps.buckets) < 2000
    assert usage.gaps.count == 19_999


# --- all runs --------------------------------------------------------------------------------------------------------


def test_totals_when_runs_differ() -> None:
    """Counts by status; tokens of those that told them; times of all."""
    clock = Clock()
    usage = Usage(clock=clock)
    timed([*deltas(1.0, 2.0), (0.0, END)], usage, clock)
    timed([*deltas(3.0), (0.0, END)], usage, clock)
    timed(deltas(0.5), usage, clock)
    timed([(0.25, ef.StreamError("no"))], usage, clock)
    timed([(0.25, ef.ResponseFailed(Response(usage=ef.Usage(input_tokens=1))))], usage, clock)
    totals = usage.totals
    assert totals.runs == 5
    assert totals.statuses == {"completed": 2, "truncated": 1, "failed": 2}
    assert totals.tokens == Tokens(input=25, cached=16, output=12, reasoning=4, total=36)
    assert (totals.deltas, totals.tokens_per_second) == (4, 3.0)
    assert totals.gaps == Spread(1, 2.0, 2.0, 2.0)
    assert totals.first_text == Spread(3, 1.0, 3.0, 3.0)
    assert totals.first_event == Spread(5, 0.5, 3.0, 3.0)
    assert totals.first_reasoning == Spread()
    assert totals.duration == 9.0
    assert str(totals) == (
        "5 runs (2 completed, 2 failed, 1 truncated); tokens: 25 input (16 cached), 12 output (4 reasoning), 36 total; "
        "first text p50 1 s; 4 deltas, 3 tokens/s, gaps p50 2 s, p99 2 s, max 2 s"
    )
    assert repr(totals) == f"<Totals: {totals}>"


def test_totals_when_there_is_no_run() -> None:
    """Nothing is known, and nothing is 0 that was not counted."""
    totals = Totals()
    assert (totals.runs, totals.statuses, totals.tokens, totals.tokens_per_second) == (0, {}, Tokens(), None)
    assert str(totals) == "0 runs; tokens: not told; 0 deltas"


@pytest.mark.parametrize("face", FACES)
def test_totals_when_runs_have_any_face(face: str) -> None:
    """Every face counts; a run that is cancelled, too."""
    usage = Usage()
    flow = Dispatcher(usage)
    drive(face, [TextDelta("a"), END], flow)

    def cancel(event: Event, run: Any) -> None:
        run.cancel()

    with flow.on(TextDelta, cancel):
        drive(face, [TextDelta("a"), END], flow)
    assert usage.totals.statuses == {"completed": 1, "cancelled": 1}
    assert usage.totals.tokens.output == 6


def test_totals_when_runs_are_in_many_threads() -> None:
    """None is lost."""
    usage = Usage()
    flow = Dispatcher(usage)

    def work() -> None:
        for _ in range(20):
            flow.run([TextDelta("a"), TextDelta("b"), END])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert usage.totals.statuses == {"completed": 160}
    assert usage.totals.tokens.total == 18 * 160
    assert usage.totals.gaps.count == 160


def test_totals_when_dispatchers_share_them() -> None:
    """They are an object of their own."""
    totals = Totals()
    for _ in range(2):
        Dispatcher().use("usage", totals=totals)
        Dispatcher(Usage(totals=totals)).run([END])
    assert totals.runs == 2
