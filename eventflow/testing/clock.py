"""A clock that goes when it is told to."""

from __future__ import annotations

import math
from typing import final

from eventflow.errors import UsageError
from eventflow.waiting import checkpoint

__all__ = ["Clock"]


@final
class Clock:
    """For ``Dispatcher(clock=...)`` and whoever else asks what time it is, or sleeps. One thread at a time.

    >>> clock = Clock()
    >>> clock.advance(2.5)
    >>> clock()
    2.5

    Attributes:
        now: Seconds; where it stands.
        slept: What was asked of `sleep` and `asleep`, in order.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        """What time it is."""
        return self.now

    def __repr__(self) -> str:
        return f"Clock({self.now!r})"

    def advance(self, seconds: float) -> None:
        """Let so many seconds go by; raises `UsageError` where they are less than none, or no number."""
        if not 0 <= seconds < math.inf:
            raise UsageError(f"a clock goes on, and not by {seconds!r} s; give a number from 0 on")
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        """For whoever takes a function that sleeps: the time goes by at once."""
        self.advance(seconds)
        self.slept.append(seconds)

    async def asleep(self, seconds: float) -> None:
        """`sleep`, async; lets others go on."""
        self.sleep(seconds)
        await checkpoint()
