"""`OpenItem`: an output item on its way, and what an item says. Pure."""

# Plain classes: attrs would take a twentieth of the package's import for them.

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Literal

from eventflow.errors import DecodeError, LimitExceeded
from eventflow.events import (
    JSON,
    CodeInterpreterCall,
    ContentPart,
    CustomToolCall,
    FunctionCall,
    McpApprovalRequest,
    McpCall,
    Message,
    OutputItem,
    OutputRefusal,
    OutputText,
    Reasoning,
    ReasoningText,
    Response,
    SummaryText,
    Untyped,
)
from eventflow.partial_json import PartialParser
from eventflow.pieces import Pieces

__all__ = ["CALL_TEXTS", "FINAL", "Kind", "OpenItem", "OpenPart", "text_of", "words"]

CALL_TEXTS: dict[type[object], str] = {
    FunctionCall: "arguments",
    CustomToolCall: "input",
    McpCall: "arguments",
    McpApprovalRequest: "arguments",
    CodeInterpreterCall: "code",
}
"""The items whose text comes in deltas of their own, and the field that it ends in."""

FINAL = ("completed", "incomplete", "failed", "cancelled")
"""The statuses of what does not change any more."""

Kind = Literal["text", "refusal", "reasoning", "summary"]
_KINDS: tuple[Kind, ...] = ("text", "refusal", "reasoning", "summary")
_PARTS: dict[str, Callable[[str], ContentPart]] = {
    "refusal": OutputRefusal,
    "reasoning": ReasoningText,
    "summary": SummaryText,
}


class OpenPart:
    """One part of an item under way."""

    __slots__ = ("annotations", "kind", "template", "text")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.text = Pieces()
        self.annotations: list[Any] = []
        self.template: ContentPart | None = None  # as opened or closed: what it carries besides its text

    def build(self) -> ContentPart:
        """The part so far."""
        if isinstance(self.template, Untyped) and not self.text.size:
            return self.template
        text = str(self.text)
        if self.kind != "text":
            return _PARTS[self.kind](text)
        part = self.template if isinstance(self.template, OutputText) else OutputText()
        return OutputText(text, part.annotations or tuple(self.annotations), part.logprobs)


class OpenItem:
    """One output item under way.

    Attributes:
        index: Its place among the items, where it is known.
        id: What its events call it, where they do.
        item: As it was opened, or as it was closed.
        whole: Whether it was closed.
        parts: By "content" or "summary", index and kind.
        arguments: The text of a call: arguments, input or code.
        kept: Characters of what it holds besides its texts; once it is whole, exactly that.
    """

    __slots__ = (
        "_counted",
        "_last",
        "_parsed",
        "_whole_arguments",
        "arguments",
        "id",
        "index",
        "item",
        "kept",
        "parts",
        "whole",
    )

    def __init__(self, index: int | None, item_id: str | None) -> None:
        self.index = index
        self.id = item_id
        self.item: OutputItem | None = None
        self.whole = False
        self.parts: dict[tuple[str, int, Kind], OpenPart] = {}
        self._last: dict[str, tuple[int, OpenPart]] = {}  # of each place: the highest index, and its newest part
        self.arguments = Pieces()
        self.kept = 0
        self._whole_arguments = False
        self._parsed: _Parsed | None = None  # the arguments, from the moment somebody asks for their value
        self._counted = 0  # characters of the item as closed

    def open(self, item: OutputItem) -> None:
        """Take the item as opened."""
        self.item = item
        self.reparse(whole=False)

    def part(self, kind: Kind, index: int | None, *, opens: bool = False) -> OpenPart:
        """The part with this index; without one, the last of its place, or a new one where a part *opens*."""
        place = "summary" if kind == "summary" else "content"
        if index is None:
            last = self._last.get(place)
            index = 0 if last is None else last[0]
            if opens and last is not None and last[1].template is not None:
                index += 1
        part = self.parts.get((place, index, kind))
        if part is None:
            for other in _KINDS:  # opened as another kind than it turned out to be
                empty = self.parts.get((place, index, other))
                if empty is not None and not empty.text.size:
                    del self.parts[place, index, other]
            part = self.parts[place, index, kind] = OpenPart(kind)
            if place not in self._last or index >= self._last[place][0]:
                self._last[place] = index, part
        return part

    def close(self, item: OutputItem) -> int:
        """Take the item as closed, and drop its pieces; returns the growth in characters."""
        before = self._counted + self.arguments.size + sum(part.text.size for part in self.parts.values())
        self.reparse(whole=getattr(item, "status", None) != "incomplete")
        self.item, self.whole = item, True
        self.item = self.build()
        self.parts, self._last, self.arguments = {}, {}, Pieces()
        self._counted = sum(map(len, words(self.item).values()))
        return self._counted - before

    def build(self) -> OutputItem:
        """The item so far."""
        item = self.item if self.item is not None else self._guess()
        if isinstance(item, Message):
            return item.replace(content=self._either(item.content, self._parts("content")))
        if isinstance(item, Reasoning):
            content = self._either(item.content, self._parts("content"))
            return item.replace(content=content, summary=self._either(item.summary, self._parts("summary")))
        field = CALL_TEXTS.get(type(item))
        if field is None or isinstance(item, Untyped):
            return item
        sent = getattr(item, field)
        return item.replace(**{field: (sent or str(self.arguments)) if self.whole else (str(self.arguments) or sent)})

    def cut_off(self) -> OutputItem:
        """The item, which will not be closed any more."""
        built = self.build()
        return built if isinstance(built, Untyped) or built.status in FINAL else built.replace(status="incomplete")

    def value(self) -> JSON:
        """The arguments as the JSON that is certain of them; see `Snapshot.value`."""
        if self._parsed is None:
            text = getattr(self.build(), "arguments", None) or ""
            parsed = _Parsed(text, self._whole_arguments, free=isinstance(self.item, CustomToolCall))
            if self.arguments or self.whole:  # else it was opened with some, and those that come will take their place
                self._parsed = parsed
            return parsed.parser.value
        if not self._whole_arguments:
            self._parsed.feed(self.arguments.since(self._parsed.size))
        return self._parsed.parser.value

    def reparse(self, *, whole: bool) -> None:
        """The arguments may be others than those that came: their value is made anew."""
        self._whole_arguments, self._parsed = whole, None

    def _either(self, sent: tuple[ContentPart, ...], received: tuple[ContentPart, ...]) -> tuple[ContentPart, ...]:
        """The parts that the item brought, or those that its events did: a closed item's own, unless it is empty."""
        if self.whole:
            return sent if _size(sent) or not _size(received) else received
        return received or sent

    def _parts(self, place: str) -> tuple[ContentPart, ...]:
        keys = sorted(key for key in self.parts if key[0] == place)
        return tuple(self.parts[key].build() for key in keys)

    def _guess(self) -> OutputItem:
        """An item for events that came without one being opened."""
        kinds = {kind for _, _, kind in self.parts}
        if kinds and kinds <= {"reasoning", "summary"}:
            return Reasoning(id=self.id)
        if not kinds and self.arguments.size:
            return FunctionCall(id=self.id)
        return Message(id=self.id)


class _Parsed:
    """The arguments of a call as JSON; a custom tool's input, which is free text, as a string of it.

    Attributes:
        parser: What is certain of them; what was before a fault stays.
        size: Characters so far.
    """

    __slots__ = ("_free", "parser", "size")

    def __init__(self, text: str, whole: bool, *, free: bool) -> None:
        self.parser = PartialParser()
        self.size = 0
        self._free = free
        with contextlib.suppress(DecodeError, LimitExceeded):
            if free:
                self.parser.feed('"')
            self.feed(text)
            if whole and not free:
                self.parser.close()  # a number is certain only when it ends

    def feed(self, text: str) -> None:
        self.size += len(text)
        with contextlib.suppress(DecodeError, LimitExceeded):
            self.parser.feed(json.dumps(text, ensure_ascii=False)[1:-1] if self._free else text)


def words(item: OutputItem) -> dict[str, str]:
    """What an item says, by the names of `Response`."""
    if isinstance(item, Message):
        alone = Response(output=(item,))
        return {"text": alone.output_text, "refusal": alone.refusal}
    if isinstance(item, Reasoning):
        return {"reasoning": _joined(item.content), "summary": _joined(item.summary)}
    field = CALL_TEXTS.get(type(item))
    return {field: getattr(item, field) or ""} if field is not None else {}


def _joined(parts: tuple[ContentPart, ...]) -> str:
    return "".join(map(text_of, parts))


def text_of(part: ContentPart) -> str:
    """What a part says."""
    if isinstance(part, Untyped):
        return ""
    return part.refusal if isinstance(part, OutputRefusal) else part.text


def _size(parts: tuple[ContentPart, ...]) -> int:
    return sum(len(text_of(part)) for part in parts)
