"""Reasoning: what the model thinks, in full or as a summary."""

from __future__ import annotations

from eventflow.events._base import WireEvent
from eventflow.events.response import SummaryText

__all__ = [
    "ReasoningEvent",
    "ReasoningSummaryPartAdded",
    "ReasoningSummaryPartDone",
    "ReasoningSummaryTextDelta",
    "ReasoningSummaryTextDone",
    "ReasoningTextDelta",
    "ReasoningTextDone",
]


class ReasoningEvent(WireEvent, family="reasoning"):
    """What the model thinks; as a selector, the family ``reasoning``."""


class ReasoningTextDelta(ReasoningEvent, tag="response.reasoning_text.delta"):
    """The next piece of the reasoning itself."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None


class ReasoningTextDone(ReasoningEvent, tag="response.reasoning_text.done"):
    """A text of the reasoning is complete; *text* is all of it."""

    text: str
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None


class ReasoningSummaryPartAdded(ReasoningEvent, tag="response.reasoning_summary_part.added"):
    """A paragraph of the summary begins."""

    part: SummaryText
    item_id: str | None = None
    output_index: int | None = None
    summary_index: int | None = None


class ReasoningSummaryPartDone(ReasoningEvent, tag="response.reasoning_summary_part.done"):
    """A paragraph of the summary is complete; *status* is ``incomplete`` when it was cut off."""

    part: SummaryText
    item_id: str | None = None
    output_index: int | None = None
    summary_index: int | None = None
    status: str | None = None


class ReasoningSummaryTextDelta(ReasoningEvent, tag="response.reasoning_summary_text.delta"):
    """The next piece of a paragraph of the summary."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None
    summary_index: int | None = None


class ReasoningSummaryTextDone(ReasoningEvent, tag="response.reasoning_summary_text.done"):
    """The text of a paragraph is complete; *text* is all of it."""

    text: str
    item_id: str | None = None
    output_index: int | None = None
    summary_index: int | None = None
