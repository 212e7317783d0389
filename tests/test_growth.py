"""What a stream costs: whatever it brings ever more of, the time grows with its bytes alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from eventflow import Dispatcher, Limits, Plugin, rewrite
from eventflow.events import Message, OutputItemDone
from eventflow.snapshot import Snapshot
from eventflow.wires.assembly import Assembler

JSON = dict[str, Any]


class Same(Plugin):
    """Rewrites text to what it is."""

    @rewrite("text")
    def same(self, text: str) -> str:
        return text


def body(*events: JSON) -> bytes:
    """Events, or chunks, as they come on a wire."""
    return "".join(f"data: {json.dumps(event, separators=(',', ':'))}\n\n" for event in events).encode()


def responses(*events: JSON) -> bytes:
    """A Responses stream with these events."""
    return body({"type": "response.created", "response": {"id": "r"}}, *events)


def parts(count: int) -> bytes:
    """Ever new parts of one item."""
    event = {"type": "response.content_part.added", "item_id": "m", "part": {"type": "output_text", "text": ""}}
    return responses(*({**event, "content_index": index} for index in range(count)))


def parts_without_place(count: int) -> bytes:
    """Ever new parts of one item, which do not say which."""
    event = {"type": "response.content_part.added", "item_id": "m", "part": {"type": "output_text", "text": "x"}}
    return responses(*[event] * count)


def deltas(count: int) -> bytes:
    """Deltas that are of ever new parts."""
    event = {"type": "response.output_text.delta", "item_id": "m", "delta": "x"}
    return responses(*({**event, "content_index": index} for index in range(count)))


def open_texts(count: int) -> bytes:
    """Texts that stay open, while parts that nobody opened are closed."""
    part = {"type": "response.content_part.done", "item_id": "z", "part": {"type": "output_text", "text": ""}}
    delta = {"type": "response.output_text.delta", "content_index": 0, "delta": "x"}
    return responses(*(event for index in range(count) for event in ({**delta, "item_id": f"m{index}"}, part)))


def calls(count: int) -> bytes:
    """One chunk with calls that have ids, but no index."""
    made = [{"id": f"c{number}", "function": {"name": "f"}} for number in range(count)]
    return body({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": made}}]})


def grows_evenly(work: Callable[[int], Callable[[], object]], count: int) -> bool:
    """Whether eight times as much takes about eight times as long; sixty-four, were it quadratic."""

    def cost(count: int) -> float:
        call, began = work(count), time.process_time()
        call()
        return time.process_time() - began

    few = min(cost(count) for _ in range(3))
    return cost(8 * count) < 24 * max(few, 1e-3)


@pytest.mark.parametrize("stream", [parts, parts_without_place, deltas, open_texts, calls])
def test_time_when_a_stream_brings_ever_more(stream: Callable[[int], bytes]) -> None:
    """What is there is not gone through for each that comes."""

    def work(count: int) -> Callable[[], object]:
        sent = stream(count)
        return lambda: Dispatcher(Same()).run(sent, check=False)

    assert grows_evenly(work, 500)


def test_time_when_items_come_closed() -> None:
    """Those without an id and a place are not gone through for each that comes."""
    assert grows_evenly(lambda count: lambda: Snapshot().add([OutputItemDone(Message())] * count), 2000)


def test_time_when_what_has_no_place_has_no_event_either() -> None:
    """What waits for the next event is not copied for each that comes."""

    def work(count: int) -> Callable[[], object]:
        assembler = Assembler(Limits(other=None))
        return lambda: [assembler.keep({f"x{number}": 1}) for number in range(count)]

    assert grows_evenly(work, 1000)
