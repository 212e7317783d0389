"""The fold: events in, the `Response` so far out. Pure.

Text is kept in `Pieces`, which go when the whole item arrives.

Which item an event belongs to: the one with its ``item_id`` where that is known, else the one at its
``output_index`` (ids rotate with every event on some gateways), else, without either, the last one that is still
open. What fits none is kept as an item of its own.

Where deltas and the text of a ``done`` event differ, ``done`` wins, with a warning; what a ``done`` event, a closed
item or a terminal event leaves out (some servers close items without their text, and responses without their output)
stays as the events before it brought it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

import attrs

from eventflow.errors import excerpt
from eventflow.events import (
    JSON,
    CodeInterpreterCallCodeDelta,
    CodeInterpreterCallCodeDone,
    ContentPartAdded,
    ContentPartDone,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Event,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    McpCallArgumentsDelta,
    McpCallArgumentsDone,
    OutputItem,
    OutputItemAdded,
    OutputItemDone,
    OutputRefusal,
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
)
from eventflow.limits import weight
from eventflow.open_item import CALL_TEXTS, FINAL, Kind, OpenItem, OpenPart, text_of, words
from eventflow.pieces import Pieces

__all__ = ["FOLDED", "TERMINAL", "Oddity", "Snapshot"]

TERMINAL = (ResponseCompleted, ResponseIncomplete, ResponseFailed)
"""The events after which a response does not change."""

_LONG = 1000  # characters of what is odd
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


class Snapshot:
    """The response as the events so far tell it.

    Feed it with `add`, in any batches: ``add(a + b)`` is ``add(a); add(b)``. Not safe for several threads.

    Attributes:
        oddities: What was odd but survivable, in order; at most 100, and one that says that there were more.
        text_size: Characters of text, reasoning and refusals so far.
        arguments_size: Characters of tool arguments and code so far.
        other_size: Characters of all else that is kept: ids, what is encrypted, annotations, items of unknown types.
    """

    def __init__(self) -> None:
        self.oddities: list[Oddity] = []
        self.text_size = 0
        self.arguments_size = 0
        self.other_size = 0
        self._base = Response()
        self._error: StreamError | None = None
        self._terminal: type[Event] | None = None
        self._closed = False
        self._items: list[OpenItem] = []
        self._latest: list[OpenItem] = []  # the same; whole ones go from its end
        self._by_id: dict[str, OpenItem] = {}
        self._by_index: dict[int, OpenItem] = {}
        self._built: Response | None = None

    def note(self, kind: str, message: str) -> None:
        """Keep an oddity, up to a bound."""
        if len(message) > _LONG:  # what it quotes is a peer's
            message = excerpt(message, _LONG)
        if len(self.oddities) < _MAX_ODDITIES:
            self.oddities.append(Oddity(kind, message))
        elif len(self.oddities) == _MAX_ODDITIES:
            self.oddities.append(Oddity("many", "more was odd than is kept"))

    def add(self, events: Iterable[Event]) -> None:
        """Fold *events* in. Text deltas in a row are joined at once; whatever is no part of a response is ignored.

        Nothing changes after a terminal event, or after `close`.
        """
        if self._terminal is not None or self._closed:
            return
        self._built = None
        run: list[str] = []  # the deltas of one part in a row
        text: Pieces | None = None
        item_id = index = content_index = None
        event: Any
        for event in events:
            cls = type(event)  # pyright: ignore[reportUnknownVariableType]
            if cls is TextDelta:
                if (
                    event.item_id == item_id
                    and event.output_index == index
                    and event.content_index == content_index
                    and text is not None
                ):
                    run.append(event.delta)
                    continue
                if text is not None:
                    self.text_size += text.add("".join(run))
                item_id, index, content_index = event.item_id, event.output_index, event.content_index
                text = self._item_of(event).part("text", content_index).text
                run = [event.delta]
                continue
            fold = _FOLDS.get(cls)  # pyright: ignore[reportUnknownArgumentType]
            if fold is not None:
                if text is not None:
                    self.text_size += text.add("".join(run))
                    text = None
                fold(self, event)
                if self._terminal is not None:
                    return
        if text is not None:
            self.text_size += text.add("".join(run))

    def close(self) -> None:
        """The stream has ended before a terminal event: what was under way is ``incomplete``."""
        if self._terminal is None:
            self._closed = True
            self._built = None

    @property
    def response(self) -> Response:
        """The response so far; the same object until more is added."""
        if self._built is None:
            self._built = self._build()
        return self._built

    @property
    def text(self) -> str:
        """The text of all messages so far."""
        return self.response.output_text

    def arguments(self, call_id: str) -> str | None:
        """The arguments so far of the call with this ``call_id`` (or item id), or None when there is no such call."""
        call = self._call(call_id)
        return getattr(call.build(), "arguments", None) if call is not None else None

    def value(self, call_id: str) -> JSON:
        """The arguments so far of the call with this ``call_id`` (or item id), as the JSON that is certain of them.

        None while nothing of it is known, and when there is no such call. Nothing is parsed before it is first asked
        for, and then each character once, and once more when the whole is there. Of arguments that are no JSON it is
        what was certain before the fault; a custom tool's input is text. Not a copy: what grows must not be changed.
        """
        call = self._call(call_id)
        return call.value() if call is not None else None

    def _call(self, name: str) -> OpenItem | None:
        """The last item with this name."""
        for item in reversed(self._items):
            if name in (item.id, getattr(item.item, "id", None), getattr(item.item, "call_id", None)):
                return item
        for sent in reversed(self._base.output):
            if name in (sent.id, getattr(sent, "call_id", None)):
                call = OpenItem(None, sent.id)
                call.close(sent)
                return call
        return None

    # --- building ----------------------------------------------------------------------------------------------------

    def _build(self) -> Response:
        response = self._base
        ended = self._closed or self._error is not None or self._terminal in (ResponseIncomplete, ResponseFailed)
        if self._items:
            output = (item.cut_off() if ended and not item.whole else item.build() for item in self._ordered())
            response = response.replace(output=tuple(output))
        if self._terminal is not None:
            return response
        if self._error is not None:
            fault = ResponseFault(self._error.code, self._error.message, self._error.error_type, self._error.param)
            return response.replace(status="failed", error=fault)
        if self._closed and response != Response() and response.status not in FINAL:
            return response.replace(status="incomplete")
        return response

    def _ordered(self) -> list[OpenItem]:
        return sorted(self._items, key=lambda item: len(self._items) if item.index is None else item.index)

    # --- finding -----------------------------------------------------------------------------------------------------

    def _item_of(self, event: Any) -> OpenItem:
        """The item that an event about a part of one belongs to; one of its own where there is none."""
        item = self._by_id.get(event.item_id) or self._find(event.item_id, event.output_index)
        if item is None:
            where = event.item_id if event.item_id is not None else event.output_index
            self.note("orphan", f"{event.type} is for item {where}, which was never opened; it is kept as its own")
            item = self._open(event.output_index, event.item_id)
        return item

    def _find(self, item_id: str | None, index: int | None) -> OpenItem | None:
        item = self._by_id.get(item_id) if item_id is not None else None
        if item is None and index is not None:
            item = self._by_index.get(index)
        if item is None and item_id is None and index is None:
            latest = self._latest
            while latest and latest[-1].whole:
                latest.pop()
            item = latest[-1] if latest else None
        return item

    def _open(self, index: int | None, item_id: str | None) -> OpenItem:
        item = OpenItem(index, item_id)
        self._items.append(item)
        self._latest.append(item)
        if item_id is not None:
            self._by_id[item_id] = item
            self.other_size += len(item_id)
        if index is not None:
            self._by_index[index] = item
        return item

    def _hold(self, item: OpenItem, characters: int) -> None:
        """So much more is kept of an item."""
        item.kept += characters
        self.other_size += characters

    # --- comparing ---------------------------------------------------------------------------------------------------

    def _settle(self, event: Any, item: OpenItem, text: Pieces, whole: str) -> int:
        """A text is complete; returns the growth in characters. An empty one leaves the deltas as they are."""
        if not whole:
            return 0
        if text and not text.equal(whole):
            self._compare(event, "text", str(text), whole, item.item is not None)
        return text.settle(whole)

    def _compare(self, event: Any, what: str, received: str, whole: str, opened: bool) -> None:
        """Note a text that is not what was received before; of what began before us only the end was received."""
        if received and received != whole and (opened or not whole.endswith(received)):
            number = f" (number {event.sequence_number})" if event.sequence_number is not None else ""
            self.note("mismatch", f"the {what} of {event.type}{number} differs from what came before; its own is kept")


# --- one function for each event that changes the response -----------------------------------------------------------


def _lifecycle(snapshot: Snapshot, event: Any) -> None:
    response: Response = event.response
    if response.status is None:
        response = response.replace(status=event.type.removeprefix("response.").replace("created", "in_progress"))
    if response.id is None:  # some servers end without saying again what it is that ends
        response = response.replace(id=snapshot._base.id, model=response.model or snapshot._base.model)
    if isinstance(event, TERMINAL):
        snapshot._terminal = type(event)
        if response.output and snapshot._items:
            response = response.replace(output=tuple(_filled(snapshot, item) for item in response.output))
            opened = all(item.item is not None for item in snapshot._items)
            snapshot._compare(event, "text", snapshot.text, response.output_text, opened)
            snapshot._items, snapshot._latest, snapshot._by_id, snapshot._by_index = [], [], {}, {}  # the whole is here
        snapshot._built = None
    snapshot._base = response


def _filled(snapshot: Snapshot, item: OutputItem) -> OutputItem:
    """An item of the terminal event; as it was received before, where that one says nothing."""
    known = snapshot._by_id.get(item.id) if item.id is not None else None
    if known is None or any(words(item).values()):
        return item
    before = known.build()
    return before if type(before) is type(item) and any(words(before).values()) else item


def _stream_error(snapshot: Snapshot, event: Any) -> None:
    if snapshot._error is None:
        snapshot._error = event


def _item_added(snapshot: Snapshot, event: Any) -> None:
    item_id, index = event.item.id, event.output_index
    item = snapshot._by_id.get(item_id) if item_id is not None else None
    if item is None and index is not None:
        item = snapshot._by_index.get(index)
        if item is not None and item.item is not None:  # a second item at the same place is an item of its own
            item = None
    if item is None:
        item = snapshot._open(index, item_id)
    elif item_id is not None:
        snapshot._by_id[item_id] = item
        snapshot.other_size += len(item_id)
    item.open(event.item)
    snapshot._hold(item, weight(event.item))


def _item_done(snapshot: Snapshot, event: Any) -> None:
    item = snapshot._find(event.item.id, event.output_index)
    if item is None:
        item = snapshot._open(event.output_index, event.item.id)
    opened = item.item is not None
    received = words(item.build())
    growth = item.close(event.item)
    if type(event.item) in CALL_TEXTS:
        snapshot.arguments_size += growth
    else:
        snapshot.text_size += growth
    closed = words(item.build())
    snapshot._hold(item, weight(item.item) - sum(map(len, closed.values())) - item.kept)
    for what, whole in closed.items():
        snapshot._compare(event, what, received.get(what, ""), whole, opened)


_KINDS: dict[type[object], Kind] = {OutputRefusal: "refusal", ReasoningText: "reasoning", SummaryText: "summary"}


def _part_of(snapshot: Snapshot, item: OpenItem, event: Any, *, opens: bool = False) -> OpenPart:
    summary = isinstance(event, ReasoningSummaryPartAdded | ReasoningSummaryPartDone)
    index = event.summary_index if summary else event.content_index
    part = item.part(_KINDS.get(cast("type[object]", type(event.part)), "text"), index, opens=opens)
    part.template = event.part
    snapshot._hold(item, weight(event.part) - len(text_of(event.part)))
    return part


def _part_added(snapshot: Snapshot, event: Any) -> None:
    part = _part_of(snapshot, snapshot._item_of(event), event, opens=True)
    if not part.text.size:
        snapshot.text_size += part.text.add(text_of(event.part))


def _part_done(snapshot: Snapshot, event: Any) -> None:
    item = snapshot._item_of(event)
    snapshot.text_size += snapshot._settle(event, item, _part_of(snapshot, item, event).text, text_of(event.part))


def _annotation(snapshot: Snapshot, event: Any) -> None:
    if event.annotation is not None:
        item = snapshot._item_of(event)
        item.part("text", event.content_index).annotations.append(event.annotation)
        snapshot._hold(item, weight(event.annotation))


def _delta(kind: Kind, index: str) -> Callable[[Snapshot, Any], None]:
    def fold(snapshot: Snapshot, event: Any) -> None:
        snapshot.text_size += snapshot._item_of(event).part(kind, getattr(event, index)).text.add(event.delta)

    return fold


def _done(kind: Kind, index: str, field: str = "text") -> Callable[[Snapshot, Any], None]:
    def fold(snapshot: Snapshot, event: Any) -> None:
        item = snapshot._item_of(event)
        text = item.part(kind, getattr(event, index)).text
        snapshot.text_size += snapshot._settle(event, item, text, getattr(event, field))

    return fold


def _arguments_delta(snapshot: Snapshot, event: Any) -> None:
    snapshot.arguments_size += snapshot._item_of(event).arguments.add(event.delta)


def _arguments_done(field: str) -> Callable[[Snapshot, Any], None]:
    def fold(snapshot: Snapshot, event: Any) -> None:
        item = snapshot._item_of(event)
        item.reparse(whole=True)
        snapshot.arguments_size += snapshot._settle(event, item, item.arguments, getattr(event, field))

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

FOLDED: tuple[type[Event], ...] = (TextDelta, *_FOLDS)
"""The events that change a response."""
