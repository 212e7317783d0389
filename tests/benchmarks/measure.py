"""How things are compared: the same bytes, in one process, in turns, by the CPU time of the best round.

A machine that does other work slows every contender, so only ratios between contenders of one race mean something.
The best round is the one that was disturbed least. The ratio of the medians is kept beside it, because a short round
finds a quiet moment more easily than a long one.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

__all__ = ["Lap", "Measure", "Prepare", "Race", "Row", "race", "timed", "turns"]

Lap: TypeAlias = Callable[[], int]
"""One pass over the input; gives the number of events it handled."""
Prepare: TypeAlias = Callable[[], Lap]
"""Imports what a contender needs and gives its lap; where a module is missing, the contender is left out."""
Measure: TypeAlias = Callable[[], float]
"""One measurement, in the unit of its table."""


@attrs.frozen
class Row:
    """What was measured of one contender.

    Attributes:
        name: How the table calls it.
        values: One for each round; empty when it did not run.
        absent: Why it did not run.
    """

    name: str
    values: tuple[float, ...] = ()
    absent: str = ""

    @property
    def best(self) -> float:
        """Its best round."""
        return min(self.values)

    @property
    def median(self) -> float:
        """Its median round."""
        return statistics.median(self.values)


@attrs.frozen
class Race:
    """The outcome of a race; the first row is what the others are compared with.

    Attributes:
        title: What was raced.
        unit: What the values are.
        rows: One for each contender, in the order given.
    """

    title: str
    unit: str
    rows: tuple[Row, ...]

    def ratio(self, name: str) -> float | None:
        """How many times the first row's value the best of row *name* is, or None when it did not run."""
        row = next(row for row in self.rows if row.name == name)
        return row.best / self.rows[0].best if row.values else None

    def median(self, name: str) -> float | None:
        """The median of row *name*, or None when it did not run."""
        row = next(row for row in self.rows if row.name == name)
        return row.median if row.values else None


def turns(title: str, unit: str, contenders: Mapping[str, Callable[[], Measure]], rounds: int) -> Race:
    """Measure *contenders* in turns, *rounds* times, each round from another place in their order."""
    measures: dict[str, Measure] = {}
    absent: dict[str, str] = {}
    for name, prepare in contenders.items():
        try:
            measures[name] = prepare()
        except ModuleNotFoundError as error:
            absent[name] = f"not installed ({error.name})"
    values: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(measures[name]())
    return Race(title, unit, tuple(Row(name, tuple(values.get(name, ())), absent.get(name, "")) for name in contenders))


def race(title: str, contenders: Mapping[str, Prepare], *, events: int, rounds: int) -> Race:
    """Let *contenders* race; every lap must handle *events* events, for who skips work shall not win by it."""
    measured = {name: _timed_when_prepared(name, prepare, events) for name, prepare in contenders.items()}
    return turns(title, f"ns of CPU an event, of {events:,}", measured, rounds)


def timed(name: str, lap: Lap, events: int) -> Measure:
    """The CPU time of a *lap*, in ns for each of its *events*."""

    def measure() -> float:
        gc.collect()
        start = time.process_time_ns()
        handled = lap()
        taken = time.process_time_ns() - start
        if handled != events:
            raise AssertionError(f"{name} handled {handled:,} events of {events:,}")
        return taken / events

    return measure


def _timed_when_prepared(name: str, prepare: Prepare, events: int) -> Callable[[], Measure]:
    return lambda: timed(name, prepare(), events)
