"""`Agent`: with a client in memory, a scripted server on loopback, and the real model where it is installed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any, Literal

import anyio
import attrs
import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow import (
    Agent,
    AgentResult,
    AsyncClient,
    Client,
    Plugin,
    Run,
    TextDelta,
    Timeouts,
    ToolCall,
    ToolOutput,
    TurnStarted,
    on,
)
from eventflow.cli.model_server import ModelServer
from eventflow.errors import (
    ConnectionFailed,
    HTTPStatusError,
    StreamTimeout,
    StreamTruncated,
    ToolError,
    UsageError,
)
from eventflow.events import InputTokensDetails, OutputTokensDetails, Reasoning, ResponseCompleted, Untyped, Usage
from eventflow.testing import FakeStream, Recorder, Reply, Server, stream
from eventflow.testing.streams import WireName
from eventflow_plugins import Accumulate, Tools

# A body that is left early leaves generators of httpx's and the SDK's behind, which trio warns of; none may be of ours.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(http|openai):ResourceWarning")

FACES = ("run", "stream", "arun asyncio", "astream asyncio", "arun trio", "astream trio")
WIRES: tuple[WireName, ...] = ("responses", "chat", "anthropic", "gemini")
CALL = ("get_weather", {"city": "Paris"})
faces = pytest.mark.parametrize("face", FACES)
streamed = pytest.mark.parametrize("face", ["stream", "astream asyncio", "astream trio"])


def get_weather(city: str) -> str:
    """The weather in a city."""
    if city == "Atlantis":
        raise LookupError("there is no such city")
    return f"18 °C in {city}"


class Answers(Plugin):
    """Answers calls on the spot: those of ``fail`` with a failure, those of ``ignore`` not at all."""

    definitions: tuple[dict[str, Any], ...] = ({"type": "function", "name": "ok", "parameters": {}},)

    @on(ToolCall)
    def answer(self, event: ToolCall, run: Run) -> None:
        if event.name != "ignore":
            outcome = "error" if event.name == "fail" else "ok"
            run.emit(ToolOutput(event.call_id, "given", event.name, outcome))
            run.outbox.append({"type": "function_call_output", "call_id": event.call_id, "output": "given"})


class Fake:
    """A client whose answers stand in a list: streams, events, and what is to be raised."""

    def __init__(self, *script: Any, is_async: bool = False) -> None:
        self.requests: list[dict[str, Any]] = []
        self.responses = self
        self._script = list(script)
        self._is_async = is_async

    def create(self, **parameters: Any) -> Any:
        """The next answer, or a coroutine that gives it."""
        self.requests.append(json.loads(json.dumps(parameters)))
        return self._later(self._script.pop(0)) if self._is_async else self._given(self._script.pop(0))

    async def _later(self, turn: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return self._given(turn)

    def _given(self, turn: Any) -> Any:
        if isinstance(turn, Exception):
            raise turn
        return turn


@attrs.frozen
class Held:
    """A conversation that was held.

    Attributes:
        result: What came of it.
        events: What a recorder in the pipeline saw of each turn.
        error: What was raised, or None.
    """

    result: AgentResult
    events: list[list[str]]
    error: Exception | None

    @property
    def comparable(self) -> tuple[object, ...]:
        """All that is the same whatever the face."""
        result = self.result
        outputs = [output.replace(duration=None) for output in result.outputs]
        runs = [(run.status, run.turn, run.text, run.outbox) for run in result.turns]
        told = (result.outcome, result.text, result.usage, result.items, result.previous_response_id)
        return (*told, outputs, runs, type(result.error), type(self.error), self.events)


def hold(
    face: str,
    make_client: Callable[[bool], Any],
    given: Any = "Hi",
    *,
    after: AgentResult | None = None,
    check: bool = True,
    handlers: Callable[[Agent], object] = lambda agent: None,
    opened: Callable[[Any], object] = lambda stream: None,
    plugins: tuple[Plugin, ...] = (),
    **options: Any,
) -> Held:
    """Hold a conversation by one of `FACES`.

    *make_client* is told whether it is to be async, *handlers* the agent, *opened* the stream before it is iterated.
    """
    method, _, backend = face.partition(" ")
    recorder = Recorder()
    arguments: dict[str, Any] = {"after": after, "check": check}

    def agent_of(client: Any) -> Agent:
        agent = Agent(client, model="m", plugins=(*plugins, recorder), **options)
        handlers(agent)
        return agent

    def held(result: AgentResult, error: Exception | None = None) -> Held:
        return Held(result, [run.types for run in recorder.runs], error)

    def sync() -> Held:
        client = make_client(False)
        agent = agent_of(client)
        try:
            if method == "run":
                return held(agent.run(given, **arguments))
            with agent.stream(given, **arguments) as events:
                opened(events)
                for _ in events:
                    pass
            return held(events.result)
        except Exception as error:
            return held(getattr(error, "result"), error)  # noqa: B009  # on somebody else's exceptions too
        finally:
            if isinstance(client, Client | openai.OpenAI):
                client.close()

    async def in_task() -> Held:
        client = make_client(True)
        agent = agent_of(client)
        try:
            if method == "arun":
                return held(await agent.arun(given, **arguments))
            async with agent.astream(given, **arguments) as events:
                opened(events)
                async for _ in events:
                    pass
            return held(events.result)
        except Exception as error:
            return held(getattr(error, "result"), error)  # noqa: B009
        finally:
            if isinstance(client, AsyncClient | openai.AsyncOpenAI):
                await client.close()

    return anyio.run(in_task, backend=backend) if backend else sync()


def client_of(server: Server, **options: Any) -> Callable[[bool], Any]:
    """Makes clients for a server."""
    given = {"base_url": server.url, "api_key": "sk-made-up", "max_retries": 0, **options}
    return lambda is_async: (AsyncClient if is_async else Client)(**given)


def play(face: str, *script: Any, **options: Any) -> tuple[Held, list[dict[str, Any]]]:
    """Hold a conversation with a `Fake`; returns it, and what was asked."""
    made: list[Fake] = []

    def make(is_async: bool) -> Fake:
        made.append(Fake(*script, is_async=is_async))
        return made[-1]

    return hold(face, make, **options), made[0].requests


def kinds(items: list[Any]) -> list[str]:
    """The types of items, or roles."""
    return [item.get("type") or item["role"] for item in items]


# --- the conversation ------------------------------------------------------------------------------------------------


@faces
@pytest.mark.parametrize("wire", WIRES)
def test_outputs_when_tools_were_called_are_sent_back(face: str, wire: WireName) -> None:
    """Two turns of any provider: the call runs, what it gives goes back behind all that came before."""
    first = stream("Let me see.", reasoning="Weather?", tools=[CALL], wire=wire)
    with Server(first, stream("It is mild.", wire=wire)) as server:
        held = hold(face, client_of(server, wire=wire), plugins=(Tools([get_weather]),), temperature=0)
    result = held.result
    assert (result.outcome, result.text, len(result.turns)) == ("completed", "It is mild.", 2)
    assert [(output.output, output.outcome) for output in result.outputs] == [("18 °C in Paris", "ok")]
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.total_tokens) == (20, 10, 30)
    whole = ["user", "reasoning", "message", "function_call", "function_call_output", "message"]
    assert kinds(result.items) == whole
    asked = [request.json for request in server.requests]
    if wire == "responses":
        assert asked[0]["input"] == result.items[:1]
        assert asked[1]["input"] == result.items[:5]
        assert all(each["temperature"] == 0 and each["tools"][0]["name"] == "get_weather" for each in asked)
    assert "18 °C in Paris" in json.dumps(asked[1], ensure_ascii=False)


@faces
def test_events_when_turns_follow_one_another_know_their_turn(face: str) -> None:
    """Each turn begins with a `TurnStarted`; handlers know it from their run."""
    seen: list[tuple[int, str]] = []

    def handlers(agent: Agent) -> None:
        agent.flow.on("*", lambda event, run: seen.append((run.turn, event.type)))

    held, _ = play(face, stream(tools=[("ok", {})]), stream("Done"), handlers=handlers, plugins=(Answers(),))
    assert [run.turn for run in held.result.turns] == [1, 2]
    assert seen[0] == (1, "eventflow.turn_started")
    second = [kind for turn, kind in seen if turn == 2]
    assert second[0] == "eventflow.turn_started"
    assert "response.output_text.delta" in second
    assert held.events == [[kind for turn, kind in seen if turn == number] for number in (1, 2)]


def test_stream_when_iterated_gives_all_turns_in_one() -> None:
    """The events of both turns come out of one loop, and the stream says which turn it is."""
    agent = Agent(Fake(stream(tools=[("ok", {})]), stream("Done")), model="m", plugins=[Answers()])
    with agent.stream("Hi") as events:
        assert (events.turn, events.run) == (0, None)
        seen = [(events.turn, event) for event in events]
    assert [(turn, event.turn) for turn, event in seen if isinstance(event, TurnStarted)] == [(1, 1), (2, 2)]
    assert "".join(event.delta for turn, event in seen if isinstance(event, TextDelta) and turn == 2) == "Done"
    assert events.run is events.result.turns[1]


Turn = tuple[str, tuple[str, ...]]
TURNS = st.one_of(
    st.tuples(st.just("calls"), st.lists(st.sampled_from(["ok", "fail", "ignore"]), min_size=1, max_size=3).map(tuple)),
    st.tuples(st.sampled_from(["text", "incomplete", "status", "cut"]), st.just(())),
)
BUDGETS = st.fixed_dictionaries(
    {
        "max_turns": st.integers(1, 5),
        "max_calls": st.none() | st.integers(1, 6),
        "max_tokens": st.none() | st.integers(1, 80),
        "max_failures": st.none() | st.integers(1, 3),
    }
)


def answer_of(number: int, turn: Turn) -> Any:
    """What a fake client gives for a turn of a script."""
    kind, calls = turn
    match kind:
        case "status":
            return HTTPStatusError("the server answered HTTP 503", status=503)
        case "cut":
            return stream("Hello", tools=[("ok", {})], cut_at=4)
        case "incomplete":
            return stream("Hel", status="incomplete")
        case _:
            tools = [(name, {}, f"call_{number}_{place}") for place, name in enumerate(calls)]
            return stream("Hello", reasoning="Hm.", tools=tools, response_id=f"resp_{number}")


def outcome_of(script: list[Turn], budgets: dict[str, Any]) -> tuple[str, int]:
    """What is to come of a script, and after how many requests: the budgets in plain words."""
    calls = failures = tokens = 0
    for number, (kind, names) in enumerate(script, 1):
        if kind in ("status", "cut"):
            return "failed", number
        if kind != "calls":
            return ("completed" if kind == "text" else "incomplete"), number
        if "ignore" in names:
            return "unanswered", number
        calls, tokens = calls + len(names), tokens + 15
        failures += "fail" in names
        spent = {"max_failures": failures, "max_calls": calls, "max_tokens": tokens, "max_turns": number}
        for name, count in spent.items():
            if budgets[name] is not None and count >= budgets[name]:
                return name, number
    raise AssertionError("the script has no end")


@given(st.lists(TURNS, max_size=5), BUDGETS, st.sampled_from(["items", "previous_response_id"]))
def test_conversations_when_random_keep_history_and_budgets(
    turns: list[Turn], budgets: dict[str, Any], history: Literal["items", "previous_response_id"]
) -> None:
    """Every request is what came before, its output and its outbox; budgets end it by name; sync and async agree."""
    script: list[Turn] = [*turns, ("text", ())]
    answers = [answer_of(number, turn) for number, turn in enumerate(script)]
    options: dict[str, Any] = {**budgets, "history": history, "plugins": (Answers(),), "check": False}
    held, asked = play("run", *answers, **options)
    outcome, requests = outcome_of(script, budgets)
    result = held.result
    assert (result.outcome, len(asked)) == (outcome, requests)
    assert len(asked) <= budgets["max_turns"]
    assert (result.error is not None) == (outcome == "failed")
    items: list[Any] = [{"role": "user", "content": "Hi"}]
    for number, (kind, _) in enumerate(script[:requests]):
        assert asked[number]["input"] == items
        if kind in ("status", "cut"):
            break
        run = result.turns[number]
        if history == "items":
            items = items + [item.to_dict() | _required(item) for item in run.response.output] + run.outbox
        else:
            items = list(run.outbox)
            assert result.previous_response_id is not None
        if number + 1 < requests:
            assert asked[number + 1].get("previous_response_id") == (None if history == "items" else run.response.id)
    assert json.loads(json.dumps(result.items)) == json.loads(json.dumps(items))
    for face in ("stream", "astream asyncio"):
        other, others = play(face, *answers, **options)
        assert other.comparable == held.comparable
        assert others == asked


def _required(item: Any) -> dict[str, Any]:
    """What the API wants in an item though it is empty."""
    if isinstance(item, Reasoning):
        return {"summary": []}
    if item.type == "message":
        return {"content": [{**part.to_dict(), "annotations": []} for part in item.content]}
    return {}


# --- what goes wrong -------------------------------------------------------------------------------------------------


class Broken(Exception):
    """What a handler raises."""


def break_in_turn_two(agent: Agent) -> None:
    """Register a handler that does."""

    @agent.flow.on(TextDelta)
    def broken(event: TextDelta, run: Run) -> None:
        if run.turn == 2:
            raise Broken


SECOND_TURNS: dict[str, tuple[Any, type[Exception], int]] = {
    "status": (500, HTTPStatusError, 1),
    "cut": (Reply(stream("Hello, world", cut_at=6), then="cut"), StreamTruncated, 2),
    "timeout": (Reply(stream("Hello, world", cut_at=6), then="hang"), StreamTimeout, 2),
    "handler": (stream("Hello"), Broken, 2),
}


@faces
@pytest.mark.parametrize("what", SECOND_TURNS)
def test_errors_when_in_a_later_turn_lose_nothing(face: str, what: str) -> None:
    """The error has the result: what the first turn brought, and all that is needed to ask for the second again."""
    turn, kind, runs = SECOND_TURNS[what]
    threads = set(threading.enumerate())
    with Server(stream("Let me see.", tools=[CALL]), turn) as server:
        handlers = break_in_turn_two if what == "handler" else lambda agent: None
        make = client_of(server, timeout=Timeouts(idle=0.2))
        held = hold(face, make, plugins=(Tools([get_weather]),), handlers=handlers)
    result = held.result
    assert isinstance(held.error, kind)
    assert (result.outcome, result.error, len(result.turns)) == ("failed", held.error, runs)
    assert kinds(result.items) == ["user", "message", "function_call", "function_call_output"]
    assert server.requests[1].json["input"] == result.items
    assert [output.outcome for output in result.outputs] == ["ok"]
    if what in ("cut", "timeout"):
        assert result.text == "Hello,"
    assert not [thread for thread in set(threading.enumerate()) - threads if not thread.daemon]
    with Server(stream("It is mild.")) as server:
        again = hold(face, client_of(server), [], after=result)
    assert (again.result.outcome, again.result.text) == ("completed", "It is mild.")


@faces
@pytest.mark.parametrize("what", SECOND_TURNS)
def test_check_when_false_returns_what_servers_do(face: str, what: str) -> None:
    """What servers and streams do is in the result; what a handler raises is raised."""
    turn, kind, _ = SECOND_TURNS[what]
    with Server(stream(tools=[CALL]), turn) as server:
        handlers = break_in_turn_two if what == "handler" else lambda agent: None
        make = client_of(server, timeout=Timeouts(idle=0.2))
        held = hold(face, make, plugins=(Tools([get_weather]),), handlers=handlers, check=False)
    assert isinstance(held.result.error, kind)
    assert isinstance(held.error, Broken) == (what == "handler")
    assert held.result.outcome == "failed"


@faces
def test_check_when_false_still_raises_plugins_own_errors(face: str) -> None:
    """A `ToolError` of a plugin is an error of ours, and of nobody's server."""
    held, _ = play(face, stream("Hi"), plugins=(Tools([get_weather]), Tools([get_weather])), check=False)
    assert isinstance(held.error, ToolError)
    assert held.result.outcome == "failed"


@faces
@pytest.mark.parametrize("where", ["open", "prepare", "start"])
def test_check_when_false_still_raises_errors_of_ours_in_other_code(face: str, where: str) -> None:
    """Whatever an agent's own code raises before the answer comes is no server's doing."""

    class Fails(Plugin):
        def open(self) -> None:
            fail("open")

        def start(self, run: Run) -> None:
            fail("start")

    def fail(here: str) -> None:
        if here == where:
            raise HTTPStatusError("of another conversation", status=500)

    def prepare(parameters: dict[str, Any], turn: int) -> dict[str, Any]:
        fail("prepare")
        return parameters

    held, asked = play(face, stream("Hi"), plugins=(Fails(),), prepare=prepare, check=False)
    assert isinstance(held.error, HTTPStatusError)
    assert len(asked) == (where == "start")


def test_exceptions_without_room_when_raised_pass() -> None:
    """A handler's exception with a ``result`` of its own is raised as it is."""

    class Full(Exception):
        @property
        def result(self) -> str:
            return "mine"

    agent = Agent(Fake(stream("Hi")), model="m")

    def fail(event: TextDelta) -> None:
        raise Full

    agent.flow.on(TextDelta, fail)
    with pytest.raises(Full):
        agent.run("Hi")


# --- leaving and cancelling ------------------------------------------------------------------------------------------


def test_stream_when_left_by_break_ends_the_conversation() -> None:
    """A bare break closes the connection at once, and the result says so; what the turn brought is not in its items."""
    with Server(Reply(stream("Hello, world", cut_at=6), then="hang")) as server, client_of(server)(False) as client:
        events = Agent(client, model="m").stream("Hi")
        for event in events:
            if isinstance(event, TextDelta):
                break
        assert server.left.wait(2)
        assert (events.result.outcome, kinds(events.result.items)) == ("cancelled", ["user"])
        assert events.result.turns[0].status == "cancelled"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_stream_when_left_by_break_ends_the_conversation(backend: str) -> None:
    """The end of the block closes the connection before it goes on."""

    async def leave(server: Server) -> AgentResult:
        async with client_of(server)(True) as client:
            async with Agent(client, model="m").astream("Hi") as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        break
            assert events.run is not None
            assert events.run.status == "cancelled"
            await events.aclose()  # twice is once
            return events.result

    with Server(Reply(stream("Hello, world", cut_at=6), then="hang")) as server:
        result = anyio.run(leave, server, backend=backend)
        assert server.left.wait(2)
    assert result.outcome == "cancelled"


def test_async_stream_when_dropped_under_asyncio_closes_at_the_next_await() -> None:
    """A bare break without a block."""

    async def leave(server: Server) -> AgentResult:
        async with client_of(server)(True) as client:
            events = Agent(client, model="m").astream("Hi")
            async for event in events:
                if isinstance(event, TextDelta):
                    break
            assert await asyncio.to_thread(server.left.wait, 2)
            return events.result

    with Server(Reply(stream("Hello, world", cut_at=6), then="hang")) as server:
        assert asyncio.run(leave(server)).outcome == "cancelled"


PHASES = ("before", "request", "stream", "tools")


@streamed
@pytest.mark.parametrize("phase", PHASES)
def test_cancel_when_from_another_thread_ends_any_phase(face: str, phase: str) -> None:
    """The request under way is let come to its head, the stream and the wait for tools end at once; nothing follows."""
    cancel: list[Callable[[], None]] = []
    released = threading.Event()

    def from_another_thread() -> None:
        thread = threading.Thread(target=cancel[0])
        thread.start()
        thread.join()

    def opened(events: Any) -> None:
        cancel.append(events.cancel)
        if phase == "before":
            from_another_thread()

    def handlers(agent: Agent) -> None:
        if phase == "stream":  # by the time the timer goes off, the run waits for what never comes
            agent.flow.on(TextDelta, lambda event: threading.Timer(0.05, cancel[0]).start())

    def asked(request: object) -> Any:
        if phase == "request":
            from_another_thread()
        if phase == "stream":
            return Reply(stream("Hello, world", cut_at=6), then="hang")
        return stream("Let me see.", tools=[("wait", {})])

    def wait() -> str:
        if phase == "tools":
            from_another_thread()
        released.wait(2)
        return "late"

    with Server(asked) as server:
        held = hold(face, client_of(server), plugins=(Tools([wait]),), handlers=handlers, opened=opened)
        released.set()
        assert len(server.requests) == (phase != "before")
        if phase == "stream":
            assert server.left.wait(2)
    assert (held.error, held.result.outcome) == (None, "cancelled")
    assert kinds(held.result.items) == ["user"]
    assert [run.cancelled for run in held.result.turns] == [True] * (phase != "before")
    if phase == "request":
        assert held.result.turns[0].events == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_task_when_cancelled_closes_the_connection(backend: str) -> None:
    """While the stream is read, and while an answer is waited for."""

    async def cancelled(server: Server) -> None:
        async with client_of(server)(True) as client:
            with anyio.move_on_after(0.1) as scope:
                await Agent(client, model="m").arun("Hi")
            assert scope.cancelled_caught
            assert await anyio.to_thread.run_sync(server.left.wait, 2)

    for turn in (Reply(stream("Hello, world", cut_at=6), then="hang"), Reply(None, then="hang")):
        with Server(turn) as server:
            anyio.run(cancelled, server, backend=backend)


@faces
def test_cancel_when_by_a_handler_ends_all_turns(face: str) -> None:
    """A run that is cancelled is the last one."""

    def handlers(agent: Agent) -> None:
        agent.flow.on(ToolOutput, lambda event, run: run.cancel())

    held, asked = play(face, stream(tools=[("ok", {})]), handlers=handlers, plugins=(Answers(),))
    assert (held.result.outcome, len(asked)) == ("cancelled", 1)


def test_stream_when_closed_before_it_began_asks_nobody() -> None:
    """It cannot be iterated then, nor twice."""
    client = Fake(stream("Hi"))
    agent = Agent(client, model="m")
    with agent.stream("Hi") as events:
        pass
    assert events.result.outcome == "cancelled"
    with pytest.raises(UsageError, match="iterated or closed before"):
        iter(events)
    other = agent.stream("Hi")
    cursor = iter(other)
    other.close()
    assert (list(cursor), other.result.outcome, client.requests) == ([], "cancelled", [])


def test_stream_when_closed_by_a_handler_is_cancelled() -> None:
    """A handler cannot close what calls it: the conversation ends behind it."""
    agent = Agent(Fake(stream("Hello, world")), model="m")
    agent.flow.on(TextDelta, lambda event: events.close())
    with agent.stream("Hi") as events:
        texts = [event for event in events if isinstance(event, TextDelta)]
    assert len(texts) <= 1
    assert events.result.outcome == "cancelled"


def test_async_stream_when_closed_by_another_task_is_cancelled() -> None:
    """While the one that iterates it waits for the next event."""

    async def leave(server: Server) -> AgentResult:
        async with client_of(server)(True) as client:
            events = Agent(client, model="m").astream("Hi")
            waits = anyio.Event()

            async def close() -> None:
                await waits.wait()
                await anyio.wait_all_tasks_blocked()
                await events.aclose()

            async with anyio.create_task_group() as group:
                group.start_soon(close)
                async for event in events:
                    if isinstance(event, TextDelta):
                        waits.set()
            return events.result

    with Server(Reply(stream("Hello, world", cut_at=6), then="hang")) as server:
        assert anyio.run(leave, server).outcome == "cancelled"
    with pytest.raises(UsageError, match="iterated or closed before"):
        asyncio.run(_closed_unbegun())


async def _closed_unbegun() -> None:
    events = Agent(Fake(is_async=True), model="m").astream("Hi")
    await events.aclose()
    aiter(events)


# --- clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", FACES)
def test_client_when_of_the_wrong_kind_is_refused(face: str) -> None:
    """Sync for async and the reverse: a `UsageError` that says what to use, no coroutine left, no stream left open."""
    with Server(stream("Hi"), repeat=True) as server:
        make = client_of(server)
        client = make(face.startswith(("run", "stream")))
        held = hold(face, lambda is_async: client, check=False)
        if isinstance(client, AsyncClient):
            asyncio.run(client.close())
        else:
            client.close()
    assert isinstance(held.error, UsageError)
    assert "or an AsyncClient" in held.error.message or "or a Client" in held.error.message
    assert held.result.outcome == "failed"


@faces
def test_async_handler_when_in_a_sync_run_is_refused_before_anything_is_asked(face: str) -> None:
    """Nobody pays for an answer that cannot be handled."""

    async def handler(event: TextDelta) -> None:
        pass

    held, asked = play(face, stream("Hi"), handlers=lambda agent: agent.flow.on(TextDelta, handler))
    if face in ("run", "stream"):
        assert isinstance(held.error, UsageError)
        assert asked == []
    else:
        assert held.result.outcome == "completed"


@pytest.fixture
def sdk() -> Callable[..., Any]:
    """Makes clients of OpenAI's SDK."""

    def make(is_async: bool, url: str, **options: Any) -> Any:
        kind = openai.AsyncOpenAI if is_async else openai.OpenAI
        return kind(base_url=url, api_key="sk-made-up", max_retries=0, **options)

    return make


@faces
def test_openai_sdk_when_it_is_the_client_does_the_same(face: str, sdk: Callable[..., Any]) -> None:
    """Two turns, a refusal and a connection that fails, as with a client of ours."""
    with Server(stream("Let me see.", reasoning="Hm.", tools=[CALL]), stream("It is mild."), 503) as server:
        make = lambda is_async: sdk(is_async, server.url)  # noqa: E731
        held = hold(face, make, plugins=(Tools([get_weather]),))
        refused = hold(face, make, after=held.result, check=False)
        sent = server.requests[1].json["input"]
    gone = hold(face, lambda is_async: sdk(is_async, "http://127.0.0.1:9/v1", timeout=1))
    assert (held.result.outcome, held.result.text) == ("completed", "It is mild.")
    assert sent == held.result.items[:5]
    assert isinstance(refused.result.error, HTTPStatusError)
    assert refused.result.error.status == 503
    assert isinstance(gone.error, ConnectionFailed)


def test_agent_when_shared_by_threads_keeps_conversations_apart() -> None:
    """Eight at once, of one agent."""

    def answer(request: Any) -> FakeStream:
        asked = request.json["input"]
        if kinds(asked)[-1] == "function_call_output":
            return stream(f"It is {asked[-1]['output']}.")
        return stream(tools=[("get_weather", {"city": asked[0]["content"]})])

    results: dict[str, AgentResult] = {}
    cities = [f"City {number}" for number in range(8)]
    with Server(answer, repeat=True) as server, client_of(server)(False) as client:
        agent = Agent(client, model="m", plugins=[Tools([get_weather])])

        def ask(city: str) -> None:
            results[city] = agent.run(city)

        threads = [threading.Thread(target=ask, args=(city,)) for city in cities]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {city: result.text for city, result in results.items()} == {
        city: f"It is 18 °C in {city}." for city in cities
    }


def test_plugin_when_used_by_two_agents_is_each_ones_own() -> None:
    """And of any number of pipelines; closing one leaves the other at work."""

    async def slow() -> str:
        """Wait."""
        await asyncio.sleep(0)
        return "done"

    tools = Tools([slow])
    script = [stream(tools=[("slow", {})]), stream("Ready")]
    one, two = (Agent(Fake(*script), model="m", plugins=[Accumulate() | (tools | Accumulate())]) for _ in range(2))
    with two:
        with one:
            first = one.run("Hi")
        second = two.run("Hi")
    for result in (first, second):
        assert (result.text, result.outputs[0].output) == ("Ready", "done")
        assert [run[Accumulate].text for run in result.turns] == ["", "Ready"]


# --- what is sent ----------------------------------------------------------------------------------------------------


@faces
def test_calls_when_nobody_answers_are_named(face: str) -> None:
    """Without a plugin for them the outcome says so, and the items wait for outputs."""
    held, asked = play(face, stream("Let me see.", tools=[CALL]))
    assert (held.result.outcome, len(asked)) == ("unanswered", 1)
    output = {"type": "function_call_output", "call_id": "call_1", "output": "18 °C"}
    again, more = play(face, stream("It is mild."), given=[output], after=held.result)
    assert kinds(more[0]["input"]) == ["user", "message", "function_call", "function_call_output"]
    assert again.result.outcome == "completed"


@pytest.mark.parametrize("wire", ["responses", "chat", "anthropic"])
def test_arguments_when_broken_are_no_poison_for_the_next_request(wire: WireName) -> None:
    """They go back as JSON, or the call does not: servers refuse what does not parse, or has no output."""
    for arguments in ('{"city": ', "", "[1]", '{"city": NaN}'):
        first = stream("Let me see.", reasoning="Hm.", tools=[("get_weather", arguments)], wire=wire)
        with Server(first, stream("Sorry.", wire=wire)) as server, client_of(server, wire=wire)(False) as client:
            result = Agent(client, model="m", plugins=[Tools([get_weather])]).run("Hi")
            remaining = server.remaining
        calls = [item for item in result.items if item.get("type") == "function_call"]
        answers = [item["call_id"] for item in result.items if item.get("type") == "function_call_output"]
        assert [call["call_id"] for call in calls] == answers
        for call in calls:
            assert isinstance(json.loads(call["arguments"], parse_constant=pytest.fail), dict)
        assert result.outcome == ("incomplete" if remaining else "completed")
        assert bool(calls) != bool(remaining)


def event_of(*output: dict[str, Any], status: str = "completed") -> list[dict[str, Any]]:
    """A response of these items as a stream of its own."""
    response = {"id": "resp_1", "status": status, "output": list(output)}
    done = [
        {"type": "response.output_item.done", "output_index": place, "item": item} for place, item in enumerate(output)
    ]
    return [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        *done,
        {"type": f"response.{status}", "response": response},
    ]


def test_items_when_of_an_incomplete_answer_are_what_apis_take_back() -> None:
    """No call without an output, no thought with nothing behind it; what was said stays."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    said = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Hm"}]}
    call = {"type": "function_call", "call_id": "call_1", "name": "ok", "arguments": "{", "status": "incomplete"}
    for output, kept in (
        ((thought,), []),
        ((thought, call), []),
        ((thought, said, thought, call), ["reasoning", "message"]),
    ):
        held, _ = play("run", event_of(*output, status="incomplete"))
        assert held.result.outcome == "incomplete"
        assert kinds(held.result.items) == ["user", *kept]


def test_calls_of_other_kinds_when_unanswered_are_named() -> None:
    """A provider's approval, a custom call, a computer's; what the provider answers itself is none."""
    approval = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "x", "arguments": "{}"}
    custom = {"type": "custom_tool_call", "call_id": "call_1", "name": "code"}
    computer = {"type": "computer_call", "call_id": "call_2", "action": {"type": "click"}}
    shell = [{"type": "shell_call", "call_id": "call_3"}, {"type": "shell_call_output", "call_id": "call_3"}]
    for asking in (approval, custom, computer):
        held, _ = play("run", event_of(asking))
        assert held.result.outcome == "unanswered"
    assert play("run", event_of(custom))[0].result.items[1]["input"] == ""
    assert play("run", event_of(*shell))[0].result.outcome == "completed"

    class Approves(Plugin):
        @on(ResponseCompleted)
        def approve(self, event: ResponseCompleted, run: Run) -> None:
            if run.turn == 1:
                run.outbox.append({"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True})

    held, asked = play("run", event_of(approval), stream("Done"), plugins=(Approves(),))
    assert (held.result.outcome, kinds(asked[1]["input"])) == (
        "completed",
        ["user", "mcp_approval_request", "mcp_approval_response"],
    )


def test_items_when_records_are_sent_as_mappings() -> None:
    """Records of ours; an SDK's objects stay, and are known by their fields."""

    class Sends(Plugin):
        @on(ToolCall)
        def answer(self, event: ToolCall, run: Run) -> None:
            run.outbox.append(attrs.make_class("Output", ["call_id"])(event.call_id))

    class Keeps(Fake):
        def create(self, **parameters: Any) -> Any:
            self.requests.append(parameters)
            return self._given(self._script.pop(0))

    client = Keeps(stream(tools=[("ok", {})]), stream("Done"))
    result = Agent(client, model="m", plugins=[Sends()]).run([Reasoning(id="rs_1"), Untyped({"type": "x"})])
    assert result.outcome == "completed"
    assert client.requests[0]["input"] == [{"type": "reasoning", "id": "rs_1", "summary": []}, {"type": "x"}]
    assert type(client.requests[1]["input"][-1]).__name__ == "Output"


def test_ids_when_the_server_gives_none_are_not_relied_on() -> None:
    """Then the items are sent, whatever was asked for."""
    first = event_of({"type": "function_call", "call_id": "call_1", "name": "ok", "arguments": "{}"})
    for event in first:
        event.get("response", {}).pop("id", None)
    held, asked = play("run", first, stream("Done"), plugins=(Answers(),), history="previous_response_id")
    assert "previous_response_id" not in asked[1]
    assert kinds(asked[1]["input"]) == ["user", "function_call", "function_call_output"]
    assert held.result.previous_response_id == "resp_1"


@pytest.mark.parametrize("history", ["items", "previous_response_id"])
def test_result_when_gone_on_from_has_the_whole_conversation(history: str) -> None:
    """Either way of keeping it."""
    held, _ = play("run", stream("Hello", response_id="resp_7"), history=history)
    _, asked = play("run", stream("Again"), given="More", after=held.result, history=history)
    if history == "items":
        assert kinds(asked[0]["input"]) == ["user", "message", "user"]
    else:
        assert (kinds(asked[0]["input"]), asked[0]["previous_response_id"]) == (["user"], "resp_7")


@pytest.mark.parametrize(
    ("choice", "then"),
    [
        ("required", "auto"),
        ("auto", "auto"),
        ("none", "none"),
        (None, None),
        ({"type": "function", "name": "ok"}, "auto"),
        ({"type": "auto"}, {"type": "auto"}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "ok"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "ok"}]},
        ),
    ],
)
def test_tool_choice_when_forced_is_so_in_the_first_turn_alone(choice: object, then: object) -> None:
    """A model that must call a tool would never answer; what it may not call stays so."""
    _, asked = play("run", stream(tools=[("ok", {})]), stream("Done"), plugins=(Answers(),), tool_choice=choice)
    assert [each["tool_choice"] for each in asked] == [choice, then]


def test_tools_when_given_twice_are_sent_once() -> None:
    """Those among the parameters come first and win by name; plugins that came later are offered too."""
    own = [{"type": "web_search"}, {"type": "function", "function": {"name": "ok", "description": "mine"}}]
    client = Fake(stream("Hi"))
    agent = Agent(client, model="m", plugins=[Answers(), Accumulate()], tools=own)
    agent.flow.use(Answers(definitions=({"type": "x_search"}, {"type": "function", "name": "late"})))
    agent.run("Hi")
    late = [{"type": "x_search"}, {"type": "function", "name": "late"}]
    assert client.requests[0]["tools"] == [*own, *late]


@faces
def test_prepare_when_given_has_the_last_word(face: str) -> None:
    """It is told of each turn, and what it does to the input is of that turn alone."""
    told: list[int] = []

    def prepare(parameters: dict[str, Any], turn: int) -> dict[str, Any]:
        told.append(turn)
        parameters["input"].append({"role": "developer", "content": f"turn {turn}"})
        return {**parameters, "temperature": turn}

    held, asked = play(face, stream(tools=[("ok", {})]), stream("Done"), plugins=(Answers(),), prepare=prepare)
    assert (told, [each["temperature"] for each in asked]) == ([1, 2], [1, 2])
    assert all(each["stream"] is True for each in asked)
    assert "developer" not in kinds(held.result.items)


def test_prepare_when_it_returns_nothing_is_told() -> None:
    """The error says what it is to return; nothing is asked."""
    held, asked = play("run", prepare=lambda parameters, turn: None)
    assert isinstance(held.error, UsageError)
    assert "is to return the parameters" in held.error.message
    assert asked == []


# --- budgets and usage -----------------------------------------------------------------------------------------------


@faces
def test_failures_when_repeated_end_it(face: str) -> None:
    """The same call, turn after turn; others in between change nothing, and those of one turn count once."""
    bad, good = ("get_weather", {"city": "Atlantis"}), ("get_weather", {"city": "Paris"})
    turns = [stream(tools=[bad, bad]), stream(tools=[good]), stream(tools=[bad]), stream(tools=[good, bad])]
    held, asked = play(face, *turns, plugins=(Tools([get_weather]),))
    assert (held.result.outcome, len(asked)) == ("max_failures", 4)
    assert kinds(held.result.items)[-1] == "function_call_output"


@faces
def test_failures_when_the_call_succeeds_in_between_count_anew(face: str) -> None:
    """Two, a success (and a failure in the same turn), two: never three in a row."""
    fails = iter([True, True, False, True, True, True])

    def flaky() -> str:
        if next(fails):
            raise LookupError
        return "found"

    once, twice = stream(tools=[("flaky", {})]), stream(tools=[("flaky", {}), ("flaky", {})])
    turns = (once, once, twice, once, once, stream("Done"))
    held, asked = play(face, *turns, plugins=(Tools([flaky], concurrency=1),))
    assert (held.result.outcome, len(asked)) == ("completed", 6)


def usage_of(*usages: Usage | None) -> Usage | None:
    """What an agent makes of the usage of its turns."""
    turns = [stream(tools=[("ok", {})], usage=usage) for usage in usages[:-1]]
    held, _ = play("run", *turns, stream("Done", usage=usages[-1]), plugins=(Answers(),))
    return held.result.usage


def test_usage_when_parts_are_missing_is_the_sum_of_the_rest() -> None:
    """What nobody counted is None; a total that is not told is the sum of its parts."""
    assert usage_of(None, None) is None
    full = Usage(
        input_tokens=10,
        output_tokens=5,
        total_tokens=16,
        input_tokens_details=InputTokensDetails(cached_tokens=3, cache_write_tokens=1),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=2),
    )
    assert usage_of(full, None, Usage(input_tokens=1, output_tokens=1), full) == Usage(
        input_tokens=21,
        output_tokens=11,
        total_tokens=34,
        input_tokens_details=InputTokensDetails(cached_tokens=6, cache_write_tokens=2),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=4),
    )


# --- wrong use -------------------------------------------------------------------------------------------------------


async def _prepare(parameters: dict[str, Any], turn: int) -> dict[str, Any]:
    return parameters


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_turns": 0}, "max_turns"),
        ({"max_turns": None}, "max_turns"),
        ({"max_calls": True}, "max_calls"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"history": "all"}, "history"),
        ({"plugins": Accumulate()}, "plugins=\\[...\\]"),
        ({"plugins": "log"}, "plugins=\\[...\\]"),
        ({"plugins": None}, "plugins=\\[...\\]"),
        ({"plugins": [Accumulate]}, "Accumulate\\(\\)"),
        ({"prepare": 1}, "plain function"),
        ({"prepare": _prepare}, "plain function"),
        ({"flow": {"snapshot": False}}, "snapshot"),
        ({"input": "Hi"}, "run\\(input\\)"),
        ({"stream": True}, "the agent itself"),
    ],
)
def test_agent_when_made_wrongly_says_so(options: dict[str, Any], says: str) -> None:
    """Before anything is asked, naming the argument."""
    with pytest.raises(UsageError, match=says):
        Agent(Fake(), model="m", **options)


def test_agent_when_given_no_client_says_so() -> None:
    """An HTTP client is none."""
    with httpx.Client() as client, pytest.raises(UsageError, match=r"client\.responses\.create"):
        Agent(client, model="m")


@pytest.mark.parametrize("method", ["run", "stream", "arun", "astream"])
def test_input_when_it_is_none_is_refused(method: str) -> None:
    """Text or a list of items; a result goes elsewhere."""
    result = play("run", stream("Hi"))[0].result
    agent = Agent(Fake(), model="m")

    def give(given: Any, **options: Any) -> None:
        made = getattr(agent, method)(given, **options)
        if asyncio.iscoroutine(made):
            asyncio.run(made)

    for wrong, says in ((b"Hi", "bytes"), ({"role": "user"}, "dict"), (None, "NoneType"), (result, "after=")):
        with pytest.raises(UsageError, match=says):
            give(wrong)
    with pytest.raises(UsageError, match="the result of a conversation"):
        give("Hi", after="x")


# --- the real model --------------------------------------------------------------------------------------------------


def force(parameters: dict[str, Any], turn: int) -> dict[str, Any]:
    """The model is small: it calls a tool when it must, and answers when it may not."""
    template = {"enable_thinking": False, "prefill_tool": turn == 1}
    extra = {"chat_template_kwargs": template, "seed": 42, "temperature": 0}
    choice, most = ("required", 100) if turn == 1 else ("none", 12)
    return {**parameters, "tool_choice": choice, "max_output_tokens": most, "extra_body": extra}


@pytest.mark.model
@pytest.mark.parametrize("wire", ["responses", "chat", "anthropic"])
@pytest.mark.parametrize("face", ["run", "astream asyncio"])
def test_real_model_when_it_calls_a_tool_is_sent_the_output(model: ModelServer, wire: WireName, face: str) -> None:
    """A forced call, its output sent back, a second turn: what goes back is what a real server takes."""
    given = {"base_url": model.base_url, "api_key": "sk-made-up", "wire": wire, "max_retries": 0}
    held = hold(
        face,
        lambda is_async: (AsyncClient if is_async else Client)(**given),
        "What is the weather in Paris?",
        plugins=(Tools([get_weather]),),
        max_turns=3,
        prepare=force,
    )
    result = held.result
    assert held.error is None
    assert [run.turn for run in result.turns] == [1, 2]
    assert result.outcome in ("completed", "incomplete")
    assert result.turns[0].response.tool_calls
    assert len(result.outputs) == len(result.turns[0].outbox) == len(result.turns[0].response.tool_calls)
    assert {output.name for output in result.outputs} == {"get_weather"}
    assert result.text
    assert result.usage is not None
    assert result.usage.output_tokens
