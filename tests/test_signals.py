"""Signals tell host applications of the life of runs, on every path, and disturb nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from scenarios import FACES, Watched, answer, drive, error

from eventflow import Dispatcher, Event, HandlerFailed, Run, TextDelta, signals

AB = answer("a", "b")


def _fail(event: Event) -> None:
    raise ValueError("mine")


def _leave(event: Event, run: Run) -> None:
    run.cancel()


ENDINGS: dict[str, tuple[list[Any], Any, str]] = {
    "well": (AB, None, "completed"),
    "truncated": (AB[:3], None, "truncated"),
    "an error": ([*AB[:3], error()], None, "failed"),
    "a handler": (AB, _fail, "failed"),
    "cancelled": (AB, _leave, "cancelled"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("face", FACES)
def test_signals_when_a_run_ends(face: str, ending: str) -> None:
    """A run is told of when it begins and once when it has ended, with the dispatcher as sender, whatever its end."""
    events, handler, status = ENDINGS[ending]
    told: list[tuple[str, Any, Run, str]] = []
    flow, other = Dispatcher(), Dispatcher()
    if handler is not None:
        flow.on(TextDelta, handler)

    def started(sender: Any, run: Run) -> None:
        told.append(("started", sender, run, run.status))

    def finished(sender: Any, run: Run) -> None:
        told.append(("finished", sender, run, run.status))

    with (
        signals.run_started.connected_to(started, sender=flow),
        signals.run_finished.connected_to(finished, sender=flow),
    ):
        outcome = drive(face, events, flow)
        drive(face, AB, other)
    assert told == [("started", flow, outcome.run, "running"), ("finished", flow, outcome.run, status)]


def test_signals_when_a_stream_is_broken_off() -> None:
    """A stream that is left, or never iterated, has ended too."""
    ended: list[str] = []

    def finished(_: Any, run: Run) -> None:
        ended.append(run.status)

    with signals.run_finished.connected_to(finished):
        for _event in Dispatcher().stream(AB):
            break
        assert ended == ["cancelled"]
        cursor = iter(Dispatcher().stream(AB))
        next(cursor)
        del cursor
        assert ended == ["cancelled"] * 2


def test_signals_when_a_stream_is_closed_unread() -> None:
    """A stream that is closed before it was iterated has ended too: what began is told to have ended."""
    ended: list[str] = []

    def finished(_: Any, run: Run) -> None:
        ended.append(run.status)

    with signals.run_finished.connected_to(finished), Dispatcher().stream(AB):
        pass
    assert ended == ["cancelled"]


def test_signal_when_an_isolated_handler_fails() -> None:
    """``handler_failed`` brings the run and the `HandlerFailed` event."""
    told: list[tuple[Any, Run, HandlerFailed]] = []
    flow = Dispatcher()
    flow.on(TextDelta, _fail, errors="isolate")

    def failed(sender: Any, run: Run, failure: HandlerFailed) -> None:
        told.append((sender, run, failure))

    with signals.handler_failed.connected_to(failed):
        run = flow.run(AB)
    assert [(sender, told_run) for sender, told_run, _ in told] == [(flow, run)] * 2
    assert isinstance(told[0][2].error, ValueError)
    assert isinstance(told[0][2].event, TextDelta)


def test_receiver_when_it_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that raises is logged; the run, and the other receivers, go on."""
    told: list[str] = []

    def breaks(sender: Any, **_: Any) -> None:
        raise ValueError("receiver")

    def hears(sender: Any, run: Run) -> None:
        told.append(run.status)

    with (
        signals.run_started.connected_to(breaks),
        signals.run_finished.connected_to(breaks),
        signals.run_finished.connected_to(hears),
    ):
        assert Dispatcher().run(AB).status == "completed"
    assert told == ["completed"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "eventflow.run_started" in caplog.records[0].getMessage()


def test_receiver_when_interrupted() -> None:
    """An interrupt in a receiver goes through, and the source is closed."""

    def interrupted(sender: Any, **_: Any) -> None:
        raise KeyboardInterrupt

    source = Watched(AB)
    with signals.run_started.connected_to(interrupted), pytest.raises(KeyboardInterrupt):
        Dispatcher().run(source)
    assert source.closed == 1
