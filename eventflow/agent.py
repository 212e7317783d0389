"""`Agent`: send, run, send back what the run's plugins left in its outbox, until that is empty.

::

    agent = Agent(Client(), model="...", plugins=[Tools([get_weather])], max_turns=8)
    result = agent.run("What is the weather in Paris?")
    print(result.text, result.usage)

It knows no plugin: whatever puts items into ``run.outbox`` has them sent, and whatever has ``definitions`` has the
model told of them. A conversation's state is `_Conversation`, which awaits nothing; the four faces are its drivers.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import attrs

from eventflow.dispatcher import Dispatcher
from eventflow.errors import EventflowError, UsageError
from eventflow.events import (
    Event,
    InputTokensDetails,
    OutputTokensDetails,
    Response,
    ToolCall,
    ToolOutput,
    Untyped,
    Usage,
)
from eventflow.pipeline import unrolled
from eventflow.plugin import Plugin, on, state
from eventflow.run import Run

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Agent", "AgentResult", "AgentStream", "AsyncAgentStream", "Outcome"]

Outcome: TypeAlias = Literal[
    "completed",
    "incomplete",
    "unanswered",
    "max_turns",
    "max_tokens",
    "max_calls",
    "max_failures",
    "cancelled",
    "failed",
]

_HISTORIES = ("items", "previous_response_id")


@attrs.frozen(kw_only=True)
class AgentResult:
    """What came of a conversation.

    Attributes:
        outcome: How it ended: ``completed`` (the model has answered), ``incomplete`` (its last answer is),
            ``unanswered`` (it called tools that no plugin answered), ``max_turns``, ``max_tokens``, ``max_calls``,
            ``max_failures`` (a budget was used up before the model had answered), ``cancelled``, or ``failed``
            (``error`` says why).
        response: The last response, as received so far; None where none began.
        usage: Tokens of all turns together; None where no server counted any.
        turns: The run of each turn, in order.
        outputs: What tools gave, in the order in which they ended.
        items: The conversation so far as input of the next request, the first input included: to go on, add to it. What
            a turn brought that failed or was left is not in it. With ``history="previous_response_id"``, what the
            server has not been sent yet.
        error: What the last turn ended with, for ``failed``; else None.
    """

    outcome: Outcome
    response: Response | None
    usage: Usage | None
    turns: tuple[Run, ...]
    outputs: tuple[ToolOutput, ...]
    items: list[Any] = attrs.field(repr=False)
    error: EventflowError | None = None

    @property
    def text(self) -> str:
        """The text of the last response."""
        return "" if self.response is None else self.response.output_text


class _Ledger(Plugin):
    """What a run's tools were asked, and gave."""

    calls: dict[str, ToolCall] = state(factory=dict[str, ToolCall])  # those that an answer is expected to, by id
    outputs: list[ToolOutput] = state(factory=list[ToolOutput])

    @on(ToolCall)
    def _called(self, event: ToolCall) -> None:
        call_id = event.call_id or event.item_id
        if event.kind in ("function", "custom") and call_id is not None:
            self.calls.setdefault(call_id, event)

    @on(ToolOutput)
    def _answered(self, event: ToolOutput) -> None:
        self.outputs.append(event)


class Agent:
    """Asks a model, runs the answer through plugins, and sends back what they have for it, until they have nothing.

    May be used by any number of conversations at once, in any threads and tasks; a conversation's state is its own.
    ``with`` closes what the plugins opened, not the client.

    Args:
        client: `Client` or `AsyncClient`; or whatever has ``responses.create(stream=True, ...)`` as they have, such as
            OpenAI's SDK.
        model: The model.
        plugins: Plugins and pipelines, in order: each turn is a run of theirs. The ``definitions`` of those that have
            any are sent as ``tools``, behind those among the parameters.
        max_turns: Requests of one conversation. 10.
        max_tokens: Tokens of all turns together, as the servers count them; None for no bound.
        max_calls: Tool calls of all turns together; None for no bound. Like the bound on tokens it is looked at between
            turns: the calls of the turn that goes beyond have run.
        max_failures: How often one call with the same arguments may fail, one time after the other. 3; None for no
            bound.
        history: ``items`` sends the whole conversation with each request; ``previous_response_id`` only what is new,
            for servers that keep responses.
        prepare: Called before each request with its parameters and the number of the turn; gives the parameters to
            send. After calls have run, a ``tool_choice`` that forces one is ``auto`` already.
        flow: Options of the `Dispatcher`: ``limits``, ``timeouts``, ``strict``, ``snapshot``, ``clock``.
        parameters: More of every request: ``instructions``, ``temperature``, ``tools``, ``extra_body``, ...

    Attributes:
        flow: The dispatcher, to register handlers with: ``@agent.flow.on(TextDelta)``.

    Raises:
        UsageError: A bound or the history is none.
    """

    def __init__(
        self,
        client: Any,
        *,
        model: str,
        plugins: Sequence[Plugin] = (),
        max_turns: int = 10,
        max_tokens: int | None = None,
        max_calls: int | None = None,
        max_failures: int | None = 3,
        history: Literal["items", "previous_response_id"] = "items",
        prepare: Callable[[dict[str, Any], int], Mapping[str, Any]] | None = None,
        flow: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        if not callable(getattr(getattr(client, "responses", None), "create", None)):
            raise UsageError(f"an agent asks by client.responses.create(...), which {type(client).__name__} has not")
        bounds = {
            "max_turns": max_turns,
            "max_tokens": max_tokens,
            "max_calls": max_calls,
            "max_failures": max_failures,
        }
        for name, bound in bounds.items():
            if (bound is None and name == "max_turns") or (bound is not None and (type(bound) is not int or bound < 1)):
                raise UsageError(f"Agent({name}=...) takes a positive integer, not {bound!r}")
        if history not in _HISTORIES:
            raise UsageError(f"Agent(history=...) is one of {', '.join(_HISTORIES)}, not {history!r}")
        if isinstance(plugins, Plugin):
            raise UsageError("Agent(plugins=...) takes a list: plugins=[...]")
        used = unrolled(tuple(plugins))
        self.flow = Dispatcher(_Ledger(), *used, **(flow or {}))
        self._create = client.responses.create
        self._max_turns, self._max_tokens = max_turns, max_tokens
        self._max_calls, self._max_failures = max_calls, max_failures
        self._history = history
        self._prepare = prepare
        given = cast("Iterable[object]", parameters.pop("tools", None) or ())
        tools = [*given, *(each for plugin in used for each in getattr(plugin, "definitions", ()))]
        self._parameters = {"model": model, **parameters, **({"tools": tools} if tools else {})}

    def __enter__(self) -> Self:
        self.flow.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.close()

    # --- the four faces ----------------------------------------------------------------------------------------------

    def run(self, input: str | Sequence[object], *, check: bool = True) -> AgentResult:
        """Hold a conversation to its end.

        Args:
            input: Text, or items of the Responses API's input, such as the ``items`` of an earlier result.
            check: False never raises for what servers and streams do: see the result's ``outcome`` and ``error``.

        Raises:
            UsageError: The client is async.
            EventflowError: A turn did not end well; its ``result`` has what was done until then.
            Exception: What a handler or plugin raised.
        """
        talk = _Conversation(self, input)
        while talk.outcome is None:
            with talk.turn_under_way(check):
                source = self._opened(self._create(**talk.request()))
                talk.take(self.flow.run(source, turn=talk.turn))
        return talk.result()

    async def arun(self, input: str | Sequence[object], *, check: bool = True) -> AgentResult:
        """`run`, async."""
        talk = _Conversation(self, input)
        while talk.outcome is None:
            with talk.turn_under_way(check):
                source = await self._aopened(self._create(**talk.request()))
                talk.take(await self.flow.arun(source, turn=talk.turn))
        return talk.result()

    def stream(self, input: str | Sequence[object], *, check: bool = True) -> AgentStream:
        """The events of all turns, one after the other, as they come through the plugins; arguments as for `run`."""
        return AgentStream(_Conversation(self, input), check)

    def astream(self, input: str | Sequence[object], *, check: bool = True) -> AsyncAgentStream:
        """`stream`, async."""
        return AsyncAgentStream(_Conversation(self, input), check)

    def _opened(self, source: Any) -> Any:
        if inspect.isawaitable(source):
            getattr(source, "close", _nothing)()  # or Python warns that it was never awaited
            raise UsageError("the agent's client is async; use arun() or astream(), or a Client")
        return source

    async def _aopened(self, source: Any) -> Any:
        if not inspect.isawaitable(source):
            getattr(source, "close", _nothing)()
            raise UsageError("the agent's client is sync; use run() or stream(), or an AsyncClient")
        return await source


def _nothing() -> None:
    """There is nothing to close."""


class _Conversation:
    """One conversation of an agent: what to send next, and when to stop."""

    def __init__(self, agent: Agent, given: str | Sequence[object]) -> None:
        if isinstance(given, str):
            items: list[Any] = [{"role": "user", "content": given}]
        elif isinstance(given, Sequence) and not isinstance(given, bytes | bytearray):
            items = list(given)
        else:
            raise UsageError(f"an agent is given text or a list of items, not {type(given).__name__}")
        self.agent = agent
        self.outcome: Outcome | None = None
        self.turn = 0
        self.run: Run | None = None  # the one under way, or the last
        self.cancelled = False
        self._items = items
        self._response_id: str | None = None
        self._runs: list[Run] = []
        self._outputs: list[ToolOutput] = []
        self._usage: Usage | None = None
        self._calls = self._failures = 0
        self._failing: object = None  # the call that failed last
        self._error: EventflowError | None = None

    def request(self) -> dict[str, Any]:
        """The parameters of the next turn's request."""
        self.turn += 1
        agent = self.agent
        parameters = {**agent._parameters, "input": list(self._items), "stream": True}
        if self._response_id is not None:
            parameters["previous_response_id"] = self._response_id
        if self.turn > 1 and parameters.get("tool_choice", "auto") not in ("auto", "none"):
            parameters["tool_choice"] = "auto"  # a model that must call a tool would never answer
        return parameters if agent._prepare is None else dict(agent._prepare(parameters, self.turn))

    @contextlib.contextmanager
    def turn_under_way(self, check: bool) -> Generator[None]:
        """What goes wrong in a turn ends the conversation, and knows what was done."""
        try:
            yield
        except EventflowError as error:
            self.outcome, self._error = "failed", error
            if error.run is not None and error.run not in self._runs:
                self._note(error.run)
            error.result = self.result()
            if check or isinstance(error, UsageError) or error.phase == "handler":
                raise

    def take(self, run: Run) -> None:
        """A turn has come to its end: see whether there is another."""
        self._note(run)
        self.outcome = self._next(run)

    def _note(self, run: Run) -> None:
        self.run = run
        self._runs.append(run)
        ledger = run[_Ledger]
        self._outputs += ledger.outputs
        self._calls += len(ledger.calls)
        self._usage = _sum(self._usage, run.response.usage)
        if run.status in ("completed", "incomplete") and not (self.cancelled or run.cancelled):
            if self._response_id is not None or self.agent._history == "previous_response_id":
                self._items, self._response_id = [], run.response.id
            else:
                self._items += [
                    dict(item) if isinstance(item, Untyped) else item.to_dict() for item in run.response.output
                ]
            self._items += run.outbox
        for output in ledger.outputs:
            call = ledger.calls.get(output.call_id or "")
            same = (output.name, call.arguments if call is not None else "")
            if output.outcome == "ok":
                self._failures, self._failing = 0, None
            elif same == self._failing:
                self._failures += 1
            else:
                self._failures, self._failing = 1, same

    def _next(self, run: Run) -> Outcome | None:
        agent = self.agent
        answered = {cast("Mapping[str, Any]", item).get("call_id") for item in run.outbox if isinstance(item, Mapping)}
        if self.cancelled or run.cancelled or run.status == "cancelled":
            return "cancelled"
        if run.status == "incomplete":
            return "incomplete"
        if run[_Ledger].calls.keys() - answered:
            return "unanswered"
        if not run.outbox:
            return "completed"
        if agent._max_failures is not None and self._failures >= agent._max_failures:
            return "max_failures"
        if agent._max_calls is not None and self._calls >= agent._max_calls:
            return "max_calls"
        used = None if self._usage is None else self._usage.total_tokens
        if agent._max_tokens is not None and used is not None and used >= agent._max_tokens:
            return "max_tokens"
        return "max_turns" if self.turn >= agent._max_turns else None

    def result(self) -> AgentResult:
        """What came of it so far."""
        response = None if self.run is None else self.run.response
        return AgentResult(
            outcome=self.outcome or "cancelled",
            response=response,
            usage=self._usage,
            turns=tuple(self._runs),
            outputs=tuple(self._outputs),
            items=list(self._items),
            error=self._error,
        )

    def leave(self) -> None:
        """The consumer has left in the middle of a turn."""
        if self.outcome is None:
            self.outcome = "cancelled"
            if self.run is not None and self.run not in self._runs:
                self._note(self.run)


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    cached = _add(_cached(one), _cached(other))
    reasoning = _add(_reasoning(one), _reasoning(other))
    return Usage(
        input_tokens=_add(one.input_tokens, other.input_tokens),
        output_tokens=_add(one.output_tokens, other.output_tokens),
        total_tokens=_add(one.total_tokens, other.total_tokens),
        input_tokens_details=None if cached is None else InputTokensDetails(cached_tokens=cached),
        output_tokens_details=None if reasoning is None else OutputTokensDetails(reasoning_tokens=reasoning),
    )


def _cached(usage: Usage) -> int | None:
    return None if usage.input_tokens_details is None else usage.input_tokens_details.cached_tokens


def _reasoning(usage: Usage) -> int | None:
    return None if usage.output_tokens_details is None else usage.output_tokens_details.reasoning_tokens


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


# --- streams ---------------------------------------------------------------------------------------------------------


class _Stream:
    """What both streams show of their conversation."""

    def __init__(self, talk: _Conversation, check: bool) -> None:
        self._talk = talk
        self._check = check
        self._begun = False

    def _begin(self) -> None:
        if self._begun:
            raise UsageError("this stream was iterated before; call stream() again for another conversation")
        self._begun = True

    @property
    def turn(self) -> int:
        """The number of the turn under way, from 1; 0 before the first."""
        return self._talk.turn

    @property
    def run(self) -> Run | None:
        """The run of the turn under way, or of the last one."""
        return self._talk.run

    @property
    def result(self) -> AgentResult:
        """What came of the conversation so far; its outcome is ``cancelled`` where it was left, or is under way."""
        return self._talk.result()

    def cancel(self) -> None:
        """End the conversation: the run under way, and no more turns. From any thread."""
        self._talk.cancelled = True
        if self._talk.run is not None:
            self._talk.run.cancel()


class AgentStream(_Stream):
    """The events of all turns of a conversation; each turn begins with a `TurnStarted`.

    Iterate it; a bare ``break`` ends the conversation and closes the connection. ``with`` guarantees it.
    """

    _cursor: weakref.ref[Generator[Event, None, None]] | None = None

    def __iter__(self) -> Iterator[Event]:
        self._begin()
        cursor = self._events()
        self._cursor = weakref.ref(cursor)  # weakly: leaving the for loop drops the cursor, and that ends it all
        return cursor

    def _events(self) -> Generator[Event, None, None]:
        talk = self._talk
        agent = talk.agent
        try:
            while talk.outcome is None:
                with talk.turn_under_way(self._check):
                    source = agent._opened(agent._create(**talk.request()))
                    with agent.flow.stream(source, turn=talk.turn) as events:
                        talk.run = events.run
                        yield from events
                    talk.take(events.run)
        finally:
            talk.leave()

    def close(self) -> None:
        """Leave the conversation and close its connection. Twice is once."""
        cursor = None if self._cursor is None else self._cursor()
        if cursor is not None:
            cursor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAgentStream(_Stream):
    """`AgentStream`, async: ``async for`` in an ``async with``."""

    _cursor: weakref.ref[AsyncGenerator[Event, None]] | None = None
    _entered = False
    _held: AsyncGenerator[Event, None] | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        self._begin()
        cursor = self._events()
        self._cursor = weakref.ref(cursor)
        if self._entered:
            self._held = cursor  # a break must not drop it: the end of the block closes it, and waits for that
        return cursor

    async def _events(self) -> AsyncGenerator[Event, None]:
        talk = self._talk
        agent = talk.agent
        try:
            while talk.outcome is None:
                with talk.turn_under_way(self._check):
                    source = await agent._aopened(agent._create(**talk.request()))
                    async with agent.flow.astream(source, turn=talk.turn) as events:
                        talk.run = events.run
                        async for event in events:
                            yield event
                    talk.take(events.run)
        finally:
            talk.leave()

    async def aclose(self) -> None:
        """Leave the conversation and close its connection. Twice is once."""
        cursor = None if self._cursor is None else self._cursor()
        if cursor is not None:
            await cursor.aclose()

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
