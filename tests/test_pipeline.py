"""Plugins in order: what each sees, and a pipeline as a plugin."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import AsyncWatched, Tick, Watched, answer, body, completed, deltas

from eventflow import Dispatcher, Event, Pipeline, Plugin, Run, TextDelta, on, transform
from eventflow.errors import StreamTruncated, UsageError

AB = answer("a", "b")


class Add(Plugin):
    """Hears deltas, then appends its letter to them."""

    letter: str
    log: Any

    def start(self, run: Run) -> None:
        self.log.append(f"{self.letter} starts")

    @on(TextDelta)
    def hear(self, event: TextDelta) -> None:
        self.log.append(f"{self.letter} hears {event.delta}")

    @transform(TextDelta)
    def add(self, event: TextDelta) -> Event:
        return event.replace(delta=event.delta + self.letter)

    def stop(self, run: Run) -> None:
        self.log.append(f"{self.letter} stops")


def test_pipeline_when_run_passes_events_on() -> None:
    """Each plugin sees what the one before it let through, then the dispatcher's own handlers see what came through."""
    log: list[str] = []
    flow = Dispatcher(Add("x", log) | Add("y", log), Add("z", log))
    flow.on(TextDelta, lambda event: log.append(f"handler hears {event.delta}"), order=-5)
    flow.run([*deltas("a"), completed()])
    assert log == [
        "x starts",
        "y starts",
        "z starts",
        "x hears a",
        "y hears ax",
        "z hears axy",
        "handler hears axyz",
        "z stops",
        "y stops",
        "x stops",
    ]


@given(st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, max_size=4), max_leaves=8))
def test_pipeline_when_nested_is_flat(tree: Any) -> None:
    """Pipelines in pipelines, built by call or by ``|``, are their plugins in order."""
    letters: list[str] = []

    def build(node: Any) -> Plugin:
        if isinstance(node, int):
            letters.append(str(node))
            return Add(str(node), [])
        return Pipeline(*map(build, node))

    pipeline = build(tree)
    run = Dispatcher(pipeline).run([completed()])
    assert [plugin.letter for plugin in run.plugins if isinstance(plugin, Add)] == letters
    assert not any(isinstance(plugin, Pipeline) for plugin in run.plugins)


def test_pipeline_when_written_with_bars() -> None:
    """``a | b | c`` is ``Pipeline(a, b, c)``; a bar with anything else is a `TypeError`."""
    a, b, c = (Add(letter, []) for letter in "abc")
    for pipeline in (a | b | c, a | (b | c), Pipeline(a, b) | c, Pipeline(a, Pipeline(b, c)), Pipeline(a, b, c)):
        assert isinstance(pipeline, Pipeline)
        assert pipeline.plugins == (a, b, c)
    with pytest.raises(TypeError):
        a | 3  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"made of plugins, not .*write Add\(\)"):
        Pipeline(Add)  # type: ignore[arg-type]


def test_pipeline_when_run_by_itself() -> None:
    """`run` and `arun` of a pipeline run a source through it alone, options included, and close what it opened."""
    log: list[str] = []

    class Opens(Plugin):
        def open(self) -> None:
            log.append("open")

        def close(self) -> None:
            log.append("close")

    pipeline = Opens() | Add("x", [])
    assert pipeline.run(AB).text == "ab"
    assert asyncio.run(pipeline.arun(AsyncWatched(AB))).text == "ab"
    assert log == ["open", "close", "open", "close"]
    assert pipeline.run(body(AB[:3]), check=False, wire="responses").status == "truncated"
    with pytest.raises(StreamTruncated):
        asyncio.run(pipeline.arun(AsyncWatched(AB[:3])))


def test_pipeline_when_used_and_undone() -> None:
    """A pipeline is used like a plugin; its undo takes all of its plugins out, and no other."""
    kept = Add("k", [])
    flow = Dispatcher(kept)
    undo = flow.use(Add("x", []) | Add("y", []))
    assert [plugin.letter for plugin in flow.run(AB).plugins if isinstance(plugin, Add)] == ["k", "x", "y"]
    undo()
    assert [plugin.letter for plugin in flow.run(AB).plugins if isinstance(plugin, Add)] == ["k"]


def test_pipeline_when_empty() -> None:
    """A pipeline of nothing lets everything through."""
    assert Pipeline().plugins == ()
    assert [event.type for event in Dispatcher(Pipeline()).stream(AB)] == [event["type"] for event in AB]


def test_pipeline_when_its_plugins_are_shared() -> None:
    """One pipeline in two dispatchers: the runs share nothing."""
    log: list[str] = []
    pipeline = Add("x", log) | Add("y", log)
    one, two = Dispatcher(pipeline), Dispatcher(pipeline)
    first, second = one.run(Watched(AB)), two.run(Watched(AB))
    assert not set(map(id, first.plugins)) & set(map(id, second.plugins))
    assert first.text == second.text == "ab"


def test_event_when_dropped_is_unheard_behind() -> None:
    """What a plugin drops, or turns into something else, nobody behind it hears."""

    class Turn(Plugin):
        @transform(TextDelta)
        def turn(self, event: TextDelta) -> Event | None:
            return Tick(1) if event.delta == "a" else None

    log: list[str] = []
    flow = Dispatcher(Add("x", log), Turn(), Add("y", log))
    ticks: list[Event] = []
    flow.on(Tick, ticks.append)
    flow.run([*deltas("a", "b"), completed()])
    assert [entry for entry in log if "hears" in entry] == ["x hears a", "x hears b"]
    assert ticks == []  # "ax" is what comes, not "a"
