"""Time: how long a run may wait for its source. Sans-IO: it is told the time, it looks at no clock."""

from __future__ import annotations

from math import inf
from typing import Any

import attrs

from eventflow.errors import StreamTimeout, UsageError

__all__ = ["Timeouts", "Timers"]


def _positive(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise UsageError(f"Timeouts({attribute.name}=...) takes seconds above 0, or None for no limit, not {value!r}")


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long to wait for a server, in seconds; None waits for ever.

    They are counted in events: comments, pings and trickled bytes do not reset them. They run only while the source is
    waited for, never while a handler works.

    Attributes:
        connect: Until the connection stands. 10.
        first_event: From the request to the first event; of an answer that is no stream, to its head. 120: models
            that think say nothing for minutes.
        idle: From one event to the next. 120.
        total: All the waiting for one stream together. None.
    """

    connect: float | None = attrs.field(default=10, validator=_positive)
    first_event: float | None = attrs.field(default=120, validator=_positive)
    idle: float | None = attrs.field(default=120, validator=_positive)
    total: float | None = attrs.field(default=None, validator=_positive)


class Timers:
    """How long one run has waited, held against its `Timeouts`.

    A wait goes from `begin` to `end`. Who cannot tell its end just begins the next one: where no event has come
    between two beginnings, nothing but waiting has happened. All times are of one clock that never goes back.

    Attributes:
        deadline: When the wait under way, or the last one, is or was too long.
        exact: Whether the end of every wait must be told: the sum of them counts.
    """

    __slots__ = ("_allowed", "_events", "_name", "_since", "_timeouts", "_total_left", "_waited", "deadline", "exact")

    def __init__(self, timeouts: Timeouts, *, waited: float = 0.0) -> None:
        """*waited*: seconds that have gone into this stream before its run began."""
        self._timeouts = timeouts
        self._total_left = inf if timeouts.total is None else timeouts.total - waited
        self.exact = timeouts.total is not None
        self.deadline = inf
        self.anew(0, waited)

    def anew(self, events: int, waited: float = 0.0) -> None:
        """The source was opened, after so many *events*: the next one may take as long as a first one."""
        self._events, self._waited = events, waited  # seconds since the last event
        self._since: float | None = None
        self._allow("first_event")

    def begin(self, now: float, events: int) -> float:
        """A wait begins, after so many *events*; returns its deadline, which may have passed."""
        if events != self._events:
            self._events, self._waited = events, 0.0
            if self._name != "idle":
                self._allow("idle")
        elif self._since is not None:
            self._waited += now - self._since
        self._since = now
        self.deadline = now + self._allowed - self._waited
        if self.exact and now + self._total_left < self.deadline:
            self.deadline = now + self._total_left
        return self.deadline

    def end(self, now: float) -> None:
        """The wait is over: something has come."""
        assert self._since is not None
        took = now - self._since
        self._since = None
        self._waited += took
        self._total_left -= took

    def error(self) -> StreamTimeout:
        """What a wait beyond the `deadline` ends with."""
        name = "total" if self._total_left < self._allowed - self._waited else self._name
        seconds = getattr(self._timeouts, name)
        what = "was waited for longer than" if name == "total" else "sent no event for"
        return StreamTimeout(
            f"the source {what} {seconds:g} s; {self._events} events were received, the response so far is in "
            f".partial; raise Timeouts({name}=...) if it needs more",
            timer=name,
            seconds=seconds,
        )

    def _allow(self, name: str) -> None:
        allowed = getattr(self._timeouts, name)
        self._name, self._allowed = name, inf if allowed is None else allowed
