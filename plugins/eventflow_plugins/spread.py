"""`Spread`: how any number of values in seconds are spread, in a bounded amount of memory."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from typing import Final

import attrs

__all__ = ["FEW", "Histogram", "Spread"]

FEW: Final = 4096
"""Values that are kept as they are; more than these are counted by size."""

_PRECISION: Final = 0.01  # of a value counted by its size: half of a bucket's width
_BASE: Final = (1 + _PRECISION) / (1 - _PRECISION)
_SMALLEST: Final = 1e-6  # seconds; what is shorter counts as none
_LARGEST: Final = 1e9  # seconds: with it there are 1,729 buckets


@attrs.frozen
class Spread:
    """How values in seconds are spread.

    Attributes:
        count: How many there are.
        p50: Half of them are no larger; None where there is none.
        p99: 99 of 100 are no larger.
        max: The largest, exactly.
    """

    count: int = 0
    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Histogram:
    """Values in seconds: exact while they are few, by size when they are many.

    A percentile is one of the values (the nearest rank) while there are at most 4,096; beyond that it is within 1 % of
    it, and what is shorter than a microsecond counts as 0.
    """

    __slots__ = ("buckets", "count", "few", "maximum")

    def __init__(self) -> None:
        self.few: list[float] = []
        self.buckets: Counter[int] = Counter()  # by the power of the base that is their upper end
        self.count = 0
        self.maximum = 0.0

    def add(self, values: list[float]) -> None:
        """Take more of them."""
        if not values:
            return
        self.count += len(values)
        self.maximum = max(self.maximum, *values)
        self.few += values
        if len(self.few) > FEW or self.buckets:
            self._sort_in(sorted(self.few))
            self.few = []

    def merge(self, other: Histogram) -> None:
        """Take all that another one has."""
        self.add(other.few)
        if other.buckets:
            self._sort_in(sorted(self.few))
            self.few = []
            self.buckets.update(other.buckets)
            self.count += other.count - len(other.few)
            self.maximum = max(self.maximum, other.maximum)

    def copy(self) -> Histogram:
        """Another one with the same values."""
        copied = Histogram()
        copied.merge(self)
        return copied

    def spread(self) -> Spread:
        """How they are spread."""
        if not self.count:
            return Spread()
        if not self.buckets:
            few = sorted(self.few)
            return Spread(self.count, few[_rank(0.5, self.count)], few[_rank(0.99, self.count)], self.maximum)
        return Spread(self.count, self._at(_rank(0.5, self.count)), self._at(_rank(0.99, self.count)), self.maximum)

    def _sort_in(self, values: list[float]) -> None:
        """Count sorted values: one search for each bucket that they are in."""
        place = bisect.bisect_left(values, _SMALLEST)
        if place:
            self.buckets[_bucket(_SMALLEST) - 1] += place
        while place < len(values):
            bucket = _bucket(min(values[place], _LARGEST))
            end = max(place + 1, bisect.bisect_right(values, _BASE**bucket, place))
            end = end if values[place] < _LARGEST else len(values)
            self.buckets[bucket] += end - place
            place = end

    def _at(self, rank: int) -> float:
        buckets = sorted(self.buckets)
        upto = list(itertools.accumulate(self.buckets[bucket] for bucket in buckets))
        bucket = buckets[bisect.bisect_right(upto, rank)]
        if bucket < _bucket(_SMALLEST):
            return 0.0
        return min(self.maximum, 2 * _BASE**bucket / (_BASE + 1))  # the middle: as far from one end as the other


def _bucket(value: float) -> int:
    return math.ceil(math.log(value, _BASE))


def _rank(part: float, count: int) -> int:
    return math.ceil(part * count) - 1
