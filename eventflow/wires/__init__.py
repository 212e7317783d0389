"""Wires: the sans-IO translation of one provider's frames into events, and the choice of the right one.

A wire is made anew for every run. It may keep state; it never reads, waits or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from eventflow.errors import DecodeError, PluginError, UsageError, excerpt
from eventflow.events import Event
from eventflow.events._decode import STRICT_ERRORS
from eventflow.limits import Limits
from eventflow.sse import Frame
from eventflow.wires.anthropic import AnthropicWire
from eventflow.wires.chat import ChatWire
from eventflow.wires.gemini import GeminiWire
from eventflow.wires.responses import ResponsesWire

__all__ = ["PINGS", "DirectDecoder", "Wire", "WireType", "detect", "tells_nothing", "wire_named"]

PINGS = {"ping", "keepalive", "keep-alive", "heartbeat"}
"""Types of events that only keep the line warm."""

DirectDecoder = Callable[[bytes | str], Event]


class Wire(Protocol):
    """One stream's translation. `direct` may be missing."""

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

        A wire that translates gives None. It may have a short way instead, a method ``delta(name, data)`` that is
        given the bytes of a frame's data, and gives the one event that they mean, or None where `feed` is to be asked.
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


_WIRES: tuple[WireType, ...] = (ResponsesWire, AnthropicWire, ChatWire, GeminiWire)  # as detection asks them
_GROUP = "eventflow.wires"


def wire_named(name: str, limits: Limits) -> Wire:
    """A new wire by its name, bundled or of an entry point; raises `UsageError` for an unknown one."""
    for wire in _WIRES:
        if wire.name == name:
            return wire(limits)
    for entry in entry_points(group=_GROUP, name=name):
        return _loaded(entry)(limits)
    installed = sorted(entry.name for entry in entry_points(group=_GROUP))
    known = ", ".join([*(wire.name for wire in _WIRES), *installed])
    raise UsageError(f"no wire is called {name!r}; there is {known}")


class _Head(msgspec.Struct):
    type: str | None = None


_read_head = msgspec.json.Decoder(_Head).decode


def _type_in(frame: Frame) -> str | None:
    """What the data of a frame call its type."""
    try:
        return _read_head(frame.data).type
    except STRICT_ERRORS:
        return None


def tells_nothing(frame: Frame) -> bool:
    """Whether a frame may come on any wire: a ping, an empty object, an end mark."""
    data = frame.data.strip()
    if data == "[DONE]" or (data == "{}" and frame.event != "error"):
        return True
    return frame.event in PINGS or _type_in(frame) in PINGS


def detect(frame: Frame, limits: Limits) -> Wire:
    """A new wire for the stream that begins with *frame*; raises `DecodeError` when it fits none.

    Whatever else has a type is taken for one of the Responses API, where vendors have events of their own.
    """
    for wire in _WIRES:
        if wire.fits(frame):
            return wire(limits)
    for entry in entry_points(group=_GROUP):
        wire_type = _loaded(entry)
        if wire_type.fits(frame):
            return wire_type(limits)
    if _type_in(frame) is not None:
        return ResponsesWire(limits)
    known = ", ".join(wire.name for wire in _WIRES)
    raise DecodeError(
        f"the stream is of no wire that is read here ({known}); wire=... reads it as one all the same. It begins "
        f"with event {excerpt(frame.event)!r}, data {excerpt(frame.data)}",
        frame=frame,
    )


def _loaded(entry: Any) -> WireType:
    """The wire's class of an entry point; raises `PluginError` where it cannot be loaded."""
    where = f"the wire {entry.name!r} of {entry.dist.name if entry.dist is not None else entry.value}"
    try:
        wire: WireType = entry.load()
    except Exception as error:
        raise PluginError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (callable(wire) and isinstance(getattr(wire, "name", None), str) and callable(getattr(wire, "fits", None))):
        raise PluginError(f"{where} is none: it needs a name, fits(frame), and to be called with limits")
    return wire


def entry_points(**selection: str) -> Any:
    """Those that are installed; looked up when needed, for that takes longer than all the rest."""
    from importlib import metadata

    return metadata.entry_points(**selection)
