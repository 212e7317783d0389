"""Time: how long a run may wait for its source. Sans-IO: it is told the time, it looks at no clock."""

from __future__ import annotations

from math import inf
from typing import Any, TypeVar

import attrs

from eventflow.errors import StreamTimeout, UsageError

__all__ = ["Timeouts", "Timers", "timeouts_of"]

T = TypeVar("T")


def _positive(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise UsageError(f"Timeouts({attribute.name}=...) takes seconds above 0, or None for no limit, not {value!r}")


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long to wait for a server, in seconds; None waits for ever.

    They are counted in events: comments, pings and trickled bytes do not reset them, and reading those counts like
    waiting for them. They never run while a handler works.

    Attributes:
        connect: Until the connection stands. 10.
        first_event: From the request to the first event; of an answer that is no stream, to its head. 120: models
            that think say nothing for minutes.
        idle: From one event to the next. 120.
        total: All the waiting for one answer together, with the tries that failed and the pauses between them. None.
    """

    connect: float | None = attrs.field(default=10, validator=_positive)
    first_event: float | None = attrs.field(default=120, validator=_positive)
    idle: float | None = attrs.field(default=120, validator=_positive)
    total: float | None = attrs.field(default=None, validator=_positive)


def timeouts_of(given: Timeouts | None, otherwise: T) -> Timeouts | T:
    """What an argument ``timeout`` means; raises `UsageError` where it is something else."""
    if given is not None and not isinstance(given, Timeouts):
        raise UsageError(f"timeout takes Timeouts(...), not {given!r}")
    return given if given is not None else otherwise


class Timers:
    """How long one run has waited, held against its `Timeouts`.

    A wait goes from `begin` to `end`; all times are of one clock that never goes back. What goes by between two waits
    counts too, but for the time of handlers: a source that floods a run with what is no event is never waited for.

    Attributes:
        deadline: When the wait under way, or the last one, is or was too long.
    """

    __slots__ = (
        "_allowed",
        "_events",
        "_handled",
        "_name",
        "_since",
        "_timeouts",
        "_total_left",
        "_waited",
        "deadline",
    )

    def __init__(self, timeouts: Timeouts, *, waited: float = 0.0, spent: float | None = None) -> None:
        """*waited* and *spent*: seconds that have gone into this stream before its run began, as of `anew`."""
        self._timeouts = timeouts
        self._total_left = inf if timeouts.total is None else timeouts.total
        self._events: int = 0
        self._handled = 0.0
        self.deadline = inf
        self.anew(0, waited, spent)

    def anew(self, events: int, waited: float = 0.0, spent: float | None = None) -> None:
        """The source was opened, after so many *events*: the next one may take as long as a first one.

        Args:
            events: Received so far.
            waited: Seconds since the request was sent.
            spent: Seconds that all of it took, with pauses and tries that failed; by default *waited*.
        """
        self._events, self._waited = events, waited  # the seconds since the last event
        self._since = inf  # when the last wait began or ended: what goes by until the next one counts for nothing
        self._total_left -= waited if spent is None else spent
        self._allow("first_event")

    def begin(self, now: float, events: int, handled: float = 0.0) -> float:
        """A wait begins, after so many *events* and seconds of handlers; returns its deadline, which may have passed.

        Of the handlers' seconds those count that no event has followed; where there is a total, all of them.
        """
        took = now - self._since - (handled - self._handled)
        self._since, self._handled = now, handled
        if took > 0:
            self._waited += took
            self._total_left -= took
        if events != self._events:
            self._events, self._waited = events, 0.0
            if self._name != "idle":
                self._allow("idle")
        left = self._allowed - self._waited
        self.deadline = now + (left if left < self._total_left else self._total_left)
        return self.deadline

    def end(self, now: float) -> None:
        """The wait is over: something has come."""
        took, self._since = now - self._since, now
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
