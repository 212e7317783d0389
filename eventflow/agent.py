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
import functools
import inspect
import json
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
    encode_json,
)
from eventflow.events._base import Record
from eventflow.plain import as_list, as_mapping
from eventflow.plugin import Plugin, on, state
from eventflow.providers.parameters import object_of
from eventflow.routing import is_async
from eventflow.run import Run, aloop, loop
from eventflow.sources import refusals

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
_REQUIRED: Mapping[str, tuple[str, Any]] = {  # what the Responses API wants in each such item or part of an input
    "custom_tool_call": ("input", ""),
    "function_call": ("arguments", ""),
    "message": ("content", []),
    "output_text": ("annotations", []),
    "reasoning": ("summary", []),
}


@attrs.frozen(kw_only=True)
class AgentResult:
    """What came of a conversation.

    Attributes:
        outcome: How it ended: ``completed`` (the model has answered), ``incomplete`` (its last answer
            is, or breaks off in a call),
            ``unanswered`` (it called tools that no plugin answered), ``max_turns``, ``max_tokens``, ``max_calls``,
            ``max_failures`` (a budget was used up before the model had answered), ``cancelled``, or ``failed``
            (``error`` says why).
        response: The last response, as received so far; None where none began.
        usage: Tokens of all turns together, of what servers counted; None where none counted any.
        turns: The run of each turn, in order.
        outputs: What tools gave, in the order in which they ended.
        items: The conversation so far as input of the next request, the first input included: to go on, add to it. What
            a turn brought that failed or was left is not in it; nor is a call that breaks off.
            With ``history="previous_response_id"``, what the server has not been sent yet.
        previous_response_id: The response that the items come after, where the server keeps the history; else None.
        error: What the last turn ended with, for ``failed``; else None.
    """

    outcome: Outcome
    response: Response | None
    usage: Usage | None
    turns: tuple[Run, ...]
    outputs: tuple[ToolOutput, ...]
    items: list[Any] = attrs.field(repr=False)
    previous_response_id: str | None = None
    error: Exception | None = None

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
            any are sent as ``tools``, behind those among the parameters; of two with one name, the first.
        max_turns: Requests of one conversation. 10.
        max_tokens: Tokens of all turns together, as the servers count them; None for no bound.
        max_calls: Tool calls of all turns together; None for no bound. Like the bound on tokens it is looked at between
            turns: the calls of the turn that goes beyond have run.
        max_failures: In how many turns one call with the same arguments may fail, unless it succeeds in between. 3;
            None for no bound.
        history: ``items`` sends the whole conversation with each request; ``previous_response_id`` only what is new,
            for servers that keep responses.
        prepare: Called before each request with its parameters and the number of the turn; gives the parameters to
            send. From the second turn on, a ``tool_choice`` that forces a call is ``auto`` already.
        flow: Options of the `Dispatcher`: ``limits``, ``timeouts``, ``strict``, ``clock``.
        parameters: More of every request: ``instructions``, ``temperature``, ``tools``, ``extra_body``, ...

    Attributes:
        flow: The dispatcher, to register handlers with: ``@agent.flow.on(TextDelta)``.

    Raises:
        UsageError: A bound or the history is none, or something else cannot be.
    """

    def __init__(
        self,
        client: Any,
        *,
        model: str,
        plugins: Iterable[Plugin] = (),
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
        if isinstance(plugins, Plugin | str) or not isinstance(plugins, Iterable):
            raise UsageError("Agent(plugins=...) takes a list: plugins=[...]")
        if prepare is not None and (not callable(prepare) or is_async(prepare)):
            raise UsageError(f"Agent(prepare=...) takes a plain function of parameters and turn, not {prepare!r}")
        if flow is not None and not flow.get("snapshot", True):
            raise UsageError("an agent sends back what was received, so it cannot do without: leave out snapshot=False")
        for name in sorted(parameters.keys() & {"input", "stream"}):
            raise UsageError(
                f"Agent({name}=...): the agent itself gives that; leave it out, run(input) takes the input"
            )
        self.flow = Dispatcher(_Ledger(), *plugins, **(flow or {}))
        self._create = client.responses.create
        self._max_turns, self._max_tokens = max_turns, max_tokens
        self._max_calls, self._max_failures = max_calls, max_failures
        self._history = history
        self._prepare = prepare
        tools = parameters.pop("tools", None)
        self._tools: tuple[object, ...] = () if tools is None else tuple(tools)
        self._parameters = {"model": model, **parameters}

    def __enter__(self) -> Self:
        self.flow.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.close()

    # --- the four faces ----------------------------------------------------------------------------------------------

    def run(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AgentResult:
        """Hold a conversation to its end.

        Args:
            input: Text, or items of the Responses API's input.
            after: The result of the conversation that this one goes on with.
            check: False never raises for what servers and streams do: see the result's ``outcome`` and ``error``.

        Raises:
            UsageError: The client is async, or the input is none.
            EventflowError: A turn did not end well; its ``result`` has what was done until then.
            Exception: What a handler or plugin raised; it too is given that ``result``.
        """
        talk = _Conversation(self, input, after, check)
        list(self._turns(talk, deliver=False))  # which delivers nothing: it goes to the end
        return talk.result()

    async def arun(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AgentResult:
        """`run`, async."""
        talk = _Conversation(self, input, after, check)
        [event async for event in self._aturns(talk, deliver=False)]
        return talk.result()

    def stream(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AgentStream:
        """The events of all turns, one after the other, as they come through the plugins; arguments as for `run`."""
        talk = _Conversation(self, input, after, check)
        return AgentStream(talk, functools.partial(self._turns, talk, deliver=True))

    def astream(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AsyncAgentStream:
        """`stream`, async."""
        talk = _Conversation(self, input, after, check)
        return AsyncAgentStream(talk, functools.partial(self._aturns, talk, deliver=True))

    # --- the two drivers ---------------------------------------------------------------------------------------------

    def _turns(self, talk: _Conversation, *, deliver: bool) -> Generator[Event, None, None]:
        self.flow._plan_for(is_async=False)  # what cannot run asks nobody
        try:
            while talk.goes_on():
                with talk.turn_under_way():
                    asked = talk.request()
                    with refusals():
                        source = self._create(**asked)
                    if inspect.isawaitable(source):
                        getattr(source, "close", _nothing)()  # or Python warns that it was never awaited
                        raise UsageError("the agent's client is async; use arun() or astream(), or a Client")
                    opened, run = self.flow._begin(source, None, False, talk.turn, is_async=False, deliver=deliver)
                    talk.begin(run)
                    yield from loop(run, opened)
                    talk.take(run)
        finally:
            talk.leave()

    async def _aturns(self, talk: _Conversation, *, deliver: bool) -> AsyncGenerator[Event, None]:
        self.flow._plan_for(is_async=True)
        try:
            while talk.goes_on():
                with talk.turn_under_way():
                    asked = talk.request()
                    with refusals():
                        source = self._create(**asked)
                        if not inspect.isawaitable(source):
                            getattr(source, "close", _nothing)()
                            raise UsageError("the agent's client is sync; use run() or stream(), or an AsyncClient")
                        source = await source
                    opened, run = self.flow._begin(source, None, False, talk.turn, is_async=True, deliver=deliver)
                    talk.begin(run)
                    async with contextlib.aclosing(aloop(run, opened)) as events:
                        async for event in events:
                            yield event
                    talk.take(run)
        finally:
            talk.leave()


def _nothing() -> None:
    """There is nothing to close."""


class _Conversation:
    """One conversation of an agent: what to send next, and when to stop.

    Belongs to the thread or task that drives it, but for `cancel`.
    """

    def __init__(self, agent: Agent, given: str | Sequence[object], after: AgentResult | None, check: bool) -> None:
        if after is not None and not isinstance(after, AgentResult):
            raise UsageError(f"after=... takes the result of a conversation, not {type(after).__name__}")
        if isinstance(given, AgentResult):
            raise UsageError("an agent is given text or a list of items; to go on with a result: run(input, after=...)")
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        elif not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
            raise UsageError(f"an agent is given text or a list of items, not {type(given).__name__}")
        self.agent = agent
        self.outcome: Outcome | None = None
        self.turn = 0
        self.run: Run | None = None  # the one under way, or the last
        self._check = check
        self._asking = False  # whether an answer is waited for
        self._cancelled = False
        self._items: list[Any] = [*(after.items if after is not None else ()), *map(_sendable, given)]
        self._response_id = after.previous_response_id if after is not None else None
        self._runs: list[Run] = []
        self._outputs: list[ToolOutput] = []
        self._usage: Usage | None = None
        self._calls = 0
        self._failures: dict[object, int] = {}  # of a call, in how many turns
        self._error: Exception | None = None

    def goes_on(self) -> bool:
        """Whether there is another turn."""
        return self.outcome is None and not self._cancelled

    def request(self) -> dict[str, Any]:
        """The parameters of the next turn's request."""
        self.turn += 1
        agent = self.agent
        parameters = {**agent._parameters, "input": list(self._items)}
        tools = _tools(agent)
        if tools:
            parameters["tools"] = tools
        if self._response_id is not None:
            parameters["previous_response_id"] = self._response_id
        if self.turn > 1 and "tool_choice" in parameters:  # a model that must call a tool would never answer
            parameters["tool_choice"] = _unforced(parameters["tool_choice"])
        if agent._prepare is not None:
            prepared = cast("object", agent._prepare(parameters, self.turn))
            if not isinstance(prepared, Mapping):
                raise UsageError(f"Agent(prepare=...) is to return the parameters, not {type(prepared).__name__}")
            parameters = dict(cast("Mapping[str, Any]", prepared))
        self._asking = True
        return {**parameters, "stream": True}

    @contextlib.contextmanager
    def turn_under_way(self) -> Generator[None]:
        """What goes wrong in a turn ends the conversation, and knows what was done."""
        try:
            yield
        except Exception as error:
            run = self.run if self.run is not None and self.run.turn == self.turn else None
            if run is not None and run not in self._runs:
                self._note(run)
            self.outcome, self._error = "failed", error
            with contextlib.suppress(AttributeError):  # somebody's own may have no room for it
                cast("Any", error).result = self.result()
            if self._asking:
                foreseen = isinstance(error, EventflowError) and not isinstance(error, UsageError)
            else:
                foreseen = run is not None and error is run.error
            if self._check or not foreseen:
                raise

    def begin(self, run: Run) -> None:
        """The answer to the turn's request has begun."""
        self.run, self._asking = run, False
        if self._cancelled:  # while it was asked for
            run.cancel()

    def take(self, run: Run) -> None:
        """A turn has come to its end: see whether there is another. Raises what its stream ended with."""
        self._note(run)
        if run.error is not None:
            raise run.error
        self.outcome = self._next(run)

    def _note(self, run: Run) -> None:
        self._runs.append(run)
        ledger = run[_Ledger]
        self._outputs += ledger.outputs
        self._calls += len(ledger.calls)
        self._usage = _sum(self._usage, run.response.usage)
        if run.status in ("completed", "incomplete") and not (self._cancelled or run.cancelled):
            if self.agent._history == "previous_response_id" and run.response.id is not None:
                self._items, self._response_id = [], run.response.id
            else:
                self._items += _history(run)
            self._items += map(_sendable, run.outbox)
        ended: dict[object, bool] = {}  # of each call, whether it was once good
        for output in ledger.outputs:
            call = ledger.calls.get(output.call_id or "")
            same = (output.name, call.arguments if call is not None else "")
            ended[same] = output.outcome == "ok" or ended.get(same, False)
        for what, good in ended.items():
            self._failures[what] = 0 if good else self._failures.get(what, 0) + 1

    def _next(self, run: Run) -> Outcome | None:
        agent = self.agent
        if self._cancelled or run.cancelled or run.status == "cancelled":
            return "cancelled"
        if run.status == "incomplete":
            return "incomplete"
        unanswered = _unanswered(run)
        if any(unanswered.values()):
            return "unanswered"
        if not run.outbox:
            return "incomplete" if unanswered else "completed"
        if agent._max_failures is not None and max(self._failures.values(), default=0) >= agent._max_failures:
            return "max_failures"
        if agent._max_calls is not None and self._calls >= agent._max_calls:
            return "max_calls"
        used = None if self._usage is None else _total(self._usage)
        if agent._max_tokens is not None and used is not None and used >= agent._max_tokens:
            return "max_tokens"
        return "max_turns" if self.turn >= agent._max_turns else None

    def result(self) -> AgentResult:
        """What came of it so far."""
        return AgentResult(
            outcome=self.outcome or "cancelled",
            response=None if self.run is None else self.run.response,
            usage=self._usage,
            turns=tuple(self._runs),
            outputs=tuple(self._outputs),
            items=list(self._items),
            previous_response_id=self._response_id,
            error=self._error,
        )

    def cancel(self) -> None:
        """End it: the run under way, and no more turns. From any thread."""
        self._cancelled = True
        if self.run is not None:
            self.run.cancel()

    def leave(self) -> None:
        """It is over; perhaps its consumer has left in the middle of a turn."""
        if self.outcome is None:
            self.outcome, self._cancelled = "cancelled", True
            if self.run is not None and self.run not in self._runs:
                self._note(self.run)


# --- what is sent ----------------------------------------------------------------------------------------------------


def _tools(agent: Agent) -> list[object]:
    """The tools that the model is told of: of two with one name, the first."""
    offered = (each for use in agent.flow._uses for plugin in use for each in getattr(plugin, "definitions", ()))
    tools = list(agent._tools)
    names = {_name(tool) for tool in tools}
    for tool in offered:
        name = _name(tool)
        if name is None or name not in names:
            tools.append(tool)
            names.add(name)
    return tools


def _name(tool: object) -> object:
    """The name of a function; other tools have none."""
    fields = as_mapping(tool)
    return fields.get("name") or as_mapping(fields.get("function")).get("name")


def _unforced(choice: object) -> object:
    """A ``tool_choice`` that forces no call, and allows no other than *choice* does."""
    fields = as_mapping(choice)
    if choice in (None, "auto", "none") or fields.get("type") in ("auto", "none"):
        return choice
    return {**fields, "mode": "auto"} if fields.get("type") == "allowed_tools" else "auto"


def _sendable(item: Any) -> Any:
    """An item as any client takes it: records of ours as mappings, with what the API wants to be there."""
    if isinstance(item, Untyped):
        return dict(item)
    return _complete(item.to_dict()) if isinstance(item, Record) else item


def _complete(item: dict[str, Any]) -> dict[str, Any]:
    name, empty = _REQUIRED.get(str(item.get("type")), ("type", None))
    made: dict[str, Any] = {**item, name: item.get(name, empty)}
    if made.get("type") == "message":
        made["content"] = [_complete(as_mapping(part)) for part in as_list(made["content"])]
    elif made.get("type") == "function_call":
        made["arguments"] = _object_text(made["arguments"])
    return made


def _object_text(arguments: str) -> str:
    """Arguments as they are, or as JSON where a model wrote none: servers such as llama.cpp's parse what comes back."""
    value = object_of(arguments)
    text = encode_json(value).decode()
    with contextlib.suppress(ValueError, RecursionError):
        if json.loads(arguments) == json.loads(text):
            return arguments
    return text


def _history(run: Run) -> list[dict[str, Any]]:
    """The output of a turn as items of the next input.

    No call that breaks off, nor a thought with nothing behind it in an answer that does: APIs refuse these.
    """
    broken = {asked for asked, whole in _unanswered(run).items() if not whole}
    items = [item for item in map(_sendable, run.response.output) if _asks(item) not in broken]
    while items and (broken or run.status == "incomplete") and items[-1].get("type") == "reasoning":
        items.pop()
    return items


def _asks(item: Mapping[str, Any]) -> str | None:
    """The id that an answer of the caller's must name, of an item that may want one."""
    kind = str(item.get("type"))
    if kind in ("function_call", "custom_tool_call", "mcp_approval_request"):
        return item.get("call_id") or item.get("id")
    return None if kind.endswith("output") else item.get("call_id")


def _unanswered(run: Run) -> dict[str, bool]:
    """What a response asks of its caller, and no plugin (nor the provider itself) has answered.

    Returns:
        The ids that answers must name, and whether the asking is whole.
    """
    output = [_sendable(item) for item in run.response.output]
    answers = [*(item for item in output if _asks(item) is None), *run.outbox]
    answered = {_field(answer, name) for answer in answers for name in ("call_id", "approval_request_id")}
    return {
        asked: run.status == "completed" and item.get("status") not in ("incomplete", "in_progress")
        for item in output
        if (asked := _asks(item)) is not None and asked not in answered
    }


def _field(item: object, name: str) -> object:
    return cast("Mapping[str, Any]", item).get(name) if isinstance(item, Mapping) else getattr(item, name, None)


# --- usage -----------------------------------------------------------------------------------------------------------


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if other is None:
        return one
    one = one or Usage()
    ins = [usage.input_tokens_details or InputTokensDetails() for usage in (one, other)]
    outs = [usage.output_tokens_details or OutputTokensDetails() for usage in (one, other)]
    details = InputTokensDetails(
        cached_tokens=_add(*(each.cached_tokens for each in ins)),
        cache_write_tokens=_add(*(each.cache_write_tokens for each in ins)),
    )
    more = OutputTokensDetails(reasoning_tokens=_add(*(each.reasoning_tokens for each in outs)))
    return Usage(
        input_tokens=_add(one.input_tokens, other.input_tokens),
        output_tokens=_add(one.output_tokens, other.output_tokens),
        total_tokens=_add(_total(one), _total(other)),
        input_tokens_details=None if details == InputTokensDetails() else details,
        output_tokens_details=None if more == OutputTokensDetails() else more,
    )


def _total(usage: Usage) -> int | None:
    """All tokens, also where a server counts the parts alone."""
    return _add(usage.input_tokens, usage.output_tokens) if usage.total_tokens is None else usage.total_tokens


def _add(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


# --- streams ---------------------------------------------------------------------------------------------------------


class _Stream:
    """What both streams show of their conversation."""

    def __init__(self, talk: _Conversation) -> None:
        self._talk = talk
        self._begun = False

    def _begin(self) -> None:
        if self._begun:
            raise UsageError("this stream was iterated or closed before; call stream() again for another conversation")
        self._begun = True

    def _leave_unbegun(self) -> None:
        """Nothing of it is asked for any more."""
        if not self._begun:
            self._begun = True
            self._talk.leave()

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
        """End the conversation: the run under way, and no more turns. From any thread.

        A request whose answer has not begun ends when it does, or with its timeout.
        """
        self._talk.cancel()


class AgentStream(_Stream):
    """The events of all turns of a conversation; each turn begins with a `TurnStarted`.

    Iterate it; a bare ``break`` ends the conversation and closes the connection. ``with`` guarantees it.
    """

    def __init__(self, talk: _Conversation, turns: Callable[[], Generator[Event, None, None]]) -> None:
        super().__init__(talk)
        self._turns = turns
        self._cursor: weakref.ref[Generator[Event, None, None]] | None = None

    def __iter__(self) -> Iterator[Event]:
        self._begin()
        cursor = self._turns()
        self._cursor = weakref.ref(cursor)  # weakly: leaving the for loop drops the cursor, and that ends it all
        return cursor

    def close(self) -> None:
        """Leave the conversation and close its connection. Twice is once."""
        cursor = None if self._cursor is None else self._cursor()
        if cursor is not None:
            cursor.close()
            self._talk.leave()  # nothing of it was ever pulled
        self._leave_unbegun()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAgentStream(_Stream):
    """`AgentStream`, async: ``async for`` in an ``async with``."""

    def __init__(self, talk: _Conversation, turns: Callable[[], AsyncGenerator[Event, None]]) -> None:
        super().__init__(talk)
        self._turns = turns
        self._cursor: weakref.ref[AsyncGenerator[Event, None]] | None = None
        self._entered = False
        self._held: AsyncGenerator[Event, None] | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        self._begin()
        cursor = self._turns()
        self._cursor = weakref.ref(cursor)
        if self._entered:
            self._held = cursor  # a break must not drop it: the end of the block closes it, and waits for that
        return cursor

    async def aclose(self) -> None:
        """Leave the conversation and close its connection. Twice is once."""
        cursor = None if self._cursor is None else self._cursor()
        if cursor is not None:
            try:
                await cursor.aclose()
            except RuntimeError:  # another task waits in it
                self.cancel()
                return
            self._talk.leave()
        self._leave_unbegun()

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
