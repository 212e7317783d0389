"""`tee`: every event of its place in the pipeline to a sink beside the run, in order, whatever the sink does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import Tick, answer, completed

from eventflow import Dispatcher, Event, HandlerFailed, Run, TextDelta
from eventflow.errors import SlowConsumer, UsageError
from eventflow_plugins import Accumulate, Tee, tee

AB = answer("a", "b")
BACKENDS = ("asyncio", "trio")
LONG = 10.0  # seconds that nothing here takes


@settings(max_examples=40)
@given(backend=st.sampled_from([None, *BACKENDS]), queue=st.integers(1, 3), texts=st.lists(st.text(min_size=1)))
def test_tee_when_events_are_any(backend: str | None, queue: int, texts: list[str]) -> None:
    """The sink has every event in order when the run ends; what is behind the tee sees them all."""
    heard: list[Event] = []
    behind: list[Event] = []
    plain: list[Event] = []

    async def sink(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        heard.append(event)

    flow = Dispatcher(tee(plain.append if backend is None else sink, queue=queue) | tee(plain.append), Accumulate())
    flow.on("*", behind.append)
    if backend is None:
        run = flow.run(answer(*texts))
        assert plain.count(plain[0]) == 2
        heard = [event for number, event in enumerate(plain) if event not in plain[:number]]
        assert len(plain) == 2 * len(behind)
        assert all(event in plain for event in behind)
    else:
        run = anyio.run(flow.arun, answer(*texts), backend=backend)
        assert heard == plain == behind
    assert run[Tee].handled == len(behind)
    assert run[Tee].dropped == 0
    assert run[Accumulate].text == "".join(texts)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("text", ["response.output_text.delta", "response.output_text.delta", "response.output_text.done"]),
        (TextDelta, ["response.output_text.delta"] * 2),
        (("response.created", "response.completed"), ["response.created", "response.completed"]),
        ("codex.*", []),
    ],
)
def test_tee_when_it_selects(events: Any, expected: list[str]) -> None:
    """Only what is selected goes to the sink, which may take the run as well."""
    heard: list[str] = []

    def sink(event: Event, run: Run) -> None:
        heard.append(event.type)
        assert run.status in ("running", "completed")

    Dispatcher(tee(sink, events=events)).run(AB)
    assert heard == expected


def test_tee_when_used_by_name() -> None:
    """It is found by its entry point."""
    heard: list[Event] = []
    flow = Dispatcher()
    flow.use("tee", sink=heard.append, events=TextDelta, queue=1)
    flow.run(AB)
    assert [event.delta for event in heard if isinstance(event, TextDelta)] == ["a", "b"]


def test_tee_when_many_runs_share_it() -> None:
    """One instance serves runs at the same time, each with its own queue: none hears another's events."""
    heard: dict[str, list[int]] = {}

    def sink(event: Any, run: Run) -> None:
        heard.setdefault(run.id, []).append(event.n)

    flow = Dispatcher(tee(sink, queue=1, events=Tick))
    stream = [*(Tick(n=n) for n in range(30)), completed()]
    threads = [threading.Thread(target=flow.run, args=(stream,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert list(heard.values()) == [list(range(30))] * 4


@pytest.mark.parametrize("errors", ["raise", "isolate"])
@pytest.mark.parametrize("overflow", ["block", "error"])
def test_tee_when_its_sink_is_stuck(overflow: Any, errors: Any) -> None:
    """A sink that never returns ends the run with `SlowConsumer`, or, isolated, is reported, and the run goes on."""
    free = threading.Event()
    failures: list[HandlerFailed] = []
    heard: list[Event] = []
    flow = Dispatcher(
        tee(lambda event: free.wait(LONG), queue=1, overflow=overflow, patience=0.05, errors=errors, events=Tick)
    )
    flow.on(HandlerFailed, failures.append)
    flow.on(Tick, heard.append)
    stream = [*(Tick(n=n) for n in range(9)), completed()]
    try:
        if errors == "raise":
            with pytest.raises(SlowConsumer, match="is too slow"):
                flow.run(stream)
        else:
            run = flow.run(stream)
            assert len(heard) == 9
            assert {type(failure.error) for failure in failures} == {SlowConsumer}
            assert run[Tee].handled == 0
            assert run[Tee].dropped >= 7
    finally:
        free.set()


def test_tee_when_its_sink_raises() -> None:
    """The run ends with what the sink raised, with a note that names the sink."""

    def sink(event: Event) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full") as raised:
        Dispatcher(tee(sink)).run(AB)
    assert raised.value.__notes__[0].startswith(
        "raised by test_tee_when_its_sink_raises.<locals>.sink on response.created"
    )


def test_tee_when_its_sink_is_a_generator() -> None:
    """What the sink yields is emitted."""
    heard: list[int] = []

    def sink(event: Event) -> Iterator[Event]:
        yield Tick(n=1)

    flow = Dispatcher(tee(sink, events=TextDelta))
    flow.on(Tick, lambda event: heard.append(event.n))
    flow.run(AB)
    assert heard == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sink": None}, "a handler must be callable"),
        ({"sink": lambda: None}, "takes no argument"),
        ({"queue": 0}, "queue must be"),
        ({"overflow": "lose"}, "overflow must be one of"),
        ({"patience": -1}, "patience must be"),
        ({"events": "txt"}, "no event is called 'txt'"),
        ({"errors": "ignore"}, "errors must be"),
    ],
)
def test_tee_when_it_makes_no_sense(options: Any, message: str) -> None:
    """A configuration that is none is refused where it is written."""
    with pytest.raises(UsageError, match=message):
        tee(**{"sink": print, **options})


def test_tee_when_its_sink_is_async_in_a_sync_run() -> None:
    """It is an error before the first event; a tee in no run has handled nothing."""

    async def sink(event: Event) -> None: ...

    heard: list[Event] = []
    flow = Dispatcher(tee(sink))
    flow.on("*", heard.append)
    with pytest.raises(UsageError, match="sink can only be awaited"):
        flow.run(AB)
    assert not heard
    assert (tee(sink).handled, tee(sink).dropped) == (0, 0)
