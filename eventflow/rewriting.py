"""`Rewriter`: one function over the text of a family, consistent wherever a stream repeats it. Pure.

Most streams say their text five times: in deltas, in the ``done`` event, in the part, in the item, and in the
terminal event. The function sees each text once, piece by piece; the repetitions get what it gave. A text that came
without deltas, or that differs from them, it sees whole.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, cast

import attrs

from eventflow.events import (
    CodeInterpreterCallCodeDelta,
    CodeInterpreterCallCodeDone,
    ContentPart,
    ContentPartAdded,
    ContentPartDone,
    CustomToolCallInputDelta,
    CustomToolCallInputDone,
    Event,
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    LifecycleEvent,
    LocalShellCall,
    McpApprovalRequest,
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
    ShellCall,
    ShellCallCommandAdded,
    ShellCallCommandDelta,
    ShellCallCommandDone,
    SummaryText,
    TextDelta,
    TextDone,
    ToolCall,
)
from eventflow.open_item import CALL_TEXTS
from eventflow.snapshot import TERMINAL

__all__ = ["Part", "Rewrite", "Rewriter"]

R = TypeVar("R")
Kind = Literal["text", "refusal", "reasoning", "summary", "call", "command"]
Place: TypeAlias = int | str | None
Key: TypeAlias = tuple[Place, Kind, int]
"""Which text: of the item at this output index (or with this id), of this kind, the one with this index."""


@attrs.define
class Part:
    """One text on its way through a rewrite.

    Attributes:
        held: Text held back, the rewriting method's own to use; starts empty.
        final: True in the last call, which brings no text: give what is still held.
        is_json: Whether it is JSON text as the model wrote it: the arguments of a function or MCP call.
        memory: Anything else that the rewriting method keeps of this text; starts as None.
    """

    held: str = ""
    final: bool = False
    is_json: bool = False
    memory: object = None


Rewrite: TypeAlias = Callable[[str, Part], str]
"""What rewrites: a piece of text and its `Part` in, the text that goes on out."""


class _Open:
    """A text whose deltas are coming."""

    __slots__ = ("last", "part", "received", "sent")

    def __init__(self, last: Any) -> None:
        self.last = last  # the last delta event: what a held-back rest is sent as
        self.part = Part(is_json=_is_json(last))
        self.received: list[str] = []
        self.sent: list[str] = []


_FAMILIES: dict[Kind, str] = {
    "text": "text",
    "refusal": "refusal",
    "reasoning": "reasoning",
    "summary": "reasoning",
    "call": "tool",
    "command": "tool",
}
_DELTAS: dict[type[Event], tuple[Kind, str]] = {  # kind of text, and the field of its index
    TextDelta: ("text", "content_index"),
    RefusalDelta: ("refusal", "content_index"),
    ReasoningTextDelta: ("reasoning", "content_index"),
    ReasoningSummaryTextDelta: ("summary", "summary_index"),
    FunctionCallArgumentsDelta: ("call", ""),
    CustomToolCallInputDelta: ("call", ""),
    McpCallArgumentsDelta: ("call", ""),
    CodeInterpreterCallCodeDelta: ("call", ""),
    ShellCallCommandDelta: ("command", "command_index"),
}
_WHOLES: dict[type[Event], tuple[Kind, str, str]] = {  # and the field of the text
    TextDone: ("text", "content_index", "text"),
    RefusalDone: ("refusal", "content_index", "refusal"),
    ReasoningTextDone: ("reasoning", "content_index", "text"),
    ReasoningSummaryTextDone: ("summary", "summary_index", "text"),
    FunctionCallArgumentsDone: ("call", "", "arguments"),
    CustomToolCallInputDone: ("call", "", "input"),
    McpCallArgumentsDone: ("call", "", "arguments"),
    CodeInterpreterCallCodeDone: ("call", "", "code"),
    ShellCallCommandDone: ("command", "command_index", "command"),
}
_OPENINGS: dict[type[Event], tuple[Kind, str, str]] = {  # events that carry a text which they do not end
    ShellCallCommandAdded: ("command", "command_index", "command"),
    ToolCall: ("call", "", "arguments"),
}
_PARTS: dict[type[object], tuple[Kind, str]] = {
    OutputText: ("text", "text"),
    OutputRefusal: ("refusal", "refusal"),
    ReasoningText: ("reasoning", "text"),
    SummaryText: ("summary", "text"),
}
_COMMANDS: dict[type[object], str] = {ShellCall: "commands", LocalShellCall: "command"}  # a list in their action
_JSON = (  # what carries text that is JSON
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    McpApprovalRequest,
    McpCall,
    McpCallArgumentsDelta,
    McpCallArgumentsDone,
)
_CONTENT = (ContentPartAdded, ContentPartDone)
_SUMMARY = (ReasoningSummaryPartAdded, ReasoningSummaryPartDone)
_ITEMS = (OutputItemAdded, OutputItemDone)
_CLOSING = (ContentPartDone, ReasoningSummaryPartDone, OutputItemDone, *TERMINAL)


class Rewriter:
    """A rewriting function over the events of one stream.

    Args:
        rewrite: Text and its `Part` in, text out.
        families: Whose text: ``text``, ``refusal``, ``reasoning``, ``tool``.
    """

    def __init__(self, rewrite: Rewrite, families: tuple[str, ...]) -> None:
        self._rewrite = rewrite
        self._kinds = {kind for kind, family in _FAMILIES.items() if family in families}
        self._deltas = {cls: about for cls, about in _DELTAS.items() if about[0] in self._kinds}
        self._wholes = {cls: about for cls, about in (_WHOLES | _OPENINGS).items() if about[0] in self._kinds}
        self._open: dict[Place, dict[Key, _Open]] = {}  # by place, for texts end together with their item
        self._ended: dict[Key, tuple[str, str]] = {}  # a text as its deltas brought it, and as rewritten
        # The same by family, whether it is JSON, and text, for events that name no item.
        self._known: dict[tuple[str, bool, str], str] = {}

    def takes(self, cls: type[Event]) -> bool:
        """Whether events of class *cls* can carry text of the families."""
        if cls in _SUMMARY:
            return "summary" in self._kinds
        carries = cls in self._deltas or cls in self._wholes or cls in _CONTENT or cls in _ITEMS
        return carries or issubclass(cls, LifecycleEvent)

    def feed(self, event: Event) -> list[Event]:
        """What goes on in place of *event*: nothing while text is held back, else the event, rests before it."""
        cls = type(event)
        about = self._deltas.get(cls)
        if about is not None:
            return self._delta(event, *about)
        before: list[Event] = []
        changed = self._changed(event, cls in _CLOSING, before)
        return [*before, changed]

    def close(self) -> list[Event]:
        """The stream has ended: what is still held back, as deltas."""
        rests: list[Event] = []
        self._flush(tuple(self._open), rests)
        return rests

    def _changed(self, event: Any, closing: bool, before: list[Event]) -> Event:
        """An event that carries whole texts, with theirs; what must come first goes to *before*."""
        cls = cast("type[Event]", type(event))
        if cls in self._wholes:
            kind, field_of_index, field = self._wholes[cls]
            keys = _keys(_places(event), kind, _index(event, field_of_index))
            given = self._whole(keys, getattr(event, field), cls in _WHOLES, before, is_json=_is_json(event))
            return cast("Event", _with(event, field, given))
        changed: Event = event
        if cls in _CONTENT or cls in _SUMMARY:
            places, index = _places(event), _index(event, "content_index" if cls in _CONTENT else "summary_index")
            part = self._part(event.part, places, index, closing, before)
            if closing:  # a part of another type, and a part without its text, end their deltas too
                kinds: tuple[Kind, ...] = ("text", "refusal", "reasoning") if cls in _CONTENT else ("summary",)
                for kind in kinds:
                    self._end(_keys(places, kind, index), before)
            if part is not event.part:
                changed = event.replace(part=part)
        elif cls in _ITEMS:
            item = self._item(event.item, _places(event), closing, before)
            if item is not event.item:
                changed = event.replace(item=item)
        elif isinstance(event, LifecycleEvent):
            response = cast("Response", getattr(event, "response"))  # noqa: B009  # a field of every subclass
            output = tuple(
                self._item(item, _known_places(position, item.id), closing, before)
                for position, item in enumerate(response.output)
            )
            if closing:
                before.extend(self.close())
            if any(map(operator.is_not, output, response.output)):
                changed = event.replace(response=response.replace(output=output))
        return changed

    # --- pieces ------------------------------------------------------------------------------------------------------

    def _delta(self, event: Any, kind: Kind, index: str) -> list[Event]:
        place = event.output_index if event.output_index is not None else getattr(event, "item_id", None)
        key = place, kind, _index(event, index)
        texts = self._open.get(place)
        if texts is None:
            texts = self._open[place] = {}
        text = texts.get(key)
        if text is None:
            text = texts[key] = _Open(event)
        text.last = event
        text.received.append(event.delta)
        given = self._rewrite(event.delta, text.part)
        text.sent.append(given)
        return [_with(event, "delta", given)] if given or not event.delta else []

    def _finish(self, key: Key, before: list[Event], whole: str = "") -> None:
        """End an open text; *whole* is what it should be. What was not sent of it goes to *before* as deltas."""
        text = self._open[key[0]][key]
        received = "".join(text.received)
        if len(whole) > len(received) and whole.startswith(received):  # more came than the deltas brought
            before.extend(self._delta(_unnumbered(text.last, whole[len(received) :]), *_DELTAS[type(text.last)]))
            received = whole
        del self._open[key[0]][key]
        if not self._open[key[0]]:
            del self._open[key[0]]
        text.part.final = True
        rest = self._rewrite("", text.part)
        if rest:
            before.append(_unnumbered(text.last, rest))
        given = "".join(text.sent) + rest
        self._ended[key] = received, given
        self._known[_FAMILIES[key[1]], text.part.is_json, received] = given

    def _end(self, keys: tuple[Key, ...], before: list[Event], whole: str = "") -> None:
        """End those of these texts that are open."""
        for key in keys:
            if key in self._open.get(key[0], ()):
                self._finish(key, before, whole)

    def _flush(self, places: tuple[Place, ...], before: list[Event]) -> None:
        """End all texts of these places that are open."""
        for place in places:
            self._end(tuple(self._open.get(place, ())), before)

    # --- wholes ------------------------------------------------------------------------------------------------------

    def _whole(
        self, keys: tuple[Key, ...], whole: str, closing: bool, before: list[Event], *, is_json: bool = False
    ) -> str:
        """What *whole* becomes: what its deltas became where they were its own, else a pass of its own."""
        if closing:
            self._end(keys, before, whole)
        for key in keys:
            received, given = self._ended.get(key, (None, ""))
            if received == whole:
                return given
        if not whole:  # left out, or not begun
            return ""
        about = _FAMILIES[keys[0][1]], is_json, whole
        known = self._known.get(about)
        if known is None:
            part = Part(is_json=is_json)
            known = self._rewrite(whole, part)
            part.final = True
            self._known[about] = known = known + self._rewrite("", part)
        return known

    def _part(
        self, part: ContentPart, places: tuple[Place, ...], index: int, closing: bool, before: list[Event]
    ) -> ContentPart:
        kind, field = _PARTS.get(type(part), (None, ""))
        if kind is not None and kind in self._kinds:
            whole = getattr(part, field)
            part = _with(part, field, self._whole(_keys(places, kind, index), whole, closing, before))
        return part

    def _item(self, item: OutputItem, places: tuple[Place, ...], closing: bool, before: list[Event]) -> OutputItem:
        changed = item
        if isinstance(item, Message | Reasoning):
            changed = self._parts(item, "content", places, closing, before)
            if isinstance(item, Reasoning):
                changed = self._parts(changed, "summary", places, closing, before)
        elif "call" in self._kinds and type(item) in CALL_TEXTS:
            field = CALL_TEXTS[type(item)]
            whole = getattr(item, field) or ""
            given = self._whole(_keys(places, "call", 0), whole, closing, before, is_json=_is_json(item))
            changed = item if given == whole else _replaced(item, field, given)
        elif "command" in self._kinds and isinstance(item, ShellCall | LocalShellCall):
            changed = self._commands(item, places, closing, before)
        if closing:  # an item may be closed without the text that its deltas brought
            self._flush(places, before)
        return changed

    def _parts(self, item: R, field: str, places: tuple[Place, ...], closing: bool, before: list[Event]) -> R:
        parts = getattr(item, field)
        changed = tuple(self._part(part, places, index, closing, before) for index, part in enumerate(parts))
        return _replaced(item, field, changed) if any(map(operator.is_not, changed, parts)) else item

    def _commands(
        self, item: ShellCall | LocalShellCall, places: tuple[Place, ...], closing: bool, before: list[Event]
    ) -> OutputItem:
        field = _COMMANDS[type(item)]
        given: object = item.action
        action = cast("dict[str, object]", given) if isinstance(given, dict) else {}
        commands = action.get(field)
        if not isinstance(commands, list):
            return item
        changed = [
            self._whole(_keys(places, "command", index), text, closing, before) if isinstance(text, str) else text
            for index, text in enumerate(cast("list[object]", commands))
        ]
        return item if changed == commands else item.replace(action={**action, field: changed})


def _is_json(record: object) -> bool:
    return isinstance(record, _JSON) or (isinstance(record, ToolCall) and record.kind != "custom")


def _places(event: Any) -> tuple[Place, ...]:
    """By what the item of an event is known, the surest first."""
    item = getattr(event, "item", None)
    item_id = item.id if item is not None else getattr(event, "item_id", None)
    return _known_places(event.output_index, item_id)


def _known_places(index: int | None, item_id: str | None) -> tuple[Place, ...]:
    places: tuple[Place, ...] = tuple(place for place in (index, item_id) if place is not None)
    return places or (None,)


def _keys(places: tuple[Place, ...], kind: Kind, index: int) -> tuple[Key, ...]:
    return tuple((place, kind, index) for place in places)


def _index(event: Any, field: str) -> int:
    return (getattr(event, field) or 0) if field else 0


def _with(record: R, field: str, text: str) -> R:
    """The record with another text; log probabilities go, they spell the text that was rewritten."""
    if getattr(record, field) == text:
        return record
    changes = {field: text} if getattr(record, "logprobs", None) is None else {field: text, "logprobs": None}
    return cast("R", cast("Any", record).replace(**changes))


def _replaced(record: Any, field: str, value: object) -> Any:
    return record.replace(**{field: value})


def _without_logprobs(record: Any) -> Any:
    return record if getattr(record, "logprobs", None) is None else record.replace(logprobs=None)


def _unnumbered(delta: Any, text: str) -> Any:
    """A delta that the source did not send."""
    return _without_logprobs(delta.replace(delta=text, sequence_number=None))
