"""Events of the loops that go on with a model turn by turn."""

from __future__ import annotations

from eventflow.events._base import Event

__all__ = ["TurnStarted"]


class TurnStarted(Event, tag="eventflow.turn_started", family="custom"):
    """An agent asks the model again; what follows is of this turn.

    Attributes:
        turn: Its number, from 1.
    """

    turn: int
