"""What came to one place of a pipeline."""

from __future__ import annotations

from itertools import groupby
from typing import TypeVar, final

import attrs

from eventflow.events import Event, TextDelta
from eventflow.plugin import Plugin, on, state
from eventflow.routing import Select, matcher_of
from eventflow.run import Run

__all__ = ["Recorder"]

E = TypeVar("E", bound=Event)

_SHOWN = 40  # of what came, in a message: more is hard to read


@final
class Recorder(Plugin):
    """Notes every event that comes to its place of the pipeline, and the hooks around them.

    ::

        run = Dispatcher(Redact(), Recorder()).run(stream("..."))
        run[Recorder].assert_saw(TextDelta, "response.completed")

    Attributes:
        runs: The recorders of the runs so far, in the order in which they started: for runs that you do not hold.
        events: The run's events.
        calls: The run's hooks and the types of its events, in order: ``start``, ..., ``finish``, ``stop``.
    """

    runs: list[Recorder] = attrs.field(factory=list["Recorder"], init=False, repr=False)
    events: list[Event] = state(factory=list[Event])
    calls: list[str] = state(factory=list[str])

    def __repr__(self) -> str:
        return f"Recorder({len(self.events)} events)"

    def start(self, run: Run) -> None:
        """Note it."""
        self.runs.append(self)
        self.calls.append("start")

    @on("*")
    def note(self, event: Event) -> None:
        """Note it."""
        self.events.append(event)
        self.calls.append(event.type)

    def finish(self, run: Run) -> None:
        """Note it."""
        self.calls.append("finish")

    def stop(self, run: Run) -> None:
        """Note it."""
        self.calls.append("stop")

    @property
    def types(self) -> list[str]:
        """The wire names of the events."""
        return [event.type for event in self.events]

    @property
    def text(self) -> str:
        """The pieces of text, joined."""
        return "".join(event.delta for event in self.of(TextDelta))

    def of(self, cls: type[E]) -> list[E]:
        """The events of a class."""
        return [event for event in self.events if isinstance(event, cls)]

    def assert_saw(self, *selects: Select) -> list[Event]:
        """Check that events came that these select, in this order, others between them; gives them.

        Args:
            selects: Event classes, wire names, families or patterns, as in ``on(...)``.

        Raises:
            AssertionError: They did not; it tells what is missing, and what came.
            UsageError: A selector can never match.
        """
        found = list[Event]()
        place = 0
        for number, matches in enumerate(map(matcher_of, selects)):
            while place < len(self.events) and not matches(type(self.events[place]), self.events[place].type):
                place += 1
            if place == len(self.events):
                after = f" after {found[-1].type}" if found else ""
                raise AssertionError(f"no {_named(selects[number])} came{after}; {self._told()}")
            found.append(self.events[place])
            place += 1
        return found

    def assert_saw_no(self, *selects: Select) -> None:
        """Check that no event came that one of these selects.

        Raises:
            AssertionError: One did; it tells which, and what came.
            UsageError: A selector can never match.
        """
        for matches in map(matcher_of, selects):
            for place, event in enumerate(self.events):
                if matches(type(event), event.type):
                    raise AssertionError(f"{_named(matches.select)} came, as event {place}: {event}; {self._told()}")

    def _told(self) -> str:
        if self.runs and self not in self.runs:
            return "this Recorder is a dispatcher's template and hears nothing: ask run[Recorder], or its .runs"
        if not self.events:
            return "nothing came"
        came = [(name, len(list(each))) for name, each in groupby(self.types)]
        shown = [f"{name} ({count} times)" if count > 1 else name for name, count in came[:_SHOWN]]
        return f"what came: {', '.join(shown)}{', ...' if len(came) > _SHOWN else ''}"


def _named(select: Select) -> str:
    return select.__name__ if isinstance(select, type) else repr(select)
