"""Wires: the sans-IO translation of one provider's frames into events, and the choice of the right one.

A wire is made anew for every run. It may keep state; it never reads, waits or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from eventflow.errors import DecodeError, UsageError, excerpt
from eventflow.events import Event
from eventflow.limits import Limits
from eventflow.sse import Frame
from eventflow.wires.responses import ResponsesWire

__all__ = ["DirectDecoder", "Wire", "WireType", "detect", "wire_named"]

DirectDecoder = Callable[[bytes | str], Event]


class Wire(Protocol):
    """One stream's translation."""

    def feed(self, frame: Frame) -> list[Event]:
        """The events that *frame* means; an empty list when it means none yet, or is an end marker.

        Raises:
            DecodeError: The frame cannot be read.
        """
        ...

    def close(self) -> list[Event]:
        """The body has ended: the events that this means."""
        ...

    def direct(self, name: str) -> DirectDecoder | None:
        """How to decode the data of a frame with the event name *name* straight into its one event, or None.

        Only for events whose records cannot nest without end. The decoder raises msgspec's errors for what it does
        not take; `feed` is asked then.
        """
        ...


class WireType(Protocol):
    """What a wire's class offers."""

    name: str

    def __call__(self, limits: Limits) -> Wire:
        """A new wire, for one stream."""
        ...

    def fits(self, frame: Frame) -> bool:
        """Whether *frame*, the first of a stream, is of this wire."""
        ...


_WIRES: tuple[WireType, ...] = (ResponsesWire,)  # in the order in which detection asks them


def wire_named(name: str, limits: Limits) -> Wire:
    """A new wire by its name; raises `UsageError` for an unknown one."""
    for wire in _WIRES:
        if wire.name == name:
            return wire(limits)
    raise UsageError(f"no wire is called {name!r}; there is {', '.join(wire.name for wire in _WIRES)}")


def detect(frame: Frame, limits: Limits) -> Wire:
    """A new wire for the stream that begins with *frame*; raises `DecodeError` when it fits none."""
    for wire in _WIRES:
        if wire.fits(frame):
            return wire(limits)
    known = ", ".join(wire.name for wire in _WIRES)
    raise DecodeError(
        f"the stream is of no wire that is read here ({known}); wire=... reads it as one all the same. It begins "
        f"with event {excerpt(frame.event)!r}, data {excerpt(frame.data)}",
        frame=frame,
    )
