"""The wire of OpenAI's Responses API: a frame is an event, in the vocabulary's own words.

Compatible servers differ in small things: no ``event:`` line, a ``[DONE]`` at the end, older names, vendor events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import msgspec

from eventflow.events import Event, decode, resolve
from eventflow.events._base import class_of_tag
from eventflow.events._decode import STRICT_ERRORS, decoder_of, is_flat
from eventflow.limits import Limits
from eventflow.sse import Frame

__all__ = ["ResponsesWire"]


class _Head(msgspec.Struct):
    """What tells a Responses frame from others."""

    type: str | None = None
    error: object = None


_read_head = msgspec.json.Decoder(_Head).decode


class ResponsesWire:
    """Frames of the Responses API as events; it keeps no state."""

    name: ClassVar[str] = "responses"

    def __init__(self, limits: Limits) -> None:
        self._max_depth = limits.json_depth

    @staticmethod
    def fits(frame: Frame) -> bool:
        """Whether the frame, or its data, names an event of the API or an error."""
        if frame.event == "error" or resolve(frame.event) is not None:
            return True
        try:
            head = _read_head(frame.data)
        except STRICT_ERRORS:
            return False
        kind = head.type or ""
        return kind.startswith("response.") or resolve(kind) is not None or head.error not in (None, False)

    def feed(self, frame: Frame) -> list[Event]:
        """The frame's one event, or none for the end marker."""
        if frame.data.strip() == "[DONE]":
            return []
        return [decode(frame.data, frame.event, max_depth=self._max_depth)]

    def close(self) -> list[Event]:
        """Nothing is held back."""
        return []

    @staticmethod
    def direct(name: str) -> Callable[[bytes | str], Event] | None:
        """The strict decoder of the event class with this wire name, where it is a flat one."""
        cls = class_of_tag(name)
        return decoder_of(cls) if cls is not None and is_flat(cls) else None
