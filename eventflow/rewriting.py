"""`Rewriter`: one function over the text of a family, consistent wherever a stream repeats it. Pure.

Most streams say their text five times: in deltas, in the ``done`` event, in the part, in the item, and in the
terminal event. The function sees each text once, piece by piece; the repetitions get what it gave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

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
    LifecycleEvent,
    McpApprovalRequest,
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
    ShellCall,
    ShellCallCommandAdded,
    ShellCallCommandDelta,
    ShellCallCommandDone,
    SummaryText,
    TextDelta,
    TextDone,
    ToolCall,
)

from eventflow.snapshot import TERMINAL

__all__ = ["Part", "Rewriter"]

R = TypeVar("R")
Key: TypeAlias = tuple[object, ...]
Rewrite: TypeAlias = Callable[[str, "Part"], str]


@attrs.define
class Part:
    """One text on its way through a rewrite.

    Attributes:
        held: Text held back, the rewriting method's own to use; starts empty.
        final: True in the last call, which brings no text: give what is still held.
    """

    held: str = ""
    final: bool = False


@attrs.define
class _Open:
    """A text whose deltas are coming."""

    last: Any  # the last delta event: what a held-back rest is sent as
    part: Part = attrs.field(factory=Part)
    received: list[str] = attrs.field(factory=list)
    sent: list[str] = attrs.field(factory=list)


# event class -> family, place, and the fields of its index and its text
_DELTAS: dict[type[Event], tuple[str, str, str | None]] = {
    TextDelta: ("text", "content", "content_index"),
    RefusalDelta: ("refusal", "content", "content_index"),
    ReasoningTextDelta: ("reasoning", "content", "content_index"),
    ReasoningSummaryTextDelta: ("reasoning", "summary", "summary_index"),
    FunctionCallArgumentsDelta: ("tool", "call", None),
    CustomToolCallInputDelta: ("tool", "call", None),
    McpCallArgumentsDelta: ("tool", "call", None),
    CodeInterpreterCallCodeDelta: ("tool", "call", None),
    ShellCallCommandDelta: ("tool", "command", "command_index"),
}
_WHOLES: dict[type[Event], tuple[str, str, str | None, str]] = {
    TextDone: ("text", "content", "content_index", "text"),
    RefusalDone: ("refusal", "content", "content_index", "refusal"),
    ReasoningTextDone: ("reasoning", "content", "content_index", "text"),
    ReasoningSummaryTextDone: ("reasoning", "summary", "summary_index", "text"),
    FunctionCallArgumentsDone: ("tool", "call", None, "arguments"),
    CustomToolCallInputDone: ("tool", "call", None, "input"),
    McpCallArgumentsDone: ("tool", "call", None, "arguments"),
    CodeInterpreterCallCodeDone: ("tool", "call", None, "code"),
    ShellCallCommandDone: ("tool", "command", "command_index", "command"),
}
_PARTS: dict[type[Any], tuple[str, str]] = {  # part class -> family, text field
    OutputText: ("text", "text"),
    OutputRefusal: ("refusal", "refusal"),
    ReasoningText: ("reasoning", "text"),
    SummaryText: ("reasoning", "text"),
}
_CALLS: dict[type[Any], str] = {  # item class -> text field
    FunctionCall: "arguments",
    CustomToolCall: "input",
    McpCall: "arguments",
    McpApprovalRequest: "arguments",
    CodeInterpreterCall: "code",
}


class Rewriter:
    """A rewriting function over the events of one stream.

    Args:
        rewrite: Text and its `Part` in, text out.
        families: Whose text: ``text``, ``refusal``, ``reasoning``, ``tool``.
    """

    def __init__(self, rewrite: Rewrite, families: tuple[str, ...]) -> None:
        self._rewrite = rewrite
        self._families = frozenset(families)
        self._open: dict[Key, _Open] = {}
        self._known: dict[tuple[str, str], str] = {}  # (family, whole text as received) -> as rewritten

    def takes(self, cls: type[Event]) -> bool:
        """Whether events of class *cls* can carry text of the families."""
        about = _DELTAS.get(cls) or _WHOLES.get(cls)
        if about is not None:
            return about[0] in self._families
        if cls in (ToolCall, ShellCallCommandAdded):
            return "tool" in self._families
        if cls in (ReasoningSummaryPartAdded, ReasoningSummaryPartDone):
            return "reasoning" in self._families
        return cls in (ContentPartAdded, ContentPartDone, OutputItemAdded, OutputItemDone) or issubclass(cls, LifecycleEvent)

    def feed(self, event: Any) -> list[Event]:
        """What goes on in place of *event*: nothing while text is held back, else the event, rests before it."""
        cls = type(event)
        if cls in _DELTAS:
            return self._delta(event, *_DELTAS[cls])
        before: list[Event] = []
        if cls in _WHOLES:
            family, place, index, field = _WHOLES[cls]
            given = self._whole(family, _key(event, place, index), getattr(event, field), before)
            return [*before, self._with(event, field, given)]
        if isinstance(event, ToolCall):
            return [self._with(event, "arguments", self._whole("tool", (), event.arguments, before))]
        if isinstance(event, ShellCallCommandAdded):
            return [self._with(event, "command", self._whole("tool", (), event.command, before))]
        if isinstance(event, LifecycleEvent):
            response = event.response  # type: ignore[attr-defined]
            output = tuple(self._item(position, item, before) for position, item in enumerate(response.output))
            if isinstance(event, TERMINAL):
                before.extend(self.close())
            changed: Any = event if output == response.output else event.replace(response=response.replace(output=output))
        elif isinstance(event, OutputItemAdded | OutputItemDone):
            where = event.output_index if event.output_index is not None else event.item.id
            item = self._item(where, event.item, before)
            changed = event if item is event.item else event.replace(item=item)
        else:
            place = "summary" if hasattr(event, "summary_index") else "content"
            part = self._part(event.part, _key(event, place, f"{place}_index"), before, isinstance(event, _CLOSING))
            changed = event if part is event.part else event.replace(part=part)
        return [*before, changed]

    def close(self) -> list[Event]:
        """The stream has ended: what is still held back, as deltas."""
        rests: list[Event] = []
        for key in list(self._open):
            self._finish(key, rests)
        return rests

    # --- pieces ------------------------------------------------------------------------------------------------------

    def _delta(self, event: Any, family: str, place: str, index: str | None) -> list[Event]:
        key = _key(event, place, index)
        text = self._open.get(key)
        if text is None:
            text = self._open[key] = _Open(event)
        text.last = event
        text.received.append(event.delta)
        given = self._rewrite(event.delta, text.part)
        text.sent.append(given)
        return [self._with(event, "delta", given)] if given or not event.delta else []

    def _finish(self, key: Key, before: list[Event]) -> str:
        """End an open text: its rest goes to *before* as a delta; returns all that was given for it."""
        text = self._open.pop(key)
        text.part.final = True
        rest = self._rewrite("", text.part)
        if rest:
            before.append(_without_logprobs(text.last.replace(delta=rest, sequence_number=None)))
        return "".join(text.sent) + rest

    # --- wholes ------------------------------------------------------------------------------------------------------

    def _whole(self, family: str, key: Key, whole: str, before: list[Event]) -> str:
        """What *whole* becomes: what its deltas became where they were its own, else a pass of its own."""
        text = self._open.get(key)
        if text is not None:
            received = "".join(text.received)
            if whole != received and whole.startswith(received):  # more came than the deltas brought
                more = text.last.replace(delta=whole[len(received) :], sequence_number=None)
                before.extend(self._delta(more, *_DELTAS[type(more)]))
                received = whole
            given = self._finish(key, before)
            if whole == received:
                self._known[family, whole] = given
        known = self._known.get((family, whole))
        if known is None:
            part = Part()
            known = self._rewrite(whole, part) if whole else ""
            part.final = True
            known += self._rewrite("", part)
            self._known[family, whole] = known
        return known

    def _part(self, part: Any, key: Key, before: list[Event], closing: bool) -> Any:
        about = _PARTS.get(type(part))
        if about is None or about[0] not in self._families:
            return part
        family, field = about
        whole = getattr(part, field)
        if not whole and not (closing and key in self._open):
            return part
        return self._with(part, field, self._whole(family, key, whole, before))

    def _item(self, place: object, item: Any, before: list[Event]) -> Any:
        if isinstance(item, Message | Reasoning):
            content = self._parts(place, "content", item.content, before)
            if isinstance(item, Message):
                return item if content == item.content else item.replace(content=content)
            summary = self._parts(place, "summary", item.summary, before)
            same = content == item.content and summary == item.summary
            return item if same else item.replace(content=content, summary=summary)
        if "tool" not in self._families:
            return item
        field = _CALLS.get(type(item))
        if field is not None and getattr(item, field):
            return self._with(item, field, self._whole("tool", (place, "call", 0), getattr(item, field), before))
        if isinstance(item, ShellCall) and isinstance(item.action, dict) and isinstance(item.action.get("commands"), list):
            commands = [
                self._whole("tool", (place, "command", index), command, before) if isinstance(command, str) else command
                for index, command in enumerate(item.action["commands"])
            ]
            return item.replace(action={**item.action, "commands": commands})
        return item

    def _parts(self, place: object, name: str, parts: tuple[Any, ...], before: list[Event]) -> tuple[Any, ...]:
        return tuple(self._part(part, (place, name, index), before, True) for index, part in enumerate(parts))

    @staticmethod
    def _with(record: R, field: str, text: str) -> R:
        if getattr(record, field) == text:
            return record
        return _without_logprobs(record.replace(**{field: text}))  # type: ignore[attr-defined, no-any-return]


_CLOSING = (ContentPartDone, ReasoningSummaryPartDone)


def _without_logprobs(record: Any) -> Any:
    """Log probabilities spell the text that was rewritten."""
    return record.replace(logprobs=None) if getattr(record, "logprobs", None) is not None else record


def _key(event: Any, place: str, index: str | None) -> Key:
    item = event.output_index if event.output_index is not None else event.item_id
    return (item, place, (getattr(event, index) or 0) if index is not None else 0)
