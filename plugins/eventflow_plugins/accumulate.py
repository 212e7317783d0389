"""`Accumulate`: the response as it stands at one place of the pipeline."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import attrs

from eventflow import Event, Plugin, Response, Run, on, state
from eventflow.errors import DecodeError, LimitExceeded, UsageError
from eventflow.events import (
    JSON,
    CodeInterpreterCallCodeDelta,
    CodeInterpreterCallCodeDone,
    ContentPartAdded,
    ContentPartDone,
    CustomToolCall,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    LifecycleEvent,
    McpCallArgumentsDelta,
    McpCallArgumentsDone,
    OutputItem,
    OutputItemAdded,
    OutputItemDone,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    StreamError,
    ToolCallItem,
    Usage,
)
from eventflow.partial_json import PartialParser
from eventflow.snapshot import Snapshot

__all__ = ["Accumulate"]

_BATCH = 256  # events folded at once: one call for many, and little memory under way

_PIECES = (FunctionCallArgumentsDelta, CustomToolCallInputDelta, McpCallArgumentsDelta)
_WHOLES = (FunctionCallArgumentsDone, CustomToolCallInputDone, McpCallArgumentsDone)


@attrs.define(eq=False)
class _Call:
    """A call whose arguments come; they are parsed from the moment somebody asks for them."""

    free_text: bool = False  # a custom tool's input is no JSON
    whole: bool = False
    parser: PartialParser | None = None

    def begin(self, text: str) -> PartialParser:
        self.parser = PartialParser()
        with contextlib.suppress(DecodeError, LimitExceeded):  # what was certain before the fault stays
            self.parser.feed('"' + _inside(text) if self.free_text else text)
            if self.whole and not self.free_text:
                self.parser.close()  # a number is certain only when it ends
        return self.parser

    def feed(self, text: str) -> None:
        if self.parser is not None and not self.whole:
            with contextlib.suppress(DecodeError, LimitExceeded):
                self.parser.feed(_inside(text) if self.free_text else text)


def _inside(text: str) -> str:
    """*text* as it stands in a string of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


class Accumulate(Plugin):
    """The response so far, as this place of the pipeline sees it: with what transforms before it changed.

    ::

        flow = Dispatcher(Redact(), Accumulate())
        run = flow.run(source)
        run[Accumulate].text  # redacted; run.text is what was received

    It may be read at any time of a run, by handlers and plugins behind it too, and after the run. Events are folded
    when it is read, or 256 at a time. Read the run's own instance, ``run[Accumulate]``; the one given to the dispatcher
    is a template, and reading that is a `UsageError`.

    Attributes:
        on_change: Called with this object after each event that may have changed the response. What it returns is
            treated as a handler's result: in an async run it may be awaitable.
    """

    on_change: Callable[[Accumulate], object] | None = None
    _snapshot: Snapshot = state(factory=Snapshot)
    _pending: list[Event] = state(factory=list[Event])
    _running: bool = state(default=False)
    # Which item an event is for, by the rules of the fold: its id, else its index, else the last one still open.
    _places: dict[str | int | None, _Call] = state(factory=dict[str | int | None, _Call])
    _open: dict[_Call, None] = state(factory=dict[_Call, None])
    _named: dict[str, _Call] = state(factory=dict[str, _Call])  # by call id and item id, for those who ask

    def __attrs_post_init__(self) -> None:
        if self.on_change is not None and not callable(self.on_change):
            raise UsageError(f"Accumulate(on_change=...) takes a function of the Accumulate, not {self.on_change!r}")

    def __repr__(self) -> str:
        given = "" if self.on_change is None else f"on_change={self.on_change!r}"
        return f"Accumulate({given})"

    # --- reading -----------------------------------------------------------------------------------------------------

    @property
    def response(self) -> Response:
        """The response so far."""
        return self._folded().response

    @property
    def text(self) -> str:
        """The text so far."""
        return self._folded().text

    @property
    def reasoning(self) -> str:
        """The reasoning so far; of an item that shows none, its summary."""
        return self.response.reasoning_text

    @property
    def refusal(self) -> str:
        """The words of refusal so far."""
        return self.response.refusal

    @property
    def tool_calls(self) -> tuple[ToolCallItem, ...]:
        """The calls so far, in order; the arguments of the last may be a part only."""
        return self.response.tool_calls

    @property
    def usage(self) -> Usage | None:
        """The tokens, once the server has counted them."""
        return self.response.usage

    @property
    def status(self) -> str | None:
        """The response's own status: ``in_progress``, ``completed``, ...; None before its first event."""
        return self.response.status

    def partial_arguments(self, call_id: str) -> JSON:
        """The arguments of a call so far, as the JSON value that is certain of them by now.

        A custom tool's free text is given as text. Nothing is parsed before the first call of this method; from then
        on every character is parsed once as it comes, and once more when the whole is there, which replaces pieces that
        differ. Arguments that are no JSON give what was certain before the fault.

        Args:
            call_id: The ``call_id`` of the call, or the ``id`` of its item.

        Returns:
            The value (see `eventflow.partial_json` for what is certain), None while nothing of it is known and for a
            call that has not come. Arrays and objects are not copied: they grow in place and must not be changed.
        """
        snapshot = self._folded()
        call = self._named.get(call_id)
        if call is None:
            return None
        parser = call.parser or call.begin(snapshot.arguments(call_id) or "")
        return parser.value

    def _folded(self) -> Snapshot:
        if not self._running:
            raise UsageError("this Accumulate is a dispatcher's template and hears nothing; read run[Accumulate]")
        if self._pending:
            self._snapshot.add(self._pending)
            self._pending.clear()
        return self._snapshot

    # --- hearing -----------------------------------------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """From now on there is something to read."""
        self._running = True

    def stop(self, run: Run) -> None:
        """What was under way when the stream ended is incomplete."""
        self._folded().close()

    @on(OutputItemAdded)
    def _added(self, event: OutputItemAdded) -> None:
        self._open[self._known(_Call(), event.item, event.output_index)] = None

    @on(OutputItemDone)
    def _done(self, event: OutputItemDone) -> None:
        call = self._find(event.item.id, event.output_index) or _Call()
        call.whole, call.parser = event.item.status != "incomplete", None  # parsed anew: its text may be another
        self._open.pop(self._known(call, event.item, event.output_index), None)

    @on(*_PIECES)
    def _piece(self, event: FunctionCallArgumentsDelta | CustomToolCallInputDelta | McpCallArgumentsDelta) -> None:
        self._call_of(event.item_id, event.output_index).feed(event.delta)

    @on(*_WHOLES)
    def _whole(self, event: FunctionCallArgumentsDone | CustomToolCallInputDone | McpCallArgumentsDone) -> None:
        call = self._call_of(event.item_id, event.output_index)
        call.whole, call.parser = True, None

    @on(ResponseCompleted, ResponseIncomplete, ResponseFailed)
    def _terminal(self, event: ResponseCompleted | ResponseIncomplete | ResponseFailed) -> None:
        if event.response.output:  # it is the whole; what came before does not count any more
            self._named.clear()
            for item in event.response.output:
                self._known(_Call(whole=item.status != "incomplete"), item, None)

    @on("text", "refusal", "reasoning", OutputItemAdded, OutputItemDone, ContentPartAdded, ContentPartDone)
    @on(*_PIECES, *_WHOLES, CodeInterpreterCallCodeDelta, CodeInterpreterCallCodeDone, LifecycleEvent, StreamError)
    def _hear(self, event: Event) -> object:
        self._pending.append(event)
        if len(self._pending) >= _BATCH:
            self._folded()
        return None if self.on_change is None else self.on_change(self)

    def _known(self, call: _Call, item: OutputItem, index: int | None) -> _Call:
        call.free_text = isinstance(item, CustomToolCall)
        self._places.update({key: call for key in (item.id, index) if key is not None})
        self._named.update({name: call for name in (item.id, getattr(item, "call_id", None)) if name is not None})
        return call

    def _find(self, item_id: str | None, index: int | None) -> _Call | None:
        if item_id is None and index is None:
            return next(reversed(self._open), None)
        return self._places.get(item_id) or self._places.get(index)

    def _call_of(self, item_id: str | None, index: int | None) -> _Call:
        call = self._find(item_id, index)
        if call is None:  # of an item that was never opened
            call = self._known(_Call(), FunctionCall(id=item_id), index)
            self._open[call] = None
        return call
