"""How a run goes and ends: the status table, what errors carry, sequence numbers, limits, leaving, cancelling."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import (
    ASYNC,
    FACES,
    JSON,
    SYNC,
    AsyncWatched,
    Tick,
    Watched,
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
    interrupted,
    message,
    numbered,
    opened,
    text_done,
)
from strategies import chunkings

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    Limits,
    Plugin,
    ResponseCompleted,
    Run,
    StreamError,
    TextDelta,
    ToolCall,
    UnknownEvent,
    on,
    signals,
)
from eventflow.chain import Chain, Steps
from eventflow.errors import (
    APIStreamError,
    DecodeError,
    EventflowError,
    LimitExceeded,
    SequenceError,
    StreamInterrupted,
    StreamTimeout,
    StreamTruncated,
    UsageError,
)
from eventflow.events import encode_json
from eventflow.sequence import Sequence
from eventflow.snapshot import Snapshot
from eventflow.sse import Frame
from eventflow.testing import stream

AB = answer("a", "b")
BACKENDS = ("asyncio", "trio")
NESTED = {"type": "error", "error": {"type": "server_error", "code": "overloaded", "message": "busy", "param": "model"}}
BARE = {"error": {"message": "no such model", "type": "invalid_request_error", "code": 404}}


class Watch(Plugin):
    """Counts what is called."""

    calls: Any

    def start(self, run: Run) -> None:
        self.calls.append("start")

    def finish(self, run: Run) -> None:
        self.calls.append("finish")

    def stop(self, run: Run) -> None:
        self.calls.append("stop")


# --- the status table ------------------------------------------------------------------------------------------------

TABLE: dict[str, tuple[list[JSON], str, type[EventflowError] | None]] = {
    "completed": (AB, "completed", None),
    "incomplete": (answer("a", "b", end=incomplete), "incomplete", None),
    "response.failed": ([*AB[:4], failed()], "failed", APIStreamError),
    "error event": ([*AB[:4], error()], "failed", APIStreamError),
    "nested error": ([*AB[:4], NESTED], "failed", APIStreamError),
    "bare error": ([*AB[:4], BARE], "failed", APIStreamError),
    "error and failed": ([*AB[:4], error(), failed()], "failed", APIStreamError),
    "error and completed": ([*AB[:4], error(), completed(message("ab"))], "failed", APIStreamError),
    "truncated": (AB[:4], "truncated", StreamTruncated),
    "no json": ([*AB[:4], {"type": "response.output_text.delta", "delta": [1]}], "failed", DecodeError),
    "empty": ([], "truncated", StreamTruncated),
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("face", FACES)
def test_status_when_the_stream_ends(face: str, case: str, check: bool) -> None:
    """Each row of the table: the status, the error, what is raised with ``check``, and nothing received is lost."""
    events, status, kind = TABLE[case]
    calls: list[str] = []
    outcome = drive(face, map(block, events) if case != "bare error" else events, Dispatcher(Watch(calls)), check=check)
    run = outcome.run
    assert run.status == status
    assert type(run.error) is type(outcome.raised) if check else outcome.raised is None
    if kind is None:
        assert run.error is None
    else:
        assert type(run.error) is kind
        assert run.error.run is run
        assert run.error.partial is run.response
    if events:
        assert run.text == "ab"
        assert run.response.id == "resp_1"
    assert calls == ["start", "finish", "stop"]


@pytest.mark.parametrize("face", ["run", "arun", "stream", "astream"])
def test_status_when_the_source_fails(face: str) -> None:
    """A connection that is cut is an interruption, with its cause, retryable; what was received is kept."""
    for fault in (ConnectionResetError("reset by peer"), OSError("gone"), ValueError("odd")):
        flow = Dispatcher()
        source = Watched(map(block, AB[:4]), fault) if face in SYNC else AsyncWatched(map(block, AB[:4]), fault)
        heard: list[Event] = []
        flow.on("*", heard.append)
        raised = fails(face, flow, source)
        assert type(raised) is StreamInterrupted
        assert isinstance(raised, StreamTruncated)
        assert raised.__cause__ is fault
        assert raised.retryable
        assert raised.phase == "stream"
        assert str(fault) in str(raised)
        assert raised.run is not None
        assert raised.run.status == "truncated"
        assert raised.partial is not None
        assert raised.partial.output_text == "ab"
        assert len(heard) == 4
        assert source.closed == 1


def run_through(face: str, flow: Dispatcher, source: Any) -> None:
    """Run *source* itself through *face*."""
    start: dict[str, Callable[[], Any]] = {
        "run": lambda: flow.run(source),
        "stream": lambda: list(flow.stream(source)),
        "arun": lambda: asyncio.run(flow.arun(source)),
        "astream": lambda: asyncio.run(_alist(flow, source)),
    }
    start[face]()


def fails(face: str, flow: Dispatcher, source: Any) -> Exception:
    """Run *source* through *face*; the error it ends with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is the caller's to see
        run_through(face, flow, source)
    return caught.value


async def _alist(flow: Dispatcher, source: Any) -> list[Event]:
    async with flow.astream(source) as events:
        return [event async for event in events]


@pytest.mark.parametrize("face", ["run", "arun", "stream", "astream"])
def test_status_when_a_source_raises_our_error(face: str) -> None:
    """An error of ours from a source, as a timeout of a transport, is the run's error as it stands."""
    for fault, status in [
        (StreamTimeout("nothing came for 3 s"), "timeout"),
        (StreamInterrupted("cut"), "truncated"),
        (LimitExceeded(limit="x", maximum=1, seen=2), "failed"),
    ]:
        source = Watched(map(block, AB[:4]), fault) if face in SYNC else AsyncWatched(map(block, AB[:4]), fault)
        raised = fails(face, Dispatcher(), source)
        assert raised is fault
        assert fault.run is not None
        assert fault.run.status == status
        assert fault.partial is not None
        assert fault.partial.output_text == "ab"


def test_truncated_when_in_the_middle_of_an_event() -> None:
    """The message says what was under way, and how much had come."""
    with pytest.raises(StreamTruncated, match=r"in the middle of an event .*output_item") as caught:
        Dispatcher().run(body(AB)[:-500])
    assert caught.value.retryable
    assert "events were received" in str(caught.value)


def test_truncated_when_the_last_event_lacks_its_blank_line() -> None:
    """A whole last event is kept with a warning, terminal or not; half a one is not."""
    whole = body(AB)
    run = Dispatcher().run(whole[:-2])
    assert run.status == "completed"
    assert [warning.kind for warning in run.warnings] == ["unfinished"]
    cut = Dispatcher().run(body(AB[:4])[:-1], check=False)
    assert (cut.status, cut.text) == ("truncated", "ab")
    half = Dispatcher().run(body(AB[:4])[:-4], check=False)
    assert (half.status, half.text) == ("truncated", "a")


@pytest.mark.parametrize("data", [b"<html><body>Sign in", b"{}", b"\x89PNG\r\n\x1a\n\0\0", b" "])
def test_decode_error_when_the_body_is_no_event_stream(data: bytes) -> None:
    """Bytes that make no event are a `DecodeError` that shows how they begin, escaped."""
    with pytest.raises(DecodeError, match="this is no event stream") as caught:
        Dispatcher().run(data)
    assert caught.value.phase == "decode"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("data", ["not json", "[1]", "null", "3", '{"type": "response.created"', '"text"'])
@pytest.mark.parametrize("first", [True, False])
def test_decode_error_when_an_event_is_no_object(data: str, first: bool) -> None:
    """Data that is no JSON object ends the run with the frame as it came."""
    bad = f"event: response.output_text.delta\ndata: {data}\n\n".encode()
    with pytest.raises(DecodeError) as caught:
        Dispatcher().run(bad if first else body(AB[:4]) + bad + body(AB[4:]))
    assert caught.value.frame == Frame("response.output_text.delta", data)
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == ("" if first else "ab")
    assert not caught.value.retryable


def test_decode_error_when_no_wire_fits() -> None:
    """A stream of an unknown kind is an error that shows its first frame and says what to pass."""
    with pytest.raises(DecodeError, match=r"of no wire that is read here .*wire="):
        Dispatcher().run(b'event: tick\ndata: {"n": 1}\n\n')


def test_unknown_events_when_they_come() -> None:
    """An event nobody knows is delivered as it came, and is never an error."""
    heard: list[UnknownEvent] = []
    flow = Dispatcher()
    flow.on("unknown", heard.append)
    run = flow.run(body([created(), {"type": "response.future.thing", "a": [1]}, completed()]))
    assert run.status == "completed"
    assert [(event.type, event.data) for event in heard] == [
        ("response.future.thing", {"type": "response.future.thing", "a": [1]})
    ]


@pytest.mark.parametrize("face", FACES)
def test_terminal_event_when_more_follows(face: str) -> None:
    """What comes after the terminal event is ignored, and changes nothing."""
    for end, status in ((completed, "completed"), (incomplete, "incomplete")):
        more = [*deltas("late"), error(), failed(), {"type": "response.output_text.delta", "delta": 3}]
        outcome = drive(face, map(block, [*answer("a", "b", end=end), *more]))
        assert outcome.raised is None
        assert outcome.run.status == status
        assert outcome.run.text == "ab"
        assert len(outcome.heard) == len(AB)
    together = drive(face, [body([*AB, *more])])
    assert len(together.heard) == len(AB)


def test_terminal_event_when_the_source_goes_on() -> None:
    """The source is not asked again after the terminal event, and is closed."""
    source = Watched([*map(block, AB), *map(block, AB)])
    Dispatcher().run(source)
    assert source.pulled == len(AB)
    assert source.closed == 1
    hanging = AsyncWatched(map(block, AB), hang=True)
    assert asyncio.run(Dispatcher().arun(hanging)).status == "completed"
    assert hanging.closed == 1


# --- errors in the stream --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "code", "kind", "param", "words", "retryable"),
    [
        (error(), "rate_limit_exceeded", None, None, "slow down", True),
        (error("invalid_prompt", "no"), "invalid_prompt", None, None, "no", False),
        (NESTED, "overloaded", "server_error", "model", "busy", True),
        (BARE, "404", "invalid_request_error", None, "no such model", False),
        ({"error": "plain words"}, None, None, None, "plain words", False),
        ({"type": "error", "status": 503, "error": {"message": "later"}}, None, None, None, "later", True),
        ({"type": "error"}, None, None, None, "no reason given", False),
        (failed(), "server_error", None, None, "it broke", True),
        (failed(None), None, None, None, "no reason given", False),
    ],
)
def test_api_error_when_in_any_shape(
    event: JSON, code: str | None, kind: str | None, param: str | None, words: str, retryable: bool
) -> None:
    """Whatever the shape, the error has code, type and parameter, the API's words, and whether to try again."""
    with pytest.raises(APIStreamError) as caught:
        Dispatcher().run([*AB[:4], event])
    found = caught.value
    assert (found.code, found.type, found.param, found.retryable) == (code, kind, param, retryable)
    assert words in str(found)
    assert found.message == (words if words != "no reason given" else "")
    assert found.phase == "stream"
    assert found.partial is not None
    assert found.partial.output_text == "ab"
    assert found.partial.status == "failed"


def test_api_error_when_the_name_alone_tells() -> None:
    """An ``error`` frame whose data is plain text, or a list, is an error event too."""
    for data in ("upstream died", '["upstream died"]'):
        with pytest.raises(APIStreamError, match="upstream died"):
            Dispatcher().run(body(AB[:3]) + f"event: error\ndata: {data}\n\n".encode())


@pytest.mark.parametrize("wire", ["responses", "chat", "anthropic", "gemini"])
@pytest.mark.parametrize("after", [0, 3])
def test_api_error_when_its_event_is_empty(wire: Any, after: int) -> None:
    """An ``error`` frame without data, or with an empty object, is an error event on every wire, wherever it comes."""
    begun = b"".join(stream("Hello, you there", wire=wire, chunk=None).blocks[:after])
    for data in (b"data:", b"data: ", b"data: \ndata:", b"data: {}"):
        for end in (b"\n", b"\r\n"):
            source = begun + end.join((b"event: error", data, b"", b""))
            for chunks, named, keep in product((source, bytewise(source)), (None, wire), (True, False)):
                run = Dispatcher(snapshot=keep).run(chunks, wire=named, check=False)
                assert isinstance(run.error, APIStreamError)
                assert (run.status, run.error.code) == ("failed", None)
    with pytest.raises(StreamTruncated):  # a ping is none
        Dispatcher().run(begun + b"event: ping\ndata:\n\n", wire=wire)


def test_api_error_when_failed_follows() -> None:
    """The terminal event is heard too; its reason stands where it has one, the error event's where it has none."""
    spoken = drive("run", [*AB[:4], error(), failed("quota", "none left")])
    assert isinstance(spoken.run.error, APIStreamError)
    assert spoken.run.error.code == "quota"
    silent = drive("run", [*AB[:4], error(), failed(None)])
    assert isinstance(silent.run.error, APIStreamError)
    assert silent.run.error.code == "rate_limit_exceeded"
    for outcome in (spoken, silent):
        assert [event.type for event in outcome.heard[-2:]] == ["error", "response.failed"]


def test_api_error_when_more_events_have_arrived() -> None:
    """What has already arrived after an error event is still read."""
    heard: list[str] = []
    flow = Dispatcher()
    flow.on("*", lambda event: heard.append(event.type))
    run = flow.run([body([*AB[:3], error(), *deltas("late"), error("second"), failed()])], check=False)
    assert heard[-4:] == ["error", "response.output_text.delta", "error", "response.failed"]
    assert run.text == "alate"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("face", ["arun", "astream"])
def test_api_error_when_silence_follows(face: str, backend: str) -> None:
    """After an error event an async source that says nothing more is left after 0.2 s, and closed."""
    source = AsyncWatched(map(block, [*AB[:4], error()]), hang=True)

    async def main() -> None:
        flow = Dispatcher()
        with pytest.raises(APIStreamError):
            await (flow.arun(source) if face == "arun" else _alist(flow, source))

    begun = time.monotonic()
    anyio.run(main, backend=backend)
    assert 0.15 < time.monotonic() - begun < 2
    assert source.closed == 1


def test_api_error_when_a_sync_source_chatters_on() -> None:
    """After an error event a sync source that goes on without a terminal event is left after 0.2 s."""

    def chatter() -> Any:
        yield from map(block, [*AB[:4], error()])
        while True:
            time.sleep(0.02)
            yield b": ping\n\n"

    begun = time.monotonic()
    with pytest.raises(APIStreamError):
        Dispatcher().run(chatter())
    assert 0.15 < time.monotonic() - begun < 2


# --- what a run shows ------------------------------------------------------------------------------------------------


def test_run_when_looked_at_by_a_handler() -> None:
    """While it goes on a run shows the response, the text, the count and the frame so far."""
    seen: list[tuple[Any, ...]] = []
    flow = Dispatcher()

    @flow.on(TextDelta)
    def look(event: TextDelta, run: Run) -> None:
        assert run.frame is not None
        assert run.frame.data == block(delta(event.delta)).split(b"data: ")[1].strip().decode()
        assert run.frame.event == "response.output_text.delta"
        seen.append((run.status, run.events, run.text, run.response.output_text, run.response.status, run.error))

    run = flow.run(body(AB))
    assert seen == [
        ("running", 3, "a", "a", "in_progress", None),
        ("running", 4, "ab", "ab", "in_progress", None),
    ]
    assert run.events == len(AB)
    assert run.id.startswith("run_")
    assert run.dispatcher is flow
    assert run.outbox == []
    assert repr(run) == f"<Run {run.id} completed, 7 events>"
    assert run.response is run.response


def test_frame_when_the_source_gives_none() -> None:
    """``run.frame`` is None for a source of events, the frame itself for one of frames, with the id that stands."""
    frames: list[Frame | None] = []
    flow = Dispatcher()
    flow.on("*", lambda event, run: frames.append(run.frame))
    flow.run([TextDelta(delta="x"), ResponseCompleted(response=Dispatcher().run(AB).response)])
    assert frames == [None, None]
    frames.clear()
    given = Frame("response.completed", block(completed()).split(b"data: ")[1].strip().decode(), "7")
    flow.run([given])
    assert frames == [given]
    frames.clear()
    flow.run(b"id: 3\n" + body(AB))
    assert [frame.id for frame in frames if frame is not None] == ["3"] * 7


def test_partial_when_an_error_carries_it_is_the_response() -> None:
    """``error.partial`` is the same object as ``run.response``; errors survive pickling, without their run."""
    run = Dispatcher().run(AB[:4], check=False)
    assert run.error is not None
    assert run.error.partial is run.response
    copy = pickle.loads(pickle.dumps(run.error))
    assert type(copy) is StreamTruncated
    assert (str(copy), copy.partial, copy.run) == (str(run.error), run.response, None)


def test_warnings_when_done_differs() -> None:
    """Where the ``done`` text differs from the deltas it wins, with a warning; a frame's name that lies is noted."""
    run = Dispatcher().run(body([created(), opened(), *deltas("a", "b"), text_done("abc"), completed()]))
    assert run.text == "abc"
    assert [warning.kind for warning in run.warnings] == ["mismatch"]
    lying = Dispatcher().run(block(created()).replace(b"event: response.created", b"event: response.queued") + body(AB))
    assert [warning.kind for warning in lying.warnings] == ["name"]
    assert "the data is believed" in str(lying.warnings[0])


def test_plugins_when_asked_for() -> None:
    """``run[Cls]`` is the plugin of a class, or an error that names those there are."""
    calls: list[str] = []
    run = Dispatcher(Watch(calls)).run(AB)
    assert run[Watch] is run.plugins[0]
    with pytest.raises(UsageError, match="no _Echo runs here; the plugins of this run: Watch"):
        run[_Echo]


def test_feed_when_the_run_has_a_source() -> None:
    """`feed` and `afeed` are for runs that were opened."""
    run = Dispatcher().run(AB)
    with pytest.raises(UsageError, match=r"feed\(\) is for runs made with open"):
        run.feed(b"")
    with pytest.raises(UsageError, match=r"afeed\(\) is for runs made with aopen"):
        asyncio.run(run.afeed(b""))


# --- sequence numbers ------------------------------------------------------------------------------------------------


def kinds(run: Run) -> list[str]:
    """What was odd, in order."""
    return [warning.kind for warning in run.warnings]


NUMBERED = numbered(AB)
ORDERS: dict[str, tuple[list[JSON], list[str], str, int, int | None]] = {
    "in order": (NUMBERED, [], "ab", 7, None),
    "gap": ([*NUMBERED[:1], *NUMBERED[2:]], ["gap", "orphan"], "ab", 6, 1),
    "duplicate": ([*NUMBERED[:3], NUMBERED[2], *NUMBERED[3:]], ["duplicate"], "ab", 7, 3),
    "swapped": (
        [*NUMBERED[:2], NUMBERED[3], NUMBERED[2], *NUMBERED[4:]],
        ["gap", "order", "mismatch"],
        "ab",
        7,
        2,
    ),
    "constant": ([{**event, "sequence_number": 0} for event in AB], ["numbering"], "ab", 7, 1),
    "from one": (numbered(AB, 1), [], "ab", 7, None),
    "in the middle": (NUMBERED[3:], ["orphan"], "ab", 4, None),
    "none": (AB, [], "ab", 7, None),
    "some": ([event if place % 2 else AB[place] for place, event in enumerate(NUMBERED)], None, "ab", 7, 2),
}


@pytest.mark.parametrize("case", ORDERS)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_sequence_when_numbers_are(case: str, as_bytes: bool) -> None:
    """Gaps and late events are noted, repetitions dropped, and a server that does not count loses nothing."""
    events, warnings, text, count, _ = ORDERS[case]
    run = Dispatcher().run(body(events) if as_bytes else events)
    assert run.status == "completed"
    assert run.text == text
    assert run.events == count
    if warnings is not None:
        assert kinds(run) == warnings


@pytest.mark.parametrize("case", ORDERS)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_sequence_when_strict(case: str, as_bytes: bool) -> None:
    """With ``strict`` whatever is out of order ends the run, with the number expected; what came before is kept."""
    events, _, text, _, expected = ORDERS[case]
    run = Dispatcher(strict=True).run(body(events) if as_bytes else events, check=False)
    if expected is None:
        assert (run.status, run.error, run.text) == ("completed", None, text)
        return
    assert run.status == "failed"
    assert isinstance(run.error, SequenceError)
    assert run.error.expected == expected
    assert run.error.got != expected
    assert run.error.partial is run.response


def test_sequence_when_late_in_a_delta() -> None:
    """A repeated delta is told from two equal ones by its number; the second of two equal ones is kept."""
    events = numbered([created(), opened(), *deltas("na", "na"), completed(message("nana"))])
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    flow.run(body([*events[:4], events[2], events[3], events[4]]))
    assert heard == ["na", "na"]


@given(st.permutations(range(1, 6)), st.booleans())
def test_sequence_when_in_any_order(order: list[int], as_bytes: bool) -> None:
    """In whatever order numbered events come, each is heard once, and any disorder is noted."""
    events = numbered([created(), *deltas("a", "b", "c", "d", "e"), completed()])
    shuffled = [events[0], *(events[place] for place in order), events[-1]]
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    run = flow.run(body(shuffled) if as_bytes else shuffled)
    assert heard == ["abcde"[place - 1] for place in order]
    assert bool(set(kinds(run)) & {"gap", "order"}) == (list(order) != [1, 2, 3, 4, 5])


@given(st.lists(st.integers(1, 40), max_size=30), st.lists(st.integers(1, 40), unique=True, max_size=30))
def test_sequence_when_numbers_come_late(skips: list[int], late: list[int]) -> None:
    """A number that was skipped is late when it comes, and no repetition of what is not at hand any more."""
    notes: list[str] = []
    sequence = Sequence(lambda kind, _: notes.append(kind), strict=False)
    came, number = {0}, 0
    for skip in [0, *skips]:
        number += skip
        assert sequence.admit(SimpleNamespace(type="t"), number, ())
        came.add(number)
    sequence.restart()
    for place in [place for place in late if place < number]:
        notes.clear()
        new = place not in came
        assert sequence.admit(SimpleNamespace(type="t"), place, ()) is new
        assert notes == ["order"] * new
        came.add(place)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_sequence_when_numbers_are_nonsense(numbers: list[int]) -> None:
    """Whatever numbers a server sends, no event that differs from all others is lost."""
    events = [{**delta(f"{place} "), "sequence_number": number} for place, number in enumerate(numbers)]
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    run = flow.run(body([created(), *events, completed()]))
    assert heard == [f"{place} " for place in range(len(numbers))]
    assert run.text == "".join(heard)


# --- limits ----------------------------------------------------------------------------------------------------------

DEEP = {"type": "vendor.deep", "x": [[[[[[]]]]]]}
LIMITED: dict[str, tuple[Limits, list[JSON], int | None]] = {
    "event_bytes": (Limits(event_bytes=400), [created(), *deltas("x" * 50, "y" * 500), completed()], 2),
    "json_depth": (Limits(json_depth=6), [created(), *deltas("x"), DEEP, completed()], 2),
    "text": (Limits(text=10), [created(), *deltas("12345", "67890", "1", "2"), completed()], 4),
    "arguments": (
        Limits(arguments=10),
        [
            created(),
            opened(call("", status="in_progress"), index=1),
            *(call_delta("12345") for _ in range(3)),
            completed(),
        ],
        5,
    ),
    "calls": (
        Limits(calls=2),
        [created(), *(opened(call("", number=number), index=number) for number in range(1, 5)), completed()],
        4,
    ),
}


@pytest.mark.parametrize("limit", LIMITED)
@pytest.mark.parametrize("face", FACES)
def test_limit_when_reached(face: str, limit: str) -> None:
    """Reaching a limit ends the run with its name and size; what was heard is what was received, and nothing more."""
    limits, events, place = LIMITED[limit]
    outcome = drive(face, map(block, events), Dispatcher(limits=limits))
    found = outcome.raised
    assert type(found) is LimitExceeded
    assert found is outcome.run.error
    assert (found.limit, found.maximum) == (limit, getattr(limits, limit))
    assert found.seen > found.maximum
    assert found.partial is outcome.run.response
    assert outcome.run.status == "failed"
    assert len(outcome.heard) == place == outcome.run.events
    received = Snapshot()
    received.add(outcome.heard)
    received.close()
    assert received.response == outcome.run.response
    assert f"Limits({limit}=...)" in str(found)


@pytest.mark.parametrize("limit", LIMITED)
def test_limit_when_off_or_just_enough(limit: str) -> None:
    """None switches a limit off, and the default lets ordinary streams through."""
    _, events, _ = LIMITED[limit]
    for limits in (Limits(**{limit: None}), Limits(**{limit: 10_000})):
        assert Dispatcher(limits=limits).run(body(events)).status == "completed"


@given(data=st.data(), limit=st.sampled_from(sorted(LIMITED)), canonical=st.booleans())
def test_limit_when_chunks_are_any(data: st.DataObject, limit: str, canonical: bool) -> None:
    """A limit is reached at the same event however the body is cut."""
    limits, events, place = LIMITED[limit]
    whole = body(events)
    if not canonical:
        whole = whole.replace(b"\n", b"\r\n")
    heard: list[Event] = []
    flow = Dispatcher(limits=limits)
    flow.on("*", heard.append)
    run = flow.run(data.draw(chunkings(whole)), check=False)
    assert isinstance(run.error, LimitExceeded)
    assert run.error.limit == limit
    assert len(heard) == place


@pytest.mark.parametrize("form", ["frames", "mappings", "events"])
@pytest.mark.parametrize("limit", LIMITED)
def test_limit_when_the_source_gives_no_bytes(limit: str, form: str) -> None:
    """Limits hold for sources of frames, mappings and events too, as far as these have what is limited."""
    limits, events, place = LIMITED[limit]
    heard: list[Event] = []
    flow = Dispatcher(limits=limits)
    flow.on("*", heard.append)
    if form == "frames":
        source: list[Any] = [Frame(event["type"], encode_json(event).decode()) for event in events]
    elif form == "mappings":
        source = events
    else:
        source = list(Dispatcher().stream(events))
        if limit in ("event_bytes", "json_depth"):
            return
    run = flow.run(source, check=False)
    assert isinstance(run.error, LimitExceeded)
    assert run.error.limit == limit
    assert len(heard) == place


def test_emit_when_the_run_is_about_to_end_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last look for what was emitted and the end there is no moment in which an event is lost."""
    drain = Chain.drain

    def late(chain: Chain) -> Steps:
        yield from drain(chain)
        while events:
            chain.emit(events.pop())

    class Late(Plugin):
        def finish(self, run: Run) -> None:
            events.append(Tick(1))

    monkeypatch.setattr(Chain, "drain", late)
    events: list[Event] = []
    flow = Dispatcher(Late())
    heard: list[int] = []
    flow.on(Tick, lambda event: heard.append(event.n))
    run = flow.run(AB)
    assert heard == [1]
    with pytest.raises(UsageError, match="is over"):
        run.emit(Tick(2))


@pytest.mark.parametrize("face", FACES)
def test_limit_on_emitted_events_when_handlers_answer_each_other(face: str) -> None:
    """A loop of handlers that answer each other ends, with an error that says so."""
    flow = Dispatcher(limits=Limits(emitted=20))
    heard: list[Event] = []
    flow.on(TextDelta, lambda event: iter([]) if event.delta == "b" else (Tick(n) for n in range(2)))

    @flow.on(Tick)
    def again(event: Tick, run: Run) -> None:
        heard.append(event)
        run.emit(Tick(event.n + 1))

    outcome = drive(face, map(block, AB), flow)
    assert isinstance(outcome.raised, LimitExceeded)
    assert outcome.raised.limit == "emitted"
    assert len(heard) == 20
    assert outcome.run.status == "failed"


def test_limit_on_emitted_events_when_a_generator_has_no_end() -> None:
    """A generator that never ends is stopped before its events fill the memory."""
    flow = Dispatcher(limits=Limits(emitted=50))

    @flow.on(TextDelta)
    def endless(event: Event) -> Any:
        while True:
            yield Tick()

    with pytest.raises(LimitExceeded, match="emitted is limited to 50"):
        flow.run(AB)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "8"])
def test_limits_when_they_make_no_sense(value: Any) -> None:
    """A limit is a positive integer or None."""
    for name in ("event_bytes", "json_depth", "text", "arguments", "calls", "emitted"):
        with pytest.raises(UsageError, match=rf"Limits\({name}=...\) .*a positive integer"):
            Limits(**{name: value})


# --- leaving ---------------------------------------------------------------------------------------------------------


def test_break_when_bare_closes_at_once() -> None:
    """Leaving a for loop closes the source before the next statement, though the stream object is still held."""
    calls: list[str] = []
    source = Watched(map(block, AB))
    events = Dispatcher(Watch(calls)).stream(source)
    for _ in events:
        break
    assert source.closed == 1
    assert events.run.status == "cancelled"
    assert events.run.error is None
    assert calls == ["start", "stop"]
    assert source.pulled == 1


def test_break_when_in_a_with_block() -> None:
    """A ``with`` block closes the source at its end, also where it is left by an exception."""
    for leave in ("break", "raise"):
        source = Watched(map(block, AB))
        with pytest.raises(KeyError), Dispatcher().stream(source) as events:  # noqa: PT012  # how it is left
            for _ in events:
                if leave == "break":
                    break
                raise KeyError
            assert source.closed == 1
            raise KeyError
        assert source.closed == 1
        assert events.run.status == "cancelled"


def test_stream_when_never_iterated() -> None:
    """A stream that is closed before it was iterated is a cancelled run; its source is closed, no hook was called."""
    calls: list[str] = []
    source = Watched(map(block, AB))
    with Dispatcher(Watch(calls)).stream(source) as events:
        pass
    assert (source.closed, source.pulled, calls) == (1, 0, [])
    assert events.run.status == "cancelled"


def test_stream_when_iterated_twice() -> None:
    """A second iteration, while the first goes on or after it, is a clear error."""
    events = Dispatcher().stream(AB)
    first = iter(events)
    next(first)
    with pytest.raises(UsageError, match="being iterated already"):
        iter(events)
    assert len(list(first)) == len(AB) - 1
    with pytest.raises(UsageError, match="has ended: a source can be read once"):
        list(events)
    events.close()
    assert events.run.status == "completed"


def test_stream_when_closed_by_hand() -> None:
    """`close` leaves the run, once; a closed stream cannot be iterated."""
    source = Watched(map(block, AB))
    events = Dispatcher().stream(source)
    cursor = iter(events)
    next(cursor)
    events.close()
    events.close()
    assert source.closed == 1
    assert events.run.status == "cancelled"
    with pytest.raises(UsageError):
        iter(events)


def test_stream_when_closed_by_a_handler_is_cancelled() -> None:
    """A handler cannot close what calls it: the run is cancelled, and the source closed behind the handler."""
    calls: list[str] = []
    source = Watched(map(block, AB))
    flow = Dispatcher(Watch(calls))
    flow.on(TextDelta, lambda event: events.close())
    with flow.stream(source) as events:
        assert [event.type for event in events][:1] == ["response.created"]
    assert (source.closed, source.pulled, events.run.status) == (1, 3, "cancelled")
    assert calls == ["start", "stop"]


def test_stream_when_closed_by_another_thread_is_cancelled() -> None:
    """While one thread waits for the source, another one may close the stream."""
    waiting, going_on = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        for event in AB:
            if event["type"] == "response.output_text.delta":
                waiting.set()
                assert going_on.wait(5)
            yield block(event)

    events = Dispatcher().stream(slow())
    reader = threading.Thread(target=lambda: list(events))
    reader.start()
    assert waiting.wait(5)
    events.close()
    assert events.run.cancelled
    going_on.set()
    reader.join()
    assert events.run.status == "cancelled"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "leave",
    [
        "break",
        "raise",
        "close",
    ],
)
def test_astream_when_left(leave: str, backend: str) -> None:
    """``async with`` closes the source before control returns: after a break, an exception, by hand."""
    calls: list[str] = []
    source = AsyncWatched(map(block, AB), hang=True)

    async def main() -> None:
        with contextlib.suppress(KeyError):
            async with Dispatcher(Watch(calls)).astream(source) as events:
                async for _ in events:
                    if leave == "break":
                        break
                    if leave == "raise":
                        raise KeyError
                    if leave == "close":
                        await events.aclose()
                        await events.aclose()
                        break
        assert source.closed == 1
        assert events.run.status == "cancelled"
        assert calls == ["start", "stop"]

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_astream_when_never_iterated(backend: str) -> None:
    """An async stream that is closed before it was iterated is a cancelled run, its source closed."""
    calls: list[str] = []
    source = AsyncWatched(map(block, AB), hang=True)

    async def main() -> None:
        async with Dispatcher(Watch(calls)).astream(source) as events:
            pass
        assert (source.closed, source.pulled, calls) == (1, 0, [])
        await events.aclose()
        assert source.closed == 1
        assert events.run.status == "cancelled"

    anyio.run(main, backend=backend)


def test_astream_when_iterated_twice() -> None:
    """A second iteration is a clear error, async as well."""

    async def main() -> None:
        events = Dispatcher().astream(AB)
        assert len([event async for event in events]) == len(AB)
        with pytest.raises(UsageError, match="has ended"):
            aiter(events)

    asyncio.run(main())


def test_break_when_bare_under_asyncio() -> None:
    """Under asyncio a bare break closes the source at the next await, without a warning."""

    async def main() -> AsyncWatched:
        source = AsyncWatched(map(block, AB), hang=True)
        events = Dispatcher().astream(source)
        async for _ in events:
            break
        for _ in range(3):
            await asyncio.sleep(0)
        assert source.closed == 1
        assert events.run.status == "cancelled"
        return source

    asyncio.run(main())


@pytest.mark.parametrize("face", ["run", "stream", "arun", "astream"])
def test_source_when_a_handler_raises(face: str) -> None:
    """The source is closed before the exception arrives."""
    for fault in (ValueError("mine"), KeyboardInterrupt(), SystemExit(3)):
        calls: list[str] = []
        flow = Dispatcher(Watch(calls))
        source = Watched(AB) if face in SYNC else AsyncWatched(AB)

        @flow.on(TextDelta)
        def breaks(event: Event, fault: BaseException = fault) -> None:
            raise fault

        with pytest.raises(type(fault)):
            run_through(face, flow, source)
        assert source.closed == 1
        assert calls == ["start", "stop"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fault", ["a plugin that does not open", "an unknown wire"])
def test_arun_when_it_cannot_begin_closes_the_source(backend: str, fault: str) -> None:
    """A source whose run never began is let go of before the error is raised."""

    class Shut(Plugin):
        def open(self) -> None:
            raise ValueError("mine")

    source = AsyncWatched(AB)
    flow, wire = (Dispatcher(Shut()), None) if fault.startswith("a plugin") else (Dispatcher(), "morse")
    with pytest.raises((ValueError, UsageError), match=r"mine|no wire is called"):
        anyio.run(lambda: flow.arun(source, wire=wire), backend=backend)
    assert (source.pulled, source.closed) == (0, 1)


def test_astream_when_it_cannot_begin_leaves_the_source_alone() -> None:
    """It cannot wait for anything, so a source that a plugin kept from beginning is not opened."""
    opened: list[AsyncWatched] = []

    class Source(AsyncWatched):
        def __aiter__(self) -> Any:
            opened.append(self)
            return super().__aiter__()

    class Shut(Plugin):
        def open(self) -> None:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        Dispatcher(Shut()).astream(Source(AB))
    assert opened == []


class Leaving(Plugin):
    """Raises what Python throws into a generator that nobody wants any more."""

    where: str

    @on(TextDelta)
    def hear(self, event: TextDelta) -> None:
        if self.where == "handler":
            raise GeneratorExit

    def finish(self, run: Run) -> None:
        if self.where == "finish":
            raise GeneratorExit

    def stop(self, run: Run) -> None:
        if self.where == "stop":
            raise GeneratorExit


class Waits(Plugin):
    """Has a hook that must be awaited."""

    async def stop(self, run: Run) -> None:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("face", ["run", "arun"])
@pytest.mark.parametrize("where", ["handler", "finish", "stop"])
def test_stop_when_a_handler_raises_generator_exit_is_called(
    face: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes through like Ctrl-C, and every plugin is stopped; what would have to be awaited is told of."""
    calls: list[str] = []
    flow = Dispatcher(Watch(calls), *[Waits()] * (face == "arun"), Leaving(where))
    with pytest.raises(GeneratorExit):
        _ = flow.run(AB) if face == "run" else asyncio.run(flow.arun(AB))
    assert calls[-1] == "stop"
    assert ("Waits.stop was not awaited" in caplog.text) == (face == "arun")


def test_stop_when_an_async_run_is_dropped_is_called() -> None:
    """A run that is pushed and forgotten has its plugins stopped, as far as nothing must be awaited."""
    calls: list[str] = []

    async def main() -> None:
        push = Dispatcher(Watch(calls), Waits()).aopen()
        await (await push.__aenter__()).afeed(block(AB[0]))
        del push
        gc.collect()
        assert calls[-1] == "stop"

    asyncio.run(main())


@pytest.mark.parametrize("face", ["run", "arun"])
def test_source_when_its_close_is_interrupted_concludes_the_run(face: str) -> None:
    """Ctrl-C while the source of a run is let go of goes through, and the run is over for those who watch."""

    class Stuck(Watched):
        def close(self) -> None:
            raise KeyboardInterrupt

    class AsyncStuck(AsyncWatched):
        async def aclose(self) -> None:
            raise KeyboardInterrupt

    flow, finished = Dispatcher(), list[str]()
    flow.on(TextDelta, lambda event: 1 / 0)

    def watch(sender: Dispatcher, *, run: Run) -> None:
        finished.append(run.status)

    with signals.run_finished.connected_to(watch, flow), pytest.raises(KeyboardInterrupt):
        _ = flow.run(Stuck(AB)) if face == "run" else asyncio.run(flow.arun(AsyncStuck(AB)))
    assert finished == ["failed"]


def test_source_when_its_close_fails() -> None:
    """A source that cannot be closed does not hide how the run ended."""

    class Stuck(Watched):
        def close(self) -> None:
            super().close()
            raise OSError("stuck")

    class AsyncStuck(AsyncWatched):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("stuck")

    assert Dispatcher().run(Stuck(AB)).status == "completed"
    assert asyncio.run(Dispatcher().arun(AsyncStuck(AB))).status == "completed"
    with pytest.raises(StreamTruncated):
        Dispatcher().run(Stuck(AB[:3]))


# --- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("face", FACES)
def test_cancel_when_from_a_handler(face: str, as_bytes: bool) -> None:
    """The run ends after the event under way: status cancelled, nothing raised, no more events, stop called."""
    calls: list[str] = []
    flow = Dispatcher(Watch(calls))

    @flow.on(TextDelta)
    def stop(event: Event, run: Run) -> None:
        run.cancel()
        run.cancel()
        run.emit(Tick())

    outcome = drive(face, [body(AB)] if as_bytes else AB, flow)
    assert outcome.raised is None
    assert outcome.run.status == "cancelled"
    assert outcome.run.error is None
    assert [event.type for event in outcome.heard][-1] == "response.output_text.delta"
    assert len(outcome.heard) == 3
    assert outcome.run.text == "a"
    assert calls == ["start", "stop"]


def test_cancel_when_before_and_after_the_run() -> None:
    """A run that has ended stays as it ended."""
    run = Dispatcher().run(AB)
    run.cancel()
    assert run.status == "completed"
    flow = Dispatcher()

    class Never(Plugin):
        def start(self, run: Run) -> None:
            run.cancel()

    flow.use(Never())
    source = Watched(AB)
    assert flow.run(source).status == "cancelled"
    assert source.closed == 1


def test_cancel_when_at_the_terminal_event() -> None:
    """A terminal event that has come stays the run's end."""
    flow = Dispatcher()
    flow.on(ResponseCompleted, lambda event, run: run.cancel())
    assert flow.run(AB).status == "completed"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("face", ["arun", "astream"])
def test_cancel_when_from_another_thread_while_waiting(face: str, backend: str) -> None:
    """`cancel` from another thread ends the wait for an async source at once, and closes it."""

    async def main() -> None:
        source = AsyncWatched(map(block, AB[:4]), hang=True)
        flow = Dispatcher()
        timers: list[threading.Timer] = []

        @flow.on(TextDelta)
        def soon(event: TextDelta, run: Run) -> None:
            if event.delta == "b":  # the last that comes
                timers.append(threading.Timer(0.05, run.cancel))
                timers[0].start()

        if face == "arun":
            run = await flow.arun(source)
        else:
            async with flow.astream(source) as events:
                heard = [event async for event in events]
            assert len(heard) == 4
            run = events.run
        assert run.status == "cancelled"
        assert run.text == "ab"
        assert source.closed == 1
        await anyio.to_thread.run_sync(timers[0].join)

    begun = time.monotonic()
    anyio.run(main, backend=backend)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_cancel_when_from_another_task_while_waiting(backend: str) -> None:
    """`cancel` from another task of the same loop does the same, and cancels nothing else."""

    async def main() -> None:
        source = AsyncWatched(map(block, AB[:4]), hang=True)
        flow = Dispatcher()
        runs: list[Run] = []
        flow.on("response.created", lambda event, run: runs.append(run))

        async def other() -> None:
            while not runs or runs[0].events < 4:  # noqa: ASYNC110  # the run waits, it sets nothing
                await anyio.sleep(0.001)
            runs[0].cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(other)
            run = await flow.arun(source)
            await anyio.sleep(0.001)  # the task itself is not cancelled
        assert run.status == "cancelled"
        assert source.closed == 1

    anyio.run(main, backend=backend)


def test_cancel_when_from_another_thread_in_a_sync_run() -> None:
    """A sync run ends at the next item of its source, for whose read nobody can be woken."""
    flow = Dispatcher()
    begun = threading.Event()
    runs: list[Run] = []

    @flow.on("response.created")
    def started(event: Event, run: Run) -> None:
        runs.append(run)
        begun.set()

    def endless() -> Any:
        yield block(created())
        while True:
            time.sleep(0.005)
            yield block(delta("x"))

    def cancel() -> None:
        begun.wait()
        runs[0].cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    run = flow.run(endless())
    thread.join()
    assert run.status == "cancelled"


@pytest.mark.parametrize(
    ("face", "backend"),
    [
        ("arun", "asyncio"),
        ("astream", "asyncio"),
        ("aopen", "asyncio"),
        ("arun", "trio"),
        ("astream", "trio"),
        ("aopen", "trio"),
    ],
)
def test_task_when_cancelled(face: str, backend: str) -> None:
    """A cancelled task cancels its run: source closed, stop called and awaited, the cancellation goes on."""
    ended: list[str] = []

    class Slow(Plugin):
        async def stop(self, run: Run) -> None:
            await anyio.sleep(0.01)
            ended.append(run.status)

    async def main() -> None:
        flow = Dispatcher(Slow())
        source = AsyncWatched(map(block, AB[:4]), hang=True)
        runs: list[Run] = []
        flow.on("response.created", lambda event, run: runs.append(run))

        async def work() -> None:
            if face == "arun":
                await flow.arun(source)
            elif face == "astream":
                await _alist(flow, source)
            else:
                async with flow.aopen() as run:
                    await run.afeed(body(AB[:4]))
                    await anyio.sleep_forever()
            ended.append("went on")

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not runs or runs[0].events < 4:  # noqa: ASYNC110  # the run waits, it sets nothing
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        assert runs[0].status == "cancelled"
        assert ended == ["cancelled"]
        if face != "aopen":
            assert source.closed == 1

    anyio.run(main, backend=backend)


def test_task_when_cancelled_by_asyncio_itself() -> None:
    """`asyncio.timeout` and `Task.cancel` go through a run as through any other await; async hooks end in peace."""
    ended: list[str] = []

    class Slow(Plugin):
        async def stop(self, run: Run) -> None:
            await asyncio.sleep(0.01)
            ended.append(run.status)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await Dispatcher(Slow()).arun(AsyncWatched(map(block, AB[:4]), hang=True))
        assert ended == ["cancelled"]
        source = AsyncWatched(map(block, AB[:4]), hang=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Dispatcher().arun(source)
        assert source.closed == 1
        other = AsyncWatched(map(block, AB[:4]), hang=True)
        task = asyncio.create_task(Dispatcher().arun(other))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert other.closed == 1

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_task_when_cancelled_in_a_handler(backend: str) -> None:
    """A cancellation that arrives while a handler waits ends the run too."""

    async def main() -> None:
        source = AsyncWatched(AB)
        flow = Dispatcher()
        runs: list[Run] = []

        @flow.on(TextDelta)
        async def wait(event: Event, run: Run) -> None:
            runs.append(run)
            await anyio.sleep_forever()

        with anyio.move_on_after(0.05) as scope:
            await flow.arun(source)
        assert scope.cancelled_caught
        assert source.closed == 1
        assert runs[0].status == "cancelled"

    anyio.run(main, backend=backend)


def test_sync_source_when_in_an_async_run() -> None:
    """A sync source serves an async run, which lets other tasks have their turn and can be cancelled."""

    async def main() -> None:
        assert (await Dispatcher().arun(Watched(map(block, AB)))).text == "ab"
        with pytest.raises(StreamInterrupted):
            await Dispatcher().arun(Watched(map(block, AB[:3]), OSError("cut")))
        endless = iter(lambda: block(delta("x")), None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Dispatcher().arun(endless)

    asyncio.run(main())


def test_sync_source_when_in_an_async_run_is_closed() -> None:
    """A sync source of an async run is closed too, however the run ends."""

    async def main() -> None:
        for events in (AB, AB[:3]):
            source = Watched(map(block, events))
            await Dispatcher().arun(source, check=False)
            assert source.closed == 1

    asyncio.run(main())


# --- push ------------------------------------------------------------------------------------------------------------


def test_push_when_fed_in_pieces() -> None:
    """Handlers run within `feed`; the status changes with the terminal event; what is fed later is ignored."""
    heard: list[str] = []
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: heard.append(event.delta))
    with flow.open() as run:
        for chunk in bytewise(body(AB)):
            run.feed(chunk)
        assert heard == ["a", "b"]
        assert run.status == "completed"
        run.feed(b"whatever")
        run.feed(delta("late"))
    assert heard == ["a", "b"]
    assert run.text == "ab"


@pytest.mark.parametrize("face", ["open", "aopen"])
def test_push_when_given_any_kind(face: str) -> None:
    """Bytes, frames, mappings and events may be fed, mixed; anything else is a named error."""
    first = Frame("response.created", encode_json(created()).decode())
    mixed = [block(opened()), first, delta("a"), TextDelta(delta="b"), bytearray(block(text_done("ab"))), completed()]
    outcome = drive(face, mixed)
    assert outcome.raised is None
    assert len(outcome.heard) == 6
    wrong = drive(face, [created(), 3])
    assert isinstance(wrong.raised, UsageError)
    assert "not int" in str(wrong.raised)


def test_push_when_left() -> None:
    """Leaving the block is the end of the body; leaving it with an exception cancels the run."""
    flow = Dispatcher()
    with pytest.raises(StreamTruncated), flow.open() as run:
        run.feed(body(AB[:3]))
    assert run.status == "truncated"
    with flow.open(check=False) as unchecked:
        unchecked.feed(body(AB[:3]))
    assert isinstance(unchecked.error, StreamTruncated)
    with pytest.raises(KeyError), flow.open() as left:  # noqa: PT012  # how it is left
        left.feed(body(AB[:3]))
        raise KeyError
    assert left.status == "cancelled"
    assert left.text == "a"


@pytest.mark.parametrize("how", ["completed", "truncated", "failed", "cancelled", "exception"])
def test_push_when_fed_behind_its_block_is_refused(how: str) -> None:
    """However the block was left, what is fed later would be lost, so it is an error; within the block it is not."""
    pieces = [body(AB[:3]), body({"completed": AB[3:], "failed": [error(), failed()]}.get(how, [])), body([delta("")])]
    late = pytest.raises(UsageError, match=r"run run_\w+ is over: its block was left")

    def leave(run: Run) -> None:
        if how == "cancelled":
            run.cancel()
        if how == "exception":
            raise KeyError

    def main() -> Run:
        with contextlib.suppress(KeyError), Dispatcher().open(check=False) as run:
            for piece in pieces:
                run.feed(piece)
            leave(run)
            run.feed(pieces[2])
        with late:
            run.feed(pieces[2])
        return run

    async def amain() -> Run:
        with contextlib.suppress(KeyError):
            async with Dispatcher().aopen(check=False) as run:
                for piece in pieces:
                    await run.afeed(piece)
                leave(run)
                await run.afeed(pieces[2])
        with late:
            await run.afeed(pieces[2])
        return run

    statuses = {main().status, asyncio.run(amain()).status}
    assert statuses == {"cancelled" if how == "exception" else how}


def test_push_when_the_error_comes_with_a_feed() -> None:
    """The feed that ends the stream badly raises, once; leaving the block is quiet then."""
    flow = Dispatcher()
    with flow.open() as run:
        run.feed(body(AB[:3]))
        with pytest.raises(APIStreamError):
            run.feed(body([error(), failed()]))
    assert run.status == "failed"


def test_push_when_async_handlers_wait() -> None:
    """`afeed` returns when its handlers have run."""
    heard: list[str] = []
    flow = Dispatcher()

    @flow.on(TextDelta)
    async def slow(event: TextDelta) -> None:
        await asyncio.sleep(0.001)
        heard.append(event.delta)

    async def main() -> None:
        async with flow.aopen() as run:
            await run.afeed(body(AB[:4]))
            assert heard == ["a", "b"]
            await run.afeed(body(AB[4:]))
        assert run.status == "completed"
        with pytest.raises(ValueError, match="mine"):
            async with flow.aopen() as run:
                raise ValueError("mine")
        assert run.status == "cancelled"

    asyncio.run(main())


# --- context ---------------------------------------------------------------------------------------------------------

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST", default="none")


@pytest.mark.parametrize("face", FACES)
def test_context_variables_when_read_by_handlers(face: str) -> None:
    """Handlers see the context variables of the code that drives the run."""
    seen: list[str] = []
    flow = Dispatcher()
    flow.on("response.created", lambda event: seen.append(REQUEST.get()))

    if face in ASYNC:

        @flow.on(TextDelta)
        async def read(event: Event) -> None:
            await asyncio.sleep(0)
            seen.append(REQUEST.get())

    context = contextvars.copy_context()
    context.run(REQUEST.set, "mine")
    outcome = context.run(drive, face, AB, flow)
    assert outcome.raised is None
    assert seen == ["mine"] * (3 if face in ASYNC else 1)
    assert REQUEST.get() == "none"


def test_context_variables_when_set_by_a_handler() -> None:
    """What a handler sets is seen by the next handlers of the run."""
    seen: list[str] = []
    flow = Dispatcher()
    flow.on("response.created", lambda event: REQUEST.set("set"))
    flow.on(TextDelta, lambda event: seen.append(REQUEST.get()))
    contextvars.copy_context().run(flow.run, AB)
    assert seen == ["set", "set"]


# --- tool calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["incomplete", "in_progress"])
def test_tool_call_when_the_item_is_not_complete(status: str) -> None:
    """A call that was cut off is no complete call: nobody shall run it."""
    outcome = drive("run", [created(), closed(call('{"a"', status=status), index=1), incomplete()])
    assert not any(isinstance(event, ToolCall) for event in outcome.heard)


def test_tool_call_when_the_item_closes_without_its_arguments() -> None:
    """Where a server closes an item without them, the arguments of the deltas stand in."""
    events = [
        created(),
        opened(call("", status="in_progress"), index=1),
        call_delta('{"city": '),
        call_delta('"Bern"}'),
        closed(call(""), index=1),
        completed(),
    ]
    outcome = drive("run", map(block, events))
    (found,) = [event for event in outcome.heard if isinstance(event, ToolCall)]
    assert found.arguments == '{"city": "Bern"}'


@pytest.mark.parametrize("keeps", [True, False])
def test_tool_call_when_free_text_is_left_out_is_none_unless_it_was_kept(keeps: bool) -> None:
    """A relay has not kept what the deltas brought: it makes no call of a text that it does not know."""
    item = {
        "type": "custom_tool_call",
        "id": "ct_1",
        "call_id": "call_1",
        "name": "run",
        "input": "",
        "status": "completed",
    }
    piece = {"type": "response.custom_tool_call_input.delta", "item_id": "ct_1", "output_index": 0, "delta": "rm"}
    events = [created(), opened({**item, "status": "in_progress"}, index=0), piece, closed(item, index=0), completed()]
    told: list[ToolCall] = []
    flow = Dispatcher(snapshot=keeps)
    flow.on(ToolCall, told.append)
    flow.run(map(block, events))
    assert [event.arguments for event in told] == (["rm"] if keeps else [])


def test_tool_call_when_a_relay_has_not_kept_its_arguments_tells_none() -> None:
    """A function's arguments are JSON, and no text is none: whoever would run it sees that."""
    events = [created(), opened(call("", status="in_progress"), index=1), call_delta("{}"), closed(call(""), index=1)]
    told: list[ToolCall] = []
    flow = Dispatcher(snapshot=False)
    flow.on(ToolCall, told.append)
    flow.run(map(block, [*events, completed()]))
    assert [event.arguments for event in told] == [""]


def test_tool_call_when_events_are_run_again() -> None:
    """Recorded events that are run again bring each call once."""
    events = [created(), closed(call("{}"), index=1), completed(call("{}"))]
    once = list(Dispatcher().stream(events))
    again = list(Dispatcher().stream(once))
    assert again == once
    assert [event.type for event in once].count("eventflow.tool_call") == 1


def test_tool_call_when_only_the_terminal_event_tells_of_it() -> None:
    """Some servers close no item: what the completed response has is called all the same, and once."""
    first = {**call("{}"), "id": "fc_0", "call_id": "call_0"}
    second = {**call('{"a": 1}'), "id": "fc_1", "call_id": "call_1"}
    cut = {**call('{"a"', status="incomplete"), "id": "fc_2", "call_id": "call_2"}
    events = [created(), closed(first, index=0), completed(first, second, cut, second)]
    outcome = drive("run", map(block, events))
    found = [event for event in outcome.heard if isinstance(event, ToolCall)]
    assert [(event.call_id, event.arguments) for event in found] == [("call_0", "{}"), ("call_1", '{"a": 1}')]
    assert [event.type for event in outcome.heard][-2:] == ["response.completed", "eventflow.tool_call"]
    assert outcome.run.status == "completed"


@pytest.mark.parametrize("end", [incomplete, failed])
def test_tool_call_when_the_response_did_not_complete(end: Any) -> None:
    """What only a failed or incomplete response tells of is not called."""
    ended = end()
    ended["response"]["output"] = [call("{}")]
    outcome = drive("run", map(block, [created(), ended]))
    assert not any(isinstance(event, ToolCall) for event in outcome.heard)


def test_tool_calls_when_the_terminal_event_tells_of_too_many() -> None:
    """They count against the limit."""
    calls = [{**call("{}"), "id": f"fc_{n}", "call_id": f"call_{n}"} for n in range(3)]
    flow = Dispatcher(limits=Limits(calls=2))
    told: list[ToolCall] = []
    flow.on(ToolCall, told.append)
    run = flow.run(map(block, [created(), completed(*calls)]), check=False)
    assert isinstance(run.error, LimitExceeded)
    assert len(told) == 2


def test_error_events_when_given_as_events() -> None:
    """A source of events may bring an error event of its own."""
    with pytest.raises(APIStreamError, match="by hand"):
        Dispatcher().run([StreamError(message="by hand")])


def test_run_when_dropped_leaves_no_garbage_behind() -> None:
    """A stream that is dropped in its middle closes its source without a warning."""
    source = Watched(map(block, AB))
    cursor = iter(Dispatcher().stream(source))
    next(cursor)
    del cursor
    gc.collect()
    assert source.closed == 1


def test_json_depth_when_in_a_source_of_mappings_that_are_no_json() -> None:
    """A mapping that cannot be JSON is a named error."""
    loop: dict[str, Any] = {"type": "x"}
    loop["self"] = loop
    with pytest.raises(DecodeError, match="no JSON object"):
        Dispatcher().run([created(), loop])


class Odd(Event, tag="tests.odd"):
    """An event with anything in it."""

    what: Any


class Raising(Mapping[str, Any]):
    """A mapping that breaks when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("mine")

    def __len__(self) -> int:
        return 1


class Dumped:
    """Looks like an SDK's object."""

    def __init__(self, given: object) -> None:
        self.given = given

    def model_dump(self, **options: Any) -> object:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Odd(ENDLESS), "an event that is no JSON"),
        (Raising(), r"a mapping that is no JSON object \(RuntimeError: mine\)"),
        (Dumped(ValueError("mine")), r"Dumped, whose model_dump\(\) failed \(ValueError: mine\)"),
        (Dumped(Dumped(None)), r"model_dump\(\) gave Dumped, not a mapping"),
    ],
    ids=["event", "mapping", "object", "object of objects"],
)
def test_decode_error_when_an_item_cannot_be_read(item: Any, message: str) -> None:
    """What an item raises while it is read is told as its fault, and what came before is kept."""
    run = Dispatcher().run([*AB[:4], item, *AB[4:]], check=False)
    assert (run.status, run.events, type(run.error)) == ("failed", 4, DecodeError)
    assert run.error is not None
    assert run.error.__cause__ is not None
    with pytest.raises(DecodeError, match=message):
        Dispatcher().run([*AB[:4], item])


def test_plugin_handlers_when_the_stream_fails_still_finish() -> None:
    """`finish` is called where the stream ended badly, not where the run was left."""
    calls: list[str] = []
    Dispatcher(Watch(calls)).run(AB[:3], check=False)
    assert calls == ["start", "finish", "stop"]


class _Echo(Plugin):
    @on(TextDelta)
    def echo(self, event: TextDelta, run: Run) -> None:
        run.outbox.append({"type": "message", "text": event.delta})


def test_outbox_when_plugins_fill_it() -> None:
    """What plugins put into the outbox is the run's own, in order."""
    flow = Dispatcher(_Echo())
    assert flow.run(AB).outbox == [{"type": "message", "text": text} for text in "ab"]
    assert flow.run([completed()]).outbox == []


@pytest.mark.parametrize("face", FACES)
def test_handler_failure_when_it_is_a_stop_iteration(face: str) -> None:
    """A handler whose ``next()`` finds nothing ends the run like any other failure, with a note that names it."""

    def empty(event: Event) -> None:
        next(iter(()))

    flow = Dispatcher()
    flow.on(TextDelta, empty)
    outcome = drive(face, AB, flow)
    assert outcome.run.status == "failed"
    assert outcome.raised is not None
    assert "empty on response.output_text.delta" in "".join(getattr(outcome.raised, "__notes__", ()))


def test_error_when_it_belongs_to_another_run() -> None:
    """A run over the events of another that fails ends with the other's error, which stays the other's."""
    inner = Dispatcher().stream(AB[:3])
    outer = Dispatcher().run(inner, check=False)
    assert outer.status == "truncated"
    assert outer.error is inner.run.error
    assert outer.error is not None
    assert outer.error.run is inner.run


@pytest.mark.parametrize("fault", [ValueError("mine"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("face", ASYNC)
def test_handler_failure_when_it_is_awaited(face: str, fault: BaseException) -> None:
    """What an async handler raises leaves each async face as it is; `stop` is called and awaited."""
    calls: list[str] = []

    class Late(Plugin):
        async def stop(self, run: Run) -> None:
            await asyncio.sleep(0)
            calls.append("stop")

    flow = Dispatcher(Late())

    @flow.on(TextDelta)
    async def breaks(event: Event) -> None:
        await asyncio.sleep(0)
        raise fault

    outcome = drive(face, AB, flow)
    assert outcome.raised is fault
    assert outcome.run.status == ("failed" if isinstance(fault, Exception) else "cancelled")
    assert calls == ["stop"]


def test_push_when_dropped_in_its_middle() -> None:
    """A run that is never left is no error: nobody drives it any more."""
    push = Dispatcher().open()
    run = push.__enter__()
    run.feed(body(AB[:3]))
    assert run.text == "a"
    del push, run
    gc.collect()


@pytest.mark.parametrize("hook", ["run", "arun"])
def test_awaitable_when_it_has_no_close(hook: str) -> None:
    """An awaitable of any class is awaited in an async run, and an error in a sync one."""

    class Later:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()

    flow = Dispatcher()
    flow.on(TextDelta, lambda event: Later())
    outcome = drive(hook, AB, flow)
    assert isinstance(outcome.raised, UsageError if hook == "run" else type(None))


def test_handler_of_failures_when_it_fails_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The failure of a handler of `HandlerFailed` does not end the run, isolated or not."""
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: 1 / 0, errors="isolate")
    flow.on(HandlerFailed, lambda event: 1 / 0)
    assert flow.run(AB).status == "completed"
    assert len(caplog.records) == 4  # two deltas, and an answer to each failure


def test_emission_when_in_stop_is_refused() -> None:
    """When plugins are stopped, nothing hears what is emitted any more; that is said, not lost."""

    class Late(Plugin):
        def stop(self, run: Run) -> None:
            run.emit(TextDelta("late"))

    with pytest.raises(UsageError, match="is over"):
        Dispatcher(Late()).run(AB)


def test_push_when_dropped_stops_its_plugins() -> None:
    """A sync run whose ``with`` block is never left still stops its plugins when it is dropped."""
    stopped: list[str] = []

    class Watch(Plugin):
        def stop(self, run: Run) -> None:
            stopped.append(run.status)

    push = Dispatcher(Watch()).open()
    push.__enter__().feed(AB[0])
    del push
    gc.collect()
    assert stopped == ["cancelled"]


def test_feed_when_it_is_the_other_face_is_refused() -> None:
    """``feed`` in an async run, and ``afeed`` in a sync one, say which to use, before anything is lost."""

    async def main() -> None:
        with Dispatcher().open(check=False) as run, pytest.raises(UsageError, match=r"use run\.feed"):
            await run.afeed(AB[0])
        async with Dispatcher().aopen(check=False) as arun:
            with pytest.raises(UsageError, match=r"await run\.afeed"):
                arun.feed(AB[0])

    asyncio.run(main())


def test_error_of_ours_when_a_handler_raises_it_tells_of_the_run() -> None:
    """A `UsageError` that a handler causes while the run goes on has the run, and what was received."""
    flow = Dispatcher()
    flow.on(TextDelta, lambda event: (text for text in ("no event",)))
    with pytest.raises(UsageError, match="yields events") as caught:
        flow.run(AB)
    assert caught.value.run is not None
    assert caught.value.partial is not None
    assert caught.value.partial.output_text == "a"
    assert caught.value.phase == "handler"


def test_plugin_when_asked_for_by_something_else() -> None:
    """A run gives its plugins by class, and says so."""
    with pytest.raises(UsageError, match="by its class"):
        Dispatcher().run([completed()])["word-count"]  # type: ignore[index]


def test_feed_when_another_feed_is_under_way_is_refused() -> None:
    """A second item in the middle of the first is refused, and nothing of the first is lost."""

    async def main() -> None:
        flow = Dispatcher()
        refused: list[BaseException | None] = []

        @flow.on(TextDelta)
        async def again(event: Event, run: Run) -> None:
            with pytest.raises(UsageError, match="being fed already") as caught:
                await run.afeed(delta("late"))
            refused.append(caught.value)

        async with flow.aopen() as run:
            for item in AB:
                await run.afeed(item)
        assert (run.status, run.text, len(refused)) == ("completed", "ab", 2)

    asyncio.run(main())


def test_feed_when_interrupted_anywhere_may_be_fed_again() -> None:
    """Wherever Ctrl-C comes while an item is handed over, the run is not taken for one that is being fed."""
    runs: list[Run] = []

    def feed() -> None:
        with Dispatcher().open(check=False) as run:
            runs.append(run)
            run.feed(created())
            run.feed(completed())

    functions = ("feed", "_push", "_turn", "_feeding", "__enter__", "__exit__")
    for _ in interrupted(feed, *functions):
        assert not runs or not runs[-1]._fed.locked()


def test_feed_when_another_thread_ends_the_run_first() -> None:
    """Who comes in the very moment in which another feeds waits for it, and feeds nothing to a run that has ended."""

    class Late:
        """A lock that was free a moment ago."""

        def locked(self) -> bool:
            return False

        def __enter__(self) -> None:
            run._fed = threading.Lock()
            end()

        def __exit__(self, *_: object) -> None:
            """It is free again."""

    with Dispatcher().open() as run:
        run.feed(created())
        run._fed, end = Late(), lambda: run.feed(completed())  # type: ignore[assignment]
        run.feed(delta("late"))
    assert (run.status, run.text) == ("completed", "")

    async def main() -> None:
        nonlocal run, end
        async with Dispatcher().aopen() as run:
            await run.afeed(created())
            last = run.afeed(completed())
            run._fed, end = Late(), lambda: next(last.__await__(), None)  # type: ignore[assignment]
            await run.afeed(delta("late"))
        assert (run.status, run.text) == ("completed", "")

    asyncio.run(main())


def test_push_when_opened_twice_is_refused() -> None:
    """The object that ``open()`` gives is good for one run."""
    push = Dispatcher().open(check=False)
    with push as run:
        run.feed(AB[0])
    with pytest.raises(UsageError, match="was opened before"):
        push.__enter__()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_stop_when_cancelled_still_reaches_the_other_plugins(backend: str) -> None:
    """A cancellation inside one plugin's ``stop`` does not keep the others from theirs, and goes on afterwards."""
    stopped: list[str] = []

    class Slow(Plugin):
        async def stop(self, run: Run) -> None:
            await anyio.sleep_forever()

    class Quick(Plugin):
        async def stop(self, run: Run) -> None:
            await anyio.lowlevel.checkpoint()
            stopped.append(run.status)

    async def main() -> None:
        with anyio.move_on_after(0.05) as scope:
            await Dispatcher(Quick(), Slow()).arun(AB)
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    assert stopped == ["completed"]


def test_stop_when_it_fails_after_a_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The handler's exception goes on; the plugin's is in the log, with its name."""

    class Breaks(Plugin):
        def stop(self, run: Run) -> None:
            raise KeyError("second")

    flow = Dispatcher(Breaks())
    flow.on(TextDelta, lambda event: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flow.run(AB)
    assert [record.message.partition(" failed in run ")[0] for record in caplog.records] == [
        f"{Breaks.__qualname__}.stop"
    ]


@pytest.mark.parametrize(
    "make", [lambda items: items, lambda items: [body([item]).replace(b"\n", b"\r\n") for item in items]]
)
def test_cancel_when_in_a_handler_pulls_nothing_more(make: Callable[[list[JSON]], list[Any]]) -> None:
    """After ``run.cancel()`` in a handler the source is not asked again, whatever it yields."""
    pulled: list[int] = []

    def source() -> Any:
        for place, item in enumerate(make([created(), delta("a"), delta("b"), completed()])):
            pulled.append(place)
            yield item

    flow = Dispatcher()
    flow.on(TextDelta, lambda event, run: run.cancel())  # type: ignore[call-overload]
    run = flow.run(source())
    assert (run.status, pulled) == ("cancelled", [0, 1])


def test_cancel_when_reading_fails_because_of_it_is_no_failure() -> None:
    """A source that breaks because the run was cancelled does not make it a failed one."""
    flow = Dispatcher()

    def source() -> Any:
        yield created()
        runs[0].cancel()
        raise DecodeError("cut off")

    runs: list[Run] = []
    flow.on("lifecycle", lambda event, run: runs.append(run))  # type: ignore[call-overload]
    run = flow.run(source())
    assert (run.status, run.error) == ("cancelled", None)


def test_stream_when_left_at_its_terminal_event_is_completed() -> None:
    """To break at the terminal event is no cancellation: the run had ended."""
    events = Dispatcher().stream(AB)
    for event in events:
        if isinstance(event, ResponseCompleted):
            break
    assert events.run.status == "completed"


def test_cursor_when_something_is_thrown_into_it() -> None:
    """An exception thrown into the cursor ends the run as a failure, and goes on."""
    stopped: list[str] = []

    class Watch(Plugin):
        def stop(self, run: Run) -> None:
            stopped.append(run.status)

    events = Dispatcher(Watch()).stream(AB)
    cursor: Any = iter(events)
    next(cursor)
    with pytest.raises(ValueError, match="mine"):
        cursor.throw(ValueError("mine"))
    assert stopped == ["failed"]


def test_stream_when_its_cursor_is_never_advanced_is_closed_by_the_block() -> None:
    """An iterator that was made but never asked leaves nothing open behind the block, in either face."""
    source = Watched(AB)
    with Dispatcher().stream(source) as events:
        iter(events)
    assert (source.closed, events.run.status) == (1, "cancelled")

    async def main() -> None:
        asource = AsyncWatched(AB)
        async with Dispatcher().astream(asource) as aevents:
            aiter(aevents)
        assert (asource.closed, aevents.run.status) == (1, "cancelled")

    asyncio.run(main())


def test_aclose_when_another_task_waits_cancels_the_run() -> None:
    """``aclose()`` from elsewhere ends a run that another task iterates."""

    async def main() -> None:
        async def source() -> Any:
            yield created()
            await asyncio.sleep(30)

        events = Dispatcher().astream(source())

        async def consume() -> int:
            return len([event async for event in events])

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.02)
        await events.aclose()
        assert await asyncio.wait_for(task, 2) == 1
        assert events.run.status == "cancelled"

    asyncio.run(main())


def test_emission_limit_when_reached_is_the_streams_failure() -> None:
    """Handlers that answer each other without end are stopped by a limit, which ``check=False`` does not raise."""
    flow = Dispatcher(limits=Limits(emitted=10))
    flow.on(Tick, lambda event, run: run.emit(event))  # type: ignore[call-overload]
    flow.on(TextDelta, lambda event, run: run.emit(Tick()))  # type: ignore[call-overload]
    run = flow.run(AB, check=False)
    assert run.status == "failed"
    assert isinstance(run.error, LimitExceeded)
    assert (run.error.limit, run.error.run) == ("emitted", run)


def test_emission_when_an_async_generator_cancels_its_run_ends_it() -> None:
    """An async generator that cancels the run is closed, not exhausted."""
    closed_at: list[int] = []
    flow = Dispatcher()

    @flow.on(TextDelta)
    async def count(event: Event, run: Run) -> Any:
        number = 0
        try:
            while True:
                number += 1
                if number == 3:
                    run.cancel()
                yield Tick(number)
        finally:
            closed_at.append(number)

    run = asyncio.run(flow.arun(AB))
    assert (run.status, closed_at) == ("cancelled", [3])


def test_duplicates_when_far_back_are_judged_alike_in_any_chunks() -> None:
    """A repeated event is dropped though it is hundreds of events old, whatever the chunks."""
    events = numbered([created(), opened(), *deltas(*(f"w{n} " for n in range(256)))])
    again = [events[-1], events[-2]]
    stream = [*events, *again, {**completed(), "sequence_number": len(events)}]
    whole, single = (Dispatcher().run(chunks) for chunks in ([body(stream)], [body([event]) for event in stream]))
    assert whole.text == single.text == "".join(f"w{n} " for n in range(256))
    assert [odd.kind for odd in whole.warnings] == [odd.kind for odd in single.warnings] == ["duplicate", "duplicate"]


def test_text_limit_when_far_along_is_exact_and_leaves_the_fast_path_only_near_it() -> None:
    """A long stream under its limit completes; one character more fails, in any chunks."""
    texts = ["x" * 1000] * 300
    for room, status in ((300_000, "completed"), (299_999, "failed")):
        for size in (4096, 100_000):
            data = body(answer(*texts))
            flow = Dispatcher(limits=Limits(text=room))
            run = flow.run([data[start : start + size] for start in range(0, len(data), size)], check=False)
            assert run.status == status


class _Pause:
    """Something to await that nobody ever resumes."""

    def __await__(self) -> Any:
        yield


def _pushed(flow: Dispatcher, item: JSON) -> tuple[Any, Any]:
    """Open an async run without an event loop, and begin to feed *item*; returns both coroutines' owners."""
    push = flow.aopen()
    entering = push.__aenter__()
    with pytest.raises(StopIteration) as entered:
        entering.send(None)
    run = entered.value.value
    feeding = run.afeed(item)
    return push, feeding


def test_afeed_when_dropped_while_a_handler_waits_ends_at_once() -> None:
    """A coroutine that is closed in the middle of an async generator's await leaves nothing waiting."""
    flow = Dispatcher()

    @flow.on(TextDelta)
    async def wait(event: Event) -> Any:
        await _Pause()
        yield Tick()

    _, feeding = _pushed(flow, delta("a"))
    feeding.send(None)
    feeding.close()


def test_stop_when_dropped_while_it_waits_ends_at_once() -> None:
    """A coroutine that is closed in the middle of a plugin's ``stop`` leaves nothing waiting."""

    class Waits(Plugin):
        async def stop(self, run: Run) -> None:
            await _Pause()

    push, feeding = _pushed(Dispatcher(Waits()), delta("a"))
    with pytest.raises(StopIteration):
        feeding.send(None)
    leaving = push.__aexit__(None, None, None)
    leaving.send(None)
    leaving.close()


def test_emission_when_an_async_generator_gives_no_event_closes_it() -> None:
    """What is no event ends the run, and the generator that gave it is closed."""
    ended: list[str] = []
    flow = Dispatcher()

    @flow.on(TextDelta)
    async def wrong(event: Event) -> Any:
        try:
            yield "text"
        finally:
            ended.append("closed")

    with pytest.raises(UsageError, match="yields events"):
        asyncio.run(flow.arun(AB))
    assert ended == ["closed"]


def test_order_when_it_is_no_integer_is_refused() -> None:
    """An order that cannot be compared is an error where it is written."""
    with pytest.raises(UsageError, match="order must be an integer"):
        Dispatcher().on(TextDelta, lambda event: None, order="first")  # type: ignore[call-overload]


class Undecodable(Event, tag="tests.undecodable"):
    """An event whose field is of two kinds that no decoder can tell apart."""

    value: list[int] | set[int]


def test_event_class_when_it_cannot_be_decoded_is_the_callers_mistake() -> None:
    """It is told as such, and not taken for a fault of the peer's."""
    with pytest.raises(UsageError, match="cannot be decoded from JSON"):
        Dispatcher().run([b'data: {"type": "tests.undecodable", "value": [1]}\n\n'], wire="responses")
