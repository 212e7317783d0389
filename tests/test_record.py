"""`Record` and `replay`: what was received comes again, to the byte, with the same events and the same end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenarios import (
    FACES,
    AsyncWatched,
    Tick,
    Watched,
    answer,
    block,
    body,
    bytewise,
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
)
from servers import Server, sse
from strategies import bodies, chunkings

from eventflow import Client, Dispatcher, Event, HandlerFailed, Limits, Plugin, Run, TextDelta, Timeouts
from eventflow.engine import ANEW
from eventflow.errors import (
    APIStreamError,
    ConnectionFailed,
    DecodeError,
    EventflowError,
    HTTPStatusError,
    LimitExceeded,
    PluginError,
    StreamInterrupted,
    StreamTimeout,
    UnexpectedContentType,
    UsageError,
)
from eventflow.sse import Frame
from eventflow_plugins import Record, replay

WAYS = ("run", "asyncio", "trio")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where recordings of this module are."""
    return tmp_path_factory.mktemp("recordings")


class APIError(Exception):
    """As an SDK raises it for an error event."""

    def __init__(self, body: object) -> None:
        super().__init__("the SDK's words")
        self.body = body


def told(failure: BaseException | None) -> Any:
    """What an error says, without what belongs to one run."""
    if not isinstance(failure, EventflowError):
        return failure
    told_apart = ("run", "frame", "partial", "phase", "retryable")
    own = {name: value for name, value in vars(failure).items() if name not in told_apart}
    return type(failure), str(failure), failure.phase, failure.retryable, failure.partial, own


def run_through(way: str, source: Any, *plugins: Plugin, **options: Any) -> tuple[Run, dict[str, Any]]:
    """A run over *source* in one of three ways, and all of it that a replay must give again."""
    flow = Dispatcher(*plugins, **options)
    heard: list[Event] = []
    flow.on("*", heard.append)
    if way == "run":
        run = flow.run(source, check=False)
    else:

        async def main() -> Run:
            return await flow.arun(source, check=False)

        run = asyncio.run(main()) if way == "asyncio" else anyio.run(main, backend=way)
    shown = {"events": heard, "count": run.events, "status": run.status, "error": told(run.error), "text": run.text}
    return run, {**shown, "response": run.response, "warnings": run.warnings}


def recorded(folder: Path, source: Any, way: str = "run", **options: Any) -> tuple[Path, dict[str, Any]]:
    """The recording of a run over *source*, and what that came to."""
    path = folder / f"{next(NUMBERS)}.jsonl"
    return path, run_through(way, source, Record(path), **options)[1]


def lines_of(path: Path) -> list[dict[str, Any]]:
    """What a recording says, line by line."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


class Clock:
    """Time that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()
        self.sleep(seconds)


# --- the same again --------------------------------------------------------------------------------------------------

STREAMS = [
    body(answer("Hello, ", "wörld \U0001f600")),
    body(numbered(answer("a", "b", end=incomplete))),
    body(answer("a", "b"))[:-1],  # the last event lacks its blank line, and is whole
    body([created(), *deltas("a", "b")]),
    body([created(), *deltas("a", "b")])[:-20],
    body([created(), *deltas("a"), error()]),
    body([created(), *deltas("a"), error(), failed()]),
    body([created(), *deltas("a"), failed()]),
    body([created(), *deltas("a")]) + b"event: response.output_text.delta\ndata: {nonsense\n\n",
    b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"\xc3\xa9t\xc3\xa9"},"finish_reason":null}]}\r\n\r\n',
    b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    b"<html>\xff no stream</html>",
    b"",
]
FAULTS: dict[str, Callable[[], Exception | None]] = {
    "none": lambda: None,
    "reset": lambda: OSError(errno.ECONNRESET, "reset"),
    "interrupted": lambda: StreamInterrupted("cut"),
    "unconnected": lambda: ConnectionFailed("nobody there"),
    "timeout": lambda: StreamTimeout("late", timer="idle", seconds=2.5),
    "garbled": lambda: DecodeError("garbled gzip"),
    "bomb": lambda: LimitExceeded(limit="event_bytes", maximum=3, seen=4),
    "reported": lambda: APIStreamError("its words", code="busy", type="t", param="p", request_id="req_1"),
    "silent": lambda: APIStreamError(),
    "refused": lambda: HTTPStatusError("no", status=429, excerpt="slow down", request_id="req_1", retry_after=2.0),
    "page": lambda: UnexpectedContentType("a page", content_type="text/html", excerpt="<html>"),
    "sdk": lambda: APIError({"message": "the server's words", "code": "server_error", "type": "server_error"}),
}


@st.composite
def ends(draw: st.DrawFn) -> tuple[list[bytes], Exception | None]:
    """The chunks that a source gives, and what it raises then."""
    whole = draw(st.sampled_from(STREAMS) | bodies())
    return draw(chunkings(whole)), FAULTS[draw(st.sampled_from(list(FAULTS)))]()


@given(ends(), st.sampled_from(["run", "asyncio"]), st.booleans(), st.sampled_from([None, 200, 60]))
def test_replay_when_of_any_stream_is_the_run_again(
    folder: Path, end: tuple[list[bytes], Exception | None], way: str, keep: bool, largest: int | None
) -> None:
    """Any body, any chunking, any end: chunks to the byte, events, status, error, text; sync and async."""
    chunks, fault = end
    options: dict[str, Any] = {"snapshot": keep, "limits": Limits(event_bytes=largest)}
    source = Watched(chunks, fault) if way == "run" else AsyncWatched(chunks, fault)
    path, original = recorded(folder, source, way, **options)
    given_again = list[object]()
    with contextlib.suppress(Exception):
        given_again.extend(replay(path))
    assert given_again == chunks[: source.pulled]
    for again in ("run", "asyncio"):
        assert run_through(again, replay(path), **options)[1] == original


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", WAYS)
def test_error_when_the_source_raised_it_comes_again(folder: Path, way: str, fault: str) -> None:
    """The class, the message, the phase, whether to try again, and what else it tells."""
    chunks = bytewise(body([created(), *deltas("a")]))
    path, original = recorded(folder, Watched(chunks, FAULTS[fault]()))
    for speed in (0, 1_000_000):  # 0 takes the sync way in an async run too
        assert run_through(way, replay(path, speed))[1] == original
    last = lines_of(path)[-1]
    assert (last["raised"] is None) == (fault == "none")
    assert last["status"] == original["status"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("speed", [0, 1_000_000])
def test_error_when_the_source_failed_behind_an_error_event(folder: Path, speed: float, fault: str) -> None:
    """What the server said stays the run's error; what the source raised then comes again, and is no more than then."""
    source = Watched([body([created(), error()])], FAULTS[fault]())
    path, original = recorded(folder, source)
    assert original["error"][0] is APIStreamError
    assert (lines_of(path)[-1]["raised"] is None) == (fault == "none")
    for way in WAYS:
        assert run_through(way, replay(path, speed))[1] == original


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("face", FACES)
def test_items_when_a_source_gives_no_bytes_come_in_their_own_kinds(folder: Path, way: str, face: str) -> None:
    """Frames, mappings, events and an SDK's objects; views of bytes are bytes."""

    class Dumped:
        def model_dump(self, **_: Any) -> dict[str, Any]:
            return delta("c")

    path = folder / f"{next(NUMBERS)}.jsonl"
    first, *rest = [block(event) for event in answer("x")]
    given = [
        bytearray(first),
        memoryview(rest[0]),
        Frame("message", json.dumps(delta("\u202ea\ud800"), ensure_ascii=False), "7"),
        delta("b"),
        Dumped(),
        TextDelta("d", output_index=0, content_index=0, item_id="msg_1"),
        Tick(3),
        closed({"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "\x1babcd"}]}),
        completed(),
    ]
    outcome = drive(face, given, Dispatcher(Record(path)), check=False)
    kinds = ["text", "text", "frame", "mapping", "mapping", "event", "event", "mapping", "mapping"]
    assert [next(iter(line.keys() - {"t"})) for line in lines_of(path)[1:-1]] == kinds
    again = run_through(way, replay(path))[1]
    assert (again["events"], again["status"], again["text"]) == (outcome.heard, "completed", outcome.run.text)
    items = list(replay(path))
    assert items[:4] == [first, rest[0], *given[2:4]]
    assert items[4:7] == [delta("c"), *given[5:7]]


def test_recording_when_it_is_looked_at_drives_no_terminal(folder: Path) -> None:
    """Each line is one for whoever counts, and has no control character and no mark that turns text around."""
    path, _ = recorded(folder, [body(answer("\x1b[2J\u202e\u2028 \x9b")), b"\x1b\n\n"])
    raw = path.read_text(encoding="utf-8")
    assert all(line.isprintable() for line in raw.split("\n"))
    assert next(iter(replay(path))) == body(answer("\x1b[2J\u202e\u2028 \x9b"))


class Undumpable:
    def model_dump(self, **_: Any) -> dict[str, Any]:
        raise ValueError("not today")


@pytest.mark.parametrize("item", [{"self": []}, Undumpable(), "text", 7], ids=["loop", "sdk", "str", "int"])
@pytest.mark.parametrize("way", WAYS)
def test_item_when_it_cannot_be_recorded(folder: Path, way: str, item: Any) -> None:
    """The run ends with it, and so does the replay: with the run's own error where the stream had one."""
    if isinstance(item, dict) and "self" in item:
        item["self"].append(item)
    path = folder / f"{next(NUMBERS)}.jsonl"
    outcome = drive("run", [created(), delta("a"), item, delta("b")], Dispatcher(Record(path)), check=False)
    assert lines_of(path)[-2]["lost"] == type(item).__name__
    again, shown = run_through(way, replay(path))
    assert shown["events"] == outcome.heard
    if outcome.run.error is not None:
        assert shown["error"] == told(outcome.run.error)
    else:
        assert isinstance(again.error, StreamInterrupted)
        assert f"of the type {type(item).__name__}" in again.error.message


def test_recording_when_a_run_goes_on_behind_what_was_lost(folder: Path) -> None:
    """A replay does not leave a hole: it ends where something is missing."""
    path, _ = recorded(folder, [created(), delta("a"), completed()])
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in ([*lines[:2], b'{"t":1,"lost":"X"}\n', *lines[2:]], [*lines[:2], b'{"t":1,"lost":"X"}\n']):
        path.write_bytes(b"".join(kept))
        run, shown = run_through("run", replay(path))
        assert [event.type for event in shown["events"]] == ["response.created"]
        assert "could not be recorded: it was of the type X" in str(run.error)


# --- a source that is opened again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tail", [0, 20, -1])
def test_replay_when_the_run_was_resumed(folder: Path, monkeypatch: pytest.MonkeyPatch, way: str, tail: int) -> None:
    """Where another body takes the place of one that was cut, what the cut left unfinished is lost again."""
    monkeypatch.setattr("eventflow.exchange._FIRST_DELAY", 0.001)
    events = numbered(answer("a", "b", "c"))
    path = folder / f"{next(NUMBERS)}.jsonl"
    heard: list[Event] = []
    flow = Dispatcher(Record(path))
    flow.on("*", heard.append)
    with (
        Server(sse([*events[:3], block(events[3])[:tail]], end=b""), sse(events[3:])) as server,
        Client(base_url=server.url) as client,
    ):
        options: dict[str, Any] = {"model": "m", "input": "x", "background": True, "resume": True}
        run = flow.run(client.responses.create(stream=True, **options))
    assert (run.status, run.text, run.warnings) == ("completed", "abc", ())
    lines = lines_of(path)
    assert [line for line in lines if "anew" in line] == [
        {"t": next(x["t"] for x in lines if "anew" in x), "anew": True}
    ]
    assert lines[0]["wire"] == "responses"
    assert ANEW in list(replay(path))
    shown = run_through(way, replay(path))[1]
    assert (shown["events"], shown["status"], shown["warnings"]) == (heard, "completed", ())


def test_replay_when_it_is_fed(folder: Path) -> None:
    """A run that is pushed takes its items, the change of bodies included."""
    path = folder / f"{next(NUMBERS)}.jsonl"
    events = numbered(answer("a", "b"))
    items = [body(events[:3]) + block(events[3])[:30], ANEW, body(events[3:])]
    first = drive("open", items, Dispatcher(Record(path)))
    with Dispatcher().open() as run:
        for item in replay(path):
            run.feed(item)
    assert (run.status, run.text, run.events) == ("completed", "ab", first.run.events)


# --- recordings that lack their end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["run", "asyncio"])
def test_recording_when_cut_at_any_byte_gives_whole_items(folder: Path, way: str) -> None:
    """A prefix of the events and then `StreamInterrupted`; without a header it is no recording."""
    whole_body = b"".join(block(event) for event in ({"type": "response.created"}, delta("ab"), completed()))
    whole_body = whole_body.replace(b"ab", "é".encode())
    place = whole_body.index(b"\xc3") + 1
    path, original = recorded(folder, [whole_body[:20], whole_body[20:place], whole_body[place:]])
    assert [next(iter(line.keys() - {"t"})) for line in lines_of(path)[1:-1]] == ["text", "base64", "base64"]
    whole, chunks = path.read_bytes(), list(replay(path))
    header = whole.index(b"\n")
    for place in range(0, len(whole) - 1, 1 if way == "run" else 7):
        path.write_bytes(whole[:place])
        if place < header:
            with pytest.raises(UsageError, match="is no recording: it begins with"):
                replay(path)
            continue
        given: list[object] = []
        with pytest.raises(StreamInterrupted, match=r"is cut in the middle of line|has no last line") as caught:
            given.extend(replay(path))
        assert given == chunks[: len(given)]
        run, shown = run_through(way, replay(path))
        assert shown["events"] == original["events"][: len(shown["events"])]
        if run.error is None:
            assert shown == original
        else:
            assert (type(run.error), run.error.message) == (StreamInterrupted, caught.value.message)
    path.write_bytes(whole[:-1])
    assert list(replay(path)) == chunks


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"text":"a"}',
        b'{"t":"1","text":"a"}',
        b'{"t":-1,"text":"a"}',
        b'{"t":NaN,"text":"a"}',
        b'{"t":true,"text":"a"}',
        b'{"t":1}',
        b'{"t":1,"text":"a","base64":"YQ=="}',
        b'{"t":1,"video":"a"}',
        b'{"t":1,"text":1}',
        b'{"t":1,"text":"\\ud800"}',
        b'{"t":1,"base64":"a"}',
        b'{"t":1,"frame":{"event":"a","datum":"b"}}',
        b'{"t":1,"frame":{"event":1}}',
        b'{"t":1,"frame":[]}',
        b'{"t":1,"mapping":3}',
        b'{"t":1,"event":[]}',
        b'{"t":1,"event":{"type":"response.output_item.done","item":3}}',
        b'{"t":1,"status":"failed"}',
        b'{"t":1,"status":1,"events":1,"error":null,"raised":null}',
        b'{"t":1,"status":"failed","events":1,"error":{},"raised":null}',
        b'{"t":1,"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda line: line[:40].decode(),
)
def test_line_when_it_is_damaged_is_named(folder: Path, line: bytes) -> None:
    """With its number; what stands before it is given."""
    path, _ = recorded(folder, [body([created(), delta("a")]), body([completed()])])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    run, shown = run_through("run", replay(path))
    assert isinstance(run.error, DecodeError)
    assert run.error.message.startswith("line 3 of the recording is damaged")
    assert [event.type for event in shown["events"]] == ["response.created", "response.output_text.delta"]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"", "is no recording"),
        (b"event: response.created\n", "is no recording"),
        (b"{}\n", "is no recording"),
        (b"\x00" * 100_000, "is no recording"),
        (b'{"format":"eventflow-recording"}\n', "of version None"),
        (b'{"format":"eventflow-recording","version":2}\n', "of version 2, and this eventflow reads version 1"),
        (b'{"format":"eventflow-recording","version":1,"time":"now","run":"a"}\n', "first line .* is damaged"),
        (b'{"format":"eventflow-recording","version":1,"time":1,"run":2}\n', "first line .* is damaged"),
        (b'{"format":"eventflow-recording","version":1,"time":1,"run":"a","wire":3}\n', "first line .* is damaged"),
    ],
    ids=range(9),
)
def test_file_when_it_is_no_recording_or_a_newer_one(tmp_path: Path, start: bytes, message: str) -> None:
    """It is refused before anything, in words that say which."""
    path = tmp_path / "x"
    path.write_bytes(start)
    with pytest.raises(UsageError, match=message):
        replay(path)


def test_file_when_it_cannot_be_opened(tmp_path: Path) -> None:
    """It is refused as a path that is no source is; a file that goes away later, when it is read."""
    with pytest.raises(UsageError, match=r"cannot open the recording .*No such file"):
        replay(tmp_path / "nothing")
    with pytest.raises(UsageError, match="null"):
        replay("a\0b")
    path, _ = recorded(tmp_path, [b""])
    source = replay(path)
    path.unlink()
    with pytest.raises(UsageError, match="No such file"):
        list(source)


def test_errors_when_a_recording_makes_them_up(folder: Path) -> None:
    """A class that this version does not have is `StreamInterrupted`; attributes that an error lacks are left out."""
    path, _ = recorded(folder, Watched([block(created())], StreamTimeout("late", timer="idle", seconds=1)))
    *lines, last = path.read_bytes().splitlines(keepends=True)
    end = json.loads(last)
    end["raised"] |= {"class": "Nobody", "phase": "lunch", "details": {"args": 1, "run": 2, "__class__": 3}}
    path.write_bytes(b"".join([*lines, json.dumps(end).encode()]))
    run, _ = run_through("run", replay(path))
    assert (type(run.error), run.error.message, run.error.phase) == (StreamInterrupted, "late", None)  # type: ignore[union-attr]
    assert run.error.run is run  # type: ignore[union-attr]


def test_error_when_it_is_a_class_of_the_callers(folder: Path) -> None:
    """It comes again as the class of ours that it is made from."""

    class Dropped(StreamInterrupted):
        pass

    path, _ = recorded(folder, Watched([block(created())], Dropped("dropped")))
    run, _ = run_through("run", replay(path))
    assert (type(run.error), str(run.error)) == (StreamInterrupted, "dropped")


@pytest.mark.parametrize("leave", ["cancel", "break", "handler", "interrupt"])
def test_replay_when_the_run_was_left_ends_as_a_cut_one(folder: Path, leave: str) -> None:
    """What was received, and then `StreamInterrupted` that says who ended it; not where the bytes have an end."""
    path = folder / f"{next(NUMBERS)}.jsonl"
    flow = Dispatcher(Record(path))
    source = [block(created()), block(delta("a")), block(delta("b"))]

    def stop(event: TextDelta, run: Run) -> None:
        if leave == "cancel":
            run.cancel()
        raised = {"handler": ValueError("mine"), "interrupt": KeyboardInterrupt()}.get(leave)
        if raised is not None:
            raise raised

    flow.on(TextDelta, stop)
    if leave == "break":
        with flow.stream(source) as events:
            for event in events:
                if isinstance(event, TextDelta):
                    break
    else:
        drive("run", source, flow)
    last = lines_of(path)[-1]
    assert (last["status"], last["error"]) == ("failed" if leave == "handler" else "cancelled", None)
    run, shown = run_through("asyncio", replay(path))
    assert (run.status, run.text, len(shown["events"])) == ("truncated", "a", 2)
    assert type(run.error) is StreamInterrupted
    assert ("exception of its own program" if leave == "handler" else "was cancelled") in run.error.message


def test_replay_when_a_handler_failed_at_the_end_is_whole(folder: Path) -> None:
    """What was received is the whole answer: it ends as its bytes say."""
    path = folder / f"{next(NUMBERS)}.jsonl"
    flow = Dispatcher(Record(path))
    flow.on("response.completed", lambda event: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flow.run([body(answer("a"))])
    assert run_through("run", replay(path))[0].status == "completed"


# --- time ------------------------------------------------------------------------------------------------------------


def paced(clock: Clock, chunks: Iterable[bytes], pause: float = 2.0, end: float = 3.0) -> Iterator[bytes]:
    """*chunks*, one after each pause; the end takes some more time."""
    for chunk in chunks:
        clock.sleep(pause)
        yield chunk
    clock.sleep(end)


@pytest.mark.parametrize("way", ["sync", "asyncio", "trio"])
@pytest.mark.parametrize("speed", [0, 1, 4, 0.5])
def test_replay_when_it_has_a_speed_keeps_the_times(folder: Path, speed: float, way: str) -> None:
    """0 sleeps never; n divides the time between any two items, and that before the end."""
    clock = Clock()
    path = folder / f"{next(NUMBERS)}.jsonl"
    Dispatcher(Record(path, clock=clock)).run(paced(clock, bytewise(b"abc")), check=False)
    assert [line["t"] for line in lines_of(path)[1:]] == [2.0, 4.0, 6.0, 9.0]

    clock = Clock()
    source = replay(path, speed, clock=clock, sleep=clock.sleep, asleep=clock.asleep)
    times: list[float] = []

    async def main() -> None:
        async for _ in source:
            times.append(clock.now - 1000)
            clock.now += 0.5  # whoever takes an item takes time, which is not added

    if way == "sync":
        for _ in source:
            times.append(clock.now - 1000)
            clock.now += 0.5
    else:
        anyio.run(main, backend=way)
    expected = [at / speed if speed else 0.5 * number for number, at in enumerate([2.0, 4.0, 6.0])]
    assert times == ([0.5, 1.0, 1.5] if speed == 4 else expected)
    assert clock.now - 1000 == (9 / speed if speed else 1.5)


def test_replay_when_a_consumer_is_slow_catches_up(folder: Path) -> None:
    """Lateness is not added up: what is due is given at once."""
    clock = Clock()
    path = folder / f"{next(NUMBERS)}.jsonl"
    Dispatcher(Record(path, clock=clock)).run(paced(clock, bytewise(b"abc"), 1.0, 1.0), check=False)
    clock = Clock()
    times: list[float] = []
    for _ in replay(path, 1, clock=clock, sleep=clock.sleep):
        times.append(clock.now - 1000)
        clock.now += 2.5 if len(times) == 1 else 0
    assert times == [1.0, 3.5, 3.5]
    assert clock.now == 1004.0


@pytest.mark.parametrize("speed", [-1, float("nan"), float("inf"), True, "1"])
def test_speed_when_it_is_none(tmp_path: Path, speed: Any) -> None:
    """It is refused, with what it could be."""
    path, _ = recorded(tmp_path, [b""])
    with pytest.raises(UsageError, match="0 for at once, 1 for real time"):
        replay(path, speed)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("who", ["cancel", "timer"])
def test_replay_when_it_waits_is_interrupted(folder: Path, way: str, who: str) -> None:
    """`Run.cancel` from another thread and the run's own timers end a replay that sleeps."""
    clock = Clock()
    path = folder / f"{next(NUMBERS)}.jsonl"
    Dispatcher(Record(path, clock=clock)).run(paced(clock, [b"", body(answer("a"))], 500.0), check=False)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b"500.0", b"0.0"), *lines[2:]]))
    waits = threading.Event()

    class Canceller(Plugin):
        def receive(self, item: object, run: Run) -> None:
            if who == "cancel":
                threading.Timer(0.05, run.cancel).start()
            waits.set()

    run, _ = run_through(way, replay(path, 1), Canceller(), timeout=Timeouts(first_event=5 if who == "cancel" else 0.1))
    assert waits.is_set()
    assert (run.status, run.text) == ("cancelled" if who == "cancel" else "timeout", "")


@pytest.mark.parametrize("way", WAYS)
def test_replay_when_it_is_taken_twice_at_once(folder: Path, way: str) -> None:
    """Each iteration reads the file itself."""
    path, original = recorded(folder, [body(answer("a", "b"))])
    source = replay(path)
    assert [a == b for a, b in zip(source, source, strict=True)] == [True]
    for _ in range(2):
        assert run_through(way, source)[1] == original


@pytest.mark.parametrize("speed", [0, 1])
def test_replay_when_it_is_left_early_closes_its_file(folder: Path, speed: float) -> None:
    """A cursor that is dropped, sync or async, leaves nothing open (a warning would be an error)."""
    path, _ = recorded(folder, bytewise(body(answer("a"))))
    source = replay(path, speed)
    for _ in source:
        break
    with Dispatcher().stream(source) as events:
        for _ in events:
            break

    async def main() -> None:
        async with Dispatcher().astream(source) as stream:
            async for _ in stream:
                break

    asyncio.run(main())


# --- files -----------------------------------------------------------------------------------------------------------


def test_recording_when_it_is_made_is_for_its_owner(tmp_path: Path) -> None:
    """It holds what was received, unredacted: nobody else may read it."""
    path, _ = recorded(tmp_path, [b""])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lines_when_the_run_goes_on_are_in_the_file(tmp_path: Path) -> None:
    """Each at once, before what it carries is dispatched: a crash loses the last line alone."""
    path = tmp_path / "run.jsonl"
    seen: list[list[str]] = []

    def chunks() -> Iterator[bytes]:
        for event in [created(), delta("a")]:
            seen.append([json.loads(line).get("text", "") for line in path.read_bytes().splitlines()])
            yield block(event)

    flow = Dispatcher(Record(path))
    flow.on(TextDelta, lambda event: seen.append([path.read_text(encoding="utf-8")[-20:]]))
    flow.run(chunks(), check=False)
    first = block(created()).decode()
    assert seen[:2] == [[""], ["", first]]
    assert "\\n\\n" in seen[2][0]


def test_header_when_the_wire_is_given_tells_it(tmp_path: Path) -> None:
    """So that it is read as that again, whatever it begins with; a name that is there later stands in the last line."""
    path = tmp_path / "run.jsonl"
    run = Dispatcher(Record(path)).run([b"data: {}\n\n"], wire="chat", check=False)
    header, *_, last = lines_of(path)
    assert (header["format"], header["version"], header["run"], header["wire"]) == (
        "eventflow-recording",
        1,
        run.id,
        "chat",
    )
    assert last["wire"] == "chat"
    assert Dispatcher().run(replay(path), check=False).wire == "chat"
    path, _ = recorded(tmp_path, [body(answer("a"))])
    assert (lines_of(path)[0]["wire"], lines_of(path)[-1]["wire"]) == (None, "responses")
    assert replay(path).header.run == lines_of(path)[0]["run"]


def test_runs_when_a_dispatcher_has_several_have_a_file_each(tmp_path: Path) -> None:
    """By the run's id in the name, or in a folder; the run tells which."""
    for path in (tmp_path, tmp_path / "x-{run}-{other}.jsonl"):
        with Dispatcher(Record(path)) as flow:
            runs = [flow.run([body(answer(text))]) for text in ("a", "b")]
        for run in runs:
            file = run[Record].file
            assert file is not None
            assert run.id in file
            assert Dispatcher().run(replay(file)).text == run.text
    assert len(list(tmp_path.iterdir())) == 4


def test_runs_when_they_go_on_at_once_share_no_file(tmp_path: Path) -> None:
    """Two runs under way: each has its own; with one file for both, the second is refused and the first unharmed."""
    flow = Dispatcher(Record(tmp_path))
    with flow.open() as one, flow.open() as two:
        for event in answer("a"):
            one.feed(block(event))
            two.feed(block(event))
    assert {run[Record].file for run in (one, two)} == {str(tmp_path / f"{run.id}.jsonl") for run in (one, two)}

    path = tmp_path / "one.jsonl"
    flow = Dispatcher(Record(path))
    with flow.open() as one:
        with pytest.raises(PluginError, match=r"does not write over .*a file for each run, with \{run\}") as caught:
            flow.run([body(answer("b"))])
        assert "raised by Record.start" in caught.value.__notes__[0]
        one.feed(body(answer("a")))
    assert Dispatcher().run(replay(path)).text == "a"


@pytest.mark.parametrize("isolate", [False, True])
def test_file_when_it_exists_or_cannot_be_made_is_refused_first(tmp_path: Path, isolate: bool) -> None:
    """Before the first run, and so before anything is asked of a server; what is there stays."""
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"precious")
    errors: Any = "isolate" if isolate else "raise"
    with pytest.raises(PluginError, match="does not write over"):
        Dispatcher(Record(path, errors=errors)).run([b""])
    assert path.read_bytes() == b"precious"
    for nowhere in (tmp_path / "no" / "run.jsonl", tmp_path / "{run}" / "a"):
        with pytest.raises(PluginError, match="is no folder"):
            Dispatcher(Record(nowhere)).run([b""])


def test_configuration_when_it_is_none(tmp_path: Path) -> None:
    """It is refused when it is made."""
    with pytest.raises(UsageError, match="path of a file or folder"):
        Record(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="isolate"):
        Record("a", errors="ignore")  # type: ignore[arg-type]


def test_run_when_it_ends_before_its_recording_began(tmp_path: Path) -> None:
    """Another plugin's failing start leaves none, or one with its end."""

    class Fails(Plugin):
        def start(self, run: Run) -> None:
            raise ValueError("mine")

    for plugins, files in (((Fails(), Record(tmp_path)), 0), ((Record(tmp_path), Fails()), 1)):
        with pytest.raises(ValueError, match="mine"):
            Dispatcher(*plugins).run([b""])
        assert len(list(tmp_path.iterdir())) == files
    (path,) = tmp_path.iterdir()
    assert lines_of(path)[-1]["status"] == "failed"


class Disk:
    """`os.write` that has no room where it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, full: Iterable[bool]) -> None:
        self._full, self._write = iter(full), os.write
        monkeypatch.setattr("eventflow_plugins.line_file.os.write", self)

    def __call__(self, file: int, data: bytes) -> int:
        if next(self._full, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(file, data[: max(1, len(data) // 2)])


@pytest.mark.parametrize("face", FACES)
def test_disk_when_it_is_full_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face: str) -> None:
    """A named error with what to do; what was written is a recording."""
    path = tmp_path / "run.jsonl"
    Disk(monkeypatch, itertools.chain([False] * 40, itertools.repeat(True)))
    outcome = drive(face, [block(event) for event in answer("a", "b", "c")], Dispatcher(Record(path)))
    assert isinstance(outcome.raised, PluginError)
    assert "No space left" in str(outcome.raised)
    assert 'Record(..., errors="isolate")' in str(outcome.raised)
    assert "raised by Record.receive" in outcome.raised.__notes__[0]
    monkeypatch.undo()
    run = run_through("run", replay(path))[0]
    assert isinstance(run.error, StreamInterrupted)


def test_disk_when_it_is_full_and_isolated_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported, what waits is written when there is room again, and nothing is missing."""
    path = tmp_path / "run.jsonl"
    Disk(monkeypatch, [False] * 30 + [True] * 3)
    failures: list[HandlerFailed] = []
    flow = Dispatcher(Record(path, errors="isolate"))
    flow.on(HandlerFailed, failures.append)
    run = flow.run([block(event) for event in answer("a", "b")])
    assert [failure.handler for failure in failures] == ["Record.receive"] * 3
    assert run_through("run", replay(path))[0].text == run.text == "ab"


def test_disk_when_it_stays_full_the_recording_ends_where_a_line_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mebibyte waits; behind what was lost nothing is written, though there is room again: no hole."""
    path = tmp_path / "run.jsonl"
    full = [False] * 40 + [True] * 6
    Disk(monkeypatch, full)
    flow = Dispatcher(Record(path, errors="isolate"))
    chunks = [block(created()), *(block(delta("x" * 300_000)) for _ in range(8)), block(completed())]
    run = flow.run(chunks)
    assert run.status == "completed"
    assert any("is lost" in record.getMessage() for record in caplog.records)
    monkeypatch.undo()
    given: list[object] = []
    with pytest.raises(StreamInterrupted, match="has no last line"):
        given.extend(replay(path))
    assert 1 < len(given) < len(chunks)
    assert given == chunks[: len(given)]


def test_disk_when_nothing_is_ever_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Isolated, a run whose recording cannot be made, begun or ended goes on, and every failure is told."""
    Disk(monkeypatch, itertools.repeat(True))
    flow = Dispatcher(Record(tmp_path / "{run}.jsonl", errors="isolate"))
    assert flow.run([body(answer("a"))]).status == "completed"
    assert "bytes are lost" in caplog.records[-1].getMessage()
    path = tmp_path / "one.jsonl"
    flow = Dispatcher(Record(path, errors="isolate"))
    with flow:
        path.write_bytes(b"precious")
        run = flow.run([body(answer("a"))])
    assert (run.status, run[Record].file) == ("completed", None)
    assert path.read_bytes() == b"precious"
