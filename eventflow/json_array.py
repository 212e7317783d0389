"""One array of JSON that arrives in pieces, as the elements that are whole: how Gemini streams unless asked for events.

Sans-IO, in linear time: every byte is looked at once.
"""

from __future__ import annotations

import re

from eventflow.errors import LimitExceeded

__all__ = ["ElementDecoder", "begins_array"]

_BEGINS = re.compile(rb'\s*+\[\s*+\{\s*+"(?:candidates|usageMetadata|promptFeedback|modelVersion|responseId|error)"')
_MARKS = re.compile(rb'["\\{}\[\]]')
_ESCAPED, _QUOTE = b"\\", b'"'


def begins_array(head: bytes) -> bool:
    """Whether a body that begins with *head* is an array of a provider's chunks."""
    return _BEGINS.match(head) is not None


class ElementDecoder:
    """Decodes one array of objects, cut into chunks anywhere, into the text of its elements.

    Attributes:
        error: Why decoding has stopped, or None.
        ended: Whether the array was closed.
    """

    def __init__(self, *, max_event_bytes: int | None) -> None:
        self.error: LimitExceeded | None = None
        self.ended = False
        self._maximum = max_event_bytes
        self._element = bytearray()  # the one under way
        self._depth = 0  # 1: between elements
        self._in_string = False
        self._escaping = False

    @property
    def unfinished(self) -> bytes:
        """The element under way."""
        return bytes(self._element)

    def feed(self, data: bytes) -> list[str]:
        """Take the next bytes and return the elements that they complete."""
        elements: list[str] = []
        start = 0  # of what belongs to the element under way
        place = int(self._escaping and bool(data))  # the first byte may be escaped by the last one
        self._escaping = self._escaping and not data
        while not (self.ended or self.error) and (match := _MARKS.search(data, place)) is not None:
            mark, place = match.group(), match.end()
            if mark == _ESCAPED:
                if self._in_string:
                    self._escaping = place == len(data)
                    place += 1
            elif mark == _QUOTE:
                self._in_string = not self._in_string
            elif not self._in_string:
                if mark in b"{[":
                    self._depth += 1
                    if self._depth == 2:
                        start = match.start()
                else:
                    self._depth -= 1
                    if self._depth == 1:
                        self._hold(data[start:place])
                        if self.error is None:
                            elements.append(self._element.decode("utf-8", "replace"))
                        self._element.clear()
                    elif self._depth == 0:
                        self.ended = True
        if self._depth > 1:
            self._hold(data[start:])
        return elements

    def _hold(self, data: bytes) -> None:
        """Keep *data*, which belongs to the element under way."""
        self._element += data
        if self._maximum is not None and len(self._element) > self._maximum:
            self.error = LimitExceeded(limit="event_bytes", maximum=self._maximum, seen=len(self._element))
