"""`Pace`: how fast the text of a stream comes."""

from __future__ import annotations

import time

from eventflow.events import TextDelta
from eventflow.plugin import Plugin, on, state

__all__ = ["Pace"]


class Pace(Plugin):
    """How fast the text of an answer comes.

    Attributes:
        began: When it was asked for, by ``time.perf_counter``.
    """

    began: float
    _first: float | None = state(default=None)  # when the first and the last piece came; fresh in every run
    _last: float | None = state(default=None)

    @on(TextDelta)
    def note(self, event: TextDelta) -> None:
        """A piece has come."""
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last

    @property
    def first_text(self) -> float | None:
        """Seconds from the question to the first piece, or None."""
        return None if self._first is None else self._first - self.began

    def tokens_per_second(self, tokens: int | None) -> float | None:
        """The speed of an answer of so many tokens, from its first piece to its last; None where that says nothing."""
        if not tokens or self._first is None or self._last is None or self._last <= self._first:
            return None
        return tokens / (self._last - self._first)
