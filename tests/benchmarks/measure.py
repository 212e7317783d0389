"""How things are compared: the same bytes, in one process, in turns, by the CPU time of the best round.

A machine that does other work slows every contender, so only ratios between contenders of one race mean something.
The best round is the one that was disturbed least; the ratio of the medians is shown beside it, because a short round
finds a quiet moment more easily than a long one.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import TypeAlias

import attrs

__all__ = ["Contender", "Lap", "Race", "Row", "race"]

Lap: TypeAlias = Callable[[], int]
"""One pass over the input; gives the number of events it handled, which must be the same for all in a race."""


@attrs.frozen
class Contender:
    """One side of a race.

    Attributes:
        name: How the table calls it.
        prepare: Imports what it needs and gives its lap; a missing module leaves the contender out.
    """

    name: str
    prepare: Callable[[], Lap]


@attrs.frozen
class Row:
    """What was measured of one contender.

    Attributes:
        name: How the table calls it.
        seconds: The CPU seconds of every round; empty when it did not run.
        absent: Why it did not run.
    """

    name: str
    seconds: tuple[float, ...] = ()
    absent: str = ""

    @property
    def best(self) -> float:
        """The CPU seconds of its best round."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The CPU seconds of its median round."""
        return statistics.median(self.seconds)


@attrs.frozen
class Race:
    """The outcome of a race; the first row is what the others are compared with.

    Attributes:
        title: What was raced.
        events: Events handled in every lap.
        rows: One for each contender, in the order given.
    """

    title: str
    events: int
    rows: tuple[Row, ...]

    def ratio(self, name: str) -> float | None:
        """How many times the first row's CPU time the row *name* took, or None when it did not run."""
        row = next(row for row in self.rows if row.name == name)
        return row.best / self.rows[0].best if row.seconds else None


def race(title: str, contenders: list[Contender], *, events: int, rounds: int) -> Race:
    """Let *contenders* run in turns, *rounds* times, each round in another order.

    Args:
        title: What is raced.
        contenders: The first is what the others are compared with.
        events: How many events every lap must handle: a contender that skips work shall not win by it.
        rounds: How often each runs.
    """
    laps: dict[str, Lap] = {}
    absent: dict[str, str] = {}
    for contender in contenders:
        try:
            laps[contender.name] = contender.prepare()
        except ModuleNotFoundError as error:
            absent[contender.name] = f"not installed ({error.name})"
    seconds: dict[str, list[float]] = {name: [] for name in laps}
    names = list(laps)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(_time(laps[name], events, name))
    rows = [Row(entry.name, tuple(seconds.get(entry.name, ())), absent.get(entry.name, "")) for entry in contenders]
    return Race(title, events, tuple(rows))


def _time(lap: Lap, events: int, name: str) -> float:
    gc.collect()
    start = time.process_time()
    handled = lap()
    taken = time.process_time() - start
    if handled != events:
        raise AssertionError(f"{name} handled {handled:,} events of {events:,}")
    return taken
