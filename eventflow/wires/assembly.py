"""What another provider says, assembled to the events of a Responses stream. Sans-IO.

A wire tells the `Assembler` what it hears: a piece of text, of reasoning, of a call's arguments. It opens the item and
the part that the piece belongs to, numbers everything, closes what is complete with the whole of it, and ends with the
whole response, so that what comes out is in the order of `eventflow.testing.ORDER`.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from eventflow.errors import DecodeError, LimitExceeded
from eventflow.events import (
    Annotation,
    ContentPartAdded,
    ContentPartDone,
    CustomToolCall,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    IncompleteDetails,
    McpCall,
    McpCallArgumentsDelta,
    McpCallArgumentsDone,
    Message,
    OutputItem,
    OutputItemAdded,
    OutputItemDone,
    OutputRefusal,
    OutputText,
    Reasoning,
    ReasoningEvent,
    ReasoningSummaryPartAdded,
    ReasoningSummaryPartDone,
    ReasoningSummaryTextDelta,
    ReasoningSummaryTextDone,
    ReasoningText,
    ReasoningTextDelta,
    ReasoningTextDone,
    RefusalDelta,
    RefusalDone,
    Response,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseFault,
    ResponseIncomplete,
    StreamError,
    SummaryText,
    TextAnnotationAdded,
    TextDelta,
    TextDone,
    UnknownEvent,
    Untyped,
    Usage,
)
from eventflow.events._decode import STRICT_ERRORS
from eventflow.limits import Limits, weight
from eventflow.partial_json import PartialParser
from eventflow.pieces import Pieces

__all__ = ["Assembler"]

_LONG_ID = 128  # characters of the response's id that the ids of its items repeat

_skim = msgspec.json.Decoder(msgspec.Raw).decode

Piece: TypeAlias = TextDelta | RefusalDelta | ReasoningTextDelta | ReasoningSummaryTextDelta
Call: TypeAlias = FunctionCall | CustomToolCall | McpCall

# Of each kind of piece: the events around it, and the part that it is of.
_OPENED: dict[Any, Any] = dict.fromkeys((TextDelta, RefusalDelta, ReasoningTextDelta), ContentPartAdded)
_OPENED[ReasoningSummaryTextDelta] = ReasoningSummaryPartAdded
_CLOSED: dict[Any, Any] = dict.fromkeys((TextDelta, RefusalDelta, ReasoningTextDelta), ContentPartDone)
_CLOSED[ReasoningSummaryTextDelta] = ReasoningSummaryPartDone
_KINDS_OF_PART: dict[Any, Any] = {
    TextDelta: OutputText,
    RefusalDelta: OutputRefusal,
    ReasoningTextDelta: ReasoningText,
    ReasoningSummaryTextDelta: SummaryText,
}
_DONE: dict[Any, Any] = {
    TextDelta: TextDone,
    RefusalDelta: RefusalDone,
    ReasoningTextDelta: ReasoningTextDone,
    ReasoningSummaryTextDelta: ReasoningSummaryTextDone,
    FunctionCallArgumentsDelta: FunctionCallArgumentsDone,
    CustomToolCallInputDelta: CustomToolCallInputDone,
    McpCallArgumentsDelta: McpCallArgumentsDone,
}
_ARGUMENTS: dict[Any, Any] = {
    FunctionCall: FunctionCallArgumentsDelta,
    CustomToolCall: CustomToolCallInputDelta,
    McpCall: McpCallArgumentsDelta,
}


class _Text(Pieces):
    """A text that events bring.

    Attributes:
        cls: The class of its pieces' events.
        place: Where it is: the fields that all its events share.
    """

    __slots__ = ("cls", "place")

    def __init__(self, cls: Any, place: dict[str, Any]) -> None:
        super().__init__()
        self.cls = cls
        self.place = place


class _Part(_Text):
    """An open part of a message or of reasoning, and what its text cites."""

    __slots__ = ("annotations",)

    def __init__(self, cls: Any, place: dict[str, Any]) -> None:
        super().__init__(cls, place)
        self.annotations: list[Annotation] = []


class _Item:
    """An open item: as it was opened, its place, the parts that are closed and the one that is open."""

    __slots__ = ("arguments", "content", "index", "part", "seal", "start", "summary")

    def __init__(self, start: Message | Reasoning | Call, index: int) -> None:
        self.start = start
        self.index = index
        self.part: _Part | None = None
        self.content: list[Any] = []
        self.summary: list[Any] = []
        self.seal: Pieces | None = None
        self.arguments = _Text(_ARGUMENTS.get(type(start)), {"item_id": start.id, "output_index": index})


class Assembler:
    """Makes the events of one response.

    Items are told apart by keys of the wire's own (a block's index, a choice and its tool's index). A wire tells what
    it hears, and takes the events that this makes.

    Attributes:
        begun: Whether the response was opened.
        ended: Whether it has come to its end.
    """

    def __init__(self, limits: Limits) -> None:
        self.begun = self.ended = False
        self._limits = limits
        self._text_room = sys.maxsize if limits.text is None else limits.text  # characters that may still come
        self._other_room = sys.maxsize if limits.other is None else limits.other
        self._arguments_room = sys.maxsize if limits.arguments is None else limits.arguments
        self._events: list[Event] = []
        self._number = 0
        self._items: list[OutputItem | None] = []  # those that are closed, at their places
        self._given = set[str]()  # the ids of items that are the provider's
        self._open: dict[Hashable, _Item] = {}
        self._extra: dict[str, Any] | None = None  # for the next event
        self._several = set[str]()  # the names in it that came more than once
        self._response = Response(status="in_progress", object="response")

    def take(self) -> list[Event]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def keep(self, extra: Mapping[str, Any], *, latest: bool = False) -> None:
        """The provider said something that has no place in the vocabulary: it is in the ``extra`` of the next event.

        What comes under one name before that event is there as a list, and lists as one; of what only the *latest*
        word counts, there is that.
        """
        if not extra:
            return
        self.count("other", weight(extra))
        if self._extra is None:
            self._extra, self._several = {}, set[str]()
        pending, several = self._extra, self._several
        for name, value in extra.items():
            if latest or name not in pending:
                pending[name] = value
                continue
            if name not in several:
                several.add(name)
                before = pending[name]
                pending[name] = [*before] if isinstance(before, list) else [before]
            if isinstance(value, list):
                pending[name].extend(value)
            else:
                pending[name].append(value)

    def count(self, limit: Literal["text", "arguments", "other"], characters: int) -> None:
        """So much came of what no event of its own brings, but one that is whole; raises `LimitExceeded`."""
        if limit == "text":
            self._text_room -= characters
        elif limit == "other":
            self._other_room -= characters
        else:
            self._arguments_room -= characters
        self.check()

    def check(self) -> None:
        """Raise `LimitExceeded` where what came is too much; the piece with which it becomes that is still told."""
        for limit, maximum, room in (
            ("text", self._limits.text, self._text_room),
            ("arguments", self._limits.arguments, self._arguments_room),
            ("other", self._limits.other, self._other_room),
        ):
            if room < 0 and maximum is not None:
                raise LimitExceeded(limit=limit, maximum=maximum, seen=maximum - room)

    # --- the response ------------------------------------------------------------------------------------------------

    def begin(self, *, response_id: str | None, model: str | None, created_at: float | None = None) -> None:
        """The response is there."""
        self.begun = True
        self.rename(id=response_id, model=model, created_at=created_at)
        self.emit(ResponseCreated(self._response))

    def rename(self, **fields: Any) -> None:
        """What was said of the response at its beginning was not the last word: its end has *fields*."""
        self._response = self._response.replace(**fields)

    def end(self, reason: str | None = None, *, usage: Usage | None = None) -> None:
        """The response is over: completed, or incomplete for a *reason*; what is open is closed."""
        status = "incomplete" if reason else "completed"
        self._close_all(status)
        details = IncompleteDetails(reason=reason) if reason else None
        cls = ResponseIncomplete if reason else ResponseCompleted
        self._finish(cls, status=status, usage=usage, incomplete_details=details)

    def fail(self, error: StreamError, *, usage: Usage | None = None) -> None:
        """The provider reports an error: what is open is closed, and a response that is has failed."""
        going_on = self.begun and not self.ended
        if going_on:  # before the error: after it comes the end alone
            self._close_all("incomplete")
        self.emit(error)
        if going_on:
            fault = ResponseFault(
                code=error.code or error.error_type, message=error.message, type=error.error_type, param=error.param
            )
            self._finish(ResponseFailed, status="failed", usage=usage, error=fault)

    def _finish(self, cls: type[ResponseCompleted | ResponseIncomplete | ResponseFailed], **fields: Any) -> None:
        self.ended = True
        self.rename(output=tuple(item for item in self._items if item is not None), **fields)
        self.emit(cls(self._response))

    # --- pieces of text ----------------------------------------------------------------------------------------------

    def piece(self, key: Hashable, cls: type[Piece], delta: str, **fields: Any) -> None:
        """The next piece of a text, a refusal, a piece of reasoning or of its summary, as the class of its event says.

        An item and a part for it are opened where there are none. An empty piece only opens them.
        """
        part = self._part(key, cls)
        if delta or fields:
            self._text_room -= part.add(delta)
            self.emit(cls(delta, **part.place, **fields))

    def next_piece(self, key: Hashable, cls: type[Piece | FunctionCallArgumentsDelta], delta: str) -> Event | None:
        """The short way: the event of the next piece of what is open under *key*; None where that is of another kind.

        It is not among what `take` gives.
        """
        item = self._open.get(key)
        if item is None or self._extra is not None:
            return None
        text: _Text | None = item.part
        if text is not None:
            room = self._text_room
            if text.cls is not cls or room < 0:
                return None
            self._text_room = room - text.add(delta)
        elif cls is FunctionCallArgumentsDelta and type(item.start) is FunctionCall:
            text, room = item.arguments, self._arguments_room
            if room < 0:
                return None
            self._arguments_room = room - text.add(delta)
        else:
            return None
        number = self._number
        self._number = number + 1
        event: Event = cls(delta, sequence_number=number, **text.place)
        return event

    def annotate(self, key: Hashable, annotation: Annotation) -> None:
        """The text cites something."""
        self.count("other", weight(annotation))
        part = self._part(key, TextDelta)
        part.annotations.append(annotation)
        index = len(part.annotations) - 1
        self.emit(TextAnnotationAdded(annotation=annotation, annotation_index=index, **part.place))

    def seal(self, key: Hashable, encrypted_content: str) -> None:
        """The next piece of what must be sent back with reasoning, unread: its signature, or itself, encrypted."""
        item = self._open.get(key)
        if item is None:
            item = self._open_item(key, Reasoning(id=self._id("rs"), status="in_progress"))
        self.count("text", len(encrypted_content))
        if item.seal is None:
            item.seal = Pieces()
        item.seal.add(encrypted_content)

    def end_part(self, key: Hashable) -> None:
        """The part that is open under *key* is complete; the item goes on."""
        if key in self._open:
            self._close_part(self._open[key])

    def _part(self, key: Hashable, cls: type[Piece]) -> _Part:
        """The open part for pieces of this kind; a new one where there is none."""
        item = self._open.get(key)
        if item is None:
            start: Message | Reasoning = Message(id=self._id("msg"), role="assistant", status="in_progress")
            if issubclass(cls, ReasoningEvent):
                start = Reasoning(id=self._id("rs"), status="in_progress")
            item = self._open_item(key, start)
        part = item.part
        if part is not None and part.cls is cls:
            return part
        self._close_part(item)
        parts = item.summary if cls is ReasoningSummaryTextDelta else item.content
        index = "summary_index" if cls is ReasoningSummaryTextDelta else "content_index"
        part = item.part = _Part(cls, {"item_id": item.start.id, "output_index": item.index, index: len(parts)})
        self.emit(_OPENED[cls](_KINDS_OF_PART[cls](), **part.place))
        return part

    def _close_part(self, item: _Item) -> None:
        part, item.part = item.part, None
        if part is None:
            return
        text = str(part)
        self.emit(_DONE[part.cls](text, **part.place))
        closed = _KINDS_OF_PART[part.cls](text)
        if part.annotations:
            closed = closed.replace(annotations=tuple(part.annotations))
        (item.summary if part.cls is ReasoningSummaryTextDelta else item.content).append(closed)
        self.emit(_CLOSED[part.cls](closed, **part.place))

    # --- calls -------------------------------------------------------------------------------------------------------

    def call(self, key: Hashable, start: Call) -> None:
        """A call begins: its name is known; the arguments that it has are its first piece."""
        arguments = start.arguments
        self.count("other", weight(start) - len(arguments))
        item_id = self._taken(start.id) or self._id("fc")
        start = start.replace(id=item_id, status="in_progress", **{_argument_field(start): ""})
        self._open_item(key, start)
        self.arguments(key, arguments)

    def arguments(self, key: Hashable, delta: str) -> None:
        """The next piece of a call's arguments."""
        if delta:
            arguments = self._open[key].arguments
            self._arguments_room -= arguments.add(delta)
            self.emit(arguments.cls(delta, **arguments.place))

    def has_arguments(self, key: Hashable) -> bool:
        """Whether any arguments of an open call have come."""
        return bool(self._open[key].arguments)

    # --- items -------------------------------------------------------------------------------------------------------

    def item_of(self, key: Hashable) -> OutputItem | None:
        """What is open under *key*, as it was opened."""
        item = self._open.get(key)
        return None if item is None else item.start

    def amend(self, key: Hashable, **fields: Any) -> None:
        """What was said of an item at its beginning was not the last word: its end has *fields*."""
        item = self._open[key]
        item.start = item.start.replace(**fields)

    def item(self, item: OutputItem, *, counted: bool = False) -> None:
        """An item that comes whole; it may have been *counted* as it came."""
        if not counted:
            self.count("other", weight(item))
        if not isinstance(item, Untyped):
            item = item.replace(id=self._taken(item.id))
        index = len(self._items)
        self._items.append(item)
        self.emit(OutputItemAdded(item, output_index=index))
        self.emit(OutputItemDone(item, output_index=index))

    def close(self, key: Hashable, status: str = "completed") -> None:
        """The item under *key* is complete; nothing where none is open.

        A call whose arguments break off is incomplete all the same: some providers close it before they tell that the
        answer has become too long. Nobody runs it then.
        """
        item = self._open.pop(key, None)
        if item is None:
            return
        self._close_part(item)
        done: Any = item.start
        if isinstance(done, Message):
            done = done.replace(content=tuple(item.content))
        elif isinstance(done, Reasoning):
            sealed = None if item.seal is None else str(item.seal)
            done = done.replace(content=tuple(item.content), summary=tuple(item.summary), encrypted_content=sealed)
        else:
            arguments = str(item.arguments)
            self.emit(_DONE[item.arguments.cls](arguments, **item.arguments.place))
            done = done.replace(**{_argument_field(done): arguments})
            if not isinstance(done, CustomToolCall) and _breaks_off(arguments):  # theirs may be any text
                status = "incomplete"
        done = self._items[item.index] = done.replace(status=status)
        self.emit(OutputItemDone(done, output_index=item.index))

    def _close_all(self, status: str) -> None:
        for key in list(self._open):
            self.close(key, status)

    def _open_item(self, key: Hashable, start: Message | Reasoning | Call) -> _Item:
        item = self._open[key] = _Item(start, len(self._items))
        self._items.append(None)
        self.emit(OutputItemAdded(start, output_index=item.index))
        return item

    def _id(self, kind: str) -> str:
        return f"{kind}_{len(self._items)}_{(self._response.id or 'response')[:_LONG_ID]}"

    def _taken(self, item_id: str | None) -> str | None:
        """The provider's own id of an item; none where another has it already, for no two items may share one."""
        if item_id is None or item_id in self._given:
            return None
        self._given.add(item_id)
        return item_id

    def emit(self, event: Event) -> None:
        """The next event, numbered; of the wire's own, one that belongs to no item."""
        extra, self._extra = self._extra, None
        self._events.append(event.replace(sequence_number=self._number, **({"extra": extra} if extra else {})))
        self._number += 1

    def unknown(self, kind: str, data: dict[str, Any]) -> None:
        """An event of the provider's that nobody knows, as it was sent; what has no place waits for one of ours."""
        self._events.append(UnknownEvent(kind, data, sequence_number=self._number))
        self._number += 1


def _breaks_off(arguments: str) -> bool:
    """Whether this is the start of JSON, and not all of it; what a model wrote wrongly is its own affair."""
    try:
        _skim(arguments)
        return False
    except STRICT_ERRORS:  # also of what is whole: lone surrogates, and what is nested deep
        parser = PartialParser(max_depth=None)
    try:
        parser.feed(arguments)
    except DecodeError:
        return False
    try:
        parser.close()
        return False
    except DecodeError:
        return arguments != "" and not arguments.isspace()


def _argument_field(call: Call) -> str:
    return "input" if isinstance(call, CustomToolCall) else "arguments"
