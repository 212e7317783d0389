"""`Tools`: each call ends once, whatever a model, a function, an approval or a handler does; sync and async alike."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import gc
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Any

import anyio
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from scenarios import (
    ASYNC,
    FACES,
    AsyncWatched,
    Watched,
    answer,
    attached,
    call,
    closed,
    completed,
    created,
    drive,
    failed,
    incomplete,
    interrupted,
    opened,
)

from eventflow import Dispatcher, Plugin, Run, ToolCall, ToolOutput, ToolProgress, on
from eventflow.errors import APIStreamError, StreamTruncated, ToolError
from eventflow.jobs import start_task, start_thread
from eventflow_plugins import Tools, tool
from eventflow_plugins.tools import PendingCall, Slots, ToolContext

JSON = dict[str, Any]
PATIENCE = 5.0  # seconds until a test that hangs fails
SOON = 0.03  # seconds: a timeout that is to run out


def turn(*items: JSON, end: Callable[..., JSON] = completed) -> list[JSON]:
    """A response of these calls."""
    events = [
        event for index, item in enumerate(items) for event in (opened(item, index=index), closed(item, index=index))
    ]
    return [created(), *events, end(*items) if end in (completed, incomplete) else end()]


def asked(name: str, *, number: int = 1, **arguments: Any) -> JSON:
    """A call with arguments."""
    return call(json.dumps(arguments), name=name, number=number)


def one(*tools: Any, name: str = "probe", face: str = "run", **options: Any) -> ToolOutput:
    """How a call of one tool without arguments ends."""
    run = drive(face, turn(asked(name)), Dispatcher(Tools(tools, **options))).run
    (output,) = run[Tools].outputs
    assert [item["output"] for item in run.outbox] == [output.output]
    return output


@contextlib.contextmanager
def lines(level: int = logging.INFO) -> Generator[list[str]]:
    """What is logged meanwhile, a line each."""
    found: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    with attached(Lines(level), "eventflow.tools", level):
        yield found


def free(slots: Slots) -> bool:
    """Whether every slot is free, none twice."""
    taken = [slots.take(holder, _nothing) for holder in range(slots.count + 1)]
    for holder in range(slots.count):
        slots.give(holder)
    slots.forget(_nothing)
    return taken == [True] * slots.count + [False]


def _nothing() -> None:
    """Nobody waits."""


def in_trio(flow: Dispatcher, events: Iterable[JSON]) -> Run:
    """A run under trio."""

    async def main() -> Run:
        with trio.fail_after(PATIENCE):
            return await flow.arun(AsyncWatched(events))

    return trio.run(main)


RUNNERS: dict[str, Callable[[Dispatcher, list[JSON]], Run]] = {
    "sync": lambda flow, events: flow.run(Watched(events)),
    "asyncio": lambda flow, events: asyncio.run(flow.arun(AsyncWatched(events))),
    "trio": in_trio,
}
every_runner = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)

# --- any calls -------------------------------------------------------------------------------------------------------

names = st.sampled_from(["echo", "aecho", "alone", "fails", "afails", "steps", "denied", "nosuch"])
texts = st.sampled_from(["{}", '{"n": 1}', '{"n": 2}', '{"n": "x"}', '{"n": 1, "n": 1}', '{"m": 1}', '{"n": 1', ""])


class Crowd:
    """Tools that note how many of them are at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0
        self.ran: list[str] = []

    @contextlib.contextmanager
    def at_work(self, name: str) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.ran.append(name)
            assert name != "alone" or self.now == 1
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1

    def tools(self) -> list[Any]:
        def echo(n: int) -> int:
            with self.at_work("echo"):
                return n

        async def aecho(n: int) -> int:
            with self.at_work("aecho"):
                await anyio_or_asyncio_checkpoint()
                return n

        @tool(parallel=False)
        def alone(n: int) -> int:
            with self.at_work("alone"):
                return n

        def fails(n: int) -> int:
            with self.at_work("fails"):
                raise ValueError(n)

        async def afails(n: int) -> int:
            with self.at_work("afails"):
                raise ValueError(n)

        def steps(n: int) -> Generator[int]:
            with self.at_work("steps"):
                yield from range(n + 1)

        def denied(n: int) -> None:
            raise AssertionError("it ran")

        return [echo, aecho, alone, fails, afails, steps, denied]


async def anyio_or_asyncio_checkpoint() -> None:
    """Let others have their turn, whatever the loop."""
    await anyio.lowlevel.checkpoint()


def expected(name: str, text: str) -> str:
    """How a call must end."""
    if name == "nosuch":
        return "unknown"
    if text not in ('{"n": 1}', '{"n": 2}'):
        return "invalid"
    return {"fails": "error", "afails": "error", "denied": "denied"}.get(name, "ok")


@settings(max_examples=40)
@given(
    calls=st.lists(st.tuples(names, texts, st.integers(0, 5)), max_size=6),
    concurrency=st.integers(1, 3),
    when=st.sampled_from(["response", "item"]),
    approved=st.booleans(),
    runner=st.sampled_from(list(RUNNERS)),
)
def test_calls_when_they_are_anything(
    calls: list[tuple[str, str, int]], concurrency: int, when: Any, approved: bool, runner: str
) -> None:
    """Each call ends in one `ToolOutput` and one item, in order, once an id; no more run at once than may."""
    crowd, slots = Crowd(), Slots(concurrency)
    approve = None if approved and all(name != "denied" for name, _, _ in calls) else lambda call: call.name != "denied"
    with Dispatcher(Tools(crowd.tools(), when=when, concurrency=slots, approve=approve)) as flow:
        heard: list[ToolOutput] = []
        flow.on(ToolOutput, heard.append)
        run = RUNNERS[runner](flow, turn(*(call(text, name=name, number=number) for name, text, number in calls)))
    first: dict[str, tuple[str, str]] = {}
    for name, text, number in calls:
        first.setdefault(f"call_{number}", (name, text))
    assert run.status == "completed"
    assert [item["call_id"] for item in run.outbox] == list(first)
    assert {output.call_id: output.outcome for output in heard} == {
        call_id: expected(*made) for call_id, made in first.items()
    }
    assert len(heard) == len(first)
    assert {output.call_id: output.output for output in heard} == {it["call_id"]: it["output"] for it in run.outbox}
    assert [output.call_id for output in run[Tools].outputs] == list(first)
    valid = [name for name, text in first.values() if expected(name, text) in ("ok", "error")]
    assert sorted(crowd.ran) == sorted(valid)
    assert crowd.most <= concurrency
    assert free(slots)


# --- how a call goes -------------------------------------------------------------------------------------------------


def weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 18 °C"


async def aweather(city: str) -> str:
    """The weather of a city."""
    await anyio.lowlevel.checkpoint()
    return f"{city}: 18 °C"


@pytest.mark.parametrize("function", [weather, aweather], ids=["plain", "async"])
@pytest.mark.parametrize("when", ["response", "item"])
@pytest.mark.parametrize("face", FACES)
def test_call_when_it_is_valid(face: str, when: Any, function: Any) -> None:
    """On every face the function is called, its output told, and sent back."""
    with Dispatcher(Tools([function], when=when)) as flow:
        done = drive(face, turn(asked(function.__name__, city="Paris")), flow)
    item = {"type": "function_call_output", "call_id": "call_1", "output": "Paris: 18 °C"}
    assert done.raised is None
    assert done.run.outbox == [item]
    (output,) = (event for event in done.heard if isinstance(event, ToolOutput))
    assert (output.call_id, output.name, output.outcome) == ("call_1", function.__name__, "ok")
    assert output.duration is not None
    assert done.given is None or output in done.given


def test_call_when_run_is_sync_inside_an_event_loop() -> None:
    """An async tool of a sync run has a loop of its own: the one that waits for the run is not needed."""

    async def main() -> list[Any]:
        with Dispatcher(Tools([aweather])) as flow:
            return flow.run(turn(asked("aweather", city="Paris"))).outbox

    assert asyncio.run(main())[0]["output"] == "Paris: 18 °C"


@every_runner
def test_call_when_wrapper_hides_that_it_is_async(runner: Any) -> None:
    """A plain wrapper of an async function runs in a thread; what it gives is awaited."""
    import functools

    threads: list[str] = []

    @functools.wraps(aweather)
    def wrapper(city: str) -> Any:
        threads.append(threading.current_thread().name)
        return aweather(city)

    with Dispatcher(Tools([wrapper])) as flow:
        assert runner(flow, turn(asked("aweather", city="P"))).outbox[0]["output"] == "P: 18 °C"
    assert threads == ["eventflow-tool aweather"]


def test_call_when_function_gives_an_awaitable_unasked() -> None:
    """Nobody knew that it must be awaited: an error that says what to write."""

    def probe() -> Any:
        return aweather("Paris")

    assert "make it an async function" in one(probe).output


def test_call_when_custom() -> None:
    """Free text reaches the function as it is; the item that answers is of its own kind."""

    @tool(kind="custom")
    def script(source: str) -> str:
        return source.upper()

    item = {
        "type": "custom_tool_call",
        "id": "ct_1",
        "call_id": "call_1",
        "name": "script",
        "input": "{a",
        "status": "completed",
    }
    run = Dispatcher(Tools([script])).run(turn(item))
    assert run.outbox == [{"type": "custom_tool_call_output", "call_id": "call_1", "output": "{A"}]
    mixed = Dispatcher(Tools([script])).run(turn(asked("script")))
    assert mixed[Tools].outputs[0].outcome == "invalid"


variable = contextvars.ContextVar("variable", default="unset")


@every_runner
@pytest.mark.parametrize("plain", [True, False])
def test_call_when_context_variables_are_set(runner: Any, plain: bool) -> None:
    """A tool sees the context variables of who runs it."""

    def get() -> str:
        return variable.get()

    async def aget() -> str:
        return variable.get()

    def run() -> Run:
        variable.set("set")
        with Dispatcher(Tools([get, aget])) as flow:
            return runner(flow, turn(asked("get" if plain else "aget")))  # type: ignore[no-any-return]

    assert contextvars.copy_context().run(run).outbox[0]["output"] == "set"


@pytest.mark.parametrize("when", ["response", "item"])
@pytest.mark.parametrize(
    "events",
    [
        turn(asked("probe"), end=incomplete),
        turn(asked("probe"), end=failed),
        turn(asked("probe"))[:-1],
        turn(call("{}", name="probe", status="incomplete")),
    ],
    ids=["incomplete", "failed", "truncated", "item"],
)
def test_call_when_it_or_its_response_is_not_complete(events: list[JSON], when: Any) -> None:
    """With ``when="response"`` nothing of such a response runs; an incomplete item never does."""
    ran: list[int] = []

    def probe() -> None:
        ran.append(1)

    done = drive("run", events, Dispatcher(Tools([probe], when=when)))
    assert done.run.outbox == []
    if when == "response" or events[-1]["type"] == "response.completed":
        assert ran == []
    assert isinstance(done.raised, APIStreamError | StreamTruncated | None)


def test_call_when_item_runs_it_while_the_stream_goes_on() -> None:
    """With ``when="item"`` the tool runs before the rest comes; with ``response`` after the source is closed."""
    ran = threading.Event()

    def probe() -> bool:
        return source.closed == 0 if ran.is_set() else ran.set() is None

    class Slow(Watched):
        def __next__(self) -> Any:
            item = super().__next__()
            assert item["type"] != "response.completed" or ran.wait(PATIENCE)
            return item

    source: Any = Slow(turn(asked("probe")))
    assert Dispatcher(Tools([probe], when="item")).run(source).outbox[0]["output"] == "true"
    source = Watched(turn(asked("probe")))
    assert Dispatcher(Tools([probe])).run(source).outbox[0]["output"] == "false"


def test_call_when_id_comes_twice() -> None:
    """One id runs once, in all the `Tools` of a pipeline; a call that cannot be answered does not run."""
    ran: list[str] = []

    def first() -> None:
        ran.append("first")

    def second() -> None:
        ran.append("second")

    nameless = {**asked("first", number=2), "call_id": "", "id": ""}
    items = [asked("first"), asked("first"), {**asked("second"), "id": "other"}, nameless]
    with lines() as logged:
        run = Dispatcher(Tools([first]) | Tools([second])).run(turn(*items))
    assert ran == ["first"]
    assert len(run.outbox) == 1
    assert sum(" ignored " in line for line in logged) == 3


def test_call_when_another_one_has_its_id() -> None:
    """What a model asked for and nobody does is told at level WARNING; the same once more is no loss."""

    def probe(n: int = 0) -> int:
        return n

    def told(*items: JSON) -> list[str]:
        with lines(logging.WARNING) as logged:
            (output,) = Dispatcher(Tools([probe])).run(turn(*items)).outbox
        assert output["output"] == "1"
        return [line.partition(" ")[2].partition(" arguments=")[0] for line in logged]

    first = asked("probe", n=1)
    ignored = 'ignored why="a different call came with this id" tool="{}" call="call_1"'
    assert told(first, first) == []
    assert told(first, asked("probe", n=2)) == [ignored.format("probe")]
    assert told(first, asked("other", n=1)) == [ignored.format("other")]
    nameless = {**asked("probe", n=2), "call_id": "", "id": ""}
    assert told(first, nameless) == ['ignored why="it has no id" tool="probe" call=""']


def test_tools_when_two_are_in_one_pipeline() -> None:
    """Each answers its own, the first for names that neither has; two of one name are an error."""

    def other(city: str) -> str:
        return city

    flow = Dispatcher(Tools([weather]) | Tools([other]))
    run = flow.run(turn(asked("other", city="b"), asked("weather", number=2, city="a"), asked("no", number=3)))
    assert {item["call_id"]: item["output"] for item in run.outbox} == {
        "call_2": "a: 18 °C",
        "call_3": "there is no tool 'no'; the tools are: weather, other",
        "call_1": "b",
    }
    with pytest.raises(ToolError, match="'weather'"):
        Dispatcher(Tools([weather]) | Tools([weather])).run(turn())


def test_tools_when_a_plugin_calls_as_the_run_finishes() -> None:
    """What is called because of an output runs too; what is called after the tools have ended is answered."""

    class Again(Plugin):
        @on(ToolOutput)
        def again(self, event: ToolOutput, run: Run) -> None:
            if event.call_id == "call_1":
                run.emit(ToolCall("function", "weather", '{"city": "b"}', "call_2"))

    class Late(Plugin):
        def finish(self, run: Run) -> None:
            run.emit(ToolCall("function", "weather", '{"city": "c"}', "call_3"))

    flow = Dispatcher(Tools([weather]), Again(), Late())
    run = flow.run(turn(asked("weather", city="a")))
    told = [(output.call_id, output.outcome) for output in run[Tools].outputs]
    assert told == [("call_1", "ok"), ("call_2", "ok"), ("call_3", "error")]
    assert [item["call_id"] for item in run.outbox] == ["call_1", "call_2", "call_3"]
    assert flow.run(turn(end=incomplete)).outbox == []
    assert flow.run([*answer("Hello")]).outbox[0]["call_id"] == "call_3"


# --- what tools do ---------------------------------------------------------------------------------------------------


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize(
    ("error", "output"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * 500),
        (ValueError("\x1b[31mred\x07"), "ValueError: red"),
        (Unspeakable(), "Unspeakable: its message cannot be read (ValueError)"),
        (SystemExit(3), "SystemExit: 3"),
        (BaseExceptionGroup("two", [SystemExit(1)]), "BaseExceptionGroup: two (1 sub-exception)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tool_when_it_raises(runner: Any, is_async: bool, error: BaseException, output: str) -> None:
    """The model is told the type and a short message; the tool beside it ends well, and so does the run."""

    def probe() -> None:
        raise error

    async def aprobe() -> None:
        raise error

    with Dispatcher(Tools([probe, aprobe, weather])) as flow:
        run = runner(flow, turn(asked("aprobe" if is_async else "probe"), asked("weather", number=2, city="a")))
    assert [item["output"] for item in run.outbox] == [output, "a: 18 °C"]
    assert [each.outcome for each in run[Tools].outputs] == ["error", "ok"]


@every_runner
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), StopIteration(3)], ids=repr
)
def test_tool_when_a_plain_one_raises_what_ends_programs(runner: Any, error: BaseException) -> None:
    """In a thread that is an exception like any other."""

    def probe() -> None:
        raise error

    async def approve(pending: PendingCall) -> bool:
        return True

    for options in ({}, {"approve": approve}):
        with Dispatcher(Tools([probe], timeout=None, **options)) as flow:
            run = runner(flow, turn(asked("probe")))
        (output,) = run[Tools].outputs
        assert output.outcome == "error"
        assert output.output.startswith(type(error).__name__)


@pytest.mark.parametrize("face", ["run", *ASYNC])
def test_tool_when_it_cancels_itself(face: str) -> None:
    """That is its failure, and not that of the run."""

    async def probe() -> None:
        raise asyncio.CancelledError

    assert one(probe, face=face, timeout=None).output == "it was cancelled"


def test_tool_when_ctrl_c_is_pressed_in_it() -> None:
    """In the main thread a KeyboardInterrupt is Ctrl-C, and goes through."""

    async def probe() -> None:
        raise KeyboardInterrupt

    slots = Slots(1)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(Dispatcher(Tools([probe], concurrency=slots)).arun(AsyncWatched(turn(asked("probe")))))
    assert free(slots)
    assert one(probe).output == "KeyboardInterrupt"  # in the background's loop it is none


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
def test_tool_when_it_takes_too_long(runner: Any) -> None:
    """It is given up: a task is cancelled, a thread left alone; its late result goes nowhere, its slot to the next."""
    go, left = threading.Event(), threading.Event()
    cancelled: list[int] = []
    slots = Slots(1)

    @tool(timeout=SOON)
    def stuck() -> str:
        go.wait(PATIENCE)
        left.set()
        return "late"

    @tool(timeout=SOON)
    async def astuck() -> str:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(1)

    with Dispatcher(Tools([stuck, astuck, weather], concurrency=slots)) as flow:
        run = runner(flow, turn(asked("stuck"), asked("astuck", number=2), asked("weather", number=3, city="a")))
        outputs = [(output.outcome, output.output) for output in run[Tools].outputs]
        said = f"the call took longer than {SOON:g} s"
        assert outputs == [("timeout", said), ("timeout", said), ("ok", "a: 18 °C")]
        assert cancelled == [1]
        go.set()
        assert left.wait(PATIENCE)
        assert free(slots)
    assert run.outbox[0]["output"] == said


def test_tool_when_the_clock_is_not_the_systems() -> None:
    """Timeouts are counted by the dispatcher's clock."""
    now, go = [0.0], threading.Event()
    runs: list[Run] = []

    def stuck() -> None:
        now[0] += 60.0
        runs[0].wake()
        go.wait(PATIENCE)

    flow = Dispatcher(Tools([stuck]), clock=lambda: now[0])
    flow.on("response.created", lambda event, run: runs.append(run))
    (output,) = flow.run(turn(asked("stuck")))[Tools].outputs
    go.set()
    assert (output.outcome, output.duration) == ("timeout", 60.0)


@every_runner
def test_tool_when_it_reports_progress(runner: Any) -> None:
    """The steps of a generator are told; what it returns, or yields last, is its output."""

    def returns() -> Generator[int, None, str]:
        yield 1
        return "end"

    def yields() -> Generator[int]:
        yield 1
        yield 2

    async def ayields() -> AsyncIterator[int]:
        yield 1
        yield 2

    def told(context: ToolContext) -> str:
        context.progress({"percent": 50})
        return "told"

    with Dispatcher(Tools([returns, yields, ayields, told], concurrency=1)) as flow:
        heard: list[ToolProgress] = []
        flow.on(ToolProgress, heard.append)
        calls = [asked(name, number=number) for number, name in enumerate(["returns", "yields", "ayields", "told"])]
        run = runner(flow, turn(*calls))
    assert [item["output"] for item in run.outbox] == ["end", "2", "2", "told"]
    told_of = [("returns", 1), ("yields", 1), ("yields", 2), ("ayields", 1), ("ayields", 2), ("told", {"percent": 50})]
    assert [(event.name, event.progress) for event in heard] == told_of


def test_tool_when_it_reports_more_than_the_run_can_tell() -> None:
    """Few reports wait to be told, the newest among them; none is told after the end."""
    reporters: list[Any] = []

    def probe(context: ToolContext) -> None:
        reporters.append(context.progress)
        for number in range(50_000):
            context.progress(number)

    flow = Dispatcher(Tools([probe]))
    heard: list[Any] = []
    flow.on(ToolProgress, lambda event: heard.append(event.progress))
    flow.run(turn(asked("probe")))
    assert heard == sorted(set(heard))
    assert heard[-64:] == list(range(50_000))[-64:]
    reporters[0]("late")
    assert "late" not in heard


@dataclasses.dataclass
class Place:
    name: str


def _model() -> Any:
    pydantic = pytest.importorskip("pydantic")
    return pydantic.create_model("City", name=str)(name="a")


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda: "as it is", "as it is"),
        (lambda: None, "null"),
        (lambda: {"a": [1, True]}, '{"a":[1,true]}'),
        (lambda: Place("a"), '{"name":"a"}'),
        (lambda: b"abc", '"YWJj"'),
        (lambda: ValueError("x"), '{"type":"ValueError","message":"x"}'),
        (lambda: float("nan"), "null"),
        (lambda: _model(), '{"name":"a"}'),
        (lambda: [_model()], '[{"name":"a"}]'),
        (lambda: "\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b1mx\x1bcy\x00\tz\r\n", "red xy\tz\r\n"),
        (lambda: "\x1b]never ended " + "\x1b]" * 5, "never ended "),
        (lambda: "half \ud800 whole \ud83d\ude00", "half \ufffd whole \U0001f600"),
    ],
)
def test_output_when_it_is_anything(make: Callable[[], Any], output: str) -> None:
    """Text is sent as it is, without what drives terminals; everything else as JSON."""

    def probe() -> Any:
        return make()

    told = one(probe)
    assert told.outcome == "ok"
    assert told.output == output
    json.dumps(told.output, ensure_ascii=False).encode()


def test_output_when_it_cannot_be_json() -> None:
    """What cannot be told is an error for the model."""
    endless: list[Any] = []
    endless.append(endless)

    def probe() -> Any:
        return endless

    assert one(probe).outcome == "error"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=400), st.integers(1, 300))
def test_output_when_it_is_too_long(text: str, most: int) -> None:
    """It has at most so many bytes: its head, how much is left out, and its tail."""

    def probe() -> str:
        return text + "\u20ac" * 100

    whole, output = probe(), one(probe, max_output=most).output
    data = len(whole.encode())
    assert len(output.encode()) <= most
    if data <= most:
        assert output == whole
    elif most > 100:
        head, number, tail = re.fullmatch(r"(?s)(.*)\n\[\.\.\. (\d+) bytes left out \.\.\.]\n(.*)", output).groups()  # type: ignore[union-attr]
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert 0 <= data - int(number) - len((head + tail).encode()) <= 6  # a character that was cut through


# --- approval --------------------------------------------------------------------------------------------------------


@every_runner
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("verdict", [True, False, None, 1, "yes", ValueError("no"), SystemExit()], ids=repr)
def test_approval_when_it_says_anything(runner: Any, is_async: bool, verdict: Any) -> None:
    """True, and nothing but True, lets a call run; it is asked about exactly what will run."""
    shown: list[PendingCall] = []

    def decide(pending: PendingCall) -> Any:
        shown.append(pending)
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    async def adecide(pending: PendingCall) -> Any:
        return decide(pending)

    @tool(dangerous=True)
    def remove(path: str, depth: int = 3) -> str:
        return path

    with Dispatcher(Tools([remove], approve=adecide if is_async else decide)) as flow, lines(logging.CRITICAL):
        run = runner(flow, turn(asked("remove", path="/tmp/x")))
    (output,) = run[Tools].outputs
    assert output.outcome == ("ok" if verdict is True else "denied")
    (pending,) = shown
    assert (pending.name, pending.arguments, pending.dangerous) == ("remove", {"path": "/tmp/x"}, True)
    assert (pending.call_id, pending.text, pending.run) == ("call_1", '{"path": "/tmp/x"}', run)


def test_approval_when_it_changes_what_it_is_shown() -> None:
    """It decides about a copy: what runs is what the model wrote."""

    def decide(pending: PendingCall) -> bool:
        pending.arguments["paths"].append("/etc")
        pending.arguments["more"] = 1
        return True

    def remove(paths: list[str]) -> list[str]:
        return paths

    run = Dispatcher(Tools([remove], approve=decide)).run(turn(asked("remove", paths=["a"])))
    assert run.outbox[0]["output"] == '["a"]'


def test_approval_when_it_gives_an_awaitable_unasked() -> None:
    """That is no True: the call is denied, and the log says why."""

    async def ask(pending: PendingCall) -> bool:
        return True

    def probe() -> None: ...

    with lines(logging.ERROR) as logged:
        assert one(probe, approve=lambda pending: ask(pending)).outcome == "denied"
    assert "is denied" in logged[0]


def test_slots_when_a_run_is_interrupted_anywhere() -> None:
    """Wherever Ctrl-C comes while a call is started, ended or dropped, its slot is free again, once."""
    slots = Slots(1)

    def probe() -> str:
        return "done"

    def run() -> None:
        Dispatcher(Tools([probe], concurrency=slots)).run(turn(asked("probe"), asked("nosuch", number=2)))

    for _ in interrupted(run, "take", "_advance", "_start", "bind", "settle", "_look_after"):
        assert free(slots)
    assert free(slots)


@pytest.mark.parametrize("ask", [False, True], ids=["alone", "asked"])
def test_timeout_when_another_tool_blocks_the_loop(ask: bool) -> None:
    """In a sync run a call that its event loop never comes to is ended in time, and never begins."""
    go = threading.Event()
    began: list[str] = []

    async def blocks() -> None:
        go.wait(PATIENCE)

    async def waits() -> None:
        began.append("waits")

    async def approve(pending: PendingCall) -> bool:
        return True

    with Dispatcher(Tools([blocks, waits], timeout=SOON, approve=approve if ask else None)) as flow:
        run = flow.run(turn(asked("blocks"), asked("waits", number=2)))
        go.set()
    assert [output.output for output in run[Tools].outputs] == [
        f"the call took longer than {SOON:g} s",
        f"the call did not begin within {SOON:g} s",
    ]
    assert began == []


@every_runner
@pytest.mark.parametrize("is_async", [False, True])
def test_approval_when_it_never_comes(runner: Any, is_async: bool) -> None:
    """Only ``total_timeout`` bounds it; a call that was given up does not run, however late it is allowed."""
    go, answered = threading.Event(), threading.Event()
    ran: list[int] = []

    def decide(pending: PendingCall) -> bool:
        go.wait(PATIENCE)
        answered.set()
        return True

    async def adecide(pending: PendingCall) -> bool:
        await anyio.sleep_forever()
        return True

    def probe() -> None:
        ran.append(1)

    slots = Slots(1)
    tools = Tools([probe], approve=adecide if is_async else decide, total_timeout=SOON, concurrency=slots)
    with Dispatcher(tools) as flow, lines() as logged:
        run = runner(flow, turn(asked("probe"), asked("probe", number=2)))
        go.set()
        assert is_async or answered.wait(PATIENCE)
    assert [output.outcome for output in run[Tools].outputs] == ["timeout", "timeout"]
    assert not any(" approved " in line for line in logged)
    assert "the calls of this response took longer" in run.outbox[0]["output"]
    assert free(slots)
    assert ran == []


# --- leaving ---------------------------------------------------------------------------------------------------------


class Held:
    """A tool, or an approval, that is under way until it is let go."""

    def __init__(self) -> None:
        self.entered, self.go, self.left = threading.Event(), threading.Event(), threading.Event()
        self.ran = 0

    def stay(self, *_: Any) -> bool:
        self.entered.set()
        self.go.wait(PATIENCE)
        self.left.set()
        return True

    async def astay(self, *_: Any) -> bool:
        self.entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.left.set()
        return True

    def tools(self, phase: str, slots: Slots) -> Tools:
        def hold() -> None:
            self.stay()

        async def ahold() -> None:
            await self.astay()

        def ran() -> None:
            self.ran += 1

        approve = {"approving": self.stay, "aapproving": self.astay}.get(phase)
        function = {"running": hold, "arunning": ahold}.get(phase, ran)
        return Tools([tool(name="probe")(function)], approve=approve, concurrency=slots)


PHASES = ("approving", "aapproving", "running", "arunning")


@every_runner
@pytest.mark.parametrize("phase", PHASES)
def test_run_when_cancelled_from_another_thread(runner: Any, phase: str) -> None:
    """In every phase the run ends at once, tasks are cancelled, slots are given back, and nothing is sent."""
    held, slots = Held(), Slots(1)
    runs: list[Run] = []
    with Dispatcher(held.tools(phase, slots)) as flow, lines() as logged:
        flow.on("response.created", lambda event, run: runs.append(run))

        def cancel() -> None:
            assert held.entered.wait(PATIENCE)
            runs[0].cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        run = runner(flow, turn(asked("probe"), asked("probe", number=2)))
        thread.join()
        assert run.cancelled
        assert run.status == "completed"  # the response is
        assert free(slots)
        if phase in ("aapproving", "arunning"):
            assert held.left.wait(PATIENCE)
        held.go.set()
    assert run.outbox == []
    assert held.ran == 0
    assert sum("ended outcome=cancelled" in line for line in logged) == 2
    assert {output.outcome for output in run[Tools].outputs} == {"cancelled"}


class Stop(Exception):
    """A handler's failure."""


@every_runner
@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt()], ids=repr)
def test_run_when_a_handler_raises_while_tools_run(runner: Any, error: BaseException) -> None:
    """The run ends with it; the tools under way are cancelled, their slots given back."""
    slots, begun = Slots(2), threading.Event()

    async def stuck() -> None:
        begun.set()
        await anyio.sleep_forever()

    def quick() -> None:
        begun.wait(PATIENCE)

    with Dispatcher(Tools([stuck, quick], concurrency=slots)) as flow:

        @flow.on(ToolOutput)
        def fail(event: ToolOutput) -> None:
            raise error

        with pytest.raises(type(error)):
            runner(flow, turn(asked("stuck"), asked("quick", number=2)))
        assert free(slots)


@pytest.mark.parametrize("phase", PHASES)
def test_stream_when_left_while_tools_run(phase: str) -> None:
    """A ``break`` ends the tools, in a sync loop and in an async one."""
    held, slots = Held(), Slots(1)
    quick = Tools([weather], when="item")
    events = turn(asked("weather", city="a"), asked("probe", number=2))

    def leave() -> Run:
        with Dispatcher(quick | held.tools(phase, slots)) as flow, flow.stream(events) as stream:
            for event in stream:
                if isinstance(event, ToolOutput):
                    break
        return stream.run

    async def aleave() -> Run:
        with Dispatcher(quick | held.tools(phase, slots)) as flow:
            async with flow.astream(AsyncWatched(events)) as stream:
                async for event in stream:
                    if isinstance(event, ToolOutput):
                        break
            return stream.run

    for run in (leave(), asyncio.run(aleave())):
        assert run.status == "cancelled"
        assert free(slots)
    held.go.set()
    assert held.ran == 0


def test_push_when_dropped_while_tools_run() -> None:
    """A pushed run that nobody feeds any more is stopped, without waiting."""
    held, slots = Held(), Slots(1)
    tools = held.tools("arunning", slots)
    tools.when = "item"
    flow = Dispatcher(tools)

    def push() -> None:
        with contextlib.suppress(Stop), flow.open() as run:
            for event in turn(asked("probe"))[:-1]:
                run.feed(event)
            assert held.entered.wait(PATIENCE)
            raise Stop

    push()
    gc.collect()
    assert held.left.wait(PATIENCE)
    assert free(slots)
    flow.close()


def test_tool_when_a_cancelled_task_will_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run waits a moment for it, and goes."""
    monkeypatch.setattr("eventflow_plugins.tools.plugin._GRACE", SOON)
    go = threading.Event()

    @tool(timeout=SOON)
    async def stubborn() -> None:
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(SOON)

    flow = Dispatcher(Tools([stubborn]))
    assert flow.run(turn(asked("stubborn")))[Tools].outputs[0].outcome == "timeout"
    go.set()
    flow.close()


def test_dispatcher_when_closed_while_tools_run() -> None:
    """The background's loop ends, and the call with it; the run is told."""
    held = Held()
    flow = Dispatcher(held.tools("arunning", Slots(1)))

    def close() -> None:
        assert held.entered.wait(PATIENCE)
        flow.close()

    thread = threading.Thread(target=close)
    thread.start()
    run = flow.run(turn(asked("probe")))
    thread.join()
    assert run.outbox[0]["output"] == "it was cancelled"
    flow.run(turn(asked("nosuch")))


def test_task_when_cancelled_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is gone without a word does not keep the run waiting."""

    def start(*arguments: Any, **options: Any) -> Any:
        job: Any = start_task(*arguments, **options)
        job._cancel()  # at once: a job's own cancel() waits its turn
        return job

    async def probe() -> None: ...

    monkeypatch.setattr("eventflow_plugins.tools.plugin.start_task", start)
    assert one(probe, face="arun", timeout=None).output == "it was cancelled"


def test_thread_when_it_begins_after_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that comes too late runs nothing."""
    late: list[Callable[[], object]] = []
    ran: list[int] = []

    def start(function: Callable[[], object], **_: Any) -> Any:
        late.append(function)
        return start_thread(_nothing, name="late", then=lambda: runs[0].cancel())

    def probe() -> None:
        ran.append(1)

    monkeypatch.setattr("eventflow_plugins.tools.plugin.start_thread", start)
    runs: list[Run] = []
    flow = Dispatcher(Tools([probe]))
    flow.on("response.created", lambda event, run: runs.append(run))
    with lines() as logged:
        assert flow.run(turn(asked("probe"))).outbox in ([], [_ANSWER])
        late[0]()
    assert ran == []
    assert "ended" in logged[-1]


_ANSWER = {"type": "function_call_output", "call_id": "call_1", "output": "it was cancelled"}


# --- slots -----------------------------------------------------------------------------------------------------------


def test_slots_when_there_is_room_calls_run_at_once() -> None:
    """Calls that wait for each other end: as many run at once as there are slots."""
    together = threading.Barrier(3)

    def meet() -> int:
        return 0 if together.wait(PATIENCE) < 3 else 1

    calls = [asked("meet", number=number) for number in range(6)]
    run = Dispatcher(Tools([meet], concurrency=3)).run(turn(*calls))
    assert [output.outcome for output in run[Tools].outputs] == ["ok"] * 6


@every_runner
def test_slots_when_shared_by_runs_at_once(runner: Any) -> None:
    """Runs of different dispatchers share them, and a run that waits for one is told when it is free."""
    held, slots = Held(), Slots(1)
    other = Dispatcher(held.tools("running", slots))
    thread = threading.Thread(target=lambda: other.run(turn(asked("probe"))))
    thread.start()
    assert held.entered.wait(PATIENCE)
    flow = Dispatcher(Tools([weather], concurrency=slots))
    flow.on("response.completed", lambda event: held.go.set())
    assert runner(flow, turn(asked("weather", city="a"))).outbox[0]["output"] == "a: 18 °C"
    thread.join()
    assert free(slots)


def test_slots_when_shared_by_event_loops_in_threads() -> None:
    """Whoever gives a slot back wakes who waits for it, whatever the loop and the thread of either."""
    tools = Tools([weather, aweather], concurrency=1)
    flow = Dispatcher(tools)
    runs: list[Run] = []

    async def many() -> None:
        async def run(name: str) -> None:
            runs.append(await flow.arun(AsyncWatched(turn(asked(name, city="a")))))

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(run, ("weather", "aweather")[number % 2])

    backends = ("asyncio", "trio", "trio")
    threads = [threading.Thread(target=anyio.run, args=(many,), kwargs={"backend": it}, daemon=True) for it in backends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [run.outbox[0]["output"] for run in runs] == ["a: 18 °C"] * 90
    assert free(tools.concurrency)


def test_tools_when_many_runs_share_them() -> None:
    """Hundreds of runs at once have their own calls and outputs, and eight tools at a time."""
    crowd = Crowd()
    flow = Dispatcher(Tools(crowd.tools(), approve=lambda pending: True))

    async def main() -> list[Run]:
        sources = [turn(asked("echo", n=n), asked("aecho", number=2, n=n)) for n in range(200)]
        return await asyncio.gather(*(flow.arun(AsyncWatched(source)) for source in sources))

    runs = asyncio.run(main())
    assert [[item["output"] for item in run.outbox] for run in runs] == [[str(n), str(n)] for n in range(200)]
    assert crowd.most <= 8


def test_parallel_when_false_serialises() -> None:
    """A tool that must run alone begins when the others have ended, and those behind it begin when it has."""
    order: list[str] = []
    begun = {"alone": threading.Event(), "behind": threading.Event()}

    def before() -> None:
        assert not begun["alone"].wait(SOON)
        order.append("before")

    @tool(parallel=False)
    def alone() -> None:
        begun["alone"].set()
        assert not begun["behind"].wait(SOON)
        order.append("alone")

    def behind() -> None:
        begun["behind"].set()
        order.append("behind")

    calls = [asked(name, number=number) for number, name in enumerate(("before", "alone", "alone", "behind"))]
    run = Dispatcher(Tools([before, alone, behind])).run(turn(*calls))
    assert [output.outcome for output in run[Tools].outputs] == ["ok"] * 4
    assert order == ["before", "alone", "alone", "behind"]


def test_threads_when_there_are_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot be started is an output, and its slot is free."""
    slots = Slots(1)

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    def probe() -> None: ...

    monkeypatch.setattr("eventflow_plugins.tools.plugin.start_thread", full)
    assert one(probe, concurrency=slots).output == "RuntimeError: can't start new thread"
    assert free(slots)


# --- what is told ----------------------------------------------------------------------------------------------------


def test_context_when_a_tool_asks_for_it() -> None:
    """It has what was granted and a key that is the same for the same call of the same response, and for no other."""

    def probe(told: ToolContext, n: int = 0) -> str:
        return f"{told.name} {told.call_id} {told.granted} {told.idempotency_key}"

    flow = Dispatcher(Tools([probe], context="alice"))

    def key(*items: JSON, response_id: str = "resp_1") -> str:
        run = flow.run([created(response_id), *turn(*items)[1:-1], completed(response_id=response_id)])
        words = str(run.outbox[0]["output"]).split()
        assert words[:3] == ["probe", items[0]["call_id"], "alice"]
        return words[3]

    base = key(asked("probe"))
    assert key(asked("probe")) == base
    others = [key(asked("probe", number=2)), key(asked("probe", n=1)), key(asked("probe"), response_id="resp_2")]
    nameless = [key(asked("probe"), response_id=""), key(asked("probe"), response_id="")]
    assert len({base, *others, *nameless}) == 6
    assert "alice" not in repr(ToolContext("1", "probe", "k", "alice", print))


hostile = st.text(
    st.characters(exclude_categories=()) | st.sampled_from("\n\r\x1b\u2028\"' =\\%"), min_size=1, max_size=120
)


@given(hostile, hostile)
def test_audit_when_names_are_hostile(name: str, call_id: str) -> None:
    """Every step is one line with the hash of the arguments; a name or an id cannot break it or forge another."""
    flow = Dispatcher(Tools([weather]))
    events = [created(), ToolCall("function", name, "{}", call_id), completed()]
    with lines() as logged:
        run = flow.run(events, check=False)
    step, word = r"requested|ended outcome=(?:unknown|invalid) duration=None", r'"(?:[^"\\]|\\.)*"'
    shape = rf"run_\w+ (?:{step}) tool={word} call={word} arguments=sha256:[0-9a-f]{{64}}"
    assert len(logged) == 2
    assert all(re.fullmatch(shape, line) and line.isascii() and line.isprintable() for line in logged)
    assert len(run.outbox) == 1


def test_audit_when_a_call_goes_its_way() -> None:
    """Requested, approved or denied, started, ended: a line each, no arguments in them."""

    def remove(path: str) -> None: ...

    with lines() as logged:
        Dispatcher(Tools([remove], approve=lambda call: call.call_id == "call_1")).run(
            turn(asked("remove", path="secret"), asked("remove", number=2, path="secret"))
        )
    steps = {number: [line.split()[1] for line in logged if f'"call_{number}"' in line] for number in (1, 2)}
    assert steps == {1: ["requested", "approved", "started", "ended"], 2: ["requested", "denied", "ended"]}
    assert "secret" not in "".join(logged)


def test_audit_when_the_log_is_slow_or_broken() -> None:
    """The run waits until an output is told, also where another thread has settled the call and still logs it."""

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if " ended " in record.getMessage():
                runs[0].wake()
                threading.Event().wait(SOON)
                raise OSError("the disk is full")

    runs: list[Run] = []
    heard: list[ToolOutput] = []
    flow = Dispatcher(Tools([weather]))
    flow.on("response.created", lambda event, run: runs.append(run))
    flow.on(ToolOutput, heard.append)
    logger, slow = logging.getLogger("eventflow.tools"), Slow()
    with lines():
        logger.addHandler(slow)
        try:
            run = flow.run(turn(asked("weather", city="a")))
        finally:
            logger.removeHandler(slow)
    assert [output.output for output in heard] == ["a: 18 °C"]
    assert len(run.outbox) == 1


def test_definitions_when_a_request_is_made() -> None:
    """They are what each tool tells."""
    definitions = Tools([weather, aweather]).definitions
    assert [definition["name"] for definition in definitions] == ["weather", "aweather"]


@pytest.mark.parametrize(
    ("tools", "options", "why"),
    [
        (weather, {}, "in a list"),
        ("weather", {}, "in a list"),
        ([weather, weather], {}, "two tools"),
        ([tool(dangerous=True)(lambda: None)], {}, "name it"),
        ([weather], {"when": "later"}, "when"),
        ([weather], {"approve": True}, "approve"),
        ([weather], {"concurrency": 0}, "concurrency"),
        ([weather], {"concurrency": True}, "concurrency"),
        ([weather], {"timeout": 0}, "timeout"),
        ([weather], {"timeout": float("nan")}, "timeout"),
        ([weather], {"total_timeout": float("inf")}, "total_timeout"),
        ([weather], {"max_output": 0}, "max_output"),
        ([weather], {"max_output": 1.5}, "max_output"),
        ([weather], {"max_depth": True}, "max_depth"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_tools_when_configured_wrongly(tools: Any, options: dict[str, Any], why: str) -> None:
    """A wrong configuration is an error where it is written."""
    with pytest.raises(ToolError, match=why):
        Tools(tools, **options)


def test_tools_when_dangerous_and_nobody_approves() -> None:
    """That is an error before anything runs."""

    @tool(dangerous=True)
    def remove(path: str) -> None: ...

    with pytest.raises(ToolError, match="who approves"):
        Tools([remove])


def test_slots_when_shown() -> None:
    """They tell how many they are; what configures a plugin is seen in its repr, what it grants is not."""
    assert repr(Slots(3)) == "Slots(3)"
    assert "secret" not in repr(Tools([weather], context="secret"))
