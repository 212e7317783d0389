"""Structure: output items and their parts, opened and closed."""

from __future__ import annotations

from eventflow.events._base import WireEvent
from eventflow.events.response import ContentPart, OutputItem

__all__ = [
    "CompactionCompacting",
    "ContentPartAdded",
    "ContentPartDone",
    "ItemEvent",
    "OutputItemAdded",
    "OutputItemDone",
]


class ItemEvent(WireEvent, family="item"):
    """Structure of the answer; as a selector, the family ``item``."""


class OutputItemAdded(ItemEvent, tag="response.output_item.added"):
    """An item begins: a message, a call, a piece of reasoning."""

    item: OutputItem
    output_index: int | None = None


class OutputItemDone(ItemEvent, tag="response.output_item.done"):
    """An item is complete; *item* is all of it."""

    item: OutputItem
    output_index: int | None = None


class ContentPartAdded(ItemEvent, tag="response.content_part.added"):
    """A part of an item begins."""

    part: ContentPart
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None


class ContentPartDone(ItemEvent, tag="response.content_part.done"):
    """A part of an item is complete; *part* is all of it."""

    part: ContentPart
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None


class CompactionCompacting(ItemEvent, tag="response.compaction.compacting"):
    """The server is compacting the conversation."""

    item_id: str | None = None
    output_index: int | None = None
