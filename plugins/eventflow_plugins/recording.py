"""The format of recordings: JSON Lines, from items of sources and back. Pure; docs/record.md describes it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from math import inf
from typing import Any, Final, TypeAlias, cast, get_args

import attrs

from eventflow import errors
from eventflow.engine import ANEW
from eventflow.errors import DecodeError, EventflowError, Phase, StreamInterrupted, UsageError, excerpt
from eventflow.events import Event, decode_mapping, encode_json
from eventflow.printable import printable
from eventflow.sdks import error_event_in
from eventflow.sse import Frame

__all__ = [
    "VERSION",
    "APIError",
    "End",
    "Header",
    "Item",
    "header_line",
    "item_line",
    "last_line",
    "read_header",
    "read_line",
]

FORMAT: Final = "eventflow-recording"
VERSION: Final = 1
_OURS: Final[Mapping[str, Any]] = {name: getattr(errors, name) for name in errors.__all__ if name != "Phase"}
_TOLD: Final = ("message", "phase", "retryable", "partial", "run", "frame")  # elsewhere, or not at all
_SCALARS: Final = (str, int, float, bool, type(None))

_Object: TypeAlias = dict[str, Any]


class APIError(Exception):
    """What an SDK raised for an error event, by the name and the attribute that it is known by."""

    def __init__(self, message: str, body: object) -> None:
        super().__init__(message)
        self.body = body


@attrs.frozen
class Header:
    """The first line.

    Attributes:
        time: When the run began, in Unix seconds.
        run: Its id.
        wire: Which wire it was told to read, or None where the frames tell.
    """

    time: float
    run: str
    wire: str | None


@attrs.frozen
class Item:
    """A line between the first and the last.

    Attributes:
        at: When it came, in seconds since the run began.
        value: What the source gave: bytes, a frame, a mapping, an event, or `eventflow.engine.ANEW`.
        lost: What kind of thing it was, where it could not be recorded; else "".
    """

    at: float
    value: Any
    lost: str = ""


@attrs.frozen
class End:
    """The last line.

    Attributes:
        at: When the run ended, in seconds since it began.
        status: As of the run.
        events: How many were received.
        error: What the stream ended with, or None.
        raised: What reading the source raised, or None: an error of ours, or an `APIError`.
    """

    at: float
    status: str
    events: int
    error: EventflowError | None
    raised: Exception | None


# --- to lines --------------------------------------------------------------------------------------------------------


def header_line(header: Header) -> bytes:
    """The first line of a recording."""
    return _line({"format": FORMAT, "version": VERSION, **attrs.asdict(header)})


def item_line(at: float, item: object) -> bytes:
    """The line of what a source gave, *at* so many seconds after the run began."""
    try:
        return _line({"t": round(at, 6), **_told(item)})
    except Exception:  # somebody else's object, which the run itself will not take either
        return _line({"t": round(at, 6), "lost": type(item).__name__})


def _told(item: Any) -> _Object:
    if isinstance(item, bytes):
        try:
            return {"text": item.decode()}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(item).decode()}
    if item is ANEW:
        return {"anew": True}
    if isinstance(item, Event):
        return {"event": json.loads(item.to_json())}
    if isinstance(item, Frame):
        return {"frame": {"event": item.event, "data": item.data, "id": item.id}}
    if not isinstance(item, Mapping):  # an SDK's object, which a run takes by the same call
        item = item.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    return {"mapping": dict(cast("Mapping[str, Any]", item))}


def last_line(
    at: float, status: str, events: int, wire: str | None, error: EventflowError | None, raised: Exception | None
) -> bytes:
    """The last line: how the run ended, and what reading the source raised."""
    told = {"status": status, "events": events, "wire": wire, "error": error and _error(error)}
    return _line({"t": round(at, 6), **told, "raised": raised and _raised(raised, error)})


def _error(error: EventflowError) -> _Object:
    details = {name: value for name, value in vars(error).items() if name not in _TOLD and isinstance(value, _SCALARS)}
    if error.message != str(error):  # it is the API's own text
        details["message"] = error.message
    name = next(cls.__name__ for cls in type(error).__mro__ if _OURS.get(cls.__name__) is cls)
    about = {"class": name, "message": str(error), "phase": error.phase, "retryable": error.retryable}
    return about | ({"details": details} if details else {})


def _raised(raised: Exception, error: EventflowError | None) -> _Object:
    if error_event_in(raised) is not None:
        return {"class": "APIError", "message": str(raised), "body": cast("Any", raised).body}
    if isinstance(raised, EventflowError):
        return _error(raised)
    if isinstance(error, StreamInterrupted) and error.__cause__ is raised:
        return _error(error)
    return _error(StreamInterrupted(f"the source failed: {type(raised).__name__}: {raised}"))


def _line(record: _Object) -> bytes:
    return printable(encode_json(record).decode()).encode() + b"\n"


# --- and back --------------------------------------------------------------------------------------------------------


def read_header(line: bytes, name: str) -> Header:
    """The header that *line* is; raises `UsageError` where the file called *name* is no recording, or a newer one."""
    record = _object(line)
    if record is None or record.get("format") != FORMAT:
        raise UsageError(f"{name!r} is no recording: it begins with {excerpt(line)!r}; Record(path) makes one")
    version = record.get("version")
    if version != VERSION:
        raise UsageError(
            f"{name!r} is a recording of version {ascii(version)[:40]}, and this eventflow reads version {VERSION}: "
            "use the one that wrote it, or a newer one"
        )
    time, run, wire = record.get("time"), record.get("run"), record.get("wire")
    if not (_is_number(time) and isinstance(run, str) and (wire is None or isinstance(wire, str))):
        raise UsageError(f"the first line of the recording {name!r} is damaged: {excerpt(line)}")
    return Header(cast("float", time), run, wire)


def read_line(line: bytes, number: int) -> Item | End | None:
    """A line after the header; None where it is one that was cut.

    Raises:
        DecodeError: It is none of a recording.
    """
    record = _object(line)
    if record is None and not line.endswith(b"\n"):
        return None
    try:
        if record is None or not _is_number(record["t"]) or record["t"] < 0:
            raise ValueError("it has no time")
        return _end(record) if "status" in record else Item(record["t"], *_value(record))
    except (KeyError, TypeError, ValueError, AttributeError, EventflowError) as error:
        raise DecodeError(
            f"line {number} of the recording is damaged ({type(error).__name__}: {error}): {excerpt(line)}"
        ) from error


def _object(line: bytes) -> _Object | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("_Object", record) if isinstance(record, dict) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -inf < value < inf


def _value(record: _Object) -> tuple[Any, str]:
    (kind,) = set(record) - {"t"}
    told = record[kind]
    match kind:
        case "text":
            return told.encode(), ""
        case "base64":
            return base64.b64decode(told, validate=True), ""
        case "anew":
            return ANEW, ""
        case "event":
            return decode_mapping(_checked(told)), ""
        case "frame":
            if not all(isinstance(part, str) for part in _checked(told).values()):
                raise ValueError("a frame is made of text")
            return Frame(**told), ""
        case "mapping":
            return _checked(told), ""
        case "lost":
            return None, str(told) or "object"
        case _:
            raise ValueError(f"nothing is told by {kind!r}")


def _checked(told: object) -> _Object:
    if not isinstance(told, dict):
        raise ValueError(f"an object is told by {type(told).__name__}")
    return cast("_Object", told)


def _end(record: _Object) -> End:
    status, events, error, raised = record["status"], record["events"], record["error"], record["raised"]
    if not (isinstance(status, str) and isinstance(events, int)):
        raise ValueError("it tells no status, or no number of events")
    failure: Exception | None = None
    if raised is not None:
        failure = APIError(raised["message"], raised["body"]) if raised["class"] == "APIError" else _remade(raised)
    return End(record["t"], status, events, None if error is None else _remade(error), failure)


def _remade(told: _Object) -> EventflowError:
    message = printable(str(told["message"]))
    error: EventflowError = _OURS.get(told["class"], StreamInterrupted)(message)
    error.args = (message,)  # which some classes make a longer one of
    for name, value in told.get("details", {}).items():
        if name == "message":
            error.message = printable(str(value))
        elif name in vars(error) and name not in _TOLD:
            setattr(error, name, value)
    error.phase = told["phase"] if told["phase"] in get_args(Phase) else None
    error.retryable = bool(told["retryable"])
    return error
