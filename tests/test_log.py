"""`Log`: one line an event, whatever a model writes; none lost without a word."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import tempfile
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scenarios import DIRECTION, attached, interrupted

from eventflow import (
    Dispatcher,
    Event,
    HandlerFailed,
    OutputItemAdded,
    OutputItemDone,
    Plugin,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    Run,
    StreamError,
    TextDelta,
    TextDone,
    ToolCall,
    ToolOutput,
    ToolProgress,
    UnknownEvent,
    transform,
)
from eventflow.errors import PluginError, StreamTruncated, UsageError
from eventflow.events import FunctionCall, Message, Usage, decode_mapping
from eventflow_plugins import Log
from eventflow_plugins.line_file import LineFile

RECORDED = sorted(Path(__file__).with_name("fixtures").glob("responses-*.sse"))


class Tick(Event, tag="tests.log.tick"):
    n: int = 0
    note: str = ""


# --- what is logged --------------------------------------------------------------------------------------------------

nasty = st.text(
    st.characters(exclude_categories=())
    | st.sampled_from("\x00\x07\b\t\n\x0b\r\x1b\x7f\x85\x9b\x9d\u2028\u2029\ud800\udfff\\\"'=%{} " + DIRECTION),
    max_size=30,
)
names = nasty.filter(lambda name: bool(name) and not name.startswith(("response.", "eventflow.", "tests.", "error")))
values = st.recursive(
    nasty | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(), st.lists, max_leaves=5
)


@st.composite
def unknown(draw: st.DrawFn) -> UnknownEvent:
    """An event that nobody knows, every word of it the peer's."""
    name = draw(names)
    return UnknownEvent(type=name, data={**draw(st.dictionaries(nasty, values, max_size=4)), "type": name})


wire_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(TextDelta, delta=nasty, item_id=st.none() | nasty, sequence_number=st.none() | st.integers(0, 9)),
    st.builds(TextDone, text=nasty),
    st.builds(lambda text: OutputItemAdded(item=Message(id=text)), nasty),
    st.builds(lambda text: StreamError(message=text, code=text, error_type=text or None), nasty),
    st.builds(lambda text: ResponseIncomplete(response=Response(id=text, model=text)), nasty),
    st.builds(Tick, n=st.integers(), note=nasty),
    unknown(),
)
own_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(ToolOutput, call_id=nasty, output=nasty),
    st.builds(ToolProgress, call_id=nasty, progress=values),
    st.builds(ToolCall, kind=nasty, name=nasty, arguments=nasty),
    st.builds(lambda text, event: HandlerFailed(ValueError(text), text, event), nasty, wire_events),
)


def unsafe(text: str) -> list[str]:
    """The characters of *text* that could end a line, drive a terminal, turn text around, or not be encoded."""
    return [
        character
        for character in text
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in DIRECTION
    ]


class Script(Plugin):
    """Sends its own events in place of the first one of the source: no run looks at them before the plugins do."""

    script: tuple[Event, ...] = ()

    @transform(Tick)
    def send(self, event: Tick) -> Iterable[Event]:
        return self.script


def sent(events: Iterable[Event], *plugins: Plugin) -> Run:
    """A run in which *plugins* get these very events."""
    return Dispatcher(Script(tuple(events)), *plugins).run([Tick()], check=False)


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [self.format(record) for record in self.records]


@pytest.fixture
def heard() -> Iterator[Lines]:
    """What is logged under "tests.log"."""
    with attached(Lines(), "tests.log") as lines:
        yield lines


@pytest.fixture
def complaints() -> Iterator[Lines]:
    """What eventflow itself has to say."""
    with attached(Lines()) as lines:
        yield lines


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def events_of(path: Path) -> list[dict[str, Any]]:
    """The events among them."""
    return [record["event"] for record in read(path) if "event" in record]


# --- a line is a line ------------------------------------------------------------------------------------------------


@given(st.lists(wire_events | own_events, max_size=5), st.none() | st.integers(1, 20))
@example([TextDelta(delta="the one that JSON leaves as it is: \x7f")], None)
def test_every_line_of_a_file_is_one_harmless_line_of_json(events: list[Event], most: int | None) -> None:
    """One for each event and two for the run, whatever the texts; nobody sees more lines or a control character."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        with Dispatcher(Script(tuple(events)), Log(path, max_chars=most)) as flow:
            run = flow.run([Tick()], check=False)
        data = path.read_bytes()
    text = data.decode("utf-8")
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(events) + 2 == len(text.splitlines())
    assert unsafe("".join(lines)) == []
    for line, event in zip(lines[1:-1], events, strict=True):
        record = json.loads(line)
        assert list(record) == ["time", "run", "n", "event"]
        assert record["run"] == run.id
        if most is None:
            assert record["event"] == json.loads(event.to_json())


@given(st.lists(wire_events | own_events, max_size=5), st.none() | st.integers(1, 300))
def test_every_log_record_is_one_harmless_line(events: list[Event], most: int | None) -> None:
    """It begins with the run, whatever the texts, can be encoded, and is not interpreted as a format."""
    with attached(Lines(), "tests.log.harmless") as heard:
        run = sent(events, Log(logger="tests.log.harmless", max_chars=most))
    assert len(heard.lines) == len(events) + 2
    for line, record in zip(heard.lines, heard.records, strict=True):
        line.encode("utf-8")
        assert len(line.splitlines()) == 1
        assert unsafe(line) == []
        assert line.startswith(run.id + " ")
        assert record.msg == "%s"


@given(wire_events)
def test_a_logged_event_is_read_back_as_it_was(event: Event) -> None:
    """`decode_mapping` of a line's event is the event; the vocabulary, users' own, and what nobody knows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        with Dispatcher(Script((event,)), Log(path, echo=True)) as flow:
            flow.run([Tick()], check=False)
        (logged,) = events_of(path)
    assert decode_mapping(logged) == event


@pytest.mark.parametrize("recording", RECORDED, ids=lambda path: path.stem)
def test_a_log_is_a_source_when_it_is_read_back(recording: Path, tmp_path: Path) -> None:
    """Its events, run again, make the same response."""
    path = tmp_path / "run.jsonl"
    with Dispatcher(Log(path, echo=True)) as flow:
        run = flow.run(recording, check=False)
    again = Dispatcher().run(events_of(path), check=False)
    assert again.response == run.response
    assert again.status == run.status
    assert run.events == max(record["n"] for record in read(path) if "n" in record)


@given(wire_events | own_events, st.integers(1, 10))
def test_no_text_is_longer_than_max_chars(event: Event, most: int) -> None:
    """In a file, where it is asked for; each text says how much is missing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        with Dispatcher(Script((event,)), Log(path, max_chars=most)) as flow:
            flow.run([Tick()], check=False)
        (logged,) = events_of(path)

    def check(whole: Any, cut: Any) -> None:
        if isinstance(whole, str):
            assert cut == whole or cut == f"{whole[:most]}…+{len(whole) - most}"
            assert cut == whole or len(whole) > most
            assert len(cut.split("…+")[0]) <= most or cut == whole[:most]
        elif isinstance(whole, dict):
            assert whole.keys() == cut.keys()
            for name in whole:
                check(whole[name], cut[name])
        elif isinstance(whole, list):
            for one, other in zip(whole, cut, strict=True):
                check(one, other)
        else:
            assert whole == cut

    check(json.loads(event.to_json()), logged)


# --- lines for people ------------------------------------------------------------------------------------------------


def test_a_line_for_people_tells_run_number_type_and_fields(heard: Lines) -> None:
    """Texts in quotes, so that none looks like a field; names that are more than names, too."""
    events = [
        TextDelta(delta='Hi" n="2', item_id="m", output_index=0),
        UnknownEvent(type="x y=1", data={"type": "x y=1", 'a="': [1, {"b": "c"}], "n": None}),
        ToolProgress(call_id="c", progress={"at": 0.5}),
    ]
    run = sent(events, Log(logger="tests.log"))
    assert heard.lines == [
        f'{run.id} run status="running"',
        f'{run.id} 1 response.output_text.delta delta="Hi\\" n=\\"2" item_id="m" output_index=0',
        f'{run.id} 1 "x y=1" "a=\\""=[1,{{"b":"c"}}] n=null',
        f'{run.id} 1 eventflow.tool_progress call_id="c" progress={{"at":0.5}}',
        heard.lines[-1],
    ]
    assert heard.lines[-1].startswith(f'{run.id} run status="truncated" events=1 seconds=')
    assert heard.lines[-1].endswith(' error="StreamTruncated"')


def test_a_line_for_people_tells_how_the_response_stands(heard: Lines) -> None:
    """Of a lifecycle event: what it is, not all of it."""
    response = Response(
        id="resp",
        status="completed",
        model="m",
        output=(Message(id="a"), FunctionCall(name="f")),
        usage=Usage(input_tokens=1, output_tokens=2),
        temperature=1.0,
        instructions="You are",
    )
    run = sent([ResponseCompleted(response=response)], Log(logger="tests.log", echo=True))
    assert heard.lines[1] == (
        f'{run.id} 1 response.completed id="resp" status="completed" model="m" '
        'usage={"input_tokens":1,"output_tokens":2} output=["message","function_call"]'
    )


def test_a_line_for_people_is_short_when_the_event_is_long(heard: Lines) -> None:
    """200 characters of a field, 100 of a name, 30 fields; and it says what is missing."""
    fields = {f"field_{n}": n for n in range(100)}
    events: list[Event] = [
        TextDelta(delta="x" * 1000),
        ToolProgress(call_id="c", progress=["y" * 1000]),
        UnknownEvent(type="vendor." + "t" * 1000, data=fields),
        UnknownEvent(type="vendor.name", data={"n" * 1000: 1}),
    ]
    run = sent(events, Log(logger="tests.log"))
    text, progress, name, field = heard.lines[1:-1]
    assert text == f'{run.id} 1 response.output_text.delta delta="{"x" * 200}"…+800'
    assert progress == f'{run.id} 1 eventflow.tool_progress call_id="c" progress=["{"y" * 198}…+804'
    assert name.startswith(f'{run.id} 1 "vendor.{"t" * 93}…+907" field_0=0 field_1=1 ')
    assert name.endswith(" field_29=29 …+70")
    assert field == f'{run.id} 1 vendor.name "{"n" * 100}…+900"=1'


def test_max_chars_is_of_the_field_when_lines_are_for_people(heard: Lines) -> None:
    """It may be more or less than 200."""
    sent([TextDelta(delta="x" * 300)], Log(logger="tests.log", max_chars=2), Log(logger="tests.log", max_chars=300))
    shown = [line.split("delta=")[1] for line in heard.lines if "delta=" in line]
    assert shown == ['"xx"…+298', f'"{"x" * 300}"']


@pytest.mark.parametrize(
    ("logger", "name"),
    [
        (None, "eventflow.events"),
        ("app.stream", "app.stream"),
        (logging.getLogger("app.other"), "app.other"),
        (logging.LoggerAdapter(logging.getLogger("app.adapted")), "app.adapted"),
    ],
)
def test_lines_go_to_the_logger_that_is_given(logger: Any, name: str) -> None:
    """A name, a logger or an adapter; by default "eventflow.events"."""
    with attached(Lines(), name) as heard:
        sent([TextDelta(delta="a")], Log(logger=logger, level="warning"))
    assert [record.levelno for record in heard.records] == [logging.WARNING] * 3
    assert {record.name for record in heard.records} == {name}


def test_nothing_is_made_of_an_event_when_its_level_is_off(heard: Lines) -> None:
    """A log that is off costs a call; what cannot be shown is not even looked at."""

    class Bomb:
        def __repr__(self) -> str:
            raise AssertionError("looked at")

    logging.getLogger("tests.log").setLevel(logging.WARNING)
    sent([ToolProgress(call_id="c", progress=Bomb())], Log(logger="tests.log"))
    assert heard.records == []


# --- which events ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("*", ["response.output_text.delta", "tests.log.tick", "vendor.a", "vendor.b", "eventflow.tool_output"]),
        (TextDelta, ["response.output_text.delta"]),
        (("text", Tick), ["response.output_text.delta", "tests.log.tick"]),
        ("vendor.a*", ["vendor.a"]),
        (("unknown", "tool"), ["vendor.a", "vendor.b", "eventflow.tool_output"]),
        ("lifecycle", []),
        ((), []),
    ],
)
def test_only_the_events_that_are_selected_are_logged(select: Any, expected: list[str], tmp_path: Path) -> None:
    """Selectors as in `on`; start and end of the run always."""
    path = tmp_path / "run.jsonl"
    events = [
        TextDelta(delta="a"),
        Tick(),
        UnknownEvent(type="vendor.a", data={"type": "vendor.a"}),
        UnknownEvent(type="vendor.b", data={"type": "vendor.b"}),
        ToolOutput(call_id="c", output=""),
    ]
    for _ in range(2):
        sent([*events, *events], Log(path, events=select))
    assert [event["type"] for event in events_of(path)] == expected * 4
    assert sum("status" in record for record in read(path)) == 4


def test_what_lifecycle_events_echo_of_the_request_is_logged_only_when_asked_for(tmp_path: Path) -> None:
    """Instructions, tools and the like are the application's; the rest of the event stays whole."""
    secret: dict[str, Any] = {
        "instructions": "SECRET",
        "tools": [{"type": "mcp", "headers": {"Authorization": "SECRET"}}],
        "tool_choice": {"name": "SECRET"},
        "prompt": {"id": "SECRET"},
        "metadata": {"key": "SECRET"},
        "user": "SECRET",
        "safety_identifier": "SECRET",
        "prompt_cache_key": "SECRET",
        "text": {"format": {"schema": "SECRET"}},
        "input_transformations": ["SECRET"],
    }
    open_part: dict[str, Any] = {"id": "resp", "temperature": 0.5, "output": (Message(id="m"),)}
    events: list[Event] = [
        cls(response=Response(**secret, **open_part)) for cls in (ResponseCreated, ResponseCompleted, ResponseFailed)
    ]
    events.append(HandlerFailed(ValueError("x"), "handler", events[0]))
    events.append(HandlerFailed(ValueError("x"), "handler"))
    without, with_echo = tmp_path / "without.jsonl", tmp_path / "with.jsonl"
    sent(events, Log(without), Log(with_echo, echo=True))
    assert "SECRET" not in without.read_text()
    assert [decode_mapping(event) for event in events_of(without)[:3]] == [
        cls(response=Response(**open_part)) for cls in (ResponseCreated, ResponseCompleted, ResponseFailed)
    ]
    assert [decode_mapping(event) for event in events_of(with_echo)[:3]] == events[:3]
    assert "SECRET" in json.dumps(events_of(with_echo)[3])


def test_an_event_that_is_no_json_is_logged_as_far_as_it_goes(tmp_path: Path, heard: Lines) -> None:
    """Somebody's own object in a field of free JSON is no reason to end a run, nor to say nothing."""
    loop: list[Any] = []
    loop.append(loop)
    sent([ToolProgress(call_id="c", progress=loop)], Log(tmp_path / "a"), Log(logger="tests.log"))
    (event,) = events_of(tmp_path / "a")
    assert event["type"] == "eventflow.tool_progress"
    assert event["eventflow_unencodable"].startswith("RecursionError: ")
    assert ' 1 eventflow.tool_progress eventflow_unencodable="RecursionError: ' in heard.lines[1]
    sent([ToolProgress(call_id="c", progress=loop)], Log(tmp_path / "b", max_chars=5))
    assert "eventflow_unencodable" in events_of(tmp_path / "b")[0]


# --- the run ---------------------------------------------------------------------------------------------------------


def test_a_run_is_logged_from_its_start_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its id, its status, how many events it had, how long it took, and what it ended with."""
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("eventflow_plugins.log.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("eventflow_plugins.log.time.time", lambda: 1767225600.25)
    path = tmp_path / "run.jsonl"
    flow = Dispatcher(Log(path))
    done = flow.run([ResponseCompleted(response=Response(id="r"))])
    with pytest.raises(StreamTruncated):
        flow.run([TextDelta(delta="a")])
    records = read(path)
    at = {"time": 1767225600.25, "run": done.id}
    event = {"type": "response.completed", "response": {"id": "r"}}
    assert records[:3] == [
        {**at, "status": "running"},
        {**at, "n": 1, "event": event},
        {**at, "status": "completed", "events": 1, "seconds": 2.5, "error": None},
    ]
    assert records[5] | {"run": ""} == {
        "time": 1767225600.25,
        "run": "",
        "status": "truncated",
        "events": 1,
        "seconds": 1.0,
        "error": "StreamTruncated",
    }
    assert path.read_text().startswith(f'{{"time":1767225600.25,"run":"{done.id}","status":"running"}}\n')


def test_the_end_is_logged_however_a_run_ends(tmp_path: Path) -> None:
    """A handler's exception, a cancellation, a loop that is left."""
    path = tmp_path / "run.jsonl"
    flow = Dispatcher(Log(path, events=()))
    source = [TextDelta(delta="a"), TextDelta(delta="b")]
    with flow.on(TextDelta, lambda event: 1 // 0), pytest.raises(ZeroDivisionError):
        flow.run(source)

    def cancel(event: TextDelta, run: Run) -> None:
        run.cancel()

    with flow.on(TextDelta, cancel):
        flow.run(source)
    for _ in flow.stream(source):
        break
    assert [record["status"] for record in read(path) if record["status"] != "running"] == [
        "failed",
        "cancelled",
        "cancelled",
    ]


def test_the_end_has_no_duration_when_the_run_never_began(tmp_path: Path) -> None:
    """A plugin before it failed to start: there is an end, but no start."""

    class Broken(Plugin):
        def start(self, run: Run) -> None:
            raise ZeroDivisionError

    path = tmp_path / "run.jsonl"
    with pytest.raises(ZeroDivisionError):
        Dispatcher(Broken(), Log(path)).run([Tick()])
    (record,) = read(path)
    assert (record["status"], record["seconds"]) == ("failed", None)


def test_events_have_the_number_of_the_one_they_followed(tmp_path: Path) -> None:
    """What is emitted is no event of the stream, and what a plugin before dropped leaves a gap."""

    class Drop(Plugin):
        @transform(TextDelta)
        def drop(self, event: TextDelta) -> None:
            return None

    path = tmp_path / "run.jsonl"
    call = FunctionCall(name="f", arguments="{}", call_id="c", status="completed")
    source = [Tick(), TextDelta(delta="a"), OutputItemDone(item=call), Tick()]
    Dispatcher(Drop(), Log(path)).run(source, check=False)
    numbered = [(record["n"], record["event"]["type"]) for record in read(path) if "n" in record]
    assert numbered == [
        (1, "tests.log.tick"),
        (3, "response.output_item.done"),
        (3, "eventflow.tool_call"),
        (4, "tests.log.tick"),
    ]


def test_an_async_run_is_logged_as_a_sync_one_is(tmp_path: Path) -> None:
    """The same lines, but for the times."""
    source = [TextDelta(delta="a"), ResponseCompleted(response=Response(id="r"))]
    Dispatcher(Log(tmp_path / "sync")).run(source)
    asyncio.run(Dispatcher(Log(tmp_path / "async")).arun(source))
    ignored: dict[str, Any] = {"time": 0, "run": "", "seconds": 0}
    sync, asynchronous = ([record | ignored for record in read(tmp_path / name)] for name in ("sync", "async"))
    assert sync == asynchronous


# --- the file --------------------------------------------------------------------------------------------------------


def test_every_line_is_intact_when_fifty_runs_write_at_once(tmp_path: Path) -> None:
    """In threads, through two dispatchers and two file objects: each line whole, each run's lines in order."""
    path = tmp_path / "run.jsonl"
    text = "x" * 5_000 + "\n"
    flows = [Dispatcher(Log(path)), Dispatcher(Log(path, flush=True))]
    start = threading.Barrier(50)
    ids: list[str] = []

    def one(number: int) -> None:
        start.wait()
        source = [TextDelta(delta=f"{number} {n} {text}") for n in range(40)]
        ids.append(flows[number % 2].run(source, check=False).id)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for flow in flows:
        flow.close()
    runs: dict[str, list[dict[str, Any]]] = {}
    for record in read(path):
        runs.setdefault(record["run"], []).append(record)
    assert sorted(runs) == sorted(ids)
    for records in runs.values():
        assert [record.get("status") for record in records] == ["running", *[None] * 40, "truncated"]
        assert [record["n"] for record in records[1:-1]] == list(range(1, 41))
        numbers = {record["event"]["delta"].split()[0] for record in records[1:-1]}
        assert len(numbers) == 1
        assert all(record["event"]["delta"].endswith(text) for record in records[1:-1])


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    """A log is never emptied."""
    path = tmp_path / "run.jsonl"
    path.write_text('{"before":1}\n')
    for _ in range(2):
        with Dispatcher(Log(str(path), events=())) as flow:
            flow.run([Tick()], check=False)
    assert [next(iter(record)) for record in read(path)] == ["before", *["time"] * 4]


def test_a_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    """Whoever follows the file sees an event when its handlers are called; without flush, when it is closed."""
    seen: dict[str, int] = {}
    for name, flush in (("at_once", True), ("later", False)):
        path = tmp_path / name
        with Dispatcher(Log(path, flush=flush)) as flow:
            flow.on(Tick, lambda event, path=path, name=name: seen.update({name: len(read(path))}))
            flow.run([Tick()], check=False)
        assert len(read(path)) == 3
    assert seen == {"at_once": 2, "later": 0}


def test_lines_are_written_64_kib_at_a_time_without_flush(tmp_path: Path) -> None:
    """What waits is bounded while a run goes on."""
    path = tmp_path / "run.jsonl"
    flow = Dispatcher(Log(path, flush=False))
    flow.run([TextDelta(delta="x" * 1_000)] * 100, check=False)
    assert 64 * 1024 <= path.stat().st_size < 100_000
    flow.close()
    assert len(read(path)) == 102


def test_one_log_serves_two_dispatchers_and_is_opened_anew(tmp_path: Path) -> None:
    """The last one to close it closes the file; a later run opens it again; closing twice is once."""
    path = tmp_path / "run.jsonl"
    log = Log(path, events=())
    first, second = Dispatcher(log), Dispatcher(log)
    for flow in (first, second):
        flow.run([Tick()], check=False)
    first.close()
    second.run([Tick()], check=False)
    second.close()
    second.close()
    second.run([Tick()], check=False)
    second.close()
    assert len(read(path)) == 8


def test_a_run_that_outlives_its_log_fails(tmp_path: Path) -> None:
    """Nothing is logged into nowhere."""
    flow = Dispatcher(Log(tmp_path / "run.jsonl"))
    flow.on(Tick, lambda event: flow.close())
    with pytest.raises(PluginError, match="is closed"):
        flow.run([Tick(), Tick()])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "Is a directory"), ("no/such/run.jsonl", "No such file or directory"), ("a\0b", "null byte")],
)
def test_a_file_that_cannot_be_written_is_an_error_before_the_first_event(
    name: str, reason: str, tmp_path: Path
) -> None:
    """It names the file, the reason, and what to do."""
    flow = Dispatcher(Log(f"{tmp_path}/{name}"))
    with pytest.raises(PluginError, match=reason) as caught:
        flow.run([Tick()])
    assert str(tmp_path) in str(caught.value)
    assert "Name a file" in str(caught.value)
    with pytest.raises(PluginError):
        flow.__enter__()


# --- a disk that takes nothing ---------------------------------------------------------------------------------------

full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@full
def test_a_disk_that_is_full_ends_the_run(complaints: Lines) -> None:
    """At the first line that cannot be written; the error says why and what may be done."""
    flow = Dispatcher(Log("/dev/full"))
    with pytest.raises(PluginError, match=r"'/dev/full': No space left on device.*isolate") as caught:
        flow.run([Tick()])
    assert isinstance(caught.value.__cause__, OSError)
    assert "Log.start" in caught.value.__notes__[0]
    with pytest.raises(PluginError, match="lost"):
        flow.close()


@full
def test_a_run_goes_on_when_the_disk_is_full_and_errors_are_isolated(complaints: Lines) -> None:
    """Each line that cannot be written is reported, as an event and to the log; that report, only to the log."""
    failures: list[HandlerFailed] = []
    flow = Dispatcher(Log("/dev/full", errors="isolate"))
    flow.on(HandlerFailed, failures.append)
    run = flow.run([Tick(), ResponseCompleted(response=Response(id="r"))])
    assert run.status == "completed"
    assert [failure.event.type for failure in failures if failure.event] == ["tests.log.tick", "response.completed"]
    assert all(isinstance(failure.error, PluginError) for failure in failures)
    assert len(complaints.records) == 6  # the start, two events and their two reports, the end
    with pytest.raises(PluginError, match="bytes are lost"):
        flow.close()
    flow.close()


class Disk:
    """`os.write` that takes so many bytes at each call, or fails where it is to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes: Iterable[int | None]) -> None:
        self._takes = iter(takes)
        self._write = os.write
        monkeypatch.setattr("eventflow_plugins.line_file.os.write", self)

    def __call__(self, file: int, data: bytes) -> int:
        takes = next(self._takes, len(data))
        if takes is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(file, data[: max(1, takes)])


@given(st.lists(st.none() | st.integers(1, 40), max_size=40))
def test_nothing_is_lost_or_torn_when_the_disk_recovers(takes: list[int | None]) -> None:
    """However it takes the bytes, and whenever it takes none for a while: every line is there, once, in order."""
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        logging.getLogger("eventflow").setLevel(logging.CRITICAL + 1)
        Disk(monkeypatch, takes)
        flow = Dispatcher(Log(path, errors="isolate", events=Tick))
        flow.run([*(Tick(n=n) for n in range(10)), ResponseCompleted(response=Response(id="r"))])
        monkeypatch.undo()
        flow.close()
        logging.getLogger("eventflow").setLevel(logging.NOTSET)
        assert [record.get("event", {}).get("n", 0) for record in read(path)] == [0, *range(10), 0]


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaints: Lines) -> None:
    """A mebibyte; then lines are lost, and each says so."""
    Disk(monkeypatch, iter(lambda: None, 1))
    path = tmp_path / "run.jsonl"
    flow = Dispatcher(Log(path, errors="isolate", events=TextDelta))
    failures: list[str] = []
    flow.on(HandlerFailed, lambda failure: failures.append(str(failure.error)))
    flow.run([*[TextDelta(delta="x" * 100_000)] * 15, ResponseCompleted(response=Response())])
    assert ["is lost" in failure for failure in failures] == [False] * 11 + [True] * 4
    monkeypatch.undo()
    flow.close()
    assert len(events_of(path)) == 11


def test_what_was_lost_does_not_come_back_when_the_file_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to be lost."""
    path = tmp_path / "run.jsonl"
    flow = Dispatcher(Log(path, flush=False))
    flow.run([Tick()], check=False)
    Disk(monkeypatch, [None])
    with pytest.raises(PluginError, match=r"\d+ bytes are lost"):
        flow.close()
    run = flow.run([Tick()], check=False)
    flow.close()
    assert {record["run"] for record in read(path)} == {run.id}


@pytest.mark.parametrize("least", [1, 100], ids=["at-once", "in-blocks"])
def test_line_when_interrupted_anywhere_does_not_keep_the_file(tmp_path: Path, least: int) -> None:
    """Wherever Ctrl-C comes while a line is written, the next who writes does not wait for it."""
    file = LineFile(str(tmp_path / "run.jsonl"), owner="Log", what="log", least=least)
    file.open()
    for _ in interrupted(lambda: file.write(b"x" * 60 + b"\n"), "write", "_written", "_drain"):
        assert not file._waiting.here().lock.locked()
    file.close()


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"path": "a", "logger": "b"}, "file or to a logger"),
        ({"path": logging.getLogger("a")}, "logger="),
        ({"path": 3}, "path of a file"),
        ({"logger": print}, "logger or its name"),
        ({"level": "loud"}, "level of logging"),
        ({"level": None}, "level of logging"),
        ({"events": "response.output_text.dleta"}, "did you mean"),
        ({"events": ("text", 3)}, "event classes"),
        ({"max_chars": 0}, "max_chars"),
        ({"max_chars": True}, "max_chars"),
        ({"errors": "ignore"}, "isolate"),
    ],
)
def test_a_configuration_that_is_none_is_refused(configuration: dict[str, Any], message: str) -> None:
    """When it is made, with what to write instead."""
    with pytest.raises(UsageError, match=message):
        Log(**configuration)


def test_repr_shows_the_configuration() -> None:
    """And nothing of the inside."""
    assert repr(Log("run.jsonl", events="text")).startswith(
        "Log(path='run.jsonl', logger=None, level=20, events='text'"
    )
    assert "_file" not in repr(Log("run.jsonl"))
