"""`Conversation`: what an agent sends next, and when it stops; it awaits nothing and asks nobody."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import attrs

from eventflow.errors import EventflowError, UsageError
from eventflow.events import (
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
from eventflow.limits import is_count
from eventflow.plain import as_list, as_mapping
from eventflow.plugin import Plugin, on, state
from eventflow.providers.parameters import object_of
from eventflow.routing import is_async
from eventflow.run import Run

__all__ = ["AgentResult", "Conversation", "Ledger", "Outcome", "Terms", "tool_name"]

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


class Ledger(Plugin):
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


@attrs.frozen(kw_only=True)
class Terms:
    """What all conversations of an agent have in common; see `eventflow.agent.Agent`.

    Attributes:
        parameters: Gives the parameters of every request, anew; nothing shows them.
        tools: Gives the tools of a request.
    """

    parameters: Callable[[], dict[str, Any]]
    tools: Callable[[], list[object]]
    max_turns: int
    max_tokens: int | None
    max_calls: int | None
    max_failures: int | None
    history: str
    prepare: Callable[[dict[str, Any], int], Mapping[str, Any]] | None

    def __attrs_post_init__(self) -> None:
        for name in ("max_turns", "max_tokens", "max_calls", "max_failures"):
            bound: object = getattr(self, name)
            if not (is_count(bound) or (bound is None and name != "max_turns")):
                raise UsageError(f"Agent({name}=...) takes a positive integer, not {bound!r}")
        if self.history not in _HISTORIES:
            raise UsageError(f"Agent(history=...) is one of {', '.join(_HISTORIES)}, not {self.history!r}")
        if self.prepare is not None and (not callable(self.prepare) or is_async(self.prepare)):
            raise UsageError(f"Agent(prepare=...) takes a plain function of parameters and turn, not {self.prepare!r}")


class Conversation:
    """One conversation of an agent: what to send next, and when to stop.

    Belongs to the thread or task that drives it, but for `cancel`.
    """

    def __init__(self, terms: Terms, given: str | Sequence[object], after: AgentResult | None, check: bool) -> None:
        if after is not None and not isinstance(after, AgentResult):
            raise UsageError(f"after=... takes the result of a conversation, not {type(after).__name__}")
        if isinstance(given, AgentResult):
            raise UsageError("an agent is given text or a list of items; to go on with a result: run(input, after=...)")
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        elif not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
            raise UsageError(f"an agent is given text or a list of items, not {type(given).__name__}")
        self._terms = terms
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
        """The parameters of the next turn's request; no variable here has them, for a traceback would show them."""
        self.turn += 1
        prepare = self._terms.prepare
        prepared: object = self._parameters() if prepare is None else prepare(self._parameters(), self.turn)
        if not isinstance(prepared, Mapping):
            raise UsageError(f"Agent(prepare=...) is to return the parameters, not {type(prepared).__name__}")
        self._asking = True
        return {**cast("Mapping[str, Any]", prepared), "stream": True}

    def _parameters(self) -> dict[str, Any]:
        parameters = {**self._terms.parameters(), "input": list(self._items)}
        tools = self._terms.tools()
        if tools:
            parameters["tools"] = tools
        if self._response_id is not None:
            parameters["previous_response_id"] = self._response_id
        if self.turn > 1 and "tool_choice" in parameters:  # a model that must call a tool would never answer
            parameters["tool_choice"] = _unforced(parameters["tool_choice"])
        return parameters

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
        ledger = run[Ledger]
        self._outputs += ledger.outputs
        self._calls += len(ledger.calls)
        self._usage = _sum(self._usage, run.response.usage)
        if run.status in ("completed", "incomplete") and not (self._cancelled or run.cancelled):
            if self._terms.history == "previous_response_id" and run.response.id is not None:
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
        terms = self._terms
        if self._cancelled or run.cancelled or run.status == "cancelled":
            return "cancelled"
        if run.status == "incomplete":
            return "incomplete"
        unanswered = _unanswered(run)
        if any(unanswered.values()):
            return "unanswered"
        if not run.outbox:
            return "incomplete" if unanswered else "completed"
        if terms.max_failures is not None and max(self._failures.values(), default=0) >= terms.max_failures:
            return "max_failures"
        if terms.max_calls is not None and self._calls >= terms.max_calls:
            return "max_calls"
        used = None if self._usage is None else _total(self._usage)
        if terms.max_tokens is not None and used is not None and used >= terms.max_tokens:
            return "max_tokens"
        return "max_turns" if self.turn >= terms.max_turns else None

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


def tool_name(tool: object) -> object:
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
