"""Long streams: memory for the text once, and time in proportion to it."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from scenarios import body, call, call_delta, closed, completed, created, delta, message, opened, text_done

from eventflow import Dispatcher, Plugin, TextDelta, on, state
from eventflow.sequence import Sequence

pytestmark = pytest.mark.usefixtures("untraced")

DELTAS = 20_000
WORD = "streaming "  # 10 characters


def pieces(count: int, event: Any, *, size: int = 4096) -> Iterator[bytes]:
    """A stream of *count* equal events in chunks of *size* bytes, made while it is read."""
    block = body([event])
    per_chunk = max(1, size // len(block))
    yield body([created(), opened()])
    for start in range(0, count, per_chunk):
        yield block * min(per_chunk, count - start)
    yield body([completed()])


def growth(call_it: Callable[[], Any]) -> tuple[Any, int, int]:
    """What the call gives, the bytes that it keeps, and the most that it had at once."""
    gc.collect()
    tracemalloc.start()
    try:
        result = call_it()
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, kept, peak


def test_memory_when_a_text_is_long() -> None:
    """20,000 deltas cost the memory of their text, and little more than it at once."""
    size = DELTAS * len(WORD)
    run, kept, peak = growth(lambda: Dispatcher().run(pieces(DELTAS, delta(WORD))))
    assert run.text == WORD * DELTAS
    assert kept < 1.5 * size
    assert peak < 4 * size


def test_memory_when_arguments_are_long() -> None:
    """The same for the arguments of a call."""
    count = DELTAS // 4
    size = count * len(WORD)

    def stream() -> Iterator[bytes]:
        yield body([created(), opened(call("", status="in_progress"), index=1)])
        for _ in range(0, count, 50):
            yield body([call_delta(WORD)] * 50)

    run, kept, peak = growth(lambda: Dispatcher().run(stream(), check=False))
    assert run.response.tool_calls[0].arguments == WORD * count
    assert kept < 2 * size
    assert peak < 6 * size


def test_memory_when_numbers_have_gaps() -> None:
    """What is missing is known by where gaps begin and end, and of the newest alone: they cost next to nothing."""
    sequence = Sequence(lambda kind, message: None, strict=False)
    event = SimpleNamespace(type="t")
    odd, kept, _ = growth(lambda: sum(sequence.admit(event, place * 10**6, ()) for place in range(10_000)))
    assert (odd, sequence.expected) == (10_000, 9_999 * 10**6 + 1)
    assert kept < 500_000


def test_memory_when_events_are_large() -> None:
    """Of previews, which are no part of the response, the last one is at hand, however many there were."""
    preview = {"type": "response.image_generation_call.partial_image", "partial_image_b64": "A" * 2**20}
    run, _, peak = growth(lambda: Dispatcher().run(pieces(30, preview), check=False))
    assert run.events == 33
    assert peak < 10 * 2**20


@pytest.mark.parametrize("snapshot", [True, False])
def test_memory_when_events_carry_no_text(snapshot: bool) -> None:
    """Events that are no part of the response are not kept: memory is flat."""
    progress = {"type": "response.web_search_call.searching", "item_id": "ws_1", "output_index": 0}
    run, _, peak = growth(lambda: Dispatcher(snapshot=snapshot).run(pieces(5_000, progress)))
    assert run.events == 5_003
    assert peak < 250_000


def test_memory_when_nothing_is_kept() -> None:
    """A relay keeps none of the text."""
    heard = [0]
    flow = Dispatcher(snapshot=False)

    @flow.on(TextDelta)
    def count(event: TextDelta) -> None:
        heard[0] += len(event.delta)

    run, _, peak = growth(lambda: flow.run(pieces(DELTAS, delta(WORD))))
    assert heard == [DELTAS * len(WORD)]
    assert run.text == ""
    assert peak < DELTAS * len(WORD) / 2


def test_memory_when_vendors_invent_names() -> None:
    """A peer that invents event names without end costs no memory for each of them."""

    def stream() -> Iterator[bytes]:
        yield body([created()])
        for number in range(2_000):
            yield body([{"type": f"vendor.number_{number}"}])
        yield body([completed()])

    flow = Dispatcher()
    flow.on("vendor.*", lambda event: None)
    flow.run(stream())  # what is cached for the plan is cached now
    run, kept, peak = growth(lambda: flow.run(stream()))
    assert run.events == 2_002
    assert kept < 100_000
    assert peak < 1_000_000


def test_memory_when_warnings_have_no_end() -> None:
    """Oddities are kept up to a bound."""

    def stream() -> Iterator[bytes]:
        for number in range(2_000):
            yield body([{**delta("x"), "sequence_number": number * 2}])

    run = Dispatcher().run(stream(), check=False)
    assert 100 <= len(run.warnings) <= 101


class Collect(Plugin):
    """Hears every delta, and reads the count of the run."""

    count: int = state(default=0)

    @on(TextDelta)
    def hear(self, event: TextDelta) -> None:
        self.count += 1


def seconds(call_it: Callable[[], Any]) -> float:
    """CPU seconds of the call, the least of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        call_it()
        best = min(best, time.process_time() - begun)
    return best


def text_stream(count: int) -> Iterator[bytes]:
    """Deltas in chunks of 4 KiB."""
    yield from pieces(count, delta(WORD))


def text_without_chunks(count: int) -> Iterator[bytes]:
    """Deltas, one a chunk."""
    yield from pieces(count, delta(WORD), size=1)


def arguments_stream(count: int) -> Iterator[bytes]:
    """Pieces of the arguments of a call, one a chunk."""
    yield body([created(), opened(call("", status="in_progress"), index=1)])
    yield from (body([call_delta(WORD)]) for _ in range(count))
    yield body([closed(call(WORD * count), index=1), completed()])


def one_event(count: int) -> Iterator[bytes]:
    """One long event in small chunks."""
    whole = body([created(), opened(), text_done(WORD * count * 5), completed(message("x"))])
    yield from (whole[start : start + 100] for start in range(0, len(whole), 100))


@pytest.mark.parametrize("stream", [text_stream, text_without_chunks, arguments_stream, one_event])
def test_time_when_a_stream_is_longer(stream: Callable[[int], Iterator[bytes]]) -> None:
    """Five times the stream takes about five times the time, not twenty-five."""
    flow = Dispatcher(Collect())
    small, large = (seconds(lambda count=count: flow.run(stream(count)).text) for count in (4_000, 20_000))
    assert large < 12 * small + 0.02


def test_time_when_the_text_is_read_often() -> None:
    """Reading the text now and then does not make the time quadratic."""

    def run(count: int) -> None:
        flow = Dispatcher()

        @flow.on(TextDelta)
        def look(event: TextDelta, run: Any) -> None:
            if run.events % (count // 20) == 0:
                assert run.text

        flow.run(text_stream(count))

    small, large = (seconds(lambda count=count: run(count)) for count in (4_000, 20_000))
    assert large < 12 * small + 0.02
