"""`only`, `drop`, `tap`: what goes on, and what is called with it."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import ASYNC, FACES, Tick, drive

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    Pipeline,
    Plugin,
    Response,
    ResponseCompleted,
    Run,
    TextDelta,
    TextDone,
    ToolOutput,
    on,
    state,
)
from eventflow.errors import PluginError, UsageError
from eventflow.plan import Plan
from eventflow_plugins import drop, only, tap

SOURCE = [
    TextDelta(delta="a"),
    Tick(n=1),
    ToolOutput(call_id="c", output=""),
    TextDone(text="a"),
    ResponseCompleted(response=Response(id="r")),
]
selectors = st.sampled_from([Tick, TextDelta, TextDone, "text", "tool", "custom", "lifecycle", "response.*", "*"])


class Seen(Plugin):
    """Notes what comes to its place."""

    events: list[Event] = state(factory=list[Event])

    @on("*")
    def see(self, event: Event) -> None:
        self.events.append(event)


@pytest.mark.parametrize("face", FACES)
def test_operators_when_they_stand_in_a_pipeline(face: str) -> None:
    """What is behind them sees what they let through; the received response and the status are as ever."""
    tapped: list[Event] = []
    flow = Dispatcher(only("text", Tick) | drop(TextDone) | tap(tapped.append, "custom") | Seen())
    run = drive(face, SOURCE, flow).run
    assert run[Seen].events == [SOURCE[0], SOURCE[1]]
    assert tapped == [SOURCE[1]]
    assert (run.status, run.response.id) == ("completed", "r")


@given(st.lists(selectors, min_size=1, max_size=3))
def test_operators_when_selectors_vary_part_the_stream(selects: list[Any]) -> None:
    """`only` and `drop` of the same are each other's rest, and `tap` is called with what `only` lets go on."""
    tapped: list[Event] = []
    kept = Dispatcher(tap(tapped.append, *selects), only(*selects), Seen()).run(SOURCE)[Seen].events
    rest = Dispatcher(drop(*selects), Seen()).run(SOURCE)[Seen].events
    assert tapped == kept
    assert [event for event in SOURCE if event in kept] == kept
    assert [event for event in SOURCE if event not in kept] == rest


def test_operators_when_an_event_does_not_concern_them_cost_nothing() -> None:
    """It does not even come to them."""
    plan = Plan((only("text"), drop("tool"), tap(print, Tick)), ())
    assert plan.route(TextDelta, TextDelta.type) == ()


# --- tap -------------------------------------------------------------------------------------------------------------


def test_tap_when_it_has_no_selector_is_called_with_everything_and_the_run() -> None:
    """The run comes to a function that takes two arguments; what it gives does not change the event."""
    seen: list[tuple[Event, str]] = []

    def note(event: Event, run: Run) -> str:
        seen.append((event, run.id))
        return "ignored"

    run = Dispatcher(tap(note), Seen()).run(SOURCE)
    assert seen == [(event, run.id) for event in SOURCE]
    assert run[Seen].events == SOURCE


@pytest.mark.parametrize("face", ASYNC)
def test_tap_when_async_is_awaited(face: str) -> None:
    """With and without the run, one event after the other."""
    seen: list[Event] = []

    async def note(event: Event) -> None:
        seen.append(event)

    async def note_with(event: Event, run: Run) -> None:
        assert seen[-1] is event

    assert drive(face, SOURCE, Dispatcher(tap(note), tap(note_with))).raised is None
    assert seen == SOURCE


def test_tap_when_async_in_a_sync_run_is_refused_before_the_first_event() -> None:
    """The function is named, and what to do."""

    async def note(event: Event) -> None:
        raise AssertionError

    seen: list[Event] = []
    flow = Dispatcher(tap(seen.append), tap(note, "text"))
    with pytest.raises(UsageError, match=r"tap\(.*note, 'text'\) can only be awaited; use arun\(\)"):
        flow.run(SOURCE)
    assert seen == []


@pytest.mark.parametrize("face", FACES)
def test_tap_when_its_function_fails(face: str, caplog: pytest.LogCaptureFixture) -> None:
    """It ends the run; isolated, it is logged and reported, and the event goes on all the same."""

    def fail(event: Event) -> None:
        raise ZeroDivisionError

    assert isinstance(drive(face, SOURCE, Dispatcher(tap(fail, Tick))).raised, ZeroDivisionError)
    with caplog.at_level(logging.CRITICAL, "eventflow"):
        run = drive(face, SOURCE, Dispatcher(tap(fail, Tick, errors="isolate"), Seen())).run
    events = run[Seen].events
    assert [type(event) for event in events] == [
        TextDelta,
        Tick,
        HandlerFailed,
        ToolOutput,
        TextDone,
        ResponseCompleted,
    ]


# --- as they are written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: only(), r"only\(\) needs a selector: only\(TextDelta\)"),
        (lambda: drop(), r"drop\(\) needs a selector"),
        (lambda: only("txet"), "did you mean 'text'"),
        (lambda: drop(TextDelta, "txet"), "did you mean 'text'"),
        (lambda: tap(print, "txet"), "did you mean 'text'"),
        (lambda: tap("text"), "a handler must be callable, not 'text'"),  # type: ignore[arg-type]
        (lambda: tap(lambda: None), "takes no argument"),
        (lambda: tap(lambda a, b, c: None), "needs 3 arguments"),
        (lambda: tap(print, errors="ignore"), 'must be "raise" or "isolate"'),  # type: ignore[arg-type]
    ],
)
def test_operators_when_written_wrongly(make: Any, message: str) -> None:
    """Refused where they are made, in the words of `on`."""
    with pytest.raises(UsageError, match=message):
        make()


def test_repr_when_shown_reads_as_it_was_written() -> None:
    """Classes by name, functions too."""

    def notify(event: Event) -> None: ...

    assert repr(only("text", TextDelta)) == "only('text', TextDelta)"
    assert repr(drop(TextDone)) == "drop(TextDone)"
    name = notify.__qualname__
    assert repr(tap(notify)) == f"tap({name})"
    assert repr(tap(notify, "text", errors="isolate")) == f"tap({name}, 'text', errors='isolate')"
    assert isinstance(only("text") | drop(TextDone), Pipeline)


def test_operators_when_used_by_name() -> None:
    """`only` and `drop` take their selectors as configuration; without them they are none."""
    flow = Dispatcher()
    flow.use("only", events=["text", "custom"])
    flow.use("drop", events="response.*.delta")
    flow.use(Seen())
    assert repr(flow.run(SOURCE).plugins[:2]) == "(only('text', 'custom'), drop('response.*.delta'))"
    assert flow.run(SOURCE)[Seen].events == [SOURCE[1], SOURCE[3]]
    with pytest.raises(PluginError, match=r"'only' cannot be configured so.*events"):
        flow.use("only")


def test_operators_when_made_often_leave_nothing_behind() -> None:
    """No class is made for a call, and no cache keeps the function."""

    def make() -> None:
        for _ in range(50):
            Dispatcher(only("text"), drop("tool"), tap(lambda event: None)).run(SOURCE)

    make()
    gc.collect()
    before = len(gc.get_objects())
    make()
    gc.collect()
    assert len(gc.get_objects()) - before < 50
