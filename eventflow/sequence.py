"""Sequence numbers: whether an event comes in its turn. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

from eventflow.errors import SequenceError

__all__ = ["Sequence"]

_MAX_GAPS = 1_000  # remembered, the newest: enough to know a late event from a repeated one


class Sequence:
    """Watches the numbers of one stream.

    Servers skip numbers, repeat events, send them out of order, or do not count at all though they send a number. An
    event is dropped only when it is the same as one at hand under the same number: nothing received may be lost.

    Attributes:
        expected: The number that should come next; None before the first one (a resumed stream starts in its middle).
        counted: False once the server was found not to count.
    """

    __slots__ = ("_gaps", "_note", "_replayed", "_strict", "counted", "expected")

    def __init__(self, note: Callable[[str, str], None], *, strict: bool) -> None:
        self.expected: int | None = None
        self.counted = True
        self._note = note
        self._strict = strict
        self._gaps: list[range] = []  # the numbers that have not come, ascending
        self._replayed = False

    def restart(self) -> None:
        """The source goes on with another body, which may repeat the events that came before."""
        self._replayed = True

    def admit(self, event: Any, number: int, recent: Iterable[Any]) -> bool:
        """Judge an event whose number is not the expected one; False drops it.

        Args:
            event: The event.
            number: Its number.
            recent: The pieces of text received last, oldest first: what would show if it came twice.

        Raises:
            SequenceError: Anything is out of order, in a strict run.
        """
        expected = self.expected
        if not self.counted:
            return True
        if self._replayed and expected is not None:
            if number < expected and self._gap_of(number) is None:
                return False
            self._replayed = number < expected
        if expected is None:
            self.expected = number + 1
            return True
        if number > expected:
            self._odd("gap", f"events {expected} to {number - 1} are missing before {event.type}", number)
            self._gaps.append(range(expected, number))
            del self._gaps[:-_MAX_GAPS]
            self.expected = number + 1
            return True
        place = self._gap_of(number)
        if place is not None:
            gap = self._gaps[place]
            rest = (range(gap.start, number), range(number + 1, gap.stop))
            self._gaps[place : place + 1] = [numbers for numbers in rest if numbers]
            del self._gaps[:-_MAX_GAPS]
            self._odd("order", f"event {number} ({event.type}) comes late", number)
            return True
        twins = [seen for seen in recent if getattr(seen, "sequence_number", None) == number]
        if event in twins:
            self._odd("duplicate", f"event {number} ({event.type}) came twice; the second is dropped", number)
            return False
        if not twins:  # what came under this number is not at hand any more
            self._odd("order", f"event {number} ({event.type}) comes after {expected - 1}", number)
            return True
        self._odd(
            "numbering", f"event {number} ({event.type}) comes after {expected - 1}: the server does not count", number
        )
        self.counted = False
        return True

    def _gap_of(self, number: int) -> int | None:
        """The place of the gap that *number* is missing in, or None."""
        place = bisect_right(self._gaps, number, key=attrgetter("start")) - 1
        return place if place >= 0 and number in self._gaps[place] else None

    def _odd(self, kind: str, message: str, number: int) -> None:
        if self._strict:
            assert self.expected is not None
            raise SequenceError(message, expected=self.expected, got=number)
        self._note(kind, message)
