"""What goes wrong: errors that the API reports in the stream, and failures of handlers that were isolated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from eventflow.events._base import Event, WireEvent, encode_json
from eventflow.events._names import resolve

__all__ = ["ErrorEvent", "HandlerFailed", "StreamError"]


class ErrorEvent(WireEvent, family="error"):
    """Something went wrong; as a selector, the family ``error``."""


class StreamError(ErrorEvent, tag="error"):
    """The API reports an error inside the stream, in whatever shape it came.

    Attributes:
        message: The API's words, ``""`` when it sent none.
        code: Its code, as text.
        param: The request parameter that it blames.
        error_type: Its error type (the wire's ``error.type``).
        status: The HTTP status that it names.
    """

    message: str = ""
    code: str | None = None
    param: str | None = None
    error_type: str | None = None
    status: int | None = None

    @classmethod
    def from_wire(cls, data: object, sequence_number: int | None = None) -> StreamError:
        """Read any of the shapes seen: flat, nested under ``error``, a bare ``error``, a string, plain text.

        Source: the documented event is flat, the live API sends it nested (reported September 2026); compatible
        servers send the rest.
        """
        outer = cast("Mapping[str, object]", data) if isinstance(data, Mapping) else {"error": data}
        inner = outer.get("error")
        if isinstance(inner, Mapping):
            fault = cast("Mapping[str, object]", inner)
        elif inner is None:
            fault = outer
        else:  # a string, which is the message unless one stands beside it
            fault = {"message": inner, **{name: value for name, value in outer.items() if value is not None}}
        kind = _text(fault.get("type")) or ""
        extra = outer.get("eventflow_extra")
        return cls(
            message=_text(fault.get("message")) or _text(fault.get("detail")) or "",
            code=_text(fault.get("code")),
            param=_text(fault.get("param")),
            error_type=kind if kind and resolve(kind) is not cls else _text(fault.get("error_type")),
            status=_status(outer.get("status")) or _status(fault.get("status")),
            sequence_number=sequence_number,
            extra=cast("dict[str, Any]", extra) if isinstance(extra, dict) else None,
        )


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return encode_json(value).decode()


def _status(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class HandlerFailed(ErrorEvent, tag="eventflow.handler_failed", gc=True):
    """A handler registered with ``errors="isolate"`` raised; the run went on.

    The collector sees it, unlike other events: its error knows the frames that it came through, and so the run.

    Attributes:
        error: What it raised.
        handler: Its qualified name.
        event: The event that it was given.
    """

    error: Any
    handler: str = ""
    event: Event | None = None
