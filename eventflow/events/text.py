"""Text and refusal: what the model says to the user."""

from __future__ import annotations

from eventflow.events._base import WireEvent
from eventflow.events.response import Annotation, Logprobs

__all__ = ["RefusalDelta", "RefusalDone", "RefusalEvent", "TextAnnotationAdded", "TextDelta", "TextDone", "TextEvent"]


class TextEvent(WireEvent, family="text"):
    """Text of the answer; as a selector, the family ``text``."""


class TextDelta(TextEvent, tag="response.output_text.delta"):
    """The next piece of text."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    logprobs: Logprobs = None


class TextDone(TextEvent, tag="response.output_text.done"):
    """A text is complete; *text* is all of it."""

    text: str
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    logprobs: Logprobs = None


class TextAnnotationAdded(TextEvent, tag="response.output_text.annotation.added"):
    """A citation was added to a text."""

    annotation: Annotation | None = None
    annotation_index: int | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None


class RefusalEvent(WireEvent, family="refusal"):
    """Words of refusal; as a selector, the family ``refusal``."""


class RefusalDelta(RefusalEvent, tag="response.refusal.delta"):
    """The next piece of a refusal."""

    delta: str
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None


class RefusalDone(RefusalEvent, tag="response.refusal.done"):
    """A refusal is complete; *refusal* is all of it."""

    refusal: str
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
