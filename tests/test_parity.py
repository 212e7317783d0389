"""One table of cases through all six faces: run, arun, stream, astream, open, aopen. All come to the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import (
    FACES,
    Tick,
    answer,
    block,
    body,
    bytewise,
    call,
    call_delta,
    closed,
    completed,
    created,
    delta,
    deltas,
    drive,
    error,
    failed,
    incomplete,
    numbered,
    opened,
)

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    Limits,
    Plugin,
    Run,
    TextDelta,
    TextDone,
    on,
    rewrite,
    state,
    transform,
)
from eventflow.events import encode_json
from eventflow.sse import Frame

AB = answer("a", "b")
CALL = [
    created(),
    opened(call("", status="in_progress"), index=1),
    call_delta("{}"),
    closed(call("{}"), index=1),
    completed(),
]

STREAMS: dict[str, list[Any]] = {
    "mappings": AB,
    "chunks": [body(AB)],
    "single bytes": bytewise(b": hi\n\n" + body(AB)),
    "crlf": [body(AB).replace(b"\n", b"\r\n")],
    "frames": [Frame(event["type"], encode_json(event).decode(), "1") for event in AB],
    "mixed": [body(AB[:3]), AB[3], bytearray(body(AB[4:5])), memoryview(body(AB[5:]))],
    "incomplete": answer("a", end=incomplete),
    "failed": [*AB[:4], failed()],
    "error": [*AB[:4], error()],
    "error and failed": [*AB[:4], error(), failed(None)],
    "truncated": AB[:4],
    "truncated bytes": [body(AB)[:-40]],
    "unfinished": [body(AB)[:-1]],
    "nothing": [],
    "no stream": [b"<html>", b"</html>"],
    "no json": [body(AB[:3]), b"event: response.created\ndata: {\n\n", body(AB[3:])],
    "calls": CALL,
    "unknown": [created(), {"type": "vendor.x"}, completed()],
    "numbered": numbered(AB),
    "doubled": [event for event in numbered(AB) for _ in range(2)],
    "gap": numbered(AB)[::2],
    "after the end": [body([*AB, *AB])],
    "something else": [created(), 3.5],
    "text": [created(), "event: x\n\n"],
}


class _Hold(Plugin):
    """Shouts, holds ticks back, makes ticks of dones, fills the outbox."""

    held: list[Event] = state(factory=list)

    @on("tool")
    def note(self, event: Event, run: Run) -> None:
        run.outbox.append(event.type)

    @rewrite("text")
    def shout(self, text: str) -> str:
        return text.upper()

    @transform(Tick)
    def hold(self, event: Tick) -> None:
        self.held.append(event)

    @transform(TextDone)
    def more(self, event: TextDone) -> Iterator[Event]:
        yield event
        yield event.replace(text="more")

    def finish(self, run: Run) -> Any:
        return self.held


def _plain() -> Dispatcher:
    return Dispatcher()


def _emitting() -> Dispatcher:
    flow = Dispatcher(_Hold())
    flow.on(TextDelta, lambda event, run: run.emit(Tick(run.events)))
    flow.on("lifecycle", lambda event: (Tick(n) for n in (7, 8)))
    return flow


def _raising(event: Event) -> None:
    raise ValueError("mine")


def _failing() -> Dispatcher:
    flow = Dispatcher()
    flow.on(TextDone, _raising)
    return flow


def _cancelling() -> Dispatcher:
    flow = Dispatcher()
    flow.on(TextDelta, lambda event, run: run.cancel() if event.delta == "b" else None)
    return flow


class _Broken(Plugin):
    def finish(self, run: Run) -> None:
        raise ValueError("finish")

    def stop(self, run: Run) -> None:
        raise ValueError("stop")


FLOWS: dict[str, Callable[[], Dispatcher]] = {
    "plain": _plain,
    "strict": lambda: Dispatcher(strict=True),
    "relay": lambda: Dispatcher(snapshot=False),
    "limited": lambda: Dispatcher(limits=Limits(text=1, event_bytes=300)),
    "emitting": _emitting,
    "failing": _failing,
    "cancelling": _cancelling,
    "broken": lambda: Dispatcher(_Broken()),
}


def test_faces_when_a_case_is_driven() -> None:
    """Every stream through every dispatcher: the same events, status, error, notes, response, warnings on each face.

    Each stream and each dispatcher is checked every other time.
    """
    for (row, (stream, items)), (column, (flow, make)) in product(enumerate(STREAMS.items()), enumerate(FLOWS.items())):
        check = (row + column) % 2 == 0
        outcomes = {face: drive(face, items, make(), check=check) for face in FACES}
        expected = outcomes["run"].shown()
        for face, outcome in outcomes.items():
            assert outcome.shown() == expected, (stream, flow, check, face)
            if outcome.given is not None:
                assert outcome.given == outcome.heard, (stream, flow, check, face)


def test_faces_when_isolated_handlers_fail() -> None:
    """Isolated failures are events on each face, in the same places."""
    for items in STREAMS.values():
        places: set[tuple[Any, ...]] = set()
        for face in FACES:
            flow = Dispatcher()
            flow.on("text", _raising, errors="isolate")
            outcome = drive(face, items, flow)
            names = [event.handler if isinstance(event, HandlerFailed) else event.type for event in outcome.heard]
            places.add((*names, outcome.run.status))
        assert len(places) == 1


@pytest.mark.parametrize("fault", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_faces_when_a_handler_raises(fault: BaseException) -> None:
    """A handler's exception leaves each face as it is, also those that are none of `Exception`."""

    def fail(event: Event) -> None:
        raise fault

    for face in FACES:
        flow = Dispatcher()
        flow.on(TextDelta, fail)
        outcome = drive(face, AB, flow)
        assert outcome.raised is fault, face
        assert outcome.run.status == ("failed" if isinstance(fault, Exception) else "cancelled"), face
        assert len(outcome.heard) == 2, face


@given(
    st.lists(
        st.sampled_from([*AB, *CALL, error(), failed(), incomplete(), delta("c"), *deltas("d")]).map(block)
        | st.sampled_from([b"x", b"\n", b"data: [DONE]\n\n", b"event: error\ndata: oh\n\n"]),
        max_size=10,
    ),
    st.sampled_from(sorted(FLOWS)),
)
def test_faces_when_the_stream_is_any(chunks: list[bytes], flow: str) -> None:
    """Whatever comes, the six faces agree."""
    expected = drive("run", chunks, FLOWS[flow]()).shown()
    for face in FACES:
        assert drive(face, chunks, FLOWS[flow]()).shown() == expected
