"""What all wires do that translate: a frame's JSON object in, what the assembler makes of it out. Sans-IO."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import msgspec

from eventflow.errors import DecodeError, excerpt
from eventflow.events import Event, StreamError, Usage
from eventflow.events._decode import STRICT_ERRORS, check_depth, read_leniently
from eventflow.limits import Limits
from eventflow.sse import Frame
from eventflow.wires.assembly import Assembler

__all__ = ["TranslatingWire", "spoken"]

_END = "[DONE]"  # of Chat Completions; gateways add it to every wire

_read_any = msgspec.json.Decoder().decode


def _read(data: str) -> Any:
    try:
        return _read_any(data)
    except STRICT_ERRORS:
        return read_leniently(data)


def spoken(value: object, where: str) -> str:
    """A piece of what the model says; raises `DecodeError` where it is no text, for else it would be lost unseen."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    raise DecodeError(f"{where} is {type(value).__name__}, not text: {excerpt(repr(value))}")


class TranslatingWire(abc.ABC):
    """Frames of another provider as events of a Responses stream: what a wire has besides what its frames mean."""

    name: ClassVar[str]
    _frame_name: ClassVar[str]  # what a frame is called in messages
    _has_end_mark: ClassVar[bool] = False  # whether the end mark is the wire's own, and so the end of the answer

    def __init__(self, limits: Limits) -> None:
        self._max_depth = limits.json_depth
        self._assembler = Assembler(limits)
        self._kept: dict[str, Any] = {}  # beyond the vocabulary, as it was last said
        self._over = False

    # --- what a wire knows -------------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """Whether the end of the body would be the end of the answer."""

    @abc.abstractmethod
    def _hear(self, value: dict[str, Any], name: str, /) -> None:
        """Tell the assembler what the object of a frame with the event name *name* means."""

    @abc.abstractmethod
    def _end(self) -> None:
        """Tell the assembler that the answer is over; called once."""

    @abc.abstractmethod
    def _usage_so_far(self) -> Usage | None:
        """The tokens that were told."""

    # --- what all do -------------------------------------------------------------------------------------------------

    def delta(self, name: str, data: bytes) -> Event | None:
        """The short way, of a wire that has one."""
        return None

    @staticmethod
    def direct(name: str) -> Callable[[bytes | str], Event] | None:
        """None: no frame is an event as it stands."""
        return None

    def feed(self, frame: Frame) -> list[Event]:
        """The events that a frame means.

        Raises:
            DecodeError: Its data is no JSON object, or lacks what it must have.
            LimitExceeded: It is nested too deep, or what it is put together with has become too deep or too long, or
                those before it brought too much.
        """
        data = frame.data.strip()
        if self._over or not data:
            return []
        self._assembler.check()  # of the frames before: nobody else counts where no response is kept
        if not data.startswith(_END):
            self._hear(self._object(frame, data), frame.event)
        elif self._has_end_mark:
            self._finish()
        return self._assembler.take()

    def close(self) -> list[Event]:
        """The body has ended: that is the end of the answer if a reason for it was given."""
        if self.finished:
            self._finish()
        return self._assembler.take()

    def _object(self, frame: Frame, data: str) -> dict[str, Any]:
        """The object that a frame's data is; of an error, which may be plain text, one that holds it."""
        check_depth(data, self._max_depth)
        try:
            value = _read(data)
        except (ValueError, RecursionError):
            value = data if frame.event == "error" else None
        if isinstance(value, dict):
            return cast("dict[str, Any]", value)
        if frame.event == "error":
            return {"error": value}
        raise DecodeError(f"{self._frame_name} is no JSON object: {excerpt(data)}", frame=frame)

    def _keep(self, extra: Mapping[str, Any], *, latest: bool = False) -> None:
        """Keep for the next event what has changed since it was last said; see `Assembler.keep`."""
        changed = {
            name: value
            for name, value in extra.items()
            if value is not None and (name not in self._kept or self._kept[name] != value)
        }
        self._kept.update(changed)
        self._assembler.keep(changed, latest=latest)

    def _finish(self) -> None:
        """The answer is over, if it was not before."""
        if not self._over:
            self._over = True
            self._end()

    def _fail(self, error: StreamError) -> None:
        """The provider reports an error."""
        self._over = True
        self._assembler.fail(error, usage=self._usage_so_far())
