"""The fold: events in, the `Response` so far out. Pure.

Text is kept in pieces and joined when read; an item's pieces go when its whole text arrives. Which item an event
belongs to: the one with its ``item_id`` where that is known, else the one at its ``output_index`` (ids rotate with
every event on some gateways), else, without either, the last one opened. Where deltas and the text of a ``done``
event differ, ``done`` wins, with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import attrs

from eventflow.events import (
    CodeInterpreterCall,
    CodeInterpreterCallCodeDelta,
    CodeInterpreterCallCodeDone,
    ContentPartAdded,
    ContentPartDone,
    CustomToolCall,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    McpCall,
    McpCallArgumentsDelta,
    McpCallArgumentsDone,
    Message,
    OutputItemAdded,
    OutputItemDone,
    OutputRefusal,
    OutputText,
    Reasoning,
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
    ResponseInProgress,
    ResponseQueued,
    StreamError,
    SummaryText,
    TextAnnotationAdded,
    TextDelta,
    TextDone,
    Untyped,
)

__all__ = ["Oddity", "Snapshot", "TERMINAL"]

TERMINAL = (ResponseCompleted, ResponseIncomplete, ResponseFailed)
"""The events after which a response does not change."""

Kind = Literal["text", "refusal", "reasoning", "summary"]
_BATCH = 256  # pieces joined into one
_MAX_ODDITIES = 100  # enough to see what is wrong with a stream; a hostile one shall not fill memory with warnings


@attrs.frozen
class Oddity:
    """Something odd that a run survived.

    Attributes:
        kind: ``gap``, ``duplicate``, ``order`` or ``numbering`` (sequence numbers); ``mismatch`` (deltas and the done
            text differ); ``orphan`` (a delta for an item that was never opened); ``name`` (the SSE event name and the
            type in the data differ); ``unfinished`` (the last event had no blank line after it); ``many`` (more
            oddities than are kept).
        message: What was seen, and what was done about it.
    """

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class _Text:
    """A text that grows: pieces until it is whole."""

    __slots__ = ("joined", "pieces", "size")

    def __init__(self) -> None:
        self.joined: list[str] = []
        self.pieces: list[str] = []
        self.size = 0  # characters

    def __str__(self) -> str:
        if len(self.joined) + len(self.pieces) > 1:
            self.joined, self.pieces = ["".join(self.joined + self.pieces)], []
        return (self.joined or self.pieces or [""])[0]

    def add(self, piece: str) -> int:
        """Append *piece*; returns the growth in characters."""
        self.pieces.append(piece)
        if len(self.pieces) == _BATCH:  # a string of its own for every token would cost many times the text
            self.joined.append("".join(self.pieces))
            self.pieces = []
        self.size += len(piece)
        return len(piece)

    def settle(self, text: str) -> tuple[int, bool]:
        """Replace what has come by the whole; returns the growth in characters, and whether the two differed."""
        differs = self.size > 0 and (self.size != len(text) or str(self) != text)
        growth = len(text) - self.size
        self.joined, self.pieces, self.size = [], ([text] if text else []), len(text)
        return growth, differs


class _Part:
    """One part of an item under way."""

    __slots__ = ("annotations", "kind", "template", "text")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.text = _Text()
        self.annotations: list[Any] = []
        self.template: Any = None  # the part as opened or closed: what it carries besides its text

    def build(self) -> Any:
        text = str(self.text)
        if isinstance(self.template, Untyped):
            return self.template
        match self.kind:
            case "text":
                part = self.template if isinstance(self.template, OutputText) else OutputText()
                return OutputText(text, part.annotations or tuple(self.annotations), part.logprobs)
            case "refusal":
                return OutputRefusal(text)
            case "reasoning":
                return ReasoningText(text)
            case "summary":
                return SummaryText(text)


class _Item:
    """One output item under way."""

    __slots__ = ("arguments", "id", "index", "item", "parts", "whole")

    def __init__(self, index: int | None, item_id: str | None) -> None:
        self.index = index
        self.id = item_id
        self.item: Any = None  # as opened, or as closed
        self.whole = False
        self.parts: dict[tuple[str, int], _Part] = {}  # by ("content" | "summary", index)
        self.arguments = _Text()

    def part(self, kind: Kind, index: int | None) -> _Part:
        key = ("summary" if kind == "summary" else "content", index or 0)
        part = self.parts.get(key)
        if part is None:
            part = self.parts[key] = _Part(kind)
        elif part.kind != kind and not part.text.size:
            part.kind = kind
        return part

    def build(self, guess: Callable[[], Any]) -> Any:
        item = self.item if self.item is not None else guess()
        if self.whole and not self._hollow(item):
            return item
        if isinstance(item, Message):
            return item.replace(content=self._parts("content") or item.content)
        if isinstance(item, Reasoning):
            return item.replace(
                content=self._parts("content") or item.content, summary=self._parts("summary") or item.summary
            )
        arguments = str(self.arguments)
        if isinstance(item, FunctionCall | McpCall):
            return item.replace(arguments=arguments or item.arguments)
        if isinstance(item, CustomToolCall):
            return item.replace(input=arguments or item.input)
        if isinstance(item, CodeInterpreterCall):
            return item.replace(code=arguments or item.code)
        return item

    def _hollow(self, item: Any) -> bool:
        """Whether a closed item came without the content that its deltas brought."""
        if isinstance(item, Message):
            return not item.content and bool(self.parts)
        if isinstance(item, Reasoning):
            return not item.content and not item.summary and bool(self.parts)
        return self.arguments.size > 0

    def _parts(self, where: str) -> tuple[Any, ...]:
        return tuple(part.build() for (place, _), part in sorted(self.parts.items(), key=lambda p: p[0]) if place == where)


class Snapshot:
    """The response as the events so far tell it.

    Feed it with `add`, in any batches: ``add(a + b)`` is ``add(a); add(b)``. Not safe for several threads.

    Attributes:
        oddities: What was odd but survivable, in order; at most 100.
        text_size: Characters of text, reasoning and refusals so far.
        arguments_size: Characters of tool arguments and code so far.
    """

    def __init__(self) -> None:
        self.oddities: list[Oddity] = []
        self.text_size = 0
        self.arguments_size = 0
        self._base = Response()
        self._error: StreamError | None = None
        self._terminal: type[Event] | None = None
        self._items: list[_Item] = []
        self._by_id: dict[str, _Item] = {}
        self._by_index: dict[int, _Item] = {}
        self._built: Response | None = None

    def note(self, kind: str, message: str) -> None:
        """Keep an oddity, up to a bound."""
        if len(self.oddities) < _MAX_ODDITIES:
            self.oddities.append(Oddity(kind, message))
        elif len(self.oddities) == _MAX_ODDITIES:
            self.oddities.append(Oddity("many", "more was odd than is kept"))

    def add(self, events: Iterable[Event]) -> None:
        """Fold *events* in. Text deltas in a row are joined at once; whatever is no part of a response is ignored."""
        self._built = None
        run: list[str] = []  # the deltas of one part in a row
        part: _Text | None = None
        item_id = index = content_index = None
        event: Any
        for event in events:
            cls = type(event)
            if cls is TextDelta:
                if (
                    event.item_id == item_id
                    and event.output_index == index
                    and event.content_index == content_index
                    and part is not None
                ):
                    run.append(event.delta)
                    continue
                if part is not None:
                    self.text_size += part.add("".join(run))
                item_id, index, content_index = event.item_id, event.output_index, event.content_index
                part = self._item_of(event).part("text", content_index).text
                run = [event.delta]
                continue
            fold = _FOLDS.get(cls)
            if fold is not None:
                if part is not None:
                    self.text_size += part.add("".join(run))
                    part = None
                fold(self, event)
        if part is not None:
            self.text_size += part.add("".join(run))

    @property
    def response(self) -> Response:
        """The response so far; the same object until more is added."""
        if self._built is None:
            self._built = self._build()
        return self._built

    @property
    def text(self) -> str:
        """The text of all messages so far."""
        if self._built is not None or (self._terminal is not None and self._base.output):
            return self.response.output_text
        return "".join(
            str(part.text)
            for item in self._ordered()
            if item.item is None or isinstance(item.item, Message)
            for _, part in sorted(item.parts.items(), key=lambda p: p[0])
            if part.kind == "text"
        )

    def arguments(self, call_id: str) -> str | None:
        """The arguments so far of the call with this ``call_id`` (or item id), or None when there is no such call."""
        for item in self._items:
            if call_id in (item.id, getattr(item.item, "call_id", None)):
                built = item.build(Message)
                return str(getattr(built, "arguments", "")) if hasattr(built, "arguments") else None
        return None

    # --- building ----------------------------------------------------------------------------------------------------

    def _ordered(self) -> list[_Item]:
        return sorted(self._items, key=lambda item: len(self._items) if item.index is None else item.index)

    def _build(self) -> Response:
        response = self._base
        if not (self._terminal is not None and response.output):
            output = tuple(item.build(lambda item=item: _guess(item)) for item in self._ordered())  # type: ignore[misc]
            response = response.replace(output=output) if output else response
        if self._error is not None and self._terminal is None:
            fault = ResponseFault(self._error.code, self._error.message, self._error.error_type, self._error.param)
            response = response.replace(status="failed", error=fault)
        return response

    # --- finding -----------------------------------------------------------------------------------------------------

    def _item_of(self, event: Any) -> _Item:
        item_id, index = event.item_id, event.output_index
        item = self._by_id.get(item_id) if item_id is not None else None
        if item is None and index is not None:
            item = self._by_index.get(index)
        if item is None and item_id is None and index is None and self._items:
            item = self._items[-1]
        if item is None:
            self.note("orphan", f"{event.type} is for item {item_id or index}, which was never opened; kept as its own")
            item = self._open(index, item_id)
        return item

    def _open(self, index: int | None, item_id: str | None) -> _Item:
        item = _Item(index, item_id)
        self._items.append(item)
        if item_id is not None:
            self._by_id[item_id] = item
        if index is not None:
            self._by_index[index] = item
        return item

    def _settle(self, event: Event, text: _Text, whole: str) -> int:
        growth, differs = text.settle(whole)
        if differs:
            number = getattr(event, "sequence_number", None)
            where = event.type if number is None else f"{event.type} (number {number})"
            self.note("mismatch", f"{where} differs from the deltas before it; its text is kept")
        return growth


def _guess(item: _Item) -> Any:
    """An item for parts that came without one being opened."""
    kinds = {part.kind for part in item.parts.values()}
    if kinds & {"text", "refusal"} or not (kinds or item.arguments.size):
        return Message(id=item.id)
    if kinds:
        return Reasoning(id=item.id)
    return FunctionCall(id=item.id)


# --- one function for each event that changes the response -----------------------------------------------------------


def _lifecycle(snapshot: Snapshot, event: Any) -> None:
    if isinstance(event, TERMINAL):
        if event.response.output:
            _compare_terminal(snapshot, event)
        snapshot._terminal = type(event)
    elif snapshot._terminal is not None:
        return
    response: Response = event.response
    if response.status is None:
        response = response.replace(status=event.type.removeprefix("response.").replace("created", "in_progress"))
    snapshot._base = response
    if snapshot._terminal is not None and response.output:
        snapshot._items, snapshot._by_id, snapshot._by_index = [], {}, {}  # the whole is here: drop the pieces


def _compare_terminal(snapshot: Snapshot, event: Any) -> None:
    if snapshot._items and snapshot._terminal is None:
        received = snapshot.text
        final = event.response.output_text
        if received and (len(received) != len(final) or received != final):
            snapshot.note("mismatch", f"the text of {event.type} differs from what came before it; its text is kept")


def _stream_error(snapshot: Snapshot, event: Any) -> None:
    if snapshot._error is None:
        snapshot._error = event


def _item_added(snapshot: Snapshot, event: Any) -> None:
    item = snapshot._by_id.get(event.item.id) if event.item.id is not None else None
    if item is None and event.output_index is not None:
        item = snapshot._by_index.get(event.output_index)
        if item is not None and item.item is not None:  # a second item at the same place is an item of its own
            item = None
    if item is None:
        item = snapshot._open(event.output_index, event.item.id)
    elif event.item.id is not None:
        snapshot._by_id[event.item.id] = item
    item.item = event.item


def _item_done(snapshot: Snapshot, event: Any) -> None:
    item = snapshot._by_id.get(event.item.id) if event.item.id is not None else None
    if item is None and event.output_index is not None:
        item = snapshot._by_index.get(event.output_index)
    if item is None and event.output_index is None and event.item.id is None:
        item = next((open_item for open_item in snapshot._items if not open_item.whole), None)
    if item is None:
        item = snapshot._open(event.output_index, event.item.id)
    received = item.build(lambda: event.item)
    item.item, item.whole = event.item, True
    if item._hollow(event.item):
        if getattr(event.item, "arguments", None) or getattr(event.item, "code", None):
            whole = getattr(event.item, "arguments", None) or getattr(event.item, "code", None) or ""
            snapshot.arguments_size += snapshot._settle(event, item.arguments, whole)
            item.arguments = _Text()  # the item has them
        return
    if isinstance(event.item, Message | Reasoning):
        _compare_item(snapshot, event, received)
        sizes = sum(part.text.size for part in item.parts.values())
        whole_size = _size(event.item)
        snapshot.text_size += whole_size - sizes
        item.parts = {}
    elif not item.arguments.size:
        snapshot.arguments_size += len(getattr(event.item, "arguments", None) or getattr(event.item, "code", None) or "")


def _size(item: Message | Reasoning) -> int:
    parts = item.content if isinstance(item, Message) else item.content + item.summary
    return sum(len(part.refusal if isinstance(part, OutputRefusal) else getattr(part, "text", "")) for part in parts)


def _compare_item(snapshot: Snapshot, event: Any, received: Any) -> None:
    if type(received) is type(event.item):
        before, after = Response(output=(received,)), Response(output=(event.item,))
        for name in ("output_text", "refusal", "reasoning_text"):
            had, has = getattr(before, name), getattr(after, name)
            if had and (len(had) != len(has) or had != has):
                snapshot.note("mismatch", f"the {name} of {event.type} differs from what came before it; its own is kept")


def _part_kind(part: Any) -> Kind:
    if isinstance(part, OutputRefusal):
        return "refusal"
    if isinstance(part, ReasoningText):
        return "reasoning"
    return "summary" if isinstance(part, SummaryText) else "text"


def _part_added(snapshot: Snapshot, event: Any) -> None:
    summary = isinstance(event, ReasoningSummaryPartAdded)
    kind: Kind = "summary" if summary else _part_kind(event.part)
    part = snapshot._item_of(event).part(kind, event.summary_index if summary else event.content_index)
    part.template = event.part
    begun = getattr(event.part, "text", None) or getattr(event.part, "refusal", None)
    if begun and not part.text.size:
        snapshot.text_size += part.text.add(begun)


def _part_done(snapshot: Snapshot, event: Any) -> None:
    summary = isinstance(event, ReasoningSummaryPartDone)
    kind: Kind = "summary" if summary else _part_kind(event.part)
    part = snapshot._item_of(event).part(kind, event.summary_index if summary else event.content_index)
    part.template = event.part
    whole = getattr(event.part, "text", None) or getattr(event.part, "refusal", None)
    if whole:
        snapshot.text_size += snapshot._settle(event, part.text, whole)


def _annotation(snapshot: Snapshot, event: Any) -> None:
    snapshot._item_of(event).part("text", event.content_index).annotations.append(event.annotation)


def _delta(kind: Kind, index: str) -> Callable[[Snapshot, Any], None]:
    def fold(snapshot: Snapshot, event: Any) -> None:
        part = snapshot._item_of(event).part(kind, getattr(event, index))
        snapshot.text_size += part.text.add(event.delta)

    return fold


def _done(kind: Kind, index: str, field: str = "text") -> Callable[[Snapshot, Any], None]:
    def fold(snapshot: Snapshot, event: Any) -> None:
        part = snapshot._item_of(event).part(kind, getattr(event, index))
        snapshot.text_size += snapshot._settle(event, part.text, getattr(event, field))

    return fold


def _arguments_delta(snapshot: Snapshot, event: Any) -> None:
    snapshot.arguments_size += snapshot._item_of(event).arguments.add(event.delta)


def _arguments_done(field: str) -> Callable[[Snapshot, Any], None]:
    def fold(snapshot: Snapshot, event: Any) -> None:
        snapshot.arguments_size += snapshot._settle(event, snapshot._item_of(event).arguments, getattr(event, field))

    return fold


Fold: TypeAlias = Callable[[Snapshot, Any], None]

_FOLDS: dict[type[Event], Fold] = {
    ResponseCreated: _lifecycle,
    ResponseQueued: _lifecycle,
    ResponseInProgress: _lifecycle,
    ResponseCompleted: _lifecycle,
    ResponseIncomplete: _lifecycle,
    ResponseFailed: _lifecycle,
    StreamError: _stream_error,
    OutputItemAdded: _item_added,
    OutputItemDone: _item_done,
    ContentPartAdded: _part_added,
    ContentPartDone: _part_done,
    ReasoningSummaryPartAdded: _part_added,
    ReasoningSummaryPartDone: _part_done,
    TextDone: _done("text", "content_index"),
    TextAnnotationAdded: _annotation,
    RefusalDelta: _delta("refusal", "content_index"),
    RefusalDone: _done("refusal", "content_index", "refusal"),
    ReasoningTextDelta: _delta("reasoning", "content_index"),
    ReasoningTextDone: _done("reasoning", "content_index"),
    ReasoningSummaryTextDelta: _delta("summary", "summary_index"),
    ReasoningSummaryTextDone: _done("summary", "summary_index"),
    FunctionCallArgumentsDelta: _arguments_delta,
    FunctionCallArgumentsDone: _arguments_done("arguments"),
    CustomToolCallInputDelta: _arguments_delta,
    CustomToolCallInputDone: _arguments_done("input"),
    McpCallArgumentsDelta: _arguments_delta,
    McpCallArgumentsDone: _arguments_done("arguments"),
    CodeInterpreterCallCodeDelta: _arguments_delta,
    CodeInterpreterCallCodeDone: _arguments_done("code"),
}
