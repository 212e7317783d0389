"""What every process needs of its own: a fork copies locks that are held, but no thread that would release them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["PerProcess"]

T = TypeVar("T")

_ALL: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()  # in this process; a fork tells each of them


class PerProcess(Generic[T]):
    """One value for each process that uses this object: a forked child begins with a new one, whatever its parent did.

    Safe to use from any thread. The parent's value stays in the child, untouched: to close what both have would end it
    for the parent too.

    Args:
        make: Gives the value of a process that has none.
    """

    __slots__ = ("__weakref__", "_inherited", "_made", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[None, T] = {}  # one at most
        self._inherited: list[dict[None, T]] = []
        _ALL.add(self)

    def known(self) -> T | None:
        """The value of this process, or None where it has none yet."""
        return self._made.get(None)

    def here(self) -> T:
        """The value of this process."""
        try:
            return self._made[None]
        except KeyError:
            return self._made.setdefault(None, self._make())  # of two threads, the first decides

    def _begin_anew(self) -> None:
        self._inherited.append(self._made)
        self._made = {}


def _forked() -> None:
    for each in [*_ALL]:
        each._begin_anew()


if hasattr(os, "register_at_fork"):  # where there are no forks there is none
    os.register_at_fork(after_in_child=_forked)
