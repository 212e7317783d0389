"""What every process needs of its own: a fork copies locks that are held, but no thread that would release them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerProcess"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One value for each process that uses this object: a forked child begins with a new one, whatever its parent did.

    Safe to use from any thread. The parent's value stays where it is, untouched: to close what both have would end it
    for the parent too.

    Args:
        make: Gives the value of a process that has none.
    """

    __slots__ = ("_make", "_values")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def here(self) -> T:
        """The value of this process."""
        process = os.getpid()
        try:
            return self._values[process]
        except KeyError:
            return self._values.setdefault(process, self._make())  # of two threads, the first decides
